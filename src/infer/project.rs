//! The files as the ecosystems want them: manifests by name, texts within limits, paths put together.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashSet},
};

use super::{Files, Unreadable};
use crate::domain::config::{
    self, Mistake,
    mistake::{MAX_MISTAKES, mask, shown},
    tree::At,
};

/// The largest manifest that is read, in bytes.
const MAX_MANIFEST: usize = 1024 * 1024;
/// The most manifests of one name that are looked at, nearest to the root first.
const MAX_MANIFESTS: usize = 300;

/// Folders that hold what is not the repository's own work, or not for running.
const NOT_OURS: [&str; 14] = [
    "node_modules",
    "target",
    "vendor",
    "third_party",
    "bower_components",
    "dist",
    "testdata",
    "fixtures",
    "__fixtures__",
    "__tests__",
    "examples",
    "example",
    "fuzz",
    "archetype-resources",
];

/// Build files that apps are inferred from, and what reads them.
const BUILD_FILES: [(&str, &str); 4] =
    [("Cargo.toml", "Cargo"), ("pom.xml", "Maven"), ("package.json", "npm"), ("pnpm-workspace.yaml", "pnpm")];

/// Folders whose projects are what tests and generators work on as often as apps: there one may be broken on purpose.
const MATERIAL: [&str; 13] = [
    "test",
    "tests",
    "testing",
    "spec",
    "specs",
    "e2e",
    "template",
    "templates",
    "generators",
    "scaffold",
    "skeleton",
    "boilerplate",
    "snippets",
];

/// The files of a repository, indexed.
pub(super) struct Project<'f> {
    files: &'f dyn Files,
    paths: HashSet<&'f str>,
    manifests: BTreeMap<&'f str, Vec<&'f str>>,
    problems: RefCell<Vec<String>>,
    unreadable: RefCell<Vec<Unreadable>>,
}

impl<'f> Project<'f> {
    pub(super) fn new(files: &'f dyn Files) -> Self {
        let mut manifests: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut problems = Vec::new();
        for path in files.list() {
            let (folder, name) = split(path);
            let known = matches!(
                name,
                "Cargo.toml"
                    | "pom.xml"
                    | "package.json"
                    | "go.mod"
                    | "pyproject.toml"
                    | "build.gradle"
                    | "build.gradle.kts"
            );
            if known
                && !folder.split('/').any(|part| NOT_OURS.contains(&part) || part.starts_with('.'))
                && !is_test_data(folder)
            {
                manifests.entry(name).or_default().push(path);
            }
        }
        for (name, found) in &mut manifests {
            found.sort_by_key(|path| (path.matches('/').count(), *path));
            if found.len() > MAX_MANIFESTS {
                problems.push(format!("Only {MAX_MANIFESTS} of {} files named {name} were looked at.", found.len()));
                found.truncate(MAX_MANIFESTS);
            }
        }
        let paths = files.list().iter().map(String::as_str).collect();
        Self { files, paths, manifests, problems: RefCell::new(problems), unreadable: RefCell::default() }
    }

    /// Paths of all files with this name that are the repository's own, nearest to the root first.
    pub(super) fn manifests(&self, name: &str) -> &[&'f str] {
        self.manifests.get(name).map_or(&[], Vec::as_slice)
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.paths.contains(path)
    }

    /// The paths directly or further below a folder.
    pub(super) fn below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'f str> + 'a {
        self.files.list().iter().map(String::as_str).filter(move |path| {
            folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
        })
    }

    /// A text file, if it is there and not too large. What is wrong with it is kept for [`Self::problems`] and
    /// [`Self::all_unreadable`].
    pub(super) fn text(&self, path: &str) -> Option<String> {
        if !self.has(path) {
            return None;
        }
        if self.files.is_too_large(path) {
            self.too_large(path);
            return None;
        }
        let Some(bytes) = self.files.read(path) else {
            if self.files.is_link(path) && reader(path).is_some() {
                self.problem(path, "is a link, which is not followed, and was not read");
            }
            return None;
        };
        if bytes.len() > MAX_MANIFEST {
            self.too_large(path);
            return None;
        }
        match String::from_utf8(bytes) {
            Ok(text) => Some(text.strip_prefix('\u{FEFF}').map(str::to_owned).unwrap_or(text)),
            Err(error) => {
                let good = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                // What is good comes first in the lossy text too, byte for byte.
                self.wrong(path, &text, at(&text, good), "is not UTF-8 and was not read", "a file saved as UTF-8");
                None
            }
        }
    }

    fn too_large(&self, path: &str) {
        let start = At { line: 1, column: 1, length: 1 };
        self.wrong(path, "", start, "is larger than 1 MiB and was not read", "a build file of at most 1 MiB");
    }

    /// A build file whose text its own tool could not read either.
    pub(super) fn unreadable(&self, path: &str, text: &str, at: At, what: &str) {
        let tool = reader(path).unwrap_or("its tool");
        let expected = format!(
            "a file that {tool} can read; or each app with its steps under `apps` in {}, so that none is inferred",
            config::FILE_NAME
        );
        self.wrong(path, text, at, what, &expected);
    }

    /// What is wrong with a file: a mistake where an app may vanish by it, else something to tell.
    fn wrong(&self, path: &str, text: &str, at: At, what: &str, expected: &str) {
        let (folder, _) = split(path);
        let line = text.lines().nth(at.line.saturating_sub(1) as usize).unwrap_or_default();
        // Marks of template engines: the file is the material that others are made from.
        let template = ["{{", "{%", "<%"].iter().any(|mark| line.contains(mark) || path.contains(mark));
        let material = folder.split('/').any(|part| MATERIAL.contains(&part.to_lowercase().as_str()));
        if template || material || reader(path).is_none() {
            self.problem(path, what);
            return;
        }
        let mut all = self.unreadable.borrow_mut();
        let mistake = Mistake::new(at, "", format!("{} {what}", shown(path)), expected);
        let source = Some(mask(line).chars().take(200).collect()).filter(|l: &String| !l.trim().is_empty());
        if all.len() < MAX_MISTAKES && !all.iter().any(|u| u.file == path) {
            all.push(Unreadable { file: path.to_owned(), mistake, source });
        }
    }

    /// The build files that could not be read, in the order in which they were looked at.
    pub(super) fn all_unreadable(&self) -> Vec<Unreadable> {
        self.unreadable.borrow().clone()
    }

    pub(super) fn problem(&self, path: &str, what: &str) {
        let text = format!("{} {what}.", shown(path));
        let mut problems = self.problems.borrow_mut();
        if problems.len() < 20 && !problems.contains(&text) {
            problems.push(text);
        }
    }

    pub(super) fn problems(&self) -> Vec<String> {
        self.problems.borrow().clone()
    }
}

/// The tool that reads a build file.
fn reader(path: &str) -> Option<&'static str> {
    BUILD_FILES.iter().find(|(name, _)| *name == split(path).1).map(|(_, tool)| *tool)
}

/// Whether a build file is one of this ecosystem.
pub(super) fn belongs(file: &str, kind: &str) -> bool {
    match file {
        "Cargo.toml" => kind == "cargo",
        "pom.xml" => kind == "maven",
        _ => kind == "npm",
    }
}

/// The place of a byte in a text.
pub(super) fn at(text: &str, byte: usize) -> At {
    let mut end = byte.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
    At { line: small(before.matches('\n').count() + 1), column: small(column), length: 1 }
}

/// `src/test/…` and the like hold projects that tests work on.
fn is_test_data(folder: &str) -> bool {
    folder.contains("src/test/") || folder.contains("src/main/resources") || folder.contains("src/it/")
}

/// Folder and name of a path.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The last part of a folder.
pub(super) fn last(folder: &str) -> &str {
    split(folder).1
}

/// A path below a folder. None where it leads out of the repository.
pub(super) fn join(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|p| !p.is_empty()).collect();
    for part in path.split(['/', '\\']) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The path of something below `folder`, as seen from there.
pub(super) fn relative<'p>(folder: &str, path: &'p str) -> &'p str {
    if folder.is_empty() {
        return path;
    }
    path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')).unwrap_or(if path == folder { "" } else { path })
}

/// The name for an app: its folder's, or, at the root, what its manifest says.
pub(super) fn name_for(folder: &str, said: &str) -> String {
    if folder.is_empty() { said.to_owned() } else { last(folder).to_owned() }
}

/// As one word of a shell.
pub(super) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/@:=+*".contains(c);
    if !text.is_empty() && text.chars().all(plain) && !text.starts_with('-') {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Whether a list of globs, some taken away by a leading `!`, means this folder.
pub(super) fn any_glob(patterns: &[String], folder: &str) -> bool {
    let mut hit = false;
    for pattern in patterns {
        let (take, pattern) = match pattern.strip_prefix('!') {
            Some(rest) => (false, rest),
            None => (true, pattern.as_str()),
        };
        let pattern = pattern.trim_start_matches("./").trim_end_matches('/');
        let glob = globset::GlobBuilder::new(pattern).literal_separator(true).build();
        if glob.is_ok_and(|g| g.compile_matcher().is_match(folder)) {
            hit = take;
        }
    }
    hit
}

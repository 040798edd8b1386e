//! The files as the ecosystems want them: manifests by name, texts within limits, paths put together.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashSet},
};

use super::Files;
use crate::domain::config::mistake::shown;

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

/// The files of a repository, indexed.
pub(super) struct Project<'f> {
    files: &'f dyn Files,
    paths: HashSet<&'f str>,
    manifests: BTreeMap<&'f str, Vec<&'f str>>,
    problems: RefCell<Vec<String>>,
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
        Self { files, paths, manifests, problems: RefCell::new(problems) }
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

    /// A text file, if it is there and not too large. What is wrong with it is kept for [`Self::problems`].
    pub(super) fn text(&self, path: &str) -> Option<String> {
        if !self.has(path) {
            return None;
        }
        let bytes = self.files.read(path)?;
        if bytes.len() > MAX_MANIFEST {
            self.problem(path, "is larger than 1 MiB and was not read");
            return None;
        }
        match String::from_utf8(bytes) {
            Ok(text) => Some(text.strip_prefix('\u{FEFF}').map(str::to_owned).unwrap_or(text)),
            Err(_) => {
                self.problem(path, "is not UTF-8 and was not read");
                None
            }
        }
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

//! Ties what a report says to a file and line of the repository.

use crate::exec::files::inside;

/// Where the test sources of a JVM project lie, most usual first.
const JVM_ROOTS: &[&str] = &[
    "src/test/java",
    "src/test/kotlin",
    "src/test/groovy",
    "src/test/scala",
    "src/integrationTest/java",
    "src/integrationTest/kotlin",
    "src/it/java",
    "src/it/kotlin",
    "src/main/java",
    "src/main/kotlin",
];
const JVM_ENDINGS: &[&str] = &["java", "kt", "groovy", "scala"];
/// How many lines of a trace are looked at, and how many folders of a path are dropped.
const LINES: usize = 200;
const DROPPED: usize = 24;

/// Finds files of the repository.
pub(super) struct Locator<'a> {
    /// Folders that a path may be relative to, likeliest first, each empty or with no slash at its ends.
    bases: Vec<String>,
    exists: &'a dyn Fn(&str) -> bool,
}

impl<'a> Locator<'a> {
    /// `near` is a path below the app's folder: the report's own, whose folders are likely places too (modules).
    pub(super) fn new(app_path: &str, near: &str, exists: &'a dyn Fn(&str) -> bool) -> Self {
        let app = app_path.trim_matches('/').trim_start_matches("./");
        let full = join(app, near.trim_matches('/'));
        let mut bases = Vec::new();
        let mut at = full.as_str();
        while let Some((dir, _)) = at.rsplit_once('/') {
            bases.push(dir.to_owned());
            at = dir;
        }
        bases.push(String::new());
        Self { bases, exists }
    }

    /// The file that is meant by a path as a tool printed it: relative to somewhere, or absolute on some machine.
    pub(super) fn file(&self, path: &str) -> Option<String> {
        let path = path.trim_start_matches("file://").replace('\\', "/");
        if path.len() > 1024 || path.starts_with("/rustc/") {
            return None;
        }
        let relative = inside(path.trim_start_matches('/'))?;
        let mut rest = relative.to_str()?;
        let absolute = path.starts_with('/') || path.get(1..3) == Some(":/");
        for _ in 0..DROPPED {
            let bases = self.bases.iter().map(|base| join(base, rest));
            if let Some(found) = bases.into_iter().find(|p| !p.is_empty() && (self.exists)(p)) {
                return Some(found);
            }
            // Of a path on another machine, the end is ours.
            rest = rest.split_once('/').filter(|_| absolute)?.1;
        }
        None
    }

    /// The source of a JVM class and the line in it that the trace names.
    pub(super) fn jvm(&self, class: &str, trace: &str) -> Option<(String, u32)> {
        let outer = class.split(['$', '[', '(', ' ']).next().filter(|c| is_class(c))?;
        let frames = || trace.lines().take(LINES).filter_map(jvm_frame);
        let own =
            frames().find(|f| f.class == outer || f.class.strip_prefix(outer).is_some_and(|r| r.starts_with('$')));
        let with_file = |f: Frame<'_>| {
            let package = f.class.rsplit_once('.').map_or("", |(p, _)| p);
            Some((self.jvm_file(package, f.file)?, f.line))
        };
        own.and_then(with_file).or_else(|| frames().find_map(with_file)).or_else(|| {
            let (package, name) = outer.rsplit_once('.').unwrap_or(("", outer));
            let file = |ending: &&str| self.jvm_file(package, &format!("{name}.{ending}"));
            Some((JVM_ENDINGS.iter().find_map(file)?, 1))
        })
    }

    fn jvm_file(&self, package: &str, file: &str) -> Option<String> {
        let folder = package.replace('.', "/");
        let in_root = |base: &String, root: &&str| join(&join(base, root), &join(&folder, file));
        let mut all = self.bases.iter().flat_map(|base| JVM_ROOTS.iter().map(move |root| in_root(base, root)));
        all.find(|path| (self.exists)(path))
    }

    /// The first `path:line` in the text whose file is in the repository.
    pub(super) fn mentioned(&self, text: &str) -> Option<(String, u32)> {
        text.lines().take(LINES).find_map(|line| {
            let words = line.split(|c: char| c.is_whitespace() || "()[]<>'\"`,;|".contains(c));
            words.take(100).find_map(|word| {
                let (path, line) = path_and_line(word)?;
                Some((self.file(path)?, line))
            })
        })
    }
}

pub(super) fn join(base: &str, rest: &str) -> String {
    match (base.is_empty(), rest.is_empty()) {
        (true, _) => rest.to_owned(),
        (_, true) => base.to_owned(),
        _ => format!("{base}/{rest}"),
    }
}

fn is_class(text: &str) -> bool {
    !text.is_empty() && text.len() < 512 && text.chars().all(|c| c.is_alphanumeric() || "._".contains(c))
}

struct Frame<'a> {
    class: &'a str,
    file: &'a str,
    line: u32,
}

/// `at app//com.acme.FooTest.works(FooTest.java:42)`.
fn jvm_frame(line: &str) -> Option<Frame<'_>> {
    let (call, place) = line.trim().strip_prefix("at ")?.strip_suffix(')')?.split_once('(')?;
    let (file, number) = place.rsplit_once(':')?;
    let class = call.rsplit_once('.')?.0;
    let class = class.rsplit_once('/').map_or(class, |(_, c)| c);
    let good = is_class(&class.replace('$', "_")) && is_class(file);
    good.then_some(Frame { class, file, line: number.parse().ok().filter(|n| *n > 0)? })
}

/// `src/lib.rs:12:5`, `tests/test_x.py:12:`, `C:/x/y.ts:3`.
fn path_and_line(word: &str) -> Option<(&str, u32)> {
    let end = word.match_indices(':').find_map(|(at, _)| {
        let digits = word[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
        (digits > 0 && at > 0).then_some((at, digits))
    });
    let (at, digits) = end?;
    let path = &word[..at];
    let ending = path.rsplit('/').next()?.rsplit_once('.')?.1;
    let good = (1..=5).contains(&ending.len()) && ending.bytes().all(|b| b.is_ascii_alphanumeric());
    let line = word[at + 1..at + 1 + digits].parse().ok().filter(|n| *n > 0)?;
    good.then_some((path, line))
}

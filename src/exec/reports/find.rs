//! Finding report files after a step.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use nix::fcntl::OFlag;

use crate::exec::files::inside;

/// Files larger than this are not read.
const FILE: u64 = 20 * 1024 * 1024;
/// All files together.
const TOTAL: u64 = 200 * 1024 * 1024;
/// How many files.
const FILES: usize = 5_000;
/// How many entries of folders are looked at.
const LOOKED_AT: usize = 500_000;

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Path from the folder that was searched, and content; by path.
    pub files: Vec<(String, Vec<u8>)>,
    /// What was left out and why.
    pub problems: Vec<String>,
}

/// Reads the files below `root` (the app's folder) that match one of the patterns, such as
/// `target/surefire-reports/*.xml` or `**/build/test-results/**/*.xml`. Symbolic links, pipes and the like are passed
/// over, so is what is in `.git`. Blocks.
#[must_use]
pub fn find_reports(root: &Path, patterns: &[String]) -> Found {
    let mut found = Found::default();
    let mut set = GlobSetBuilder::new();
    let mut starts = Vec::new();
    for pattern in patterns {
        let clean = pattern.strip_prefix("./").unwrap_or(pattern);
        let glob = GlobBuilder::new(clean).literal_separator(true).backslash_escape(true).build();
        match (inside(clean), glob) {
            (Some(path), Ok(glob)) if !path.as_os_str().is_empty() => {
                set.add(glob);
                starts.push(literal_start(clean));
            }
            (_, Err(e)) => found.problems.push(format!("reports: {pattern:?} is no pattern: {}", e.kind())),
            _ => found.problems.push(format!("reports: {pattern:?} leads out of the app's folder")),
        }
    }
    let set = match set.build() {
        Ok(set) => set,
        Err(e) => {
            found.problems.push(format!("reports: the patterns are too large: {e}"));
            return found;
        }
    };
    // A start below another one is looked at with that.
    starts.sort();
    starts.dedup_by(|next, before| before.is_empty() || *next == *before || next.starts_with(&format!("{before}/")));
    let mut names = Vec::new();
    let mut left = LOOKED_AT;
    for start in &starts {
        if way_is_plain(root, start) {
            walk(root, start, &set, &mut names, &mut left);
        }
    }
    if left == 0 {
        found.problems.push(format!("reports: only the first {LOOKED_AT} files were looked at"));
    }
    names.sort();
    read_all(root, names, &mut found);
    found
}

/// The folders at the begin of a pattern that hold no wildcard.
fn literal_start(pattern: &str) -> String {
    let mut parts: Vec<&str> = pattern.split('/').collect();
    parts.pop();
    parts.into_iter().take_while(|p| !p.contains(['*', '?', '[', '{', '\\'])).collect::<Vec<_>>().join("/")
}

/// Whether every folder on the way is one, and no link.
fn way_is_plain(root: &Path, way: &str) -> bool {
    let mut at = root.to_owned();
    way.split('/').filter(|part| !part.is_empty()).all(|part| {
        at.push(part);
        fs::symlink_metadata(&at).is_ok_and(|meta| meta.is_dir())
    })
}

fn walk(root: &Path, start: &str, set: &GlobSet, names: &mut Vec<String>, left: &mut usize) {
    let mut todo = vec![start.to_owned()];
    while let Some(dir) = todo.pop() {
        let Ok(entries) = fs::read_dir(root.join(&dir)) else { continue };
        for entry in entries.flatten() {
            if *left == 0 {
                return;
            }
            *left -= 1;
            let (Ok(kind), Ok(name)) = (entry.file_type(), entry.file_name().into_string()) else { continue };
            let path = if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") };
            if kind.is_dir() && name != ".git" {
                todo.push(path);
            } else if kind.is_file() && set.is_match(&path) {
                names.push(path);
            }
        }
    }
}

fn read_all(root: &Path, names: Vec<String>, found: &mut Found) {
    let mut total = 0;
    if names.len() > FILES {
        found.problems.push(format!("reports: {} files match; the first {FILES} were read", names.len()));
    }
    for name in names.into_iter().take(FILES) {
        match read(&root.join(&name)) {
            Ok(content) if content.len() as u64 > FILE => {
                found.problems.push(format!("{name}: larger than {} MB, not read", FILE / 1024 / 1024));
            }
            Ok(content) => {
                total += content.len() as u64;
                if total > TOTAL {
                    let limit = TOTAL / 1024 / 1024;
                    found.problems.push(format!("reports: more than {limit} MB; {name} and later ones were not read"));
                    return;
                }
                found.files.push((name, content));
            }
            Err(e) => found.problems.push(format!("{name}: {e}")),
        }
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    // What was a file a moment ago may be a link or a pipe now.
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("is no file"));
    }
    let mut content = Vec::new();
    file.take(FILE + 1).read_to_end(&mut content)?;
    Ok(content)
}

//! What is made of a repository that says nothing, or only a part.

mod command;
mod containers;
mod docker;
mod dockerfiles;
mod ecosystems;
mod hostile;
mod made_up;
mod npm;
mod spring;
mod written;

use std::collections::BTreeMap;

use switchover::infer::{Files, check_report};

/// A repository in memory.
pub struct Repo {
    paths: Vec<String>,
    contents: BTreeMap<String, Vec<u8>>,
    /// Paths that are links, and files that nobody reads.
    links: Vec<&'static str>,
    large: Vec<&'static str>,
}

impl Repo {
    pub fn new<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let contents: BTreeMap<String, Vec<u8>> =
            files.into_iter().map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec())).collect();
        Self { paths: contents.keys().cloned().collect(), contents, links: Vec::new(), large: Vec::new() }
    }
}

impl Files for Repo {
    fn list(&self) -> &[String] {
        &self.paths
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.contents.get(path).filter(|_| !self.is_link(path) && !self.is_too_large(path)).cloned()
    }

    fn is_link(&self, path: &str) -> bool {
        self.links.contains(&path)
    }

    fn is_too_large(&self, path: &str) -> bool {
        self.large.contains(&path)
    }
}

/// What `switchover check` says of these files.
fn said(files: &[(&str, &str)]) -> String {
    check_report(&Repo::new(files.iter().copied()), None, "main").text
}

//! The sample repositories: what is in them, the changes that the play makes to them, and where it looks for what comes
//! of them.

use super::{shop, spring};
use crate::demo::load::Paths;

/// A commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Files and all of their new text.
    pub files: Vec<(&'static str, String)>,
    /// The commit's message.
    pub message: &'static str,
}

/// A sample repository. Its apps are `backend`, `frontend` and whatever else it says.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// What `--sample` calls it.
    pub name: &'static str,
    /// What the first commit holds, for people.
    pub holds: &'static str,
    /// The files of the first commit.
    pub files: fn() -> Vec<(&'static str, &'static str)>,
    /// It is tested and released in containers; these apps have an image.
    pub images: &'static [&'static str],
    /// What visitors ask an app for.
    pub paths: fn(app: &str) -> Paths,
    /// Requests a second.
    pub rate: u32,
    /// A change whose tests fail.
    pub wrong: fn() -> Change,
    /// Where its failed test must be shown: `FILE:LINE`.
    pub place: &'static str,
    /// The same change made right.
    pub right: fn() -> Change,
    /// A change on another branch, which is tested and not released.
    pub draft: Option<fn() -> Change>,
    /// A greeting that is well.
    pub greeting: fn(text: &str) -> Change,
    /// One that answers its users, but whose health turns bad when it is live.
    pub unwell: fn(text: &str) -> Change,
}

/// All samples, the default one first.
pub const SAMPLES: [Sample; 2] = [shop::SAMPLE, spring::SAMPLE];

impl Sample {
    /// The sample that `--sample` names.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        SAMPLES.into_iter().find(|s| s.name == name)
    }

    /// Whether it needs a Docker engine.
    #[must_use]
    pub fn is_in_containers(&self) -> bool {
        !self.images.is_empty()
    }
}

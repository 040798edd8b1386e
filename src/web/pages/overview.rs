//! Everything at a glance: what is live where, what ran lately, what needs somebody.

use askama::Template;
use jiff::Timestamp;

use super::{
    layout::{self, Head},
    pieces::{self, State},
};

/// The overview.
#[derive(Debug, Clone, Default)]
pub struct OverviewPage {
    /// Environments with what is live in them.
    pub environments: Vec<EnvironmentRow>,
    /// The latest runs, newest first.
    pub runs: Vec<RunRow>,
    /// Repositories that the App is installed on.
    pub repositories: Vec<RepositoryRow>,
    /// Deliveries that could not be read, or were given up after retries.
    pub deliveries: Vec<DeliveryRow>,
}

/// One environment of one repository.
#[derive(Debug, Clone)]
pub struct EnvironmentRow {
    /// `owner/name`.
    pub repo: String,
    /// The environment.
    pub environment: String,
    /// How its newest release is.
    pub state: State,
    /// The live commit, and the page of the release that brought it.
    pub live: Option<(String, String)>,
    /// The first line of the live commit's message.
    pub subject: String,
    /// Since when it is live.
    pub since: Option<Timestamp>,
    /// Held, locked or waiting, in words.
    pub held: Option<String>,
}

/// One run.
#[derive(Debug, Clone)]
pub struct RunRow {
    /// Its page.
    pub href: String,
    /// `owner/name`.
    pub repo: String,
    /// Branch or pull request.
    pub git_ref: String,
    /// The commit.
    pub sha: String,
    /// The first line of its message.
    pub subject: String,
    /// How it is.
    pub state: State,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// How long it took, in milliseconds.
    pub millis: Option<u64>,
}

/// One repository.
#[derive(Debug, Clone, Default)]
pub struct RepositoryRow {
    /// `owner/name`.
    pub repo: String,
    /// On GitHub.
    pub href: String,
    /// Why it gets no runs, if it gets none: archived, suspended.
    pub stopped: Option<String>,
    /// How much of it GitHub does not show, and what it said when it was asked to.
    pub unshown: Option<String>,
}

/// One delivery that needs somebody.
#[derive(Debug, Clone)]
pub struct DeliveryRow {
    /// GitHub's id.
    pub id: String,
    /// The event's name as it was sent: it is not signed.
    pub event: String,
    /// When it came.
    pub received_at: Timestamp,
    /// Why it is here.
    pub why: String,
    /// The command that tries it again.
    pub command: String,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewTemplate<'a> {
    page: &'a OverviewPage,
}

impl OverviewPage {
    /// The page.
    #[must_use]
    pub fn render(&self) -> String {
        let head = Head { title: "Overview", live: Some("/live"), ..Head::default() };
        layout::render(&head, &OverviewTemplate { page: self })
    }
}

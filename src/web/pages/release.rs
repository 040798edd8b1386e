//! A release: one commit on its way to one environment.

use askama::Template;
use jiff::Timestamp;

use super::{
    layout::{self, Crumb, Head},
    pieces::{self, Markup, State},
    run::{Note, between},
};
use crate::domain::show::{self, ReleaseLine};

/// A release as its page shows it.
#[derive(Debug, Clone)]
pub struct ReleasePage {
    /// Its id, for the address.
    pub id: String,
    /// `owner/name`.
    pub repo: String,
    /// The repository on GitHub.
    pub repo_url: String,
    /// The environment.
    pub environment: String,
    /// Where it is reached, if known.
    pub environment_url: Option<String>,
    /// The released commit.
    pub sha: String,
    /// Its message, whole.
    pub message: String,
    /// Who made it so: `push by ada`, `rollback by ada`.
    pub cause: String,
    /// How it is.
    pub state: State,
    /// When it was decided.
    pub created_at: Timestamp,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
    /// One line for each app, in the order in which they switch.
    pub lines: Vec<(String, ReleaseLine)>,
    /// From the flip to the last answer of the old version, in milliseconds.
    pub switch_ms: Option<u64>,
    /// What the probers saw.
    pub probes: Vec<ProbeFigures>,
    /// What is to be said: warnings, why it stopped, what holds the environment.
    pub notes: Vec<Note>,
    /// Commands that make sense now, such as `switchover rollback production`.
    pub commands: Vec<String>,
    /// Digests: app and what was released.
    pub digests: Vec<(String, String)>,
    /// What goes live: commits since the last release, newest first.
    pub commits: Vec<LiveCommit>,
    /// What happened, oldest first.
    pub timeline: Vec<Moment>,
    /// When the page was made.
    pub now: Timestamp,
}

/// What a prober saw through the flip. Worded as what it is: "0 of 12,430 probes failed".
#[derive(Debug, Clone, Default)]
pub struct ProbeFigures {
    /// What was asked, such as `backend GET /health`.
    pub what: String,
    /// Probes sent.
    pub sent: u64,
    /// Probes without a good answer.
    pub failed: u64,
    /// 99th percentile before the flip, in milliseconds.
    pub p99_before_ms: Option<u64>,
    /// 99th percentile after the flip, in milliseconds.
    pub p99_after_ms: Option<u64>,
}

/// A commit that goes live with a release.
#[derive(Debug, Clone, Default)]
pub struct LiveCommit {
    /// Its name.
    pub sha: String,
    /// The first line of its message.
    pub subject: String,
    /// Who made it.
    pub author: String,
    /// The pull request that brought it, and its address.
    pub pull: Option<(i64, String)>,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// What.
    pub text: String,
}

#[derive(Template)]
#[template(path = "release.html")]
struct ReleaseTemplate<'a> {
    release: &'a ReleasePage,
    subject: &'a str,
}

impl ReleasePage {
    /// The page.
    #[must_use]
    pub fn render(&self) -> String {
        let title = format!("{} {} to {}", self.state.sign, pieces::short(&self.sha), self.environment);
        let head = Head {
            title: &title,
            crumbs: vec![Crumb::to(&self.repo, &self.repo_url), Crumb::here(&self.environment)],
            live: self.finished_at.is_none().then_some("/live"),
            slots: true,
            ..Head::default()
        };
        layout::render(&head, &ReleaseTemplate { release: self, subject: self.message.lines().next().unwrap_or("") })
    }

    fn took(&self) -> Markup {
        let since = if self.finished_at.is_none() { Some(self.created_at) } else { None };
        pieces::took(between(self.created_at, self.finished_at.unwrap_or(self.now)), since)
    }

    fn probes_failed(&self) -> String {
        let sum = |figure: fn(&ProbeFigures) -> u64| self.probes.iter().map(figure).sum();
        format!("{} of {} probes failed.", thousands(&sum(|p| p.failed)), thousands(&sum(|p| p.sent)))
    }

    fn authors(&self) -> String {
        let mut authors: Vec<&str> = Vec::new();
        for commit in &self.commits {
            if !authors.contains(&commit.author.as_str()) {
                authors.push(&commit.author);
            }
        }
        authors.join(", ")
    }
}

fn milliseconds(ms: &Option<u64>) -> String {
    ms.map_or_else(|| "–".to_owned(), show::duration)
}

/// `12430` as `12,430`.
#[must_use]
pub fn thousands(number: &u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

//! The state of the stand-in GitHub: plain data behind one lock, with lookups. No I/O, no JSON.
//!
//! Numbers are as large as GitHub's own: checks, comments, pull requests and deliveries count from above 2³², so that
//! code which keeps them in 32 bits fails here and not in production.

mod code;
mod people;
mod work;

use std::collections::{BTreeMap, HashMap};

use indexmap::IndexMap;
use jiff::Timestamp;
use serde_json::Value;

pub use code::{
    Activity, ActivityKind, Author, Comment, CommentPlace, Issue, MergeGroup, Mergeable, Pull, PullHead, Queued,
    Reaction, Repo, Review, ReviewState,
};
pub use people::{App, AppSpec, Grant, Installation, Level, Role, Team, Token, User, UserKind, permissions_json};
pub use work::{
    Action, Annotation, CheckOutput, CheckRun, CheckSuite, CommitStatus, Delivery, Deployment, DeploymentStatus,
    Exchange,
};

/// Everything that the stand-in knows.
#[derive(Debug, Default)]
pub struct Model {
    /// People, organisations and bots by lower-case login.
    pub users: IndexMap<String, User>,
    /// Repositories by number.
    pub repos: BTreeMap<i64, Repo>,
    /// Earlier full names (lower case) of renamed and transferred repositories.
    pub redirects: HashMap<String, i64>,
    /// Apps by number.
    pub apps: BTreeMap<i64, App>,
    /// Installations by number.
    pub installations: BTreeMap<i64, Installation>,
    /// Installation tokens by their text.
    pub tokens: HashMap<String, Token>,
    /// Teams by organisation and slug, both lower case.
    pub teams: BTreeMap<(String, String), Team>,
    /// Manifests that wait for their owner's click, then codes that wait for their conversion.
    pub manifests: HashMap<String, Manifest>,
    /// Webhook deliveries by number, redeliveries among them.
    pub deliveries: BTreeMap<i64, Delivery>,
    /// Requests and answers, in order. Bodies are kept only with `record`.
    pub log: Vec<Exchange>,
    small: i64,
    big: i64,
}

/// An App manifest on its way to becoming an App ("Registering a GitHub App from a manifest").
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The manifest as it was posted.
    pub manifest: Value,
    /// Echoed to the redirect address.
    pub state: Option<String>,
    /// Who creates it.
    pub owner: String,
    /// Set once the owner agreed: the App that the code stands for.
    pub app: Option<i64>,
    /// A code lives one hour.
    pub created_at: Timestamp,
}

/// Now, in whole seconds as GitHub's answers carry them.
#[must_use]
pub fn now() -> Timestamp {
    let now = crate::clock::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

impl Model {
    /// A fresh number for users, repositories, Apps and installations.
    pub fn small_id(&mut self) -> i64 {
        self.small += 1;
        1000 + self.small
    }

    /// A fresh number, above 2³², for everything that there is much of.
    pub fn big_id(&mut self) -> i64 {
        self.big += 1;
        5_000_000_000 + self.big
    }

    /// A person, organisation or bot.
    #[must_use]
    pub fn user(&self, login: &str) -> Option<&User> {
        self.users.get(&login.to_lowercase())
    }

    /// A repository by its present name.
    #[must_use]
    pub fn repo(&self, owner: &str, name: &str) -> Option<&Repo> {
        self.repos.values().find(|r| r.owner.eq_ignore_ascii_case(owner) && r.name.eq_ignore_ascii_case(name))
    }

    /// A repository's number by its present or an earlier name; `true` when the name is an earlier one.
    #[must_use]
    pub fn find(&self, owner: &str, name: &str) -> Option<(i64, bool)> {
        if let Some(repo) = self.repo(owner, name) {
            return Some((repo.id, false));
        }
        let id = *self.redirects.get(&format!("{owner}/{name}").to_lowercase())?;
        self.repos.contains_key(&id).then_some((id, true))
    }

    /// What a person may do in a repository: the best of their own grant, their teams' and, in public ones, reading.
    #[must_use]
    pub fn grant(&self, repo: &Repo, login: &str) -> Option<Grant> {
        let key = login.to_lowercase();
        if repo.owner.eq_ignore_ascii_case(login) {
            return Some(Grant { role: Role::Admin, name: None });
        }
        let own = repo.grants.get(&key).cloned();
        let teams = self
            .teams
            .values()
            .filter(|t| t.org.eq_ignore_ascii_case(&repo.owner) && t.members.contains_key(&key))
            .filter_map(|t| t.repos.get(&repo.id))
            .map(|role| Grant { role: *role, name: None });
        let public = (!repo.private).then_some(Grant { role: Role::Read, name: None });
        own.into_iter().chain(teams).chain(public).max_by_key(|g| g.role)
    }

    /// The App's installation that covers a repository, suspended or not.
    #[must_use]
    pub fn installation_for(&self, app: i64, repo: &Repo) -> Option<&Installation> {
        self.installations.values().find(|i| i.app == app && i.covers(repo))
    }

    /// Pull requests whose head is this branch of this repository, as (base repository, number).
    #[must_use]
    pub fn pulls_of_branch(&self, head_repo: i64, branch: &str) -> Vec<(i64, i64)> {
        let of = |r: &Repo| {
            let mine = r.pulls.values().filter(|p| p.open && p.head.repo == Some(head_repo) && p.head.branch == branch);
            mine.map(|p| (r.id, p.number)).collect::<Vec<_>>()
        };
        self.repos.values().flat_map(of).collect()
    }

    /// Open pull requests of the repository's own branches (none of forks) with this head commit: what GitHub puts
    /// into `pull_requests` of checks. Forks stay out ("Webhook events and payloads", `check_suite`).
    #[must_use]
    pub fn pulls_of_sha<'a>(repo: &'a Repo, sha: &str) -> Vec<&'a Pull> {
        repo.pulls.values().filter(|p| p.open && p.head.sha == sha && p.head.repo == Some(repo.id)).collect()
    }

    /// Deliveries of an App, newest first.
    #[must_use]
    pub fn deliveries_of(&self, app: i64) -> Vec<&Delivery> {
        self.deliveries.values().rev().filter(|d| d.app == app && d.listed).collect()
    }
}

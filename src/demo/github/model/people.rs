//! People, organisations, teams; Apps, their installations and tokens.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use super::Repo;

/// What an account is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserKind {
    /// A person.
    User,
    /// An organisation.
    Organization,
    /// An App's own account, `name[bot]`.
    Bot,
}

impl UserKind {
    /// GitHub's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Organization => "Organization",
            Self::Bot => "Bot",
        }
    }
}

/// An account.
#[derive(Debug, Clone)]
pub struct User {
    /// Number.
    pub id: i64,
    /// Login as written at first.
    pub login: String,
    /// Person, organisation or bot.
    pub kind: UserKind,
    /// Password for git and bearer token for the API; empty for bots and organisations.
    pub token: String,
}

/// A repository role, weakest first ("Repository roles for an organization").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Clone, comment.
    Read,
    /// Manage issues.
    Triage,
    /// Push.
    Write,
    /// Manage the repository.
    Maintain,
    /// Everything.
    Admin,
}

impl Role {
    /// GitHub's name of the role.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Triage => "triage",
            Self::Write => "write",
            Self::Maintain => "maintain",
            Self::Admin => "admin",
        }
    }

    /// A role by its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Read, Self::Triage, Self::Write, Self::Maintain, Self::Admin].into_iter().find(|r| r.name() == name)
    }

    /// The old four-step permission: maintain reads as write, triage as read
    /// ("Get repository permissions for a user").
    #[must_use]
    pub fn legacy(self) -> &'static str {
        match self {
            Self::Read | Self::Triage => "read",
            Self::Write | Self::Maintain => "write",
            Self::Admin => "admin",
        }
    }
}

/// A role given to somebody, under the name of a custom role or its own.
#[derive(Debug, Clone)]
pub struct Grant {
    /// What it allows.
    pub role: Role,
    /// A custom role's name, which is what `role_name` then says.
    pub name: Option<String>,
}

/// A team of an organisation.
#[derive(Debug, Clone)]
pub struct Team {
    /// Number.
    pub id: i64,
    /// Its organisation.
    pub org: String,
    /// Its name in addresses.
    pub slug: String,
    /// Lower-case logins; `true` for maintainers of the team.
    pub members: BTreeMap<String, bool>,
    /// What the team may do where.
    pub repos: BTreeMap<i64, Role>,
}

/// How far a permission reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Look.
    Read,
    /// Change.
    Write,
}

impl Level {
    /// GitHub's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    /// From GitHub's word; `admin` includes writing.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "read" => Some(Self::Read),
            "write" | "admin" => Some(Self::Write),
            _ => None,
        }
    }
}

/// What an App is registered with.
#[derive(Debug, Clone)]
pub struct AppSpec {
    /// Its name; the slug and `slug[bot]` come from it.
    pub name: String,
    /// Login of its owner; created when missing.
    pub owner: String,
    /// Where webhooks go; none for an App that polls its deliveries.
    pub webhook_url: Option<String>,
    /// What they are signed with.
    pub webhook_secret: Option<String>,
    /// Permission name to level.
    pub permissions: BTreeMap<String, Level>,
    /// Events it is sent besides those that every App gets.
    pub events: BTreeSet<String>,
    /// Its home page.
    pub external_url: String,
}

impl AppSpec {
    /// An App with the permissions and events that `app-manifest.yml` asks for.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let write = ["checks", "deployments", "pull_requests", "issues"];
        let read = ["contents", "metadata", "members", "merge_queues", "statuses"];
        let permissions = write.iter().map(|p| ((*p).to_owned(), Level::Write));
        let permissions = permissions.chain(read.iter().map(|p| ((*p).to_owned(), Level::Read))).collect();
        let events = [
            "push",
            "pull_request",
            "pull_request_review",
            "pull_request_review_comment",
            "merge_group",
            "check_run",
            "check_suite",
            "issue_comment",
            "repository",
            "status",
        ];
        Self {
            name: name.to_owned(),
            owner: "stand-in".to_owned(),
            webhook_url: None,
            webhook_secret: None,
            permissions,
            events: events.iter().map(|e| (*e).to_owned()).collect(),
            external_url: "https://example.com/".to_owned(),
        }
    }
}

/// A registered App.
#[derive(Debug, Clone)]
pub struct App {
    /// Number.
    pub id: i64,
    /// Its webhook's number (`X-GitHub-Hook-ID`).
    pub hook_id: i64,
    /// Name in addresses.
    pub slug: String,
    /// What it was registered with.
    pub spec: AppSpec,
    /// OAuth client.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
    /// Private key, PEM (PKCS#1, as GitHub hands it out).
    pub private_key_pem: String,
    /// Public key, DER of PKCS#1.
    pub public_key: Vec<u8>,
    /// When it was registered.
    pub created_at: Timestamp,
}

impl App {
    /// Login of its account.
    #[must_use]
    pub fn bot(&self) -> String {
        format!("{}[bot]", self.slug)
    }
}

/// An App in an account.
#[derive(Debug, Clone)]
pub struct Installation {
    /// Number.
    pub id: i64,
    /// The App's number.
    pub app: i64,
    /// Login of the account.
    pub account: String,
    /// The repositories, or none for all of the account.
    pub repos: Option<BTreeSet<i64>>,
    /// What the account granted: later wishes of the App wait for approval.
    pub permissions: BTreeMap<String, Level>,
    /// Who suspended it and when.
    pub suspended: Option<(String, Timestamp)>,
    /// When it was installed.
    pub created_at: Timestamp,
}

impl Installation {
    /// Whether a repository belongs to it.
    #[must_use]
    pub fn covers(&self, repo: &Repo) -> bool {
        self.account.eq_ignore_ascii_case(&repo.owner) && self.repos.as_ref().is_none_or(|set| set.contains(&repo.id))
    }
}

/// An installation token.
#[derive(Debug, Clone)]
pub struct Token {
    /// Its installation.
    pub installation: i64,
    /// What it may do.
    pub permissions: BTreeMap<String, Level>,
    /// Where; none for all of the installation.
    pub repos: Option<BTreeSet<i64>>,
    /// One hour after it was made.
    pub expires_at: Timestamp,
}

/// Permissions as GitHub's JSON shows them.
#[must_use]
pub fn permissions_json(permissions: &BTreeMap<String, Level>) -> Value {
    permissions.iter().map(|(name, level)| (name.clone(), Value::from(level.as_str()))).collect()
}

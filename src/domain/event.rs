//! What a webhook means to us. `github::webhook` makes these from GitHub's payloads; nobody else reads payloads.

use serde::{Deserialize, Serialize};

use super::ids::{RepoId, RepoRef, Sha};

/// A repository as a payload describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoInfo {
    /// Number, owner, name and installation (0 where the payload names none).
    pub repo: RepoRef,
    /// The branch whose configuration rules.
    pub default_branch: String,
    /// Archived repositories get no runs.
    pub archived: bool,
    /// Whether it is private.
    pub private: bool,
}

/// A person or bot that did something. Only the webhook's `sender` is ever trusted for permissions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Login name.
    pub login: String,
    /// `type` is `Bot`, or the login ends in `[bot]`.
    pub bot: bool,
}

/// What happened to a pull request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullAction {
    /// New.
    Opened,
    /// New head.
    Synchronize,
    /// Open again.
    Reopened,
    /// No longer a draft.
    ReadyForReview,
    /// Another base branch.
    BaseChanged,
    /// Closed or merged.
    Closed,
}

/// A pull request as a payload or the API describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// Its number.
    pub number: i64,
    /// Its title.
    pub title: String,
    /// Who opened it.
    pub author: Actor,
    /// Its head commit.
    pub head: Sha,
    /// Its head branch.
    pub head_ref: String,
    /// The repository of its head; none when the fork was deleted.
    pub head_repo: Option<RepoId>,
    /// The branch it wants into.
    pub base_ref: String,
    /// That branch's commit, as the payload says.
    pub base: Sha,
    /// Not ready for review.
    pub draft: bool,
    /// Still open.
    pub open: bool,
}

/// What an installation event did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstallationChange {
    /// Installed.
    Created,
    /// Uninstalled: stop, drop tokens.
    Deleted,
    /// Suspended: stop, drop tokens.
    Suspended,
    /// Back.
    Unsuspended,
    /// New permissions accepted.
    PermissionsAccepted,
}

/// What happened to a repository itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepoChange {
    /// Renamed, transferred, edited (default branch), privatized, publicized, unarchived: the row is refreshed.
    Refreshed,
    /// Archived: no more runs.
    Archived,
    /// Deleted: stop.
    Deleted,
}

/// A delivery, read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// A branch or tag moved.
    Push {
        /// Where.
        repo: RepoInfo,
        /// Full ref, such as `refs/heads/main`.
        git_ref: String,
        /// Commit before; zero for a new ref.
        before: Sha,
        /// Commit after; zero for a deleted ref.
        after: Sha,
        /// History was rewritten.
        forced: bool,
        /// Message of the head commit; empty for a deleted ref.
        message: String,
        /// Who pushed.
        sender: Actor,
    },
    /// A pull request changed.
    PullRequest {
        /// The base repository.
        repo: RepoInfo,
        /// What happened.
        action: PullAction,
        /// The pull request now.
        pull: Pull,
        /// Who did it.
        sender: Actor,
    },
    /// A merge queue asks for checks on a group.
    MergeGroup {
        /// Where.
        repo: RepoInfo,
        /// Commit to test.
        head: Sha,
        /// Its temporary branch, full ref.
        head_ref: String,
        /// Commit it is based on.
        base: Sha,
        /// The target branch, full ref.
        base_ref: String,
        /// The group is gone: cancel.
        destroyed: bool,
        /// Who did it.
        sender: Actor,
    },
    /// Somebody pressed Re-run on a check, or on all of them.
    Rerun {
        /// Where.
        repo: RepoInfo,
        /// The clicked commit.
        head: Sha,
        /// The clicked check's name; none for the whole suite.
        check: Option<String>,
        /// The clicked check's key.
        external_id: Option<String>,
        /// Who pressed.
        sender: Actor,
    },
    /// Somebody pressed one of our buttons.
    Button {
        /// Where.
        repo: RepoInfo,
        /// The clicked commit.
        head: Sha,
        /// Which button.
        identifier: String,
        /// The clicked check's key.
        external_id: String,
        /// Who pressed.
        sender: Actor,
    },
    /// Somebody else's check ended: a gate may open.
    CheckCompleted {
        /// Where.
        repo: RepoInfo,
        /// On which commit.
        head: Sha,
    },
    /// The App was installed, removed, suspended.
    Installation {
        /// Which installation.
        installation: super::ids::InstallationId,
        /// Login of the user or organisation.
        account: String,
        /// What happened.
        change: InstallationChange,
        /// Repositories named by the payload (number, full name).
        repositories: Vec<(RepoId, String)>,
    },
    /// Repositories were added to or removed from an installation.
    InstallationRepositories {
        /// Which installation.
        installation: super::ids::InstallationId,
        /// Login of the user or organisation.
        account: String,
        /// Number and full name.
        added: Vec<(RepoId, String)>,
        /// Number and full name.
        removed: Vec<(RepoId, String)>,
    },
    /// The repository itself changed.
    Repository {
        /// As it is now.
        repo: RepoInfo,
        /// What happened.
        change: RepoChange,
    },
    /// GitHub tries the address.
    Ping,
    /// Understood, and nothing for us to do.
    Ignored {
        /// Why, in words for `explain`.
        reason: String,
        /// Where, if it names a repository.
        repo: Option<RepoId>,
    },
}

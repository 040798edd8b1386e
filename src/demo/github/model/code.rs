//! Repositories, pull requests and what is said on them.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{CheckRun, CheckSuite, CommitStatus, Deployment, Grant};

/// A repository.
#[derive(Debug, Clone)]
pub struct Repo {
    /// Number: survives renames.
    pub id: i64,
    /// Login of its owner.
    pub owner: String,
    /// Name.
    pub name: String,
    /// Not for everybody's eyes.
    pub private: bool,
    /// Read-only.
    pub archived: bool,
    /// The branch that pull requests go to unless they say otherwise.
    pub default_branch: String,
    /// The repository it was forked from.
    pub fork_of: Option<i64>,
    /// When it was made.
    pub created_at: Timestamp,
    /// The last push.
    pub pushed_at: Option<Timestamp>,
    /// Lower-case login to role.
    pub grants: BTreeMap<String, Grant>,
    /// Checks that must be green before a merge, by branch.
    pub required_checks: BTreeMap<String, Vec<String>>,
    /// Pull requests by number.
    pub pulls: BTreeMap<i64, Pull>,
    /// Plain issues by number.
    pub issues: BTreeMap<i64, Issue>,
    /// Comments of issues and pull requests by number of the comment.
    pub comments: BTreeMap<i64, Comment>,
    /// Check suites.
    pub suites: BTreeMap<i64, CheckSuite>,
    /// Check runs, in the order of their making.
    pub checks: BTreeMap<i64, CheckRun>,
    /// Commit statuses, oldest first.
    pub statuses: Vec<CommitStatus>,
    /// Deployments.
    pub deployments: BTreeMap<i64, Deployment>,
    /// What moved which ref, oldest first.
    pub activity: Vec<Activity>,
    /// The last issue or pull request's number.
    pub last_number: i64,
}

impl Repo {
    /// An empty one.
    #[must_use]
    pub fn new(id: i64, owner: &str, name: &str, default_branch: &str, private: bool) -> Self {
        Self {
            id,
            owner: owner.to_owned(),
            name: name.to_owned(),
            private,
            archived: false,
            default_branch: default_branch.to_owned(),
            fork_of: None,
            created_at: super::now(),
            pushed_at: None,
            grants: BTreeMap::new(),
            required_checks: BTreeMap::new(),
            pulls: BTreeMap::new(),
            issues: BTreeMap::new(),
            comments: BTreeMap::new(),
            suites: BTreeMap::new(),
            checks: BTreeMap::new(),
            statuses: Vec::new(),
            deployments: BTreeMap::new(),
            activity: Vec::new(),
            last_number: 0,
        }
    }

    /// `owner/name`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// Comments of a pull request, oldest first.
    pub fn comments_of(&self, number: i64) -> impl Iterator<Item = &Comment> {
        self.comments.values().filter(move |c| c.place.number() == Some(number))
    }

    /// The checks of a commit that count: of each App and name the newest ("List check runs for a Git reference",
    /// `filter=latest`).
    #[must_use]
    pub fn latest_checks(&self, sha: &str) -> Vec<&CheckRun> {
        let mut newest: BTreeMap<(i64, &str), &CheckRun> = BTreeMap::new();
        for check in self.checks.values().filter(|c| c.head_sha == sha) {
            newest.insert((check.app, &check.name), check);
        }
        let mut list: Vec<_> = newest.into_values().collect();
        list.sort_by_key(|c| c.id);
        list
    }
}

/// A plain issue: there so that comments on one are told from comments on a pull request.
#[derive(Debug, Clone)]
pub struct Issue {
    /// Its own number of the big kind.
    pub id: i64,
    /// Its number in the repository.
    pub number: i64,
    /// Title.
    pub title: String,
    /// Who opened it.
    pub author: Author,
    /// When.
    pub created_at: Timestamp,
}

/// Who wrote something: a person, or an App's bot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// Login.
    pub login: String,
    /// The App, when one wrote it.
    pub app: Option<i64>,
}

/// Where a pull request's commits come from.
#[derive(Debug, Clone)]
pub struct PullHead {
    /// The repository; none when the fork was deleted.
    pub repo: Option<i64>,
    /// Login of that repository's owner, kept after its deletion.
    pub owner: String,
    /// Branch.
    pub branch: String,
    /// Commit.
    pub sha: String,
}

/// Whether base and head merge cleanly. GitHub computes it in the background: `Unknown` is `null` in the API
/// ("Get a pull request").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mergeable {
    /// Not looked at since head or base moved.
    Unknown,
    /// Clean, with the test merge commit.
    Clean(String),
    /// Conflicts.
    Conflict,
}

/// A pull request.
#[derive(Debug, Clone)]
pub struct Pull {
    /// Its own number of the big kind.
    pub id: i64,
    /// Its number in the repository.
    pub number: i64,
    /// Title.
    pub title: String,
    /// Description.
    pub body: String,
    /// Who opened it.
    pub author: Author,
    /// Not ready for review.
    pub draft: bool,
    /// Open.
    pub open: bool,
    /// Head.
    pub head: PullHead,
    /// Base branch.
    pub base: String,
    /// That branch's commit, as of the last look.
    pub base_sha: String,
    /// Does it merge?
    pub mergeable: Mergeable,
    /// Merge commit, who merged and when.
    pub merged: Option<(String, String, Timestamp)>,
    /// Its place in the merge queue.
    pub queued: Option<Queued>,
    /// Commits, lines added, lines deleted, files changed: as of the last look.
    pub commits: (usize, i64, i64, usize),
    /// Reviews, oldest first.
    pub reviews: Vec<Review>,
    /// When it was opened.
    pub created_at: Timestamp,
    /// The last change.
    pub updated_at: Timestamp,
    /// When it was closed or merged.
    pub closed_at: Option<Timestamp>,
}

/// A review's verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReviewState {
    /// Yes.
    Approved,
    /// No.
    ChangesRequested,
    /// Neither.
    Commented,
}

impl ReviewState {
    /// GitHub's word in the API; payloads have it in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "APPROVED",
            Self::ChangesRequested => "CHANGES_REQUESTED",
            Self::Commented => "COMMENTED",
        }
    }
}

/// A submitted review.
#[derive(Debug, Clone)]
pub struct Review {
    /// Number.
    pub id: i64,
    /// Reviewer.
    pub author: Author,
    /// Verdict.
    pub state: ReviewState,
    /// Text; a review's body takes no reactions.
    pub body: String,
    /// The commit that was looked at.
    pub commit_id: String,
    /// When.
    pub submitted_at: Timestamp,
}

/// A pull request's place in the merge queue of its base branch.
#[derive(Debug, Clone)]
pub struct Queued {
    /// Grows with every entry: the smallest is first.
    pub place: i64,
    /// The head that was put into the queue.
    pub head: String,
    /// Who did.
    pub by: String,
    /// What is tested for it, once it is first.
    pub group: Option<MergeGroup>,
}

/// A commit that the merge queue has tested.
#[derive(Debug, Clone)]
pub struct MergeGroup {
    /// The merge.
    pub sha: String,
    /// The base branch's commit that it is made on.
    pub base: String,
}

/// What a comment stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommentPlace {
    /// The conversation of an issue or pull request.
    Issue(i64),
    /// A line of a pull request's diff.
    Line {
        /// The pull request.
        number: i64,
        /// The commit that was looked at.
        commit_id: String,
        /// File.
        path: String,
        /// Line in the new file.
        line: i64,
    },
    /// A commit, by its hash.
    Commit(String),
}

impl CommentPlace {
    /// The number of the pull request or issue; a commit's comment has none.
    #[must_use]
    pub fn number(&self) -> Option<i64> {
        match self {
            Self::Issue(number) | Self::Line { number, .. } => Some(*number),
            Self::Commit(_) => None,
        }
    }
}

/// A comment.
#[derive(Debug, Clone)]
pub struct Comment {
    /// Number.
    pub id: i64,
    /// Where it stands.
    pub place: CommentPlace,
    /// Who wrote it.
    pub author: Author,
    /// Markdown.
    pub body: String,
    /// When.
    pub created_at: Timestamp,
    /// The last edit.
    pub updated_at: Timestamp,
    /// Reactions, oldest first.
    pub reactions: Vec<Reaction>,
}

/// A reaction to a comment.
#[derive(Debug, Clone)]
pub struct Reaction {
    /// Number.
    pub id: i64,
    /// Who.
    pub author: Author,
    /// One of GitHub's eight (`+1`, `eyes`, `rocket`, …).
    pub content: String,
    /// When.
    pub created_at: Timestamp,
}

/// What moved a ref.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivityKind {
    /// A push that goes on.
    Push,
    /// A push that rewrites.
    ForcePush,
    /// A new branch.
    Creation,
    /// A branch is gone.
    Deletion,
    /// A pull request's merge.
    Merge,
    /// A merge queue's merge.
    QueueMerge,
}

impl ActivityKind {
    /// GitHub's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::ForcePush => "force_push",
            Self::Creation => "branch_creation",
            Self::Deletion => "branch_deletion",
            Self::Merge => "pr_merge",
            Self::QueueMerge => "merge_queue_merge",
        }
    }
}

/// One move of a ref ("List repository activities").
#[derive(Debug, Clone)]
pub struct Activity {
    /// Number.
    pub id: i64,
    /// Commit before; zeros for a new ref.
    pub before: String,
    /// Commit after; zeros for a deleted ref.
    pub after: String,
    /// Full ref.
    pub git_ref: String,
    /// When.
    pub at: Timestamp,
    /// How.
    pub kind: ActivityKind,
    /// Who.
    pub actor: String,
}

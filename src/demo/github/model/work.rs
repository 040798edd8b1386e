//! Checks, statuses, deployments; webhook deliveries and the request log.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The checks of one App on one commit.
#[derive(Debug, Clone)]
pub struct CheckSuite {
    /// Number.
    pub id: i64,
    /// The App.
    pub app: i64,
    /// The branch that was pushed; none where the commit is on none of the repository's own.
    pub head_branch: Option<String>,
    /// Commit.
    pub head_sha: String,
    /// The branch's commit before the push.
    pub before: Option<String>,
    /// Asked to run again, and no check written since: shown as queued whatever its checks say.
    pub reset: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// The last change.
    pub updated_at: Timestamp,
}

/// What a check shows.
#[derive(Debug, Clone, Default)]
pub struct CheckOutput {
    /// Headline.
    pub title: Option<String>,
    /// Markdown.
    pub summary: Option<String>,
    /// Markdown, longer.
    pub text: Option<String>,
    /// Collected over all requests: later ones append ("Update a check run").
    pub annotations: Vec<Annotation>,
}

/// A remark on lines of a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Annotation {
    /// File in the repository.
    pub path: String,
    /// First line.
    pub start_line: i64,
    /// Last line.
    pub end_line: i64,
    /// First column, for a single line only.
    pub start_column: Option<i64>,
    /// Last column.
    pub end_column: Option<i64>,
    /// `notice`, `warning` or `failure`.
    pub annotation_level: String,
    /// Text.
    pub message: String,
    /// Headline.
    pub title: Option<String>,
    /// Folded details.
    pub raw_details: Option<String>,
}

/// A button on a completed check.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Action {
    /// At most 20 characters.
    pub label: String,
    /// At most 40 characters.
    pub description: String,
    /// At most 20 characters; what `check_run.requested_action` names.
    pub identifier: String,
}

/// A check run.
#[derive(Debug, Clone)]
pub struct CheckRun {
    /// Number.
    pub id: i64,
    /// Its suite.
    pub suite: i64,
    /// Its App.
    pub app: i64,
    /// Name: the newest of one name wins.
    pub name: String,
    /// Commit.
    pub head_sha: String,
    /// The App's own key.
    pub external_id: Option<String>,
    /// Where the "Details" link leads.
    pub details_url: Option<String>,
    /// `queued`, `in_progress` or `completed`.
    pub status: String,
    /// How it ended.
    pub conclusion: Option<String>,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// What it shows.
    pub output: CheckOutput,
    /// Buttons.
    pub actions: Vec<Action>,
    /// How often it was written.
    pub writes: u32,
}

impl CheckRun {
    /// Whether a required check of this name is satisfied: success, neutral and skipped are
    /// ("About protected branches", required status checks).
    #[must_use]
    pub fn satisfies(&self) -> bool {
        matches!(self.conclusion.as_deref(), Some("success" | "neutral" | "skipped"))
    }
}

/// A commit status (the older kind of check).
#[derive(Debug, Clone)]
pub struct CommitStatus {
    /// Number.
    pub id: i64,
    /// Commit.
    pub sha: String,
    /// `error`, `failure`, `pending` or `success`.
    pub state: String,
    /// Name.
    pub context: String,
    /// Text.
    pub description: Option<String>,
    /// Link.
    pub target_url: Option<String>,
    /// Login of its maker.
    pub creator: String,
    /// When.
    pub created_at: Timestamp,
}

/// A deployment.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// Number.
    pub id: i64,
    /// Commit.
    pub sha: String,
    /// What was asked for: a branch, a tag or the commit.
    pub git_ref: String,
    /// `deploy` unless told.
    pub task: String,
    /// Free.
    pub payload: Value,
    /// Name.
    pub environment: String,
    /// At most 140 characters.
    pub description: Option<String>,
    /// Login of its maker.
    pub creator: String,
    /// The App, when one made it.
    pub app: Option<i64>,
    /// Will go away one day.
    pub transient: bool,
    /// People use it.
    pub production: bool,
    /// When.
    pub created_at: Timestamp,
    /// The last status.
    pub updated_at: Timestamp,
    /// Oldest first.
    pub statuses: Vec<DeploymentStatus>,
}

impl Deployment {
    /// The state it is in; `pending` before any status.
    #[must_use]
    pub fn state(&self) -> &str {
        self.statuses.last().map_or("pending", |s| s.state.as_str())
    }
}

/// A deployment's status.
#[derive(Debug, Clone)]
pub struct DeploymentStatus {
    /// Number.
    pub id: i64,
    /// `error`, `failure`, `inactive`, `in_progress`, `queued`, `pending` or `success`.
    pub state: String,
    /// Text.
    pub description: String,
    /// Where the log is.
    pub log_url: String,
    /// Where the environment is.
    pub environment_url: String,
    /// Name.
    pub environment: String,
    /// Login of its maker.
    pub creator: String,
    /// The App, when one made it.
    pub app: Option<i64>,
    /// When.
    pub created_at: Timestamp,
}

/// One attempt to deliver a webhook.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Number of the attempt.
    pub id: i64,
    /// The App it goes to.
    pub app: i64,
    /// The event's own key: a redelivery has the same one ("Redelivering webhooks").
    pub guid: String,
    /// When it was sent.
    pub delivered_at: Timestamp,
    /// Asked for again.
    pub redelivery: bool,
    /// Seconds until the answer.
    pub duration: f64,
    /// `OK`, or what went wrong.
    pub status: String,
    /// HTTP status of the answer; 0 where there was none.
    pub status_code: u16,
    /// Event.
    pub event: String,
    /// The payload's `action`.
    pub action: Option<String>,
    /// Installation.
    pub installation: Option<i64>,
    /// Repository.
    pub repository: Option<i64>,
    /// Headers that were sent.
    pub request_headers: Vec<(String, String)>,
    /// What was sent, byte for byte.
    pub payload: String,
    /// Headers of the answer.
    pub response_headers: Vec<(String, String)>,
    /// Its body, cut at 64 KiB.
    pub response_body: String,
    /// Finished: answered, failed or lost.
    pub done: bool,
    /// Shows in the App's delivery list. A fault can make GitHub forget it altogether.
    pub listed: bool,
}

/// One request and its answer.
#[derive(Debug, Clone, Serialize)]
pub struct Exchange {
    /// HTTP method.
    pub method: String,
    /// Path and query as asked, without the prefix of the API.
    pub path: String,
    /// The operation's path in GitHub's description, such as `/repos/{owner}/{repo}`; none for an unknown one.
    pub template: Option<String>,
    /// Version of the API that was asked for.
    pub version: String,
    /// Status of the answer; 0 where a fault left none.
    pub status: u16,
    /// Whether a fault changed the answer: then it is not checked against the description.
    pub fault: bool,
    /// Body of the request, with `record`.
    pub request: Option<Value>,
    /// Body of the answer, with `record`.
    pub response: Option<Value>,
}

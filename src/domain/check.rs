//! What stands on GitHub, as plain data: made by `report` (pure), written by `github`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::Sha;

/// The state of a check run ("REST API endpoints for check runs").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// Known, not begun.
    Queued,
    /// Being worked on.
    InProgress,
    /// Ended; a conclusion must stand beside it.
    Completed,
}

/// How a check run ended. `neutral` and `skipped` satisfy a required check on GitHub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// All held.
    Success,
    /// Something that the author can mend.
    Failure,
    /// Nothing to say either way.
    Neutral,
    /// Stopped by a person or superseded by a newer commit; not a failure.
    Cancelled,
    /// Not needed.
    Skipped,
    /// Ran past its time limit.
    TimedOut,
    /// A person must do something first.
    ActionRequired,
}

impl Conclusion {
    /// GitHub's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Neutral => "neutral",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
            Self::TimedOut => "timed_out",
            Self::ActionRequired => "action_required",
        }
    }

    /// The sign that stands beside the word everywhere.
    #[must_use]
    pub fn sign(self) -> &'static str {
        match self {
            Self::Success => "✓",
            Self::Failure | Self::TimedOut => "✗",
            Self::Neutral | Self::Skipped => "–",
            Self::Cancelled => "⊘",
            Self::ActionRequired => "!",
        }
    }
}

/// How loud an annotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnnotationLevel {
    /// Worth knowing.
    Notice,
    /// Worth mending.
    Warning,
    /// A failed test or a mistake.
    Failure,
}

/// A message on a line of a file of the commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation {
    /// Path from the repository's root, with no leading `./`.
    pub path: String,
    /// First line, from 1.
    pub start_line: u32,
    /// Last line, from 1.
    pub end_line: u32,
    /// How loud.
    pub level: AnnotationLevel,
    /// What happened.
    pub message: String,
    /// A heading, at most 255 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Details, such as a stack trace, at most 64 KB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_details: Option<String>,
}

/// A button on a completed check run (at most three; label 20, description 40, identifier 20 characters).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckAction {
    /// What stands on it.
    pub label: String,
    /// What it does.
    pub description: String,
    /// What comes back in `check_run.requested_action`.
    pub identifier: String,
}

/// A check run as it should stand on GitHub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRun {
    /// Shown name, such as `backend / test (push)`.
    pub name: String,
    /// The commit it belongs to.
    pub head_sha: Sha,
    /// Our own key for it: recovery finds it by this.
    pub external_id: String,
    /// Queued, running, ended.
    pub status: CheckStatus,
    /// How it ended; set exactly when `status` is completed.
    pub conclusion: Option<Conclusion>,
    /// When work began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// Where its log stands.
    pub details_url: Option<String>,
    /// The one line beside the name.
    pub title: String,
    /// Markdown below the title, at most 65,535 characters.
    pub summary: String,
    /// More markdown, at most 65,535 characters.
    pub text: Option<String>,
    /// Messages on lines.
    pub annotations: Vec<Annotation>,
    /// Buttons, shown on completed runs only.
    pub actions: Vec<CheckAction>,
}

/// A deployment as it should stand on GitHub ("REST API endpoints for deployments").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// The released commit.
    pub sha: Sha,
    /// Shown environment.
    pub environment: String,
    /// Our own key, kept in the payload: recovery finds it by this.
    pub key: String,
    /// Cut to 140 characters by the writer.
    pub description: String,
    /// Whether users are served by it.
    pub production: bool,
}

/// The state of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentState {
    /// Waits for a gate or an approval.
    Pending,
    /// Known, not begun.
    Queued,
    /// Being released.
    InProgress,
    /// Live.
    Success,
    /// Did not go live, or was taken back.
    Failure,
    /// Something of ours or of the platform broke.
    Error,
    /// No longer live.
    Inactive,
}

impl DeploymentState {
    /// GitHub's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Error => "error",
            Self::Inactive => "inactive",
        }
    }
}

/// One status of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentStatus {
    /// Where it is.
    pub state: DeploymentState,
    /// Cut to 140 characters by the writer.
    pub description: String,
    /// Always set: where the story stands.
    pub log_url: String,
    /// Where the environment is reached, if known.
    pub environment_url: Option<String>,
}

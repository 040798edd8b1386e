//! Test runs: one commit in one context, its jobs (an app in a workspace) and their steps.

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    config::{Resources, Service},
    ids::Sha,
};

/// Why a commit is tested. The word in brackets behind a check's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Context {
    /// A branch moved to it.
    Push,
    /// It is the head of a pull request; the merge into the base is tested.
    PullRequest,
    /// A merge queue asks.
    MergeGroup,
}

impl Context {
    /// As it stands in check names and the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::PullRequest => "pull_request",
            Self::MergeGroup => "merge_group",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Push, Self::PullRequest, Self::MergeGroup].into_iter().find(|c| c.as_str() == text)
    }
}

/// Whose code this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// The repository's own.
    Own,
    /// A stranger's, and somebody who may write has looked at this very commit.
    Approved(Sha),
    /// A stranger's or a bot's: nothing runs until somebody says so.
    Parked,
}

/// How a run, job or step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Exit code 0 and no failed test.
    Success,
    /// Anything else that the author can mend.
    Failure,
    /// Past its time limit.
    TimedOut,
    /// Stopped by a person, or the installation is gone.
    Cancelled,
    /// A newer commit took its place; not a failure.
    Superseded,
    /// Not needed, because an earlier step of the same app failed.
    Skipped,
    /// Ours or the machine's fault, after retries; not the author's.
    Infrastructure,
    /// A person must do something first (a fork, a bot).
    ActionRequired,
}

impl Outcome {
    /// As it stands in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::Skipped => "skipped",
            Self::Infrastructure => "infrastructure",
            Self::ActionRequired => "action_required",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Success,
            Self::Failure,
            Self::TimedOut,
            Self::Cancelled,
            Self::Superseded,
            Self::Skipped,
            Self::Infrastructure,
            Self::ActionRequired,
        ]
        .into_iter()
        .find(|o| o.as_str() == text)
    }
}

/// One test case that a report tells of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestCase {
    /// Class or module.
    pub suite: String,
    /// The case itself.
    pub name: String,
    /// Seconds, if told.
    pub seconds: Option<f64>,
    /// How it ended.
    pub state: TestState,
    /// The message of a failure.
    pub message: Option<String>,
    /// The trace of a failure, cut.
    pub trace: Option<String>,
    /// File from the repository's root and line, where they could be told and the file exists.
    pub location: Option<(String, u32)>,
}

/// How a test case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestState {
    /// Held.
    Passed,
    /// Did not hold, or broke.
    Failed,
    /// Left out.
    Skipped,
    /// Failed first, then held on a rerun within the same run.
    Flaky,
}

/// What the reports of one step say together.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TestReport {
    /// Cases that held.
    pub passed: u32,
    /// Cases that did not.
    pub failed: u32,
    /// Cases left out.
    pub skipped: u32,
    /// Cases that held only on a rerun.
    pub flaky: u32,
    /// Failed and flaky cases with their details (at most 500 kept), and the ten slowest.
    pub cases: Vec<TestCase>,
    /// What could not be read, in words: a broken report never hides the readable ones.
    pub problems: Vec<String>,
}

/// How a step's process ended, and what it cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepResult {
    /// How it ended.
    pub end: StepEnd,
    /// When its process began.
    pub started_at: Timestamp,
    /// When its whole process group was gone.
    pub finished_at: Timestamp,
    /// CPU time of the whole tree, in milliseconds.
    pub cpu_ms: u64,
    /// Peak resident size of its largest process, in bytes.
    pub peak_bytes: u64,
    /// Bytes it printed (also those past the limit).
    pub output_bytes: u64,
    /// Output past the limit was dropped.
    pub truncated: bool,
}

/// How a step's process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepEnd {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal that was not ours.
    Signalled(i32),
    /// Killed at its time limit.
    TimedOut,
    /// Killed because somebody cancelled it.
    Cancelled,
    /// It could not be started, and why.
    NotStarted(String),
    /// A process of it was killed because it used more memory than it may, and the step failed.
    OutOfMemory {
        /// The most that it used, in bytes.
        peak: u64,
        /// What it may use, in bytes. None: the machine itself had no more.
        limit: Option<u64>,
    },
    /// Killed because it wrote more than it may.
    OverDisk {
        /// What lay in its folders, in bytes.
        used: u64,
        /// What may lie there.
        limit: u64,
    },
    /// It ended with 0, but what it left could not be taken back from where it ran, and why. It is not run again by
    /// itself: what it did is done.
    Untaken(String),
}

impl StepResult {
    /// Of a step that was cancelled before it began.
    #[must_use]
    pub fn cancelled(now: Timestamp) -> Self {
        Self {
            end: StepEnd::Cancelled,
            started_at: now,
            finished_at: now,
            cpu_ms: 0,
            peak_bytes: 0,
            output_bytes: 0,
            truncated: false,
        }
    }
}

/// What a job does, frozen when it was planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The app's folder from the repository's root; empty for the root.
    pub path: String,
    /// The commit that is checked out.
    pub commit: Sha,
    /// Image of its steps (executors docker and kubernetes).
    pub container: Option<String>,
    /// Folders kept between runs.
    pub cache: Vec<String>,
    /// Names of secrets its steps may see.
    pub secrets: Vec<String>,
    /// What started it: decides caches and secrets.
    pub trigger: Trigger,
    /// Steps to run, in order.
    pub steps: Vec<StepSpec>,
    /// What is kept afterwards.
    pub release: Option<ReleaseSpec>,
}

/// One step of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepSpec {
    /// Its name.
    pub name: String,
    /// Shell command.
    pub run: String,
    /// Patterns of JUnit XML files.
    pub reports: Vec<String>,
    /// Time limit in milliseconds.
    pub timeout_ms: u64,
    /// Environment: the app's and the step's own.
    pub env: std::collections::BTreeMap<String, String>,
    /// Companion containers by host name.
    #[serde(default)]
    pub services: IndexMap<String, Service>,
    /// CPU and memory asked for.
    #[serde(default)]
    pub resources: Resources,
}

/// What is kept of a job's workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseSpec {
    /// The app.
    pub app: String,
    /// Tree, commands and tools: one build for each.
    pub build_key: String,
    /// Files from the app's folder; none: everything there.
    pub files: Option<Vec<String>>,
    /// The image that is built and pushed; none: a release of files.
    #[serde(default)]
    pub image: Option<ImageSpec>,
}

/// The name of the step that builds and pushes an image. It is the last of its job.
pub const IMAGE_STEP: &str = "image";

/// An image to build and push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSpec {
    /// Its name without a tag, registry first, such as `docker.io/acme/backend`.
    pub repository: String,
    /// The Dockerfile from the app's folder, if the configuration names one.
    pub dockerfile: Option<String>,
    /// The port that the configuration says.
    pub port: Option<u16>,
    /// The command that starts it, if the configuration names one.
    pub start: Option<String>,
    /// The path that tells whether it is ready.
    pub health: Option<String>,
    /// Somebody else's CI pushes it with this tag: it is waited for, not built.
    #[serde(default)]
    pub pushed_as: Option<String>,
    /// Built without anything of earlier builds.
    #[serde(default)]
    pub fresh: bool,
}

/// What started a run: decides what its steps may see and write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A push to an environment's branch.
    Release,
    /// A push to another branch, or a merge queue.
    Branch,
    /// A pull request from the repository itself.
    OwnPull,
    /// A stranger's pull request that somebody approved.
    Stranger,
}

/// What is told about a run and is not needed to carry it out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RunDetail {
    /// Who wrote the commit.
    pub author: String,
    /// First line of its message.
    pub message: String,
    /// The branch, or the pull request's head branch.
    pub branch: String,
    /// Who set it off.
    pub sender: String,
    /// Mistakes in `.github/switchover.yml`, or in build files that apps would be inferred from.
    pub mistakes: Vec<ConfigMistake>,
    /// What a pull request's file would change about releases once it is merged.
    #[serde(default)]
    pub changes: Vec<String>,
    /// What was inferred, and from which file; what is unclear.
    pub notes: Vec<String>,
    /// Files that conflict with the base.
    pub conflicts: Vec<String>,
    /// Why nothing runs until a person acts.
    pub parked: Option<String>,
    /// Why there is nothing to run.
    pub nothing: Option<String>,
    /// Something went wrong before any step could run.
    pub error: Option<String>,
}

/// A mistake in the repository's configuration, as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigMistake {
    /// The file; None: `.github/switchover.yml`.
    #[serde(default)]
    pub file: Option<String>,
    /// Line from 1.
    pub line: u32,
    /// Column from 1.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub expected: String,
    /// The nearest right word.
    pub hint: Option<String>,
    /// The line itself.
    pub source: Option<String>,
}

//! What the reporter is told: plain data, mapped from the store's rows.
//!
//! Texts are as they were found (never markdown): whoever shows them escapes them. They should have passed
//! [`super::redact::Redactor`] once, before they are cut or escaped: [`super::redact::Redactor::run`] and
//! [`super::redact::Redactor::rollout`] do that for a whole view.

use jiff::Timestamp;

use crate::domain::{
    ids::{Digest, RolloutId, RunId, Sha, StepId},
    run::{Context, Outcome, StepResult, TestReport, Trust},
};

/// A link to another run or commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    /// Its commit.
    pub sha: Sha,
    /// Its page.
    pub url: String,
}

/// A test run: one commit in one context.
#[derive(Debug, Clone, PartialEq)]
pub struct RunView {
    /// Its identity.
    pub id: RunId,
    /// `owner/name`.
    pub repo: String,
    /// GitHub's web address, without a slash at the end.
    pub web_url: String,
    /// Our page of this run.
    pub url: String,
    /// Why the commit is tested.
    pub context: Context,
    /// The pull request, where it is one.
    pub pull: Option<i64>,
    /// The pushed branch, or the pull request's head branch.
    pub branch: String,
    /// The branch that a pull request wants into.
    pub base_ref: Option<String>,
    /// Where the checks are shown.
    pub head_sha: Sha,
    /// What is really tested (the merge of head into base); none when that could not be made.
    pub test_sha: Option<Sha>,
    /// What it is compared with.
    pub base_sha: Option<Sha>,
    /// Message of the head commit.
    pub message: String,
    /// Who wrote the head commit, as a name or login.
    pub author: String,
    /// Whose code this is.
    pub trust: Trust,
    /// From 1; grows with every re-run.
    pub attempt: u32,
    /// When it was planned.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How it ended; none while it goes.
    pub outcome: Option<Outcome>,
    /// The run that took its place.
    pub superseded_by: Option<Pointer>,
    /// Its jobs; empty where nothing had to run.
    pub jobs: Vec<JobView>,
    /// What is wrong in `.github/switchover.yml`, or in build files that apps would be inferred from.
    pub config_mistakes: Vec<MistakeView>,
    /// What a pull request's file would change about releases once it is merged.
    pub changes: Vec<String>,
    /// What was inferred, from which file, and other things worth knowing: a sentence each.
    pub notes: Vec<String>,
    /// Files that conflict between head and base (not empty: nothing ran).
    pub conflicts: Vec<String>,
    /// Why it waits for a person: what a stranger's code is, such as `comes from the fork eve/shop` (the trust is
    /// [`Trust::Parked`]), or a sentence on why the server may not run the repository.
    pub parked: Option<String>,
}

/// One app's steps.
#[derive(Debug, Clone, PartialEq)]
pub struct JobView {
    /// The app.
    pub app: String,
    /// In order.
    pub steps: Vec<StepView>,
}

/// Where a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// Waits for its turn.
    Queued,
    /// Has a process.
    Running,
    /// Ended, or never will begin.
    Done,
}

/// One step of one app.
#[derive(Debug, Clone, PartialEq)]
pub struct StepView {
    /// Its identity.
    pub id: StepId,
    /// Its name in the configuration.
    pub name: String,
    /// Where it is.
    pub state: StepState,
    /// How it ended; set exactly when it is done.
    pub outcome: Option<Outcome>,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// How its process ended, and what it cost.
    pub result: Option<StepResult>,
    /// What its test reports say.
    pub report: Option<TestReport>,
    /// What the same step's reports said on the base.
    pub base_report: Option<TestReport>,
    /// The run whose result this is, because nothing of the app changed since.
    pub reused: Option<Pointer>,
    /// The last lines of its log, oldest first.
    pub last_lines: Vec<String>,
    /// Something to add in words, such as what broke on the machine.
    pub note: Option<String>,
    /// The page with its log; where it never began, the place that says so.
    pub log_url: String,
    /// From 1; grows with every retry.
    pub attempt: u32,
}

/// A mistake in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MistakeView {
    /// The file from the repository's root.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Characters to mark from there, at least 1.
    pub length: u32,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub expected: Option<String>,
    /// The nearest right word, or where to look.
    pub hint: Option<String>,
    /// The line itself.
    pub source: Option<String>,
}

/// Whether a new commit is released or an old release brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReleaseKind {
    /// A new commit.
    Release,
    /// An earlier release.
    Rollback,
}

/// Where a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolloutState {
    /// Waits for checks, a window, a lock or another rollout; `message` says which.
    Queued,
    /// Goes through its phases.
    Running,
    /// Waits for a person to say yes.
    WaitingForApproval,
    /// On its way back.
    RollingBack,
    /// Serves, or is done as far as it goes.
    Live,
    /// Served, and another release took its place.
    Replaced,
    /// Was switched to and taken back.
    RolledBack,
    /// Ended before the switch; what was live was not touched.
    Failed,
    /// Called off by a person before the switch.
    Cancelled,
    /// A newer one took its place before the switch.
    Superseded,
    /// Ours or the platform's fault before the switch; not the author's.
    Infrastructure,
    /// The live system is not what was left there: a person decides.
    Stuck,
}

/// One release on its way to one environment.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutView {
    /// Its identity.
    pub id: RolloutId,
    /// `owner/name`.
    pub repo: String,
    /// GitHub's web address, without a slash at the end.
    pub web_url: String,
    /// The environment.
    pub environment: String,
    /// Users are served by it.
    pub production: bool,
    /// Where it is reached.
    pub environment_url: Option<String>,
    /// The page that tells its story.
    pub log_url: String,
    /// New or back.
    pub kind: ReleaseKind,
    /// The released commit.
    pub sha: Sha,
    /// Its message.
    pub commit_message: String,
    /// Who wrote it.
    pub author: String,
    /// Who or what began the rollout, such as `push to main by alice`.
    pub started_by: String,
    /// The new slot's name.
    pub slot: String,
    /// What served before; none for the first release.
    pub previous: Option<PreviousView>,
    /// What is released.
    pub apps: Vec<AppDigest>,
    /// The phases that were entered, in order.
    pub phases: Vec<PhaseView>,
    /// Where it is.
    pub state: RolloutState,
    /// What it does or waits for now, or why it ended: one sentence.
    pub message: String,
    /// When it was planned.
    pub created_at: Timestamp,
    /// When its work began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When the pointer moved to the new slot.
    pub switched_at: Option<Timestamp>,
    /// The prober's figures.
    pub probe: Option<ProbeView>,
    /// Real requests through our agent.
    pub traffic: Option<TrafficView>,
    /// What goes live with it; none where that could not be told.
    pub goes_live: Option<GoesLive>,
    /// The environment is held.
    pub hold: Option<HoldView>,
    /// Until when the previous slot is kept warm.
    pub keep_previous_until: Option<Timestamp>,
    /// The last lines of what failed (`pre_deploy`, smoke test, the slot itself), oldest first.
    pub last_lines: Vec<String>,
    /// Warnings: a sentence each.
    pub notes: Vec<String>,
}

/// What served before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviousView {
    /// Its slot.
    pub slot: String,
    /// Its commit.
    pub sha: Sha,
}

/// What one app releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppDigest {
    /// The app.
    pub app: String,
    /// Its digest; none until it is built.
    pub digest: Option<Digest>,
    /// The same digest is live already.
    pub unchanged: bool,
}

/// A phase of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhaseView {
    /// Its name: `Prepare`, `Warm`, `Switch`, …
    pub name: String,
    /// When it was entered.
    pub started: Timestamp,
    /// When it was left; none while it lasts.
    pub finished: Option<Timestamp>,
    /// Something to add, such as `2 of 2 ready`.
    pub note: Option<String>,
}

/// The prober's figures of one rollout.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProbeView {
    /// Requests sent.
    pub sent: u64,
    /// Requests that got no good answer.
    pub failed: u64,
    /// 99th percentile before the switch, in microseconds.
    pub p99_before_us: Option<u64>,
    /// 99th percentile after it, in microseconds.
    pub p99_after_us: Option<u64>,
    /// From the flip to the last answer of the old release, in milliseconds.
    pub last_old_ms: Option<u64>,
    /// What the first failed ones got, in words.
    pub failures: Vec<String>,
}

/// Real requests through our agent during the rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrafficView {
    /// Forwarded.
    pub requests: u64,
    /// Answered with 5xx by the app.
    pub server_errors: u64,
    /// Not answered, or broken off.
    pub cut: u64,
}

/// What goes live since the last release.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GoesLive {
    /// Commits, newest first (a part, where there are many).
    pub commits: Vec<CommitView>,
    /// How many there are.
    pub total: u64,
    /// Pull requests that were merged in them.
    pub pulls: Vec<PullView>,
    /// The page that compares both.
    pub compare_url: Option<String>,
}

/// A commit that goes live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitView {
    /// Which.
    pub sha: Sha,
    /// Its message.
    pub message: String,
    /// Who wrote it.
    pub author: String,
}

/// A pull request that goes live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullView {
    /// Its number.
    pub number: i64,
    /// Its title.
    pub title: String,
    /// Who opened it.
    pub author: String,
}

/// Why an environment takes no automatic releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldView {
    /// Since when.
    pub since: Timestamp,
    /// Who, or `the watch`.
    pub by: String,
    /// Why.
    pub reason: String,
}

//! What the planner decides: runs with their jobs and steps, ready to be written.

use super::{
    ids::{DeliveryId, Digest, JobId, RepoId, RunId, Sha, StepId},
    run::{Context, JobSpec, Outcome, RunDetail, TestReport},
};

/// A run to be written, with its jobs.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Its id.
    pub id: RunId,
    /// Where.
    pub repo: RepoId,
    /// (context, lane, head, base, attempt) as text: unique per repository.
    pub key: String,
    /// Why.
    pub context: Context,
    /// The branch, or `pull/N`.
    pub lane: String,
    /// The pull request.
    pub pull: Option<i64>,
    /// The commit that shows the checks.
    pub head: Sha,
    /// The commit that is tested.
    pub test: Sha,
    /// What it was merged with.
    pub base: Option<Sha>,
    /// 1, and one more with each re-run.
    pub attempt: i64,
    /// Set when it is over already (parked, mistakes, nothing to run).
    pub outcome: Option<Outcome>,
    /// A newer run that took its place before it began.
    pub superseded_by: Option<RunId>,
    /// What set it off.
    pub delivery: Option<DeliveryId>,
    /// What is told about it.
    pub detail: RunDetail,
    /// What it does.
    pub jobs: Vec<NewJob>,
}

/// A job to be written.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its id.
    pub id: JobId,
    /// The app.
    pub app: String,
    /// 0: leads to a release, 1: a test.
    pub priority: i64,
    /// What it does.
    pub spec: JobSpec,
    /// All its steps, those that are reused included.
    pub steps: Vec<NewStep>,
    /// The release it would build, when it stands already.
    pub digest: Option<Digest>,
}

impl NewJob {
    /// All its steps are proven already and what it would build stands.
    #[must_use]
    pub fn nothing_to_do(&self) -> bool {
        self.steps.iter().all(|s| s.reused.is_some()) && (self.spec.release.is_none() || self.digest.is_some())
    }
}

/// A step to be written.
#[derive(Debug, Clone)]
pub struct NewStep {
    /// Its id.
    pub id: StepId,
    /// Its name.
    pub name: String,
    /// Tree, commands and tools: what a success proves.
    pub tree_key: String,
    /// Proven already, and where.
    pub reused: Option<Reused>,
}

/// A proof that is taken over.
#[derive(Debug, Clone)]
pub struct Reused {
    /// The run that proved it.
    pub run: RunId,
    /// Its report.
    pub report: Option<TestReport>,
}

//! Runs, jobs and steps: planned in one transaction (`plan`), claimed with an epoch and ended exactly once (`work`), read
//! here.

mod plan;
mod work;

pub(super) use work::guard;

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;

use super::{Result, Store, StoreError, rows::Of};
use crate::domain::{
    event::Pull,
    ids::{DeliveryId, Digest, Epoch, JobId, RepoId, RunId, Sha, StepId},
    planned::NewRun,
    run::{Context, JobSpec, Outcome, RunDetail, StepResult, TestReport},
};

/// What the planner decided about one delivery, to be written at once.
#[derive(Debug, Default)]
pub struct Planned<'a> {
    /// Runs to write; one whose key is known is left out (a redelivery).
    pub runs: &'a [NewRun],
    /// Runs that end, and the new one that takes their place.
    pub supersede: &'a [(RunId, RunId)],
    /// Runs that end because somebody or something stopped them.
    pub cancel: &'a [RunId],
    /// The branch that was acted upon and its commit (none: deleted).
    pub head: Option<(&'a str, Option<&'a Sha>)>,
    /// The pull request as it is now.
    pub pull: Option<&'a Pull>,
    /// The delivery that is done with this, and what came of it.
    pub delivery: Option<(&'a DeliveryId, &'a str)>,
    /// The commit that the decision is about, for `explain`.
    pub sha: Option<&'a Sha>,
}

/// A stored run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Where.
    pub repo: RepoId,
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
    /// `queued`, `running`, `done`.
    pub state: String,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// The newer run.
    pub superseded_by: Option<RunId>,
    /// What set it off.
    pub delivery: Option<DeliveryId>,
    /// What is told about it.
    pub detail: RunDetail,
    /// When it was planned.
    pub created_at: Timestamp,
    /// When its first step began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// A stored job.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Its run.
    pub run: RunId,
    /// Where.
    pub repo: RepoId,
    /// The app.
    pub app: String,
    /// 0: leads to a release.
    pub priority: i64,
    /// `queued`, `running`, `done`.
    pub state: String,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// What it does.
    pub spec: JobSpec,
    /// The claim.
    pub epoch: Epoch,
    /// Claims so far.
    pub attempts: i64,
    /// The release it built.
    pub digest: Option<Digest>,
}

/// A stored step.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its id.
    pub id: StepId,
    /// Its job.
    pub job: JobId,
    /// Its run.
    pub run: RunId,
    /// The app.
    pub app: String,
    /// Its name.
    pub name: String,
    /// Its place in the job.
    pub seq: i64,
    /// `queued`, `running`, `done`.
    pub state: String,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// What a success proves.
    pub tree_key: String,
    /// The run whose proof it took over.
    pub reused_run: Option<RunId>,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// What its process did.
    pub result: Option<StepResult>,
    /// What its reports say.
    pub report: Option<TestReport>,
    /// The last lines of its log.
    pub last_lines: Vec<String>,
    /// More to say.
    pub note: Option<String>,
    /// Its log, from the data folder.
    pub log: Option<String>,
}

/// How a step ended, to be written.
#[derive(Debug, Clone)]
pub struct StepDone {
    /// How.
    pub outcome: Outcome,
    /// What its process did.
    pub result: Option<StepResult>,
    /// What its reports say.
    pub report: Option<TestReport>,
    /// The last lines of its log, redacted.
    pub last_lines: Vec<String>,
    /// More to say.
    pub note: Option<String>,
}

/// A sentence about the run of a job.
#[derive(Debug, Clone, Copy)]
pub enum JobNote<'a> {
    /// Why it did not go on.
    Error(&'a str),
    /// Worth knowing.
    Worth(&'a str),
}

impl Store {
    /// Runs of a lane that are not over.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn open_runs(&self, repo: RepoId, lane: Option<&str>) -> Result<Vec<Run>> {
        let rows = sqlx::query(
            "SELECT * FROM runs WHERE state IN ('queued', 'running') AND repo_id = $1 AND ($2 IS NULL OR lane = $2) ORDER BY id",
        )
        .bind(repo.0)
        .bind(lane)
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(read_run).collect()
    }

    /// All runs whose checks stand on this commit, oldest first.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn runs_on(&self, repo: RepoId, head: &Sha) -> Result<Vec<Run>> {
        let rows = sqlx::query("SELECT * FROM runs WHERE repo_id = $1 AND head_sha = $2 ORDER BY id")
            .bind(repo.0)
            .bind(head.as_str())
            .fetch_all(&self.read)
            .await?;
        rows.iter().map(read_run).collect()
    }

    /// The newest runs, newest first.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn recent_runs(&self, limit: i64) -> Result<Vec<Run>> {
        let rows =
            sqlx::query("SELECT * FROM runs ORDER BY id DESC LIMIT $1").bind(limit).fetch_all(&self.read).await?;
        rows.iter().map(read_run).collect()
    }

    /// The newest ended run of a lane, other than on this commit: what "newly failing" compares with.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn last_run_of(&self, repo: RepoId, lane: &str, before: RunId) -> Result<Option<Run>> {
        let row = sqlx::query(
            "SELECT * FROM runs WHERE repo_id = $1 AND lane = $2 AND id < $3 AND state = 'done' AND outcome IN ('success', 'failure') \
             ORDER BY id DESC LIMIT 1",
        )
        .bind(repo.0)
        .bind(lane)
        .bind(before.to_string())
        .fetch_optional(&self.read)
        .await?;
        row.as_ref().map(read_run).transpose()
    }

    /// The highest attempt of a run for this (context, lane, head, base).
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn attempts(&self, repo: RepoId, context: Context, lane: &str, head: &Sha) -> Result<i64> {
        let n: Option<i64> = sqlx::query_scalar(
            "SELECT MAX(attempt) FROM runs WHERE repo_id = $1 AND context = $2 AND lane = $3 AND head_sha = $4",
        )
        .bind(repo.0)
        .bind(context.as_str())
        .bind(lane)
        .bind(head.as_str())
        .fetch_one(&self.read)
        .await?;
        Ok(n.unwrap_or(0))
    }

    /// One run.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn run(&self, id: RunId) -> Result<Option<Run>> {
        let row =
            sqlx::query("SELECT * FROM runs WHERE id = $1").bind(id.to_string()).fetch_optional(&self.read).await?;
        row.as_ref().map(read_run).transpose()
    }

    /// The jobs of a run in order.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn jobs(&self, run: RunId) -> Result<Vec<Job>> {
        let rows = sqlx::query("SELECT * FROM jobs WHERE run_id = $1 ORDER BY seq")
            .bind(run.to_string())
            .fetch_all(&self.read)
            .await?;
        rows.iter().map(read_job).collect()
    }

    /// The steps of a run in order of jobs.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn steps(&self, run: RunId) -> Result<Vec<Step>> {
        let rows = sqlx::query(
            "SELECT s.* FROM steps s JOIN jobs j ON j.id = s.job_id WHERE s.run_id = $1 ORDER BY j.seq, s.seq",
        )
        .bind(run.to_string())
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(read_step).collect()
    }

    /// One step.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn step(&self, id: StepId) -> Result<Option<Step>> {
        let row =
            sqlx::query("SELECT * FROM steps WHERE id = $1").bind(id.to_string()).fetch_optional(&self.read).await?;
        row.as_ref().map(read_step).transpose()
    }
}

fn outcome(row: &Of<'_>) -> Result<Option<Outcome>> {
    row.maybe_text("outcome")?
        .map(|t| Outcome::parse(&t).ok_or_else(|| StoreError::corrupt(row.0, format!("outcome {t:?}"))))
        .transpose()
}

fn read_run(row: &SqliteRow) -> Result<Run> {
    let row = Of("runs", row);
    let context = row.text("context")?;
    Ok(Run {
        id: row.parsed("id")?,
        repo: RepoId(row.number("repo_id")?),
        context: Context::parse(&context).ok_or_else(|| StoreError::corrupt("runs", format!("context {context:?}")))?,
        lane: row.text("lane")?,
        pull: row.maybe_number("pull")?,
        head: row.parsed("head_sha")?,
        test: row.parsed("test_sha")?,
        base: row.maybe_parsed("base_sha")?,
        attempt: row.number("attempt")?,
        state: row.text("state")?,
        outcome: outcome(&row)?,
        superseded_by: row.maybe_parsed("superseded_by")?,
        delivery: row.maybe_parsed("delivery")?,
        detail: row.json("detail")?,
        created_at: row.time("created_at")?,
        started_at: row.maybe_time("started_at")?,
        finished_at: row.maybe_time("finished_at")?,
    })
}

fn read_job(row: &SqliteRow) -> Result<Job> {
    let row = Of("jobs", row);
    Ok(Job {
        id: row.parsed("id")?,
        run: row.parsed("run_id")?,
        repo: RepoId(row.number("repo_id")?),
        app: row.text("app")?,
        priority: row.number("priority")?,
        state: row.text("state")?,
        outcome: outcome(&row)?,
        spec: row.json("spec")?,
        epoch: Epoch(row.number("epoch")?),
        attempts: row.number("attempts")?,
        digest: row.maybe_parsed("digest")?,
    })
}

fn read_step(row: &SqliteRow) -> Result<Step> {
    let row = Of("steps", row);
    Ok(Step {
        id: row.parsed("id")?,
        job: row.parsed("job_id")?,
        run: row.parsed("run_id")?,
        app: row.text("app")?,
        name: row.text("name")?,
        seq: row.number("seq")?,
        state: row.text("state")?,
        outcome: outcome(&row)?,
        tree_key: row.text("tree_key")?,
        reused_run: row.maybe_parsed("reused_run")?,
        started_at: row.maybe_time("started_at")?,
        finished_at: row.maybe_time("finished_at")?,
        result: row.maybe_json("result")?,
        report: row.maybe_json("report")?,
        last_lines: row.maybe_json("last_lines")?.unwrap_or_default(),
        note: row.maybe_text("note")?,
        log: row.maybe_text("log")?,
    })
}

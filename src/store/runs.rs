//! Runs, jobs and steps: planned in one transaction, claimed with an epoch, ended exactly once.

use jiff::Timestamp;
use sqlx::{Sqlite, Transaction, sqlite::SqliteRow};

use super::{
    Result, Store, StoreError, ms,
    proofs::{self, Made},
    rows::{Of, to_json},
};
use crate::domain::{
    event::Pull,
    ids::{DeliveryId, Digest, Epoch, JobId, RepoId, RunId, Sha, StepId},
    planned::{NewJob, NewRun},
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
    /// Writes what the planner decided, in one transaction with the end of the delivery. Returns the ids of the runs
    /// written and the jobs whose work must stop.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn plan(&self, repo: RepoId, plan: Planned<'_>, now: Timestamp) -> Result<(Vec<RunId>, Vec<JobId>)> {
        let mut tx = self.begin().await?;
        let mut written = Vec::new();
        for run in plan.runs {
            if insert_run(&mut tx, run, now).await? {
                written.push(run.id);
            }
        }
        let mut stop = Vec::new();
        for (old, new) in plan.supersede {
            if written.contains(new) {
                stop.extend(end_run_in(&mut tx, *old, Outcome::Superseded, Some(*new), None, now).await?);
            }
        }
        for run in plan.cancel {
            stop.extend(end_run_in(&mut tx, *run, Outcome::Cancelled, None, None, now).await?);
        }
        if let Some((branch, sha)) = plan.head {
            super::repos::put_head_in(&mut tx, repo, branch, sha, now).await?;
        }
        if let Some(pull) = plan.pull {
            super::repos::put_pull_in(&mut tx, repo, pull, now).await?;
        }
        if let Some((guid, note)) = plan.delivery {
            super::deliveries::note_in(&mut tx, guid, repo, plan.sha, note, now).await?;
        }
        crate::failpoint::hit("planner.before_commit");
        tx.commit().await?;
        crate::failpoint::hit("planner.after_commit");
        Ok((written, stop))
    }

    /// Ends a run that is not over, whatever of it is under way. Returns the jobs whose work must stop.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn end_run(
        &self,
        run: RunId,
        outcome: Outcome,
        note: Option<&str>,
        now: Timestamp,
    ) -> Result<Vec<JobId>> {
        let mut tx = self.begin().await?;
        let jobs = end_run_in(&mut tx, run, outcome, None, note, now).await?;
        tx.commit().await?;
        Ok(jobs)
    }

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

    /// Jobs that wait to be claimed, with how many jobs of their repository run now: releases first, then the
    /// repository with the least under way, then the oldest.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn due_jobs(&self, now: Timestamp, limit: i64) -> Result<Vec<JobId>> {
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT j.id FROM jobs j WHERE j.state = 'queued' AND j.next_at <= $1 ORDER BY j.priority, \
             (SELECT COUNT(*) FROM jobs r WHERE r.repo_id = j.repo_id AND r.state = 'running'), j.created_at, j.id LIMIT $2",
        )
        .bind(ms(now))
        .bind(limit)
        .fetch_all(&self.read)
        .await?;
        ids.iter().map(|i| i.parse().map_err(|e| StoreError::corrupt("jobs", e))).collect()
    }

    /// When a job that was put off is due next.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn next_job_at(&self) -> Result<Option<Timestamp>> {
        let at: Option<i64> =
            sqlx::query_scalar("SELECT MIN(next_at) FROM jobs WHERE state = 'queued'").fetch_one(&self.read).await?;
        Ok(at.and_then(|n| Timestamp::from_millisecond(n).ok()))
    }

    /// Claims a queued job: it is running, its epoch is one higher, its run is running.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn claim_job(
        &self,
        id: JobId,
        owner: &str,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Job>> {
        let mut tx = self.begin().await?;
        let row = sqlx::query(
            "UPDATE jobs SET state = 'running', owner = $2, lease_until = $3, epoch = epoch + 1, attempts = attempts + 1 \
             WHERE id = $1 AND state = 'queued' RETURNING *",
        )
        .bind(id.to_string())
        .bind(owner)
        .bind(ms(lease_until))
        .fetch_optional(&mut *tx)
        .await?;
        let Some(job) = row.as_ref().map(read_job).transpose()? else { return Ok(None) };
        sqlx::query("UPDATE runs SET state = 'running', started_at = COALESCE(started_at, $2) WHERE id = $1 AND state = 'queued'")
            .bind(job.run.to_string())
            .bind(ms(now))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(Some(job))
    }

    /// Prolongs a claim.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when somebody else holds the job, or it was ended.
    pub async fn renew_job(&self, job: &Job, lease_until: Timestamp) -> Result<()> {
        let done = sqlx::query("UPDATE jobs SET lease_until = $3 WHERE id = $1 AND epoch = $2 AND state = 'running'")
            .bind(job.id.to_string())
            .bind(job.epoch.0)
            .bind(ms(lease_until))
            .execute(&self.write)
            .await?;
        fenced(done.rows_affected(), "job", job.id)
    }

    /// Gives running jobs of other owners, or with an ended lease, back to the queue. Their unfinished steps
    /// begin anew. Returns how many.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn take_back_jobs(&self, owner: &str, now: Timestamp) -> Result<u64> {
        let mut tx = self.begin().await?;
        let ids: Vec<(String, String, i64)> = sqlx::query_as(
            "SELECT id, run_id, repo_id FROM jobs WHERE state = 'running' AND (owner <> $1 OR lease_until < $2)",
        )
        .bind(owner)
        .bind(ms(now))
        .fetch_all(&mut *tx)
        .await?;
        for (job, run, repo) in &ids {
            requeue(&mut tx, job, now).await?;
            dirty_run(&mut tx, RepoId(*repo), run, now).await?;
        }
        tx.commit().await?;
        Ok(ids.len() as u64)
    }

    /// Gives a job back (shutdown, or a fault of the machine): it is claimed again at `at`.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when somebody else holds it.
    pub async fn hand_back_job(&self, job: &Job, at: Timestamp, now: Timestamp) -> Result<()> {
        let mut tx = self.begin().await?;
        guard(&mut tx, job).await?;
        requeue(&mut tx, &job.id.to_string(), at).await?;
        dirty_run(&mut tx, job.repo, &job.run.to_string(), now).await?;
        tx.commit().await?;
        Ok(())
    }

    /// A step begins.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the claim is stale.
    pub async fn begin_step(&self, job: &Job, step: StepId, log: &str, now: Timestamp) -> Result<()> {
        let mut tx = self.begin().await?;
        guard(&mut tx, job).await?;
        sqlx::query("UPDATE steps SET state = 'running', started_at = $2, log = $3 WHERE id = $1 AND state <> 'done'")
            .bind(step.to_string())
            .bind(ms(now))
            .bind(log)
            .execute(&mut *tx)
            .await?;
        dirty_run(&mut tx, job.repo, &job.run.to_string(), now).await?;
        tx.commit().await?;
        Ok(())
    }

    /// A step ended. A success is kept as a proof for its tree.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the claim is stale.
    pub async fn end_step(&self, job: &Job, step: &Step, done: &StepDone, now: Timestamp) -> Result<()> {
        let mut tx = self.begin().await?;
        guard(&mut tx, job).await?;
        sqlx::query(
            "UPDATE steps SET state = 'done', outcome = $2, finished_at = $3, result = $4, report = $5, last_lines = $6, note = $7 \
             WHERE id = $1 AND state <> 'done'",
        )
        .bind(step.id.to_string())
        .bind(done.outcome.as_str())
        .bind(ms(now))
        .bind(done.result.as_ref().map(|r| to_json("steps", r)).transpose()?)
        .bind(done.report.as_ref().map(|r| to_json("steps", r)).transpose()?)
        .bind(to_json("steps", &done.last_lines)?)
        .bind(&done.note)
        .execute(&mut *tx)
        .await?;
        if done.outcome == Outcome::Success {
            sqlx::query(
                "INSERT INTO tested (repo_id, tree_key, run_id, step_id, at) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (repo_id, tree_key) DO NOTHING",
            )
            .bind(job.repo.0)
            .bind(&step.tree_key)
            .bind(job.run.to_string())
            .bind(step.id.to_string())
            .bind(ms(now))
            .execute(&mut *tx)
            .await?;
        }
        dirty_run(&mut tx, job.repo, &job.run.to_string(), now).await?;
        tx.commit().await?;
        Ok(())
    }

    /// A job ended: steps that were not reached are skipped; when it was the last one, its run ends too.
    /// `built` is the release it made.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the claim is stale.
    pub async fn end_job(&self, job: &Job, outcome: Outcome, built: Option<&Made<'_>>, now: Timestamp) -> Result<()> {
        let mut tx = self.begin().await?;
        guard(&mut tx, job).await?;
        let rest = if outcome == Outcome::Failure || outcome == Outcome::TimedOut { Outcome::Skipped } else { outcome };
        end_steps(&mut tx, &job.id.to_string(), rest, now).await?;
        sqlx::query(
            "UPDATE jobs SET state = 'done', outcome = $2, owner = NULL, digest = COALESCE($3, digest) WHERE id = $1",
        )
        .bind(job.id.to_string())
        .bind(outcome.as_str())
        .bind(built.map(|b| b.digest.as_str()))
        .execute(&mut *tx)
        .await?;
        if let Some(made) = built {
            proofs::put_release(&mut tx, job, made, now).await?;
        }
        finish_run_if_over(&mut tx, &job.run.to_string(), now).await?;
        dirty_run(&mut tx, job.repo, &job.run.to_string(), now).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Adds a sentence to the run of a job.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the claim is stale.
    pub async fn note_job(&self, job: &Job, note: JobNote<'_>, now: Timestamp) -> Result<()> {
        let mut tx = self.begin().await?;
        guard(&mut tx, job).await?;
        let row = sqlx::query("SELECT * FROM runs WHERE id = $1").bind(job.run.to_string()).fetch_one(&mut *tx).await?;
        let mut run = read_run(&row)?;
        match note {
            JobNote::Error(note) => run.detail.error = Some(note.to_owned()),
            JobNote::Worth(note) if run.detail.notes.iter().any(|n| n == note) => return Ok(()),
            JobNote::Worth(note) => run.detail.notes.push(note.to_owned()),
        }
        sqlx::query("UPDATE runs SET detail = $2 WHERE id = $1")
            .bind(job.run.to_string())
            .bind(to_json("runs", &run.detail)?)
            .execute(&mut *tx)
            .await?;
        dirty_run(&mut tx, job.repo, &job.run.to_string(), now).await?;
        tx.commit().await?;
        Ok(())
    }
}

fn fenced(rows: u64, what: &str, id: impl std::fmt::Display) -> Result<()> {
    if rows == 1 { Ok(()) } else { Err(StoreError::Fenced(format!("{what} {id}"))) }
}

pub(super) async fn guard(tx: &mut Transaction<'static, Sqlite>, job: &Job) -> Result<()> {
    let row: Option<i64> = sqlx::query_scalar("SELECT 1 FROM jobs WHERE id = $1 AND epoch = $2 AND state = 'running'")
        .bind(job.id.to_string())
        .bind(job.epoch.0)
        .fetch_optional(&mut **tx)
        .await?;
    fenced(u64::from(row.is_some()), "job", job.id)
}

async fn requeue(tx: &mut Transaction<'static, Sqlite>, job: &str, at: Timestamp) -> Result<()> {
    // The epoch grows here too: the former holder is inert from now on, not only after the next claim.
    sqlx::query("UPDATE jobs SET state = 'queued', owner = NULL, lease_until = NULL, epoch = epoch + 1, next_at = $2 WHERE id = $1")
        .bind(job)
        .bind(ms(at))
        .execute(&mut **tx)
        .await?;
    sqlx::query("UPDATE steps SET state = 'queued', started_at = NULL WHERE job_id = $1 AND state = 'running'")
        .bind(job)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn end_steps(tx: &mut Transaction<'static, Sqlite>, job: &str, outcome: Outcome, now: Timestamp) -> Result<()> {
    sqlx::query(
        "UPDATE steps SET state = 'done', outcome = $2, finished_at = $3 WHERE job_id = $1 AND state <> 'done'",
    )
    .bind(job)
    .bind(outcome.as_str())
    .bind(ms(now))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn end_run_in(
    tx: &mut Transaction<'static, Sqlite>,
    run: RunId,
    outcome: Outcome,
    superseded_by: Option<RunId>,
    note: Option<&str>,
    now: Timestamp,
) -> Result<Vec<JobId>> {
    let row = sqlx::query(
        "UPDATE runs SET state = 'done', outcome = $2, superseded_by = $3, finished_at = $4 WHERE id = $1 AND state <> 'done' \
         RETURNING *",
    )
    .bind(run.to_string())
    .bind(outcome.as_str())
    .bind(superseded_by.map(|r| r.to_string()))
    .bind(ms(now))
    .fetch_optional(&mut **tx)
    .await?;
    let Some(row) = row else { return Ok(Vec::new()) };
    let mut stored = read_run(&row)?;
    if let Some(note) = note {
        stored.detail.notes.push(note.to_owned());
        sqlx::query("UPDATE runs SET detail = $2 WHERE id = $1")
            .bind(run.to_string())
            .bind(to_json("runs", &stored.detail)?)
            .execute(&mut **tx)
            .await?;
    }
    let jobs: Vec<String> = sqlx::query_scalar(
        "UPDATE jobs SET state = 'done', outcome = $2, owner = NULL, epoch = epoch + 1 WHERE run_id = $1 AND state <> 'done' RETURNING id",
    )
    .bind(run.to_string())
    .bind(outcome.as_str())
    .fetch_all(&mut **tx)
    .await?;
    for job in &jobs {
        end_steps(tx, job, outcome, now).await?;
    }
    dirty_run(tx, stored.repo, &run.to_string(), now).await?;
    jobs.iter().map(|j| j.parse().map_err(|e| StoreError::corrupt("jobs", e))).collect()
}

async fn finish_run_if_over(tx: &mut Transaction<'static, Sqlite>, run: &str, now: Timestamp) -> Result<()> {
    let outcomes: Vec<(String, Option<String>)> =
        sqlx::query_as("SELECT state, outcome FROM jobs WHERE run_id = $1").bind(run).fetch_all(&mut **tx).await?;
    if outcomes.iter().any(|(state, _)| state != "done") {
        return Ok(());
    }
    let all: Vec<Outcome> = outcomes.iter().filter_map(|(_, o)| o.as_deref().and_then(Outcome::parse)).collect();
    // The worst one tells how the run ended.
    let order = [Outcome::Failure, Outcome::TimedOut, Outcome::Infrastructure, Outcome::Cancelled, Outcome::Superseded];
    let outcome = order.into_iter().find(|o| all.contains(o)).unwrap_or(Outcome::Success);
    sqlx::query("UPDATE runs SET state = 'done', outcome = $2, finished_at = $3 WHERE id = $1 AND state <> 'done'")
        .bind(run)
        .bind(outcome.as_str())
        .bind(ms(now))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Marks everything that shows this run: its commit's checks.
async fn dirty_run(tx: &mut Transaction<'static, Sqlite>, repo: RepoId, run: &str, now: Timestamp) -> Result<()> {
    sqlx::query(
        "INSERT INTO dirty (kind, repo_id, subject, since) SELECT 'commit', $1, head_sha, $3 FROM runs WHERE id = $2 \
         ON CONFLICT (kind, repo_id, subject) DO UPDATE SET since = $3, version = dirty.version + 1",
    )
    .bind(repo.0)
    .bind(run)
    .bind(ms(now))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn insert_run(tx: &mut Transaction<'static, Sqlite>, run: &NewRun, now: Timestamp) -> Result<bool> {
    let outcome = run.outcome.or_else(|| run.jobs.iter().all(NewJob::nothing_to_do).then_some(Outcome::Success));
    let state = if outcome.is_some() { "done" } else { "queued" };
    let done = sqlx::query(
        "INSERT INTO runs (id, repo_id, run_key, context, lane, pull, head_sha, test_sha, base_sha, attempt, state, outcome, \
         superseded_by, delivery, detail, created_at, finished_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) ON CONFLICT (repo_id, run_key) DO NOTHING",
    )
    .bind(run.id.to_string())
    .bind(run.repo.0)
    .bind(&run.key)
    .bind(run.context.as_str())
    .bind(&run.lane)
    .bind(run.pull)
    .bind(run.head.as_str())
    .bind(run.test.as_str())
    .bind(run.base.as_ref().map(Sha::as_str))
    .bind(run.attempt)
    .bind(state)
    .bind(outcome.map(Outcome::as_str))
    .bind(run.superseded_by.map(|r| r.to_string()))
    .bind(run.delivery.as_ref().map(DeliveryId::as_str))
    .bind(to_json("runs", &run.detail)?)
    .bind(ms(now))
    .bind(outcome.map(|_| ms(now)))
    .execute(&mut **tx)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    for (seq, job) in run.jobs.iter().enumerate() {
        let over = run.outcome.or_else(|| job.nothing_to_do().then_some(Outcome::Success));
        sqlx::query(
            "INSERT INTO jobs (id, run_id, repo_id, app, seq, priority, state, outcome, spec, next_at, digest, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $10)",
        )
        .bind(job.id.to_string())
        .bind(run.id.to_string())
        .bind(run.repo.0)
        .bind(&job.app)
        .bind(seq as i64)
        .bind(job.priority)
        .bind(if over.is_some() { "done" } else { "queued" })
        .bind(over.map(Outcome::as_str))
        .bind(to_json("jobs", &job.spec)?)
        .bind(ms(now))
        .bind(job.digest.as_ref().map(Digest::as_str))
        .execute(&mut **tx)
        .await?;
        for (seq, step) in job.steps.iter().enumerate() {
            let over = run.outcome.or(step.reused.as_ref().map(|_| Outcome::Success));
            sqlx::query(
                "INSERT INTO steps (id, job_id, run_id, repo_id, app, name, seq, state, outcome, tree_key, reused_run, report, finished_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
            )
            .bind(step.id.to_string())
            .bind(job.id.to_string())
            .bind(run.id.to_string())
            .bind(run.repo.0)
            .bind(&job.app)
            .bind(&step.name)
            .bind(seq as i64)
            .bind(if over.is_some() { "done" } else { "queued" })
            .bind(over.map(Outcome::as_str))
            .bind(&step.tree_key)
            .bind(step.reused.as_ref().map(|r| r.run.to_string()))
            .bind(step.reused.as_ref().and_then(|r| r.report.as_ref()).map(|r| to_json("steps", r)).transpose()?)
            .bind(over.map(|_| ms(now)))
            .execute(&mut **tx)
            .await?;
        }
    }
    dirty_run(tx, run.repo, &run.id.to_string(), now).await?;
    Ok(true)
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

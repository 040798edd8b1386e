//! Jobs and steps under way: who holds one, and what came of it. Whoever lost a job can write nothing more of it.

use jiff::Timestamp;
use sqlx::{Sqlite, Transaction};

use super::{
    Job, JobNote, Step, StepDone,
    plan::{dirty_run, finish_run_if_over},
    read_job, read_run,
};
use crate::{
    domain::{
        ids::{JobId, RepoId, StepId},
        run::Outcome,
    },
    store::{
        Result, Store, StoreError, ms,
        proofs::{self, Made},
        rows::to_json,
    },
};

impl Store {
    /// Jobs that wait to be claimed: releases first, then the repository with the least under way, then the oldest. The
    /// jobs of this very answer count as under way, so that several free places are shared as well.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn due_jobs(&self, now: Timestamp, limit: i64) -> Result<Vec<JobId>> {
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM (SELECT j.id, j.priority, j.created_at, \
             (SELECT COUNT(*) FROM jobs r WHERE r.repo_id = j.repo_id AND r.state = 'running') \
             + ROW_NUMBER() OVER (PARTITION BY j.repo_id ORDER BY j.priority, j.created_at, j.id) AS turn \
             FROM jobs j WHERE j.state = 'queued' AND j.next_at <= $1) AS due \
             ORDER BY priority, turn, created_at, id LIMIT $2",
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

    /// A step begins. If it is the first one of a run that a delivery set off: when that delivery came.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the claim is stale.
    pub async fn begin_step(&self, job: &Job, step: StepId, log: &str, now: Timestamp) -> Result<Option<Timestamp>> {
        let mut tx = self.begin().await?;
        guard(&mut tx, job).await?;
        sqlx::query("UPDATE steps SET state = 'running', started_at = $2, log = $3 WHERE id = $1 AND state <> 'done'")
            .bind(step.to_string())
            .bind(ms(now))
            .bind(log)
            .execute(&mut *tx)
            .await?;
        // A job that is tried again has begun before.
        let came: Option<i64> = sqlx::query_scalar(
            "SELECT d.received_at FROM runs r JOIN deliveries d ON d.guid = r.delivery WHERE r.id = $1 AND $3 = 1 \
             AND NOT EXISTS (SELECT 1 FROM steps s WHERE s.run_id = r.id AND s.id <> $2 AND s.started_at IS NOT NULL)",
        )
        .bind(job.run.to_string())
        .bind(step.to_string())
        .bind(job.attempts)
        .fetch_optional(&mut *tx)
        .await?;
        dirty_run(&mut tx, job.repo, &job.run.to_string(), now).await?;
        tx.commit().await?;
        Ok(came.and_then(|at| Timestamp::from_millisecond(at).ok()))
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
            JobNote::Error(note) => {
                run.detail.error = Some(note.to_owned());
                // The job's steps that will not run tell why, each in its own check.
                sqlx::query("UPDATE steps SET note = $2 WHERE job_id = $1 AND state <> 'done'")
                    .bind(job.id.to_string())
                    .bind(note)
                    .execute(&mut *tx)
                    .await?;
            }
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

pub(in crate::store) async fn guard(tx: &mut Transaction<'static, Sqlite>, job: &Job) -> Result<()> {
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

pub(super) async fn end_steps(
    tx: &mut Transaction<'static, Sqlite>,
    job: &str,
    outcome: Outcome,
    now: Timestamp,
) -> Result<()> {
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

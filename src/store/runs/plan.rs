//! What the planner decided, written at once; and how a run ends.

use jiff::Timestamp;
use sqlx::{Sqlite, Transaction};

use super::{Planned, read_run, work::end_steps};
use crate::{
    domain::{
        ids::{DeliveryId, Digest, JobId, RepoId, RunId, Sha},
        planned::{NewJob, NewRun},
        run::Outcome,
    },
    store::{Result, Store, StoreError, deliveries, ms, repos, rows::to_json},
};

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
            repos::put_head_in(&mut tx, repo, branch, sha, now).await?;
        }
        if let Some(pull) = plan.pull {
            repos::put_pull_in(&mut tx, repo, pull, now).await?;
        }
        if let Some((guid, note)) = plan.delivery {
            // Somebody else was quicker: what was to be done is not what was done.
            let known = !plan.runs.is_empty() && written.is_empty();
            let note =
                if known { format!("nothing new, such a run is there already ({note})") } else { note.to_owned() };
            deliveries::note_in(&mut tx, guid, repo, plan.sha, &note, now).await?;
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

pub(super) async fn finish_run_if_over(tx: &mut Transaction<'static, Sqlite>, run: &str, now: Timestamp) -> Result<()> {
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
pub(super) async fn dirty_run(
    tx: &mut Transaction<'static, Sqlite>,
    repo: RepoId,
    run: &str,
    now: Timestamp,
) -> Result<()> {
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

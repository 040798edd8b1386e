//! Rollouts: at most one per environment is active; every write of one is fenced.

use jiff::Timestamp;
use serde::Serialize;
use sqlx::{Sqlite, Transaction, sqlite::SqliteRow};

use super::{
    Result, Store, StoreError,
    environments::{hold_in, keep_in, put_back_in},
    ms,
    rows::{Of, to_json},
    shown::dirty_in,
};
use crate::domain::ids::{Epoch, RepoId, RolloutId, RunId, Sha};

/// A rollout to be written.
#[derive(Debug, Clone)]
pub struct NewRollout {
    /// Its id.
    pub id: RolloutId,
    /// Where the code is.
    pub repo: RepoId,
    /// Where it goes.
    pub environment: String,
    /// `release` or `rollback`.
    pub kind: String,
    /// The commit.
    pub sha: Sha,
    /// The run that built it.
    pub run: Option<RunId>,
    /// `gated` (waits) or `queued`.
    pub state: String,
    /// Why it waits.
    pub message: Option<String>,
    /// What shall be, as JSON.
    pub desired: String,
    /// Where it stands, as JSON.
    pub progress: String,
    /// What is told about it, as JSON.
    pub detail: String,
    /// Who asked for it.
    pub actor: String,
}

/// A stored rollout.
#[derive(Debug, Clone)]
pub struct RolloutRow {
    /// Its id.
    pub id: RolloutId,
    /// Where the code is.
    pub repo: RepoId,
    /// Where it goes.
    pub environment: String,
    /// `release` or `rollback`.
    pub kind: String,
    /// The commit.
    pub sha: Sha,
    /// The run that built it.
    pub run: Option<RunId>,
    /// `gated`, `queued`, `active`, `done`.
    pub state: String,
    /// How it ended.
    pub outcome: Option<String>,
    /// In words.
    pub message: Option<String>,
    /// What shall be, as JSON.
    pub desired: String,
    /// Where it stands, as JSON.
    pub progress: String,
    /// What is told about it, as JSON.
    pub detail: String,
    /// What people asked of it, as JSON.
    pub asked: String,
    /// Who asked for it.
    pub actor: String,
    /// The claim.
    pub epoch: Epoch,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was claimed first.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl Store {
    /// Writes a rollout. Others of the environment that did not begin are superseded by it, but a rollback never by a
    /// release; their ids are returned.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn put_rollout(&self, r: &NewRollout, now: Timestamp) -> Result<Vec<RolloutId>> {
        let mut tx = self.begin().await?;
        sqlx::query("INSERT INTO environments (repo_id, name) VALUES ($1, $2) ON CONFLICT (repo_id, name) DO NOTHING")
            .bind(r.repo.0)
            .bind(&r.environment)
            .execute(&mut *tx)
            .await?;
        let old: Vec<String> = sqlx::query_scalar(
            "UPDATE rollouts SET state = 'done', outcome = 'superseded', message = $3, finished_at = $4, epoch = epoch + 1 \
             WHERE repo_id = $1 AND environment = $2 AND state IN ('gated', 'queued') \
             AND (kind = 'release' OR $5 = 'rollback') RETURNING id",
        )
        .bind(r.repo.0)
        .bind(&r.environment)
        .bind(format!("superseded by {}", r.sha.short()))
        .bind(ms(now))
        .bind(&r.kind)
        .fetch_all(&mut *tx)
        .await?;
        sqlx::query(
            "INSERT INTO rollouts (id, repo_id, environment, kind, sha, run_id, state, message, desired, progress, detail, asked, actor, \
             next_at, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, \
             '{\"promote\":false,\"cancel\":false,\"rollback\":false,\"superseded_by\":null}', $12, $13, $13)",
        )
        .bind(r.id.to_string())
        .bind(r.repo.0)
        .bind(&r.environment)
        .bind(&r.kind)
        .bind(r.sha.as_str())
        .bind(r.run.map(|r| r.to_string()))
        .bind(&r.state)
        .bind(&r.message)
        .bind(&r.desired)
        .bind(&r.progress)
        .bind(&r.detail)
        .bind(&r.actor)
        .bind(ms(now))
        .execute(&mut *tx)
        .await?;
        for id in old.iter().map(String::as_str).chain([r.id.to_string().as_str()]) {
            dirty_rollout(&mut tx, r.repo, id, now).await?;
        }
        tx.commit().await?;
        old.iter().map(|i| i.parse().map_err(|e| StoreError::corrupt("rollouts", e))).collect()
    }

    /// True when a rollout for this run and environment was made already (a replayed event makes no second one).
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn rollout_of_run(&self, run: RunId, environment: &str) -> Result<bool> {
        let found: Option<i64> =
            sqlx::query_scalar("SELECT 1 FROM rollouts WHERE run_id = $1 AND environment = $2 LIMIT 1")
                .bind(run.to_string())
                .bind(environment)
                .fetch_optional(&self.read)
                .await?;
        Ok(found.is_some())
    }

    /// Ended runs on branches that led to a release decision that was not taken yet.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn runs_to_release(&self, limit: i64) -> Result<Vec<RunId>> {
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM runs WHERE context = 'push' AND state = 'done' AND outcome = 'success' AND NOT EXISTS \
             (SELECT 1 FROM meta WHERE name = 'released:' || runs.id) ORDER BY id LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.read)
        .await?;
        ids.iter().map(|i| i.parse().map_err(|e| StoreError::corrupt("runs", e))).collect()
    }

    /// Rollouts that are queued or active, oldest first.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn open_rollouts(&self) -> Result<Vec<RolloutRow>> {
        let rows =
            sqlx::query("SELECT * FROM rollouts WHERE state <> 'done' ORDER BY id").fetch_all(&self.read).await?;
        rows.iter().map(read).collect()
    }

    /// Rollouts on a commit, oldest first.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn rollouts_on(&self, repo: RepoId, sha: &Sha) -> Result<Vec<RolloutRow>> {
        let rows = sqlx::query("SELECT * FROM rollouts WHERE repo_id = $1 AND sha = $2 ORDER BY id")
            .bind(repo.0)
            .bind(sha.as_str())
            .fetch_all(&self.read)
            .await?;
        rows.iter().map(read).collect()
    }

    /// The newest rollouts of an environment, newest first.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn rollouts_of(&self, repo: RepoId, environment: &str, limit: i64) -> Result<Vec<RolloutRow>> {
        let rows =
            sqlx::query("SELECT * FROM rollouts WHERE repo_id = $1 AND environment = $2 ORDER BY id DESC LIMIT $3")
                .bind(repo.0)
                .bind(environment)
                .bind(limit)
                .fetch_all(&self.read)
                .await?;
        rows.iter().map(read).collect()
    }

    /// One rollout.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn rollout(&self, id: RolloutId) -> Result<Option<RolloutRow>> {
        let row =
            sqlx::query("SELECT * FROM rollouts WHERE id = $1").bind(id.to_string()).fetch_optional(&self.read).await?;
        row.as_ref().map(read).transpose()
    }

    /// Claims a queued rollout, or one that is active and whose worker is gone. None when it is over, another one of its
    /// environment is active, or it is a release and the environment is held by now: then it waits at its gates again.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn claim_rollout(&self, id: RolloutId, now: Timestamp) -> Result<Option<RolloutRow>> {
        let mut tx = self.begin().await?;
        let place: Option<(i64, String)> = sqlx::query_as("SELECT repo_id, environment FROM rollouts WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&mut *tx)
            .await?;
        // Its gates were looked at before, and the hold may have come since then.
        let put_back = match place {
            Some((repo, environment)) => put_back_in(&mut tx, RepoId(repo), &environment, now).await?,
            None => false,
        };
        // The epoch comes from the environment: it grows with every claim of any of its rollouts, so the data plane can
        // refuse a worker of an older rollout too.
        let row = sqlx::query(
            "UPDATE environments SET epoch = epoch + 1 WHERE EXISTS (SELECT 1 FROM rollouts r WHERE r.id = $1 AND r.repo_id = \
             environments.repo_id AND r.environment = environments.name AND r.state IN ('queued', 'active') AND NOT EXISTS \
             (SELECT 1 FROM rollouts o WHERE o.repo_id = r.repo_id AND o.environment = r.environment AND o.state = 'active' AND o.id <> r.id)) \
             RETURNING epoch",
        )
        .bind(id.to_string())
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else {
            if put_back {
                tx.commit().await?;
            }
            return Ok(None);
        };
        let epoch = Of("environments", &row).number("epoch")?;
        let row = sqlx::query(
            "UPDATE rollouts SET state = 'active', epoch = $2, message = NULL, started_at = COALESCE(started_at, $3) WHERE id = $1 RETURNING *",
        )
        .bind(id.to_string())
        .bind(epoch)
        .bind(ms(now))
        .fetch_one(&mut *tx)
        .await?;
        let row = read(&row)?;
        dirty_rollout(&mut tx, row.repo, &id.to_string(), now).await?;
        tx.commit().await?;
        Ok(Some(row))
    }

    /// Writes where a rollout stands, and reads in the same transaction what people asked of it.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the claim is stale.
    pub async fn record_rollout(&self, id: RolloutId, epoch: Epoch, progress: &str, now: Timestamp) -> Result<String> {
        let mut tx = self.begin().await?;
        let row = sqlx::query(
            "UPDATE rollouts SET progress = $3 WHERE id = $1 AND epoch = $2 AND state = 'active' RETURNING repo_id, asked",
        )
        .bind(id.to_string())
        .bind(epoch.0)
        .bind(progress)
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else { return Err(StoreError::Fenced(format!("rollout {id}"))) };
        let row = Of("rollouts", &row);
        let asked = row.text("asked")?;
        dirty_rollout(&mut tx, RepoId(row.number("repo_id")?), &id.to_string(), now).await?;
        tx.commit().await?;
        Ok(asked)
    }

    /// Ends a rollout. `live`: it serves now. `hold`: automatic releases stop, and why. `keep`: slots that stay warm (JSON)
    /// in place of those kept so far, and when the first of them is retired.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the claim is stale.
    #[expect(clippy::too_many_arguments, reason = "one row's columns, written in one place")]
    pub async fn end_rollout(
        &self,
        id: RolloutId,
        epoch: Epoch,
        outcome: &str,
        message: &str,
        live: Option<RolloutId>,
        hold: Option<&str>,
        keep: Option<(&str, Option<Timestamp>)>,
        now: Timestamp,
    ) -> Result<()> {
        let mut tx = self.begin().await?;
        let row = sqlx::query(
            "UPDATE rollouts SET state = 'done', outcome = $3, message = $4, finished_at = $5 \
             WHERE id = $1 AND epoch = $2 AND state <> 'done' RETURNING *",
        )
        .bind(id.to_string())
        .bind(epoch.0)
        .bind(outcome)
        .bind(message)
        .bind(ms(now))
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row.as_ref().map(read).transpose()? else {
            return Err(StoreError::Fenced(format!("rollout {id}")));
        };
        if let Some(live) = live {
            let before: Option<String> =
                sqlx::query_scalar("SELECT live_rollout FROM environments WHERE repo_id = $1 AND name = $2")
                    .bind(row.repo.0)
                    .bind(&row.environment)
                    .fetch_one(&mut *tx)
                    .await?;
            sqlx::query("UPDATE environments SET live_rollout = $3 WHERE repo_id = $1 AND name = $2")
                .bind(row.repo.0)
                .bind(&row.environment)
                .bind(live.to_string())
                .execute(&mut *tx)
                .await?;
            // The one that served before is inactive on GitHub from now on.
            for other in before.iter().map(String::as_str).chain([live.to_string().as_str()]) {
                dirty_rollout(&mut tx, row.repo, other, now).await?;
            }
        }
        if let Some((keep, retire_at)) = keep {
            keep_in(&mut tx, row.repo, &row.environment, keep, retire_at).await?;
        }
        if let Some(reason) = hold {
            hold_in(&mut tx, row.repo, &row.environment, Some((reason, &row.actor)), now).await?;
        }
        dirty_rollout(&mut tx, row.repo, &id.to_string(), now).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Changes a gated rollout: it is queued now, or its reason changed, or it is over.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn gate_rollout(&self, id: RolloutId, state: &str, message: Option<&str>, now: Timestamp) -> Result<()> {
        let mut tx = self.begin().await?;
        let row = sqlx::query(
            "UPDATE rollouts SET state = $2, message = $3, finished_at = CASE WHEN $2 = 'done' THEN $4 END, \
             outcome = CASE WHEN $2 = 'done' THEN 'cancelled' END WHERE id = $1 AND state = 'gated' \
             AND (state <> $2 OR message IS NOT $3) RETURNING repo_id",
        )
        .bind(id.to_string())
        .bind(state)
        .bind(message)
        .bind(ms(now))
        .fetch_optional(&mut *tx)
        .await?;
        commit_shown(tx, row, id, now).await
    }

    /// Says why a rollout can't be carried on now; its next claim forgets it.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn tell_rollout(&self, id: RolloutId, message: &str, now: Timestamp) -> Result<()> {
        let mut tx = self.begin().await?;
        let row = sqlx::query(
            "UPDATE rollouts SET message = $2 WHERE id = $1 AND state IN ('queued', 'active') AND message IS NOT $2 \
             RETURNING repo_id",
        )
        .bind(id.to_string())
        .bind(message)
        .fetch_optional(&mut *tx)
        .await?;
        commit_shown(tx, row, id, now).await
    }

    /// Notes what people asked of a rollout.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn ask_rollout(&self, id: RolloutId, asked: &str) -> Result<bool> {
        let done = sqlx::query("UPDATE rollouts SET asked = $2 WHERE id = $1 AND state <> 'done'")
            .bind(id.to_string())
            .bind(asked)
            .execute(&self.write)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// A release decision was taken about this run.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn release_decided(&self, run: RunId) -> Result<()> {
        self.set_meta(&format!("released:{run}"), "1").await
    }
}

async fn dirty_rollout(tx: &mut Transaction<'static, Sqlite>, repo: RepoId, id: &str, now: Timestamp) -> Result<()> {
    dirty_in(&mut **tx, "rollout", repo, id, now).await
}

/// Commits a change of a rollout, shown where a row was changed.
async fn commit_shown(
    mut tx: Transaction<'static, Sqlite>,
    changed: Option<SqliteRow>,
    id: RolloutId,
    now: Timestamp,
) -> Result<()> {
    if let Some(row) = changed {
        dirty_rollout(&mut tx, RepoId(Of("rollouts", &row).number("repo_id")?), &id.to_string(), now).await?;
    }
    tx.commit().await?;
    Ok(())
}

fn read(row: &SqliteRow) -> Result<RolloutRow> {
    let row = Of("rollouts", row);
    Ok(RolloutRow {
        id: row.parsed("id")?,
        repo: RepoId(row.number("repo_id")?),
        environment: row.text("environment")?,
        kind: row.text("kind")?,
        sha: row.parsed("sha")?,
        run: row.maybe_parsed("run_id")?,
        state: row.text("state")?,
        outcome: row.maybe_text("outcome")?,
        message: row.maybe_text("message")?,
        desired: row.text("desired")?,
        progress: row.text("progress")?,
        detail: row.text("detail")?,
        asked: row.text("asked")?,
        actor: row.text("actor")?,
        epoch: Epoch(row.number("epoch")?),
        created_at: row.time("created_at")?,
        started_at: row.maybe_time("started_at")?,
        finished_at: row.maybe_time("finished_at")?,
    })
}

/// JSON of a rollout's parts.
///
/// # Errors
/// When the value has no JSON form.
pub fn json_of<T: Serialize>(value: &T) -> Result<String> {
    to_json("rollouts", value)
}

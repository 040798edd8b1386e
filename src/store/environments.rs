//! Environments: which slots stay warm, holds, and the epoch by which every change of one is fenced.

use jiff::Timestamp;
use serde::Serialize;
use sqlx::{Sqlite, Transaction, sqlite::SqliteRow};

use super::{Result, Store, ms, rows::Of, shown::dirty_in};
use crate::domain::ids::{Epoch, RepoId, RolloutId};

/// A stored environment.
#[derive(Debug, Clone, Serialize)]
pub struct EnvironmentRow {
    /// Where the code is.
    pub repo: RepoId,
    /// Its name.
    pub name: String,
    /// Automatic releases are stopped.
    pub held: bool,
    /// Why.
    pub hold_reason: Option<String>,
    /// By whom.
    pub hold_by: Option<String>,
    /// Since when.
    pub hold_at: Option<Timestamp>,
    /// The rollout that is live, as far as the store knows (the live system rules).
    pub live_rollout: Option<RolloutId>,
    /// The last claim.
    pub epoch: Epoch,
    /// Slots that stay warm as the way back, as JSON.
    pub keep: String,
    /// When the next one of them is retired.
    pub retire_at: Option<Timestamp>,
}

impl EnvironmentRow {
    /// One to which nothing was released yet.
    #[must_use]
    pub fn never_released(repo: RepoId, name: String) -> Self {
        Self {
            repo,
            name,
            held: false,
            hold_reason: None,
            hold_by: None,
            hold_at: None,
            live_rollout: None,
            epoch: Epoch(0),
            keep: "[]".into(),
            retire_at: None,
        }
    }
}

/// Why a release waits in a held environment.
#[must_use]
pub fn held_words(environment: &str, by: Option<&str>, reason: Option<&str>) -> String {
    let (by, why) = (by.unwrap_or("somebody"), reason.unwrap_or("no reason given"));
    format!("{environment} is held by {by}: {why}. `switchover resume {environment}` lets it go on.")
}

impl Store {
    /// When the next slot that is kept warm is retired, over all environments.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn next_retire_at(&self) -> Result<Option<Timestamp>> {
        let at: Option<i64> =
            sqlx::query_scalar("SELECT MIN(retire_at) FROM environments").fetch_one(&self.read).await?;
        Ok(at.and_then(|n| Timestamp::from_millisecond(n).ok()))
    }

    /// Notes which slots of an environment stay warm, and when the next one of them is retired.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn keep(&self, repo: RepoId, name: &str, keep: &str, retire_at: Option<Timestamp>) -> Result<()> {
        let mut tx = self.begin().await?;
        keep_in(&mut tx, repo, name, keep, retire_at).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Claims an environment without a rollout (to retire a slot), or lifts its epoch to at least `least` (after the loss
    /// of the database, the live system knows a higher one).
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn claim_environment(&self, repo: RepoId, name: &str, least: Epoch) -> Result<Epoch> {
        let mut tx = self.begin().await?;
        sqlx::query("INSERT INTO environments (repo_id, name) VALUES ($1, $2) ON CONFLICT (repo_id, name) DO NOTHING")
            .bind(repo.0)
            .bind(name)
            .execute(&mut *tx)
            .await?;
        let epoch: i64 = sqlx::query_scalar(
            "UPDATE environments SET epoch = MAX(epoch, $3) + 1 WHERE repo_id = $1 AND name = $2 RETURNING epoch",
        )
        .bind(repo.0)
        .bind(name)
        .bind(least.0)
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Epoch(epoch))
    }

    /// One environment, as far as anything was ever released to it.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn environment(&self, repo: RepoId, name: &str) -> Result<Option<EnvironmentRow>> {
        let row = sqlx::query("SELECT * FROM environments WHERE repo_id = $1 AND name = $2")
            .bind(repo.0)
            .bind(name)
            .fetch_optional(&self.read)
            .await?;
        row.as_ref().map(read_environment).transpose()
    }

    /// All environments.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn environments(&self) -> Result<Vec<EnvironmentRow>> {
        let rows = sqlx::query("SELECT * FROM environments ORDER BY repo_id, name").fetch_all(&self.read).await?;
        rows.iter().map(read_environment).collect()
    }

    /// Stops automatic releases (with a reason and by whom), or lets them go on.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn hold(&self, repo: RepoId, name: &str, hold: Option<(&str, &str)>, now: Timestamp) -> Result<()> {
        let mut tx = self.begin().await?;
        hold_in(&mut tx, repo, name, hold, now).await?;
        tx.commit().await?;
        Ok(())
    }
}

pub(super) async fn keep_in(
    tx: &mut Transaction<'static, Sqlite>,
    repo: RepoId,
    name: &str,
    keep: &str,
    retire_at: Option<Timestamp>,
) -> Result<()> {
    sqlx::query("UPDATE environments SET keep = $3, retire_at = $4 WHERE repo_id = $1 AND name = $2")
        .bind(repo.0)
        .bind(name)
        .bind(keep)
        .bind(retire_at.map(ms))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub(super) async fn hold_in(
    tx: &mut Transaction<'static, Sqlite>,
    repo: RepoId,
    name: &str,
    hold: Option<(&str, &str)>,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO environments (repo_id, name, held, hold_reason, hold_by, hold_at) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (repo_id, name) DO UPDATE SET held = $3, hold_reason = $4, hold_by = $5, hold_at = $6",
    )
    .bind(repo.0)
    .bind(name)
    .bind(i64::from(hold.is_some()))
    .bind(hold.map(|h| h.0))
    .bind(hold.map(|h| h.1))
    .bind(hold.map(|_| ms(now)))
    .execute(&mut **tx)
    .await?;
    put_back_in(tx, repo, name, now).await?;
    Ok(())
}

/// Where the environment is held, releases that passed their gates before and have not begun wait at them again. True:
/// there were some.
pub(super) async fn put_back_in(
    tx: &mut Transaction<'static, Sqlite>,
    repo: RepoId,
    name: &str,
    now: Timestamp,
) -> Result<bool> {
    let held: Option<(Option<String>, Option<String>)> =
        sqlx::query_as("SELECT hold_by, hold_reason FROM environments WHERE repo_id = $1 AND name = $2 AND held = 1")
            .bind(repo.0)
            .bind(name)
            .fetch_optional(&mut **tx)
            .await?;
    let Some((by, reason)) = held else { return Ok(false) };
    let back: Vec<String> = sqlx::query_scalar(
        "UPDATE rollouts SET state = 'gated', message = $3 WHERE repo_id = $1 AND environment = $2 \
         AND state = 'queued' AND kind = 'release' RETURNING id",
    )
    .bind(repo.0)
    .bind(name)
    .bind(held_words(name, by.as_deref(), reason.as_deref()))
    .fetch_all(&mut **tx)
    .await?;
    for id in &back {
        dirty_in(&mut **tx, "rollout", repo, id, now).await?;
    }
    Ok(!back.is_empty())
}

fn read_environment(row: &SqliteRow) -> Result<EnvironmentRow> {
    let row = Of("environments", row);
    Ok(EnvironmentRow {
        repo: RepoId(row.number("repo_id")?),
        name: row.text("name")?,
        held: row.flag("held")?,
        hold_reason: row.maybe_text("hold_reason")?,
        hold_by: row.maybe_text("hold_by")?,
        hold_at: row.maybe_time("hold_at")?,
        live_rollout: row.maybe_parsed("live_rollout")?,
        epoch: Epoch(row.number("epoch")?),
        keep: row.text("keep")?,
        retire_at: row.maybe_time("retire_at")?,
    })
}

//! What GitHub should show and what it was seen to show: one row per check run or deployment.
//!
//! A row's `base_key` names the thing (a step, a commit's AND-check, a rollout). When a completed check must run again, a
//! new row with a numbered key follows, because a re-run is always a new check run on GitHub.

use jiff::Timestamp;
use sqlx::SqliteExecutor;

use super::{Result, Store, StoreError, ms, rows::Of};
use crate::domain::ids::{Digest, InstallationId, RepoId, Sha};

/// Something that must be rendered again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirty {
    /// `commit` or `rollout`.
    pub kind: String,
    /// Where.
    pub repo: RepoId,
    /// The commit, or the rollout's id.
    pub subject: String,
    /// Which version of it: only this one is taken off.
    pub version: i64,
}

/// One thing that stands on GitHub.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Our key for it; the check run's `external_id`.
    pub key: String,
    /// `check` or `deployment`.
    pub kind: String,
    /// Where.
    pub repo: RepoId,
    /// What should stand there, as JSON.
    pub desired: String,
    /// Its hash.
    pub desired_hash: String,
    /// GitHub's number, once known.
    pub github_id: Option<i64>,
    /// An attempt was made whose effect is not known.
    pub ambiguous: bool,
    /// Tries since the last success.
    pub attempts: i64,
    /// The last problem. Beside `up_to_date`: given up because of it.
    pub error: Option<String>,
    /// What it stands on.
    pub sha: String,
    /// True when GitHub shows it as desired.
    pub up_to_date: bool,
}

/// What should stand on GitHub.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// Our key for it; the check run's `external_id`.
    pub key: String,
    /// The key without the number of a new check run of the same name.
    pub base: String,
    /// `check` or `deployment`.
    pub kind: &'static str,
    /// What it stands on.
    pub sha: Sha,
    /// As JSON.
    pub json: String,
}

/// The condition of what is to be shown. Ids of rollouts grow with time.
macro_rules! unshown {
    () => {
        "repos.state = 'active' AND (shown_hash IS NULL OR shown_hash <> desired_hash) AND NOT (kind = 'deployment' AND \
         EXISTS (SELECT 1 FROM shown AS earlier WHERE earlier.repo_id = shown.repo_id AND earlier.kind = 'deployment' AND \
         earlier.key < shown.key AND earlier.shown_hash IS NULL))"
    };
}

impl Store {
    /// Marks something to be rendered again.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn mark_dirty(&self, kind: &str, repo: RepoId, subject: &str, now: Timestamp) -> Result<()> {
        dirty_in(&self.write, kind, repo, subject, now).await
    }

    /// What must be rendered again.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn dirty(&self, limit: i64) -> Result<Vec<Dirty>> {
        let rows = sqlx::query("SELECT * FROM dirty ORDER BY since LIMIT $1").bind(limit).fetch_all(&self.read).await?;
        rows.iter()
            .map(|r| {
                let r = Of("dirty", r);
                Ok(Dirty {
                    kind: r.text("kind")?,
                    repo: RepoId(r.number("repo_id")?),
                    subject: r.text("subject")?,
                    version: r.number("version")?,
                })
            })
            .collect()
    }

    /// Notes what should stand on GitHub for one dirty thing, and takes its mark off unless it changed meanwhile.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn render(&self, of: &Dirty, desired: &[Rendered], now: Timestamp) -> Result<()> {
        let mut tx = self.begin().await?;
        for item in desired {
            let hash = Digest::of(item.json.as_bytes());
            sqlx::query(
                "INSERT INTO shown (key, kind, repo_id, base_key, sha, desired, desired_hash, next_at, updated_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8) ON CONFLICT (key) DO UPDATE SET desired = $6, desired_hash = $7, \
                 updated_at = $8, next_at = CASE WHEN shown.attempts = 0 THEN $8 ELSE shown.next_at END WHERE shown.desired_hash <> $7",
            )
            .bind(&item.key)
            .bind(item.kind)
            .bind(of.repo.0)
            .bind(&item.base)
            .bind(item.sha.as_str())
            .bind(&item.json)
            .bind(hash.as_str())
            .bind(ms(now))
            .execute(&mut *tx)
            .await?;
        }
        sqlx::query("DELETE FROM dirty WHERE kind = $1 AND repo_id = $2 AND subject = $3 AND version = $4")
            .bind(&of.kind)
            .bind(of.repo.0)
            .bind(&of.subject)
            .bind(of.version)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// The newest one under a base key.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn latest_shown(&self, base: &str) -> Result<Option<Shown>> {
        let row = sqlx::query("SELECT * FROM shown WHERE base_key = $1 ORDER BY rowid DESC LIMIT 1")
            .bind(base)
            .fetch_optional(&self.read)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Takes a mark off that leads nowhere (its repository or commit is gone).
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn forget_dirty(&self, of: &Dirty) -> Result<()> {
        sqlx::query("DELETE FROM dirty WHERE kind = $1 AND repo_id = $2 AND subject = $3")
            .bind(&of.kind)
            .bind(of.repo.0)
            .bind(&of.subject)
            .execute(&self.write)
            .await?;
        Ok(())
    }

    /// What is not shown as it should be and is due, oldest first. What stands in a repository that is suspended or
    /// removed waits until it is active again; and a deployment until those of the releases before are there: the newest
    /// one is what GitHub takes for live, and it makes those before inactive ("Deployments": `auto_inactive`).
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn unshown(&self, now: Timestamp, limit: i64) -> Result<Vec<Shown>> {
        let rows = sqlx::query(concat!(
            "SELECT shown.* FROM shown JOIN repos ON repos.id = shown.repo_id WHERE ",
            unshown!(),
            " AND next_at <= $1 ORDER BY shown.updated_at LIMIT $2",
        ))
        .bind(ms(now))
        .bind(limit)
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(read).collect()
    }

    /// When the next one that was put off is due.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn next_shown_at(&self) -> Result<Option<Timestamp>> {
        let at: Option<i64> = sqlx::query_scalar(concat!(
            "SELECT MIN(next_at) FROM shown JOIN repos ON repos.id = shown.repo_id WHERE ",
            unshown!(),
        ))
        .fetch_one(&self.read)
        .await?;
        Ok(at.and_then(|n| Timestamp::from_millisecond(n).ok()))
    }

    /// What an installation's repositories do not show yet is due now: GitHub says that something about our access
    /// changed, so what it refused before need not wait for its time.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn show_again(&self, installation: InstallationId, now: Timestamp) -> Result<()> {
        sqlx::query(
            "UPDATE shown SET next_at = $2, attempts = 0 WHERE (shown_hash IS NULL OR shown_hash <> desired_hash) AND \
             repo_id IN (SELECT id FROM repos WHERE installation_id = $1)",
        )
        .bind(installation.0)
        .bind(ms(now))
        .execute(&self.write)
        .await?;
        Ok(())
    }

    /// Notes before a write that its effect is not known from now on. After a crash the reporter looks first.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn about_to_show(&self, key: &str) -> Result<()> {
        sqlx::query("UPDATE shown SET ambiguous = 1 WHERE key = $1").bind(key).execute(&self.write).await?;
        Ok(())
    }

    /// GitHub shows this version.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn was_shown(&self, key: &str, hash: &str, github_id: i64) -> Result<()> {
        sqlx::query(
            "UPDATE shown SET shown_hash = $2, github_id = $3, ambiguous = 0, attempts = 0, error = NULL WHERE key = $1",
        )
        .bind(key)
        .bind(hash)
        .bind(github_id)
        .execute(&self.write)
        .await?;
        Ok(())
    }

    /// GitHub did not take it: try again at `at`. `ambiguous`: it may have.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn not_shown(&self, key: &str, at: Timestamp, ambiguous: bool, error: &str) -> Result<()> {
        sqlx::query(
            "UPDATE shown SET next_at = $2, ambiguous = $3, attempts = attempts + 1, error = $4 WHERE key = $1",
        )
        .bind(key)
        .bind(ms(at))
        .bind(i64::from(ambiguous))
        .bind(error)
        .execute(&self.write)
        .await?;
        Ok(())
    }

    /// Gives one up: GitHub understood it and refuses it, so the same will never be taken. What changes is written again.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn give_up_showing(&self, key: &str, error: &str) -> Result<()> {
        sqlx::query("UPDATE shown SET shown_hash = desired_hash, ambiguous = 0, error = $2 WHERE key = $1")
            .bind(key)
            .bind(error)
            .execute(&self.write)
            .await?;
        Ok(())
    }

    /// What stands, or should stand, on a commit.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn shown_on(&self, repo: RepoId, sha: &Sha) -> Result<Vec<Shown>> {
        let rows = sqlx::query("SELECT * FROM shown WHERE repo_id = $1 AND sha = $2 ORDER BY rowid")
            .bind(repo.0)
            .bind(sha.as_str())
            .fetch_all(&self.read)
            .await?;
        rows.iter().map(read).collect()
    }

    /// One by its key.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn shown(&self, key: &str) -> Result<Option<Shown>> {
        let row = sqlx::query("SELECT * FROM shown WHERE key = $1").bind(key).fetch_optional(&self.read).await?;
        row.as_ref().map(read).transpose()
    }

    /// For each repository that is still ours: how many things GitHub did not take when it was asked, and what it said.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn refused_by_repo(&self) -> Result<Vec<(RepoId, i64, String)>> {
        let rows: Vec<(i64, i64, String)> = sqlx::query_as(
            "SELECT repo_id, COUNT(*), MAX(error) FROM shown JOIN repos ON repos.id = shown.repo_id WHERE \
             repos.state <> 'removed' AND error IS NOT NULL AND (shown_hash IS NULL OR shown_hash <> desired_hash) \
             GROUP BY repo_id",
        )
        .fetch_all(&self.read)
        .await?;
        Ok(rows.into_iter().map(|(repo, count, error)| (RepoId(repo), count, error)).collect())
    }

    /// How many things GitHub does not show as it should, yet. Nothing can be shown in a repository that was removed.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn unshown_count(&self) -> Result<i64> {
        let open: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM shown JOIN repos ON repos.id = shown.repo_id WHERE repos.state <> 'removed' AND \
             (shown_hash IS NULL OR shown_hash <> desired_hash)",
        )
        .fetch_one(&self.read)
        .await?;
        let dirty: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM dirty").fetch_one(&self.read).await?;
        Ok(open + dirty)
    }
}

fn read(row: &sqlx::sqlite::SqliteRow) -> Result<Shown> {
    let row = Of("shown", row);
    let desired_hash = row.text("desired_hash")?;
    let shown_hash = row.maybe_text("shown_hash")?;
    let kind = row.text("kind")?;
    if kind != "check" && kind != "deployment" {
        return Err(StoreError::corrupt("shown", format!("kind {kind:?}")));
    }
    Ok(Shown {
        key: row.text("key")?,
        kind,
        repo: RepoId(row.number("repo_id")?),
        desired: row.text("desired")?,
        up_to_date: shown_hash.as_deref() == Some(&desired_hash),
        desired_hash,
        github_id: row.maybe_number("github_id")?,
        ambiguous: row.flag("ambiguous")?,
        attempts: row.number("attempts")?,
        error: row.maybe_text("error")?,
        sha: row.text("sha")?,
    })
}

/// Marks something to be rendered again, also in the middle of a transaction.
pub(super) async fn dirty_in<'c>(
    to: impl SqliteExecutor<'c>,
    kind: &str,
    repo: RepoId,
    subject: &str,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO dirty (kind, repo_id, subject, since) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (kind, repo_id, subject) DO UPDATE SET since = $4, version = dirty.version + 1",
    )
    .bind(kind)
    .bind(repo.0)
    .bind(subject)
    .bind(ms(now))
    .execute(to)
    .await?;
    Ok(())
}

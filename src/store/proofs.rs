//! What was proven and what was built: never twice for one tree.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::{Sqlite, Transaction};

use super::{
    Job, Result, Store, ms,
    rows::{Of, to_json},
    runs::guard,
};
use crate::domain::{
    ids::{Digest, RepoId},
    planned::Reused,
};

/// What a job made to be released.
#[derive(Debug, Clone, Copy)]
pub struct Made<'a> {
    /// Tree, commands and tools: one build for each.
    pub build_key: &'a str,
    /// What it is known by.
    pub digest: &'a Digest,
    /// A folder, or an image's name without a tag.
    pub path: &'a str,
    /// The images that it stands on, and which they were.
    pub bases: &'a BTreeMap<String, Digest>,
}

/// A release that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What it is known by.
    pub digest: Digest,
    /// A folder, or an image's name without a tag.
    pub path: String,
    /// The images that it stands on, and which they were.
    pub bases: BTreeMap<String, Digest>,
}

/// Keeps what was made.
pub(super) async fn put_release(
    tx: &mut Transaction<'static, Sqlite>,
    job: &Job,
    made: &Made<'_>,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO releases (repo_id, build_key, app, sha, digest, path, bases, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
         ON CONFLICT (repo_id, build_key) DO UPDATE SET digest = $5, path = $6, bases = $7",
    )
    .bind(job.repo.0)
    .bind(made.build_key)
    .bind(&job.app)
    .bind(job.spec.commit.as_str())
    .bind(made.digest.as_str())
    .bind(made.path)
    .bind(to_json("releases", made.bases)?)
    .bind(ms(now))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

impl Store {
    /// What was proven for a tree.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn tested(&self, repo: RepoId, tree_key: &str) -> Result<Option<Reused>> {
        let row = sqlx::query(
            "SELECT t.run_id, s.report FROM tested t JOIN steps s ON s.id = t.step_id WHERE t.repo_id = $1 AND t.tree_key = $2",
        )
        .bind(repo.0)
        .bind(tree_key)
        .fetch_optional(&self.read)
        .await?;
        row.as_ref()
            .map(|r| {
                let r = Of("tested", r);
                Ok(Reused { run: r.parsed("run_id")?, report: r.maybe_json("report")? })
            })
            .transpose()
    }

    /// The release that was built from a tree.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn release(&self, repo: RepoId, build_key: &str) -> Result<Option<Standing>> {
        let row = sqlx::query("SELECT * FROM releases WHERE repo_id = $1 AND build_key = $2")
            .bind(repo.0)
            .bind(build_key)
            .fetch_optional(&self.read)
            .await?;
        row.as_ref()
            .map(|r| {
                let r = Of("releases", r);
                let bases = r.maybe_json("bases")?.unwrap_or_default();
                Ok(Standing { digest: r.parsed("digest")?, path: r.text("path")?, bases })
            })
            .transpose()
    }

    /// Gives a job back that waits for somebody else: its step goes on, and the look was no try.
    ///
    /// # Errors
    /// [`super::StoreError::Fenced`] when somebody else holds it.
    pub async fn put_off_job(&self, job: &Job, at: Timestamp) -> Result<()> {
        let mut tx = self.begin().await?;
        guard(&mut tx, job).await?;
        sqlx::query(
            "UPDATE jobs SET state = 'queued', owner = NULL, lease_until = NULL, epoch = epoch + 1, attempts = attempts - 1, \
             next_at = $2 WHERE id = $1",
        )
        .bind(job.id.to_string())
        .bind(ms(at))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Forgets what a build made (its files are gone), so that the next run builds it again.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn forget_release(&self, repo: RepoId, build_key: &str) -> Result<()> {
        sqlx::query("DELETE FROM releases WHERE repo_id = $1 AND build_key = $2")
            .bind(repo.0)
            .bind(build_key)
            .execute(&self.write)
            .await?;
        Ok(())
    }
}

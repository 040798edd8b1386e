//! What was proven and what was built: never twice for one tree.

use super::{Result, Store, rows::Of};
use crate::domain::{
    ids::{Digest, RepoId},
    planned::Reused,
};

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

    /// The release that was built from a tree: digest and path.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn release(&self, repo: RepoId, build_key: &str) -> Result<Option<(Digest, String)>> {
        let row = sqlx::query("SELECT * FROM releases WHERE repo_id = $1 AND build_key = $2")
            .bind(repo.0)
            .bind(build_key)
            .fetch_optional(&self.read)
            .await?;
        row.as_ref()
            .map(|r| {
                let r = Of("releases", r);
                Ok((r.parsed("digest")?, r.text("path")?))
            })
            .transpose()
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

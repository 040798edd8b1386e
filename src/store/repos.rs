//! Repositories, their branch heads and pull requests as they were last acted upon.

use jiff::Timestamp;
use sqlx::{Sqlite, Transaction};

use super::{Result, Store, StoreError, ms, rows::Of, rows::to_json};
use crate::domain::{
    event::{Pull, RepoInfo},
    ids::{InstallationId, RepoId, RepoRef, Sha},
};

/// Whether we may act on a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoState {
    /// Yes.
    Active,
    /// The installation is suspended.
    Suspended,
    /// Uninstalled, removed from the installation, or deleted.
    Removed,
}

impl RepoState {
    /// As stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Removed => "removed",
        }
    }
}

/// A repository that the App was installed on.
#[derive(Debug, Clone)]
pub struct Repo {
    /// As it was described last.
    pub info: RepoInfo,
    /// Whether we may act on it.
    pub state: RepoState,
}

impl Store {
    /// Notes a repository as GitHub describes it now; makes it active. An installation of 0 (GitHub named none) keeps the one
    /// that is known. Returns true when it was not known, or not active.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn put_repo(&self, info: &RepoInfo, now: Timestamp) -> Result<bool> {
        let before = self.repo(info.repo.id).await?;
        // Nearly every event tells what is known: that costs no commit.
        let known = before.as_ref().is_some_and(|b| {
            let mut told = info.clone();
            if told.repo.installation.0 == 0 {
                told.repo.installation = b.info.repo.installation;
            }
            b.state == RepoState::Active && b.info == told
        });
        if known {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO repos (id, owner, name, installation_id, default_branch, archived, private, state, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, 'active', $8) ON CONFLICT (id) DO UPDATE SET owner = $2, name = $3, \
             installation_id = CASE WHEN $4 = 0 THEN repos.installation_id ELSE $4 END, default_branch = $5, \
             archived = $6, private = $7, state = 'active', updated_at = $8",
        )
        .bind(info.repo.id.0)
        .bind(&info.repo.owner)
        .bind(&info.repo.name)
        .bind(info.repo.installation.0)
        .bind(&info.default_branch)
        .bind(i64::from(info.archived))
        .bind(i64::from(info.private))
        .bind(ms(now))
        .execute(&self.write)
        .await?;
        Ok(before.is_none_or(|r| r.state != RepoState::Active))
    }

    /// One repository.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn repo(&self, id: RepoId) -> Result<Option<Repo>> {
        let row = sqlx::query("SELECT * FROM repos WHERE id = $1").bind(id.0).fetch_optional(&self.read).await?;
        row.as_ref().map(read).transpose()
    }

    /// All repositories, active or not.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn repos(&self) -> Result<Vec<Repo>> {
        let rows = sqlx::query("SELECT * FROM repos ORDER BY owner, name").fetch_all(&self.read).await?;
        rows.iter().map(read).collect()
    }

    /// Changes what we may do with one repository. Of a removed one branches and pull requests are forgotten: when it comes
    /// back it is like a new one.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn set_repo_state(&self, id: RepoId, state: RepoState) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE repos SET state = $2 WHERE id = $1")
            .bind(id.0)
            .bind(state.as_str())
            .execute(&mut *tx)
            .await?;
        if state == RepoState::Removed {
            for forget in ["DELETE FROM heads WHERE repo_id = $1", "DELETE FROM pulls WHERE repo_id = $1"] {
                sqlx::query(forget).bind(id.0).execute(&mut *tx).await?;
            }
        }
        tx.commit().await?;
        Ok(())
    }

    /// Notes branches and pull requests as they are found, without anything being done about them. What an event told
    /// meanwhile stays.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn note_as_found(
        &self,
        repo: RepoId,
        branches: &[(String, Sha)],
        pulls: &[Pull],
        now: Timestamp,
    ) -> Result<()> {
        let mut tx = self.begin().await?;
        for (branch, sha) in branches {
            let sql = "INSERT INTO heads (repo_id, branch, sha, seen_at) VALUES ($1, $2, $3, $4) \
                       ON CONFLICT (repo_id, branch) DO NOTHING";
            sqlx::query(sql).bind(repo.0).bind(branch).bind(sha.as_str()).bind(ms(now)).execute(&mut *tx).await?;
        }
        for pull in pulls {
            sqlx::query(
                "INSERT INTO pulls (repo_id, number, open, head, pull, updated_at) VALUES ($1, $2, $3, $4, $5, $6) \
                 ON CONFLICT (repo_id, number) DO NOTHING",
            )
            .bind(repo.0)
            .bind(pull.number)
            .bind(i64::from(pull.open))
            .bind(pull.head.as_str())
            .bind(to_json("pulls", pull)?)
            .bind(ms(now))
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Repositories of an installation that are not removed.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn repos_of(&self, installation: InstallationId) -> Result<Vec<RepoId>> {
        let ids: Vec<i64> =
            sqlx::query_scalar("SELECT id FROM repos WHERE installation_id = $1 AND state <> 'removed'")
                .bind(installation.0)
                .fetch_all(&self.read)
                .await?;
        Ok(ids.into_iter().map(RepoId).collect())
    }

    /// Notes which commit of a branch was acted upon; none: the branch is gone.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn put_head(&self, repo: RepoId, branch: &str, sha: Option<&Sha>, now: Timestamp) -> Result<()> {
        let mut tx = self.begin().await?;
        put_head_in(&mut tx, repo, branch, sha, now).await?;
        tx.commit().await?;
        Ok(())
    }

    /// The branch heads that were acted upon last.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn heads(&self, repo: RepoId) -> Result<Vec<(String, Sha)>> {
        let rows: Vec<(String, String)> = sqlx::query_as("SELECT branch, sha FROM heads WHERE repo_id = $1")
            .bind(repo.0)
            .fetch_all(&self.read)
            .await?;
        rows.into_iter().map(|(b, s)| Ok((b, Sha::new(s).map_err(|e| StoreError::corrupt("heads", e))?))).collect()
    }

    /// The same, and since when each is known: a branch that comes back to a commit has another time.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn heads_since(&self, repo: RepoId) -> Result<Vec<(String, Sha, Timestamp)>> {
        let rows = sqlx::query("SELECT * FROM heads WHERE repo_id = $1").bind(repo.0).fetch_all(&self.read).await?;
        let head = |row| {
            let row = Of("heads", row);
            Ok((row.text("branch")?, row.parsed("sha")?, row.time("seen_at")?))
        };
        rows.iter().map(head).collect()
    }

    /// When a pull request, open or not, was acted upon last.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn pull_since(&self, repo: RepoId, number: i64) -> Result<Option<Timestamp>> {
        let row = sqlx::query("SELECT updated_at FROM pulls WHERE repo_id = $1 AND number = $2")
            .bind(repo.0)
            .bind(number)
            .fetch_optional(&self.read)
            .await?;
        row.as_ref().map(|r| Of("pulls", r).time("updated_at")).transpose()
    }

    /// Notes a pull request as it is now.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn put_pull(&self, repo: RepoId, pull: &Pull, now: Timestamp) -> Result<()> {
        let mut tx = self.begin().await?;
        put_pull_in(&mut tx, repo, pull, now).await?;
        tx.commit().await?;
        Ok(())
    }

    /// One pull request as it was last seen.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn stored_pull(&self, repo: RepoId, number: i64) -> Result<Option<Pull>> {
        let row = sqlx::query("SELECT * FROM pulls WHERE repo_id = $1 AND number = $2")
            .bind(repo.0)
            .bind(number)
            .fetch_optional(&self.read)
            .await?;
        row.as_ref().map(|r| Of("pulls", r).json("pull")).transpose()
    }

    /// Pull requests that were open when last seen.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn stored_pulls(&self, repo: RepoId) -> Result<Vec<Pull>> {
        let rows = sqlx::query("SELECT * FROM pulls WHERE repo_id = $1 AND open = 1")
            .bind(repo.0)
            .fetch_all(&self.read)
            .await?;
        rows.iter().map(|r| Of("pulls", r).json("pull")).collect()
    }
}

pub(super) async fn put_head_in(
    tx: &mut Transaction<'static, Sqlite>,
    repo: RepoId,
    branch: &str,
    sha: Option<&Sha>,
    now: Timestamp,
) -> Result<()> {
    match sha {
        Some(sha) => sqlx::query(
            "INSERT INTO heads (repo_id, branch, sha, seen_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (repo_id, branch) DO UPDATE SET sha = $3, seen_at = $4",
        )
        .bind(repo.0)
        .bind(branch)
        .bind(sha.as_str())
        .bind(ms(now)),
        None => sqlx::query("DELETE FROM heads WHERE repo_id = $1 AND branch = $2").bind(repo.0).bind(branch),
    }
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(super) async fn put_pull_in(
    tx: &mut Transaction<'static, Sqlite>,
    repo: RepoId,
    pull: &Pull,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO pulls (repo_id, number, open, head, pull, updated_at) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (repo_id, number) DO UPDATE SET open = $3, head = $4, pull = $5, updated_at = $6",
    )
    .bind(repo.0)
    .bind(pull.number)
    .bind(i64::from(pull.open))
    .bind(pull.head.as_str())
    .bind(to_json("pulls", pull)?)
    .bind(ms(now))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn read(row: &sqlx::sqlite::SqliteRow) -> Result<Repo> {
    let row = Of("repos", row);
    let state = row.text("state")?;
    Ok(Repo {
        info: RepoInfo {
            repo: RepoRef {
                id: RepoId(row.number("id")?),
                owner: row.text("owner")?,
                name: row.text("name")?,
                installation: InstallationId(row.number("installation_id")?),
            },
            default_branch: row.text("default_branch")?,
            archived: row.flag("archived")?,
            private: row.flag("private")?,
        },
        state: [RepoState::Active, RepoState::Suspended, RepoState::Removed]
            .into_iter()
            .find(|s| s.as_str() == state)
            .ok_or_else(|| StoreError::corrupt("repos", format!("state {state:?}")))?,
    })
}

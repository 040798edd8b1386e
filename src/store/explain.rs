//! Why something did or did not run: one line per decision, found by commit or delivery.

use jiff::Timestamp;

use super::{Result, Store, ms, rows::Of};
use crate::domain::ids::{DeliveryId, RepoId, Sha};

/// A decision and why it was taken.
#[derive(Debug, Clone)]
pub struct Reason {
    /// When.
    pub at: Timestamp,
    /// On which commit.
    pub sha: Option<String>,
    /// Because of which delivery.
    pub delivery: Option<String>,
    /// In words.
    pub text: String,
}

impl Store {
    /// Notes a decision.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn reason(
        &self,
        repo: Option<RepoId>,
        sha: Option<&Sha>,
        delivery: Option<&DeliveryId>,
        text: &str,
        now: Timestamp,
    ) -> Result<()> {
        sqlx::query("INSERT INTO reasons (at, repo_id, sha, delivery, text) VALUES ($1, $2, $3, $4, $5)")
            .bind(ms(now))
            .bind(repo.map(|r| r.0))
            .bind(sha.map(Sha::as_str))
            .bind(delivery.map(DeliveryId::as_str))
            .bind(text)
            .execute(&self.write)
            .await?;
        Ok(())
    }

    /// Decisions about a delivery id or a commit (at least seven digits of it), oldest first.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn reasons(&self, subject: &str) -> Result<Vec<Reason>> {
        let hex = subject.len() >= 7 && subject.bytes().all(|b| b.is_ascii_hexdigit());
        let rows = sqlx::query(
            "SELECT * FROM reasons WHERE delivery = $1 OR ($2 = 1 AND substr(sha, 1, length($1)) = $1) ORDER BY id LIMIT 500",
        )
        .bind(subject.to_ascii_lowercase())
        .bind(i64::from(hex))
        .fetch_all(&self.read)
        .await?;
        rows.iter()
            .map(|r| {
                let r = Of("reasons", r);
                Ok(Reason {
                    at: r.time("at")?,
                    sha: r.maybe_text("sha")?,
                    delivery: r.maybe_text("delivery")?,
                    text: r.text("text")?,
                })
            })
            .collect()
    }
}

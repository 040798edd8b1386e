//! What is old, and what is still needed of it.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Result, Store, ms};
use crate::domain::ids::{Digest, RolloutId, RunId};

impl Store {
    /// Digests of what was built since `since`, by builds that are still known.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn digests_since(&self, since: Timestamp) -> Result<Vec<Digest>> {
        let rows: Vec<String> = sqlx::query_scalar("SELECT digest FROM releases WHERE created_at >= $1")
            .bind(ms(since))
            .fetch_all(&self.read)
            .await?;
        Ok(rows.into_iter().filter_map(|d| Digest::new(d).ok()).collect())
    }

    /// What the newest `last` rollouts of each environment, and all that are not over, were to bring, as JSON.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn desired_of_last(&self, last: i64) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar(
            "SELECT desired FROM (SELECT desired, state, ROW_NUMBER() OVER (PARTITION BY repo_id, environment ORDER BY id DESC) AS n \
             FROM rollouts) AS numbered WHERE n <= $1 OR state <> 'done'",
        )
        .bind(last)
        .fetch_all(&self.read)
        .await?)
    }

    /// Runs of these that are not over, or ended since `since`: their logs are kept.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn runs_to_keep(&self, since: Timestamp) -> Result<BTreeSet<RunId>> {
        let rows: Vec<String> =
            sqlx::query_scalar("SELECT id FROM runs WHERE finished_at IS NULL OR finished_at >= $1")
                .bind(ms(since))
                .fetch_all(&self.read)
                .await?;
        Ok(rows.iter().filter_map(|id| id.parse().ok()).collect())
    }

    /// The same of rollouts.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn rollouts_to_keep(&self, since: Timestamp) -> Result<BTreeSet<RolloutId>> {
        let rows: Vec<String> =
            sqlx::query_scalar("SELECT id FROM rollouts WHERE finished_at IS NULL OR finished_at >= $1")
                .bind(ms(since))
                .fetch_all(&self.read)
                .await?;
        Ok(rows.iter().filter_map(|id| id.parse().ok()).collect())
    }

    /// Forgets reasons and sent messages from before `before`.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn forget_words(&self, before: Timestamp) -> Result<u64> {
        let reasons = sqlx::query("DELETE FROM reasons WHERE at < $1").bind(ms(before)).execute(&self.write).await?;
        let messages = sqlx::query("DELETE FROM messages WHERE sent_at IS NOT NULL AND sent_at < $1")
            .bind(ms(before))
            .execute(&self.write)
            .await?;
        Ok(reasons.rows_affected() + messages.rows_affected())
    }
}

//! Messages to Slack: queued with the change they tell of, sent at least once, never in anybody's way.

use jiff::Timestamp;

use super::{Result, Store, ms, rows::Of};
use crate::domain::ids::RepoId;

/// A message that waits to be sent.
#[derive(Debug, Clone)]
pub struct Message {
    /// Tells duplicates.
    pub key: String,
    /// The channel as the repository names it; empty: the operator's default.
    pub channel: String,
    /// JSON as Slack takes it.
    pub body: String,
    /// Tries so far.
    pub attempts: i64,
    /// When it was queued.
    pub created_at: Timestamp,
}

impl Store {
    /// Queues a message once.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn queue_message(
        &self,
        repo: RepoId,
        key: &str,
        channel: &str,
        body: &str,
        now: Timestamp,
    ) -> Result<bool> {
        let done = sqlx::query(
            "INSERT INTO messages (key, repo_id, channel, body, created_at, next_at) VALUES ($1, $2, $3, $4, $5, $5) \
             ON CONFLICT (key) DO NOTHING",
        )
        .bind(key)
        .bind(repo.0)
        .bind(channel)
        .bind(body)
        .bind(ms(now))
        .execute(&self.write)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Messages that are due, oldest first.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn due_messages(&self, now: Timestamp, limit: i64) -> Result<Vec<Message>> {
        let rows =
            sqlx::query("SELECT * FROM messages WHERE sent_at IS NULL AND next_at <= $1 ORDER BY rowid LIMIT $2")
                .bind(ms(now))
                .bind(limit)
                .fetch_all(&self.read)
                .await?;
        rows.iter()
            .map(|r| {
                let r = Of("messages", r);
                Ok(Message {
                    key: r.text("key")?,
                    channel: r.text("channel")?,
                    body: r.text("body")?,
                    attempts: r.number("attempts")?,
                    created_at: r.time("created_at")?,
                })
            })
            .collect()
    }

    /// When the next message is due.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn next_message_at(&self) -> Result<Option<Timestamp>> {
        let at: Option<i64> =
            sqlx::query_scalar("SELECT MIN(next_at) FROM messages WHERE sent_at IS NULL").fetch_one(&self.read).await?;
        Ok(at.and_then(|n| Timestamp::from_millisecond(n).ok()))
    }

    /// A message was sent, or is given up (`error` says why).
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn message_sent(&self, key: &str, error: Option<&str>, now: Timestamp) -> Result<()> {
        sqlx::query("UPDATE messages SET sent_at = $2, error = $3 WHERE key = $1")
            .bind(key)
            .bind(ms(now))
            .bind(error)
            .execute(&self.write)
            .await?;
        Ok(())
    }

    /// A message could not be sent now.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn retry_message(&self, key: &str, at: Timestamp, error: &str) -> Result<()> {
        sqlx::query("UPDATE messages SET next_at = $2, attempts = attempts + 1, error = $3 WHERE key = $1")
            .bind(key)
            .bind(ms(at))
            .bind(error)
            .execute(&self.write)
            .await?;
        Ok(())
    }
}

//! Deliveries: on disk before they are answered; processed in order per repository; never lost.

use std::collections::BTreeSet;

use jiff::Timestamp;
use sqlx::{Sqlite, Transaction};
use tokio::sync::oneshot;

use super::{
    Result, Store, StoreError,
    intake::{Noted, Waiting},
    ms,
    rows::Of,
};
use crate::domain::ids::{DeliveryId, RepoId, Sha};

/// A webhook as it came in, its signature checked.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    /// `X-GitHub-Delivery`.
    pub guid: DeliveryId,
    /// `X-GitHub-Event` (not signed: a wrong one ends in quarantine).
    pub event: String,
    /// The payload's `action`, as far as it could be read.
    pub action: Option<String>,
    /// The payload's repository.
    pub repo_id: Option<i64>,
    /// The payload's installation.
    pub installation_id: Option<i64>,
    /// When its last byte came; of one that was missed, when GitHub tried to deliver it.
    pub received_at: Timestamp,
    /// The raw bytes that were signed.
    pub body: Vec<u8>,
}

/// What became of a delivery that was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Stored now.
    New,
    /// Known already, and processed or about to be: nothing is done twice.
    Known,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// To be processed.
    Pending,
    /// Processed.
    Done,
    /// Can't be read; kept and shown.
    Quarantined,
    /// Given up after retries; `replay` revives it.
    Dead,
}

impl DeliveryState {
    /// As stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Done => "done",
            Self::Quarantined => "quarantined",
            Self::Dead => "dead",
        }
    }

    fn parse(text: &str) -> Result<Self> {
        [Self::Pending, Self::Done, Self::Quarantined, Self::Dead]
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| StoreError::corrupt("deliveries", format!("state {text:?}")))
    }
}

/// A stored delivery.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// `X-GitHub-Delivery`.
    pub guid: DeliveryId,
    /// `X-GitHub-Event`.
    pub event: String,
    /// The payload's `action`.
    pub action: Option<String>,
    /// The payload's repository.
    pub repo_id: Option<RepoId>,
    /// When it came.
    pub received_at: Timestamp,
    /// The raw payload; empty once retention took it.
    pub body: Vec<u8>,
    /// Where it stands.
    pub state: DeliveryState,
    /// Tries so far.
    pub attempts: i64,
    /// When it was processed.
    pub processed_at: Option<Timestamp>,
    /// What came of it, in words.
    pub note: Option<String>,
}

/// Ends a delivery as done and notes why.
pub(super) async fn note_in(
    tx: &mut Transaction<'_, Sqlite>,
    guid: &DeliveryId,
    repo: RepoId,
    sha: Option<&Sha>,
    note: &str,
    at: Timestamp,
) -> Result<()> {
    sqlx::query(
        "UPDATE deliveries SET state = 'done', note = $2, processed_at = $3, attempts = attempts + 1 WHERE guid = $1",
    )
    .bind(guid.as_str())
    .bind(note)
    .bind(ms(at))
    .execute(&mut **tx)
    .await?;
    sqlx::query("INSERT INTO reasons (at, repo_id, sha, delivery, text) VALUES ($1, $2, $3, $4, $5)")
        .bind(ms(at))
        .bind(repo.0)
        .bind(sha.map(Sha::as_str))
        .bind(guid.as_str())
        .bind(note)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

impl Store {
    /// Stores a delivery; returns when it is on disk. Many callers share one commit.
    ///
    /// # Errors
    /// [`StoreError::Disk`] when it could not be stored: the caller must not answer 2xx.
    pub async fn receive(&self, delivery: NewDelivery) -> Result<Received> {
        let (tx, rx) = oneshot::channel();
        let gone = || StoreError::Disk("the store is closed".into());
        self.intake.0.send(Waiting::New(delivery, tx)).await.map_err(|_| gone())?;
        rx.await.map_err(|_| gone())?
    }

    /// Ends deliveries that led to nothing but a note (repository, note), all in one commit, which is shared with what
    /// comes in meanwhile.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn note_deliveries(&self, notes: Vec<(DeliveryId, RepoId, String)>, at: Timestamp) -> Result<()> {
        let gone = || StoreError::Disk("the store is closed".into());
        let mut answers = Vec::with_capacity(notes.len());
        for (guid, repo, note) in notes {
            let (tx, rx) = oneshot::channel();
            let noted = Noted { guid, repo, note, at };
            self.intake.0.send(Waiting::Noted(noted, tx)).await.map_err(|_| gone())?;
            answers.push(rx);
        }
        for answer in answers {
            answer.await.map_err(|_| gone())??;
        }
        Ok(())
    }

    /// Ends a delivery that led to nothing but this note. Shares its commit with what comes in: a storm of events that
    /// nobody acts on must not take the disk from those that wait for their answer.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn note_delivery(&self, guid: &DeliveryId, repo: RepoId, note: &str, at: Timestamp) -> Result<()> {
        let (tx, rx) = oneshot::channel();
        let gone = || StoreError::Disk("the store is closed".into());
        let noted = Noted { guid: guid.clone(), repo, note: note.to_owned(), at };
        self.intake.0.send(Waiting::Noted(noted, tx)).await.map_err(|_| gone())?;
        rx.await.map_err(|_| gone())?
    }

    /// The oldest pending deliveries that are due, at most one per repository and none of those in `busy`:
    /// one that can't be processed now holds up its own repository at most, never the others.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn due_deliveries(&self, now: Timestamp, busy: &BTreeSet<i64>, limit: usize) -> Result<Vec<Delivery>> {
        // Without a free place there is nothing to look for.
        if limit == 0 {
            return Ok(Vec::new());
        }
        // From repository to repository by the index: what waits behind the first of each costs nothing.
        let rows = sqlx::query(
            "WITH RECURSIVE waiting (repo) AS (SELECT MIN(repo_id) FROM deliveries WHERE state = 'pending' UNION ALL \
             SELECT (SELECT MIN(repo_id) FROM deliveries WHERE state = 'pending' AND repo_id > waiting.repo) FROM waiting \
             WHERE waiting.repo IS NOT NULL) \
             SELECT d.* FROM waiting JOIN deliveries d ON d.rowid = (SELECT e.rowid FROM deliveries e \
             WHERE e.state = 'pending' AND e.repo_id = waiting.repo AND +e.next_at <= $1 ORDER BY e.rowid LIMIT 1) \
             WHERE waiting.repo IS NOT NULL ORDER BY d.rowid LIMIT $2",
        )
        .bind(ms(now))
        .bind(i64::try_from(limit + busy.len()).unwrap_or(i64::MAX))
        .fetch_all(&self.read)
        .await?;
        let mut due = Vec::new();
        for row in &rows {
            let d = read(row)?;
            if !busy.contains(&d.repo_id.map_or(0, |r| r.0)) && due.len() < limit {
                due.push(d);
            }
        }
        Ok(due)
    }

    /// More pending deliveries of one repository that are due, oldest first.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn due_deliveries_of(&self, repo: i64, now: Timestamp, limit: i64) -> Result<Vec<Delivery>> {
        let rows = sqlx::query(
            "SELECT * FROM deliveries WHERE state = 'pending' AND repo_id = $1 AND +next_at <= $2 ORDER BY rowid LIMIT $3",
        )
        .bind(repo)
        .bind(ms(now))
        .bind(limit)
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(read).collect()
    }

    /// When the next pending delivery is due, if there is one.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn next_delivery_at(&self) -> Result<Option<Timestamp>> {
        let at: Option<i64> = sqlx::query_scalar("SELECT MIN(next_at) FROM deliveries WHERE state = 'pending'")
            .fetch_one(&self.read)
            .await?;
        Ok(at.and_then(|n| Timestamp::from_millisecond(n).ok()))
    }

    /// Ends a delivery: done, quarantined or dead, with what came of it.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn end_delivery(
        &self,
        guid: &DeliveryId,
        state: DeliveryState,
        note: &str,
        now: Timestamp,
    ) -> Result<()> {
        sqlx::query(
            "UPDATE deliveries SET state = $2, note = $3, processed_at = $4, attempts = attempts + 1 WHERE guid = $1",
        )
        .bind(guid.as_str())
        .bind(state.as_str())
        .bind(note)
        .bind(ms(now))
        .execute(&self.write)
        .await?;
        Ok(())
    }

    /// Puts a delivery off; `note` says why.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn retry_delivery(&self, guid: &DeliveryId, at: Timestamp, note: &str) -> Result<()> {
        sqlx::query("UPDATE deliveries SET next_at = $2, note = $3, attempts = attempts + 1 WHERE guid = $1")
            .bind(guid.as_str())
            .bind(ms(at))
            .bind(note)
            .execute(&self.write)
            .await?;
        Ok(())
    }

    /// Makes a delivery pending again, whatever it was (`switchover replay`).
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn replay_delivery(&self, guid: &DeliveryId, now: Timestamp) -> Result<bool> {
        let done = sqlx::query(
            "UPDATE deliveries SET state = 'pending', next_at = $2, attempts = 0, note = 'replayed' WHERE guid = $1 AND body IS NOT NULL",
        )
        .bind(guid.as_str())
        .bind(ms(now))
        .execute(&self.write)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// One delivery.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn delivery(&self, guid: &DeliveryId) -> Result<Option<Delivery>> {
        let row = sqlx::query("SELECT * FROM deliveries WHERE guid = $1")
            .bind(guid.as_str())
            .fetch_optional(&self.read)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// The newest deliveries in a state (all when none is named), newest first.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn deliveries(&self, state: Option<DeliveryState>, limit: i64) -> Result<Vec<Delivery>> {
        let rows = sqlx::query("SELECT * FROM deliveries WHERE $1 IS NULL OR state = $1 ORDER BY rowid DESC LIMIT $2")
            .bind(state.map(DeliveryState::as_str))
            .bind(limit)
            .fetch_all(&self.read)
            .await?;
        rows.iter().map(read).collect()
    }

    /// Deliveries that name a commit (seven digits or more of it) and were not processed, oldest first.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn unprocessed_about(&self, sha: &str) -> Result<Vec<Delivery>> {
        // Few wait, and nobody asks often: their payloads are searched as they are, for a text that begins so.
        let rows = sqlx::query(
            "SELECT * FROM deliveries WHERE rowid IN (SELECT rowid FROM deliveries WHERE state = 'pending' UNION ALL \
             SELECT rowid FROM deliveries WHERE state IN ('quarantined', 'dead')) AND instr(body, $1) > 0 ORDER BY rowid LIMIT 20",
        )
        .bind(format!("\"{}", sha.to_ascii_lowercase()).into_bytes())
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(read).collect()
    }

    /// How many deliveries are in each state.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn delivery_counts(&self) -> Result<Vec<(String, i64)>> {
        // Most are done; only the others have an index by state.
        let counted: Vec<(String, i64)> = sqlx::query_as(
            "SELECT state, COUNT(*) FROM deliveries WHERE state IN ('quarantined', 'dead') GROUP BY state UNION ALL \
             SELECT 'pending', COUNT(*) FROM deliveries WHERE state = 'pending' UNION ALL \
             SELECT 'done', COUNT(*) FROM deliveries ORDER BY 1",
        )
        .fetch_all(&self.read)
        .await?;
        let others: i64 = counted.iter().filter(|(state, _)| state != "done").map(|(_, n)| n).sum();
        let own = |(state, n): (String, i64)| if state == "done" { (state, n - others) } else { (state, n) };
        Ok(counted.into_iter().map(own).filter(|(_, n)| *n > 0).collect())
    }

    /// Of these ids, those that are not known.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn unknown_deliveries(&self, guids: &[DeliveryId]) -> Result<Vec<DeliveryId>> {
        let mut unknown = Vec::new();
        for guid in guids {
            let known: Option<i64> = sqlx::query_scalar("SELECT 1 FROM deliveries WHERE guid = $1")
                .bind(guid.as_str())
                .fetch_optional(&self.read)
                .await?;
            if known.is_none() {
                unknown.push(guid.clone());
            }
        }
        Ok(unknown)
    }

    /// Drops the payloads of deliveries that were done before `before`. Their rows stay: they tell duplicates.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn forget_payloads(&self, before: Timestamp) -> Result<u64> {
        let done = sqlx::query(
            "UPDATE deliveries SET body = NULL WHERE state = 'done' AND body IS NOT NULL AND received_at < $1",
        )
        .bind(ms(before))
        .execute(&self.write)
        .await?;
        Ok(done.rows_affected())
    }
}

fn read(row: &sqlx::sqlite::SqliteRow) -> Result<Delivery> {
    let row = Of("deliveries", row);
    Ok(Delivery {
        guid: row.parsed("guid")?,
        event: row.text("event")?,
        action: row.maybe_text("action")?,
        repo_id: row.maybe_number("repo_id")?.filter(|id| *id != 0).map(RepoId),
        received_at: row.time("received_at")?,
        body: row.bytes("body")?.unwrap_or_default(),
        state: DeliveryState::parse(&row.text("state")?)?,
        attempts: row.number("attempts")?,
        processed_at: row.maybe_time("processed_at")?,
        note: row.maybe_text("note")?,
    })
}

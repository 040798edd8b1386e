//! The group commit: deliveries that come in, and notes about those that led to nothing, share transactions.

use std::{collections::BTreeSet, sync::LazyLock};

use jiff::Timestamp;
use sqlx::{Sqlite, SqliteConnection, SqlitePool, Transaction};
use tokio::sync::{mpsc, oneshot};

use super::{NewDelivery, Received, Result, StoreError, ms};
use crate::domain::ids::{DeliveryId, RepoId};

/// How many waiting deliveries share one commit at most.
const BATCH: usize = 256;

/// What waits for the next commit.
#[derive(Debug)]
pub(super) enum Waiting {
    New(NewDelivery, oneshot::Sender<Result<Received>>),
    /// A delivery that led to nothing but a note.
    Noted(Noted, oneshot::Sender<Result<()>>),
}

/// A note about a delivery.
#[derive(Debug)]
pub(super) struct Noted {
    pub guid: DeliveryId,
    pub repo: RepoId,
    pub note: String,
    pub at: Timestamp,
}

/// The group commit: one task, one transaction for all that wait.
#[derive(Debug, Clone)]
pub(super) struct Intake(pub mpsc::Sender<Waiting>);

impl Intake {
    pub(super) fn start(pool: SqlitePool) -> Self {
        let (tx, mut rx) = mpsc::channel::<Waiting>(BATCH);
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(BATCH);
            while rx.recv_many(&mut batch, BATCH).await > 0 {
                match commit(&pool, &mut batch).await {
                    Ok(results) => {
                        crate::failpoint::hit("intake.after_commit");
                        for (waiting, result) in batch.drain(..).zip(results) {
                            // Whoever hung up meanwhile asks again.
                            match waiting {
                                Waiting::New(_, answer) => _ = answer.send(Ok(result)),
                                Waiting::Noted(_, answer) => _ = answer.send(Ok(())),
                            }
                        }
                    }
                    Err(e) => {
                        tracing::error!(error = %e, count = batch.len(), "deliveries could not be stored");
                        let text = e.to_string();
                        for waiting in batch.drain(..) {
                            let error = StoreError::Disk(text.clone());
                            match waiting {
                                Waiting::New(_, answer) => _ = answer.send(Err(error)),
                                Waiting::Noted(_, answer) => _ = answer.send(Err(error)),
                            }
                        }
                    }
                }
            }
        });
        Self(tx)
    }
}

/// Rows of one statement. Each statement is a journey to SQLite's thread and back, so a batch takes as few as it can;
/// and the sizes are few, so that each is prepared once.
const ROWS: [usize; 4] = [64, 16, 4, 1];

/// The statement for so many rows.
fn insert_sql(rows: usize) -> &'static str {
    static ALL: LazyLock<[String; ROWS.len()]> = LazyLock::new(|| {
        ROWS.map(|rows| {
            let values: Vec<String> = (0..rows)
                .map(|row| {
                    let p = |n: usize| row * 7 + n;
                    let (received, rest) = (p(6), [p(1), p(2), p(3), p(4), p(5)].map(|n| format!("${n}")).join(", "));
                    format!("({rest}, ${received}, ${}, 'pending', ${received})", p(7))
                })
                .collect();
            // Told apart by what was processed, not by what was seen: one that could not be read or was given up is taken
            // anew (event and id are not signed, so the first one may not have been GitHub's). When it came first stays.
            format!(
                "INSERT INTO deliveries (guid, event, action, repo_id, installation_id, received_at, body, state, next_at) \
                 VALUES {} ON CONFLICT (guid) DO UPDATE SET event = excluded.event, action = excluded.action, \
                 repo_id = excluded.repo_id, installation_id = excluded.installation_id, body = excluded.body, \
                 state = 'pending', attempts = 0, next_at = excluded.next_at, processed_at = NULL, note = NULL \
                 WHERE deliveries.state IN ('quarantined', 'dead') RETURNING guid",
                values.join(", ")
            )
        })
    });
    let size = ROWS.iter().position(|r| *r == rows).unwrap_or(ROWS.len() - 1);
    &ALL[size]
}

/// Writes those that are not known, or were not processed; returns their ids. Their bodies go along: one may have 25 MB,
/// and is not copied.
async fn insert(to: &mut SqliteConnection, mut all: &mut [&mut NewDelivery]) -> Result<BTreeSet<String>> {
    let mut new = BTreeSet::new();
    while !all.is_empty() {
        let rows = ROWS.into_iter().find(|r| *r <= all.len()).unwrap_or(1);
        let (now, later) = std::mem::take(&mut all).split_at_mut(rows);
        let mut query = sqlx::query_scalar::<_, String>(insert_sql(rows));
        for d in now {
            query = query
                .bind(d.guid.as_str())
                .bind(&d.event)
                .bind(&d.action)
                // 0: of no repository; those are processed one after the other, like those of one repository.
                .bind(d.repo_id.unwrap_or(0))
                .bind(d.installation_id)
                .bind(ms(d.received_at))
                .bind(std::mem::take(&mut d.body));
        }
        new.extend(query.fetch_all(&mut *to).await?);
        all = later;
    }
    Ok(new)
}

/// The two statements that note so many deliveries as done.
fn note_sql(rows: usize) -> (&'static str, &'static str) {
    static ALL: LazyLock<[(String, String); ROWS.len()]> = LazyLock::new(|| {
        ROWS.map(|rows| {
            let list = |width: usize, row: &dyn Fn(usize) -> String| {
                (0..rows).map(|n| row(n * width + 1)).collect::<Vec<_>>().join(", ")
            };
            let update = format!(
                "UPDATE deliveries SET state = 'done', note = v.column2, processed_at = v.column3, attempts = attempts + 1 \
                 FROM (VALUES {}) AS v WHERE deliveries.guid = v.column1",
                list(3, &|n| format!("(${n}, ${}, ${})", n + 1, n + 2))
            );
            let reasons = format!(
                "INSERT INTO reasons (at, repo_id, delivery, text) VALUES {}",
                list(4, &|n| format!("(${n}, ${}, ${}, ${})", n + 1, n + 2, n + 3))
            );
            (update, reasons)
        })
    });
    let size = ROWS.iter().position(|r| *r == rows).unwrap_or(ROWS.len() - 1);
    (&ALL[size].0, &ALL[size].1)
}

/// Ends deliveries that led to nothing but a note.
async fn note_all(tx: &mut Transaction<'_, Sqlite>, mut all: &[&Noted]) -> Result<()> {
    while !all.is_empty() {
        let rows = ROWS.into_iter().find(|r| *r <= all.len()).unwrap_or(1);
        let (now, later) = all.split_at(rows);
        let (update, reasons) = note_sql(rows);
        let (mut update, mut reasons) = (sqlx::query(update), sqlx::query(reasons));
        for n in now {
            update = update.bind(n.guid.as_str()).bind(&n.note).bind(ms(n.at));
            reasons = reasons.bind(ms(n.at)).bind(n.repo.0).bind(n.guid.as_str()).bind(&n.note);
        }
        update.execute(&mut **tx).await?;
        reasons.execute(&mut **tx).await?;
        all = later;
    }
    Ok(())
}

async fn commit(pool: &SqlitePool, batch: &mut [Waiting]) -> Result<Vec<Received>> {
    let all = batch.len();
    let (mut new, mut noted) = (Vec::new(), Vec::new());
    for waiting in batch.iter_mut() {
        match waiting {
            Waiting::New(delivery, _) => new.push(delivery),
            Waiting::Noted(note, _) => noted.push(&*note),
        }
    }
    let mut stored = if new.len() == all && ROWS.contains(&new.len()) {
        // One statement is a transaction by itself.
        crate::failpoint::hit("intake.before_commit");
        insert(&mut *pool.acquire().await?, &mut new).await?
    } else {
        let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
        let stored = insert(&mut tx, &mut new).await?;
        note_all(&mut tx, &noted).await?;
        crate::failpoint::hit("intake.before_commit");
        tx.commit().await?;
        stored
    };
    // Of two with one id in a batch the first is the new one.
    let received = |waiting: &Waiting| match waiting {
        Waiting::New(d, _) if stored.remove(d.guid.as_str()) => Received::New,
        _ => Received::Known,
    };
    Ok(batch.iter().map(received).collect())
}

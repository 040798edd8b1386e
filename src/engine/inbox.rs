//! Deliveries are taken in order for each repository, side by side between them; one that can't be processed now is put
//! off and holds up nothing behind it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    Engine, EngineError, backoff,
    planner::{Handled, OWN_EVENT, handle},
    until,
};
use crate::{
    clock,
    domain::ids::{DeliveryId, RepoId},
    github::{GitHubError, webhook},
    store::{Delivery, DeliveryState},
};

/// Repositories whose deliveries are processed side by side.
const SIDE_BY_SIDE: usize = 8;
/// Deliveries of one repository that are taken in one go.
const IN_A_ROW: i64 = 32;
/// Between two looks for what is due: in a storm of events the disk is for those that wait for an answer.
const PACE: Duration = Duration::from_millis(2);
/// After so many tries (about three days, as long as GitHub keeps deliveries) a delivery is given up.
const MOST_TRIES: i64 = 900;

/// The loop.
pub async fn run(engine: Engine, shutdown: CancellationToken) {
    let mut busy = BTreeSet::new();
    let mut tasks = JoinSet::new();
    let mut looked: Option<Instant> = None;
    loop {
        if let Some(soon) = looked.and_then(|at| PACE.checked_sub(at.elapsed())) {
            tokio::time::sleep(soon).await;
        }
        looked = Some(Instant::now());
        let free = SIDE_BY_SIDE.saturating_sub(tasks.len());
        let due = match engine.store.due_deliveries(clock::now(), &busy, free).await {
            Ok(due) => due,
            Err(e) => {
                tracing::error!(error = %e, "deliveries can't be read");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(1)) => continue,
                    () = shutdown.cancelled() => break,
                }
            }
        };
        for delivery in due {
            let repo = delivery.repo_id.map_or(0, |r| r.0);
            if busy.insert(repo) {
                let (engine, shutdown) = (engine.clone(), shutdown.clone());
                tasks.spawn(async move {
                    take(&engine, delivery, repo, &shutdown).await;
                    repo
                });
            }
        }
        let next = if tasks.is_empty() { engine.store.next_delivery_at().await.ok().flatten() } else { None };
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = engine.wake.deliveries.notified() => {}
            () = until(next) => {}
            Some(done) = tasks.join_next() => {
                if let Ok(repo) = done { busy.remove(&repo); } else { busy.clear(); }
            }
        }
    }
    // What is under way is short; what is not finished is still pending in the store.
    let _ = tokio::time::timeout(Duration::from_secs(2), async { while tasks.join_next().await.is_some() {} }).await;
}

/// One delivery, and what else has come for its repository meanwhile, in order, as much as is fair to the others.
async fn take(engine: &Engine, first: Delivery, repo: i64, shutdown: &CancellationToken) {
    let mut notes: Vec<Note> = process(engine, &first).await.into_iter().collect();
    let more = engine.store.due_deliveries_of(repo, clock::now(), IN_A_ROW).await.unwrap_or_default();
    for delivery in more {
        if shutdown.is_cancelled() {
            break;
        }
        // Those that are noted below are still due in the store.
        if delivery.guid != first.guid {
            notes.extend(process(engine, &delivery).await);
        }
    }
    if notes.is_empty() {
        return;
    }
    // Written at once. If that fails, or we are killed before, they are processed once more, which does nothing.
    if let Err(e) = engine.store.note_deliveries(notes, clock::now()).await {
        tracing::error!(error = %e, "the outcome of deliveries can't be written");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// What is noted about a delivery that led to nothing.
type Note = (DeliveryId, RepoId, String);

/// Does what a delivery asks for. What is left to be noted is given back.
async fn process(engine: &Engine, delivery: &Delivery) -> Option<Note> {
    let guid = &delivery.guid;
    let event = if delivery.event == OWN_EVENT {
        serde_json::from_slice(&delivery.body).map_err(|e| e.to_string())
    } else {
        webhook::normalise(&delivery.event, &delivery.body).map_err(|e| e.to_string())
    };
    let result = match event {
        Err(unreadable) => {
            tracing::warn!(delivery = %guid, event = delivery.event, "quarantined: {unreadable}");
            engine.store.end_delivery(guid, DeliveryState::Quarantined, &unreadable, clock::now()).await
        }
        Ok(event) => match Box::pin(handle(engine, delivery, event)).await {
            Ok(Handled::Written) => Ok(()),
            Ok(Handled::Note(repo, note)) => note_done(engine, delivery, repo, &note).await,
            Ok(Handled::Nothing(repo, note)) => return Some((guid.clone(), repo.unwrap_or(RepoId(0)), note)),
            Err(EngineError::Refused(why)) => note_done(engine, delivery, delivery.repo_id, &why).await,
            Err(e) => put_off(engine, delivery, &e).await,
        },
    };
    if let Err(e) = result {
        tracing::error!(delivery = %guid, error = %e, "the outcome of a delivery can't be written");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    engine.wake.report.notify_one();
    None
}

async fn note_done(
    engine: &Engine,
    delivery: &Delivery,
    repo: Option<RepoId>,
    note: &str,
) -> Result<(), crate::store::StoreError> {
    engine.store.note_delivery(&delivery.guid, repo.unwrap_or(RepoId(0)), note, clock::now()).await
}

async fn put_off(engine: &Engine, delivery: &Delivery, e: &EngineError) -> Result<(), crate::store::StoreError> {
    let guid = &delivery.guid;
    if delivery.attempts >= MOST_TRIES {
        tracing::error!(delivery = %guid, error = %e, "given up; `switchover replay` revives it");
        return engine.store.end_delivery(guid, DeliveryState::Dead, &e.to_string(), clock::now()).await;
    }
    let mut at = clock::now() + backoff(delivery.attempts);
    if let EngineError::GitHub(GitHubError::Limited { until }) = e {
        at = at.max(*until);
    }
    tracing::warn!(delivery = %guid, attempts = delivery.attempts, error = %e, "put off");
    engine.store.retry_delivery(guid, at, &e.to_string()).await
}

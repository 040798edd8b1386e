//! What was missed is found: deliveries that never arrived, branch heads and pull requests that moved unseen. On start
//! and every few minutes, by the same road as a webhook: what is found becomes a delivery of our own.

use std::time::{Duration, Instant};

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::{Engine, EngineError, planner::OWN_EVENT};
use crate::{
    clock,
    domain::{
        event::{Actor, Event, PullAction},
        ids::{DeliveryId, Digest, Sha},
        rollout::Ended,
        run::Outcome,
    },
    github::GitHubError,
    store::{NewDelivery, RepoState},
};

/// Between two sweeps.
const EVERY: Duration = Duration::from_secs(300);
/// Between two looks at what caches and images hold: each reads every cache's folders.
const COUNT: Duration = Duration::from_secs(3600);
/// Where the delivery log was read up to.
const CURSOR: &str = "deliveries_seen";

/// The loop.
pub async fn run(engine: Engine, shutdown: CancellationToken) {
    let mut wait = Duration::ZERO;
    let mut counted: Option<Instant> = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = EVERY;
        if let Err(e) = sweep(&engine).await {
            tracing::warn!(error = %e, "GitHub can't be asked for what was missed now");
            wait = Duration::from_secs(30);
        }
        if let Err(e) = super::retention::sweep(&engine).await {
            tracing::warn!(error = %e, "what is old can't be removed now");
        }
        if counted.is_none_or(|at| at.elapsed() >= COUNT) {
            counted = Some(Instant::now());
            if let Err(e) = super::retention::keep_budget(&engine).await {
                tracing::warn!(error = %e, "caches and images can't be kept within their budget now");
            }
        }
    }
}

/// One look for everything that was missed.
///
/// # Errors
/// When GitHub or the store can't be reached.
pub async fn sweep(engine: &Engine) -> Result<(), EngineError> {
    // Asked for by a person before the start's own look: the old cursor would bring everything again.
    if engine.store.is_restored().await? {
        adopt(engine).await?;
    }
    installations(engine).await?;
    missed_deliveries(engine).await?;
    heads(engine).await?;
    // Gates that wait for other people's checks are looked at even if their webhook was lost.
    engine.wake.rollouts.notify_one();
    engine.wake.deliveries.notify_one();
    engine.wake.report.notify_one();
    Ok(())
}

/// What is said of work that a backup holds half done.
const LOST: &str =
    "The server was restored from a backup that was made while this was under way; what came of it is not known.";

/// After a restore, before any loop begins. Tries until GitHub answers.
pub async fn adopt_backup(engine: &Engine) {
    loop {
        let adopted = match engine.store.is_restored().await {
            Ok(false) => return,
            Ok(true) => adopt(engine).await,
            Err(e) => Err(e.into()),
        };
        let Err(e) = adopted else { return };
        tracing::warn!(error = %e, "this is a backup, and GitHub can't be asked how things stand; tried again");
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

/// What happened since the backup was acted upon by the server whose disk is lost. Branches, pull requests
/// and the delivery log are taken as they stand, so that nothing is released twice; what was under way then is over.
async fn adopt(engine: &Engine) -> Result<(), EngineError> {
    let now = clock::now();
    for repo in engine.store.repos().await?.into_iter().filter(|r| r.state == RepoState::Active) {
        let id = repo.info.repo.id;
        for (branch, sha) in engine.github.branches(&repo.info.repo).await? {
            engine.store.put_head(id, &branch, Some(&sha), now).await?;
        }
        for pull in engine.github.open_pulls(&repo.info.repo).await? {
            engine.store.put_pull(id, &pull, now).await?;
        }
        for run in engine.store.open_runs(id, None).await? {
            engine.store.end_run(run.id, Outcome::Cancelled, Some(LOST), now).await?;
        }
    }
    for open in engine.store.open_rollouts().await? {
        let ended = Ended::Cancelled.as_str();
        engine.store.end_rollout(open.id, open.epoch, ended, LOST, None, None, None, now).await?;
    }
    let page = engine.github.hook_deliveries(None).await?;
    if let Some(newest) = page.deliveries.iter().map(|d| d.id).max() {
        engine.store.set_meta(CURSOR, &newest.to_string()).await?;
    }
    engine.store.end_restored().await?;
    tracing::warn!(
        "restored from a backup: what was pushed since then is taken as it stands, and not tested or released again"
    );
    Ok(())
}

/// Installations that we do not know (their webhook was lost, or the database is new).
async fn installations(engine: &Engine) -> Result<(), EngineError> {
    for installation in engine.github.installations().await? {
        if installation.suspended {
            continue;
        }
        super::planner::install(engine, installation.id).await?;
    }
    Ok(())
}

/// Fetches what GitHub could not deliver. The same id as the lost one: a later redelivery meets it. The log is read from
/// its newest end down to what was read before.
async fn missed_deliveries(engine: &Engine) -> Result<(), EngineError> {
    let seen: Option<i64> = engine.store.meta(CURSOR).await?.and_then(|v| v.parse().ok());
    let Some(seen) = seen else {
        // A new database: what was delivered before is either older than the installation, or was acted upon by a server
        // whose database is lost. Neither is done (again); branches are noted as they stand.
        let page = engine.github.hook_deliveries(None).await?;
        let newest = page.deliveries.iter().map(|d| d.id).max().unwrap_or(0);
        engine.store.set_meta(CURSOR, &newest.to_string()).await?;
        return Ok(());
    };
    let mut newest = seen;
    let mut cursor: Option<String> = None;
    let mut missed = Vec::new();
    loop {
        let page = engine.github.hook_deliveries(cursor.as_deref()).await?;
        for entry in &page.deliveries {
            newest = newest.max(entry.id);
            let unknown = engine.store.unknown_deliveries(std::slice::from_ref(&entry.guid)).await?;
            if entry.id > seen && !unknown.is_empty() {
                missed.push(entry.clone());
            }
        }
        cursor = page.next;
        if cursor.is_none() || page.deliveries.iter().any(|d| d.id <= seen) {
            break;
        }
    }
    // Oldest first: the order in which they would have come.
    missed.sort_by_key(|d| d.id);
    for entry in missed {
        let full = match engine.github.hook_delivery(entry.id).await {
            Ok(full) => full,
            Err(GitHubError::NotFound { .. }) => continue,
            Err(e) => return Err(e.into()),
        };
        let peek = crate::github::webhook::peek(&full.payload);
        tracing::info!(delivery = %entry.guid, event = entry.event, status = entry.status, "missed, fetched from the delivery log");
        let delivery = NewDelivery {
            guid: entry.guid,
            event: entry.event,
            action: peek.action,
            repo_id: peek.repo_id.map(|r| r.0),
            installation_id: peek.installation_id.map(|i| i.0),
            received_at: clock::now(),
            body: full.payload,
        };
        engine.store.receive(delivery).await?;
    }
    engine.store.set_meta(CURSOR, &newest.to_string()).await?;
    Ok(())
}

async fn heads(engine: &Engine) -> Result<(), EngineError> {
    for repo in engine.store.repos().await? {
        if repo.state != RepoState::Active || repo.info.archived {
            continue;
        }
        let info = repo.info;
        let known = engine.store.heads(info.repo.id).await?;
        let now = engine.github.branches(&info.repo).await?;
        for (branch, sha) in &now {
            let before = known.iter().find(|(b, _)| b == branch).map(|(_, s)| s.clone());
            if before.as_ref() == Some(sha) {
                continue;
            }
            let zero = Sha::new("0".repeat(40)).map_err(|e| EngineError::Refused(e.to_string()))?;
            let event = Event::Push {
                repo: info.clone(),
                git_ref: format!("refs/heads/{branch}"),
                before: before.unwrap_or(zero),
                after: sha.clone(),
                forced: false,
                message: String::new(),
                sender: Actor { login: "sweeper".into(), bot: false },
            };
            own(engine, &event, &format!("{}/{branch}/{sha}", info.repo.id)).await?;
        }
        let stored = engine.store.stored_pulls(info.repo.id).await?;
        let open = engine.github.open_pulls(&info.repo).await?;
        for pull in &open {
            if stored.iter().any(|s| s.number == pull.number && s.head == pull.head && s.base_ref == pull.base_ref) {
                continue;
            }
            let event = Event::PullRequest {
                repo: info.clone(),
                action: PullAction::Synchronize,
                pull: pull.clone(),
                sender: Actor { login: "sweeper".into(), bot: false },
            };
            own(engine, &event, &format!("{}/pull/{}/{}/{}", info.repo.id, pull.number, pull.head, pull.base_ref))
                .await?;
        }
        for pull in stored.iter().filter(|s| !open.iter().any(|o| o.number == s.number)) {
            let mut pull = pull.clone();
            pull.open = false;
            let event = Event::PullRequest {
                repo: info.clone(),
                action: PullAction::Closed,
                sender: Actor { login: "sweeper".into(), bot: false },
                pull: pull.clone(),
            };
            own(engine, &event, &format!("{}/pull/{}/closed/{}", info.repo.id, pull.number, clock::now())).await?;
        }
    }
    Ok(())
}

/// Hands in a delivery of our own. The key makes it the same one when it is found again before it was processed.
async fn own(engine: &Engine, event: &Event, key: &str) -> Result<(), EngineError> {
    let repo_id = match event {
        Event::Push { repo, .. } | Event::PullRequest { repo, .. } => Some(repo.repo.id.0),
        _ => None,
    };
    let body = serde_json::to_vec(event).map_err(|e| EngineError::Refused(e.to_string()))?;
    let name = Digest::of(format!("{key}/{}", body.len()).as_bytes());
    let guid =
        DeliveryId::new(format!("swept-{}", &name.as_str()[7..39])).map_err(|e| EngineError::Refused(e.to_string()))?;
    tracing::info!(delivery = %guid, key, "found by the sweep");
    let delivery = NewDelivery {
        guid,
        event: OWN_EVENT.into(),
        action: None,
        repo_id,
        installation_id: None,
        received_at: clock::now(),
        body,
    };
    engine.store.receive(delivery).await?;
    Ok(())
}

/// A random key of the server's own, made at the first start and kept in the data folder.
///
/// # Errors
/// When it can't be read or written.
pub fn server_key(data: &std::path::Path) -> std::io::Result<SecretString> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let file = data.join("server.key");
    match std::fs::read_to_string(&file) {
        Ok(text) if text.trim().len() == 64 => return Ok(SecretString::from(text.trim().to_owned())),
        Ok(_) => return Err(std::io::Error::other(format!("{} is damaged: restore it from a backup", file.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let key = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    let partial = data.join("server.key.new");
    let mut out = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&partial)?;
    out.write_all(key.as_bytes())?;
    out.sync_all()?;
    std::fs::rename(&partial, &file)?;
    Ok(SecretString::from(key))
}

//! What was missed is found: deliveries that never arrived, branch heads and pull requests that moved unseen. On start
//! and every few minutes, by the same road as a webhook: what is found becomes a delivery of our own.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::{Engine, EngineError, access, planner::OWN_EVENT};
use crate::{
    clock,
    domain::{
        event::{Actor, Event, PullAction, RepoInfo},
        ids::{DeliveryId, Digest, Sha},
        rollout::Ended,
        run::Outcome,
    },
    github::GitHubError,
    store::{NewDelivery, Received, RepoState},
};

/// Between two sweeps.
const EVERY: Duration = Duration::from_secs(300);
/// The same after GitHub could not be asked.
const SOON: Duration = Duration::from_secs(30);
/// Between two looks at what caches and images hold: each reads every cache's folders.
const COUNT: Duration = Duration::from_secs(3600);
/// Where the delivery log was read up to.
const CURSOR: &str = "deliveries_seen";

/// Calls in a row without any answer after which GitHub counts as away.
const SILENT: usize = 4;

/// The loop.
pub async fn run(engine: Engine, shutdown: CancellationToken) {
    let mut wait = Duration::ZERO;
    let mut counted: Option<Instant> = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        let round = async {
            let wait = match look(&engine).await {
                Ok(unseen) if !unseen.soon => EVERY,
                Ok(_) => SOON,
                Err(e) => {
                    tracing::warn!(error = %e, "what was missed can't be looked for now");
                    SOON
                }
            };
            if let Err(e) = super::retention::sweep(&engine).await {
                tracing::warn!(error = %e, "what is old can't be removed now");
            }
            wait
        };
        // A look may wait long for GitHub. Whatever is left undone is found by the next one.
        tokio::select! {
            () = shutdown.cancelled() => return,
            next = round => wait = next,
        }
        if counted.is_none_or(|at| at.elapsed() >= COUNT) {
            counted = Some(Instant::now());
            let kept = tokio::select! {
                () = shutdown.cancelled() => return,
                kept = super::retention::keep_budget(&engine) => kept,
            };
            if let Err(e) = kept {
                tracing::warn!(error = %e, "caches and images can't be kept within their budget now");
            }
        }
    }
}

/// One look for everything that was missed.
///
/// # Errors
/// When the store can't be used; [`EngineError::Refused`] names what could not be looked at: all else was.
pub async fn sweep(engine: &Engine) -> Result<(), EngineError> {
    let unseen = look(engine).await?;
    if unseen.words.is_empty() {
        return Ok(());
    }
    Err(EngineError::Refused(format!("all was looked at but for {}", unseen.words.join("; "))))
}

/// What a look could not see.
#[derive(Debug, Default)]
struct Unseen {
    /// What and why.
    words: Vec<String>,
    /// It was more than one repository: worth another look soon.
    soon: bool,
}

impl Unseen {
    fn one(&mut self, what: &str, e: &EngineError) {
        tracing::warn!(what, error = %e, "can't be looked at now");
        self.words.push(format!("{what}: {e}"));
    }

    /// A part of a look; its failure holds up no other part.
    fn part(&mut self, what: &str, result: Result<(), EngineError>) -> Result<(), EngineError> {
        match result {
            Err(e @ EngineError::Store(_)) => Err(e),
            Err(e) => {
                self.one(what, &e);
                self.soon = true;
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

async fn look(engine: &Engine) -> Result<Unseen, EngineError> {
    // Asked for by a person before the start's own look: the old cursor would bring everything again.
    if engine.store.is_restored().await? {
        adopt(engine).await?;
    }
    let mut unseen = Unseen::default();
    let result = installations(engine, &mut unseen).await;
    unseen.part("the installations", result)?;
    let result = missed_deliveries(engine, &mut unseen).await;
    unseen.part("the App's deliveries", result)?;
    let result = heads(engine, &mut unseen).await;
    unseen.part("the repositories", result)?;
    // Gates that wait for other people's checks are looked at even if their webhook was lost.
    engine.wake.rollouts.notify_one();
    engine.wake.deliveries.notify_one();
    engine.wake.report.notify_one();
    Ok(unseen)
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
        for (branch, sha) in listed(engine.github.branches(&repo.info.repo).await, &repo.info)? {
            engine.store.put_head(id, &branch, Some(&sha), now).await?;
        }
        for pull in listed(engine.github.open_pulls(&repo.info.repo).await, &repo.info)? {
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

/// A repository that was taken away since the backup must not keep the server from its start.
fn listed<T>(list: Result<Vec<T>, GitHubError>, repo: &RepoInfo) -> Result<Vec<T>, EngineError> {
    match list {
        Err(e) if e.is_permanent() => {
            tracing::warn!(repo = repo.repo.full_name(), error = %e, "can't be looked at");
            Ok(Vec::new())
        }
        other => Ok(other?),
    }
}

/// Installations and repositories that we do not know, and those that are ours no more (their webhook was lost, or the
/// database is new).
async fn installations(engine: &Engine, unseen: &mut Unseen) -> Result<(), EngineError> {
    // Taken before GitHub is asked: what is added meanwhile is missing in no answer.
    let mut before = engine.store.repos().await?;
    let all = engine.github.installations().await?;
    let mut open = BTreeSet::new();
    for installation in all.iter().filter(|i| !i.suspended) {
        match access::install(engine, installation.id).await {
            Ok(installed) => {
                before.retain(|r| !installed.listed.contains(&r.info.repo.id));
                for (repo, e) in &installed.failed {
                    unseen.one(repo, e);
                }
            }
            Err(e @ EngineError::Store(_)) => return Err(e),
            Err(e) => {
                unseen.one(&format!("the installation on {}", installation.account), &e);
                open.insert(installation.id);
            }
        }
    }
    for repo in before {
        let (id, of) = (repo.info.repo.id, repo.info.repo.installation);
        if repo.state == RepoState::Removed || open.contains(&of) {
            continue;
        }
        let suspended = all.iter().any(|i| i.id == of && i.suspended);
        // A list that changes while it is read may leave one out, so it is asked for by name.
        let state = if suspended {
            RepoState::Suspended
        } else {
            match engine.github.repository(&repo.info.repo).await {
                Ok(_) => continue,
                Err(e) if e.is_permanent() => RepoState::Removed,
                Err(e) => {
                    unseen.one(&repo.info.repo.full_name(), &e.into());
                    continue;
                }
            }
        };
        // Unless an event told something else meanwhile.
        let stands = engine.store.repo(id).await?.is_some_and(|r| r.info == repo.info && r.state == repo.state);
        if stands && state != repo.state {
            tracing::info!(repo = repo.info.repo.full_name(), state = state.as_str(), "found by the sweep");
            access::stop_repo(engine, id, state).await?;
        }
    }
    Ok(())
}

/// Fetches what GitHub could not deliver. The same id as the lost one: a later redelivery meets it. The log is read from
/// its newest end down to what was read before.
async fn missed_deliveries(engine: &Engine, unseen: &mut Unseen) -> Result<(), EngineError> {
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
            Err(e) => {
                let again = !e.is_permanent();
                let away = matches!(e, GitHubError::Unreachable { .. } | GitHubError::Limited { .. });
                unseen.one(&format!("the delivery {} ({})", entry.guid, entry.event), &e.into());
                if again {
                    // The next look begins with it.
                    newest = newest.min(entry.id - 1);
                }
                if away {
                    break;
                }
                continue;
            }
        };
        let peek = crate::github::webhook::peek(&full.payload);
        tracing::info!(delivery = %entry.guid, event = entry.event, status = entry.status, "missed, fetched from the delivery log");
        let delivery = NewDelivery {
            guid: entry.guid,
            event: entry.event,
            action: peek.action,
            repo_id: peek.repo_id.map(|r| r.0),
            installation_id: peek.installation_id.map(|i| i.0),
            // Not when it is found: a click of then is an old one.
            received_at: entry.delivered_at,
            body: full.payload,
        };
        engine.store.receive(delivery).await?;
    }
    engine.store.set_meta(CURSOR, &newest.to_string()).await?;
    Ok(())
}

async fn heads(engine: &Engine, unseen: &mut Unseen) -> Result<(), EngineError> {
    let mut silent = 0;
    for repo in engine.store.repos().await? {
        if repo.state != RepoState::Active || repo.info.archived {
            continue;
        }
        let name = repo.info.repo.full_name();
        let looks =
            [("branches", branches(engine, &repo.info).await), ("pull requests", pulls(engine, &repo.info).await)];
        for (what, looked) in looks {
            let Err(e) = looked else {
                silent = 0;
                continue;
            };
            silent = if matches!(e, EngineError::GitHub(GitHubError::Unreachable { .. })) { silent + 1 } else { 0 };
            if silent >= SILENT || matches!(e, EngineError::Store(_)) {
                return Err(e);
            }
            unseen.one(&format!("the {what} of {name}"), &e);
        }
    }
    Ok(())
}

fn sweeper() -> Actor {
    Actor { login: "sweeper".into(), bot: false }
}

async fn branches(engine: &Engine, info: &RepoInfo) -> Result<(), EngineError> {
    let id = info.repo.id;
    let known = engine.store.heads_since(id).await?;
    let now = engine.github.branches(&info.repo).await?;
    let zero = Sha::new("0".repeat(40)).map_err(|e| EngineError::Refused(e.to_string()))?;
    let push = |branch: &str, before: Sha, after: Sha| Event::Push {
        repo: info.clone(),
        git_ref: format!("refs/heads/{branch}"),
        before,
        after,
        forced: false,
        message: String::new(),
        sender: sweeper(),
    };
    for (branch, sha) in &now {
        let (before, since) = match known.iter().find(|(b, ..)| b == branch) {
            Some((_, head, _)) if head == sha => continue,
            Some((_, head, at)) => (head.clone(), format!("{head} of {}", at.as_millisecond())),
            // It may have been there before, and gone: then it had a run.
            None => {
                let run = engine.store.runs_on(id, sha).await?.into_iter().rfind(|r| r.lane == *branch);
                (zero.clone(), run.map_or_else(|| "nothing".to_owned(), |r| r.id.to_string()))
            }
        };
        own(engine, &push(branch, before, sha.clone()), &format!("{id}/{branch}/{since}/{sha}")).await?;
    }
    for (branch, head, at) in known.iter().filter(|(b, ..)| !now.iter().any(|(n, _)| n == b)) {
        let key = format!("{id}/{branch}/{head} of {}/gone", at.as_millisecond());
        own(engine, &push(branch, head.clone(), zero.clone()), &key).await?;
    }
    Ok(())
}

async fn pulls(engine: &Engine, info: &RepoInfo) -> Result<(), EngineError> {
    let id = info.repo.id;
    let stored = engine.store.stored_pulls(id).await?;
    let open = engine.github.open_pulls(&info.repo).await?;
    let moved = open
        .iter()
        .filter(|p| !stored.iter().any(|s| s.number == p.number && s.head == p.head && s.base_ref == p.base_ref));
    let gone = stored.iter().filter(|s| !open.iter().any(|o| o.number == s.number));
    for (pull, action) in moved.map(|p| (p, PullAction::Synchronize)).chain(gone.map(|p| (p, PullAction::Closed))) {
        let mut pull = pull.clone();
        pull.open = action != PullAction::Closed;
        let since = engine.store.pull_since(id, pull.number).await?.map_or(0, |at| at.as_millisecond());
        let state = if pull.open { "open" } else { "closed" };
        let key = format!("{id}/pull/{}/{since}/{state}/{}/{}", pull.number, pull.head, pull.base_ref);
        own(engine, &Event::PullRequest { repo: info.clone(), action, pull, sender: sweeper() }, &key).await?;
    }
    Ok(())
}

/// Hands in a delivery of our own. The key makes it the same one when it is found again before it was processed; so it says
/// from where something moved, and since when it was there, or what comes back would be held for what was found before.
async fn own(engine: &Engine, event: &Event, key: &str) -> Result<(), EngineError> {
    let repo_id = match event {
        Event::Push { repo, .. } | Event::PullRequest { repo, .. } => Some(repo.repo.id.0),
        _ => None,
    };
    let body = serde_json::to_vec(event).map_err(|e| EngineError::Refused(e.to_string()))?;
    let name = Digest::of(key.as_bytes());
    let guid =
        DeliveryId::new(format!("swept-{}", &name.as_str()[7..39])).map_err(|e| EngineError::Refused(e.to_string()))?;
    let delivery = NewDelivery {
        guid: guid.clone(),
        event: OWN_EVENT.into(),
        action: None,
        repo_id,
        installation_id: None,
        received_at: clock::now(),
        body,
    };
    if engine.store.receive(delivery).await? == Received::New {
        tracing::info!(delivery = %guid, key, "found by the sweep");
    }
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

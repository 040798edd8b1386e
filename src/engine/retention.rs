//! What is old and used by nobody goes: logs, payloads, releases, caches. Nothing that a rollout may go back to, and
//! nothing young: whoever made it may not have noted it yet.

use std::{collections::BTreeSet, path::Path, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{Engine, EngineError, rollouts::parse};
use crate::{
    clock,
    domain::{ids::Digest, rollout::Desired},
    exec::{
        budget::{Freed, keep_within},
        caches::Caches,
    },
    rollout::local::releases,
};

/// The newest rollouts of an environment keep their releases: `promote` and the way back may need them.
const LAST: i64 = 10;
/// Younger things are never removed.
const YOUNG: Duration = Duration::from_secs(24 * 3600);
/// What was used within this time does not go for want of room: an image that was just fetched is about to be used.
const IDLE: Duration = Duration::from_secs(3600);

/// What went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gone {
    /// Releases of files.
    pub releases: usize,
    /// Folders of logs.
    pub logs: usize,
    /// Caches.
    pub caches: usize,
}

/// One round.
///
/// # Errors
/// When the store can't be used; what can't be removed is logged and left for the next time.
pub async fn sweep(engine: &Engine) -> Result<Gone, EngineError> {
    let mirrors = engine.mirrors.sweep().await;
    engine.sweep_containers().await;
    let kept = engine.settings.limits.keep_logs;
    let since = SignedDuration::try_from(kept).map_or(Timestamp::MIN, |kept| clock::now() - kept);
    engine.store.forget_payloads(since).await?;
    engine.store.forget_words(since).await?;
    let releases_kept = releases_kept(engine, since).await?;
    let runs: BTreeSet<String> = engine.store.runs_to_keep(since).await?.iter().map(ToString::to_string).collect();
    let rollouts = engine.store.rollouts_to_keep(since).await?;
    let rollouts: BTreeSet<String> = rollouts.iter().map(ToString::to_string).collect();
    // Slots that the agent knows write their logs; while it can't be asked, all of them may.
    let slots = engine.agent.status().await.ok().map(|status| {
        let named = |service: String, slot: &String| format!("{}/{slot}", service.replace('/', "_"));
        let of = status.services.into_iter();
        of.flat_map(|(id, s)| s.slots.keys().map(|slot| named(id.clone(), slot)).collect::<Vec<_>>())
            .collect::<BTreeSet<String>>()
    });
    let (data, root, logs) = (engine.settings.data.clone(), engine.releases_root(), engine.logs());
    let gone = tokio::task::spawn_blocking(move || {
        let releases = releases::prune(&root, &releases_kept, YOUNG.min(kept)).unwrap_or_else(|e| {
            tracing::warn!(error = %e, "old releases can't be removed");
            0
        });
        Gone {
            releases,
            logs: forget(&logs, "", &runs, kept)
                + forget(&data.join("rollouts"), "", &rollouts, kept)
                + slots.map_or(0, |slots| old_slots(&data.join("slots"), &slots, kept)),
            caches: Caches::new(data.join("caches")).sweep(kept),
        }
    });
    let gone = gone.await.map_err(|e| EngineError::Machine(e.to_string()))?;
    tracing::debug!(?mirrors, ?gone, "swept");
    Ok(gone)
}

/// Keeps within the operator's budget what is there for speed alone: caches, images that we pulled or built, and the
/// builder's cache, which counts for itself.
///
/// # Errors
/// When the store can't be used; what the engine does not do is logged and left for the next time.
pub async fn keep_budget(engine: &Engine) -> Result<(), EngineError> {
    let budget = engine.settings.limits.cache_disk;
    let needed = last_releases(engine).await?;
    let caches = Caches::new(engine.settings.data.join("caches"));
    let freed = keep_within(&caches, engine.docker.as_ref(), budget, &needed, IDLE).await;
    if freed != Freed::default() {
        tracing::info!(?freed, budget, "removed what was unused longest: there was more than limits.cache_disk");
    }
    // Without a registry nothing is built here: the builder's cache is somebody else's.
    if let Some(docker) = engine.docker.as_ref().filter(|_| !engine.settings.registries.is_empty()) {
        match docker.keep_build_cache(budget).await {
            Ok(0) => {}
            Ok(bytes) => tracing::info!(bytes, budget, "the builder's cache was more than limits.cache_disk"),
            Err(error) => tracing::warn!(%error, "the builder's cache is not pruned"),
        }
    }
    Ok(())
}

/// Releases that somebody may start again.
async fn releases_kept(engine: &Engine, since: Timestamp) -> Result<Vec<Digest>, EngineError> {
    let mut kept = engine.store.digests_since(since).await?;
    kept.extend(last_releases(engine).await?);
    Ok(kept)
}

/// What the newest rollouts of each environment brought, and those under way will.
async fn last_releases(engine: &Engine) -> Result<Vec<Digest>, EngineError> {
    let mut kept = Vec::new();
    for desired in engine.store.desired_of_last(LAST).await? {
        let desired: Desired = parse(&desired)?;
        kept.extend(desired.apps.into_iter().map(|a| a.digest));
    }
    Ok(kept)
}

fn old_slots(root: &Path, known: &BTreeSet<String>, idle: Duration) -> usize {
    let services = std::fs::read_dir(root).into_iter().flatten().flatten();
    services
        .map(|service| forget(&service.path(), &format!("{}/", service.file_name().to_string_lossy()), known, idle))
        .sum()
}

/// Removes the folders below `root` whose names, behind `prefix`, are none of `keep` and were not changed for so long.
fn forget(root: &Path, prefix: &str, keep: &BTreeSet<String>, idle: Duration) -> usize {
    let mut gone = 0;
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let named = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| Timestamp::try_from(at).ok());
        let age = age.and_then(|at| Duration::try_from(clock::now().duration_since(at)).ok());
        if keep.contains(&named) || age.is_none_or(|a| a < idle) {
            continue;
        }
        match std::fs::remove_dir_all(entry.path()) {
            Ok(()) => gone += 1,
            Err(e) => tracing::warn!(path = %entry.path().display(), error = %e, "old logs can't be removed"),
        }
    }
    gone
}

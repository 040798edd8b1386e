//! Rollouts are driven through their phases, one per environment; slots that nobody needs are retired.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Engine, EngineError, releases::Gate, until};
use crate::{
    clock,
    domain::{
        config::AppKind,
        ids::{AppName, EnvironmentName, Epoch, RepoId, RolloutId, Slot},
        rollout::{
            Asked, Desired, Ended, EnvironmentKey, Kept, Live, Phase, Progress, keep::in_use as rollout_needs,
            retire_due,
        },
    },
    rollout::{
        Target, TargetError,
        drive::{DriveEnd, DriveError, Journal, JournalError, drive},
    },
    store::{EnvironmentRow, RepoState, RolloutRow, StoreError, json_of},
    telemetry::ResultLabel,
};

/// A rollout whose worker gave up is looked at again after this long.
const AGAIN: Duration = Duration::from_secs(2);

/// Why a release was stopped that somebody else would have to begin again.
const NO_ACCESS: &str =
    "The App has no access to the repository any more, so the release was stopped before its switch.";

type Place = (i64, String);

/// The loop.
pub async fn run(engine: Engine, shutdown: CancellationToken) {
    let mut busy: HashMap<Place, RolloutId> = HashMap::new();
    let mut tasks: JoinSet<Place> = JoinSet::new();
    loop {
        let mut next = None;
        match look(&engine, &mut busy, &mut tasks, &shutdown).await {
            Ok(at) => next = at,
            Err(e) => {
                tracing::error!(error = %e, "rollouts can't be looked at now");
                next = Some(clock::now() + AGAIN).or(next);
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = engine.wake.rollouts.notified() => {}
            () = until(next) => {}
            Some(done) = tasks.join_next() => match done {
                Ok(place) => { busy.remove(&place); }
                Err(e) => { tracing::error!(error = %e, "a rollout's worker broke"); busy.clear(); }
            },
        }
    }
    while tasks.join_next().await.is_some() {}
}

async fn look(
    engine: &Engine,
    busy: &mut HashMap<Place, RolloutId>,
    tasks: &mut JoinSet<Place>,
    shutdown: &CancellationToken,
) -> Result<Option<Timestamp>, EngineError> {
    engine.release_ended_runs().await?;
    let mut next: Option<Timestamp> = None;
    let mut sooner = |at: Timestamp| next = Some(next.map_or(at, |n| n.min(at)));
    for row in engine.store.open_rollouts().await? {
        if row.state != "gated" {
            continue;
        }
        match engine.gate(&row).await {
            Ok(Gate::Open) => engine.store.gate_rollout(row.id, "queued", None, clock::now()).await?,
            Ok(Gate::Closed(why, at)) => {
                engine.store.gate_rollout(row.id, "gated", Some(&why), clock::now()).await?;
                if let Some(at) = at {
                    sooner(at);
                }
            }
            Ok(Gate::Never(why)) => engine.store.gate_rollout(row.id, "done", Some(&why), clock::now()).await?,
            Err(e) => {
                // GitHub away: other people's checks can't be read, so the gate stays closed.
                let why = format!("its gates can't be looked at: {e}");
                engine.store.gate_rollout(row.id, "gated", Some(&why), clock::now()).await?;
                sooner(clock::now() + Duration::from_secs(15));
            }
        }
    }
    let open = engine.store.open_rollouts().await?;
    for row in &open {
        call_off_without_access(engine, row).await?;
        let place = (row.repo.0, row.environment.clone());
        match (row.state.as_str(), busy.get(&place)) {
            ("queued" | "active", None) => {
                // An active one of the place goes first: its worker is gone, and its end frees the place.
                let other = open.iter().any(|o| {
                    o.state == "active" && o.id != row.id && o.repo == row.repo && o.environment == row.environment
                });
                if other {
                    continue;
                }
                busy.insert(place.clone(), row.id);
                let (engine, id, shutdown) = (engine.clone(), row.id, shutdown.clone());
                tasks.spawn(async move {
                    if let Err(e) = carry_out(&engine, id, shutdown).await {
                        tracing::error!(rollout = %id, error = %e, "a rollout can't go on now");
                        tokio::time::sleep(AGAIN).await;
                    }
                    place
                });
            }
            ("queued", Some(active)) if *active != row.id => supersede(engine, *active, row).await?,
            _ => {}
        }
    }
    for environment in engine.store.environments().await? {
        let place = (environment.repo.0, environment.name.clone());
        if !busy.contains_key(&place) && environment.retire_at.is_some_and(|at| at <= clock::now()) {
            match retire(engine, &environment).await {
                Ok(()) => {}
                Err(e) => {
                    tracing::warn!(environment = environment.name, error = %e, "old slots can't be retired now");
                    let again = clock::now() + Duration::from_secs(30);
                    engine.store.keep(environment.repo, &environment.name, &environment.keep, Some(again)).await?;
                }
            }
        }
    }
    if let Some(at) = engine.store.next_retire_at().await? {
        // What is due in a busy place is looked at when its rollout ends.
        sooner(at.max(clock::now() + Duration::from_millis(500)));
    }
    Ok(next)
}

/// A release of a repository that the App has no access to any more ends before its switch; past it, it goes on to its end.
async fn call_off_without_access(engine: &Engine, row: &RolloutRow) -> Result<(), EngineError> {
    if row.kind != "release" || row.state == "gated" || has_access(engine, row.repo).await? {
        return Ok(());
    }
    let progress: Progress = parse(&row.progress)?;
    if !progress.phase.past_switch() {
        engine.ask(row.id, |asked| asked.cancel = true).await?;
    }
    Ok(())
}

async fn has_access(engine: &Engine, repo: RepoId) -> Result<bool, EngineError> {
    Ok(engine.store.repo(repo).await?.is_some_and(|r| r.state == RepoState::Active))
}

/// What still runs in the environment and is no part of what is released.
pub(super) fn left_over(desired: &Desired, live: &Live) -> Vec<(AppName, Slot)> {
    let others = live.apps.iter().filter(|(name, _)| desired.app(name).is_none());
    others.filter_map(|(name, app)| Some((name.clone(), app.active.clone()?))).collect()
}

/// A newer rollout waits: the active one is asked to make room, which it does before its switch only.
async fn supersede(engine: &Engine, active: RolloutId, newer: &RolloutRow) -> Result<(), EngineError> {
    if newer.kind == "rollback" {
        return engine.ask(active, |asked| asked.cancel = true).await.map(|_| ());
    }
    let id = newer.id;
    engine.ask(active, |asked| asked.superseded_by = Some(id)).await.map(|_| ())
}

async fn carry_out(engine: &Engine, id: RolloutId, shutdown: CancellationToken) -> Result<(), EngineError> {
    let Some(row) = engine.store.rollout(id).await?.filter(|r| r.state != "done") else { return Ok(()) };
    let desired: Desired = parse(&row.desired)?;
    if row.state == "queued"
        && let Some(why) = &desired.refused
    {
        return end_before_it_began(engine, id, Ended::Failed, why).await;
    }
    let target = match engine.target(&desired.key).await {
        Ok(target) => target,
        Err(EngineError::Refused(why)) => return no_target(engine, &row, why).await,
        Err(e) => return Err(e),
    };
    // After the loss of the database the live system knows higher epochs than the store.
    let live = target.live(&desired.key).await;
    if let Ok(live) = &live
        && let Some(highest) = live.apps.values().filter_map(|a| a.epoch).max()
        && engine.store.environment(row.repo, &row.environment).await?.is_none_or(|e| e.epoch < highest)
    {
        engine.store.claim_environment(row.repo, &row.environment, highest).await?;
    }
    let Some(row) = engine.store.claim_rollout(id, clock::now()).await? else { return Ok(()) };
    crate::failpoint::hit("rollouts.after_claim");
    let mut progress: Progress = parse(&row.progress)?;
    for (app, slot) in live.iter().flat_map(|live| left_over(&desired, live)) {
        let words = format!(
            "{app} is no part of this release and runs on, as slot {slot}: Switchover does not stop an app that was taken out. \
             Stop it by hand where it runs, or put it back."
        );
        if !progress.messages.iter().any(|m| m.words == words) {
            progress.say(words, clock::now());
        }
    }
    let asked: Asked = parse(&row.asked)?;
    let (sender, receiver) = watch::channel(asked);
    engine.asking.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(id, sender);
    let journal = StoreJournal { engine: engine.clone(), id, epoch: row.epoch, asked: receiver };
    let result = drive(&desired, progress, target.as_ref(), &journal, shutdown.clone()).await;
    let over = matches!(result, Ok(DriveEnd::Ended(..)));
    engine.asking.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&id);
    match result {
        Ok(DriveEnd::Ended(end, progress)) => {
            crate::failpoint::hit("rollouts.before_end");
            let outcome = end.outcome;
            let live = matches!(outcome, Ended::Live | Ended::Unchanged | Ended::Unhealthy).then_some(id);
            let hold = end.hold.then_some(end.words.as_str());
            let words = match outcome {
                Ended::Cancelled if !has_access(engine, row.repo).await? => NO_ACCESS,
                _ => end.words.as_str(),
            };
            let keep = match &end.keep {
                Some(kept) => Some((json_of(kept)?, kept.iter().map(|k| k.until).min())),
                // Whatever is not needed is retired soon: slots of a release that failed, for instance.
                None => None,
            };
            // Older slots than the one that is kept go at once: their own time is not noted any more.
            let now = clock::now();
            let keep = keep
                .as_ref()
                .map(|(json, at)| (json.as_str(), if outcome == Ended::Stuck { at.or(Some(now)) } else { Some(now) }));
            engine.store.end_rollout(id, row.epoch, outcome.as_str(), words, live, hold, keep, clock::now()).await?;
            crate::failpoint::hit("rollouts.after_end");
            engine.metrics.rollouts.get_or_create(&ResultLabel::of(outcome.as_str())).inc();
            tracing::info!(
                rollout = %id, environment = row.environment, sha = row.sha.short(), outcome = outcome.as_str(),
                probes = progress.prober.words(), "{words}"
            );
        }
        Ok(DriveEnd::HandedBack(_)) => {}
        Err(DriveError::Fenced(why)) => tracing::warn!(rollout = %id, "left to a later worker: {why}"),
        Err(e) => return Err(EngineError::Refused(e.to_string())),
    }
    engine.wake.rollouts.notify_one();
    engine.wake.report.notify_one();
    // Here, with the place still ours: where one release waits behind the other, no look ever finds it free. What is not
    // done stays due.
    if over
        && let Some(place) = engine.store.environment(row.repo, &row.environment).await?
        && place.retire_at.is_some_and(|at| at <= clock::now())
    {
        tokio::select! {
            done = retire(engine, &place) => if let Err(e) = done {
                tracing::warn!(environment = place.name, error = %e, "old slots can't be retired now");
            },
            // Old connections may take a minute to end. A way back does not wait for them.
            () = next_waits(engine, &row) => {}
            () = shutdown.cancelled() => {}
        }
    }
    Ok(())
}

/// Returns when another rollout waits for the place of this one.
async fn next_waits(engine: &Engine, row: &RolloutRow) {
    loop {
        tokio::time::sleep(AGAIN).await;
        let open = engine.store.open_rollouts().await.unwrap_or_default();
        if open.iter().any(|o| o.state == "queued" && o.repo == row.repo && o.environment == row.environment) {
            return;
        }
    }
}

/// Nothing was touched for it, and nothing will be.
async fn end_before_it_began(engine: &Engine, id: RolloutId, outcome: Ended, why: &str) -> Result<(), EngineError> {
    let now = clock::now();
    let Some(row) = engine.store.claim_rollout(id, now).await? else { return Ok(()) };
    let mut progress: Progress = parse(&row.progress)?;
    progress.go(Phase::Failed, Some(why.to_owned()), Some(outcome), now);
    engine.store.record_rollout(id, row.epoch, &json_of(&progress)?, now).await?;
    engine.store.end_rollout(id, row.epoch, outcome.as_str(), why, None, None, None, now).await?;
    engine.metrics.rollouts.get_or_create(&ResultLabel::of(outcome.as_str())).inc();
    tracing::info!(rollout = %id, environment = row.environment, sha = row.sha.short(), outcome = outcome.as_str(), "{why}");
    engine.wake.rollouts.notify_one();
    engine.wake.report.notify_one();
    Ok(())
}

/// Where it shall run can't be reached now, or is not granted any more: that stands in its check until it is mended. One
/// that has not begun makes room meanwhile, as it would while it waits.
async fn no_target(engine: &Engine, row: &RolloutRow, why: String) -> Result<(), EngineError> {
    let asked: Asked = parse(&row.asked)?;
    if row.state == "queued" && (asked.cancel || asked.rollback) {
        return end_before_it_began(engine, row.id, Ended::Cancelled, &format!("Called off. {why}")).await;
    }
    if row.state == "queued" && row.kind != "rollback" && asked.superseded_by.is_some() {
        return end_before_it_began(engine, row.id, Ended::Superseded, &format!("It never began: {why}")).await;
    }
    engine.store.tell_rollout(row.id, &why, clock::now()).await?;
    engine.wake.report.notify_one();
    Err(EngineError::Refused(why))
}

async fn retire(engine: &Engine, environment: &EnvironmentRow) -> Result<(), EngineError> {
    let name = EnvironmentName::new(environment.name.clone()).map_err(|e| EngineError::Refused(e.to_string()))?;
    let key = EnvironmentKey { repo: environment.repo, environment: name };
    let target = engine.target(&key).await?;
    let keep: Vec<Kept> = parse(&environment.keep)?;
    let live = target.live(&key).await.map_err(target_error)?;
    let now = clock::now();
    let mut in_use: BTreeMap<AppName, Vec<Slot>> = BTreeMap::new();
    for row in engine.store.open_rollouts().await? {
        if row.repo == environment.repo && row.environment == environment.name {
            let desired: Desired = parse(&row.desired)?;
            let progress: Progress = parse(&row.progress)?;
            for (app, slot) in rollout_needs(&desired, &progress) {
                in_use.entry(app).or_default().push(slot);
            }
        }
    }
    let due = retire_due(&live, &keep, &in_use, now);
    if !due.is_empty() {
        let highest = live.apps.values().filter_map(|a| a.epoch).max().unwrap_or(Epoch(0));
        let epoch = engine.store.claim_environment(environment.repo, &environment.name, highest).await?;
        for (app, slot) in &due {
            tracing::info!(environment = environment.name, app = %app, slot = %slot, "retired: nobody needs it any more");
            target.retire(&key, epoch, app, slot).await.map_err(target_error)?;
        }
    }
    let left: Vec<&Kept> = keep.iter().filter(|k| k.until > now).collect();
    let next = left.iter().map(|k| k.until).min();
    engine.store.keep(environment.repo, &environment.name, &json_of(&left)?, next).await?;
    Ok(())
}

fn target_error(e: TargetError) -> EngineError {
    EngineError::Refused(e.to_string())
}

/// Reads a JSON column.
///
/// # Errors
/// When it is not what it should be.
pub fn parse<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, EngineError> {
    serde_json::from_str(json).map_err(|e| EngineError::Store(StoreError::corrupt("rollouts", e)))
}

impl Engine {
    /// Changes what is asked of a rollout, in the store and for its worker.
    ///
    /// # Errors
    /// When the store can't be written.
    pub async fn ask(&self, id: RolloutId, change: impl FnOnce(&mut Asked)) -> Result<bool, EngineError> {
        let Some(row) = self.store.rollout(id).await? else { return Ok(false) };
        let before: Asked = parse(&row.asked)?;
        let mut asked = before.clone();
        change(&mut asked);
        if asked == before {
            return Ok(row.state != "done");
        }
        let taken = self.store.ask_rollout(id, &json_of(&asked)?).await?;
        if let Some(sender) = self.asking.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(&id) {
            sender.send_modify(|a| a.merge(&asked));
        }
        Ok(taken)
    }

    /// Where an environment runs.
    ///
    /// # Errors
    /// When the operator granted none.
    pub async fn target(&self, key: &EnvironmentKey) -> Result<Box<dyn Target>, EngineError> {
        let full_name = self.full_name(key.repo).await?;
        super::targets::target(self, key, &full_name).await
    }

    /// A repository's name now.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn full_name(&self, repo: RepoId) -> Result<String, EngineError> {
        Ok(self.store.repo(repo).await?.map(|r| r.info.repo.full_name()).unwrap_or_default())
    }
}

/// True for apps that are reached by users.
#[must_use]
pub fn is_web(kind: AppKind) -> bool {
    kind == AppKind::Web
}

struct StoreJournal {
    engine: Engine,
    id: RolloutId,
    epoch: Epoch,
    asked: watch::Receiver<Asked>,
}

impl Journal for StoreJournal {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn record<'a>(&'a self, progress: &'a Progress) -> BoxFuture<'a, Result<Asked, JournalError>> {
        Box::pin(async move {
            let json = json_of(progress).map_err(|e| JournalError::Failed(e.to_string()))?;
            let asked = self.engine.store.record_rollout(self.id, self.epoch, &json, clock::now()).await.map_err(
                |e| match e {
                    StoreError::Fenced(_) => JournalError::Fenced,
                    other => JournalError::Failed(other.to_string()),
                },
            )?;
            self.engine.wake.report.notify_one();
            serde_json::from_str(&asked).map_err(|e| JournalError::Failed(e.to_string()))
        })
    }

    fn asked(&self) -> watch::Receiver<Asked> {
        self.asked.clone()
    }
}

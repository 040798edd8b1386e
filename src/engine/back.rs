//! The way back: which releases were good, which one serves, and which slots still run what is gone back to.

use std::{collections::BTreeSet, time::Duration};

use super::{Engine, EngineError, releases::RolloutDetail, rollouts::parse};
use crate::{
    domain::{
        ids::{RolloutId, Sha},
        rollout::{Desired, DesiredApp, Phase, Progress, desired::same_content},
    },
    store::{EnvironmentRow, RolloutRow},
};

/// A rollback does not wait longer for the live system before it is written down.
const LOOK: Duration = Duration::from_secs(2);

/// Releases and rollbacks that were taken back, and not gone back to since then. `rows`: newest first.
pub(super) fn taken_back(rows: &[RolloutRow]) -> Result<BTreeSet<RolloutId>, EngineError> {
    let mut bad = BTreeSet::new();
    for row in rows.iter().rev() {
        if row.outcome.as_deref() == Some("rolled_back") {
            bad.insert(row.id);
        }
        if row.kind == "rollback" && row.outcome.as_deref() == Some("live") {
            let detail: RolloutDetail = parse(&row.detail)?;
            bad.extend(detail.from);
            if let Some(from) = rows.iter().find(|r| Some(r.id) == detail.from) {
                bad.extend(parse::<RolloutDetail>(&from.detail)?.origin);
            }
            // Somebody chose it, and it did well.
            if let Some(origin) = detail.origin {
                bad.remove(&origin);
            }
        }
    }
    Ok(bad)
}

/// Where the open rollout of an environment stands, if it is under way.
pub(super) fn under_way(open: Option<&RolloutRow>) -> Result<Option<(&RolloutRow, Phase)>, EngineError> {
    match open.filter(|r| r.state == "active") {
        Some(row) => Ok(Some((row, parse::<Progress>(&row.progress)?.phase))),
        None => Ok(None),
    }
}

/// A release under way that a rollback takes back: it is switched and not through.
pub(super) fn to_take_back(open: Option<&RolloutRow>) -> Result<Option<&RolloutRow>, EngineError> {
    let found = under_way(open)?.filter(|(row, phase)| row.kind == "release" && serves(*phase));
    Ok(found.filter(|(_, phase)| !matches!(phase, Phase::Done | Phase::Stuck)).map(|(row, _)| row))
}

/// A rollout in this phase is what users get.
fn serves(phase: Phase) -> bool {
    phase.past_switch() && !matches!(phase, Phase::RolledBack | Phase::Failed | Phase::Cancelled)
}

impl Engine {
    /// The rollout that serves an environment now: one that is switched and still watched, or else the live one.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(super) async fn serving(
        &self,
        environment: &EnvironmentRow,
        open: Option<&RolloutRow>,
    ) -> Result<Option<RolloutRow>, EngineError> {
        if let Some((row, phase)) = under_way(open)?
            && serves(phase)
        {
            return Ok(Some(row.clone()));
        }
        match environment.live_rollout {
            Some(live) => Ok(self.store.rollout(live).await?),
            None => Ok(None),
        }
    }

    /// What is live, and the last good release that was never rolled back (or the one that `to` names).
    ///
    /// # Errors
    /// [`EngineError::Refused`] when there is none.
    pub(super) async fn way_back(
        &self,
        environment: &EnvironmentRow,
        open: Option<&RolloutRow>,
        to: Option<&str>,
    ) -> Result<(RolloutRow, RolloutRow), EngineError> {
        let name = &environment.name;
        if let Some(to) = to
            && (to.len() < 7 || !to.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            return Err(EngineError::Refused(format!(
                "{to:?} names no commit: `--to` takes at least the first seven digits of one, such as 4327c11"
            )));
        }
        let rows = self.store.rollouts_of(environment.repo, name, 200).await?;
        // One that is through, but for its end in the store, is what is live.
        let through = under_way(open)?.filter(|(row, phase)| row.kind == "release" && *phase == Phase::Done);
        let live_id = through.map(|(row, _)| row.id).or(environment.live_rollout);
        let Some(live) = rows.iter().find(|r| Some(r.id) == live_id) else {
            return Err(EngineError::Refused(format!("nothing is live in {name} yet")));
        };
        let bad = taken_back(&rows)?;
        let serving: Desired = parse(&live.desired)?;
        let mut otherwise = None;
        for row in rows.iter().filter(|r| r.kind == "release" && r.id < live.id) {
            let good = matches!(row.outcome.as_deref(), Some("live" | "unchanged"));
            if !good && row.outcome.as_deref() != Some("unhealthy") {
                continue;
            }
            let desired: Desired = parse(&row.desired)?;
            let same = desired.apps.len() == serving.apps.len()
                && desired.apps.iter().all(|a| serving.app(&a.name).is_some_and(|s| same_content(&s.slot, &a.slot)));
            if same {
                continue;
            }
            let wanted = match to {
                Some(to) => row.sha.as_str().starts_with(&to.to_ascii_lowercase()),
                None => !bad.contains(&row.id),
            };
            if good && wanted {
                return Ok((live.clone(), row.clone()));
            }
            // What served before a release is better than no way back at all; what a rollback left is not.
            if otherwise.is_none() && to.is_none() && live.kind == "release" {
                otherwise = Some(row);
            }
        }
        if let Some(row) = otherwise {
            return Ok((live.clone(), row.clone()));
        }
        Err(EngineError::Refused(match to {
            Some(to) => format!("no good release of {to} to {name} is known, other than the one that is live"),
            None => format!("there is no good release of {name} before {} to go back to", live.sha.short()),
        }))
    }

    /// The commit that a rollback would bring back now, as `status` tells it.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(super) async fn back_to(
        &self,
        environment: &EnvironmentRow,
        open: Option<&RolloutRow>,
    ) -> Result<Option<Sha>, EngineError> {
        if to_take_back(open)?.is_some() {
            let live = match environment.live_rollout {
                Some(live) => self.store.rollout(live).await?,
                None => None,
            };
            return Ok(live.map(|l| l.sha));
        }
        match self.way_back(environment, open, None).await {
            Ok((_, target)) => Ok(Some(target.sha)),
            Err(EngineError::Refused(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Gives the apps of a release the slots that still run them. An app that is the same in several releases keeps the slot
    /// of the first of them, and that is the warm one.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(super) async fn find_warm(&self, desired: &mut Desired) -> Result<(), EngineError> {
        let Ok(target) = self.target(&desired.key).await else { return Ok(()) };
        let Ok(Ok(live)) = tokio::time::timeout(LOOK, target.live(&desired.key)).await else { return Ok(()) };
        let cold = |app: &DesiredApp| live.apps.get(&app.name).is_some_and(|a| !a.slots.contains_key(&app.slot));
        if !desired.apps.iter().any(cold) {
            return Ok(());
        }
        let mut made = Vec::new();
        for row in self.store.rollouts_of(desired.key.repo, desired.key.environment.as_str(), 200).await? {
            let other: Desired = parse(&row.desired)?;
            // It is part of how a slot is made, and not of its name.
            if other.drain_timeout == desired.drain_timeout {
                made.push(other);
            }
        }
        for app in desired.apps.iter_mut().filter(|a| cold(a)) {
            let slots = live.apps.get(&app.name).into_iter().flat_map(|a| a.slots.keys());
            let warm = slots.filter(|s| same_content(s, &app.slot)).find_map(|slot| {
                let of = |d: &Desired| d.app(&app.name).filter(|a| a.slot == *slot && a.kind == app.kind).cloned();
                let found = made.iter().find_map(|d| Some((of(d)?, d.commit.clone())));
                found.map(|(a, commit)| (a.commit.clone().unwrap_or(commit), a))
            });
            if let Some((commit, warm)) = warm {
                *app = DesiredApp { commit: Some(commit), ..warm };
            }
        }
        Ok(())
    }
}

//! Which slots may be retired.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{desired::Desired, observed::Live, progress::Progress};
use crate::domain::ids::{AppName, Slot};

/// A slot that stays warm as the way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Whose.
    pub app: AppName,
    /// Which.
    pub slot: Slot,
    /// Until then.
    pub until: Timestamp,
}

/// The slots of an environment that nobody needs: not live, not kept any longer, not part of a rollout under way.
///
/// `keep` is what the last ended rollout left ([`super::End::keep`]), `in_use` the new and previous slots of the one
/// under way. What is live is read from the live system, so slots that the store forgot are found too.
#[must_use]
pub fn retire_due(
    live: &Live,
    keep: &[Kept],
    in_use: &BTreeMap<AppName, Vec<Slot>>,
    now: Timestamp,
) -> Vec<(AppName, Slot)> {
    let mut due = Vec::new();
    for (app, state) in &live.apps {
        for slot in state.slots.keys() {
            let kept = keep.iter().any(|k| &k.app == app && &k.slot == slot && k.until > now);
            let used = in_use.get(app).is_some_and(|slots| slots.contains(slot));
            // Without an active slot the live system is not what anybody left there: nothing is taken from it.
            let idle = state.active.as_ref().is_some_and(|active| active != slot);
            if idle && !kept && !used {
                due.push((app.clone(), slot.clone()));
            }
        }
    }
    due
}

/// The slots that a rollout under way needs: its new ones, and those that it may have to go back to.
#[must_use]
pub fn in_use(desired: &Desired, progress: &Progress) -> Vec<(AppName, Slot)> {
    let of = |app: &super::DesiredApp| {
        let back = progress.apps.get(&app.name).and_then(|a| a.base.as_ref()?.active.clone());
        [Some(app.slot.clone()), back].into_iter().flatten().map(|slot| (app.name.clone(), slot)).collect::<Vec<_>>()
    };
    desired.apps.iter().flat_map(of).collect()
}

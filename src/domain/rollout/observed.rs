//! What is live now, as read from the live system.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::figures::ProbeWindow;
use crate::domain::ids::{AppName, Epoch, Slot};

/// Whose the environment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// Claimed with our epoch.
    Ours,
    /// Not claimed yet, or with an older epoch.
    Lower,
    /// Claimed by a later worker: we are stale.
    Higher,
}

/// The live system, as read now.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// Why it can't be read, if so. Then all else says nothing, and nothing is concluded from it.
    pub unreachable: Option<String>,
    /// Whose it is.
    pub fence: Fence,
    /// The target was away, and who leads its requests may have followed late until then: what waits for them counts
    /// from that moment. None: it was not.
    pub follows_since: Option<Timestamp>,
    /// The apps of the rollout that exist there.
    pub apps: BTreeMap<AppName, ObservedApp>,
    /// The last probes, by app; filled in by the driver.
    pub probes: BTreeMap<AppName, ProbeWindow>,
}

impl Observed {
    /// Nothing could be read.
    #[must_use]
    pub fn unreachable(why: impl Into<String>) -> Self {
        Self { unreachable: Some(why.into()), ..Self::of(Fence::Lower, BTreeMap::new()) }
    }

    /// What was read of a target that was never away; the probes are the driver's.
    #[must_use]
    pub fn of(fence: Fence, apps: BTreeMap<AppName, ObservedApp>) -> Self {
        Self { unreachable: None, fence, follows_since: None, apps, probes: BTreeMap::new() }
    }
}

/// One app, as it is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ObservedApp {
    /// The slot that serves (workers: that runs).
    pub active: Option<Slot>,
    /// What stands there that is no slot of ours (a selector that matches nothing, …), in words with the mend.
    pub drift: Option<String>,
    /// Whether everybody sees `active` (endpoints and load balancers have caught up).
    pub settled: bool,
    /// Something is in place that is only for the minutes around a switch.
    pub handover: bool,
    /// The pointer went back and what goes along with it has not followed yet.
    pub behind: bool,
    /// All slots.
    pub slots: BTreeMap<Slot, ObservedSlot>,
}

/// One slot, as it is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ObservedSlot {
    /// Whether it shall run.
    pub running: bool,
    /// Copies that it shall have.
    pub wanted: u32,
    /// It was made smaller than it must be by now: a new one is put once more, one that was left grows.
    pub short: bool,
    /// Copies that are ready.
    pub ready: u32,
    /// Since when all are ready without a break.
    pub ready_since: Option<Timestamp>,
    /// Since when not all are ready.
    pub unready_since: Option<Timestamp>,
    /// Restarts of all copies since the slot was made.
    pub restarts: u32,
    /// What it answered.
    pub requests: Requests,
    /// Copies of a slot that no longer serves which may hold connections from before the switch, where a switch moves new
    /// ones only.
    pub pinned: u32,
    /// Why not all copies are ready, in words.
    pub why: Option<String>,
}

impl ObservedSlot {
    /// Every copy is ready.
    #[must_use]
    pub fn full(&self) -> bool {
        self.running && self.wanted > 0 && self.ready >= self.wanted
    }

    /// At least one copy is ready.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.running && self.ready > 0
    }
}

/// Requests of a slot since it was made. May start at zero again when the data plane restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Requests {
    /// Forwarded.
    pub total: u64,
    /// Answered with 5xx.
    pub server_errors: u64,
    /// Not answered: refused or broken by the app.
    pub cut: u64,
    /// Being answered now.
    pub in_flight: u64,
}

/// What stands in an environment: for `status`, for claims, for retiring.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Live {
    /// By app.
    pub apps: BTreeMap<AppName, LiveApp>,
}

/// What stands for one app.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LiveApp {
    /// The slot that serves (workers: that runs).
    pub active: Option<Slot>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// The highest epoch that claimed it. After the loss of the database, new epochs must start above.
    pub epoch: Option<Epoch>,
    /// All slots, with what is to be said of each: `2 of 2 ready`.
    pub slots: BTreeMap<Slot, String>,
    /// Where users reach it.
    pub address: Option<String>,
    /// Real requests of the active slot.
    pub requests: Requests,
}

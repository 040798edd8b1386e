//! What was done and seen of one app so far: its part of a [`Progress`](super::Progress).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{figures::Traffic, observed::Requests};
use crate::domain::ids::Slot;

/// What was done for one app.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct AppProgress {
    /// What stood there when the environment was claimed; None: not claimed yet.
    pub base: Option<Base>,
    /// The command before the slot.
    pub pre_deploy: Option<CommandReport>,
    /// The new slot was started by this rollout.
    pub put: bool,
    /// When the new slot was ready for good the first time.
    pub warm_at: Option<Timestamp>,
    /// The test of the new slot.
    pub smoke: Option<CommandReport>,
    /// When it was switched.
    pub switched_at: Option<Timestamp>,
    /// When it was switched back.
    pub back_at: Option<Timestamp>,
    /// Counters right before the flip.
    pub at_switch: Option<AtSwitch>,
    /// Real requests that the new slot got since the flip.
    pub traffic: Traffic,
    /// Requests still in flight on the old slot when the drain time was over (streams, websockets): they go on until
    /// that slot is retired.
    pub undrained: Option<u64>,
    /// Its probes failed before the flip too, so they prove nothing.
    #[serde(default)]
    pub blind: bool,
    /// A crash left `pre_deploy` under way: it may have run twice.
    #[serde(default)]
    pub pre_deploy_again: bool,
    /// When its new slot was asked for: from there it has its time to get ready.
    #[serde(default)]
    pub put_at: Option<Timestamp>,
    /// Something of its new slot may be there, if only what the slot needs before it.
    #[serde(default)]
    pub begun: bool,
}

/// What stood there before this rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The slot that served: the way back.
    pub active: Option<Slot>,
    /// The live slot runs the very same thing with the same configuration: nothing to do for this app.
    pub unchanged: bool,
    /// The new slot's name stood there already: it isn't removed when this rollout ends early.
    pub existed: bool,
}

/// Counters right before a flip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AtSwitch {
    /// Restarts of the new slot.
    pub new_restarts: u32,
    /// Requests of the new slot.
    pub new: Requests,
    /// Restarts of the old slot.
    pub old_restarts: u32,
    /// Requests of the old slot.
    pub old: Requests,
    /// Copies that the new slot had ready: one that is made larger later has not lost any.
    #[serde(default)]
    pub new_ready: u32,
}

/// A command's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandReport {
    /// Whether it ended with code 0 in time.
    pub ok: bool,
    /// How it ended: `exit code 1`, `killed at its time limit of 1m`.
    pub words: String,
    /// The last lines that it printed (at most 30).
    pub tail: Vec<String>,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
}

//! The pure blue/green state machine.
//!
//! [`next`] says what is to be done, from what is wanted ([`Desired`], frozen), what was done ([`Progress`],
//! stored) and what is ([`Observed`], read from the live system just now). It acts on nothing itself, so a restart
//! loses nothing: whoever drives it reads the live system and asks again.
//!
//! ```text
//! Approve? → Prepare → Warm → Verify → Wait? → Switch → Converge → Watch → Done
//!    │          │        │       │        │       ├─────────┴────────┴→ RollingBack → RolledBack
//!    └──────────┴────────┴───────┴────────┴───────┴→ Failed, Cancelled (nothing was switched)
//!                                            any → Stuck (the live system is not what was left there)
//! ```
//!
//! * [`desired`]: what shall be live, frozen when the rollout is made; the names of slots.
//! * [`observed`]: what is live now.
//! * [`app_progress`], [`progress`]: what was done and seen so far; the record that a reporter shows.
//! * [`figures`]: latencies, probes and real requests.
//! * [`manifests`]: an app's Kubernetes objects, frozen with its release.
//! * [`machine`]: the rules.
//! * [`keep`]: which slots may be retired.

pub mod app_progress;
pub mod desired;
pub mod figures;
pub mod keep;
pub mod machine;
pub mod manifests;
pub mod observed;
pub mod progress;

use serde::{Deserialize, Serialize};

pub use app_progress::{AppProgress, CommandReport};
pub use desired::{AppSpec, CommandSpec, Desired, DesiredApp, EnvironmentKey, Kind, PreDeploySpec, ProbeSpec};
pub use figures::{Histogram, ProbeFailure, ProbeFigures, ProbeWindow, Traffic};
pub use keep::{Kept, in_use, retire_due};
pub use machine::{Step, next};
pub use manifests::{AppManifests, ManifestPolicy, Shape};
pub use observed::{Fence, Live, LiveApp, Observed, ObservedApp, ObservedSlot, Requests};
pub use progress::{Asked, End, Ended, Message, PhaseTime, Progress, after};

use super::ids::{AppName, Slot};

/// Where a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waits for a person before anything is touched: its `pre_deploy` changes the live database.
    Approve,
    /// Looks whether it can be done, claims the environment, runs `pre_deploy`.
    Prepare,
    /// Starts the new slots and waits until every copy is ready for the minimum time.
    Warm,
    /// Smoke-tests the new slots, each alone.
    Verify,
    /// Ready; waits for a person.
    Wait,
    /// Points the apps at their new slots, one after the other.
    Switch,
    /// Waits until nobody new reaches the old slots and their last requests are answered.
    Converge,
    /// Live, and taken back by itself when it does badly.
    Watch,
    /// Live for good. The previous slots stay warm for a while.
    Done,
    /// Points the apps back, in reverse, and removes the new slots.
    RollingBack,
    /// The previous release serves again.
    RolledBack,
    /// Ended before the switch; the new slots are removed.
    Failed,
    /// Stopped by a person or a newer rollout before the switch; the new slots are removed.
    Cancelled,
    /// The live system is not what was left there: nothing more is touched, a person must look.
    Stuck,
}

impl Phase {
    const ALL: [Self; 14] = [
        Self::Approve,
        Self::Prepare,
        Self::Warm,
        Self::Verify,
        Self::Wait,
        Self::Switch,
        Self::Converge,
        Self::Watch,
        Self::Done,
        Self::RollingBack,
        Self::RolledBack,
        Self::Failed,
        Self::Cancelled,
        Self::Stuck,
    ];

    /// As it stands in the store and in failpoints.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Prepare => "prepare",
            Self::Warm => "warm",
            Self::Verify => "verify",
            Self::Wait => "wait",
            Self::Switch => "switch",
            Self::Converge => "converge",
            Self::Watch => "watch",
            Self::Done => "done",
            Self::RollingBack => "rolling_back",
            Self::RolledBack => "rolled_back",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Stuck => "stuck",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.as_str() == text)
    }

    /// Whether a cancellation comes too late: `cancel` and a newer rollout stop a rollout only before this.
    #[must_use]
    pub fn past_switch(self) -> bool {
        !matches!(self, Self::Approve | Self::Prepare | Self::Warm | Self::Verify | Self::Wait)
    }

    /// Whether only clearing up is left.
    #[must_use]
    pub fn is_last(self) -> bool {
        matches!(self, Self::Done | Self::RolledBack | Self::Failed | Self::Cancelled | Self::Stuck)
    }
}

/// One effect on the live system. Each is idempotent: done twice is done once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Action {
    /// Look whether the release can run here (files, rights, room); changes nothing.
    Preflight,
    /// Make the services where they are missing and claim them: older workers are refused from now on.
    Claim,
    /// Run the app's `pre_deploy` in the new release.
    PreDeploy {
        /// Whose.
        app: AppName,
    },
    /// Make the app's new slot and start it, unserved.
    PutSlot {
        /// Whose.
        app: AppName,
    },
    /// Run the smoke test against the app's new slot.
    Smoke {
        /// Whose.
        app: AppName,
    },
    /// Point the app from one slot to another. For a worker: stop the one, then start the other.
    Switch {
        /// Which app.
        app: AppName,
        /// What must be live now; anything else but `to` is refused.
        from: Option<Slot>,
        /// What shall be live.
        to: Slot,
    },
    /// End the connections that a switch left on the slot before: where no proxy of ours chooses the slot for each request,
    /// they stay where they are. One copy at a time; the slot stays warm.
    Recycle {
        /// Whose.
        app: AppName,
        /// Which.
        slot: Slot,
    },
    /// Make the slot before as large as the one that serves has become: the way back must bear the same load.
    Grow {
        /// Whose.
        app: AppName,
        /// Which.
        slot: Slot,
    },
    /// Bring what goes along with a slot (objects that all slots share, an autoscaler) after a pointer that went back: on
    /// that way nothing comes before the pointers of all apps.
    Follow {
        /// Whose.
        app: AppName,
    },
    /// Put back what was only for the minutes around a switch (an autoscaler that may not shrink).
    Finish {
        /// Whose.
        app: AppName,
    },
    /// Stop a slot that is not live, and forget it.
    RemoveSlot {
        /// Whose.
        app: AppName,
        /// Which.
        slot: Slot,
    },
}

impl Action {
    /// A word for logs, metrics and failpoints.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Claim => "claim",
            Self::PreDeploy { .. } => "pre_deploy",
            Self::PutSlot { .. } => "put_slot",
            Self::Smoke { .. } => "smoke",
            Self::Switch { .. } => "switch",
            Self::Recycle { .. } => "recycle",
            Self::Grow { .. } => "grow",
            Self::Follow { .. } => "follow",
            Self::Finish { .. } => "finish",
            Self::RemoveSlot { .. } => "remove_slot",
        }
    }
}

/// What an action brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Done, or found done.
    Done,
    /// The environment is ours; what stood there at that moment.
    Claimed(Live),
    /// A command ended.
    Ran(CommandReport),
    /// The pointer stands, since then.
    Switched {
        /// When it moved.
        at: jiff::Timestamp,
    },
}

//! The rules: what comes next.

mod back;
mod forward;
mod judge;
mod view;

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Action, Phase,
    desired::{Desired, DesiredApp, Kind},
    observed::{Fence, Observed},
    progress::{End, Ended, Progress, after},
};
use crate::domain::ids::Slot;
use view::View;

/// What comes next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Enter a phase: recorded, no effect on the world.
    Go {
        /// Which.
        phase: Phase,
        /// Why, where it isn't the straight way.
        reason: Option<String>,
        /// How the rollout will end, where that is decided now.
        outcome: Option<Ended>,
    },
    /// It does badly and there is no way back by itself: recorded once.
    Alarm(String),
    /// Do this.
    Act(Action),
    /// Nothing to do until something changes.
    Wait {
        /// Look again at the latest then.
        until: Option<Timestamp>,
        /// Look at the live system this often meanwhile, for what sends no events (health, counters). None: only when
        /// somebody asks for something.
        look: Option<Duration>,
        /// What is waited for.
        on: &'static str,
    },
    /// Over.
    Done(End),
}

/// How often slots may fall back before the switch until the release counts as failed.
pub const REWARM_LIMIT: u32 = 10;
/// A slot whose copies ended so often while warming does not come up.
pub const CRASH_LIMIT: u32 = 3;
/// Failures in a row after which an action before or at the switch is given up.
pub const GIVE_UP: u32 = 3;
/// Failures in a row after which the way back is given up: it is tried far longer than the way forward.
pub const GIVE_UP_BACK: u32 = 20;
/// A live slot may lack copies so long before it is taken back.
pub const UNREADY_FOR: Duration = Duration::from_secs(5);
/// Probes looked at, and how many of them must have failed: half a second of failures at the default interval. One
/// lost probe never takes a release back.
pub const PROBES: (u32, u32) = (25, 50);
/// Bad answers to real requests that must be there before their share is compared.
pub const BAD_REQUESTS: u64 = 20;
/// How far the new slot's share of bad answers must lie above the old one's.
pub const BAD_SHARE_ABOVE: f64 = 0.05;

const SOON: Duration = Duration::from_millis(100);
const OFTEN: Duration = Duration::from_millis(250);
const SELDOM: Duration = Duration::from_secs(2);

/// What comes next, from what is wanted, what was done and what is. See [`crate::domain::rollout`].
#[must_use]
pub fn next(desired: &Desired, progress: &Progress, observed: &Observed, now: Timestamp) -> Step {
    if let Some(end) = &progress.end {
        return Step::Done(end.clone());
    }
    let it = Rules { d: desired, p: progress, o: observed, now };
    match progress.phase {
        // These touch nothing, so the live system need not be there.
        Phase::Approve => it.approve(),
        Phase::Done | Phase::RolledBack | Phase::Stuck => Step::Done(it.end()),
        // It tells what keeps the target away.
        Phase::Prepare if !progress.preflight => it.preflight(),
        _ if observed.unreachable.is_some() => it.unreachable(),
        Phase::Failed | Phase::Cancelled => it.clear_up(),
        // A new worker claims first: the one before it, should it still be there, can do nothing from then on.
        _ if observed.fence != Fence::Ours || progress.apps.values().any(|a| a.base.is_none()) => {
            it.unless_failing().unwrap_or(Step::Act(Action::Claim))
        }
        phase => it.drift().or_else(|| it.unless_failing()).unwrap_or_else(|| match phase {
            Phase::Prepare => it.prepare(),
            Phase::Warm => it.warm(),
            Phase::Verify => it.verify(),
            Phase::Wait => it.wait_for_approval(),
            Phase::Switch => it.switch(),
            Phase::Converge => it.converge(),
            Phase::Watch => it.watch(),
            _ => it.roll_back(),
        }),
    }
}

fn wait(until: Option<Timestamp>, look: Option<Duration>, on: &'static str) -> Step {
    Step::Wait { until, look, on }
}

fn go(phase: Phase) -> Step {
    Step::Go { phase, reason: None, outcome: None }
}

fn turn(phase: Phase, outcome: Ended, reason: impl Into<String>) -> Step {
    Step::Go { phase, reason: Some(reason.into()), outcome: Some(outcome) }
}

struct Rules<'a> {
    d: &'a Desired,
    p: &'a Progress,
    o: &'a Observed,
    now: Timestamp,
}

impl<'a> Rules<'a> {
    fn view(&self, want: &'a DesiredApp) -> Option<View<'a>> {
        Some(View { want, did: self.p.apps.get(&want.name)?, seen: self.o.apps.get(&want.name) })
    }

    fn all(&self) -> impl DoubleEndedIterator<Item = View<'a>> {
        self.d.in_order().filter_map(|a| self.view(a)).collect::<Vec<_>>().into_iter()
    }

    /// Apps that this rollout changes.
    fn changed(&self) -> impl DoubleEndedIterator<Item = View<'a>> {
        self.all().filter(|v| !v.unchanged())
    }

    /// The same in the order of the way back.
    fn changed_backwards(&self) -> impl Iterator<Item = View<'a>> {
        self.d.backwards().into_iter().filter_map(|a| self.view(a)).filter(|v| !v.unchanged())
    }

    fn webs(&self) -> impl DoubleEndedIterator<Item = View<'a>> {
        self.changed().filter(View::web)
    }

    /// Nothing can be done but to end what touched nothing that serves.
    fn unreachable(&self) -> Step {
        let begun = self.p.apps.values().any(|a| a.switched_at.is_some() || a.at_switch.is_some());
        let early = matches!(self.p.phase, Phase::Prepare | Phase::Warm | Phase::Verify | Phase::Wait | Phase::Switch);
        let stop = if early && !begun { self.stopped() } else { None };
        stop.unwrap_or_else(|| wait(None, Some(Duration::from_secs(1)), "the target to be reachable"))
    }

    /// The last action failed so often that what would only be tidy is left as it is.
    fn given_up(&self) -> bool {
        self.p.failure.as_ref().is_some_and(|f| f.times >= GIVE_UP)
    }

    /// When the last request that must not be cut is over on the slot that was left at `moved`: counted from there, from the
    /// phase's begin, or from when everybody follows again after the target was away.
    fn drained_by(&self, moved: Option<Timestamp>) -> Timestamp {
        let begun = moved.max(self.o.follows_since).unwrap_or(self.p.since).max(self.p.since);
        after(begun, self.d.drain_timeout)
    }

    /// Somebody wants it stopped, and it can be.
    fn stopped(&self) -> Option<Step> {
        let asked = &self.p.asked;
        if asked.cancel || (asked.rollback && self.d.kind == Kind::Release) {
            return Some(turn(Phase::Cancelled, Ended::Cancelled, "Cancelled before the switch."));
        }
        match asked.superseded_by {
            Some(newer) if self.d.kind == Kind::Release => Some(turn(
                Phase::Cancelled,
                Ended::Superseded,
                format!("A newer rollout ({newer}) took its place before the switch."),
            )),
            _ => None,
        }
    }

    /// What to do while an action fails: wait a little, or give it up.
    fn unless_failing(&self) -> Option<Step> {
        let failure = self.p.failure.as_ref()?;
        let words = failure.words.clone();
        // A worker is not pointed at anything until the one before it was stopped: half a switch.
        let flipped = self.changed().any(|v| v.flipped() || (!v.web() && v.did.at_switch.is_some()));
        let release = self.d.kind == Kind::Release;
        // Before the switch nothing is lost by ending early; on the way back, and where it is live, much is.
        let limit = match self.p.phase {
            _ if !self.p.preflight => 1,
            Phase::Switch if !release => GIVE_UP_BACK,
            Phase::Prepare | Phase::Warm | Phase::Verify | Phase::Wait | Phase::Switch => GIVE_UP,
            _ => GIVE_UP_BACK,
        };
        if failure.times >= limit {
            return Some(match self.p.phase {
                Phase::Switch if flipped && release => turn(Phase::RollingBack, Ended::RolledBack, words),
                _ if flipped || self.p.phase == Phase::RollingBack => turn(Phase::Stuck, Ended::Stuck, words),
                _ => turn(Phase::Failed, Ended::Failed, words),
            });
        }
        let pause = Duration::from_millis(250).saturating_mul(1 << failure.times.min(5));
        let until = after(failure.at, pause);
        (self.now < until).then(|| wait(Some(until), None, "a failed action to be tried again"))
    }

    /// The live system must be what was left there.
    fn drift(&self) -> Option<Step> {
        let found = self.all().find_map(|v| {
            let name = &v.want.name;
            let Some(seen) = v.seen else { return Some(format!("{name} is no longer there.")) };
            if let Some(drift) = &seen.drift {
                return Some(format!("{name}: {drift}"));
            }
            let previous = v.previous();
            let known = seen.active.as_ref() == previous || v.points_at_new();
            let say = |slot: Option<&Slot>| slot.map_or_else(|| "no slot".to_owned(), |s| format!("slot {s}"));
            if !known {
                return Some(format!(
                    "{name} is served by {}, which this rollout knows nothing of (it found {} and prepared {}). \
                     Somebody else changed it; look with `switchover status` and deploy again.",
                    say(seen.active.as_ref()),
                    say(previous),
                    v.want.slot,
                ));
            }
            if let Some(active) = &seen.active
                && !seen.slots.contains_key(active)
            {
                return Some(format!("{name} is pointed at slot {active}, which does not exist."));
            }
            let rolling_back = self.p.phase == Phase::RollingBack;
            if v.did.switched_at.is_some() && !rolling_back && !v.points_at_new() && !v.unchanged() {
                return Some(format!(
                    "{name} was switched to {} and is now served by {}: somebody else moved it.",
                    v.want.slot,
                    say(seen.active.as_ref()),
                ));
            }
            None
        })?;
        Some(turn(Phase::Stuck, Ended::Stuck, found))
    }
}

//! The way back, clearing up, and the end.

use std::time::Duration;

use super::{GIVE_UP, OFTEN, Rules, SOON, Step, View, go, turn, wait};
use crate::domain::{
    ids::Slot,
    rollout::{
        Action, Phase,
        desired::Kind,
        keep::Kept,
        observed::{Fence, ObservedSlot},
        progress::{End, Ended, after},
    },
};

impl<'a> Rules<'a> {
    pub(super) fn roll_back(&self) -> Step {
        for v in self.changed_backwards() {
            let Some(previous) = v.previous() else { continue };
            if v.did.back_at.is_some() || !(v.flipped() || v.did.at_switch.is_some()) {
                continue;
            }
            if !v.web() || v.active() == Some(previous) || v.old_slot().is_some_and(ObservedSlot::serves) {
                return Step::Act(Action::Switch {
                    app: v.want.name.clone(),
                    from: Some(v.want.slot.clone()),
                    to: previous.clone(),
                });
            }
            let end = after(self.p.since, self.d.start_timeout);
            if self.now < end {
                return wait(Some(end), Some(SOON), "the previous slot to answer");
            }
            let why = v.old_slot().map_or("it is gone", |s| s.why.as_deref().unwrap_or("no copy is ready"));
            let words = format!("{}: the previous slot {previous} does not answer ({why}).", v.want.name);
            return turn(Phase::Stuck, Ended::Stuck, words);
        }
        if let Some(step) = self.follow() {
            return step;
        }
        let drained_by = self.drained_by(self.p.back_at());
        let busy =
            self.webs().any(|v| v.previous().is_some() && v.new_slot().is_some_and(|s| s.requests.in_flight > 0));
        if busy && self.now < drained_by {
            return wait(Some(drained_by), Some(OFTEN), "the last requests of the bad slot");
        }
        // Somebody may still be led to the bad slot: ending it now would lose what comes late.
        let unsettled = self.webs().any(|v| v.previous().is_some() && !v.seen.is_some_and(|s| s.settled));
        let settled_by = after(drained_by, self.d.start_timeout);
        if unsettled && self.now < settled_by {
            return wait(Some(settled_by), Some(OFTEN), "everybody to see the previous slot");
        }
        self.finish().or_else(|| self.remove_new()).unwrap_or_else(|| go(Phase::RolledBack))
    }

    /// The next slot of ours that is to be removed. Never one that serves, or that stood there before us.
    pub(super) fn remove_new(&self) -> Option<Step> {
        self.changed().find_map(|v| {
            let existed = v.did.base.as_ref().is_none_or(|b| b.existed);
            // What the slot and its command need is made before it.
            let there = v.did.begun || v.slot(&v.want.slot).is_some();
            (there && !existed && !v.points_at_new())
                .then(|| Step::Act(Action::RemoveSlot { app: v.want.name.clone(), slot: v.want.slot.clone() }))
        })
    }

    pub(super) fn clear_up(&self) -> Step {
        if let Some(failure) = &self.p.failure {
            if failure.times >= GIVE_UP {
                return Step::Done(self.end());
            }
            let until = after(failure.at, Duration::from_secs(1));
            if self.now < until {
                return wait(Some(until), None, "a failed action to be tried again");
            }
        }
        match self.remove_new() {
            // Only what is ours may be touched, also when clearing up.
            Some(_) if self.o.fence != Fence::Ours => Step::Act(Action::Claim),
            Some(step) => step,
            None => Step::Done(self.end()),
        }
    }

    pub(super) fn end(&self) -> End {
        let outcome = self.p.outcome.unwrap_or(match self.p.phase {
            Phase::Failed => Ended::Failed,
            Phase::Cancelled => Ended::Cancelled,
            Phase::RolledBack => Ended::RolledBack,
            Phase::Stuck => Ended::Stuck,
            _ => Ended::Live,
        });
        let rollback = self.d.kind == Kind::Rollback;
        let hold = match outcome {
            Ended::Live | Ended::Unchanged => rollback,
            Ended::Unhealthy => self.irreversible() || self.p.asked.rollback,
            Ended::RolledBack => self.p.asked.rollback,
            Ended::Stuck => true,
            Ended::Failed | Ended::Cancelled | Ended::Superseded => rollback && outcome == Ended::Failed,
        };
        let kept: fn(&View<'a>) -> Vec<&'a Slot> = match outcome {
            Ended::Live | Ended::Unhealthy if !rollback => |v| v.previous().into_iter().collect(),
            // Whoever looks into it needs both.
            Ended::Stuck => |v| v.previous().into_iter().chain([&v.want.slot]).collect(),
            _ => |_| Vec::new(),
        };
        let keep = matches!(outcome, Ended::Live | Ended::Unhealthy | Ended::Stuck).then(|| {
            let until = after(self.p.since, self.d.keep_previous);
            let all = self.changed().flat_map(|v| kept(&v).into_iter().map(move |slot| (v.want.name.clone(), slot)));
            all.map(|(app, slot)| Kept { app, slot: slot.clone(), until }).collect()
        });
        let words = self.p.reason.clone().unwrap_or_else(|| match outcome {
            Ended::Live if rollback => "The previous version serves again.".to_owned(),
            Ended::Live => "Live.".to_owned(),
            other => other.as_str().replace('_', " "),
        });
        End { outcome, hold, words, keep }
    }
}

//! The straight way, phase by phase.

use jiff::Timestamp;

use super::{CRASH_LIMIT, GIVE_UP, OFTEN, REWARM_LIMIT, Rules, SELDOM, SOON, Step, View, go, turn, wait};
use crate::domain::rollout::{
    Action, Phase,
    desired::Kind,
    observed::ObservedSlot,
    progress::{Ended, after},
};

impl Rules<'_> {
    pub(super) fn approve(&self) -> Step {
        self.stopped().unwrap_or_else(|| {
            if self.p.asked.promote { go(Phase::Prepare) } else { wait(None, None, "a person's approval") }
        })
    }

    pub(super) fn preflight(&self) -> Step {
        let refused = || Some(turn(Phase::Failed, Ended::Failed, self.d.refused.clone()?));
        self.stopped().or_else(refused).or_else(|| self.unless_failing()).unwrap_or(Step::Act(Action::Preflight))
    }

    pub(super) fn prepare(&self) -> Step {
        if let Some(stop) = self.stopped() {
            return stop;
        }
        let fresh = self.all().all(|v| v.unchanged() && (!v.web() || v.full()));
        if fresh {
            let words = "The same thing with the same configuration is live already: nothing to do.";
            return turn(Phase::Done, Ended::Unchanged, words);
        }
        if self.d.kind == Kind::Rollback {
            let gone: Vec<_> =
                self.webs().filter(|v| !v.new_slot().is_some_and(ObservedSlot::serves)).map(|v| v.why()).collect();
            if gone.is_empty() {
                return go(Phase::Switch);
            }
            let reason = format!("No longer warm, so it is started again first. {}", gone.join("; "));
            return Step::Go { phase: Phase::Warm, reason: Some(reason), outcome: None };
        }
        for v in self.changed().filter(|v| v.want.spec.pre_deploy.is_some()) {
            match &v.did.pre_deploy {
                None => return Step::Act(Action::PreDeploy { app: v.want.name.clone() }),
                Some(report) if !report.ok => {
                    let words = format!("{}: pre_deploy failed: {}", v.want.name, report.words);
                    return turn(Phase::Failed, Ended::Failed, words);
                }
                Some(_) => {}
            }
        }
        go(Phase::Warm)
    }

    pub(super) fn warm(&self) -> Step {
        if let Some(stop) = self.stopped() {
            return stop;
        }
        for v in self.webs() {
            if !v.did.put || v.new_slot().is_some_and(|s| s.short) {
                return Step::Act(Action::PutSlot { app: v.want.name.clone() });
            }
        }
        let mut ready_at = Some(self.p.since);
        for v in self.all().filter(View::web) {
            let slot = v.new_slot();
            if let Some(since) = slot.filter(|s| s.full()).and_then(|s| s.ready_since) {
                ready_at = ready_at.map(|at| at.max(after(since, self.d.min_ready)));
                continue;
            }
            ready_at = None;
            let crashes = !v.did.base.as_ref().is_some_and(|b| b.existed)
                && slot.is_some_and(|s| s.restarts >= CRASH_LIMIT.saturating_mul(s.wanted.max(1)));
            if crashes && !v.unchanged() {
                return turn(Phase::Failed, Ended::Failed, format!("It does not stay up. {}", v.why()));
            }
        }
        // Making them took its own time.
        let asked = self.webs().filter_map(|v| v.did.put_at).fold(self.p.since, Timestamp::max);
        let end = after(asked, self.d.start_timeout);
        match ready_at {
            Some(at) if self.now >= at => match self.d.kind {
                Kind::Release => go(Phase::Verify),
                Kind::Rollback => go(Phase::Switch),
            },
            _ if self.now >= end => {
                let late: Vec<_> = self.all().filter(|v| v.web() && !v.full()).map(|v| v.why()).collect();
                let late = if late.is_empty() { "not ready for long enough".to_owned() } else { late.join("; ") };
                let limit = self.d.start_timeout.as_secs();
                turn(Phase::Failed, Ended::Failed, format!("Not ready within {limit} s. {late}"))
            }
            at => wait(Some(at.map_or(end, |at| at.min(end))), Some(SOON), "the new slots to be ready"),
        }
    }

    /// Back to [`Phase::Warm`] if a slot that shall be switched to is no longer ready.
    pub(super) fn fallen_back(&self) -> Option<Step> {
        let down: Vec<_> = self.webs().filter(|v| !v.flipped() && !v.full()).map(|v| v.why()).collect();
        if down.is_empty() {
            return None;
        }
        let words = format!("No longer ready. {}", down.join("; "));
        Some(if self.p.rewarmed >= REWARM_LIMIT {
            turn(Phase::Failed, Ended::Failed, words)
        } else {
            Step::Go { phase: Phase::Warm, reason: Some(words), outcome: None }
        })
    }

    pub(super) fn verify(&self) -> Step {
        if let Some(step) = self.stopped().or_else(|| self.fallen_back()) {
            return step;
        }
        for v in self.webs().filter(|v| v.want.spec.smoke.is_some()) {
            match &v.did.smoke {
                None => return Step::Act(Action::Smoke { app: v.want.name.clone() }),
                Some(report) if !report.ok => {
                    let words = format!("{}: the smoke test failed: {}", v.want.name, report.words);
                    return turn(Phase::Failed, Ended::Failed, words);
                }
                Some(_) => {}
            }
        }
        let wants_yes = self.d.kind == Kind::Release && self.d.approval && !self.p.asked.promote;
        go(if wants_yes { Phase::Wait } else { Phase::Switch })
    }

    pub(super) fn wait_for_approval(&self) -> Step {
        self.stopped().or_else(|| self.fallen_back()).unwrap_or_else(|| {
            if self.p.asked.promote { go(Phase::Switch) } else { wait(None, Some(SELDOM), "a person's approval") }
        })
    }

    pub(super) fn switch(&self) -> Step {
        let begun = self.changed().any(|v| v.flipped() || v.did.at_switch.is_some());
        if !begun {
            // What is still untouched can be stopped: a wish that came while this phase was being recorded.
            if let Some(step) = self.stopped() {
                return step;
            }
            let ready = match self.d.kind {
                Kind::Release => None,
                Kind::Rollback if self.webs().all(|v| v.new_slot().is_some_and(ObservedSlot::serves)) => Some(()),
                Kind::Rollback => None,
            };
            if ready.is_none()
                && let Some(step) = self.fallen_back()
            {
                return step;
            }
        } else if let Some(step) = self.back_by_wish().or_else(|| self.take_back()) {
            return step;
        }
        for v in self.changed() {
            if v.did.switched_at.is_some() {
                continue;
            }
            let ready = match self.d.kind {
                _ if !v.web() || v.points_at_new() => true,
                Kind::Release => v.full(),
                Kind::Rollback => v.new_slot().is_some_and(ObservedSlot::serves),
            };
            if ready {
                return Step::Act(Action::Switch {
                    app: v.want.name.clone(),
                    from: v.previous().cloned(),
                    to: v.want.slot.clone(),
                });
            }
            let end = after(self.p.since, self.d.start_timeout);
            if self.now < end {
                return wait(Some(end), Some(SOON), "a slot that fell back during the switch");
            }
            let words = format!("It fell back during the switch. {}", v.why());
            return match self.d.kind {
                _ if !self.changed().any(|v| v.flipped()) => turn(Phase::Failed, Ended::Failed, words),
                Kind::Release => turn(Phase::RollingBack, Ended::RolledBack, words),
                // Back is where it was going: half of the way is worse than a person's look.
                Kind::Rollback => turn(Phase::Stuck, Ended::Stuck, words),
            };
        }
        go(Phase::Converge)
    }

    pub(super) fn converge(&self) -> Step {
        if let Some(step) = self.back_by_wish().or_else(|| self.take_back()) {
            return step;
        }
        if let Some(step) = self.follow() {
            return step;
        }
        let last = self.p.apps.values().filter_map(|a| a.switched_at).max();
        let drained_by = self.drained_by(last);
        let settled_by = after(drained_by, self.d.start_timeout);
        let slow: Vec<_> =
            self.changed().filter(|v| !v.seen.is_some_and(|s| s.settled) || (!v.web() && !v.full())).collect();
        if !slow.is_empty() && self.now < settled_by {
            return wait(Some(settled_by), Some(OFTEN), "everybody to see the new slot");
        }
        if let Some(v) = slow.iter().find(|v| !v.web())
            && self.d.kind == Kind::Release
            && self.p.alarm.is_none()
        {
            let words = format!("The worker does not stay up. {}", v.why());
            return if self.may_go_back() {
                turn(Phase::RollingBack, Ended::RolledBack, words)
            } else {
                Step::Alarm(words)
            };
        }
        let busy = self.webs().any(|v| v.old_slot().is_some_and(|s| s.requests.in_flight > 0));
        if busy && self.now < drained_by {
            return wait(Some(drained_by), Some(OFTEN), "the last requests of the old slot");
        }
        if self.d.kind == Kind::Release {
            return self.recycle(drained_by).unwrap_or_else(|| go(Phase::Watch));
        }
        if let Some(step) = self.finish() {
            return step;
        }
        // The version that was left in haste goes at once; its release can still be released again.
        for v in self.changed().filter(|_| !self.given_up()) {
            if let Some(bad) = v.previous()
                && v.old_slot().is_some()
                && v.points_at_new()
            {
                return Step::Act(Action::RemoveSlot { app: v.want.name.clone(), slot: bad.clone() });
            }
        }
        Step::Go { phase: Phase::Done, reason: None, outcome: Some(Ended::Live) }
    }

    /// Connections that the switch left on the old slots are ended once the longest request that must not be cut is over.
    fn recycle(&self, drained_by: Timestamp) -> Option<Step> {
        let v = self.webs().find(|v| !self.given_up() && v.old_slot().is_some_and(|s| s.pinned > 0))?;
        let old = v.old_slot()?;
        if self.now < drained_by {
            return Some(wait(Some(drained_by), Some(OFTEN), "requests on connections from before the switch"));
        }
        if old.full() {
            let slot = v.previous()?.clone();
            return Some(Step::Act(Action::Recycle { app: v.want.name.clone(), slot }));
        }
        // A copy that does not come back must not hold up the watch for ever.
        let end = after(drained_by, self.d.start_timeout.saturating_mul(old.wanted.max(1)));
        (self.now < end).then(|| wait(Some(end), Some(OFTEN), "the old slot's copies to be ready again"))
    }

    /// Brings what goes along with pointers that went back. Where that can't be done it is told, and goes no further: what
    /// serves is right.
    pub(super) fn follow(&self) -> Option<Step> {
        let v = self.changed().find(|v| v.seen.is_some_and(|s| s.behind))?;
        match self.p.failure.as_ref().filter(|f| f.times >= GIVE_UP) {
            None => Some(Step::Act(Action::Follow { app: v.want.name.clone() })),
            Some(failure) => self.p.alarm.is_none().then(|| {
                let words = &failure.words;
                Step::Alarm(format!(
                    "{}: the previous slot serves; what goes along with it did not follow: {words}",
                    v.want.name
                ))
            }),
        }
    }

    /// Puts back what was only for the switch.
    pub(super) fn finish(&self) -> Option<Step> {
        let app = self.changed().find(|v| v.seen.is_some_and(|s| s.handover) && !self.given_up())?;
        Some(Step::Act(Action::Finish { app: app.want.name.clone() }))
    }

    pub(super) fn watch(&self) -> Step {
        if let Some(step) = self.back_by_wish().or_else(|| self.take_back()) {
            return step;
        }
        let end = after(self.p.since, self.d.watch_for);
        if self.now < end {
            let small =
                self.webs().find(|v| !self.given_up() && v.points_at_new() && v.old_slot().is_some_and(|s| s.short));
            if let Some((app, slot)) = small.and_then(|v| Some((v.want.name.clone(), v.previous()?.clone()))) {
                return Step::Act(Action::Grow { app, slot });
            }
            return wait(Some(end), Some(OFTEN), "the end of the watch");
        }
        if let Some(step) = self.finish() {
            return step;
        }
        match self.verdict() {
            Some(bad) => turn(Phase::Done, Ended::Unhealthy, bad),
            None => Step::Go { phase: Phase::Done, reason: None, outcome: Some(Ended::Live) },
        }
    }
}

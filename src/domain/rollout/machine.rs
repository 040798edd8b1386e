//! The rules: what comes next.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Action, Phase,
    desired::{Desired, DesiredApp, Kind},
    figures::Traffic,
    keep::Kept,
    observed::{Fence, Observed, ObservedApp, ObservedSlot},
    progress::{AppProgress, End, Ended, Progress, after},
};
use crate::domain::{config::AppKind, ids::Slot};

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
        _ if observed.unreachable.is_some() => wait(None, Some(Duration::from_secs(1)), "the target to be reachable"),
        Phase::Prepare if !progress.preflight => it.preflight(),
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

/// One app with all that is known of it.
struct View<'a> {
    want: &'a DesiredApp,
    did: &'a AppProgress,
    seen: Option<&'a ObservedApp>,
}

impl<'a> View<'a> {
    fn web(&self) -> bool {
        self.want.kind == AppKind::Web
    }
    fn previous(&self) -> Option<&'a Slot> {
        self.did.base.as_ref().and_then(|b| b.active.as_ref())
    }
    fn unchanged(&self) -> bool {
        self.did.base.as_ref().is_some_and(|b| b.unchanged)
    }
    fn active(&self) -> Option<&'a Slot> {
        self.seen.and_then(|s| s.active.as_ref())
    }
    /// The slot that serves once the rollout is through.
    fn slot_name(&self) -> &'a Slot {
        if self.unchanged() { self.previous().unwrap_or(&self.want.slot) } else { &self.want.slot }
    }
    fn slot(&self, name: &Slot) -> Option<&'a ObservedSlot> {
        self.seen.and_then(|s| s.slots.get(name))
    }
    fn new_slot(&self) -> Option<&'a ObservedSlot> {
        self.slot(self.slot_name())
    }
    fn old_slot(&self) -> Option<&'a ObservedSlot> {
        self.previous().and_then(|name| self.slot(name))
    }
    fn points_at_new(&self) -> bool {
        self.active() == Some(&self.want.slot)
    }
    /// It was pointed at the new slot, whoever did it, and not back yet.
    fn flipped(&self) -> bool {
        !self.unchanged() && self.did.back_at.is_none() && (self.did.switched_at.is_some() || self.points_at_new())
    }
    fn full(&self) -> bool {
        self.new_slot().is_some_and(ObservedSlot::full)
    }
    fn why(&self) -> String {
        let name = &self.want.name;
        match self.new_slot() {
            None => format!("{name}: its slot is gone"),
            Some(s) => match &s.why {
                Some(why) => format!("{name}: {why}"),
                None => format!("{name}: {} of {} ready", s.ready, s.wanted),
            },
        }
    }
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

    fn over(&self, limit: Duration) -> bool {
        self.now >= after(self.p.since, limit)
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

    fn approve(&self) -> Step {
        self.stopped().unwrap_or_else(|| {
            if self.p.asked.promote { go(Phase::Prepare) } else { wait(None, None, "a person's approval") }
        })
    }

    fn preflight(&self) -> Step {
        self.stopped().or_else(|| self.unless_failing()).unwrap_or(Step::Act(Action::Preflight))
    }

    /// What to do while an action fails: wait a little, or give it up.
    fn unless_failing(&self) -> Option<Step> {
        let failure = self.p.failure.as_ref()?;
        let words = failure.words.clone();
        let flipped = self.changed().any(|v| v.flipped());
        let release = self.d.kind == Kind::Release;
        // Before the switch nothing is lost by ending early; on the way back, and where it is live, much is.
        let limit = match self.p.phase {
            phase if !phase.past_switch() => 1,
            Phase::Switch if release => GIVE_UP,
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

    fn prepare(&self) -> Step {
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

    fn warm(&self) -> Step {
        if let Some(stop) = self.stopped() {
            return stop;
        }
        for v in self.webs() {
            if !v.did.put {
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
        match ready_at {
            Some(at) if self.now >= at => match self.d.kind {
                Kind::Release => go(Phase::Verify),
                Kind::Rollback => go(Phase::Switch),
            },
            _ if self.over(self.d.start_timeout) => {
                let late: Vec<_> = self.all().filter(|v| v.web() && !v.full()).map(|v| v.why()).collect();
                let late = if late.is_empty() { "not ready for long enough".to_owned() } else { late.join("; ") };
                let limit = self.d.start_timeout.as_secs();
                turn(Phase::Failed, Ended::Failed, format!("Not ready within {limit} s. {late}"))
            }
            at => {
                let end = after(self.p.since, self.d.start_timeout);
                wait(Some(at.map_or(end, |at| at.min(end))), Some(SOON), "the new slots to be ready")
            }
        }
    }

    /// Back to [`Phase::Warm`] if a slot that shall be switched to is no longer ready.
    fn fallen_back(&self) -> Option<Step> {
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

    fn verify(&self) -> Step {
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

    fn wait_for_approval(&self) -> Step {
        self.stopped().or_else(|| self.fallen_back()).unwrap_or_else(|| {
            if self.p.asked.promote { go(Phase::Switch) } else { wait(None, Some(SELDOM), "a person's approval") }
        })
    }

    fn switch(&self) -> Step {
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

    fn converge(&self) -> Step {
        if let Some(step) = self.back_by_wish().or_else(|| self.take_back()) {
            return step;
        }
        let last = self.p.apps.values().filter_map(|a| a.switched_at).max().unwrap_or(self.p.since);
        let drained_by = after(last.max(self.p.since), self.d.drain_timeout);
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
            return go(Phase::Watch);
        }
        // The version that was left in haste goes at once; its release can still be released again.
        let given_up = self.p.failure.as_ref().is_some_and(|f| f.times >= GIVE_UP);
        for v in self.changed().filter(|_| !given_up) {
            if let Some(bad) = v.previous()
                && v.old_slot().is_some()
                && v.points_at_new()
            {
                return Step::Act(Action::RemoveSlot { app: v.want.name.clone(), slot: bad.clone() });
            }
        }
        Step::Go { phase: Phase::Done, reason: None, outcome: Some(Ended::Live) }
    }

    fn watch(&self) -> Step {
        if let Some(step) = self.back_by_wish().or_else(|| self.take_back()) {
            return step;
        }
        let end = after(self.p.since, self.d.watch_for);
        if self.now < end {
            return wait(Some(end), Some(OFTEN), "the end of the watch");
        }
        match self.verdict() {
            Some(bad) => turn(Phase::Done, Ended::Unhealthy, bad),
            None => Step::Go { phase: Phase::Done, reason: None, outcome: Some(Ended::Live) },
        }
    }

    /// A person wants the previous version.
    fn back_by_wish(&self) -> Option<Step> {
        if !self.p.asked.rollback || self.d.kind != Kind::Release {
            return None;
        }
        let back: Vec<_> = self.changed().filter(|v| v.flipped() && v.previous().is_some()).collect();
        let warm = back.iter().all(|v| !v.web() || v.old_slot().is_some_and(ObservedSlot::serves));
        (warm && !back.is_empty()).then(|| turn(Phase::RollingBack, Ended::RolledBack, "Rolled back on command."))
    }

    /// The new version does badly.
    fn take_back(&self) -> Option<Step> {
        if self.d.kind != Kind::Release {
            return None;
        }
        let bad = self.verdict()?;
        if self.irreversible() {
            let words = format!(
                "{bad} Its pre_deploy is not reversible, so it is not taken back by itself: \
                 roll back by command, or release a mend."
            );
            return Some(turn(Phase::Done, Ended::Unhealthy, words));
        }
        if self.may_go_back() {
            return Some(turn(Phase::RollingBack, Ended::RolledBack, bad));
        }
        let words = format!("{bad} There is no healthy previous slot to go back to.");
        self.p.alarm.is_none().then_some(Step::Alarm(words))
    }

    fn irreversible(&self) -> bool {
        self.changed()
            .any(|v| v.did.pre_deploy.is_some() && v.want.spec.pre_deploy.as_ref().is_some_and(|c| !c.reversible))
    }

    /// There is something to go back to, and it is well. Half a previous slot is better than nothing at all.
    fn may_go_back(&self) -> bool {
        let back: Vec<_> = self.changed().filter(|v| v.flipped() && v.previous().is_some()).collect();
        let well = |v: &View<'_>| {
            !v.web()
                || v.old_slot()
                    .is_some_and(|old| old.full() || (old.serves() && !v.new_slot().is_some_and(ObservedSlot::serves)))
        };
        !back.is_empty() && back.iter().all(well)
    }

    /// What is bad about the new slots that serve, if anything.
    fn verdict(&self) -> Option<String> {
        self.changed().filter(View::flipped).find_map(|v| {
            let name = &v.want.name;
            let base = v.did.at_switch.unwrap_or_default();
            let Some(new) = v.new_slot() else { return Some(format!("{name}: its new slot is gone.")) };
            let old = v.old_slot();
            if let Some(probes) = self.o.probes.get(name)
                && !probes.blind
                && !v.did.blind
                && probes.failed >= PROBES.0
            {
                let last = probes.last.as_deref().unwrap_or("no answer");
                return Some(format!("{name}: {} of the last {} probes failed ({last}).", probes.failed, probes.sent));
            }
            let grown = new.restarts.saturating_sub(base.new_restarts);
            let grown_old = old.map_or(0, |o| o.restarts.saturating_sub(base.old_restarts));
            // A worker's old slot does not run, so its restarts say nothing: a worker may stumble once.
            if grown > if v.web() { grown_old } else { 1 } {
                let why = new.why.as_deref().map(|w| format!(" ({w})")).unwrap_or_default();
                return Some(format!("{name}: its new slot was restarted {grown} times since the switch{why}."));
            }
            if v.web()
                && let Some(since) = new.unready_since
                && self.now >= after(since, UNREADY_FOR)
            {
                return Some(format!("{}.", v.why()));
            }
            let traffic = Traffic::since(new.requests, base.new);
            let before =
                old.map(|o| Traffic::since(o.requests, super::observed::Requests::default())).unwrap_or_default();
            if traffic.bad() >= BAD_REQUESTS && traffic.bad_share() > before.bad_share() + BAD_SHARE_ABOVE {
                return Some(format!(
                    "{name}: {} of {} requests went wrong since the switch ({:.1} % against {:.1} % before).",
                    traffic.bad(),
                    traffic.total,
                    traffic.bad_share() * 100.0,
                    before.bad_share() * 100.0,
                ));
            }
            None
        })
    }

    fn roll_back(&self) -> Step {
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
        let back_at = self.p.back_at().unwrap_or(self.p.since);
        let drained_by = after(back_at.max(self.p.since), self.d.drain_timeout);
        let busy =
            self.webs().any(|v| v.previous().is_some() && v.new_slot().is_some_and(|s| s.requests.in_flight > 0));
        if busy && self.now < drained_by {
            return wait(Some(drained_by), Some(OFTEN), "the last requests of the bad slot");
        }
        self.remove_new().unwrap_or_else(|| go(Phase::RolledBack))
    }

    /// The next slot of ours that is to be removed. Never one that serves, or that stood there before us.
    fn remove_new(&self) -> Option<Step> {
        self.changed().find_map(|v| {
            let existed = v.did.base.as_ref().is_none_or(|b| b.existed);
            let there = v.slot(&v.want.slot).is_some();
            (there && !existed && !v.points_at_new())
                .then(|| Step::Act(Action::RemoveSlot { app: v.want.name.clone(), slot: v.want.slot.clone() }))
        })
    }

    fn clear_up(&self) -> Step {
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

    fn end(&self) -> End {
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
            Ended::Unhealthy => self.irreversible(),
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

//! Whether what is live does well, and whether it may be taken back.

use super::{BAD_REQUESTS, BAD_SHARE_ABOVE, PROBES, Rules, Step, UNREADY_FOR, View, turn};
use crate::domain::rollout::{
    Phase,
    desired::Kind,
    figures::Traffic,
    observed::{ObservedSlot, Requests},
    progress::{Ended, after},
};

impl Rules<'_> {
    /// A person wants the previous version.
    pub(super) fn back_by_wish(&self) -> Option<Step> {
        if !self.p.asked.rollback || self.d.kind != Kind::Release {
            return None;
        }
        let back: Vec<_> = self.changed().filter(|v| v.flipped() && v.previous().is_some()).collect();
        let gone = back.iter().find(|v| v.web() && !v.old_slot().is_some_and(|s| s.running));
        match gone {
            _ if back.is_empty() => None,
            None => Some(turn(Phase::RollingBack, Ended::RolledBack, "Rolled back on command.")),
            Some(v) => {
                let words = format!(
                    "{}: the previous slot is no longer warm, so there is nothing to point back to: roll back once \
                     more, and the previous release is started again first.",
                    v.want.name
                );
                Some(turn(Phase::Done, Ended::Unhealthy, words))
            }
        }
    }

    /// The new version does badly.
    pub(super) fn take_back(&self) -> Option<Step> {
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

    pub(super) fn irreversible(&self) -> bool {
        self.changed()
            .any(|v| v.did.pre_deploy.is_some() && v.want.spec.pre_deploy.as_ref().is_some_and(|c| !c.reversible))
    }

    /// There is something to go back to, and it is well. Half a previous slot is better than nothing at all.
    pub(super) fn may_go_back(&self) -> bool {
        let back: Vec<_> = self.changed().filter(|v| v.flipped() && v.previous().is_some()).collect();
        let well = |v: &View<'_>| {
            !v.web()
                || v.old_slot()
                    .is_some_and(|old| old.full() || (old.serves() && !v.new_slot().is_some_and(ObservedSlot::serves)))
        };
        !back.is_empty() && back.iter().all(well)
    }

    /// What is bad about the new slots that serve, if anything.
    pub(super) fn verdict(&self) -> Option<String> {
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
            let lacks = base.new_ready == 0 || new.ready < base.new_ready;
            if v.web()
                && lacks
                && let Some(since) = new.unready_since
                && self.now >= after(since, UNREADY_FOR)
            {
                return Some(format!("{}.", v.why()));
            }
            let traffic = Traffic::since(new.requests, base.new);
            let before = old.map(|o| Traffic::since(o.requests, Requests::default())).unwrap_or_default();
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
}

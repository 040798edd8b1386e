//! One app of a rollout, with all that is known of it.

use crate::domain::{
    config::AppKind,
    ids::Slot,
    rollout::{
        app_progress::AppProgress,
        desired::DesiredApp,
        observed::{ObservedApp, ObservedSlot},
    },
};

/// One app with all that is known of it.
pub(super) struct View<'a> {
    pub(super) want: &'a DesiredApp,
    pub(super) did: &'a AppProgress,
    pub(super) seen: Option<&'a ObservedApp>,
}

impl<'a> View<'a> {
    pub(super) fn web(&self) -> bool {
        self.want.kind == AppKind::Web
    }
    pub(super) fn previous(&self) -> Option<&'a Slot> {
        self.did.base.as_ref().and_then(|b| b.active.as_ref())
    }
    pub(super) fn unchanged(&self) -> bool {
        self.did.base.as_ref().is_some_and(|b| b.unchanged)
    }
    pub(super) fn active(&self) -> Option<&'a Slot> {
        self.seen.and_then(|s| s.active.as_ref())
    }
    /// The slot that serves once the rollout is through.
    pub(super) fn slot_name(&self) -> &'a Slot {
        if self.unchanged() { self.previous().unwrap_or(&self.want.slot) } else { &self.want.slot }
    }
    pub(super) fn slot(&self, name: &Slot) -> Option<&'a ObservedSlot> {
        self.seen.and_then(|s| s.slots.get(name))
    }
    pub(super) fn new_slot(&self) -> Option<&'a ObservedSlot> {
        self.slot(self.slot_name())
    }
    pub(super) fn old_slot(&self) -> Option<&'a ObservedSlot> {
        self.previous().and_then(|name| self.slot(name))
    }
    pub(super) fn points_at_new(&self) -> bool {
        self.active() == Some(&self.want.slot)
    }
    /// It was pointed at the new slot, whoever did it, and not back yet.
    pub(super) fn flipped(&self) -> bool {
        !self.unchanged() && self.did.back_at.is_none() && (self.did.switched_at.is_some() || self.points_at_new())
    }
    pub(super) fn full(&self) -> bool {
        self.new_slot().is_some_and(ObservedSlot::full)
    }
    pub(super) fn why(&self) -> String {
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

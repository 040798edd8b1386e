//! What the agent says about itself: the state and the live counters together.

use std::net::Ipv4Addr;

use super::{
    core::Agent,
    protocol::{AgentStatus, ErrorCode, InstanceStatus, Reply, ServiceStatus, SlotSource, SlotStatus},
    rules::{Refusal, refuse},
    state::{Saved, SavedService, SavedSlot},
};

impl Agent {
    pub(super) fn status(&self, saved: &Saved) -> AgentStatus {
        let services = saved.services.iter().filter(|(_, s)| !s.removing);
        AgentStatus { services: services.map(|(id, s)| (id.clone(), self.service_status(id, s))).collect() }
    }

    pub(super) fn slot_reply(&self, saved: &Saved, service: &str, slot: &str) -> Result<Reply, Refusal> {
        match saved.slot(service, slot) {
            Some(found) => Ok(Reply::Slot(self.slot_status(service, slot, found))),
            None => refuse(ErrorCode::NotFound, format!("{service:?} has no slot {slot:?} any more")),
        }
    }

    pub(super) fn service_status(&self, id: &str, service: &SavedService) -> ServiceStatus {
        let slots = service.slots.iter().filter(|(_, s)| !s.removing);
        ServiceStatus {
            listen: service.listen,
            doors: service.doors.clone(),
            missing: self.missing(service.listen.into_iter().chain(service.doors.iter().map(|d| d.listen))),
            epoch: service.epoch,
            active: service.active.clone(),
            switched_at: service.switched_at,
            slots: slots.map(|(name, s)| (name.clone(), self.slot_status(id, name, s))).collect(),
            unrouted: self.unrouted(id),
        }
    }

    pub(super) fn slot_status(&self, id: &str, name: &str, slot: &SavedSlot) -> SlotStatus {
        let mut counters = self.live_slot(id, name).map(|s| s.counters()).unwrap_or_default();
        counters.in_flight += self.busy_before(id, name);
        let mut instances: Vec<InstanceStatus> = Vec::new();
        match &slot.source {
            SlotSource::Upstreams { addresses } => instances.extend(addresses.iter().map(|a| InstanceStatus {
                address: Some(*a),
                pid: None,
                restarts: 0,
                started_at: None,
                last_exit: None,
                last_output: Vec::new(),
            })),
            SlotSource::Process(_) => instances.extend(slot.copies.iter().map(|c| InstanceStatus {
                address: c.port.map(|p| (Ipv4Addr::LOCALHOST, p).into()),
                pid: c.process.map(|p| p.pid),
                restarts: c.restarts,
                started_at: c.started_at.filter(|_| c.process.is_some()),
                last_exit: c.last_exit.clone(),
                last_output: c.last_output.clone(),
            })),
        }
        SlotStatus { source: slot.source.clone(), running: slot.running, instances, counters }
    }
}

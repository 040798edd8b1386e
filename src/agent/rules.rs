//! What each command may do to the state: fences, idempotency, conflicts. Pure.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use jiff::Timestamp;

use super::{
    protocol::{ErrorCode, ProcessSpec, SlotSource},
    state::{Saved, SavedCopy, SavedService, SavedSlot},
};
use crate::domain::ids::Epoch;

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Refusal {
    pub code: ErrorCode,
    pub message: String,
}

pub(super) fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, message: message.into() })
}

/// More copies than this on one host is a typing mistake.
const MAX_REPLICAS: u32 = 64;
const MAX_NAME: usize = 300;

fn check_name(kind: &str, name: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return refuse(
            ErrorCode::Invalid,
            format!("{kind} {:?} must have 1 to {MAX_NAME} characters and none of control", cut(name)),
        );
    }
    Ok(())
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

fn check_process(spec: &ProcessSpec) -> Result<(), Refusal> {
    let wrong = |what: String| refuse(ErrorCode::Invalid, what);
    match spec.argv.first() {
        None => return wrong("argv is empty: name a program".into()),
        Some(p) if p.is_empty() => return wrong("argv[0] is empty: name a program".into()),
        Some(_) => {}
    }
    if !(1..=MAX_REPLICAS).contains(&spec.replicas) {
        return wrong(format!("replicas is {}, it must be 1 to {MAX_REPLICAS}", spec.replicas));
    }
    for (field, path) in [("cwd", &spec.cwd), ("log_dir", &spec.log_dir)] {
        if !path.is_absolute() {
            return wrong(format!("{field} {} must be an absolute path", path.display()));
        }
    }
    if spec.argv.iter().any(|a| a.contains('\0')) {
        return wrong("argv holds a NUL character".into());
    }
    // Values may be secrets: only names are repeated.
    if let Some((k, _)) = spec.env.iter().find(|(k, v)| k.is_empty() || k.contains(['=', '\0']) || v.contains('\0')) {
        return wrong(format!("environment variable {:?} has a name or a value that no process can get", cut(k)));
    }
    Ok(())
}

impl Saved {
    fn living(&mut self, id: &str) -> Result<&mut SavedService, Refusal> {
        match self.services.get_mut(id) {
            Some(s) if !s.removing => Ok(s),
            _ => refuse(ErrorCode::NotFound, format!("there is no service {:?}: put it first", cut(id))),
        }
    }

    /// The service, if the caller may change it; a higher epoch is a claim.
    fn fenced(&mut self, id: &str, epoch: Epoch) -> Result<&mut SavedService, Refusal> {
        let service = self.living(id)?;
        if epoch < service.epoch {
            let message = format!("epoch {epoch} is stale: {:?} was claimed with {}", cut(id), service.epoch);
            return refuse(ErrorCode::StaleEpoch, message);
        }
        service.epoch = epoch;
        Ok(service)
    }

    /// The address that a service keeps when it is put again.
    pub(super) fn kept_address(&self, id: &str, asked: SocketAddr) -> Option<SocketAddr> {
        let have = self.services.get(id)?.listen?;
        (have.ip() == asked.ip() && (asked.port() == 0 || asked.port() == have.port())).then_some(have)
    }

    /// `listen` carries the real port.
    pub(super) fn put_service(
        &mut self,
        id: &str,
        listen: Option<SocketAddr>,
        hosts: Vec<String>,
    ) -> Result<(), Refusal> {
        check_name("service", id)?;
        let mut hosts: Vec<String> = hosts.into_iter().map(|h| h.to_ascii_lowercase()).collect();
        hosts.sort();
        hosts.dedup();
        if let Some(bad) = hosts.iter().find(|h| h.is_empty() || h.len() > 253 || h.contains(['/', ':', ' ', '*', '@']))
        {
            return refuse(ErrorCode::Invalid, format!("host {:?} must be a plain host name without a port", cut(bad)));
        }
        for (other_id, other) in &self.services {
            if other_id == id || other.removing || listen.is_none() || other.listen != listen {
                continue;
            }
            let same = match (hosts.is_empty(), other.hosts.is_empty()) {
                (true, true) => Some("all hosts"),
                (false, false) => hosts.iter().find(|h| other.hosts.contains(h)).map(String::as_str),
                _ => None,
            };
            if let Some(host) = same {
                let message = format!("{host} of this listener: {:?} has that already", cut(other_id));
                return refuse(ErrorCode::Conflict, message);
            }
        }
        match self.services.get_mut(id) {
            None => {
                let service = SavedService {
                    listen,
                    hosts,
                    epoch: Epoch(0),
                    active: None,
                    previous: None,
                    switched_at: None,
                    slots: BTreeMap::new(),
                    removing: false,
                };
                self.services.insert(id.to_owned(), service);
            }
            Some(s) if s.removing => {
                return refuse(ErrorCode::Conflict, format!("{:?} is being removed: try again", cut(id)));
            }
            Some(s) if s.listen.is_some() != listen.is_some() && !s.slots.is_empty() => {
                let message = format!("{:?} has slots and can't change between routed and worker: remove it", cut(id));
                return refuse(ErrorCode::Conflict, message);
            }
            Some(s) => {
                s.listen = listen;
                s.hosts = hosts;
            }
        }
        Ok(())
    }

    pub(super) fn claim(&mut self, id: &str, epoch: Epoch) -> Result<(), Refusal> {
        self.fenced(id, epoch).map(drop)
    }

    /// `free_port` gives ports for the copies of a routed service.
    pub(super) fn put_slot(
        &mut self,
        id: &str,
        slot: &str,
        epoch: Epoch,
        source: SlotSource,
        mut free_port: impl FnMut(&[u16]) -> std::io::Result<u16>,
    ) -> Result<(), Refusal> {
        check_name("slot", slot)?;
        let mut ports = self.ports();
        let service = self.fenced(id, epoch)?;
        match service.slots.get(slot) {
            Some(s) if s.removing => {
                return refuse(ErrorCode::Conflict, format!("slot {:?} is being removed: try again", cut(slot)));
            }
            Some(s) if s.source == source => return Ok(()),
            Some(_) => {
                let message = format!("slot {:?} exists with something else in it: remove it first", cut(slot));
                return refuse(ErrorCode::Conflict, message);
            }
            None => {}
        }
        let mut copies = Vec::new();
        match &source {
            SlotSource::Upstreams { addresses } => {
                if service.listen.is_none() {
                    return refuse(ErrorCode::Invalid, "a worker has processes, not addresses to route to");
                }
                if addresses.is_empty() || addresses.iter().any(|a| a.port() == 0) {
                    return refuse(ErrorCode::Invalid, "addresses must name at least one address, each with its port");
                }
                if let Some(own) = addresses.iter().find(|a| service.listen.is_some_and(|l| loops(l, **a))) {
                    return refuse(ErrorCode::Invalid, format!("{own} is the service's own listener"));
                }
            }
            SlotSource::Process(spec) => {
                check_process(spec)?;
                for _ in 0..spec.replicas {
                    let mut copy = SavedCopy::default();
                    if service.listen.is_some() {
                        let port = free_port(&ports).or_else(|e| {
                            refuse(ErrorCode::Failed, format!("no free port on 127.0.0.1 for a copy: {e}"))
                        })?;
                        ports.push(port);
                        copy.port = Some(port);
                    }
                    copies.push(copy);
                }
            }
        }
        service.slots.insert(slot.to_owned(), SavedSlot { source, running: true, removing: false, copies });
        Ok(())
    }

    pub(super) fn set_running(&mut self, id: &str, slot: &str, epoch: Epoch, running: bool) -> Result<(), Refusal> {
        let service = self.fenced(id, epoch)?;
        let live = service.listen.is_some() && service.active.as_deref() == Some(slot);
        let found = service.slot(id, slot)?;
        if live && !running {
            return refuse(ErrorCode::Conflict, format!("slot {:?} is live: switch away from it first", cut(slot)));
        }
        found.running = running;
        Ok(())
    }

    /// Says whether there was something to remove.
    pub(super) fn remove_slot(&mut self, id: &str, slot: &str, epoch: Epoch) -> Result<bool, Refusal> {
        if self.services.get(id).is_none_or(|s| s.removing) {
            return Ok(false);
        }
        let service = self.fenced(id, epoch)?;
        if service.active.as_deref() == Some(slot) {
            return refuse(ErrorCode::Conflict, format!("slot {:?} is live: switch away from it first", cut(slot)));
        }
        let Some(found) = service.slots.get_mut(slot) else { return Ok(false) };
        found.removing = true;
        if service.previous.as_deref() == Some(slot) {
            service.previous = None;
        }
        self.forget_removed();
        Ok(true)
    }

    pub(super) fn remove_service(&mut self, id: &str, epoch: Epoch) -> Result<bool, Refusal> {
        if self.services.get(id).is_none_or(|s| s.removing) {
            return Ok(false);
        }
        let service = self.fenced(id, epoch)?;
        service.removing = true;
        for slot in service.slots.values_mut() {
            slot.removing = true;
        }
        self.forget_removed();
        Ok(true)
    }

    /// Drops what was asked to go and has no process any more.
    pub(super) fn forget_removed(&mut self) {
        for service in self.services.values_mut() {
            service.slots.retain(|_, s| !s.removing || s.has_processes());
        }
        self.services.retain(|_, s| !s.removing || !s.slots.is_empty());
    }

    /// Moves the pointer; a repeated command finds it moved and changes nothing.
    pub(super) fn switch(
        &mut self,
        id: &str,
        epoch: Epoch,
        from: Option<&str>,
        to: &str,
        now: Timestamp,
    ) -> Result<(Timestamp, Option<String>, bool), Refusal> {
        let service = self.fenced(id, epoch)?;
        let routed = service.listen.is_some();
        let target = service.slot(id, to)?;
        if routed && !target.running {
            return refuse(ErrorCode::Conflict, format!("slot {:?} is stopped: set it running first", cut(to)));
        }
        if service.active.as_deref() == Some(to) {
            return Ok((service.switched_at.unwrap_or(now), service.previous.clone(), false));
        }
        if service.active.as_deref() != from {
            let word = |s: Option<&str>| s.map_or("no slot".to_owned(), |s| format!("slot {:?}", cut(s)));
            let message = format!("{} is live, not {}", word(service.active.as_deref()), word(from));
            return refuse(ErrorCode::Conflict, message);
        }
        service.previous = service.active.replace(to.to_owned());
        service.switched_at = Some(now);
        Ok((now, service.previous.clone(), true))
    }
}

impl SavedService {
    fn slot(&mut self, id: &str, slot: &str) -> Result<&mut SavedSlot, Refusal> {
        match self.slots.get_mut(slot) {
            Some(s) if !s.removing => Ok(s),
            _ => refuse(ErrorCode::NotFound, format!("{:?} has no slot {:?}: put it first", cut(id), cut(slot))),
        }
    }
}

/// Whether a connection to `target` would come back to `listen`.
fn loops(listen: SocketAddr, target: SocketAddr) -> bool {
    let any = listen.ip().is_unspecified() && matches!(target.ip(), IpAddr::V4(ip) if ip.is_loopback());
    listen.port() == target.port() && (listen.ip() == target.ip() || any)
}

//! What each command may do to the state: fences, idempotency, conflicts. Pure.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use jiff::Timestamp;

use super::{
    protocol::{Door, ErrorCode, ProcessSpec, SlotSource, TlsFiles},
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

fn check_hosts(hosts: Vec<String>) -> Result<Vec<String>, Refusal> {
    let mut hosts: Vec<String> = hosts.into_iter().map(|h| h.to_ascii_lowercase()).collect();
    hosts.sort();
    hosts.dedup();
    match hosts.iter().find(|h| h.is_empty() || h.len() > 253 || h.contains(['/', ':', ' ', '*', '@'])) {
        Some(bad) => {
            refuse(ErrorCode::Invalid, format!("host {:?} must be a plain host name without a port", cut(bad)))
        }
        None => Ok(hosts),
    }
}

fn check_doors(listen: Option<SocketAddr>, doors: &[Door], tls: Option<&TlsFiles>) -> Result<(), Refusal> {
    let wrong = |what: String| refuse(ErrorCode::Invalid, what);
    if listen.is_none() && (tls.is_some() || !doors.is_empty()) {
        return wrong("a worker listens nowhere: it has no doors and no TLS".into());
    }
    for (i, door) in doors.iter().enumerate() {
        let at = door.listen;
        if at.port() == 0 {
            return wrong(format!("the door {at} must name a real port"));
        }
        if listen == Some(at) || doors[..i].iter().any(|d| d.listen == at) {
            return wrong(format!("{at} is named twice"));
        }
        if door.https.is_some() && door.tls.is_some() {
            return wrong(format!("the door {at} speaks TLS already: it can't send on to https"));
        }
    }
    for files in doors.iter().filter_map(|d| d.tls.as_ref()).chain(tls) {
        for path in [&files.certificate, &files.key] {
            if !path.is_absolute() {
                return wrong(format!("{} must be an absolute path", path.display()));
            }
        }
    }
    Ok(())
}

/// Whether a service speaks TLS at an address. None: it does not listen there.
fn speaks(listen: Option<SocketAddr>, tls: Option<&TlsFiles>, doors: &[Door], at: SocketAddr) -> Option<bool> {
    let main = (listen == Some(at)).then_some(tls.is_some());
    main.or_else(|| doors.iter().find(|d| d.listen == at).map(|d| d.tls.is_some()))
}

/// What two services would both answer on one listener.
fn shared_host(a: &[String], b: &[String]) -> Option<String> {
    match (a.is_empty(), b.is_empty()) {
        (true, true) => Some("all hosts".to_owned()),
        (false, false) => a.iter().find(|h| b.contains(h)).cloned(),
        _ => None,
    }
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
        mut doors: Vec<Door>,
        tls: Option<TlsFiles>,
    ) -> Result<(), Refusal> {
        check_name("service", id)?;
        let hosts = check_hosts(hosts)?;
        for door in &mut doors {
            door.hosts = check_hosts(std::mem::take(&mut door.hosts))?;
        }
        check_doors(listen, &doors, tls.as_ref())?;
        let asked = |at: SocketAddr| {
            let main = (listen == Some(at)).then_some(&hosts);
            main.into_iter().chain(doors.iter().filter(move |d| d.listen == at).map(|d| &d.hosts))
        };
        for (other_id, other) in self.services.iter().filter(|(other_id, o)| *other_id != id && !o.removing) {
            let theirs = other.listen.map(|l| (l, &other.hosts));
            for (at, theirs) in theirs.into_iter().chain(other.doors.iter().map(|d| (d.listen, &d.hosts))) {
                if let Some(ours) = speaks(listen, tls.as_ref(), &doors, at)
                    && Some(ours) != speaks(other.listen, other.tls.as_ref(), &other.doors, at)
                {
                    let message =
                        format!("{:?} answers at {at} too, and not in the same way (TLS or plain)", cut(other_id));
                    return refuse(ErrorCode::Conflict, message);
                }
                if let Some(host) = asked(at).find_map(|ours| shared_host(ours, theirs)) {
                    let message = format!("{host} of the listener {at}: {:?} has that already", cut(other_id));
                    return refuse(ErrorCode::Conflict, message);
                }
            }
        }
        match self.services.get_mut(id) {
            None => {
                let service = SavedService {
                    listen,
                    hosts,
                    doors,
                    tls,
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
                s.doors = doors;
                s.tls = tls;
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
            SlotSource::Upstreams { addresses } => service.check_upstreams(addresses)?,
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

    pub(super) fn set_upstreams(
        &mut self,
        id: &str,
        slot: &str,
        epoch: Epoch,
        now_at: Vec<SocketAddr>,
    ) -> Result<(), Refusal> {
        let service = self.fenced(id, epoch)?;
        service.check_upstreams(&now_at)?;
        match &mut service.slot(id, slot)?.source {
            SlotSource::Upstreams { addresses } => *addresses = now_at,
            SlotSource::Process(_) => {
                let message =
                    format!("slot {:?} has processes of the agent's own, whose addresses it knows", cut(slot));
                return refuse(ErrorCode::Invalid, message);
            }
        }
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
    fn check_upstreams(&self, addresses: &[SocketAddr]) -> Result<(), Refusal> {
        let wrong = |what: String| refuse(ErrorCode::Invalid, what);
        match (self.listen, addresses) {
            (None, []) => return Ok(()),
            (None, _) => return wrong("nothing is routed to a worker: it has no addresses".into()),
            (Some(_), []) => return wrong("addresses must name at least one address, each with its port".into()),
            _ => {}
        }
        if addresses.iter().any(|a| a.port() == 0) {
            return wrong("addresses must name at least one address, each with its port".into());
        }
        match addresses.iter().find(|a| self.listeners().any(|l| loops(l, **a))) {
            Some(own) => wrong(format!("{own} is the service's own listener")),
            None => Ok(()),
        }
    }

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

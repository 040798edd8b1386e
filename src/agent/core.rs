//! The agent itself: one state, changed durably by commands and by supervised copies, and what is live made to agree.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex as StdMutex, MutexGuard as StdGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::{Mutex, MutexGuard, Notify, broadcast, watch};
use tokio_util::task::TaskTracker;

use super::{
    copy::{Copy, Wanted},
    process::Strays,
    protocol::{
        AgentStatus, ErrorCode, Event, InstanceStatus, PROTOCOL, Reply, Request, ServiceId, ServiceStatus, SlotSource,
        SlotStatus,
    },
    proxy::{Limits, Listener, Listeners, Route, Slot},
    rules::{Refusal, refuse},
    state::{Saved, SavedCopy, SavedService, SavedSlot, Store},
};
use crate::failpoint;

/// Events that a slow subscriber may lag behind.
const EVENTS: usize = 1_024;

/// How the agent shall end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Processes go on.
    Leave,
    StopSlots,
}

/// What is live; made to agree with [`Saved`] after each change.
#[derive(Debug, Default)]
struct Live {
    listeners: Listeners,
    routes: HashMap<ServiceId, Arc<Route>>,
    slots: HashMap<(ServiceId, String), LiveSlot>,
    /// Nothing is started any more.
    closing: bool,
}

#[derive(Debug)]
struct LiveSlot {
    slot: Arc<Slot>,
    copies: Vec<watch::Sender<Wanted>>,
}

/// The agent.
#[derive(Debug)]
pub(super) struct Agent {
    store: Store,
    saved: Mutex<Saved>,
    live: StdMutex<Live>,
    limits: Limits,
    copies: TaskTracker,
    strays: StdMutex<Strays>,
    events: broadcast::Sender<Event>,
    /// A copy was stopped.
    stopped: Notify,
    started_at: Timestamp,
    pub(super) ending: watch::Sender<Option<Ending>>,
}

fn locked<T>(mutex: &StdMutex<T>) -> StdGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Agent {
    /// Takes the state up: listens, adopts or starts what shall run.
    pub(super) async fn start(store: Store, saved: Saved, limits: Limits) -> Arc<Self> {
        let agent = Arc::new(Self {
            store,
            saved: Mutex::new(saved),
            live: StdMutex::default(),
            limits,
            copies: TaskTracker::new(),
            strays: StdMutex::new(Strays::find()),
            events: broadcast::channel(EVENTS).0,
            stopped: Notify::new(),
            started_at: crate::clock::now(),
            ending: watch::channel(None).0,
        });
        agent.apply(&*agent.saved.lock().await);
        agent
    }

    /// Services that have no listener because their port was taken when the agent started.
    pub(super) async fn retry_listeners(self: &Arc<Self>) {
        let saved = self.saved.lock().await;
        let missing = {
            let live = locked(&self.live);
            saved.services.values().any(|s| !s.removing && s.listen.is_some_and(|a| !live.listeners.contains_key(&a)))
        };
        if missing {
            self.apply(&saved);
        }
    }

    /// Closes connections to apps that were not used for a while.
    pub(super) fn expire(&self) {
        let slots: Vec<_> = locked(&self.live).slots.values().map(|s| Arc::clone(&s.slot)).collect();
        for slot in slots {
            slot.expire();
        }
    }

    /// Accepts no more; connections end after their running requests.
    pub(super) fn stop_listening(&self) {
        let mut live = locked(&self.live);
        live.closing = true;
        live.listeners.clear();
    }

    /// Ends supervision, and the processes if that is asked.
    pub(super) async fn stop_supervising(&self, ending: Ending) {
        if ending == Ending::StopSlots {
            self.wish(Wanted::Stop);
            self.until(|saved| saved.services.values().all(|s| s.slots.values().all(|s| !s.has_processes()))).await;
        }
        self.wish(Wanted::Leave);
        self.copies.close();
        self.copies.wait().await;
    }

    fn wish(&self, wanted: Wanted) {
        for sender in locked(&self.live).slots.values().flat_map(|s| &s.copies) {
            sender.send_replace(wanted);
        }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    pub(super) fn tell(&self, event: Event) {
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }

    /// Changes the state: durable first, then live, then the answer.
    async fn change<T>(
        self: &Arc<Self>,
        f: impl FnOnce(&mut Saved) -> Result<T, Refusal>,
    ) -> Result<(T, MutexGuard<'_, Saved>), Refusal> {
        let guard = self.saved.lock().await;
        self.change_locked(guard, f).await
    }

    async fn change_locked<'a, T>(
        self: &'a Arc<Self>,
        mut guard: MutexGuard<'a, Saved>,
        f: impl FnOnce(&mut Saved) -> Result<T, Refusal>,
    ) -> Result<(T, MutexGuard<'a, Saved>), Refusal> {
        let mut next = guard.clone();
        let out = f(&mut next)?;
        if next != *guard {
            let store = self.store.clone();
            let written = tokio::task::spawn_blocking(move || store.write(&next).map(|()| next)).await;
            match written {
                Ok(Ok(next)) => *guard = next,
                Ok(Err(e)) => return refuse(ErrorCode::Failed, format!("the state can't be written: {e}")),
                Err(e) => return refuse(ErrorCode::Failed, format!("the state can't be written: {e}")),
            }
            self.apply(&guard);
        }
        Ok((out, guard))
    }

    /// Makes what is live agree with the state. Does nothing where it agrees.
    fn apply(self: &Arc<Self>, saved: &Saved) {
        let mut live = locked(&self.live);
        let live = &mut *live;
        if live.closing {
            return;
        }
        live.slots.retain(|(service, slot), found| {
            let kept = saved.services.get(service).is_some_and(|s| s.slots.contains_key(slot));
            if !kept {
                for copy in &found.copies {
                    copy.send_replace(Wanted::Leave);
                }
            }
            kept
        });
        live.routes.retain(|id, _| saved.services.contains_key(id));
        for (id, service) in &saved.services {
            let route = Arc::clone(live.routes.entry(id.clone()).or_default());
            for (name, slot) in &service.slots {
                let key = (id.clone(), name.clone());
                let found = live.slots.entry(key).or_insert_with(|| LiveSlot {
                    slot: Slot::new(name, Arc::clone(&route.changed)),
                    copies: (0..slot.copies.len()).filter_map(|i| self.supervise(id, name, slot, i)).collect(),
                });
                found
                    .slot
                    .set_addresses(if service.listen.is_some() { slot.addresses() } else { Vec::new() }.as_slice());
                let wanted = if slot.running && !slot.removing { Wanted::Run } else { Wanted::Stop };
                for copy in &found.copies {
                    copy.send_if_modified(|w| std::mem::replace(w, wanted) != wanted);
                }
            }
            let active = service.active.as_ref().filter(|_| !service.removing);
            let active = active.and_then(|name| live.slots.get(&(id.clone(), name.clone())));
            route.point(active.map(|s| &s.slot));
        }
        self.listen(live, saved);
    }

    fn listen(&self, live: &mut Live, saved: &Saved) {
        type Routes<'a> = Vec<(&'a [String], &'a Arc<Route>)>;
        let mut wanted: BTreeMap<SocketAddr, Routes<'_>> = BTreeMap::new();
        for (id, service) in saved.services.iter().filter(|(_, s)| !s.removing) {
            if let (Some(address), Some(route)) = (service.listen, live.routes.get(id)) {
                wanted.entry(address).or_default().push((&service.hosts, route));
            }
        }
        live.listeners.retain(|address, _| wanted.contains_key(address));
        for (address, routes) in wanted {
            let listener = match live.listeners.entry(address) {
                Entry::Occupied(found) => found.into_mut(),
                Entry::Vacant(vacant) => match Listener::bind(address, &self.limits) {
                    Ok(listener) => vacant.insert(listener),
                    Err(e) => {
                        tracing::error!(listener = %address, error = %e, "can't listen; tried again");
                        continue;
                    }
                },
            };
            listener.set_routes(routes.into_iter());
        }
    }

    fn supervise(
        self: &Arc<Self>,
        service: &str,
        slot: &str,
        saved: &SavedSlot,
        index: usize,
    ) -> Option<watch::Sender<Wanted>> {
        let SlotSource::Process(spec) = &saved.source else { return None };
        let (wanted, receiver) = watch::channel(Wanted::Run);
        let (service, slot, spec) = (service.to_owned(), slot.to_owned(), spec.clone());
        let copy = Copy { agent: Arc::clone(self), service, slot, index, spec };
        self.copies.spawn(copy.supervise(receiver));
        Some(wanted)
    }

    // What copies need.

    pub(super) fn take_stray(&self, log: &Path) -> Option<super::process::ProcId> {
        locked(&self.strays).take(log)
    }

    pub(super) async fn ports(&self) -> Vec<u16> {
        self.saved.lock().await.ports()
    }

    pub(super) async fn read_copy<T>(
        &self,
        service: &str,
        slot: &str,
        index: usize,
        f: impl FnOnce(&SavedCopy) -> T,
    ) -> Option<T> {
        let saved = self.saved.lock().await;
        saved.services.get(service)?.slots.get(slot)?.copies.get(index).map(f)
    }

    /// A copy's facts. Where they can't be written they are kept in memory: the process is there all the same, and
    /// the next agent finds it by its output.
    pub(super) async fn write_copy(
        self: &Arc<Self>,
        service: &str,
        slot: &str,
        index: usize,
        f: impl FnOnce(&mut SavedCopy),
    ) {
        let mut saved = self.saved.lock().await;
        let Some(copy) = saved.copy_mut(service, slot, index) else { return };
        f(copy);
        saved.forget_removed();
        self.write_facts(&saved).await;
        self.apply(&saved);
    }

    async fn write_facts(&self, saved: &Saved) {
        let (store, next) = (self.store.clone(), saved.clone());
        match tokio::task::spawn_blocking(move || store.write(&next)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::error!(error = %e, "the state can't be written"),
            Err(e) => tracing::error!(error = %e, "the state can't be written"),
        }
    }

    /// Notes that a copy is about to be started; false when it shall not run any more.
    pub(super) async fn begin_start(&self, service: &str, slot: &str, index: usize) -> bool {
        let mut saved = self.saved.lock().await;
        if locked(&self.live).closing || !saved.slot(service, slot).is_some_and(|s| s.running && !s.removing) {
            return false;
        }
        let Some(copy) = saved.copy_mut(service, slot, index) else { return false };
        copy.starting = true;
        self.write_facts(&saved).await;
        true
    }

    /// No request shall go to this copy now.
    pub(super) async fn copy_down(&self, service: &str, slot: &str, index: usize) {
        let Some(Some(port)) = self.read_copy(service, slot, index, |c| c.port).await else { return };
        let found = locked(&self.live).slots.get(&(service.to_owned(), slot.to_owned())).map(|s| Arc::clone(&s.slot));
        if let Some(found) = found {
            found.mark_down((Ipv4Addr::LOCALHOST, port).into());
        }
    }

    pub(super) async fn copy_stopped(self: &Arc<Self>, service: &str, slot: &str, index: usize) {
        self.write_copy(service, slot, index, |c| {
            c.process = None;
            c.starting = false;
        })
        .await;
        self.stopped.notify_waiters();
    }

    /// Waits until the state is so; looked at whenever a copy was stopped.
    async fn until(&self, so: impl Fn(&Saved) -> bool) {
        loop {
            let mut told = std::pin::pin!(self.stopped.notified());
            told.as_mut().enable();
            if so(&*self.saved.lock().await) {
                return;
            }
            told.await;
        }
    }

    // Commands.

    /// Carries out one command.
    pub(super) async fn answer(self: &Arc<Self>, request: Request) -> Reply {
        match self.carry_out(request).await {
            Ok(reply) => reply,
            Err(Refusal { code, message }) => Reply::Error { code, message },
        }
    }

    async fn carry_out(self: &Arc<Self>, request: Request) -> Result<Reply, Refusal> {
        match request {
            Request::Hello => Ok(Reply::Hello {
                protocol: PROTOCOL,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                started_at: self.started_at,
            }),
            Request::Status => {
                let saved = self.saved.lock().await;
                let services = saved.services.iter().filter(|(_, s)| !s.removing);
                let services = services.map(|(id, s)| (id.clone(), self.service_status(id, s))).collect();
                Ok(Reply::Status(AgentStatus { services }))
            }
            Request::PutService { service, listen, hosts } => self.put_service(service, listen, hosts).await,
            Request::Claim { service, epoch } => {
                drop(self.change(|s| s.claim(&service, epoch)).await?);
                Ok(Reply::Ok)
            }
            Request::PutSlot { service, slot, epoch, source } => {
                let (_, saved) = self.change(|s| s.put_slot(&service, &slot, epoch, source, free_port)).await?;
                self.slot_reply(&saved, &service, &slot)
            }
            Request::SetRunning { service, slot, epoch, running } => {
                drop(self.change(|s| s.set_running(&service, &slot, epoch, running)).await?);
                if !running {
                    let still = |s: &SavedSlot| s.has_processes() && !s.running;
                    self.until(|s| !s.slot(&service, &slot).is_some_and(still)).await;
                }
                self.slot_reply(&*self.saved.lock().await, &service, &slot)
            }
            Request::RemoveSlot { service, slot, epoch } => {
                drop(self.change(|s| s.remove_slot(&service, &slot, epoch)).await?);
                self.until(|s| !s.slot(&service, &slot).is_some_and(|s| s.removing)).await;
                Ok(Reply::Ok)
            }
            Request::RemoveService { service, epoch } => {
                drop(self.change(|s| s.remove_service(&service, epoch)).await?);
                self.until(|s| !s.services.get(&service).is_some_and(|s| s.removing)).await;
                Ok(Reply::Ok)
            }
            Request::Switch { service, epoch, from, to } => {
                failpoint::hit("agent.switch.before_record");
                let now = crate::clock::now();
                let changed = self.change(|s| s.switch(&service, epoch, from.as_deref(), &to, now)).await?;
                failpoint::hit("agent.switch.after_record");
                let ((at, previous, moved), _saved) = changed;
                if moved {
                    self.tell(Event::Switched { service, slot: to, at });
                }
                Ok(Reply::Switched { at, previous })
            }
            Request::WaitIdle { service, slot, timeout_ms } => {
                let found = locked(&self.live).slots.get(&(service.clone(), slot.clone())).map(|s| Arc::clone(&s.slot));
                let Some(found) = found else {
                    return refuse(ErrorCode::NotFound, format!("{service:?} has no slot {slot:?}"));
                };
                Ok(Reply::Idle { in_flight: found.wait_idle(Duration::from_millis(timeout_ms)).await })
            }
            Request::Shutdown { stop_slots } => {
                let ending = if stop_slots { Ending::StopSlots } else { Ending::Leave };
                self.ending.send_replace(Some(ending));
                Ok(Reply::Ok)
            }
            // Answered by the connection, which owns the stream of events.
            Request::Subscribe => Ok(Reply::Ok),
        }
    }

    async fn put_service(
        self: &Arc<Self>,
        id: ServiceId,
        asked: Option<SocketAddr>,
        hosts: Vec<String>,
    ) -> Result<Reply, Refusal> {
        let guard = self.saved.lock().await;
        let listen = match asked {
            None => None,
            Some(asked) => Some(match guard.kept_address(&id, asked) {
                Some(kept) => kept,
                None => self.bind(asked, &guard)?,
            }),
        };
        let done = self.change_locked(guard, |s| s.put_service(&id, listen, hosts)).await;
        match done {
            Ok((_, saved)) => match saved.services.get(&id) {
                Some(service) => Ok(Reply::Service(self.service_status(&id, service))),
                None => refuse(ErrorCode::NotFound, format!("{id:?} was removed meanwhile")),
            },
            Err(e) => {
                // A listener opened for it has no route in the state: closed again.
                self.apply(&*self.saved.lock().await);
                Err(e)
            }
        }
    }

    /// Listens before the address is recorded: a port that can't be had must not be.
    fn bind(&self, asked: SocketAddr, saved: &Saved) -> Result<SocketAddr, Refusal> {
        let failed = |address: SocketAddr, e: &io::Error| Refusal {
            code: ErrorCode::Failed,
            message: format!("can't listen at {address}: {e}"),
        };
        let mut used = saved.ports();
        loop {
            let mut address = asked;
            if asked.port() == 0 {
                address.set_port(free_port_at(asked.ip(), &used).map_err(|e| failed(asked, &e))?);
            }
            let mut live = locked(&self.live);
            if live.listeners.contains_key(&address) {
                return Ok(address);
            }
            match Listener::bind(address, &self.limits) {
                Ok(listener) => {
                    live.listeners.insert(address, listener);
                    return Ok(address);
                }
                // Somebody was faster: another port.
                Err(e) if asked.port() == 0 && e.kind() == io::ErrorKind::AddrInUse => used.push(address.port()),
                Err(e) => return Err(failed(address, &e)),
            }
        }
    }

    fn slot_reply(&self, saved: &Saved, service: &str, slot: &str) -> Result<Reply, Refusal> {
        match saved.slot(service, slot) {
            Some(found) => Ok(Reply::Slot(self.slot_status(service, slot, found))),
            None => refuse(ErrorCode::NotFound, format!("{service:?} has no slot {slot:?} any more")),
        }
    }

    fn service_status(&self, id: &str, service: &SavedService) -> ServiceStatus {
        let slots = service.slots.iter().filter(|(_, s)| !s.removing);
        ServiceStatus {
            listen: service.listen,
            epoch: service.epoch,
            active: service.active.clone(),
            switched_at: service.switched_at,
            slots: slots.map(|(name, s)| (name.clone(), self.slot_status(id, name, s))).collect(),
            unrouted: locked(&self.live).routes.get(id).map_or(0, |r| r.unrouted()),
        }
    }

    fn slot_status(&self, id: &str, name: &str, slot: &SavedSlot) -> SlotStatus {
        let live = locked(&self.live);
        let counters = live.slots.get(&(id.to_owned(), name.to_owned())).map(|s| s.slot.counters());
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
        SlotStatus {
            source: slot.source.clone(),
            running: slot.running,
            instances,
            counters: counters.unwrap_or_default(),
        }
    }
}

impl Saved {
    fn slot(&self, service: &str, slot: &str) -> Option<&SavedSlot> {
        self.services.get(service)?.slots.get(slot)
    }
}

/// Where no kernel gives out ports by itself: the agent's own outgoing connections could otherwise sit on the port
/// of a copy that is just being started again. Below Kubernetes' node ports.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// A port on 127.0.0.1 that nobody uses.
pub(super) fn free_port(used: &[u16]) -> io::Result<u16> {
    free_port_at(Ipv4Addr::LOCALHOST.into(), used)
}

fn free_port_at(ip: IpAddr, used: &[u16]) -> io::Result<u16> {
    // Begins anywhere, so that two agents on one host seldom try the same.
    let count = PORTS.end - PORTS.start;
    let start = u16::try_from(uuid::Uuid::new_v4().as_u128() % u128::from(count)).unwrap_or(0);
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for i in 0..count {
        let port = PORTS.start + (start + i) % count;
        if used.contains(&port) {
            continue;
        }
        match std::net::TcpListener::bind((ip, port)) {
            Ok(_) => return Ok(port),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => last = e,
            Err(e) => return Err(e),
        }
    }
    Err(last)
}

pub(super) fn port_is_free(port: u16) -> bool {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

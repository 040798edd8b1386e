//! The agent itself: one state, changed durably by commands and by supervised copies, and what is live made to agree.

mod copies;
mod handing;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex as StdMutex, MutexGuard as StdGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::{Mutex, MutexGuard, Notify, broadcast, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    agent::{
        copy::{Copy, Wanted},
        handover::{Elder, Link},
        ports::{free_port, free_port_at},
        process::Strays,
        protocol::{ErrorCode, Event, PROTOCOL, Reply, Request, ServiceId, SlotSource},
        proxy::{Limits, Listener, Listeners, Route, Slot, Wanted as Door, load_certificate},
        rules::{Refusal, refuse},
        state::{Saved, SavedService, SavedSlot, Store},
    },
    failpoint,
};

/// Events that a slow subscriber may lag behind.
const EVENTS: usize = 1_024;

/// How the agent shall end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) enum Ending {
    /// Processes go on.
    Leave,
    StopSlots,
    /// The next agent has taken over.
    HandedOver,
}

/// What is live; made to agree with [`Saved`] after each change.
#[derive(Debug, Default)]
struct Live {
    listeners: Listeners,
    routes: HashMap<ServiceId, Arc<Route>>,
    slots: HashMap<(ServiceId, String), LiveSlot>,
    /// Listeners that could not be had, and of which that was said.
    missing: BTreeSet<SocketAddr>,
    /// Sockets of the agent before, until they are listened at.
    inherited: HashMap<SocketAddr, std::net::TcpListener>,
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
pub(in crate::agent) struct Agent {
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
    pub(in crate::agent) ending: watch::Sender<Option<Ending>>,
    /// Commands that wait for processes give up.
    ended: CancellationToken,
    /// The agent before, as long as it has something under way.
    elder: StdMutex<Option<Elder>>,
    handing: handing::Handing,
}

fn locked<T>(mutex: &StdMutex<T>) -> StdGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Agent {
    /// Takes the state up: listens, adopts or starts what shall run.
    pub(in crate::agent) async fn start(
        store: Store,
        saved: Saved,
        limits: Limits,
        inherited: HashMap<SocketAddr, std::net::TcpListener>,
        elder: Option<Link>,
    ) -> Arc<Self> {
        let agent = Arc::new(Self {
            store,
            saved: Mutex::new(saved),
            live: StdMutex::new(Live { inherited, ..Live::default() }),
            limits,
            copies: TaskTracker::new(),
            strays: StdMutex::new(Strays::find()),
            events: broadcast::channel(EVENTS).0,
            stopped: Notify::new(),
            started_at: crate::clock::now(),
            ending: watch::channel(None).0,
            ended: CancellationToken::new(),
            elder: StdMutex::new(elder.map(Elder::new)),
            handing: handing::Handing::default(),
        });
        agent.apply(&*agent.saved.lock().await);
        // Nobody listens at what the state does not name.
        locked(&agent.live).inherited.clear();
        agent
    }

    /// Services that have no listener because their port was taken when the agent started.
    pub(in crate::agent) async fn retry_listeners(self: &Arc<Self>) {
        let saved = self.saved.lock().await;
        let missing = {
            let live = locked(&self.live);
            let lost = |s: &SavedService| s.listeners().any(|a| !live.listeners.contains_key(&a));
            saved.services.values().any(|s| !s.removing && lost(s))
        };
        if missing {
            self.apply(&saved);
        }
    }

    /// Closes connections to apps that were not used for a while, and reads certificates that changed.
    pub(in crate::agent) fn expire(&self) {
        let live = locked(&self.live);
        let slots: Vec<_> = live.slots.values().map(|s| Arc::clone(&s.slot)).collect();
        live.listeners.values().for_each(Listener::refresh);
        drop(live);
        for slot in slots {
            slot.expire();
        }
    }

    /// Accepts no more; connections end after their running requests.
    pub(in crate::agent) fn stop_listening(&self) {
        let mut live = locked(&self.live);
        live.closing = true;
        live.listeners.clear();
    }

    /// Ends supervision, and the processes if that is asked.
    pub(in crate::agent) async fn stop_supervising(&self, ending: Ending) {
        if ending == Ending::StopSlots {
            self.wish(Wanted::Stop);
            self.until(|saved| saved.services.values().all(|s| s.slots.values().all(|s| !s.has_processes()))).await;
        }
        self.wish(Wanted::Leave);
        self.copies.close();
        self.copies.wait().await;
        self.ended.cancel();
    }

    /// Whether commands that wait for processes were given up.
    pub(in crate::agent) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Lets the last change come to its end and no other begin: the state belongs to the next agent from then on.
    pub(in crate::agent) async fn freeze(&self) -> MutexGuard<'_, Saved> {
        self.saved.lock().await
    }

    fn wish(&self, wanted: Wanted) {
        for sender in locked(&self.live).slots.values().flat_map(|s| &s.copies) {
            sender.send_replace(wanted);
        }
    }

    pub(in crate::agent) fn live_slot(&self, service: &str, slot: &str) -> Option<Arc<Slot>> {
        locked(&self.live).slots.get(&(service.to_owned(), slot.to_owned())).map(|s| Arc::clone(&s.slot))
    }

    pub(in crate::agent) fn unrouted(&self, service: &str) -> u64 {
        locked(&self.live).routes.get(service).map_or(0, |r| r.unrouted())
    }

    pub(in crate::agent) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    pub(in crate::agent) fn tell(&self, event: Event) {
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
        if self.is_closed() {
            return refuse(ErrorCode::Failed, "the next agent has taken over: ask again");
        }
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
            self.tell_elder(&guard).await;
        }
        Ok((out, guard))
    }

    /// Makes what is live agree with the state. Does nothing where it agrees.
    fn apply(self: &Arc<Self>, saved: &Saved) {
        let mut live = locked(&self.live);
        let live = &mut *live;
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
                    copies: match live.closing {
                        true => Vec::new(),
                        false => (0..slot.copies.len()).filter_map(|i| self.supervise(id, name, slot, i)).collect(),
                    },
                });
                found
                    .slot
                    .set_addresses(if service.listen.is_some() { slot.addresses() } else { Vec::new() }.as_slice());
                let wanted = if slot.running && !slot.removing { Wanted::Run } else { Wanted::Stop };
                for copy in found.copies.iter().filter(|_| !live.closing) {
                    copy.send_if_modified(|w| std::mem::replace(w, wanted) != wanted);
                }
            }
            let slot = |name: &Option<String>| {
                let name = name.as_ref().filter(|_| !service.removing)?;
                live.slots.get(&(id.clone(), name.clone())).map(|s| &s.slot)
            };
            let warm = |name: &String| service.slots.get(name).is_some_and(|s| s.running && !s.removing);
            route.set_previous(slot(&service.previous.clone().filter(warm)));
            route.point(slot(&service.active));
        }
        if !live.closing {
            self.listen(live, saved);
        }
    }

    fn listen(&self, live: &mut Live, saved: &Saved) {
        let mut wanted: BTreeMap<SocketAddr, Vec<Door<'_>>> = BTreeMap::new();
        for (id, service) in saved.services.iter().filter(|(_, s)| !s.removing) {
            let Some(route) = live.routes.get(id) else { continue };
            if let Some(at) = service.listen {
                let main = Door { hosts: &service.hosts, route, https: None, tls: service.tls.as_ref() };
                wanted.entry(at).or_default().push(main);
            }
            for door in &service.doors {
                let further = Door { hosts: &door.hosts, route, https: door.https, tls: door.tls.as_ref() };
                wanted.entry(door.listen).or_default().push(further);
            }
        }
        live.listeners.retain(|address, _| wanted.contains_key(address));
        for (address, doors) in wanted {
            let listener = match live.listeners.entry(address) {
                Entry::Occupied(found) => found.into_mut(),
                Entry::Vacant(vacant) => {
                    let bound = match live.inherited.remove(&address) {
                        Some(socket) => Listener::inherit(socket, address, &self.limits),
                        None => Listener::bind(address, &self.limits),
                    };
                    match bound {
                        Ok(listener) => {
                            if live.missing.remove(&address) {
                                tracing::info!(listener = %address, "listening at last");
                            }
                            vacant.insert(listener)
                        }
                        Err(e) => {
                            if live.missing.insert(address) {
                                tracing::error!(listener = %address, error = %e, "can't listen; tried again");
                            }
                            continue;
                        }
                    }
                }
            };
            if let Err(e) = listener.set_routes(&doors) {
                tracing::error!(listener = %address, error = %e, "can't speak TLS");
            }
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

    /// As [`Agent::until`], for a command: given up when the agent ends.
    async fn until_stopped(&self, so: impl Fn(&Saved) -> bool) {
        tokio::select! {
            () = self.until(so) => {}
            () = self.ended.cancelled() => {}
        }
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
    pub(in crate::agent) async fn answer(self: &Arc<Self>, request: Request) -> Reply {
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
                Ok(Reply::Status(self.status(&saved)))
            }
            Request::PutService { service, listen, hosts, doors, tls } => {
                for files in doors.iter().filter_map(|d| d.tls.as_ref()).chain(&tls) {
                    load_certificate(files).or_else(|why| refuse(ErrorCode::Invalid, why))?;
                }
                let others = doors.iter().map(|d| d.listen).collect();
                let put = move |s: &mut Saved, id: &str, at| s.put_service(id, at, hosts, doors, tls);
                self.put_service(service, listen, others, put).await
            }
            Request::Claim { service, epoch } => {
                drop(self.change(|s| s.claim(&service, epoch)).await?);
                Ok(Reply::Ok)
            }
            Request::PutSlot { service, slot, epoch, source } => {
                let (_, saved) = self.change(|s| s.put_slot(&service, &slot, epoch, source, free_port)).await?;
                self.slot_reply(&saved, &service, &slot)
            }
            Request::SetUpstreams { service, slot, epoch, addresses } => {
                let (_, saved) = self.change(|s| s.set_upstreams(&service, &slot, epoch, addresses)).await?;
                self.slot_reply(&saved, &service, &slot)
            }
            Request::SetRunning { service, slot, epoch, running } => {
                drop(self.change(|s| s.set_running(&service, &slot, epoch, running)).await?);
                if !running {
                    let still = |s: &SavedSlot| s.has_processes() && !s.running;
                    self.until_stopped(|s| !s.slot(&service, &slot).is_some_and(still)).await;
                }
                self.slot_reply(&*self.saved.lock().await, &service, &slot)
            }
            Request::RemoveSlot { service, slot, epoch } => {
                drop(self.change(|s| s.remove_slot(&service, &slot, epoch)).await?);
                self.until_stopped(|s| !s.slot(&service, &slot).is_some_and(|s| s.removing)).await;
                Ok(Reply::Ok)
            }
            Request::RemoveService { service, epoch } => {
                drop(self.change(|s| s.remove_service(&service, epoch)).await?);
                self.until_stopped(|s| !s.services.get(&service).is_some_and(|s| s.removing)).await;
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
                let Some(found) = self.live_slot(&service, &slot) else {
                    return refuse(ErrorCode::NotFound, format!("{service:?} has no slot {slot:?}"));
                };
                let timeout = Duration::from_millis(timeout_ms);
                Ok(Reply::Idle { in_flight: self.wait_idle(&service, &slot, &found, timeout).await })
            }
            Request::Upgrade { exe } => self.upgrade(&exe).await,
            Request::Shutdown { stop_slots } => {
                let ending = if stop_slots { Ending::StopSlots } else { Ending::Leave };
                self.ending.send_replace(Some(ending));
                Ok(Reply::Ok)
            }
            // Answered by the connection, which owns the stream.
            Request::Subscribe | Request::HandOver { .. } => Ok(Reply::Ok),
        }
    }

    async fn put_service(
        self: &Arc<Self>,
        id: ServiceId,
        asked: Option<SocketAddr>,
        others: Vec<SocketAddr>,
        put: impl FnOnce(&mut Saved, &str, Option<SocketAddr>) -> Result<(), Refusal>,
    ) -> Result<Reply, Refusal> {
        let guard = self.saved.lock().await;
        let listen = match asked {
            None => None,
            // Unless a further listener shall be there now.
            Some(asked) => Some(match guard.kept_address(&id, asked).filter(|kept| !others.contains(kept)) {
                Some(kept) => kept,
                None => self.bind(asked, &guard)?,
            }),
        };
        let done = self.change_locked(guard, |s| put(s, &id, listen)).await;
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
}

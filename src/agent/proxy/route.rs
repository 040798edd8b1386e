//! Who answers a request: the service's active slot, and in it a copy that listens.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::HeaderValue;
use tokio::{net::TcpStream, sync::Notify};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::upstream::Conn;
use crate::agent::protocol::Counters;

/// A request waits so long for a copy of the live slot to come back (a crash and its restart) before it gets 503.
/// Counted from when the last copy went away, so that a slot that stays down answers at once.
const HOLD: Duration = Duration::from_secs(10);
/// So many requests wait per service; more are answered 503 at once, so that memory stays bounded.
const MAX_HELD: usize = 1_000;
/// An unused connection to an app is closed after this. Below the shortest keep-alive of the usual servers
/// (gunicorn 2 s, Node 5 s, uvicorn 5 s): an app that closes first may do so just when a request is on its way.
const IDLE: Duration = Duration::from_millis(1_500);
/// Unused connections kept per copy.
const MAX_IDLE: usize = 512;
/// Between two looks whether a copy listens again; there is no event for a foreign port.
const PROBE_FIRST: Duration = Duration::from_millis(5);
const PROBE_LAST: Duration = Duration::from_millis(200);
/// A copy that listens takes a connection at once; one in a container that is gone never answers.
const PROBE_CONNECT: Duration = Duration::from_millis(300);

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One copy.
#[derive(Debug)]
pub(in crate::agent) struct Instance {
    pub address: SocketAddr,
    up: AtomicBool,
    in_flight: AtomicUsize,
    idle: Mutex<Vec<(Instant, Conn)>>,
}

impl Instance {
    /// A connection that was used before and still stands.
    pub(super) fn reuse(&self) -> Option<Conn> {
        loop {
            let (since, conn) = lock(&self.idle).pop()?;
            if since.elapsed() < IDLE && conn.is_open() {
                return Some(conn);
            }
        }
    }

    pub(super) fn keep(&self, conn: Conn) {
        let mut idle = lock(&self.idle);
        if idle.len() < MAX_IDLE && self.up.load(Ordering::Relaxed) {
            idle.push((Instant::now(), conn));
        }
    }

    fn expire(&self) {
        // Dropped outside of the lock: closing is a system call each.
        let old: Vec<_> = {
            let mut idle = lock(&self.idle);
            let first = idle.partition_point(|(since, _)| since.elapsed() >= IDLE);
            idle.drain(..first).collect()
        };
        drop(old);
    }
}

/// One slot as requests see it.
#[derive(Debug)]
pub(in crate::agent) struct Slot {
    /// For [`super::RELEASE`].
    pub(super) name: HeaderValue,
    instances: RwLock<Arc<[Arc<Instance>]>>,
    requests: AtomicU64,
    server_errors: AtomicU64,
    cut: AtomicU64,
    in_flight: AtomicU64,
    /// Callers of [`Slot::wait_idle`]; spares the hot path a lock.
    waiting: AtomicUsize,
    idle: Notify,
    next: AtomicUsize,
    /// When its last copy went away.
    down_since: Mutex<Instant>,
    suspect: Arc<Notify>,
    changed: Arc<Notify>,
    _prober: DropGuard,
}

impl Slot {
    /// `changed` is told when a copy listens.
    pub(in crate::agent) fn new(name: &str, changed: Arc<Notify>) -> Arc<Self> {
        let stop = CancellationToken::new();
        let slot = Arc::new(Self {
            name: HeaderValue::from_str(name).unwrap_or_else(|_| HeaderValue::from_static("?")),
            instances: RwLock::new(Arc::new([])),
            requests: AtomicU64::new(0),
            server_errors: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            idle: Notify::new(),
            next: AtomicUsize::new(0),
            down_since: Mutex::new(Instant::now()),
            suspect: Arc::new(Notify::new()),
            changed,
            _prober: stop.clone().drop_guard(),
        });
        tokio::spawn(probe(Arc::downgrade(&slot), Arc::clone(&slot.suspect), stop));
        slot
    }

    fn all(&self) -> Arc<[Arc<Instance>]> {
        Arc::clone(&self.instances.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets where its copies answer; known ones keep their connections.
    pub(in crate::agent) fn set_addresses(&self, addresses: &[SocketAddr]) {
        let old = self.all();
        if old.iter().map(|i| i.address).eq(addresses.iter().copied()) {
            return;
        }
        let new: Arc<[Arc<Instance>]> = addresses
            .iter()
            .map(|&address| {
                let known = old.iter().find(|i| i.address == address).map(Arc::clone);
                known.unwrap_or_else(|| {
                    let (up, in_flight) = (AtomicBool::new(false), AtomicUsize::new(0));
                    Arc::new(Instance { address, up, in_flight, idle: Mutex::default() })
                })
            })
            .collect();
        *self.instances.write().unwrap_or_else(PoisonError::into_inner) = new;
        self.suspect.notify_one();
    }

    /// A copy does not answer (or its process ended): no request goes there until it listens again.
    pub(in crate::agent) fn mark_down(&self, address: SocketAddr) {
        let all = self.all();
        let Some(instance) = all.iter().find(|i| i.address == address) else { return };
        if instance.up.swap(false, Ordering::SeqCst) {
            lock(&instance.idle).clear();
            if !all.iter().any(|i| i.up.load(Ordering::SeqCst)) {
                *lock(&self.down_since) = Instant::now();
            }
        }
        self.suspect.notify_one();
    }

    pub(in crate::agent) fn counters(&self) -> Counters {
        Counters {
            requests: self.requests.load(Ordering::Relaxed),
            server_errors: self.server_errors.load(Ordering::Relaxed),
            cut: self.cut.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::SeqCst),
        }
    }

    /// Closes connections to its copies that were not used for a while.
    pub(in crate::agent) fn expire(&self) {
        for instance in self.all().iter() {
            instance.expire();
        }
    }

    /// Returns when no request is in flight, at the latest after `timeout`; says how many still are.
    pub(in crate::agent) async fn wait_idle(&self, timeout: Duration) -> u64 {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let wait = async {
            loop {
                let mut told = std::pin::pin!(self.idle.notified());
                // Listening before looking: a request that ends in between is not missed.
                told.as_mut().enable();
                if self.in_flight.load(Ordering::SeqCst) == 0 {
                    return;
                }
                told.await;
            }
        };
        let _ = tokio::time::timeout(timeout, wait).await;
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.in_flight.load(Ordering::SeqCst)
    }

    /// The living copy with the least to do; equals take turns.
    fn choose(&self) -> Option<Arc<Instance>> {
        let all = self.instances.read().unwrap_or_else(PoisonError::into_inner);
        let start = if all.len() > 1 { self.next.fetch_add(1, Ordering::Relaxed) } else { 0 };
        (0..all.len())
            .map(|i| &all[(start.wrapping_add(i)) % all.len()])
            .filter(|i| i.up.load(Ordering::Relaxed))
            .min_by_key(|i| i.in_flight.load(Ordering::Relaxed))
            .map(Arc::clone)
    }

    fn end_one(&self) {
        if self.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 && self.waiting.load(Ordering::SeqCst) > 0 {
            self.idle.notify_waiters();
        }
    }
}

/// Brings copies back into use when they listen.
async fn probe(slot: Weak<Slot>, suspect: Arc<Notify>, stop: CancellationToken) {
    let mut pause = PROBE_FIRST;
    loop {
        let Some(down) = slot.upgrade().map(|s| s.all()) else { return };
        let down: Vec<_> = down.iter().filter(|i| !i.up.load(Ordering::SeqCst)).map(Arc::clone).collect();
        let mut back = false;
        for instance in &down {
            let tried = tokio::time::timeout(PROBE_CONNECT, TcpStream::connect(instance.address)).await;
            if matches!(tried, Ok(Ok(_))) {
                instance.up.store(true, Ordering::SeqCst);
                back = true;
            }
        }
        if back {
            let Some(slot) = slot.upgrade() else { return };
            slot.changed.notify_waiters();
        }
        let all_up = down.iter().all(|i| i.up.load(Ordering::SeqCst));
        tokio::select! {
            () = stop.cancelled() => return,
            () = suspect.notified() => pause = PROBE_FIRST,
            () = tokio::time::sleep(pause), if !all_up => pause = (pause * 2).min(PROBE_LAST),
        }
    }
}

/// A request on its way through a slot: counted in flight as long as this lives.
#[derive(Debug)]
pub(super) struct Lease {
    pub slot: Arc<Slot>,
    pub instance: Arc<Instance>,
}

impl Lease {
    pub(super) fn count_forwarded(&self) {
        self.slot.requests.fetch_add(1, Ordering::Relaxed);
    }
    pub(super) fn count_server_error(&self) {
        self.slot.server_errors.fetch_add(1, Ordering::Relaxed);
    }
    pub(super) fn count_cut(&self) {
        self.slot.cut.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.instance.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.slot.end_one();
    }
}

/// Why a request can't be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unrouted {
    /// Nothing was ever switched on.
    NoSlot,
    /// No copy of the live slot listens.
    Down,
    /// Too many wait already.
    Full,
}

/// One service as requests see it.
#[derive(Debug, Default)]
pub(in crate::agent) struct Route {
    active: RwLock<Option<Arc<Slot>>>,
    /// The one before, while it is there: for what only it has.
    previous: RwLock<Option<Arc<Slot>>>,
    unrouted: AtomicU64,
    held: AtomicUsize,
    /// A copy listens again, or the pointer moved.
    pub(in crate::agent) changed: Arc<Notify>,
}

enum Pick {
    Lease(Lease),
    NoSlot,
    /// No copy listens; given up at this time.
    Down(Instant),
}

impl Route {
    /// Moves the pointer. Whoever took the old slot before has been counted there when this returns.
    pub(in crate::agent) fn point(&self, slot: Option<&Arc<Slot>>) {
        let mut active = self.active.write().unwrap_or_else(PoisonError::into_inner);
        let same = match (active.as_ref(), slot) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        if !same {
            *active = slot.map(Arc::clone);
            drop(active);
            self.changed.notify_waiters();
        }
    }

    pub(in crate::agent) fn set_previous(&self, slot: Option<&Arc<Slot>>) {
        *self.previous.write().unwrap_or_else(PoisonError::into_inner) = slot.map(Arc::clone);
    }

    pub(super) fn has_previous(&self) -> bool {
        self.previous.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// A copy of the slot before, if one listens just now.
    pub(super) fn lease_previous(&self) -> Result<Lease, Unrouted> {
        let slot = {
            let previous = self.previous.read().unwrap_or_else(PoisonError::into_inner);
            let Some(slot) = previous.as_ref() else { return Err(Unrouted::NoSlot) };
            slot.in_flight.fetch_add(1, Ordering::SeqCst);
            Arc::clone(slot)
        };
        let Some(instance) = slot.choose() else {
            slot.end_one();
            return Err(Unrouted::Down);
        };
        instance.in_flight.fetch_add(1, Ordering::Relaxed);
        Ok(Lease { slot, instance })
    }

    pub(in crate::agent) fn unrouted(&self) -> u64 {
        self.unrouted.load(Ordering::Relaxed)
    }

    fn pick(&self) -> Pick {
        let slot = {
            let active = self.active.read().unwrap_or_else(PoisonError::into_inner);
            let Some(slot) = active.as_ref() else { return Pick::NoSlot };
            // Counted under the lock: after a switch nobody can still be on the way into the old slot unseen.
            slot.in_flight.fetch_add(1, Ordering::SeqCst);
            Arc::clone(slot)
        };
        if let Some(instance) = slot.choose() {
            instance.in_flight.fetch_add(1, Ordering::Relaxed);
            return Pick::Lease(Lease { slot, instance });
        }
        slot.end_one();
        Pick::Down(*lock(&slot.down_since) + HOLD)
    }

    /// A copy for one request, of the slot that is active now; waits for one for a while.
    pub(super) async fn lease(&self) -> Result<Lease, Unrouted> {
        let why = match self.pick() {
            Pick::Lease(lease) => return Ok(lease),
            Pick::NoSlot => Unrouted::NoSlot,
            Pick::Down(_) => match self.hold().await {
                Ok(lease) => return Ok(lease),
                Err(why) => why,
            },
        };
        self.unrouted.fetch_add(1, Ordering::Relaxed);
        Err(why)
    }

    async fn hold(&self) -> Result<Lease, Unrouted> {
        struct Held<'a>(&'a AtomicUsize);
        impl Drop for Held<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let full = self.held.fetch_add(1, Ordering::Relaxed) >= MAX_HELD;
        let _held = Held(&self.held);
        if full {
            return Err(Unrouted::Full);
        }
        loop {
            let mut told = std::pin::pin!(self.changed.notified());
            told.as_mut().enable();
            let until = match self.pick() {
                Pick::Lease(lease) => return Ok(lease),
                Pick::NoSlot => return Err(Unrouted::NoSlot),
                Pick::Down(until) => until,
            };
            if tokio::time::timeout_at(until.into(), told).await.is_err() {
                return Err(Unrouted::Down);
            }
        }
    }
}

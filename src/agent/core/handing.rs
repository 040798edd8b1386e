//! The agent's part in a hand-over, on both sides.

use std::{
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Agent, Ending, locked};
use crate::agent::{
    handover::{Busy, Link},
    protocol::{ErrorCode, PROTOCOL, Reply},
    proxy::Slot,
    rules::{Refusal, refuse},
    start::spawn_heir,
    state::Saved,
};

/// Where a hand-over stands.
#[derive(Debug, Default)]
pub(super) struct Handing {
    /// The lock and the control socket, as long as they may be handed over.
    fixed: StdMutex<Option<[OwnedFd; 2]>>,
    /// One at a time.
    under_way: AtomicBool,
    /// No command changes anything any more.
    closed: AtomicBool,
    /// All is the next agent's.
    let_go: CancellationToken,
    /// To the next agent.
    link: StdMutex<Option<Link>>,
}

impl Agent {
    /// What a next agent gets beside the listeners.
    pub(in crate::agent) fn keep(&self, lock: OwnedFd, control: OwnedFd) {
        *locked(&self.handing.fixed) = Some([lock, control]);
    }

    /// Nothing can be handed over from now on. A control socket that is still open here would go on taking connections
    /// after nobody accepts them, and their clients would wait for an answer until this process has ended.
    pub(in crate::agent) fn keep_no_more(&self) {
        *locked(&self.handing.fixed) = None;
    }

    /// Checks that it can be begun; nobody else can begin one then.
    pub(in crate::agent) fn begin_hand_over(&self, protocol: u32) -> Result<[OwnedFd; 2], Refusal> {
        if protocol != PROTOCOL {
            let message =
                format!("this agent speaks protocol {PROTOCOL}, the next one {protocol}: stop this one first");
            return refuse(ErrorCode::Invalid, message);
        }
        let share = || {
            let fixed = locked(&self.handing.fixed);
            let [lock, control] = fixed.as_ref().ok_or(io::ErrorKind::NotFound)?;
            Ok([lock.try_clone()?, control.try_clone()?])
        };
        if self.handing.under_way.swap(true, Ordering::SeqCst) {
            return refuse(ErrorCode::Conflict, "another agent is taking over just now");
        }
        share().or_else(|e: io::Error| {
            self.hand_over_failed();
            refuse(ErrorCode::Failed, format!("the lock and the socket can't be shared: {e}"))
        })
    }

    pub(in crate::agent) fn hand_over_failed(&self) {
        self.handing.under_way.store(false, Ordering::SeqCst);
    }

    /// The listening sockets, shared.
    pub(in crate::agent) fn sockets(&self) -> io::Result<Vec<(SocketAddr, OwnedFd)>> {
        let live = locked(&self.live);
        live.listeners.iter().filter_map(|(at, l)| Some(l.share()?.map(|fd| (*at, fd)))).collect()
    }

    /// Accepts, supervises and changes nothing any more.
    pub(in crate::agent) async fn let_go(&self) {
        {
            // A change under way comes to its end, and no other begins.
            let _saved = self.saved.lock().await;
            self.handing.closed.store(true, Ordering::SeqCst);
        }
        {
            let mut live = locked(&self.live);
            live.closing = true;
            live.listeners.values_mut().for_each(super::Listener::leave);
        }
        self.stop_supervising(Ending::Leave).await;
        self.handing.let_go.cancel();
    }

    pub(in crate::agent) fn is_closed(&self) -> bool {
        self.handing.closed.load(Ordering::SeqCst)
    }

    /// Resolves when all is the next agent's.
    pub(in crate::agent) async fn has_let_go(&self) {
        self.handing.let_go.cancelled().await;
    }

    /// The next agent has taken over: this one only ends what it has begun.
    pub(in crate::agent) fn end_with(&self, link: Link) {
        *locked(&self.handing.link) = Some(link);
        self.ending.send_replace(Some(Ending::HandedOver));
    }

    pub(in crate::agent) fn link(&self) -> Option<Link> {
        locked(&self.handing.link).take()
    }

    /// As an elder: takes the next agent's state for the requests that still come here.
    pub(in crate::agent) async fn follow(self: &Arc<Self>, next: Saved) {
        let mut saved = self.saved.lock().await;
        *saved = next;
        self.apply(&saved);
        self.tell_elder(&saved).await;
    }

    /// As an heir: whoever still answers requests in another process must know before the command is answered.
    pub(super) async fn tell_elder(&self, saved: &Saved) {
        let followed = locked(&self.elder).as_mut().map(|elder| elder.follow(saved));
        if let Some(followed) = followed {
            followed.await;
        }
    }

    /// Requests under way here, and in the agents before.
    pub(in crate::agent) fn busy(&self) -> Busy {
        let mut all = locked(&self.elder).as_ref().map(|e| e.busy().borrow().clone()).unwrap_or_default();
        for ((service, slot), live) in &locked(&self.live).slots {
            let count = live.slot.counters().in_flight;
            if count > 0 {
                *all.entry(service.clone()).or_default().entry(slot.clone()).or_default() += count;
            }
        }
        all
    }

    /// Requests of a slot that are under way in the agents before.
    pub(in crate::agent) fn busy_before(&self, service: &str, slot: &str) -> u64 {
        let busy = locked(&self.elder).as_ref().map(|e| e.busy());
        busy.and_then(|b| b.borrow().get(service)?.get(slot).copied()).unwrap_or(0)
    }

    /// Waits until a slot has no request under way, in no process.
    pub(super) async fn wait_idle(&self, service: &str, slot: &str, found: &Slot, timeout: Duration) -> u64 {
        let end = Instant::now() + timeout;
        let elder = locked(&self.elder).as_ref().map(|e| e.busy());
        loop {
            let own = found.wait_idle(end.saturating_duration_since(Instant::now())).await;
            let Some(mut elder) = elder.clone() else { return own };
            let idle = |b: &Busy| b.get(service).and_then(|s| s.get(slot)).is_none();
            // Closed: it has ended, and so have its requests.
            let _ = tokio::time::timeout_at(end, elder.wait_for(idle)).await;
            let own = own.min(found.counters().in_flight);
            let left = own + self.busy_before(service, slot);
            if left == 0 || Instant::now() >= end {
                return left;
            }
        }
    }

    /// Starts the next agent. Answers only when that fails: it cuts the connection otherwise.
    pub(super) async fn upgrade(&self, exe: &Path) -> Result<Reply, Refusal> {
        let data = std::path::absolute(self.store.folder());
        let started = data.and_then(|data| spawn_heir(exe, &data));
        let mut child = started.or_else(|e| {
            refuse(ErrorCode::Failed, format!("the next agent {} can't be started: {e}", exe.display()))
        })?;
        let ended = child.wait().await;
        let how = ended.map_or_else(|e| e.to_string(), |status| status.to_string());
        refuse(
            ErrorCode::Failed,
            format!("the next agent ended before it had taken over ({how}); its output tells why"),
        )
    }
}

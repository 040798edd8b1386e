//! Proof on every deploy: requests through the public door, from shortly before the flip until the watch is over.
//!
//! Two probers per app, side by side: one opens a connection for each request, as new users do; one keeps its
//! connection, as browsers and back ends do. Who answered is told by the data plane (`X-Switchover-Release`), where it
//! can.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, header::HOST};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::{
    net::TcpStream,
    sync::Notify,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::ProbeTarget;
use crate::{
    clock,
    domain::{
        ids::{AppName, Slot},
        rollout::{
            ProbeFailure, ProbeFigures, ProbeWindow,
            figures::{FAILURES_KEPT, Histogram},
            machine::PROBES,
        },
    },
};

/// Sent with each probe; the agent then tells in [`RELEASE_HEADER`] which slot answered.
pub const PROBE_HEADER: &str = "x-switchover-probe";
/// The slot that answered a probe.
pub const RELEASE_HEADER: &str = "x-switchover-release";

/// A probe without an answer after this is lost. Longer than the agent holds a request for a copy that is just being
/// restarted: what a user would only wait for is no loss.
const PATIENCE: Duration = Duration::from_secs(12);
/// Fresh probes under way at once, so that a hanging app does not pile them up.
const AT_ONCE: usize = 64;
/// An answer's body is read to its end, up to this many bytes.
const MAX_BODY: usize = 8 * 1024 * 1024;
/// Answers of the old slot are remembered so long, until the flip that they came after is known.
const MEMORY: Duration = Duration::from_secs(30);
/// The flip waits for so many probes per app, or for [`LEAD`], so that there is something to compare with.
const LEAD_PROBES: u64 = 40;
/// See [`LEAD_PROBES`].
const LEAD: Duration = Duration::from_secs(1);

/// Probes under way. Dropped, they end.
#[derive(Debug)]
pub struct Prober {
    state: Arc<State>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct State {
    inner: Mutex<Inner>,
    /// A probe failed.
    failed: Notify,
    /// A probe was answered or lost.
    any: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    figures: ProbeFigures,
    apps: BTreeMap<AppName, PerApp>,
}

#[derive(Debug, Default)]
struct PerApp {
    sent: u64,
    before_sent: u64,
    before_failed: u64,
    flip: Option<Flip>,
    window: VecDeque<Result<(), String>>,
    /// Who answered when, lately.
    answers: VecDeque<(Timestamp, String)>,
    latencies: VecDeque<(Timestamp, Duration)>,
    /// What was sent before that moment may have met a target that was away.
    forgotten: Option<Timestamp>,
}

#[derive(Debug, Clone)]
struct Flip {
    at: Timestamp,
    left: Option<String>,
    back: bool,
}

impl PerApp {
    /// The last answer by the slot that was left, in milliseconds after the flip.
    fn late(&self) -> Option<u64> {
        let flip = self.flip.as_ref()?;
        let left = flip.left.as_deref()?;
        let late = self.answers.iter().filter(|(at, slot)| slot == left && *at > flip.at).map(|(at, _)| *at).max()?;
        u64::try_from(late.duration_since(flip.at).as_millis()).ok()
    }

    fn blind(&self) -> bool {
        self.before_sent >= 10 && self.before_failed * 2 >= self.before_sent
    }
}

struct Outcome {
    app: AppName,
    fresh: bool,
    sent_at: Timestamp,
    took: Duration,
    result: Result<Option<String>, String>,
}

impl Inner {
    fn note(&mut self, o: Outcome) {
        let f = &mut self.figures;
        f.sent += 1;
        f.fresh += u64::from(o.fresh);
        let app = self.apps.entry(o.app.clone()).or_default();
        app.sent += 1;
        let answered_at = clock::now();
        if let Err(words) = &o.result {
            f.failed += 1;
            if f.failures.len() < FAILURES_KEPT {
                f.failures.push(ProbeFailure { app: o.app, at: o.sent_at, words: words.clone() });
            }
        }
        match &app.flip {
            Some(flip) if o.sent_at >= flip.at => {
                if app.window.len() >= PROBES.1 as usize {
                    app.window.pop_front();
                }
                if app.forgotten.is_none_or(|at| o.sent_at >= at) {
                    app.window.push_back(o.result.as_ref().map(|_| ()).map_err(Clone::clone));
                }
                f.after.add(o.took);
            }
            _ => {
                app.before_sent += 1;
                app.before_failed += u64::from(o.result.is_err());
                // Until the moment of the flip is known, the last ones may turn out to have come after it.
                app.latencies.push_back((o.sent_at, o.took));
                if app.latencies.len() > 512
                    && let Some((_, old)) = app.latencies.pop_front()
                {
                    f.before.add(old);
                }
            }
        }
        if let Ok(Some(slot)) = o.result {
            app.answers.push_back((answered_at, slot));
            while app
                .answers
                .front()
                .is_some_and(|(at, _)| answered_at.duration_since(*at).unsigned_abs() > MEMORY && app.answers.len() > 1)
            {
                app.answers.pop_front();
            }
            if let Some(ms) = app.late() {
                let back = app.flip.as_ref().is_some_and(|f| f.back);
                let last = if back { &mut f.last_bad_ms } else { &mut f.last_old_ms };
                *last = (*last).max(Some(ms));
            }
        }
    }

    /// All figures, with what still waits for a flip counted as before it.
    fn figures(&self) -> ProbeFigures {
        let mut figures = self.figures.clone();
        let mut waiting = Histogram::default();
        self.apps.values().flat_map(|a| &a.latencies).for_each(|(_, took)| waiting.add(*took));
        figures.before.merge(&waiting);
        figures
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Prober {
    /// Begins to probe these.
    #[must_use]
    pub fn start(targets: Vec<ProbeTarget>) -> Self {
        let prober =
            Self { state: Arc::new(State::default()), stop: CancellationToken::new(), tasks: TaskTracker::new() };
        for target in targets {
            prober.add(target);
        }
        prober
    }

    /// Probes one more. Does nothing for an app that is probed already.
    pub fn add(&self, target: ProbeTarget) {
        {
            let mut inner = self.state.lock();
            if inner.apps.contains_key(&target.app) {
                return;
            }
            inner.apps.insert(target.app.clone(), PerApp::default());
        }
        let target = Arc::new(target);
        for fresh in [true, false] {
            let one = One { target: Arc::clone(&target), state: Arc::clone(&self.state), fresh };
            let stop = self.stop.clone();
            let tasks = self.tasks.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = one.run(&tasks, &stop) => {}
                }
            });
        }
    }

    /// Whether this app is probed.
    #[must_use]
    pub fn has(&self, app: &AppName) -> bool {
        self.state.lock().apps.contains_key(app)
    }

    /// Waits until there is something to compare the new version with: some probes of each app, or a second.
    pub async fn lead(&self) {
        let enough = async {
            loop {
                let mut told = std::pin::pin!(self.state.any.notified());
                told.as_mut().enable();
                if self.state.lock().apps.values().all(|a| a.sent >= LEAD_PROBES) {
                    return;
                }
                told.await;
            }
        };
        let _ = timeout(LEAD, enough).await;
    }

    /// The app was pointed from `left` elsewhere; `back` on the way back.
    pub fn flipped(&self, app: &AppName, at: Timestamp, left: Option<&Slot>, back: bool) {
        let mut inner = self.state.lock();
        let Inner { figures, apps } = &mut *inner;
        let Some(app) = apps.get_mut(app) else { return };
        // None of what was seen came before that moment.
        if app.latencies.iter().all(|(sent_at, _)| *sent_at >= at) {
            (app.before_sent, app.before_failed) = (0, 0);
        }
        app.flip = Some(Flip { at, left: left.map(|s| s.as_str().to_owned()), back });
        app.window.clear();
        for (sent_at, took) in std::mem::take(&mut app.latencies) {
            let into = if sent_at < at { &mut figures.before } else { &mut figures.after };
            into.add(took);
        }
        if let Some(ms) = app.late() {
            let last = if back { &mut figures.last_bad_ms } else { &mut figures.last_old_ms };
            *last = (*last).max(Some(ms));
        }
    }

    /// Forgets what the window shows: the way to the app was away, which says nothing about the app.
    pub fn forget(&self) {
        let now = clock::now();
        for app in self.state.lock().apps.values_mut() {
            app.window.clear();
            app.forgotten = Some(now);
        }
    }

    /// The last probes of each app.
    #[must_use]
    pub fn windows(&self) -> BTreeMap<AppName, ProbeWindow> {
        let inner = self.state.lock();
        inner
            .apps
            .iter()
            .map(|(name, app)| {
                let failed = app.window.iter().filter(|r| r.is_err()).count();
                let last = app.window.iter().rev().find_map(|r| r.as_ref().err().cloned());
                let window = ProbeWindow {
                    sent: u32::try_from(app.window.len()).unwrap_or(u32::MAX),
                    failed: u32::try_from(failed).unwrap_or(u32::MAX),
                    last,
                    blind: app.blind(),
                };
                (name.clone(), window)
            })
            .collect()
    }

    /// Everything so far.
    #[must_use]
    pub fn figures(&self) -> ProbeFigures {
        self.state.lock().figures()
    }

    /// Resolves when a probe failed.
    pub async fn failed(&self) {
        self.state.failed.notified().await;
    }

    /// Ends; probes under way are not counted.
    pub async fn stop(self) -> ProbeFigures {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.figures()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One prober of one app.
#[derive(Clone)]
struct One {
    target: Arc<ProbeTarget>,
    state: Arc<State>,
    fresh: bool,
}

type Sender = SendRequest<Full<Bytes>>;

impl One {
    async fn run(self, tasks: &TaskTracker, stop: &CancellationToken) {
        let mut tick = interval(self.target.interval.max(Duration::from_millis(1)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let slots = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
        let mut kept: Option<Sender> = None;
        loop {
            tick.tick().await;
            if self.fresh {
                let Ok(permit) = Arc::clone(&slots).try_acquire_owned() else { continue };
                let (one, stop) = (self.clone(), stop.clone());
                tasks.spawn(async move {
                    let _permit = permit;
                    tokio::select! {
                        () = stop.cancelled() => {}
                        _ = one.probe(None) => {}
                    }
                });
            } else {
                kept = self.probe(kept.take()).await;
            }
        }
    }

    /// Sends one and notes how it went. Gives the connection back if it can be used again.
    async fn probe(&self, kept: Option<Sender>) -> Option<Sender> {
        let (sent_at, begun) = (clock::now(), Instant::now());
        let answer = timeout(PATIENCE, self.exchange(kept)).await;
        let (result, sender) = match answer {
            Err(_) => (Err(format!("no answer in {} s", PATIENCE.as_secs())), None),
            Ok(Err(words)) => (Err(words), None),
            Ok(Ok((result, sender))) => (result, Some(sender)),
        };
        let lost = result.is_err();
        let outcome =
            Outcome { app: self.target.app.clone(), fresh: self.fresh, sent_at, took: begun.elapsed(), result };
        self.state.lock().note(outcome);
        self.state.any.notify_waiters();
        if lost {
            self.state.failed.notify_waiters();
        }
        sender
    }

    async fn exchange(&self, kept: Option<Sender>) -> Result<(Result<Option<String>, String>, Sender), String> {
        let what = format!("{} {}", if self.target.body.is_some() { "POST" } else { "GET" }, self.target.path);
        let mut reused = kept;
        loop {
            let mut usable = reused.take();
            if let Some(sender) = &mut usable
                && sender.ready().await.is_err()
            {
                usable = None;
            }
            let old = usable.is_some();
            let mut sender = match usable {
                Some(sender) => sender,
                None => connect(self.target.address).await?,
            };
            let answer = match sender.send_request(self.request()?).await {
                Ok(answer) => answer,
                // Closed while nothing was under way, before anything was sent: every client opens another one.
                Err(e) if old && e.is_canceled() => continue,
                Err(e) => return Err(format!("{what}: {}", words(&e))),
            };
            let status = answer.status();
            let slot = answer.headers().get(RELEASE_HEADER).and_then(|v| v.to_str().ok()).map(str::to_owned);
            if let Err(e) = Limited::new(answer.into_body(), MAX_BODY).collect().await {
                return Err(format!("{what}: the answer broke off: {e}"));
            }
            let result =
                if status.is_success() { Ok(slot) } else { Err(format!("{what} answered {}", status.as_u16())) };
            return Ok((result, sender));
        }
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, String> {
        let (method, body) = match &self.target.body {
            Some(body) => (Method::POST, Bytes::from(body.clone())),
            None => (Method::GET, Bytes::new()),
        };
        let mut request = Request::builder().method(method).uri(&self.target.path).header(HOST, &self.target.host);
        if self.target.https {
            // The prober comes through a listener without TLS; the app must not send it on to the one with.
            request = request.header("x-forwarded-proto", "https");
        }
        request
            .header("user-agent", "switchover-prober")
            .header(PROBE_HEADER, "1")
            .body(Full::new(body))
            .map_err(|e| format!("the probe can't be sent: {e}"))
    }
}

/// Opens a connection; its task ends with the sender.
pub(super) async fn connect(address: SocketAddr) -> Result<Sender, String> {
    let stream = TcpStream::connect(address).await.map_err(|e| format!("can't connect: {e}"))?;
    let _ = stream.set_nodelay(true);
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|e| format!("can't connect: {}", words(&e)))?;
    tokio::spawn(async move {
        // What went wrong is told to the sender.
        let _ = connection.await;
    });
    Ok(sender)
}

/// hyper hides the reason behind its own words.
pub(super) fn words(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

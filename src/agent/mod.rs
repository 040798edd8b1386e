//! The data plane of one host: listeners, routes, supervised processes; its unix-socket protocol.
//!
//! `switchover agent` is a process of its own, so that nothing that happens to the server touches a request. It holds
//! the listening sockets, sends each request to the slot that is active at that moment, and supervises the processes
//! of plain releases. The server is its [`Client`].
//!
//! * [`protocol`]: what is said over the socket.
//! * `rules`: what a command may do (fences, idempotency), pure; `state`: the durable file; `core`: both made live.
//! * `proxy`: the way of a request. `copy` and `process`: supervision.
//! * `status`: what is told of both. `ports`: those that the agent chooses.
//! * `control` and [`Client`]: the two ends of the socket; `start`: how the server gets an agent and keeps it.
//! * `handover`: the next agent takes the place of one that runs.
//!
//! What holds:
//! * A pointer is on disk before it moves, and it moves before the command is answered.
//! * A command with a lower epoch than the claimed one changes nothing.
//! * Processes live on when the agent dies: the next one finds them by number and start time, or by their output,
//!   and starts only what is gone. After a reboot it starts all that shall run and listens where it did.
//! * An agent that is started where one runs takes its place, and no request is lost by that.

mod client;
mod control;
mod copy;
mod core;
mod handover;
mod ports;
mod process;
pub mod protocol;
mod proxy;
mod rules;
mod start;
mod state;
mod status;

use std::{
    collections::HashMap,
    fs::{self, DirBuilder},
    io::{self, IsTerminal as _, Read as _, Seek as _, Write as _},
    net::SocketAddr,
    os::{
        fd::AsFd as _,
        unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::resource::{Resource, getrlimit, setrlimit},
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    client::{Client, ClientError, Hello, Switched},
    start::{ensure_running, keep_running},
};
use self::{
    core::{Agent, Ending},
    state::{Saved, Store},
};

/// Requests that still run when the agent ends get so long.
const DRAIN: Duration = Duration::from_secs(10);
/// An agent that is just dying may hold the lock a moment longer than its socket.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_LOOK: Duration = Duration::from_millis(5);
/// Between two rounds of closing unused connections and trying lost listeners again.
const ROUND: Duration = Duration::from_millis(250);
/// Descriptors asked for, and those kept for other things than connections (two each).
const FILES: u64 = 65_536;
const FILES_KEPT: u64 = 512;
const MIN_CONNECTIONS: u64 = 128;

/// How an agent is run.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Folder of `state.json`, `agent.sock` and the lock; made if it is missing. One agent each.
    pub data: PathBuf,
    /// Take a free place alone, never that of an agent that runs.
    pub only_free: bool,
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// One is there already.
    #[error("another agent{} holds {}: one agent per data folder", holder.map_or(String::new(), |p| format!(" (process {p})")), path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Its process.
        holder: Option<u32>,
    },
    /// The state can't be understood, and guessing which release is live could take a site down.
    #[error(
        "the agent's state {} can't be used: {why}; the state before it is {} (copy it over, or remove both to begin anew)",
        path.display(), backup.display()
    )]
    State {
        /// The file.
        path: PathBuf,
        /// The version before it.
        backup: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The machine refused something.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// What it said.
        error: io::Error,
    },
    /// An agent was started and did not come up.
    #[error("the agent did not come up{}; see {}", if last.is_empty() { String::new() } else { format!(": {last}") }, log.display())]
    NotUp {
        /// Its output.
        log: PathBuf,
        /// The end of it.
        last: String,
    },
    /// An agent is there and can't be spoken to.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl AgentError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }
}

/// Where an agent of this folder is spoken to. Folders longer than a socket's name may be are dealt with by
/// [`Client`] and agent.
#[must_use]
pub fn socket_path(data: &Path) -> PathBuf {
    data.join("agent.sock")
}

/// Runs an agent until `shutdown`, or until a client asks it to end. Processes of the slots go on then, unless the
/// client asked otherwise.
///
/// # Errors
/// [`AgentError`] when it can't begin.
pub async fn run(cfg: AgentConfig, shutdown: CancellationToken) -> Result<(), AgentError> {
    let data = cfg.data;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&data)
        .map_err(AgentError::io(format!("can't make the folder {}", data.display())))?;
    // Started by a server: what ends the server's session must not end the agent.
    if !io::stdin().is_terminal() {
        let _ = nix::unistd::setsid();
    }
    let store = Store::new(&data);
    let place = take_place(&data, &store, cfg.only_free).await?;
    let saved = load(&store)?;
    let limits = proxy::Limits {
        connections: Arc::new(Semaphore::new(connections())),
        tasks: TaskTracker::new(),
        tunnels: TaskTracker::new(),
    };
    let shared = (place.lock.as_fd().try_clone_to_owned()).and_then(|lock| Ok((lock, place.control.share()?)));
    let agent = Agent::start(store, saved, limits.clone(), place.listeners, place.elder).await;
    let (lock, control) = (place.lock, place.control);
    match shared {
        Ok((lock, control)) => agent.keep(lock, control),
        Err(e) => tracing::warn!(error = %e, "this agent will not be able to hand over"),
    }
    let mut ending = agent.ending.subscribe();
    let speaking = control.serve(Arc::clone(&agent));
    let mut rounds = tokio::time::interval(ROUND);
    tracing::info!(data = %data.display(), pid = std::process::id(), "agent is up");
    let how = loop {
        tokio::select! {
            () = shutdown.cancelled() => break Ending::Leave,
            asked = ending.wait_for(Option::is_some) => break asked.ok().and_then(|a| *a).unwrap_or(Ending::Leave),
            _ = rounds.tick() => {
                agent.expire();
                agent.retry_listeners().await;
            }
        }
    };
    tracing::info!(?how, "agent ends");
    agent.keep_no_more();
    if how == Ending::HandedOver {
        speaking.leave();
        end_as_elder(&agent, &limits, lock, shutdown).await;
        return Ok(());
    }
    agent.stop_listening();
    limits.tasks.close();
    if how == Ending::StopSlots {
        let _ = tokio::time::timeout(DRAIN, limits.tasks.wait()).await;
    }
    agent.stop_supervising(how).await;
    speaking.end(&socket_path(&data)).await;
    let _frozen = agent.freeze().await;
    // From here on the next agent may take over; what still runs here are answers.
    drop(lock);
    let _ = tokio::time::timeout(DRAIN, limits.tasks.wait()).await;
    Ok(())
}

/// What an agent needs to begin.
struct Place {
    lock: Flock<fs::File>,
    control: control::Control,
    listeners: HashMap<SocketAddr, std::net::TcpListener>,
    /// The agent before, if it still lives.
    elder: Option<handover::Link>,
}

/// Takes a free place, or that of the agent that runs.
async fn take_place(data: &Path, store: &Store, only_free: bool) -> Result<Place, AgentError> {
    let socket = socket_path(data);
    if let Ok(lock) = lock(data, Duration::ZERO).await {
        return Ok(Place { lock, control: control::Control::bind(&socket)?, listeners: HashMap::new(), elder: None });
    }
    let asked = if only_free { None } else { handover::ask(&socket).await? };
    let Some(mut inheritance) = asked else {
        let lock = lock(data, LOCK_WAIT).await?;
        return Ok(Place { lock, control: control::Control::bind(&socket)?, listeners: HashMap::new(), elder: None });
    };
    // The one that runs goes on if this fails.
    load(store)?;
    let failed = |error| AgentError::Io { what: "the agent that runs did not hand over".to_owned(), error };
    inheritance.begin().await.map_err(failed)?;
    tracing::info!("took the place of the agent that ran");
    let handover::Inheritance { lock, control, listeners, link } = inheritance;
    // The lock belongs to the open file, which both processes share.
    let mut lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| failed(e.into()))?;
    note_holder(&mut lock).map_err(failed)?;
    let control = control::Control::inherit(control).map_err(failed)?;
    Ok(Place { lock, control, listeners, elder: Some(link) })
}

/// Ends what was begun here; the next agent has all else.
async fn end_as_elder(agent: &Arc<Agent>, limits: &proxy::Limits, lock: Flock<fs::File>, shutdown: CancellationToken) {
    let Some(link) = agent.link() else { return };
    let done = CancellationToken::new();
    let (all, is_done) = (limits.clone(), done.clone());
    tokio::spawn(async move {
        for tracker in [all.tasks, all.tunnels] {
            tracker.close();
            tracker.wait().await;
        }
        is_done.cancel();
    });
    let heir_lives = tokio::select! {
        lives = handover::serve_out(agent, link, done.clone()) => lives,
        () = shutdown.cancelled() => true,
    };
    if heir_lives {
        // Both processes share the lock; unlocked here, it would be lost there.
        std::mem::forget(lock);
    } else {
        tracing::warn!("the next agent is gone; its place is free");
        drop(lock);
        tokio::select! {
            () = done.cancelled() => {}
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(handover::LAST) => {}
        }
    }
    agent.stop_listening();
    let _ = tokio::time::timeout(DRAIN, limits.tasks.wait()).await;
}

fn load(store: &Store) -> Result<Saved, AgentError> {
    let boot = process::boot_id().map_err(AgentError::io("can't read the boot's id from /proc"))?;
    let loaded = store.load()?;
    let mut saved = loaded.clone().unwrap_or_else(|| Saved::new(boot.clone()));
    if saved.adapt_to_boot(&boot) {
        tracing::info!("the host was started anew: so is all that shall run");
    }
    saved.forget_removed();
    if loaded.as_ref() != Some(&saved) {
        store.write(&saved).map_err(AgentError::io("can't write the state"))?;
    }
    Ok(saved)
}

/// Writes down who holds the lock.
fn note_holder(held: &mut Flock<fs::File>) -> io::Result<()> {
    let pid = std::process::id().to_string();
    held.set_len(0).and_then(|()| held.rewind()).and_then(|()| held.write_all(pid.as_bytes()))
}

async fn lock(data: &Path, wait: Duration) -> Result<Flock<fs::File>, AgentError> {
    let path = data.join("agent.lock");
    let what = format!("can't lock {}", path.display());
    let open = || fs::OpenOptions::new().create(true).read(true).write(true).truncate(false).mode(0o600).open(&path);
    let mut file = open().map_err(AgentError::io(what.clone()))?;
    let deadline = Instant::now() + wait;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut held) => {
                note_holder(&mut held).map_err(AgentError::io(what))?;
                return Ok(held);
            }
            Err((mut back, _)) if Instant::now() >= deadline => {
                let mut holder = String::new();
                let _ = back.read_to_string(&mut holder);
                return Err(AgentError::Locked { path, holder: holder.trim().parse().ok() });
            }
            Err((back, _)) => file = back,
        }
        tokio::time::sleep(LOCK_LOOK).await;
    }
}

/// Raises the limit of open files as far as is allowed and says how many clients fit into it.
fn connections() -> usize {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1_024, 1_024));
    let wanted = hard.min(FILES).max(soft);
    let files = if setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() { wanted } else { soft };
    let fit = (files.min(FILES).saturating_sub(FILES_KEPT) / 2).max(MIN_CONNECTIONS);
    usize::try_from(fit).unwrap_or(usize::MAX)
}

//! The agent's end of the unix socket. What comes in is not trusted to be well formed, short or fast.

use std::{
    fs,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt as _;
use serde::Serialize;
use tokio::{
    io::AsyncWriteExt as _,
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, broadcast::error::RecvError},
};
use tokio_util::{
    codec::{FramedRead, LinesCodec, LinesCodecError},
    sync::CancellationToken,
    task::TaskTracker,
};

use super::{
    AgentError,
    core::Agent,
    protocol::{ErrorCode, Reply, Request},
};

/// One request; an environment may be large.
const MAX_LINE: usize = 4 * 1024 * 1024;
const MAX_CLIENTS: usize = 256;
/// A client that does not take its answer is let go.
const WRITE: Duration = Duration::from_secs(10);
/// Running commands get so long at the end.
const END: Duration = Duration::from_secs(2);
/// `sun_path` of unix(7) is 108 bytes with its end.
const MAX_PATH: usize = 107;

/// A name for the socket that fits: long ones go through an open descriptor of their folder, which must be kept open
/// while the name is used.
pub(super) fn short_path(path: &Path) -> std::io::Result<(PathBuf, Option<fs::File>)> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok((path.to_owned(), None)) };
    if path.as_os_str().len() <= MAX_PATH {
        return Ok((path.to_owned(), None));
    }
    let folder = fs::File::open(folder)?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name), Some(folder)))
}

/// The socket, before anyone is answered.
#[derive(Debug)]
pub(super) struct Control(UnixListener);

/// The socket, being served.
#[derive(Debug)]
pub(super) struct Speaking {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Control {
    /// Takes the place of a dead agent's socket; the caller holds the lock.
    pub(super) fn bind(path: &Path) -> Result<Self, AgentError> {
        let failed = |error| AgentError::Io { what: format!("can't make the socket {}", path.display()), error };
        // Made beside and moved: nobody ever meets it with other permissions, or a name without a listener.
        let fresh = path.with_extension("new");
        let _ = fs::remove_file(&fresh);
        let (short, _folder) = short_path(&fresh).map_err(failed)?;
        let listener = UnixListener::bind(short).map_err(failed)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        fs::rename(&fresh, path).map_err(failed)?;
        Ok(Self(listener))
    }

    /// The socket of the agent before.
    pub(super) fn inherit(listener: std::os::unix::net::UnixListener) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self(UnixListener::from_std(listener)?))
    }

    /// For the next agent.
    pub(super) fn share(&self) -> std::io::Result<OwnedFd> {
        self.0.as_fd().try_clone_to_owned()
    }

    pub(super) fn serve(self, agent: Arc<Agent>) -> Speaking {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (stopped, of_clients) = (stop.clone(), tasks.clone());
        tasks.spawn(async move {
            let clients = Arc::new(Semaphore::new(MAX_CLIENTS));
            loop {
                let accepted = tokio::select! {
                    () = stopped.cancelled() => return,
                    accepted = self.0.accept() => accepted,
                };
                let stream = match accepted {
                    Ok((stream, _)) => stream,
                    Err(e) => {
                        tracing::warn!(error = %e, "can't accept on the agent's socket");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                };
                let own = nix::unistd::geteuid().as_raw();
                if !stream.peer_cred().is_ok_and(|c| c.uid() == own || c.uid() == 0) {
                    tracing::warn!("a stranger on the agent's socket was refused");
                    continue;
                }
                let Ok(permit) = Arc::clone(&clients).try_acquire_owned() else {
                    tracing::warn!(limit = MAX_CLIENTS, "too many clients on the agent's socket");
                    continue;
                };
                let (agent, stop) = (Arc::clone(&agent), stopped.clone());
                of_clients.spawn(async move {
                    speak(&agent, stream, &stop).await;
                    drop(permit);
                });
            }
        });
        Speaking { stop, tasks }
    }
}

impl Speaking {
    /// Leaves the socket to the next agent.
    pub(super) fn leave(&self) {
        self.stop.cancel();
    }

    /// Ends all connections; answers under way are still given.
    pub(super) async fn end(self, path: &Path) {
        let _ = fs::remove_file(path);
        self.stop.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(END, self.tasks.wait()).await;
    }
}

async fn send<T: Serialize>(out: &mut OwnedWriteHalf, message: &T) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    tokio::time::timeout(WRITE, out.write_all(&line)).await?
}

async fn speak(agent: &Arc<Agent>, stream: UnixStream, stop: &CancellationToken) {
    let (read, mut write) = stream.into_split();
    let mut lines = FramedRead::new(read, LinesCodec::new_with_max_length(MAX_LINE));
    loop {
        let line = tokio::select! {
            () = stop.cancelled() => return,
            line = lines.next() => line,
        };
        let refused = |message: String| Reply::Error { code: ErrorCode::Invalid, message };
        let reply = match line {
            None => return,
            Some(Err(e)) => {
                let why = match e {
                    LinesCodecError::MaxLineLengthExceeded => format!("a request has more than {MAX_LINE} bytes"),
                    LinesCodecError::Io(e) => format!("a request is one line of JSON in UTF-8: {e}"),
                };
                let _ = send(&mut write, &refused(why)).await;
                return;
            }
            Some(Ok(line)) => match serde_json::from_str::<Request>(&line) {
                Err(e) => refused(format!("not a request: {}", without_values(&e))),
                Ok(Request::Subscribe) => return events(agent, lines, write, stop).await,
                Ok(Request::HandOver { protocol }) => match agent.begin_hand_over(protocol) {
                    Ok(fixed) => return hand_over(agent, fixed, lines, write).await,
                    Err(why) => Reply::Error { code: why.code, message: why.message },
                },
                Ok(request) => {
                    let reply = tokio::select! {
                        // Only waiting is broken off; a change always comes to its end.
                        () = stop.cancelled(), if matches!(request, Request::WaitIdle { .. }) => return,
                        // The next agent has the state now: it is asked again.
                        () = agent.has_let_go() => return,
                        reply = agent.answer(request.clone()) => reply,
                    };
                    // A stop that was given up is not done: better no answer than a wrong one.
                    if agent.is_closed() || agent.has_ended() && waits(&request) {
                        return;
                    }
                    reply
                }
            },
        };
        if send(&mut write, &reply).await.is_err() {
            return;
        }
    }
}

async fn hand_over(
    agent: &Arc<Agent>,
    fixed: [OwnedFd; 2],
    lines: FramedRead<OwnedReadHalf, LinesCodec>,
    write: OwnedWriteHalf,
) {
    let Ok(stream) = lines.into_inner().reunite(write) else { return agent.hand_over_failed() };
    match super::handover::hand_over(agent, fixed, stream).await {
        Ok(link) => agent.end_with(link),
        Err(e) => {
            tracing::error!(error = %e, "the next agent did not take over; this one goes on");
            agent.hand_over_failed();
        }
    }
}

/// Commands that are answered when processes have ended.
fn waits(request: &Request) -> bool {
    matches!(request, Request::SetRunning { .. } | Request::RemoveSlot { .. } | Request::RemoveService { .. })
}

/// serde_json's messages quote values, and those may be secrets: only the kind of the mistake is told.
pub(super) fn without_values(e: &serde_json::Error) -> &'static str {
    match e.classify() {
        serde_json::error::Category::Data => "a field is missing, unknown or of the wrong type",
        _ => "it is not JSON",
    }
}

async fn events(
    agent: &Arc<Agent>,
    mut lines: FramedRead<OwnedReadHalf, LinesCodec>,
    mut write: OwnedWriteHalf,
    stop: &CancellationToken,
) {
    let mut events = agent.subscribe();
    if send(&mut write, &Reply::Ok).await.is_err() {
        return;
    }
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            // Nothing more is expected; the end is.
            line = lines.next() => match line {
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return,
            },
            event = events.recv() => match event {
                Ok(event) => event,
                // It missed some: it must subscribe and ask for the status anew.
                Err(RecvError::Lagged(_) | RecvError::Closed) => return,
            },
        };
        if send(&mut write, &event).await.is_err() {
            return;
        }
    }
}

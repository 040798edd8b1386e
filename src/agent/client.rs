//! The server's end of the unix socket. A connection per command: an agent that was restarted between two is no fault.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::BoxStream};
use jiff::Timestamp;
use tokio::{
    io::AsyncWriteExt as _,
    net::{UnixStream, unix::OwnedReadHalf, unix::OwnedWriteHalf},
};
use tokio_util::codec::{FramedRead, LinesCodec};

use super::{
    control::short_path,
    protocol::{
        AgentStatus, Door, ErrorCode, Event, PROTOCOL, Reply, Request, ServiceStatus, SlotSource, SlotStatus, TlsFiles,
    },
};
use crate::domain::ids::Epoch;

/// An agent that lives answers a command in milliseconds; a full disk may take longer.
const ANSWER: Duration = Duration::from_secs(15);
/// Commands that stop processes wait for their grace time.
const STOP: Duration = Duration::from_secs(15 * 60);
/// A new agent is up in some ten milliseconds; each side of a hand-over waits 15 s for the other.
const UPGRADE: Duration = Duration::from_secs(40);
/// One answer; the state of a host with many releases is large.
const MAX_LINE: usize = 64 * 1024 * 1024;

/// Why a command was not carried out, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No agent answers. Whether a command that was sent took effect is unknown: look at the status.
    #[error("no agent at {}: {why}", socket.display())]
    Unavailable {
        /// Where it was looked for.
        socket: PathBuf,
        /// What happened.
        why: String,
    },
    /// The agent said no.
    #[error("the agent refused: {message}")]
    Refused {
        /// For the program.
        code: ErrorCode,
        /// For people.
        message: String,
    },
    /// Something answers, and it is not an agent that can be understood.
    #[error("the agent can't be understood: {0}")]
    Protocol(String),
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The agent's own version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Since when.
    pub started_at: Timestamp,
}

/// A pointer that stands where it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switched {
    /// When it moved (the first time, if it stood there already).
    pub at: Timestamp,
    /// Where it pointed before.
    pub previous: Option<String>,
}

/// Speaks to the agent of one host. Cheap to clone; safe to use from many tasks.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

type Lines = FramedRead<OwnedReadHalf, LinesCodec>;

macro_rules! expect {
    ($reply:expr, $pattern:pat => $value:expr) => {
        match $reply {
            $pattern => Ok($value),
            other => Err(unexpected(&other)),
        }
    };
}

fn unexpected(reply: &Reply) -> ClientError {
    let kind = match reply {
        Reply::Hello { .. } => "hello",
        Reply::Status(_) => "status",
        Reply::Service(_) => "service",
        Reply::Slot(_) => "slot",
        Reply::Switched { .. } => "switched",
        Reply::Idle { .. } => "idle",
        Reply::Ok => "ok",
        Reply::Error { .. } => "error",
    };
    ClientError::Protocol(format!("it answered {kind:?}, which does not belong to the request"))
}

/// Every method fails with [`ClientError`]: `Refused` means that nothing was changed, after `Unavailable` the same
/// command may be sent again.
impl Client {
    /// For the agent behind this socket, whether it runs already or not.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    fn away(&self, why: impl ToString) -> ClientError {
        ClientError::Unavailable { socket: self.socket.clone(), why: why.to_string() }
    }

    async fn open(&self, request: &Request) -> Result<(Lines, OwnedWriteHalf), ClientError> {
        let (path, _folder) = short_path(&self.socket).map_err(|e| self.away(e))?;
        let stream = UnixStream::connect(path).await.map_err(|e| self.away(e))?;
        let (read, mut write) = stream.into_split();
        let mut line = serde_json::to_vec(request).map_err(|e| ClientError::Protocol(e.to_string()))?;
        line.push(b'\n');
        write.write_all(&line).await.map_err(|e| self.away(e))?;
        Ok((FramedRead::new(read, LinesCodec::new_with_max_length(MAX_LINE)), write))
    }

    async fn reply(&self, lines: &mut Lines) -> Result<Reply, ClientError> {
        let line = match lines.next().await {
            None => return Err(self.away("it ended before it answered")),
            Some(Err(e)) => return Err(self.away(e)),
            Some(Ok(line)) => line,
        };
        match serde_json::from_str(&line) {
            Ok(Reply::Error { code, message }) => Err(ClientError::Refused { code, message }),
            Ok(reply) => Ok(reply),
            Err(e) => Err(ClientError::Protocol(format!("its answer is no reply: {e}"))),
        }
    }

    async fn call_within(&self, request: &Request, time: Duration) -> Result<Reply, ClientError> {
        let call = async {
            let (mut lines, _write) = self.open(request).await?;
            self.reply(&mut lines).await
        };
        tokio::time::timeout(time, call).await.unwrap_or_else(|_| Err(self.away(format!("no answer in {time:?}"))))
    }

    async fn call(&self, request: &Request) -> Result<Reply, ClientError> {
        self.call_within(request, ANSWER).await
    }

    /// Asks who answers; refuses an agent with another protocol.
    pub async fn hello(&self) -> Result<Hello, ClientError> {
        match self.call(&Request::Hello).await? {
            Reply::Hello { protocol, .. } if protocol != PROTOCOL => Err(ClientError::Protocol(format!(
                "it speaks protocol {protocol}, this server {PROTOCOL}: run both from the same release"
            ))),
            Reply::Hello { version, pid, started_at, .. } => Ok(Hello { version, pid, started_at }),
            other => Err(unexpected(&other)),
        }
    }

    /// Everything, as it is now.
    pub async fn status(&self) -> Result<AgentStatus, ClientError> {
        expect!(self.call(&Request::Status).await?, Reply::Status(status) => status)
    }

    /// Makes or changes a service ([`Request::PutService`]).
    pub async fn put_service(
        &self,
        service: &str,
        listen: Option<SocketAddr>,
        hosts: &[String],
    ) -> Result<ServiceStatus, ClientError> {
        self.put_service_with(service, listen, hosts, Vec::new(), None).await
    }

    /// The same with further listeners, and with TLS on the first one.
    pub async fn put_service_with(
        &self,
        service: &str,
        listen: Option<SocketAddr>,
        hosts: &[String],
        doors: Vec<Door>,
        tls: Option<TlsFiles>,
    ) -> Result<ServiceStatus, ClientError> {
        let request = Request::PutService { service: service.to_owned(), listen, hosts: hosts.to_vec(), doors, tls };
        expect!(self.call(&request).await?, Reply::Service(status) => status)
    }

    /// Forgets a service; answered when its processes have ended ([`Request::RemoveService`]).
    pub async fn remove_service(&self, service: &str, epoch: Epoch) -> Result<(), ClientError> {
        let request = Request::RemoveService { service: service.to_owned(), epoch };
        expect!(self.call_within(&request, STOP).await?, Reply::Ok => ())
    }

    /// Fences lower epochs off ([`Request::Claim`]).
    pub async fn claim(&self, service: &str, epoch: Epoch) -> Result<(), ClientError> {
        expect!(self.call(&Request::Claim { service: service.to_owned(), epoch }).await?, Reply::Ok => ())
    }

    /// Makes a slot and starts it ([`Request::PutSlot`]).
    pub async fn put_slot(
        &self,
        service: &str,
        slot: &str,
        epoch: Epoch,
        source: SlotSource,
    ) -> Result<SlotStatus, ClientError> {
        let request = Request::PutSlot { service: service.to_owned(), slot: slot.to_owned(), epoch, source };
        expect!(self.call(&request).await?, Reply::Slot(status) => status)
    }

    /// Changes where a slot of upstreams answers ([`Request::SetUpstreams`]).
    pub async fn set_upstreams(
        &self,
        service: &str,
        slot: &str,
        epoch: Epoch,
        addresses: Vec<SocketAddr>,
    ) -> Result<SlotStatus, ClientError> {
        let request = Request::SetUpstreams { service: service.to_owned(), slot: slot.to_owned(), epoch, addresses };
        expect!(self.call(&request).await?, Reply::Slot(status) => status)
    }

    /// Starts or stops a slot's processes; a stop is answered when they have ended ([`Request::SetRunning`]).
    pub async fn set_running(
        &self,
        service: &str,
        slot: &str,
        epoch: Epoch,
        running: bool,
    ) -> Result<SlotStatus, ClientError> {
        let request = Request::SetRunning { service: service.to_owned(), slot: slot.to_owned(), epoch, running };
        expect!(self.call_within(&request, STOP).await?, Reply::Slot(status) => status)
    }

    /// Stops a slot and forgets it; answered when its processes have ended ([`Request::RemoveSlot`]). One that is
    /// gone already is fine.
    pub async fn remove_slot(&self, service: &str, slot: &str, epoch: Epoch) -> Result<(), ClientError> {
        let request = Request::RemoveSlot { service: service.to_owned(), slot: slot.to_owned(), epoch };
        expect!(self.call_within(&request, STOP).await?, Reply::Ok => ())
    }

    /// Points the service at a slot ([`Request::Switch`]).
    pub async fn switch(
        &self,
        service: &str,
        epoch: Epoch,
        from: Option<&str>,
        to: &str,
    ) -> Result<Switched, ClientError> {
        let (service, from, to) = (service.to_owned(), from.map(str::to_owned), to.to_owned());
        let request = Request::Switch { service, epoch, from, to };
        expect!(self.call(&request).await?, Reply::Switched { at, previous } => Switched { at, previous })
    }

    /// Waits until a slot has no request in flight, at most `timeout`; says how many still are.
    pub async fn wait_idle(&self, service: &str, slot: &str, timeout: Duration) -> Result<u64, ClientError> {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let request = Request::WaitIdle { service: service.to_owned(), slot: slot.to_owned(), timeout_ms };
        let time = timeout.saturating_add(ANSWER);
        expect!(self.call_within(&request, time).await?, Reply::Idle { in_flight } => in_flight)
    }

    /// Ends the agent; with `stop_slots` the processes as well. Returns when it no longer answers.
    pub async fn shutdown(&self, stop_slots: bool) -> Result<(), ClientError> {
        let (mut lines, _write) = self.open(&Request::Shutdown { stop_slots }).await?;
        expect!(self.reply(&mut lines).await?, Reply::Ok => ())?;
        // The connection's end is the agent's.
        while let Some(Ok(_)) = lines.next().await {}
        Ok(())
    }

    /// Events from now on. The stream ends with the connection, also when it was read too slowly: subscribe anew, then
    /// ask for the status.
    pub async fn subscribe(&self) -> Result<BoxStream<'static, Event>, ClientError> {
        let (mut lines, write) = self.open(&Request::Subscribe).await?;
        expect!(self.reply(&mut lines).await?, Reply::Ok => ())?;
        let events = futures_util::stream::unfold((lines, write), |(mut lines, write)| async move {
            loop {
                let line = lines.next().await?.ok()?;
                // An event that a newer agent knows and we don't.
                if let Ok(event) = serde_json::from_str(&line) {
                    return Some((event, (lines, write)));
                }
            }
        });
        Ok(events.boxed())
    }

    /// Has the agent start this program in its place, and hand over to it: no request is lost ([`Request::Upgrade`]).
    /// Says who answers from then on.
    pub async fn upgrade(&self, exe: &Path) -> Result<Hello, ClientError> {
        let before = self.hello().await?;
        match self.call_within(&Request::Upgrade { exe: exe.to_owned() }, UPGRADE).await {
            // The connection's end is the agent's.
            Err(ClientError::Unavailable { .. }) => {}
            Ok(other) => return Err(unexpected(&other)),
            Err(other) => return Err(other),
        }
        let deadline = tokio::time::Instant::now() + UPGRADE;
        loop {
            let why = match self.hello().await {
                Ok(now) if now.pid != before.pid => return Ok(now),
                Ok(_) => self.away("the same agent answers as before"),
                Err(away) => away,
            };
            if tokio::time::Instant::now() >= deadline {
                return Err(why);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Returns when the agent that answers now has ended.
    pub(super) async fn gone(&self) -> Result<(), ClientError> {
        let (mut lines, _write) = self.open(&Request::Hello).await?;
        while let Some(Ok(_)) = lines.next().await {}
        Ok(())
    }
}

//! What the server and the agent say to each other: one JSON object per line over a unix socket.
//!
//! The client sends a [`Request`], the agent answers with one [`Reply`]. After [`Request::Subscribe`] the agent
//! sends [`Event`]s until the connection ends. Unknown fields are ignored, so both sides may be a version apart.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::ids::Epoch;

/// Version of this protocol; a client refuses an agent with another major one.
pub const PROTOCOL: u32 = 1;

/// One route or one worker: `REPOSITORY-NUMBER/ENVIRONMENT/APP`.
pub type ServiceId = String;

/// What is asked of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Who are you?
    Hello,
    /// Everything, as it is now.
    Status,
    /// Make or change a service. Does nothing when it is so already.
    PutService {
        /// Which.
        service: ServiceId,
        /// Where requests come in; port 0: the agent chooses one and keeps it. None: a worker.
        listen: Option<SocketAddr>,
        /// Host names of this service where several share a listener. Empty: all.
        #[serde(default)]
        hosts: Vec<String>,
        /// Further listeners.
        #[serde(default)]
        doors: Vec<Door>,
        /// The listener speaks TLS with these files.
        #[serde(default)]
        tls: Option<TlsFiles>,
    },
    /// Forget a service, its slots and its listener; answered when its processes have ended.
    RemoveService {
        /// Which.
        service: ServiceId,
        /// At least the claimed one.
        epoch: Epoch,
    },
    /// Fence: commands with a lower epoch are refused from now on.
    Claim {
        /// Which.
        service: ServiceId,
        /// The claim; equal to the current one is fine, lower is refused.
        epoch: Epoch,
    },
    /// Make a slot and start it. Does nothing when it is so already; a different spec under one name is refused.
    PutSlot {
        /// Which service.
        service: ServiceId,
        /// The slot: a release's name.
        slot: String,
        /// At least the claimed one.
        epoch: Epoch,
        /// What runs in it.
        source: SlotSource,
    },
    /// Change where a slot of upstreams answers. Durable before it is answered; known addresses keep their
    /// connections. Does nothing when it is so already.
    SetUpstreams {
        /// Which service.
        service: ServiceId,
        /// Which slot.
        slot: String,
        /// At least the claimed one.
        epoch: Epoch,
        /// Where it answers now.
        addresses: Vec<SocketAddr>,
    },
    /// Start or stop a slot's processes and keep its spec (workers; retired slots); a stop is answered when they have
    /// ended. The active slot of a routed service can't be stopped.
    SetRunning {
        /// Which service.
        service: ServiceId,
        /// Which slot.
        slot: String,
        /// At least the claimed one.
        epoch: Epoch,
        /// Whether it shall run.
        running: bool,
    },
    /// Stop a slot and forget it; answered when its processes have ended. The active one is refused, one that is not
    /// there is fine.
    RemoveSlot {
        /// Which service.
        service: ServiceId,
        /// Which slot.
        slot: String,
        /// At least the claimed one.
        epoch: Epoch,
    },
    /// Point the service at a slot. Durable before it is answered. Does nothing when it points there already.
    Switch {
        /// Which service.
        service: ServiceId,
        /// At least the claimed one.
        epoch: Epoch,
        /// The slot that must be active now; refused when another one is.
        from: Option<String>,
        /// The slot to point at.
        to: String,
    },
    /// Answered when the slot has no request in flight, or when the time is over.
    WaitIdle {
        /// Which service.
        service: ServiceId,
        /// Which slot.
        slot: String,
        /// At most so long, in milliseconds.
        timeout_ms: u64,
    },
    /// Events from now on, over this connection, after one [`Reply::Ok`].
    Subscribe,
    /// Said by the next agent: hand over the listeners, then end. What follows is no longer this protocol.
    HandOver {
        /// The next agent's [`PROTOCOL`].
        protocol: u32,
    },
    /// Start this program as the next agent, and hand over to it. There is no answer when that was done: the connection
    /// ends, and the next agent answers the socket.
    Upgrade {
        /// The program: `EXE agent --data FOLDER` is started.
        exe: PathBuf,
    },
    /// End. Processes of the slots go on when `stop_slots` is false, and the next agent takes them over.
    Shutdown {
        /// Stop them too.
        stop_slots: bool,
    },
}

/// A further listener of a service: for its neighbours, for TLS, for a redirect to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// Where; with a real port. One that can't be had is tried again until it can.
    pub listen: SocketAddr,
    /// Host names of this service, where several share a listener. Empty: all.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// It speaks TLS with these files.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// Nothing is forwarded: every request is sent on to `https://` at this port.
    #[serde(default)]
    pub https: Option<u16>,
}

/// A certificate and its key, as PEM files. Read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TlsFiles {
    /// The certificate, then those that lead to its root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What runs in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SlotSource {
    /// Processes that the agent starts and supervises.
    Process(ProcessSpec),
    /// Something that others run (containers): only routed to.
    Upstreams {
        /// Where it answers. None for a worker: it is only pointed at.
        addresses: Vec<SocketAddr>,
    },
}

/// Processes of a slot. Each copy gets `PORT` (a free one on 127.0.0.1) unless the service is a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment: nothing is inherited.
    pub env: BTreeMap<String, String>,
    /// Working folder.
    pub cwd: PathBuf,
    /// Copies.
    pub replicas: u32,
    /// Folder for their output: `COPY.log` (copies count from 0), rotated at 10 MB to `COPY.log.1`.
    pub log_dir: PathBuf,
    /// Between TERM and KILL, in milliseconds.
    pub stop_grace_ms: u64,
}

/// The agent's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Hello`].
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
        /// The agent's own version.
        version: String,
        /// Its process.
        pid: u32,
        /// Since when.
        started_at: Timestamp,
    },
    /// To [`Request::Status`].
    Status(AgentStatus),
    /// To [`Request::PutService`].
    Service(ServiceStatus),
    /// To [`Request::PutSlot`], [`Request::SetUpstreams`] and [`Request::SetRunning`].
    Slot(SlotStatus),
    /// To [`Request::Switch`].
    Switched {
        /// When the pointer moved (the first time, if it stood there already).
        at: Timestamp,
        /// Where it pointed before.
        previous: Option<String>,
    },
    /// To [`Request::WaitIdle`].
    Idle {
        /// Requests still in flight when the time was over; 0 when it is idle.
        in_flight: u64,
    },
    /// Done.
    Ok,
    /// Refused or failed.
    Error {
        /// For the program.
        code: ErrorCode,
        /// For people: what, why, what to do.
        message: String,
    },
}

/// Why the agent refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// A higher epoch was claimed: the caller is stale and must do nothing more.
    StaleEpoch,
    /// No such service or slot.
    NotFound,
    /// The live state is not the one that the caller expects.
    Conflict,
    /// The request can't be carried out as it is.
    Invalid,
    /// The machine refused (port taken, disk full, …).
    Failed,
}

/// Everything that the agent knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// All services by id.
    pub services: BTreeMap<ServiceId, ServiceStatus>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Where it listens, with the real port.
    pub listen: Option<SocketAddr>,
    /// Its further listeners.
    #[serde(default)]
    pub doors: Vec<Door>,
    /// Of all these, those that can't be had just now.
    #[serde(default)]
    pub missing: Vec<SocketAddr>,
    /// Claimed epoch.
    pub epoch: Epoch,
    /// The slot that serves.
    pub active: Option<String>,
    /// Since when.
    pub switched_at: Option<Timestamp>,
    /// All slots by name.
    pub slots: BTreeMap<String, SlotStatus>,
    /// Requests that found no slot or no living copy (answered 503).
    pub unrouted: u64,
}

/// One slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// What runs in it.
    pub source: SlotSource,
    /// Whether it shall run.
    pub running: bool,
    /// Its copies.
    pub instances: Vec<InstanceStatus>,
    /// What it answered.
    pub counters: Counters,
}

/// One copy of a slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Where it listens (none for workers).
    pub address: Option<SocketAddr>,
    /// Its process, while it lives and is ours.
    pub pid: Option<u32>,
    /// Starts after the first one.
    pub restarts: u32,
    /// When the living process began.
    pub started_at: Option<Timestamp>,
    /// How the last one ended, in words (`exit code 3`, `signal 9`).
    pub last_exit: Option<String>,
    /// The last lines it printed, when it ended by itself (at most 30).
    pub last_output: Vec<String>,
}

/// Requests since the slot was made, or since this agent began (`started_at` of [`Reply::Hello`]) if that was later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Forwarded.
    pub requests: u64,
    /// Answered with 5xx by the app.
    pub server_errors: u64,
    /// Not answered: the app refused or broke the connection (the client got 502 or a cut stream).
    pub cut: u64,
    /// Being answered now.
    pub in_flight: u64,
}

/// What the agent tells its subscribers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A copy started, ended or is started again: ask for the status.
    Changed {
        /// Which service.
        service: ServiceId,
        /// Which slot.
        slot: String,
    },
    /// The pointer moved.
    Switched {
        /// Which service.
        service: ServiceId,
        /// Where to.
        slot: String,
        /// When.
        at: Timestamp,
    },
}

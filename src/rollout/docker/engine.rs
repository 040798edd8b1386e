//! What is asked of the engine, and what its answers mean.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bollard::{
    container::LogOutput,
    errors::Error,
    models::{
        ContainerInspectResponse, ContainerSummary, ContainerSummaryStateEnum as State, EventMessage, HealthStatusEnum,
    },
    query_parameters::{
        EventsOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder, LogsOptionsBuilder,
        RemoveContainerOptionsBuilder, StopContainerOptions,
    },
};
use futures_util::{FutureExt as _, StreamExt as _, stream::BoxStream};

use super::names;
use crate::{
    clock,
    docker::{Docker, KIND, OWNER},
    domain::{
        ids::{AppName, Slot},
        rollout::EnvironmentKey,
    },
    rollout::{TargetError, shared::AWAY},
};

/// Lines of a container's output that are told when it does badly.
pub(super) const TAIL: usize = 30;
/// The longest such line, in characters.
const LINE: usize = 500;
/// A container may take so much longer than its grace to be gone.
const STOP_SLACK: Duration = Duration::from_secs(30);
/// Docker's own grace, where a container names none ("docker container stop").
const STOP_DEFAULT: u64 = 10;
/// In the words of an end by KILL.
const KILLED: &str = "exit code 137";
/// Between two looks at a container that is to stop after the engine's answer was lost.
const STOP_LOOK: Duration = Duration::from_millis(200);

/// Why the engine did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// It does not answer; whether it did it is unknown.
    Away(String),
    /// There is no such thing.
    Missing(String),
    /// There is one already, or its state forbids it.
    Conflict(String),
    /// It refused or failed.
    Refused(String),
}

impl Fault {
    pub(super) fn words(&self) -> &str {
        match self {
            Self::Away(w) | Self::Missing(w) | Self::Conflict(w) | Self::Refused(w) => w,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => match status_code {
                404 => Self::Missing(message),
                409 => Self::Conflict(message),
                // What a daemon says that is just going away.
                500 | 503 if message.contains("shutdown") || message.contains("context canceled") => {
                    Self::Away(message)
                }
                _ => Self::Refused(message),
            },
            Error::DockerStreamError { error } => Self::Refused(error),
            Error::JsonDataError { message, .. } => Self::Refused(format!("its answer can't be read: {message}")),
            Error::DockerContainerWaitError { error, .. } => Self::Refused(error),
            other => Self::Away(other.to_string()),
        }
    }
}

impl From<Fault> for TargetError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Away(why) => Self::Unreachable(format!("the Docker engine does not answer: {why}")),
            Fault::Missing(why) | Fault::Conflict(why) | Fault::Refused(why) => {
                Self::Failed(format!("the Docker engine refused: {why}"))
            }
        }
    }
}

/// A container of ours, as the engine lists it.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub id: String,
    pub app: AppName,
    pub slot: Slot,
    pub number: u32,
    pub replicas: u32,
    pub epoch: i64,
    pub digest: String,
    /// For life.
    pub address: Option<SocketAddr>,
    /// Where it is now, if it runs.
    pub now_at: Option<IpAddr>,
    pub health: Option<String>,
    pub state: State,
    /// `Up 3 seconds (healthy)`: changes with every start.
    pub status: String,
}

impl Found {
    fn read(listed: ContainerSummary) -> Option<Self> {
        let labels = listed.labels?;
        let label = |name: &str| labels.get(name).map(String::as_str);
        let networks = listed.network_settings.and_then(|n| n.networks).unwrap_or_default();
        let mut ips = networks.values().filter_map(|n| n.ip_address.as_ref()?.parse().ok());
        Some(Self {
            id: listed.id?,
            app: AppName::new(label(names::APP)?).ok()?,
            slot: Slot::new(label(names::SLOT_NAME)?).ok()?,
            number: label(names::COPY)?.parse().ok()?,
            replicas: label(names::REPLICAS)?.parse().ok()?,
            epoch: label(names::EPOCH).and_then(|e| e.parse().ok()).unwrap_or(0),
            digest: label(names::DIGEST).unwrap_or_default().to_owned(),
            address: label(names::ADDRESS).and_then(|a| a.parse().ok()),
            now_at: ips.next(),
            health: label(names::HEALTH).map(str::to_owned),
            state: listed.state.unwrap_or(State::EMPTY),
            status: listed.status.unwrap_or_default(),
        })
    }

    /// Whether the engine keeps it running: it runs, or will be started again.
    pub(super) fn is_kept(&self) -> bool {
        matches!(self.state, State::RUNNING | State::RESTARTING | State::PAUSED)
    }

    /// Where requests for it are to go.
    pub(super) fn route(&self) -> Option<SocketAddr> {
        let own = self.address?;
        Some(SocketAddr::new(self.now_at.unwrap_or(own.ip()), own.port()))
    }
}

/// What only an inspection tells.
#[derive(Debug, Clone, Default)]
pub(super) struct Details {
    /// State and status when it was looked at.
    seen: (String, String),
    /// When this process began: tells it from the one before.
    pub started: String,
    pub restarts: u32,
    /// How it ended last, in words.
    pub ended: Option<String>,
    /// What its image's HEALTHCHECK says; None: there is none.
    pub check: Option<HealthStatusEnum>,
    pub tail: Vec<String>,
    tail_at: Option<Instant>,
}

impl Details {
    fn new(listed: &Found, found: &ContainerInspectResponse, before: Option<&Self>) -> Self {
        let state = found.state.clone().unwrap_or_default();
        let limit = found.host_config.as_ref().and_then(|h| h.memory).filter(|m| *m > 0);
        let running = state.running == Some(true) && state.restarting != Some(true);
        let started = state.started_at.unwrap_or_default();
        // The engine writes the year 1 for never.
        let begun = !started.is_empty() && !started.starts_with("0001-");
        let ended = if running || !begun {
            // The engine forgets the last end at the next start.
            before.and_then(|b| b.ended.clone())
        } else if state.oom_killed == Some(true) {
            Some(out_of_memory_words(limit))
        } else {
            Some(exit_words(state.exit_code.unwrap_or(0), state.error.filter(|e| !e.is_empty())))
        };
        Self {
            seen: (listed.state.to_string(), listed.status.clone()),
            started,
            restarts: found.restart_count.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            ended,
            check: state
                .health
                .and_then(|h| h.status)
                .filter(|s| !matches!(s, HealthStatusEnum::NONE | HealthStatusEnum::EMPTY)),
            tail: before.map(|b| b.tail.clone()).unwrap_or_default(),
            tail_at: before.and_then(|b| b.tail_at),
        }
    }
}

impl Details {
    /// It ended since it was made, and the inspection does not say how: between its end and the engine's next start of it
    /// nobody looked, or it was killed and the engine had not heard of lacking memory yet.
    fn end_is_unclear(&self) -> bool {
        match &self.ended {
            None => self.restarts > 0,
            Some(words) => words.contains(KILLED),
        }
    }
}

fn out_of_memory_words(limit: Option<i64>) -> String {
    let of = limit.map(|m| format!(", its limit is {} MB", m / 1_000_000)).unwrap_or_default();
    format!("it ran out of memory{of}")
}

fn exit_words(code: i64, error: Option<String>) -> String {
    let error = error.map(|e| format!(" ({e})")).unwrap_or_default();
    let signal = if code > 128 { format!(", signal {}", code - 128) } else { String::new() };
    format!("it ended with exit code {code}{signal}{error}")
}

/// One engine, as the target needs it.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    docker: Docker,
}

impl Engine {
    pub(super) fn new(docker: Docker) -> Self {
        Self { docker }
    }

    pub(super) fn docker(&self) -> &Docker {
        &self.docker
    }

    pub(super) fn api(&self) -> &bollard::Docker {
        self.docker.api()
    }

    pub(super) fn owner(&self) -> &str {
        self.docker.owner()
    }

    fn filters(&self, kind: &str, key: &EnvironmentKey) -> HashMap<String, Vec<String>> {
        let labels =
            [format!("{OWNER}={}", self.owner()), format!("{KIND}={kind}"), format!("{}={key}", names::ENVIRONMENT)];
        HashMap::from([("label".to_owned(), labels.to_vec())])
    }

    /// Containers of that kind in an environment, whatever became of them.
    pub(super) async fn containers(&self, kind: &str, key: &EnvironmentKey) -> Result<Vec<ContainerSummary>, Fault> {
        let options = ListContainersOptionsBuilder::default().all(true).filters(&self.filters(kind, key)).build();
        Ok(self.api().list_containers(Some(options)).await?)
    }

    /// The slots' containers of an environment, by number.
    pub(super) async fn slots(&self, key: &EnvironmentKey) -> Result<Vec<Found>, Fault> {
        let mut found: Vec<_> = self.containers(names::SLOT, key).await?.into_iter().filter_map(Found::read).collect();
        found.sort_by_key(|f| f.number);
        Ok(found)
    }

    pub(super) async fn inspect(&self, name: &str) -> Result<ContainerInspectResponse, Fault> {
        Ok(self.api().inspect_container(name, None::<InspectContainerOptions>).await?)
    }

    /// What an inspection tells of a container, asked only when something happened since the last one.
    pub(super) async fn details(&self, listed: &Found, before: Option<Details>) -> Result<Details, Fault> {
        let seen = (listed.state.to_string(), listed.status.clone());
        match before {
            Some(known) if known.seen == seen => Ok(known),
            before => {
                let found = self.inspect(&listed.id).await?;
                let mut details = Details::new(listed, &found, before.as_ref());
                if details.end_is_unclear() {
                    self.recall(&listed.id, &found, &mut details).await;
                }
                Ok(details)
            }
        }
    }

    /// Asks the engine's memory of events how a container ended last. What it forgot stays unknown.
    async fn recall(&self, id: &str, found: &ContainerInspectResponse, details: &mut Details) {
        let filters = HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("container".to_owned(), vec![id.to_owned()]),
            ("event".to_owned(), vec!["die".to_owned(), "oom".to_owned()]),
        ]);
        // From its beginning until now: the engine answers with what it remembers, and ends the stream.
        let now = clock::now();
        let until = format!("{}.{:09}", now.as_second(), now.subsec_nanosecond());
        let options = EventsOptionsBuilder::default().since("0").until(&until).filters(&filters).build();
        let mut past = std::pin::pin!(self.api().events(Some(options)));
        let (mut code, mut out_of_memory) = (None, false);
        while let Some(Ok(event)) = past.next().await {
            match event.action.as_deref() {
                Some("oom") => out_of_memory = true,
                Some("die") => {
                    let attributes = event.actor.and_then(|a| a.attributes).unwrap_or_default();
                    code = attributes.get("exitCode").and_then(|c| c.parse::<i64>().ok()).or(code);
                }
                _ => {}
            }
        }
        let limit = found.host_config.as_ref().and_then(|h| h.memory).filter(|m| *m > 0);
        match code {
            Some(137) if out_of_memory => details.ended = Some(out_of_memory_words(limit)),
            Some(code) => details.ended = Some(exit_words(code, None)),
            None => {}
        }
    }

    /// Reads the end of its output into the details, at most once a second.
    pub(super) async fn read_tail(&self, id: &str, details: &mut Details) {
        if details.tail_at.is_some_and(|at| at.elapsed() < Duration::from_secs(1)) {
            return;
        }
        details.tail = self.tail(id).await;
        details.tail_at = Some(Instant::now());
    }

    /// The last lines of its output; none if they can't be had.
    pub(super) async fn tail(&self, id: &str) -> Vec<String> {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail(&TAIL.to_string()).build();
        let mut stream = std::pin::pin!(self.api().logs(id, Some(options)));
        let mut text = Vec::new();
        while let Some(Ok(part)) = stream.next().await {
            text.extend_from_slice(part.as_ref());
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<_> = text.lines().map(|l| l.trim_end().chars().take(LINE).collect::<String>()).collect();
        lines[lines.len().saturating_sub(TAIL)..].to_vec()
    }

    /// Its output from the beginning, each piece after the time it was printed at; ends with the container.
    pub(super) fn follow_log(&self, id: &str) -> BoxStream<'static, Result<LogOutput, Error>> {
        let options = LogsOptionsBuilder::default().follow(true).stdout(true).stderr(true).timestamps(true).build();
        self.api().logs(id, Some(options)).boxed()
    }

    /// Starts it; one that runs is fine.
    pub(super) async fn start(&self, id: &str) -> Result<(), Fault> {
        let none = None::<bollard::query_parameters::StartContainerOptions>;
        Ok(self.api().start_container(id, none).await?)
    }

    /// Stops it within its own grace; one that is stopped or gone is fine. The engine does not start it again.
    pub(super) async fn stop(&self, id: &str) -> Result<(), Fault> {
        let asked = match self.api().stop_container(id, None::<StopContainerOptions>).await.map_err(Fault::from) {
            Ok(()) | Err(Fault::Missing(_)) => return Ok(()),
            Err(fault @ Fault::Away(_)) => fault,
            Err(other) => return Err(other),
        };
        // A grace longer than the connection's patience, or a lost answer.
        let found = match self.inspect(id).await {
            Ok(found) => found,
            Err(Fault::Missing(_)) => return Ok(()),
            Err(_) => return Err(asked),
        };
        let grace = found.config.and_then(|c| c.stop_timeout).and_then(|t| u64::try_from(t).ok());
        let end = Instant::now() + Duration::from_secs(grace.unwrap_or(STOP_DEFAULT)) + STOP_SLACK;
        while Instant::now() < end {
            match self.inspect(id).await {
                Ok(found) if found.state.as_ref().is_some_and(|s| s.running == Some(true)) => {}
                Ok(_) | Err(Fault::Missing(_)) => return Ok(()),
                Err(other) => return Err(other),
            }
            tokio::time::sleep(STOP_LOOK).await;
        }
        Err(asked)
    }

    /// Removes it and the volumes that are its own, ending it at once if it runs; one that is gone is fine.
    pub(super) async fn remove(&self, id: &str) -> Result<(), Fault> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.api().remove_container(id, Some(options)).await.map_err(Fault::from) {
            Ok(()) | Err(Fault::Missing(_)) => Ok(()),
            // Somebody removes it already: gone is gone, and what is not will be found again.
            Err(Fault::Conflict(why)) if why.contains("already in progress") => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// What happens to the slots' containers, of one environment or of all.
    pub(super) fn events(&self, key: Option<&EnvironmentKey>) -> BoxStream<'static, Result<EventMessage, Error>> {
        let mut labels = vec![format!("{OWNER}={}", self.owner()), format!("{KIND}={}", names::SLOT)];
        labels.extend(key.map(|key| format!("{}={key}", names::ENVIRONMENT)));
        let what = ["start", "die", "oom", "health_status", "destroy", "pause", "unpause"];
        let filters = HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("event".to_owned(), what.map(str::to_owned).to_vec()),
            ("label".to_owned(), labels),
        ]);
        self.api().events(Some(EventsOptionsBuilder::default().filters(&filters).build())).boxed()
    }
}

/// The engine's events of an environment, followed as long as somebody waits for them.
#[derive(Default)]
pub(super) struct Changes(tokio::sync::Mutex<Option<BoxStream<'static, Result<EventMessage, Error>>>>);

impl Changes {
    /// Resolves when a container may have changed. May resolve for nothing.
    pub(super) async fn next(&self, engine: &Engine, key: &EnvironmentKey) {
        let mut events = self.0.lock().await;
        let stream = events.get_or_insert_with(|| engine.events(Some(key)));
        match stream.next().await {
            Some(Ok(_)) => {
                // One look answers all that has come by now.
                while let Some(Some(Ok(_))) = stream.next().now_or_never() {}
            }
            Some(Err(_)) | None => {
                *events = None;
                tokio::time::sleep(AWAY).await;
            }
        }
    }
}

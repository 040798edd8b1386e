//! The target `local`: releases as plain processes on this host, behind `switchover agent`.
//!
//! The agent holds the listeners and the processes and outlives us; this is its client. Nothing is kept here that a
//! restart would miss: readiness is asked anew, everything else is read from the agent.

mod health;
mod observe;
mod perform;
pub mod releases;

use std::{
    collections::{BTreeMap, HashMap},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::BoxStream};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;

use super::{ProbeTarget, Target, TargetError};
use crate::{
    agent::{
        Client, ClientError,
        protocol::{ErrorCode, Event},
    },
    domain::{
        config::AppKind,
        ids::{AppName, Epoch, Slot},
        rollout::{Action, Desired, Effect, EnvironmentKey, Live, Observed},
    },
};

/// Runs a shell command to its end: `pre_deploy`, the smoke test.
pub trait CommandRunner: Send + Sync {
    /// Runs it by `sh -e`, with this environment over a minimal one, its whole process group ended at the time limit
    /// and when `stop` is cancelled. A command that can't be started is a result that is not ok.
    fn run<'a>(&'a self, command: ShellCommand, stop: &'a CancellationToken) -> BoxFuture<'a, CommandResult>;
}

/// What a [`CommandRunner`] runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellCommand {
    /// For `sh`.
    pub run: String,
    /// Its folder: the release.
    pub cwd: PathBuf,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Ended after that.
    pub timeout: Duration,
    /// Where its output goes.
    pub log: PathBuf,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandResult {
    /// Exit code 0, in time.
    pub ok: bool,
    /// How it ended, in words.
    pub words: String,
    /// Its last lines, at most 30.
    pub tail: Vec<String>,
}

/// What the target of one environment needs.
#[derive(Clone)]
pub struct LocalConfig {
    /// The agent of this host.
    pub agent: Client,
    /// Where [`releases::store`] put the releases.
    pub releases: PathBuf,
    /// For logs of slots, logs and results of commands: `slots/`, `rollouts/` below.
    pub data: PathBuf,
    /// `PATH` of the running apps.
    pub path: String,
    /// Public listeners by app. Others get a port of 127.0.0.1 that the agent chooses and keeps.
    pub listen: BTreeMap<AppName, SocketAddr>,
    /// Granted secrets by name.
    pub secrets: BTreeMap<String, SecretString>,
    /// Runs `pre_deploy` and smoke tests.
    pub runner: Arc<dyn CommandRunner>,
}

/// The target.
pub struct LocalTarget {
    config: LocalConfig,
    ready: Mutex<observe::Readiness>,
    events: tokio::sync::Mutex<Option<BoxStream<'static, Event>>>,
}

/// Requests that are still under way on a slot that is retired get so long.
const RETIRE_GRACE: Duration = Duration::from_secs(60);
/// Between two tries to reach the agent.
const AWAY: Duration = Duration::from_millis(100);

/// The name of an app's service at the agent.
#[must_use]
pub fn service_id(key: &EnvironmentKey, app: &AppName) -> String {
    format!("{key}/{app}")
}

impl LocalTarget {
    /// For one environment, or for several: what differs between them is in `config`.
    #[must_use]
    pub fn new(config: LocalConfig) -> Self {
        Self { config, ready: Mutex::default(), events: tokio::sync::Mutex::default() }
    }

    fn agent(&self) -> &Client {
        &self.config.agent
    }

    /// Takes secrets out of what people will read.
    fn mask(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for secret in self.config.secrets.values() {
            let secret = secret.expose_secret();
            // A shorter one would blacken half of the text and protects nothing.
            for line in secret.lines().filter(|l| l.len() >= 4) {
                out = out.replace(line, "***");
            }
        }
        out
    }

    fn slot_logs(&self, service: &str, slot: &Slot) -> PathBuf {
        self.config.data.join("slots").join(service.replace('/', "_")).join(slot.as_str())
    }

    /// Where the output of a rollout's commands lies.
    #[must_use]
    pub fn command_log(data: &Path, rollout: crate::domain::ids::RolloutId, app: &AppName, what: &str) -> PathBuf {
        data.join("rollouts").join(rollout.to_string()).join(format!("{app}.{what}.log"))
    }

    async fn wait_for_event(&self, prefix: &str) {
        let mut events = self.events.lock().await;
        if events.is_none() {
            match self.agent().subscribe().await {
                // What happened between the last look and now is seen by looking once more.
                Ok(stream) => *events = Some(stream),
                Err(_) => tokio::time::sleep(AWAY).await,
            }
            return;
        }
        let ours = |event: &Event| match event {
            Event::Changed { service, .. } | Event::Switched { service, .. } => service.starts_with(prefix),
        };
        let Some(stream) = events.as_mut() else { return };
        let mut last = loop {
            match stream.next().await {
                Some(event) if !ours(&event) => {}
                last => break last,
            }
        };
        // One look answers all that has come by now.
        while last.is_some() {
            match stream.next().now_or_never() {
                Some(event) => last = event,
                None => return,
            }
        }
        *events = None;
    }
}

/// What an error of the agent means for a rollout.
fn refused(error: ClientError) -> TargetError {
    match error {
        ClientError::Refused { code: ErrorCode::StaleEpoch, message } => TargetError::Stale(message),
        ClientError::Refused { message, .. } => TargetError::Failed(message),
        away @ (ClientError::Unavailable { .. } | ClientError::Protocol(_)) => {
            TargetError::Unreachable(away.to_string())
        }
    }
}

fn is_missing(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { code: ErrorCode::NotFound, .. })
}

impl Target for LocalTarget {
    fn observe<'a>(&'a self, desired: &'a Desired, epoch: Epoch) -> BoxFuture<'a, Observed> {
        Box::pin(self.read(desired, epoch))
    }

    fn perform<'a>(
        &'a self,
        desired: &'a Desired,
        epoch: Epoch,
        action: &'a Action,
        stop: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Effect, TargetError>> {
        Box::pin(self.carry_out(desired, epoch, action, stop))
    }

    fn changed<'a>(&'a self, desired: &'a Desired) -> BoxFuture<'a, ()> {
        Box::pin(async move { self.wait_for_event(&format!("{}/", desired.key)).await })
    }

    fn probes<'a>(&'a self, desired: &'a Desired) -> BoxFuture<'a, Vec<ProbeTarget>> {
        Box::pin(async move {
            let Ok(status) = self.agent().status().await else { return Vec::new() };
            desired
                .apps
                .iter()
                .filter(|app| app.kind == AppKind::Web)
                .filter_map(|app| {
                    let listen = status.services.get(&service_id(&desired.key, &app.name))?.listen?;
                    let ip = if listen.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { listen.ip() };
                    let address = SocketAddr::new(ip, listen.port());
                    let host = app.spec.hosts.first().cloned().unwrap_or_else(|| address.to_string());
                    Some(ProbeTarget {
                        app: app.name.clone(),
                        address,
                        host,
                        path: app.spec.probe.path.clone()?,
                        body: app.spec.probe.body.clone(),
                        interval: app.spec.probe.interval,
                    })
                })
                .collect()
        })
    }

    fn retire<'a>(
        &'a self,
        key: &'a EnvironmentKey,
        epoch: Epoch,
        app: &'a AppName,
        slot: &'a Slot,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async move {
            let service = service_id(key, app);
            match self.agent().wait_idle(&service, slot.as_str(), RETIRE_GRACE).await {
                Ok(0) => {}
                Ok(left) => {
                    tracing::info!(service, slot = %slot, left, "connections still open are ended with their slot")
                }
                Err(e) if is_missing(&e) => return Ok(()),
                Err(e) => return Err(refused(e)),
            }
            self.forget_slot(&service, epoch, slot).await
        })
    }

    fn live<'a>(&'a self, key: &'a EnvironmentKey) -> BoxFuture<'a, Result<Live, TargetError>> {
        Box::pin(async move {
            let status = self.agent().status().await.map_err(refused)?;
            Ok(observe::live(&status, key))
        })
    }
}

/// Readiness by copy.
type ByCopy<T> = HashMap<(String, String, usize), T>;

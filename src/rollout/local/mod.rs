//! The target `local`: releases as plain processes on this host, behind `switchover agent`.
//!
//! The agent holds the listeners and the processes and outlives us; this is its client. Nothing is kept here that a
//! restart would miss: readiness is asked anew, everything else is read from the agent.

mod observe;
mod perform;
pub mod releases;

pub(super) use perform::start_command;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::{
    ProbeTarget, Target, TargetError,
    shared::{self, AgentEvents, Public, Readiness, is_missing, refused},
};
use crate::{
    agent::Client,
    domain::{
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
    /// Where users reach each app. Others get a port of 127.0.0.1 that the agent chooses and keeps.
    pub listen: BTreeMap<AppName, Public>,
    /// Granted secrets by name.
    pub secrets: BTreeMap<String, SecretString>,
    /// Runs `pre_deploy` and smoke tests.
    pub runner: Arc<dyn CommandRunner>,
}

/// The target.
pub struct LocalTarget {
    config: LocalConfig,
    ready: Mutex<Readiness>,
    events: AgentEvents,
}

/// The name of an app's service at the agent.
#[must_use]
pub fn service_id(key: &EnvironmentKey, app: &AppName) -> String {
    format!("{key}/{app}")
}

impl LocalTarget {
    /// For one environment, or for several: what differs between them is in `config`.
    #[must_use]
    pub fn new(config: LocalConfig) -> Self {
        Self { config, ready: Mutex::default(), events: AgentEvents::default() }
    }

    fn agent(&self) -> &Client {
        &self.config.agent
    }

    /// Takes secrets out of what people will read.
    fn mask(&self, text: &str) -> String {
        shared::mask(&self.config.secrets, text)
    }

    fn slot_logs(&self, service: &str, slot: &Slot) -> PathBuf {
        self.config.data.join("slots").join(service.replace('/', "_")).join(slot.as_str())
    }

    /// Where the output of a rollout's commands lies.
    #[must_use]
    pub fn command_log(data: &Path, rollout: crate::domain::ids::RolloutId, app: &AppName, what: &str) -> PathBuf {
        data.join("rollouts").join(rollout.to_string()).join(format!("{app}.{what}.log"))
    }
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
        Box::pin(async move { self.events.next(self.agent(), &format!("{}/", desired.key)).await })
    }

    fn probes<'a>(&'a self, desired: &'a Desired) -> BoxFuture<'a, Vec<ProbeTarget>> {
        Box::pin(shared::probes(self.agent(), desired, &self.config.listen))
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
            if !shared::idle(self.agent(), &service, slot).await? {
                return Ok(());
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

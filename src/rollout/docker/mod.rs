//! The target `docker`: slots as labelled containers of one engine on this host, behind `switchover agent`.
//!
//! The agent says who is live, the engine what runs; nothing is kept here that a restart would miss. A slot's containers
//! have names that follow from what they are, so a later worker finds them instead of making them again, and each keeps
//! one address of its environment's network for life, so the agent's routes hold after a restart of the engine or the
//! host with the server away. The engine restarts them (policy `unless-stopped`).
//!
//! Apps of an environment reach each other as `http://APP:PORT`: the name leads to the agent, which knows the live slot.
//! A name that led to containers would lead to both slots during a rollout, and to a slot that is gone after it.
//!
//! * `names`: names and labels. `engine`: what is asked of the engine. `image`: what runs. `network`: where.
//! * `observe`, `perform`, `command`, `room`: the target. `follow`: routes after somebody else's hand.

mod command;
mod container;
mod engine;
mod follow;
mod image;
mod names;
mod network;
mod observe;
mod perform;
mod room;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use futures_util::future::BoxFuture;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use self::engine::{Details, Engine};
pub use self::{command::ended_with, follow::follow};
use super::{
    ProbeTarget, Target, TargetError,
    local::{CommandRunner, service_id},
    shared::{self, AgentEvents, Public, Readiness, refused},
};
use crate::{
    agent::Client,
    docker::{Docker, pull::Logins},
    domain::{
        ids::{AppName, Epoch, Slot},
        rollout::{Action, Desired, Effect, EnvironmentKey, Live, Observed},
    },
};

/// What the target of one environment needs.
#[derive(Clone)]
pub struct DockerConfig {
    /// The agent of the engine's host.
    pub agent: Client,
    /// The engine.
    pub docker: Docker,
    /// For logs of slots and commands: `slots/`, `rollouts/` below.
    pub data: PathBuf,
    /// Where users reach each app. Others get a port of 127.0.0.1 that the agent chooses and keeps.
    pub listen: BTreeMap<AppName, Public>,
    /// Granted secrets by name.
    pub secrets: BTreeMap<String, SecretString>,
    /// Whose releases, as `owner/name`: which logins they may use.
    pub repository: String,
    /// The operator's logins at registries.
    pub logins: Logins,
    /// Runs smoke tests on the server's own host, where the repository may. None: they run in the new image.
    pub runner: Option<Arc<dyn CommandRunner>>,
}

/// The target.
pub struct DockerTarget {
    config: DockerConfig,
    engine: Engine,
    ready: Mutex<Readiness>,
    details: Mutex<HashMap<String, Details>>,
    events: AgentEvents,
    changes: engine::Changes,
}

impl DockerTarget {
    /// For one environment.
    #[must_use]
    pub fn new(config: DockerConfig) -> Self {
        Self {
            engine: Engine::new(config.docker.clone()),
            config,
            ready: Mutex::default(),
            details: Mutex::default(),
            events: AgentEvents::default(),
            changes: engine::Changes::default(),
        }
    }

    fn agent(&self) -> &Client {
        &self.config.agent
    }

    /// Takes secrets out of what people will read.
    fn mask(&self, text: &str) -> String {
        shared::mask(&self.config.secrets, text)
    }
}

impl Target for DockerTarget {
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
        Box::pin(async move {
            let prefix = format!("{}/", desired.key);
            tokio::select! {
                () = self.events.next(self.agent(), &prefix) => {}
                () = self.changes.next(&self.engine, &desired.key) => {}
            }
        })
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
            // A slot that the agent does not know may still have containers.
            shared::idle(self.agent(), &service_id(key, app), slot).await?;
            self.forget_slot(key, epoch, app, slot).await
        })
    }

    fn live<'a>(&'a self, key: &'a EnvironmentKey) -> BoxFuture<'a, Result<Live, TargetError>> {
        Box::pin(async move {
            let status = self.agent().status().await.map_err(refused)?;
            let found = self.engine.slots(key).await?;
            Ok(observe::live(&status, key, &found))
        })
    }
}

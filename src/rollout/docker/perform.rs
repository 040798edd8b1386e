//! Acting on the live system: pointers through the agent, containers through the engine.

use std::{fs, net::SocketAddr};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::{DockerTarget, engine::Found, network, observe};
use crate::{
    agent::protocol::{AgentStatus, SlotSource},
    domain::{
        config::AppKind,
        ids::{AppName, Epoch, Slot},
        rollout::{Action, Desired, DesiredApp, Effect, EnvironmentKey, Kind},
    },
    failpoint,
    rollout::{
        TargetError,
        local::service_id,
        shared::{self, Public, is_missing, refused},
    },
};

fn failed(words: impl Into<String>) -> TargetError {
    TargetError::Failed(words.into())
}

impl DockerTarget {
    pub(super) async fn carry_out(
        &self,
        desired: &Desired,
        epoch: Epoch,
        action: &Action,
        stop: &CancellationToken,
    ) -> Result<Effect, TargetError> {
        let find =
            |name: &AppName| desired.app(name).ok_or_else(|| failed(format!("app {name} is no part of this rollout")));
        match action {
            Action::Preflight => self.preflight(desired, epoch, stop).await,
            Action::Claim => self.claim(desired, epoch).await,
            Action::PreDeploy { app } => {
                let app = find(app)?;
                self.fence(desired, epoch, app).await?;
                self.pre_deploy(desired, app, stop).await
            }
            Action::PutSlot { app } => {
                let app = find(app)?;
                self.fence(desired, epoch, app).await?;
                self.put(desired, epoch, app).await.map(|()| Effect::Done)
            }
            Action::Smoke { app } => self.smoke(desired, find(app)?, stop).await,
            Action::Switch { app, from, to } => {
                let app = find(app)?;
                let service = service_id(&desired.key, &app.name);
                if app.kind == AppKind::Worker {
                    self.fence(desired, epoch, app).await?;
                    self.replace(desired, epoch, app, to).await?;
                }
                let from = from.as_ref().map(Slot::as_str);
                let switched = self.agent().switch(&service, epoch, from, to.as_str()).await.map_err(refused)?;
                Ok(Effect::Switched { at: switched.at })
            }
            // The agent chooses the slot for each request, and nothing is in place for a switch alone.
            Action::Recycle { .. } | Action::Grow { .. } | Action::Follow { .. } | Action::Finish { .. } => {
                Ok(Effect::Done)
            }
            Action::RemoveSlot { app, slot } => {
                self.forget_slot(&desired.key, epoch, app, slot).await.map(|()| Effect::Done)
            }
        }
    }

    /// The engine knows no epochs: the agent is asked before each effect on it, and refuses who was overtaken.
    async fn fence(&self, desired: &Desired, epoch: Epoch, app: &DesiredApp) -> Result<(), TargetError> {
        self.agent().claim(&service_id(&desired.key, &app.name), epoch).await.map_err(refused)
    }

    async fn preflight(
        &self,
        desired: &Desired,
        epoch: Epoch,
        stop: &CancellationToken,
    ) -> Result<Effect, TargetError> {
        self.agent().hello().await.map_err(refused)?;
        let status = self.agent().status().await.map_err(refused)?;
        let found = self.engine.slots(&desired.key).await?;
        for app in &desired.apps {
            for secret in &app.spec.secrets {
                if !self.config.secrets.contains_key(secret) {
                    return Err(failed(format!(
                        "the secret {secret} is not granted to {}: the operator adds it with `switchover secret set` \
                         or in the server's settings",
                        desired.key.environment
                    )));
                }
            }
        }
        let release = desired.kind == Kind::Release;
        if release {
            self.host(desired, epoch, &status, &found).await?;
        }
        for app in &desired.apps {
            let warm = found.iter().any(|f| f.app == app.name && f.slot == app.slot);
            // What stands there already needs no registry: a way back is not held up by one.
            if release || !warm {
                let image = self.image(app, stop).await?;
                if app.kind == AppKind::Web {
                    image.port(app)?;
                }
            }
        }
        Ok(Effect::Done)
    }

    async fn claim(&self, desired: &Desired, epoch: Epoch) -> Result<Effect, TargetError> {
        let found = self.engine.slots(&desired.key).await?;
        let network = self.ensure_network(&desired.key).await?;
        let ports = self.ports(desired, &found).await?;
        let status = self.agent().status().await.map_err(refused)?;
        let mut doors = network::doors(&status, &desired.key, network.gateway, &ports);
        for app in &desired.apps {
            let service = service_id(&desired.key, &app.name);
            let public = (app.kind == AppKind::Web)
                .then(|| self.config.listen.get(&app.name).cloned().unwrap_or_else(Public::somewhere));
            let doors = doors.remove(&app.name).unwrap_or_default();
            if let Err((why, at)) = shared::open(self.agent(), &service, public.as_ref(), doors).await {
                return Err(match (why, at) {
                    (TargetError::Failed(words), Some(at)) => failed(self.who_has(at, words).await),
                    (other, _) => other,
                });
            }
            self.agent().claim(&service, epoch).await.map_err(refused)?;
        }
        let status = self.agent().status().await.map_err(refused)?;
        Ok(Effect::Claimed(observe::live(&status, &desired.key, &found)))
    }

    async fn put(&self, desired: &Desired, epoch: Epoch, app: &DesiredApp) -> Result<(), TargetError> {
        self.sweep_commands(desired, &app.name).await?;
        let addresses = self.raise(desired, epoch, app).await?;
        failpoint::hit("docker.slot.before_route");
        self.route(desired, epoch, app, addresses).await
    }

    /// Makes the slot known to the agent, and leads it to its containers.
    async fn route(
        &self,
        desired: &Desired,
        epoch: Epoch,
        app: &DesiredApp,
        addresses: Vec<SocketAddr>,
    ) -> Result<(), TargetError> {
        let service = service_id(&desired.key, &app.name);
        let slot = app.slot.as_str();
        let addresses = if app.kind == AppKind::Web { addresses } else { Vec::new() };
        let status = self.agent().status().await.map_err(refused)?;
        let known = status.services.get(&service).and_then(|s| s.slots.get(slot));
        match known {
            Some(known) if observe::upstreams(known) != addresses => {
                self.agent().set_upstreams(&service, slot, epoch, addresses).await.map_err(refused)?;
            }
            Some(_) => {}
            None => {
                let source = SlotSource::Upstreams { addresses };
                self.agent().put_slot(&service, slot, epoch, source).await.map_err(refused)?;
            }
        }
        if known.is_some_and(|s| !s.running) {
            self.agent().set_running(&service, slot, epoch, true).await.map_err(refused)?;
        }
        Ok(())
    }

    /// A worker is never doubled: the one stops to its end, then the other starts.
    async fn replace(&self, desired: &Desired, epoch: Epoch, app: &DesiredApp, to: &Slot) -> Result<(), TargetError> {
        let service = service_id(&desired.key, &app.name);
        let found = self.engine.slots(&desired.key).await?;
        // Not only the live one: whatever another hand may have left running.
        let others = found.iter().filter(|f| f.app == app.name && &f.slot != to && f.is_kept());
        for stopped in join_all(others.map(|f| self.engine.stop(&f.id))).await {
            stopped?;
        }
        failpoint::hit("docker.worker.after_stop");
        let status = self.agent().status().await.map_err(refused)?;
        let known = status.services.get(&service).map(|s| &s.slots);
        for (other, slot) in known.into_iter().flatten() {
            if other != to.as_str() && (slot.running || slot.instances.iter().any(|i| i.pid.is_some())) {
                match self.agent().set_running(&service, other, epoch, false).await {
                    Ok(_) => {}
                    Err(e) if is_missing(&e) => {}
                    Err(e) => return Err(refused(e)),
                }
            }
        }
        if to == &app.slot {
            return self.put(desired, epoch, app).await;
        }
        let copies: Vec<_> = found.iter().filter(|f| f.app == app.name && &f.slot == to).collect();
        let processes = known.and_then(|s| s.get(to.as_str())).is_some_and(|s| !s.instances.is_empty());
        if copies.is_empty() && !processes {
            return Err(failed(format!("{}: the containers of slot {to} are gone", app.name)));
        }
        for copy in copies {
            self.engine.start(&copy.id).await?;
        }
        self.agent().set_running(&service, to.as_str(), epoch, true).await.map_err(refused)?;
        Ok(())
    }

    /// Stops a slot that is not live, and removes all that is left of it.
    pub(super) async fn forget_slot(
        &self,
        key: &EnvironmentKey,
        epoch: Epoch,
        app: &AppName,
        slot: &Slot,
    ) -> Result<(), TargetError> {
        let service = service_id(key, app);
        // Looked up before the agent is asked: what a later worker makes is not among them.
        let found = self.engine.slots(key).await?;
        let ours: Vec<&Found> = found.iter().filter(|f| &f.app == app && &f.slot == slot).collect();
        if let Some(later) = ours.iter().map(|f| f.epoch).max().filter(|e| *e > epoch.0) {
            return Err(TargetError::Stale(format!("slot {slot} of {service} was made with epoch {later}")));
        }
        match self.agent().remove_slot(&service, slot.as_str(), epoch).await {
            Ok(()) => {}
            Err(e) if is_missing(&e) => {}
            Err(e) => return Err(refused(e)),
        }
        failpoint::hit("docker.slot.after_forget");
        let ended = join_all(ours.iter().map(|f| async {
            if f.is_kept() {
                self.engine.stop(&f.id).await?;
            }
            self.keep_log(&service, f).await;
            let removed = self.engine.remove(&f.id).await;
            failpoint::hit("docker.slot.after_remove");
            removed
        }))
        .await;
        for end in ended {
            end?;
        }
        let ids: Vec<_> = ours.iter().map(|f| f.id.clone()).collect();
        self.forget_looks(&service, slot.as_str(), &ids);
        Ok(())
    }

    /// The last lines of a container outlive it: `slots/SERVICE/SLOT/COPY.log`.
    async fn keep_log(&self, service: &str, copy: &Found) {
        let lines = self.engine.tail(&copy.id).await;
        if lines.is_empty() {
            return;
        }
        let folder = self.config.data.join("slots").join(service.replace('/', "_")).join(copy.slot.as_str());
        let path = folder.join(format!("{}.log", copy.number));
        let text = self.mask(&(lines.join("\n") + "\n"));
        if let Err(e) = fs::create_dir_all(&folder).and_then(|()| fs::write(&path, text)) {
            tracing::warn!(log = %path.display(), error = %e, "the last lines of a container can't be kept");
        }
    }

    /// Adds who sits on a port, where the engine knows.
    async fn who_has(&self, at: SocketAddr, words: String) -> String {
        if !words.contains("in use") {
            return words;
        }
        let all = self.engine.api().list_containers(None).await.unwrap_or_default();
        let published = |c: &&bollard::models::ContainerSummary| {
            c.ports.as_ref().is_some_and(|ports| ports.iter().any(|p| p.public_port == Some(at.port())))
        };
        match all.iter().find(published).and_then(|c| c.names.as_ref()?.first()) {
            Some(name) => format!("{words}: the container {} publishes that port", name.trim_start_matches('/')),
            None => words,
        }
    }
}

/// The live slots of an environment's routed apps.
pub(super) fn live_slots<'a>(
    status: &'a AgentStatus,
    desired: &'a Desired,
) -> impl Iterator<Item = (&'a DesiredApp, &'a str)> {
    desired.apps.iter().filter(|a| a.kind == AppKind::Web).filter_map(|app| {
        let service = status.services.get(&service_id(&desired.key, &app.name))?;
        Some((app, service.active.as_deref()?))
    })
}

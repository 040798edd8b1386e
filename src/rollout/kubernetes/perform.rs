//! Acting on the namespace.

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    KubernetesTarget, failed,
    look::{Active, Door, Found, annotation, is_ending, is_ready, name, text},
    names, put,
};
use crate::{
    cluster::{Fault, Kind, Object},
    domain::{
        config::AppKind,
        ids::{AppName, Epoch, Slot},
        rollout::{Action, AppManifests, Desired, DesiredApp, Effect, EnvironmentKey, Live, Shape},
    },
    failpoint,
    manifests::{self, EPOCH, SLOT, label},
    rollout::TargetError,
};

impl KubernetesTarget {
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
            Action::Preflight => self.preflight(desired).await,
            Action::Claim => self.claim(desired, epoch, stop).await,
            Action::PreDeploy { app } => {
                let app = find(app)?;
                self.fence(&desired.key, app, epoch).await?;
                self.pre_deploy(desired, epoch, app).await
            }
            Action::PutSlot { app } => {
                let app = find(app)?;
                self.fence(&desired.key, app, epoch).await?;
                self.put(desired, epoch, app).await.map(|()| Effect::Done)
            }
            Action::Smoke { app } => self.smoke(desired, epoch, find(app)?, stop).await,
            Action::Switch { app, from, to } => {
                let app = find(app)?;
                match app.kind {
                    AppKind::Web => self.switch(desired, epoch, app, from.as_ref(), to).await,
                    AppKind::Worker => self.replace(desired, epoch, app, from.as_ref(), to).await,
                }
            }
            Action::Recycle { app, slot } => {
                let app = find(app)?;
                self.fence(&desired.key, app, epoch).await?;
                self.recycle(&desired.key, app, slot).await.map(|()| Effect::Done)
            }
            Action::Grow { app, slot } => {
                let app = find(app)?;
                let door = self.fence(&desired.key, app, epoch).await?;
                self.grow(&desired.key, app, &door, slot).await.map(|()| Effect::Done)
            }
            Action::Follow { app } => {
                let app = find(app)?;
                let door = self.fence(&desired.key, app, epoch).await?;
                self.follow(desired, app, &door).await.map(|()| Effect::Done)
            }
            Action::Finish { app } => {
                let app = find(app)?;
                self.fence(&desired.key, app, epoch).await?;
                self.finish(&desired.key, app).await.map(|()| Effect::Done)
            }
            Action::RemoveSlot { app, slot } => {
                self.undo(&desired.key, app, slot).await?;
                self.remove(&desired.key, epoch, app, slot).await.map(|()| Effect::Done)
            }
        }
    }

    /// The door as the API server has it now: what is fenced by it must not go by what a watch told a moment ago.
    pub(super) async fn door_now(&self, door: &Door) -> Result<Door, TargetError> {
        let kind = if door.web { "Service" } else { "ConfigMap" };
        let found = self.cluster().read("v1", kind, door.name()).await?;
        let found = found.ok_or_else(|| failed(format!("the {kind} {} is gone", door.name())))?;
        self.watched().remember(if door.web { Kind::Service } else { Kind::Pointer }, found.clone());
        Ok(Door { object: Object::new(found), web: door.web })
    }

    /// Refuses who was overtaken. Deployments know no epochs: the door is asked before each effect on them.
    pub(super) async fn fence(
        &self,
        key: &EnvironmentKey,
        app: &DesiredApp,
        epoch: Epoch,
    ) -> Result<Door, TargetError> {
        let door = self.door(key, app).ok_or_else(|| failed(format!("{}: nothing is claimed for it yet", app.name)))?;
        self.fence_door(door, epoch).await
    }

    async fn fence_door(&self, door: Door, epoch: Epoch) -> Result<Door, TargetError> {
        let door = self.door_now(&door).await?;
        match door.epoch() {
            Some(known) if known > epoch => Err(stale(&door, known)),
            Some(known) if known == epoch => Ok(door),
            // Nobody claimed it, or an older worker did: claimed by us on the way.
            _ => self.raise(door, epoch).await,
        }
    }

    /// Writes our epoch on a door. It is a change that no node's proxy sees, so it delays no flip.
    async fn raise(&self, door: Door, epoch: Epoch) -> Result<Door, TargetError> {
        let kind = if door.web { "Service" } else { "ConfigMap" };
        let mut steps = vec![
            json!({"op": "test", "path": "/metadata/resourceVersion", "value": text(&door.object, "/metadata/resourceVersion")}),
        ];
        if door.object.pointer("/metadata/annotations").is_none() {
            steps.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
        }
        steps
            .push(json!({"op": "add", "path": pointer_to("/metadata/annotations", EPOCH), "value": epoch.to_string()}));
        let made = match self.cluster().patch("v1", kind, door.name(), &Value::Array(steps)).await {
            Ok(made) => made,
            // Somebody was faster: whoever it was, the next look tells.
            Err(Fault::Conflict(_)) => {
                return Err(TargetError::Unreachable(format!("{} changed meanwhile", door.name())));
            }
            Err(other) => return Err(other.into()),
        };
        self.watched().remember(if door.web { Kind::Service } else { Kind::Pointer }, made.clone());
        Ok(Door { object: Object::new(made), web: door.web })
    }

    async fn claim(&self, desired: &Desired, epoch: Epoch, stop: &CancellationToken) -> Result<Effect, TargetError> {
        let mut live = Live::default();
        for app in &desired.apps {
            let manifests = put::manifests_of(app)?;
            let door = match self.door(&desired.key, app) {
                Some(door) => door,
                None => self.make_door(desired, epoch, app, manifests).await?,
            };
            let door = self.door_now(&door).await?;
            if let Some((environment, owner)) = door.claimed_for()
                && (environment != desired.key.to_string() || owner != app.name.as_str())
            {
                return Err(failed(format!(
                    "the Service {} belongs to app {owner} of {environment}: two environments can't share a Service; give \
                     one a namespace of its own, or another name in its manifests",
                    door.name()
                )));
            }
            let door = self.fence_door(door, epoch).await?;
            let door = self.adopt(desired, epoch, app, door, stop).await?;
            live.apps.insert(app.name.clone(), self.live_app(&desired.key, &app.name, &door, Some(manifests)));
        }
        Ok(Effect::Claimed(live))
    }

    /// Makes the Service, or what stands for it, where there is none: it points at nothing yet.
    async fn make_door(
        &self,
        desired: &Desired,
        epoch: Epoch,
        app: &DesiredApp,
        manifests: &AppManifests,
    ) -> Result<Door, TargetError> {
        let web = app.kind == AppKind::Web;
        let annotations = json!({
            names::OF: desired.key.to_string(),
            names::APP_OF: app.name.as_str(),
            EPOCH: epoch.to_string(),
        });
        let object = if web {
            let service = manifests::service(manifests, &app.name, app.spec.port).ok_or_else(|| {
                failed(format!("nobody says at which port {} listens: write `port:` for it, or a Service", app.name))
            })?;
            let mut service = service;
            let none = Slot::new(names::NONE).map_err(|e| failed(e.to_string()))?;
            service["spec"]["selector"] = json!(manifests::selector(manifests, &none, Some(names::NONE)));
            merge_into(&mut service, "annotations", &annotations);
            if let Shape::Pair { label, .. } = &manifests.shape {
                merge_into(&mut service, "annotations", &json!({names::PAIR: label}));
            }
            service
        } else {
            json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": names::pointer(&desired.key, &app.name),
                    "labels": names::labels(self.cluster(), &desired.key, &app.name, names::POINTER),
                    "annotations": annotations,
                },
                "data": {"slot": names::NONE},
            })
        };
        let made = match self.cluster().create(&object).await {
            Ok(made) => made,
            Err(Fault::Conflict(_)) => {
                let kind = if web { "Service" } else { "ConfigMap" };
                let found = self.cluster().read("v1", kind, name(&object)).await?;
                found.ok_or_else(|| TargetError::Unreachable(format!("{} comes and goes", name(&object))))?
            }
            Err(other) => return Err(other.into()),
        };
        self.watched().remember(if web { Kind::Service } else { Kind::Pointer }, made.clone());
        Ok(Door { object: Object::new(made), web })
    }

    /// Ends the connections that the flip left where they were: one old pod, the oldest, and only while all are there.
    async fn recycle(&self, key: &EnvironmentKey, app: &DesiredApp, slot: &Slot) -> Result<(), TargetError> {
        let manifests = put::manifests_of(app)?;
        let door = self.door(key, app);
        let found = self.slots(key, &app.name, door.as_ref(), Some(manifests));
        let active = door.as_ref().map(|d| Self::active(d, &found, Some(manifests)));
        if active == Some(Active::Slot(slot.clone())) {
            return Err(failed(format!("slot {slot} of {} is live: its pods are not recycled", app.name)));
        }
        let Some(old) = found.iter().find(|f| &f.slot == slot) else { return Ok(()) };
        let (mut pods, _) = self.pods(old);
        pods.retain(|p| !is_ending(p));
        if pods.iter().any(|p| !is_ready(p)) {
            return Ok(());
        }
        pods.sort_by_key(|p| text(p, "/metadata/creationTimestamp").to_owned());
        if let Some(pod) = pods.first() {
            self.cluster().delete("v1", "Pod", name(pod), Some(text(pod, "/metadata/uid"))).await?;
            let mut gone = (**pod).clone();
            gone["metadata"]["deletionTimestamp"] = json!(crate::clock::now().to_string());
            self.watched().remember(Kind::Pod, gone);
        }
        Ok(())
    }

    /// Makes a slot that was left as large as the one that serves.
    async fn grow(&self, key: &EnvironmentKey, app: &DesiredApp, door: &Door, slot: &Slot) -> Result<(), TargetError> {
        let manifests = put::manifests_of(app)?;
        let found = self.slots(key, &app.name, Some(door), Some(manifests));
        let Active::Slot(active) = Self::active(door, &found, Some(manifests)) else { return Ok(()) };
        let of = |slot: &Slot| found.iter().find(|f| &f.slot == slot);
        let (Some(serves), Some(left)) = (of(&active), of(slot).filter(|_| &active != slot)) else { return Ok(()) };
        self.scale(name(&left.deployment), self.size(serves)).await
    }

    /// Stops a slot that is not live, and removes all that is left of it.
    pub(super) async fn remove(
        &self,
        key: &EnvironmentKey,
        epoch: Epoch,
        app: &AppName,
        slot: &Slot,
    ) -> Result<(), TargetError> {
        let Some(door) = self.claimed_door(key, app) else { return Ok(()) };
        let door = self.door_now(&door).await?;
        if let Some(known) = door.epoch().filter(|known| *known > epoch) {
            return Err(stale(&door, known));
        }
        let found = self.slots(key, app, Some(&door), None);
        match Self::active(&door, &found, None) {
            Active::Slot(active) if &active == slot => {
                return Err(failed(format!("slot {slot} of {app} is live and can't be removed")));
            }
            Active::Drift(words) => return Err(failed(words)),
            Active::Slot(_) | Active::Nothing => {}
        }
        let found = found.iter().find(|f| &f.slot == slot);
        // The Deployment last: while it is there, whoever comes after a worker that died here knows that this is not done.
        self.clear(key, app, slot, found.filter(|f| !is_authors(&door, f))).await?;
        failpoint::hit("kubernetes.slot.after_clear");
        if let Some(found) = found {
            self.take_down(&door, found).await?;
        }
        self.forget_looks(key, app, slot);
        Ok(())
    }

    /// What a slot that did not come to serve, or was left, made or changed beside itself. What serves does so without
    /// it: no reason to leave the slot there.
    async fn undo(&self, key: &EnvironmentKey, app: &AppName, slot: &Slot) -> Result<(), TargetError> {
        let Some(door) = self.claimed_door(key, app) else { return Ok(()) };
        let Some(gone) = self.read_record(key, app, slot).await? else { return Ok(()) };
        let found = self.slots(key, app, Some(&door), None);
        let serves = match Self::active(&door, &found, None) {
            Active::Slot(active) if &active != slot => self.read_record(key, app, &active).await?,
            Active::Nothing => None,
            // Refused by the removal itself.
            Active::Slot(_) | Active::Drift(_) => return Ok(()),
        };
        match self.take_along(key, app, &gone, serves.as_ref()).await {
            Err(TargetError::Failed(why)) => {
                tracing::warn!(%app, why, "what a slot brought along can't be taken back; look at it by hand");
                Ok(())
            }
            other => other,
        }
    }

    async fn take_down(&self, door: &Door, found: &Found) -> Result<(), TargetError> {
        let deployment = name(&found.deployment);
        if is_authors(door, found) {
            // It stays; only its pods go.
            return self.scale(deployment, 0).await;
        }
        let uid = text(&found.deployment, "/metadata/uid");
        self.cluster().delete("apps/v1", "Deployment", deployment, Some(uid)).await?;
        self.watched().forget(Kind::Deployment, deployment);
        Ok(())
    }

    /// Removes what belonged to a slot alone, and configuration that no Deployment but the one that `goes` names any more.
    async fn clear(
        &self,
        key: &EnvironmentKey,
        app: &AppName,
        slot: &Slot,
        goes: Option<&Found>,
    ) -> Result<(), TargetError> {
        let cluster = self.cluster();
        cluster.delete("v1", "Secret", &names::record(key, app, slot), None).await?;
        cluster.delete("v1", "Secret", &names::secret(key, app, slot), None).await?;
        let mut of = names::labels(cluster, key, app, names::SLOT_KIND);
        of.insert(SLOT.to_owned(), label(slot.as_str()));
        for budget in self.listed("policy/v1", "PodDisruptionBudget", &of).await? {
            cluster.delete("policy/v1", "PodDisruptionBudget", name(&budget), None).await?;
        }
        let all = self.watched().all(Kind::Deployment);
        let stay = all.iter().filter(|d| goes.is_none_or(|g| name(&g.deployment) != name(d)));
        let used: Vec<(String, String)> = stay.flat_map(|d| manifests::config_names(d)).collect();
        let configs = names::labels(cluster, key, app, "config");
        for kind in ["ConfigMap", "Secret"] {
            for config in self.listed("v1", kind, &configs).await? {
                if !used.iter().any(|(k, n)| k == kind && n == name(&config)) {
                    cluster.delete("v1", kind, name(&config), None).await?;
                }
            }
        }
        Ok(())
    }

    /// Objects of a kind with these labels.
    pub(super) async fn listed(
        &self,
        api_version: &str,
        kind: &str,
        labels: &std::collections::BTreeMap<String, String>,
    ) -> Result<Vec<Value>, TargetError> {
        let selector: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let params = kube::api::ListParams::default().labels(&selector.join(","));
        Ok(self.cluster().list(api_version, kind, &params).await?)
    }
}

/// Whether a slot's Deployment has the name that its author gave it: such a one stays for ever.
fn is_authors(door: &Door, found: &Found) -> bool {
    let plain = annotation(&door.object, names::PLAIN).and_then(|p| p.split_once(' '));
    found.colour.is_some() || plain.is_some_and(|(known, _)| known == name(&found.deployment))
}

pub(super) fn stale(door: &Door, known: Epoch) -> TargetError {
    TargetError::Stale(format!("{} was claimed with epoch {known}", door.name()))
}

/// A key within a map as a JSON pointer (RFC 6901).
pub(super) fn pointer_to(map: &str, key: &str) -> String {
    format!("{map}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// Adds texts to the labels or annotations of an object.
pub(super) fn merge_into(object: &mut Value, which: &str, texts: &Value) {
    if !object["metadata"][which].is_object() {
        object["metadata"][which] = json!({});
    }
    for (key, value) in texts.as_object().into_iter().flatten() {
        object["metadata"][which][key] = value.clone();
    }
}

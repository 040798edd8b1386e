//! Making a slot: configuration, secrets, Deployment, and the Service that shows whom a flip would reach.

use std::collections::BTreeMap;

use base64::Engine as _;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::{
    KubernetesTarget, failed,
    look::{Active, Found, name, replicas},
    names,
    record::Record,
};
use crate::{
    cluster::{Fault, Kind},
    docker::Reference,
    domain::{
        config::AppKind,
        ids::Epoch,
        rollout::{AppManifests, Desired, DesiredApp, Shape},
    },
    failpoint,
    manifests::{self, Rendered, SecretEnv, SlotOrder},
    rollout::{TargetError, local::start_command, shared::known},
};

/// The image of an app by digest.
pub(super) fn image(app: &DesiredApp) -> Result<String, TargetError> {
    let image = app.spec.image.as_ref().ok_or_else(|| failed(format!("{} has no image", app.name)))?;
    Ok(format!("{image}@{}", app.digest))
}

/// What every slot and every command of a release finds in its environment, besides the secrets.
pub(super) fn environment(desired: &Desired, app: &DesiredApp) -> BTreeMap<String, String> {
    let mut env = app.spec.env.clone();
    env.extend(known(desired, app));
    env
}

pub(super) fn manifests_of(app: &DesiredApp) -> Result<&AppManifests, TargetError> {
    app.spec.manifests.as_deref().ok_or_else(|| failed(format!("{} has no manifests", app.name)))
}

impl KubernetesTarget {
    /// Which of a pair a slot is written to: where it is already, else the one that does not serve.
    pub(super) fn colour(&self, desired: &Desired, app: &DesiredApp) -> Result<Option<String>, TargetError> {
        let manifests = manifests_of(app)?;
        let Shape::Pair { label, workloads } = &manifests.shape else { return Ok(None) };
        let door = self.door(&desired.key, app);
        let found = self.slots(&desired.key, &app.name, door.as_ref(), Some(manifests));
        let of = |f: &Found| f.colour.clone();
        if let Some(there) = found.iter().find(|f| f.slot == app.slot) {
            return Ok(of(there));
        }
        let active = door.as_ref().map(|d| Self::active(d, &found, Some(manifests)));
        let live = match active {
            Some(Active::Slot(slot)) => found.iter().find(|f| f.slot == slot).and_then(of),
            Some(Active::Drift(words)) => return Err(failed(words)),
            Some(Active::Nothing) | None => None,
        };
        let authors = manifests.service.as_ref().and_then(|s| s.pointer("/spec/selector")?.get(label)?.as_str());
        let colour = match &live {
            Some(live) => workloads.keys().find(|c| *c != live),
            None => workloads.keys().find(|c| Some(c.as_str()) == authors).or_else(|| workloads.keys().next()),
        };
        match colour {
            Some(colour) => Ok(Some(colour.clone())),
            None => Err(failed(format!("{}: the pair has no idle one", app.name))),
        }
    }

    /// What a slot of this release is made with. `replicas`: None where an autoscaler owns the number.
    pub(super) fn order(
        &self,
        desired: &Desired,
        epoch: Epoch,
        app: &DesiredApp,
        replicas: Option<u32>,
    ) -> Result<SlotOrder, TargetError> {
        let env = environment(desired, app);
        let secret = (!app.spec.secrets.is_empty()).then(|| SecretEnv {
            name: names::secret(&desired.key, &app.name, &app.slot),
            keys: app.spec.secrets.clone(),
        });
        Ok(SlotOrder {
            slot: app.slot.clone(),
            colour: self.colour(desired, app)?,
            image: image(app)?,
            labels: names::labels(self.cluster(), &desired.key, &app.name, names::SLOT_KIND),
            env,
            secret,
            replicas,
            pull_secrets: self.login(app).map(|_| names::pull(&desired.key)).into_iter().collect(),
            command: app.spec.start.as_deref().map(start_command),
            port: app.spec.port.or_else(|| manifests::container_port(manifests_of(app).ok()?)),
            health: app.spec.health.clone(),
            epoch,
        })
    }

    /// The operator's login for the app's image: its registry, and what stands in a kubelet's file of logins.
    fn login(&self, app: &DesiredApp) -> Option<(String, Value)> {
        let image = Reference::parse(app.spec.image.as_ref()?)?;
        let login = self.config.logins.of(&self.config.repository, &image)?;
        let both = format!("{}:{}", login.username, login.password.expose_secret());
        let auth = base64::engine::general_purpose::STANDARD.encode(both);
        // Docker Hub's logins stand under its old address ("Pull an Image from a Private Registry").
        let host = if image.host == crate::docker::HUB {
            "https://index.docker.io/v1/".to_owned()
        } else {
            image.host.clone()
        };
        Some((host, json!({"username": login.username, "password": login.password.expose_secret(), "auth": auth})))
    }

    /// The slot's objects as they would be applied.
    pub(super) fn rendered(
        &self,
        desired: &Desired,
        epoch: Epoch,
        app: &DesiredApp,
    ) -> Result<(SlotOrder, Rendered), TargetError> {
        let order = self.order(desired, epoch, app, Some(self.wanted_size(desired, app)))?;
        let mut rendered = manifests::render(manifests_of(app)?, &order).map_err(failed)?;
        if let Some(live) = self.nodes_kept_to(desired, app) {
            manifests::stay_near(&mut rendered.deployment, &live);
        }
        Ok((order, rendered))
    }

    /// What selects the pods that serve now, if the new ones must be on the same nodes.
    fn nodes_kept_to(&self, desired: &Desired, app: &DesiredApp) -> Option<Value> {
        let door = self.door(&desired.key, app)?;
        manifests::keeps_to_nodes(&door.object)?;
        let live = self.serving(&desired.key, app).filter(|live| live.slot != app.slot)?;
        live.deployment.pointer("/spec/selector").cloned()
    }

    /// What pods of the release need before they start: logins, secrets, configuration.
    pub(super) async fn put_needs(
        &self,
        desired: &Desired,
        app: &DesiredApp,
        rendered: &Rendered,
        record: Option<&Record>,
    ) -> Result<(), TargetError> {
        let logins: BTreeMap<String, Value> = desired.apps.iter().filter_map(|a| self.login(a)).collect();
        if !logins.is_empty() {
            let file = json!({"auths": logins}).to_string();
            let secret = json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "type": "kubernetes.io/dockerconfigjson",
                "metadata": {
                    "name": names::pull(&desired.key),
                    "labels": names::labels(self.cluster(), &desired.key, &app.name, names::PULL),
                },
                "data": {".dockerconfigjson": base64::engine::general_purpose::STANDARD.encode(file)},
            });
            self.cluster().apply(&secret).await?;
        }
        if !app.spec.secrets.is_empty() {
            let mut values = BTreeMap::new();
            for wanted in &app.spec.secrets {
                let value = self.config.secrets.get(wanted).ok_or_else(|| self.not_granted(desired, wanted))?;
                values.insert(wanted.clone(), value.expose_secret().to_owned());
            }
            let mut labels = names::labels(self.cluster(), &desired.key, &app.name, "secret");
            labels.insert(manifests::SLOT.to_owned(), manifests::label(app.slot.as_str()));
            let secret = names::secret(&desired.key, &app.name, &app.slot);
            self.cluster().apply(&manifests::secret_object(&secret, &labels, &values)).await?;
        }
        for config in &rendered.configs {
            match self.cluster().create(config).await {
                // Named by its content, and never changed.
                Ok(_) | Err(Fault::Conflict(_)) => {}
                Err(other) => return Err(other.into()),
            }
        }
        let Some(record) = record else { return Ok(()) };
        // Kept before anything of it is made: whoever clears up after a worker that died knows what to look for.
        self.keep_record(&desired.key, &app.name, &app.slot, record).await?;
        self.make_missing(&desired.key, &app.name, record).await
    }

    pub(super) fn not_granted(&self, desired: &Desired, secret: &str) -> TargetError {
        failed(format!(
            "the secret {secret} is not granted to {}: the operator adds it with `switchover secret set` or in the server's \
             settings",
            desired.key.environment
        ))
    }

    /// Makes the app's new slot, unserved.
    pub(super) async fn put(&self, desired: &Desired, epoch: Epoch, app: &DesiredApp) -> Result<(), TargetError> {
        let (order, rendered) = self.rendered(desired, epoch, app)?;
        let record = Record::of(app, &rendered.name, &order.image);
        self.put_needs(desired, app, &rendered, record.as_ref()).await?;
        for budget in &rendered.budgets {
            self.cluster().apply(budget).await?;
        }
        failpoint::hit("kubernetes.slot.before_deployment");
        let made = self.cluster().apply(&rendered.deployment).await?;
        self.watched().remember(Kind::Deployment, made);
        failpoint::hit("kubernetes.slot.before_preview");
        if app.kind == AppKind::Web {
            self.show(desired, app, &order, record.as_ref()).await?;
        }
        Ok(())
    }

    /// The Service that shows which of the new slot's pods would be reached. Made long before the flip, and not touched
    /// near it: kube-proxy would bundle the two.
    async fn show(
        &self,
        desired: &Desired,
        app: &DesiredApp,
        order: &SlotOrder,
        record: Option<&Record>,
    ) -> Result<(), TargetError> {
        let Some(service) = record.and_then(|r| r.service.as_ref()) else { return Ok(()) };
        let mut ports = service.pointer("/spec/ports").cloned().unwrap_or_default();
        for port in ports.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            port.shift_remove("nodePort");
        }
        let selector = manifests::selector(manifests_of(app)?, &order.slot, order.colour.as_deref());
        let preview = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": names::preview(name(service)),
                "labels": names::labels(self.cluster(), &desired.key, &app.name, "preview"),
            },
            "spec": {"type": "ClusterIP", "ports": ports, "selector": selector},
        });
        let made = self.cluster().apply(&preview).await?;
        self.watched().remember(Kind::Service, made);
        Ok(())
    }

    /// Makes a Deployment so large.
    pub(super) async fn scale(&self, deployment: &str, copies: u32) -> Result<(), TargetError> {
        let Some(known) = self.watched().get(Kind::Deployment, deployment) else {
            return Err(failed(format!("the Deployment {deployment} is gone")));
        };
        if replicas(&known) == copies {
            return Ok(());
        }
        let mut fields = json!({"spec": {"replicas": copies}});
        if copies == 0 {
            fields["metadata"] = json!({"annotations": {names::HAD: replicas(&known).to_string()}});
        }
        let made = self.cluster().merge("apps/v1", "Deployment", deployment, &fields).await?;
        self.watched().remember(Kind::Deployment, made);
        Ok(())
    }
}

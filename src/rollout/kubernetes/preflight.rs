//! What would go wrong, found before anything is touched; and what a release would change, for people.

use std::time::Duration;

use serde_json::Value;

use super::{
    KubernetesTarget, failed,
    look::{name, number, selects, text, texts},
    put,
    record::Record,
};
use crate::{
    cluster::Kind,
    domain::{
        config::AppKind,
        ids::Epoch,
        rollout::{Desired, DesiredApp, Effect, Kind as Way, Shape},
    },
    manifests::{self, Line},
    rollout::TargetError,
};

const PATIENCE: Duration = Duration::from_secs(15);

impl KubernetesTarget {
    pub(super) async fn preflight(&self, desired: &Desired) -> Result<Effect, TargetError> {
        self.watched().ready(PATIENCE).await.map_err(|why| {
            // Credentials and rights are not mended by waiting.
            if why.contains("lacks a right") || why.contains("credentials") {
                failed(why)
            } else {
                TargetError::Unreachable(why)
            }
        })?;
        if desired.kind == Way::Rollback {
            // The way back is not held up by anything that a look could find.
            return Ok(Effect::Done);
        }
        for app in &desired.apps {
            for secret in &app.spec.secrets {
                if !self.config.secrets.contains_key(secret) {
                    return Err(self.not_granted(desired, secret));
                }
            }
            put::image(app)?;
            put::manifests_of(app)?;
        }
        let missing = self.cluster().missing_rights().await.map_err(TargetError::from)?;
        if !missing.is_empty() {
            return Err(failed(format!(
                "the account of Switchover lacks rights in namespace {}: {}. `switchover doctor --rbac` prints the Role that \
                 it needs",
                self.cluster().namespace(),
                missing.join(", ")
            )));
        }
        self.nobody_elses(desired)?;
        self.not_us(desired)?;
        let mut slots = Vec::new();
        for app in &desired.apps {
            if app.kind == AppKind::Web
                && manifests::service(put::manifests_of(app)?, &app.name, app.spec.port).is_none()
            {
                return Err(failed(format!(
                    "nobody says at which port {} listens: write `port:` for it, or a Service",
                    app.name
                )));
            }
            let (_, rendered) = self.rendered(desired, Epoch(0), app)?;
            // The API server's own word on it, admission rules included, with nothing written.
            self.cluster().try_apply(&rendered.deployment).await.map_err(|fault| match TargetError::from(fault) {
                TargetError::Failed(why) => failed(format!("{}: the cluster refuses its Deployment: {why}", app.name)),
                other => other,
            })?;
            slots.push((app, rendered.deployment));
        }
        self.room(desired, &slots).await?;
        Ok(Effect::Done)
    }

    /// Objects that another tool keeps as it wants them would be fought over.
    fn nobody_elses(&self, desired: &Desired) -> Result<(), TargetError> {
        for app in &desired.apps {
            let manifests = put::manifests_of(app)?;
            let mut live: Vec<_> = self.door(&desired.key, app).map(|d| d.object).into_iter().collect();
            live.extend(manifests.workloads().filter_map(|w| self.watched().get(Kind::Deployment, name(w))));
            live.extend(manifests.autoscaler.iter().filter_map(|s| self.watched().get(Kind::Autoscaler, name(s))));
            for object in live {
                if let Some(words) = manifests::managed_by_other(&object) {
                    return Err(failed(format!("{}: {words}", app.name)));
                }
            }
        }
        Ok(())
    }

    /// Two of this server can't run side by side: as a worker it hands over to the next one.
    fn not_us(&self, desired: &Desired) -> Result<(), TargetError> {
        let Some(us) = self.cluster().us() else { return Ok(()) };
        let Some(pod) = self.watched().get(Kind::Pod, us) else { return Ok(()) };
        let labels = texts(&pod, "/metadata/labels");
        for app in desired.apps.iter().filter(|a| a.kind == AppKind::Web) {
            let mut workloads = put::manifests_of(app)?.workloads();
            let ours = workloads.find(|w| selects(&texts(w, "/spec/selector/matchLabels"), &labels));
            if let Some(ours) = ours {
                return Err(failed(format!(
                    "{}: this server runs in its Deployment {}, and its database has one writer, so no second one can be \
                     started beside it: write `kind: worker` for it, and it hands over to the next one",
                    app.name,
                    name(ours)
                )));
            }
        }
        Ok(())
    }

    /// Quotas of the namespace: both slots must fit at once.
    async fn room(&self, desired: &Desired, slots: &[(&DesiredApp, Value)]) -> Result<(), TargetError> {
        let quotas = self.listed("v1", "ResourceQuota", &std::collections::BTreeMap::new()).await.unwrap_or_default();
        if quotas.is_empty() {
            return Ok(());
        }
        let (mut pods, mut more, mut gone) = (Vec::new(), 0, Vec::new());
        for (app, wanted) in slots.iter().filter(|(app, _)| app.kind == AppKind::Web) {
            let door = self.door(&desired.key, app);
            let found = self.slots(&desired.key, &app.name, door.as_ref(), app.spec.manifests.as_deref());
            if found.iter().any(|f| f.slot == app.slot && f.is_up()) {
                continue;
            }
            let size = self.wanted_size(desired, app);
            more += size;
            pods.extend(wanted.pointer("/spec/template/spec").map(|pod| (pod, i64::from(size))));
            // Those of the idle one of a pair end as the new ones start.
            let colour = self.colour(desired, app)?;
            gone.extend(found.into_iter().filter(|f| colour.is_some() && f.colour == colour).map(|f| f.deployment));
        }
        for idle in &gone {
            let running = number(idle, "/status/replicas").unwrap_or(0);
            pods.extend(idle.pointer("/spec/template/spec").map(|pod| (pod, -i64::from(running))));
        }
        for quota in &quotas {
            if let Some(short) = manifests::no_room(quota, &pods) {
                return Err(failed(format!(
                    "no room for two slots side by side: the quota {} allows {} {} and has {} in use, too little for {more} more \
                     {}",
                    name(quota),
                    short.hard,
                    short.resource,
                    short.used,
                    if more == 1 { "pod" } else { "pods" },
                )));
            }
        }
        Ok(())
    }

    async fn planned(&self, desired: &Desired) -> Result<Vec<(String, Vec<Line>)>, TargetError> {
        self.watched().ready(PATIENCE).await.map_err(TargetError::Unreachable)?;
        let mut all = Vec::new();
        for app in &desired.apps {
            let manifests = put::manifests_of(app)?;
            let (order, rendered) = self.rendered(desired, Epoch(0), app)?;
            let mut wanted: Vec<Value> = rendered.configs.clone();
            wanted.extend(rendered.budgets.iter().cloned());
            wanted.push(rendered.deployment.clone());
            if let Some(record) = Record::of(app, &rendered.name, &order.image) {
                wanted.extend(record.shared);
                wanted.extend(record.autoscaler);
                if let Some(mut service) = record.service.filter(|_| app.kind == AppKind::Web) {
                    let selector = manifests::selector(manifests, &app.slot, order.colour.as_deref());
                    service["spec"]["selector"] = serde_json::json!(selector);
                    wanted.push(service);
                }
            }
            for object in wanted {
                let mut live = self.live_of(&object).await?;
                // A new slot is compared with the one that serves.
                if text(&object, "/kind") == "Deployment"
                    && matches!(manifests.shape, Shape::One { .. })
                    && live.is_none()
                {
                    live = self.serving(&desired.key, app).map(|live| (*live.deployment).clone());
                }
                all.push((manifests::title(&object), manifests::difference(live.as_ref(), &object)));
            }
        }
        Ok(all)
    }
}

/// What a release would change in the cluster, object by object. Nothing is written.
///
/// # Errors
/// [`TargetError`].
pub async fn plan(target: &KubernetesTarget, desired: &Desired) -> Result<Vec<(String, Vec<Line>)>, TargetError> {
    target.planned(desired).await
}

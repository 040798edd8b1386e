//! A worker is never doubled: the one is stopped to its end, then the other starts.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    KubernetesTarget, failed,
    look::{Active, Found, annotation, name, number, replicas, slot_of, text},
    names,
    perform::{pointer_to, stale},
    put,
    record::Record,
};
use crate::{
    clock,
    cluster::{Fault, Kind},
    domain::{
        ids::{Epoch, Slot},
        rollout::{Desired, DesiredApp, Effect, Kind as Way},
    },
    failpoint,
    manifests::{EPOCH, label},
    rollout::TargetError,
};

/// Beyond its own grace, a pod's end may take so long.
const SLACK: Duration = Duration::from_secs(30);
/// The grace where a pod names none ("Pod Lifecycle").
const GRACE: u64 = 30;

impl KubernetesTarget {
    pub(super) async fn replace(
        &self,
        desired: &Desired,
        epoch: Epoch,
        app: &DesiredApp,
        from: Option<&Slot>,
        to: &Slot,
    ) -> Result<Effect, TargetError> {
        let door = self.fence(&desired.key, app, epoch).await?;
        let manifests = put::manifests_of(app)?;
        let found = self.slots(&desired.key, &app.name, Some(&door), Some(manifests));
        let active = Self::active(&door, &found, Some(manifests));
        let there = active == Active::Slot(to.clone());
        if !there && active != from.map_or(Active::Nothing, |s| Active::Slot(s.clone())) {
            return Err(failed(format!("{} runs as {active:?} and not as {from:?}: somebody else moved it", app.name)));
        }
        // Not only the live one: whatever another hand may have left running.
        let others: Vec<_> = found.iter().filter(|f| &f.slot != to).collect();
        if let Some(us) = self.cluster().us()
            && let Some(ours) = others.iter().find(|f| self.pods(f).0.iter().any(|pod| name(pod) == us))
        {
            return self.give_way(desired, epoch, app, &found, ours, to, us).await;
        }
        for other in &others {
            self.scale(name(&other.deployment), 0).await?;
        }
        for other in &others {
            self.wait_for_end(other, to).await?;
        }
        failpoint::hit("kubernetes.worker.after_stop");
        self.begin(desired, epoch, app, &found, to).await?;
        failpoint::hit("kubernetes.worker.after_start");
        if let Some(record) = self.read_record(&desired.key, &app.name, to).await? {
            if to != &app.slot || desired.kind == Way::Rollback {
                self.apply_shared(&desired.key, &app.name, &record, false).await?;
            }
            self.bring(desired, app, &record, from).await?;
        }
        let at = match door.switched_at().filter(|_| there) {
            Some(at) => at,
            None => {
                let at = clock::now();
                let steps = json!([
                    {"op": "test", "path": pointer_to("/metadata/annotations", EPOCH), "value": epoch.to_string()},
                    {"op": "replace", "path": "/data/slot", "value": to.as_str()},
                    {"op": "add", "path": pointer_to("/metadata/annotations", names::SWITCHED), "value": at.to_string()},
                ]);
                match self.cluster().patch("v1", "ConfigMap", door.name(), &steps).await {
                    Ok(made) => self.watched().remember(Kind::Pointer, made),
                    Err(Fault::Conflict(_)) => {
                        let now = self.door_now(&door).await?;
                        return Err(match now.epoch() {
                            Some(known) if known > epoch => stale(&now, known),
                            _ => TargetError::Unreachable(format!("{} changed meanwhile", door.name())),
                        });
                    }
                    Err(other) => return Err(other.into()),
                }
                at
            }
        };
        Ok(Effect::Switched { at })
    }

    /// Starts the worker of a slot.
    async fn begin(
        &self,
        desired: &Desired,
        epoch: Epoch,
        app: &DesiredApp,
        found: &[Found],
        to: &Slot,
    ) -> Result<(), TargetError> {
        if to == &app.slot {
            // Its pods may need what stands beside (a claim, say).
            if let Some(record) = Record::of(app, "", &put::image(app)?) {
                self.apply_shared(&desired.key, &app.name, &record, false).await?;
            }
            return self.put(desired, epoch, app).await;
        }
        let known = found.iter().find(|f| &f.slot == to);
        let known = known.ok_or_else(|| failed(format!("{}: the Deployment of slot {to} is gone", app.name)))?;
        let had = annotation(&known.deployment, names::HAD).and_then(|n| n.parse().ok()).unwrap_or(1);
        self.scale(name(&known.deployment), had).await
    }

    /// The worker is this very server. Once its pod ends nobody here goes on, so the next one is started first: it waits
    /// for the data folder, and goes on with this rollout where it stands.
    #[expect(clippy::too_many_arguments, reason = "what replace has found out already")]
    async fn give_way(
        &self,
        desired: &Desired,
        epoch: Epoch,
        app: &DesiredApp,
        found: &[Found],
        ours: &Found,
        to: &Slot,
        us: &str,
    ) -> Result<Effect, TargetError> {
        let what = format!("{} {to}", desired.rollout);
        let handed = annotation(&ours.deployment, names::HANDED).and_then(|h| h.rsplit_once(' '));
        if handed.is_some_and(|(known, by)| known == what && by != us) {
            return Err(failed(format!(
                "{}: this server handed over to slot {to}, and was started again: the next one did not come up. Its pod tells why \
                 (`kubectl describe`, `kubectl logs`)",
                app.name
            )));
        }
        self.begin(desired, epoch, app, found, to).await?;
        failpoint::hit("kubernetes.worker.after_next");
        let deployment = name(&ours.deployment);
        let copies = replicas(&ours.deployment);
        if copies > 0 {
            tracing::info!(slot = %to, "this server is what is released: it hands over to the next one");
            let noted = json!({names::HAD: copies.to_string(), names::HANDED: format!("{what} {us}")});
            let fields = json!({"spec": {"replicas": 0}, "metadata": {"annotations": noted}});
            let made = self.cluster().merge("apps/v1", "Deployment", deployment, &fields).await?;
            self.watched().remember(Kind::Deployment, made);
        }
        Err(TargetError::Unreachable(format!("this server ends; the next one goes on with {}", desired.rollout)))
    }

    /// Waits until no pod of a stopped slot is left. The labels of a plain Deployment catch those of the next slot too.
    async fn wait_for_end(&self, found: &Found, to: &Slot) -> Result<(), TargetError> {
        let grace =
            found.deployment.pointer("/spec/template/spec/terminationGracePeriodSeconds").and_then(Value::as_u64);
        let limit = Duration::from_secs(grace.unwrap_or(GRACE)) + SLACK;
        let mut changes = self.watched().changes();
        let gone = async {
            loop {
                let (pods, mut others) = self.pods(found);
                others.retain(|pod| {
                    !slot_of(pod, "/metadata").is_some_and(|of| of == to.as_str() || of == label(to.as_str()))
                });
                let known = self.watched().get(Kind::Deployment, name(&found.deployment));
                let status = known.as_ref().and_then(|d| number(d, "/status/replicas")).unwrap_or(0);
                if pods.is_empty() && others.is_empty() && status == 0 {
                    return;
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(limit, gone).await.map_err(|_| {
            let pods: Vec<String> = self.pods(found).0.iter().map(|p| text(p, "/metadata/name").to_owned()).collect();
            failed(format!(
                "the worker before does not end within {} s ({}): look what it waits for, and deploy again",
                limit.as_secs(),
                pods.join(", ")
            ))
        })
    }
}

//! The first time: an app that ran before us. Nothing that serves is touched until its successor serves the same version.
//!
//! * A hand-written pair is taken as it is; its Service gets our marks.
//! * One plain Deployment: a copy of the LIVE one becomes the first slot; when it is ready, the Service is narrowed to it,
//!   and then the plain one is stopped. Pods of a new release must never match the old, wider selector.
//! * A worker: its Deployment counts as the first slot, and is stopped when the next one starts.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    KubernetesTarget, failed,
    look::{
        Active, Door, annotation, is_ending, is_ready, name, object_label, pair_label, replicas, selects, slot_of,
        text, texts,
    },
    names,
    observe::left_nodes,
    perform::pointer_to,
    put,
};
use crate::{
    clock,
    cluster::{Fault, Kind, OWNER, Object},
    domain::{
        ids::{Epoch, Slot},
        rollout::{Desired, DesiredApp},
    },
    failpoint, manifests,
    manifests::SLOT,
    rollout::TargetError,
};

/// Time alone can make a take-over ready for its next part.
const LOOK: Duration = Duration::from_millis(200);

impl KubernetesTarget {
    /// Takes what stands there into our care, once; does nothing for what is ours already.
    pub(super) async fn adopt(
        &self,
        desired: &Desired,
        epoch: Epoch,
        app: &DesiredApp,
        door: Door,
        stop: &CancellationToken,
    ) -> Result<Door, TargetError> {
        if !door.web {
            return self.adopt_worker(desired, app, door).await;
        }
        let manifests = put::manifests_of(app)?;
        let unmarked = door.claimed_for().is_none();
        if let Some(pair) = pair_label(Some(manifests), Some(&door)) {
            let found = self.slots(&desired.key, &app.name, Some(&door), Some(manifests));
            return match Self::active(&door, &found, Some(manifests)) {
                Active::Drift(words) => Err(failed(words)),
                active => {
                    if let Active::Slot(slot) = active
                        && let Some(live) = found.iter().find(|f| f.slot == slot)
                    {
                        let deployment = name(&live.deployment);
                        self.record_what_stands(&desired.key, app, &slot, deployment, Some(&door)).await?;
                    }
                    let unmarked = unmarked || annotation(&door.object, names::PAIR).is_none();
                    if unmarked {
                        self.mark(desired, epoch, app, &door, &[(names::PAIR, &pair)], None).await
                    } else {
                        Ok(door)
                    }
                }
            };
        }
        let selector = door.selector();
        if selector.contains_key(SLOT) {
            let door = match unmarked {
                true => self.mark(desired, epoch, app, &door, &[], None).await?,
                false => door,
            };
            // A worker that died after it narrowed the Service left the rest of the way.
            return self.retire_plain(desired, app, door, stop).await;
        }
        if !unmarked {
            // Claimed and widened by somebody: the machine sees the drift.
            return Ok(door);
        }
        let plain: Vec<Object> = self
            .watched()
            .all(Kind::Deployment)
            .into_iter()
            .filter(|d| object_label(d, OWNER).is_none())
            .filter(|d| selects(&selector, &texts(d, "/spec/template/metadata/labels")) && replicas(d) > 0)
            .collect();
        match plain.as_slice() {
            [] => self.point_at_nothing(desired, epoch, app, &door).await,
            [live] => self.take_over(desired, epoch, app, &door, live, stop).await,
            several => Err(failed(format!(
                "the Service {} leads to several Deployments ({}), and they are no pair that differs in one label: let it \
                 select one of them, or say with `manifests:` which is meant",
                door.name(),
                several.iter().map(|d| name(d)).collect::<Vec<_>>().join(", "),
            ))),
        }
    }

    /// Writes our marks on a Service, and another selector if that is wanted.
    async fn mark(
        &self,
        desired: &Desired,
        epoch: Epoch,
        app: &DesiredApp,
        door: &Door,
        more: &[(&'static str, &str)],
        selector: Option<&Value>,
    ) -> Result<Door, TargetError> {
        let object = &door.object;
        let mut steps = vec![
            json!({"op": "test", "path": "/metadata/resourceVersion", "value": text(object, "/metadata/resourceVersion")}),
        ];
        if object.pointer("/metadata/annotations").is_none() {
            steps.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
        }
        let mut marks = vec![
            (names::OF, desired.key.to_string()),
            (names::APP_OF, app.name.to_string()),
            (manifests::EPOCH, epoch.to_string()),
        ];
        marks.extend(more.iter().map(|(key, value)| (*key, (*value).to_owned())));
        if let Some(selector) = selector {
            steps.push(json!({"op": "replace", "path": "/spec/selector", "value": selector}));
            marks.push((names::SWITCHED, clock::now().to_string()));
        }
        for (key, value) in marks {
            steps.push(json!({"op": "add", "path": pointer_to("/metadata/annotations", key), "value": value}));
        }
        match self.cluster().patch("v1", "Service", door.name(), &Value::Array(steps)).await {
            Ok(made) => {
                self.watched().remember(Kind::Service, made.clone());
                Ok(Door { object: Object::new(made), web: true })
            }
            Err(Fault::Conflict(why)) => {
                Err(TargetError::Unreachable(format!("{} changed meanwhile: {why}", door.name())))
            }
            Err(other) => Err(other.into()),
        }
    }

    /// A Service that leads to nothing that runs: closed, so that nothing of a new slot answers before its switch.
    async fn point_at_nothing(
        &self,
        desired: &Desired,
        epoch: Epoch,
        app: &DesiredApp,
        door: &Door,
    ) -> Result<Door, TargetError> {
        if !self.endpoints(door.name()).is_empty() {
            return Err(failed(format!(
                "the Service {} leads to pods that no Deployment made (a StatefulSet, a DaemonSet, a bare Pod?): that can't \
                 be released blue/green",
                door.name()
            )));
        }
        let mut selector = door.selector();
        selector.insert(SLOT.to_owned(), names::NONE.to_owned());
        self.mark(desired, epoch, app, door, &[], Some(&json!(selector))).await
    }

    /// A copy of the live Deployment becomes the first slot.
    async fn take_over(
        &self,
        desired: &Desired,
        epoch: Epoch,
        app: &DesiredApp,
        door: &Door,
        live: &Object,
        stop: &CancellationToken,
    ) -> Result<Door, TargetError> {
        let slot = first_slot(live)?;
        let labels = names::labels(self.cluster(), &desired.key, &app.name, names::SLOT_KIND);
        let mut copy = manifests::adopt(live, &slot, &labels).map_err(failed)?;
        let ready = self.pods_before(live).iter().filter(|p| is_ready(p)).count();
        let copies = replicas(live).max(u32::try_from(ready).unwrap_or(1)).max(1);
        copy["spec"]["replicas"] = json!(copies);
        if manifests::keeps_to_nodes(&door.object).is_some() {
            let labels = live.pointer("/spec/selector/matchLabels");
            let not_ours = json!([{"key": SLOT, "operator": "DoesNotExist"}]);
            manifests::stay_near(&mut copy, &json!({"matchLabels": labels, "matchExpressions": not_ours}));
        }
        tracing::info!(service = door.name(), deployment = name(live), %slot, "the live Deployment becomes the first slot");
        self.record_what_stands(&desired.key, app, &slot, name(&copy), Some(door)).await?;
        let made = self.cluster().apply(&copy).await?;
        self.watched().remember(Kind::Deployment, made);
        failpoint::hit("kubernetes.adopt.after_copy");
        // Its pods match the wide selector and serve as soon as they are ready: the same version, so nobody notices.
        let deadline = tokio::time::Instant::now() + desired.start_timeout;
        let mut changes = self.watched().changes();
        loop {
            let found = self.slots(&desired.key, &app.name, Some(door), None);
            let Some(first) = found.iter().find(|f| f.slot == slot) else {
                return Err(failed(format!("the first slot {slot} of {} is gone", app.name)));
            };
            let (pods, _) = self.pods(first);
            let reached = self.endpoints(door.name());
            let up = pods.iter().filter(|p| is_ready(p) && reached.contains(text(p, "/metadata/uid"))).count();
            let left = left_nodes(door, &self.pods_before(live), &pods);
            if up >= copies as usize && left.is_none() {
                break;
            }
            let why = || {
                let room = || "is there room for twice the size?".to_owned();
                format!(
                    "a copy of the live Deployment {} does not get ready as the first slot ({up} of {copies}): {}. Nothing \
                     that serves was touched",
                    name(live),
                    left.clone().unwrap_or_else(room),
                )
            };
            let given_up = tokio::select! {
                () = stop.cancelled() => TargetError::Stopped,
                () = tokio::time::sleep_until(deadline) => failed(why()),
                _ = changes.changed() => continue,
            };
            // It matches the wide selector still: left there, it would answer beside what its author applies next.
            self.cluster().delete("apps/v1", "Deployment", name(&copy), None).await?;
            self.watched().forget(Kind::Deployment, name(&copy));
            return Err(given_up);
        }
        let mut selector = door.selector();
        selector.insert(SLOT.to_owned(), manifests::label(slot.as_str()));
        let door = self.door_now(door).await?;
        // In one change with the mark of what is left to do.
        let marks = [(names::TAKEN, name(live))];
        let door = self.mark(desired, epoch, app, &door, &marks, Some(&json!(selector))).await?;
        failpoint::hit("kubernetes.adopt.after_narrow");
        self.retire_plain(desired, app, door, stop).await
    }

    /// The pods of a plain Deployment: its labels catch those of its copy too.
    fn pods_before(&self, plain: &Value) -> Vec<Object> {
        let labels = texts(plain, "/spec/selector/matchLabels");
        let mut pods = self.watched().all(Kind::Pod);
        pods.retain(|p| selects(&labels, &texts(p, "/metadata/labels")) && slot_of(p, "/metadata").is_none());
        pods
    }

    /// The end of taking over a plain Deployment, once its Service leads to the copy alone: its autoscaler follows, and it is
    /// stopped when every node's proxy had time to follow.
    async fn retire_plain(
        &self,
        desired: &Desired,
        app: &DesiredApp,
        door: Door,
        stop: &CancellationToken,
    ) -> Result<Door, TargetError> {
        let Some(plain) = annotation(&door.object, names::TAKEN).map(str::to_owned) else { return Ok(door) };
        let found = self.slots(&desired.key, &app.name, Some(&door), None);
        if let Active::Slot(slot) = Self::active(&door, &found, None)
            && let Some(scaler) = self.read_record(&desired.key, &app.name, &slot).await?.and_then(|r| r.autoscaler)
        {
            self.cluster().apply(&scaler).await?;
        }
        let settled = self.config.settle.max(self.config.balancer_settle);
        let deadline = tokio::time::Instant::now() + settled + desired.start_timeout;
        let manifests = app.spec.manifests.as_deref();
        let mut changes = self.watched().changes();
        let slot = loop {
            changes.mark_unchanged();
            let found = self.slots(&desired.key, &app.name, Some(&door), None);
            if let Active::Slot(slot) = Self::active(&door, &found, None)
                && found.iter().any(|f| f.slot == slot && self.settled(&door, f, manifests))
            {
                break slot;
            }
            tokio::select! {
                () = stop.cancelled() => return Err(TargetError::Stopped),
                () = tokio::time::sleep_until(deadline) => {
                    return Err(failed(format!(
                        "the Service {} does not come to lead to the copy of {plain} alone; both go on",
                        door.name()
                    )));
                }
                _ = changes.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        };
        self.narrow_budgets(desired, app, &slot).await?;
        if self.watched().get(Kind::Deployment, &plain).is_some() {
            self.scale(&plain, 0).await?;
        }
        failpoint::hit("kubernetes.adopt.after_stop");
        let fields = json!({"metadata": {"annotations": {names::TAKEN: null}}});
        let made = self.cluster().merge("v1", "Service", door.name(), &fields).await?;
        self.watched().remember(Kind::Service, made.clone());
        Ok(Door { object: Object::new(made), web: true })
    }

    /// Its author's disruption budgets go on for the first slot alone and end with it: a pod under two budgets can't be
    /// evicted at all ("Disruptions"), and each slot to come brings its own.
    async fn narrow_budgets(&self, desired: &Desired, app: &DesiredApp, slot: &Slot) -> Result<(), TargetError> {
        for budget in &put::manifests_of(app)?.budgets {
            let known = text(budget, "/metadata/name");
            let live = self.cluster().read("policy/v1", "PodDisruptionBudget", known).await?;
            if live.is_none_or(|b| b.pointer("/metadata/labels").is_some_and(|l| l.get(OWNER).is_some())) {
                continue;
            }
            let mut labels = names::labels(self.cluster(), &desired.key, &app.name, names::SLOT_KIND);
            labels.insert(SLOT.to_owned(), manifests::label(slot.as_str()));
            let fields = json!({
                "metadata": {"labels": labels},
                "spec": {"selector": {"matchLabels": {SLOT: manifests::label(slot.as_str())}}},
            });
            self.cluster().merge("policy/v1", "PodDisruptionBudget", known, &fields).await?;
        }
        Ok(())
    }

    /// A worker's Deployment from before us counts as a slot.
    async fn adopt_worker(&self, desired: &Desired, app: &DesiredApp, door: Door) -> Result<Door, TargetError> {
        if text(&door.object, "/data/slot") != names::NONE || annotation(&door.object, names::PLAIN).is_some() {
            return Ok(door);
        }
        let authors = put::manifests_of(app)?.workloads().next().map(|w| name(w).to_owned()).unwrap_or_default();
        let plain = self.watched().get(Kind::Deployment, &authors);
        let Some(plain) = plain.filter(|d| object_label(d, OWNER).is_none() && replicas(d) > 0 && !is_ending(d)) else {
            return Ok(door);
        };
        let slot = first_slot(&plain)?;
        self.record_what_stands(&desired.key, app, &slot, &authors, None).await?;
        let fields = json!({
            "metadata": {"annotations": {names::PLAIN: format!("{authors} {slot}")}},
            "data": {"slot": slot.as_str()},
        });
        let made = self.cluster().merge("v1", "ConfigMap", door.name(), &fields).await?;
        self.watched().remember(Kind::Pointer, made.clone());
        Ok(Door { object: Object::new(made), web: false })
    }
}

/// The name of a slot that ran before us: of its pod template, so that a second try finds the first one's.
fn first_slot(live: &Value) -> Result<Slot, TargetError> {
    let template = live.pointer("/spec/template").map(Value::to_string).unwrap_or_default();
    let print = crate::domain::ids::Digest::of(template.as_bytes());
    Slot::new(format!("live-{}", &print.short()[..8])).map_err(|e| failed(e.to_string()))
}

//! The flip: one patch of one Service, and what goes with it before and after.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    KubernetesTarget, failed,
    look::{self, Active, Door, annotation, name, object_label, replicas, text},
    names,
    perform::{merge_into, pointer_to, stale},
    put,
    record::Record,
};
use crate::{
    clock,
    cluster::{Fault, KIND, Kind, Named, OWNER},
    domain::{
        ids::{AppName, Epoch, Slot},
        rollout::{Desired, DesiredApp, Effect, EnvironmentKey, Kind as Way},
    },
    failpoint,
    manifests::{self, EPOCH},
    rollout::TargetError,
};

/// Kinds that pods may wait for before they are ready.
const AHEAD: [&str; 8] =
    ["ServiceAccount", "Role", "RoleBinding", "Secret", "ConfigMap", "PersistentVolumeClaim", "Service", "StatefulSet"];

impl KubernetesTarget {
    pub(super) async fn switch(
        &self,
        desired: &Desired,
        epoch: Epoch,
        app: &DesiredApp,
        from: Option<&Slot>,
        to: &Slot,
    ) -> Result<Effect, TargetError> {
        let manifests = put::manifests_of(app)?;
        let door = self.door(&desired.key, app).ok_or_else(|| failed(format!("{}: its Service is gone", app.name)))?;
        let door = self.door_now(&door).await?;
        if let Some(known) = door.epoch().filter(|known| *known > epoch) {
            return Err(stale(&door, known));
        }
        let found = self.slots(&desired.key, &app.name, Some(&door), Some(manifests));
        let active = Self::active(&door, &found, Some(manifests));
        let there = active == Active::Slot(to.clone());
        let expected = from.map_or(Active::Nothing, |slot| Active::Slot(slot.clone()));
        if !there && active != expected {
            return Err(failed(match active {
                Active::Drift(words) => words,
                Active::Slot(slot) => {
                    format!("{} is served by slot {slot} and not by {from:?}: somebody else moved it", app.name)
                }
                Active::Nothing => {
                    format!("{} is served by nothing and not by {from:?}: somebody else moved it", app.name)
                }
            }));
        }
        let target =
            found.iter().find(|f| &f.slot == to).ok_or_else(|| failed(format!("{}: slot {to} is gone", app.name)))?;
        let record = self.read_record(&desired.key, &app.name, to).await?;
        // On the way back nothing comes before the flip.
        let forward = to == &app.slot && desired.kind == Way::Release;
        if let Some(record) = record.as_ref().filter(|_| forward && !there) {
            self.apply_shared(&desired.key, &app.name, record, false).await?;
            failpoint::hit("kubernetes.switch.after_shared");
        }
        let at = match door.switched_at().filter(|_| there) {
            Some(at) => {
                // It was never flipped, or is back already; what goes along with the slot may be the other's still.
                if !forward && record.is_some() && desired.kind == Way::Release {
                    self.mark_behind(&door, &app.slot).await?;
                }
                at
            }
            None => {
                if forward {
                    self.still_there(&door, target).await?;
                }
                let selector = manifests::selector(manifests, to, target.colour.as_deref());
                let none = Slot::new(names::NONE).map_err(|e| failed(e.to_string()))?;
                let behind = (!forward && record.is_some()).then(|| from.unwrap_or(&none));
                self.flip(&door, epoch, to, &json!(selector), record.as_ref(), behind).await?
            }
        };
        failpoint::hit("kubernetes.switch.after_flip");
        if let Some(record) = record.as_ref().filter(|_| forward) {
            self.bring(desired, app, record, from).await?;
        }
        Ok(Effect::Switched { at })
    }

    /// The last look before the flip, at the API server itself: the slot may have died since the rollout looked.
    async fn still_there(&self, door: &Door, target: &look::Found) -> Result<(), TargetError> {
        let preview = names::preview(door.name());
        let params = kube::api::ListParams::default().labels(&format!("kubernetes.io/service-name={preview}"));
        let slices = self.cluster().list("discovery.k8s.io/v1", "EndpointSlice", &params).await?;
        let ready = look::ready_endpoints(slices.iter());
        let wanted = replicas(&target.deployment) as usize;
        if ready.len() < wanted {
            let words = format!("only {} of {wanted} copies are ready right before the switch", ready.len());
            return Err(TargetError::Unreachable(words));
        }
        Ok(())
    }

    /// What goes along with a slot and comes after the flip.
    pub(super) async fn bring(
        &self,
        desired: &Desired,
        app: &DesiredApp,
        record: &Record,
        left: Option<&Slot>,
    ) -> Result<(), TargetError> {
        let key = &desired.key;
        self.apply_shared(key, &app.name, record, true).await?;
        self.hand_over(key, app, record).await?;
        let Some(left) = left else { return Ok(()) };
        let Some(left) = self.read_record(key, &app.name, left).await? else { return Ok(()) };
        let mut kept = record.names();
        kept.append(&mut self.names_of_others(desired, app).await?);
        // What serves does so without it: no reason to take a good release back.
        if let Err(error) = self.prune(&left, &kept).await {
            tracing::warn!(app = %app.name, %error, "objects that left the manifests can't be removed; delete them by hand");
        }
        Ok(())
    }

    async fn mark_behind(&self, door: &Door, left: &Slot) -> Result<(), TargetError> {
        let fields = json!({"metadata": {"annotations": {names::BEHIND: left.as_str()}}});
        let made = self.cluster().merge("v1", "Service", door.name(), &fields).await?;
        self.watched().remember(Kind::Service, made);
        Ok(())
    }

    /// Brings what goes along with the slot that a Service went back to, and takes the mark from it.
    pub(super) async fn follow(&self, desired: &Desired, app: &DesiredApp, door: &Door) -> Result<(), TargetError> {
        let key = &desired.key;
        let Some(mark) = annotation(&door.object, names::BEHIND) else { return Ok(()) };
        let manifests = app.spec.manifests.as_deref();
        let found = self.slots(key, &app.name, Some(door), manifests);
        if let Active::Slot(active) = Self::active(door, &found, manifests)
            && let Some(record) = self.read_record(key, &app.name, &active).await?
        {
            let left = Slot::new(mark).ok();
            // First the pointer, then the size: all requests are its own again.
            if let Some(serves) = found.iter().find(|f| f.slot == active)
                && let Some(other) = found.iter().find(|f| Some(&f.slot) == left.as_ref())
                && self.size(other) > replicas(&serves.deployment)
            {
                self.scale(name(&serves.deployment), self.size(other)).await?;
            }
            self.apply_shared(key, &app.name, &record, false).await?;
            self.bring(desired, app, &record, left.as_ref()).await?;
        }
        let path = pointer_to("/metadata/annotations", names::BEHIND);
        let steps = json!([{"op": "test", "path": path, "value": mark}, {"op": "remove", "path": path}]);
        let made = self.cluster().patch("v1", "Service", door.name(), &steps).await?;
        self.watched().remember(Kind::Service, made);
        Ok(())
    }

    /// One change: the whole selector, the ports if they differ, our epoch, when, and, on the way back, the slot that is
    /// left `behind`. Whoever changed the Service in
    /// between makes it fail; then it is read back.
    async fn flip(
        &self,
        door: &Door,
        epoch: Epoch,
        to: &Slot,
        selector: &Value,
        record: Option<&Record>,
        behind: Option<&Slot>,
    ) -> Result<Timestamp, TargetError> {
        let (object, at) = (&door.object, clock::now());
        let mut steps = vec![
            json!({"op": "test", "path": "/metadata/resourceVersion", "value": text(object, "/metadata/resourceVersion")}),
            json!({"op": "test", "path": "/spec/selector", "value": object.pointer("/spec/selector")}),
        ];
        match annotation(object, EPOCH) {
            Some(known) => {
                steps.push(json!({"op": "test", "path": pointer_to("/metadata/annotations", EPOCH), "value": known}));
            }
            None if object.pointer("/metadata/annotations").is_none() => {
                steps.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
            }
            None => {}
        }
        steps.push(json!({"op": "replace", "path": "/spec/selector", "value": selector}));
        for (key, value) in [(EPOCH, epoch.to_string()), (names::SWITCHED, at.to_string())] {
            steps.push(json!({"op": "add", "path": pointer_to("/metadata/annotations", key), "value": value}));
        }
        let mark = pointer_to("/metadata/annotations", names::BEHIND);
        match behind {
            Some(left) => steps.push(json!({"op": "add", "path": mark, "value": left.as_str()})),
            None if annotation(object, names::BEHIND).is_some() => steps.push(json!({"op": "remove", "path": mark})),
            None => {}
        }
        if let Some(ports) = record.and_then(|r| r.service.as_ref()).and_then(|s| changed_ports(object, s)) {
            steps.push(json!({"op": "replace", "path": "/spec/ports", "value": ports}));
        }
        match self.cluster().patch("v1", "Service", door.name(), &Value::Array(steps)).await {
            Ok(made) => {
                self.watched().remember(Kind::Service, made);
                tracing::debug!(service = door.name(), slot = %to, "the Service points at the slot");
                Ok(at)
            }
            Err(Fault::Conflict(why)) => {
                let now = self.door_now(door).await?;
                if let Some(known) = now.epoch().filter(|known| *known > epoch) {
                    return Err(stale(&now, known));
                }
                if json!(now.selector()) == *selector
                    && let Some(at) = now.switched_at()
                {
                    return Ok(at);
                }
                Err(TargetError::Unreachable(format!("the Service {} changed meanwhile: {why}", door.name())))
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Applies the objects that are no part of a slot: Services after the flip, all others before it. `services`: which
    /// half.
    pub(super) async fn apply_shared(
        &self,
        key: &EnvironmentKey,
        app: &AppName,
        record: &Record,
        services: bool,
    ) -> Result<(), TargetError> {
        let is_service = |o: &Value| text(o, "/kind") == "Service";
        let labels = json!(names::labels(self.cluster(), key, app, names::SHARED));
        for object in record.shared.iter().filter(|o| is_service(o) == services) {
            let mut object = object.clone();
            if self.live_of(&object).await?.is_none_or(|live| object_label(&live, OWNER).is_some()) {
                // Ours from the beginning: only such objects are ever removed by us.
                merge_into(&mut object, "labels", &labels);
            }
            self.apply_or_make_anew(&object).await?;
        }
        if services && let Some(service) = &record.service {
            let mut service = service.clone();
            // Its ports were part of the flip.
            if let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) {
                spec.shift_remove("ports");
            }
            let made = self.cluster().apply(&service).await?;
            self.watched().remember(Kind::Service, made);
        }
        Ok(())
    }

    /// Makes what pods of a release may wait for and is not there yet. What is there changes only with the switch.
    pub(super) async fn make_missing(
        &self,
        key: &EnvironmentKey,
        app: &AppName,
        record: &Record,
    ) -> Result<(), TargetError> {
        let labels = json!(names::labels(self.cluster(), key, app, names::SHARED));
        for object in record.shared.iter().filter(|o| AHEAD.contains(&text(o, "/kind"))) {
            if self.live_of(object).await?.is_some() {
                continue;
            }
            let mut object = object.clone();
            merge_into(&mut object, "labels", &labels);
            self.cluster().apply(&object).await?;
            tracing::debug!(object = name(&object), %app, "made ahead of the slot that may wait for it");
        }
        Ok(())
    }

    /// What a slot that never served, or serves no more, brought along: as what serves has it, or gone.
    pub(super) async fn take_along(
        &self,
        key: &EnvironmentKey,
        app: &AppName,
        gone: &Record,
        serves: Option<&Record>,
    ) -> Result<(), TargetError> {
        if serves.is_some_and(|s| s.shared == gone.shared) {
            return Ok(());
        }
        if let Some(serves) = serves {
            self.apply_shared(key, app, serves, false).await?;
        }
        self.prune(gone, &serves.map(Record::names).unwrap_or_default()).await
    }

    /// The shared objects of the other apps of a release: as it has them, and as what serves has them.
    async fn names_of_others(&self, desired: &Desired, app: &DesiredApp) -> Result<Vec<Named>, TargetError> {
        let mut all = Vec::new();
        for other in desired.apps.iter().filter(|other| other.name != app.name) {
            let manifests = other.spec.manifests.as_deref();
            all.extend(manifests.into_iter().flat_map(|m| &m.shared).filter_map(Named::of));
            let Some(door) = self.door(&desired.key, other) else { continue };
            let found = self.slots(&desired.key, &other.name, Some(&door), manifests);
            if let Active::Slot(active) = Self::active(&door, &found, manifests)
                && let Some(record) = self.read_record(&desired.key, &other.name, &active).await?
            {
                all.append(&mut record.names());
            }
        }
        Ok(all)
    }

    /// Jobs can't be changed once they are made ("Jobs"): a changed one is made anew.
    async fn apply_or_make_anew(&self, object: &Value) -> Result<(), TargetError> {
        match self.cluster().apply(object).await {
            Ok(_) => Ok(()),
            Err(Fault::Refused(why)) if text(object, "/kind") == "Job" && why.contains("immutable") => {
                self.cluster().delete(text(object, "/apiVersion"), "Job", name(object), None).await?;
                Err(failed(format!("the Job {} changed and is made anew: {why}", name(object))))
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Points the autoscaler at the slot that serves now. It may not shrink it until the watch is over: its figures are
    /// of pods that had no requests a moment ago.
    async fn hand_over(&self, key: &EnvironmentKey, app: &DesiredApp, record: &Record) -> Result<(), TargetError> {
        let Some(scaler) = &record.autoscaler else { return Ok(()) };
        let mut scaler = scaler.clone();
        self.claim_scaler(key, app, &mut scaler).await?;
        scaler["spec"]["behavior"]["scaleDown"]["selectPolicy"] = json!("Disabled");
        merge_into(&mut scaler, "annotations", &json!({names::HANDOVER: "true"}));
        let made = self.cluster().apply(&scaler).await?;
        self.watched().remember(Kind::Autoscaler, made);
        Ok(())
    }

    /// Ends the hand-over: the autoscaler as its author wrote it.
    pub(super) async fn finish(&self, key: &EnvironmentKey, app: &DesiredApp) -> Result<(), TargetError> {
        let Some(door) = self.door(key, app) else { return Ok(()) };
        let manifests = app.spec.manifests.as_deref();
        let found = self.slots(key, &app.name, Some(&door), manifests);
        let Active::Slot(active) = Self::active(&door, &found, manifests) else { return Ok(()) };
        let record = self.read_record(key, &app.name, &active).await?;
        if let Some(mut scaler) = record.and_then(|r| r.autoscaler) {
            self.claim_scaler(key, app, &mut scaler).await?;
            // What we alone wrote and now leave out is removed by the API server.
            let made = self.cluster().apply(&scaler).await?;
            self.watched().remember(Kind::Autoscaler, made);
            return Ok(());
        }
        // What serves has none: that of the release that was left.
        let left = manifests.and_then(|m| m.autoscaler.as_ref());
        match left.and_then(|s| self.watched().get(Kind::Autoscaler, name(s))) {
            Some(left) => self.drop_scaler(&left).await,
            None => Ok(()),
        }
    }

    /// One that is ours from the beginning gets our labels: only such a one is ever removed by us.
    async fn claim_scaler(
        &self,
        key: &EnvironmentKey,
        app: &DesiredApp,
        scaler: &mut Value,
    ) -> Result<(), TargetError> {
        if self.live_of(scaler).await?.is_none_or(|live| object_label(&live, OWNER).is_some()) {
            merge_into(scaler, "labels", &json!(names::labels(self.cluster(), key, &app.name, names::SHARED)));
        }
        Ok(())
    }

    /// An autoscaler that what serves knows nothing of: removed if we made it, else let go of.
    async fn drop_scaler(&self, scaler: &Value) -> Result<(), TargetError> {
        let (version, called) = (text(scaler, "/apiVersion"), name(scaler));
        if object_label(scaler, OWNER) == Some(self.cluster().owner()) {
            self.cluster().delete("autoscaling/v2", "HorizontalPodAutoscaler", called, None).await?;
            self.watched().forget(Kind::Autoscaler, called);
            return Ok(());
        }
        let fields = json!({
            "metadata": {"annotations": {names::HANDOVER: null}},
            "spec": {"behavior": {"scaleDown": {"selectPolicy": null}}},
        });
        let version = if version.is_empty() { "autoscaling/v2" } else { version };
        let made = self.cluster().merge(version, "HorizontalPodAutoscaler", called, &fields).await?;
        self.watched().remember(Kind::Autoscaler, made);
        Ok(())
    }

    /// Removes shared objects that the release before had and this one has not, if we made them. What holds data stays.
    async fn prune(&self, left: &Record, kept: &[Named]) -> Result<(), TargetError> {
        for gone in left.shared.iter().filter_map(Named::of).filter(|n| !kept.contains(n)) {
            if matches!(gone.kind.as_str(), "StatefulSet" | "PersistentVolumeClaim") {
                tracing::info!(object = %gone, "it left the manifests and holds data: it is for a person to delete");
                continue;
            }
            let live = self.cluster().read(&gone.api_version, &gone.kind, &gone.name).await?;
            let ours = live.as_ref().is_some_and(|l| {
                object_label(l, OWNER) == Some(self.cluster().owner()) && object_label(l, KIND) == Some(names::SHARED)
            });
            if ours {
                self.cluster().delete(&gone.api_version, &gone.kind, &gone.name, None).await?;
            }
        }
        Ok(())
    }
}

/// The ports as they shall be, where they differ from those of the live Service; node ports that it has stay.
fn changed_ports(live: &Value, wanted: &Value) -> Option<Value> {
    let of = |v: &Value| v.pointer("/spec/ports").and_then(Value::as_array).cloned().unwrap_or_default();
    let (live, wanted) = (of(live), of(wanted));
    if wanted.is_empty() {
        return None;
    }
    let same = |a: &Value, b: &Value| {
        let protocol = |p: &Value| p.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_owned();
        look::number(a, "/port") == look::number(b, "/port") && protocol(a) == protocol(b)
    };
    let mut ports = wanted;
    for port in &mut ports {
        let known = live.iter().find(|l| same(l, port));
        let port = port.as_object_mut()?;
        if !port.contains_key("targetPort") {
            let number = port.get("port").cloned().unwrap_or_default();
            port.insert("targetPort".to_owned(), number);
        }
        if !port.contains_key("protocol") {
            port.insert("protocol".to_owned(), "TCP".into());
        }
        if let Some(node) = known.and_then(|k| k.get("nodePort"))
            && !port.contains_key("nodePort")
        {
            port.insert("nodePort".to_owned(), node.clone());
        }
    }
    let plain = |ports: &[Value]| {
        let mut all: Vec<Value> = ports.to_vec();
        for port in all.iter_mut().filter_map(Value::as_object_mut) {
            port.sort_keys();
        }
        all
    };
    (plain(&live) != plain(&ports)).then_some(Value::Array(ports))
}

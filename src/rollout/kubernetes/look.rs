//! What is there for an app: its door (Service or pointer), which slot that points at, the slots' Deployments and pods.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use super::{KubernetesTarget, names};
use crate::{
    cluster::{KIND, Kind, OWNER, Object},
    domain::{
        config::AppKind,
        ids::{AppName, Epoch, Slot},
        rollout::{AppManifests, DesiredApp, EnvironmentKey},
    },
    manifests::{APP, ENVIRONMENT, EPOCH, SLOT, label, service},
};

pub(super) fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub(super) fn number(value: &Value, pointer: &str) -> Option<u32> {
    value.pointer(pointer)?.as_u64().and_then(|n| u32::try_from(n).ok())
}

fn member<'v>(value: &'v Value, map: &str, key: &str) -> Option<&'v str> {
    value.pointer(map)?.get(key)?.as_str()
}

pub(super) fn annotation<'v>(object: &'v Value, key: &str) -> Option<&'v str> {
    member(object, "/metadata/annotations", key)
}

pub(super) fn object_label<'v>(object: &'v Value, key: &str) -> Option<&'v str> {
    member(object, "/metadata/labels", key)
}

pub(super) fn texts(value: &Value, pointer: &str) -> BTreeMap<String, String> {
    let map = value.pointer(pointer).and_then(Value::as_object);
    let text = |(k, v): (&String, &Value)| Some((k.clone(), v.as_str()?.to_owned()));
    map.into_iter().flatten().filter_map(text).collect()
}

/// Whether these labels are among those.
pub(super) fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    !selector.is_empty() && selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

pub(super) fn is_ending(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some()
}

/// The copies that it shall have ("Deployments": one, where nothing is written).
pub(super) fn replicas(deployment: &Value) -> u32 {
    number(deployment, "/spec/replicas").unwrap_or(1)
}

/// What users' requests pass, or, for a worker, what says which one runs.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub object: Object,
    pub web: bool,
}

impl Door {
    pub(super) fn epoch(&self) -> Option<Epoch> {
        annotation(&self.object, EPOCH)?.parse().ok().map(Epoch)
    }

    pub(super) fn name(&self) -> &str {
        name(&self.object)
    }

    pub(super) fn selector(&self) -> BTreeMap<String, String> {
        texts(&self.object, "/spec/selector")
    }

    pub(super) fn switched_at(&self) -> Option<Timestamp> {
        annotation(&self.object, names::SWITCHED)?.parse().ok()
    }

    /// The environment and app that it was claimed for.
    pub(super) fn claimed_for(&self) -> Option<(&str, &str)> {
        Some((annotation(&self.object, names::OF)?, annotation(&self.object, names::APP_OF)?))
    }
}

/// A slot that is there.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub slot: Slot,
    pub deployment: Object,
    /// Of a pair: the label's value.
    pub colour: Option<String>,
}

impl Found {
    /// It runs, or something of it does still.
    pub(super) fn is_up(&self) -> bool {
        replicas(&self.deployment) > 0 || number(&self.deployment, "/status/replicas").unwrap_or(0) > 0
    }
}

/// What the door points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Active {
    /// This slot, or what would be it if it were there.
    Slot(Slot),
    /// Nothing yet.
    Nothing,
    /// What nobody of us left there, in words.
    Drift(String),
}

/// The label that tells a pair's two apart.
pub(super) fn pair_label(manifests: Option<&AppManifests>, door: Option<&Door>) -> Option<String> {
    use crate::domain::rollout::Shape;
    match manifests.map(|m| &m.shape) {
        Some(Shape::Pair { label, .. }) => Some(label.clone()),
        Some(Shape::One { .. }) => None,
        None => annotation(&door?.object, names::PAIR).map(str::to_owned),
    }
}

impl KubernetesTarget {
    /// The name of an app's Service.
    pub(super) fn service_name(app: &DesiredApp) -> Option<String> {
        let manifests = app.spec.manifests.as_deref()?;
        Some(name(&service(manifests, &app.name, app.spec.port)?).to_owned())
    }

    /// An app's door, if it is there.
    pub(super) fn door(&self, key: &EnvironmentKey, app: &DesiredApp) -> Option<Door> {
        let web = app.kind == AppKind::Web;
        let object = match web {
            true => self.watched().get(Kind::Service, &Self::service_name(app)?)?,
            false => self.watched().get(Kind::Pointer, &names::pointer(key, &app.name))?,
        };
        Some(Door { object, web })
    }

    /// The door that was claimed for an app, whatever its manifests say now.
    pub(super) fn claimed_door(&self, key: &EnvironmentKey, app: &AppName) -> Option<Door> {
        self.doors(key).into_iter().find(|(name, _)| name == app).map(|(_, door)| door)
    }

    /// All doors of an environment.
    pub(super) fn doors(&self, key: &EnvironmentKey) -> Vec<(AppName, Door)> {
        let of = key.to_string();
        let kinds = [(Kind::Service, true), (Kind::Pointer, false)];
        let all = kinds
            .into_iter()
            .flat_map(|(kind, web)| self.watched().all(kind).into_iter().map(move |object| Door { object, web }));
        all.filter_map(|door| {
            let (environment, app) = door.claimed_for()?;
            (environment == of).then_some(())?;
            Some((AppName::new(app).ok()?, door.clone()))
        })
        .collect()
    }

    /// The slots of an app that are there.
    pub(super) fn slots(
        &self,
        key: &EnvironmentKey,
        app: &AppName,
        door: Option<&Door>,
        manifests: Option<&AppManifests>,
    ) -> Vec<Found> {
        let deployments = self.watched().all(Kind::Deployment);
        if let Some(pair) = pair_label(manifests, door) {
            let mut base = match (door, manifests) {
                (Some(door), _) if !door.selector().is_empty() => door.selector(),
                (_, Some(manifests)) => crate::manifests::selector(manifests, &unnamed(), Some("")),
                _ => BTreeMap::new(),
            };
            base.remove(&pair);
            // Other labels may follow the colour.
            let workloads: Vec<&Value> = manifests.iter().flat_map(|m| m.workloads()).collect();
            let has = |w: &Value, k: &str| member(w, "/spec/template/metadata/labels", k).map(str::to_owned);
            base.retain(|k, _| workloads.windows(2).all(|two| has(two[0], k) == has(two[1], k)));
            let found = deployments.into_iter().filter_map(|deployment| {
                let labels = texts(&deployment, "/spec/template/metadata/labels");
                let colour = labels.get(&pair)?.clone();
                (base.iter().all(|(k, v)| labels.get(k) == Some(v)) && !base.is_empty()).then_some(())?;
                let slot = annotation(&deployment, SLOT).unwrap_or(&colour);
                Some(Found { slot: Slot::new(slot).ok()?, deployment, colour: Some(colour) })
            });
            return found.collect();
        }
        let (environment, app) = (label(&key.to_string()), label(app.as_str()));
        let plain = door.and_then(|d| annotation(&d.object, names::PLAIN)).and_then(|p| p.split_once(' '));
        let ours = deployments.into_iter().filter_map(|deployment| {
            if let Some((known, slot)) = plain
                && name(&deployment) == known
            {
                return Some(Found { slot: Slot::new(slot).ok()?, deployment, colour: None });
            }
            let is = |key: &str, value: &str| object_label(&deployment, key) == Some(value);
            let mine = is(OWNER, self.cluster().owner()) && is(KIND, names::SLOT_KIND);
            (mine && is(ENVIRONMENT, &environment) && is(APP, &app)).then_some(())?;
            let slot = annotation(&deployment, SLOT).or_else(|| object_label(&deployment, SLOT))?;
            Some(Found { slot: Slot::new(slot).ok()?, deployment, colour: None })
        });
        ours.collect()
    }

    /// Where the door points.
    pub(super) fn active(door: &Door, slots: &[Found], manifests: Option<&AppManifests>) -> Active {
        if !door.web {
            return match text(&door.object, "/data/slot") {
                "" | names::NONE => Active::Nothing,
                slot => Slot::new(slot).map_or_else(|e| Active::Drift(e.to_string()), Active::Slot),
            };
        }
        let selector = door.selector();
        let mend = format!("put it back by hand (`kubectl edit service {}`), then deploy again", door.name());
        if selector.is_empty() {
            return Active::Drift(format!("the Service {} has no selector any more: {mend}", door.name()));
        }
        if let Some(pair) = pair_label(manifests, Some(door)) {
            let up: Vec<_> = slots.iter().filter(|s| s.is_up()).collect();
            return match selector.get(&pair) {
                Some(colour) if colour == names::NONE => Active::Nothing,
                Some(colour) => match slots.iter().find(|s| s.colour.as_ref() == Some(colour)) {
                    Some(found) => Active::Slot(found.slot.clone()),
                    None if up.is_empty() => Active::Nothing,
                    None => Active::Drift(format!(
                        "the Service {} selects {pair}={colour}, and there is no Deployment with that label (there is {}): \
                         {mend}",
                        door.name(),
                        up.iter().filter_map(|s| s.colour.clone()).collect::<Vec<_>>().join(" and "),
                    )),
                },
                None if up.is_empty() => Active::Nothing,
                None => Active::Drift(format!(
                    "the Service {} does not select on {pair} any more, so both of the pair would answer: {mend}",
                    door.name()
                )),
            };
        }
        match selector.get(SLOT).map(String::as_str) {
            Some(names::NONE) => Active::Nothing,
            Some(slot) => Slot::new(slot).map_or_else(|e| Active::Drift(e.to_string()), Active::Slot),
            None if door.epoch().is_none() || door.claimed_for().is_none() => Active::Nothing,
            None => Active::Drift(format!(
                "the Service {} does not select on {SLOT} any more, so all slots would answer: {mend}",
                door.name()
            )),
        }
    }

    /// The slot of an app that serves now, if it is there.
    pub(super) fn serving(&self, key: &EnvironmentKey, app: &DesiredApp) -> Option<Found> {
        let manifests = app.spec.manifests.as_deref();
        let door = self.door(key, app)?;
        let found = self.slots(key, &app.name, Some(&door), manifests);
        let Active::Slot(active) = Self::active(&door, &found, manifests) else { return None };
        found.into_iter().find(|f| f.slot == active)
    }

    /// The pods of a slot, and others that its labels catch.
    pub(super) fn pods(&self, found: &Found) -> (Vec<Object>, Vec<Object>) {
        let selector = texts(&found.deployment, "/spec/selector/matchLabels");
        let wanted = slot_of(&found.deployment, "/spec/template/metadata").map(str::to_owned);
        let all = self.watched().all(Kind::Pod).into_iter();
        all.filter(|pod| selects(&selector, &texts(pod, "/metadata/labels")) && !is_over(pod))
            .partition(|pod| slot_of(pod, "/metadata") == wanted.as_deref())
    }

    /// The ready pods that a Service leads to by all of its ports, by UID, without those that end.
    pub(super) fn endpoints(&self, service: &str) -> BTreeSet<String> {
        let slices = self.slices(service);
        let wanted = self.port_names(service);
        // Pods that lack a port of the Service stand in a slice without it ("EndpointSlice").
        let of = slices.iter().filter(|s| wanted.is_subset(&port_names(s.get("ports"))));
        ready_endpoints(of.map(|s| &**s))
    }
}

impl KubernetesTarget {
    fn slices(&self, service: &str) -> Vec<Object> {
        let mut slices = self.watched().all(Kind::EndpointSlice);
        slices.retain(|s| object_label(s, "kubernetes.io/service-name") == Some(service));
        slices
    }

    fn port_names(&self, service: &str) -> BTreeSet<String> {
        let service = self.watched().get(Kind::Service, service);
        port_names(service.as_ref().and_then(|s| s.pointer("/spec/ports")))
    }

    /// Why pods are ready and yet would get no request: a port of the Service that none of their containers has.
    pub(super) fn lost_port(&self, service: &str) -> Option<String> {
        let wanted = self.port_names(service);
        let slices = self.slices(service);
        let mut filled =
            slices.iter().filter(|s| s.get("endpoints").and_then(Value::as_array).is_some_and(|e| !e.is_empty()));
        let lost = filled.find_map(|s| wanted.difference(&port_names(s.get("ports"))).next().cloned())?;
        let known = self.watched().get(Kind::Service, service)?;
        let ports = known.pointer("/spec/ports")?.as_array()?;
        let port = ports.iter().find(|p| text(p, "/name") == lost)?;
        Some(format!(
            "its pods are ready, and none of their containers has the port `{}` that port {} of the Service leads to \
             (`targetPort`): the names in both must be the same",
            port.get("targetPort").map(|t| t.to_string().trim_matches('"').to_owned()).unwrap_or_default(),
            number(port, "/port").unwrap_or_default(),
        ))
    }
}

/// The pods in EndpointSlices that get requests, by UID, without those that end.
pub(super) fn ready_endpoints<'v>(slices: impl Iterator<Item = &'v Value>) -> BTreeSet<String> {
    let endpoints = slices.flat_map(|s| s.get("endpoints").and_then(Value::as_array).into_iter().flatten());
    endpoints
        .filter(|e| {
            let is = |key: &str| e.pointer(&format!("/conditions/{key}")).and_then(Value::as_bool);
            is("ready") != Some(false) && is("terminating") != Some(true)
        })
        .map(|e| text(e, "/targetRef/uid").to_owned())
        .collect()
}

/// Names of ports; a port without one has the name "".
fn port_names(ports: Option<&Value>) -> BTreeSet<String> {
    let ports = ports.and_then(Value::as_array);
    ports.into_iter().flatten().map(|p| text(p, "/name").to_owned()).collect()
}

/// Which slot a pod is of: a label says so, or an annotation where the labels are a pair's author's. A plain Deployment's
/// selector may catch pods of slots.
pub(super) fn slot_of<'v>(object: &'v Value, metadata: &str) -> Option<&'v str> {
    let of = |map: &str| member(object, &format!("{metadata}/{map}"), SLOT);
    of("annotations").or_else(|| of("labels"))
}

/// A pod that ended for good: of a Job, or evicted. It is nobody's copy.
pub(super) fn is_over(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// Ready, and not on its way out.
pub(super) fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions.into_iter().flatten().any(|c| text(c, "/type") == "Ready" && text(c, "/status") == "True");
    ready && !is_ending(pod)
}

/// Restarts of all of its containers.
pub(super) fn restarts(pod: &Value) -> u32 {
    let of = |pointer: &str| {
        let statuses = pod.pointer(pointer).and_then(Value::as_array);
        statuses.into_iter().flatten().filter_map(|c| number(c, "/restartCount")).sum::<u32>()
    };
    of("/status/containerStatuses") + of("/status/initContainerStatuses")
}

/// A slot's name that nobody has, where only the rest of a selector is asked for.
fn unnamed() -> Slot {
    #[expect(clippy::expect_used, reason = "a fixed name that is well formed")]
    Slot::new(names::NONE).expect("well formed")
}

/// Where a preview Service answers within the cluster.
pub(super) fn door_of_preview(service: &Object) -> Option<std::net::SocketAddr> {
    super::observe::door_address(&Door { object: service.clone(), web: true })
}

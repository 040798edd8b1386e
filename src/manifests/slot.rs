//! What is applied for one slot of an app: the author's Deployment with what is ours written over it.
//!
//! * Shape `One`: a copy under a name of its own; the slot's label stands in its selector and on its pods.
//! * Shape `Pair`: the idle one of the two, under the author's own name and labels; the slot's name is an annotation.
//!
//! Configuration is part of the slot: ConfigMaps are copied under names made of their content, Secrets under names made of
//! the slot's, because a public hash of a weak secret would confirm guesses. Neither can be changed afterwards.

mod references;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    EPOCH, SLOT,
    look::{self, containers_mut, list, map_at, text},
    names::{self, DEPLOYMENT, with_ending},
};
use crate::domain::{
    config::mistake::shown,
    ids::{Epoch, Slot},
    rollout::{AppManifests, Shape},
};

pub(super) use references::rename;
pub use references::{config_names, refers_to};

/// A Secret whose keys become environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretEnv {
    /// The Secret's name.
    pub name: String,
    /// Its keys, which are the variables' names.
    pub keys: Vec<String>,
}

/// What a slot is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotOrder {
    /// The slot.
    pub slot: Slot,
    /// Which of a pair is written: the label's value. None for shape `One`.
    pub colour: Option<String>,
    /// The app's image by digest: `NAME@sha256:…`.
    pub image: String,
    /// Labels of everything that is ours (owner, kind, app, environment); the slot's own is added. Values must be
    /// labels' values: see [`names::label`].
    pub labels: BTreeMap<String, String>,
    /// Environment over the author's, by name; taken as it is, with no `$(…)` put in.
    pub env: BTreeMap<String, String>,
    /// A Secret whose keys become environment too, over the author's and over `env`.
    pub secret: Option<SecretEnv>,
    /// Copies. None: not written, because an autoscaler owns the field (a new Deployment then begins with 1).
    pub replicas: Option<u32>,
    /// Secrets that images are pulled with, beside the author's.
    pub pull_secrets: Vec<String>,
    /// What runs in place of what image and author start.
    pub command: Option<Vec<String>>,
    /// The app's port, for a readiness probe where the author wrote none.
    pub port: Option<u16>,
    /// The path that answers 2xx when the app is ready, for the same. None: it is ready when it accepts connections.
    pub health: Option<String>,
    /// The epoch that writes it.
    pub epoch: Epoch,
}

/// A slot's objects. Configuration is applied before the Deployment.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// The Deployment's name.
    pub name: String,
    /// The Deployment.
    pub deployment: Value,
    /// Copies of the ConfigMaps and Secrets that it names. Two slots may share a ConfigMap: see [`config_names`].
    pub configs: Vec<Value>,
    /// Disruption budgets over this slot's pods alone.
    pub budgets: Vec<Value>,
}

/// Makes a slot's objects.
///
/// # Errors
/// Words for the author: the manifest can't be made into a slot.
pub fn render(manifests: &AppManifests, order: &SlotOrder) -> Result<Rendered, String> {
    let mut deployment = author(manifests, order.colour.as_deref())?.clone();
    let name = slot_deployment_name(manifests, &order.slot, order.colour.as_deref())
        .ok_or_else(|| "the Deployment has no name".to_owned())?;
    let (configs, renamed) = configs(manifests, order);
    let labels = with_slot(&order.labels, &order.slot);
    super::read::strip(&mut deployment);
    let pair = matches!(manifests.shape, Shape::Pair { .. });
    if !pair {
        map_at(&mut deployment, "/metadata").insert("name".to_owned(), name.clone().into());
        put_texts(&mut deployment, "/metadata/labels", &labels);
        narrow(&mut deployment, &order.slot, &labels)?;
    }
    check_selector(&deployment)?;
    let annotations = map_at(&mut deployment, "/metadata/annotations");
    annotations.insert(SLOT.to_owned(), order.slot.as_str().into());
    annotations.insert(EPOCH.to_owned(), order.epoch.to_string().into());
    let spec = map_at(&mut deployment, "/spec");
    match order.replicas {
        Some(replicas) => drop(spec.insert("replicas".to_owned(), replicas.into())),
        None => drop(spec.shift_remove("replicas")),
    }
    let main = main(manifests, &deployment)?;
    let template = map_at(&mut deployment, "/spec").entry("template".to_owned()).or_insert(Value::Null);
    if pair {
        map_at(template, "/metadata/annotations").insert(SLOT.to_owned(), order.slot.as_str().into());
    }
    rename(template, &renamed);
    fill(template, &main, manifests, order);
    Ok(Rendered { name, deployment, configs, budgets: budgets(manifests, order, &labels) })
}

/// The name of a slot's Deployment; for a pair, the author's own. None: there is no such one.
#[must_use]
pub fn slot_deployment_name(manifests: &AppManifests, slot: &Slot, colour: Option<&str>) -> Option<String> {
    let name = text(author(manifests, colour).ok()?, "/metadata/name");
    if name.is_empty() {
        return None;
    }
    Some(match manifests.shape {
        Shape::One { .. } => copy_name(name, slot),
        Shape::Pair { .. } => name.to_owned(),
    })
}

pub(super) fn copy_name(name: &str, slot: &Slot) -> String {
    with_ending(&name.replace('.', "-"), slot.as_str(), DEPLOYMENT)
}

/// The author's Deployment for this slot.
pub(super) fn author<'m>(manifests: &'m AppManifests, colour: Option<&str>) -> Result<&'m Value, String> {
    match &manifests.shape {
        Shape::One { workload } => Ok(workload),
        Shape::Pair { label, workloads } => {
            let colour = colour.unwrap_or_default();
            let have = || workloads.keys().map(|k| shown(k)).collect::<Vec<_>>().join(" and ");
            workloads
                .get(colour)
                .ok_or_else(|| format!("no Deployment of the pair has {label}={colour}; there are {}", have()))
        }
    }
}

/// The labels of what belongs to a slot.
pub(super) fn with_slot(labels: &BTreeMap<String, String>, slot: &Slot) -> BTreeMap<String, String> {
    let mut labels = labels.clone();
    labels.insert(SLOT.to_owned(), names::label(slot.as_str()));
    labels
}

pub(super) fn put_texts(value: &mut Value, pointer: &str, pairs: &BTreeMap<String, String>) {
    let map = map_at(value, pointer);
    for (key, value) in pairs {
        map.insert(key.clone(), value.as_str().into());
    }
}

/// Makes a Deployment's pods the slot's alone: its label on them and in the selector.
pub(super) fn narrow(deployment: &mut Value, slot: &Slot, labels: &BTreeMap<String, String>) -> Result<(), String> {
    put_texts(deployment, "/spec/template/metadata/labels", labels);
    let selector = BTreeMap::from([(SLOT.to_owned(), names::label(slot.as_str()))]);
    put_texts(deployment, "/spec/selector/matchLabels", &selector);
    check_selector(deployment)
}

/// The API refuses a Deployment that would not find its own pods.
fn check_selector(deployment: &Value) -> Result<(), String> {
    let name = shown(text(deployment, "/metadata/name"));
    let labels = look::pod_labels(deployment);
    let selector = deployment.pointer("/spec/selector").unwrap_or(&Value::Null);
    if !look::label_selector(selector, &labels) {
        return Err(format!(
            "Deployment {name}: `spec.selector` does not select the labels of `spec.template.metadata`"
        ));
    }
    Ok(())
}

/// The name of the container that runs the app.
pub(super) fn main(manifests: &AppManifests, workload: &Value) -> Result<String, String> {
    look::main_container(workload, &manifests.container, &manifests.also).map(str::to_owned).ok_or_else(|| {
        let name = shown(text(workload, "/metadata/name"));
        format!("Deployment {name} has no container {}, which runs the app", shown(&manifests.container))
    })
}

/// Images, environment, probes: what is ours in the pod template.
pub(super) fn fill(template: &mut Value, main: &str, manifests: &AppManifests, order: &SlotOrder) {
    for container in containers_mut(template) {
        let name = text(container, "/name").to_owned();
        let main = name == main;
        if !main && name != manifests.container && !manifests.also.contains(&name) {
            continue;
        }
        let fields = map_at(container, "");
        fields.insert("image".to_owned(), order.image.as_str().into());
        if main && let Some(command) = &order.command {
            fields.insert("command".to_owned(), json!(command));
            fields.shift_remove("args");
        }
        if main
            && fields.get("readinessProbe").is_none_or(Value::is_null)
            && let Some(probe) = probe(order)
        {
            fields.insert("readinessProbe".to_owned(), probe);
        }
        environment(container, order);
    }
    if !order.pull_secrets.is_empty() {
        let mut all = list(template, "/spec/imagePullSecrets").to_vec();
        for name in &order.pull_secrets {
            if !all.iter().any(|s| text(s, "/name") == name) {
                all.push(json!({ "name": name }));
            }
        }
        map_at(template, "/spec").insert("imagePullSecrets".to_owned(), all.into());
    }
}

/// Readiness for an app whose author wrote no probe. Often and soon: the switch waits for it.
fn probe(order: &SlotOrder) -> Option<Value> {
    let port = order.port?;
    let mut probe = match &order.health {
        Some(path) => json!({"httpGet": {"path": path, "port": port}}),
        None => json!({"tcpSocket": {"port": port}}),
    };
    let fields = map_at(&mut probe, "");
    fields.insert("periodSeconds".to_owned(), 2.into());
    fields.insert("timeoutSeconds".to_owned(), 2.into());
    Some(probe)
}

/// Ours over the author's. New variables stand in front, so that the author's may refer to them.
fn environment(container: &mut Value, order: &SlotOrder) {
    let mut ours: BTreeMap<&str, Value> = BTreeMap::new();
    for (name, value) in &order.env {
        ours.insert(name, json!({"name": name, "value": literal(value)}));
    }
    if let Some(secret) = &order.secret {
        for key in &secret.keys {
            let from = json!({"secretKeyRef": {"name": secret.name, "key": key}});
            ours.insert(key, json!({"name": key, "valueFrom": from}));
        }
    }
    if ours.is_empty() {
        return;
    }
    let mut authors = list(container, "/env").to_vec();
    for variable in &mut authors {
        if let Some(own) = ours.remove(text(variable, "/name")) {
            *variable = own;
        }
    }
    let all: Vec<Value> = ours.into_values().chain(authors).collect();
    map_at(container, "").insert("env".to_owned(), all.into());
}

/// A value as it is: Kubernetes would put variables in for `$(NAME)`, and makes one `$` of two ("Define Dependent
/// Environment Variables").
fn literal(value: &str) -> String {
    if value.contains("$(") || value.contains("$$") { value.replace('$', "$$") } else { value.to_owned() }
}

/// Copies of the configuration, and what each is called instead, by kind and name.
pub(super) fn configs(manifests: &AppManifests, order: &SlotOrder) -> (Vec<Value>, BTreeMap<(String, String), String>) {
    let (mut copies, mut renamed) = (Vec::new(), BTreeMap::new());
    // Of a pair, the other one's are no part of this slot.
    let named = author(manifests, order.colour.as_deref()).map(config_names).unwrap_or_default();
    for config in &manifests.configs {
        let (kind, name) = (text(config, "/kind").to_owned(), text(config, "/metadata/name").to_owned());
        if !named.contains(&(kind.clone(), name.clone())) {
            continue;
        }
        let mut copy = config.clone();
        super::read::strip(&mut copy);
        let mut labels = order.labels.clone();
        let new = if kind == "Secret" {
            labels = with_slot(&labels, &order.slot);
            with_ending(&name, order.slot.as_str(), 253)
        } else {
            with_ending(&name, &names::hash(&content(config)), 253)
        };
        // `switchover.dev/kind`, whatever its name is to those who made the labels.
        for (key, value) in &mut labels {
            if key.ends_with("/kind") {
                "config".clone_into(value);
            }
        }
        let fields = map_at(&mut copy, "");
        fields.insert("immutable".to_owned(), true.into());
        map_at(&mut copy, "/metadata").insert("name".to_owned(), new.clone().into());
        put_texts(&mut copy, "/metadata/labels", &labels);
        copies.push(copy);
        renamed.insert((kind, name), new);
    }
    (copies, renamed)
}

/// What a ConfigMap holds, whatever the order of its keys.
fn content(config: &Value) -> String {
    let part = |key: &str| {
        let map = config.get(key).and_then(Value::as_object);
        map.map(|m| m.iter().collect::<BTreeMap<_, _>>())
    };
    json!([part("data"), part("binaryData")]).to_string()
}

/// Budgets over this slot's pods alone: together, two slots could not be drained, or one could be drained whole.
/// A budget over two releases would let the one that serves be drained to its last pod; a pod under two can't be evicted.
fn budgets(manifests: &AppManifests, order: &SlotOrder, labels: &BTreeMap<String, String>) -> Vec<Value> {
    let mut all = Vec::new();
    for budget in &manifests.budgets {
        let mut copy = budget.clone();
        super::read::strip(&mut copy);
        let name = text(budget, "/metadata/name").to_owned();
        let narrowed = |to: (String, String), name: String, labels: &BTreeMap<String, String>| {
            let mut copy = copy.clone();
            put_texts(&mut copy, "/spec/selector/matchLabels", &BTreeMap::from([to]));
            map_at(&mut copy, "/metadata").insert("name".to_owned(), name.into());
            put_texts(&mut copy, "/metadata/labels", labels);
            copy
        };
        let (label, workloads) = match &manifests.shape {
            Shape::One { .. } => {
                let slot = names::label(order.slot.as_str());
                let name = with_ending(&name, order.slot.as_str(), 253);
                all.push(narrowed((SLOT.to_owned(), slot), name, labels));
                continue;
            }
            Shape::Pair { label, workloads } => (label, workloads),
        };
        // They go on with the pair, and not with a slot of it.
        let labels = &order.labels;
        let over = |w: &Value| {
            let selector = budget.pointer("/spec/selector").unwrap_or(&Value::Null);
            look::label_selector(selector, &look::pod_labels(w))
        };
        let covered: Vec<&String> = workloads.iter().filter(|(_, w)| over(w)).map(|(colour, _)| colour).collect();
        if covered.len() < 2 {
            put_texts(&mut copy, "/metadata/labels", labels);
            all.push(copy);
            continue;
        }
        // Both at once: the author's own is narrowed to the first, which may be the one that serves or not.
        for (at, colour) in covered.into_iter().enumerate() {
            let name = if at == 0 { name.clone() } else { with_ending(&name, colour, 253) };
            all.push(narrowed((label.clone(), colour.clone()), name, labels));
        }
    }
    all
}

/// A Secret with these values, which can't be changed afterwards.
#[must_use]
pub fn secret_object(name: &str, labels: &BTreeMap<String, String>, values: &BTreeMap<String, String>) -> Value {
    let texts = |pairs: &BTreeMap<String, String>| -> Map<String, Value> {
        pairs.iter().map(|(k, v)| (k.clone(), v.as_str().into())).collect()
    };
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": texts(labels)},
        "type": "Opaque",
        "immutable": true,
        "stringData": texts(values),
    })
}

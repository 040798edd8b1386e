//! What is there once per app: the Service and what it points at, the autoscaler, shared objects; and the first slot of a
//! Deployment that ran before us.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    SLOT,
    look::{self, containers_mut, full_name, list, map_at, text, texts},
    names::{self, LABEL, object_name},
    read::strip,
    slot::{copy_name, narrow, put_texts, with_slot},
};
use crate::domain::{
    config::mistake::shown,
    ids::{AppName, Slot},
    rollout::{AppManifests, Shape},
};

/// What a live selector points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pointed {
    /// A slot that we made.
    Slot(Slot),
    /// One of a pair.
    Colour(String),
    /// The author's own selector, or a wider one: no slot is chosen.
    Wide,
    /// Something else, in words.
    Unknown(String),
}

/// The app's Service without its selector, which is written by switches alone: the author's, or one of type ClusterIP
/// under the app's name. None where there is neither a Service nor a port.
#[must_use]
pub fn service(manifests: &AppManifests, app: &AppName, port: Option<u16>) -> Option<Value> {
    if let Some(authors) = &manifests.service {
        let mut service = authors.clone();
        strip(&mut service);
        map_at(&mut service, "/spec").shift_remove("selector");
        return Some(service);
    }
    let port = port?;
    Some(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": object_name(app.as_str(), LABEL)},
        "spec": {
            "type": "ClusterIP",
            "ports": [{"name": "http", "port": port, "targetPort": port, "protocol": "TCP"}],
        },
    }))
}

/// The whole selector with which the Service points at a slot (shape `One`) or at one of a pair (`colour`).
#[must_use]
pub fn selector(manifests: &AppManifests, slot: &Slot, colour: Option<&str>) -> BTreeMap<String, String> {
    let mut selector = authors_selector(manifests);
    match (&manifests.shape, colour) {
        (Shape::Pair { label, workloads }, Some(colour)) => {
            // Labels that follow the colour (`version: v1` with `color: blue`) change with it.
            let own = workloads.get(colour).map(look::pod_labels).unwrap_or_default();
            for (key, value) in &mut selector {
                if let Some(here) = own.get(key) {
                    value.clone_from(here);
                }
            }
            selector.insert(label.clone(), colour.to_owned());
        }
        _ => {
            selector.insert(SLOT.to_owned(), names::label(slot.as_str()));
        }
    }
    selector
}

/// The author's selector; where there is none, the labels that all of the app's pods have in theirs.
fn authors_selector(manifests: &AppManifests) -> BTreeMap<String, String> {
    let written = manifests.service.as_ref().map(|s| texts(s, "/spec/selector")).unwrap_or_default();
    if !written.is_empty() {
        return written;
    }
    let mut all = manifests.workloads().map(|w| texts(w, "/spec/selector/matchLabels"));
    let mut common = all.next().unwrap_or_default();
    for other in all {
        common.retain(|key, value| other.get(key) == Some(value));
    }
    common
}

/// What a live Service's selector points at.
#[must_use]
pub fn slot_of_selector(manifests: &AppManifests, selector: &BTreeMap<String, String>) -> Pointed {
    if let Shape::Pair { label, workloads } = &manifests.shape {
        let have = || workloads.keys().map(|k| shown(k)).collect::<Vec<_>>().join(" and ");
        return match selector.get(label) {
            Some(colour) if workloads.contains_key(colour) => match mixed(workloads, colour, selector) {
                None => Pointed::Colour(colour.clone()),
                Some(pair) => Pointed::Unknown(format!("{label}={colour} with {pair}, which no pod of the pair has")),
            },
            Some(other) => Pointed::Unknown(format!("{label}={other}, and the pair has {}", have())),
            None => Pointed::Wide,
        };
    }
    if let Some(slot) = selector.get(SLOT) {
        return Slot::new(slot.clone())
            .map_or_else(|_| Pointed::Unknown(format!("{SLOT}={slot}, which is no slot's name")), Pointed::Slot);
    }
    let labels = manifests.workloads().next().map(look::pod_labels).unwrap_or_default();
    if look::selects(selector, &labels) {
        return Pointed::Wide;
    }
    if selector.is_empty() {
        return Pointed::Unknown("nothing (it has no selector)".to_owned());
    }
    let pairs: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Pointed::Unknown(format!("{}, which no pod of this app has", pairs.join(", ")))
}

/// What a selector says beside a colour that belongs to the other one of the pair.
fn mixed(workloads: &BTreeMap<String, Value>, colour: &str, selector: &BTreeMap<String, String>) -> Option<String> {
    let own = look::pod_labels(workloads.get(colour)?);
    let strange = selector.iter().find(|(key, value)| {
        let others = workloads.values().any(|w| look::pod_labels(w).get(*key) == Some(value));
        others && own.get(*key).is_some_and(|here| here != *value)
    });
    strange.map(|(key, value)| format!("{key}={value}"))
}

/// The author's autoscaler, pointed at this Deployment. None where the author has none.
#[must_use]
pub fn autoscaler(manifests: &AppManifests, deployment: &str) -> Option<Value> {
    let mut scaler = manifests.autoscaler.clone()?;
    strip(&mut scaler);
    as_v2(&mut scaler);
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment});
    map_at(&mut scaler, "/spec").insert("scaleTargetRef".to_owned(), target);
    Some(scaler)
}

/// The first TCP port that the app's container names.
#[must_use]
pub fn container_port(manifests: &AppManifests) -> Option<u16> {
    let template = look::template(manifests.workloads().next()?)?;
    let ports = list(template, "/spec/containers/0/ports");
    let tcp = ports.iter().find(|p| matches!(text(p, "/protocol"), "" | "TCP"))?;
    tcp.get("containerPort")?.as_u64().and_then(|n| u16::try_from(n).ok())
}

/// An autoscaler of the first version knows nothing of `behavior`: the same in the second ("HorizontalPodAutoscaler").
fn as_v2(scaler: &mut Value) {
    if text(scaler, "/apiVersion") != "autoscaling/v1" {
        return;
    }
    scaler["apiVersion"] = "autoscaling/v2".into();
    if let Some(share) = map_at(scaler, "/spec").shift_remove("targetCPUUtilizationPercentage") {
        let target = json!({"type": "Utilization", "averageUtilization": share});
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        map_at(scaler, "/spec").insert("metrics".to_owned(), json!([metric]));
    }
}

/// The objects beside the slots, with the app's own image (a CronJob of it, say) by digest.
#[must_use]
pub fn shared(manifests: &AppManifests, image: &str) -> Vec<Value> {
    let own: Vec<String> = manifests.workloads().filter_map(|w| running_image(w, manifests)).map(full_name).collect();
    let mut all = manifests.shared.clone();
    for object in &mut all {
        strip(object);
        let Some(pointer) = look::template_pointer(text(object, "/kind")) else { continue };
        let Some(template) = object.pointer_mut(pointer) else { continue };
        for container in containers_mut(template) {
            if own.contains(&full_name(text(container, "/image"))) {
                map_at(container, "").insert("image".to_owned(), image.into());
            }
        }
    }
    all
}

/// The first slot of an app whose Deployment ran before us: a copy of the LIVE one, image and all, under the slot's name
/// and label. Its pods have the old labels too, so they may only be made while the same version serves.
///
/// # Errors
/// Words: this is no Deployment that can be copied.
pub fn adopt(live: &Value, slot: &Slot, labels: &BTreeMap<String, String>) -> Result<Value, String> {
    let name = text(live, "/metadata/name");
    if text(live, "/kind") != "Deployment" && live.pointer("/spec/template").is_none() {
        return Err(format!("{} {} is no Deployment", text(live, "/kind"), shown(name)));
    }
    let mut copy = live.clone();
    strip(&mut copy);
    // What a list or a watch brings has neither of the two.
    map_at(&mut copy, "").insert("apiVersion".to_owned(), "apps/v1".into());
    map_at(&mut copy, "").insert("kind".to_owned(), "Deployment".into());
    let labels = with_slot(labels, slot);
    let metadata = map_at(&mut copy, "/metadata");
    metadata.insert("name".to_owned(), copy_name(name, slot).into());
    metadata.shift_remove("ownerReferences");
    metadata.shift_remove("finalizers");
    map_at(&mut copy, "/metadata/annotations").insert(SLOT.to_owned(), slot.as_str().into());
    put_texts(&mut copy, "/metadata/labels", &labels);
    narrow(&mut copy, slot, &labels)?;
    Ok(copy)
}

/// The image that runs the app in a workload of it (the author's, or a live one), as written there.
#[must_use]
pub fn running_image<'w>(workload: &'w Value, manifests: &AppManifests) -> Option<&'w str> {
    let main = look::main_container(workload, &manifests.container, &manifests.also)?;
    let found = look::containers(look::template(workload)?).find(|(init, c)| !init && text(c, "/name") == main)?.1;
    Some(text(found, "/image")).filter(|image| !image.is_empty())
}

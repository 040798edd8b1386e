//! Looking into objects: pod templates, containers, images, selectors.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The text at a pointer; empty where there is none.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The list at a pointer; empty where there is none.
pub(super) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The list at a pointer, to change it.
pub(super) fn list_mut<'a>(value: &'a mut Value, pointer: &str) -> Option<&'a mut Vec<Value>> {
    value.pointer_mut(pointer)?.as_array_mut()
}

/// The mapping under a key, made where there is none (or something that is none).
pub(super) fn map_at<'a>(value: &'a mut Value, pointer: &str) -> &'a mut Map<String, Value> {
    let mut at = value;
    for step in pointer.split('/').skip(1) {
        at = map(at).entry(step.to_owned()).or_insert(Value::Null);
    }
    map(at)
}

fn map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made a mapping just now"),
    }
}

/// The texts of a mapping at a pointer.
pub(super) fn texts(value: &Value, pointer: &str) -> BTreeMap<String, String> {
    let map = value.pointer(pointer).and_then(Value::as_object);
    let pair = |(k, v): (&String, &Value)| Some((k.clone(), v.as_str()?.to_owned()));
    map.map(|m| m.iter().filter_map(pair).collect()).unwrap_or_default()
}

/// Where the pod template of a kind is; None for kinds without one. A `Pod` is its own.
pub(super) fn template_pointer(kind: &str) -> Option<&'static str> {
    match kind {
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" | "Rollout" => {
            Some("/spec/template")
        }
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        "Pod" => Some(""),
        _ => None,
    }
}

/// The pod template of an object.
pub(super) fn template(value: &Value) -> Option<&Value> {
    value.pointer(template_pointer(text(value, "/kind"))?)
}

/// Labels of the pods that an object makes.
pub(super) fn pod_labels(value: &Value) -> BTreeMap<String, String> {
    template(value).map(|t| texts(t, "/metadata/labels")).unwrap_or_default()
}

/// Init containers and containers of a pod template, init first, each with whether it is one.
pub(super) fn containers(template: &Value) -> impl Iterator<Item = (bool, &Value)> {
    let init = list(template, "/spec/initContainers").iter().map(|c| (true, c));
    init.chain(list(template, "/spec/containers").iter().map(|c| (false, c)))
}

/// All containers of a pod template, to change them.
pub(super) fn containers_mut(template: &mut Value) -> impl Iterator<Item = &mut Value> {
    let spec = template.get_mut("spec").and_then(Value::as_object_mut);
    let lists = spec.into_iter().flat_map(|spec| {
        spec.iter_mut().filter(|(key, _)| *key == "initContainers" || *key == "containers").map(|(_, v)| v)
    });
    lists.filter_map(Value::as_array_mut).flatten()
}

/// An image's name without tag and digest, as written otherwise.
pub(super) fn repository(image: &str) -> &str {
    let image = image.trim().split('@').next().unwrap_or(image);
    // A colon in front of a slash is a registry's port.
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') && !name.is_empty() && !inside_variable(image, name.len()) => name,
        _ => image,
    }
}

/// Whether the place lies within `${…}`, `{{…}}` and the like, which may hold colons of their own.
fn inside_variable(text: &str, at: usize) -> bool {
    let before = &text[..at];
    before.rfind(['{', '(']).is_some_and(|open| !before[open..].contains(['}', ')']))
}

/// The last part of an image's name, in lower case.
pub(super) fn image_name(image: &str) -> String {
    let name = repository(image);
    name.rsplit('/').next().unwrap_or(name).to_lowercase()
}

/// An image's name with what Docker Hub's names leave out ("docker pull").
pub(super) fn full_name(image: &str) -> String {
    let name = repository(image).to_lowercase();
    let name = name.strip_prefix("index.docker.io/").map_or(name.clone(), |rest| format!("docker.io/{rest}"));
    let first = name.split('/').next().unwrap_or_default();
    let host = name.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    match (host, name.contains('/')) {
        (true, _) => name,
        (false, true) => format!("docker.io/{name}"),
        (false, false) => format!("docker.io/library/{name}"),
    }
}

/// Whether all of a selector's pairs are among the labels. An empty selector selects nothing here.
pub(super) fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether a `LabelSelector` selects these labels ("Labels and Selectors"). One that is empty or malformed does not.
pub(super) fn label_selector(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
    let exact = texts(selector, "/matchLabels");
    let expressions = list(selector, "/matchExpressions");
    if exact.is_empty() && expressions.is_empty() {
        return false;
    }
    let holds = |e: &Value| {
        let value = labels.get(text(e, "/key"));
        let among = || value.is_some_and(|v| list(e, "/values").iter().any(|x| x.as_str() == Some(v)));
        match text(e, "/operator") {
            "In" => among(),
            "NotIn" => !among(),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    };
    exact.iter().all(|(key, value)| labels.get(key) == Some(value)) && expressions.iter().all(holds)
}

/// All texts in a value, with the key that each stands under.
pub(super) fn walk<'a>(value: &'a Value, key: &'a str, see: &mut impl FnMut(&'a str, &'a Value)) {
    see(key, value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(item, key, see)),
        Value::Object(map) => map.iter().for_each(|(key, value)| walk(value, key, see)),
        _ => {}
    }
}

/// Names of the Services that an Ingress or a route leads to.
pub(super) fn backends(object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    match text(object, "/kind") {
        "Ingress" => walk(object, "", &mut |key, value| {
            // networking.k8s.io/v1: `backend: {service: {name: …}}`.
            if key == "service" && value.get("name").is_some() {
                found.push(text(value, "/name").to_owned());
            }
        }),
        "HTTPRoute" | "GRPCRoute" | "TCPRoute" | "VirtualService" | "IngressRoute" => {
            walk(object, "", &mut |key, value| {
                if ["backendRefs", "services"].contains(&key) && value.get("name").is_some() {
                    found.push(text(value, "/name").to_owned());
                }
                if key == "destination" && value.get("host").is_some() {
                    found.push(text(value, "/host").split('.').next().unwrap_or_default().to_owned());
                }
            });
        }
        _ => {}
    }
    found
}

/// The name of the container that runs the app in this workload. In a pair each may have its own: then the other's stands
/// among `also`.
pub(super) fn main_container<'a>(workload: &'a Value, container: &str, also: &[String]) -> Option<&'a str> {
    let names =
        || list(template(workload).unwrap_or(&Value::Null), "/spec/containers").iter().map(|c| text(c, "/name"));
    names().find(|name| *name == container).or_else(|| names().find(|name| also.iter().any(|a| a == name)))
}

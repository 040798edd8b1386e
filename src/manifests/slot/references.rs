//! Where a pod template names ConfigMaps and Secrets.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::look::{self, containers_mut, list_mut};

/// Sees every reference: the kind, and the name, which may be changed. `imagePullSecrets` are no configuration.
fn visit(template: &mut Value, see: &mut impl FnMut(&'static str, &mut String)) {
    for container in containers_mut(template) {
        for from in list_mut(container, "/envFrom").into_iter().flatten() {
            name(from, "/configMapRef/name", "ConfigMap", see);
            name(from, "/secretRef/name", "Secret", see);
        }
        for variable in list_mut(container, "/env").into_iter().flatten() {
            name(variable, "/valueFrom/configMapKeyRef/name", "ConfigMap", see);
            name(variable, "/valueFrom/secretKeyRef/name", "Secret", see);
        }
    }
    for volume in list_mut(template, "/spec/volumes").into_iter().flatten() {
        name(volume, "/configMap/name", "ConfigMap", see);
        name(volume, "/secret/secretName", "Secret", see);
        for source in list_mut(volume, "/projected/sources").into_iter().flatten() {
            name(source, "/configMap/name", "ConfigMap", see);
            name(source, "/secret/name", "Secret", see);
        }
    }
}

fn name(value: &mut Value, pointer: &str, kind: &'static str, see: &mut impl FnMut(&'static str, &mut String)) {
    if let Some(Value::String(name)) = value.pointer_mut(pointer) {
        see(kind, name);
    }
}

/// Writes other names into a pod template, by kind and name.
pub(in crate::manifests) fn rename(template: &mut Value, names: &BTreeMap<(String, String), String>) {
    if names.is_empty() {
        return;
    }
    visit(template, &mut |kind, name| {
        if let Some(new) = names.get(&(kind.to_owned(), name.clone())) {
            name.clone_from(new);
        }
    });
}

/// The ConfigMaps and Secrets that an object's pods name, as kind and name. While such a slot may still be needed, none of
/// them may be removed.
#[must_use]
pub fn config_names(workload: &Value) -> Vec<(String, String)> {
    let Some(template) = look::template(workload) else { return Vec::new() };
    let mut found = BTreeSet::new();
    visit(&mut template.clone(), &mut |kind, name| {
        found.insert((kind.to_owned(), name.clone()));
    });
    found.into_iter().collect()
}

/// Whether an object's pods name this ConfigMap or Secret.
#[must_use]
pub fn refers_to(workload: &Value, kind: &str, name: &str) -> bool {
    config_names(workload).iter().any(|(k, n)| k == kind && n == name)
}

//! Of several copies of one object, the one that is meant: no stale ones, those of the environment.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Tied, scripts::Hints};
use crate::{
    domain::config::mistake::shown,
    manifests::{look, object::Object},
};

/// Words in a path that say: no longer used.
const STALE: [&str; 14] = [
    "old",
    "backup",
    "backups",
    "bak",
    "archive",
    "archived",
    "deprecated",
    "legacy",
    "obsolete",
    "unused",
    "disabled",
    "copy",
    "orig",
    "tmp",
];
/// Words for environments, those of one line for the same.
const ENVIRONMENTS: [&[&str]; 6] = [
    &["production", "prod", "prd"],
    &["staging", "stage", "stg", "preprod"],
    &["development", "develop", "dev"],
    &["testing", "qa"],
    &["uat"],
    &["local", "minikube"],
];

/// The words of a path, in lower case, without its ending.
fn words(path: &str) -> Vec<String> {
    let path = path.to_lowercase();
    let path = path.strip_suffix(".yaml").or_else(|| path.strip_suffix(".yml")).unwrap_or(&path);
    path.split(['/', '-', '_', '.', ' ', '(', ')']).filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

/// The environment that a path is for.
fn environment_of(path: &str) -> Option<usize> {
    let words = words(path);
    ENVIRONMENTS.iter().position(|names| words.iter().any(|w| names.contains(&w.as_str())))
}

fn is_stale(path: &str) -> bool {
    words(path).iter().any(|w| STALE.contains(&w.as_str()))
}

/// The same of its folder alone: a file called `old` may be one of two that are both used.
fn in_stale_folder(path: &str) -> bool {
    path.rsplit_once('/').is_some_and(|(folder, _)| is_stale(folder))
}

/// The objects that are meant, in the order given.
pub(super) fn choose<'o>(objects: &'o [Object], environment: &str, hints: &Hints, tied: &mut Tied) -> Vec<&'o Object> {
    let mut left: Vec<&Object> = objects.iter().filter(|o| !o.is("Namespace", "")).collect();
    let runs = |o: &Object| o.kind() == "Deployment" || o.kind() == "StatefulSet";
    if left.iter().any(|o| runs(o) && !in_stale_folder(&o.file)) {
        drop_files(&mut left, |o| in_stale_folder(&o.file), "looks like a copy that is no longer used", tied);
    }
    let ours = ENVIRONMENTS
        .iter()
        .position(|names| environment.to_lowercase().split(['-', '_', '.']).any(|w| names.contains(&w)));
    let of_ours = |o: &Object| ours.is_some() && environment_of(&o.file) == ours;
    if left.iter().any(|o| of_ours(o)) {
        let other = |o: &Object| environment_of(&o.file).is_some() && !of_ours(o);
        drop_files(&mut left, other, &format!("is for another environment than {}", shown(environment)), tied);
    }
    let mut groups: BTreeMap<(String, String, String), Vec<&Object>> = BTreeMap::new();
    for object in &left {
        let key = (object.kind().to_owned(), object.group().to_owned(), object.name().to_owned());
        groups.entry(key).or_default().push(object);
    }
    let mut dropped: Vec<&Object> = Vec::new();
    for ((kind, _, name), copies) in groups.into_iter().filter(|(_, copies)| copies.len() > 1) {
        let used: Vec<&Object> = copies.iter().copied().filter(|o| !is_stale(&o.file)).collect();
        let copies = if used.is_empty() {
            copies
        } else {
            dropped.extend(copies.iter().filter(|o| is_stale(&o.file)));
            used
        };
        let applied: Vec<&Object> = copies.iter().copied().filter(|o| hints.applies(&o.file)).collect();
        let equal = copies.iter().all(|o| o.value == copies[0].value);
        let keep = match applied.as_slice() {
            [one] => *one,
            _ if copies.len() == 1 || equal => copies[0],
            // `service-blue.yaml` and `service-green.yaml`: two ways to write where it points, which is ours.
            _ if kind == "Service" && copies.iter().all(|o| elsewhere(o) == elsewhere(copies[0])) => {
                tied.notes.push(format!(
                    "Service {} stands in {} files that differ in where it points alone: {} is taken",
                    shown(&name),
                    copies.len(),
                    copies[0].file
                ));
                copies[0]
            }
            _ => {
                let places: Vec<String> = copies.iter().take(4).map(|o| o.at()).collect();
                let folder = copies[0].file.rsplit_once('/').map_or(".", |(folder, _)| folder);
                tied.unclear.push(format!(
                    "{kind} {} stands in several files ({}): remove all but one, or name the folder of one in the \
                     environment: `manifests: {folder}`.",
                    shown(&name),
                    places.join(", ")
                ));
                copies[0]
            }
        };
        for other in copies.iter().filter(|o| !std::ptr::eq(**o, keep)) {
            dropped.push(other);
            if !equal && applied.len() == 1 {
                tied.notes.push(format!("{}: left out, because CI applies {}", other.at(), keep.file));
            }
        }
    }
    left.retain(|o| !dropped.iter().any(|d| std::ptr::eq(*d, *o)));
    drop_load_tests(&mut left, tied);
    left
}

/// A Service without what its selector says.
fn elsewhere(service: &Object) -> Value {
    let mut copy = service.value.clone();
    if let Some(selector) = copy.pointer_mut("/spec/selector").and_then(Value::as_object_mut) {
        selector.values_mut().for_each(|value| *value = Value::Null);
    }
    copy
}

fn drop_files<'o>(left: &mut Vec<&'o Object>, gone: impl Fn(&'o Object) -> bool, why: &str, tied: &mut Tied) {
    let mut told: Vec<&str> = Vec::new();
    left.retain(|object| {
        if !gone(object) {
            return true;
        }
        if !told.contains(&object.file.as_str()) {
            told.push(&object.file);
            tied.notes.push(format!("{}: left out, because it {why}", object.file));
        }
        false
    });
}

/// Workloads that put load on an app are run by hand.
fn drop_load_tests(left: &mut Vec<&Object>, tied: &mut Tied) {
    const TOOLS: [&str; 9] =
        ["k6", "locust", "jmeter", "gatling", "artillery", "vegeta", "wrk", "loadtest", "loadgenerator"];
    left.retain(|object| {
        let Some(template) = look::template(&object.value) else { return true };
        let images = look::containers(template).map(|(_, c)| look::image_name(look::text(c, "/image")));
        let mut names: Vec<String> = images.collect();
        names.push(object.name().to_lowercase());
        let load = names.iter().any(|name| {
            let joined = name.replace(['-', '_'], "");
            name.split(['-', '_', '.']).any(|w| TOOLS.contains(&w))
                || joined.contains("loadtest")
                || joined.contains("stresstest")
        });
        if load {
            tied.notes.push(format!(
                "{}: {} {} is a load test: left out",
                object.at(),
                object.kind(),
                shown(object.name())
            ));
        }
        !load
    });
}

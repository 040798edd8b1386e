//! Every other object to the app that it belongs to.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    AppFacts, Facts, Tied, Unit,
    assign::{Assigned, beside},
    parts, warn,
};
use crate::{
    domain::{
        config::{AppKind, mistake::shown},
        ids::AppName,
        rollout::{AppManifests, Shape},
    },
    manifests::{
        look::{self, full_name, selects, text, texts},
        object::Object,
        slot::{config_names, refers_to},
    },
};

/// One app with what was found for it so far.
pub(super) struct Of<'t, 'o> {
    pub app: &'t AppFacts,
    pub unit: &'t Unit<'o>,
    pub container: String,
    pub also: Vec<String>,
    pub service: Option<&'o Object>,
}

pub(super) fn gather(facts: &Facts<'_>, units: &[Unit<'_>], assigned: &Assigned, objects: &[&Object], tied: &mut Tied) {
    let mut used: Vec<&Object> = Vec::new();
    let mut all: Vec<Of<'_, '_>> = Vec::new();
    for (app, unit) in facts.apps.iter().zip(&assigned.of) {
        let Some(unit) = unit.map(|u| &units[u]) else { continue };
        used.extend(unit.objects());
        if let Some(words) = warn::impossible(app, unit, objects) {
            tied.unclear.push(words);
            continue;
        }
        let Some((container, also)) = parts::container(app, unit, tied) else { continue };
        all.push(Of { app, unit, container, also, service: None });
    }
    parts::services(&mut all, objects, &mut used, tied);
    let mut made: BTreeMap<AppName, AppManifests> = BTreeMap::new();
    for of in &all {
        let mut manifests = AppManifests {
            shape: shape(of.unit),
            container: of.container.clone(),
            also: of.also.clone(),
            service: of.service.map(|s| s.value.clone()),
            configs: Vec::new(),
            autoscaler: None,
            budgets: Vec::new(),
            shared: Vec::new(),
        };
        parts::autoscaler(of, objects, &mut manifests, &mut used, tied);
        parts::budgets(of, &all, objects, &mut manifests, &mut used, tied);
        manifests.configs = configs(of, objects, tied);
        warn::warn(of, &manifests, objects, tied);
        made.insert(of.app.name.clone(), manifests);
    }
    // Workloads that run no app: databases stay, the rest is other people's.
    let mut rest: Vec<&Object> = Vec::new();
    for (unit, asked) in units.iter().zip(&assigned.asked) {
        for object in unit.objects() {
            if used.iter().any(|u| std::ptr::eq(*u, object)) {
                continue;
            }
            used.push(object);
            if beside(facts, unit) {
                rest.push(object);
            } else if !asked {
                let images = unit.images().join(", ");
                tied.notes.push(format!(
                    "{}: {} {} runs {}, which none of the apps does: left out",
                    object.at(),
                    object.kind(),
                    shown(object.name()),
                    shown(&images)
                ));
            }
        }
    }
    rest.extend(objects.iter().copied().filter(|o| !used.iter().any(|u| std::ptr::eq(*u, *o))));
    leave_configs(&all, &mut rest);
    leave_orphans(&all, units, &mut rest, tied);
    let homes: Vec<Option<AppName>> = rest.iter().map(|object| home(object, &all)).collect();
    for (object, home) in rest.into_iter().zip(homes) {
        match home.and_then(|name| made.get_mut(&name)) {
            Some(manifests) => manifests.shared.push(object.value.clone()),
            None => tied.beside.push(object.value.clone()),
        }
    }
    tied.apps = made;
}

fn shape(unit: &Unit<'_>) -> Shape {
    match &unit.pair {
        None => Shape::One { workload: unit.first.value.clone() },
        Some(pair) => Shape::Pair {
            label: pair.label.clone(),
            workloads: BTreeMap::from([
                (pair.values[0].clone(), pair.first.value.clone()),
                (pair.values[1].clone(), pair.second.value.clone()),
            ]),
        },
    }
}

/// ConfigMaps and Secrets that the app's pods name.
fn configs(of: &Of<'_, '_>, objects: &[&Object], tied: &mut Tied) -> Vec<Value> {
    let mut found = Vec::new();
    let mut named: Vec<(String, String)> = of.unit.objects().iter().flat_map(|o| config_names(&o.value)).collect();
    named.sort();
    named.dedup();
    for (kind, name) in named {
        match objects.iter().find(|o| o.kind() == kind && o.group().is_empty() && o.name() == name) {
            Some(config) => found.push(config.value.clone()),
            None => tied.notes.push(format!(
                "{}: {kind} {} is named by its pods and is not among the manifests: taken as it stands in the namespace, \
                 and no part of the release",
                of.app.name,
                shown(&name)
            )),
        }
    }
    found
}

/// Configuration that only slots name is there by their copies. What others name too stays under its own name as well.
fn leave_configs(all: &[Of<'_, '_>], rest: &mut Vec<&Object>) {
    let is_config = |o: &Object| matches!(o.kind(), "ConfigMap" | "Secret") && o.group().is_empty();
    let others: Vec<&Object> = rest.iter().copied().filter(|o| !is_config(o)).collect();
    rest.retain(|config| {
        if !is_config(config) {
            return true;
        }
        let by_slots =
            all.iter().any(|of| of.unit.objects().iter().any(|o| refers_to(&o.value, config.kind(), config.name())));
        let by_others = others.iter().any(|other| {
            let mut found = refers_to(&other.value, config.kind(), config.name());
            // `tls.secretName`, `secretTargetRef`, and what other kinds call it.
            look::walk(&other.value, "", &mut |_, value| found |= value.as_str() == Some(config.name()));
            found
        });
        // Logins of registries are named by pods, but not as configuration.
        let pull = all.iter().any(|of| {
            of.unit.objects().iter().any(|o| {
                let secrets = look::template(&o.value).map_or(&[][..], |t| look::list(t, "/spec/imagePullSecrets"));
                config.kind() == "Secret" && secrets.iter().any(|s| text(s, "/name") == config.name())
            })
        });
        !by_slots || by_others || pull
    });
}

/// Services, autoscalers and budgets of workloads that are left out are left out with them.
fn leave_orphans(all: &[Of<'_, '_>], units: &[Unit<'_>], rest: &mut Vec<&Object>, tied: &mut Tied) {
    let kept: Vec<&Object> = rest.clone();
    let gone: Vec<&Unit<'_>> = units
        .iter()
        .filter(|u| !all.iter().any(|of| std::ptr::eq(of.unit, *u)))
        .filter(|u| !u.objects().iter().any(|o| kept.iter().any(|k| std::ptr::eq(*k, *o))))
        .collect();
    rest.retain(|object| {
        let of_gone = gone.iter().any(|unit| belongs(object, unit));
        let of_kept = all.iter().any(|of| belongs(object, of.unit))
            || kept
                .iter()
                .any(|k| look::template(&k.value).is_some() && belongs(object, &Unit { first: k, pair: None }));
        if of_gone && !of_kept {
            tied.notes.push(format!(
                "{}: {} {} goes with it: left out",
                object.at(),
                object.kind(),
                shown(object.name())
            ));
        }
        !of_gone || of_kept
    });
}

/// Whether an object is about a unit's pods.
fn belongs(object: &Object, unit: &Unit<'_>) -> bool {
    let labels: Vec<BTreeMap<String, String>> = unit.objects().iter().map(|o| look::pod_labels(&o.value)).collect();
    match object.kind() {
        "Service" => labels.iter().any(|l| selects(&texts(&object.value, "/spec/selector"), l)),
        "PodDisruptionBudget" => {
            let selector = object.value.pointer("/spec/selector").unwrap_or(&Value::Null);
            labels.iter().any(|l| look::label_selector(selector, l))
        }
        "NetworkPolicy" => {
            let selector = object.value.pointer("/spec/podSelector").unwrap_or(&Value::Null);
            labels.iter().any(|l| look::label_selector(selector, l))
        }
        "HorizontalPodAutoscaler" => {
            unit.objects().iter().any(|o| text(&object.value, "/spec/scaleTargetRef/name") == o.name())
        }
        "PersistentVolumeClaim" => unit.objects().iter().any(|o| parts::claims(&o.value).any(|c| c == object.name())),
        _ => false,
    }
}

/// The app that a shared object goes with: whose pods or Service it is about, whose image it runs, or the first.
fn home(object: &Object, all: &[Of<'_, '_>]) -> Option<AppName> {
    let name = |of: &Of<'_, '_>| of.app.name.clone();
    if let Some(of) = all.iter().find(|of| belongs(object, of.unit)) {
        return Some(name(of));
    }
    let services = look::backends(&object.value);
    if let Some(of) = all.iter().find(|of| of.service.is_some_and(|s| services.iter().any(|n| n == s.name()))) {
        return Some(name(of));
    }
    if let Some(template) = look::template(&object.value) {
        let images: Vec<String> = look::containers(template).map(|(_, c)| full_name(text(c, "/image"))).collect();
        let runs = |of: &&Of<'_, '_>| of.unit.images().iter().any(|i| !i.is_empty() && images.contains(&full_name(i)));
        if let Some(of) = all.iter().find(runs) {
            return Some(name(of));
        }
    }
    let first = all.iter().find(|of| of.app.kind == AppKind::Web).or_else(|| all.first())?;
    Some(name(first))
}

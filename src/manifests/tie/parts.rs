//! The parts of one app: which container runs it, its Service, its autoscaler, its budgets.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    AppFacts, Tied, Unit,
    gather::Of,
    score::{alike, image_points, third_party},
};
use crate::{
    domain::{
        config::{AppKind, mistake::shown},
        rollout::AppManifests,
    },
    manifests::{
        look::{self, full_name, label_selector, list, pod_labels, text, texts},
        object::Object,
        read::placeholder,
    },
};

/// Containers that stand beside an app's own.
const SIDECARS: [&str; 12] = [
    "istio-proxy",
    "envoy",
    "linkerd-proxy",
    "fluent-bit",
    "fluentd",
    "filebeat",
    "promtail",
    "cloud-sql-proxy",
    "oauth2-proxy",
    "vault-agent",
    "exporter",
    "jaeger-agent",
];

/// The container that runs the app, and all others that run its image. In a pair, the second one's own may be called
/// differently: it stands among the others.
pub(super) fn container(app: &AppFacts, unit: &Unit<'_>, tied: &mut Tied) -> Option<(String, Vec<String>)> {
    let mut names: Vec<String> = Vec::new();
    let mut also: Vec<String> = Vec::new();
    for object in unit.objects() {
        let template = look::template(&object.value)?;
        let own: Vec<&Value> = look::containers(template).filter(|(init, _)| !init).map(|(_, c)| c).collect();
        let points = |c: &&&Value| {
            let (name, image) = (text(c, "/name"), text(c, "/image"));
            let side = SIDECARS.iter().any(|s| name.contains(s) || image.contains(s)) || third_party(image).is_some();
            let base = if side { 0 } else { 50 };
            base + image_points(app, image) + alike(name, app.name.as_str())
        };
        let most = own.iter().map(|c| points(&c)).max().unwrap_or_default();
        let best: Vec<&&Value> = own.iter().filter(|c| points(c) == most).collect();
        let Some(main) = best.first() else {
            tied.unclear.push(format!(
                "{}: {} has no containers: write `spec.template.spec.containers`.",
                app.name,
                object.at()
            ));
            return None;
        };
        if best.len() > 1 && text(main, "/image") != text(best[1], "/image") {
            let words: Vec<String> = best.iter().map(|c| shown(text(c, "/name"))).collect();
            tied.unclear.push(format!(
                "{}: it is not clear which container of {} runs it: {}. Write the image's name as `image` under `apps.{}`.",
                app.name,
                object.at(),
                words.join(" or "),
                app.name
            ));
            return None;
        }
        let image = full_name(text(main, "/image"));
        let same = |c: &Value| {
            let other = text(c, "/image");
            image_points(app, other) > 0 || (!other.is_empty() && full_name(other) == image)
        };
        names.push(text(main, "/name").to_owned());
        let further = look::containers(template).filter(|(_, c)| same(c)).map(|(_, c)| text(c, "/name").to_owned());
        also.extend(further);
    }
    let main = names.first()?.clone();
    let mut rest: Vec<String> = names.split_off(1);
    rest.extend(also);
    rest.retain(|name| *name != main);
    let mut once: Vec<String> = Vec::new();
    for name in rest {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    Some((main, once))
}

/// Whether a Service's selector selects the unit's pods; for a pair, whatever it says about the label.
fn serves(service: &Object, unit: &Unit<'_>) -> bool {
    let mut selector = texts(&service.value, "/spec/selector");
    let Some(pair) = &unit.pair else {
        return look::selects(&selector, &pod_labels(&unit.first.value));
    };
    if let Some(value) = selector.remove(&pair.label) {
        if !pair.values.contains(&value) && !placeholder(&value) {
            return false;
        }
        if selector.is_empty() {
            return true;
        }
    }
    // Labels that follow the colour count as either's.
    let (a, b) = (pod_labels(&pair.first.value), pod_labels(&pair.second.value));
    !selector.is_empty() && selector.iter().all(|(k, v)| a.get(k) == Some(v) || b.get(k) == Some(v))
}

/// Each app its Service: of several, the one that users come through.
pub(super) fn services<'o>(
    all: &mut [Of<'_, 'o>],
    objects: &[&'o Object],
    used: &mut Vec<&'o Object>,
    tied: &mut Tied,
) {
    let services: Vec<&'o Object> = objects.iter().copied().filter(|o| o.is("Service", "")).collect();
    let entered: Vec<String> = objects.iter().flat_map(|o| look::backends(&o.value)).collect();
    for service in &services {
        let of: Vec<&Of<'_, '_>> = all.iter().filter(|of| serves(service, of.unit)).collect();
        if of.len() > 1 {
            let apps: Vec<&str> = of.iter().map(|of| of.app.name.as_str()).collect();
            tied.unclear.push(format!(
                "{}: Service {} selects the pods of {}: add a label to its selector that only one of them has.",
                service.at(),
                shown(service.name()),
                apps.join(" and ")
            ));
        }
    }
    for of in all.iter_mut() {
        let mut found: Vec<&'o Object> = services.iter().copied().filter(|s| serves(s, of.unit)).collect();
        if of.app.kind == AppKind::Worker {
            continue;
        }
        found.sort_by_key(|s| std::cmp::Reverse(points(s, of, &entered)));
        let Some(main) = found.first().copied() else {
            if !services.is_empty() {
                tied.notes.push(format!(
                    "{}: no Service among the manifests selects its pods: one of its name is made",
                    of.app.name
                ));
            }
            continue;
        };
        of.service = Some(main);
        used.push(main);
        if let Some(pair) = &of.unit.pair
            && let Some(other) = found[1..].iter().find(|o| named_like(o, &pair.values))
            && named_like(main, &pair.values)
        {
            tied.warnings.push(format!(
                "{}: of the Services {} and {}, each made for one of the pair, {} is the one that is switched, whatever \
                 its name says. Better, add one with a name of its own, and lead users there.",
                main.at(),
                shown(main.name()),
                shown(other.name()),
                shown(main.name())
            ));
        }
        if text(&main.value, "/spec/clusterIP") == "None" {
            tied.warnings.push(format!(
                "{}: Service {} is headless: callers keep the pods' addresses from DNS, and go on to ask the old release \
                 until they look them up again. Remove `clusterIP: None`, unless they do so often.",
                main.at_value("/spec/clusterIP"),
                shown(main.name())
            ));
        }
        for other in &found[1..] {
            let colour = of
                .unit
                .pair
                .as_ref()
                .is_some_and(|pair| texts(&other.value, "/spec/selector").contains_key(&pair.label));
            if colour {
                continue;
            }
            tied.warnings.push(format!(
                "{}: Service {} selects {}'s pods too, and only {} is switched: through it, both releases answer while one \
                 is being made ready. Remove it, or let its users come through {}.",
                other.at(),
                shown(other.name()),
                of.app.name,
                shown(main.name()),
                shown(main.name())
            ));
        }
    }
}

fn points(service: &Object, of: &Of<'_, '_>, entered: &[String]) -> i32 {
    let mut points = 0;
    let name = service.name();
    if entered.iter().any(|n| n == name) {
        points += 8;
    }
    if ["LoadBalancer", "NodePort"].contains(&text(&service.value, "/spec/type")) {
        points += 3;
    }
    if text(&service.value, "/spec/clusterIP") == "None" {
        points -= 6;
    }
    let named = alike(name, of.app.name.as_str()).max(alike(name, of.unit.first.name()));
    points += i32::from(named >= 22) * 2 + i32::from(named >= 36);
    let ports = list(&service.value, "/spec/ports");
    let leads = |p: &Value| {
        let target = p.get("targetPort").or_else(|| p.get("port"));
        target.and_then(Value::as_u64).is_some_and(|n| Some(n) == of.app.port.map(u64::from))
    };
    points += i32::from(ports.iter().any(leads)) * 4;
    if let Some(pair) = &of.unit.pair {
        points += i32::from(texts(&service.value, "/spec/selector").contains_key(&pair.label)) * 5;
        let words: Vec<String> = name.to_lowercase().split(['-', '_', '.']).map(str::to_owned).collect();
        let preview = ["preview", "idle", "inactive", "test", "staging"].iter().any(|w| words.iter().any(|x| x == w));
        points -= i32::from(named_like(service, &pair.values) || preview) * 7;
    }
    points
}

/// Whether a Service's name has a colour in it.
fn named_like(service: &Object, values: &[String; 2]) -> bool {
    let words: Vec<String> = service.name().to_lowercase().split(['-', '_', '.']).map(str::to_owned).collect();
    let twins = ["blue", "green", "v1", "v2"];
    values.iter().any(|value| {
        let value = value.to_lowercase();
        words.contains(&value) || words.iter().any(|w| value.ends_with(&format!("-{w}")))
    }) || words.iter().any(|w| twins.contains(&w.as_str()))
}

/// Names of the claims that an object's pods mount.
pub(super) fn claims(workload: &Value) -> impl Iterator<Item = &str> {
    let volumes = look::template(workload).map_or(&[][..], |t| list(t, "/spec/volumes"));
    volumes.iter().map(|v| text(v, "/persistentVolumeClaim/claimName")).filter(|name| !name.is_empty())
}

pub(super) fn autoscaler<'o>(
    of: &Of<'_, 'o>,
    objects: &[&'o Object],
    manifests: &mut AppManifests,
    used: &mut Vec<&'o Object>,
    tied: &mut Tied,
) {
    let aims = |o: &&&'o Object| {
        let target = (text(&o.value, "/spec/scaleTargetRef/kind"), text(&o.value, "/spec/scaleTargetRef/name"));
        o.kind() == "HorizontalPodAutoscaler" && of.unit.objects().iter().any(|d| (d.kind(), d.name()) == target)
    };
    let found: Vec<&'o Object> = objects.iter().filter(aims).copied().collect();
    let Some(first) = found.first() else { return };
    used.extend(&found);
    manifests.autoscaler = Some(first.value.clone());
    for other in &found[1..] {
        tied.warnings.push(format!(
            "{}: {} has a second HorizontalPodAutoscaler; only {} is applied, and always points at what serves. Remove \
             this one, here and in the cluster: `kubectl delete hpa {}`.",
            other.at(),
            of.app.name,
            shown(first.name()),
            other.name()
        ));
    }
    let written = of.unit.objects().into_iter().find(|o| o.value.pointer("/spec/replicas").is_some());
    if let Some(object) = written {
        tied.notes.push(format!(
            "{}: `replicas` is not applied, because {} sets it",
            object.at_value("/spec/replicas"),
            shown(first.name())
        ));
    }
}

pub(super) fn budgets<'o>(
    of: &Of<'_, 'o>,
    all: &[Of<'_, 'o>],
    objects: &[&'o Object],
    manifests: &mut AppManifests,
    used: &mut Vec<&'o Object>,
    tied: &mut Tied,
) {
    let over = |budget: &Object, unit: &Unit<'_>| {
        let selector = budget.value.pointer("/spec/selector").unwrap_or(&Value::Null);
        unit.objects().iter().any(|d| label_selector(selector, &pod_labels(&d.value)))
    };
    for budget in objects.iter().filter(|o| o.is("PodDisruptionBudget", "policy") && over(o, of.unit)) {
        let others: Vec<&str> = all
            .iter()
            .filter(|x| x.app.name != of.app.name && over(budget, x.unit))
            .map(|x| x.app.name.as_str())
            .collect();
        if !others.is_empty() {
            tied.warnings.push(format!(
                "{}: PodDisruptionBudget {} counts the pods of {} and {} together; while two releases stand side by side \
                 it counts both. Write one for each, with a selector that only one of them has.",
                budget.at(),
                shown(budget.name()),
                of.app.name,
                others.join(", ")
            ));
            continue;
        }
        used.push(budget);
        manifests.budgets.push(budget.value.clone());
        if let Some(pair) = &of.unit.pair
            && !selects_label(budget, &pair.label)
            && let Some(first) = pair.values.iter().min()
        {
            tied.warnings.push(format!(
                "{}: PodDisruptionBudget {} counts {} and {} together, so nodes could be drained of all that serves: it is \
                 applied with `{}: {}`, and a copy of it for {}.",
                budget.at(),
                shown(budget.name()),
                pair.values[0],
                pair.values[1],
                pair.label,
                first,
                if *first == pair.values[0] { &pair.values[1] } else { &pair.values[0] },
            ));
        }
    }
}

fn selects_label(budget: &Object, label: &str) -> bool {
    let exact: BTreeMap<String, String> = texts(&budget.value, "/spec/selector/matchLabels");
    exact.contains_key(label)
        || list(&budget.value, "/spec/selector/matchExpressions").iter().any(|e| text(e, "/key") == label)
}

//! What can't be released blue/green, and what may cost requests: said before anything is touched.

use serde_json::Value;

use super::{AppFacts, Tied, Unit, gather::Of, parts::claims};
use crate::{
    domain::{
        config::{AppKind, mistake::shown},
        rollout::AppManifests,
    },
    manifests::{
        look::{self, list, template_pointer, text},
        nodes::{keeps_to_nodes, leads_to, lists_pods},
        object::Object,
    },
};

/// Why this unit can't be made into slots. None: it can.
pub(super) fn impossible(app: &AppFacts, unit: &Unit<'_>, objects: &[&Object]) -> Option<String> {
    for object in unit.objects() {
        let (kind, at) = (object.kind(), object.at());
        if kind != "Deployment" {
            let why = match kind {
                "StatefulSet" => "its pods have names and volumes of their own, so there can't be two sets of them",
                "DaemonSet" => "it runs once on each node, so there can't be a second one beside it",
                _ => "only a Deployment can be",
            };
            return Some(format!(
                "{}: {at} is a {kind}, which can't be released blue/green: {why}. Write it as a Deployment that keeps its \
                 data in a database, or leave the app out of `apps`: then it is applied as it is.",
                app.name
            ));
        }
        let pointer = template_pointer(kind)?;
        for (list_name, containers) in
            ["initContainers", "containers"].map(|l| (l, list(&object.value, &format!("{pointer}/spec/{l}"))))
        {
            for (c, container) in containers.iter().enumerate() {
                for (p, port) in list(container, "/ports").iter().enumerate() {
                    if port.get("hostPort").and_then(Value::as_u64).is_some_and(|n| n > 0) {
                        return Some(format!(
                            "{}: {} is a `hostPort`: two releases can't have one port of a node. Remove the line; a \
                             Service leads to the container's port.",
                            app.name,
                            object.at_value(&format!("{pointer}/spec/{list_name}/{c}/ports/{p}/hostPort"))
                        ));
                    }
                }
            }
        }
        if app.kind == AppKind::Worker {
            // Its old pods end before the new ones start.
            continue;
        }
        for (v, volume) in list(&object.value, &format!("{pointer}/spec/volumes")).iter().enumerate() {
            let claim = text(volume, "/persistentVolumeClaim/claimName");
            if claim.is_empty() {
                continue;
            }
            let Some(found) = objects.iter().find(|o| o.kind() == "PersistentVolumeClaim" && o.name() == claim) else {
                continue;
            };
            let modes = list(&found.value, "/spec/accessModes");
            let many = |m: &Value| m == "ReadWriteMany" || m == "ReadOnlyMany";
            if !modes.iter().any(many) {
                return Some(format!(
                    "{}: {} mounts the claim {}, which is {} ({}): two releases on different nodes can't have it at once. \
                     Use a class that offers `ReadWriteMany`, keep the files elsewhere, or write `kind: worker` under \
                     `apps.{}`, if it may stop during a release.",
                    app.name,
                    object.at_value(&format!("{pointer}/spec/volumes/{v}")),
                    shown(claim),
                    modes.first().and_then(Value::as_str).unwrap_or("ReadWriteOnce"),
                    found.at_value("/spec/accessModes"),
                    app.name
                ));
            }
        }
    }
    None
}

/// What may cost requests, with the line to write.
pub(super) fn warn(of: &Of<'_, '_>, manifests: &AppManifests, objects: &[&Object], tied: &mut Tied) {
    for object in of.unit.objects() {
        let Some(template) = template_pointer(object.kind()).map(|t| format!("{t}/spec")) else { continue };
        let Some(main) = look::main_container(&object.value, &manifests.container, &manifests.also) else { continue };
        let containers = list(&object.value, &format!("{template}/containers"));
        let Some(c) = containers.iter().position(|c| text(c, "/name") == main) else { continue };
        let at = format!("{template}/containers/{c}");
        let container = &containers[c];
        let mut tell =
            |pointer: &str, words: String| tied.warnings.push(format!("{}: {words}", object.at_value(pointer)));
        if text(container, "/imagePullPolicy") == "Never" {
            let words = "`imagePullPolicy: Never` keeps nodes from fetching a new release: remove the line.";
            tell(&format!("{at}/imagePullPolicy"), words.to_owned());
        }
        for claim in claims(&object.value) {
            if of.app.kind == AppKind::Web
                && !objects.iter().any(|o| o.kind() == "PersistentVolumeClaim" && o.name() == claim)
            {
                tell(
                    &format!("{template}/volumes"),
                    format!(
                        "the claim {} is not among the manifests. Unless it is `ReadWriteMany`, two releases can't have \
                         it at once.",
                        shown(claim)
                    ),
                );
            }
        }
        let spread = list(
            &object.value,
            &format!("{template}/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution"),
        );
        if !spread.is_empty() {
            let words = "a required anti-affinity counts both releases: twice as many nodes are needed during one. Write \
                         `preferredDuringSchedulingIgnoredDuringExecution`, or `topologySpreadConstraints` with \
                         `matchLabelKeys: [pod-template-hash]`.";
            tell(&format!("{template}/affinity/podAntiAffinity"), words.to_owned());
        }
        if of.app.kind == AppKind::Worker {
            continue;
        }
        if container.get("readinessProbe").is_none_or(Value::is_null) {
            let port = of.app.port.map_or("PORT".to_owned(), |p| p.to_string());
            let (made, line) = match &of.app.health {
                Some(path) => (
                    format!("one is made that asks for {path}"),
                    format!("readinessProbe: {{httpGet: {{path: {path}, port: {port}}}}}"),
                ),
                None => (
                    "one is made that looks whether the port is open, which may be before the app can answer"
                        .to_owned(),
                    format!("readinessProbe: {{httpGet: {{path: /PATH, port: {port}}}}}"),
                ),
            };
            tell(
                &at,
                format!("the container {} has no readiness probe: {made}. Better, write there: `{line}`.", shown(main)),
            );
        }
        let grace = object.value.pointer(&format!("{template}/terminationGracePeriodSeconds")).and_then(Value::as_i64);
        if grace == Some(0) {
            let words = "`terminationGracePeriodSeconds: 0` cuts every request that is being answered when a pod ends. Write \
                         the longest request in its place: `terminationGracePeriodSeconds: 40`.";
            tell(&format!("{template}/terminationGracePeriodSeconds"), words.to_owned());
        }
        if container.pointer("/lifecycle/preStop").is_none_or(Value::is_null) {
            let words = format!(
                "the container {} has no `preStop`: a pod that ends still gets requests for a moment. Write there: \
                 `lifecycle: {{preStop: {{sleep: {{seconds: 5}}}}}}` (before Kubernetes 1.30: \
                 `{{preStop: {{exec: {{command: [sleep, \"5\"]}}}}}}`).",
                shown(main)
            );
            tell(&at, words);
        }
    }
    let Some(service) = of.service else { return };
    if let Some(field) = keeps_to_nodes(&service.value) {
        tied.warnings.push(format!(
            "{}: `{field}: Local` answers a request only on a node with a pod of the app: a release waits until its pods \
             are on every node where those of the release before are. Remove the line, unless the clients' addresses are \
             needed.",
            service.at_value(&format!("/spec/{field}"))
        ));
    }
    let doors = objects.iter().filter(|o| leads_to(&o.value, service.name()));
    for door in doors.copied().chain([service]) {
        if let Some(key) = lists_pods(&door.value) {
            tied.warnings.push(format!(
                "{}: `{key}` makes the load balancer send requests to pods from a list of its own, which follows a switch, \
                 and a way back, in its own time (a minute or more). The old pods stay for as long.",
                door.at()
            ));
        }
    }
}

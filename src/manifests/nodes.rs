//! Services whose requests do not find every pod from everywhere: only those of the node that they come to, or those that
//! a load balancer of its own has in its list.

use serde_json::{Value, json};

use super::look::{self, list, map_at, text};

/// Annotations of Services and Ingresses that make a load balancer send requests to pods instead of nodes, with the value
/// that does, or any ("AWS Load Balancer Controller: annotations"; "Container-native load balancing", Google Cloud;
/// "Application Gateway Ingress Controller annotations").
const TO_PODS: [(&str, Option<&str>); 5] = [
    ("service.beta.kubernetes.io/aws-load-balancer-nlb-target-type", Some("ip")),
    ("service.beta.kubernetes.io/aws-load-balancer-type", Some("nlb-ip")),
    ("alb.ingress.kubernetes.io/target-type", Some("ip")),
    ("cloud.google.com/neg-status", None),
    ("kubernetes.io/ingress.class", Some("azure/application-gateway")),
];

/// The field of a Service that keeps a request on the node that it came to: without a ready pod there it is dropped
/// ("Service": traffic policies; "Create an External Load Balancer": preserving the client source IP). None: it has none.
#[must_use]
pub fn keeps_to_nodes(service: &Value) -> Option<&'static str> {
    let from_outside = matches!(text(service, "/spec/type"), "LoadBalancer" | "NodePort");
    let local = |field: &str| text(service, &format!("/spec/{field}")) == "Local";
    match () {
        () if from_outside && local("externalTrafficPolicy") => Some("externalTrafficPolicy"),
        () if local("internalTrafficPolicy") => Some("internalTrafficPolicy"),
        () => None,
    }
}

/// The annotation by which a load balancer keeps a list of pods of its own, which follows the switch in its own time.
#[must_use]
pub fn lists_pods(object: &Value) -> Option<&'static str> {
    let annotations = object.pointer("/metadata/annotations")?;
    let found = TO_PODS.iter().find(|(key, wanted)| {
        let value = annotations.get(*key).and_then(Value::as_str);
        value.is_some_and(|v| wanted.is_none_or(|w| w == v))
    });
    found.map(|(key, _)| *key)
}

/// Whether an Ingress leads to this Service.
#[must_use]
pub fn leads_to(ingress: &Value, service: &str) -> bool {
    text(ingress, "/kind") == "Ingress" && look::backends(ingress).iter().any(|name| name == service)
}

/// Asks the scheduler for pods on the nodes of those that this `LabelSelector` selects, and for one on each of them before a
/// second. It is a wish: what the author wrote, and where there is room, comes first.
pub fn stay_near(deployment: &mut Value, others: &Value) {
    const NODE: &str = "kubernetes.io/hostname";
    const POD: &str = "/spec/template/spec";
    let own = deployment.pointer("/spec/selector").cloned().unwrap_or_default();
    let near = json!({
        "weight": 100,
        "podAffinityTerm": {"topologyKey": NODE, "labelSelector": others},
    });
    add(deployment, &format!("{POD}/affinity/podAffinity"), "preferredDuringSchedulingIgnoredDuringExecution", near);
    // Constraints are told apart by their topology: the author's own says enough.
    let spread = list(deployment, &format!("{POD}/topologySpreadConstraints"));
    if spread.iter().all(|constraint| text(constraint, "/topologyKey") != NODE) {
        let apart = json!({
            "maxSkew": 1,
            "topologyKey": NODE,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": own,
        });
        add(deployment, POD, "topologySpreadConstraints", apart);
    }
}

fn add(object: &mut Value, map: &str, key: &str, item: Value) {
    let all = map_at(object, map).entry(key.to_owned()).or_insert(Value::Null);
    match all {
        Value::Array(all) => all.push(item),
        other => *other = json!([item]),
    }
}

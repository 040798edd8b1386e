use serde_json::{Value, json};
use switchover::manifests::{keeps_to_nodes, leads_to, lists_pods, stay_near};

use super::lines;

#[test]
fn services_that_keep_requests_on_a_node() {
    let of = |spec: Value| keeps_to_nodes(&json!({"kind": "Service", "spec": spec}));
    let outside = |kind: &str| of(json!({"type": kind, "externalTrafficPolicy": "Local"}));
    assert_eq!(outside("LoadBalancer"), Some("externalTrafficPolicy"));
    assert_eq!(outside("NodePort"), Some("externalTrafficPolicy"));
    // It says nothing where nothing comes from outside.
    assert_eq!(outside("ClusterIP"), None);
    assert_eq!(of(json!({"internalTrafficPolicy": "Local"})), Some("internalTrafficPolicy"));
    assert_eq!(of(json!({"type": "LoadBalancer", "externalTrafficPolicy": "Cluster"})), None);
    assert_eq!(keeps_to_nodes(&json!([1])), None);
}

#[test]
fn balancers_with_a_list_of_their_own() {
    let of = |annotations: Value| lists_pods(&json!({"metadata": {"annotations": annotations}}));
    let nlb = "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type";
    assert_eq!(of(json!({nlb: "ip"})), Some(nlb));
    assert_eq!(of(json!({nlb: "instance"})), None);
    assert_eq!(of(json!({"cloud.google.com/neg-status": "{}"})), Some("cloud.google.com/neg-status"));
    assert_eq!(of(json!({nlb: ["ip"]})), None);
    assert_eq!(lists_pods(&json!({"metadata": null})), None);
    let path = |name: &str| json!({"path": "/", "backend": {"service": {"name": name}}});
    let ingress = json!({"kind": "Ingress", "spec": {"rules": [{"host": "a"}, {"http": {"paths": [path("shop")]}}]}});
    assert!(leads_to(&ingress, "shop") && !leads_to(&ingress, "web"));
    let ingress = json!({"kind": "Ingress", "spec": {"defaultBackend": {"service": {"name": "web"}}}});
    assert!(leads_to(&ingress, "web") && !leads_to(&ingress, "shop"));
    assert!(!leads_to(&json!({"kind": "Ingress", "spec": []}), ""));
}

#[test]
fn a_wish_for_the_same_nodes() {
    let others = json!({"matchLabels": {"slot": "a"}});
    let mut plain =
        json!({"spec": {"selector": {"matchLabels": {"slot": "b"}}, "template": {"spec": {"affinity": null}}}});
    stay_near(&mut plain, &others);
    insta::assert_snapshot!(lines(&plain), @r#"
    spec.selector.matchLabels.slot = "b"
    spec.template.spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight = 100
    spec.template.spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey = "kubernetes.io/hostname"
    spec.template.spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector.matchLabels.slot = "a"
    spec.template.spec.topologySpreadConstraints[0].maxSkew = 1
    spec.template.spec.topologySpreadConstraints[0].topologyKey = "kubernetes.io/hostname"
    spec.template.spec.topologySpreadConstraints[0].whenUnsatisfiable = "ScheduleAnyway"
    spec.template.spec.topologySpreadConstraints[0].labelSelector.matchLabels.slot = "b"
    "#);
    // The author's own wishes stay, and their constraint on nodes is enough.
    let own = json!([{"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}]);
    let wish = json!({"weight": 1, "podAffinityTerm": {}});
    let near = json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}});
    let spec = json!({"topologySpreadConstraints": own, "affinity": near});
    let mut written = json!({"spec": {"template": {"spec": spec}}});
    stay_near(&mut written, &others);
    assert_eq!(written.pointer("/spec/template/spec/topologySpreadConstraints"), Some(&own));
    let near =
        written.pointer("/spec/template/spec/affinity/podAffinity/preferredDuringSchedulingIgnoredDuringExecution");
    assert_eq!(near.unwrap().as_array().unwrap().len(), 2);
    assert_eq!(near.unwrap()[0], wish);
}

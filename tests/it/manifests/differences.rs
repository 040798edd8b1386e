use serde_json::{Value, json};
use switchover::manifests::{difference, title};

fn told(live: Option<&Value>, wanted: &Value) -> String {
    difference(live, wanted).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "shop-a", "labels": {"app.kubernetes.io/name": "shop"}},
        "spec": {"replicas": 2, "paused": false, "template": {"spec": {"securityContext": {}, "containers": [{
            "name": "shop", "image": "acme/shop@sha256:1", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
            "env": [{"name": "MODE", "value": "fast"}, {"name": "DB_PASSWORD", "value": "hunter2"}, {"name": "E", "value": ""}],
            "ports": [{"containerPort": 8080}],
            "args": ["--a", "--b"],
        }]}}},
    })
}

#[test]
fn the_same_as_the_server_keeps_it_is_no_difference() {
    let mut live = deployment();
    live["metadata"]["uid"] = "1".into();
    live["status"] = json!({"replicas": 2});
    live["spec"]["progressDeadlineSeconds"] = 600.into();
    live["spec"].as_object_mut().unwrap().remove("paused");
    let container = &mut live["spec"]["template"]["spec"]["containers"][0];
    container["resources"]["limits"] = json!({"cpu": "0.5", "memory": "1024Mi"});
    container["imagePullPolicy"] = "IfNotPresent".into();
    container["ports"] = json!([{"containerPort": 8080, "protocol": "TCP"}]);
    container["env"][2].as_object_mut().unwrap().remove("value");
    container["env"].as_array_mut().unwrap().push(json!({"name": "INJECTED", "value": "by others"}));
    assert_eq!(told(Some(&live), &deployment()), "");
}

#[test]
fn what_would_change() {
    let mut live = deployment();
    live["spec"]["replicas"] = 3.into();
    live["metadata"]["labels"]["app.kubernetes.io/name"] = "old".into();
    let container = &mut live["spec"]["template"]["spec"]["containers"][0];
    container["image"] = "acme/shop:latest".into();
    container["env"] = json!([{"name": "MODE", "value": "3"}, {"name": "DB_PASSWORD", "value": "hunter1"}]);
    container["args"] = json!(["--a", "--c", "--d"]);
    container["ports"] = json!([]);
    insta::assert_snapshot!(told(Some(&live), &deployment()), @r#"
    ~ metadata.labels[app.kubernetes.io/name]: old → shop
    ~ spec.replicas: 3 → 2
    ~ spec.template.spec.containers[shop].image: acme/shop:latest → acme/shop@sha256:1
    ~ spec.template.spec.containers[shop].env[MODE].value: "3" → fast
    ~ spec.template.spec.containers[shop].env[DB_PASSWORD].value: (not shown) → (not shown)
    + spec.template.spec.containers[shop].env[E].name: E
    + spec.template.spec.containers[shop].ports[8080].containerPort: 8080
    ~ spec.template.spec.containers[shop].args[1]: --c → --b
    - spec.template.spec.containers[shop].args[2]: --d
    "#);
    insta::assert_snapshot!(told(None, &deployment()), @r"
    + metadata.name: shop-a
    + metadata.labels[app.kubernetes.io/name]: shop
    + spec.replicas: 2
    + spec.template.spec.containers[shop].name: shop
    + spec.template.spec.containers[shop].image: acme/shop@sha256:1
    + spec.template.spec.containers[shop].resources.limits.cpu: 500m
    + spec.template.spec.containers[shop].resources.limits.memory: 1Gi
    + spec.template.spec.containers[shop].env[MODE].name: MODE
    + spec.template.spec.containers[shop].env[MODE].value: fast
    + spec.template.spec.containers[shop].env[DB_PASSWORD].name: DB_PASSWORD
    + spec.template.spec.containers[shop].env[DB_PASSWORD].value: (not shown)
    + spec.template.spec.containers[shop].env[E].name: E
    + spec.template.spec.containers[shop].ports[8080].containerPort: 8080
    + spec.template.spec.containers[shop].args[0]: --a
    + spec.template.spec.containers[shop].args[1]: --b
    ");
    assert_eq!(title(&deployment()), "Deployment shop-a");
}

#[test]
fn what_we_own_and_no_longer_set() {
    let mut live = deployment();
    live["spec"]["minReadySeconds"] = 5.into();
    live["spec"]["template"]["spec"]["containers"][0]["env"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "GONE", "value": "x"}));
    live["metadata"]["managedFields"] = json!([
        {"manager": "kubectl", "operation": "Apply", "fieldsV1": {"f:spec": {"f:minReadySeconds": {}, "f:progressDeadlineSeconds": {}}}},
        {"manager": "switchover", "operation": "Apply", "fieldsV1": {
            "f:metadata": {"f:labels": {"f:app.kubernetes.io/name": {}, "f:gone": {}}},
            "f:spec": {"f:minReadySeconds": {}, "f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
                "k:{\"name\":\"shop\"}": {".": {}, "f:image": {}, "f:env": {
                    "k:{\"name\":\"MODE\"}": {".": {}, "f:value": {}},
                    "k:{\"name\":\"GONE\"}": {".": {}, "f:value": {}},
                }},
            }}}},
        }},
    ]);
    insta::assert_snapshot!(told(Some(&live), &deployment()), @r#"
    - spec.minReadySeconds: 5
    - spec.template.spec.containers[shop].env[GONE]: {"name":"GONE","value":"x"}
    "#);
}

#[test]
fn secrets_are_never_shown() {
    let wanted = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "geheim", "b": "neu", "c": "da"}});
    let live = json!({"kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "Z2VoZWlt", "b": "YWx0"}});
    insta::assert_snapshot!(told(Some(&live), &wanted), @r"
    ~ data.b: (not shown) → (not shown)
    + data.c: (not shown)
    ");
    let text = told(None, &wanted) + &told(Some(&live), &wanted);
    for word in ["geheim", "Z2VoZWlt", "YWx0", "neu"] {
        assert!(!text.contains(word), "{text}");
    }
    let map = json!({"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"app.yml": "a\nb\nc\n", "k": "AKIAABCDEFGHIJKLMNOP"}});
    insta::assert_snapshot!(told(None, &map), @r"
    + metadata.name: c
    + data[app.yml]: a text of 3 lines
    + data.k: ********************
    ");
}

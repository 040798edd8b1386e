use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use switchover::{
    domain::{
        config::{AppKind, Resources},
        ids::{AppName, Slot},
        rollout::AppManifests,
    },
    manifests::{
        Plain, Pointed, SecretEnv, adopt, autoscaler, config_names, label, made_up, object_name, pre_deploy_job,
        render, running_image, secret_object, selector, service, shared, slot_deployment_name, slot_of_selector, title,
    },
};

use super::{DIGEST, SINGLE, lines, objects, only, order, pair};

fn single() -> AppManifests {
    only("shop", "acme/shop", SINGLE)
}

fn slot() -> Slot {
    Slot::new("4f2a91c-8d03b6aa").unwrap()
}

#[test]
fn a_copy_for_a_slot() {
    let mut order = order("4f2a91c-8d03b6aa");
    order.env = BTreeMap::from([("LOG".into(), "debug".into()), ("HOST".into(), "a$(b)$$".into())]);
    order.secret = Some(SecretEnv { name: "shop-4f2a91c-8d03b6aa-env".into(), keys: vec!["DB_URL".into()] });
    order.pull_secrets = vec!["hub".into()];
    let rendered = render(&single(), &order).unwrap();
    assert_eq!(slot_deployment_name(&single(), &slot(), None).as_deref(), Some(rendered.name.as_str()));
    insta::assert_snapshot!(lines(&rendered.deployment), @r#"
    apiVersion = "apps/v1"
    kind = "Deployment"
    metadata.name = "shop-4f2a91c-8d03b6aa"
    metadata.labels.app = "shop"
    metadata.labels.[switchover.dev/app] = "shop"
    metadata.labels.[switchover.dev/environment] = "production"
    metadata.labels.[switchover.dev/kind] = "slot"
    metadata.labels.[switchover.dev/owner] = "o1"
    metadata.labels.[switchover.dev/slot] = "4f2a91c-8d03b6aa"
    metadata.annotations.[switchover.dev/slot] = "4f2a91c-8d03b6aa"
    metadata.annotations.[switchover.dev/epoch] = "7"
    spec.replicas = 2
    spec.selector.matchLabels.app = "shop"
    spec.selector.matchLabels.[switchover.dev/slot] = "4f2a91c-8d03b6aa"
    spec.template.metadata.labels.app = "shop"
    spec.template.metadata.labels.tier = "web"
    spec.template.metadata.labels.[switchover.dev/app] = "shop"
    spec.template.metadata.labels.[switchover.dev/environment] = "production"
    spec.template.metadata.labels.[switchover.dev/kind] = "slot"
    spec.template.metadata.labels.[switchover.dev/owner] = "o1"
    spec.template.metadata.labels.[switchover.dev/slot] = "4f2a91c-8d03b6aa"
    spec.template.spec.terminationGracePeriodSeconds = 40
    spec.template.spec.containers[0].name = "shop"
    spec.template.spec.containers[0].image = "docker.io/acme/shop@sha256:1111111111111111111111111111111111111111111111111111111111111111"
    spec.template.spec.containers[0].ports[0].containerPort = 8080
    spec.template.spec.containers[0].env[0].name = "DB_URL"
    spec.template.spec.containers[0].env[0].valueFrom.secretKeyRef.name = "shop-4f2a91c-8d03b6aa-env"
    spec.template.spec.containers[0].env[0].valueFrom.secretKeyRef.key = "DB_URL"
    spec.template.spec.containers[0].env[1].name = "HOST"
    spec.template.spec.containers[0].env[1].value = "a$$(b)$$$$"
    spec.template.spec.containers[0].env[2].name = "LOG"
    spec.template.spec.containers[0].env[2].value = "debug"
    spec.template.spec.containers[0].env[3].name = "URL"
    spec.template.spec.containers[0].env[3].value = "http://$(HOST)/"
    spec.template.spec.containers[0].envFrom[0].configMapRef.name = "shop-config-a08e7639"
    spec.template.spec.containers[0].readinessProbe.httpGet.path = "/ready"
    spec.template.spec.containers[0].readinessProbe.httpGet.port = 8080
    spec.template.spec.containers[0].lifecycle.preStop.exec.command[0] = "sleep"
    spec.template.spec.containers[0].lifecycle.preStop.exec.command[1] = "5"
    spec.template.spec.imagePullSecrets[0].name = "hub"
    "#);
    insta::assert_snapshot!(lines(&rendered.configs[0]), @r#"
    apiVersion = "v1"
    kind = "ConfigMap"
    metadata.name = "shop-config-a08e7639"
    metadata.labels.[switchover.dev/app] = "shop"
    metadata.labels.[switchover.dev/environment] = "production"
    metadata.labels.[switchover.dev/kind] = "config"
    metadata.labels.[switchover.dev/owner] = "o1"
    data.MODE = "fast"
    data.SIZE = "3"
    immutable = true
    "#);
    assert_eq!(
        config_names(&rendered.deployment),
        [
            ("ConfigMap".to_owned(), rendered.configs[0]["metadata"]["name"].as_str().unwrap().to_owned()),
            ("Secret".to_owned(), "shop-4f2a91c-8d03b6aa-env".to_owned()),
        ]
    );
}

#[test]
fn of_a_pair_the_idle_one_is_written() {
    let mut order = order("4f2a91c-8d03b6aa");
    order.colour = Some("green".to_owned());
    let rendered = render(&pair(), &order).unwrap();
    insta::assert_snapshot!(lines(&rendered.deployment), @r#"
    apiVersion = "apps/v1"
    kind = "Deployment"
    metadata.name = "shop-green"
    metadata.labels.app = "shop"
    metadata.labels.slot = "green"
    metadata.annotations.[switchover.dev/slot] = "4f2a91c-8d03b6aa"
    metadata.annotations.[switchover.dev/epoch] = "7"
    spec.replicas = 2
    spec.selector.matchLabels.app = "shop"
    spec.selector.matchLabels.slot = "green"
    spec.template.metadata.labels.app = "shop"
    spec.template.metadata.labels.slot = "green"
    spec.template.metadata.annotations.[switchover.dev/slot] = "4f2a91c-8d03b6aa"
    spec.template.spec.terminationGracePeriodSeconds = 40
    spec.template.spec.containers[0].name = "shop"
    spec.template.spec.containers[0].image = "docker.io/acme/shop@sha256:1111111111111111111111111111111111111111111111111111111111111111"
    spec.template.spec.containers[0].env[0].name = "COLOUR"
    spec.template.spec.containers[0].env[0].value = "green"
    spec.template.spec.containers[0].ports[0].containerPort = 8080
    spec.template.spec.containers[0].readinessProbe.httpGet.path = "/ready"
    spec.template.spec.containers[0].readinessProbe.httpGet.port = 8080
    spec.template.spec.containers[0].lifecycle.preStop.exec.command[0] = "sleep"
    spec.template.spec.containers[0].lifecycle.preStop.exec.command[1] = "5"
    "#);
    order.colour = Some("purple".to_owned());
    insta::assert_snapshot!(render(&pair(), &order).unwrap_err(), @"no Deployment of the pair has slot=purple; there are `blue` and `green`");
    order.colour = None;
    assert!(render(&pair(), &order).is_err());
}

#[test]
fn an_autoscaler_owns_the_replicas() {
    let mut order = order("a");
    order.replicas = None;
    let rendered = render(&single(), &order).unwrap();
    assert_eq!(rendered.deployment.pointer("/spec/replicas"), None);
    let mut manifests = single();
    manifests.autoscaler = Some(json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "shop", "uid": "1"},
        "spec": {"minReplicas": 2, "maxReplicas": 9, "scaleTargetRef": {"kind": "Deployment", "name": "shop"}},
    }));
    let scaler = autoscaler(&manifests, "shop-a").unwrap();
    assert_eq!(
        scaler["spec"]["scaleTargetRef"],
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop-a"})
    );
    assert_eq!(scaler["spec"]["maxReplicas"], 9);
    assert_eq!(autoscaler(&single(), "x"), None);
}

#[test]
fn configuration_is_named_by_its_content() {
    let name = |yaml: &str| {
        let rendered = render(&only("shop", "acme/shop", yaml), &order("a")).unwrap();
        rendered.configs[0]["metadata"]["name"].as_str().unwrap().to_owned()
    };
    let first = name(SINGLE);
    assert_eq!(
        first,
        name(&SINGLE.replace("{MODE: fast, SIZE: \"3\"}", "{SIZE: '3', MODE: fast}")),
        "order says nothing"
    );
    assert_ne!(first, name(&SINGLE.replace("fast", "slow")));
    // A Secret's name says nothing of what is in it.
    let secret = SINGLE
        .replace("kind: ConfigMap", "kind: Secret")
        .replace("configMapRef", "secretRef")
        .replace("\ndata:", "\nstringData:");
    assert_eq!(name(&secret), "shop-config-a");
    assert_eq!(name(&secret.replace("fast", "slow")), "shop-config-a");
}

#[test]
fn a_probe_is_made_where_none_is_written() {
    let yaml = SINGLE.replace("          readinessProbe: {httpGet: {path: /ready, port: 8080}}\n", "");
    let probe = |order: &switchover::manifests::SlotOrder, yaml: &str| {
        let rendered = render(&only("shop", "acme/shop", yaml), order).unwrap();
        rendered.deployment.pointer("/spec/template/spec/containers/0/readinessProbe").cloned()
    };
    let mut order = order("a");
    assert_eq!(
        probe(&order, &yaml),
        Some(json!({"tcpSocket": {"port": 8080}, "periodSeconds": 2, "timeoutSeconds": 2}))
    );
    order.health = Some("/up".into());
    assert_eq!(probe(&order, &yaml).unwrap()["httpGet"], json!({"path": "/up", "port": 8080}));
    assert_eq!(probe(&order, SINGLE).unwrap(), json!({"httpGet": {"path": "/ready", "port": 8080}}));
    order.port = None;
    assert_eq!(probe(&order, &yaml), None);
}

#[test]
fn init_containers_and_further_ones_of_the_same_image() {
    let yaml = SINGLE.replace("      containers:\n", "      initContainers:\n        - {name: migrate, image: 'acme/shop:latest', args: [migrate]}\n        - {name: wait, image: 'busybox:1'}\n      containers:\n");
    let mut order = order("a");
    order.env.insert("X".into(), "1".into());
    order.command = Some(vec!["sh".into(), "-c".into(), "serve".into()]);
    let rendered = render(&only("shop", "acme/shop", &yaml), &order).unwrap();
    let spec = &rendered.deployment["spec"]["template"]["spec"];
    assert_eq!(
        spec["initContainers"][0],
        json!({"name": "migrate", "image": DIGEST, "args": ["migrate"], "env": [{"name": "X", "value": "1"}]})
    );
    assert_eq!(spec["initContainers"][1], json!({"name": "wait", "image": "busybox:1"}));
    assert_eq!(spec["containers"][0]["command"], json!(["sh", "-c", "serve"]));
}

#[test]
fn budgets_count_one_slot() {
    let budget = |name: &str, labels: Value| json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name}, "spec": {"minAvailable": 1, "selector": {"matchLabels": labels}}});
    let mut one = single();
    one.budgets = vec![budget("shop", json!({"app": "shop"}))];
    let rendered = render(&one, &order("a")).unwrap();
    assert_eq!(rendered.budgets[0]["metadata"]["name"], "shop-a");
    assert_eq!(
        rendered.budgets[0]["spec"]["selector"]["matchLabels"],
        json!({"app": "shop", "switchover.dev/slot": "a"})
    );
    let mut two = pair();
    two.budgets = vec![
        budget("both", json!({"app": "shop"})),
        budget("for-blue", json!({"app": "shop", "slot": "blue"})),
        budget("for-green", json!({"app": "shop", "slot": "green"})),
    ];
    let mut order = order("a");
    order.colour = Some("green".into());
    let names: Vec<String> = render(&two, &order)
        .unwrap()
        .budgets
        .iter()
        .map(|b| format!("{} {}", title(b), b["spec"]["selector"]["matchLabels"]))
        .collect();
    insta::assert_snapshot!(names.join("\n"), @r#"
    PodDisruptionBudget both {"app":"shop","slot":"blue"}
    PodDisruptionBudget both-green {"app":"shop","slot":"green"}
    PodDisruptionBudget for-blue {"app":"shop","slot":"blue"}
    PodDisruptionBudget for-green {"app":"shop","slot":"green"}
    "#);
}

#[test]
fn where_the_service_points() {
    let (one, two) = (single(), pair());
    assert_eq!(
        selector(&one, &slot(), None),
        BTreeMap::from([("app".into(), "shop".into()), ("switchover.dev/slot".into(), "4f2a91c-8d03b6aa".into())])
    );
    assert_eq!(
        selector(&two, &slot(), Some("green")),
        BTreeMap::from([("app".into(), "shop".into()), ("slot".into(), "green".into())])
    );
    let points = |m: &AppManifests, pairs: &[(&str, &str)]| {
        let selector = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        format!("{:?}", slot_of_selector(m, &selector))
    };
    let all = [
        points(&one, &[("app", "shop")]),
        points(&one, &[("app", "other"), ("switchover.dev/slot", "4f2a91c-8d03b6aa")]),
        points(&one, &[("app", "shop"), ("switchover.dev/slot", "-")]),
        points(&one, &[("app", "somebody")]),
        points(&one, &[]),
        points(&two, &[("app", "shop"), ("slot", "green")]),
        points(&two, &[("app", "shop")]),
        points(&two, &[("app", "shop"), ("slot", "purple")]),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    Wide
    Slot(Slot("4f2a91c-8d03b6aa"))
    Unknown("switchover.dev/slot=-, which is no slot's name")
    Unknown("app=somebody, which no pod of this app has")
    Unknown("nothing (it has no selector)")
    Colour("green")
    Wide
    Unknown("slot=purple, and the pair has `blue` and `green`")
    "#);
    for colour in ["blue", "green"] {
        assert_eq!(slot_of_selector(&two, &selector(&two, &slot(), Some(colour))), Pointed::Colour(colour.to_owned()));
    }
    assert_eq!(slot_of_selector(&one, &selector(&one, &slot(), None)), Pointed::Slot(slot()));
}

#[test]
fn a_label_that_follows_the_colour_changes_with_it() {
    let two = |c: &str, v: &str| super::colour(c).replace(&format!("slot: {c}"), &format!("slot: {c}, version: {v}"));
    let yaml =
        [two("blue", "v1"), two("green", "v2"), super::PAIR_SERVICE.replace("slot: blue", "slot: blue, version: v1")]
            .join("---\n");
    let manifests = only("shop", "acme/shop", &yaml);
    let green = selector(&manifests, &slot(), Some("green"));
    assert_eq!(
        green,
        BTreeMap::from([
            ("app".into(), "shop".into()),
            ("slot".into(), "green".into()),
            ("version".into(), "v2".into())
        ])
    );
    assert_eq!(slot_of_selector(&manifests, &green), Pointed::Colour("green".into()));
    let mut mixed = green;
    mixed.insert("version".into(), "v1".into());
    assert!(matches!(slot_of_selector(&manifests, &mixed), Pointed::Unknown(_)));
}

#[test]
fn services_are_the_authors_without_selector() {
    let name = AppName::new("Shop_API").unwrap();
    let authors = service(&single(), &name, Some(8080)).unwrap();
    assert_eq!(authors["spec"], json!({"type": "LoadBalancer", "ports": [{"port": 80, "targetPort": 8080}]}));
    let mut none = single();
    none.service = None;
    insta::assert_snapshot!(lines(&service(&none, &name, Some(8080)).unwrap()), @r#"
    apiVersion = "v1"
    kind = "Service"
    metadata.name = "shop-api-040c1f58"
    spec.type = "ClusterIP"
    spec.ports[0].name = "http"
    spec.ports[0].port = 8080
    spec.ports[0].targetPort = 8080
    spec.ports[0].protocol = "TCP"
    "#);
    assert_eq!(service(&none, &name, None), None);
}

#[test]
fn shared_objects_get_the_image_too() {
    let job = "---\napiVersion: batch/v1\nkind: CronJob\nmetadata: {name: report}\nspec: {jobTemplate: {spec: {template: {spec: {containers: [{name: r, image: 'docker.io/acme/shop:latest'}, {name: s, image: 'mysql:8'}]}}}}}\n";
    let manifests = only("shop", "acme/shop", &format!("{SINGLE}{job}"));
    let all = shared(&manifests, DIGEST);
    let containers = all[0].pointer("/spec/jobTemplate/spec/template/spec/containers").unwrap();
    assert_eq!((&containers[0]["image"], &containers[1]["image"]), (&json!(DIGEST), &json!("mysql:8")));
}

#[test]
fn the_first_slot_is_a_copy_of_the_live_one() {
    let mut live = objects(&[("a.yaml", SINGLE)])[0].value.clone();
    live["metadata"]["uid"] = "u".into();
    live["metadata"]["resourceVersion"] = "12".into();
    live["metadata"]["managedFields"] = json!([{"manager": "kubectl"}]);
    live["metadata"]["annotations"] = json!({"deployment.kubernetes.io/revision": "3", "kubectl.kubernetes.io/last-applied-configuration": "{}", "own": "x"});
    live["status"] = json!({"replicas": 2});
    live["spec"]["template"]["spec"]["containers"][0]["image"] = "acme/shop:41".into();
    let copy = adopt(&live, &slot(), &order("x").labels).unwrap();
    insta::assert_snapshot!(lines(&json!({"metadata": copy["metadata"], "selector": copy["spec"]["selector"], "labels": copy["spec"]["template"]["metadata"]})), @r#"
    metadata.name = "shop-4f2a91c-8d03b6aa"
    metadata.labels.app = "shop"
    metadata.labels.[switchover.dev/app] = "shop"
    metadata.labels.[switchover.dev/environment] = "production"
    metadata.labels.[switchover.dev/kind] = "slot"
    metadata.labels.[switchover.dev/owner] = "o1"
    metadata.labels.[switchover.dev/slot] = "4f2a91c-8d03b6aa"
    metadata.annotations.own = "x"
    metadata.annotations.[switchover.dev/slot] = "4f2a91c-8d03b6aa"
    selector.matchLabels.app = "shop"
    selector.matchLabels.[switchover.dev/slot] = "4f2a91c-8d03b6aa"
    labels.labels.app = "shop"
    labels.labels.tier = "web"
    labels.labels.[switchover.dev/app] = "shop"
    labels.labels.[switchover.dev/environment] = "production"
    labels.labels.[switchover.dev/kind] = "slot"
    labels.labels.[switchover.dev/owner] = "o1"
    labels.labels.[switchover.dev/slot] = "4f2a91c-8d03b6aa"
    "#);
    assert_eq!(copy.get("status"), None);
    assert_eq!(running_image(&copy, &single()), Some("acme/shop:41"));
    assert!(adopt(&json!({"kind": "Service", "metadata": {"name": "x"}}), &slot(), &BTreeMap::new()).is_err());
}

#[test]
fn a_command_before_the_release() {
    let yaml = SINGLE.replace("      containers:\n", "      serviceAccountName: shop\n      volumes: [{name: c, configMap: {name: shop-config}}]\n      initContainers:\n        - {name: migrate, image: 'acme/shop:latest'}\n        - {name: vault, image: 'vault:1'}\n      containers:\n        - {name: proxy, image: 'envoy:1'}\n");
    let mut order = order("4f2a91c-8d03b6aa");
    order.labels.insert("switchover.dev/kind".into(), "command".into());
    order.secret = Some(SecretEnv { name: "s".into(), keys: vec!["DB".into()] });
    let job =
        pre_deploy_job(&only("shop", "acme/shop", &yaml), &order, "migrate up", Duration::from_secs(600)).unwrap();
    insta::assert_snapshot!(lines(&job), @r#"
    apiVersion = "batch/v1"
    kind = "Job"
    metadata.name = "shop-4f2a91c-8d03b6aa-pre"
    metadata.annotations.[switchover.dev/epoch] = "7"
    metadata.labels.[switchover.dev/app] = "shop"
    metadata.labels.[switchover.dev/environment] = "production"
    metadata.labels.[switchover.dev/kind] = "command"
    metadata.labels.[switchover.dev/owner] = "o1"
    metadata.labels.[switchover.dev/slot] = "4f2a91c-8d03b6aa"
    spec.backoffLimit = 0
    spec.activeDeadlineSeconds = 600
    spec.template.spec.serviceAccountName = "shop"
    spec.template.spec.volumes[0].name = "c"
    spec.template.spec.volumes[0].configMap.name = "shop-config-a08e7639"
    spec.template.spec.initContainers[0].name = "vault"
    spec.template.spec.initContainers[0].image = "vault:1"
    spec.template.spec.containers[0].name = "shop"
    spec.template.spec.containers[0].image = "docker.io/acme/shop@sha256:1111111111111111111111111111111111111111111111111111111111111111"
    spec.template.spec.containers[0].env[0].name = "DB"
    spec.template.spec.containers[0].env[0].valueFrom.secretKeyRef.name = "s"
    spec.template.spec.containers[0].env[0].valueFrom.secretKeyRef.key = "DB"
    spec.template.spec.containers[0].env[1].name = "LOG"
    spec.template.spec.containers[0].env[1].value = "info"
    spec.template.spec.containers[0].env[2].name = "URL"
    spec.template.spec.containers[0].env[2].value = "http://$(HOST)/"
    spec.template.spec.containers[0].envFrom[0].configMapRef.name = "shop-config-a08e7639"
    spec.template.spec.containers[0].command[0] = "sh"
    spec.template.spec.containers[0].command[1] = "-c"
    spec.template.spec.containers[0].command[2] = "migrate up"
    spec.template.spec.restartPolicy = "Never"
    spec.template.metadata.labels.[switchover.dev/app] = "shop"
    spec.template.metadata.labels.[switchover.dev/environment] = "production"
    spec.template.metadata.labels.[switchover.dev/kind] = "command"
    spec.template.metadata.labels.[switchover.dev/owner] = "o1"
    spec.template.metadata.labels.[switchover.dev/slot] = "4f2a91c-8d03b6aa"
    "#);
}

#[test]
fn an_app_without_manifests() {
    let plain = |kind, port| {
        made_up(&Plain {
            name: AppName::new("Back_End").unwrap(),
            kind,
            port,
            health: Some("/health".into()),
            resources: Resources { cpu: Some(0.25), memory: Some(256 << 20) },
            drain: Duration::from_secs(45),
            native_sleep: true,
        })
    };
    let web = plain(AppKind::Web, Some(8080));
    insta::assert_snapshot!(lines(web.workloads().next().unwrap()), @r#"
    apiVersion = "apps/v1"
    kind = "Deployment"
    metadata.name = "back-end-d5ec9f03"
    metadata.labels.[app.kubernetes.io/name] = "back-end-d5ec9f03"
    spec.selector.matchLabels.[app.kubernetes.io/name] = "back-end-d5ec9f03"
    spec.strategy.type = "RollingUpdate"
    spec.strategy.rollingUpdate.maxUnavailable = 0
    spec.strategy.rollingUpdate.maxSurge = 1
    spec.template.metadata.labels.[app.kubernetes.io/name] = "back-end-d5ec9f03"
    spec.template.spec.automountServiceAccountToken = false
    spec.template.spec.enableServiceLinks = false
    spec.template.spec.terminationGracePeriodSeconds = 50
    spec.template.spec.containers[0].name = "app"
    spec.template.spec.containers[0].image = "back-end-d5ec9f03"
    spec.template.spec.containers[0].securityContext.allowPrivilegeEscalation = false
    spec.template.spec.containers[0].securityContext.seccompProfile.type = "RuntimeDefault"
    spec.template.spec.containers[0].ports[0].name = "http"
    spec.template.spec.containers[0].ports[0].containerPort = 8080
    spec.template.spec.containers[0].readinessProbe.httpGet.path = "/health"
    spec.template.spec.containers[0].readinessProbe.httpGet.port = "http"
    spec.template.spec.containers[0].readinessProbe.periodSeconds = 2
    spec.template.spec.containers[0].readinessProbe.timeoutSeconds = 2
    spec.template.spec.containers[0].lifecycle.preStop.sleep.seconds = 5
    spec.template.spec.containers[0].resources.requests.cpu = "250m"
    spec.template.spec.containers[0].resources.requests.memory = "268435456"
    spec.template.spec.containers[0].resources.limits.memory = "268435456"
    "#);
    insta::assert_snapshot!(lines(web.service.as_ref().unwrap()), @r#"
    apiVersion = "v1"
    kind = "Service"
    metadata.name = "back-end-d5ec9f03"
    metadata.labels.[app.kubernetes.io/name] = "back-end-d5ec9f03"
    spec.type = "ClusterIP"
    spec.selector.[app.kubernetes.io/name] = "back-end-d5ec9f03"
    spec.ports[0].name = "http"
    spec.ports[0].port = 8080
    spec.ports[0].targetPort = "http"
    spec.ports[0].protocol = "TCP"
    "#);
    assert!(render(&web, &order("a")).is_ok());
    let worker = plain(AppKind::Worker, None);
    assert_eq!(worker.service, None);
    let spec = &worker.workloads().next().unwrap()["spec"];
    assert_eq!(spec["strategy"], json!({"type": "Recreate"}));
    assert_eq!(spec["template"]["spec"]["containers"][0].get("readinessProbe"), None);
}

#[test]
fn names_fit() {
    assert_eq!(label("production"), "production");
    assert_eq!(object_name("shop-api", 63), "shop-api");
    assert_eq!(object_name("Shop", 63), "shop");
    insta::assert_snapshot!([label("prod."), label(&"x".repeat(80)), label("!!"), object_name("Shop_API", 63), object_name(&"long-".repeat(20), 40), object_name("_", 20)].join("\n"), @r"
    prod-48f2a251
    xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-d929cdee
    x233d26e9
    shop-api-040c1f58
    long-long-long-long-long-long-l-cd9ddee2
    xd2e2adf7
    ");
    let long =
        SINGLE.replace("name: shop\n", &format!("name: {}\n", "very-long-name-".repeat(4).trim_end_matches('-')));
    let name = render(&only("shop", "acme/shop", &long), &order("4f2a91c-8d03b6aa")).unwrap().name;
    insta::assert_snapshot!(name, @"very-long-name-very-db098102-4f2a91c-8d03b6aa");
    let secret = secret_object("x", &BTreeMap::new(), &BTreeMap::from([("K".to_owned(), "v".to_owned())]));
    assert_eq!((&secret["stringData"]["K"], &secret["immutable"]), (&json!("v"), &json!(true)));
}

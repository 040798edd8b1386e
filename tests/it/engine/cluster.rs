//! The whole way to a cluster: push, steps, image, registry, manifests, release, rollback.

use super::rig::{NAME, OWNER, Rig, rollback};
use crate::{cluster::rig::Cluster, docker::rig::SMALL};

fn config(image: &str) -> String {
    format!(
        "version: 1
apps:
  web:
    container: {SMALL}
    image: {image}
    steps:
      test: {{run: \"test ! -e broken\"}}
      build: {{run: \"mkdir -p www && cp version www/version\"}}
environments:
  production:
    deploy: {{branch: main}}
    manifests: k8s
    env: {{GREETING: hello}}
    probe: {{path: /version, interval: 20ms}}
    min_ready: 100ms
    watch_for: 1s
    keep_previous: 10m
    drain_timeout: 1s
    smoke: {{run: \"wget -q -O - $URL/version | grep -q .\"}}
"
    )
}

fn manifests(image: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: shop}}
spec:
  selector: {{matchLabels: {{app: shop}}}}
  template:
    metadata: {{labels: {{app: shop}}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
        - name: shop
          image: {image}:IMAGE_TAG
          ports: [{{containerPort: 8080}}]
          envFrom: [{{configMapRef: {{name: shop}}}}]
          readinessProbe: {{httpGet: {{path: /version, port: 8080}}, periodSeconds: 1}}
          lifecycle: {{preStop: {{exec: {{command: [sleep, \"1\"]}}}}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: shop}}
data: {{COLOUR: plain}}
---
apiVersion: v1
kind: Service
metadata: {{name: shop}}
spec:
  selector: {{app: shop}}
  ports: [{{port: 80, targetPort: 8080}}]
"
    )
}

async fn page(rig: &Rig) -> String {
    let answer =
        reqwest::get(format!("{}/version", rig.address().await.trim_end_matches('/'))).await.expect("answered");
    answer.text().await.expect("text").trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_push_to_a_cluster_and_back() {
    let Some(cluster) = Cluster::shared("from_a_push_to_a_cluster_and_back") else { return };
    let namespace = cluster.namespace("story");
    let settings = |folder: &std::path::Path| {
        let password = folder.join("registry-password");
        std::fs::write(&password, "pw").expect("written");
        std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("set");
        format!(
            "executor = \"docker\"\ndocker_host = \"{}\"\n[targets.prod]\nkind = \"kubernetes\"\nkubeconfig_file = \"{}\"\n\
             namespace = \"{}\"\nrepositories = [\"acme/*\"]\n[registries.\"{}\"]\nusername = \"acme\"\npassword_file = \"{}\"\n\
             plain_http = true\nrepositories = [\"acme/*\"]\n",
            cluster.docker_host(),
            cluster.kubeconfig().display(),
            namespace.name,
            cluster.registry(),
            password.display()
        )
    };
    let rig = Rig::start_with(&settings).await;
    let image = format!("{}/acme/web-{}", cluster.registry(), uuid::Uuid::new_v4().simple());
    let dockerfile = format!(
        "FROM {SMALL}\nCOPY www /www\nEXPOSE 8080\nCMD [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/www\"]\n"
    );
    let (config, text) = (config(&image), manifests(&image));
    let files = [
        (".github/switchover.yml", Some(config.as_str())),
        ("Dockerfile", Some(dockerfile.as_str())),
        ("k8s/shop.yml", Some(text.as_str())),
        ("version", Some("one\n")),
    ];
    let one = rig.push("main", &files, "one").await;
    assert_eq!(rig.conclusion(&one, "web / image (push)").await, "success");
    rig.deployed(&one, "success").await;
    assert_eq!(page(&rig).await, "one");
    let two = rig.push("main", &[("version", Some("two\n"))], "two").await;
    rig.deployed(&two, "success").await;
    assert_eq!(page(&rig).await, "two");
    let check = rig.check(&two, "deploy (production)").await;
    let said = format!("{:?} {:?}", check.output.title, check.output.summary);
    assert!(said.contains("probes failed"), "{said}");
    // What a release would change is told before anything is applied.
    let wanted = switchover::engine::preview::Preview { repository: None, environment: "production".into(), sha: None };
    let plan = rig.control.preview(&wanted).await.expect("a plan");
    assert!(
        plan.contains("Deployment shop-") && plan.contains("Service shop") && plan.contains("Nothing was changed"),
        "{plan}"
    );
    rig.control.command(&rollback()).await.expect("rolled back");
    rig.wait("a new deployment of the old commit", |m| {
        let newest = m.repo(OWNER, NAME)?.deployments.values().next_back()?;
        (newest.sha == one && newest.state() == "success").then_some(())
    })
    .await;
    assert_eq!(page(&rig).await, "one");
    // What the operator does not allow is refused with its line; what is live stays.
    let privileged =
        text.replace("terminationGracePeriodSeconds: 5", "terminationGracePeriodSeconds: 5\n      hostNetwork: true");
    rig.control
        .command(&switchover::engine::commands::Command {
            verb: switchover::engine::commands::Verb::Resume,
            ..rollback()
        })
        .await
        .expect("resumed");
    let three = rig.push("main", &[("k8s/shop.yml", Some(&privileged)), ("version", Some("three\n"))], "three").await;
    assert_eq!(rig.conclusion(&three, "web / image (push)").await, "success");
    let check = rig.check(&three, "deploy (production)").await;
    let said = format!("{:?} {:?}", check.output.title, check.output.summary);
    assert_eq!(check.conclusion.as_deref(), Some("failure"), "{said}");
    assert!(said.contains("k8s/shop.yml:10") && said.contains("hostNetwork"), "{said}");
    assert_eq!(page(&rig).await, "one");
    rig.stop().await;
}

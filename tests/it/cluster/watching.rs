//! Watching namespaces: with credentials that are renewed meanwhile, and many at once.

use std::time::Duration;

use switchover::{
    cluster::{Clusters, Kind},
    settings::ClusterSettings,
};

use super::rig::{Cluster, DEADLINE, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewed_credentials_are_taken_without_a_new_start() {
    let Some(cluster) = Cluster::shared("renewed_credentials_are_taken_without_a_new_start") else { return };
    let space = cluster.namespace("renewed");
    let kinds = "pods,services,configmaps,deployments.apps,endpointslices.discovery.k8s.io,\
                 horizontalpodautoscalers.autoscaling";
    space.kubectl(&["create", "role", "reads", "--verb=get,list,watch", &format!("--resource={kinds}")]);
    let dir = tempfile::tempdir().unwrap();
    let file = space.account("reads", dir.path());
    let good = std::fs::read_to_string(&file).unwrap();
    let mut expired: serde_json::Value = serde_json::from_str(&good).unwrap();
    expired["users"][0]["user"]["token"] = "of-yesterday".into();
    std::fs::write(&file, expired.to_string()).unwrap();
    let clusters = Clusters::new("test");
    let settings = ClusterSettings { kubeconfig: Some(file.clone()), context: None, namespace: space.name.clone() };
    let watched = clusters.watched(&settings).await.unwrap();
    let why = watched.ready(Duration::from_secs(5)).await.unwrap_err();
    assert!(why.contains("credentials"), "{why}");
    // A file that can't be read leaves all as it is.
    std::fs::write(&file, "users: [").unwrap();
    let said = clusters.watched(&settings).await.map(drop).unwrap_err().to_string();
    assert!(said.contains("kubeconfig"), "{said}");
    assert!(watched.current().is_err());
    std::fs::write(&file, &good).unwrap();
    watched.ready(DEADLINE).await.unwrap();
    assert!(watched.get(Kind::Pod, "none").is_none());
    // Another cluster's file is another connection.
    let elsewhere = good.replace("https://", "https://elsewhere.invalid/").replace(":6443", "");
    std::fs::write(&file, elsewhere).unwrap();
    let other = clusters.watched(&settings).await.unwrap();
    assert!(other.cluster().address().contains("elsewhere"), "{}", other.cluster().address());
    assert!(!watched.cluster().address().contains("elsewhere"));
}

const APP: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop-SLOT}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop, slot: SLOT}}
  template:
    metadata: {labels: {app: shop, slot: SLOT}}
    spec:
      containers:
        - name: shop
          image: IMAGE
          env: [{name: SPRING_PROFILES_ACTIVE, value: prod}, {name: JAVA_TOOL_OPTIONS, value: -XX:MaxRAMPercentage=75}]
          ports: [{containerPort: 8080}]
          readinessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 10}
---
apiVersion: v1
kind: Service
metadata: {name: shop-SLOT}
spec:
  selector: {app: shop, slot: SLOT}
  ports: [{port: 8080}]
---
";

/// KiB of its own, and pages of the program.
fn resident() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    (of("RssAnon:"), of("RssFile:"))
}

/// Beside a process that does nothing else: what is printed is what a server needs beyond its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement for a person's eyes, by name and alone"]
async fn twenty_environments() {
    let Some(cluster) = Cluster::shared("twenty_environments") else { return };
    let image = cluster.push_app("twenty/shop", "one", &[]).exact();
    let spaces: Vec<_> = (0..20).map(|_| cluster.namespace("twenty")).collect();
    for space in &spaces {
        space.apply(&["blue", "green"].map(|slot| APP.replace("SLOT", slot).replace("IMAGE", &image)).concat());
    }
    for space in &spaces {
        space.rolled_out("shop-blue");
        space.rolled_out("shop-green");
    }
    let clusters = Clusters::new("test");
    let before = resident();
    let mut all = Vec::new();
    for space in &spaces {
        let kubeconfig = Some(cluster.kubeconfig().to_owned());
        let settings = ClusterSettings { kubeconfig, context: None, namespace: space.name.clone() };
        let watched = clusters.watched(&settings).await.unwrap();
        watched.ready(DEADLINE).await.unwrap();
        all.push(watched);
    }
    let listed = resident();
    let pods: usize = all.iter().map(|w| w.all(Kind::Pod).len()).sum();
    // Everything of it changes a few times.
    for space in &spaces {
        space.kubectl(&["scale", "deployment/shop-blue", "--replicas=1"]);
        space.kubectl(&["scale", "deployment/shop-blue", "--replicas=2"]);
    }
    until("all is as before", || all.iter().all(|w| w.all(Kind::Pod).len() == 4));
    println!(
        "{pods} pods in {} namespaces: {before:?} KiB, {listed:?} KiB, {:?} KiB in the end",
        all.len(),
        resident()
    );
    assert_eq!(pods, 80);
}

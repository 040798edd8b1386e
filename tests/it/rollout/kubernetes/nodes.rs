//! Services whose requests stay on the node that they come to, and load balancers that follow in their own time.

use serde_json::{Value, json};
use switchover::domain::rollout::{Ended, after};

use super::{Bench, POLITE, Wanted, answers, config, desired, tied, told};
use crate::cluster::rig::{Cluster, until};

const MANIFESTS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers:
        - name: shop
          image: IMAGE
          ports: [{containerPort: 8080}]
          readinessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1, timeoutSeconds: 5}
---
apiVersion: v1
kind: Service
metadata:
  name: shop
  annotations: {service.beta.kubernetes.io/aws-load-balancer-nlb-target-type: ip}
spec:
  type: NodePort
  externalTrafficPolicy: Local
  selector: {app: shop}
  ports: [{port: 8080}]
";

/// A node that the test speaks for: its kubelet says what the test wants it to say.
fn join_elsewhere(cluster: &Cluster) {
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "elsewhere", "labels": {"kubernetes.io/hostname": "elsewhere"}},
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), node.to_string()).unwrap();
    cluster.kubectl(&["create", "-f", file.path().to_str().unwrap()]);
    let room = json!({"cpu": "4", "memory": "8Gi", "pods": "50"});
    let now = switchover::clock::now().to_string();
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "KubeletReady",
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    });
    let status = json!({"status": {"capacity": room, "allocatable": room, "conditions": [ready]}});
    cluster.kubectl(&["patch", "node", "elsewhere", "--subresource=status", "-p", &status.to_string()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pods_come_to_the_nodes_that_requests_come_to() {
    let Some(cluster) = Cluster::own("pods_come_to_the_nodes_that_requests_come_to") else { return };
    let cluster: &'static Cluster = Box::leak(Box::new(cluster));
    let _end = super::outage::Ends(cluster);
    let bench = Bench::on(cluster.namespace("nodes"), cluster.kubeconfig()).await;
    let version = |name: &str| {
        let image = cluster.push_app("nodes/shop", name, POLITE);
        let text = MANIFESTS.replace("IMAGE", &format!("{}:latest", image.repository));
        let wanted = Wanted { manifests: Some(tied(&text, &image)), ..Wanted::web(&image) };
        desired(name, vec![wanted])
    };
    let one = version("one");
    let (end, progress) = bench.release(&one).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    answers(bench.address("shop"), "one");
    // One pod of it on another node.
    let home = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    join_elsewhere(cluster);
    cluster.kubectl(&["cordon", &home]);
    let live = format!("deployment/shop-{}", one.apps[0].slot);
    bench.ns.kubectl(&["scale", &live, "--replicas=3"]);
    let there = || bench.ns.kubectl(&["get", "pods", "--field-selector=spec.nodeName=elsewhere", "-o", "name"]);
    until("a pod elsewhere", || !there().trim().is_empty());
    let now = switchover::clock::now().to_string();
    let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": now});
    let status = json!({"status": {"phase": "Running", "conditions": [ready]}});
    bench.ns.kubectl(&["patch", there().trim(), "--subresource=status", "-p", &status.to_string()]);
    cluster.kubectl(&["uncordon", &home]);
    cluster.kubectl(&["cordon", "elsewhere"]);
    // A release that can't have a pod there waits, and says for what.
    let two = version("two");
    let (end, progress) =
        bench.release_in_vain(&two, &["none is on the node elsewhere", "`externalTrafficPolicy: Local`"]).await;
    assert_eq!(end.outcome, Ended::Failed, "{} {}", end.words, told(&progress));
    assert!(end.words.contains("none is on the node elsewhere"), "{}", end.words);
    answers(bench.address("shop"), "one");
    // Without that node it goes on, by the scheduler's leave beside the pods before.
    bench.ns.kubectl(&["scale", &live, "--replicas=2"]);
    bench.ns.kubectl(&["delete", there().trim(), "--grace-period=0", "--force"]);
    cluster.kubectl(&["delete", "node", "elsewhere"]);
    bench.ns.rolled_out(live.trim_start_matches("deployment/"));
    let three = version("three");
    let (end, progress) = bench.release(&three).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    answers(bench.address("shop"), "three");
    let name = format!("shop-{}", three.apps[0].slot);
    let made: Value = serde_json::from_str(&bench.ns.kubectl(&["get", "deployment", &name, "-o", "json"])).unwrap();
    let near = "/spec/template/spec/affinity/podAffinity/preferredDuringSchedulingIgnoredDuringExecution/0";
    let near = made.pointer(&format!("{near}/podAffinityTerm/labelSelector/matchLabels")).unwrap();
    assert_eq!(near["switchover.dev/slot"], json!(one.apps[0].slot.as_str()), "{made:#}");
    // The load balancer of its annotation has a list of its own: the old pods were left alone for as long.
    let switched = progress.apps.values().find_map(|app| app.switched_at).unwrap();
    let settled = after(switched, config(bench.watched.clone(), bench.dir.path()).balancer_settle);
    assert!(progress.since >= settled, "{switched} {}", progress.since);
}

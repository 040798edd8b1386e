//! Apps without manifests, and plain Deployments that ran before.

use std::collections::BTreeSet;

use switchover::domain::rollout::Ended;

use super::{Bench, Wanted, answers, back_to, desired, tied, told};
use crate::{cluster::rig::Cluster, rollout::stage::Users};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_release_and_a_rollback_under_requests_lose_none() {
    let Some(bench) = Bench::new("a_release_and_a_rollback_under_requests_lose_none").await else { return };
    let cluster = bench.ns.cluster;
    let (one, two) =
        (cluster.push_app("first/web", "one", super::POLITE), cluster.push_app("first/web", "two", super::POLITE));
    let (first, second) = (desired("one", vec![Wanted::web(&one)]), desired("two", vec![Wanted::web(&two)]));
    let (end, progress) = bench.release(&first).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let address = bench.address("web");
    answers(address, "one");
    let users = Users::ask(address);
    let (end, progress) = bench.release(&second).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    answers(address, "two");
    println!("{:?}", progress.prober);
    assert!(progress.prober.sent > 50, "{:?}", progress.prober);
    let (end, progress) = bench.release(&back_to(&first)).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    answers(address, "one");
    let (sent, lost) = users.leave().await;
    println!("{sent} sent");
    assert!(sent > 100 && lost.is_empty(), "{} of {sent}: {lost:#?}", lost.len());
    let live = bench.live().await;
    let web = live.apps.values().next().unwrap();
    assert_eq!(web.slots.len(), 1, "the bad slot is left: {web:?}");
}

const PLAIN: &str = "
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
metadata: {name: shop}
spec:
  selector: {app: shop}
  ports: [{port: 8080, targetPort: 8080}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: shop}
spec:
  maxUnavailable: 1
  selector: {matchLabels: {app: shop}}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_plain_deployment_becomes_the_first_slot() {
    let Some(bench) = Bench::new("a_plain_deployment_becomes_the_first_slot").await else { return };
    let cluster: &Cluster = bench.ns.cluster;
    let (one, two) =
        (cluster.push_app("plain/web", "one", super::POLITE), cluster.push_app("plain/web", "two", super::POLITE));
    bench.ns.apply(&PLAIN.replace("IMAGE", &one.exact()));
    bench.ns.rolled_out("shop");
    answers(bench.address("shop"), "one");
    let users = Users::ask(bench.address("shop"));
    let text = PLAIN.replace("IMAGE", &format!("{}:latest", two.repository));
    let wanted = Wanted { manifests: Some(tied(&text, &two)), ..Wanted::web(&two) };
    let (end, progress) = bench.release(&desired("two", vec![wanted])).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let address = bench.address("shop");
    answers(address, "two");
    let (sent, lost) = users.leave().await;
    assert!(sent > 100 && lost.is_empty(), "{} of {sent}: {lost:#?}", lost.len());
    assert_eq!(bench.ns.field("deployment/shop", ".spec.replicas"), "0");
    assert_eq!(bench.ns.field("service/shop", r".metadata.annotations.switchover\.dev/taken-over"), "");
    // A pod under two budgets could not be evicted, and a node not be drained.
    let lines =
        r#"jsonpath={range .items[*]}{.metadata.name} {.spec.selector.matchLabels.switchover\.dev/slot}{"\n"}{end}"#;
    let budgets = bench.ns.kubectl(&["get", "pdb", "-o", lines]);
    let slots: BTreeSet<&str> = budgets.lines().filter_map(|b| b.split_once(' ')).map(|(_, slot)| slot).collect();
    assert_eq!((budgets.lines().count(), slots.len()), (2, 2), "{budgets}");
    assert!(slots.iter().all(|slot| !slot.is_empty()), "{budgets}");
}

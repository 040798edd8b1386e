//! What stands beside a slot: there before the pods that wait for it, and as it was when the release does not come to serve.

use serde_json::{Value, json};
use switchover::domain::{config::AppKind, rollout::Ended};

use super::{Bench, POLITE, Wanted, desired, made_up, told};

fn account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
}

fn notes(text: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "notes"}, "data": {"text": text}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_is_there_before_the_pods_and_as_it_was_after_a_failure() {
    let Some(bench) = Bench::new("it_is_there_before_the_pods_and_as_it_was_after_a_failure").await else { return };
    let image = bench.ns.cluster.push_app("beside/web", "one", POLITE);
    let with = |shared: Vec<Value>| {
        let mut manifests = made_up("web", AppKind::Web);
        let switchover::domain::rollout::Shape::One { workload } = &mut manifests.shape else { panic!("a pair") };
        workload["spec"]["template"]["spec"]["serviceAccountName"] = json!("shop");
        manifests.shared = shared;
        manifests
    };
    // No pod is made for an account that is not there.
    let one = Wanted { manifests: Some(with(vec![account("shop"), notes("one")])), ..Wanted::web(&image) };
    let (end, progress) = bench.release(&desired("one", vec![one])).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    assert_eq!(bench.ns.field("configmap/notes", ".data.text"), "one");

    // The next changes one object, adds another, and then has one that the API server refuses right before the flip.
    let wrong = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "sideways"},
        "spec": {"podSelector": {}, "policyTypes": ["Sideways"]},
    });
    let shared = vec![account("shop"), notes("two"), account("extra"), wrong];
    let two = Wanted { manifests: Some(with(shared)), env: &[("TWO", "2")], ..Wanted::web(&image) };
    let (end, progress) = bench.release(&desired("two", vec![two])).await;
    assert_eq!(end.outcome, Ended::Failed, "{} {}", end.words, told(&progress));
    assert!(end.words.contains("Sideways"), "{}", end.words);
    assert_eq!(bench.ns.field("configmap/notes", ".data.text"), "one");
    assert_eq!(bench.names("serviceaccounts"), ["default", "shop"]);
    assert_eq!(bench.names("deployments").len(), 1);
}

//! Releases that go wrong: said plainly, and what is live is not touched.

use std::time::Duration;

use serde_json::{Value, json};
use switchover::domain::{
    config::AppKind,
    ids::Digest,
    rollout::{AppManifests, Desired, Ended, Shape},
};

use super::{Bench, POLITE, Wanted, answers, desired, made_up, told};
use crate::{
    agent::get,
    rollout::stage::{Users, pre_deploy, smoke},
};

fn container(desired: &mut Desired) -> &mut Value {
    let manifests: &mut AppManifests = desired.apps[0].spec.manifests.as_deref_mut().unwrap();
    let Shape::One { workload } = &mut manifests.shape else { panic!("no single Deployment") };
    workload.pointer_mut("/spec/template/spec/containers/0").unwrap()
}

fn quota(hard: &str) -> String {
    format!("apiVersion: v1\nkind: ResourceQuota\nmetadata: {{name: tight}}\nspec: {{hard: {{{hard}}}}}\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_goes_wrong_before_the_switch_touches_nothing() {
    let Some(bench) = Bench::new("what_goes_wrong_before_the_switch_touches_nothing").await else { return };
    let cluster = bench.ns.cluster;
    let one = cluster.push_app("hostile/web", "one", POLITE);
    let first = desired("one", vec![Wanted::web(&one)]);
    let (end, progress) = bench.release(&first).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let address = bench.address("web");
    let kinds = ["deployments", "secrets", "configmaps", "pdb", "hpa"];
    let there = kinds.map(|kind| bench.names(kind));
    let selector = bench.ns.field("service/web", ".spec.selector");
    answers(address, "one");
    let users = Users::ask(address);
    // Name, what its image does, what is written, the namespace's quota, words.
    type Case = (
        &'static str,
        &'static [(&'static str, &'static str)],
        fn(&mut Desired),
        &'static str,
        &'static [&'static str],
    );
    let cases: [Case; 14] = [
        (
            "unready",
            &[],
            |d| container(d)["readinessProbe"]["httpGet"]["path"] = json!("/status/503"),
            "",
            &["its readiness probe (GET :http/status/503) fails: it answers 503"],
        ),
        ("exits", &[("EXIT_AT_START", "3")], |_| {}, "", &["exit code 3", "started again", "no database"]),
        (
            "memory",
            &[("EAT", "64")],
            |d| container(d)["resources"] = json!({"limits": {"memory": "20Mi"}}),
            "",
            &["it ran out of memory: it may use 20Mi"],
        ),
        (
            "gone",
            &[],
            |d| d.apps[0].digest = Digest::of(b"nobody pushed that"),
            "",
            &["the registry has no such image"],
        ),
        (
            "elsewhere",
            &[],
            |d| d.apps[0].spec.image = Some("127.0.0.1:1/hostile/web".into()),
            "",
            &["the node does not reach the registry"],
        ),
        (
            "no room",
            &[],
            |d| container(d)["resources"] = json!({"requests": {"cpu": "900"}}),
            "",
            &["no node has room for it, which asks for 900 CPU", "Insufficient cpu"],
        ),
        (
            "quota",
            &[],
            |d| container(d)["resources"] = json!({"requests": {"ephemeral-storage": "2Gi"}}),
            "requests.ephemeral-storage: 1Gi",
            &["the namespace's quota does not allow another pod", "requested: requests.ephemeral-storage=2Gi"],
        ),
        (
            "cpu",
            &[],
            |d| container(d)["resources"] = json!({"requests": {"cpu": "2"}}),
            "requests.cpu: 1",
            &[
                "no room for two slots side by side: the quota tight allows 1 requests.cpu and has 0 in use, too little for 1",
            ],
        ),
        ("pods", &[], |_| {}, "pods: 2", &["no room for two slots side by side: the quota tight allows 2 pods"]),
        (
            "pre_deploy",
            &[],
            |d| d.apps[0].spec.pre_deploy = pre_deploy("echo no such table; echo $TOKEN; exit 5", true),
            "",
            &["pre_deploy failed", "exit code 5"],
        ),
        (
            "hangs",
            &[],
            |d| {
                d.apps[0].spec.pre_deploy = pre_deploy("trap 'exit 1' TERM; sleep 600 & wait", true);
                d.apps[0].spec.pre_deploy.as_mut().unwrap().command.timeout = Duration::from_secs(4);
            },
            "",
            &["pre_deploy failed", "killed at its time limit of 4 s"],
        ),
        ("smoke", &[], |d| d.apps[0].spec.smoke = smoke("exit 4"), "", &["smoke test failed", "exit code 4"]),
        ("secret", &[], |d| d.apps[0].spec.secrets.push("MISSING".into()), "", &["secret MISSING is not granted"]),
        (
            "refused",
            &[],
            |d| container(d)["ports"] = json!([{"containerPort": 99_999}]),
            "",
            &["the cluster refuses its Deployment", "containerPort"],
        ),
    ];
    for (name, env, spoil, hard, words) in cases {
        if !hard.is_empty() {
            bench.ns.apply(&quota(hard));
            bench.ns.kubectl(&["wait", "--for=jsonpath={.status.used}", "resourcequota/tight", "--timeout=120s"]);
        }
        let env: Vec<_> = POLITE.iter().chain(env).copied().collect();
        let image = cluster.push_app("hostile/web", &name.replace(' ', "-"), &env);
        let manifests = Some(made_up("web", AppKind::Web));
        let mut d = desired(name, vec![Wanted { manifests, ..Wanted::web(&image) }]);
        d.apps[0].spec.replicas = 1;
        spoil(&mut d);
        let (end, progress) = bench.release_in_vain(&d, words).await;
        println!("{name}: {}", end.words);
        assert_eq!(end.outcome, Ended::Failed, "{name}: {}", end.words);
        for word in words {
            assert!(end.words.contains(word), "{name}: {}", end.words);
        }
        assert!(name != "unready" || end.words.starts_with("Not ready within"), "{}", end.words);
        assert!(!serde_json::to_string(&progress).unwrap().contains("hunter2"), "{name}: a secret is told");
        assert_eq!(bench.ns.field("service/web", ".spec.selector"), selector, "{name}");
        for (kind, before) in kinds.iter().zip(&there) {
            assert_eq!(&bench.names(kind), before, "{name}: {kind} were left behind");
        }
        if !hard.is_empty() {
            bench.ns.kubectl(&["delete", "resourcequota", "tight"]);
        }
    }
    assert_eq!(get(address, "/").await, (200, "one".into()));
    let (sent, lost) = users.leave().await;
    println!("users: {} lost of {sent}", lost.len());
    assert!(sent > 100 && lost.is_empty(), "{} of {sent}: {lost:#?}", lost.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_release_that_dies_in_the_watch_is_taken_back() {
    let Some(bench) = Bench::new("a_release_that_dies_in_the_watch_is_taken_back").await else { return };
    let cluster = bench.ns.cluster;
    let one = cluster.push_app("dying/web", "one", POLITE);
    let (end, progress) = bench.release(&desired("one", vec![Wanted::web(&one)])).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let address = bench.address("web");
    for (name, env) in [("dies", ("EXIT_AFTER", "15000")), ("bad", ("BAD", "1"))] {
        let image = cluster.push_app("dying/web", name, &[POLITE[0], env]);
        let mut d = desired(name, vec![Wanted::web(&image)]);
        d.watch_for = Duration::from_secs(60);
        d.drain_timeout = Duration::from_secs(1);
        let (end, progress) = bench.release(&d).await;
        println!("{name}: {}", end.words);
        assert_eq!((end.outcome, end.hold), (Ended::RolledBack, false), "{name}: {} {}", end.words, told(&progress));
        answers(address, "one");
        assert_eq!(bench.names("deployments").len(), 1, "{name}");
    }
}

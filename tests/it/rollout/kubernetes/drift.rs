//! Somebody's hand in what is ours, and objects that are another's.

use std::time::Duration;

use switchover::{
    clock,
    domain::{
        ids::RolloutId,
        rollout::{Desired, Ended, Phase, Progress},
    },
    rollout::{DriveEnd, drive},
};
use tokio_util::sync::CancellationToken;

use super::{Bench, POLITE, Wanted, answers, desired, told};
use crate::rollout::stage::DEADLINE;

fn again(d: &Desired) -> Desired {
    Desired { rollout: RolloutId::generate(), ..d.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hand_on_the_selector_in_the_watch() {
    let Some(bench) = Bench::new("a_hand_on_the_selector_in_the_watch").await else { return };
    let cluster = bench.ns.cluster;
    let slim = |name: &str| {
        let image = cluster.push_app("drift/web", name, POLITE);
        let mut d = desired(name, vec![Wanted::web(&image)]);
        d.apps[0].spec.replicas = 1;
        d.drain_timeout = Duration::from_millis(500);
        d
    };
    let one = slim("one");
    let (end, progress) = bench.release(&one).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let patch = |kind: &str, text: &str| {
        bench.ns.kubectl(&["patch", "service", "web", &format!("--type={kind}"), "-p", text]);
    };
    let slot = "/spec/selector/switchover.dev~1slot";
    let set = |to: &str| format!(r#"[{{"op": "replace", "path": "{slot}", "value": "{to}"}}]"#);
    let old = one.apps[0].slot.to_string();
    let cases = [
        ("deleted", r#"[{"op": "remove", "path": "/spec/selector"}]"#.to_owned(), "has no selector any more"),
        ("widened", format!(r#"[{{"op": "remove", "path": "{slot}"}}]"#), "all slots would answer"),
        ("garbage", set("nonsense"), "served by slot nonsense"),
        ("no name", set("No_Name"), "No_Name"),
        ("the old one", set(&old), "somebody else moved it"),
    ];
    for (name, hand, words) in cases {
        // The same base each time: what was live before.
        let mut d = again(&slim(&name.replace(' ', "-")));
        d.watch_for = Duration::from_secs(60);
        let before = bench.ns.field("service/web", ".spec.selector");
        let journal = bench.journal(&d);
        let target = bench.target();
        let driven = drive(&d, Progress::new(&d, clock::now()), &target, &journal, CancellationToken::new());
        let hand = async {
            journal.reaches(Phase::Watch).await;
            patch("json", &hand);
        };
        let (end, ()) = tokio::join!(tokio::time::timeout(DEADLINE, driven), hand);
        let DriveEnd::Ended(end, progress) = end.expect("no end").unwrap() else { panic!("handed back") };
        println!("{name}: {:?} {}", end.outcome, end.words);
        assert_eq!((end.outcome, end.hold), (Ended::Stuck, true), "{name}: {} {}", end.words, told(&progress));
        assert!(end.words.contains(words), "{name}: {}", end.words);
        // Nobody touches it before a person said so: a release on top fails or is stuck, and says the same.
        if name != "the old one" {
            let (end, _) = bench.release(&again(&one)).await;
            println!("  a release on top: {:?} {}", end.outcome, end.words);
            assert!(matches!(end.outcome, Ended::Stuck | Ended::Failed), "{name}: {:?} {}", end.outcome, end.words);
        }
        // Mended by hand, as the words say.
        patch("merge", &format!(r#"{{"spec": {{"selector": {before}}}}}"#));
        answers(bench.address("web"), "one");
        bench.ns.kubectl(&["delete", "deployment", "-l", &format!("switchover.dev/slot={}", d.apps[0].slot)]);
    }
    let (end, progress) = bench.release(&slim("after")).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_others_manage_is_refused() {
    let Some(bench) = Bench::new("what_others_manage_is_refused").await else { return };
    let cluster = bench.ns.cluster;
    let image = cluster.push_app("others/web", "one", POLITE);
    let mut d = desired("one", vec![Wanted::web(&image)]);
    d.apps[0].spec.replicas = 1;
    let (end, progress) = bench.release(&d).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let two = cluster.push_app("others/web", "two", POLITE);
    let two = desired("two", vec![Wanted::web(&two)]);
    let kept = bench.ns.field("service/web", r".metadata.annotations.switchover\.dev/environment-of");
    let cases = [
        (
            "annotate",
            "argocd.argoproj.io/tracking-id",
            "shop:apps/Deployment:shop/web",
            "managed by Argo CD (application",
        ),
        ("label", "kustomize.toolkit.fluxcd.io/name", "shop", "managed by Flux (Kustomization"),
        ("annotate", "meta.helm.sh/release-name", "shop", "belongs to the Helm release"),
        ("annotate", "switchover.dev/environment-of", "7/staging", "two environments can't share a Service"),
    ];
    for (verb, key, value, words) in cases {
        bench.ns.kubectl(&[verb, "service", "web", &format!("{key}={value}"), "--overwrite"]);
        let selector = bench.ns.field("service/web", ".spec.selector");
        let (end, progress) = bench.release(&again(&two)).await;
        println!("{key}: {:?} {}", end.outcome, end.words);
        assert_eq!(end.outcome, Ended::Failed, "{key}: {} {}", end.words, told(&progress));
        assert!(end.words.contains(words), "{key}: {}", end.words);
        assert_eq!(bench.ns.field("service/web", ".spec.selector"), selector, "{key}");
        assert_eq!(bench.names("deployments").len(), 1, "{key}");
        match key {
            "switchover.dev/environment-of" => {
                bench.ns.kubectl(&["annotate", "service", "web", &format!("{key}={kept}"), "--overwrite"]);
            }
            _ => drop(bench.ns.kubectl(&[verb, "service", "web", &format!("{key}-")])),
        }
    }
    let (end, progress) = bench.release(&again(&two)).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
}

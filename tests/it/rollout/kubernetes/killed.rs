//! The driver in a process of its own, killed at every recorded boundary of a release, of a rollback and of the way back,
//! and between the effects of one action, one after the other, while users ask and never get an error.

use std::{path::PathBuf, time::Duration};

use switchover::{
    domain::{
        config::AppKind,
        rollout::{Desired, Ended},
    },
    rollout::kubernetes::KubernetesTarget,
};

use super::{Bench, POLITE, Wanted, answers, back_to, config, desired, told, watch};
use crate::{
    cluster::rig::Image,
    rollout::{
        killed::{around, dies, enters, go_on, ordered},
        stage::{Users, pre_deploy, smoke},
    },
};

/// Not a test: the process that is killed. Told by its environment what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the tests here"]
async fn the_process_that_is_killed() {
    let Some((orders, desired, journal)) = ordered() else { return };
    let path = |name: &str| PathBuf::from(orders[name].as_str().unwrap());
    let watched = watch(&path("kubeconfig"), orders["namespace"].as_str().unwrap()).await;
    let target = KubernetesTarget::new(config(watched, &path("dir")));
    go_on(&desired, &target, &journal).await;
}

/// Runs the rollout in a process that dies there. False: it came to its end without passing there.
async fn dies_at(bench: &Bench, desired: &Desired, crash: &str) -> bool {
    let orders = serde_json::json!({
        "crash": crash,
        "desired": desired,
        "journal": bench.journal_file(desired),
        "epoch": bench.next_epoch(),
        "kubeconfig": bench.ns.cluster.kubeconfig(),
        "namespace": bench.ns.name,
        "dir": bench.dir.path(),
    });
    dies("rollout::kubernetes::killed::the_process_that_is_killed", &orders).await
}

/// All moments of an action, those between its effects in their places.
fn within(action: &str, inner: &[&str]) -> Vec<String> {
    let mut all = around(&[action]);
    all.splice(2..2, inner.iter().map(|p| (*p).to_owned()));
    all
}

fn version(images: &[Image; 2], name: &str) -> Desired {
    let mailer = Wanted { name: "mailer", kind: AppKind::Worker, ..Wanted::web(&images[1]) };
    let mut d = desired(name, vec![Wanted::web(&images[0]), mailer]);
    d.drain_timeout = Duration::from_secs(1);
    d
}

/// What must hold after each end: one worker, one web slot that serves, and as many that wait.
fn as_it_should_be(bench: &Bench, slots: usize) {
    let up = |app: &str| {
        let label = format!("switchover.dev/app={app},switchover.dev/kind=slot");
        let path = "jsonpath={range .items[?(@.spec.replicas>0)]}{.metadata.name} {end}";
        let all = bench.ns.kubectl(&["get", "deployments", "-l", &label, "-o", path]);
        all.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(up("web").len(), slots, "{:?}", up("web"));
    assert_eq!(up("mailer").len(), 1, "{:?}", up("mailer"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn at_every_step_there_and_back() {
    let Some(bench) = Bench::new("at_every_step_there_and_back").await else { return };
    let cluster = bench.ns.cluster;
    let push = |v: &str, more: &[(&str, &str)]| {
        let env: Vec<_> = POLITE.iter().chain(more).copied().collect();
        [cluster.push_app("killed/web", v, &env), cluster.push_app("killed/mailer", v, more)]
    };
    let one = version(&push("one", &[]), "one");
    let (end, progress) = bench.release(&one).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let address = bench.address("web");

    answers(address, "one");
    // A good release.
    let mut two = version(&push("two", &[]), "two");
    two.apps[0].spec.pre_deploy = pre_deploy("echo once", true);
    two.apps[0].spec.smoke = smoke("test -n \"$URL\"");
    let users = Users::ask(address);
    let points = [
        around(&["preflight", "claim"]),
        within("pre_deploy", &["kubernetes.command.after_create"]),
        enters("warm"),
        within("put_slot", &["kubernetes.slot.before_deployment", "kubernetes.slot.before_preview"]),
        enters("verify"),
        around(&["smoke"]),
        enters("switch"),
        within("switch", &["kubernetes.switch.after_shared", "kubernetes.switch.after_flip"]),
        vec!["kubernetes.worker.after_stop".into(), "kubernetes.worker.after_start".into()],
        enters("converge"),
        // Two copies: the one that is recycled when the process dies after it is not recycled again.
        around(&["recycle"]),
        enters("watch"),
        enters("done"),
        enters("end").into_iter().map(|p| p.replace("phase.", "")).collect(),
    ];
    let begun = std::time::Instant::now();
    let mut kills = 0;
    for point in points.into_iter().flatten() {
        assert!(dies_at(&bench, &two, &point).await, "{point} was not passed");
        kills += 1;
    }
    let (end, progress) = bench.go_on(&two, &bench.journal(&two)).await.unwrap();
    assert_eq!(end.outcome, Ended::Live, "{progress:#?}");
    answers(address, "two");
    as_it_should_be(&bench, 2);
    let commands: Vec<_> = bench.names("pods").into_iter().filter(|p| p.contains("-pre-")).collect();
    assert_eq!((bench.names("jobs").len(), commands.len()), (1, 1), "pre_deploy ran more than once: {commands:?}");
    println!("release: killed {kills} times in {:?}; {}", begun.elapsed(), progress.prober.words());

    // Back again.
    let back = back_to(&one);
    let points = [
        around(&["preflight", "claim"]),
        enters("switch"),
        within("switch", &["kubernetes.switch.after_flip"]),
        vec!["kubernetes.worker.after_stop".into(), "kubernetes.worker.after_start".into()],
        enters("converge"),
        around(&["follow"])[..3].to_vec(),
        within("remove_slot", &["kubernetes.slot.after_clear"])[..4].to_vec(),
        enters("done"),
        enters("end").into_iter().map(|p| p.replace("phase.", "")).collect(),
    ];
    let (begun, mut kills) = (std::time::Instant::now(), 0);
    for point in points.into_iter().flatten() {
        assert!(dies_at(&bench, &back, &point).await, "{point} was not passed");
        kills += 1;
    }
    let (end, progress) = bench.go_on(&back, &bench.journal(&back)).await.unwrap();
    assert_eq!(end.outcome, Ended::Live, "{progress:#?}");
    answers(address, "one");
    as_it_should_be(&bench, 1);
    println!("rollback: killed {kills} times in {:?}", begun.elapsed());
    let (sent, lost) = users.leave().await;
    println!("users: {} lost of {sent}", lost.len());
    assert!(lost.is_empty() && sent > 100, "{} of {sent}: {lost:#?}", lost.len());

    // A bad one, which the watch takes back.
    let mut bad = version(&push("bad", &[("BAD", "1")]), "bad");
    bad.watch_for = Duration::from_secs(600);
    let points = [
        enters("rolling_back"),
        within("switch_back", &[]),
        within("remove_slot", &["kubernetes.slot.after_clear"])[..4].to_vec(),
        enters("rolled_back"),
    ];
    let (begun, mut kills) = (std::time::Instant::now(), 0);
    for point in points.into_iter().flatten() {
        assert!(dies_at(&bench, &bad, &point).await, "{point} was not passed");
        kills += 1;
    }
    let (end, progress) = bench.go_on(&bad, &bench.journal(&bad)).await.unwrap();
    assert_eq!((end.outcome, end.hold), (Ended::RolledBack, false), "{progress:#?}");
    answers(address, "one");
    as_it_should_be(&bench, 1);
    println!("taken back: killed {kills} times in {:?}", begun.elapsed());
}

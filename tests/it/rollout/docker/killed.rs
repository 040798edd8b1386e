//! The driver in a process of its own, killed at every recorded boundary of one release, one after the other, while
//! users ask and never get an error.

use std::{path::PathBuf, sync::atomic::Ordering};

use switchover::{
    agent::Client,
    domain::rollout::{Desired, Ended},
    rollout::docker::DockerTarget,
};

use super::{Dock, Version, docker_at, releases::counted};
use crate::{
    agent::get,
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
    let word = |name: &str| orders[name].as_str().unwrap();
    let docker = docker_at(word("engine"), word("owner")).await;
    let root = PathBuf::from(word("root"));
    let target = DockerTarget::new(Dock::config(Client::new(PathBuf::from(word("socket"))), docker, &root));
    go_on(&desired, &target, &journal).await;
}

/// Runs the rollout in a process that dies there. False: it came to its end without passing there.
async fn dies_at(dock: &Dock, desired: &Desired, crash: &str) -> bool {
    let orders = serde_json::json!({
        "crash": crash,
        "desired": desired,
        "journal": dock.root().join(format!("{}.json", desired.rollout)),
        "epoch": dock.next_epoch(),
        "socket": switchover::agent::socket_path(&dock.root().join("data")),
        "root": dock.root(),
        "engine": dock.rig.host,
        "owner": dock.owner,
    });
    dies("rollout::docker::killed::the_process_that_is_killed", &orders).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn at_every_step_of_a_good_release() {
    let dock = Dock::new().await;
    dock.release(&dock.desired(&Version::new("one"))).await;
    let address = dock.address().await;
    let mut two = dock.desired(&Version::new("two"));
    let (tell, count) = counted().await;
    two.apps[0].spec.pre_deploy = pre_deploy(&tell, true);
    two.apps[0].spec.smoke = smoke("test -n \"$URL\"");
    let users = Users::ask(address);
    let points = [
        around(&["preflight", "claim", "pre_deploy"]),
        vec!["docker.pre_deploy.after_create".into()],
        enters("warm"),
        around(&["put_slot"]),
        enters("verify"),
        around(&["smoke"]),
        enters("switch"),
        around(&["switch"]),
        enters("converge"),
        enters("watch"),
        enters("done"),
        enters("end").into_iter().map(|p| p.replace("phase.", "")).collect(),
    ];
    let mut kills = 0;
    for point in points.into_iter().flatten() {
        // Between two effects of one action: only the first worker comes there.
        if point.starts_with("docker.") {
            continue;
        }
        assert!(dies_at(&dock, &two, &point).await, "{point} was not passed");
        kills += 1;
    }
    let (end, progress) = dock.go_on(&two, &dock.journal(&two)).await.unwrap();
    assert_eq!(end.outcome, Ended::Live, "{progress:#?}");
    assert_eq!(get(address, "/").await, (200, "two".into()));
    assert_eq!(count.load(Ordering::SeqCst), 1, "pre_deploy ran more than once");
    let containers = dock.containers(&["-a"]);
    assert_eq!(containers.len(), 6, "{containers:?}");
    assert_eq!(dock.containers(&["--filter", "label=dev.switchover.app=mailer"]).len(), 1);
    let (sent, lost) = users.leave().await;
    println!("killed {kills} times; users: {} lost of {sent}; {}", lost.len(), progress.prober.words());
    assert!(lost.is_empty() && sent > 100, "{} of {sent}: {lost:#?}", lost.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn between_the_effects_of_one_action() {
    let dock = Dock::new().await;
    dock.release(&dock.desired(&Version::new("one"))).await;
    let mut two = dock.desired(&Version::new("two"));
    let (tell, count) = counted().await;
    two.apps[0].spec.pre_deploy = pre_deploy(&tell, true);
    let points = [
        "docker.pre_deploy.after_create",
        "docker.pre_deploy.after_start",
        "docker.copy.after_create",
        "docker.copy.after_start",
        // Of the second copy.
        "docker.copy.after_create:1",
        "docker.slot.before_route",
        "docker.worker.after_stop",
    ];
    for point in points {
        assert!(dies_at(&dock, &two, point).await, "{point} was not passed");
    }
    let (end, progress) = dock.go_on(&two, &dock.journal(&two)).await.unwrap();
    assert_eq!(end.outcome, Ended::Live, "{progress:#?}");
    assert_eq!(get(dock.address().await, "/").await, (200, "two".into()));
    assert_eq!(count.load(Ordering::SeqCst), 1, "pre_deploy ran more than once");
    assert_eq!(dock.containers(&["-a"]).len(), 6);
    // Halfway through a removal.
    let mut bad = dock.desired(&Version { env: &[("BAD", "1")], ..Version::new("bad") });
    bad.watch_for = std::time::Duration::from_secs(600);
    for point in ["docker.slot.after_forget", "docker.slot.after_remove"] {
        assert!(dies_at(&dock, &bad, point).await, "{point} was not passed");
    }
    let (end, progress) = dock.go_on(&bad, &dock.journal(&bad)).await.unwrap();
    assert_eq!(end.outcome, Ended::RolledBack, "{progress:#?}");
    assert_eq!(dock.containers(&["-a"]).len(), 6);
    assert_eq!(get(dock.address().await, "/").await, (200, "two".into()));
}

//! The driver in a process of its own, killed at every recorded boundary of one release, one after the other, while
//! users ask and never get an error.

use std::{path::PathBuf, process::Stdio, sync::atomic::Ordering};

use switchover::{
    agent::Client,
    domain::rollout::{Desired, Ended, Progress},
    failpoint,
    rollout::{docker::DockerTarget, drive},
};
use tokio_util::sync::CancellationToken;

use super::{Dock, Version, docker_at, releases::counted};
use crate::{
    agent::get,
    rollout::{
        killed::{around, enters},
        stage::{DEADLINE, FileJournal, Users, pre_deploy, smoke},
    },
};

/// Not a test: the process that is killed. Told by its environment what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the tests here"]
async fn the_process_that_is_killed() {
    let Ok(orders) = std::env::var("ROLLOUT_ORDERS") else { return };
    let orders: serde_json::Value = serde_json::from_str(&orders).unwrap();
    failpoint::arm(orders["crash"].as_str());
    let desired: Desired = serde_json::from_value(orders["desired"].clone()).unwrap();
    let word = |name: &str| orders[name].as_str().unwrap();
    let journal = FileJournal::new(PathBuf::from(word("journal")), orders["epoch"].as_i64().unwrap());
    let docker = docker_at(word("engine"), word("owner")).await;
    let root = PathBuf::from(word("root"));
    let target = DockerTarget::new(Dock::config(Client::new(PathBuf::from(word("socket"))), docker, &root));
    let progress = journal.progress().unwrap_or_else(|| Progress::new(&desired, switchover::clock::now()));
    drive(&desired, progress, &target, &journal, CancellationToken::new()).await.unwrap();
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
    let child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "rollout::docker::killed::the_process_that_is_killed"])
        .env("ROLLOUT_ORDERS", orders.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let out = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.expect("it hangs").unwrap();
    use std::os::unix::process::ExitStatusExt as _;
    let killed = out.status.signal() == Some(9);
    assert!(killed || out.status.success(), "{crash}: {}", String::from_utf8_lossy(&out.stdout));
    killed
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

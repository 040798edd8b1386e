//! The driver in a process of its own, killed at every recorded boundary of one rollout, one after the other, while
//! users ask and never get an error.

use std::{path::PathBuf, process::Stdio};

use switchover::{
    agent::Client,
    domain::rollout::{Desired, Ended, Progress},
    failpoint,
    rollout::{Target, drive, local::LocalTarget},
};
use tokio_util::sync::CancellationToken;

use super::stage::{DEADLINE, FileJournal, Stage, Users, Version, pre_deploy, smoke};
use crate::agent::get;

/// Not a test: the process that is killed. Told by its environment what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the tests here"]
async fn the_process_that_is_killed() {
    let Some((orders, desired, journal)) = ordered() else { return };
    let path = |name: &str| PathBuf::from(orders[name].as_str().unwrap());
    let target = LocalTarget::new(Stage::config(Client::new(path("socket")), &path("root")));
    go_on(&desired, &target, &journal).await;
}

/// Runs the rollout in a process that dies there. False: it came to its end without passing there.
async fn dies_at(stage: &Stage, desired: &Desired, crash: &str) -> bool {
    let orders = serde_json::json!({
        "crash": crash,
        "desired": desired,
        "journal": stage.root().join(format!("{}.json", desired.rollout)),
        "epoch": stage.next_epoch(),
        "socket": switchover::agent::socket_path(&stage.root().join("data")),
        "root": stage.root(),
    });
    dies("rollout::killed::the_process_that_is_killed", &orders).await
}

/// Starts that test as a process of its own with these orders. False: it came to its end without being killed.
pub async fn dies(test: &str, orders: &serde_json::Value) -> bool {
    let child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", test])
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
    assert!(killed || out.status.success(), "{}: {}", orders["crash"], String::from_utf8_lossy(&out.stdout));
    killed
}

/// What the process that is killed was told, with its failpoint armed. None: it was started as a test.
pub fn ordered() -> Option<(serde_json::Value, Desired, FileJournal)> {
    let orders: serde_json::Value = serde_json::from_str(&std::env::var("ROLLOUT_ORDERS").ok()?).unwrap();
    failpoint::arm(orders["crash"].as_str());
    let desired = serde_json::from_value(orders["desired"].clone()).unwrap();
    let journal = PathBuf::from(orders["journal"].as_str().unwrap());
    let journal = FileJournal::new(journal, orders["epoch"].as_i64().unwrap());
    Some((orders, desired, journal))
}

/// Goes on from what the journal has.
pub async fn go_on(desired: &Desired, target: &dyn Target, journal: &FileJournal) {
    let progress = journal.progress().unwrap_or_else(|| Progress::new(desired, switchover::clock::now()));
    drive(desired, progress, target, journal, CancellationToken::new()).await.unwrap();
}

pub fn around(actions: &[&str]) -> Vec<String> {
    let moments = ["before_intent", "after_intent", "after_effect", "after_record"];
    actions.iter().flat_map(|a| moments.map(|m| format!("rollout.{a}.{m}"))).collect()
}

pub fn enters(phase: &str) -> Vec<String> {
    ["before_record", "after_record"].map(|m| format!("rollout.phase.{phase}.{m}")).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn at_every_step_of_a_good_release() {
    let stage = Stage::new().await;
    stage.release(&stage.desired(&Version::new("one"))).await;
    let address = stage.address().await;
    let mut two = stage.desired(&Version::new("two"));
    let migrated = stage.root().join("migrated");
    two.apps[0].spec.pre_deploy = pre_deploy(&format!("echo once >> {}", migrated.display()), true);
    two.apps[0].spec.smoke = smoke("test -n \"$URL\"");
    let users = Users::ask(address);
    let points = [
        around(&["preflight", "claim", "pre_deploy"]),
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
        assert!(dies_at(&stage, &two, &point).await, "{point} was not passed");
        kills += 1;
    }
    let (end, progress) = stage.go_on(&two, &stage.journal(&two)).await.unwrap();
    assert_eq!(end.outcome, Ended::Live, "{progress:#?}");
    assert_eq!(get(address, "/").await, (200, "two".into()));
    let ran = std::fs::read_to_string(&migrated).unwrap().lines().count();
    assert_eq!(ran, 1, "pre_deploy ran {ran} times");
    for name in ["web", "mailer"] {
        let status = stage.status(name).await;
        assert_eq!(status.slots.len(), 2, "{name}");
        let alive = status.slots.values().flat_map(|s| &s.instances).filter(|i| i.pid.is_some()).count();
        assert_eq!(alive, if name == "web" { 4 } else { 1 }, "{name}");
    }
    let (sent, lost) = users.leave().await;
    println!("killed {kills} times; users: {} lost of {sent}; {}", lost.len(), progress.prober.words());
    assert!(lost.is_empty() && sent > 100, "{} of {sent}: {lost:#?}", lost.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn at_every_step_of_the_way_back() {
    let stage = Stage::new().await;
    let one = stage.desired(&Version::new("one"));
    stage.release(&one).await;
    let mut bad = stage.desired(&Version { env: &[("BAD", "1")], ..Version::new("bad") });
    bad.watch_for = std::time::Duration::from_secs(600);
    let points = [enters("rolling_back"), around(&["switch_back", "remove_slot"]), enters("rolled_back")];
    for point in points.into_iter().flatten() {
        assert!(dies_at(&stage, &bad, &point).await, "{point} was not passed");
    }
    let (end, progress) = stage.go_on(&bad, &stage.journal(&bad)).await.unwrap();
    assert_eq!(end.outcome, Ended::RolledBack, "{progress:#?}");
    assert_eq!(get(stage.address().await, "/").await, (200, "one".into()));
    for (index, name) in ["web", "mailer"].into_iter().enumerate() {
        let status = stage.status(name).await;
        assert_eq!(status.active.as_deref(), Some(one.apps[index].slot.as_str()));
        assert_eq!(status.slots.len(), 1, "{name}");
        assert!(status.slots.values().all(|s| s.instances.iter().all(|i| i.pid.is_some())), "{name}");
    }
}

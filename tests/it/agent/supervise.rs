//! Processes: started, started again, ended with all that they started.

use std::{collections::BTreeMap, fs, time::Duration};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use switchover::agent::protocol::{AgentStatus, SlotSource};

use super::{E1, Host, SERVICE, get, gone, lives, pids, slot};

fn restarted(status: &AgentStatus, name: &str, times: u32) -> bool {
    slot(status, name).instances.iter().any(|i| i.restarts >= times && i.pid.is_some())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_gets_its_environment_and_nothing_else() {
    let host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    let status = host.service().await;
    let port = status.slots["v1"].instances[0].address.unwrap().port();
    let (_, env) = get(address, "/env").await;
    let names: Vec<&str> = env.lines().filter_map(|l| l.split('=').next()).collect();
    assert_eq!(names, ["LIFELINE", "PATH", "PORT", "RELEASE"]);
    assert!(env.contains(&format!("PORT={port}\n")), "{env}");
    let log = host.dir.path().join("logs/v1/0.log");
    assert_eq!(fs::read_to_string(log).unwrap(), "release v1 begins\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_told_and_costs_only_its_own_request() {
    let host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    let running = host.until("running", |s| !pids(slot(s, "v1")).is_empty()).await;
    let before = running.slots["v1"].instances[0].clone();
    assert_eq!(get(address, "/exit").await.0, 502);
    // Sent while nothing listens: it waits for the copy's return.
    assert_eq!(get(address, "/").await, (200, "v1".to_owned()));
    let service = host.until("restarted", |s| restarted(s, "v1", 1)).await;
    let after = &service.slots["v1"].instances[0];
    assert_eq!(after.address, before.address, "the port stays");
    assert_ne!(after.pid, before.pid);
    assert_eq!((after.last_exit.as_deref(), after.restarts), (Some("exit code 3"), 1));
    assert_eq!(after.last_output, ["release v1 begins"]);
    assert!(!lives(before.pid.unwrap()));
    assert_eq!(get(address, "/abort").await.0, 502);
    let service = host.until("restarted twice", |s| restarted(s, "v1", 2)).await;
    assert_eq!(service.slots["v1"].instances[0].last_exit.as_deref(), Some("signal 6"));
    assert_eq!(service.unrouted, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_two_copies_a_crash_is_not_felt() {
    let host = Host::new().await;
    let mut spec = host.release("v1");
    spec.replicas = 2;
    let address = host.serving("v1", spec).await;
    let both = pids(&host.until("running", |s| pids(slot(s, "v1")).len() == 2).await.slots["v1"]);
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 2 {
        seen.insert(get(address, "/pid").await.1.parse::<u32>().unwrap());
    }
    assert_eq!(seen, both.iter().copied().collect());
    kill(Pid::from_raw(both[0].cast_signed()), Signal::SIGKILL).unwrap();
    gone(both[0]).await;
    for _ in 0..50 {
        assert_eq!(get(address, "/").await, (200, "v1".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_run_is_tried_with_growing_pauses_and_says_why() {
    let host = Host::new().await;
    host.client.put_service(SERVICE, Some("127.0.0.1:0".parse().unwrap()), &[]).await.unwrap();
    let mut dies = host.release("dies");
    dies.env.insert("EXIT_AT_START".into(), "7".into());
    host.put("dies", dies).await;
    let mut missing = host.release("missing");
    missing.argv = vec!["/no/such/program".into()];
    host.put("missing", missing).await;
    let mut nowhere = host.release("nowhere");
    nowhere.cwd = "/no/such/folder".into();
    host.put("nowhere", nowhere).await;
    let tried = |s: &AgentStatus, name: &str| slot(s, name).instances[0].restarts >= 2;
    let service = host.until("tried", |s| ["dies", "missing", "nowhere"].into_iter().all(|name| tried(s, name))).await;
    let exit = |name: &str| service.slots[name].instances[0].last_exit.clone().unwrap();
    assert_eq!(exit("dies"), "exit code 7");
    assert_eq!(service.slots["dies"].instances[0].last_output, ["release dies begins", "no database"]);
    assert_eq!(exit("missing"), "could not be started: /no/such/program: No such file or directory (os error 2)");
    assert_eq!(exit("nowhere"), "could not be started: no folder /no/such/folder");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_ends_with_its_whole_group() {
    let host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    host.put("v2", host.release("v2")).await;
    get(address, "/stray").await;
    let leader = host.pid("v1").await;
    let members = group(leader);
    assert_eq!(members.len(), 2, "{members:?}");
    host.client.switch(SERVICE, E1, Some("v1"), "v2").await.unwrap();
    host.client.remove_slot(SERVICE, "v1", E1).await.unwrap();
    for pid in members {
        assert!(!lives(pid), "{pid} outlived its slot");
    }
    assert!(!host.service().await.slots.contains_key("v1"));
    host.client.remove_slot(SERVICE, "v1", E1).await.unwrap();
}

/// Processes of a group.
fn group(leader: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let of = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat[stat.rfind(')')? + 2..].split(' ').nth(2)?.parse::<u32>().ok()
    };
    all.filter(|pid| of(*pid) == Some(leader)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_not_listen_to_term_is_killed_after_its_grace() {
    let host = Host::new().await;
    host.client.put_service(SERVICE, None, &[]).await.unwrap();
    let mut spec = host.release("deaf");
    let ready = host.dir.path().join("ready");
    let script = format!("trap '' TERM; : > {}; while :; do sleep 1000; done", ready.display());
    spec.argv = vec!["/bin/sh".into(), "-c".into(), script];
    spec.stop_grace_ms = 100;
    host.put("deaf", spec).await;
    let service = host.until("running", |s| !pids(slot(s, "deaf")).is_empty()).await;
    let members = {
        while !ready.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        group(pids(&service.slots["deaf"])[0])
    };
    let stopped = host.client.set_running(SERVICE, "deaf", E1, false).await.unwrap();
    assert_eq!((stopped.running, pids(&stopped)), (false, vec![]));
    for pid in members {
        gone(pid).await;
    }
    assert!(host.service().await.slots["deaf"].instances[0].last_exit.is_none(), "it did not end by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_run_without_a_port_and_are_stopped_and_started() {
    let host = Host::new().await;
    assert_eq!(host.client.put_service(SERVICE, None, &[]).await.unwrap().listen, None);
    host.put("w1", host.release("w1")).await;
    host.client.switch(SERVICE, E1, None, "w1").await.unwrap();
    let first = host.pid("w1").await;
    let instance = host.service().await.slots["w1"].instances[0].clone();
    assert_eq!((instance.address, instance.restarts), (None, 0));
    // Not routed: even the active one may be stopped.
    host.client.set_running(SERVICE, "w1", E1, false).await.unwrap();
    assert!(!lives(first));
    host.client.set_running(SERVICE, "w1", E1, true).await.unwrap();
    let again = host.pid("w1").await;
    assert_eq!(host.service().await.slots["w1"].instances[0].restarts, 0, "asked for, not crashed");
    let log = host.dir.path().join("logs/w1/0.log");
    while fs::read_to_string(&log).unwrap().matches("no PORT").count() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    host.client.remove_service(SERVICE, E1).await.unwrap();
    assert!(!lives(again));
    assert_eq!(host.client.status().await.unwrap().services, BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_rotated_while_its_writer_lives_on() {
    let host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    get(address, &format!("/noise?{}", 11 * 1024 * 1024)).await;
    let (log, old) = (host.dir.path().join("logs/v1/0.log"), host.dir.path().join("logs/v1/0.log.1"));
    let pid = host.pid("v1").await;
    while fs::metadata(&log).unwrap().len() > 1024 * 1024 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(fs::metadata(old).unwrap().len() > 10 * 1024 * 1024);
    get(address, "/noise?2048").await;
    assert_eq!(fs::metadata(&log).unwrap().len() % 1024, 0, "it goes on at the file's new end");
    assert_eq!(host.pid("v1").await, pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_port_a_stranger_took_gets_another() {
    let mut host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    let running = host.until("running", |s| !pids(slot(s, "v1")).is_empty()).await;
    let before = running.slots["v1"].instances[0].clone();
    host.kill();
    killpg(Pid::from_raw(before.pid.unwrap().cast_signed()), Signal::SIGKILL).unwrap();
    gone(before.pid.unwrap()).await;
    // A process of several threads counts as ended a moment before its last thread lets go of the port.
    let stranger = loop {
        match std::net::TcpListener::bind(before.address.unwrap()) {
            Ok(stranger) => break stranger,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    host.start().await;
    let service = host.until("running", |s| !pids(slot(s, "v1")).is_empty()).await;
    assert_ne!(service.slots["v1"].instances[0].address, before.address);
    // The stranger accepts at first sight, so ask until the app does.
    while get(address, "/").await != (200, "v1".to_owned()) {}
    drop(stranger);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_removed_while_it_starts_leaves_no_process() {
    let host = Host::new().await;
    host.client.put_service(SERVICE, None, &[]).await.unwrap();
    for i in 0..30 {
        let name = format!("s{i}");
        let mut spec = host.release(&name);
        spec.replicas = 3;
        host.client.put_slot(SERVICE, &name, E1, SlotSource::Process(spec)).await.unwrap();
        host.client.remove_slot(SERVICE, &name, E1).await.unwrap();
    }
    let logs = host.dir.path().join("logs");
    let mut left = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let out = fs::read_link(entry.path().join("fd/1")).unwrap_or_default();
        if out.starts_with(&logs) {
            left.push(entry.file_name());
        }
    }
    assert!(left.is_empty(), "{left:?}");
}

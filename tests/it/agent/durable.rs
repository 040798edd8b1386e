//! What is left after a kill, a reboot, a broken file; and how an agent is kept.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use switchover::{
    agent::{Client, ClientError, ensure_running, keep_running, socket_path},
    domain::ids::Epoch,
};
use tokio_util::sync::CancellationToken;

use super::{
    DEADLINE, E1, Host, SERVICE, get, gone, lives, pids, recorded_pids, slot,
    switching::{finish, held},
};

const EXE: &str = env!("CARGO_BIN_EXE_switchover");

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_comes_back_to_the_same_processes() {
    let mut host = Host::new().await;
    let mut spec = host.release("v1");
    spec.replicas = 2;
    let address = host.serving("v1", spec).await;
    host.put("v2", host.release("v2")).await;
    host.client.switch(SERVICE, E1, Some("v1"), "v2").await.unwrap();
    host.client.claim(SERVICE, Epoch(9)).await.unwrap();
    let all = |s: &switchover::agent::protocol::AgentStatus| pids(slot(s, "v1")).len() + pids(slot(s, "v2")).len() == 3;
    let before = host.until("running", all).await;
    let died = Instant::now();
    host.kill();
    host.start().await;
    assert_eq!(get(address, "/").await, (200, "v2".to_owned()), "same address, same slot");
    println!("killed agent: first answer after {:?}", died.elapsed());
    let mut after = host.service().await;
    for slot in after.slots.values_mut() {
        // Counted anew by each agent.
        slot.counters = before.slots["v1"].counters;
    }
    let mut before = before;
    for slot in before.slots.values_mut() {
        slot.counters = after.slots["v1"].counters;
    }
    assert_eq!(after, before);
    // An adopted copy is watched like any other, and ended like any other.
    let first = pids(&after.slots["v2"])[0];
    kill(Pid::from_raw(first.cast_signed()), Signal::SIGKILL).unwrap();
    let service = host.until("restarted", |s| slot(s, "v2").instances[0].pid.is_some_and(|p| p != first)).await;
    assert_eq!(service.slots["v2"].instances[0].restarts, 1);
    assert_eq!(get(address, "/").await, (200, "v2".to_owned()));
    host.client.remove_slot(SERVICE, "v1", Epoch(9)).await.unwrap();
    for pid in pids(&after.slots["v1"]) {
        gone(pid).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_died_meanwhile_is_started_again() {
    let mut host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    let before = host.pid("v1").await;
    host.kill();
    killpg(Pid::from_raw(before.cast_signed()), Signal::SIGKILL).unwrap();
    gone(before).await;
    host.start().await;
    assert_eq!(get(address, "/").await, (200, "v1".to_owned()));
    let instance = &host.service().await.slots["v1"].instances[0];
    assert_eq!(instance.restarts, 1);
    assert_eq!(instance.last_exit.as_deref(), Some("ended while no agent was running"));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_all_is_started_as_it_was() {
    let mut host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    host.put("v2", host.release("v2")).await;
    host.put("off", host.release("off")).await;
    host.client.set_running(SERVICE, "off", E1, false).await.unwrap();
    host.client.switch(SERVICE, E1, Some("v1"), "v2").await.unwrap();
    let running = |s: &switchover::agent::protocol::AgentStatus| {
        !pids(slot(s, "v1")).is_empty() && !pids(slot(s, "v2")).is_empty()
    };
    let before = host.until("running", running).await;
    host.kill();
    for pid in recorded_pids(&host.state()) {
        killpg(pid, Signal::SIGKILL).unwrap();
    }
    for slot in ["v1", "v2"] {
        gone(pids(&before.slots[slot])[0]).await;
    }
    // Another boot; and what were our numbers now belongs to this very test, which must not be taken for a copy.
    let text = fs::read_to_string(host.state()).unwrap();
    let mut state: serde_json::Value = serde_json::from_str(&text).unwrap();
    state["boot_id"] = "00000000-0000-0000-0000-000000000000".into();
    let copy = &mut state["services"][SERVICE]["slots"]["v1"]["copies"][0]["process"];
    copy["pid"] = std::process::id().into();
    fs::write(host.state(), state.to_string()).unwrap();
    host.start().await;
    assert_eq!(get(address, "/").await, (200, "v2".to_owned()));
    let after = host.until("running", running).await;
    assert_eq!(after.listen, before.listen);
    for (name, slot) in &after.slots {
        assert_eq!(slot.instances[0].address, before.slots[name].instances[0].address, "{name}");
        assert_eq!(slot.instances[0].restarts, 0, "{name}: a reboot is no crash");
    }
    assert!(pids(&after.slots["off"]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_intent_and_record_it_neither_loses_nor_doubles() {
    // The pointer moved on disk and nobody was told: the repeated command finds it moved.
    for (point, moved) in [("agent.switch.before_record", false), ("agent.switch.after_record", true)] {
        let mut host = Host::bare();
        let mut command = host.command();
        command.env("SWITCHOVER_CRASH_AT", format!("{point}:2"));
        host.start_as(command).await;
        let address = host.serving("v1", host.release("v1")).await;
        host.put("v2", host.release("v2")).await;
        let lost = host.client.switch(SERVICE, E1, Some("v1"), "v2").await;
        assert!(matches!(lost, Err(ClientError::Unavailable { .. })), "{lost:?}");
        host.agent.take().unwrap().wait().unwrap();
        host.start().await;
        let active = host.service().await.active;
        assert_eq!(active.as_deref(), Some(if moved { "v2" } else { "v1" }), "{point}");
        let again = host.client.switch(SERVICE, E1, Some("v1"), "v2").await.unwrap();
        assert_eq!(again.previous.as_deref(), Some("v1"));
        assert_eq!(get(address, "/").await, (200, "v2".to_owned()));
    }
    // A process was started and its number never written: it is found by its output, not started twice.
    let mut host = Host::bare();
    let mut command = host.command();
    command.env("SWITCHOVER_CRASH_AT", "agent.start.after_effect");
    host.start_as(command).await;
    host.client.put_service(SERVICE, None, &[]).await.unwrap();
    let _ = host
        .client
        .put_slot(SERVICE, "w", E1, switchover::agent::protocol::SlotSource::Process(host.release("w")))
        .await;
    host.agent.take().unwrap().wait().unwrap();
    assert!(recorded_pids(&host.state()).is_empty());
    let log = host.dir.path().join("logs/w/0.log");
    while !fs::read_to_string(&log).unwrap().contains("no PORT") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    host.start().await;
    let service = host.until("adopted", |s| !pids(slot(s, "w")).is_empty()).await;
    assert_eq!(fs::read_to_string(&log).unwrap().matches("begins").count(), 1);
    host.client.remove_service(SERVICE, E1).await.unwrap();
    gone(pids(&service.slots["w"])[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_can_not_be_understood_is_refused_by_name() {
    let mut host = Host::new().await;
    host.serving("v1", host.release("v1")).await;
    let pid = host.pid("v1").await;
    let mode = fs::metadata(host.state()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "it holds the environments of releases");
    assert_eq!(fs::metadata(socket_path(&host.data())).unwrap().permissions().mode() & 0o777, 0o600);
    host.kill();
    let good = fs::read_to_string(host.state()).unwrap();
    let cases = [
        ("", "line 1, column 0: it is not JSON"),
        ("garbage", "line 1, column 1: it is not JSON"),
        (&good[..good.len() / 2], "it is not JSON"),
        ("{}", "it names no version"),
        (r#"{"version": 99, "new": 1}"#, "it has version 99, this agent knows 1"),
        (r#"{"version": 1, "services": 3}"#, "of the wrong type"),
    ];
    for (text, why) in cases {
        fs::write(host.state(), text).unwrap();
        let out = host.command().stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success(), "{text}");
        for part in [why, "state.json ", "state.json.bak"] {
            assert!(said.contains(part), "{text:?} gives {said}");
        }
        assert_eq!(fs::read_to_string(host.state()).unwrap(), text, "left as it was found");
    }
    fs::remove_file(host.state()).unwrap();
    let out = host.command().stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert!(!out.status.success(), "a lost state is not an empty one");
    // The backup is the state before the last write: good enough to go on.
    fs::copy(host.state().with_extension("json.bak"), host.state()).unwrap();
    host.start().await;
    let service = host.until("running", |s| !pids(slot(s, "v1")).is_empty()).await;
    assert_eq!(pids(&service.slots["v1"]), [pid], "found again by its output");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pointer_that_can_not_be_written_does_not_move() {
    let host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    host.put("v2", host.release("v2")).await;
    host.pid("v2").await;
    // In the way of the next write, as a full disk would be.
    let obstacle = host.state().with_extension("json.new");
    fs::create_dir(&obstacle).unwrap();
    let (code, message) = super::refusal(host.client.switch(SERVICE, E1, Some("v1"), "v2").await);
    assert_eq!(code, switchover::agent::protocol::ErrorCode::Failed, "{message}");
    assert_eq!(host.service().await.active.as_deref(), Some("v1"));
    assert_eq!(get(address, "/").await, (200, "v1".to_owned()));
    fs::remove_dir(&obstacle).unwrap();
    host.client.switch(SERVICE, E1, Some("v1"), "v2").await.unwrap();
    assert_eq!(get(address, "/").await, (200, "v2".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_a_stranger_holds_at_the_start_is_had_later() {
    let mut host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    host.kill();
    let stranger = std::net::TcpListener::bind(address).unwrap();
    host.start().await;
    host.client.put_service("another", Some("127.0.0.1:0".parse().unwrap()), &[]).await.unwrap();
    drop(stranger);
    let back = async {
        while tokio::net::TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, back).await.unwrap();
    assert_eq!(get(address, "/").await, (200, "v1".to_owned()));
    assert_eq!(host.log().matches("can't listen").count(), 1, "said once: {}", host.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_ends_does_not_wait_for_a_slow_stop() {
    let mut host = Host::new().await;
    host.client.put_service(SERVICE, None, &[]).await.unwrap();
    let mut spec = host.release("deaf");
    spec.argv = vec!["/bin/sh".into(), "-c".into(), "trap '' TERM; echo ready; while :; do sleep 1; done".into()];
    spec.stop_grace_ms = 1_000_000;
    host.put("deaf", spec).await;
    let pid = host.pid("deaf").await;
    let log = host.dir.path().join("logs/deaf/0.log");
    while !fs::read_to_string(&log).unwrap_or_default().contains("ready") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let client = host.client.clone();
    let removing = tokio::spawn(async move { client.remove_slot(SERVICE, "deaf", E1).await });
    while host.service().await.slots.contains_key("deaf") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    host.client.shutdown(false).await.unwrap();
    assert!(host.agent.take().unwrap().wait().unwrap().success());
    assert!(matches!(removing.await.unwrap(), Err(ClientError::Unavailable { .. })));
    // The next one takes the stop up where it was: hidden, and not forgotten before the process is gone.
    host.start().await;
    assert!(host.service().await.slots.is_empty());
    assert!(lives(pid));
    assert_eq!(recorded_pids(&host.state()), [Pid::from_raw(pid.cast_signed())]);
    killpg(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
    host.client.remove_slot(SERVICE, "deaf", E1).await.unwrap();
    gone(pid).await;
    assert!(recorded_pids(&host.state()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_somebody_else_holds_is_left_alone() {
    let host = Host::bare();
    fs::create_dir_all(host.data()).unwrap();
    let path = host.data().join("agent.lock");
    fs::write(&path, "4242").unwrap();
    let held = nix::fcntl::Flock::lock(fs::File::open(&path).unwrap(), nix::fcntl::FlockArg::LockExclusiveNonblock);
    let out = host.command().stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert!(!out.status.success());
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("another agent (process 4242) holds"), "{said}");
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ending_agent_answers_what_it_has_begun_and_leaves_the_processes() {
    let mut host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    let pid = host.pid("v1").await;
    let slow = held(address).await;
    while host.service().await.slots["v1"].counters.in_flight != 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut old = host.agent.take().unwrap();
    kill(Pid::from_raw(old.id().cast_signed()), Signal::SIGTERM).unwrap();
    // Whoever spoke to it just then is not left waiting: the next one serves while the old one still answers.
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let client = host.client.clone();
        callers.spawn(async move { while client.hello().await.is_ok() {} });
    }
    callers.join_all().await;
    host.start().await;
    assert_eq!(get(address, "/").await, (200, "v1".to_owned()));
    assert_eq!(finish(slow).await, "v1");
    assert!(old.wait().unwrap().success());
    assert_eq!(pids(&host.service().await.slots["v1"]), [pid]);
    host.client.shutdown(true).await.unwrap();
    assert!(host.agent.take().unwrap().wait().unwrap().success());
    gone(pid).await;
    assert!(recorded_pids(&host.state()).is_empty());
}

/// Ends the agent of a folder with the test.
struct Kept(std::path::PathBuf);

impl Drop for Kept {
    fn drop(&mut self) {
        let lock = fs::read_to_string(self.0.join("agent.lock")).unwrap_or_default();
        if let Ok(pid) = lock.trim().parse() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

async fn ended(pid: u32) {
    gone(pid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_started_once_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    // Longer than a socket's name may be.
    let data = dir.path().join("x".repeat(120)).join("data");
    let _kept = Kept(data.clone());
    let exe = Path::new(EXE);
    let (first, second) = tokio::join!(ensure_running(exe, &data), ensure_running(exe, &data));
    let first = first.unwrap().hello().await.unwrap();
    assert_eq!(first, second.unwrap().hello().await.unwrap(), "two who start at once get the same");
    let session = nix::unistd::getsid(Some(Pid::from_raw(first.pid.cast_signed()))).unwrap();
    assert_eq!(session.as_raw().cast_unsigned(), first.pid, "a session of its own");
    let shutdown = CancellationToken::new();
    let keeper = tokio::spawn({
        let (data, shutdown) = (data.clone(), shutdown.clone());
        async move { keep_running(Path::new(EXE), &data, shutdown).await }
    });
    let client = Client::new(socket_path(&data));
    let mut last = first.pid;
    for _ in 0..3 {
        let died = Instant::now();
        kill(Pid::from_raw(last.cast_signed()), Signal::SIGKILL).unwrap();
        let back = async {
            loop {
                match client.hello().await {
                    Ok(hello) if hello.pid != last => return hello.pid,
                    _ => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        };
        let pid = tokio::time::timeout(DEADLINE, back).await.unwrap();
        println!("killed agent: another answers after {:?}", died.elapsed());
        ended(last).await;
        last = pid;
    }
    shutdown.cancel();
    keeper.await.unwrap();
    assert!(lives(last), "the agent outlives its keeper");
    client.shutdown(false).await.unwrap();
    ended(last).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_come_up_says_why() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("state.json"), "{").unwrap();
    let failed = ensure_running(Path::new(EXE), dir.path()).await.unwrap_err().to_string();
    assert!(failed.contains("state.json") && failed.contains("agent.log"), "{failed}");
    let failed = ensure_running(Path::new("/no/such/exe"), dir.path()).await.unwrap_err().to_string();
    assert!(failed.starts_with("can't start /no/such/exe"), "{failed}");
    let away = Client::new(dir.path().join("none.sock")).hello().await.unwrap_err();
    assert!(matches!(away, ClientError::Unavailable { .. }), "{away}");
}

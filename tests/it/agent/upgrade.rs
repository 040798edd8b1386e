//! The next agent takes the place of one that runs, and nobody notices.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::Child,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use switchover::agent::{protocol::SlotSource, socket_path};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    DEADLINE, E1, Host, SERVICE, fresh, get, lives, refusal,
    switching::{Load, finish, held, say, websocket},
};

const EXE: &str = env!("CARGO_BIN_EXE_switchover");

/// Starts the next agent, and returns when it answers; the one before is returned.
async fn next(host: &mut Host) -> Child {
    let before = host.client.hello().await.unwrap().pid;
    let old = host.agent.take().unwrap();
    host.agent = Some(host.command().spawn().unwrap());
    let up = async {
        while host.client.hello().await.is_ok_and(|h| h.pid == before) || host.client.hello().await.is_err() {
            let ended = host.agent.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", host.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, up).await.unwrap_or_else(|_| panic!("no next agent: {}", host.log()));
    old
}

async fn ends(mut agent: Child) {
    let wait = async {
        while agent.try_wait().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("the agent before does not end");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_upgrades_and_switches_under_every_kind_of_request_lose_none() {
    let mut host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    let mut spec = host.release("v2");
    spec.replicas = 2;
    host.put("v2", spec).await;
    let pid = host.pid("v1").await;
    let load = Arc::new(Load::default());
    let kept = || reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().unwrap();
    let two = || reqwest::Client::builder().no_proxy().http2_prior_knowledge().timeout(DEADLINE).build().unwrap();
    let post = Some(vec![b'x'; 64 * 1024]);
    let mut tasks = Vec::new();
    for (client, path, body) in [
        (fresh(), "/", None),
        (fresh(), "/", None),
        (kept(), "/", None),
        (kept(), "/", None),
        (kept(), "/length", post.clone()),
        (fresh(), "/length", post),
        (kept(), "/slow?ms=100", None),
        (fresh(), "/slow?ms=30", None),
        (two(), "/", None),
        (two(), "/slow?ms=20", None),
    ] {
        tasks.push(tokio::spawn(Arc::clone(&load).run(client, format!("http://{address}{path}"), body)));
    }
    while load.sent.load(Ordering::SeqCst) < 100 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut before = Vec::new();
    for i in 0..10 {
        before.push(next(&mut host).await);
        let (from, to) = if i % 2 == 0 { ("v1", "v2") } else { ("v2", "v1") };
        host.client.switch(SERVICE, E1, Some(from), to).await.unwrap();
        assert_eq!(get(address, "/").await, (200, to.to_owned()), "the first request after the answer");
    }
    load.stop.store(true, Ordering::SeqCst);
    let mut failures = Vec::new();
    for task in tasks {
        failures.append(&mut task.await.unwrap());
    }
    println!("{} of {} requests lost over 10 upgrades", failures.len(), load.sent.load(Ordering::SeqCst));
    assert!(failures.is_empty(), "{failures:#?}");
    assert_eq!(host.pid("v1").await, pid, "a process was started again");
    for agent in before {
        ends(agent).await;
    }
    let service = host.service().await;
    for (name, slot) in &service.slots {
        assert_eq!((slot.counters.cut, slot.counters.server_errors, slot.counters.in_flight), (0, 0, 0), "{name}");
    }
    // Supervised by the last one.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL).unwrap();
    host.until("started again", |s| s.services[SERVICE].slots["v1"].instances[0].pid.is_some_and(|p| p != pid)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_elder_has_under_way_is_known_to_the_heir() {
    let mut host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    host.put("v2", host.release("v2")).await;
    let mut tunnel = websocket(address).await;
    // A connection that is kept, with nothing under way on it just now.
    let mut kept = TcpStream::connect(address).await.unwrap();
    let ask = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    kept.write_all(ask).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"v1") {
        answer.push(kept.read_u8().await.unwrap());
    }
    let slow = held(address).await;
    while host.service().await.slots["v1"].counters.in_flight != 2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let elder = next(&mut host).await;
    let elder_pid = elder.id();
    // Counted by who answers now.
    let told = async {
        while host.service().await.slots["v1"].counters.in_flight != 2 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, told).await.expect("the heir does not know what is under way");
    host.client.switch(SERVICE, E1, Some("v1"), "v2").await.unwrap();
    assert_eq!(host.client.wait_idle(SERVICE, "v1", Duration::ZERO).await.unwrap(), 2);
    // The kept connection moves with its next request, and that is its last one here.
    kept.write_all(ask).await.unwrap();
    let mut all = Vec::new();
    tokio::time::timeout(DEADLINE, kept.read_to_end(&mut all)).await.expect("it stays open").unwrap();
    let all = String::from_utf8_lossy(&all).to_ascii_lowercase();
    assert!(all.starts_with("http/1.1 200") && all.contains("connection: close") && all.ends_with("v2"), "{all}");
    assert_eq!(say(&mut tunnel, b"still here").await, b"still here");
    assert_eq!(finish(slow).await, "v1");
    let client = host.client.clone();
    let idle = tokio::spawn(async move { client.wait_idle(SERVICE, "v1", DEADLINE).await });
    tokio::task::yield_now().await;
    assert!(!idle.is_finished());
    assert!(lives(elder_pid));
    drop(tunnel);
    assert_eq!(idle.await.unwrap().unwrap(), 0);
    ends(elder).await;
    // The lock is the heir's: a third one asks it, and takes over from it.
    let second = next(&mut host).await;
    ends(second).await;
    assert_eq!(get(address, "/").await, (200, "v2".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_heir_that_fails_changes_nothing() {
    let host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    let pid = host.pid("v1").await;
    let socket = socket_path(&host.dir.path().join("data"));
    // It asks, gets everything, and dies.
    for protocol in [1, 99] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        writeln!(stream, "{{\"op\":\"hand_over\",\"protocol\":{protocol}}}").unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        let known = if protocol == 1 { "\"here\"" } else { "speaks protocol" };
        assert!(line.contains(known), "{line}");
        drop(stream);
        let goes_on = async {
            while host.client.put_slot(SERVICE, "v2", E1, SlotSource::Process(host.release("v2"))).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, goes_on).await.expect("the agent does not go on");
    }
    let before = host.client.hello().await.unwrap().pid;
    // A program that is no agent, one that is not there, and one that can't read the state.
    for exe in ["/bin/false", "/nothing/there"] {
        let (_, message) = refusal(host.client.upgrade(Path::new(exe)).await);
        assert!(message.contains("next agent"), "{message}");
    }
    assert_eq!(host.client.hello().await.unwrap().pid, before);
    assert_eq!(get(address, "/").await, (200, "v1".to_owned()));
    assert_eq!(host.pid("v1").await, pid);
    host.client.switch(SERVICE, E1, Some("v1"), "v2").await.unwrap();
    assert_eq!(get(address, "/").await, (200, "v2".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_replaces_itself_on_command() {
    let mut host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    let before = host.client.hello().await.unwrap();
    let now = host.client.upgrade(Path::new(EXE)).await.unwrap();
    assert_ne!(now.pid, before.pid);
    ends(host.agent.take().unwrap()).await;
    assert_eq!(get(address, "/").await, (200, "v1".to_owned()));
    // Killed, it leaves a free place.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(now.pid.cast_signed()), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    super::gone(now.pid).await;
    host.start().await;
    assert_eq!(get(address, "/").await, (200, "v1".to_owned()));
}

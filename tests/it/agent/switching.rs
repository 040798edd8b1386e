//! Nothing is lost when the pointer moves.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{DEADLINE, E1, Host, SERVICE, fresh, get};

#[derive(Default)]
pub(super) struct Load {
    pub(super) stop: AtomicBool,
    pub(super) sent: AtomicU64,
}

impl Load {
    /// Requests one after another until told; each must be answered rightly.
    pub(super) async fn run(
        self: Arc<Self>,
        client: reqwest::Client,
        url: String,
        body: Option<Vec<u8>>,
    ) -> Vec<String> {
        let mut failures = Vec::new();
        while !self.stop.load(Ordering::SeqCst) {
            self.sent.fetch_add(1, Ordering::SeqCst);
            let request = match &body {
                Some(body) => client.post(&url).body(body.clone()),
                None => client.get(&url),
            };
            let answer = async { request.send().await?.error_for_status()?.text().await }.await;
            match (answer, &body) {
                (Ok(text), None) if text == "v1" || text == "v2" => {}
                (Ok(text), Some(body)) if text == body.len().to_string() => {}
                (other, _) => failures.push(format!("{url}: {other:?}")),
            }
        }
        failures
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_switches_under_every_kind_of_request_lose_none() {
    let host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    let mut spec = host.release("v2");
    spec.replicas = 2;
    host.put("v2", spec).await;
    let load = Arc::new(Load::default());
    let kept = || reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().unwrap();
    let two = reqwest::Client::builder().no_proxy().http2_prior_knowledge().timeout(DEADLINE).build().unwrap();
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
        (two.clone(), "/", None),
        (two, "/slow?ms=20", None),
    ] {
        tasks.push(tokio::spawn(Arc::clone(&load).run(client, format!("http://{address}{path}"), body)));
    }
    // The first answers show that both slots and the clients are warm.
    while load.sent.load(Ordering::SeqCst) < 100 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut took = Vec::new();
    for i in 0..200 {
        let (from, to) = if i % 2 == 0 { ("v1", "v2") } else { ("v2", "v1") };
        let before = Instant::now();
        host.client.switch(SERVICE, E1, Some(from), to).await.unwrap();
        took.push(before.elapsed());
        assert_eq!(get(address, "/").await, (200, to.to_owned()), "the first request after the answer");
    }
    load.stop.store(true, Ordering::SeqCst);
    let mut failures = Vec::new();
    for task in tasks {
        failures.append(&mut task.await.unwrap());
    }
    took.sort();
    let sent = load.sent.load(Ordering::SeqCst);
    println!("{} of {sent} requests lost; a switch took {:?} (p50), {:?} (max)", failures.len(), took[100], took[199]);
    assert!(failures.is_empty(), "{failures:#?}");
    let service = host.service().await;
    assert_eq!(service.unrouted, 0);
    for (name, slot) in &service.slots {
        assert_eq!((slot.counters.cut, slot.counters.server_errors), (0, 0), "{name}");
        assert!(slot.counters.requests > 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_slot_is_idle_only_after_its_last_answer() {
    let host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    host.put("v2", host.release("v2")).await;
    let mut tunnel = websocket(address).await;
    let slow = held(address).await;
    while host.service().await.slots["v1"].counters.in_flight != 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    host.client.switch(SERVICE, E1, Some("v1"), "v2").await.unwrap();
    assert_eq!(host.client.wait_idle(SERVICE, "v1", Duration::ZERO).await.unwrap(), 2, "time is over at once");
    // The tunnel still speaks to the old version, and ends when its client ends it.
    assert_eq!(say(&mut tunnel, b"still here").await, b"still here");
    let client = host.client.clone();
    let idle = tokio::spawn(async move { client.wait_idle(SERVICE, "v1", DEADLINE).await });
    assert_eq!(finish(slow).await, "v1");
    drop(tunnel);
    assert_eq!(idle.await.unwrap().unwrap(), 0);
    host.client.remove_slot(SERVICE, "v1", E1).await.unwrap();
    assert_eq!(get(address, "/").await, (200, "v2".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_moves_with_its_next_request() {
    let host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    host.put("v2", host.release("v2")).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut from, mut to) = ("v1", "v2");
    for _ in 0..20 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(from.as_bytes()) {
            answer.push(stream.read_u8().await.unwrap());
        }
        host.client.switch(SERVICE, E1, Some(from), to).await.unwrap();
        (from, to) = (to, from);
    }
}

/// A request whose body is not sent whole yet: under way for as long as its client likes.
pub(super) async fn held(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\n";
    stream.write_all(head).await.unwrap();
    stream
}

/// Sends the rest of it; the answer's body.
pub(super) async fn finish(mut stream: TcpStream) -> String {
    stream.write_all(b"x").await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert!(all.starts_with("HTTP/1.1 200 "), "{all}");
    all.rsplit("\r\n\r\n").next().unwrap().to_owned()
}

pub(super) async fn websocket(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n").await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: echo"), "{head}");
    stream
}

pub(super) async fn say(stream: &mut TcpStream, text: &[u8]) -> Vec<u8> {
    stream.write_all(text).await.unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).await.unwrap();
    back
}

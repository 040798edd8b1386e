//! What a request meets on its way.

use std::net::SocketAddr;

use futures_util::StreamExt as _;
use switchover::agent::protocol::SlotSource;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{
    DEADLINE, E1, Host, SERVICE, fresh, get,
    switching::{say, websocket},
};

/// Sends bytes, half-closes, reads all.
async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut all = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut all)).await;
    read.expect("the connection stays open").ok();
    String::from_utf8_lossy(&all).into_owned()
}

/// The heads that the app sees, with what changes between runs replaced.
async fn seen(address: SocketAddr, request: &str) -> String {
    let answer = raw(address, request.as_bytes()).await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<&str> = body.trim().lines().collect();
    lines[1..].sort_unstable();
    lines.join("\n").replace(&address.to_string(), "LISTENER")
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_are_forwarded_as_a_proxy_should() {
    let host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    let plain = "GET /head?q=1 HTTP/1.1\r\nHost: shop.example\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nTE: trailers\r\n\
        Keep-Alive: 5\r\nX-Kept: yes\r\nProxy-Connection: x\r\n\r\n";
    insta::assert_snapshot!(seen(address, plain).await, @"
    GET /head?q=1 HTTP/1.1
    host: shop.example
    x-forwarded-for: 127.0.0.1
    x-forwarded-host: shop.example
    x-forwarded-proto: http
    x-kept: yes
    ");
    // A proxy on this machine has said already who the client is.
    let behind = "GET /head HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n\
        X-Forwarded-Host: shop.example\r\nConnection: close\r\n\r\n";
    insta::assert_snapshot!(seen(address, behind).await, @"
    GET /head HTTP/1.1
    host: a
    x-forwarded-for: 192.0.2.1, 127.0.0.1
    x-forwarded-host: shop.example
    x-forwarded-proto: https
    ");
    let absolute = "GET http://shop.example:81/head HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n";
    insta::assert_snapshot!(seen(address, absolute).await, @"
    GET /head HTTP/1.1
    host: shop.example:81
    x-forwarded-for: 127.0.0.1
    x-forwarded-host: shop.example:81
    x-forwarded-proto: http
    ");
    // Neither may be taken away by naming it; nor may a length stand beside chunks.
    let sly = "POST /head HTTP/1.1\r\nHost: a\r\nConnection: close, host, content-length\r\nTransfer-Encoding: chunked\r\n\
        Content-Length: 3\r\n\r\n0\r\n\r\n";
    insta::assert_snapshot!(seen(address, sly).await, @"
    POST /head HTTP/1.1
    host: a
    transfer-encoding: chunked
    x-forwarded-for: 127.0.0.1
    x-forwarded-host: a
    x-forwarded-proto: http
    ");
    let old = raw(address, b"GET /head HTTP/1.0\r\n\r\n").await;
    assert!(old.contains(&format!("host: {address}")), "{old}");
    // HTTP/2 may send cookies in pieces.
    let two = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let two = two.get(format!("http://{address}/head")).header("cookie", "a=1").header("cookie", "b=2");
    let head = two.send().await.unwrap().text().await.unwrap();
    assert!(head.contains("cookie: a=1; b=2") && head.contains(&format!("host: {address}")), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_through_as_they_are() {
    let host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    let client = fresh();
    let answer = client.get(format!("http://{address}/hop")).send().await.unwrap();
    for name in ["x-private", "keep-alive", "connection"] {
        assert!(!answer.headers().contains_key(name), "{name}");
    }
    let head = client.head(format!("http://{address}/")).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], "2", "the length of the body that is not sent");
    assert_eq!(get(address, "/status/404").await.0, 404);
    assert_eq!(get(address, "/status/503").await.0, 503);
    let counters = host.service().await.slots["v1"].counters;
    assert_eq!((counters.requests, counters.server_errors, counters.cut, counters.in_flight), (4, 1, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_both_ways() {
    let host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    for client in [fresh(), reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap()] {
        let (say, said) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
        let body = futures_util::stream::unfold(said, |mut said| async { said.recv().await.map(|s| (s, said)) });
        let url = format!("http://{address}/echo");
        say.send(Ok(b"first".to_vec())).await.unwrap();
        let answer = client.post(url).body(reqwest::Body::wrap_stream(body)).send().await.unwrap();
        let mut back = answer.bytes_stream();
        // Each piece comes back before the next is sent: nobody on the way waits for the whole.
        assert_eq!(&back.next().await.unwrap().unwrap()[..], b"first");
        for i in 0..20 {
            let piece = format!("piece {i}").into_bytes();
            say.send(Ok(piece.clone())).await.unwrap();
            assert_eq!(back.next().await.unwrap().unwrap(), piece);
        }
        drop(say);
        // HTTP/2 may end with an empty piece.
        while let Some(rest) = back.next().await {
            assert_eq!(rest.unwrap(), "");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_carry_bytes_both_ways() {
    let host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    let mut tunnel = websocket(address).await;
    for i in 0..50 {
        let text = format!("message {i}").into_bytes();
        assert_eq!(say(&mut tunnel, &text).await, text);
    }
    assert_eq!(host.service().await.slots["v1"].counters.in_flight, 1);
    tunnel.shutdown().await.unwrap();
    assert_eq!(tunnel.read(&mut [0]).await.unwrap(), 0, "the app's end comes through");
    assert_eq!(host.client.wait_idle(SERVICE, "v1", DEADLINE).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_breaks_off_costs_that_request_only() {
    let host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    assert_eq!(get(address, "/mute").await, (502, "the app broke off before it answered\n".to_owned()));
    let half = async { fresh().get(format!("http://{address}/half")).send().await?.bytes().await }.await;
    assert!(half.is_err(), "a part is not passed off as the whole: {half:?}");
    // Never sent twice, whatever the method: the app may have acted on it.
    let post = fresh().post(format!("http://{address}/mute")).body("x").send().await.unwrap();
    assert_eq!(post.status(), 502);
    assert_eq!(get(address, "/").await, (200, "v1".to_owned()));
    let counters = host.service().await.slots["v1"].counters;
    assert_eq!((counters.cut, counters.requests, counters.in_flight), (3, 4, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_the_app_closed_is_not_used_again() {
    let host = Host::new().await;
    let listen = Some("127.0.0.1:0".parse().unwrap());
    let address = host.client.put_service(SERVICE, listen, &[]).await.unwrap().listen.unwrap();
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = vec![app.local_addr().unwrap()];
    host.client.put_slot(SERVICE, "v1", E1, SlotSource::Upstreams { addresses }).await.unwrap();
    host.client.switch(SERVICE, E1, None, "v1").await.unwrap();
    for i in 0..50 {
        let answer = tokio::spawn(async move {
            fresh().post(format!("http://{address}/")).body("x").send().await.unwrap().text().await.unwrap()
        });
        // The agent's look whether the app listens is a connection too.
        let mut stream = loop {
            let (mut stream, _) = app.accept().await.unwrap();
            if stream.read(&mut [0; 4096]).await.unwrap() > 0 {
                break stream;
            }
        };
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{i:04}");
        stream.write_all(text.as_bytes()).await.unwrap();
        assert_eq!(answer.await.unwrap(), format!("{i:04}"));
        // Without a word, after the answer and before the next request.
        drop(stream);
    }
    assert_eq!(host.service().await.slots["v1"].counters.cut, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn services_share_a_listener_by_host() {
    let host = Host::new().await;
    let address = host.serving("v1", host.release("all")).await;
    for (service, hosts) in
        [("octo-1/production/api", ["API.example", "api2.example"]), ("octo-1/production/x", ["x", "y"])]
    {
        let hosts = hosts.map(str::to_owned);
        let put = host.client.put_service(service, Some(address), &hosts).await.unwrap();
        assert_eq!(put.listen, Some(address));
    }
    let api = "octo-1/production/api";
    host.client.put_slot(api, "v1", E1, SlotSource::Process(host.release("api"))).await.unwrap();
    host.client.switch(api, E1, None, "v1").await.unwrap();
    let cases = [
        ("api.example", 200, "api"),
        ("API2.EXAMPLE:8080", 200, "api"),
        ("other.example", 200, "all"),
        ("x", 503, "nothing is released here yet\n"),
    ];
    for (name, status, text) in cases {
        let answer = fresh().get(format!("http://{address}/")).header("host", name).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (status, text), "{name}");
    }
    host.client.remove_service(SERVICE, E1).await.unwrap();
    assert_eq!(get(address, "/").await, (404, "no service for this host\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_clients_get_an_error_or_nothing() {
    let host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(500));
    let cases: [(&[u8], &str); 6] = [
        (b"\x16\x03\x01\x02\x00 not http\r\n\r\n", "400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "400"),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400"),
        (b"CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\nConnection: close\r\n\r\n", "405"),
        (long.as_bytes(), "431"),
        (many.as_bytes(), "431"),
    ];
    for (bytes, status) in cases {
        let answer = raw(address, bytes).await;
        let line = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
    }
    // Half a head, half a body, half an HTTP/2 preface: nobody else waits for them.
    let mut open = Vec::new();
    for part in ["GET / HT", "POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf", "PRI * HT", ""] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(part.as_bytes()).await.unwrap();
        open.push(stream);
    }
    assert_eq!(get(address, "/").await, (200, "v1".to_owned()));
    drop(open);
    assert_eq!(host.client.wait_idle(SERVICE, "v1", DEADLINE).await.unwrap(), 0);
    assert_eq!(host.service().await.slots["v1"].counters.cut, 0, "the client's fault is not the app's");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_wait_for_a_container_that_comes_back() {
    let host = Host::new().await;
    let listen = Some("127.0.0.1:0".parse().unwrap());
    let address = host.client.put_service(SERVICE, listen, &[]).await.unwrap().listen.unwrap();
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (dead, at) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), app.local_addr().unwrap());
    let addresses = vec![dead.local_addr().unwrap(), at];
    host.client.put_slot(SERVICE, "v1", E1, SlotSource::Upstreams { addresses }).await.unwrap();
    host.client.switch(SERVICE, E1, None, "v1").await.unwrap();
    // One of two is away: the other answers, nobody notices.
    drop(dead);
    let serve = |app: TcpListener| async move {
        loop {
            let (mut stream, _) = app.accept().await.unwrap();
            tokio::spawn(async move {
                // Each request on a connection of its own, so that none is torn when the listener goes.
                if stream.read(&mut [0; 4096]).await.is_ok_and(|n| n > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nup";
                    stream.write_all(answer).await.unwrap();
                }
            });
        }
    };
    let running = tokio::spawn(serve(app));
    for _ in 0..20 {
        assert_eq!(get(address, "/").await, (200, "up".to_owned()));
    }
    // Both are away: requests wait until one is back.
    running.abort();
    let _ = running.await;
    let waiting: Vec<_> = (0..10).map(|_| tokio::spawn(get(address, "/"))).collect();
    let app = loop {
        match TcpListener::bind(at).await {
            Ok(app) => break app,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
        }
    };
    let running = tokio::spawn(serve(app));
    for answer in waiting {
        assert_eq!(answer.await.unwrap(), (200, "up".to_owned()));
    }
    running.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_waits_for_a_word_gets_it() {
    let host = Host::new().await;
    let address = host.serving("v1", host.release("v1")).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head =
        "POST /length HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut word = [0; 25];
    stream.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 200 ") && rest.ends_with("\r\n\r\n5"), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_never_comes_up_is_answered_for() {
    let host = Host::new().await;
    let mut spec = host.release("v1");
    spec.env.insert("EXIT_AT_START".into(), "1".into());
    let address = host.serving("v1", spec).await;
    let waiting: Vec<_> = (0..5).map(|_| tokio::spawn(get(address, "/"))).collect();
    for answer in waiting {
        assert_eq!(answer.await.unwrap(), (503, "no copy of the app is running\n".to_owned()));
    }
    let service = host.service().await;
    assert_eq!((service.unrouted, service.slots["v1"].counters.in_flight), (5, 0));
}

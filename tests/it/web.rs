//! The webhook door over real sockets: what is answered 2xx is on disk, and nothing else is.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use secrecy::SecretString;
use switchover::{
    domain::ids::DeliveryId,
    engine::wake::Wake,
    github::webhook::sign,
    store::{DeliveryState, Store},
    telemetry::Metrics,
    web::{self, Web, intake},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A door on a free port, with its store.
struct Door {
    address: SocketAddr,
    store: Store,
    web: Arc<Web>,
    handle: actix_web::dev::ServerHandle,
    _folder: tempfile::TempDir,
}

impl Door {
    async fn open(secrets: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("test.db")).await.expect("a store");
        let web = Arc::new(Web {
            store: store.clone(),
            wake: Wake::default(),
            webhook_secrets: secrets.iter().map(|s| SecretString::from((*s).to_owned())).collect(),
            metrics: Metrics::default(),
            budget: intake::Budget::default(),
        });
        let (server, addresses) = web::bind(web.clone(), None, ([127, 0, 0, 1], 0).into(), 2).expect("a free port");
        let handle = server.handle();
        tokio::spawn(server);
        Self { address: addresses[0], store, web, handle, _folder: folder }
    }

    fn url(&self) -> String {
        format!("http://{}/webhooks/github", self.address)
    }

    async fn send(&self, guid: &str, secret: &str, body: &[u8]) -> u16 {
        self.send_as("push", guid, secret, body).await
    }

    async fn send_as(&self, event: &str, guid: &str, secret: &str, body: &[u8]) -> u16 {
        let signature = sign(&SecretString::from(secret.to_owned()), body);
        reqwest::Client::new()
            .post(self.url())
            .header("X-Hub-Signature-256", signature)
            .header("X-GitHub-Event", event)
            .header("X-GitHub-Delivery", guid)
            .body(body.to_vec())
            .send()
            .await
            .expect("an answer")
            .status()
            .as_u16()
    }

    async fn stored(&self) -> usize {
        self.store.deliveries(None, 100_000).await.expect("readable").len()
    }
}

#[actix_web::test]
async fn a_signed_delivery_is_stored_and_answered_once() {
    let door = Door::open(&["old", "new"]).await;
    assert_eq!(door.send("a-1", "new", b"{\"zen\":1}").await, 202);
    assert_eq!(door.send("a-2", "old", b"{\"zen\":2}").await, 202, "both secrets are valid during a rotation");
    assert_eq!(door.send("a-1", "new", b"{\"zen\":1}").await, 202, "a redelivery");
    let stored = door.store.deliveries(Some(DeliveryState::Pending), 10).await.expect("readable");
    assert_eq!(stored.len(), 2);
    assert_eq!(stored[1].body, b"{\"zen\":1}");
    door.handle.stop(false).await;
}

#[actix_web::test]
async fn what_was_not_processed_is_taken_again() {
    let door = Door::open(&["s"]).await;
    let cases = [
        ("q", DeliveryState::Quarantined, DeliveryState::Pending, "merge_group"),
        ("x", DeliveryState::Dead, DeliveryState::Pending, "merge_group"),
        ("d", DeliveryState::Done, DeliveryState::Done, "push"),
    ];
    for (guid, ended, then, event) in cases {
        assert_eq!(door.send(guid, "s", b"{\"a\":1}").await, 202);
        let id = DeliveryId::new(guid).expect("an id");
        let first = door.store.delivery(&id).await.expect("readable").expect("stored");
        door.store.end_delivery(&id, ended, "why", first.received_at).await.expect("written");
        assert_eq!(door.send_as("merge_group", guid, "s", b"{\"a\":2}").await, 202, "{guid}");
        let now = door.store.delivery(&id).await.expect("readable").expect("stored");
        assert_eq!((now.state, now.event.as_str(), now.received_at), (then, event, first.received_at), "{guid}");
        let (body, note) = if then == ended { ("{\"a\":1}", Some("why")) } else { ("{\"a\":2}", None) };
        assert_eq!((now.body.as_slice(), now.note.as_deref()), (body.as_bytes(), note), "{guid}");
    }
    assert_eq!(door.stored().await, 3);
    door.handle.stop(false).await;
}

#[actix_web::test]
async fn what_is_not_signed_is_not_stored() {
    let door = Door::open(&["right"]).await;
    assert_eq!(door.send("b-1", "wrong", b"{}").await, 401);
    let unsigned = reqwest::Client::new().post(door.url()).body("{}").send().await.expect("an answer");
    assert_eq!(unsigned.status(), 401);
    let odd = reqwest::Client::new().post(door.url()).header("X-Hub-Signature-256", "sha256=zz").body("{}");
    assert_eq!(odd.send().await.expect("an answer").status(), 401);
    assert_eq!(door.stored().await, 0);
    door.handle.stop(false).await;
}

#[actix_web::test]
async fn a_body_that_is_no_json_is_kept_for_the_quarantine() {
    let door = Door::open(&["s"]).await;
    assert_eq!(door.send("c-1", "s", b"\xff\xfenot json").await, 202);
    assert_eq!(door.send("strange id !!", "s", b"{}").await, 202, "ids are not signed: a strange one is replaced");
    assert_eq!(door.stored().await, 2);
    door.handle.stop(false).await;
}

#[actix_web::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let door = Door::open(&["s"]).await;
    let mut stream = TcpStream::connect(door.address).await.expect("connected");
    let head = format!(
        "POST /webhooks/github HTTP/1.1\r\nHost: x\r\nX-Hub-Signature-256: sha256=00\r\nContent-Length: {}\r\n\r\n",
        intake::LARGEST + 1
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("answered though no byte of the body was sent");
    assert_eq!(&answer, b"HTTP/1.1 413");
    // Without a length it is noticed while it comes.
    let mut stream = TcpStream::connect(door.address).await.expect("connected");
    stream
        .write_all(b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\nX-Hub-Signature-256: sha256=00\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await
        .expect("written");
    let chunk = [b"100000\r\n".as_slice(), &vec![b'x'; 0x10_0000], b"\r\n"].concat();
    let (mut read, mut write) = stream.into_split();
    let sender = tokio::spawn(async move { while write.write_all(&chunk).await.is_ok() {} });
    let mut answer = [0; 12];
    read.read_exact(&mut answer).await.expect("answered");
    assert_eq!(&answer, b"HTTP/1.1 413");
    drop(read);
    sender.abort();
    assert_eq!(door.stored().await, 0);
    door.handle.stop(false).await;
}

#[actix_web::test]
async fn a_body_that_does_not_come_is_given_up() {
    let door = Door::open(&["s"]).await;
    let mut stream = TcpStream::connect(door.address).await.expect("connected");
    stream
        .write_all(b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\nX-Hub-Signature-256: sha256=00\r\nContent-Length: 10\r\n\r\nabc")
        .await
        .expect("written");
    let mut answer = [0; 12];
    tokio::time::timeout(Duration::from_secs(30), stream.read_exact(&mut answer))
        .await
        .expect("in time")
        .expect("answered");
    assert_eq!(&answer, b"HTTP/1.1 408");
    door.handle.stop(false).await;
}

#[actix_web::test]
async fn strangers_who_announce_much_and_send_little_hold_nothing_up() {
    let door = Door::open(&["s"]).await;
    let mut strangers = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(door.address).await.expect("connected");
        let head = "POST /webhooks/github HTTP/1.1\r\nHost: x\r\nX-Hub-Signature-256: sha256=00\r\nExpect: 100-continue\r\n\
                    Content-Length: 1048576\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("written");
        let mut go_on = [0; 12];
        stream.read_exact(&mut go_on).await.expect("the server waits for the body");
        assert_eq!(&go_on, b"HTTP/1.1 100");
        stream.write_all(b"x").await.expect("written");
        strangers.push(stream);
    }
    let sent = tokio::time::timeout(Duration::from_secs(5), door.send("ours", "s", &vec![b' '; 1_000_000])).await;
    assert_eq!(sent.expect("nobody is waited for"), 202);
    drop(strangers);
    door.handle.stop(false).await;
}

#[actix_web::test]
async fn without_memory_a_body_is_refused_in_its_own_words() {
    let door = Door::open(&["s"]).await;
    let (mut one, mut other) = (door.web.budget.body(intake::LARGEST), door.web.budget.body(intake::LARGEST));
    assert_eq!(one.grow(intake::LARGEST).await, Ok(intake::LARGEST));
    assert_eq!(other.grow(intake::LARGEST).await, Ok(intake::LARGEST), "one more, out of turn");
    // Of unknown length, so that it may become a large one.
    let body = vec![b' '; 1000];
    let signature = sign(&SecretString::from("s".to_owned()), &body);
    let parts = futures_util::stream::iter([Ok::<_, std::io::Error>(body)]);
    let request = reqwest::Client::new().post(door.url()).header("X-Hub-Signature-256", signature);
    let large = request.body(reqwest::Body::wrap_stream(parts)).send();
    let refused = large.await.expect("an answer");
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"30".parse().expect("a value")));
    let said = refused.text().await.expect("words");
    assert!(said.contains("hold all the memory"), "{said}");
    assert_eq!(door.send("small", "s", b"{}").await, 202, "small ones have room of their own");
    drop(other);
    assert_eq!(door.send("large", "s", &vec![b' '; 2 * 1024 * 1024]).await, 202);
    assert_eq!(door.stored().await, 2);
    drop(one);
    door.handle.stop(false).await;
}

#[tokio::test]
async fn bodies_that_hold_a_part_each_do_not_wait_for_each_other_for_ever() {
    let budget = intake::Budget::default();
    // Ten times of what there is room for, all growing in step.
    let all = (0..20).map(|_| async {
        let mut held = budget.body(intake::LARGEST);
        for size in 1..=25 {
            let room = held.grow(size * 1024 * 1024).await?;
            assert!((size * 1024 * 1024..=intake::LARGEST).contains(&room));
            tokio::task::yield_now().await;
        }
        Ok::<_, intake::Busy>(())
    });
    let ended = tokio::time::timeout(Duration::from_secs(60), futures_util::future::join_all(all)).await;
    assert!(ended.expect("all come to an end").into_iter().all(|ended| ended.is_ok()));
}

#[actix_web::test]
async fn many_at_once_are_all_stored() {
    let door = Arc::new(Door::open(&["s"]).await);
    let client = reqwest::Client::new();
    let tasks = (0..64).map(|worker| {
        let (door, client) = (door.clone(), client.clone());
        tokio::spawn(async move {
            for n in 0..20 {
                let body = format!("{{\"n\":{n},\"worker\":{worker}}}");
                let signature = sign(&SecretString::from("s".to_owned()), body.as_bytes());
                let request = client
                    .post(door.url())
                    .header("X-Hub-Signature-256", signature)
                    .header("X-GitHub-Event", "push")
                    .header("X-GitHub-Delivery", format!("w{worker}-{n}"))
                    .body(body);
                assert_eq!(request.send().await.expect("an answer").status(), 202);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
    assert_eq!(door.stored().await, 64 * 20);
    door.handle.stop(false).await;
}

#[actix_web::test]
async fn health_and_metrics_answer() {
    let door = Door::open(&["s"]).await;
    door.send("m-1", "s", b"{}").await;
    for (path, expected) in
        [("healthz", "ok"), ("readyz", "ready"), ("metrics", "switchover_deliveries_total{result=\"new\"} 1")]
    {
        let text = reqwest::get(format!("http://{}/{path}", door.address))
            .await
            .expect("an answer")
            .text()
            .await
            .expect("text");
        assert!(text.contains(expected), "{path}: {text}");
    }
    door.handle.stop(false).await;
}

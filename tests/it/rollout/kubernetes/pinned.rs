//! Connections that nobody closes: they stay where they are at a flip, and must be on the new version soon after.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use switchover::{
    clock,
    domain::rollout::{Ended, Phase, Progress},
    rollout::{DriveEnd, drive},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{Bench, POLITE, Wanted, answers, back_to, desired, told};
use crate::rollout::stage::DEADLINE;

/// What the clients of a pool saw.
#[derive(Default)]
struct Seen {
    sent: u64,
    /// Connections that were ended, cleanly: between two requests, or announced in an answer.
    ended: u64,
    lost: Vec<String>,
    /// By client: which version it heard last, and when it heard each for the last time.
    last: BTreeMap<usize, String>,
    heard: BTreeMap<(usize, String), Timestamp>,
}

impl Seen {
    fn hears(&mut self, client: usize, version: String) {
        self.heard.insert((client, version.clone()), clock::now());
        self.last.insert(client, version);
    }
}

/// Clients with one connection each, which never close it and never try a request twice.
struct Pool {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    tasks: Vec<JoinHandle<()>>,
}

/// One request on a connection: the answer, and whether it ends the connection.
async fn ask(connection: &mut TcpStream) -> std::io::Result<(String, bool)> {
    connection.write_all(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await?;
    let mut answer = Vec::new();
    loop {
        let n = connection.read_buf(&mut answer).await?;
        if n == 0 {
            return Err(std::io::Error::other(format!("ended within an answer of {} bytes", answer.len())));
        }
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|l| l.lines().next()?.parse().ok()).unwrap_or(0);
        if body.len() >= length {
            assert!(head.starts_with("http/1.1 200"), "{text}");
            return Ok((body.to_owned(), head.contains("connection: close")));
        }
    }
}

impl Pool {
    fn of(clients: usize, address: SocketAddr) -> Self {
        Self::start(clients, |client, stop, seen| async move {
            let mut open: Option<TcpStream> = None;
            while !stop.load(Ordering::Relaxed) {
                // As every pool does: a connection that was ended while nobody used it is not used again.
                let over = open.as_ref().is_some_and(|c| matches!(c.try_read(&mut [0; 1]), Ok(0)));
                if over {
                    open = None;
                    seen.lock().unwrap().ended += 1;
                }
                let mut connection = match open.take() {
                    Some(connection) => connection,
                    None => TcpStream::connect(address).await.unwrap(),
                };
                seen.lock().unwrap().sent += 1;
                let answer = ask(&mut connection).await;
                {
                    let mut seen = seen.lock().unwrap();
                    match answer {
                        Ok((version, ends)) => {
                            seen.hears(client, version);
                            if ends {
                                seen.ended += 1;
                            } else {
                                open = Some(connection);
                            }
                        }
                        Err(e) => seen.lost.push(format!("{} client {client}: {e}", clock::now())),
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    }

    /// Clients of HTTP/2, as those of gRPC are: one connection each, left when the server says GOAWAY.
    fn of_two(clients: usize, address: SocketAddr) -> Self {
        Self::start(clients, |client, stop, seen| async move {
            let two = reqwest::Client::builder().no_proxy().http2_prior_knowledge().pool_idle_timeout(None);
            let two = two.timeout(DEADLINE).retry(reqwest::retry::never()).build().unwrap();
            while !stop.load(Ordering::Relaxed) {
                seen.lock().unwrap().sent += 1;
                let answer = async {
                    let answer = two.get(format!("http://{address}/")).send().await?.error_for_status()?;
                    answer.text().await
                };
                match answer.await {
                    Ok(version) => seen.lock().unwrap().hears(client, version),
                    Err(e) => seen.lock().unwrap().lost.push(format!("{} client {client}: {e:?}", clock::now())),
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    }

    /// So many clients, each of which goes on until it is told to stop.
    fn start<F>(clients: usize, each: impl Fn(usize, Arc<AtomicBool>, Arc<Mutex<Seen>>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let tasks =
            (0..clients).map(|client| tokio::spawn(each(client, Arc::clone(&stop), Arc::clone(&seen)))).collect();
        Self { stop, tasks, seen }
    }

    /// Waits until every client hears this version; says when the last one heard another.
    async fn all_hear(&self, version: &str) -> Option<Timestamp> {
        let moved = async {
            while !self.seen.lock().unwrap().last.values().all(|v| v == version) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, moved).await.expect("some client stays where it is");
        let seen = self.seen.lock().unwrap();
        seen.heard.iter().filter(|((_, v), _)| v != version).map(|(_, at)| *at).max()
    }

    async fn leave(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

/// An upgraded connection that speaks all the time; how long it lived, and how often it was answered.
fn upgraded(address: SocketAddr) -> JoinHandle<(Duration, u32)> {
    tokio::spawn(async move {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let ask = "GET /ws HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
        socket.write_all(ask.as_bytes()).await.unwrap();
        let mut head = vec![0; 256];
        let n = socket.read(&mut head).await.unwrap();
        assert!(head[..n].starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head[..n]));
        let (begun, mut answers) = (std::time::Instant::now(), 0);
        loop {
            let mut back = [0; 4];
            if socket.write_all(b"ping").await.is_err() || socket.read_exact(&mut back).await.is_err() {
                return (begun.elapsed(), answers);
            }
            answers += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pools_that_never_close_and_long_requests() {
    let Some(bench) = Bench::new("pools_that_never_close_and_long_requests").await else { return };
    let cluster = bench.ns.cluster;
    let (one, two) = (cluster.push_app("pinned/web", "one", POLITE), cluster.push_app("pinned/web", "two", POLITE));
    let first = desired("one", vec![Wanted::web(&one)]);
    let (end, progress) = bench.release(&first).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let address = bench.address("web");
    answers(address, "one");
    let (pool, two_pool) = (Pool::of(10, address), Pool::of_two(10, address));
    let socket = upgraded(address);

    let second = desired("two", vec![Wanted::web(&two)]);
    let client = reqwest::Client::builder().no_proxy().pool_idle_timeout(None).timeout(DEADLINE).build().unwrap();
    // Its connection leads to the old version before anything begins.
    let answer = client.get(format!("http://{address}/")).send().await.unwrap().text().await.unwrap();
    assert_eq!(answer, "one");
    let journal = bench.journal(&second);
    let target = bench.target();
    let driven = drive(&second, Progress::new(&second, clock::now()), &target, &journal, CancellationToken::new());
    // A request that begins before the flip and ends long after it, and after its pod was told to end.
    #[expect(clippy::async_yields_async, reason = "the request goes on beside the release")]
    let long = async {
        while journal.progress().is_none_or(|p| p.end.is_none() && p.phase < Phase::Switch) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let client = client.clone();
        let url = format!("http://{address}/slow?ms=20000");
        tokio::spawn(async move {
            let answer = client.get(url).send().await?;
            reqwest::Result::Ok((answer.status().as_u16(), answer.text().await?))
        })
    };
    let (end, long) = tokio::join!(driven, long);
    let DriveEnd::Ended(end, progress) = end.unwrap() else { panic!("handed back") };
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let over = clock::now();
    let flip = progress.switched_at().unwrap();
    let last = pool.all_hear("two").await.unwrap();
    let last_two = two_pool.all_hear("two").await.unwrap();
    println!(
        "there: last pinned connection on the old version {} ms after the flip, of HTTP/2 {} ms (drain {} ms), release over \
         after {} ms",
        last.duration_since(flip).as_millis(),
        last_two.duration_since(flip).as_millis(),
        second.drain_timeout.as_millis(),
        over.duration_since(flip).as_millis(),
    );
    let answer = long.await.unwrap().expect("a 20 s request across the flip was cut");
    assert_eq!(answer, (200, "one".to_owned()));
    let (lived, answers) = socket.await.unwrap();
    println!("the upgraded connection lived for {lived:?} and was answered {answers} times");
    assert!(lived > second.drain_timeout, "{lived:?}");

    // And back: at once.
    let (end, progress) = bench.release(&back_to(&first)).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let flip = progress.switched_at().unwrap();
    let last = pool.all_hear("one").await.unwrap();
    let last_two = two_pool.all_hear("one").await.unwrap();
    println!(
        "back: last pinned connection left {} ms after the flip, of HTTP/2 {} ms",
        last.duration_since(flip).as_millis(),
        last_two.duration_since(flip).as_millis()
    );
    for (what, pool) in [("HTTP/1.1", pool), ("HTTP/2", two_pool)] {
        let seen = pool.leave().await;
        println!(
            "{what}: {} requests of 10 pooled clients, {} ends of connections, {} lost",
            seen.sent,
            seen.ended,
            seen.lost.len()
        );
        let lost = &seen.lost;
        assert!(seen.sent > 1000 && lost.is_empty(), "{what}: {} of {}: {lost:#?}", lost.len(), seen.sent);
    }
}

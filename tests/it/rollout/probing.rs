//! The prober against servers of every kind.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use switchover::{
    clock,
    rollout::{ProbeTarget, prober::Prober},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::model::{app, slot};

/// A server that gives each connection to this.
async fn serve<F, R>(on: F) -> SocketAddr
where
    F: Fn(tokio::net::TcpStream) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let on = Arc::new(on);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(on(stream));
        }
    });
    address
}

/// Answers requests with this, `times` on each connection; says so with the last one, as a server should.
async fn answer(mut stream: tokio::net::TcpStream, text: &'static str, times: usize) {
    let mut buffer = vec![0; 8192];
    for left in (0..times).rev() {
        let text = if left == 0 { text.replacen("\r\n", "\r\nConnection: close\r\n", 1) } else { text.to_owned() };
        if !matches!(stream.read(&mut buffer).await, Ok(n) if n > 0) || stream.write_all(text.as_bytes()).await.is_err()
        {
            return;
        }
    }
}

fn target(address: SocketAddr) -> ProbeTarget {
    ProbeTarget {
        https: false,
        app: app("web"),
        address,
        host: "shop.example.com".into(),
        path: "/health".into(),
        body: None,
        interval: Duration::from_millis(2),
    }
}

async fn after(prober: &Prober, n: u64) {
    let enough = async {
        while prober.figures().sent < n {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), enough).await.expect("no probes");
}

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Switchover-Release: new\r\n\r\nok";

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_closed_between_two_requests_is_no_loss() {
    let address = serve(|s| answer(s, GOOD, 3)).await;
    let prober = Prober::start(vec![target(address)]);
    after(&prober, 200).await;
    let figures = prober.stop().await;
    assert_eq!(figures.failed, 0, "{:?}", figures.failures);
    assert!(figures.fresh > 0 && figures.fresh < figures.sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn losses_are_told_in_words() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let cases = [
        (serve(|s| answer(s, "HTTP/1.1 503 Sorry\r\nContent-Length: 0\r\n\r\n", 99)).await, "GET /health answered 503"),
        (serve(|s| answer(s, "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", 99)).await, "GET /health answered 302"),
        (serve(|s| answer(s, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", 1)).await, "the answer broke off"),
        (serve(|s| answer(s, "SSH-2.0-OpenSSH_9.2\r\n\r\n", 1)).await, "GET /health: invalid HTTP"),
        (serve(|s| answer(s, "", 1)).await, "GET /health: connection closed before message completed"),
        (closed, "can't connect"),
    ];
    for (address, words) in cases {
        let prober = Prober::start(vec![target(address)]);
        after(&prober, 20).await;
        let figures = prober.stop().await;
        assert_eq!(figures.failed, figures.sent, "{words}");
        assert_eq!(figures.failures.len(), 5);
        assert!(figures.failures[0].words.contains(words), "{:?}", figures.failures[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flip_divides_the_figures() {
    let address = serve(|s| answer(s, GOOD, 1000)).await;
    let prober = Prober::start(vec![target(address)]);
    after(&prober, 40).await;
    assert_eq!(prober.windows()[&app("web")].sent, 0, "before the flip nothing is judged");
    let flip = clock::now();
    after(&prober, prober.figures().sent + 40).await;
    // Told late, as after a slow answer of the agent: answers by the slot that was left are known all the same.
    prober.flipped(&app("web"), flip, Some(&slot("new")), false);
    after(&prober, prober.figures().sent + 200).await;
    let window = prober.windows()[&app("web")].clone();
    assert_eq!((window.sent, window.failed, window.blind), (50, 0, false));
    prober.forget();
    let figures = prober.stop().await;
    assert!(figures.before.count() >= 40 && figures.after.count() >= 200, "{figures:?}");
    assert_eq!(figures.before.count() + figures.after.count(), figures.sent);
    assert!(figures.last_old_ms.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_that_never_worked_are_blind() {
    let address = serve(|s| answer(s, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 99)).await;
    let prober = Prober::start(vec![target(address)]);
    after(&prober, 40).await;
    prober.flipped(&app("web"), clock::now(), None, false);
    after(&prober, prober.figures().sent + 40).await;
    let window = prober.windows()[&app("web")].clone();
    assert!(window.blind && window.failed > 0, "{window:?}");
}

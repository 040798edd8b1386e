//! The demo's load: constant requests to every app, on fresh and on kept-alive connections, with bodies, and some that
//! take two seconds. Each is counted, and each loss is told in words.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::JoinSet, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::counter::{Answer, Counter, Kind};
use crate::clock;

/// After so long without an answer a request counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// At most so many requests wait for an answer at once; while they do, no more are sent.
const OPEN: usize = 400;

/// An app that requests go to.
#[derive(Debug, Clone)]
pub struct Visited {
    /// Its name.
    pub app: String,
    /// Where it answers.
    pub url: Url,
    /// What it is asked for.
    pub paths: Paths,
}

/// What visitors ask an app for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paths {
    /// GET, answered at once.
    pub get: &'static str,
    /// POST.
    pub post: &'static str,
    /// GET that takes two seconds, where the app has such a thing.
    pub slow: &'static str,
}

impl Default for Paths {
    fn default() -> Self {
        Self { get: "/", post: "/orders", slow: "/slow?ms=2000" }
    }
}

/// Of 31 requests ten are fresh, ten kept-alive, ten POSTs, one takes two seconds.
fn kind(n: u64) -> Kind {
    match n % 31 {
        30 => Kind::Slow,
        rest => match rest % 3 {
            0 => Kind::Fresh,
            1 => Kind::Kept,
            _ => Kind::Post,
        },
    }
}

struct Clients {
    fresh: reqwest::Client,
    kept: reqwest::Client,
}

/// Sends `rate` requests a second, in turn to each app, until `shutdown`; then waits for the answers under way. A
/// request is lost when nothing, half an answer or a 5xx comes back: whatever else an app says, it did answer.
///
/// # Errors
/// When no HTTP client can be made.
pub async fn run(
    apps: Vec<Visited>,
    counter: Arc<Counter>,
    rate: u32,
    shutdown: CancellationToken,
) -> Result<(), reqwest::Error> {
    let builder =
        || reqwest::Client::builder().no_proxy().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none());
    let clients = Arc::new(Clients {
        fresh: builder().pool_max_idle_per_host(0).build()?,
        kept: builder().pool_idle_timeout(Duration::from_secs(30)).build()?,
    });
    let apps: Vec<Arc<Visited>> = apps.into_iter().map(Arc::new).collect();
    if apps.is_empty() {
        return Ok(());
    }
    let open = Arc::new(Semaphore::new(OPEN));
    let mut beat = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
    // After a pause of the machine no burst: the rate is what people see.
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut under_way = JoinSet::new();
    for n in 0_u64.. {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = beat.tick() => {}
        }
        while under_way.try_join_next().is_some() {}
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            permit = open.clone().acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let app = apps[usize::try_from(n % apps.len() as u64).unwrap_or_default()].clone();
        // Each app gets all kinds: the round over the apps comes first.
        let kind = kind(n / apps.len() as u64);
        let (clients, counter) = (clients.clone(), counter.clone());
        under_way.spawn(async move {
            visit(&clients, &app, kind, &counter).await;
            drop(permit);
        });
    }
    while under_way.join_next().await.is_some() {}
    Ok(())
}

async fn visit(clients: &Clients, app: &Visited, kind: Kind, counter: &Counter) {
    let started = counter.now();
    let result = ask(clients, app, kind).await;
    let answer = Answer {
        app: &app.app,
        kind,
        started,
        ended: counter.now(),
        result: result.as_ref().map(Option::as_deref).map_err(String::as_str),
    };
    counter.record(&answer, clock::now());
}

async fn ask(clients: &Clients, app: &Visited, kind: Kind) -> Result<Option<String>, String> {
    let url = |path: &str| app.url.join(path).unwrap_or_else(|_| app.url.clone());
    let request = match kind {
        Kind::Fresh => clients.fresh.get(url(app.paths.get)),
        Kind::Kept => clients.kept.get(url(app.paths.get)),
        Kind::Post => clients.kept.post(url(app.paths.post)).body("a pen, two pots of ink"),
        Kind::Slow => clients.fresh.get(url(app.paths.slow)),
    };
    let response = request.send().await.map_err(|e| words(&e))?;
    let status = response.status();
    let release = response.headers().get("x-release").and_then(|v| v.to_str().ok()).map(str::to_owned);
    // All of it: an answer that breaks off is lost.
    let body = response.bytes().await.map_err(|e| words(&e))?;
    if status.is_server_error() {
        return Err(format!("answered {status}"));
    }
    Ok(release.or_else(|| told(&body)).map(|r| r.chars().take(60).collect()))
}

/// Where there is no header: `release: NAME` or `"release": "NAME"` in the first bytes of the answer.
fn told(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(&body[..body.len().min(4096)]).into_owned();
    let (_, rest) = text.split_once("release")?;
    let name = rest.trim_start_matches(['"', ':', '=', ' ']);
    let end = name.find(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c))).unwrap_or(name.len());
    (end > 0).then(|| name[..end].to_owned())
}

fn words(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if error.is_timeout() {
        format!("no answer within {} s", PATIENCE.as_secs())
    } else if error.is_connect() {
        format!("could not connect: {cause}")
    } else if error.is_body() || error.is_decode() {
        format!("the answer broke off: {cause}")
    } else {
        format!("no answer: {cause}")
    }
}

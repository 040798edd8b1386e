//! The addresses of the pages, on top of whatever knows the answers.

use std::{collections::VecDeque, fmt, io, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use askama::Template;
use bytes::Bytes;
use futures_util::{Stream, future::BoxFuture, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    error::{self, ErrorPage},
    layout::{self, Crumb, Head, Place},
    log::{self, LogLine, LogWindow, WireWindow},
    overview::OverviewPage,
    pieces::Markup,
    release::ReleasePage,
    run::RunPage,
};
use crate::web::assets;

/// Answers of a [`Source`].
pub type Answer<'a, T> = BoxFuture<'a, Result<T, ErrorPage>>;

/// Bytes of a log as they lie on disk.
pub type RawLog = std::pin::Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// What the pages are made from: the store and the logs, behind one door. Ids come from addresses: anything may stand
/// in them, and an unknown one is [`ErrorPage::not_found`].
pub trait Source: Send + Sync + 'static {
    /// Everything at a glance.
    fn overview(&self) -> Answer<'_, OverviewPage>;
    /// One run, each step with the last [`log::TAIL`] lines of its log.
    fn run<'a>(&'a self, id: &'a str) -> Answer<'a, RunPage>;
    /// One release.
    fn release<'a>(&'a self, id: &'a str) -> Answer<'a, ReleasePage>;
    /// What a step is called.
    fn step<'a>(&'a self, step: &'a str) -> Answer<'a, StepName>;
    /// At most `count` lines of a step's log from line `from` (from 1) on. `from` may be past the end: no lines then.
    fn lines<'a>(&'a self, step: &'a str, from: usize, count: usize) -> Answer<'a, LogWindow>;
    /// The whole log as text.
    fn raw<'a>(&'a self, step: &'a str) -> Answer<'a, RawLog>;
    /// Changes whenever something that pages show has changed.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// What a step is called, for the page of its log alone.
#[derive(Debug, Clone, Default)]
pub struct StepName {
    /// The app.
    pub app: String,
    /// The step.
    pub name: String,
    /// The page of its run.
    pub run_href: String,
}

type Shared = web::Data<Arc<dyn Source>>;

/// Adds `/`, `/runs/{id}`, `/releases/{id}`, `/logs/{step}` with its parts, `/live` and `/assets/…`.
pub fn configure(config: &mut web::ServiceConfig, source: Arc<dyn Source>) {
    config
        .configure(assets::configure)
        .configure(|config| error::configure(config, Place::Switchover))
        .app_data(web::Data::new(source))
        .app_data(web::QueryConfig::default().error_handler(|error, _| {
            ErrorPage::refused(
                StatusCode::BAD_REQUEST,
                "This address makes no sense.",
                format!("{error}."),
                "Line numbers are whole numbers from 1 on: correct the part behind the question mark, or leave it out.",
            )
            .into()
        }))
        .route("/", web::get().to(overview))
        .route("/live", web::get().to(live))
        .route("/runs/{id}", web::get().to(run))
        .route("/releases/{id}", web::get().to(release))
        .route("/logs/{step}", web::get().to(log_page))
        .route("/logs/{step}/lines", web::get().to(log_lines))
        .route("/logs/{step}/events", web::get().to(log_events))
        .route("/logs/{step}/find", web::get().to(log_find))
        .route("/logs/{step}/raw", web::get().to(log_raw));
}

async fn overview(source: Shared) -> Result<HttpResponse, ErrorPage> {
    Ok(layout::respond(StatusCode::OK, source.overview().await?.render()))
}

async fn run(source: Shared, id: web::Path<String>) -> Result<HttpResponse, ErrorPage> {
    Ok(layout::respond(StatusCode::OK, source.run(&id).await?.render()))
}

async fn release(source: Shared, id: web::Path<String>) -> Result<HttpResponse, ErrorPage> {
    Ok(layout::respond(StatusCode::OK, source.release(&id).await?.render()))
}

#[derive(Deserialize)]
struct WindowQuery {
    #[serde(default)]
    from: Option<usize>,
    #[serde(default)]
    count: Option<usize>,
}

#[derive(Template)]
#[template(path = "log.html")]
struct LogTemplate<'a> {
    step_id: &'a str,
    step: &'a StepName,
    body: Markup,
    total: usize,
    first: usize,
    last: usize,
    earlier: Option<usize>,
    later: Option<usize>,
    query: &'a str,
    found: Option<usize>,
}

/// One log alone, a window at a time: reads well without script.
async fn log_page(
    source: Shared,
    id: web::Path<String>,
    query: web::Query<WindowQuery>,
) -> Result<HttpResponse, ErrorPage> {
    const PAGE: usize = 1_000;
    let step = source.step(&id).await?;
    let from = query.from.unwrap_or(1).max(1);
    let window = source.lines(&id, from, PAGE).await?;
    let last = window.lines.last().map_or(from.saturating_sub(1), |line| line.n);
    let page = LogTemplate {
        step_id: &id,
        step: &step,
        body: log::lines_html(&crate::domain::show::log_anchor(&step.app, &step.name), &window.lines, None),
        total: window.total,
        first: from,
        last,
        earlier: (from > 1).then(|| from.saturating_sub(PAGE).max(1)),
        later: (last < window.total).then_some(last + 1),
        query: "",
        found: None,
    };
    Ok(respond_log(&step, &page))
}

fn respond_log(step: &StepName, page: &LogTemplate<'_>) -> HttpResponse {
    let title = format!("Log of {} / {}", step.app, step.name);
    let crumbs = vec![Crumb::to("run", &step.run_href), Crumb::here(format!("{} / {}", step.app, step.name))];
    layout::respond(StatusCode::OK, layout::render(&Head { title: &title, crumbs, ..Head::default() }, page))
}

async fn log_lines(
    source: Shared,
    id: web::Path<String>,
    query: web::Query<WindowQuery>,
) -> Result<HttpResponse, ErrorPage> {
    let count = query.count.unwrap_or(log::TAIL).min(log::MAX_WINDOW);
    let window = source.lines(&id, query.from.unwrap_or(1).max(1), count).await?;
    Ok(json(&WireWindow::from(&window)))
}

fn json(value: &impl Serialize) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    layout::secure(&mut response);
    response.json(value)
}

#[derive(Deserialize)]
struct FindQuery {
    #[serde(default)]
    q: String,
}

#[derive(Debug, Serialize)]
struct Found {
    /// Line numbers.
    matches: Vec<usize>,
    /// More lines match than are told.
    more: bool,
}

/// Lines that contain a text, letters of either case alike: numbers for the script, lines for a reader without it.
async fn log_find(
    request: HttpRequest,
    source: Shared,
    id: web::Path<String>,
    query: web::Query<FindQuery>,
) -> Result<HttpResponse, ErrorPage> {
    let step = source.step(&id).await?;
    let wants_json = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.starts_with("application/json"));
    let needle = log::needle(query.q.trim());
    let limit = if wants_json { log::MAX_MATCHES } else { log::TAIL };
    let (mut hits, mut next, mut total) = (Vec::<LogLine>::new(), 1, 0);
    while !needle.is_empty() && hits.len() <= limit {
        let window = source.lines(&id, next, log::MAX_WINDOW).await?;
        total = window.total;
        let Some(last) = window.lines.last() else { break };
        next = last.n + 1;
        hits.extend(
            window.lines.into_iter().filter(|line| !log::find(&super::ansi::plain(&line.text), &needle).is_empty()),
        );
        // A long log must not keep others waiting on this thread.
        tokio::task::yield_now().await;
    }
    let more = hits.len() > limit;
    hits.truncate(limit);
    if wants_json {
        return Ok(json(&Found { matches: hits.iter().map(|line| line.n).collect(), more }));
    }
    let anchor = crate::domain::show::log_anchor(&step.app, &step.name);
    let page = LogTemplate {
        step_id: &id,
        step: &step,
        body: log::lines_html(&anchor, &hits, Some((&needle, &format!("/logs/{id}")))),
        total,
        first: 0,
        last: 0,
        earlier: None,
        later: None,
        query: &query.q,
        found: Some(hits.len()),
    };
    Ok(respond_log(&step, &page))
}

async fn log_raw(source: Shared, id: web::Path<String>) -> Result<HttpResponse, ErrorPage> {
    let step = source.step(&id).await?;
    let bytes = source.raw(&id).await?;
    let name = crate::domain::show::log_anchor(&step.app, &step.name);
    let mut response = HttpResponse::Ok();
    layout::secure(&mut response);
    Ok(response
        .insert_header((header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}.log\"")))
        .content_type("text/plain; charset=utf-8")
        .streaming(bytes))
}

/// A server-sent event ("Server-sent events" in the HTML standard). `data` has no line breaks: it is JSON.
pub(crate) fn event(name: &str, id: Option<usize>, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).unwrap_or_else(|_| "null".to_owned());
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    Bytes::from(format!("event: {name}\n{id}data: {data}\n\n"))
}

/// Answers with a stream of events.
pub(crate) fn events(stream: impl Stream<Item = Bytes> + 'static) -> HttpResponse {
    use futures_util::StreamExt as _;
    let mut response = HttpResponse::Ok();
    layout::secure(&mut response);
    response
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // A proxy in front must pass events on at once.
        .insert_header(("X-Accel-Buffering", "no"))
        .content_type("text/event-stream; charset=utf-8")
        .streaming(stream.map(Ok::<_, Closed>))
}

#[derive(Debug)]
pub(crate) struct Closed;
impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the stream of events was closed")
    }
}
impl std::error::Error for Closed {}

/// Says `changed` whenever something changed, and a comment every 20 s so that a dead connection is noticed.
async fn live(source: Shared) -> HttpResponse {
    events(changes(source.changes()))
}

pub(crate) fn changes(receiver: watch::Receiver<u64>) -> impl Stream<Item = Bytes> {
    stream::unfold((receiver, true), |(mut receiver, first)| async move {
        if first {
            receiver.mark_unchanged();
            return Some((Bytes::from_static(b"retry: 1000\n: here\n\n"), (receiver, false)));
        }
        match tokio::time::timeout(Duration::from_secs(20), receiver.changed()).await {
            Ok(Ok(())) => {
                let version = *receiver.borrow_and_update();
                Some((event("changed", None, &version), (receiver, false)))
            }
            // Nobody will change anything any more.
            Ok(Err(_)) => None,
            Err(_) => Some((Bytes::from_static(b": still here\n\n"), (receiver, false))),
        }
    })
}

/// New lines of a log as they come; `end` when no more will come. A browser that comes back says with `Last-Event-ID`
/// which line it had last.
async fn log_events(
    request: HttpRequest,
    source: Shared,
    id: web::Path<String>,
    query: web::Query<WindowQuery>,
) -> Result<HttpResponse, ErrorPage> {
    let seen = request.headers().get("Last-Event-ID").and_then(|id| id.to_str().ok()?.parse::<usize>().ok());
    let from = seen.map(|n| n.saturating_add(1)).or(query.from).unwrap_or(1).max(1);
    source.lines(&id, from, 0).await?;
    let follow = Follow { source, id: id.into_inner(), next: from, ready: VecDeque::new(), ended: false };
    Ok(events(stream::unfold(follow, Follow::step)))
}

struct Follow {
    source: Shared,
    id: String,
    next: usize,
    ready: VecDeque<Bytes>,
    ended: bool,
}

impl Follow {
    /// How often the log is looked at: fast enough to look live, slow enough for a hundred readers.
    const LOOK: Duration = Duration::from_millis(200);

    async fn step(mut self) -> Option<(Bytes, Self)> {
        let mut quiet = 0_u32;
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some((bytes, self));
            }
            if self.ended {
                return None;
            }
            match self.source.lines(&self.id, self.next, log::MAX_WINDOW).await {
                Ok(window) if !window.lines.is_empty() => {
                    let last = window.lines.last().map_or(self.next, |line| line.n);
                    self.next = last + 1;
                    self.ready.push_back(event("lines", Some(last), &WireWindow::from(&window)));
                }
                Ok(window) if window.done => {
                    self.ready.push_back(event("end", None, &window.total));
                    self.ended = true;
                }
                Ok(_) => {
                    tokio::time::sleep(Self::LOOK).await;
                    quiet += 1;
                    if quiet == 100 {
                        return Some((Bytes::from_static(b": still here\n\n"), self));
                    }
                }
                // The log was cleaned up meanwhile: the page that is reloaded says so.
                Err(_) => return None,
            }
        }
    }
}

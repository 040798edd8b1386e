//! The HTTP server: where each path leads, and answers that break on demand.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    body::{BodyStream, SizedStream},
    middleware, web,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    Inner, StandIn, StandInConfig, StandInError, api,
    faults::{Faults, Order},
    git_http, guard,
    model::{Exchange, Model},
    pages, web as forms,
};

/// Bodies larger than this are refused; pushes are streamed and have no limit.
const MAX_BODY: usize = 32 * 1024 * 1024;
/// Requests kept in the log when nothing is recorded.
const MAX_LOG: usize = 10_000;

pub(super) async fn start(config: StandInConfig) -> Result<StandIn, StandInError> {
    let folder = config.data.join("git");
    tokio::fs::create_dir_all(&folder)
        .await
        .map_err(StandInError::io(format!("cannot make the folder {}", folder.display())))?;
    let data = tokio::fs::canonicalize(&config.data)
        .await
        .map_err(StandInError::io(format!("cannot read the folder {}", config.data.display())))?;
    let listener = std::net::TcpListener::bind(config.listen)
        .map_err(StandInError::io(format!("cannot listen on {}", config.listen)))?;
    let address = listener.local_addr().map_err(StandInError::io("cannot tell the own address"))?;
    let web = Url::parse(&format!("http://{address}/"))
        .map_err(|e| StandInError::Refused(format!("{address} makes no address: {e}")))?;
    let http = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(|e| StandInError::Refused(format!("cannot make an HTTP client: {e}")))?;
    let standin = StandIn(Arc::new(Inner {
        model: Mutex::new(Model::default()),
        faults: Faults::default(),
        web,
        data,
        record: config.record,
        http,
        runtime: tokio::runtime::Handle::current(),
        stop: CancellationToken::new(),
        server: Mutex::new(None),
        changed: watch::channel(0).0,
        locks: Mutex::default(),
        held: Mutex::default(),
        limits: Mutex::default(),
    }));
    let shared = standin.clone();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(shared.clone()))
            .app_data(web::PayloadConfig::new(MAX_BODY))
            .app_data(
                web::FormConfig::default().limit(MAX_BODY).error_handler(|error, _| pages::unreadable(&error).into()),
            )
            .app_data(web::JsonConfig::default().limit(MAX_BODY))
            .wrap(middleware::NormalizePath::trim())
            .configure(routes)
    })
    .workers(2)
    .disable_signals()
    .listen(listener)
    .map_err(StandInError::io("cannot listen"))?
    .run();
    *guard(&standin.0.server) = Some(server.handle());
    tokio::spawn(server);
    Ok(standin)
}

fn routes(cfg: &mut web::ServiceConfig) {
    cfg.route("/_standin/faults", web::post().to(order)).route("/_standin/log", web::get().to(log));
    forms::configure(cfg);
    git_http::configure(cfg);
    // GitHub Enterprise Server's place for the API, and api.github.com's.
    cfg.service(web::resource("/api/v3/{tail:.*}").to(api::entry));
    for path in [
        "/app",
        "/app/{tail:.*}",
        "/app-manifests/{tail:.*}",
        "/installation/{tail:.*}",
        "/repos/{tail:.*}",
        "/repositories/{tail:.*}",
        "/users/{tail:.*}",
        "/orgs/{org}/teams/{tail:.*}",
        "/rate_limit",
    ] {
        cfg.service(web::resource(path).to(api::entry));
    }
    pages::configure(cfg);
}

/// `POST /_standin/faults`: the faults of [`Order`], for another process.
async fn order(standin: web::Data<StandIn>, order: web::Json<Order>) -> HttpResponse {
    let order = order.into_inner();
    let faults = standin.faults();
    if order.clear {
        faults.clear();
    }
    order.rules.into_iter().for_each(|rule| faults.add(rule));
    order.hooks.into_iter().for_each(|rule| faults.add_hook(rule));
    if let Some(down) = order.down {
        faults.down(down);
    }
    if let Some(down) = order.git_down {
        faults.git_down(down);
    }
    if let Some(limit) = order.rate_limit {
        faults.rate_limit(limit);
    }
    if let Some(release) = order.release {
        standin.release_held(release);
    }
    HttpResponse::NoContent().finish()
}

/// `GET /_standin/log`: requests so far.
async fn log(standin: web::Data<StandIn>) -> HttpResponse {
    HttpResponse::Ok().json(json!({"requests": standin.read(|m| m.log.clone())}))
}

/// Keeps a request in the log.
pub(super) fn note(standin: &StandIn, exchange: Exchange) {
    standin.write(|m| {
        if !standin.0.record && m.log.len() >= MAX_LOG {
            m.log.drain(..MAX_LOG / 2);
        }
        m.log.push(exchange);
    });
}

/// An answer that never comes: the connection closes before the first byte. A body that fails at once ends the
/// connection before its head is written.
pub(super) fn drop_connection() -> HttpResponse {
    let broken = stream::once(async { Err::<Bytes, std::io::Error>(std::io::ErrorKind::ConnectionAborted.into()) });
    HttpResponse::Ok().body(BodyStream::new(broken))
}

/// An answer that breaks off after half of its body.
pub(super) fn truncated(like: &HttpResponse, text: Bytes) -> HttpResponse {
    let half = text.slice(..text.len() / 2);
    let begin = stream::once(async move { Ok(half) });
    let end = stream::once(async {
        // Long enough for the half to be on its way.
        tokio::time::sleep(Duration::from_millis(30)).await;
        Err::<Bytes, std::io::Error>(std::io::ErrorKind::ConnectionAborted.into())
    });
    let mut response = HttpResponse::build(like.status());
    for (name, value) in like.headers() {
        response.insert_header((name.clone(), value.clone()));
    }
    response.body(SizedStream::new(text.len() as u64, begin.chain(end).boxed_local()))
}

/// An ETag: GitHub's differ by token ("Best practices for using the REST API", conditional requests).
pub(super) fn etag(auth: &[u8], body: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    (auth, body).hash(&mut hasher);
    format!("W/\"{:016x}\"", hasher.finish())
}

/// What is left of an hour's requests.
pub(super) struct Limit {
    pub limit: u32,
    pub used: u32,
    pub reset: i64,
}

/// Counts a request of a token.
pub(super) fn count(standin: &StandIn, auth: &[u8], free: bool) -> Limit {
    let now = crate::clock::now().as_second();
    let limit = standin.0.faults.hourly();
    let mut limits = guard(&standin.0.limits);
    let (used, reset) = limits.entry(auth.to_vec()).or_insert((0, now + 3600));
    if *reset <= now {
        (*used, *reset) = (0, now + 3600);
    }
    if !free {
        *used += 1;
    }
    Limit { limit, used: *used, reset: *reset }
}

/// What version 2026-03-10 no longer answers ("Breaking changes", version 2026-03-10).
pub(super) fn drop_removed(body: &mut Value) {
    match body {
        Value::Array(items) => items.iter_mut().for_each(drop_removed),
        Value::Object(map) => {
            for name in ["has_downloads", "merge_commit_sha", "assignee", "rate", "use_squash_pr_title_as_default"] {
                map.remove(name);
            }
            map.values_mut().for_each(drop_removed);
        }
        _ => {}
    }
}

/// A header of a request as text.
pub(super) fn header<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    request.headers().get(name).and_then(|v| v.to_str().ok())
}

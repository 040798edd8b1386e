//! The counter as a page: numbers, the strip, the buttons.

use std::{sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, http::header, web};
use askama::Template;
use bytes::Bytes;
use futures_util::{future::BoxFuture, stream};
use serde::Serialize;

use super::{Counter, CounterSnapshot, EventLine, Kind};
use crate::{
    domain::show::{self, ReleaseLine},
    web::{
        assets,
        pages::{
            self, ErrorPage,
            layout::{self, Head, Place},
            pieces::{self, Markup},
            release::thousands,
            routes,
        },
    },
};

/// A button: its name, and what stands on it.
pub type Button = (&'static str, &'static str, &'static str);

/// All buttons.
pub const BUTTONS: [Button; 4] = [
    ("push-good", "Push a good commit", "tested, released, switched to, watched"),
    ("push-bad", "Push a bad one", "turns unhealthy after the switch: the watch takes it back"),
    ("kill-server", "Kill the server", "kill -9, then started again: requests never notice"),
    ("rollback", "Roll back", "the release before answers at once"),
];

/// What the buttons do, and where else there is to look.
pub trait Actions: Send + Sync + 'static {
    /// Does what the button of this name says ([`BUTTONS`]), and tells what was done or why not, in a sentence.
    fn act<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<String, String>>;

    /// The buttons that there are.
    fn buttons(&self) -> Vec<Button> {
        BUTTONS.to_vec()
    }

    /// Whether the apps say which release answers (`x-release`).
    fn tells_releases(&self) -> bool {
        true
    }

    /// Places to look at: what it is called, and its address.
    fn links(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

struct Shared {
    counter: Arc<Counter>,
    actions: Arc<dyn Actions>,
}

/// Adds the page at `/`, its events, its buttons and the assets.
pub fn configure(config: &mut web::ServiceConfig, counter: Arc<Counter>, actions: Arc<dyn Actions>) {
    config
        .configure(assets::configure)
        .configure(|config| pages::error::configure(config, Place::Counter))
        .app_data(web::Data::new(Shared { counter, actions }))
        .route("/", web::get().to(page))
        .route("/counter.json", web::get().to(json))
        .route("/release", web::get().to(release))
        .route("/events", web::get().to(events))
        .route("/actions/{name}", web::post().to(act));
}

#[derive(Template)]
#[template(path = "counter.html")]
struct CounterTemplate<'a> {
    now: &'a CounterSnapshot,
    links: &'a [(String, String)],
    buttons: &'a [Button],
    /// Nobody has answered yet, and whoever will says so.
    waiting: bool,
    /// What is sent: its id, in words, how many.
    kinds: [(&'static str, &'static str, String); 4],
    release: Markup,
}

/// The release that is drawn: a part of the page that the script fetches again when it changed.
#[derive(Template)]
#[template(path = "counter_release.html")]
struct ReleaseTemplate<'a> {
    lines: &'a [(String, ReleaseLine)],
}

fn drawn(counter: &Counter) -> Markup {
    Markup::of(&ReleaseTemplate { lines: &counter.release_lines() })
}

async fn release(shared: web::Data<Shared>) -> HttpResponse {
    layout::respond(StatusCode::OK, drawn(&shared.counter).to_string())
}

impl EventLine {
    fn shown(&self) -> String {
        if self.times > 1 { format!("{} (×{})", self.text, self.times) } else { self.text.clone() }
    }
}

fn switch(now: &CounterSnapshot) -> String {
    now.switch_ms.map_or_else(|| "–".to_owned(), show::duration)
}

async fn page(shared: web::Data<Shared>) -> HttpResponse {
    let (now, links, buttons) = (shared.counter.snapshot(), shared.actions.links(), shared.actions.buttons());
    let kinds = [
        ("fresh", "GET, each on a new connection", Kind::Fresh),
        ("kept", "GET on kept-alive connections", Kind::Kept),
        ("post", "POST", Kind::Post),
        ("slow", "GET that takes two seconds", Kind::Slow),
    ];
    let head = Head {
        title: "Requests",
        place: Place::Counter,
        scripts: vec![&assets::COUNTER_SCRIPT],
        slots: true,
        ..Head::default()
    };
    layout::respond(
        StatusCode::OK,
        layout::render(
            &head,
            &CounterTemplate {
                now: &now,
                links: &links,
                buttons: &buttons,
                waiting: now.apps.is_empty() && shared.actions.tells_releases(),
                kinds: kinds.map(|(id, words, kind)| (id, words, thousands(now.kinds.get(&kind).unwrap_or(&0)))),
                release: drawn(&shared.counter),
            },
        ),
    )
}

async fn json(shared: web::Data<Shared>) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    layout::secure(&mut response);
    response.json(shared.counter.snapshot())
}

/// A snapshot four times a second.
async fn events(shared: web::Data<Shared>) -> HttpResponse {
    let beat = tokio::time::interval(Duration::from_millis(250));
    routes::events(stream::unfold((shared, beat, true), |(shared, mut beat, first)| async move {
        if first {
            return Some((Bytes::from_static(b"retry: 500\n\n"), (shared, beat, false)));
        }
        beat.tick().await;
        let bytes = routes::event("snapshot", None, &shared.counter.snapshot());
        Some((bytes, (shared, beat, false)))
    }))
}

#[derive(Serialize)]
struct Told {
    ok: bool,
    text: String,
}

async fn act(
    request: HttpRequest,
    shared: web::Data<Shared>,
    name: web::Path<String>,
) -> Result<HttpResponse, ErrorPage> {
    if layout::from_another_site(&request) {
        return Err(ErrorPage::from_another_site().at(Place::Counter));
    }
    let Some((name, label, _)) = shared.actions.buttons().into_iter().find(|(known, ..)| *known == name.as_str())
    else {
        return Err(ErrorPage::not_found("such button").at(Place::Counter));
    };
    let told = match shared.actions.act(name).await {
        Ok(text) => Told { ok: true, text },
        Err(why) => Told { ok: false, text: format!("{label}: not done. {why}") },
    };
    shared.counter.event(&told.text);
    let by_script =
        request.headers().get(header::ACCEPT).is_some_and(|a| a.as_bytes().starts_with(b"application/json"));
    if !by_script {
        return Ok(layout::see_other("/"));
    }
    let mut response = if told.ok { HttpResponse::Ok() } else { HttpResponse::Conflict() };
    layout::secure(&mut response);
    Ok(response.json(told))
}

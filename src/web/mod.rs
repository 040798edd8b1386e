//! actix: webhook, health, metrics, pages. Writes to the store and wakes the engine, nothing else.

pub mod assets;
mod budget;
pub mod intake;
pub mod pages;
pub mod site;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use actix_web::{App, HttpResponse, HttpServer, dev::Server, web};
use secrecy::SecretString;

use crate::{
    engine::{Engine, wake::Wake},
    store::Store,
    telemetry::{Metrics, ResultLabel},
};

/// What the handlers need.
#[derive(Debug)]
pub struct Web {
    /// The store.
    pub store: Store,
    /// The engine's bells.
    pub wake: Wake,
    /// Webhook secrets that are valid now (several during a rotation).
    pub webhook_secrets: Vec<SecretString>,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Memory for bodies.
    pub budget: intake::Budget,
}

/// Adds the routes to an actix application.
pub fn configure(cfg: &mut web::ServiceConfig) {
    cfg.route("/webhooks/github", web::post().to(intake::webhook))
        .route("/healthz", web::get().to(healthz))
        .route("/readyz", web::get().to(readyz))
        .route("/metrics", web::get().to(metrics));
}

/// Binds the server; with an engine, the pages too. It runs when the returned future is awaited; the real addresses
/// are returned.
///
/// # Errors
/// When the address can't be bound.
pub fn bind(
    web: Arc<Web>,
    engine: Option<Engine>,
    listen: SocketAddr,
    workers: usize,
) -> std::io::Result<(Server, Vec<SocketAddr>)> {
    let data = web::Data::from(web);
    let server = HttpServer::new(move || {
        let app = App::new().app_data(data.clone()).configure(configure);
        match &engine {
            Some(engine) => app.configure(|cfg| site::configure(cfg, engine)),
            None => app,
        }
    })
    .workers(workers)
    .disable_signals()
    .client_request_timeout(Duration::from_secs(10))
    .client_disconnect_timeout(Duration::from_secs(2))
    .keep_alive(Duration::from_secs(75))
    .shutdown_timeout(5)
    .bind(listen)?;
    let addresses = server.addrs();
    Ok((server.run(), addresses))
}

async fn healthz() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ok\n")
}

async fn readyz(web: web::Data<Web>) -> HttpResponse {
    if web.store.writable().await {
        HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ready\n")
    } else {
        HttpResponse::ServiceUnavailable()
            .content_type("text/plain; charset=utf-8")
            .body("not ready: the database can't be written (is the disk of the data folder full?)\n")
    }
}

async fn metrics(web: web::Data<Web>) -> HttpResponse {
    if let Ok(counts) = web.store.delivery_counts().await {
        for (state, n) in counts {
            web.metrics.stored.get_or_create(&ResultLabel::of(&state)).set(n);
        }
    }
    if let Ok(n) = web.store.unshown_count().await {
        web.metrics.unshown.set(n);
    }
    HttpResponse::Ok()
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .body(web.metrics.render())
}

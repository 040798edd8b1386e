//! Deployments with their statuses; Apps and the webhooks that were sent to them.

use std::collections::HashMap;

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::{Page, RepoHead, deployment_state, head_of, missing, show, show_page};
use crate::{
    demo::github::{
        StandIn,
        model::{Delivery, Deployment},
        web as forms,
    },
    web::pages::{
        ErrorPage,
        layout::{self, Crumb, Place},
        pieces::{self, State, Tone},
    },
};

/// Deployments on the page.
const DEPLOYMENTS: usize = 50;
/// Deliveries on the page.
const DELIVERIES: usize = 100;
/// Of a payload this much is shown.
const SHOWN: usize = 64 * 1024;

#[derive(serde::Deserialize)]
pub(super) struct Which {
    #[serde(default)]
    environment: String,
}

#[derive(Template)]
#[template(path = "github/deployments.html")]
struct DeploymentsPage {
    head: RepoHead,
    environments: Vec<String>,
    chosen: String,
    deployments: Vec<Deployment>,
}

pub(super) async fn list(
    standin: web::Data<StandIn>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    which: web::Query<Which>,
) -> Page {
    let (head, (environments, deployments)) =
        head_of(&standin, &request, (&path.0, &path.1), "deployments", |_, repo| {
            let mut environments: Vec<String> = Vec::new();
            for deployment in repo.deployments.values() {
                if !environments.contains(&deployment.environment) {
                    environments.push(deployment.environment.clone());
                }
            }
            let chosen = |d: &&Deployment| which.environment.is_empty() || d.environment == which.environment;
            let shown = repo.deployments.values().rev().filter(chosen).take(DEPLOYMENTS).cloned();
            (environments, shown.collect::<Vec<_>>())
        })?;
    let page = DeploymentsPage { head, environments, chosen: which.into_inner().environment, deployments };
    Ok(show(&page.head, "Deployments", Some(Crumb::here("deployments")), &page))
}

/// How a delivery went.
fn delivery_state(delivery: &Delivery) -> State {
    match delivery.status_code {
        _ if !delivery.done => State { sign: "●", word: "on its way", tone: Tone::Running },
        200..=299 => State { sign: "✓", word: "delivered", tone: Tone::Passed },
        _ => State { sign: "✗", word: "failed", tone: Tone::Failed },
    }
}

#[derive(Template)]
#[template(path = "github/deliveries.html")]
struct AppPage {
    slug: String,
    name: String,
    hook: Option<String>,
    installed: Vec<String>,
    deliveries: Vec<Delivery>,
}

pub(super) async fn app(standin: web::Data<StandIn>, slug: web::Path<String>) -> Page {
    let page = standin.read(|m| {
        let app = m.apps.values().find(|a| a.slug == *slug)?;
        let installed = m.installations.values().filter(|i| i.app == app.id).map(|i| i.account.clone());
        Some(AppPage {
            slug: app.slug.clone(),
            name: app.spec.name.clone(),
            hook: app.spec.webhook_url.clone(),
            installed: installed.collect(),
            deliveries: m.deliveries_of(app.id).into_iter().take(DELIVERIES).cloned().collect(),
        })
    });
    let page = page.ok_or_else(|| missing(&format!("App {slug}")))?;
    Ok(show_page(&page.name, vec![Crumb::here(&page.name)], &page))
}

#[derive(Template)]
#[template(path = "github/delivery.html")]
struct DeliveryPage {
    delivery: Delivery,
    payload: String,
    back: String,
}

pub(super) async fn delivery(standin: web::Data<StandIn>, path: web::Path<(String, i64)>) -> Page {
    let (slug, id) = path.into_inner();
    let found = standin.read(|m| {
        let app = m.apps.values().find(|a| a.slug == slug)?;
        m.deliveries.get(&id).filter(|d| d.app == app.id && d.listed).cloned()
    });
    let delivery = found.ok_or_else(|| missing(&format!("delivery {id}")))?;
    let pretty = serde_json::from_str::<serde_json::Value>(&delivery.payload).ok();
    let pretty = pretty.and_then(|value| serde_json::to_string_pretty(&value).ok());
    let mut payload = pretty.unwrap_or_else(|| delivery.payload.clone());
    if payload.len() > SHOWN {
        let end = (0..=SHOWN).rev().find(|i| payload.is_char_boundary(*i)).unwrap_or(0);
        payload.truncate(end);
        payload.push_str("\n… cut here");
    }
    let back = format!("/apps/{slug}");
    let crumbs = vec![Crumb::to(&slug, &back), Crumb::here(&delivery.event)];
    let page = DeliveryPage { delivery, payload, back };
    Ok(show_page("Delivery", crumbs, &page))
}

/// Sends a delivery again: fields `delivery` and `back`.
pub(super) async fn redeliver(
    standin: web::Data<StandIn>,
    request: HttpRequest,
    fields: web::Form<HashMap<String, String>>,
) -> Result<HttpResponse, ErrorPage> {
    if forms::foreign(&request, &standin) {
        return Err(ErrorPage::from_another_site().at(Place::StandIn));
    }
    let text = fields.get("delivery").map_or("", String::as_str);
    let id = text.parse().map_err(|_| missing(&format!("delivery {text:?}")))?;
    standin.redeliver(id)?;
    let back = fields.get("back").map_or("/", |b| pieces::href(b));
    Ok(layout::see_other(if back.starts_with('/') { back } else { "/" }))
}

fn seconds(delivery: &Delivery) -> String {
    // Seconds of one request: small and positive.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and negative ones become 0"
    )]
    let millis = (delivery.duration * 1000.0) as u64;
    crate::domain::show::duration(millis)
}

fn event(delivery: &Delivery) -> String {
    match &delivery.action {
        Some(action) => format!("{}.{action}", delivery.event),
        None => delivery.event.clone(),
    }
}

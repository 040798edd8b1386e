//! The forms behind the pages' buttons, under `/_web`, and the App manifest flow.
//!
//! A button posts a form and comes back to the page it stands on (`back`, a path of this server). The person is the
//! form's `as`, or the cookie `standin_user`: this GitHub has no passwords for its pages, it listens on localhost.

use std::collections::{BTreeMap, HashMap};

use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use jiff::ToSpan;
use serde_json::Value;

use super::{
    StandIn, StandInError,
    model::{AppSpec, Level, Manifest, ReviewState, Role, now},
    ops::{NewPull, person},
};
use crate::web::pages::{
    ErrorPage,
    layout::{self, Place},
};

type Fields = web::Form<HashMap<String, String>>;

pub(super) fn configure(cfg: &mut web::ServiceConfig) {
    cfg.route("/_web/user", web::post().to(choose_user))
        .route("/_web/settings/apps", web::post().to(create_app))
        .route("/_web/apps/{slug}/install", web::post().to(install))
        .route("/_web/{owner}/{repo}/{what}", web::post().to(act))
        .route("/settings/apps/new", web::post().to(manifest))
        .route("/organizations/{org}/settings/apps/new", web::post().to(manifest));
}

/// Back to the page, never to another server.
fn back(fields: &HashMap<String, String>) -> HttpResponse {
    let path = fields.get("back").filter(|b| b.starts_with('/') && !b.starts_with("//") && !b.contains('\\'));
    layout::see_other(path.map_or("/", String::as_str))
}

fn failure(error: &StandInError) -> HttpResponse {
    ErrorPage::from(error).error_response()
}

fn another_site() -> HttpResponse {
    ErrorPage::from_another_site().at(Place::StandIn).error_response()
}

/// A form from another site's page would act in the visitor's name: browsers say where it comes from. Those that send
/// `Sec-Fetch-Site` may say `Origin: null` for our own forms, because our pages send no referrer.
pub(super) fn foreign(request: &HttpRequest, standin: &StandIn) -> bool {
    if request.headers().contains_key("sec-fetch-site") {
        return layout::from_another_site(request);
    }
    let origin = super::server::header(request, "origin");
    origin.is_some_and(|o| o != standin.links().web)
}

fn user(request: &HttpRequest, fields: &HashMap<String, String>, standin: &StandIn) -> Result<String, StandInError> {
    let Some(chosen) = fields.get("as") else {
        return visitor(request, standin).ok_or_else(|| StandInError::Refused("choose who you are first".to_owned()));
    };
    let found = standin.read(|m| m.user(chosen).map(|u| u.login.clone()));
    found.ok_or_else(|| StandInError::NotFound(format!("user {chosen}")))
}

/// Whom the visitor chose to be, by cookie.
pub(super) fn visitor(request: &HttpRequest, standin: &StandIn) -> Option<String> {
    let name = chosen(request)?;
    standin.read(|m| m.user(name).map(|u| u.login.clone()))
}

/// The cookie's content.
pub(super) fn chosen(request: &HttpRequest) -> Option<&str> {
    let cookies = super::server::header(request, "cookie")?;
    cookies.split(';').find_map(|c| c.trim().strip_prefix("standin_user="))
}

async fn choose_user(request: HttpRequest, standin: web::Data<StandIn>, fields: Fields) -> HttpResponse {
    if foreign(&request, &standin) {
        return another_site();
    }
    let name = fields.get("user").cloned().unwrap_or_default();
    let Some(login) = standin.read(|m| m.user(&name).map(|u| u.login.clone())) else {
        return failure(&StandInError::NotFound(format!("user {name}")));
    };
    let mut response = back(&fields);
    // An account's name has no characters that mean something in a cookie.
    if let Ok(cookie) = format!("standin_user={login}; Path=/; HttpOnly; SameSite=Lax").parse() {
        response.headers_mut().insert(actix_web::http::header::SET_COOKIE, cookie);
    }
    response
}

/// One button: `what` says which.
async fn act(
    request: HttpRequest,
    path: web::Path<(String, String, String)>,
    standin: web::Data<StandIn>,
    fields: Fields,
) -> HttpResponse {
    if foreign(&request, &standin) {
        return another_site();
    }
    let (owner, name, what) = path.into_inner();
    match press(&request, &owner, &name, &what, &standin, &fields).await {
        Ok(()) => back(&fields),
        Err(error) => failure(&error),
    }
}

async fn press(
    request: &HttpRequest,
    owner: &str,
    name: &str,
    what: &str,
    standin: &StandIn,
    fields: &HashMap<String, String>,
) -> Result<(), StandInError> {
    let login = user(request, fields, standin)?;
    let text = |name: &str| fields.get(name).map_or("", String::as_str);
    let number = |name: &str| {
        let found = text(name).parse::<i64>();
        found.map_err(|_| StandInError::Refused(format!("the field {name} is not a number: {:?}", text(name))))
    };
    // Talking takes reading; buttons of checks and merges take write access ("Repository roles for an organization").
    let need = if matches!(what, "comment" | "react" | "review" | "open") { Role::Read } else { Role::Write };
    let repo = standin.read(|m| {
        let repo = m.repo(owner, name).ok_or_else(|| StandInError::NotFound(format!("repository {owner}/{name}")))?;
        let own = ["close", "reopen", "ready"].contains(&what)
            && text("number").parse().is_ok_and(|n: i64| repo.pulls.get(&n).is_some_and(|p| p.author.login == login));
        match m.grant(repo, &login) {
            Some(grant) if grant.role >= need || own => Ok(repo.id),
            _ => Err(StandInError::Refused(format!("{login} may not do this in {owner}/{name}"))),
        }
    })?;
    match what {
        "comment" => standin.comment(repo, number("number")?, &login, text("body")).map(drop),
        "react" => standin.react(repo, number("comment")?, person(&login), text("content")).map(drop),
        "review" => {
            let state = match text("state") {
                "approve" => ReviewState::Approved,
                "request_changes" => ReviewState::ChangesRequested,
                "comment" => ReviewState::Commented,
                other => return Err(StandInError::Refused(format!("{other:?} is not a verdict"))),
            };
            standin.review(repo, number("number")?, &login, state, text("body")).map(drop)
        }
        "open" => {
            let new = NewPull {
                title: text("title").to_owned(),
                body: text("body").to_owned(),
                head: text("head").to_owned(),
                base: text("base").to_owned(),
                draft: text("draft") == "on",
                head_repo: None,
            };
            standin.open_pull(repo, &login, new).await.map(drop)
        }
        "rerun" => standin.rerequest_check(repo, number("check")?, &login),
        "rerun-all" => standin.rerequest_suite(repo, number("suite")?, &login).await,
        "press" => standin.press(repo, number("check")?, text("identifier"), &login),
        "merge" => standin.merge_pull(repo, number("number")?, &login).await.map(drop),
        "enqueue" => standin.enqueue(repo, number("number")?, &login).await.map(drop),
        "close" => standin.close_pull(repo, number("number")?, &login),
        "reopen" => standin.reopen_pull(repo, number("number")?, &login).await,
        "ready" => standin.ready_for_review(repo, number("number")?, &login),
        "base" => standin.change_base(repo, number("number")?, text("base"), &login).await,
        "delete-branch" => standin.move_branch(repo, text("branch"), "", &login).await,
        other => Err(StandInError::NotFound(format!("button {other}"))),
    }
}

/// `POST /settings/apps/new` with a manifest ("Registering a GitHub App from a manifest"): asks the owner.
async fn manifest(
    request: HttpRequest,
    query: web::Query<HashMap<String, String>>,
    standin: web::Data<StandIn>,
    fields: Fields,
) -> HttpResponse {
    let text = fields.get("manifest").map_or("", String::as_str);
    let manifest: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(e) => return failure(&StandInError::Refused(format!("the manifest is not JSON: {e}"))),
    };
    if let Err(error) = spec(&manifest, "nobody") {
        return failure(&error);
    }
    let key = uuid::Uuid::new_v4().simple().to_string();
    let name = manifest["name"].as_str().unwrap_or_default().to_owned();
    let waiting = Manifest {
        manifest,
        state: query.get("state").cloned(),
        owner: request.match_info().get("org").unwrap_or("stand-in").to_owned(),
        app: None,
        created_at: now(),
    };
    standin.write(|m| m.manifests.insert(key.clone(), waiting));
    super::pages::create_app(&key, &name)
}

/// What a manifest asks for ("Registering a GitHub App from a manifest", GitHub App Manifest parameters).
fn spec(manifest: &Value, owner: &str) -> Result<AppSpec, StandInError> {
    let wrong = |what: &str| StandInError::Refused(format!("the manifest's {what}"));
    let url = manifest["url"].as_str().ok_or_else(|| wrong("url is missing"))?;
    let mut permissions = BTreeMap::new();
    for (name, level) in manifest["default_permissions"].as_object().into_iter().flatten() {
        let level = level.as_str().and_then(Level::from_name);
        permissions.insert(name.clone(), level.ok_or_else(|| wrong(&format!("permission {name} has no known level")))?);
    }
    let mut events = std::collections::BTreeSet::new();
    for event in manifest["default_events"].as_array().into_iter().flatten() {
        let event = event.as_str().ok_or_else(|| wrong("default_events are not all names"))?;
        // Every App gets these; asking for them is refused ("Default events are not supported by permissions").
        if event.starts_with("installation") {
            return Err(wrong(&format!("default_events must not contain {event}")));
        }
        events.insert(event.to_owned());
    }
    let active = manifest["hook_attributes"]["active"].as_bool().unwrap_or(true);
    let hook = manifest["hook_attributes"]["url"].as_str().filter(|_| active);
    Ok(AppSpec {
        name: manifest["name"].as_str().unwrap_or("app").to_owned(),
        owner: owner.to_owned(),
        webhook_url: hook.map(str::to_owned),
        webhook_secret: hook.map(|_| uuid::Uuid::new_v4().simple().to_string()),
        permissions,
        events,
        external_url: url.to_owned(),
    })
}

/// The owner agreed: the App is made, and its code goes to the manifest's `redirect_url`.
async fn create_app(request: HttpRequest, standin: web::Data<StandIn>, fields: Fields) -> HttpResponse {
    if foreign(&request, &standin) {
        return another_site();
    }
    let key = fields.get("key").map_or("", String::as_str);
    // It waits until it is done: a name that is taken can be changed.
    let waiting = standin.read(|m| m.manifests.get(key).cloned());
    let Some(waiting) = waiting.filter(|w| w.app.is_none()) else {
        return failure(&StandInError::NotFound("manifest waiting for you".to_owned()));
    };
    if waiting.created_at.checked_add(1.hour()).is_ok_and(|end| end < now()) {
        return failure(&StandInError::Refused("this page is more than an hour old".to_owned()));
    }
    let made = spec(&waiting.manifest, &waiting.owner).and_then(|mut spec| {
        if let Some(name) = fields.get("name") {
            spec.name.clone_from(name);
        }
        standin.register(spec)
    });
    let app = match made {
        Ok(app) => app,
        Err(error) => return failure(&error),
    };
    let code = uuid::Uuid::new_v4().simple().to_string();
    let (state, redirect) = (waiting.state.clone(), waiting.manifest["redirect_url"].as_str().map(str::to_owned));
    standin.write(|m| {
        m.manifests.remove(key);
        m.manifests.insert(code.clone(), Manifest { app: Some(app.id), created_at: now(), ..waiting });
    });
    let Some(Ok(mut url)) = redirect.map(|r| url::Url::parse(&r)) else {
        let mut response = HttpResponse::Ok();
        layout::secure(&mut response);
        return response.content_type("text/plain; charset=utf-8").body(code);
    };
    url.query_pairs_mut().append_pair("code", &code);
    if let Some(state) = state {
        url.query_pairs_mut().append_pair("state", &state);
    }
    let mut response = HttpResponse::Found();
    layout::secure(&mut response);
    response.insert_header(("location", url.to_string())).finish()
}

/// Installs an App on an account: field `account`, and `repository` for one of its repositories alone.
async fn install(
    request: HttpRequest,
    slug: web::Path<String>,
    standin: web::Data<StandIn>,
    fields: Fields,
) -> HttpResponse {
    if foreign(&request, &standin) {
        return another_site();
    }
    let account = fields.get("account").map_or("", String::as_str);
    let found = standin.read(|m| {
        let missing = |what: String| StandInError::NotFound(what);
        let app = m.apps.values().find(|a| a.slug == *slug).ok_or_else(|| missing(format!("App {slug}")))?.id;
        let repo = match fields.get("repository").filter(|r| !r.is_empty()) {
            None => None,
            Some(name) => {
                let repo = m.repo(account, name);
                Some(repo.ok_or_else(|| missing(format!("repository {account}/{name}")))?.id)
            }
        };
        Ok((app, repo))
    });
    let done = found.and_then(|(app, repo)| {
        let repos = repo.map(|id| [id]);
        standin.install(app, account, repos.as_ref().map(|r| r.as_slice()))
    });
    match done {
        Ok(_) => back(&fields),
        Err(error) => failure(&error),
    }
}

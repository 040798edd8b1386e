//! The REST operations. One entry: faults, version, route, who, permission, handler, limits, log, in this order.

mod apps;
mod checks;
mod code;
mod deployments;
mod people;
mod pulls;
mod routes;
mod talk;

use std::collections::HashMap;

use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, http::StatusCode, web};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use serde_json::{Value, json};

use super::{
    StandIn, StandInError,
    auth::{Denied, Who, allowed},
    faults::Effect,
    model::{Exchange, Level},
    server,
};

/// One call of an operation.
pub(super) struct Call {
    pub standin: StandIn,
    pub who: Who,
    pub vars: HashMap<&'static str, String>,
    pub query: HashMap<String, String>,
    pub body: Value,
    /// The repository of `/repos/{owner}/{repo}/…`.
    pub repo: i64,
    /// Address of the operation without its query, for links to other pages.
    pub url: String,
}

impl Call {
    pub(super) fn var(&self, name: &str) -> &str {
        self.vars.get(name).map_or("", String::as_str)
    }

    /// A number in the path; anything else is not found.
    pub(super) fn number(&self, name: &str) -> Result<i64, ApiError> {
        self.var(name).parse().map_err(|_| ApiError::not_found())
    }

    pub(super) fn login(&self) -> String {
        self.standin.read(|m| self.who.login(m))
    }

    pub(super) fn author(&self) -> super::model::Author {
        super::model::Author { login: self.login(), app: self.who.app() }
    }
}

/// A good answer.
pub(super) struct Reply {
    pub status: u16,
    pub body: Value,
    pub link: Option<String>,
}

/// Answers 200 with a body.
pub(super) fn ok(body: Value) -> Answer {
    Ok(Reply { status: 200, body, link: None })
}

/// Answers 201 with a body.
pub(super) fn created(body: Value) -> Answer {
    Ok(Reply { status: 201, body, link: None })
}

/// A refusal in GitHub's shape.
#[derive(Debug)]
pub(super) struct ApiError {
    pub status: u16,
    pub message: String,
    pub errors: Vec<Value>,
    pub location: Option<String>,
}

impl ApiError {
    pub(super) fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), errors: Vec::new(), location: None }
    }

    pub(super) fn not_found() -> Self {
        Self::new(404, "Not Found")
    }

    /// 422 with one entry in `errors` ("Troubleshooting the REST API", validation failed).
    pub(super) fn invalid(resource: &str, field: &str, code: &str, message: impl Into<String>) -> Self {
        let error = json!({"resource": resource, "field": field, "code": code, "message": message.into()});
        Self { errors: vec![error], ..Self::new(422, "Validation Failed") }
    }

    /// 422 for a body of the wrong shape.
    pub(super) fn shape(why: impl std::fmt::Display) -> Self {
        Self::new(422, format!("Invalid request.\n\n{why}"))
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Unauthorized(message) => Self::new(401, message),
            Denied::Forbidden(message) => Self::new(403, message),
            Denied::Hidden => Self::not_found(),
            Denied::NoApp => Self::new(404, "Integration not found"),
        }
    }
}

impl From<StandInError> for ApiError {
    fn from(error: StandInError) -> Self {
        match error {
            StandInError::NotFound(_) => Self::not_found(),
            StandInError::Refused(message) => Self::invalid("Stand-in", "base", "custom", message),
            error => {
                tracing::error!(%error, "the stand-in failed");
                Self::new(500, "Server Error")
            }
        }
    }
}

pub(super) type Answer = Result<Reply, ApiError>;
pub(super) type Handler = for<'a> fn(&'a Call) -> LocalBoxFuture<'a, Answer>;

/// What an operation asks of its caller.
#[derive(Clone, Copy)]
pub(super) enum Need {
    /// A JWT.
    Jwt,
    /// An installation token.
    Token,
    /// Any of these permissions in the repository of the path.
    Repo(&'static [&'static str], Level),
    /// A permission of the organisation in the path.
    Org(&'static str),
    /// Anybody.
    Nothing,
}

/// Lists in pages: `per_page` (30, at most 100), `page`, `Link` ("Using pagination in the REST API").
pub(super) fn paged<T>(call: &Call, items: Vec<T>) -> (Vec<T>, Option<String>) {
    let number = |name: &str| call.query.get(name).and_then(|v| v.parse::<usize>().ok());
    let per_page = number("per_page").unwrap_or(30).clamp(1, 100);
    let page = number("page").unwrap_or(1).max(1);
    let pages = items.len().div_ceil(per_page).max(1);
    let link = |page: usize, rel: &str| {
        let mut query: Vec<(&str, String)> =
            call.query.iter().filter(|(k, _)| *k != "page").map(|(k, v)| (k.as_str(), v.clone())).collect();
        query.sort();
        query.push(("page", page.to_string()));
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        format!("<{}?{query}>; rel=\"{rel}\"", call.url)
    };
    let mut links = Vec::new();
    if page > 1 {
        links.push(link(page - 1, "prev"));
        links.push(link(1, "first"));
    }
    if page < pages {
        links.push(link(page + 1, "next"));
        links.push(link(pages, "last"));
    }
    let items = items.into_iter().skip((page - 1).saturating_mul(per_page)).take(per_page).collect();
    (items, (!links.is_empty()).then(|| links.join(", ")))
}

/// A paged list as a body.
pub(super) fn list(call: &Call, items: Vec<Value>) -> Answer {
    let (items, link) = paged(call, items);
    Ok(Reply { status: 200, body: Value::Array(items), link })
}

/// The entry of all operations. `prefix` is what stands before the operation's path.
pub(super) async fn entry(request: HttpRequest, body: Bytes, standin: web::Data<StandIn>) -> HttpResponse {
    let standin = standin.get_ref().clone();
    let full = request.uri().path();
    let path = full.strip_prefix("/api/v3").unwrap_or(full).to_owned();
    let method = request.method().as_str().to_owned();
    let shown = match request.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path.clone(),
    };
    let mut exchange = Exchange {
        method: method.clone(),
        path: shown.clone(),
        template: None,
        version: String::new(),
        status: 0,
        fault: false,
        request: None,
        response: None,
    };
    let verdict = standin.0.faults.judge(&method, &shown, false);
    if !verdict.delay.is_zero() {
        tokio::time::sleep(verdict.delay).await;
    }
    exchange.fault = verdict.effect.is_some();
    let result = match &verdict.effect {
        Some(Effect::Hang) => {
            server::note(&standin, exchange);
            standin.0.stop.cancelled().await;
            return server::drop_connection();
        }
        Some(Effect::LoseRequest) => {
            server::note(&standin, exchange);
            return server::drop_connection();
        }
        Some(Effect::Status { status, retry_after }) => refusal(*status, "Fault on demand", *retry_after),
        Some(Effect::SecondaryLimit { retry_after }) => {
            let message = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";
            refusal(403, message, *retry_after)
        }
        _ => {
            let result = answer(&standin, &request, &path, &body, &mut exchange).await;
            render(&standin, &request, &exchange.version, result)
        }
    };
    let (mut response, text) = result;
    exchange.status = response.status().as_u16();
    if standin.0.record {
        exchange.response = serde_json::from_slice(&text).ok();
    }
    if verdict.effect == Some(Effect::LoseResponse) {
        exchange.status = 0;
        response = server::drop_connection();
    } else if verdict.effect == Some(Effect::Truncate) {
        response = server::truncated(&response, text);
    } else {
        response = response.set_body(actix_web::body::BoxBody::new(text));
    }
    server::note(&standin, exchange);
    response
}

fn refusal(status: u16, message: &str, retry_after: Option<u64>) -> (HttpResponse, Bytes) {
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponseBuilder::new(code);
    response.insert_header(("content-type", "application/json; charset=utf-8"));
    if let Some(seconds) = retry_after {
        response.insert_header(("retry-after", seconds.to_string()));
    }
    (response.finish(), error_body(status, message, &[]))
}

fn error_body(status: u16, message: &str, errors: &[Value]) -> Bytes {
    let mut body = json!({
        "message": message,
        "documentation_url": "https://docs.github.com/rest",
        "status": status.to_string(),
    });
    if !errors.is_empty() {
        body["errors"] = Value::from(errors.to_vec());
    }
    Bytes::from(body.to_string())
}

/// Versions that GitHub answers to ("API Versions"); without the header it is the first.
const VERSIONS: [&str; 2] = ["2022-11-28", "2026-03-10"];

async fn answer(standin: &StandIn, request: &HttpRequest, path: &str, body: &[u8], exchange: &mut Exchange) -> Answer {
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
    // "Troubleshooting the REST API": requests without a User-Agent are rejected.
    if header("user-agent").is_none_or(str::is_empty) {
        return Err(ApiError::new(
            403,
            "Request forbidden by administrative rules. Please make sure your request has a User-Agent header",
        ));
    }
    exchange.version = header("x-github-api-version").unwrap_or(VERSIONS[0]).to_owned();
    if !VERSIONS.contains(&exchange.version.as_str()) {
        return Err(ApiError::new(400, "Version is not supported"));
    }
    let path = standin.by_number(path)?;
    let Some((route, vars)) = routes::find(&exchange.method, &path) else { return Err(ApiError::not_found()) };
    exchange.template = Some(route.template());
    let body: Value = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(body).map_err(|_| ApiError::new(400, "Problems parsing JSON"))?
    };
    if !body.is_null() && !body.is_object() {
        return Err(ApiError::new(400, "Body should be a JSON object"));
    }
    if standin.0.record && !body.is_null() {
        exchange.request = Some(body.clone());
    }
    let query = url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes());
    let query = query.into_owned().collect();
    let who = standin.who(header("authorization"))?;
    let url = format!("{}{path}", standin.links().api);
    let mut call = Call { standin: standin.clone(), who, vars, query, body, repo: 0, url };
    let suffix = path.splitn(5, '/').nth(4).map_or(String::new(), |rest| format!("/{rest}"));
    check_need(&mut call, route.need, &exchange.method, &suffix)?;
    (route.handler)(&call).await
}

fn check_need(call: &mut Call, need: Need, method: &str, suffix: &str) -> Result<(), ApiError> {
    match (need, &call.who) {
        (Need::Nothing, _) => Ok(()),
        (Need::Jwt, Who::App(_)) | (Need::Token, Who::Installation { .. }) => Ok(()),
        (Need::Jwt, _) => Err(ApiError::new(401, "A JSON web token could not be decoded")),
        (Need::Token, _) => {
            Err(ApiError::new(403, "You must authenticate with an installation access token in order to use this."))
        }
        (Need::Org(_), Who::User(_)) => Ok(()),
        (Need::Org(name), who) => {
            let Who::Installation { token, .. } = who else { return Err(ApiError::not_found()) };
            let here = call.standin.read(|m| {
                let installation = m.installations.get(&token.installation);
                installation.is_some_and(|i| i.account.eq_ignore_ascii_case(call.var("org")))
            });
            match (here, token.permissions.contains_key(name)) {
                (true, true) => Ok(()),
                _ => Err(ApiError::new(403, "Resource not accessible by integration")),
            }
        }
        (Need::Repo(permissions, level), who) => {
            let (owner, name) = (call.var("owner"), call.var("repo"));
            let found = call.standin.read(|m| {
                let (id, moved) = m.find(owner, name).ok_or_else(ApiError::not_found)?;
                let repo = m.repos.get(&id).ok_or_else(ApiError::not_found)?;
                allowed(m, who, repo, permissions, level)?;
                Ok::<_, ApiError>((id, moved))
            })?;
            if found.1 {
                // "Best practices for using the REST API", follow redirects: 301 for reads, 307 for writes.
                let status = if method == "GET" { 301 } else { 307 };
                let location = format!("{}/repositories/{}{suffix}", call.standin.links().api, found.0);
                return Err(ApiError { location: Some(location), ..ApiError::new(status, "Moved Permanently") });
            }
            call.repo = found.0;
            Ok(())
        }
    }
}

impl StandIn {
    /// `/repositories/NUMBER/…` is the same as `/repos/OWNER/NAME/…`: where redirects lead.
    fn by_number(&self, path: &str) -> Result<String, ApiError> {
        let Some(rest) = path.strip_prefix("/repositories/") else { return Ok(path.to_owned()) };
        let (id, rest) = rest.split_once('/').map_or((rest, String::new()), |(id, rest)| (id, format!("/{rest}")));
        let id: i64 = id.parse().map_err(|_| ApiError::not_found())?;
        let name = self.read(|m| m.repos.get(&id).map(|r| r.full_name())).ok_or_else(ApiError::not_found)?;
        Ok(format!("/repos/{name}{rest}"))
    }
}

/// An answer as HTTP: limits on all of them, an ETag for reads, what newer versions leave out left out.
fn render(standin: &StandIn, request: &HttpRequest, version: &str, result: Answer) -> (HttpResponse, Bytes) {
    let (status, text, link, location) = match result {
        Ok(mut reply) => {
            if version == VERSIONS[1] {
                server::drop_removed(&mut reply.body);
            }
            let text = if reply.status == 204 { Bytes::new() } else { Bytes::from(reply.body.to_string()) };
            (reply.status, text, reply.link, None)
        }
        Err(e) => (e.status, error_body(e.status, &e.message, &e.errors), None, e.location),
    };
    let auth = request.headers().get("authorization").map(|v| v.as_bytes().to_vec()).unwrap_or_default();
    let etag = server::etag(&auth, &text);
    let same = request.headers().get("if-none-match").is_some_and(|v| v.as_bytes() == etag.as_bytes());
    let same = same && request.method() == "GET" && status == 200;
    // "Best practices for using the REST API", conditional requests: a 304 costs nothing.
    let limit = server::count(standin, &auth, same);
    let (status, text) = if limit.used > limit.limit {
        (403, error_body(403, "API rate limit exceeded for this installation.", &[]))
    } else if same {
        (304, Bytes::new())
    } else {
        (status, text)
    };
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponseBuilder::new(code);
    response
        .insert_header(("content-type", "application/json; charset=utf-8"))
        .insert_header(("x-github-request-id", uuid::Uuid::new_v4().simple().to_string()))
        .insert_header(("x-ratelimit-limit", limit.limit.to_string()))
        .insert_header(("x-ratelimit-remaining", limit.limit.saturating_sub(limit.used).to_string()))
        .insert_header(("x-ratelimit-used", limit.used.to_string()))
        .insert_header(("x-ratelimit-reset", limit.reset.to_string()))
        .insert_header(("x-ratelimit-resource", "core"));
    if !version.is_empty() {
        response.insert_header(("x-github-api-version-selected", version));
    }
    if status < 300 || status == 304 {
        response.insert_header(("etag", etag));
    }
    if let Some(link) = link {
        response.insert_header(("link", link));
    }
    if let Some(location) = location {
        response.insert_header(("location", location));
    }
    (response.finish(), text)
}

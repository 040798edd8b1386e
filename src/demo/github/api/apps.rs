//! Operations of Apps about themselves: installations, tokens, deliveries, manifests.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use jiff::ToSpan;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, ApiError, Call, Reply, Who, created, list, ok, paged};
use crate::demo::github::{
    model::{Delivery, Installation, Level, Token, now, permissions_json},
    shapes,
};

fn app_id(call: &Call) -> Result<i64, ApiError> {
    call.who.app().ok_or_else(ApiError::not_found)
}

pub(super) async fn app(call: &Call) -> Answer {
    let id = app_id(call)?;
    let l = call.standin.links();
    ok(call.standin.read(|m| {
        let mut value = m.apps.get(&id).map_or(Value::Null, |app| shapes::integration(&l, m, app));
        value["installations_count"] = json!(m.installations.values().filter(|i| i.app == id).count());
        value
    }))
}

pub(super) async fn installations(call: &Call) -> Answer {
    let id = app_id(call)?;
    let l = call.standin.links();
    let items = call.standin.read(|m| {
        let mine = m.installations.values().filter(|i| i.app == id);
        mine.map(|i| shapes::installation(&l, m, i)).collect()
    });
    list(call, items)
}

/// The installation of the path, if it is the asking App's.
fn own(call: &Call) -> Result<Installation, ApiError> {
    let (app, id) = (app_id(call)?, call.number("installation_id")?);
    let found = call.standin.read(|m| m.installations.get(&id).filter(|i| i.app == app).cloned());
    found.ok_or_else(ApiError::not_found)
}

pub(super) async fn installation(call: &Call) -> Answer {
    let found = own(call)?;
    let l = call.standin.links();
    ok(call.standin.read(|m| shapes::installation(&l, m, &found)))
}

pub(super) async fn repo_installation(call: &Call) -> Answer {
    let app = app_id(call)?;
    let l = call.standin.links();
    let found = call.standin.read(|m| {
        let (id, _) = m.find(call.var("owner"), call.var("repo"))?;
        let installation = m.installation_for(app, m.repos.get(&id)?)?;
        Some(shapes::installation(&l, m, installation))
    });
    found.map_or_else(|| Err(ApiError::not_found()), ok)
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Wish {
    repositories: Option<Vec<String>>,
    repository_ids: Option<Vec<i64>>,
    permissions: Option<BTreeMap<String, String>>,
}

/// "Create an installation access token for an app": never more than the installation has.
pub(super) async fn access_token(call: &Call) -> Answer {
    let installation = own(call)?;
    if installation.suspended.is_some() {
        return Err(ApiError::new(403, "This installation has been suspended"));
    }
    let wish: Wish = match &call.body {
        Value::Null => Wish::default(),
        body => serde_json::from_value(body.clone()).map_err(ApiError::shape)?,
    };
    let excess = |what: &str| ApiError::new(422, format!("The {what} requested are not granted to this installation."));
    let mut permissions = installation.permissions.clone();
    if let Some(wanted) = wish.permissions {
        let mut scoped = BTreeMap::new();
        for (name, level) in wanted {
            let level = Level::from_name(&level).ok_or_else(|| excess("permissions"))?;
            if permissions.get(&name).is_none_or(|has| *has < level) {
                return Err(excess("permissions"));
            }
            scoped.insert(name, level);
        }
        // Metadata comes with any other permission ("Permissions required for GitHub Apps").
        scoped.entry("metadata".to_owned()).or_insert(Level::Read);
        permissions = scoped;
    }
    let named = wish.repositories.is_some() || wish.repository_ids.is_some();
    let repos: Option<BTreeSet<i64>> = call.standin.read(|m| {
        let mut ids = BTreeSet::new();
        for name in wish.repositories.iter().flatten() {
            ids.insert(m.repo(&installation.account, name).map(|r| r.id).ok_or_else(|| excess("repositories"))?);
        }
        ids.extend(wish.repository_ids.iter().flatten().copied());
        let covered = |id: &i64| m.repos.get(id).is_some_and(|r| installation.covers(r));
        if !ids.iter().all(covered) {
            return Err(ApiError::new(
                422,
                "There is at least one repository that does not exist or is not accessible to the parent installation.",
            ));
        }
        Ok::<_, ApiError>(named.then_some(ids))
    })?;
    let expires_at = now().checked_add(1.hour()).unwrap_or_else(|_| now());
    let text = token_text(installation.app);
    let token = Token { installation: installation.id, permissions, repos: repos.clone(), expires_at };
    let l = call.standin.links();
    let body = call.standin.write(|m| {
        let mut body = json!({
            "token": text,
            "expires_at": expires_at,
            "permissions": permissions_json(&token.permissions),
            "repository_selection": if repos.is_some() || installation.repos.is_some() { "selected" } else { "all" },
        });
        if let Some(ids) = &repos {
            body["repositories"] =
                ids.iter().filter_map(|id| m.repos.get(id)).map(|r| shapes::repo(&l, m, r)).collect();
        }
        m.tokens.insert(text, token);
        body
    });
    created(body)
}

/// A token as long and odd as GitHub's newest: about 520 characters, with dots ("GitHub App installation tokens: new
/// format", GitHub changelog).
fn token_text(app: i64) -> String {
    let noise = |n: usize| {
        let mut bytes = Vec::new();
        while bytes.len() < n {
            bytes.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
        }
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&bytes[..n])
    };
    format!("ghs_{app}_{}.{}.{}", noise(48), noise(192), noise(144))
}

pub(super) async fn repositories(call: &Call) -> Answer {
    let Who::Installation { token, .. } = &call.who else { return Err(ApiError::not_found()) };
    let l = call.standin.links();
    let all: Vec<Value> = call.standin.read(|m| {
        let Some(i) = m.installations.get(&token.installation) else { return Vec::new() };
        let covered = m.repos.values().filter(|r| i.covers(r));
        let scoped = covered.filter(|r| token.repos.as_ref().is_none_or(|set| set.contains(&r.id)));
        scoped.map(|r| shapes::repo(&l, m, r)).collect()
    });
    let total = all.len();
    let (items, link) = paged(call, all);
    Ok(Reply { status: 200, body: json!({"total_count": total, "repositories": items}), link })
}

pub(super) async fn revoke(call: &Call) -> Answer {
    if let Who::Installation { token, .. } = &call.who {
        call.standin.write(|m| {
            m.tokens.retain(|_, t| t.installation != token.installation || t.expires_at != token.expires_at);
        });
    }
    Ok(Reply { status: 204, body: Value::Null, link: None })
}

fn delivery_item(d: &Delivery) -> Value {
    json!({
        "id": d.id,
        "guid": d.guid,
        "delivered_at": d.delivered_at,
        "redelivery": d.redelivery,
        "duration": d.duration,
        "status": d.status,
        "status_code": d.status_code,
        "event": d.event,
        "action": d.action,
        "installation_id": d.installation,
        "repository_id": d.repository,
        "throttled_at": null,
    })
}

/// "List deliveries for an app webhook": newest first, pages by cursor, never by number.
pub(super) async fn deliveries(call: &Call) -> Answer {
    let app = app_id(call)?;
    let per_page = call.query.get("per_page").and_then(|v| v.parse::<usize>().ok()).unwrap_or(30).clamp(1, 100);
    let before = match call.query.get("cursor") {
        None => i64::MAX,
        Some(text) => {
            let id = text.strip_prefix("v1_").and_then(|t| t.parse().ok());
            id.ok_or_else(|| ApiError::new(422, "Invalid cursor"))?
        }
    };
    let state = call.query.get("status").map(String::as_str);
    let fits = |d: &&&Delivery| {
        let good = (200..400).contains(&d.status_code);
        d.done && d.id < before && state.is_none_or(|s| (s == "success") == good)
    };
    let (items, last, more) = call.standin.read(|m| {
        let all = m.deliveries_of(app);
        let mut fitting = all.iter().filter(fits);
        let page: Vec<&&Delivery> = fitting.by_ref().take(per_page).collect();
        let last = page.last().map(|d| d.id);
        (page.into_iter().map(|d| delivery_item(d)).collect::<Vec<_>>(), last, fitting.next().is_some())
    });
    let link = last.filter(|_| more).map(|id| {
        let state = state.map(|s| format!("&status={s}")).unwrap_or_default();
        format!("<{}?per_page={per_page}{state}&cursor=v1_{id}>; rel=\"next\"", call.url)
    });
    Ok(Reply { status: 200, body: Value::Array(items), link })
}

fn own_delivery(call: &Call) -> Result<Delivery, ApiError> {
    let (app, id) = (app_id(call)?, call.number("delivery_id")?);
    let found = call.standin.read(|m| m.deliveries.get(&id).filter(|d| d.app == app && d.listed).cloned());
    found.ok_or_else(ApiError::not_found)
}

pub(super) async fn delivery(call: &Call) -> Answer {
    let d = own_delivery(call)?;
    let map = |list: &[(String, String)]| list.iter().map(|(k, v)| (k.clone(), json!(v))).collect::<Value>();
    let mut value = delivery_item(&d);
    let payload: Value = serde_json::from_str(&d.payload).unwrap_or(Value::Null);
    value["request"] = json!({"headers": map(&d.request_headers), "payload": payload});
    value["response"] = json!({"headers": map(&d.response_headers), "payload": d.response_body});
    value["url"] = json!(call.standin.read(|m| m.apps.get(&d.app).and_then(|a| a.spec.webhook_url.clone())));
    if value["url"].is_null() {
        value["url"] = json!("");
    }
    ok(value)
}

pub(super) async fn redeliver(call: &Call) -> Answer {
    let delivery = own_delivery(call)?;
    call.standin.redeliver(delivery.id)?;
    Ok(Reply { status: 202, body: json!({}), link: None })
}

/// "Registering a GitHub App from a manifest": a code is good once, for an hour.
pub(super) async fn convert(call: &Call) -> Answer {
    let found = call.standin.write(|m| m.manifests.remove(call.var("code")));
    let app = found.filter(|f| f.created_at.checked_add(1.hour()).is_ok_and(|end| end > now())).and_then(|f| f.app);
    let app = app.ok_or_else(ApiError::not_found)?;
    let l = call.standin.links();
    let body = call.standin.read(|m| {
        let app = m.apps.get(&app)?;
        let mut value = shapes::integration(&l, m, app);
        value["client_id"] = json!(app.client_id);
        value["client_secret"] = json!(app.client_secret);
        value["webhook_secret"] = json!(app.spec.webhook_secret);
        value["pem"] = json!(app.private_key_pem);
        Some(value)
    });
    body.map_or_else(|| Err(ApiError::not_found()), created)
}

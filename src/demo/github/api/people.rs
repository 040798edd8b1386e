//! Operations about people: permissions, teams, limits.

use serde_json::{Value, json};

use super::{Answer, ApiError, Call, ok};
use crate::demo::github::{
    model::{Role, UserKind},
    shapes,
};

/// "Get repository permissions for a user". `role_name` is a custom role's own name; the booleans beside the user say
/// what it amounts to. Somebody with no access gets `none`, not 404, unless there is no such account.
pub(super) async fn permission(call: &Call) -> Answer {
    let l = call.standin.links();
    let name = call.var("username");
    let body = call.standin.read(|m| {
        let user = m.user(name)?;
        let grant = m.repos.get(&call.repo).and_then(|repo| m.grant(repo, name));
        let role = grant.as_ref().map(|g| g.role);
        let role_name = match &grant {
            None => "none",
            Some(g) => g.name.as_deref().unwrap_or(g.role.name()),
        };
        let mut shown = shapes::user(&l, user);
        shown["permissions"] = json!({
            "admin": role >= Some(Role::Admin),
            "maintain": role >= Some(Role::Maintain),
            "push": role >= Some(Role::Write),
            "triage": role >= Some(Role::Triage),
            "pull": role >= Some(Role::Read),
        });
        shown["role_name"] = json!(role_name);
        Some(json!({"permission": role.map_or("none", Role::legacy), "role_name": role_name, "user": shown}))
    });
    body.map_or_else(|| Err(ApiError::not_found()), ok)
}

pub(super) async fn team_membership(call: &Call) -> Answer {
    let key = (call.var("org").to_lowercase(), call.var("team_slug").to_lowercase());
    let member = call.var("username").to_lowercase();
    let maintainer = call.standin.read(|m| m.teams.get(&key).and_then(|t| t.members.get(&member).copied()));
    let maintainer = maintainer.ok_or_else(ApiError::not_found)?;
    let l = call.standin.links();
    ok(json!({
        "url": format!("{}/orgs/{}/teams/{}/memberships/{member}", l.api, key.0, key.1),
        "role": if maintainer { "maintainer" } else { "member" },
        "state": "active",
    }))
}

pub(super) async fn user(call: &Call) -> Answer {
    let l = call.standin.links();
    let body = call.standin.read(|m| {
        let user = m.user(call.var("username"))?;
        let repos = m.repos.values().filter(|r| !r.private && r.owner.eq_ignore_ascii_case(&user.login)).count();
        let mut value = shapes::user(&l, user);
        for name in ["name", "company", "location", "email", "hireable", "bio"] {
            value[name] = Value::Null;
        }
        value["blog"] = json!("");
        value["public_repos"] = json!(if user.kind == UserKind::Bot { 0 } else { repos });
        for name in ["public_gists", "followers", "following"] {
            value[name] = json!(0);
        }
        value["created_at"] = json!("2020-01-01T00:00:00Z");
        value["updated_at"] = json!("2020-01-01T00:00:00Z");
        Some(value)
    });
    body.map_or_else(|| Err(ApiError::not_found()), ok)
}

pub(super) async fn rate_limit(call: &Call) -> Answer {
    let limit = call.standin.faults().hourly();
    let reset = crate::clock::now().as_second() + 3600;
    let core = json!({"limit": limit, "used": 0, "remaining": limit, "reset": reset});
    ok(json!({"resources": {"core": core, "search": core}, "rate": core}))
}

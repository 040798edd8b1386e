//! Operations about deployments.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, ApiError, Call, Reply, code::with_repo, created, list, ok};
use crate::demo::github::{
    git,
    model::{ActivityKind, Deployment, DeploymentStatus, now},
    shapes,
};

const MAX_DESCRIPTION: usize = 140;

#[derive(Deserialize)]
struct New {
    #[serde(rename = "ref")]
    git_ref: String,
    task: Option<String>,
    auto_merge: Option<bool>,
    required_contexts: Option<Vec<String>>,
    payload: Option<Value>,
    environment: Option<String>,
    description: Option<String>,
    transient_environment: Option<bool>,
    production_environment: Option<bool>,
}

fn short(description: Option<&str>, resource: &str) -> Result<(), ApiError> {
    match description {
        // "Create a deployment status": the maximum description length is 140 characters; a deployment's is the same,
        // which the description of the API does not say.
        Some(text) if text.chars().count() > MAX_DESCRIPTION => {
            let what = "description is too long (maximum is 140 characters)";
            Err(ApiError::invalid(resource, "description", "custom", what))
        }
        _ => Ok(()),
    }
}

pub(super) async fn create(call: &Call) -> Answer {
    let new: New = serde_json::from_value(call.body.clone()).map_err(ApiError::shape)?;
    short(new.description.as_deref(), "Deployment")?;
    let dir = call.standin.git_dir(call.repo);
    let sha = git::resolve(&dir, &new.git_ref).await?;
    let sha = sha.ok_or_else(|| ApiError::new(422, format!("No ref found for: {}", new.git_ref)))?;
    // "Create a deployment": by default the default branch is merged into a ref that is behind it.
    if new.auto_merge.unwrap_or(true)
        && let Some(reply) = auto_merge(call, &new.git_ref, &sha).await?
    {
        return Ok(reply);
    }
    red_contexts(call, &sha, new.required_contexts.as_deref())?;
    let environment = new.environment.unwrap_or_else(|| "production".to_owned());
    let production = new.production_environment.unwrap_or(environment == "production");
    let (creator, app) = (call.login(), call.who.app());
    let id = call.standin.write(|m| {
        let id = m.big_id();
        let repo = m.repos.get_mut(&call.repo)?;
        let deployment = Deployment {
            id,
            sha,
            git_ref: new.git_ref,
            task: new.task.unwrap_or_else(|| "deploy".to_owned()),
            payload: new.payload.unwrap_or_else(|| json!({})),
            environment,
            description: new.description,
            creator,
            app,
            transient: new.transient_environment.unwrap_or(false),
            production,
            created_at: now(),
            updated_at: now(),
            statuses: Vec::new(),
        };
        repo.deployments.insert(id, deployment);
        Some(id)
    });
    let id = id.ok_or_else(ApiError::not_found)?;
    tell(call, id, None);
    created(show(call, id)?)
}

/// 202 when the default branch was merged into the ref, 409 when it can't be; none when the ref is up to date.
async fn auto_merge(call: &Call, git_ref: &str, sha: &str) -> Result<Option<Reply>, ApiError> {
    let default = with_repo(call, |_, _, r| r.default_branch.clone())?;
    let dir = call.standin.git_dir(call.repo);
    let refs = git::refs(&dir).await?;
    let Some(base) = refs.get(&format!("refs/heads/{default}")) else { return Ok(None) };
    if git::is_ancestor(&dir, base, sha).await? {
        return Ok(None);
    }
    let branch = format!("refs/heads/{}", git_ref.trim_start_matches("refs/heads/"));
    let conflict = || ApiError::new(409, format!("Conflict merging {default} into {git_ref}."));
    if refs.get(&branch).is_none_or(|tip| tip != sha) {
        return Err(conflict());
    }
    let tree = git::merge_tree(&dir, sha, base).await?.ok_or_else(conflict)?;
    let message = format!("Merge {default} into {git_ref}");
    let login = call.login();
    let merged = git::commit_tree(&dir, &tree, &[sha, base], &message, &login).await?;
    call.standin.advance(call.repo, &branch, sha, &merged, &login, ActivityKind::Push).await?;
    let body = json!({"message": format!("Auto-merged {default} into {git_ref} on deployment.")});
    Ok(Some(Reply { status: 202, body, link: None }))
}

/// "Create a deployment": without `required_contexts` every context of the commit must be green, checks included.
fn red_contexts(call: &Call, sha: &str, required: Option<&[String]>) -> Result<(), ApiError> {
    let red: Vec<String> = with_repo(call, |_, _, r| {
        let mut state: Vec<(String, bool)> =
            r.latest_checks(sha).iter().map(|c| (c.name.clone(), c.satisfies())).collect();
        for status in r.statuses.iter().filter(|s| s.sha == sha) {
            state.retain(|(name, _)| *name != status.context);
            state.push((status.context.clone(), status.state == "success"));
        }
        let green = |name: &str| state.iter().any(|(n, ok)| n == name && *ok);
        match required {
            Some(names) => names.iter().filter(|n| !green(n)).cloned().collect(),
            None => state.iter().filter(|(_, ok)| !ok).map(|(n, _)| n.clone()).collect(),
        }
    })?;
    if red.is_empty() {
        return Ok(());
    }
    let what = format!("Conflict: Commit status checks failed for {}.", red.join(", "));
    let error = json!({"contexts": red, "resource": "Deployment", "field": "required_contexts", "code": "invalid"});
    Err(ApiError { errors: vec![error], ..ApiError::new(409, what) })
}

fn show(call: &Call, id: i64) -> Result<Value, ApiError> {
    let shown = with_repo(call, |l, m, r| r.deployments.get(&id).map(|d| shapes::deployment(l, m, r, d)))?;
    shown.ok_or_else(ApiError::not_found)
}

fn tell(call: &Call, id: i64, status: Option<&Value>) {
    let payload = call.standin.read(|m| {
        let r = m.repos.get(&call.repo)?;
        let mut value = call.standin.envelope(m, r, &call.who.login(m));
        value["action"] = json!("created");
        value["deployment"] = shapes::deployment(&call.standin.links(), m, r, r.deployments.get(&id)?);
        if let Some(status) = status {
            value["deployment_status"] = status.clone();
        }
        Some(value)
    });
    if let Some(payload) = payload {
        let event = if status.is_some() { "deployment_status" } else { "deployment" };
        call.standin.emit(call.repo, event, &payload, None);
    }
}

pub(super) async fn list_all(call: &Call) -> Answer {
    let get = |name: &str| call.query.get(name).filter(|v| *v != "none");
    let fits = |d: &&Deployment| {
        get("sha").is_none_or(|v| d.sha == *v)
            && get("ref").is_none_or(|v| d.git_ref == *v)
            && get("task").is_none_or(|v| d.task == *v)
            && get("environment").is_none_or(|v| d.environment == *v)
    };
    // Newest first.
    let items = with_repo(call, |l, m, r| {
        r.deployments.values().rev().filter(fits).map(|d| shapes::deployment(l, m, r, d)).collect()
    })?;
    list(call, items)
}

fn deployment(call: &Call) -> Result<Deployment, ApiError> {
    let id = call.number("deployment_id")?;
    with_repo(call, |_, _, r| r.deployments.get(&id).cloned())?.ok_or_else(ApiError::not_found)
}

pub(super) async fn get(call: &Call) -> Answer {
    ok(show(call, deployment(call)?.id)?)
}

pub(super) async fn statuses(call: &Call) -> Answer {
    let d = deployment(call)?;
    let items = with_repo(call, |l, m, r| {
        d.statuses.iter().rev().map(|s| shapes::deployment_status(l, m, r, &d, s)).collect()
    })?;
    list(call, items)
}

#[derive(Deserialize)]
struct NewStatus {
    state: String,
    target_url: Option<String>,
    log_url: Option<String>,
    description: Option<String>,
    environment: Option<String>,
    environment_url: Option<String>,
    auto_inactive: Option<bool>,
}

pub(super) async fn create_status(call: &Call) -> Answer {
    let d = deployment(call)?;
    let new: NewStatus = serde_json::from_value(call.body.clone()).map_err(ApiError::shape)?;
    let states = ["error", "failure", "inactive", "in_progress", "queued", "pending", "success"];
    if !states.contains(&new.state.as_str()) {
        return Err(ApiError::invalid("DeploymentStatus", "state", "custom", "state is not included in the list"));
    }
    short(new.description.as_deref(), "DeploymentStatus")?;
    let (creator, app) = (call.login(), call.who.app());
    let environment = new
        .environment
        .or_else(|| d.statuses.last().map(|s| s.environment.clone()))
        .unwrap_or_else(|| d.environment.clone());
    let status = DeploymentStatus {
        id: 0,
        state: new.state.clone(),
        description: new.description.unwrap_or_default(),
        log_url: new.log_url.or(new.target_url).unwrap_or_default(),
        environment_url: new.environment_url.unwrap_or_default(),
        environment: environment.clone(),
        creator: creator.clone(),
        app,
        created_at: now(),
    };
    let inactive = new.state == "success" && new.auto_inactive.unwrap_or(true);
    let status = call.standin.write(|m| {
        let status = DeploymentStatus { id: m.big_id(), ..status };
        let repo = m.repos.get(&call.repo)?;
        // "Create a deployment status", `auto_inactive`: older, successful, non-transient, non-production ones.
        let older = |o: &&Deployment| {
            inactive
                && o.id < d.id
                && o.environment == environment
                && !o.production
                && !o.transient
                && o.state() == "success"
        };
        let older: Vec<i64> = repo.deployments.values().filter(older).map(|o| o.id).collect();
        for id in older {
            let gone = DeploymentStatus { id: m.big_id(), state: "inactive".to_owned(), ..status.clone() };
            if let Some(old) = m.repos.get_mut(&call.repo).and_then(|r| r.deployments.get_mut(&id)) {
                old.updated_at = now();
                old.statuses.push(gone);
            }
        }
        let found = m.repos.get_mut(&call.repo).and_then(|r| r.deployments.get_mut(&d.id))?;
        found.updated_at = now();
        found.environment = environment;
        found.statuses.push(status.clone());
        Some(status)
    });
    let status = status.ok_or_else(ApiError::not_found)?;
    let body = with_repo(call, |l, m, r| shapes::deployment_status(l, m, r, &d, &status))?;
    tell(call, d.id, Some(&body));
    created(body)
}

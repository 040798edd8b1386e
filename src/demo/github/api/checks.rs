//! Operations about check runs, check suites and commit statuses.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Answer, ApiError, Call, Reply,
    code::{exists, resolve, with_repo},
    created, list, ok, paged,
};
use crate::demo::github::{
    git,
    model::{Action, Annotation, CheckRun, CommitStatus, now},
    shapes,
};

/// "Create a check run", `output.annotations`: at most 50 per request; later ones append.
const MAX_ANNOTATIONS: usize = 50;
/// "Create a check run": `output.summary` and `output.text` end at 65535 characters.
const MAX_TEXT: usize = 65_535;
/// "Create a check run", `actions`: three buttons.
const MAX_ACTIONS: usize = 3;

#[derive(Deserialize, Default)]
struct Body {
    name: Option<String>,
    head_sha: Option<String>,
    details_url: Option<String>,
    external_id: Option<String>,
    status: Option<String>,
    started_at: Option<Timestamp>,
    conclusion: Option<String>,
    completed_at: Option<Timestamp>,
    output: Option<Output>,
    actions: Option<Vec<Action>>,
}

#[derive(Deserialize)]
struct Output {
    title: Option<String>,
    summary: Option<String>,
    text: Option<String>,
    #[serde(default)]
    annotations: Vec<Annotation>,
}

fn invalid(field: &str, message: impl Into<String>) -> ApiError {
    ApiError::invalid("CheckRun", field, "invalid", message)
}

fn most_items(count: usize, max: usize) -> Result<(), ApiError> {
    if count > max {
        return Err(ApiError::shape(format!("No more than {max} items are allowed; {count} were supplied.")));
    }
    Ok(())
}

fn most_characters(text: &str, max: usize) -> Result<(), ApiError> {
    let count = text.chars().count();
    if count > max {
        return Err(ApiError::shape(format!("Only {max} characters are allowed; {count} were supplied.")));
    }
    Ok(())
}

/// The body of a request, with everything that GitHub refuses refused. What the API's description says of sizes is
/// refused as `Invalid request.`, what the check itself does not take as `Validation Failed`.
fn body(call: &Call, new: bool) -> Result<Body, ApiError> {
    let body: Body = serde_json::from_value(call.body.clone()).map_err(ApiError::shape)?;
    if let Some(output) = &body.output {
        most_items(output.annotations.len(), MAX_ANNOTATIONS)?;
        for (name, text) in [("summary", &output.summary), ("text", &output.text)] {
            let text = text.as_deref().unwrap_or_default();
            most_characters(text, MAX_TEXT)?;
            // The page says characters; bytes count as well (github/docs issue 35252, "Clarify check summary max
            // length units").
            if text.len() > MAX_TEXT {
                let what = format!("{name} exceeds a maximum bytesize of {MAX_TEXT}");
                return Err(ApiError::invalid("CheckRun", name, "custom", what));
            }
        }
        // "Create a check run" requires `title` and `summary`, "Update a check run" only `summary`.
        for (name, missing) in [("title", new && output.title.is_none()), ("summary", output.summary.is_none())] {
            if missing {
                return Err(ApiError::shape(format!("\"{name}\" wasn't supplied.")));
            }
        }
        for a in &output.annotations {
            let level = ["notice", "warning", "failure"].contains(&a.annotation_level.as_str());
            let columns = a.start_line == a.end_line || (a.start_column.is_none() && a.end_column.is_none());
            if !level || !columns || a.start_line < 1 || a.end_line < a.start_line || a.message.is_empty() {
                return Err(invalid("annotations", "an annotation's level, lines, columns or message do not fit"));
            }
            // "Create a check run", annotations: 64 KB for message and raw_details, 255 characters for the title.
            let details = a.raw_details.as_ref().is_some_and(|t| t.len() > 65_536);
            if a.message.len() > 65_536 || details || a.title.as_ref().is_some_and(|t| t.chars().count() > 255) {
                return Err(invalid("annotations", "an annotation's text is too long"));
            }
        }
    }
    if let Some(actions) = &body.actions {
        most_items(actions.len(), MAX_ACTIONS)?;
        for a in actions {
            for (text, max) in [(&a.label, 20), (&a.description, 40), (&a.identifier, 20)] {
                most_characters(text, max)?;
            }
        }
    }
    let statuses = ["queued", "in_progress", "completed"];
    if body.status.as_ref().is_some_and(|s| !statuses.contains(&s.as_str())) {
        return Err(invalid("status", "status is not one of queued, in_progress, completed"));
    }
    let conclusions = ["action_required", "cancelled", "failure", "neutral", "success", "skipped", "timed_out"];
    if body.conclusion.as_ref().is_some_and(|c| !conclusions.contains(&c.as_str())) {
        return Err(invalid("conclusion", "conclusion is not one that an App may set"));
    }
    Ok(body)
}

/// Puts a request's fields into a check run.
fn apply(check: &mut CheckRun, body: Body) -> Result<(), ApiError> {
    if let Some(name) = body.name {
        check.name = name;
    }
    check.details_url = body.details_url.or(check.details_url.take());
    check.external_id = body.external_id.or(check.external_id.take());
    if let Some(status) = body.status {
        if status != "completed" {
            (check.conclusion, check.completed_at) = (None, None);
        }
        check.status = status;
    }
    // "Create a check run": providing a conclusion sets the status to completed.
    if let Some(conclusion) = body.conclusion {
        check.conclusion = Some(conclusion);
        check.status = "completed".to_owned();
        check.completed_at = Some(body.completed_at.unwrap_or_else(now));
    }
    if (check.status == "completed" || body.completed_at.is_some()) && check.conclusion.is_none() {
        // "Create a check run", `conclusion`: required with `completed_at` or a status of `completed`.
        return Err(invalid("conclusion", "conclusion is missing for a completed check"));
    }
    check.started_at = body.started_at.or(check.started_at);
    if check.status == "in_progress" && check.started_at.is_none() {
        check.started_at = Some(now());
    }
    if let Some(output) = body.output {
        check.output.title = output.title.or(check.output.title.take());
        check.output.summary = output.summary;
        check.output.text = output.text;
        check.output.annotations.extend(output.annotations);
    }
    if let Some(actions) = body.actions {
        check.actions = actions;
    }
    check.writes += 1;
    Ok(())
}

fn show(call: &Call, id: i64) -> Result<Value, ApiError> {
    let shown = with_repo(call, |l, m, r| r.checks.get(&id).map(|c| shapes::check_run(l, m, r, c)))?;
    shown.ok_or_else(ApiError::not_found)
}

/// Tells what a write did to a check, and to its suite.
async fn told(call: &Call, id: i64, before: Option<&str>) -> Result<(), ApiError> {
    let check = call.standin.check(call.repo, id)?;
    let login = call.login();
    call.standin.write(|m| {
        if let Some(s) = m.repos.get_mut(&call.repo).and_then(|r| r.suites.get_mut(&check.suite)) {
            (s.reset, s.updated_at) = (false, now());
        }
    });
    if before.is_none() {
        call.standin.tell_check(call.repo, id, "created", &login, json!({}));
    }
    if check.status != "completed" {
        return Ok(());
    }
    if before != Some("completed") {
        call.standin.tell_check(call.repo, id, "completed", &login, json!({}));
        let done = with_repo(call, |_, _, r| {
            r.latest_checks(&check.head_sha).iter().filter(|c| c.suite == check.suite).all(|c| c.status == "completed")
        })?;
        if done {
            let head = git::commit(&call.standin.git_dir(call.repo), &check.head_sha).await?;
            call.standin.tell_suite(call.repo, check.suite, "completed", &head, &login);
        }
    }
    call.standin.group_checked(call.repo, &check.head_sha).await;
    Ok(())
}

fn own_app(call: &Call) -> Result<i64, ApiError> {
    // "REST API endpoints for check runs": write access is for GitHub Apps alone.
    call.who.app().ok_or_else(|| ApiError::new(403, "You must authenticate via a GitHub App."))
}

pub(super) async fn create(call: &Call) -> Answer {
    let app = own_app(call)?;
    let body = body(call, true)?;
    let (Some(name), Some(sha)) = (body.name.clone(), body.head_sha.clone()) else {
        return Err(ApiError::shape("\"name\", \"head_sha\" weren't supplied."));
    };
    if name.is_empty() {
        return Err(invalid("name", "name can't be blank"));
    }
    if !exists(call, &sha).await? {
        return Err(ApiError::new(422, format!("No commit found for SHA: {sha}")));
    }
    let (suite, _) = call.standin.suite(call.repo, app, &sha, None, None)?;
    let mut check = CheckRun {
        id: 0,
        suite,
        app,
        name,
        head_sha: sha,
        external_id: None,
        details_url: None,
        status: "queued".to_owned(),
        conclusion: None,
        started_at: Some(now()),
        completed_at: None,
        output: Default::default(),
        actions: Vec::new(),
        writes: 0,
    };
    apply(&mut check, body)?;
    let id = call.standin.write(|m| {
        check.id = m.big_id();
        let id = check.id;
        m.repos.get_mut(&call.repo).map(|r| drop(r.checks.insert(id, check)))?;
        Some(id)
    });
    let id = id.ok_or_else(ApiError::not_found)?;
    told(call, id, None).await?;
    created(show(call, id)?)
}

pub(super) async fn update(call: &Call) -> Answer {
    let (app, id) = (own_app(call)?, call.number("check_run_id")?);
    let body = body(call, false)?;
    let before = call.standin.check(call.repo, id)?;
    if before.app != app {
        return Err(ApiError::new(
            403,
            "Invalid app_id - check run can only be modified by the GitHub App that created it.",
        ));
    }
    call.standin.write(|m| {
        let check = m.repos.get_mut(&call.repo).and_then(|r| r.checks.get_mut(&id)).ok_or_else(ApiError::not_found)?;
        // All or nothing.
        let mut changed = check.clone();
        apply(&mut changed, body)?;
        *check = changed;
        Ok::<_, ApiError>(())
    })?;
    told(call, id, Some(&before.status)).await?;
    ok(show(call, id)?)
}

pub(super) async fn get(call: &Call) -> Answer {
    ok(show(call, call.number("check_run_id")?)?)
}

pub(super) async fn annotations(call: &Call) -> Answer {
    let check = call.standin.check(call.repo, call.number("check_run_id")?)?;
    let items = with_repo(call, |l, _, r| {
        check.output.annotations.iter().map(|a| shapes::annotation(l, r, &check, a)).collect()
    })?;
    list(call, items)
}

/// Runs by the filters of the query: `check_name`, `status`, `app_id`, `filter` (`latest` by default: the newest of
/// each App and name).
fn runs(call: &Call, sha: &str, suite: Option<i64>) -> Answer {
    let get = |name: &str| call.query.get(name).map(String::as_str);
    let all = with_repo(call, |l, m, r| {
        let found: Vec<&CheckRun> = match get("filter") {
            Some("all") => r.checks.values().filter(|c| c.head_sha == sha).collect(),
            _ => r.latest_checks(sha),
        };
        let fits = |c: &&&CheckRun| {
            suite.is_none_or(|s| c.suite == s)
                && get("check_name").is_none_or(|n| c.name == n)
                && get("status").is_none_or(|s| c.status == s)
                && get("app_id").is_none_or(|a| c.app.to_string() == a)
        };
        // Newest first.
        found.iter().rev().filter(fits).map(|c| shapes::check_run(l, m, r, c)).collect::<Vec<_>>()
    })?;
    let total = all.len();
    let (items, link) = paged(call, all);
    Ok(Reply { status: 200, body: json!({"total_count": total, "check_runs": items}), link })
}

pub(super) async fn of_commit(call: &Call) -> Answer {
    let sha = resolve(call, call.var("ref")).await?;
    runs(call, &sha, None)
}

pub(super) async fn of_suite(call: &Call) -> Answer {
    let id = call.number("check_suite_id")?;
    let sha = with_repo(call, |_, _, r| r.suites.get(&id).map(|s| s.head_sha.clone()))?;
    runs(call, &sha.ok_or_else(ApiError::not_found)?, Some(id))
}

pub(super) async fn suites_of_commit(call: &Call) -> Answer {
    let sha = resolve(call, call.var("ref")).await?;
    let head = git::commit(&call.standin.git_dir(call.repo), &sha).await?;
    let app = call.query.get("app_id");
    let all = with_repo(call, |l, m, r| {
        let fits = r.suites.values().filter(|s| s.head_sha == sha && app.is_none_or(|a| s.app.to_string() == *a));
        fits.map(|s| shapes::check_suite(l, m, r, s, &head)).collect::<Vec<_>>()
    })?;
    let total = all.len();
    let (items, link) = paged(call, all);
    Ok(Reply { status: 200, body: json!({"total_count": total, "check_suites": items}), link })
}

pub(super) async fn rerequest(call: &Call) -> Answer {
    let id = call.number("check_run_id")?;
    call.standin.rerequest_check(call.repo, id, &call.login())?;
    created(json!({}))
}

pub(super) async fn rerequest_suite(call: &Call) -> Answer {
    let id = call.number("check_suite_id")?;
    call.standin.rerequest_suite(call.repo, id, &call.login()).await?;
    created(json!({}))
}

#[derive(Deserialize)]
struct NewStatus {
    state: String,
    target_url: Option<String>,
    description: Option<String>,
    context: Option<String>,
}

pub(super) async fn create_status(call: &Call) -> Answer {
    let sha = call.var("sha").to_owned();
    let new: NewStatus = serde_json::from_value(call.body.clone()).map_err(ApiError::shape)?;
    if !["error", "failure", "pending", "success"].contains(&new.state.as_str()) {
        return Err(ApiError::invalid("Status", "state", "custom", "state is not included in the list"));
    }
    if new.description.as_ref().is_some_and(|d| d.chars().count() > 140) {
        return Err(ApiError::invalid(
            "Status",
            "description",
            "custom",
            "description is too long (maximum is 140 characters)",
        ));
    }
    if !exists(call, &sha).await? {
        return Err(ApiError::new(422, format!("No commit found for SHA: {sha}")));
    }
    let creator = call.login();
    let status = call.standin.write(|m| {
        let status = CommitStatus {
            id: m.big_id(),
            sha,
            state: new.state,
            context: new.context.unwrap_or_else(|| "default".to_owned()),
            description: new.description,
            target_url: new.target_url,
            creator,
            created_at: now(),
        };
        m.repos.get_mut(&call.repo).map(|r| r.statuses.push(status.clone()))?;
        Some(status)
    });
    let status = status.ok_or_else(ApiError::not_found)?;
    let head = git::commit(&call.standin.git_dir(call.repo), &status.sha).await?;
    let (body, payload) = with_repo(call, |l, m, r| {
        let mut payload = call.standin.envelope(m, r, &status.creator);
        for (name, value) in [
            ("id", json!(status.id)),
            ("sha", json!(status.sha)),
            ("name", json!(r.full_name())),
            ("context", json!(status.context)),
            ("state", json!(status.state)),
            ("description", json!(status.description)),
            ("target_url", json!(status.target_url)),
            ("commit", shapes::commit(l, m, r, &head)),
            ("branches", json!([])),
            ("created_at", json!(status.created_at)),
            ("updated_at", json!(status.created_at)),
        ] {
            payload[name] = value;
        }
        (shapes::status(l, m, r, &status, false), payload)
    })?;
    call.standin.emit(call.repo, "status", &payload, None);
    created(body)
}

pub(super) async fn statuses(call: &Call) -> Answer {
    let sha = resolve(call, call.var("ref")).await?;
    let items = with_repo(call, |l, m, r| {
        let here = r.statuses.iter().rev().filter(|s| s.sha == sha);
        here.map(|s| shapes::status(l, m, r, s, false)).collect()
    })?;
    list(call, items)
}

/// "Get the combined status for a specific reference": the newest of each context; pending when there is none.
pub(super) async fn combined_status(call: &Call) -> Answer {
    let sha = resolve(call, call.var("ref")).await?;
    let body = with_repo(call, |l, m, r| {
        let mut newest: Vec<&CommitStatus> = Vec::new();
        for status in r.statuses.iter().filter(|s| s.sha == sha) {
            newest.retain(|s| s.context != status.context);
            newest.push(status);
        }
        let any = |states: &[&str]| newest.iter().any(|s| states.contains(&s.state.as_str()));
        let state = match (any(&["error", "failure"]), any(&["pending"]) || newest.is_empty()) {
            (true, _) => "failure",
            (_, true) => "pending",
            _ => "success",
        };
        let api = l.repo_api(r);
        json!({
            "state": state,
            "statuses": newest.iter().map(|s| shapes::status(l, m, r, s, true)).collect::<Vec<_>>(),
            "sha": sha,
            "total_count": newest.len(),
            "repository": shapes::repo(l, m, r),
            "commit_url": format!("{api}/commits/{sha}"),
            "url": format!("{api}/commits/{sha}/status"),
        })
    })?;
    ok(body)
}

//! Every request that the client makes, held against GitHub's own OpenAPI description: paths, queries, bodies.

use std::collections::HashSet;

use serde_json::{Value, json};
use switchover::{
    domain::{
        check::{
            Annotation, AnnotationLevel, CheckAction, CheckRun, CheckStatus, Conclusion, Deployment, DeploymentState,
            DeploymentStatus,
        },
        ids::InstallationId,
    },
    github::{CommentKind, Reaction},
};
use wiremock::{Mock, Request, Respond, ResponseTemplate, matchers};

use super::{
    reads::repository,
    rig::{HEAD, Rig, head, line, ok, repo},
    support::{left_out, npm_file},
};

const PACKAGE: &str = "@octokit/openapi";
const VERSION: &str = "23.0.2";

/// Answers anything with something that most functions can read.
struct Anything;

impl Respond for Anything {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let path = request.url.path();
        if request.method.as_str() != "GET" {
            return ok(json!({"id": 9}));
        }
        ok(match path.rsplit('/').next().unwrap() {
            "check-runs" => json!({"check_runs": []}),
            "status" => json!({"statuses": []}),
            "repositories" => json!({"repositories": []}),
            "shop" => repository(),
            "9" => json!({"id": 9, "name": "x", "status": "queued"}),
            "app" => json!({"id": 9, "name": "x"}),
            "5" => {
                json!({"number": 5, "state": "open", "head": {"sha": HEAD, "ref": "x"}, "base": {"sha": HEAD, "ref": "main"}})
            }
            "permission" => json!({"user": null}),
            "ada" => json!({"state": "active"}),
            "12" => {
                json!({"id": 12, "guid": "x", "delivered_at": "2026-03-01T12:00:00Z", "event": "push", "request": {"payload": {}}})
            }
            _ => json!([]),
        })
    }
}

async fn every_call() -> Vec<Request> {
    let rig = Rig::new().await;
    Mock::given(matchers::any()).respond_with(Anything).with_priority(250).mount(&rig.server).await;
    let (g, at) = (&rig.github, &repo());
    g.app().await.unwrap();
    g.installations().await.unwrap();
    g.installation_repositories(InstallationId(3)).await.unwrap();
    g.repository(at).await.unwrap();
    g.branches(at).await.unwrap();
    g.open_pulls(at).await.unwrap();
    g.pull(at, 5).await.unwrap();
    g.check_runs(at, &head()).await.unwrap();
    g.commit_statuses(at, &head()).await.unwrap();
    let annotation = Annotation {
        path: "a.rs".to_owned(),
        start_line: 1,
        end_line: 2,
        level: AnnotationLevel::Warning,
        message: "m".to_owned(),
        title: Some("t".to_owned()),
        raw_details: Some("d".to_owned()),
    };
    let action = CheckAction { label: "l".to_owned(), description: "d".to_owned(), identifier: "i".to_owned() };
    let mut check = CheckRun {
        name: "n".to_owned(),
        head_sha: head(),
        external_id: "e".to_owned(),
        status: CheckStatus::Completed,
        conclusion: Some(Conclusion::TimedOut),
        started_at: Some(jiff::Timestamp::now()),
        completed_at: Some(jiff::Timestamp::now()),
        details_url: Some("https://x.example".to_owned()),
        title: "t".to_owned(),
        summary: "s".to_owned(),
        text: Some("t".to_owned()),
        annotations: vec![annotation; 60],
        actions: vec![action],
    };
    g.ensure_check(at, &check, None, true).await.unwrap();
    g.ensure_check(at, &check, Some(9), false).await.unwrap();
    for conclusion in [
        Conclusion::Success,
        Conclusion::Failure,
        Conclusion::Neutral,
        Conclusion::Cancelled,
        Conclusion::Skipped,
        Conclusion::ActionRequired,
    ] {
        check.conclusion = Some(conclusion);
        g.ensure_check(at, &check, None, false).await.unwrap();
    }
    for status in [CheckStatus::Queued, CheckStatus::InProgress] {
        let open = CheckRun { status, conclusion: None, ..check.clone() };
        g.ensure_check(at, &open, Some(9), false).await.unwrap();
        g.ensure_check(at, &open, None, false).await.unwrap();
    }
    let deployment = Deployment {
        sha: head(),
        environment: "production".to_owned(),
        key: "k".to_owned(),
        description: "d".to_owned(),
        production: true,
    };
    g.ensure_deployment(at, &deployment, None, true).await.unwrap();
    for state in [
        DeploymentState::Pending,
        DeploymentState::Queued,
        DeploymentState::InProgress,
        DeploymentState::Success,
        DeploymentState::Failure,
        DeploymentState::Error,
        DeploymentState::Inactive,
    ] {
        let status = DeploymentStatus {
            state,
            description: "d".to_owned(),
            log_url: "https://x.example".to_owned(),
            environment_url: Some("https://y.example".to_owned()),
        };
        g.ensure_deployment_status(at, 9, &status, true).await.unwrap();
    }
    g.ensure_comment(at, 5, "<!-- m -->", "b", None, true).await.unwrap();
    g.update_comment(at, 9, "b").await.unwrap();
    for kind in [CommentKind::Issue, CommentKind::Review, CommentKind::Commit] {
        for reaction in [Reaction::Eyes, Reaction::Rocket, Reaction::Confused] {
            g.react(at, kind, 9, reaction).await.unwrap();
        }
    }
    g.permission(at, "ada").await.unwrap();
    g.team_member(at, "sre", "ada").await.unwrap();
    g.hook_deliveries(Some("v1_1")).await.unwrap();
    g.hook_delivery(12).await.unwrap();
    g.redeliver(12).await.unwrap();
    g.git_token(at).await.unwrap();
    rig.server.received_requests().await.unwrap()
}

/// The description's own dialect made into JSON Schema: references put in, `nullable`, and no unknown fields.
fn strict(api: &Value, schema: &Value, depth: usize) -> Value {
    assert!(depth < 40, "a request body refers to itself");
    if let Some(to) = schema["$ref"].as_str() {
        return strict(api, api.pointer(to.trim_start_matches('#')).unwrap(), depth + 1);
    }
    let Some(object) = schema.as_object() else { return schema.clone() };
    let mut out = serde_json::Map::new();
    for (key, value) in object {
        let value = match key.as_str() {
            "properties" => {
                let inner = value.as_object().unwrap().iter();
                Value::Object(inner.map(|(k, v)| (k.clone(), strict(api, v, depth + 1))).collect())
            }
            "oneOf" | "anyOf" | "allOf" => {
                Value::Array(value.as_array().unwrap().iter().map(|v| strict(api, v, depth + 1)).collect())
            }
            "items" => strict(api, value, depth + 1),
            "type" if object.get("nullable") == Some(&json!(true)) => json!([value, "null"]),
            _ => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    if out.contains_key("properties") && !out.contains_key("additionalProperties") {
        out.insert("additionalProperties".to_owned(), json!(false));
    }
    Value::Object(out)
}

/// The template of the description that a path fits; one with fewer placeholders is nearer.
fn operation<'a>(api: &'a Value, method: &str, path: &str) -> Option<(&'a str, &'a Value)> {
    let segments: Vec<&str> = path.split('/').collect();
    let fits = |template: &str| {
        let parts: Vec<&str> = template.split('/').collect();
        parts.len() == segments.len() && parts.iter().zip(&segments).all(|(p, s)| p.starts_with('{') || p == s)
    };
    api["paths"]
        .as_object()?
        .iter()
        .filter(|(template, item)| fits(template) && item.get(method).is_some())
        .min_by_key(|(template, _)| template.matches('{').count())
        .map(|(template, item)| (template.as_str(), &item[method]))
}

fn problems(api: &Value, request: &Request) -> Vec<String> {
    let method = request.method.as_str().to_ascii_lowercase();
    let Some((_, operation)) = operation(api, &method, request.url.path()) else {
        return vec!["there is no such operation".to_owned()];
    };
    let mut problems = Vec::new();
    let no_parameters = Vec::new();
    let parameters: Vec<&Value> = operation["parameters"]
        .as_array()
        .unwrap_or(&no_parameters)
        .iter()
        .map(|p| p["$ref"].as_str().map_or(p, |to| api.pointer(to.trim_start_matches('#')).unwrap()))
        .collect();
    for (key, value) in request.url.query_pairs() {
        let Some(known) = parameters.iter().find(|p| p["in"] == "query" && p["name"] == *key) else {
            problems.push(format!("there is no query {key}"));
            continue;
        };
        if let Some(words) = known["schema"]["enum"].as_array()
            && !words.iter().any(|w| w == &*value)
        {
            problems.push(format!("{key}={value} is none of {words:?}"));
        }
    }
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    match (schema.is_null(), request.body.is_empty()) {
        (true, true) => {}
        (true, false) => {
            if request.body != b"{}" {
                problems.push("it takes no body".to_owned());
            }
        }
        (false, true) => problems.push("it needs a body".to_owned()),
        (false, false) => {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            let schema = strict(api, schema, 0);
            let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
            problems.extend(validator.iter_errors(&body).map(|e| format!("{e} at {}", e.instance_path())));
        }
    }
    problems
}

#[tokio::test]
async fn every_request_fits_githubs_description() {
    let text = match npm_file(PACKAGE, VERSION, "generated/api.github.com.json") {
        Ok(text) => text,
        Err(why) => return left_out("npm", "every_request_fits_githubs_description", &why),
    };
    let api: Value = serde_json::from_slice(&text).unwrap();
    let requests = every_call().await;
    let mut used = HashSet::new();
    let mut wrong = Vec::new();
    for request in &requests {
        if let Some((template, _)) = operation(&api, &request.method.as_str().to_ascii_lowercase(), request.url.path())
        {
            used.insert(format!("{} {template}", request.method));
        }
        wrong.extend(problems(&api, request).into_iter().map(|p| format!("{}: {p}", line(request))));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mut used: Vec<_> = used.into_iter().collect();
    used.sort();
    insta::assert_snapshot!(used.join("\n"), @r"
    GET /app
    GET /app/hook/deliveries
    GET /app/hook/deliveries/{delivery_id}
    GET /app/installations
    GET /installation/repositories
    GET /orgs/{org}/teams/{team_slug}/memberships/{username}
    GET /repos/{owner}/{repo}
    GET /repos/{owner}/{repo}/branches
    GET /repos/{owner}/{repo}/check-runs/{check_run_id}
    GET /repos/{owner}/{repo}/collaborators/{username}/permission
    GET /repos/{owner}/{repo}/commits/{ref}/check-runs
    GET /repos/{owner}/{repo}/commits/{ref}/status
    GET /repos/{owner}/{repo}/deployments
    GET /repos/{owner}/{repo}/deployments/{deployment_id}/statuses
    GET /repos/{owner}/{repo}/issues/{issue_number}/comments
    GET /repos/{owner}/{repo}/pulls
    GET /repos/{owner}/{repo}/pulls/{pull_number}
    PATCH /repos/{owner}/{repo}/check-runs/{check_run_id}
    PATCH /repos/{owner}/{repo}/issues/comments/{comment_id}
    POST /app/hook/deliveries/{delivery_id}/attempts
    POST /app/installations/{installation_id}/access_tokens
    POST /repos/{owner}/{repo}/check-runs
    POST /repos/{owner}/{repo}/comments/{comment_id}/reactions
    POST /repos/{owner}/{repo}/deployments
    POST /repos/{owner}/{repo}/deployments/{deployment_id}/statuses
    POST /repos/{owner}/{repo}/issues/comments/{comment_id}/reactions
    POST /repos/{owner}/{repo}/issues/{issue_number}/comments
    POST /repos/{owner}/{repo}/pulls/comments/{comment_id}/reactions
    ");

    // The check itself must be able to fail.
    let mut typo =
        requests.iter().find(|r| r.method.as_str() == "POST" && r.url.path().ends_with("/check-runs")).unwrap().clone();
    let mut body: Value = serde_json::from_slice(&typo.body).unwrap();
    body["sumary"] = json!("x");
    body["status"] = json!("done");
    typo.body = body.to_string().into_bytes();
    assert_eq!(problems(&api, &typo).len(), 2, "{:?}", problems(&api, &typo));
}

//! Check runs, suites and statuses with GitHub's limits.

use serde_json::{Value, json};

use super::support::{Answer, Api, World};

async fn create(api: &Api, w: &World, more: Value) -> Answer {
    let mut body = json!({"name": "test", "head_sha": w.head});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    api.post("/repos/acme/shop/check-runs", body).await
}

fn annotations(n: usize) -> Value {
    (1..=n)
        .map(|line| {
            json!({"path": "app/main.txt", "start_line": line, "end_line": line, "annotation_level": "failure",
                "message": format!("wrong {line}")})
        })
        .collect()
}

fn output(more: Value) -> Value {
    let mut output = json!({"title": "t", "summary": "s"});
    output.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"output": output})
}

#[tokio::test]
async fn what_github_refuses_is_refused() {
    let w = World::start().await;
    let api = w.token(None).await;
    let action = |label: &str, description: &str, identifier: &str| json!({"label": label, "description": description, "identifier": identifier});
    let good = action("Run", "Runs it", "run");
    let cases = [
        json!({"status": "completed"}),
        json!({"completed_at": "2026-01-01T00:00:00Z"}),
        json!({"status": "done"}),
        json!({"conclusion": "great"}),
        json!({"conclusion": "stale"}),
        json!({"started_at": "yesterday"}),
        json!({"name": ""}),
        json!({"head_sha": "0".repeat(40)}),
        json!({"head_sha": "main"}),
        output(json!({"annotations": annotations(51)})),
        output(json!({"summary": "é".repeat(32_768)})),
        output(json!({"text": "é".repeat(32_768)})),
        output(json!({"summary": "é".repeat(65_536)})),
        output(json!({"text": "x".repeat(65_536)})),
        json!({"output": {"title": "no summary"}}),
        json!({"output": {"summary": "no title"}}),
        output(json!({"annotations": [{"path": "a", "start_line": 1}]})),
        output(
            json!({"annotations": [{"path": "a", "start_line": 2, "end_line": 1, "annotation_level": "failure", "message": "m"}]}),
        ),
        output(
            json!({"annotations": [{"path": "a", "start_line": 1, "end_line": 2, "start_column": 1, "annotation_level": "failure", "message": "m"}]}),
        ),
        json!({"actions": [good, good, good, good]}),
        json!({"actions": [action(&"x".repeat(21), "d", "i")]}),
        json!({"actions": [action("l", &"x".repeat(41), "i")]}),
        json!({"actions": [action("l", "d", &"x".repeat(21))]}),
    ];
    let mut seen = Vec::new();
    for case in cases {
        let answer = create(&api, &w, case).await;
        seen.push(answer.refusal().replace(&"0".repeat(40), "ZERO").replace("\n\n", " "));
    }
    insta::assert_snapshot!(seen.join("\n"), @r#"
    422 Validation Failed conclusion is missing for a completed check
    422 Validation Failed conclusion is missing for a completed check
    422 Validation Failed status is not one of queued, in_progress, completed
    422 Validation Failed conclusion is not one that an App may set
    422 Validation Failed conclusion is not one that an App may set
    422 Invalid request. failed to parse four digit integer as year: invalid digit, expected 0-9 but got y
    422 Validation Failed name can't be blank
    422 No commit found for SHA: ZERO
    422 No commit found for SHA: main
    422 Invalid request. No more than 50 items are allowed; 51 were supplied.
    422 Validation Failed summary exceeds a maximum bytesize of 65535
    422 Validation Failed text exceeds a maximum bytesize of 65535
    422 Invalid request. Only 65535 characters are allowed; 65536 were supplied.
    422 Invalid request. Only 65535 characters are allowed; 65536 were supplied.
    422 Invalid request. "summary" wasn't supplied.
    422 Invalid request. "title" wasn't supplied.
    422 Invalid request. missing field `end_line`
    422 Validation Failed an annotation's level, lines, columns or message do not fit
    422 Validation Failed an annotation's level, lines, columns or message do not fit
    422 Invalid request. No more than 3 items are allowed; 4 were supplied.
    422 Invalid request. Only 20 characters are allowed; 21 were supplied.
    422 Invalid request. Only 40 characters are allowed; 41 were supplied.
    422 Invalid request. Only 20 characters are allowed; 21 were supplied.
    "#);
    assert_eq!(w.standin.read(|m| m.repos[&w.repo].checks.len()), 0);
    // The very limits are fine.
    let full = json!({"conclusion": "success", "actions": [good, good, good],
        "output": {"title": "t", "summary": "x".repeat(65_535), "text": "x".repeat(65_535), "annotations": annotations(50)}});
    create(&api, &w, full).await.good();
    // People cannot write checks.
    let token = w.standin.create_user("bob").unwrap();
    let person = Api::new(&w.standin, Some(&token));
    assert_eq!(create(&person, &w, json!({})).await.refusal(), "403 You must authenticate via a GitHub App.");
    w.stop().await;
}

#[tokio::test]
async fn a_check_lives_and_collects_annotations() {
    let w = World::start().await;
    let api = w.token(None).await;
    let run = create(&api, &w, json!({"external_id": "run-1", "details_url": "https://example.com/1"})).await.good();
    assert_eq!((&run["status"], &run["conclusion"]), (&json!("queued"), &Value::Null));
    assert!(run["id"].as_i64().unwrap() > i64::from(u32::MAX), "numbers are as large as GitHub's");
    w.hooks.event("check_run", "created").await;
    let path = format!("/repos/acme/shop/check-runs/{}", run["id"]);
    let going = api.patch(&path, json!({"status": "in_progress"})).await.good();
    assert!(going["started_at"].is_string());
    api.patch(&path, output(json!({"annotations": annotations(50)}))).await.good();
    let mut last = output(json!({"annotations": annotations(7)}));
    last["conclusion"] = json!("failure");
    let done = api.patch(&path, last).await.good();
    assert_eq!((&done["status"], &done["output"]["annotations_count"]), (&json!("completed"), &json!(57)));
    let told = w.hooks.event("check_run", "completed").await;
    assert_eq!(told.body["check_run"]["external_id"], "run-1");
    assert_eq!(w.hooks.event("check_suite", "completed").await.body["check_suite"]["conclusion"], "failure");
    let page = api.get(&format!("{path}/annotations?per_page=50&page=2")).await;
    assert!(page.header("link").contains("rel=\"prev\""));
    assert_eq!(page.good().as_array().unwrap().len(), 7);
    // A refused write changes nothing.
    assert_eq!(api.patch(&path, json!({"name": "other", "status": "nonsense"})).await.status, 422);
    assert_eq!(api.get(&path).await.good()["name"], "test");
    // Another App's check is not ours to write.
    let other = w.standin.register_app("Other", None, None).unwrap();
    let check = w.standin.write(|m| {
        let mut check = m.repos[&w.repo].checks[&run["id"].as_i64().unwrap()].clone();
        check.id = m.big_id();
        check.app = other.id;
        m.repos.get_mut(&w.repo).unwrap().checks.insert(check.id, check.clone());
        check.id
    });
    let path = format!("/repos/acme/shop/check-runs/{check}");
    assert_eq!(api.patch(&path, json!({"conclusion": "success"})).await.status, 403);
    w.stop().await;
}

#[tokio::test]
async fn the_newest_of_one_name_wins() {
    let w = World::start().await;
    let api = w.token(None).await;
    create(&api, &w, json!({"external_id": "1", "conclusion": "failure"})).await.good();
    create(&api, &w, json!({"external_id": "2", "conclusion": "success"})).await.good();
    create(&api, &w, json!({"name": "lint", "external_id": "3"})).await.good();
    let list = async |query: &str| {
        let body = api.get(&format!("/repos/acme/shop/commits/main/check-runs{query}")).await.good();
        let ids: Vec<String> = body["check_runs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["external_id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(body["total_count"].as_u64().unwrap() as usize, ids.len());
        ids.join(" ")
    };
    let app = w.app.id;
    let queries = ["", "?filter=all", "?check_name=test", "?check_name=test&filter=all", "?status=queued", "?app_id=1"];
    let mut seen = Vec::new();
    for query in queries {
        seen.push(format!("{query}: {}", list(query).await));
    }
    insta::assert_snapshot!(seen.join("\n"), @r"
    : 3 2
    ?filter=all: 3 2 1
    ?check_name=test: 2
    ?check_name=test&filter=all: 2 1
    ?status=queued: 3
    ?app_id=1:
    ");
    assert_eq!(list(&format!("?app_id={app}&check_name=lint")).await, "3");
    let suites = api.get(&format!("/repos/acme/shop/commits/{}/check-suites", w.head)).await.good();
    assert_eq!(suites["total_count"], 1);
    let suite = suites["check_suites"][0]["id"].clone();
    let runs = api.get(&format!("/repos/acme/shop/check-suites/{suite}/check-runs")).await.good();
    assert_eq!(runs["total_count"], 2);
    assert_eq!(api.get("/repos/acme/shop/commits/nothing/check-runs").await.status, 422);
    w.stop().await;
}

#[tokio::test]
async fn re_run_and_buttons_reach_the_app() {
    let w = World::start().await;
    let api = w.token(None).await;
    let actions = json!([{"label": "Approve", "description": "Run it", "identifier": "approve"}]);
    let run = create(&api, &w, json!({"external_id": "r", "actions": actions})).await.good();
    let id = run["id"].as_i64().unwrap();
    assert!(w.standin.press(w.repo, id, "approve", "bob").is_err(), "buttons show on completed checks only");
    assert!(w.standin.rerequest_check(w.repo, id, "bob").is_err());
    let path = format!("/repos/acme/shop/check-runs/{id}");
    api.patch(&path, json!({"conclusion": "action_required"})).await.good();
    w.standin.press(w.repo, id, "approve", "bob").unwrap();
    let pressed = w.hooks.event("check_run", "requested_action").await;
    assert_eq!(pressed.body["requested_action"]["identifier"], "approve");
    assert_eq!(pressed.body["sender"]["login"], "bob");
    assert_eq!(pressed.body["check_run"]["external_id"], "r");
    assert!(w.standin.press(w.repo, id, "other", "bob").is_err());
    w.standin.rerequest_check(w.repo, id, "bob").unwrap();
    let again = w.hooks.event("check_run", "rerequested").await;
    assert_eq!(again.body["check_run"]["head_sha"], json!(w.head));
    // The run is left as it is, its suite is queued again.
    assert_eq!(api.get(&path).await.good()["status"], "completed");
    let suites = format!("/repos/acme/shop/commits/{}/check-suites", w.head);
    let suite = api.get(&suites).await.good()["check_suites"][0].clone();
    assert_eq!((&suite["status"], &suite["conclusion"]), (&json!("queued"), &Value::Null));
    api.post(&format!("/repos/acme/shop/check-suites/{}/rerequest", suite["id"]), json!({})).await.good();
    let all = w.hooks.event("check_suite", "rerequested").await;
    assert_eq!(all.body["check_suite"]["id"], suite["id"]);
    api.post(&format!("{path}/rerequest"), json!({})).await.good();
    w.stop().await;
}

#[tokio::test]
async fn statuses_are_combined() {
    let w = World::start().await;
    let token = w.standin.create_user("bob").unwrap();
    let bob = Api::new(&w.standin, Some(&token));
    let path = format!("/repos/acme/shop/statuses/{}", w.head);
    let combined = format!("/repos/acme/shop/commits/{}/status", w.head);
    let mut seen = vec![bob.get(&combined).await.good()["state"].clone()];
    for (context, state) in [("a", "failure"), ("b", "success"), ("a", "success"), ("b", "pending")] {
        bob.post(&path, json!({"context": context, "state": state, "target_url": "https://example.com/"})).await.good();
        seen.push(bob.get(&combined).await.good()["state"].clone());
    }
    assert_eq!(seen, ["pending", "failure", "failure", "success", "pending"]);
    assert_eq!(bob.post(&path, json!({"state": "fine"})).await.status, 422);
    assert_eq!(
        bob.get(&format!("/repos/acme/shop/commits/{}/statuses", w.head)).await.good().as_array().unwrap().len(),
        4
    );
    let app = w.token(None).await;
    assert_eq!(app.get(&combined).await.good()["total_count"], 2);
    assert_eq!(app.post(&path, json!({"state": "success"})).await.status, 403, "the App asked for reading only");
    assert_eq!(w.hooks.wait("status", |r| r.event == "status").await.body["sha"], json!(w.head));
    w.stop().await;
}

//! Deployments, comments, reactions, permissions, code.

use serde_json::{Value, json};
use switchover::demo::github::{NewPull, model::Role};

use super::support::{Api, World};

async fn deploy(api: &Api, git_ref: &str, environment: &str, more: Value) -> super::support::Answer {
    let mut body = json!({"ref": git_ref, "environment": environment, "auto_merge": false, "required_contexts": []});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    api.post("/repos/acme/shop/deployments", body).await
}

#[tokio::test]
async fn deployments_have_states() {
    let w = World::start().await;
    let api = w.token(None).await;
    let payload = json!({"payload": {"rollout": 7}, "description": "x".repeat(140)});
    let first = deploy(&api, &w.head, "staging", payload).await.good();
    assert_eq!((&first["sha"], &first["payload"]["rollout"]), (&json!(w.head), &json!(7)));
    assert_eq!(first["production_environment"], false);
    assert_eq!(first["performed_via_github_app"]["id"], json!(w.app.id));
    let set =
        async |id: &Value, body: Value| api.post(&format!("/repos/acme/shop/deployments/{id}/statuses"), body).await;
    let log =
        json!({"state": "success", "log_url": "https://example.com/log", "environment_url": "https://example.com/"});
    let status = set(&first["id"], log.clone()).await.good();
    assert_eq!(status["target_url"], "https://example.com/log");
    let states = || {
        w.standin.read(|m| {
            m.repos[&w.repo]
                .deployments
                .values()
                .map(|d| format!("{} {}", d.environment, d.state()))
                .collect::<Vec<_>>()
        })
    };
    let second = deploy(&api, &w.head, "staging", json!({})).await.good();
    set(&second["id"], json!({"state": "in_progress"})).await.good();
    set(&second["id"], log.clone()).await.good();
    assert_eq!(states(), ["staging inactive", "staging success"], "older non-production ones turn inactive");
    let third = deploy(&api, &w.head, "staging", json!({})).await.good();
    let mut keep = log.clone();
    keep["auto_inactive"] = json!(false);
    set(&third["id"], keep).await.good();
    for _ in 0..2 {
        let production = deploy(&api, &w.head, "production", json!({})).await.good();
        assert_eq!(production["production_environment"], true);
        set(&production["id"], log.clone()).await.good();
    }
    assert_eq!(
        states(),
        ["staging inactive", "staging success", "staging success", "production success", "production success"],
        "production is never made inactive by itself"
    );
    for (query, count) in [("?environment=staging", 3), ("?environment=production&task=deploy", 2), ("?sha=abc", 0)] {
        let list = api.get(&format!("/repos/acme/shop/deployments{query}")).await.good();
        assert_eq!(list.as_array().unwrap().len(), count, "{query}");
    }
    let history = api.get(&format!("/repos/acme/shop/deployments/{}/statuses", second["id"])).await.good();
    assert_eq!(history[0]["state"], "success", "newest first");
    let mut seen = Vec::new();
    for refused in [
        deploy(&api, "nothing", "staging", json!({})).await,
        deploy(&api, &w.head, "staging", json!({"description": "x".repeat(141)})).await,
        set(&first["id"], json!({"state": "fine"})).await,
        set(&first["id"], json!({"state": "error", "description": "x".repeat(141)})).await,
        set(&json!(1), json!({"state": "error"})).await,
        api.post("/repos/acme/shop/deployments", json!({})).await,
    ] {
        seen.push(refused.refusal().replace("\n\n", " "));
    }
    insta::assert_snapshot!(seen.join("\n"), @r"
    422 No ref found for: nothing
    422 Validation Failed description is too long (maximum is 140 characters)
    422 Validation Failed state is not included in the list
    422 Validation Failed description is too long (maximum is 140 characters)
    404 Not Found
    422 Invalid request. missing field `ref`
    ");
    w.stop().await;
}

#[tokio::test]
async fn a_deployment_with_defaults_merges_and_asks_for_green() {
    let w = World::start().await;
    let api = w.token(None).await;
    w.standin.commit(w.repo, "topic", &[("topic", Some("1"))], "topic", "bob").await.unwrap();
    let behind = w.standin.commit(w.repo, "main", &[("main", Some("1"))], "main", "bob").await.unwrap();
    let plain = json!({"ref": "topic", "environment": "staging"});
    let merged = api.post("/repos/acme/shop/deployments", plain.clone()).await;
    assert_eq!((merged.status, &merged.body["message"]), (202, &json!("Auto-merged main into topic on deployment.")));
    assert_eq!(api.post("/repos/acme/shop/deployments", plain.clone()).await.status, 201, "now it is up to date");
    assert_eq!(
        api.post("/repos/acme/shop/deployments", json!({"ref": w.head})).await.status,
        409,
        "a commit cannot be merged into"
    );
    let check = json!({"name": "test", "head_sha": behind, "status": "in_progress"});
    let run = api.post("/repos/acme/shop/check-runs", check).await.good();
    let refused = api.post("/repos/acme/shop/deployments", json!({"ref": "main"})).await;
    assert_eq!(
        (refused.status, refused.refusal().as_str()),
        (409, "409 Conflict: Commit status checks failed for test.")
    );
    assert_eq!(deploy(&api, "main", "staging", json!({"required_contexts": ["other"]})).await.status, 409);
    api.patch(&format!("/repos/acme/shop/check-runs/{}", run["id"]), json!({"conclusion": "skipped"})).await.good();
    assert_eq!(api.post("/repos/acme/shop/deployments", json!({"ref": "main"})).await.status, 201);
    w.stop().await;
}

#[tokio::test]
async fn comments_and_reactions() {
    let w = World::start().await;
    let api = w.token(None).await;
    w.standin.commit(w.repo, "c", &[("c", Some("1"))], "c", "bob").await.unwrap();
    let new = NewPull { title: "c".into(), head: "c".into(), ..NewPull::default() };
    let number = w.standin.open_pull(w.repo, "bob", new).await.unwrap();
    let issue = w.standin.open_issue(w.repo, "eve", "Broken").unwrap();
    let asked = w.standin.comment(w.repo, number, "eve", "/deploy staging").unwrap();
    let told = w.hooks.event("issue_comment", "created").await;
    assert_eq!(told.body["comment"]["id"], json!(asked));
    assert!(told.body["issue"]["pull_request"]["url"].is_string());
    assert!(!told.body.to_string().contains("head_sha"), "no head commit in issue_comment");
    w.standin.comment(w.repo, issue, "eve", "/help").unwrap();
    let on_issue = w.hooks.wait("comment on an issue", |r| r.body["issue"]["number"] == json!(issue)).await;
    assert!(on_issue.body["issue"].get("pull_request").is_none());
    let reactions = format!("/repos/acme/shop/issues/comments/{asked}/reactions");
    assert_eq!(api.post(&reactions, json!({"content": "eyes"})).await.status, 201);
    assert_eq!(api.post(&reactions, json!({"content": "eyes"})).await.status, 200, "there already");
    assert_eq!(api.post(&reactions, json!({"content": "cake"})).await.status, 422);
    assert_eq!(api.get(&reactions).await.good()[0]["user"]["login"], "ship[bot]");
    let comments = format!("/repos/acme/shop/issues/{number}/comments");
    let mine = api.post(&comments, json!({"body": "<!-- mark -->\nrunning"})).await.good();
    assert_eq!(mine["performed_via_github_app"]["slug"], "ship");
    assert_eq!(mine["user"]["type"], "Bot");
    let path = format!("/repos/acme/shop/issues/comments/{}", mine["id"]);
    api.patch(&path, json!({"body": "<!-- mark -->\ndone"})).await.good();
    let edited = w.hooks.event("issue_comment", "edited").await;
    assert_eq!(edited.body["sender"]["login"], "ship[bot]");
    assert_eq!(api.get(&comments).await.good()[1]["body"], "<!-- mark -->\ndone");
    let mut seen = Vec::new();
    for body in [json!({"body": ""}), json!({"body": "x".repeat(65_537)}), json!({}), json!({"body": 1})] {
        seen.push(api.post(&comments, body).await.refusal().replace("\n\n", " "));
    }
    seen.push(api.post("/repos/acme/shop/issues/999/comments", json!({"body": "x"})).await.refusal());
    insta::assert_snapshot!(seen.join("\n"), @r"
    422 Validation Failed Body can't be blank
    422 Validation Failed Body is too long (maximum is 65536 characters)
    422 Invalid request. missing field `body`
    422 Invalid request. invalid type: integer `1`, expected a string
    404 Not Found
    ");
    assert_eq!(api.post(&comments, json!({"body": "ü".repeat(65_536)})).await.status, 201, "characters, not bytes");
    let line = w.standin.comment_line(w.repo, number, "ann", ("c", 1), "here").unwrap();
    w.hooks.event("pull_request_review_comment", "created").await;
    let on_line = format!("/repos/acme/shop/pulls/comments/{line}/reactions");
    assert_eq!(api.post(&on_line, json!({"content": "rocket"})).await.status, 201);
    assert_eq!(api.get(&format!("/repos/acme/shop/issues/comments/{line}")).await.status, 404);
    w.stop().await;
}

#[tokio::test]
async fn permissions_by_role_team_and_custom_role() {
    let w = World::start().await;
    let api = w.token(None).await;
    w.standin.permission(w.repo, "cat", Role::Maintain, Some("Release captain")).unwrap();
    w.standin.permission(w.repo, "dan", Role::Triage, None).unwrap();
    w.standin.team("acme", "ops", &["fay", "dan"], &[(w.repo, Role::Write)]).unwrap();
    let mut seen = Vec::new();
    for login in ["ann", "bob", "cat", "dan", "fay", "eve", "ship[bot]", "nobody"] {
        let answer = api.get(&format!("/repos/acme/shop/collaborators/{login}/permission")).await;
        if answer.status != 200 {
            seen.push(format!("{login}: {}", answer.status));
            continue;
        }
        let b = answer.body;
        let can = &b["user"]["permissions"];
        let yes: Vec<&str> =
            ["admin", "maintain", "push", "triage", "pull"].into_iter().filter(|p| can[*p] == true).collect();
        seen.push(
            format!("{login}: {} {} {}", b["permission"].as_str().unwrap(), b["role_name"], yes.join(" "))
                .trim_end()
                .to_owned(),
        );
    }
    insta::assert_snapshot!(seen.join("\n"), @r#"
    ann: admin "admin" admin maintain push triage pull
    bob: write "write" push triage pull
    cat: write "Release captain" maintain push triage pull
    dan: write "write" push triage pull
    fay: write "write" push triage pull
    eve: none "none"
    ship[bot]: none "none"
    nobody: 404
    "#);
    assert_eq!(api.get("/orgs/acme/teams/ops/memberships/fay").await.good()["state"], "active");
    assert_eq!(api.get("/orgs/acme/teams/ops/memberships/ann").await.status, 404);
    assert_eq!(api.get("/users/ann").await.good()["login"], "ann");
    w.standin.revoke(w.repo, "bob").unwrap();
    let gone = api.get("/repos/acme/shop/collaborators/bob/permission").await.good();
    assert_eq!(gone["permission"], "none");
    w.stop().await;
}

#[tokio::test]
async fn code_is_read() {
    let w = World::start().await;
    let api = w.token(None).await;
    let odd = "odd/ü #%&+?.txt";
    let tip = w.standin.commit(w.repo, "f/x", &[(odd, Some("hé\n")), ("README.md", None)], "Odd", "bob").await.unwrap();
    let repo = "/repos/acme/shop";
    assert_eq!(api.get(&format!("{repo}/branches/f/x")).await.good()["commit"]["sha"], json!(tip));
    assert_eq!(api.get(&format!("{repo}/branches/f%2Fx")).await.good()["name"], "f/x");
    assert_eq!(api.get(&format!("{repo}/branches/none")).await.refusal(), "404 Branch not found");
    assert_eq!(api.get(&format!("{repo}/branches")).await.good().as_array().unwrap().len(), 2);
    assert_eq!(api.get(&format!("{repo}/git/ref/heads/f")).await.status, 404);
    assert_eq!(api.get(&format!("{repo}/git/matching-refs/heads/f")).await.good()[0]["ref"], "refs/heads/f/x");
    let commit = api.get(&format!("{repo}/commits/f/x")).await.good();
    let files: Vec<String> =
        commit["files"].as_array().unwrap().iter().map(|f| format!("{} {}", f["status"], f["filename"])).collect();
    assert_eq!(files, ["\"removed\" \"README.md\"", "\"added\" \"odd/ü #%&+?.txt\""]);
    let compared = api.get(&format!("{repo}/compare/main...f/x")).await.good();
    assert_eq!((&compared["status"], &compared["ahead_by"]), (&json!("ahead"), &json!(1)));
    assert_eq!(api.get(&format!("{repo}/compare/f/x...main")).await.good()["status"], "behind");
    assert_eq!(api.get(&format!("{repo}/compare/main...none")).await.status, 404);
    let path = "odd/%C3%BC%20%23%25%26%2B%3F.txt";
    let file = api.get(&format!("{repo}/contents/{path}?ref=f/x")).await.good();
    assert_eq!((&file["content"], &file["path"]), (&json!("aMOpCg==\n"), &json!(odd)));
    let folder = api.get(&format!("{repo}/contents/odd?ref={tip}")).await.good();
    assert_eq!(folder[0]["type"], "file");
    for nothing in ["none", "odd/none", "a%2F..%2Fb", "odd%2F.", "%2Fetc", "a%00b"] {
        assert_eq!(api.get(&format!("{repo}/contents/{nothing}")).await.status, 404, "{nothing}");
    }
    assert_eq!(api.get(&format!("{repo}/commits?sha=f/x&per_page=1")).await.good()[0]["sha"], json!(tip));
    // Nothing in a path becomes an option or another revision for git.
    for hostile in ["--help", "main~1", "main%5E", "HEAD@%7B1%7D", "main:README.md", "-n1", "%00", "main%0Ax"] {
        let status = api.get(&format!("{repo}/commits/{hostile}")).await.status;
        assert!(matches!(status, 404 | 422), "{hostile}: {status}");
    }
    w.stop().await;
}

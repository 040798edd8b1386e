//! What is read: the App, installations, repositories, branches, pull requests, deliveries.

use serde_json::{Value, json};
use switchover::{
    domain::ids::{InstallationId, RepoId},
    github::GitHubError,
};
use wiremock::ResponseTemplate;

use super::rig::{HEAD, Rig, ok, repo};

pub fn repository() -> Value {
    json!({"id": 7, "name": "shop", "full_name": "acme/shop", "owner": {"login": "acme", "type": "Organization"},
        "default_branch": "main", "archived": false, "private": true})
}

fn pull(number: i64, head_repo: &Value) -> Value {
    json!({"number": number, "title": "A cart", "state": "open", "draft": false, "mergeable": null,
        "user": {"login": "renovate[bot]", "type": "Bot"}, "head": {"sha": HEAD, "ref": "cart", "repo": head_repo},
        "base": {"sha": HEAD, "ref": "main", "repo": {"id": 7}}})
}

#[tokio::test]
async fn the_app_and_its_installations() {
    let rig = Rig::new().await;
    rig.on(
        "GET",
        "/app",
        ok(json!({"id": 77, "slug": "switchover", "name": "Switchover", "owner": null,
        "permissions": {"checks": "write"}, "events": ["push"]})),
    )
    .await;
    let app = rig.github.app().await.unwrap();
    assert_eq!((app.slug.as_str(), app.permissions["checks"].as_str(), app.events.len()), ("switchover", "write", 1));

    rig.on(
        "GET",
        "/app/installations",
        ok(json!([
        {"id": 3, "account": {"login": "acme"}, "suspended_at": null, "permissions": {"checks": "write"}},
        {"id": 4, "account": {"slug": "big"}, "suspended_at": "2026-01-01T00:00:00Z"}, {"id": 5, "account": null}])),
    )
    .await;
    let all = rig.github.installations().await.unwrap();
    let words: Vec<_> = all.iter().map(|i| (i.id.0, i.account.as_str(), i.suspended)).collect();
    assert_eq!(words, [(3, "acme", false), (4, "big", true), (5, "", false)]);

    let mut odd = repository();
    odd["name"] = json!("../..");
    let list = json!({"total_count": 2, "repositories": [odd, repository()]});
    rig.on("GET", "/installation/repositories", ok(list)).await;
    let found = rig.github.installation_repositories(InstallationId(3)).await.unwrap();
    assert_eq!(found.len(), 1, "one odd entry does not hide the others");
    assert_eq!((found[0].repo.full_name().as_str(), found[0].repo.installation), ("acme/shop", InstallationId(3)));
}

#[tokio::test]
async fn repositories_branches_and_pulls() {
    let rig = Rig::new().await;
    rig.on("GET", "/repos/acme/shop", ok(repository())).await;
    let info = rig.github.repository(&repo()).await.unwrap();
    assert_eq!((info.repo, info.default_branch.as_str(), info.private), (repo(), "main", true));

    let branch = |n: usize| json!({"name": format!("b/{n}"), "commit": {"sha": HEAD, "url": "x"}, "protected": false});
    let path = "/repos/acme/shop/branches";
    rig.once("GET", path, ok(json!((0..100).map(branch).collect::<Vec<_>>()))).await;
    rig.once("GET", path, ok(json!((100..130).map(branch).collect::<Vec<_>>()))).await;
    let branches = rig.github.branches(&repo()).await.unwrap();
    assert_eq!((branches.len(), branches[129].0.as_str(), branches[0].1.as_str()), (130, "b/129", HEAD));

    rig.on("GET", "/repos/acme/shop/pulls", ok(json!([pull(5, &json!({"id": 7})), pull(6, &Value::Null)]))).await;
    rig.on("GET", "/repos/acme/shop/pulls/6", ok(pull(6, &Value::Null))).await;
    let pulls = rig.github.open_pulls(&repo()).await.unwrap();
    assert_eq!(pulls.iter().map(|p| (p.number, p.head_repo)).collect::<Vec<_>>(), [(5, Some(RepoId(7))), (6, None)]);
    let one = rig.github.pull(&repo(), 6).await.unwrap();
    assert!(one == pulls[1] && one.author.bot && one.open);
    insta::assert_snapshot!(rig.asked().await.join("\n"), @r"
    GET /repos/acme/shop
    GET /repos/acme/shop/branches?per_page=100&page=1
    GET /repos/acme/shop/branches?per_page=100&page=2
    GET /repos/acme/shop/pulls?state=open&per_page=100&page=1
    GET /repos/acme/shop/pulls/6
    ");

    assert_eq!(rig.github.clone_url(&repo()).unwrap().as_str(), "https://github.example/acme/shop.git");
}

#[tokio::test]
async fn an_answer_of_another_shape() {
    let rig = Rig::new().await;
    for (path, body) in [
        ("/repos/acme/shop", json!({"id": 7, "name": "a b", "owner": {"login": "acme"}, "default_branch": "main"})),
        ("/repos/acme/shop", json!([])),
        ("/repos/acme/shop", json!({"id": "7"})),
    ] {
        rig.once("GET", path, ok(body.clone())).await;
        rig.once("GET", path, ok(body.clone())).await;
        rig.once("GET", path, ok(body)).await;
        let error = rig.github.repository(&repo()).await.unwrap_err();
        assert!(matches!(error, GitHubError::Decode { .. }), "{error}");
        rig.server.reset().await;
        rig.open_token_desk().await;
    }
    rig.on("GET", "/repos/acme/shop/branches", ok(json!([{"name": "x", "commit": {"sha": "main"}}]))).await;
    let error = rig.github.branches(&repo()).await.unwrap_err();
    assert!(error.to_string().contains("lower-case hex digits"), "{error}");
}

fn delivery(id: i64, status_code: u16) -> Value {
    json!({"id": id, "guid": "0b989ba4-242f-11e5-81e1-c7b6966d2516", "delivered_at": "2026-03-01T12:00:00Z",
        "redelivery": false, "duration": 0.27, "status": "OK", "status_code": status_code, "event": "push",
        "action": null, "installation_id": 3, "repository_id": 7, "throttled_at": null})
}

#[tokio::test]
async fn deliveries_page_by_cursor_and_never_to_another_host() {
    let rig = Rig::new().await;
    let path = "/app/hook/deliveries";
    let links = "<https://evil.example/app/hook/deliveries?per_page=100&cursor=v1%5F123>; rel=\"next\", <x?cursor=0>; rel=\"prev\"";
    rig.once(
        "GET",
        path,
        ok(json!([delivery(12, 200), delivery(11, 502), delivery(10, 0)])).insert_header("link", links),
    )
    .await;
    rig.once("GET", path, ok(json!([]))).await;
    let page = rig.github.hook_deliveries(None).await.unwrap();
    let taken: Vec<bool> = page.deliveries.iter().map(|d| d.taken()).collect();
    assert_eq!((taken, page.next.as_deref()), (vec![true, false, false], Some("v1_123")));
    assert_eq!(
        (page.deliveries[0].installation_id, page.deliveries[0].repository_id),
        (Some(InstallationId(3)), Some(RepoId(7)))
    );
    let last = rig.github.hook_deliveries(page.next.as_deref()).await.unwrap();
    assert_eq!((last.deliveries.len(), last.next), (0, None));
    assert_eq!(
        rig.asked().await,
        ["GET /app/hook/deliveries?per_page=100", "GET /app/hook/deliveries?per_page=100&cursor=v1_123"]
    );
    for odd in ["", "<>; rel=\"next\"", "nonsense", "<https://x/?page=2>; rel=\"next\"", "<?cursor=>; rel=\"next\""] {
        rig.once("GET", path, ok(json!([])).insert_header("link", odd)).await;
        assert_eq!(rig.github.hook_deliveries(None).await.unwrap().next, None, "{odd}");
    }
}

#[tokio::test]
async fn a_delivery_and_its_payload() {
    let rig = Rig::new().await;
    let path = "/app/hook/deliveries/12";
    let payload = json!({"ref": "refs/heads/main", "n": 12345678901234567890_u64, "commits": [{"x": 1.0}]});
    for sent in [payload.clone(), json!(payload.to_string())] {
        let mut detail = delivery(12, 200);
        detail["request"] = json!({"headers": {"X-GitHub-Event": "push"}, "payload": sent});
        detail["response"] = json!({"headers": {}, "payload": null});
        rig.once("GET", path, ok(detail)).await;
        let found = rig.github.hook_delivery(12).await.unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&found.payload).unwrap(), payload);
        assert_eq!((found.delivery.event.as_str(), found.delivery.id), ("push", 12));
    }
    rig.on("POST", "/app/hook/deliveries/12/attempts", ResponseTemplate::new(202).set_body_json(json!({}))).await;
    rig.github.redeliver(12).await.unwrap();
    assert!(matches!(rig.github.redeliver(13).await, Err(GitHubError::NotFound { .. })));
}

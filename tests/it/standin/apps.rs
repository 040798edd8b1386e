//! Apps: JWTs, installations, tokens and their scope.

use serde_json::{Value, json};
use switchover::demo::github::model::Level;

use super::support::{Api, World};

#[tokio::test]
async fn jwts_are_really_verified() {
    let w = World::start().await;
    let now = jiff::Timestamp::now().as_second();
    let id = w.app.id.to_string();
    assert_eq!(w.jwt().get("/app").await.good()["slug"], "ship");
    let cases = [
        json!({"iss": w.app.id, "iat": now, "exp": now + 540}),
        json!({"iss": id, "iat": now - 60, "exp": now + 700}),
        json!({"iss": id, "iat": now - 660, "exp": now - 60}),
        json!({"iss": id, "iat": now + 300, "exp": now + 540}),
        json!({"iss": id, "exp": now + 540}),
        json!({"iss": id, "iat": now}),
        json!({"iss": "1", "iat": now, "exp": now + 540}),
        json!({"iat": now, "exp": now + 540}),
    ];
    let mut seen = Vec::new();
    for claims in &cases {
        seen.push(w.jwt_with(claims).get("/app").await.refusal());
    }
    let other = w.standin.register_app("Other", None, None).unwrap();
    let stolen = World { app: switchover::demo::github::Registered { id: w.app.id, ..other }, ..w };
    seen.push(stolen.jwt().get("/app").await.refusal());
    let w = World { app: w_app(&stolen), ..stolen };
    for auth in [None, Some("ghs_nothing"), Some("a.b.c"), Some("x")] {
        seen.push(Api::new(&w.standin, auth).get("/app").await.refusal());
    }
    insta::assert_snapshot!(seen.join("\n"), @r"
    200 ?
    401 'Expiration time' claim ('exp') is too far in the future
    401 'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires
    401 'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued
    401 'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued
    401 'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires
    404 Integration not found
    401 Missing 'issuer' claim ('iss') in assertion
    401 A JSON web token could not be decoded
    401 A JSON web token could not be decoded
    401 Bad credentials
    401 A JSON web token could not be decoded
    401 Bad credentials
    ");
    w.stop().await;
}

/// The App as it really is, after a test lent its number to somebody else's key.
fn w_app(w: &World) -> switchover::demo::github::Registered {
    w.standin.read(|m| {
        let app = &m.apps[&w.app.id];
        switchover::demo::github::Registered {
            id: app.id,
            slug: app.slug.clone(),
            private_key_pem: app.private_key_pem.clone(),
            webhook_secret: app.spec.webhook_secret.clone(),
        }
    })
}

#[tokio::test]
async fn tokens_are_really_scoped() {
    let w = World::start().await;
    let other = w.standin.create_repository("acme", "other", "main", true).await.unwrap();
    let public = w.standin.create_repository("acme", "open", "main", false).await.unwrap();
    let path = format!("/app/installations/{}/access_tokens", w.installation);
    let made = w.jwt().post(&path, json!({"repository_ids": [w.repo], "permissions": {"checks": "read"}})).await.good();
    let token = made["token"].as_str().unwrap();
    assert!(token.starts_with("ghs_") && token.contains('.') && token.len() > 500, "{} long", token.len());
    assert_eq!(made["permissions"], json!({"checks": "read", "metadata": "read"}));
    let api = Api::new(&w.standin, Some(token));
    let sha = &w.head;
    let calls = [
        ("GET", "/repos/acme/shop".to_owned()),
        ("GET", format!("/repos/acme/shop/commits/{sha}/check-runs")),
        ("POST", "/repos/acme/shop/check-runs".to_owned()),
        ("GET", "/repos/acme/shop/deployments".to_owned()),
        ("GET", "/repos/acme/other".to_owned()),
        ("GET", "/repos/acme/open".to_owned()),
        ("GET", "/repos/acme/nothing".to_owned()),
        ("GET", "/orgs/acme/teams/x/memberships/ann".to_owned()),
        ("GET", "/app".to_owned()),
    ];
    let mut seen = Vec::new();
    for (method, path) in &calls {
        let answer = api.send(api.request(method, path).json(&json!({}))).await;
        seen.push(format!("{method} {} {}", path.replace(sha, "SHA"), answer.refusal().replace(" ?", "")));
    }
    insta::assert_snapshot!(seen.join("\n"), @r"
    GET /repos/acme/shop 200
    GET /repos/acme/shop/commits/SHA/check-runs 200
    POST /repos/acme/shop/check-runs 403 Resource not accessible by integration
    GET /repos/acme/shop/deployments 403 Resource not accessible by integration
    GET /repos/acme/other 404 Not Found
    GET /repos/acme/open 403 Resource not accessible by integration
    GET /repos/acme/nothing 404 Not Found
    GET /orgs/acme/teams/x/memberships/ann 403 Resource not accessible by integration
    GET /app 401 A JSON web token could not be decoded
    ");
    // More than was granted is refused.
    for body in [
        json!({"permissions": {"contents": "write"}}),
        json!({"permissions": {"actions": "read"}}),
        json!({"permissions": {"contents": "everything"}}),
        json!({"repository_ids": [other]}),
        json!({"repositories": ["nothing"]}),
        json!({"repository_ids": "all"}),
    ] {
        assert_eq!(w.jwt().post(&path, body.clone()).await.status, 422, "{body}");
    }
    assert_eq!(w.jwt().post("/app/installations/1/access_tokens", json!({})).await.status, 404);
    let listed = w.token(None).await.get("/installation/repositories").await.good();
    assert_eq!(listed["total_count"], 1);
    w.standin.change_repositories(w.installation, &[other, public], &[w.repo]).unwrap();
    let (added, removed) = (
        w.hooks.event("installation_repositories", "added").await,
        w.hooks.event("installation_repositories", "removed").await,
    );
    assert_eq!(added.body["repositories_added"].as_array().unwrap().len(), 2);
    assert_eq!(removed.body["repositories_removed"][0]["full_name"], "acme/shop");
    assert_eq!(api.get("/repos/acme/shop").await.status, 404);
    w.stop().await;
}

#[tokio::test]
async fn an_installation_comes_and_goes() {
    let w = World::start().await;
    let api = w.token(None).await;
    let path = format!("/app/installations/{}", w.installation);
    assert_eq!(w.jwt().get(&path).await.good()["repository_selection"], "selected");
    assert_eq!(w.jwt().get("/repos/acme/shop/installation").await.good()["id"], json!(w.installation));
    w.standin.suspend(w.installation, true).unwrap();
    w.hooks.event("installation", "suspend").await;
    assert_eq!(api.get("/repos/acme/shop").await.refusal(), "403 This installation has been suspended");
    assert_eq!(w.jwt().post(&format!("{path}/access_tokens"), json!({})).await.status, 403);
    assert!(w.jwt().get(&path).await.good()["suspended_at"].is_string());
    w.standin.suspend(w.installation, false).unwrap();
    w.hooks.event("installation", "unsuspend").await;
    assert_eq!(api.get("/repos/acme/shop").await.status, 200);
    let more = [("checks".to_owned(), Level::Write), ("actions".to_owned(), Level::Read)].into();
    w.standin.accept_permissions(w.installation, more).unwrap();
    let accepted = w.hooks.event("installation", "new_permissions_accepted").await;
    assert_eq!(accepted.body["installation"]["permissions"], json!({"actions": "read", "checks": "write"}));
    w.standin.uninstall(w.installation).unwrap();
    w.hooks.event("installation", "deleted").await;
    assert_eq!(api.get("/repos/acme/shop").await.refusal(), "401 Bad credentials");
    assert_eq!(w.jwt().get("/app/installations").await.good(), json!([]));
    assert_eq!(w.jwt().get("/repos/acme/shop/installation").await.status, 404);
    w.stop().await;
}

#[tokio::test]
async fn a_revoked_token_is_void() {
    let w = World::start().await;
    let api = w.token(None).await;
    assert_eq!(api.send(api.request("DELETE", "/installation/token")).await.status, 204);
    assert_eq!(api.get("/repos/acme/shop").await.status, 401);
    w.stop().await;
}

#[tokio::test]
async fn a_renamed_repository_redirects() {
    let w = World::start().await;
    w.standin.rename(w.repo, "store", "ann").unwrap();
    let told = w.hooks.event("repository", "renamed").await;
    assert_eq!(told.body["changes"]["repository"]["name"]["from"], "shop");
    let api = w.token(None).await;
    let answer = api.get("/repos/acme/shop/branches").await;
    assert_eq!(answer.status, 301);
    let location = answer.header("location").to_owned();
    assert!(location.ends_with(&format!("/repositories/{}/branches", w.repo)), "{location}");
    assert_eq!(api.get(&location).await.good()[0]["name"], "main");
    let answer = api.post("/repos/acme/shop/check-runs", json!({"name": "a", "head_sha": w.head})).await;
    assert_eq!(answer.status, 307);
    // Git follows the old name too.
    w.clone_as("bob", "old").await;
    w.standin.set_default_branch(w.repo, "main", "ann").await.unwrap();
    w.standin.set_private(w.repo, false, "ann").unwrap();
    w.standin.archive(w.repo, true, "ann").unwrap();
    w.standin.archive(w.repo, false, "ann").unwrap();
    w.standin.transfer(w.repo, "ann", "ann").unwrap();
    for action in ["edited", "publicized", "archived", "unarchived"] {
        w.hooks.event("repository", action).await;
    }
    assert_eq!(api.get("/repos/acme/store").await.status, 403, "the App is not installed at the new owner");
    w.stop().await;
}

#[tokio::test]
async fn the_frame_of_answers() {
    let w = World::start().await;
    let api = w.token(None).await;
    let answer = api.get("/repos/acme/shop").await;
    for name in ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "x-github-request-id", "etag"] {
        assert!(!answer.header(name).is_empty(), "{name}");
    }
    let etag = answer.header("etag").to_owned();
    let same = api.send(api.request("GET", "/repos/acme/shop").header("if-none-match", &etag)).await;
    assert_eq!((same.status, same.header("x-ratelimit-used")), (304, answer.header("x-ratelimit-used")));
    let mine = w.token(None).await;
    let other = mine.send(mine.request("GET", "/repos/acme/shop").header("if-none-match", &etag)).await;
    assert_eq!(other.status, 200, "ETags belong to a token");
    let newer = api.send(api.request("GET", "/repos/acme/shop").header("x-github-api-version", "2026-03-10")).await;
    assert!(newer.good().get("has_downloads").is_none());
    let unknown = api.send(api.request("GET", "/repos/acme/shop").header("x-github-api-version", "2020-01-01")).await;
    assert_eq!(unknown.status, 400);
    let nobody = api.send(api.request("GET", "/repos/acme/shop").header("user-agent", "")).await;
    assert_eq!(nobody.status, 403);
    let broken = api.send(api.request("POST", "/repos/acme/shop/check-runs").body("{")).await;
    assert_eq!(broken.refusal(), "400 Problems parsing JSON");
    let list = api.send(api.request("POST", "/repos/acme/shop/check-runs").json(&json!([1]))).await;
    assert_eq!(list.status, 400);
    // The same operations answer at the root, where api.github.com has them.
    let root = w.standin.web_url().to_string();
    assert_eq!(api.get(&format!("{root}repos/acme/shop")).await.good()["name"], "shop");
    let limits: Value = api.get("/rate_limit").await.good();
    assert_eq!(limits["resources"]["core"]["limit"], 5000);
    // What came before the operation was known has no place in GitHub's description.
    w.standin.write(|m| m.log.retain(|e| e.template.is_some()));
    w.stop().await;
}

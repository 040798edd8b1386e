//! Faults on demand, as a client sees them.

use std::time::{Duration, Instant};

use serde_json::json;
use switchover::demo::github::{Effect, Rule};

use super::support::World;

#[tokio::test]
async fn answers_fail_on_demand() {
    let w = World::start().await;
    let api = w.token(None).await;
    let faults = w.standin.faults();
    let create = |name: &str| {
        api.request("POST", "/repos/acme/shop/check-runs").json(&json!({"name": name, "head_sha": w.head}))
    };
    let made = || w.standin.read(|m| m.repos[&w.repo].checks.len());

    faults.on("POST", "/check-runs", 1, Effect::Status { status: 502, retry_after: None });
    assert_eq!(api.send(create("a")).await.status, 502);
    assert_eq!(made(), 0, "nothing was done");

    faults.on("POST", "/check-runs", 1, Effect::SecondaryLimit { retry_after: Some(7) });
    let limited = api.send(create("a")).await;
    assert_eq!((limited.status, limited.header("retry-after")), (403, "7"));
    assert!(limited.refusal().contains("secondary rate limit"));

    faults.on("", "/check-runs", 1, Effect::Status { status: 429, retry_after: Some(3) });
    let limited = api.send(create("a")).await;
    assert_eq!((limited.status, limited.header("retry-after")), (429, "3"));

    faults.on("POST", "/check-runs", 1, Effect::LoseResponse);
    assert!(create("lost").send().await.is_err());
    assert_eq!(made(), 1, "the effect is there");

    faults.on("POST", "/check-runs", 1, Effect::LoseRequest);
    assert!(create("never").send().await.is_err());
    assert_eq!(made(), 1);

    faults.on("POST", "/check-runs", 1, Effect::Truncate);
    let cut = create("cut").send().await.unwrap();
    assert_eq!(cut.status(), 201);
    assert!(cut.bytes().await.is_err(), "the body breaks off");
    assert_eq!(made(), 2);

    faults.on("GET", "/branches", 1, Effect::Hang);
    let hung = api.request("GET", "/repos/acme/shop/branches").timeout(Duration::from_millis(200)).send().await;
    assert!(hung.unwrap_err().is_timeout());

    faults.on("GET", "/branches", 1, Effect::Delay { ms: 150 });
    let begin = Instant::now();
    api.get("/repos/acme/shop/branches").await.good();
    assert!(begin.elapsed() >= Duration::from_millis(150));

    let second = Rule {
        method: None,
        path: "/branches".into(),
        from: 2,
        count: Some(1),
        effect: Effect::Status { status: 500, retry_after: None },
    };
    faults.add(second);
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(api.get("/repos/acme/shop/branches").await.status);
    }
    assert_eq!(seen, [200, 500, 200]);
    assert_eq!(w.standin.requests("POST", "/check-runs"), 6);
    w.stop().await;
}

#[tokio::test]
async fn all_of_it_goes_down_and_comes_back() {
    let w = World::start().await;
    let api = w.token(None).await;
    w.standin.faults().down(true);
    assert!(api.request("GET", "/repos/acme/shop").send().await.is_err());
    w.clone_as("bob", "still").await;
    w.standin.faults().git_down(true);
    let url = w.standin.push_url("bob", "acme", "shop").unwrap();
    assert!(super::support::git(w.folder.path(), &["ls-remote", url.as_str()]).await.is_err());
    w.standin.faults().clear();
    api.get("/repos/acme/shop").await.good();
    super::support::git(w.folder.path(), &["ls-remote", url.as_str()]).await.unwrap();
    w.stop().await;
}

#[tokio::test]
async fn the_hourly_limit_is_counted() {
    let w = World::start().await;
    let api = w.token(None).await;
    w.standin.faults().rate_limit(3);
    let mut seen = Vec::new();
    for _ in 0..4 {
        let answer = api.get("/repos/acme/shop").await;
        seen.push((answer.status, answer.header("x-ratelimit-remaining").to_owned()));
    }
    let seen: Vec<(u16, &str)> = seen.iter().map(|(s, r)| (*s, r.as_str())).collect();
    assert_eq!(seen, [(200, "2"), (200, "1"), (200, "0"), (403, "0")]);
    w.stop().await;
}

#[tokio::test]
async fn another_process_sets_them_over_http() {
    let w = World::start().await;
    let api = w.token(None).await;
    let url = format!("{}_standin/faults", w.standin.web_url());
    let order = json!({"rules": [{"method": "GET", "path": "/branches", "count": 1,
        "effect": {"kind": "status", "status": 503, "retry_after": 1}}]});
    assert_eq!(api.send(api.request("POST", &url).json(&order)).await.status, 204);
    assert_eq!(api.get("/repos/acme/shop/branches").await.status, 503);
    assert_eq!(api.get("/repos/acme/shop/branches").await.status, 200);
    for wrong in [json!({"rulez": []}), json!({"rules": [{"effect": {"kind": "boom"}}]}), json!(1)] {
        assert_eq!(api.send(api.request("POST", &url).json(&wrong)).await.status, 400, "{wrong}");
    }
    assert_eq!(api.send(api.request("POST", &url).json(&json!({"down": true}))).await.status, 204);
    assert!(api.request("GET", "/repos/acme/shop").send().await.is_err());
    assert_eq!(api.send(api.request("POST", &url).json(&json!({"clear": true}))).await.status, 204);
    api.get("/repos/acme/shop").await.good();
    w.stop().await;
}

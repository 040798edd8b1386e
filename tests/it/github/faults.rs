//! What a client does when GitHub breaks: reads are tried again, writes never blindly.

use std::time::Duration;

use serde_json::json;
use switchover::github::{GitHub, GitHubError, Timeouts};
use tokio::net::TcpListener;
use wiremock::ResponseTemplate;

use super::{
    faulty::{Cut, Faulty},
    rig::{PATIENT, Rig, config, created, ok, refused, repo},
};

const READ: &str = "/repos/acme/shop/branches";
const WRITE: &str = "/repos/acme/shop/issues/5/comments";

#[tokio::test]
async fn reads_survive_two_failures() {
    for status in [500, 502, 503, 504] {
        let rig = Rig::new().await;
        rig.once("GET", READ, ResponseTemplate::new(status).set_body_string("<html>oh no</html>")).await;
        rig.once("GET", READ, ResponseTemplate::new(status)).await;
        rig.on("GET", READ, ok(json!([]))).await;
        rig.github.branches(&repo()).await.unwrap();
        assert_eq!(rig.requests().await.len(), 3);

        let rig = Rig::new().await;
        rig.on("GET", READ, ResponseTemplate::new(status)).await;
        assert_eq!(
            rig.github.branches(&repo()).await,
            Err(GitHubError::Server { what: format!("GET {READ}"), status })
        );
        assert_eq!(rig.requests().await.len(), 3);
    }
}

#[tokio::test]
async fn writes_are_never_repeated() {
    for status in [500, 502, 503, 504] {
        let rig = Rig::new().await;
        rig.on("POST", WRITE, ResponseTemplate::new(status)).await;
        let error = rig.github.create_comment(&repo(), 5, "x").await.unwrap_err();
        assert!(error.is_ambiguous() && !error.is_permanent(), "{error}");
        assert_eq!(rig.requests().await.len(), 1);
    }
}

#[tokio::test]
async fn refusals_say_why() {
    let rig = Rig::new().await;
    let answers = [
        refused(403, "Resource not accessible by integration")
            .insert_header("x-accepted-github-permissions", "issues=write; pull_requests=write"),
        refused(403, "This installation has been suspended"),
        refused(404, "Not Found"),
        refused(410, "Issues are disabled for this repo"),
        refused(409, "Git Repository is empty."),
        ResponseTemplate::new(422).set_body_json(
            json!({"message": "Validation Failed", "errors": [{"resource": "IssueComment", "code": "unprocessable"}]}),
        ),
        refused(451, "Repository access blocked"),
        ResponseTemplate::new(418).set_body_string("teapot"),
        ResponseTemplate::new(400).set_body_json(json!([1])),
        ResponseTemplate::new(422).set_body_string("x".repeat(1 << 20)),
    ];
    let mut seen = Vec::new();
    for answer in answers {
        rig.once("POST", WRITE, answer).await;
        let error = rig.github.create_comment(&repo(), 5, "x").await.unwrap_err();
        assert!(error.is_permanent() && error.retry_at(jiff::Timestamp::now()).is_none(), "{error}");
        seen.push(error.to_string());
    }
    insta::assert_snapshot!(seen.join("\n"), @r#"
    GitHub does not allow it: Resource not accessible by integration (needs issues=write; pull_requests=write: the App must have it, and the installation's owner must have accepted it)
    installation 3 is gone: This installation has been suspended
    GitHub found nothing at POST /repos/acme/shop/issues/5/comments: it was deleted or renamed, or the App is not installed there
    GitHub found nothing at POST /repos/acme/shop/issues/5/comments: it was deleted or renamed, or the App is not installed there
    GitHub refused the request: POST /repos/acme/shop/issues/5/comments: Git Repository is empty.
    GitHub refused the request: POST /repos/acme/shop/issues/5/comments: Validation Failed [{"resource":"IssueComment","code":"unprocessable"}]
    GitHub does not allow it: Repository access blocked
    GitHub refused the request: POST /repos/acme/shop/issues/5/comments: status 418
    GitHub refused the request: POST /repos/acme/shop/issues/5/comments: status 400
    GitHub refused the request: POST /repos/acme/shop/issues/5/comments: status 422
    "#);
}

#[tokio::test]
async fn a_read_right_after_a_webhook_may_come_too_early() {
    let rig = Rig::new().await;
    let path = "/repos/acme/shop";
    rig.once("GET", path, refused(404, "Not Found")).await;
    rig.on("GET", path, ok(super::reads::repository())).await;
    rig.github.repository(&repo()).await.unwrap();
    assert_eq!(rig.requests().await.len(), 2);

    let rig = Rig::new().await;
    rig.on("GET", path, refused(404, "Not Found")).await;
    assert!(matches!(rig.github.repository(&repo()).await, Err(GitHubError::NotFound { .. })));
}

#[tokio::test]
async fn cut_answers() {
    let rig = Rig::new().await;
    rig.on("GET", READ, ok(json!([{"name": "main", "commit": {"sha": super::rig::HEAD}}]))).await;
    rig.on("POST", WRITE, created(json!({"id": 9, "body": "hello"}))).await;
    let wire = Faulty::before(&rig.server.uri()).await;
    let github = GitHub::new(config(&wire.url, PATIENT)).unwrap();

    // A read is done again, whether its answer was lost or cut in the middle.
    wire.cut("GET /repos", Cut::Lost);
    wire.cut("GET /repos", Cut::Half);
    assert_eq!(github.branches(&repo()).await.unwrap().len(), 1);
    assert_eq!(wire.left(), 0);
    for _ in 0..3 {
        wire.cut("GET /repos", Cut::Lost);
    }
    assert!(matches!(github.branches(&repo()).await, Err(GitHubError::Unreachable { .. })));

    // Fetching a token makes nothing that would be in the way: it is done again too.
    github.forget_installation(repo().installation);
    wire.cut("POST /app", Cut::Lost);
    github.branches(&repo()).await.unwrap();

    // A write was done, and nobody knows.
    let made = || async { rig.asked().await.iter().filter(|l| l.starts_with("POST")).count() };
    for (n, cut) in [(1, Cut::Lost), (2, Cut::Half)] {
        wire.cut("POST /repos", cut);
        let error = github.create_comment(&repo(), 5, "x").await.unwrap_err();
        assert!(error.is_ambiguous(), "{error}");
        assert_eq!(made().await, n, "{cut:?}: done once");
    }
    assert_eq!(github.create_comment(&repo(), 5, "x").await.unwrap(), 9);
}

#[tokio::test]
async fn an_answer_that_is_not_json() {
    let rig = Rig::new().await;
    rig.on("GET", READ, ResponseTemplate::new(200).set_body_string("[{\"name\":")).await;
    let error = rig.github.branches(&repo()).await.unwrap_err();
    assert!(matches!(error, GitHubError::Decode { .. }) && !error.is_permanent(), "{error}");
    assert_eq!(rig.requests().await.len(), 3, "a proxy may have cut it: tried again");
    rig.on("POST", WRITE, ResponseTemplate::new(201).set_body_string("{\"id\":")).await;
    let error = rig.github.create_comment(&repo(), 5, "x").await.unwrap_err();
    assert!(error.is_ambiguous(), "it was done, and its number is not known: {error}");
}

/// A hang ends: by our limit for the call, with the tries of a read, and for a write in doubt.
#[tokio::test]
async fn a_hang_ends() {
    let timeouts = Timeouts { request: Duration::from_secs(2), ..PATIENT };
    let rig = Rig::without_tokens(timeouts).await;
    rig.open_token_desk().await;
    let never = Duration::from_secs(3600);
    rig.once("GET", READ, ok(json!([])).set_delay(never)).await;
    rig.on("GET", READ, ok(json!([]))).await;
    rig.on("POST", WRITE, created(json!({"id": 9})).set_delay(never)).await;
    let place = repo();
    let (read, written) = tokio::join!(rig.github.branches(&place), rig.github.create_comment(&place, 5, "x"));
    read.unwrap();
    assert!(written.unwrap_err().is_ambiguous());
}

#[tokio::test]
async fn nobody_there() {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let github = GitHub::new(config(&format!("http://127.0.0.1:{port}"), PATIENT)).unwrap();
    let error = github.app().await.unwrap_err();
    assert!(matches!(error, GitHubError::Unreachable { .. }), "{error}");
    let error = github.create_comment(&repo(), 5, "x").await.unwrap_err();
    assert!(matches!(error, GitHubError::Unreachable { .. }), "nothing was sent, so nothing is in doubt: {error}");
}

#[tokio::test]
async fn a_renamed_repository_is_followed_within_github_only() {
    let rig = Rig::new().await;
    let moved = |status: u16, to: &str| ResponseTemplate::new(status).insert_header("location", to);
    rig.on("GET", READ, moved(301, &format!("{}/repositories/7/branches", rig.server.uri()))).await;
    rig.on("GET", "/repositories/7/branches", ok(json!([{"name": "main", "commit": {"sha": super::rig::HEAD}}]))).await;
    assert_eq!(rig.github.branches(&repo()).await.unwrap().len(), 1);

    // A write stays a write, with its body.
    rig.on("POST", WRITE, moved(307, "/repositories/7/issues/5/comments")).await;
    rig.on("POST", "/repositories/7/issues/5/comments", created(json!({"id": 9}))).await;
    assert_eq!(rig.github.create_comment(&repo(), 5, "hello").await.unwrap(), 9);
    assert_eq!(rig.bodies().await.last().unwrap()["body"], "hello");

    // Another host never sees the token; a circle ends.
    let other = Rig::new().await;
    for to in
        [format!("{}/x", other.server.uri()), "/repos/acme/shop/pulls".to_owned(), String::new(), "http://[".to_owned()]
    {
        let rig = Rig::new().await;
        rig.on("GET", "/repos/acme/shop/pulls", moved(301, &to)).await;
        rig.on("GET", "/x", ok(json!([]))).await;
        let error = rig.github.open_pulls(&repo()).await.unwrap_err();
        assert!(matches!(error, GitHubError::Invalid { .. }), "{to}: {error}");
        assert!(rig.requests().await.len() <= 4, "{to}");
    }
    assert!(other.requests().await.is_empty());
}

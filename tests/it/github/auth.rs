//! Who the App says it is, and how far each token reaches.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use switchover::{
    domain::ids::InstallationId,
    github::{GitHub, GitHubError, Timeouts, auth::AppKey},
};
use wiremock::ResponseTemplate;

use super::rig::{APP_ID, KEY, PAIR, PATIENT, Rig, config, created, ok, refused, repo, token};

fn claims(jwt: &str) -> Value {
    let key = DecodingKey::from_rsa_der(&PAIR.public_der);
    let mut rules = Validation::new(Algorithm::RS256);
    rules.validate_exp = false;
    rules.required_spec_claims.clear();
    jsonwebtoken::decode::<Value>(jwt, &key, &rules).unwrap().claims
}

#[test]
fn the_jwt_is_what_github_asks_for() {
    let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
    let jwt = AppKey::new(APP_ID, &KEY).unwrap().jwt(now).unwrap();
    let claims = claims(jwt.expose_secret());
    assert_eq!(claims["iss"], "77");
    assert_eq!(claims["iat"].as_i64().unwrap() - now.as_second(), -60, "a minute back, against clock drift");
    let ahead = claims["exp"].as_i64().unwrap() - now.as_second();
    assert!((8 * 60..=9 * 60).contains(&ahead), "at most nine minutes ahead: {ahead}");
    assert_eq!(jsonwebtoken::decode_header(jwt.expose_secret()).unwrap().alg, Algorithm::RS256);
}

/// The key as tools convert it: PKCS#8 (RFC 5208) around the PKCS#1 that GitHub hands out.
fn pkcs8() -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    fn value(tag: u8, content: &[u8]) -> Vec<u8> {
        let len = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82, len[0], len[1]], content].concat()
    }
    let body: String = KEY.lines().filter(|l| !l.starts_with("-----")).collect();
    // Version 0, then the algorithm rsaEncryption (1.2.840.113549.1.1.1) with no parameters.
    let head = [2, 1, 0, 0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 1, 5, 0];
    let key = value(4, &STANDARD.decode(body).unwrap());
    let text = STANDARD.encode(value(0x30, &[&head[..], &key].concat()));
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|i| &text[i..text.len().min(i + 64)]).collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}

#[test]
fn keys_are_read_as_people_have_them() {
    let one_line = KEY.trim().replace('\n', "\\n");
    let crlf = KEY.replace('\n', "\r\n");
    let pkcs8 = pkcs8();
    for (name, text) in [("as is", KEY.as_str()), ("escaped line ends", &one_line), ("CRLF", &crlf), ("PKCS#8", &pkcs8)]
    {
        assert!(AppKey::new(1, text).is_ok(), "{name}");
    }
    let broken = KEY.replace("MII", "AAA");
    for text in ["", "secret", "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----", &broken] {
        let Err(GitHubError::Config { why }) = AppKey::new(1, text) else { panic!("taken: {text:?}") };
        assert!(why.contains("private key is not an RSA key in PEM form"), "{why}");
        assert!(!why.contains("AAAA"), "a key must not stand in an error");
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    for url in ["ftp://api.github.com", "data:text/plain,x", "https://user@api.github.com"] {
        let mut bad = config("https://api.github.com", PATIENT);
        bad.api_url = url.parse().unwrap();
        assert!(matches!(GitHub::new(bad), Err(GitHubError::Config { .. })), "{url}");
    }
    let mut bad = config("https://api.github.com", PATIENT);
    bad.private_key = SecretString::from("nonsense");
    assert!(matches!(GitHub::new(bad), Err(GitHubError::Config { .. })));
    // With the system's certificates, and nothing sent.
    assert!(GitHub::new(config("https://github.example/api/v3", Timeouts::default())).is_ok());
}

#[test]
fn a_client_needs_a_runtime() {
    let error = GitHub::new(config("https://api.github.com", PATIENT)).unwrap_err();
    assert!(error.to_string().contains("outside of a tokio runtime"), "{error}");
}

#[tokio::test]
async fn calls_carry_identity_version_and_name() {
    let rig = Rig::new().await;
    rig.on("GET", "/app", ok(json!({"id": 77, "name": "Switchover", "slug": "switchover"}))).await;
    rig.on("GET", "/repos/acme/shop/branches", ok(json!([]))).await;
    assert_eq!(rig.github.app().await.unwrap().id, 77);
    rig.github.branches(&repo()).await.unwrap();

    let requests = rig.requests().await;
    let tokens = rig.token_requests().await;
    for request in requests.iter().chain(&tokens) {
        let header = |name: &str| {
            let all: Vec<_> = request.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect();
            all.join("|")
        };
        assert_eq!(header("x-github-api-version"), "2022-11-28");
        assert_eq!(header("user-agent"), concat!("switchover/", env!("CARGO_PKG_VERSION")));
        assert_eq!(header("accept"), "application/vnd.github+json");
        let expected = if request.url.path().starts_with("/repos") { "Bearer ghs_1" } else { "Bearer ey" };
        assert!(header("authorization").starts_with(expected), "{}", request.url);
    }
    assert_eq!(
        claims(requests[0].headers["authorization"].to_str().unwrap().trim_start_matches("Bearer "))["iss"],
        "77"
    );
}

#[tokio::test]
async fn the_base_path_of_an_enterprise_server_is_kept() {
    let rig = Rig::new().await;
    rig.on("GET", "/api/v3/app", ok(json!({"id": 77, "name": "x"}))).await;
    for base in ["/api/v3", "/api/v3/"] {
        let github = GitHub::new(config(&format!("{}{base}", rig.server.uri()), PATIENT)).unwrap();
        github.app().await.unwrap();
    }
}

#[tokio::test]
async fn tokens_are_scoped_and_kept() {
    let rig = Rig::new().await;
    rig.on("GET", "/repos/acme/shop/branches", ok(json!([]))).await;
    rig.on("GET", "/repos/acme/shop/pulls", ok(json!([]))).await;
    rig.on("GET", "/installation/repositories", ok(json!({"total_count": 0, "repositories": []}))).await;
    for _ in 0..3 {
        rig.github.branches(&repo()).await.unwrap();
        rig.github.open_pulls(&repo()).await.unwrap();
        rig.github.installation_repositories(InstallationId(3)).await.unwrap();
    }
    assert_eq!(
        rig.github.git_token(&repo()).await.unwrap().expose_secret(),
        "ghs_1",
        "what fetches branches fetches code"
    );
    let asked: Vec<Value> =
        rig.token_requests().await.iter().map(|r| serde_json::from_slice(&r.body).unwrap()).collect();
    assert_eq!(
        asked,
        [
            json!({"repository_ids": [7], "permissions": {"contents": "read"}}),
            json!({"repository_ids": [7], "permissions": {"pull_requests": "read"}}),
            json!({"permissions": {"metadata": "read"}}),
        ]
    );
}

#[tokio::test]
async fn many_callers_fetch_one_token() {
    let rig = Rig::new().await;
    rig.on("GET", "/repos/acme/shop/branches", ok(json!([]))).await;
    let place = repo();
    let calls = (0..50).map(|_| rig.github.branches(&place));
    for result in futures_util::future::join_all(calls).await {
        result.unwrap();
    }
    assert_eq!(rig.token_requests().await.len(), 1);
    assert_eq!(rig.requests().await.len(), 50);
}

#[tokio::test]
async fn callers_that_waited_share_a_failure() {
    let rig = Rig::without_tokens(PATIENT).await;
    let path = "/app/installations/3/access_tokens";
    // Slow, so that all callers wait for this one.
    rig.on("POST", path, refused(401, "A JSON web token could not be decoded").set_delay(Duration::from_millis(300)))
        .await;
    let place = repo();
    let calls = (0..10).map(|_| rig.github.branches(&place));
    for result in futures_util::future::join_all(calls).await {
        let Err(GitHubError::Unauthorized { why }) = result else { panic!("{result:?}") };
        assert!(why.contains("App id 77"), "{why}");
    }
    assert_eq!(rig.token_requests().await.len(), 1, "ten callers, one refusal");
    assert!(rig.github.branches(&place).await.is_err());
    assert_eq!(rig.token_requests().await.len(), 2, "who comes later tries again");
}

#[tokio::test]
async fn a_token_is_renewed_five_minutes_early() {
    let rig = Rig::without_tokens(PATIENT).await;
    let path = "/app/installations/3/access_tokens";
    rig.once("POST", path, created(token(1, SignedDuration::from_secs(299)))).await;
    rig.once("POST", path, created(token(2, SignedDuration::from_mins(59)))).await;
    for expected in ["ghs_1", "ghs_2", "ghs_2"] {
        assert_eq!(rig.github.git_token(&repo()).await.unwrap().expose_secret(), expected);
    }
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let rig = Rig::new().await;
    let path = "/repos/acme/shop/branches";
    rig.once("GET", path, refused(401, "Bad credentials")).await;
    rig.on("GET", path, ok(json!([]))).await;
    rig.github.branches(&repo()).await.unwrap();
    let used: Vec<_> =
        rig.requests().await.iter().map(|r| r.headers["authorization"].to_str().unwrap().to_owned()).collect();
    assert_eq!(used, ["Bearer ghs_1", "Bearer ghs_2"]);

    let rig = Rig::new().await;
    rig.on("GET", path, refused(401, "Bad credentials")).await;
    let error = rig.github.branches(&repo()).await.unwrap_err();
    assert!(matches!(error, GitHubError::Unauthorized { .. }) && !error.is_permanent(), "{error}");
    assert_eq!(rig.requests().await.len(), 2, "once, not for ever");
}

#[tokio::test]
async fn a_write_refused_with_401_is_sent_again_with_a_new_token() {
    let rig = Rig::new().await;
    let path = "/repos/acme/shop/issues/5/comments";
    rig.once("POST", path, refused(401, "Bad credentials")).await;
    rig.on("POST", path, created(json!({"id": 9}))).await;
    assert_eq!(rig.github.create_comment(&repo(), 5, "hello").await.unwrap(), 9);
}

#[tokio::test]
async fn a_forgotten_installation_has_no_token_left() {
    let rig = Rig::new().await;
    assert_eq!(rig.github.git_token(&repo()).await.unwrap().expose_secret(), "ghs_1");
    rig.github.forget_installation(InstallationId(4));
    assert_eq!(rig.github.git_token(&repo()).await.unwrap().expose_secret(), "ghs_1");
    rig.github.forget_installation(InstallationId(3));
    assert_eq!(rig.github.git_token(&repo()).await.unwrap().expose_secret(), "ghs_2");
}

#[tokio::test]
async fn why_there_is_no_token() {
    let path = "/app/installations/3/access_tokens";
    let error = |answer: ResponseTemplate| async {
        let rig = Rig::without_tokens(PATIENT).await;
        rig.on("POST", path, answer).await;
        rig.github.git_token(&repo()).await.unwrap_err()
    };
    insta::assert_snapshot!(error(refused(404, "Not Found")).await, @"installation 3 is gone: the App is not installed there any more");
    insta::assert_snapshot!(error(refused(403, "This installation has been suspended")).await, @"installation 3 is gone: This installation has been suspended");
    insta::assert_snapshot!(error(refused(422, "The permissions requested are not granted to this installation.")).await, @"GitHub does not allow it: POST /app/installations/3/access_tokens: The permissions requested are not granted to this installation. (needs contents: read: the App must have it, and the installation's owner must have accepted it)");
    insta::assert_snapshot!(error(refused(401, "'Issuer' claim ('iss') must be an Integer")).await, @"GitHub refused the App's identity: 'Issuer' claim ('iss') must be an Integer; check that the App id 77 and the private key belong together, that the key was not deleted on the App's page, and this machine's clock");
    insta::assert_snapshot!(error(ResponseTemplate::new(500)).await, @"GitHub answered 500 to POST /app/installations/3/access_tokens");
    insta::assert_snapshot!(error(ok(json!({"token": 3}))).await, @"GitHub's answer to POST /app/installations/3/access_tokens cannot be read: invalid type: integer `3`, expected a string at line 1 column 10");
}

/// A host whose clock is a day off: GitHub's `Date` tells, and the JWT is made by GitHub's clock.
#[tokio::test]
async fn a_wrong_clock_does_not_lock_the_app_out() {
    let rig = Rig::without_tokens(PATIENT).await;
    let theirs = Timestamp::now() + SignedDuration::from_hours(26);
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&theirs).unwrap();
    let message = "'Expiration time' claim ('exp') must be a numeric value representing the future time";
    rig.once("GET", "/app", refused(401, message).insert_header("date", date.as_str())).await;
    rig.on("GET", "/app", ok(json!({"id": 77, "name": "x"})).insert_header("date", date.as_str())).await;
    rig.github.app().await.unwrap();
    let issued: Vec<i64> = rig
        .requests()
        .await
        .iter()
        .map(|r| {
            claims(r.headers["authorization"].to_str().unwrap().trim_start_matches("Bearer "))["iat"].as_i64().unwrap()
        })
        .collect();
    assert_eq!(issued.len(), 2);
    let day = (issued[1] - issued[0]) / 3600;
    assert!((25..=26).contains(&day), "{day} hours");
    rig.github.app().await.unwrap();
    assert_eq!(rig.requests().await.len(), 3, "the difference is remembered");
}

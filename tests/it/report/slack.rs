use std::time::Duration;

use insta::assert_snapshot;
use secrecy::SecretString;
use switchover::{
    domain::run::{Outcome, StepEnd},
    report::{SlackMessage, rollout_messages, run_messages, view::RolloutState},
    slack::{Slack, SlackError},
};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{body_partial_json, method, path},
};

use super::{done, ended, failing_tests, job, live, passed, queued, rollout, run, running};

fn listed(messages: &[SlackMessage]) -> String {
    let show = |m: &SlackMessage| {
        let blocks: Vec<&str> = m
            .blocks
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|b| b["text"]["text"].as_str().or(b["elements"][0]["text"].as_str()))
            .collect();
        format!("[{}]\n{}\n---\n{}", m.key, m.text, blocks.join("\n"))
    };
    messages.iter().map(show).collect::<Vec<_>>().join("\n\n")
}

#[test]
fn steps_tell_their_start_and_end() {
    let mut view = ended(vec![job("backend", vec![failing_tests()])], Outcome::Failure);
    view.message = "Use <b> & @here".into();
    assert_snapshot!(listed(&run_messages(&view)), @r#"
    [step/00000000-0000-0000-0000-00000000000b/1/start]
    acme/shop: backend / test (pull_request) started
    ---
    ▸ *<https://ci.example/steps/11|backend / test (pull_request)>* started in acme/shop
    <https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a|0123456> Use &lt;b&gt; &amp; @here · Alice · feature/cart

    [step/00000000-0000-0000-0000-00000000000b/1/end]
    acme/shop: ✗ backend / test (pull_request): 118 passed, 2 failed, 1 flaky in 34 s
    ---
    ✗ *<https://ci.example/steps/11|backend / test (pull_request)>* in acme/shop
    118 passed, 2 failed, 1 flaky in 34 s
    • shop.CartTest › sums
    • shop.CartTest › rounds
    <https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a|0123456> Use &lt;b&gt; &amp; @here · Alice · feature/cart · 34 s
    "#);
    let mut reused = passed(3, "build");
    reused.reused = Some(super::pointer('e'));
    let skipped = done(4, "late", Outcome::Skipped, StepEnd::Exited(0));
    let view = run(vec![job("web", vec![running(1, "test"), queued(2, "lint"), reused, skipped])]);
    let keys: Vec<String> = run_messages(&view).into_iter().map(|m| m.key[m.key.len() - 7..].to_owned()).collect();
    assert_eq!(keys, ["1/start", "3/1/end", "4/1/end"]);
}

#[test]
fn releases_tell_their_start_and_end() {
    assert_snapshot!(listed(&rollout_messages(&live())), @r#"
    [rollout/00000000-0000-0000-0000-000000000007/start]
    acme/shop: Release of 0123456 to production started
    ---
    ▸ *<https://ci.example/rollouts/7|Release to production>* started in acme/shop
    <https://github.example/acme/shop/compare/c...a|2 commits> go live with it
    <https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a|0123456> Add a cart (#12) · Alice · begun by push to main by alice

    [rollout/00000000-0000-0000-0000-000000000007/end]
    acme/shop: ✓ Release to production: 0123456 is live after 9 s, 0 of 12,430 probes failed
    ---
    ✓ *<https://ci.example/rollouts/7|Release to production>* in acme/shop
    0123456 is live after 9 s, 0 of 12,430 probes failed
    48,211 real requests, 0 answered with 5xx, 0 cut
    <https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a|0123456> Add a cart (#12) · Alice · begun by push to main by alice · 2 m 39 s
    "#);
    assert!(rollout_messages(&rollout(RolloutState::Queued)).is_empty());
    let key = |state| {
        let mut view = live();
        view.state = state;
        rollout_messages(&view).pop().expect("one").key
    };
    assert_eq!(key(RolloutState::Live), key(RolloutState::Replaced), "not told again when it is replaced");
    assert_ne!(key(RolloutState::WaitingForApproval), key(RolloutState::Live));
}

fn message() -> SlackMessage {
    rollout_messages(&live()).pop().expect("one")
}

fn secret(server: &MockServer) -> SecretString {
    SecretString::from(format!("{}/services/T0/B0/topsecret", server.uri()))
}

#[tokio::test]
async fn a_message_is_posted_as_slack_wants_it() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/services/T0/B0/topsecret"))
        .and(body_partial_json(serde_json::json!({"unfurl_links": false, "text": message().text})))
        .respond_with(ResponseTemplate::new(200).set_body_string("ok"))
        .expect(1)
        .mount(&server)
        .await;
    Slack::new().expect("a client").post(&secret(&server), &message()).await.expect("taken");
}

#[tokio::test]
async fn each_refusal_says_whether_and_when_to_come_again() {
    let slack = Slack::new().expect("a client");
    let limited = |seconds| SlackError::Limited { retry_after: Duration::from_secs(seconds) };
    let answer = ResponseTemplate::new;
    for (response, want, permanent) in [
        (answer(429).insert_header("retry-after", "7"), limited(7), false),
        (answer(429), limited(30), false),
        (answer(429).insert_header("retry-after", "soon"), limited(30), false),
        (answer(429).insert_header("retry-after", "99999999"), limited(3600), false),
        (
            answer(404).set_body_string("no_service\u{1b}[1m\n"),
            SlackError::Refused { status: 404, reason: "no_service".into() },
            true,
        ),
        (
            answer(400).set_body_string("x".repeat(3_000_000)),
            SlackError::Refused { status: 400, reason: format!("{}…", "x".repeat(199)) },
            true,
        ),
        (
            answer(302).insert_header("location", "http://127.0.0.1:1/"),
            SlackError::Refused { status: 302, reason: String::new() },
            true,
        ),
        (
            answer(503).insert_header("retry-after", "3"),
            SlackError::Unavailable { status: 503, retry_after: Some(Duration::from_secs(3)) },
            false,
        ),
    ] {
        let server = MockServer::start().await;
        Mock::given(method("POST")).respond_with(response).mount(&server).await;
        let error = slack.post(&secret(&server), &message()).await.expect_err("refused");
        assert_eq!(error, want);
        assert_eq!(error.is_permanent(), permanent);
        assert!(!format!("{error} {error:?}").contains("topsecret"));
    }
}

#[tokio::test]
async fn an_address_that_is_none_and_one_that_nobody_listens_on() {
    let slack = Slack::new().expect("a client");
    for bad in
        ["", "not an address topsecret", "http://hooks.slack.example/topsecret", "file:///topsecret", "data:topsecret"]
    {
        let error = slack.post(&SecretString::from(bad), &message()).await.expect_err("refused");
        assert_eq!(error, SlackError::BadAddress, "{bad}");
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let url = SecretString::from(format!("http://{closed}/topsecret"));
    let error = slack.post(&url, &message()).await.expect_err("nobody there");
    assert!(matches!(error, SlackError::Unreachable(_)) && !format!("{error} {error:?}").contains("topsecret"));
    assert_eq!((error.retry_after(), error.is_permanent()), (None, false));
}

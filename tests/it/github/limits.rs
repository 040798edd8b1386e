//! GitHub's limits, obeyed and kept.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use switchover::{
    domain::ids::InstallationId,
    github::{
        GitHubError,
        limits::{Cost, Limits, Told, told},
    },
};
use wiremock::ResponseTemplate;

use super::rig::{PATIENT, Rig, created, ok, refused, repo};

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(k, v)| (k.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(v.as_bytes()).unwrap()))
        .collect()
}

/// Status, headers, message of the body, what it means.
type Case<'a> = (u16, Vec<(&'a str, &'a str)>, &'a str, Option<Told>);

#[test]
fn what_answers_say_about_limits() {
    let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
    let reset = (now + SignedDuration::from_secs(90)).as_second().to_string();
    let past = (now - SignedDuration::from_secs(90)).as_second().to_string();
    let secs = Duration::from_secs;
    let secondary = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";
    let abuse = "You have triggered an abuse detection mechanism.";
    let plain = "Resource not accessible by integration";
    let cases: Vec<Case<'_>> = vec![
        (200, vec![], "", None),
        (200, vec![("x-ratelimit-remaining", "4999"), ("x-ratelimit-reset", &reset)], "", None),
        (200, vec![("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &reset)], "", Some(Told::Exhausted(secs(90)))),
        (200, vec![("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &past)], "", None),
        (404, vec![("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &reset)], "", Some(Told::Exhausted(secs(90)))),
        (403, vec![], plain, None),
        (403, vec![("x-ratelimit-remaining", "100"), ("x-ratelimit-reset", &reset)], plain, None),
        (403, vec![("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &reset)], "", Some(Told::Refused(secs(90)))),
        (429, vec![("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &reset)], "", Some(Told::Refused(secs(90)))),
        (403, vec![("retry-after", "30")], secondary, Some(Told::Refused(secs(30)))),
        (429, vec![("retry-after", " 30 ")], "", Some(Told::Refused(secs(30)))),
        (429, vec![("retry-after", "0")], "", Some(Told::Refused(secs(1)))),
        (429, vec![("retry-after", "Sun, 01 Mar 2026 12:02:00 GMT")], "", Some(Told::Refused(secs(120)))),
        (429, vec![("retry-after", "soon")], "", Some(Told::Secondary)),
        (429, vec![("retry-after", "-5")], "", Some(Told::Secondary)),
        (429, vec![], "", Some(Told::Secondary)),
        (403, vec![], secondary, Some(Told::Secondary)),
        (403, vec![], abuse, Some(Told::Secondary)),
        (429, vec![("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "never")], "", Some(Told::Secondary)),
        (
            429,
            vec![("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "99999999999999999")],
            "",
            Some(Told::Secondary),
        ),
        (429, vec![("retry-after", "\u{e9}")], "", Some(Told::Secondary)),
        (503, vec![("retry-after", "30")], "", None),
    ];
    for (status, pairs, message, expected) in cases {
        assert_eq!(told(status, &headers(&pairs), message, now), expected, "{status} {pairs:?} {message}");
    }
}

#[test]
fn eighty_creations_a_minute_and_five_hundred_an_hour() {
    let limits = Limits::default();
    let start = Instant::now();
    let who = Some(InstallationId(3));
    let at = |s: u64| start + Duration::from_secs(s);
    for _ in 0..80 {
        limits.admit(who, Cost::Create, at(0)).unwrap();
    }
    assert_eq!(limits.admit(who, Cost::Create, at(20)), Err(Duration::from_secs(40)));
    limits.admit(who, Cost::Write, at(20)).unwrap();
    limits.admit(who, Cost::Read, at(20)).unwrap();
    limits.admit(Some(InstallationId(4)), Cost::Create, at(20)).unwrap();
    let mut made = 80;
    for minute in 1..10 {
        while limits.admit(who, Cost::Create, at(minute * 60)).is_ok() {
            made += 1;
        }
    }
    assert_eq!(made, 500);
    assert_eq!(
        limits.admit(who, Cost::Create, at(600)),
        Err(Duration::from_secs(3000)),
        "until the first hour is over"
    );
    limits.admit(who, Cost::Create, at(3600)).unwrap();
}

#[test]
fn nine_hundred_points_a_minute() {
    let limits = Limits::default();
    let start = Instant::now();
    for _ in 0..100 {
        limits.admit(None, Cost::Write, start).unwrap();
    }
    for _ in 0..400 {
        limits.admit(None, Cost::Read, start).unwrap();
    }
    assert_eq!(limits.admit(None, Cost::Read, start), Err(Duration::from_secs(60)));
    limits.admit(None, Cost::Read, start + Duration::from_secs(60)).unwrap();
}

#[test]
fn secondary_limits_grow_and_heal() {
    let limits = Limits::default();
    let who = Some(InstallationId(3));
    let start = Instant::now();
    let minutes: Vec<u64> =
        (0..6).map(|_| limits.note(who, Some(Told::Secondary), start).unwrap().as_secs() / 60).collect();
    assert_eq!(minutes, [1, 2, 4, 8, 16, 16]);
    assert_eq!(limits.note(who, None, start), None);
    assert_eq!(limits.note(who, Some(Told::Secondary), start), Some(Duration::from_secs(60)));
    assert!(limits.admit(who, Cost::Read, start).is_err(), "a shorter wait does not end a longer one");
    let absurd = limits.note(who, Some(Told::Refused(Duration::from_secs(u64::MAX))), start).unwrap();
    assert_eq!(absurd, Duration::from_secs(24 * 3600));
    limits.forget(InstallationId(3));
    limits.admit(who, Cost::Read, start).unwrap();
}

#[tokio::test]
async fn no_call_before_retry_after() {
    for (status, message, header) in [
        (429, "Too many requests", Some(("retry-after", "120"))),
        (403, "You have exceeded a secondary rate limit", Some(("retry-after", "120"))),
        (403, "You have exceeded a secondary rate limit", None),
        (429, "Too many requests", None),
    ] {
        let rig = Rig::new().await;
        let mut answer = refused(status, message);
        if let Some((name, value)) = header {
            answer = answer.insert_header(name, value);
        }
        rig.on("POST", "/repos/acme/shop/issues/5/comments", answer).await;
        rig.on("GET", "/repos/acme/shop/branches", ok(json!([]))).await;
        let before = Timestamp::now();
        let error = rig.github.create_comment(&repo(), 5, "x").await.unwrap_err();
        let GitHubError::Limited { until } = error else { panic!("{error}") };
        let least = if header.is_some() { 120 } else { 60 };
        assert!(until >= before + SignedDuration::from_secs(least), "{until}");
        assert_eq!(error.retry_at(before), Some(until));
        assert!(!error.is_permanent() && !error.is_ambiguous());

        // Nothing is sent for this installation, not even a read; the token is there already.
        for _ in 0..3 {
            assert!(matches!(rig.github.branches(&repo()).await, Err(GitHubError::Limited { .. })));
            assert!(matches!(rig.github.create_comment(&repo(), 5, "x").await, Err(GitHubError::Limited { .. })));
        }
        assert_eq!(rig.requests().await.len(), 1);
        // Another installation is not held up.
        let mut other = repo();
        other.installation = InstallationId(4);
        rig.github.branches(&other).await.unwrap();
    }
}

#[tokio::test]
async fn the_last_call_of_an_hour_still_counts() {
    let rig = Rig::new().await;
    let reset = (Timestamp::now() + SignedDuration::from_secs(600)).as_second();
    let last =
        ok(json!([])).insert_header("x-ratelimit-remaining", "0").insert_header("x-ratelimit-reset", reset.to_string());
    rig.on("GET", "/repos/acme/shop/branches", last).await;
    rig.github.branches(&repo()).await.unwrap();
    let Err(GitHubError::Limited { until }) = rig.github.branches(&repo()).await else { panic!() };
    assert!((until.as_second() - reset).abs() <= 2, "{until}");
    assert_eq!(rig.requests().await.len(), 1);
}

#[tokio::test]
async fn a_limited_token_desk_limits_its_callers() {
    let rig = Rig::without_tokens(PATIENT).await;
    let path = "/app/installations/3/access_tokens";
    rig.on("POST", path, ResponseTemplate::new(429).insert_header("retry-after", "60")).await;
    for _ in 0..3 {
        assert!(matches!(rig.github.git_token(&repo()).await, Err(GitHubError::Limited { .. })));
    }
    assert_eq!(rig.token_requests().await.len(), 1);
}

#[tokio::test]
async fn too_many_comments_wait_here_and_not_at_github() {
    let rig = Rig::new().await;
    rig.on("POST", "/repos/acme/shop/issues/5/comments", created(json!({"id": 1}))).await;
    let mut made = 0;
    let until = loop {
        match rig.github.create_comment(&repo(), 5, "x").await {
            Ok(_) => made += 1,
            Err(GitHubError::Limited { until }) => break until,
            Err(other) => panic!("{other}"),
        }
        assert!(made <= 160, "no limit is kept");
    };
    assert!(made >= 80 && until > Timestamp::now() - SignedDuration::from_secs(1));
    assert_eq!(rig.requests().await.len(), made);
}

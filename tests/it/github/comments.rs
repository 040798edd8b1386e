//! Comments, reactions, permissions, teams.

use serde_json::{Value, json};
use switchover::github::{Comment, CommentKind, GitHub, GitHubError, Permission, Reaction};

use super::{
    faulty::{Cut, Faulty},
    rig::{APP_ID, PATIENT, Rig, config, created, ok, refused, repo},
};

const COMMENTS: &str = "/repos/acme/shop/issues/5/comments";
const MARKER: &str = "<!-- switchover:status -->";

fn comment(id: i64, app: Value, kind: &str, body: &str) -> Value {
    let app = if app.is_null() { Value::Null } else { json!({"id": app}) };
    json!({"id": id, "performed_via_github_app": app, "user": {"login": "x", "type": kind}, "body": body})
}

#[tokio::test]
async fn only_our_own_comment_is_found() {
    let marked = format!("{MARKER}\nhello");
    let rig = Rig::new().await;
    let mut first: Vec<Value> = (0..97).map(|n| comment(n, Value::Null, "User", "LGTM")).collect();
    // A person who copied the marker, and another App.
    first.push(comment(97, Value::Null, "User", &marked));
    first.push(comment(98, json!(5), "Bot", &marked));
    first.push(json!({"id": 99, "user": null}));
    rig.once("GET", COMMENTS, ok(json!(first))).await;
    let second = [
        comment(200, json!(APP_ID), "Bot", "no marker"),
        comment(202, json!(APP_ID), "Bot", &marked),
        comment(201, json!(APP_ID), "Bot", &marked),
    ];
    rig.once("GET", COMMENTS, ok(json!(second))).await;
    let found = rig.github.find_comment(&repo(), 5, MARKER).await.unwrap();
    assert_eq!(found, Some(Comment { id: 201, body: marked.clone() }));

    // A server that does not name the App: a bot's.
    let rig = Rig::new().await;
    rig.on("GET", COMMENTS, ok(json!([{"id": 1, "user": {"type": "Bot"}, "body": marked}]))).await;
    assert_eq!(rig.github.find_comment(&repo(), 5, MARKER).await.unwrap().map(|c| c.id), Some(1));
    let rig = Rig::new().await;
    rig.on("GET", COMMENTS, ok(json!([]))).await;
    assert_eq!(rig.github.find_comment(&repo(), 5, MARKER).await.unwrap(), None);
}

#[tokio::test]
async fn one_comment_though_the_answer_was_lost() {
    let rig = Rig::new().await;
    rig.once("POST", COMMENTS, created(json!({"id": 9}))).await;
    let wire = Faulty::before(&rig.server.uri()).await;
    let github = GitHub::new(config(&wire.url, PATIENT)).unwrap();
    wire.cut("POST /repos", Cut::Lost);
    assert!(github.ensure_comment(&repo(), 5, MARKER, "hello", None, false).await.unwrap_err().is_ambiguous());
    rig.on("GET", COMMENTS, ok(json!([comment(9, json!(APP_ID), "Bot", &format!("{MARKER}\nhello"))]))).await;
    rig.on("PATCH", "/repos/acme/shop/issues/comments/9", ok(json!({"id": 9}))).await;
    // The same text needs no write, another one an update.
    assert_eq!(github.ensure_comment(&repo(), 5, MARKER, "hello", None, true).await.unwrap(), 9);
    assert_eq!(github.ensure_comment(&repo(), 5, MARKER, "again", None, true).await.unwrap(), 9);
    assert_eq!(github.ensure_comment(&repo(), 5, MARKER, "known", Some(9), true).await.unwrap(), 9);
    insta::assert_json_snapshot!(rig.bodies().await, @r#"
    [
      {
        "body": "<!-- switchover:status -->\nhello"
      },
      {
        "body": "<!-- switchover:status -->\nagain"
      },
      {
        "body": "<!-- switchover:status -->\nknown"
      }
    ]
    "#);
}

#[tokio::test]
async fn long_comments_keep_their_marker_and_the_end_of_the_log() {
    let rig = Rig::new().await;
    rig.on("POST", COMMENTS, created(json!({"id": 9}))).await;
    let log = "a line of the log\n".repeat(10_000);
    rig.github.ensure_comment(&repo(), 5, MARKER, &format!("```\n{log}the end\n```\n"), None, false).await.unwrap();
    let body = rig.bodies().await[0]["body"].as_str().unwrap().to_owned();
    assert!(body.len() <= 65_000 && body.starts_with(MARKER) && body.ends_with("the end\n```\n"));
}

#[tokio::test]
async fn reactions() {
    let rig = Rig::new().await;
    let cases = [
        (CommentKind::Issue, "/repos/acme/shop/issues/comments/9/reactions", Reaction::Eyes, "eyes"),
        (CommentKind::Review, "/repos/acme/shop/pulls/comments/9/reactions", Reaction::Rocket, "rocket"),
        (CommentKind::Commit, "/repos/acme/shop/comments/9/reactions", Reaction::Confused, "confused"),
    ];
    for (kind, path, reaction, word) in cases {
        // 200 where it is there already. Lost once: it is put again, because there can be only one.
        rig.once("POST", path, wiremock::ResponseTemplate::new(502)).await;
        rig.on("POST", path, ok(json!({"id": 1, "content": word}))).await;
        rig.github.react(&repo(), kind, 9, reaction).await.unwrap();
        assert_eq!(rig.bodies().await.last().unwrap(), &json!({"content": word}));
    }
}

#[tokio::test]
async fn permissions_are_decided_by_the_booleans() {
    let can = |pull, triage, push, maintain, admin| json!({"pull": pull, "triage": triage, "push": push, "maintain": maintain, "admin": admin});
    let cases = [
        (can(true, true, true, true, true), Permission::Admin),
        (can(true, true, true, true, false), Permission::Maintain),
        (can(true, true, true, false, false), Permission::Write),
        (can(true, true, false, false, false), Permission::Triage),
        (can(true, false, false, false, false), Permission::Read),
        (can(false, false, false, false, false), Permission::None),
        (json!({"pull": true, "push": true, "admin": false}), Permission::Write),
        (json!({}), Permission::None),
        (Value::Null, Permission::None),
    ];
    let path = "/repos/acme/shop/collaborators/ada/permission";
    for (booleans, expected) in cases {
        let rig = Rig::new().await;
        // The role's name is whatever the organisation calls it.
        let body =
            json!({"permission": "admin", "role_name": "admin", "user": {"login": "ada", "permissions": booleans}});
        rig.on("GET", path, ok(body)).await;
        assert_eq!(rig.github.permission(&repo(), "ada").await.unwrap(), expected);
    }
    for answer in [refused(404, "Not Found"), ok(json!({"permission": "admin", "role_name": "admin", "user": null}))] {
        let rig = Rig::new().await;
        rig.on("GET", path, answer).await;
        assert_eq!(rig.github.permission(&repo(), "ada").await.unwrap(), Permission::None);
    }
    let rig = Rig::new().await;
    rig.on("GET", path, refused(403, "Resource not accessible by integration")).await;
    assert!(rig.github.permission(&repo(), "ada").await.is_err(), "not knowing is not a no");
    assert!(Permission::Admin > Permission::Maintain && Permission::Write > Permission::Triage);
}

#[tokio::test]
async fn names_cannot_leave_their_place_in_an_address() {
    let rig = Rig::new().await;
    rig.on("GET", "/repos/acme/shop/collaborators/a%2Fb%3Fc%23d%25/permission", ok(json!({"user": null}))).await;
    assert_eq!(rig.github.permission(&repo(), "a/b?c#d%").await.unwrap(), Permission::None);
    let before = rig.requests().await.len();
    assert_eq!(before, 1);
    for login in ["", ".", ".."] {
        assert!(matches!(rig.github.permission(&repo(), login).await, Err(GitHubError::Invalid { .. })), "{login:?}");
    }
    let mut odd = repo();
    odd.name = "..".to_owned();
    assert!(matches!(rig.github.branches(&odd).await, Err(GitHubError::Invalid { .. })));
    assert!(matches!(rig.github.clone_url(&odd), Err(GitHubError::Invalid { .. })));
    assert_eq!(rig.requests().await.len(), before);
}

#[tokio::test]
async fn teams() {
    let path = "/orgs/acme/teams/sre/memberships/ada";
    for (answer, member) in [
        (ok(json!({"state": "active", "role": "member"})), true),
        (ok(json!({"state": "pending", "role": "member"})), false),
        (refused(404, "Not Found"), false),
    ] {
        let rig = Rig::new().await;
        rig.on("GET", path, answer).await;
        assert_eq!(rig.github.team_member(&repo(), "sre", "ada").await.unwrap(), member);
    }
}

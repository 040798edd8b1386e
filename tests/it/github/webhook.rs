//! Signatures and payloads, by hand: what the published examples lack.

use proptest::prelude::*;
use secrecy::SecretString;
use serde_json::{Value, json};
use switchover::{
    domain::{
        event::{Event, InstallationChange, PullAction, RepoChange},
        ids::{InstallationId, RepoId},
    },
    github::webhook::{Peek, WebhookError, normalise, peek, sign, verify},
};

const HEAD: &str = "1111111111111111111111111111111111111111";
const BASE: &str = "2222222222222222222222222222222222222222";
const ZERO: &str = "0000000000000000000000000000000000000000";

fn secret(text: &str) -> SecretString {
    SecretString::from(text)
}

#[test]
fn signatures() {
    // The example of "Validating webhook deliveries", section "Testing the webhook payload validation".
    let published = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let body = b"Hello, World!".as_slice();
    let right = || secret("It's a Secret to Everybody");
    assert_eq!(sign(&right(), body), published);
    let upper = published.to_uppercase().replace("SHA256", "sha256");
    let long = format!("{published}00");
    let flipped = published.replace("757107", "757108");
    let sha1 = published.replace("sha256=", "sha1=");
    let twice = format!("{published}, {published}");
    let huge = format!("sha256={}", "0".repeat(1 << 20));
    let empty_key = sign(&secret(""), body);
    let cases: Vec<(&str, Vec<SecretString>, Option<&str>, bool)> = vec![
        ("right", vec![right()], Some(published), true),
        ("upper-case digits", vec![right()], Some(&upper), true),
        ("old secret second", vec![secret("new"), right()], Some(published), true),
        ("new secret first", vec![right(), secret("old")], Some(published), true),
        ("wrong secret", vec![secret("other")], Some(published), false),
        ("no secret", vec![], Some(published), false),
        ("empty secret is no secret", vec![secret("")], Some(&empty_key), false),
        ("no header", vec![right()], None, false),
        ("empty header", vec![right()], Some(""), false),
        ("prefix only", vec![right()], Some("sha256="), false),
        ("no prefix", vec![right()], Some(&published[7..]), false),
        ("other hash", vec![right()], Some(&sha1), false),
        ("one digit off", vec![right()], Some(&flipped), false),
        ("cut", vec![right()], Some(&published[..published.len() - 2]), false),
        ("odd digits", vec![right()], Some(&published[..published.len() - 1]), false),
        ("too long", vec![right()], Some(&long), false),
        ("twice", vec![right()], Some(&twice), false),
        (
            "not hex",
            vec![right()],
            Some("sha256=zz7107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"),
            false,
        ),
        ("not ASCII", vec![right()], Some("sha256=é"), false),
        ("huge", vec![right()], Some(&huge), false),
    ];
    for (name, secrets, header, good) in cases {
        assert_eq!(verify(&secrets, header, body), good, "{name}");
    }
    assert!(!verify(&[right()], Some(published), b"Hello, World"), "another body");
}

fn repository() -> Value {
    json!({"id": 7, "name": "shop", "full_name": "acme/shop", "owner": {"login": "acme", "type": "Organization"},
        "default_branch": "main", "archived": false, "private": true})
}

fn user(login: &str) -> Value {
    json!({"login": login, "type": if login.ends_with("[bot]") { "Bot" } else { "User" }})
}

/// A payload of these fields at acme/shop, sent by ada.
fn at_shop(own: Value) -> Value {
    let mut payload = json!({"repository": repository(), "installation": {"id": 3}, "sender": user("ada")});
    for (key, value) in own.as_object().unwrap() {
        payload[key] = value.clone();
    }
    payload
}

fn push(own: Value) -> Value {
    let mut payload = at_shop(json!({"ref": "refs/heads/main", "before": BASE, "after": HEAD, "forced": false,
        "deleted": false, "head_commit": {"id": HEAD, "message": "Add a cart"}, "commits": []}));
    for (key, value) in own.as_object().unwrap() {
        payload[key] = value.clone();
    }
    payload
}

fn pull(action: &str) -> Value {
    at_shop(json!({"action": action, "number": 5, "pull_request": {"number": 5, "title": "A cart", "state": "open",
        "draft": false, "mergeable": null, "user": user("bob"),
        "head": {"sha": HEAD, "ref": "cart", "repo": {"id": 7}},
        "base": {"sha": BASE, "ref": "main", "repo": {"id": 7}}}}))
}

fn read(event: &str, payload: &Value) -> Event {
    normalise(event, payload.to_string().as_bytes()).unwrap_or_else(|e| panic!("{e}\n{payload:#}"))
}

fn reason(event: &str, payload: &Value) -> String {
    match read(event, payload) {
        Event::Ignored { reason, repo } => {
            assert_eq!(repo.map(|r| r.0), payload["repository"]["id"].as_i64());
            reason
        }
        other => panic!("acted on: {other:?}"),
    }
}

fn misfit(event: &str, payload: &Value) -> String {
    match normalise(event, payload.to_string().as_bytes()) {
        Err(WebhookError::Misfit { why, .. }) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_push_whole() {
    insta::assert_json_snapshot!(read("push", &push(json!({}))), @r#"
    {
      "kind": "push",
      "repo": {
        "repo": {
          "id": 7,
          "owner": "acme",
          "name": "shop",
          "installation": 3
        },
        "default_branch": "main",
        "archived": false,
        "private": true
      },
      "git_ref": "refs/heads/main",
      "before": "2222222222222222222222222222222222222222",
      "after": "1111111111111111111111111111111111111111",
      "forced": false,
      "message": "Add a cart",
      "sender": {
        "login": "ada",
        "bot": false
      }
    }
    "#);
}

#[test]
fn pushes() {
    let event = |own: Value| match read("push", &push(own)) {
        Event::Push { git_ref, before, after, forced, message, sender, repo } => {
            (git_ref, before.is_zero(), after.is_zero(), forced, message, sender, repo)
        }
        other => panic!("{other:?}"),
    };
    let made = event(json!({"before": ZERO}));
    assert!(made.1 && !made.2, "a new branch has the zero commit before");
    let gone = event(json!({"after": ZERO, "deleted": true, "head_commit": null}));
    assert!(gone.2 && gone.4.is_empty(), "a deleted branch has the zero commit after, and no message");
    assert!(event(json!({"forced": true})).3);
    assert_eq!(event(json!({"ref": "refs/tags/v1"})).0, "refs/tags/v1");
    assert_eq!(event(json!({"ref": "refs/heads/-odd/ünïcode;$(x)"})).0, "refs/heads/-odd/ünïcode;$(x)");
    let bot = event(json!({"sender": user("renovate[bot]")}));
    assert!(bot.5.bot);
    let by_type = event(json!({"sender": {"login": "machine", "type": "Bot"}}));
    assert!(by_type.5.bot);
    assert!(!event(json!({})).5.bot);
    assert_eq!(event(json!({"sender": null})).5.login, "ghost");
    assert_eq!(event(json!({"installation": null})).6.repo.installation, InstallationId(0));
    // Push payloads of old servers name the owner by `name` only.
    let mut old = repository();
    old["owner"] = json!({"name": "acme", "email": null});
    assert_eq!(event(json!({"repository": old})).6.repo.owner, "acme");
}

#[test]
fn pull_requests() {
    for (word, action) in [
        ("opened", PullAction::Opened),
        ("synchronize", PullAction::Synchronize),
        ("reopened", PullAction::Reopened),
        ("ready_for_review", PullAction::ReadyForReview),
        ("closed", PullAction::Closed),
    ] {
        let Event::PullRequest { action: seen, pull, .. } = read("pull_request", &pull(word)) else { panic!("{word}") };
        assert_eq!(seen, action);
        assert_eq!((pull.head_repo, pull.open, pull.author.login.as_str()), (Some(RepoId(7)), true, "bob"));
    }
    let mut edited = pull("edited");
    edited["changes"] = json!({"title": {"from": "x"}});
    assert_eq!(reason("pull_request", &edited), "the pull request's text was edited, not its base");
    edited["changes"] = json!({"base": {"ref": {"from": "develop"}, "sha": {"from": HEAD}}});
    assert!(matches!(read("pull_request", &edited), Event::PullRequest { action: PullAction::BaseChanged, .. }));

    let mut fork_gone = pull("opened");
    fork_gone["pull_request"]["head"]["repo"] = Value::Null;
    fork_gone["pull_request"]["user"] = Value::Null;
    fork_gone["pull_request"]["title"] = Value::Null;
    let Event::PullRequest { pull: gone, .. } = read("pull_request", &fork_gone) else { panic!() };
    assert_eq!((gone.head_repo, gone.author.login.as_str(), gone.title.as_str()), (None, "ghost", ""));

    let mut merged = pull("closed");
    merged["pull_request"]["state"] = json!("closed");
    merged["pull_request"]["draft"] = json!(true);
    let Event::PullRequest { pull: merged, .. } = read("pull_request", &merged) else { panic!() };
    assert!(!merged.open && merged.draft);

    assert_eq!(reason("pull_request", &pull("labeled")), "pull_request \"labeled\" is not acted on");
}

#[test]
fn merge_groups() {
    let group = |action: &str| {
        at_shop(json!({"action": action, "reason": "invalidated", "merge_group": {"head_sha": HEAD,
            "head_ref": "refs/heads/gh-readonly-queue/main/pr-5-abc", "base_sha": BASE, "base_ref": "refs/heads/main"}}))
    };
    for (action, gone) in [("checks_requested", false), ("destroyed", true)] {
        let Event::MergeGroup { destroyed, head, base, .. } = read("merge_group", &group(action)) else { panic!() };
        assert_eq!((destroyed, head.as_str(), base.as_str()), (gone, HEAD, BASE));
    }
    assert_eq!(reason("merge_group", &group("odd")), "merge_group \"odd\" is not acted on");
}

#[test]
fn checks() {
    let run = |action: &str, external_id: Value| {
        at_shop(json!({"action": action, "check_run": {"id": 9, "name": "shop / test (push)", "head_sha": HEAD,
            "external_id": external_id, "status": "completed", "check_suite": {"head_sha": BASE, "pull_requests": []}},
            "requested_action": {"identifier": "approve"}}))
    };
    let Event::Rerun { head, check, external_id, sender, .. } = read("check_run", &run("rerequested", json!("key")))
    else {
        panic!()
    };
    assert_eq!(
        (head.as_str(), check.as_deref(), external_id.as_deref()),
        (HEAD, Some("shop / test (push)"), Some("key"))
    );
    assert_eq!(sender.login, "ada", "who pressed, not who pushed");
    let Event::Rerun { external_id, .. } = read("check_run", &run("rerequested", Value::Null)) else { panic!() };
    assert_eq!(external_id, None);
    let Event::Button { identifier, external_id, .. } = read("check_run", &run("requested_action", json!("key")))
    else {
        panic!()
    };
    assert_eq!((identifier.as_str(), external_id.as_str()), ("approve", "key"));
    assert_eq!(
        reason("check_run", &run("requested_action", json!(""))),
        "the button's check has no key: it is not one of ours"
    );
    let mut no_button = run("requested_action", json!("key"));
    no_button["requested_action"] = Value::Null;
    assert_eq!(misfit("check_run", &no_button), "requested_action is missing");
    assert!(matches!(read("check_run", &run("completed", json!(""))), Event::CheckCompleted { .. }));
    assert_eq!(reason("check_run", &run("created", json!(""))), "check_run \"created\" is not acted on");

    // A push to a fork gives a suite with no pull requests.
    let suite = |action: &str| {
        at_shop(json!({"action": action, "check_suite": {"id": 1, "head_sha": HEAD, "head_branch": null,
            "pull_requests": []}}))
    };
    let Event::Rerun { check, head, .. } = read("check_suite", &suite("rerequested")) else { panic!() };
    assert_eq!((check, head.as_str()), (None, HEAD));
    for action in ["requested", "completed"] {
        assert!(!reason("check_suite", &suite(action)).is_empty());
    }

    let status = |state: &str| at_shop(json!({"sha": HEAD, "state": state, "context": "ci/other"}));
    assert!(matches!(read("status", &status("failure")), Event::CheckCompleted { .. }));
    assert_eq!(reason("status", &status("pending")), "a commit status is pending");
}

#[test]
fn repositories_and_installations() {
    for (action, change) in [
        ("created", RepoChange::Refreshed),
        ("renamed", RepoChange::Refreshed),
        ("transferred", RepoChange::Refreshed),
        ("edited", RepoChange::Refreshed),
        ("privatized", RepoChange::Refreshed),
        ("publicized", RepoChange::Refreshed),
        ("unarchived", RepoChange::Refreshed),
        ("archived", RepoChange::Archived),
        ("deleted", RepoChange::Deleted),
    ] {
        let Event::Repository { change: seen, .. } = read("repository", &at_shop(json!({"action": action}))) else {
            panic!("{action}")
        };
        assert_eq!(seen, change, "{action}");
    }
    assert_eq!(reason("repository", &at_shop(json!({"action": "odd"}))), "repository \"odd\" is not acted on");

    let installation = |action: &str, account: Value| {
        json!({"action": action, "installation": {"id": 3, "account": account, "suspended_at": null},
            "repositories": [{"id": 7, "full_name": "acme/shop", "private": true}], "sender": user("ada")})
    };
    for (action, change) in [
        ("created", InstallationChange::Created),
        ("deleted", InstallationChange::Deleted),
        ("suspend", InstallationChange::Suspended),
        ("unsuspend", InstallationChange::Unsuspended),
        ("new_permissions_accepted", InstallationChange::PermissionsAccepted),
    ] {
        let event = read("installation", &installation(action, user("acme")));
        let Event::Installation { installation, account, change: seen, repositories } = event else { panic!() };
        assert_eq!((installation, account.as_str(), seen), (InstallationId(3), "acme", change));
        assert_eq!(repositories, [(RepoId(7), "acme/shop".to_owned())]);
    }
    // An enterprise has a slug and no login.
    let event = read("installation", &installation("created", json!({"slug": "big", "login": null})));
    assert!(matches!(event, Event::Installation { account, .. } if account == "big"));
    let mut suspended = installation("suspend", user("acme"));
    suspended.as_object_mut().unwrap().remove("repositories");
    assert!(
        matches!(read("installation", &suspended), Event::Installation { repositories, .. } if repositories.is_empty())
    );

    let event = read(
        "installation_repositories",
        &json!({"action": "removed", "installation": {"id": 3, "account": user("acme")}, "requester": null,
            "repositories_added": [], "repositories_removed": [{"id": 7, "full_name": "acme/shop"}]}),
    );
    let Event::InstallationRepositories { added, removed, .. } = event else { panic!() };
    assert_eq!((added.len(), removed), (0, vec![(RepoId(7), "acme/shop".to_owned())]));

    assert_eq!(read("ping", &json!({"zen": "Design for failure.", "hook_id": 1})), Event::Ping);
    assert_eq!(reason("star", &at_shop(json!({"action": "created"}))), "the event \"star\" is not acted on");
}

#[test]
fn what_cannot_be_read_is_an_error() {
    for body in ["", "null", "[]", "17", "\"x\"", "{", "{\"a\":}", "payload=%7B%7D", "\u{feff}{}", "{} {}"] {
        let error = normalise("push", body.as_bytes()).unwrap_err();
        assert!(matches!(error, WebhookError::NotJson { .. }), "{body}: {error}");
        assert!(matches!(normalise("star", body.as_bytes()), Err(WebhookError::NotJson { .. })), "{body}");
    }
    assert!(normalise("push", b"\xff\xfe{}").is_err());
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(normalise("push", deep.as_bytes()).is_err(), "deep nesting must not end the process");

    let with = |path: &str, value: Value| {
        let mut payload = push(json!({}));
        *payload.pointer_mut(path).unwrap() = value;
        misfit("push", &payload)
    };
    assert_eq!(with("/after", json!("HEAD")), "after: \"HEAD\" is not a commit of 40 (or 64) lower-case hex digits");
    assert_eq!(with("/ref", json!("main")), "ref: \"main\" is no full ref such as refs/heads/main");
    assert_eq!(
        with("/ref", json!("refs/heads/a\nb")),
        "ref: \"refs/heads/a\\nb\" is no full ref such as refs/heads/main"
    );
    assert_eq!(
        with("/ref", json!("refs/heads/../x")),
        "ref: \"refs/heads/../x\" is no full ref such as refs/heads/main"
    );
    assert_eq!(with("/repository/name", json!("../x")), "\"../x\" is no name of a user or repository");
    assert_eq!(with("/repository/name", json!("..")), "\"..\" is no name of a user or repository");
    assert_eq!(with("/repository/owner/login", json!("a/b?c")), "\"a/b?c\" is no name of a user or repository");
    assert_eq!(with("/repository/id", json!(-1)), "repository.id is not positive");
    assert_eq!(with("/repository/default_branch", Value::Null), "repository.default_branch is missing");
    assert_eq!(with("/repository/default_branch", json!("a b")), "repository.default_branch \"a b\" is no branch name");
    let long = with("/after", json!("f".repeat(1 << 20)));
    assert!(long.len() < 400, "what hostile input says is cut: {} bytes", long.len());
    // A body of another event: the name is not signed.
    insta::assert_snapshot!(normalise("push", pull("opened").to_string().as_bytes()).unwrap_err(), @r#"the body does not fit the event "push": missing field `ref` at line 1 column 558"#);
    insta::assert_snapshot!(normalise("push", b"<html>").unwrap_err(), @"the body is not a JSON object: expected value at line 1 column 1; is the webhook's content type application/json?");
}

#[test]
fn peeks() {
    assert_eq!(
        peek(pull("opened").to_string().as_bytes()),
        Peek {
            action: Some("opened".to_owned()),
            repo_id: Some(RepoId(7)),
            installation_id: Some(InstallationId(3)),
            repo_full_name: Some("acme/shop".to_owned()),
        }
    );
    let odd = br#"{"action": 3, "repository": {"id": 7, "full_name": null}, "installation": "x"}"#;
    assert_eq!(peek(odd), Peek { repo_id: Some(RepoId(7)), ..Peek::default() });
    assert_eq!(peek(b"garbage"), Peek::default());
    assert_eq!(peek(b"[1]"), Peek::default());
}

const EVENTS: [&str; 12] = [
    "push",
    "pull_request",
    "merge_group",
    "check_run",
    "check_suite",
    "status",
    "repository",
    "installation",
    "installation_repositories",
    "ping",
    "star",
    "",
];

/// Any JSON, often with the keys that are looked at.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9/.-]{0,8}".prop_map(Value::from),
        ".*".prop_map(Value::from),
        Just(json!(HEAD)),
        Just(json!("opened")),
        Just(repository()),
    ];
    let key = prop_oneof![
        prop::sample::select(vec![
            "action",
            "repository",
            "installation",
            "sender",
            "ref",
            "before",
            "after",
            "pull_request",
            "head",
            "base",
            "sha",
            "id",
            "name",
            "owner",
            "login",
            "check_run",
            "check_suite",
            "merge_group",
            "changes",
            "state",
            "head_commit",
            "message",
            "repositories",
            "account",
        ])
        .prop_map(str::to_owned),
        ".{0,6}",
    ];
    leaf.prop_recursive(5, 64, 10, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(key.clone(), inner, 0..10).prop_map(|m| m.into_iter().collect::<Value>()),
        ]
    })
}

proptest! {
    #[test]
    fn bytes_never_panic(event in prop::sample::select(EVENTS.to_vec()), body: Vec<u8>, header in ".{0,90}") {
        let _ = normalise(event, &body);
        let _ = peek(&body);
        prop_assert!(!verify(&[secret("s")], Some(&header), &body));
    }

    #[test]
    fn json_never_panics(event in prop::sample::select(EVENTS.to_vec()), body in any_json()) {
        let text = body.to_string();
        let read = normalise(event, text.as_bytes());
        prop_assert!(body.is_object() || read.is_err());
        let _ = peek(text.as_bytes());
    }

    /// A real payload with one value exchanged is taken or refused, and a refused one says why in a short line.
    #[test]
    fn one_odd_field_never_panics(value in any_json(), at in 0_usize..64) {
        for (event, mut payload) in [("push", push(json!({}))), ("pull_request", pull("opened"))] {
            let paths = paths(&payload, "");
            *payload.pointer_mut(&paths[at % paths.len()]).unwrap() = value.clone();
            if let Err(e) = normalise(event, payload.to_string().as_bytes()) {
                prop_assert!(e.to_string().len() < 2000, "{}", e);
            }
        }
    }
}

fn paths(value: &Value, at: &str) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(map) = value.as_object() {
        for (key, inner) in map {
            all.push(format!("{at}/{key}"));
            all.extend(paths(inner, &format!("{at}/{key}")));
        }
    }
    all
}

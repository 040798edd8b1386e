//! Check runs: what is sent, and that there is one of each whatever breaks.

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde_json::{Value, json};
use switchover::{
    domain::check::{Annotation, AnnotationLevel, CheckAction, CheckRun, CheckStatus, Conclusion},
    github::{GitHub, GitHubError, MAX_ANNOTATIONS},
};
use wiremock::{Mock, Request, Respond, ResponseTemplate, matchers};

use super::{
    faulty::{Cut, Faulty},
    rig::{APP_ID, HEAD, PATIENT, Rig, config, created, head, ok, refused, repo},
};

fn annotation(n: usize) -> Annotation {
    Annotation {
        path: format!("./src/{n}.rs"),
        start_line: 3,
        end_line: 3,
        level: AnnotationLevel::Failure,
        message: format!("failure {n}"),
        title: Some("a_test".to_owned()),
        raw_details: None,
    }
}

fn check(annotations: usize) -> CheckRun {
    CheckRun {
        name: "shop / test (push)".to_owned(),
        head_sha: head(),
        external_id: "run-1/test".to_owned(),
        status: CheckStatus::Completed,
        conclusion: Some(Conclusion::Failure),
        started_at: Some("2026-03-01T12:00:00.123456Z".parse().unwrap()),
        completed_at: Some("2026-03-01T12:01:00Z".parse().unwrap()),
        details_url: Some("https://switchover.example/runs/1".to_owned()),
        title: "1 of 3 failed".to_owned(),
        summary: "| test | result |".to_owned(),
        text: Some("```\nlog\n```".to_owned()),
        annotations: (0..annotations).map(annotation).collect(),
        actions: vec![CheckAction {
            label: "Run again".to_owned(),
            description: "Runs the failed tests".to_owned(),
            identifier: "retest".to_owned(),
        }],
    }
}

fn queued() -> CheckRun {
    CheckRun {
        status: CheckStatus::Queued,
        conclusion: None,
        started_at: None,
        completed_at: None,
        text: None,
        ..check(0)
    }
}

const RUNS: &str = "/repos/acme/shop/check-runs";

/// The check runs of a commit as GitHub keeps them: annotations are appended and never taken back.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Value>>>);

impl Kept {
    async fn at(rig: &Rig) -> Self {
        let kept = Self::default();
        Mock::given(matchers::path_regex("^/repos/acme/shop/(check-runs|commits)"))
            .respond_with(kept.clone())
            .with_priority(100)
            .mount(&rig.server)
            .await;
        kept
    }

    fn all(&self) -> Vec<Value> {
        self.0.lock().unwrap().clone()
    }

    fn shown(run: &Value) -> Value {
        let mut shown = run.clone();
        shown["output"]["annotations_count"] = json!(run["output"]["annotations"].as_array().map_or(0, Vec::len));
        shown
    }
}

impl Respond for Kept {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let mut runs = self.0.lock().unwrap();
        let path = request.url.path();
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        if body["output"]["annotations"].as_array().is_some_and(|a| a.len() > 50) {
            return refused(422, "No more than 50 annotations");
        }
        match request.method.as_str() {
            "POST" => {
                let mut run = body;
                run["id"] = json!(100 + runs.len());
                run["app"] = json!({"id": APP_ID});
                runs.push(run.clone());
                created(Self::shown(&run))
            }
            "GET" if path.starts_with("/repos/acme/shop/commits/") => {
                let query = |key: &str| request.url.query_pairs().find(|(k, _)| k == key).map(|(_, v)| v.into_owned());
                let page: usize = query("page").unwrap().parse().unwrap();
                let name = query("check_name");
                let found: Vec<Value> = runs
                    .iter()
                    .filter(|r| name.as_deref().is_none_or(|n| r["name"] == n))
                    .skip((page - 1) * 100)
                    .take(100)
                    .map(Self::shown)
                    .collect();
                ok(json!({"total_count": runs.len(), "check_runs": found}))
            }
            method => {
                let id: i64 = path.rsplit('/').next().unwrap().parse().unwrap();
                let Some(run) = runs.iter_mut().find(|r| r["id"] == id) else { return refused(404, "Not Found") };
                if method == "PATCH" {
                    for (key, value) in body.as_object().unwrap() {
                        if key != "output" {
                            run[key] = value.clone();
                        }
                    }
                    let mut output = body["output"].clone();
                    let mut annotations = run["output"]["annotations"].as_array().cloned().unwrap_or_default();
                    annotations.extend(output["annotations"].as_array().cloned().unwrap_or_default());
                    output["annotations"] = json!(annotations);
                    run["output"] = output;
                }
                ok(Self::shown(run))
            }
        }
    }
}

fn messages(run: &Value) -> Vec<String> {
    let all = run["output"]["annotations"].as_array().cloned().unwrap_or_default();
    all.iter().map(|a| a["message"].as_str().unwrap().to_owned()).collect()
}

fn expected(n: usize) -> Vec<String> {
    (0..n).map(|n| format!("failure {n}")).collect()
}

#[tokio::test]
async fn what_is_sent() {
    let rig = Rig::new().await;
    let _kept = Kept::at(&rig).await;
    let id = rig.github.ensure_check(&repo(), &queued(), None, false).await.unwrap();
    assert_eq!(rig.github.ensure_check(&repo(), &check(1), Some(id), false).await.unwrap(), id);
    assert_eq!(
        rig.asked().await,
        [
            "POST /repos/acme/shop/check-runs",
            "GET /repos/acme/shop/check-runs/100",
            "PATCH /repos/acme/shop/check-runs/100"
        ]
    );
    insta::assert_json_snapshot!(rig.bodies().await, @r#"
    [
      {
        "name": "shop / test (push)",
        "head_sha": "1111111111111111111111111111111111111111",
        "external_id": "run-1/test",
        "details_url": "https://switchover.example/runs/1",
        "status": "queued",
        "output": {
          "title": "1 of 3 failed",
          "summary": "| test | result |"
        }
      },
      {
        "name": "shop / test (push)",
        "external_id": "run-1/test",
        "details_url": "https://switchover.example/runs/1",
        "status": "completed",
        "conclusion": "failure",
        "started_at": "2026-03-01T12:00:00Z",
        "completed_at": "2026-03-01T12:01:00Z",
        "output": {
          "title": "1 of 3 failed",
          "summary": "| test | result |",
          "text": "```\nlog\n```",
          "annotations": [
            {
              "path": "src/0.rs",
              "start_line": 3,
              "end_line": 3,
              "annotation_level": "failure",
              "message": "failure 0",
              "title": "a_test"
            }
          ]
        },
        "actions": [
          {
            "label": "Run again",
            "description": "Runs the failed tests",
            "identifier": "retest"
          }
        ]
      }
    ]
    "#);
}

#[tokio::test]
async fn fifty_annotations_at_a_time() {
    for n in [0, 1, 50, 51, 100, 137] {
        let rig = Rig::new().await;
        let kept = Kept::at(&rig).await;
        rig.github.ensure_check(&repo(), &check(n), None, false).await.unwrap();
        assert_eq!(rig.requests().await.len(), 1.max(n.div_ceil(50)), "{n}");
        assert_eq!(messages(&kept.all()[0]), expected(n));
        let requests = rig.bodies().await;
        assert!(requests.iter().skip(1).all(|b| b.get("status").is_none() && b.get("conclusion").is_none()), "{n}");
        assert!(requests.iter().all(|b| b["actions"][0]["identifier"] == "retest"), "buttons stay");
    }
    let rig = Rig::new().await;
    let kept = Kept::at(&rig).await;
    rig.github.ensure_check(&repo(), &check(MAX_ANNOTATIONS + 200), None, false).await.unwrap();
    assert_eq!(messages(&kept.all()[0]), expected(MAX_ANNOTATIONS));
}

#[tokio::test]
async fn annotations_are_not_appended_twice() {
    let rig = Rig::new().await;
    let kept = Kept::at(&rig).await;
    let id = rig.github.ensure_check(&repo(), &check(20), None, false).await.unwrap();
    // Told again as it was, then grown, then told again.
    for n in [20, 70, 70, 130, 130] {
        rig.github.ensure_check(&repo(), &check(n), Some(id), false).await.unwrap();
        assert_eq!(messages(&kept.all()[0]), expected(n));
    }
    // Without annotations there is nothing to ask first.
    let before = rig.requests().await.len();
    rig.github.ensure_check(&repo(), &check(0), Some(id), false).await.unwrap();
    assert_eq!(rig.requests().await.len(), before + 1);
    // Buttons that make no sense any more are taken off aloud: what is left out may stay.
    let bare = CheckRun { actions: Vec::new(), ..check(0) };
    rig.github.ensure_check(&repo(), &bare, Some(id), false).await.unwrap();
    assert_eq!(rig.bodies().await.last().unwrap()["actions"], json!([]));
    assert_eq!(kept.all().len(), 1);
}

/// Every answer is lost or cut once, at every place of the work: there is one check run in the end, with every
/// annotation once.
#[tokio::test]
async fn one_check_whatever_is_lost() {
    for broken in 0..4 {
        for cut in [Cut::Lost, Cut::Half] {
            let rig = Rig::new().await;
            let kept = Kept::at(&rig).await;
            let wire = Faulty::before(&rig.server.uri()).await;
            let github = GitHub::new(config(&wire.url, PATIENT)).unwrap();
            match broken {
                0 => wire.cut("POST /repos", cut),
                1 => wire.cut("PATCH /repos", cut),
                2 => {
                    wire.cut("POST /repos", cut);
                    wire.cut("PATCH /repos", cut);
                }
                _ => {
                    wire.cut("POST /repos", cut);
                    wire.cut("GET /repos", cut);
                    wire.cut("PATCH /repos", cut);
                    wire.cut("PATCH /repos", cut);
                }
            }
            let wanted = check(130);
            let (mut known, mut doubt, mut tries) = (None, false, 0);
            let id = loop {
                tries += 1;
                assert!(tries < 10, "does not come to an end");
                match github.ensure_check(&repo(), &wanted, known, doubt).await {
                    Ok(id) => break id,
                    Err(error) => {
                        assert!(error.is_ambiguous(), "{error}");
                        doubt = true;
                        known = None;
                    }
                }
            };
            assert_eq!(wire.left(), 0, "all that was planned broke");
            let all = kept.all();
            assert_eq!(all.len(), 1, "{broken} {cut:?}");
            assert_eq!(all[0]["id"], id);
            assert_eq!(messages(&all[0]), expected(130), "{broken} {cut:?}");
        }
    }
}

#[tokio::test]
async fn a_limit_in_the_middle_makes_no_second_check() {
    let rig = Rig::new().await;
    let kept = Kept::at(&rig).await;
    let limited = ResponseTemplate::new(429).insert_header("retry-after", "300");
    rig.once("PATCH", "/repos/acme/shop/check-runs/100", limited).await;
    let error = rig.github.ensure_check(&repo(), &check(60), None, false).await.unwrap_err();
    assert!(error.is_ambiguous(), "{error}");
    let now = Timestamp::now();
    assert!(error.retry_at(now).unwrap().as_second() - now.as_second() > 290, "and GitHub's wait is passed on");
    assert_eq!(kept.all().len(), 1);
    // A client that was restarted meanwhile.
    let github = GitHub::new(config(&rig.server.uri(), PATIENT)).unwrap();
    assert_eq!(github.ensure_check(&repo(), &check(60), None, true).await.unwrap(), 100);
    assert_eq!((kept.all().len(), messages(&kept.all()[0])), (1, expected(60)));
}

#[tokio::test]
async fn in_doubt_ours_is_told_from_others() {
    let rig = Rig::new().await;
    let run = |id: i64, app: i64, key: &str| {
        json!({"id": id, "name": "shop / test (push)", "app": {"id": app},
        "external_id": key, "status": "queued", "conclusion": null, "output": {"annotations_count": 0}})
    };
    let mut first: Vec<Value> = (0..98).map(|n| run(n, APP_ID, "another run")).collect();
    first.push(run(200, 5, "run-1/test"));
    first.push(json!({"id": 300, "name": "x", "status": "waiting", "app": null, "external_id": null}));
    let list = format!("/repos/acme/shop/commits/{HEAD}/check-runs");
    rig.once("GET", &list, ok(json!({"check_runs": first}))).await;
    rig.once("GET", &list, ok(json!({"check_runs": [run(150, APP_ID, "run-1/test"), run(140, APP_ID, "run-1/test")]})))
        .await;
    rig.on("PATCH", "/repos/acme/shop/check-runs/150", ok(json!({"id": 150}))).await;
    assert_eq!(rig.github.ensure_check(&repo(), &check(0), None, true).await.unwrap(), 150);
    insta::assert_snapshot!(rig.asked().await.join("\n"), @r"
    GET /repos/acme/shop/commits/1111111111111111111111111111111111111111/check-runs?check_name=shop+%2F+test+%28push%29&app_id=77&filter=all&per_page=100&page=1
    GET /repos/acme/shop/commits/1111111111111111111111111111111111111111/check-runs?check_name=shop+%2F+test+%28push%29&app_id=77&filter=all&per_page=100&page=2
    PATCH /repos/acme/shop/check-runs/150
    ");

    // None of ours: then it is made.
    let rig = Rig::new().await;
    rig.on("GET", &list, ok(json!({"check_runs": [run(200, 5, "run-1/test")]}))).await;
    rig.on("POST", RUNS, created(json!({"id": 201}))).await;
    assert_eq!(rig.github.ensure_check(&repo(), &check(0), None, true).await.unwrap(), 201);
}

#[tokio::test]
async fn what_github_would_refuse_is_cut() {
    let rig = Rig::new().await;
    let _kept = Kept::at(&rig).await;
    let mut wild = check(0);
    let log: String = (0..20_000).map(|n| format!("line {n} ünïcode\n")).collect();
    wild.text = Some(format!("```\n{log}```\n"));
    wild.summary = "é".repeat(100_000);
    wild.title = "t".repeat(400);
    wild.details_url = Some("javascript:alert(1)".to_owned());
    wild.actions = (0..5)
        .map(|n| CheckAction {
            label: "l".repeat(30),
            description: "d".repeat(60),
            identifier: if n == 0 { "i".repeat(21) } else { format!("button-{n}") },
        })
        .collect();
    let paths = ["././a.rs", "/etc/passwd", "./", "", "..", "a/../../b", "ok.rs"];
    wild.annotations = paths
        .iter()
        .map(|path| Annotation {
            path: (*path).to_owned(),
            start_line: 0,
            end_line: 0,
            level: AnnotationLevel::Notice,
            message: " ".to_owned(),
            title: Some("t".repeat(300)),
            raw_details: Some("é".repeat(60_000)),
        })
        .collect();
    wild.annotations[6].message = "m".repeat(100_000);
    rig.github.ensure_check(&repo(), &wild, None, false).await.unwrap();

    let body = &rig.bodies().await[0];
    let output = &body["output"];
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    assert_eq!(text(&output["title"]).chars().count(), 255);
    for part in ["summary", "text"] {
        assert!(text(&output[part]).len() <= 65_000, "{part}");
    }
    let log = text(&output["text"]);
    assert!(log.starts_with("```\n[…") && log.ends_with("line 19999 ünïcode\n```\n"), "the end of a log is kept");
    assert!(body.get("details_url").is_none());
    let actions = body["actions"].as_array().unwrap();
    assert_eq!(actions.len(), 3);
    for action in actions {
        assert!(text(&action["label"]).chars().count() <= 20 && text(&action["description"]).chars().count() <= 40);
        assert!(text(&action["identifier"]).starts_with("button-"));
    }
    let annotations = output["annotations"].as_array().unwrap();
    let paths: Vec<_> = annotations.iter().map(|a| text(&a["path"])).collect();
    assert_eq!(paths, ["a.rs", "etc/passwd", "ok.rs"]);
    for a in annotations {
        assert!(a["start_line"] == 1 && a["end_line"] == 1);
        assert!(text(&a["message"]).len() <= 64_000 && !text(&a["message"]).trim().is_empty());
        assert!(text(&a["raw_details"]).len() <= 64_000 && text(&a["title"]).chars().count() <= 255);
    }
}

#[tokio::test]
async fn a_conclusion_stands_exactly_when_it_is_completed() {
    let rig = Rig::new().await;
    let _kept = Kept::at(&rig).await;
    let none = CheckRun { conclusion: None, ..check(0) };
    let early = CheckRun { status: CheckStatus::InProgress, ..check(0) };
    for wrong in [none, early] {
        let error = rig.github.ensure_check(&repo(), &wrong, None, false).await.unwrap_err();
        assert!(matches!(error, GitHubError::Invalid { .. }), "{error}");
    }
    assert!(rig.requests().await.is_empty());
    // A summary is required: an empty one is replaced by the title. Buttons come only when it is completed.
    let bare = CheckRun { summary: " ".to_owned(), actions: check(0).actions, ..queued() };
    rig.github.ensure_check(&repo(), &bare, None, false).await.unwrap();
    let body = &rig.bodies().await[0];
    assert_eq!(body["output"], json!({"title": "1 of 3 failed", "summary": "1 of 3 failed"}));
    assert!(body.get("actions").is_none() && body.get("conclusion").is_none());
}

#[tokio::test]
async fn other_peoples_checks_and_statuses() {
    let rig = Rig::new().await;
    let runs: Vec<Value> = (0..130)
        .map(|n| {
            json!({"id": n, "name": format!("ci {n}"), "app": {"id": 5}, "status": "completed",
            "conclusion": if n == 0 { "success" } else { "skipped" }, "completed_at": "2026-03-01T12:00:00Z"})
        })
        .collect();
    let list = format!("/repos/acme/shop/commits/{HEAD}/check-runs");
    rig.once("GET", &list, ok(json!({"total_count": 130, "check_runs": runs[..100]}))).await;
    rig.once("GET", &list, ok(json!({"total_count": 130, "check_runs": runs[100..]}))).await;
    let seen = rig.github.check_runs(&repo(), &head()).await.unwrap();
    assert_eq!(seen.len(), 130);
    assert_eq!((seen[0].conclusion.as_deref(), seen[0].app_id), (Some("success"), Some(5)));

    let states = json!({"state": "pending", "sha": HEAD, "statuses": [
        {"context": "ci/other", "state": "success", "target_url": null}, {"context": "ci/slow", "state": "pending"}]});
    rig.on("GET", &format!("/repos/acme/shop/commits/{HEAD}/status"), ok(states)).await;
    let states = rig.github.commit_statuses(&repo(), &head()).await.unwrap();
    let words: Vec<_> = states.iter().map(|s| (s.context.as_str(), s.state.as_str())).collect();
    assert_eq!(words, [("ci/other", "success"), ("ci/slow", "pending")]);
    insta::assert_snapshot!(rig.asked().await.join("\n"), @r"
    GET /repos/acme/shop/commits/1111111111111111111111111111111111111111/check-runs?filter=latest&per_page=100&page=1
    GET /repos/acme/shop/commits/1111111111111111111111111111111111111111/check-runs?filter=latest&per_page=100&page=2
    GET /repos/acme/shop/commits/1111111111111111111111111111111111111111/status?per_page=100&page=1
    ");
}

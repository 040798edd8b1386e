//! The product's own client and webhook reader against the stand-in: what both have to say fits GitHub's description.

use jiff::Timestamp;
use secrecy::SecretString;
use switchover::{
    demo::github::{
        Effect, NewPull,
        model::{AppSpec, ReviewState, Role},
    },
    domain::{
        check::{
            Annotation, AnnotationLevel, CheckAction, CheckRun, CheckStatus, Conclusion, Deployment, DeploymentState,
            DeploymentStatus,
        },
        event::Event,
        ids::{InstallationId, RepoId, RepoRef, Sha},
    },
    github::{
        CommentKind, GitHub, GitHubConfig, GitHubError, Permission, Reaction, Timeouts, auth::Purpose,
        webhook::normalise,
    },
};

use super::support::{LIMIT, World};

fn client(w: &World) -> GitHub {
    GitHub::new(GitHubConfig {
        api_url: w.standin.api_url(),
        web_url: w.standin.web_url(),
        app_id: w.app.id,
        private_key: SecretString::from(w.app.private_key_pem.clone()),
        timeouts: Timeouts { request: LIMIT, ..Timeouts::default() },
    })
    .unwrap()
}

fn repo(w: &World) -> RepoRef {
    RepoRef {
        id: RepoId(w.repo),
        owner: "acme".into(),
        name: "shop".into(),
        installation: InstallationId(w.installation),
    }
}

fn check(w: &World, status: CheckStatus, annotations: usize) -> CheckRun {
    let annotation = |n| Annotation {
        path: "app/main.txt".into(),
        start_line: n,
        end_line: n,
        level: AnnotationLevel::Failure,
        message: format!("wrong {n}"),
        title: Some("title".into()),
        raw_details: None,
    };
    let done = status == CheckStatus::Completed;
    CheckRun {
        name: "shop / test".into(),
        head_sha: Sha::new(w.head.clone()).unwrap(),
        external_id: "run-1".into(),
        status,
        conclusion: done.then_some(Conclusion::Failure),
        started_at: Some(Timestamp::now()),
        completed_at: done.then(Timestamp::now),
        details_url: Some("https://ci.example.com/runs/1".into()),
        title: "t".into(),
        summary: "s".into(),
        text: None,
        annotations: (1..=annotations as u32).map(annotation).collect(),
        actions: vec![CheckAction { label: "Go".into(), description: "Go on".into(), identifier: "go".into() }],
    }
}

#[tokio::test]
async fn everything_the_client_writes_is_taken() {
    let w = World::start().await;
    let (github, repo) = (client(&w), repo(&w));
    let first = github.ensure_check(&repo, &check(&w, CheckStatus::InProgress, 0), None, false).await.unwrap();
    github.ensure_check(&repo, &check(&w, CheckStatus::Completed, 120), Some(first), false).await.unwrap();
    let (shown, count) = w.standin.read(|m| {
        let checks = &m.repos[&w.repo].checks;
        (checks[&first].clone(), checks.len())
    });
    assert_eq!((shown.output.annotations.len(), shown.conclusion.as_deref(), count), (120, Some("failure"), 1));
    let found = github.check_runs(&repo, &Sha::new(w.head.clone()).unwrap()).await.unwrap();
    assert_eq!(found.iter().map(|c| c.id).collect::<Vec<_>>(), [first]);

    let deployment = Deployment {
        sha: Sha::new(w.head.clone()).unwrap(),
        environment: "staging".into(),
        key: "rollout-1".into(),
        description: "x".repeat(300),
        production: false,
    };
    let id = github.ensure_deployment(&repo, &deployment, None, false).await.unwrap();
    assert_eq!(github.ensure_deployment(&repo, &deployment, None, true).await.unwrap(), id, "read before it is made");
    let status = DeploymentStatus {
        state: DeploymentState::Success,
        description: "live".into(),
        log_url: "https://ci.example.com/log".into(),
        environment_url: Some("https://shop.example.com/".into()),
    };
    github.ensure_deployment_status(&repo, id, &status, false).await.unwrap();
    github.ensure_deployment_status(&repo, id, &status, true).await.unwrap();
    let statuses = w.standin.read(|m| m.repos[&w.repo].deployments[&id].statuses.len());
    assert_eq!(statuses, 1, "read before it was written again");

    w.standin.commit(w.repo, "c", &[("c", Some("1"))], "c", "bob").await.unwrap();
    let new = NewPull { title: "c".into(), head: "c".into(), ..NewPull::default() };
    let number = w.standin.open_pull(w.repo, "bob", new).await.unwrap();
    let asked = w.standin.comment(w.repo, number, "eve", "/help").unwrap();
    let on_line = w.standin.comment_line(w.repo, number, "eve", ("c", 1), "/help").unwrap();
    let on_commit = w.standin.comment_commit(w.repo, &w.head, "eve", "/help").await.unwrap();
    for (kind, id) in [(CommentKind::Issue, asked), (CommentKind::Review, on_line), (CommentKind::Commit, on_commit)] {
        github.react(&repo, kind, id, Reaction::Eyes).await.unwrap();
        let seen = w.standin.read(|m| m.repos[&w.repo].comments[&id].reactions.clone());
        assert_eq!(seen.iter().map(|r| r.content.as_str()).collect::<Vec<_>>(), ["eyes"], "{kind:?}");
    }
    let mark = "<!-- switchover:status -->";
    let ours = github.ensure_comment(&repo, number, mark, "one", None, false).await.unwrap();
    assert_eq!(github.ensure_comment(&repo, number, mark, "two", None, true).await.unwrap(), ours);
    assert_eq!(github.find_comment(&repo, number, mark).await.unwrap().unwrap().body, format!("{mark}\ntwo"));

    assert_eq!(github.open_pulls(&repo).await.unwrap().len(), 1);
    assert_eq!(github.pull(&repo, number).await.unwrap().number, number);
    assert_eq!(github.branches(&repo).await.unwrap().len(), 2);
    assert_eq!(github.repository(&repo).await.unwrap().default_branch, "main");
    assert_eq!(github.installation_repositories(repo.installation).await.unwrap().len(), 1);
    assert_eq!(github.installations().await.unwrap().len(), 1);
    github.app().await.unwrap();
    w.standin.permission(w.repo, "cat", Role::Maintain, Some("Captain")).unwrap();
    assert_eq!(github.permission(&repo, "cat").await.unwrap(), Permission::Maintain);
    assert_eq!(github.permission(&repo, "eve").await.unwrap(), Permission::None);
    w.standin.team("acme", "ops", &["bob"], &[]).unwrap();
    assert!(github.team_member(&repo, "ops", "bob").await.unwrap());
    assert!(!github.team_member(&repo, "ops", "ann").await.unwrap());
    assert_eq!(github.commit_statuses(&repo, &Sha::new(w.head.clone()).unwrap()).await.unwrap().len(), 0);
    github.git_token(&repo).await.unwrap();

    let page = github.hook_deliveries(None).await.unwrap();
    let created = page.deliveries.iter().find(|d| d.event == "installation").unwrap();
    let detail = github.hook_delivery(created.id).await.unwrap();
    assert!(matches!(normalise("installation", &detail.payload).unwrap(), Event::Installation { .. }));
    github.redeliver(created.id).await.unwrap();

    w.standin.rename(w.repo, "store", "ann").unwrap();
    assert_eq!(github.repository(&repo).await.unwrap().repo.name, "store", "follows a rename");
    super::covered::check(&w.standin.read(|m| m.log.clone()));
    w.stop().await;
}

#[tokio::test]
async fn a_lost_answer_makes_nothing_twice() {
    let w = World::start().await;
    let (github, repo) = (client(&w), repo(&w));
    let wanted = check(&w, CheckStatus::InProgress, 0);
    w.standin.faults().on("POST", "/check-runs", 1, Effect::LoseResponse);
    let lost = github.ensure_check(&repo, &wanted, None, false).await.unwrap_err();
    assert!(matches!(lost, GitHubError::Ambiguous { .. }), "{lost}");
    let id = github.ensure_check(&repo, &wanted, None, true).await.unwrap();
    assert_eq!(w.standin.read(|m| m.repos[&w.repo].checks.keys().copied().collect::<Vec<_>>()), [id]);
    w.stop().await;
}

#[tokio::test]
async fn every_webhook_is_read_as_what_it_is() {
    let w = World::start().await;
    let api = w.token(None).await;
    let head = w.standin.commit(w.repo, "p", &[("p", Some("1"))], "p", "bob").await.unwrap();
    let new = NewPull { title: "P".into(), head: "p".into(), draft: true, ..NewPull::default() };
    let number = w.standin.open_pull(w.repo, "bob", new).await.unwrap();
    w.standin.ready_for_review(w.repo, number, "bob").unwrap();
    w.standin.comment(w.repo, number, "ann", "/help").unwrap();
    w.standin.review(w.repo, number, "ann", ReviewState::Commented, "/test").unwrap();
    let body = serde_json::json!({"name": "t", "head_sha": head, "external_id": "x", "conclusion": "failure",
        "actions": [{"label": "Go", "description": "Go on", "identifier": "go"}]});
    let check = api.post("/repos/acme/shop/check-runs", body).await.good()["id"].as_i64().unwrap();
    let suite = w.standin.check(w.repo, check).unwrap().suite;
    w.standin.press(w.repo, check, "go", "bob").unwrap();
    w.standin.rerequest_check(w.repo, check, "bob").unwrap();
    w.standin.rerequest_suite(w.repo, suite, "bob").await.unwrap();
    w.standin.require_checks(w.repo, "main", &["needed"]).unwrap();
    let needed = serde_json::json!({"name": "needed", "head_sha": head, "conclusion": "success"});
    api.post("/repos/acme/shop/check-runs", needed).await.good();
    w.standin.enqueue(w.repo, number, "bob").await.unwrap();
    w.standin.leave_queue(w.repo, number, "bob").await.unwrap();
    w.standin.close_pull(w.repo, number, "bob").unwrap();
    w.standin.set_default_branch(w.repo, "p", "ann").await.unwrap();
    w.standin.suspend(w.installation, true).unwrap();
    let done = |m: &switchover::demo::github::model::Model| m.deliveries.values().all(|d| d.done).then_some(());
    w.standin.wait_for("all deliveries", LIMIT, done).await.unwrap();
    let mut seen: Vec<String> = w
        .standin
        .read(|m| m.deliveries.values().cloned().collect::<Vec<_>>())
        .iter()
        .map(|d| {
            let event = normalise(&d.event, d.payload.as_bytes()).unwrap();
            let value = serde_json::to_value(&event).unwrap();
            let word = |name: &str| value[name].as_str().map(|v| format!(" {v}")).unwrap_or_default();
            let action = d.action.as_deref().map(|a| format!(".{a}")).unwrap_or_default();
            format!("{}{action}:{}{}{}", d.event, word("kind"), word("action"), word("change"))
        })
        .collect();
    seen.sort();
    seen.dedup();
    insta::assert_snapshot!(seen.join("\n"), @r"
    check_run.completed: check_completed
    check_run.created: ignored
    check_run.requested_action: button
    check_run.rerequested: rerun
    check_suite.completed: ignored
    check_suite.requested: ignored
    check_suite.rerequested: rerun
    installation.created: installation created
    installation.suspend: installation suspended
    issue_comment.created: ignored
    merge_group.checks_requested: merge_group
    merge_group.destroyed: merge_group
    pull_request.closed: pull_request closed
    pull_request.dequeued: ignored
    pull_request.enqueued: ignored
    pull_request.opened: pull_request opened
    pull_request.ready_for_review: pull_request ready_for_review
    pull_request_review.submitted: ignored
    push: push
    repository.edited: repository refreshed
    ");
    w.stop().await;
}

#[test]
fn the_app_asks_for_what_the_manifest_asks_for() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/app-manifest.yml")).unwrap();
    let spec = AppSpec::new("x");
    let mut lines: Vec<String> = spec.permissions.iter().map(|(n, l)| format!("  {n}: {}", l.as_str())).collect();
    lines.extend(spec.events.iter().map(|e| format!("  - {e}")));
    for line in &lines {
        assert!(text.lines().any(|l| l == line), "{line} is not in the manifest");
    }
    let of = |l: &&str| l.starts_with("  - ") || l.ends_with(": read") || l.ends_with(": write");
    assert_eq!(text.lines().filter(of).count(), lines.len());
    for (name, _) in Purpose::ALL.iter().flat_map(|p| p.permissions()) {
        assert!(spec.permissions.contains_key(*name), "{name}");
    }
}

//! Deployments: what is sent, and that there is one of each whatever is lost.

use serde_json::json;
use switchover::{
    domain::check::{Deployment, DeploymentState, DeploymentStatus},
    github::GitHub,
};

use super::{
    faulty::{Cut, Faulty},
    rig::{HEAD, PATIENT, Rig, config, created, head, ok, repo},
};

const ALL: &str = "/repos/acme/shop/deployments";
const STATUSES: &str = "/repos/acme/shop/deployments/4/statuses";

fn deployment() -> Deployment {
    Deployment {
        sha: head(),
        environment: "production & more".to_owned(),
        key: "rollout-1".to_owned(),
        description: "é".repeat(200),
        production: true,
    }
}

fn status(state: DeploymentState) -> DeploymentStatus {
    DeploymentStatus {
        state,
        description: "é".repeat(200),
        log_url: "https://switchover.example/rollouts/1".to_owned(),
        environment_url: Some("https://shop.example".to_owned()),
    }
}

#[tokio::test]
async fn what_is_sent() {
    let rig = Rig::new().await;
    rig.on("POST", ALL, created(json!({"id": 4}))).await;
    rig.on("POST", STATUSES, created(json!({"id": 1}))).await;
    let short = Deployment { description: "Release 12".to_owned(), ..deployment() };
    assert_eq!(rig.github.ensure_deployment(&repo(), &short, None, false).await.unwrap(), 4);
    let live = DeploymentStatus { description: "Live".to_owned(), ..status(DeploymentState::Success) };
    rig.github.ensure_deployment_status(&repo(), 4, &live, false).await.unwrap();
    let quiet = DeploymentStatus { environment_url: None, ..live };
    rig.github.ensure_deployment_status(&repo(), 4, &quiet, false).await.unwrap();
    insta::assert_json_snapshot!(rig.bodies().await, @r#"
    [
      {
        "ref": "1111111111111111111111111111111111111111",
        "task": "deploy",
        "auto_merge": false,
        "required_contexts": [],
        "payload": {
          "switchover": "rollout-1"
        },
        "environment": "production & more",
        "description": "Release 12",
        "transient_environment": false,
        "production_environment": true
      },
      {
        "state": "success",
        "log_url": "https://switchover.example/rollouts/1",
        "description": "Live",
        "environment_url": "https://shop.example",
        "auto_inactive": false
      },
      {
        "state": "success",
        "log_url": "https://switchover.example/rollouts/1",
        "description": "Live",
        "auto_inactive": false
      }
    ]
    "#);

    // A deployment never changes.
    assert_eq!(rig.github.ensure_deployment(&repo(), &short, Some(4), true).await.unwrap(), 4);
    assert_eq!(rig.requests().await.len(), 3);
}

#[tokio::test]
async fn descriptions_are_cut_to_140_characters() {
    let rig = Rig::new().await;
    rig.on("POST", ALL, created(json!({"id": 4}))).await;
    rig.on("POST", STATUSES, created(json!({"id": 1}))).await;
    rig.github.ensure_deployment(&repo(), &deployment(), None, false).await.unwrap();
    rig.github.ensure_deployment_status(&repo(), 4, &status(DeploymentState::Queued), false).await.unwrap();
    for body in rig.bodies().await {
        assert_eq!(body["description"].as_str().unwrap().chars().count(), 140);
    }
}

#[tokio::test]
async fn one_deployment_though_the_answer_was_lost() {
    for cut in [Cut::Lost, Cut::Half] {
        let rig = Rig::new().await;
        rig.once("POST", ALL, created(json!({"id": 4, "payload": {"switchover": "rollout-1"}}))).await;
        let wire = Faulty::before(&rig.server.uri()).await;
        let github = GitHub::new(config(&wire.url, PATIENT)).unwrap();
        wire.cut("POST /repos", cut);
        let error = github.ensure_deployment(&repo(), &deployment(), None, false).await.unwrap_err();
        assert!(error.is_ambiguous(), "{error}");
        // As GitHub lists them: other people's, another rollout's, ours.
        let others = json!([
            {"id": 9, "payload": ""}, {"id": 8, "payload": {"switchover": "rollout-2"}}, {"id": 7, "payload": "{\"x\":"},
            {"id": 6, "payload": null}, {"id": 5, "payload": {"switchover": 3}}, {"id": 4, "payload": {"switchover": "rollout-1"}},
        ]);
        rig.on("GET", ALL, ok(others)).await;
        assert_eq!(github.ensure_deployment(&repo(), &deployment(), None, true).await.unwrap(), 4);
        let asked = rig.asked().await;
        assert_eq!(asked.iter().filter(|l| l.starts_with("POST")).count(), 1);
        assert_eq!(
            asked[1],
            format!("GET {ALL}?sha={HEAD}&environment=production+%26+more&task=deploy&per_page=100&page=1")
        );
    }
    // A payload that comes back as a string of JSON.
    let rig = Rig::new().await;
    rig.on("GET", ALL, ok(json!([{"id": 4, "payload": "{\"switchover\": \"rollout-1\"}"}]))).await;
    assert_eq!(rig.github.ensure_deployment(&repo(), &deployment(), None, true).await.unwrap(), 4);
    // It was not made.
    let rig = Rig::new().await;
    rig.on("GET", ALL, ok(json!([]))).await;
    rig.on("POST", ALL, created(json!({"id": 5}))).await;
    assert_eq!(rig.github.ensure_deployment(&repo(), &deployment(), None, true).await.unwrap(), 5);
}

#[tokio::test]
async fn a_status_in_doubt_is_read_first() {
    let wanted = status(DeploymentState::Success);
    let said = |id: i64, state: &str, url: &str| {
        json!({"id": id, "state": state, "description": format!("{}…", "é".repeat(139)),
            "log_url": "https://switchover.example/rollouts/1", "environment_url": url})
    };
    let cases = [
        ("nothing", json!([]), 1),
        ("the same", json!([said(2, "success", "https://shop.example"), said(1, "in_progress", "")]), 0),
        (
            "the same, listed oldest first",
            json!([said(1, "in_progress", ""), said(2, "success", "https://shop.example")]),
            0,
        ),
        ("an older one is the same", json!([said(2, "success", "https://shop.example"), said(3, "failure", "")]), 1),
        ("another address", json!([said(2, "success", "")]), 1),
    ];
    for (name, listed, writes) in cases {
        let rig = Rig::new().await;
        rig.on("GET", STATUSES, ok(listed)).await;
        rig.on("POST", STATUSES, created(json!({"id": 5}))).await;
        rig.github.ensure_deployment_status(&repo(), 4, &wanted, true).await.unwrap();
        assert_eq!(rig.asked().await.iter().filter(|l| l.starts_with("POST")).count(), writes, "{name}");
    }
}

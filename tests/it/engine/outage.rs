//! GitHub down, slow, limiting, losing responses; webhooks lost, doubled, out of order: all of it shown once in the end.

use switchover::demo::github::{Effect, HookEffect, HookFault};

use super::rig::Rig;

const CONFIG: &str =
    "version: 1\napps:\n  web:\n    steps:\n      test: {run: \"true\"}\n      lint: {run: \"true\"}\n";

async fn begun() -> Rig {
    let rig = Rig::start().await;
    let sha = rig.push("main", &[(".github/switchover.yml", Some(CONFIG))], "begin").await;
    assert_eq!(rig.conclusion(&sha, "switchover").await, "success");
    rig
}

async fn shown_once(rig: &Rig, sha: &str) {
    assert_eq!(rig.conclusion(sha, "switchover").await, "success");
    for name in ["switchover", "web / test (push)", "web / lint (push)"] {
        assert_eq!(rig.conclusion(sha, name).await, "success", "{name}");
        assert_eq!(rig.counts(sha, name).0, 1, "{name}: once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_fail_or_lose_their_answers() {
    let rig = begun().await;
    let faults = [
        Effect::Status { status: 500, retry_after: None },
        Effect::Status { status: 502, retry_after: None },
        Effect::Status { status: 429, retry_after: Some(1) },
        Effect::SecondaryLimit { retry_after: Some(1) },
        Effect::LoseResponse,
        Effect::LoseRequest,
        Effect::Truncate,
        Effect::Delay { ms: 1500 },
    ];
    for (n, fault) in faults.into_iter().enumerate() {
        rig.github.faults().on("POST", "/check-runs", 2, fault.clone());
        rig.github.faults().on("PATCH", "/check-runs", 1, fault.clone());
        let sha = rig.push("main", &[("n", Some(&n.to_string()))], &format!("{fault:?}")).await;
        shown_once(&rig, &sha).await;
        rig.github.faults().clear();
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_while_the_whole_of_github_is_away() {
    let rig = begun().await;
    rig.github.faults().down(true);
    rig.github.faults().git_down(true);
    let sha = rig.push("main", &[("x", Some("1"))], "while away").await;
    let before = rig.github.requests("", "");
    // The server tries in vain at least twice before GitHub is back.
    rig.wait("tries in vain", |m| (m.log.len() >= before + 2).then_some(())).await;
    rig.github.faults().clear();
    shown_once(&rig, &sha).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_lost_doubled_and_out_of_order() {
    let rig = begun().await;
    let fault = |count, effect| HookFault { event: "push".into(), from: 1, count, effect };
    rig.github.faults().add_hook(fault(Some(1), HookEffect::Duplicate));
    let sha = rig.push("main", &[("a", Some("doubled"))], "doubled").await;
    shown_once(&rig, &sha).await;
    rig.github.faults().clear();
    for listed in [true, false] {
        rig.github.faults().add_hook(fault(Some(1), HookEffect::Lose { listed }));
        let lost = rig.push("main", &[("b", Some(if listed { "1" } else { "2" }))], "lost").await;
        rig.github.faults().clear();
        rig.control.about("sweep", "").await.expect("swept");
        shown_once(&rig, &lost).await;
    }
    rig.stop().await;
}

//! GitHub down, slow, limiting, losing responses; webhooks lost, doubled, out of order: all of it shown once in the end.

use std::time::{Duration, Instant};

use switchover::demo::github::{Effect, HookEffect, HookFault, model::Model};

use super::rig::{NAME, OWNER, PATIENCE, Rig, TRUSTED, released_config};

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

/// Waits until `explain` says so of a commit.
async fn explained(rig: &Rig, sha: &str, so: &dyn Fn(&str) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Of a commit whose webhook has not come yet nothing is known.
        let text = rig.control.about("explain", sha).await.unwrap_or_default();
        if so(&text) {
            return;
        }
        assert!(Instant::now() < deadline, "{text}");
        tokio::time::sleep(Duration::from_millis(5)).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_ends_loses_no_check() {
    let rig = begun().await;
    for (status, count) in [(404, 6), (403, 1000)] {
        rig.github.faults().on("POST", "/check-runs", count, Effect::Status { status, retry_after: None });
    }
    let tries = |m: &Model| m.log.iter().filter(|e| e.method == "POST" && e.path.contains("/check-runs")).count();
    let before = rig.github.read(tries);
    let sha = rig.push("main", &[("n", Some("refused"))], "refused").await;
    // Each of the three checks is tried four times: that once was the end of it.
    rig.wait("tries in vain", |m| (tries(m) >= before + 12).then_some(())).await;
    let text = rig.control.about("explain", &sha).await.expect("explained");
    assert!(text.contains("not on GitHub yet: step:") && text.contains("(GitHub "), "{text}");
    rig.github.faults().clear();
    shown_once(&rig, &sha).await;
    // What GitHub shows is noted a moment later.
    explained(&rig, &sha, &|text| !text.contains("not on GitHub")).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_suspension_stopped_is_shown_after_it() {
    let rig = Rig::start().await;
    let config = CONFIG.replace("\"true\"", "\"sleep 600\"");
    let sha = rig.push("main", &[(".github/switchover.yml", Some(&config))], "long").await;
    rig.wait("the step to run", |m| {
        let checks = m.repo(OWNER, NAME)?.latest_checks(&sha);
        checks.into_iter().any(|c| c.name == "web / test (push)" && c.status == "in_progress").then_some(())
    })
    .await;
    let installation = rig.github.read(|m| m.installations.keys().next().copied()).expect("installed");
    rig.github.suspend(installation, true).expect("suspended");
    explained(&rig, &sha, &|text| text.contains("the installation is suspended: it waits until that ends")).await;
    rig.github.suspend(installation, false).expect("back");
    assert_eq!(rig.conclusion(&sha, "switchover").await, "cancelled");
    assert_eq!(rig.counts(&sha, "switchover").0, 1);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_slack_does_not_keep_the_server() {
    // It takes every connection and never answers.
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = silent.local_addr().expect("an address");
    let mut rig = Rig::start_with(&|root| {
        let file = root.join("slack");
        std::fs::write(&file, format!("http://{address}/services/x")).expect("written");
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("set");
        format!("slack_url_file = \"{}\"\n{TRUSTED}", file.display())
    })
    .await;
    let sha = rig.push("main", &[(".github/switchover.yml", Some(CONFIG))], "begin").await;
    assert_eq!(rig.conclusion(&sha, "switchover").await, "success");
    let _held = tokio::time::timeout(PATIENCE, silent.accept()).await.expect("in time").expect("a message");
    // One message may take ten seconds, and four wait.
    assert!(rig.end(Duration::from_secs(8)).await, "it still waits for Slack: {}", rig.log());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_come_in_the_order_of_their_releases() {
    let rig = super::stories::begun(&released_config()).await;
    let first = rig.push("main", &[("version", Some("one"))], "one").await;
    rig.deployed(&first, "success").await;
    rig.github.faults().on("POST", "/deployments", 1_000_000, Effect::Status { status: 502, retry_after: None });
    let mut shas = vec![first];
    for name in ["two", "three"] {
        let sha = rig.push("main", &[("version", Some(name))], name).await;
        explained(&rig, &sha, &|text| text.contains("to production: live")).await;
        shas.push(sha);
    }
    // The older one failed more often by now, so that it would be tried later.
    rig.github.faults().clear();
    let states = ["inactive", "inactive", "success"].map(str::to_owned);
    let wanted: Vec<_> = shas.into_iter().zip(states).collect();
    rig.wait("all three in their order", |m| {
        let all = m.repo(OWNER, NAME)?.deployments.values().map(|d| (d.sha.clone(), d.state().to_owned()));
        // The first of all is that of the configuration.
        (all.skip(1).collect::<Vec<_>>() == wanted).then_some(())
    })
    .await;
    rig.stop().await;
}

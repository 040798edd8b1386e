//! `kill -9` of the server at each recorded step: after the restart it ends as if nothing had been, GitHub's state once
//! and right, requests unharmed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::rig::{Rig, released_config};

/// Constant requests, each on a connection of its own; counts those without a good answer.
struct Load {
    sent: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    fn start(url: String) -> Self {
        let (sent, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (s, f) = (sent.clone(), failed.clone());
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(Duration::from_secs(20));
        let http = http.build().expect("a client");
        let task = tokio::spawn(async move {
            let mut beat = tokio::time::interval(Duration::from_millis(20));
            loop {
                beat.tick().await;
                s.fetch_add(1, Ordering::Relaxed);
                if !http.get(&url).send().await.is_ok_and(|r| r.status().is_success()) {
                    f.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { sent, failed, task }
    }

    fn end(self) -> (u64, u64) {
        self.task.abort();
        (self.sent.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

/// One commit for each failpoint: the server dies there, comes back, and everything ends right, once.
async fn killed_at(points: &[&str]) {
    let mut rig = Rig::start().await;
    let config = released_config();
    let files = [(".github/switchover.yml", Some(config.as_str())), ("version", Some("0"))];
    let first = rig.push("main", &files, "begin").await;
    rig.deployed(&first, "success").await;
    let load = Load::start(rig.address().await);
    for (n, point) in points.iter().enumerate() {
        rig.kill().await;
        rig.serve(Some(point)).await;
        let version = format!("{n} {point}");
        let sha = rig.push("main", &[("version", Some(&version))], &version).await;
        assert!(rig.ended(super::rig::PATIENCE).await, "{point} was never reached: {}", rig.log());
        rig.serve(None).await;
        assert_eq!(rig.conclusion(&sha, "switchover").await, "success", "{point}");
        rig.deployed(&sha, "success").await;
        assert_eq!(rig.conclusion(&sha, "deploy (production)").await, "success", "{point}");
        let (tests, deployments) = rig.counts(&sha, "web / test (push)");
        assert_eq!((tests, deployments), (1, 1), "{point}: once");
        let body = reqwest::get(rig.address().await).await.expect("answered").text().await.expect("text");
        assert_eq!(body, version, "{point}: the right release serves");
    }
    let (sent, failed) = load.end();
    println!("{} failpoints, {sent} requests, {failed} failed", points.len());
    assert_eq!(failed, 0, "of {sent} requests");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_intake_and_planning() {
    // Before the commit the delivery is not acknowledged: it is found in GitHub's log after the restart.
    killed_at(&[
        "intake.before_commit",
        "intake.after_commit",
        "intake.before_answer",
        "planner.before_commit",
        "planner.after_commit",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_run() {
    killed_at(&[
        "runner.after_claim",
        "runner.after_checkout",
        "runner.after_step_begun",
        "runner.after_step_ran",
        "runner.after_step_recorded",
        "runner.after_release_stored",
        "runner.after_job",
        "releases.before_decided",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_rollout() {
    let moments = ["before_intent", "after_intent", "after_effect", "after_record"];
    let mut points: Vec<String> = vec!["rollouts.after_claim".into()];
    for action in ["preflight", "claim", "put_slot", "switch"] {
        points.extend(moments.iter().map(|m| format!("rollout.{action}.{m}")));
    }
    for phase in ["warm", "verify", "switch", "converge", "watch", "done"] {
        points.push(format!("rollout.phase.{phase}.after_record"));
    }
    points.extend(
        ["rollout.end.before_record", "rollout.end.after_record", "rollouts.before_end", "rollouts.after_end"]
            .map(String::from),
    );
    let points: Vec<&str> = points.iter().map(String::as_str).collect();
    killed_at(&points).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_reporting() {
    let mut points = Vec::new();
    for nth in ["", ":2", ":4", ":7"] {
        for moment in ["before_intent", "after_intent", "after_effect"] {
            points.push(format!("reporter.{moment}{nth}"));
        }
    }
    let points: Vec<&str> = points.iter().map(String::as_str).collect();
    killed_at(&points).await;
}

//! The merge queue, end to end: GitHub asks for checks of a group, and what we say decides.

use std::collections::BTreeSet;

use switchover::demo::github::{
    NewPull,
    model::{MergeGroup, Model},
};

use super::rig::{ANN, NAME, OWNER, Rig};

const CONFIG: &str = "version: 1\napps:\n  web:\n    steps:\n      test: {run: \"test ! -e a || test ! -e b\"}\n";

/// A repository whose `main` requires the check `switchover`.
async fn begun() -> (Rig, String) {
    let rig = Rig::start().await;
    let sha = rig.push("main", &[(".github/switchover.yml", Some(CONFIG))], "begin").await;
    assert_eq!(rig.conclusion(&sha, "switchover").await, "success");
    rig.github.require_checks(rig.repo, "main", &["switchover"]).expect("required");
    (rig, sha)
}

/// A pull request that adds one file and is green.
async fn green(rig: &Rig, file: &str) -> i64 {
    let head = rig.push(file, &[(file, Some("x"))], file).await;
    let new = NewPull { title: format!("Add {file}"), head: file.into(), ..NewPull::default() };
    let number = rig.github.open_pull(rig.repo, ANN, new).await.expect("opened");
    assert_eq!(rig.conclusion(&head, "web / test (pull_request)").await, "success");
    // Not the one of the push: the test of the merge has the last word on this commit.
    rig.wait("a green pull request", |m| {
        let checks = m.repo(OWNER, NAME)?.latest_checks(&head);
        let all = checks.iter().any(|c| c.name == "switchover") && checks.iter().all(|c| c.satisfies());
        all.then_some(())
    })
    .await;
    number
}

fn group(m: &Model, number: i64) -> Option<MergeGroup> {
    m.repo(OWNER, NAME)?.pulls[&number].queued.as_ref()?.group.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_group_is_tested_and_merged() {
    let (rig, base) = begun().await;
    let number = green(&rig, "a").await;
    let sha = rig.github.enqueue(rig.repo, number, ANN).await.expect("queued").expect("a group");
    // The queue goes on by itself, so what happened is read from what is left.
    let merged = rig.wait("the merge", |m| m.repo(OWNER, NAME)?.pulls[&number].merged.clone()).await;
    assert_eq!(merged.0, sha, "the very commit that was tested");
    let check = rig.check(&sha, "switchover").await;
    assert_eq!((check.conclusion.as_deref(), check.head_sha), (Some("success"), sha.clone()));
    let test = rig.check(&sha, "web / test (merge_group)").await;
    assert_eq!(test.conclusion.as_deref(), Some("success"));
    let told = rig.github.read(|m| {
        let ours = m.deliveries.values().filter(|d| d.event == "merge_group");
        ours.map(|d| d.action.clone().unwrap_or_default()).collect::<Vec<_>>()
    });
    assert_eq!(told, ["checks_requested", "destroyed"]);
    assert_ne!(sha, base);
    let names = rig.github.read(|m| {
        let checks = m.repo(OWNER, NAME).expect("there").checks.values();
        checks.filter(|c| c.head_sha == sha).map(|c| c.name.clone()).collect::<BTreeSet<_>>()
    });
    let expected = ["switchover", "web / test (merge_group)"].map(str::to_owned);
    assert_eq!(names, expected.into(), "the push of the queue's branch is not tested once more");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_fails_together_is_not_merged() {
    let (rig, _) = begun().await;
    // Each is good by itself; both together are not.
    let (one, other) = (green(&rig, "a").await, green(&rig, "b").await);
    rig.github.enqueue(rig.repo, one, ANN).await.expect("queued");
    rig.github.enqueue(rig.repo, other, ANN).await.expect("queued");
    rig.wait("the first merge", |m| m.repo(OWNER, NAME)?.pulls[&one].merged.clone()).await;
    let second = rig.wait("the second group", |m| group(m, other)).await;
    assert_eq!(rig.conclusion(&second.sha, "web / test (merge_group)").await, "failure");
    assert_eq!(rig.conclusion(&second.sha, "switchover").await, "failure");
    rig.wait("its way out", |m| m.repo(OWNER, NAME)?.pulls[&other].queued.is_none().then_some(())).await;
    let pull = rig.github.pull(rig.repo, other).expect("there");
    assert!(pull.open && pull.merged.is_none());
    rig.stop().await;
}

//! What comes late, comes back, or belongs to what is gone: nothing is done twice, nothing that is wanted is left out.

use std::path::PathBuf;

use jiff::ToSpan as _;
use switchover::{
    demo::github::{HookEffect, HookFault, faults::Release, model::Model},
    domain::ids::RepoId,
    store::{RepoState, Store},
};

use super::{
    rig::{ANN, NAME, OWNER, Rig, released_config},
    stories::{begun, pull},
};

const CONFIG: &str = "version: 1\napps:\n  web:\n    steps:\n      test: {run: \"true\"}\n";
const TEST: &str = "web / test (pull_request)";

/// A repository whose steps end when the file is there; it is, until a test takes it away.
pub(super) async fn gated() -> (Rig, PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let gate = folder.path().join("open");
    std::fs::write(&gate, "").expect("written");
    let run = format!("until test -e {}; do sleep 0.02; done", gate.display());
    let rig = begun(&format!("version: 1\napps:\n  web:\n    steps:\n      test: {{run: \"{run}\"}}\n")).await;
    (rig, gate, folder)
}

/// Waits until the newest check of this name is in this status or has this conclusion.
pub(super) async fn stands(rig: &Rig, sha: &str, name: &str, how: &str) {
    rig.wait(&format!("{name} on {} to be {how}", &sha[..7]), |m| {
        let checks = m.repo(OWNER, NAME)?.latest_checks(sha);
        let found = checks.into_iter().find(|c| c.name == name)?;
        (found.status == how || found.conclusion.as_deref() == Some(how)).then_some(())
    })
    .await;
}

/// The newest webhook of this event and action.
fn delivery(m: &Model, event: &str, action: Option<&str>) -> Option<(i64, String)> {
    let found = m.deliveries.values().rfind(|d| d.event == event && d.action.as_deref() == action)?;
    Some((found.id, found.guid.clone()))
}

pub(super) async fn store(rig: &Rig) -> Store {
    Store::open(&rig.data.join("switchover.db")).await.expect("a readable database")
}

fn hook(event: &str, effect: HookEffect) -> HookFault {
    HookFault { event: event.into(), from: 1, count: None, effect }
}

pub(super) fn installation(rig: &Rig) -> i64 {
    rig.github.read(|m| *m.installations.keys().next_back().expect("installed"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stopped_and_is_wanted_again_runs_again() {
    let (rig, gate, _folder) = gated().await;
    std::fs::remove_file(&gate).expect("removed");
    let one = rig.push("change", &[("a", Some("1"))], "one").await;
    let number = rig.github.open_pull(rig.repo, ANN, pull("change")).await.expect("opened");
    stands(&rig, &one, TEST, "in_progress").await;
    rig.github.close_pull(rig.repo, number, ANN).expect("closed");
    stands(&rig, &one, TEST, "cancelled").await;
    rig.github.reopen_pull(rig.repo, number, ANN).await.expect("reopened");
    stands(&rig, &one, TEST, "in_progress").await;
    // Another commit takes its place, and the branch goes back to it.
    let two = rig.push("change", &[("a", Some("2"))], "two").await;
    stands(&rig, &two, TEST, "in_progress").await;
    stands(&rig, &one, TEST, "completed").await;
    rig.github.move_branch(rig.repo, "change", &one, ANN).await.expect("moved");
    stands(&rig, &one, TEST, "in_progress").await;
    // Neither the webhook once more nor another one of the same makes a fourth.
    let (id, _) = rig.github.read(|m| delivery(m, "pull_request", Some("reopened"))).expect("sent");
    let again = rig.github.redeliver(id).expect("sent again");
    rig.wait("the redelivery", |m| m.deliveries[&again].done.then_some(())).await;
    rig.github.ready_for_review(rig.repo, number, ANN).expect("ready");
    rig.told(&one, "is nothing new: run").await;
    std::fs::write(&gate, "").expect("written");
    stands(&rig, &one, "switchover", "success").await;
    let why = rig.control.about("explain", &one).await.expect("explained");
    assert!(why.contains("attempt 3") && !why.contains("attempt 4"), "{why}");
    // The App goes and comes back while a test is under way.
    for suspended in [true, false] {
        std::fs::remove_file(&gate).expect("removed");
        let sha = rig.push("change", &[("b", Some(&suspended.to_string()))], "more").await;
        stands(&rig, &sha, TEST, "in_progress").await;
        let at = installation(&rig);
        if suspended {
            rig.github.suspend(at, true).expect("suspended");
        } else {
            rig.github.uninstall(at).expect("uninstalled");
        }
        rig.told(&sha, &format!("pull_request pull/{number}, attempt 1): cancelled")).await;
        std::fs::write(&gate, "").expect("written");
        if suspended {
            rig.github.suspend(at, false).expect("back");
            rig.active(rig.repo).await;
            rig.control.about("sweep", "").await.expect("swept");
        } else {
            rig.github.install(rig.app, OWNER, Some(&[rig.repo])).expect("installed");
            rig.active(rig.repo).await;
            rig.github.close_pull(rig.repo, number, ANN).expect("closed");
            rig.github.reopen_pull(rig.repo, number, ANN).await.expect("reopened");
        }
        stands(&rig, &sha, "switchover", "success").await;
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_click_of_long_ago_is_not_carried_out() {
    let rig = begun(&released_config()).await;
    let one = rig.push("main", &[("version", Some("one"))], "one").await;
    rig.deployed(&one, "success").await;
    // The first release has nothing to go back to, and so no button.
    let sha = rig.push("main", &[("version", Some("two"))], "two").await;
    rig.deployed(&sha, "success").await;
    let check = rig.check(&sha, "web / test (push)").await;
    let (button, identifier) = rig
        .wait("a button", |m| {
            let checks = m.repo(OWNER, NAME)?.latest_checks(&sha);
            let deploy = checks.into_iter().find(|c| c.name.starts_with("deploy") && c.status == "completed")?;
            Some((deploy.id, deploy.actions.first()?.identifier.clone()))
        })
        .await;

    rig.github.faults().add_hook(hook("check_run", HookEffect::Lose { listed: true }));
    rig.github.rerequest_check(rig.repo, check.id, ANN).expect("pressed");
    rig.github.press(rig.repo, button, &identifier, ANN).expect("pressed");
    rig.github.faults().clear();
    let mut clicks = Vec::new();
    rig.github.write(|m| {
        for d in m.deliveries.values_mut() {
            if matches!(d.action.as_deref(), Some("rerequested" | "requested_action")) {
                d.delivered_at = d.delivered_at.checked_sub(11.minutes()).expect("a time");
                clicks.push(d.guid.clone());
            }
        }
    });
    assert_eq!(clicks.len(), 2);
    rig.control.about("sweep", "").await.expect("swept");
    for (guid, what) in clicks.iter().zip(["Re-run", "the button"]) {
        rig.told(guid, &format!("{what} was pressed more than ten minutes ago: press it again")).await;
        // The same by hand: it was pressed when it was pressed.
        rig.control.about("replay", guid).await.expect("replayed");
        rig.told(guid, &format!("after 1 try\n  {what} was pressed more")).await;
    }
    assert_eq!(rig.counts(&sha, "web / test (push)"), (1, 1));
    // One that was pressed now is carried out.
    rig.github.rerequest_check(rig.repo, check.id, ANN).expect("pressed");
    rig.ran(&sha, &check.name, 2).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_push_changes_nothing_of_its_repository() {
    let rig = begun(CONFIG).await;
    let at = installation(&rig);
    let books = store(&rig).await;
    let known = async || books.repo(RepoId(rig.repo)).await.expect("readable").expect("known");
    // Renamed meanwhile.
    rig.github.faults().add_hook(hook("push", HookEffect::Hold));
    rig.push("main", &[("a", Some("1"))], "one").await;
    rig.github.rename(rig.repo, "store", ANN).expect("renamed");
    let (_, renamed) = rig.github.read(|m| delivery(m, "repository", Some("renamed"))).expect("sent");
    rig.told(&renamed, "the repository is now acme/store").await;
    rig.github.release_held(Release::Forward);
    let (_, guid) = rig.github.read(|m| delivery(m, "push", None)).expect("sent");
    rig.told(&guid, "push of main").await;
    assert_eq!(known().await.info.repo.name, "store");
    // Taken from the App meanwhile.
    let other = rig.github.create_repository(OWNER, "other", "main", true).await.expect("made");
    rig.push("main", &[("a", Some("2"))], "two").await;
    let (_, guid) = rig.github.read(|m| delivery(m, "push", None)).expect("sent");
    rig.github.change_repositories(at, &[other], &[rig.repo]).expect("changed");
    let (_, removed) = rig.github.read(|m| delivery(m, "installation_repositories", Some("removed"))).expect("sent");
    rig.told(&removed, "1 removed").await;
    rig.github.release_held(Release::Forward);
    rig.told(&guid, "state: done after 1 try\n  the App has no access to acme/store any more").await;
    assert_eq!(known().await.state, RepoState::Removed);
    books.close().await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_group_that_is_gone_ends_with_a_note() {
    let rig = begun(CONFIG).await;
    rig.github.require_checks(rig.repo, "main", &["switchover"]).expect("required");
    let head = rig.push("change", &[("a", Some("1"))], "change").await;
    let number = rig.github.open_pull(rig.repo, ANN, pull("change")).await.expect("opened");
    stands(&rig, &head, "switchover", "success").await;
    rig.github.faults().add_hook(hook("merge_group", HookEffect::Hold));
    rig.github.enqueue(rig.repo, number, ANN).await.expect("queued").expect("a group");
    rig.github.leave_queue(rig.repo, number, ANN).await.expect("left");
    rig.github.release_held(Release::Reversed);
    let (_, guid) = rig.github.read(|m| delivery(m, "merge_group", Some("checks_requested"))).expect("sent");
    // Tried for some seconds: it might not have been there yet.
    rig.told(&guid, "state: done after 5 tries").await;
    rig.told(&guid, "the merge group is gone, so there is nothing to test").await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_says_so_by_its_commit() {
    let rig = begun(CONFIG).await;
    rig.github.faults().git_down(true);
    let sha = rig.push("main", &[("a", Some("1"))], "while away").await;
    let told = rig.told(&sha[..10], "\n  git: ").await;
    assert!(told.contains(": push, received") && told.contains("state: pending after"), "{told}");
    rig.github.faults().clear();
    stands(&rig, &sha, "switchover", "success").await;
    let told = rig.control.about("explain", &sha).await.expect("explained");
    assert!(!told.contains("  git: "), "{told}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_before_the_installation_is_only_noted() {
    let rig = begun(CONFIG).await;
    let old = rig.github.create_repository(OWNER, "old", "main", true).await.expect("made");
    let files = [(".github/switchover.yml", Some(CONFIG))];
    rig.github.commit(old, "main", &files, "begin", ANN).await.expect("pushed");
    let head = rig.github.commit(old, "change", &[("a", Some("1"))], "change", ANN).await.expect("pushed");
    let number = rig.github.open_pull(old, ANN, pull("change")).await.expect("opened");
    rig.github.change_repositories(installation(&rig), &[old], &[]).expect("changed");
    rig.active(old).await;
    rig.control.about("sweep", "").await.expect("swept");
    // What comes now is behind all that could have been made of what was there.
    let sha = rig.github.commit(old, "main", &[("b", Some("1"))], "now", ANN).await.expect("pushed");
    let tested = |sha: &str| {
        rig.github.read(|m| {
            let checks = m.repo(OWNER, "old").expect("there").latest_checks(sha);
            checks.into_iter().any(|c| c.name == "switchover" && c.conclusion.as_deref() == Some("success"))
        })
    };
    rig.wait("the new commit's check", |m| {
        let checks = m.repo(OWNER, "old")?.latest_checks(&sha);
        checks.into_iter().any(|c| c.name == "switchover" && c.conclusion.is_some()).then_some(())
    })
    .await;
    assert!(tested(&sha) && !tested(&head));
    assert!(rig.control.about("explain", &head).await.is_err(), "nothing was done about it");
    rig.github.close_pull(old, number, ANN).expect("closed");
    rig.github.reopen_pull(old, number, ANN).await.expect("reopened");
    rig.wait("the old pull request's check", |m| {
        let checks = m.repo(OWNER, "old")?.latest_checks(&head);
        checks.into_iter().any(|c| c.name == "switchover" && c.conclusion.is_some()).then_some(())
    })
    .await;
    rig.stop().await;
}

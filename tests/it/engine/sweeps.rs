//! The sweep: it finds what was missed, each time, and one thing that GitHub refuses hides nothing else.

use std::time::Duration;

use switchover::{
    demo::github::{Effect, HookEffect, HookFault, Rule},
    domain::ids::{RepoId, Sha},
    store::RepoState,
};

use super::{
    late::{gated, installation, stands, store},
    rig::{ANN, NAME, OWNER, Rig},
    stories::{begun, pull},
};

const CONFIG: &str = "version: 1\napps:\n  web:\n    steps:\n      test: {run: \"true\"}\n";

/// From now on no webhook of this event (none: of any) arrives, nor does GitHub know that it sent one.
fn lose(rig: &Rig, event: &str) {
    let effect = HookEffect::Lose { listed: false };
    rig.github.faults().add_hook(HookFault { event: event.into(), from: 1, count: None, effect });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_comes_back_unseen_is_found_each_time() {
    let rig = begun(CONFIG).await;
    let one = rig.push("main", &[("a", Some("1"))], "one").await;
    assert_eq!(rig.conclusion(&one, "switchover").await, "success");
    lose(&rig, "");
    let two = rig.push("main", &[("a", Some("2"))], "two").await;
    for (n, sha) in [&two, &one, &two, &one, &two].into_iter().enumerate() {
        rig.github.move_branch(rig.repo, "main", sha, ANN).await.expect("moved");
        // Seen twice, done once.
        rig.control.about("sweep", "").await.expect("swept");
        rig.control.about("sweep", "").await.expect("swept");
        let runs = n / 2 + 1 + usize::from(sha == &one);
        rig.wait(&format!("test {runs} of {}", &sha[..7]), |m| {
            let checks = m.repo(OWNER, NAME)?.checks.values();
            let of = checks.filter(|c| c.head_sha == *sha && c.name == "web / test (push)");
            (of.filter(|c| c.status == "completed").count() == runs).then_some(())
        })
        .await;
    }
    // A branch that comes back after it was gone, to the commit on which it was.
    for n in [1, 2] {
        rig.github.move_branch(rig.repo, "develop", &one, ANN).await.expect("made");
        rig.control.about("sweep", "").await.expect("swept");
        rig.told(&one, &format!("push develop, attempt {n}): success")).await;
        rig.github.move_branch(rig.repo, "develop", "", ANN).await.expect("deleted");
        rig.control.about("sweep", "").await.expect("swept");
        gone(&rig, "develop").await;
    }
    rig.stop().await;
}

/// Waits until the branch is not in the books.
async fn gone(rig: &Rig, branch: &str) {
    let books = store(rig).await;
    let deadline = std::time::Instant::now() + super::rig::PATIENCE;
    while books.heads(RepoId(rig.repo)).await.expect("readable").iter().any(|(b, _)| b == branch) {
        assert!(std::time::Instant::now() < deadline, "{branch} is still known: {}", rig.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    books.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_went_unseen_has_no_runs() {
    let (rig, gate, _folder) = gated().await;
    std::fs::remove_file(&gate).expect("removed");
    let sha = rig.push("develop", &[("a", Some("1"))], "develop").await;
    stands(&rig, &sha, "web / test (push)", "in_progress").await;
    lose(&rig, "");
    rig.github.move_branch(rig.repo, "develop", "", ANN).await.expect("deleted");
    rig.control.about("sweep", "").await.expect("swept");
    stands(&rig, &sha, "web / test (push)", "cancelled").await;
    gone(&rig, "develop").await;
    rig.github.faults().clear();
    // A run that archiving stops says so.
    let sha = rig.push("main", &[("a", Some("2"))], "main").await;
    stands(&rig, &sha, "web / test (push)", "in_progress").await;
    rig.github.archive(rig.repo, true, ANN).expect("archived");
    rig.told(&sha, "push main, attempt 1): cancelled").await;
    let books = store(&rig).await;
    let runs = books.runs_on(RepoId(rig.repo), &Sha::new(sha).expect("a commit")).await.expect("readable");
    assert_eq!(runs[0].detail.notes.last().expect("a note"), "The repository was archived, so the run was stopped.");
    books.close().await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_refused_hides_no_other() {
    let rig = begun(CONFIG).await;
    let at = installation(&rig);
    let books = store(&rig).await;
    let mut more = Vec::new();
    for name in ["aaa", "bbb"] {
        let repo = rig.github.create_repository(OWNER, name, "main", true).await.expect("made");
        rig.github.change_repositories(at, &[repo], &[]).expect("added");
        rig.active(repo).await;
        more.push(repo);
    }
    let broken = Effect::Status { status: 500, retry_after: None };
    for path in ["/repos/acme/aaa/branches", "/app/hook/deliveries"] {
        let path = path.to_owned();
        rig.github.faults().add(Rule { method: None, path, from: 1, count: None, effect: broken.clone() });
    }
    lose(&rig, "");
    let sha = rig.push("main", &[("a", Some("1"))], "lost").await;
    rig.github.change_repositories(at, &[], &[more[1]]).expect("removed");
    let told = rig.control.about("sweep", "").await.expect_err("not all could be seen").to_string();
    let why = "the branches of acme/aaa: GitHub: GitHub answered 500 to GET /api/v3/repos/acme/aaa/branches";
    assert!(told.contains(why) && told.contains("the App's deliveries: "), "{told}");
    stands(&rig, &sha, "switchover", "success").await;
    let state = async |repo| books.repo(RepoId(repo)).await.expect("readable").expect("known").state;
    let states = (state(rig.repo).await, state(more[0]).await, state(more[1]).await);
    assert_eq!(states, (RepoState::Active, RepoState::Active, RepoState::Removed));
    // Suspended unseen, and back.
    rig.github.suspend(at, true).expect("suspended");
    let _ = rig.control.about("sweep", "").await;
    assert_eq!((state(rig.repo).await, state(more[1]).await), (RepoState::Suspended, RepoState::Removed));
    rig.github.suspend(at, false).expect("back");
    let _ = rig.control.about("sweep", "").await;
    assert_eq!(state(rig.repo).await, RepoState::Active);
    // Uninstalled unseen.
    rig.github.uninstall(at).expect("uninstalled");
    let _ = rig.control.about("sweep", "").await;
    assert_eq!((state(rig.repo).await, state(more[0]).await), (RepoState::Removed, RepoState::Removed));
    books.close().await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_end_it_does_not_wait_for_github() {
    let mut rig = begun(CONFIG).await;
    rig.kill().await;
    let path = "/app/hook/deliveries".to_owned();
    rig.github.faults().add(Rule { method: None, path, from: 1, count: None, effect: Effect::Hang });
    let before = rig.github.requests("GET", "/app/hook/deliveries");
    rig.serve(None).await;
    rig.wait("the sweep to hang", |m| {
        let asked = m.log.iter().filter(|e| e.path.contains("/app/hook/deliveries")).count();
        (asked > before).then_some(())
    })
    .await;
    rig.terminate();
    assert!(rig.ended(Duration::from_secs(15)).await, "{}", rig.log());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_request_that_comes_back_unseen_is_found() {
    let (rig, gate, _folder) = gated().await;
    std::fs::remove_file(&gate).expect("removed");
    let sha = rig.push("change", &[("a", Some("1"))], "one").await;
    let number = rig.github.open_pull(rig.repo, ANN, pull("change")).await.expect("opened");
    let test = "web / test (pull_request)";
    stands(&rig, &sha, test, "in_progress").await;
    lose(&rig, "");
    for _ in 0..2 {
        rig.github.close_pull(rig.repo, number, ANN).expect("closed");
        rig.control.about("sweep", "").await.expect("swept");
        stands(&rig, &sha, test, "cancelled").await;
        rig.github.reopen_pull(rig.repo, number, ANN).await.expect("reopened");
        rig.control.about("sweep", "").await.expect("swept");
        stands(&rig, &sha, test, "in_progress").await;
    }
    std::fs::write(&gate, "").expect("written");
    stands(&rig, &sha, "switchover", "success").await;
    rig.stop().await;
}

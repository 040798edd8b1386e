//! What the store lets begin in an environment, whatever the order of hold, queue and claim.

use switchover::{
    clock,
    domain::ids::{RepoId, RolloutId, Sha},
    store::{NewRollout, Store},
};

fn rollout(kind: &str, state: &str) -> NewRollout {
    NewRollout {
        id: RolloutId(uuid::Uuid::now_v7()),
        repo: RepoId(7),
        environment: "production".into(),
        kind: kind.into(),
        sha: Sha::new("1".repeat(40)).expect("a commit"),
        run: None,
        state: state.into(),
        message: None,
        desired: "{}".into(),
        progress: "{}".into(),
        detail: "{}".into(),
        actor: "ann".into(),
    }
}

#[tokio::test]
async fn a_release_never_begins_in_a_held_environment() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("store.db")).await.expect("a store");
    let now = clock::now();
    let (back, release) = (rollout("rollback", "queued"), rollout("release", "gated"));
    store.put_rollout(&back, now).await.expect("written");
    let gone = store.put_rollout(&release, now).await.expect("written");
    assert!(gone.is_empty(), "a release takes no rollback's place");
    store.gate_rollout(release.id, "queued", None, now).await.expect("let through");
    let hold = Some(("because", "ann"));
    store.hold(RepoId(7), "production", hold, now).await.expect("held");
    let words = "production is held by ann: because. `switchover resume production` lets it go on.";
    let stands = async || {
        let row = store.rollout(release.id).await.expect("readable").expect("there");
        (row.state, row.message)
    };
    assert_eq!(stands().await, ("gated".into(), Some(words.into())));
    // Its gates were looked at before the hold, and what was seen is written after it.
    store.gate_rollout(release.id, "queued", None, now).await.expect("let through");
    assert!(store.claim_rollout(release.id, now).await.expect("asked").is_none());
    assert_eq!(stands().await, ("gated".into(), Some(words.into())));
    let claimed = store.claim_rollout(back.id, now).await.expect("asked").expect("a rollback begins");
    store.end_rollout(back.id, claimed.epoch, "live", "", None, None, None, now).await.expect("ended");
    store.hold(RepoId(7), "production", None, now).await.expect("resumed");
    store.gate_rollout(release.id, "queued", None, now).await.expect("let through");
    assert!(store.claim_rollout(release.id, now).await.expect("asked").is_some());
}

//! Which jobs are begun next, and what is known of their beginning: the queue itself.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use switchover::{
    domain::{
        ids::{DeliveryId, JobId, RepoId, RunId, Sha, StepId},
        planned::{NewJob, NewRun, NewStep},
        run::{Context, JobSpec, RunDetail, Trigger},
    },
    store::{NewDelivery, Planned, Store},
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
}

/// A run of so many jobs, of two steps each.
fn run(repo: i64, priority: i64, jobs: usize, delivery: Option<&DeliveryId>) -> NewRun {
    let commit = Sha::new("a".repeat(40)).expect("a commit");
    let spec = JobSpec {
        path: String::new(),
        commit: commit.clone(),
        container: None,
        cache: Vec::new(),
        secrets: Vec::new(),
        trigger: Trigger::Branch,
        steps: Vec::new(),
        release: None,
    };
    let step = |name: &str| NewStep { id: StepId::generate(), name: name.into(), tree_key: "t".into(), reused: None };
    let job = || NewJob {
        id: JobId::generate(),
        app: "web".into(),
        priority,
        spec: spec.clone(),
        steps: vec![step("test"), step("build")],
        digest: None,
    };
    let id = RunId::generate();
    NewRun {
        id,
        repo: RepoId(repo),
        key: id.to_string(),
        context: Context::Push,
        lane: "main".into(),
        pull: None,
        head: commit.clone(),
        test: commit.clone(),
        base: None,
        attempt: 1,
        outcome: None,
        superseded_by: None,
        delivery: delivery.cloned(),
        detail: RunDetail::default(),
        jobs: (0..jobs).map(|_| job()).collect(),
    }
}

async fn put(store: &Store, run: NewRun, now: Timestamp) {
    let repo = run.repo;
    store.plan(repo, Planned { runs: &[run], ..Planned::default() }, now).await.expect("written");
}

#[tokio::test]
async fn free_places_are_shared_between_repositories() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("test.db")).await.expect("a store");
    let (many, few) = (run(1, 1, 10, None), run(2, 1, 2, None));
    let mut repos: BTreeMap<JobId, i64> = many.jobs.iter().map(|j| (j.id, 1)).collect();
    repos.extend(few.jobs.iter().map(|j| (j.id, 2)));
    put(&store, many, at(1)).await;
    put(&store, few, at(2)).await;
    let due = async |repos: &BTreeMap<JobId, i64>, limit| {
        let due = store.due_jobs(at(10), limit).await.expect("readable");
        due.iter().map(|id| repos[id]).collect::<Vec<_>>()
    };
    assert_eq!(due(&repos, 5).await, [1, 2, 1, 2, 1], "in turn, as long as both wait");
    let release = run(1, 0, 1, None);
    repos.extend(release.jobs.iter().map(|j| (j.id, 1)));
    put(&store, release, at(3)).await;
    assert_eq!(due(&repos, 3).await, [1, 2, 1], "a release is first");
    for id in store.due_jobs(at(10), 1).await.expect("readable") {
        store.claim_job(id, "me", at(100), at(10)).await.expect("written").expect("claimed");
    }
    assert_eq!(due(&repos, 3).await, [2, 1, 2], "what runs counts");
}

#[tokio::test]
async fn the_first_step_of_a_run_knows_its_delivery() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("test.db")).await.expect("a store");
    let guid = DeliveryId::new("d-1").expect("an id");
    let delivery = NewDelivery {
        guid: guid.clone(),
        event: "push".into(),
        action: None,
        repo_id: Some(1),
        installation_id: None,
        received_at: at(1),
        body: b"{}".to_vec(),
    };
    store.receive(delivery).await.expect("stored");
    let set_off = run(1, 1, 1, Some(&guid));
    let by_itself = run(1, 1, 1, None);
    let steps = |run: &NewRun| run.jobs[0].steps.iter().map(|s| s.id).collect::<Vec<_>>();
    let cases = [(steps(&set_off), set_off.jobs[0].id, Some(at(1))), (steps(&by_itself), by_itself.jobs[0].id, None)];
    put(&store, set_off, at(2)).await;
    put(&store, by_itself, at(2)).await;
    for (steps, id, came) in cases {
        let job = store.claim_job(id, "me", at(100), at(3)).await.expect("written").expect("claimed");
        assert_eq!(store.begin_step(&job, steps[0], "log", at(4)).await.expect("written"), came);
        assert_eq!(store.begin_step(&job, steps[1], "log", at(5)).await.expect("written"), None, "not the first");
        // After a crash it begins anew.
        store.hand_back_job(&job, at(6), at(6)).await.expect("written");
        let again = store.claim_job(id, "me", at(100), at(7)).await.expect("written").expect("claimed");
        assert_eq!(store.begin_step(&again, steps[0], "log", at(8)).await.expect("written"), None, "not the first");
    }
}

//! The merge queue: who gets in, what is tested, what becomes of it.

use serde_json::{Value, json};
use switchover::demo::github::NewPull;

use super::support::{Api, Received, World};

/// A pull request that changes one file, from a branch of that name. With a required check it is green already.
async fn pull(w: &World, api: &Api, name: &str) -> (i64, String) {
    let head = w.standin.commit(w.repo, name, &[(name, Some("1\n"))], name, "bob").await.unwrap();
    let new = NewPull { title: name.into(), head: name.into(), ..NewPull::default() };
    let number = w.standin.open_pull(w.repo, "bob", new).await.unwrap();
    checked(api, &head, "success").await;
    (number, head)
}

async fn checked(api: &Api, sha: &str, conclusion: &str) {
    let check = json!({"name": "switchover", "head_sha": sha, "conclusion": conclusion});
    api.post("/repos/acme/shop/check-runs", check).await.good();
}

async fn world() -> (World, Api) {
    let w = World::start().await;
    let api = w.token(None).await;
    w.standin.require_checks(w.repo, "main", &["switchover"]).unwrap();
    (w, api)
}

async fn group(w: &World, action: &str, sha: &str) -> Value {
    let fits = |r: &Received| {
        r.event == "merge_group" && r.body["action"] == action && r.body["merge_group"]["head_sha"] == json!(sha)
    };
    w.hooks.wait(&format!("merge_group.{action} of {sha}"), fits).await.body
}

async fn dequeued(w: &World, number: i64) -> Value {
    let fits = |r: &Received| r.body["action"] == "dequeued" && r.body["number"] == json!(number);
    w.hooks.wait(&format!("dequeued {number}"), fits).await.body["reason"].clone()
}

async fn main_of(api: &Api) -> Value {
    api.get("/repos/acme/shop/git/ref/heads/main").await.good()["object"]["sha"].clone()
}

#[tokio::test]
async fn a_green_group_is_merged() {
    let (w, api) = world().await;
    let (number, head) = pull(&w, &api, "q").await;
    let sha = w.standin.enqueue(w.repo, number, "bob").await.unwrap().unwrap();
    assert_eq!(w.hooks.event("pull_request", "enqueued").await.body["number"], json!(number));
    let asked = group(&w, "checks_requested", &sha).await["merge_group"].clone();
    assert_eq!((&asked["base_ref"], &asked["base_sha"]), (&json!("refs/heads/main"), &json!(w.head)));
    let head_ref = format!("refs/heads/gh-readonly-queue/main/pr-{number}-{}", w.head);
    assert_eq!(asked["head_ref"], json!(head_ref));
    let commit = api.get(&format!("/repos/acme/shop/commits/{sha}")).await.good();
    let parents: Vec<&Value> = commit["parents"].as_array().unwrap().iter().map(|p| &p["sha"]).collect();
    assert_eq!(parents, [&json!(w.head), &json!(head)], "a merge into the base as it is");
    assert!(w.standin.enqueue(w.repo, number, "bob").await.is_err(), "once");
    // Still running: nothing happens. Another check's end neither.
    for more in [json!({"name": "switchover", "status": "in_progress"}), json!({"name": "x", "conclusion": "failure"})]
    {
        let mut check = more;
        check["head_sha"] = json!(sha);
        api.post("/repos/acme/shop/check-runs", check).await.good();
    }
    assert_eq!(main_of(&api).await, json!(w.head));
    checked(&api, &sha, "success").await;
    assert_eq!(main_of(&api).await, json!(sha), "the very commit that was tested");
    assert_eq!(group(&w, "destroyed", &sha).await["reason"], "merged");
    assert_eq!(dequeued(&w, number).await, "MERGE");
    let closed = w.hooks.event("pull_request", "closed").await;
    assert_eq!(closed.body["pull_request"]["merge_commit_sha"], json!(sha));
    assert_eq!(api.get("/repos/acme/shop/git/matching-refs/heads/gh-readonly").await.good(), json!([]));
    let activity = api.get("/repos/acme/shop/activity?ref=main").await.good();
    assert_eq!(activity[0]["activity_type"], "merge_queue_merge");
    w.stop().await;
}

#[tokio::test]
async fn a_red_group_leaves_and_the_next_has_its_turn() {
    let (w, api) = world().await;
    let (first, _) = pull(&w, &api, "a").await;
    let (second, _) = pull(&w, &api, "b").await;
    let red = w.standin.enqueue(w.repo, first, "bob").await.unwrap().unwrap();
    assert_eq!(w.standin.enqueue(w.repo, second, "ann").await.unwrap(), None, "others are ahead");
    checked(&api, &red, "failure").await;
    assert_eq!(group(&w, "destroyed", &red).await["reason"], "dequeued");
    assert_eq!(dequeued(&w, first).await, "CI_FAILURE");
    let next = w.standin.pull(w.repo, second).unwrap().queued.unwrap().group.unwrap();
    assert_eq!(next.base, w.head, "without what failed");
    checked(&api, &next.sha, "neutral").await;
    assert_eq!(main_of(&api).await, json!(next.sha));
    assert!(w.standin.pull(w.repo, first).unwrap().open);
    w.stop().await;
}

#[tokio::test]
async fn a_group_that_is_behind_is_made_anew() {
    let (w, api) = world().await;
    let (number, _) = pull(&w, &api, "a").await;
    let old = w.standin.enqueue(w.repo, number, "bob").await.unwrap().unwrap();
    let moved = w.standin.commit(w.repo, "main", &[("m", Some("1"))], "straight in", "ann").await.unwrap();
    checked(&api, &old, "success").await;
    assert_eq!(group(&w, "destroyed", &old).await["reason"], "invalidated");
    assert_eq!(main_of(&api).await, json!(moved), "what was not tested is not merged");
    let new = w.standin.pull(w.repo, number).unwrap().queued.unwrap().group.unwrap();
    assert_eq!(new.base, moved);
    checked(&api, &new.sha, "success").await;
    assert_eq!(main_of(&api).await, json!(new.sha));
    w.stop().await;
}

#[tokio::test]
async fn who_gets_in_and_out() {
    let (w, api) = world().await;
    let (number, head) = pull(&w, &api, "a").await;
    checked(&api, &head, "failure").await;
    let why = w.standin.enqueue(w.repo, number, "bob").await.unwrap_err().to_string();
    assert_eq!(why, "Required status check \"switchover\" is expected.");
    assert!(w.standin.leave_queue(w.repo, number, "bob").await.is_err(), "it is not in");
    checked(&api, &head, "success").await;
    let sha = w.standin.enqueue(w.repo, number, "bob").await.unwrap().unwrap();
    w.standin.leave_queue(w.repo, number, "bob").await.unwrap();
    assert_eq!(group(&w, "destroyed", &sha).await["reason"], "dequeued");
    assert_eq!(dequeued(&w, number).await, "MANUAL");
    // A push takes it out as soon as the group is looked at again.
    let sha = w.standin.enqueue(w.repo, number, "bob").await.unwrap().unwrap();
    w.standin.commit(w.repo, "a", &[("a", Some("2\n"))], "more", "bob").await.unwrap();
    checked(&api, &sha, "success").await;
    assert_eq!(main_of(&api).await, json!(w.head));
    assert!(w.standin.pull(w.repo, number).unwrap().queued.is_none());
    // Where nothing is required, nothing is waited for.
    w.standin.require_checks(w.repo, "main", &[]).unwrap();
    assert_eq!(w.standin.enqueue(w.repo, number, "bob").await.unwrap(), None);
    assert!(w.standin.pull(w.repo, number).unwrap().merged.is_some());
    // Conflicts.
    let (late, _) = pull(&w, &api, "late").await;
    w.standin.commit(w.repo, "main", &[("late", Some("other\n"))], "other", "ann").await.unwrap();
    assert_eq!(w.standin.enqueue(w.repo, late, "bob").await.unwrap(), None);
    assert_eq!(dequeued(&w, late).await, "MERGE_CONFLICT");
    w.stop().await;
}

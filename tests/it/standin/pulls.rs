//! Pull requests: mergeability, merges, and the events around them.

use serde_json::{Value, json};
use switchover::demo::github::{
    NewPull,
    model::{Mergeable, ReviewState},
};

use super::support::{Api, LIMIT, World};

async fn branch(w: &World, name: &str, path: &str, text: &str) -> String {
    w.standin.commit(w.repo, name, &[(path, Some(text))], &format!("Change {path}"), "bob").await.unwrap()
}

async fn open(w: &World, head: &str) -> i64 {
    let new =
        NewPull { title: format!("Pull {head}"), body: "Because".into(), head: head.into(), ..NewPull::default() };
    w.standin.open_pull(w.repo, "bob", new).await.unwrap()
}

/// Asks until GitHub has looked, as clients must.
async fn mergeable(w: &World, api: &Api, number: i64) -> Value {
    let path = format!("/repos/acme/shop/pulls/{number}");
    let first = api.get(&path).await.good();
    assert!(first["mergeable"].is_null(), "null at first: {}", first["mergeable"]);
    let known = |m: &switchover::demo::github::model::Model| {
        (m.repos[&w.repo].pulls[&number].mergeable != Mergeable::Unknown).then_some(())
    };
    w.standin.wait_for("mergeability", LIMIT, known).await.unwrap();
    api.get(&path).await.good()
}

#[tokio::test]
async fn mergeable_is_null_then_known() {
    let w = World::start().await;
    let api = w.token(None).await;
    let head = branch(&w, "good", "new.txt", "n\n").await;
    branch(&w, "bad", "app/main.txt", "theirs\n").await;
    let (good, bad) = (open(&w, "good").await, open(&w, "bad").await);
    let opened = w.hooks.event("pull_request", "opened").await;
    assert!(opened.body["pull_request"]["mergeable"].is_null());
    branch(&w, "main", "app/main.txt", "ours\n").await;
    let shown = mergeable(&w, &api, good).await;
    insta::assert_json_snapshot!(
        json!({
            "mergeable": shown["mergeable"], "mergeable_state": shown["mergeable_state"], "state": shown["state"],
            "commits": shown["commits"], "changed_files": shown["changed_files"], "additions": shown["additions"],
            "label": shown["head"]["label"], "base": shown["base"]["ref"], "user": shown["user"]["login"],
            "draft": shown["draft"], "merged": shown["merged"],
        }), @r#"
    {
      "mergeable": true,
      "mergeable_state": "clean",
      "state": "open",
      "commits": 1,
      "changed_files": 1,
      "additions": 1,
      "label": "acme:good",
      "base": "main",
      "user": "bob",
      "draft": false,
      "merged": false
    }
    "#);
    assert_eq!(shown["head"]["sha"], json!(head));
    assert_eq!(mergeable(&w, &api, bad).await["mergeable"], false);
    // The test merge is there to be fetched.
    let merge = shown["merge_commit_sha"].as_str().unwrap();
    let url = w.standin.push_url("bob", "acme", "shop").unwrap();
    let refs = super::support::git(w.folder.path(), &["ls-remote", url.as_str(), "refs/pull/*"]).await.unwrap();
    assert!(refs.contains(&format!("{merge}\trefs/pull/{good}/merge")), "{refs}");
    assert!(refs.contains(&format!("{head}\trefs/pull/{good}/head")), "{refs}");
    let files = api.get(&format!("/repos/acme/shop/pulls/{good}/files")).await.good();
    assert_eq!((&files[0]["filename"], &files[0]["status"]), (&json!("new.txt"), &json!("added")));
    let commits = api.get(&format!("/repos/acme/shop/pulls/{good}/commits")).await.good();
    assert_eq!(commits[0]["sha"], json!(head));
    let of_commit = api.get(&format!("/repos/acme/shop/commits/{head}/pulls")).await.good();
    assert_eq!(of_commit[0]["number"], json!(good));
    for (query, count) in
        [("", 2), ("?state=closed", 0), ("?head=acme:good", 1), ("?base=other", 0), ("?per_page=1", 1)]
    {
        let list = api.get(&format!("/repos/acme/shop/pulls{query}")).await.good();
        assert_eq!(list.as_array().unwrap().len(), count, "{query}");
    }
    // That the base moved was not told.
    assert!(!w.hooks.names().contains(&"pull_request.synchronize".to_owned()));
    w.stop().await;
}

#[tokio::test]
async fn a_pull_request_needs_a_title_and_something_to_pull() {
    let w = World::start().await;
    branch(&w, "old", "old.txt", "1\n").await;
    branch(&w, "new", "new.txt", "1\n").await;
    // All of `old` is in main, which went on.
    let number = open(&w, "old").await;
    w.standin.merge_pull(w.repo, number, "ann").await.unwrap();
    let fork = w.standin.fork(w.repo, "eve").await.unwrap();
    for (title, head, head_repo, said) in [
        (" ", "new", None, "Validation Failed: title can't be blank"),
        ("Again", "old", None, "No commits between main and old"),
        ("Again", "old", Some(fork), "No commits between main and old"),
        ("Nothing", "main", None, "No commits between main and main"),
    ] {
        let new = NewPull { title: title.into(), head: head.into(), head_repo, ..NewPull::default() };
        assert_eq!(w.standin.open_pull(w.repo, "bob", new).await.unwrap_err().to_string(), said);
    }
    open(&w, "new").await;
    w.stop().await;
}

#[tokio::test]
async fn a_merge_is_a_real_one() {
    let w = World::start().await;
    let api = w.token(None).await;
    let head = branch(&w, "good", "new.txt", "n\n").await;
    let number = open(&w, "good").await;
    w.standin.require_checks(w.repo, "main", &["switchover"]).unwrap();
    let blocked = w.standin.merge_pull(w.repo, number, "ann").await.unwrap_err();
    assert_eq!(blocked.to_string(), "Required status check \"switchover\" is expected.");
    let check = json!({"name": "switchover", "head_sha": head, "conclusion": "failure"});
    let run = api.post("/repos/acme/shop/check-runs", check).await.good();
    assert!(w.standin.merge_pull(w.repo, number, "ann").await.is_err());
    // Neutral and skipped satisfy a required check.
    api.patch(&format!("/repos/acme/shop/check-runs/{}", run["id"]), json!({"conclusion": "neutral"})).await.good();
    let merged = w.standin.merge_pull(w.repo, number, "ann").await.unwrap();
    let closed = w.hooks.event("pull_request", "closed").await;
    assert_eq!(closed.body["pull_request"]["merged"], true);
    assert_eq!(closed.body["pull_request"]["merge_commit_sha"], json!(merged));
    assert_eq!(closed.body["pull_request"]["merged_by"]["login"], "ann");
    let push = w.hooks.wait("push of the merge", |r| r.event == "push" && r.body["after"] == json!(merged)).await;
    assert_eq!(push.body["commits"].as_array().unwrap().len(), 2);
    let commit = api.get(&format!("/repos/acme/shop/commits/{merged}")).await.good();
    let parents: Vec<&Value> = commit["parents"].as_array().unwrap().iter().map(|p| &p["sha"]).collect();
    assert_eq!(parents, [&json!(w.head), &json!(head)]);
    let activity = api.get("/repos/acme/shop/activity?ref=main&activity_type=pr_merge").await.good();
    assert_eq!(activity[0]["after"], json!(merged));
    assert!(w.standin.merge_pull(w.repo, number, "ann").await.is_err(), "once");
    w.stop().await;
}

#[tokio::test]
async fn pull_requests_follow_their_branches() {
    let w = World::start().await;
    branch(&w, "a", "a.txt", "1\n").await;
    branch(&w, "b", "b.txt", "1\n").await;
    let (a, b) = (open(&w, "a").await, open(&w, "b").await);
    let new = NewPull { title: "again".into(), head: "a".into(), ..NewPull::default() };
    assert!(w.standin.open_pull(w.repo, "bob", new).await.is_err(), "the same is open already");
    // A push that contains the head merges it.
    let tip = branch(&w, "a", "a.txt", "2\n").await;
    w.hooks.event("pull_request", "synchronize").await;
    w.standin.move_branch(w.repo, "main", &tip, "ann").await.unwrap();
    let merged = w.hooks.event("pull_request", "closed").await;
    assert_eq!((&merged.body["number"], &merged.body["pull_request"]["merged"]), (&json!(a), &json!(true)));
    // Another base, a draft no more, a new title.
    w.standin.commit(w.repo, "release", &[("r", Some("r"))], "r", "ann").await.unwrap();
    w.standin.change_base(w.repo, b, "release", "bob").await.unwrap();
    let edited = w.hooks.event("pull_request", "edited").await;
    assert_eq!(edited.body["changes"]["base"]["ref"]["from"], "main");
    w.standin.ready_for_review(w.repo, b, "bob").unwrap();
    w.hooks.event("pull_request", "ready_for_review").await;
    w.standin.retitle(w.repo, b, "Better", "bob").unwrap();
    // Deleting the branch closes it; it cannot come back without.
    w.standin.move_branch(w.repo, "b", "", "bob").await.unwrap();
    let gone = |r: &super::support::Received| r.body["action"] == "closed" && r.body["number"] == json!(b);
    assert_eq!(w.hooks.wait("closed b", gone).await.body["pull_request"]["merged"], false);
    assert!(w.standin.reopen_pull(w.repo, b, "bob").await.is_err());
    branch(&w, "b", "b.txt", "3\n").await;
    w.standin.reopen_pull(w.repo, b, "bob").await.unwrap();
    w.hooks.event("pull_request", "reopened").await;
    w.standin.close_pull(w.repo, b, "bob").unwrap();
    w.stop().await;
}

#[tokio::test]
async fn reviews_name_their_commit() {
    let w = World::start().await;
    let api = w.token(None).await;
    let head = branch(&w, "r", "r.txt", "1\n").await;
    let number = open(&w, "r").await;
    w.standin.review(w.repo, number, "ann", ReviewState::Approved, "/deploy staging").unwrap();
    assert!(w.standin.review(w.repo, number, "bob", ReviewState::Approved, "me").is_err());
    let told = w.hooks.event("pull_request_review", "submitted").await;
    assert_eq!((&told.body["review"]["state"], &told.body["review"]["commit_id"]), (&json!("approved"), &json!(head)));
    let list = api.get(&format!("/repos/acme/shop/pulls/{number}/reviews")).await.good();
    assert_eq!((&list[0]["state"], &list[0]["user"]["login"]), (&json!("APPROVED"), &json!("ann")));
    w.stop().await;
}

//! Clone and push with a real git client, and the webhooks that follow.

use std::fs;

use serde_json::json;
use switchover::demo::github::{NewPull, model::Role};

use super::support::{World, git};

fn write(world: &World, path: &str, text: &str) {
    fs::write(world.folder.path().join(path), text).unwrap();
}

#[tokio::test]
async fn a_push_is_told_as_github_tells_it() {
    let w = World::start().await;
    w.clone_as("bob", "work").await;
    write(&w, "work/app/main.txt", "one\n2\n");
    write(&w, "work/new ü.txt", "x\n");
    w.git("work", &["add", "-A"]).await.unwrap();
    w.git("work", &["commit", "-qm", "Change two\n\nand add one"]).await.unwrap();
    w.git("work", &["push", "-q"]).await.unwrap();
    let after = w.git("work", &["rev-parse", "HEAD"]).await.unwrap();
    let push = w.hooks.event("push", "").await;
    assert!(push.signed);
    let b = &push.body;
    assert_eq!(b["before"], json!(w.head));
    assert_eq!(b["after"], json!(after));
    assert_eq!(b["installation"]["id"], json!(w.installation));
    assert_eq!(b["repository"]["id"], json!(w.repo));
    assert!(b["repository"]["pushed_at"].is_i64(), "times are numbers in push payloads");
    insta::assert_json_snapshot!(
        json!({
            "ref": b["ref"], "created": b["created"], "deleted": b["deleted"], "forced": b["forced"],
            "pusher": b["pusher"], "sender": b["sender"]["login"], "organization": b["organization"]["login"],
            "full_name": b["repository"]["full_name"], "private": b["repository"]["private"],
            "default_branch": b["repository"]["default_branch"], "archived": b["repository"]["archived"],
            "commits": b["commits"].as_array().unwrap().len(),
            "head": {
                "message": b["head_commit"]["message"], "added": b["head_commit"]["added"],
                "modified": b["head_commit"]["modified"], "author": b["head_commit"]["author"]["username"],
            },
        }), @r#"
    {
      "ref": "refs/heads/main",
      "created": false,
      "deleted": false,
      "forced": false,
      "pusher": {
        "name": "bob",
        "email": "bob@users.noreply.github.com"
      },
      "sender": "bob",
      "organization": "acme",
      "full_name": "acme/shop",
      "private": true,
      "default_branch": "main",
      "archived": false,
      "commits": 1,
      "head": {
        "message": "Change two\n\nand add one",
        "added": [
          "new ü.txt"
        ],
        "modified": [
          "app/main.txt"
        ],
        "author": "ann"
      }
    }
    "#);
    let clone = b["repository"]["clone_url"].as_str().unwrap();
    assert_eq!(clone, w.standin.clone_url("acme", "shop").as_str());
    let suite = w.hooks.event("check_suite", "requested").await;
    assert_eq!(suite.body["check_suite"]["head_sha"], json!(after));
    assert_eq!(suite.body["check_suite"]["head_branch"], "main");
    w.stop().await;
}

#[tokio::test]
async fn refs_are_made_forced_and_deleted() {
    let w = World::start().await;
    w.clone_as("bob", "work").await;
    w.git("work", &["checkout", "-qb", "feature/ü#1"]).await.unwrap();
    w.git("work", &["commit", "-q", "--allow-empty", "-m", "one"]).await.unwrap();
    w.git("work", &["push", "-q", "origin", "HEAD"]).await.unwrap();
    w.git("work", &["commit", "-q", "--amend", "--allow-empty", "-m", "two"]).await.unwrap();
    w.git("work", &["push", "-q", "--force", "origin", "HEAD"]).await.unwrap();
    w.git("work", &["push", "-q", "origin", ":feature/ü#1"]).await.unwrap();
    let fits = |r: &super::support::Received| r.event == "push" && r.body["deleted"] == true;
    let gone = w.hooks.wait("deletion", fits).await;
    assert_eq!(gone.body["after"], json!("0".repeat(40)));
    assert!(gone.body["head_commit"].is_null());
    let api = w.token(None).await;
    let seen = api.get("/repos/acme/shop/activity?ref=feature/%C3%BC%231").await.good();
    let kinds: Vec<&str> = seen.as_array().unwrap().iter().map(|a| a["activity_type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["branch_deletion", "force_push", "branch_creation"]);
    w.stop().await;
}

#[tokio::test]
async fn more_than_three_tags_in_one_push_are_silent() {
    let w = World::start().await;
    w.clone_as("bob", "work").await;
    for tag in ["a", "b", "c", "d"] {
        w.git("work", &["tag", tag]).await.unwrap();
    }
    w.git("work", &["push", "-q", "--tags"]).await.unwrap();
    w.git("work", &["tag", "v1"]).await.unwrap();
    w.git("work", &["push", "-q", "origin", "v1"]).await.unwrap();
    let push = w.hooks.event("push", "").await;
    assert_eq!(push.body["ref"], "refs/tags/v1");
    let sent = w.standin.read(|m| m.deliveries.values().filter(|d| d.event == "push").count());
    assert_eq!(sent, 1);
    let refs = w.token(None).await.get("/repos/acme/shop/git/matching-refs/tags/").await.good();
    assert_eq!(refs.as_array().unwrap().len(), 5);
    w.stop().await;
}

#[tokio::test]
async fn who_may_clone_and_push() {
    let w = World::start().await;
    let public = w.standin.create_repository("ann", "open", "main", false).await.unwrap();
    w.standin.commit(public, "main", &[("a", Some("a"))], "a", "ann").await.unwrap();
    let s = &w.standin;
    let reading = w.token(Some(json!({"contents": "read"}))).await;
    let reading = reading.auth.unwrap().replace("Bearer ", "");
    let blind = w.token(Some(json!({"checks": "write"}))).await.auth.unwrap().replace("Bearer ", "");
    let with = |user: &str, password: &str| {
        let mut url = s.clone_url("acme", "shop");
        url.set_username(user).unwrap();
        url.set_password(Some(password)).unwrap();
        url
    };
    let dir = w.folder.path();
    let clones = [
        (s.clone_url("ann", "open"), true),
        (s.clone_url("acme", "shop"), false),
        (s.push_url("bob", "acme", "shop").unwrap(), true),
        (s.push_url("eve", "acme", "shop").unwrap(), false),
        (with("bob", "wrong"), false),
        (with("eve", s.push_url("bob", "acme", "shop").unwrap().password().unwrap()), false),
        (with("x-access-token", &reading), true),
        (with("x-access-token", &blind), false),
        (s.push_url("bob", "acme", "nothing").unwrap(), false),
    ];
    for (i, (url, ok)) in clones.iter().enumerate() {
        let out = git(dir, &["clone", "-q", url.as_str(), &format!("c{i}")]).await;
        assert_eq!(out.is_ok(), *ok, "{i} {url}: {out:?}");
    }
    w.standin.permission(w.repo, "eve", Role::Read, None).unwrap();
    let pushes = [
        (s.push_url("eve", "acme", "shop").unwrap(), false),
        (with("x-access-token", &reading), false),
        (s.push_url("bob", "acme", "shop").unwrap(), true),
    ];
    for (i, (url, ok)) in pushes.iter().enumerate() {
        let refspec = format!("HEAD:refs/heads/b{i}");
        let out = w.git("c2", &["push", "-q", url.as_str(), &refspec]).await;
        assert_eq!(out.is_ok(), *ok, "{i}: {out:?}");
    }
    let hidden = w.git("c2", &["push", "-q", "origin", "HEAD:refs/pull/1/head"]).await;
    assert!(hidden.unwrap_err().contains("hidden ref"));
    w.standin.archive(w.repo, true, "ann").unwrap();
    let archived = w.git("c2", &["push", "-q", "origin", "HEAD:refs/heads/late"]).await;
    assert!(archived.is_err(), "archived repositories take no push");
    w.stop().await;
}

#[tokio::test]
async fn a_fork_pushes_into_its_pull_request() {
    let w = World::start().await;
    let fork = w.standin.fork(w.repo, "eve").await.unwrap();
    let first = w.standin.commit(fork, "fix", &[("fix.txt", Some("1\n"))], "Fix", "eve").await.unwrap();
    let new = NewPull { title: "Fix".into(), head: "fix".into(), head_repo: Some(fork), ..NewPull::default() };
    let number = w.standin.open_pull(w.repo, "eve", new).await.unwrap();
    let opened = w.hooks.event("pull_request", "opened").await;
    assert_eq!(opened.body["pull_request"]["head"]["repo"]["id"], json!(fork));
    assert_eq!(opened.body["pull_request"]["head"]["label"], "eve:fix");
    let url = w.standin.push_url("eve", "eve", "shop").unwrap();
    git(w.folder.path(), &["clone", "-q", "-b", "fix", url.as_str(), "fork"]).await.unwrap();
    w.git("fork", &["commit", "-q", "--allow-empty", "-m", "more"]).await.unwrap();
    w.git("fork", &["push", "-q"]).await.unwrap();
    let moved = w.hooks.event("pull_request", "synchronize").await;
    assert_eq!(moved.body["before"], json!(first));
    let second = moved.body["after"].as_str().unwrap().to_owned();
    // The base repository has the commit, as GitHub's network of forks has.
    let api = w.token(None).await;
    assert_eq!(api.get(&format!("/repos/acme/shop/commits/{second}")).await.good()["sha"], json!(second));
    // The App is not installed on the fork: no push event, and no pull requests on its checks.
    assert!(!w.hooks.names().contains(&"push".to_owned()));
    let check = api.post("/repos/acme/shop/check-runs", json!({"name": "t", "head_sha": second})).await.good();
    assert_eq!(check["pull_requests"], json!([]));
    w.standin.delete_repository(fork, "eve").unwrap();
    let closed = w.hooks.event("pull_request", "closed").await;
    assert!(closed.body["pull_request"]["head"]["repo"].is_null(), "a deleted fork leaves null");
    assert_eq!(closed.body["number"], json!(number));
    w.stop().await;
}

#[tokio::test]
async fn a_large_push_and_a_shallow_fetch_pass() {
    let w = World::start().await;
    w.clone_as("bob", "work").await;
    // Larger than git's buffer for a request with a length: it comes in chunks, compressed.
    let noise: String = (0..400_000u64).map(|n| format!("{:x}\n", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    write(&w, "work/noise.txt", &noise);
    w.git("work", &["add", "-A"]).await.unwrap();
    w.git("work", &["commit", "-qm", "noise"]).await.unwrap();
    w.git("work", &["push", "-q"]).await.unwrap();
    let sha = w.git("work", &["rev-parse", "HEAD"]).await.unwrap();
    git(w.folder.path(), &["init", "-q", "shallow"]).await.unwrap();
    let url = w.standin.push_url("bob", "acme", "shop").unwrap();
    w.git("shallow", &["fetch", "-q", "--depth=1", "--filter=blob:none", url.as_str(), &w.head]).await.unwrap();
    w.git("shallow", &["fetch", "-q", "--depth=1", url.as_str(), &sha]).await.unwrap();
    assert_eq!(w.git("shallow", &["rev-parse", "FETCH_HEAD"]).await.unwrap(), sha);
    w.stop().await;
}

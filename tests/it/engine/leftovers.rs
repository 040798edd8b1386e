//! What is left behind, and when it goes: slots, caches.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use super::{
    rig::{PATIENCE, Rig, released_config},
    stories::begun,
};

/// Waits for something here.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE / 5;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn slots(rig: &Rig) -> BTreeSet<String> {
    let status = rig.control.status().await.expect("a status");
    let live = status[0].live.clone().expect("readable");
    live.apps.values().flat_map(|app| app.slots.keys().map(ToString::to_string)).collect()
}

/// However often is released, and however long the way back is kept: there is one.
#[tokio::test(flavor = "multi_thread")]
async fn releases_in_a_row_leave_the_live_slot_and_one_way_back() {
    let rig = begun(&released_config()).await;
    let mut last = Vec::new();
    for version in ["one", "two", "three"] {
        let sha = rig.push("main", &[("version", Some(version))], version).await;
        rig.deployed(&sha, "success").await;
        last.push(reqwest::get(rig.address().await).await.expect("answered").text().await.expect("text"));
    }
    assert_eq!(last, ["one", "two", "three"]);
    until("older slots stay", async || slots(&rig).await.len() == 2).await;
    rig.control.command(&super::rig::rollback()).await.expect("rolled back");
    until("the way back is gone", async || {
        reqwest::get(rig.address().await).await.expect("answered").text().await.expect("text") == "two"
    })
    .await;
    rig.stop().await;
}

/// What runs on the way to staging does not write what production's steps read.
#[tokio::test(flavor = "multi_thread")]
async fn each_environments_branch_has_its_own_caches() {
    let step = "if grep -qsx main line && test -e store/develop; then exit 1; fi; \
                if grep -qsx develop line && ! test -e store/main; then exit 2; fi; \
                touch store/$(cat line || echo none)";
    let config =
        released_config().replace("test ! -e broken", step).replace("    files:", "    cache: [store]\n    files:")
            + "  staging:\n    deploy: {branch: develop}\n    watch_for: 1s\n";
    let rig = begun(&config).await;
    let main = rig.push("main", &[("line", Some("main\n")), ("version", Some("one"))], "main").await;
    rig.deployed(&main, "success").await;
    let develop = rig.push("develop", &[("line", Some("develop\n")), ("version", Some("two"))], "develop").await;
    assert_eq!(rig.conclusion(&develop, "switchover").await, "success", "its caches begin as the default branch's");
    let main = rig.push("main", &[("version", Some("three"))], "main again").await;
    assert_eq!(rig.conclusion(&main, "switchover").await, "success", "it read what develop wrote");
    rig.stop().await;
}

/// `cache_disk` is kept: what is unused goes when there is more.
#[tokio::test(flavor = "multi_thread")]
async fn caches_are_kept_within_their_budget() {
    let config = "version: 1\napps:\n  web:\n    cache: [store]\n    steps:\n      test: {run: \"head -c 20000000 /dev/zero >store/file\"}\n";
    let mut rig = begun(config).await;
    rig.kill().await;
    let mut folders = vec![rig.data.join("caches")];
    for _ in 0..4 {
        let below = |f: &PathBuf| fs::read_dir(f).expect("there").map(|e| e.expect("read").path()).collect::<Vec<_>>();
        folders = folders.iter().flat_map(below).collect();
    }
    let [cache] = &folders[..] else { panic!("{folders:?}") };
    let file = cache.join("store/file");
    assert_eq!(fs::metadata(&file).expect("there").len(), 20_000_000);
    let lock = fs::File::options().write(true).open(cache.join("lock")).expect("a lock");
    lock.set_modified(SystemTime::from(switchover::clock::now()) - Duration::from_secs(2 * 3600)).expect("set");
    rig.serve(None).await;
    until("the cache stays", async || !file.exists()).await;
    rig.stop().await;
}

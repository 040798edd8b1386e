//! What people do: pull requests, forks, merges, re-runs, rollbacks.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use switchover::{
    demo::github::{
        NewPull,
        model::{Model, Role},
    },
    engine::commands::{Command, Verb},
};

use super::rig::{ANN, NAME, OWNER, PATIENCE, Rig, released_config};

const CONFIG: &str = "version: 1\napps:\n  web:\n    steps:\n      test: {run: \"test ! -e broken\"}\n";

pub(super) async fn begun(config: &str) -> Rig {
    let rig = Rig::start().await;
    let files = [(".github/switchover.yml", Some(config)), ("file", Some("one\n")), ("version", Some("zero"))];
    let sha = rig.push("main", &files, "begin").await;
    assert_eq!(rig.conclusion(&sha, "switchover").await, "success");
    rig
}

pub(super) fn pull(head: &str) -> NewPull {
    NewPull { title: format!("Take {head}"), head: head.into(), ..NewPull::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_request_from_failure_to_success() {
    let rig = begun(CONFIG).await;
    let bad = rig.push("change", &[("broken", Some("x"))], "break it").await;
    rig.github.open_pull(rig.repo, ANN, pull("change")).await.expect("opened");
    assert_eq!(rig.conclusion(&bad, "web / test (pull_request)").await, "failure");
    assert_eq!(rig.conclusion(&bad, "switchover").await, "failure");
    let good = rig.push("change", &[("broken", None)], "mend it").await;
    assert_eq!(rig.conclusion(&good, "switchover").await, "success");
    // The merge has the tree of main again: proven, not run again.
    let check = rig.check(&good, "web / test (pull_request)").await;
    assert_eq!(check.conclusion.as_deref(), Some("success"));
    let metrics = rig.metrics().await;
    let counted = metrics.lines().find_map(|l| l.strip_prefix("switchover_first_step_seconds_count "));
    assert!(counted.is_some_and(|n| n.parse::<u64>().expect("a number") > 0), "{metrics}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_said_plainly() {
    let rig = begun(CONFIG).await;
    let sha = rig.push("change", &[("file", Some("theirs\n"))], "change").await;
    rig.push("main", &[("file", Some("ours\n"))], "change too").await;
    rig.github.open_pull(rig.repo, ANN, pull("change")).await.expect("opened");
    let check = rig.check(&sha, "switchover").await;
    assert_ne!(check.conclusion.as_deref(), Some("success"));
    let said = format!("{:?} {:?}", check.output.title, check.output.summary);
    assert!(said.contains("file") && said.to_lowercase().contains("conflict"), "{said}");
    rig.stop().await;
}

/// Somebody presses "Approve and run" on the commit's check; what came of it.
async fn approve(rig: &Rig, sha: &str, login: &str) -> String {
    let clicks = |m: &Model| -> Vec<String> {
        let all = m.deliveries.values().filter(|d| d.action.as_deref() == Some("requested_action"));
        all.map(|d| d.guid.clone()).collect()
    };
    let check = rig.check(sha, "switchover").await;
    let before = rig.github.read(clicks);
    rig.github.press(rig.repo, check.id, "ok-to-test", login).expect("a button");
    let click = rig.wait("the click", |m| clicks(m).into_iter().find(|c| !before.contains(c))).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = rig.control.about("explain", &click).await.unwrap_or_default();
        if text.contains("state: done") {
            return text;
        }
        assert!(Instant::now() < deadline, "{text}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_never_runs_on_the_servers_own_host() {
    let rig = begun(CONFIG).await;
    rig.github.create_user("eve").expect("made");
    let fork = rig.github.fork(rig.repo, "eve").await.expect("forked");
    let sha = rig.github.commit(fork, "mine", &[("evil", Some("x"))], "mine", "eve").await.expect("pushed");
    let new = NewPull { head_repo: Some(fork), ..pull("mine") };
    rig.github.open_pull(rig.repo, "eve", new).await.expect("opened");
    let check = rig.check(&sha, "switchover").await;
    assert_eq!(check.conclusion.as_deref(), Some("action_required"));
    assert!(check.actions.is_empty(), "{:?}", check.actions);
    let said = check.output.summary.unwrap_or_default();
    assert!(said.contains("It comes from a fork, and this server runs steps on its own host"), "{said}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_is_parked_until_somebody_looked_at_it() {
    const TEST: &str = "web / test (pull_request)";
    const BOT: &str = "dependabot[bot]";
    let rig = begun(CONFIG).await;
    rig.github.create_user(BOT).expect("made");
    rig.github.permission(rig.repo, BOT, Role::Write, None).expect("granted");
    rig.github.permission(rig.repo, "bob", Role::Read, None).expect("granted");
    let first = rig.github.commit(rig.repo, "mine", &[("evil", Some("x"))], "mine", BOT).await.expect("pushed");
    rig.github.open_pull(rig.repo, BOT, pull("mine")).await.expect("opened");
    let check = rig.check(&first, "switchover").await;
    assert_eq!(check.conclusion.as_deref(), Some("action_required"));
    let said = check.output.summary.clone().unwrap_or_default();
    for words in ["This was opened by the bot ", "; once approved it runs", &first, "press **Approve and run**"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // Whoever may only read approves nothing.
    let answer = approve(&rig, &first, "bob").await;
    assert!(answer.contains("bob may not write to acme/shop"), "{answer}");
    // A click on what is not the head any more was for something else.
    let second = rig.github.commit(rig.repo, "mine", &[("evil", Some("y"))], "again", BOT).await.expect("pushed");
    assert_eq!(rig.conclusion(&second, "switchover").await, "action_required");
    let answer = approve(&rig, &first, ANN).await;
    assert!(answer.contains(&format!("stands at {} now", &second[..7])), "{answer}");
    let tests = |m: &Model, sha: &str| {
        let repo = m.repo(OWNER, NAME).expect("there");
        repo.checks.values().filter(|c| c.head_sha == sha && c.name == TEST && c.status == "completed").count()
    };
    assert_eq!(rig.github.read(|m| tests(m, &first) + tests(m, &second)), 0, "nothing of a stranger runs");
    approve(&rig, &second, ANN).await;
    rig.wait("a green check", |m| {
        let checks = m.repo(OWNER, NAME)?.latest_checks(&second);
        let green = checks.into_iter().find(|c| c.name == "switchover")?.conclusion.as_deref() == Some("success");
        green.then_some(())
    })
    .await;
    let check = rig.check(&second, TEST).await;
    let said = check.output.summary.unwrap_or_default();
    assert!(said.contains(&format!("it runs because `{}` was approved", &second[..7])), "{said}");
    // The same commit again needs no second look.
    rig.github.rerequest_check(rig.repo, check.id, ANN).expect("pressed");
    rig.wait("a second test", |m| (tests(m, &second) == 2).then_some(())).await;
    assert_eq!(rig.github.read(|m| tests(m, &first)), 0);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_pull_request_is_told_alike_everywhere() {
    let rig = begun(CONFIG).await;
    let config = "version: 1\napps:\n  web:\n    steps:\n      test: {run: \"exit 1\"}\n  slow:\n    steps:\n      \
                  test: {run: \"sleep 600\"}\n";
    let sha = rig.push("change", &[(".github/switchover.yml", Some(config))], "break it").await;
    let number = rig.github.open_pull(rig.repo, ANN, pull("change")).await.expect("opened");
    assert_eq!(rig.conclusion(&sha, "web / test (pull_request)").await, "failure");
    rig.github.close_pull(rig.repo, number, ANN).expect("closed");
    let check = rig.check(&sha, "switchover").await;
    assert_eq!(check.conclusion.as_deref(), Some("failure"));
    let url = check.details_url.expect("a link");
    let text = async |url: &str| reqwest::get(url).await.expect("answered").text().await.expect("text");
    let (run, root) = (text(&url).await, &url[..url.find("/runs/").expect("a run's page")]);
    let head = run.find("id=\"run-state\"").map(|at| &run[at..at + 150]).unwrap_or_default();
    assert!(head.contains("failed") && !head.contains("cancelled"), "{head}");
    let overview = text(root).await;
    let lately = overview.find("overview-runs").map(|at| &overview[at..at + 500]).unwrap_or_default();
    assert!(lately.contains("failed") && !lately.contains("cancelled"), "{lately}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_is_a_new_check_run() {
    let rig = begun(CONFIG).await;
    let sha = rig.push("main", &[("file", Some("two\n"))], "two").await;
    let check = rig.check(&sha, "web / test (push)").await;
    rig.github.rerequest_check(rig.repo, check.id, ANN).expect("pressed");
    rig.ran(&sha, &check.name, 2).await;
    assert_eq!(rig.conclusion(&sha, "switchover").await, "success");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_holds_until_resumed() {
    let rig = begun(&released_config()).await;
    let command =
        |verb| Command { verb, repository: None, environment: None, sha: None, to: None, actor: "test".into() };
    let one = rig.push("main", &[("version", Some("one"))], "one").await;
    rig.deployed(&one, "success").await;
    let two = rig.push("main", &[("version", Some("two"))], "two").await;
    rig.deployed(&two, "success").await;
    rig.control.command(&command(Verb::Rollback)).await.expect("rolled back");
    rig.wait("a new deployment of the old commit", |m| {
        let repo = m.repo(OWNER, NAME)?;
        let newest = repo.deployments.values().next_back()?;
        (newest.sha == one && newest.state() == "success").then_some(())
    })
    .await;
    rig.deployed(&two, "inactive").await;
    let text = async || reqwest::get(rig.address().await).await.expect("answered").text().await.expect("text");
    assert_eq!(text().await, "one");
    // Held: the next push is tested, and waits.
    let three = rig.push("main", &[("version", Some("three"))], "three").await;
    assert_eq!(rig.conclusion(&three, "switchover").await, "success");
    rig.wait("the held release to be shown", |m| {
        let checks = m.repo(OWNER, NAME)?.latest_checks(&three);
        checks.into_iter().any(|c| c.name == "deploy (production)").then_some(())
    })
    .await;
    assert_eq!(text().await, "one");
    rig.control.command(&command(Verb::Resume)).await.expect("resumed");
    rig.deployed(&three, "success").await;
    assert_eq!(text().await, "three");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_rollback_goes_one_further_back() {
    let rig = begun(&released_config()).await;
    let rollback = Command {
        verb: Verb::Rollback,
        repository: None,
        environment: None,
        sha: None,
        to: None,
        actor: "test".into(),
    };
    let mut shas = Vec::new();
    for version in ["one", "two", "three"] {
        let sha = rig.push("main", &[("version", Some(version))], version).await;
        rig.deployed(&sha, "success").await;
        shas.push(sha);
    }
    for (back_to, text) in [(1, "two"), (0, "one")] {
        rig.control.command(&rollback).await.expect("rolled back");
        rig.wait("a new deployment of the older commit", |m| {
            let newest = m.repo(OWNER, NAME)?.deployments.values().next_back()?;
            (newest.sha == shas[back_to] && newest.state() == "success").then_some(())
        })
        .await;
        let answer = reqwest::get(rig.address().await).await.expect("answered").text().await.expect("text");
        assert_eq!(answer, text);
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_goes_and_what_is_needed_stays() {
    let mut rig = begun(&released_config()).await;
    for version in ["one", "two"] {
        let sha = rig.push("main", &[("version", Some(version))], version).await;
        rig.deployed(&sha, "success").await;
    }
    rig.kill().await;
    let listed = |folder: &str| -> BTreeSet<PathBuf> {
        let entries = std::fs::read_dir(rig.data.join(folder)).into_iter().flatten();
        entries.map(|e| e.expect("an entry").path()).collect()
    };
    let needed: BTreeSet<PathBuf> = ["releases", "logs", "rollouts"].into_iter().flat_map(&listed).collect();
    assert!(needed.len() > 4, "{needed:?}");
    let stranger = uuid::Uuid::now_v7().to_string();
    let old = [format!("releases/{}", "ab".repeat(32)), format!("logs/{stranger}"), format!("rollouts/{stranger}")];
    let old = old.map(|path| rig.data.join(path));
    for folder in &old {
        std::fs::create_dir_all(folder).expect("made");
    }
    // All of it is two months old: what stays, stays because it is needed.
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(60 * 86_400);
    for path in needed.iter().chain(&old) {
        std::fs::File::open(path).and_then(|f| f.set_modified(then)).expect("set");
    }
    rig.serve(None).await;
    let deadline = std::time::Instant::now() + super::rig::PATIENCE;
    while old.iter().any(|path| path.exists()) {
        assert!(std::time::Instant::now() < deadline, "{old:?} are still there: {}", rig.log());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let gone: Vec<_> = needed.iter().filter(|path| !path.exists()).collect();
    assert!(gone.is_empty(), "{gone:?}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uninstalled_app_stops_its_work() {
    let rig = Rig::start().await;
    let config = "version: 1\napps:\n  web:\n    steps:\n      test: {run: \"sleep 600\"}\n";
    let sha = rig.push("main", &[(".github/switchover.yml", Some(config))], "long").await;
    rig.wait("the step to run", |m| {
        let checks = m.repo(OWNER, NAME)?.latest_checks(&sha);
        checks.into_iter().any(|c| c.name == "web / test (push)" && c.status == "in_progress").then_some(())
    })
    .await;
    let installation = rig.github.read(|m| m.installations.keys().next().copied()).expect("installed");
    rig.github.uninstall(installation).expect("uninstalled");
    let deadline = std::time::Instant::now() + super::rig::PATIENCE;
    loop {
        let text = rig.control.about("explain", &sha).await.expect("explained");
        if text.contains("cancelled") {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{text}");
    }
    rig.stop().await;
}

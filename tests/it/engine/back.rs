//! Ways back, and what waits or comes meanwhile: a hold holds, a button is bound to its release, a warm slot is used.

use std::time::{Duration, Instant};

use switchover::{
    demo::github::{HookEffect, HookFault, faults::Release},
    engine::commands::{Command, Status, Verb},
};

use super::{
    rig::{ANN, NAME, OWNER, PATIENCE, Rig, released_config},
    stories::begun,
};

const FILE: &str = ".github/switchover.yml";

fn order(verb: Verb) -> Command {
    Command { verb, repository: None, environment: None, sha: None, to: None, actor: "test".into() }
}

/// Asks again until there is an answer; `what` is said when there never is.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what} never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A commit whose only news is the version.
async fn version(rig: &Rig, version: &str) -> String {
    rig.push("main", &[("version", Some(version))], version).await
}

async fn released(rig: &Rig, name: &str) -> String {
    let sha = version(rig, name).await;
    rig.deployed(&sha, "success").await;
    sha
}

/// Waits until the newest deployment is this commit's, and successful, and the `nth` of it.
async fn back_on(rig: &Rig, sha: &str, nth: usize) {
    rig.wait(&format!("deployment {nth} of {}", &sha[..7]), |m| {
        let repo = m.repo(OWNER, NAME)?;
        let newest = repo.deployments.values().next_back()?;
        let all = repo.deployments.values().filter(|d| d.sha == sha).count();
        (newest.sha == sha && newest.state() == "success" && all == nth).then_some(())
    })
    .await;
}

async fn text(rig: &Rig) -> String {
    reqwest::get(rig.address().await).await.expect("answered").text().await.expect("text")
}

async fn status(rig: &Rig) -> Status {
    rig.control.status().await.expect("a status").remove(0)
}

async fn refused(rig: &Rig, order: &Command) -> String {
    rig.control.command(order).await.expect_err("refused").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_in_the_watch_holds_what_is_queued_behind_it() {
    let rig = begun(&released_config()).await;
    let one = released(&rig, "one").await;
    let watched = released_config().replace("watch_for: 1s", "watch_for: 10m");
    let two = rig.push("main", &[(FILE, Some(&watched)), ("version", Some("two"))], "two").await;
    let back_to = until("the watch", async || {
        let status = status(&rig).await;
        let watch = status.rollout.is_some_and(|(sha, phase, _)| sha.as_str() == two && phase == "watch");
        watch.then_some(status.back_to)
    })
    .await;
    assert_eq!(back_to.expect("a way back").as_str(), one, "what a rollback takes now");
    let three = version(&rig, "three").await;
    let explain = async || rig.control.about("explain", &three).await.unwrap_or_default();
    until("the queue", async || explain().await.contains("to production: queued").then_some(())).await;
    rig.control.command(&order(Verb::Rollback)).await.expect("taken back");
    let waits = until("its end", async || {
        let text = explain().await;
        (!text.contains("to production: queued")).then_some(text)
    })
    .await;
    assert!(waits.contains("to production: gated. production is held by"), "{waits}");
    rig.wait("its check to say so", |m| {
        let checks = m.repo(OWNER, NAME)?.latest_checks(&three);
        let title = checks.into_iter().find(|c| c.name == "deploy (production)")?.output.title.clone()?;
        title.contains("is held by").then_some(())
    })
    .await;
    assert_eq!(text(&rig).await, "one");
    rig.control.command(&order(Verb::Resume)).await.expect("resumed");
    until("the next release", async || (text(&rig).await == "three").then_some(())).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_button_is_bound_to_its_release() {
    let rig = begun(&released_config()).await;
    released(&rig, "one").await;
    let two = released(&rig, "two").await;
    let check = rig
        .wait("the button", |m| {
            let checks = m.repo(OWNER, NAME)?.latest_checks(&two);
            let check = checks.into_iter().find(|c| c.name == "deploy (production)")?;
            (!check.actions.is_empty()).then_some(check.id)
        })
        .await;
    // Pressed while it served; the click comes when it does not any more.
    let held = HookFault { event: "check_run".into(), from: 1, count: None, effect: HookEffect::Hold };
    rig.github.faults().add_hook(held);
    rig.github.press(rig.repo, check, "rollback", ANN).expect("pressed");
    let three = released(&rig, "three").await;
    rig.wait("the button to go", |m| {
        let check = m.repo(OWNER, NAME)?.checks.get(&check)?;
        check.actions.is_empty().then_some(())
    })
    .await;
    rig.github.faults().clear();
    rig.github.release_held(Release::Forward);
    let click = rig
        .wait("the click", |m| {
            let mut all = m.deliveries.values();
            all.find(|d| d.action.as_deref() == Some("requested_action")).map(|d| d.guid.clone())
        })
        .await;
    let told = until("what came of it", async || {
        let text = rig.control.about("explain", &click).await.unwrap_or_default();
        text.contains("state: done").then_some(text)
    })
    .await;
    let words = format!("this release of {} does not serve production any more", &two[..7]);
    assert!(told.contains(&words) && told.contains(&three[..7]), "{told}");
    let status = status(&rig).await;
    assert_eq!((status.sha.expect("live").as_str(), status.held), (three.as_str(), None));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_commit_is_released_where_that_is_meant() {
    let rig = begun(&released_config()).await;
    let one = released(&rig, "one").await;
    released(&rig, "two").await;
    rig.github.move_branch(rig.repo, "main", &one, ANN).await.expect("forced back");
    back_on(&rig, &one, 2).await;
    assert_eq!(text(&rig).await, "one");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_back_keeps_nothing_from_being_built_anew() {
    let rig = begun(&released_config()).await;
    let one = released(&rig, "one").await;
    released(&rig, "two").await;
    rig.control.command(&order(Verb::Rollback)).await.expect("rolled back");
    back_on(&rig, &one, 2).await;
    rig.control.command(&order(Verb::Resume)).await.expect("resumed");
    rig.control.command(&order(Verb::Rebuild)).await.expect("rebuilt");
    back_on(&rig, &one, 3).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_gone_back_to_is_good_again() {
    let rig = begun(&released_config()).await;
    let one = released(&rig, "one").await;
    let two = released(&rig, "two").await;
    rig.control.command(&order(Verb::Rollback)).await.expect("rolled back");
    back_on(&rig, &one, 2).await;
    let few = refused(&rig, &Command { to: Some("123".into()), ..order(Verb::Rollback) }).await;
    assert!(few.contains("at least the first seven digits"), "{few}");
    let to = Command { to: Some(two[..7].into()), ..order(Verb::Rollback) };
    rig.control.command(&to).await.expect("gone to");
    back_on(&rig, &two, 2).await;
    rig.control.command(&order(Verb::Resume)).await.expect("resumed");
    released(&rig, "three").await;
    assert_eq!(status(&rig).await.back_to.expect("a way back").as_str(), two);
    rig.control.command(&order(Verb::Rollback)).await.expect("rolled back");
    back_on(&rig, &two, 3).await;
    assert_eq!(text(&rig).await, "two");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pressed_twice_is_pressed_once() {
    // Nothing stays warm, so the way back takes its time.
    let config = released_config().replace("keep_previous: 10m", "keep_previous: 0s");
    let rig = begun(&config.replace("min_ready: 100ms", "min_ready: 3s")).await;
    let one = released(&rig, "one").await;
    let two = released(&rig, "two").await;
    until("the old slot to go", async || {
        let live = status(&rig).await.live?;
        live.apps.values().all(|a| a.slots.len() == 1).then_some(())
    })
    .await;
    rig.control.command(&order(Verb::Rollback)).await.expect("rolled back");
    let again = rig.control.command(&order(Verb::Rollback)).await.expect("the same");
    assert_eq!(again, format!("production is on its way back to {} already", &one[..7]));
    let promoted = refused(&rig, &order(Verb::Promote)).await;
    assert!(promoted.contains("nothing waits for you"), "{promoted}");
    let bound = Command { sha: Some(one.parse().expect("a commit")), ..order(Verb::Rollback) };
    let other = refused(&rig, &bound).await;
    assert!(other.contains("does not serve production") && other.contains(&two[..7]), "{other}");
    back_on(&rig, &one, 2).await;
    rig.stop().await;
}

/// Two apps that change one at a time.
fn two_apps(apps: &[&str]) -> String {
    let one = released_config();
    let (_, environments) = one.split_once("environments:").expect("there");
    let mut text = "version: 1\napps:\n".to_owned();
    for app in apps {
        let build = format!("cp {} app && cp {app}.txt app.version", super::rig::app());
        text += &format!("  {app}:\n    steps: {{build: {{run: \"{build}\"}}}}\n    files: [app, app.version]\n");
        text += "    start: ./app\n    health: /health\n";
    }
    format!("{text}environments:{environments}")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_apps_warm_slot_is_gone_back_to() {
    let rig = Rig::start().await;
    let push = async |files: &[(&str, Option<&str>)], message: &str| {
        let sha = rig.push("main", files, message).await;
        rig.deployed(&sha, "success").await;
        sha
    };
    let config = two_apps(&["web", "api"]);
    let one = push(&[(FILE, Some(&config)), ("web.txt", Some("1")), ("api.txt", Some("1"))], "both").await;
    let two = push(&[("api.txt", Some("2"))], "api").await;
    push(&[("web.txt", Some("2"))], "web").await;
    rig.control.command(&order(Verb::Rollback)).await.expect("rolled back");
    back_on(&rig, &two, 2).await;
    let summary = rig
        .wait("what is said of it", |m| {
            let checks = m.repo(OWNER, NAME)?.checks.values();
            let title = format!("{} is back", &two[..7]);
            checks
                .rev()
                .find(|c| c.output.title.as_ref().is_some_and(|t| t.starts_with(&title)))?
                .output
                .summary
                .clone()
        })
        .await;
    assert!(!summary.contains("No longer warm"), "{summary}");
    let live = status(&rig).await.live.expect("readable");
    let web = live.apps.iter().find(|(name, _)| name.as_str() == "web").and_then(|(_, app)| app.active.clone());
    assert!(web.as_ref().is_some_and(|s| s.as_str().starts_with(&one[..7])), "{web:?}");
    // What is taken out runs on, and that is said.
    rig.control.command(&order(Verb::Resume)).await.expect("resumed");
    let less = push(&[(FILE, Some(&two_apps(&["web"])))], "no api").await;
    let check = rig.check(&less, "deploy (production)").await;
    let summary = check.output.summary.unwrap_or_default();
    assert!(summary.contains("api is no part of this release and runs on"), "{summary}");
    let left: Vec<_> = status(&rig).await.left_over.iter().map(|a| a.to_string()).collect();
    assert_eq!(left, ["api"]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_release_to_an_environment_may_be_a_promotion() {
    let one = released_config();
    let (apps, rules) = one.split_once("environments:\n  production:\n    deploy: {branch: main}\n").expect("there");
    let both = format!(
        "{apps}environments:\n  staging:\n    deploy: {{branch: main}}\n{rules}  production:\n    deploy: {{promote_from: \
         staging}}\n{rules}"
    );
    let rig = begun(&both).await;
    let sha = released(&rig, "one").await;
    let unknown = Command { environment: Some("moon".into()), ..order(Verb::Promote) };
    let known = refused(&rig, &unknown).await;
    assert!(known.contains("staging of acme/shop") && known.contains("production of acme/shop"), "{known}");
    let promote = Command { environment: Some("production".into()), ..order(Verb::Promote) };
    let said = rig.control.command(&promote).await.expect("promoted");
    assert!(said.contains("from staging to production"), "{said}");
    back_on(&rig, &sha, 2).await;
    let all = rig.control.status().await.expect("a status");
    let slot = |name: &str| {
        let status = all.iter().find(|s| s.environment == name)?;
        status.live.as_ref()?.apps.values().next()?.active.clone()
    };
    // Its name tells what was built and how it is configured.
    assert!(slot("production").is_some() && slot("production") == slot("staging"), "{all:?}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_access_nothing_is_switched_any_more() {
    let config = released_config().replace("    min_ready", "    approval: required\n    min_ready");
    let rig = Rig::start().await;
    let sha = rig.push("main", &[(FILE, Some(&config)), ("version", Some("one"))], "one").await;
    until("the wait for a person", async || {
        let waits = rig.control.status().await.ok()?.pop()?.rollout?;
        (waits.1 == "wait").then_some(())
    })
    .await;
    let installation = rig.github.read(|m| m.installations.keys().next().copied()).expect("installed");
    rig.github.suspend(installation, true).expect("suspended");
    let told = until("its end", async || {
        let text = rig.control.about("explain", &sha).await.unwrap_or_default();
        text.contains("to production: cancelled").then_some(text)
    })
    .await;
    assert!(told.contains("no access to the repository any more, so the release was stopped"), "{told}");
    rig.stop().await;
}

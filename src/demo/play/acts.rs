//! The play, act by act. Each act says what must hold and is told whether it did.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{
    Act, CheckSeen, DemoError, DeploymentSeen, Outcome, Requests, phases,
    sample::Change,
    watch::{check, deployed, short},
    world::{ANN, NAME, OWNER, Stage, World},
};
use crate::{
    clock,
    demo::github::{NewPull, model::Model},
    engine::commands::Verb,
};

/// How a release can end.
const ENDS: [&str; 3] = ["success", "failure", "error"];

/// The sample's play.
///
/// # Errors
/// When the stage breaks.
pub async fn all(world: &mut World) -> Result<Outcome, DemoError> {
    let mut outcome = Outcome::default();
    let act = timed("first release", first_release(world, &mut outcome)).await;
    outcome.acts.push(act?);
    let stage = world.stage.clone();
    let stage = stage.as_ref();
    world.begin_load(stage.sample.rate).await?;
    let pull = timed("pull request, failing test", failing_pull(stage)).await?;
    outcome.acts.push(pull);
    outcome.acts.push(timed("its fix", mended_pull(stage)).await?);
    if let Some(draft) = stage.sample.draft {
        outcome.acts.push(timed("develop", develop(stage, &draft())).await?);
    }
    let act = timed("second release under requests", second_release(stage, &mut outcome)).await;
    outcome.acts.push(act?);
    if stage.sample.is_in_containers() {
        let act = timed("one line, straight to main", warm_release(stage, &mut outcome)).await;
        outcome.acts.push(act?);
    }
    outcome.switch_ms = stage.counter.snapshot().switch_ms;
    outcome.acts.push(timed("bad release, taken back", bad_release(stage)).await?);
    if !stage.sample.is_in_containers() {
        outcome.acts.push(timed("server killed in a release", killed(stage)).await?);
    }
    let (act, ms) = rollback(stage).await?;
    outcome.acts.push(act);
    outcome.rollback_ms = ms;
    finish(stage, &mut outcome);
    Ok(outcome)
}

/// Milliseconds since then.
pub fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

async fn timed(name: &str, act: impl Future<Output = Result<(bool, String), DemoError>>) -> Result<Act, DemoError> {
    let started = Instant::now();
    let (held, words) = act.await?;
    Ok(Act { name: name.to_owned(), held, words, ms: millis(started) })
}

/// Adds what there is to see at the end.
pub fn finish(stage: &Stage, outcome: &mut Outcome) {
    let (sent, failed) = stage.counter.totals();
    outcome.requests = Requests { sent, failed };
    let events = stage.counter.snapshot().events;
    outcome.failures = events
        .iter()
        .filter(|e| e.tone == "failure")
        .map(|e| format!("{} {} (×{})", e.at.strftime("%H:%M:%S%.3f"), e.text, e.times))
        .collect();
    outcome.messages = stage.messages.load(Ordering::Relaxed);
    stage.github.read(|m| {
        let Some(repo) = m.repo(OWNER, NAME) else { return };
        outcome.checks = repo
            .checks
            .values()
            .map(|c| CheckSeen { name: c.name.clone(), sha: c.head_sha.clone(), conclusion: c.conclusion.clone() })
            .collect();
        outcome.deployments = repo
            .deployments
            .values()
            .map(|d| DeploymentSeen {
                environment: d.environment.clone(),
                sha: d.sha.clone(),
                state: d.state().to_owned(),
            })
            .collect();
    });
}

async fn push(stage: &Stage, branch: &str, change: &Change) -> Result<String, DemoError> {
    let sha = stage.push(branch, change).await?;
    stage.say(&format!("pushed {} to {branch}: {}", short(&sha), change.message));
    Ok(sha)
}

async fn first_release(world: &World, outcome: &mut Outcome) -> Result<(bool, String), DemoError> {
    let stage = &world.stage;
    let files: Vec<(&str, Option<&str>)> = (stage.sample.files)().into_iter().map(|(p, t)| (p, Some(t))).collect();
    let pushed = clock::now();
    let sha = stage.github.commit(stage.repo, "main", &files, "Open the shop", ANN).await?;
    stage.say(&format!("pushed {} to main: {}", short(&sha), stage.sample.holds));
    let conclusion = check(stage, &sha, "switchover").await?;
    stage.say(&format!("tests of both apps: {conclusion}"));
    let mut stored = true;
    if let (Some(containers), "success") = (&stage.containers, conclusion.as_str()) {
        for app in stage.sample.images {
            stored &= containers.has_image(NAME, app, &sha).await?;
        }
        let words = if stored { "both images are in" } else { "an image is missing in" };
        stage.say(&format!("{words} {}", containers.place()));
    }
    if conclusion != "success" {
        return Ok((false, format!("switchover: {conclusion} on {}", short(&sha))));
    }
    let state = deployed(stage, &sha, &ENDS).await?;
    stage.say(&format!("first release: {state}"));
    outcome.phases.insert("1 first, cold", phases::of(stage, &sha, pushed).await?);
    let made = if stage.containers.is_some() { "tested, built, pushed, live" } else { "tested, built, live" };
    Ok((stored && state == "success", format!("{made}: {}", short(&sha))))
}

async fn failing_pull(stage: &Stage) -> Result<(bool, String), DemoError> {
    let sha = push(stage, "discount", &(stage.sample.wrong)()).await?;
    let new = NewPull { title: "A rounder discount".into(), head: "discount".into(), ..NewPull::default() };
    let number = stage.github.open_pull(stage.repo, ANN, new).await?;
    let test = check(stage, &sha, "backend / test (pull_request)").await?;
    let all = check(stage, &sha, "switchover").await?;
    let lines = stage.github.read(|m| {
        let repo = m.repo(OWNER, NAME)?;
        let check = repo.latest_checks(&sha).into_iter().find(|c| c.name == "backend / test (pull_request)")?;
        let first = check.output.annotations.first()?;
        Some((check.output.annotations.len(), format!("{}:{}", first.path, first.start_line)))
    });
    let (n, place) = lines.unwrap_or((0, "no line".into()));
    stage.say(&format!("pull request {number}: {test}, {n} annotation at {place}"));
    let held = test == "failure" && all == "failure" && n > 0 && place == stage.sample.place;
    Ok((held, format!("{n} failed test shown at {place}")))
}

async fn mended_pull(stage: &Stage) -> Result<(bool, String), DemoError> {
    let sha = push(stage, "discount", &(stage.sample.right)()).await?;
    let all = check(stage, &sha, "switchover").await?;
    stage.say(&format!("mended: {all}"));
    Ok((all == "success", "all checks green".into()))
}

async fn develop(stage: &Stage, draft: &Change) -> Result<(bool, String), DemoError> {
    let sha = push(stage, "develop", draft).await?;
    let all = check(stage, &sha, "switchover").await?;
    let (reused, deployed) = stage.github.read(|m| {
        let Some(repo) = m.repo(OWNER, NAME) else { return (false, true) };
        let deployed = repo.deployments.values().any(|d| d.sha == sha);
        let backend = repo.latest_checks(&sha).into_iter().find(|c| c.name == "backend / test (push)");
        (
            backend.is_some_and(|c| {
                c.output.title.as_deref().unwrap_or("").contains("reused")
                    || c.output.summary.as_deref().unwrap_or("").contains("nothing of it changed")
                    || c.conclusion.as_deref() == Some("success")
            }),
            deployed,
        )
    });
    stage.say(&format!("develop: {all}, nothing released"));
    Ok((all == "success" && reused && !deployed, "tested, not released".into()))
}

/// Waits for the release of a commit; tells how it ended and how many requests there were meanwhile.
async fn under_requests(stage: &Stage, sha: &str, sent: u64) -> Result<(bool, String), DemoError> {
    let state = deployed(stage, sha, &ENDS).await?;
    let (now, failed) = stage.counter.totals();
    stage.say(&format!("released {} under {} requests, {failed} failed", short(sha), now - sent));
    Ok((state == "success" && failed == 0, format!("{} requests, {failed} failed", now - sent)))
}

async fn second_release(stage: &Stage, outcome: &mut Outcome) -> Result<(bool, String), DemoError> {
    let pull = stage.github.read(|m| m.repo(OWNER, NAME).and_then(|r| r.pulls.keys().next_back().copied()));
    let Some(pull) = pull else { return Err(DemoError::Other("the pull request is gone".into())) };
    let ((sent, _), pushed) = (stage.counter.totals(), clock::now());
    let sha = stage.github.merge_pull(stage.repo, pull, ANN).await?;
    stage.say(&format!("merged pull request {pull} as {}", short(&sha)));
    let seen = under_requests(stage, &sha, sent).await?;
    outcome.phases.insert("2 merged", phases::of(stage, &sha, pushed).await?);
    Ok(seen)
}

async fn warm_release(stage: &Stage, outcome: &mut Outcome) -> Result<(bool, String), DemoError> {
    let ((sent, _), pushed) = (stage.counter.totals(), clock::now());
    let sha = push(stage, "main", &(stage.sample.greeting)("Welcome to the best shop")).await?;
    let seen = under_requests(stage, &sha, sent).await?;
    outcome.phases.insert("3 one line, warm", phases::of(stage, &sha, pushed).await?);
    Ok(seen)
}

async fn bad_release(stage: &Stage) -> Result<(bool, String), DemoError> {
    let before = live(stage).await?;
    let sha = push(stage, "main", &(stage.sample.unwell)("Welcome to the shop!")).await?;
    let state = deployed(stage, &sha, &ENDS).await?;
    let after = live(stage).await?;
    let (_, failed) = stage.counter.totals();
    stage.say(&format!("the watch took {} back: {state}; {failed} requests failed", short(&sha)));
    let held = state == "failure" && before.is_some() && before == after && failed == 0;
    Ok((held, format!("{} was live, was unwell, was taken back", short(&sha))))
}

async fn live(stage: &Stage) -> Result<Option<String>, DemoError> {
    Ok(stage.status().await?.first().and_then(|s| s.sha.as_ref().map(ToString::to_string)))
}

async fn killed(stage: &Stage) -> Result<(bool, String), DemoError> {
    let sha = push(stage, "main", &(stage.sample.greeting)("Welcome to the best shop")).await?;
    // As soon as the release shows on GitHub the server is gone, and back.
    deployed(stage, &sha, &["queued", "pending", "in_progress", "success"]).await?;
    stage.kill_server().await;
    stage.say("kill -9 of the server in the middle of the release");
    stage.start_server().await?;
    let state = deployed(stage, &sha, &ENDS).await?;
    let (_, failed) = stage.counter.totals();
    let (deployments, checks) = stage.github.read(|m| {
        let Some(repo) = m.repo(OWNER, NAME) else { return (0, 0) };
        let checks = repo.checks.values().filter(|c| c.head_sha == sha && c.name == "switchover").count();
        (repo.deployments.values().filter(|d| d.sha == sha).count(), checks)
    });
    stage.say(&format!("after the restart: {state}, {deployments} deployment, {failed} requests failed"));
    Ok((state == "success" && failed == 0 && deployments == 1 && checks >= 1, "ended as if nothing had been".into()))
}

async fn rollback(stage: &Stage) -> Result<(Act, Option<u64>), DemoError> {
    let apps = stage.addresses().await?;
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build();
    let http = http.map_err(|e| DemoError::Other(e.to_string()))?;
    let backend = apps.iter().find(|a| a.app == "backend").and_then(|a| a.url.join(a.paths.get).ok());
    let Some(backend) = backend else {
        return Err(DemoError::Other("the back end has no address".into()));
    };
    let release = async || {
        let answer = http.get(backend.clone()).send().await.ok()?;
        answer.headers().get("x-release").and_then(|v| v.to_str().ok()).map(str::to_owned)
    };
    let before = release().await;
    let started = Instant::now();
    let words = stage.command(Verb::Rollback).await?;
    stage.say(&words);
    let ms = loop {
        let now = release().await;
        if now.is_some() && now != before {
            break Some(millis(started));
        }
        if started.elapsed() > Duration::from_secs(30) {
            break None;
        }
    };
    let after = release().await;
    // GitHub shows a new deployment of the commit before, and the taken-back one inactive.
    let shown = |m: &Model| {
        let repo = m.repo(OWNER, NAME)?;
        let newest = repo.deployments.values().next_back()?;
        (newest.state() == "success").then(|| newest.sha.clone())
    };
    let shown = stage.github.wait_for("the rollback's deployment", Duration::from_secs(60), shown).await;
    let held = stage.status().await?.iter().any(|s| s.held.is_some());
    let (_, failed) = stage.counter.totals();
    let good = ms.is_some_and(|ms| ms <= 1000) && after != before && shown.is_ok() && held && failed == 0;
    let words = format!("{} ms, then held; {failed} requests failed", ms.map_or("–".into(), |m| m.to_string()));
    stage.say(&format!("rolled back: {words}"));
    Ok((Act { name: "rollback by hand".into(), held: good, words, ms: millis(started) }, ms))
}

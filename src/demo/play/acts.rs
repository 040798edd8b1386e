//! The play, act by act. Each act says what must hold and is told whether it did.

use std::{
    path::Path,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use tokio::process::Command;

use super::{
    Act, CheckSeen, DemoError, DeploymentSeen, Outcome, Requests, sample,
    world::{ANN, NAME, OWNER, Stage, World},
};
use crate::{
    demo::github::{NewPull, model::Model},
    engine::commands::Verb,
};

/// Builds of a cold machine take their time.
const PATIENCE: Duration = Duration::from_secs(300);

/// The sample's play.
///
/// # Errors
/// When the stage breaks.
pub async fn all(world: &mut World) -> Result<Outcome, DemoError> {
    let mut outcome = Outcome::default();
    let act = timed("first release", first_release(world)).await;
    outcome.acts.push(act?);
    world.begin_load(120).await?;
    let stage = world.stage.clone();
    let stage = stage.as_ref();
    let pull = timed("pull request, failing test", failing_pull(stage)).await?;
    outcome.acts.push(pull);
    outcome.acts.push(timed("its fix", mended_pull(stage)).await?);
    outcome.acts.push(timed("develop", develop(stage)).await?);
    outcome.acts.push(timed("second release under requests", second_release(stage)).await?);
    outcome.switch_ms = stage.counter.snapshot().switch_ms;
    outcome.acts.push(timed("bad release, taken back", bad_release(stage)).await?);
    outcome.acts.push(timed("server killed in a release", killed(stage)).await?);
    let (act, ms) = rollback(stage).await?;
    outcome.acts.push(act);
    outcome.rollback_ms = ms;
    finish(stage, &mut outcome);
    Ok(outcome)
}

/// Any local repository: pushed, tested, released where it says so.
///
/// # Errors
/// When it can't be pushed, or nothing comes of it.
pub async fn own_repository(world: &mut World, path: &Path) -> Result<Outcome, DemoError> {
    let mut outcome = Outcome::default();
    let stage = world.stage.clone();
    let sha = push_head(&stage, path).await?;
    stage.say(&format!("pushed {} as main", &sha[..7]));
    let started = Instant::now();
    let conclusion = check(&stage, &sha, "switchover", Duration::from_secs(3600)).await?;
    let state = deployment_or_none(&stage, &sha).await;
    let words = match &state {
        Some(state) => format!("switchover: {conclusion}; deployment: {state}"),
        None => format!("switchover: {conclusion}; no environment is released from main"),
    };
    outcome.acts.push(Act {
        name: "push to main".into(),
        held: conclusion == "success" && state.as_deref().is_none_or(|s| s == "success"),
        words,
        ms: millis(started),
    });
    if state.as_deref() == Some("success") {
        world.begin_load(60).await?;
    }
    finish(&stage, &mut outcome);
    Ok(outcome)
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

async fn timed(name: &str, act: impl Future<Output = Result<(bool, String), DemoError>>) -> Result<Act, DemoError> {
    let started = Instant::now();
    let (held, words) = act.await?;
    Ok(Act { name: name.to_owned(), held, words, ms: millis(started) })
}

fn finish(stage: &Stage, outcome: &mut Outcome) {
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

/// The conclusion of the newest check of this name on a commit, once it is completed.
async fn check(stage: &Stage, sha: &str, name: &str, limit: Duration) -> Result<String, DemoError> {
    let what = format!("check {name} on {}", &sha[..7]);
    let look = |m: &Model| {
        let repo = m.repo(OWNER, NAME)?;
        let newest = repo.latest_checks(sha).into_iter().find(|c| c.name == name)?;
        newest.conclusion.clone()
    };
    Ok(stage.github.wait_for(&what, limit, look).await?)
}

/// The state of the newest deployment of a commit, once it is one of these.
async fn deployed(stage: &Stage, sha: &str, states: &[&str]) -> Result<String, DemoError> {
    let what = format!("deployment of {} to become {}", &sha[..7], states.join(" or "));
    let look = |m: &Model| {
        let mut deployments = m.repo(OWNER, NAME)?.deployments.values();
        let state = deployments.rfind(|d| d.sha == sha)?.state().to_owned();
        states.contains(&state.as_str()).then_some(state)
    };
    Ok(stage.github.wait_for(&what, PATIENCE, look).await?)
}

async fn deployment_or_none(stage: &Stage, sha: &str) -> Option<String> {
    let look = |m: &Model| {
        let mut deployments = m.repo(OWNER, NAME)?.deployments.values();
        deployments.rfind(|d| d.sha == sha).map(|_| ())
    };
    stage.github.wait_for("a deployment", Duration::from_secs(5), look).await.ok()?;
    deployed(stage, sha, &["success", "failure", "error", "inactive"]).await.ok()
}

async fn push(stage: &Stage, branch: &str, file: &str, text: &str, message: &str) -> Result<String, DemoError> {
    let sha = stage.github.commit(stage.repo, branch, &[(file, Some(text))], message, ANN).await?;
    stage.say(&format!("pushed {} to {branch}: {message}", &sha[..7]));
    Ok(sha)
}

async fn first_release(world: &World) -> Result<(bool, String), DemoError> {
    let stage = &world.stage;
    let files: Vec<(&str, Option<&str>)> = sample::first().into_iter().map(|(p, t)| (p, Some(t))).collect();
    let sha = stage.github.commit(stage.repo, "main", &files, "Open the shop", ANN).await?;
    stage.say(&format!("pushed {} to main: two apps with their tests", &sha[..7]));
    let conclusion = check(stage, &sha, "switchover", PATIENCE).await?;
    stage.say(&format!("tests of both apps: {conclusion}"));
    let state = deployed(stage, &sha, &["success", "failure", "error"]).await?;
    stage.say(&format!("first release: {state}"));
    Ok((conclusion == "success" && state == "success", format!("tested, built, live: {}", &sha[..7])))
}

async fn failing_pull(stage: &Stage) -> Result<(bool, String), DemoError> {
    let sha = push(stage, "discount", "backend/src/price.rs", &sample::wrong_price(), "Round the discount").await?;
    let new = NewPull { title: "A rounder discount".into(), head: "discount".into(), ..NewPull::default() };
    let number = stage.github.open_pull(stage.repo, ANN, new).await?;
    let test = check(stage, &sha, "backend / test (pull_request)", PATIENCE).await?;
    let all = check(stage, &sha, "switchover", PATIENCE).await?;
    let lines = stage.github.read(|m| {
        let repo = m.repo(OWNER, NAME)?;
        let check = repo.latest_checks(&sha).into_iter().find(|c| c.name == "backend / test (pull_request)")?;
        let first = check.output.annotations.first()?;
        Some((check.output.annotations.len(), format!("{}:{}", first.path, first.start_line)))
    });
    let (n, place) = lines.unwrap_or((0, "no line".into()));
    stage.say(&format!("pull request {number}: {test}, {n} annotation at {place}"));
    Ok((test == "failure" && all == "failure" && n > 0, format!("{n} failed test shown at {place}")))
}

async fn mended_pull(stage: &Stage) -> Result<(bool, String), DemoError> {
    let sha = push(stage, "discount", "backend/src/price.rs", &sample::right_price(), "Name the discount").await?;
    let all = check(stage, &sha, "switchover", PATIENCE).await?;
    stage.say(&format!("mended: {all}"));
    Ok((all == "success", "all checks green".into()))
}

async fn develop(stage: &Stage) -> Result<(bool, String), DemoError> {
    let page = sample::page("The sample shop, next season");
    let sha = push(stage, "develop", "frontend/src/page.rs", &page, "Draft the next season").await?;
    let all = check(stage, &sha, "switchover", PATIENCE).await?;
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

async fn second_release(stage: &Stage) -> Result<(bool, String), DemoError> {
    let pull = stage.github.read(|m| m.repo(OWNER, NAME).and_then(|r| r.pulls.keys().next_back().copied()));
    let Some(pull) = pull else { return Err(DemoError::Other("the pull request is gone".into())) };
    let (sent, _) = stage.counter.totals();
    let sha = stage.github.merge_pull(stage.repo, pull, ANN).await?;
    stage.say(&format!("merged pull request {pull} as {}", &sha[..7]));
    let state = deployed(stage, &sha, &["success", "failure", "error"]).await?;
    let (now, failed) = stage.counter.totals();
    stage.say(&format!("released {} under {} requests, {failed} failed", &sha[..7], now - sent));
    Ok((state == "success" && failed == 0, format!("{} requests, {failed} failed", now - sent)))
}

async fn bad_release(stage: &Stage) -> Result<(bool, String), DemoError> {
    let before = live(stage).await?;
    let bad = sample::unwell("Welcome to the shop!");
    let sha = push(stage, "main", "backend/src/main.rs", &bad, "Keep more connections open").await?;
    let state = deployed(stage, &sha, &["failure", "error", "success"]).await?;
    let after = live(stage).await?;
    let (_, failed) = stage.counter.totals();
    stage.say(&format!("the watch took {} back: {state}; {failed} requests failed", &sha[..7]));
    let held = state == "failure" && before.is_some() && before == after && failed == 0;
    Ok((held, format!("{} was live, was unwell, was taken back", &sha[..7])))
}

async fn live(stage: &Stage) -> Result<Option<String>, DemoError> {
    Ok(stage.status().await?.first().and_then(|s| s.sha.as_ref().map(ToString::to_string)))
}

async fn killed(stage: &Stage) -> Result<(bool, String), DemoError> {
    let good = sample::greeting("Welcome to the best shop");
    let sha = push(stage, "main", "backend/src/main.rs", &good, "Greet louder").await?;
    // As soon as the release shows on GitHub the server is gone, and back.
    deployed(stage, &sha, &["queued", "pending", "in_progress", "success"]).await?;
    stage.kill_server().await;
    stage.say("kill -9 of the server in the middle of the release");
    stage.start_server().await?;
    let state = deployed(stage, &sha, &["success", "failure", "error"]).await?;
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
    let Some(backend) = apps.iter().find(|a| a.app == "backend") else {
        return Err(DemoError::Other("the back end has no address".into()));
    };
    let release = async || {
        let answer = http.get(backend.url.clone()).send().await.ok()?;
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

async fn push_head(stage: &Stage, path: &Path) -> Result<String, DemoError> {
    let remote = stage.github.push_url(ANN, OWNER, NAME)?;
    let git = |args: Vec<String>| {
        let mut command = Command::new("git");
        command.arg("-C").arg(path).args(args).env("GIT_TERMINAL_PROMPT", "0").kill_on_drop(true);
        command
    };
    let out = git(vec!["rev-parse".into(), "HEAD".into()]).output().await.map_err(DemoError::io("starting git"))?;
    let sha = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    if !out.status.success() || sha.len() != 40 {
        return Err(DemoError::Other(format!("{} is no git repository with a commit", path.display())));
    }
    let out = git(vec!["push".into(), "--quiet".into(), remote.to_string(), "HEAD:refs/heads/main".into()])
        .output()
        .await
        .map_err(DemoError::io("starting git"))?;
    if !out.status.success() {
        return Err(DemoError::Other(format!("git push: {}", String::from_utf8_lossy(&out.stderr).trim())));
    }
    Ok(sha)
}

//! Any local repository: pushed, tested, and released where it says so or where it has a Dockerfile.

use std::{path::Path, time::Instant};

use tokio::process::Command;

use super::{
    Act, DemoError, Outcome, acts, phases, watch,
    world::{ANN, NAME, OWNER, Stage, World},
};
use crate::{
    clock,
    demo::github::model::{CheckRun, Model},
    domain::config::{self, FILE_NAME},
};

/// What is added where a repository names no environment and is to be released in containers.
const ENVIRONMENT: &str = "environments:\n  production:\n    deploy: {branch: main}\n    watch_for: 10s\n";
/// Where the head lies before it is `main`.
const ASIDE: &str = "switchover-demo";

/// Lines of a failed check that are shown.
const LINES: usize = 15;
/// Requests a second to somebody else's apps.
const RATE: u32 = 60;

/// The play.
///
/// # Errors
/// When it can't be pushed, or nothing comes of it.
pub async fn repository(world: &mut World, path: &Path) -> Result<Outcome, DemoError> {
    let mut outcome = Outcome::default();
    let stage = world.stage.clone();
    let started = Instant::now();
    let pushed = clock::now();
    let sha = push_head(&stage, path).await?;
    let conclusion = watch::check(&stage, &sha, "switchover").await?;
    stage.say(&format!("tests: {conclusion}"));
    let state = deployment(&stage, &sha).await;
    for line in stage.github.read(|m| m.repo(OWNER, NAME).map(|r| failed(&r.latest_checks(&sha)))).unwrap_or_default() {
        stage.say(&line);
    }
    let words = match &state {
        Some(state) => format!("switchover: {conclusion}; deployment: {state}"),
        None if conclusion == "success" => {
            format!("switchover: {conclusion}; nothing was released: no environment is released from main")
        }
        None => format!("switchover: {conclusion}; nothing was released"),
    };
    outcome.acts.push(Act {
        name: "push to main".into(),
        held: conclusion == "success" && state.as_deref() == Some("success"),
        words,
        ms: acts::millis(started),
    });
    if state.as_deref() == Some("success") {
        outcome.phases.insert("1 first", phases::of(&stage, &sha, pushed).await?);
        world.begin_load(RATE).await?;
        outcome.acts.push(again(&stage, &sha).await?);
    }
    acts::finish(&stage, &mut outcome);
    Ok(outcome)
}

/// One more release, with nothing new but a file that says when: under requests, and told by how many of them were lost.
async fn again(stage: &Stage, before: &str) -> Result<Act, DemoError> {
    let started = Instant::now();
    let text = format!("{}\n", clock::now());
    let files = [(".switchover-demo", Some(text.as_str()))];
    let sha = stage.github.commit(stage.repo, "main", &files, "Release once more (added by the demo)", ANN).await?;
    stage.say(&format!("pushed {} as main, under requests: a release of the same once more", watch::short(&sha)));
    let conclusion = watch::check(stage, &sha, "switchover").await?;
    let state = deployment(stage, &sha).await;
    let (sent, lost) = stage.counter.totals();
    // The same content is the same release: then there is nothing to switch.
    let words = format!(
        "switchover: {conclusion}; deployment: {}; {lost} of {sent} requests lost since {}",
        state.as_deref().unwrap_or("none"),
        watch::short(before)
    );
    let held = conclusion == "success" && state.as_deref().is_none_or(|s| s == "success") && lost == 0;
    Ok(Act { name: "release under requests".into(), held, words, ms: acts::millis(started) })
}

/// What the failed checks of a commit say, each with its last lines, for somebody who has no page to look at.
#[must_use]
pub fn failed(checks: &[&CheckRun]) -> Vec<String> {
    let bad = |c: &&&CheckRun| matches!(c.conclusion.as_deref(), Some("failure" | "timed_out" | "action_required"));
    let is_sum = |c: &CheckRun| c.name == "switchover";
    // The sum of all says nothing that the others do not, unless it is alone.
    let alone = checks.iter().filter(bad).all(|c| is_sum(c));
    let mut lines = Vec::new();
    for check in checks.iter().filter(bad).filter(|c| alone || !is_sum(c)) {
        lines.push(format!("{}: {}", check.name, check.output.title.as_deref().unwrap_or("failed")));
        let text = check.output.text.as_deref().or(check.output.summary.as_deref()).unwrap_or_default();
        let last: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with("```")).collect();
        lines.extend(last.iter().skip(last.len().saturating_sub(LINES)).map(|l| format!("    {l}")));
    }
    lines
}

/// How the release of a commit ended, if there is one.
async fn deployment(stage: &Stage, sha: &str) -> Option<String> {
    let look = |m: &Model| {
        let mut deployments = m.repo(OWNER, NAME)?.deployments.values();
        deployments.rfind(|d| d.sha == sha).map(|_| ())
    };
    stage.github.wait_for("a deployment", std::time::Duration::from_secs(5), look).await.ok()?;
    watch::deployed(stage, sha, &["success", "failure", "error", "inactive"]).await.ok()
}

fn git(path: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(path).args(args).env("GIT_TERMINAL_PROMPT", "0").kill_on_drop(true);
    command
}

async fn output(path: &Path, args: &[&str]) -> Result<Option<String>, DemoError> {
    let out = git(path, args).output().await.map_err(DemoError::io("starting git"))?;
    Ok(out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned()))
}

/// Whether a file of the repository is a Dockerfile by its name.
///
/// # Errors
/// When git can't be started.
pub async fn has_dockerfile(path: &Path) -> Result<bool, DemoError> {
    let files = output(path, &["ls-files", "-z"]).await?.unwrap_or_default();
    Ok(files.split('\0').filter_map(|f| f.rsplit('/').next()).any(|name| {
        let low = name.to_lowercase();
        low == "dockerfile" || low.starts_with("dockerfile.") || low.ends_with(".dockerfile")
    }))
}

/// The configuration with an environment, if what is there names none. A file with mistakes is left to its checks.
#[must_use]
pub fn with_environment(text: Option<&str>) -> Option<String> {
    match text.filter(|text| !text.trim().is_empty()) {
        None => Some(format!("version: 1\n\n{ENVIRONMENT}")),
        Some(text) => {
            let parsed = config::parse(text).ok()?;
            let more = format!("{}\n\n{ENVIRONMENT}", text.trim_end());
            // `environments:` may stand there with nothing below it.
            (parsed.config.environments.is_empty() && config::parse(&more).is_ok()).then_some(more)
        }
    }
}

/// Pushes the head to `main`, in containers with an environment to release to. The folder itself is left as it is.
async fn push_head(stage: &Stage, path: &Path) -> Result<String, DemoError> {
    let head = output(path, &["rev-parse", "HEAD"]).await?.map(|h| h.trim().to_owned());
    let Some(head) = head.filter(|h| h.len() == 40) else {
        return Err(DemoError::Other(format!("{} is no git repository with a commit", path.display())));
    };
    let more = match stage.containers {
        Some(_) => {
            let file = output(path, &["show", &format!("HEAD:{FILE_NAME}")]).await?;
            with_environment(file.as_deref())
        }
        None => None,
    };
    let branch = if more.is_some() { ASIDE } else { "main" };
    let remote = stage.github.push_url(ANN, OWNER, NAME)?;
    let spec = format!("HEAD:refs/heads/{branch}");
    let out = git(path, &["push", "--quiet", remote.as_str(), &spec]).output().await;
    let out = out.map_err(DemoError::io("starting git"))?;
    if !out.status.success() {
        return Err(DemoError::Other(format!("git push: {}", String::from_utf8_lossy(&out.stderr).trim())));
    }
    let Some(text) = more else {
        stage.say(&format!("pushed {} as main", watch::short(&head)));
        return Ok(head);
    };
    let files = [(FILE_NAME, Some(text.as_str()))];
    let message = "Release main to production (added by the demo)";
    let sha = stage.github.commit(stage.repo, ASIDE, &files, message, ANN).await?;
    stage.github.move_branch(stage.repo, "main", &sha, ANN).await?;
    stage.say(&format!(
        "pushed {} as main, with a commit on top that adds an environment to {FILE_NAME}: nothing would be released without",
        watch::short(&head)
    ));
    Ok(sha)
}

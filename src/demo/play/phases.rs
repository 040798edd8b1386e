//! How long the parts of a release took, as GitHub and the agent tell it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::{
    DemoError,
    world::{NAME, OWNER, Stage},
};
use crate::demo::github::model::CheckRun;

/// One release, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Phases {
    /// Its commit.
    pub sha: String,
    /// The steps of each app that has some.
    pub apps: BTreeMap<String, AppPhases>,
    /// From the beginning of the rollout to the switch of the last app.
    pub rollout_ms: Option<u64>,
    /// From the push to the switch of the last app.
    pub live_ms: Option<u64>,
}

/// The steps of one app, in milliseconds; none where a step was not run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AppPhases {
    /// The step `test`.
    pub test_ms: Option<u64>,
    /// The step `build`.
    pub build_ms: Option<u64>,
    /// Base images and building the image.
    pub image_ms: Option<u64>,
    /// Pushing it.
    pub push_ms: Option<u64>,
    /// Steps that an earlier run stands for.
    pub reused: Vec<String>,
}

fn between(from: Timestamp, to: Timestamp) -> Option<u64> {
    u64::try_from(to.as_millisecond() - from.as_millisecond()).ok()
}

fn took(check: &CheckRun) -> Option<u64> {
    between(check.started_at?, check.completed_at?)
}

/// What the last line of the image step's log says of its parts, in milliseconds: base images and build, push.
#[must_use]
pub fn image_parts(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().rev().find(|l| l.contains(": base images ") && l.contains(", push "))?;
    let part = |word: &str| {
        let (_, rest) = line.split_once(word)?;
        let seconds: f64 = rest.split(" s").next()?.trim().parse().ok()?;
        u64::try_from(std::time::Duration::try_from_secs_f64(seconds).ok()?.as_millis()).ok()
    };
    Some((part("base images ")? + part("build ")?, part("push ")?))
}

/// Adds a step's check `APP / STEP (push)`.
fn add(apps: &mut BTreeMap<String, AppPhases>, check: &CheckRun) {
    let Some((app, step)) = check.name.strip_suffix(" (push)").and_then(|n| n.split_once(" / ")) else { return };
    let phases = apps.entry(app.to_owned()).or_default();
    if check.output.title.as_deref().is_some_and(|t| t.contains("unchanged since")) {
        phases.reused.push(step.to_owned());
        return;
    }
    match step {
        "test" => phases.test_ms = took(check),
        "build" => phases.build_ms = took(check),
        "image" => match image_parts(check.output.summary.as_deref().unwrap_or_default()) {
            Some((image, push)) => (phases.image_ms, phases.push_ms) = (Some(image), Some(push)),
            None => phases.image_ms = took(check),
        },
        _ => {}
    }
}

/// The parts of a release that is live now.
///
/// # Errors
/// When the server is away.
pub async fn of(stage: &Stage, sha: &str, pushed: Timestamp) -> Result<Phases, DemoError> {
    let (apps, began) = stage.github.read(|m| {
        let Some(repo) = m.repo(OWNER, NAME) else { return (BTreeMap::new(), None) };
        let checks = repo.latest_checks(sha);
        let mut apps = BTreeMap::new();
        checks.iter().for_each(|check| add(&mut apps, check));
        (apps, checks.iter().find(|c| c.name.starts_with("deploy (")).and_then(|c| c.started_at))
    });
    let live = stage.status().await?.into_iter().filter_map(|s| s.live);
    let switched = live.flat_map(|l| l.apps.into_values()).filter_map(|a| a.since).max();
    Ok(Phases {
        sha: sha.to_owned(),
        apps,
        rollout_ms: switched.and_then(|at| between(began?, at)),
        live_ms: switched.and_then(|at| between(pushed, at)),
    })
}

/// The table for people: one line for each app and release.
#[must_use]
pub fn table(all: &BTreeMap<&'static str, Phases>) -> String {
    let mut out = format!(
        "  {:<18}{:<11}{:>9}{:>9}{:>9}{:>9}{:>11}{:>15}\n",
        "release", "app", "test", "build", "image", "push", "rollout", "push to live"
    );
    let seconds = |ms: Option<u64>| ms.map_or("–".to_owned(), |ms| format!("{}.{} s", ms / 1000, ms % 1000 / 100));
    for (name, release) in all {
        for (n, (app, p)) in release.apps.iter().enumerate() {
            let step = |word: &str, ms: Option<u64>| {
                if p.reused.iter().any(|r| r == word) { "reused".to_owned() } else { seconds(ms) }
            };
            let first = n == 0;
            out.push_str(&format!(
                "  {:<18}{app:<11}{:>9}{:>9}{:>9}{:>9}{:>11}{:>15}\n",
                if first { name } else { "" },
                step("test", p.test_ms),
                step("build", p.build_ms),
                step("image", p.image_ms),
                seconds(p.push_ms),
                if first { seconds(release.rollout_ms) } else { String::new() },
                if first { seconds(release.live_ms) } else { String::new() },
            ));
        }
    }
    out
}

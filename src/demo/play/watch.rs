//! Waiting for what GitHub shows, and telling meanwhile what goes on.

use std::time::Duration;

use super::{
    DemoError,
    world::{NAME, OWNER, Stage},
};
use crate::demo::github::model::Model;

/// Between two lines about what goes on.
const BEAT: Duration = Duration::from_secs(15);

/// Waits until `look` finds what it is looking for.
async fn until<T>(
    stage: &Stage,
    what: &str,
    sha: &str,
    limit: Duration,
    look: impl FnMut(&Model) -> Option<T>,
) -> Result<T, DemoError> {
    let mut found = std::pin::pin!(stage.github.wait_for(what, limit, look));
    loop {
        tokio::select! {
            found = &mut found => return Ok(found?),
            () = tokio::time::sleep(BEAT) => stage.still(&under_way(stage, sha)),
        }
    }
}

/// The checks of a commit that run now, with what they say of themselves.
fn under_way(stage: &Stage, sha: &str) -> String {
    let now = crate::clock::now();
    let running = stage.github.read(|m| {
        let Some(repo) = m.repo(OWNER, NAME) else { return Vec::new() };
        let mut running = Vec::new();
        for check in repo.latest_checks(sha) {
            if check.status != "in_progress" || check.name == "switchover" {
                continue;
            }
            let since = check.started_at.map_or(0, |at| now.as_second() - at.as_second());
            // A step says no more than that it runs; a release, how far it is.
            let title = check.output.title.as_deref().filter(|_| check.name.starts_with("deploy ("));
            let title = title.map(|t| format!(": {t}")).unwrap_or_default();
            running.push(format!("{}, {since} s{title}", check.name));
        }
        running
    });
    if running.is_empty() { "waiting".to_owned() } else { running.join("; ") }
}

/// The conclusion of the newest check of this name on a commit, once it is completed.
pub async fn check(stage: &Stage, sha: &str, name: &str) -> Result<String, DemoError> {
    let what = format!("check {name} on {}", short(sha));
    let look = |m: &Model| {
        let repo = m.repo(OWNER, NAME)?;
        let newest = repo.latest_checks(sha).into_iter().find(|c| c.name == name)?;
        newest.conclusion.clone()
    };
    until(stage, &what, sha, stage.patience, look).await
}

/// The state of the newest deployment of a commit, once it is one of these.
pub async fn deployed(stage: &Stage, sha: &str, states: &[&str]) -> Result<String, DemoError> {
    let what = format!("deployment of {} to become {}", short(sha), states.join(" or "));
    let look = |m: &Model| {
        let mut deployments = m.repo(OWNER, NAME)?.deployments.values();
        let state = deployments.rfind(|d| d.sha == sha)?.state().to_owned();
        states.contains(&state.as_str()).then_some(state)
    };
    until(stage, &what, sha, stage.patience, look).await
}

/// A commit as people name it.
pub fn short(sha: &str) -> &str {
    sha.get(..7).unwrap_or(sha)
}

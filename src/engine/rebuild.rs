//! What is live, built anew: for a base image with a hole that was mended, or a build that took in what it should not.

use super::{Engine, EngineError, clicks::attempt};
use crate::{
    domain::{
        config::DeployFrom,
        ids::{RepoId, RolloutId},
        run::Context,
    },
    plan::Reuse,
    store::RepoState,
};

impl Engine {
    /// Runs the build of an environment's live commit once more, with nothing of earlier builds. Tests that are proven are
    /// not run again. The release that comes of it goes the usual way, gates and holds included.
    ///
    /// # Errors
    /// [`EngineError::Refused`] with the reason.
    pub(super) async fn rebuild(&self, repo: RepoId, name: &str, actor: &str) -> Result<String, EngineError> {
        let Some(stored) = self.store.repo(repo).await?.filter(|r| r.state == RepoState::Active) else {
            return Err(EngineError::Refused("the App has no access to the repository any more".into()));
        };
        let policy = self.policy(&stored.info).await?;
        let environments = policy.iter().flat_map(|p| &p.environments);
        let branch = match environments.into_iter().find(|(n, _)| n.as_str() == name).map(|(_, e)| &e.deploy) {
            Some(DeployFrom::Branch(branch)) => branch.clone(),
            Some(DeployFrom::PromoteFrom(from)) => {
                return Err(EngineError::Refused(format!(
                    "{name} takes what is live in {from}: `switchover rebuild {from}`, then promote it"
                )));
            }
            Some(DeployFrom::Command) | None => {
                return Err(EngineError::Refused(format!("{name} is not released from a branch")));
            }
        };
        let live = self.store.environment(repo, name).await?.and_then(|e| e.live_rollout);
        let Some(live) = self.live(live).await? else {
            return Err(EngineError::Refused(format!("nothing is live in {name} yet")));
        };
        let runs = self.store.runs_on(repo, &live.sha).await?;
        let Some(run) = runs.into_iter().rfind(|r| r.context == Context::Push && r.lane == branch) else {
            return Err(EngineError::Refused(format!(
                "no run of {} on {branch} is known: push to it",
                live.sha.short()
            )));
        };
        if run.state != "done" {
            return Err(EngineError::Refused(format!("{} is being built just now", live.sha.short())));
        }
        // What is live is only older than what waits: there it would be built for nothing.
        if let Some(newer) = self.newer_release(repo, &branch, &live.sha, name).await? {
            return Err(EngineError::Refused(format!(
                "{} would be built and not released: {newer}. Wait for that one, or `switchover cancel {name}` first",
                live.sha.short()
            )));
        }
        attempt(self, None, &stored.info, &run, Reuse::Tests, None, actor).await?;
        Ok(format!("{} is built anew, and then released to {name}", live.sha.short()))
    }

    async fn live(&self, id: Option<RolloutId>) -> Result<Option<crate::store::RolloutRow>, EngineError> {
        match id {
            Some(id) => Ok(self.store.rollout(id).await?),
            None => Ok(None),
        }
    }
}

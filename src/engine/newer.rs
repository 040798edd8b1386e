//! Whether something newer was released already: a run that ends late must not take its place.

use std::fmt;

use super::{Engine, EngineError, back};
use crate::domain::ids::{RepoId, Sha};

/// A newer commit that was released, or is on its way.
#[derive(Debug)]
pub(super) struct Newer {
    sha: Sha,
    open: bool,
}

impl fmt::Display for Newer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.open { "is waiting or on its way there" } else { "was released already" };
        write!(f, "{} came after it and {how}", self.sha.short())
    }
}

impl Engine {
    /// What came after a commit of this branch and was released to the environment. Not what the branch no longer leads
    /// to: pushed back on purpose, the older commit is new work. Nor what was taken back, failed or was called off.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(super) async fn newer_release(
        &self,
        repo: RepoId,
        branch: &str,
        commit: &Sha,
        environment: &str,
    ) -> Result<Option<Newer>, EngineError> {
        let rows = self.store.rollouts_of(repo, environment, 50).await?;
        let live = self.store.environment(repo, environment).await?.and_then(|e| e.live_rollout);
        // What is live is older than nothing that was released: it is built anew, or released once more.
        let again = rows.iter().any(|r| Some(r.id) == live && r.sha == *commit);
        let head = self.store.heads(repo).await?.into_iter().find(|(b, _)| b == branch).map(|(_, sha)| sha);
        let bad = back::taken_back(&rows)?;
        for row in rows.iter().filter(|r| r.kind == "release" && r.sha != *commit) {
            let open = row.state != "done";
            let served = matches!(row.outcome.as_deref(), Some("live" | "unchanged" | "unhealthy" | "stuck"));
            let counts = open || (served && !again && !bad.contains(&row.id));
            if !counts || !self.mirrors.is_ancestor(repo, commit, &row.sha).await.unwrap_or(false) {
                continue;
            }
            let on_the_way = match &head {
                Some(head) => *head == row.sha || self.mirrors.is_ancestor(repo, &row.sha, head).await.unwrap_or(true),
                None => true,
            };
            if on_the_way {
                return Ok(Some(Newer { sha: row.sha.clone(), open }));
            }
        }
        Ok(None)
    }
}

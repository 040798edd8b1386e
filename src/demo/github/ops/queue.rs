//! The merge queue ("Managing a merge queue") with a build concurrency of 1: the first entry's changes are merged with
//! the base branch as it is, on a temporary branch; its required checks decide whether that commit becomes the base.

use serde_json::json;

use super::{StandIn, StandInError, pulls::pull_mut, repo_of};
use crate::demo::github::{
    git::{self, ZERO},
    model::{ActivityKind, MergeGroup, Pull, Queued},
};

/// What the checks of a group say.
enum Verdict {
    Open,
    Passed,
    Failed,
}

impl StandIn {
    /// Puts a pull request into its base branch's merge queue. Answers the commit that is tested for it; none while
    /// others are ahead, or when no check is required and it is merged already.
    ///
    /// # Errors
    /// It is not open, a draft, queued already, or not green itself ("Managing a merge queue": once it has passed all
    /// required checks).
    pub async fn enqueue(&self, repo: i64, number: i64, login: &str) -> Result<Option<String>, StandInError> {
        let pull = self.pull(repo, number)?;
        if pull.queued.is_some() {
            return Err(StandInError::Refused("the pull request is queued already".to_owned()));
        }
        if let Some(why) = self.obstacle(repo, &pull, &pull.head.sha)? {
            return Err(StandInError::Refused(why));
        }
        self.write(|m| {
            let place = m.big_id();
            let queued = Queued { place, head: pull.head.sha.clone(), by: login.to_owned(), group: None };
            pull_mut(m, repo, number).map(|p| p.queued = Some(queued))
        })?;
        self.tell_pull(repo, number, "enqueued", login, json!({}));
        self.run_queue(repo, &pull.base).await?;
        Ok(self.pull(repo, number)?.queued.and_then(|q| q.group).map(|g| g.sha))
    }

    /// Somebody takes a pull request out of the merge queue; the next one has its turn.
    ///
    /// # Errors
    /// It is not queued.
    pub async fn leave_queue(&self, repo: i64, number: i64, login: &str) -> Result<(), StandInError> {
        let pull = self.pull(repo, number)?;
        if pull.queued.is_none() {
            return Err(StandInError::Refused("the pull request is not queued".to_owned()));
        }
        self.dequeue(repo, &pull, "MANUAL", login).await?;
        self.run_queue(repo, &pull.base).await
    }

    /// A check of this commit has ended: if it is a group's, the queue goes on.
    pub(in crate::demo::github) async fn group_checked(&self, repo: i64, sha: &str) {
        let base = self.read(|m| {
            let pulls = m.repos.get(&repo)?.pulls.values();
            let of = |p: &&Pull| p.queued.as_ref().and_then(|q| q.group.as_ref()).is_some_and(|g| g.sha == sha);
            pulls.into_iter().find(of).map(|p| p.base.clone())
        });
        if let Some(base) = base
            && let Err(error) = self.run_queue(repo, &base).await
        {
            tracing::error!(%error, "the stand-in's merge queue is stuck");
        }
    }

    /// Goes on with a branch's queue as far as it can. Each turn of the loop takes an entry a step further.
    async fn run_queue(&self, repo: i64, base: &str) -> Result<(), StandInError> {
        let lock = self.repo_lock(repo);
        let _held = lock.lock().await;
        loop {
            let first = self.read(|m| {
                let queued = repo_of(m, repo).ok()?.pulls.values().filter(|p| p.base == base && p.queued.is_some());
                queued.min_by_key(|p| p.queued.as_ref().map(|q| q.place)).cloned()
            });
            let Some((pull, queued)) = first.and_then(|p| p.queued.clone().map(|q| (p, q))) else { return Ok(()) };
            // New commits need to pass by themselves first.
            if !pull.open || pull.draft || pull.head.sha != queued.head {
                self.dequeue(repo, &pull, "UNKNOWN_REMOVAL_REASON", &queued.by).await?;
                continue;
            }
            let Some(group) = queued.group else {
                self.form_group(repo, &pull, &queued.by).await?;
                continue;
            };
            if group.base != pull.base_sha {
                // Somebody pushed to the base meanwhile: what was tested is not what would be merged.
                self.drop_group(repo, &pull, "invalidated", &queued.by).await?;
                continue;
            }
            match self.verdict(repo, &pull, &group.sha)? {
                Verdict::Open => return Ok(()),
                Verdict::Failed => self.dequeue(repo, &pull, "CI_FAILURE", &queued.by).await?,
                Verdict::Passed => {
                    self.tell_pull(repo, pull.number, "dequeued", &queued.by, json!({"reason": "MERGE"}));
                    self.drop_group(repo, &pull, "merged", &queued.by).await?;
                    self.mark_merged(repo, pull.number, &group.sha, &queued.by)?;
                    let base = format!("refs/heads/{}", pull.base);
                    let kind = ActivityKind::QueueMerge;
                    self.advance(repo, &base, &group.base, &group.sha, &queued.by, kind).await?;
                }
            }
        }
    }

    fn verdict(&self, repo: i64, pull: &Pull, sha: &str) -> Result<Verdict, StandInError> {
        self.read(|m| {
            let r = repo_of(m, repo)?;
            let latest = r.latest_checks(sha);
            let required = r.required_checks.get(&pull.base).map(Vec::as_slice).unwrap_or_default();
            let of = |name: &String| latest.iter().find(|c| c.name == *name && c.status == "completed");
            Ok(match required {
                names if names.iter().any(|n| of(n).is_some_and(|c| !c.satisfies())) => Verdict::Failed,
                names if names.iter().all(|n| of(n).is_some()) => Verdict::Passed,
                _ => Verdict::Open,
            })
        })
    }

    /// A merge of the pull request into its base as it is, on a branch `gh-readonly-queue/…`, and
    /// `merge_group.checks_requested`.
    async fn form_group(&self, repo: i64, pull: &Pull, login: &str) -> Result<(), StandInError> {
        let message = format!("Merge pull request #{} from {}/{}", pull.number, pull.head.owner, pull.head.branch);
        let sha = match self.merge_commit(repo, pull, &message, login).await {
            Ok(sha) => sha,
            Err(StandInError::Refused(_)) => return self.dequeue(repo, pull, "MERGE_CONFLICT", login).await,
            Err(error) => return Err(error),
        };
        let group = MergeGroup { sha, base: pull.base_sha.clone() };
        self.advance(repo, &queue_ref(pull, &group), ZERO, &group.sha, login, ActivityKind::Creation).await?;
        self.write(|m| {
            let queued = &mut pull_mut(m, repo, pull.number)?.queued;
            if let Some(queued) = queued {
                queued.group = Some(group.clone());
            }
            Ok::<_, StandInError>(())
        })?;
        self.tell_group(repo, pull, &group, "checks_requested", None, login).await
    }

    async fn dequeue(&self, repo: i64, pull: &Pull, reason: &str, login: &str) -> Result<(), StandInError> {
        self.drop_group(repo, pull, "dequeued", login).await?;
        self.write(|m| pull_mut(m, repo, pull.number).map(|p| p.queued = None))?;
        self.tell_pull(repo, pull.number, "dequeued", login, json!({"reason": reason}));
        Ok(())
    }

    /// Takes an entry's group away, if it has one: `merge_group.destroyed`, and its branch is gone.
    async fn drop_group(&self, repo: i64, pull: &Pull, reason: &str, login: &str) -> Result<(), StandInError> {
        let group = self.write(|m| pull_mut(m, repo, pull.number).map(|p| p.queued.as_mut()?.group.take()))?;
        let Some(group) = group else { return Ok(()) };
        self.tell_group(repo, pull, &group, "destroyed", Some(reason), login).await?;
        self.advance(repo, &queue_ref(pull, &group), &group.sha, ZERO, login, ActivityKind::Deletion).await
    }

    async fn tell_group(
        &self,
        repo: i64,
        pull: &Pull,
        group: &MergeGroup,
        action: &str,
        reason: Option<&str>,
        login: &str,
    ) -> Result<(), StandInError> {
        let head = git::commit(&self.git_dir(repo), &group.sha).await?;
        let payload = self.read(|m| {
            let mut value = self.envelope(m, repo_of(m, repo)?, login);
            value["action"] = json!(action);
            value["merge_group"] = json!({
                "head_sha": group.sha,
                "head_ref": queue_ref(pull, group),
                "base_sha": group.base,
                "base_ref": format!("refs/heads/{}", pull.base),
                "head_commit": {
                    "id": head.sha,
                    "tree_id": head.tree,
                    "message": head.message,
                    "timestamp": head.committer.2,
                    "author": {"name": head.author.0, "email": head.author.1},
                    "committer": {"name": head.committer.0, "email": head.committer.1},
                },
            });
            if let Some(reason) = reason {
                value["reason"] = json!(reason);
            }
            Ok::<_, StandInError>(value)
        })?;
        self.emit(repo, "merge_group", &payload, None);
        Ok(())
    }
}

fn queue_ref(pull: &Pull, group: &MergeGroup) -> String {
    format!("refs/heads/gh-readonly-queue/{}/pr-{}-{}", pull.base, pull.number, group.base)
}

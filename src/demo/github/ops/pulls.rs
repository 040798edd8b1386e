//! Pull requests: opened, closed, merged; whether they merge cleanly.

use serde_json::{Value, json};

use super::{StandIn, StandInError, ensure, person, repo_mut, repo_of};
use crate::demo::github::{
    git,
    model::{ActivityKind, Mergeable, Model, Pull, PullHead, UserKind, now},
    shapes,
};

/// What a pull request is opened with.
#[derive(Debug, Clone, Default)]
pub struct NewPull {
    /// Title.
    pub title: String,
    /// Description.
    pub body: String,
    /// The branch with the changes.
    pub head: String,
    /// The repository of that branch, when it is a fork.
    pub head_repo: Option<i64>,
    /// The branch it wants into; the default branch when empty.
    pub base: String,
    /// Not ready for review.
    pub draft: bool,
}

pub(super) fn pull_mut(m: &mut Model, repo: i64, number: i64) -> Result<&mut Pull, StandInError> {
    let pull = repo_mut(m, repo)?.pulls.get_mut(&number);
    pull.ok_or_else(|| StandInError::NotFound(format!("pull request {number}")))
}

impl StandIn {
    /// A copy of a pull request.
    ///
    /// # Errors
    /// There is none of this number.
    pub fn pull(&self, repo: i64, number: i64) -> Result<Pull, StandInError> {
        let found = self.read(|m| Ok::<_, StandInError>(repo_of(m, repo)?.pulls.get(&number).cloned()))?;
        found.ok_or_else(|| StandInError::NotFound(format!("pull request {number}")))
    }

    /// Opens a pull request; answers its number.
    ///
    /// # Errors
    /// The title is empty, a branch is missing, nothing is between them, or the same is open already.
    pub async fn open_pull(&self, repo: i64, login: &str, new: NewPull) -> Result<i64, StandInError> {
        // "Create a pull request" answers 422 here: `title` is needed.
        if new.title.trim().is_empty() {
            return Err(StandInError::Refused("Validation Failed: title can't be blank".to_owned()));
        }
        let head_repo = new.head_repo.unwrap_or(repo);
        let (base, head_owner) = self.read(|m| {
            let r = repo_of(m, repo)?;
            let base = if new.base.is_empty() { r.default_branch.clone() } else { new.base.clone() };
            Ok::<_, StandInError>((base, repo_of(m, head_repo)?.owner.clone()))
        })?;
        let find = |branch: &str| format!("refs/heads/{branch}");
        let head_sha = git::refs(&self.git_dir(head_repo)).await?.remove(&find(&new.head));
        let base_sha = git::refs(&self.git_dir(repo)).await?.remove(&find(&base));
        let (Some(head_sha), Some(base_sha)) = (head_sha, base_sha) else {
            return Err(StandInError::Refused("Validation Failed: head or base is no branch".to_owned()));
        };
        let dir = self.git_dir(repo);
        if head_repo != repo {
            let from = self.git_dir(head_repo).to_string_lossy().into_owned();
            git::run(&dir, &["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--", &from, &head_sha]).await?;
        }
        if git::log(&dir, &[&head_sha, &format!("^{base_sha}")], 1).await?.is_empty() {
            return Err(StandInError::Refused(format!("No commits between {base} and {}", new.head)));
        }
        let number = self.write(|m| {
            ensure(m, login, UserKind::User)?;
            let id = m.big_id();
            let r = repo_mut(m, repo)?;
            let same =
                |p: &&Pull| p.open && p.head.repo == Some(head_repo) && p.head.branch == new.head && p.base == base;
            if r.pulls.values().any(|p| same(&p)) {
                let what = format!("A pull request already exists for {head_owner}:{}.", new.head);
                return Err(StandInError::Refused(what));
            }
            r.last_number += 1;
            let pull = Pull {
                id,
                number: r.last_number,
                title: new.title,
                body: new.body,
                author: person(login),
                draft: new.draft,
                open: true,
                head: PullHead { repo: Some(head_repo), owner: head_owner, branch: new.head, sha: head_sha.clone() },
                base,
                base_sha,
                mergeable: Mergeable::Unknown,
                merged: None,
                queued: None,
                commits: (0, 0, 0, 0),
                reviews: Vec::new(),
                created_at: now(),
                updated_at: now(),
                closed_at: None,
            };
            r.pulls.insert(r.last_number, pull);
            Ok(r.last_number)
        })?;
        self.fetch_pull_head(repo, number, &head_sha).await?;
        self.measure_pull(repo, number).await?;
        self.tell_pull(repo, number, "opened", login, json!({}));
        Ok(number)
    }

    /// Brings a fork's commit over and sets `refs/pull/N/head`.
    pub(super) async fn fetch_pull_head(&self, repo: i64, number: i64, sha: &str) -> Result<(), StandInError> {
        let pull = self.pull(repo, number)?;
        let dir = self.git_dir(repo);
        let name = format!("refs/pull/{number}/head");
        match pull.head.repo {
            Some(fork) if fork != repo => {
                let from = self.git_dir(fork).to_string_lossy().into_owned();
                git::run(&dir, &["fetch", "--quiet", "--no-tags", "--", &from, &format!("+{sha}:{name}")]).await?;
            }
            _ => {
                git::run(&dir, &["update-ref", &name, sha]).await?;
            }
        }
        Ok(())
    }

    /// Counts commits, lines and files for the pull request's JSON.
    pub(super) async fn measure_pull(&self, repo: i64, number: i64) -> Result<(), StandInError> {
        let pull = self.pull(repo, number)?;
        let dir = self.git_dir(repo);
        let not_base = format!("^{}", pull.base_sha);
        let commits = git::log(&dir, &[&pull.head.sha, &not_base], 250).await?.len();
        let from = git::merge_base(&dir, &pull.base_sha, &pull.head.sha).await?;
        let files = git::diff(&dir, from.as_deref(), &pull.head.sha).await?;
        let lines = files.iter().fold((0, 0), |sum, f| (sum.0 + f.additions, sum.1 + f.deletions));
        self.write(|m| pull_mut(m, repo, number).map(|p| p.commits = (commits, lines.0, lines.1, files.len())))
    }

    /// Looks whether a pull request merges cleanly; makes the test merge commit at `refs/pull/N/merge`.
    ///
    /// # Errors
    /// Git fails, or there is no such pull request.
    pub async fn compute_mergeable(&self, repo: i64, number: i64) -> Result<Mergeable, StandInError> {
        let pull = self.pull(repo, number)?;
        if !pull.open || pull.mergeable != Mergeable::Unknown {
            return Ok(pull.mergeable);
        }
        let dir = self.git_dir(repo);
        let mergeable = match git::merge_tree(&dir, &pull.base_sha, &pull.head.sha).await? {
            None => Mergeable::Conflict,
            Some(tree) => {
                let message = format!("Merge {} into {}", pull.head.sha, pull.base_sha);
                let parents = [pull.base_sha.as_str(), pull.head.sha.as_str()];
                let sha = git::commit_tree(&dir, &tree, &parents, &message, &pull.author.login).await?;
                git::run(&dir, &["update-ref", &format!("refs/pull/{number}/merge"), &sha]).await?;
                Mergeable::Clean(sha)
            }
        };
        self.write(|m| {
            let now = pull_mut(m, repo, number)?;
            // Only if nothing moved meanwhile.
            if now.head.sha == pull.head.sha && now.base_sha == pull.base_sha {
                now.mergeable = mergeable.clone();
            }
            Ok(mergeable)
        })
    }

    /// Closes a pull request without merging it; nothing happens to a closed one.
    ///
    /// # Errors
    /// There is no such pull request.
    pub fn close_pull(&self, repo: i64, number: i64, login: &str) -> Result<(), StandInError> {
        let closed = self.write(|m| {
            let pull = pull_mut(m, repo, number)?;
            let was_open = std::mem::replace(&mut pull.open, false);
            if was_open {
                pull.closed_at = Some(now());
                pull.updated_at = now();
            }
            Ok::<_, StandInError>(was_open)
        })?;
        if closed {
            self.tell_pull(repo, number, "closed", login, json!({}));
        }
        Ok(())
    }

    /// Opens a closed one again.
    ///
    /// # Errors
    /// It is open or merged, or its head is gone.
    pub async fn reopen_pull(&self, repo: i64, number: i64, login: &str) -> Result<(), StandInError> {
        let pull = self.pull(repo, number)?;
        let head = match pull.head.repo {
            Some(head) => git::refs(&self.git_dir(head)).await?.remove(&format!("refs/heads/{}", pull.head.branch)),
            None => None,
        };
        let (false, None, Some(head)) = (pull.open, &pull.merged, head) else {
            return Err(StandInError::Refused("the pull request cannot be reopened".to_owned()));
        };
        self.fetch_pull_head(repo, number, &head).await?;
        self.write(|m| {
            let pull = pull_mut(m, repo, number)?;
            (pull.open, pull.closed_at, pull.mergeable) = (true, None, Mergeable::Unknown);
            pull.head.sha = head;
            Ok::<_, StandInError>(())
        })?;
        self.measure_pull(repo, number).await?;
        self.tell_pull(repo, number, "reopened", login, json!({}));
        Ok(())
    }

    /// Takes the draft mark off.
    ///
    /// # Errors
    /// There is no such pull request.
    pub fn ready_for_review(&self, repo: i64, number: i64, login: &str) -> Result<(), StandInError> {
        self.write(|m| pull_mut(m, repo, number).map(|p| p.draft = false))?;
        self.tell_pull(repo, number, "ready_for_review", login, json!({}));
        Ok(())
    }

    /// Another title: `edited`, with nothing for a test to do.
    ///
    /// # Errors
    /// There is no such pull request.
    pub fn retitle(&self, repo: i64, number: i64, title: &str, login: &str) -> Result<(), StandInError> {
        let old =
            self.write(|m| pull_mut(m, repo, number).map(|p| std::mem::replace(&mut p.title, title.to_owned())))?;
        self.tell_pull(repo, number, "edited", login, json!({"changes": {"title": {"from": old}}}));
        Ok(())
    }

    /// Another base branch: `edited`, with the old base in `changes`.
    ///
    /// # Errors
    /// There is no such branch or pull request.
    pub async fn change_base(&self, repo: i64, number: i64, base: &str, login: &str) -> Result<(), StandInError> {
        let sha = git::refs(&self.git_dir(repo)).await?.remove(&format!("refs/heads/{base}"));
        let sha = sha.ok_or_else(|| StandInError::NotFound(format!("branch {base}")))?;
        let old = self.write(|m| {
            let pull = pull_mut(m, repo, number)?;
            pull.mergeable = Mergeable::Unknown;
            let old = std::mem::replace(&mut pull.base, base.to_owned());
            Ok::<_, StandInError>((old, std::mem::replace(&mut pull.base_sha, sha)))
        })?;
        self.measure_pull(repo, number).await?;
        let changes = json!({"changes": {"base": {"ref": {"from": old.0}, "sha": {"from": old.1}}}});
        self.tell_pull(repo, number, "edited", login, changes);
        Ok(())
    }

    /// Why a pull request can't be merged now.
    pub(super) fn obstacle(&self, repo: i64, pull: &Pull, sha: &str) -> Result<Option<String>, StandInError> {
        if !pull.open {
            return Ok(Some("the pull request is closed".to_owned()));
        }
        if pull.draft {
            return Ok(Some("the pull request is still a draft".to_owned()));
        }
        self.read(|m| {
            let r = repo_of(m, repo)?;
            let latest = r.latest_checks(sha);
            let missing = |name: &&String| !latest.iter().any(|c| &c.name == *name && c.satisfies());
            let required = r.required_checks.get(&pull.base);
            let open = required.into_iter().flatten().find(missing);
            Ok(open.map(|name| format!("Required status check \"{name}\" is expected.")))
        })
    }

    /// Merges a pull request with a real merge commit; answers that commit.
    ///
    /// # Errors
    /// Conflicts, a required check that is not green, or it is not open.
    pub async fn merge_pull(&self, repo: i64, number: i64, login: &str) -> Result<String, StandInError> {
        let lock = self.repo_lock(repo);
        let _held = lock.lock().await;
        let pull = self.pull(repo, number)?;
        if let Some(why) = self.obstacle(repo, &pull, &pull.head.sha)? {
            return Err(StandInError::Refused(why));
        }
        let message =
            format!("Merge pull request #{number} from {}/{}\n\n{}", pull.head.owner, pull.head.branch, pull.title);
        let sha = self.merge_commit(repo, &pull, &message, login).await?;
        self.mark_merged(repo, number, &sha, login)?;
        let base = format!("refs/heads/{}", pull.base);
        self.advance(repo, &base, &pull.base_sha, &sha, login, ActivityKind::Merge).await?;
        Ok(sha)
    }

    pub(super) async fn merge_commit(
        &self,
        repo: i64,
        pull: &Pull,
        message: &str,
        login: &str,
    ) -> Result<String, StandInError> {
        let dir = self.git_dir(repo);
        let Some(tree) = git::merge_tree(&dir, &pull.base_sha, &pull.head.sha).await? else {
            return Err(StandInError::Refused("Merge conflict".to_owned()));
        };
        git::commit_tree(&dir, &tree, &[&pull.base_sha, &pull.head.sha], message, login).await
    }

    pub(super) fn mark_merged(&self, repo: i64, number: i64, sha: &str, login: &str) -> Result<(), StandInError> {
        self.write(|m| {
            let pull = pull_mut(m, repo, number)?;
            pull.open = false;
            pull.queued = None;
            pull.merged = Some((sha.to_owned(), login.to_owned(), now()));
            (pull.closed_at, pull.updated_at) = (Some(now()), now());
            Ok::<_, StandInError>(())
        })?;
        self.tell_pull(repo, number, "closed", login, json!({}));
        Ok(())
    }

    /// Sends a `pull_request` event.
    pub(super) fn tell_pull(&self, repo: i64, number: i64, action: &str, login: &str, more: Value) {
        let payload = self.read(|m| {
            let r = m.repos.get(&repo)?;
            let mut value = self.envelope(m, r, login);
            value["action"] = json!(action);
            value["number"] = json!(number);
            value["pull_request"] = shapes::pull(&self.links(), m, r, r.pulls.get(&number)?, true);
            if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
                value.extend(more);
            }
            Some(value)
        });
        if let Some(payload) = payload {
            self.emit(repo, "pull_request", &payload, None);
        }
    }
}

//! Repositories: made, forked, renamed, archived, removed; branches moved without a git client.

use std::collections::HashSet;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{StandIn, StandInError, ensure, name_ok, repo_mut, repo_of};
use crate::demo::github::{
    git,
    model::{Repo, UserKind},
};

impl StandIn {
    /// Makes an empty repository and answers its number. The owner is made if missing.
    ///
    /// # Errors
    /// The name is taken or not one, or git refuses.
    pub async fn create_repository(
        &self,
        owner: &str,
        name: &str,
        default_branch: &str,
        private: bool,
    ) -> Result<i64, StandInError> {
        let id = self.new_repo(owner, name, default_branch, private, None)?;
        git::create(&self.git_dir(id), default_branch, None).await?;
        Ok(id)
    }

    /// Forks a repository into somebody's account, with its branches and tags.
    ///
    /// # Errors
    /// There is no such repository, or they have one of this name.
    pub async fn fork(&self, repo: i64, owner: &str) -> Result<i64, StandInError> {
        let (name, branch, private) =
            self.read(|m| repo_of(m, repo).map(|r| (r.name.clone(), r.default_branch.clone(), r.private)))?;
        let id = self.new_repo(owner, &name, &branch, private, Some(repo))?;
        git::create(&self.git_dir(id), &branch, Some(&self.git_dir(repo))).await?;
        Ok(id)
    }

    fn new_repo(
        &self,
        owner: &str,
        name: &str,
        branch: &str,
        private: bool,
        fork_of: Option<i64>,
    ) -> Result<i64, StandInError> {
        if !name_ok(name) {
            return Err(StandInError::Refused(format!("{name:?} is not a name for a repository")));
        }
        self.write(|m| {
            ensure(m, owner, UserKind::User)?;
            if m.repo(owner, name).is_some() {
                return Err(StandInError::Refused(format!("{owner}/{name} exists already")));
            }
            let id = m.small_id();
            let mut repo = Repo::new(id, owner, name, branch, private);
            repo.fork_of = fork_of;
            // A new repository takes the address from an older one that had it.
            m.redirects.remove(&format!("{owner}/{name}").to_lowercase());
            m.repos.insert(id, repo);
            Ok(id)
        })
    }

    /// Renames a repository; the old address redirects ("Renaming a repository").
    ///
    /// # Errors
    /// There is no such repository, or the name is taken.
    pub fn rename(&self, repo: i64, name: &str, sender: &str) -> Result<(), StandInError> {
        let owner = self.read(|m| repo_of(m, repo).map(|r| r.owner.clone()))?;
        let from = self.move_repo(repo, &owner, name)?;
        self.tell_repo(repo, "renamed", sender, json!({"changes": {"repository": {"name": {"from": from.1}}}}));
        Ok(())
    }

    /// Gives a repository to another account; the old address redirects. The App stays only if it is installed there.
    ///
    /// # Errors
    /// There is no such repository, or the name is taken.
    pub fn transfer(&self, repo: i64, owner: &str, sender: &str) -> Result<(), StandInError> {
        self.write(|m| ensure(m, owner, UserKind::User))?;
        let name = self.read(|m| repo_of(m, repo).map(|r| r.name.clone()))?;
        let from = self.move_repo(repo, owner, &name)?;
        self.tell_repo(
            repo,
            "transferred",
            sender,
            json!({"changes": {"owner": {"from": {"user": {"login": from.0}}}}}),
        );
        Ok(())
    }

    fn move_repo(&self, repo: i64, owner: &str, name: &str) -> Result<(String, String), StandInError> {
        if !name_ok(name) {
            return Err(StandInError::Refused(format!("{name:?} is not a name for a repository")));
        }
        self.write(|m| {
            if m.repo(owner, name).is_some_and(|r| r.id != repo) {
                return Err(StandInError::Refused(format!("{owner}/{name} exists already")));
            }
            let found = repo_mut(m, repo)?;
            let from = (found.owner.clone(), found.name.clone());
            (found.owner, found.name) = (owner.to_owned(), name.to_owned());
            m.redirects.insert(format!("{}/{}", from.0, from.1).to_lowercase(), repo);
            Ok(from)
        })
    }

    /// Archives a repository or takes that back: no pushes, no writes through the API while it is.
    ///
    /// # Errors
    /// There is no such repository.
    pub fn archive(&self, repo: i64, archived: bool, sender: &str) -> Result<(), StandInError> {
        self.write(|m| repo_mut(m, repo).map(|r| r.archived = archived))?;
        self.tell_repo(repo, if archived { "archived" } else { "unarchived" }, sender, json!({}));
        Ok(())
    }

    /// Makes a repository private or public.
    ///
    /// # Errors
    /// There is no such repository.
    pub fn set_private(&self, repo: i64, private: bool, sender: &str) -> Result<(), StandInError> {
        self.write(|m| repo_mut(m, repo).map(|r| r.private = private))?;
        self.tell_repo(repo, if private { "privatized" } else { "publicized" }, sender, json!({}));
        Ok(())
    }

    /// Another default branch: `repository.edited`.
    ///
    /// # Errors
    /// There is no such repository.
    pub async fn set_default_branch(&self, repo: i64, branch: &str, sender: &str) -> Result<(), StandInError> {
        let head = format!("refs/heads/{branch}");
        git::run(&self.git_dir(repo), &["symbolic-ref", "HEAD", &head]).await?;
        let from =
            self.write(|m| repo_mut(m, repo).map(|r| std::mem::replace(&mut r.default_branch, branch.to_owned())))?;
        self.tell_repo(repo, "edited", sender, json!({"changes": {"default_branch": {"from": from}}}));
        Ok(())
    }

    /// Deletes a repository. Pull requests from it lose their head's repository and are closed.
    ///
    /// # Errors
    /// There is no such repository.
    pub fn delete_repository(&self, repo: i64, sender: &str) -> Result<(), StandInError> {
        self.read(|m| repo_of(m, repo).map(drop))?;
        // Told while there still is something to describe.
        self.tell_repo(repo, "deleted", sender, json!({}));
        let orphans = self.write(|m| {
            m.repos.remove(&repo);
            m.redirects.retain(|_, id| *id != repo);
            for i in m.installations.values_mut() {
                if let Some(set) = &mut i.repos {
                    set.remove(&repo);
                }
            }
            let mut orphans = Vec::new();
            for base in m.repos.values_mut() {
                for pull in base.pulls.values_mut().filter(|p| p.head.repo == Some(repo)) {
                    pull.head.repo = None;
                    if pull.open {
                        orphans.push((base.id, pull.number));
                    }
                }
            }
            orphans
        });
        for (base, number) in orphans {
            self.close_pull(base, number, sender)?;
        }
        Ok(())
    }

    /// Checks that must be green before a branch takes a merge.
    ///
    /// # Errors
    /// There is no such repository.
    pub fn require_checks(&self, repo: i64, branch: &str, checks: &[&str]) -> Result<(), StandInError> {
        let checks = checks.iter().map(|c| (*c).to_owned()).collect();
        self.write(|m| repo_mut(m, repo).map(|r| drop(r.required_checks.insert(branch.to_owned(), checks))))
    }

    fn tell_repo(&self, repo: i64, action: &str, sender: &str, more: Value) {
        let payload = self.read(|m| {
            let mut value = self.envelope(m, m.repos.get(&repo)?, sender);
            value["action"] = json!(action);
            if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
                value.extend(more);
            }
            Some(value)
        });
        if let Some(payload) = payload {
            self.emit(repo, "repository", &payload, None);
        }
    }

    /// Commits files to a branch (made from the default branch, or from nothing, when missing) and pushes it as
    /// somebody, webhooks and all. No content deletes the file. Answers the commit.
    ///
    /// # Errors
    /// Git refuses, or the repository is archived.
    pub async fn commit(
        &self,
        repo: i64,
        branch: &str,
        files: &[(&str, Option<&str>)],
        message: &str,
        login: &str,
    ) -> Result<String, StandInError> {
        self.write(|m| ensure(m, login, UserKind::User))?;
        let default = self.read(|m| repo_of(m, repo).map(|r| r.default_branch.clone()))?;
        let lock = self.repo_lock(repo);
        let held = lock.lock().await;
        let dir = self.git_dir(repo);
        let before = git::refs(&dir).await?;
        let from = [branch, default.as_str()].into_iter().find_map(|b| before.get(&format!("refs/heads/{b}")));
        let mut stream = format!(
            "commit refs/heads/{branch}\ncommitter {login} <{login}@users.noreply.github.com> {} +0000\ndata {}\n{message}\n",
            crate::clock::now().as_second(),
            message.len(),
        );
        if let Some(from) = from {
            stream.push_str(&format!("from {from}\n"));
        }
        let mut seen = HashSet::new();
        for (path, content) in files.iter().filter(|(p, _)| seen.insert(*p)) {
            let mode = if path.ends_with(".sh") { "100755" } else { "100644" };
            match content {
                Some(text) => {
                    stream.push_str(&format!("M {mode} inline {}\ndata {}\n{text}\n", quoted(path), text.len()));
                }
                None => stream.push_str(&format!("D {}\n", quoted(path))),
            }
        }
        let mut child = git::command(Some(&dir))
            .args(["fast-import", "--quiet", "--force"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .map_err(StandInError::io("cannot start git"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(stream.as_bytes()).await.map_err(StandInError::io("cannot write to git"))?;
        }
        let out = child.wait_with_output().await.map_err(StandInError::io("cannot wait for git"))?;
        if !out.status.success() {
            let stderr = String::from_utf8_lossy(&out.stderr).trim().to_owned();
            return Err(StandInError::Git { command: "fast-import".to_owned(), stderr });
        }
        let after = git::refs(&dir).await?;
        drop(held);
        let sha = after.get(&format!("refs/heads/{branch}")).cloned().unwrap_or_default();
        self.after_push(repo, login, &before, &after).await?;
        Ok(sha)
    }

    /// Points a branch at another commit, or deletes it (`to` empty), as a push by somebody would.
    ///
    /// # Errors
    /// Git refuses.
    pub async fn move_branch(&self, repo: i64, branch: &str, to: &str, login: &str) -> Result<(), StandInError> {
        let lock = self.repo_lock(repo);
        let held = lock.lock().await;
        let dir = self.git_dir(repo);
        let before = git::refs(&dir).await?;
        let name = format!("refs/heads/{branch}");
        let old = before.get(&name).map_or(git::ZERO, String::as_str);
        git::move_ref(&dir, &name, to, old).await?;
        let after = git::refs(&dir).await?;
        drop(held);
        self.after_push(repo, login, &before, &after).await
    }
}

/// A path for `git fast-import`.
fn quoted(path: &str) -> String {
    format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

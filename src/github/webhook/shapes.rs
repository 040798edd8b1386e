//! What payloads and the API's answers describe in the same way: people, repositories, pull requests.

use serde::Deserialize;

use super::cut;
use crate::domain::{
    event::{Actor, Pull, RepoInfo},
    ids::{InstallationId, RepoId, RepoRef, Sha},
};

#[derive(Deserialize)]
pub(crate) struct Login {
    #[serde(default)]
    login: Option<String>,
    // Owners in push payloads have both; very old Enterprise servers only this.
    #[serde(default)]
    name: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

impl Login {
    fn text(&self) -> Option<&str> {
        self.login.as_deref().or(self.name.as_deref()).filter(|l| !l.is_empty())
    }
}

/// GitHub shows deleted accounts as the user `ghost`, who may do nothing anywhere.
pub(crate) fn actor(user: Option<&Login>) -> Actor {
    let login = user.and_then(Login::text).unwrap_or("ghost");
    let bot = login.ends_with("[bot]") || user.and_then(|u| u.kind.as_deref()) == Some("Bot");
    Actor { login: cut(login, 200), bot }
}

#[derive(Deserialize)]
pub(crate) struct Repository {
    id: i64,
    name: String,
    #[serde(default)]
    owner: Option<Login>,
    #[serde(default)]
    full_name: Option<String>,
    #[serde(default)]
    default_branch: Option<String>,
    #[serde(default)]
    archived: Option<bool>,
    #[serde(default)]
    private: Option<bool>,
}

/// A user's or repository's name as GitHub allows it; anything else must not come near a path or URL.
fn plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// The part of git's rules for ref names that keeps them harmless in files, logs and arguments ("git-check-ref-format").
pub(super) fn plain_ref(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 1024
        && !name.contains("..")
        && !name.starts_with('/')
        && !name.ends_with('/')
        && !name.chars().any(|c| c.is_control() || " ~^:?*[\\".contains(c))
}

impl Repository {
    /// What the rest of the program knows of a repository.
    pub(crate) fn info(&self, installation: InstallationId) -> Result<RepoInfo, String> {
        let owner = self
            .owner
            .as_ref()
            .and_then(Login::text)
            .or_else(|| self.full_name.as_deref()?.split_once('/').map(|(o, _)| o))
            .ok_or("repository.owner names nobody")?;
        if self.id <= 0 {
            return Err("repository.id is not positive".to_owned());
        }
        for name in [owner, &self.name] {
            if !plain_name(name) {
                return Err(format!("{:?} is no name of a user or repository", cut(name, 80)));
            }
        }
        let default_branch = self.default_branch.clone().ok_or("repository.default_branch is missing")?;
        if !plain_ref(&default_branch) {
            return Err(format!("repository.default_branch {:?} is no branch name", cut(&default_branch, 80)));
        }
        Ok(RepoInfo {
            repo: RepoRef { id: RepoId(self.id), owner: owner.to_owned(), name: self.name.clone(), installation },
            default_branch,
            archived: self.archived.unwrap_or(false),
            private: self.private.unwrap_or(false),
        })
    }
}

#[derive(Deserialize)]
struct WithId {
    id: i64,
}

#[derive(Deserialize)]
struct PullSide {
    sha: String,
    #[serde(rename = "ref")]
    name: String,
    // null when the fork was deleted
    #[serde(default)]
    repo: Option<WithId>,
}

/// A pull request, in payloads and in the API alike.
#[derive(Deserialize)]
pub(crate) struct PullRequest {
    number: i64,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    user: Option<Login>,
    #[serde(default)]
    draft: Option<bool>,
    state: String,
    head: PullSide,
    base: PullSide,
}

impl PullRequest {
    /// As the rest of the program knows it.
    pub(crate) fn pull(&self) -> Result<Pull, String> {
        for name in [&self.head.name, &self.base.name] {
            if !plain_ref(name) {
                return Err(format!("{:?} is no branch name", cut(name, 80)));
            }
        }
        Ok(Pull {
            number: self.number,
            title: self.title.clone().unwrap_or_default(),
            author: actor(self.user.as_ref()),
            head: sha(&self.head.sha, "pull_request.head.sha")?,
            head_ref: self.head.name.clone(),
            head_repo: self.head.repo.as_ref().map(|r| RepoId(r.id)),
            base_ref: self.base.name.clone(),
            base: sha(&self.base.sha, "pull_request.base.sha")?,
            draft: self.draft.unwrap_or(false),
            open: self.state == "open",
        })
    }
}

/// A commit's name out of this field.
pub(super) fn sha(text: &str, field: &str) -> Result<Sha, String> {
    Sha::new(text).map_err(|e| format!("{field}: {e}"))
}

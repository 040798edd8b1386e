//! The App, its installations, repositories, branches, pull requests, and what git needs.
//!
//! Sources: "REST API endpoints for GitHub Apps", "… installations", "… repositories", "… branches", "… pulls".

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::{
    auth::{Purpose, TokenKey},
    call::{Call, Identity, under},
    client::GitHub,
    error::GitHubError,
    webhook::shapes::{PullRequest, Repository},
};
use crate::domain::{
    event::{Pull, RepoInfo},
    ids::{InstallationId, RepoRef, Sha},
};

/// The App itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AppInfo {
    /// Its number.
    pub id: i64,
    /// Its name in addresses; its bot's login is this with `[bot]`.
    #[serde(default)]
    pub slug: String,
    /// Its shown name.
    pub name: String,
    /// What it asks for, such as `checks` and `write`.
    #[serde(default)]
    pub permissions: BTreeMap<String, String>,
    /// The webhooks that it takes.
    #[serde(default)]
    pub events: Vec<String>,
}

/// An installation of the App.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallationInfo {
    /// Its number.
    pub id: InstallationId,
    /// Login of the user or organisation (an enterprise's slug); empty if GitHub does not say.
    pub account: String,
    /// Suspended: no tokens are given.
    pub suspended: bool,
    /// What its owner has accepted.
    pub permissions: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct WireInstallation {
    id: i64,
    #[serde(default)]
    account: Option<WireAccount>,
    #[serde(default)]
    suspended_at: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    permissions: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct WireAccount {
    #[serde(default)]
    login: Option<String>,
    #[serde(default)]
    slug: Option<String>,
}

#[derive(Deserialize)]
struct RepositoryList {
    repositories: Vec<Repository>,
}

#[derive(Deserialize)]
struct WireBranch {
    name: String,
    commit: WireCommit,
}

#[derive(Deserialize)]
struct WireCommit {
    sha: Sha,
}

fn unreadable(what: &str) -> impl Fn(String) -> GitHubError {
    move |why| GitHubError::Decode { what: what.to_owned(), why }
}

/// One odd entry of a list must not hide the others.
fn readable<T>(kind: &str, entry: Result<T, String>) -> Option<T> {
    entry.inspect_err(|why| tracing::warn!(kind, why, "an entry of GitHub's list cannot be read and is left out")).ok()
}

impl GitHub {
    /// The App as GitHub knows it: also proves the key.
    ///
    /// # Errors
    /// [`GitHubError`].
    pub async fn app(&self) -> Result<AppInfo, GitHubError> {
        self.json(Call::get(self.url(&["app"], &[])?, Identity::App)).await
    }

    /// All installations of the App, suspended ones too.
    ///
    /// # Errors
    /// [`GitHubError`].
    pub async fn installations(&self) -> Result<Vec<InstallationInfo>, GitHubError> {
        let url = self.url(&["app", "installations"], &[])?;
        let all: Vec<WireInstallation> = self.pages(&url, Identity::App, |page: Vec<WireInstallation>| page).await?;
        Ok(all
            .into_iter()
            .map(|i| InstallationInfo {
                id: InstallationId(i.id),
                account: i.account.and_then(|a| a.login.or(a.slug)).unwrap_or_default(),
                suspended: i.suspended_at.is_some(),
                permissions: i.permissions,
            })
            .collect())
    }

    /// The repositories that an installation gives access to.
    ///
    /// # Errors
    /// [`GitHubError`].
    pub async fn installation_repositories(&self, installation: InstallationId) -> Result<Vec<RepoInfo>, GitHubError> {
        let url = self.url(&["installation", "repositories"], &[])?;
        let key = TokenKey { installation, repo: None, purpose: Purpose::Metadata };
        let all: Vec<Repository> =
            self.pages(&url, Identity::Installation(key), |page: RepositoryList| page.repositories).await?;
        Ok(all.iter().filter_map(|r| readable("repository", r.info(installation))).collect())
    }

    /// A repository as it is now. Follows a rename: compare the answer's name with the one asked for.
    ///
    /// # Errors
    /// [`GitHubError`].
    pub async fn repository(&self, repo: &RepoRef) -> Result<RepoInfo, GitHubError> {
        let url = self.repo_url(repo, &[], &[])?;
        let call = Call::get(url, Identity::of(repo, Purpose::Metadata)).fresh();
        let found: Repository = self.json(call).await?;
        found.info(repo.installation).map_err(unreadable("GET /repos"))
    }

    /// All branches with their heads.
    ///
    /// # Errors
    /// [`GitHubError`].
    pub async fn branches(&self, repo: &RepoRef) -> Result<Vec<(String, Sha)>, GitHubError> {
        let url = self.repo_url(repo, &["branches"], &[])?;
        let identity = Identity::of(repo, Purpose::Contents);
        let all: Vec<WireBranch> = self.pages(&url, identity, |page: Vec<WireBranch>| page).await?;
        Ok(all.into_iter().map(|b| (b.name, b.commit.sha)).collect())
    }

    /// All open pull requests.
    ///
    /// # Errors
    /// [`GitHubError`].
    pub async fn open_pulls(&self, repo: &RepoRef) -> Result<Vec<Pull>, GitHubError> {
        let url = self.repo_url(repo, &["pulls"], &[("state", "open")])?;
        let identity = Identity::of(repo, Purpose::Pulls);
        let all: Vec<PullRequest> = self.pages(&url, identity, |page: Vec<PullRequest>| page).await?;
        Ok(all.iter().filter_map(|p| readable("pull request", p.pull())).collect())
    }

    /// A pull request as it is now.
    ///
    /// # Errors
    /// [`GitHubError`].
    pub async fn pull(&self, repo: &RepoRef, number: i64) -> Result<Pull, GitHubError> {
        let url = self.repo_url(repo, &["pulls", &number.to_string()], &[])?;
        let call = Call::get(url, Identity::of(repo, Purpose::Pulls)).fresh();
        self.json::<PullRequest>(call).await?.pull().map_err(unreadable("GET pulls"))
    }

    /// A token that can fetch this repository's code and nothing else. It lasts at least five minutes. Never put it
    /// into argv, an address or `.git/config`.
    ///
    /// # Errors
    /// [`GitHubError`].
    pub async fn git_token(&self, repo: &RepoRef) -> Result<SecretString, GitHubError> {
        self.token(TokenKey { installation: repo.installation, repo: Some(repo.id), purpose: Purpose::Contents }).await
    }

    /// Where git fetches this repository: on the configured host, whatever a payload says.
    ///
    /// # Errors
    /// [`GitHubError`] where the repository's name is none.
    pub fn clone_url(&self, repo: &RepoRef) -> Result<Url, GitHubError> {
        under(self.web_url(), &[&repo.owner, &repo.name])?;
        under(self.web_url(), &[&repo.owner, &format!("{}.git", repo.name)])
    }
}

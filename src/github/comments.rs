//! Comments, reactions, and what a person may do.
//!
//! Sources: "REST API endpoints for issue comments", "REST API endpoints for reactions", "REST API endpoints for
//! collaborators", "REST API endpoints for team members".

use http::Method;
use serde::{Deserialize, Serialize};

use super::{
    auth::Purpose,
    call::{Call, Identity},
    client::GitHub,
    error::GitHubError,
    limits::Cost,
    text::fit_markdown,
};
use crate::domain::ids::RepoRef;

/// GitHub says 65,536 characters; the rest is headroom, and bytes are counted.
const LONGEST_COMMENT: usize = 65_000;

/// A comment of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    /// GitHub's number.
    pub id: i64,
    /// Its Markdown.
    pub body: String,
}

#[derive(Deserialize)]
struct WireComment {
    id: i64,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    user: Option<WireUser>,
    #[serde(default)]
    performed_via_github_app: Option<WireApp>,
}

#[derive(Deserialize)]
struct WireUser {
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct WireApp {
    id: i64,
}

impl WireComment {
    /// Anybody can write our marker into a comment; only ours are edited. Servers that do not name the App at least
    /// say that a bot wrote it.
    fn ours(&self, app_id: i64) -> bool {
        match &self.performed_via_github_app {
            Some(app) => app.id == app_id,
            None => self.user.as_ref().and_then(|u| u.kind.as_deref()) == Some("Bot"),
        }
    }
}

#[derive(Serialize)]
struct CommentBody<'a> {
    body: &'a str,
}

#[derive(Deserialize)]
struct Created {
    id: i64,
}

/// Where a comment that gets a reaction stands. A review's body takes none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommentKind {
    /// On an issue or in a pull request's conversation.
    Issue,
    /// On a line of a pull request.
    Review,
    /// On a commit.
    Commit,
}

/// The reactions that the product uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reaction {
    /// 👀 taken.
    Eyes,
    /// 🚀 done.
    Rocket,
    /// 😕 refused.
    Confused,
}

#[derive(Serialize)]
struct ReactionBody {
    content: Reaction,
}

/// What a person may do in a repository, each level with all below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Nothing.
    None,
    /// See it.
    Read,
    /// Sort issues and pull requests.
    Triage,
    /// Push.
    Write,
    /// Manage without sensitive actions.
    Maintain,
    /// Everything.
    Admin,
}

#[derive(Deserialize)]
struct WirePermission {
    #[serde(default)]
    user: Option<WirePermissionUser>,
}

#[derive(Deserialize)]
struct WirePermissionUser {
    #[serde(default)]
    permissions: Option<Booleans>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Booleans {
    pull: bool,
    triage: bool,
    push: bool,
    maintain: bool,
    admin: bool,
}

#[derive(Deserialize)]
struct Membership {
    state: String,
}

impl GitHub {
    /// Our comment on an issue or pull request that holds `marker`; the oldest, if there are several.
    ///
    /// # Errors
    /// [`GitHubError`].
    pub async fn find_comment(
        &self,
        repo: &RepoRef,
        number: i64,
        marker: &str,
    ) -> Result<Option<Comment>, GitHubError> {
        let url = self.repo_url(repo, &["issues", &number.to_string(), "comments"], &[])?;
        let identity = Identity::of(repo, Purpose::Comments);
        let all: Vec<WireComment> = self.pages(&url, identity, |page: Vec<WireComment>| page).await?;
        Ok(all
            .into_iter()
            .filter(|c| c.ours(self.app_id()))
            .filter_map(|c| Some(Comment { id: c.id, body: c.body.filter(|b| b.contains(marker))? }))
            .min_by_key(|c| c.id))
    }

    /// Writes a new comment on an issue or pull request and returns its number.
    ///
    /// # Errors
    /// [`GitHubError`]; after [`GitHubError::Ambiguous`] use [`Self::find_comment`] first.
    pub async fn create_comment(&self, repo: &RepoRef, number: i64, body: &str) -> Result<i64, GitHubError> {
        let url = self.repo_url(repo, &["issues", &number.to_string(), "comments"], &[])?;
        let body = fit_markdown(body, LONGEST_COMMENT);
        let identity = Identity::of(repo, Purpose::Comments);
        let call = Call::write(Method::POST, url, identity, Cost::Create, &CommentBody { body: &body })?;
        Ok(self.json::<Created>(call).await?.id)
    }

    /// Replaces the text of a comment of ours.
    ///
    /// # Errors
    /// [`GitHubError`]. Doing it again does no harm.
    pub async fn update_comment(&self, repo: &RepoRef, comment_id: i64, body: &str) -> Result<(), GitHubError> {
        let url = self.repo_url(repo, &["issues", "comments", &comment_id.to_string()], &[])?;
        let body = fit_markdown(body, LONGEST_COMMENT);
        let identity = Identity::of(repo, Purpose::Comments);
        let call = Call::write(Method::PATCH, url, identity, Cost::Create, &CommentBody { body: &body })?;
        self.json::<Created>(call).await.map(|_| ())
    }

    /// Makes one comment of ours with this marker show this text, and returns its number.
    ///
    /// `marker` is a hidden line such as `<!-- switchover:status -->`; it is put before the body if it is not there.
    /// Without `known`, and with `ambiguous_before`, the comment is looked for first.
    ///
    /// # Errors
    /// [`GitHubError`]; after [`GitHubError::Ambiguous`] pass `ambiguous_before`.
    pub async fn ensure_comment(
        &self,
        repo: &RepoRef,
        number: i64,
        marker: &str,
        body: &str,
        known: Option<i64>,
        ambiguous_before: bool,
    ) -> Result<i64, GitHubError> {
        let body = if body.contains(marker) { body.to_owned() } else { format!("{marker}\n{body}") };
        let mut known = known;
        if known.is_none() && ambiguous_before {
            let found = self.find_comment(repo, number, marker).await?;
            if let Some(same) = found.as_ref().filter(|c| c.body == body) {
                return Ok(same.id);
            }
            known = found.map(|c| c.id);
        }
        match known {
            Some(id) => self.update_comment(repo, id, &body).await.map(|()| id),
            None => self.create_comment(repo, number, &body).await,
        }
    }

    /// Puts a reaction on a comment. GitHub keeps one of each kind from each user, so doing it again does no harm.
    ///
    /// # Errors
    /// [`GitHubError`].
    pub async fn react(
        &self,
        repo: &RepoRef,
        kind: CommentKind,
        comment_id: i64,
        reaction: Reaction,
    ) -> Result<(), GitHubError> {
        let id = comment_id.to_string();
        let rest: &[&str] = match kind {
            CommentKind::Issue => &["issues", "comments", &id, "reactions"],
            CommentKind::Review => &["pulls", "comments", &id, "reactions"],
            CommentKind::Commit => &["comments", &id, "reactions"],
        };
        let url = self.repo_url(repo, rest, &[])?;
        let identity = Identity::of(repo, Purpose::Comments);
        let call = Call::write(Method::POST, url, identity, Cost::Create, &ReactionBody { content: reaction })?;
        self.json::<serde::de::IgnoredAny>(call.repeatable()).await.map(|_| ())
    }

    /// What a user may do, decided by the booleans of `user.permissions`: `role_name` is whatever an organisation calls
    /// its own role. Where GitHub does not say, nothing.
    ///
    /// # Errors
    /// [`GitHubError`]; an unknown user is no error but [`Permission::None`].
    pub async fn permission(&self, repo: &RepoRef, login: &str) -> Result<Permission, GitHubError> {
        let url = self.repo_url(repo, &["collaborators", login, "permission"], &[])?;
        let call = Call::get(url, Identity::of(repo, Purpose::Metadata));
        let may = match self.json::<WirePermission>(call).await {
            Ok(answer) => answer.user.and_then(|u| u.permissions).unwrap_or_default(),
            Err(GitHubError::NotFound { .. }) => return Ok(Permission::None),
            Err(error) => return Err(error),
        };
        Ok(match may {
            Booleans { admin: true, .. } => Permission::Admin,
            Booleans { maintain: true, .. } => Permission::Maintain,
            Booleans { push: true, .. } => Permission::Write,
            Booleans { triage: true, .. } => Permission::Triage,
            Booleans { pull: true, .. } => Permission::Read,
            _ => Permission::None,
        })
    }

    /// Whether a user is an active member of a team of the organisation that owns the repository. `team` is the slug.
    ///
    /// # Errors
    /// [`GitHubError`]; an unknown team or user is no error but `false`.
    pub async fn team_member(&self, repo: &RepoRef, team: &str, login: &str) -> Result<bool, GitHubError> {
        let url = self.url(&["orgs", &repo.owner, "teams", team, "memberships", login], &[])?;
        match self.json::<Membership>(Call::get(url, Identity::of(repo, Purpose::Members))).await {
            Ok(membership) => Ok(membership.state == "active"),
            Err(GitHubError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

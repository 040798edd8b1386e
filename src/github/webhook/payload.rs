//! Small tolerant structs of GitHub's payloads ("Webhook events and payloads"), and what each becomes.
//!
//! They name only what is acted on; everything else in a payload may come, go or change its type.

use std::fmt::Display;

use serde::{Deserialize, de::DeserializeOwned};

use super::{Peek, WebhookError, cut};
use crate::domain::{
    event::{Actor, Event, InstallationChange, Pull, PullAction, RepoChange, RepoInfo},
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

#[derive(Deserialize)]
struct InstallationRef {
    id: i64,
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
fn plain_ref(name: &str) -> bool {
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

/// What most events have in common; `own` holds what only this event has.
#[derive(Deserialize)]
struct Common<T> {
    repository: Repository,
    #[serde(default)]
    installation: Option<InstallationRef>,
    #[serde(default)]
    sender: Option<Login>,
    #[serde(flatten)]
    own: T,
}

#[derive(Deserialize)]
struct HeadCommit {
    #[serde(default)]
    message: Option<String>,
}

#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    git_ref: String,
    before: String,
    after: String,
    #[serde(default)]
    forced: Option<bool>,
    #[serde(default)]
    head_commit: Option<HeadCommit>,
}

#[derive(Deserialize)]
struct Changes {
    #[serde(default)]
    base: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct PullRequestEvent {
    action: String,
    pull_request: PullRequest,
    #[serde(default)]
    changes: Option<Changes>,
}

#[derive(Deserialize)]
struct MergeGroup {
    head_sha: String,
    head_ref: String,
    base_sha: String,
    base_ref: String,
}

#[derive(Deserialize)]
struct MergeGroupEvent {
    action: String,
    merge_group: MergeGroup,
}

#[derive(Deserialize)]
struct CheckRun {
    name: String,
    head_sha: String,
    #[serde(default)]
    external_id: Option<String>,
}

#[derive(Deserialize)]
struct RequestedAction {
    identifier: String,
}

#[derive(Deserialize)]
struct CheckRunEvent {
    action: String,
    check_run: CheckRun,
    #[serde(default)]
    requested_action: Option<RequestedAction>,
}

#[derive(Deserialize)]
struct CheckSuite {
    head_sha: String,
}

#[derive(Deserialize)]
struct CheckSuiteEvent {
    action: String,
    check_suite: CheckSuite,
}

#[derive(Deserialize)]
struct StatusEvent {
    sha: String,
    state: String,
}

#[derive(Deserialize)]
struct RepositoryEvent {
    action: String,
}

#[derive(Deserialize)]
struct Installation {
    id: i64,
    #[serde(default)]
    account: Option<Account>,
}

// An enterprise account has a slug and no login.
#[derive(Deserialize)]
struct Account {
    #[serde(default)]
    login: Option<String>,
    #[serde(default)]
    slug: Option<String>,
}

impl Installation {
    fn account(&self) -> String {
        self.account.as_ref().and_then(|a| a.login.clone().or_else(|| a.slug.clone())).unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct ListedRepository {
    id: i64,
    full_name: String,
}

#[derive(Deserialize)]
struct InstallationEvent {
    action: String,
    installation: Installation,
    #[serde(default)]
    repositories: Option<Vec<ListedRepository>>,
}

#[derive(Deserialize)]
struct InstallationRepositoriesEvent {
    installation: Installation,
    #[serde(default)]
    repositories_added: Option<Vec<ListedRepository>>,
    #[serde(default)]
    repositories_removed: Option<Vec<ListedRepository>>,
}

fn sha(text: &str, field: &str) -> Result<Sha, String> {
    Sha::new(text).map_err(|e| format!("{field}: {e}"))
}

fn full_ref(text: &str, field: &str) -> Result<String, String> {
    if text.strip_prefix("refs/").is_some_and(plain_ref) && plain_ref(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("{field}: {:?} is no full ref such as refs/heads/main", cut(text, 80)))
    }
}

fn listed(repositories: Option<Vec<ListedRepository>>) -> Vec<(RepoId, String)> {
    repositories.unwrap_or_default().into_iter().map(|r| (RepoId(r.id), r.full_name)).collect()
}

/// What an event needs in hand besides its own part.
struct Where {
    repo: RepoInfo,
    sender: Actor,
}

struct Reader<'a> {
    event: &'a str,
    body: &'a [u8],
    peek: &'a Peek,
}

impl Reader<'_> {
    fn parse<T: DeserializeOwned>(&self) -> Result<T, WebhookError> {
        serde_json::from_slice(self.body).map_err(|e| self.misfit(e))
    }

    fn common<T: DeserializeOwned>(&self) -> Result<(Where, T), WebhookError> {
        let common: Common<T> = self.parse()?;
        let installation = InstallationId(common.installation.map_or(0, |i| i.id));
        let repo = common.repository.info(installation).map_err(|e| self.misfit(e))?;
        Ok((Where { repo, sender: actor(common.sender.as_ref()) }, common.own))
    }

    fn misfit(&self, why: impl Display) -> WebhookError {
        WebhookError::misfit(self.event, why)
    }

    fn ignored(&self, reason: impl Into<String>) -> Event {
        Event::Ignored { reason: reason.into(), repo: self.peek.repo_id }
    }

    fn action_ignored(&self, action: &str) -> Event {
        self.ignored(format!("{} {:?} is not acted on", self.event, cut(action, 80)))
    }

    fn push(&self) -> Result<Event, WebhookError> {
        let (at, push): (_, Push) = self.common()?;
        let read = || {
            Ok::<_, String>(Event::Push {
                git_ref: full_ref(&push.git_ref, "ref")?,
                before: sha(&push.before, "before")?,
                after: sha(&push.after, "after")?,
                forced: push.forced.unwrap_or(false),
                message: push.head_commit.and_then(|c| c.message).unwrap_or_default(),
                repo: at.repo,
                sender: at.sender,
            })
        };
        read().map_err(|e| self.misfit(e))
    }

    fn pull_request(&self) -> Result<Event, WebhookError> {
        let (at, event): (_, PullRequestEvent) = self.common()?;
        let action = match event.action.as_str() {
            "opened" => PullAction::Opened,
            "synchronize" => PullAction::Synchronize,
            "reopened" => PullAction::Reopened,
            "ready_for_review" => PullAction::ReadyForReview,
            "closed" => PullAction::Closed,
            "edited" if event.changes.is_some_and(|c| c.base.is_some()) => PullAction::BaseChanged,
            "edited" => return Ok(self.ignored("the pull request's text was edited, not its base")),
            other => return Ok(self.action_ignored(other)),
        };
        let pull = event.pull_request.pull().map_err(|e| self.misfit(e))?;
        Ok(Event::PullRequest { repo: at.repo, action, pull, sender: at.sender })
    }

    fn merge_group(&self) -> Result<Event, WebhookError> {
        let (at, event): (_, MergeGroupEvent) = self.common()?;
        let destroyed = match event.action.as_str() {
            "checks_requested" => false,
            "destroyed" => true,
            other => return Ok(self.action_ignored(other)),
        };
        let group = event.merge_group;
        let read = || {
            Ok::<_, String>(Event::MergeGroup {
                head: sha(&group.head_sha, "merge_group.head_sha")?,
                head_ref: full_ref(&group.head_ref, "merge_group.head_ref")?,
                base: sha(&group.base_sha, "merge_group.base_sha")?,
                base_ref: full_ref(&group.base_ref, "merge_group.base_ref")?,
                destroyed,
                repo: at.repo,
                sender: at.sender,
            })
        };
        read().map_err(|e| self.misfit(e))
    }

    fn check_run(&self) -> Result<Event, WebhookError> {
        let (at, event): (_, CheckRunEvent) = self.common()?;
        let head = sha(&event.check_run.head_sha, "check_run.head_sha").map_err(|e| self.misfit(e))?;
        let external_id = event.check_run.external_id.filter(|id| !id.is_empty());
        match event.action.as_str() {
            "rerequested" => Ok(Event::Rerun {
                repo: at.repo,
                head,
                check: Some(event.check_run.name),
                external_id,
                sender: at.sender,
            }),
            "requested_action" => {
                let identifier =
                    event.requested_action.ok_or_else(|| self.misfit("requested_action is missing"))?.identifier;
                let Some(external_id) = external_id else {
                    return Ok(self.ignored("the button's check has no key: it is not one of ours"));
                };
                Ok(Event::Button { repo: at.repo, head, identifier, external_id, sender: at.sender })
            }
            "completed" => Ok(Event::CheckCompleted { repo: at.repo, head }),
            other => Ok(self.action_ignored(other)),
        }
    }

    fn check_suite(&self) -> Result<Event, WebhookError> {
        let (at, event): (_, CheckSuiteEvent) = self.common()?;
        match event.action.as_str() {
            "rerequested" => {
                let head = sha(&event.check_suite.head_sha, "check_suite.head_sha").map_err(|e| self.misfit(e))?;
                Ok(Event::Rerun { repo: at.repo, head, check: None, external_id: None, sender: at.sender })
            }
            "requested" => Ok(self.ignored("a check suite was asked for: the push itself is acted on")),
            "completed" => Ok(self.ignored("a check suite ended: its check runs have told so already")),
            other => Ok(self.action_ignored(other)),
        }
    }

    fn status(&self) -> Result<Event, WebhookError> {
        let (at, event): (_, StatusEvent) = self.common()?;
        if event.state == "pending" {
            return Ok(self.ignored("a commit status is pending"));
        }
        let head = sha(&event.sha, "sha").map_err(|e| self.misfit(e))?;
        Ok(Event::CheckCompleted { repo: at.repo, head })
    }

    fn repository(&self) -> Result<Event, WebhookError> {
        let (at, event): (_, RepositoryEvent) = self.common()?;
        let change = match event.action.as_str() {
            "created" | "renamed" | "transferred" | "edited" | "privatized" | "publicized" | "unarchived" => {
                RepoChange::Refreshed
            }
            "archived" => RepoChange::Archived,
            "deleted" => RepoChange::Deleted,
            other => return Ok(self.action_ignored(other)),
        };
        Ok(Event::Repository { repo: at.repo, change })
    }

    fn installation(&self) -> Result<Event, WebhookError> {
        let event: InstallationEvent = self.parse()?;
        let change = match event.action.as_str() {
            "created" => InstallationChange::Created,
            "deleted" => InstallationChange::Deleted,
            "suspend" => InstallationChange::Suspended,
            "unsuspend" => InstallationChange::Unsuspended,
            "new_permissions_accepted" => InstallationChange::PermissionsAccepted,
            other => return Ok(self.action_ignored(other)),
        };
        Ok(Event::Installation {
            account: event.installation.account(),
            installation: InstallationId(event.installation.id),
            change,
            repositories: listed(event.repositories),
        })
    }

    fn installation_repositories(&self) -> Result<Event, WebhookError> {
        let event: InstallationRepositoriesEvent = self.parse()?;
        Ok(Event::InstallationRepositories {
            account: event.installation.account(),
            installation: InstallationId(event.installation.id),
            added: listed(event.repositories_added),
            removed: listed(event.repositories_removed),
        })
    }
}

/// Dispatches by the event's name.
pub(super) fn read(event: &str, body: &[u8], peek: &Peek) -> Result<Event, WebhookError> {
    let reader = Reader { event, body, peek };
    match event {
        "push" => reader.push(),
        "pull_request" => reader.pull_request(),
        "merge_group" => reader.merge_group(),
        "check_run" => reader.check_run(),
        "check_suite" => reader.check_suite(),
        "status" => reader.status(),
        "repository" => reader.repository(),
        "installation" => reader.installation(),
        "installation_repositories" => reader.installation_repositories(),
        "ping" => Ok(Event::Ping),
        other => Ok(reader.ignored(format!("the event {:?} is not acted on", cut(other, 80)))),
    }
}

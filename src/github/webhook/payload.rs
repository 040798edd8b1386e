//! Small tolerant structs of GitHub's payloads ("Webhook events and payloads"), and what each becomes.
//!
//! They name only what is acted on; everything else in a payload may come, go or change its type.

use std::fmt::Display;

use serde::{Deserialize, de::DeserializeOwned};

use super::{
    Peek, WebhookError, cut,
    shapes::{Login, PullRequest, Repository, actor, plain_ref, sha},
};
use crate::domain::{
    event::{Actor, Event, InstallationChange, PullAction, RepoChange, RepoInfo},
    ids::{InstallationId, RepoId},
};

#[derive(Deserialize)]
struct InstallationRef {
    id: i64,
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

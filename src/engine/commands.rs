//! What people ask for: promote, rollback, resume, cancel, re-run. The command line, buttons and (later) comments all
//! come through here, and look at permission, commit and lock again right before the effect.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Engine, EngineError, back,
    releases::{Request, RolloutDetail},
    rollouts::{self, parse},
};
use crate::{
    clock,
    domain::{
        config::DeployFrom,
        ids::{AppName, Digest, RepoId, RolloutId, Sha},
        rollout::{Desired, Kind, Live, Phase, Progress},
    },
    store::{EnvironmentRow, NewRollout, RepoState, RolloutRow, json_of},
};

/// A command on an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// What.
    pub verb: Verb,
    /// `owner/name`; none: the only one that has such an environment.
    pub repository: Option<String>,
    /// The environment; none: the only one.
    pub environment: Option<String>,
    /// The commit that was looked at; anything else is refused.
    pub sha: Option<Sha>,
    /// A rollback's target: a release by its commit (at least seven digits).
    pub to: Option<String>,
    /// Who asks.
    pub actor: String,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Switch a release that waits, or bring the digest of the environment before to this one.
    Promote,
    /// Back to the last good release; holds the environment.
    Rollback,
    /// End the hold.
    Resume,
    /// Stop a release that is not switched yet.
    Cancel,
    /// Build what is live anew, and release that.
    Rebuild,
}

/// One environment, as `status` tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `owner/name`.
    pub repository: String,
    /// The environment.
    pub environment: String,
    /// The commit that is live, as far as the store knows.
    pub sha: Option<Sha>,
    /// Since when.
    pub since: Option<jiff::Timestamp>,
    /// What the live system says.
    pub live: Option<Live>,
    /// Apps that run and are no part of what is live: they were taken out of the configuration, or the release that is gone
    /// back to had none of them.
    #[serde(default)]
    pub left_over: Vec<AppName>,
    /// Why the live system can't be read.
    pub unreadable: Option<String>,
    /// Why automatic releases are stopped, and by whom.
    pub held: Option<String>,
    /// The rollout under way or waiting: commit, phase, words.
    pub rollout: Option<(Sha, String, String)>,
    /// The release that a rollback would bring back.
    pub back_to: Option<Sha>,
}

impl Engine {
    /// Carries a command out; the answer is for people.
    ///
    /// # Errors
    /// [`EngineError::Refused`] with the reason and what to do instead.
    pub async fn command(&self, command: &Command) -> Result<String, EngineError> {
        let (repo, environment) = self.place(command).await?;
        let name = environment.name.clone();
        match command.verb {
            Verb::Resume => {
                if !environment.held {
                    return Ok(format!("{name} is not held: nothing to resume"));
                }
                self.store.hold(repo, &name, None, clock::now()).await?;
                self.wake.rollouts.notify_one();
                Ok(format!("{name} goes on: automatic releases are taken again"))
            }
            Verb::Cancel => self.cancel(repo, &name, command).await,
            Verb::Promote => self.promote(repo, &name, command).await,
            Verb::Rollback => self.rollback(repo, &environment, command).await,
            Verb::Rebuild => self.rebuild(repo, &name, &command.actor).await,
        }
    }

    async fn place(&self, command: &Command) -> Result<(RepoId, EnvironmentRow), EngineError> {
        let mut found = Vec::new();
        let mut known = Vec::new();
        let mut look = |environment: EnvironmentRow, full_name: &str| {
            let repo_fits = command.repository.as_ref().is_none_or(|r| r.eq_ignore_ascii_case(full_name));
            let name_fits = command.environment.as_ref().is_none_or(|e| *e == environment.name);
            known.push(format!("{} of {full_name}", environment.name));
            if repo_fits && name_fits {
                found.push((environment.repo, environment));
            }
        };
        let released = self.store.environments().await?;
        for environment in released.clone() {
            let full_name = self.full_name(environment.repo).await?;
            look(environment, &full_name);
        }
        // The first release to an environment may be a promotion.
        for (environment, full_name) in self.never_released(&released, command).await? {
            look(environment, &full_name);
        }
        match found.len() {
            1 => Ok(found.remove(0)),
            0 if known.is_empty() => {
                Err(EngineError::Refused("nothing was released yet, so there is no environment to command".into()))
            }
            0 => Err(EngineError::Refused(format!("no such environment; there are: {}", known.join(", ")))),
            _ => Err(EngineError::Refused(format!(
                "that could be several environments: {}. Name it, and the repository with --repo OWNER/NAME",
                known.join(", ")
            ))),
        }
    }

    /// Environments of the default branches' configurations to which nothing was released yet, where a command may mean one
    /// of them: a promotion, or a name that is no other's.
    async fn never_released(
        &self,
        released: &[EnvironmentRow],
        command: &Command,
    ) -> Result<Vec<(EnvironmentRow, String)>, EngineError> {
        let named = command.environment.as_ref();
        if command.verb != Verb::Promote && named.is_none_or(|n| released.iter().any(|e| e.name == *n)) {
            return Ok(Vec::new());
        }
        let mut all = Vec::new();
        for repo in self.store.repos().await?.into_iter().filter(|r| r.state == RepoState::Active) {
            let (id, full_name) = (repo.info.repo.id, repo.info.repo.full_name());
            // One that can't be read must not keep a command from another.
            let Ok(Some(policy)) = self.policy(&repo.info).await else { continue };
            for name in policy.environments.keys() {
                if !released.iter().any(|e| e.repo == id && e.name == name.as_str()) {
                    all.push((EnvironmentRow::never_released(id, name.to_string()), full_name.clone()));
                }
            }
        }
        Ok(all)
    }

    pub(super) async fn open_rollout(
        &self,
        repo: RepoId,
        environment: &str,
    ) -> Result<Option<RolloutRow>, EngineError> {
        let open = self.store.open_rollouts().await?;
        let mut here: Vec<_> = open.into_iter().filter(|r| r.repo == repo && r.environment == environment).collect();
        // The active one rules; otherwise a rollback, and the newest that waits.
        here.sort_by_key(|r| (r.state == "active", r.kind == "rollback", r.id));
        Ok(here.pop())
    }

    async fn cancel(&self, repo: RepoId, name: &str, command: &Command) -> Result<String, EngineError> {
        let Some(row) = self.open_rollout(repo, name).await? else {
            return Err(EngineError::Refused(format!("no release to {name} is under way")));
        };
        if let Some(sha) = &command.sha
            && *sha != row.sha
        {
            return Err(EngineError::Refused(format!(
                "{} is under way to {name} now, not {}: look at that one, and cancel it if it shall not go live",
                row.sha.short(),
                sha.short()
            )));
        }
        if row.state == "gated" {
            self.store.gate_rollout(row.id, "done", Some("cancelled before it began"), clock::now()).await?;
            self.wake.report.notify_one();
            return Ok(format!("the release of {} to {name} will not begin", row.sha.short()));
        }
        let progress: Progress = parse(&row.progress)?;
        if progress.phase.past_switch() {
            return Err(EngineError::Refused(format!(
                "too late to cancel: {} is switched already. `switchover rollback {name}` takes it back",
                row.sha.short()
            )));
        }
        self.ask(row.id, |asked| asked.cancel = true).await?;
        Ok(format!("the release of {} to {name} is being stopped", row.sha.short()))
    }

    async fn promote(&self, repo: RepoId, name: &str, command: &Command) -> Result<String, EngineError> {
        if let Some(row) = self.open_rollout(repo, name).await? {
            if let Some(sha) = &command.sha
                && *sha != row.sha
            {
                return Err(EngineError::Refused(format!(
                    "{name} waits with {}, not with {}: look at that one and promote it",
                    row.sha.short(),
                    sha.short()
                )));
            }
            let (sha, progress): (_, Progress) = (row.sha.short(), parse(&row.progress)?);
            if row.kind == "rollback" {
                return Err(EngineError::Refused(format!("{name} is on its way back to {sha}: nothing waits for you")));
            }
            if progress.phase.past_switch() {
                return Err(EngineError::Refused(format!("{sha} is switched to {name} already")));
            }
            let stands = match &row.message {
                Some(message) => message.clone(),
                None if row.state == "active" => format!("phase {}", progress.phase.as_str()),
                None => row.state.clone(),
            };
            if !parse::<Desired>(&row.desired)?.approval {
                return Err(EngineError::Refused(format!(
                    "nothing waits for you: {sha} goes to {name} by itself, without an approval ({stands})"
                )));
            }
            self.ask(row.id, |asked| asked.promote = true).await?;
            if row.state == "active" && matches!(progress.phase, Phase::Approve | Phase::Wait) {
                return Ok(format!("{sha} goes on to {name}"));
            }
            return Ok(format!("{sha} goes on to {name} as soon as it is ready, without waiting for you ({stands})"));
        }
        self.promote_from(repo, name, command).await
    }

    /// The same digests, from the environment before to this one; nothing is built.
    async fn promote_from(&self, repo: RepoId, name: &str, command: &Command) -> Result<String, EngineError> {
        let Some(stored) = self.store.repo(repo).await?.filter(|r| r.state == RepoState::Active) else {
            return Err(EngineError::Refused("the App has no access to the repository any more".into()));
        };
        let policy = self.policy(&stored.info).await?;
        let policy =
            policy.ok_or_else(|| EngineError::Refused("the default branch's configuration has mistakes".into()))?;
        let environment = policy.environments.iter().find(|(n, _)| n.as_str() == name).map(|(_, e)| e);
        let Some(DeployFrom::PromoteFrom(from)) = environment.map(|e| &e.deploy) else {
            return Err(EngineError::Refused(format!(
                "nothing waits for {name}, and it has no `deploy: {{promote_from: …}}`"
            )));
        };
        let live = match self.store.environment(repo, from.as_str()).await?.and_then(|e| e.live_rollout) {
            Some(live) => self.store.rollout(live).await?,
            None => None,
        };
        let Some(live) = live else {
            return Err(EngineError::Refused(format!("nothing is live in {from} yet, so there is nothing to promote")));
        };
        if let Some(sha) = &command.sha
            && *sha != live.sha
        {
            return Err(EngineError::Refused(format!("{from} runs {} now, not {}", live.sha.short(), sha.short())));
        }
        let desired: Desired = parse(&live.desired)?;
        let digests: BTreeMap<AppName, Digest> =
            desired.apps.iter().map(|a| (a.name.clone(), a.digest.clone())).collect();
        let request = Request {
            repo: &stored.info,
            policy: &policy,
            environment: name,
            commit: &live.sha,
            digests: &digests,
            run: None,
            actor: &command.actor,
        };
        self.new_release(&request).await?;
        Ok(format!("{} goes from {from} to {name}, with the same digests", live.sha.short()))
    }

    async fn rollback(
        &self,
        repo: RepoId,
        environment: &EnvironmentRow,
        command: &Command,
    ) -> Result<String, EngineError> {
        let name = &environment.name;
        let open = self.open_rollout(repo, name).await?;
        if let Some(sha) = &command.sha {
            let serving = self.serving(environment, open.as_ref()).await?;
            if serving.as_ref().is_none_or(|s| s.sha != *sha) {
                return Err(not_serving(name, sha, serving.as_ref()));
            }
        }
        if command.to.is_none() {
            if let Some(row) = back::to_take_back(open.as_ref())? {
                self.ask(row.id, |asked| asked.rollback = true).await?;
                return Ok(format!("{} is being taken back from {name}", row.sha.short()));
            }
            // Asked once more at the very end of the way back: that is not one further back.
            if let Some((row, Phase::RolledBack)) = back::under_way(open.as_ref())? {
                return Ok(format!("{} was taken back from {name} just now", row.sha.short()));
            }
        }
        let (live, target) = self.way_back(environment, open.as_ref(), command.to.as_deref()).await?;
        if let Some(row) = open.filter(|r| r.kind == "rollback") {
            let detail: RolloutDetail = parse(&row.detail)?;
            let phase = parse::<Progress>(&row.progress)?.phase;
            let given_up = row.state == "active" && matches!(phase, Phase::Failed | Phase::Cancelled | Phase::Stuck);
            if detail.origin == Some(target.id) && !given_up {
                return Ok(format!("{name} is on its way back to {} already", target.sha.short()));
            }
        }
        let mut desired: Desired = parse(&target.desired)?;
        self.find_warm(&mut desired).await?;
        let id = RolloutId(uuid::Uuid::now_v7());
        desired.rollout = id;
        desired.kind = Kind::Rollback;
        desired.approval = false;
        let mut detail: RolloutDetail = parse(&target.detail)?;
        detail.origin = Some(detail.origin.unwrap_or(target.id));
        detail.from = Some(live.id);
        detail.previous = Some(live.sha.clone());
        detail.commits.clear();
        let now = clock::now();
        let new = NewRollout {
            id,
            repo,
            environment: name.clone(),
            kind: "rollback".into(),
            sha: target.sha.clone(),
            run: None,
            // Never blocked by holds, windows or checks.
            state: "queued".into(),
            message: None,
            progress: json_of(&Progress::new(&desired, now))?,
            desired: json_of(&desired)?,
            detail: json_of(&detail)?,
            actor: command.actor.clone(),
        };
        self.store.put_rollout(&new, now).await?;
        self.wake.rollouts.notify_one();
        Ok(format!("{name} goes back from {} to {}", live.sha.short(), target.sha.short()))
    }

    /// All environments, as they are.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn status(&self) -> Result<Vec<Status>, EngineError> {
        let mut all = Vec::new();
        for environment in self.store.environments().await? {
            let live = match environment.live_rollout {
                Some(id) => self.store.rollout(id).await?,
                None => None,
            };
            let name = crate::domain::ids::EnvironmentName::new(environment.name.clone())
                .map_err(|e| EngineError::Refused(e.to_string()))?;
            let key = crate::domain::rollout::EnvironmentKey { repo: environment.repo, environment: name };
            let seen = match self.target(&key).await {
                Ok(target) => target.live(&key).await.map_err(|e| e.to_string()),
                Err(e) => Err(e.to_string()),
            };
            let left_over = match (&live, &seen) {
                (Some(row), Ok(seen)) => rollouts::left_over(&parse(&row.desired)?, seen),
                _ => Vec::new(),
            };
            let open = self.open_rollout(environment.repo, &environment.name).await?;
            let back_to = self.back_to(&environment, open.as_ref()).await?;
            let rollout = match open {
                Some(row) => {
                    let progress: Progress = parse(&row.progress)?;
                    let phase =
                        if row.state == "active" { progress.phase.as_str().to_owned() } else { row.state.clone() };
                    Some((row.sha, phase, row.message.unwrap_or_default()))
                }
                None => None,
            };
            all.push(Status {
                repository: self.full_name(environment.repo).await?,
                environment: environment.name.clone(),
                sha: live.as_ref().map(|l| l.sha.clone()),
                since: live.as_ref().and_then(|l| l.finished_at),
                left_over: left_over.into_iter().map(|(app, _)| app).collect(),
                unreadable: seen.as_ref().err().cloned(),
                live: seen.ok(),
                held: environment.held.then(|| {
                    format!(
                        "{} ({})",
                        environment.hold_reason.clone().unwrap_or_default(),
                        environment.hold_by.clone().unwrap_or_default()
                    )
                }),
                rollout,
                back_to,
            });
        }
        Ok(all)
    }
}

/// A command is bound to what was looked at: this is something else by now.
pub(super) fn not_serving(name: &str, sha: &Sha, serving: Option<&RolloutRow>) -> EngineError {
    let sha = sha.short();
    EngineError::Refused(match serving {
        Some(row) => format!(
            "this release of {sha} does not serve {name} any more, so there is nothing of it to roll back: {} does. Look at \
             that one; `switchover rollback {name}` takes it back",
            row.sha.short()
        ),
        None => format!("{sha} does not serve {name}: nothing does yet"),
    })
}

//! What people ask for: promote, rollback, resume, cancel, re-run. The command line, buttons and (later) comments all
//! come through here, and look at permission, commit and lock again right before the effect.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Engine, EngineError,
    releases::{Request, RolloutDetail},
    rollouts::parse,
};
use crate::{
    clock,
    domain::{
        config::DeployFrom,
        ids::{AppName, Digest, RepoId, RolloutId, Sha},
        rollout::{Desired, Kind, Live, Phase, Progress, desired::same_content},
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
            Verb::Cancel => self.cancel(repo, &name).await,
            Verb::Promote => self.promote(repo, &name, command).await,
            Verb::Rollback => self.rollback(repo, &environment, command).await,
            Verb::Rebuild => self.rebuild(repo, &name, &command.actor).await,
        }
    }

    async fn place(&self, command: &Command) -> Result<(RepoId, EnvironmentRow), EngineError> {
        let mut found = Vec::new();
        let mut known = Vec::new();
        for environment in self.store.environments().await? {
            let full_name = self.full_name(environment.repo).await?;
            let repo_fits = command.repository.as_ref().is_none_or(|r| r.eq_ignore_ascii_case(&full_name));
            let name_fits = command.environment.as_ref().is_none_or(|e| *e == environment.name);
            known.push(format!("{} of {full_name}", environment.name));
            if repo_fits && name_fits {
                found.push((environment.repo, environment));
            }
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

    async fn open_rollout(&self, repo: RepoId, environment: &str) -> Result<Option<RolloutRow>, EngineError> {
        let open = self.store.open_rollouts().await?;
        let mut here: Vec<_> = open.into_iter().filter(|r| r.repo == repo && r.environment == environment).collect();
        // The active one rules; otherwise the newest that waits.
        here.sort_by_key(|r| (r.state == "active", r.id));
        Ok(here.pop())
    }

    async fn cancel(&self, repo: RepoId, name: &str) -> Result<String, EngineError> {
        let Some(row) = self.open_rollout(repo, name).await? else {
            return Err(EngineError::Refused(format!("no release to {name} is under way")));
        };
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
            let progress: Progress = parse(&row.progress)?;
            if matches!(progress.phase, Phase::Approve | Phase::Wait) || !progress.phase.past_switch() {
                self.ask(row.id, |asked| asked.promote = true).await?;
                return Ok(format!("{} goes on to {name}", row.sha.short()));
            }
            return Err(EngineError::Refused(format!("{} is switched to {name} already", row.sha.short())));
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
        if let Some(row) = self.open_rollout(repo, name).await?.filter(|r| r.state == "active") {
            let progress: Progress = parse(&row.progress)?;
            if progress.phase.past_switch()
                && !progress.phase.is_last()
                && command.to.is_none()
                && row.kind == "release"
            {
                self.ask(row.id, |asked| asked.rollback = true).await?;
                return Ok(format!("{} is being taken back from {name}", row.sha.short()));
            }
        }
        let (live, target) = self.way_back(environment, command.to.as_deref()).await?;
        let mut desired: Desired = parse(&target.desired)?;
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

    /// What is live, and the last good release that was never rolled back (or the one that `to` names).
    async fn way_back(
        &self,
        environment: &EnvironmentRow,
        to: Option<&str>,
    ) -> Result<(RolloutRow, RolloutRow), EngineError> {
        let name = &environment.name;
        let rows = self.store.rollouts_of(environment.repo, name, 200).await?;
        let Some(live) = rows.iter().find(|r| Some(r.id) == environment.live_rollout) else {
            return Err(EngineError::Refused(format!("nothing is live in {name} yet")));
        };
        let mut bad = BTreeSet::new();
        for row in &rows {
            if row.outcome.as_deref() == Some("rolled_back") {
                bad.insert(row.id);
            }
            let detail: RolloutDetail = parse(&row.detail)?;
            if row.kind == "rollback" && row.outcome.as_deref() == Some("live") {
                bad.extend(detail.from);
                if let Some(from) = rows.iter().find(|r| Some(r.id) == detail.from) {
                    bad.extend(parse::<RolloutDetail>(&from.detail)?.origin);
                }
            }
        }
        let serving: Desired = parse(&live.desired)?;
        for row in rows.iter().filter(|r| r.kind == "release") {
            let desired: Desired = parse(&row.desired)?;
            let same = desired.apps.len() == serving.apps.len()
                && desired.apps.iter().all(|a| serving.app(&a.name).is_some_and(|s| same_content(&s.slot, &a.slot)));
            let good = matches!(row.outcome.as_deref(), Some("live" | "unchanged"));
            let wanted = match to {
                Some(to) => to.len() >= 7 && row.sha.as_str().starts_with(to),
                None => !bad.contains(&row.id),
            };
            if good && wanted && !same && row.id < live.id {
                return Ok((live.clone(), row.clone()));
            }
        }
        Err(EngineError::Refused(match to {
            Some(to) => format!("no good release of {to} to {name} is known, other than the one that is live"),
            None => format!("there is no good release of {name} before {} to go back to", live.sha.short()),
        }))
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
            let open = self.open_rollout(environment.repo, &environment.name).await?;
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
                back_to: self.way_back(&environment, None).await.ok().map(|(_, t)| t.sha),
            });
        }
        Ok(all)
    }
}

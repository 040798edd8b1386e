//! Clicks on GitHub: Re-run, and the buttons of our checks. Who clicked is asked about again, right before the effect.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Engine, EngineError,
    commands::{Command, Verb, not_serving},
    planner,
};
use crate::{
    clock,
    domain::{
        event::{Actor, Pull, RepoInfo},
        ids::Sha,
        run::{Context, Outcome, RunDetail, Trust},
    },
    exec::git::MergeOutcome,
    github::Permission,
    plan::{Reuse, Subject},
    store::{Delivery, Run},
};

impl Engine {
    /// True when this person may command the environment: whom `allow` on the default branch names, or whoever may
    /// write where it names nobody.
    async fn may_command(&self, repo: &RepoInfo, environment: &str, actor: &Actor) -> Result<bool, EngineError> {
        let policy = self.policy(repo).await?;
        let found = policy.iter().flat_map(|p| &p.environments).find(|(name, _)| name.as_str() == environment);
        let Some(allow) = found.and_then(|(_, e)| e.allow.as_ref()) else { return self.may_write(repo, actor).await };
        if allow.users.iter().any(|u| u.eq_ignore_ascii_case(&actor.login)) {
            return Ok(true);
        }
        let least = allow.roles.iter().filter_map(|role| match role.as_str() {
            "write" => Some(Permission::Write),
            "maintain" => Some(Permission::Maintain),
            "admin" => Some(Permission::Admin),
            _ => None,
        });
        if let Some(least) = least.min()
            && self.github.permission(&repo.repo, &actor.login).await? >= least
        {
            return Ok(true);
        }
        for team in &allow.teams {
            let slug = team.rsplit('/').next().unwrap_or(team);
            if self.github.team_member(&repo.repo, slug, &actor.login).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// True when this person may write to the repository. Only the webhook's sender is ever asked about.
    async fn may_write(&self, repo: &RepoInfo, actor: &Actor) -> Result<bool, EngineError> {
        Ok(!actor.bot && self.github.permission(&repo.repo, &actor.login).await? >= Permission::Write)
    }
}

/// After an outage a click of long ago is not what anybody wants now. Its time is when GitHub sent it first.
fn in_time(delivery: &Delivery, button: &str) -> Result<(), EngineError> {
    if clock::now().duration_since(delivery.received_at) > jiff::SignedDuration::from_mins(10) {
        return Err(EngineError::Refused(format!("{button} was pressed more than ten minutes ago: press it again")));
    }
    Ok(())
}

/// Somebody pressed Re-run: a new attempt of what the clicked check belongs to.
///
/// # Errors
/// When git, GitHub or the store can't be reached.
pub async fn rerun(
    engine: &Engine,
    delivery: &Delivery,
    repo: RepoInfo,
    head: Sha,
    check: Option<String>,
    external_id: Option<String>,
    sender: Actor,
) -> Result<(), EngineError> {
    in_time(delivery, "Re-run")?;
    if !engine.may_write(&repo, &sender).await? {
        return Err(EngineError::Refused(format!("{} may not write to {}", sender.login, repo.repo.full_name())));
    }
    let runs = engine.store.runs_on(repo.repo.id, &head).await?;
    let step = external_id.as_deref().and_then(|id| id.split('#').next()).and_then(|id| id.strip_prefix("step:"));
    let mut again: Vec<(Run, Reuse)> = Vec::new();
    if let Some(step) = step.and_then(|s| s.parse().ok()) {
        if let Some(step) = engine.store.step(step).await?
            && let Some(run) = runs.iter().find(|r| r.id == step.run)
        {
            again.push((run.clone(), Reuse::Except(BTreeSet::from([step.app]))));
        }
    } else if check.as_deref().is_some_and(|c| c.starts_with("deploy (")) {
        return Err(EngineError::Refused("a deployment is not run again by Re-run: push, or promote".into()));
    } else {
        let mut newest = BTreeMap::new();
        for run in &runs {
            newest.insert((run.context, run.lane.clone()), run.clone());
        }
        again.extend(newest.into_values().map(|r| (r, Reuse::Nothing)));
    }
    if again.is_empty() {
        return Err(EngineError::Refused(format!("nothing of ours ran on {}", head.short())));
    }
    for (run, reuse) in again {
        attempt(engine, Some(delivery), &repo, &run, reuse, None, &sender.login).await?;
    }
    Ok(())
}

/// One more attempt of a run. The pull request's base is taken as it is now; the head is the clicked one.
pub(super) async fn attempt(
    engine: &Engine,
    delivery: Option<&Delivery>,
    repo: &RepoInfo,
    run: &Run,
    reuse: Reuse,
    trust: Option<Trust>,
    sender: &str,
) -> Result<(), EngineError> {
    let id = repo.repo.id;
    let mut conflicts = Vec::new();
    let mut base = run.base.clone();
    let mut test = run.test.clone();
    let mut own_trust = Trust::Own;
    if let Some(number) = run.pull {
        let pull: Option<Pull> = engine.store.stored_pull(id, number).await?;
        if let Some(pull) = pull {
            own_trust = planner::trust(repo, &pull);
            // Somebody approved this very commit before: without that a stranger's code has no jobs.
            if own_trust == Trust::Parked && !engine.store.jobs(run.id).await?.is_empty() {
                own_trust = Trust::Approved(run.head.clone());
            }
            if let Some((_, now)) = engine.mirrors.heads(id).await.into_iter().find(|(b, _)| *b == pull.base_ref) {
                match engine.mirrors.merge(id, &now, &run.head).await? {
                    MergeOutcome::Clean(merge) => test = merge,
                    MergeOutcome::Conflict { paths } => conflicts = paths,
                }
                base = Some(now);
            }
        }
    }
    let branch = run.pull.map_or_else(|| run.lane.clone(), |_| run.detail.branch.clone());
    let subject = Subject {
        context: run.context,
        lane: run.lane.clone(),
        branch: if run.context == Context::Push { run.lane.clone() } else { branch.clone() },
        pull: run.pull,
        head: run.head.clone(),
        test,
        base,
        attempt: engine.store.attempts(id, run.context, &run.lane, &run.head).await? + 1,
        stands: false,
        trust: trust.unwrap_or(own_trust),
        delivery: delivery.map(|d| d.guid.clone()),
        detail: RunDetail { branch, sender: sender.to_owned(), ..RunDetail::default() },
    };
    let decision = engine.decide(repo, subject, &conflicts, reuse).await?;
    planner::write(engine, delivery.map(|d| &d.guid), repo, decision, &run.head, None, None).await
}

/// Somebody pressed one of our buttons. The answer is a note for `explain`; none when it is written already.
///
/// # Errors
/// [`EngineError::Refused`] with the reason.
pub async fn button(
    engine: &Engine,
    delivery: &Delivery,
    repo: &RepoInfo,
    head: &Sha,
    identifier: &str,
    external_id: &str,
    sender: &Actor,
) -> Result<Option<String>, EngineError> {
    in_time(delivery, "the button")?;
    if !engine.may_write(repo, sender).await? {
        return Err(EngineError::Refused(format!("{} may not write to {}", sender.login, repo.repo.full_name())));
    }
    if identifier == "ok-to-test" {
        let mut newest = BTreeMap::new();
        for run in engine.store.runs_on(repo.repo.id, head).await?.into_iter().filter(|r| r.pull.is_some()) {
            newest.insert(run.lane.clone(), run);
        }
        // One that waits before one that does not: a commit may be the head of two pull requests.
        let run = newest.into_values().max_by_key(|r| (r.outcome == Some(Outcome::ActionRequired), r.id.0));
        let pull = match run.as_ref().and_then(|r| r.pull) {
            Some(number) => engine.store.stored_pull(repo.repo.id, number).await?,
            None => None,
        };
        let (Some(run), Some(pull)) = (run, pull) else {
            return Err(EngineError::Refused(format!("no pull request with {} is known", head.short())));
        };
        // What was looked at is the commit of the clicked check, and nothing else is approved.
        if !pull.open || pull.head != *head {
            let now = if pull.open { format!("stands at {} now", pull.head.short()) } else { "is closed".into() };
            return Err(EngineError::Refused(format!(
                "the button was for {}, and pull request {} {now}: look at that, and press the button of its check",
                head.short(),
                pull.number
            )));
        }
        if let Some(why) = engine.never_runs(repo.repo.id, &pull) {
            return Err(EngineError::Refused(why));
        }
        if run.outcome != Some(Outcome::ActionRequired) {
            return Err(EngineError::Refused(format!("{} waits for nobody's approval", head.short())));
        }
        if pull.author.login.eq_ignore_ascii_case(&sender.login) {
            return Err(EngineError::Refused("the author can't approve their own code".into()));
        }
        attempt(engine, Some(delivery), repo, &run, Reuse::Fitting, Some(Trust::Approved(head.clone())), &sender.login)
            .await?;
        return Ok(None);
    }
    let verb = match identifier {
        "promote" => Verb::Promote,
        "rollback" => Verb::Rollback,
        "resume" => Verb::Resume,
        "cancel" => Verb::Cancel,
        other => return Err(EngineError::Refused(format!("there is no button {other:?}"))),
    };
    let id = external_id.split('#').next().and_then(|e| e.strip_prefix("rollout:")).and_then(|e| e.parse().ok());
    let Some(row) = (match id {
        Some(id) => engine.store.rollout(id).await?,
        None => None,
    }) else {
        return Err(EngineError::Refused("the button belongs to no release that is known".into()));
    };
    if !engine.may_command(repo, &row.environment, sender).await? {
        return Err(EngineError::Refused(format!(
            "{} may not command {}: `environments.{}.allow` on {} names who may",
            sender.login, row.environment, row.environment, repo.default_branch
        )));
    }
    // The check of a release stays for ever, and so does its button on a page that was opened long ago.
    if verb == Verb::Rollback
        && let Some(environment) = engine.store.environment(row.repo, &row.environment).await?
    {
        let open = engine.open_rollout(row.repo, &row.environment).await?;
        let serving = engine.serving(&environment, open.as_ref()).await?;
        if serving.as_ref().is_none_or(|s| s.id != row.id) {
            return Err(not_serving(&row.environment, &row.sha, serving.as_ref()));
        }
    }
    let command = Command {
        verb,
        repository: Some(repo.repo.full_name()),
        environment: Some(row.environment.clone()),
        sha: (verb != Verb::Resume).then(|| head.clone()),
        to: None,
        actor: sender.login.clone(),
    };
    engine.command(&command).await.map(Some)
}

//! Deliveries become runs.

use super::{
    Engine, EngineError,
    access::{self, known},
};
use crate::{
    clock,
    domain::{
        event::{Actor, Event, Pull, PullAction, RepoChange, RepoInfo},
        ids::{DeliveryId, RepoId, Sha},
        run::{Context, Outcome, RunDetail, Trust},
    },
    exec::git::{GitError, MergeOutcome},
    plan::{Decision, Reuse, Subject},
    store::{Delivery, Planned, RepoState},
};

/// The event name of deliveries that the sweeper and commands make themselves: the body is our own [`Event`].
pub const OWN_EVENT: &str = "switchover";

/// What a webhook tells of may be there a moment later ("a read right after a webhook"): so often a missing ref is looked for
/// again, for some fifteen seconds. Then it is gone.
const LOOKS: i64 = 4;

/// What came of an event.
pub(super) enum Handled {
    /// Runs and the end of the delivery are written already.
    Written,
    /// Done, but for a note.
    Note(Option<RepoId>, String),
    /// There was nothing to do, so there is nothing to show.
    Nothing(Option<RepoId>, String),
}

pub(super) async fn handle(engine: &Engine, delivery: &Delivery, event: Event) -> Result<Handled, EngineError> {
    match event {
        Event::Ping => Ok(Handled::Nothing(None, "GitHub tried the address".into())),
        Event::Ignored { reason, repo } => Ok(Handled::Nothing(repo, reason)),
        Event::Push { repo, git_ref, before, after, sender, .. } => {
            let repo = known(engine, repo).await?;
            push(engine, delivery, repo, &git_ref, before, after, sender).await
        }
        Event::PullRequest { repo, action, pull, sender } => {
            let repo = known(engine, repo).await?;
            pull_request(engine, delivery, repo, action, pull, sender).await
        }
        Event::MergeGroup { repo, head, head_ref, base, base_ref, destroyed, sender } => {
            let repo = known(engine, repo).await?;
            let lane = head_ref.trim_start_matches("refs/heads/").to_owned();
            if destroyed {
                return cancel_lane(engine, delivery, &repo, &lane, None, "the merge group is gone").await;
            }
            let branch = base_ref.trim_start_matches("refs/heads/").to_owned();
            match fetch(engine, &repo, &[format!("+{head_ref}:{head_ref}")]).await {
                Err(e) if gone(&e, delivery) => {
                    let note = format!("{lane}: the merge group is gone, so there is nothing to test");
                    return Ok(Handled::Note(Some(repo.repo.id), note));
                }
                other => other?,
            }
            let detail = RunDetail { branch: branch.clone(), sender: sender.login, ..RunDetail::default() };
            let subject = Subject {
                context: Context::MergeGroup,
                lane,
                branch,
                pull: None,
                test: head.clone(),
                head,
                base: Some(base),
                attempt: 1,
                stands: false,
                trust: Trust::Own,
                delivery: Some(delivery.guid.clone()),
                detail,
            };
            decide(engine, delivery, &repo, subject, &[], Reuse::Fitting, None, None).await
        }
        Event::Rerun { repo, head, check, external_id, sender } => {
            let repo = known(engine, repo).await?;
            super::clicks::rerun(engine, delivery, repo, head, check, external_id, sender).await?;
            Ok(Handled::Written)
        }
        Event::Button { repo, head, identifier, external_id, sender } => {
            let repo = known(engine, repo).await?;
            let note =
                super::clicks::button(engine, delivery, &repo, &head, &identifier, &external_id, &sender).await?;
            Ok(note.map_or(Handled::Written, |n| Handled::Note(Some(repo.repo.id), n)))
        }
        Event::CheckCompleted { repo, head } => {
            let repo = known(engine, repo).await?;
            engine.wake.rollouts.notify_one();
            Ok(Handled::Nothing(Some(repo.repo.id), format!("a check of {} ended: gates are looked at", head.short())))
        }
        Event::Installation { installation, change, account, repositories } => {
            let note = access::installation_changed(engine, installation, change, &repositories).await?;
            Ok(Handled::Note(None, format!("{account}: {note}")))
        }
        Event::InstallationRepositories { installation, added, removed, .. } => {
            if !removed.is_empty() {
                engine.github.forget_installation(installation);
                let ids: Vec<_> = removed.iter().map(|(id, _)| *id).collect();
                access::stop_repos(engine, installation, &ids, RepoState::Removed).await?;
            }
            if !added.is_empty() {
                access::installed(engine, installation).await?;
            }
            Ok(Handled::Note(None, format!("{} repositories added, {} removed", added.len(), removed.len())))
        }
        Event::Repository { repo, change } => {
            let id = repo.repo.id;
            if change == RepoChange::Deleted {
                access::stop_repo(engine, id, RepoState::Removed).await?;
                engine.mirrors.remove(id).await?;
                return Ok(Handled::Note(Some(id), "deleted: everything of it is stopped".into()));
            }
            let repo = known(engine, repo).await?;
            if repo.archived {
                access::stop_runs(engine, id, "The repository was archived, so the run was stopped.").await?;
                return Ok(Handled::Note(Some(id), "archived: nothing runs any more".into()));
            }
            Ok(Handled::Note(Some(id), format!("the repository is now {}", repo.repo.full_name())))
        }
    }
}

/// What was looked for often enough is not there any more.
fn gone(e: &EngineError, delivery: &Delivery) -> bool {
    delivery.attempts >= LOOKS && matches!(e, EngineError::Git(GitError::MissingRef(_)))
}

async fn fetch(engine: &Engine, repo: &RepoInfo, more: &[String]) -> Result<(), EngineError> {
    let auth = engine.git_auth(&repo.repo).await?;
    let url = engine.github.clone_url(&repo.repo)?;
    engine.mirrors.fetch(repo.repo.id, &url, Some(&auth), &[]).await?;
    if !more.is_empty() {
        engine.mirrors.fetch(repo.repo.id, &url, Some(&auth), more).await?;
    }
    Ok(())
}

async fn push(
    engine: &Engine,
    delivery: &Delivery,
    repo: RepoInfo,
    git_ref: &str,
    before: Sha,
    after: Sha,
    sender: Actor,
) -> Result<Handled, EngineError> {
    let id = repo.repo.id;
    let Some(branch) = git_ref.strip_prefix("refs/heads/") else {
        return Ok(Handled::Note(Some(id), format!("{git_ref} is not a branch")));
    };
    if after.is_zero() {
        // Found by comparing lists: what came back meanwhile is not gone.
        if delivery.event == OWN_EVENT {
            fetch(engine, &repo, &[]).await?;
            if engine.mirrors.heads(id).await.iter().any(|(b, _)| b == branch) {
                return Ok(Handled::Note(Some(id), format!("{branch} is there again")));
            }
        }
        return cancel_lane(engine, delivery, &repo, branch, Some(branch), "the branch was deleted").await;
    }
    // A head that was only noted (at the installation) was not acted upon: its push may come a moment later.
    let noted = engine.store.heads(id).await?.into_iter().any(|(b, s)| b == branch && s == after);
    if noted && engine.store.runs_on(id, &after).await?.iter().any(|r| r.lane == branch) {
        return Ok(Handled::Note(Some(id), format!("{branch} at {} was acted upon already", after.short())));
    }
    fetch(engine, &repo, &[]).await?;
    if !engine.mirrors.has(id, &after).await {
        // Overwritten by a later push before we came: ask for the commit itself while GitHub still has it.
        let pin = [crate::exec::git::pin_refspec(&after)];
        let auth = engine.git_auth(&repo.repo).await?;
        let url = engine.github.clone_url(&repo.repo)?;
        if let Err(e) = engine.mirrors.fetch(id, &url, Some(&auth), &pin).await {
            if e.is_transient() {
                return Err(e.into());
            }
            let note = format!("{} is no longer in {branch}, nor to be had from GitHub", after.short());
            return Ok(Handled::Note(Some(id), note));
        }
    }
    let detail = RunDetail { branch: branch.to_owned(), sender: sender.login, ..RunDetail::default() };
    // A late event does not move the branch back in our books.
    let stands = engine.mirrors.heads(id).await.iter().any(|(b, s)| b == branch && *s == after);
    let subject = Subject {
        context: Context::Push,
        lane: branch.to_owned(),
        branch: branch.to_owned(),
        pull: None,
        head: after.clone(),
        test: after.clone(),
        base: Some(before),
        attempt: 1,
        stands,
        trust: Trust::Own,
        delivery: Some(delivery.guid.clone()),
        detail,
    };
    let head = stands.then_some((branch, Some(&after)));
    decide(engine, delivery, &repo, subject, &[], Reuse::Fitting, head, None).await
}

async fn pull_request(
    engine: &Engine,
    delivery: &Delivery,
    repo: RepoInfo,
    action: PullAction,
    pull: Pull,
    sender: Actor,
) -> Result<Handled, EngineError> {
    let id = repo.repo.id;
    let lane = format!("pull/{}", pull.number);
    if action == PullAction::Closed || !pull.open {
        let runs: Vec<_> = engine.store.open_runs(id, Some(&lane)).await?.iter().map(|r| r.id).collect();
        let note = format!("pull request {} is closed: {} runs stopped", pull.number, runs.len());
        let planned = Planned {
            cancel: &runs,
            pull: Some(&pull),
            delivery: Some((&delivery.guid, &note)),
            sha: Some(&pull.head),
            ..Planned::default()
        };
        let (_, stop) = engine.store.plan(id, planned, clock::now()).await?;
        engine.stop_jobs(&stop);
        return Ok(Handled::Written);
    }
    let number = pull.number;
    let (subject, conflicts, pull) = match pull_subject(engine, &repo, pull, Some(&delivery.guid), &sender.login).await
    {
        Ok(Ok(parts)) => parts,
        Ok(Err(note)) => return Ok(Handled::Note(Some(id), note)),
        Err(e) if gone(&e, delivery) => {
            return Ok(Handled::Note(Some(id), format!("pull request {number} and its commits are gone")));
        }
        Err(e) => return Err(e),
    };
    decide(engine, delivery, &repo, subject, &conflicts, Reuse::Fitting, None, Some(&pull)).await
}

/// What a pull request's test is about, with its head and base as they are now: events come late and in any order, so
/// the payload's commits are only a hint.
///
/// # Errors
/// When git or GitHub can't be reached.
pub async fn pull_subject(
    engine: &Engine,
    repo: &RepoInfo,
    mut pull: Pull,
    delivery: Option<&DeliveryId>,
    sender: &str,
) -> Result<Result<(Subject, Vec<String>, Pull), String>, EngineError> {
    let id = repo.repo.id;
    let number = pull.number;
    let git_ref = format!("refs/pull/{number}/head");
    fetch(engine, repo, &[format!("+{git_ref}:{git_ref}")]).await?;
    if let Some(head) = engine.mirrors.resolve(id, &git_ref).await {
        pull.head = head;
    }
    let heads = engine.mirrors.heads(id).await;
    let Some(base) = heads.into_iter().find(|(b, _)| *b == pull.base_ref).map(|(_, s)| s) else {
        return Ok(Err(format!("the base branch {} of pull request {number} is gone", pull.base_ref)));
    };
    let trust = trust(repo, &pull);
    let (test, conflicts) = match engine.mirrors.merge(id, &base, &pull.head).await {
        Ok(MergeOutcome::Clean(merge)) => (merge, Vec::new()),
        Ok(MergeOutcome::Conflict { paths }) => (pull.head.clone(), paths),
        Err(e @ (GitError::MissingCommit(_) | GitError::MissingRef(_))) => {
            return Ok(Err(format!("pull request {number} can't be merged for a test: {e}")));
        }
        Err(e) => return Err(e.into()),
    };
    let subject = Subject {
        context: Context::PullRequest,
        lane: format!("pull/{number}"),
        branch: pull.base_ref.clone(),
        pull: Some(number),
        head: pull.head.clone(),
        test,
        base: Some(base),
        attempt: 1,
        stands: false,
        trust,
        delivery: delivery.cloned(),
        detail: RunDetail { branch: pull.head_ref.clone(), sender: sender.to_owned(), ..RunDetail::default() },
    };
    Ok(Ok((subject, conflicts, pull)))
}

/// Whose code a pull request is. Forks, deleted forks and dependency bots are strangers.
#[must_use]
pub fn trust(repo: &RepoInfo, pull: &Pull) -> Trust {
    let own = pull.head_repo == Some(repo.repo.id);
    let dependencies = ["dependabot", "renovate"].iter().any(|b| pull.author.login.starts_with(b));
    if own && !(pull.author.bot && dependencies) { Trust::Own } else { Trust::Parked }
}

#[expect(clippy::too_many_arguments, reason = "all of it is written in one transaction")]
async fn decide(
    engine: &Engine,
    delivery: &Delivery,
    repo: &RepoInfo,
    mut subject: Subject,
    conflicts: &[String],
    reuse: Reuse,
    head: Option<(&str, Option<&Sha>)>,
    pull: Option<&Pull>,
) -> Result<Handled, EngineError> {
    let sha = subject.head.clone();
    let decision = match handled(engine, repo, &mut subject).await? {
        Some(note) => Decision::Nothing(note),
        None => engine.decide(repo, subject, conflicts, reuse).await?,
    };
    write(engine, Some(&delivery.guid), repo, decision, &sha, head, pull).await?;
    Ok(Handled::Written)
}

/// Which run has this subject in hand already, in words. Else the subject gets its attempt: the first one, or the one after
/// what was stopped, or left by a push, and is wanted again. Another delivery of the same, and this one once more, are nothing
/// new.
async fn handled(engine: &Engine, repo: &RepoInfo, subject: &mut Subject) -> Result<Option<String>, EngineError> {
    let mut runs = engine.store.runs_on(repo.repo.id, &subject.head).await?;
    runs.retain(|r| r.context == subject.context && r.lane == subject.lane && r.base == subject.base);
    let Some(last) = runs.iter().max_by_key(|r| r.attempt) else { return Ok(None) };
    let wanted = match subject.context {
        Context::Push => subject.stands,
        _ => matches!(last.outcome, Some(Outcome::Cancelled | Outcome::Superseded)),
    };
    if wanted && runs.iter().all(|r| r.delivery != subject.delivery) {
        subject.attempt = last.attempt + 1;
        return Ok(None);
    }
    let (lane, head) = (&subject.lane, subject.head.short());
    Ok(Some(format!("{} of {lane} {head} is nothing new: run {} has it", subject.context.as_str(), last.id)))
}

/// Writes a decision with the end of its delivery, stops what it supersedes, and wakes who has work now.
///
/// # Errors
/// When the store can't be written.
pub async fn write(
    engine: &Engine,
    delivery: Option<&DeliveryId>,
    repo: &RepoInfo,
    decision: Decision,
    sha: &Sha,
    head: Option<(&str, Option<&Sha>)>,
    pull: Option<&Pull>,
) -> Result<(), EngineError> {
    let (runs, supersede, why) = match decision {
        Decision::Nothing(why) => (Vec::new(), Vec::new(), why),
        Decision::Run { run, supersede, why } => {
            let pairs: Vec<_> = supersede.into_iter().map(|old| (old, run.id)).collect();
            (vec![*run], pairs, why)
        }
    };
    tracing::info!(repo = repo.repo.full_name(), sha = sha.short(), "{why}");
    let planned = Planned {
        runs: &runs,
        supersede: &supersede,
        cancel: &[],
        head,
        pull,
        delivery: delivery.map(|d| (d, why.as_str())),
        sha: Some(sha),
    };
    let (_, stop) = engine.store.plan(repo.repo.id, planned, clock::now()).await?;
    engine.stop_jobs(&stop);
    engine.wake.jobs.notify_one();
    engine.wake.rollouts.notify_one();
    engine.wake.report.notify_one();
    Ok(())
}

async fn cancel_lane(
    engine: &Engine,
    delivery: &Delivery,
    repo: &RepoInfo,
    lane: &str,
    branch: Option<&str>,
    why: &str,
) -> Result<Handled, EngineError> {
    let id = repo.repo.id;
    let runs: Vec<_> = engine.store.open_runs(id, Some(lane)).await?.iter().map(|r| r.id).collect();
    let note = format!("{lane}: {why}, {} runs stopped", runs.len());
    let planned = Planned {
        cancel: &runs,
        head: branch.map(|b| (b, None)),
        delivery: Some((&delivery.guid, &note)),
        ..Planned::default()
    };
    let (_, stop) = engine.store.plan(id, planned, clock::now()).await?;
    engine.stop_jobs(&stop);
    Ok(Handled::Written)
}

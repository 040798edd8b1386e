//! Which repositories are ours to act on. Installations come and go, repositories are renamed, archived, taken away; and
//! what an ordinary event tells of its repository may be older than what is known.

use super::{Engine, EngineError};
use crate::{
    clock,
    domain::{
        event::{InstallationChange, RepoInfo},
        ids::{InstallationId, RepoId},
        run::{Context, Outcome},
    },
    store::RepoState,
};

/// What became of an installation's repositories.
pub(super) struct Installed {
    /// All that GitHub lists.
    pub listed: Vec<RepoId>,
    /// Those that could not be noted, by name.
    pub failed: Vec<(String, EngineError)>,
}

/// The repository of an event. An event never changes what is known: where it tells something else (it is late, or a webhook
/// was lost), GitHub says how things stand.
///
/// # Errors
/// [`EngineError::Refused`] when the App has no access to it.
pub(super) async fn known(engine: &Engine, mut told: RepoInfo) -> Result<RepoInfo, EngineError> {
    let id = told.repo.id;
    let stored = engine.store.repo(id).await?;
    if told.repo.installation == InstallationId(0) {
        told.repo.installation = stored.as_ref().map_or(InstallationId(0), |r| r.info.repo.installation);
    }
    let name = told.repo.full_name();
    if told.repo.installation == InstallationId(0) {
        return Err(EngineError::Refused(format!("the App is not installed on {name}")));
    }
    let ours = stored.filter(|r| r.state == RepoState::Active).map(|r| r.info);
    if ours.as_ref() == Some(&told) {
        return Ok(told);
    }
    match engine.github.repository(&told.repo).await {
        Ok(found) if found.repo.id == id => {
            note(engine, &found).await?;
            Ok(found)
        }
        Err(e) if !e.is_permanent() => Err(e.into()),
        // What the event tells is over: a name or an installation from before.
        _ => ours.ok_or_else(|| {
            EngineError::Refused(format!("the App has no access to {name} any more, so nothing is done about this"))
        }),
    }
}

/// Notes a repository as GitHub describes it now. Branches and pull requests of a new one are noted as they are: what was
/// there before the installation is not acted upon, and its events may still come.
async fn note(engine: &Engine, info: &RepoInfo) -> Result<(), EngineError> {
    let id = info.repo.id;
    let before = engine.store.repo(id).await?.map(|r| r.state);
    if matches!(before, None | Some(RepoState::Removed)) {
        let branches = engine.github.branches(&info.repo).await?;
        let pulls = engine.github.open_pulls(&info.repo).await?;
        engine.store.note_as_found(id, &branches, &pulls, clock::now()).await?;
    }
    engine.store.put_repo(info, clock::now()).await?;
    Ok(())
}

/// Notes an installation's repositories; one that GitHub refuses holds up no other.
///
/// # Errors
/// When GitHub does not list them, or the store can't be used.
pub(super) async fn install(engine: &Engine, installation: InstallationId) -> Result<Installed, EngineError> {
    let repos = engine.github.installation_repositories(installation).await?;
    let mut failed = Vec::new();
    for info in &repos {
        match note(engine, info).await {
            Ok(()) => {}
            Err(e @ EngineError::Store(_)) => return Err(e),
            Err(e) => failed.push((info.repo.full_name(), e)),
        }
    }
    Ok(Installed { listed: repos.iter().map(|r| r.repo.id).collect(), failed })
}

/// The same because of an event: how many; what failed is tried again with the event.
///
/// # Errors
/// When GitHub or the store can't be reached.
pub(super) async fn installed(engine: &Engine, installation: InstallationId) -> Result<usize, EngineError> {
    let done = install(engine, installation).await?;
    match done.failed.into_iter().next() {
        Some((_, e)) => Err(e),
        None => Ok(done.listed.len()),
    }
}

/// An installation came, went or changed. The answer is in words.
///
/// # Errors
/// When GitHub or the store can't be reached.
pub(super) async fn installation_changed(
    engine: &Engine,
    installation: InstallationId,
    change: InstallationChange,
    named: &[(RepoId, String)],
) -> Result<String, EngineError> {
    match change {
        InstallationChange::Created | InstallationChange::Unsuspended | InstallationChange::PermissionsAccepted => {
            engine.github.forget_installation(installation);
            let n = installed(engine, installation).await?;
            engine.store.show_again(installation, clock::now()).await?;
            Ok(format!("installed on {n} repositories"))
        }
        InstallationChange::Deleted | InstallationChange::Suspended => {
            let state = if change == InstallationChange::Deleted { RepoState::Removed } else { RepoState::Suspended };
            engine.github.forget_installation(installation);
            let mut repos = engine.store.repos_of(installation).await?;
            repos.extend(named.iter().map(|(id, _)| *id).filter(|id| !repos.contains(id)).collect::<Vec<_>>());
            let n = stop_repos(engine, installation, &repos, state).await?;
            Ok(format!("{n} repositories stopped, tokens dropped"))
        }
    }
}

/// An installation has these repositories no more. What another one has by now (the event is late) goes on. How many stopped.
///
/// # Errors
/// When the store can't be used.
pub(super) async fn stop_repos(
    engine: &Engine,
    installation: InstallationId,
    repos: &[RepoId],
    state: RepoState,
) -> Result<usize, EngineError> {
    let mut n = 0;
    for id in repos {
        let of = engine.store.repo(*id).await?.map(|r| r.info.repo.installation);
        if of == Some(installation) {
            stop_repo(engine, *id, state).await?;
            n += 1;
        }
    }
    Ok(n)
}

/// Nothing of this repository goes on.
///
/// # Errors
/// When the store can't be written.
pub(super) async fn stop_repo(engine: &Engine, id: RepoId, state: RepoState) -> Result<(), EngineError> {
    engine.store.set_repo_state(id, state).await?;
    // Its releases are stopped there, as far as they can be.
    engine.wake.rollouts.notify_one();
    let why = match state {
        RepoState::Suspended => "The App's installation is suspended, so the run was stopped.",
        RepoState::Removed | RepoState::Active => {
            "The App no longer has access to the repository, so the run was stopped."
        }
    };
    for run in engine.store.open_runs(id, None).await? {
        // What is stopped here was not acted upon: the sweep finds it when the App is back.
        match (run.context, run.pull) {
            (Context::Push, _) => engine.store.put_head(id, &run.lane, None, clock::now()).await?,
            (_, Some(number)) => {
                if let Some(mut pull) = engine.store.stored_pull(id, number).await? {
                    pull.open = false;
                    engine.store.put_pull(id, &pull, clock::now()).await?;
                }
            }
            _ => {}
        }
    }
    stop_runs(engine, id, why).await
}

/// Ends the runs of a repository; `why` stands in their checks.
///
/// # Errors
/// When the store can't be written.
pub(super) async fn stop_runs(engine: &Engine, id: RepoId, why: &str) -> Result<(), EngineError> {
    for run in engine.store.open_runs(id, None).await? {
        let jobs = engine.store.end_run(run.id, Outcome::Cancelled, Some(why), clock::now()).await?;
        engine.stop_jobs(&jobs);
    }
    Ok(())
}

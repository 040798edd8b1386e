//! The pure planner: an event and the facts around it become a decision. No I/O, no clock, no randomness.
//!
//! Steps come from the tested commit when it is the repository's own; environments (which branch is released) always
//! come from the default branch. What was proven on the same tree with the same commands and tools is not run again.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::domain::{
    config::{App, DeployFrom, RepoConfig, Step, branches},
    event::RepoInfo,
    ids::{DeliveryId, Digest, JobId, RunId, Sha, StepId},
    planned::{NewJob, NewRun, NewStep, Reused},
    run::{
        ConfigMistake, Context, IMAGE_STEP, ImageSpec, JobSpec, Outcome, ReleaseSpec, RunDetail, StepSpec, Trigger,
        Trust,
    },
};

/// What is to be tested and why.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Why.
    pub context: Context,
    /// The branch, or `pull/N`: what a newer run supersedes within.
    pub lane: String,
    /// The branch pushed to, the pull request's base branch, or the queue's target.
    pub branch: String,
    /// The pull request.
    pub pull: Option<i64>,
    /// The commit that shows the checks.
    pub head: Sha,
    /// The commit that is tested: the head, or its merge into the base.
    pub test: Sha,
    /// The base that it was merged with, or the commit before a push.
    pub base: Option<Sha>,
    /// 1, and one more with each re-run.
    pub attempt: i64,
    /// A push whose branch stands on this commit now: it is not late, whatever else ran on the branch.
    pub stands: bool,
    /// Whose code it is.
    pub trust: Trust,
    /// What set it off.
    pub delivery: Option<DeliveryId>,
    /// What is told about it: author, message, branch, sender are filled in by the caller.
    pub detail: RunDetail,
}

/// An earlier run of the same lane.
#[derive(Debug, Clone)]
pub struct Earlier {
    /// Its id.
    pub id: RunId,
    /// It began already.
    pub running: bool,
    /// Its commit comes after ours: this event is late.
    pub newer: bool,
}

/// Which proofs may be taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reuse {
    /// All that fit.
    Fitting,
    /// All but these apps': somebody asked to run them again.
    Except(BTreeSet<String>),
    /// All but what is released: somebody asked to build it anew.
    Tests,
    /// None.
    Nothing,
}

/// All that the decision rests on.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The repository.
    pub repo: &'a RepoInfo,
    /// What is to be tested.
    pub subject: Subject,
    /// The configuration of the tested commit, or its mistakes.
    pub config: Result<&'a RepoConfig, &'a [ConfigMistake]>,
    /// The configuration of the default branch: environments.
    pub policy: Option<&'a RepoConfig>,
    /// Git's tree id of each app's folder (key: the app's path).
    pub trees: &'a BTreeMap<String, String>,
    /// A fingerprint of the files at the root: builds of folders see them too (lock files, workspaces).
    pub root: &'a str,
    /// A fingerprint of the tools on the machine, or of nothing where steps name their image.
    pub tools: &'a str,
    /// Files in conflict with the base; then there is nothing to test.
    pub conflicts: &'a [String],
    /// Why this server may not run the repository's steps.
    pub refused: Option<&'a str>,
    /// Runs of the lane that are not over, and newer ones.
    pub earlier: &'a [Earlier],
    /// Proofs by tree key.
    pub proven: &'a BTreeMap<String, Reused>,
    /// Releases by build key.
    pub built: &'a BTreeMap<String, Digest>,
    /// Apps that are released as an image, and its name without a tag.
    pub images: &'a BTreeMap<String, String>,
    /// Which proofs may be taken over.
    pub reuse: Reuse,
}

/// What is to be done.
#[derive(Debug)]
pub enum Decision {
    /// Nothing, and why.
    Nothing(String),
    /// A run, the runs it takes the place of, and why in words.
    Run {
        /// To be written.
        run: Box<NewRun>,
        /// To be ended.
        supersede: Vec<RunId>,
        /// For `explain`.
        why: String,
    },
}

/// True when pushes to this branch are tested.
#[must_use]
pub fn takes_push(
    config: Option<&RepoConfig>,
    policy: Option<&RepoConfig>,
    default_branch: &str,
    branch: &str,
) -> bool {
    if let Some(patterns) = config.or(policy).and_then(|c| c.on.push.as_ref()) {
        return branches::matches(patterns, branch) || releases(policy, branch).next().is_some();
    }
    branch == default_branch || branch == "develop" || releases(policy, branch).next().is_some()
}

/// Names of the environments that are released from this branch.
pub fn releases<'a>(policy: Option<&'a RepoConfig>, branch: &'a str) -> impl Iterator<Item = &'a str> {
    policy.into_iter().flat_map(|p| p.environments.iter()).filter_map(move |(name, e)| match &e.deploy {
        DeployFrom::Branch(b) if b == branch => Some(name.as_str()),
        _ => None,
    })
}

/// True when the message asks not to be tested ("Skipping workflow runs", GitHub's documentation).
#[must_use]
pub fn skips(message: &str) -> bool {
    ["[skip ci]", "[ci skip]", "[no ci]"].iter().any(|m| message.contains(m))
}

/// The keys that [`plan`] will look up in `proven` and `built`, so that the caller can fetch them.
#[must_use]
pub fn keys(facts: &Facts<'_>) -> (Vec<String>, Vec<String>) {
    let Ok(config) = facts.config else { return Default::default() };
    let mut steps = Vec::new();
    let mut builds = Vec::new();
    for (name, app) in &config.apps {
        for (step, spec) in &app.steps {
            steps.push(step_key(facts, app, step.as_str(), spec));
        }
        let build = build_key(facts, name.as_str(), app);
        if facts.images.contains_key(name.as_str()) {
            steps.push(hash(&["image", &build]));
        }
        builds.push(build);
    }
    (steps, builds)
}

/// Decides.
pub fn plan(facts: &Facts<'_>, ids: &mut dyn FnMut() -> Uuid) -> Decision {
    let s = &facts.subject;
    if facts.repo.archived {
        return Decision::Nothing("the repository is archived".into());
    }
    match s.context {
        Context::Push if !takes_push(facts.config.ok(), facts.policy, &facts.repo.default_branch, &s.branch) => {
            return Decision::Nothing(format!(
                "pushes to {} are not tested: `on.push` names the default branch, develop and the environments' branches unless it is set",
                s.branch
            ));
        }
        Context::PullRequest if facts.config.is_ok_and(|c| !c.on.pull_request) => {
            return Decision::Nothing("pull requests are not tested: `on.pull_request` is false".into());
        }
        _ => {}
    }
    let run = RunId(ids());
    let mut new = NewRun {
        id: run,
        repo: facts.repo.repo.id,
        key: key(s),
        context: s.context,
        lane: s.lane.clone(),
        pull: s.pull,
        head: s.head.clone(),
        test: s.test.clone(),
        base: s.base.clone(),
        attempt: s.attempt,
        outcome: None,
        superseded_by: None,
        delivery: s.delivery.clone(),
        detail: s.detail.clone(),
        jobs: Vec::new(),
    };
    let why = settle(facts, &mut new, ids);
    let supersede = if new.superseded_by.is_some() {
        Vec::new()
    } else {
        // On branches a running test goes on: its commit stays in the history and somebody waits for its result.
        let cut = |e: &&Earlier| (s.stands || !e.newer) && (s.context != Context::Push || !e.running);
        facts.earlier.iter().filter(cut).map(|e| e.id).collect()
    };
    Decision::Run { run: Box::new(new), supersede, why }
}

fn settle(facts: &Facts<'_>, new: &mut NewRun, ids: &mut dyn FnMut() -> Uuid) -> String {
    let s = &facts.subject;
    if s.attempt == 1
        && !s.stands
        && let Some(newer) = facts.earlier.iter().find(|e| e.newer)
    {
        new.outcome = Some(Outcome::Superseded);
        new.superseded_by = Some(newer.id);
        return format!("{} came late: a newer commit of {} is handled by run {}", s.head.short(), s.lane, newer.id);
    }
    if s.context == Context::Push && skips(&s.detail.message) {
        new.outcome = Some(Outcome::Success);
        new.detail.nothing =
            Some("The commit's message says [skip ci]: nothing is run and nothing is released.".into());
        return "the commit's message says [skip ci]".into();
    }
    if s.trust == Trust::Parked {
        new.outcome = Some(Outcome::ActionRequired);
        let reason = "The code is not from this repository's own people, so nothing of it runs until somebody who may write has looked at it.";
        new.detail.parked = Some(reason.into());
        return "parked: a stranger's or a bot's pull request".into();
    }
    if !facts.conflicts.is_empty() {
        new.outcome = Some(Outcome::Failure);
        new.detail.conflicts = facts.conflicts.to_vec();
        return format!("{} conflicts with {} in {} files", s.head.short(), s.branch, facts.conflicts.len());
    }
    let config = match facts.config {
        Ok(config) => config,
        Err(mistakes) => {
            new.outcome = Some(Outcome::Failure);
            new.detail.mistakes = mistakes.to_vec();
            return format!("the configuration has {} mistakes", mistakes.len());
        }
    };
    if let Some(refused) = facts.refused {
        new.outcome = Some(Outcome::ActionRequired);
        new.detail.parked = Some(refused.to_owned());
        return format!("refused: {refused}");
    }
    let releasing = s.context == Context::Push && releases(facts.policy, &s.branch).next().is_some();
    for (name, app) in &config.apps {
        new.jobs.extend(job(facts, name.as_str(), app, releasing, ids));
    }
    if new.jobs.is_empty() {
        new.outcome = Some(Outcome::Success);
        new.detail.nothing = Some(
            "No app with steps was found, so there is nothing to run. Add `.github/switchover.yml` with `apps:`, or a Cargo.toml, \
             pom.xml or package.json."
                .into(),
        );
        return "nothing to run".into();
    }
    let reused = new.jobs.iter().flat_map(|j| &j.steps).filter(|s| s.reused.is_some()).count();
    let all: usize = new.jobs.iter().map(|j| j.steps.len()).sum();
    format!(
        "{} of {} {} for {}: {} jobs, {all} steps, {reused} of them proven already{}",
        s.context.as_str(),
        s.lane,
        s.head.short(),
        s.detail.sender,
        new.jobs.len(),
        if releasing { "; leads to a release" } else { "" }
    )
}

fn job(facts: &Facts<'_>, name: &str, app: &App, releasing: bool, ids: &mut dyn FnMut() -> Uuid) -> Option<NewJob> {
    let s = &facts.subject;
    // A release of its own is built only where something is started from it here.
    let image = facts.images.get(name).filter(|_| releasing && app.image_of.is_none());
    let releasable = releasing && app.image_of.is_none() && (app.start.is_some() || image.is_some());
    let only_build = app.steps.len() == 1;
    let wanted: Vec<(&str, &Step)> = app
        .steps
        .iter()
        .map(|(n, s)| (n.as_str(), s))
        .filter(|(n, _)| *n != "build" || (releasing && app.image_tag.is_none()) || only_build)
        .collect();
    if wanted.is_empty() && !releasable {
        return None;
    }
    let build_key = build_key(facts, name, app);
    let standing = facts.built.get(&build_key).filter(|_| releasable && may_reuse(facts, name));
    let digest = standing.filter(|_| facts.reuse != Reuse::Tests).cloned();
    let has_build = wanted.iter().any(|(n, _)| *n == "build");
    let mut steps: Vec<NewStep> = wanted
        .iter()
        .map(|(step, spec)| {
            let tree_key = step_key(facts, app, step, spec);
            // What is released must come out of this workspace: the step that makes it runs unless the release stands.
            let made_here = releasable && digest.is_none() && app.image_tag.is_none();
            let makes_release = made_here && (*step == "build" || !has_build);
            let reused = facts.proven.get(&tree_key).filter(|_| !makes_release && may_reuse(facts, name)).cloned();
            NewStep { id: StepId(ids()), name: (*step).to_owned(), tree_key, reused }
        })
        .collect();
    if image.is_some() {
        let tree_key = hash(&["image", &build_key]);
        let reused = facts.proven.get(&tree_key).filter(|_| digest.is_some()).cloned();
        steps.push(NewStep { id: StepId(ids()), name: IMAGE_STEP.to_owned(), tree_key, reused });
    }
    let spec = JobSpec {
        path: app.path.clone(),
        commit: s.test.clone(),
        container: app.container.clone(),
        cache: app.cache.clone(),
        secrets: app.secrets.clone(),
        trigger: match (s.context, &s.trust) {
            (_, Trust::Approved(_)) => Trigger::Stranger,
            (Context::PullRequest, _) => Trigger::OwnPull,
            _ if releasing => Trigger::Release,
            _ => Trigger::Branch,
        },
        steps: wanted.iter().map(|(n, step)| step_spec(n, app, step)).collect(),
        release: releasable.then(|| ReleaseSpec {
            app: name.to_owned(),
            build_key,
            files: app.files.clone(),
            image: image.map(|i| ImageSpec {
                repository: i.clone(),
                dockerfile: app.dockerfile.clone(),
                port: app.port,
                start: app.start.clone(),
                health: app.health.clone(),
                pushed_as: app.image_tag.as_ref().map(|tag| tag_of(tag, &s.test)),
                fresh: facts.reuse == Reuse::Tests,
            }),
        }),
    };
    Some(NewJob { id: JobId(ids()), app: name.to_owned(), priority: i64::from(!releasing), spec, steps, digest })
}

/// The tag of a commit, by the app's pattern.
fn tag_of(pattern: &str, commit: &Sha) -> String {
    pattern.replace("{sha}", commit.as_str()).replace("{short}", commit.short())
}

fn may_reuse(facts: &Facts<'_>, app: &str) -> bool {
    match &facts.reuse {
        Reuse::Fitting | Reuse::Tests => true,
        Reuse::Except(apps) => !apps.contains(app),
        Reuse::Nothing => false,
    }
}

fn step_spec(name: &str, app: &App, step: &Step) -> StepSpec {
    let mut env = app.env.clone();
    env.extend(step.env.clone());
    StepSpec {
        name: name.to_owned(),
        run: step.run.clone(),
        reports: step.reports.clone(),
        timeout_ms: u64::try_from(step.timeout.as_millis()).unwrap_or(u64::MAX),
        env,
        services: step.services.clone(),
        resources: step.resources.clone(),
    }
}

fn key(s: &Subject) -> String {
    let base = s.base.as_ref().map_or("-", Sha::as_str);
    let trusted = if matches!(s.trust, Trust::Approved(_)) { "approved" } else { "-" };
    format!("{}|{}|{}|{base}|{}|{trusted}", s.context.as_str(), s.lane, s.head, s.attempt)
}

/// What a step's success proves: the same tree, the same command and environment, the same tools.
fn step_key(facts: &Facts<'_>, app: &App, name: &str, step: &Step) -> String {
    let spec = step_spec(name, app, step);
    hash(&[
        "step",
        tree(facts, app),
        facts.root,
        facts.tools,
        app.path.as_str(),
        app.container.as_deref().unwrap_or(""),
        &spec.run,
        &spec.name,
        &format!("{:?}", spec.env),
        &format!("{:?}", step.services),
        &format!("{:?}", app.secrets),
    ])
}

/// What makes two builds the same.
fn build_key(facts: &Facts<'_>, name: &str, app: &App) -> String {
    let steps: Vec<String> = app.steps.iter().map(|(n, s)| step_key(facts, app, n.as_str(), s)).collect();
    let made = match (facts.images.get(name), &app.image_tag) {
        (None, _) => format!("{:?}", app.files),
        (Some(image), None) => format!("image {image} {:?}", app.dockerfile),
        // What another CI made of the same tree need not be the same: each commit has its own.
        (Some(image), Some(tag)) => format!("pushed {image} {}", tag_of(tag, &facts.subject.test)),
    };
    hash(&["build", name, tree(facts, app), facts.root, facts.tools, &steps.join(","), &made])
}

fn tree<'a>(facts: &'a Facts<'_>, app: &App) -> &'a str {
    // A folder that is not in the commit has no tree: its steps are never proven by another commit's.
    facts.trees.get(&app.path).map_or(facts.subject.test.as_str(), String::as_str)
}

fn hash(parts: &[&str]) -> String {
    let mut h = Sha256::new();
    for p in parts {
        // Length first: no two lists of parts read the same.
        h.update((p.len() as u64).to_le_bytes());
        h.update(p.as_bytes());
    }
    hex::encode(h.finalize())
}

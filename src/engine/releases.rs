//! Ended runs become rollouts; gates decide when a rollout may begin.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Engine, EngineError,
    manifests::{Freeze, Frozen},
};
use crate::{
    clock,
    domain::{
        config::{App, AppKind, Approval, DeployFrom, Environment, RepoConfig, window},
        event::RepoInfo,
        ids::{AppName, Digest, EnvironmentName, RolloutId, RunId, Sha},
        rollout::{
            AppSpec, CommandSpec, Desired, DesiredApp, EnvironmentKey, Kind, PreDeploySpec, ProbeSpec, Progress,
            desired::slot_name,
        },
        run::{Context, Outcome},
    },
    exec::git::FileEntry,
    plan,
    settings::TargetSettings,
    store::{NewRollout, RepoState, RolloutRow, Run, held_words, json_of},
};

/// Commits that are listed as going live.
const MOST_COMMITS: usize = 50;

/// A commit that goes live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoesLive {
    /// Which.
    pub sha: Sha,
    /// First line of its message.
    pub message: String,
    /// Who wrote it.
    pub author: String,
}

/// What is told about a rollout and is not needed to carry it out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RolloutDetail {
    /// Who wrote the released commit.
    pub author: String,
    /// First line of its message.
    pub message: String,
    /// Where users reach it.
    pub url: Option<String>,
    /// Whether users are served by it.
    pub production: bool,
    /// What was live before.
    pub previous: Option<Sha>,
    /// What goes live with it.
    pub commits: Vec<GoesLive>,
    /// The release that a rollback brings back.
    pub origin: Option<RolloutId>,
    /// The rollout that a rollback takes back.
    pub from: Option<RolloutId>,
    /// The operator's name of where it runs, if the environment names one.
    pub target: Option<String>,
    /// Slack channel.
    pub channel: Option<String>,
    /// Checks that must be green first.
    pub after: Vec<String>,
    /// When it may begin by itself.
    pub windows: Vec<String>,
}

/// Why a rollout waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// It does not.
    Open,
    /// Until something happens, or until then.
    Closed(String, Option<Timestamp>),
    /// It will never begin.
    Never(String),
}

impl Engine {
    /// Takes the release decision of every ended run that has none yet.
    ///
    /// # Errors
    /// When the store or git can't be read.
    pub async fn release_ended_runs(&self) -> Result<(), EngineError> {
        for id in self.store.runs_to_release(50).await? {
            let Some(run) = self.store.run(id).await? else { continue };
            match self.release(&run).await {
                Ok(notes) => {
                    for note in notes {
                        self.store.reason(Some(run.repo), Some(&run.head), None, &note, clock::now()).await?;
                    }
                }
                Err(EngineError::Refused(why)) => {
                    tracing::warn!(run = %run.id, "not released: {why}");
                    self.store.reason(Some(run.repo), Some(&run.head), None, &why, clock::now()).await?;
                }
                Err(e) => return Err(e),
            }
            crate::failpoint::hit("releases.before_decided");
            self.store.release_decided(id).await?;
        }
        Ok(())
    }

    async fn release(&self, run: &Run) -> Result<Vec<String>, EngineError> {
        let Some(repo) = self.store.repo(run.repo).await?.filter(|r| r.state == RepoState::Active) else {
            return Ok(vec!["not released: the App has no access to the repository any more".into()]);
        };
        if run.detail.nothing.is_some() {
            return Ok(Vec::new());
        }
        let policy = self.policy(&repo.info).await?;
        let names: Vec<String> = plan::releases(policy.as_ref(), &run.lane).map(str::to_owned).collect();
        let Some(policy) = policy.filter(|_| !names.is_empty()) else { return Ok(Vec::new()) };
        let mut digests = BTreeMap::new();
        for job in self.store.jobs(run.id).await? {
            if let (Some(digest), Ok(app)) = (job.digest, AppName::new(job.app)) {
                digests.insert(app, digest);
            }
        }
        let mut notes = Vec::new();
        for name in names {
            if self.store.rollout_of_run(run.id, &name).await? {
                continue;
            }
            if let Some(newer) = self.newer_release(run.repo, &run.lane, &run.head, &name).await? {
                notes.push(format!("not released to {name}: {newer}"));
                continue;
            }
            let request = Request {
                repo: &repo.info,
                policy: &policy,
                environment: &name,
                commit: &run.head,
                digests: &digests,
                run: Some(run.id),
                actor: &run.detail.sender,
            };
            let id = self.new_release(&request).await?;
            notes.push(format!("released to {name} as rollout {id}"));
        }
        Ok(notes)
    }

    /// Writes a new rollout; it waits for its gates.
    ///
    /// # Errors
    /// [`EngineError::Refused`] when there is nothing that could be released. Where a run asked for it, the release is
    /// made all the same and fails with those words.
    pub async fn new_release(&self, request: &Request<'_>) -> Result<RolloutId, EngineError> {
        let repo = request.repo;
        let id = repo.repo.id;
        let files = self.mirrors.list_files(id, request.commit, 50_000).await?;
        let config = self.understand(repo, request.commit, &files).await?.config.map_err(|_| {
            EngineError::Refused(format!("the configuration of {} has mistakes", request.commit.short()))
        })?;
        let name = EnvironmentName::new(request.environment).map_err(|e| EngineError::Refused(e.to_string()))?;
        let Some(environment) = request.policy.environments.get(&name) else {
            return Err(EngineError::Refused(format!("there is no environment {name} on {}", repo.default_branch)));
        };
        let rollout = RolloutId(uuid::Uuid::now_v7());
        let frozen = match self.frozen(request, &files, &config, &name, environment).await {
            // Its author must see it where they look: the release is made, and fails with these words.
            Err(EngineError::Refused(words)) => Frozen { refused: Some(words), ..Frozen::default() },
            other => other?,
        };
        let desired = match self.desired(rollout, request, &config, &name, environment, &frozen) {
            // Nobody waits for an answer: the words stand where the commit's author looks, as those above.
            Err(EngineError::Refused(words)) if request.run.is_some() => {
                let refused = Some(frozen.refused.clone().unwrap_or(words));
                wanted(rollout, request, &name, environment, Vec::new(), refused)
            }
            other => other?,
        };
        let now = clock::now();
        let mut progress = Progress::new(&desired, now);
        for words in frozen.warnings.iter().chain(&frozen.notes) {
            progress.say(words.clone(), now);
        }
        let detail = self.detail(request, environment).await?;
        let new = NewRollout {
            id: rollout,
            repo: id,
            environment: name.to_string(),
            kind: "release".into(),
            sha: request.commit.clone(),
            run: request.run,
            state: "gated".into(),
            message: None,
            desired: json_of(&desired)?,
            progress: json_of(&progress)?,
            detail: json_of(&detail)?,
            actor: request.actor.to_owned(),
        };
        self.store.put_rollout(&new, now).await?;
        self.wake.rollouts.notify_one();
        self.wake.report.notify_one();
        Ok(rollout)
    }

    /// The manifests of a release, where its target takes any.
    ///
    /// # Errors
    /// [`EngineError::Refused`].
    pub(super) async fn frozen(
        &self,
        request: &Request<'_>,
        files: &[FileEntry],
        config: &RepoConfig,
        name: &EnvironmentName,
        environment: &Environment,
    ) -> Result<Frozen, EngineError> {
        let full_name = request.repo.repo.full_name();
        let target = self.settings.target_for(&full_name, environment.target.as_deref());
        let (_, TargetSettings::Kubernetes(target)) = target.map_err(EngineError::Refused)? else {
            return Ok(Frozen::default());
        };
        let images = self.images_of(&full_name, config);
        let (repo, commit) = (request.repo, request.commit);
        self.freeze(&Freeze { repo, commit, files, config, name, environment, target, images: &images }).await
    }

    pub(super) fn desired(
        &self,
        rollout: RolloutId,
        request: &Request<'_>,
        config: &RepoConfig,
        name: &EnvironmentName,
        environment: &Environment,
        frozen: &Frozen,
    ) -> Result<Desired, EngineError> {
        let full_name = request.repo.repo.full_name();
        let target = self.settings.target_for(&full_name, environment.target.as_deref());
        let containers = target.map_err(EngineError::Refused)?.1.runs_images();
        let images = if containers { self.images_of(&full_name, config) } else { BTreeMap::new() };
        let granted = self.settings.environment_secrets(&full_name, name.as_str(), &environment.secrets);
        let values: BTreeMap<String, String> =
            granted.iter().map(|(n, v)| (n.clone(), secrecy::ExposeSecret::expose_secret(v).to_owned())).collect();
        let mut apps = Vec::new();
        for app_name in in_switch_order(config) {
            let app = &config.apps[&app_name];
            let source = app.image_of.as_ref().unwrap_or(&app_name);
            let image = images.get(source.as_str());
            if image.is_none() && (containers || app.start.is_none()) {
                continue;
            }
            let Some(digest) = request.digests.get(source) else {
                return Err(EngineError::Refused(format!(
                    "app {app_name} has no release of {source} at {}: its build did not run",
                    request.commit.short()
                )));
            };
            let manifests = frozen.apps.get(&app_name).cloned().map(Box::new);
            let mut spec = AppSpec { image: image.cloned(), manifests, ..app_spec(app, environment) };
            // A start that was inferred, or written for a release of files, does not fit into an image that nobody wrote
            // down: that starts by its own command.
            if containers && app.image.is_none() && app.image_tag.is_none() && app.image_of.is_none() {
                spec.start = None;
            }
            let slot = slot_name(request.commit, app.kind, digest, &spec, &values, &self.key);
            apps.push(DesiredApp { name: app_name, kind: app.kind, slot, digest: digest.clone(), spec, commit: None });
        }
        if apps.is_empty() {
            return Err(EngineError::Refused(if containers {
                "no app has an image, so there is nothing to release: add `image:` to an app (such as docker.io/acme/shop), or let \
                 the operator grant the repository a registry"
                    .into()
            } else {
                "no app says how it starts, so there is nothing to release: add `start:` to an app".into()
            }));
        }
        // The smoke test is the environment's: it runs against the app that users meet, the last one switched.
        if let (Some(smoke), Some(app)) = (&environment.smoke, apps.iter_mut().rev().find(|a| a.kind == AppKind::Web)) {
            app.spec.smoke = Some(CommandSpec { run: smoke.run.clone(), timeout: smoke.timeout });
        }
        Ok(wanted(rollout, request, name, environment, apps, frozen.refused.clone()))
    }

    async fn detail(&self, request: &Request<'_>, environment: &Environment) -> Result<RolloutDetail, EngineError> {
        let id = request.repo.repo.id;
        let commit = self.mirrors.commit(id, request.commit).await?;
        let live = match self.store.environment(id, request.environment).await?.and_then(|e| e.live_rollout) {
            Some(live) => self.store.rollout(live).await?,
            None => None,
        };
        let previous = live.map(|l| l.sha);
        let commits = match &previous {
            Some(previous) => {
                let log = self.mirrors.log_between(id, Some(previous), request.commit, MOST_COMMITS).await;
                log.unwrap_or_default()
            }
            None => Vec::new(),
        };
        Ok(RolloutDetail {
            author: commit.author_name,
            message: first_line(&commit.message),
            url: environment.url.clone(),
            production: is_production(request.environment, request.policy),
            previous,
            commits: commits
                .into_iter()
                .map(|c| GoesLive { sha: c.sha, message: first_line(&c.message), author: c.author_name })
                .collect(),
            target: environment.target.clone(),
            channel: request.policy.notify.slack.clone(),
            after: environment.after.clone(),
            windows: environment.windows.clone(),
            ..RolloutDetail::default()
        })
    }

    /// Looks at what a rollout waits for.
    ///
    /// # Errors
    /// When the store or GitHub can't be read.
    pub async fn gate(&self, row: &RolloutRow) -> Result<Gate, EngineError> {
        let detail: RolloutDetail = serde_json::from_str(&row.detail).unwrap_or_default();
        let Some(repo) = self.store.repo(row.repo).await?.filter(|r| r.state == RepoState::Active) else {
            return Ok(Gate::Never("the App has no access to the repository any more".into()));
        };
        if let Some(environment) = self.store.environment(row.repo, &row.environment).await?
            && environment.held
        {
            let (by, why) = (environment.hold_by.as_deref(), environment.hold_reason.as_deref());
            return Ok(Gate::Closed(held_words(&row.environment, by, why), None));
        }
        let mut missing = self.missing_checks(row, &repo.info, &detail).await?;
        missing.sort();
        if !missing.is_empty() {
            return Ok(Gate::Closed(format!("waits for {}", missing.join(", ")), None));
        }
        let now = clock::now();
        match window::next_open(&detail.windows, now) {
            Some(at) if at <= now => Ok(Gate::Open),
            at => Ok(Gate::Closed(format!("waits for its window: {}", detail.windows.join(", ")), at)),
        }
    }

    async fn missing_checks(
        &self,
        row: &RolloutRow,
        repo: &RepoInfo,
        detail: &RolloutDetail,
    ) -> Result<Vec<String>, EngineError> {
        let mut missing = BTreeSet::new();
        let others: Vec<&String> = detail.after.iter().filter(|c| *c != "switchover").collect();
        if (detail.after.is_empty() || others.len() < detail.after.len()) && !self.all_green(row).await? {
            missing.insert("switchover".to_owned());
        }
        if !others.is_empty() {
            let checks = self.github.check_runs(&repo.repo, &row.sha).await?;
            let statuses = self.github.commit_statuses(&repo.repo, &row.sha).await?;
            for name in others {
                let green = checks.iter().any(|c| {
                    c.name == *name && matches!(c.conclusion.as_deref(), Some("success" | "neutral" | "skipped"))
                }) || statuses.iter().any(|s| s.context == *name && s.state == "success");
                if !green {
                    missing.insert(name.clone());
                }
            }
        }
        Ok(missing.into_iter().collect())
    }

    /// True when the newest run of each context on the commit ended well: what the check `switchover` says.
    async fn all_green(&self, row: &RolloutRow) -> Result<bool, EngineError> {
        let mut newest: BTreeMap<(Context, String), Run> = BTreeMap::new();
        for run in self.store.runs_on(row.repo, &row.sha).await? {
            newest.insert((run.context, run.lane.clone()), run);
        }
        Ok(newest.values().all(|r| matches!(r.outcome, Some(Outcome::Success | Outcome::Superseded))))
    }
}

/// What is to be released where.
#[derive(Debug)]
pub struct Request<'a> {
    /// Whose.
    pub repo: &'a RepoInfo,
    /// The default branch's configuration.
    pub policy: &'a RepoConfig,
    /// Where to.
    pub environment: &'a str,
    /// The commit.
    pub commit: &'a Sha,
    /// What was built from it.
    pub digests: &'a BTreeMap<AppName, Digest>,
    /// The run that built it.
    pub run: Option<RunId>,
    /// Who asked for it.
    pub actor: &'a str,
}

fn wanted(
    rollout: RolloutId,
    request: &Request<'_>,
    name: &EnvironmentName,
    environment: &Environment,
    apps: Vec<DesiredApp>,
    refused: Option<String>,
) -> Desired {
    Desired {
        rollout,
        key: EnvironmentKey { repo: request.repo.repo.id, environment: name.clone() },
        commit: request.commit.clone(),
        kind: Kind::Release,
        apps,
        approval: environment.approval == Approval::Required,
        min_ready: environment.min_ready,
        start_timeout: environment.start_timeout,
        drain_timeout: environment.drain_timeout,
        watch_for: environment.watch_for,
        keep_previous: environment.keep_previous,
        refused,
    }
}

fn app_spec(app: &App, environment: &Environment) -> AppSpec {
    let mut env = environment.env.clone();
    env.retain(|k, _| !k.starts_with("SWITCHOVER_"));
    AppSpec {
        start: app.start.clone(),
        env,
        secrets: environment.secrets.clone(),
        port: app.port,
        image: None,
        resources: app.resources.clone(),
        health: app.health.clone(),
        replicas: if app.kind == AppKind::Worker { 1 } else { environment.replicas.max(1) },
        pre_deploy: app.pre_deploy.as_ref().map(|p| PreDeploySpec {
            command: CommandSpec { run: p.run.clone(), timeout: p.timeout },
            reversible: p.reversible,
        }),
        smoke: None,
        probe: ProbeSpec {
            path: environment.probe.path.clone().or_else(|| app.health.clone()).filter(|_| app.kind == AppKind::Web),
            interval: environment.probe.interval,
            body: environment.probe.body.clone(),
        },
        hosts: Vec::new(),
        manifests: None,
    }
}

/// The apps so that each comes after those in its `switch_after`. The configuration has no cycles (validated); if it had,
/// the rest comes in the order written.
#[must_use]
pub fn in_switch_order(config: &RepoConfig) -> Vec<AppName> {
    let mut order: Vec<AppName> = Vec::new();
    let mut left: Vec<&AppName> = config.apps.keys().collect();
    while !left.is_empty() {
        let ready = left.iter().position(|name| config.apps[*name].switch_after.iter().all(|a| order.contains(a)));
        order.push(left.remove(ready.unwrap_or(0)).clone());
    }
    order
}

/// An environment named production, or the only one that the default branch leads to.
fn is_production(name: &str, policy: &RepoConfig) -> bool {
    let named = |n: &str| n.eq_ignore_ascii_case("production") || n.eq_ignore_ascii_case("prod");
    let last = |n: &str| {
        !policy.environments.values().any(|e| matches!(&e.deploy, DeployFrom::PromoteFrom(f) if f.as_str() == n))
    };
    named(name) || (!policy.environments.keys().any(|n| named(n.as_str())) && last(name))
}

/// The first line of a message, at most 200 characters.
#[must_use]
pub fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().chars().take(200).collect()
}

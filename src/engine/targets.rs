//! Which target an environment runs on: the operator's word. Commands of a release run by the same executor as steps.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::{Engine, EngineError, rollouts::parse};
use crate::{
    agent::protocol::TlsFiles,
    docker::pull::Logins,
    domain::{
        ids::AppName,
        rollout::{Desired, EnvironmentKey},
        run::StepEnd,
    },
    exec::{
        host::HostEnv,
        local::{Executor as _, OUTPUT_LIMIT, StepSpec},
        log::LogReader,
    },
    rollout::{
        Public, Target,
        docker::{DockerConfig, DockerTarget},
        kubernetes::{self, KubernetesConfig, KubernetesTarget},
        local::{CommandResult, CommandRunner, LocalConfig, LocalTarget, ShellCommand},
    },
    settings::{ClusterTarget, HostTarget, TargetSettings},
};

/// Lines of a command's output that stand in the check.
const TAIL: usize = 30;

/// The target of an environment. Which one it is, was decided when its newest rollout was made.
///
/// # Errors
/// [`EngineError::Refused`] when the operator granted none.
pub async fn target(engine: &Engine, key: &EnvironmentKey, full_name: &str) -> Result<Box<dyn Target>, EngineError> {
    let rows = engine.store.rollouts_of(key.repo, key.environment.as_str(), 1).await?;
    let (mut names, mut wanted) = (Vec::new(), None);
    if let Some(row) = rows.first() {
        let desired: Desired = parse(&row.desired)?;
        names = desired.apps.iter().flat_map(|a| a.spec.secrets.clone()).collect();
        let detail: super::releases::RolloutDetail = parse(&row.detail)?;
        wanted = detail.target;
    }
    let (_, settings) = engine.settings.target_for(full_name, wanted.as_deref()).map_err(EngineError::Refused)?;
    let environment = key.environment.as_str();
    let secrets = engine.settings.environment_secrets(full_name, environment, &names).into_iter().collect();
    let trusted = engine.settings.trusted_local(full_name);
    let runner = trusted.then(|| Arc::new(Commands { engine: engine.clone() }) as Arc<dyn CommandRunner>);
    match settings {
        TargetSettings::Local(host) => Ok(Box::new(LocalTarget::new(LocalConfig {
            agent: engine.agent.clone(),
            releases: engine.releases_root(),
            data: engine.settings.data.clone(),
            path: HostEnv::of_process().path.to_string_lossy().into_owned(),
            listen: listeners(host, environment),
            secrets,
            runner: Arc::new(Commands { engine: engine.clone() }),
        }))),
        TargetSettings::Docker(host) => {
            let Some(docker) = engine.docker.clone() else {
                return Err(EngineError::Refused("this server has no Docker engine".into()));
            };
            Ok(Box::new(DockerTarget::new(DockerConfig {
                agent: engine.agent.clone(),
                docker,
                data: engine.settings.data.clone(),
                listen: listeners(host, environment),
                secrets,
                repository: full_name.to_owned(),
                logins: Logins::new(engine.settings.registries.clone()),
                runner,
            })))
        }
        TargetSettings::Kubernetes(target) => {
            Ok(Box::new(cluster_target(engine, target, full_name, secrets, runner).await?))
        }
    }
}

/// A target in a cluster.
pub(super) async fn cluster_target(
    engine: &Engine,
    target: &ClusterTarget,
    full_name: &str,
    secrets: BTreeMap<String, secrecy::SecretString>,
    runner: Option<Arc<dyn CommandRunner>>,
) -> Result<KubernetesTarget, EngineError> {
    let watched = engine.clusters.watched(&target.cluster).await.map_err(|e| EngineError::Refused(e.to_string()))?;
    Ok(KubernetesTarget::new(KubernetesConfig {
        watched,
        data: engine.settings.data.clone(),
        secrets,
        repository: full_name.to_owned(),
        logins: Logins::new(engine.settings.registries.clone()),
        runner,
        settle: kubernetes::SETTLE,
        balancer_settle: kubernetes::BALANCER_SETTLE,
    }))
}

/// Where users reach an environment's apps.
fn listeners(host: &HostTarget, environment: &str) -> BTreeMap<AppName, Public> {
    let of = host.listen.iter().filter_map(|(name, listen)| {
        let app = match name.split_once('/') {
            Some((e, app)) if e == environment => app,
            Some(_) => return None,
            None => name,
        };
        let files = |(certificate, key): (PathBuf, PathBuf)| TlsFiles { certificate, key };
        let public = Public {
            address: listen.address,
            hosts: listen.hosts.clone(),
            tls: listen.tls.clone().map(files),
            redirect: listen.redirect,
        };
        Some((AppName::new(app).ok()?, public))
    });
    of.collect()
}

/// Runs a command of ours on this host as a step would run; whether it ended well, and all that it printed.
pub(super) async fn run_quietly(
    engine: &Engine,
    run: &str,
    cwd: &Path,
    timeout: Duration,
    stop: &CancellationToken,
) -> Result<(bool, String), EngineError> {
    let logs = engine.settings.data.join(super::STEP_HOMES);
    let machine = |e: std::io::Error| EngineError::Machine(e.to_string());
    std::fs::create_dir_all(&logs).map_err(machine)?;
    let place = tempfile::Builder::new().prefix("quiet-").tempdir_in(&logs).map_err(machine)?;
    let log = place.path().join("output.log");
    let command =
        ShellCommand { run: run.to_owned(), cwd: cwd.to_owned(), env: BTreeMap::new(), timeout, log: log.clone() };
    let result = Commands { engine: engine.clone() }.run(command, stop).await;
    let mut text = String::new();
    LogReader::open(&log)
        .and_then(|mut log| {
            log.each(0, usize::MAX, |line| {
                text.push_str(&line.text);
                text.push('\n');
            })
        })
        .map_err(machine)?;
    Ok((result.ok, text))
}

/// Runs `pre_deploy` and smoke tests: own process group, own home, time limit, log.
struct Commands {
    engine: Engine,
}

impl CommandRunner for Commands {
    fn run<'a>(&'a self, command: ShellCommand, stop: &'a CancellationToken) -> BoxFuture<'a, CommandResult> {
        Box::pin(async move {
            let failed = |words: String| CommandResult { ok: false, words, tail: Vec::new() };
            let homes = self.engine.settings.data.join(super::STEP_HOMES);
            let home = match std::fs::create_dir_all(&homes)
                .and_then(|()| tempfile::Builder::new().prefix("command-").tempdir_in(&homes))
            {
                Ok(home) => home,
                Err(e) => return failed(format!("its home folder can't be made: {e}")),
            };
            if let Some(dir) = command.log.parent()
                && let Err(e) = std::fs::create_dir_all(dir)
            {
                return failed(format!("its log can't be made: {e}"));
            }
            let spec = StepSpec {
                command: command.run,
                cwd: command.cwd,
                env: command.env.into_iter().collect(),
                home: home.path().to_owned(),
                timeout: command.timeout,
                grace: Duration::from_secs(5),
                log: command.log.clone(),
                output_limit: OUTPUT_LIMIT,
                hold: None,
                container: None,
            };
            let end = match self.engine.host.run(&spec, stop.clone()).await {
                Ok(result) => result.end,
                Err(e) => return failed(e.to_string()),
            };
            let lines = LogReader::open(&command.log).and_then(|mut log| log.tail(TAIL)).unwrap_or_default();
            let ok = end == StepEnd::Exited(0);
            let words = match end {
                StepEnd::Exited(code) => format!("exit code {code}"),
                StepEnd::Signalled(n) => format!("ended by signal {n}"),
                StepEnd::TimedOut => format!("killed at its time limit of {} s", command.timeout.as_secs()),
                StepEnd::Cancelled => "stopped".into(),
                StepEnd::NotStarted(why) => format!("could not be started: {why}"),
                StepEnd::OutOfMemory { .. } => "out of memory".into(),
                StepEnd::OverDisk { .. } => "killed for the disk that it used".into(),
                StepEnd::Untaken(why) => why,
            };
            CommandResult { ok, words, tail: lines.into_iter().map(|l| l.text).collect() }
        })
    }
}

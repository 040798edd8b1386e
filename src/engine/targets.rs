//! Which target an environment runs on: the operator's word. Commands of a release run by the same executor as steps.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::{Engine, EngineError, rollouts::parse};
use crate::{
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
        Target,
        docker::{DockerConfig, DockerTarget},
        local::{CommandResult, CommandRunner, LocalConfig, LocalTarget, ShellCommand},
    },
    settings::TargetSettings,
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
    let local = match settings {
        TargetSettings::Local(local) => local,
        TargetSettings::Docker(host) => host,
        TargetSettings::Kubernetes(_) => {
            return Err(EngineError::Refused("clusters are not driven yet".into()));
        }
    };
    let containers = matches!(settings, TargetSettings::Docker(_));
    let environment = key.environment.as_str();
    let listen = local.listen.iter().filter_map(|(name, address)| {
        let app = match name.split_once('/') {
            Some((e, app)) if e == environment => app,
            Some(_) => return None,
            None => name,
        };
        Some((AppName::new(app).ok()?, *address))
    });
    let secrets = engine.settings.environment_secrets(full_name, environment, &names);
    if containers {
        let Some(docker) = engine.docker.clone() else {
            return Err(EngineError::Refused("this server has no Docker engine".into()));
        };
        return Ok(Box::new(DockerTarget::new(DockerConfig {
            agent: engine.agent.clone(),
            docker,
            data: engine.settings.data.clone(),
            listen: listen.collect(),
            fronts: BTreeMap::new(),
            secrets: secrets.into_iter().collect(),
            repository: full_name.to_owned(),
            logins: Logins::new(engine.settings.registries.clone()),
            runner: engine
                .settings
                .trusted_local(full_name)
                .then(|| Arc::new(Commands { engine: engine.clone() }) as Arc<dyn CommandRunner>),
        })));
    }
    Ok(Box::new(LocalTarget::new(LocalConfig {
        agent: engine.agent.clone(),
        releases: engine.releases_root(),
        data: engine.settings.data.clone(),
        path: HostEnv::of_process().path.to_string_lossy().into_owned(),
        listen: listen.collect::<BTreeMap<_, _>>(),
        secrets: secrets.into_iter().collect(),
        runner: Arc::new(Commands { engine: engine.clone() }),
    })))
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

//! `switchover serve` and `switchover demo`: the composition root.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use switchover::{
    agent,
    cluster::{Cluster, Clusters},
    control,
    demo::play,
    docker::{Docker, pull::Logins},
    domain::ids::Digest,
    engine::{
        Engine, STEP_HOMES, Shared,
        sweeper::{self, server_key},
        tools,
        wake::Wake,
    },
    exec::{
        caches::JobHome,
        docker::DockerExecutor,
        git::Mirrors,
        host::HostEnv,
        kubernetes::KubernetesExecutor,
        limits::StepLimits,
        local::{Executor, LocalExecutor},
    },
    rollout,
    settings::{self, ExecutorKind, Settings, StepCluster, TargetSettings},
    store::Store,
    telemetry::Metrics,
    web,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::runtime;

/// Two signals within this time are one: a terminal, or `timeout`, sends them to the process and to its group.
const ONE_SIGNAL: Duration = Duration::from_millis(500);

/// SIGTERM and SIGINT ask to end gently; the second one ends at once. `hangup`: so does the end of the terminal, for what
/// must not outlive it.
pub fn on_signals(shutdown: CancellationToken, hangup: bool) -> std::io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut gone = hangup.then(|| signal(SignalKind::hangup())).transpose()?;
    tokio::spawn(async move {
        let mut asked: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
                Some(_) = async { gone.as_mut()?.recv().await } => {}
            }
            match asked {
                Some(at) if at.elapsed() < ONE_SIGNAL => continue,
                Some(_) => {
                    tracing::warn!("ended at once, as asked; what was under way is taken up after the next start");
                    std::process::exit(130);
                }
                None => asked = Some(Instant::now()),
            }
            tracing::info!("ending: nothing new is begun; once more ends at once");
            shutdown.cancel();
        }
    });
    Ok(())
}

/// `switchover serve`.
pub fn serve(config: Option<&Path>, wait: Duration) -> ExitCode {
    // The crypto library gathers entropy when it is first asked for some, for some 30 ms: while the database is opened.
    std::thread::spawn(|| aws_lc_rs::rand::fill(&mut [0]));
    let settings = match super::settings(config) {
        Ok(settings) => settings,
        Err(mistakes) => {
            eprintln!("switchover: the settings have {} mistake(s):\n", mistakes.len());
            for m in &mistakes {
                eprintln!("  {m}\n");
            }
            return ExitCode::from(2);
        }
    };
    let result = runtime(2).and_then(|rt| rt.block_on(run(settings, wait)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // Once: as a line of the log, or as it is where the log is off.
            if tracing::enabled!(tracing::Level::ERROR) {
                tracing::error!("{e:#}");
            } else {
                eprintln!("switchover: {e:#}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings, wait: Duration) -> anyhow::Result<()> {
    let settings = Arc::new(settings);
    let data = settings.data.clone();
    std::fs::create_dir_all(&data).with_context(|| format!("making the data folder {}", data.display()))?;
    let shutdown = CancellationToken::new();
    on_signals(shutdown.clone(), false)?;
    let Some(_lock) = lock(&data, wait, &shutdown).await? else { return Ok(()) };
    let store = Store::open(&data.join("switchover.db")).await.context("opening the database")?;
    let github = super::github(&settings)?;
    let exe = std::env::current_exe().context("finding our own binary")?;
    let agent_data = data.join("agent");
    let homes = data.join(STEP_HOMES);
    let key = server_key(&data).context("the server's own key")?.expose_secret().as_bytes().to_vec();
    let host = LocalExecutor::new(exe.clone());
    // What a killed server left of its steps is ended before new ones begin.
    host.end_strays(&homes).await;
    JobHome::sweep(&homes);
    let docker = docker(&settings, &key)?;
    let limits = StepLimits {
        memory: settings.limits.step_memory,
        disk: Some(settings.limits.step_disk),
        internet: settings.limits.step_internet,
        ..StepLimits::default()
    };
    let logins = Logins::new(settings.registries.clone());
    let containers = docker
        .clone()
        .filter(|_| settings.executor == ExecutorKind::Docker)
        .map(|docker| DockerExecutor::new(docker, limits, logins.clone()));
    let jobs = match settings.executor {
        ExecutorKind::Kubernetes => {
            let StepCluster { cluster, node_selector } = &settings.kubernetes;
            let cluster = Cluster::new(cluster, Digest::of(&key).short()).await.context("[kubernetes]")?;
            Some(KubernetesExecutor::new(cluster, limits, logins, node_selector.clone()))
        }
        ExecutorKind::Local | ExecutorKind::Docker => None,
    };
    let executor: Arc<dyn Executor> = match (&containers, &jobs) {
        (Some(containers), _) => Arc::new(containers.clone()),
        (None, Some(jobs)) => Arc::new(jobs.clone()),
        (None, None) => Arc::new(host.clone()),
    };
    let wake = Wake::default();
    let metrics = Metrics::default();
    let engine = Engine::new(Shared {
        store: store.clone(),
        github,
        mirrors: Mirrors::new(data.join("mirrors")),
        executor,
        host,
        docker: docker.clone(),
        containers,
        clusters: Clusters::new(Digest::of(&key).short()),
        jobs,
        agent: agent::Client::new(agent::socket_path(&agent_data)),
        settings: settings.clone(),
        wake: wake.clone(),
        metrics: metrics.clone(),
        instance: uuid::Uuid::now_v7().to_string(),
        // In containers the image's name stands for the tools.
        tools: match settings.executor {
            ExecutorKind::Local => tools::fingerprint(HostEnv::of_process()),
            ExecutorKind::Docker | ExecutorKind::Kubernetes => "containers".to_owned(),
        },
        key,
        running: Mutex::new(HashMap::new()),
        asking: Mutex::new(HashMap::new()),
    });
    let web = Arc::new(web::Web {
        store: store.clone(),
        wake,
        webhook_secrets: settings.webhook_secrets.clone(),
        metrics,
        budget: web::intake::Budget::default(),
    });
    let (server, addresses) = web::bind(web, Some(engine.clone()), settings.listen, 2)
        .with_context(|| format!("listening on {} (SWITCHOVER_LISTEN)", settings.listen))?;
    let control = control::bind(engine.clone(), &data).context("making the control socket")?;
    tracing::info!(
        listen = ?addresses, public_url = %settings.public_url, data = %data.display(), version = super::VERSION,
        "serving"
    );
    let (web_handle, control_handle) = (server.handle(), control.handle());
    let tracker = TaskTracker::new();
    if settings.start_agent {
        let shutdown = shutdown.clone();
        tracker.spawn(async move { agent::keep_running(&exe, &agent_data, shutdown).await });
    }
    if let Some(docker) = docker {
        let (settings, engine, shutdown) = (settings.clone(), engine.clone(), shutdown.clone());
        tracker.spawn(async move {
            let ready = async {
                docker.ready(&settings.docker).await;
                engine.sweep_containers().await;
            };
            tokio::select! {
                () = ready => {}
                () = shutdown.cancelled() => return,
            }
            rollout::docker::follow(engine.agent.clone(), docker, shutdown).await;
        });
    }
    if engine.jobs.is_some() {
        let (engine, shutdown) = (engine.clone(), shutdown.clone());
        tracker.spawn(async move {
            tokio::select! {
                () = engine.sweep_containers() => {}
                () = shutdown.cancelled() => {}
            }
        });
    }
    let web_task = tokio::spawn(server);
    let control_task = tokio::spawn(control);
    tokio::select! {
        () = sweeper::adopt_backup(&engine) => engine.start(&tracker, &shutdown),
        () = shutdown.cancelled() => {}
    }
    tracker.close();
    shutdown.cancelled().await;
    // The webhook door stays open while steps end: what comes is stored, and processed after the next start.
    tracker.wait().await;
    control_handle.stop(true).await;
    web_handle.stop(true).await;
    let _ = (web_task.await, control_task.await);
    store.close().await;
    tracing::info!("ended");
    Ok(())
}

/// The Docker engine, where something of the settings uses one. Nothing is sent yet.
fn docker(settings: &Settings, key: &[u8]) -> anyhow::Result<Option<Docker>> {
    let target = settings.targets.values().any(|t| matches!(t, TargetSettings::Docker(_)));
    // Jobs of a cluster don't build images: an engine does, where one is named.
    let builder = settings.targets.values().any(settings::TargetSettings::runs_images);
    if settings.executor != ExecutorKind::Docker && !target && !builder {
        return Ok(None);
    }
    // Several servers may share one engine: each has a mark of its own on what it makes.
    let owner = Digest::of(key);
    Ok(Some(Docker::new(&settings.docker, owner.short()).context("SWITCHOVER_DOCKER_HOST")?))
}

/// One server per data folder: the one that is there is waited for so long. None: it was asked to end meanwhile.
async fn lock(data: &Path, wait: Duration, shutdown: &CancellationToken) -> anyhow::Result<Option<std::fs::File>> {
    let file = std::fs::File::create(data.join("server.lock")).context("making server.lock")?;
    match file.try_lock() {
        Ok(()) => return Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => {}
        Err(std::fs::TryLockError::Error(e)) => return Err(e).context("locking server.lock"),
    }
    if wait > Duration::ZERO {
        tracing::info!(data = %data.display(), "waiting for the server that runs with this data folder to end");
        let (got, locked) = tokio::sync::oneshot::channel();
        // A thread of its own: nobody waits for it when this process ends.
        std::thread::spawn(move || got.send(file.lock().map(|()| file)));
        tokio::select! {
            locked = tokio::time::timeout(wait, locked) => if let Ok(Ok(locked)) = locked {
                return locked.map(Some).context("locking server.lock");
            },
            () = shutdown.cancelled() => return Ok(None),
        }
    }
    anyhow::bail!("another server runs with the data folder {}", data.display())
}

/// Arguments of `switchover demo`.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// End after the play; exit code 0 only if all held.
    #[arg(long)]
    pub once: bool,
    /// Print one JSON object at the end instead of the table.
    #[arg(long)]
    pub json: bool,
    /// The repository to play with: `shop` needs nothing but Rust, `spring` a Docker engine (Spring Boot, Vite, nginx).
    #[arg(long, value_name = "NAME", default_value = "shop", value_parser = ["shop", "spring"])]
    pub sample: String,
    /// Use this local repository instead of a sample; in containers if it has a Dockerfile and an engine is there.
    #[arg(long, value_name = "PATH", conflicts_with = "sample")]
    pub repo: Option<PathBuf>,
    /// Docker engine of plays in containers, unix:///PATH or tcp://HOST:PORT. Default: DOCKER_HOST, or this host's.
    #[arg(long, value_name = "ADDRESS")]
    pub docker_host: Option<String>,
    /// Registry of plays in containers: plain HTTP, no login. Default: one is started, and removed at the end.
    #[arg(long, value_name = "HOST:PORT")]
    pub registry: Option<String>,
    /// Where the play releases to: its own Docker engine or processes, or a cluster (with --kubeconfig).
    #[arg(long, value_name = "KIND", default_value = "own", value_parser = ["own", "kubernetes"])]
    pub target: String,
    /// Kubeconfig of the cluster to play in; a namespace is made, and removed at the end.
    #[arg(long, value_name = "FILE", required_if_eq("target", "kubernetes"))]
    pub kubeconfig: Option<PathBuf>,
    /// Keep everything in this folder. Default: a temporary one, removed at the end.
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
}

/// Where Docker listens unless it is told otherwise.
const DOCKER: &str = "unix:///var/run/docker.sock";

/// `switchover demo`.
pub fn demo(args: DemoArgs) -> ExitCode {
    let result = runtime(2).and_then(|rt| {
        rt.block_on(async {
            let shutdown = CancellationToken::new();
            on_signals(shutdown.clone(), true)?;
            let options = play::Options {
                once: args.once,
                json: args.json,
                sample: play::sample::Sample::named(&args.sample).context("there is no such sample")?,
                repo: args.repo,
                docker_host: args.docker_host,
                docker_default: std::env::var("DOCKER_HOST").unwrap_or_else(|_| DOCKER.to_owned()),
                registry: args.registry,
                kubeconfig: args.kubeconfig.filter(|_| args.target == "kubernetes"),
                data: args.data,
                exe: std::env::current_exe()?,
            };
            Ok(play::run(options, shutdown).await?)
        })
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            play::tell_error(&format!("switchover: {e:#}"));
            ExitCode::from(2)
        }
    }
}

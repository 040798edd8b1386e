//! The engine and the registry that the tests share, and steps for them.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder};
use indexmap::IndexMap;
use switchover::{
    docker::{Docker, pull::Logins},
    domain::{
        config::{Resources, Service},
        run::{StepEnd, StepResult},
    },
    exec::{
        docker::{DockerExecutor, StepLimits},
        local::{ContainerStep, Executor, StepSpec},
        log::LogReader,
    },
    settings::DockerSettings,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::github::support::left_out;

/// The image that most tests use: small, and there from the start.
pub const SMALL: &str = "busybox:latest";

/// An engine of our own and a registry, by `tests/it/docker/engine`.
pub struct Engine {
    /// `unix:///…`.
    pub host: String,
    /// `127.0.0.1:5000`.
    pub registry: String,
    dir: Option<PathBuf>,
    running: Option<Child>,
}

fn script(args: &[&str]) -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/docker/engine"));
    command.args(args);
    command
}

impl Engine {
    /// Starts one. It ends when its standard input does: with this process, however that ends.
    pub fn start() -> Result<Self, String> {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let dir = std::env::temp_dir().join(format!("switchover-engine-{}-{n}", std::process::id()));
        let log = dir.with_extension("log");
        let errors = fs::File::create(&log).map_err(|e| e.to_string())?;
        let mut child = script(&["run", dir.to_str().ok_or("the temporary folder is no UTF-8")?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|e| e.to_string())?;
        let mut values = IndexMap::new();
        let output = BufReader::new(child.stdout.take().ok_or("no output")?);
        for line in output.lines().map_while(Result::ok) {
            if let Some((name, value)) = line.split_once('=') {
                values.insert(name.to_owned(), value.to_owned());
            }
            if let (Some(host), Some(registry)) = (values.get("DOCKER_HOST"), values.get("REGISTRY")) {
                let _ = fs::remove_file(&log);
                let (host, registry) = (host.clone(), registry.clone());
                return Ok(Self { host, registry, dir: Some(dir), running: Some(child) });
            }
        }
        let _ = child.wait();
        let said = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(&log);
        Err(said.lines().last().unwrap_or("it said nothing").to_owned())
    }

    fn command(&self, args: &[&str]) {
        let Some(dir) = &self.dir else { return };
        let args: Vec<&str> = args.iter().copied().chain([dir.to_str().unwrap()]).collect();
        let out = script(&args).output().unwrap();
        assert!(out.status.success(), "engine {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// Makes a base image known under the name that users write (see `images.sh`).
    pub fn image(&self, name: &str) {
        self.command(&["image", name]);
    }

    /// Stops the engine alone, as its operator would.
    pub fn down(&self) {
        self.command(&["down"]);
    }

    /// Starts it again.
    pub fn up(&self) {
        self.command(&["up"]);
    }

    pub fn settings(&self) -> DockerSettings {
        DockerSettings { host: self.host.clone(), certs: None }
    }

    /// A connection under an owner of its own.
    pub async fn docker(&self) -> Docker {
        let owner = uuid::Uuid::new_v4().to_string();
        let settings = self.settings();
        Docker::new(&settings, &owner).unwrap().negotiated(&settings).await.unwrap()
    }

    pub async fn executor(&self, limits: StepLimits) -> DockerExecutor {
        DockerExecutor::new(self.docker().await, limits, Logins::default())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(mut child) = self.running.take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

/// The engine that all tests share; None, and the test told by name, where there can't be one.
///
/// `SWITCHOVER_TEST_DOCKER_HOST` names one that is there already (`SWITCHOVER_TEST_REGISTRY` a registry that it reaches
/// without TLS); it must know the base images, or reach Docker Hub.
pub fn engine(test: &str) -> Option<&'static Engine> {
    static ENGINE: OnceLock<Result<Engine, String>> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| match std::env::var("SWITCHOVER_TEST_DOCKER_HOST") {
        Ok(host) => {
            let registry = std::env::var("SWITCHOVER_TEST_REGISTRY").unwrap_or_else(|_| "127.0.0.1:5000".into());
            Ok(Engine { host, registry, dir: None, running: None })
        }
        Err(_) => Engine::start(),
    });
    match engine {
        Ok(engine) => Some(engine),
        Err(why) => {
            left_out("docker", test, why);
            None
        }
    }
}

/// Commands, and how a step of each ends in a container, wherever that is.
pub const ENDS: &[(&str, StepEnd)] = &[
    ("true", StepEnd::Exited(0)),
    ("exit 3", StepEnd::Exited(3)),
    ("false; echo not reached", StepEnd::Exited(1)),
    ("no-such-program-anywhere", StepEnd::Exited(127)),
    ("kill -9 $$", StepEnd::Signalled(9)),
    ("kill -TERM $$", StepEnd::Signalled(15)),
    ("exec >&- 2>&-; exit 4", StepEnd::Exited(4)),
    ("cat; exit 5", StepEnd::Exited(5)),
    ("sleep 1000 & (sleep 1000 &) ; exit 6", StepEnd::Exited(6)),
];

/// A step in a workspace below `dir`.
pub fn step(dir: &TempDir, image: &str, command: &str) -> StepSpec {
    let (work, home) = (dir.path().join("work"), dir.path().join("home"));
    fs::create_dir_all(&home).unwrap();
    fs::create_dir_all(work.join("app")).unwrap();
    StepSpec {
        command: command.into(),
        cwd: work.join("app"),
        env: Vec::new(),
        home,
        timeout: Duration::from_secs(300),
        grace: Duration::from_secs(10),
        log: dir.path().join("logs/step"),
        output_limit: 1_000_000,
        hold: Some(dir.path().join("hold")),
        container: Some(ContainerStep {
            image: Some(image.into()),
            services: IndexMap::new(),
            resources: Resources::default(),
            workspace: work,
            caches: Vec::new(),
            mirror: None,
            repository: "acme/shop".into(),
            job: uuid::Uuid::new_v4().to_string(),
        }),
    }
}

/// A companion.
pub fn service(image: &str, ready: Option<&str>) -> Service {
    Service { image: image.into(), env: Default::default(), ready: ready.map(str::to_owned) }
}

pub async fn run(executor: &DockerExecutor, spec: &StepSpec) -> StepResult {
    match executor.run(spec, CancellationToken::new()).await {
        Ok(result) => result,
        Err(e) => panic!("{e}\n{}", log(spec).join("\n")),
    }
}

pub fn whole_log(spec: &StepSpec) -> Vec<String> {
    let mut reader = LogReader::open(&spec.log).unwrap();
    reader.lines(0, usize::MAX).unwrap().into_iter().map(|l| l.text).collect()
}

/// Without the fetching of images: whichever test comes first fetches the one that all share.
pub fn log(spec: &StepSpec) -> Vec<String> {
    let lines = whole_log(spec).into_iter();
    lines.filter(|l| !["[switchover] pulling ", "[switchover] pulled "].iter().any(|p| l.starts_with(p))).collect()
}

/// Waits for something to come true, for as long as a busy machine may take.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(120), "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for a file, with a deadline far beyond what it takes.
pub async fn file(path: &Path) {
    until(&path.display().to_string(), || path.exists()).await;
}

fn labelled(docker: &Docker) -> HashMap<&'static str, Vec<String>> {
    HashMap::from([("label", vec![format!("{}={}", switchover::docker::OWNER, docker.owner())])])
}

/// The networks of an owner.
pub async fn networks(docker: &Docker) -> Vec<bollard::models::Network> {
    let options = ListNetworksOptionsBuilder::default().filters(&labelled(docker)).build();
    docker.api().list_networks(Some(options)).await.unwrap()
}

/// What is left in the engine of an owner.
pub async fn left(docker: &Docker) -> Vec<String> {
    let options = ListContainersOptionsBuilder::default().all(true).filters(&labelled(docker)).build();
    let containers = docker.api().list_containers(Some(options)).await.unwrap();
    let mut left: Vec<String> = containers.into_iter().map(|c| format!("{:?}", c.names.unwrap_or_default())).collect();
    left.extend(networks(docker).await.into_iter().map(|n| n.name.unwrap_or_default()));
    left
}

//! Releases in containers: a real engine, a real registry, a real agent.

mod hostile;
mod hundred;
mod killed;
mod outage;
mod releases;
mod restarts;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use secrecy::SecretString;
use switchover::{
    agent::Client,
    docker::{Docker, pull::Logins},
    domain::{
        config::{AppKind, Resources},
        ids::{Digest, EnvironmentName, RepoId, RolloutId, Sha},
        rollout::{AppSpec, Desired, DesiredApp, End, EnvironmentKey, Kind, ProbeSpec, Progress, desired::slot_name},
    },
    rollout::{
        DriveEnd, DriveError,
        docker::{DockerConfig, DockerTarget},
        drive,
        local::service_id,
    },
    settings::DockerSettings,
};
use tokio_util::sync::CancellationToken;

use super::{
    model::app,
    stage::{DEADLINE, FileJournal, PlainRunner},
};
use crate::agent::Host;

/// An engine and a registry of this run's own, ended with it.
struct Rig {
    host: String,
    registry: String,
    /// Ends the engine when it is closed: with this process.
    keeper: Mutex<Child>,
    dir: PathBuf,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/docker/engine")
}

impl Rig {
    fn start(dir: &Path) -> Self {
        let mut keeper =
            Command::new(script()).arg("run").arg(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut found = BTreeMap::new();
        let lines = BufReader::new(keeper.stdout.take().unwrap()).lines();
        for line in lines.map(Result::unwrap).take(2) {
            let (name, value) = line.split_once('=').unwrap();
            found.insert(name.to_owned(), value.to_owned());
        }
        Self {
            host: found["DOCKER_HOST"].clone(),
            registry: found["REGISTRY"].clone(),
            keeper: Mutex::new(keeper),
            dir: dir.to_owned(),
        }
    }

    /// Ends it, and waits until it is gone.
    fn stop(&self) {
        let mut keeper = self.keeper.lock().unwrap();
        drop(keeper.stdin.take());
        keeper.wait().unwrap();
    }

    fn turn(&self, how: &str) {
        assert!(Command::new(script()).arg(how).arg(&self.dir).status().unwrap().success());
    }
}

/// The engine that all tests share.
fn shared() -> &'static Rig {
    static RIG: OnceLock<Rig> = OnceLock::new();
    RIG.get_or_init(|| Rig::start(&tempfile::tempdir().unwrap().keep()))
}

async fn docker_at(host: &str, owner: &str) -> Docker {
    let settings = DockerSettings { host: host.to_owned(), certs: None };
    Docker::new(&settings, owner).unwrap().negotiated(&settings).await.unwrap()
}

fn run(program: &mut Command) -> String {
    let out = program.output().unwrap();
    assert!(out.status.success(), "{program:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// The app as a static program, compiled once for each of its versions.
fn static_app() -> &'static Path {
    static APP: OnceLock<PathBuf> = OnceLock::new();
    APP.get_or_init(|| {
        let source = include_str!("../../agent/app.rs.txt");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let done = folder.join(format!("static-app-{}", Digest::of(source.as_bytes()).short()));
        if !done.exists() {
            let build = tempfile::tempdir_in(folder).unwrap();
            fs::write(build.path().join("app.rs"), source).unwrap();
            let flags = ["--edition", "2021", "-O", "-C", "target-feature=+crt-static", "-o", "app", "app.rs"];
            run(Command::new("rustc").args(flags).current_dir(build.path()));
            fs::rename(build.path().join("app"), &done).unwrap();
        }
        done
    })
}

/// An image of the app in the registry: its name and its digest.
type Image = (String, Digest);

/// A host with an engine and an agent.
struct Dock {
    host: Host,
    rig: &'static Rig,
    owner: String,
    docker: Docker,
    epoch: AtomicI64,
}

/// One version of the app.
struct Version<'a> {
    name: &'a str,
    env: &'a [(&'a str, &'a str)],
    /// More lines of its Dockerfile.
    recipe: &'a str,
}

impl<'a> Version<'a> {
    fn new(name: &'a str) -> Self {
        Self { name, env: &[], recipe: "EXPOSE 8080" }
    }
}

impl Rig {
    fn docker(&self, arguments: &[&str]) -> String {
        let client = ["/usr/bin/docker", "docker"].into_iter().find(|c| Path::new(c).exists()).unwrap_or("docker");
        run(Command::new(client).env("DOCKER_HOST", &self.host).env("DOCKER_BUILDKIT", "0").args(arguments))
    }

    /// Built and pushed once per run; the engine forgets it, so that a release pulls it.
    fn image(&self, recipe: &str) -> Image {
        static MADE: Mutex<BTreeMap<(String, String), Image>> = Mutex::new(BTreeMap::new());
        let mut made = MADE.lock().unwrap();
        let key = (self.host.clone(), recipe.to_owned());
        if let Some(image) = made.get(&key) {
            return image.clone();
        }
        let build = tempfile::tempdir().unwrap();
        fs::copy(static_app(), build.path().join("app")).unwrap();
        let file =
            format!("FROM busybox\nCOPY app /app\nENV BIND=0.0.0.0\nSTOPSIGNAL SIGKILL\n{recipe}\nCMD [\"/app\"]\n");
        fs::write(build.path().join("Dockerfile"), file).unwrap();
        let name = format!("{}/demo/app{}", self.registry, made.len());
        self.docker(&["build", "-q", "-t", &name, build.path().to_str().unwrap()]);
        self.docker(&["push", "-q", &name]);
        let known = self.docker(&["image", "inspect", "-f", "{{index .RepoDigests 0}}", &name]);
        let digest = Digest::new(known.rsplit('@').next().unwrap()).unwrap();
        self.docker(&["rmi", "-f", &name]);
        made.insert(key, (name.clone(), digest.clone()));
        (name, digest)
    }
}

impl Dock {
    async fn new() -> Self {
        Self::on(shared()).await
    }

    async fn on(rig: &'static Rig) -> Self {
        let owner = format!("test-{}", uuid::Uuid::new_v4());
        let docker = docker_at(&rig.host, &owner).await;
        Self { host: Host::new().await, rig, owner, docker, epoch: AtomicI64::new(0) }
    }

    fn root(&self) -> &Path {
        self.host.dir.path()
    }

    fn next_epoch(&self) -> i64 {
        self.epoch.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn config(client: Client, docker: Docker, root: &Path) -> DockerConfig {
        DockerConfig {
            agent: client,
            docker,
            data: root.join("server"),
            listen: BTreeMap::new(),
            secrets: BTreeMap::from([("TOKEN".to_owned(), SecretString::from("hunter2-hunter2"))]),
            repository: "acme/shop".into(),
            logins: Logins::default(),
            runner: Some(Arc::new(PlainRunner)),
        }
    }

    fn target(&self) -> DockerTarget {
        DockerTarget::new(Self::config(self.host.client.clone(), self.docker.clone(), self.root()))
    }

    fn key() -> EnvironmentKey {
        EnvironmentKey { repo: RepoId(1), environment: EnvironmentName::new("production").unwrap() }
    }

    /// One web app and one worker of one version.
    fn desired(&self, version: &Version<'_>) -> Desired {
        let sha = Sha::new(format!("{:0<40}", hex::encode(version.name)).chars().take(40).collect::<String>()).unwrap();
        let (image, digest) = self.rig.image(version.recipe);
        let one = |name: &str, kind| {
            let web = kind == AppKind::Web;
            let mut env = BTreeMap::from([("RELEASE".to_owned(), version.name.to_owned())]);
            env.extend(version.env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
            let spec = AppSpec {
                start: None,
                env,
                secrets: vec!["TOKEN".into()],
                port: None,
                health: web.then(|| "/health".into()),
                replicas: if web { 2 } else { 1 },
                pre_deploy: None,
                smoke: None,
                probe: ProbeSpec {
                    path: web.then(|| "/probe".into()),
                    interval: Duration::from_millis(10),
                    body: None,
                },
                image: Some(image.clone()),
                resources: Resources::default(),
                hosts: vec![],
                manifests: None,
            };
            let slot = slot_name(&sha, kind, &digest, &spec, &BTreeMap::new(), b"k");
            DesiredApp { name: app(name), kind, slot, digest: digest.clone(), spec, commit: None }
        };
        Desired {
            rollout: RolloutId::generate(),
            key: Self::key(),
            commit: sha.clone(),
            kind: Kind::Release,
            apps: vec![one("web", AppKind::Web), one("mailer", AppKind::Worker)],
            approval: false,
            min_ready: Duration::from_millis(100),
            start_timeout: Duration::from_secs(100),
            drain_timeout: Duration::from_secs(5),
            watch_for: Duration::from_millis(700),
            keep_previous: Duration::from_secs(3600),
            refused: None,
        }
    }

    fn journal(&self, desired: &Desired) -> FileJournal {
        FileJournal::new(self.root().join(format!("{}.json", desired.rollout)), self.next_epoch())
    }

    async fn release(&self, desired: &Desired) -> (End, Progress) {
        let journal = self.journal(desired);
        self.go_on(desired, &journal).await.unwrap()
    }

    async fn go_on(&self, desired: &Desired, journal: &FileJournal) -> Result<(End, Progress), DriveError> {
        let progress = journal.progress().unwrap_or_else(|| Progress::new(desired, switchover::clock::now()));
        let target = self.target();
        let driven = drive(desired, progress, &target, journal, CancellationToken::new());
        match tokio::time::timeout(DEADLINE, driven).await {
            Err(_) => panic!("no end: {:#?}\n{}", journal.progress(), self.host.log()),
            Ok(Ok(DriveEnd::Ended(end, progress))) => Ok((end, *progress)),
            Ok(Ok(other)) => panic!("{other:?}"),
            Ok(Err(e)) => Err(e),
        }
    }

    async fn status(&self, name: &str) -> switchover::agent::protocol::ServiceStatus {
        let id = service_id(&Self::key(), &app(name));
        self.host.client.status().await.unwrap().services.remove(&id).unwrap()
    }

    async fn address(&self) -> SocketAddr {
        self.status("web").await.listen.unwrap()
    }

    fn cli(&self, arguments: &[&str]) -> String {
        self.rig.docker(arguments)
    }

    /// Names of this test's containers, with a filter of its own.
    fn containers(&self, more: &[&str]) -> Vec<String> {
        let label = format!("label=dev.switchover.owner={}", self.owner);
        let mut arguments = vec!["ps", "--format", "{{.Names}}", "--filter", &label];
        arguments.extend(more);
        self.cli(&arguments).lines().map(str::to_owned).collect()
    }
}

impl Drop for Dock {
    fn drop(&mut self) {
        let label = format!("label=dev.switchover.owner={}", self.owner);
        for (list, remove) in [("docker ps -aq", "docker rm -fv"), ("docker network ls -q", "docker network rm")] {
            let line = format!("{list} --filter {label} | xargs -r {remove} >/dev/null 2>&1");
            let _ = Command::new("sh").args(["-c", &line]).env("DOCKER_HOST", &self.rig.host).status();
        }
    }
}

fn told(progress: &Progress) -> String {
    progress.messages.iter().map(|m| m.words.clone()).collect::<Vec<_>>().join("\n")
}

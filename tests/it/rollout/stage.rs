//! A host with a real agent, releases of a real app, a journal on disk, and users who never stop asking.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use secrecy::SecretString;
use switchover::{
    agent::Client,
    domain::{
        config::AppKind,
        ids::{EnvironmentName, Epoch, RepoId, RolloutId, Sha},
        rollout::{
            AppSpec, Asked, CommandSpec, Desired, DesiredApp, End, EnvironmentKey, Kind, Phase, PreDeploySpec,
            ProbeSpec, Progress, desired::slot_name,
        },
    },
    rollout::{
        DriveEnd, DriveError, Journal, JournalError, drive,
        local::{CommandResult, CommandRunner, LocalConfig, LocalTarget, ShellCommand, releases, service_id},
    },
};
use tokio::{io::AsyncReadExt as _, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::agent::{Host, app, lifeline};

pub const DEADLINE: Duration = Duration::from_secs(300);

/// Runs commands as the executor would, with less care.
pub struct PlainRunner;

impl CommandRunner for PlainRunner {
    fn run<'a>(&'a self, command: ShellCommand, stop: &'a CancellationToken) -> BoxFuture<'a, CommandResult> {
        Box::pin(async move {
            let mut child = tokio::process::Command::new("sh")
                .args(["-e", "-c", &command.run])
                .current_dir(&command.cwd)
                .env_clear()
                .envs(&command.env)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::inherit())
                .process_group(0)
                .spawn()
                .unwrap();
            // With all that it began: whatever stays has the tests' own output open, and who reads that waits for it.
            let _group = Group(Pid::from_raw(child.id().unwrap().cast_signed()));
            let mut out = child.stdout.take().unwrap();
            let mut text = String::new();
            let (ok, words) = tokio::select! {
                status = async { let _ = out.read_to_string(&mut text).await; child.wait().await.unwrap() } =>
                    (status.success(), format!("exit code {}", status.code().unwrap_or(-1))),
                () = tokio::time::sleep(command.timeout) => (false, "killed at its time limit".to_owned()),
                () = stop.cancelled() => (false, "stopped".to_owned()),
            };
            fs::write(&command.log, &text).unwrap();
            CommandResult { ok, words, tail: text.lines().map(str::to_owned).collect() }
        })
    }
}

/// Ended when it is dropped.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}

/// Progress in a file, fenced by an epoch in another.
pub struct FileJournal {
    pub epoch: Epoch,
    pub file: PathBuf,
    pub asked: watch::Sender<Asked>,
}

impl FileJournal {
    pub fn new(file: PathBuf, epoch: i64) -> Self {
        Self { epoch: Epoch(epoch), file, asked: watch::channel(Asked::default()).0 }
    }

    pub fn progress(&self) -> Option<Progress> {
        serde_json::from_slice(&fs::read(&self.file).ok()?).ok()
    }

    /// Waits until the rollout is in this phase, or over.
    pub async fn reaches(&self, phase: Phase) {
        while self.progress().is_none_or(|p| p.end.is_none() && p.phase != phase) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Journal for FileJournal {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn record<'a>(&'a self, progress: &'a Progress) -> BoxFuture<'a, Result<Asked, JournalError>> {
        Box::pin(async move {
            let draft = self.file.with_extension("draft");
            fs::write(&draft, serde_json::to_vec(progress).unwrap()).unwrap();
            fs::rename(&draft, &self.file).unwrap();
            Ok(self.asked.borrow().clone())
        })
    }

    fn asked(&self) -> watch::Receiver<Asked> {
        self.asked.subscribe()
    }
}

/// A host, its agent and a place for releases.
pub struct Stage {
    pub host: Host,
    epoch: AtomicU64,
}

/// One version of the app.
pub struct Version<'a> {
    pub name: &'a str,
    pub start: Option<String>,
    pub env: &'a [(&'a str, &'a str)],
    pub kind: Kind,
}

impl<'a> Version<'a> {
    pub fn new(name: &'a str) -> Self {
        Self { name, start: None, env: &[], kind: Kind::Release }
    }
}

impl Stage {
    pub async fn new() -> Self {
        Self { host: Host::new().await, epoch: AtomicU64::new(0) }
    }

    pub fn root(&self) -> &Path {
        self.host.dir.path()
    }

    pub fn next_epoch(&self) -> i64 {
        i64::try_from(self.epoch.fetch_add(1, Ordering::SeqCst)).unwrap() + 1
    }

    pub fn config(client: Client, root: &Path) -> LocalConfig {
        LocalConfig {
            agent: client,
            releases: root.join("releases"),
            data: root.join("server"),
            path: "/usr/local/bin:/usr/bin:/bin".into(),
            listen: BTreeMap::new(),
            secrets: BTreeMap::from([("TOKEN".to_owned(), SecretString::from("hunter2-hunter2"))]),
            runner: Arc::new(PlainRunner),
        }
    }

    pub fn target(&self) -> LocalTarget {
        LocalTarget::new(Self::config(self.host.client.clone(), self.root()))
    }

    /// One web app and one worker of one version.
    pub fn desired(&self, version: &Version<'_>) -> Desired {
        let sha = Sha::new(format!("{:0<40}", hex::encode(version.name)).chars().take(40).collect::<String>()).unwrap();
        let build = self.root().join("build");
        fs::create_dir_all(&build).unwrap();
        fs::write(build.join("version.txt"), version.name).unwrap();
        let stored = releases::store(&build, None, &self.root().join("releases")).unwrap();
        let one = |name: &str, kind| {
            let mut env = BTreeMap::from([
                ("RELEASE".to_owned(), version.name.to_owned()),
                ("LIFELINE".to_owned(), lifeline().to_string()),
            ]);
            env.extend(version.env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
            let spec = AppSpec {
                start: Some(version.start.clone().unwrap_or_else(|| app().display().to_string())),
                env,
                secrets: vec!["TOKEN".into()],
                port: None,
                health: Some("/health".into()),
                replicas: if kind == AppKind::Web { 2 } else { 1 },
                pre_deploy: None,
                smoke: None,
                probe: ProbeSpec {
                    path: (kind == AppKind::Web).then(|| "/probe".into()),
                    interval: Duration::from_millis(10),
                    body: None,
                },
                image: None,
                resources: switchover::domain::config::Resources::default(),
                hosts: vec![],
                manifests: None,
            };
            let slot = slot_name(&sha, kind, &stored.digest, &spec, &BTreeMap::new(), b"k");
            let name = super::model::app(name);
            DesiredApp { name, kind, slot, digest: stored.digest.clone(), spec, commit: None }
        };
        Desired {
            rollout: RolloutId::generate(),
            key: EnvironmentKey { repo: RepoId(1), environment: EnvironmentName::new("production").unwrap() },
            commit: sha.clone(),
            kind: version.kind,
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

    pub fn journal(&self, desired: &Desired) -> FileJournal {
        FileJournal::new(self.root().join(format!("{}.json", desired.rollout)), self.next_epoch())
    }

    /// From the beginning to the end.
    pub async fn release(&self, desired: &Desired) -> (End, Progress) {
        let journal = self.journal(desired);
        self.go_on(desired, &journal).await.unwrap()
    }

    /// The same on a target of one's own.
    pub async fn release_to(&self, desired: &Desired, target: &LocalTarget) -> (End, Progress) {
        self.drive(desired, &self.journal(desired), target).await.unwrap()
    }

    pub async fn go_on(&self, desired: &Desired, journal: &FileJournal) -> Result<(End, Progress), DriveError> {
        self.drive(desired, journal, &self.target()).await
    }

    async fn drive(
        &self,
        desired: &Desired,
        journal: &FileJournal,
        target: &LocalTarget,
    ) -> Result<(End, Progress), DriveError> {
        let progress = journal.progress().unwrap_or_else(|| Progress::new(desired, switchover::clock::now()));
        let driven = drive(desired, progress, target, journal, CancellationToken::new());
        match tokio::time::timeout(DEADLINE, driven).await {
            Err(_) => panic!("no end: {:#?}\n{}", journal.progress(), self.host.log()),
            Ok(Ok(DriveEnd::Ended(end, progress))) => Ok((end, *progress)),
            Ok(Ok(other)) => panic!("{other:?}"),
            Ok(Err(e)) => Err(e),
        }
    }

    pub async fn status(&self, name: &str) -> switchover::agent::protocol::ServiceStatus {
        let key = EnvironmentKey { repo: RepoId(1), environment: EnvironmentName::new("production").unwrap() };
        let id = service_id(&key, &super::model::app(name));
        self.host.client.status().await.unwrap().services.remove(&id).unwrap()
    }

    pub async fn address(&self) -> SocketAddr {
        self.status("web").await.listen.unwrap()
    }
}

pub fn smoke(run: &str) -> Option<CommandSpec> {
    Some(CommandSpec { run: run.into(), timeout: Duration::from_secs(30) })
}

pub fn pre_deploy(run: &str, reversible: bool) -> Option<PreDeploySpec> {
    Some(PreDeploySpec { command: smoke(run).unwrap(), reversible })
}

/// Users: on fresh and on kept connections, with bodies, with slow answers.
pub struct Users {
    stop: Arc<AtomicBool>,
    pub sent: Arc<AtomicU64>,
    lost: Arc<Mutex<Vec<String>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Users {
    pub fn ask(address: SocketAddr) -> Self {
        let client = |idle| {
            reqwest::Client::builder().pool_max_idle_per_host(idle).no_proxy().timeout(DEADLINE).build().unwrap()
        };
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let lost = Arc::new(Mutex::new(Vec::new()));
        let kinds = [(0, "/", false), (8, "/", false), (8, "/length", true), (8, "/slow?ms=250", false)];
        let tasks = kinds.map(|(idle, path, post)| {
            let (stop, sent, lost) = (Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&lost));
            let client = client(idle);
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    // A person's pace: one that asks without a pause is most of the load itself.
                    tokio::time::sleep(Duration::from_millis(3)).await;
                    let url = format!("http://{address}{path}");
                    let request = if post { client.post(url).body(vec![7; 20_000]) } else { client.get(url) };
                    let begun = Instant::now();
                    sent.fetch_add(1, Ordering::Relaxed);
                    let words = match request.send().await {
                        Ok(r) if r.status().is_success() => match r.bytes().await {
                            Ok(_) => continue,
                            Err(e) => format!("{path}: {e:?}"),
                        },
                        Ok(r) => format!("{path}: {} {}", r.status(), r.text().await.unwrap_or_default()),
                        Err(e) => format!("{path}: {e:?}"),
                    };
                    let how = if idle == 0 { "fresh" } else { "kept" };
                    let after = begun.elapsed().as_secs_f64();
                    lost.lock().unwrap().push(format!("{} after {after:.1} s {how} {words}", switchover::clock::now()));
                }
            })
        });
        Self { stop, sent, lost, tasks: tasks.into() }
    }

    /// How many asked, and what was lost.
    pub async fn leave(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        let lost = self.lost.lock().unwrap().clone();
        (self.sent.load(Ordering::Relaxed), lost)
    }
}

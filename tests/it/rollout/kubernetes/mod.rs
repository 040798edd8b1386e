//! Releases in a real cluster: API server, kubelet, kube-proxy, pods.

mod beside;
mod drift;
mod first;
mod hostile;
mod killed;
mod nodes;
mod outage;
mod pair;
mod pinned;
mod rights;
mod scaled;
mod table;
mod there_and_back;
mod worker;

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use secrecy::SecretString;
use switchover::{
    cluster::{Cluster as Door, Watched},
    docker::pull::Logins,
    domain::{
        config::{AppKind, Resources},
        ids::{EnvironmentName, RepoId, RolloutId, Sha},
        rollout::{
            AppManifests, AppSpec, Desired, DesiredApp, End, EnvironmentKey, Kind, Live, ProbeSpec, Progress,
            desired::slot_name,
        },
    },
    manifests::{self, AppFacts, Facts, Plain, Source},
    rollout::{
        DriveEnd, DriveError, Target as _, drive,
        kubernetes::{KubernetesConfig, KubernetesTarget},
    },
    settings::ClusterSettings,
};
use tokio_util::sync::CancellationToken;

use super::{
    model::app,
    stage::{DEADLINE, FileJournal, PlainRunner},
};
use crate::cluster::rig::{self, Cluster, Image, Namespace, until};

/// An app that tells its clients before it goes, as every app should: a connection that is closed while a request is on
/// its way loses it, whoever switches.
const POLITE: &[(&str, &str)] = &[("ON_TERM", "polite")];

async fn watch(kubeconfig: &Path, namespace: &str) -> Watched {
    let settings =
        ClusterSettings { kubeconfig: Some(kubeconfig.to_owned()), context: None, namespace: namespace.to_owned() };
    Watched::start(Door::new(&settings, "test").await.unwrap())
}

fn config(watched: Watched, dir: &Path) -> KubernetesConfig {
    KubernetesConfig {
        data: dir.join("server"),
        secrets: BTreeMap::from([("TOKEN".to_owned(), SecretString::from("hunter2-hunter2"))]),
        repository: "acme/shop".into(),
        logins: Logins::default(),
        runner: Some(Arc::new(PlainRunner)),
        watched,
        settle: Duration::from_secs(1),
        balancer_settle: Duration::from_secs(6),
    }
}

/// A namespace with a server's eye on it.
struct Bench {
    ns: Namespace<'static>,
    watched: Watched,
    dir: tempfile::TempDir,
    epoch: AtomicI64,
    /// See [`KubernetesConfig`]: short, where no node's proxy takes its time.
    settle: Duration,
    /// So long a rollout may take.
    patience: Duration,
}

impl Bench {
    async fn new(test: &str) -> Option<Self> {
        let cluster = Cluster::shared(test)?;
        let ns = cluster.namespace("release");
        Some(Self::on(ns, cluster.kubeconfig()).await)
    }

    async fn on(ns: Namespace<'static>, kubeconfig: &Path) -> Self {
        let watched = watch(kubeconfig, &ns.name).await;
        let dir = tempfile::tempdir().unwrap();
        Self { ns, watched, dir, epoch: AtomicI64::new(0), settle: Duration::from_secs(1), patience: DEADLINE }
    }

    fn key() -> EnvironmentKey {
        EnvironmentKey { repo: RepoId(1), environment: EnvironmentName::new("production").unwrap() }
    }

    fn target(&self) -> KubernetesTarget {
        let config = config(self.watched.clone(), self.dir.path());
        KubernetesTarget::new(KubernetesConfig { settle: self.settle, ..config })
    }

    fn next_epoch(&self) -> i64 {
        self.epoch.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn journal_file(&self, desired: &Desired) -> PathBuf {
        self.dir.path().join(format!("{}.json", desired.rollout))
    }

    fn journal(&self, desired: &Desired) -> FileJournal {
        FileJournal::new(self.journal_file(desired), self.next_epoch())
    }

    async fn release(&self, desired: &Desired) -> (End, Progress) {
        let journal = self.journal(desired);
        self.go_on(desired, &journal).await.unwrap()
    }

    async fn go_on(&self, desired: &Desired, journal: &FileJournal) -> Result<(End, Progress), DriveError> {
        let progress = journal.progress().unwrap_or_else(|| Progress::new(desired, switchover::clock::now()));
        let target = self.target();
        let driven = drive(desired, progress, &target, journal, CancellationToken::new());
        match tokio::time::timeout(self.patience, driven).await {
            Err(_) => panic!("no end: {:#?}\n{}", journal.progress(), self.ns.kubectl(&["get", "all", "-o", "wide"])),
            Ok(Ok(DriveEnd::Ended(end, progress))) => Ok((end, *progress)),
            Ok(Ok(other)) => panic!("{other:?}"),
            Ok(Err(e)) => Err(e),
        }
    }

    /// Drives a release that can't get ready until the cluster has said why, however long that takes here; then its time
    /// is up. One that ends by itself before is as it is.
    async fn release_in_vain(&self, desired: &Desired, words: &[&str]) -> (End, Progress) {
        let patient = Desired { start_timeout: DEADLINE, ..desired.clone() };
        let (journal, target, eye) = (self.journal(&patient), self.target(), self.target());
        let enough = CancellationToken::new();
        let said = async {
            let mut changes = self.watched.changes();
            loop {
                let seen = eye.observe(&patient, journal.epoch).await;
                let slots = seen.apps.values().flat_map(|app| app.slots.values());
                let why: String = slots.filter_map(|slot| slot.why.as_deref()).collect();
                if !why.is_empty() && words.iter().all(|word| why.contains(word)) {
                    return enough.cancel();
                }
                // Events of pods are not watched: now and then it is looked without a change too.
                let _ = tokio::time::timeout(Duration::from_millis(500), changes.changed()).await;
            }
        };
        let progress = Progress::new(&patient, switchover::clock::now());
        let driven = drive(&patient, progress, &target, &journal, enough.clone());
        let mut driven = std::pin::pin!(tokio::time::timeout(self.patience + DEADLINE, driven));
        let end = tokio::select! {
            end = &mut driven => end,
            () = said => driven.as_mut().await,
        };
        match end.unwrap_or_else(|_| panic!("no end: {:#?}", journal.progress())).unwrap() {
            DriveEnd::Ended(end, progress) => (end, *progress),
            // Goes on from the journal, under the next epoch.
            DriveEnd::HandedBack(_) => {
                let late = Desired { start_timeout: Duration::from_secs(1), ..desired.clone() };
                let journal = FileJournal::new(journal.file.clone(), self.next_epoch());
                self.go_on(&late, &journal).await.unwrap()
            }
        }
    }

    async fn live(&self) -> Live {
        self.target().live(&Self::key()).await.unwrap()
    }

    fn address(&self, service: &str) -> SocketAddr {
        self.ns.address(service, 8080)
    }

    /// Objects of a kind, by name.
    fn names(&self, kind: &str) -> Vec<String> {
        let all = self.ns.kubectl(&["get", kind, "-o", "jsonpath={range .items[*]}{.metadata.name}{'\\n'}{end}"]);
        all.lines().map(str::to_owned).collect()
    }
}

/// Waits until a Service leads to this version. Who asks before the node's proxy knows the Service at all is led nowhere, and
/// the kernel remembers that for two minutes.
fn answers(address: SocketAddr, version: &str) {
    let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(1));
    until("the Service answers", || rig::get(connect(), "/") == Ok(version.to_owned()));
}

/// One app of a release.
struct Wanted<'a> {
    name: &'a str,
    kind: AppKind,
    image: &'a Image,
    /// None: nobody wrote any.
    manifests: Option<AppManifests>,
    env: &'a [(&'a str, &'a str)],
}

impl<'a> Wanted<'a> {
    fn web(image: &'a Image) -> Self {
        Self { name: "web", kind: AppKind::Web, image, manifests: None, env: &[] }
    }
}

/// The app `web` within manifests.
fn tied(text: &str, image: &Image) -> AppManifests {
    tied_all(text, &[("web", AppKind::Web, image)]).remove("web").unwrap()
}

fn tied_all(text: &str, apps: &[(&str, AppKind, &Image)]) -> BTreeMap<String, AppManifests> {
    let read = manifests::read(&[Source { path: "k8s/all.yml", bytes: text.as_bytes() }]);
    assert!(read.refused.is_empty(), "{:?}", read.refused);
    let facts: Vec<AppFacts> = apps
        .iter()
        .map(|(name, kind, image)| AppFacts {
            name: app(name),
            kind: *kind,
            images: vec![image.repository.clone()],
            path: String::new(),
            image_of: None,
            port: None,
            health: None,
        })
        .collect();
    let tied = manifests::tie(&Facts { apps: &facts, environment: "production", scripts: &[] }, &read.objects);
    assert!(tied.unclear.is_empty(), "{:?}", tied.unclear);
    tied.apps.into_iter().map(|(name, m)| (name.to_string(), m)).collect()
}

fn made_up(name: &str, kind: AppKind) -> AppManifests {
    manifests::made_up(&Plain {
        name: app(name),
        kind,
        port: (kind == AppKind::Web).then_some(8080),
        health: (kind == AppKind::Web).then(|| "/health".to_owned()),
        resources: Resources::default(),
        drain: Duration::from_secs(2),
        native_sleep: true,
    })
}

fn desired(commit: &str, wanted: Vec<Wanted<'_>>) -> Desired {
    let sha = Sha::new(format!("{:0<40}", hex::encode(commit)).chars().take(40).collect::<String>()).unwrap();
    let apps = wanted.into_iter().map(|w| {
        let web = w.kind == AppKind::Web;
        let spec = AppSpec {
            start: None,
            env: w.env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            secrets: vec!["TOKEN".into()],
            port: web.then_some(8080),
            health: web.then(|| "/health".into()),
            replicas: if web { 2 } else { 1 },
            pre_deploy: None,
            smoke: None,
            probe: ProbeSpec { path: web.then(|| "/probe".into()), interval: Duration::from_millis(10), body: None },
            image: Some(w.image.repository.clone()),
            resources: Resources::default(),
            hosts: vec![],
            manifests: Some(Box::new(w.manifests.unwrap_or_else(|| made_up(w.name, w.kind)))),
        };
        let slot = slot_name(&sha, w.kind, &w.image.digest, &spec, &BTreeMap::new(), b"k");
        DesiredApp { name: app(w.name), kind: w.kind, slot, digest: w.image.digest.clone(), spec, commit: None }
    });
    Desired {
        rollout: RolloutId::generate(),
        key: Bench::key(),
        commit: sha.clone(),
        kind: Kind::Release,
        apps: apps.collect(),
        approval: false,
        min_ready: Duration::from_millis(100),
        start_timeout: Duration::from_secs(100),
        drain_timeout: Duration::from_secs(3),
        watch_for: Duration::from_millis(700),
        keep_previous: Duration::from_secs(3600),
        refused: None,
    }
}

/// Back to what an earlier release brought.
fn back_to(desired: &Desired) -> Desired {
    Desired { rollout: RolloutId::generate(), kind: Kind::Rollback, ..desired.clone() }
}

fn told(progress: &Progress) -> String {
    progress.messages.iter().map(|m| m.words.clone()).collect::<Vec<_>>().join("\n")
}

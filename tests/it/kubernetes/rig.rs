//! A namespace for steps, and steps for it.

use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Duration};

use switchover::{
    cluster::Cluster as Connection,
    docker::pull::Logins,
    domain::{config::Service, run::StepResult},
    exec::{
        kubernetes::KubernetesExecutor,
        limits::StepLimits,
        local::{ContainerStep, Executor, StepSpec},
        log::LogReader,
    },
    settings::{ClusterSettings, Registry},
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::cluster::rig::{BUILDS, Cluster, Namespace};

/// The image that most tests use: small, with busybox's tools.
pub const SMALL: &str = "busybox:latest";
/// One with GNU's.
pub const GNU: &str = "debian:bookworm-slim";

/// A namespace of the shared cluster, whose pods find the base images.
pub struct Stage<'a> {
    pub space: Namespace<'a>,
    owner: String,
}

impl Stage<'static> {
    pub fn new(test: &str) -> Option<Self> {
        let cluster = Cluster::shared(test)?;
        image(cluster, GNU);
        Some(Self::on(cluster))
    }
}

impl<'a> Stage<'a> {
    /// One in a cluster that is there.
    pub fn on(cluster: &'a Cluster) -> Self {
        image(cluster, SMALL);
        let owner = uuid::Uuid::new_v4().simple().to_string()[..12].to_owned();
        Self { space: cluster.namespace("steps"), owner }
    }

    pub async fn connection(&self) -> Connection {
        let settings = ClusterSettings {
            kubeconfig: Some(self.space.cluster.kubeconfig().to_owned()),
            context: None,
            namespace: self.space.name.clone(),
        };
        Connection::new(&settings, &self.owner).await.unwrap()
    }

    pub async fn executor(&self, limits: StepLimits) -> KubernetesExecutor {
        KubernetesExecutor::new(self.connection().await, limits, Logins::default(), BTreeMap::new())
    }

    pub async fn with_logins(&self, registries: BTreeMap<String, Registry>) -> KubernetesExecutor {
        let logins = Logins::new(registries);
        KubernetesExecutor::new(self.connection().await, StepLimits::default(), logins, BTreeMap::new())
    }

    /// What is there of ours.
    pub fn left(&self) -> Vec<String> {
        let kinds = "jobs,pods,secrets,networkpolicies";
        let said = self.space.kubectl(&["get", kinds, "-l", "switchover.dev/kind=step", "-o", "name"]);
        said.lines().map(str::to_owned).collect()
    }

    /// Waits until nothing is left; the cluster takes a moment for what belongs to a Job.
    pub async fn nothing_left(&self) {
        until("nothing is left in the cluster", || self.left().is_empty()).await;
    }

    /// The one pod of ours.
    pub fn pod(&self) -> String {
        let live = "go-template={{range .items}}{{if not .metadata.deletionTimestamp}}pod/{{.metadata.name}}{{\"\\n\"}}{{end}}{{end}}";
        let said = self.space.kubectl(&["get", "pods", "-l", "switchover.dev/kind=step", "-o", live]);
        said.lines().next().unwrap_or_default().to_owned()
    }
}

/// Makes a base image known under the name that users write (see `tests/it/docker/images.sh`).
pub fn image(cluster: &Cluster, name: &str) {
    let Some(dir) = cluster.dir() else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/docker/engine");
    let out = Command::new(script).args(["image", name]).arg(dir.join("engine")).output().unwrap();
    assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A step in a workspace below `dir`.
pub fn step(dir: &TempDir, image: &str, command: &str) -> StepSpec {
    StepSpec { timeout: Duration::from_secs(110), ..crate::docker::rig::step(dir, image, command) }
}

pub fn container(spec: &mut StepSpec) -> &mut ContainerStep {
    spec.container.as_mut().unwrap()
}

/// A companion.
pub fn service(image: &str, ready: Option<&str>) -> Service {
    Service { image: image.into(), env: Default::default(), ready: ready.map(str::to_owned) }
}

pub async fn run(executor: &KubernetesExecutor, spec: &StepSpec) -> StepResult {
    match executor.run(spec, CancellationToken::new()).await {
        Ok(result) => result,
        Err(e) => panic!("{e}\n{}", log(spec).join("\n")),
    }
}

/// Without what a busy cluster says: that it gets an image, and how long files took on their way.
pub fn log(spec: &StepSpec) -> Vec<String> {
    let Ok(mut reader) = LogReader::open(&spec.log) else { return Vec::new() };
    let lines = reader.lines(0, usize::MAX).unwrap().into_iter().map(|l| l.text);
    let busy = [("the node ", "is getting its images"), ("brought ", " s"), ("took ", " s")];
    let is_busy = |l: &str| busy.iter().any(|(begin, end)| l.starts_with(begin) && l.ends_with(end));
    lines.filter(|l| !l.strip_prefix("[switchover] ").is_some_and(is_busy)).collect()
}

/// Waits for a line of the step's.
pub async fn line(spec: &StepSpec, text: &str) {
    until(text, || log(spec).iter().any(|l| l == text)).await;
}

/// Waits for something to come true, for as long as a busy machine may take.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(120), "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub fn unlocked(path: &Path) -> bool {
    fs::File::open(path).unwrap().try_lock().is_ok()
}

/// Builds an image from a Dockerfile and files beside it, and pushes it.
pub fn built(cluster: &Cluster, name: &str, dockerfile: &str, files: &[(&str, &[u8])]) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("Dockerfile"), dockerfile).unwrap();
    for (path, bytes) in files {
        fs::write(dir.path().join(path), bytes).unwrap();
        fs::set_permissions(dir.path().join(path), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let image = format!("{}/{name}:{}", cluster.registry(), uuid::Uuid::new_v4().simple());
    let _alone = BUILDS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let client = ["/usr/bin/docker", "docker"].into_iter().find(|c| Path::new(c).exists()).unwrap_or("docker");
    for args in [["build", "-q", "-t", &image, dir.path().to_str().unwrap()].as_slice(), &["push", "-q", &image]] {
        let mut command = Command::new(client);
        command.env("DOCKER_HOST", cluster.docker_host()).env("DOCKER_BUILDKIT", "0").args(args);
        let out = command.output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
    image
}

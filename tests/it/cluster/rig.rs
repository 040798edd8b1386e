//! The cluster that the tests share, clusters of a test's own, and steps for them.
//!
//! `tests/it/cluster/cluster` starts them: a real API server, kubelet, containerd and kube-proxy. Or
//! `SWITCHOVER_TEST_KUBECONFIG` names one that is there (kind, k3d, …), with `SWITCHOVER_TEST_REGISTRY` a registry that
//! its nodes and `SWITCHOVER_TEST_DOCKER_HOST` reach without TLS.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};
use switchover::domain::ids::Digest;

use crate::github::support::left_out;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/cluster/cluster");

/// Builds come one at a time: an image that is removed takes layers with it that another build just found in the cache.
pub static BUILDS: Mutex<()> = Mutex::new(());

/// Far beyond what anything here takes; it ends tests that would hang.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// A cluster. It ends when this is dropped, and with this process, however that ends.
pub struct Cluster {
    /// What the script said of it.
    values: BTreeMap<String, String>,
    /// None: it was there before, and is not ours.
    dir: Option<PathBuf>,
    running: Mutex<Option<Child>>,
    slow: OnceLock<Net>,
    given: AtomicU32,
}

fn run(command: &mut Command) -> Result<String, String> {
    let out = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&out.stderr).trim()))
}

fn apply(mut kubectl: Command, manifests: &str) {
    kubectl.args(["apply", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = kubectl.spawn().unwrap();
    child.stdin.take().unwrap().write_all(manifests.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{}\n{manifests}", String::from_utf8_lossy(&out.stderr));
}

fn script(args: &[&str]) -> Command {
    let mut command = Command::new(SCRIPT);
    command.args(args);
    command
}

/// Which parts a cluster has.
#[derive(Clone, Copy)]
enum Parts {
    All,
    Api,
}

fn left_out_on_purpose() -> bool {
    std::env::var("LEAVE_OUT").is_ok_and(|list| list.split(',').any(|n| n.trim() == "kubernetes"))
}

impl Cluster {
    /// The cluster that all tests share, each in a namespace of its own; None, and the test told by name, where there
    /// can't be one. It must stay as it is: to stop its API server or to change what is no namespace's, take an own one.
    pub fn shared(test: &str) -> Option<&'static Self> {
        static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| match std::env::var("SWITCHOVER_TEST_KUBECONFIG") {
            Ok(kubeconfig) => Ok(Self::there(&kubeconfig)),
            Err(_) => Self::start(Parts::All),
        });
        Self::or_left_out(shared.as_ref(), test)
    }

    /// A cluster of this test's own, for about 0.9 GB of memory.
    pub fn own(test: &str) -> Option<Self> {
        Self::started(Parts::All, test)
    }

    /// One with etcd, API server and controller manager alone: no node, so no pod ever runs.
    pub fn api_only(test: &str) -> Option<Self> {
        Self::started(Parts::Api, test)
    }

    fn started(parts: Parts, test: &str) -> Option<Self> {
        if std::env::var_os("SWITCHOVER_TEST_KUBECONFIG").is_some() {
            left_out("own-cluster", test, "SWITCHOVER_TEST_KUBECONFIG names one that is not this test's own");
            return None;
        }
        Self::or_left_out(Self::start(parts), test)
    }

    fn or_left_out<T>(cluster: Result<T, impl AsRef<str>>, test: &str) -> Option<T> {
        cluster.inspect_err(|why| left_out("kubernetes", test, why.as_ref())).ok()
    }

    fn there(kubeconfig: &str) -> Self {
        let set = |name: &str, otherwise: &str| std::env::var(name).unwrap_or_else(|_| otherwise.to_owned());
        let values = [
            ("KUBECONFIG", kubeconfig.to_owned()),
            ("KUBECTL", "kubectl".to_owned()),
            ("REGISTRY", set("SWITCHOVER_TEST_REGISTRY", "127.0.0.1:5000")),
            ("DOCKER_HOST", set("SWITCHOVER_TEST_DOCKER_HOST", "unix:///var/run/docker.sock")),
        ];
        Self::with(values.map(|(name, value)| (name.to_owned(), value)).into(), None, None)
    }

    fn with(values: BTreeMap<String, String>, dir: Option<PathBuf>, running: Option<Child>) -> Self {
        let running = Mutex::new(running);
        Self { values, dir, running, slow: OnceLock::new(), given: AtomicU32::new(0) }
    }

    fn start(parts: Parts) -> Result<Self, String> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        if left_out_on_purpose() {
            return Err("LEAVE_OUT names kubernetes".into());
        }
        let n = COUNT.fetch_add(1, Ordering::SeqCst);
        let dir = std::env::temp_dir().join(format!("switchover-cluster-{}-{n}", std::process::id()));
        let log = dir.with_extension("log");
        let errors = File::create(&log).map_err(|e| e.to_string())?;
        let mut args = vec!["run", dir.to_str().ok_or("the temporary folder is no UTF-8")?];
        args.extend(matches!(parts, Parts::Api).then_some("api"));
        let mut child = script(&args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|e| e.to_string())?;
        let output = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut values = BTreeMap::new();
        for line in output.lines().map_while(Result::ok) {
            match line.split_once('=') {
                Some(("READY", _)) => {
                    let _ = fs::remove_file(&log);
                    return Ok(Self::with(values, Some(dir), Some(child)));
                }
                Some((name, value)) => _ = values.insert(name.to_owned(), value.to_owned()),
                None => {}
            }
        }
        let _ = child.wait();
        let said = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(&log);
        Err(said.lines().last().unwrap_or("it said nothing").to_owned())
    }

    fn value(&self, name: &str) -> &str {
        self.values.get(name).unwrap_or_else(|| panic!("this cluster has no {name}"))
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        Path::new(self.value("KUBECONFIG"))
    }

    /// `127.0.0.1:5000`: the same name for this process, for the engine and for pods' images. Without TLS.
    pub fn registry(&self) -> &str {
        self.value("REGISTRY")
    }

    /// The engine that reaches the registry, to build and push with.
    pub fn docker_host(&self) -> &str {
        self.value("DOCKER_HOST")
    }

    /// This machine's address as pods see it.
    pub fn host_ip(&self) -> &str {
        self.value("HOST_IP")
    }

    /// The node's address, where NodePorts are.
    pub fn node_ip(&self) -> &str {
        self.value("NODE_IP")
    }

    /// Where its data is; None if it is not ours.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// kubectl as the administrator.
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.value("KUBECTL"));
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command
    }

    /// What kubectl says; otherwise what it complains of.
    pub fn try_kubectl(&self, args: &[&str]) -> Result<String, String> {
        run(self.command().args(args))
    }

    /// What kubectl says, which must succeed.
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args).unwrap_or_else(|e| panic!("{e}"))
    }

    /// A namespace of the test's own, in which pods can be made; it is deleted when it is dropped.
    pub fn namespace(&self, prefix: &str) -> Namespace<'_> {
        let name = format!("{prefix}-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        self.kubectl(&["create", "namespace", &name]);
        // No pod is let in before it is there.
        self.kubectl(&["-n", &name, "wait", "--for=create", "serviceaccount/default", "--timeout=300s"]);
        Namespace { cluster: self, name }
    }

    /// A second node for Services alone: what runs in its network sees a change of a Service up to five seconds later
    /// than the first one. None, and the test told by name, for a cluster that is not ours.
    pub fn slow_node(&self, test: &str) -> Option<&Net> {
        let Some(dir) = &self.dir else {
            left_out("slow-node", test, "the cluster of SWITCHOVER_TEST_KUBECONFIG can't be given one");
            return None;
        };
        Some(self.slow.get_or_init(|| {
            let said = run(&mut script(&["slow-node", dir.to_str().unwrap()])).unwrap_or_else(|e| panic!("{e}"));
            Net(PathBuf::from(said.trim_start_matches("SLOW_NETNS=")))
        }))
    }

    fn api(&self, how: &str) {
        let dir = self.dir.as_deref().expect("only an own cluster's API server may be touched");
        run(&mut script(&["api", how, dir.to_str().unwrap()])).unwrap_or_else(|e| panic!("{e}"));
    }

    /// Kills the API server, as when its machine is lost: watches break, connections are refused.
    pub fn stop_api(&self) {
        self.api("stop");
    }

    /// Starts it again at the same address, and waits until it answers.
    pub fn start_api(&self) {
        self.api("start");
    }

    /// From now on the API server accepts connections and answers nothing.
    pub fn pause_api(&self) {
        self.api("pause");
    }

    /// Ends that.
    pub fn resume_api(&self) {
        self.api("resume");
    }

    fn docker(&self, buildkit: &str, args: &[&str]) -> String {
        let client = ["/usr/bin/docker", "docker"].into_iter().find(|c| Path::new(c).exists()).unwrap_or("docker");
        let mut command = Command::new(client);
        command.env("DOCKER_HOST", self.docker_host()).env("DOCKER_BUILDKIT", buildkit).args(args);
        run(&mut command).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The engine's client, for builds that need BuildKit.
    pub fn buildkit(&self, args: &[&str]) -> String {
        self.docker("1", args)
    }

    /// Makes one of Docker Hub's images known to the engine and to pods (see `tests/it/docker/images.sh`). Nothing for
    /// a cluster that is not ours: it reaches Docker Hub.
    pub fn base_image(&self, name: &str) {
        let Some(dir) = &self.dir else { return };
        let mut engine = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/docker/engine"));
        run(engine.args(["image", name]).arg(dir.join("engine"))).unwrap_or_else(|e| panic!("{e}"));
    }

    /// A volume on the node, kept for one claim. Own clusters have no other ones.
    pub fn volume(&self, namespace: &str, claim: &str) {
        let dir = self.dir.as_ref().expect("only an own cluster can be given volumes");
        let name = format!("{namespace}-{claim}");
        let folder = dir.join("volumes").join(&name);
        fs::create_dir_all(&folder).unwrap();
        let volume = format!(
            r#"
apiVersion: v1
kind: PersistentVolume
metadata: {{name: "{name}"}}
spec:
  capacity: {{storage: 100Gi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  claimRef: {{namespace: "{namespace}", name: "{claim}"}}
  local: {{path: "{}"}}
  nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [node1]}}]}}]}}}}
"#,
            folder.display()
        );
        apply(self.command(), &volume);
    }

    /// Pushes `registry/name:release`, an image of the tests' app that answers `release` on port 8080 and behaves as
    /// `env` says; both are told in `tests/it/cluster/app/main.go`.
    pub fn push_app(&self, name: &str, release: &str, env: &[(&str, &str)]) -> Image {
        static APP: OnceLock<PathBuf> = OnceLock::new();
        let _alone = BUILDS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let app = APP.get_or_init(|| run(&mut script(&["app"])).unwrap_or_else(|e| panic!("{e}")).into());
        let build = tempfile::tempdir().unwrap();
        fs::copy(app, build.path().join("app")).unwrap();
        let more: String = env.iter().map(|(name, value)| format!("ENV {name}=\"{value}\"\n")).collect();
        let recipe =
            format!("FROM busybox\nCOPY app /app\nENV RELEASE={release}\n{more}EXPOSE 8080\nENTRYPOINT [\"/app\"]\n");
        fs::write(build.path().join("Dockerfile"), recipe).unwrap();
        let repository = format!("{}/{name}", self.registry());
        let tagged = format!("{repository}:{release}");
        self.docker("0", &["build", "-q", "-t", &tagged, build.path().to_str().unwrap()]);
        self.docker("0", &["push", "-q", &tagged]);
        let known = self.docker("0", &["image", "inspect", "-f", "{{join .RepoDigests \"\\n\"}}", &tagged]);
        let digest = known.lines().find_map(|line| line.strip_prefix(&format!("{repository}@"))).unwrap();
        let digest = Digest::new(digest).unwrap();
        self.docker("0", &["rmi", "-f", &tagged]);
        Image { repository, tag: release.to_owned(), digest }
    }
}

impl Cluster {
    /// Ends it, unless it has ended.
    pub fn end(&self) {
        let running = self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(mut child) = running {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}

/// An image in the cluster's registry.
#[derive(Clone, Debug)]
pub struct Image {
    /// `127.0.0.1:5000/shop/web`.
    pub repository: String,
    pub tag: String,
    pub digest: Digest,
}

impl Image {
    /// `127.0.0.1:5000/shop/web:v1`.
    pub fn tagged(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }

    /// `127.0.0.1:5000/shop/web@sha256:…`.
    pub fn exact(&self) -> String {
        format!("{}@{}", self.repository, self.digest)
    }
}

/// A namespace of one test.
pub struct Namespace<'a> {
    pub cluster: &'a Cluster,
    pub name: String,
}

impl Namespace<'_> {
    pub fn try_kubectl(&self, args: &[&str]) -> Result<String, String> {
        run(self.cluster.command().args(["-n", &self.name]).args(args))
    }

    pub fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Applies manifests as an author would by hand.
    pub fn apply(&self, manifests: &str) {
        let mut command = self.cluster.command();
        command.args(["-n", &self.name]);
        apply(command, manifests);
    }

    /// A kubeconfig of an account of this namespace that has this Role and nothing else.
    pub fn account(&self, role: &str, dir: &Path) -> PathBuf {
        self.kubectl(&["create", "serviceaccount", "switchover"]);
        let subject = format!("--serviceaccount={}:switchover", self.name);
        self.kubectl(&["create", "rolebinding", role, &format!("--role={role}"), &subject]);
        let token = self.kubectl(&["create", "token", "switchover"]);
        let admin = self.cluster.kubectl(&["config", "view", "--raw", "--minify", "--flatten", "-o", "json"]);
        let mut config: serde_json::Value = serde_json::from_str(&admin).unwrap();
        config["users"][0]["user"] = serde_json::json!({ "token": token });
        let file = dir.join("kubeconfig");
        fs::write(&file, config.to_string()).unwrap();
        file
    }

    /// Waits until a Deployment's pods are as it says and ready; tells what is wrong with them otherwise.
    pub fn rolled_out(&self, deployment: &str) {
        let status = ["rollout", "status", &format!("deployment/{deployment}"), "--timeout=300s"];
        if let Err(e) = self.try_kubectl(&status) {
            let seen = [["get", "pods", "-o", "wide"].as_slice(), &["get", "events"]];
            panic!("{e}\n{}", seen.map(|args| self.try_kubectl(args).unwrap_or_else(|e| e)).join("\n"));
        }
    }

    /// A field of an object, by a JSON path without braces: `.spec.clusterIP`.
    pub fn field(&self, object: &str, path: &str) -> String {
        self.kubectl(&["get", object, "-o", &format!("jsonpath={{{path}}}")])
    }

    /// Where a Service is, from everywhere on this machine and from pods.
    pub fn address(&self, service: &str, port: u16) -> SocketAddr {
        let ip = self.field(&format!("service/{service}"), ".spec.clusterIP");
        SocketAddr::new(ip.parse().unwrap(), port)
    }

    /// Does a load balancer's work for a Service of that type: gives it an address that leads to the node.
    pub fn give_address(&self, service: &str) -> Ipv4Addr {
        let first = self.cluster.value("ADDRESSES").split('/').next().and_then(|a| a.parse::<Ipv4Addr>().ok()).unwrap();
        let n = self.cluster.given.fetch_add(1, Ordering::SeqCst) + 1;
        let ip = Ipv4Addr::from_bits(first.to_bits() + n);
        let status = format!(r#"{{"status": {{"loadBalancer": {{"ingress": [{{"ip": "{ip}"}}]}}}}}}"#);
        self.kubectl(&["patch", "service", service, "--subresource=status", "--type=merge", "-p", &status]);
        ip
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        let _ = self.cluster.try_kubectl(&["delete", "namespace", &self.name, "--wait=false", "--request-timeout=5s"]);
    }
}

/// A network that is not this process's own.
pub struct Net(PathBuf);

impl Net {
    /// Runs something in it, on a thread of its own: all sockets that are made there, and by the threads that it
    /// starts (those of a runtime that is built inside, too), belong to that network.
    pub fn run<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(File::open(&self.0).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
                what()
            });
            inside.join().unwrap_or_else(|e| std::panic::resume_unwind(e))
        })
    }

    /// A connection from there.
    pub fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)))
    }
}

/// What `path` answers over this connection: the body, or the status if it is not 200.
pub fn get(connection: io::Result<TcpStream>, path: &str) -> Result<String, String> {
    let ask = || {
        let mut connection = connection?;
        connection.set_read_timeout(Some(DEADLINE))?;
        write!(connection, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        io::Result::Ok(answer)
    };
    let answer = ask().map_err(|e| e.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no whole answer")?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        status => Err(format!("status {}: {body}", status.unwrap_or("missing"))),
    }
}

/// What a new connection is answered.
pub fn fresh(to: SocketAddr, path: &str) -> Result<String, String> {
    get(TcpStream::connect_timeout(&to, Duration::from_secs(2)), path)
}

/// Waits for something to come true; says how long it took.
pub fn until(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < DEADLINE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    begin.elapsed()
}

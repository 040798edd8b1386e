//! The agent as a process of its own, with a real app behind it.

mod assets;
mod control;
mod durable;
mod proxy;
mod supervise;
mod switching;
pub(crate) mod tls;
mod upgrade;

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use futures_util::StreamExt as _;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use switchover::{
    agent::{
        Client, ClientError,
        protocol::{AgentStatus, ErrorCode, ProcessSpec, ServiceStatus, SlotSource, SlotStatus},
        socket_path,
    },
    domain::ids::{Digest, Epoch},
};

/// Nothing here takes so long; it ends tests that would hang.
const DEADLINE: Duration = Duration::from_secs(60);
const SERVICE: &str = "octo-1/production/web";
const E1: Epoch = Epoch(1);

/// The app, compiled once for each of its versions.
pub(crate) fn app() -> &'static Path {
    static APP: OnceLock<PathBuf> = OnceLock::new();
    APP.get_or_init(|| {
        let source = include_str!("app.rs.txt");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let done = folder.join(format!("agent-app-{}", Digest::of(source.as_bytes()).short()));
        if !done.exists() {
            let build = tempfile::tempdir_in(folder).unwrap();
            fs::write(build.path().join("app.rs"), source).unwrap();
            let built = Command::new("rustc")
                .args(["--edition", "2021", "-O", "-o", "app", "app.rs"])
                .current_dir(build.path())
                .output()
                .unwrap();
            assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
            fs::rename(build.path().join("app"), &done).unwrap();
        }
        done
    })
}

/// Apps end when this test process does.
pub(crate) fn lifeline() -> SocketAddr {
    static LIFELINE: OnceLock<SocketAddr> = OnceLock::new();
    *LIFELINE.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                held.push(stream);
            }
        });
        address
    })
}

/// A host with an agent on it.
pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    agent: Option<Child>,
    pub(crate) client: Client,
}

impl Host {
    /// A host without an agent.
    fn bare() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(socket_path(&dir.path().join("data")));
        Self { dir, agent: None, client }
    }

    pub(crate) async fn new() -> Self {
        let mut host = Self::bare();
        host.start().await;
        host
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn state(&self) -> PathBuf {
        self.data().join("state.json")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchover"));
        command.arg("agent").arg("--data").arg(self.data()).stdin(Stdio::null());
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("agent.txt")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    pub(crate) async fn start(&mut self) {
        let command = self.command();
        self.start_as(command).await;
    }

    async fn start_as(&mut self, mut command: Command) {
        self.agent = Some(command.spawn().unwrap());
        let up = async {
            while self.client.hello().await.is_err() {
                assert!(self.agent.as_mut().unwrap().try_wait().unwrap().is_none(), "{}", self.log());
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(DEADLINE, up).await.unwrap_or_else(|_| panic!("no agent: {}", self.log()));
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("agent.txt")).unwrap_or_default()
    }

    /// As the kernel's out-of-memory killer would.
    pub(crate) fn kill(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// A release of the app.
    fn release(&self, name: &str) -> ProcessSpec {
        let mut env = BTreeMap::new();
        env.insert("RELEASE".to_owned(), name.to_owned());
        env.insert("LIFELINE".to_owned(), lifeline().to_string());
        env.insert("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned());
        ProcessSpec {
            argv: vec![app().display().to_string()],
            env,
            cwd: self.dir.path().to_owned(),
            replicas: 1,
            log_dir: self.dir.path().join("logs").join(name),
            stop_grace_ms: 5_000,
        }
    }

    async fn put(&self, slot: &str, spec: ProcessSpec) -> SlotStatus {
        self.client.put_slot(SERVICE, slot, E1, SlotSource::Process(spec)).await.unwrap()
    }

    /// The service with one slot, serving; says where.
    async fn serving(&self, slot: &str, spec: ProcessSpec) -> SocketAddr {
        let listen = Some("127.0.0.1:0".parse().unwrap());
        let service = self.client.put_service(SERVICE, listen, &[]).await.unwrap();
        self.client.claim(SERVICE, E1).await.unwrap();
        self.put(slot, spec).await;
        self.client.switch(SERVICE, E1, None, slot).await.unwrap();
        service.listen.unwrap()
    }

    async fn service(&self) -> ServiceStatus {
        self.client.status().await.unwrap().services.remove(SERVICE).unwrap()
    }

    /// The process of a slot's only copy, once it is known.
    async fn pid(&self, name: &str) -> u32 {
        pids(&self.until("running", |s| !pids(slot(s, name)).is_empty()).await.slots[name])[0]
    }

    /// Waits until the state is so, told by the agent's events.
    async fn until(&self, what: &str, so: impl Fn(&AgentStatus) -> bool) -> ServiceStatus {
        let wait = async {
            let mut events = self.client.subscribe().await.unwrap();
            loop {
                let mut status = self.client.status().await.unwrap();
                if so(&status) {
                    return status.services.remove(SERVICE).unwrap();
                }
                events.next().await.unwrap();
            }
        };
        let done = tokio::time::timeout(DEADLINE, wait).await;
        done.unwrap_or_else(|_| panic!("never {what}: {}", self.log()))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        for pid in recorded_pids(&self.state()) {
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }
}

/// Processes that the state names.
fn recorded_pids(state: &Path) -> Vec<Pid> {
    fn walk(value: &serde_json::Value, found: &mut Vec<Pid>) {
        if let Some(pid) = value.get("process").and_then(|p| p.get("pid")).and_then(serde_json::Value::as_i64) {
            found.push(Pid::from_raw(i32::try_from(pid).unwrap()));
        }
        match value {
            serde_json::Value::Array(all) => all.iter().for_each(|v| walk(v, found)),
            serde_json::Value::Object(all) => all.values().for_each(|v| walk(v, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    if let Some(value) = fs::read(state).ok().and_then(|t| serde_json::from_slice(&t).ok()) {
        walk(&value, &mut found);
    }
    found
}

fn pids(slot: &SlotStatus) -> Vec<u32> {
    slot.instances.iter().filter_map(|i| i.pid).collect()
}

fn slot<'a>(status: &'a AgentStatus, name: &str) -> &'a SlotStatus {
    &status.services[SERVICE].slots[name]
}

/// Whether a process exists and has not ended.
fn lives(pid: u32) -> bool {
    // Its first thread may be done while others hold its ports still.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut stats = threads.filter_map(|t| fs::read_to_string(t.path().join("stat")).ok());
    stats.any(|stat| !stat[stat.rfind(')').unwrap_or(0)..].starts_with(") Z"))
}

/// Waits for a process to end.
async fn gone(pid: u32) {
    let wait = async {
        while lives(pid) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("process {pid} lives on"));
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let response = fresh().get(format!("http://{address}{path}")).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// A client that opens a connection for each request.
pub(crate) fn fresh() -> reqwest::Client {
    reqwest::Client::builder().pool_max_idle_per_host(0).no_proxy().timeout(DEADLINE).build().unwrap()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (ErrorCode, String) {
    match result {
        Err(ClientError::Refused { code, message }) => (code, message),
        other => panic!("not refused: {other:?}"),
    }
}

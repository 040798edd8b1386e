//! A stage for one test: stand-in GitHub, repository, server process.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
    time::{Duration, Instant},
};

use switchover::{
    agent,
    control::Control,
    demo::github::{
        Registered, StandIn, StandInConfig,
        model::{CheckRun, Model, Role},
    },
    domain::ids::RepoId,
    engine::commands::{Command as Order, Verb},
    store::{RepoState, Store},
};
use tokio::process::{Child, Command};

/// Nothing here takes as long on any machine; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(300);

pub const TRUSTED: &str = "trusted_local = [\"acme/*\"]\n";
pub const HERE: &str = "[targets.here]\nkind = \"local\"\nrepositories = [\"acme/*\"]\n";
const LIMITS: &str = "[limits]\nconcurrent_steps = 4\ncache_disk = \"16Mi\"\n";

pub const OWNER: &str = "acme";
pub const NAME: &str = "shop";
pub const ANN: &str = "ann";

/// A small web app, compiled once for all tests: answers with its release, its health by a file.
pub fn app() -> &'static str {
    static APP: OnceLock<(tempfile::TempDir, String)> = OnceLock::new();
    &APP.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let source = folder.path().join("app.rs");
        std::fs::write(&source, include_str!("app.rs.txt")).expect("written");
        std::fs::write(folder.path().join("http.rs"), include_str!("../../../src/demo/sample/http.rs"))
            .expect("written");
        let binary = folder.path().join("app");
        let done = std::process::Command::new("rustc")
            .args(["--edition", "2021", "-O", "-o"])
            .arg(&binary)
            .arg(&source)
            .status()
            .expect("rustc is there");
        assert!(done.success());
        let path = binary.display().to_string();
        (folder, path)
    })
    .1
}

/// A configuration of one app with a quick test and a release.
pub fn released_config() -> String {
    format!(
        "version: 1
apps:
  web:
    steps:
      test: {{run: \"test ! -e broken\"}}
      build: {{run: \"cp {} app && cp version app.version\"}}
    files: [app, app.version]
    start: ./app
    health: /health
environments:
  production:
    deploy: {{branch: main}}
    probe: {{path: /health, interval: 20ms}}
    min_ready: 100ms
    watch_for: 1s
    keep_previous: 10m
    drain_timeout: 5s
",
        app()
    )
}

pub fn rollback() -> Order {
    Order { verb: Verb::Rollback, repository: None, environment: None, sha: None, to: None, actor: "test".into() }
}

/// A GitHub at this address with an App and an empty repository, whose events go to `hook`.
pub async fn github(folder: &Path, listen: SocketAddr, hook: Option<&str>, secret: &str) -> (StandIn, Registered, i64) {
    let config = StandInConfig { data: folder.join("github"), listen, record: false };
    let github = StandIn::start(config).await.expect("a stand-in");
    let app = github.register_app("Switchover", hook, Some(secret)).expect("an App");
    github.create_organization(OWNER).expect("made");
    github.create_user(ANN).expect("made");
    let repo = github.create_repository(OWNER, NAME, "main", true).await.expect("made");
    github.permission(repo, ANN, Role::Admin, None).expect("granted");
    (github, app, repo)
}

pub struct Rig {
    pub github: StandIn,
    pub repo: i64,
    pub app: i64,
    pub data: PathBuf,
    pub control: Control,
    server: Option<Child>,
    listen: SocketAddr,
    env: Vec<(String, String)>,
    _folder: tempfile::TempDir,
}

impl Rig {
    /// A stage whose server runs and whose App is installed on an empty repository.
    pub async fn start() -> Self {
        Self::start_with(&|_| TRUSTED.to_owned() + HERE).await
    }

    /// The same with other settings.
    pub async fn start_with(settings_of: &dyn Fn(&std::path::Path) -> String) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let listen = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("an address");
        let hook = format!("http://{listen}/webhooks/github");
        let (github, app, repo) = github(root, ([127, 0, 0, 1], 0).into(), Some(&hook), "s3cret").await;
        let key = root.join("app.pem");
        std::fs::write(&key, &app.private_key_pem).expect("written");
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("set");
        let settings = root.join("switchover.toml");
        std::fs::write(&settings, settings_of(root) + LIMITS).expect("written");
        let data = root.join("server");
        let env = [
            ("SWITCHOVER_CONFIG", settings.display().to_string()),
            ("SWITCHOVER_LISTEN", listen.to_string()),
            ("SWITCHOVER_PUBLIC_URL", format!("http://{listen}")),
            ("SWITCHOVER_DATA", data.display().to_string()),
            ("SWITCHOVER_GITHUB_URL", github.api_url().to_string()),
            ("SWITCHOVER_GITHUB_WEB_URL", github.web_url().to_string()),
            ("SWITCHOVER_APP_ID", app.id.to_string()),
            ("SWITCHOVER_PRIVATE_KEY_FILE", key.display().to_string()),
            ("SWITCHOVER_WEBHOOK_SECRET", "s3cret".to_owned()),
        ];
        let mut rig = Self {
            github,
            repo,
            app: app.id,
            control: Control::new(&data).expect("a client"),
            data,
            server: None,
            listen,
            env: env.map(|(n, v)| (n.to_owned(), v)).to_vec(),
            _folder: folder,
        };
        rig.serve(None).await;
        rig.github.install(rig.app, OWNER, Some(&[repo])).expect("installed");
        rig
    }

    /// Other settings, from the next start of the server on.
    pub fn set(&self, settings: &str) {
        let file = &self.env.iter().find(|(n, _)| n == "SWITCHOVER_CONFIG").expect("set").1;
        std::fs::write(file, settings.to_owned() + LIMITS).expect("written");
    }

    /// Starts the server; `crash` names a failpoint.
    pub async fn serve(&mut self, crash: Option<&str>) {
        std::fs::create_dir_all(&self.data).expect("made");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.data.join("log")).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchover"));
        command.arg("serve").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(log)).kill_on_drop(true);
        command.envs(self.env.iter().map(|(n, v)| (n, v)));
        if let Some(crash) = crash {
            command.env("SWITCHOVER_CRASH_AT", crash);
        }
        self.server = Some(command.spawn().expect("started"));
        let deadline = Instant::now() + PATIENCE;
        let url = format!("http://{}/healthz", self.listen);
        while reqwest::get(&url).await.is_err() {
            if let Some(server) = &mut self.server
                && crash.is_some()
                && server.try_wait().expect("a state").is_some()
            {
                return;
            }
            assert!(Instant::now() < deadline, "the server does not come up: {}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn metrics(&self) -> String {
        let answer = reqwest::get(format!("http://{}/metrics", self.listen)).await.expect("an answer");
        answer.text().await.expect("text")
    }

    /// Waits until the server has ended by itself; false when it did not within the time.
    pub async fn ended(&mut self, limit: Duration) -> bool {
        match &mut self.server {
            Some(server) => tokio::time::timeout(limit, server.wait()).await.is_ok(),
            None => true,
        }
    }

    /// Asks the server to end gently; false when it did not within the time.
    pub async fn end(&mut self, limit: Duration) -> bool {
        let Some(mut server) = self.server.take() else { return true };
        let pid = server.id().and_then(|id| id.try_into().ok()).expect("it runs");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGTERM).expect("told");
        tokio::time::timeout(limit, server.wait()).await.is_ok()
    }

    pub async fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().await.expect("killed");
        }
    }

    /// Asks the server to end, as systemd does.
    pub fn terminate(&self) {
        let id = self.server.as_ref().and_then(Child::id).expect("it runs");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(id).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("asked");
    }

    /// The server's disk is gone, with everything that ran from it.
    pub async fn lose_disk(&mut self) {
        self.kill().await;
        let agent = agent::Client::new(agent::socket_path(&self.data.join("agent")));
        let _ = agent.shutdown(true).await;
        while agent.status().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        std::fs::remove_dir_all(&self.data).expect("lost");
    }

    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.data.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    pub async fn push(&self, branch: &str, files: &[(&str, Option<&str>)], message: &str) -> String {
        self.github.commit(self.repo, branch, files, message, ANN).await.expect("pushed")
    }

    /// Waits for something on GitHub.
    pub async fn wait<T>(&self, what: &str, look: impl FnMut(&Model) -> Option<T>) -> T {
        match self.github.wait_for(what, PATIENCE, look).await {
            Ok(found) => found,
            Err(e) => panic!("{e}\nthe server's last words:\n{}", self.log()),
        }
    }

    /// Waits until `explain` tells this of a delivery or commit; gives all that it tells.
    pub async fn told(&self, subject: &str, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = match self.control.about("explain", subject).await {
                Ok(told) => told,
                Err(e) => e.to_string(),
            };
            if told.contains(words) {
                return told;
            }
            assert!(Instant::now() < deadline, "{subject} is not {words:?}: {told}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the server holds this repository for one that it may act on.
    pub async fn active(&self, repo: i64) {
        let books = Store::open(&self.data.join("switchover.db")).await.expect("a readable database");
        let deadline = Instant::now() + PATIENCE;
        let state = async || books.repo(RepoId(repo)).await.expect("readable").map(|r| r.state);
        while state().await != Some(RepoState::Active) {
            assert!(Instant::now() < deadline, "{repo} is not active: {}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        books.close().await;
    }

    /// The newest check of this name, once it is completed.
    pub async fn check(&self, sha: &str, name: &str) -> CheckRun {
        self.wait(&format!("check {name} on {}", &sha[..7]), |m| {
            let checks = m.repo(OWNER, NAME)?.latest_checks(sha);
            checks.into_iter().find(|c| c.name == name && c.status == "completed").cloned()
        })
        .await
    }

    pub async fn conclusion(&self, sha: &str, name: &str) -> String {
        self.check(sha, name).await.conclusion.unwrap_or_default()
    }

    /// Waits until the newest deployment of the commit is in this state.
    pub async fn deployed(&self, sha: &str, state: &str) {
        self.wait(&format!("deployment of {} to become {state}", &sha[..7]), |m| {
            let newest = m.repo(OWNER, NAME)?.deployments.values().rfind(|d| d.sha == sha)?;
            (newest.state() == state).then_some(())
        })
        .await;
    }

    /// How many check runs of this name and how many deployments stand on a commit.
    pub fn counts(&self, sha: &str, name: &str) -> (usize, usize) {
        self.github.read(|m| {
            let repo = m.repo(OWNER, NAME).expect("there");
            let checks = repo.checks.values().filter(|c| c.head_sha == sha && c.name == name).count();
            (checks, repo.deployments.values().filter(|d| d.sha == sha).count())
        })
    }

    /// Waits until so many check runs of this name have ended on a commit.
    pub async fn ran(&self, sha: &str, name: &str, times: usize) {
        self.wait(&format!("check run {times} of {name}"), |m| {
            let checks = m.repo(OWNER, NAME)?.checks.values();
            let done = checks.filter(|c| c.head_sha == sha && c.name == name && c.status == "completed").count();
            (done == times).then_some(())
        })
        .await;
    }

    /// Where the app is reached.
    pub async fn address(&self) -> String {
        let status = self.control.status().await.expect("a status");
        let live = status[0].live.clone().expect("readable");
        let address = live.apps.values().next().and_then(|a| a.address.clone()).expect("an address");
        if address.contains("://") { address } else { format!("http://{address}/") }
    }

    /// Ends everything.
    pub async fn stop(mut self) {
        self.kill().await;
        let agent = agent::Client::new(agent::socket_path(&self.data.join("agent")));
        let _ = agent.shutdown(true).await;
        self.github.clone().stop().await;
    }
}

impl Drop for Rig {
    /// Also after a failed test: the agent has a session of its own and would stay.
    fn drop(&mut self) {
        let socket = agent::socket_path(&self.data.join("agent"));
        if let Ok(mut stream) = std::os::unix::net::UnixStream::connect(socket) {
            use std::io::Write as _;
            let _ = stream.write_all(b"{\"op\":\"shutdown\",\"stop_slots\":true}\n");
        }
    }
}

//! The stage: stand-in GitHub, server process, agent, load, counter page.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use actix_web::{App, HttpResponse, HttpServer, web};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    DemoError, Options,
    cluster::Space,
    containers::Containers,
    page,
    sample::{Change, Sample},
    voice,
};
use crate::{
    agent,
    control::Control,
    demo::{
        counter::{self, Counter},
        github::{StandIn, StandInConfig, model::Role},
        load::{self, Visited},
    },
    engine::commands::{Command as Order, Status, Verb},
};

/// The sample's place.
pub const OWNER: &str = "acme";
/// Its name.
pub const NAME: &str = "shop";
/// Who works there.
pub const ANN: &str = "ann";

/// Builds of a cold machine take their time.
const SHORT: Duration = Duration::from_secs(300);
/// And so do downloads of everything that a build stands on.
const LONG: Duration = Duration::from_secs(3600);

/// Everything that runs. The parts that buttons need are shared.
pub struct World {
    /// The shared parts.
    pub stage: Arc<Stage>,
    data: PathBuf,
    load: Option<(CancellationToken, tokio::task::JoinHandle<Result<(), reqwest::Error>>)>,
    page: actix_web::dev::ServerHandle,
    page_address: SocketAddr,
}

/// What buttons and acts need.
pub struct Stage {
    /// GitHub.
    pub github: StandIn,
    /// The repository's number.
    pub repo: i64,
    /// The requests.
    pub counter: Arc<Counter>,
    /// Messages to Slack.
    pub messages: AtomicU64,
    /// Talks to the server.
    pub control: Control,
    /// Print no progress.
    pub quiet: bool,
    /// The repository is somebody's own: nothing is known of what it holds.
    pub own: bool,
    /// What is played with.
    pub sample: Sample,
    /// Engine and registry of a play in containers.
    pub containers: Option<Arc<Containers>>,
    /// The longest that anything may take.
    pub patience: Duration,
    server: Mutex<Option<Child>>,
    launch: Launch,
    began: Instant,
}

/// How the server is started, again and again.
struct Launch {
    exe: PathBuf,
    data: PathBuf,
    listen: SocketAddr,
    env: Vec<(String, String)>,
}

impl World {
    /// Builds the stage.
    ///
    /// # Errors
    /// When something of it can't be started.
    pub async fn start(
        options: &Options,
        data: PathBuf,
        containers: Option<Arc<Containers>>,
        space: Option<&Space>,
    ) -> Result<Self, DemoError> {
        let github = StandIn::start(StandInConfig {
            data: data.join("github"),
            listen: ([127, 0, 0, 1], 0).into(),
            record: false,
        })
        .await?;
        let listen = free_address()?;
        let counter = Arc::new(Counter::new());
        let hook = format!("http://{listen}/webhooks/github");
        let secret = uuid::Uuid::new_v4().simple().to_string();
        let app = github.register_app("Switchover", Some(&hook), Some(&secret))?;
        github.create_organization(OWNER)?;
        github.create_user(ANN)?;
        let repo = github.create_repository(OWNER, NAME, "main", false).await?;
        github.permission(repo, ANN, Role::Admin, None)?;
        github.require_checks(repo, "main", &["switchover"])?;
        let page_address = free_address()?;
        let key = data.join("app.pem");
        write_private(&key, &app.private_key_pem)?;
        let settings = data.join("switchover.toml");
        let full = format!("{OWNER}/{NAME}");
        let text = match &containers {
            None => {
                format!("trusted_local = [{full:?}]\n\n[targets.here]\nkind = \"local\"\nrepositories = [{full:?}]\n")
            }
            Some(containers) => {
                // The registry asks for no password, but the settings do.
                write_private(&data.join("registry-password"), "none\n")?;
                containers.settings_file(&full, "registry-password", space.map(|s| s.target(&full)))
            }
        };
        std::fs::write(&settings, text).map_err(DemoError::io("writing switchover.toml"))?;
        let server_data = data.join("server");
        let env = [
            ("SWITCHOVER_CONFIG", settings.display().to_string()),
            ("SWITCHOVER_LISTEN", listen.to_string()),
            ("SWITCHOVER_PUBLIC_URL", format!("http://{listen}")),
            ("SWITCHOVER_DATA", server_data.display().to_string()),
            ("SWITCHOVER_GITHUB_URL", github.api_url().to_string()),
            ("SWITCHOVER_GITHUB_WEB_URL", github.web_url().to_string()),
            ("SWITCHOVER_APP_ID", app.id.to_string()),
            ("SWITCHOVER_PRIVATE_KEY_FILE", key.display().to_string()),
            ("SWITCHOVER_WEBHOOK_SECRET", secret),
            ("SWITCHOVER_SLACK_URL", format!("http://{page_address}/slack")),
        ];
        let stage = Arc::new(Stage {
            github,
            repo,
            counter: counter.clone(),
            messages: AtomicU64::new(0),
            control: Control::new(&server_data)?,
            quiet: options.json,
            own: options.repo.is_some(),
            sample: options.sample,
            patience: if containers.is_some() || options.repo.is_some() { LONG } else { SHORT },
            containers,
            server: Mutex::new(None),
            launch: Launch {
                exe: options.exe.clone(),
                data: data.clone(),
                listen,
                env: env.map(|(n, v)| (n.to_owned(), v)).to_vec(),
            },
            began: Instant::now(),
        });
        let page = serve_page(page_address, counter, stage.clone())?;
        stage.start_server().await?;
        // Only an agent that answers can be told to end, whenever that is.
        let client = agent::Client::new(agent::socket_path(&server_data.join("agent")));
        let deadline = Instant::now() + Duration::from_secs(20);
        while client.hello().await.is_err() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stage.github.install(app.id, OWNER, Some(&[repo]))?;
        Ok(Self { stage, data, load: None, page, page_address })
    }

    /// Sends constant requests to the apps from now on.
    ///
    /// # Errors
    /// When the server can't say where they are.
    pub async fn begin_load(&mut self, rate: u32) -> Result<(), DemoError> {
        let visited = self.stage.addresses().await?;
        let token = CancellationToken::new();
        let task = tokio::spawn(load::run(visited, self.stage.counter.clone(), rate, token.clone()));
        self.load = Some((token, task));
        Ok(())
    }

    /// What the server printed last.
    #[must_use]
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(self.data.join("server.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Places to look at.
    #[must_use]
    pub fn links(&self) -> Vec<(String, String)> {
        let mut links = vec![("the counter".to_owned(), format!("http://{}/", self.page_address))];
        links.extend(self.stage.links());
        links
    }

    /// The server's data folder: what the command line needs to know.
    #[must_use]
    pub fn server_data(&self) -> PathBuf {
        self.data.join("server")
    }

    /// Where to push to.
    #[must_use]
    pub fn remote(&self) -> String {
        self.stage.github.push_url(ANN, OWNER, NAME).map(|u| u.to_string()).unwrap_or_default()
    }

    /// Ends everything: load, page, server, agent with its slots, stand-in; the temporary folder goes too.
    pub async fn stop(mut self) {
        if let Some((token, task)) = self.load.take() {
            token.cancel();
            let _ = task.await;
        }
        self.page.stop(false).await;
        self.stage.kill_server().await;
        let agent = agent::Client::new(agent::socket_path(&self.server_data().join("agent")));
        let _ = agent.shutdown(true).await;
        self.stage.github.clone().stop().await;
    }
}

impl Stage {
    /// Tells what happens, with the time since the beginning.
    pub fn say(&self, words: &str) {
        self.counter.event(words);
        if !self.quiet {
            voice::line(&format!("  {:>6.1} s  {words}", self.began.elapsed().as_secs_f64()));
        }
    }

    /// Tells that nothing new happened yet: for the terminal alone.
    pub fn still(&self, words: &str) {
        if !self.quiet {
            voice::line(&format!("  {:>6.1} s    … {words}", self.began.elapsed().as_secs_f64()));
        }
    }

    /// Commits a change to a branch and pushes it.
    ///
    /// # Errors
    /// Git refuses.
    pub async fn push(&self, branch: &str, change: &Change) -> Result<String, DemoError> {
        let files: Vec<_> = change.files.iter().map(|(path, text)| (*path, Some(text.as_str()))).collect();
        Ok(self.github.commit(self.repo, branch, &files, change.message, ANN).await?)
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_server(&self) -> Result<(), DemoError> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.launch.data.join("server.log"))
            .map_err(DemoError::io("making server.log"))?;
        let again = log.try_clone().map_err(DemoError::io("making server.log"))?;
        let mut command = Command::new(&self.launch.exe);
        command
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(Stdio::from(log))
            .stderr(Stdio::from(again))
            .kill_on_drop(true);
        for (name, value) in &self.launch.env {
            command.env(name, value);
        }
        let child = command.spawn().map_err(DemoError::io("starting the server"))?;
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        let url = format!("http://{}/readyz", self.launch.listen);
        let http = reqwest::Client::builder().no_proxy().build().map_err(|e| DemoError::Other(e.to_string()))?;
        loop {
            if http.get(&url).send().await.is_ok_and(|r| r.status().is_success()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(DemoError::Other("the server does not come up".into()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the server by SIGKILL, as a power cut would.
    pub async fn kill_server(&self) {
        let child = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut child) = child {
            let _ = child.kill().await;
        }
    }

    /// Starts the server again whenever somebody else ended it, as systemd would. Never returns.
    pub async fn mind_server(&self) {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let gone = {
                let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
                server.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))))
            };
            if gone {
                self.still("somebody ended the server; it is started again");
                if let Err(e) = self.start_server().await {
                    self.still(&e.to_string());
                }
            }
        }
    }

    /// The environments, as `switchover status` tells them.
    ///
    /// # Errors
    /// When the server is away.
    pub async fn status(&self) -> Result<Vec<Status>, DemoError> {
        Ok(self.control.status().await?)
    }

    /// A command on the only environment.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn command(&self, verb: Verb) -> Result<String, DemoError> {
        let order = Order { verb, repository: None, environment: None, sha: None, to: None, actor: "the demo".into() };
        Ok(self.control.command(&order).await?)
    }

    /// Where the apps are.
    ///
    /// # Errors
    /// When the server is away, or an app has no address.
    pub async fn addresses(&self) -> Result<Vec<Visited>, DemoError> {
        let mut visited = Vec::new();
        for status in self.status().await? {
            for (app, state) in status.live.map(|l| l.apps).unwrap_or_default() {
                let Some(address) = state.address else { continue };
                let text = if address.contains("://") { address } else { format!("http://{address}/") };
                let url = Url::parse(&text).map_err(|e| DemoError::Other(format!("{text}: {e}")))?;
                let paths = (self.sample.paths)(app.as_str());
                visited.push(Visited { app: app.to_string(), url, paths });
            }
        }
        Ok(visited)
    }

    /// Places to look at.
    #[must_use]
    pub fn links(&self) -> Vec<(String, String)> {
        let web = self.github.web_url().to_string();
        let web = web.trim_end_matches('/');
        vec![
            ("the stand-in GitHub".into(), format!("{web}/{OWNER}/{NAME}")),
            ("pull requests".into(), format!("{web}/{OWNER}/{NAME}/pulls")),
            ("the server's pages".into(), format!("http://{}/", self.launch.listen)),
        ]
    }
}

fn serve_page(
    address: SocketAddr,
    counter: Arc<Counter>,
    stage: Arc<Stage>,
) -> Result<actix_web::dev::ServerHandle, DemoError> {
    let actions: Arc<dyn counter::Actions> = Arc::new(page::Buttons(stage.clone()));
    let server = HttpServer::new(move || {
        let (counter, actions, stage) = (counter.clone(), actions.clone(), stage.clone());
        App::new()
            .app_data(web::Data::from(stage))
            .route("/slack", web::post().to(slack))
            .configure(move |cfg| counter::configure(cfg, counter, actions))
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(1)
    .bind(address)
    .map_err(DemoError::io(format!("listening on {address}")))?
    .run();
    let handle = server.handle();
    tokio::spawn(server);
    Ok(handle)
}

/// Stands in for Slack's incoming webhook ("Sending messages using incoming webhooks": the answer is `ok`).
async fn slack(stage: web::Data<Stage>, _message: web::Json<serde_json::Value>) -> HttpResponse {
    stage.messages.fetch_add(1, Ordering::Relaxed);
    HttpResponse::Ok().body("ok")
}

fn free_address() -> Result<SocketAddr, DemoError> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(DemoError::io("looking for a free port"))?;
    listener.local_addr().map_err(DemoError::io("looking for a free port"))
}

fn write_private(path: &Path, text: &str) -> Result<(), DemoError> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
    let mut file = file.map_err(DemoError::io(format!("making {}", path.display())))?;
    file.write_all(text.as_bytes()).map_err(DemoError::io(format!("writing {}", path.display())))
}

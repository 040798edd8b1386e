//! What these tests share: a running stand-in with one App and one repository, an API client, a git client and a
//! receiver of webhooks.

use std::{
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use hmac::{Hmac, Mac};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use sha2::Sha256;
use switchover::demo::github::{Registered, StandIn, StandInConfig, model::Role};
use tempfile::TempDir;

pub const SECRET: &str = "It's a Secret to Everybody";
pub const LIMIT: Duration = Duration::from_secs(30);

/// A webhook as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    pub event: String,
    pub guid: String,
    pub headers: Vec<(String, String)>,
    pub body: Value,
    /// The signature fits the raw bytes.
    pub signed: bool,
}

/// A server that takes webhooks and answers with a status of the test's choice.
pub struct Receiver {
    pub url: String,
    pub got: tokio::sync::watch::Receiver<Vec<Received>>,
    pub answer: Arc<Mutex<u16>>,
    server: actix_web::dev::ServerHandle,
}

impl Receiver {
    pub async fn start() -> Self {
        let (tx, got) = tokio::sync::watch::channel(Vec::new());
        let tx = Arc::new(tx);
        let answer = Arc::new(Mutex::new(202));
        let (sender, code) = (tx.clone(), answer.clone());
        let server = HttpServer::new(move || {
            let (sender, code) = (sender.clone(), code.clone());
            App::new().app_data(web::PayloadConfig::new(32 << 20)).default_service(web::to(
                move |request: HttpRequest, body: web::Bytes| {
                    let (sender, code) = (sender.clone(), code.clone());
                    async move {
                        sender.send_modify(|all| all.push(read(&request, &body)));
                        let status = actix_web::http::StatusCode::from_u16(*code.lock().unwrap()).unwrap();
                        HttpResponse::build(status).body("taken")
                    }
                },
            ))
        })
        .workers(1)
        .disable_signals()
        .bind("127.0.0.1:0")
        .unwrap();
        let url = format!("http://{}/hook", server.addrs()[0]);
        let server = server.run();
        let handle = server.handle();
        tokio::spawn(server);
        Self { url, got, answer, server: handle }
    }

    /// Waits for the first webhook that fits.
    pub async fn wait(&self, what: &str, fits: impl Fn(&Received) -> bool) -> Received {
        let mut got = self.got.clone();
        let found = tokio::time::timeout(LIMIT, got.wait_for(|all| all.iter().any(&fits))).await;
        let all = found.unwrap_or_else(|_| panic!("no {what} came")).unwrap();
        all.iter().find(|r| fits(r)).unwrap().clone()
    }

    /// Waits for an event with an action (empty for events without).
    pub async fn event(&self, event: &str, action: &str) -> Received {
        let fits = |r: &Received| r.event == event && r.body["action"].as_str().unwrap_or("") == action;
        self.wait(&format!("{event}.{action}"), fits).await
    }

    /// Names of all that came, sorted.
    pub fn names(&self) -> Vec<String> {
        let name = |r: &Received| match r.body["action"].as_str() {
            Some(action) => format!("{}.{action}", r.event),
            None => r.event.clone(),
        };
        let mut names: Vec<String> = self.got.borrow().iter().map(name).collect();
        names.sort();
        names
    }

    pub async fn stop(self) {
        self.server.stop(false).await;
    }
}

fn read(request: &HttpRequest, body: &[u8]) -> Received {
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body);
    let wanted = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
    let headers = request.headers().iter();
    Received {
        event: header("x-github-event"),
        guid: header("x-github-delivery"),
        headers: headers.map(|(k, v)| (k.to_string(), v.to_str().unwrap_or("").to_owned())).collect(),
        body: serde_json::from_slice(body).unwrap_or(Value::Null),
        signed: header("x-hub-signature-256") == wanted,
    }
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
    pub headers: reqwest::header::HeaderMap,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// The body of a call that had to end well.
    pub fn good(self) -> Value {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.body);
        self.body
    }

    /// The status and message of a refusal.
    pub fn refusal(&self) -> String {
        let detail = self.body["errors"][0]["message"].as_str().unwrap_or_default();
        format!("{} {} {detail}", self.status, self.body["message"].as_str().unwrap_or("?")).trim().to_owned()
    }
}

/// A client of the API with one authorisation.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    base: String,
    pub auth: Option<String>,
}

impl Api {
    pub fn new(standin: &StandIn, auth: Option<&str>) -> Self {
        let http = reqwest::Client::builder()
            .user_agent("standin-test")
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self { http, base: standin.api_url().to_string(), auth: auth.map(|a| format!("Bearer {a}")) }
    }

    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.base) };
        let request = self.http.request(method.parse().unwrap(), url).timeout(LIMIT);
        match &self.auth {
            Some(auth) => request.header("authorization", auth),
            None => request,
        }
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer.bytes().await.unwrap();
        Answer { status, body: serde_json::from_slice(&body).unwrap_or(Value::Null), headers }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request("GET", path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request("POST", path).json(&body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(self.request("PATCH", path).json(&body)).await
    }
}

/// A stand-in with the App `ship`, installed on `acme`'s private repository `shop` (a first commit on main), whose
/// webhooks go to a receiver.
pub struct World {
    pub standin: StandIn,
    pub app: Registered,
    pub installation: i64,
    pub repo: i64,
    pub head: String,
    pub hooks: Receiver,
    pub folder: TempDir,
}

impl World {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config =
            StandInConfig { data: folder.path().join("data"), listen: "127.0.0.1:0".parse().unwrap(), record: true };
        let standin = StandIn::start(config).await.unwrap();
        let hooks = Receiver::start().await;
        standin.create_organization("acme").unwrap();
        for login in ["ann", "bob", "eve"] {
            standin.create_user(login).unwrap();
        }
        let repo = standin.create_repository("acme", "shop", "main", true).await.unwrap();
        standin.permission(repo, "ann", Role::Admin, None).unwrap();
        standin.permission(repo, "bob", Role::Write, None).unwrap();
        let files = [("README.md", Some("shop\n")), ("app/main.txt", Some("one\ntwo\n"))];
        let head = standin.commit(repo, "main", &files, "Begin", "ann").await.unwrap();
        let app = standin.register_app("Ship", Some(&hooks.url), Some(SECRET)).unwrap();
        let installation = standin.install(app.id, "acme", Some(&[repo])).unwrap();
        hooks.event("installation", "created").await;
        Self { standin, app, installation, repo, head, hooks, folder }
    }

    /// A client with the App's JWT.
    pub fn jwt(&self) -> Api {
        let now = jiff::Timestamp::now().as_second();
        self.jwt_with(&json!({"iss": self.app.id.to_string(), "iat": now - 60, "exp": now + 540}))
    }

    pub fn jwt_with(&self, claims: &Value) -> Api {
        let key = EncodingKey::from_rsa_pem(self.app.private_key_pem.as_bytes()).unwrap();
        let jwt = jsonwebtoken::encode(&Header::new(Algorithm::RS256), claims, &key).unwrap();
        Api::new(&self.standin, Some(&jwt))
    }

    /// A client with an installation token of these permissions (none: all).
    pub async fn token(&self, permissions: Option<Value>) -> Api {
        let body = permissions.map_or(json!({}), |p| json!({"permissions": p}));
        let answer = self.jwt().post(&format!("/app/installations/{}/access_tokens", self.installation), body).await;
        Api::new(&self.standin, answer.good()["token"].as_str())
    }

    /// A person's git, in a folder of the test.
    pub async fn git(&self, folder: &str, args: &[&str]) -> Result<String, String> {
        git(&self.folder.path().join(folder), args).await
    }

    /// Clones `shop` as somebody into a folder.
    pub async fn clone_as(&self, login: &str, folder: &str) {
        let url = self.standin.push_url(login, "acme", "shop").unwrap();
        git(self.folder.path(), &["clone", "-q", url.as_str(), folder]).await.unwrap();
    }

    /// Ends it, after the whole traffic was held against GitHub's own description of its API.
    pub async fn stop(self) {
        let log = self.standin.read(|m| m.log.clone());
        super::openapi::check(&log);
        self.hooks.stop().await;
        self.standin.stop().await;
    }
}

/// Runs git with nobody's configuration.
pub async fn git(dir: &Path, args: &[&str]) -> Result<String, String> {
    let mut command = tokio::process::Command::new("git");
    command
        .args(["-c", "user.name=ann", "-c", "user.email=ann@users.noreply.github.com", "-c", "protocol.version=2"])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let out = command.output().await.unwrap();
    let text = |b: &[u8]| String::from_utf8_lossy(b).trim().to_owned();
    if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
}

//! A GitHub of canned answers, and the real client talking to it.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde_json::{Value, json};
use switchover::{
    demo::github::AppKey,
    domain::ids::{InstallationId, RepoId, RepoRef, Sha},
    github::{GitHub, GitHubConfig, Timeouts},
};
use url::Url;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate, matchers};

pub const APP_ID: i64 = 77;
pub const HEAD: &str = "1111111111111111111111111111111111111111";

/// One key for all tests: making one takes a while.
pub static PAIR: LazyLock<AppKey> = LazyLock::new(|| AppKey::generate().unwrap());
pub static KEY: LazyLock<String> = LazyLock::new(|| PAIR.private_pem.clone());

pub fn repo() -> RepoRef {
    RepoRef { id: RepoId(7), owner: "acme".to_owned(), name: "shop".to_owned(), installation: InstallationId(3) }
}

pub fn head() -> Sha {
    Sha::new(HEAD).unwrap()
}

/// Generous for the call, so that a busy machine fails no test; no pause worth the name between the tries of a read.
pub const PATIENT: Timeouts =
    Timeouts { connect: Duration::from_secs(30), request: Duration::from_secs(60), pause: Duration::from_millis(1) };

pub fn config(api_url: &str, timeouts: Timeouts) -> GitHubConfig {
    GitHubConfig {
        api_url: Url::parse(api_url).unwrap(),
        web_url: Url::parse("https://github.example").unwrap(),
        app_id: APP_ID,
        private_key: SecretString::from(KEY.as_str()),
        timeouts,
    }
}

pub struct Rig {
    pub server: MockServer,
    pub github: GitHub,
}

/// Gives `ghs_1`, `ghs_2` and so on, for an hour.
struct TokenDesk(AtomicUsize);

impl Respond for TokenDesk {
    fn respond(&self, _: &Request) -> ResponseTemplate {
        let n = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        ResponseTemplate::new(201).set_body_json(token(n, SignedDuration::from_hours(1)))
    }
}

pub fn token(n: usize, lasts: SignedDuration) -> Value {
    json!({"token": format!("ghs_{n}"), "expires_at": (Timestamp::now() + lasts).to_string()})
}

impl Rig {
    /// With a desk that gives tokens.
    pub async fn new() -> Self {
        let rig = Self::without_tokens(PATIENT).await;
        rig.open_token_desk().await;
        rig
    }

    pub async fn without_tokens(timeouts: Timeouts) -> Self {
        let server = MockServer::start().await;
        let github = GitHub::new(config(&server.uri(), timeouts)).unwrap();
        Self { server, github }
    }

    pub async fn open_token_desk(&self) {
        Mock::given(matchers::method("POST"))
            .and(matchers::path_regex("^/app/installations/[0-9]+/access_tokens$"))
            .respond_with(TokenDesk(AtomicUsize::new(0)))
            .with_priority(200)
            .mount(&self.server)
            .await;
    }

    /// Answers always so, unless something mounted with `once` comes first.
    pub async fn on(&self, method: &str, path: &str, answer: impl Respond + 'static) {
        Mock::given(matchers::method(method))
            .and(matchers::path(path))
            .respond_with(answer)
            .with_priority(100)
            .mount(&self.server)
            .await;
    }

    /// Answers the next call so.
    pub async fn once(&self, method: &str, path: &str, answer: impl Respond + 'static) {
        Mock::given(matchers::method(method))
            .and(matchers::path(path))
            .respond_with(answer)
            .up_to_n_times(1)
            .mount(&self.server)
            .await;
    }

    /// What was asked, tokens left out: method and path with its query.
    pub async fn asked(&self) -> Vec<String> {
        self.requests().await.iter().map(line).collect()
    }

    pub async fn requests(&self) -> Vec<Request> {
        self.all().await.into_iter().filter(|r| !r.url.path().ends_with("/access_tokens")).collect()
    }

    pub async fn token_requests(&self) -> Vec<Request> {
        self.all().await.into_iter().filter(|r| r.url.path().ends_with("/access_tokens")).collect()
    }

    async fn all(&self) -> Vec<Request> {
        self.server.received_requests().await.unwrap()
    }

    /// The bodies of what was written, in order.
    pub async fn bodies(&self) -> Vec<Value> {
        self.requests()
            .await
            .iter()
            .filter(|r| !r.body.is_empty())
            .map(|r| serde_json::from_slice(&r.body).unwrap())
            .collect()
    }
}

pub fn line(request: &Request) -> String {
    let query = request.url.query().map(|q| format!("?{q}")).unwrap_or_default();
    format!("{} {}{query}", request.method, request.url.path())
}

pub fn ok(body: Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(body)
}

pub fn created(body: Value) -> ResponseTemplate {
    ResponseTemplate::new(201).set_body_json(body)
}

pub fn refused(status: u16, message: &str) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_json(json!({"message": message, "documentation_url": "https://docs"}))
}

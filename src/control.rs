//! The server's own door for its operator: HTTP over a unix socket in the data folder. The command line is its client,
//! and the commands go the very path that buttons and comments go. It works with GitHub away.

use std::path::{Path, PathBuf};

use actix_web::{App, HttpResponse, HttpServer, dev::Server, web};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    clock,
    domain::ids::DeliveryId,
    engine::{
        Engine, EngineError,
        commands::{Command, Status},
        preview::Preview,
    },
};

/// Where the socket is. A path that is too long for a socket is replaced by one in the temporary folder.
#[must_use]
pub fn socket_path(data: &Path) -> PathBuf {
    let plain = data.join("control.sock");
    // sun_path holds 108 bytes ("unix(7)").
    if plain.as_os_str().len() < 100 {
        return plain;
    }
    let name = crate::domain::ids::Digest::of(plain.as_os_str().as_encoded_bytes());
    std::env::temp_dir().join(format!("switchover-{}.sock", name.short()))
}

/// What is asked about.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Subject {
    /// A delivery id or a commit.
    pub subject: String,
}

/// An answer for people, or why not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// In words.
    pub text: String,
}

/// Serves the socket.
///
/// # Errors
/// When it can't be bound.
pub fn bind(engine: Engine, data: &Path) -> std::io::Result<Server> {
    let path = socket_path(data);
    // The data folder's lock is ours: an old socket has no owner.
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let state = web::Data::new(engine);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .route("/command", web::post().to(command))
            .route("/status", web::get().to(status))
            .route("/plan", web::post().to(plan))
            .route("/explain", web::post().to(explain))
            .route("/replay", web::post().to(replay))
            .route("/sweep", web::post().to(sweep))
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(2)
    .bind_uds(&path)?;
    // Whoever may open it may command every environment.
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(server.run())
}

fn answer(result: Result<String, EngineError>) -> HttpResponse {
    match result {
        Ok(text) => HttpResponse::Ok().json(Answer { text }),
        Err(EngineError::Refused(text)) => HttpResponse::Conflict().json(Answer { text }),
        Err(e) => HttpResponse::InternalServerError().json(Answer { text: e.to_string() }),
    }
}

async fn command(engine: web::Data<Engine>, command: web::Json<Command>) -> HttpResponse {
    tracing::info!(verb = ?command.verb, environment = ?command.environment, actor = command.actor, "command");
    answer(engine.command(&command).await)
}

async fn status(engine: web::Data<Engine>) -> HttpResponse {
    match engine.status().await {
        Ok(status) => HttpResponse::Ok().json(status),
        Err(e) => answer(Err(e)),
    }
}

async fn plan(engine: web::Data<Engine>, wanted: web::Json<Preview>) -> HttpResponse {
    answer(engine.preview(&wanted).await)
}

async fn explain(engine: web::Data<Engine>, subject: web::Json<Subject>) -> HttpResponse {
    answer(engine.explain(&subject.subject).await)
}

async fn replay(engine: web::Data<Engine>, subject: web::Json<Subject>) -> HttpResponse {
    let Ok(guid) = DeliveryId::new(subject.subject.clone()) else {
        return answer(Err(EngineError::Refused(format!("{:?} is not a delivery id", subject.subject))));
    };
    answer(match engine.store.replay_delivery(&guid, clock::now()).await {
        Ok(true) => {
            engine.wake.deliveries.notify_one();
            Ok(format!("{guid} is processed again; `switchover explain {guid}` tells what comes of it"))
        }
        Ok(false) => Err(EngineError::Refused(format!("no delivery {guid} with its payload is stored"))),
        Err(e) => Err(e.into()),
    })
}

async fn sweep(engine: web::Data<Engine>) -> HttpResponse {
    answer(crate::engine::sweeper::sweep(&engine).await.map(|()| "looked for what was missed".to_owned()))
}

/// Why the command line could not reach the server, or was refused.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No server has this data folder.
    #[error("no server answers at {0}: is `switchover serve` running with this data folder (--data, SWITCHOVER_DATA)?")]
    Away(String),
    /// The server said no.
    #[error("{0}")]
    Refused(String),
    /// The answer makes no sense.
    #[error("the server's answer can't be read: {0}")]
    Strange(String),
}

/// The command line's side.
#[derive(Debug)]
pub struct Control {
    http: reqwest::Client,
    path: PathBuf,
}

impl Control {
    /// For the server with this data folder.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(data: &Path) -> Result<Self, ControlError> {
        let path = socket_path(data);
        let http = reqwest::Client::builder()
            .unix_socket(path.clone())
            .timeout(std::time::Duration::from_secs(60))
            .build()
            .map_err(|e| ControlError::Strange(e.to_string()))?;
        Ok(Self { http, path })
    }

    /// Carries a command out.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn command(&self, command: &Command) -> Result<String, ControlError> {
        self.ask::<Answer>(self.http.post("http://switchover/command").json(command)).await.map(|a| a.text)
    }

    /// All environments.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn status(&self) -> Result<Vec<Status>, ControlError> {
        self.ask(self.http.get("http://switchover/status")).await
    }

    /// What a release would change.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn preview(&self, wanted: &Preview) -> Result<String, ControlError> {
        self.ask::<Answer>(self.http.post("http://switchover/plan").json(wanted)).await.map(|a| a.text)
    }

    /// `explain`, `replay` or `sweep`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn about(&self, verb: &str, subject: &str) -> Result<String, ControlError> {
        let body = Subject { subject: subject.to_owned() };
        self.ask::<Answer>(self.http.post(format!("http://switchover/{verb}")).json(&body)).await.map(|a| a.text)
    }

    async fn ask<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, ControlError> {
        let response = request.send().await.map_err(|_| ControlError::Away(self.path.display().to_string()))?;
        let good = response.status().is_success();
        let text = response.text().await.map_err(|e| ControlError::Strange(e.to_string()))?;
        if good {
            return serde_json::from_str(&text).map_err(|e| ControlError::Strange(e.to_string()));
        }
        match serde_json::from_str::<Answer>(&text) {
            Ok(answer) => Err(ControlError::Refused(answer.text)),
            Err(_) => Err(ControlError::Strange(text.chars().take(300).collect())),
        }
    }
}

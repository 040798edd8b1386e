//! The Docker engine: its connection, the labels of what is ours, pulls.
//!
//! Shared by the executor, the image builder and the target; none of them knows another.
//!
//! * [`Reference`]: names of images.
//! * [`pull`]: getting images, with the operator's logins.
//! * [`images`]: which images are ours to remove.

pub mod images;
pub mod pull;
mod reference;

use std::{collections::HashMap, sync::Arc, time::Duration};

use bollard::{API_DEFAULT_VERSION, errors::Error as ApiError};

pub use reference::{HUB, Reference};

use crate::settings::DockerSettings;

/// Label of everything that is ours: the server it belongs to. Several servers can share one engine.
pub const OWNER: &str = "dev.switchover.owner";
/// Label: what it is (`step`, `service`, `network`, `slot`, `command`).
pub const KIND: &str = "dev.switchover.kind";

/// Between a request and the first byte of its answer, in seconds. Waiting for a container's end has its own limit.
const TIMEOUT: u64 = 120;

/// One engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Docker {
    api: bollard::Docker,
    owner: String,
    pulls: Arc<pull::Pulls>,
}

/// Why the engine did not do it.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// Its address or certificates can't be used.
    #[error("the Docker engine's address {host} can't be used: {why}")]
    Address {
        /// As written.
        host: String,
        /// Why not.
        why: String,
    },
    /// It does not answer.
    #[error("the Docker engine at {host} can't be reached: {why}. Is it running, and may this user open its socket?")]
    Unreachable {
        /// As written.
        host: String,
        /// Why not.
        why: String,
    },
    /// It refused, or was lost on the way.
    #[error("the Docker engine, {doing}: {source}")]
    Api {
        /// What was asked.
        doing: String,
        /// What it said, or what became of the connection.
        source: ApiError,
    },
}

impl DockerError {
    /// For `map_err`: what was being done.
    pub fn api(doing: String) -> impl FnOnce(ApiError) -> Self {
        move |source| Self::Api { doing, source }
    }

    /// The HTTP status of a refusal. None: the engine did not answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api { source, .. } => status(source),
            Self::Address { .. } | Self::Unreachable { .. } => None,
        }
    }
}

/// The HTTP status of the engine's answer.
#[must_use]
pub fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// What the engine itself said, if it answered.
#[must_use]
pub fn said(error: &ApiError) -> Option<String> {
    match error {
        ApiError::DockerResponseServerError { message, .. } => Some(message.clone()),
        ApiError::DockerStreamError { error } => Some(error.clone()),
        _ => None,
    }
}

impl Docker {
    /// Prepares the connection; nothing is sent yet. `owner` is this server's own mark on what it makes.
    ///
    /// # Errors
    /// [`DockerError::Address`].
    pub fn new(settings: &DockerSettings, owner: &str) -> Result<Self, DockerError> {
        let wrong = |why: String| DockerError::Address { host: settings.host.clone(), why };
        let connected = match (settings.host.strip_prefix("unix://"), &settings.certs) {
            (Some(path), _) => bollard::Docker::connect_with_unix(path, TIMEOUT, API_DEFAULT_VERSION),
            (None, None) => bollard::Docker::connect_with_http(&settings.host, TIMEOUT, API_DEFAULT_VERSION),
            (None, Some(certs)) => bollard::Docker::connect_with_ssl(
                &settings.host,
                &certs.join("key.pem"),
                &certs.join("cert.pem"),
                &certs.join("ca.pem"),
                TIMEOUT,
                API_DEFAULT_VERSION,
            ),
        };
        let api = connected.map_err(|e| wrong(e.to_string()))?;
        Ok(Self { api, owner: owner.to_owned(), pulls: Arc::default() })
    }

    /// Speaks the newest version of the protocol that both sides know.
    ///
    /// # Errors
    /// [`DockerError::Unreachable`].
    pub async fn negotiated(self, settings: &DockerSettings) -> Result<Self, DockerError> {
        let unreachable = |why: String| DockerError::Unreachable { host: settings.host.clone(), why };
        let api = self.api.negotiate_version().await.map_err(|e| unreachable(e.to_string()))?;
        Ok(Self { api, ..self })
    }

    /// Waits until the engine answers, and speaks the newest version of the protocol that both sides know from then on,
    /// in all clones.
    pub async fn ready(&self, settings: &DockerSettings) {
        let mut told = false;
        while let Err(error) = self.clone().negotiated(settings).await {
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(%error, "containers wait for the Docker engine");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// The engine's API.
    #[must_use]
    pub fn api(&self) -> &bollard::Docker {
        &self.api
    }

    /// This server's mark.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The labels of something that is ours.
    #[must_use]
    pub fn labels(&self, kind: &str, more: &[(&str, &str)]) -> HashMap<String, String> {
        let own = [(OWNER, self.owner.as_str()), (KIND, kind)];
        own.iter().chain(more).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }
}

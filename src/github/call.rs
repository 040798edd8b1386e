//! A request before it is sent, and an answer after it was read.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    auth::{Purpose, TokenKey},
    error::GitHubError,
    limits::Cost,
    text::cut_chars,
};
use crate::domain::ids::{InstallationId, RepoRef};

/// As whom a call is made.
#[derive(Debug, Clone, Copy)]
pub(super) enum Identity {
    App,
    Installation(TokenKey),
}

impl Identity {
    /// For one repository and one purpose.
    pub(super) fn of(repo: &RepoRef, purpose: Purpose) -> Self {
        Self::Installation(TokenKey { installation: repo.installation, repo: Some(repo.id), purpose })
    }

    pub(super) fn installation(self) -> Option<InstallationId> {
        match self {
            Self::App => None,
            Self::Installation(key) => Some(key.installation),
        }
    }
}

/// A request before it has an identity's header.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) body: Bytes,
    pub(super) identity: Identity,
    pub(super) cost: Cost,
    /// Doing it twice does no harm: it may be repeated after a lost answer.
    pub(super) repeatable: bool,
    /// What was just told of by a webhook may not be there yet for a read.
    pub(super) fresh: bool,
}

impl Call {
    /// A read.
    pub(super) fn get(url: Url, identity: Identity) -> Self {
        Self {
            method: Method::GET,
            url,
            body: Bytes::new(),
            identity,
            cost: Cost::Read,
            repeatable: true,
            fresh: false,
        }
    }

    /// A write.
    pub(super) fn write(
        method: Method,
        url: Url,
        identity: Identity,
        cost: Cost,
        body: &impl Serialize,
    ) -> Result<Self, GitHubError> {
        let body = serde_json::to_vec(body)
            .map_err(|e| GitHubError::Invalid { message: format!("the request cannot be written as JSON: {e}") })?;
        Ok(Self { method, url, body: body.into(), identity, cost, repeatable: false, fresh: false })
    }

    /// Takes a 404 for a delay of GitHub's and asks again, a few times.
    pub(super) fn fresh(mut self) -> Self {
        self.fresh = true;
        self
    }

    /// Doing it twice does no harm.
    pub(super) fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    pub(super) fn what(&self) -> String {
        format!("{} {}", self.method, self.url.path())
    }
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

#[derive(Deserialize, Default)]
struct ErrorBody {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: serde_json::Value,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// What GitHub says in words ("Troubleshooting the REST API", validation failed).
    pub(super) fn message(&self) -> String {
        let body: ErrorBody = serde_json::from_slice(&self.body).unwrap_or_default();
        let errors = match body.errors {
            serde_json::Value::Null => String::new(),
            other => format!(" {other}"),
        };
        let message = format!("{}{errors}", body.message);
        if message.is_empty() { format!("status {}", self.status.as_u16()) } else { cut_chars(&message, 400) }
    }
}

/// `base` with these path segments behind it, each encoded.
pub(super) fn under(base: &Url, segments: &[&str]) -> Result<Url, GitHubError> {
    // `Url` would leave these out, and the path would be another resource's.
    if let Some(bad) = segments.iter().find(|s| matches!(**s, "" | "." | "..")) {
        return Err(GitHubError::Invalid { message: format!("{bad:?} is no part of an address") });
    }
    let mut url = base.clone();
    url.path_segments_mut()
        .map_err(|()| GitHubError::Config { why: format!("{base} cannot have a path") })?
        .pop_if_empty()
        .extend(segments);
    Ok(url)
}

//! Why an image was not built or pushed: whose fault it is, in words, with the mend.

use std::{fmt, time::Duration};

use super::name::HUB;
use crate::domain::answer::tells_code;

/// Why there is no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// There is no Dockerfile, and none can be made up.
    #[error("{0}")]
    NoDockerfile(String),
    /// What goes into the build is not right: a missing Dockerfile, a folder out of the workspace, a bad pattern.
    #[error("{0}")]
    Context(String),
    /// The builder could not do what the Dockerfile says.
    #[error("{}", instruction(file, *line, text, why))]
    Dockerfile {
        /// The Dockerfile from the workspace's root.
        file: String,
        /// The failing instruction's line, from 1, where it is known.
        line: Option<usize>,
        /// The failing instruction; empty where it is not known.
        text: String,
        /// What the builder said.
        why: String,
    },
    /// A registry did not do it.
    #[error("{doing}: {problem}")]
    Registry {
        /// What was tried, with the image's name.
        doing: String,
        /// What the registry answered.
        problem: RegistryProblem,
    },
    /// The engine did not do it.
    #[error("the Docker engine failed while {doing}: {why}")]
    Engine {
        /// What it was doing.
        doing: String,
        /// What it said.
        why: String,
    },
    /// No space is left where the engine keeps its images.
    #[error(
        "the Docker engine's disk is full ({0}). Remove what is not needed there, for instance with `docker system prune`, or give it more room"
    )]
    EngineFull(String),
    /// The workspace could not be read.
    #[error("{path} can't be read: {why}")]
    Unreadable {
        /// The file or folder.
        path: String,
        /// Why not.
        why: String,
    },
    /// It took too long.
    #[error("building and pushing the image took longer than {} minutes", .0.as_secs().div_ceil(60))]
    TimedOut(Duration),
    /// Somebody wanted it to stop.
    #[error("cancelled")]
    Cancelled,
}

/// Who can mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The author of the commit: trying again will not help.
    Author,
    /// The operator of the server or of the registry: trying again will not help.
    Operator,
    /// Nobody: worth trying again.
    Infrastructure,
    /// Nobody: it was stopped on purpose.
    Cancelled,
}

impl ImageError {
    /// Who can mend it.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::NoDockerfile(_) | Self::Context(_) | Self::Dockerfile { .. } | Self::TimedOut(_) => Blame::Author,
            Self::Registry { problem, .. } => problem.blame(),
            Self::EngineFull(_) => Blame::Operator,
            Self::Engine { .. } | Self::Unreadable { .. } => Blame::Infrastructure,
            Self::Cancelled => Blame::Cancelled,
        }
    }
}

fn instruction(file: &str, line: Option<usize>, text: &str, why: &str) -> String {
    let line = line.map_or_else(String::new, |line| format!(" line {line}"));
    let text: String = text.chars().take(300).collect();
    let text = if text.is_empty() { text } else { format!(" (`{text}`)") };
    format!("{file}{line}{text}: {why}")
}

/// What a registry answered, told apart by what mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryProblem {
    /// Its host and port; [`HUB`] for Docker Hub.
    pub host: String,
    /// What it is.
    pub kind: ProblemKind,
    /// What the registry or the engine said, for the log.
    pub said: String,
}

/// What mends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// 401, or no credentials: it does not know who we are.
    Unauthorized,
    /// 403: it knows us, and we may not.
    Forbidden,
    /// 404: there is no such repository, tag or digest.
    NotFound,
    /// 413: it, or a proxy in front of it, takes no bodies of this size.
    TooLarge,
    /// 429: too many requests.
    RateLimited,
    /// It has no room: 507, a quota, a full disk.
    Full,
    /// 5xx.
    Broken,
    /// It does not answer.
    Away,
    /// It speaks plain HTTP, and nobody said that this is right.
    PlainHttp,
    /// Its certificate is not trusted.
    Untrusted,
    /// A name or a manifest that it does not take.
    Refused,
    /// An error with no code of its own: `UNKNOWN`, with whatever words and status.
    Unclear,
}

impl RegistryProblem {
    /// Understands what the engine or a registry says in words. None where it is about no registry.
    #[must_use]
    pub fn understood(host: &str, said: &str) -> Option<Self> {
        let text = said.to_lowercase();
        let any = |words: &[&str]| words.iter().any(|w| text.contains(w));
        let code = |codes: &[&str]| tells_code(&text, codes);
        // The order matters: a quota is told as "denied", a proxy's 413 as "unknown".
        let kind = if any(&["server gave http response to https client"]) {
            ProblemKind::PlainHttp
        } else if any(&["x509:", "certificate signed by unknown", "invalid peer certificate", "unknownissuer"]) {
            ProblemKind::Untrusted
        } else if any(&["no space left on device", "insufficient storage", "quota", "configured upper limit", " 507"]) {
            ProblemKind::Full
        } else if code(&["413"]) || any(&["entity too large", "payload too large", "size_invalid", "content too large"])
        {
            ProblemKind::TooLarge
        } else if code(&["429"]) || any(&["toomanyrequests", "too many requests", "rate limit"]) {
            ProblemKind::RateLimited
        } else if any(&["pull access denied", "repository does not exist"]) {
            // Docker Hub does not say which of the two it is.
            ProblemKind::NotFound
        } else if code(&["403"]) || any(&["denied", "forbidden", "insufficient_scope", "not allowed"]) {
            ProblemKind::Forbidden
        } else if code(&["401"])
            || any(&["unauthorized", "authentication required", "no basic auth credentials", "incorrect username"])
        {
            ProblemKind::Unauthorized
        } else if code(&["404"])
            || any(&["manifest unknown", "name unknown", "not found", "name_unknown", "manifest_unknown"])
        {
            ProblemKind::NotFound
        } else if any(&[
            "connection refused",
            "no such host",
            "i/o timeout",
            "no route to host",
            "network is unreachable",
            "connection reset",
            "tls handshake timeout",
            "context deadline exceeded",
            "client.timeout",
            "dial tcp",
            "broken pipe",
            "error sending request",
            "connection closed",
        ]) {
            ProblemKind::Away
        } else if any(&[
            "unexpected http status: 5",
            "received unexpected http status",
            "internal server error",
            "bad gateway",
            "service unavailable",
            "gateway timeout",
            "unknown: unknown error",
            "eof",
        ]) || code(&["500", "502", "503", "504"])
        {
            ProblemKind::Broken
        } else if code(&["400"])
            || any(&["manifest invalid", "name invalid", "tag invalid", "digest invalid", "unsupported"])
        {
            ProblemKind::Refused
        } else if text.starts_with("unknown: ") {
            // The engine hides the status of an answer that has errors in JSON; of those it does so, all are 4xx.
            ProblemKind::Unclear
        } else {
            return None;
        };
        Some(Self { host: host.to_owned(), kind, said: cut(said) })
    }

    /// It failed in a way that has no name of its own.
    pub(super) fn broken(host: &str, said: &str) -> Self {
        Self { host: host.to_owned(), kind: ProblemKind::Broken, said: cut(said) }
    }

    /// Whether the same may work in a while.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(self.kind, ProblemKind::RateLimited | ProblemKind::Broken | ProblemKind::Away)
    }

    fn blame(&self) -> Blame {
        if self.passes() { Blame::Infrastructure } else { Blame::Operator }
    }
}

/// The first part of a text from outside, without control characters.
pub(super) fn cut(text: &str) -> String {
    text.trim().chars().take(600).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl fmt::Display for RegistryProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = if self.host == HUB { "Docker Hub" } else { &self.host };
        let table = format!("[registries.{:?}] of switchover.toml", self.host);
        match self.kind {
            ProblemKind::Unauthorized => write!(
                f,
                "{host} does not accept the user name and password (401). The operator mends them under {table}"
            ),
            ProblemKind::Forbidden => write!(
                f,
                "{host} does not allow it (403). The user under {table} needs the right to it, or the repository has another name"
            ),
            ProblemKind::NotFound => write!(
                f,
                "{host} has no such image or repository, or shows it to nobody without a password (404). Look at its name; a private one needs {table}"
            ),
            ProblemKind::TooLarge => write!(
                f,
                "{host} takes no upload of this size (413). Raise the limit of the proxy in front of it (nginx: `client_max_body_size 0`), or make the layers smaller"
            ),
            ProblemKind::RateLimited => write!(
                f,
                "{host} answers that these were too many requests (429). A user under {table} raises the limit; otherwise it passes with time"
            ),
            ProblemKind::Full => {
                write!(f, "{host} has no room left. Remove old images there, raise its quota, or give it a larger disk")
            }
            ProblemKind::Broken => write!(f, "{host} failed (5xx), again after retries. Look at its log"),
            ProblemKind::Away => {
                write!(f, "{host} does not answer. Is it running, and can this host and the Docker engine reach it?")
            }
            ProblemKind::PlainHttp => write!(
                f,
                "{host} speaks plain HTTP. Give it a certificate, or say `plain_http = true` under {table} and list it under `insecure-registries` in the Docker engine's daemon.json"
            ),
            ProblemKind::Untrusted => write!(
                f,
                "the certificate of {host} is not trusted. Give the Docker engine its authority as /etc/docker/certs.d/{host}/ca.crt, and this host too"
            ),
            ProblemKind::Refused => write!(f, "{host} does not take this image or name"),
            ProblemKind::Unclear => write!(
                f,
                "{host} refused without a reason that the Docker engine passes on. Its log, or that of the proxy in front of it, has the status: 413 is a limit for uploads (nginx: `client_max_body_size 0`)"
            ),
        }?;
        if self.said.is_empty() { Ok(()) } else { write!(f, ". It said: {}", self.said) }
    }
}

//! Slack's incoming webhooks.
//!
//! At-least-once: Slack takes no key, so a message whose answer was lost comes twice when the queue sends it again.
//! The webhook's address is a secret: it stands in no error and no log line.

use std::time::Duration;

use reqwest::{StatusCode, header::RETRY_AFTER, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::report::SlackMessage;

/// How long one message may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Waited where Slack says "too many" without saying for how long.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
/// Never waited longer than this, whatever an answer says.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// What is read of an answer; Slack says `ok` or one word.
const ANSWER_MAX: usize = 1024;

/// Why a message was not delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlackError {
    /// The address is none. Permanent.
    #[error("the Slack webhook is not an https address; look at what `[slack]` maps the channel to")]
    BadAddress,
    /// "Rate limits": one message a second for each webhook.
    #[error("Slack takes no more messages for {} s", .retry_after.as_secs())]
    Limited {
        /// Send nothing before.
        retry_after: Duration,
    },
    /// Slack says that the message or the webhook is wrong. Permanent ("Handling errors" of incoming webhooks).
    #[error("Slack refused the message with {status}: {reason}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Slack's word, such as `no_service` or `channel_is_archived`.
        reason: String,
    },
    /// Slack has a fault.
    #[error("Slack answered {status}")]
    Unavailable {
        /// The HTTP status.
        status: u16,
        /// Send nothing before, if Slack said so.
        retry_after: Option<Duration>,
    },
    /// No answer. The message may have arrived.
    #[error("Slack was not reached: {0}")]
    Unreachable(&'static str),
}

impl SlackError {
    /// How long Slack asked to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Limited { retry_after } => Some(*retry_after),
            Self::Unavailable { retry_after, .. } => *retry_after,
            Self::BadAddress | Self::Refused { .. } | Self::Unreachable(_) => None,
        }
    }

    /// Sending it again would not help.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::BadAddress | Self::Refused { .. })
    }
}

/// Posts messages. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Slack {
    http: reqwest::Client,
}

impl Slack {
    /// Makes the client: 10 s for a message, no redirects (the address is the secret).
    ///
    /// # Errors
    /// If the TLS roots of this machine can't be read.
    pub fn new() -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("switchover/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(5))
            .timeout(TIMEOUT)
            .redirect(redirect::Policy::none())
            .build()?;
        Ok(Self { http })
    }

    /// Posts one message to an incoming webhook.
    ///
    /// # Errors
    /// [`SlackError`]; what may help is said by [`SlackError::retry_after`] and [`SlackError::is_permanent`].
    pub async fn post(&self, url: &SecretString, message: &SlackMessage) -> Result<(), SlackError> {
        let url = url::Url::parse(url.expose_secret().trim()).map_err(|_| SlackError::BadAddress)?;
        let loopback = match url.host() {
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => return Err(SlackError::BadAddress),
        };
        if !(url.scheme() == "https" || url.scheme() == "http" && loopback) {
            return Err(SlackError::BadAddress);
        }
        let body = json!({
            "text": message.text,
            "blocks": message.blocks,
            "unfurl_links": false,
            "unfurl_media": false,
        });
        let mut answer = self.http.post(url).json(&body).send().await.map_err(|e| unreachable(&e))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let retry_after = answer
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(LONGEST_WAIT));
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Err(SlackError::Limited { retry_after: retry_after.unwrap_or(DEFAULT_WAIT) });
        }
        if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
            return Err(SlackError::Unavailable { status: status.as_u16(), retry_after });
        }
        let mut reason = Vec::new();
        while let Ok(Some(piece)) = answer.chunk().await {
            reason.extend_from_slice(&piece[..piece.len().min(ANSWER_MAX - reason.len())]);
            if reason.len() >= ANSWER_MAX {
                break;
            }
        }
        let reason = crate::report::text::one_line(&String::from_utf8_lossy(&reason), 200);
        Err(SlackError::Refused { status: status.as_u16(), reason })
    }
}

/// In words of our own: the error's text has the address in it.
fn unreachable(error: &reqwest::Error) -> SlackError {
    SlackError::Unreachable(if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    })
}

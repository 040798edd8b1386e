//! From the bytes of a webhook to what it means. Pure: no I/O, no clock.
//!
//! Only the body is signed; the event's name and the delivery's GUID are not ("Validating webhook deliveries"). So a
//! body that does not fit the event it claims to be is no proof of a fault on GitHub's side: it is an error here, and
//! the caller keeps it in quarantine and answers 2xx, because a 4xx would be redelivered.

mod payload;
pub(super) mod shapes;

use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::Sha256;

use crate::domain::{
    event::Event,
    ids::{InstallationId, RepoId},
};

/// Why a signed body could not be read. The caller quarantines the delivery and shows this text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// Not JSON, or not an object.
    #[error("the body is not a JSON object: {why}; is the webhook's content type application/json?")]
    NotJson {
        /// What the parser said, with line and column.
        why: String,
    },
    /// JSON, but not what this event's payload looks like.
    #[error("the body does not fit the event {event:?}: {why}")]
    Misfit {
        /// `X-GitHub-Event` as it came (cut).
        event: String,
        /// What is missing or wrong.
        why: String,
    },
}

impl WebhookError {
    fn misfit(event: &str, why: impl std::fmt::Display) -> Self {
        Self::Misfit { event: cut(event, 80), why: cut(&why.to_string(), 300) }
    }
}

/// At most `limit` characters: what hostile input says must not flood the log.
fn cut(text: &str, limit: usize) -> String {
    text.chars().take(limit).collect()
}

/// Whether `signature_header` (`X-Hub-Signature-256`) is the HMAC-SHA256 of these very bytes under one of the secrets.
///
/// Several secrets are taken at once so that they can be rotated. Compares in constant time. An empty secret never
/// matches: anybody could sign with it. Source: "Validating webhook deliveries".
#[must_use]
pub fn verify(secrets: &[SecretString], signature_header: Option<&str>, body: &[u8]) -> bool {
    let Some(digits) = signature_header.and_then(|h| h.strip_prefix("sha256=")) else { return false };
    let mut signature = [0_u8; 32];
    if hex::decode_to_slice(digits, &mut signature).is_err() {
        return false;
    }
    let mut good = false;
    for secret in secrets {
        let key = secret.expose_secret().as_bytes();
        if key.is_empty() {
            continue;
        }
        // HMAC takes keys of any length; there is no error to hide here.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { continue };
        mac.update(body);
        good |= mac.verify_slice(&signature).is_ok();
    }
    good
}

/// The header value with which `body` is signed under `secret`: for the stand-in and for tests of intake.
#[must_use]
pub fn sign(secret: &SecretString, body: &[u8]) -> String {
    match Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()) {
        Ok(mut mac) => {
            mac.update(body);
            format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
        }
        Err(_) => String::new(),
    }
}

/// What the store's delivery row shows, as far as the body tells it. Never fails: a body that can't be read at all
/// gives an empty one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peek {
    /// `action`, cut to 80 characters.
    pub action: Option<String>,
    /// `repository.id`.
    pub repo_id: Option<RepoId>,
    /// `installation.id`.
    pub installation_id: Option<InstallationId>,
    /// `repository.full_name`, cut to 200 characters.
    pub repo_full_name: Option<String>,
}

/// The top level of any payload, each field still raw, so that one odd field does not hide the others.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    action: Option<&'a RawValue>,
    #[serde(borrow, default)]
    repository: Option<&'a RawValue>,
    #[serde(borrow, default)]
    installation: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Numbered {
    id: i64,
}

#[derive(Deserialize)]
struct Named {
    full_name: String,
}

impl Envelope<'_> {
    fn peek(&self) -> Peek {
        fn field<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Option<T> {
            serde_json::from_str(raw?.get()).ok()
        }
        Peek {
            action: field::<String>(self.action).map(|a| cut(&a, 80)),
            repo_id: field::<Numbered>(self.repository).map(|r| RepoId(r.id)),
            installation_id: field::<Numbered>(self.installation).map(|i| InstallationId(i.id)),
            repo_full_name: field::<Named>(self.repository).map(|r| cut(&r.full_name, 200)),
        }
    }
}

/// Reads what can be read of any body, for the delivery's row.
#[must_use]
pub fn peek(body: &[u8]) -> Peek {
    serde_json::from_slice::<Envelope<'_>>(body).map(|e| e.peek()).unwrap_or_default()
}

/// What this delivery means to us. `event` is `X-GitHub-Event`.
///
/// What is understood and not for us is [`Event::Ignored`] with the reason.
///
/// # Errors
/// [`WebhookError`] where the body is no JSON object or does not fit the event: quarantine it.
pub fn normalise(event: &str, body: &[u8]) -> Result<Event, WebhookError> {
    let peek = match serde_json::from_slice::<Envelope<'_>>(body) {
        // A sequence would also fill a struct by position; GitHub sends objects.
        Ok(envelope) if body.trim_ascii_start().first() == Some(&b'{') => envelope.peek(),
        Ok(_) => return Err(WebhookError::NotJson { why: "the top level is no object".to_owned() }),
        Err(e) => return Err(WebhookError::NotJson { why: cut(&e.to_string(), 300) }),
    };
    payload::read(event, body, &peek)
}

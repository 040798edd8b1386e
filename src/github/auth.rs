//! The App's identity: its JWT and the installations' tokens.
//!
//! Sources: "Generating a JSON Web Token (JWT) for a GitHub App", "Generating an installation access token".

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::error::GitHubError;
use crate::domain::ids::{InstallationId, RepoId};

/// `iat` lies so far back, against clocks that are ahead.
const BACKDATED: i64 = 60;
/// `exp` lies so far ahead; GitHub refuses more than ten minutes.
const LIFETIME: i64 = 9 * 60;
/// A token is renewed when it has less than this left.
const EARLY: SignedDuration = SignedDuration::from_mins(5);

/// What a token is for: each gets the permissions of its own work and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Looking at repositories, and at what a person may do.
    Metadata,
    /// Fetching code and branch heads.
    Contents,
    /// Reading pull requests.
    Pulls,
    /// Writing check runs.
    Checks,
    /// Reading other people's commit statuses.
    Statuses,
    /// Writing deployments.
    Deployments,
    /// Writing comments and reactions.
    Comments,
    /// Reading who is in a team.
    Members,
}

impl Purpose {
    /// All of them, for checking the manifest.
    pub const ALL: [Self; 8] = [
        Self::Metadata,
        Self::Contents,
        Self::Pulls,
        Self::Checks,
        Self::Statuses,
        Self::Deployments,
        Self::Comments,
        Self::Members,
    ];

    /// Names and levels as the API writes them ("Permissions required for GitHub Apps").
    #[must_use]
    pub fn permissions(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Metadata => &[("metadata", "read")],
            Self::Contents => &[("contents", "read")],
            Self::Pulls => &[("pull_requests", "read")],
            Self::Checks => &[("checks", "write")],
            Self::Statuses => &[("statuses", "read")],
            Self::Deployments => &[("deployments", "write")],
            Self::Comments => &[("issues", "write"), ("pull_requests", "write")],
            Self::Members => &[("members", "read")],
        }
    }

    /// The permissions in words, such as `issues: write, pull_requests: write`.
    #[must_use]
    pub fn words(self) -> String {
        self.permissions().iter().map(|(name, level)| format!("{name}: {level}")).collect::<Vec<_>>().join(", ")
    }
}

/// Signs the App's JWTs.
#[derive(Clone)]
pub struct AppKey {
    issuer: String,
    key: EncodingKey,
}

#[derive(Serialize)]
struct Claims<'a> {
    iat: i64,
    exp: i64,
    iss: &'a str,
}

impl AppKey {
    /// Reads the key and proves it with a signature.
    ///
    /// # Errors
    /// [`GitHubError::Config`] where it is no RSA private key.
    pub fn new(app_id: i64, pem: &str) -> Result<Self, GitHubError> {
        let unusable = |e: jsonwebtoken::errors::Error| GitHubError::Config {
            why: format!(
                "the App's private key is not an RSA key in PEM form ({e}); take the .pem file that GitHub's page of the App offers"
            ),
        };
        // Environment variables often carry the line ends as the two characters \n.
        let pem = if pem.contains('\n') { pem.to_owned() } else { pem.replace("\\n", "\n") };
        let key = EncodingKey::from_rsa_pem(pem.trim().as_bytes()).map_err(unusable)?;
        let key = Self { issuer: app_id.to_string(), key };
        key.sign(0).map_err(unusable)?;
        Ok(key)
    }

    fn sign(&self, now: i64) -> Result<String, jsonwebtoken::errors::Error> {
        let claims = Claims { iat: now - BACKDATED, exp: now + LIFETIME, iss: &self.issuer };
        jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &self.key)
    }

    /// A JWT for a call at `now`.
    ///
    /// # Errors
    /// [`GitHubError::Config`] if signing fails.
    pub fn jwt(&self, now: Timestamp) -> Result<SecretString, GitHubError> {
        self.sign(now.as_second())
            .map(SecretString::from)
            .map_err(|e| GitHubError::Config { why: format!("the App's private key cannot sign: {e}") })
    }
}

/// Which token: of an installation, for one repository or all, for one purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenKey {
    /// Whose.
    pub installation: InstallationId,
    /// For which repository; none for all that the installation has.
    pub repo: Option<RepoId>,
    /// For what.
    pub purpose: Purpose,
}

/// Body of "Create an installation access token for an app".
#[derive(Serialize)]
pub(super) struct TokenRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    repository_ids: Option<[i64; 1]>,
    permissions: HashMap<&'static str, &'static str>,
}

impl TokenKey {
    pub(super) fn request(self) -> TokenRequest {
        TokenRequest {
            repository_ids: self.repo.map(|r| [r.0]),
            permissions: self.purpose.permissions().iter().copied().collect(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct TokenReply {
    #[serde(deserialize_with = "secret")]
    token: SecretString,
    expires_at: Timestamp,
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    String::deserialize(deserializer).map(SecretString::from)
}

#[derive(Clone)]
struct Token {
    text: SecretString,
    expires_at: Timestamp,
}

/// One place in the cache. Whoever holds it fetches; the others wait and take what came.
#[derive(Default)]
struct Slot {
    token: Option<Token>,
    failed: Option<(Instant, GitHubError)>,
}

/// Tokens by what they are for.
#[derive(Default)]
pub(super) struct Tokens {
    slots: Mutex<HashMap<TokenKey, Arc<tokio::sync::Mutex<Slot>>>>,
}

impl Tokens {
    fn slot(&self, key: TokenKey) -> Arc<tokio::sync::Mutex<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
    }

    /// The cached token, or what `fetch` brings. `now` is the time by GitHub's clock.
    ///
    /// Callers that come while a fetch is under way share its result, a failure too: otherwise a hang would be waited
    /// for once by each of them in turn.
    pub(super) async fn get(
        &self,
        key: TokenKey,
        now: Timestamp,
        fetch: impl Future<Output = Result<TokenReply, GitHubError>>,
    ) -> Result<SecretString, GitHubError> {
        let came = Instant::now();
        let slot = self.slot(key);
        let mut slot = slot.lock().await;
        if let Some(token) = slot.token.as_ref().filter(|t| t.expires_at - EARLY > now) {
            return Ok(token.text.clone());
        }
        if let Some((_, error)) = slot.failed.as_ref().filter(|(at, _)| *at >= came) {
            return Err(error.clone());
        }
        match fetch.await {
            Ok(reply) => {
                let token = Token { text: reply.token, expires_at: reply.expires_at };
                let text = token.text.clone();
                *slot = Slot { token: Some(token), failed: None };
                Ok(text)
            }
            Err(error) => {
                *slot = Slot { token: None, failed: Some((Instant::now(), error.clone())) };
                Err(error)
            }
        }
    }

    /// Drops a token that GitHub refused, unless another has taken its place already.
    pub(super) async fn refused(&self, key: TokenKey, refused: &SecretString) {
        use secrecy::ExposeSecret;
        let slot = self.slot(key);
        let mut slot = slot.lock().await;
        if slot.token.as_ref().is_some_and(|t| t.text.expose_secret() == refused.expose_secret()) {
            slot.token = None;
        }
    }

    /// Drops all tokens of an installation. A fetch under way still ends, but into a slot that nobody looks at.
    pub(super) fn forget(&self, installation: InstallationId) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| key.installation != installation);
    }

    /// Drops the slots of tokens that have run out, so that a server of many repositories does not keep them all.
    pub(super) fn sweep(&self, now: Timestamp) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, slot| {
            // Somebody waits for it or is about to.
            Arc::strong_count(slot) > 1
                || slot.try_lock().map_or(true, |s| s.token.as_ref().is_some_and(|t| t.expires_at > now))
        });
    }
}

/// The difference between GitHub's clock and ours, as its `Date` headers tell, so that a host whose clock is off is
/// not locked out ("'Issued at' claim must be an Integer representing the time that the assertion was issued").
#[derive(Debug, Default)]
pub(super) struct Skew(std::sync::atomic::AtomicI64);

impl Skew {
    const TOLERATED: i64 = 30;

    /// The time by GitHub's clock.
    pub(super) fn theirs(&self, ours: Timestamp) -> Timestamp {
        let seconds = self.0.load(std::sync::atomic::Ordering::Relaxed);
        ours.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(ours)
    }

    /// Takes note of a `Date` header. True if our idea of GitHub's time changed.
    pub(super) fn note(&self, date: Option<&str>, ours: Timestamp) -> bool {
        let parser = jiff::fmt::rfc2822::DateTimeParser::new();
        let Some(theirs) = date.and_then(|d| parser.parse_timestamp(d).ok()) else { return false };
        let seen = theirs.as_second() - ours.as_second();
        let seen = if seen.abs() <= Self::TOLERATED { 0 } else { seen };
        let old = self.0.load(std::sync::atomic::Ordering::Relaxed);
        if (seen - old).abs() <= Self::TOLERATED && (seen == 0) == (old == 0) {
            return false;
        }
        self.0.store(seen, std::sync::atomic::Ordering::Relaxed);
        tracing::warn!(seconds = seen, "this machine's clock and GitHub's differ; GitHub's is used for the App's JWT");
        true
    }
}

/// A pause that grows with each try, for reads.
pub(super) fn pause(base: Duration, attempt: u32) -> Duration {
    base * 4_u32.pow(attempt.saturating_sub(1).min(3))
}

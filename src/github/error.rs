//! How a call to GitHub can fail, sorted by what to do about it.

use jiff::Timestamp;

use crate::domain::ids::InstallationId;

/// Why a call to GitHub did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GitHubError {
    /// The client could not be made from its settings.
    #[error("GitHub cannot be used with these settings: {why}")]
    Config {
        /// Which setting, what was expected.
        why: String,
    },
    /// It is not there, or the App may not see it: GitHub does not tell these apart.
    #[error("GitHub found nothing at {what}: it was deleted or renamed, or the App is not installed there")]
    NotFound {
        /// Method and path.
        what: String,
    },
    /// The App's JWT or a fresh token was refused.
    #[error("GitHub refused the App's identity: {why}")]
    Unauthorized {
        /// What to check.
        why: String,
    },
    /// The installation was removed or suspended: stop working for it.
    #[error("installation {installation} is gone: {why}")]
    Gone {
        /// Which one.
        installation: InstallationId,
        /// What GitHub said.
        why: String,
    },
    /// Known, and not allowed.
    #[error("GitHub does not allow it: {message}{}", needed(.missing.as_deref()))]
    Forbidden {
        /// What GitHub said.
        message: String,
        /// The permission that is missing, if GitHub told.
        missing: Option<String>,
    },
    /// A limit of GitHub's, or one that we keep so as not to meet GitHub's. Nothing was sent, or nothing was done.
    #[error("GitHub's limit is reached; again from {until}")]
    Limited {
        /// No call for this installation before then.
        until: Timestamp,
    },
    /// GitHub understood and refused (409, 422), or we know that it would. The same request will not do better.
    #[error("GitHub refused the request: {message}")]
    Invalid {
        /// What is wrong with it.
        message: String,
    },
    /// GitHub broke while reading for us, repeatedly.
    #[error("GitHub answered {status} to {what}")]
    Server {
        /// Method and path.
        what: String,
        /// The HTTP status, 500 or more.
        status: u16,
    },
    /// No connection, so nothing was done; or a read that was cut or timed out, repeatedly.
    #[error("GitHub cannot be reached: {why}")]
    Unreachable {
        /// What happened.
        why: String,
    },
    /// A write was sent and its answer lost: it may have been done. Look before doing it again (`ambiguous_before`).
    #[error("it is unknown whether GitHub did it: {why}")]
    Ambiguous {
        /// What happened.
        why: String,
        /// Set when the write itself was done and what had to follow met a limit: not before then.
        until: Option<Timestamp>,
    },
    /// An answer that is not what GitHub documents.
    #[error("GitHub's answer to {what} cannot be read: {why}")]
    Decode {
        /// Method and path.
        what: String,
        /// What is missing or wrong.
        why: String,
    },
}

fn needed(missing: Option<&str>) -> String {
    missing.map_or_else(String::new, |m| {
        format!(" (needs {m}: the App must have it, and the installation's owner must have accepted it)")
    })
}

impl GitHubError {
    /// Whether the same call will fail the same way until somebody changes something on GitHub.
    ///
    /// A refused identity is not counted: the operator mends the key, and work must not be given up meanwhile.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::Config { .. }
                | Self::NotFound { .. }
                | Self::Gone { .. }
                | Self::Forbidden { .. }
                | Self::Invalid { .. }
        )
    }

    /// Whether the write may have been done: pass `ambiguous_before` with the next try.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Ambiguous { .. })
    }

    /// The earliest moment at which another try makes sense (the caller adds its own backoff); none if it never does.
    #[must_use]
    pub fn retry_at(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Limited { until } | Self::Ambiguous { until: Some(until), .. } => Some(now.max(*until)),
            _ if self.is_permanent() => None,
            _ => Some(now),
        }
    }
}

//! What the API server's refusals mean, in words.

use std::fmt::Write as _;

use kube::client::UpgradeConnectionError;

/// Why a cluster can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// Who or where can't be known.
    #[error("the cluster can't be used: {place}: {why}")]
    Config {
        /// The kubeconfig, or what stands for it.
        place: String,
        /// Why not.
        why: String,
    },
}

/// Why the API server did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It does not answer, or is too busy; whether it did it is unknown.
    Away(String),
    /// There is no such thing.
    Missing(String),
    /// There is one already, or it changed meanwhile, or another manager owns the field.
    Conflict(String),
    /// The credentials are not taken: expired, revoked, or of another cluster.
    Credentials(String),
    /// The account lacks a right; the words name it.
    Forbidden(String),
    /// A quota or an admission rule is in the way, or the object is not valid.
    Refused(String),
}

impl Fault {
    /// For people.
    #[must_use]
    pub fn words(&self) -> &str {
        match self {
            Self::Away(w)
            | Self::Missing(w)
            | Self::Conflict(w)
            | Self::Credentials(w)
            | Self::Forbidden(w)
            | Self::Refused(w) => w,
        }
    }
}

/// An error with all that caused it, once each.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            let _ = write!(text, ": {words}");
        }
        next = cause.source();
    }
    text
}

impl From<kube::Error> for Fault {
    fn from(error: kube::Error) -> Self {
        let kube::Error::Api(status) = &error else {
            return match &error {
                // Of these refusals the client knows nothing but the number.
                kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(code)) => match code.as_u16() {
                    401 => Self::Credentials("the cluster does not take the credentials: they may have expired".into()),
                    403 => Self::Forbidden(
                        "the account of Switchover lacks a right: `create` and `get` of `pods/exec`".into(),
                    ),
                    404 => Self::Missing("the pod is not there".into()),
                    _ => Self::Away(chain(&error)),
                },
                // A token command or file of the kubeconfig.
                kube::Error::Auth(e) => {
                    Self::Credentials(format!("the cluster's credentials can't be used: {}", chain(e)))
                }
                other => Self::Away(chain(other)),
            };
        };
        let message = match status.message.is_empty() {
            true => format!("HTTP {}", status.code),
            false => status.message.clone(),
        };
        match status.code {
            401 => Self::Credentials(format!(
                "the cluster does not take the credentials ({message}): they may have expired; renew the kubeconfig or token"
            )),
            403 if message.contains("exceeded quota") => Self::Refused(message),
            403 => Self::Forbidden(format!("the account of Switchover lacks a right: {message}")),
            404 => Self::Missing(message),
            409 => Self::Conflict(message),
            // Server-side apply's word on a field that the kind does not have.
            500 if message.contains("failed to create typed patch object") => Self::Refused(message),
            // A watch's or list's resource version is too old: look anew ("Kubernetes API Concepts").
            410 | 429 | 500 | 502..=504 => Self::Away(message),
            _ => Self::Refused(message),
        }
    }
}

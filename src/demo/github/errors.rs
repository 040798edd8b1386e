//! What can go wrong in the stand-in itself (faults on demand are not errors).

/// Why the stand-in could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StandInError {
    /// The disk or the network refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A git command failed.
    #[error("git {command} failed: {stderr}")]
    Git {
        /// Its arguments.
        command: String,
        /// What it said.
        stderr: String,
    },
    /// A key could not be made.
    #[error("cannot make an RSA key")]
    Key,
    /// No such thing.
    #[error("there is no {0}")]
    NotFound(String),
    /// GitHub would refuse it.
    #[error("{0}")]
    Refused(String),
    /// Not seen in time.
    #[error("waited {seconds} s for {what}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
    },
}

impl StandInError {
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

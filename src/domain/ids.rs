//! Newtypes: an id of one kind can't be passed where another is meant.

use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not the identifier it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {expected}")]
pub struct IdError {
    /// What was found (cut to 80 characters).
    pub value: String,
    /// What would have been right.
    pub expected: &'static str,
}

impl IdError {
    fn new(value: &str, expected: &'static str) -> Self {
        Self { value: value.chars().take(80).collect(), expected }
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $ok:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes the text if it is well formed.
            ///
            /// # Errors
            /// [`IdError`], naming what was expected.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                let ok: fn(&str) -> bool = $ok;
                if ok(&text) { Ok(Self(text)) } else { Err(IdError::new(&text, $expected)) }
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                Self::new(s)
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(s: String) -> Result<Self, IdError> {
                Self::new(s)
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new one, later than all before it (UUIDv7).
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                Uuid::parse_str(s).map(Self).map_err(|_| IdError::new(s, "a UUID"))
            }
        }
    };
}

fn name_shape(s: &str, extra: &str) -> bool {
    !s.is_empty()
        && s.len() <= 63
        && s.starts_with(|c: char| c.is_ascii_alphanumeric())
        && s.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
}

text_id! {
    /// GitHub's `X-GitHub-Delivery`. A redelivery carries the same one ("Redelivering webhooks").
    DeliveryId, "a delivery id of 1 to 100 letters, digits and dashes",
    |s| !s.is_empty() && s.len() <= 100 && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}
text_id! {
    /// A git object name in lower-case hex: 40 digits (SHA-1) or 64 (SHA-256).
    Sha, "a commit of 40 (or 64) lower-case hex digits",
    |s| (s.len() == 40 || s.len() == 64) && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
text_id! {
    /// `sha256:` and 64 hex digits. A tag is refused: a deployment names a digest, never a tag.
    Digest, "a digest: sha256: and 64 hex digits",
    |s| s.strip_prefix("sha256:").is_some_and(|h| h.len() == 64 && h.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}
text_id! {
    /// An environment's name as users write it.
    EnvironmentName, "a name of 1 to 63 letters, digits, dots, dashes and underscores",
    |s| name_shape(s, "._-")
}
text_id! {
    /// An app's name: a key under `apps:`.
    AppName, "a name of 1 to 63 letters, digits, dots, dashes and underscores",
    |s| name_shape(s, "._-")
}
text_id! {
    /// A step's name: a key under `steps:`.
    StepName, "a name of 1 to 63 letters, digits, dots, dashes, underscores and spaces",
    |s| name_shape(s, "._- ")
}

text_id! {
    /// A slot's name: a release's name (`4f2a91c-8d03b6aa`), or an adopted pair's colour.
    Slot, "a name of 1 to 63 letters, digits, dots, dashes and underscores",
    |s| name_shape(s, "._-")
}

number_id! {
    /// GitHub's number for a repository: names get renamed, numbers stay.
    RepoId
}
number_id! {
    /// GitHub's number for an installation of the App.
    InstallationId
}

uuid_id! {
    /// A test run: one commit in one context.
    RunId
}
uuid_id! {
    /// A job: one app's steps within a run, in one workspace.
    JobId
}
uuid_id! {
    /// One step of a job.
    StepId
}
uuid_id! {
    /// One attempt to bring one release to one environment.
    RolloutId
}

impl Sha {
    /// The first seven digits, as people write commits.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..7]
    }

    /// True for the all-zero name, with which GitHub says "no commit" (a deleted or a new branch).
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.bytes().all(|b| b == b'0')
    }
}

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::{Digest as _, Sha256};
        Self(format!("sha256:{}", hex::encode(Sha256::digest(bytes))))
    }

    /// Twelve hex digits: enough to tell releases apart in a name.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[7..19]
    }
}

/// Fencing epoch: grows with every claim; a write that carries an older one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub i64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a repository is on GitHub, now. The name may change; the id does not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RepoRef {
    /// GitHub's number.
    pub id: RepoId,
    /// User or organisation.
    pub owner: String,
    /// The repository's name without the owner.
    pub name: String,
    /// Which installation grants access to it.
    pub installation: InstallationId,
}

impl RepoRef {
    /// `owner/name`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }
}

//! The only octocrab: verify, normalise, App authentication, API.
//!
//! * [`webhook`]: pure; from signed bytes to a [`crate::domain::event::Event`].
//! * [`GitHub`]: the API client. One address for all of it (GitHub, an Enterprise Server, the stand-in); hosts are
//!   configured and never learned from a payload or a response.
//! * [`auth`]: the App's JWT and the installations' tokens, each scoped to one repository and one purpose.
//! * [`limits`]: GitHub's limits, kept before GitHub has to enforce them.
//! * `checks`, `deployments`, `comments`, `repos`, `hooks`: what is read and written. A write is never repeated blindly:
//!   where its effect is unknown the answer is [`GitHubError::Ambiguous`], and the `ensure_*` functions read first the
//!   next time.
//! * [`text`]: cutting Markdown to GitHub's limits.

pub mod auth;
mod call;
mod checks;
mod client;
mod comments;
mod deployments;
mod error;
mod hooks;
pub mod limits;
mod repos;
pub mod text;
mod transport;
pub mod webhook;

pub use checks::{CommitStatus, MAX_ANNOTATIONS, SeenCheck};
pub use client::{GitHub, GitHubConfig, Timeouts};
pub use comments::{Comment, CommentKind, Permission, Reaction};
pub use error::GitHubError;
pub use hooks::{DeliveryPage, HookDelivery, HookDeliveryDetail};
pub use repos::{AppInfo, InstallationInfo};

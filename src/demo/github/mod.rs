//! A stateful GitHub on localhost, for the demo and the tests.
//!
//! It answers under GitHub Enterprise Server's layout: web pages and git at `http://127.0.0.1:PORT`, the REST API at
//! `…/api/v3` (and, for clients that expect api.github.com, at the root too). State is in memory; repositories are
//! bare git repositories in a folder. What GitHub does oddly, this does oddly as well: each quirk names the page of
//! GitHub's documentation that it comes from.
//!
//! - [`model`]: the state.
//! - `ops`: what people and Apps do to it; each sends the webhooks that GitHub would send.
//! - `api`: the REST operations. `git_http`: clone and push. `web`: the forms behind the pages' buttons.
//! - [`faults`]: what goes wrong on demand.

mod api;
mod auth;
mod errors;
pub mod faults;
mod git;
mod git_http;
mod keys;
pub mod model;
mod ops;
pub mod pages;
mod server;
mod shapes;
mod web;
mod webhooks;

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use url::Url;

pub use errors::StandInError;
pub use faults::{Effect, Faults, HookEffect, HookFault, Rule};
pub use git::CommitInfo;
pub use keys::AppKey;
pub use ops::{Installed, NewPull, Registered};

use model::Model;

/// How to start the stand-in.
#[derive(Debug, Clone)]
pub struct StandInConfig {
    /// Folder for the bare repositories; made when missing. State outside git does not survive the process.
    pub data: PathBuf,
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Keep bodies of requests and answers in the log, for checks against GitHub's description.
    pub record: bool,
}

/// A running stand-in; clones are handles to the same one.
#[derive(Clone)]
pub struct StandIn(Arc<Inner>);

pub(crate) struct Inner {
    model: Mutex<Model>,
    faults: Faults,
    web: Url,
    data: PathBuf,
    record: bool,
    http: reqwest::Client,
    runtime: tokio::runtime::Handle,
    stop: CancellationToken,
    server: Mutex<Option<actix_web::dev::ServerHandle>>,
    changed: watch::Sender<u64>,
    locks: Mutex<HashMap<i64, Arc<tokio::sync::Mutex<()>>>>,
    held: Mutex<Vec<i64>>,
    limits: Mutex<HashMap<Vec<u8>, (u32, i64)>>,
}

impl std::fmt::Debug for StandIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StandIn").field("web", &self.0.web.as_str()).finish_non_exhaustive()
    }
}

fn guard<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StandIn {
    /// Starts listening. The caller's runtime sends the webhooks.
    ///
    /// # Errors
    /// The folder can't be made, the address is taken, or there is no git.
    pub async fn start(config: StandInConfig) -> Result<Self, StandInError> {
        server::start(config).await
    }

    /// Stops listening, drops open connections and webhooks under way.
    pub async fn stop(self) {
        self.0.stop.cancel();
        let handle = guard(&self.0.server).take();
        if let Some(handle) = handle {
            handle.stop(false).await;
        }
    }

    /// The REST API: `http://127.0.0.1:PORT/api/v3`.
    #[must_use]
    pub fn api_url(&self) -> Url {
        let mut url = self.0.web.clone();
        url.set_path("/api/v3");
        url
    }

    /// Pages and git: `http://127.0.0.1:PORT/`.
    #[must_use]
    pub fn web_url(&self) -> Url {
        self.0.web.clone()
    }

    /// The address to clone a repository from, without credentials.
    #[must_use]
    pub fn clone_url(&self, owner: &str, name: &str) -> Url {
        let mut url = self.0.web.clone();
        url.set_path(&format!("/{owner}/{name}.git"));
        url
    }

    /// The same with somebody's credentials, for a person's git.
    ///
    /// # Errors
    /// There is no such person.
    pub fn push_url(&self, login: &str, owner: &str, name: &str) -> Result<Url, StandInError> {
        let token = self.read(|m| m.user(login).map(|u| u.token.clone()));
        let token = token.ok_or_else(|| StandInError::NotFound(format!("user {login}")))?;
        let mut url = self.clone_url(owner, name);
        let _ = url.set_username(login);
        let _ = url.set_password(Some(&token));
        Ok(url)
    }

    /// What goes wrong on demand.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.0.faults
    }

    /// Looks at the state. Keep it short: everything else waits.
    pub fn read<T>(&self, look: impl FnOnce(&Model) -> T) -> T {
        look(&guard(&self.0.model))
    }

    /// Changes the state and wakes those who wait for a change.
    pub fn write<T>(&self, change: impl FnOnce(&mut Model) -> T) -> T {
        let out = change(&mut guard(&self.0.model));
        self.0.changed.send_modify(|n| *n += 1);
        out
    }

    /// A counter that grows with every change of the state: for pages that follow it live.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Waits until `look` finds what it is looking for, at most `limit`.
    ///
    /// # Errors
    /// [`StandInError::Timeout`], naming `what`.
    pub async fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&Model) -> Option<T>,
    ) -> Result<T, StandInError> {
        let mut changes = self.changes();
        let found = async {
            loop {
                changes.mark_unchanged();
                if let Some(found) = self.read(&mut look) {
                    return found;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let late = || StandInError::Timeout { what: what.to_owned(), seconds: limit.as_secs() };
        tokio::time::timeout(limit, found).await.map_err(|_| late())
    }

    /// How many requests matched, by method (empty for any) and part of the path.
    #[must_use]
    pub fn requests(&self, method: &str, path_part: &str) -> usize {
        let matches = |e: &&model::Exchange| (method.is_empty() || e.method == method) && e.path.contains(path_part);
        self.read(|m| m.log.iter().filter(matches).count())
    }

    /// Pushes and merges of one repository go one after the other.
    fn repo_lock(&self, repo: i64) -> Arc<tokio::sync::Mutex<()>> {
        guard(&self.0.locks).entry(repo).or_default().clone()
    }

    fn git_dir(&self, repo: i64) -> PathBuf {
        self.0.data.join("git").join(format!("{repo}.git"))
    }
}

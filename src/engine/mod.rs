//! The loops. Everything right of a webhook is driven by the store, never by a call chain: each loop reads what is
//! due, acts, writes the outcome. The happy path, the periodic sweep and the restart run the same code.
//!
//! * `inbox`: deliveries in order, each given to [`planner`]: deliveries become runs.
//! * `access`: which repositories are ours; installations come and go.
//! * [`facts`]: what the planner must know, read from git and the store.
//! * [`runner`]: jobs become test results and releases; `images`: the step that makes an image.
//! * [`releases`]: ended runs become rollouts; gates.
//! * [`rollouts`]: rollouts are driven through their phases; old slots are retired.
//! * [`commands`]: what people ask for: promote, rollback, resume, re-run; `rebuild`: what is live, built anew; `back`:
//!   the way back.
//! * [`reporter`]: GitHub is made to show what the store says; messages are sent.
//! * [`retention`]: what is old and used by nobody goes.
//! * [`sweeper`]: missed deliveries, branch heads.

mod access;
mod back;
mod clicks;
pub mod commands;
pub mod explain;
pub mod facts;
mod images;
mod inbox;
mod manifests;
mod newer;
pub mod planner;
pub mod preview;
mod rebuild;
pub mod releases;
pub mod reporter;
pub mod retention;
pub mod rollouts;
pub mod runner;
pub mod sweeper;
mod targets;
pub mod tools;
pub mod views;
pub mod wake;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    agent,
    cluster::Clusters,
    docker::Docker,
    domain::{
        ids::{JobId, RepoRef, RolloutId},
        rollout::Asked,
    },
    exec::{
        docker::DockerExecutor,
        git::{GitAuth, GitError, Mirrors},
        kubernetes::KubernetesExecutor,
        local::{Executor, LocalExecutor},
    },
    github::{GitHub, GitHubError},
    settings::Settings,
    store::{Store, StoreError},
    telemetry::Metrics,
};
use wake::Wake;

/// A claim lasts this long and is renewed every quarter of it.
pub const LEASE: Duration = Duration::from_secs(60);

/// Homes of steps and of a release's commands, below the data folder. Swept at the start, processes in them ended: nothing
/// that shall outlive the server may have its home here (the slots' are elsewhere).
pub const STEP_HOMES: &str = "step-homes";

/// What the loops share. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

/// The parts of an [`Engine`].
pub struct Shared {
    /// The store.
    pub store: Store,
    /// GitHub.
    pub github: GitHub,
    /// Mirrors and workspaces.
    pub mirrors: Mirrors,
    /// Where steps run.
    pub executor: Arc<dyn Executor>,
    /// Runs commands on this host, for repositories under `trusted_local`.
    pub host: LocalExecutor,
    /// The Docker engine, where the settings use one.
    pub docker: Option<Docker>,
    /// The executor of containers again, for its sweep.
    pub containers: Option<DockerExecutor>,
    /// The clusters of targets.
    pub clusters: Clusters,
    /// The executor of a cluster's Jobs again, for its sweep.
    pub jobs: Option<KubernetesExecutor>,
    /// The data plane of this host.
    pub agent: agent::Client,
    /// What the operator said.
    pub settings: Arc<Settings>,
    /// The bells.
    pub wake: Wake,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// This process's name in leases: new with every start.
    pub instance: String,
    /// A fingerprint of the tools that steps find on this machine.
    pub tools: String,
    /// The server's own key: names of slots are made with it.
    pub key: Vec<u8>,
    /// Work that can be stopped.
    pub running: Mutex<HashMap<JobId, CancellationToken>>,
    /// Rollouts that are driven here, and what is asked of them.
    pub asking: Mutex<HashMap<RolloutId, watch::Sender<Asked>>>,
}

impl std::ops::Deref for Engine {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// Why a loop could not do its work now.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// GitHub.
    #[error("GitHub: {0}")]
    GitHub(#[from] GitHubError),
    /// Git.
    #[error("git: {0}")]
    Git(#[from] GitError),
    /// The agent.
    #[error("agent: {0}")]
    Agent(#[from] agent::ClientError),
    /// The machine: no process, no file, no memory.
    #[error("this machine: {0}")]
    Machine(String),
    /// Something that will not change by trying again.
    #[error("{0}")]
    Refused(String),
}

impl Engine {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Shared) -> Self {
        Self(Arc::new(parts))
    }

    /// Where logs lie.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.settings.data.join("logs")
    }

    /// Where releases lie.
    #[must_use]
    pub fn releases_root(&self) -> PathBuf {
        self.settings.data.join("releases")
    }

    /// Stops the work of these jobs, as far as it runs in this process.
    pub fn stop_jobs(&self, jobs: &[JobId]) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for job in jobs {
            if let Some(token) = running.get(job) {
                token.cancel();
            }
        }
    }

    /// Removes what steps left in the Docker engine or the cluster that no longer run.
    pub async fn sweep_containers(&self) {
        if let Some(containers) = &self.containers {
            match containers.sweep().await {
                Ok(0) => {}
                Ok(gone) => tracing::info!(gone, "removed what steps left in the Docker engine"),
                Err(error) => tracing::warn!(%error, "what steps left in the Docker engine can't be looked for now"),
            }
        }
        if let Some(jobs) = &self.jobs {
            match jobs.sweep().await {
                Ok(0) => {}
                Ok(gone) => tracing::info!(gone, "removed what steps left in the cluster"),
                Err(fault) => {
                    tracing::warn!(error = fault.words(), "what steps left in the cluster can't be looked for now");
                }
            }
        }
    }

    /// Git credentials for a repository: the token is scoped to it and to reading.
    ///
    /// # Errors
    /// When GitHub gives none.
    pub async fn git_auth(&self, repo: &RepoRef) -> Result<GitAuth, EngineError> {
        let token = self.github.git_token(repo).await?;
        Ok(GitAuth { username: "x-access-token".into(), token })
    }

    /// Starts all loops. They end when `shutdown` is cancelled; `tracker` tells when all of them have.
    pub fn start(&self, tracker: &TaskTracker, shutdown: &CancellationToken) {
        tracker.spawn(inbox::run(self.clone(), shutdown.clone()));
        tracker.spawn(runner::run(self.clone(), shutdown.clone()));
        tracker.spawn(rollouts::run(self.clone(), shutdown.clone()));
        tracker.spawn(reporter::run(self.clone(), shutdown.clone()));
        tracker.spawn(reporter::run_messages(self.clone(), shutdown.clone()));
        tracker.spawn(sweeper::run(self.clone(), shutdown.clone()));
    }
}

/// When to try again: doubling from one second, at most five minutes.
#[must_use]
pub fn backoff(attempts: i64) -> Duration {
    Duration::from_secs(1u64 << attempts.clamp(0, 8)).min(Duration::from_secs(300))
}

/// Sleeps until `at` (none: for ever), so that a loop can wait for a bell or a time.
pub(crate) async fn until(at: Option<jiff::Timestamp>) {
    match at {
        None => std::future::pending().await,
        Some(at) => {
            let left = at.duration_since(crate::clock::now());
            tokio::time::sleep(Duration::try_from(left).unwrap_or(Duration::ZERO)).await;
        }
    }
}

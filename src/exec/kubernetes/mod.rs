//! Executor `kubernetes`: a Job for each step, its companions beside it in one pod.
//!
//! The pod shares nothing with this host. Workspace, home and caches are brought to it and taken back as tar streams
//! through the API (`pods/exec`), at the same paths as here, since links lead from one to the other. It gets no
//! credentials, neither ours nor the cluster's: no service account's token, and the operator's logins at registries are
//! the kubelet's alone. What comes back is believed in nothing ([`stream`], [`unpack`]).
//!
//! Containers of the pod, all but companions of the step's own image, as a user without a name and without rights:
//!
//! | container | what it does |
//! |---|---|
//! | `users` (first, and alone) | makes the list of users with the step's; sees whether there is a `tar` |
//! | `step` | waits for the word to begin, runs the command, ends with its exit code |
//! | `keeper` | sees the same files; ours to bring and take them, before and after |
//! | `with-NAME` | a companion, known to the step as NAME. Never started again once it ended |
//!
//! None of it is retried by the cluster. A step that was taken away (eviction, preemption, loss of its node) is an
//! [`ExecError`], after which the job runs again in a clean workspace; one that ended, whatever became of its pod then,
//! is a result. What is killed with the server in the middle is removed at the next start ([`held`]).
//!
//! # Rights
//! In the namespace of the steps, and nowhere else:
//!
//! | group | resource | verbs | what for |
//! |---|---|---|---|
//! | `batch` | `jobs` | `create`, `get`, `list`, `patch`, `delete` | a step; `patch` lets it begin once its Secrets are there |
//! | | `pods` | `list`, `watch`, `delete` | how it goes; TERM and KILL |
//! | | `pods/log` | `get` | its output |
//! | | `pods/exec` | `create`, `get` | files; before Kubernetes 1.35 a websocket is `get`, afterwards `create` |
//! | | `secrets` | `create` | its environment and the logins for its images; they are never read, and go with the Job |
//! | | `events` | `list` | why there is no pod: quota, admission |
//! | `networking.k8s.io` | `networkpolicies` | `create` | only where `limits.step_internet` is false |

mod bring;
mod follow;
mod held;
pub mod log;
mod objects;
mod prepare;
mod scripts;
pub mod status;
pub mod stream;
mod talk;
pub mod unpack;
mod waiting;
mod watch;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::Api;
use tokio_util::sync::CancellationToken;

use self::{follow::Reason, held::Held};
use super::{
    contained::{Attempt, Ended, Failed, Live, locking, until_begin},
    journal::Journal,
    limits::StepLimits,
    local::{ContainerStep, ExecError, Executor, StepSpec},
};
use crate::{
    clock,
    cluster::{Cluster, Fault},
    docker::pull::Logins,
    domain::run::{StepEnd, StepResult},
};

/// Label: one attempt of a step. All that belongs to it has it.
pub(super) const ATTEMPT: &str = "switchover.dev/attempt";
/// Label: the job that the step is of.
pub(super) const JOB: &str = "switchover.dev/job";

/// How long companions may take to become ready.
const READY: Duration = Duration::from_secs(120);

/// Runs each step as a Job of a cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KubernetesExecutor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cluster: Cluster,
    limits: StepLimits,
    logins: Logins,
    node_selector: BTreeMap<String, String>,
    live: Live,
}

impl KubernetesExecutor {
    /// Steps in the cluster's namespace, on nodes with these labels. `logins` are used to pull images for the repositories
    /// that they are granted to; no step sees them.
    #[must_use]
    pub fn new(cluster: Cluster, limits: StepLimits, logins: Logins, node_selector: BTreeMap<String, String>) -> Self {
        Self(Arc::new(Inner { cluster, limits, logins, node_selector, live: Live::default() }))
    }

    /// Removes what steps left in the cluster that no longer run here: Jobs with their Secrets, pods. At the start of the
    /// server that is everything of its own; later, what an outage of the API left. Answers how many.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn sweep(&self) -> Result<usize, Fault> {
        held::sweep(&self.0.cluster, &self.0.live).await
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.0.cluster
    }
}

impl From<ExecError> for Failed {
    fn from(error: ExecError) -> Self {
        Self::Machine(error)
    }
}

/// For `map_err`: what was being done.
fn failed(doing: &str) -> impl Fn(Fault) -> Failed + '_ {
    move |fault| match fault {
        // Not valid, or not admitted: another try would be the same. A quota has room again when others end.
        Fault::Refused(why) if !why.contains("exceeded quota") => {
            Failed::People(format!("the cluster refuses it, {doing}: {why}"))
        }
        fault => Failed::Machine(ExecError::Cluster { doing: doing.to_owned(), fault }),
    }
}

impl Executor for KubernetesExecutor {
    fn run<'a>(
        &'a self,
        spec: &'a StepSpec,
        cancel: CancellationToken,
    ) -> BoxFuture<'a, Result<StepResult, ExecError>> {
        Box::pin(self.0.run(spec, cancel))
    }
}

impl Inner {
    async fn run(&self, spec: &StepSpec, cancel: CancellationToken) -> Result<StepResult, ExecError> {
        if cancel.is_cancelled() {
            return Ok(StepResult::cancelled(clock::now()));
        }
        let attempt = Attempt::begin(spec)?;
        let held = Held::new(&self.cluster, &self.live, spec.hold.as_deref(), spec.grace).map_err(locking)?;
        let ended = self.to_its_end(spec, attempt.step, &held, &attempt.journal, &cancel).await;
        let clean = held.end().await;
        let job = &attempt.step.job;
        let result = attempt.close(ended)?;
        if let Err(fault) = clean {
            tracing::warn!(job, error = fault.words(), "what a step left in the cluster is removed later");
        }
        Ok(result)
    }

    async fn to_its_end(
        &self,
        spec: &StepSpec,
        step: &ContainerStep,
        held: &Held,
        journal: &Journal,
        cancel: &CancellationToken,
    ) -> Result<Ended<Reason>, Failed> {
        let before = until_begin(spec);
        // Whatever was begun when it is dropped is removed by its label.
        let ready = tokio::select! {
            ready = self.prepare(spec, step, held, journal) => ready?,
            () = cancel.cancelled() => {
                journal.note("cancelled before it began");
                return Ok(Ended::new(StepEnd::Cancelled));
            }
            () = tokio::time::sleep(before) => {
                journal.note(&format!("the time limit of {} s is reached before it began", before.as_secs()));
                return Ok(Ended::new(StepEnd::TimedOut));
            }
        };
        let pods = self.pods();
        let follow = follow::Follow {
            pods: &pods,
            pod: &ready.pod,
            journal,
            cancel,
            deadline: Instant::now().checked_add(spec.timeout),
            spec,
            step,
            lock: held.lock(),
            memory: ready.memory,
            disk: self.limits.disk,
        };
        let ended = follow.to_its_end(ready.watch.seen.clone()).await?;
        if ended.end != StepEnd::Exited(0) && ended.why != Some(Reason::Cancel) {
            let seen = ready.watch.seen.borrow().clone();
            if let Some(pod) = seen.pod.filter(|_| !seen.gone) {
                prepare::tell_of_the_dead(&pods, &pod, step, journal).await;
            }
        }
        Ok(ended)
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client(), self.cluster.namespace())
    }

    fn jobs(&self) -> Api<Job> {
        Api::namespaced(self.cluster.client(), self.cluster.namespace())
    }
}

//! The target `kubernetes`: slots as Deployments of a namespace, the Service as the pointer.
//!
//! The Service says who is live, and carries the epoch that fences: the flip is one patch of one object. A worker has no
//! Service; a small ConfigMap stands for it. None of our code is in the way of requests.
//!
//! * [`names`]: names, labels and annotations. [`look`](self): what is there. `observe`: what that means for a rollout.
//! * `perform`: claim, slots, removal. `adopt`: the first time, on what ran before us. `switch`: the flip and what goes
//!   with it. `worker`: stopped, then started. `record`: what belongs to a slot and is applied at its switch.
//! * `command`: `pre_deploy` and smoke tests as Jobs. `preflight`: what would go wrong, before anything is touched.

mod adopt;
mod command;
mod look;
mod names;
mod observe;
mod perform;
mod preflight;
mod put;
mod record;
mod switch;
mod worker;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

pub use self::preflight::plan;
use super::{
    ProbeTarget, Target, TargetError,
    local::CommandRunner,
    shared::{self, Readiness},
};
use crate::{
    cluster::{Cluster, Fault, Watched},
    docker::pull::Logins,
    domain::{
        ids::{AppName, Epoch, Slot},
        rollout::{Action, Desired, Effect, EnvironmentKey, Live, Observed},
    },
};

/// What the target of one environment needs.
#[derive(Clone)]
pub struct KubernetesConfig {
    /// The namespace, with what lives in it.
    pub watched: Watched,
    /// For logs of commands: `rollouts/` below.
    pub data: PathBuf,
    /// Granted secrets by name.
    pub secrets: BTreeMap<String, SecretString>,
    /// Whose releases, as `owner/name`: which logins they may use.
    pub repository: String,
    /// The operator's logins at registries: the cluster pulls with them.
    pub logins: Logins,
    /// Runs smoke tests on the server's own host, where the repository may. None: they run as Jobs in the new image.
    pub runner: Option<Arc<dyn CommandRunner>>,
    /// After a flip, every node's proxy has so long to follow: [`SETTLE`].
    pub settle: Duration,
    /// The same of a load balancer that keeps a list of pods of its own: [`BALANCER_SETTLE`].
    pub balancer_settle: Duration,
}

/// kube-proxy bundles changes: in large clusters a node may follow so much later ("kube-proxy", `minSyncPeriod`).
pub const SETTLE: Duration = Duration::from_secs(10);

/// New pods must be taken into its list and pass its health checks twice, 15 s apart, before it asks them, and it goes on
/// asking the old ones until then ("AWS Load Balancer Controller: annotations", health check defaults).
pub const BALANCER_SETTLE: Duration = Duration::from_secs(90);

/// The target.
pub struct KubernetesTarget {
    config: KubernetesConfig,
    ready: Mutex<Readiness>,
    /// Why a pod is not ready, by its name, and when that was asked.
    whys: Mutex<HashMap<String, (Instant, Option<String>)>>,
    /// By Service: which flip, and since when its endpoints are those of the slot that it leads to.
    led: Mutex<HashMap<String, (Timestamp, Timestamp)>>,
}

impl From<Fault> for TargetError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Away(why) => Self::Unreachable(why),
            Fault::Credentials(why)
            | Fault::Forbidden(why)
            | Fault::Missing(why)
            | Fault::Conflict(why)
            | Fault::Refused(why) => Self::Failed(why),
        }
    }
}

fn failed(words: impl Into<String>) -> TargetError {
    TargetError::Failed(words.into())
}

impl KubernetesTarget {
    /// For one environment.
    #[must_use]
    pub fn new(config: KubernetesConfig) -> Self {
        Self { config, ready: Mutex::default(), whys: Mutex::default(), led: Mutex::default() }
    }

    fn watched(&self) -> &Watched {
        &self.config.watched
    }

    fn cluster(&self) -> &Cluster {
        self.config.watched.cluster()
    }

    /// Takes secrets out of what people will read.
    fn mask(&self, text: &str) -> String {
        shared::mask(&self.config.secrets, text)
    }
}

impl Target for KubernetesTarget {
    fn observe<'a>(&'a self, desired: &'a Desired, epoch: Epoch) -> BoxFuture<'a, Observed> {
        Box::pin(self.read(desired, epoch))
    }

    fn perform<'a>(
        &'a self,
        desired: &'a Desired,
        epoch: Epoch,
        action: &'a Action,
        stop: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Effect, TargetError>> {
        Box::pin(self.carry_out(desired, epoch, action, stop))
    }

    fn changed<'a>(&'a self, _desired: &'a Desired) -> BoxFuture<'a, ()> {
        let mut changes = self.watched().changes();
        Box::pin(async move {
            // What changed before this moment was there when it was looked last, or is seen by the next look.
            changes.mark_unchanged();
            let _ = changes.changed().await;
        })
    }

    fn probes<'a>(&'a self, desired: &'a Desired) -> BoxFuture<'a, Vec<ProbeTarget>> {
        Box::pin(self.doors_to_probe(desired))
    }

    fn retire<'a>(
        &'a self,
        key: &'a EnvironmentKey,
        epoch: Epoch,
        app: &'a AppName,
        slot: &'a Slot,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(self.remove(key, epoch, app, slot))
    }

    fn live<'a>(&'a self, key: &'a EnvironmentKey) -> BoxFuture<'a, Result<Live, TargetError>> {
        Box::pin(self.standing(key))
    }
}

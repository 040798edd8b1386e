//! Targets and the prober: how a release gets live without losing a request.
//!
//! * [`Target`]: where releases run; [`local`] is the first.
//! * [`docker`]: containers on this host, behind the agent.
//! * [`kubernetes`]: a namespace of a cluster, behind its Service.
//! * [`drive()`]: brings one rollout from wherever it stands to its end.
//! * [`prober`]: requests through the flip.

pub mod docker;
pub mod drive;
mod health;
pub mod kubernetes;
pub mod local;
pub mod prober;
mod shared;

pub use drive::{DriveEnd, DriveError, Journal, JournalError, drive};
pub use shared::Public;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::domain::{
    ids::{AppName, Epoch, Slot},
    rollout::{Action, Desired, Effect, EnvironmentKey, Live, Observed},
};

/// Where releases run. All methods may be called again at any time: an effect that is there already is found, not
/// done twice.
pub trait Target: Send + Sync {
    /// Reads the live system. What can't be read is [`Observed::unreachable`], never a guess.
    fn observe<'a>(&'a self, desired: &'a Desired, epoch: Epoch) -> BoxFuture<'a, Observed>;

    /// Does one thing, fenced by the epoch. `stop` asks to give up early what can be done again (a smoke test); a
    /// `pre_deploy` is never cut by it.
    fn perform<'a>(
        &'a self,
        desired: &'a Desired,
        epoch: Epoch,
        action: &'a Action,
        stop: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Effect, TargetError>>;

    /// Resolves when the live system may have changed since the last [`Self::observe`]. May resolve for nothing.
    fn changed<'a>(&'a self, desired: &'a Desired) -> BoxFuture<'a, ()>;

    /// Where the prober sends its requests; only apps that have a probe and can be reached.
    fn probes<'a>(&'a self, desired: &'a Desired) -> BoxFuture<'a, Vec<ProbeTarget>>;

    /// Stops a slot that nobody needs any longer and forgets it. The live one is refused.
    fn retire<'a>(
        &'a self,
        key: &'a EnvironmentKey,
        epoch: Epoch,
        app: &'a AppName,
        slot: &'a Slot,
    ) -> BoxFuture<'a, Result<(), TargetError>>;

    /// What stands in an environment, whoever put it there.
    fn live<'a>(&'a self, key: &'a EnvironmentKey) -> BoxFuture<'a, Result<Live, TargetError>>;
}

/// Where an app is probed: through the same door as its users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeTarget {
    /// Whose.
    pub app: AppName,
    /// The listener.
    pub address: std::net::SocketAddr,
    /// For the `Host` header.
    pub host: String,
    /// Users come by https: the app is told so.
    pub https: bool,
    /// Path and query.
    pub path: String,
    /// Body to POST instead of a GET.
    pub body: Option<String>,
    /// Between two requests of one prober.
    pub interval: std::time::Duration,
}

/// Why a target did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Nothing is known about the effect: look again.
    #[error("the target can't be reached: {0}")]
    Unreachable(String),
    /// A later worker claimed the environment: do nothing more.
    #[error("a later worker owns this environment: {0}")]
    Stale(String),
    /// Refused or failed, with the reason for people.
    #[error("{0}")]
    Failed(String),
    /// Given up because it was asked to stop; nothing was left behind.
    #[error("stopped")]
    Stopped,
}

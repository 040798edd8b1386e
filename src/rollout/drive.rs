//! The driver: brings one rollout from wherever it stands to its end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Target, TargetError, prober::Prober};
use crate::{
    clock,
    domain::{
        ids::Epoch,
        rollout::{Action, Asked, Desired, End, Observed, Phase, ProbeFigures, Progress, Step, next},
    },
    failpoint,
};

/// Where progress is kept, and where wishes come from. One worker's hold on one rollout.
pub trait Journal: Send + Sync {
    /// The worker's claim. Epochs of one environment only grow, over all its rollouts and over the loss of the store
    /// (start above [`crate::domain::rollout::LiveApp::epoch`]).
    fn epoch(&self) -> Epoch;

    /// Writes the progress down, fenced by the epoch, and reads in the same transaction what is asked for: a
    /// cancellation that was accepted before the phase `switch` was written is seen before anything is switched. A
    /// cancellation is to be refused when the stored phase is past the switch ([`Phase::past_switch`]).
    ///
    /// # Errors
    /// [`JournalError::Fenced`] when a later worker has taken over; [`JournalError::Failed`] when it could not be
    /// written: then nothing is done either, and it is tried again.
    fn record<'a>(&'a self, progress: &'a Progress) -> BoxFuture<'a, Result<Asked, JournalError>>;

    /// What is asked for; changes wake the driver.
    fn asked(&self) -> watch::Receiver<Asked>;
}

/// Why a progress was not written down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// A later worker has taken over: stop at once.
    #[error("a later worker has taken over this rollout")]
    Fenced,
    /// The store failed.
    #[error("the progress could not be written down: {0}")]
    Failed(String),
}

/// How [`drive`] ended.
#[derive(Debug, Clone, PartialEq)]
pub enum DriveEnd {
    /// The rollout is over; the end is recorded in the progress.
    Ended(End, Box<Progress>),
    /// Asked to shut down: whoever drives next goes on from what is recorded.
    HandedBack(Box<Progress>),
}

/// Why [`drive`] gave up. The rollout stays where it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DriveError {
    /// A later worker has taken over, told by the store or by the target.
    #[error("a later worker has taken over: {0}")]
    Fenced(String),
    /// The store failed for longer than [`JOURNAL_PATIENCE`].
    #[error(transparent)]
    Journal(JournalError),
}

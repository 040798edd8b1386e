//! How the loops are woken: an event wakes exactly the loop that has work, so nothing is polled.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

/// One bell for each loop. A ring is remembered until the loop looks.
#[derive(Debug, Clone)]
pub struct Wake {
    /// A delivery was stored.
    pub deliveries: Arc<Notify>,
    /// A job was queued, or a place became free.
    pub jobs: Arc<Notify>,
    /// A run ended, a rollout was queued or asked something.
    pub rollouts: Arc<Notify>,
    /// Something must be shown.
    pub report: Arc<Notify>,
    /// A message was queued.
    pub messages: Arc<Notify>,
    /// Grows when something that pages show has changed.
    pub seen: Arc<watch::Sender<u64>>,
}

impl Default for Wake {
    fn default() -> Self {
        Self {
            deliveries: Arc::default(),
            jobs: Arc::default(),
            rollouts: Arc::default(),
            report: Arc::default(),
            messages: Arc::default(),
            seen: Arc::new(watch::Sender::new(0)),
        }
    }
}

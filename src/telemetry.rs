//! Logging and metrics. A failure is logged once, at its boundary, with its identifiers as fields.

use std::io::IsTerminal as _;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tracing_subscriber::{EnvFilter, filter::LevelFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error. `filter` is in `tracing`'s syntax, such as `info,switchover=debug`.
///
/// # Errors
/// When the filter can't be read; the message says where.
pub fn start(filter: &str, format: LogFormat) -> Result<(), String> {
    let asked = EnvFilter::try_new(filter).map_err(|e| format!("log filter {filter:?}: {e}"))?;
    // The HTTP library tells of each worker and signal. Whoever wants to read that names it.
    let much = asked.max_level_hint().is_none_or(|level| level >= LevelFilter::INFO);
    let filter = if much && !filter.contains("actix") {
        EnvFilter::try_new(format!("{filter},actix_server=warn")).unwrap_or(asked)
    } else {
        asked
    };
    let pretty = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = if pretty {
        registry.with(layer.with_target(false).with_ansi(std::io::stderr().is_terminal())).try_init()
    } else {
        registry.with(layer.json().flatten_event(true)).try_init()
    };
    started.map_err(|e| e.to_string())
}

/// One label: how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    /// In one word.
    pub result: String,
}

impl ResultLabel {
    /// From a word.
    #[must_use]
    pub fn of(result: &str) -> Self {
        Self { result: result.to_owned() }
    }
}

/// What `/metrics` shows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Deliveries by how they were answered: `new`, `known`, `signature`, `too_large`, `slow`, `busy`, `disk`,
    /// `invalid`.
    pub deliveries: Family<ResultLabel, Counter>,
    /// Seconds from the last byte of a delivery to its answer.
    pub intake_seconds: Histogram,
    /// Steps by outcome.
    pub steps: Family<ResultLabel, Counter>,
    /// Rollouts by outcome.
    pub rollouts: Family<ResultLabel, Counter>,
    /// Requests to GitHub by result.
    pub github: Family<ResultLabel, Counter>,
    /// Seconds from a delivery's arrival to the start of its first step.
    pub first_step_seconds: Histogram,
    /// Things that GitHub does not show as it should, yet.
    pub unshown: Gauge,
    /// Deliveries by state, from the store.
    pub stored: Family<ResultLabel, Gauge>,
    registry: std::sync::Arc<Registry>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("switchover");
        let buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let deliveries = Family::default();
        let intake_seconds = Histogram::new(buckets);
        let steps = Family::default();
        let rollouts = Family::default();
        let github = Family::default();
        let first_step_seconds = Histogram::new(buckets);
        let unshown = Gauge::default();
        let stored = Family::default();
        registry.register("deliveries", "Webhooks by how they were answered", Family::clone(&deliveries));
        registry.register("intake_seconds", "From a webhook's last byte to its answer", intake_seconds.clone());
        registry.register("steps", "Steps by outcome", Family::clone(&steps));
        registry.register("rollouts", "Rollouts by outcome", Family::clone(&rollouts));
        registry.register("github_writes", "Writes to GitHub by result", Family::clone(&github));
        registry.register("first_step_seconds", "From a webhook to its first step", first_step_seconds.clone());
        registry.register("unshown", "Things GitHub does not show as it should, yet", unshown.clone());
        registry.register("stored_deliveries", "Stored webhooks by state", Family::clone(&stored));
        Self {
            deliveries,
            intake_seconds,
            steps,
            rollouts,
            github,
            first_step_seconds,
            unshown,
            stored,
            registry: std::sync::Arc::new(registry),
        }
    }
}

impl Metrics {
    /// All of it in OpenMetrics text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

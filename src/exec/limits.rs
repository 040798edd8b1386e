//! What a step may use, where it runs in a container.

use std::time::Duration;

use super::journal::human;
use crate::domain::config::Resources;

/// What one step may use, whatever it asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepLimits {
    /// Bytes of memory, for the step and for each of its companions. None: what the machine has.
    pub memory: Option<u64>,
    /// Cores. None: all of them.
    pub cpu: Option<f64>,
    /// Processes and threads, for the step and for each of its companions.
    pub pids: u32,
    /// Bytes that its workspace and home may hold, with what it adds to caches and containers. None: what the disk has.
    pub disk: Option<u64>,
    /// Whether it reaches more than its companions.
    pub internet: bool,
    /// How long its companions may take to become ready. None: two minutes.
    pub ready: Option<Duration>,
}

impl Default for StepLimits {
    fn default() -> Self {
        Self { memory: None, cpu: None, pids: 4096, disk: Some(20 << 30), internet: true, ready: None }
    }
}

/// The limits of one step: what it asks for, within what the operator allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) memory: Option<u64>,
    pub(super) cpu: Option<f64>,
    pub(super) pids: u32,
}

impl Limits {
    pub(super) fn of(most: &StepLimits, asked: &Resources, cores: f64, say: impl Fn(&str)) -> Self {
        let memory = match (asked.memory, most.memory) {
            (Some(asked), Some(most)) if asked > most => {
                say(&format!("it asks for {} of memory; this server allows {}", human(asked), human(most)));
                Some(most)
            }
            (asked, most) => asked.or(most),
        };
        let most_cores = most.cpu.unwrap_or(cores).min(cores);
        let cpu = match asked.cpu {
            Some(asked) if asked > most_cores => {
                say(&format!("it asks for {asked} cores; this server allows {most_cores}"));
                Some(most_cores)
            }
            asked => asked.or(most.cpu.map(|_| most_cores)),
        };
        Self { memory, cpu, pids: most.pids }
    }
}

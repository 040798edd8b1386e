//! The loops: planner, runner, rollouts, reporter, sweeper; shutdown.

pub mod wake;

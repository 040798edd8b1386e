//! The loops: planner, runner, rollouts, reporter, sweeper; shutdown.

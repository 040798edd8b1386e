//! Types and rules of the field, with no I/O and no async.
//!
//! * [`ids`]: newtypes for everything that has an identity.
//! * [`answer`]: what others answer in words, read for its meaning.
//! * [`check`]: what stands on GitHub, Slack and in a comment, as plain data.
//! * [`config`]: the repository's `.github/switchover.yml`, parsed.
//! * [`event`]: what a webhook means to us, whatever GitHub called it.
//! * [`run`]: test runs, their jobs and steps.
//! * [`show`]: durations, the release line and other words for people.
//! * [`rollout`]: the pure blue/green state machine.

pub mod answer;
pub mod check;
pub mod config;
pub mod event;
pub mod ids;
pub mod planned;
pub mod rollout;
pub mod run;
pub mod show;

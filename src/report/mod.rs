//! The pure reporter: stored state (as plain [`view`]s) to check runs, deployments and messages.
//!
//! Nothing here reads a clock, a file or the network, so the same state always gives the same words: the
//! reporter's loop compares them with what was last shown and writes the difference.
//!
//! * [`view`]: what the functions below are told.
//! * [`step_check`]: one check run per step, such as `backend / test (pull_request)`.
//! * [`and_check`]: `switchover`, the one check to require.
//! * [`deploy_check`], [`deployment`]: a release.
//! * [`run_messages`], [`rollout_messages`]: Slack.
//! * [`redact`]: no secret reaches any of it.
//! * [`text`]: numbers, durations, and the escaping that makes outside text harmless.
//! * [`follow`]: when a changed check has to be a new check run.

mod all;
mod deploy;
mod doc;
mod draw;
mod message;
pub mod redact;
mod shapes;
mod step;
mod tests_of;
pub mod text;
pub mod view;
mod words;

pub use all::{and_check, told};
pub use deploy::{deploy_check, deployment};
pub use message::{SlackMessage, rollout_messages, run_messages};
pub use step::{conclusion, step_check};

use crate::domain::check::{CheckRun, CheckStatus};

/// The name of the one check to require.
pub const AND_CHECK: &str = "switchover";

/// Bytes of a check run's summary and of its text.
///
/// GitHub takes 65,535 characters each ("REST API endpoints for check runs"); the rest is headroom, and bytes are
/// counted because they are never fewer than characters, whatever a server counts.
pub const MARKDOWN_MAX: usize = 60_000;

/// Decides whether `wanted` may be written over `shown` or has to be a new check run, and names it accordingly.
///
/// A completed check run is not opened again, and annotations are only ever appended to one ("REST API endpoints
/// for check runs"), so a check that was completed and now is not, or whose annotations changed, becomes a new
/// check run of the same name; GitHub shows the newest. The new one's `external_id` is the old one's with the next
/// number behind a `#`. Everything else keeps the `external_id` of what is shown.
#[must_use]
pub fn follow(shown: Option<&CheckRun>, mut wanted: CheckRun) -> CheckRun {
    let Some(shown) = shown else { return wanted };
    let (base, number) = match shown.external_id.rsplit_once('#') {
        Some((base, number)) => (base, number.parse::<u32>().unwrap_or(1)),
        None => (shown.external_id.as_str(), 1),
    };
    if base != wanted.external_id {
        return wanted;
    }
    let over = shown.status == CheckStatus::Completed;
    let reopened = over && wanted.status != CheckStatus::Completed;
    let other_lines = !shown.annotations.is_empty() && shown.annotations != wanted.annotations;
    wanted.external_id = if reopened || other_lines {
        format!("{base}#{}", number.saturating_add(1))
    } else {
        shown.external_id.clone()
    };
    wanted
}

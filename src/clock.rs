//! The one place that reads the wall clock. Pure code takes `now` as an argument.

use jiff::Timestamp;

/// Now.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::now()
}

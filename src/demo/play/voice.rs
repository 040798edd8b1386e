//! What the play prints. Whoever reads it may be gone (`switchover demo | head`, a closed terminal): the play ends then as
//! at Ctrl-C, and takes along what it started.

use std::io::Write as _;

use tokio::sync::Notify;

/// Rings when nobody reads any more. There is one standard output, so there is one bell.
static GONE: Notify = Notify::const_new();

/// Prints a line.
pub fn line(text: &str) {
    if writeln!(std::io::stdout(), "{text}").is_err() {
        GONE.notify_one();
    }
}

/// Prints a line about what went wrong.
pub fn error(text: &str) {
    // Where else could it be told?
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Returns when nobody reads any more.
pub(super) async fn gone() {
    GONE.notified().await;
}

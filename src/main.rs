//! The `switchover` binary: command line and composition root.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: the supervisor of a step must be one thread with no files open.
    if std::env::args_os().nth(1).is_some_and(|arg| arg == "step-shim") {
        return switchover::exec::shim::shim_main();
    }
    switchover::failpoint::arm(std::env::var("SWITCHOVER_CRASH_AT").ok().as_deref());
    cli::run()
}

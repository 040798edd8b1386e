//! Places where an outside killer can stop the real binary.
//!
//! `SWITCHOVER_CRASH_AT=name` (or `name:3` for the third time) makes the process end by SIGKILL, with no unwinding
//! and no flushing, when it comes to that place: what a power cut or the kernel's out-of-memory killer would do.
//! Without the variable a hit costs one load.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

struct Armed {
    name: String,
    left: AtomicU32,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// Reads the variable; called once from `main`.
pub fn arm(value: Option<&str>) {
    let armed = value.map(|v| {
        let (name, nth) = v.rsplit_once(':').and_then(|(n, c)| Some((n, c.parse().ok()?))).unwrap_or((v, 1));
        Armed { name: name.to_owned(), left: AtomicU32::new(nth) }
    });
    let _ = ARMED.set(armed);
}

/// Marks a place. Names are `room.action.moment`, such as `reporter.check.after_effect`.
pub fn hit(name: &str) {
    let Some(Some(armed)) = ARMED.get() else { return };
    if armed.name == name && armed.left.fetch_sub(1, Ordering::SeqCst) == 1 {
        eprintln!("failpoint {name}: ending by SIGKILL");
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    }
}

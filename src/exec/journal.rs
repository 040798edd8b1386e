//! The log of a step that runs in a container, as its executor writes it.

use std::{
    fs::File,
    io,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use super::log::LogWriter;

/// The log of one step, with its clock.
pub(super) struct Journal {
    writer: Mutex<LogWriter<File>>,
    pub(super) begin: Instant,
}

impl Journal {
    /// Begins the log at `path`. Time is counted from now on.
    pub(super) fn new(path: &Path, output_limit: u64) -> io::Result<Self> {
        let writer = Mutex::new(LogWriter::new(File::create(path)?, output_limit));
        Ok(Self { writer, begin: Instant::now() })
    }

    pub(super) fn ms(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn with<T>(&self, act: impl FnOnce(&mut LogWriter<File>, u64) -> T) -> T {
        act(&mut self.writer.lock().unwrap_or_else(PoisonError::into_inner), self.ms())
    }

    /// A line of our own. A full disk must not end the step.
    pub(super) fn note(&self, text: &str) {
        let _ = self.with(|log, ms| log.note(text, ms));
    }

    /// What the step printed.
    pub(super) fn feed(&self, bytes: &[u8]) {
        let _ = self.with(|log, ms| log.feed(bytes, ms));
    }
}

/// As people say it: `1.5 GiB`.
pub(super) fn human(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let (unit, size) = UNITS.into_iter().find(|(_, size)| bytes >= *size).unwrap_or(("bytes", 1));
    let tenths = u128::from(bytes) * 10 / u128::from(size);
    if tenths % 10 == 0 { format!("{} {unit}", tenths / 10) } else { format!("{}.{} {unit}", tenths / 10, tenths % 10) }
}

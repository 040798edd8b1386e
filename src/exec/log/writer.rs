//! Turns what a step prints into records.

use std::io::{self, Write};

use super::{LINE, OWN};

/// Writes the records of one step. Time is handed in, as milliseconds since the step began.
#[derive(Debug)]
pub struct LogWriter<W> {
    out: W,
    limit: u64,
    printed: u64,
    kept: u64,
    truncated: bool,
    lost: bool,
    line: Vec<u8>,
}

impl<W: Write> LogWriter<W> {
    /// A writer that keeps about `limit` bytes of output.
    pub fn new(out: W, limit: u64) -> Self {
        Self { out, limit, printed: 0, kept: 0, truncated: false, lost: false, line: Vec::new() }
    }

    /// Takes what was printed. Lines that ended are written at once.
    ///
    /// # Errors
    /// Those of the file. The bytes are counted all the same, and what comes later is tried again.
    pub fn feed(&mut self, mut bytes: &[u8], ms: u64) -> io::Result<()> {
        self.printed = self.printed.saturating_add(bytes.len() as u64);
        let mut records = Vec::with_capacity(bytes.len() + 64);
        while !bytes.is_empty() && !self.truncated {
            let room = LINE - self.line.len();
            let end = bytes.iter().take(room + 1).position(|b| *b == b'\n');
            let taken = end.unwrap_or(bytes.len().min(room));
            self.line.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken + usize::from(end.is_some())..];
            if end.is_some() || self.line.len() >= LINE && !bytes.is_empty() {
                self.end_line(&mut records, ms);
            }
        }
        self.write(&records)
    }

    /// What the file refuses (a full disk) is dropped output like that past the limit.
    fn write(&mut self, records: &[u8]) -> io::Result<()> {
        self.out.write_all(records).inspect_err(|_| self.lost = true)
    }

    fn end_line(&mut self, records: &mut Vec<u8>, ms: u64) {
        self.kept += self.line.len() as u64 + 1;
        if self.kept > self.limit {
            self.truncated = true;
            self.line.clear();
            record(
                records,
                ms,
                format!("{OWN}the output limit of {} bytes is reached; the rest is not kept", self.limit).as_bytes(),
            );
            return;
        }
        record(records, ms, &self.line);
        self.line.clear();
    }

    /// Writes a line of the supervisor's own.
    ///
    /// # Errors
    /// Those of the file.
    pub fn note(&mut self, text: &str, ms: u64) -> io::Result<()> {
        let mut records = Vec::new();
        if !self.line.is_empty() && !self.truncated {
            self.end_line(&mut records, ms);
        }
        record(&mut records, ms, format!("{OWN}{text}").as_bytes());
        self.write(&records)
    }

    /// Writes a last line that did not end. To be called once, at the end.
    ///
    /// # Errors
    /// Those of the file.
    pub fn finish(&mut self, ms: u64) -> io::Result<()> {
        let mut records = Vec::new();
        if !self.line.is_empty() && !self.truncated {
            self.end_line(&mut records, ms);
        }
        self.write(&records)?;
        self.out.flush()
    }

    /// Bytes that were printed, kept or not.
    #[must_use]
    pub fn printed(&self) -> u64 {
        self.printed
    }

    /// Whether output was dropped.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.truncated || self.lost
    }
}

fn record(records: &mut Vec<u8>, ms: u64, line: &[u8]) {
    records.extend_from_slice(ms.to_string().as_bytes());
    records.push(b'\t');
    records.extend_from_slice(line);
    records.push(b'\n');
}

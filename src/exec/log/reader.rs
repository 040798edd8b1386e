//! Reads records back, also while they are being written.

use std::{
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::{Path, PathBuf},
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe::Receiver;

use super::LINE;

/// One line of a step's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Its number, from 0.
    pub n: usize,
    /// Milliseconds since the step began.
    pub ms: u64,
    /// What was printed; ANSI sequences are still in it.
    pub text: String,
}

/// A log file, and an index of it that grows as the file does: one mark every [`STRIDE`] lines.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    file: Option<File>,
    /// Where lines 0, `STRIDE`, 2 × `STRIDE`, … begin.
    marks: Vec<u64>,
    /// Lines that have ended.
    total: usize,
    /// Where the line after them begins.
    scanned: u64,
    watch: Option<Receiver>,
}

const STRIDE: usize = 512;
const CHUNK: usize = 256 * 1024;
/// A record's time has at most this many bytes.
const TIME: usize = 24;

impl LogReader {
    /// A reader of the log at `path`. A file that is not there yet has no lines.
    ///
    /// # Errors
    /// Those of opening and reading, but for "not found".
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut reader =
            Self { path: path.to_owned(), file: None, marks: Vec::new(), total: 0, scanned: 0, watch: None };
        reader.refresh()?;
        Ok(reader)
    }

    /// Takes in what was appended since; answers how many whole lines there are.
    ///
    /// # Errors
    /// Those of reading.
    pub fn refresh(&mut self) -> io::Result<usize> {
        let file = match &self.file {
            Some(file) => file,
            None => match File::open(&self.path) {
                Ok(file) => self.file.insert(file),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
                Err(e) => return Err(e),
            },
        };
        let mut at = self.scanned;
        let mut buffer =
            vec![0; CHUNK.min(usize::try_from(file.metadata()?.len().saturating_sub(at)).unwrap_or(CHUNK))];
        while !buffer.is_empty() {
            let n = file.read_at(&mut buffer, at)?;
            if n == 0 {
                break;
            }
            for (i, _) in buffer[..n].iter().enumerate().filter(|(_, b)| **b == b'\n') {
                if self.total.is_multiple_of(STRIDE) {
                    self.marks.push(self.scanned);
                }
                self.total += 1;
                self.scanned = at + i as u64 + 1;
            }
            at += n as u64;
        }
        Ok(self.total)
    }

    /// How many whole lines there were at the last look.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }

    /// Up to `count` lines from line `from` on.
    ///
    /// # Errors
    /// Those of reading.
    pub fn lines(&mut self, from: usize, count: usize) -> io::Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        self.each(from, count, |line| lines.push(line))?;
        Ok(lines)
    }

    /// The last `count` lines.
    ///
    /// # Errors
    /// Those of reading.
    pub fn tail(&mut self, count: usize) -> io::Result<Vec<LogLine>> {
        let total = self.refresh()?;
        self.lines(total.saturating_sub(count), count)
    }

    /// Hands up to `count` lines from line `from` on to `take`, one at a time.
    ///
    /// # Errors
    /// Those of reading.
    pub fn each(&mut self, from: usize, count: usize, mut take: impl FnMut(LogLine)) -> io::Result<()> {
        let total = self.refresh()?;
        let (Some(file), Some(mark)) = (&self.file, self.marks.get(from / STRIDE)) else { return Ok(()) };
        let end = from.saturating_add(count).min(total);
        let (mut n, mut at) = (from - from % STRIDE, *mark);
        let mut pending: Vec<u8> = Vec::new();
        let mut buffer = vec![0; CHUNK];
        while n < end {
            let size = file.read_at(&mut buffer, at)?;
            if size == 0 {
                break;
            }
            at += size as u64;
            let mut rest = &buffer[..size];
            while let Some(stop) = rest.iter().position(|b| *b == b'\n')
                && n < end
            {
                append(&mut pending, &rest[..stop]);
                rest = &rest[stop + 1..];
                if n >= from {
                    take(parse(n, &pending));
                }
                pending.clear();
                n += 1;
            }
            append(&mut pending, rest);
        }
        Ok(())
    }

    /// Waits until the file has more whole lines than at the last look. Dropped, it loses nothing.
    ///
    /// # Errors
    /// Those of watching and reading; the file's folder must exist.
    pub async fn changed(&mut self) -> io::Result<()> {
        let before = self.total;
        if self.watch.is_none() {
            let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
            let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            inotify
                .add_watch(folder, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)?;
            // To tokio a pipe is a file that becomes readable; so is this.
            self.watch = Some(Receiver::from_owned_fd_unchecked(OwnedFd::from(inotify))?);
        }
        loop {
            if self.refresh()? > before {
                return Ok(());
            }
            let Some(watch) = &self.watch else { return Ok(()) };
            watch.readable().await?;
            // Events are only a reason to look: which ones they are does not matter.
            match watch.try_read(&mut [0; 4096]) {
                Err(e) if !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return Err(e),
                _ => {}
            }
        }
    }
}

/// A record of ours is never longer; in a damaged file the rest of a line is dropped.
fn append(pending: &mut Vec<u8>, bytes: &[u8]) {
    let room = (LINE + TIME).saturating_sub(pending.len());
    pending.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

fn parse(n: usize, record: &[u8]) -> LogLine {
    let time = record.iter().take(TIME).position(|b| *b == b'\t');
    let ms = time.and_then(|t| std::str::from_utf8(&record[..t]).ok()?.parse().ok());
    // A record without a time is not of ours; its text is shown all the same.
    let (ms, bytes) = match (ms, time) {
        (Some(ms), Some(tab)) => (ms, &record[tab + 1..]),
        _ => (0, record),
    };
    LogLine { n, ms, text: clean(bytes) }
}

/// What a terminal would show of the line, as text.
fn clean(bytes: &[u8]) -> String {
    let shown = bytes.split(|b| *b == b'\r').rev().find(|part| !part.is_empty()).unwrap_or_default();
    let text = String::from_utf8_lossy(shown);
    if text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\x1b')) {
        text.chars().map(|c| if c.is_control() && !matches!(c, '\t' | '\x1b') { '\u{FFFD}' } else { c }).collect()
    } else {
        text.into_owned()
    }
}

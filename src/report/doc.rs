//! Markdown within its limit.

use std::fmt::Write as _;

use super::text::number;

/// Markdown that grows block by block and never past its limit: a block that does not fit is left out whole, so no
/// fence, table or character is ever cut apart.
#[derive(Debug)]
pub(super) struct Doc {
    out: String,
    limit: usize,
    left_out: usize,
}

/// Kept free for the line that says that something was left out.
const NOTE_ROOM: usize = 200;

impl Doc {
    /// An empty document that will hold at most [`super::MARKDOWN_MAX`] bytes, of which `reserve` are kept for what
    /// [`Self::finish`] puts at the end.
    #[must_use]
    pub(super) fn new(reserve: usize) -> Self {
        Self { out: String::new(), limit: super::MARKDOWN_MAX.saturating_sub(reserve + NOTE_ROOM), left_out: 0 }
    }

    /// Bytes that are still free.
    #[must_use]
    pub(super) fn room(&self) -> usize {
        self.limit.saturating_sub(self.out.len() + 2)
    }

    /// Adds a block if it fits.
    pub(super) fn block(&mut self, block: &str) {
        if block.is_empty() {
            return;
        }
        if block.len() > self.room() {
            self.left_out += 1;
            return;
        }
        if !self.out.is_empty() {
            self.out.push_str("\n\n");
        }
        self.out.push_str(block);
    }

    /// Adds a heading and as many of the lines under it as fit (and at most `most`), and says how many more there are.
    pub(super) fn list(&mut self, heading: &str, lines: &[String], most: usize) {
        self.rows(heading, "", lines, most);
    }

    /// The same for the rows of a table; `header` holds its first two lines.
    pub(super) fn rows(&mut self, heading: &str, header: &str, rows: &[String], most: usize) {
        if rows.is_empty() {
            return;
        }
        let mut block = format!("{heading}\n\n{header}").trim_start_matches('\n').to_owned();
        let room = self.room().saturating_sub(60);
        let mut shown = 0;
        for row in rows.iter().take(most) {
            if block.len() + 1 + row.len() > room {
                break;
            }
            if !block.is_empty() && !block.ends_with('\n') {
                block.push('\n');
            }
            block.push_str(row);
            shown += 1;
        }
        if shown < rows.len() {
            let _ = write!(block, "\n\n… and {} more.", number((rows.len() - shown) as u64));
        }
        self.block(&block);
    }

    /// The text, with `end` as its last block.
    #[must_use]
    pub(super) fn finish(mut self, end: &str) -> String {
        if self.left_out > 0 {
            self.out.push_str("\n\nSomething was left out here for length; the log page has all of it.");
        }
        if !end.is_empty() {
            if !self.out.is_empty() {
                self.out.push_str("\n\n");
            }
            self.out.push_str(end);
        }
        self.out
    }
}

//! A step's log on a page: lines with numbers that are links, and the windows that the script asks for.

use serde::{Deserialize, Serialize};

use super::{
    ansi::{self, Span},
    pieces::Markup,
};
use crate::domain::show;

/// Lines that a page carries for readers without script.
pub const TAIL: usize = 500;

/// The most lines that one window may ask for.
pub const MAX_WINDOW: usize = 2_000;

/// The most matches that a search answers.
pub const MAX_MATCHES: usize = 5_000;

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Its number, from 1.
    pub n: usize,
    /// Milliseconds since the step began.
    pub ms: u64,
    /// As it was printed, without its end.
    pub text: String,
}

/// A part of a log, as the store of logs gives it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogWindow {
    /// Lines so far in all of it.
    pub total: usize,
    /// The asked lines, in order.
    pub lines: Vec<LogLine>,
    /// No more will come.
    pub done: bool,
}

/// A line as the script gets it.
#[derive(Debug, Serialize)]
pub(crate) struct WireLine {
    n: usize,
    /// Milliseconds, in words.
    t: String,
    /// Styled runs.
    s: Vec<Span>,
}

/// A window as the script gets it.
#[derive(Debug, Serialize)]
pub(crate) struct WireWindow {
    total: usize,
    done: bool,
    lines: Vec<WireLine>,
}

impl From<&LogWindow> for WireWindow {
    fn from(window: &LogWindow) -> Self {
        let lines = window
            .lines
            .iter()
            .map(|l| WireLine { n: l.n, t: show::duration(l.ms), s: ansi::spans(&l.text) })
            .collect();
        Self { total: window.total, done: window.done, lines }
    }
}

/// The lines as HTML. `anchor` is the step's, see [`show::log_anchor`]. `found` is for the matches of a search: what
/// was looked for (see [`needle`]), and the log's address, where the lines around a match stand.
#[must_use]
pub fn lines_html(anchor: &str, lines: &[LogLine], found: Option<(&str, &str)>) -> Markup {
    let anchor = escape(anchor);
    let mut html = String::with_capacity(lines.len() * 128);
    for line in lines {
        let (n, at) = (line.n, show::duration(line.ms));
        let base =
            found.map(|(_, href)| format!("{}?from={}", escape(href), n.saturating_sub(20).max(1))).unwrap_or_default();
        html.push_str(&format!(
            r##"<div class="l" id="{anchor}-L{n}"><a href="{base}#{anchor}-L{n}" title="after {at}">{n}</a><code>"##
        ));
        for Span(text, classes) in ansi::spans(&line.text) {
            let text = marked(&text, found.map(|(needle, _)| needle));
            if classes.is_empty() {
                html.push_str(&text);
            } else {
                html.push_str(&format!(r#"<span class="{classes}">{text}</span>"#));
            }
        }
        html.push_str("</code></div>\n");
    }
    Markup::trusted(html)
}

/// Where `needle` (lower case) begins and ends in `text`, letters of either case alike. Characters whose lower case
/// has another length are compared as they are, so the places always lie on character boundaries.
#[must_use]
pub fn find(text: &str, needle: &str) -> Vec<(usize, usize)> {
    if needle.is_empty() {
        return Vec::new();
    }
    let lowered: String = text.chars().map(lower).collect();
    lowered.match_indices(needle).map(|(start, found)| (start, start + found.len())).collect()
}

/// How a search writes what it looks for.
#[must_use]
pub fn needle(text: &str) -> String {
    text.chars().take(200).map(lower).collect()
}

fn lower(c: char) -> char {
    let mut lowered = c.to_lowercase();
    match (lowered.next(), lowered.next()) {
        (Some(l), None) if l.len_utf8() == c.len_utf8() => l,
        _ => c,
    }
}

fn marked(text: &str, needle: Option<&str>) -> String {
    let Some(needle) = needle else { return escape(text) };
    let (mut html, mut at) = (String::new(), 0);
    for (start, end) in find(text, needle) {
        html.push_str(&escape(&text[at..start]));
        html.push_str(&format!("<mark>{}</mark>", escape(&text[start..end])));
        at = end;
    }
    html.push_str(&escape(&text[at..]));
    html
}

/// Text as HTML, safe in content and in quoted attributes.
#[must_use]
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

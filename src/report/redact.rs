//! Secrets never reach a log, a check or a comment.
//!
//! A [`Redactor`] knows the values that were granted to a step and takes them out of any text, in plain form and in
//! the forms that tools print them in (base64 at any alignment, URL-encoded, JSON-escaped, and as this crate escapes
//! markdown); it also takes out what has the shape of a token, wherever it came from. Use it three times: on the
//! stream of a log ([`Redactor::stream`]), on a whole view before anything is cut or escaped ([`Redactor::run`],
//! [`Redactor::rollout`]), and on what is about to be sent, as the last net ([`Redactor::check`]).
//!
//! The mark that takes a secret's place has no character in common with any of the patterns, so what is left can't
//! come to be a secret by being put together again.

use std::{collections::HashSet, fmt, ops::Range, sync::Arc};

use base64::Engine as _;

use super::{
    shapes, text,
    view::{RolloutView, RunView},
};
use crate::domain::{
    check::CheckRun,
    run::{StepEnd, TestReport},
};

/// Values shorter than this are not searched for: they would blacken half of every log.
pub const SHORTEST: usize = 4;

/// A line is held back at most this long (bytes) before its beginning is given out.
const LONGEST_LINE: usize = 64 * 1024;
/// What is kept of such a line when nothing in it could be a boundary.
const LINE_KEEP: usize = 8 * 1024;

/// Takes secrets out of text. Cheap to clone; its `Debug` shows nothing.
#[derive(Clone)]
pub struct Redactor(Arc<Patterns>);

struct Patterns {
    /// Longest first, by first byte.
    by_first: Vec<Vec<Box<[u8]>>>,
    longest: usize,
    mark: String,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor(…)")
    }
}

impl Default for Redactor {
    fn default() -> Self {
        Self::new::<&str>([])
    }
}

impl Redactor {
    /// Knows these values from now on. Each line of a value of several lines counts on its own too, since logs are
    /// cut into lines. Values (and lines) below [`SHORTEST`] bytes are left out.
    #[must_use]
    pub fn new<S: AsRef<str>>(secrets: impl IntoIterator<Item = S>) -> Self {
        let mut forms = HashSet::new();
        for secret in secrets {
            let secret = secret.as_ref();
            add_forms(&mut forms, secret.trim());
            for line in secret.lines() {
                add_forms(&mut forms, line.trim());
            }
        }
        let mut by_first: Vec<Vec<Box<[u8]>>> = vec![Vec::new(); 256];
        let mut longest = 0;
        let mark = mark_for(&forms);
        for form in forms {
            longest = longest.max(form.len());
            by_first[usize::from(form.as_bytes()[0])].push(form.into_bytes().into_boxed_slice());
        }
        for bucket in &mut by_first {
            bucket.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        }
        Self(Arc::new(Patterns { by_first, longest, mark }))
    }

    /// What stands in a secret's place: `***`, unless a secret has a star in it.
    #[must_use]
    pub fn mark(&self) -> &str {
        &self.0.mark
    }

    /// The text without secrets.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        self.masked(text, &self.found(text).ranges)
    }

    /// For a text that comes in pieces, cut anywhere.
    #[must_use]
    pub fn stream(&self) -> StreamRedactor {
        StreamRedactor { redactor: self.clone(), bytes: Vec::new(), buffer: String::new(), scan_at: 0 }
    }

    /// Takes secrets out of all that a check run shows.
    pub fn check(&self, check: &mut CheckRun) {
        self.change(&mut check.title);
        self.change(&mut check.summary);
        self.option(&mut check.text);
        for annotation in &mut check.annotations {
            self.change(&mut annotation.message);
            self.option(&mut annotation.title);
            self.option(&mut annotation.raw_details);
        }
    }

    /// Takes secrets out of all outside text of a run. Call it before the view is reported: a secret that was
    /// already cut in two is not found.
    pub fn run(&self, run: &mut RunView) {
        for text in [&mut run.branch, &mut run.message, &mut run.author] {
            self.change(text);
        }
        self.option(&mut run.base_ref);
        self.option(&mut run.parked);
        self.all(&mut run.notes);
        self.all(&mut run.changes);
        self.all(&mut run.conflicts);
        for mistake in &mut run.config_mistakes {
            self.change(&mut mistake.message);
            self.option(&mut mistake.expected);
            self.option(&mut mistake.hint);
            self.option(&mut mistake.source);
        }
        for step in run.jobs.iter_mut().flat_map(|job| &mut job.steps) {
            self.lines(&mut step.last_lines);
            self.option(&mut step.note);
            for report in [&mut step.report, &mut step.base_report].into_iter().flatten() {
                self.report(report);
            }
            if let Some(StepEnd::NotStarted(why) | StepEnd::Untaken(why)) = step.result.as_mut().map(|r| &mut r.end) {
                self.change(why);
            }
        }
    }

    /// The same for a rollout.
    pub fn rollout(&self, rollout: &mut RolloutView) {
        let texts = [&mut rollout.commit_message, &mut rollout.author, &mut rollout.started_by, &mut rollout.message];
        for text in texts {
            self.change(text);
        }
        self.lines(&mut rollout.last_lines);
        self.all(&mut rollout.notes);
        for phase in &mut rollout.phases {
            self.option(&mut phase.note);
        }
        if let Some(probe) = &mut rollout.probe {
            self.all(&mut probe.failures);
        }
        if let Some(goes) = &mut rollout.goes_live {
            for commit in &mut goes.commits {
                self.change(&mut commit.message);
                self.change(&mut commit.author);
            }
            for pull in &mut goes.pulls {
                self.change(&mut pull.title);
                self.change(&mut pull.author);
            }
        }
        if let Some(hold) = &mut rollout.hold {
            self.change(&mut hold.by);
            self.change(&mut hold.reason);
        }
    }

    /// Takes secrets out of a test report.
    pub fn report(&self, report: &mut TestReport) {
        self.all(&mut report.problems);
        for case in &mut report.cases {
            self.change(&mut case.suite);
            self.change(&mut case.name);
            self.option(&mut case.message);
            self.option(&mut case.trace);
        }
    }

    fn change(&self, text: &mut String) {
        let found = self.found(text);
        if !found.ranges.is_empty() {
            *text = self.masked(text, &found.ranges);
        }
    }

    fn option(&self, text: &mut Option<String>) {
        if let Some(text) = text {
            self.change(text);
        }
    }

    fn all(&self, texts: &mut [String]) {
        for text in texts {
            self.change(text);
        }
    }

    /// Lines that belong together: a value of several short lines is found across them.
    fn lines(&self, lines: &mut Vec<String>) {
        let joined = lines.join("\n");
        let found = self.found(&joined);
        if !found.ranges.is_empty() {
            *lines = self.masked(&joined, &found.ranges).split('\n').map(str::to_owned).collect();
        }
    }

    /// All that must go: sorted, apart from each other.
    fn found(&self, text: &str) -> Found {
        let shapes::Shapes { mut ranges, open_key } = shapes::find(text);
        let bytes = text.as_bytes();
        let patterns = &*self.0;
        if patterns.longest > 0 {
            for at in 0..bytes.len() {
                let rest = &bytes[at..];
                let hit = patterns.by_first[usize::from(bytes[at])].iter().find(|p| rest.starts_with(p));
                if let Some(pattern) = hit {
                    ranges.push(at..at + pattern.len());
                }
            }
        }
        ranges.sort_unstable_by_key(|r| (r.start, r.end));
        let mut joined: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        Found { ranges: joined, open_key }
    }

    fn masked(&self, text: &str, ranges: &[Range<usize>]) -> String {
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        for range in ranges {
            out.push_str(&text[at..range.start]);
            out.push_str(&self.0.mark);
            at = range.end;
        }
        out.push_str(&text[at..]);
        out
    }

    /// Where the text ends in the beginning of a secret.
    fn unfinished(&self, text: &str) -> Option<usize> {
        let bytes = text.as_bytes();
        let from = bytes.len().saturating_sub(self.0.longest.saturating_sub(1));
        (from..bytes.len()).find(|&at| {
            let rest = &bytes[at..];
            self.0.by_first[usize::from(bytes[at])].iter().any(|p| p.len() > rest.len() && p.starts_with(rest))
        })
    }
}

struct Found {
    ranges: Vec<Range<usize>>,
    open_key: Option<usize>,
}

/// Redacts a text that comes in pieces. What may still become a secret is held back: at most the line that is not
/// ended yet, the beginning of a value of several lines, and the inside of a private key.
#[derive(Debug)]
pub struct StreamRedactor {
    redactor: Redactor,
    /// The beginning of a character.
    bytes: Vec<u8>,
    buffer: String,
    /// Not looked at again before it has this many bytes: an open key would make each line a look at all before it.
    scan_at: usize,
}

impl StreamRedactor {
    /// Takes the next piece and gives out what is sure by now. What is not UTF-8 becomes `U+FFFD`.
    pub fn push(&mut self, piece: &[u8]) -> String {
        let old = self.buffer.len();
        self.bytes.extend_from_slice(piece);
        self.decode(false);
        let new = &self.buffer[old..];
        let line_ended = new.contains('\n') || (self.scan_at > 0 && self.buffer.len() >= self.scan_at);
        if !line_ended && self.buffer.len() < LONGEST_LINE {
            return String::new();
        }
        if self.buffer.len() < self.scan_at && !new.contains("-----END") {
            return String::new();
        }
        self.give(false)
    }

    /// Gives out what was held back. The stream may be used again for another text.
    pub fn finish(&mut self) -> String {
        self.decode(true);
        self.give(true)
    }

    fn decode(&mut self, all: bool) {
        let mut rest: &[u8] = &self.bytes;
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.buffer.push_str(text);
                    rest = &[];
                    break;
                }
                Err(e) => {
                    let (good, bad) = rest.split_at(e.valid_up_to());
                    self.buffer.push_str(&String::from_utf8_lossy(good));
                    match e.error_len() {
                        Some(length) => {
                            self.buffer.push('\u{fffd}');
                            rest = &bad[length..];
                        }
                        None if all => {
                            self.buffer.push('\u{fffd}');
                            rest = &[];
                            break;
                        }
                        None => {
                            rest = bad;
                            break;
                        }
                    }
                }
            }
        }
        self.bytes = rest.to_vec();
    }

    fn give(&mut self, all: bool) -> String {
        self.scan_at = 0;
        let found = self.redactor.found(&self.buffer);
        let length = self.buffer.len();
        let mut cut = length;
        if !all {
            cut = match self.buffer.rfind('\n') {
                Some(end) => end + 1,
                None => match self.buffer.rfind(|c: char| !shapes::in_token(c)) {
                    Some(at) if at > 0 => at,
                    _ => self.buffer.floor_char_boundary(length.saturating_sub(LINE_KEEP)),
                },
            };
            if let Some(key) = found.open_key.filter(|key| length - key < shapes::KEY_MAX) {
                cut = cut.min(key);
                self.scan_at = length + 4096;
            }
            if let Some(at) = self.redactor.unfinished(&self.buffer) {
                cut = cut.min(at);
            }
            // Never through the middle of something found.
            if let Some(range) = found.ranges.iter().find(|r| r.start < cut && cut < r.end) {
                // Something this long is no token, only made to look like one: memory stays bounded.
                cut = if range.len() > 2 * LONGEST_LINE { range.end } else { range.start };
            }
            if length - cut > LONGEST_LINE / 2 {
                self.scan_at = self.scan_at.max(length + LINE_KEEP);
            }
        }
        let ranges: Vec<_> = found.ranges.into_iter().take_while(|r| r.end <= cut).collect();
        let out = self.redactor.masked(&self.buffer[..cut], &ranges);
        self.buffer.drain(..cut);
        self.scan_at = self.scan_at.saturating_sub(cut);
        out
    }
}

/// The value and the forms that tools print it in.
fn add_forms(forms: &mut HashSet<String>, value: &str) {
    if value.len() < SHORTEST {
        return;
    }
    let mut add = |form: String| {
        if form.len() >= SHORTEST {
            forms.insert(form);
        }
    };
    add(value.to_owned());
    // JSON and debug output.
    if let Ok(json) = serde_json::to_string(value) {
        add(json.trim_matches('"').to_owned());
    }
    // As we write it ourselves, should it come past the views.
    add(text::plain(value));
    add(text::slack(value, usize::MAX));
    // RFC 3986, encodeURIComponent, form fields.
    for keep in ["-._~", "-._~!'()*", "-._*"] {
        for upper in [true, false] {
            let encoded = percent(value, keep, upper);
            add(encoded.replace("%20", "+"));
            add(encoded);
        }
    }
    // Base64 of something that has the value inside, such as `user:password`: for each alignment the characters
    // that the value alone decides.
    for before in 0..3usize {
        let mut bytes = vec![0u8; before];
        bytes.extend_from_slice(value.as_bytes());
        let own = before.div_ceil(3) + before..bytes.len() * 8 / 6;
        for engine in
            [&base64::engine::general_purpose::STANDARD_NO_PAD, &base64::engine::general_purpose::URL_SAFE_NO_PAD]
        {
            let encoded = engine.encode(&bytes);
            // Tools break long lines; each is a part that must not stay.
            if before == 0 {
                for width in [64, 76] {
                    let mut at = 0;
                    while encoded.len() - at > width {
                        add(encoded[at..at + width].to_owned());
                        at += width;
                    }
                    add(encoded[at..].to_owned());
                }
            }
            add(encoded[own.clone()].to_owned());
        }
    }
}

fn percent(value: &str, keep: &str, upper: bool) -> String {
    let mut out = String::with_capacity(value.len() * 3);
    for b in value.bytes() {
        if b.is_ascii_alphanumeric() || keep.as_bytes().contains(&b) {
            out.push(char::from(b));
        } else if upper {
            out.push_str(&format!("%{b:02X}"));
        } else {
            out.push_str(&format!("%{b:02x}"));
        }
    }
    out
}

/// A mark that shares no character with any form.
fn mark_for(forms: &HashSet<String>) -> String {
    let used: HashSet<char> = forms.iter().flat_map(|f| f.chars()).collect();
    let private_use = '\u{e000}'..='\u{f8ff}';
    let sign = ['*', '•', '█', '▒'].into_iter().chain(private_use).find(|c| !used.contains(c)).unwrap_or('*');
    String::from_iter([sign; 3])
}

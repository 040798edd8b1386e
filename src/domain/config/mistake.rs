//! A mistake in a file: where, what, what was expected; and how it is shown.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::tree::At;

/// The most mistakes that are told at once.
pub const MAX_MISTAKES: usize = 50;

/// One thing that is wrong in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistake {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// How many characters of the line are meant, at least 1.
    pub length: u32,
    /// The key as a dotted path, such as `apps.backend.steps.test.timeout`; empty for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What would have been right.
    pub expected: String,
    /// The nearest right word.
    pub hint: Option<String>,
}

impl Mistake {
    /// One without a hint.
    #[must_use]
    pub fn new(at: At, key: &str, message: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            line: at.line,
            column: at.column,
            length: at.length.max(1),
            key: key.to_owned(),
            message: message.into(),
            expected: expected.into(),
            hint: None,
        }
    }

    /// The same with the nearest right word.
    #[must_use]
    pub fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    /// In one line, for an annotation: what, what was expected, the nearest right word.
    #[must_use]
    pub fn sentence(&self) -> String {
        let mut text = self.message.clone();
        if !self.expected.is_empty() {
            let _ = write!(text, ": expected {}", self.expected);
        }
        if let Some(hint) = &self.hint {
            let _ = write!(text, "; did you mean `{hint}`?");
        }
        text
    }
}

/// A text from outside as it may stand in a message: in backticks, cut, with nothing that acts on a terminal.
#[must_use]
pub fn shown(text: &str) -> String {
    format!("`{}`", cut(text, 60))
}

/// The same without the backticks, for what another library says.
#[must_use]
pub fn plain(text: &str) -> String {
    cut(text, 160)
}

fn cut(text: &str, most: usize) -> String {
    let mut out: String = mask(text).chars().take(most).map(printable).collect();
    if text.chars().nth(most).is_some() {
        out.push('…');
    }
    out
}

/// Replaces what would act on a terminal or turn the reading direction (CVE-2021-42574, "Trojan Source").
fn printable(c: char) -> char {
    match c {
        '\t' | '\n' | '\r' => ' ',
        c if c.is_control() => '\u{FFFD}',
        '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}' => {
            '\u{FFFD}'
        }
        c => c,
    }
}

/// How well-known secrets begin, and what they are ("Token formats" in GitHub's, AWS's, Slack's and Stripe's pages).
const SECRETS: [(&str, &str); 16] = [
    ("ghp_", "a GitHub token"),
    ("gho_", "a GitHub token"),
    ("ghu_", "a GitHub token"),
    ("ghs_", "a GitHub token"),
    ("ghr_", "a GitHub token"),
    ("github_pat_", "a GitHub token"),
    ("glpat-", "a GitLab token"),
    ("xoxb-", "a Slack token"),
    ("xoxp-", "a Slack token"),
    ("hooks.slack.com/services/T", "a Slack webhook"),
    ("sk_live_", "a Stripe key"),
    ("rk_live_", "a Stripe key"),
    ("AKIA", "an AWS access key"),
    ("dckr_pat_", "a Docker Hub token"),
    ("npm_", "an npm token"),
    ("-----BEGIN ", "a private key"),
];

/// The first thing in a text that looks like a well-known secret: where, how long (in bytes), what.
fn find_secret(text: &str) -> Option<(usize, usize, &'static str)> {
    SECRETS
        .iter()
        .filter_map(|(prefix, what)| {
            text.match_indices(prefix).find_map(|(start, _)| {
                let before = text[..start].chars().next_back();
                if before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                    return None;
                }
                let body = &text[start + prefix.len()..];
                if *prefix == "-----BEGIN " {
                    return body.contains("PRIVATE KEY").then_some((start, text.len() - start, *what));
                }
                let long = body.find(|c: char| !(c.is_ascii_alphanumeric() || "_-/".contains(c))).unwrap_or(body.len());
                (long >= 16).then_some((start, prefix.len() + long, *what))
            })
        })
        .min_by_key(|(start, ..)| *start)
}

/// What kind of secret a text seems to hold in the clear.
#[must_use]
pub fn looks_secret(text: &str) -> Option<&'static str> {
    find_secret(text).map(|(_, _, what)| what)
}

/// The password in the first address that has one (`https://user:password@host`): where and how long (in bytes).
fn find_password(text: &str) -> Option<(usize, usize)> {
    text.match_indices("://").find_map(|(start, scheme)| {
        let from = start + scheme.len();
        let end = text[from..].find(|c: char| c == '/' || c.is_whitespace()).map_or(text.len(), |i| from + i);
        let user = &text[from..end];
        let (colon, at) = (user.find(':')?, user.rfind('@')?);
        (colon + 1 < at).then(|| (from + colon + 1, at - colon - 1))
    })
}

/// The text with everything that looks like a well-known secret replaced, character for character.
#[must_use]
pub fn mask(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    loop {
        let known = find_secret(rest).map(|(start, length, _)| (start, length));
        let Some((start, length)) = known.into_iter().chain(find_password(rest)).min() else { break };
        out.push_str(&rest[..start]);
        out.extend(rest[start..start + length].chars().map(|_| '*'));
        rest = &rest[start + length..];
    }
    out.push_str(rest);
    out
}

/// All mistakes as plain text with the line and a caret under the place, as rustc shows them.
/// `word` is `error` or `warning`.
#[must_use]
pub fn render_as(word: &str, mistakes: &[Mistake], text: &str, file: &str) -> String {
    // Lines are found once, and only as far as they are needed.
    let last = mistakes.iter().map(|m| m.line).max().unwrap_or(0) as usize;
    let lines: Vec<&str> = text.lines().take(last).collect();
    let mut out = String::new();
    for mistake in mistakes {
        if !out.is_empty() {
            out.push('\n');
        }
        one(&mut out, word, mistake, &lines, file);
    }
    out
}

/// [`render_as`] for mistakes.
#[must_use]
pub fn render(mistakes: &[Mistake], text: &str, file: &str) -> String {
    render_as("error", mistakes, text, file)
}

fn one(out: &mut String, word: &str, mistake: &Mistake, lines: &[&str], file: &str) {
    /// Characters of a line that are shown at most, and how many of them before the place.
    const WIDTH: usize = 120;
    const BEFORE: usize = 60;

    let gutter = " ".repeat(mistake.line.to_string().len());
    let _ = writeln!(out, "{word}: {}", mistake.message);
    let _ = writeln!(out, "{gutter}--> {file}:{}:{}", mistake.line, mistake.column);
    let expected = if mistake.expected.is_empty() { String::new() } else { format!(" expected {}", mistake.expected) };
    match (mistake.line as usize).checked_sub(1).and_then(|i| lines.get(i)) {
        Some(line) if line.chars().any(|c| !c.is_whitespace()) => {
            let line: Vec<char> = mask(line).chars().map(printable).collect();
            let column = (mistake.column.saturating_sub(1) as usize).min(line.len());
            let from = if line.len() > WIDTH { column.saturating_sub(BEFORE) } else { 0 };
            let part: String = line.iter().skip(from).take(WIDTH).collect();
            let (head, tail) = (if from > 0 { "…" } else { "" }, if from + WIDTH < line.len() { "…" } else { "" });
            let pad = " ".repeat(column - from + head.chars().count());
            let room = line.len().min(from + WIDTH).saturating_sub(column).max(1);
            let carets = "^".repeat((mistake.length as usize).clamp(1, room));
            let _ = writeln!(out, "{gutter} |");
            let _ = writeln!(out, "{} | {head}{part}{tail}", mistake.line);
            let _ = writeln!(out, "{gutter} | {pad}{carets}{expected}");
        }
        _ if !expected.is_empty() => {
            let _ = writeln!(out, "{gutter} ={expected}");
        }
        _ => {}
    }
    if let Some(hint) = &mistake.hint {
        let _ = writeln!(out, "{gutter} = did you mean `{hint}`?");
    }
}

/// The nearest of `words` to what was written, if it is near.
#[must_use]
pub fn nearest<'a>(written: &str, words: impl IntoIterator<Item = &'a str>) -> Option<String> {
    if written.chars().nth(64).is_some() {
        return None;
    }
    let folded = |s: &str| s.to_lowercase().replace(['-', ' '], "_");
    let written = folded(written);
    words
        .into_iter()
        .filter(|word| word.len().abs_diff(written.len()) <= 6)
        .map(|word| (strsim::osa_distance(&written, &folded(word)), word))
        .filter(|(distance, word)| *distance <= (word.chars().count().max(3) / 3).min(3))
        .min_by_key(|(distance, word)| (*distance, *word))
        .map(|(_, word)| word.to_owned())
}

//! Words: numbers, durations and sizes as people read them, and outside text made harmless.
//!
//! Everything that came from a repository, a log or a person goes through [`plain`], [`code`] or [`fence`] before it
//! stands in markdown, and through [`slack`] before it stands in a message. Backslashes do not stop GitHub from
//! turning `@name` and `#12` into mentions and references (that happens after the markdown is rendered), so a
//! zero-width space is put behind the sign; in code spans and fences GitHub does neither.

use std::{borrow::Cow, fmt::Write as _};

use jiff::Timestamp;

/// `12430` as `12,430`.
#[must_use]
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 test`, `2 tests`.
#[must_use]
pub fn count(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(n), if n == 1 { one } else { many })
}

/// Milliseconds, rounded to what matters: `180 ms`, `1.4 s`, `34 s`, `2 m 10 s`, `1 h 5 m`, `2 d 3 h`.
#[must_use]
pub fn duration(ms: u64) -> String {
    let pair = |big: u64, big_unit: &str, small: u64, small_unit: &str| {
        if small == 0 { format!("{big} {big_unit}") } else { format!("{big} {big_unit} {small} {small_unit}") }
    };
    let seconds = (ms + 500) / 1000;
    let minutes = (seconds + 30) / 60;
    let hours = (minutes + 30) / 60;
    if ms < 1000 {
        format!("{ms} ms")
    } else if ms < 9_950 {
        let tenths = (ms + 50) / 100;
        if tenths.is_multiple_of(10) {
            format!("{} s", tenths / 10)
        } else {
            format!("{}.{} s", tenths / 10, tenths % 10)
        }
    } else if seconds < 60 {
        format!("{seconds} s")
    } else if seconds < 3600 {
        pair(seconds / 60, "m", seconds % 60, "s")
    } else if minutes < 24 * 60 {
        pair(minutes / 60, "h", minutes % 60, "m")
    } else {
        pair(hours / 24, "d", hours % 24, "h")
    }
}

/// The time between two moments; 0 if the clock went back.
#[must_use]
pub fn between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_millisecond().saturating_sub(from.as_millisecond())).unwrap_or(0)
}

/// Microseconds as a latency: `0.4 ms`, `12 ms`, `1.4 s`.
#[must_use]
pub fn latency(us: u64) -> String {
    if us < 9_950 {
        let tenths = (us + 50) / 100;
        format!("{}.{} ms", tenths / 10, tenths % 10)
    } else {
        duration((us + 500) / 1000)
    }
}

/// `512 MiB`, `1.2 GiB`.
#[must_use]
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut unit = 0;
    let mut scale = 1024u64;
    while unit + 1 < UNITS.len() && n / scale >= 1024 {
        scale *= 1024;
        unit += 1;
    }
    let whole = n / scale;
    let tenths = (n % scale) * 10 / scale;
    if whole < 10 && tenths > 0 {
        format!("{whole}.{tenths} {}", UNITS[unit])
    } else {
        format!("{whole} {}", UNITS[unit])
    }
}

/// `10:00:12`, in UTC.
#[must_use]
pub fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M:%S").to_string()
}

/// `2026-07-01 10:00 UTC`.
#[must_use]
pub fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// Takes out what a terminal would act on: escape sequences, control characters, and the marks that turn the
/// direction of writing (they can make a line read as something else). Of a line that a carriage return overwrote,
/// the last writing stays. Newlines and tabs stay.
#[must_use]
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut line_start = 0;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            // The 8-bit form of ESC [.
            '\u{9b}' => skip_csi(&mut chars),
            '\n' => {
                out.push('\n');
                line_start = out.len();
            }
            '\r' => {
                while chars.peek() == Some(&'\r') {
                    chars.next();
                }
                if !matches!(chars.peek(), Some('\n') | None) {
                    out.truncate(line_start);
                }
            }
            '\t' => out.push('\t'),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {}
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.peek() {
        Some('[') => {
            chars.next();
            skip_csi(chars);
        }
        // Operating system commands and other strings: up to BEL or ESC \, but never past the line.
        Some(']' | 'P' | '_' | '^' | 'X') => {
            while let Some(&c) = chars.peek() {
                if c == '\n' {
                    return;
                }
                chars.next();
                if c == '\u{7}' {
                    return;
                }
                if c == '\u{1b}' {
                    if chars.peek() == Some(&'\\') {
                        chars.next();
                    }
                    return;
                }
            }
        }
        // Two or three characters, such as ESC ( B.
        Some('(' | ')' | '#' | '%') => {
            chars.next();
            if chars.peek().is_some_and(|c| c.is_ascii_alphanumeric()) {
                chars.next();
            }
        }
        Some('7' | '8' | '=' | '>' | 'c' | 'D' | 'E' | 'H' | 'M' | 'N' | 'O' | 'Z') => {
            chars.next();
        }
        _ => {}
    }
}

fn skip_csi(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while let Some(&c) = chars.peek() {
        if !('\u{20}'..='\u{7e}').contains(&c) {
            return;
        }
        chars.next();
        if ('\u{40}'..='\u{7e}').contains(&c) {
            return;
        }
    }
}

/// One line of at most `max` characters: line breaks become spaces, and a cut is shown by `…`.
#[must_use]
pub fn one_line(text: &str, max: usize) -> String {
    // Far more than can be shown, and far less than somebody may send.
    let cleaned = clean(&text[..text.floor_char_boundary(max.saturating_mul(8).saturating_add(4096))]);
    let mut out = String::new();
    let mut length = 0;
    let cut = |mut out: String| {
        // Room for the ellipsis.
        out.pop();
        out.truncate(out.trim_end().len());
        out.push('…');
        out
    };
    for word in cleaned.split_whitespace() {
        if length > 0 {
            if length >= max {
                return cut(out);
            }
            out.push(' ');
            length += 1;
        }
        for c in word.chars() {
            if length >= max {
                return cut(out);
            }
            out.push(c);
            length += 1;
        }
    }
    out
}

/// The first line that says something, at most `max` characters.
#[must_use]
pub fn first_line(text: &str, max: usize) -> String {
    let cleaned = clean(&text[..text.floor_char_boundary(64 * 1024)]);
    one_line(cleaned.lines().find(|l| !l.trim().is_empty()).unwrap_or_default(), max)
}

/// Outside text as running markdown text: nothing in it is markup, nobody is mentioned, nothing is referred to.
/// Line breaks become spaces.
#[must_use]
pub fn plain(text: &str) -> String {
    let text = one_line(text, usize::MAX);
    let mut out = String::with_capacity(text.len() + 16);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '@' | '#' => {
                out.push(c);
                out.push_str("&#8203;");
            }
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // In a table a backslash would not do: the cells are found first.
            '|' => out.push_str("&#124;"),
            '\\' => out.push_str("&#92;"),
            '`' | '*' | '_' | '~' | '[' | ']' | '$' | '!' => {
                out.push('\\');
                out.push(c);
            }
            // GH-12 refers to an issue, http:// and www. become links.
            '-' if ends_with_word(&out, "gh") => out.push_str("&#8203;-"),
            ':' if chars.peek() == Some(&'/') => out.push_str(":&#8203;"),
            '.' if ends_with_word(&out, "www") => out.push_str("&#8203;."),
            // At the start of a line these begin a list, a heading, a rule.
            '-' | '+' | '=' if out.is_empty() => {
                out.push('\\');
                out.push(c);
            }
            '.' | ')' if !out.is_empty() && out.bytes().all(|b| b.is_ascii_digit()) => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

fn ends_with_word(text: &str, word: &str) -> bool {
    let tail = text.len().checked_sub(word.len()).and_then(|at| text.get(at..));
    tail.is_some_and(|t| t.eq_ignore_ascii_case(word))
}

/// Outside text of at most 500 characters as a code span: the delimiter is longer than any run of backticks inside. Where a `|` or a
/// backslash would break a table cell apart, the text stands as [`plain`] instead.
#[must_use]
pub fn code(text: &str) -> String {
    let text = one_line(text, 500);
    if text.is_empty() {
        return "(empty)".to_owned();
    }
    if text.contains(['|', '\\']) {
        return plain(&text);
    }
    let ticks = "`".repeat(longest_run(&text, '`') + 1);
    let pad = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{ticks}{pad}{text}{pad}{ticks}")
}

/// A markdown link; only `http` and `https` addresses become one. `label` is markdown already.
#[must_use]
pub fn link(label: &str, url: &str) -> String {
    match web_address(url) {
        Some(url) => format!("[{label}]({url})"),
        None => label.to_owned(),
    }
}

/// The address in a form that ends neither a markdown nor a Slack link early.
fn web_address(url: &str) -> Option<String> {
    if !(url.starts_with("https://") || url.starts_with("http://")) || url.len() > 2_000 {
        return None;
    }
    let mut out = String::with_capacity(url.len());
    for c in url.chars() {
        if c.is_control()
            || c.is_whitespace()
            || matches!(c, '(' | ')' | '<' | '>' | '|' | '\\' | '"' | '`' | '[' | ']')
        {
            let mut buffer = [0; 4];
            for b in c.encode_utf8(&mut buffer).bytes() {
                let _ = write!(out, "%{b:02X}");
            }
        } else {
            out.push(c);
        }
    }
    Some(out)
}

/// The longest run of one character.
fn longest_run(text: &str, wanted: char) -> usize {
    let (mut longest, mut now) = (0, 0);
    for c in text.chars() {
        now = if c == wanted { now + 1 } else { 0 };
        longest = longest.max(now);
    }
    longest
}

/// Outside text in a fence that nothing inside can end, cut from the top to `max` bytes (the fence not counted):
/// the tail of a log is what matters.
#[must_use]
pub fn fence(text: &str, language: &str, max: usize) -> String {
    // Escape sequences take room that nobody sees; what lies far before the tail is not even looked at.
    let near = text.ceil_char_boundary(text.len().saturating_sub(max.saturating_mul(4).saturating_add(4096)));
    let cleaned = clean(&text[near..]);
    let shown = cleaned.trim_matches('\n');
    if near > 0 && shown.len() <= max {
        return fenced(&tail(&format!("… (cut)\n{shown}"), max), language);
    }
    fenced(&tail(shown, max), language)
}

fn fenced(body: &str, language: &str) -> String {
    let ticks = "`".repeat((longest_run(body, '`') + 1).max(3));
    format!("{ticks}{language}\n{body}\n{ticks}")
}

/// A trace in a fence, cut in the middle: its head names the failure, its tail the cause.
#[must_use]
pub fn fence_trace(text: &str, max: usize) -> String {
    let cleaned = clean(&middle(text, max.saturating_mul(8)));
    fenced(&middle(cleaned.trim_matches('\n'), max), "text")
}

/// The last lines that fit into `max` bytes. Cut at a line's start where there is one, never inside a character.
#[must_use]
pub fn tail(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let note = "… (cut)\n";
    let room = max.saturating_sub(note.len());
    let at = text.ceil_char_boundary(text.len() - room);
    let cut = &text[at..];
    let whole_line = text[..at].ends_with('\n');
    let cut = match cut.find('\n') {
        Some(end) if !whole_line && end + 1 < cut.len() => &cut[end + 1..],
        _ => cut,
    };
    if max < note.len() { Cow::Borrowed(cut) } else { Cow::Owned(format!("{note}{cut}")) }
}

/// The first characters that fit into `max` bytes, with `…` where something was cut.
#[must_use]
pub fn head(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let mark = if max >= '…'.len_utf8() { "…" } else { "" };
    let at = text.floor_char_boundary(max - mark.len());
    Cow::Owned(format!("{}{mark}", &text[..at]))
}

/// Head and tail of a text that together fit into `max` bytes.
#[must_use]
pub fn middle(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let note = "\n…\n";
    let room = max.saturating_sub(note.len());
    let first = &text[..text.floor_char_boundary(room * 2 / 3)];
    let last = &text[text.ceil_char_boundary(text.len() - (room - room * 2 / 3))..];
    Cow::Owned(head(&format!("{first}{note}{last}"), max).into_owned())
}

/// Outside text for Slack's `mrkdwn`: `&`, `<` and `>` escaped, as "Formatting text for app surfaces" asks, and cut
/// so that the escaped text has at most `max` characters and no entity is cut apart.
#[must_use]
pub fn slack(text: &str, max: usize) -> String {
    let text = clean(text);
    let mut out = String::with_capacity(text.len());
    let mut length = 0;
    for (at, c) in text.char_indices() {
        let piece = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            _ => "",
        };
        let size = if piece.is_empty() { 1 } else { piece.len() };
        let last = at + c.len_utf8() == text.len();
        if length + size + usize::from(!last) > max {
            if max > 0 {
                out.push('…');
            }
            break;
        }
        if piece.is_empty() {
            out.push(c)
        } else {
            out.push_str(piece)
        }
        length += size;
    }
    out
}

/// A Slack link. `label` is outside text.
#[must_use]
pub fn slack_link(label: &str, url: &str) -> String {
    match web_address(url) {
        Some(url) if url.len() <= 1_000 => format!("<{}|{}>", url.replace('&', "&amp;"), slack(label, 300)),
        _ => slack(label, 300),
    }
}

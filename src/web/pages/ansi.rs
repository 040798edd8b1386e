//! Terminal colours in log lines: SGR sequences become classes, everything else that a terminal would obey is dropped.
//!
//! Source: ECMA-48 "Control Functions for Coded Character Sets", 8.3.117 SGR. Colours of the 256 palette and 24-bit
//! ones become the nearest of the sixteen, because these are readable on a light and on a dark page.

use serde::Serialize;

/// A line is cut here on pages; the raw log has all of it.
const MAX_CHARS: usize = 4_000;

/// A run of characters of one style.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Span(
    /// Text, with no control characters.
    pub String,
    /// Classes, empty for plain text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub String,
);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Style {
    fg: Option<u8>,
    bg: Option<u8>,
    bold: bool,
    dim: bool,
    italic: bool,
    underline: bool,
    strike: bool,
    inverse: bool,
}

impl Style {
    fn classes(self) -> String {
        let mut classes = Vec::new();
        if let Some(n) = self.fg {
            classes.push(format!("f{n}"));
        }
        if let Some(n) = self.bg {
            classes.push(format!("b{n}"));
        }
        let flags = [
            (self.bold, "bo"),
            (self.dim, "di"),
            (self.italic, "it"),
            (self.underline, "un"),
            (self.strike, "st"),
            (self.inverse, "in"),
        ];
        classes.extend(flags.iter().filter(|(on, _)| *on).map(|(_, class)| (*class).to_owned()));
        classes.join(" ")
    }

    fn apply(&mut self, parameters: &str) {
        // A colon separates the parts of one colour in newer programs; read both alike.
        let mut numbers =
            parameters.split([';', ':']).map(|n| if n.is_empty() { Some(0) } else { n.parse::<u16>().ok() });
        while let Some(number) = numbers.next() {
            let Some(number) = number else { continue };
            match number {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                3 => self.italic = true,
                4 | 21 => self.underline = true,
                7 => self.inverse = true,
                9 => self.strike = true,
                22 => (self.bold, self.dim) = (false, false),
                23 => self.italic = false,
                24 => self.underline = false,
                27 => self.inverse = false,
                29 => self.strike = false,
                30..=37 => self.fg = Some(low(number - 30)),
                39 => self.fg = None,
                40..=47 => self.bg = Some(low(number - 40)),
                49 => self.bg = None,
                90..=97 => self.fg = Some(low(number - 82)),
                100..=107 => self.bg = Some(low(number - 92)),
                38 | 48 => {
                    let mut byte = || numbers.next().flatten().and_then(|n| u8::try_from(n).ok());
                    let colour = match byte() {
                        Some(5) => byte().map(from_palette),
                        Some(2) => match (byte(), byte(), byte()) {
                            (Some(r), Some(g), Some(b)) => Some(nearest(r, g, b)),
                            _ => None,
                        },
                        _ => None,
                    };
                    match number {
                        38 => self.fg = colour,
                        _ => self.bg = colour,
                    }
                }
                _ => {}
            }
        }
    }
}

fn low(number: u16) -> u8 {
    u8::try_from(number & 15).unwrap_or_default()
}

/// The 256 palette: sixteen, a cube of six steps a side, 24 greys.
fn from_palette(index: u8) -> u8 {
    let step = |i: u8| if i == 0 { 0 } else { 55 + 40 * i };
    match index {
        0..=15 => index,
        16..=231 => {
            let i = index - 16;
            nearest(step(i / 36), step(i / 6 % 6), step(i % 6))
        }
        232..=255 => {
            let grey = 8 + 10 * (index - 232);
            nearest(grey, grey, grey)
        }
    }
}

/// By hue rather than by distance: a pale blue stays blue.
fn nearest(r: u8, g: u8, b: u8) -> u8 {
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    if max - min < 40 {
        return match max {
            0..=63 => 0,
            64..=149 => 8,
            150..=214 => 7,
            215.. => 15,
        };
    }
    let half = min + (max - min) / 2;
    let bits = u8::from(r > half) | u8::from(g > half) << 1 | u8::from(b > half) << 2;
    bits | if max > 190 { 8 } else { 0 }
}

/// Splits a line into styled spans. Never fails: what it does not know it leaves out.
#[must_use]
pub fn spans(line: &str) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let (mut style, mut text) = (Style::default(), String::new());
    let mut kept = 0;
    let mut left_out = 0;
    // A progress bar writes over itself: what stands after the last return is what a terminal shows.
    let line = line.trim_end_matches(['\r', '\n']);
    let line = line.rsplit('\r').find(|part| !part.is_empty()).unwrap_or(line);
    let mut chars = line.chars().peekable();
    let flush = |text: &mut String, style: Style, spans: &mut Vec<Span>| {
        if text.is_empty() {
            return;
        }
        let (text, classes) = (std::mem::take(text), style.classes());
        match spans.last_mut() {
            Some(last) if last.1 == classes => last.0.push_str(&text),
            _ => spans.push(Span(text, classes)),
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' | '\u{9b}' => {
                let control = if c == '\u{9b}' { Some('[') } else { chars.next() };
                match control {
                    Some('[') => {
                        let mut parameters = String::new();
                        let mut end = None;
                        // Parameters and intermediates, then one final byte; anything else ends the nonsense.
                        while let Some(&next) = chars.peek() {
                            match next {
                                '\u{20}'..='\u{3f}' if parameters.len() < 256 => parameters.push(next),
                                '\u{40}'..='\u{7e}' => end = Some(next),
                                _ => break,
                            }
                            chars.next();
                            if end.is_some() {
                                break;
                            }
                        }
                        if end == Some('m') {
                            flush(&mut text, style, &mut spans);
                            style.apply(&parameters);
                        }
                    }
                    // Strings (titles, links, device control): dropped with their content, up to their end.
                    Some(']' | 'P' | 'X' | '^' | '_') => {
                        while let Some(next) = chars.next() {
                            if next == '\u{7}' || next == '\u{9c}' {
                                break;
                            }
                            if next == '\u{1b}' {
                                chars.next_if_eq(&'\\');
                                break;
                            }
                        }
                    }
                    // Character sets take one more.
                    Some('(' | ')' | '*' | '+' | '#' | '%') => {
                        chars.next();
                    }
                    _ => {}
                }
            }
            _ if kept == MAX_CHARS => left_out += 1,
            '\t' => {
                text.push_str("    ");
                kept += 1;
            }
            // Characters that turn the reading direction around could make a log say what it does not.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}' => {
                text.push('\u{fffd}');
                kept += 1;
            }
            c if c.is_control() => {}
            c => {
                text.push(c);
                kept += 1;
            }
        }
    }
    flush(&mut text, style, &mut spans);
    if left_out > 0 {
        spans.push(Span(format!(" … {left_out} more characters in the raw log"), "di".to_owned()));
    }
    spans
}

/// The line without its colours: what a search looks at.
#[must_use]
pub fn plain(line: &str) -> std::borrow::Cow<'_, str> {
    if line.len() <= MAX_CHARS && !line.chars().any(|c| c.is_control() || !c.is_ascii()) {
        return line.into();
    }
    spans(line).into_iter().map(|span| span.0).collect::<String>().into()
}

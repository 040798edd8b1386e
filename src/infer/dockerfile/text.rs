//! A Dockerfile's text: lines, here-documents, words, variables.

use std::collections::BTreeMap;

use super::Instruction;

/// The most instructions that are looked at.
const MAX_INSTRUCTIONS: usize = 5000;
/// How deep variables may stand inside each other's defaults.
const MAX_DEPTH: usize = 8;
/// The longest value of a variable, in bytes: `ENV A=$A$A` doubles with each line.
const MAX_VALUE: usize = 16 * 1024;

/// The escape character and the frontend, from the directives at the top.
pub(super) fn directives(text: &str) -> (char, Option<String>) {
    let (mut escape, mut syntax) = ('\\', None);
    for line in text.lines() {
        let Some(comment) = line.trim().strip_prefix('#') else { break };
        let Some((key, value)) = comment.split_once('=') else { break };
        match key.trim().to_lowercase().as_str() {
            "escape" if value.trim() == "`" => escape = '`',
            "syntax" => syntax = value.split_whitespace().next().map(str::to_owned),
            "escape" | "check" => {}
            _ => break,
        }
    }
    (escape, syntax)
}

pub(super) fn instructions(text: &str, escape: char) -> Vec<Instruction> {
    let mut found: Vec<Instruction> = Vec::new();
    let mut open: Option<Instruction> = None;
    let mut lines = text.lines().enumerate();
    while let Some((n, line)) = lines.next() {
        if found.len() >= MAX_INSTRUCTIONS {
            break;
        }
        let trimmed = line.trim();
        // Comments and empty lines between continued lines are left out.
        if trimmed.starts_with('#') || trimmed.is_empty() {
            continue;
        }
        let (part, goes_on) = match line.trim_end().strip_suffix(escape) {
            Some(part) => (part, true),
            None => (line.trim_end(), false),
        };
        match &mut open {
            Some(instruction) => instruction.text.push_str(part),
            None => {
                let part = part.trim_start();
                let (keyword, rest) = part.split_once(char::is_whitespace).unwrap_or((part, ""));
                let text = rest.trim_start().to_owned();
                open = Some(Instruction { line: n + 1, keyword: keyword.to_uppercase(), text });
            }
        }
        if goes_on {
            continue;
        }
        if let Some(mut done) = open.take() {
            if matches!(done.keyword.as_str(), "RUN" | "COPY" | "ADD") {
                for (end, tabs) in heredocs(&done.text) {
                    for (_, line) in lines.by_ref() {
                        let line = line.trim_end_matches('\r');
                        if (if tabs { line.trim_start_matches('\t') } else { line }) == end {
                            break;
                        }
                    }
                }
            }
            done.text.truncate(done.text.trim_end().len());
            found.push(done);
        }
    }
    found.extend(open);
    found
}

/// The here-documents that a line opens: their end marks, and whether leading tabs are taken away.
fn heredocs(text: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    for word in text.split_whitespace() {
        let word = word.trim_start_matches(|c: char| c.is_ascii_digit());
        let Some(rest) = word.strip_prefix("<<") else { continue };
        let (tabs, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
        let name = rest.trim_matches(['"', '\'']);
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.".contains(c);
        if !name.is_empty() && name.chars().all(plain) {
            found.push((name.to_owned(), tabs));
        }
    }
    found
}

/// The value of a flag before the words.
pub(super) fn flag(text: &str, name: &str) -> Option<String> {
    let flags = text.split_whitespace().take_while(|w| w.starts_with("--"));
    flags.filter_map(|w| w.split_once('=')).find(|(n, _)| *n == name).map(|(_, v)| v.to_owned())
}

/// The images or stages that `RUN --mount=…,from=…` uses.
pub(super) fn mounted(text: &str) -> Vec<String> {
    let flags = text.split_whitespace().take_while(|w| w.starts_with("--"));
    let mounts = flags.filter_map(|w| w.strip_prefix("--mount="));
    mounts.flat_map(|m| m.split(',')).filter_map(|p| p.strip_prefix("from=")).map(str::to_owned).collect()
}

/// The words of COPY or ADD, flags left out, in either form.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        rest = rest.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim_start());
    }
    if rest.starts_with('[')
        && let Ok(list) = serde_json::from_str::<Vec<String>>(rest)
    {
        return list;
    }
    rest.split_whitespace().map(str::to_owned).collect()
}

/// `NAME=value` pairs with quotes, or the old `ENV NAME value`. None for a name without a value.
pub(super) fn assignments(text: &str) -> Vec<(String, Option<String>)> {
    let first = text.split_whitespace().next().unwrap_or_default();
    if !first.contains('=')
        && let Some((name, value)) = text.trim().split_once(char::is_whitespace)
        && !value.contains('=')
    {
        return vec![(name.to_owned(), Some(value.trim().to_owned()))];
    }
    let mut found = Vec::new();
    let (mut word, mut quote, mut escaped) = (String::new(), None, false);
    let take = |word: &mut String, found: &mut Vec<_>| {
        if !word.is_empty() {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (word.clone(), None),
            };
            found.push((name, value));
            word.clear();
        }
    };
    for c in text.chars() {
        match (quote, c) {
            _ if escaped => {
                escaped = false;
                word.push(c);
            }
            (_, '\\') => escaped = true,
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, c) if c.is_whitespace() => take(&mut word, &mut found),
            (_, c) => word.push(c),
        }
    }
    take(&mut word, &mut found);
    found.truncate(200);
    found
}

/// A text with its variables put in: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:+other}`. One that has no value
/// is empty, as in a shell. Quotes around the whole are taken away.
#[must_use]
pub fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let text = text.trim();
    let quoted = text.len() > 1 && (text.starts_with('"') && text.ends_with('"'));
    let text = if quoted { &text[1..text.len() - 1] } else { text };
    let mut out = expand_at(text, variables, 0);
    if out.len() > MAX_VALUE {
        let end = (0..=MAX_VALUE).rev().find(|at| out.is_char_boundary(*at)).unwrap_or(0);
        out.truncate(end);
    }
    out
}

fn expand_at(text: &str, variables: &BTreeMap<String, String>, depth: usize) -> String {
    let name_end = |s: &str| s.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(s.len());
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['$', '\\']) {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if rest[at..].starts_with('\\') {
            let next = after.chars().next();
            out.extend(next);
            rest = &after[next.map_or(0, char::len_utf8)..];
            continue;
        }
        if let Some(inside) = after.strip_prefix('{') {
            let Some(end) = closing(inside) else {
                out.push_str(&rest[at..]);
                return out;
            };
            let (body, name) = (&inside[..end], name_end(inside).min(end));
            let value = variables.get(&body[..name]).map(String::as_str);
            let operation = &body[name..];
            let other = |prefix: &str| {
                let text = operation.strip_prefix(prefix).unwrap_or_default();
                if depth < MAX_DEPTH { expand_at(text, variables, depth + 1) } else { String::new() }
            };
            match operation.get(..2.min(operation.len())) {
                Some(":-") => out.push_str(&value.filter(|v| !v.is_empty()).map_or_else(|| other(":-"), str::to_owned)),
                Some(":+") if value.is_some_and(|v| !v.is_empty()) => out.push_str(&other(":+")),
                Some(":+") => {}
                _ if operation.starts_with('-') => {
                    out.push_str(&value.map_or_else(|| other("-"), str::to_owned));
                }
                _ => out.push_str(value.unwrap_or_default()),
            }
            rest = &inside[end + 1..];
        } else {
            let end = name_end(after);
            if end == 0 {
                out.push('$');
            } else {
                out.push_str(variables.get(&after[..end]).map(String::as_str).unwrap_or_default());
            }
            rest = &after[end..];
        }
        if out.len() > MAX_VALUE {
            return out;
        }
    }
    out.push_str(rest);
    out
}

/// Where the brace that is open closes.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

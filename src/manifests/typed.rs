//! Bare scalars as Kubernetes types them: by YAML 1.1, as `sigs.k8s.io/yaml` (and so kubectl) does.
//!
//! Source: `resolve.go` of go-yaml v2, which that package is built on; timestamps and numbers in base 60 stay texts there.

use serde_json::{Number, Value};

use crate::domain::config::tree::{Entry, Node, NodeData};

use super::object::{Inner, Place};

/// Why a text can't be an object.
pub(super) struct Wrong {
    pub line: u32,
    pub words: String,
}

/// A tree as JSON, with its places.
pub(super) fn json(node: &Node) -> Result<(Value, Place), Wrong> {
    let line = node.at.line;
    match &node.data {
        NodeData::Null => Ok((Value::Null, Place { line, inner: Inner::Nothing })),
        NodeData::Scalar { text, bare: false } => {
            Ok((Value::String(text.clone()), Place { line, inner: Inner::Nothing }))
        }
        NodeData::Scalar { text, bare: true } => {
            let value = scalar(text).ok_or_else(|| Wrong {
                line,
                words: format!("`{text}` is no number that JSON has: put it in quotes if it is a text"),
            })?;
            Ok((value, Place { line, inner: Inner::Nothing }))
        }
        NodeData::List(items) => {
            let (mut values, mut places) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
            for item in items {
                let (value, place) = json(item)?;
                values.push(value);
                places.push(place);
            }
            Ok((Value::Array(values), Place { line, inner: Inner::List(places) }))
        }
        NodeData::Map(entries) => {
            let (map, places) = mapping(entries)?;
            Ok((Value::Object(map), Place { line, inner: Inner::Map(places) }))
        }
    }
}

type Mapping = (serde_json::Map<String, Value>, Vec<(String, Place)>);

fn mapping(entries: &[Entry]) -> Result<Mapping, Wrong> {
    let mut map = serde_json::Map::new();
    let mut places: Vec<(String, Place)> = Vec::new();
    for entry in entries.iter().filter(|e| !is_merge(e)) {
        let key = key(entry);
        let line = entry.at.line;
        let (value, place) = json(&entry.value)?;
        if map.insert(key.clone(), value).is_some() {
            let before = places.iter().find(|(k, _)| *k == key).map_or(0, |(_, p)| p.line);
            return Err(Wrong {
                line,
                words: format!("`{key}` stands here a second time (first in line {before}): one must go"),
            });
        }
        places.push((key, Place { line, inner: place.inner }));
    }
    for entry in entries.iter().filter(|e| is_merge(e)) {
        let merged: Vec<&Node> = match &entry.value.data {
            NodeData::List(items) => items.iter().map(|item| &**item).collect(),
            _ => vec![&*entry.value],
        };
        for node in merged {
            let NodeData::Map(inner) = &node.data else {
                let words = "`<<` merges mappings only: write an alias of one, such as `<<: *common`";
                return Err(Wrong { line: entry.at.line, words: words.to_owned() });
            };
            let (values, lines) = mapping(inner)?;
            // What is written, or merged before, wins.
            for ((key, value), (_, place)) in values.into_iter().zip(lines) {
                if !map.contains_key(&key) {
                    map.insert(key.clone(), value);
                    places.push((key, place));
                }
            }
        }
    }
    Ok((map, places))
}

fn is_merge(entry: &Entry) -> bool {
    entry.bare && entry.key == "<<"
}

/// A key's text: bare ones are typed first, as the values are, and then written as JSON's texts.
fn key(entry: &Entry) -> String {
    match scalar(&entry.key).filter(|_| entry.bare) {
        Some(Value::Bool(value)) => value.to_string(),
        Some(Value::Number(value)) => value.to_string(),
        _ => entry.key.clone(),
    }
}

/// One bare scalar. None: `.inf` and `.nan`, which JSON has no word for.
pub(super) fn scalar(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Some(Value::Bool(true));
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Some(Value::Bool(false));
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf"
        | "-.INF" => return None,
        _ => {}
    }
    if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        let plain = text.replace('_', "");
        if let Some(number) = integer(&plain).or_else(|| float(&plain)) {
            return Some(Value::Number(number));
        }
    }
    Some(Value::String(text.to_owned()))
}

/// As Go's `strconv.ParseInt(text, 0, 64)`, then `ParseUint`: `0x1f`, `0o17`, `017` and `0b11` have bases of their own.
fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // `from_str_radix` would take a sign of its own.
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let number = u64::from_str_radix(digits, base).ok()?;
    if !negative {
        return Some(number.into());
    }
    i64::try_from(-i128::from(number)).ok().map(Into::into)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, written as Go writes it in JSON: whole numbers without a point.
fn float(text: &str) -> Option<Number> {
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match body.find(['e', 'E']) {
        Some(at) => (&body[..at], Some(&body[at + 1..])),
        None => (body, None),
    };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let good = match mantissa.split_once('.') {
        Some(("", after)) => digits(after),
        Some((before, after)) => digits(before) && (after.is_empty() || digits(after)),
        None => digits(mantissa),
    };
    if !good || !exponent.is_none_or(|e| digits(e.strip_prefix(['-', '+']).unwrap_or(e))) {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    // Up to here every whole number is one of a double's.
    if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
        #[expect(clippy::cast_possible_truncation, reason = "whole and within a double's exact range")]
        return Some((value as i64).into());
    }
    Number::from_f64(value)
}

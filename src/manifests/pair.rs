//! Hand-written pairs: two Deployments that are equal but for one label (and what follows from it: names, images' tags,
//! replicas), and a Service that selects on that label. Known by this shape, whatever the label is called.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    look::{self, full_name, pod_labels, texts},
    object::Object,
    read::placeholder,
};

/// Two Deployments that are one app.
#[derive(Debug, Clone)]
pub(super) struct Pair<'o> {
    pub first: &'o Object,
    pub second: &'o Object,
    /// The label that tells them apart.
    pub label: String,
    /// Its values.
    pub values: [String; 2],
    /// Fields in which they differ beyond what follows from the label.
    pub differences: Vec<String>,
}

/// Values that are written for two of one kind: only asked where the Services leave it open.
const TWINS: [(&str, &str); 14] = [
    ("blue", "green"),
    ("a", "b"),
    ("v1", "v2"),
    ("1", "2"),
    ("one", "two"),
    ("first", "second"),
    ("primary", "secondary"),
    ("active", "idle"),
    ("active", "inactive"),
    ("active", "preview"),
    ("current", "next"),
    ("live", "idle"),
    ("old", "new"),
    ("red", "black"),
];
/// With a Service on the label, the two may differ in this many further fields: drift of hand-kept copies.
const DRIFT: usize = 12;

/// All pairs among these Deployments; each is in one at most, the most equal first.
pub(super) fn pairs<'o>(deployments: &[&'o Object], services: &[&Object]) -> Vec<Pair<'o>> {
    let mut found: Vec<Pair<'o>> = Vec::new();
    for (i, first) in deployments.iter().enumerate() {
        for second in &deployments[i + 1..] {
            found.extend(pair(first, second, services));
        }
    }
    found.sort_by_key(|p| p.differences.len());
    let mut taken: Vec<&str> = Vec::new();
    found.retain(|p| {
        let names = [p.first.name(), p.second.name()];
        let free = names.iter().all(|n| !taken.contains(n));
        if free {
            taken.extend(names);
        }
        free
    });
    found
}

fn pair<'o>(first: &'o Object, second: &'o Object, services: &[&Object]) -> Option<Pair<'o>> {
    let (a, b) = (pod_labels(&first.value), pod_labels(&second.value));
    if a.is_empty() || !a.keys().eq(b.keys()) {
        return None;
    }
    let differ: Vec<&String> = a.iter().filter(|(key, value)| b.get(*key) != Some(value)).map(|(key, _)| key).collect();
    if differ.is_empty() || differ.len() > 3 {
        return None;
    }
    let selectors: Vec<BTreeMap<String, String>> = services
        .iter()
        .map(|s| texts(&s.value, "/spec/selector"))
        .filter(|s| {
            !s.is_empty()
                && s.iter()
                    .all(|(k, v)| a.get(k) == Some(v) || b.get(k) == Some(v) || (a.contains_key(k) && placeholder(v)))
        })
        .collect();
    let label = label(&differ, &selectors, &a, &b)?.to_owned();
    let values = [a.get(&label)?.clone(), b.get(&label)?.clone()];
    let one = plain(&first.value, differ.iter().filter_map(|k| a.get(*k)));
    let other = plain(&second.value, differ.iter().filter_map(|k| b.get(*k)));
    let mut differences = Vec::new();
    compare("", &one, &other, &mut differences);
    if images(&one) != images(&other) || images(&one).is_empty() {
        return None;
    }
    let twins = are_twins(&values);
    let of = |value: &String| selectors.iter().filter(|s| s.get(&label) == Some(value)).count();
    let (of_first, of_second) = (of(&values[0]), of(&values[1]));
    let open = selectors.iter().any(|s| s.get(&label).is_some_and(|v| placeholder(v)));
    let wide = selectors.iter().any(|s| !s.contains_key(&label));
    let equal = differences.is_empty();
    let good = match (of_first > 0, of_second > 0) {
        // A Service that points at one of them: this is what is switched.
        (true, false) | (false, true) => equal || (twins && differences.len() <= DRIFT),
        // One more for one of them than for the other is the one that is switched, beside a preview of each.
        (true, true) => (of_first != of_second && equal) || (twins && differences.len() <= DRIFT),
        (false, false) if open => equal || twins,
        // Nothing points at either: a Service over both, or none at all.
        (false, false) => equal && twins && (wide || selectors.is_empty()),
    };
    good.then_some(Pair { first, second, label, values, differences })
}

/// The differing label that a Service selects on; where none does, the only one. Of several that follow each other
/// (`version: v1` with `color: blue`), the one whose values read like twins; a switch changes them together.
fn label<'a>(
    differ: &[&'a String],
    selectors: &[BTreeMap<String, String>],
    a: &BTreeMap<String, String>,
    b: &BTreeMap<String, String>,
) -> Option<&'a str> {
    let on: Vec<&'a str> = differ
        .iter()
        .filter(|key| selectors.iter().any(|selector| selector.contains_key(**key)))
        .map(|key| key.as_str())
        .collect();
    let twins = |key: &str| match (a.get(key), b.get(key)) {
        (Some(x), Some(y)) => are_twins(&[x.clone(), y.clone()]),
        _ => false,
    };
    match (on.as_slice(), differ) {
        ([key], _) => Some(key),
        ([], [key]) => Some(key),
        ([], _) => None,
        // `blue` and `green` say more than `v1` and `v2`, which stand for other things too.
        (several, _) => several
            .iter()
            .find(|key| twins(key) && a.get(**key).is_some_and(|v| v.len() > 2))
            .or_else(|| several.iter().find(|key| twins(key)))
            .or_else(|| several.first())
            .copied(),
    }
}

fn are_twins(values: &[String; 2]) -> bool {
    let [a, b] = [values[0].to_lowercase(), values[1].to_lowercase()];
    let (a, b) = distinct(&a, &b);
    TWINS.iter().any(|(x, y)| (a == *x && b == *y) || (a == *y && b == *x))
}

/// The words in which two values differ: `shop-blue` and `shop-green` in `blue` and `green`.
fn distinct(a: &str, b: &str) -> (String, String) {
    let words = |s: &str| s.split(['-', '_', '.']).map(str::to_owned).collect::<Vec<_>>();
    let (mut a, mut b) = (words(a), words(b));
    while a.len() > 1 && b.len() > 1 && a.first() == b.first() {
        a.remove(0);
        b.remove(0);
    }
    while a.len() > 1 && b.len() > 1 && a.last() == b.last() {
        a.pop();
        b.pop();
    }
    (a.join("-"), b.join("-"))
}

/// A Deployment without what may differ: name, replicas, tags, and the words of its own labels' values wherever they stand.
fn plain<'v>(deployment: &Value, values: impl Iterator<Item = &'v String>) -> Value {
    let mut words: Vec<String> = Vec::new();
    for value in values {
        for word in [value.clone(), value.to_uppercase(), capital(value)] {
            if !words.contains(&word) {
                words.push(word);
            }
        }
        // `shop-blue` as a label's value, `blue` as an image's tag.
        let last = value.rsplit(['-', '_', '.']).next().unwrap_or_default();
        if last.len() >= 3 && !words.iter().any(|w| w == last) {
            words.push(last.to_owned());
        }
    }
    words.sort_by_key(|w| std::cmp::Reverse(w.len()));
    let mut copy = deployment.clone();
    if let Some(metadata) = copy.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("name");
        metadata.shift_remove("annotations");
    }
    if let Some(spec) = copy.get_mut("spec").and_then(Value::as_object_mut) {
        spec.shift_remove("replicas");
    }
    neutral(&mut copy, &words, "");
    copy
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn neutral(value: &mut Value, words: &[String], key: &str) {
    match value {
        Value::String(text) => {
            if key == "image" {
                *text = full_name(text);
            }
            for word in words {
                *text = without(text, word);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| neutral(item, words, key)),
        Value::Object(map) => map.iter_mut().for_each(|(key, value)| neutral(value, words, key)),
        _ => {}
    }
}

/// The text with a word blanked. Short words only where they stand alone: `a` is in most texts.
fn without(text: &str, word: &str) -> String {
    if word.is_empty() || !text.contains(word) {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let before = rest[..at].chars().next_back().or_else(|| out.chars().next_back());
        let after = rest[at + word.len()..].chars().next();
        let alone = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
        out.push_str(&rest[..at]);
        out.push_str(if word.len() > 2 || (alone(before) && alone(after)) { "\u{1}" } else { word });
        rest = &rest[at + word.len()..];
    }
    out.push_str(rest);
    out
}

fn images(deployment: &Value) -> Vec<&str> {
    let Some(template) = look::template(deployment) else { return Vec::new() };
    look::containers(template).filter(|(init, _)| !init).map(|(_, c)| look::text(c, "/image")).collect()
}

/// The fields in which two values differ.
fn compare(path: &str, a: &Value, b: &Value, found: &mut Vec<String>) {
    if a == b || found.len() > 50 {
        return;
    }
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            for (key, value) in x {
                compare(&join(path, key), value, y.get(key).unwrap_or(&Value::Null), found);
            }
            for (key, value) in y.iter().filter(|(key, _)| !x.contains_key(*key)) {
                compare(&join(path, key), &Value::Null, value, found);
            }
        }
        (Value::Array(x), Value::Array(y)) => {
            for i in 0..x.len().max(y.len()) {
                let nothing = Value::Null;
                let (one, other) = (x.get(i).unwrap_or(&nothing), y.get(i).unwrap_or(&nothing));
                let name = look::text(one, "/name");
                let name = if name.is_empty() || name.contains('\u{1}') { i.to_string() } else { name.to_owned() };
                compare(&format!("{path}[{name}]"), one, other, found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

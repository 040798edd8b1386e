//! What an apply would change in the live object: only fields that we would set, and those of ours that it would remove.

use std::fmt;

use base64::Engine as _;
use serde_json::Value;

use super::{look::text, typed};
use crate::domain::config::mistake::{looks_secret, mask};

/// Our field manager: what it owns and no longer sets, an apply removes ("Server-Side Apply").
const MANAGER: &str = "switchover";
/// The most lines of one object.
const MAX_LINES: usize = 200;
/// Values of which nothing is shown.
const HIDDEN: &str = "(not shown)";

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The field, such as `spec.template.spec.containers[api].image`.
    pub path: String,
    /// What is there. None: nothing.
    pub from: Option<String>,
    /// What would be. None: it is removed.
    pub to: Option<String>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => write!(f, "~ {}: {from} → {to}", self.path),
            (None, Some(to)) => write!(f, "+ {}: {to}", self.path),
            (Some(from), None) => write!(f, "- {}: {from}", self.path),
            (None, None) => write!(f, "  {}", self.path),
        }
    }
}

/// An object for people: `Deployment shop-4f2a91c-8d03b6aa`.
#[must_use]
pub fn title(object: &Value) -> String {
    format!("{} {}", text(object, "/kind"), text(object, "/metadata/name"))
}

/// What applying `wanted` would change. Defaults that the server filled in are no differences; values of Secrets, and of
/// variables that sound like them, are never shown.
#[must_use]
pub fn difference(live: Option<&Value>, wanted: &Value) -> Vec<Line> {
    let mut walk = Walk { lines: Vec::new(), secret: text(wanted, "/kind") == "Secret" };
    let wanted = &without_secret_texts(wanted);
    for (key, value) in wanted.as_object().into_iter().flatten() {
        // Its identity: the two are compared because these are the same.
        if ["apiVersion", "kind", "status"].contains(&key.as_str()) {
            continue;
        }
        walk.compare(key, key, live.and_then(|l| l.get(key)), value);
    }
    if let Some(live) = live {
        let managers = live.pointer("/metadata/managedFields").and_then(Value::as_array).into_iter().flatten();
        for fields in managers.filter(|m| text(m, "/manager") == MANAGER && text(m, "/operation") == "Apply") {
            walk.removed("", fields.get("fieldsV1").unwrap_or(&Value::Null), live, Some(wanted));
        }
    }
    walk.lines.truncate(MAX_LINES);
    walk.lines
}

/// A Secret's `stringData` as the server keeps it: in `data`, as base64.
fn without_secret_texts(wanted: &Value) -> Value {
    let mut wanted = wanted.clone();
    if text(&wanted, "/kind") != "Secret" {
        return wanted;
    }
    let Some(Value::Object(texts)) = wanted.as_object_mut().and_then(|w| w.shift_remove("stringData")) else {
        return wanted;
    };
    let data = super::look::map_at(&mut wanted, "/data");
    for (key, value) in texts {
        let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
        data.insert(key, encoded.into());
    }
    wanted
}

struct Walk {
    lines: Vec<Line>,
    secret: bool,
}

impl Walk {
    fn compare(&mut self, path: &str, key: &str, live: Option<&Value>, wanted: &Value) {
        if self.lines.len() >= MAX_LINES || same(path, key, live, wanted) {
            return;
        }
        match (wanted, live) {
            (Value::Object(fields), _) if fields.is_empty() => self.leaf(path, live, Some(wanted)),
            (Value::Object(fields), live) => {
                let hide = sounds_secret(text(wanted, "/name"));
                for (key, value) in fields {
                    let at = join(path, key);
                    let below = live.and_then(|l| l.get(key));
                    if hide && key == "value" && !same(&at, key, below, value) {
                        let from = below.map(|_| HIDDEN.to_owned());
                        self.lines.push(Line { path: at, from, to: Some(HIDDEN.to_owned()) });
                    } else {
                        self.compare(&at, key, below, value);
                    }
                }
            }
            (Value::Array(items), live) => {
                let there = live.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                self.lists(path, key, there, items);
            }
            _ => self.leaf(path, live, Some(wanted)),
        }
    }

    fn lists(&mut self, path: &str, key: &str, live: &[Value], wanted: &[Value]) {
        if let Some(by) = merge_key(key, wanted) {
            for item in wanted {
                let name = plain(item.get(by).unwrap_or(&Value::Null));
                let there = live.iter().find(|l| l.get(by) == item.get(by));
                self.compare(&format!("{path}[{name}]"), "", there, item);
            }
            return;
        }
        for (i, item) in wanted.iter().enumerate() {
            self.compare(&format!("{path}[{i}]"), "", live.get(i), item);
        }
        // Such a list is replaced as a whole.
        for (i, item) in live.iter().enumerate().skip(wanted.len()) {
            self.leaf(&format!("{path}[{i}]"), Some(item), None);
        }
    }

    fn leaf(&mut self, path: &str, from: Option<&Value>, to: Option<&Value>) {
        let hidden = self.secret && path.starts_with("data.");
        let show = |v: &Value| if hidden { HIDDEN.to_owned() } else { shown(v) };
        let from = from.filter(|v| !v.is_null()).map(show);
        self.lines.push(Line { path: path.to_owned(), from, to: to.map(show) });
    }

    /// What our manager owns in the live object and no longer sets. `fields` is a `FieldsV1`.
    fn removed(&mut self, path: &str, fields: &Value, live: &Value, wanted: Option<&Value>) {
        for (key, below) in fields.as_object().into_iter().flatten() {
            if self.lines.len() >= MAX_LINES {
                return;
            }
            let (at, there, still) = if let Some(name) = key.strip_prefix("f:") {
                (join(path, name), live.get(name), wanted.and_then(|w| w.get(name)))
            } else if let Some(Ok(keys)) = key.strip_prefix("k:").map(serde_json::from_str::<Value>) {
                let is = |item: &&Value| {
                    let mut keys = keys.as_object().into_iter().flatten();
                    // `protocol: TCP` may be left out.
                    keys.all(|(k, v)| {
                        item.get(k) == Some(v) || (k == "protocol" && v == "TCP" && item.get(k).is_none())
                    })
                };
                let find = |list: Option<&'_ Value>| {
                    list.and_then(Value::as_array).and_then(|l| l.iter().position(|i| is(&i)))
                };
                let name = keys.as_object().and_then(|k| k.values().next()).map(plain).unwrap_or_default();
                let item = |list: Option<&'_ Value>| {
                    find(list).map(|i| list.and_then(|l| l.get(i)).cloned()).unwrap_or_default()
                };
                let (there, still) = (item(Some(live)), item(wanted));
                let at = format!("{path}[{name}]");
                match (there, still) {
                    (Some(there), Some(still)) => self.removed(&at, below, &there, Some(&still)),
                    (Some(there), None) => self.leaf(&at, Some(&there), None),
                    (None, _) => {}
                }
                continue;
            } else {
                continue;
            };
            match (there, still) {
                (Some(there), Some(still)) => self.removed(&at, below, there, Some(still)),
                (Some(there), None) if !matches!(below, Value::Object(b) if b.keys().any(|k| k.starts_with("f:"))) => {
                    self.leaf(&at, Some(there), None);
                }
                (Some(there), None) => self.removed(&at, below, there, None),
                (None, _) => {}
            }
        }
    }
}

fn join(path: &str, key: &str) -> String {
    let key = if key.contains(['.', '/']) { format!("[{key}]") } else { key.to_owned() };
    match (path.is_empty(), key.starts_with('[')) {
        (true, _) => key,
        (false, true) => format!("{path}{key}"),
        (false, false) => format!("{path}.{key}"),
    }
}

/// The key by which items of a list are the same ("Server-Side Apply", merge keys), where all items have it.
fn merge_key(list: &str, items: &[Value]) -> Option<&'static str> {
    let keys: &[&str] = match list {
        "containers" | "initContainers" | "env" | "volumes" | "imagePullSecrets" => &["name"],
        "ports" => &["name", "containerPort", "port"],
        "volumeMounts" => &["mountPath"],
        "hostAliases" => &["ip"],
        "topologySpreadConstraints" => &["topologyKey"],
        _ => &[],
    };
    keys.iter().copied().find(|key| items.iter().all(|i| i.get(key).is_some_and(|v| !v.is_null())))
}

/// Whether the two mean the same: equal, nothing against an empty value, one quantity written in two ways.
fn same(path: &str, key: &str, live: Option<&Value>, wanted: &Value) -> bool {
    match live.filter(|l| !l.is_null()) {
        None => empty(wanted),
        Some(live) if live == wanted => true,
        Some(live) => {
            let amounts =
                path.contains(".limits") || path.contains(".requests") || ["sizeLimit", "averageValue"].contains(&key);
            amounts && quantity(live).is_some_and(|q| Some(q) == quantity(wanted))
        }
    }
}

/// A value that the server does not keep.
fn empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(empty),
    }
}

/// A quantity in thousandths ("Quantity"): `500m`, `0.5`, `1Gi`.
pub(super) fn quantity(value: &Value) -> Option<i128> {
    let text = plain(value);
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: f64 = match unit {
        "" => 1.0,
        "m" => 0.001,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        _ => return None,
    };
    let value = number.parse::<f64>().ok()? * factor * 1000.0;
    #[expect(clippy::cast_possible_truncation, reason = "finite, and cut at the largest number")]
    value.is_finite().then_some(value.round() as i128)
}

/// A scalar as it is.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A value for people: one line, cut, nothing that looks like a secret.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) if text.contains('\n') => return format!("a text of {} lines", text.lines().count()),
        // What would be read as something else stands in quotes, as in YAML.
        Value::String(text) => match typed::scalar(text) {
            Some(Value::String(_)) if !text.is_empty() => text.clone(),
            _ => format!("\"{text}\""),
        },
        Value::Object(fields) if fields.contains_key("value") && sounds_secret(super::look::text(value, "/name")) => {
            format!("{} {HIDDEN}", super::look::text(value, "/name"))
        }
        other => other.to_string(),
    };
    let text = if looks_secret(&text).is_some() { mask(&text) } else { text };
    let mut cut: String = text.chars().take(120).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(120).is_some() {
        cut.push('…');
    }
    cut
}

/// A variable whose value is probably secret.
fn sounds_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "API_KEY", "APIKEY", "PRIVATE_KEY", "CREDENTIAL", "_DSN"]
        .iter()
        .any(|part| name.contains(part))
}

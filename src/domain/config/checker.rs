//! Checks a tree against a table and collects every mistake.

use std::{collections::HashMap, rc::Rc};

use super::{
    grammar::{Data, Field, Format, Kind, Object, Pair, Value, describe_kind, describe_object, objects},
    mistake::{MAX_MISTAKES, Mistake, nearest, shown},
    tree::{At, Entry, Node, NodeData},
    units,
};

/// Words of other tools and what they are called here.
const ELSEWHERE: [(&str, &str); 42] = [
    ("approvals", "approval"),
    ("reviewers", "approval"),
    ("branches", "push"),
    ("build_args", "env"),
    ("caches", "cache"),
    ("cmd", "run"),
    ("cmd", "start"),
    ("command", "run"),
    ("command", "start"),
    ("script", "run"),
    ("shell", "run"),
    ("depends_on", "switch_after"),
    ("needs", "switch_after"),
    ("needs", "after"),
    ("requires", "after"),
    ("checks", "after"),
    ("dir", "path"),
    ("directory", "path"),
    ("folder", "path"),
    ("root", "path"),
    ("working_directory", "path"),
    ("entrypoint", "start"),
    ("environment", "env"),
    ("variables", "env"),
    ("healthcheck", "health"),
    ("readiness", "health"),
    ("junit", "reports"),
    ("migrate", "pre_deploy"),
    ("ports", "port"),
    ("scale", "replicas"),
    ("instances", "replicas"),
    ("schedule", "windows"),
    ("timeout_minutes", "timeout"),
    ("type", "kind"),
    ("private_key", "private_key_file"),
    ("webhook_secret", "webhook_secret_file"),
    ("slack_url", "slack_url_file"),
    ("password", "password_file"),
    ("value", "file"),
    ("url", "url_file"),
    ("repos", "repositories"),
    ("bind", "listen"),
];

/// Checks a tree against a table and collects all mistakes on the way.
#[derive(Debug)]
pub struct Checker {
    root: &'static Object,
    path: Vec<String>,
    mistakes: Vec<Mistake>,
    more: bool,
}

impl Checker {
    /// A checker for files of this shape.
    #[must_use]
    pub fn new(root: &'static Object) -> Self {
        Self { root, path: Vec::new(), mistakes: Vec::new(), more: false }
    }

    /// The whole file.
    pub fn check_root(&mut self, node: &Node) -> Value {
        self.object(node, self.root, node.at)
    }

    /// All mistakes in the order of the file; after [`MAX_MISTAKES`] only that there are more.
    #[must_use]
    pub fn finish(mut self) -> Vec<Mistake> {
        self.mistakes.sort_by_key(|m| (m.line, m.column));
        // What stands behind an alias is seen once per use.
        self.mistakes.dedup_by(|a, b| (a.line, a.column, &a.message) == (b.line, b.column, &b.message));
        if self.more
            && let Some(last) = self.mistakes.last()
        {
            let place = At { line: last.line, column: last.column, length: last.length };
            self.mistakes.push(Mistake::new(place, "", "there are more mistakes than are shown", ""));
        }
        self.mistakes
    }

    /// Adds a mistake at a place that is not the one being checked.
    pub fn add(&mut self, mistake: Mistake) {
        if self.mistakes.len() < MAX_MISTAKES {
            self.mistakes.push(mistake);
        } else {
            self.more = true;
        }
    }

    /// True once no more mistakes are told: then nothing more is looked at, so that a hostile file costs no time.
    fn full(&mut self) -> bool {
        self.more |= self.mistakes.len() >= MAX_MISTAKES;
        self.more
    }

    fn wrong(
        &mut self,
        at: At,
        message: impl Into<String>,
        expected: impl Into<String>,
        hint: Option<String>,
    ) -> Value {
        let key = dotted(&self.path);
        self.add(Mistake::new(at, &key, message, expected).hint(hint));
        Value { at, data: Data::Invalid }
    }

    /// `key_at` is pointed to where there is no value to point to.
    fn check(&mut self, node: &Node, kind: &Kind, key_at: At) -> Value {
        if self.full() {
            return Value { at: node.at, data: Data::Invalid };
        }
        if let Kind::Object(object) = kind {
            return self.object(node, object, key_at);
        }
        if node.data == NodeData::Null {
            return self.wrong(key_at, format!("{} has no value", self.name()), describe_kind(kind), None);
        }
        match (kind, &node.data) {
            (Kind::List(item, most), NodeData::List(nodes)) => self.list(node, nodes, item, *most),
            (Kind::Map(keys, of, most), NodeData::Map(entries)) => self.map(node, entries, keys, of, *most),
            (Kind::WordOr(word, _), NodeData::Scalar { text, .. }) if text == word => {
                Value { at: node.at, data: Data::Text((*word).to_owned()) }
            }
            (Kind::WordOr(_, object) | Kind::TextOr(_, object), NodeData::Map(_)) => self.object(node, object, key_at),
            (Kind::List(..) | Kind::Map(..) | Kind::WordOr(..), _) | (_, NodeData::List(_) | NodeData::Map(_)) => {
                let hint = match (kind, &node.data) {
                    (Kind::List(..), NodeData::Scalar { text, .. }) if text.len() <= 60 => Some(format!("[{text}]")),
                    _ => None,
                };
                self.wrong(node.at, format!("{} is {}", self.name(), describe(node)), describe_kind(kind), hint)
            }
            (_, NodeData::Scalar { text, bare }) => self.scalar(node.at, text, *bare, kind),
            (_, NodeData::Null) => Value { at: node.at, data: Data::Invalid },
        }
    }

    fn scalar(&mut self, at: At, text: &str, bare: bool, kind: &Kind) -> Value {
        let (data, why, hint) = match kind {
            Kind::Text(format) | Kind::TextOr(format, _) => match (format.check)(text) {
                Ok(()) => (Some(Data::Text(text.to_owned())), None, None),
                Err(wrong) => (None, Some(wrong.why), wrong.hint),
            },
            Kind::Bool => {
                let data = match text {
                    "true" | "True" | "TRUE" if bare => Some(Data::Bool(true)),
                    "false" | "False" | "FALSE" if bare => Some(Data::Bool(false)),
                    _ => None,
                };
                let hint = match text.to_ascii_lowercase().as_str() {
                    "true" | "yes" | "on" | "y" => Some("true"),
                    "false" | "no" | "off" | "n" => Some("false"),
                    _ => None,
                };
                (data, None, hint.map(str::to_owned))
            }
            Kind::Int(least, most) => {
                let number = text.parse::<u64>().ok().filter(|n| (least..=most).contains(&n));
                let (hint, why) = match number {
                    Some(n) if !bare => (Some(n.to_string()), Some("is in quotes".to_owned())),
                    _ => (None, None),
                };
                (number.filter(|_| bare).map(Data::Int), why, hint)
            }
            Kind::Cpu => (units::parse_cpu(text).map(Data::Number), None, None),
            Kind::Size => (units::parse_size(text).map(Data::Int), None, units::guess_size(text)),
            Kind::Duration(least, most) => {
                let found = units::parse_duration(text);
                let within = found.filter(|d| (u128::from(*least)..=u128::from(*most)).contains(&d.as_millis()));
                let why = match (found, within) {
                    (Some(d), None) if d.as_millis() > u128::from(*most) => Some("is too long"),
                    (Some(_), None) => Some("is too short"),
                    _ => None,
                };
                let hint = if found.is_none() { units::guess_duration(text) } else { None };
                (within.map(Data::Duration), why.map(str::to_owned), hint)
            }
            Kind::Word(words) => {
                (words.contains(&text).then(|| Data::Text(text.to_owned())), None, nearest(text, words.iter().copied()))
            }
            _ => (None, None, None),
        };
        match data {
            Some(data) => Value { at, data },
            None => {
                let why = why.unwrap_or_else(|| format!("is not {}", short_kind(kind)));
                self.wrong(at, format!("{} {why}", shown(text)), describe_kind(kind), hint)
            }
        }
    }

    fn list(&mut self, node: &Node, nodes: &[Rc<Node>], item: &Kind, most: usize) -> Value {
        if nodes.len() > most {
            let message = format!("{} has {} items", self.name(), nodes.len());
            return self.wrong(node.at, message, format!("at most {most}"), None);
        }
        let mut items = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            self.path.push(format!("[{index}]"));
            let value = self.check(node, item, node.at);
            self.path.pop();
            if value.data != Data::Invalid {
                items.push(value);
            }
        }
        Value { at: node.at, data: Data::List(items) }
    }

    fn map(&mut self, node: &Node, entries: &[Entry], keys: &Format, of: &Kind, most: usize) -> Value {
        if entries.len() > most {
            let message = format!("{} has {} keys", self.name(), entries.len());
            return self.wrong(node.at, message, format!("at most {most}"), None);
        }
        let mut pairs = Vec::with_capacity(entries.len());
        let mut seen = HashMap::new();
        for entry in entries {
            self.path.push(entry.key.clone());
            if !self.repeated(&mut seen, entry) {
                if let Err(wrong) = (keys.check)(&entry.key) {
                    let message = format!("the name {} {}", shown(&entry.key), wrong.why);
                    self.wrong(entry.at, message, keys.expected, wrong.hint);
                }
                let value = self.check(&entry.value, of, entry.at);
                pairs.push(Pair { key: entry.key.clone(), at: entry.at, written: true, value });
            }
            self.path.pop();
        }
        Value { at: node.at, data: Data::Map(pairs) }
    }

    fn object(&mut self, node: &Node, object: &'static Object, key_at: At) -> Value {
        let NodeData::Map(entries) = &node.data else {
            let (at, what) = match &node.data {
                NodeData::Null => (key_at, "has no value".to_owned()),
                // Not shown: where a secret's file is expected, somebody may have written the secret.
                NodeData::Scalar { .. } => (node.at, "is a single value".to_owned()),
                _ => (node.at, format!("is {}", describe(node))),
            };
            // `test: make test` for `test: {run: make test}` is the commonest of all.
            let hint = match &node.data {
                NodeData::Scalar { text, .. } if object.fields[0].key == "run" && text.len() <= 60 => {
                    Some(format!("{{run: {text}}}"))
                }
                _ => None,
            };
            return self.wrong(at, format!("{} {what}", self.name()), describe_object(object), hint);
        };
        let mut pairs = Vec::with_capacity(object.fields.len());
        let mut seen = HashMap::new();
        for entry in entries {
            self.path.push(entry.key.clone());
            if !self.repeated(&mut seen, entry) {
                match object.fields.iter().find(|f| f.key == entry.key) {
                    Some(field) => {
                        let value = self.check(&entry.value, &field.kind, entry.at);
                        pairs.push(Pair { key: entry.key.clone(), at: entry.at, written: true, value });
                    }
                    None => self.unknown(entry, object),
                }
            }
            self.path.pop();
        }
        for field in object.fields {
            if seen.contains_key(field.key) {
                continue;
            }
            if field.required {
                let message = format!("{} has no `{}`", self.subject(object), field.key);
                self.wrong(key_at, message, format!("`{}`, {}", field.key, describe_kind(&field.kind)), None);
            }
            if let Some(value) = self.default(field, node.at) {
                pairs.push(Pair { key: field.key.to_owned(), at: node.at, written: false, value });
            }
        }
        Value { at: node.at, data: Data::Map(pairs) }
    }

    /// What holds where the key is not written: the default as if it had been.
    fn default(&mut self, field: &Field, at: At) -> Option<Value> {
        match (&field.kind, field.default?) {
            (kind @ Kind::Object(_), "{}") => Some(self.check(&Node::empty_map(at), kind, at)),
            // Other defaults of these are words for the reader: they depend on the rest of the file.
            (
                Kind::Object(_) | Kind::List(..) | Kind::Map(..) | Kind::Text(_) | Kind::WordOr(..) | Kind::TextOr(..),
                _,
            ) => None,
            (kind, text) => Some(self.check(&Node::bare(text, at), kind, at)),
        }
    }

    fn repeated<'e>(&mut self, seen: &mut HashMap<&'e str, At>, entry: &'e Entry) -> bool {
        let Some(first) = seen.insert(&entry.key, entry.at) else { return false };
        let message = format!("{} stands here a second time", shown(&entry.key));
        self.wrong(entry.at, message, format!("it once (the first is on line {})", first.line), None);
        true
    }

    fn unknown(&mut self, entry: &Entry, object: &'static Object) {
        if self.full() {
            return;
        }
        let keys = || object.fields.iter().map(|f| f.key);
        if entry.key == "<<" {
            self.wrong(entry.at, "merge keys are not supported", "an alias for a whole value (`steps: *steps`)", None);
            return;
        }
        let written = entry.key.to_lowercase().replace('-', "_");
        let foreign = ELSEWHERE.iter().find(|(word, ours)| *word == written && keys().any(|k| k == *ours));
        let hint = foreign.map(|(_, ours)| (*ours).to_owned()).or_else(|| nearest(&entry.key, keys()));
        let mut expected = format!("one of {}", keys().collect::<Vec<_>>().join(", "));
        if hint.is_none()
            && let Some(home) = home_of(self.root, &entry.key, object)
        {
            expected.push_str(&format!(" ({} is a key of {home})", shown(&entry.key)));
        }
        let message = format!("{} is not a key of {}", shown(&entry.key), object.name);
        self.wrong(entry.at, message, expected, hint);
    }

    /// The value being checked, as messages call it.
    fn name(&self) -> String {
        match self.path.as_slice() {
            [] => "the file".to_owned(),
            [.., before, last] if last.starts_with('[') => format!("an item of {}", shown(before)),
            [.., last] => shown(last),
        }
    }

    fn subject(&self, object: &Object) -> String {
        if self.path.is_empty() { "the file".to_owned() } else { format!("{} ({})", self.name(), object.name) }
    }
}

/// Where else a key is known: the name of the first other object that has it.
fn home_of(root: &'static Object, key: &str, here: &Object) -> Option<&'static str> {
    objects(root).into_iter().find(|o| o.name != here.name && o.fields.iter().any(|f| f.key == key)).map(|o| o.name)
}

/// A path as people write it: `apps.backend.cache[0]`; names that hold dots or the like in quotes.
#[must_use]
pub fn dotted(path: &[String]) -> String {
    let mut out = String::new();
    for part in path {
        let index = part.strip_prefix('[').and_then(|p| p.strip_suffix(']')).is_some_and(|p| p.parse::<u32>().is_ok());
        if index {
            out.push_str(part);
            continue;
        }
        if !out.is_empty() {
            out.push('.');
        }
        if !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') {
            out.extend(part.chars().take(80));
        } else {
            out.push_str(&shown(part).replace('`', "\""));
        }
    }
    out
}

fn describe(node: &Node) -> String {
    match &node.data {
        NodeData::Null => "empty".to_owned(),
        NodeData::Scalar { text, .. } => format!("the single value {}", shown(text)),
        NodeData::List(_) => "a list".to_owned(),
        NodeData::Map(_) => "a mapping".to_owned(),
    }
}

fn short_kind(kind: &Kind) -> &'static str {
    match kind {
        Kind::Bool => "a boolean",
        Kind::Int(..) => "a whole number in range",
        Kind::Cpu => "a number of cores",
        Kind::Size => "a size",
        Kind::Duration(..) => "a duration",
        Kind::Word(_) => "one of the words",
        _ => "right",
    }
}

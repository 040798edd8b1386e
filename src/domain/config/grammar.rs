//! A small grammar of configuration files: one table per file says what may stand where, and from it come the
//! checks, the JSON schema and the reference.

use std::{collections::HashMap, rc::Rc, time::Duration};

use super::{
    mistake::{MAX_MISTAKES, Mistake, nearest, shown},
    tree::{At, Entry, Node, NodeData},
    units,
};

/// What is wrong with a text, and what may have been meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong, as the end of "`text` …".
    pub why: String,
    /// What may have been meant.
    pub hint: Option<String>,
}

/// A kind of text.
#[derive(Debug)]
pub struct Format {
    /// What is expected, in words.
    pub expected: &'static str,
    /// The same as a regular expression for the JSON schema; empty where there is none.
    pub pattern: &'static str,
    /// The check itself.
    pub check: fn(&str) -> Result<(), Wrong>,
}

/// What may stand as a value.
#[derive(Debug)]
pub enum Kind {
    /// A text; bare numbers and booleans are taken as they are written.
    Text(&'static Format),
    /// `true` or `false`.
    Bool,
    /// A whole number within these bounds.
    Int(u64, u64),
    /// Cores.
    Cpu,
    /// Bytes.
    Size,
    /// A duration within these bounds, in milliseconds.
    Duration(u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of these, at most so many.
    List(&'static Kind, usize),
    /// A mapping from keys of that format to these, at most so many.
    Map(&'static Format, &'static Kind, usize),
    /// A mapping with these keys.
    Object(&'static Object),
    /// A single word, or a mapping.
    WordOr(&'static str, &'static Object),
}

/// A mapping with known keys.
#[derive(Debug)]
pub struct Object {
    /// What it is called in messages and in the reference: "an app".
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// Its keys, in the order of the reference.
    pub fields: &'static [Field],
}

/// A known key.
#[derive(Debug)]
pub struct Field {
    /// The key.
    pub key: &'static str,
    /// What may stand there.
    pub kind: Kind,
    /// Whether it must stand there.
    pub required: bool,
    /// What holds where it does not, as it would be written.
    pub default: Option<&'static str>,
    /// One line of documentation.
    pub doc: &'static str,
}

/// A value that was found right, with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// Where it stands.
    pub at: At,
    /// What it is.
    pub data: Data,
}

/// A checked value.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// It was wrong; the mistake has been told.
    Invalid,
    /// A text or one of the allowed words.
    Text(String),
    /// A boolean.
    Bool(bool),
    /// A whole number, or bytes.
    Int(u64),
    /// Cores.
    Number(f64),
    /// A duration.
    Duration(Duration),
    /// A list, without its wrong items.
    List(Vec<Value>),
    /// A mapping in the order written, then the defaults.
    Map(Vec<Pair>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub at: At,
    /// False for a default.
    pub written: bool,
    /// The value.
    pub value: Value,
}

impl Value {
    /// The pairs of a mapping.
    #[must_use]
    pub fn pairs(&self) -> &[Pair] {
        if let Data::Map(pairs) = &self.data { pairs } else { &[] }
    }

    /// The pair with this key, written or by default.
    #[must_use]
    pub fn pair(&self, key: &str) -> Option<&Pair> {
        self.pairs().iter().find(|p| p.key == key)
    }

    /// The pair with this key if somebody wrote it.
    #[must_use]
    pub fn written(&self, key: &str) -> Option<&Pair> {
        self.pair(key).filter(|p| p.written)
    }

    /// The value under this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.pair(key).map(|p| &p.value)
    }

    /// The items of a list.
    #[must_use]
    pub fn items(&self) -> &[Value] {
        if let Data::List(items) = &self.data { items } else { &[] }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if let Data::Text(text) = &self.data { Some(text) } else { None }
    }

    /// The text under this key.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_text()
    }

    /// The texts of the list under this key; none if it is not there.
    #[must_use]
    pub fn texts(&self, key: &str) -> Vec<String> {
        self.get(key).map_or(&[][..], Value::items).iter().filter_map(|v| Some(v.as_text()?.to_owned())).collect()
    }

    /// The number under this key.
    #[must_use]
    pub fn int(&self, key: &str) -> Option<u64> {
        if let Data::Int(n) = self.get(key)?.data { Some(n) } else { None }
    }

    /// The boolean under this key, false if it is not there.
    #[must_use]
    pub fn bool(&self, key: &str) -> bool {
        matches!(self.get(key).map(|v| &v.data), Some(Data::Bool(true)))
    }

    /// The duration under this key. Fields of this kind have a default, so it is there if the file is right.
    #[must_use]
    pub fn duration(&self, key: &str) -> Duration {
        if let Some(Data::Duration(d)) = self.get(key).map(|v| &v.data) { *d } else { Duration::ZERO }
    }
}

/// Words of other tools and what they are called here.
const ELSEWHERE: [(&str, &str); 34] = [
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
            (Kind::WordOr(_, object), NodeData::Map(_)) => self.object(node, object, key_at),
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
            Kind::Text(format) => match (format.check)(text) {
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
                _ => (node.at, format!("is {}", describe(node))),
            };
            // `test: make test` for `test: {run: make test}` is the commonest of all.
            let hint = match &node.data {
                NodeData::Scalar { text, .. } if object.fields[0].required && text.len() <= 60 => {
                    Some(format!("{{{}: {text}}}", object.fields[0].key))
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
                self.wrong(key_at, message, format!("`{}: …`, {}", field.key, describe_kind(&field.kind)), None);
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
            (Kind::Object(_) | Kind::List(..) | Kind::Map(..) | Kind::Text(_) | Kind::WordOr(..), _) => None,
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

/// All objects of a table, each once, in reading order.
#[must_use]
pub fn objects(root: &'static Object) -> Vec<&'static Object> {
    fn inner(kind: &'static Kind, found: &mut Vec<&'static Object>) {
        match kind {
            Kind::List(of, _) | Kind::Map(_, of, _) => inner(of, found),
            Kind::Object(object) | Kind::WordOr(_, object) => visit(object, found),
            _ => {}
        }
    }
    fn visit(object: &'static Object, found: &mut Vec<&'static Object>) {
        if found.iter().any(|o| o.name == object.name) {
            return;
        }
        found.push(object);
        for field in object.fields {
            inner(&field.kind, found);
        }
    }
    let mut found = Vec::new();
    visit(root, &mut found);
    found
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

fn describe_object(object: &Object) -> String {
    let keys: Vec<_> = object.fields.iter().map(|f| f.key).collect();
    format!("a mapping with the keys {}", keys.join(", "))
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

/// What is expected, in words.
#[must_use]
pub fn describe_kind(kind: &Kind) -> String {
    match kind {
        Kind::Text(format) => format.expected.to_owned(),
        Kind::Bool => "true or false".to_owned(),
        Kind::Int(least, most) => format!("a whole number from {least} to {most}"),
        Kind::Cpu => "cores such as 2, 0.5 or 500m".to_owned(),
        Kind::Size => "a size such as 512Mi or 2Gi".to_owned(),
        Kind::Duration(least, most) => {
            let range = match (least, most) {
                (0, most) => format!("at most {}", units::format_duration(Duration::from_millis(*most))),
                (least, most) => format!(
                    "{} to {}",
                    units::format_duration(Duration::from_millis(*least)),
                    units::format_duration(Duration::from_millis(*most))
                ),
            };
            format!("a duration such as 20m, 30s or 250ms, {range}")
        }
        Kind::Word(words) => format!("one of {}", words.join(", ")),
        Kind::List(of, _) => match of {
            Kind::Text(format) => format!("a list in brackets, each item {}", format.expected),
            Kind::Word(words) => format!("a list in brackets of {}", words.join(", ")),
            _ => "a list".to_owned(),
        },
        Kind::Map(keys, of, _) => match of {
            Kind::Object(object) => format!("a mapping from names to {}", object.name),
            _ => format!("a mapping; its keys are {}", keys.expected),
        },
        Kind::Object(object) => describe_object(object),
        Kind::WordOr(word, object) => format!("`{word}` or {}", describe_object(object)),
    }
}

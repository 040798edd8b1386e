//! A small grammar of configuration files: one table per file says what may stand where, and from it come the
//! checks, the JSON schema and the reference.

use std::time::Duration;

use super::{tree::At, units};

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
    /// A text, or a mapping that says more.
    TextOr(&'static Format, &'static Object),
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

/// All objects of a table, each once, in reading order.
#[must_use]
pub fn objects(root: &'static Object) -> Vec<&'static Object> {
    fn inner(kind: &'static Kind, found: &mut Vec<&'static Object>) {
        match kind {
            Kind::List(of, _) | Kind::Map(_, of, _) => inner(of, found),
            Kind::Object(object) | Kind::WordOr(_, object) | Kind::TextOr(_, object) => visit(object, found),
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

/// The same for an object.
#[must_use]
pub fn describe_object(object: &Object) -> String {
    let keys: Vec<_> = object.fields.iter().map(|f| f.key).collect();
    format!("a mapping with the keys {}", keys.join(", "))
}

/// What is expected, in words.
#[must_use]
pub fn describe_kind(kind: &Kind) -> String {
    match kind {
        Kind::Text(format) => format.expected.to_owned(),
        Kind::Bool => "true or false".to_owned(),
        Kind::Int(only, most) if only == most => format!("the number {only}"),
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
        Kind::TextOr(format, object) => format!("{}, or {}", format.expected, describe_object(object)),
    }
}

//! YAML as a tree in which every node knows its place. Bounded before and while it is read.
//!
//! Why not serde: a deserialiser stops at the first mistake, and an author wants them all.

use std::{collections::HashMap, rc::Rc};

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span};

use super::mistake::{Mistake, plain, shown};

/// The largest file that is read, in bytes.
pub const MAX_FILE: usize = 256 * 1024;
/// So many bytes of text count as one value more.
const TEXT: usize = 256;

/// How much of a text is read before it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest file, in bytes.
    pub bytes: usize,
    /// The deepest nesting.
    pub depth: usize,
    /// The most nodes, aliases counted as often as they are used.
    pub nodes: usize,
}

/// Limits of files that people write for us. The grammar itself needs nine levels.
const SMALL: Limits = Limits { bytes: MAX_FILE, depth: 24, nodes: 50_000 };

/// A place in the text. Lines and columns count from 1, columns and lengths in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct At {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
    /// How much of the line is meant.
    pub length: u32,
}

/// A node and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it stands.
    pub at: At,
    /// What it is.
    pub data: NodeData,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeData {
    /// Nothing: an empty value, `~` or `null`.
    Null,
    /// A scalar as written, and whether it is bare (and so may be a number or a boolean).
    Scalar {
        /// The text, escapes resolved.
        text: String,
        /// Not in quotes.
        bare: bool,
    },
    /// A list.
    List(Vec<Rc<Node>>),
    /// Keys and values in the order written; a key may stand there twice.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key's text.
    pub key: String,
    /// Not in quotes: YAML 1.1 may take it for a boolean or a number.
    pub bare: bool,
    /// Where the key stands.
    pub at: At,
    /// The value.
    pub value: Rc<Node>,
}

impl Node {
    /// A bare scalar, read as YAML reads it.
    #[must_use]
    pub fn bare(text: &str, at: At) -> Self {
        let data = match text {
            "" | "~" | "null" | "Null" | "NULL" => NodeData::Null,
            _ => NodeData::Scalar { text: text.to_owned(), bare: true },
        };
        Self { at, data }
    }

    /// A mapping with nothing in it.
    #[must_use]
    pub fn empty_map(at: At) -> Self {
        Self { at, data: NodeData::Map(Vec::new()) }
    }

    /// The value under this key, if this is a mapping that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.data {
            NodeData::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &*e.value),
            _ => None,
        }
    }

    /// The entries of a mapping; none for anything else.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        match &self.data {
            NodeData::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; none for anything else.
    #[must_use]
    pub fn items(&self) -> &[Rc<Node>] {
        match &self.data {
            NodeData::List(items) => items,
            _ => &[],
        }
    }

    /// The text of a scalar.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.data {
            NodeData::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The same as JSON, bare scalars typed by YAML's core schema.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.data {
            NodeData::Null => Value::Null,
            NodeData::Scalar { text, bare: true } => match text.as_str() {
                "true" | "True" | "TRUE" => Value::Bool(true),
                "false" | "False" | "FALSE" => Value::Bool(false),
                _ if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
                    let number = text.parse::<i64>().map(Into::into).ok();
                    let number = number.or_else(|| serde_json::Number::from_f64(text.parse().ok()?));
                    number.map_or_else(|| Value::String(text.clone()), Value::Number)
                }
                _ => Value::String(text.clone()),
            },
            NodeData::Scalar { text, .. } => Value::String(text.clone()),
            NodeData::List(items) => Value::Array(items.iter().map(|i| i.to_json()).collect()),
            NodeData::Map(entries) => {
                Value::Object(entries.iter().map(|e| (e.key.clone(), e.value.to_json())).collect())
            }
        }
    }
}

fn at(span: Span) -> At {
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let length = if span.end.line() == span.start.line() { span.end.col().saturating_sub(span.start.col()) } else { 1 };
    At {
        line: small(span.start.line()),
        column: small(span.start.col()).saturating_add(1),
        length: small(length.max(1)),
    }
}

/// Reads one document. An empty text, or one of comments alone, is None.
///
/// # Errors
/// The one mistake that kept it from being read as a tree.
pub fn read(text: &str) -> Result<Option<Rc<Node>>, Mistake> {
    let mut reader = Reader::new(SMALL, 1);
    reader.all(text)?;
    Ok(reader.roots.pop())
}

/// Reads all documents of a text, empty ones left out.
///
/// # Errors
/// The one mistake that kept it from being read as trees.
pub fn read_all(text: &str, limits: Limits) -> Result<Vec<Rc<Node>>, Mistake> {
    let mut reader = Reader::new(limits, usize::MAX);
    reader.all(text)?;
    reader.roots.retain(|root| root.data != NodeData::Null);
    Ok(reader.roots)
}

/// Refuses what no editor shows as it is: too much, or control characters.
fn refuse_unreadable(text: &str, most: usize) -> Result<(), Mistake> {
    let start = At { line: 1, column: 1, length: 1 };
    if text.len() > most {
        let message = format!("the file has {} KiB", text.len().div_ceil(1024));
        return Err(Mistake::new(start, "", message, format!("at most {} KiB", most / 1024)));
    }
    let (mut line, mut column) = (1, 1);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' => (line, column) = (line + 1, 1),
            '\t' => column += 1,
            // Only as a part of CRLF: alone it is a line break to YAML and none to most tools.
            '\r' if chars.peek() == Some(&'\n') => column += 1,
            c if c.is_control() => {
                let message = format!("the character U+{:04X} cannot be seen", u32::from(c));
                let expected = "text without control characters; inside double quotes they can be written as \\x07";
                return Err(Mistake::new(At { line, column, length: 1 }, "", message, expected));
            }
            _ => column += 1,
        }
    }
    Ok(())
}

/// What the parser says, in words that help.
fn syntax(kind: &ErrorKind, depth: usize) -> (String, String) {
    let levels = format!("at most {depth} levels of nesting");
    let expected = match kind {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart => "spaces for indentation",
        ErrorKind::MappingValueNotAllowed => "quotes around a text that contains `: `, or less indentation",
        ErrorKind::UnknownAnchor | ErrorKind::MissingAnchorOrAliasName => {
            "quotes around a text that begins with `*` or `&`"
        }
        ErrorKind::UnexpectedCharacter { .. } => "quotes around a text that begins with a special character",
        ErrorKind::UnclosedQuotedScalar | ErrorKind::DocumentIndicatorInQuotedScalar => "a closing quote",
        ErrorKind::UnclosedFlowCollection { .. } => "a closing bracket",
        ErrorKind::RecursionLimitExceeded => &levels,
        _ => "well-formed YAML",
    };
    let message = match kind {
        ErrorKind::RecursionLimitExceeded => "nested too deeply".to_owned(),
        other => format!("this is not YAML: {}", plain(&other.to_string())),
    };
    (message, expected.to_owned())
}

enum Frame {
    List { at: At, anchor: usize, items: Vec<Rc<Node>>, size: usize },
    Map { at: At, anchor: usize, entries: Vec<Entry>, key: Option<(String, bool, At)>, size: usize },
}

struct Reader {
    limits: Limits,
    most_documents: usize,
    stack: Vec<Frame>,
    anchors: HashMap<usize, (Rc<Node>, usize)>,
    roots: Vec<Rc<Node>>,
    documents: usize,
    nodes: usize,
    /// What the documents so far expand to.
    total: usize,
}

impl Reader {
    fn new(limits: Limits, most_documents: usize) -> Self {
        Self {
            limits,
            most_documents,
            stack: Vec::new(),
            anchors: HashMap::new(),
            roots: Vec::new(),
            documents: 0,
            nodes: 0,
            total: 0,
        }
    }

    fn all(&mut self, text: &str) -> Result<(), Mistake> {
        refuse_unreadable(text, self.limits.bytes)?;
        let options = granit_parser::options! {
            flow_nesting_limit: self.limits.depth,
            block_nesting_limit: self.limits.depth,
        };
        for event in Parser::new_from_str_with_options(text, options) {
            match event {
                Ok((event, span)) => self.take(event, span)?,
                Err(error) => {
                    let marker = *error.marker();
                    let place = at(Span::new(marker, marker));
                    let (message, expected) = syntax(error.kind(), self.limits.depth);
                    return Err(Mistake::new(place, "", message, expected));
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Mistake> {
        let place = at(span);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > self.most_documents {
                    let message = "a second document begins here";
                    return Err(Mistake::new(place, "", message, "one document: remove the `---`"));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let bare = style == ScalarStyle::Plain;
                let mut node = if bare {
                    Node::bare(&text, place)
                } else {
                    Node { at: place, data: NodeData::Scalar { text: text.clone().into_owned(), bare: false } }
                };
                if let Some(tag) = tag {
                    match tag.core_suffix() {
                        Some("str") => {
                            let text =
                                if span.end.index() <= span.start.index() { String::new() } else { text.into_owned() };
                            node.data = NodeData::Scalar { text, bare: false };
                        }
                        Some("int" | "float" | "bool" | "null") => {}
                        _ => return Err(refuse_tag(place, &tag.original())),
                    }
                }
                let size = match &node.data {
                    // A long text weighs more: what an alias repeats is kept each time.
                    NodeData::Scalar { text, .. } => 1 + text.len() / TEXT,
                    _ => 1,
                };
                self.place(Rc::new(node), anchor, size)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                if let Some(tag) = tag.filter(|t| t.core_suffix() != Some("seq")) {
                    return Err(refuse_tag(place, &tag.original()));
                }
                self.stack.push(Frame::List { at: place, anchor, items: Vec::new(), size: 1 });
            }
            Event::MappingStart(_, anchor, tag) => {
                if let Some(tag) = tag.filter(|t| t.core_suffix() != Some("map")) {
                    return Err(refuse_tag(place, &tag.original()));
                }
                self.stack.push(Frame::Map { at: place, anchor, entries: Vec::new(), key: None, size: 1 });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let (mut at, anchor, size, data) = match self.stack.pop() {
                    Some(Frame::List { at, anchor, items, size }) => (at, anchor, size, NodeData::List(items)),
                    Some(Frame::Map { at, anchor, entries, size, .. }) => (at, anchor, size, NodeData::Map(entries)),
                    None => return Ok(()),
                };
                if place.line == at.line && span.end.index() > span.start.index() {
                    at.length = (place.column + place.length).saturating_sub(at.column).max(1);
                }
                self.place(Rc::new(Node { at, data }), anchor, size)?;
            }
            Event::Alias(id) => {
                let Some((node, size)) = self.anchors.get(&id).cloned() else {
                    let message = "this alias stands inside what it stands for";
                    return Err(Mistake::new(place, "", message, "an alias after the end of its anchor"));
                };
                self.place(node, 0, size)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Puts a finished node where it belongs. `size` counts what it expands to.
    fn place(&mut self, node: Rc<Node>, anchor: usize, size: usize) -> Result<(), Mistake> {
        self.nodes += 1;
        let most = self.limits.nodes;
        if size > most || self.nodes > most {
            let message = format!("the file expands to more than {most} values");
            return Err(Mistake::new(node.at, "", message, "fewer values, or fewer uses of aliases"));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, (Rc::clone(&node), size));
        }
        match self.stack.last_mut() {
            None => {
                self.total = self.total.saturating_add(size);
                if self.total > most {
                    let message = format!("the documents of this file expand to more than {most} values");
                    return Err(Mistake::new(node.at, "", message, "fewer values, or fewer uses of aliases"));
                }
                self.roots.push(node);
            }
            Some(Frame::List { items, size: total, .. }) => {
                items.push(node);
                *total = total.saturating_add(size);
            }
            Some(Frame::Map { entries, key, size: total, .. }) => {
                *total = total.saturating_add(size);
                match key.take() {
                    Some((key, bare, at)) => entries.push(Entry { key, bare, at, value: node }),
                    None => {
                        let (text, bare) = match &node.data {
                            NodeData::Scalar { text, bare } => (text.clone(), *bare),
                            NodeData::Null => ("null".to_owned(), true),
                            NodeData::List(_) | NodeData::Map(_) => {
                                let message = "a key is not a plain text";
                                return Err(Mistake::new(node.at, "", message, "a word before the `:`"));
                            }
                        };
                        *key = Some((text, bare, node.at));
                    }
                }
            }
        }
        Ok(())
    }
}

fn refuse_tag(at: At, tag: &str) -> Mistake {
    Mistake::new(at, "", format!("the tag {} has no meaning here", shown(tag)), "a value without a tag")
}

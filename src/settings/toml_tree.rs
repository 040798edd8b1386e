//! TOML as the tree that the checks work on, every node with its place.

use std::rc::Rc;

use toml::de::{DeTable, DeValue};

use crate::domain::config::tree::{At, Entry, Node, NodeData};

/// Reads TOML.
///
/// # Errors
/// Everything that keeps it from being TOML, with places.
pub(super) fn read(text: &str) -> Result<Node, Vec<(At, String)>> {
    let lines = Lines::of(text);
    let (root, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(table_node(root.get_ref(), lines.at(root.span()), &lines));
    }
    Err(errors.iter().map(|e| (lines.at(e.span().unwrap_or(0..0)), e.message().to_owned())).collect())
}

/// Where the lines of a text begin.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    fn at(&self, span: std::ops::Range<usize>) -> At {
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX - 1);
        let line = self.starts.partition_point(|start| *start <= span.start).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let column = self.text.get(start..span.start).map_or(0, |t| t.chars().count());
        let length = self.text.get(span).map_or(1, |t| t.lines().next().unwrap_or_default().chars().count());
        At { line: small(line), column: small(column + 1), length: small(length.max(1)) }
    }
}

fn table_node(table: &DeTable<'_>, at: At, lines: &Lines<'_>) -> Node {
    let entries = table.iter().map(|(key, value)| Entry {
        key: key.get_ref().to_string(),
        bare: true,
        at: lines.at(key.span()),
        value: Rc::new(value_node(value.get_ref(), lines.at(value.span()), lines)),
    });
    let mut entries: Vec<Entry> = entries.collect();
    entries.sort_by_key(|e| (e.at.line, e.at.column));
    Node { at, data: NodeData::Map(entries) }
}

fn value_node(value: &DeValue<'_>, at: At, lines: &Lines<'_>) -> Node {
    let bare = |text: String| NodeData::Scalar { text, bare: true };
    let data = match value {
        DeValue::String(text) => NodeData::Scalar { text: text.to_string(), bare: false },
        DeValue::Integer(n) => {
            let number = i128::from_str_radix(n.as_str(), n.radix()).map(|n| n.to_string());
            bare(number.unwrap_or_else(|_| n.as_str().to_owned()))
        }
        DeValue::Float(n) => bare(n.as_str().to_owned()),
        DeValue::Boolean(b) => bare(b.to_string()),
        DeValue::Datetime(time) => bare(time.to_string()),
        DeValue::Array(items) => {
            NodeData::List(items.iter().map(|i| Rc::new(value_node(i.get_ref(), lines.at(i.span()), lines))).collect())
        }
        DeValue::Table(table) => return table_node(table, at, lines),
    };
    Node { at, data }
}

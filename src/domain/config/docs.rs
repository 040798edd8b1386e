//! JSON schema and Markdown reference of a table, so that neither can say anything else than the checks do.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::grammar::{Field, Kind, Object, describe_kind, objects};

/// The JSON schema (draft 2020-12) of files of this shape.
#[must_use]
pub fn schema(root: &'static Object, title: &str) -> Value {
    let mut defs = Map::new();
    for object in objects(root).into_iter().skip(1) {
        defs.insert(anchor(object), object_schema(object));
    }
    let mut whole = object_schema(root);
    if let Value::Object(whole) = &mut whole {
        whole.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        whole.insert("title".to_owned(), json!(title));
        whole.insert("$defs".to_owned(), Value::Object(defs));
    }
    whole
}

/// An object's name as a word: `an app` → `app`.
fn anchor(object: &Object) -> String {
    object.name.trim_start_matches("an ").trim_start_matches("a ").trim_start_matches("the ").replace(' ', "_")
}

fn object_schema(object: &'static Object) -> Value {
    let mut properties = Map::new();
    for field in object.fields {
        let mut schema = kind_schema(&field.kind);
        if let Value::Object(schema) = &mut schema {
            let mut doc = field.doc.to_owned();
            if let Some(default) = field.default.filter(|d| *d != "{}") {
                let _ = write!(doc, " Default: {default}.");
            }
            schema.insert("description".to_owned(), json!(doc));
        }
        properties.insert(field.key.to_owned(), schema);
    }
    let required: Vec<&str> = object.fields.iter().filter(|f| f.required).map(|f| f.key).collect();
    json!({
        "type": "object",
        "description": object.doc,
        "additionalProperties": false,
        "properties": properties,
        "required": required,
    })
}

fn kind_schema(kind: &'static Kind) -> Value {
    match kind {
        // A bare number or boolean is taken as the text that it is.
        Kind::Text(format) if format.pattern.is_empty() => json!({"type": ["string", "number", "boolean"]}),
        Kind::Text(format) => json!({"type": ["string", "number", "boolean"], "pattern": format.pattern}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Int(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Kind::Cpu => json!({"type": ["number", "string"], "exclusiveMinimum": 0, "pattern": "^[0-9.]+m?$"}),
        Kind::Size => {
            json!({"type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9]+([KMGT]i|[kKMGT])?$"})
        }
        Kind::Duration(..) => json!({"type": "string", "pattern": "^([0-9]+(d|h|ms|m|s))+$"}),
        Kind::Word(words) => json!({"enum": words}),
        Kind::List(of, most) => json!({"type": "array", "items": kind_schema(of), "maxItems": most}),
        Kind::Map(keys, of, most) => {
            let names = if keys.pattern.is_empty() { json!({}) } else { json!({"pattern": keys.pattern}) };
            json!({
                "type": "object",
                "propertyNames": names,
                "additionalProperties": kind_schema(of),
                "maxProperties": most,
            })
        }
        Kind::Object(object) => json!({"$ref": format!("#/$defs/{}", anchor(object))}),
        Kind::WordOr(word, object) => {
            json!({"oneOf": [{"const": word}, {"$ref": format!("#/$defs/{}", anchor(object))}]})
        }
        Kind::TextOr(format, object) => {
            let text = json!({"type": ["string", "number", "boolean"], "pattern": format.pattern});
            json!({"oneOf": [text, {"$ref": format!("#/$defs/{}", anchor(object))}]})
        }
    }
}

/// The reference of files of this shape: a table per object.
#[must_use]
pub fn reference(root: &'static Object) -> String {
    let mut out = String::new();
    for object in objects(root) {
        let _ = writeln!(out, "## {}\n\n{}\n", heading(object), object.doc);
        out.push_str("| key | value | default | what it is |\n|---|---|---|---|\n");
        for field in object.fields {
            let _ = writeln!(out, "| `{}` | {} | {} | {} |", field.key, value(field), default(field), cell(field.doc));
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn heading(object: &Object) -> String {
    let name = anchor(object).replace('_', " ");
    let mut chars = name.chars();
    match chars.next() {
        // Keys stay as they are written; only descriptions begin with a capital.
        Some(first) if object.name.contains(' ') => first.to_uppercase().chain(chars).collect(),
        _ => format!("`{name}:`"),
    }
}

fn value(field: &Field) -> String {
    match &field.kind {
        Kind::Object(object) => format!("see {}", heading(object)),
        Kind::Map(_, Kind::Object(object), _) => format!("names, each with {}", object.name),
        Kind::Map(_, Kind::TextOr(format, object), _) => {
            cell(&format!("names, each with {}, or with {}", format.expected, object.name))
        }
        Kind::WordOr(word, object) => format!("`{word}`, or see {}", heading(object)),
        Kind::TextOr(format, object) => cell(&format!("{}, or see {}", format.expected, heading(object))),
        kind => cell(&describe_kind(kind)),
    }
}

fn default(field: &Field) -> String {
    match field.default {
        _ if field.required => "must be there".to_owned(),
        None | Some("{}") => "–".to_owned(),
        // Defaults with spaces are words for the reader, the others are what would be written.
        Some(text) if text.contains(' ') => cell(text),
        Some(text) => format!("`{text}`"),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

//! Holds a log of requests and answers against GitHub's own description of its REST API.
//!
//! Any test that ran against a recording stand-in may hand its log to [`check`]. Bodies of answers must fit their
//! schema, formats included, and have no field that the schema does not know; bodies and queries of requests that were
//! accepted likewise, so that a typo does not pass as an unknown field that nobody reads.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, OnceLock},
};

use serde_json::{Map, Value, json};
use switchover::demo::github::model::Exchange;

use crate::github::support::{left_out, npm_file};

const PACKAGE: &str = "@octokit/openapi";
const VERSION: &str = "23.0.2";
const REF: &str = "#/components/schemas/";
/// Fields that version 2026-03-10 dropped ("Breaking changes"); the package describes 2022-11-28.
const DROPPED: [&str; 5] = ["has_downloads", "merge_commit_sha", "assignee", "rate", "use_squash_pr_title_as_default"];

/// The description, read once.
fn description() -> Result<&'static Value, &'static str> {
    static DOC: OnceLock<Result<Value, String>> = OnceLock::new();
    let read = || {
        let text = npm_file(PACKAGE, VERSION, "generated/api.github.com.json")?;
        serde_json::from_slice(&text).map_err(|e| e.to_string())
    };
    DOC.get_or_init(read).as_ref().map_err(String::as_str)
}

/// Panics with all that does not fit.
pub fn check(log: &[Exchange]) {
    let doc = match description() {
        Ok(doc) => doc,
        Err(why) => return left_out("npm", "openapi::check", why),
    };
    let problems: BTreeSet<String> = log.iter().flat_map(|e| problems(doc, e)).collect();
    let list: Vec<String> = problems.into_iter().collect();
    assert!(list.is_empty(), "{} differences from GitHub's description:\n{}", list.len(), list.join("\n"));
}

/// What is wrong with one exchange. Git's own requests and answers spoilt by a fault are none of its business.
pub fn problems(doc: &Value, e: &Exchange) -> Vec<String> {
    let git =
        e.path.contains("/info/refs") || e.path.ends_with("/git-upload-pack") || e.path.ends_with("-receive-pack");
    if git || e.fault {
        return Vec::new();
    }
    let name = format!("{} {}", e.method, e.template.as_deref().unwrap_or(&e.path));
    let Some(template) = &e.template else {
        return vec![format!("{name}: the stand-in has no such operation (answered {})", e.status)];
    };
    let operation = &doc["paths"][template][e.method.to_lowercase()];
    if operation.is_null() {
        return vec![format!("{name}: GitHub describes no such operation")];
    }
    let mut found = Vec::new();
    if e.status < 300 {
        found.extend(query_problems(doc, operation, &e.path));
        let body = &operation["requestBody"]["content"]["application/json"]["schema"];
        match &e.request {
            Some(sent) if body.is_null() && sent.as_object().is_some_and(|o| !o.is_empty()) => {
                found.push("takes no body".to_owned());
            }
            Some(sent) if !body.is_null() => {
                found.extend(fit(doc, body, sent, &e.version, &format!("{name} request")));
            }
            _ => {}
        }
    }
    let response = follow(doc, &operation["responses"][e.status.to_string()]);
    // Here the description has an aged copy, in which an account is a person and an enterprise at once.
    let mended = json!({"type": "array", "items": {"$ref": "#/components/schemas/installation"}});
    let aged = template == "/app/installations" && e.status == 200;
    let schema = if aged { &mended } else { &response["content"]["application/json"]["schema"] };
    match &e.response {
        Some(body) if !schema.is_null() => {
            found.extend(fit(doc, schema, body, &e.version, &format!("{name} {}", e.status)));
            // GitHub's own refusals repeat the status, which only some of its schemas know.
            found.retain(|p| e.status < 400 || p != "/status: GitHub knows no such field");
        }
        Some(body) if e.status >= 400 && (!body["message"].is_string() || !body["documentation_url"].is_string()) => {
            found.push(format!("{}: not an error of GitHub's shape: {body}", e.status));
        }
        _ if e.status < 300 && response.is_null() => found.push(format!("{} is no status of it", e.status)),
        _ => {}
    }
    found.into_iter().map(|p| format!("{name}: {p}")).collect()
}

fn follow<'a>(doc: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str().and_then(|r| r.strip_prefix('#')) {
        Some(pointer) => doc.pointer(pointer).unwrap_or(&Value::Null),
        None => value,
    }
}

fn query_problems(doc: &Value, operation: &Value, path: &str) -> Vec<String> {
    let Some((_, query)) = path.split_once('?') else { return Vec::new() };
    let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    let known: Vec<&Value> =
        parameters.iter().map(|p| follow(doc, p)).filter(|p| p["in"] == "query").map(|p| &p["name"]).collect();
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    let unknown = pairs.filter(|(name, _)| !known.iter().any(|k| *k == name.as_ref()));
    unknown.map(|(name, _)| format!("query parameter {name} is unknown")).collect()
}

/// Validators are dear to make: one for each use.
fn fit(doc: &Value, schema: &Value, body: &Value, version: &str, key: &str) -> Vec<String> {
    static MADE: Mutex<Option<HashMap<String, &'static Made>>> = Mutex::new(None);
    let key = format!("{version} {key}");
    let made = *MADE.lock().unwrap().get_or_insert_default().entry(key).or_insert_with(|| {
        let dropped = if version == "2026-03-10" { &DROPPED[..] } else { &[] };
        Box::leak(Box::new(Made::new(doc, schema, dropped)))
    });
    let mut found: Vec<String> =
        made.validator.iter_errors(body).map(|e| format!("{}: {}", e.instance_path(), short(&e.to_string()))).collect();
    made.unknown(&made.schema, body, "", &mut found);
    found
}

fn short(text: &str) -> String {
    text.chars().take(300).collect()
}

struct Made {
    schema: Value,
    validator: jsonschema::Validator,
}

impl Made {
    /// A JSON schema of its own: what it refers to comes along, and nothing else of the 13 MB.
    fn new(doc: &Value, schema: &Value, dropped: &[&str]) -> Self {
        let mut defs = Map::new();
        let mut schema = convert(schema, dropped);
        let mut open = references(&schema);
        while let Some(name) = open.pop() {
            if defs.contains_key(&name) {
                continue;
            }
            let converted = convert(&doc["components"]["schemas"][&name], dropped);
            open.extend(references(&converted));
            defs.insert(name, converted);
        }
        schema["$defs"] = Value::Object(defs);
        let validator = jsonschema::options()
            .with_draft(jsonschema::Draft::Draft202012)
            .should_validate_formats(true)
            .build(&schema)
            .unwrap();
        Self { schema, validator }
    }

    /// Fields that no branch of a schema knows. A schema without properties is open.
    fn unknown(&self, schema: &Value, body: &Value, at: &str, found: &mut Vec<String>) {
        let mut branches = Vec::new();
        self.branches(schema, &mut branches);
        match body {
            Value::Array(items) => {
                let items_schema: Vec<Value> = branches.iter().filter_map(|b| b.get("items").cloned()).collect();
                if items_schema.is_empty() {
                    return;
                }
                let any = json!({"anyOf": items_schema});
                items.iter().enumerate().for_each(|(i, item)| self.unknown(&any, item, &format!("{at}/{i}"), found));
            }
            Value::Object(map) => {
                let open = branches.iter().any(|b| {
                    let free = b.get("additionalProperties").is_some_and(|a| a != &Value::Bool(false));
                    free || (b["type"] == "object" && b.get("properties").is_none())
                });
                if open {
                    return;
                }
                for (name, value) in map {
                    let inner: Vec<Value> =
                        branches.iter().filter_map(|b| b["properties"].get(name).cloned()).collect();
                    if inner.is_empty() {
                        found.push(format!("{at}/{name}: GitHub knows no such field"));
                    } else {
                        self.unknown(&json!({"anyOf": inner}), value, &format!("{at}/{name}"), found);
                    }
                }
            }
            _ => {}
        }
    }

    fn branches<'a>(&'a self, schema: &'a Value, into: &mut Vec<&'a Value>) {
        if let Some(name) = schema["$ref"].as_str().and_then(|r| r.strip_prefix("#/$defs/")) {
            self.branches(&self.schema["$defs"][name], into);
        }
        for word in ["anyOf", "oneOf", "allOf"] {
            schema[word].as_array().into_iter().flatten().for_each(|branch| self.branches(branch, into));
        }
        if schema.get("type").is_some() || schema.get("properties").is_some() {
            into.push(schema);
        }
    }
}

/// OpenAPI 3.0 to JSON schema: `nullable`, references, and addresses that may be empty (their default says so).
fn convert(schema: &Value, dropped: &[&str]) -> Value {
    let Value::Object(map) = schema else { return schema.clone() };
    let mut out = Map::new();
    for (key, value) in map {
        let value = match (key.as_str(), value) {
            ("description" | "example" | "examples" | "nullable" | "discriminator" | "externalDocs" | "title", _) => {
                continue;
            }
            ("$ref", Value::String(r)) => Value::from(r.replace(REF, "#/$defs/")),
            ("properties", Value::Object(fields)) => {
                let kept = fields.iter().filter(|(name, _)| !dropped.contains(&name.as_str()));
                Value::Object(kept.map(|(name, s)| (name.clone(), convert(s, dropped))).collect())
            }
            ("required", Value::Array(names)) => {
                let keep = |n: &&Value| n.as_str().is_some_and(|n| !dropped.contains(&n));
                Value::Array(names.iter().filter(keep).cloned().collect())
            }
            ("anyOf" | "oneOf" | "allOf", Value::Array(list)) => {
                Value::Array(list.iter().map(|s| convert(s, dropped)).collect())
            }
            ("items" | "additionalProperties" | "not", value) => convert(value, dropped),
            (_, value) => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    let out = Value::Object(out);
    let mut choices = vec![out];
    if schema["nullable"] == true {
        choices.push(json!({"type": "null"}));
    }
    if schema["format"] == "uri" && schema["default"] == "" {
        choices.push(json!({"const": ""}));
    }
    if choices.len() == 1 { choices.remove(0) } else { json!({"anyOf": choices}) }
}

fn references(schema: &Value) -> Vec<String> {
    match schema {
        Value::Array(items) => items.iter().flat_map(references).collect(),
        Value::Object(map) => {
            let own = map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/"));
            own.map(str::to_owned).into_iter().chain(map.values().flat_map(references)).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn a_wrong_exchange_is_found() {
    let doc = match description() {
        Ok(doc) => doc,
        Err(why) => return left_out("npm", "a_wrong_exchange_is_found", why),
    };
    let exchange = |path: &str, request: Value, response: Value| Exchange {
        method: "POST".to_owned(),
        path: path.to_owned(),
        template: Some("/repos/{owner}/{repo}/issues/comments/{comment_id}/reactions".to_owned()),
        version: "2022-11-28".to_owned(),
        status: 201,
        fault: false,
        request: Some(request),
        response: Some(response),
    };
    let good = json!({"id": 1, "node_id": "x", "user": null, "content": "eyes", "created_at": "2026-01-02T03:04:05Z"});
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    let cases = [
        ("/x", json!({"content": "eyes"}), good.clone()),
        ("/x", json!({"content": "eye"}), good.clone()),
        ("/x", json!({"contnet": "eyes"}), good.clone()),
        ("/x?per_pag=1", json!({"content": "eyes"}), good.clone()),
        ("/x", json!({"content": "eyes"}), with("created_at", json!("yesterday"))),
        ("/x", json!({"content": "eyes"}), with("emoji", json!("x"))),
        ("/x", json!({"content": "eyes"}), json!({"id": 1})),
    ];
    let judged = |found: Vec<String>| if found.is_empty() { "fits".to_owned() } else { found.join(" | ") };
    let found: Vec<String> = cases.map(|(p, q, r)| judged(problems(doc, &exchange(p, q, r)))).to_vec();
    let found = found.join("\n").replace("POST /repos/{owner}/{repo}/issues/comments/{comment_id}/reactions: ", "");
    insta::assert_snapshot!(found, @r#"
    fits
    /content: "eye" is not one of "+1", "-1" or 6 other candidates
    : "content" is a required property | /contnet: GitHub knows no such field
    query parameter per_pag is unknown
    /created_at: "yesterday" is not a "date-time"
    /emoji: GitHub knows no such field
    : "node_id" is a required property | : "user" is a required property | : "content" is a required property | : "created_at" is a required property
    "#);
}

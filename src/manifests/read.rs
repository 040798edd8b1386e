//! Manifests as objects, read as Kubernetes reads them, each value with its line.
//!
//! Bounded before and while it is read; what is wrong is told with file, line and mend, never dropped.

use serde_json::Value;

use super::{
    look::{list_mut, text},
    object::{Inner, Object, Place, Refusal},
    typed::{self, Wrong},
};
use crate::domain::config::{
    mistake::shown,
    tree::{self, Limits},
};

/// The most files that are read.
const MAX_FILES: usize = 1_000;
/// The largest file: a ConfigMap holds 1 MiB at most, and base64 makes a Secret a third larger.
const MAX_FILE: usize = 2 * 1024 * 1024;
/// Deeper than any object that is applied.
const MAX_DEPTH: usize = 64;
/// The most values of all files together.
const MAX_NODES: usize = 400_000;
/// The most refusals and notes that are told.
const MAX_TOLD: usize = 50;

/// One file, or what a tool printed for a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source<'a> {
    /// Its path from the repository's root.
    pub path: &'a str,
    /// Its content.
    pub bytes: &'a [u8],
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Read {
    /// The objects, in the order read.
    pub objects: Vec<Object>,
    /// What can't be read or would never be taken; nothing may be applied while there is any.
    pub refused: Vec<Refusal>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// Fields that only a live object has: left over from `kubectl get -o yaml`, and refused or wrong on the way in
/// ("Kubernetes API Concepts").
const LIVE_ONLY: [&str; 8] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
];
/// Annotations that belong to a live object alone.
pub(super) const LIVE_ANNOTATIONS: [&str; 2] =
    ["kubectl.kubernetes.io/last-applied-configuration", "deployment.kubernetes.io/revision"];

/// Groups of files that look like objects and are settings of tools.
const TOOLS: [&str; 8] = [
    "kustomize.config.k8s.io",
    "kind.x-k8s.io",
    "skaffold",
    "eksctl.io",
    "k3d.io",
    "backstage.io",
    "ctlptl.dev",
    "devspace",
];

/// Reads all files.
#[must_use]
pub fn read(sources: &[Source<'_>]) -> Read {
    let mut reader = Reader { out: Read::default(), nodes: MAX_NODES };
    for source in sources.iter().take(MAX_FILES) {
        reader.file(source);
    }
    if sources.len() > MAX_FILES {
        let words = format!("{} files of manifests are more than {MAX_FILES}: name a smaller folder", sources.len());
        reader.refuse(sources[MAX_FILES].path, 1, words);
    }
    reader.out
}

struct Reader {
    out: Read,
    /// Values that may still come.
    nodes: usize,
}

impl Reader {
    fn refuse(&mut self, file: &str, line: u32, words: impl Into<String>) {
        if self.out.refused.len() < MAX_TOLD {
            self.out.refused.push(Refusal { file: file.to_owned(), line: line.max(1), words: words.into() });
        }
    }

    fn note(&mut self, text: String) {
        if self.out.notes.len() < MAX_TOLD {
            self.out.notes.push(text);
        }
    }

    fn file(&mut self, source: &Source<'_>) {
        let path = source.path;
        if source.bytes.len() > MAX_FILE {
            let words = format!("the file has {} KiB, more than {}", source.bytes.len() / 1024, MAX_FILE / 1024);
            return self.refuse(path, 1, format!("{words}: Kubernetes takes no object that large"));
        }
        if source.bytes.starts_with(&[0xFF, 0xFE]) || source.bytes.starts_with(&[0xFE, 0xFF]) {
            return self.refuse(path, 1, "the file is UTF-16: save it as UTF-8");
        }
        let text = match std::str::from_utf8(source.bytes) {
            Ok(text) => text.strip_prefix('\u{FEFF}').unwrap_or(text),
            Err(error) => {
                let before = &source.bytes[..error.valid_up_to()];
                let line = before.iter().filter(|b| **b == b'\n').count() + 1;
                return self.refuse(
                    path,
                    u32::try_from(line).unwrap_or(u32::MAX),
                    "this is not UTF-8: save the file as UTF-8",
                );
            }
        };
        let object = text.contains("apiVersion") && text.contains("kind");
        let limits = Limits { bytes: MAX_FILE, depth: MAX_DEPTH, nodes: self.nodes };
        let documents = match tree::read_all(text, limits) {
            Ok(documents) => documents,
            Err(_) if !object => return self.note(format!("{} holds no Kubernetes object: left out", shown(path))),
            Err(_) if is_template(text) => {
                let line = text.lines().position(|l| l.contains("{{")).map_or(1, |n| n + 1);
                let words = "this is a template (`{{ … }}`), not a manifest: a Helm chart needs its Chart.yaml beside \
                             `templates/`; otherwise write the values out";
                return self.refuse(path, u32::try_from(line).unwrap_or(u32::MAX), words);
            }
            Err(mistake) => return self.refuse(path, mistake.line, mistake.sentence()),
        };
        if !object {
            if !documents.is_empty() {
                self.note(format!("{} holds no Kubernetes object: left out", shown(path)));
            }
            return;
        }
        for document in documents {
            match typed::json(&document) {
                Ok((value, place)) => {
                    self.nodes = self.nodes.saturating_sub(count(&place));
                    self.document(path, value, place, 0);
                }
                Err(Wrong { line, words }) => self.refuse(path, line, words),
            }
        }
    }

    fn document(&mut self, path: &str, value: Value, place: Place, depth: usize) {
        let (kind, version) = (text(&value, "/kind").to_owned(), text(&value, "/apiVersion").to_owned());
        let group = version.split('/').next().unwrap_or_default();
        if TOOLS.contains(&group) {
            return self.note(format!(
                "{path}:{}: {} is a tool's setting, no object: left out",
                place.line,
                shown(&kind)
            ));
        }
        if !value.is_object() || (kind.is_empty() && version.is_empty()) {
            return self.note(format!("{path}:{}: no Kubernetes object (no `kind`): left out", place.line));
        }
        if kind.is_empty() || version.is_empty() {
            let missing = if kind.is_empty() { "kind" } else { "apiVersion" };
            return self.refuse(
                path,
                place.line,
                format!("the object has no `{missing}`: write it, or remove the document"),
            );
        }
        if kind.ends_with("List") && value.get("items").is_some() {
            return self.unpack(path, value, place, depth);
        }
        let mut object = Object { file: path.to_owned(), value, place };
        strip(&mut object.value);
        if let Some(refusal) = wrong_name(&object) {
            return self.told(refusal);
        }
        let texts = not_texts(&object);
        for refusal in texts {
            self.told(refusal);
        }
        self.out.objects.push(object);
    }

    fn told(&mut self, refusal: Refusal) {
        if self.out.refused.len() < MAX_TOLD {
            self.out.refused.push(refusal);
        }
    }

    /// A `List`: its items are the objects ("kubectl apply" takes them apart too).
    fn unpack(&mut self, path: &str, mut value: Value, place: Place, depth: usize) {
        if depth > 4 {
            return self.refuse(path, place.line, "lists within lists within lists: write the objects themselves");
        }
        let items = list_mut(&mut value, "/items").map(std::mem::take).unwrap_or_default();
        let places = match place.inner {
            Inner::Map(entries) => entries.into_iter().find(|(key, _)| key == "items").map(|(_, p)| p.inner),
            _ => None,
        };
        let Some(Inner::List(places)) = places else { return };
        for (item, place) in items.into_iter().zip(places) {
            self.document(path, item, place, depth + 1);
        }
    }
}

fn count(place: &Place) -> usize {
    1 + match &place.inner {
        Inner::Nothing => 0,
        Inner::List(items) => items.iter().map(count).sum(),
        Inner::Map(entries) => entries.iter().map(|(_, p)| count(p)).sum(),
    }
}

fn is_template(text: &str) -> bool {
    text.contains("{{") && text.contains("}}")
}

/// Takes away what only a live object has.
pub(super) fn strip(value: &mut Value) {
    if let Some(object) = value.as_object_mut() {
        object.shift_remove("status");
    }
    let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    for field in LIVE_ONLY {
        metadata.shift_remove(field);
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        for name in LIVE_ANNOTATIONS {
            annotations.shift_remove(name);
        }
        if annotations.is_empty() {
            metadata.shift_remove("annotations");
        }
    }
    // `creationTimestamp: null` of generated templates.
    for pointer in ["/spec/template/metadata", "/spec/jobTemplate/metadata", "/spec/jobTemplate/spec/template/metadata"]
    {
        if let Some(metadata) = value.pointer_mut(pointer).and_then(Value::as_object_mut) {
            metadata.shift_remove("creationTimestamp");
        }
    }
}

/// A name that Kubernetes would not take ("Object Names and IDs": an RFC 1123 subdomain).
fn wrong_name(object: &Object) -> Option<Refusal> {
    let pointer = "/metadata/name";
    let kind = object.kind();
    let Some(name) = object.value.pointer(pointer).filter(|n| !n.is_null()) else {
        let words = match object.value.pointer("/metadata/generateName") {
            Some(_) => format!("{kind} has a `generateName`: write a `name`, so that it can be found again"),
            None => format!("{kind} has no `metadata.name`: write one"),
        };
        return Some(object.refusal(pointer, words));
    };
    let Some(name) = name.as_str() else {
        return Some(object.refusal(pointer, format!("the name `{name}` of this {kind} is no text: put it in quotes")));
    };
    if placeholder(name) {
        let words = format!(
            "the name {} of this {kind} is filled in by a script: write it out. One Deployment is enough, Switchover \
             makes the two itself",
            shown(name)
        );
        return Some(object.refusal(pointer, words));
    }
    // Names of RBAC objects may hold more; they are refused for what they are.
    let part = |p: &str| {
        let inner = p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        inner && !p.is_empty() && !p.starts_with('-') && !p.ends_with('-')
    };
    if (name.len() <= 253 && name.split('.').all(part)) || object.group() == "rbac.authorization.k8s.io" {
        return None;
    }
    let words = format!(
        "the name {} is none that Kubernetes takes: lower-case letters, digits, dashes and dots, beginning and ending \
         with a letter or digit",
        shown(name)
    );
    Some(object.refusal(pointer, words))
}

/// Whether a text is meant to be filled in by a script.
pub(super) fn placeholder(text: &str) -> bool {
    ["${", "$(", "{{", "<%", "__"].iter().any(|mark| text.contains(mark))
        || text.starts_with(['$', '<', '%', '@'])
        || (text.starts_with('{') && text.ends_with('}'))
}

/// Whether an image's name is meant to be filled in by a script: real ones are in lower case after the registry's host
/// ("Distribution reference grammar").
pub(super) fn image_placeholder(image: &str) -> bool {
    let name = super::look::repository(image);
    let path = name.split_once('/').filter(|(host, _)| host.contains(['.', ':'])).map_or(name, |(_, path)| path);
    image.is_empty() || placeholder(name) || path.chars().any(|c| c.is_ascii_uppercase())
}

/// Values that must be texts and are not: `ConfigMap.data`, labels, environment. The commonest mistake in manifests.
fn not_texts(object: &Object) -> Vec<Refusal> {
    let mut maps: Vec<String> = vec!["/metadata/labels".into(), "/metadata/annotations".into()];
    match object.kind() {
        "ConfigMap" | "Secret" => maps.extend(["/data".into(), "/stringData".into()]),
        "Service" => maps.push("/spec/selector".into()),
        _ => {}
    }
    let mut found = Vec::new();
    if let Some(template) = super::look::template_pointer(object.kind()) {
        maps.push(format!("{template}/metadata/labels"));
        maps.push(format!("{template}/metadata/annotations"));
        maps.push(format!("{template}/spec/nodeSelector"));
        maps.push("/spec/selector/matchLabels".into());
        for list in ["initContainers", "containers"] {
            let count =
                object.value.pointer(&format!("{template}/spec/{list}")).and_then(Value::as_array).map_or(0, Vec::len);
            for c in 0..count {
                let pointer = format!("{template}/spec/{list}/{c}/env");
                let env = object.value.pointer(&pointer).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                for (i, variable) in env.iter().enumerate() {
                    if variable.get("name").is_some_and(|n| n.is_number() || n.is_boolean()) {
                        let words = "the name of a variable must be a text: put it in quotes";
                        found.push(object.refusal(&format!("{pointer}/{i}/name"), words));
                        continue;
                    }
                    let value = variable.get("value");
                    if value.is_some_and(|v| v.is_number() || v.is_boolean()) {
                        let name = shown(text(variable, "/name"));
                        let words = format!("the value of {name} must be a text: put it in quotes");
                        found.push(object.refusal(&format!("{pointer}/{i}/value"), words));
                    }
                }
            }
        }
    }
    for map in maps {
        let Some(entries) = object.value.pointer(&map).and_then(Value::as_object) else { continue };
        for (key, value) in entries.iter().filter(|(_, v)| v.is_number() || v.is_boolean()) {
            let pointer = format!("{map}/{}", key.replace('~', "~0").replace('/', "~1"));
            let words = format!("the value of {} must be a text: put quotes around `{value}`", shown(key));
            found.push(object.refusal(&pointer, words));
        }
    }
    found
}

/// A live object without what the API server wrote.
#[must_use]
pub fn stripped(live: &Value) -> Value {
    let mut object = live.clone();
    strip(&mut object);
    object
}

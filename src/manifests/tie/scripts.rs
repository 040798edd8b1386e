//! What CI does with manifests: which image it puts where, which files it applies.

use std::collections::BTreeMap;

use super::Script;
use crate::manifests::look::image_name;

/// The largest script that is read, and the most lines of all.
const MAX_TEXT: usize = 512 * 1024;
const MAX_LINES: usize = 20_000;

/// What was found.
#[derive(Debug, Clone, Default)]
pub(super) struct Hints {
    /// Names of images (the last part) by the workload's name, from `kubectl set image`.
    pub images: Vec<(String, String)>,
    /// Texts that `sed` writes into a file, by the file's path as written.
    pub written: Vec<(String, String)>,
    /// Files and folders that are applied, as written.
    pub applied: Vec<String>,
}

impl Hints {
    /// Names of images that CI puts into this workload or its file.
    pub(super) fn images_of(&self, workload: &str, file: &str) -> Vec<String> {
        let set = self.images.iter().filter(|(name, _)| name == workload).map(|(_, image)| image.clone());
        let sed = self.written.iter().filter(|(path, _)| is_file(path, file)).map(|(_, text)| image_name(text));
        set.chain(sed).collect()
    }

    /// Whether CI applies this file.
    pub(super) fn applies(&self, file: &str) -> bool {
        let in_folder = |folder: &str| {
            let folder = folder.trim_start_matches("./").trim_end_matches('/');
            !folder.is_empty() && (file.starts_with(&format!("{folder}/")) || file.contains(&format!("/{folder}/")))
        };
        self.applied.iter().any(|path| is_file(path, file) || in_folder(path))
    }
}

/// Whether a path as written in a script may be this file.
fn is_file(written: &str, file: &str) -> bool {
    let written = written.trim_start_matches("./").trim_start_matches("../");
    !written.is_empty() && (file == written || file.ends_with(&format!("/{written}")))
}

pub(super) fn read(scripts: &[Script<'_>]) -> Hints {
    let mut hints = Hints::default();
    let mut left = MAX_LINES;
    for script in scripts {
        if script.text.len() > MAX_TEXT {
            continue;
        }
        let known = variables(script.text);
        let joined = script.text.replace("\\\r\n", " ").replace("\\\n", " ");
        for line in joined.lines().take(left) {
            left -= 1;
            if ["kubectl", "sed ", "envsubst"].iter().any(|word| line.contains(word)) {
                one(line, &known, &mut hints);
            }
        }
    }
    hints
}

/// `NAME=value`, `NAME: value`, `NAME = 'value'`.
fn variables(text: &str) -> BTreeMap<&str, &str> {
    let mut found = BTreeMap::new();
    for line in text.lines().take(MAX_LINES) {
        let line = line.trim().trim_start_matches("- ").trim_start_matches("export ").trim_start_matches("def ");
        let end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        let Some(value) = rest.trim_start().strip_prefix(['=', ':']) else { continue };
        let value = value.trim().trim_matches(['"', '\'']);
        if !name.is_empty() && !value.is_empty() && value.len() < 300 && !value.contains(char::is_whitespace) {
            found.entry(name).or_insert(value);
        }
    }
    found
}

/// A text with the variables that are known put in, twice over; others stay.
fn expand(text: &str, known: &BTreeMap<&str, &str>) -> String {
    let mut text = text.to_owned();
    for _ in 0..2 {
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            let (inside, behind) = match after.strip_prefix("{{").or_else(|| after.strip_prefix('{')) {
                Some(inside) => {
                    let end = inside.find('}').unwrap_or(inside.len());
                    (inside[..end].trim(), inside[end..].trim_start_matches('}'))
                }
                None => {
                    let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                    after.split_at(end)
                }
            };
            let name = inside.trim_start_matches("env.").trim_start_matches("params.");
            match known.get(name) {
                Some(value) => out.push_str(value),
                // Only what cannot be confused with a name of something.
                None => out.push('*'),
            }
            rest = behind;
            if out.len() > 4_000 {
                break;
            }
        }
        out.push_str(rest);
        text = out;
        if text.len() > 4_000 {
            break;
        }
    }
    text
}

fn one(line: &str, known: &BTreeMap<&str, &str>, hints: &mut Hints) {
    let words = words(line);
    for (i, word) in words.iter().enumerate() {
        match word.as_str() {
            "image" if i > 0 && words[i - 1] == "set" => set_image(&words[i + 1..], known, hints),
            "-f" | "--filename" | "-k" => hints.applied.extend(words.get(i + 1).map(|w| expand(w, known))),
            "sed" => sed(&words[i + 1..], known, hints),
            "<" => hints.applied.extend(words.get(i + 1).map(|w| expand(w, known))),
            _ => {
                if let Some(path) = word.strip_prefix("--filename=") {
                    hints.applied.push(expand(path, known));
                }
            }
        }
    }
}

/// The words of a line, quotes taken away.
fn words(line: &str) -> Vec<String> {
    let mut all = Vec::new();
    let (mut word, mut quote, mut any) = (String::new(), None, false);
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'' | '`') => {
                quote = Some(c);
                any = true;
            }
            (None, c) if c.is_whitespace() || c == '(' || c == ')' => {
                if any || !word.is_empty() {
                    all.push(std::mem::take(&mut word));
                }
                any = false;
            }
            _ => word.push(c),
        }
        if all.len() > 400 {
            break;
        }
    }
    if !word.is_empty() {
        all.push(word);
    }
    // `sh "kubectl set image …"`: a word that is a command itself.
    if all.len() <= 400 {
        let nested: Vec<String> =
            all.iter().filter(|w| w.contains("kubectl ") || w.contains("sed ")).cloned().collect();
        for inner in nested {
            all.extend(words_plain(&inner));
        }
    }
    all
}

fn words_plain(text: &str) -> Vec<String> {
    text.split_whitespace().take(200).map(|w| w.trim_matches(['"', '\'']).to_owned()).collect()
}

/// `deployment/shop api=acme/shop:1` or `deployment shop api=…`.
fn set_image(words: &[String], known: &BTreeMap<&str, &str>, hints: &mut Hints) {
    let mut name = String::new();
    for word in words.iter().take(20).filter(|w| !w.starts_with('-')) {
        let word = expand(word, known);
        if let Some((_, image)) = word.split_once('=') {
            if !name.is_empty() {
                hints.images.push((name.clone(), image_name(image)));
            }
        } else if let Some((_, of)) = word.split_once('/') {
            if name.is_empty() {
                of.clone_into(&mut name);
            }
        } else if name.is_empty()
            && !["deployment", "deploy", "deployments", "deployment.apps"].contains(&word.as_str())
        {
            name = word;
        }
    }
}

/// `-i s|PLACEHOLDER|acme/shop:1|g k8s/deployment.yaml`.
fn sed(words: &[String], known: &BTreeMap<&str, &str>, hints: &mut Hints) {
    let is_file = |w: &&String| w.ends_with(".yml") || w.ends_with(".yaml");
    let files: Vec<&String> = words.iter().take(30).filter(is_file).collect();
    let mut chars_of = words.iter().take(30).filter(|w| w.starts_with('s') && w.len() > 3);
    let Some(script) = chars_of.find(|w| w.chars().nth(1).is_some_and(|d| !d.is_alphanumeric() && d != '.')) else {
        return;
    };
    for part in script.split(['\n', ';']) {
        let Some(mark) = part.trim().chars().nth(1).filter(|d| !d.is_alphanumeric()) else { continue };
        let mut pieces = part.trim().split(mark).skip(1);
        let (Some(_), Some(new)) = (pieces.next(), pieces.next()) else { continue };
        // `image: acme/shop:1` in place of `image: .*`.
        let new = expand(new, known);
        let new = new.trim().trim_start_matches("image:").trim().to_owned();
        hints.written.extend(files.iter().map(|f| (expand(f, known), new.clone())));
    }
}

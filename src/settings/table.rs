//! The one list of plain settings, and their reading from file and environment.

use std::{ffi::OsString, fmt::Write as _, path::PathBuf, str::FromStr};

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use url::Url;

use super::{ExecutorKind, Mistakes, file::File, secret};
use crate::domain::config::mistake::nearest;

/// One plain setting.
struct Entry {
    /// The variable. The key in the file is the same without the prefix, in lower case.
    name: &'static str,
    kind: &'static str,
    default: Option<&'static str>,
    /// May come from a file named by `NAME_FILE`.
    secret: bool,
    doc: &'static str,
}

const fn plain(name: &'static str, kind: &'static str, default: Option<&'static str>, doc: &'static str) -> Entry {
    Entry { name, kind, default, secret: false, doc }
}

const fn secret_entry(name: &'static str, kind: &'static str, doc: &'static str) -> Entry {
    Entry { name, kind, default: None, secret: true, doc }
}

const TABLE: &[Entry] = &[
    plain("SWITCHOVER_LISTEN", "address", Some("127.0.0.1:8080"), "Where the server listens."),
    plain(
        "SWITCHOVER_PUBLIC_URL",
        "url",
        Some("http://127.0.0.1:8080"),
        "How GitHub and people reach the server; links in checks begin with it.",
    ),
    plain("SWITCHOVER_DATA", "folder", Some("data"), "Where everything is kept: database, mirrors, logs, releases."),
    plain("SWITCHOVER_DATABASE_URL", "url", None, "The database; default: SQLite in the data folder."),
    plain(
        "SWITCHOVER_GITHUB_URL",
        "url",
        Some("https://api.github.com"),
        "GitHub's API; for GitHub Enterprise Server https://HOST/api/v3.",
    ),
    plain(
        "SWITCHOVER_GITHUB_WEB_URL",
        "url",
        Some("https://github.com"),
        "GitHub's pages and git; for GitHub Enterprise Server https://HOST.",
    ),
    plain("SWITCHOVER_APP_ID", "number", None, "The App's number, from its page on GitHub (required)."),
    secret_entry(
        "SWITCHOVER_PRIVATE_KEY",
        "PEM",
        "The App's private key (required; better as SWITCHOVER_PRIVATE_KEY_FILE).",
    ),
    secret_entry(
        "SWITCHOVER_WEBHOOK_SECRET",
        "text",
        "The App's webhook secret (required); several with commas between them during a rotation.",
    ),
    secret_entry("SWITCHOVER_SLACK_URL", "url", "Slack's incoming webhook for channels that [slack] does not map."),
    plain(
        "SWITCHOVER_EXECUTOR",
        "word",
        Some("local"),
        "Where steps run: `local`, on the server's own host, for the repositories under trusted_local.",
    ),
];

/// Variables that the program reads elsewhere (command line, tests).
const OTHERS: &[&str] = &[
    "SWITCHOVER_LOG",
    "SWITCHOVER_CONFIG",
    "SWITCHOVER_CRASH_AT",
    "SWITCHOVER_TEST_KUBECONFIG",
    "SWITCHOVER_TEST_DATABASE_URL",
];

fn key(name: &str) -> String {
    name.trim_start_matches("SWITCHOVER_").to_ascii_lowercase()
}

/// The keys of the table in the file.
pub(super) fn keys() -> Vec<String> {
    let with_file = TABLE.iter().filter(|e| e.secret).map(|e| format!("{}_file", key(e.name)));
    TABLE.iter().map(|e| key(e.name)).chain(with_file).collect()
}

/// Stands in for an address that could not be read; never used, because then there is a mistake.
pub(super) fn nowhere() -> Url {
    #[expect(clippy::expect_used, reason = "a constant that parses")]
    Url::parse("http://nowhere.invalid").expect("parses")
}

/// The values, as found.
pub(super) struct Values<'a> {
    found: Vec<(&'static Entry, SecretString)>,
    pub(super) mistakes: &'a mut Mistakes,
}

impl<'a> Values<'a> {
    pub(super) fn read(
        file: &File,
        env: &dyn Fn(&str) -> Option<OsString>,
        names: &[String],
        mistakes: &'a mut Mistakes,
    ) -> Self {
        let mut known: Vec<String> = OTHERS.iter().map(|o| (*o).to_owned()).collect();
        for entry in TABLE {
            known.push(entry.name.to_owned());
            if entry.secret {
                known.push(format!("{}_FILE", entry.name));
            }
        }
        for name in names.iter().filter(|n| n.starts_with("SWITCHOVER_") && !known.contains(n)) {
            let near = nearest(name, known.iter().map(String::as_str));
            let hint =
                near.map(|n| format!("{n}, perhaps?")).unwrap_or_else(|| "a name that the reference lists".into());
            mistakes.add(name, "there is no such variable", hint);
        }
        let mut found = Vec::new();
        for entry in TABLE {
            let of_env = |name: &str, mistakes: &mut Mistakes| {
                let value = env(name)?;
                match value.into_string() {
                    Ok(text) => Some(text).filter(|t| !t.is_empty()),
                    Err(_) => {
                        mistakes.add(name, "is not UTF-8", "text");
                        None
                    }
                }
            };
            let file_name = format!("{}_FILE", entry.name);
            let direct = of_env(entry.name, mistakes);
            let by_file = if entry.secret { of_env(&file_name, mistakes) } else { None };
            if direct.is_some() && by_file.is_some() {
                mistakes.add(&file_name, format!("{} is set too", entry.name), "one of the two");
            }
            // The environment wins, whichever of the two it names.
            let (direct, by_file) = if direct.is_some() || by_file.is_some() {
                (direct, by_file)
            } else {
                (file.plain(&key(entry.name)), file.plain(&format!("{}_file", key(entry.name))))
            };
            let value = match (direct, by_file) {
                (Some(text), _) => Some(SecretString::from(text)),
                (None, Some(path)) => match secret::read(std::path::Path::new(&path)) {
                    Ok(value) => Some(value),
                    Err((problem, expected)) => {
                        mistakes.add(&file_name, problem, expected);
                        // It is there, so it is not reported as missing too.
                        Some(SecretString::from("unreadable"))
                    }
                },
                (None, None) => entry.default.map(SecretString::from),
            };
            if let Some(value) = value {
                found.push((entry, value));
            }
        }
        Self { found, mistakes }
    }

    fn get(&self, name: &str) -> Option<SecretString> {
        self.found.iter().find(|(e, _)| e.name == name).map(|(_, v)| v.clone())
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.get(name).map(|v| v.expose_secret().to_owned())
    }

    pub(super) fn path(&mut self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    pub(super) fn parsed<T: FromStr>(&mut self, name: &str, expected: &str) -> Option<T> {
        let Some(text) = self.text(name) else {
            self.mistakes.add(name, "is not set", expected);
            return None;
        };
        let value = text.trim().parse().ok();
        if value.is_none() {
            self.mistakes.add(name, format!("{text:?} can't be read"), expected);
        }
        value
    }

    pub(super) fn url(&mut self, name: &str) -> Option<Url> {
        let expected = "an address that begins with http:// or https://";
        let url: Url = self.parsed(name, expected)?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            self.mistakes.add(name, format!("{url} is no web address"), expected);
            return None;
        }
        Some(url)
    }

    pub(super) fn secret_url(&mut self, name: &str) -> Option<SecretString> {
        let value = self.get(name)?;
        if value.expose_secret() != "unreadable" && Url::parse(value.expose_secret()).is_err() {
            self.mistakes.add(
                name,
                "is no web address (its value is not shown)",
                "an address that begins with https://",
            );
            return None;
        }
        Some(value)
    }

    pub(super) fn private_key(&mut self) -> SecretString {
        let name = "SWITCHOVER_PRIVATE_KEY";
        let expected = "the App's private key: a PEM file that begins with -----BEGIN RSA PRIVATE KEY-----";
        match self.get(name) {
            None => self.mistakes.add(name, "is not set, nor is SWITCHOVER_PRIVATE_KEY_FILE", expected),
            Some(key) if key.expose_secret() == "unreadable" || key.expose_secret().contains("-----BEGIN") => {
                return key;
            }
            Some(_) => self.mistakes.add(name, "is no PEM key (its value is not shown)", expected),
        }
        SecretString::from("")
    }

    pub(super) fn webhook_secrets(&mut self) -> Vec<SecretString> {
        let name = "SWITCHOVER_WEBHOOK_SECRET";
        let Some(value) = self.get(name) else {
            self.mistakes.add(
                name,
                "is not set, nor is SWITCHOVER_WEBHOOK_SECRET_FILE",
                "the secret of the App's webhook",
            );
            return Vec::new();
        };
        let secrets: Vec<SecretString> = value
            .expose_secret()
            .split(',')
            .map(str::trim)
            .filter(|s| !s.is_empty())
            .map(|s| SecretString::from(s.to_owned()))
            .collect();
        if secrets.is_empty() {
            self.mistakes.add(name, "holds no secret", "one secret, or several with commas between them");
        }
        secrets
    }

    pub(super) fn executor(&mut self) -> ExecutorKind {
        let text = self.text("SWITCHOVER_EXECUTOR").unwrap_or_default();
        if text != "local" {
            self.mistakes.add("SWITCHOVER_EXECUTOR", format!("{text:?} is not available in this version"), "local");
        }
        ExecutorKind::Local
    }
}

/// JSON schema of switchover.toml; the variables stand in each description.
#[must_use]
pub fn schema() -> Value {
    let mut properties = serde_json::Map::new();
    for entry in TABLE {
        let kind = if entry.kind == "number" { "integer" } else { "string" };
        let mut property = json!({"type": kind, "description": format!("{} Variable: {}.", entry.doc, entry.name)});
        if let Some(default) = entry.default {
            property["default"] = json!(default);
        }
        properties.insert(key(entry.name), property);
        if entry.secret {
            let doc = format!("File that holds {}. Variable: {}_FILE.", key(entry.name), entry.name);
            properties.insert(format!("{}_file", key(entry.name)), json!({"type": "string", "description": doc}));
        }
    }
    for (name, value) in super::file::schema() {
        properties.insert(name, value);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "switchover.toml",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

/// The same as a table for docs/.
#[must_use]
pub fn reference_markdown() -> String {
    let mut text =
        String::from("| variable | key in switchover.toml | type | default | what |\n|---|---|---|---|---|\n");
    for e in TABLE {
        let default = e.default.map_or("–".to_owned(), |d| format!("`{d}`"));
        let also = if e.secret { format!(", `{}_FILE`", e.name) } else { String::new() };
        let _ = writeln!(text, "| `{}`{also} | `{}` | {} | {default} | {} |", e.name, key(e.name), e.kind, e.doc);
    }
    text.push_str(super::file::REFERENCE);
    text
}

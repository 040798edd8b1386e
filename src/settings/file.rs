//! The tables of switchover.toml.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use secrecy::SecretString;
use serde_json::{Value as Json, json};
use toml::{Table, Value};

use super::{Limits, Mistakes, secret, table};
use crate::domain::config::mistake::nearest;

/// Where releases run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetSettings {
    /// Plain processes on the server's own host, behind its agent.
    Local(LocalTarget),
}

/// A target of plain processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalTarget {
    /// Who may use it.
    pub repositories: Vec<String>,
    /// Where apps are reached: `APP` or `ENVIRONMENT/APP` to address. Others get a free port on 127.0.0.1, kept for good.
    pub listen: BTreeMap<String, SocketAddr>,
}

impl TargetSettings {
    /// Who may use it.
    #[must_use]
    pub fn repositories(&self) -> &[String] {
        match self {
            Self::Local(local) => &local.repositories,
        }
    }
}

/// A registry's login.
#[derive(Debug, Clone)]
pub struct Registry {
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: SecretString,
    /// Who may push there.
    pub repositories: Vec<String>,
}

/// A secret and who may see it.
#[derive(Debug, Clone)]
pub struct SecretGrant {
    /// Its value.
    pub value: SecretString,
    /// Environments whose running apps see it.
    pub environments: Vec<String>,
    /// Steps of pushes to environments' branches see it.
    pub steps: bool,
    /// Steps of the repository's own pull requests see it too.
    pub pull_requests: bool,
}

const TABLES: &[&str] = &["targets", "registries", "secrets", "slack", "limits", "trusted_local"];

/// switchover.toml, parsed as TOML.
pub(super) struct File {
    root: Table,
}

impl File {
    pub(super) fn read(path: Option<&Path>, mistakes: &mut Mistakes) -> Self {
        let Some(path) = path else { return Self { root: Table::new() } };
        let shown = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) => {
                mistakes.add(&shown, format!("can't be read: {e}"), "a TOML file in UTF-8");
                return Self { root: Table::new() };
            }
        };
        let root: Table = match text.parse() {
            Ok(root) => root,
            Err(e) => {
                let e: toml::de::Error = e;
                mistakes.add(&shown, format!("is no TOML:\n{}", e.to_string().trim_end()), "TOML");
                return Self { root: Table::new() };
            }
        };
        let file = Self { root };
        let mut known = table::keys();
        known.extend(TABLES.iter().map(|t| (*t).to_owned()));
        check_keys(&file.root, "", &known.iter().map(String::as_str).collect::<Vec<_>>(), mistakes);
        file
    }

    /// A plain value as text.
    pub(super) fn plain(&self, key: &str) -> Option<String> {
        match self.root.get(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Integer(n) => Some(n.to_string()),
            other => Some(other.to_string()),
        }
    }

    fn tables<'a>(&'a self, name: &str, mistakes: &mut Mistakes) -> Vec<(&'a str, &'a Table)> {
        let Some(value) = self.root.get(name) else { return Vec::new() };
        let Some(all) = value.as_table() else {
            mistakes.add(name, "is not a table", format!("[{name}.NAME]"));
            return Vec::new();
        };
        let mut found = Vec::new();
        for (key, value) in all {
            match value.as_table() {
                Some(table) => found.push((key.as_str(), table)),
                None => mistakes.add(&format!("{name}.{key}"), "is not a table", format!("[{name}.{key}]")),
            }
        }
        found
    }

    pub(super) fn targets(&self, _data: &Path, mistakes: &mut Mistakes) -> BTreeMap<String, TargetSettings> {
        let mut targets = BTreeMap::new();
        for (name, table) in self.tables("targets", mistakes) {
            let at = format!("targets.{name}");
            let kind = text(table, &at, "kind", mistakes).unwrap_or_default();
            if kind != "local" {
                mistakes.add(&format!("{at}.kind"), format!("{kind:?} is not available in this version"), "\"local\"");
                continue;
            }
            check_keys(table, &at, &["kind", "repositories", "listen"], mistakes);
            let mut listen = BTreeMap::new();
            if let Some(value) = table.get("listen") {
                match value.as_table() {
                    None => mistakes.add(&format!("{at}.listen"), "is not a table", "{ APP = \"0.0.0.0:80\" }"),
                    Some(addresses) => {
                        for (app, address) in addresses {
                            match address.as_str().and_then(|a| a.parse().ok()) {
                                Some(address) => {
                                    listen.insert(app.clone(), address);
                                }
                                None => mistakes.add(
                                    &format!("{at}.listen.{app}"),
                                    format!("{address} is no address"),
                                    "an address and port, such as \"0.0.0.0:80\"",
                                ),
                            }
                        }
                    }
                }
            }
            let repositories = repositories(table, &at, mistakes);
            targets.insert(name.to_owned(), TargetSettings::Local(LocalTarget { repositories, listen }));
        }
        targets
    }

    pub(super) fn registries(&self, mistakes: &mut Mistakes) -> BTreeMap<String, Registry> {
        let mut registries = BTreeMap::new();
        for (name, table) in self.tables("registries", mistakes) {
            let at = format!("registries.\"{name}\"");
            check_keys(table, &at, &["username", "password_file", "repositories"], mistakes);
            let username = text(table, &at, "username", mistakes).unwrap_or_default();
            let password = secret_file(table, &at, "password_file", mistakes);
            let repositories = repositories(table, &at, mistakes);
            if let Some(password) = password {
                registries.insert(name.to_owned(), Registry { username, password, repositories });
            }
        }
        registries
    }

    pub(super) fn secrets(&self, mistakes: &mut Mistakes) -> BTreeMap<String, BTreeMap<String, SecretGrant>> {
        let mut all = BTreeMap::new();
        for (repo, table) in self.tables("secrets", mistakes) {
            let mut grants = BTreeMap::new();
            if !repo.contains('/') {
                mistakes.add(&format!("secrets.\"{repo}\""), "is no repository", "[secrets.\"owner/name\"]");
            }
            for (name, value) in table {
                let at = format!("secrets.\"{repo}\".{name}");
                let Some(table) = value.as_table() else {
                    mistakes.add(&at, "is not a table", "{ file = \"…\", environments = [\"production\"] }");
                    continue;
                };
                check_keys(table, &at, &["file", "environments", "steps", "pull_requests"], mistakes);
                let environments = list(table, &at, "environments", mistakes).unwrap_or_default();
                let steps = flag(table, &at, "steps", mistakes);
                let pull_requests = flag(table, &at, "pull_requests", mistakes);
                if environments.is_empty() && !steps {
                    mistakes.add(&at, "is granted to nobody", "`environments = [\"…\"]`, or `steps = true`");
                }
                if let Some(value) = secret_file(table, &at, "file", mistakes) {
                    grants.insert(name.clone(), SecretGrant { value, environments, steps, pull_requests });
                }
            }
            all.insert(repo.to_owned(), grants);
        }
        all
    }

    pub(super) fn slack(&self, mistakes: &mut Mistakes) -> BTreeMap<String, SecretString> {
        let mut channels = BTreeMap::new();
        for (channel, table) in self.tables("slack", mistakes) {
            let at = format!("slack.\"{channel}\"");
            check_keys(table, &at, &["url_file"], mistakes);
            if let Some(url) = secret_file(table, &at, "url_file", mistakes) {
                channels.insert(channel.to_owned(), url);
            }
        }
        channels
    }

    pub(super) fn limits(&self, mistakes: &mut Mistakes) -> Limits {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let mut limits = Limits { concurrent_steps: cores };
        let Some(value) = self.root.get("limits") else { return limits };
        let Some(table) = value.as_table() else {
            mistakes.add("limits", "is not a table", "[limits]");
            return limits;
        };
        check_keys(table, "limits", &["concurrent_steps"], mistakes);
        if let Some(value) = table.get("concurrent_steps") {
            match value.as_integer().and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=1024).contains(n)) {
                Some(n) => limits.concurrent_steps = n,
                None => mistakes.add("limits.concurrent_steps", format!("{value} can't be"), "a number from 1 to 1024"),
            }
        }
        limits
    }

    pub(super) fn trusted_local(&self, mistakes: &mut Mistakes) -> Vec<String> {
        list(&self.root, "", "trusted_local", mistakes).unwrap_or_default()
    }
}

fn dotted(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}

fn check_keys(table: &Table, at: &str, known: &[&str], mistakes: &mut Mistakes) {
    for key in table.keys().filter(|k| !known.contains(&k.as_str())) {
        let expected = match nearest(key, known.iter().copied()) {
            Some(near) => format!("{near}, perhaps?"),
            None => format!("one of {}", known.join(", ")),
        };
        mistakes.add(&dotted(at, key), "there is no such key", expected);
    }
}

fn text(table: &Table, at: &str, key: &str, mistakes: &mut Mistakes) -> Option<String> {
    match table.get(key) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        Some(other) => {
            mistakes.add(&dotted(at, key), format!("{other} can't be"), "text");
            None
        }
        None => {
            mistakes.add(&dotted(at, key), "is missing", "text");
            None
        }
    }
}

fn list(table: &Table, at: &str, key: &str, mistakes: &mut Mistakes) -> Option<Vec<String>> {
    let value = table.get(key)?;
    let texts: Option<Vec<String>> =
        value.as_array().and_then(|a| a.iter().map(|v| v.as_str().map(str::to_owned)).collect());
    if texts.is_none() {
        mistakes.add(&dotted(at, key), format!("{value} can't be"), "a list of texts, such as [\"acme/*\"]");
    }
    texts
}

fn flag(table: &Table, at: &str, key: &str, mistakes: &mut Mistakes) -> bool {
    match table.get(key) {
        None => false,
        Some(Value::Boolean(flag)) => *flag,
        Some(other) => {
            mistakes.add(&dotted(at, key), format!("{other} can't be"), "true or false");
            false
        }
    }
}

fn repositories(table: &Table, at: &str, mistakes: &mut Mistakes) -> Vec<String> {
    let names = list(table, at, "repositories", mistakes);
    let Some(names) = names.filter(|n| !n.is_empty()) else {
        mistakes.add(
            &dotted(at, "repositories"),
            "nobody may use it",
            "the repositories that may, such as [\"acme/*\"]",
        );
        return Vec::new();
    };
    for name in names.iter().filter(|n| *n != "*" && n.split('/').count() != 2) {
        mistakes.add(&dotted(at, "repositories"), format!("{name:?} is no repository"), "owner/name, owner/* or *");
    }
    names
}

fn secret_file(table: &Table, at: &str, key: &str, mistakes: &mut Mistakes) -> Option<SecretString> {
    let path = text(table, at, key, mistakes)?;
    match secret::read(&PathBuf::from(path)) {
        Ok(value) => Some(value),
        Err((problem, expected)) => {
            mistakes.add(&dotted(at, key), problem, expected);
            None
        }
    }
}

/// The tables' part of the schema.
pub(super) fn schema() -> Vec<(String, Json)> {
    let repos = json!({"type": "array", "items": {"type": "string"}, "description": "Who may use it: owner/name, owner/* or *."});
    let file = |doc: &str| json!({"type": "string", "description": format!("{doc} The file must not be readable by everybody.")});
    let object = |properties: Json, required: Json| json!({"type": "object", "additionalProperties": {"type": "object", "additionalProperties": false, "properties": properties, "required": required}});
    vec![
        (
            "targets".into(),
            object(
                json!({"kind": {"enum": ["local"]}, "repositories": repos, "listen": {"type": "object", "additionalProperties": {"type": "string"},
                    "description": "Where apps are reached: APP or ENVIRONMENT/APP to address."}}),
                json!(["kind", "repositories"]),
            ),
        ),
        (
            "registries".into(),
            object(
                json!({"username": {"type": "string"}, "password_file": file("Holds the password."), "repositories": repos}),
                json!(["username", "password_file", "repositories"]),
            ),
        ),
        (
            "secrets".into(),
            json!({"type": "object", "additionalProperties": object(
                json!({"file": file("Holds the secret."), "environments": {"type": "array", "items": {"type": "string"}},
                    "steps": {"type": "boolean"}, "pull_requests": {"type": "boolean"}}),
                json!(["file"]),
            )}),
        ),
        (
            "slack".into(),
            object(json!({"url_file": file("Holds the address of the incoming webhook.")}), json!(["url_file"])),
        ),
        (
            "limits".into(),
            json!({"type": "object", "additionalProperties": false, "properties": {"concurrent_steps": {"type": "integer", "minimum": 1,
                "maximum": 1024, "description": "Apps that are tested or built at once; default: the number of cores."}}}),
        ),
        (
            "trusted_local".into(),
            json!({"type": "array", "items": {"type": "string"}, "description": "Repositories whose steps may run on the server's own host."}),
        ),
    ]
}

/// The tables' part of the reference.
pub(super) const REFERENCE: &str = r##"
Tables stand in switchover.toml only:

| table | keys | what |
|---|---|---|
| `[targets.NAME]` | `kind = "local"`, `repositories`, `listen` | Where releases run. `listen` maps `APP` or `ENVIRONMENT/APP` to an address; other apps get a free port on 127.0.0.1, kept for good. |
| `[registries."HOST"]` | `username`, `password_file`, `repositories` | Logins for image registries. |
| `[secrets."owner/name"]` | `NAME = { file, environments, steps, pull_requests }` | Secrets and who sees them: running apps of the environments, steps of pushes to environments' branches, and own pull requests only with `pull_requests = true`. Strangers' code never. |
| `[slack."#channel"]` | `url_file` | The incoming webhook of a channel. |
| `[limits]` | `concurrent_steps` | Apps that are tested or built at once; default: the number of cores. |
| `trusted_local` | list of `owner/name`, `owner/*` | Repositories whose steps may run on the server's own host. A fork's never do. |
"##;

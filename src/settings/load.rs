//! Reading settings: the file as a tree, the environment laid over it, one check, then the secrets' files.

mod cluster;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::{
    ClusterTarget, DockerSettings, ExecutorKind, HostTarget, Limits, Registry, SecretGrant, Settings, SettingsMistake,
    TargetSettings, secret_file, table, toml_tree,
    variables::{self, VARIABLES, Variable, is_elsewhere},
};
use crate::domain::{
    config::{
        checker::{Checker, dotted},
        grammar::{Data, Pair, Value, describe_kind},
        mistake::{Mistake, nearest, plain},
        tree::{At, Entry, Node, NodeData},
    },
    rollout::ManifestPolicy,
};

/// The largest settings file, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// Without a word of the operator, 20 GiB: of a step, and of all caches.
const DISK: u64 = 20 << 30;
const KEEP_LOGS: Duration = Duration::from_secs(30 * 86_400);
const REFERENCE: &str = "`switchover schema settings`, docs/configure.md";

/// Reads settings from the file, if there is one, and the environment, which wins. `env` looks a variable up; `names`
/// lists all variables that are set.
///
/// # Errors
/// Every mistake that could be found, never none.
pub fn load(
    file: Option<&Path>,
    env: &dyn Fn(&str) -> Option<OsString>,
    names: &[String],
) -> Result<Settings, Vec<SettingsMistake>> {
    let mut loader = Loader { file, env, mistakes: Vec::new() };
    let text = loader.text();
    let parsed = text.as_deref().map(|text| loader.parse(text));
    // What is missing cannot be told while the file cannot be read.
    let whole = file.is_none() || matches!(parsed, Some(Some(_)));
    let mut root = parsed.flatten().unwrap_or_else(|| Node::empty_map(At::default()));
    loader.unknown_variables(names);
    loader.overlay(&mut root);
    let mut checker = Checker::new(&table::FILE);
    let value = checker.check_root(&root);
    for mistake in checker.finish() {
        loader.told(mistake);
    }
    match loader.build(&value, whole) {
        Some(settings) if loader.mistakes.is_empty() => Ok(settings),
        _ => Err(loader.mistakes),
    }
}

struct Loader<'a> {
    file: Option<&'a Path>,
    env: &'a dyn Fn(&str) -> Option<OsString>,
    mistakes: Vec<SettingsMistake>,
}

impl Loader<'_> {
    fn wrong(&mut self, name: &str, problem: impl Into<String>, expected: impl Into<String>, see: impl Into<String>) {
        self.mistakes.push(SettingsMistake {
            name: name.to_owned(),
            problem: problem.into(),
            expected: expected.into(),
            see: see.into(),
        });
    }

    /// A variable's value; empty is as good as not set, which is how deployments leave one out.
    fn env(&self, name: &str) -> Option<OsString> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    fn text(&mut self) -> Option<String> {
        let path = self.file?;
        let name = path.display().to_string();
        let read = std::fs::metadata(path).and_then(|metadata| match metadata.len() {
            _ if !metadata.is_file() => Err(std::io::Error::other("it is not a file")),
            n if n > MAX_FILE => Err(std::io::Error::other("it is larger than 1 MiB")),
            _ => std::fs::read_to_string(path),
        });
        match read {
            Ok(text) => Some(text),
            Err(error) => {
                self.wrong(
                    &name,
                    format!("the file cannot be read: {error}"),
                    "a TOML file",
                    "`--config`, SWITCHOVER_CONFIG",
                );
                None
            }
        }
    }

    fn place(&self, at: At) -> String {
        match self.file {
            Some(file) => format!("{}:{}:{}", file.display(), at.line, at.column),
            None => REFERENCE.to_owned(),
        }
    }

    fn parse(&mut self, text: &str) -> Option<Node> {
        match toml_tree::read(text) {
            Ok(root) => Some(root),
            Err(errors) => {
                for (at, message) in errors {
                    let see = self.place(at);
                    self.wrong("the file", plain(&message), "well-formed TOML", see);
                }
                None
            }
        }
    }

    /// A mistake of the check: in the file, or, where the overlay put it there, in a variable.
    fn told(&mut self, mistake: Mistake) {
        let at = At { line: mistake.line, column: mistake.column, length: mistake.length };
        let mut expected = mistake.expected;
        if let Some(hint) = mistake.hint {
            expected.push_str(&format!("; did you mean `{hint}`?"));
        }
        match VARIABLES.get(mistake.column as usize).filter(|_| mistake.line == u32::MAX) {
            Some(variable) => self.wrong(variable.name, mistake.message, expected, REFERENCE),
            None => {
                let see = self.place(at);
                let name = if mistake.key.is_empty() { "the file" } else { &mistake.key };
                self.wrong(name, mistake.message, expected, see);
            }
        }
    }

    fn unknown_variables(&mut self, names: &[String]) {
        let known: Vec<String> = VARIABLES
            .iter()
            .flat_map(|v| [v.name.to_owned(), if v.secret { format!("{}_FILE", v.name) } else { v.name.to_owned() }])
            .collect();
        let unknown = |name: &&String| name.starts_with("SWITCHOVER_") && !known.contains(*name) && !is_elsewhere(name);
        for name in names.iter().filter(unknown) {
            let short = |n: &str| n.strip_prefix("SWITCHOVER_").unwrap_or(n).to_owned();
            let shorts: Vec<String> = known.iter().map(|k| short(k)).collect();
            let near = nearest(&short(name), shorts.iter().map(String::as_str));
            let expected = match near {
                Some(near) => format!("SWITCHOVER_{near}, or the variable unset"),
                None => "the variable unset".to_owned(),
            };
            self.wrong(&plain(name), "there is no such setting", expected, REFERENCE);
        }
    }

    /// Lays plain values and secrets' files of the environment over the tree, at places that name the variable.
    fn overlay(&mut self, root: &mut Node) {
        let NodeData::Map(entries) = &mut root.data else { return };
        let mut laid = Vec::new();
        for (index, variable) in VARIABLES.iter().enumerate() {
            let name = if variable.secret { format!("{}_FILE", variable.name) } else { variable.name.to_owned() };
            let Some(value) = self.env(&name) else { continue };
            let at = At { line: u32::MAX, column: u32::try_from(index).unwrap_or(u32::MAX), length: 1 };
            match value.to_str() {
                Some(text) => laid.push((variable.key, at, text.to_owned())),
                None => self.wrong(&name, "is not text (UTF-8)", describe_kind(&variable.kind), REFERENCE),
            }
        }
        for (key, at, text) in laid {
            entries.retain(|e| e.key != key);
            let value = Rc::new(Node { at, data: NodeData::Scalar { text, bare: true } });
            entries.push(Entry { key: key.to_owned(), bare: true, at, value });
        }
    }

    /// A path that stands in the file is from the file's folder, one from the environment from where we are.
    fn path(&self, pair: &Pair) -> PathBuf {
        let path = PathBuf::from(pair.value.as_text().unwrap_or_default());
        let folder = self.file.and_then(Path::parent).filter(|_| pair.value.at.line != u32::MAX);
        match folder {
            Some(folder) => folder.join(path),
            None => path,
        }
    }

    /// The secret in the file that a key names. `key` is the dotted path.
    fn secret_in(&mut self, owner: &Value, word: &str, key: &str) -> Option<SecretString> {
        let pair = owner.written(word).filter(|p| p.value.as_text().is_some())?;
        match secret_file::read(&self.path(pair)) {
            Ok(secret) => Some(secret),
            Err((problem, expected)) => {
                let at = pair.value.at;
                match VARIABLES.get(at.column as usize).filter(|_| at.line == u32::MAX) {
                    Some(variable) => self.wrong(&format!("{}_FILE", variable.name), problem, expected, REFERENCE),
                    None => {
                        let see = self.place(at);
                        self.wrong(key, problem, expected, see);
                    }
                }
                None
            }
        }
    }

    /// A secret of the server itself: from the environment as it is, or from a file.
    fn secret_of(&mut self, value: &Value, variable: &Variable, whole: bool) -> Option<SecretString> {
        let inline = self.env(variable.name);
        let file_name = format!("{}_FILE", variable.name);
        if let Some(inline) = inline {
            if self.env(&file_name).is_some() {
                let problem = format!("is set beside {file_name}");
                self.wrong(variable.name, problem, "one of the two", REFERENCE);
                return None;
            }
            return match inline.into_string() {
                Ok(text) => Some(SecretString::from(text)),
                Err(_) => {
                    self.wrong(variable.name, "is not text (UTF-8)", "text", REFERENCE);
                    None
                }
            };
        }
        if value.written(variable.key).is_some() {
            return self.secret_in(value, variable.key, variable.key);
        }
        if variable.required && whole {
            self.missing(variable);
        }
        None
    }

    fn missing(&mut self, variable: &Variable) {
        let expected = match variable.secret {
            true => format!("{0}_FILE=PATH (or {0}), or `{1} = \"PATH\"` in the file", variable.name, variable.key),
            false => format!("{}=…, or `{} = …` in the file", variable.name, variable.key),
        };
        self.wrong(variable.name, format!("is missing. {}", variable.doc), expected, REFERENCE);
    }

    /// None only where there is a mistake.
    fn build(&mut self, value: &Value, whole: bool) -> Option<Settings> {
        let text = |variable: &Variable| value.text(variable.key);
        let or_default = |variable: &Variable| text(variable).or(variable.default).unwrap_or_default().to_owned();
        let listen: Option<SocketAddr> = or_default(&variables::LISTEN).parse().ok();
        let data = value.written("data").map_or_else(|| PathBuf::from(or_default(&variables::DATA)), |p| self.path(p));
        if value.int("app_id").is_none() && value.written("app_id").is_none() && whole {
            self.missing(&variables::APP_ID);
        }
        let private_key = self.secret_of(value, &variables::PRIVATE_KEY, whole).map(|key| self.private_key(key));
        let webhook = self.secret_of(value, &variables::WEBHOOK_SECRET, whole);
        let webhook_secrets = webhook.map(|text| self.webhook_secrets(&text)).unwrap_or_default();
        let slack_url = self.secret_of(value, &variables::SLACK_URL, whole);
        let slack_url = slack_url.and_then(|url| self.slack_url(variables::SLACK_URL.name, url, REFERENCE));
        let github_url = base_url(&or_default(&variables::GITHUB_URL));
        let github_web_url = match text(&variables::GITHUB_WEB_URL) {
            Some(written) => base_url(written),
            None => github_url.as_ref().map(web_url),
        };
        let public_url = match text(&variables::PUBLIC_URL) {
            Some(written) => base_url(written),
            None => listen.and_then(|listen| match listen.ip().is_unspecified() {
                true => base_url(&format!("http://localhost:{}", listen.port())),
                false => base_url(&format!("http://{listen}")),
            }),
        };
        let limits = value.get("limits");
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        // Everything is read before anything is given up, so that all mistakes are told.
        let (targets, registries) = (self.targets(value, &data), self.registries(value));
        let (secrets, slack) = (self.secrets(value), self.slack(value));
        let kubernetes = self.step_cluster(value);
        Some(Settings {
            listen: listen?,
            public_url: public_url?,
            database_url: None,
            github_url: github_url?,
            github_web_url: github_web_url?,
            app_id: value.int("app_id")?,
            private_key: private_key?,
            webhook_secrets,
            slack_url,
            executor: match value.text("executor") {
                Some("docker") => ExecutorKind::Docker,
                Some("kubernetes") => ExecutorKind::Kubernetes,
                _ => ExecutorKind::Local,
            },
            start_agent: value.text("start_agent") != Some("no"),
            docker: DockerSettings {
                host: text(&variables::DOCKER_HOST).unwrap_or("unix:///var/run/docker.sock").to_owned(),
                certs: value.written("docker_certs").map(|p| self.path(p)),
            },
            kubernetes,
            trusted_local: value.texts("trusted_local"),
            targets,
            registries,
            secrets,
            slack,
            limits: Limits {
                concurrent_steps: limits
                    .and_then(|l| l.int("concurrent_steps"))
                    .and_then(|n| usize::try_from(n).ok())
                    .unwrap_or(cores),
                step_memory: limits.and_then(|l| l.int("step_memory")),
                step_disk: limits.and_then(|l| l.int("step_disk")).unwrap_or(DISK),
                step_internet: limits.is_none_or(|l| l.bool("step_internet")),
                cache_disk: limits.and_then(|l| l.int("cache_disk")).unwrap_or(DISK),
                keep_logs: limits.map(|l| l.duration("keep_logs")).unwrap_or(KEEP_LOGS),
            },
            data,
        })
    }

    fn private_key(&mut self, key: SecretString) -> SecretString {
        // Files of variables often hold the line breaks as the two characters \n.
        let text = key.expose_secret();
        let key = if text.contains('\n') { key } else { SecretString::from(text.replace("\\n", "\n")) };
        if jsonwebtoken::EncodingKey::from_rsa_pem(key.expose_secret().as_bytes()).is_err() {
            self.wrong(
                variables::PRIVATE_KEY.name,
                "is not an RSA private key in PEM form",
                "the whole .pem file that GitHub gave, from -----BEGIN to -----END",
                "GitHub, the App's settings, \"Private keys\"",
            );
        }
        key
    }

    fn webhook_secrets(&mut self, text: &SecretString) -> Vec<SecretString> {
        let parts = text.expose_secret().split(',').map(str::trim);
        let secrets: Vec<SecretString> = parts.filter(|p| !p.is_empty()).map(SecretString::from).collect();
        if secrets.is_empty() {
            let expected = "the secret of the App's webhook; several separated by commas";
            self.wrong(variables::WEBHOOK_SECRET.name, "holds no secret", expected, REFERENCE);
        }
        secrets
    }

    fn slack_url(&mut self, name: &str, url: SecretString, see: &str) -> Option<SecretString> {
        let ok = Url::parse(url.expose_secret().trim())
            .is_ok_and(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
        if !ok {
            let expected = "an address such as https://hooks.slack.com/services/…";
            self.wrong(name, "is not the address of an incoming webhook", expected, see);
            return None;
        }
        Some(SecretString::from(url.expose_secret().trim()))
    }

    fn targets(&mut self, value: &Value, data: &Path) -> BTreeMap<String, TargetSettings> {
        let mut taken: BTreeMap<SocketAddr, String> = BTreeMap::new();
        let mut targets = BTreeMap::new();
        for pair in value.get("targets").map_or(&[][..], Value::pairs) {
            let key = dotted(&["targets".into(), pair.key.clone()]);
            let mut listen = BTreeMap::new();
            for listener in pair.value.get("listen").map_or(&[][..], Value::pairs) {
                let Some(address) = listener.value.as_text().and_then(|a| a.parse::<SocketAddr>().ok()) else {
                    continue;
                };
                let name = dotted(&["targets".into(), pair.key.clone(), "listen".into(), listener.key.clone()]);
                if address.port() != 0
                    && let Some(other) = taken.insert(address, name.clone())
                {
                    let see = self.place(listener.value.at);
                    self.wrong(&name, format!("{address} is that of {other} too"), "an address of its own", see);
                }
                listen.insert(listener.key.clone(), address);
            }
            let agent = pair.value.written("agent").map_or_else(|| data.join("agent"), |p| self.path(p));
            let repositories = self.repositories(pair, &key);
            self.keys_of_kind(pair, &key);
            let host = |repositories| HostTarget { repositories, listen, agent };
            let target = match pair.value.text("kind") {
                Some("docker") => TargetSettings::Docker(host(repositories)),
                Some("kubernetes") => {
                    let cluster = self.cluster(&pair.value, "");
                    let policy = ManifestPolicy {
                        namespace: cluster.namespace.clone(),
                        kinds: pair.value.texts("kinds"),
                        service_accounts: pair.value.texts("service_accounts"),
                    };
                    TargetSettings::Kubernetes(ClusterTarget {
                        repositories,
                        cluster,
                        policy,
                        kubectl: pair.value.written("kubectl").map(|p| self.path(p)),
                        helm: pair.value.written("helm").map(|p| self.path(p)),
                    })
                }
                _ => TargetSettings::Local(host(repositories)),
            };
            targets.insert(pair.key.clone(), target);
        }
        targets
    }

    /// Who may use something: somebody must.
    fn repositories(&mut self, owner: &Pair, key: &str) -> Vec<String> {
        let written = owner.value.written("repositories");
        if let Some(pair) = written.filter(|p| p.value.data == Data::List(Vec::new())) {
            let see = self.place(pair.at);
            let expected = "who may use it, such as repositories = [\"acme/*\"]";
            self.wrong(&format!("{key}.repositories"), "nobody may use it", expected, see);
        }
        owner.value.texts("repositories")
    }

    fn registries(&mut self, value: &Value) -> BTreeMap<String, Registry> {
        let mut registries = BTreeMap::new();
        for pair in value.get("registries").map_or(&[][..], Value::pairs) {
            let key = dotted(&["registries".into(), pair.key.clone()]);
            let repositories = self.repositories(pair, &key);
            if let Some(password) = self.secret_in(&pair.value, "password_file", &format!("{key}.password_file")) {
                let username = pair.value.text("username").unwrap_or_default().to_owned();
                let plain_http = pair.value.bool("plain_http");
                registries.insert(pair.key.clone(), Registry { username, password, repositories, plain_http });
            }
        }
        registries
    }

    fn secrets(&mut self, value: &Value) -> BTreeMap<String, BTreeMap<String, SecretGrant>> {
        let mut all = BTreeMap::new();
        for repository in value.get("secrets").map_or(&[][..], Value::pairs) {
            let mut grants = BTreeMap::new();
            for grant in repository.value.pairs() {
                let key = dotted(&["secrets".into(), repository.key.clone(), grant.key.clone()]);
                let environments = grant.value.texts("environments");
                let (steps, pull_requests) = (grant.value.bool("steps"), grant.value.bool("pull_requests"));
                let see = self.place(grant.at);
                if !grant.value.pairs().is_empty() && environments.is_empty() && !steps {
                    let expected = "environments = [\"…\"], steps = true, or both";
                    let problem =
                        if pull_requests { "pull requests without `steps`" } else { "it is granted to nothing" };
                    self.wrong(&key, problem, expected, see);
                }
                if let Some(value) = self.secret_in(&grant.value, "file", &format!("{key}.file")) {
                    grants.insert(grant.key.clone(), SecretGrant { value, environments, steps, pull_requests });
                }
            }
            all.insert(repository.key.clone(), grants);
        }
        all
    }

    fn slack(&mut self, value: &Value) -> BTreeMap<String, SecretString> {
        let mut channels = BTreeMap::new();
        for pair in value.get("slack").map_or(&[][..], Value::pairs) {
            let key = dotted(&["slack".into(), pair.key.clone(), "url_file".into()]);
            let see = self.place(pair.at);
            let url = self.secret_in(&pair.value, "url_file", &key).and_then(|url| self.slack_url(&key, url, &see));
            if let Some(url) = url {
                channels.insert(pair.key.clone(), url);
            }
        }
        channels
    }
}

/// A base without a trailing slash, so that paths can be added to it. What is no address has been refused before.
fn base_url(text: &str) -> Option<Url> {
    Url::parse(text.trim_end_matches('/')).ok()
}

/// GitHub's pages beside its API: github.com for api.github.com, the same host for GitHub Enterprise Server
/// ("Getting started with the REST API": https://HOST/api/v3).
fn web_url(api: &Url) -> Url {
    let mut url = api.clone();
    url.set_path("");
    url.set_query(None);
    if api.host_str() == Some("api.github.com") {
        // Cannot fail for a URL that has a host already; the API's own would be the next best.
        let _ = url.set_host(Some("github.com"));
    }
    url
}

//! Server settings: file and environment, parsed once, all mistakes at once.
//!
//! `switchover.toml` says where, with which secrets and who may use it; plain values can come from the environment,
//! which wins. Everything is read and checked at the start, secret files too: a server that runs has no mistake left
//! in its settings.

mod load;
mod secret_file;
pub mod table;
mod toml_tree;
pub mod variables;

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::SecretString;
use url::Url;

use crate::domain::{config::docs, rollout::ManifestPolicy, run::Trigger};

pub use load::load;

/// All settings, checked.
#[derive(Debug)]
pub struct Settings {
    /// Address that the server listens on.
    pub listen: SocketAddr,
    /// Where GitHub and people reach it; no trailing slash in its path but the root's.
    pub public_url: Url,
    /// Folder of the database, logs, mirrors and caches.
    pub data: PathBuf,
    /// The database. None: SQLite inside `data`, the only one of this build.
    pub database_url: Option<String>,
    /// Base of GitHub's API.
    pub github_url: Url,
    /// Base of GitHub's pages and of git over HTTP.
    pub github_web_url: Url,
    /// The GitHub App's id.
    pub app_id: u64,
    /// The GitHub App's private key, PEM, known to be readable as RSA.
    pub private_key: SecretString,
    /// The webhook's secrets, at least one; several during a rotation.
    pub webhook_secrets: Vec<SecretString>,
    /// Slack incoming webhook for channels that `slack` does not map.
    pub slack_url: Option<SecretString>,
    /// What runs steps.
    pub executor: ExecutorKind,
    /// Whether the server starts an agent where none answers.
    pub start_agent: bool,
    /// The Docker engine, where something of `docker` is used.
    pub docker: DockerSettings,
    /// Where steps run (executor `kubernetes`).
    pub kubernetes: StepCluster,
    /// Repositories whose steps may run on this host: `owner/name` or `owner/*`.
    pub trusted_local: Vec<String>,
    /// Where releases run.
    pub targets: BTreeMap<String, TargetSettings>,
    /// Registries by host.
    pub registries: BTreeMap<String, Registry>,
    /// Secrets by `owner/name`, then by name.
    pub secrets: BTreeMap<String, BTreeMap<String, SecretGrant>>,
    /// Slack incoming webhooks by channel.
    pub slack: BTreeMap<String, SecretString>,
    /// What this server may use.
    pub limits: Limits,
}

/// What runs steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecutorKind {
    /// This host.
    Local,
    /// A container for each step.
    Docker,
    /// A Job of a cluster for each step.
    Kubernetes,
}

/// How a cluster is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClusterSettings {
    /// Who and where. None: the account of the pod that this server runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Which context of the kubeconfig. None: its current one.
    pub context: Option<String>,
    /// The namespace that is used; no other is touched.
    pub namespace: String,
}

/// Where steps run (executor `kubernetes`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepCluster {
    /// The cluster.
    pub cluster: ClusterSettings,
    /// Labels of the nodes that steps may run on. Empty: all.
    pub node_selector: BTreeMap<String, String>,
}

/// Where the Docker engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerSettings {
    /// `unix:///path` or `tcp://host:port`.
    pub host: String,
    /// Folder with ca.pem, cert.pem and key.pem.
    pub certs: Option<PathBuf>,
}

/// A place that releases run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetSettings {
    /// Processes on this host, behind `switchover agent`.
    Local(HostTarget),
    /// Containers on this host, behind `switchover agent`.
    Docker(HostTarget),
    /// A namespace of a cluster.
    Kubernetes(ClusterTarget),
}

/// A target in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterTarget {
    /// Who may use it: `owner/name` or `owner/*`.
    pub repositories: Vec<String>,
    /// The cluster.
    pub cluster: ClusterSettings,
    /// What manifests may do there.
    pub policy: ManifestPolicy,
    /// kubectl, to render kustomize folders with.
    pub kubectl: Option<PathBuf>,
    /// helm, to render charts with.
    pub helm: Option<PathBuf>,
}

/// A target on one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostTarget {
    /// Who may use it: `owner/name` or `owner/*`.
    pub repositories: Vec<String>,
    /// Where users reach each app, by `app` or `environment/app`. Others get a free port on 127.0.0.1, kept for good.
    pub listen: BTreeMap<String, Listen>,
    /// Data folder of the agent.
    pub agent: PathBuf,
}

/// Where users reach an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Address and port.
    pub address: SocketAddr,
    /// Host names of this app. Empty: all that no other app has there.
    pub hosts: Vec<String>,
    /// Certificate and its private key, PEM files: TLS is spoken.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Plain address at which every request is sent on to `address` by https.
    pub redirect: Option<SocketAddr>,
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self { address, hosts: Vec::new(), tls: None, redirect: None }
    }
}

impl TargetSettings {
    /// Who may use it.
    #[must_use]
    pub fn repositories(&self) -> &[String] {
        match self {
            Self::Local(host) | Self::Docker(host) => &host.repositories,
            Self::Kubernetes(cluster) => &cluster.repositories,
        }
    }

    /// Whether releases are images.
    #[must_use]
    pub fn runs_images(&self) -> bool {
        matches!(self, Self::Docker(_) | Self::Kubernetes(_))
    }
}

/// Where images are pushed to.
#[derive(Debug, Clone)]
pub struct Registry {
    /// Who logs in.
    pub username: String,
    /// With what.
    pub password: SecretString,
    /// Who may push there.
    pub repositories: Vec<String>,
    /// Without TLS, because the operator says so.
    pub plain_http: bool,
}

/// A secret and what it is granted to.
#[derive(Debug, Clone)]
pub struct SecretGrant {
    /// The value.
    pub value: SecretString,
    /// Environments whose running apps get it.
    pub environments: Vec<String>,
    /// Whether steps get it on pushes to branches that environments are released from.
    pub steps: bool,
    /// Whether steps of the repository's own pull requests get it too.
    pub pull_requests: bool,
}

/// What this server may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Steps that run at the same time.
    pub concurrent_steps: usize,
    /// Memory that one step may use (executors docker and kubernetes), in bytes. None: no limit.
    pub step_memory: Option<u64>,
    /// Bytes that one step may write (executors docker and kubernetes).
    pub step_disk: u64,
    /// Whether steps reach more than their companions (executors docker and kubernetes).
    pub step_internet: bool,
    /// Bytes that caches and pulled images may hold together.
    pub cache_disk: u64,
    /// How long logs, payloads and what nobody uses any more are kept.
    pub keep_logs: Duration,
}

/// One thing that is wrong in the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsMistake {
    /// The variable, or the key as a dotted path.
    pub name: String,
    /// What is wrong.
    pub problem: String,
    /// What would have been right.
    pub expected: String,
    /// Where to look.
    pub see: String,
}

impl fmt::Display for SettingsMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    expected: {}\n    see: {}", self.name, self.problem, self.expected, self.see)
    }
}

/// All mistakes as text, for the terminal.
#[must_use]
pub fn render(mistakes: &[SettingsMistake]) -> String {
    let list: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    let count = match mistakes.len() {
        1 => "One setting is wrong:".to_owned(),
        n => format!("{n} settings are wrong:"),
    };
    format!("{count}\n\n{}\n", list.join("\n\n"))
}

/// True when a repository is named by one of the patterns: `owner/name` or `owner/*`. GitHub's names of owners and
/// repositories do not differ by case alone.
#[must_use]
pub fn names_repository(patterns: &[String], full_name: &str) -> bool {
    patterns.iter().any(|p| {
        p.eq_ignore_ascii_case(full_name)
            || p.strip_suffix("/*")
                .is_some_and(|owner| full_name.split_once('/').is_some_and(|(o, _)| o.eq_ignore_ascii_case(owner)))
    })
}

impl Settings {
    /// The target that a repository's environment runs on.
    ///
    /// # Errors
    /// In words, when none is granted, several are and none is named, or the named one is not granted.
    pub fn target_for(&self, full_name: &str, name: Option<&str>) -> Result<(&str, &TargetSettings), String> {
        let granted: Vec<(&str, &TargetSettings)> = self
            .targets
            .iter()
            .filter(|(_, t)| names_repository(t.repositories(), full_name))
            .map(|(n, t)| (n.as_str(), t))
            .collect();
        let all = || granted.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", ");
        match name {
            Some(name) => granted.iter().find(|(n, _)| *n == name).copied().ok_or_else(|| {
                format!(
                    "the operator of this server granted {full_name} no target named {name:?} (granted: {}): add the repository to \
                     [targets.{name}] in switchover.toml",
                    if granted.is_empty() { "none".to_owned() } else { all() }
                )
            }),
            None if granted.len() == 1 => Ok(granted[0]),
            None if granted.is_empty() => Err(format!(
                "the operator of this server granted {full_name} no target: add one to switchover.toml with `repositories = \
                 [\"{full_name}\"]`"
            )),
            None => Err(format!("several targets are granted to {full_name} ({}): name one with `target:`", all())),
        }
    }

    /// The registries that a repository may push to, by host.
    pub fn registries_for(&self, full_name: &str) -> impl Iterator<Item = (&str, &Registry)> {
        let granted = move |r: &Registry| names_repository(&r.repositories, full_name);
        self.registries.iter().filter(move |(_, r)| granted(r)).map(|(host, r)| (host.as_str(), r))
    }

    /// The image of an app that names none: in the only registry granted, under the name of who logs in there.
    #[must_use]
    pub fn image_for(&self, full_name: &str, app: &str) -> Option<String> {
        let mut granted = self.registries_for(full_name);
        let (host, registry) = granted.next().filter(|_| granted.next().is_none())?;
        let (_, repository) = full_name.split_once('/')?;
        Some(format!("{host}/{}/{repository}-{app}", registry.username).to_lowercase())
    }

    /// True when the repository's steps may run on the server's own host.
    #[must_use]
    pub fn trusted_local(&self, full_name: &str) -> bool {
        names_repository(&self.trusted_local, full_name)
    }

    fn granted(
        &self,
        full_name: &str,
        names: &[String],
        fits: impl Fn(&SecretGrant) -> bool,
    ) -> Vec<(String, SecretString)> {
        let of = self.secrets.iter().filter(|(repo, _)| repo.eq_ignore_ascii_case(full_name));
        of.flat_map(|(_, grants)| grants.iter())
            .filter(|(name, grant)| names.contains(name) && fits(grant))
            .map(|(name, grant)| (name.clone(), grant.value.clone()))
            .collect()
    }

    /// The secrets that a step sees: granted to steps, and for pull requests only where the grant says so; never for a
    /// stranger's code.
    #[must_use]
    pub fn step_secrets(&self, full_name: &str, trigger: Trigger, names: &[String]) -> Vec<(String, SecretString)> {
        self.granted(full_name, names, |g| {
            g.steps
                && match trigger {
                    Trigger::Release => true,
                    Trigger::OwnPull => g.pull_requests,
                    Trigger::Branch | Trigger::Stranger => false,
                }
        })
    }

    /// All secret values of a repository: what its logs must not show.
    #[must_use]
    pub fn all_secrets(&self, full_name: &str) -> Vec<SecretString> {
        let of = self.secrets.iter().filter(|(repo, _)| repo.eq_ignore_ascii_case(full_name));
        of.flat_map(|(_, grants)| grants.values()).map(|grant| grant.value.clone()).collect()
    }

    /// The secrets that an environment's running apps see.
    #[must_use]
    pub fn environment_secrets(
        &self,
        full_name: &str,
        environment: &str,
        names: &[String],
    ) -> Vec<(String, SecretString)> {
        self.granted(full_name, names, |g| g.environments.iter().any(|e| e == environment))
    }

    /// Slack's address for a channel; the default one where the channel is not mapped.
    #[must_use]
    pub fn slack_for(&self, channel: Option<&str>) -> Option<&SecretString> {
        channel.and_then(|c| self.slack.get(c)).or(self.slack_url.as_ref())
    }
}

/// The JSON schema of `switchover.toml` (draft 2020-12).
#[must_use]
pub fn schema() -> serde_json::Value {
    docs::schema(&table::FILE, "switchover.toml")
}

/// The reference of environment and file as Markdown.
#[must_use]
pub fn reference_markdown() -> String {
    use fmt::Write as _;
    let mut out = String::from(
        "## Environment\n\nA variable wins over the file. Secrets can be given as they are or, better, as the path of a file in \
         `…_FILE`, which the world must not be able to read.\n\n| variable | in the file | value | default | what it is |\n|---|---|---|---|---|\n",
    );
    for variable in &variables::VARIABLES {
        let value = if variable.secret {
            "the secret, or its file".to_owned()
        } else {
            crate::domain::config::grammar::describe_kind(&variable.kind)
        };
        let default = match variable.default {
            _ if variable.required => "must be there".to_owned(),
            Some(text) if text.contains(' ') => text.to_owned(),
            Some(text) => format!("`{text}`"),
            None => "–".to_owned(),
        };
        let names =
            if variable.secret { format!("`{0}`, `{0}_FILE`", variable.name) } else { format!("`{}`", variable.name) };
        let _ = writeln!(out, "| {names} | `{}` | {value} | {default} | {} |", variable.key, variable.doc);
    }
    out.push_str("\nRead elsewhere or set by Switchover itself:\n\n| variable | what it is |\n|---|---|\n");
    for (name, doc) in &variables::ELSEWHERE {
        let _ = writeln!(out, "| `{name}` | {doc} |");
    }
    out.push('\n');
    out.push_str(&docs::reference(&table::FILE));
    out
}

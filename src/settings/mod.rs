//! Server settings: `switchover.toml` and the environment, parsed once at the start, all mistakes at once.
//!
//! Plain values have one name and may stand in either place; the environment wins. [`table`] is the one list of them:
//! the parser, `switchover schema settings` and docs/ are made from it.

mod file;
mod secret;
mod table;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use secrecy::SecretString;
use url::Url;

use crate::domain::run::Trigger;

pub use file::{LocalTarget, Registry, SecretGrant, TargetSettings};
pub use table::{reference_markdown, schema};

/// Where steps run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecutorKind {
    /// On the server's own host, for trusted repositories.
    Local,
}

/// How much at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Apps that are tested or built at once.
    pub concurrent_steps: usize,
}

/// All that the operator says.
#[derive(Debug)]
pub struct Settings {
    /// Where the server listens.
    pub listen: SocketAddr,
    /// How people and GitHub reach it.
    pub public_url: Url,
    /// Where everything is kept.
    pub data: PathBuf,
    /// The database, if not SQLite in the data folder.
    pub database_url: Option<String>,
    /// GitHub's API.
    pub github_url: Url,
    /// GitHub's pages and git.
    pub github_web_url: Url,
    /// The App's number.
    pub app_id: u64,
    /// The App's key, PEM.
    pub private_key: SecretString,
    /// Valid webhook secrets, several during a rotation.
    pub webhook_secrets: Vec<SecretString>,
    /// Slack's incoming webhook for channels that are not mapped.
    pub slack_url: Option<SecretString>,
    /// Where steps run.
    pub executor: ExecutorKind,
    /// Where releases run, by name.
    pub targets: BTreeMap<String, TargetSettings>,
    /// Registries by host.
    pub registries: BTreeMap<String, Registry>,
    /// Secrets by repository and name.
    pub secrets: BTreeMap<String, BTreeMap<String, SecretGrant>>,
    /// Slack webhooks by channel.
    pub slack: BTreeMap<String, SecretString>,
    /// How much at once.
    pub limits: Limits,
    /// Repositories whose steps may run on the server's own host: `owner/name` or `owner/*`.
    pub trusted_local: Vec<String>,
}

/// One mistake, with all that is needed to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsMistake {
    /// The variable or key.
    pub name: String,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub expected: String,
    /// Where to look.
    pub see: String,
}

impl fmt::Display for SettingsMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    expected: {}\n    see: {}", self.name, self.problem, self.expected, self.see)
    }
}

/// Collects mistakes while everything is read.
struct Mistakes(Vec<SettingsMistake>);

impl Mistakes {
    fn add(&mut self, name: &str, problem: impl Into<String>, expected: impl Into<String>) {
        let name = name.to_owned();
        let see = format!("docs/configure.md, `{name}`; `switchover schema settings`");
        self.0.push(SettingsMistake { name, problem: problem.into(), expected: expected.into(), see });
    }
}

/// Reads the settings. `env` looks a variable up; `names` lists all variables that are set.
///
/// # Errors
/// All mistakes at once.
pub fn load(
    file: Option<&Path>,
    env: &dyn Fn(&str) -> Option<OsString>,
    names: &[String],
) -> Result<Settings, Vec<SettingsMistake>> {
    let mut mistakes = Mistakes(Vec::new());
    let file = file::File::read(file, &mut mistakes);
    let mut values = table::Values::read(&file, env, names, &mut mistakes);
    let data = values.path("SWITCHOVER_DATA").unwrap_or_else(|| PathBuf::from("data"));
    let settings = Settings {
        listen: values
            .parsed("SWITCHOVER_LISTEN", "an address and port, such as 0.0.0.0:8080")
            .unwrap_or(([127, 0, 0, 1], 8080).into()),
        public_url: values.url("SWITCHOVER_PUBLIC_URL").unwrap_or_else(table::nowhere),
        database_url: values.text("SWITCHOVER_DATABASE_URL"),
        github_url: values.url("SWITCHOVER_GITHUB_URL").unwrap_or_else(table::nowhere),
        github_web_url: values.url("SWITCHOVER_GITHUB_WEB_URL").unwrap_or_else(table::nowhere),
        app_id: values.parsed("SWITCHOVER_APP_ID", "the App's number, from its page on GitHub").unwrap_or(0),
        private_key: values.private_key(),
        webhook_secrets: values.webhook_secrets(),
        slack_url: values.secret_url("SWITCHOVER_SLACK_URL"),
        executor: values.executor(),
        targets: file.targets(&data, &mut values.mistakes),
        registries: file.registries(&mut values.mistakes),
        secrets: file.secrets(&mut values.mistakes),
        slack: file.slack(&mut values.mistakes),
        limits: file.limits(&mut values.mistakes),
        trusted_local: file.trusted_local(&mut values.mistakes),
        data,
    };
    if settings.database_url.is_some() {
        values.mistakes.add(
            "SWITCHOVER_DATABASE_URL",
            "another database than SQLite in the data folder is not supported by this version",
            "the variable left out",
        );
    }
    drop(values);
    if mistakes.0.is_empty() { Ok(settings) } else { Err(mistakes.0) }
}

/// True when a repository is named by one of the patterns: `owner/name`, `owner/*` or `*`.
#[must_use]
pub fn names_repository(patterns: &[String], full_name: &str) -> bool {
    patterns.iter().any(|p| {
        p == "*"
            || p.eq_ignore_ascii_case(full_name)
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

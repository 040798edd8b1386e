//! The repository's `.github/switchover.yml`: the types that the rest of the product reads.
//!
//! Every field carries one line of documentation: `switchover schema config` and docs/ are made from it.
//! Parsing with carets, validation and near-miss hints live beside it:
//!
//! * [`tree`]: YAML in which every node knows its place.
//! * [`grammar`], [`checker`] and [`docs`]: what may stand where, as a table; checks, JSON schema and reference come from it. The
//!   server's settings use the same three.
//! * [`table`] and [`formats`]: the table of this file and its kinds of text.
//! * [`parse`], with the rules between parts of the file; [`mistake`]: what is told to the author, with a caret.
//! * [`branches`], [`window`], [`units`]: the meaning of branch patterns, windows, durations and sizes.
//! * `write`: [`RepoConfig::to_yaml`]; [`changes`]: what another file would change about releases.

pub mod branches;
mod build;
pub mod changes;
pub mod checker;
pub mod docs;
pub mod formats;
pub mod grammar;
pub mod mistake;
pub mod parse;
mod rules;
pub mod table;
pub mod tree;
pub mod units;
pub mod window;
mod write;

pub use mistake::{Mistake, render};
pub use parse::{FILE_NAME, ParsedConfig, parse, parse_bytes};

use std::{collections::BTreeMap, time::Duration};

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::{AppName, EnvironmentName, StepName};

/// All that a repository says about itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RepoConfig {
    /// Which pushes and pull requests are tested.
    pub on: On,
    /// What is tested, built and released, in the order written.
    pub apps: IndexMap<AppName, App>,
    /// Where it is released.
    pub environments: IndexMap<EnvironmentName, Environment>,
    /// Who is told.
    pub notify: Notify,
}

/// Which events start tests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct On {
    /// Branch patterns whose pushes are tested. None: the default branch, develop and every environment's branch.
    pub push: Option<Vec<String>>,
    /// Whether pull requests are tested (default true).
    pub pull_request: bool,
}

/// What an app is to the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AppKind {
    /// Answers requests on a port; released blue/green.
    #[default]
    Web,
    /// No port: consumes a queue or runs a schedule. Never doubled: the old one stops, then the new one starts.
    Worker,
}

/// One app of a repository.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct App {
    /// What it is to the outside.
    pub kind: AppKind,
    /// Folder from the repository's root, with no leading or trailing slash; empty for the root itself.
    pub path: String,
    /// Image that its steps run in (executors docker and kubernetes).
    pub container: Option<String>,
    /// Folders kept between runs; `~/` is the step's own home, others are below the app's folder.
    pub cache: Vec<String>,
    /// Plain environment of its steps.
    pub env: BTreeMap<String, String>,
    /// Secrets of its steps, granted by the operator.
    pub secrets: Vec<String>,
    /// Steps in order. The one named `build` makes what is released.
    pub steps: IndexMap<StepName, Step>,
    /// Image to push to, without a tag.
    pub image: Option<String>,
    /// Somebody else's CI pushes the image: how it is tagged there. None: it is built here.
    pub image_tag: Option<String>,
    /// This app runs the image (or the local release) of another one.
    pub image_of: Option<AppName>,
    /// Dockerfile from the app's folder.
    pub dockerfile: Option<String>,
    /// Files of a local release, as patterns from the app's folder. None: everything there after `build`.
    pub files: Option<Vec<String>>,
    /// Command that starts it where there is no image (target local). `PORT` tells where to listen.
    pub start: Option<String>,
    /// Port that it listens on in its container.
    pub port: Option<u16>,
    /// CPU and memory that one running copy may use (targets with images).
    pub resources: Resources,
    /// Path that answers 2xx when it is ready to serve.
    pub health: Option<String>,
    /// Runs once per release, in the new release, before anything of it starts.
    pub pre_deploy: Option<PreDeploy>,
    /// Apps that are switched before this one.
    pub switch_after: Vec<AppName>,
}

/// One step of an app.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Shell command, run in the app's folder by `sh -e`.
    pub run: String,
    /// JUnit XML files to read afterwards, as patterns from the app's folder.
    pub reports: Vec<String>,
    /// Companion containers (executors docker and kubernetes).
    pub services: IndexMap<String, Service>,
    /// Time limit (default 30 minutes).
    pub timeout: Duration,
    /// Plain environment of this step alone, over the app's.
    pub env: BTreeMap<String, String>,
    /// CPU and memory asked for (executors docker and kubernetes).
    pub resources: Resources,
}

/// A companion of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its image.
    pub image: String,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// When it counts as ready: `tcp:PORT` or `health`.
    pub ready: Option<String>,
}

/// What a step asks for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Cores.
    pub cpu: Option<f64>,
    /// Bytes.
    pub memory: Option<u64>,
}

/// A command that runs once per release before its slot starts, such as a migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PreDeploy {
    /// Shell command, run in the release.
    pub run: String,
    /// Whether the old release still works afterwards. If not, there is no automatic way back.
    pub reversible: bool,
    /// Time limit (default 10 minutes).
    pub timeout: Duration,
}

/// Where a release comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum DeployFrom {
    /// Every push to this branch.
    Branch(String),
    /// Only digests that are live in that environment, on command.
    PromoteFrom(EnvironmentName),
    /// Only on command.
    Command,
}

/// Whether a person must say yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    /// Switched as soon as the new slot is verified.
    #[default]
    None,
    /// Waits for `promote`.
    Required,
}

/// One place that is released to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Environment {
    /// Where its releases come from.
    pub deploy: DeployFrom,
    /// Names of checks that must be green on the commit, other people's too. Default: `switchover`.
    pub after: Vec<String>,
    /// Whether a person must say yes before the switch.
    pub approval: Approval,
    /// Who may command it. None: those who may write.
    pub allow: Option<Allow>,
    /// The operator's name of where it runs. None: the only one granted.
    pub target: Option<String>,
    /// Folder of Kubernetes manifests.
    pub manifests: Option<String>,
    /// Where users reach it.
    pub url: Option<String>,
    /// Plain environment of the running apps.
    pub env: BTreeMap<String, String>,
    /// Secrets of the running apps, granted by the operator.
    pub secrets: Vec<String>,
    /// Running copies per slot (default 1).
    pub replicas: u32,
    /// How the release is watched from outside.
    pub probe: Probe,
    /// Command that must succeed against the new slot alone; `URL` tells where it is.
    pub smoke: Option<Smoke>,
    /// How long the new slot must answer well before it is ready to serve (default 1 s).
    pub min_ready: Duration,
    /// How long a slot may take until it is ready (default 2 minutes).
    pub start_timeout: Duration,
    /// How long after the switch a bad release is taken back by itself (default 1 minute).
    pub watch_for: Duration,
    /// How long the previous slot is kept warm after that (default 1 hour).
    pub keep_previous: Duration,
    /// The longest request that must not be cut (default 30 s).
    pub drain_timeout: Duration,
    /// When automatic releases may begin, such as `mon-fri 09:00-17:00 Asia/Seoul`. Empty: always.
    pub windows: Vec<String>,
}

/// Who may command an environment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Allow {
    /// Repository roles: `write`, `maintain`, `admin`.
    pub roles: Vec<String>,
    /// Teams as `org/team`.
    pub teams: Vec<String>,
    /// Users by login.
    pub users: Vec<String>,
}

/// The requests that prove a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// Path to GET. None: the app's `health`.
    pub path: Option<String>,
    /// Time between two requests of one prober (default 20 ms).
    pub interval: Duration,
    /// Body to POST instead.
    pub body: Option<String>,
}

/// A test of the new slot before users see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Smoke {
    /// Shell command.
    pub run: String,
    /// Time limit (default 1 minute).
    pub timeout: Duration,
}

/// Who is told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Notify {
    /// Slack channel, mapped to a webhook by the operator.
    pub slack: Option<String>,
}

impl On {
    /// Whether pushes to this branch are tested: by the patterns, or, where none are written, the default branch,
    /// `develop` and every environment's branch.
    #[must_use]
    pub fn tests_push(
        &self,
        branch: &str,
        default_branch: &str,
        environments: &IndexMap<EnvironmentName, Environment>,
    ) -> bool {
        match &self.push {
            Some(patterns) => branches::matches(patterns, branch),
            None => {
                branch == default_branch
                    || branch == "develop"
                    || environments.values().any(|e| matches!(&e.deploy, DeployFrom::Branch(b) if b == branch))
            }
        }
    }
}

impl App {
    /// Whether there is something to release: an image, another app's, or a command that starts it.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.image.is_some() || self.image_tag.is_some() || self.image_of.is_some() || self.start.is_some()
    }
}

/// The JSON schema of the file (draft 2020-12).
#[must_use]
pub fn schema() -> serde_json::Value {
    let mut schema = docs::schema(&table::FILE, FILE_NAME);
    // One of the two, never both: what `rules` says of `deploy`, as far as a schema can.
    if let Some(serde_json::Value::Object(deploy)) = schema.pointer_mut("/$defs/deploy") {
        deploy.insert("minProperties".to_owned(), 1.into());
        deploy.insert("maxProperties".to_owned(), 1.into());
    }
    schema
}

/// The reference of the file as Markdown.
#[must_use]
pub fn reference_markdown() -> String {
    docs::reference(&table::FILE)
}

//! The one table of environment variables: name, key in the file, type, default, a line of documentation.

use crate::domain::config::{formats as f, grammar::Kind};

use super::table as t;

/// A setting that the environment can give.
#[derive(Debug)]
pub struct Variable {
    /// Its name in the environment.
    pub name: &'static str,
    /// Its key in the file.
    pub key: &'static str,
    /// What may stand there.
    pub kind: Kind,
    /// A secret: in the environment as it is or as `…_FILE`; in the file only as the path of a file.
    pub secret: bool,
    /// Whether the server starts without it.
    pub required: bool,
    /// What holds without it, in words or as it would be written.
    pub default: Option<&'static str>,
    /// One line of documentation.
    pub doc: &'static str,
}

const fn plain(
    name: &'static str,
    key: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> Variable {
    Variable { name, key, kind, secret: false, required: false, default: Some(default), doc }
}

const fn secret(name: &'static str, key: &'static str, required: bool, doc: &'static str) -> Variable {
    Variable { name, key, kind: Kind::Text(&t::FILE_PATH), secret: true, required, default: None, doc }
}

/// Where the server listens.
pub const LISTEN: Variable = plain(
    "SWITCHOVER_LISTEN",
    "listen",
    Kind::Text(&t::ADDRESS),
    "127.0.0.1:8080",
    "Address and port that the server listens on.",
);
/// How others reach the server.
pub const PUBLIC_URL: Variable = plain(
    "SWITCHOVER_PUBLIC_URL",
    "public_url",
    Kind::Text(&f::WEB_URL),
    "http:// and the address of SWITCHOVER_LISTEN",
    "Where GitHub and people reach the server: checks link there.",
);
/// The data folder.
pub const DATA: Variable = plain(
    "SWITCHOVER_DATA",
    "data",
    Kind::Text(&t::FILE_PATH),
    "./data",
    "Folder of the database, logs, mirrors and caches.",
);
/// The database.
pub const DATABASE_URL: Variable = plain(
    "SWITCHOVER_DATABASE_URL",
    "database_url",
    Kind::Text(&t::DATABASE),
    "SQLite inside the data folder",
    "The database. This build has only the default.",
);
/// GitHub's API.
pub const GITHUB_URL: Variable = plain(
    "SWITCHOVER_GITHUB_URL",
    "github_url",
    Kind::Text(&f::WEB_URL),
    "https://api.github.com",
    "Base of GitHub's API; for GitHub Enterprise Server https://HOST/api/v3.",
);
/// GitHub's pages and git.
pub const GITHUB_WEB_URL: Variable = plain(
    "SWITCHOVER_GITHUB_WEB_URL",
    "github_web_url",
    Kind::Text(&f::WEB_URL),
    "https://github.com, or the host of SWITCHOVER_GITHUB_URL",
    "Base of GitHub's pages and of git over HTTP.",
);
/// The App.
pub const APP_ID: Variable = Variable {
    name: "SWITCHOVER_APP_ID",
    key: "app_id",
    kind: Kind::Int(1, i64::MAX as u64),
    secret: false,
    required: true,
    default: None,
    doc: "The GitHub App's id, from its settings page.",
};
/// The App's key.
pub const PRIVATE_KEY: Variable = secret(
    "SWITCHOVER_PRIVATE_KEY",
    "private_key_file",
    true,
    "The GitHub App's private key (PEM), from its settings page.",
);
/// The webhook's secret.
pub const WEBHOOK_SECRET: Variable = secret(
    "SWITCHOVER_WEBHOOK_SECRET",
    "webhook_secret_file",
    true,
    "The webhook's secret; during a rotation several, separated by commas.",
);
/// A Slack webhook.
pub const SLACK_URL: Variable = secret(
    "SWITCHOVER_SLACK_URL",
    "slack_url_file",
    false,
    "Slack incoming webhook for channels that [slack] does not map.",
);
/// What runs steps.
pub const EXECUTOR: Variable = plain(
    "SWITCHOVER_EXECUTOR",
    "executor",
    Kind::Word(&["local", "docker", "kubernetes"]),
    "local",
    "What runs steps. `local`: this host, for repositories under `trusted_local` alone. `docker`: a container each. `kubernetes`: a Job each.",
);
/// The Docker engine.
pub const DOCKER_HOST: Variable = plain(
    "SWITCHOVER_DOCKER_HOST",
    "docker_host",
    Kind::Text(&t::DOCKER_ADDRESS),
    "unix:///var/run/docker.sock",
    "The Docker engine of executor and target `docker`, which builds images too.",
);
/// TLS towards the Docker engine.
pub const DOCKER_CERTS: Variable = Variable {
    name: "SWITCHOVER_DOCKER_CERTS",
    key: "docker_certs",
    kind: Kind::Text(&t::FILE_PATH),
    secret: false,
    required: false,
    default: None,
    doc: "Folder with ca.pem, cert.pem and key.pem for an engine at tcp://, as Docker's DOCKER_CERT_PATH.",
};

/// Who starts the agent.
pub const START_AGENT: Variable = plain(
    "SWITCHOVER_START_AGENT",
    "start_agent",
    Kind::Word(&["yes", "no"]),
    "yes",
    "Whether the server starts `switchover agent` where none answers. `no` where a container of its own runs it.",
);

/// All of them, in the order of the reference.
pub static VARIABLES: [Variable; 14] = [
    LISTEN,
    PUBLIC_URL,
    DATA,
    DATABASE_URL,
    GITHUB_URL,
    GITHUB_WEB_URL,
    APP_ID,
    PRIVATE_KEY,
    WEBHOOK_SECRET,
    SLACK_URL,
    EXECUTOR,
    DOCKER_HOST,
    DOCKER_CERTS,
    START_AGENT,
];

/// Variables of the same family that are read elsewhere, and what they are for.
pub static ELSEWHERE: [(&str, &str); 9] = [
    ("SWITCHOVER_CONFIG", "Path of switchover.toml, as `--config`."),
    ("SWITCHOVER_LOG", "What is logged, as a tracing filter such as `info,switchover::engine=debug`."),
    ("SWITCHOVER_CRASH_AT", "Tests only: the place where the process kills itself."),
    ("SWITCHOVER_RELEASE", "Set by Switchover in the environment of released apps."),
    ("SWITCHOVER_ENVIRONMENT", "Set by Switchover in the environment of released apps."),
    ("SWITCHOVER_COMMIT", "Set by Switchover in the environment of released apps."),
    ("SWITCHOVER_HEALTH", "Set by Switchover in the environment of released apps."),
    ("SWITCHOVER_COMMAND", "Set by Switchover around the commands of a release."),
    ("SWITCHOVER_RESULT", "Set by Switchover around the commands of a release."),
];

/// Whether a variable is nobody's mistake: read elsewhere, a test's, or set by Kubernetes for a Service named
/// `switchover` ("Service": environment variables).
#[must_use]
pub fn is_elsewhere(name: &str) -> bool {
    ELSEWHERE.iter().any(|(known, _)| *known == name)
        || name.starts_with("SWITCHOVER_TEST_")
        || name.starts_with("SWITCHOVER_SERVICE_")
        || name == "SWITCHOVER_PORT"
        || name.starts_with("SWITCHOVER_PORT_")
}

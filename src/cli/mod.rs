//! The command line: one function for each subcommand.

mod doctor;
mod keep;
mod serve;
mod tell;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use switchover::{
    agent,
    domain::{config::units::parse_duration, ids::Sha},
    engine::commands::Verb,
    github::{GitHub, GitHubConfig, Timeouts},
    settings::{self, Settings, SettingsMistake},
    telemetry::{self, LogFormat},
};
use tokio_util::sync::CancellationToken;

/// Version with the commit it was built from, where the build knew it (build.rs).
const VERSION: &str = match option_env!("BUILT_AS") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// A GitHub App that tests every push and releases blue/green with no lost request.
///
/// Start with `switchover demo`: it shows everything on this machine alone. For real use: `switchover serve`, with the
/// settings in switchover.toml or the environment (`switchover schema settings` lists them).
#[derive(Debug, Parser)]
#[command(name = "switchover", version = VERSION, max_term_width = 110)]
struct Cli {
    /// What is logged, in tracing's syntax: `info`, `debug`, `info,switchover::engine=debug`.
    #[arg(long, global = true, env = "SWITCHOVER_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "FORMAT")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server: take webhooks, run tests, release.
    ///
    /// SIGTERM ends it gently: nothing new is begun, running steps get ten seconds, and what is unfinished is taken up
    /// after the next start. A second SIGTERM ends it at once. Requests to released apps are not touched by either: the
    /// agent serves them.
    Serve {
        /// Settings file. Default: switchover.toml in this folder, if there is one.
        #[arg(long, short, env = "SWITCHOVER_CONFIG")]
        config: Option<PathBuf>,
        /// Wait so long for a server that still runs with the same data folder to end, such as 100s.
        #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
        wait: Duration,
    },
    /// Hold the listening sockets of this host and supervise its processes (started by `serve` where none runs).
    Agent {
        /// Folder of the agent's state.
        #[arg(long)]
        data: PathBuf,
        /// Start nothing: say whether the agent of that folder answers (exit code 0 if it does).
        #[arg(long)]
        check: bool,
        /// End if another agent runs there, instead of taking its place.
        #[arg(long)]
        only_free: bool,
    },
    /// Show the whole product on this machine: a stand-in GitHub, a server, an agent and a sample repository.
    Demo(serve::DemoArgs),
    /// Read a checkout's configuration as the server would, and show it or its mistakes.
    Check {
        /// The checkout.
        #[arg(default_value = ".")]
        path: PathBuf,
        /// Write what was understood to .github/switchover.yml (never over an existing file).
        #[arg(long)]
        write: bool,
    },
    /// Show the environments: what is live, what waits, what is held.
    Status {
        #[command(flatten)]
        at: At,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Print nothing: the exit code says whether the server answers.
        #[arg(long, conflicts_with = "json")]
        quiet: bool,
    },
    /// Switch a release that waits for approval, or bring the digest of the environment before to this one.
    Promote {
        #[command(flatten)]
        at: At,
        /// The environment; default: the only one.
        environment: Option<String>,
        /// The commit that was looked at (40 digits): anything else is refused.
        #[arg(long)]
        sha: Option<Sha>,
    },
    /// Go back to the last good release within a second, and hold the environment.
    Rollback {
        #[command(flatten)]
        at: At,
        /// The environment; default: the only one.
        environment: Option<String>,
        /// Go back to this release (at least seven digits of its commit).
        #[arg(long)]
        to: Option<String>,
    },
    /// End the hold of an environment: automatic releases go on.
    Resume {
        #[command(flatten)]
        at: At,
        /// The environment; default: the only one.
        environment: Option<String>,
    },
    /// Stop a release that is not switched yet.
    Cancel {
        #[command(flatten)]
        at: At,
        /// The environment; default: the only one.
        environment: Option<String>,
    },
    /// Build the commit that is live anew, from nothing that earlier builds left, and release that.
    Rebuild {
        #[command(flatten)]
        at: At,
        /// The environment; default: the only one.
        environment: Option<String>,
    },
    /// Show what a release would change in a cluster, before anything is applied.
    Plan {
        #[command(flatten)]
        at: At,
        /// The environment.
        environment: String,
        /// The commit; default: the head of the branch that is released there.
        #[arg(long)]
        sha: Option<Sha>,
    },
    /// Look whether everything that the settings name can be used: GitHub, engine, clusters with their rights, registries.
    Doctor {
        /// Settings file. Default: switchover.toml in this folder, if there is one.
        #[arg(long, short, env = "SWITCHOVER_CONFIG")]
        config: Option<PathBuf>,
        /// Print the Roles that releases and steps need in a cluster, with their bindings, and look at nothing.
        #[arg(long)]
        rbac: bool,
        #[command(flatten)]
        names: doctor::Rbac,
    },
    /// Tell why something did or did not run.
    Explain {
        #[command(flatten)]
        at: At,
        /// A delivery id (X-GitHub-Delivery) or a commit of at least seven digits.
        subject: String,
    },
    /// Process a stored delivery again.
    Replay {
        #[command(flatten)]
        at: At,
        /// The delivery id (X-GitHub-Delivery).
        delivery: String,
    },
    /// Look now for deliveries and pushes that were missed (done on start and every few minutes anyway).
    Sweep {
        #[command(flatten)]
        at: At,
    },
    /// Write database, key and agent's state into one file. The server may run meanwhile.
    Backup {
        /// The server's data folder.
        #[arg(long, env = "SWITCHOVER_DATA", default_value = "data")]
        data: PathBuf,
        /// The file; it holds secrets, and only its owner may read it.
        file: PathBuf,
    },
    /// Make a data folder from a backup; nothing is released twice.
    Restore {
        /// The data folder to make.
        #[arg(long, env = "SWITCHOVER_DATA", default_value = "data")]
        data: PathBuf,
        /// The backup.
        file: PathBuf,
    },
    /// Print a JSON schema, or the reference that docs/ is made from.
    Schema {
        /// Of what.
        of: SchemaOf,
        /// Print the reference in Markdown instead.
        #[arg(long)]
        markdown: bool,
    },
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Which server.
#[derive(Debug, clap::Args)]
struct At {
    /// The server's data folder.
    #[arg(long, env = "SWITCHOVER_DATA", default_value = "data")]
    data: PathBuf,
    /// The repository as OWNER/NAME, where several have such an environment.
    #[arg(long)]
    repo: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SchemaOf {
    /// .github/switchover.yml
    Config,
    /// switchover.toml and the environment
    Settings,
}

/// Runs the command line.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    // What is read by people or programs on standard output must not be mixed with log lines of the libraries.
    let quiet = !matches!(cli.command, Command::Serve { .. } | Command::Agent { .. } | Command::Demo(_));
    // What its client fails at is told in our words.
    let errors = "error,kube_client::client::builder=off";
    let filter = if quiet && cli.log == "info" { errors.to_owned() } else { cli.log.clone() };
    let filter = match &cli.command {
        Command::Demo(_) if cli.log == "info" => "error".to_owned(),
        _ => filter,
    };
    if quiet {
        end_with_the_reader();
    }
    if let Err(e) = telemetry::start(&filter, cli.log_format) {
        eprintln!("switchover: --log: {e}");
        return ExitCode::from(2);
    }
    let result = match cli.command {
        Command::Serve { config, wait } => return serve::serve(config.as_deref(), wait),
        Command::Agent { data, check: true, .. } => tell::agent(&data),
        Command::Agent { data, check: false, only_free } => agent(data, only_free),
        Command::Demo(args) => return serve::demo(args),
        Command::Check { path, write } => return tell::check(&path, write),
        Command::Status { at, json, quiet } => tell::status(&at, json, quiet),
        Command::Promote { at, environment, sha } => tell::command(&at, Verb::Promote, environment, sha, None),
        Command::Rollback { at, environment, to } => tell::command(&at, Verb::Rollback, environment, None, to),
        Command::Resume { at, environment } => tell::command(&at, Verb::Resume, environment, None, None),
        Command::Cancel { at, environment } => tell::command(&at, Verb::Cancel, environment, None, None),
        Command::Rebuild { at, environment } => tell::command(&at, Verb::Rebuild, environment, None, None),
        Command::Plan { at, environment, sha } => tell::plan(&at, environment, sha),
        Command::Doctor { config, rbac, names } => return doctor::doctor(config.as_deref(), rbac.then_some(&names)),
        Command::Explain { at, subject } => tell::about(&at, "explain", &subject),
        Command::Replay { at, delivery } => tell::about(&at, "replay", &delivery),
        Command::Sweep { at } => tell::about(&at, "sweep", ""),
        Command::Backup { data, file } => keep::backup(&data, &file),
        Command::Restore { data, file } => keep::restore(&data, &file),
        Command::Schema { of, markdown } => tell::schema(of, markdown),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "switchover", &mut script);
            print!("{}", String::from_utf8_lossy(&script));
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("switchover: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whoever reads what is printed may have had enough, as in `switchover status | head -3`: this process ends then as one
/// that SIGPIPE ends, which Rust's programs ignore, and tells of no panic.
fn end_with_the_reader() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let words = panic.payload_as_str().unwrap_or_default();
        if words.starts_with("failed printing to std") && words.contains("Broken pipe") {
            std::process::exit(128 + 13);
        }
        others(panic);
    }));
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "a duration such as 20m, 30s or 250ms is expected".to_owned())
}

/// The settings: of that file, of switchover.toml in this folder, or of the environment alone.
fn settings(config: Option<&Path>) -> Result<Settings, Vec<SettingsMistake>> {
    let standard = Path::new("switchover.toml");
    let file = config.or_else(|| standard.is_file().then_some(standard));
    let names: Vec<String> = std::env::vars_os().filter_map(|(n, _)| n.into_string().ok()).collect();
    settings::load(file, &|name| std::env::var_os(name), &names)
}

/// GitHub as the settings name it. Nothing is sent yet.
fn github(settings: &Settings) -> anyhow::Result<GitHub> {
    let config = GitHubConfig {
        api_url: settings.github_url.clone(),
        web_url: settings.github_web_url.clone(),
        app_id: i64::try_from(settings.app_id).unwrap_or(i64::MAX),
        private_key: settings.private_key.clone(),
        timeouts: Timeouts::default(),
    };
    GitHub::new(config).context("the App's key")
}

/// A runtime of as many threads as the work needs.
fn runtime(threads: usize) -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?)
}

fn agent(data: PathBuf, only_free: bool) -> anyhow::Result<()> {
    runtime(std::thread::available_parallelism().map_or(2, usize::from))?.block_on(async {
        let shutdown = CancellationToken::new();
        serve::on_signals(shutdown.clone(), false)?;
        Ok(agent::run(agent::AgentConfig { data, only_free }, shutdown).await?)
    })
}

//! The demo: a stand-in GitHub, a real server process, its agent and a sample repository, and a play over them.
//!
//! * [`world`]: starts and stops everything; [`containers`]: an engine and a registry.
//! * [`acts`]: what is played, and what must hold; [`own`]: the same for somebody's own repository; [`watch`]: waiting
//!   for what GitHub shows.
//! * [`sample`]: the repositories, their good and their bad changes: [`shop`], [`spring`].
//! * [`phases`]: how long the parts of a release took.
//! * [`ready`]: what must be there first; [`voice`]: what is printed.
//! * [`page`]: the counter page's buttons.

mod acts;
mod cluster;
mod containers;
pub mod own;
mod page;
pub mod phases;
mod ready;
pub mod sample;
mod shop;
mod spring;
mod voice;
mod watch;
mod world;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::github::StandInError;
use cluster::Space;
use containers::Containers;
use phases::Phases;
use sample::Sample;
use world::World;

pub use voice::error as tell_error;

/// What is shown and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// End after the play.
    pub once: bool,
    /// Print one JSON object instead of the progress and the table.
    pub json: bool,
    /// The sample.
    pub sample: Sample,
    /// A local repository instead of it.
    pub repo: Option<PathBuf>,
    /// The Docker engine that is asked for.
    pub docker_host: Option<String>,
    /// The Docker engine where none is asked for.
    pub docker_default: String,
    /// A registry at HOST:PORT instead of one of the demo's own.
    pub registry: Option<String>,
    /// The cluster that the play releases to.
    pub kubeconfig: Option<PathBuf>,
    /// Keep everything here instead of a temporary folder.
    pub data: Option<PathBuf>,
    /// The `switchover` binary.
    pub exe: PathBuf,
}

/// Why the demo can't go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The stand-in.
    #[error(transparent)]
    StandIn(#[from] StandInError),
    /// A file or process.
    #[error("{0}: {1}")]
    Io(String, #[source] std::io::Error),
    /// The server said no or is away.
    #[error(transparent)]
    Control(#[from] crate::control::ControlError),
    /// The agent is away.
    #[error("agent: {0}")]
    Agent(#[from] crate::agent::ClientError),
    /// Something else.
    #[error("{0}")]
    Other(String),
}

impl DemoError {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |e| Self::Io(what, e)
    }
}

/// A check run at the end of the play.
#[derive(Debug, Clone, Serialize)]
pub struct CheckSeen {
    /// Its name.
    pub name: String,
    /// Its commit.
    pub sha: String,
    /// How it ended.
    pub conclusion: Option<String>,
}

/// A deployment at the end of the play.
#[derive(Debug, Clone, Serialize)]
pub struct DeploymentSeen {
    /// Where to.
    pub environment: String,
    /// The commit.
    pub sha: String,
    /// Its state.
    pub state: String,
}

/// The requests of the play.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Requests {
    /// Sent.
    pub sent: u64,
    /// Without a good answer.
    pub failed: u64,
}

/// What came of one act.
#[derive(Debug, Clone, Serialize)]
pub struct Act {
    /// What was played.
    pub name: String,
    /// Whether all held.
    pub held: bool,
    /// What was seen.
    pub words: String,
    /// How long it took.
    pub ms: u64,
}

/// The whole play.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// All that was played.
    pub acts: Vec<Act>,
    /// All check runs.
    pub checks: Vec<CheckSeen>,
    /// All deployments.
    pub deployments: Vec<DeploymentSeen>,
    /// All requests.
    pub requests: Requests,
    /// What failed, in words.
    pub failures: Vec<String>,
    /// From a flip to the last answer of the old release, the slowest of the play.
    pub switch_ms: Option<u64>,
    /// From the command to every new request on the release before.
    pub rollback_ms: Option<u64>,
    /// Messages that Slack would have got.
    pub messages: u64,
    /// How long the parts of the releases took.
    pub phases: BTreeMap<&'static str, Phases>,
}

impl Outcome {
    /// Everything held.
    #[must_use]
    pub fn held(&self) -> bool {
        !self.acts.is_empty() && self.acts.iter().all(|a| a.held) && self.requests.failed == 0
    }
}

/// Plays, and stays up unless `once`. True when all held.
///
/// # Errors
/// When something of the stage can't be built; what the product does wrong is an act that did not hold.
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<bool, DemoError> {
    ready::look(&options).await?;
    // Removed when all that writes there has ended.
    let (_folder, data) = match &options.data {
        Some(data) => (None, std::path::absolute(data).map_err(DemoError::io(data.display().to_string()))?),
        None => {
            let folder = tempfile::Builder::new().prefix("switchover-demo-").tempdir();
            let folder = folder.map_err(DemoError::io("making a temporary folder"))?;
            let data = folder.path().to_owned();
            (Some(folder), data)
        }
    };
    std::fs::create_dir_all(data.join("server")).map_err(DemoError::io(format!("making {}", data.display())))?;
    let containers = containers_for(&options).await?.map(Arc::new);
    let space = match &options.kubeconfig {
        Some(kubeconfig) => match Space::prepare(kubeconfig).await {
            Ok(space) => Some(space),
            Err(e) => {
                if let Some(containers) = containers {
                    containers.clean(None).await;
                }
                return Err(e);
            }
        },
        None => None,
    };
    let held = match World::start(&options, data.clone(), containers.clone(), space.as_ref()).await {
        Ok(world) => on_stage(world, &options, &shutdown).await,
        Err(e) => Err(e),
    };
    if let Some(space) = space
        && let Some(what) = space.clean().await
    {
        tell_error(&format!("switchover: could not be removed: {what}"));
    }
    if let Some(containers) = containers {
        for what in containers.clean(Some(&data.join("server"))).await {
            tell_error(&format!("switchover: could not be removed: {what}"));
        }
    }
    held
}

async fn on_stage(mut world: World, options: &Options, shutdown: &CancellationToken) -> Result<bool, DemoError> {
    let result = tokio::select! {
        result = play(&mut world, options) => Some(result),
        () = shutdown.cancelled() => None,
        () = voice::gone() => None,
    };
    let held = match result {
        None => Ok(false),
        Some(Err(e)) => {
            tell_error(&format!("\nthe server's last words:\n{}", world.last_words()));
            Err(e)
        }
        Some(Ok(outcome)) => {
            show(options, &outcome);
            if !options.once {
                stay(&world, shutdown).await;
            }
            Ok(outcome.held())
        }
    };
    world.stop().await;
    held
}

/// An engine and a registry, where the play needs them.
async fn containers_for(options: &Options) -> Result<Option<Containers>, DemoError> {
    let host = options.docker_host.as_deref().unwrap_or(&options.docker_default);
    let wanted = match &options.repo {
        _ if options.kubeconfig.is_some() => true,
        None => options.sample.is_in_containers(),
        Some(_) if options.docker_host.is_some() || options.registry.is_some() => true,
        Some(path) => own::has_dockerfile(path).await? && containers::is_reachable(host).await,
    };
    let say = |words: &str| {
        if !options.json {
            voice::line(&format!("  {words}"));
        }
    };
    if !wanted {
        return Ok(None);
    }
    Containers::prepare(host, options.registry.as_deref(), say).await.map(Some)
}

async fn play(world: &mut World, options: &Options) -> Result<Outcome, DemoError> {
    match &options.repo {
        Some(path) => own::repository(world, path).await,
        None => acts::all(world).await,
    }
}

fn show(options: &Options, outcome: &Outcome) {
    if options.json {
        // A struct of texts and numbers has a JSON form.
        voice::line(&serde_json::to_string_pretty(outcome).unwrap_or_default());
        return;
    }
    voice::line("");
    for act in &outcome.acts {
        let sign = if act.held { "✓" } else { "✗" };
        let time = Duration::from_millis(act.ms).as_secs_f64();
        voice::line(&format!("  {sign} {:<34} {time:>6.1} s   {}", act.name, act.words));
    }
    voice::line("");
    voice::line(&format!("  requests          {} sent, {} failed", outcome.requests.sent, outcome.requests.failed));
    for words in &outcome.failures {
        voice::line(&format!("                    {words}"));
    }
    let ms = |v: Option<u64>| v.map_or("–".to_owned(), |v| format!("{v} ms"));
    voice::line(&format!(
        "  switch            {} from the flip to the last answer of the old release",
        ms(outcome.switch_ms)
    ));
    voice::line(&format!(
        "  way back          {} from the command to every request on the release before",
        ms(outcome.rollback_ms)
    ));
    voice::line(&format!(
        "  check runs        {} on GitHub, deployments {}",
        outcome.checks.len(),
        outcome.deployments.len()
    ));
    voice::line("");
    if !outcome.phases.is_empty() {
        voice::line(&phases::table(&outcome.phases));
    }
}

async fn stay(world: &World, shutdown: &CancellationToken) {
    voice::line("  Everything stays up until Ctrl-C:\n");
    let apps = world.stage.addresses().await.unwrap_or_default();
    let apps = apps.into_iter().map(|a| (format!("the app {}", a.app), a.url.to_string()));
    for (what, address) in world.links().into_iter().chain(apps) {
        voice::line(&format!("    {what:<22} {address}"));
    }
    voice::line(&format!("\n  Push something of your own:\n\n    git clone {} shop\n", world.remote()));
    voice::line("  Ask the server:\n");
    for command in ["status", "explain COMMIT", "rollback"] {
        voice::line(&format!("    SWITCHOVER_DATA={} switchover {command}", world.server_data().display()));
    }
    voice::line("");
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = voice::gone() => {}
        () = world.stage.mind_server() => {}
    }
}

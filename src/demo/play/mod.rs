//! The demo: a stand-in GitHub, a real server process, its agent and a sample repository, and a play over them.
//!
//! * [`world`]: starts and stops everything.
//! * [`acts`]: what is played, and what must hold.
//! * [`sample`]: the repository, its good and its bad changes.
//! * [`page`]: the counter page's buttons.

mod acts;
mod page;
mod sample;
mod world;

use std::{path::PathBuf, time::Duration};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::github::StandInError;
pub use world::World;

/// What is shown and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// End after the play.
    pub once: bool,
    /// Print one JSON object instead of the progress and the table.
    pub json: bool,
    /// A local repository instead of the sample.
    pub repo: Option<PathBuf>,
    /// Keep everything here instead of a temporary folder.
    pub data: Option<PathBuf>,
    /// The `switchover` binary.
    pub exe: PathBuf,
    /// Requests a second.
    pub rate: u32,
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
    let mut world = World::start(&options).await?;
    let result = tokio::select! {
        result = play(&mut world, &options) => Some(result),
        () = shutdown.cancelled() => None,
    };
    let held = match result {
        None => Ok(false),
        Some(Err(e)) => {
            eprintln!("\nthe server's last words:\n{}", world.last_words());
            Err(e)
        }
        Some(Ok(outcome)) => {
            show(&options, &outcome);
            if !options.once {
                stay(&world, &shutdown).await;
            }
            Ok(outcome.held())
        }
    };
    world.stop().await;
    held
}

async fn play(world: &mut World, options: &Options) -> Result<Outcome, DemoError> {
    match &options.repo {
        Some(path) => acts::own_repository(world, path).await,
        None => acts::all(world).await,
    }
}

fn show(options: &Options, outcome: &Outcome) {
    if options.json {
        // A struct of texts and numbers has a JSON form.
        println!("{}", serde_json::to_string_pretty(outcome).unwrap_or_default());
        return;
    }
    println!();
    for act in &outcome.acts {
        let sign = if act.held { "✓" } else { "✗" };
        let time = Duration::from_millis(act.ms).as_secs_f64();
        println!("  {sign} {:<34} {time:>6.1} s   {}", act.name, act.words);
    }
    println!();
    println!("  requests          {} sent, {} failed", outcome.requests.sent, outcome.requests.failed);
    for words in &outcome.failures {
        println!("                    {words}");
    }
    let ms = |v: Option<u64>| v.map_or("–".to_owned(), |v| format!("{v} ms"));
    println!("  switch            {} from the flip to the last answer of the old release", ms(outcome.switch_ms));
    println!("  way back          {} from the command to every request on the release before", ms(outcome.rollback_ms));
    println!("  check runs        {} on GitHub, deployments {}", outcome.checks.len(), outcome.deployments.len());
    println!();
}

async fn stay(world: &World, shutdown: &CancellationToken) {
    println!("  Everything stays up until Ctrl-C:\n");
    for (what, address) in world.links() {
        println!("    {what:<22} {address}");
    }
    println!("\n  Push something of your own:\n\n    git clone {} shop\n", world.remote());
    shutdown.cancelled().await;
}

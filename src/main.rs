//! The `switchover` binary: command line and composition root.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use switchover::{agent, failpoint};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Hold the listening sockets of this host and supervise its processes.
    Agent {
        /// Folder of the agent's state.
        #[arg(long)]
        data: PathBuf,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    failpoint::arm(std::env::var("SWITCHOVER_CRASH_AT").ok().as_deref());
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    match Cli::parse().command {
        Command::Agent { data } => {
            let shutdown = CancellationToken::new();
            let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            let asked = shutdown.clone();
            tokio::spawn(async move {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                asked.cancel();
            });
            Ok(agent::run(agent::AgentConfig { data }, shutdown).await?)
        }
    }
}

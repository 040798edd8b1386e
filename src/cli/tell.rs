//! Commands that tell something, or ask the running server for it.

use std::{path::Path, process::ExitCode};

use anyhow::Context as _;
use switchover::{
    agent,
    control::Control,
    domain::{config, ids::Sha},
    engine::{
        commands::{Command, Status, Verb},
        facts::CONFIG_FILE,
        preview::Preview,
    },
    infer, settings,
};

use super::{At, SchemaOf, runtime};

/// Files below a folder, as inference sees them.
struct Folder {
    root: std::path::PathBuf,
    paths: Vec<String>,
}

impl Folder {
    fn read(root: &Path) -> anyhow::Result<Self> {
        let mut paths = Vec::new();
        let mut left = vec![root.to_owned()];
        while let Some(dir) = left.pop() {
            for entry in std::fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?.flatten() {
                let name = entry.file_name();
                // What git would not have, as a rule; a checkout's own ignore file is not consulted.
                let skipped = [".git", "node_modules", "target", "build", "dist", ".gradle", ".venv"];
                if skipped.iter().any(|s| name == *s) {
                    continue;
                }
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    left.push(entry.path());
                } else if let Ok(relative) = entry.path().strip_prefix(root) {
                    paths.push(relative.to_string_lossy().into_owned());
                }
            }
        }
        paths.sort();
        Ok(Self { root: root.to_owned(), paths })
    }
}

impl infer::Files for Folder {
    fn list(&self) -> &[String] {
        &self.paths
    }
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        std::fs::read(self.root.join(path)).ok()
    }
}

/// `switchover check`.
pub fn check(path: &Path, write: bool) -> ExitCode {
    match check_folder(path, write) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("switchover: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn check_folder(path: &Path, write: bool) -> anyhow::Result<bool> {
    let folder = Folder::read(path)?;
    let file = path.join(CONFIG_FILE);
    let text = match std::fs::read(&file) {
        Ok(bytes) => Some(String::from_utf8(bytes).with_context(|| format!("{CONFIG_FILE} is not UTF-8"))?),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(e).with_context(|| format!("reading {}", file.display())),
    };
    let shown = infer::check_report(&folder, text.as_deref(), "main");
    println!("{}", shown.text.trim_end());
    if write {
        if text.is_some() {
            anyhow::bail!("{CONFIG_FILE} is there already and is not written over");
        }
        let Some(yaml) = infer::written(&folder, "main") else { anyhow::bail!("there is nothing to write") };
        std::fs::create_dir_all(path.join(".github"))?;
        std::fs::write(&file, yaml)?;
        println!("\nwritten to {}", file.display());
    }
    Ok(shown.ok)
}

/// Promote, rollback, resume, cancel.
pub fn command(
    at: &At,
    verb: Verb,
    environment: Option<String>,
    sha: Option<Sha>,
    to: Option<String>,
) -> anyhow::Result<()> {
    let actor = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_else(|_| "operator".into());
    let command =
        Command { verb, repository: at.repo.clone(), environment, sha, to, actor: format!("{actor} on the server") };
    runtime(1)?.block_on(async {
        println!("{}", Control::new(&at.data)?.command(&command).await?);
        Ok(())
    })
}

/// `switchover plan`.
pub fn plan(at: &At, environment: String, sha: Option<Sha>) -> anyhow::Result<()> {
    let wanted = Preview { repository: at.repo.clone(), environment, sha };
    runtime(1)?.block_on(async {
        println!("{}", Control::new(&at.data)?.preview(&wanted).await?.trim_end());
        Ok(())
    })
}

/// `explain`, `replay`, `sweep`.
pub fn about(at: &At, verb: &str, subject: &str) -> anyhow::Result<()> {
    runtime(1)?.block_on(async {
        println!("{}", Control::new(&at.data)?.about(verb, subject).await?.trim_end());
        Ok(())
    })
}

/// `agent --check`.
pub fn agent(data: &Path) -> anyhow::Result<()> {
    let client = agent::Client::new(agent::socket_path(data));
    let status = runtime(1)?.block_on(client.status())?;
    println!("the agent answers: {} services", status.services.len());
    Ok(())
}

/// `switchover status`.
pub fn status(at: &At, json: bool, quiet: bool) -> anyhow::Result<()> {
    let all: Vec<Status> = runtime(1)?.block_on(async { Control::new(&at.data)?.status().await })?;
    if quiet {
        return Ok(());
    }
    let all: Vec<Status> =
        all.into_iter().filter(|s| at.repo.as_ref().is_none_or(|r| r.eq_ignore_ascii_case(&s.repository))).collect();
    if json {
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    if all.is_empty() {
        println!("Nothing was released yet. A push to an environment's branch releases it.");
    }
    for s in &all {
        print_status(s);
    }
    Ok(())
}

fn print_status(s: &Status) {
    println!("{} of {}", s.environment, s.repository);
    match (&s.sha, &s.since) {
        (Some(sha), Some(since)) => println!("  live      {} since {since:.0}", sha.short()),
        (Some(sha), None) => println!("  live      {}", sha.short()),
        _ => println!("  live      nothing yet"),
    }
    if let Some(live) = &s.live {
        for (app, state) in &live.apps {
            let slot = state.active.as_ref().map_or("no slot", |s| s.as_str());
            match state.address.as_deref() {
                Some(address) => println!(
                    "  {app:<9} {slot} at {address}, {} requests, {} failed",
                    state.requests.total,
                    state.requests.server_errors + state.requests.cut
                ),
                // A worker: nobody calls it.
                None => println!("  {app:<9} {slot}"),
            }
            for (slot, words) in &state.slots {
                println!("            {slot}: {words}");
            }
        }
    }
    for app in &s.left_over {
        println!("  left over {app}: no part of what is live, and runs on until somebody stops it");
    }
    if let Some(why) = &s.unreadable {
        println!("  unknown   the live system can't be read: {why}");
    }
    if let Some((sha, phase, words)) = &s.rollout {
        println!("  rollout   {} {phase} {words}", sha.short());
    }
    if let Some(why) = &s.held {
        println!("  held      {why}; `switchover resume {}` ends it", s.environment);
    }
    if let Some(back) = &s.back_to {
        println!("  way back  {}: `switchover rollback {}`", back.short(), s.environment);
    }
}

/// `switchover schema`.
pub fn schema(of: SchemaOf, markdown: bool) -> anyhow::Result<()> {
    let text = match (of, markdown) {
        (SchemaOf::Config, false) => serde_json::to_string_pretty(&config::schema())?,
        (SchemaOf::Settings, false) => serde_json::to_string_pretty(&settings::schema())?,
        (SchemaOf::Config, true) => config::reference_markdown(),
        (SchemaOf::Settings, true) => settings::reference_markdown(),
    };
    println!("{}", text.trim_end());
    Ok(())
}

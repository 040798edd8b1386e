//! Commands that tell something, or ask the running server for it.

use std::{
    collections::HashSet,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

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

/// So much of a file is read: one byte more than inference takes.
const MOST_READ: u64 = 1024 * 1024 + 1;

/// Files below a folder, as inference sees them.
struct Folder {
    root: PathBuf,
    paths: Vec<String>,
    links: HashSet<String>,
}

impl Folder {
    fn read(root: &Path) -> anyhow::Result<Self> {
        let (mut paths, mut links) = (Vec::new(), HashSet::new());
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
                    let path = relative.to_string_lossy().into_owned();
                    if kind.is_symlink() {
                        links.insert(path.clone());
                    }
                    paths.push(path);
                }
            }
        }
        paths.sort();
        Ok(Self { root: root.to_owned(), paths, links })
    }
}

impl infer::Files for Folder {
    fn list(&self) -> &[String] {
        &self.paths
    }
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        // The server takes files out of git, where a link is no file. Folders that are links are not listed.
        if self.links.contains(path) {
            return None;
        }
        let mut text = Vec::new();
        std::fs::File::open(self.root.join(path)).ok()?.take(MOST_READ).read_to_end(&mut text).ok()?;
        Some(text)
    }
    fn is_link(&self, path: &str) -> bool {
        self.links.contains(path)
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
    let path = std::fs::canonicalize(path).with_context(|| format!("reading {}", path.display()))?;
    let root = path.ancestors().find(|folder| folder.join(".git").exists()).unwrap_or(&path);
    if root != path {
        println!("{} is part of the repository in {}, which is checked as a whole.\n", path.display(), root.display());
    }
    let (branch, how) = default_branch(root);
    if !how.is_empty() {
        println!("{branch} is taken for the default branch: {how}.\n");
    }
    let folder = Folder::read(root)?;
    let file = root.join(CONFIG_FILE);
    let shown = infer::check_report(&folder, None, &branch);
    println!("{}", shown.text.trim_end());
    let apps = infer::understand(&folder, &branch).result.map(|inferred| inferred.config.apps).unwrap_or_default();
    let dockerfiles = infer::docker::generated(&folder, &apps);
    for (app, made) in &dockerfiles {
        println!("\n{app} has no Dockerfile; its image is built with this one, as {}:\n", made.name);
        made.text.lines().for_each(|line| println!("    {line}"));
    }
    if write {
        let mut files = Vec::new();
        if file.symlink_metadata().is_err() {
            files.extend(infer::written(&folder, &branch).map(|yaml| (file.clone(), yaml)));
        } else if dockerfiles.is_empty() {
            anyhow::bail!("{CONFIG_FILE} is there already and is not written over");
        }
        for (_, made) in dockerfiles {
            files.push((root.join(&made.name), made.text));
            // Read in place of a `.dockerignore` ("Dockerfile": filename and location).
            files.push((root.join(made.name + ".dockerignore"), made.ignore));
        }
        if files.is_empty() {
            anyhow::bail!("there is nothing to write");
        }
        println!();
        for (file, text) in files.into_iter().filter(|(file, text)| !text.is_empty() && !file.exists()) {
            if let Some(folder) = file.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(&file, text)?;
            println!("written to {}", file.display());
        }
    }
    Ok(shown.ok)
}

/// The default branch of a clone, and how it is known where its remote has not said so.
fn default_branch(root: &Path) -> (String, &'static str) {
    let git = git_folder(root);
    let branch = |file: &Path, prefix: &str| {
        let text = std::fs::read_to_string(file).ok()?;
        Some(text.trim().strip_prefix("ref: ")?.strip_prefix(prefix)?.to_owned()).filter(|b| !b.starts_with('.'))
    };
    let (own, common) = git.unzip();
    if let Some(branch) = common.and_then(|git| branch(&git.join("refs/remotes/origin/HEAD"), "refs/remotes/origin/")) {
        return (branch, "");
    }
    match own.and_then(|git| branch(&git.join("HEAD"), "refs/heads/")) {
        Some(branch) => {
            (branch, "this clone stands on it and does not know origin's (`git remote set-head origin -a`)")
        }
        None => ("main".to_owned(), "this folder does not say which it is"),
    }
}

/// Where a work tree's own state lies and where the repository's ("gitrepository-layout": `gitdir:`, `commondir`).
fn git_folder(root: &Path) -> Option<(PathBuf, PathBuf)> {
    let git = root.join(".git");
    if git.is_dir() {
        return Some((git.clone(), git));
    }
    let text = std::fs::read_to_string(&git).ok()?;
    let own = root.join(text.trim().strip_prefix("gitdir: ")?);
    let common = std::fs::read_to_string(own.join("commondir")).map_or(own.clone(), |text| own.join(text.trim()));
    Some((own, common))
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

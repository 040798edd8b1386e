//! What must be there before anything is started.

use std::path::Path;

use tokio::process::Command;

use super::{DemoError, Options};

/// Looks whether the play can be played here.
///
/// # Errors
/// In words, with what to do.
pub async fn look(options: &Options) -> Result<(), DemoError> {
    run("git", &["--version"]).await.map_err(|why| missing("The demo needs git", "install it", &why))?;
    match &options.repo {
        Some(path) => repository(path).await,
        None if options.sample.is_in_containers() => Ok(()),
        None => run("cargo", &["--version"]).await.map(drop).map_err(|why| {
            let what = format!("The sample {} is built with cargo", options.sample.name);
            missing(&what, "install Rust (https://rustup.rs), or name a repository of yours with --repo", &why)
        }),
    }
}

fn missing(what: &str, mend: &str, why: &str) -> DemoError {
    DemoError::Other(format!("{what}, which can't be started here: {mend} ({why})"))
}

async fn repository(path: &Path) -> Result<(), DemoError> {
    let shown = path.display();
    let wrong = |words: String| Err(DemoError::Other(format!("--repo {shown}: {words}")));
    if !path.is_dir() {
        return wrong("there is no such folder".into());
    }
    let folder = path.to_string_lossy();
    let shallow = match run("git", &["-C", &folder, "rev-parse", "--is-shallow-repository"]).await {
        Ok(out) => out.trim() == "true",
        Err(why) => return wrong(format!("git finds no repository there ({why})")),
    };
    if run("git", &["-C", &folder, "rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).await.is_err() {
        return wrong("there is no commit yet: make one".into());
    }
    if shallow {
        let words = "it is a shallow clone, and what is not there can't be pushed: fetch the rest with";
        return wrong(format!("{words} `git -C {shown} fetch --unshallow`"));
    }
    Ok(())
}

/// Runs a program to its end: what it printed, or why not.
async fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let out = Command::new(program).args(args).env("LC_ALL", "C").kill_on_drop(true).output().await;
    let out = out.map_err(|e| e.to_string())?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(said.lines().next().map_or_else(|| out.status.to_string(), |line| line.trim().to_owned()))
}

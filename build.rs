//! Tells the binary which commit it is made from, where that is known: `switchover --version`.

use std::{path::Path, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SWITCHOVER_BUILD_COMMIT");
    let named = std::env::var("SWITCHOVER_BUILD_COMMIT").ok();
    let named = named.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    let version = env!("CARGO_PKG_VERSION");
    // Cargo hands this to what `cargo run` starts, too: a name that begins with SWITCHOVER_ would be a setting there.
    match named.or_else(of_git) {
        Some(commit) => println!("cargo:rustc-env=BUILT_AS={version} ({commit})"),
        None => println!("cargo:rustc-env=BUILT_AS={version}"),
    }
}

/// The commit that is checked out. None: no repository, or no git; both are all right.
fn of_git() -> Option<String> {
    // A file in a worktree. A repository further up is not ours.
    if !Path::new(".git").exists() {
        return None;
    }
    let mut watched = vec!["HEAD".to_owned(), "logs/HEAD".to_owned(), "packed-refs".to_owned()];
    watched.extend(git(&["symbolic-ref", "--quiet", "HEAD"]));
    for name in watched {
        // A file that is not there would make the build begin anew each time.
        let path = git(&["rev-parse", "--git-path", &name]).filter(|path| Path::new(path).exists());
        if let Some(path) = path {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=9", "HEAD"])
}

fn git(args: &[&str]) -> Option<String> {
    let out = Command::new("git").args(args).output().ok().filter(|out| out.status.success())?;
    let text = String::from_utf8(out.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

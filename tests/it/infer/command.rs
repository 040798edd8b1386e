//! `switchover check` in folders as people have them.

use std::{fs, path::Path, process::Command};

/// What it says below a folder, without the folder's own name, and whether it is content.
fn check(root: &Path, at: &str) -> (String, bool) {
    check_with(root, at, &[])
}

fn check_with(root: &Path, at: &str, more: &[&str]) -> (String, bool) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchover"));
    let done = command.arg("check").args(more).arg(root.join(at)).output().expect("run");
    let root = fs::canonicalize(root).expect("there").display().to_string();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    (said.replace(&root, "ROOT"), done.status.success())
}

fn write(root: &Path, path: &str, text: impl AsRef<[u8]>) {
    let file = root.join(path);
    fs::create_dir_all(file.parent().expect("a folder")).expect("made");
    fs::write(file, text).expect("written");
}

#[test]
fn the_whole_repository_is_checked_with_its_own_default_branch() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write(root, "web/package.json", r#"{"scripts": {"test": "x"}}"#);
    let (said, fine) = check(root, "web");
    assert!(fine && said.starts_with("main is taken for the default branch: this folder does not say"), "{said}");
    write(root, ".git/HEAD", "ref: refs/heads/topic/x\n");
    let (said, fine) = check(root, "web");
    assert!(
        fine && said.starts_with("ROOT/web is part of the repository in ROOT, which is checked as a whole."),
        "{said}"
    );
    assert!(said.contains("topic/x is taken for the default branch: this clone stands on it"), "{said}");
    assert!(said.contains("app web, in web"), "{said}");
    write(root, ".git/refs/remotes/origin/HEAD", "ref: refs/remotes/origin/trunk\n");
    let (said, _) = check(root, ".");
    assert!(said.starts_with("There is no .github/switchover.yml"), "{said}");
    assert!(said.contains("Tested: pushes to trunk, develop, and pull requests"), "{said}");
    // A second work tree: its `.git` is a file that leads to its own folder, and that one to the repository's.
    write(root, ".git/worktrees/second/commondir", "../..\n");
    write(root, ".git/worktrees/second/HEAD", "ref: refs/heads/other\n");
    write(root, "second/.git", format!("gitdir: {}/.git/worktrees/second\n", root.display()));
    write(root, "second/Cargo.toml", "[package]\nname = 'x'");
    let (said, _) = check(root, "second");
    assert!(said.contains("Tested: pushes to trunk, develop") && said.contains("app x, in the repo"), "{said}");
}

#[test]
fn a_configuration_that_is_no_text_or_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write(root, ".git/HEAD", "ref: refs/heads/main\n");
    write(root, "Cargo.toml", "[package]\nname = 'x'");
    write(root, ".github/switchover.yml", b"version: 1\non: {push: [\xff]}\n");
    let (said, fine) = check(root, ".");
    assert!(!fine && said.contains(".github/switchover.yml:2:13") && said.contains("not UTF-8"), "{said}");
    fs::remove_file(root.join(".github/switchover.yml")).expect("gone");
    write(root, "other.yml", "version: 1\n");
    std::os::unix::fs::symlink("../other.yml", root.join(".github/switchover.yml")).expect("linked");
    let (said, fine) = check(root, ".");
    assert!(!fine && said.contains("the file is a link, which is not followed"), "{said}");
}

#[test]
fn a_dockerfile_that_is_made_up_is_shown_and_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write(root, ".git/HEAD", "ref: refs/heads/main\n");
    write(root, "package.json", r#"{"scripts": {"start": "node server.js"}, "dependencies": {"express": "5"}}"#);
    write(root, "package-lock.json", "{}");
    write(root, "server.js", "require('express')().listen(3000)");
    write(root, ".github/switchover.yml", "version: 1\napps:\n  web:\n    path: .\n    image: docker.io/acme/web\n");
    let (said, fine) = check(root, ".");
    assert!(fine && said.contains("web has no Dockerfile; its image is built with this one, as Dockerfile:"), "{said}");
    assert!(said.contains("    FROM node:"), "{said}");
    let (said, fine) = check_with(root, ".", &["--write"]);
    assert!(fine && said.contains("written to ROOT/Dockerfile\n"), "{said}");
    assert!(fs::read_to_string(root.join("Dockerfile")).expect("there").contains("FROM node:"));
    // From now on it is the author's, and nothing is left to write.
    let (said, fine) = check_with(root, ".", &["--write"]);
    assert!(!fine && said.contains("is there already and is not written over"), "{said}");
}

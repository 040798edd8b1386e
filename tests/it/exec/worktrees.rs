//! Pooled worktrees: reused, exclusive, clean, swept.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use switchover::{domain::ids::Sha, exec::git::Swept};

use super::{
    git::{R, files_below, mirrors},
    host::{Host, run},
};

#[tokio::test]
async fn worktrees_are_reused_exclusive_and_clean_whatever_was_done_to_them() {
    let host = Host::start();
    let (dir, m) = mirrors();
    let a = host.commit("first", &[("a", "1"), ("sub/b", "1"), (".gitignore", "ignored\n")]);
    let b = host.commit("second", &[("a", "2"), ("c", "1")]);
    m.fetch(R, &host.url, None, &[]).await.unwrap();
    let clean: BTreeSet<String> = ["a", "sub/b", ".gitignore"].map(str::to_owned).into();

    let first = m.checkout(R, &a, "backend").await.unwrap();
    let second = m.checkout(R, &b, "backend").await.unwrap();
    assert_ne!(first.path(), second.path());
    assert_eq!(files_below(first.path()), clean);
    let place = first.path().to_owned();
    let git = |args: &[&str]| run(&place, args);
    let sabotage: &[(&str, &dyn Fn())] = &[
        ("files", &|| {
            fs::write(place.join("a"), "x").unwrap();
            fs::write(place.join("ignored"), "x").unwrap();
            fs::create_dir_all(place.join("new/deep")).unwrap();
            fs::write(place.join("new/deep/f"), "x").unwrap();
            fs::set_permissions(place.join("new/deep"), fs::Permissions::from_mode(0o500)).unwrap();
            std::os::unix::fs::symlink("/etc", place.join("etc")).unwrap();
        }),
        ("branch", &|| drop(git(&["checkout", "-q", "-b", "own"]))),
        ("commit", &|| {
            fs::write(place.join("a"), "x").unwrap();
            git(&["commit", "-qam", "own"]);
        }),
        ("nested", &|| {
            git(&["init", "-q", "nested"]);
            fs::write(place.join("nested/f"), "x").unwrap();
        }),
        ("sparse", &|| drop(git(&["sparse-checkout", "set", "sub"]))),
        ("index", &|| {
            let index = run(&place, &["rev-parse", "--git-path", "index"]);
            fs::write(place.join(index), "torn").unwrap();
        }),
        ("no .git", &|| fs::remove_file(place.join(".git")).unwrap()),
        ("foreign .git", &|| {
            fs::remove_file(place.join(".git")).unwrap();
            git(&["init", "-q", "."]);
            git(&["config", "core.fsmonitor", "touch pwned"]);
        }),
        ("gone", &|| fs::remove_dir_all(&place).unwrap()),
        ("a file", &|| {
            fs::remove_dir_all(&place).unwrap();
            fs::write(&place, "x").unwrap();
        }),
        ("admin gone", &|| {
            fs::remove_dir_all(dir.path().join("mirrors/7.git/worktrees")).unwrap();
        }),
    ];
    let mut held = Some(first);
    for (what, spoil) in sabotage {
        spoil();
        drop(held.take());
        let again = m.checkout(R, &a, "backend").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(again.path(), place, "{what}");
        assert_eq!(files_below(again.path()), clean, "{what}");
        assert_eq!(fs::read_to_string(place.join("a")).unwrap(), "1", "{what}");
        assert_eq!(run(&place, &["rev-parse", "HEAD"]), a.as_str(), "{what}");
        held = Some(again);
    }
    assert_eq!(m.heads(R).await.iter().find(|(n, _)| n == "main").unwrap().1, b, "no branch was moved");

    // A worktree whose steps still live is not given out.
    let first = held.take().unwrap();
    let steps = fs::File::options().write(true).open(first.steps_lock()).unwrap();
    steps.lock_shared().unwrap();
    drop(first);
    let third = m.checkout(R, &a, "backend").await.unwrap();
    assert!(third.path() != place && third.path() != second.path());
    assert!(m.checkout(R, &a, "../../x").await.unwrap().path().starts_with(dir.path().join("mirrors/7.pool")));
    steps.unlock().unwrap();
    drop((second, third));
    m.remove(R).await.unwrap();
    assert!(!m.has(R, &a).await && !place.exists());
}

#[tokio::test]
async fn a_second_checkout_touches_only_what_differs() {
    let host = Host::start();
    let (_dir, m) = mirrors();
    let a = host.commit("first", &[("a", "1"), ("b", "1")]);
    let b = host.commit("second", &[("a", "2")]);
    m.fetch(R, &host.url, None, &[]).await.unwrap();
    let stamp = |p: &Path| {
        let meta = fs::metadata(p).unwrap();
        (std::os::unix::fs::MetadataExt::ino(&meta), meta.modified().unwrap())
    };
    let work = m.checkout(R, &a, "k").await.unwrap();
    let before = stamp(&work.path().join("b"));
    drop(work);
    let work = m.checkout(R, &b, "k").await.unwrap();
    assert_eq!(stamp(&work.path().join("b")), before);
    assert_eq!(fs::read_to_string(work.path().join("a")).unwrap(), "2");
}

#[tokio::test]
async fn a_sweep_takes_what_is_idle_and_old_and_nothing_else() {
    let host = Host::start();
    let (dir, m) = mirrors();
    let a = host.commit("first", &[("a", "1")]);
    let tree = host.git(&["rev-parse", "HEAD^{tree}"]);
    let old = std::process::Command::new("git")
        .current_dir(&host.work)
        .args(["-c", "user.name=x", "-c", "user.email=x", "commit-tree", "-m", "old", &tree])
        .env("GIT_COMMITTER_DATE", "2001-01-01T00:00:00Z")
        .output()
        .unwrap();
    let old = Sha::new(String::from_utf8(old.stdout).unwrap().trim()).unwrap();
    host.git(&["push", "-q", "origin", &format!("{old}:refs/pull/1/head"), "HEAD:refs/pull/2/head"]);
    let pulls = "+refs/pull/*/head:refs/pull/*/head".to_owned();
    m.fetch(R, &host.url, None, &["+refs/heads/*:refs/heads/*".to_owned(), pulls]).await.unwrap();
    let busy = m.checkout(R, &a, "k").await.unwrap();
    let idle = m.checkout(R, &old, "k").await.unwrap();
    let (busy_path, idle_path) = (busy.path().to_owned(), idle.path().to_owned());
    drop(idle);
    assert_eq!(m.sweep().await, Swept { worktrees: 0, refs: 1 }, "used a moment ago");
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for n in [0, 1] {
        let lock = dir.path().join(format!("mirrors/7.pool/k/{n}.lock"));
        fs::File::options().write(true).open(lock).unwrap().set_modified(long_ago).unwrap();
    }
    assert_eq!(m.sweep().await, Swept { worktrees: 1, refs: 0 });
    assert!(busy_path.exists() && !idle_path.exists());
    let refs = run(&dir.path().join("mirrors/7.git"), &["for-each-ref", "--format=%(refname)"]);
    assert_eq!(refs, "refs/heads/main\nrefs/pull/2/head");
    assert_eq!(m.checkout(R, &a, "k").await.unwrap().path(), idle_path);
}

#[tokio::test]
async fn submodules_filters_and_hooks_never_run_and_are_told() {
    let host = Host::start();
    let (dir, m) = mirrors();
    let a = host.commit(
        "first",
        &[
            (".gitmodules", "[submodule \"x\"]\n\tpath = x\n\turl = ext::sh -c 'touch pwned'\n"),
            (".gitattributes", "*.bin filter=lfs diff=lfs\n"),
            ("deep/.gitattributes", "*.psd filter=lfs\n"),
            ("a.bin", "version https://git-lfs.github.com/spec/v1\n"),
        ],
    );
    m.fetch(R, &host.url, None, &[]).await.unwrap();
    let hooks = dir.path().join("mirrors/7.git/hooks");
    fs::create_dir_all(&hooks).unwrap();
    let pwned = dir.path().join("pwned");
    for hook in ["post-checkout", "reference-transaction", "post-index-change"] {
        fs::write(hooks.join(hook), format!("#!/bin/sh\ntouch {}\n", pwned.display())).unwrap();
        fs::set_permissions(hooks.join(hook), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let work = m.checkout(R, &a, "k").await.unwrap();
    m.fetch(R, &host.url, None, &[]).await.unwrap();
    assert!(!pwned.exists());
    insta::assert_debug_snapshot!(work.notes(), @r#"
    [
        "Files named in .gitattributes are in Git LFS; only their pointers are checked out.",
        "This repository has submodules (.gitmodules); they are not fetched.",
        "Files named in deep/.gitattributes are in Git LFS; only their pointers are checked out.",
    ]
    "#);
}

/// JGit knows no `commondir`: it takes the worktree's own folder for the repository. So does git when it is told to.
#[tokio::test]
async fn a_worktree_is_a_repository_for_tools_with_a_git_of_their_own() {
    let host = Host::start();
    let (_dir, m) = mirrors();
    let sha = host.commit("first", &[("a", "1")]);
    m.fetch(R, &host.url, None, &[]).await.unwrap();
    let place = m.checkout(R, &sha, "backend").await.unwrap();
    let admin = run(place.path(), &["rev-parse", "--absolute-git-dir"]);
    // As seen without the link to the mirror.
    let alone = tempfile::tempdir_in(Path::new(&admin).parent().unwrap()).unwrap();
    for name in ["HEAD", "config", "index", "objects/info/alternates"] {
        fs::create_dir_all(alone.path().join(name).parent().unwrap()).unwrap();
        fs::copy(Path::new(&admin).join(name), alone.path().join(name)).unwrap();
    }
    fs::create_dir_all(alone.path().join("refs")).unwrap();
    let git_dir = format!("--git-dir={}", alone.path().display());
    assert_eq!(run(alone.path(), &[&git_dir, "log", "--format=%H %s"]), format!("{sha} first"));
    assert_eq!(run(alone.path(), &[&git_dir, "status", "--porcelain"]), "");
    assert_eq!(run(alone.path(), &[&git_dir, "rev-parse", "--show-toplevel"]), place.path().display().to_string());
}

//! Mirrors and worktrees against a real git host.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use proptest::prelude::*;
use secrecy::SecretString;
use switchover::{
    domain::ids::{RepoId, Sha},
    exec::git::{GitAuth, GitError, MergeOutcome, Mirrors, pin_refspec},
};
use tempfile::TempDir;
use url::Url;

use super::host::{Fault, Host};

pub const R: RepoId = RepoId(7);

fn auth(token: &str) -> GitAuth {
    GitAuth { username: "x-access-token".into(), token: SecretString::from(token) }
}

pub fn mirrors() -> (TempDir, Mirrors) {
    let dir = tempfile::tempdir().unwrap();
    let mirrors = Mirrors::new(dir.path().join("mirrors"));
    (dir, mirrors)
}

/// Every file below, as text from the root.
pub fn files_below(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            } else if entry.file_name() != ".git" {
                found.insert(entry.path().strip_prefix(root).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found
}

#[tokio::test]
async fn branches_follow_the_host_and_commits_are_read_by_name() {
    let host = Host::start();
    let (_dir, m) = mirrors();
    let a =
        host.commit("first", &[("a.txt", "one"), ("src/é ü/猫.txt", "cat"), (".github/switchover.yml", "version: 1")]);
    host.git(&["checkout", "-q", "-b", "feature/ünï-x"]);
    let b = host.commit("second\n\nwith a body", &[("a.txt", "two")]);
    m.fetch(R, &host.url, None, &[]).await.unwrap();
    assert_eq!(m.heads(R).await, [("feature/ünï-x".to_owned(), b.clone()), ("main".to_owned(), a.clone())]);

    assert_eq!(m.read_file(R, &a, "a.txt", 10).await.unwrap().as_deref(), Some(&b"one"[..]));
    assert_eq!(m.read_file(R, &a, "src/é ü/猫.txt", 10).await.unwrap().as_deref(), Some(&b"cat"[..]));
    assert_eq!(m.read_file(R, &a, "src", 10).await.unwrap(), None);
    assert_eq!(m.read_file(R, &a, "nope", 10).await.unwrap(), None);
    let big = m.read_file(R, &a, "a.txt", 2).await.unwrap_err();
    assert_eq!(big, GitError::TooLarge { path: "a.txt".into(), size: 3, max: 2 });
    let nobody = Sha::new("1".repeat(40)).unwrap();
    for path in ["a.txt", "", "nope"] {
        assert_eq!(m.tree_id(R, &nobody, path).await, Err(GitError::MissingCommit(nobody.clone())), "{path}");
    }

    let paths: Vec<String> = m.list_files(R, &a, 10).await.unwrap().into_iter().map(|f| f.path).collect();
    assert_eq!(paths, [".github/switchover.yml", "a.txt", "src/é ü/猫.txt"]);
    assert_eq!(m.list_files(R, &a, 1).await.unwrap().len(), 1);
    assert_eq!(m.tree_id(R, &a, "src").await.unwrap(), m.tree_id(R, &b, "src/").await.unwrap());
    assert_ne!(m.tree_id(R, &a, "").await.unwrap(), m.tree_id(R, &b, "").await.unwrap());
    assert_eq!(m.tree_id(R, &a, "gone").await.unwrap(), None);
    assert_eq!(m.changed_paths(R, &a, &b).await.unwrap(), ["a.txt"]);

    let info = m.commit(R, &b).await.unwrap();
    assert_eq!((info.author_name.as_str(), info.author_email.as_str()), ("Jürgen Müller", "j@example.com"));
    assert_eq!((info.message.as_str(), info.parents), ("second\n\nwith a body", vec![a.clone()]));
    let shas = |log: Vec<_>| log.into_iter().map(|c: switchover::exec::git::CommitInfo| c.sha).collect::<Vec<_>>();
    assert_eq!(shas(m.log_between(R, None, &b, 9).await.unwrap()), [b.clone(), a.clone()]);
    assert_eq!(shas(m.log_between(R, Some(&a), &b, 9).await.unwrap()), std::slice::from_ref(&b));
    assert_eq!(m.merge_base(R, &a, &b).await.unwrap(), Some(a.clone()));
    assert!(m.is_ancestor(R, &a, &b).await.unwrap());
    assert!(!m.is_ancestor(R, &b, &a).await.unwrap());
    assert_eq!(m.is_ancestor(R, &a, &nobody).await, Err(GitError::MissingCommit(nobody)));

    // Gone branches go; a folder may become a branch of that name.
    host.git(&["push", "-q", "origin", ":feature/ünï-x"]);
    host.git(&["checkout", "-q", "--detach"]);
    host.git(&["branch", "-q", "-D", "feature/ünï-x"]);
    host.git(&["checkout", "-q", "-b", "feature"]);
    let c = host.commit("third", &[]);
    m.fetch(R, &host.url, None, &[]).await.unwrap();
    assert_eq!(m.heads(R).await, [("feature".to_owned(), c), ("main".to_owned(), a)]);
}

#[tokio::test]
async fn odd_branch_names_arrive_and_are_never_options() {
    let host = Host::start();
    let (_dir, m) = mirrors();
    let a = host.commit("first", &[("a", "1")]);
    let long = format!("x/{}", "long-".repeat(40));
    let mut names = vec!["-x", "--upload-pack=touch pwned", "@", "a;b$(id)", "ветка", "refs/heads/main", &long];
    names.retain(|n| !n.contains(' '));
    for name in &names {
        let path = host.bare().join("refs/heads").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{a}\n")).unwrap();
    }
    m.fetch(R, &host.url, None, &[]).await.unwrap();
    let got: BTreeSet<String> = m.heads(R).await.into_iter().map(|(n, _)| n).collect();
    let want: BTreeSet<String> = names.iter().map(|n| (*n).to_owned()).chain(["main".to_owned()]).collect();
    assert_eq!(got, want);
    for bad in [
        "--upload-pack=x",
        "refs/heads/a..b:refs/x",
        "main",
        "+refs/heads/x:-y",
        "+refs/a b:refs/c",
        "",
        "+refs/*:refs/x",
    ] {
        let result = m.fetch(R, &host.url, None, &[bad.to_owned()]).await;
        assert!(matches!(result, Err(GitError::BadArgument(_))), "{bad}: {result:?}");
    }
    for path in ["../x", "/etc/passwd", "a/../../b", "a\0b"] {
        assert!(matches!(m.read_file(R, &a, path, 9).await, Err(GitError::BadArgument(_))), "{path}");
    }
    for path in ["-x", "--help", ":(glob)*", "*", ":/a", ":!a"] {
        assert_eq!(m.read_file(R, &a, path, 9).await, Ok(None), "{path}");
    }
}

#[tokio::test]
async fn a_commit_that_no_branch_has_any_more_is_pinned() {
    let host = Host::start();
    let (_dir, m) = mirrors();
    let a = host.commit("first", &[("a", "1")]);
    host.git(&["push", "-q", "origin", "HEAD:refs/pull/7/head"]);
    host.git(&["commit", "-q", "--amend", "-m", "other"]);
    host.git(&["push", "-q", "--force", "origin", "HEAD"]);
    m.fetch(R, &host.url, None, &[]).await.unwrap();
    assert!(!m.has(R, &a).await);
    m.fetch(R, &host.url, None, &[pin_refspec(&a)]).await.unwrap();
    assert!(m.has(R, &a).await);
    m.fetch(R, &host.url, None, &["+refs/pull/7/head:refs/pull/7/head".to_owned()]).await.unwrap();
    let gone = "+refs/pull/8/head:refs/pull/8/head".to_owned();
    assert_eq!(m.fetch(R, &host.url, None, &[gone]).await, Err(GitError::MissingRef("refs/pull/8/head".into())));
    let nobody = Sha::new("2".repeat(40)).unwrap();
    assert_eq!(
        m.fetch(R, &host.url, None, &[pin_refspec(&nobody)]).await,
        Err(GitError::MissingRef("that commit".into()))
    );
    assert_eq!(m.heads(R).await.len(), 1, "fetching one ref prunes no other");
}

#[tokio::test]
async fn the_token_reaches_its_origin_only_and_lies_nowhere() {
    let host = Host::start();
    let (dir, m) = mirrors();
    let token = "ghs_1234.abc-DEF_".repeat(30);
    host.require(&token);
    host.commit("first", &[("a", "1")]);
    assert_eq!(m.fetch(R, &host.url, None, &[]).await, Err(GitError::Unauthorized));
    assert_eq!(m.fetch(R, &host.url, Some(&auth("wrong")), &[]).await, Err(GitError::Unauthorized));
    m.fetch(R, &host.url, Some(&auth(&token)), &[]).await.unwrap();
    assert_eq!(m.heads(R).await.len(), 1);
    for path in files_below(dir.path()) {
        let text = fs::read(dir.path().join(&path)).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains("ghs_1234"), "{path}");
    }

    // A redirect to another origin gets no credentials.
    let other = Host::start();
    other.require(&token);
    other.commit("first", &[("a", "1")]);
    host.fault(Some(Fault::Redirect(other.url.as_str().trim_end_matches("/r.git").to_owned())));
    assert_eq!(m.fetch(R, &host.url, Some(&auth(&token)), &[]).await, Err(GitError::Unauthorized));
    assert!(!other.seen().is_empty());
    assert!(other.seen().iter().all(|line| !line.contains("Basic")), "{:?}", other.seen());

    let mut with = host.url.clone();
    with.set_password(Some("x")).unwrap();
    assert!(matches!(m.fetch(R, &with, None, &[]).await, Err(GitError::BadArgument(_))));
    let file = Url::from_directory_path(host.bare()).unwrap();
    assert!(matches!(m.fetch(R, &file, None, &[]).await, Err(GitError::BadArgument(_))));
    let named = GitAuth { username: "a\nb'".into(), token: "x".into() };
    assert!(matches!(m.fetch(R, &host.url, Some(&named), &[]).await, Err(GitError::BadArgument(_))));
}

#[tokio::test]
async fn errors_are_told_apart() {
    let host = Host::start();
    let (_dir, m) = mirrors();
    host.commit("first", &[("a", "1")]);
    for status in [404, 401, 403, 500, 502, 429] {
        host.fault(Some(Fault::Status(status)));
        let error = m.fetch(R, &host.url, None, &[]).await.unwrap_err();
        let right = match status {
            404 => error == GitError::NotFound,
            401 | 403 => error == GitError::Unauthorized,
            _ => matches!(error, GitError::Unreachable(_)),
        };
        assert!(right, "{status}: {error:?}");
    }
    host.fault(Some(Fault::Cut));
    let error = m.fetch(R, &host.url, None, &[]).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    host.fault(None);
    let mut nowhere = host.url.clone();
    nowhere.set_port(Some(1)).unwrap();
    assert!(matches!(m.fetch(R, &nowhere, None, &[]).await, Err(GitError::Unreachable(_))));
    let missing = host.url.join("/other.git").unwrap();
    assert_eq!(m.fetch(R, &missing, None, &[]).await, Err(GitError::NotFound));
    m.fetch(R, &host.url, None, &[]).await.unwrap();
}

#[tokio::test]
async fn a_host_that_hangs_costs_its_time_limit_and_leaves_no_process() {
    let host = Host::start();
    let dir = tempfile::tempdir().unwrap();
    let m = Mirrors::with_fetch_limit(dir.path().to_owned(), Duration::from_millis(300));
    host.commit("first", &[("a", "1")]);
    host.fault(Some(Fault::Hang));
    let error = m.fetch(R, &host.url, None, &[]).await.unwrap_err();
    assert!(matches!(error, GitError::Timeout { .. }), "{error:?}");
    wait_until("git is gone", || !processes().iter().any(|c| c.contains(host.url.as_str()))).await;
    host.fault(None);
    Mirrors::new(dir.path().to_owned()).fetch(R, &host.url, None, &[]).await.unwrap();
}

pub async fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..12_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited 2 min in vain: {what}");
}

/// Command lines of all processes.
pub fn processes() -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|e| fs::read(e.path().join("cmdline")).ok())
        .map(|c| String::from_utf8_lossy(&c).into_owned())
        .collect()
}

#[tokio::test]
async fn a_damaged_mirror_is_fetched_anew() {
    let host = Host::start();
    let (dir, m) = mirrors();
    let a = host.commit("first", &[("a", "1"), ("b", "2")]);
    m.fetch(R, &host.url, None, &[]).await.unwrap();
    let work = m.checkout(R, &a, "k").await.unwrap();
    let objects = dir.path().join("mirrors/7.git/objects");
    let damage = |how: &str| {
        for path in files_below(&objects) {
            let path = objects.join(path);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            match how {
                "empty" => fs::write(path, b"").unwrap(),
                "noise" => fs::write(path, b"noise, noise, noise, noise").unwrap(),
                _ => fs::remove_file(path).unwrap(),
            }
        }
    };
    for how in ["empty", "noise", "gone"] {
        damage(how);
        let read = m.read_file(R, &a, "a", 9).await;
        assert!(read.is_err(), "{how}: {read:?}");
        m.fetch(R, &host.url, None, &[]).await.unwrap();
        assert_eq!(m.read_file(R, &a, "a", 9).await.unwrap().as_deref(), Some(&b"1"[..]), "{how}");
    }
    fs::remove_file(dir.path().join("mirrors/7.git/HEAD")).unwrap();
    fs::write(dir.path().join("mirrors/7.git/config"), b"[core\nfsmonitor = touch pwned").unwrap();
    m.fetch(R, &host.url, None, &[]).await.unwrap();
    drop(work);
    let work = m.checkout(R, &a, "k").await.unwrap();
    assert_eq!(files_below(work.path()), ["a", "b"].map(str::to_owned).into());
    let config = fs::read_to_string(dir.path().join("mirrors/7.git/config")).unwrap();
    assert!(!config.contains("fsmonitor"), "{config}");
}

#[tokio::test]
async fn locks_of_dead_processes_are_no_hindrance() {
    let host = Host::start();
    let (dir, m) = mirrors();
    let a = host.commit("first", &[("a", "1")]);
    m.fetch(R, &host.url, None, &[]).await.unwrap();
    drop(m.checkout(R, &a, "k").await.unwrap());
    let b = host.commit("second", &[("a", "2")]);
    let mirror = dir.path().join("mirrors/7.git");
    for lock in ["refs/heads/main.lock", "packed-refs.lock", "worktrees/0/index.lock", "worktrees/0/HEAD.lock"] {
        fs::write(mirror.join(lock), b"").unwrap();
    }
    m.fetch(R, &host.url, None, &[]).await.unwrap();
    assert_eq!(m.heads(R).await, [("main".to_owned(), b.clone())]);
    let work = m.checkout(R, &b, "k").await.unwrap();
    assert_eq!(fs::read_to_string(work.path().join("a")).unwrap(), "2");
}

#[tokio::test]
async fn merges_are_made_once_and_conflicts_named() {
    let host = Host::start();
    let (_dir, m) = mirrors();
    let root = host.commit("root", &[("a", "1\n2\n3\n4\n5\n"), ("b", "1"), ("ü/c", "1")]);
    host.git(&["checkout", "-q", "-b", "one"]);
    let one = host.commit("one", &[("a", "one\n2\n3\n4\n5\n"), ("ü/c", "one")]);
    host.git(&["checkout", "-q", "-b", "two", root.as_str()]);
    let two = host.commit("two", &[("a", "1\n2\n3\n4\nfive\n")]);
    host.git(&["checkout", "-q", "-b", "three", root.as_str()]);
    let three = host.commit("three", &[("a", "three\n2\n3\n4\n5\n"), ("ü/c", "three")]);
    host.git(&["checkout", "-q", "--orphan", "alone"]);
    let alone = host.commit("alone", &[("z", "1")]);
    m.fetch(R, &host.url, None, &[]).await.unwrap();
    let MergeOutcome::Clean(merged) = m.merge(R, &one, &two).await.unwrap() else { panic!("conflict") };
    assert_eq!(m.read_file(R, &merged, "a", 99).await.unwrap().as_deref(), Some(&b"one\n2\n3\n4\nfive\n"[..]));
    assert_eq!(m.commit(R, &merged).await.unwrap().parents, [one.clone(), two.clone()]);
    let (_dir2, m2) = mirrors();
    m2.fetch(R, &host.url, None, &[]).await.unwrap();
    assert_eq!(m2.merge(R, &one, &two).await.unwrap(), MergeOutcome::Clean(merged.clone()), "the same anywhere");
    m.sweep().await;
    assert!(m.has(R, &merged).await);
    assert_eq!(
        m.merge(R, &one, &three).await.unwrap(),
        MergeOutcome::Conflict { paths: vec!["a".into(), "ü/c".into()] }
    );
    assert_eq!(m.merge(R, &one, &alone).await.unwrap(), MergeOutcome::Conflict { paths: vec![] });
    let nobody = Sha::new("3".repeat(40)).unwrap();
    assert_eq!(m.merge(R, &one, &nobody).await, Err(GitError::MissingCommit(nobody)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever is asked for is answered or refused; nothing is made outside of the root.
    #[test]
    fn hostile_arguments_do_nothing(spec in "\\PC{0,40}", path in "[-./:*a-z\\\\ \"']{0,20}", key in "\\PC{0,30}") {
        let (dir, m) = mirrors();
        let sha = Sha::new("4".repeat(40)).unwrap();
        let url = Url::parse("http://127.0.0.1:1/x.git").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            prop_assert!(m.fetch(R, &url, None, &[spec]).await.is_err());
            prop_assert!(m.read_file(R, &sha, &path, 9).await.is_err());
            prop_assert!(m.checkout(R, &sha, &key).await.is_err());
            Ok(())
        })?;
        for entry in fs::read_dir(dir.path()).unwrap().flatten() {
            prop_assert_eq!(entry.file_name(), "mirrors");
        }
    }
}

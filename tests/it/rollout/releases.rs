//! Releases on disk.

use std::{
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::Path,
    time::Duration,
};

use switchover::{
    domain::ids::Digest,
    rollout::local::releases::{ReleaseError, prune, store, verify},
};
use tempfile::TempDir;

type Make = (&'static str, fn(&Path));

fn write(root: &Path, path: &str, text: &str, mode: u32) {
    let full = root.join(path);
    fs::create_dir_all(full.parent().unwrap()).unwrap();
    fs::write(&full, text).unwrap();
    fs::set_permissions(&full, fs::Permissions::from_mode(mode)).unwrap();
}

fn sample() -> (TempDir, TempDir) {
    let (app, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(app.path(), "bin/server", "#!/bin/sh\n", 0o755);
    write(app.path(), "static/a b\n.txt", "odd name", 0o600);
    write(app.path(), ".git/config", "secret of the checkout", 0o644);
    fs::write(app.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9")), "no UTF-8").unwrap();
    fs::create_dir(app.path().join("empty")).unwrap();
    std::os::unix::fs::symlink("../bin/server", app.path().join("static/run")).unwrap();
    (app, root)
}

#[test]
fn a_release_is_named_by_its_content() {
    let (app, root) = sample();
    let first = store(app.path(), None, root.path()).unwrap();
    assert!(first.path.ends_with(first.digest.as_str().trim_start_matches("sha256:")));
    assert_eq!(first.bytes, 10 + 8 + 8);
    assert_eq!(fs::read_to_string(first.path.join("static/run")).unwrap(), "#!/bin/sh\n");
    assert!(first.path.join("empty").is_dir() && !first.path.join(".git").exists());
    let mode = |p: &str| fs::metadata(first.path.join(p)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("bin/server"), mode("static/a b\n.txt")), (0o555, 0o444));
    assert_eq!(verify(root.path(), &first.digest).unwrap(), first);

    // The same again, stored by another hand at another time: the same name, one copy, nothing left over.
    write(app.path(), "static/a b\n.txt", "odd name", 0o640);
    assert_eq!(store(app.path(), None, root.path()).unwrap(), first);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);

    // What the build's folder does later is not seen by the release.
    fs::write(app.path().join("bin/server"), "other").unwrap();
    assert_eq!(verify(root.path(), &first.digest).unwrap(), first);
    let second = store(app.path(), None, root.path()).unwrap();
    assert_ne!(second.digest, first.digest);
    fs::set_permissions(app.path().join("bin/server"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_ne!(store(app.path(), None, root.path()).unwrap().digest, second.digest, "a mode is content");
}

#[test]
fn files_are_chosen_by_patterns() {
    let app = tempfile::tempdir().unwrap();
    for path in ["target/app.jar", "target/classes/A.class", "dist/index.html", "dist/js/a.js", "README.md"] {
        write(app.path(), path, path, 0o644);
    }
    let list = |patterns: &[&str]| {
        let root = tempfile::tempdir().unwrap();
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        let stored = store(app.path(), Some(&patterns), root.path()).map_err(|e| e.to_string())?;
        let manifest = fs::read_to_string(stored.path.with_extension("manifest")).unwrap();
        Ok::<_, String>(
            manifest.lines().map(|l| l.rsplit(' ').next().unwrap().to_owned()).collect::<Vec<_>>().join(" "),
        )
    };
    let cases: [(&[&str], &str); 8] = [
        (&["target/*.jar"], "target/app.jar"),
        (&["dist"], "dist/index.html dist/js/a.js"),
        (&["./dist/", "README.md"], "README.md dist/index.html dist/js/a.js"),
        (&["**/*.js"], "dist/js/a.js"),
        (
            &["target/*.war"],
            r#"`files:` has "target/*.war", and nothing there is named so after the build; there are: README.md, dist, target"#,
        ),
        (
            &["../other"],
            r#"`files:` has "../other", which is no pattern: it must name something below the app's folder"#,
        ),
        (
            &["/etc/passwd"],
            r#"`files:` has "/etc/passwd", which is no pattern: it must name something below the app's folder"#,
        ),
        (&["a[b"], r#"`files:` has "a[b", which is no pattern: unclosed character class; missing ']'"#),
    ];
    for (patterns, expected) in cases {
        let found = list(patterns).unwrap_or_else(|e| e);
        assert_eq!(found, expected, "{patterns:?}");
    }
}

#[test]
fn hostile_folders_are_refused_and_leave_nothing() {
    let make: [Make; 6] = [
        ("an empty folder", |_| {}),
        ("a link to an absolute place", |p| std::os::unix::fs::symlink("/etc/passwd", p.join("x")).unwrap()),
        ("a link upwards", |p| std::os::unix::fs::symlink("../../etc", p.join("x")).unwrap()),
        ("a link over a link", |p| {
            fs::create_dir_all(p.join("a/b")).unwrap();
            std::os::unix::fs::symlink("a/b", p.join("deep")).unwrap();
            std::os::unix::fs::symlink("deep/../../..", p.join("x")).unwrap();
        }),
        ("a pipe", |p| nix::unistd::mkfifo(&p.join("x"), nix::sys::stat::Mode::S_IRUSR).unwrap()),
        ("a socket", |p| drop(std::os::unix::net::UnixListener::bind(p.join("x")).unwrap())),
    ];
    for (what, make) in make {
        let (app, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make(app.path());
        let error = store(app.path(), None, root.path()).expect_err(what);
        assert!(
            matches!(error, ReleaseError::Empty | ReleaseError::LinkOutside { .. } | ReleaseError::Special { .. }),
            "{what}: {error}"
        );
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "{what}");
    }
}

#[test]
fn what_was_changed_on_disk_is_seen() {
    let spoil: [Make; 5] = [
        ("text", |p| {
            fs::set_permissions(p.join("bin/server"), fs::Permissions::from_mode(0o755)).unwrap();
            fs::write(p.join("bin/server"), "evil").unwrap();
        }),
        ("mode", |p| fs::set_permissions(p.join("bin/server"), fs::Permissions::from_mode(0o444)).unwrap()),
        ("file gone", |p| fs::remove_file(p.join("bin/server")).unwrap()),
        ("link", |p| {
            fs::remove_file(p.join("static/run")).unwrap();
            std::os::unix::fs::symlink("/bin/sh", p.join("static/run")).unwrap();
        }),
        ("manifest", |p| {
            let path = p.with_extension("manifest");
            let text = fs::read_to_string(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            fs::write(&path, text.lines().next().unwrap()).unwrap();
        }),
    ];
    for (what, spoil) in spoil {
        let (app, root) = sample();
        let stored = store(app.path(), None, root.path()).unwrap();
        // What the app itself writes beside its files is no fault.
        fs::write(stored.path.join("app.log"), "started").unwrap();
        verify(root.path(), &stored.digest).unwrap();
        spoil(&stored.path);
        let error = verify(root.path(), &stored.digest).expect_err(what);
        assert!(matches!(error, ReleaseError::Changed { .. }), "{what}: {error}");
    }
    let root = tempfile::tempdir().unwrap();
    assert!(matches!(verify(root.path(), &Digest::of(b"x")), Err(ReleaseError::Missing(_))));
}

#[test]
fn pruning_keeps_what_is_needed() {
    let (app, root) = sample();
    let one = store(app.path(), None, root.path()).unwrap();
    fs::write(app.path().join("bin/server"), "two").unwrap();
    let two = store(app.path(), None, root.path()).unwrap();
    // Somebody is just storing a third one.
    fs::create_dir(root.path().join(".draft-busy")).unwrap();
    fs::write(root.path().join("README"), "not ours").unwrap();
    assert_eq!(prune(root.path(), std::slice::from_ref(&two.digest), Duration::ZERO).unwrap(), 1);
    assert!(verify(root.path(), &two.digest).is_ok());
    assert!(matches!(verify(root.path(), &one.digest), Err(ReleaseError::Missing(_))));
    assert_eq!(prune(root.path(), std::slice::from_ref(&two.digest), Duration::ZERO).unwrap(), 0);
    let mut left: Vec<_> =
        fs::read_dir(root.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left.len(), 4, "{left:?}");
    assert_eq!(prune(&root.path().join("none"), &[], Duration::ZERO).unwrap(), 0);
}

#[test]
fn many_hands_store_the_same_at_once() {
    let (app, root) = sample();
    let all: Vec<_> = std::thread::scope(|s| {
        let hands: Vec<_> = (0..8).map(|_| s.spawn(|| store(app.path(), None, root.path()).unwrap())).collect();
        hands.into_iter().map(|h| h.join().unwrap()).collect()
    });
    assert!(all.windows(2).all(|w| w[0] == w[1]));
    verify(root.path(), &all[0].digest).unwrap();
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2, "drafts were left behind");
}

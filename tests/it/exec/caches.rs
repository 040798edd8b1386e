//! Caches: apart by app and trust, and never a way out of the workspace.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::PathBuf,
    time::Duration,
};

use switchover::{
    domain::ids::{AppName, JobId, RepoId},
    exec::{
        budget::{Freed, keep_within},
        caches::{CacheError, CacheJob, CacheUse, Caches, JobHome},
    },
};
use tempfile::TempDir;

struct Fixture {
    dir: TempDir,
    caches: Caches,
    app: AppName,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let caches = Caches::new(dir.path().join("caches"));
        Self { dir, caches, app: AppName::new("backend").unwrap() }
    }

    fn fresh(&self, name: &str) -> (PathBuf, PathBuf) {
        let (home, app_dir) = (self.dir.path().join(name).join("home"), self.dir.path().join(name).join("app"));
        fs::create_dir_all(&home).unwrap();
        fs::create_dir_all(&app_dir).unwrap();
        (home, app_dir)
    }

    fn job(
        &self,
        name: &str,
        trust: &str,
        seed: Option<&str>,
        entries: &[&str],
    ) -> (PathBuf, PathBuf, Result<CacheUse, CacheError>) {
        let (home, app_dir) = self.fresh(name);
        let entries: Vec<String> = entries.iter().map(|e| (*e).to_owned()).collect();
        let job = CacheJob { repo: RepoId(1), app: &self.app, trust, seed, home: &home, app_dir: &app_dir };
        let result = self.caches.prepare(&job, &entries);
        (home, app_dir, result)
    }
}

#[test]
fn what_a_job_leaves_the_next_one_finds_and_another_trust_does_not() {
    let f = Fixture::new();
    let entries = ["~/.m2/repository", "node_modules", "web/node_modules/"];
    let (home, app, used) = f.job("one", "own", None, &entries);
    used.unwrap();
    fs::write(home.join(".m2/repository/x.jar"), "jar").unwrap();
    fs::write(app.join("node_modules/y"), "y").unwrap();
    let real = fs::canonicalize(app.join("node_modules")).unwrap();
    assert_eq!(real.file_name().unwrap(), "node_modules", "Node resolves packages by this name");
    let (home, app, used) = f.job("two", "own", None, &entries);
    used.unwrap();
    assert_eq!(fs::read_to_string(home.join(".m2/repository/x.jar")).unwrap(), "jar");
    assert_eq!(fs::read_to_string(app.join("node_modules/y")).unwrap(), "y");
    assert!(fs::read_dir(app.join("web/node_modules")).unwrap().next().is_none());
    let (home, _, used) = f.job("three", "pull/7", None, &entries);
    used.unwrap();
    assert!(!home.join(".m2/repository/x.jar").exists());
}

#[test]
fn a_pull_request_starts_with_a_copy_and_never_writes_to_the_branchs() {
    let f = Fixture::new();
    let (home, _, used) = f.job("branch", "own", None, &["~/c"]);
    fs::write(home.join("c/a"), "1").unwrap();
    fs::set_permissions(home.join("c/a"), fs::Permissions::from_mode(0o444)).unwrap();
    fs::create_dir(home.join("c/deep")).unwrap();
    symlink("/etc/passwd", home.join("c/deep/link")).unwrap();
    let time = fs::metadata(home.join("c/a")).unwrap().modified().unwrap() - Duration::from_secs(1000);
    fs::File::open(home.join("c/a")).unwrap().set_modified(time).unwrap();

    // While the branch's is in use it is not copied: it may be half written.
    let (pull_home, _, pull) = f.job("early", "pull-1", Some("own"), &["~/c"]);
    pull.unwrap();
    assert!(!pull_home.join("c/a").exists());
    drop(used);
    let (pull_home, _, pull) = f.job("pull", "pull-2", Some("own"), &["~/c"]);
    pull.unwrap();
    let copied = fs::metadata(pull_home.join("c/a")).unwrap();
    assert_eq!((copied.modified().unwrap(), copied.mode() & 0o777), (time, 0o444));
    assert_eq!(fs::read_link(pull_home.join("c/deep/link")).unwrap(), PathBuf::from("/etc/passwd"));
    fs::write(pull_home.join("c/evil"), "x").unwrap();
    assert!(!home.join("c/evil").exists());
    // Not empty any more: it keeps its own.
    fs::write(home.join("c/later"), "x").unwrap();
    let (pull_home, _, pull) = f.job("again", "pull-2", Some("own"), &["~/c"]);
    pull.unwrap();
    assert!(pull_home.join("c/evil").exists() && !pull_home.join("c/later").exists());
}

#[test]
fn entries_that_lead_elsewhere_are_refused_with_a_reason() {
    let f = Fixture::new();
    let (_, app) = f.fresh("bad");
    symlink("/etc", app.join("link")).unwrap();
    fs::create_dir_all(app.join("tracked")).unwrap();
    fs::write(app.join("file"), "").unwrap();
    let entries = [
        "../x",
        "/etc",
        "~/../x",
        "a/../../b",
        "",
        "~/",
        ".",
        "~root/x",
        "link/x",
        "file/x",
        "tracked",
        "a\0b",
        ".git",
    ];
    let mut told = Vec::new();
    for entry in entries {
        match f.job("bad", "own", None, &[entry]).2 {
            Err(e @ CacheError::Entry { .. }) => told.push(e.to_string()),
            Ok(_) if entry == "~root/x" => told.push("a folder named ~root: no home is looked up".into()),
            other => panic!("{entry:?}: {other:?}"),
        }
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    cache "../x": only folders below ~/ or below the app's folder are kept
    cache "/etc": only folders below ~/ or below the app's folder are kept
    cache "~/../x": only folders below ~/ or below the app's folder are kept
    cache "a/../../b": only folders below ~/ or below the app's folder are kept
    cache "": names no folder of its own, such as ~/.m2/repository or node_modules
    cache "~/": names no folder of its own, such as ~/.m2/repository or node_modules
    cache ".": names no folder of its own, such as ~/.m2/repository or node_modules
    a folder named ~root: no home is looked up
    cache "link/x": a folder on the way there is a link or a file
    cache "file/x": a folder on the way there is a link or a file
    cache "tracked": the commit already has something of that name there
    cache "a\0b": only folders below ~/ or below the app's folder are kept
    cache ".git": names no folder of its own, such as ~/.m2/repository or node_modules
    "#);
    assert!(!PathBuf::from("/etc/x").exists());
}

#[test]
fn unused_caches_and_homes_go() {
    let f = Fixture::new();
    let (home, _, used) = f.job("one", "own", None, &["~/c"]);
    fs::write(home.join("c/a"), "1").unwrap();
    assert_eq!(f.caches.sweep(Duration::ZERO), 0, "in use");
    drop(used);
    assert_eq!(f.caches.sweep(Duration::from_secs(3600)), 0, "young");
    assert_eq!(f.caches.sweep(Duration::ZERO), 1);
    let (home, _, used) = f.job("two", "own", None, &["~/c"]);
    used.unwrap();
    assert!(home.join("c").is_dir() && !home.join("c/a").exists());
    f.caches.remove(RepoId(1)).unwrap();

    let homes = f.dir.path().join("homes");
    let outside = f.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("keep"), "").unwrap();
    let job = JobId::generate();
    let first = JobHome::create(&homes, job).unwrap();
    fs::create_dir_all(first.path().join("ro/deep")).unwrap();
    fs::write(first.path().join("ro/deep/f"), "").unwrap();
    symlink(&outside, first.path().join("out")).unwrap();
    fs::set_permissions(first.path().join("ro/deep"), fs::Permissions::from_mode(0o500)).unwrap();
    assert_eq!(fs::metadata(first.path()).unwrap().mode() & 0o777, 0o700);
    std::mem::forget(first);
    let second = JobHome::create(&homes, job).unwrap();
    assert!(fs::read_dir(second.path()).unwrap().next().is_none(), "fresh after a crash");
    let path = second.path().to_owned();
    drop(second);
    assert!(!path.exists() && outside.join("keep").exists());
    std::mem::forget(JobHome::create(&homes, job).unwrap());
    assert_eq!(JobHome::sweep(&homes), 1);
}

/// The oldest goes first, what a job holds stays, and what fits is left alone.
#[tokio::test]
async fn a_budget_takes_the_longest_unused_first() {
    let root = tempfile::tempdir().unwrap();
    let caches = Caches::new(root.path().join("caches"));
    let app = AppName::new("app").unwrap();
    let mut held = Vec::new();
    for (n, name) in ["old", "middle", "held", "new"].into_iter().enumerate() {
        let (home, dir) = (root.path().join(format!("home{n}")), root.path().join(format!("dir{n}")));
        fs::create_dir_all(&home).unwrap();
        fs::create_dir_all(&dir).unwrap();
        let job = CacheJob { repo: RepoId(1), app: &app, trust: name, seed: None, home: &home, app_dir: &dir };
        let used = caches.prepare(&job, &["~/store".to_owned()]).unwrap();
        fs::write(home.join("store/file"), vec![1; 1 << 20]).unwrap();
        let folder = used.folders()[0].parent().unwrap().to_owned();
        let age = Duration::from_secs(3600 * (10 - n as u64));
        let time = std::time::SystemTime::from(switchover::clock::now()) - age;
        fs::File::options().write(true).open(folder.join("lock")).unwrap().set_modified(time).unwrap();
        held.push((used, home));
    }
    let there = |held: &[(CacheUse, PathBuf)]| -> Vec<bool> {
        held.iter().map(|(_, home)| home.join("store/file").exists()).collect()
    };
    let size: u64 = caches.folders().iter().map(|c| c.bytes).sum();
    assert!(size >= 4 << 20, "{size}");
    let nothing = keep_within(&caches, None, size, &[], Duration::ZERO).await;
    assert_eq!((nothing, there(&held)), (Freed::default(), vec![true; 4]));
    let busy = keep_within(&caches, None, 0, &[], Duration::ZERO).await;
    assert_eq!((busy, there(&held)), (Freed::default(), vec![true; 4]), "all are in use");
    let homes: Vec<_> = held.iter().map(|(_, home)| home.clone()).collect();
    let (third, _) = held.swap_remove(2);
    drop(held);
    let now = |homes: &[PathBuf]| homes.iter().map(|h| h.join("store/file").exists()).collect::<Vec<_>>();
    let young = keep_within(&caches, None, 0, &[], Duration::from_secs(24 * 3600)).await;
    assert_eq!((young, now(&homes)), (Freed::default(), vec![true; 4]), "all were used today");
    let some = keep_within(&caches, None, 2 << 20 | 1 << 19, &[], Duration::ZERO).await;
    assert_eq!((some.caches, now(&homes)), (2, vec![false, false, true, true]));
    drop(third);
    let all = keep_within(&caches, None, 0, &[], Duration::ZERO).await;
    assert_eq!((all.caches, now(&homes)), (2, vec![false; 4]));
}

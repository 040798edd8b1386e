//! Git, by its command line: one bare mirror per repository, read by object name, and pooled worktrees.
//!
//! Nothing of the host's or the user's git configuration counts, no hook, filter, credential helper or submodule is
//! ever run, and only http(s) is spoken. Tokens travel by `GIT_ASKPASS` and an environment variable of that one call,
//! and are given to the origin of the URL alone, wherever a redirect leads.
//!
//! Layout below the root: `ID.git` (the mirror), `ID.lock` (held while it is written to, by the git process itself
//! too), `ID.gc` (held while it is packed), `ID.pool/KEY/N` (a worktree), `ID.pool/KEY/N.lock` (held while it is in
//! use), `ID.pool/KEY/N.steps` (held by the supervisors of its steps), `askpass`.

mod call;
mod objects;
mod pool;
mod sweep;

use std::{
    collections::HashMap,
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use secrecy::SecretString;
use url::Url;

use call::Call;
pub use objects::{CommitInfo, FileEntry, MergeOutcome};
pub use pool::Workspace;
pub(crate) use pool::admin_folder;
pub use sweep::Swept;

use crate::{
    domain::ids::{RepoId, Sha},
    exec::files::Lock,
};

/// Credentials for fetching: `x-access-token` and an installation token ("Authenticating as a GitHub App
/// installation").
#[derive(Debug, Clone)]
pub struct GitAuth {
    /// User name; letters, digits and dashes.
    pub username: String,
    /// Token.
    pub token: SecretString,
}

/// Why git could not do it. Texts never carry a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GitError {
    /// No such repository, or it is hidden from us.
    #[error("the host knows no such repository, or does not show it to the App")]
    NotFound,
    /// Credentials missing, wrong, or not enough.
    #[error("the host refused the credentials")]
    Unauthorized,
    /// The branch, pull request or commit is not there (any more).
    #[error("the host has no {0}")]
    MissingRef(String),
    /// Fetch first.
    #[error("commit {0} is not in the mirror")]
    MissingCommit(Sha),
    /// Network, server or disk trouble that may pass.
    #[error("git could not reach the host or store what came: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("git {what} took longer than {seconds} s")]
    Timeout {
        /// The subcommand.
        what: String,
        /// The limit.
        seconds: u64,
    },
    /// The mirror is damaged. The next fetch makes it anew.
    #[error("the mirror is damaged and will be fetched anew: {0}")]
    Corrupt(String),
    /// Somebody else's git holds a lock.
    #[error("another git process is at work here: {0}")]
    Locked(String),
    /// A file is larger than the caller wants to read.
    #[error("{path} has {size} bytes, more than the {max} that are read")]
    TooLarge {
        /// Path in the repository.
        path: String,
        /// Its size.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// The caller's argument is not acceptable.
    #[error("not acceptable: {0}")]
    BadArgument(String),
    /// Git could not be started.
    #[error("git could not be started (is it installed?): {0}")]
    NoGit(String),
    /// The file system refuses.
    #[error("{0}")]
    Io(String),
    /// Anything else, with git's last lines.
    #[error("git: {0}")]
    Other(String),
}

impl GitError {
    /// Whether trying again later may help without anybody mending anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Timeout { .. } | Self::Locked(_) | Self::Corrupt(_) | Self::Io(_))
    }

    fn io(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let place = format!("{doing} {}", path.display());
        move |e| Self::Io(format!("{place}: {e}"))
    }
}

/// All mirrors. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Mirrors(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    fetch_limit: Duration,
    repos: Mutex<HashMap<RepoId, Arc<tokio::sync::Mutex<()>>>>,
}

/// A mirror that only we write to. Two locks: among tasks, and among processes.
struct Held {
    _task: tokio::sync::OwnedMutexGuard<()>,
    file: File,
}

impl Held {
    fn share(&self) -> Option<File> {
        self.file.try_clone().ok()
    }
}

/// Lies in a mirror that was found to be damaged.
const DAMAGED: &str = "switchover-damaged";
/// The mirror's whole configuration. Written anew before each fetch: a step can reach this file.
const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n\tlogallrefupdates = \
                      false\n[gc]\n\tworktreePruneExpire = now\n";
/// Answers only when git asks for the origin that the credentials are for.
const ASKPASS: &str = "#!/bin/sh\n# Switchover: hands git the credentials of this one call.\ncase \"$1\" in\n\"Username \
                       for $GIT_CALL_FOR_USER: \") printf '%s\\n' \"$GIT_CALL_USER\" ;;\n\"Password for \
                       $GIT_CALL_FOR_TOKEN: \") printf '%s\\n' \"$GIT_CALL_TOKEN\" ;;\n*) exit 1 ;;\nesac\n";

impl Mirrors {
    /// Mirrors below `root`, which is made when needed.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self::with_fetch_limit(root, Duration::from_secs(600))
    }

    /// The same with another time limit for one fetch (default ten minutes).
    #[must_use]
    pub fn with_fetch_limit(root: PathBuf, fetch_limit: Duration) -> Self {
        let root = std::path::absolute(&root).unwrap_or(root);
        Self(Arc::new(Inner { root, fetch_limit, repos: Mutex::default() }))
    }

    /// The mirror of a repository: what the `.git` of its worktrees leads to.
    #[must_use]
    pub fn dir(&self, repo: RepoId) -> PathBuf {
        self.0.root.join(format!("{repo}.git"))
    }

    /// Waits for the mirror to be ours alone.
    async fn hold(&self, repo: RepoId) -> Result<Held, GitError> {
        let task = {
            let mut repos = self.0.repos.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(repos.entry(repo).or_default())
        };
        let task = task.lock_owned().await;
        std::fs::create_dir_all(&self.0.root).map_err(GitError::io("making", &self.0.root))?;
        let path = self.0.root.join(format!("{repo}.lock"));
        let file = Lock::open(&path).map_err(GitError::io("opening", &path))?;
        // Only a git process that outlived a killed server can hold it now: it ends soon, its pipes being closed.
        let deadline = tokio::time::Instant::now() + self.0.fetch_limit;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Held { _task: task, file }),
                Err(TryLockError::WouldBlock) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(TryLockError::WouldBlock) => return Err(GitError::Locked(path.display().to_string())),
                Err(TryLockError::Error(e)) => return Err(GitError::io("locking", &path)(e)),
            }
        }
    }

    /// Brings the mirror up to date, making it when it is missing or damaged.
    ///
    /// Without `refspecs` all branches are fetched and those that are gone are dropped. Others are given as
    /// `+refs/pull/7/head:refs/pull/7/head`, or as `+COMMIT:refs/switchover/pin/COMMIT`. One fetch at a time and
    /// repository; dropped, it ends.
    ///
    /// # Errors
    /// Every [`GitError`] but those of single files.
    pub async fn fetch(
        &self,
        repo: RepoId,
        url: &Url,
        auth: Option<&GitAuth>,
        refspecs: &[String],
    ) -> Result<(), GitError> {
        check_url(url)?;
        if let Some(auth) = auth
            && !auth.username.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            return Err(GitError::BadArgument("a git user name of letters, digits and dashes is expected".into()));
        }
        for spec in refspecs {
            check_refspec(spec)?;
        }
        let held = self.hold(repo).await?;
        let askpass = self.askpass()?;
        let dir = self.dir(repo);
        if dir.join(DAMAGED).exists() {
            drop_mirror(&dir)?;
        }
        self.ensure(&dir, &held).await?;
        let mut anew = false;
        let mut unlocked = false;
        loop {
            let mut call = Call::new(Some(&dir))
                .args(["fetch", "--quiet", "--no-tags", "--no-auto-maintenance", "--no-write-fetch-head"])
                .args(["--no-recurse-submodules", "--no-show-forced-updates"]);
            call = if refspecs.is_empty() {
                call.args(["--prune", "--", url.as_str(), "+refs/heads/*:refs/heads/*"])
            } else {
                call.args(["--", url.as_str()]).args(refspecs)
            };
            let call = call.auth(auth, &askpass, url).holding(held.share()).limit(self.0.fetch_limit);
            match call.ok(&self.0.root).await {
                Ok(_) => return Ok(()),
                // We hold the only lock, so whatever lock file lies there is of a process that is dead.
                Err(GitError::Locked(_)) if !unlocked => {
                    unlocked = true;
                    self.drop_stale_locks(repo, &dir)?;
                }
                Err(GitError::Corrupt(why)) if !anew => {
                    anew = true;
                    tracing::warn!(repo = repo.0, why, "mirror is damaged, fetching it anew");
                    drop_mirror(&dir)?;
                    self.ensure(&dir, &held).await?;
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Makes an empty mirror when there is none, and puts its configuration right.
    async fn ensure(&self, dir: &Path, held: &Held) -> Result<(), GitError> {
        if !dir.join("HEAD").exists() {
            drop_mirror(dir)?;
            // Made beside and moved into place: a mirror that has the name is whole.
            let beside = dir.with_extension("new");
            drop_mirror(&beside)?;
            Call::new(None)
                .args(["init", "--quiet", "--bare", "--template=", "--initial-branch=main", "--"])
                .arg(beside.as_os_str())
                .holding(held.share())
                .ok(&self.0.root)
                .await?;
            std::fs::write(beside.join("config"), CONFIG).map_err(GitError::io("writing", &beside))?;
            std::fs::rename(&beside, dir).map_err(GitError::io("making", dir))?;
        }
        let config = dir.join("config");
        if std::fs::read(&config).ok().as_deref() != Some(CONFIG.as_bytes()) {
            std::fs::write(&config, CONFIG).map_err(GitError::io("writing", &config))?;
        }
        Ok(())
    }

    fn askpass(&self) -> Result<PathBuf, GitError> {
        let path = self.0.root.join("askpass");
        if std::fs::read(&path).ok().as_deref() != Some(ASKPASS.as_bytes()) {
            let mut beside = tempfile::Builder::new()
                .prefix("askpass-")
                .tempfile_in(&self.0.root)
                .map_err(GitError::io("writing below", &self.0.root))?;
            io::Write::write_all(&mut beside, ASKPASS.as_bytes()).map_err(GitError::io("writing", &path))?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            std::fs::set_permissions(beside.path(), mode).map_err(GitError::io("writing", &path))?;
            beside.persist(&path).map_err(|e| GitError::io("writing", &path)(e.error))?;
        }
        Ok(path)
    }

    /// Removes lock files from the mirror, but for those of worktrees, which have their own. The mirror must be held.
    fn drop_stale_locks(&self, repo: RepoId, dir: &Path) -> Result<(), GitError> {
        let path = self.gc_lock(repo);
        let packing = Lock::now(&path).map_err(GitError::io("locking", &path))?;
        if packing.is_none() {
            return Err(GitError::Locked("the mirror is being packed".into()));
        }
        let mut todo = vec![dir.to_owned()];
        while let Some(folder) = todo.pop() {
            for entry in std::fs::read_dir(&folder).map_err(GitError::io("reading", &folder))?.flatten() {
                let path = entry.path();
                let kind = entry.file_type().map_err(GitError::io("reading", &path))?;
                if kind.is_dir() && !["worktrees", "objects"].iter().any(|n| path == dir.join(n)) {
                    todo.push(path);
                } else if kind.is_file() && path.extension().is_some_and(|e| e == "lock") {
                    tracing::warn!(path = %path.display(), "removing a lock that a dead git left");
                    std::fs::remove_file(&path).map_err(GitError::io("removing", &path))?;
                }
            }
        }
        Ok(())
    }

    fn gc_lock(&self, repo: RepoId) -> PathBuf {
        self.0.root.join(format!("{repo}.gc"))
    }

    /// Forgets a repository: its mirror and its idle worktrees.
    ///
    /// # Errors
    /// [`GitError::Io`].
    pub async fn remove(&self, repo: RepoId) -> Result<(), GitError> {
        let _held = self.hold(repo).await?;
        drop_mirror(&self.dir(repo))?;
        self.remove_idle(repo, None);
        Ok(())
    }

    /// A call on the mirror, whose damage is remembered for the next fetch.
    async fn ask<'a>(&self, dir: &'a Path, call: Call<'a>) -> Result<call::Done, GitError> {
        if !dir.join("HEAD").exists() {
            return Err(GitError::Corrupt("there is no mirror yet".into()));
        }
        let done = call.run(&self.0.root).await?;
        if !done.status.success() && !done.cut && matches!(done.error(), GitError::Corrupt(_)) {
            // Only a sign for the next fetch; when it can't be left, that fetch or the one after it finds out itself.
            let _ = std::fs::write(dir.join(DAMAGED), b"");
        }
        Ok(done)
    }
}

fn drop_mirror(dir: &Path) -> Result<(), GitError> {
    crate::exec::files::remove_tree(dir).map_err(GitError::io("removing", dir))
}

fn check_url(url: &Url) -> Result<(), GitError> {
    let bad = |why: &str| Err(GitError::BadArgument(format!("a git URL {why}")));
    if !matches!(url.scheme(), "http" | "https") {
        return bad("must begin with http:// or https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return bad("must not carry credentials");
    }
    if url.host_str().is_none_or(str::is_empty) {
        return bad("must name a host");
    }
    Ok(())
}

/// `[+]SOURCE:DESTINATION` with a ref or a commit as source and a ref as destination ("git-check-ref-format").
fn check_refspec(spec: &str) -> Result<(), GitError> {
    let good_ref = |name: &str| {
        name.starts_with("refs/")
            && name.len() <= 1024
            && !name.ends_with(['/', '.'])
            && !["..", "//", "@{", "/."].iter().any(|t| name.contains(t))
            && !name.split('/').any(|part| part.ends_with(".lock"))
            && !name.chars().any(|c| c.is_control() || " ~^:?[\\".contains(c))
    };
    let ok = spec.strip_prefix('+').unwrap_or(spec).split_once(':').is_some_and(|(from, to)| {
        (good_ref(from) || Sha::new(from).is_ok())
            && good_ref(to)
            && from.matches('*').count() == to.matches('*').count()
    });
    if ok {
        Ok(())
    } else {
        let shown: String = spec.chars().take(80).collect();
        Err(GitError::BadArgument(format!("{shown:?} is no refspec such as +refs/pull/7/head:refs/pull/7/head")))
    }
}

/// The refspec that brings one commit, whether or not a branch still has it, and keeps it.
#[must_use]
pub fn pin_refspec(sha: &Sha) -> String {
    format!("+{sha}:refs/switchover/pin/{sha}")
}

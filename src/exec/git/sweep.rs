//! Tidying up: idle worktrees, refs that nobody needs, packing.

use std::{fs, path::Path, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{GitError, Mirrors, call::Call};
use crate::{
    domain::ids::RepoId,
    exec::files::{Lock, remove_tree},
};

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Worktrees removed.
    pub worktrees: usize,
    /// Refs of old merges and pull requests removed.
    pub refs: usize,
}

/// A worktree unused for so long is removed.
const IDLE: SignedDuration = SignedDuration::from_hours(72);
/// Merges and pull request heads whose commits are older than this are forgotten; a fetch brings them back.
const OLD_REF: SignedDuration = SignedDuration::from_hours(30 * 24);
const GC_LIMIT: Duration = Duration::from_secs(900);

impl Mirrors {
    /// Removes worktrees that nobody used for three days, forgets old merges and pull request heads, clears what dead
    /// processes left half made, and lets git pack where it thinks that due. Safe at any time, beside anything.
    pub async fn sweep(&self) -> Swept {
        let mut swept = Swept::default();
        let Ok(entries) = fs::read_dir(&self.0.root) else { return swept };
        let repos: Vec<RepoId> = entries
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.strip_suffix(".git")?.parse().ok().map(RepoId))
            .collect();
        for repo in repos {
            swept.worktrees += self.remove_idle(repo, Some(crate::clock::now() - IDLE));
            match self.tidy(repo).await {
                Ok(refs) => swept.refs += refs,
                Err(error) => tracing::warn!(repo = repo.0, %error, "mirror could not be tidied up"),
            }
        }
        swept
    }

    async fn tidy(&self, repo: RepoId) -> Result<usize, GitError> {
        let dir = self.dir(repo);
        let refs = {
            let held = self.hold(repo).await?;
            remove_tree(&dir.with_extension("new")).map_err(GitError::io("removing", &dir))?;
            let call = Call::new(Some(&dir)).args(["worktree", "prune", "--expire=now"]);
            call.holding(held.share()).ok(&self.0.root).await?;
            self.forget_old(&dir).await?
        };
        let path = self.gc_lock(repo);
        let packing = Lock::open(&path).map_err(GitError::io("opening", &path))?;
        if packing.try_lock().is_ok() {
            let call = Call::new(Some(&dir)).args(["gc", "--auto", "--quiet"]);
            call.holding(Some(packing)).limit(GC_LIMIT).ok(&self.0.root).await?;
        }
        Ok(refs)
    }

    async fn forget_old(&self, dir: &Path) -> Result<usize, GitError> {
        let call = Call::new(Some(dir)).args([
            "for-each-ref",
            "--format=%(committerdate:unix) %(refname)",
            "refs/switchover/",
            "refs/pull/",
        ]);
        let limit = (crate::clock::now() - OLD_REF).as_second();
        let mut count = 0;
        for line in call.ok(&self.0.root).await?.records(b'\n') {
            let line = String::from_utf8_lossy(line);
            let Some((when, name)) = line.split_once(' ') else { continue };
            if when.parse::<i64>().is_ok_and(|when| when < limit) {
                Call::new(Some(dir)).args(["update-ref", "--no-deref", "-d", name]).ok(&self.0.root).await?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Removes worktrees that nobody holds, and that nobody used since `before` if that is given.
    pub(super) fn remove_idle(&self, repo: RepoId, before: Option<Timestamp>) -> usize {
        let mut count = 0;
        let keys = fs::read_dir(self.pool(repo)).into_iter().flatten().flatten();
        for entry in keys.flat_map(|key| fs::read_dir(key.path()).into_iter().flatten().flatten()) {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "lock") && remove_one(&path, before) {
                count += 1;
            }
        }
        count
    }
}

/// Removes the worktree beside this lock, if it is idle. The lock files stay: removing one that somebody is about to
/// take would give the same worktree out twice.
fn remove_one(lock_path: &Path, before: Option<Timestamp>) -> bool {
    let path = lock_path.with_extension("");
    if !path.exists() {
        return false;
    }
    let Ok(Some(lock)) = Lock::now(lock_path) else { return false };
    let Ok(Some(_steps)) = Lock::now(&lock_path.with_extension("steps")) else { return false };
    let used = lock.touched();
    if before.is_some_and(|before| used.is_none_or(|used| used > before)) {
        return false;
    }
    match remove_tree(&path) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "idle worktree could not be removed");
            false
        }
    }
}

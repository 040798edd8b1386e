//! Pooled worktrees: a second run of the same key finds its files in place and only changes what differs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{GitError, Mirrors, call::Call};
use crate::{
    domain::ids::{Digest, RepoId, Sha},
    exec::files::{Lock, remove_tree},
};

/// A worktree at a commit, ours alone until it is dropped; then it goes back to the pool as it is.
#[derive(Debug)]
pub struct Workspace {
    path: PathBuf,
    steps: PathBuf,
    notes: Vec<String>,
    _lock: Lock,
}

impl Workspace {
    /// The folder with the commit's files.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is not as a person would have it after a clone, in words for the check: submodules, LFS.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// File that the supervisors of its steps hold locked ([`crate::exec::local::StepSpec::hold`]). A worktree whose
    /// last steps are still being ended, by supervisors that outlived a killed server, is not given out.
    #[must_use]
    pub fn steps_lock(&self) -> &Path {
        &self.steps
    }
}

/// More worktrees of one key than this at once are a mistake somewhere.
const MOST: usize = 256;

impl Mirrors {
    pub(super) fn pool(&self, repo: RepoId) -> PathBuf {
        self.0.root.join(format!("{repo}.pool"))
    }

    /// Gives a worktree at `sha`, clean: no file that the commit does not have. The same `pool_key` (app, trust) gets
    /// the same worktrees again. Submodules and LFS files are not fetched; [`Workspace::notes`] says so.
    ///
    /// # Errors
    /// [`GitError::MissingCommit`], [`GitError::Corrupt`], [`GitError::Io`].
    pub async fn checkout(&self, repo: RepoId, sha: &Sha, pool_key: &str) -> Result<Workspace, GitError> {
        if !self.has(repo, sha).await {
            return Err(GitError::MissingCommit(sha.clone()));
        }
        let key = folder_name(pool_key);
        let folder = self.pool(repo).join(&key);
        fs::create_dir_all(&folder).map_err(GitError::io("making", &folder))?;
        for n in 0..MOST {
            let lock_path = folder.join(format!("{n}.lock"));
            let Some(lock) = Lock::now(&lock_path).map_err(GitError::io("locking", &lock_path))? else { continue };
            let steps = folder.join(format!("{n}.steps"));
            if Lock::now(&steps).map_err(GitError::io("locking", &steps))?.is_none() {
                continue;
            }
            let path = folder.join(format!("{n}"));
            let notes = self.prepare(repo, sha, &path).await?;
            lock.touch();
            return Ok(Workspace { path, steps, notes, _lock: lock });
        }
        Err(GitError::Other(format!("{MOST} worktrees of {key} are in use")))
    }

    async fn prepare(&self, repo: RepoId, sha: &Sha, path: &Path) -> Result<Vec<String>, GitError> {
        if self.is_linked(repo, path) {
            match self.reset(path, sha).await {
                Ok(notes) => return Ok(notes),
                Err(e @ (GitError::NoGit(_) | GitError::Unreachable(_))) => return Err(e),
                Err(e) => {
                    tracing::warn!(path = %path.display(), error = %e, "worktree is beyond repair, making it anew")
                }
            }
        }
        self.add(repo, path).await?;
        self.reset(path, sha).await
    }

    /// Whether the folder is a worktree of this very mirror, on both sides.
    fn is_linked(&self, repo: RepoId, path: &Path) -> bool {
        let Some(admin) = admin_folder(path) else { return false };
        admin.parent() == Some(&self.dir(repo).join("worktrees"))
            && admin.join("HEAD").exists()
            && fs::read_to_string(admin.join("gitdir")).is_ok_and(|back| Path::new(back.trim()) == path.join(".git"))
    }

    /// Makes the worktree, empty.
    async fn add(&self, repo: RepoId, path: &Path) -> Result<(), GitError> {
        let held = self.hold(repo).await?;
        remove_tree(path).map_err(GitError::io("removing", path))?;
        let dir = self.dir(repo);
        // What the mirror knows of folders that are gone would be in the way of the same names.
        Call::new(Some(&dir))
            .args(["worktree", "prune", "--expire=now"])
            .holding(held.share())
            .ok(&self.0.root)
            .await?;
        let call = Call::new(Some(&dir))
            .args(["worktree", "add", "--quiet", "--force", "--force", "--detach", "--no-checkout", "--"])
            .arg(path.as_os_str());
        // An unborn HEAD would make an orphan branch: any commit will do, `reset` puts the right one.
        let some = self.any_commit(&dir).await?;
        call.arg(some).holding(held.share()).ok(&self.0.root).await?;
        Ok(())
    }

    async fn any_commit(&self, dir: &Path) -> Result<String, GitError> {
        let call = Call::new(Some(dir)).args(["for-each-ref", "--count=1", "--format=%(objectname)"]);
        let line = call.ok(&self.0.root).await?.line();
        if line.is_empty() { Err(GitError::Corrupt("the mirror has no refs".into())) } else { Ok(line) }
    }

    /// Brings the worktree to the commit, whatever was done to it.
    async fn reset(&self, path: &Path, sha: &Sha) -> Result<Vec<String>, GitError> {
        let home = &self.0.root;
        if let Some(admin) = admin_folder(path) {
            // We hold the worktree alone: locks in it are of dead processes. A sparse checkout would hide files.
            for name in ["index.lock", "HEAD.lock", "info/sparse-checkout", "config.worktree"] {
                let _ = fs::remove_file(admin.join(name));
            }
        }
        // A step may have put HEAD on a branch: detach it first, so that the reset moves no branch.
        Call::within(path).args(["update-ref", "--no-deref", "HEAD", sha.as_str()]).ok(home).await?;
        let reset = || Call::within(path).args(["reset", "--hard", "--quiet", sha.as_str(), "--"]);
        if let Err(e) = reset().limit(CHECKOUT_LIMIT).ok(home).await {
            let Some(admin) = admin_folder(path) else { return Err(e) };
            // A torn index.
            let _ = fs::remove_file(admin.join("index"));
            reset().limit(CHECKOUT_LIMIT).ok(home).await?;
        }
        Call::within(path).args(["clean", "-ffdxq"]).limit(CHECKOUT_LIMIT).ok(home).await?;
        self.notes(path).await
    }

    async fn notes(&self, path: &Path) -> Result<Vec<String>, GitError> {
        let call =
            Call::within(path).args(["ls-files", "-z", "--", ".gitmodules", ".gitattributes", "*/.gitattributes"]);
        let done = call.ok(&self.0.root).await?;
        let mut notes = Vec::new();
        for name in done.records(0).map(String::from_utf8_lossy).take(200) {
            let file = path.join(&*name);
            // A link could lead anywhere.
            if !file.symlink_metadata().is_ok_and(|m| m.is_file() && m.len() < 1024 * 1024) {
                continue;
            }
            if name == ".gitmodules" {
                notes.push("This repository has submodules (.gitmodules); they are not fetched.".to_owned());
            } else if fs::read(&file).is_ok_and(|t| String::from_utf8_lossy(&t).contains("filter=lfs")) {
                notes.push(format!("Files named in {name} are in Git LFS; only their pointers are checked out."));
            }
        }
        Ok(notes)
    }
}

/// Time limit for writing a commit's files.
const CHECKOUT_LIMIT: std::time::Duration = std::time::Duration::from_secs(600);

/// Where the mirror keeps what belongs to this worktree.
pub(crate) fn admin_folder(path: &Path) -> Option<PathBuf> {
    let file = path.join(".git");
    file.symlink_metadata().ok().filter(|m| m.is_file() && m.len() < 10_000)?;
    Some(PathBuf::from(fs::read_to_string(file).ok()?.strip_prefix("gitdir: ")?.trim()))
}

/// The key itself where it makes a good folder name, else its digest.
fn folder_name(key: &str) -> String {
    let good = !key.is_empty()
        && key.len() <= 100
        && key.starts_with(|c: char| c.is_ascii_alphanumeric())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if good { key.to_owned() } else { format!("_{}", Digest::of(key.as_bytes()).short()) }
}

//! Folders kept between runs, and the fresh home of each job.
//!
//! A cache belongs to one app, one trust and one entry of the configuration: `ROOT/REPO/APP/TRUST/DIGEST/NAME`, with the
//! entry's own last name (Node finds packages by it). A link to it stands where the entry says.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use jiff::Timestamp;

use super::files::{Lock, copy_tree, inside, remove_tree, tree_size};
use crate::domain::ids::{AppName, Digest, JobId, RepoId};

/// Why a cache can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A mistake in the configuration.
    #[error("cache {entry:?}: {why}")]
    Entry {
        /// As it stands in the configuration.
        entry: String,
        /// What is wrong with it.
        why: String,
    },
    /// The file system refuses.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// Why not.
        source: io::Error,
    },
}

fn io_error(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let doing = format!("{doing} {}", path.display());
    move |source| CacheError::Io { doing, source }
}

/// All caches below one folder.
#[derive(Debug, Clone)]
pub struct Caches {
    root: PathBuf,
}

/// A cache as it lies on disk.
#[derive(Debug, Clone)]
pub struct CacheFolder {
    folder: PathBuf,
    /// What it holds, in bytes on disk.
    pub bytes: u64,
    /// When a job last used it.
    pub used: Timestamp,
}

/// Caches in use. While it lives, nobody takes a copy of them or sweeps them away.
#[derive(Debug)]
pub struct CacheUse {
    _locks: Vec<Lock>,
    folders: Vec<PathBuf>,
}

impl CacheUse {
    /// Where the links lead to.
    #[must_use]
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }
}

/// Where the caches of one job lie and where they are to be seen.
#[derive(Debug, Clone, Copy)]
pub struct CacheJob<'a> {
    /// Whose repository.
    pub repo: RepoId,
    /// Whose steps.
    pub app: &'a AppName,
    /// `release`, `release-BRANCH`, `own`: code of another trust never sees these folders.
    pub trust: &'a str,
    /// Trust whose cache is copied when this one is empty; it is only ever read.
    pub seed: Option<&'a str>,
    /// The job's home, where `~/x` entries go.
    pub home: &'a Path,
    /// The app's folder in the workspace, where the others go.
    pub app_dir: &'a Path,
}

impl Caches {
    /// Caches below `root`, which is made when needed.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root: std::path::absolute(&root).unwrap_or(root) }
    }

    /// Puts the job's caches in their places. Several jobs of one app and trust use the same folders at once, as a
    /// person's shells would. Blocks; a first copy may take a while.
    ///
    /// # Errors
    /// [`CacheError::Entry`] for an entry that leads out of its place or into what the commit already has.
    pub fn prepare(&self, job: &CacheJob<'_>, entries: &[String]) -> Result<CacheUse, CacheError> {
        let (mut locks, mut folders) = (Vec::new(), Vec::new());
        for entry in entries {
            let bad = |why: &str| CacheError::Entry { entry: entry.clone(), why: why.to_owned() };
            let (base, rest) = match entry.strip_prefix("~/") {
                Some(rest) => (job.home, rest),
                None => (job.app_dir, entry.as_str()),
            };
            let path = inside(rest).ok_or_else(|| bad("only folders below ~/ or below the app's folder are kept"))?;
            let Some(name) = path.file_name().filter(|n| *n != ".git") else {
                return Err(bad("names no folder of its own, such as ~/.m2/repository or node_modules"));
            };
            let key = Digest::of(entry.trim_end_matches('/').as_bytes());
            let folder = self.folder(job, job.trust).join(key.short());
            let store = folder.join(name);
            let source = job.seed.map(|seed| self.folder(job, seed).join(key.short()));
            locks.push(ready(&folder, &store, source.as_deref())?);
            place(base, &path, &store).map_err(|e| match e {
                PlaceError::Occupied => bad("the commit already has something of that name there"),
                PlaceError::Link => bad("a folder on the way there is a link or a file"),
                PlaceError::Io(path, source) => io_error("linking", &path)(source),
            })?;
            folders.push(store);
        }
        Ok(CacheUse { _locks: locks, folders })
    }

    fn folder(&self, job: &CacheJob<'_>, trust: &str) -> PathBuf {
        let good = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        let trust = if !trust.is_empty() && trust.len() < 64 && trust.chars().all(good) {
            trust.to_owned()
        } else {
            format!("_{}", Digest::of(trust.as_bytes()).short())
        };
        self.root.join(job.repo.to_string()).join(job.app.as_str()).join(trust)
    }

    /// The folders of all caches, used or not.
    fn all(&self) -> Vec<PathBuf> {
        let level = |dirs: Vec<PathBuf>| -> Vec<PathBuf> {
            dirs.iter().flat_map(|d| fs::read_dir(d).into_iter().flatten().flatten().map(|e| e.path())).collect()
        };
        level(level(level(level(vec![self.root.clone()]))))
    }

    /// All caches with their sizes. Blocks, for as long as it takes to look at every file.
    #[must_use]
    pub fn folders(&self) -> Vec<CacheFolder> {
        let with_size = |folder: PathBuf| {
            let modified = fs::metadata(folder.join("lock")).and_then(|m| m.modified()).ok()?;
            let used = Timestamp::try_from(modified).ok()?;
            Some(CacheFolder { bytes: tree_size(&folder), folder, used })
        };
        self.all().into_iter().filter_map(with_size).filter(|c| c.bytes > 0).collect()
    }

    /// Empties a cache, unless a job uses it. Answers whether it did. Blocks.
    #[must_use]
    pub fn forget(&self, cache: &CacheFolder) -> bool {
        remove_unused(&cache.folder)
    }

    /// Removes caches that no job used for `idle`. Blocks.
    pub fn sweep(&self, idle: Duration) -> usize {
        let limit = SystemTime::from(crate::clock::now()).checked_sub(idle);
        let folders = self.all();
        let old = |folder: &PathBuf| {
            let used = fs::metadata(folder.join("lock")).and_then(|m| m.modified()).ok();
            used.zip(limit).is_some_and(|(used, limit)| used <= limit)
        };
        folders.into_iter().filter(old).filter(|folder| remove_unused(folder)).count()
    }

    /// Forgets a repository's caches. Blocks.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn remove(&self, repo: RepoId) -> Result<(), CacheError> {
        let path = self.root.join(repo.to_string());
        remove_tree(&path).map_err(io_error("removing", &path))
    }
}

/// Sees to it that the cache is there, and holds it. Making it is for one; the others wait.
fn ready(folder: &Path, store: &Path, source: Option<&Path>) -> Result<Lock, CacheError> {
    fs::create_dir_all(folder).map_err(io_error("making", folder))?;
    let path = folder.join("lock");
    loop {
        if store.exists() {
            let lock = Lock::shared(&path).map_err(io_error("locking", &path))?;
            // The sweeper may have been faster.
            if store.exists() {
                lock.touch();
                return Ok(lock);
            }
        } else {
            let _alone = Lock::wait(&path).map_err(io_error("locking", &path))?;
            if !store.exists() {
                seed(source, folder, store)?;
            }
        }
    }
}

/// Removes a cache, unless somebody uses it. The lock file stays, so that it is the same one for everybody.
fn remove_unused(folder: &Path) -> bool {
    let Ok(Some(_lock)) = Lock::now(&folder.join("lock")) else { return false };
    let entries: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().collect();
    let mut any = false;
    for path in entries.iter().map(fs::DirEntry::path).filter(|p| p.file_name().is_some_and(|n| n != "lock")) {
        match remove_tree(&path) {
            Ok(()) => any = true,
            Err(error) => tracing::warn!(path = %path.display(), %error, "old cache could not be removed"),
        }
    }
    any
}

/// Fills an empty cache from another one, if that lies still. Done beside and moved: a cache that has its name is whole.
fn seed(source: Option<&Path>, folder: &Path, store: &Path) -> Result<(), CacheError> {
    let beside = folder.join("new");
    remove_tree(&beside).map_err(io_error("removing", &beside))?;
    let from = source.and_then(|s| Some((s, s.join(store.file_name()?)))).filter(|(_, from)| from.is_dir());
    if let Some((source, from)) = from {
        // In use: a torn copy is worse than none.
        if let Some(_lock) = Lock::now(&source.join("lock")).map_err(io_error("locking", source))? {
            copy_tree(&from, &beside).map_err(io_error("copying", &from))?;
        }
    }
    fs::create_dir_all(&beside).map_err(io_error("making", &beside))?;
    fs::rename(&beside, store).map_err(io_error("making", store))
}

enum PlaceError {
    Occupied,
    Link,
    Io(PathBuf, io::Error),
}

/// Puts the link at `base/path`. No folder on the way may be a link: that could lead anywhere.
fn place(base: &Path, path: &Path, store: &Path) -> Result<(), PlaceError> {
    let mut at = base.to_owned();
    let parts: Vec<_> = path.iter().collect();
    let (last, way) = parts.split_last().ok_or(PlaceError::Occupied)?;
    for part in way {
        at.push(part);
        match fs::symlink_metadata(&at) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(PlaceError::Link),
            Err(_) => fs::create_dir(&at).map_err(|e| PlaceError::Io(at.clone(), e))?,
        }
    }
    at.push(last);
    match symlink(store, &at) {
        Ok(()) => Ok(()),
        // A pooled worktree or a step before may have left our own link.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            if fs::read_link(&at).is_ok_and(|to| to == store) {
                Ok(())
            } else {
                Err(PlaceError::Occupied)
            }
        }
        Err(e) => Err(PlaceError::Io(at, e)),
    }
}

/// The home folder of one job: empty at its begin, gone at its end.
#[derive(Debug)]
pub struct JobHome {
    path: PathBuf,
}

impl JobHome {
    /// Makes it below `root`, for the server's user alone. What an earlier attempt left is removed.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn create(root: &Path, job: JobId) -> Result<Self, CacheError> {
        let root = std::path::absolute(root).map_err(io_error("making", root))?;
        let path = root.join(job.to_string());
        remove_tree(&path).map_err(io_error("removing", &path))?;
        fs::create_dir_all(&root).map_err(io_error("making", &root))?;
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(io_error("making", &path))?;
        Ok(Self { path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes all homes: for the start of the server, when no step runs.
    pub fn sweep(root: &Path) -> usize {
        let homes = fs::read_dir(root).into_iter().flatten().flatten();
        homes.filter(|home| remove_tree(&home.path()).is_ok()).count()
    }
}

impl Drop for JobHome {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "home of a job could not be removed");
        }
    }
}

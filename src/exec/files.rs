//! Small helpers for folders that hostile or careless steps have written to.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

use jiff::Timestamp;

/// A lock on a file (flock(2)), let go when dropped. Explicitly: a process that another thread is just starting has a
/// copy of every open file until it becomes its program, and would hold on to the lock for that moment.
#[derive(Debug)]
pub(crate) struct Lock(fs::File);

impl Lock {
    /// Opens the file, or makes it, without locking it.
    pub(crate) fn open(path: &Path) -> io::Result<fs::File> {
        fs::File::options().create(true).truncate(false).write(true).mode(0o600).open(path)
    }

    /// Ours alone, or none when somebody else has it.
    pub(crate) fn now(path: &Path) -> io::Result<Option<Self>> {
        let file = Self::open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(e)) => Err(e),
        }
    }

    /// Ours alone; waits for it.
    pub(crate) fn wait(path: &Path) -> io::Result<Self> {
        let file = Self::open(path)?;
        file.lock()?;
        Ok(Self(file))
    }

    /// Ours and others'; waits until nobody has it alone.
    pub(crate) fn shared(path: &Path) -> io::Result<Self> {
        let file = Self::open(path)?;
        file.lock_shared()?;
        Ok(Self(file))
    }

    /// Sets the file's time to now: when it was last used.
    pub(crate) fn touch(&self) {
        // Only a hint for the sweeper.
        let _ = self.0.set_modified(std::time::SystemTime::from(crate::clock::now()));
    }

    /// When it was last used.
    pub(crate) fn touched(&self) -> Option<Timestamp> {
        Timestamp::try_from(self.0.metadata().ok()?.modified().ok()?).ok()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// Removes a folder and all below it, also where it is not writable (Go's module cache). Nothing there: fine.
/// Symbolic links are removed, never followed.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
        Ok(meta) if !meta.is_dir() => return fs::remove_file(path),
        Ok(_) => {}
    }
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => {
            open_up(path);
            fs::remove_dir_all(path)
        }
    }
}

/// Makes every folder below writable for us, as far as that is possible.
fn open_up(path: &Path) {
    let mut todo = vec![path.to_owned()];
    while let Some(dir) = todo.pop() {
        let _ = fs::set_permissions(&dir, fs::Permissions::from_mode(0o700));
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        todo.extend(entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
    }
}

/// Copies a folder with its modes, times and links as they are. Links are copied, never followed; pipes, sockets and
/// devices are left out. Where the file system can, contents are shared and not copied (copy_file_range(2)).
pub(crate) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let meta = entry.metadata()?;
        if meta.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
        } else if meta.is_dir() {
            copy_tree(&source, &target)?;
        } else if meta.is_file() {
            fs::copy(&source, &target)?;
            // Opened for reading: a file may be read-only, and times can be set all the same.
            fs::File::open(&target)?.set_modified(meta.modified()?)?;
        }
    }
    let meta = fs::metadata(from)?;
    fs::File::open(to)?.set_modified(meta.modified()?)?;
    fs::set_permissions(to, meta.permissions())
}

/// What lies below a folder, in bytes on disk. Links are not followed; what vanishes meanwhile is not counted.
pub(crate) fn tree_size(path: &Path) -> u64 {
    let (mut bytes, mut left) = (0_u64, vec![path.to_owned()]);
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            bytes = bytes.saturating_add(meta.blocks().saturating_mul(512));
            if meta.is_dir() {
                left.push(entry.path());
            }
        }
    }
    bytes
}

/// The path if it stays below the folder that it is read from: relative, and with no `..`.
pub(crate) fn inside(path: &str) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!path.contains('\0')).then_some(clean)
}

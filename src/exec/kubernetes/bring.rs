//! Packs a step's folders for its pod.
//!
//! Steps of other jobs may be at work in a cache meanwhile (or what they left is being unpacked there), and would gladly
//! have another folder of the server's packed: every folder is entered by its descriptor, and links are never followed.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{AtFlags, OFlag, open, openat, readlinkat},
    sys::stat::{FileStat, Mode, SFlag, fstatat},
};
use tar::{Builder, EntryType, Header};

use super::scripts::{SHARED, USER};

const FOLDER: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// A file that became a pipe meanwhile must not make us wait.
const FILE: OFlag = OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);

/// What is packed.
#[derive(Debug, Clone)]
pub(super) struct Load {
    /// Folders with all that is in them, at the same paths as here.
    pub(super) folders: Vec<PathBuf>,
    /// The repository's mirror, and the worktree's own folder in it.
    pub(super) mirror: Option<(PathBuf, PathBuf)>,
    /// Folders that are there already in the pod, and not ours to touch.
    pub(super) mounts: Vec<PathBuf>,
}

/// What was packed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Files that we may not read.
    pub(super) unread: Vec<String>,
}

/// Packs all of it as a tar stream. Blocks.
pub(super) fn pack<W: Write>(load: &Load, into: W) -> io::Result<Packed> {
    let mut packer = Packer { tar: Builder::new(into), packed: Packed::default(), load };
    for folder in &load.folders {
        let top = match open(folder, FOLDER, Mode::empty()) {
            Ok(top) => top,
            Err(nix::errno::Errno::ENOENT) => continue,
            Err(e) => return Err(e.into()),
        };
        packer.folder(&top, folder, &|_| true)?;
    }
    if let Some((mirror, own)) = &load.mirror {
        let top = open(mirror, FOLDER, Mode::empty())?;
        let worktrees = mirror.join("worktrees");
        packer.folder(&top, mirror, &|path| {
            let others = path.parent() == Some(&worktrees) && path != own;
            !others && path != mirror.join("hooks") && path.extension() != Some(OsStr::new("lock"))
        })?;
    }
    // The last one: with it, all of them are there.
    packer.header(EntryType::Regular, 0, 0o644, 0, Path::new(SHARED).join("in").as_path(), io::empty())?;
    let Packer { tar, packed, .. } = packer;
    tar.into_inner()?.flush()?;
    Ok(packed)
}

struct Packer<'a, W: Write> {
    tar: Builder<W>,
    packed: Packed,
    load: &'a Load,
}

impl<W: Write> Packer<'_, W> {
    fn header(
        &mut self,
        kind: EntryType,
        size: u64,
        mode: u32,
        time: i64,
        path: &Path,
        data: impl Read,
    ) -> io::Result<()> {
        let mut header = head(kind, size, mode, time);
        self.tar.append_data(&mut header, relative(path), data)
    }

    /// A folder that is open, and all in it that `wanted` lets in.
    fn folder(&mut self, folder: &OwnedFd, path: &Path, wanted: &dyn Fn(&Path) -> bool) -> io::Result<()> {
        let meta = nix::sys::stat::fstat(folder)?;
        if !self.load.mounts.iter().any(|m| m == path) {
            // Whatever unpacks it must be able to write in it.
            self.header(EntryType::Directory, 0, meta.st_mode & 0o777 | 0o700, meta.st_mtime, path, io::empty())?;
        }
        let mut names: Vec<_> = Vec::new();
        // By its descriptor: the path may lead elsewhere by now.
        for entry in fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()))? {
            names.push(entry?.file_name());
        }
        names.sort();
        for name in names {
            let path = path.join(&name);
            if wanted(&path) {
                self.entry(folder.as_fd(), &name, &path, wanted)?;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        wanted: &dyn Fn(&Path) -> bool,
    ) -> io::Result<()> {
        // Gone meanwhile: somebody else's cache is at work.
        let Ok(meta) = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) else { return Ok(()) };
        match kind(&meta) {
            SFlag::S_IFDIR => match openat(folder, name, FOLDER, Mode::empty()) {
                Ok(below) => self.folder(&below, path, wanted),
                Err(_) => self.unread(path),
            },
            SFlag::S_IFLNK => {
                let Ok(to) = readlinkat(folder, name) else { return Ok(()) };
                let mut header = head(EntryType::Symlink, 0, 0o777, meta.st_mtime);
                self.packed.files += 1;
                self.tar.append_link(&mut header, relative(path), &to)
            }
            SFlag::S_IFREG => {
                let Ok(file) = openat(folder, name, FILE, Mode::empty()) else { return self.unread(path) };
                let file = File::from(file);
                let meta = file.metadata()?;
                if !meta.is_file() {
                    return Ok(());
                }
                let size = meta.len();
                self.packed.files += 1;
                self.packed.bytes += size;
                // It may grow or shrink meanwhile; the header has said its size.
                let exact = file.chain(io::repeat(0)).take(size);
                self.header(EntryType::Regular, size, meta.mode() & 0o777, meta.mtime(), path, exact)
            }
            // Pipes, sockets and devices belong to who made them.
            _ => Ok(()),
        }
    }

    fn unread(&mut self, path: &Path) -> io::Result<()> {
        self.packed.unread.push(path.display().to_string());
        Ok(())
    }
}

fn kind(meta: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(meta.st_mode & SFlag::S_IFMT.bits())
}

fn head(kind: EntryType, size: u64, mode: u32, time: i64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(u64::try_from(time).unwrap_or(0));
    header.set_uid(u64::from(USER));
    header.set_gid(u64::from(USER));
    header
}

/// As it stands in the stream, which is unpacked at the root.
fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

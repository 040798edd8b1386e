//! Puts what a pod packed back into a folder of this host, and nowhere else.
//!
//! Every folder on the way is entered by its descriptor and never through a link; a file appears under its name when it
//! is whole. Files are the server's own, whoever they were in the pod, and nobody becomes somebody else by running them.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    fs::{self, File},
    hash::{BuildHasher, RandomState},
    io::{self, BufRead, Read},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat, renameat},
    sys::stat::{Mode, SFlag, UtimensatFlags, fchmod, fstatat, futimens, mkdirat, utimensat},
    sys::time::TimeSpec,
    unistd::{LinkatFlags, UnlinkatFlags, linkat, symlinkat, unlinkat},
};

use super::{
    scripts::DONE,
    stream::{self, Head, Kind},
};

const FOLDER: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
const FRESH: OFlag =
    OFlag::O_WRONLY.union(OFlag::O_CREAT).union(OFlag::O_EXCL).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// Names of all that is there may take this much.
const LIST: u64 = 1 << 30;
/// The longest name of that list.
const NAME: u64 = 64 * 1024;

/// One folder that something is taken back into.
#[derive(Debug, Clone, Copy)]
pub struct Back<'a> {
    /// Where it is here.
    pub folder: &'a Path,
    /// Whether what is gone there goes here too. Not so in caches, which others use at the same time.
    pub mirrored: bool,
    /// The most bytes that may come.
    pub limit: u64,
}

/// What came.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Files and links.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What went here because it was gone there.
    pub removed: u64,
}

/// Why it was not taken, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// More came than may.
    #[error("more than {0} bytes came back")]
    TooMuch(u64),
    /// The stream was cut off; it may come whole another time.
    #[error("the stream ended before its end")]
    Cut,
    /// The other side could not pack it.
    #[error("tar ended with exit code {0}")]
    Packing(i32),
    /// Names that lead elsewhere, or no tar stream.
    #[error("{0}")]
    Hostile(String),
    /// This host's disk.
    #[error("writing {place}: {source}")]
    Disk {
        /// What.
        place: String,
        /// Why not.
        source: io::Error,
    },
}

/// Unpacks one stream of [`super::scripts::TAKE`]. Blocks.
///
/// # Errors
/// [`TakeError`]. What came before it is there.
pub fn unpack(from: impl Read, back: &Back<'_>) -> Result<Taken, TakeError> {
    let mut from = io::BufReader::with_capacity(64 * 1024, from);
    let top = open(back.folder, FOLDER, Mode::empty())
        .map_err(|e| TakeError::Disk { place: back.folder.display().to_string(), source: e.into() })?;
    let mut first = Vec::new();
    (&mut from).take(16).read_until(b'\n', &mut first).map_err(|_| TakeError::Cut)?;
    let mut there = There::default();
    let listed = match first.as_slice() {
        b"changed\n" => {
            there.read_list(&mut from)?;
            true
        }
        b"all\n" => false,
        cut if cut.len() < 8 && !cut.ends_with(b"\n") => return Err(TakeError::Cut),
        _ => return Err(TakeError::Hostile("it is no answer of ours".into())),
    };
    let mut writer = Writer { top, at: None, taken: Taken::default(), back, failed: None };
    let mut rest = Ends { from: &mut from, ended: false };
    let read = stream::read(&mut rest, |head, data| {
        if !listed {
            there.add(head.parts.iter().map(Vec::as_slice));
        }
        writer.entry(&head, data)
    });
    if let Some(failed) = writer.failed.take() {
        return Err(failed);
    }
    match read {
        Ok(()) => {}
        // Whatever it says: there was no more to read.
        Err(_) if rest.ended => return Err(TakeError::Cut),
        Err(e) => return Err(TakeError::Hostile(e.to_string())),
    }
    // 1: something changed while it was read ("tar: Exit status"), which background processes may do.
    match last_word(&mut from)? {
        0 | 1 => {}
        code => return Err(TakeError::Packing(code)),
    }
    let Writer { top, mut taken, .. } = writer;
    if back.mirrored {
        let gone = there.forget_others(&top, &mut Vec::new());
        taken.removed = gone.map_err(|source| TakeError::Disk { place: back.folder.display().to_string(), source })?;
    }
    Ok(taken)
}

/// Knows whether the other side has ended.
struct Ends<R> {
    from: R,
    ended: bool,
}

impl<R: Read> Read for Ends<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(into)?;
        self.ended |= n == 0 && !into.is_empty();
        Ok(n)
    }
}

/// What is behind the stream's end mark: padding, then our last word with the exit code.
fn last_word(from: &mut impl Read) -> Result<i32, TakeError> {
    let mut last = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => last.extend_from_slice(&buffer[..n]),
            Err(_) => return Err(TakeError::Cut),
        }
        last.drain(..last.len().saturating_sub(64));
    }
    let at = last.windows(DONE.len()).rposition(|w| w == DONE).ok_or(TakeError::Cut)?;
    let code = last[at + DONE.len()..].strip_suffix(b"\n").and_then(|code| std::str::from_utf8(code).ok());
    code.and_then(|code| code.parse().ok()).ok_or(TakeError::Cut)
}

/// What is there in the pod, by the names' hashes: with a secret key, so that nobody can make two names the same.
#[derive(Default)]
struct There {
    key: RandomState,
    names: HashSet<u64>,
}

impl There {
    fn hash<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
        self.key.hash_one(parts.into_iter().collect::<Vec<_>>())
    }

    fn add<'a>(&mut self, parts: impl IntoIterator<Item = &'a [u8]>) {
        let parts: Vec<&[u8]> = parts.into_iter().collect();
        // With it, its folders.
        for n in 1..=parts.len() {
            let hash = self.hash(parts[..n].iter().copied());
            self.names.insert(hash);
        }
    }

    /// Names that end with a zero each, and an empty one at the end.
    fn read_list(&mut self, from: &mut impl BufRead) -> Result<(), TakeError> {
        let mut left = LIST;
        loop {
            let mut name = Vec::new();
            let n = from.take(NAME).read_until(0, &mut name).map_err(|_| TakeError::Cut)? as u64;
            if name.pop() != Some(0) {
                return Err(if n == NAME {
                    TakeError::Hostile("a name without an end".into())
                } else {
                    TakeError::Cut
                });
            }
            if name.is_empty() {
                return Ok(());
            }
            left = left.checked_sub(n).ok_or_else(|| TakeError::Hostile("more names than a disk holds".into()))?;
            if let Some(parts) = stream::parts(&name) {
                let hash = self.hash(parts.iter().map(Vec::as_slice));
                self.names.insert(hash);
            }
        }
    }

    /// Removes what is here and not there, below a folder at `path`.
    fn forget_others(&self, folder: &OwnedFd, path: &mut Vec<Vec<u8>>) -> io::Result<u64> {
        let mut gone = 0;
        for name in names(folder)? {
            if path.is_empty() && name == ".git" {
                continue;
            }
            path.push(name.as_bytes().to_vec());
            if !self.names.contains(&self.hash(path.iter().map(Vec::as_slice))) {
                remove(folder, &name)?;
                gone += 1;
            } else if let Ok(below) = openat(folder.as_fd(), name.as_os_str(), FOLDER, Mode::empty()) {
                gone += self.forget_others(&below, path)?;
            }
            path.pop();
        }
        Ok(gone)
    }
}

/// By its descriptor: the path may lead elsewhere by now.
fn names(folder: &OwnedFd) -> io::Result<Vec<OsString>> {
    fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()))?.map(|e| Ok(e?.file_name())).collect()
}

/// Removes what has that name, with all below it. Nothing there: fine.
fn remove(folder: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(folder.as_fd(), name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        // Linux says EISDIR, POSIX EPERM (unlink(2)).
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(e) => return Err(e.into()),
    }
    let below = openat(folder.as_fd(), name, FOLDER, Mode::empty())?;
    let _ = fchmod(&below, Mode::S_IRWXU);
    for name in names(&below)? {
        remove(&below, &name)?;
    }
    match unlinkat(folder.as_fd(), name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

struct Writer<'a> {
    top: OwnedFd,
    /// The folder of the last entry, open.
    at: Option<(Vec<Vec<u8>>, OwnedFd)>,
    taken: Taken,
    back: &'a Back<'a>,
    /// What is not for tar's reader to say.
    failed: Option<TakeError>,
}

fn hostile(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn show(parts: &[Vec<u8>]) -> String {
    let text: String = String::from_utf8_lossy(&parts.join(&b'/')).chars().take(200).collect();
    format!("{text:?}")
}

impl Writer<'_> {
    fn entry(&mut self, head: &Head, data: &mut dyn Read) -> io::Result<()> {
        let Some((name, folders)) = head.parts.split_last() else { return Ok(()) };
        // The worktree's own tie to its mirror is ours.
        if head.parts[0] == b".git" && self.back.mirrored {
            return Ok(());
        }
        let name = OsStr::from_bytes(name);
        self.enter(folders)?;
        let (_, folder) = self.at.as_ref().ok_or_else(|| io::Error::other("no folder"))?;
        let written = match &head.kind {
            Kind::Folder => make_folder(folder, name, head.mode),
            Kind::File(size) => {
                self.taken.bytes = self.taken.bytes.saturating_add(*size);
                if self.taken.bytes > self.back.limit {
                    self.failed = Some(TakeError::TooMuch(self.back.limit));
                    return Err(io::ErrorKind::Other.into());
                }
                self.taken.files += 1;
                write_file(folder, name, head, *size, data)
            }
            Kind::Link(to) => {
                self.taken.files += 1;
                make_link(folder, name, to, head.time)
            }
            Kind::Same(first) => {
                self.taken.files += 1;
                let first = first.clone();
                return self.same(&first, name, &head.parts);
            }
            // A step's sockets and pipes end with it.
            Kind::Other => Ok(()),
        };
        self.at = match &head.kind {
            // What was open may have been replaced.
            Kind::Folder => None,
            _ => self.at.take(),
        };
        written.map_err(|e| self.disk(&head.parts, e))
    }

    /// Opens the folder of an entry; folders that are not there are made.
    fn enter(&mut self, folders: &[Vec<u8>]) -> io::Result<()> {
        if self.at.as_ref().is_some_and(|(at, _)| at == folders) {
            return Ok(());
        }
        let mut folder = self.top.try_clone()?;
        for n in 0..folders.len() {
            let name = OsStr::from_bytes(&folders[n]);
            folder = match openat(folder.as_fd(), name, FOLDER, Mode::empty()) {
                Ok(below) => below,
                Err(Errno::ENOENT) => {
                    make_folder(&folder, name, 0o755).map_err(|e| self.disk(&folders[..=n], e))?;
                    openat(folder.as_fd(), name, FOLDER, Mode::empty())?
                }
                Err(Errno::ELOOP | Errno::ENOTDIR) => {
                    return Err(hostile(format!("something lies below {}, which is no folder", show(&folders[..=n]))));
                }
                Err(e) => return Err(self.disk(&folders[..=n], e.into())),
            };
        }
        self.at = Some((folders.to_vec(), folder));
        Ok(())
    }

    /// Another name of a file that is here.
    fn same(&mut self, first: &[Vec<u8>], name: &OsStr, parts: &[Vec<u8>]) -> io::Result<()> {
        let Some((_, target)) = self.at.take() else { return Ok(()) };
        let Some((first_name, folders)) = first.split_last() else { return Ok(()) };
        self.enter(folders)?;
        let Some((_, source)) = &self.at else { return Ok(()) };
        let first_name = OsStr::from_bytes(first_name);
        let is_file = fstatat(source, first_name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|m| m.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits());
        if !is_file {
            return Err(hostile(format!("{} is another name of {}, which is no file", show(parts), show(first))));
        }
        if first == parts {
            return Ok(());
        }
        let linked = remove(&target, name)
            .and_then(|()| Ok(linkat(source.as_fd(), first_name, target.as_fd(), name, LinkatFlags::empty())?));
        linked.map_err(|e| self.disk(parts, e))
    }

    fn disk(&mut self, parts: &[Vec<u8>], source: io::Error) -> io::Error {
        if matches!(source.kind(), io::ErrorKind::UnexpectedEof) {
            return source;
        }
        self.failed.get_or_insert(TakeError::Disk { place: show(parts), source });
        io::ErrorKind::Other.into()
    }
}

/// Steps may leave folders that not even they can write in (Go's module cache); we must be able to.
fn make_folder(folder: &OwnedFd, name: &OsStr, mode: u32) -> io::Result<()> {
    let mode = Mode::from_bits_truncate(mode & 0o777 | 0o700);
    match openat(folder.as_fd(), name, FOLDER, Mode::empty()) {
        Ok(there) => return Ok(fchmod(&there, mode)?),
        Err(Errno::ENOENT) => {}
        Err(Errno::ELOOP | Errno::ENOTDIR) => remove(folder, name)?,
        Err(e) => return Err(e.into()),
    }
    match mkdirat(folder.as_fd(), name, mode) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(e) => return Err(e.into()),
    }
    let made = openat(folder.as_fd(), name, FOLDER, Mode::empty())?;
    Ok(fchmod(&made, mode)?)
}

/// A name beside, until it is whole.
fn beside() -> OsString {
    OsString::from(format!(".switchover-{}", uuid::Uuid::new_v4().simple()))
}

fn write_file(folder: &OwnedFd, name: &OsStr, head: &Head, size: u64, data: &mut dyn Read) -> io::Result<()> {
    let new = beside();
    let file = File::from(openat(folder.as_fd(), new.as_os_str(), FRESH, Mode::S_IRUSR | Mode::S_IWUSR)?);
    let written = (|| {
        let mut out = &file;
        if io::copy(&mut data.take(size), &mut out)? != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        fchmod(&file, Mode::from_bits_truncate(head.mode))?;
        let time = TimeSpec::new(head.time, 0);
        futimens(&file, &time, &time)?;
        place(folder, &new, name)
    })();
    if written.is_err() {
        let _ = unlinkat(folder.as_fd(), new.as_os_str(), UnlinkatFlags::NoRemoveDir);
    }
    written
}

fn make_link(folder: &OwnedFd, name: &OsStr, to: &Path, time: i64) -> io::Result<()> {
    let new = beside();
    symlinkat(to, folder.as_fd(), new.as_os_str())?;
    let time = TimeSpec::new(time, 0);
    let _ = utimensat(folder.as_fd(), new.as_os_str(), &time, &time, UtimensatFlags::NoFollowSymlink);
    let placed = place(folder, &new, name);
    if placed.is_err() {
        let _ = unlinkat(folder.as_fd(), new.as_os_str(), UnlinkatFlags::NoRemoveDir);
    }
    placed
}

/// Gives what is whole its name. A folder of that name goes.
fn place(folder: &OwnedFd, new: &OsStr, name: &OsStr) -> io::Result<()> {
    match renameat(folder.as_fd(), new, folder.as_fd(), name) {
        Ok(()) => Ok(()),
        Err(Errno::EISDIR | Errno::ENOTEMPTY | Errno::EEXIST) => {
            remove(folder, name)?;
            Ok(renameat(folder.as_fd(), new, folder.as_fd(), name)?)
        }
        Err(e) => Err(e.into()),
    }
}

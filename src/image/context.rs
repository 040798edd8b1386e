//! The build context: what of the workspace is sent to the builder.
//!
//! Sorted, with fixed owners and times, so that the same workspace makes the same bytes; streamed, so that it never
//! lies on the disk a second time. Links are sent as links and never followed.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::{
    error::ImageError,
    ignore::{Ignore, MAX_IGNORE},
};

/// The Dockerfile's name in the context where it lies outside of it or was made up.
pub(super) const FOREIGN: &str = ".switchover.Dockerfile";
/// How much is collected before it is sent on, in bytes.
const CHUNK: usize = 64 * 1024;

/// A build context, found and checked but not read yet.
#[derive(Debug, Clone)]
pub struct Context {
    root: PathBuf,
    ignore: Ignore,
    /// The Dockerfile's name in the tar.
    pub dockerfile: String,
    /// Its text, where it is not a file of the context.
    foreign: Option<String>,
    times: u64,
}

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Files, links and folders.
    pub entries: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

/// A file or folder of the workspace: nothing outside of it, not even by a link.
///
/// # Errors
/// [`ImageError::Context`].
pub fn inside(workspace: &Path, path: &str) -> Result<PathBuf, ImageError> {
    let unreadable =
        |e: io::Error| ImageError::Unreadable { path: workspace.display().to_string(), why: e.to_string() };
    let root = workspace.canonicalize().map_err(unreadable)?;
    let shown: String = path.chars().take(200).collect();
    match root.join(path).canonicalize() {
        Ok(found) if found.starts_with(&root) => Ok(found),
        Ok(_) => {
            Err(ImageError::Context(format!("{shown} leads out of the repository, which an image can't be built from")))
        }
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(ImageError::Context(format!("{shown} is not there")))
        }
        Err(e) => Err(ImageError::Unreadable { path: shown, why: e.to_string() }),
    }
}

impl Context {
    /// Finds the context `folder` of the workspace and its ignore file. `dockerfile` is the path from the workspace's
    /// root, or None for one that was made up; `text` is what stands in it, `generic` patterns to leave out where the
    /// repository has no ignore file.
    ///
    /// # Errors
    /// [`ImageError::Context`] and [`ImageError::Unreadable`].
    pub fn open(
        workspace: &Path,
        folder: &str,
        dockerfile: Option<&str>,
        text: &str,
        generic: &str,
        created: Timestamp,
    ) -> Result<Self, ImageError> {
        let root = inside(workspace, folder)?;
        if !root.is_dir() {
            return Err(ImageError::Context(format!("{folder} is no folder, and the build context must be one")));
        }
        let below = match dockerfile {
            Some(path) => inside(workspace, path)?.strip_prefix(&root).ok().map(Path::to_path_buf),
            None => None,
        };
        let (name, foreign) = match below.as_deref().and_then(Path::to_str) {
            Some(name) => (name.to_owned(), None),
            None => (FOREIGN.to_owned(), Some(text.to_owned())),
        };
        // An ignore file of the Dockerfile's own goes before that of the context.
        let own =
            dockerfile.map(|path| (format!("{path}.dockerignore"), workspace.join(format!("{path}.dockerignore"))));
        let shared = Some((".dockerignore".to_owned(), root.join(".dockerignore")));
        let mut ignore = None;
        for (shown, path) in own.into_iter().chain(shared) {
            if let Some(text) = small_text(workspace, &path, &shown)? {
                let read = Ignore::read(&text);
                ignore = Some(read.map_err(|(line, why)| ImageError::Context(format!("{shown} line {line}: {why}")))?);
                break;
            }
        }
        let ignore = match ignore {
            Some(ignore) => ignore,
            None => Ignore::read(generic).map_err(|(line, why)| ImageError::Context(format!("line {line}: {why}")))?,
        };
        let times = u64::try_from(created.as_second()).unwrap_or_default();
        Ok(Self { root, ignore, dockerfile: name, foreign, times })
    }

    /// Sends the context as a tar. Blocks; ends early when nobody listens any more.
    ///
    /// # Errors
    /// [`ImageError::Unreadable`].
    pub fn send(&self, to: mpsc::Sender<Result<Bytes, io::Error>>) -> Result<Sent, ImageError> {
        let mut sent = Sent::default();
        let failures = to.clone();
        let mut tar = tar::Builder::new(Pipe { to, buffer: Vec::with_capacity(CHUNK) });
        tar.follow_symlinks(false);
        let mut at = String::new();
        let done = self.folder(&mut tar, Path::new(""), &mut sent).map_err(|(path, e)| {
            at = path;
            e
        });
        let done = done.and_then(|()| {
            if let Some(text) = &self.foreign {
                let mut header = self.header(tar::EntryType::Regular, 0o644);
                header.set_size(text.len() as u64);
                tar.append_data(&mut header, FOREIGN, text.as_bytes())?;
            }
            tar.into_inner().and_then(|mut pipe| io::Write::flush(&mut pipe))
        });
        match done {
            Ok(()) => Ok(sent),
            // The builder has its own word to say.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(sent),
            Err(e) => {
                let why = e.to_string();
                // The body must not end as if it were whole.
                let _ = failures.blocking_send(Err(e));
                Err(ImageError::Unreadable { path: at, why })
            }
        }
    }

    fn header(&self, kind: tar::EntryType, mode: u32) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(self.times);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header
    }

    fn folder<W: io::Write>(
        &self,
        tar: &mut tar::Builder<W>,
        folder: &Path,
        sent: &mut Sent,
    ) -> Result<(), (String, io::Error)> {
        let at = |path: &Path, e: io::Error| (path.display().to_string(), e);
        let listed = fs::read_dir(self.root.join(folder)).map_err(|e| at(folder, e))?;
        let mut entries: Vec<_> = listed.collect::<Result<_, _>>().map_err(|e| at(folder, e))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = folder.join(entry.file_name());
            // Docker's own patterns are text; a name that is none can only be taken or left with its folder.
            let name = path.to_string_lossy();
            let kind = entry.file_type().map_err(|e| at(&path, e))?;
            let out = self.ignore.leaves_out(&name) && name != self.dockerfile;
            if kind.is_dir() {
                let may_hold_dockerfile = Path::new(&self.dockerfile).starts_with(&path);
                if out && !self.ignore.takes_back() && !may_hold_dockerfile {
                    continue;
                }
                if !out {
                    let mode = entry.metadata().map_err(|e| at(&path, e))?.permissions().mode() & 0o777;
                    let mut header = self.header(tar::EntryType::Directory, mode);
                    tar.append_data(&mut header, &path, io::empty()).map_err(|e| at(&path, e))?;
                    sent.entries += 1;
                }
                self.folder(tar, &path, sent)?;
            } else if out {
            } else if kind.is_symlink() {
                let target = fs::read_link(entry.path()).map_err(|e| at(&path, e))?;
                let mut header = self.header(tar::EntryType::Symlink, 0o777);
                tar.append_link(&mut header, &path, &target).map_err(|e| at(&path, e))?;
                sent.entries += 1;
            } else if kind.is_file() {
                // Never through a link that was put there a moment ago, and never waiting for a pipe.
                let file = open_plain(&entry.path()).map_err(|e| at(&path, e))?;
                let meta = file.metadata().map_err(|e| at(&path, e))?;
                let mut header = self.header(tar::EntryType::Regular, meta.permissions().mode() & 0o777);
                header.set_size(meta.len());
                // A file that grows meanwhile is cut; one that shrinks is an error.
                let exact = Exactly { file, left: meta.len() };
                tar.append_data(&mut header, &path, exact).map_err(|e| at(&path, e))?;
                sent.entries += 1;
                sent.bytes += meta.len();
            }
            // Sockets, pipes and devices have no place in an image.
        }
        Ok(())
    }
}

fn open_plain(path: &Path) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

/// A file's text where it is there, and neither large nor out of the workspace.
pub(super) fn small_text(workspace: &Path, path: &Path, shown: &str) -> Result<Option<String>, ImageError> {
    let unreadable = |e: io::Error| ImageError::Unreadable { path: shown.to_owned(), why: e.to_string() };
    let root = workspace.canonicalize().map_err(unreadable)?;
    let found = match path.canonicalize() {
        Ok(found) => found,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(unreadable(e)),
    };
    if !found.starts_with(&root) {
        return Err(ImageError::Context(format!("{shown} leads out of the repository")));
    }
    let file = open_plain(&found).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    if !meta.is_file() {
        return Err(ImageError::Context(format!("{shown} is no file")));
    }
    if meta.len() > MAX_IGNORE.max(crate::infer::dockerfile::MAX_DOCKERFILE) as u64 {
        return Err(ImageError::Context(format!("{shown} is larger than 1 MiB")));
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, 1 << 21), &mut bytes).map_err(unreadable)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// As many bytes as were announced, whatever happens to the file.
struct Exactly {
    file: fs::File,
    left: u64,
}

impl io::Read for Exactly {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let n = io::Read::read(&mut self.file, &mut buf[..most])?;
        if n == 0 && most > 0 {
            return Err(io::Error::other("it became shorter while it was read"));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

/// Hands on what is written, a chunk at a time.
struct Pipe {
    to: mpsc::Sender<Result<Bytes, io::Error>>,
    buffer: Vec<u8>,
}

impl io::Write for Pipe {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(buf);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.to.blocking_send(Ok(full.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

//! Releases on disk: a folder per content, named by its digest. Stored once, never changed, started from where it lies.
//!
//! `ROOT/HEX/` holds the files, `ROOT/HEX.manifest` names each with its mode and SHA-256; the digest is that of the
//! manifest. A folder that stands there is whole: it is renamed into place after everything is on disk.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Component, Path, PathBuf},
    time::Duration,
};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use sha2::{Digest as _, Sha256};

use crate::domain::ids::Digest;

/// A release that lies on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRelease {
    /// Its name.
    pub digest: Digest,
    /// Its folder.
    pub path: PathBuf,
    /// The size of its files.
    pub bytes: u64,
}

/// Why a release was not stored, or is not what it was.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The disk or the file system said no.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A pattern that can't be read.
    #[error("`files:` has {pattern:?}, which is no pattern: {why}")]
    Pattern {
        /// Which.
        pattern: String,
        /// Why.
        why: String,
    },
    /// A pattern that names nothing.
    #[error("`files:` has {pattern:?}, and nothing there is named so after the build; there are: {there}")]
    NothingFound {
        /// Which.
        pattern: String,
        /// What lies in the app's folder.
        there: String,
    },
    /// There is nothing to release.
    #[error("the app's folder is empty after the build")]
    Empty,
    /// A symbolic link leads out of the app's folder, where it means something else at the next start.
    #[error("{path:?} is a link to {to:?}, outside of the app's folder: name what is needed under `files:`")]
    LinkOutside {
        /// Which.
        path: String,
        /// Where to.
        to: String,
    },
    /// Neither a file nor a folder nor a link.
    #[error("{path:?} is a socket, a pipe or a device: name what is needed under `files:`")]
    Special {
        /// Which.
        path: String,
    },
    /// It is not there.
    #[error("the release {0} is no longer on this host")]
    Missing(Digest),
    /// Somebody changed it.
    #[error("the release {digest} was changed on disk: {what}")]
    Changed {
        /// Which.
        digest: Digest,
        /// What differs.
        what: String,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ReleaseError + '_ {
    move |source| ReleaseError::Io { path: path.to_owned(), source }
}

/// Half-made folders older than this were left by a crash.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// One thing in a release.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    File {
        executable: bool,
        sha: String,
    },
    Link {
        to: PathBuf,
    },
    /// An empty one.
    Folder,
}

/// Stores what lies in `app_dir` and fits `files` (patterns from there; a folder means all below it; None:
/// everything but `.git`). The same content again is found, not stored twice.
///
/// Blocking: call it where that is fine.
///
/// # Errors
/// [`ReleaseError`]. Nothing half-made is ever left under a release's name.
pub fn store(app_dir: &Path, files: Option<&[String]>, root: &Path) -> Result<StoredRelease, ReleaseError> {
    store_through(app_dir, files, root, None)
}

/// The same where folders of `app_dir` may be links into `caches`: those are gone through as if they lay here.
///
/// # Errors
/// As [`store`].
pub fn store_through(
    app_dir: &Path,
    files: Option<&[String]>,
    root: &Path,
    caches: Option<&Path>,
) -> Result<StoredRelease, ReleaseError> {
    fs::create_dir_all(root).map_err(at(root))?;
    let app_dir = &app_dir.canonicalize().map_err(at(app_dir))?;
    let caches = caches.and_then(|c| c.canonicalize().ok());
    let found = choose(app_dir, files, caches.as_deref())?;
    let draft = Draft::new(root)?;
    let mut manifest = Vec::new();
    let mut bytes = 0;
    for path in &found {
        let entry = draft.take(app_dir, path, &mut bytes)?;
        manifest.extend_from_slice(line(path, &entry).as_bytes());
    }
    let digest = Digest::of(&manifest);
    let place = place(root, &digest);
    if !place.is_dir() {
        draft.keep(&manifest, &place, root)?;
    }
    Ok(StoredRelease { digest, path: place, bytes })
}

/// Where a release lies, whether it is there or not.
#[must_use]
pub fn place(root: &Path, digest: &Digest) -> PathBuf {
    root.join(digest.as_str().trim_start_matches("sha256:"))
}

fn manifest_place(place: &Path) -> PathBuf {
    place.with_extension("manifest")
}

/// Reads a release again and compares it with its name. Files that the running app added are no fault.
///
/// # Errors
/// [`ReleaseError::Missing`], [`ReleaseError::Changed`], or the disk's.
pub fn verify(root: &Path, digest: &Digest) -> Result<StoredRelease, ReleaseError> {
    let place = place(root, digest);
    let changed = |what: String| ReleaseError::Changed { digest: digest.clone(), what };
    let listed = manifest_place(&place);
    let manifest = match fs::read(&listed) {
        Ok(manifest) if place.is_dir() => manifest,
        Ok(_) => return Err(ReleaseError::Missing(digest.clone())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(ReleaseError::Missing(digest.clone())),
        Err(e) => return Err(at(&listed)(e)),
    };
    if Digest::of(&manifest) != *digest {
        return Err(changed("its manifest is another one".into()));
    }
    let mut bytes = 0;
    for text in String::from_utf8_lossy(&manifest).lines() {
        let (path, entry) = parse(text).ok_or_else(|| changed(format!("its manifest holds {text:?}")))?;
        let full = place.join(&path);
        let name = || path.to_string_lossy().into_owned();
        let same = match &entry {
            Entry::Folder => full.is_dir(),
            Entry::Link { to } => fs::read_link(&full).is_ok_and(|t| &t == to),
            Entry::File { executable, sha } => match open(&full) {
                Ok(mut file) => {
                    let mode = file.metadata().map_err(at(&full))?.permissions().mode();
                    let mut hash = Sha256::new();
                    bytes += pump(&mut file, &mut hash, None).map_err(at(&full))?;
                    &hex::encode(hash.finalize()) == sha && (mode & 0o100 != 0) == *executable
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => false,
                Err(e) => return Err(at(&full)(e)),
            },
        };
        if !same {
            return Err(changed(format!("{} differs", name())));
        }
    }
    Ok(StoredRelease { digest: digest.clone(), path: place, bytes })
}

/// Removes all releases but these and those made within `young` (whoever made one may not have noted it yet), and what
/// crashes left. Says how many went.
///
/// # Errors
/// When the folder can't be read; what can't be removed is logged and left for the next time.
pub fn prune(root: &Path, keep: &[Digest], young: Duration) -> Result<usize, ReleaseError> {
    let keep: BTreeSet<&str> = keep.iter().map(|d| d.as_str().trim_start_matches("sha256:")).collect();
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(at(root)(e)),
    };
    let mut gone = 0;
    for entry in entries {
        let path = entry.map_err(at(root))?.path();
        let Some(name) = path.file_name().and_then(OsStr::to_str) else { continue };
        let digits = name.strip_suffix(".manifest").unwrap_or(name);
        let ours = digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let done = if name.starts_with(".draft-") {
            if age(&path).is_some_and(|a| a > STALE) { fs::remove_dir_all(&path) } else { continue }
        } else if !ours || keep.contains(digits) || age(&path).is_none_or(|a| a < young) {
            continue;
        } else if path.is_dir() {
            // First out of its name, so that a crash leaves no half of a release under it.
            let doomed = root.join(format!(".draft-{}", uuid::Uuid::new_v4()));
            gone += 1;
            fs::rename(&path, &doomed).and_then(|()| fs::remove_dir_all(&doomed))
        } else if root.join(digits).is_dir() {
            // Goes with its folder, in this round or the next.
            continue;
        } else {
            fs::remove_file(&path)
        };
        if let Err(e) = done {
            tracing::warn!(path = %path.display(), error = %e, "an old release can't be removed");
        }
    }
    Ok(gone)
}

fn age(path: &Path) -> Option<Duration> {
    let modified = jiff::Timestamp::try_from(fs::metadata(path).ok()?.modified().ok()?).ok()?;
    Duration::try_from(crate::clock::now().duration_since(modified)).ok()
}

/// A folder that is being filled; removed unless it is kept.
struct Draft {
    folder: tempfile::TempDir,
}

impl Draft {
    fn new(root: &Path) -> Result<Self, ReleaseError> {
        let folder = tempfile::Builder::new()
            .prefix(".draft-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(root)
            .map_err(at(root))?;
        Ok(Self { folder })
    }

    /// Copies one thing. A copy, not a hard link: the build's folder is used again, and what writes into a file there
    /// would write into the release.
    fn take(&self, app_dir: &Path, path: &Path, bytes: &mut u64) -> Result<Entry, ReleaseError> {
        let (from, to) = (app_dir.join(path), self.folder.path().join(path));
        let name = || path.to_string_lossy().into_owned();
        let kind = fs::symlink_metadata(&from).map_err(at(&from))?.file_type();
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(at(parent))?;
        }
        if kind.is_symlink() {
            let target = fs::read_link(&from).map_err(at(&from))?;
            let outside = || ReleaseError::LinkOutside { path: name(), to: target.to_string_lossy().into_owned() };
            let inside = stays_inside(path, &target) && from.canonicalize().map_or(true, |r| r.starts_with(app_dir));
            if !inside {
                return Err(outside());
            }
            std::os::unix::fs::symlink(&target, &to).map_err(at(&to))?;
            return Ok(Entry::Link { to: target });
        }
        if kind.is_dir() {
            fs::create_dir_all(&to).map_err(at(&to))?;
            return Ok(Entry::Folder);
        }
        if !kind.is_file() {
            return Err(ReleaseError::Special { path: name() });
        }
        let mut source = open(&from).map_err(at(&from))?;
        let executable = source.metadata().map_err(at(&from))?.permissions().mode() & 0o100 != 0;
        let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&to).map_err(at(&to))?;
        let mut hash = Sha256::new();
        *bytes += pump(&mut source, &mut hash, Some(&mut target)).map_err(at(&from))?;
        let mode = if executable { 0o555 } else { 0o444 };
        target.set_permissions(fs::Permissions::from_mode(mode)).map_err(at(&to))?;
        Ok(Entry::File { executable, sha: hex::encode(hash.finalize()) })
    }

    /// Everything on disk first, then the name.
    fn keep(self, manifest: &[u8], place: &Path, root: &Path) -> Result<(), ReleaseError> {
        let folder = File::open(root).map_err(at(root))?;
        let mut listed = tempfile::NamedTempFile::with_prefix_in(".draft-", root).map_err(at(root))?;
        listed.write_all(manifest).map_err(at(root))?;
        nix::unistd::syncfs(&folder).map_err(|e| at(root)(e.into()))?;
        listed.persist(manifest_place(place)).map_err(|e| at(root)(e.error))?;
        match fs::rename(self.folder.path(), place) {
            Ok(()) => drop(self.folder.keep()),
            // Somebody stored the same thing meanwhile.
            Err(_) if place.is_dir() => {}
            Err(e) => return Err(at(place)(e)),
        }
        folder.sync_all().map_err(at(root))
    }
}

/// Reads to the end; into the hash, and into a file.
fn pump(from: &mut File, hash: &mut Sha256, mut into: Option<&mut File>) -> io::Result<u64> {
    let mut buffer = vec![0; 256 * 1024];
    let mut bytes = 0;
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return Ok(bytes);
        }
        hash.update(&buffer[..n]);
        if let Some(into) = &mut into {
            into.write_all(&buffer[..n])?;
        }
        bytes += n as u64;
    }
}

/// Opens a file and never what a link put in its place leads to.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC).open(path)
}

/// Whether a link at `path` (from the root) leads to somewhere below the root, by its words alone.
fn stays_inside(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count().saturating_sub(1);
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

/// Paths from `app_dir` that belong to the release, sorted.
fn choose(app_dir: &Path, files: Option<&[String]>, caches: Option<&Path>) -> Result<Vec<PathBuf>, ReleaseError> {
    let mut all = Vec::new();
    walk(app_dir, Path::new(""), caches, &mut all)?;
    all.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    let Some(patterns) = files else {
        return if all.is_empty() { Err(ReleaseError::Empty) } else { Ok(all) };
    };
    let sets: Vec<GlobSet> = patterns.iter().map(|p| glob(p)).collect::<Result<_, _>>()?;
    for (pattern, set) in patterns.iter().zip(&sets) {
        if !all.iter().any(|p| set.is_match(p)) {
            let mut there: Vec<String> = fs::read_dir(app_dir)
                .map_err(at(app_dir))?
                .filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned()))
                .collect();
            there.sort();
            there.truncate(20);
            let there = if there.is_empty() { "nothing".to_owned() } else { there.join(", ") };
            return Err(ReleaseError::NothingFound { pattern: pattern.clone(), there });
        }
    }
    all.retain(|p| sets.iter().any(|s| s.is_match(p)));
    if all.is_empty() { Err(ReleaseError::Empty) } else { Ok(all) }
}

/// A pattern, and everything below what it names.
fn glob(pattern: &str) -> Result<GlobSet, ReleaseError> {
    let wrong = |why: String| ReleaseError::Pattern { pattern: pattern.to_owned(), why };
    let trimmed = pattern.trim_start_matches("./").trim_end_matches('/');
    if trimmed.is_empty() || Path::new(trimmed).components().any(|c| !matches!(c, Component::Normal(_))) {
        return Err(wrong("it must name something below the app's folder".into()));
    }
    let mut set = GlobSetBuilder::new();
    for text in [trimmed.to_owned(), format!("{trimmed}/**")] {
        set.add(GlobBuilder::new(&text).literal_separator(true).build().map_err(|e| wrong(e.kind().to_string()))?);
    }
    set.build().map_err(|e| wrong(e.to_string()))
}

/// Files, links and empty folders below; through no link but those into `caches`.
fn walk(app_dir: &Path, below: &Path, caches: Option<&Path>, all: &mut Vec<PathBuf>) -> Result<(), ReleaseError> {
    let folder = app_dir.join(below);
    let mut empty = true;
    for entry in fs::read_dir(&folder).map_err(at(&folder))? {
        let entry = entry.map_err(at(&folder))?;
        empty = false;
        if entry.file_name() == ".git" {
            continue;
        }
        let path = below.join(entry.file_name());
        let kind = entry.file_type().map_err(at(&folder))?;
        let cached = kind.is_symlink()
            && caches.is_some_and(|c| entry.path().canonicalize().is_ok_and(|to| to.is_dir() && to.starts_with(c)));
        if kind.is_dir() || cached {
            walk(app_dir, &path, caches, all)?;
        } else {
            all.push(path);
        }
    }
    if empty && !below.as_os_str().is_empty() {
        all.push(below.to_owned());
    }
    Ok(())
}

/// One line of the manifest: `f 755 SHA PATH`, `l - TARGET PATH`, `d - - PATH`.
fn line(path: &Path, entry: &Entry) -> String {
    let path = escape(path.as_os_str());
    match entry {
        Entry::File { executable: true, sha } => format!("f 755 {sha} {path}\n"),
        Entry::File { executable: false, sha } => format!("f 644 {sha} {path}\n"),
        Entry::Link { to } => format!("l - {} {path}\n", escape(to.as_os_str())),
        Entry::Folder => format!("d - - {path}\n"),
    }
}

fn parse(line: &str) -> Option<(PathBuf, Entry)> {
    let mut parts = line.split(' ');
    let (kind, mode, what, path) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let path = PathBuf::from(unescape(path)?);
    // The manifest is checked against its name first; a path that leads elsewhere would still be no release of ours.
    if parts.next().is_some() || path.components().any(|c| !matches!(c, Component::Normal(_))) {
        return None;
    }
    let entry = match kind {
        "f" => Entry::File { executable: mode == "755", sha: what.to_owned() },
        "l" => Entry::Link { to: PathBuf::from(unescape(what)?) },
        "d" => Entry::Folder,
        _ => return None,
    };
    Some((path, entry))
}

/// File names are bytes: all but plain ASCII becomes `\xx`, so that a line is a line.
fn escape(name: &OsStr) -> String {
    let mut out = String::new();
    for byte in name.as_bytes() {
        match byte {
            b'\\' | b' ' => out.push_str(&format!("\\{byte:02x}")),
            b if b.is_ascii_graphic() => out.push(char::from(*b)),
            b => out.push_str(&format!("\\{b:02x}")),
        }
    }
    out
}

fn unescape(text: &str) -> Option<OsString> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes().iter();
    while let Some(byte) = rest.next() {
        if *byte == b'\\' {
            let digits = [*rest.next()?, *rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(*byte);
        }
    }
    Some(OsString::from_vec(bytes))
}

//! Reading what a pod packed: a tar stream of which nothing is believed.
//!
//! The `tar` that made it is the step's own. Names are bounded before they are read, what can't be is told from what is
//! merely not wanted, and nothing is handed out that leads out of the folder.

use std::{
    io::{self, Read},
    path::PathBuf,
};

use tar::{Archive, EntryType, Header, PaxExtensions};

/// The longest name, and the longest block of extensions.
const NAME: u64 = 64 * 1024;
/// A file system's own limit for a name between slashes (`NAME_MAX`).
const PART: usize = 255;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A file, with its size in bytes.
    File(u64),
    /// A symbolic link, with its text.
    Link(PathBuf),
    /// Another name of a file of the same folder, with the parts of the first name.
    Same(Vec<Vec<u8>>),
    /// Pipes, devices: nothing of these is taken.
    Other,
}

/// An entry's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its name below the folder, in parts; empty for the folder itself.
    pub parts: Vec<Vec<u8>>,
    /// What it is.
    pub kind: Kind,
    /// Its permissions, without those that make somebody else of who runs it.
    pub mode: u32,
    /// When it was changed, in seconds since 1970.
    pub time: i64,
}

/// The parts of a name, if it stays in the folder.
#[must_use]
pub fn parts(name: &[u8]) -> Option<Vec<Vec<u8>>> {
    if name.starts_with(b"/") || name.contains(&0) {
        return None;
    }
    let mut parts = Vec::new();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return None,
            part if part.len() > PART => return None,
            part => parts.push(part.to_vec()),
        }
    }
    Some(parts)
}

fn wrong(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn show(name: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(name).chars().take(200).collect();
    format!("{text:?}")
}

/// Names that an entry before told.
#[derive(Default)]
struct Told {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

/// Reads a stream to its end mark, and hands each entry with its contents to `each`. What follows the mark is left.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`]: a name that leads out of the folder or has no bounds, or no tar stream at all; and
/// whatever `each` and the reading say.
pub fn read<R: Read>(from: R, mut each: impl FnMut(Head, &mut dyn Read) -> io::Result<()>) -> io::Result<()> {
    let mut archive = Archive::new(from);
    let mut told = Told::default();
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let header = entry.header().clone();
        let size = entry.size();
        let kind = header.entry_type();
        match kind {
            EntryType::GNULongName => told.path = Some(text(&mut entry, size)?),
            EntryType::GNULongLink => told.link = Some(text(&mut entry, size)?),
            EntryType::XHeader => {
                let block = bounded(&mut entry, size)?;
                for extension in PaxExtensions::new(&block).flatten() {
                    match extension.key_bytes() {
                        b"path" => told.path = Some(extension.value_bytes().to_vec()),
                        b"linkpath" => told.link = Some(extension.value_bytes().to_vec()),
                        b"size" => told.size = extension.value().ok().and_then(|v| v.parse().ok()),
                        _ => {}
                    }
                }
            }
            // Of the whole archive: a comment.
            EntryType::XGlobalHeader => {}
            _ => {
                let told = std::mem::take(&mut told);
                if told.size.is_some_and(|told| told != size) {
                    return Err(wrong(format!("an entry of {size} bytes says that it has others")));
                }
                each(head(&header, size, told)?, &mut entry)?;
            }
        }
    }
    Ok(())
}

fn head(header: &Header, size: u64, told: Told) -> io::Result<Head> {
    let name = told.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let Some(place) = parts(&name) else {
        return Err(wrong(format!("the name {} leads out of its folder", show(&name))));
    };
    let link = || told.link.clone().or_else(|| header.link_name_bytes().map(|l| l.into_owned())).unwrap_or_default();
    let kind = match header.entry_type() {
        EntryType::Directory => Kind::Folder,
        // Old archives mark folders so.
        EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => Kind::Folder,
        EntryType::Regular | EntryType::Continuous => Kind::File(size),
        EntryType::Symlink => {
            let to = link();
            if to.is_empty() || to.contains(&0) || to.len() as u64 > NAME {
                return Err(wrong(format!("the link {} leads nowhere", show(&name))));
            }
            Kind::Link(PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(to)))
        }
        EntryType::Link => {
            let to = link();
            match parts(&to) {
                Some(to) if !to.is_empty() => Kind::Same(to),
                _ => return Err(wrong(format!("{} is another name of {}", show(&name), show(&to)))),
            }
        }
        _ => Kind::Other,
    };
    let number = |n: io::Result<u64>| n.ok().and_then(|n| i64::try_from(n).ok()).unwrap_or(0);
    Ok(Head { parts: place, kind, mode: header.mode().unwrap_or(0o644) & 0o777, time: number(header.mtime()) })
}

fn bounded(entry: &mut impl Read, size: u64) -> io::Result<Vec<u8>> {
    if size > NAME {
        return Err(wrong(format!("a name of {size} bytes")));
    }
    let mut bytes = Vec::new();
    entry.take(NAME).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A name as GNU writes it: it ends with a zero.
fn text(entry: &mut impl Read, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = bounded(entry, size)?;
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    Ok(bytes)
}

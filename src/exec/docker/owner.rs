//! Whose a step's folders are.
//!
//! Steps may be at work in a cache while it is looked at, and would gladly have root give them another folder: every
//! folder is entered by its descriptor, and links are never followed.

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use nix::{
    fcntl::{AtFlags, OFlag, open, openat},
    sys::stat::Mode,
    unistd::{Gid, Uid, fchown, fchownat},
};

/// The user that steps are when the server is root: nobody's on any system (`nonroot` of many images).
pub(super) const NOBODY: u32 = 65532;
/// What the step's user is called inside.
pub(super) const NAME: &str = "switchover";

const FOLDER: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Whether a folder is a user's already.
pub(super) fn is_of(path: &Path, user: u32) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.uid() == user)
}

/// Gives a folder and all in it to a user; the folder itself last, so that [`is_of`] means all of it.
pub(super) fn give(path: &Path, user: u32) -> io::Result<()> {
    let top = open(path, FOLDER, Mode::empty())?;
    give_inside(&top, user)?;
    Ok(fchown(&top, Some(Uid::from_raw(user)), Some(Gid::from_raw(user)))?)
}

fn give_inside(folder: &OwnedFd, user: u32) -> io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(user)));
    // By its descriptor: the path may lead elsewhere by now.
    for entry in fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()))? {
        let entry = entry?;
        let name = entry.file_name();
        // Gone or changed meanwhile: whoever did it is the user already.
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir()
            && let Ok(below) = openat(folder.as_fd(), name.as_os_str(), FOLDER, Mode::empty())
        {
            give_inside(&below, user)?;
            let _ = fchown(&below, uid, gid);
            continue;
        }
        match fchownat(folder.as_fd(), name.as_os_str(), uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(()) | Err(nix::errno::Errno::ENOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

//! Files that hold a secret.

use std::{
    fs::OpenOptions,
    io::Read as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use secrecy::SecretString;

/// The largest secret, in bytes.
const MAX_SECRET: u64 = 64 * 1024;

/// Reads the secret in a file, without the line break at its end.
///
/// # Errors
/// What is wrong and what is expected. Among it: a file that the world can read, so that a secret is not shared with
/// every account of the host by accident.
pub(super) fn read(path: &Path) -> Result<SecretString, (String, String)> {
    let shown = path.display();
    let file = OpenOptions::new()
        .read(true)
        // A FIFO without a writer would block the start for ever.
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(|error| (format!("{shown} cannot be read: {error}"), "a file with the secret".to_owned()))?;
    let metadata = file
        .metadata()
        .map_err(|error| (format!("{shown} cannot be looked at: {error}"), "a file with the secret".to_owned()))?;
    if !metadata.is_file() {
        return Err((format!("{shown} is not a file"), "a file with the secret".to_owned()));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o004 != 0 {
        return Err((
            format!("{shown} can be read by everybody (mode {mode:04o})"),
            format!("`chmod o-r {shown}`; in Compose `mode: 0440` for the secret, in Kubernetes `defaultMode: 0440`"),
        ));
    }
    let mut bytes = Vec::new();
    file.take(MAX_SECRET + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| (format!("{shown} cannot be read: {error}"), "a file with the secret".to_owned()))?;
    if bytes.len() as u64 > MAX_SECRET {
        return Err((format!("{shown} is larger than 64 KiB"), "a file with the secret alone".to_owned()));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| (format!("{shown} is not text (UTF-8)"), "a file with the secret as text".to_owned()))?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.trim().is_empty() {
        return Err((format!("{shown} is empty"), "a file with the secret".to_owned()));
    }
    Ok(SecretString::from(text))
}

//! Secret files: a file that the world can read is refused.

use std::{os::unix::fs::MetadataExt as _, path::Path};

use secrecy::SecretString;

/// Larger files are no secrets.
const LARGEST: u64 = 64 * 1024;

/// Reads a secret; a line end at the end of the file is not part of it.
pub(super) fn read(path: &Path) -> Result<SecretString, (String, String)> {
    let shown = path.display();
    let meta = std::fs::metadata(path)
        .map_err(|e| (format!("{shown} can't be read: {e}"), "a file that the server's user may read".to_owned()))?;
    if meta.mode() & 0o004 != 0 {
        return Err((
            format!("{shown} can be read by everybody on this machine (mode {:04o})", meta.mode() & 0o7777),
            format!("a file for the server's user alone: chmod 600 {shown}"),
        ));
    }
    if meta.len() > LARGEST {
        return Err((format!("{shown} has {} bytes", meta.len()), format!("at most {LARGEST} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| {
        (format!("{shown} can't be read: {e}"), "a text file that the server's user may read".to_owned())
    })?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err((format!("{shown} is empty"), "the secret".to_owned()));
    }
    Ok(SecretString::from(text.to_owned()))
}

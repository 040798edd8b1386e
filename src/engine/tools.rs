//! A fingerprint of the tools that steps find on this machine: a proof made with another compiler proves nothing.

use std::{fmt::Write as _, os::unix::fs::MetadataExt as _};

use crate::{domain::ids::Digest, exec::host::HostEnv};

/// Programs whose change makes a test's result stale.
const TOOLS: &[&str] = &[
    "cargo", "rustc", "cc", "gcc", "clang", "java", "javac", "mvn", "gradle", "node", "npm", "pnpm", "yarn", "go",
    "python3", "ruby", "php", "dotnet", "make", "cmake",
];

/// From the size and the time of each program in `PATH`, and of the toolchains behind rustup. No process is started.
#[must_use]
pub fn fingerprint(host: &HostEnv) -> String {
    let mut text = String::new();
    for tool in TOOLS {
        let found = std::env::split_paths(&host.path).map(|dir| dir.join(tool)).find(|p| p.is_file());
        if let Some((path, meta)) = found.and_then(|p| Some((p.canonicalize().ok()?, std::fs::metadata(&p).ok()?))) {
            let _ = writeln!(text, "{} {} {}", path.display(), meta.len(), meta.mtime());
        }
    }
    if let Some(rustup) = &host.rustup_home {
        let mut chains: Vec<_> = std::fs::read_dir(rustup.join("toolchains"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| Some((e.file_name(), e.metadata().ok()?.mtime())))
            .collect();
        chains.sort();
        let _ = writeln!(text, "{chains:?} {:?}", std::fs::read(rustup.join("settings.toml")).unwrap_or_default());
    }
    Digest::of(text.as_bytes()).to_string()
}

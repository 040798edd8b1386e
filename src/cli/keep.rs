//! `switchover backup` and `switchover restore`: what a lost disk must not take along.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::{Context as _, bail};
use switchover::store::{self, Store};

use super::runtime;

/// What is kept: the database, the server's own key (names of slots come from it), the agent's routes and slots.
const KEPT: [&str; 3] = ["switchover.db", "server.key", "agent/state.json"];
/// No file of a backup is larger (bytes): an archive that says otherwise is not ours.
const LARGEST: u64 = 64 << 30;

/// Writes a backup; the server may run meanwhile.
pub fn backup(data: &Path, file: &Path) -> anyhow::Result<()> {
    let database = data.join("switchover.db");
    if !database.is_file() {
        bail!("{} is not there: name the server's data folder with --data", database.display());
    }
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let work = tempfile::Builder::new()
        .prefix(".switchover-backup-")
        .tempdir_in(folder)
        .with_context(|| format!("writing to {}", folder.display()))?;
    let copy = work.path().join("switchover.db");
    runtime(1)?.block_on(store::copy(&database, &copy)).context("copying the database")?;
    let draft = work.path().join("draft");
    // It holds the server's key and payloads: for its owner alone.
    let out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let mut archive = tar::Builder::new(out);
    let mut kept = Vec::new();
    for name in KEPT {
        let from = if name == "switchover.db" { copy.clone() } else { data.join(name) };
        match File::open(&from) {
            Ok(mut file) => {
                archive.append_file(name, &mut file).with_context(|| format!("reading {}", from.display()))?
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e).with_context(|| format!("reading {}", from.display())),
        }
        kept.push(name);
    }
    archive.into_inner()?.sync_all()?;
    std::fs::rename(&draft, file).with_context(|| format!("writing {}", file.display()))?;
    File::open(folder)?.sync_all()?;
    println!("{}: {}", file.display(), kept.join(", "));
    println!(
        "Not in it: settings and secret files, mirrors, caches, logs, and releases of files; images are in their registry."
    );
    Ok(())
}

/// Makes a data folder from a backup. Nothing that is there is overwritten.
pub fn restore(data: &Path, file: &Path) -> anyhow::Result<()> {
    let database = data.join("switchover.db");
    if database.exists() {
        bail!("{} is there already: a backup is restored into an empty data folder", database.display());
    }
    std::fs::create_dir_all(data).with_context(|| format!("making {}", data.display()))?;
    let mut archive = tar::Archive::new(File::open(file).with_context(|| format!("reading {}", file.display()))?);
    let mut found = Vec::new();
    for entry in archive.entries().context("reading the archive")? {
        let mut entry = entry.context("the archive is damaged")?;
        let path = entry.path().context("the archive is damaged")?.into_owned();
        let Some(name) = KEPT.into_iter().find(|name| Path::new(name) == path) else {
            bail!("{} holds {}, which no backup of Switchover does", file.display(), path.display());
        };
        if !entry.header().entry_type().is_file() || entry.size() > LARGEST || found.contains(&name) {
            bail!("{}: {name} is not as `switchover backup` writes it", file.display());
        }
        let to = data.join(name);
        if let Some(folder) = to.parent() {
            std::fs::create_dir_all(folder)?;
        }
        // The database last of all by name: until it stands there, this folder is no server's.
        let draft = to.with_extension("restoring");
        let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        std::io::copy(&mut (&mut entry).take(LARGEST), &mut out)?;
        out.flush()?;
        out.sync_all()?;
        found.push(name);
    }
    if !found.contains(&"switchover.db") {
        bail!("{} holds no database: it is no backup, or it is cut off", file.display());
    }
    for name in KEPT.into_iter().rev().filter(|name| found.contains(name)) {
        let to = data.join(name);
        if name == "switchover.db" {
            let draft = to.with_extension("restoring");
            runtime(1)?
                .block_on(async {
                    let store = Store::open(&draft).await?;
                    store.mark_restored().await?;
                    store.close().await;
                    anyhow::Ok(())
                })
                .context("the database of the backup can't be used")?;
            for beside in ["restoring-wal", "restoring-shm"] {
                let _ = std::fs::remove_file(to.with_extension(beside));
            }
        }
        std::fs::rename(to.with_extension("restoring"), &to)?;
    }
    File::open(data)?.sync_all()?;
    println!("{}: {}", data.display(), found.join(", "));
    println!(
        "At its next start the server takes GitHub's branches as they stand: what was pushed after the backup is neither \
         tested nor released again by itself. Push once more, or press Re-run, where that is wanted."
    );
    Ok(())
}

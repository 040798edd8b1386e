//! What the agent must know after a crash or a reboot: `state.json`, replaced whole and durably.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    AgentError,
    control::without_values,
    process::ProcId,
    protocol::{Door, ServiceId, SlotSource, TlsFiles},
};
use crate::domain::ids::Epoch;

/// Version of the file's layout.
pub(super) const VERSION: u32 = 1;

/// The whole state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Saved {
    pub version: u32,
    /// Processes recorded under another boot are gone for certain.
    pub boot_id: String,
    pub services: BTreeMap<ServiceId, SavedService>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedService {
    /// With the real port; none for a worker.
    pub listen: Option<SocketAddr>,
    pub hosts: Vec<String>,
    #[serde(default)]
    pub doors: Vec<Door>,
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    pub epoch: Epoch,
    pub active: Option<String>,
    pub previous: Option<String>,
    pub switched_at: Option<Timestamp>,
    pub slots: BTreeMap<String, SavedSlot>,
    /// Asked to be forgotten; kept until its processes have ended, so that a crash leaves no orphan.
    #[serde(default)]
    pub removing: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedSlot {
    pub source: SlotSource,
    pub running: bool,
    /// As in [`SavedService::removing`].
    #[serde(default)]
    pub removing: bool,
    /// Empty for upstreams.
    pub copies: Vec<SavedCopy>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedCopy {
    /// None for workers.
    pub port: Option<u16>,
    pub process: Option<ProcId>,
    /// A process may have been started that is not written down yet.
    #[serde(default)]
    pub starting: bool,
    pub started_at: Option<Timestamp>,
    pub restarts: u32,
    pub last_exit: Option<String>,
    #[serde(default)]
    pub last_output: Vec<String>,
}

impl Saved {
    pub(super) fn new(boot_id: String) -> Self {
        Self { version: VERSION, boot_id, services: BTreeMap::new() }
    }

    /// Takes over what an earlier agent left; after a reboot no recorded process can be alive.
    pub(super) fn adapt_to_boot(&mut self, boot_id: &str) -> bool {
        if self.boot_id == boot_id {
            return false;
        }
        boot_id.clone_into(&mut self.boot_id);
        for copy in self.copies_mut() {
            copy.process = None;
            copy.starting = false;
        }
        true
    }

    pub(super) fn copies_mut(&mut self) -> impl Iterator<Item = &mut SavedCopy> {
        self.services.values_mut().flat_map(|s| s.slots.values_mut()).flat_map(|s| s.copies.iter_mut())
    }

    pub(super) fn slot(&self, service: &str, slot: &str) -> Option<&SavedSlot> {
        self.services.get(service)?.slots.get(slot)
    }

    pub(super) fn copy_mut(&mut self, service: &str, slot: &str, index: usize) -> Option<&mut SavedCopy> {
        self.services.get_mut(service)?.slots.get_mut(slot)?.copies.get_mut(index)
    }

    /// Ports that belong to a copy or a listener, running or not.
    pub(super) fn ports(&self) -> Vec<u16> {
        self.services
            .values()
            .flat_map(|s| {
                let copies = s.slots.values().flat_map(|slot| slot.copies.iter().filter_map(|c| c.port));
                copies.chain(s.listeners().map(|a| a.port()))
            })
            .collect()
    }
}

impl SavedService {
    /// All addresses that it listens at.
    pub(super) fn listeners(&self) -> impl Iterator<Item = SocketAddr> {
        self.listen.into_iter().chain(self.doors.iter().map(|d| d.listen))
    }
}

impl SavedSlot {
    /// Where its copies answer.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        match &self.source {
            _ if !self.running || self.removing => Vec::new(),
            SlotSource::Upstreams { addresses } => addresses.clone(),
            SlotSource::Process(_) => {
                self.copies.iter().filter_map(|c| c.port).map(|p| (Ipv4Addr::LOCALHOST, p).into()).collect()
            }
        }
    }

    pub(super) fn has_processes(&self) -> bool {
        self.copies.iter().any(|c| c.process.is_some() || c.starting)
    }
}

/// The file itself. Holds secrets of the released environments: readable by its owner only.
#[derive(Debug, Clone)]
pub(super) struct Store {
    path: PathBuf,
}

impl Store {
    pub(super) fn new(data: &Path) -> Self {
        Self { path: data.join("state.json") }
    }

    /// The agent's folder.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    fn backup(&self) -> PathBuf {
        self.path.with_extension("json.bak")
    }

    /// Reads the state; none when there never was one.
    ///
    /// # Errors
    /// [`AgentError::State`] when it can't be understood: guessing which slot is live could take a site down.
    pub(super) fn load(&self) -> Result<Option<Saved>, AgentError> {
        let refuse = |why: String| AgentError::State { path: self.path.clone(), backup: self.backup(), why };
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound && !self.backup().exists() => return Ok(None),
            Err(e) => return Err(refuse(e.to_string())),
        };
        let unread =
            |e: serde_json::Error| refuse(format!("line {}, column {}: {}", e.line(), e.column(), without_values(&e)));
        // The version first: a newer layout must be named as such, not as a missing field.
        let version: serde_json::Value = serde_json::from_slice(&text).map_err(unread)?;
        match version.get("version").and_then(serde_json::Value::as_u64) {
            Some(v) if v == u64::from(VERSION) => {}
            Some(v) => {
                return Err(refuse(format!(
                    "it has version {v}, this agent knows {VERSION}: start the agent that wrote it"
                )));
            }
            None => return Err(refuse("it names no version".into())),
        }
        serde_json::from_slice(&text).map(Some).map_err(unread)
    }

    /// Replaces the file: on disk, and the last one kept as backup, before this returns.
    pub(super) fn write(&self, saved: &Saved) -> io::Result<()> {
        let fresh = self.path.with_extension("json.new");
        let mut file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&serde_json::to_vec(saved)?)?;
        file.sync_all()?;
        drop(file);
        if self.path.exists() {
            let link = self.path.with_extension("json.link");
            let _ = fs::remove_file(&link);
            if fs::hard_link(&self.path, &link).is_err() {
                fs::copy(&self.path, &link)?;
            }
            fs::rename(&link, self.backup())?;
        }
        fs::rename(&fresh, &self.path)?;
        if let Some(dir) = self.path.parent() {
            fs::File::open(dir)?.sync_all()?;
        }
        Ok(())
    }
}

//! Whether this host can run the release at all, and has room for two slots side by side.

use bollard::query_parameters::StatsOptionsBuilder;
use futures_util::StreamExt as _;
use nix::sys::statvfs::statvfs;

use super::{
    DockerTarget,
    engine::{Fault, Found},
    observe,
    perform::live_slots,
};
use crate::{
    agent::protocol::AgentStatus,
    clock,
    domain::{
        config::AppKind,
        ids::{AppName, Epoch, Slot},
        rollout::{Desired, DesiredApp, retire_due},
    },
    rollout::{Target as _, TargetError, shared::kilobytes},
};

/// Less than this on the engine's disk, and the next log line may be the last.
const LEAST_DISK: u64 = 512 * 1024 * 1024;
const MB: u64 = 1_000_000;

fn failed(words: impl Into<String>) -> TargetError {
    TargetError::Failed(words.into())
}

impl DockerTarget {
    /// Looks at the host before anything is touched.
    pub(super) async fn host(
        &self,
        desired: &Desired,
        epoch: Epoch,
        status: &AgentStatus,
        found: &[Found],
    ) -> Result<(), TargetError> {
        let info = self.engine.api().info().await.map_err(Fault::from)?;
        if info.security_options.iter().flatten().any(|o| o.contains("name=rootless")) {
            return Err(failed(
                "a rootless Docker engine can't be a target: its containers can't be reached from this host; use it \
                 for steps and builds, and a second engine for releases",
            ));
        }
        if let Some(root) = &info.docker_root_dir
            // Not there: the engine lives in a container, and only it sees its disk.
            && let Ok(disk) = statvfs(root.as_str())
        {
            let free = disk.blocks_available().saturating_mul(disk.fragment_size());
            if free < LEAST_DISK {
                return Err(failed(format!(
                    "the engine's disk is full: {} MB are free at {root}; make room (`docker system df`)",
                    free / MB
                )));
            }
        }
        let total = info.mem_total.and_then(|m| u64::try_from(m).ok()).filter(|m| *m > 0);
        match self.limits(desired, found, total).await {
            Err(TargetError::Failed(why)) => self.make_room(desired, epoch, status, found, total, why).await?,
            other => other?,
        }
        self.usage(desired, status, found).await
    }

    /// Gives up the slots that are kept as the way back, where that makes room: without its slot a rollback starts it anew
    /// from its image, and without room there is no release at all.
    async fn make_room(
        &self,
        desired: &Desired,
        epoch: Epoch,
        status: &AgentStatus,
        found: &[Found],
        total: Option<u64>,
        why: String,
    ) -> Result<(), TargetError> {
        let idle = idle_slots(desired, status, found);
        let is_idle = |f: &Found| idle.iter().any(|(app, slot)| app == &f.app && slot == &f.slot);
        let rest: Vec<Found> = found.iter().filter(|f| !is_idle(f)).cloned().collect();
        if idle.is_empty() || self.limits(desired, &rest, total).await.is_err() {
            return Err(failed(why));
        }
        for (app, slot) in &idle {
            tracing::warn!(
                environment = %desired.key, %app, %slot,
                "the way back is given up before its time, a rollback would start it anew: {why}"
            );
            self.retire(&desired.key, epoch, app, slot).await?;
        }
        Ok(())
    }

    /// The limits of what runs and of what is added must fit together.
    async fn limits(&self, desired: &Desired, found: &[Found], total: Option<u64>) -> Result<(), TargetError> {
        let Some(total) = total else { return Ok(()) };
        let added: u64 = fresh(desired, found)
            .map(|app| app.spec.resources.memory.unwrap_or(0).saturating_mul(app.spec.replicas.max(1).into()))
            .sum();
        if added == 0 {
            return Ok(());
        }
        let mut promised: u64 = 0;
        for copy in found.iter().filter(|f| f.is_kept()) {
            match self.engine.inspect(&copy.id).await {
                Ok(one) => {
                    let limit = one.host_config.and_then(|h| h.memory).and_then(|m| u64::try_from(m).ok());
                    promised = promised.saturating_add(limit.unwrap_or(0));
                }
                Err(Fault::Missing(_)) => {}
                Err(other) => return Err(other.into()),
            }
        }
        if promised.saturating_add(added) > total {
            return Err(failed(format!(
                "not enough memory for two slots side by side: the containers that run may use {} MB, the new ones {} \
                 MB more, the host has {} MB",
                promised / MB,
                added / MB,
                total / MB
            )));
        }
        Ok(())
    }

    /// Where there are no limits, the new slot needs about what the live one uses.
    async fn usage(&self, desired: &Desired, status: &AgentStatus, found: &[Found]) -> Result<(), TargetError> {
        let mut used: u64 = 0;
        for (app, live) in live_slots(status, desired).filter(|(app, _)| app.spec.resources.memory.is_none()) {
            for copy in found.iter().filter(|f| f.app == app.name && f.slot.as_str() == live && f.is_kept()) {
                used = used.saturating_add(self.memory(&copy.id).await);
            }
        }
        match kilobytes("/proc/meminfo", "MemAvailable:").map(|kb| kb.saturating_mul(1024)) {
            Some(free) if free < used => Err(failed(format!(
                "not enough memory for two slots side by side: the live one uses {} MB, {} MB are free",
                used / MB,
                free / MB
            ))),
            _ => Ok(()),
        }
    }

    /// What a container uses now, in bytes, its files in memory left out; 0 if that can't be read.
    async fn memory(&self, id: &str) -> u64 {
        let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let mut stats = std::pin::pin!(self.engine.api().stats(id, Some(options)));
        let Some(Ok(stats)) = stats.next().await else { return 0 };
        let Some(memory) = stats.memory_stats else { return 0 };
        let files = memory.stats.unwrap_or_default();
        // As `docker stats` shows it: cgroup v1 and v2 have different words.
        let cache = files.get("total_inactive_file").or(files.get("inactive_file")).copied().unwrap_or(0);
        memory.usage.unwrap_or(0).saturating_sub(cache)
    }
}

/// Slots that run beside the live ones and are no part of the release: kept as the way back. Where nothing is live, the
/// live system is not what anybody left there, and nothing is taken from it.
fn idle_slots(desired: &Desired, status: &AgentStatus, found: &[Found]) -> Vec<(AppName, Slot)> {
    let ours = desired.apps.iter().map(|app| (app.name.clone(), vec![app.slot.clone()])).collect();
    let live = observe::live(status, &desired.key, found);
    let mut idle = retire_due(&live, &[], &ours, clock::now());
    idle.retain(|(app, slot)| found.iter().any(|f| &f.app == app && &f.slot == slot && f.is_kept()));
    idle
}

/// Apps whose new slot will run beside the live one.
fn fresh<'a>(desired: &'a Desired, found: &'a [Found]) -> impl Iterator<Item = &'a DesiredApp> {
    desired
        .apps
        .iter()
        .filter(|app| app.kind == AppKind::Web && !found.iter().any(|f| f.app == app.name && f.slot == app.slot))
}

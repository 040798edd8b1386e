//! Reading the live system: the agent's status, and each copy asked for its health.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::{LocalTarget, service_id};
use crate::{
    agent::protocol::{AgentStatus, InstanceStatus, ServiceStatus, SlotSource, SlotStatus},
    clock,
    domain::{
        config::AppKind,
        ids::{AppName, Epoch, Slot},
        rollout::{Desired, DesiredApp, EnvironmentKey, Fence, Live, LiveApp, Observed, ObservedApp, ObservedSlot},
    },
    rollout::{health, shared::requests},
};

/// Tells a slot's own health path, so that it can be asked long after its configuration changed.
pub(super) const HEALTH_VARIABLE: &str = "SWITCHOVER_HEALTH";

impl LocalTarget {
    pub(super) async fn read(&self, desired: &Desired, epoch: Epoch) -> Observed {
        let status = match self.agent().status().await {
            Ok(status) => status,
            Err(e) => return Observed::unreachable(e.to_string()),
        };
        let mut fence = Fence::Ours;
        let mut apps = BTreeMap::new();
        for app in &desired.apps {
            let id = service_id(&desired.key, &app.name);
            let Some(service) = status.services.get(&id) else {
                fence = if fence == Fence::Higher { fence } else { Fence::Lower };
                continue;
            };
            fence = match service.epoch.cmp(&epoch) {
                std::cmp::Ordering::Greater => Fence::Higher,
                std::cmp::Ordering::Less if fence != Fence::Higher => Fence::Lower,
                _ => fence,
            };
            apps.insert(app.name.clone(), self.app(&id, app, service).await);
        }
        Observed::of(fence, apps)
    }

    async fn app(&self, id: &str, app: &DesiredApp, service: &ServiceStatus) -> ObservedApp {
        let web = app.kind == AppKind::Web;
        let drift = (service.listen.is_some() != web).then(|| {
            "it was released as the other kind (web or worker) before; remove it from the agent first".to_owned()
        });
        let slots = join_all(service.slots.iter().filter_map(|(name, status)| {
            // A name that is none of ours can't be switched to or from; as the active one it is drift.
            let slot = Slot::new(name.clone()).ok()?;
            Some(async move { (slot, self.slot(id, name, status, web).await) })
        }))
        .await;
        let active = service.active.clone();
        let known = active.clone().and_then(|a| Slot::new(a).ok());
        let drift = drift.or_else(|| {
            (active.is_some() && known.is_none())
                .then(|| format!("it is served by {active:?}, which is no slot of ours"))
        });
        let slots = slots.into_iter().collect();
        ObservedApp { active: known, drift, settled: true, handover: false, behind: false, slots }
    }

    async fn slot(&self, service: &str, name: &str, status: &SlotStatus, web: bool) -> ObservedSlot {
        let path = match &status.source {
            SlotSource::Process(spec) => spec.env.get(HEALTH_VARIABLE).cloned(),
            SlotSource::Upstreams { .. } => None,
        };
        let answers =
            join_all(
                status.instances.iter().enumerate().map(|(i, copy)| {
                    let path = path.as_deref();
                    async move {
                        (i, copy, if status.running { answer(copy, web, path).await } else { Err("stopped".into()) })
                    }
                }),
            )
            .await;
        let now = clock::now();
        let mut ready = self.ready.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut why = None;
        let copies: Vec<_> = answers
            .into_iter()
            .map(|(i, copy, answer)| {
                let pid = copy.pid.map(|p| p.to_string()).unwrap_or_default();
                let ready = answer.map_err(|words| {
                    if why.is_none() {
                        why = Some(self.mask(&explain(i, copy, &words)));
                    }
                });
                ready.ok().map(|()| pid)
            })
            .collect();
        let wanted = copies.len();
        let seen = ready.look(service, name, wanted, &copies, now);
        ObservedSlot {
            short: false,
            running: status.running,
            wanted: u32::try_from(wanted).unwrap_or(u32::MAX),
            ready: seen.count,
            ready_since: seen.since,
            unready_since: seen.unready_since,
            restarts: status.instances.iter().map(|i| i.restarts).sum(),
            requests: requests(status.counters),
            pinned: 0,
            why,
        }
    }

    /// Forgets what was known of a slot that is gone.
    pub(super) fn forget_readiness(&self, service: &str, slot: &str) {
        let mut ready = self.ready.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        ready.forget(service, slot);
    }
}

async fn answer(copy: &InstanceStatus, web: bool, path: Option<&str>) -> Result<(), String> {
    match (copy.pid, copy.address) {
        (None, _) => Err("it does not run".to_owned()),
        (Some(_), Some(address)) if web => health::check(address, path).await,
        (Some(_), _) => Ok(()),
    }
}

/// Why a copy is not ready: its answer, how it ended before, what it printed last.
fn explain(index: usize, copy: &InstanceStatus, words: &str) -> String {
    let mut text = format!("copy {}: {words}", index + 1);
    if let Some(end) = &copy.last_exit {
        text = format!("{text}; it ended before with {end}");
        if copy.restarts > 0 {
            text = format!("{text} and was restarted {} times", copy.restarts);
        }
        let from = copy.last_output.len().saturating_sub(30);
        for line in &copy.last_output[from..] {
            text.push('\n');
            text.push_str(line);
        }
    }
    text
}

/// The services of one environment.
pub(super) fn live(status: &AgentStatus, key: &EnvironmentKey) -> Live {
    let prefix = format!("{key}/");
    let apps = status.services.iter().filter_map(|(id, service)| {
        let name = AppName::new(id.strip_prefix(&prefix)?).ok()?;
        let active = service.active.clone().and_then(|a| Slot::new(a).ok());
        let counters = service.active.as_ref().and_then(|a| service.slots.get(a)).map(|s| s.counters);
        let slots = service.slots.iter().filter_map(|(name, slot)| {
            let up = slot.instances.iter().filter(|i| i.pid.is_some()).count();
            let words = match slot.running {
                true => format!("{up} of {} running", slot.instances.len()),
                false => "stopped".to_owned(),
            };
            Some((Slot::new(name.clone()).ok()?, words))
        });
        let app = LiveApp {
            active,
            since: service.switched_at,
            epoch: Some(service.epoch),
            slots: slots.collect(),
            address: service.listen.map(|l| format!("http://{l}")),
            requests: counters.map(requests).unwrap_or_default(),
        };
        Some((name, app))
    });
    Live { apps: apps.collect() }
}

//! Reading the live system: the agent's status, the engine's containers, and each copy asked for its health.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::PoisonError,
};

use bollard::models::{ContainerSummaryStateEnum as State, HealthStatusEnum};
use futures_util::future::join_all;

use super::{
    DockerTarget,
    engine::{Details, Found},
};
use crate::{
    agent::protocol::{AgentStatus, ServiceStatus, SlotSource, SlotStatus},
    clock,
    domain::{
        config::AppKind,
        ids::{AppName, Epoch, Slot},
        rollout::{
            Desired, DesiredApp, EnvironmentKey, Fence, Live, LiveApp, Observed, ObservedApp, ObservedSlot, Requests,
        },
    },
    rollout::{TargetError, health, local::service_id, shared::requests},
};

/// Where the agent sends a slot's requests.
pub(super) fn upstreams(slot: &SlotStatus) -> &[SocketAddr] {
    match &slot.source {
        SlotSource::Upstreams { addresses } => addresses,
        SlotSource::Process(_) => &[],
    }
}

/// One copy, as it was found.
struct Copy {
    /// Which process of it, when it is ready.
    ready: Option<String>,
    restarts: u32,
    /// Why it is not ready.
    why: Option<String>,
}

impl DockerTarget {
    pub(super) async fn read(&self, desired: &Desired, epoch: Epoch) -> Observed {
        let status = match self.agent().status().await {
            Ok(status) => status,
            Err(e) => return Observed::unreachable(e.to_string()),
        };
        let found = match self.engine.slots(&desired.key).await {
            Ok(found) => found,
            Err(fault) => return Observed::unreachable(TargetError::from(fault).to_string()),
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
            match self.app(&id, app, service, &found).await {
                Ok(seen) => _ = apps.insert(app.name.clone(), seen),
                Err(away) => return Observed::unreachable(away.to_string()),
            }
        }
        Observed::of(fence, apps)
    }

    async fn app(
        &self,
        id: &str,
        app: &DesiredApp,
        service: &ServiceStatus,
        found: &[Found],
    ) -> Result<ObservedApp, TargetError> {
        let web = app.kind == AppKind::Web;
        let drift = (service.listen.is_some() != web).then(|| {
            "it was released as the other kind (web or worker) before; remove it from the agent first".to_owned()
        });
        let mut slots = BTreeMap::new();
        for slot in slots_of(service, &app.name, found) {
            let copies: Vec<_> = found.iter().filter(|f| f.app == app.name && f.slot == slot).collect();
            let seen = self.slot(id, &slot, service.slots.get(slot.as_str()), &copies, web).await?;
            slots.insert(slot, seen);
        }
        let active = service.active.clone();
        let known = active.clone().and_then(|a| Slot::new(a).ok());
        let drift = drift.or_else(|| {
            (active.is_some() && known.is_none())
                .then(|| format!("it is served by {active:?}, which is no slot of ours"))
        });
        Ok(ObservedApp { active: known, drift, settled: true, handover: false, behind: false, slots })
    }

    async fn slot(
        &self,
        service: &str,
        slot: &Slot,
        routed: Option<&SlotStatus>,
        found: &[&Found],
        web: bool,
    ) -> Result<ObservedSlot, TargetError> {
        let requests = routed.map(|s| requests(s.counters)).unwrap_or_default();
        if let Some(SlotSource::Process(_)) = routed.map(|s| &s.source) {
            return Ok(self.of_processes(service, slot, routed, requests));
        }
        let routes = routed.map(upstreams).unwrap_or_default();
        let labelled = found.iter().map(|f| f.replicas as usize).max().unwrap_or(0);
        let wanted = labelled.max(routes.len()).max(1);
        let running = match web {
            true => routed.is_some_and(|s| s.running),
            false => found.iter().any(|f| f.is_kept()),
        };
        let looked = join_all((0..wanted).map(|i| {
            let copy = found.iter().find(|f| f.number as usize == i);
            async move {
                match copy {
                    None => Ok(Copy { ready: None, restarts: 0, why: Some("its container is gone".to_owned()) }),
                    Some(copy) => self.copy_state(copy, web.then_some(routes), running).await,
                }
            }
        }))
        .await;
        let copies = looked.into_iter().collect::<Result<Vec<_>, TargetError>>()?;
        let why = copies.iter().enumerate().find_map(|(i, c)| Some((i, c.why.as_ref()?)));
        let why = why.map(|(i, words)| self.mask(&format!("copy {}: {words}", i + 1)));
        let ready: Vec<_> = copies.iter().map(|c| c.ready.clone()).collect();
        let mut known = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = known.look(service, slot.as_str(), wanted, &ready, clock::now());
        Ok(ObservedSlot {
            short: false,
            running,
            wanted: u32::try_from(wanted).unwrap_or(u32::MAX),
            ready: seen.count,
            ready_since: seen.since,
            unready_since: seen.unready_since,
            restarts: copies.iter().map(|c| c.restarts).sum(),
            requests,
            pinned: 0,
            why,
        })
    }

    /// A slot from before the environment moved here: processes of the agent, which looks after them itself.
    fn of_processes(
        &self,
        service: &str,
        slot: &Slot,
        routed: Option<&SlotStatus>,
        requests: Requests,
    ) -> ObservedSlot {
        let instances = routed.map(|s| s.instances.as_slice()).unwrap_or_default();
        let ready: Vec<_> = instances.iter().map(|i| i.pid.map(|p| p.to_string())).collect();
        let mut known = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = known.look(service, slot.as_str(), ready.len(), &ready, clock::now());
        ObservedSlot {
            short: false,
            running: routed.is_some_and(|s| s.running),
            wanted: u32::try_from(ready.len()).unwrap_or(u32::MAX),
            ready: seen.count,
            ready_since: seen.since,
            unready_since: seen.unready_since,
            restarts: instances.iter().map(|i| i.restarts).sum(),
            requests,
            pinned: 0,
            why: None,
        }
    }

    async fn copy_state(
        &self,
        copy: &Found,
        routes: Option<&[SocketAddr]>,
        running: bool,
    ) -> Result<Copy, TargetError> {
        let before = self.details.lock().unwrap_or_else(PoisonError::into_inner).get(&copy.id).cloned();
        let mut details = match self.engine.details(copy, before).await {
            Ok(details) => details,
            Err(super::engine::Fault::Missing(_)) => {
                return Ok(Copy { ready: None, restarts: 0, why: Some("its container is gone".to_owned()) });
            }
            Err(fault) => return Err(fault.into()),
        };
        let answer = answer(copy, &details, routes, running).await;
        // What it printed tells why; of a slot that was stopped on purpose nobody asks.
        if answer.is_err() && running {
            self.engine.read_tail(&copy.id, &mut details).await;
        }
        let (restarts, started) = (details.restarts, details.started.clone());
        let why = answer.as_ref().err().map(|words| told(words, &details));
        self.details.lock().unwrap_or_else(PoisonError::into_inner).insert(copy.id.clone(), details);
        let ready = answer.ok().map(|()| format!("{} {started}", copy.id));
        Ok(Copy { ready, restarts, why })
    }

    /// Forgets what was known of containers and slots that are gone.
    pub(super) fn forget_looks(&self, service: &str, slot: &str, ids: &[String]) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).forget(service, slot);
        self.details.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| !ids.contains(id));
    }
}

/// Whether a copy is ready, or why not.
async fn answer(copy: &Found, details: &Details, routes: Option<&[SocketAddr]>, running: bool) -> Result<(), String> {
    match copy.state {
        State::RUNNING => {}
        _ if !running => return Err("stopped".to_owned()),
        State::PAUSED => return Err("it is paused (`docker unpause` lets it go on)".to_owned()),
        State::RESTARTING => return Err("the engine starts it again".to_owned()),
        _ => return Err("it does not run".to_owned()),
    }
    let Some(routes) = routes else { return checked(details) };
    let Some(address) = copy.route() else { return Err("it has no address".to_owned()) };
    if !routes.contains(&address) {
        return Err(format!("it answers at {address}, and the agent sends no requests there"));
    }
    match (&copy.health, details.check) {
        (Some(path), _) => health::check(address, Some(path)).await,
        // Whoever wrote one knows best.
        (None, Some(_)) => checked(details),
        (None, None) => health::check(address, None).await,
    }
}

/// What the image's own HEALTHCHECK says, if it has one.
fn checked(details: &Details) -> Result<(), String> {
    match details.check {
        None | Some(HealthStatusEnum::HEALTHY) => Ok(()),
        Some(HealthStatusEnum::UNHEALTHY) => Err("its HEALTHCHECK fails".to_owned()),
        Some(_) => Err("its HEALTHCHECK has not succeeded yet".to_owned()),
    }
}

/// Why a copy is not ready: its answer, how it ended before, what it printed last.
fn told(words: &str, details: &Details) -> String {
    let mut text = words.to_owned();
    if let Some(ended) = &details.ended {
        text = format!("{text}; {ended}");
    }
    if details.restarts > 0 {
        text = format!("{text} and was restarted {} times", details.restarts);
    }
    for line in &details.tail {
        text.push('\n');
        text.push_str(line);
    }
    text
}

/// All slots of an app: those that the agent knows, and those that only have containers.
fn slots_of(service: &ServiceStatus, app: &AppName, found: &[Found]) -> BTreeSet<Slot> {
    // A name that is none of ours can't be switched to or from; as the active one it is drift.
    let routed = service.slots.keys().filter_map(|name| Slot::new(name.clone()).ok());
    routed.chain(found.iter().filter(|f| &f.app == app).map(|f| f.slot.clone())).collect()
}

/// What stands in an environment.
pub(super) fn live(status: &AgentStatus, key: &EnvironmentKey, found: &[Found]) -> Live {
    let prefix = format!("{key}/");
    let apps = status.services.iter().filter_map(|(id, service)| {
        let name = AppName::new(id.strip_prefix(&prefix)?).ok()?;
        let active = service.active.clone().and_then(|a| Slot::new(a).ok());
        let counters = service.active.as_ref().and_then(|a| service.slots.get(a)).map(|s| s.counters);
        let slots = slots_of(service, &name, found).into_iter().map(|slot| {
            let copies: Vec<_> = found.iter().filter(|f| f.app == name && f.slot == slot).collect();
            let processes = service.slots.get(slot.as_str()).filter(|_| copies.is_empty()).map(|s| &s.instances);
            let up = copies.iter().filter(|f| f.state == State::RUNNING).count()
                + processes.map_or(0, |all| all.iter().filter(|i| i.pid.is_some()).count());
            let all = copies.iter().map(|f| f.replicas as usize).max().or(processes.map(Vec::len)).unwrap_or(0);
            let stopped = up == 0 && !copies.iter().any(|f| f.is_kept());
            let words = if stopped { "stopped".to_owned() } else { format!("{up} of {all} running") };
            (slot, words)
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

//! What is live, as a rollout needs it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::PoisonError,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    KubernetesTarget,
    look::{self, Active, Door, Found, annotation, is_ending, is_ready, name, number, replicas, restarts, text},
    names,
};
use crate::{
    clock,
    cluster::{Kind, Object},
    domain::{
        config::AppKind,
        ids::{AppName, Epoch, Slot},
        rollout::{
            AppManifests, Desired, DesiredApp, EnvironmentKey, Fence, Kind as Way, Live, LiveApp, Observed,
            ObservedApp, ObservedSlot, Requests, after,
        },
    },
    manifests,
    rollout::{ProbeTarget, TargetError},
};

/// Why a pod is not ready is asked for at most this often.
const ASK_WHY: Duration = Duration::from_secs(1);
/// Lines of a container's output that are told when it does badly.
const TAIL: i64 = 30;
/// A node's answer with them may take so long.
const LOG_PATIENCE: Duration = Duration::from_secs(5);
/// At the start, so long until the namespace must be known.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of a client of the API server's between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A door that does not take a connection within so long can't be probed from here.
const REACH: Duration = Duration::from_secs(2);

impl KubernetesTarget {
    pub(super) async fn read(&self, desired: &Desired, epoch: Epoch) -> Observed {
        if let Err(why) = self.watched().ready(PATIENCE).await {
            return Observed::unreachable(why);
        }
        let mut fence = Fence::Ours;
        let mut apps = BTreeMap::new();
        for app in &desired.apps {
            let claimed = self.door(&desired.key, app).and_then(|door| Some((door.epoch()?, door)));
            let Some((known, door)) = claimed else {
                fence = if fence == Fence::Higher { fence } else { Fence::Lower };
                continue;
            };
            fence = match known.cmp(&epoch) {
                std::cmp::Ordering::Greater => Fence::Higher,
                std::cmp::Ordering::Less if fence != Fence::Higher => Fence::Lower,
                _ => fence,
            };
            apps.insert(app.name.clone(), self.app(desired, app, &door).await);
        }
        Observed { follows_since: self.follows_since(), ..Observed::of(fence, apps) }
    }

    async fn app(&self, desired: &Desired, app: &DesiredApp, door: &Door) -> ObservedApp {
        let manifests = app.spec.manifests.as_deref();
        let found = self.slots(&desired.key, &app.name, Some(door), manifests);
        let (active, drift) = match Self::active(door, &found, manifests) {
            Active::Slot(slot) => (Some(slot), None),
            Active::Nothing => (None, None),
            Active::Drift(words) => (None, Some(words)),
        };
        let live = active.as_ref().and_then(|a| found.iter().find(|f| &f.slot == a));
        let size = live.map_or(0, |f| self.size(f));
        let mut slots = BTreeMap::new();
        for slot in &found {
            let is_active = active.as_ref() == Some(&slot.slot);
            // What is idle and down is no slot: its name is only remembered.
            if !is_active && !slot.is_up() {
                continue;
            }
            let new = slot.slot == app.slot && !is_active;
            // The way back must bear what the new slot bears by now.
            let least = if !is_active && app.kind == AppKind::Web { size } else { 0 };
            let mut seen = self.slot(desired, app, door, slot, is_active, new, least).await;
            if new
                && desired.kind == Way::Release
                && seen.full()
                && let Some(words) = live.and_then(|live| left_nodes(door, &self.pods(live).0, &self.pods(slot).0))
            {
                seen = ObservedSlot { ready: 0, ready_since: None, why: Some(words), ..seen };
            }
            slots.insert(slot.slot.clone(), seen);
        }
        let settled = !door.web || live.is_none_or(|live| self.settled(door, live, manifests));
        let handover = self.in_handover(manifests);
        let behind = annotation(&door.object, names::BEHIND).is_some();
        ObservedApp { active, drift, settled, handover, behind, slots }
    }

    /// How large the live slot is right now.
    pub(super) fn size(&self, found: &Found) -> u32 {
        let ready = self.pods(found).0.iter().filter(|p| is_ready(p)).count();
        replicas(&found.deployment).max(u32::try_from(ready).unwrap_or(u32::MAX))
    }

    /// How large a new slot must be: as the live one is NOW, or as the autoscaler's least.
    pub(super) fn wanted_size(&self, desired: &Desired, app: &DesiredApp) -> u32 {
        let manifests = app.spec.manifests.as_deref();
        let live = self.serving(&desired.key, app);
        let scaler = manifests.and_then(|m| m.autoscaler.as_ref());
        let least = scaler.map_or(0, |s| number(s, "/spec/minReplicas").unwrap_or(1));
        let authors = manifests.and_then(|m| m.workloads().next().map(replicas)).unwrap_or(1);
        let written = match scaler {
            Some(_) => least,
            None => app.spec.replicas.max(authors),
        };
        // Without an autoscaler the author's number holds, also where somebody made the live one smaller by hand.
        match (live, scaler) {
            (Some(live), Some(_)) => self.size(&live).max(least),
            _ => written,
        }
        .max(1)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one look, used once")]
    async fn slot(
        &self,
        desired: &Desired,
        app: &DesiredApp,
        door: &Door,
        found: &Found,
        is_active: bool,
        is_new: bool,
        least: u32,
    ) -> ObservedSlot {
        let (pods, strangers) = self.pods(found);
        let autoscaled = app.spec.manifests.as_ref().is_some_and(|m| m.autoscaler.is_some());
        let asked = replicas(&found.deployment);
        let wanted = if autoscaled && is_new { asked.max(least) } else { asked };
        let alive: Vec<&Object> = pods.iter().filter(|p| !is_ending(p)).collect();
        let mut ready: Vec<&Object> = alive.iter().copied().filter(|p| is_ready(p)).collect();
        let mut why = None;
        // On the way back the slot served before, and nothing may come before the flip: a preview that is made or changed then
        // would have kube-proxy hold the flip itself back.
        let to_prove = is_new && door.web && desired.kind == Way::Release;
        if to_prove {
            // Proven by the endpoints that the flip will lead to: nobody else's pods, and all of ours.
            let preview = names::preview(door.name());
            let reached = self.endpoints(&preview);
            let strange = strangers.iter().any(|p| is_ready(p));
            if strange || reached.iter().any(|uid| !pods.iter().any(|p| text(p, "/metadata/uid") == uid)) {
                why = Some("pods of the release before answer under its labels still".to_owned());
                ready.clear();
            }
            ready.retain(|p| reached.contains(text(p, "/metadata/uid")));
        }
        ready.sort_by_key(|p| text(p, "/metadata/uid").to_owned());
        let up = asked > 0;
        if why.is_none() && up && (ready.len() as u64) < u64::from(wanted) {
            let unreached = to_prove && alive.iter().all(|p| is_ready(p));
            why = match unreached.then(|| self.lost_port(&names::preview(door.name()))).flatten() {
                Some(words) => Some(words),
                None => self.why(found, &alive).await,
            };
        }
        let switched = door.switched_at().filter(|_| !is_active && door.web);
        let pinned = switched.map_or(0, |at| pods.iter().filter(|p| !is_ending(p) && made_before(p, at)).count());
        let copies: Vec<Option<String>> =
            ready.iter().take(wanted as usize).map(|p| Some(text(p, "/metadata/uid").to_owned())).collect();
        let service = format!("{}/{}", desired.key, app.name);
        let mut known = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = known.look(&service, found.slot.as_str(), wanted as usize, &copies, clock::now());
        ObservedSlot {
            running: up,
            wanted,
            short: autoscaled && asked < least,
            ready: seen.count,
            ready_since: seen.since,
            unready_since: seen.unready_since,
            restarts: pods.iter().map(|p| restarts(p)).sum(),
            requests: Requests::default(),
            pinned: u32::try_from(pinned).unwrap_or(u32::MAX),
            why: why.map(|w| self.mask(&w)),
        }
    }

    /// Whether everybody is led to the live slot's pods alone: the endpoints say so, and every node had time to follow, and
    /// a load balancer with a list of its own.
    pub(super) fn settled(&self, door: &Door, live: &Found, manifests: Option<&AppManifests>) -> bool {
        let reached = self.endpoints(door.name());
        let pods = self.pods(live).0;
        let ours = reached.iter().all(|uid| pods.iter().any(|p| text(p, "/metadata/uid") == uid));
        let mut led = self.led.lock().unwrap_or_else(PoisonError::into_inner);
        if !ours || reached.is_empty() {
            led.remove(door.name());
            return false;
        }
        let Some(flip) = door.switched_at() else { return true };
        // The nodes hear of it from the endpoints, which may come later than the flip.
        let known = led.get(door.name()).filter(|(of, _)| *of == flip).map_or_else(clock::now, |(_, since)| *since);
        led.insert(door.name().to_owned(), (flip, known));
        let since = self.follows_since().map_or(known, |at| at.max(known));
        let ways_in = manifests.map(|m| m.shared.as_slice()).unwrap_or_default();
        let mut ways_in = ways_in.iter().filter(|o| manifests::leads_to(o, door.name()));
        let listed = manifests::lists_pods(&door.object).is_some()
            || ways_in.any(|ingress| manifests::lists_pods(ingress).is_some());
        clock::now() >= after(since, if listed { self.config.balancer_settle } else { self.config.settle })
    }

    /// Since when the nodes follow again what the API server was told, if it was away.
    fn follows_since(&self) -> Option<Timestamp> {
        self.watched().gap().map(|gap| after(gap.ended, catch_up(gap.lasted)))
    }

    /// The autoscaler still must not shrink anything.
    fn in_handover(&self, manifests: Option<&AppManifests>) -> bool {
        let scaler = manifests.and_then(|m| m.autoscaler.as_ref());
        let live = scaler.and_then(|s| self.watched().get(Kind::Autoscaler, name(s)));
        live.is_some_and(|s| annotation(&s, names::HANDOVER).is_some())
    }

    /// Why not all copies are ready, in words.
    async fn why(&self, found: &Found, alive: &[&Object]) -> Option<String> {
        let unready = alive.iter().find(|p| !is_ready(p));
        let about = unready.map_or_else(|| name(&found.deployment), |p| name(p)).to_owned();
        {
            let known = self.whys.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, words)) = known.get(&about).filter(|(at, _)| at.elapsed() < ASK_WHY) {
                return words.clone();
            }
        }
        let words = match unready {
            Some(pod) => {
                let events = self.events(text(pod, "/metadata/uid")).await;
                let tail = self.tail(pod).await;
                manifests::why(pod, &events, tail.as_deref()).map(|w| format!("pod {}: {w}", name(pod)))
            }
            None => {
                let events = self.events_of_kind("ReplicaSet", name(&found.deployment)).await;
                manifests::why_no_pods(&found.deployment, &events)
            }
        };
        let mut known = self.whys.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (at, _)| at.elapsed() < Duration::from_secs(60));
        known.insert(about, (Instant::now(), words.clone()));
        words
    }

    async fn events(&self, uid: &str) -> Vec<Value> {
        self.list_events(&format!("involvedObject.uid={uid}")).await
    }

    /// Events of the ReplicaSets of a Deployment: their names begin with its own.
    async fn events_of_kind(&self, kind: &str, prefix: &str) -> Vec<Value> {
        let mut all = self.list_events(&format!("involvedObject.kind={kind}")).await;
        all.retain(|e| text(e, "/involvedObject/name").starts_with(&format!("{prefix}-")));
        all
    }

    async fn list_events(&self, selector: &str) -> Vec<Value> {
        let params = kube::api::ListParams::default().fields(selector).limit(200);
        self.cluster().list("v1", "Event", &params).await.unwrap_or_default()
    }

    /// The last lines of the container that does badly.
    async fn tail(&self, pod: &Value) -> Option<Vec<String>> {
        let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array)?;
        let bad = statuses.iter().find(|c| c.get("ready").and_then(Value::as_bool) != Some(true))?;
        // One that ended and was not started again is the last run itself; else the run before it is meant.
        let previous = bad.pointer("/state/terminated").is_none() && number(bad, "/restartCount").unwrap_or(0) > 0;
        let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
            kube::Api::namespaced(self.cluster().client(), self.cluster().namespace());
        let params = kube::api::LogParams {
            container: Some(text(bad, "/name").to_owned()),
            previous,
            tail_lines: Some(TAIL),
            limit_bytes: Some(64 * 1024),
            ..kube::api::LogParams::default()
        };
        // Words are a help, and no reason to wait for a node that hangs.
        let log = tokio::time::timeout(LOG_PATIENCE, pods.logs(name(pod), &params)).await.ok()?.ok()?;
        // The kubelet's word for a log that is gone; it comes as if it were the log.
        if log.starts_with("unable to retrieve container logs for") {
            return None;
        }
        Some(log.lines().map(|l| self.mask(l)).collect())
    }

    /// Forgets what was known of a slot that is gone.
    pub(super) fn forget_looks(&self, key: &EnvironmentKey, app: &AppName, slot: &Slot) {
        let mut known = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        known.forget(&format!("{key}/{app}"), slot.as_str());
    }

    pub(super) async fn standing(&self, key: &EnvironmentKey) -> Result<Live, TargetError> {
        self.watched().ready(PATIENCE).await.map_err(TargetError::Unreachable)?;
        let mut apps = BTreeMap::new();
        for (app, door) in self.doors(key) {
            apps.insert(app.clone(), self.live_app(key, &app, &door, None));
        }
        Ok(Live { apps })
    }

    pub(super) fn live_app(
        &self,
        key: &EnvironmentKey,
        app: &AppName,
        door: &Door,
        manifests: Option<&AppManifests>,
    ) -> LiveApp {
        let found = self.slots(key, app, Some(door), manifests);
        let active = match Self::active(door, &found, manifests) {
            Active::Slot(slot) => Some(slot),
            Active::Nothing | Active::Drift(_) => None,
        };
        let up = found.iter().filter(|f| active.as_ref() == Some(&f.slot) || f.is_up());
        let slots = up.map(|f| {
            let ready = self.pods(f).0.iter().filter(|p| is_ready(p)).count();
            let words = match replicas(&f.deployment) {
                0 => "stopped".to_owned(),
                all => format!("{ready} of {all} ready"),
            };
            (f.slot.clone(), words)
        });
        LiveApp {
            slots: slots.collect(),
            active,
            since: door.switched_at(),
            epoch: door.epoch(),
            address: door_address(door).map(|a| format!("http://{a}")),
            requests: Requests::default(),
        }
    }

    /// Where the prober asks: through the Service, as pods of the cluster do; only where that can be reached from here.
    pub(super) async fn doors_to_probe(&self, desired: &Desired) -> Vec<ProbeTarget> {
        let mut targets = Vec::new();
        for app in desired.apps.iter().filter(|a| a.kind == AppKind::Web) {
            let Some(path) = app.spec.probe.path.clone() else { continue };
            let Some(door) = self.door(&desired.key, app) else { continue };
            let Some(address) = reachable(&door).await else { continue };
            targets.push(ProbeTarget {
                https: false,
                app: app.name.clone(),
                address,
                host: app.spec.hosts.first().cloned().unwrap_or_else(|| door.name().to_owned()),
                path,
                body: app.spec.probe.body.clone(),
                interval: app.spec.probe.interval,
            });
        }
        targets
    }
}

/// Nodes where requests are answered now and would be dropped after the flip, in words. Only where a request stays on the
/// node that it came to.
pub(super) fn left_nodes(door: &Door, serve: &[Object], follow: &[Object]) -> Option<String> {
    let field = manifests::keeps_to_nodes(&door.object)?;
    let nodes = |pods: &[Object]| -> BTreeSet<String> {
        pods.iter().filter(|p| is_ready(p)).map(|p| text(p, "/spec/nodeName").to_owned()).collect()
    };
    let left: Vec<String> = nodes(serve).difference(&nodes(follow)).cloned().collect();
    let on = match left.as_slice() {
        [] => return None,
        [one] => format!("the node {one}"),
        several => format!("the nodes {}", several.join(", ")),
    };
    Some(format!(
        "its pods are ready, and none is on {on}, where the release before answers: with `{field}: Local` requests that come \
         to there would be dropped. Make room there, add copies, or remove that line"
    ))
}

/// So long after an outage a node's proxy may try again for the last time: its pauses double from 0.8 s up to 30 s, each by
/// chance up to twice as long, and begin anew only when there was no outage for two minutes (client-go, `Reflector`). A
/// watch that merely broke is no outage.
fn catch_up(outage: Duration) -> Duration {
    if outage < Duration::from_secs(1) { outage.saturating_mul(2) + Duration::from_secs(2) } else { LONGEST_PAUSE }
}

/// Made before that moment. Creation times have whole seconds.
fn made_before(pod: &Value, at: Timestamp) -> bool {
    text(pod, "/metadata/creationTimestamp").parse::<Timestamp>().is_ok_and(|made| made < at)
}

/// The Service's address within the cluster.
pub(super) fn door_address(door: &Door) -> Option<SocketAddr> {
    let ip: IpAddr = text(&door.object, "/spec/clusterIP").parse().ok()?;
    Some(SocketAddr::new(ip, first_port(&door.object)?))
}

fn first_port(service: &Value) -> Option<u16> {
    look::number(service, "/spec/ports/0/port").and_then(|p| u16::try_from(p).ok())
}

/// The first of its addresses that takes a connection from here: of the cluster, of a load balancer.
async fn reachable(door: &Door) -> Option<SocketAddr> {
    let balancers = door.object.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
    let port = first_port(&door.object)?;
    let outside = balancers.into_iter().flatten().filter_map(|i| text(i, "/ip").parse::<IpAddr>().ok());
    let all = door_address(door).into_iter().chain(outside.map(|ip| SocketAddr::new(ip, port)));
    for address in all {
        let connect = tokio::net::TcpStream::connect(address);
        if matches!(tokio::time::timeout(REACH, connect).await, Ok(Ok(_))) {
            return Some(address);
        }
    }
    None
}

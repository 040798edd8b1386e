//! The live objects of a namespace, kept current by one watch for each kind.
//!
//! Reads come from here, so nobody polls; what we wrote ourselves is seen at once, because the API server's answer to a
//! write is kept like an event. While a watch is broken, nothing is concluded from what was known before.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::StreamExt as _;
use jiff::Timestamp;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, ListParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Cluster, Fault, error::chain, objects::answered};
use crate::clock;

/// A watch is asked for anew after so many seconds: a connection that died without a word is found within them.
const WATCH_SECONDS: u32 = 55;
/// The API server ends a watch after [`WATCH_SECONDS`]; one that has not by then is dead.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);
/// Pauses between tries while the API server is away.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Kinds that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `apps/v1`.
    Deployment,
    /// `v1`.
    Pod,
    /// `v1`.
    Service,
    /// `discovery.k8s.io/v1`.
    EndpointSlice,
    /// `autoscaling/v2`.
    Autoscaler,
    /// `v1`; only those of ours that say which worker runs.
    Pointer,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Deployment, Self::Pod, Self::Service, Self::EndpointSlice, Self::Autoscaler, Self::Pointer];

    /// As the API server names it.
    #[must_use]
    pub fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = match self {
            Self::Deployment => ("apps", "v1", "Deployment", "deployments"),
            Self::Pod => ("", "v1", "Pod", "pods"),
            Self::Service => ("", "v1", "Service", "services"),
            Self::EndpointSlice => ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
            Self::Autoscaler => ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
            Self::Pointer => ("", "v1", "ConfigMap", "configmaps"),
        };
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        ApiResource {
            group: group.into(),
            version: version.into(),
            api_version,
            kind: kind.into(),
            plural: plural.into(),
        }
    }

    fn labels(self) -> Option<String> {
        (self == Self::Pointer).then(|| format!("{}=pointer", super::KIND))
    }
}

/// One object, as JSON, without the records of its managers.
pub type Object = Arc<Value>;

/// The objects of one kind by name.
#[derive(Default)]
struct Shelf {
    objects: BTreeMap<String, Object>,
    /// It was listed once, and the watch since then is unbroken.
    current: bool,
    /// Why it is not.
    broken: Option<String>,
    /// Since when it is not, where it can't be listed or watched.
    broken_at: Option<Timestamp>,
}

/// A time in which nothing could be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// When all was known again.
    pub ended: Timestamp,
    /// How long it lasted.
    pub lasted: Duration,
}

/// The live objects of one namespace. Cheap to clone; the watches end with the last clone.
#[derive(Clone)]
pub struct Watched(Arc<Inner>);

struct Inner {
    cluster: Cluster,
    shelves: Mutex<HashMap<Kind, Shelf>>,
    gap: Mutex<Option<Gap>>,
    version: watch::Sender<u64>,
    stop: CancellationToken,
    _tasks: TaskTracker,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What the tasks share with [`Inner`], without keeping it alive.
#[derive(Clone)]
struct Feed(std::sync::Weak<Inner>);

impl Watched {
    /// Begins to watch. What is there is known a moment later: see [`Self::ready`].
    #[must_use]
    pub fn start(cluster: Cluster) -> Self {
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let inner = Arc::new(Inner {
            cluster: cluster.clone(),
            shelves: Mutex::default(),
            gap: Mutex::default(),
            version: watch::Sender::new(0),
            stop: stop.clone(),
            _tasks: tasks.clone(),
        });
        for kind in Kind::ALL {
            let (feed, cluster, stop) = (Feed(Arc::downgrade(&inner)), cluster.clone(), stop.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = follow(kind, cluster, feed) => {}
                }
            });
        }
        Self(inner)
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.0.cluster
    }

    fn shelves(&self) -> MutexGuard<'_, HashMap<Kind, Shelf>> {
        self.0.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until every kind was listed, at most so long.
    ///
    /// # Errors
    /// Why what is known is not current.
    pub async fn ready(&self, patience: Duration) -> Result<(), String> {
        let mut version = self.0.version.subscribe();
        let current = async {
            while self.current().is_err() {
                if version.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(patience, current).await;
        self.current()
    }

    /// Whether what is known is current.
    ///
    /// # Errors
    /// Why not.
    pub fn current(&self) -> Result<(), String> {
        let shelves = self.shelves();
        for kind in Kind::ALL {
            match shelves.get(&kind) {
                Some(shelf) if shelf.current => {}
                Some(Shelf { broken: Some(why), .. }) => {
                    return Err(format!("the API server at {} does not answer: {why}", self.0.cluster.address()));
                }
                _ => return Err("the cluster's objects are being listed".to_owned()),
            }
        }
        Ok(())
    }

    /// The last time in which the API server could not be seen, if there was one since this was started.
    #[must_use]
    pub fn gap(&self) -> Option<Gap> {
        *self.0.gap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One object.
    #[must_use]
    pub fn get(&self, kind: Kind, name: &str) -> Option<Object> {
        self.shelves().get(&kind)?.objects.get(name).cloned()
    }

    /// All objects of a kind, by name.
    #[must_use]
    pub fn all(&self, kind: Kind) -> Vec<Object> {
        self.shelves().get(&kind).map(|s| s.objects.values().cloned().collect()).unwrap_or_default()
    }

    /// Changes with every change of anything.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    /// Keeps the API server's answer to a write of ours, unless something newer is known.
    pub fn remember(&self, kind: Kind, object: Value) {
        self.0.put(kind, object);
    }

    /// Keeps that an object of ours was deleted for good.
    pub fn forget(&self, kind: Kind, name: &str) {
        if let Some(shelf) = self.shelves().get_mut(&kind) {
            shelf.objects.remove(name);
        }
        self.0.version.send_modify(|v| *v += 1);
    }
}

/// Resource versions of the API server are numbers that grow, whatever the documentation reserves itself ("Comparable
/// Resource Version" makes it a promise from Kubernetes 1.35 on); one that is none counts as newer.
fn newer(known: &Value, found: &Value) -> bool {
    let of = |v: &Value| v.pointer("/metadata/resourceVersion")?.as_str()?.parse::<u64>().ok();
    match (of(known), of(found)) {
        (Some(known), Some(found)) => found >= known,
        _ => true,
    }
}

fn name_of(object: &Value) -> Option<String> {
    Some(object.pointer("/metadata/name")?.as_str()?.to_owned())
}

/// Without what only the API server needs, and is most of the bytes.
fn trimmed(object: DynamicObject) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.shift_remove("managedFields");
    }
    value
}

impl Inner {
    fn shelf<T>(&self, kind: Kind, act: impl FnOnce(&mut Shelf) -> T) -> T {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        act(shelves.entry(kind).or_default())
    }

    /// A gap that began then is over. The kinds' gaps of one outage are one.
    fn add_gap(&self, began: Timestamp) {
        let ended = clock::now();
        let lasted = ended.duration_since(began).unsigned_abs();
        let mut gap = self.gap.lock().unwrap_or_else(PoisonError::into_inner);
        let before = gap.filter(|known| known.ended >= began).map_or(Duration::ZERO, |known| known.lasted);
        *gap = Some(Gap { ended, lasted: lasted.max(before) });
    }

    fn put(&self, kind: Kind, object: Value) {
        let Some(name) = name_of(&object) else { return };
        self.shelf(kind, |shelf| {
            if shelf.objects.get(&name).is_none_or(|known| newer(known, &object)) {
                shelf.objects.insert(name, Arc::new(object));
            }
        });
        self.version.send_modify(|v| *v += 1);
    }
}

impl Feed {
    fn with(&self, act: impl FnOnce(&Inner)) -> bool {
        self.0.upgrade().map(|inner| act(&inner)).is_some()
    }

    fn broken(&self, kind: Kind, why: String) {
        self.with(|inner| {
            inner.shelf(kind, |shelf| {
                shelf.current = false;
                shelf.broken = Some(why);
                shelf.broken_at.get_or_insert_with(clock::now);
            });
            inner.version.send_modify(|v| *v += 1);
        });
    }

    fn current(&self, kind: Kind) {
        self.with(|inner| {
            let (was, broken_at) = inner.shelf(kind, |shelf| {
                shelf.broken = None;
                (std::mem::replace(&mut shelf.current, true), shelf.broken_at.take())
            });
            if let Some(at) = broken_at {
                inner.add_gap(at);
            }
            if !was {
                inner.version.send_modify(|v| *v += 1);
            }
        });
    }

    /// `version`: of the list as a whole. What we wrote ourselves since then stays known.
    fn list(&self, kind: Kind, found: Vec<Value>, version: &str) {
        let read = json!({"metadata": {"resourceVersion": version}});
        self.with(|inner| {
            inner.shelf(kind, |shelf| {
                let mut objects: BTreeMap<_, _> =
                    found.into_iter().filter_map(|o| Some((name_of(&o)?, Arc::new(o)))).collect();
                for (name, known) in std::mem::take(&mut shelf.objects) {
                    if !newer(&known, &read) {
                        objects.insert(name, known);
                    }
                }
                shelf.objects = objects;
            });
        });
    }

    fn event(&self, kind: Kind, event: WatchEvent<DynamicObject>) -> Result<Option<String>, Fault> {
        match event {
            WatchEvent::Added(o) | WatchEvent::Modified(o) => {
                let version = o.metadata.resource_version.clone();
                self.with(|inner| inner.put(kind, trimmed(o)));
                Ok(version)
            }
            WatchEvent::Deleted(o) => {
                let version = o.metadata.resource_version.clone();
                let gone = trimmed(o);
                self.with(|inner| {
                    inner.shelf(kind, |shelf| {
                        // One of the same name may have been made since.
                        if let Some(name) = name_of(&gone)
                            && shelf.objects.get(&name).is_some_and(|known| newer(known, &gone))
                        {
                            shelf.objects.remove(&name);
                        }
                    });
                    inner.version.send_modify(|v| *v += 1);
                });
                Ok(version)
            }
            WatchEvent::Bookmark(mark) => Ok(Some(mark.metadata.resource_version)),
            WatchEvent::Error(status) => Err(Fault::from(kube::Error::Api(status))),
        }
    }
}

async fn with_newest_credentials(kind: Kind, cluster: &Cluster) -> Api<DynamicObject> {
    if let Err(error) = cluster.renew().await {
        tracing::warn!(%error, "the kubeconfig was changed and can't be read; the old one stays in use");
    }
    Api::namespaced_with(cluster.watcher(), cluster.namespace(), &kind.resource())
}

/// Lists and watches one kind for ever ("Kubernetes API Concepts", "Efficient detection of changes").
async fn follow(kind: Kind, cluster: Cluster, feed: Feed) {
    let mut pause = PAUSE.0;
    loop {
        let api = with_newest_credentials(kind, &cluster).await;
        let params = ListParams { label_selector: kind.labels(), ..ListParams::default() };
        let listed = answered(api.list(&params)).await.and_then(|l| Ok(l?));
        let mut version = match listed {
            Ok(list) => {
                let version = list.metadata.resource_version.unwrap_or_default();
                feed.list(kind, list.items.into_iter().map(trimmed).collect(), &version);
                version
            }
            Err(fault) => {
                feed.broken(kind, fault.words().to_owned());
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
                continue;
            }
        };
        loop {
            let api = with_newest_credentials(kind, &cluster).await;
            let asked = WatchParams { label_selector: kind.labels(), ..WatchParams::default() }.timeout(WATCH_SECONDS);
            let end = match answered(api.watch(&asked, &version)).await.and_then(|w| Ok(w?)) {
                Ok(events) => {
                    // The watch is accepted: from here on nothing is missed.
                    feed.current(kind);
                    pause = PAUSE.0;
                    let mut events = std::pin::pin!(events);
                    loop {
                        let Ok(event) = tokio::time::timeout(SILENCE, events.next()).await else {
                            break Err(Fault::Away("it has become silent".to_owned()));
                        };
                        match event {
                            Some(Ok(event)) => match feed.event(kind, event) {
                                Ok(seen) => version = seen.unwrap_or(version),
                                Err(fault) => break Err(fault),
                            },
                            Some(Err(e)) => break Err(Fault::Away(chain(&e))),
                            None => break Ok(()),
                        }
                    }
                }
                Err(fault) => Err(fault),
            };
            match end {
                Ok(()) => {}
                // What was missed meanwhile is known at once by a new list, and only some time after a watch is accepted.
                Err(fault) => {
                    feed.broken(kind, fault.words().to_owned());
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                    break;
                }
            }
        }
    }
}

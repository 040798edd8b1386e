//! What runs now, and the way back from everything.
//!
//! Everything of a step carries its attempt's own label, and all but the Job belongs to the Job. However the step ends
//! (its end, an error, a future that is dropped, an API that is away), the Job and its pod are removed, and the cluster
//! removes the rest; until they are, the workspace stays locked. A server that was killed does it at its next start.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};

use super::ATTEMPT;
use crate::{
    cluster::{Cluster, Fault, KIND, OWNER},
    exec::{
        contained::{Live, Making},
        files::Lock,
    },
};

/// What our Jobs and their pods are, by the label [`KIND`].
pub(super) const STEP_KIND: &str = "step";
/// Tries to remove what a step left, when the API is away; afterwards the sweep does it.
const TRIES: u32 = 60;
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(2);
/// How long an earlier attempt's Job of the same name may take to go, in tries of [`SOON`].
const GOING: u32 = 300;
const SOON: Duration = Duration::from_millis(200);
/// What a keeper and companions get to end, in seconds.
const GRACE: u32 = 1;

/// One step that runs.
pub(super) struct Held {
    id: String,
    cluster: Cluster,
    live: Live,
    lock: Option<Arc<Lock>>,
    /// What the step gets to end itself, in seconds, if it is dropped.
    grace: u32,
    making: Making,
    ended: bool,
}

impl Held {
    /// Begins, with the workspace locked.
    pub(super) fn new(cluster: &Cluster, live: &Live, lock: Option<&Path>, grace: Duration) -> std::io::Result<Self> {
        let lock = lock.map(Lock::shared).transpose()?.map(Arc::new);
        let id = uuid::Uuid::new_v4().simple().to_string();
        live.with(|live| live.insert(id.clone()));
        Ok(Self {
            id,
            cluster: cluster.clone(),
            live: live.clone(),
            lock,
            grace: u32::try_from(grace.as_secs()).unwrap_or(u32::MAX),
            making: Making::default(),
            ended: false,
        })
    }

    /// For whoever writes in the workspace beside.
    pub(super) fn lock(&self) -> Option<Arc<Lock>> {
        self.lock.clone()
    }

    /// The attempt.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The label that only this attempt has, as a selector.
    pub(super) fn selector(&self) -> String {
        format!("{ATTEMPT}={}", self.id)
    }

    /// The labels of something that belongs to it.
    pub(super) fn labels(&self, job: &str) -> BTreeMap<String, String> {
        let own = [
            (OWNER, self.cluster.owner()),
            (KIND, STEP_KIND),
            (super::JOB, job),
            (ATTEMPT, &self.id),
            ("app.kubernetes.io/managed-by", crate::cluster::MANAGER),
        ];
        own.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    /// Has the API make something, to the end.
    pub(super) async fn make<T>(&self, object: T) -> Result<T, Fault>
    where
        T: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
        T::DynamicType: Default,
    {
        let api: Api<T> = Api::namespaced(self.cluster.client(), self.cluster.namespace());
        let making = async move {
            let params =
                PostParams { field_manager: Some(crate::cluster::MANAGER.to_owned()), ..PostParams::default() };
            api.create(&params, &object).await.map_err(Fault::from)
        };
        self.making.make(making, |why| Fault::Away(why.into())).await
    }

    /// Makes the step's Job. One of an earlier attempt that has its name goes first: there are never two.
    pub(super) async fn job(&self, job: Job) -> Result<Job, Fault> {
        let jobs: Api<Job> = Api::namespaced(self.cluster.client(), self.cluster.namespace());
        let name = job.name_any();
        for _ in 0..GOING {
            match self.make(job.clone()).await {
                Err(Fault::Conflict(_)) => {}
                other => return other,
            }
            if let Some(old) = jobs.get_opt(&name).await.map_err(Fault::from)? {
                let pods = format!("{ATTEMPT}={}", old.labels().get(ATTEMPT).map_or("", String::as_str));
                remove_job(&jobs, &old).await?;
                remove_pods(&self.cluster, &pods, GRACE, |_| true).await?;
            }
            tokio::time::sleep(SOON).await;
        }
        Err(Fault::Conflict(format!("the Job {name} of an earlier attempt does not go")))
    }

    /// Removes all that belongs to it. Where the API does not answer, it goes on in the background.
    pub(super) async fn end(mut self) -> Result<(), Fault> {
        let selector = self.selector();
        self.making.made().await;
        let removed = remove(&self.cluster, &selector, GRACE, |_| true).await;
        if removed.is_ok() {
            self.ended = true;
            self.live.with(|live| live.remove(&self.id));
        }
        removed.map(drop)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (cluster, live, selector) = (self.cluster.clone(), self.live.clone(), self.selector());
        let (id, lock, grace) = (std::mem::take(&mut self.id), self.lock.take(), self.grace);
        let making = std::mem::take(&mut self.making);
        let later = async move {
            making.made().await;
            for _ in 0..TRIES {
                if remove(&cluster, &selector, grace, |_| true).await.is_ok() {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
            live.with(|live| live.remove(&id));
            drop(lock);
        };
        // Without a runtime the process is about to end.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(later);
        }
    }
}

/// Removes what belongs to steps that do not run here.
pub(super) async fn sweep(cluster: &Cluster, live: &Live) -> Result<usize, Fault> {
    // Asked after the API is: what it knows of has begun before.
    let live = live.clone();
    let dead = move |labels: &BTreeMap<String, String>| {
        labels.get(ATTEMPT).is_some_and(|id| live.with(|live| !live.contains(id)))
    };
    remove(cluster, &format!("{OWNER}={},{KIND}={STEP_KIND}", cluster.owner()), GRACE, dead).await
}

/// Removes Jobs and pods that have the labels and fit. What belongs to the Jobs, the cluster removes ("Garbage
/// Collection").
async fn remove(
    cluster: &Cluster,
    selector: &str,
    grace: u32,
    fits: impl Fn(&BTreeMap<String, String>) -> bool,
) -> Result<usize, Fault> {
    let jobs: Api<Job> = Api::namespaced(cluster.client(), cluster.namespace());
    let found = jobs.list(&ListParams::default().labels(selector)).await.map_err(Fault::from)?;
    let mut count = 0;
    for job in found.items.iter().filter(|j| fits(j.labels())) {
        remove_job(&jobs, job).await?;
        count += 1;
    }
    Ok(count + remove_pods(cluster, selector, grace, fits).await?)
}

async fn remove_job(jobs: &Api<Job>, job: &Job) -> Result<(), Fault> {
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: job.uid(), resource_version: None }),
        ..DeleteParams::background()
    };
    gone(jobs.delete(&job.name_any(), &params).await.map(drop))
}

async fn remove_pods(
    cluster: &Cluster,
    selector: &str,
    grace: u32,
    fits: impl Fn(&BTreeMap<String, String>) -> bool,
) -> Result<usize, Fault> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), cluster.namespace());
    let found = pods.list(&ListParams::default().labels(selector)).await.map_err(Fault::from)?;
    let mut count = 0;
    for pod in found.items.iter().filter(|p| fits(p.labels())) {
        delete_pod(&pods, &pod.name_any(), grace).await?;
        count += 1;
    }
    Ok(count)
}

/// Has a pod end: TERM, so many seconds, KILL. 0: it is forgotten at once, wherever it is.
pub(super) async fn delete_pod(pods: &Api<Pod>, name: &str, grace: u32) -> Result<(), Fault> {
    let params = DeleteParams { grace_period_seconds: Some(grace), ..DeleteParams::default() };
    gone(pods.delete(name, &params).await.map(drop))
}

/// Gone already, or another of the same name: fine.
fn gone(deleted: Result<(), kube::Error>) -> Result<(), Fault> {
    match deleted.map_err(Fault::from) {
        Ok(()) | Err(Fault::Missing(_) | Fault::Conflict(_)) => Ok(()),
        Err(fault) => Err(fault),
    }
}

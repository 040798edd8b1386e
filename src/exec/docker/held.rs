//! What runs now, and the way back from everything.
//!
//! Everything of a step carries the step's own label. However it ends (its end, an error, a future that is dropped, an
//! engine that is away), all that has the label is removed; until it is, the workspace stays locked. A server that was
//! killed does it at its next start.

use std::{collections::HashMap, path::Path, time::Duration};

use bollard::{
    errors::Error as ApiError,
    models::{ContainerCreateBody, NetworkCreateRequest},
    query_parameters::{
        CreateContainerOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
        RemoveContainerOptionsBuilder,
    },
};

use crate::{
    docker::{Docker, DockerError, KIND, OWNER, status},
    exec::{
        contained::{Live, Making},
        files::Lock,
    },
};

/// Label: the step that it belongs to.
const STEP: &str = "dev.switchover.step";
/// What belongs to steps.
const KINDS: [&str; 4] = ["step", "service", "probe", "network"];
/// Tries to remove what a step left, when the engine is away; afterwards the sweep does it.
const TRIES: u32 = 60;
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(2);

/// One step that runs.
pub(super) struct Held {
    id: String,
    docker: Docker,
    live: Live,
    lock: Option<Lock>,
    making: Making,
    ended: bool,
}

impl Held {
    /// Begins, with the workspace locked.
    pub(super) fn new(docker: &Docker, live: &Live, lock: Option<&Path>) -> std::io::Result<Self> {
        let lock = lock.map(Lock::shared).transpose()?;
        let id = uuid::Uuid::new_v4().simple().to_string();
        live.with(|live| live.insert(id.clone()));
        Ok(Self { id, docker: docker.clone(), live: live.clone(), lock, making: Making::default(), ended: false })
    }

    /// The labels of something that belongs to it.
    pub(super) fn labels(&self, kind: &str, more: &[(&str, &str)]) -> HashMap<String, String> {
        let mut labels = self.docker.labels(kind, more);
        labels.insert(STEP.to_owned(), self.id.clone());
        labels
    }

    /// Makes a container of it, and answers its id. `kind` is a part of its name.
    pub(super) async fn container(&self, kind: &str, body: ContainerCreateBody) -> Result<String, DockerError> {
        let (docker, doing) = (self.docker.clone(), format!("making the container of the {kind}"));
        let name = format!("switchover-{kind}-{}", &self.id[..16]);
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let made = async move { docker.api().create_container(Some(options), body).await };
        Ok(self.make(made).await.map_err(DockerError::api(doing))?.id)
    }

    /// Makes its network, and answers its name.
    pub(super) async fn network(&self, internet: bool) -> Result<String, DockerError> {
        let name = format!("switchover-{}", &self.id[..16]);
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".into()),
            internal: Some(!internet),
            labels: Some(self.labels("network", &[])),
            ..NetworkCreateRequest::default()
        };
        let docker = self.docker.clone();
        let made = async move { docker.api().create_network(request).await };
        self.make(made).await.map_err(DockerError::api("making the step's network".into()))?;
        Ok(name)
    }

    /// Has the engine make something, to the end.
    async fn make<T: Send + 'static>(
        &self,
        making: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.making.make(making, |why| std::io::Error::other(why).into()).await
    }

    /// Removes all that belongs to it. Where the engine does not answer, it goes on in the background.
    pub(super) async fn end(mut self) -> Result<(), DockerError> {
        let filter = format!("{STEP}={}", self.id);
        self.making.made().await;
        let removed = remove(&self.docker, &[filter], |_| true).await;
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
        let (docker, live, id) = (self.docker.clone(), self.live.clone(), std::mem::take(&mut self.id));
        let lock = self.lock.take();
        let making = std::mem::take(&mut self.making);
        let later = async move {
            making.made().await;
            let filter = [format!("{STEP}={id}")];
            for _ in 0..TRIES {
                if remove(&docker, &filter, |_| true).await.is_ok() {
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
pub(super) async fn sweep(docker: &Docker, live: &Live) -> Result<usize, DockerError> {
    // Asked after the engine is: what it knows of has begun before.
    let live = live.clone();
    let dead = move |labels: &HashMap<String, String>| {
        let of_steps = labels.get(KIND).is_some_and(|kind| KINDS.contains(&kind.as_str()));
        of_steps && labels.get(STEP).is_some_and(|id| live.with(|live| !live.contains(id)))
    };
    remove(docker, &[format!("{OWNER}={}", docker.owner()), STEP.to_owned()], dead).await
}

/// Removes containers with their volumes, then networks, that have all the labels and fit.
async fn remove(
    docker: &Docker,
    labels: &[String],
    fits: impl Fn(&HashMap<String, String>) -> bool,
) -> Result<usize, DockerError> {
    let failed = || DockerError::api("removing what a step left".to_owned());
    let filters = HashMap::from([("label", labels.to_vec())]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let containers = docker.api().list_containers(Some(options)).await.map_err(failed())?;
    let ids: Vec<String> = containers
        .into_iter()
        .filter(|c| fits(c.labels.as_ref().unwrap_or(&HashMap::new())))
        .filter_map(|c| c.id)
        .collect();
    let gone = ids.iter().map(|id| async move {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match docker.api().remove_container(id, Some(options)).await {
            Ok(()) => Ok(()),
            // Gone, or somebody else is at it.
            Err(e) if matches!(status(&e), Some(404 | 409)) => Ok(()),
            Err(e) => Err(failed()(e)),
        }
    });
    futures_util::future::try_join_all(gone).await?;
    let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
    let networks = docker.api().list_networks(Some(options)).await.map_err(failed())?;
    let mut count = ids.len();
    for network in networks {
        let Some(id) = network.id.filter(|_| fits(network.labels.as_ref().unwrap_or(&HashMap::new()))) else {
            continue;
        };
        match docker.api().remove_network(&id).await {
            Ok(()) => count += 1,
            Err(e) if status(&e) == Some(404) => {}
            Err(e) => return Err(failed()(e)),
        }
    }
    Ok(count)
}

//! A Kubernetes cluster: its connection, the labels of what is ours, its errors in words.
//!
//! Shared by the executor and the target; neither knows the other. One field manager, one mark of the server on all that
//! it makes, as with the Docker engine.

mod clusters;
mod error;
mod objects;
pub mod rights;
pub mod watched;

use std::{fmt, time::Duration};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

pub use clusters::Clusters;
pub use error::{ClusterError, Fault, chain};
pub use objects::Named;
pub use watched::{Gap, Kind, Object, Watched};

use crate::settings::ClusterSettings;

/// Label of everything that is ours: the server it belongs to. Several servers can share one cluster.
pub const OWNER: &str = "switchover.dev/owner";
/// Label: what it is (`step`, `slot`, `command`, `record`).
pub const KIND: &str = "switchover.dev/kind";
/// Our field manager ("Server-Side Apply").
pub const MANAGER: &str = "switchover";

/// Between a request and the first byte of its answer. Watches and logs have limits of their own.
const READ: Duration = Duration::from_secs(295);
const CONNECT: Duration = Duration::from_secs(10);

/// One namespace of one cluster, as one account. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
    owner: String,
    /// Its API's address, for people.
    address: String,
    /// The pod of this namespace that this process runs in.
    us: Option<String>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("address", &self.address).field("namespace", &self.namespace).finish()
    }
}

impl Cluster {
    /// Prepares the connection; nothing is sent yet. `owner` is this server's own mark on what it makes.
    ///
    /// # Errors
    /// [`ClusterError::Config`]: the kubeconfig can't be read, or there is none and this is no pod.
    pub async fn new(settings: &ClusterSettings, owner: &str) -> Result<Self, ClusterError> {
        let wrong = |place: &str, why: String| ClusterError::Config { place: place.to_owned(), why };
        let mut config = match &settings.kubeconfig {
            Some(path) => {
                let place = path.display().to_string();
                let file = Kubeconfig::read_from(path).map_err(|e| wrong(&place, error::chain(&e)))?;
                let options = KubeConfigOptions { context: settings.context.clone(), ..Default::default() };
                Config::from_custom_kubeconfig(file, &options).await.map_err(|e| wrong(&place, error::chain(&e)))?
            }
            None => Config::incluster().map_err(|e| wrong("the pod's service account", error::chain(&e)))?,
        };
        // In a pod it is the pod's own, and the host's name is the pod's ("Accessing the Kubernetes API from a Pod").
        let ours = settings.kubeconfig.is_none() && config.default_namespace == settings.namespace;
        config.default_namespace.clone_from(&settings.namespace);
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(READ);
        let address = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|e| wrong(&address, error::chain(&e)))?;
        let us = ours.then(|| nix::unistd::gethostname().ok()?.into_string().ok()).flatten();
        Ok(Self { us, ..Self::with_client(client, &settings.namespace, owner, &address) })
    }

    /// The same over a client that is there already.
    #[must_use]
    pub fn with_client(client: Client, namespace: &str, owner: &str, address: &str) -> Self {
        Self { client, namespace: namespace.to_owned(), owner: owner.to_owned(), address: address.to_owned(), us: None }
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The only namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// This server's mark.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The pod that this process runs in, where it is one of this namespace.
    #[must_use]
    pub fn us(&self) -> Option<&str> {
        self.us.as_deref()
    }

    /// Its API's address, for people.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

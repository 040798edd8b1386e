//! A Kubernetes cluster: its connection, the labels of what is ours, its errors in words.
//!
//! Shared by the executor and the target; neither knows the other. One field manager, one mark of the server on all that
//! it makes, as with the Docker engine.

mod clusters;
mod error;
mod objects;
pub mod rights;
pub mod watched;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use hyper_util::{
    client::legacy::connect::HttpConnector,
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Client, Config,
    client::ConfigExt as _,
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
/// How often a connection with watches is asked whether it lives, and how long that may take.
const ALIVE: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(10));

/// One namespace of one cluster, as one account. Cheap to clone; all clones have the same credentials.
#[derive(Clone)]
pub struct Cluster {
    connection: Arc<Connection>,
    namespace: String,
    owner: String,
    /// Its API's address, for people.
    address: String,
    /// The pod of this namespace that this process runs in.
    us: Option<String>,
}

/// Two ways to the same API server.
#[derive(Clone)]
struct Doors {
    calls: Client,
    /// All watches of a namespace share one connection: one for each would hold the buffers of six.
    watches: Client,
}

/// How the cluster is reached now, and where that stands.
struct Connection {
    doors: RwLock<Doors>,
    settings: Option<ClusterSettings>,
    /// When the kubeconfig was last written, as far as it was read.
    written: Mutex<Option<SystemTime>>,
}

/// What became of credentials that may have been renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// The file is as it was, or there is none.
    Same,
    /// The new ones are used from now on.
    Yes,
    /// They are for another cluster: this connection stays as it is.
    Elsewhere,
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
        // Before it is read: what is written meanwhile is read again.
        let written = settings.kubeconfig.as_deref().and_then(written);
        let config = config(settings).await?;
        // In a pod it is the pod's own, and the host's name is the pod's ("Accessing the Kubernetes API from a Pod").
        let ours = settings.kubeconfig.is_none() && config.pod_namespace == settings.namespace;
        let us = ours.then(|| nix::unistd::gethostname().ok()?.into_string().ok()).flatten();
        let connection = Connection {
            doors: RwLock::new(config.doors),
            settings: Some(settings.clone()),
            written: Mutex::new(written),
        };
        let namespace = settings.namespace.clone();
        let connection = Arc::new(connection);
        Ok(Self { connection, namespace, owner: owner.to_owned(), address: config.address, us })
    }

    /// The same over a client that is there already.
    #[must_use]
    pub fn with_client(client: Client, namespace: &str, owner: &str, address: &str) -> Self {
        let doors = Doors { calls: client.clone(), watches: client };
        let connection = Connection { doors: RwLock::new(doors), settings: None, written: Mutex::default() };
        let (namespace, owner) = (namespace.to_owned(), owner.to_owned());
        Self { connection: Arc::new(connection), namespace, owner, address: address.to_owned(), us: None }
    }

    /// The client, with the newest credentials that were read. Not to be kept.
    #[must_use]
    pub fn client(&self) -> Client {
        self.connection.doors.read().unwrap_or_else(PoisonError::into_inner).calls.clone()
    }

    /// The same for lists and watches.
    fn watcher(&self) -> Client {
        self.connection.doors.read().unwrap_or_else(PoisonError::into_inner).watches.clone()
    }

    /// Takes renewed credentials, if the kubeconfig was written since it was read. (What a kubeconfig or a pod refers to,
    /// token files and commands, renews itself.)
    ///
    /// # Errors
    /// [`ClusterError::Config`]: it can't be read any more; the old ones stay in use.
    pub async fn renew(&self) -> Result<Renewed, ClusterError> {
        let Some(settings) = &self.connection.settings else { return Ok(Renewed::Same) };
        let now = settings.kubeconfig.as_deref().and_then(written);
        let known = || self.connection.written.lock().unwrap_or_else(PoisonError::into_inner);
        if now.is_none() || *known() == now {
            return Ok(Renewed::Same);
        }
        let config = config(settings).await?;
        if config.address != self.address {
            return Ok(Renewed::Elsewhere);
        }
        *self.connection.doors.write().unwrap_or_else(PoisonError::into_inner) = config.doors;
        *known() = now;
        tracing::info!(cluster = %self.address, namespace = %self.namespace, "renewed credentials are used from now on");
        Ok(Renewed::Yes)
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

/// Clients, and where they lead.
struct Configured {
    doors: Doors,
    address: String,
    /// Where the settings name no namespace: of the pod, or of the kubeconfig.
    pod_namespace: String,
}

async fn config(settings: &ClusterSettings) -> Result<Configured, ClusterError> {
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
    let pod_namespace = std::mem::replace(&mut config.default_namespace, settings.namespace.clone());
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(READ);
    let address = config.cluster_url.to_string();
    let multiplexed = multiplexed(&config).map_err(|e| wrong(&address, error::chain(&e)))?;
    let calls = Client::try_from(config).map_err(|e| wrong(&address, error::chain(&e)))?;
    let doors = Doors { watches: multiplexed.unwrap_or_else(|| calls.clone()), calls };
    Ok(Configured { doors, address, pod_namespace })
}

/// A client that speaks HTTP/2 where the API server does. None: the kubeconfig asks for what it can't (a proxy, another
/// name on the certificate).
fn multiplexed(config: &Config) -> kube::Result<Option<Client>> {
    if config.proxy_url.is_some() || config.tls_server_name.is_some() {
        return Ok(None);
    }
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_connect_timeout(Some(CONNECT));
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(config.rustls_client_config()?)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(http);
    // Whether the other end is still there is found by asking it, and not only when a watch should have ended.
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(ALIVE.0)
        .http2_keep_alive_timeout(ALIVE.1)
        .http2_keep_alive_while_idle(true)
        .build(connector);
    let service = tower::ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .map_err(tower::BoxError::from)
        .service(client);
    Ok(Some(Client::new(service, config.default_namespace.clone())))
}

fn written(kubeconfig: &Path) -> Option<SystemTime> {
    std::fs::metadata(kubeconfig).and_then(|m| m.modified()).ok()
}

//! The clusters that this server uses, each connected to and watched once.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::Mutex;

use super::{Cluster, ClusterError, Renewed, Watched};
use crate::settings::ClusterSettings;

/// All of them, by what the settings say. Cheap to clone.
#[derive(Clone)]
pub struct Clusters(Arc<Inner>);

struct Inner {
    owner: String,
    known: Mutex<HashMap<ClusterSettings, Watched>>,
}

impl Clusters {
    /// None yet. `owner` is this server's own mark on what it makes.
    #[must_use]
    pub fn new(owner: &str) -> Self {
        Self(Arc::new(Inner { owner: owner.to_owned(), known: Mutex::default() }))
    }

    /// The live objects of a namespace. A kubeconfig that was changed since (renewed credentials) is read anew.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn watched(&self, settings: &ClusterSettings) -> Result<Watched, ClusterError> {
        let mut known = self.0.known.lock().await;
        if let Some(watched) = known.get(settings)
            && watched.cluster().renew().await? != Renewed::Elsewhere
        {
            return Ok(watched.clone());
        }
        let watched = Watched::start(Cluster::new(settings, &self.0.owner).await?);
        known.insert(settings.clone(), watched.clone());
        Ok(watched)
    }
}

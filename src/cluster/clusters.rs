//! The clusters that this server uses, each connected to and watched once.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use tokio::sync::Mutex;

use super::{Cluster, ClusterError, Watched};
use crate::settings::ClusterSettings;

/// All of them, by what the settings say. Cheap to clone.
#[derive(Clone)]
pub struct Clusters(Arc<Inner>);

struct Inner {
    owner: String,
    known: Mutex<HashMap<ClusterSettings, (Option<SystemTime>, Watched)>>,
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
        let written = settings.kubeconfig.as_ref().and_then(|p| std::fs::metadata(p).and_then(|m| m.modified()).ok());
        if let Some((_, watched)) = known.get(settings).filter(|(at, _)| *at == written) {
            return Ok(watched.clone());
        }
        let watched = Watched::start(Cluster::new(settings, &self.0.owner).await?);
        known.insert(settings.clone(), (written, watched.clone()));
        Ok(watched)
    }
}

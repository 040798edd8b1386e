//! What a play in a cluster needs besides engine and registry: a namespace of its own, gone at the end.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;

use super::DemoError;
use crate::{cluster::Cluster, settings::ClusterSettings};

/// A namespace may take so long to be gone; what is left then, the cluster removes by itself.
const GONE: Duration = Duration::from_secs(60);

/// A namespace that this play has for itself.
pub struct Space {
    cluster: Cluster,
    kubeconfig: PathBuf,
}

impl Space {
    /// Makes the namespace.
    ///
    /// # Errors
    /// In words: no cluster, or no right to make one.
    pub async fn prepare(kubeconfig: &Path) -> Result<Self, DemoError> {
        let name = format!("switchover-demo-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let kubeconfig = std::path::absolute(kubeconfig).map_err(DemoError::io(kubeconfig.display().to_string()))?;
        let settings = ClusterSettings { kubeconfig: Some(kubeconfig.clone()), context: None, namespace: name.clone() };
        let cluster = Cluster::new(&settings, "demo").await.map_err(|e| DemoError::Other(e.to_string()))?;
        let made = cluster.create_namespace(&json!({"switchover.dev/demo": "true"})).await;
        made.map_err(|e| DemoError::Other(format!("making the namespace {name}: {}", e.words())))?;
        Ok(Self { cluster, kubeconfig })
    }

    /// The part of `switchover.toml` that names it.
    #[must_use]
    pub fn target(&self, repository: &str) -> String {
        format!(
            "[targets.here]\nkind = \"kubernetes\"\nkubeconfig_file = {:?}\nnamespace = {:?}\nrepositories = [{repository:?}]\n",
            self.kubeconfig.display().to_string(),
            self.cluster.namespace()
        )
    }

    /// The namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        self.cluster.namespace()
    }

    /// Removes it with all that is in it. Answers what could not be removed.
    pub async fn clean(&self) -> Option<String> {
        self.cluster.delete_namespace(GONE).await.err().map(|e| format!("the namespace {}: {}", self.name(), e.words()))
    }
}

//! An app's manifests, frozen with its release (target `kubernetes`).
//!
//! What stands here is the author's: objects as JSON, as they stand in the repository at the released commit. What is ours
//! (names of slots, selectors, digests, replicas) is written over it when a slot is made, never into it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// All objects of one app, frozen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppManifests {
    /// How its slots are told apart.
    pub shape: Shape,
    /// The container in the pod template that runs the app's image.
    pub container: String,
    /// Init containers and further containers of the template that run the app's own image too.
    #[serde(default)]
    pub also: Vec<String>,
    /// The author's Service, whose selector is ours. None for a worker, or when the author wrote none: then one is made,
    /// with the app's name.
    #[serde(default)]
    pub service: Option<Value>,
    /// ConfigMaps and Secrets that the pod template names: each slot gets its own, named by their content.
    #[serde(default)]
    pub configs: Vec<Value>,
    /// The author's HorizontalPodAutoscaler: always points at the slot that serves.
    #[serde(default)]
    pub autoscaler: Option<Value>,
    /// PodDisruptionBudgets over its pods: each slot gets its own.
    #[serde(default)]
    pub budgets: Vec<Value>,
    /// Objects that are not part of a slot (Ingress, StatefulSet, Job, NetworkPolicy, ConfigMaps that nobody's template
    /// names, …): applied at the switch, restored on the way back, never doubled.
    #[serde(default)]
    pub shared: Vec<Value>,
}

/// How the slots of an app are told apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// One Deployment; each slot is a copy of it under a name of its own.
    One {
        /// As the author wrote it.
        workload: Value,
    },
    /// A hand-written pair that differs in one label: the two keep their names, and the idle one is reused.
    Pair {
        /// The label whose values tell them apart, in the Service's selector too.
        label: String,
        /// As the author wrote them, by the label's value; always two.
        workloads: BTreeMap<String, Value>,
    },
}

impl AppManifests {
    /// The Service's name, where the author wrote one.
    #[must_use]
    pub fn service_name(&self) -> Option<&str> {
        self.service.as_ref()?.pointer("/metadata/name")?.as_str()
    }

    /// The workloads as written: one, or both of a pair.
    pub fn workloads(&self) -> impl Iterator<Item = &Value> {
        match &self.shape {
            Shape::One { workload } => vec![workload],
            Shape::Pair { workloads, .. } => workloads.values().collect(),
        }
        .into_iter()
    }
}

/// What the operator lets a repository's manifests do. By default: nothing outside the target's namespace, no
/// cluster-scoped objects, no privileged pods, host paths, host network or foreign service accounts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ManifestPolicy {
    /// The only namespace.
    pub namespace: String,
    /// Kinds beyond the usual ones, such as `ServiceMonitor` or `Certificate.cert-manager.io`.
    pub kinds: Vec<String>,
    /// Service accounts that pods may run as, beside the namespace's `default`.
    pub service_accounts: Vec<String>,
}

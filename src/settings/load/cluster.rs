//! Keys about clusters.

use std::collections::BTreeMap;

use super::Loader;
use crate::{
    domain::config::grammar::{Pair, Value},
    settings::{ClusterSettings, StepCluster},
};

/// Where steps run, unless it is said.
const STEPS_NAMESPACE: &str = "switchover-steps";

impl Loader<'_> {
    /// Keys that say nothing for a target of this kind, and the one that a cluster's needs.
    pub(super) fn keys_of_kind(&mut self, pair: &Pair, key: &str) {
        let Some(kind) = pair.value.text("kind") else { return };
        let cluster = kind == "kubernetes";
        let strange: &[&str] = match cluster {
            true => &["listen", "agent"],
            false => &["kubeconfig_file", "context", "namespace", "kinds", "service_accounts", "kubectl", "helm"],
        };
        for other in strange.iter().filter_map(|k| pair.value.written(k)) {
            let see = self.place(other.at);
            let name = format!("{key}.{}", other.key);
            self.wrong(&name, format!("says nothing for a target of kind {kind}"), "the key left out", see);
        }
        if cluster && pair.value.written("namespace").is_none() {
            let see = self.place(pair.at);
            self.wrong(&format!("{key}.namespace"), "is missing", "the namespace that releases go to", see);
        }
    }

    pub(super) fn cluster(&self, value: &Value, namespace: &str) -> ClusterSettings {
        ClusterSettings {
            kubeconfig: value.written("kubeconfig_file").map(|p| self.path(p)),
            context: value.text("context").map(str::to_owned),
            namespace: value.text("namespace").unwrap_or(namespace).to_owned(),
        }
    }

    pub(super) fn step_cluster(&self, value: &Value) -> StepCluster {
        let nothing = ClusterSettings { kubeconfig: None, context: None, namespace: STEPS_NAMESPACE.to_owned() };
        let Some(table) = value.get("kubernetes") else {
            return StepCluster { cluster: nothing, node_selector: BTreeMap::new() };
        };
        let labels = table.get("node_selector").map_or(&[][..], Value::pairs);
        let label = |p: &Pair| Some((p.key.clone(), p.value.as_text()?.to_owned()));
        StepCluster {
            cluster: self.cluster(table, STEPS_NAMESPACE),
            node_selector: labels.iter().filter_map(label).collect(),
        }
    }
}

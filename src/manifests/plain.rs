//! Manifests for an app that has none.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    look::map_at,
    names::{LABEL, object_name},
};
use crate::domain::{
    config::{AppKind, Resources},
    ids::AppName,
    rollout::{AppManifests, Shape},
};

/// Between a pod's end being decided and its TERM: the time that nodes need to stop sending it new connections.
const PRE_STOP: u64 = 5;
/// The name of the made-up container.
const CONTAINER: &str = "app";

/// What is known of such an app.
#[derive(Debug, Clone, PartialEq)]
pub struct Plain {
    /// Its name.
    pub name: AppName,
    /// Answers requests, or works behind the scenes.
    pub kind: AppKind,
    /// The port that it listens on.
    pub port: Option<u16>,
    /// The path that answers 2xx when it is ready. None: it is ready when it accepts connections.
    pub health: Option<String>,
    /// What one copy may use.
    pub resources: Resources,
    /// The longest request that must not be cut.
    pub drain: Duration,
    /// Whether the cluster knows `sleep` as a `preStop` (Kubernetes 1.30 and later: "Container Lifecycle Hooks"). Older
    /// ones would need a shell in the image, so they get none.
    pub native_sleep: bool,
}

/// A Deployment and a ClusterIP Service. The pods run with whatever user the image has, gain no rights on the way, and get
/// no token of the cluster and no variables of other Services.
#[must_use]
pub fn made_up(app: &Plain) -> AppManifests {
    let name = object_name(app.name.as_str(), LABEL);
    let labels = json!({"app.kubernetes.io/name": name});
    let mut container = json!({
        "name": CONTAINER,
        "image": name,
        "securityContext": {"allowPrivilegeEscalation": false, "seccompProfile": {"type": "RuntimeDefault"}},
    });
    let fields = map_at(&mut container, "");
    let mut stop = 0;
    if let Some(port) = app.port {
        fields.insert("ports".to_owned(), json!([{"name": "http", "containerPort": port}]));
        let mut probe = match &app.health {
            Some(path) => json!({"httpGet": {"path": path, "port": "http"}}),
            None => json!({"tcpSocket": {"port": "http"}}),
        };
        let timing = map_at(&mut probe, "");
        timing.insert("periodSeconds".to_owned(), 2.into());
        timing.insert("timeoutSeconds".to_owned(), 2.into());
        fields.insert("readinessProbe".to_owned(), probe);
        if app.native_sleep {
            stop = PRE_STOP;
            fields.insert("lifecycle".to_owned(), json!({"preStop": {"sleep": {"seconds": PRE_STOP}}}));
        }
    }
    if let Some(resources) = resources(&app.resources) {
        fields.insert("resources".to_owned(), resources);
    }
    // A worker is never doubled, so its old pods end before new ones start.
    let strategy = match app.kind {
        AppKind::Web => json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}),
        AppKind::Worker => json!({"type": "Recreate"}),
    };
    let workload = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "strategy": strategy,
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "terminationGracePeriodSeconds": stop + app.drain.as_secs().max(30),
                    "containers": [container],
                },
            },
        },
    });
    let service = app.port.filter(|_| app.kind == AppKind::Web).map(|port| {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "type": "ClusterIP",
                "selector": labels,
                "ports": [{"name": "http", "port": port, "targetPort": "http", "protocol": "TCP"}],
            },
        })
    });
    AppManifests {
        shape: Shape::One { workload },
        container: CONTAINER.to_owned(),
        also: Vec::new(),
        service,
        configs: Vec::new(),
        autoscaler: None,
        budgets: Vec::new(),
        shared: Vec::new(),
    }
}

/// What one copy may use: asked for and limited alike in memory; CPU only asked for, because a limit would slow the app
/// down while cores stand idle.
fn resources(of: &Resources) -> Option<Value> {
    let memory = of.memory.map(|bytes| bytes.to_string());
    let cpu = of.cpu.map(|cores| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "cores of a machine, in thousandths"
        )]
        let milli = (cores * 1000.0).round().max(1.0) as u64;
        format!("{milli}m")
    });
    if memory.is_none() && cpu.is_none() {
        return None;
    }
    let mut all = json!({});
    for (name, quantity) in [("cpu", cpu), ("memory", memory.clone())] {
        if let Some(quantity) = quantity {
            map_at(&mut all, "/requests").insert(name.to_owned(), quantity.into());
        }
    }
    if let Some(memory) = memory {
        map_at(&mut all, "/limits").insert("memory".to_owned(), memory.into());
    }
    Some(all)
}

//! Commands of a release as Jobs: `pre_deploy`, in the new image, before any new pod.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    EPOCH,
    look::{self, list, map_at, text},
    names::{JOB, with_ending},
    slot::{SlotOrder, author, configs, fill, main, put_texts, rename, with_slot},
};
use crate::domain::rollout::AppManifests;

/// Fields of a container that make it serve; a command has no use for them.
const SERVING: [&str; 6] = ["args", "lifecycle", "livenessProbe", "ports", "readinessProbe", "startupProbe"];
/// Fields of a pod spec that a command's pod has as the app's pods do.
const KEPT: [&str; 17] = [
    "automountServiceAccountToken",
    "dnsConfig",
    "dnsPolicy",
    "enableServiceLinks",
    "hostAliases",
    "imagePullSecrets",
    "initContainers",
    "nodeSelector",
    "os",
    "priorityClassName",
    "runtimeClassName",
    "schedulerName",
    "securityContext",
    "serviceAccount",
    "serviceAccountName",
    "tolerations",
    "volumes",
];

/// A Job that runs `command` (for `sh`) once in the new image, with the environment, volumes and account of the app's pods.
/// Its pods carry only our labels: no Service, budget or autoscaler of the author's counts them. Its name is made of the
/// slot's, so it is never made twice. The copied configuration ([`super::Rendered::configs`]) must be there before.
///
/// # Errors
/// Words for the author, as of [`super::render`].
pub fn pre_deploy_job(
    manifests: &AppManifests,
    order: &SlotOrder,
    command: &str,
    timeout: Duration,
) -> Result<Value, String> {
    let workload = author(manifests, order.colour.as_deref())?;
    let mut template = look::template(workload).cloned().unwrap_or_default();
    let (_, renamed) = configs(manifests, order);
    rename(&mut template, &renamed);
    let main = main(manifests, workload)?;
    fill(&mut template, &main, manifests, order);
    let mut container =
        list(&template, "/spec/containers").iter().find(|c| text(c, "/name") == main).cloned().unwrap_or_default();
    let fields = map_at(&mut container, "");
    for field in SERVING {
        fields.shift_remove(field);
    }
    fields.insert("command".to_owned(), json!(["sh", "-c", command]));
    let spec = map_at(&mut template, "/spec");
    spec.retain(|key, _| KEPT.contains(&key.as_str()));
    // The app's own init containers are the release's start; what others prepare (volumes, tokens) the command needs too.
    if let Some(init) = spec.get_mut("initContainers").and_then(Value::as_array_mut) {
        init.retain(|c| !manifests.also.iter().any(|name| name == text(c, "/name")));
    }
    spec.insert("containers".to_owned(), json!([container]));
    spec.insert("restartPolicy".to_owned(), "Never".into());
    let spec = Value::Object(std::mem::take(spec));
    let name = text(workload, "/metadata/name").replace('.', "-");
    let mut job = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": with_ending(&name, &format!("{}-pre", order.slot), JOB),
            "annotations": {EPOCH: order.epoch.to_string()},
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": timeout.as_secs().max(1),
            "template": {"spec": spec},
        },
    });
    let labels = with_slot(&order.labels, &order.slot);
    put_texts(&mut job, "/metadata/labels", &labels);
    put_texts(&mut job, "/spec/template/metadata/labels", &labels);
    Ok(job)
}

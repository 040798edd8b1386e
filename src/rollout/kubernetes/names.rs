//! Names, labels and annotations of what is ours in a namespace.

use std::collections::BTreeMap;

use crate::{
    cluster::{Cluster, KIND, OWNER},
    domain::{
        ids::{AppName, Slot},
        rollout::EnvironmentKey,
    },
    manifests::{APP, ENVIRONMENT, label, object_name},
};

/// Values of [`KIND`].
pub(super) const SLOT_KIND: &str = "slot";
pub(super) const POINTER: &str = "pointer";
pub(super) const RECORD: &str = "record";
pub(super) const COMMAND: &str = "command";
pub(super) const PULL: &str = "pull";
pub(super) const SHARED: &str = "shared";

/// Annotation of a Service or pointer: the environment it belongs to, `REPOSITORY-NUMBER/ENVIRONMENT`.
pub(super) const OF: &str = "switchover.dev/environment-of";
/// Annotation: the app that it belongs to.
pub(super) const APP_OF: &str = "switchover.dev/app-of";
/// Annotation of the Service of a pair: the label that tells the two apart.
pub(super) const PAIR: &str = "switchover.dev/pair";
/// Annotation: when it was pointed at what it points at.
pub(super) const SWITCHED: &str = "switchover.dev/switched-at";
/// Annotation of a pointer: the Deployment that ran before us, and the slot that it counts as.
pub(super) const PLAIN: &str = "switchover.dev/plain";
/// Annotation of a Deployment that was stopped: the copies that it had.
pub(super) const HAD: &str = "switchover.dev/replicas";
/// Annotation of the Deployment of a server that handed over to the next one: rollout, slot and the pod that did so.
pub(super) const HANDED: &str = "switchover.dev/handed-over";
/// Annotation of an autoscaler in the minutes after a switch: it must not shrink what it knows nothing of yet.
pub(super) const HANDOVER: &str = "switchover.dev/hand-over";
/// Annotation of a Service that went back: the slot it left, until what goes along with the one it points at has followed.
pub(super) const BEHIND: &str = "switchover.dev/behind";
/// Annotation of a Service that was narrowed to the copy of a plain Deployment: its name, until that is stopped.
pub(super) const TAKEN: &str = "switchover.dev/taken-over";
/// The slot of a Service that points at nothing yet.
pub(super) const NONE: &str = "none";

/// The longest name of an object that is no DNS label.
const NAME: usize = 200;

fn named(key: &EnvironmentKey, words: &str) -> String {
    object_name(&format!("switchover-{}-{}-{words}", key.repo, key.environment), NAME)
}

/// Labels of everything that is ours for one app.
pub(super) fn labels(cluster: &Cluster, key: &EnvironmentKey, app: &AppName, kind: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (OWNER.to_owned(), cluster.owner().to_owned()),
        (KIND.to_owned(), kind.to_owned()),
        (ENVIRONMENT.to_owned(), label(&key.to_string())),
        (APP.to_owned(), label(app.as_str())),
    ])
}

/// What a slot needs at its switch.
pub(super) fn record(key: &EnvironmentKey, app: &AppName, slot: &Slot) -> String {
    named(key, &format!("{app}-{slot}-record"))
}

/// A slot's secrets.
pub(super) fn secret(key: &EnvironmentKey, app: &AppName, slot: &Slot) -> String {
    named(key, &format!("{app}-{slot}-env"))
}

/// Which worker runs.
pub(super) fn pointer(key: &EnvironmentKey, app: &AppName) -> String {
    named(key, &format!("{app}-worker"))
}

/// The logins that its images are pulled with.
pub(super) fn pull(key: &EnvironmentKey) -> String {
    named(key, "pull")
}

/// The Service that shows which of the new slot's pods would be reached.
pub(super) fn preview(service: &str) -> String {
    object_name(&format!("{service}-switchover-preview"), 63)
}

//! What the operator lets a repository apply, and objects that somebody else manages.
//!
//! The list of what pods may not have follows "Pod Security Standards" (baseline), with service accounts added: a pod
//! that runs as a strange account has that account's rights.

mod pods;

use std::fmt::Write as _;

use serde_json::Value;

use super::{
    OURS,
    look::{self, list, text},
    object::{Object, Refusal},
};
use crate::domain::{config::mistake::shown, rollout::ManifestPolicy};

/// Kinds that a repository may hold unless the operator says more, with their groups.
const USUAL: [(&str, &str); 13] = [
    ("ConfigMap", ""),
    ("PersistentVolumeClaim", ""),
    ("Secret", ""),
    ("Service", ""),
    ("DaemonSet", "apps"),
    ("Deployment", "apps"),
    ("StatefulSet", "apps"),
    ("HorizontalPodAutoscaler", "autoscaling"),
    ("CronJob", "batch"),
    ("Job", "batch"),
    ("Ingress", "networking.k8s.io"),
    ("NetworkPolicy", "networking.k8s.io"),
    ("PodDisruptionBudget", "policy"),
];

/// Kinds that belong to no namespace ("kubectl api-resources --namespaced=false"), the usual add-ons' with them.
const CLUSTER: [&str; 38] = [
    "APIService",
    "CSIDriver",
    "CSINode",
    "CertificateSigningRequest",
    "ClusterExternalSecret",
    "ClusterIssuer",
    "ClusterPolicy",
    "ClusterRole",
    "ClusterRoleBinding",
    "ClusterSecretStore",
    "ClusterTriggerAuthentication",
    "ClusterTrustBundle",
    "ComponentStatus",
    "CustomResourceDefinition",
    "DeviceClass",
    "EC2NodeClass",
    "FlowSchema",
    "GatewayClass",
    "IPAddress",
    "IngressClass",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "MutatingWebhookConfiguration",
    "Namespace",
    "Node",
    "NodePool",
    "PersistentVolume",
    "PriorityClass",
    "PriorityLevelConfiguration",
    "ResourceSlice",
    "RuntimeClass",
    "ServiceCIDR",
    "StorageClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
    "VolumeAttachment",
    "VolumeAttributesClass",
];

/// Versions that left Kubernetes, and what came in their place ("Deprecated API Migration Guide").
const GONE: [(&str, &str); 9] = [
    ("apps/v1beta1", "apps/v1"),
    ("apps/v1beta2", "apps/v1"),
    ("extensions/v1beta1", "apps/v1"),
    ("networking.k8s.io/v1beta1", "networking.k8s.io/v1"),
    ("policy/v1beta1", "policy/v1"),
    ("batch/v1beta1", "batch/v1"),
    ("batch/v2alpha1", "batch/v1"),
    ("autoscaling/v2beta1", "autoscaling/v2"),
    ("autoscaling/v2beta2", "autoscaling/v2"),
];

/// Everything in the objects that the operator does not let a repository apply. Empty: all of it may be applied.
#[must_use]
pub fn refuse(objects: &[Object], policy: &ManifestPolicy) -> Vec<Refusal> {
    let mut found = Vec::new();
    for object in objects {
        match kind(object, policy) {
            // What is refused as a whole is not taken apart too.
            Some(refusal) => found.push(refusal),
            None => {
                found.extend(namespace(object, policy));
                found.extend(ours(object));
                found.extend(our_names(object));
                found.extend(special(object));
                if let Some(template) = look::template_pointer(object.kind()) {
                    pods::refuse(object, &format!("{template}/spec"), policy, &mut found);
                }
            }
        }
    }
    found
}

/// Whether an object is the namespace's own: it is the operator's, and left out without a word of blame.
pub(super) fn is_own_namespace(object: &Object, namespace: &str) -> bool {
    object.is("Namespace", "") && object.name() == namespace
}

fn kind(object: &Object, policy: &ManifestPolicy) -> Option<Refusal> {
    let (kind, group) = (object.kind(), object.group());
    if is_own_namespace(object, &policy.namespace) {
        return None;
    }
    let refused = |words: String| Some(object.refusal("/kind", words));
    let full = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
    let full = shown(&full);
    match (kind, group) {
        ("Namespace", "") => {
            return refused(format!(
                "Namespace {} is not the target's, which is {}: remove it; what is released goes to that one",
                shown(object.name()),
                shown(&policy.namespace)
            ));
        }
        ("ScaledObject" | "ScaledJob", "keda.sh") => {
            return refused(format!(
                "{full} is not supported yet: KEDA and a release would both set the number of copies. Until then, write \
                 a HorizontalPodAutoscaler"
            ));
        }
        ("VerticalPodAutoscaler", _) => {
            return refused(format!(
                "{full} is not supported yet: it would restart pods in the middle of a release. Until then, write \
                 `resources` into the Deployment"
            ));
        }
        ("Rollout", "argoproj.io") => {
            return refused(format!(
                "{full} releases by itself: write `kind: Deployment` and `apiVersion: apps/v1`, without its `strategy`"
            ));
        }
        _ => {}
    }
    let version = text(&object.value, "/apiVersion");
    if let Some((_, now)) = GONE.iter().find(|(gone, _)| *gone == version) {
        let now = if kind == "Ingress" { "networking.k8s.io/v1" } else { now };
        let words = format!("`apiVersion: {version}` left Kubernetes years ago: write `apiVersion: {now}`");
        return Some(object.refusal("/apiVersion", words));
    }
    // Names of the cluster's own kinds are also names of an add-on's namespaced ones: those have other groups.
    let cluster = CLUSTER.contains(&kind) && !(kind == "ClusterPolicy" && group.is_empty());
    if cluster {
        return refused(format!(
            "{full} belongs to the whole cluster, and a repository's manifests stay in their namespace: move it out of \
             this folder; the operator applies it"
        ));
    }
    let granted = policy.kinds.iter().any(|k| match k.split_once('.') {
        Some((name, of)) => name == kind && of == group,
        None => k == kind,
    });
    if granted || USUAL.contains(&(kind, group)) {
        return None;
    }
    let mend =
        format!("the operator can allow it: `kinds = [\"{}\"]` in the target's settings", full.trim_matches('`'));
    if kind == "CronJob" || kind == "Job" {
        return refused(format!("{full} is none that is known: write `apiVersion: batch/v1`"));
    }
    let why = match (kind, group) {
        ("Role" | "RoleBinding", "rbac.authorization.k8s.io") | ("ServiceAccount", "") => {
            "gives rights, which a repository can't give itself"
        }
        ("ResourceQuota" | "LimitRange", "") => "sets the namespace's limits, which are the operator's",
        ("Endpoints", "") | ("EndpointSlice", "discovery.k8s.io") => {
            "says who is behind a Service, which is ours during a release"
        }
        ("Pod" | "ReplicaSet" | "ReplicationController", _) => {
            return refused(format!("{full} can't be released: write a Deployment around the pod. Otherwise, {mend}"));
        }
        _ => "is not among the usual kinds",
    };
    refused(format!("{full} {why}: {mend}"))
}

fn namespace(object: &Object, policy: &ManifestPolicy) -> Option<Refusal> {
    let written = object.value.pointer("/metadata/namespace").filter(|n| !n.is_null())?;
    if written.as_str() == Some(&policy.namespace) {
        return None;
    }
    let other = written.as_str().map_or_else(|| written.to_string(), str::to_owned);
    let words = format!(
        "{} {} is for the namespace {}, and this target's is {}: remove the line `namespace`, or have the operator grant a \
         target for the other",
        object.kind(),
        shown(object.name()),
        shown(&other),
        shown(&policy.namespace)
    );
    Some(object.refusal("/metadata/namespace", words))
}

/// Labels and annotations that only we may write: with them, a repository could pass for another slot.
fn ours(object: &Object) -> Vec<Refusal> {
    let mut maps = vec!["/metadata/labels".to_owned(), "/metadata/annotations".to_owned()];
    if let Some(template) = look::template_pointer(object.kind()).filter(|t| !t.is_empty()) {
        maps.push(format!("{template}/metadata/labels"));
        maps.push(format!("{template}/metadata/annotations"));
        maps.push("/spec/selector/matchLabels".to_owned());
    }
    if object.kind() == "Service" {
        maps.push("/spec/selector".to_owned());
    }
    let mut found = Vec::new();
    for map in maps {
        let Some(entries) = object.value.pointer(&map).and_then(Value::as_object) else { continue };
        for key in entries.keys().filter(|k| k.starts_with(OURS)) {
            let pointer = format!("{map}/{}", key.replace('~', "~0").replace('/', "~1"));
            found.push(object.refusal(&pointer, format!("{} is Switchover's own: remove it", shown(key))));
        }
    }
    found
}

/// Names under which Switchover keeps what belongs to single releases: `switchover-NUMBER-…`, with the repository's number.
/// Whoever could write them could pass for a release that was proven; whoever could read them, for another repository.
fn our_names(object: &Object) -> Vec<Refusal> {
    let reserved = |name: &str| {
        name.strip_prefix("switchover-").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let mut found = Vec::new();
    if reserved(object.name()) {
        let words = format!("{} is a name of Switchover's own objects: take another one", shown(object.name()));
        found.push(object.refusal("/metadata/name", words));
    }
    let mut named: Vec<String> = super::config_names(&object.value).into_iter().map(|(_, name)| name).collect();
    if let Some(template) = look::template_pointer(object.kind()) {
        let pull = list(&object.value, &format!("{template}/spec/imagePullSecrets"));
        named.extend(pull.iter().map(|s| text(s, "/name").to_owned()));
    }
    let tls = list(&object.value, "/spec/tls");
    named.extend(tls.iter().map(|t| text(t, "/secretName").to_owned()));
    for name in named.iter().filter(|n| reserved(n)) {
        let words = format!("{} is one of Switchover's own objects, which manifests may not use", shown(name));
        found.push(object.refusal("", words));
    }
    found
}

/// What single kinds may not have.
fn special(object: &Object) -> Vec<Refusal> {
    let mut found = Vec::new();
    match object.kind() {
        "Service" if !list(&object.value, "/spec/externalIPs").is_empty() => {
            // CVE-2020-8554: traffic of the whole cluster to that address goes to this Service.
            let words = "`externalIPs` takes traffic that is meant for others: remove it; `type: LoadBalancer` or an \
                         Ingress is the way in";
            found.push(object.refusal("/spec/externalIPs", words));
        }
        "Secret" => {
            let of = text(&object.value, "/type");
            if of == "kubernetes.io/service-account-token" || of == "bootstrap.kubernetes.io/token" {
                let words = format!("a Secret of type {} gets a token of the cluster: remove it", shown(of));
                found.push(object.refusal("/type", words));
            }
        }
        _ => {}
    }
    found
}

/// What the author of an object says to Argo CD; it does not tell that Argo CD manages the object.
const SAID_TO_ARGO: [&str; 7] = [
    "hook",
    "hook-delete-policy",
    "sync-wave",
    "sync-options",
    "compare-options",
    "ignore-healthcheck",
    "manifest-generate-paths",
];

/// Who else manages a live object, in words with the way out. None: nobody that is known.
///
/// Sources: "Resource Tracking" (Argo CD), "Kustomization" and "HelmRelease" (Flux), `ValidateOwnership` of Helm 3
/// ("meta.helm.sh/release-name"), "Owners and Dependents" (Kubernetes).
#[must_use]
pub fn managed_by_other(live: &Value) -> Option<String> {
    let what = format!("{} {}", text(live, "/kind"), shown(text(live, "/metadata/name")));
    let labels = look::texts(live, "/metadata/labels");
    let annotations = look::texts(live, "/metadata/annotations");
    let both = || labels.iter().chain(&annotations);
    let argo = both()
        .find(|(key, _)| key.strip_prefix("argocd.argoproj.io/").is_some_and(|rest| !SAID_TO_ARGO.contains(&rest)));
    if let Some((key, value)) = argo {
        let app = value.split(':').next().unwrap_or_default();
        let name = if app.is_empty() { String::new() } else { format!(" (application {})", shown(app)) };
        return Some(format!(
            "{what} is managed by Argo CD{name}: it would undo each switch. Remove the object from that application \
             without deleting it (`argocd app set … --sync-policy none`, then take the file out of its folder), then \
             remove {} from the object (`kubectl annotate` or `kubectl label … {key}-`)",
            shown(key)
        ));
    }
    for (prefix, kind) in
        [("kustomize.toolkit.fluxcd.io/", "Kustomization"), ("helm.toolkit.fluxcd.io/", "HelmRelease")]
    {
        // Flux leaves an object alone that says so.
        let alone = annotations.get(&format!("{prefix}reconcile")).is_some_and(|v| v.eq_ignore_ascii_case("disabled"));
        if let Some((_, name)) = both().find(|(key, _)| **key == format!("{prefix}name"))
            && !alone
        {
            return Some(format!(
                "{what} is managed by Flux ({kind} {}): it would undo each switch. Set `spec.prune: false` there and \
                 take the object out of it, or annotate the object with `{prefix}reconcile: disabled`",
                shown(name)
            ));
        }
    }
    if let Some(release) = annotations.get("meta.helm.sh/release-name") {
        let managed = labels.get("app.kubernetes.io/managed-by").is_none_or(|by| by == "Helm");
        if managed {
            return Some(format!(
                "{what} belongs to the Helm release {}: `helm upgrade` would undo each switch. To hand it over: annotate \
                 it with `helm.sh/resource-policy: keep`, take it out of the chart, `helm upgrade` once, then remove the \
                 annotation `meta.helm.sh/release-name` and the label `app.kubernetes.io/managed-by`",
                shown(release)
            ));
        }
    }
    let owner =
        list(live, "/metadata/ownerReferences").iter().find(|o| o.get("controller") == Some(&Value::Bool(true)))?;
    let mut words = format!("{what} is managed by {} {}", text(owner, "/kind"), shown(text(owner, "/name")));
    let _ = write!(words, ": change it there; an object with an owner can't be released");
    Some(words)
}

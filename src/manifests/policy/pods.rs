//! What pods may not have.

use serde_json::Value;

use super::super::{
    look::{list, text},
    object::{Object, Refusal},
};
use crate::domain::{config::mistake::shown, rollout::ManifestPolicy};

/// Capabilities that may be added ("Pod Security Standards", baseline): those that container engines give anyway.
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Sysctls that are the pod's own ("Using sysctls in a Kubernetes Cluster").
const SYSCTLS: [&str; 10] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
];

/// Volumes that reach into the node.
const NODE_VOLUMES: [(&str, &str); 3] = [
    ("hostPath", "reaches into the node's files: use an `emptyDir`, a ConfigMap or a PersistentVolumeClaim"),
    ("flexVolume", "runs a driver on the node: use a PersistentVolumeClaim"),
    ("gitRepo", "runs git on the node, and left Kubernetes: put the files into the image"),
];

/// Looks at the pod spec at `at`.
pub(super) fn refuse(object: &Object, at: &str, policy: &ManifestPolicy, found: &mut Vec<Refusal>) {
    let Some(spec) = object.value.pointer(at) else { return };
    let mut tell = |pointer: &str, words: String| found.push(object.refusal(&format!("{at}{pointer}"), words));
    for (key, what) in [("hostNetwork", "network"), ("hostPID", "processes"), ("hostIPC", "shared memory")] {
        if on(spec.get(key)) {
            tell(&format!("/{key}"), format!("`{key}` opens the node's {what} to the pod: remove the line"));
        }
    }
    for key in ["serviceAccountName", "serviceAccount"] {
        let account = text(spec, &format!("/{key}"));
        if !account.is_empty() && account != "default" && !policy.service_accounts.iter().any(|a| a == account) {
            let words = format!(
                "the pod runs as the service account {}, which is not granted: remove the line, or have the operator \
                 write `service_accounts = [\"{account}\"]` in the target's settings",
                shown(account)
            );
            tell(&format!("/{key}"), words);
            break;
        }
    }
    if !text(spec, "/nodeName").is_empty() {
        tell(
            "/nodeName",
            "`nodeName` passes the scheduler by: remove the line; `nodeSelector` chooses among nodes".to_owned(),
        );
    }
    if text(spec, "/priorityClassName").starts_with("system-") {
        let words = "system priorities push other pods off their nodes: remove the line, or use a class of your own";
        tell("/priorityClassName", words.to_owned());
    }
    for (i, volume) in list(spec, "/volumes").iter().enumerate() {
        for (kind, why) in NODE_VOLUMES {
            if volume.get(kind).is_some_and(|v| !v.is_null()) {
                let words = format!("the volume {} is a `{kind}`, which {why}", shown(text(volume, "/name")));
                tell(&format!("/volumes/{i}/{kind}"), words);
            }
        }
    }
    for (i, sysctl) in list(spec, "/securityContext/sysctls").iter().enumerate() {
        let name = text(sysctl, "/name");
        if !SYSCTLS.contains(&name) {
            let words = format!("the sysctl {} is the whole node's: remove it", shown(name));
            tell(&format!("/securityContext/sysctls/{i}"), words);
        }
    }
    context(spec.get("securityContext"), "/securityContext", &mut tell);
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        for (i, container) in list(spec, &format!("/{kind}")).iter().enumerate() {
            one(container, &format!("/{kind}/{i}"), &mut tell);
        }
    }
    let annotations = at.strip_suffix("/spec").map(|t| format!("{t}/metadata/annotations")).unwrap_or_default();
    let profiles = object.value.pointer(&annotations).and_then(Value::as_object);
    for (key, value) in profiles.into_iter().flatten() {
        if key.starts_with("container.apparmor.security.beta.kubernetes.io/") && value == "unconfined" {
            let pointer = format!("{annotations}/{}", key.replace('/', "~1"));
            found.push(object.refusal(&pointer, "AppArmor may not be turned off: remove the annotation"));
        }
    }
}

fn one(container: &Value, at: &str, tell: &mut impl FnMut(&str, String)) {
    let name = shown(text(container, "/name"));
    for (i, port) in list(container, "/ports").iter().enumerate() {
        let host = port.get("hostPort").and_then(Value::as_i64).unwrap_or_default();
        if host != 0 {
            let words = format!(
                "`hostPort: {host}` ties {name} to its node: two slots can't have one port there. Remove the line; a \
                 Service leads to the container's port"
            );
            tell(&format!("{at}/ports/{i}/hostPort"), words);
        }
    }
    let Some(security) = container.get("securityContext") else { return };
    let at = format!("{at}/securityContext");
    if on(security.get("privileged")) {
        tell(&format!("{at}/privileged"), format!("{name} is privileged, which gives it the node: remove the line"));
    }
    if on(security.get("allowPrivilegeEscalation")) {
        let words = format!("{name} asks for more rights than it begins with: write `allowPrivilegeEscalation: false`");
        tell(&format!("{at}/allowPrivilegeEscalation"), words);
    }
    for (i, capability) in list(security, "/capabilities/add").iter().enumerate() {
        let capability = capability.as_str().unwrap_or_default();
        if !CAPABILITIES.contains(&capability.strip_prefix("CAP_").unwrap_or(capability)) {
            let words = format!("{name} asks for the capability {}: remove it from `add`", shown(capability));
            tell(&format!("{at}/capabilities/add/{i}"), words);
        }
    }
    let mount = text(security, "/procMount");
    if !mount.is_empty() && mount != "Default" {
        tell(&format!("{at}/procMount"), format!("{name} asks for an unmasked `/proc`: remove the line"));
    }
    context(Some(security), &at, tell);
}

/// What pods and containers have in common.
fn context(security: Option<&Value>, at: &str, tell: &mut impl FnMut(&str, String)) {
    let Some(security) = security else { return };
    if on(security.pointer("/windowsOptions/hostProcess")) {
        tell(
            &format!("{at}/windowsOptions/hostProcess"),
            "`hostProcess` runs on the node itself: remove it".to_owned(),
        );
    }
    for key in ["seccompProfile", "appArmorProfile"] {
        if text(security, &format!("/{key}/type")) == "Unconfined" {
            tell(&format!("{at}/{key}/type"), format!("`{key}` may not be turned off: write `type: RuntimeDefault`"));
        }
    }
    let of = text(security, "/seLinuxOptions/type");
    if !["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"].contains(&of) {
        tell(
            &format!("{at}/seLinuxOptions/type"),
            format!("the SELinux type {} is none for containers: remove it", shown(of)),
        );
    }
}

fn on(value: Option<&Value>) -> bool {
    value == Some(&Value::Bool(true))
}

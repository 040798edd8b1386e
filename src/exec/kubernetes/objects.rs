//! What the cluster is asked for ("Job v1", "Pod v1", "Secret v1", "NetworkPolicy v1" of the Kubernetes API).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::{batch::v1::Job, core::v1::Secret, networking::v1::NetworkPolicy};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::scripts::{self, NAME, SHARED, USER};
use crate::{
    docker::{HUB, Reference, pull::Logins},
    domain::config::Service,
    exec::{
        limits::Limits,
        local::{ContainerStep, ExecError, StepSpec},
    },
};

/// The containers of a pod.
pub(super) const STEP: &str = "step";
pub(super) const KEEPER: &str = "keeper";
pub(super) const USERS: &str = "users";
/// Before the names of companions, so that none is one of ours.
const COMPANION: &str = "with-";

/// A step that nobody ends is ended by the cluster so long after its time limit: files are brought and taken, too.
const BACKSTOP: Duration = Duration::from_secs(3600);
/// Jobs that nobody removes go so long after their end, in seconds.
const FORGET: i64 = 600;
/// A pod leaves a node that is not heard of after so many seconds.
const SILENT_NODE: i64 = 60;
/// What the keeper may use: it packs and unpacks.
const KEEPER_MEMORY: u64 = 256 << 20;
/// What is set aside of a node's disk for a step; its limit is another thing.
const DISK_ASKED: u64 = 64 << 20;
/// Browsers in tests need more than the 64 MB of the runtime; it counts as memory.
const SHM: u64 = 512 << 20;

/// Where a pod of a step belongs.
pub(super) struct Place<'a> {
    /// Of the Job.
    pub(super) name: &'a str,
    /// Of what belongs to the Job: another for each attempt, because the cluster takes a moment for what belonged to the
    /// one before.
    pub(super) attempt: &'a str,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) limits: &'a Limits,
    /// Bytes of disk.
    pub(super) disk: Option<u64>,
    pub(super) node_selector: &'a BTreeMap<String, String>,
    /// Whether there is a Secret with logins.
    pub(super) logs_in: bool,
    /// How long companions may take.
    pub(super) ready: Duration,
    /// Images that are asked for anew at their registry, because what lies there is not for everybody.
    pub(super) guarded: &'a (dyn Fn(&str) -> bool + Sync),
}

/// The container of a companion.
pub(super) fn companion(name: &str) -> String {
    format!("{COMPANION}{name}")
}

fn text<'a>(what: &str, path: &'a Path) -> Result<&'a str, ExecError> {
    path.to_str().ok_or_else(|| ExecError::Spec(format!("{what} is no UTF-8: {}", path.display())))
}

fn made<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, ExecError> {
    serde_json::from_value(value).map_err(|e| ExecError::Spec(format!("describing the step to the cluster: {e}")))
}

/// The port that a companion is known by to be ready. None: it need only run.
pub(super) fn port(name: &str, service: &Service) -> Result<Option<u16>, String> {
    let wrong = |why: &str| format!("companion {name} ({}): {why}", service.image);
    match service.ready.as_deref() {
        None => Ok(None),
        Some("health") => Err(wrong(
            "a cluster does not run an image's own health check: write `ready: tcp:PORT` with the port that it listens on",
        )),
        Some(port) => match port.strip_prefix("tcp:").and_then(|p| p.parse().ok()).filter(|p| *p > 0) {
            Some(port) => Ok(Some(port)),
            None => Err(wrong("`ready` is `tcp:PORT` or `health`")),
        },
    }
}

/// What stands in nobody's way in a pod: companions share one network, and one port is one's.
pub(super) fn companions_fit(services: &indexmap::IndexMap<String, Service>) -> Result<(), String> {
    let mut ports: BTreeMap<u16, &str> = BTreeMap::new();
    for (name, service) in services {
        let Some(port) = port(name, service)? else { continue };
        if let Some(other) = ports.insert(port, name) {
            return Err(format!(
                "the companions {other} and {name} both listen on port {port}: in a cluster they share one network, so let \
                 one of them listen on another port"
            ));
        }
    }
    Ok(())
}

/// The folders that are mounts of the pod: those in which a step's folders lie, so that these are its user's own.
pub(super) fn mounts<'a>(folders: impl IntoIterator<Item = &'a Path>) -> Vec<PathBuf> {
    let root = Path::new("/");
    let mut all: Vec<PathBuf> = folders
        .into_iter()
        .map(|folder| folder.parent().filter(|parent| *parent != root).unwrap_or(folder).to_owned())
        .collect();
    all.sort();
    let mut mounts: Vec<PathBuf> = Vec::new();
    for path in all {
        // Sorted: whatever it lies in is before it.
        if !mounts.iter().any(|m| path.starts_with(m)) {
            mounts.push(path);
        }
    }
    mounts
}

/// The environment of a step; the image's own is under it.
pub(super) fn environment(spec: &StepSpec) -> Result<BTreeMap<String, String>, ExecError> {
    let home = text("the home folder", &spec.home)?;
    let tmp = format!("{home}/tmp");
    let mut env: BTreeMap<String, String> = [
        ("HOME", home),
        ("TMPDIR", &tmp),
        ("USER", NAME),
        ("LANG", "C.UTF-8"),
        ("CI", "true"),
        // The mount's folders are not the step's own.
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", "safe.directory"),
        ("GIT_CONFIG_VALUE_0", "*"),
    ]
    .map(|(n, v)| (n.to_owned(), v.to_owned()))
    .into();
    for (name, value) in &spec.env {
        // A Secret's keys ("Secret v1", `data`); the kubelet leaves out what is no name of a variable.
        let good = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if name.is_empty() || !name.chars().all(good) || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(ExecError::Spec(format!(
                "{name:?} can't be in a pod's environment: letters, digits, '_', '-' and '.' only, and no digit first"
            )));
        }
        if value.contains('\0') {
            return Err(ExecError::Spec(format!("the value of {name:?} can't be in an environment: no NUL there")));
        }
        env.insert(name.clone(), value.clone());
    }
    Ok(env)
}

/// The Secret with a step's environment.
pub(super) fn env_secret(
    place: &Place<'_>,
    owner: &Value,
    env: &BTreeMap<String, String>,
) -> Result<Secret, ExecError> {
    made(json!({
        "metadata": meta(&env_name(place.attempt), place, owner),
        "type": "Opaque",
        "immutable": true,
        "stringData": env,
    }))
}

pub(super) fn env_name(name: &str) -> String {
    format!("{name}-env")
}

pub(super) fn login_name(name: &str) -> String {
    format!("{name}-pull")
}

/// The logins for the registries of a step's images. None: there are none, or none is granted.
pub(super) fn logins(step: &ContainerStep, logins: &Logins) -> Option<Value> {
    let images = step.image.iter().chain(step.services.values().map(|s| &s.image));
    let mut auths = serde_json::Map::new();
    for image in images.filter_map(|image| Reference::parse(image)) {
        let Some(login) = logins.of(&step.repository, &image) else { continue };
        let password = login.password.expose_secret();
        // "docker login" of the CLI's reference: Docker Hub's address is a historical one.
        let host = if image.host == HUB { "https://index.docker.io/v1/" } else { image.host.as_str() };
        let auth = STANDARD.encode(format!("{}:{password}", login.username));
        auths.insert(host.to_owned(), json!({ "username": login.username, "password": password, "auth": auth }));
    }
    (!auths.is_empty()).then(|| json!({ "auths": auths }))
}

/// The Secret that the kubelet logs in with ("Pull an Image from a Private Registry").
pub(super) fn login_secret(place: &Place<'_>, owner: &Value, logins: &Value) -> Result<Secret, ExecError> {
    made(json!({
        "metadata": meta(&login_name(place.attempt), place, owner),
        "type": "kubernetes.io/dockerconfigjson",
        "immutable": true,
        "stringData": { ".dockerconfigjson": logins.to_string() },
    }))
}

/// Nothing in, nothing out: for steps that reach no more than their companions, which share their pod.
pub(super) fn closed(place: &Place<'_>, owner: &Value) -> Result<NetworkPolicy, ExecError> {
    made(json!({
        "metadata": meta(place.attempt, place, owner),
        "spec": {
            "podSelector": { "matchLabels": { (super::ATTEMPT): place.labels[super::ATTEMPT] } },
            "policyTypes": ["Ingress", "Egress"],
        },
    }))
}

fn meta(name: &str, place: &Place<'_>, owner: &Value) -> Value {
    json!({ "name": name, "labels": place.labels, "ownerReferences": [owner] })
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX / 4)
}

/// The Job of a step, suspended: its Secrets belong to it, and must be there before its pod.
pub(super) fn job(spec: &StepSpec, step: &ContainerStep, image: &str, place: &Place<'_>) -> Result<Job, ExecError> {
    let folders = folders(spec, step);
    let mounts = mounts(folders.iter().map(PathBuf::as_path));
    let mut at = Vec::new();
    for (n, mount) in mounts.iter().enumerate() {
        at.push(json!({ "name": "work", "subPath": format!("p{n}"), "mountPath": text("a folder", mount)? }));
    }
    let shared = |read_only: bool| json!({ "name": "shared", "mountPath": SHARED, "readOnly": read_only });
    let home = text("the home folder", &spec.home)?;
    let env = environment(spec)?;
    let alone = json!({
        "runAsUser": USER, "runAsGroup": USER, "runAsNonRoot": true,
        "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
    });
    let container = |name: &str, command: Vec<Value>, mounts: Vec<Value>, resources: Value| {
        json!({
            "name": name, "image": image, "imagePullPolicy": policy(image, place),
            "command": command, "args": [], "workingDir": "/", "securityContext": alone,
            "volumeMounts": mounts, "resources": resources,
            "terminationMessagePolicy": "File",
        })
    };
    let sh = |script: &str, args: &[&str]| -> Vec<Value> {
        ["sh", "-c", script, "sh"].iter().chain(args).map(|s| json!(escaped(s))).collect()
    };
    let small = amounts(Some(KEEPER_MEMORY), place.limits.cpu.map(|c| c.min(1.0)), None);
    let users = container(USERS, sh(scripts::USERS, &[home]), vec![shared(false)], small.clone());
    let mut keeper =
        container(KEEPER, sh(scripts::KEEPER, &[]), at.iter().cloned().chain([shared(false)]).collect(), small);
    // Links of a cache lead out of the folder that is unpacked; old busybox leaves such out unless it is told.
    keeper["env"] = json!([{ "name": "EXTRACT_UNSAFE_SYMLINKS", "value": "1" }]);
    let first = scripts::first(|name| env.contains_key(name));
    let cwd = text("the folder", &spec.cwd)?;
    let mut main = container(
        STEP,
        sh(&first, &[&spec.command, cwd]),
        at.into_iter()
            .chain([
                shared(true),
                json!({ "name": "shared", "mountPath": "/etc/passwd", "subPath": "passwd", "readOnly": true }),
                json!({ "name": "shm", "mountPath": "/dev/shm" }),
            ])
            .collect(),
        amounts(place.limits.memory, place.limits.cpu, place.disk),
    );
    main["envFrom"] = json!([{ "secretRef": { "name": env_name(place.attempt) } }]);
    let mut containers = vec![main, keeper];
    for (name, service) in &step.services {
        containers.push(beside(name, service, place)?);
    }
    let labels = &place.labels;
    let tolerations = ["not-ready", "unreachable"].map(|what| {
        let key = format!("node.kubernetes.io/{what}");
        json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SILENT_NODE })
    });
    // Clusters may have nodes of another kind too.
    let mut nodes = BTreeMap::from([("kubernetes.io/os".to_owned(), "linux".to_owned())]);
    nodes.extend(place.node_selector.clone());
    let mut pod = json!({
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": seconds(spec.grace).saturating_add(1),
        "hostname": "step",
        "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } },
        "nodeSelector": nodes,
        "tolerations": tolerations,
        "volumes": [
            { "name": "work", "emptyDir": place.disk.map_or(json!({}), |d| json!({ "sizeLimit": d.to_string() })) },
            { "name": "shared", "emptyDir": { "sizeLimit": "16Mi" } },
            { "name": "shm", "emptyDir": { "medium": "Memory", "sizeLimit": SHM.to_string() } },
        ],
        "initContainers": [users],
        "containers": containers,
    });
    if place.logs_in {
        pod["imagePullSecrets"] = json!([{ "name": login_name(place.attempt) }]);
    }
    if !step.services.is_empty() {
        let names: Vec<&String> = step.services.keys().collect();
        pod["hostAliases"] = json!([{ "ip": "127.0.0.1", "hostnames": names }]);
    }
    made(json!({
        "metadata": { "name": place.name, "labels": labels },
        "spec": {
            "suspend": true,
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": seconds(spec.timeout.saturating_add(spec.grace).saturating_add(BACKSTOP)),
            "ttlSecondsAfterFinished": FORGET,
            "template": { "metadata": { "labels": labels }, "spec": pod },
        },
    }))
}

/// A companion. Images of databases begin as root and become somebody else, which takes a few capabilities; what they
/// may do to files is within their own. It is a container like the step's own, not one that is started again: a database
/// that ended and began anew would be an empty one, and nobody would know.
fn beside(name: &str, service: &Service, place: &Place<'_>) -> Result<Value, ExecError> {
    let mut container = json!({
        "name": companion(name), "image": service.image, "imagePullPolicy": policy(&service.image, place),
        "env": service.env.iter().map(|(n, v)| json!({ "name": n, "value": escaped(v) })).collect::<Vec<_>>(),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {
                "drop": ["ALL"],
                "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"],
            },
        },
        "resources": amounts(place.limits.memory, place.limits.cpu, place.disk),
    });
    if let Some(port) = port(name, service).map_err(ExecError::Spec)? {
        // Ours is the limit that counts, and its words; the kubelet's comes later.
        let tries = seconds(place.ready).saturating_add(60);
        container["startupProbe"] =
            json!({ "tcpSocket": { "port": port }, "periodSeconds": 1, "failureThreshold": tries });
    }
    Ok(container)
}

/// Of commands and values, the kubelet puts in what `$(NAME)` names and makes one of two dollars ("Container v1",
/// `command`, `env.value`).
fn escaped(value: &str) -> String {
    value.replace('$', "$$")
}

/// A tag that moves is not asked for at every step; but what is not for everybody is, with the login of who asks.
fn policy(image: &str, place: &Place<'_>) -> &'static str {
    if (place.guarded)(image) { "Always" } else { "IfNotPresent" }
}

/// Asked for and allowed: the same, but for the disk.
fn amounts(memory: Option<u64>, cpu: Option<f64>, disk: Option<u64>) -> Value {
    let mut same = serde_json::Map::new();
    if let Some(memory) = memory {
        same.insert("memory".into(), json!(memory.to_string()));
    }
    if let Some(cpu) = cpu {
        same.insert("cpu".into(), json!(format!("{}m", (cpu * 1000.0).ceil().max(1.0))));
    }
    let (mut requests, mut limits) = (same.clone(), same);
    if let Some(disk) = disk {
        requests.insert("ephemeral-storage".into(), json!(disk.min(DISK_ASKED).to_string()));
        limits.insert("ephemeral-storage".into(), json!(disk.to_string()));
    }
    json!({ "requests": requests, "limits": limits })
}

/// All that a step has of this host.
pub(super) fn folders(spec: &StepSpec, step: &ContainerStep) -> Vec<PathBuf> {
    let mut folders = vec![step.workspace.clone(), spec.home.clone()];
    folders.extend(step.caches.iter().cloned());
    folders.extend(step.mirror.iter().cloned());
    folders
}

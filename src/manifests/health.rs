//! Why a pod is not ready, in words, from what the cluster says of it.
//!
//! Sources: "Pod Lifecycle", "Debug Pods", and the reasons that kubelet and scheduler write into statuses and events.

use std::fmt::Write as _;

use serde_json::Value;

use super::look::{list, text};
use crate::domain::{
    answer::tells_code,
    config::mistake::{mask, shown},
};

/// The last lines of a log that are told.
const LINES: usize = 30;
/// The longest text of the cluster that is told, in characters.
const LONGEST: usize = 600;

/// Why this pod is not ready. `events` are those of the pod, in the order of time; `log_tail` the last lines of the
/// container that ended, if they were read. None: it is ready, or nothing is known yet.
#[must_use]
pub fn why(pod: &Value, events: &[Value], log_tail: Option<&[String]>) -> Option<String> {
    if condition(pod, "Ready").is_some_and(|c| text(c, "/status") == "True") {
        return None;
    }
    if let Some(words) = gone(pod) {
        return Some(words);
    }
    if let Some(words) = unschedulable(pod) {
        return Some(words);
    }
    let init = list(pod, "/status/initContainerStatuses").iter();
    let statuses: Vec<&Value> = init.chain(list(pod, "/status/containerStatuses")).collect();
    for status in &statuses {
        if let Some(words) = container(pod, status, events, log_tail) {
            return Some(words);
        }
    }
    if let Some(words) = waiting_for_node(events) {
        return Some(words);
    }
    if let Some(words) = probe(pod, &statuses, events) {
        return Some(words);
    }
    let open = list(pod, "/spec/readinessGates")
        .iter()
        .map(|g| text(g, "/conditionType"))
        .find(|of| condition(pod, of).is_none_or(|c| text(c, "/status") != "True"));
    open.map(|gate| format!("it waits for the readiness gate {}, which somebody else must set", shown(gate)))
}

/// Why a workload (Deployment or ReplicaSet) makes no pods: quota, admission. `events` are those of it and its ReplicaSets.
#[must_use]
pub fn why_no_pods(workload: &Value, events: &[Value]) -> Option<String> {
    let failed =
        condition(workload, "ReplicaFailure").filter(|c| text(c, "/status") == "True").map(|c| text(c, "/message"));
    let event = events.iter().rev().find(|e| text(e, "/reason") == "FailedCreate").map(message);
    let said = failed.filter(|m| !m.is_empty()).or(event)?;
    Some(refused(said))
}

/// What the API server said when a pod was made.
fn refused(said: &str) -> String {
    if let Some((_, rest)) = said.split_once("exceeded quota: ") {
        return format!("the namespace's quota does not allow another pod: {}", clean(rest));
    }
    if said.contains("violates PodSecurity") {
        let rest = said.split_once("violates PodSecurity").map_or(said, |(_, rest)| rest);
        return format!(
            "the namespace's pod security does not allow this pod: {}",
            clean(rest.trim_start_matches([' ', ':']))
        );
    }
    if let Some((_, rest)) = said.split_once("error looking up service account ") {
        let name = rest.split(':').next().unwrap_or(rest);
        return format!("the service account {} is not there: make it, or remove `serviceAccountName`", shown(name));
    }
    if said.contains("admission webhook") {
        return format!("a rule of the cluster refuses the pod: {}", clean(said));
    }
    format!("the cluster refuses the pod: {}", clean(said))
}

fn condition<'a>(object: &'a Value, of: &str) -> Option<&'a Value> {
    list(object, "/status/conditions").iter().find(|c| text(c, "/type") == of)
}

/// What an event says; `note` is the newer API's word for it.
fn message(event: &Value) -> &str {
    let message = text(event, "/message");
    if message.is_empty() { text(event, "/note") } else { message }
}

fn last<'a>(events: &'a [Value], reasons: &[&str]) -> Option<&'a str> {
    let found = events.iter().rev().find(|e| reasons.contains(&text(e, "/reason")) && !message(e).is_empty());
    found.map(message)
}

/// A text of the cluster's, in one line, with secrets blanked.
fn clean(said: &str) -> String {
    let flat: Vec<&str> = said.split_whitespace().collect();
    let flat = mask(&flat.join(" "));
    let mut cut: String = flat.chars().take(LONGEST).filter(|c| !c.is_control()).collect();
    if flat.chars().nth(LONGEST).is_some() {
        cut.push('…');
    }
    cut
}

/// Ended from outside: evicted, pushed away, its node lost.
fn gone(pod: &Value) -> Option<String> {
    let node = text(pod, "/spec/nodeName");
    let on = if node.is_empty() { String::new() } else { format!(" from the node {}", shown(node)) };
    let said = |words: String, message: &str| {
        if message.is_empty() { words } else { format!("{words}: {}", clean(message)) }
    };
    let (reason, detail) = (text(pod, "/status/reason"), text(pod, "/status/message"));
    match reason {
        "Evicted" => return Some(said(format!("it was evicted{on}"), detail)),
        "NodeLost" | "NodeShutdown" | "Terminated" | "Shutdown" => {
            return Some(said(format!("its node {} went away", shown(node)), detail));
        }
        "Preempting" | "Preempted" => {
            return Some(said(format!("it was pushed away{on} by a more important pod"), detail));
        }
        "UnexpectedAdmissionError" | "OutOfcpu" | "OutOfmemory" | "OutOfpods" | "NodeAffinity" => {
            return Some(said(format!("the node {} did not take it ({reason})", shown(node)), detail));
        }
        "DeadlineExceeded" => return Some("it ran longer than it may (`activeDeadlineSeconds`)".to_owned()),
        _ => {}
    }
    if let Some(target) = condition(pod, "DisruptionTarget").filter(|c| text(c, "/status") == "True") {
        let words = match text(target, "/reason") {
            "PreemptionByScheduler" => format!("it is pushed away{on} by a more important pod"),
            "DeletionByTaintManager" => format!("it is taken{on}, which is not well or is being cleared"),
            "EvictionByEvictionAPI" => format!("it is evicted{on}, which is being drained"),
            "TerminationByKubelet" => {
                format!("the node {} ends it, being short of something or shut down", shown(node))
            }
            "DeletionByPodGC" => format!("its node {} is gone", shown(node)),
            other => format!("it is taken away{on} ({other})"),
        };
        return Some(said(words, text(target, "/message")));
    }
    let ready = condition(pod, "Ready");
    if ready.is_some_and(|c| text(c, "/reason") == "NodeNotReady") {
        return Some(format!("its node {} no longer answers", shown(node)));
    }
    pod.pointer("/metadata/deletionTimestamp").map(|_| "it is being stopped".to_owned())
}

/// No node takes it.
fn unschedulable(pod: &Value) -> Option<String> {
    let scheduled = condition(pod, "PodScheduled").filter(|c| text(c, "/status") == "False")?;
    let said = text(scheduled, "/message");
    if text(scheduled, "/reason") == "SchedulingGated" {
        return Some(format!("it waits for a scheduling gate: {}", clean(said)));
    }
    let mut words = match () {
        () if said.contains("Insufficient") => "no node has room for it".to_owned(),
        () if said.contains("PersistentVolumeClaim") || said.contains("persistentvolumeclaim") => {
            "a volume that it needs is not there".to_owned()
        }
        () => "no node takes it".to_owned(),
    };
    let asked = requests(pod);
    if said.contains("Insufficient") && !asked.is_empty() {
        let _ = write!(words, ", which asks for {asked}");
    }
    // What pushing others away would bring is of no use to an author.
    let said = said.split(" preemption:").next().unwrap_or(said);
    let _ = write!(words, ": {}", clean(said));
    Some(words)
}

/// What its containers ask for, as written: `500m CPU and 2Gi memory`.
fn requests(pod: &Value) -> String {
    let mut all: Vec<String> = Vec::new();
    for (key, word) in [("cpu", "CPU"), ("memory", "memory")] {
        let of = |c: &Value| {
            let value = c.pointer(&format!("/resources/requests/{key}"))?;
            Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        let amounts: Vec<String> = list(pod, "/spec/containers").iter().filter_map(of).collect();
        if !amounts.is_empty() {
            all.push(format!("{} {word}", amounts.join(" + ")));
        }
    }
    all.join(" and ")
}

fn container(pod: &Value, status: &Value, events: &[Value], log_tail: Option<&[String]>) -> Option<String> {
    let name = text(status, "/name");
    let several = list(pod, "/spec/containers").len() + list(pod, "/spec/initContainers").len() > 1;
    let whose = if several { format!("container {}: ", shown(name)) } else { String::new() };
    let reason = text(status, "/state/waiting/reason");
    let said = text(status, "/state/waiting/message");
    let image = text(status, "/image");
    let words = match reason {
        "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" | "ImageInspectError" => {
            let answer = events
                .iter()
                .rev()
                .map(message)
                .find(|m| m.contains("Failed to pull image") || m.contains("failed to pull"))
                .or(said.split_once("ErrImagePull: ").map(|(_, why)| why))
                .or(Some(said).filter(|s| !s.contains("Back-off")));
            pull(image, answer.unwrap_or_default())
        }
        "InvalidImageName" => format!("the image's name {} is none", shown(image)),
        "ErrImageNeverPull" => {
            format!("the image {} is not on the node, and `imagePullPolicy: Never` forbids to fetch it", shown(image))
        }
        "CreateContainerConfigError" => config_error(said),
        "CreateContainerError" | "RunContainerError" | "StartError" => start_error(said),
        _ => {
            let restarts = status.get("restartCount").and_then(Value::as_u64).unwrap_or_default();
            let now = status.pointer("/state/terminated");
            let before =
                status.pointer("/lastState/terminated").filter(|_| restarts > 0 || reason == "CrashLoopBackOff");
            // A running container that ended before has come up again; its probe tells more, once it was asked.
            let running = status.pointer("/state/running").is_some();
            let probed = events.iter().any(|e| matches!(text(e, "/reason"), "Unhealthy" | "ProbeWarning"));
            let ended = now.or(before.filter(|_| !(running && probed)))?;
            // An init container that did its work.
            if ended.get("exitCode").and_then(Value::as_i64) == Some(0) && reason.is_empty() {
                return None;
            }
            ended_words(pod, name, ended, restarts, log_tail)
        }
    };
    Some(format!("{whose}{words}"))
}

/// The registry's answer, with what it means.
fn pull(image: &str, answer: &str) -> String {
    let lower = answer.to_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|p| lower.contains(p));
    let code = |codes: &[&str]| tells_code(&lower, codes);
    let meaning = if has(&["toomanyrequests", "too many requests", "rate limit"]) || code(&["429"]) {
        "the registry allows no more pulls for now"
    } else if has(&["unauthorized", "authentication required", "no basic auth", "access denied", "forbidden", "denied"])
        || code(&["401", "403"])
    {
        "the registry does not let the cluster in (or has no such image): is its login among the operator's registries?"
    } else if has(&["not found", "manifest unknown", "name unknown"]) || code(&["404"]) {
        "the registry has no such image"
    } else if has(&["x509", "certificate"]) {
        "the node does not trust the registry's certificate"
    } else if has(&["server gave http response to https"]) {
        "the registry speaks plain HTTP, and the node expects HTTPS"
    } else if has(&["no such host", "connection refused", "timeout", "dial tcp", "network is unreachable", "i/o"]) {
        "the node does not reach the registry"
    } else if has(&["no matching manifest", "no match for platform", "exec format"]) {
        "the image is not built for the node's platform"
    } else if has(&["no space left"]) {
        "the node's disk is full"
    } else {
        ""
    };
    let mut words = format!("the image {} can't be pulled", shown(image));
    if !meaning.is_empty() {
        let _ = write!(words, ": {meaning}");
    }
    if !answer.is_empty() {
        let _ = write!(words, " (the answer: {})", clean(answer));
    }
    words
}

/// `couldn't find key PORT in ConfigMap shop/api-config`, `configmap "api-config" not found`.
fn config_error(said: &str) -> String {
    if let Some((_, rest)) = said.split_once("couldn't find key ")
        && let Some((key, of)) = rest.split_once(" in ")
    {
        let (kind, name) = of.split_once(' ').unwrap_or(("ConfigMap", of));
        let name = name.rsplit('/').next().unwrap_or(name);
        return format!("{kind} {} has no key {}: add it, or mark the reference `optional`", shown(name), shown(key));
    }
    if said.contains("not found") {
        let kind = if said.starts_with("secret") { "Secret" } else { "ConfigMap" };
        let name = said.split('"').nth(1).unwrap_or(said);
        return format!("{kind} {} is not there: add it to the manifests, or make it in the namespace", shown(name));
    }
    if said.contains("runAsNonRoot") {
        return format!(
            "the image runs as root, and `runAsNonRoot` forbids it: write `USER` with a number into the Dockerfile, or \
             `runAsUser` into the manifest ({})",
            clean(said)
        );
    }
    format!("its configuration can't be put together: {}", clean(said))
}

fn start_error(said: &str) -> String {
    if said.contains("executable file not found") || said.contains("no such file or directory") {
        return format!("its command is not in the image: {}", clean(said));
    }
    if said.contains("permission denied") {
        return format!("its command may not be executed (`chmod +x` in the Dockerfile): {}", clean(said));
    }
    if said.contains("exec format error") {
        return format!("the image is built for another kind of processor: {}", clean(said));
    }
    format!("it can't be started: {}", clean(said))
}

/// How a container ended.
fn ended_words(pod: &Value, name: &str, ended: &Value, restarts: u64, log_tail: Option<&[String]>) -> String {
    let code = ended.get("exitCode").and_then(Value::as_i64).unwrap_or_default();
    let reason = text(ended, "/reason");
    let mut words = if reason == "OOMKilled" {
        let spec = list(pod, "/spec/containers").iter().chain(list(pod, "/spec/initContainers"));
        let limit = spec
            .clone()
            .find(|c| text(c, "/name") == name)
            .map(|c| text(c, "/resources/limits/memory"))
            .unwrap_or_default();
        if limit.is_empty() {
            "it ran out of memory: the node had none left".to_owned()
        } else {
            format!("it ran out of memory: it may use {limit} (`resources.limits.memory`)")
        }
    } else if reason == "ContainerCannotRun" || reason == "StartError" {
        start_error(text(ended, "/message"))
    } else {
        let signal =
            ended.get("signal").and_then(Value::as_i64).filter(|s| *s > 0).or((code > 128).then_some(code - 128));
        match (code, signal) {
            (0, _) => "it ended by itself with exit code 0; an app must keep running".to_owned(),
            (126, _) => "its command could not be executed (exit code 126)".to_owned(),
            (127, _) => "its command was not found in the image (exit code 127)".to_owned(),
            (139, _) => "it crashed with a segmentation fault (exit code 139)".to_owned(),
            (137, _) => "it was killed (exit code 137)".to_owned(),
            (143, _) => "it was stopped (exit code 143)".to_owned(),
            (_, Some(signal)) => format!("it crashed by signal {signal} (exit code {code})"),
            _ => format!("it crashed with exit code {code}"),
        }
    };
    match restarts {
        0 => {}
        1 => words.push_str(", and was started again once"),
        n => {
            let _ = write!(words, ", and was started again {n} times");
        }
    }
    let own = text(ended, "/message");
    if !own.is_empty() && reason != "ContainerCannotRun" && reason != "StartError" {
        let _ = write!(words, ". It said: {}", clean(own));
    }
    let lines = log_tail.unwrap_or_default();
    if !lines.is_empty() {
        words.push_str(". Its last lines:");
        for line in lines.iter().skip(lines.len().saturating_sub(LINES)) {
            let line: String = mask(line).chars().filter(|c| !c.is_control() || *c == '\t').take(400).collect();
            let _ = write!(words, "\n    {line}");
        }
    }
    words
}

/// The node does not get it ready: volumes, network.
fn waiting_for_node(events: &[Value]) -> Option<String> {
    // Started since: then what went before is over.
    if events.iter().any(|e| text(e, "/reason") == "Started") {
        return None;
    }
    if let Some(said) = last(events, &["FailedMount", "FailedAttachVolume", "FailedMapVolume"]) {
        if said.contains("Multi-Attach") {
            return Some(format!(
                "its volume is in use on another node: a ReadWriteOnce volume can't be in two slots at once ({})",
                clean(said)
            ));
        }
        if said.contains("not found") {
            let kind = if said.contains("secret \"") {
                "Secret"
            } else if said.contains("configmap \"") {
                "ConfigMap"
            } else {
                ""
            };
            if let (false, Some(name)) = (kind.is_empty(), said.rsplit('"').nth(1)) {
                return Some(format!("{kind} {} is not there, and a volume needs it", shown(name)));
            }
        }
        return Some(format!("a volume can't be mounted: {}", clean(said)));
    }
    last(events, &["FailedCreatePodSandBox", "NetworkNotReady"])
        .map(|said| format!("the node can't set the pod up: {}", clean(said)))
}

/// Running, and not ready: what its probe gets as an answer.
fn probe(pod: &Value, statuses: &[&Value], events: &[Value]) -> Option<String> {
    let restarts: u64 = statuses.iter().filter_map(|s| s.get("restartCount")?.as_u64()).sum();
    let unhealthy = last(events, &["Unhealthy", "ProbeWarning"]);
    let Some(said) = unhealthy else {
        let running = statuses.iter().any(|s| s.pointer("/state/running").is_some());
        return running.then(|| "it runs, and is not ready yet".to_owned());
    };
    let kinds = [("Startup", "startupProbe"), ("Readiness", "readinessProbe"), ("Liveness", "livenessProbe")];
    let (kind, field) = kinds.into_iter().find(|(k, _)| said.starts_with(k)).unwrap_or(("Readiness", "readinessProbe"));
    let answer = said.split_once("failed: ").or_else(|| said.split_once("errored: ")).map_or(said, |(_, rest)| rest);
    let asked = asked(pod, field).map(|a| format!(" ({a})")).unwrap_or_default();
    let answer = match answer.strip_prefix("HTTP probe failed with statuscode: ") {
        Some(code) => format!("it answers {}", clean(code)),
        None if answer.contains("connection refused") => format!("nobody listens there: {}", clean(answer)),
        None if answer.contains("deadline exceeded") || answer.contains("timeout") => {
            format!("it does not answer in time: {}", clean(answer))
        }
        None => clean(answer),
    };
    let mut words = format!("its {} probe{asked} fails: {answer}", kind.to_lowercase());
    if kind == "Liveness" && restarts > 0 {
        let _ = write!(words, "; it was killed for it and started again ({restarts} times)");
    }
    Some(words)
}

/// What a probe asks: `GET :8080/ready`.
fn asked(pod: &Value, field: &str) -> Option<String> {
    let probe = list(pod, "/spec/containers").iter().find_map(|c| c.get(field))?;
    let port = |at: &str| probe.pointer(at).map(|p| p.as_str().map_or_else(|| p.to_string(), str::to_owned));
    if let Some(port) = port("/httpGet/port") {
        return Some(format!("GET :{port}{}", text(probe, "/httpGet/path")));
    }
    if let Some(port) = port("/tcpSocket/port") {
        return Some(format!("a connection to :{port}"));
    }
    if let Some(port) = port("/grpc/port") {
        return Some(format!("gRPC :{port}"));
    }
    let command: Vec<&str> = list(probe, "/exec/command").iter().filter_map(Value::as_str).collect();
    (!command.is_empty()).then(|| clean(&command.join(" ")))
}

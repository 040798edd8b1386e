//! What a pod's status means: how its step ended, why it waits, who took it away.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodCondition};

/// Why a pod is lost, or will be. None of it is told of by an exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// Somebody else's doing: eviction, preemption, the node's end. The step may run again elsewhere.
    Machine(String),
    /// It wrote more than it may.
    Disk(String),
    /// The cluster's own limit on its time, long after ours.
    Time,
}

/// A container's status.
#[must_use]
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = [&status.container_statuses, &status.init_container_statuses];
    all.into_iter().flatten().flatten().find(|c| c.name == name)
}

/// How a container ended. None: it has not.
#[must_use]
pub fn ended<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStateTerminated> {
    container(pod, name)?.state.as_ref()?.terminated.as_ref()
}

/// Whether a container runs.
#[must_use]
pub fn runs(pod: &Pod, name: &str) -> bool {
    container(pod, name).and_then(|c| c.state.as_ref()).is_some_and(|s| s.running.is_some())
}

/// Why a container does not run yet, with the kubelet's word for it (`ErrImagePull`, …) and its message.
#[must_use]
pub fn waits<'a>(pod: &'a Pod, name: &str) -> Option<(&'a str, &'a str)> {
    let waiting = container(pod, name)?.state.as_ref()?.waiting.as_ref()?;
    Some((waiting.reason.as_deref()?, waiting.message.as_deref().unwrap_or_default()))
}

/// Whether the kubelet's word is about an image that it can't get.
#[must_use]
pub fn is_about_image(reason: &str) -> bool {
    matches!(
        reason,
        "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable"
    )
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// Why no node takes it, in the scheduler's words.
#[must_use]
pub fn unschedulable(pod: &Pod) -> Option<&str> {
    let scheduled = condition(pod, "PodScheduled").filter(|c| c.status == "False")?;
    Some(scheduled.message.as_deref().or(scheduled.reason.as_deref()).unwrap_or("no node takes it"))
}

/// Who took a pod away.
///
/// Sources: "Pod disruption conditions" (`DisruptionTarget` and its reasons), "Node-pressure Eviction" and the kubelet's
/// admission (`status.reason`), "Jobs" (`DeadlineExceeded`). The messages about disk are the kubelet's
/// (`eviction/helpers.go`).
#[must_use]
pub fn loss(pod: &Pod) -> Option<Loss> {
    let status = pod.status.as_ref()?;
    let message = status.message.as_deref().unwrap_or_default();
    let low = message.to_lowercase();
    match status.reason.as_deref() {
        Some("Evicted")
            if low.contains("ephemeral local storage usage exceeds") || low.contains("usage of emptydir") =>
        {
            return Some(Loss::Disk(message.to_owned()));
        }
        Some("DeadlineExceeded") => return Some(Loss::Time),
        Some("Evicted") => return Some(Loss::Machine(said("the node ran short of something and put it out", message))),
        Some("NodeLost" | "NodeShutdown" | "Terminated" | "Shutdown") => {
            return Some(Loss::Machine(said("its node went down", message)));
        }
        // The kubelet did not take what the scheduler gave it: nothing of it ran.
        Some(reason)
            if reason.starts_with("OutOf") || reason == "UnexpectedAdmissionError" || reason == "NodeAffinity" =>
        {
            return Some(Loss::Machine(said("its node had no room for it after all", message)));
        }
        _ => {}
    }
    let target = condition(pod, "DisruptionTarget").filter(|c| c.status == "True")?;
    let words = match target.reason.as_deref() {
        Some("PreemptionByScheduler") => "it had to make room for something of higher priority",
        Some("EvictionByEvictionAPI") => "it was evicted, as when a node is drained",
        Some("DeletionByTaintManager") => "its node is not heard of, or lets nothing run any more",
        Some("DeletionByPodGC") => "its node is gone",
        Some("TerminationByKubelet") => "its node ended it",
        _ => "it was taken away",
    };
    Some(Loss::Machine(said(words, target.message.as_deref().unwrap_or_default())))
}

fn said(words: &str, message: &str) -> String {
    match message.trim() {
        "" => words.to_owned(),
        message => format!("{words}: {message}"),
    }
}

/// What a step cost, as its first process told it at its end. The step could have told it too: it is believed where a
/// lie hurts nobody else.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Time on the processors.
    pub cpu: Duration,
    /// The most memory that it used, in bytes, without what the kernel can take back at any time.
    pub peak: u64,
    /// Processes of it that were killed for lack of memory.
    pub killed: u64,
}

/// Reads the message of a container that ended: `us=12 peak=34 idle=5 oom=0`.
#[must_use]
pub fn cost(message: &str) -> Cost {
    let mut cost = Cost::default();
    let mut idle = 0;
    for word in message.split_whitespace() {
        let Some((key, value)) = word.split_once('=') else { continue };
        let Ok(value) = value.parse::<u64>() else { continue };
        match key {
            "us" => cost.cpu = Duration::from_micros(value),
            "ns" => cost.cpu = Duration::from_nanos(value),
            "peak" => cost.peak = value,
            "idle" => idle = value,
            "oom" => cost.killed = value,
            _ => {}
        }
    }
    cost.peak = cost.peak.saturating_sub(idle);
    cost
}

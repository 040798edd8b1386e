//! Waiting for a pod to run, and what there is to say about it meanwhile.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{Api, ResourceExt as _, api::ListParams};
use tokio::sync::watch;

use super::{
    Failed, Inner, failed,
    objects::{self, KEEPER, STEP, USERS},
    scripts,
    status::{self, Loss},
    watch::Seen,
};
use crate::{
    cluster::Fault,
    docker::{Reference, pull::PullError},
    exec::{
        journal::Journal,
        local::{ContainerStep, ExecError},
    },
};

/// How long the kubelet may try to get an image that its registry does not give for now.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks for the reason why there is no pod.
const LOOK: Duration = Duration::from_secs(3);
/// What takes longer is said.
const LONG: Duration = Duration::from_secs(5);

/// Whether the runtime's word says that the process never was.
pub(super) fn could_not_start(reason: Option<&str>) -> bool {
    matches!(reason, Some("StartError" | "ContainerCannotRun" | "RunContainerError" | "CreateContainerError"))
}

/// Waits until the pod is taken away.
pub(super) async fn taken_away(seen: &mut watch::Receiver<Seen>) -> Failed {
    loop {
        let now = seen.borrow_and_update().clone();
        if let Some(failed) = lost(&now) {
            return failed;
        }
        if seen.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Why a pod that has not begun never will: somebody took it away.
fn lost(seen: &Seen) -> Option<Failed> {
    let pod = seen.pod.as_ref()?;
    match status::loss(pod) {
        Some(Loss::Machine(why)) => return Some(ExecError::PodLost(why).into()),
        Some(Loss::Disk(why)) => return Some(Failed::People(format!("it has no room for its files: {why}"))),
        Some(Loss::Time) => return Some(ExecError::PodLost("the cluster's own time limit is reached".into()).into()),
        None => {}
    }
    let deleted = seen.gone || pod.metadata.deletion_timestamp.is_some();
    deleted.then(|| ExecError::PodLost("somebody deleted it".into()).into())
}

/// Waiting for the pod, with what there is to say about it.
pub(super) struct Waiting<'a> {
    inner: &'a Inner,
    step: &'a ContainerStep,
    journal: &'a Journal,
    said: BTreeSet<String>,
    image_since: Option<Instant>,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(inner: &'a Inner, step: &'a ContainerStep, journal: &'a Journal) -> Self {
        Self { inner, step, journal, said: BTreeSet::new(), image_since: None }
    }

    /// Says something once.
    fn say(&mut self, text: String) {
        if self.said.insert(text.clone()) {
            self.journal.note(&text);
        }
    }

    /// Waits until the keeper runs, and answers the pod's name.
    pub(super) async fn keeper_runs(
        &mut self,
        seen: &mut watch::Receiver<Seen>,
        selector: &str,
    ) -> Result<String, Failed> {
        let begin = Instant::now();
        let mut looked = begin;
        loop {
            let now = seen.borrow_and_update().clone();
            if let Some(fault @ (Fault::Forbidden(_) | Fault::Credentials(_))) = &now.trouble {
                return Err(failed("watching the step's pod")(fault.clone()));
            }
            if let Some(failed) = lost(&now) {
                return Err(failed);
            }
            match &now.pod {
                Some(pod) => {
                    self.hopeless(pod)?;
                    if status::runs(pod, KEEPER) {
                        return Ok(pod.name_any());
                    }
                    self.tell_of_waiting(pod, begin);
                }
                None if looked.elapsed() >= LOOK => {
                    looked = Instant::now();
                    self.why_no_pod(selector).await?;
                }
                None => {}
            }
            tokio::select! {
                changed = seen.changed() => if changed.is_err() {
                    return Err(ExecError::PodLost("nobody watches it any more".into()).into());
                },
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    fn tell_of_waiting(&mut self, pod: &Arc<Pod>, begin: Instant) {
        if let Some(why) = status::unschedulable(pod) {
            self.say(format!("no node takes it for now: {why}"));
        } else if begin.elapsed() >= LONG
            && let Some(node) = pod.spec.as_ref().and_then(|s| s.node_name.as_ref())
        {
            self.say(format!("the node {node} is getting its images"));
        }
    }

    /// The Job's controller can't make the pod, and says so in events alone.
    async fn why_no_pod(&mut self, selector: &str) -> Result<(), Failed> {
        let jobs = self.inner.jobs().list(&ListParams::default().labels(selector)).await.map_err(Fault::from);
        let jobs = jobs.map_err(failed("looking for the step's Job"))?;
        let Some(job) = jobs.items.first() else {
            return Err(ExecError::PodLost("somebody deleted its Job".into()).into());
        };
        let uid = job.uid().unwrap_or_default();
        let events: Api<Event> = Api::namespaced(self.inner.cluster.client(), self.inner.cluster.namespace());
        let of_job = ListParams::default().fields(&format!("involvedObject.uid={uid},reason=FailedCreate"));
        let Some(why) = events
            .list(&of_job)
            .await
            .map_err(Fault::from)
            .map_err(failed("asking why there is no pod"))?
            .items
            .into_iter()
            .filter_map(|e| e.message)
            .next_back()
        else {
            return Ok(());
        };
        if why.contains("exceeded quota") {
            self.say(format!("the namespace's quota has no room for it now: {why}"));
            return Ok(());
        }
        if why.contains("is forbidden") || why.contains("is invalid") || why.contains("denied the request") {
            return Err(Failed::People(format!("the cluster does not take its pod: {why}")));
        }
        self.say(format!("there is no pod yet: {why}"));
        Ok(())
    }

    /// What will not become better by waiting.
    pub(super) fn hopeless(&mut self, pod: &Pod) -> Result<(), Failed> {
        if let Some(ended) = status::ended(pod, USERS).filter(|e| e.exit_code != 0) {
            let message = ended.message.as_deref().unwrap_or_default();
            return Err(Failed::People(match ended.exit_code {
                scripts::NO_TAR => {
                    "its image has no `tar`, by which the step's files are brought into it: take an image with \
                                    `sh` and `tar`"
                        .into()
                }
                _ if could_not_start(ended.reason.as_deref()) => {
                    format!("its image can't run `sh`, which a step needs, and `tar`: {message}")
                }
                code => format!("its image can't be prepared (exit code {code}): {message}"),
            }));
        }
        for name in [STEP, KEEPER] {
            if let Some(ended) = status::ended(pod, name) {
                let message = ended.message.as_deref().unwrap_or_default();
                let reason = ended.reason.as_deref().unwrap_or_default();
                return Err(Failed::People(format!(
                    "its image can't run it (exit code {} {reason}): {message}",
                    ended.exit_code
                )));
            }
        }
        let own = self.step.image.as_deref().unwrap_or_default();
        let mut images: Vec<(String, &str)> = [USERS, STEP, KEEPER].map(|c| (c.to_owned(), own)).into();
        images.extend(self.step.services.iter().map(|(n, s)| (objects::companion(n), s.image.as_str())));
        let mut any = false;
        for (container, image) in images {
            let Some((reason, message)) = status::waits(pod, &container) else { continue };
            if reason == "CreateContainerConfigError" {
                return Err(Failed::People(format!("the container of {image} can't be made: {message}")));
            }
            if status::is_about_image(reason) {
                any = true;
                self.image_trouble(image, reason, message)?;
            }
        }
        if !any {
            self.image_since = None;
        }
        Ok(())
    }

    fn image_trouble(&mut self, image: &str, reason: &str, message: &str) -> Result<(), Failed> {
        let Some(reference) = Reference::parse(image).filter(|_| reason != "InvalidImageName") else {
            return Err(Failed::People(PullError::Name(image.to_owned()).to_string()));
        };
        let login = self.inner.logins.of(&self.step.repository, &reference);
        let error = PullError::of(&reference, login.as_ref(), message);
        if error.is_for_people() {
            return Err(Failed::People(error.to_string()));
        }
        let since = *self.image_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= PATIENCE {
            return Err(ExecError::Image(Arc::new(error)).into());
        }
        // The same in other words at each try of the kubelet's.
        self.say(match error {
            PullError::RateLimited { .. } => format!("{error}; waiting"),
            _ => format!("the image {image} can't be pulled for now; waiting"),
        });
        Ok(())
    }
}

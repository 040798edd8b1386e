//! The pod of a step, as the cluster tells of it: watched, not asked for again and again.

use std::sync::Arc;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube_runtime::{
    WatchStreamExt as _,
    watcher::{self, Config, Event, watcher},
};
use tokio::{sync::watch, task::AbortHandle};

use crate::cluster::Fault;

/// What is known.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    /// The last that was heard of it.
    pub(super) pod: Option<Arc<Pod>>,
    /// It was there, and is no more.
    pub(super) gone: bool,
    /// Why nothing is heard now.
    pub(super) trouble: Option<Fault>,
}

/// Ends with what it watches for.
pub(super) struct Watch {
    pub(super) seen: watch::Receiver<Seen>,
    task: AbortHandle,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Watches the pods with that label, of which there is one.
pub(super) fn pod(pods: Api<Pod>, label: &str) -> Watch {
    let (tell, seen) = watch::channel(Seen::default());
    let config = Config::default().labels(label);
    let task = tokio::spawn(async move {
        let mut events = watcher(pods, config).default_backoff().boxed();
        // Between the begin and the end of a new list.
        let mut listed = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = false,
                Ok(Event::InitApply(pod)) => {
                    listed = true;
                    tell.send_modify(|seen| seen.pod = Some(Arc::new(pod)));
                }
                Ok(Event::InitDone) => tell.send_modify(|seen| {
                    seen.gone |= seen.pod.is_some() && !listed;
                    seen.trouble = None;
                }),
                Ok(Event::Apply(pod)) => tell.send_modify(|seen| {
                    seen.pod = Some(Arc::new(pod));
                    seen.trouble = None;
                }),
                Ok(Event::Delete(pod)) => tell.send_modify(|seen| {
                    // Its last state may say who took it.
                    seen.pod = Some(Arc::new(pod));
                    seen.gone = true;
                }),
                Err(error) => {
                    let fault = fault(error);
                    tell.send_modify(|seen| seen.trouble = Some(fault));
                }
            }
        }
    });
    Watch { seen, task: task.abort_handle() }
}

fn fault(error: watcher::Error) -> Fault {
    match error {
        watcher::Error::InitialListFailed(e) | watcher::Error::WatchStartFailed(e) | watcher::Error::WatchFailed(e) => {
            e.into()
        }
        other => Fault::Away(other.to_string()),
    }
}

//! What supervised copies ask of the agent and tell it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use super::{Agent, locked};
use crate::agent::{
    process::ProcId,
    state::{Saved, SavedCopy},
};

impl Agent {
    pub(in crate::agent) fn take_stray(&self, log: &Path) -> Option<ProcId> {
        locked(&self.strays).take(log)
    }

    /// Of these listeners, those that can't be had.
    pub(in crate::agent) fn missing(&self, all: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
        let live = locked(&self.live);
        all.filter(|at| live.missing.contains(at)).collect()
    }

    pub(in crate::agent) async fn ports(&self) -> Vec<u16> {
        self.saved.lock().await.ports()
    }

    pub(in crate::agent) async fn read_copy<T>(
        &self,
        service: &str,
        slot: &str,
        index: usize,
        f: impl FnOnce(&SavedCopy) -> T,
    ) -> Option<T> {
        let saved = self.saved.lock().await;
        saved.services.get(service)?.slots.get(slot)?.copies.get(index).map(f)
    }

    /// A copy's facts. Where they can't be written they are kept in memory: the process is there all the same, and
    /// the next agent finds it by its output.
    pub(in crate::agent) async fn write_copy(
        self: &Arc<Self>,
        service: &str,
        slot: &str,
        index: usize,
        f: impl FnOnce(&mut SavedCopy),
    ) {
        let mut saved = self.saved.lock().await;
        let Some(copy) = saved.copy_mut(service, slot, index) else { return };
        f(copy);
        saved.forget_removed();
        self.write_facts(&saved).await;
        self.apply(&saved);
    }

    async fn write_facts(&self, saved: &Saved) {
        let (store, next) = (self.store.clone(), saved.clone());
        match tokio::task::spawn_blocking(move || store.write(&next)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::error!(error = %e, "the state can't be written"),
            Err(e) => tracing::error!(error = %e, "the state can't be written"),
        }
    }

    /// Notes that a copy is about to be started; false when it shall not run any more.
    pub(in crate::agent) async fn begin_start(&self, service: &str, slot: &str, index: usize) -> bool {
        let mut saved = self.saved.lock().await;
        if locked(&self.live).closing || !saved.slot(service, slot).is_some_and(|s| s.running && !s.removing) {
            return false;
        }
        let Some(copy) = saved.copy_mut(service, slot, index) else { return false };
        copy.starting = true;
        self.write_facts(&saved).await;
        true
    }

    /// No request shall go to this copy now.
    pub(in crate::agent) async fn copy_down(&self, service: &str, slot: &str, index: usize) {
        let Some(Some(port)) = self.read_copy(service, slot, index, |c| c.port).await else { return };
        if let Some(found) = self.live_slot(service, slot) {
            found.mark_down((Ipv4Addr::LOCALHOST, port).into());
        }
    }

    pub(in crate::agent) async fn copy_stopped(self: &Arc<Self>, service: &str, slot: &str, index: usize) {
        self.write_copy(service, slot, index, |c| {
            c.process = None;
            c.starting = false;
        })
        .await;
        self.stopped.notify_waiters();
    }
}

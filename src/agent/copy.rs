//! Supervision of one copy of a slot: started, watched, started again, ended.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

use super::{
    core::Agent,
    ports::{free_port, port_is_free},
    process::{self, Process},
    protocol::{Event, ProcessSpec, ServiceId},
    state::SavedCopy,
};
use crate::failpoint;

/// Pause after a crash, doubled with each one in a row.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(30);
/// A copy that lived so long is taken for healthy: its next crash is a first one.
const HEALTHY: Duration = Duration::from_secs(10);
/// Between two looks at the size of the log.
const LOG_LOOK: Duration = Duration::from_secs(5);

/// What a copy shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Run,
    Stop,
    /// Left alone as it is: the agent ends, or the copy is forgotten.
    Leave,
}

/// One supervised copy.
#[derive(Debug)]
pub(super) struct Copy {
    pub agent: Arc<Agent>,
    pub service: ServiceId,
    pub slot: String,
    pub index: usize,
    pub spec: ProcessSpec,
}

enum Turn {
    Ended,
    Changed,
    Look,
}

impl Copy {
    /// Runs until it is told to leave.
    pub(super) async fn supervise(self, mut wanted: watch::Receiver<Wanted>) {
        let mut process = self.take_over().await;
        let mut backoff = BACKOFF_FIRST;
        let mut look = tokio::time::interval(LOG_LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut since = Instant::now();
        loop {
            let now = *wanted.borrow_and_update();
            match (now, process.take()) {
                (Wanted::Leave, _) => return,
                (Wanted::Stop, running) => {
                    self.stop(running, &mut wanted).await;
                    if wanted.wait_for(|w| *w != Wanted::Stop).await.is_err() {
                        return;
                    }
                }
                (Wanted::Run, None) => match self.start().await {
                    Ok(Some(started)) => {
                        process = Some(started);
                        since = Instant::now();
                    }
                    // Not wanted any more, and a wish that says so has come since the last look.
                    Ok(None) => {
                        if wanted.changed().await.is_err() {
                            return;
                        }
                    }
                    Err(e) => {
                        tracing::warn!(service = %self.service, slot = %self.slot, copy = self.index, error = %e, "can't start a copy");
                        self.note_end(format!("could not be started: {e}"), Vec::new()).await;
                        self.pause(&mut backoff, &mut wanted).await;
                    }
                },
                (Wanted::Run, Some(running)) => {
                    let turn = tokio::select! {
                        biased;
                        changed = wanted.changed() => if changed.is_ok() { Turn::Changed } else { return },
                        () = running.ended() => Turn::Ended,
                        _ = look.tick() => Turn::Look,
                    };
                    match turn {
                        Turn::Ended => {
                            if since.elapsed() >= HEALTHY {
                                backoff = BACKOFF_FIRST;
                            }
                            let output = running.last_output(&self.log());
                            let how = running.clear_group();
                            tracing::warn!(service = %self.service, slot = %self.slot, copy = self.index, how, "a copy ended by itself");
                            self.note_end(how, output).await;
                            self.pause(&mut backoff, &mut wanted).await;
                            continue;
                        }
                        Turn::Look => self.rotate().await,
                        Turn::Changed => {}
                    }
                    process = Some(running);
                }
            }
        }
    }

    fn log(&self) -> PathBuf {
        process::log_path(&self.spec, self.index)
    }

    async fn rotate(&self) {
        let log = self.log();
        if let Ok(Err(e)) = tokio::task::spawn_blocking(move || process::rotate(&log)).await {
            tracing::warn!(log = %self.log().display(), error = %e, "can't rotate a log");
        }
    }

    /// Finds the process that an earlier agent left: by what it recorded, else by its output.
    async fn take_over(&self) -> Option<Process> {
        let recorded = self.read(|c| c.process).await.flatten();
        if let Some(process) = recorded.and_then(Process::adopt) {
            return Some(process);
        }
        let stray = self.agent.take_stray(&self.log()).and_then(Process::adopt);
        if let Some(process) = &stray {
            let id = process.id;
            self.write(|c| {
                c.process = Some(id);
                c.starting = false;
            })
            .await;
            self.tell();
        } else if recorded.is_some() {
            // It counts as a restart: the copy ended by itself while nobody looked.
            self.note_end("ended while no agent was running".into(), Vec::new()).await;
            self.write(|c| c.restarts += 1).await;
        }
        stray
    }

    async fn start(&self) -> std::io::Result<Option<Process>> {
        let port = self.port().await?;
        // Intent before effect: from here on the slot is not forgotten before the copy was stopped.
        if !self.agent.begin_start(&self.service, &self.slot, self.index).await {
            return Ok(None);
        }
        let process = Process::spawn(&self.spec, self.index, port)?;
        failpoint::hit("agent.start.after_effect");
        let id = process.id;
        self.write(|c| {
            c.process = Some(id);
            c.starting = false;
            c.started_at = Some(crate::clock::now());
        })
        .await;
        self.tell();
        Ok(Some(process))
    }

    /// The copy's own port; another one if a stranger sits there.
    async fn port(&self) -> std::io::Result<Option<u16>> {
        let Some(port) = self.read(|c| c.port).await.flatten() else { return Ok(None) };
        if port_is_free(port) {
            return Ok(Some(port));
        }
        let used = self.agent.ports().await;
        let other = free_port(&used)?;
        tracing::warn!(service = %self.service, slot = %self.slot, port, other, "a copy's port is taken, it gets another");
        self.write(|c| c.port = Some(other)).await;
        Ok(Some(other))
    }

    async fn stop(&self, running: Option<Process>, wanted: &mut watch::Receiver<Wanted>) {
        self.agent.copy_down(&self.service, &self.slot, self.index).await;
        if let Some(running) = running {
            let how = tokio::select! {
                how = running.stop(Duration::from_millis(self.spec.stop_grace_ms)) => how,
                // The agent ends meanwhile: the next one finds the process and the wish, and goes on.
                _ = wanted.wait_for(|w| *w == Wanted::Leave) => return,
            };
            tracing::info!(service = %self.service, slot = %self.slot, copy = self.index, how, "a copy was stopped");
        }
        self.agent.copy_stopped(&self.service, &self.slot, self.index).await;
        self.tell();
    }

    async fn note_end(&self, how: String, output: Vec<String>) {
        self.agent.copy_down(&self.service, &self.slot, self.index).await;
        self.write(|c| {
            c.process = None;
            c.starting = false;
            c.last_exit = Some(how);
            c.last_output = output;
        })
        .await;
        self.tell();
    }

    /// Waits out the pause; a changed wish ends it.
    async fn pause(&self, backoff: &mut Duration, wanted: &mut watch::Receiver<Wanted>) {
        let pause = *backoff;
        *backoff = (pause * 2).min(BACKOFF_LAST);
        if let Ok(changed) = tokio::time::timeout(pause, wanted.changed()).await {
            // Whoever asked anew gets a new start; a dropped sender is seen by the loop.
            if changed.is_ok() {
                *backoff = BACKOFF_FIRST;
            }
            return;
        }
        self.write(|c| c.restarts += 1).await;
    }

    fn tell(&self) {
        self.agent.tell(Event::Changed { service: self.service.clone(), slot: self.slot.clone() });
    }

    async fn read<T>(&self, f: impl FnOnce(&SavedCopy) -> T) -> Option<T> {
        self.agent.read_copy(&self.service, &self.slot, self.index, f).await
    }

    async fn write(&self, f: impl FnOnce(&mut SavedCopy)) {
        self.agent.write_copy(&self.service, &self.slot, self.index, f).await;
    }
}

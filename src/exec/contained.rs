//! What the executors that put a step into something of its own (a container, a pod) share: the frame of an attempt, what
//! runs now, and what is still being made.

use std::{
    collections::HashSet,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::task::JoinHandle;

use super::{
    journal::Journal,
    local::{ContainerStep, ExecError, StepSpec},
    log::LogWriter,
};
use crate::{
    clock,
    domain::run::{StepEnd, StepResult},
};

/// Why a step has no end of its own.
pub(super) enum Failed {
    /// Its author or an operator can mend it.
    People(String),
    /// Time may mend it.
    Machine(ExecError),
}

impl Failed {
    /// Nobody says in which image the step runs.
    pub(super) fn no_image() -> Self {
        Self::People(
            "nothing says which image its steps run in, and none could be inferred: write `container:` for the app, such \
             as `container: maven:3-eclipse-temurin-17`"
                .into(),
        )
    }
}

/// What comes before a step's command (room, images, companions) has the step's time limit too, but at least this.
const PREPARE: Duration = Duration::from_secs(120);

/// How long a step may take until its command begins. The command's own time counts from there.
pub(super) fn until_begin(spec: &StepSpec) -> Duration {
    spec.timeout.max(PREPARE)
}

/// How a step ended, and what it cost. `R`: why we ended it.
pub(super) struct Ended<R> {
    pub(super) end: StepEnd,
    pub(super) why: Option<R>,
    pub(super) cpu_ms: u64,
    pub(super) peak_bytes: u64,
}

impl<R> Ended<R> {
    pub(super) fn new(end: StepEnd) -> Self {
        Self { end, why: None, cpu_ms: 0, peak_bytes: 0 }
    }
}

/// One attempt of a step, from its log's first line to its last.
pub(super) struct Attempt<'a> {
    pub(super) step: &'a ContainerStep,
    pub(super) journal: Journal,
    started_at: Timestamp,
}

impl<'a> Attempt<'a> {
    /// Begins the step's log.
    pub(super) fn begin(spec: &'a StepSpec) -> Result<Self, ExecError> {
        let Some(step) = &spec.container else {
            return Err(ExecError::Spec("it says nothing about its container".into()));
        };
        let place = |what: String| move |e: std::io::Error| ExecError::Spec(format!("{what}: {e}"));
        if let Some(folder) = spec.log.parent() {
            std::fs::create_dir_all(folder).map_err(place(format!("making {}", folder.display())))?;
        }
        let journal =
            Journal::new(&spec.log, spec.output_limit).map_err(place(format!("writing {}", spec.log.display())))?;
        Ok(Self { step, journal, started_at: clock::now() })
    }

    /// Ends the log with what people must know, and makes the result.
    pub(super) fn close<R>(self, ended: Result<Ended<R>, Failed>) -> Result<StepResult, ExecError> {
        let Self { journal, started_at, .. } = self;
        let ended = match ended {
            Ok(ended) => ended,
            Err(Failed::People(why)) => {
                journal.note(&why);
                Ended::new(StepEnd::NotStarted(why))
            }
            Err(Failed::Machine(error)) => {
                journal.note(&format!("{error}"));
                let _ = journal.with(LogWriter::finish);
                return Err(error);
            }
        };
        let _ = journal.with(LogWriter::finish);
        let (output_bytes, truncated) = journal.with(|log, _| (log.printed(), log.truncated()));
        Ok(StepResult {
            end: ended.end,
            started_at,
            finished_at: clock::now(),
            cpu_ms: ended.cpu_ms,
            peak_bytes: ended.peak_bytes,
            output_bytes,
            truncated,
        })
    }
}

/// For `map_err` around the lock of a workspace.
pub(super) fn locking(error: std::io::Error) -> ExecError {
    ExecError::Spec(format!("locking the workspace: {error}"))
}

/// The steps that run in this process.
#[derive(Debug, Clone, Default)]
pub(super) struct Live(Arc<Mutex<HashSet<String>>>);

impl Live {
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut HashSet<String>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is being made for a step. It goes on when nobody waits any more, so removing waits for it.
#[derive(Default)]
pub(super) struct Making(Mutex<Vec<JoinHandle<()>>>);

impl Making {
    /// Has something made, to the end: whoever stops waiting must not leave it behind half made. `lost`: the answer when the
    /// server is ending.
    pub(super) async fn make<T, E>(
        &self,
        making: impl Future<Output = Result<T, E>> + Send + 'static,
        lost: impl FnOnce(&'static str) -> E,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let (send, made) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            // Nobody waits: then it is only removed.
            let _ = send.send(making.await);
        });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(task);
        made.await.unwrap_or_else(|_| Err(lost("the server is ending")))
    }

    /// Waits for all of it.
    pub(super) async fn made(&self) {
        let all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        futures_util::future::join_all(all).await;
    }
}

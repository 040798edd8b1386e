//! A step from the word to begin to its end: output, limits, TERM and KILL, and what it leaves.

use std::{
    future::pending,
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use kube::Api;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Ended, Failed, Journal, failed,
    held::delete_pod,
    log::Output,
    objects::{KEEPER, STEP},
    scripts,
    status::{self, Loss},
    talk::{self, Place, Said},
    unpack::{self, Back, TakeError, Taken},
    watch::Seen,
};
use crate::{
    cluster::Fault,
    domain::run::StepEnd,
    exec::{
        files::Lock,
        journal::human,
        local::{ContainerStep, ExecError, StepSpec},
    },
};

/// The exit code of what was killed by signal 9.
const KILLED: i32 = 137;
/// How long after KILL a step may still be there, before its pod is forgotten.
const GOING: Duration = Duration::from_secs(15);
/// What a container printed is there so long after its end.
const LAST_WORDS: Duration = Duration::from_secs(60);
/// A signal that takes longer did not arrive.
const SIGNAL: Duration = Duration::from_secs(10);
/// Between two connections for the output, at most.
const AGAIN: Duration = Duration::from_secs(5);
/// How long an API that is away at a step's end is waited for, in tries with growing pauses.
const TRIES: u32 = 7;
/// What takes longer is said.
const LONG: Duration = Duration::from_secs(5);

/// Why we ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Cancel,
    Timeout,
}

/// What is followed, and its limits.
pub(super) struct Follow<'a> {
    pub(super) pods: &'a Api<Pod>,
    pub(super) pod: &'a str,
    pub(super) journal: &'a Journal,
    pub(super) cancel: &'a CancellationToken,
    pub(super) deadline: Option<Instant>,
    pub(super) spec: &'a StepSpec,
    pub(super) step: &'a ContainerStep,
    pub(super) lock: Option<Arc<Lock>>,
    pub(super) memory: Option<u64>,
    pub(super) disk: Option<u64>,
}

pub(super) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => pending().await,
    }
}

/// What became of the step's container.
enum Over {
    Ended(Box<ContainerStateTerminated>),
    /// It wrote more than it may.
    Full(String),
    /// Ended by us, and nothing is heard of it any more.
    Gone,
}

impl Follow<'_> {
    /// Stays with it until nothing of it runs and what it left is here.
    pub(super) async fn to_its_end(&self, seen: watch::Receiver<Seen>) -> Result<Ended<Reason>, Failed> {
        let mut ending = None;
        let over = {
            let mut printing = pin!(self.output(seen.clone()));
            let mut over = pin!(self.over(seen.clone(), &mut ending));
            let over = tokio::select! {
                over = &mut over => over?,
                // Only after the container's end, which is then known.
                () = &mut printing => over.await?,
            };
            if let Over::Ended(_) = over {
                let _ = tokio::time::timeout(LAST_WORDS, printing).await;
            }
            over
        };
        let why: Option<Reason> = ending;
        let state = match over {
            Over::Ended(state) => *state,
            Over::Full(said) => {
                self.journal.note(&said);
                let limit = self.disk.unwrap_or(0);
                return Ok(Ended::new(StepEnd::OverDisk { used: limit, limit }));
            }
            Over::Gone if why == Some(Reason::Timeout) => return Ok(Ended { why, ..Ended::new(StepEnd::TimedOut) }),
            Over::Gone => return Ok(Ended { why, ..Ended::new(StepEnd::Cancelled) }),
        };
        let mut ended = self.ended(&state, why);
        if why != Some(Reason::Cancel) {
            self.take_back(seen, &mut ended).await;
        }
        Ok(ended)
    }

    /// Waits for the end, and sees to it where it must be.
    async fn over(&self, mut seen: watch::Receiver<Seen>, ending: &mut Option<Reason>) -> Result<Over, Failed> {
        let mut since = None;
        let (mut killed, mut forgotten) = (false, false);
        loop {
            let now = seen.borrow_and_update().clone();
            if let Some(over) = self.look(&now, *ending)? {
                return Ok(over);
            }
            let next = match since {
                None => self.deadline,
                Some(since) if !killed => Instant::checked_add(&since, self.spec.grace),
                Some(since) if !forgotten => Instant::checked_add(&since, self.spec.grace + GOING),
                Some(since) => Instant::checked_add(&since, self.spec.grace + GOING + GOING),
            };
            let why = tokio::select! {
                changed = seen.changed() => {
                    if changed.is_err() {
                        return Err(ExecError::PodLost("nobody watches it any more".into()).into());
                    }
                    continue;
                }
                () = self.cancel.cancelled(), if ending.is_none() => Reason::Cancel,
                () = at(next) => match *ending {
                    None => Reason::Timeout,
                    Some(_) if !killed => {
                        killed = true;
                        self.signal(&scripts::KILL);
                        continue;
                    }
                    Some(_) if !forgotten => {
                        forgotten = true;
                        self.delete(0);
                        continue;
                    }
                    Some(Reason::Cancel) => return Ok(Over::Gone),
                    Some(Reason::Timeout) => {
                        let fault = now.trouble.unwrap_or_else(|| Fault::Away("its pod does not end".into()));
                        return Err(failed("ending the step at its time limit")(fault));
                    }
                },
            };
            self.journal.note(&match why {
                Reason::Cancel => "cancelled; ending".to_owned(),
                Reason::Timeout => format!("the time limit of {} s is reached; ending", self.spec.timeout.as_secs()),
            });
            *ending = Some(why);
            since = Some(Instant::now());
            match why {
                // Nothing of it is needed any more: the kubelet does it all.
                Reason::Cancel => self.delete(u32::try_from(self.spec.grace.as_secs()).unwrap_or(u32::MAX)),
                // The pod stays, with what it has written. Its first process hands the signal to all the others.
                Reason::Timeout => self.signal(&scripts::TERM),
            }
        }
    }

    /// What the cluster tells of it. None: it runs on.
    fn look(&self, seen: &Seen, ending: Option<Reason>) -> Result<Option<Over>, Failed> {
        if let Some(fault @ (Fault::Forbidden(_) | Fault::Credentials(_))) = &seen.trouble {
            return Err(failed("watching the step's pod")(fault.clone()));
        }
        let Some(pod) = &seen.pod else { return Ok(None) };
        let state = status::ended(pod, STEP);
        if let Some(state) = state.filter(|s| ending.is_some() || status::ended_by_itself(pod, s)) {
            return Ok(Some(Over::Ended(Box::new(state.clone()))));
        }
        if ending.is_some() && seen.gone {
            return Ok(Some(Over::Gone));
        }
        if ending == Some(Reason::Cancel) {
            return Ok(None);
        }
        match status::loss(pod) {
            Some(Loss::Disk(said)) => return Ok(Some(Over::Full(said))),
            Some(Loss::Machine(why)) => return Err(ExecError::PodLost(why).into()),
            Some(Loss::Time) => {
                return Err(ExecError::PodLost("the cluster's own time limit is reached".into()).into());
            }
            None => {}
        }
        if seen.gone || (ending.is_none() && pod.metadata.deletion_timestamp.is_some()) {
            return Err(ExecError::PodLost("somebody deleted it".into()).into());
        }
        Ok(None)
    }

    /// The output, as long as there is some, over as many connections as it takes.
    async fn output(&self, mut seen: watch::Receiver<Seen>) {
        let mut output = Output::default();
        let mut pause = Duration::from_millis(100);
        let over = |seen: &Seen| {
            let ended = seen.pod.as_ref().is_some_and(|pod| status::ended(pod, STEP).is_some());
            (ended || seen.gone, seen.gone)
        };
        loop {
            let begin = Instant::now();
            // Not there yet, away, or broken: it is asked again for as long as it runs.
            let _ = output.read(self.pods, self.pod, STEP, true, |bytes| self.journal.feed(bytes)).await;
            if over(&seen.borrow()).0 {
                break;
            }
            pause = if begin.elapsed() > AGAIN { Duration::from_millis(100) } else { (pause * 2).min(AGAIN) };
            let _ = tokio::time::timeout(pause, seen.wait_for(|s| over(s).0)).await;
        }
        if !over(&seen.borrow()).1 {
            // A connection that broke at the very end looks like one that ended with it.
            let _ = output.read(self.pods, self.pod, STEP, false, |bytes| self.journal.feed(bytes)).await;
        }
        let _ = seen.wait_for(|s| over(s).0).await;
    }

    /// Beside everything else: an API that hangs must not hold up the limits.
    fn signal(&self, command: &'static [&'static str]) {
        let (pods, pod) = (self.pods.clone(), self.pod.to_owned());
        tokio::spawn(async move {
            let place = Place { pods: &pods, pod: &pod, container: STEP };
            match tokio::time::timeout(SIGNAL, place.run(command)).await {
                Ok(Ok(_)) => {}
                // It has just ended, or the API is away: its end will tell, or the next signal.
                Ok(Err(fault)) => tracing::debug!(pod, error = fault.words(), "a signal did not arrive"),
                Err(_) => tracing::debug!(pod, "a signal did not arrive in time"),
            }
        });
    }

    fn delete(&self, grace: u32) {
        let (pods, pod) = (self.pods.clone(), self.pod.to_owned());
        tokio::spawn(async move {
            if let Err(fault) = delete_pod(&pods, &pod, grace).await {
                tracing::debug!(pod, error = fault.words(), "a pod can't be deleted now");
            }
        });
    }

    fn ended(&self, state: &ContainerStateTerminated, why: Option<Reason>) -> Ended<Reason> {
        let cost = status::cost(state.message.as_deref().unwrap_or_default());
        let code = state.exit_code;
        let out_of_memory = state.reason.as_deref() == Some("OOMKilled") || cost.killed > 0;
        let limit = self.memory.unwrap_or(0);
        let end = match (why, code) {
            (Some(Reason::Cancel), _) => StepEnd::Cancelled,
            (Some(Reason::Timeout), _) => StepEnd::TimedOut,
            (None, 0) => StepEnd::Exited(0),
            (None, _) if out_of_memory => {
                // Of the one that was killed with all the others nobody tells; it had all that it may have.
                StepEnd::OutOfMemory { peak: cost.peak.max(limit), limit: self.memory }
            }
            // As shells tell of a signal; what the kernel said of the command itself is not to be seen from outside.
            (None, code @ 129..=192) => StepEnd::Signalled(code - 128),
            (None, code) => StepEnd::Exited(code),
        };
        if out_of_memory {
            let said = self.memory.map(|m| format!(" ({} allowed)", human(m))).unwrap_or_default();
            self.journal.note(&format!("a process of it was killed: out of memory{said}"));
        } else if code == KILLED && why.is_none() && state.message.is_none() {
            self.journal.note("its first process was killed from outside");
        }
        let peak_bytes = match end {
            StepEnd::OutOfMemory { peak, .. } => peak,
            _ => cost.peak,
        };
        let cpu_ms = u64::try_from(cost.cpu.as_millis()).unwrap_or(u64::MAX);
        Ended { end, why, cpu_ms, peak_bytes }
    }

    /// Takes back what it left. It has ended, and may have done what can't be done twice: whatever goes wrong here is told
    /// as its result, not as a reason to run it again.
    async fn take_back(&self, seen: watch::Receiver<Seen>, ended: &mut Ended<Reason>) {
        let begin = Instant::now();
        let mut folders = vec![(self.step.workspace.clone(), true), (self.spec.home.clone(), true)];
        let mut caches = self.step.caches.clone();
        caches.sort();
        caches.dedup();
        folders.extend(caches.into_iter().map(|cache| (cache, false)));
        let all = folders.into_iter().map(|(folder, mirrored)| self.take(folder, mirrored, &seen));
        let taken = tokio::select! {
            taken = futures_util::future::try_join_all(all) => taken,
            () = self.cancel.cancelled() => {
                self.journal.note("cancelled while its files were taken back");
                ended.end = StepEnd::Cancelled;
                ended.why = Some(Reason::Cancel);
                return;
            }
        };
        match taken {
            Ok(taken) => {
                let (files, bytes) = taken.iter().fold((0, 0), |(f, b), t| (f + t.files, b + t.bytes));
                if begin.elapsed() >= LONG {
                    let (bytes, seconds) = (human(bytes), begin.elapsed().as_secs_f64());
                    self.journal.note(&format!("took {files} files ({bytes}) back from the cluster in {seconds:.1} s"));
                }
            }
            Err(Lost::TooMuch(limit)) => {
                self.journal.note(&format!("it left more than {}", human(limit)));
                ended.end = StepEnd::OverDisk { used: limit, limit };
            }
            Err(Lost::Why(why)) => {
                let why = format!("what it left could not be taken back: {why}");
                self.journal.note(&why);
                if ended.end == StepEnd::Exited(0) {
                    ended.end = StepEnd::Untaken(why);
                }
            }
        }
    }

    async fn take(&self, folder: PathBuf, mirrored: bool, seen: &watch::Receiver<Seen>) -> Result<Taken, Lost> {
        let place = Place { pods: self.pods, pod: self.pod, container: KEEPER };
        let Some(path) = folder.to_str() else { return Err(Lost::Why("a folder is no UTF-8".into())) };
        let limit = self.disk.unwrap_or(u64::MAX);
        let mut tries = 0;
        loop {
            tries += 1;
            let (sink, inlet) = talk::inlet();
            let (here, lock) = (folder.clone(), self.lock.clone());
            let unpacking = tokio::task::spawn_blocking(move || {
                let _lock = lock;
                unpack::unpack(inlet, &Back { folder: &here, mirrored, limit })
            });
            let said = place.receive(&["sh", "-c", scripts::TAKE, "sh", path], sink).await;
            let taken = unpacking.await.map_err(|e| Lost::Why(e.to_string()))?;
            let why = match (taken, said) {
                (Ok(taken), _) => return Ok(taken),
                (Err(TakeError::TooMuch(limit)), _) => return Err(Lost::TooMuch(limit)),
                (Err(TakeError::Packing(code)), Ok(Said::Code(_, complaint))) => {
                    return Err(Lost::Why(format!("tar ended with exit code {code}: {complaint}")));
                }
                (Err(error @ (TakeError::Hostile(_) | TakeError::Disk { .. } | TakeError::Packing(_))), _) => {
                    return Err(Lost::Why(error.to_string()));
                }
                (Err(TakeError::Cut), Ok(Said::Code(code, complaint))) if code != 0 => {
                    return Err(Lost::Why(format!("exit code {code}: {complaint}")));
                }
                (Err(TakeError::Cut), Ok(Said::NotRun(why))) => return Err(Lost::Why(why)),
                (Err(TakeError::Cut), Ok(Said::Code(_, why) | Said::Unknown(why))) => why,
                (Err(TakeError::Cut), Err(fault)) => fault.words().to_owned(),
            };
            let gone = {
                let seen = seen.borrow();
                seen.gone || seen.pod.as_ref().is_some_and(|pod| status::ended(pod, KEEPER).is_some())
            };
            if gone {
                return Err(Lost::Why("its pod is gone".into()));
            }
            if tries == TRIES {
                return Err(Lost::Why(format!("tried {tries} times; the last time: {why}")));
            }
            tokio::time::sleep(Duration::from_secs(1) * 2_u32.pow(tries - 1)).await;
        }
    }
}

/// Why something was not taken back.
enum Lost {
    TooMuch(u64),
    Why(String),
}

//! The driver: brings one rollout from wherever it stands to its end.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Target, TargetError, prober::Prober};
use crate::{
    clock,
    domain::{
        ids::Epoch,
        rollout::{Action, Asked, Desired, End, Kind, Observed, Phase, ProbeFigures, Progress, Step, next},
    },
    failpoint,
};

/// Where progress is kept, and where wishes come from. One worker's hold on one rollout.
pub trait Journal: Send + Sync {
    /// The worker's claim. Epochs of one environment only grow, over all its rollouts and over the loss of the store
    /// (start above [`crate::domain::rollout::LiveApp::epoch`]).
    fn epoch(&self) -> Epoch;

    /// Writes the progress down, fenced by the epoch, and reads in the same transaction what is asked for: a
    /// cancellation that was accepted before the phase `switch` was written is seen before anything is switched. A
    /// cancellation is to be refused when the stored phase is past the switch ([`Phase::past_switch`]).
    ///
    /// # Errors
    /// [`JournalError::Fenced`] when a later worker has taken over; [`JournalError::Failed`] when it could not be
    /// written: then nothing is done either, and it is tried again.
    fn record<'a>(&'a self, progress: &'a Progress) -> BoxFuture<'a, Result<Asked, JournalError>>;

    /// What is asked for; changes wake the driver.
    fn asked(&self) -> watch::Receiver<Asked>;
}

/// Why a progress was not written down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// A later worker has taken over: stop at once.
    #[error("a later worker has taken over this rollout")]
    Fenced,
    /// The store failed.
    #[error("the progress could not be written down: {0}")]
    Failed(String),
}

/// How [`drive`] ended.
#[derive(Debug, Clone, PartialEq)]
pub enum DriveEnd {
    /// The rollout is over; the end is recorded in the progress.
    Ended(End, Box<Progress>),
    /// Asked to shut down: whoever drives next goes on from what is recorded.
    HandedBack(Box<Progress>),
}

/// Why [`drive`] gave up. The rollout stays where it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DriveError {
    /// A later worker has taken over, told by the store or by the target.
    #[error("a later worker has taken over: {0}")]
    Fenced(String),
    /// The store failed for longer than [`JOURNAL_PATIENCE`].
    #[error(transparent)]
    Journal(JournalError),
}

/// So long the store may fail until the driver gives up.
pub const JOURNAL_PATIENCE: Duration = Duration::from_secs(30);
/// While nothing happens, the figures are written down this often.
const KEEP_FIGURES: Duration = Duration::from_secs(5);
/// A target that is away for longer is worth telling.
const TELL_AWAY: Duration = Duration::from_secs(5);
/// Pause after an action whose effect is unknown.
const UNKNOWN_PAUSE: Duration = Duration::from_millis(500);

/// Brings a rollout from wherever it stands to its end. May be called again with the recorded progress after any
/// interruption, a crash included.
///
/// Each action goes intent → effect → record, with a failpoint at each of the four moments:
/// `rollout.ACTION.before_intent`, `.after_intent`, `.after_effect`, `.after_record` (ACTION is [`Action::name`], with
/// `switch_back` for the way back), and `rollout.phase.PHASE.before_record`, `.after_record` for phases.
///
/// # Errors
/// [`DriveError`]: another worker has taken over, or the store is away. Nothing was done that is not recorded as
/// intended.
pub async fn drive(
    desired: &Desired,
    progress: Progress,
    target: &dyn Target,
    journal: &dyn Journal,
    shutdown: CancellationToken,
) -> Result<DriveEnd, DriveError> {
    let before = progress.prober.clone();
    let driver = Driver {
        desired,
        target,
        journal,
        shutdown,
        epoch: journal.epoch(),
        asked: journal.asked(),
        progress,
        before,
        prober: None,
        recorded: Instant::now(),
        away: None,
    };
    driver.run().await
}

struct Driver<'a> {
    desired: &'a Desired,
    target: &'a dyn Target,
    journal: &'a dyn Journal,
    shutdown: CancellationToken,
    epoch: Epoch,
    asked: watch::Receiver<Asked>,
    progress: Progress,
    /// What earlier probers saw.
    before: ProbeFigures,
    prober: Option<Prober>,
    recorded: Instant,
    /// Since when the target can't be reached.
    away: Option<Instant>,
}

impl Driver<'_> {
    async fn run(mut self) -> Result<DriveEnd, DriveError> {
        loop {
            self.take_wishes();
            if self.shutdown.is_cancelled() {
                return self.hand_back().await;
            }
            let mut observed = self.look().await;
            if observed.unreachable.is_none() {
                self.away = None;
            } else if self.away.get_or_insert_with(Instant::now).elapsed() >= TELL_AWAY
                && self.progress.cannot_see(&observed, clock::now())
            {
                self.record().await?;
            }
            self.probe(&mut observed).await;
            let now = clock::now();
            self.progress.look(self.desired, &observed, now);
            match next(self.desired, &self.progress, &observed, now) {
                Step::Go { phase, reason, outcome } => {
                    tracing::info!(rollout = %self.desired.rollout, environment = %self.desired.key, phase = phase.as_str(), reason, "rollout enters a phase");
                    failpoint::hit(&format!("rollout.phase.{}.before_record", phase.as_str()));
                    self.progress.go(phase, reason, outcome, now);
                    self.record().await?;
                    failpoint::hit(&format!("rollout.phase.{}.after_record", phase.as_str()));
                }
                Step::Alarm(words) => {
                    tracing::warn!(rollout = %self.desired.rollout, environment = %self.desired.key, words, "the release does badly and can't be taken back");
                    self.progress.say(words.clone(), now);
                    self.progress.alarm = Some(words);
                    self.record().await?;
                }
                Step::Act(action) => self.act(&action, &observed).await?,
                Step::Wait { until, look, .. } => self.wait(until, look).await?,
                Step::Done(end) => return self.finish(end).await,
            }
        }
    }

    fn take_wishes(&mut self) {
        let asked = self.asked.borrow_and_update().clone();
        self.progress.ask(&asked, clock::now());
    }

    /// The live system, where the phase wants to know.
    async fn look(&self) -> Observed {
        match self.progress.phase {
            Phase::Approve | Phase::Done | Phase::RolledBack | Phase::Stuck => {
                Observed::unreachable("not looked at in this phase")
            }
            _ => self.target.observe(self.desired, self.epoch).await,
        }
    }

    /// Runs the prober from shortly before the flip until the end, and adds what it saw.
    async fn probe(&mut self, observed: &mut Observed) {
        let probed = matches!(self.progress.phase, Phase::Switch | Phase::Converge | Phase::Watch | Phase::RollingBack);
        if !probed || observed.unreachable.is_some() {
            if let Some(prober) = &self.prober {
                prober.forget();
            }
            return;
        }
        if self.prober.is_none() && self.hurries() {
            return;
        }
        // An app is probed as soon as something serves it: before that, every answer is a failure.
        let served = |app: &_| observed.apps.get(app).is_some_and(|a| a.active.is_some());
        let missing = self.desired.apps.iter().any(|a| {
            a.spec.probe.path.is_some() && served(&a.name) && !self.prober.as_ref().is_some_and(|p| p.has(&a.name))
        });
        if missing {
            let targets: Vec<_> =
                self.target.probes(self.desired).await.into_iter().filter(|t| served(&t.app)).collect();
            let fresh = self.prober.is_none();
            let prober = self.prober.get_or_insert_with(|| Prober::start(Vec::new()));
            for target in targets {
                prober.add(target);
            }
            if fresh {
                self.tell_prober();
                let before_the_flip = self.progress.phase == Phase::Switch && self.progress.switched_at().is_none();
                if before_the_flip && let Some(prober) = &self.prober {
                    prober.lead().await;
                    // What was seen before the lead is old by now, and the flip must not be.
                    *observed = self.look().await;
                }
            } else {
                self.tell_prober();
            }
        }
        if let Some(prober) = &self.prober {
            observed.probes = prober.windows();
        }
    }

    /// On the way back, whom to ask is looked for only once every pointer has moved.
    fn hurries(&self) -> bool {
        match self.progress.phase {
            Phase::Switch => self.desired.kind == Kind::Rollback,
            Phase::RollingBack => self.progress.apps.values().any(|a| a.switched_at.is_some() && a.back_at.is_none()),
            _ => false,
        }
    }

    /// Tells the prober of the flips that were made.
    fn tell_prober(&self) {
        let Some(prober) = &self.prober else { return };
        for app in &self.desired.apps {
            let did = self.progress.app(&app.name);
            let previous = did.base.and_then(|b| b.active);
            match (did.switched_at, did.back_at) {
                (_, Some(at)) => prober.flipped(&app.name, at, Some(&app.slot), true),
                (Some(at), None) => prober.flipped(&app.name, at, previous.as_ref(), false),
                (None, None) => {}
            }
        }
    }

    async fn act(&mut self, action: &Action, observed: &Observed) -> Result<(), DriveError> {
        let name = match action {
            Action::Switch { app, to, .. } if self.desired.app(app).is_some_and(|a| &a.slot != to) => "switch_back",
            other => other.name(),
        };
        let hit = |moment: &str| failpoint::hit(&format!("rollout.{name}.{moment}"));
        hit("before_intent");
        self.progress.intend(action, observed);
        let known = self.progress.asked.clone();
        self.record().await?;
        hit("after_intent");
        if self.progress.asked != known {
            // Something was asked for while the intent was written: it counts, nothing has been done yet.
            self.progress.intent = None;
            return Ok(());
        }
        let result = self.perform(action).await;
        hit("after_effect");
        let now = clock::now();
        let outcome = match result {
            Ok(effect) => Ok(effect),
            Err(TargetError::Failed(words)) => {
                tracing::warn!(rollout = %self.desired.rollout, action = name, words, "an action failed");
                Err(words)
            }
            Err(TargetError::Stale(words)) => return Err(DriveError::Fenced(words)),
            Err(TargetError::Stopped) => {
                self.progress.intent = None;
                return Ok(());
            }
            Err(TargetError::Unreachable(words)) => {
                tracing::debug!(rollout = %self.desired.rollout, action = name, words, "the effect is unknown: look again");
                tokio::select! {
                    () = tokio::time::sleep(UNKNOWN_PAUSE) => {}
                    () = self.shutdown.cancelled() => {}
                }
                return Ok(());
            }
        };
        self.progress.happened(self.desired, action, outcome, now);
        if let Action::Switch { app, .. } = action {
            tracing::info!(rollout = %self.desired.rollout, %app, action = name, "pointer moved");
            self.tell_prober();
        }
        self.record().await?;
        hit("after_record");
        Ok(())
    }

    /// Does it; asks it to stop early when the rollout is stopped meanwhile.
    async fn perform(&mut self, action: &Action) -> Result<crate::domain::rollout::Effect, TargetError> {
        let stop = CancellationToken::new();
        let mut doing = self.target.perform(self.desired, self.epoch, action, &stop);
        let mut asked = self.asked.clone();
        let stoppable = !self.progress.phase.past_switch();
        loop {
            tokio::select! {
                biased;
                result = &mut doing => return result,
                () = self.shutdown.cancelled(), if !stop.is_cancelled() => stop.cancel(),
                changed = asked.changed(), if !stop.is_cancelled() && stoppable => {
                    if changed.is_err() {
                        // Nobody is left who could ask: the action ends by itself.
                        return doing.await;
                    }
                    let wish = asked.borrow_and_update().clone();
                    let newer = wish.superseded_by.is_some() && self.desired.kind == Kind::Release;
                    if wish.cancel || wish.rollback || newer {
                        stop.cancel();
                    }
                }
            }
        }
    }

    async fn wait(&mut self, until: Option<Timestamp>, look: Option<Duration>) -> Result<(), DriveError> {
        if self.recorded.elapsed() >= KEEP_FIGURES && self.prober.is_some() {
            self.record().await?;
        }
        let left = until.map(|at| Duration::try_from(at.duration_since(clock::now())).unwrap_or_default());
        let pause = [left, look].into_iter().flatten().min();
        let timer = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause.max(Duration::from_millis(1))).await,
                None => std::future::pending().await,
            }
        };
        let live = async {
            match look {
                Some(_) => self.target.changed(self.desired).await,
                None => std::future::pending().await,
            }
        };
        let lost = async {
            match &self.prober {
                Some(prober) => prober.failed().await,
                None => std::future::pending().await,
            }
        };
        let wish = async {
            if self.asked.changed().await.is_err() {
                std::future::pending().await
            }
        };
        tokio::select! {
            () = timer => {}
            () = live => {}
            () = lost => {}
            () = wish => {}
            () = self.shutdown.cancelled() => {}
        }
        Ok(())
    }

    async fn record(&mut self) -> Result<(), DriveError> {
        self.count_probes();
        let begun = Instant::now();
        let mut pause = Duration::from_millis(50);
        loop {
            match self.journal.record(&self.progress).await {
                Ok(asked) => {
                    self.recorded = Instant::now();
                    self.progress.ask(&asked, clock::now());
                    return Ok(());
                }
                Err(JournalError::Fenced) => return Err(DriveError::Fenced(JournalError::Fenced.to_string())),
                Err(e) if begun.elapsed() >= JOURNAL_PATIENCE || self.shutdown.is_cancelled() => {
                    return Err(DriveError::Journal(e));
                }
                Err(e) => tracing::debug!(error = %e, "tried again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    fn count_probes(&mut self) {
        if let Some(prober) = &self.prober {
            self.progress.prober = self.before.clone();
            self.progress.prober.merge(&prober.figures());
        }
    }

    async fn stop_prober(&mut self) {
        if let Some(prober) = self.prober.take() {
            self.progress.prober = self.before.clone();
            self.progress.prober.merge(&prober.stop().await);
        }
    }

    async fn hand_back(mut self) -> Result<DriveEnd, DriveError> {
        self.stop_prober().await;
        self.record().await?;
        Ok(DriveEnd::HandedBack(Box::new(self.progress)))
    }

    async fn finish(mut self, end: End) -> Result<DriveEnd, DriveError> {
        self.stop_prober().await;
        if self.progress.end.is_none() {
            let now = clock::now();
            if let Some(open) = self.progress.timeline.last_mut() {
                open.ended = Some(now);
            }
            self.progress.end = Some(end.clone());
            failpoint::hit("rollout.end.before_record");
            self.record().await?;
            failpoint::hit("rollout.end.after_record");
        }
        Ok(DriveEnd::Ended(end, Box::new(self.progress)))
    }
}

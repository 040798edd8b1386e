//! What was done and seen so far. Stored after every step, so that another worker can go on from it, and shown by
//! the reporter: phases with times, commands with their output, figures.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    Action, Effect, Phase,
    app_progress::{AppProgress, AtSwitch, Base},
    desired::{Desired, same_content},
    figures::{ProbeFigures, Traffic},
    keep::Kept,
    observed::Observed,
};
use crate::domain::ids::{AppName, RolloutId, Slot};

/// Version of the stored form.
pub const PROGRESS: u32 = 1;

/// What was done and seen so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// [`PROGRESS`].
    pub version: u32,
    /// Where it stands.
    pub phase: Phase,
    /// Since when.
    pub since: Timestamp,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// All phases in order; the last one is open until the end. A phase can come twice (`warm`, when a slot fell back).
    pub timeline: Vec<PhaseTime>,
    /// By app; every app of the rollout is in here from the beginning.
    pub apps: BTreeMap<AppName, AppProgress>,
    /// What people and newer rollouts asked for.
    pub asked: Asked,
    /// The preflight held.
    pub preflight: bool,
    /// How often slots fell back before the switch.
    pub rewarmed: u32,
    /// The action under way: recorded before its effect, cleared after it. Left behind by a crash, it says what may or
    /// may not have happened.
    pub intent: Option<Action>,
    /// The last action failed so often in a row.
    pub failure: Option<ActionFailure>,
    /// What is worth telling beside the phases, in order.
    pub messages: Vec<Message>,
    /// It does badly and there is no way back by itself: why.
    pub alarm: Option<String>,
    /// Why it turned off the straight way (failed, cancelled, rolled back, stuck).
    pub reason: Option<String>,
    /// How it will end; known from the last phases on.
    pub outcome: Option<Ended>,
    /// What the prober saw.
    pub prober: ProbeFigures,
    /// The end, once it has come.
    pub end: Option<End>,
}

/// A phase with its times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// Which.
    pub phase: Phase,
    /// From.
    pub started: Timestamp,
    /// To; None: still in it.
    pub ended: Option<Timestamp>,
}

/// Something worth telling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// When.
    pub at: Timestamp,
    /// What.
    pub words: String,
}

/// Failures of one action in a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionFailure {
    /// How many.
    pub times: u32,
    /// When the last one was.
    pub at: Timestamp,
    /// Why.
    pub words: String,
}

/// What people and newer rollouts ask for. Nothing is ever taken back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Asked {
    /// Go on past the approval.
    pub promote: bool,
    /// Stop; obeyed before the switch only.
    pub cancel: bool,
    /// Go back; before the switch it means [`Self::cancel`].
    pub rollback: bool,
    /// A newer rollout waits; obeyed before the switch only, and never by a rollback.
    pub superseded_by: Option<RolloutId>,
}

impl Asked {
    /// Both.
    pub fn merge(&mut self, other: &Self) {
        self.promote |= other.promote;
        self.cancel |= other.cancel;
        self.rollback |= other.rollback;
        if self.superseded_by.is_none() {
            self.superseded_by = other.superseded_by;
        }
    }
}

/// How a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// What was wanted is live and did well.
    Live,
    /// The same thing with the same configuration was live already: nothing was touched.
    Unchanged,
    /// It is live, does badly, and there is no way back by itself: a person decides.
    Unhealthy,
    /// Not switched; the author or the operator can mend it.
    Failed,
    /// Stopped by a person before the switch.
    Cancelled,
    /// A newer one took its place before the switch.
    Superseded,
    /// Switched, and taken back.
    RolledBack,
    /// The live system is not what was left there.
    Stuck,
}

impl Ended {
    /// As it stands in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Unchanged => "unchanged",
            Self::Unhealthy => "unhealthy",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::RolledBack => "rolled_back",
            Self::Stuck => "stuck",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Live,
            Self::Unchanged,
            Self::Unhealthy,
            Self::Failed,
            Self::Cancelled,
            Self::Superseded,
            Self::RolledBack,
            Self::Stuck,
        ]
        .into_iter()
        .find(|e| e.as_str() == text)
    }
}

/// The end, and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// How.
    pub outcome: Ended,
    /// The environment is to be held: no automatic release until a person resumes it. After a rollback by a person (or
    /// the next push would undo it), and where only a person can decide. A release that the watch took back holds
    /// nothing: the next push is most likely its mend, and is watched too.
    pub hold: bool,
    /// Why, in a sentence or two.
    pub words: String,
    /// Which slots stay warm as the way back, in place of those kept so far. None: those kept so far stay kept.
    pub keep: Option<Vec<Kept>>,
}

/// `at` plus `length`, without an overflow.
#[must_use]
pub fn after(at: Timestamp, length: Duration) -> Timestamp {
    SignedDuration::try_from(length).ok().and_then(|d| at.checked_add(d).ok()).unwrap_or(Timestamp::MAX)
}

/// So many messages are kept of a target that can't be reached for ever new reasons.
const MESSAGES: usize = 50;

impl Progress {
    /// At the beginning.
    #[must_use]
    pub fn new(desired: &Desired, now: Timestamp) -> Self {
        let phase = if desired.approve_first() { Phase::Approve } else { Phase::Prepare };
        Self {
            version: PROGRESS,
            phase,
            since: now,
            created_at: now,
            timeline: vec![PhaseTime { phase, started: now, ended: None }],
            apps: desired.apps.iter().map(|a| (a.name.clone(), AppProgress::default())).collect(),
            asked: Asked::default(),
            preflight: false,
            rewarmed: 0,
            intent: None,
            failure: None,
            messages: Vec::new(),
            alarm: None,
            reason: None,
            outcome: None,
            prober: ProbeFigures::default(),
            end: None,
        }
    }

    /// What was done for this app; nothing, if it isn't part of the rollout.
    #[must_use]
    pub fn app(&self, name: &AppName) -> AppProgress {
        self.apps.get(name).cloned().unwrap_or_default()
    }

    /// When the first app was switched.
    #[must_use]
    pub fn switched_at(&self) -> Option<Timestamp> {
        self.apps.values().filter_map(|a| a.switched_at).min()
    }

    /// When the last app was switched back.
    #[must_use]
    pub fn back_at(&self) -> Option<Timestamp> {
        self.apps.values().filter_map(|a| a.back_at).max()
    }

    /// Tells something.
    pub fn say(&mut self, words: impl Into<String>, now: Timestamp) {
        self.messages.push(Message { at: now, words: words.into() });
    }

    /// Enters a phase.
    pub fn go(&mut self, phase: Phase, reason: Option<String>, outcome: Option<Ended>, now: Timestamp) {
        if let Some(words) = &reason {
            self.say(words.clone(), now);
        }
        if phase == Phase::Warm && matches!(self.phase, Phase::Verify | Phase::Wait | Phase::Switch) {
            self.rewarmed += 1;
            // Whatever became of the slots, they are asked for once more.
            self.apps.values_mut().for_each(|a| a.put = false);
        } else if reason.is_some() && (phase.is_last() || phase == Phase::RollingBack) {
            self.reason = reason;
        }
        if let Some(open) = self.timeline.last_mut() {
            open.ended = Some(now);
        }
        self.timeline.push(PhaseTime { phase, started: now, ended: None });
        self.phase = phase;
        self.since = now;
        self.failure = None;
        if outcome.is_some() {
            self.outcome = outcome;
        }
    }

    /// Takes what was asked. A cancellation past the switch is answered here, once.
    pub fn ask(&mut self, asked: &Asked, now: Timestamp) {
        let late = asked.cancel && !self.asked.cancel && self.phase.past_switch() && !self.phase.is_last();
        if late && self.apps.values().any(|a| a.switched_at.is_some()) {
            self.say("Too late to cancel: it is switched. Roll back instead.", now);
        }
        self.asked.merge(asked);
    }

    /// Right before an action: what is to be remembered of the moment.
    pub fn intend(&mut self, action: &Action, observed: &Observed) {
        if let Action::PreDeploy { app } = action
            && self.intent.as_ref() == Some(action)
            && let Some(state) = self.apps.get_mut(app)
        {
            state.pre_deploy_again = true;
        }
        self.intent = Some(action.clone());
        if let Action::PreDeploy { app } | Action::PutSlot { app } | Action::Switch { app, .. } = action
            && let Some(state) = self.apps.get_mut(app)
        {
            state.begun = true;
        }
        if let Action::Switch { app, from, to } = action
            && let Some(state) = self.apps.get_mut(app)
            && state.at_switch.is_none()
        {
            let slot = |name: Option<&Slot>| {
                name.and_then(|n| observed.apps.get(app)?.slots.get(n)).cloned().unwrap_or_default()
            };
            let (old, new) = (slot(from.as_ref()), slot(Some(to)));
            state.at_switch = Some(AtSwitch {
                new_restarts: new.restarts,
                new: new.requests,
                old_restarts: old.restarts,
                old: old.requests,
                new_ready: new.ready,
            });
        }
    }

    /// After an action: what it brought, or why it failed.
    pub fn happened(&mut self, desired: &Desired, action: &Action, result: Result<Effect, String>, now: Timestamp) {
        self.intent = None;
        let effect = match result {
            Ok(effect) => effect,
            Err(words) => {
                let times = self.failure.as_ref().map_or(0, |f| f.times) + 1;
                self.failure = Some(ActionFailure { times, at: now, words });
                return;
            }
        };
        self.failure = None;
        match (action, effect) {
            (Action::Preflight, _) => self.preflight = true,
            (Action::Claim, Effect::Claimed(live)) => {
                for app in &desired.apps {
                    let Some(state) = self.apps.get_mut(&app.name) else { continue };
                    if state.base.is_none() {
                        let found = live.apps.get(&app.name).cloned().unwrap_or_default();
                        let unchanged = found.active.as_ref().is_some_and(|a| same_content(a, &app.slot));
                        let existed = found.slots.contains_key(&app.slot);
                        state.base = Some(Base { active: found.active, unchanged, existed });
                    }
                }
            }
            (Action::PreDeploy { app }, Effect::Ran(report)) => {
                if let Some(state) = self.apps.get_mut(app) {
                    state.pre_deploy = Some(report);
                }
            }
            (Action::Smoke { app }, Effect::Ran(report)) => {
                if let Some(state) = self.apps.get_mut(app) {
                    state.smoke = Some(report);
                }
            }
            (Action::PutSlot { app }, _) => {
                if let Some(state) = self.apps.get_mut(app) {
                    state.put = true;
                    state.put_at = Some(now);
                }
            }
            (Action::Switch { app, to, .. }, Effect::Switched { at }) => {
                let forward = desired.app(app).is_some_and(|a| &a.slot == to);
                if let Some(state) = self.apps.get_mut(app) {
                    let moment = if forward { &mut state.switched_at } else { &mut state.back_at };
                    *moment = Some(moment.unwrap_or(at));
                }
            }
            (Action::RemoveSlot { app, slot }, _) => {
                if desired.app(app).is_some_and(|a| &a.slot == slot)
                    && let Some(state) = self.apps.get_mut(app)
                {
                    state.begun = false;
                }
            }
            (Action::Recycle { .. } | Action::Grow { .. } | Action::Follow { .. } | Action::Finish { .. }, _) => {}
            (action, effect) => {
                // A target that answers something else than was asked has a mistake: nothing is concluded from it.
                self.failure = Some(ActionFailure {
                    times: 1,
                    at: now,
                    words: format!("{} was answered by {effect:?}", action.name()),
                });
            }
        }
    }

    /// Keeps the words for people when the target can't be reached, once for each reason. True: there was something to keep.
    pub fn cannot_see(&mut self, observed: &Observed, now: Timestamp) -> bool {
        // In these phases nobody looks.
        let looks = !matches!(self.phase, Phase::Approve | Phase::Done | Phase::RolledBack | Phase::Stuck);
        let Some(why) = observed.unreachable.as_ref().filter(|_| looks) else { return false };
        let words = format!("The target can't be reached; this waits for it. {why}");
        let new = self.messages.len() < MESSAGES && !self.messages.iter().any(|m| m.words == words);
        if new {
            self.messages.push(Message { at: now, words });
        }
        new
    }

    /// Takes the figures of a look at the live system.
    pub fn look(&mut self, desired: &Desired, observed: &Observed, now: Timestamp) {
        if observed.unreachable.is_some() {
            return;
        }
        for app in &desired.apps {
            let (Some(state), Some(seen)) = (self.apps.get_mut(&app.name), observed.apps.get(&app.name)) else {
                continue;
            };
            if let Some(probes) = observed.probes.get(&app.name)
                && probes.blind
                && !state.blind
            {
                state.blind = true;
                let words = format!("{}: its probes failed before the switch too, so they prove nothing.", app.name);
                self.messages.push(Message { at: now, words });
            }
            if self.phase == Phase::Converge
                && let Some(old) = state.base.as_ref().and_then(|b| b.active.as_ref()).and_then(|s| seen.slots.get(s))
                && state.switched_at.is_some()
            {
                state.undrained = Some(old.requests.in_flight).filter(|n| *n > 0);
            }
            let Some(new) = seen.slots.get(&app.slot) else { continue };
            if new.full() && state.warm_at.is_none() && state.put {
                state.warm_at = Some(now);
            }
            if let (Some(base), Some(_)) = (state.at_switch, state.switched_at) {
                state.traffic = Traffic::since(new.requests, base.new);
            }
        }
    }
}

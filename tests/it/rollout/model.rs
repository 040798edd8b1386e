//! A world to roll out into, on paper: obeys actions as the agent does, and checks at each one what must never happen.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use switchover::domain::{
    config::AppKind,
    ids::{AppName, Digest, EnvironmentName, Epoch, RepoId, RolloutId, Sha, Slot},
    rollout::{
        Action, AppSpec, Asked, CommandReport, CommandSpec, Desired, DesiredApp, Effect, End, EnvironmentKey, Fence,
        Kind, Live, LiveApp, Observed, ObservedApp, ObservedSlot, Phase, PreDeploySpec, ProbeSpec, Progress, Requests,
        Step, next,
    },
};

pub fn slot(name: &str) -> Slot {
    Slot::new(name).unwrap()
}

pub fn app(name: &str) -> AppName {
    AppName::new(name).unwrap()
}

pub fn start() -> Timestamp {
    "2026-01-05T09:00:00Z".parse().unwrap()
}

/// Two web apps and a worker, with everything that can be configured.
pub fn desired() -> Desired {
    let command = |run: &str| CommandSpec { run: run.into(), timeout: Duration::from_secs(60) };
    let one = |name: &str, kind| DesiredApp {
        name: app(name),
        kind,
        slot: slot(&format!("2222222-{}", hexed(&format!("new {name}")))),
        digest: Digest::of(name.as_bytes()),
        spec: AppSpec {
            start: Some("serve".into()),
            env: BTreeMap::new(),
            secrets: vec![],
            port: None,
            health: Some("/health".into()),
            replicas: 2,
            pre_deploy: (name == "backend").then(|| PreDeploySpec { command: command("migrate"), reversible: true }),
            smoke: (kind == AppKind::Web).then(|| command("smoke")),
            probe: ProbeSpec { path: Some("/health".into()), interval: Duration::from_millis(20), body: None },
            image: None,
            resources: switchover::domain::config::Resources::default(),
            hosts: vec![],
            manifests: None,
        },
        commit: None,
    };
    Desired {
        rollout: RolloutId("01890000-0000-7000-8000-000000000001".parse().unwrap()),
        key: EnvironmentKey { repo: RepoId(7), environment: EnvironmentName::new("production").unwrap() },
        commit: Sha::new("2".repeat(40)).unwrap(),
        kind: Kind::Release,
        apps: vec![one("backend", AppKind::Web), one("frontend", AppKind::Web), one("mailer", AppKind::Worker)],
        approval: false,
        min_ready: Duration::from_secs(1),
        start_timeout: Duration::from_secs(60),
        drain_timeout: Duration::from_secs(30),
        watch_for: Duration::from_secs(60),
        keep_previous: Duration::from_secs(3600),
        refused: None,
    }
}

pub fn old(name: &AppName) -> Slot {
    slot(&format!("1111111-{}", hexed(name.as_str())))
}

fn hexed(name: &str) -> String {
    Digest::of(name.as_bytes()).short()[..8].to_owned()
}

#[derive(Debug, Clone, PartialEq)]
pub struct SimSlot {
    pub running: bool,
    pub ready: bool,
    pub ready_since: Timestamp,
    pub restarts: u32,
    pub requests: Requests,
    /// Copies with connections from before the switch.
    pub pinned: u32,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct SimApp {
    pub active: Option<Slot>,
    pub slots: BTreeMap<Slot, SimSlot>,
    pub handover: bool,
    pub behind: bool,
    /// The slot before has the size of what serves.
    pub grown: bool,
}

/// How the new version behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fate {
    pub preflight_fails: bool,
    pub pre_deploy_fails: bool,
    pub never_ready: bool,
    pub smoke_fails: bool,
    pub dies_when_live: bool,
    /// A switch moves new connections only, and leaves something to be put back (target `kubernetes`).
    pub pins: bool,
    /// What is new becomes larger once it serves.
    pub grows: bool,
}

#[derive(Debug, Clone)]
pub struct World {
    pub now: Timestamp,
    pub apps: BTreeMap<AppName, SimApp>,
    pub exists: bool,
    pub epoch: Epoch,
    pub away: bool,
    /// When everybody followed again after it was away.
    pub follows_since: Option<Timestamp>,
    pub fate: Fate,
    pub pre_deploys: u32,
    pub smoked: BTreeMap<AppName, bool>,
    /// Everything that happened, for the eye.
    pub log: Vec<String>,
}

impl World {
    /// The previous release is live.
    pub fn with_previous(desired: &Desired, fate: Fate) -> Self {
        let mut world = Self::empty(desired, fate);
        world.exists = true;
        for a in &desired.apps {
            let state = world.apps.get_mut(&a.name).unwrap();
            state.active = Some(old(&a.name));
            let slot = SimSlot {
                running: true,
                ready: true,
                ready_since: world.now,
                restarts: 0,
                requests: Requests { total: 1000, server_errors: 2, ..Requests::default() },
                pinned: 0,
            };
            state.slots.insert(old(&a.name), slot);
        }
        world
    }

    pub fn empty(desired: &Desired, fate: Fate) -> Self {
        Self {
            now: start(),
            apps: desired.apps.iter().map(|a| (a.name.clone(), SimApp::default())).collect(),
            exists: false,
            epoch: Epoch(0),
            away: false,
            follows_since: None,
            fate,
            pre_deploys: 0,
            smoked: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    pub fn observe(&self, epoch: Epoch) -> Observed {
        if self.away {
            return Observed::unreachable("away");
        }
        let fence = match self.epoch.cmp(&epoch) {
            _ if !self.exists => Fence::Lower,
            std::cmp::Ordering::Less => Fence::Lower,
            std::cmp::Ordering::Equal => Fence::Ours,
            std::cmp::Ordering::Greater => Fence::Higher,
        };
        let one = |s: &SimSlot, short| ObservedSlot {
            short,
            running: s.running,
            wanted: 2,
            ready: if s.running && s.ready { 2 } else { 0 },
            ready_since: (s.running && s.ready).then_some(s.ready_since),
            unready_since: (!(s.running && s.ready)).then_some(s.ready_since),
            restarts: s.restarts,
            requests: s.requests,
            pinned: s.pinned,
            why: (!s.ready).then(|| "copy 1: GET /health answered 503".into()),
        };
        let apps = self.apps.iter().filter(|_| self.exists).map(|(name, a)| {
            let small = |n: &Slot| self.fate.grows && !a.grown && *n == old(name) && a.active.as_ref() != Some(n);
            let slots = a.slots.iter().map(|(n, s)| (n.clone(), one(s, small(n)))).collect();
            (
                name.clone(),
                ObservedApp {
                    active: a.active.clone(),
                    drift: None,
                    settled: true,
                    handover: a.handover,
                    behind: a.behind,
                    slots,
                },
            )
        });
        Observed { follows_since: self.follows_since, ..Observed::of(fence, apps.collect()) }
    }

    /// Goes away, or comes back: then those who follow it need another moment.
    pub fn be_away(&mut self, away: bool) {
        if self.away && !away {
            self.follows_since = Some(self.now + SignedDuration::from_secs(20));
        }
        self.away = away;
    }

    pub fn pass(&mut self, time: Duration) {
        self.now += SignedDuration::try_from(time).unwrap();
    }

    /// What `action` does; panics where something happens that never may.
    pub fn perform(&mut self, d: &Desired, p: &Progress, epoch: Epoch, action: &Action) -> Result<Effect, String> {
        assert!(epoch >= self.epoch, "a stale worker acts: {action:?}");
        self.log.push(format!("{} {action:?}", p.phase.as_str()));
        let now = self.now;
        let report =
            |ok| Effect::Ran(CommandReport { ok, words: "exit code".into(), tail: vec![], started: now, ended: now });
        let fate = self.fate;
        if *action == Action::Preflight {
            return if fate.preflight_fails { Err("no room".into()) } else { Ok(Effect::Done) };
        }
        if *action == Action::Claim {
            (self.exists, self.epoch) = (true, epoch);
            let live = self.apps.iter().map(|(name, a)| {
                let slots = a.slots.keys().map(|s| (s.clone(), String::new())).collect();
                (name.clone(), LiveApp { active: a.active.clone(), slots, ..LiveApp::default() })
            });
            return Ok(Effect::Claimed(Live { apps: live.collect() }));
        }
        assert!(self.exists && self.epoch == epoch, "acts on what it has not claimed: {action:?}");
        match action {
            Action::Preflight | Action::Claim => unreachable!(),
            Action::PreDeploy { .. } => {
                assert!(self.apps.values().all(|a| !a.slots.keys().any(|s| d.apps.iter().any(|x| &x.slot == s))));
                self.pre_deploys += 1;
                Ok(report(!fate.pre_deploy_fails))
            }
            Action::PutSlot { app: name } => {
                let want = d.app(name).unwrap();
                assert_eq!(want.kind, AppKind::Web, "a worker is started beside the old one");
                self.put(want);
                Ok(Effect::Done)
            }
            Action::Smoke { app: name } => {
                self.smoked.insert(name.clone(), !fate.smoke_fails);
                Ok(report(!fate.smoke_fails))
            }
            Action::Switch { app: name, from, to } => {
                let want = d.app(name).unwrap();
                let forward = &want.slot == to;
                let active = self.apps[name].active.clone();
                if want.kind == AppKind::Worker {
                    self.apps.get_mut(name).unwrap().slots.values_mut().for_each(|s| s.running = false);
                    if forward {
                        self.put(want);
                    }
                    let state = self.apps.get_mut(name).unwrap();
                    state.slots.get_mut(to).expect("a worker's slot to go back to").running = true;
                    let running = state.slots.values().filter(|s| s.running).count();
                    assert!(running <= 1, "two copies of a worker");
                }
                if active.as_ref() == Some(to) {
                    return Ok(Effect::Switched { at: now });
                }
                if &active != from {
                    return Err(format!("{active:?} is live, not {from:?}"));
                }
                let found = self.apps[name].slots.get(to).expect("switched to a slot that is not there").clone();
                if want.kind == AppKind::Web {
                    assert!(found.running && found.ready, "switched to a slot that is not ready");
                    if forward && d.kind == Kind::Release {
                        assert_eq!(self.smoked.get(name), Some(&true), "switched to a slot that was not verified");
                        assert!(!d.approval || p.asked.promote, "switched without the approval");
                    }
                }
                let state = self.apps.get_mut(name).unwrap();
                state.active = Some(to.clone());
                if fate.pins && want.kind == AppKind::Web {
                    state.handover = true;
                    state.behind = !forward || d.kind == Kind::Rollback;
                    if let Some(left) = from.as_ref().and_then(|f| state.slots.get_mut(f)) {
                        left.pinned = 2;
                    }
                    state.slots.get_mut(to).unwrap().pinned = 0;
                }
                if forward && fate.dies_when_live {
                    let s = state.slots.get_mut(to).unwrap();
                    (s.ready, s.ready_since, s.restarts) = (false, now, 2);
                }
                Ok(Effect::Switched { at: now })
            }
            Action::Recycle { app: name, slot } => {
                let state = self.apps.get_mut(name).unwrap();
                assert_ne!(state.active.as_ref(), Some(slot), "recycles what serves");
                let found = state.slots.get_mut(slot).expect("recycles a slot that is not there");
                assert!(found.running && found.ready, "recycles a slot that lacks copies");
                found.pinned = found.pinned.saturating_sub(1);
                Ok(Effect::Done)
            }
            Action::Grow { app: name, slot } => {
                let state = self.apps.get_mut(name).unwrap();
                assert_ne!(state.active.as_ref(), Some(slot), "sizes what serves");
                assert!(state.slots[slot].running, "grows a slot that does not run");
                state.grown = true;
                Ok(Effect::Done)
            }
            Action::Follow { app: name } => {
                let pointed = |a: &DesiredApp| {
                    let did = &p.apps[&a.name];
                    let moved = if d.kind == Kind::Rollback { did.switched_at } else { did.back_at };
                    moved.is_some() || !self.apps[&a.name].behind
                };
                assert!(d.apps.iter().all(pointed), "something comes before a pointer on the way back");
                self.apps.get_mut(name).unwrap().behind = false;
                Ok(Effect::Done)
            }
            Action::Finish { app: name } => {
                self.apps.get_mut(name).unwrap().handover = false;
                Ok(Effect::Done)
            }
            Action::RemoveSlot { app: name, slot } => {
                let state = self.apps.get_mut(name).unwrap();
                assert_ne!(state.active.as_ref(), Some(slot), "removes what serves");
                state.slots.remove(slot);
                Ok(Effect::Done)
            }
        }
    }

    fn put(&mut self, want: &DesiredApp) {
        let (now, ready) = (self.now, !self.fate.never_ready);
        let fresh =
            SimSlot { running: true, ready, ready_since: now, restarts: 0, requests: Requests::default(), pinned: 0 };
        self.apps.get_mut(&want.name).unwrap().slots.entry(want.slot.clone()).or_insert(fresh).running = true;
    }
}

/// A worker on paper, which can be killed anywhere.
#[derive(Debug, Clone)]
pub struct Worker {
    pub epoch: Epoch,
    pub progress: Progress,
    pub recorded: Progress,
    pub end: Option<End>,
    /// Boundaries passed: before and after each record and each effect.
    pub boundaries: usize,
}

/// Thrown where the worker is killed.
#[derive(Debug)]
pub struct Killed;

impl Worker {
    pub fn new(d: &Desired, now: Timestamp) -> Self {
        let progress = Progress::new(d, now);
        Self { epoch: Epoch(1), recorded: progress.clone(), progress, end: None, boundaries: 0 }
    }

    /// Another one takes over what is on disk.
    pub fn restart(&mut self) {
        self.epoch = Epoch(self.epoch.0 + 1);
        // As it comes back from the store.
        self.progress = serde_json::from_str(&serde_json::to_string(&self.recorded).unwrap()).unwrap();
    }

    pub fn ask(&mut self, asked: &Asked, now: Timestamp) {
        self.progress.ask(asked, now);
        self.recorded.asked.merge(asked);
    }

    /// One step. `kill` is asked at each boundary.
    pub fn step(&mut self, d: &Desired, w: &mut World, kill: &mut dyn FnMut(usize) -> bool) -> Result<Step, Killed> {
        let observed = w.observe(self.epoch);
        self.progress.look(d, &observed, w.now);
        let step = next(d, &self.progress, &observed, w.now);
        match &step {
            Step::Go { phase, reason, outcome } => {
                self.boundary(kill)?;
                self.progress.go(*phase, reason.clone(), *outcome, w.now);
                self.record();
                self.boundary(kill)?;
            }
            Step::Alarm(words) => {
                self.progress.alarm = Some(words.clone());
                self.record();
            }
            Step::Act(action) => {
                self.boundary(kill)?;
                self.progress.intend(action, &observed);
                self.record();
                self.boundary(kill)?;
                let effect = w.perform(d, &self.progress, self.epoch, action);
                self.boundary(kill)?;
                self.progress.happened(d, action, effect, w.now);
                self.record();
                self.boundary(kill)?;
            }
            Step::Wait { .. } => {}
            Step::Done(end) => {
                self.boundary(kill)?;
                self.progress.end = Some(end.clone());
                self.record();
                self.boundary(kill)?;
                self.end = Some(end.clone());
            }
        }
        Ok(step)
    }

    fn record(&mut self) {
        self.recorded = self.progress.clone();
    }

    fn boundary(&mut self, kill: &mut dyn FnMut(usize) -> bool) -> Result<(), Killed> {
        self.boundaries += 1;
        if kill(self.boundaries) { Err(Killed) } else { Ok(()) }
    }

    /// On to the end, time passing as it is waited for.
    pub fn finish(&mut self, d: &Desired, w: &mut World, kill: &mut dyn FnMut(usize) -> bool) -> End {
        for _ in 0..2_000 {
            match self.step(d, w, kill) {
                Err(Killed) => self.restart(),
                Ok(Step::Done(end)) => return end,
                Ok(Step::Wait { until, .. }) => {
                    let left = until.map_or(Duration::from_secs(1), |at| {
                        Duration::try_from(at.duration_since(w.now)).unwrap_or_default()
                    });
                    w.pass(left.clamp(Duration::from_millis(1), Duration::from_secs(1)));
                }
                Ok(_) => {}
            }
        }
        panic!("no end in sight: {:?}\n{}", self.progress.phase, w.log.join("\n"));
    }

    pub fn phases(&self) -> String {
        self.progress
            .timeline
            .iter()
            .map(|t: &switchover::domain::rollout::PhaseTime| t.phase.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

pub fn never(_: usize) -> bool {
    false
}

pub fn is_switched(phase: Phase) -> bool {
    matches!(phase, Phase::Converge | Phase::Watch)
}

//! The pure machine under crashes at every boundary, and under any order of events.

use std::time::Duration;

use proptest::prelude::*;
use switchover::domain::{
    config::AppKind,
    ids::{RolloutId, Slot},
    rollout::{Asked, Desired, Ended, Kind, Phase, next},
};

use super::{
    machine::run,
    model::{Fate, Worker, World, desired, is_switched, old, slot, start},
};

fn live(world: &World) -> Vec<String> {
    world
        .apps
        .iter()
        .map(|(n, a)| format!("{n}={}", a.active.as_ref().map_or("-".into(), ToString::to_string)))
        .collect()
}

/// Killed once at each boundary in turn: the end and the world are the same as without.
#[test]
fn a_crash_anywhere_changes_nothing() {
    let mut irreversible = desired();
    irreversible.apps[0].spec.pre_deploy.as_mut().unwrap().reversible = false;
    let plain = desired();
    let fates = [
        (&plain, Fate::default()),
        (&plain, Fate { pre_deploy_fails: true, ..Fate::default() }),
        (&plain, Fate { never_ready: true, ..Fate::default() }),
        (&plain, Fate { smoke_fails: true, ..Fate::default() }),
        (&plain, Fate { dies_when_live: true, ..Fate::default() }),
        (&plain, Fate { pins: true, ..Fate::default() }),
        (&plain, Fate { pins: true, dies_when_live: true, ..Fate::default() }),
        (&irreversible, Fate { dies_when_live: true, ..Fate::default() }),
    ];
    let mut boundaries = 0;
    for (d, fate) in fates {
        let (straight, world) = run(d, fate);
        let expected = (straight.end.clone().unwrap().outcome, live(&world), straight.phases());
        let kept: usize = world.apps.values().map(|a| a.slots.len()).sum();
        for at in 1..=straight.boundaries {
            boundaries += 1;
            let mut world = World::with_previous(d, fate);
            let mut worker = Worker::new(d, world.now);
            let end = worker.finish(d, &mut world, &mut |n| n == at);
            assert_eq!(
                (end.outcome, live(&world), worker.phases()),
                expected,
                "killed at {at}\n{}",
                world.log.join("\n")
            );
            let slots: usize = world.apps.values().map(|a| a.slots.len()).sum();
            assert_eq!(slots, kept, "killed at {at}: slots left behind");
        }
        // And at every other boundary, over and over.
        let mut world = World::with_previous(d, fate);
        let mut worker = Worker::new(d, world.now);
        let end = worker.finish(d, &mut world, &mut |n| n % 11 == 0);
        assert_eq!((end.outcome, live(&world)), (expected.0, expected.1));
    }
    assert!(boundaries > 200, "only {boundaries}");
}

#[derive(Debug, Clone)]
enum Happens {
    Step(u8),
    Pass(u16),
    Kill(u8),
    Away(bool),
    Ask(u8),
    Health { app: u8, new: bool, ready: bool },
    Restart { app: u8, new: bool },
    Errors { app: u8, new: bool, n: u8 },
    Move { app: u8 },
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        8 => (1u8..8).prop_map(Happens::Step),
        3 => (0u16..4000).prop_map(Happens::Pass),
        2 => (1u8..5).prop_map(Happens::Kill),
        1 => any::<bool>().prop_map(Happens::Away),
        1 => (0u8..4).prop_map(Happens::Ask),
        3 => (0u8..3, any::<bool>(), any::<bool>()).prop_map(|(app, new, ready)| Happens::Health { app, new, ready }),
        1 => (0u8..3, any::<bool>()).prop_map(|(app, new)| Happens::Restart { app, new }),
        1 => (0u8..3, any::<bool>(), 1u8..40).prop_map(|(app, new, n)| Happens::Errors { app, new, n }),
        1 => (0u8..30).prop_map(|app| Happens::Move { app }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order, with kills in between: the model's own checks hold (never two active, never
    /// switched to what is not ready and verified, never removed what serves, never a stale hand), nothing is
    /// cancelled past the switch, the way back does not ask the new version, and it ends.
    #[test]
    fn whatever_happens(
        events in prop::collection::vec(happens(), 0..60),
        approval in any::<bool>(),
        first in any::<bool>(),
        rollback in any::<bool>(),
        dies in any::<bool>(),
        pins in any::<bool>(),
    ) {
        let mut d = Desired { approval, ..desired() };
        let fate = Fate { dies_when_live: dies, pins, ..Fate::default() };
        let mut world = if first { World::empty(&d, fate) } else { World::with_previous(&d, fate) };
        if rollback && !first {
            // What is live is what shall be left; the release before is still warm.
            d.kind = Kind::Rollback;
            for a in &d.apps {
                let state = world.apps.get_mut(&a.name).unwrap();
                let mut warm = state.slots[&old(&a.name)].clone();
                warm.running = a.kind == AppKind::Web;
                state.slots.insert(a.slot.clone(), warm);
            }
        }
        let d = d;
        let mut worker = Worker::new(&d, world.now);
        let mut moved = false;
        let mut kill_in: Option<usize> = None;
        for event in events {
            match event {
                Happens::Step(n) => for _ in 0..n {
                    one(&d, &mut worker, &mut world, &mut kill_in);
                },
                Happens::Pass(ms) => world.pass(Duration::from_millis(ms.into())),
                Happens::Kill(n) => kill_in = Some(worker.boundaries + usize::from(n)),
                Happens::Away(away) => world.be_away(away),
                Happens::Ask(what) => {
                    let asked = Asked {
                        promote: what == 0,
                        cancel: what == 1,
                        rollback: what == 2,
                        superseded_by: (what == 3).then(RolloutId::generate),
                    };
                    let now = world.now;
                    worker.ask(&asked, now);
                }
                Happens::Health { app, new, ready } => with(&d, &mut world, app, new, |s, now| {
                    if s.ready != ready { s.ready_since = now; }
                    s.ready = ready;
                }),
                Happens::Restart { app, new } => with(&d, &mut world, app, new, |s, now| {
                    s.restarts += 1;
                    s.ready_since = now;
                }),
                Happens::Errors { app, new, n } => with(&d, &mut world, app, new, |s, _| {
                    s.requests.total += 50;
                    s.requests.server_errors += u64::from(n);
                }),
                Happens::Move { app } => {
                    // Rarely: another hand moves the pointer.
                    if let Some(a) = d.apps.get(usize::from(app)) {
                        let state = world.apps.get_mut(&a.name).unwrap();
                        if state.active.is_some() {
                            moved = true;
                            let foreign = slot("9999999-99999999");
                            state.slots.entry(foreign.clone()).or_insert_with(|| super::model::SimSlot {
                                running: true, ready: true, ready_since: start(), restarts: 0, pinned: 0,
                        requests: Default::default(),
                            });
                            state.active = Some(foreign);
                        }
                    }
                }
            }
        }
        // Calm at last: what is down comes up again, somebody says yes.
        world.be_away(false);
        for state in world.apps.values_mut() {
            for s in state.slots.values_mut() {
                s.ready = true;
            }
        }
        let now = world.now;
        worker.ask(&Asked { promote: true, ..Asked::default() }, now);
        while worker.end.is_none() {
            one(&d, &mut worker, &mut world, &mut kill_in);
            world.pass(Duration::from_millis(500));
            prop_assert!(worker.boundaries < 3_000 && world.now < start() + jiff::SignedDuration::from_hours(3), "no end: {:?} {}", worker.progress.phase, world.log.join("\n"));
        }
        let end = worker.end.clone().unwrap();
        let on_new: Vec<bool> = d.apps.iter().map(|a| world.apps[&a.name].active.as_ref() == Some(&a.slot)).collect();
        match end.outcome {
            Ended::Failed | Ended::Cancelled | Ended::Superseded => {
                prop_assert!(!on_new.iter().any(|n| *n), "{end:?} with a new slot live\n{}", world.log.join("\n"));
            }
            Ended::Live | Ended::Unhealthy if !moved => prop_assert!(on_new.iter().all(|n| *n), "{end:?}"),
            Ended::RolledBack if !moved => {
                for a in &d.apps {
                    let active = &world.apps[&a.name].active;
                    let base = worker.progress.apps[&a.name].base.clone().unwrap().active;
                    prop_assert!(base.is_none() || active == &base, "{end:?}");
                }
            }
            Ended::Stuck if !moved => prop_assert!(
                end.words.contains("does not answer") || end.words.contains("fell back"), "stuck for no reason: {end:?}"
            ),
            _ => {}
        }
    }
}

fn with(
    d: &Desired,
    world: &mut World,
    index: u8,
    new: bool,
    change: impl FnOnce(&mut super::model::SimSlot, jiff::Timestamp),
) {
    let a = &d.apps[usize::from(index)];
    let name: Slot = if new { a.slot.clone() } else { old(&a.name) };
    let now = world.now;
    if let Some(s) = world.apps.get_mut(&a.name).unwrap().slots.get_mut(&name) {
        change(s, now);
    }
}

fn one(d: &Desired, worker: &mut Worker, world: &mut World, kill_in: &mut Option<usize>) {
    if worker.end.is_some() {
        return;
    }
    let was = worker.progress.phase;
    let touched = worker.progress.apps.values().any(|a| a.switched_at.is_some());
    // The way back never asks the new version: whatever its health says, the same comes next.
    if was == Phase::RollingBack {
        let observed = world.observe(worker.epoch);
        let mut sick = observed.clone();
        for a in &d.apps {
            if let Some(s) = sick.apps.get_mut(&a.name).and_then(|x| x.slots.get_mut(&a.slot)) {
                (s.ready, s.ready_since, s.restarts, s.why) = (0, None, 99, None);
            }
        }
        assert_eq!(next(d, &worker.progress, &observed, world.now), next(d, &worker.progress, &sick, world.now));
    }
    let at = *kill_in;
    let killed = worker.step(d, world, &mut |n| Some(n) == at).is_err();
    if killed {
        *kill_in = None;
        worker.restart();
    }
    let now = worker.progress.phase;
    if (touched || is_switched(was)) && !killed {
        assert!(!matches!(now, Phase::Cancelled | Phase::Failed), "{was:?} → {now:?} past the switch");
        assert!(now.past_switch());
    }
}

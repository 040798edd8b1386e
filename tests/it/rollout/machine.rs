//! The pure machine: straight ways, turns, and what must never happen under any order of events.

use std::{collections::BTreeMap, time::Duration};

use switchover::domain::{
    config::AppKind,
    ids::RolloutId,
    rollout::{Action, Asked, Desired, Ended, Kept, Kind, Live, LiveApp, Phase, ProbeWindow, Step, next, retire_due},
};

use super::model::{Fate, Worker, World, app, desired, never, old, slot, start};

pub fn run(d: &Desired, fate: Fate) -> (Worker, World) {
    let mut world = World::with_previous(d, fate);
    let mut worker = Worker::new(d, world.now);
    worker.finish(d, &mut world, &mut never);
    (worker, world)
}

fn told(worker: &Worker) -> String {
    let end = worker.end.clone().unwrap();
    format!(
        "{}\n{} hold={} keep={} {}",
        worker.phases(),
        end.outcome.as_str(),
        end.hold,
        end.keep.map_or(-1, |k| k.len() as i64),
        end.words
    )
}

#[test]
fn the_straight_way() {
    let d = desired();
    let (worker, world) = run(&d, Fate::default());
    insta::assert_snapshot!(told(&worker), @r#"
    prepare warm verify switch converge watch done
    live hold=false keep=3 Live.
    "#);
    insta::assert_snapshot!(world.log.join("\n"), @r#"
    prepare Preflight
    prepare Claim
    prepare PreDeploy { app: AppName("backend") }
    warm PutSlot { app: AppName("backend") }
    warm PutSlot { app: AppName("frontend") }
    verify Smoke { app: AppName("backend") }
    verify Smoke { app: AppName("frontend") }
    switch Switch { app: AppName("backend"), from: Some(Slot("1111111-10e08a41")), to: Slot("2222222-47ce3065") }
    switch Switch { app: AppName("frontend"), from: Some(Slot("1111111-1cf387c0")), to: Slot("2222222-3066f2a0") }
    switch Switch { app: AppName("mailer"), from: Some(Slot("1111111-2e4330b8")), to: Slot("2222222-3fa83b93") }
    "#);
    assert!(d.apps.iter().all(|a| world.apps[&a.name].active.as_ref() == Some(&a.slot)));
    assert!(d.apps.iter().all(|a| world.apps[&a.name].slots.contains_key(&old(&a.name))), "the way back is gone");
    let mailer = &world.apps[&app("mailer")];
    assert!(!mailer.slots[&old(&app("mailer"))].running);
}

#[test]
fn connections_from_before_the_switch_are_ended_after_the_drain() {
    let d = desired();
    let (worker, world) = run(&d, Fate { pins: true, ..Fate::default() });
    insta::assert_snapshot!(told(&worker), @r#"
    prepare warm verify switch converge watch done
    live hold=false keep=3 Live.
    "#);
    let after: Vec<_> =
        world.log.iter().filter(|l| l.starts_with("converge") || l.starts_with("watch")).cloned().collect();
    insta::assert_snapshot!(after.join("\n"), @r#"
    converge Recycle { app: AppName("backend"), slot: Slot("1111111-10e08a41") }
    converge Recycle { app: AppName("backend"), slot: Slot("1111111-10e08a41") }
    converge Recycle { app: AppName("frontend"), slot: Slot("1111111-1cf387c0") }
    converge Recycle { app: AppName("frontend"), slot: Slot("1111111-1cf387c0") }
    watch Finish { app: AppName("backend") }
    watch Finish { app: AppName("frontend") }
    "#);
    // Taken back, nothing of the hand-over is left either.
    let (worker, world) = run(&d, Fate { pins: true, dies_when_live: true, ..Fate::default() });
    assert_eq!(worker.end.unwrap().outcome, switchover::domain::rollout::Ended::RolledBack);
    assert!(world.apps.values().all(|a| !a.handover && !a.behind), "{:?}", world.log);
}

#[test]
fn the_way_back_grows_with_what_serves() {
    let d = desired();
    let (worker, world) = run(&d, Fate { grows: true, ..Fate::default() });
    insta::assert_snapshot!(told(&worker), @r#"
    prepare warm verify switch converge watch done
    live hold=false keep=3 Live.
    "#);
    let grown: Vec<_> = world.log.iter().filter(|l| l.contains("Grow")).cloned().collect();
    insta::assert_snapshot!(grown.join("\n"), @r#"
    watch Grow { app: AppName("backend"), slot: Slot("1111111-10e08a41") }
    watch Grow { app: AppName("frontend"), slot: Slot("1111111-1cf387c0") }
    "#);
}

#[test]
fn the_drain_counts_anew_after_the_target_was_away() {
    let d = desired();
    let mut world = World::with_previous(&d, Fate { pins: true, ..Fate::default() });
    let mut worker = Worker::new(&d, world.now);
    while worker.progress.phase != Phase::Converge {
        if let Ok(Step::Wait { .. }) = worker.step(&d, &mut world, &mut never) {
            world.pass(Duration::from_secs(1));
        }
    }
    world.be_away(true);
    for _ in 0..100 {
        assert!(matches!(worker.step(&d, &mut world, &mut never), Ok(Step::Wait { .. })), "{:?}", world.log);
        world.pass(Duration::from_secs(1));
    }
    world.be_away(false);
    // 20 s until everybody follows, 30 s of drain: whoever was led to the old copies late has that long as well.
    let back = world.now;
    loop {
        match worker.step(&d, &mut world, &mut never) {
            Ok(Step::Wait { .. }) => world.pass(Duration::from_secs(1)),
            step => {
                assert!(matches!(step, Ok(Step::Act(Action::Recycle { .. }))), "{step:?}");
                break;
            }
        }
    }
    assert_eq!(world.now.duration_since(back).as_secs(), 50);
}

#[test]
fn each_fate_has_its_end() {
    let d = desired();
    let fates = [
        ("preflight", Fate { preflight_fails: true, ..Fate::default() }),
        ("pre_deploy", Fate { pre_deploy_fails: true, ..Fate::default() }),
        ("warm", Fate { never_ready: true, ..Fate::default() }),
        ("smoke", Fate { smoke_fails: true, ..Fate::default() }),
        ("watch", Fate { dies_when_live: true, ..Fate::default() }),
    ];
    let mut all = Vec::new();
    for (name, fate) in fates {
        let (worker, world) = run(&d, fate);
        all.push(format!("{name}: {}", told(&worker)));
        for a in &d.apps {
            let state = &world.apps[&a.name];
            assert_eq!(state.active, Some(old(&a.name)), "{name}");
            assert!(state.slots[&old(&a.name)].running, "{name}: the old worker does not run again");
            assert!(!state.slots.contains_key(&a.slot), "{name}: the new slot was left behind");
        }
    }
    insta::assert_snapshot!(all.join("\n\n"), @r#"
    preflight: prepare failed
    failed hold=false keep=-1 no room

    pre_deploy: prepare failed
    failed hold=false keep=-1 backend: pre_deploy failed: exit code

    warm: prepare warm failed
    failed hold=false keep=-1 Not ready within 60 s. backend: copy 1: GET /health answered 503; frontend: copy 1: GET /health answered 503

    smoke: prepare warm verify failed
    failed hold=false keep=-1 backend: the smoke test failed: exit code

    watch: prepare warm verify switch rolling_back rolled_back
    rolled_back hold=false keep=-1 backend: its new slot was restarted 2 times since the switch (copy 1: GET /health answered 503).
    "#);
}

#[test]
fn an_irreversible_pre_deploy_has_no_automatic_way_back() {
    let mut d = desired();
    d.apps[0].spec.pre_deploy.as_mut().unwrap().reversible = false;
    let (worker, world) = run(&d, Fate { dies_when_live: true, ..Fate::default() });
    insta::assert_snapshot!(told(&worker), @r#"
    prepare warm verify switch done
    unhealthy hold=true keep=3 backend: its new slot was restarted 2 times since the switch (copy 1: GET /health answered 503). Its pre_deploy is not reversible, so it is not taken back by itself: roll back by command, or release a mend.
    "#);
    assert_eq!(world.apps[&app("backend")].active, Some(d.apps[0].slot.clone()));
}

#[test]
fn a_first_release_that_does_badly_stays_and_says_so() {
    let d = desired();
    let mut world = World::empty(&d, Fate { dies_when_live: true, ..Fate::default() });
    let mut worker = Worker::new(&d, world.now);
    worker.finish(&d, &mut world, &mut never);
    insta::assert_snapshot!(told(&worker), @r#"
    prepare warm verify switch converge watch done
    unhealthy hold=false keep=0 backend: its new slot was restarted 2 times since the switch (copy 1: GET /health answered 503).
    "#);
}

#[test]
fn the_same_thing_again_touches_nothing() {
    let mut d = desired();
    let (_, mut world) = run(&d, Fate::default());
    world.log.clear();
    world.pass(Duration::from_secs(10));
    // Another commit with the same content and configuration.
    for a in &mut d.apps {
        a.slot = slot(&format!("3333333-{}", switchover::domain::rollout::desired::fingerprint(&a.slot).unwrap()));
    }
    let mut worker = Worker { epoch: switchover::domain::ids::Epoch(9), ..Worker::new(&d, world.now) };
    worker.finish(&d, &mut world, &mut never);
    insta::assert_snapshot!(told(&worker), @r#"
    prepare done
    unchanged hold=false keep=-1 The same thing with the same configuration is live already: nothing to do.
    "#);
    insta::assert_snapshot!(world.log.join("\n"), @r#"
    prepare Preflight
    prepare Claim
    "#);
}

#[test]
fn one_changed_app_leaves_the_others_alone() {
    let mut d = desired();
    let (_, mut world) = run(&d, Fate::default());
    world.log.clear();
    d.apps[1].slot = slot("3333333-cccccccc");
    let mut worker = Worker { epoch: switchover::domain::ids::Epoch(9), ..Worker::new(&d, world.now) };
    worker.finish(&d, &mut world, &mut never);
    insta::assert_snapshot!(told(&worker), @r#"
    prepare warm verify switch converge watch done
    live hold=false keep=1 Live.
    "#);
    insta::assert_snapshot!(world.log.join("\n"), @r#"
    prepare Preflight
    prepare Claim
    warm PutSlot { app: AppName("frontend") }
    verify Smoke { app: AppName("frontend") }
    switch Switch { app: AppName("frontend"), from: Some(Slot("2222222-3066f2a0")), to: Slot("3333333-cccccccc") }
    "#);
}

/// Back to the previous release, from a live one that does not answer at all.
#[test]
fn a_rollback_is_a_pointer_flip() {
    let forward = desired();
    let (_, mut world) = run(&forward, Fate::default());
    for a in &forward.apps {
        let bad = world.apps.get_mut(&a.name).unwrap().slots.get_mut(&a.slot).unwrap();
        bad.ready = false;
    }
    world.log.clear();
    let mut d = Desired { kind: Kind::Rollback, approval: true, ..forward };
    for a in &mut d.apps {
        a.slot = old(&a.name);
    }
    let mut worker = Worker { epoch: switchover::domain::ids::Epoch(9), ..Worker::new(&d, world.now) };
    worker.finish(&d, &mut world, &mut never);
    insta::assert_snapshot!(told(&worker), @r#"
    prepare switch converge done
    live hold=true keep=0 The previous version serves again.
    "#);
    insta::assert_snapshot!(world.log.join("\n"), @r#"
    prepare Preflight
    prepare Claim
    switch Switch { app: AppName("frontend"), from: Some(Slot("2222222-3066f2a0")), to: Slot("1111111-1cf387c0") }
    switch Switch { app: AppName("backend"), from: Some(Slot("2222222-47ce3065")), to: Slot("1111111-10e08a41") }
    switch Switch { app: AppName("mailer"), from: Some(Slot("2222222-3fa83b93")), to: Slot("1111111-2e4330b8") }
    converge RemoveSlot { app: AppName("frontend"), slot: Slot("2222222-3066f2a0") }
    converge RemoveSlot { app: AppName("backend"), slot: Slot("2222222-47ce3065") }
    converge RemoveSlot { app: AppName("mailer"), slot: Slot("2222222-3fa83b93") }
    "#);
    assert_eq!(worker.progress.switched_at(), Some(worker.progress.created_at), "it waited for something");
}

#[test]
fn a_rollback_to_a_slot_that_is_gone_starts_it_again() {
    let forward = desired();
    let (_, mut world) = run(&forward, Fate::default());
    for a in forward.apps.iter().filter(|a| a.kind == AppKind::Web) {
        world.apps.get_mut(&a.name).unwrap().slots.remove(&old(&a.name));
    }
    world.log.clear();
    let mut d = Desired { kind: Kind::Rollback, ..forward };
    for a in &mut d.apps {
        a.slot = old(&a.name);
    }
    let mut worker = Worker { epoch: switchover::domain::ids::Epoch(9), ..Worker::new(&d, world.now) };
    worker.finish(&d, &mut world, &mut never);
    insta::assert_snapshot!(told(&worker), @r#"
    prepare warm switch converge done
    live hold=true keep=0 The previous version serves again.
    "#);
    insta::assert_snapshot!(worker.progress.messages[0].words, @"No longer warm, so it is started again first. frontend: its slot is gone; backend: its slot is gone");
}

#[test]
fn a_person_decides() {
    let cancel = Asked { cancel: true, ..Asked::default() };
    let back = Asked { rollback: true, ..Asked::default() };
    let newer = Asked { superseded_by: Some(RolloutId::generate()), ..Asked::default() };
    // (asked, in which phase, how it ends, whether a pre_deploy ran)
    let cases = [
        (&cancel, Phase::Approve, Ended::Cancelled),
        (&newer, Phase::Approve, Ended::Superseded),
        (&cancel, Phase::Warm, Ended::Cancelled),
        (&newer, Phase::Warm, Ended::Superseded),
        (&back, Phase::Warm, Ended::Cancelled),
        (&cancel, Phase::Switch, Ended::Cancelled),
        (&cancel, Phase::Converge, Ended::Live),
        (&newer, Phase::Converge, Ended::Live),
        (&cancel, Phase::Watch, Ended::Live),
        (&newer, Phase::Watch, Ended::Live),
        (&back, Phase::Converge, Ended::RolledBack),
        (&back, Phase::Watch, Ended::RolledBack),
    ];
    for (asked, phase, expected) in cases {
        let d = Desired { approval: true, ..desired() };
        let mut world = World::with_previous(&d, Fate::default());
        let mut worker = Worker::new(&d, world.now);
        let mut asked_already = false;
        let end = loop {
            if worker.progress.phase == phase && !asked_already {
                asked_already = true;
                worker.ask(asked, world.now);
            }
            if worker.progress.phase == Phase::Approve && phase != Phase::Approve {
                worker.ask(&Asked { promote: true, ..Asked::default() }, world.now);
            }
            match worker.step(&d, &mut world, &mut never) {
                Ok(Step::Done(end)) => break end,
                Ok(Step::Wait { .. }) => world.pass(Duration::from_millis(500)),
                _ => {}
            }
        };
        assert_eq!(end.outcome, expected, "{asked:?} in {phase:?}");
        assert_eq!(end.hold, expected == Ended::RolledBack, "{asked:?} in {phase:?}");
        if phase == Phase::Approve {
            assert!(world.log.is_empty(), "touched before the approval: {:?}", world.log);
        }
        let on_new = world.apps[&app("backend")].active == Some(d.apps[0].slot.clone());
        assert_eq!(on_new, expected == Ended::Live, "{asked:?} in {phase:?}");
        if asked.cancel && expected == Ended::Live {
            assert!(worker.progress.messages.iter().any(|m| m.words.contains("Too late to cancel")));
        }
    }
}

#[test]
fn approval_without_a_pre_deploy_waits_with_the_new_slot_ready() {
    let mut d = Desired { approval: true, ..desired() };
    d.apps[0].spec.pre_deploy = None;
    let mut world = World::with_previous(&d, Fate::default());
    let mut worker = Worker::new(&d, world.now);
    for _ in 0..100 {
        if let Ok(Step::Wait { .. }) = worker.step(&d, &mut world, &mut never) {
            world.pass(Duration::from_secs(1));
        }
    }
    assert_eq!(worker.progress.phase, Phase::Wait);
    // The slot dies while it waits, and comes back.
    let name = app("backend");
    let dead = world.apps.get_mut(&name).unwrap().slots.get_mut(&d.apps[0].slot).unwrap();
    dead.ready = false;
    let _ = worker.step(&d, &mut world, &mut never);
    assert_eq!(worker.progress.phase, Phase::Warm);
    world.apps.get_mut(&name).unwrap().slots.get_mut(&d.apps[0].slot).unwrap().ready = true;
    worker.ask(&Asked { promote: true, ..Asked::default() }, world.now);
    assert_eq!(worker.finish(&d, &mut world, &mut never).outcome, Ended::Live);
}

#[test]
fn what_takes_a_live_release_back() {
    type Spoil = fn(&mut World, &Desired, &mut BTreeMap<switchover::domain::ids::AppName, ProbeWindow>);
    fn new<'a>(w: &'a mut World, d: &Desired) -> &'a mut super::model::SimSlot {
        w.apps.get_mut(&d.apps[0].name).unwrap().slots.get_mut(&d.apps[0].slot).unwrap()
    }
    fn window(sent: u32, failed: u32, blind: bool) -> ProbeWindow {
        ProbeWindow { sent, failed, last: Some("GET /health answered 500".into()), blind }
    }
    let cases: [(&str, Spoil, bool); 11] = [
        ("one lost probe", |_, d, p| drop(p.insert(d.apps[0].name.clone(), window(50, 1, false))), false),
        ("a fifth of the probes", |_, d, p| drop(p.insert(d.apps[0].name.clone(), window(50, 10, false))), false),
        ("half of the probes", |_, d, p| drop(p.insert(d.apps[0].name.clone(), window(50, 25, false))), true),
        ("probes that never worked", |_, d, p| drop(p.insert(d.apps[0].name.clone(), window(50, 50, true))), false),
        ("a restart", |w, d, _| new(w, d).restarts += 1, true),
        (
            "a restart of both",
            |w, d, _| {
                new(w, d).restarts += 1;
                w.apps.get_mut(&d.apps[0].name).unwrap().slots.get_mut(&old(&d.apps[0].name)).unwrap().restarts += 1;
            },
            false,
        ),
        (
            "not ready for a moment",
            |w, d, _| {
                let now = w.now;
                let s = new(w, d);
                (s.ready, s.ready_since) = (false, now);
            },
            false,
        ),
        (
            "not ready for long",
            |w, d, _| {
                let long_ago = start();
                let s = new(w, d);
                (s.ready, s.ready_since) = (false, long_ago);
            },
            true,
        ),
        ("a few errors", |w, d, _| (new(w, d).requests.total, new(w, d).requests.server_errors) = (9, 9), false),
        ("rare errors", |w, d, _| (new(w, d).requests.total, new(w, d).requests.server_errors) = (1000, 20), false),
        ("many errors", |w, d, _| (new(w, d).requests.total, new(w, d).requests.cut) = (100, 20), true),
    ];
    for (name, spoil, taken_back) in cases {
        let d = desired();
        let mut world = World::with_previous(&d, Fate::default());
        let mut worker = Worker::new(&d, world.now);
        while worker.progress.phase != Phase::Watch {
            if let Ok(Step::Wait { .. }) = worker.step(&d, &mut world, &mut never) {
                world.pass(Duration::from_millis(500));
            }
        }
        world.pass(Duration::from_secs(6));
        let mut probes = BTreeMap::new();
        spoil(&mut world, &d, &mut probes);
        let mut observed = world.observe(worker.epoch);
        observed.probes = probes;
        let step = next(&d, &worker.progress, &observed, world.now);
        let back = matches!(&step, Step::Go { phase: Phase::RollingBack, .. });
        assert_eq!(back, taken_back, "{name}: {step:?}");
        // Without a healthy old slot there is nothing to go back to.
        if taken_back {
            let mut sick = observed.clone();
            let o = sick.apps.get_mut(&d.apps[0].name).unwrap().slots.get_mut(&old(&d.apps[0].name)).unwrap();
            (o.ready, o.ready_since) = (0, None);
            let step = next(&d, &worker.progress, &sick, world.now);
            assert!(matches!(step, Step::Alarm(_)), "{name}: {step:?}");
        }
    }
}

#[test]
fn somebody_elses_hand_stops_it() {
    let d = desired();
    let strange = [Some(slot("9999999-99999999")), None];
    for phase in [Phase::Warm, Phase::Verify, Phase::Switch, Phase::Converge, Phase::Watch] {
        for found in &strange {
            let mut world = World::with_previous(&d, Fate::default());
            let mut worker = Worker::new(&d, world.now);
            while worker.progress.phase != phase {
                if let Ok(Step::Wait { .. }) = worker.step(&d, &mut world, &mut never) {
                    world.pass(Duration::from_millis(500));
                }
            }
            world.apps.get_mut(&app("backend")).unwrap().active = found.clone();
            let before = world.log.len();
            let end = worker.finish(&d, &mut world, &mut never);
            assert_eq!(end.outcome, Ended::Stuck);
            assert!(end.hold && end.words.contains("backend"), "{}", end.words);
            assert_eq!(world.log.len(), before, "it went on touching things: {:?}", &world.log[before..]);
        }
    }
}

#[test]
fn slots_that_nobody_needs_are_retired() {
    let now = start();
    let later = now + jiff::SignedDuration::from_secs(60);
    let live = |active: Option<&str>, slots: &[&str]| Live {
        apps: BTreeMap::from([(
            app("web"),
            LiveApp {
                active: active.map(slot),
                slots: slots.iter().map(|s| (slot(s), String::new())).collect(),
                ..LiveApp::default()
            },
        )]),
    };
    let kept = |name: &str, until| Kept { app: app("web"), slot: slot(name), until };
    let due = |live: &Live, keep: &[Kept], used: &[&str]| {
        let in_use = BTreeMap::from([(app("web"), used.iter().map(|s| slot(s)).collect())]);
        retire_due(live, keep, &in_use, now).into_iter().map(|(_, s)| s.to_string()).collect::<Vec<_>>()
    };
    let three = live(Some("c"), &["a", "b", "c"]);
    assert_eq!(due(&three, &[kept("b", later)], &[]), ["a"]);
    assert_eq!(due(&three, &[kept("b", now)], &[]), ["a", "b"]);
    assert_eq!(due(&three, &[kept("b", later)], &["a"]), Vec::<String>::new());
    assert_eq!(due(&live(None, &["a"]), &[], &[]), Vec::<String>::new());
}

//! Releases on one machine, with the real agent and a real app.

use std::{fs, time::Duration};

use switchover::{
    domain::ids::RolloutId,
    domain::rollout::{Asked, Desired, Ended, Kind, Phase, Progress},
    rollout::{DriveEnd, DriveError, Target as _, drive},
};
use tokio_util::sync::CancellationToken;

use super::{
    model::app,
    stage::{DEADLINE, Stage, Users, Version, pre_deploy, smoke},
};
use crate::agent::get;

fn told(progress: &Progress) -> String {
    progress.messages.iter().map(|m| m.words.clone()).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_release_and_a_rollback_under_requests_lose_none() {
    let stage = Stage::new().await;
    let one = stage.desired(&Version::new("one"));
    let (end, progress) = stage.release(&one).await;
    assert_eq!(end.outcome, Ended::Live, "{}", told(&progress));
    assert_eq!(progress.prober.failed, 0, "{:?}", progress.prober);
    let address = stage.address().await;
    assert_eq!(get(address, "/").await, (200, "one".into()));

    let users = Users::ask(address);
    let two = stage.desired(&Version::new("two"));
    let (end, progress) = stage.release(&two).await;
    assert_eq!(end.outcome, Ended::Live, "{}", told(&progress));
    let kept: Vec<_> = end.keep.unwrap().into_iter().map(|k| k.slot).collect();
    assert_eq!(kept, [one.apps[0].slot.clone(), one.apps[1].slot.clone()]);
    let figures = &progress.prober;
    assert_eq!(figures.failed, 0, "{figures:?}");
    assert!(figures.sent > 50 && figures.fresh > 10, "{figures:?}");
    assert!(figures.before.count() > 10 && figures.after.count() > 10, "{figures:?}");
    assert!(progress.app(&app("web")).traffic.total > 20, "{progress:?}");
    assert_eq!(get(address, "/").await, (200, "two".into()));
    let status = stage.status("web").await;
    assert!(status.slots[one.apps[0].slot.as_str()].instances.iter().all(|i| i.pid.is_some()), "the way back is cold");
    let mailer = stage.status("mailer").await;
    let running: Vec<_> = mailer.slots.iter().filter(|(_, s)| s.instances.iter().any(|i| i.pid.is_some())).collect();
    assert_eq!(running.len(), 1);
    assert_eq!(running[0].0, two.apps[1].slot.as_str());

    let back = Desired { kind: Kind::Rollback, rollout: RolloutId::generate(), ..one.clone() };
    let (end, progress) = stage.release(&back).await;
    assert_eq!((end.outcome, end.hold), (Ended::Live, true), "{}", told(&progress));
    let took = progress.switched_at().unwrap().duration_since(progress.created_at);
    assert!(took < jiff::SignedDuration::from_secs(20), "{took}");
    println!(
        "rollback: pointer moved after {took:#}, last answer of the bad version {:?} ms after",
        progress.prober.last_old_ms
    );
    assert_eq!(get(address, "/").await, (200, "one".into()));
    assert!(!stage.status("web").await.slots.contains_key(two.apps[0].slot.as_str()), "the bad slot still runs");

    let (sent, lost) = users.leave().await;
    println!("users: {} lost of {sent}; probes: {}", lost.len(), figures.words());
    assert!(sent > 100 && lost.is_empty(), "{} of {sent}: {lost:#?}", lost.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_bad_release_is_taken_back_by_the_watch() {
    let stage = Stage::new().await;
    let one = stage.desired(&Version::new("one"));
    stage.release(&one).await;
    let mut bad = stage.desired(&Version { env: &[("BAD", "1")], ..Version::new("bad") });
    bad.watch_for = Duration::from_secs(60);
    let (end, progress) = stage.release(&bad).await;
    assert_eq!((end.outcome, end.hold), (Ended::RolledBack, false), "{}", told(&progress));
    // Probes and real requests tell the same; whichever is seen first.
    let words = ["probes failed (GET /probe answered 500)", "requests went wrong"];
    assert!(words.iter().any(|w| end.words.contains(w)), "{}", end.words);
    assert!(progress.back_at().is_some());
    assert!(progress.prober.failed >= 10 && progress.prober.failures.len() == 5, "{:?}", progress.prober);
    for (index, name) in ["web", "mailer"].into_iter().enumerate() {
        let status = stage.status(name).await;
        assert_eq!(status.active.as_deref(), Some(one.apps[index].slot.as_str()));
        assert_eq!(status.slots.len(), 1, "{name}: the bad slot is still there");
        assert!(status.slots.values().all(|s| s.instances.iter().all(|i| i.pid.is_some())), "{name}");
    }
    assert_eq!(get(stage.address().await, "/").await, (200, "one".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_fails_before_the_switch_says_why_and_leaves_nothing() {
    let stage = Stage::new().await;
    let one = stage.desired(&Version::new("one"));
    stage.release(&one).await;
    type Spoil = fn(&mut Desired);
    let cases: [(&str, Spoil, &[&str]); 7] = [
        (
            "exits",
            |d| drop(d.apps[0].spec.env.insert("EXIT_AT_START".into(), "3".into())),
            &["does not stay up", "exit code 3", "no database"],
        ),
        (
            "no such program",
            |d| d.apps[0].spec.start = Some("./nothing-here".into()),
            &["does not stay up", "nothing-here"],
        ),
        (
            "not healthy",
            |d| {
                d.apps[0].spec.health = Some("/status/503".into());
                d.start_timeout = Duration::from_secs(4);
            },
            &["Not ready within", "GET /status/503 answered 503"],
        ),
        (
            "smoke",
            |d| d.apps[0].spec.smoke = smoke("echo at $URL with $TOKEN; exit 4"),
            &["smoke test failed", "exit code 4"],
        ),
        (
            "pre_deploy",
            |d| d.apps[0].spec.pre_deploy = pre_deploy("cat version.txt; exit 5", true),
            &["pre_deploy failed", "exit code 5"],
        ),
        ("secret", |d| d.apps[0].spec.secrets.push("MISSING".into()), &["secret MISSING is not granted"]),
        ("no start", |d| d.apps[0].spec.start = None, &["no start command"]),
    ];
    for (name, spoil, words) in cases {
        let mut d = stage.desired(&Version::new(name));
        spoil(&mut d);
        let (end, progress) = stage.release(&d).await;
        assert_eq!(end.outcome, Ended::Failed, "{name}: {}", end.words);
        for word in words {
            assert!(end.words.contains(word), "{name}: {}", end.words);
        }
        let text = serde_json::to_string(&progress).unwrap();
        assert!(!text.contains("hunter2"), "{name}: a secret is told");
        if name == "smoke" {
            let tail = progress.app(&app("web")).smoke.unwrap().tail.join("\n");
            assert!(tail.contains("at http://127.0.0.1:") && tail.contains("with ***"), "{tail}");
        }
        let status = stage.status("web").await;
        assert_eq!(status.active.as_deref(), Some(one.apps[0].slot.as_str()), "{name}");
        assert_eq!(status.slots.len(), 1, "{name}: a slot was left behind");
    }
    // A release that was changed on disk does not start.
    let d = stage.desired(&Version::new("tampered"));
    let place = switchover::rollout::local::releases::place(&stage.root().join("releases"), &d.apps[0].digest);
    fs::remove_file(place.join("version.txt")).unwrap();
    let (end, _) = stage.release(&d).await;
    assert!(end.outcome == Ended::Failed && end.words.contains("version.txt differs"), "{}", end.words);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pre_deploy_runs_once_in_the_new_release_before_its_slot() {
    let stage = Stage::new().await;
    let mut one = stage.desired(&Version::new("one"));
    let out = stage.root().join("migrated");
    one.apps[0].spec.pre_deploy =
        pre_deploy(&format!("echo \"$(cat version.txt) $SWITCHOVER_ENVIRONMENT $TOKEN\" >> {}", out.display()), true);
    let (end, progress) = stage.release(&one).await;
    assert_eq!(end.outcome, Ended::Live, "{}", told(&progress));
    assert_eq!(fs::read_to_string(&out).unwrap(), "one production hunter2-hunter2\n");
    // The same again: nothing to do, nothing run.
    let again = Desired { rollout: RolloutId::generate(), ..one };
    let (end, _) = stage.release(&again).await;
    assert_eq!(end.outcome, Ended::Unchanged);
    assert_eq!(fs::read_to_string(&out).unwrap().lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_agent_killed_during_the_watch_is_waited_for() {
    let mut stage = Stage::new().await;
    stage.release(&stage.desired(&Version::new("one"))).await;
    let mut two = stage.desired(&Version::new("two"));
    two.watch_for = Duration::from_secs(2);
    let journal = stage.journal(&two);
    let target = stage.target();
    let progress = Progress::new(&two, switchover::clock::now());
    let shutdown = CancellationToken::new();
    let mut driven = std::pin::pin!(drive(&two, progress, &target, &journal, shutdown));
    let until_watch = async {
        while journal.progress().is_none_or(|p| p.phase != Phase::Watch) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        end = &mut driven => panic!("{end:?}"),
        () = until_watch => {}
    }
    stage.host.kill();
    let revive = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        stage.host.start().await;
    };
    let (end, ()) = tokio::join!(tokio::time::timeout(DEADLINE, &mut driven), revive);
    match end.expect("no end").unwrap() {
        DriveEnd::Ended(end, progress) => assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn wishes_reach_a_rollout_under_way() {
    let stage = Stage::new().await;
    stage.release(&stage.desired(&Version::new("one"))).await;
    // A cancellation ends a smoke test that hangs, at once.
    let mut hangs = stage.desired(&Version::new("hangs"));
    hangs.apps[0].spec.smoke = smoke("touch started; sleep 1000");
    let journal = stage.journal(&hangs);
    let cancel = async {
        while journal.progress().is_none_or(|p| p.phase != Phase::Verify || p.intent.is_none()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        journal.asked.send_modify(|a| a.cancel = true);
    };
    let (end, ()) = tokio::join!(stage.go_on(&hangs, &journal), cancel);
    assert_eq!(end.unwrap().0.outcome, Ended::Cancelled);

    // An approval wakes a waiting one; a shutdown hands it back before that.
    let mut waits = stage.desired(&Version::new("waits"));
    waits.approval = true;
    let journal = stage.journal(&waits);
    let shutdown = CancellationToken::new();
    let target = stage.target();
    let progress = Progress::new(&waits, switchover::clock::now());
    let stop = async {
        while journal.progress().is_none_or(|p| p.phase != Phase::Wait) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        shutdown.cancel();
    };
    let (end, ()) = tokio::join!(drive(&waits, progress, &target, &journal, shutdown.clone()), stop);
    assert!(matches!(end.unwrap(), DriveEnd::HandedBack(_)));
    let journal = super::stage::FileJournal::new(journal.file.clone(), stage.next_epoch());
    let promote = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        journal.asked.send_modify(|a| *a = Asked { promote: true, ..Asked::default() });
    };
    let (end, ()) = tokio::join!(stage.go_on(&waits, &journal), promote);
    assert_eq!(end.unwrap().0.outcome, Ended::Live);

    // A worker that a later one overtook does nothing more.
    let three = stage.desired(&Version::new("three"));
    let stale = super::stage::FileJournal::new(stage.root().join("stale.json"), 1);
    assert!(matches!(stage.go_on(&three, &stale).await, Err(DriveError::Fenced(_))));
    assert_eq!(get(stage.address().await, "/").await, (200, "waits".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_live_is_read_from_the_agent_and_old_slots_are_retired() {
    let stage = Stage::new().await;
    let one = stage.desired(&Version::new("one"));
    stage.release(&one).await;
    let two = stage.desired(&Version::new("two"));
    stage.release(&two).await;
    let target = stage.target();
    let live = target.live(&one.key).await.unwrap();
    let web = &live.apps[&app("web")];
    assert_eq!(web.active.as_ref(), Some(&two.apps[0].slot));
    assert_eq!(web.slots[&one.apps[0].slot], "2 of 2 running");
    assert_eq!(live.apps[&app("mailer")].slots[&one.apps[1].slot], "stopped");
    assert!(web.address.as_ref().unwrap().starts_with("http://127.0.0.1:"));
    let epoch = switchover::domain::ids::Epoch(stage.next_epoch());
    let due = switchover::domain::rollout::retire_due(&live, &[], &Default::default(), switchover::clock::now());
    assert_eq!(due.len(), 2);
    for (name, slot) in &due {
        target.retire(&one.key, epoch, name, slot).await.unwrap();
        // Again, as after a crash.
        target.retire(&one.key, epoch, name, slot).await.unwrap();
    }
    let live = target.live(&one.key).await.unwrap();
    assert!(live.apps.values().all(|a| a.slots.len() == 1));
    assert!(target.retire(&one.key, epoch, &app("web"), &two.apps[0].slot).await.is_err(), "the live one was retired");

    // The way back when its slot is gone: started again, then switched.
    let back = Desired { kind: Kind::Rollback, rollout: RolloutId::generate(), ..one };
    let (end, progress) = stage.release(&back).await;
    assert_eq!((end.outcome, end.hold), (Ended::Live, true), "{}", told(&progress));
    assert!(told(&progress).contains("No longer warm"), "{}", told(&progress));
    assert_eq!(get(stage.address().await, "/").await, (200, "one".into()));
}

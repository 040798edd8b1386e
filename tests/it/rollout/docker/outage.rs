//! The engine goes away and comes back, in every phase.

use std::{sync::OnceLock, time::Duration};

use switchover::{
    domain::rollout::{Ended, Phase, Progress},
    rollout::{DriveEnd, Target as _, drive},
};
use tokio_util::sync::CancellationToken;

use super::{Dock, Rig, Version, told};
use crate::{agent::get, rollout::stage::DEADLINE};

/// An engine that may be stopped: not the one that others use.
fn own() -> &'static Rig {
    static RIG: OnceLock<Rig> = OnceLock::new();
    RIG.get_or_init(|| Rig::start(&tempfile::tempdir().unwrap().keep()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_engine_stopped_and_started_in_each_phase() {
    let rig = own();
    let mut dock = Dock::on(rig).await;
    let first = dock.desired(&Version::new("first"));
    let (end, progress) = dock.release(&first).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let address = dock.address().await;
    let mut before = first;
    for phase in [Phase::Prepare, Phase::Warm, Phase::Verify, Phase::Switch, Phase::Converge, Phase::Watch] {
        let name = phase.as_str();
        let mut d = dock.desired(&Version::new(name));
        d.watch_for = Duration::from_secs(3);
        let journal = dock.journal(&d);
        let target = dock.target();
        let progress = Progress::new(&d, switchover::clock::now());
        let driven = drive(&d, progress, &target, &journal, CancellationToken::new());
        let outage = async {
            journal.reaches(phase).await;
            tokio::task::spawn_blocking(|| rig.turn("down")).await.unwrap();
            let seen = target.observe(&d, switchover::domain::ids::Epoch(1)).await;
            assert!(seen.unreachable.as_ref().is_some_and(|w| w.contains("Docker engine")), "{name}: {seen:?}");
            tokio::task::spawn_blocking(|| rig.turn("up")).await.unwrap();
        };
        let (end, ()) = tokio::join!(tokio::time::timeout(DEADLINE, driven), outage);
        let DriveEnd::Ended(end, progress) =
            end.unwrap_or_else(|_| panic!("{name}: no end: {:#?}", journal.progress())).unwrap()
        else {
            panic!("{name}: handed back")
        };
        println!("{name}: {:?} {}", end.outcome, end.words);
        // Either it went through, or what was live still is; and that serves again.
        let live = dock.status("web").await.active;
        let wanted = match end.outcome {
            Ended::Live => &d,
            Ended::Failed | Ended::RolledBack => &before,
            other => panic!("{name}: {other:?}: {} {}", end.words, told(&progress)),
        };
        assert_eq!(live.as_deref(), Some(wanted.apps[0].slot.as_str()), "{name}: {}", end.words);
        let serves = async {
            while get(address, "/").await.0 != 200 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(DEADLINE, serves).await.unwrap_or_else(|_| panic!("{name}: nobody serves"));
        assert_eq!(dock.containers(&["--filter", "label=dev.switchover.app=mailer"]).len(), 1, "{name}");
        if end.outcome == Ended::Live {
            before = d;
        }
    }
    // A reboot of the host, with no server to help.
    dock.host.kill();
    tokio::task::spawn_blocking(|| rig.turn("down")).await.unwrap();
    tokio::task::spawn_blocking(|| rig.turn("up")).await.unwrap();
    dock.host.start().await;
    let serves = async {
        while get(address, "/").await != (200, before.apps[0].spec.env["RELEASE"].clone()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, serves).await.expect("nobody serves after the reboot");
    let neighbour = get(address, "/ask?web:8080").await;
    assert_eq!(neighbour, (200, before.apps[0].spec.env["RELEASE"].clone()), "its name leads nowhere");
    let mailers = dock.containers(&["--filter", "label=dev.switchover.app=mailer"]);
    assert!(mailers.len() == 1 && mailers[0].contains(before.apps[1].slot.as_str()), "{mailers:?}");
}

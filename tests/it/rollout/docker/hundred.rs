//! A hundred releases and rollbacks in a row: minutes, so only by name (`cargo test hundred -- --ignored`).

use std::time::Instant;

use switchover::domain::{
    ids::RolloutId,
    rollout::{Desired, Ended, Kind},
};

use super::{Dock, Version, told};
use crate::rollout::stage::Users;

const TURNS: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes minutes; nothing of it is untested otherwise"]
async fn a_hundred_releases_and_rollbacks_under_requests_lose_none() {
    let dock = Dock::new().await;
    let one = dock.desired(&Version::new("one"));
    let (end, progress) = dock.release(&one).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let (containers, networks) = (dock.containers(&["-a"]), dock.cli(&["network", "ls", "-q"]));
    let users = Users::ask(dock.address().await);
    let begun = Instant::now();
    let (mut probes, mut flips) = (0, Vec::new());
    for turn in 0..TURNS {
        let two = dock.desired(&Version::new("two"));
        let (end, progress) = dock.release(&two).await;
        assert_eq!(end.outcome, Ended::Live, "{turn}: {} {}", end.words, told(&progress));
        assert_eq!(progress.prober.failed, 0, "{turn}: {:?}", progress.prober);
        probes += progress.prober.sent;
        flips.extend(progress.prober.last_old_ms);
        let back = Desired { kind: Kind::Rollback, rollout: RolloutId::generate(), ..one.clone() };
        let (end, progress) = dock.release(&back).await;
        assert_eq!(end.outcome, Ended::Live, "{turn}: {} {}", end.words, told(&progress));
        assert_eq!(progress.prober.failed, 0, "{turn}: {:?}", progress.prober);
        probes += progress.prober.sent;
        flips.extend(progress.prober.last_old_ms);
    }
    let took = begun.elapsed();
    let (sent, lost) = users.leave().await;
    flips.sort_unstable();
    println!(
        "{} changes in {took:.0?}: {} of {sent} requests lost; {probes} probes; last answer of the version before, median \
         {:?} ms after the flip, at most {:?}",
        TURNS * 2,
        lost.len(),
        flips.get(flips.len() / 2),
        flips.last()
    );
    assert!(lost.is_empty(), "{lost:#?}");
    // The engine holds what it held after the first release, and nothing more.
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(sorted(dock.containers(&["-a"])), sorted(containers));
    assert_eq!(dock.cli(&["network", "ls", "-q"]).lines().count(), networks.lines().count());
}

//! A hand-written pair released and taken back again and again, under requests from a node whose proxy follows at once and
//! from one whose proxy follows seconds later.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use switchover::{domain::rollout::Ended, rollout::kubernetes::SETTLE};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{Bench, POLITE, back_to, desired, pair, told};
use crate::{agent::get, cluster::rig::Net, rollout::stage::Users};

/// When each version was seen last, on fresh connections.
#[derive(Clone, Default)]
pub(super) struct Seen(Arc<Mutex<HashMap<String, Instant>>>);

impl Seen {
    pub(super) fn look(&self, address: SocketAddr) -> JoinHandle<()> {
        let seen = self.clone();
        tokio::spawn(async move {
            loop {
                let (_, version) = get(address, "/").await;
                seen.0.lock().unwrap().insert(version, Instant::now());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    }

    pub(super) fn last(&self, version: &str) -> Option<Instant> {
        self.0.lock().unwrap().get(version).copied()
    }
}

/// The same from another network, on a thread of its own.
fn far(
    net: &'static Net,
    address: SocketAddr,
    seen: Seen,
) -> (oneshot::Sender<()>, std::thread::JoinHandle<(u64, Vec<String>)>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        net.run(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(async {
                let (users, look) = (Users::ask(address), seen.look(address));
                let _ = stopped.await;
                look.abort();
                users.leave().await
            })
        })
    });
    (stop, thread)
}

fn told_times(what: &str, mut times: Vec<Duration>) -> Duration {
    times.sort();
    let most = *times.last().unwrap();
    println!("{what}: p50 {:?}, max {most:?} of {}", times[times.len() / 2], times.len());
    most
}

/// `SWITCHOVER_TEST_ROUNDS` says how often; more than once is for a person's eyes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn releases_and_rollbacks_of_a_pair_seen_from_two_nodes() {
    let test = "releases_and_rollbacks_of_a_pair_seen_from_two_nodes";
    let Some(bench) = Bench::new(test).await else { return };
    let cluster = bench.ns.cluster;
    let Some(slow) = cluster.slow_node(test) else { return };
    let rounds: usize = std::env::var("SWITCHOVER_TEST_ROUNDS").map_or(1, |n| n.parse().unwrap());
    let bench = Bench { settle: SETTLE, ..bench };
    let images = ["zero", "one", "two"].map(|v| cluster.push_app("pair/there", v, POLITE));
    bench.ns.apply(&pair::pair(&images[0].exact()));
    bench.ns.rolled_out("shop-blue");
    let address = bench.address("shop");
    let one = desired("one", vec![pair::wanted(&images[1])]);
    let (end, progress) = bench.release(&one).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let (near_seen, far_seen) = (Seen::default(), Seen::default());
    let (users, look) = (Users::ask(address), near_seen.look(address));
    let (stop, thread) = far(slow, address, far_seen.clone());
    let (mut near, mut far, mut live, mut flips) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let begun = Instant::now();
        let two = desired("two", vec![pair::wanted(&images[2])]);
        let (end, progress) = bench.release(&two).await;
        assert_eq!(end.outcome, Ended::Live, "{round}: {} {}", end.words, told(&progress));
        live.push(near_seen.last("one").unwrap().duration_since(begun));
        // Nobody asks for the way back in the second after a release: by then the proxies are at rest.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (begun, asked) = (Instant::now(), switchover::clock::now());
        let (end, progress) = bench.release(&back_to(&one)).await;
        assert_eq!(end.outcome, Ended::Live, "{round}: {} {}", end.words, told(&progress));
        // Straight to the flip: whatever is made or changed before it has the nodes' proxies hold it back.
        let phases: Vec<_> = progress.timeline.iter().map(|p| p.phase.as_str()).collect();
        assert_eq!(phases, ["prepare", "switch", "converge", "done"], "{}", told(&progress));
        flips.push(progress.switched_at().unwrap().duration_since(asked).unsigned_abs());
        near.push(near_seen.last("two").unwrap().duration_since(begun));
        far.push(far_seen.last("two").unwrap().duration_since(begun));
    }
    look.abort();
    let _ = stop.send(());
    let (sent, lost) = users.leave().await;
    let (far_sent, far_lost) = tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
    println!("here: {} lost of {sent}; from the slow node: {} lost of {far_sent}", lost.len(), far_lost.len());
    told_times("begin of the release to the last answer of the old version", live);
    told_times("way back, to the flip", flips);
    told_times("way back", near);
    told_times("way back, seen from the slow node", far);
    assert!(sent > 1000 && lost.is_empty(), "{} of {sent}: {lost:#?}", lost.len());
    assert!(far_sent > 100 && far_lost.is_empty(), "{} of {far_sent}: {far_lost:#?}", far_lost.len());
}

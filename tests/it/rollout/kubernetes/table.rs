//! A release under the load that other tools were measured with: two replicas, two seconds to start, and each second 200
//! requests on fresh connections, 200 on kept ones, 200 with a body, 20 that take two seconds (the last two fresh as well).

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use switchover::{domain::rollout::Ended, rollout::kubernetes::SETTLE};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Bench, Wanted, answers, back_to, desired, there_and_back::Seen, told};
use crate::rollout::stage::DEADLINE;

/// Requests that begin at their time, whether those before have ended or not.
#[derive(Clone, Default)]
struct Load {
    stop: CancellationToken,
    sent: Arc<AtomicU64>,
    lost: Arc<Mutex<Vec<String>>>,
    tasks: TaskTracker,
}

impl Load {
    fn begin(address: SocketAddr) -> Self {
        let load = Self::default();
        for (kept, path, body, a_second) in [
            (false, "/", false, 200),
            (true, "/", false, 200),
            (false, "/length", true, 200),
            (false, "/slow?ms=2000", false, 20),
        ] {
            load.tasks.spawn(load.clone().keep_asking(kept, format!("http://{address}{path}"), body, a_second));
        }
        load
    }

    async fn keep_asking(self, kept: bool, url: String, body: bool, a_second: u32) {
        let idle = if kept { 64 } else { 0 };
        let client =
            reqwest::Client::builder().no_proxy().pool_max_idle_per_host(idle).timeout(DEADLINE).build().unwrap();
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / a_second);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let request = if body { client.post(&url).body(vec![7; 2_000]) } else { client.get(&url) };
            let (load, url) = (self.clone(), url.clone());
            self.tasks.spawn(async move {
                load.sent.fetch_add(1, Ordering::Relaxed);
                let answer = async { request.send().await?.error_for_status()?.bytes().await };
                if let Err(e) = answer.await {
                    load.lost.lock().unwrap().push(format!("{} kept {kept} {url}: {e:?}", switchover::clock::now()));
                }
            });
        }
    }

    async fn end(self) -> (u64, Vec<String>) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let lost = self.lost.lock().unwrap().clone();
        (self.sent.load(Ordering::Relaxed), lost)
    }
}

/// Until the old version has answered a fresh connection for the last time.
fn gone(seen: &Seen, old: &str, since: Instant) -> Duration {
    seen.last(old).map_or(Duration::ZERO, |last| last.saturating_duration_since(since))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "a measurement for a person's eyes, by name"]
async fn beside_the_scripts_and_argo() {
    let Some(bench) = Bench::new("beside_the_scripts_and_argo").await else { return };
    let bench = Bench { settle: SETTLE, ..bench };
    let cluster = bench.ns.cluster;
    // One that closes its kept connections without a word loses what is on its way on them, whoever ends it.
    for (how, lossless) in [("polite", true), ("graceful", false), ("abrupt", false)] {
        let name = format!("table/{how}");
        let env = [("START_DELAY", "2000"), ("ON_TERM", how)];
        let images = ["one", "two"].map(|v| cluster.push_app(&name, &format!("{v}-{how}"), &env));
        let first = desired(&format!("one-{how}"), vec![Wanted::web(&images[0])]);
        let (end, progress) = bench.release(&first).await;
        assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
        let (old, new) = (format!("one-{how}"), format!("two-{how}"));
        let address = bench.address("web");
        answers(address, &old);
        let (load, seen) = (Load::begin(address), Seen::default());
        let look = seen.look(address);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let begun = Instant::now();
        let asked = switchover::clock::now();
        let (end, progress) = bench.release(&desired(&new, vec![Wanted::web(&images[1])])).await;
        assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
        let flip = progress.switched_at().unwrap().duration_since(asked);
        let live = gone(&seen, &old, begun);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let begun = Instant::now();
        let (end, progress) = bench.release(&back_to(&first)).await;
        assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
        let back = gone(&seen, &new, begun);
        look.abort();
        let (sent, lost) = load.end().await;
        println!(
            "{how}: {} lost of {sent}; flip {} ms after the release began, the last fresh connection on the old version after \
             {live:?}; way back {back:?}",
            lost.len(),
            flip.as_millis()
        );
        assert!(!lossless || lost.is_empty(), "{how}: {} of {sent}: {lost:#?}", lost.len());
    }
}

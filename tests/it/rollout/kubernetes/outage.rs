//! The API server away in phases of a release: nobody who asks the app notices, and the release ends as if it had been
//! there, only later.

use std::time::{Duration, Instant};

use switchover::domain::rollout::{Ended, Phase};

use super::{Bench, POLITE, Wanted, back_to, desired, told};
use crate::{
    agent::get,
    cluster::rig::Cluster,
    rollout::stage::{DEADLINE, Users, pre_deploy},
};

/// So long it is away.
const AWAY: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes minutes, most of them until the cluster's own controllers act again after an outage"]
async fn the_api_server_away_in_a_phase() {
    let Some(cluster) = Cluster::own("the_api_server_away_in_a_phase") else { return };
    // It stays for as long as the test; a namespace wants it for ever.
    let cluster: &'static Cluster = Box::leak(Box::new(cluster));
    let _end = Ends(cluster);
    let bench = Bench::on(cluster.namespace("outage"), cluster.kubeconfig()).await;
    // After an outage the cluster's own controllers may take a minute until they act again.
    let bench = Bench { patience: 2 * DEADLINE, settle: Duration::from_secs(3), ..bench };
    let version = |name: &str| {
        let image = cluster.push_app("outage/web", name, POLITE);
        let mut d = desired(name, vec![Wanted::web(&image)]);
        d.apps[0].spec.pre_deploy = pre_deploy("sleep 1", true);
        d.watch_for = Duration::from_secs(2);
        d.start_timeout = DEADLINE;
        d
    };
    let mut before = version("zero");
    let mut serves = "zero".to_owned();
    let (end, progress) = bench.release(&before).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let address = bench.address("web");
    let users = Users::ask(address);
    let mut phases = vec![(Phase::Warm, "hangs"), (Phase::Switch, "stopped"), (Phase::Watch, "stopped")];
    // The cluster's own controllers come back slowly: all of it is for a person who has ten minutes.
    if std::env::var_os("SWITCHOVER_TEST_ALL").is_some() {
        phases.extend([(Phase::Prepare, "stopped"), (Phase::Converge, "hangs")]);
    }
    for (phase, how) in phases {
        let name = format!("{}-{how}", phase.as_str());
        let d = version(&name);
        let journal = bench.journal(&d);
        let begun = Instant::now();
        let outage = async {
            journal.reaches(phase).await;
            tokio::task::block_in_place(|| match how {
                "stopped" => cluster.stop_api(),
                _ => cluster.pause_api(),
            });
            tokio::time::sleep(AWAY).await;
            assert!(journal.progress().is_some_and(|p| p.end.is_none()), "{name}: it ended without the API server");
            tokio::task::block_in_place(|| match how {
                "stopped" => cluster.start_api(),
                _ => cluster.resume_api(),
            });
        };
        let (ended, ()) = tokio::join!(bench.go_on(&d, &journal), outage);
        let (end, progress) = ended.unwrap();
        println!("{name}: {:?} after {:?}", end.outcome, begun.elapsed());
        assert_eq!(end.outcome, Ended::Live, "{name}: {} {}", end.words, told(&progress));
        assert_eq!(get(address, "/").await, (200, name.clone()));
        (before, serves) = (d, name);
    }
    // The way back waits for it, and then takes place.
    let back = back_to(&before);
    let (end, progress) = bench.release(&version("last")).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let outage = async {
        tokio::task::block_in_place(|| cluster.stop_api());
        tokio::time::sleep(AWAY).await;
        tokio::task::block_in_place(|| cluster.start_api());
    };
    let ((end, progress), ()) = tokio::join!(bench.release(&back), outage);
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    assert_eq!(get(address, "/").await, (200, serves));
    let (sent, lost) = users.leave().await;
    println!("users: {} lost of {sent}", lost.len());
    assert!(sent > 1000 && lost.is_empty(), "{} of {sent}: {lost:#?}", lost.len());
}

/// Ends a cluster that was leaked to live as long as what watches it.
pub(super) struct Ends(pub(super) &'static Cluster);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.end();
    }
}

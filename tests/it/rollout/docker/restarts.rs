//! Containers, engine and host start anew: everybody is found where they were.

use std::time::Duration;

use switchover::{domain::rollout::Ended, rollout::docker::follow};
use tokio_util::sync::CancellationToken;

use super::{Dock, Version, told};
use crate::{
    agent::get,
    rollout::stage::{DEADLINE, Users},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_container_that_restarts_keeps_its_address_and_its_users() {
    let dock = Dock::new().await;
    let (end, progress) = dock.release(&dock.desired(&Version::new("one"))).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let before = dock.status("web").await;
    let address = before.listen.unwrap();
    let users = Users::ask(address);
    let copies = dock.containers(&["--filter", "label=dev.switchover.app=web"]);
    // One after the other, as an operator would; those under way on the one that goes may be lost, and no others.
    for name in &copies {
        dock.cli(&["restart", "-t", "0", name]);
    }
    let (_, lost) = users.leave().await;
    assert!(lost.len() <= 2 * 4, "{lost:#?}");
    let sources = |status: switchover::agent::protocol::ServiceStatus| {
        status.slots.into_values().map(|slot| slot.source).collect::<Vec<_>>()
    };
    assert_eq!(sources(dock.status("web").await), sources(before));
    assert_eq!(get(address, "/").await, (200, "one".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_container_on_another_address_is_followed() {
    let dock = Dock::new().await;
    let mut one = dock.desired(&Version::new("one"));
    one.apps[0].spec.replicas = 1;
    let (end, progress) = dock.release(&one).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let address = dock.address().await;
    let stop = CancellationToken::new();
    let docker = dock.docker.clone();
    let following = tokio::spawn(follow(dock.host.client.clone(), docker, stop.clone()));
    let copy = dock.containers(&["--filter", "label=dev.switchover.app=web"])[0].clone();
    let format = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}";
    let network = dock.cli(&["inspect", "-f", format, &copy]);
    dock.cli(&["network", "disconnect", &network, &copy]);
    dock.cli(&["network", "connect", &network, &copy]);
    dock.cli(&["restart", "-t", "0", &copy]);
    let serves = async {
        while get(address, "/").await != (200, "one".into()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, serves).await.expect("the route did not follow");
    stop.cancel();
    following.await.unwrap();
}

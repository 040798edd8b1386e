//! Releases behind public listeners with names and TLS.

use std::{fs, net::SocketAddr};

use switchover::{
    domain::rollout::{Ended, Phase},
    rollout::{Public, Target as _, local::LocalTarget},
};
use tokio::net::TcpListener;

use super::{
    model::app,
    stage::{Stage, Version},
};
use crate::agent::tls::{ask, certificate, trusting};

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn behind(stage: &Stage, public: Public) -> LocalTarget {
    let mut config = Stage::config(stage.host.client.clone(), stage.root());
    config.listen.insert(app("web"), public);
    LocalTarget::new(config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_release_is_reached_by_name_and_tls_and_moves_there_from_plain() {
    let stage = Stage::new().await;
    let files = certificate(&stage.root().join("tls"), "shop.example");
    let (tls, plain) = (free(), free());

    // First plain, at the address that later only sends on.
    let target = behind(&stage, plain.into());
    let (end, progress) = stage.release_to(&stage.desired(&Version::new("one")), &target).await;
    assert_eq!(end.outcome, Ended::Live, "{progress:?}");
    let client = trusting(&files, "shop.example", tls);
    assert_eq!(ask(&client, &format!("http://{plain}/")).await, Ok((200, "one".into())));

    let public =
        Public { address: tls, hosts: vec!["shop.example".into()], tls: Some(files.clone()), redirect: Some(plain) };
    let target = behind(&stage, public);
    let two = stage.desired(&Version::new("two"));
    let (end, progress) = stage.release_to(&two, &target).await;
    assert_eq!(end.outcome, Ended::Live, "{progress:?}");
    assert!(progress.prober.sent > 50 && progress.prober.failed == 0, "{:?}", progress.prober);
    let url = format!("https://shop.example:{}", tls.port());
    assert_eq!(ask(&client, &format!("{url}/")).await, Ok((200, "two".into())));
    let sent_on = client.get(format!("http://{plain}/a?b")).header("host", "shop.example").send().await.unwrap();
    assert_eq!(
        (sent_on.status().as_u16(), &sent_on.headers()["location"]),
        (308, &format!("{url}/a?b").parse().unwrap())
    );
    // The app is told how its users come, by the prober too: it must not send probes on to https.
    let probes = target.probes(&two).await;
    assert_eq!(
        (probes[0].host.as_str(), probes[0].https, probes[0].address.ip().is_loopback()),
        ("shop.example", true, true)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_address_that_is_taken_is_named() {
    let stage = Stage::new().await;
    let stranger = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = stranger.local_addr().unwrap();
    let named = Public { hosts: vec!["shop.example".into()], ..at.into() };
    for public in [at.into(), named] {
        let target = behind(&stage, public);
        let (end, progress) = stage.release_to(&stage.desired(&Version::new("one")), &target).await;
        assert_eq!((end.outcome, progress.phase), (Ended::Failed, Phase::Failed), "{progress:?}");
        assert!(end.words.contains(&at.to_string()) && end.words.contains("in use"), "{}", end.words);
    }
    // A certificate that can't be used changes nothing either.
    let files = certificate(&stage.root().join("tls"), "shop.example");
    fs::write(&files.key, "garbage").unwrap();
    let target = behind(&stage, Public { tls: Some(files.clone()), ..free().into() });
    let (end, _) = stage.release_to(&stage.desired(&Version::new("one")), &target).await;
    assert!(end.words.contains("key.pem"), "{}", end.words);
}

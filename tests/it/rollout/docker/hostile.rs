//! Releases that go wrong: said plainly, and what is live is not touched.

use std::{net::SocketAddr, time::Duration};

use switchover::{
    domain::{
        ids::{Digest, RolloutId},
        rollout::{Desired, Ended, Phase},
    },
    rollout::Target as _,
};
use tokio_util::sync::CancellationToken;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::{Dock, Rig, Version, app, told};
use crate::{
    agent::get,
    rollout::stage::{DEADLINE, Users, pre_deploy, smoke},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_goes_wrong_before_the_switch_touches_nothing() {
    let dock = Dock::new().await;
    let one = dock.desired(&Version::new("one"));
    let (end, progress) = dock.release(&one).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let address = dock.address().await;
    let users = Users::ask(address);
    type Case = (&'static str, &'static [(&'static str, &'static str)], fn(&mut Desired), &'static [&'static str]);
    let cases: [Case; 12] = [
        ("exits", &[("EXIT_AT_START", "3")], |_| {}, &["does not stay up", "exit code 3", "no database"]),
        (
            "unhealthy",
            &[],
            |d| {
                d.apps[0].spec.health = Some("/status/503".into());
                d.start_timeout = Duration::from_secs(5);
            },
            &["Not ready within", "GET /status/503 answered 503", "release unhealthy begins"],
        ),
        (
            "wrong port",
            &[],
            |d| {
                d.apps[0].spec.port = Some(1);
                d.apps[0].spec.env.insert("BIND".into(), "127.0.0.1".into());
                d.apps[0].spec.health = None;
                d.start_timeout = Duration::from_secs(5);
            },
            &["Not ready within", "it does not listen on its PORT (1)"],
        ),
        (
            "memory",
            &[("EAT", "64")],
            |d| d.apps[0].spec.resources.memory = Some(20_000_000),
            &["does not stay up", "out of memory", "its limit is 20 MB"],
        ),
        ("no program", &[], |d| d.apps[0].spec.start = Some("/nothing --here".into()), &["/nothing"]),
        (
            "room",
            &[],
            |d| d.apps[0].spec.resources.memory = Some(1 << 45),
            &["not enough memory for two slots", "70368744 MB more"],
        ),
        ("smoke", &[], |d| d.apps[0].spec.smoke = smoke("exit 4"), &["smoke test failed", "exit code 4"]),
        (
            "pre_deploy",
            &[],
            |d| d.apps[0].spec.pre_deploy = pre_deploy("echo no such table; exit 5", true),
            &["pre_deploy failed", "exit code 5"],
        ),
        ("secret", &[], |d| d.apps[0].spec.secrets.push("MISSING".into()), &["secret MISSING is not granted"]),
        ("no image", &[], |d| d.apps[0].spec.image = None, &["web has no image"]),
        ("gone", &[], |d| d.apps[0].digest = Digest::of(b"nobody pushed that"), &["sha256:"]),
        (
            "registry away",
            &[],
            |d| {
                d.apps[0].spec.image = Some("127.0.0.1:1/demo/app".into());
                d.apps[0].digest = Digest::of(b"nobody answers");
            },
            &["127.0.0.1:1"],
        ),
    ];
    for (name, env, spoil, words) in cases {
        let mut d = dock.desired(&Version { env, ..Version::new(name) });
        spoil(&mut d);
        let (end, progress) = dock.release(&d).await;
        println!("{name}: {}", end.words);
        assert_eq!(end.outcome, Ended::Failed, "{name}: {}", end.words);
        for word in words {
            assert!(end.words.contains(word), "{name}: {}", end.words);
        }
        assert!(!serde_json::to_string(&progress).unwrap().contains("hunter2"), "{name}: a secret is told");
        let status = dock.status("web").await;
        assert_eq!(status.active.as_deref(), Some(one.apps[0].slot.as_str()), "{name}");
        assert_eq!(status.slots.len(), 1, "{name}: a slot was left behind");
        let slots = dock.containers(&["-a", "--filter", "label=dev.switchover.kind=slot"]);
        assert_eq!(slots.len(), 3, "{name}: {slots:?}");
    }
    let (sent, lost) = users.leave().await;
    assert!(sent > 100 && lost.is_empty(), "{} of {sent}: {lost:#?}", lost.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ports_must_be_known() {
    let dock = Dock::new().await;
    for (recipe, words) in
        [("USER 0", "nobody says at which port web listens"), ("EXPOSE 8080 9090", "exposes the ports [8080, 9090]")]
    {
        let d = dock.desired(&Version { recipe, ..Version::new("ports") });
        let (end, _) = dock.release(&d).await;
        assert!(end.outcome == Ended::Failed && end.words.contains(words), "{}", end.words);
        let mut d = dock.desired(&Version { recipe, ..Version::new("named") });
        d.apps[0].spec.port = Some(9090);
        let (end, progress) = dock.release(&d).await;
        assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_release_that_dies_in_the_watch_is_taken_back() {
    let dock = Dock::new().await;
    let one = dock.desired(&Version::new("one"));
    dock.release(&one).await;
    let address = dock.address().await;
    let cases: [(&str, &[(&str, &str)]); 2] = [("dies", &[]), ("bad", &[("BAD", "1")])];
    for (name, env) in cases {
        let mut d = dock.desired(&Version { env, ..Version::new(name) });
        d.watch_for = Duration::from_secs(60);
        let journal = dock.journal(&d);
        let dying = async {
            if name == "dies" {
                journal.reaches(Phase::Watch).await;
                let client = crate::agent::fresh();
                while journal.progress().is_some_and(|p| p.phase == Phase::Watch && p.end.is_none()) {
                    let _ = client.get(format!("http://{address}/exit")).send().await;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        };
        let (driven, ()) = tokio::join!(dock.go_on(&d, &journal), dying);
        let (end, progress) = driven.unwrap();
        println!("{name}: {}", end.words);
        assert_eq!((end.outcome, end.hold), (Ended::RolledBack, false), "{name}: {} {}", end.words, told(&progress));
        if name == "dies" {
            assert!(end.words.contains("restarted") || end.words.contains("exit code 3"), "{}", end.words);
        }
        assert_eq!(get(address, "/").await, (200, "one".into()), "{name}");
        let left = dock.containers(&["-a", "--filter", "label=dev.switchover.kind=slot"]);
        assert_eq!(left.len(), 3, "{name}: {left:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_public_port_that_is_taken_is_named() {
    let dock = Dock::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at: SocketAddr = taken.local_addr().unwrap();
    let mut config = Dock::config(dock.host.client.clone(), dock.docker.clone(), dock.root());
    config.listen.insert(app("web"), at.into());
    let target = switchover::rollout::docker::DockerTarget::new(config);
    let d = dock.desired(&Version::new("one"));
    let journal = dock.journal(&d);
    let progress = switchover::domain::rollout::Progress::new(&d, switchover::clock::now());
    let driven = switchover::rollout::drive(&d, progress, &target, &journal, CancellationToken::new());
    let end = tokio::time::timeout(DEADLINE, driven).await.expect("no end").unwrap();
    let switchover::rollout::DriveEnd::Ended(end, _) = end else { panic!("{end:?}") };
    assert_eq!(end.outcome, Ended::Failed);
    assert!(end.words.contains(&format!("can't listen at {at}")), "{}", end.words);
    drop(taken);
    let live = target.live(&Dock::key()).await.unwrap();
    assert!(live.apps.values().all(|a| a.active.is_none()), "{live:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_registry_that_sends_something_else_is_not_believed() {
    let dock = Dock::new().await;
    let one = dock.desired(&Version::new("one"));
    dock.release(&one).await;
    // It has an answer for every name, and it is always the same.
    let liar = MockServer::start().await;
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 2, "digest": Digest::of(b"{}")},
        "layers": [],
    });
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let answer = ResponseTemplate::new(200).set_body_raw(manifest.to_string(), kind);
    Mock::given(wiremock::matchers::path_regex("^/v2/.+")).respond_with(answer).mount(&liar).await;
    Mock::given(wiremock::matchers::path("/v2/")).respond_with(ResponseTemplate::new(200)).mount(&liar).await;
    let mut d = dock.desired(&Version::new("swapped"));
    d.apps[0].spec.image = Some(format!("{}/demo/app", liar.address()));
    d.apps[0].digest = Digest::of(b"what was built");
    let (end, _) = dock.release(&d).await;
    println!("{}", end.words);
    assert_eq!(end.outcome, Ended::Failed);
    assert!(end.words.contains("sent something else than the digest names; refused"), "{}", end.words);
    assert_eq!(get(dock.address().await, "/").await, (200, "one".into()));
}

/// A file system of its own, gone with the test.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(megabytes: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        super::run(std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()));
        Self(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_disk_of_the_engine_is_said_before_anything_is_touched() {
    let disk = Small::mount(1_500);
    let rig: &'static Rig = Box::leak(Box::new(Rig::start(&disk.0.path().join("engine"))));
    let dock = Dock::on(rig).await;
    let one = dock.desired(&Version::new("one"));
    let (end, progress) = dock.release(&one).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let two = dock.desired(&Version::new("two"));
    let filler = disk.0.path().join("filler");
    super::run(std::process::Command::new("fallocate").args(["-l", "1200M"]).arg(&filler));
    let (end, _) = dock.release(&two).await;
    assert!(end.outcome == Ended::Failed && end.words.contains("the engine's disk is full"), "{}", end.words);
    assert_eq!(get(dock.address().await, "/").await, (200, "one".into()));
    assert_eq!(dock.status("web").await.slots.len(), 1);
    std::fs::remove_file(filler).unwrap();
    let again = Desired { rollout: RolloutId::generate(), ..two };
    let (end, progress) = dock.release(&again).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    drop(dock);
    rig.stop();
}

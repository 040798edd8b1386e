//! The straight way and the way back, under requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use switchover::{
    domain::{
        ids::{Epoch, RolloutId},
        rollout::{Desired, Ended, Kind, retire_due},
    },
    rollout::Target as _,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Dock, Version, app, told};
use crate::{
    agent::get,
    rollout::stage::{Users, pre_deploy, smoke},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_release_and_a_rollback_under_requests_lose_none() {
    let dock = Dock::new().await;
    let one = dock.desired(&Version::new("one"));
    let (end, progress) = dock.release(&one).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let address = dock.address().await;
    assert_eq!(get(address, "/").await, (200, "one".into()));

    let users = Users::ask(address);
    let two = dock.desired(&Version::new("two"));
    let (end, progress) = dock.release(&two).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let figures = &progress.prober;
    assert_eq!(figures.failed, 0, "{figures:?}");
    assert!(figures.sent > 50, "{figures:?}");
    assert_eq!(get(address, "/").await, (200, "two".into()));
    // The way back is warm, and the worker runs once.
    assert_eq!(dock.containers(&[]).len(), 5, "{:?}", dock.containers(&[]));
    let mailers = dock.containers(&["--filter", "label=dev.switchover.app=mailer"]);
    assert!(mailers.len() == 1 && mailers[0].contains(two.apps[1].slot.as_str()), "{mailers:?}");

    let back = Desired { kind: Kind::Rollback, rollout: RolloutId::generate(), ..one.clone() };
    let (end, progress) = dock.release(&back).await;
    assert_eq!((end.outcome, end.hold), (Ended::Live, true), "{} {}", end.words, told(&progress));
    let took = progress.switched_at().unwrap().duration_since(progress.created_at);
    println!("rollback: pointer moved after {took:#}");
    assert_eq!(get(address, "/").await, (200, "one".into()));
    let (sent, lost) = users.leave().await;
    println!("users: {} lost of {sent}; probes: {}", lost.len(), figures.words());
    assert!(sent > 100 && lost.is_empty(), "{} of {sent}: {lost:#?}", lost.len());
    // The bad slot is gone with all that was its.
    let left = dock.containers(&["-a"]);
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(
        left.iter().all(|name| name.contains(one.apps[0].slot.as_str()) || name.contains(one.apps[1].slot.as_str())),
        "{left:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_an_app_gets() {
    let dock = Dock::new().await;
    let mut one = dock.desired(&Version { env: &[("PLAIN", "p")], ..Version::new("one") });
    one.apps[0].spec.resources.memory = Some(64_000_000);
    one.apps[0].spec.resources.cpu = Some(0.5);
    one.apps[0].spec.smoke = smoke("echo at $URL; test \"$PLAIN$TOKEN\" = phunter2-hunter2");
    let (end, progress) = dock.release(&one).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let address = dock.address().await;
    let env = get(address, "/env").await.1;
    for line in [
        "PLAIN=p".to_owned(),
        "TOKEN=hunter2-hunter2".to_owned(),
        "PORT=8080".to_owned(),
        format!("SWITCHOVER_RELEASE={}", one.apps[0].slot),
        "SWITCHOVER_ENVIRONMENT=production".to_owned(),
        format!("SWITCHOVER_COMMIT={}", one.commit),
    ] {
        assert!(env.lines().any(|l| l == line), "{line} is missing: {env}");
    }
    let tail = progress.app(&app("web")).smoke.unwrap().tail.join("\n");
    assert!(tail.contains("at http://"), "{tail}");
    // By its own name an app reaches the live slot, whichever that is.
    assert_eq!(get(address, "/ask?web:8080").await, (200, "one".into()));
    let name = dock.containers(&["--filter", "label=dev.switchover.app=web"])[0].clone();
    let format = "{{json .HostConfig}} {{json .Config.Labels}}";
    let found = dock.cli(&["inspect", "-f", format, &name]);
    for part in [
        "\"Memory\":64000000",
        "\"MemorySwap\":64000000",
        "\"NanoCpus\":500000000",
        "unless-stopped",
        "no-new-privileges",
        "\"CapDrop\":[\"ALL\"]",
    ] {
        assert!(found.contains(part), "{part} is missing: {found}");
    }
    assert!(!found.contains("hunter2"), "a secret stands in a label: {found}");
    let text = serde_json::to_string(&progress).unwrap();
    assert!(!text.contains("hunter2"), "a secret is told");

    let two = dock.desired(&Version::new("two"));
    let (end, _) = dock.release(&two).await;
    assert_eq!(end.outcome, Ended::Live, "{}", end.words);
    let address = dock.address().await;
    assert_eq!(get(address, "/ask?web:8080").await, (200, "two".into()));
}

/// Counts who asks; reached from containers at the gateway that leads out of them.
async fn counter() -> (u16, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        }
    });
    (port, count)
}

/// A command in a container that tells the counter.
pub(super) async fn counted() -> (String, Arc<AtomicUsize>) {
    let (port, count) = counter().await;
    let gateway = "$(ip route | awk '/default/ {print $3}')";
    (format!("wget -q -O /dev/null http://{gateway}:{port}/"), count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pre_deploy_runs_once_in_the_new_image_before_its_slot() {
    let dock = Dock::new().await;
    let mut one = dock.desired(&Version::new("one"));
    let (tell, count) = counted().await;
    one.apps[0].spec.pre_deploy =
        pre_deploy(&format!("{tell}; echo migrated $RELEASE with $TOKEN; echo bad >&2"), true);
    let (end, progress) = dock.release(&one).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    assert_eq!(count.load(Ordering::SeqCst), 1);
    let report = progress.app(&app("web")).pre_deploy.unwrap();
    assert_eq!((report.ok, report.words.as_str()), (true, "exit code 0"));
    let mut tail = report.tail.clone();
    tail.sort();
    assert_eq!(tail, ["bad", "migrated one with ***"]);
    assert!(report.ended >= report.started, "{report:?}");
    // It is gone with all that it left.
    assert_eq!(dock.containers(&["-a", "--filter", "label=dev.switchover.kind=command"]), [""; 0]);
    let log = dock.root().join("server/rollouts").join(one.rollout.to_string()).join("web.pre_deploy.log");
    assert!(std::fs::read_to_string(&log).unwrap().contains("\tbad\n"));
    let again = Desired { rollout: RolloutId::generate(), ..one.clone() };
    let (end, _) = dock.release(&again).await;
    // A copy that took its time to answer just now is waited for as in any release.
    assert!(matches!(end.outcome, Ended::Unchanged | Ended::Live), "{}", end.words);
    assert_eq!(count.load(Ordering::SeqCst), 1);

    // One that hangs is ended at its limit; nothing else was touched.
    let mut two = dock.desired(&Version::new("two"));
    two.apps[0].spec.pre_deploy = pre_deploy("echo begins; sleep 1000", true);
    if let Some(spec) = &mut two.apps[0].spec.pre_deploy {
        // Long enough for a container to begin on a machine that has much to do.
        spec.command.timeout = Duration::from_secs(8);
    }
    let (end, progress) = dock.release(&two).await;
    assert!(end.outcome == Ended::Failed && end.words.contains("killed at its time limit of 8 s"), "{}", end.words);
    assert_eq!(progress.app(&app("web")).pre_deploy.unwrap().tail, ["begins"]);
    assert_eq!(get(dock.address().await, "/").await, (200, "one".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn old_slots_are_retired_and_started_again_for_a_rollback() {
    let dock = Dock::new().await;
    let one = dock.desired(&Version::new("one"));
    dock.release(&one).await;
    let two = dock.desired(&Version::new("two"));
    dock.release(&two).await;
    let target = dock.target();
    let live = target.live(&one.key).await.unwrap();
    let web = &live.apps[&app("web")];
    assert_eq!(web.active.as_ref(), Some(&two.apps[0].slot));
    assert_eq!(web.slots[&one.apps[0].slot], "2 of 2 running");
    assert_eq!(live.apps[&app("mailer")].slots[&one.apps[1].slot], "stopped");
    let epoch = Epoch(dock.next_epoch());
    let due = retire_due(&live, &[], &Default::default(), switchover::clock::now());
    assert_eq!(due.len(), 2);
    for (name, slot) in &due {
        target.retire(&one.key, epoch, name, slot).await.unwrap();
        // Again, as after a crash.
        target.retire(&one.key, epoch, name, slot).await.unwrap();
    }
    assert_eq!(dock.containers(&["-a"]).len(), 3);
    assert!(target.retire(&one.key, epoch, &app("web"), &two.apps[0].slot).await.is_err(), "the live one was retired");
    assert!(target.retire(&one.key, Epoch(1), &app("web"), &two.apps[0].slot).await.is_err());
    assert_eq!(get(dock.address().await, "/").await, (200, "two".into()));
    let kept = dock.root().join("server/slots/1_production_web").join(one.apps[0].slot.as_str()).join("0.log");
    assert!(std::fs::read_to_string(&kept).unwrap().contains("release one begins"));

    let back = Desired { kind: Kind::Rollback, rollout: RolloutId::generate(), ..one };
    let (end, progress) = dock.release(&back).await;
    assert_eq!((end.outcome, end.hold), (Ended::Live, true), "{}", told(&progress));
    assert!(told(&progress).contains("No longer warm"), "{}", told(&progress));
    assert_eq!(get(dock.address().await, "/").await, (200, "one".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_healthcheck_of_the_image_is_respected() {
    let dock = Dock::new().await;
    let recipe = "EXPOSE 8080\nHEALTHCHECK --interval=1s --timeout=30s --retries=3 CMD [\"/app\", \"check\"]";
    let mut one = dock.desired(&Version { recipe, ..Version::new("one") });
    one.apps[0].spec.health = None;
    let (end, progress) = dock.release(&one).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let mut two = dock.desired(&Version { recipe, env: &[("CHECK", "/status/500")], ..Version::new("two") });
    two.apps[0].spec.health = None;
    two.start_timeout = Duration::from_secs(5);
    let (end, _) = dock.release(&two).await;
    assert!(end.outcome == Ended::Failed && end.words.contains("its HEALTHCHECK"), "{}", end.words);
    assert_eq!(get(dock.address().await, "/").await, (200, "one".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn neighbours_reach_the_live_slot_by_name() {
    let dock = Dock::new().await;
    let with_api = |version: &str| {
        let mut d = dock.desired(&Version::new(version));
        let mut api = d.apps[0].clone();
        api.name = app("api");
        api.spec.env.insert("RELEASE".into(), format!("api {version}"));
        d.apps.push(api);
        d
    };
    let (end, progress) = dock.release(&dock.desired(&Version::new("zero"))).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    // A second app at the same port: told apart by name.
    for version in ["one", "two"] {
        let (end, progress) = dock.release(&with_api(version)).await;
        assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
        let address = dock.address().await;
        assert_eq!(get(address, "/ask?api:8080").await, (200, format!("api {version}")));
        assert_eq!(get(address, "/ask?web:8080").await, (200, version.into()));
    }
    // Requests between neighbours survive a switch as those of users do.
    let address = dock.address().await;
    let asking = tokio::spawn(async move {
        let mut answers = Vec::new();
        while answers.last().is_none_or(|(_, text)| text != "api three") {
            answers.push(get(address, "/ask?api:8080").await);
        }
        answers
    });
    let (end, progress) = dock.release(&with_api("three")).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let answers = asking.await.unwrap();
    let strange: Vec<_> =
        answers.iter().filter(|a| **a != (200, "api two".into()) && **a != (200, "api three".into())).collect();
    assert!(strange.is_empty(), "{strange:?} of {}", answers.len());
}

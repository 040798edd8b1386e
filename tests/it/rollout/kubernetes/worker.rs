//! A worker is never doubled: the one is gone before the other starts.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use switchover::{
    cluster::Kind,
    domain::{
        config::AppKind,
        rollout::{Desired, Ended},
    },
};
use tokio::task::JoinHandle;

use super::{Bench, Wanted, back_to, desired, tied_all, told};
use crate::cluster::rig::{Image, until};

const PLAIN: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: mailer}
spec:
  selector: {matchLabels: {app: mailer}}
  template:
    metadata: {labels: {app: mailer}}
    spec:
      containers:
        - name: mailer
          image: IMAGE
";

fn version(name: &str, image: &Image) -> Desired {
    let text = PLAIN.replace("IMAGE", &format!("{}:latest", image.repository));
    let manifests = tied_all(&text, &[("mailer", AppKind::Worker, image)]).remove("mailer");
    let wanted = Wanted { name: "mailer", kind: AppKind::Worker, manifests, ..Wanted::web(image) };
    desired(name, vec![wanted])
}

/// The lives of all pods of a namespace: when each one's container started, when it ended, and how many were there at once.
#[derive(Default)]
struct Lives {
    most: usize,
    /// By UID: name, start, end.
    pods: BTreeMap<String, (String, String, String)>,
}

fn follow(bench: &Bench) -> (Arc<Mutex<Lives>>, JoinHandle<()>) {
    let lives = Arc::new(Mutex::new(Lives::default()));
    let (mut changes, watched, known) = (bench.watched.changes(), bench.watched.clone(), Arc::clone(&lives));
    let task = tokio::spawn(async move {
        loop {
            let text = |v: &Value, at: &str| v.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
            let pods = watched.all(Kind::Pod);
            {
                let mut lives = known.lock().unwrap();
                // Its containers have ended, though its object is there for a moment more ("Pod Lifecycle").
                let over = |pod: &Value| matches!(text(pod, "/status/phase").as_str(), "Succeeded" | "Failed");
                lives.most = lives.most.max(pods.iter().filter(|pod| !over(pod)).count());
                for pod in pods {
                    let state = "/status/containerStatuses/0/state";
                    let life = lives.pods.entry(text(&pod, "/metadata/uid")).or_default();
                    life.0 = text(&pod, "/metadata/name");
                    let started = text(&pod, &format!("{state}/running/startedAt"));
                    if !started.is_empty() && life.1.is_empty() {
                        life.1 = started;
                    }
                    let ended = text(&pod, &format!("{state}/terminated/finishedAt"));
                    if !ended.is_empty() {
                        life.2 = ended;
                    }
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    });
    (lives, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_worker_is_never_doubled() {
    let Some(bench) = Bench::new("a_worker_is_never_doubled").await else { return };
    let cluster = bench.ns.cluster;
    let push = |v: &str, env: &[(&str, &str)]| cluster.push_app("worker/mailer", v, env);
    // It takes its time to end, as one that finishes what it began.
    let slow: &[(&str, &str)] = &[("ON_TERM", "late"), ("LATE", "1500")];
    let (one, two, three) = (push("one", slow), push("two", slow), push("three", slow));
    let bad = push("bad", &[("EXIT_AFTER", "300")]);
    bench.ns.apply(&PLAIN.replace("IMAGE", &one.exact()));
    bench.ns.rolled_out("mailer");
    bench.watched.ready(super::DEADLINE).await.unwrap();
    let (lives, task) = follow(&bench);
    let image = |bench: &Bench| {
        let path = "jsonpath={.items[*].spec.containers[0].image}";
        bench.ns.kubectl(&["get", "pods", "--field-selector=status.phase=Running", "-o", path])
    };

    // One that does not stay up, on what ran before us: that comes back.
    let mut d = version("bad", &bad);
    d.start_timeout = std::time::Duration::from_secs(60);
    d.watch_for = std::time::Duration::from_secs(60);
    let (end, progress) = bench.release(&d).await;
    println!("bad: {}", end.words);
    assert_eq!((end.outcome, end.hold), (Ended::RolledBack, false), "{} {}", end.words, told(&progress));
    assert!(end.words.contains("exit code 9") || end.words.contains("restarted"), "{}", end.words);
    // Started again; nobody waits for its container.
    until("the first one runs again", || image(&bench) == one.exact());

    let second = version("two", &two);
    let (end, progress) = bench.release(&second).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    assert_eq!(image(&bench), two.exact());
    let (end, progress) = bench.release(&version("three", &three)).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    assert_eq!(image(&bench), three.exact());
    let (end, progress) = bench.release(&back_to(&second)).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    assert_eq!(image(&bench), two.exact());

    task.abort();
    let lives = lives.lock().unwrap();
    let mut order: Vec<_> = lives.pods.values().filter(|(_, started, _)| !started.is_empty()).collect();
    order.sort_by_key(|(_, started, _)| started.clone());
    for (name, started, ended) in &order {
        println!("{name}: {started} - {ended}");
    }
    assert_eq!(lives.most, 1, "pods were there at the same time: {order:#?}");
    assert!(order.len() >= 5, "{order:#?}");
    for both in order.windows(2) {
        assert!(both[0].2 <= both[1].1, "{both:#?}");
    }
}

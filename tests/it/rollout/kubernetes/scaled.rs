//! An app whose size is an autoscaler's, under real load: the new slot begins as large as the old one is, and the
//! autoscaler goes where the requests go.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use switchover::{
    domain::rollout::{Desired, Ended, Phase, Progress},
    rollout::{DriveEnd, drive},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Bench, POLITE, Wanted, answers, back_to, desired, tied, told};
use crate::{
    cluster::rig::Image,
    rollout::stage::{DEADLINE, FileJournal, Users},
};

/// Half of a tenth of a core is enough to be large: a machine that has much to do gives that too.
const MANIFESTS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers:
        - name: shop
          image: IMAGE
          ports: [{containerPort: 8080}]
          resources: {requests: {cpu: 50m}, limits: {cpu: 150m}}
          readinessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1, timeoutSeconds: 5}
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec:
  selector: {app: shop}
  ports: [{port: 8080}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: shop}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}
  minReplicas: 1
  maxReplicas: 3
  metrics:
    - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}
";

fn wanted(image: &Image) -> Wanted<'_> {
    let text = MANIFESTS.replace("IMAGE", &format!("{}:latest", image.repository));
    Wanted { manifests: Some(tied(&text, image)), ..Wanted::web(image) }
}

/// Load that makes its pods large. Whether it is answered is the users' matter.
fn burn(address: SocketAddr) -> Vec<JoinHandle<()>> {
    let one = |_| {
        tokio::spawn(async move {
            let client = crate::agent::fresh();
            loop {
                let _ = client.get(format!("http://{address}/burn?ms=100")).send().await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    };
    (0..4).map(one).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_autoscaler_follows_the_requests() {
    let Some(bench) = Bench::new("an_autoscaler_follows_the_requests").await else { return };
    let cluster = bench.ns.cluster;
    let images = ["one", "two", "three"].map(|v| cluster.push_app("scaled/web", v, POLITE));
    let [one, two, three] =
        [("one", &images[0]), ("two", &images[1]), ("three", &images[2])].map(|(v, i)| desired(v, vec![wanted(i)]));
    let (end, progress) = bench.release(&one).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    let address = bench.address("shop");
    answers(address, "one");
    let target = || bench.ns.field("hpa/shop", ".spec.scaleTargetRef.name");
    let size = |deployment: &str| bench.ns.field(&format!("deployment/{deployment}"), ".status.readyReplicas");
    let first = target();
    assert_eq!(size(&first), "1");
    let users = Users::ask(address);

    // The load comes while the second is watched: both grow.
    let watched = Desired { watch_for: 2 * DEADLINE, ..two.clone() };
    let (journal, rollout) = (bench.journal(&watched), bench.target());
    let enough = CancellationToken::new();
    let progress = Progress::new(&watched, switchover::clock::now());
    let driven = drive(&watched, progress, &rollout, &journal, enough.clone());
    let grows = async {
        journal.reaches(Phase::Watch).await;
        let load = burn(address);
        let large = || size(&first) == "3" && size(&target()) == "3";
        let begun = Instant::now();
        // The release goes on between the looks.
        while !tokio::task::block_in_place(large) {
            assert!(begun.elapsed() < DEADLINE, "{}", bench.ns.kubectl(&["get", "hpa,deployments", "-o", "wide"]));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        enough.cancel();
        load
    };
    let (end, load) = tokio::join!(driven, grows);
    let Ok(DriveEnd::HandedBack(progress)) = end else { panic!("{end:?}") };
    assert!(told(&progress).is_empty(), "{}", told(&progress));
    let second = target();
    assert_ne!(second, first);
    let (end, progress) = bench.go_on(&two, &FileJournal::new(journal.file.clone(), bench.next_epoch())).await.unwrap();
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    // It may shrink again, as its author wrote.
    let as_written = || {
        assert_eq!(bench.ns.field("hpa/shop", ".spec.behavior"), "");
        assert_eq!(bench.ns.field("hpa/shop", r".metadata.annotations.switchover\.dev/hand-over"), "");
    };
    as_written();

    let (end, progress) = bench.release(&three).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    answers(address, "three");
    let web = progress.apps.values().next().unwrap();
    assert_eq!(web.at_switch.unwrap().new_ready, 3, "it was not as large as the one before");
    as_written();

    let (end, progress) = bench.release(&back_to(&two)).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    answers(address, "two");
    assert_eq!((target(), size(&second)), (second.clone(), "3".to_owned()));
    as_written();
    let (sent, lost) = users.leave().await;
    load.iter().for_each(JoinHandle::abort);
    println!("users: {} lost of {sent}", lost.len());
    assert!(sent > 100 && lost.is_empty(), "{} of {sent}: {lost:#?}", lost.len());
}

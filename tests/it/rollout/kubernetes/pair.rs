//! Hand-written pairs, taken as they are.

use switchover::domain::rollout::Ended;

use super::{Bench, Wanted, answers, back_to, desired, tied, told};
use crate::{cluster::rig::Image, rollout::stage::Users};

fn one_of(colour: &str, image: &str, replicas: u32) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: shop-{colour}, labels: {{app: shop, version: {colour}}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: shop, version: {colour}}}}}
  template:
    metadata: {{labels: {{app: shop, version: {colour}}}}}
    spec:
      containers:
        - name: shop
          image: {image}
          ports: [{{containerPort: 8080}}]
          readinessProbe: {{httpGet: {{path: /health, port: 8080}}, periodSeconds: 1, timeoutSeconds: 5}}
---"
    )
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: shop}
spec:
  type: NodePort
  selector: {app: shop, version: blue}
  ports: [{port: 8080, targetPort: 8080}]
";

pub fn pair(image: &str) -> String {
    format!("{}{}{SERVICE}", one_of("blue", image, 2), one_of("green", image, 2))
}

pub fn wanted(image: &Image) -> Wanted<'_> {
    let text = pair(&format!("{}:IMAGE_TAG", image.repository));
    Wanted { manifests: Some(tied(&text, image)), ..Wanted::web(image) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pair_is_taken_over_as_it_is() {
    let Some(bench) = Bench::new("a_pair_is_taken_over_as_it_is").await else { return };
    // These pods stop to listen soon after they are told to end, and a proxy may take a second to follow.
    let bench = Bench { settle: std::time::Duration::from_secs(3), ..bench };
    let cluster = bench.ns.cluster;
    let images = ["one", "two", "three"].map(|v| cluster.push_app("pair/web", v, super::POLITE));
    // What a script of the team left: blue serves the old version, green idles.
    bench.ns.apply(&pair(&images[0].exact()));
    bench.ns.rolled_out("shop-blue");
    let address = bench.address("shop");
    answers(address, "one");
    let users = Users::ask(address);
    let two = desired("two", vec![wanted(&images[1])]);
    let (end, progress) = bench.release(&two).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    answers(address, "two");
    assert_eq!(bench.ns.field("service/shop", ".spec.selector.version"), "green");
    let three = desired("three", vec![wanted(&images[2])]);
    let (end, progress) = bench.release(&three).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    assert_eq!(bench.ns.field("service/shop", ".spec.selector.version"), "blue");
    answers(address, "three");
    let (end, progress) = bench.release(&back_to(&two)).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    assert_eq!(bench.ns.field("service/shop", ".spec.selector.version"), "green");
    answers(address, "two");
    let (sent, lost) = users.leave().await;
    println!("{sent} sent, flips: {:?}", progress.prober.last_bad_ms);
    assert!(sent > 100 && lost.is_empty(), "{} of {sent}: {lost:#?}", lost.len());
    // No third Deployment, and nothing of the author's was rewritten.
    let names = bench.ns.kubectl(&["get", "deployments", "-o", "name"]);
    assert_eq!(names, "deployment.apps/shop-blue\ndeployment.apps/shop-green");
}

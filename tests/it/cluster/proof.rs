//! Whether the cluster is one: what the tests of targets and executors take for granted of it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    process::Command,
    time::{Duration, Instant},
};

use super::rig::{Cluster, Image, Namespace, fresh, get, until};

/// Two pods of a release.
fn deployment(name: &str, image: &str) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web, slot: {name}}}}}
  template:
    metadata: {{labels: {{app: web, slot: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
        - name: web
          image: "{image}"
          readinessProbe: {{httpGet: {{path: /health, port: 8080}}, periodSeconds: 1}}
          resources: {{requests: {{cpu: 10m}}}}
---
"#
    )
}

fn service(kind: &str, slot: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{type: {kind}, selector: {{app: web, slot: {slot}}}, ports: [{{port: 80, targetPort: 8080}}]}}
"#
    )
}

fn select(space: &Namespace<'_>, slot: &str) {
    space.kubectl(&["patch", "service", "web", "-p", &format!(r#"{{"spec": {{"selector": {{"slot": "{slot}"}}}}}}"#)]);
}

/// `blue` runs v1 and `green` v2, both by digest; the Service selects blue.
fn pair(space: &Namespace<'_>, kind: &str) -> [Image; 2] {
    let images = ["v1", "v2"].map(|release| space.cluster.push_app(&format!("{}/web", space.name), release, &[]));
    space.apply(
        &(deployment("blue", &images[0].exact()) + &deployment("green", &images[1].exact()) + &service(kind, "blue")),
    );
    for slot in ["blue", "green"] {
        space.rolled_out(slot);
    }
    images
}

#[test]
fn a_service_follows_its_selector_and_the_slow_node_comes_later() {
    let test = "a_service_follows_its_selector_and_the_slow_node_comes_later";
    let Some(cluster) = Cluster::shared(test) else { return };
    let space = cluster.namespace("selector");
    pair(&space, "ClusterIP");
    let web = space.address("web", 80);
    until("blue answers", || fresh(web, "/") == Ok("v1".into()));
    let Some(slow) = cluster.slow_node(test) else { return };
    until("blue answers on the slow node", || get(slow.connect(web), "/") == Ok("v1".into()));
    // The slow node takes the first change over at once, if it did nothing for a while. The next one has to wait.
    let begin = Instant::now();
    select(&space, "green");
    until("green answers on the slow node", || get(slow.connect(web), "/") == Ok("v2".into()));
    select(&space, "blue");
    let here = until("blue answers again", || fresh(web, "/") == Ok("v1".into()));
    let far = get(slow.connect(web), "/");
    // Its two changes are five seconds apart, however slow all else is.
    assert!(begin.elapsed() > Duration::from_secs(4) || far == Ok("v2".into()), "{far:?} after {here:?}");
    until("blue answers again on the slow node", || get(slow.connect(web), "/") == Ok("v1".into()));
    assert!(begin.elapsed() > Duration::from_millis(4500), "as fast as the first: {:?}", begin.elapsed());
}

#[test]
fn pods_reach_each_other_by_name_and_this_machine() {
    let Some(cluster) = Cluster::shared("pods_reach_each_other_by_name_and_this_machine") else { return };
    let space = cluster.namespace("reach");
    let [image, _] = pair(&space, "LoadBalancer");
    let web = space.address("web", 80);
    let ask = |what: &str| fresh(web, &format!("/ask?{what}"));
    until("blue answers", || fresh(web, "/") == Ok("v1".into()));
    until("its name is known", || ask("web/") == Ok("v1".into()));
    until("its whole name is known", || ask(&format!("web.{}.svc.cluster.local/", space.name)) == Ok("v1".into()));
    if cluster.dir().is_some() {
        let balancer = space.give_address("web");
        until("the load balancer's address leads there", || fresh((balancer, 80).into(), "/") == Ok("v1".into()));
        // The registry, at the machine's own address.
        let registry = cluster.registry().rsplit(':').next().unwrap();
        let tags = ask(&format!("{}:{registry}/v2/{}/web/tags/list", cluster.host_ip(), space.name)).unwrap();
        assert!(tags.contains(&image.tag), "{tags}");
        // Whatever listens here.
        let here = TcpListener::bind((cluster.host_ip(), 0)).unwrap();
        let port = here.local_addr().unwrap().port();
        let answered = std::thread::spawn(move || {
            let (mut connection, _) = here.accept().unwrap();
            let _ = connection.read(&mut [0; 1024]).unwrap();
            connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nhost").unwrap();
        });
        assert_eq!(ask(&format!("{}:{port}/", cluster.host_ip())), Ok("host".into()));
        answered.join().unwrap();
    }
}

#[test]
fn pods_are_measured_and_their_logs_read() {
    let Some(cluster) = Cluster::shared("pods_are_measured_and_their_logs_read") else { return };
    let space = cluster.namespace("measured");
    let image = cluster.push_app(&format!("{}/web", space.name), "v1", &[("ON_TERM", "abrupt")]);
    space.apply(&deployment("blue", &image.tagged()));
    space.rolled_out("blue");
    assert_eq!(space.kubectl(&["logs", "deployment/blue"]), "release v1 begins");
    assert_eq!(space.kubectl(&["exec", "deployment/blue", "--", "hostname"]).split('-').next(), Some("blue"));
    let metrics = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods", space.name);
    let mut said = String::new();
    let measured = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        until("metrics of both pods", || {
            said = cluster.try_kubectl(&["get", "--raw", &metrics]).unwrap_or_else(|e| e);
            said.matches("\"cpu\"").count() >= 2
        })
    }));
    if measured.is_err() {
        let log = |part: &str| cluster.dir().map(|d| fs::read_to_string(d.join("log").join(part)).unwrap_or_default());
        let last = |part: &str| {
            let log = log(part).unwrap_or_default();
            log.lines().rev().take(30).map(str::to_owned).collect::<Vec<_>>().join("\n")
        };
        panic!(
            "{said}\n{}\nmetrics-server:\n{}\nkubelet:\n{}",
            space.kubectl(&["get", "pods"]),
            last("metrics"),
            last("kubelet")
        );
    }
}

/// What on this machine still hints at a cluster in `dir`, whose network is `net` (`10.201`).
fn traces(dir: &str, net: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if words.contains(dir) || words.contains(&format!("{net}.255.")) {
            found.push(format!("process {:?}: {words}", entry.file_name()));
        }
    }
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    found.extend(mounts.lines().filter(|l| l.contains(dir)).map(|l| format!("mount: {l}")));
    for (program, args) in [("ip", ["-4", "addr"].as_slice()), ("ip", &["-4", "route"]), ("iptables-save", &[])] {
        let out = Command::new(program).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        found.extend(text.lines().filter(|l| l.contains(&format!("{net}."))).map(|l| format!("{program}: {l}")));
    }
    let group = format!("swk{}", net.trim_start_matches("10."));
    for place in ["/sys/fs/cgroup", "/sys/class/net", "/run/netns"] {
        let below = fs::read_dir(place).into_iter().flatten().flatten();
        for at in below.flat_map(|e| [e.path(), e.path().join(&group)]) {
            if at.exists() && at.ends_with(&group) {
                found.push(at.display().to_string());
            }
        }
    }
    found
}

#[test]
fn it_lives_through_an_outage_of_its_api_server_and_leaves_nothing() {
    let Some(cluster) = Cluster::own("it_lives_through_an_outage_of_its_api_server_and_leaves_nothing") else { return };
    let dir = cluster.dir().unwrap().display().to_string();
    let net = cluster.node_ip().trim_end_matches(".255.2").to_owned();
    {
        let space = cluster.namespace("outage");
        pair(&space, "ClusterIP");
        let web = space.address("web", 80);
        until("blue answers", || fresh(web, "/") == Ok("v1".into()));
        cluster.stop_api();
        let refused = cluster.try_kubectl(&["get", "namespaces"]).unwrap_err();
        assert!(refused.contains("refused"), "{refused}");
        assert_eq!(fresh(web, "/"), Ok("v1".into()));
        cluster.start_api();
        select(&space, "green");
        until("green answers", || fresh(web, "/") == Ok("v2".into()));
        cluster.pause_api();
        let hung = cluster.try_kubectl(&["get", "namespaces", "--request-timeout=1s"]).unwrap_err();
        cluster.resume_api();
        assert!(!hung.contains("refused"), "{hung}");
        assert!(cluster.kubectl(&["get", "namespaces"]).contains(&space.name));
        assert!(traces(&dir, &net).len() > 10, "what is looked for below is not what a cluster leaves");
    }
    drop(cluster);
    let left = traces(&dir, &net);
    assert!(left.is_empty(), "left:\n{}", left.join("\n"));
    assert!(!fs::exists(dir).unwrap());
}

#[test]
fn an_api_server_alone_keeps_objects_and_runs_nothing() {
    let Some(cluster) = Cluster::api_only("an_api_server_alone_keeps_objects_and_runs_nothing") else { return };
    let space = cluster.namespace("alone");
    space.apply(&deployment("blue", "nowhere/app:v1"));
    until("its pods are made", || space.kubectl(&["get", "pods", "-o", "name"]).lines().count() == 2);
    cluster.stop_api();
    cluster.start_api();
    assert_eq!(space.field("deployment/blue", ".spec.replicas"), "2");
    assert!(space.kubectl(&["get", "pods"]).contains("Pending"));
}

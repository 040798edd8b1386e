//! Manifests: read as Kubernetes reads them, judged, tied to apps, made into slots.

mod anything;
mod differences;
mod needs;
mod nodes;
mod policy;
mod reading;
mod slots;
mod tying;
mod waiting;

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::Value;
use switchover::{
    domain::{
        config::AppKind,
        ids::{AppName, Epoch, Slot},
        rollout::{AppManifests, Shape},
    },
    manifests::{AppFacts, Facts, Object, Read, Script, SlotOrder, Source, Tied, read, tie, title},
};

const DIGEST: &str = "docker.io/acme/shop@sha256:1111111111111111111111111111111111111111111111111111111111111111";

fn read_files(files: &[(&str, &str)]) -> Read {
    let sources: Vec<Source<'_>> = files.iter().map(|(path, text)| Source { path, bytes: text.as_bytes() }).collect();
    read(&sources)
}

/// The objects of files without a mistake.
fn objects(files: &[(&str, &str)]) -> Vec<Object> {
    let read = read_files(files);
    assert_eq!(read.refused, [], "the manifests of the test are wrong");
    read.objects
}

fn app(name: &str, image: &str) -> AppFacts {
    AppFacts {
        name: AppName::new(name).unwrap(),
        kind: AppKind::Web,
        images: if image.is_empty() { Vec::new() } else { vec![image.to_owned()] },
        path: String::new(),
        image_of: None,
        port: Some(8080),
        health: None,
    }
}

fn tie_up(apps: &[AppFacts], files: &[(&str, &str)], scripts: &[Script<'_>]) -> Tied {
    tie(&Facts { apps, environment: "production", scripts }, &objects(files))
}

/// The manifests of the only app in a file.
fn only(name: &str, image: &str, yaml: &str) -> AppManifests {
    let tied = tie_up(&[app(name, image)], &[("k8s/app.yaml", yaml)], &[]);
    assert_eq!(tied.unclear, [] as [String; 0]);
    tied.apps[&AppName::new(name).unwrap()].clone()
}

/// What was tied, in lines.
fn told(tied: &Tied) -> String {
    let mut out = String::new();
    for (name, app) in &tied.apps {
        match &app.shape {
            Shape::One { workload } => writeln!(out, "{name}: {}", title(workload)).unwrap(),
            Shape::Pair { label, workloads } => {
                let both: Vec<String> = workloads.iter().map(|(value, w)| format!("{value} = {}", title(w))).collect();
                writeln!(out, "{name}: pair by {label}: {}", both.join(", ")).unwrap();
            }
        }
        let mut also = app.also.join(", ");
        if !also.is_empty() {
            also = format!(", also {also}");
        }
        writeln!(out, "  container {}{also}", app.container).unwrap();
        let mut list = |word: &str, objects: Vec<&Value>| {
            if !objects.is_empty() {
                let titles: Vec<String> = objects.into_iter().map(title).collect();
                writeln!(out, "  {word}: {}", titles.join(", ")).unwrap();
            }
        };
        list("service", app.service.iter().collect());
        list("configs", app.configs.iter().collect());
        list("autoscaler", app.autoscaler.iter().collect());
        list("budgets", app.budgets.iter().collect());
        list("shared", app.shared.iter().collect());
    }
    for (word, lines) in [("unclear", &tied.unclear), ("warning", &tied.warnings), ("note", &tied.notes)] {
        for line in lines {
            writeln!(out, "{word}: {line}").unwrap();
        }
    }
    for object in &tied.beside {
        writeln!(out, "beside: {}", title(object)).unwrap();
    }
    out
}

fn order(slot: &str) -> SlotOrder {
    let label = |k: &str, v: &str| (format!("switchover.dev/{k}"), v.to_owned());
    SlotOrder {
        slot: Slot::new(slot).unwrap(),
        colour: None,
        image: DIGEST.to_owned(),
        labels: BTreeMap::from([
            label("owner", "o1"),
            label("kind", "slot"),
            label("app", "shop"),
            label("environment", "production"),
        ]),
        env: BTreeMap::new(),
        secret: None,
        replicas: Some(2),
        pull_secrets: Vec::new(),
        command: None,
        port: Some(8080),
        health: None,
        epoch: Epoch(7),
    }
}

/// JSON as short lines of `path = value`.
fn lines(value: &Value) -> String {
    fn walk(path: &str, value: &Value, out: &mut String) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    let key = if key.contains(['.', '/']) { format!("[{key}]") } else { key.clone() };
                    let at = if path.is_empty() { key } else { format!("{path}.{key}") };
                    walk(&at, value, out);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for (i, item) in items.iter().enumerate() {
                    walk(&format!("{path}[{i}]"), item, out);
                }
            }
            other => writeln!(out, "{path} = {other}").unwrap(),
        }
    }
    let mut out = String::new();
    walk("", value, &mut out);
    out
}

/// A Deployment and a Service as most write them.
const SINGLE: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: shop
  labels: {app: shop}
spec:
  replicas: 2
  selector:
    matchLabels: {app: shop}
  template:
    metadata:
      labels: {app: shop, tier: web}
    spec:
      terminationGracePeriodSeconds: 40
      containers:
        - name: shop
          image: acme/shop:latest
          ports: [{containerPort: 8080}]
          env:
            - {name: LOG, value: info}
            - {name: URL, value: "http://$(HOST)/"}
          envFrom:
            - configMapRef: {name: shop-config}
          readinessProbe: {httpGet: {path: /ready, port: 8080}}
          lifecycle: {preStop: {exec: {command: [sleep, "5"]}}}
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec:
  type: LoadBalancer
  selector: {app: shop}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: shop-config}
data: {MODE: fast, SIZE: "3"}
"#;

/// One of a pair, with its colour.
fn colour(colour: &str) -> String {
    format!(
        r#"apiVersion: apps/v1
kind: Deployment
metadata:
  name: shop-{colour}
  labels: {{app: shop, slot: {colour}}}
spec:
  replicas: {}
  selector:
    matchLabels: {{app: shop, slot: {colour}}}
  template:
    metadata:
      labels: {{app: shop, slot: {colour}}}
    spec:
      terminationGracePeriodSeconds: 40
      containers:
        - name: shop
          image: acme/shop:{colour}
          env: [{{name: COLOUR, value: {colour}}}]
          ports: [{{containerPort: 8080}}]
          readinessProbe: {{httpGet: {{path: /ready, port: 8080}}}}
          lifecycle: {{preStop: {{exec: {{command: [sleep, "5"]}}}}}}
"#,
        if colour == "blue" { 3 } else { 1 }
    )
}

const PAIR_SERVICE: &str = r"apiVersion: v1
kind: Service
metadata: {name: shop}
spec:
  selector: {app: shop, slot: blue}
  ports: [{port: 80, targetPort: 8080}]
";

fn pair() -> AppManifests {
    let yaml = [colour("blue"), colour("green"), PAIR_SERVICE.to_owned()].join("---\n");
    only("shop", "acme/shop", &yaml)
}

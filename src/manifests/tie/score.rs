//! How much speaks for an app being run by a workload.

use super::{AppFacts, Unit, scripts::Hints};
use crate::manifests::{
    look::{self, full_name, image_name, text},
    read::image_placeholder,
};

/// What a name has that says nothing about which app it is.
const NOISE: [&str; 14] = [
    "deployment",
    "deploy",
    "dep",
    "app",
    "svc",
    "service",
    "pod",
    "k8s",
    "blue",
    "green",
    "statefulset",
    "sts",
    "container",
    "img",
];
/// Words for the same thing.
const SAME: [&[&str]; 4] = [
    &["backend", "back", "be", "api", "server"],
    &["frontend", "front", "fe", "web", "client", "ui"],
    &["worker", "consumer", "jobs", "queue"],
    &["gateway", "gw"],
];

/// Points by what speaks for it. Below [`LEAST`] nothing does.
const IMAGE: u32 = 100;
const IMAGE_NAME: u32 = 80;
const CI: u32 = 70;
pub(super) const LEAST: u32 = 12;

/// The words of a name that tell which app it is.
pub(super) fn words(name: &str) -> Vec<String> {
    let mut all: Vec<String> = name.to_lowercase().split(['-', '_', '.', '/', ' ']).map(str::to_owned).collect();
    all.retain(|w| !w.is_empty());
    let telling: Vec<String> = all.iter().filter(|w| !NOISE.contains(&w.as_str())).cloned().collect();
    if telling.is_empty() { all } else { telling }
}

/// How alike two names are, up to 40.
pub(super) fn alike(a: &str, b: &str) -> u32 {
    if a.eq_ignore_ascii_case(b) {
        return 40;
    }
    let (a, b) = (words(a), words(b));
    if a.is_empty() || b.is_empty() {
        return 0;
    }
    if a == b || a.concat() == b.concat() {
        return 36;
    }
    if a.ends_with(&b) || b.ends_with(&a) {
        return 28;
    }
    if b.iter().all(|w| a.contains(w)) || a.iter().all(|w| b.contains(w)) {
        return 22;
    }
    let same = |x: &String, y: &String| SAME.iter().any(|s| s.contains(&x.as_str()) && s.contains(&y.as_str()));
    if a.iter().any(|x| b.iter().any(|y| same(x, y))) { 16 } else { 0 }
}

/// Whether this image is one of the app's: by its whole name, or by its last part.
pub(super) fn image_points(app: &AppFacts, image: &str) -> u32 {
    if image_placeholder(image) {
        return 0;
    }
    let full = full_name(image);
    if app.images.iter().any(|i| full_name(i) == full) {
        IMAGE
    } else if app.images.iter().any(|i| image_name(i) == image_name(image)) {
        IMAGE_NAME
    } else {
        0
    }
}

/// What speaks for this unit running this app.
pub(super) fn score(app: &AppFacts, unit: &Unit<'_>, hints: &Hints) -> u32 {
    let images = unit.images();
    let by_image = images.iter().map(|image| image_points(app, image)).max().unwrap_or_default();
    let own: Vec<String> = app.images.iter().map(|i| image_name(i)).collect();
    let set = unit.objects().iter().flat_map(|o| hints.images_of(o.name(), &o.file)).collect::<Vec<_>>();
    let by_ci = if set.iter().any(|image| own.contains(image)) { CI } else { 0 };
    // An image that is somebody else's for sure is not outweighed by a name.
    let strange = images.iter().all(|image| third_party(image).is_some());
    let mut points = by_image.max(by_ci);
    if points == 0 && strange {
        return 0;
    }
    let name = alike(unit.first.name(), app.name.as_str());
    let containers = look::template(&unit.first.value).into_iter().flat_map(look::containers);
    let called = containers.filter(|(init, _)| !init).map(|(_, c)| alike(text(c, "/name"), app.name.as_str()));
    let container = called.max().unwrap_or_default();
    let image = images.iter().map(|i| alike(&image_name(i), app.name.as_str())).max().unwrap_or_default();
    points += name.max(container.saturating_sub(4)).max(image.saturating_sub(2));
    points + folder(app, unit)
}

/// Its manifest lies in the app's folder, or in one that is called like the app.
fn folder(app: &AppFacts, unit: &Unit<'_>) -> u32 {
    let file = unit.first.file.as_str();
    if !app.path.is_empty() && file.strip_prefix(app.path.as_str()).is_some_and(|rest| rest.starts_with('/')) {
        return 20;
    }
    let last = app.path.rsplit('/').next().unwrap_or_default();
    let mut parts: Vec<&str> = file.split('/').collect();
    let name = parts.pop().unwrap_or_default();
    let stem = name.split('.').next().unwrap_or_default();
    let called = |part: &str| [last, app.name.as_str()].iter().any(|n| !n.is_empty() && alike(part, n) >= 36);
    if parts.iter().any(|p| called(p)) || called(stem) { 14 } else { 0 }
}

/// Programs that nobody writes as an app of their own repository, by a word of their image's name.
const KNOWN: [&str; 44] = [
    "postgres",
    "postgresql",
    "postgis",
    "mysql",
    "mariadb",
    "mongo",
    "mongodb",
    "redis",
    "valkey",
    "memcached",
    "rabbitmq",
    "kafka",
    "zookeeper",
    "elasticsearch",
    "opensearch",
    "kibana",
    "logstash",
    "fluentd",
    "fluent-bit",
    "minio",
    "cassandra",
    "couchdb",
    "influxdb",
    "clickhouse",
    "neo4j",
    "nats",
    "activemq",
    "consul",
    "vault",
    "etcd",
    "prometheus",
    "grafana",
    "loki",
    "tempo",
    "jaeger",
    "zipkin",
    "alertmanager",
    "adminer",
    "phpmyadmin",
    "pgadmin4",
    "mailhog",
    "keycloak",
    "traefik",
    "busybox",
];

/// Whose program an image is, if it is one that everybody knows or of Docker's own library.
pub(super) fn third_party(image: &str) -> Option<String> {
    if image_placeholder(image) {
        return None;
    }
    let name = image_name(image);
    let full = full_name(image);
    let known = KNOWN.contains(&name.as_str())
        || name.split(['-', '_']).next().is_some_and(|w| KNOWN.contains(&w))
        || name.split("cp-").nth(1).is_some_and(|w| KNOWN.contains(&w));
    // An own image is often written without its registry: only known names count as the library's.
    (known || ["docker.io/library/nginx", "docker.io/library/httpd"].contains(&full.as_str())).then_some(name)
}

//! Checked values to the types that the product reads.

use std::collections::BTreeMap;

use super::{
    super::ids::{AppName, EnvironmentName, StepName},
    Allow, App, AppKind, Approval, DeployFrom, Environment, Notify, On, PreDeploy, Probe, RepoConfig, Resources,
    Service, Smoke, Step,
    formats::clean_path,
    grammar::{Data, Pair, Value},
    parse::defaults,
    table,
};

impl Default for RepoConfig {
    /// What an empty file says.
    fn default() -> Self {
        config(&defaults(&table::FILE))
    }
}

impl Default for App {
    /// A web app at the repository's root without steps.
    fn default() -> Self {
        app(&defaults(&table::APP))
    }
}

impl Step {
    /// A step that runs this, everything else by default.
    #[must_use]
    pub fn new(run: impl Into<String>) -> Self {
        Self { run: run.into(), ..step(&defaults(&table::STEP)) }
    }
}

impl Environment {
    /// An environment with these releases, everything else by default.
    #[must_use]
    pub fn new(deploy: DeployFrom) -> Self {
        Self { deploy, ..environment(&defaults(&table::ENVIRONMENT)) }
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.text(key).map(str::to_owned)
}

fn variables(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.get("env").map_or(&[][..], Value::pairs);
    pairs.iter().filter_map(|p| Some((p.key.clone(), p.value.as_text()?.to_owned()))).collect()
}

/// The pairs of a mapping from names.
fn named<'v, N, T>(value: &'v Value, key: &str, of: fn(&'v Value) -> T) -> impl Iterator<Item = (N, T)> + 'v
where
    N: TryFrom<String> + 'v,
    T: 'v,
{
    let pairs: &'v [Pair] = value.get(key).map_or(&[][..], Value::pairs);
    pairs.iter().filter_map(move |p| Some((N::try_from(p.key.clone()).ok()?, of(&p.value))))
}

pub(super) fn config(file: &Value) -> RepoConfig {
    let on = file.get("on");
    RepoConfig {
        on: On {
            push: on.filter(|on| on.written("push").is_some()).map(|on| on.texts("push")),
            pull_request: on.is_some_and(|on| on.bool("pull_request")),
        },
        apps: named::<AppName, App>(file, "apps", app).collect(),
        environments: named::<EnvironmentName, Environment>(file, "environments", environment).collect(),
        notify: Notify { slack: file.get("notify").and_then(|n| text(n, "slack")) },
    }
}

fn app(value: &Value) -> App {
    App {
        kind: if value.text("kind") == Some("worker") { AppKind::Worker } else { AppKind::Web },
        path: clean_path(value.text("path").unwrap_or_default()),
        container: text(value, "container"),
        cache: value.texts("cache"),
        env: variables(value),
        secrets: value.texts("secrets"),
        steps: named::<StepName, Step>(value, "steps", step).collect(),
        image: text(value, "image").or_else(|| value.get("image").and_then(|i| text(i, "name"))),
        image_tag: value.get("image").filter(|i| i.text("from") == Some("ci")).map(image_tag),
        image_of: value.text("image_of").and_then(|n| AppName::new(n).ok()),
        dockerfile: value.text("dockerfile").map(clean_path),
        files: value.written("files").map(|_| value.texts("files")),
        start: text(value, "start"),
        port: value.int("port").and_then(|p| u16::try_from(p).ok()),
        resources: resources(value),
        health: text(value, "health"),
        pre_deploy: value.written("pre_deploy").map(|p| PreDeploy {
            run: text(&p.value, "run").unwrap_or_default(),
            reversible: p.value.bool("reversible"),
            timeout: p.value.duration("timeout"),
        }),
        switch_after: value.texts("switch_after").into_iter().filter_map(|n| AppName::new(n).ok()).collect(),
    }
}

/// How another CI tags the image.
fn image_tag(image: &Value) -> String {
    image.written("tag").and_then(|p| p.value.as_text()).unwrap_or("{sha}").to_owned()
}

fn step(value: &Value) -> Step {
    Step {
        run: text(value, "run").unwrap_or_default(),
        reports: value.texts("reports"),
        services: named::<String, Service>(value, "services", service).collect(),
        timeout: value.duration("timeout"),
        env: variables(value),
        resources: resources(value),
    }
}

fn resources(value: &Value) -> Resources {
    let resources = value.get("resources");
    let cpu = match resources.and_then(|r| r.get("cpu")).map(|v| &v.data) {
        Some(Data::Number(cpu)) => Some(*cpu),
        _ => None,
    };
    Resources { cpu, memory: resources.and_then(|r| r.int("memory")) }
}

fn service(value: &Value) -> Service {
    Service { image: text(value, "image").unwrap_or_default(), env: variables(value), ready: text(value, "ready") }
}

fn environment(value: &Value) -> Environment {
    let deploy = value.get("deploy");
    let from = |key| deploy.and_then(|d| d.text(key));
    let probe = value.get("probe");
    Environment {
        deploy: match (from("branch"), from("promote_from").and_then(|n| EnvironmentName::new(n).ok())) {
            (Some(branch), _) => DeployFrom::Branch(branch.to_owned()),
            (None, Some(other)) => DeployFrom::PromoteFrom(other),
            (None, None) => DeployFrom::Command,
        },
        after: match value.written("after") {
            Some(_) => value.texts("after"),
            None => vec!["switchover".to_owned()],
        },
        approval: if value.text("approval") == Some("required") { Approval::Required } else { Approval::None },
        allow: value.written("allow").map(|p| Allow {
            roles: p.value.texts("roles"),
            teams: p.value.texts("teams"),
            users: p.value.texts("users"),
        }),
        target: text(value, "target"),
        manifests: value.text("manifests").map(clean_path),
        url: text(value, "url"),
        env: variables(value),
        secrets: value.texts("secrets"),
        replicas: value.int("replicas").and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
        probe: Probe {
            path: probe.and_then(|p| text(p, "path")),
            interval: probe.map(|p| p.duration("interval")).unwrap_or_default(),
            body: probe.and_then(|p| text(p, "body")),
        },
        smoke: value
            .written("smoke")
            .map(|p| Smoke { run: text(&p.value, "run").unwrap_or_default(), timeout: p.value.duration("timeout") }),
        min_ready: value.duration("min_ready"),
        start_timeout: value.duration("start_timeout"),
        watch_for: value.duration("watch_for"),
        keep_previous: value.duration("keep_previous"),
        drain_timeout: value.duration("drain_timeout"),
        windows: value.texts("windows"),
    }
}

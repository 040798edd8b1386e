//! The server in the cluster at work: what it needs of the world outside, and releases from inside, through the loss of
//! its own pod.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use switchover::demo::github::{StandIn, model::Model};
use tokio::runtime::Runtime;

use super::{
    deploy::Installed,
    rig::{Cluster, DEADLINE, fresh, until},
};
use crate::{
    engine::rig::{ANN, NAME, OWNER, github},
    rollout::stage::Users,
};

pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// GitHub, and an engine that builds, at the machine's own address.
pub struct Outside {
    runtime: Runtime,
    github: StandIn,
    app: i64,
    repo: i64,
    pub key: String,
    engine: Child,
    engine_at: SocketAddr,
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.engine.kill();
        let _ = self.engine.wait();
    }
}

impl Outside {
    pub fn start(cluster: &Cluster, folder: &Path) -> Self {
        let host = cluster.host_ip();
        let runtime = Runtime::new().unwrap();
        let listen = format!("{host}:0").parse().unwrap();
        let (github, app, repo) = runtime.block_on(github(folder, listen, None, SECRET));
        let engine_at = std::net::TcpListener::bind((host, 0)).unwrap().local_addr().unwrap();
        let engine = Command::new("socat")
            .arg(format!("TCP-LISTEN:{},bind={host},reuseaddr,fork", engine_at.port()))
            .arg(format!("UNIX-CONNECT:{}", cluster.docker_host().trim_start_matches("unix://")))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let (app, key) = (app.id, app.private_key_pem);
        Self { runtime, github, app, repo, key, engine, engine_at }
    }

    /// The shipped settings, with what is an operator's own.
    pub fn settings(&self, shipped: &str, registry: &str) -> String {
        let own: Vec<String> = shipped
            .lines()
            .filter(|line| !line.starts_with("docker_certs"))
            .map(|line| match line.split_once(" = ").unwrap_or((line, "")).0 {
                "app_id" => format!("app_id = {}", self.app),
                "docker_host" => format!("docker_host = \"tcp://{}\"", self.engine_at),
                _ => line.to_owned(),
            })
            .collect();
        format!(
            "github_url = \"{}\"\ngithub_web_url = \"{}\"\n{}\n[registries.\"{registry}\"]\nusername = \"acme\"\n\
             password_file = \"/etc/switchover/secrets/registry-password\"\nplain_http = true\nrepositories = [\"acme/*\"]\n\
             [targets.switchover]\nkind = \"kubernetes\"\nnamespace = \"switchover\"\nrepositories = [\"acme/shop\"]\n\
             service_accounts = [\"switchover\"]\n",
            self.github.api_url(),
            self.github.web_url(),
            own.join("\n")
        )
    }

    /// From here on it is told of pushes.
    pub fn install(&self, server: SocketAddr) {
        let hook = format!("http://{server}/webhooks/github");
        self.github.write(|m| m.apps.get_mut(&self.app).unwrap().spec.webhook_url = Some(hook));
        let _inside = self.runtime.enter();
        self.github.install(self.app, OWNER, Some(&[self.repo])).unwrap();
    }

    fn push(&self, branch: &str, files: &[(&str, &str)], message: &str) -> String {
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, Some(*text))).collect();
        self.runtime.block_on(self.github.commit(self.repo, branch, &files, message, ANN)).unwrap()
    }

    fn wait<T>(&self, what: &str, said: impl Fn() -> String, look: impl FnMut(&Model) -> Option<T>) -> T {
        let found = self.runtime.block_on(self.github.wait_for(what, DEADLINE, look));
        found.unwrap_or_else(|e| panic!("{e}\n{}", said()))
    }
}

fn config(image: &str) -> String {
    format!(
        "version: 1
apps:
  web:
    container: busybox:latest
    image: {image}
    steps:
      test: {{run: \"test ! -e broken\"}}
environments:
  production:
    deploy: {{branch: main}}
    target: production
    manifests: k8s
    probe: {{path: /, interval: 20ms}}
    min_ready: 1s
    watch_for: 5s
    keep_previous: 10m
    drain_timeout: 1s
  switchover:
    deploy: {{branch: ops}}
    target: switchover
    manifests: ops
    min_ready: 1s
    watch_for: 5s
"
    )
}

fn manifests(image: &str, name: &str, label: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{{label}: {name}}}}}
  template:
    metadata: {{labels: {{{label}: {name}}}}}
    spec:
      containers:
        - name: {name}
          image: {image}:latest
          ports: [{{containerPort: 8080}}]
          readinessProbe: {{httpGet: {{path: /health, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{{label}: {name}}}
  ports: [{{port: 8080}}]
"
    )
}

/// Releases, one after the other, each of them through a loss of the server's pod; and the way back.
pub(super) fn releases(outside: &Outside, installed: &Installed<'_>, server: SocketAddr) {
    let cluster = installed.0;
    let production = |args: &[&str]| cluster.kubectl(&[["-n", "production"].as_slice(), args].concat());
    let image = format!("{}/inside/shop", cluster.registry());
    let base = cluster.push_app("inside/base", "none", &[("ON_TERM", "polite")]);
    let recipe = |release: &str| format!("FROM {}\nENV RELEASE={release}\n", base.tagged());
    let said = || installed.kubectl(&["logs", "--tail=25", "deployment/switchover"]);
    let deployed = |sha: &str| {
        outside.wait(&format!("deployment of {}", &sha[..7]), said, |m| {
            let of = m.repo(OWNER, NAME)?.deployments.values().filter(|d| d.sha == sha);
            let states: Vec<_> = of.map(|d| d.state().to_owned()).collect();
            assert!(states.len() < 2, "{states:?}");
            let over = states.iter().any(|s| matches!(s.as_str(), "success" | "failure" | "error"));
            over.then(|| assert_eq!(states, ["success"], "{}", said()))
        });
    };
    let (config, shop, recipe_one) = (config(&image), manifests(&image, "shop", "app"), recipe("one"));
    let own = manifests(&image, "switchover", "app.kubernetes.io/name");
    let first = [
        (".github/switchover.yml", config.as_str()),
        ("k8s/shop.yml", shop.as_str()),
        ("ops/switchover.yml", own.as_str()),
        ("Dockerfile", recipe_one.as_str()),
    ];
    let one = outside.push("main", &first, "one");
    deployed(&one);
    let ip = production(&["get", "service", "shop", "-o", "jsonpath={.spec.clusterIP}"]);
    let shop = SocketAddr::new(ip.parse().unwrap(), 8080);
    assert_eq!(fresh(shop, "/"), Ok("one".into()));
    let users = {
        let _inside = outside.runtime.enter();
        Users::ask(shop)
    };

    // Its pod goes while the new slot gets warm.
    let slots = || production(&["get", "deployments", "-o", "name"]).lines().count();
    assert_eq!(slots(), 1);
    let two = outside.push("main", &[("Dockerfile", &recipe("two"))], "two");
    until("a second slot is made", || slots() == 2);
    installed.lose(server);
    deployed(&two);
    assert_eq!(fresh(shop, "/"), Ok("two".into()));

    // And right after the flip.
    let selector = || production(&["get", "service", "shop", "-o", "jsonpath={.spec.selector}"]);
    let before = selector();
    let three = outside.push("main", &[("Dockerfile", &recipe("three"))], "three");
    until("the flip", || selector() != before);
    installed.lose(server);
    deployed(&three);
    assert_eq!(fresh(shop, "/"), Ok("three".into()));

    let begun = Instant::now();
    installed.kubectl(&["exec", "deployment/switchover", "--", "switchover", "rollback", "production"]);
    until("the way back", || fresh(shop, "/") == Ok("two".into()));
    println!("rollback from inside, with kubectl's own time: {:.2} s", begun.elapsed().as_secs_f64());
    outside.wait("a new deployment of the commit before", said, |m| {
        let newest = m.repo(OWNER, NAME)?.deployments.values().next_back()?;
        (newest.sha == two && newest.state() == "success").then_some(())
    });
    let (sent, lost) = outside.runtime.block_on(users.leave());
    println!("users: {} lost of {sent}", lost.len());
    assert!(sent > 100 && lost.is_empty(), "{} of {sent}: {lost:#?}", lost.len());

    // Two of itself beside each other can't be.
    let pods = || installed.kubectl(&["get", "pods", "-l", "app.kubernetes.io/name=switchover", "-o", "name"]);
    let before = pods();
    let itself = outside.push("ops", &first, "itself");
    let words = outside.wait("its refusal", said, |m| {
        let checks = m.repo(OWNER, NAME)?.latest_checks(&itself);
        let check = checks.into_iter().find(|c| c.name == "deploy (switchover)" && c.status == "completed")?;
        Some(format!("{:?} {:?} {:?}", check.conclusion, check.output.title, check.output.summary))
    });
    assert!(words.contains("this server runs in its Deployment switchover"), "{words}");
    assert_eq!(pods(), before);
    itself_as_a_worker(outside, installed, server);
}

/// It starts the next one, ends, and that goes on with the rollout.
fn itself_as_a_worker(outside: &Outside, installed: &Installed<'_>, server: SocketAddr) {
    let registry = installed.0.registry();
    let image = format!("{registry}/inside/server");
    let live = installed.kubectl(&["get", "deployment", "switchover", "-o", "json"]);
    let mut live: serde_json::Value = serde_json::from_str(&live).unwrap();
    live["metadata"] = serde_json::json!({"name": "switchover", "labels": live["metadata"]["labels"]});
    live.as_object_mut().unwrap().remove("status");
    live["spec"]["template"]["spec"]["containers"][0]["image"] = format!("{image}:latest").into();
    let config = config(&image).replace("  web:\n", "  server:\n    kind: worker\n    path: .\n");
    let key = installed.key();
    let begun = Instant::now();
    let next = outside.push(
        "ops",
        &[
            (".github/switchover.yml", &config),
            ("ops/switchover.yml", &live.to_string()),
            ("Dockerfile", &format!("FROM {registry}/switchover\nENV NEXT=1\n")),
        ],
        "the next server",
    );
    ends(outside, installed, &next, "success");
    println!("released itself after {:.1} s", begun.elapsed().as_secs_f64());
    let deployments = deployments(installed);
    let (up, down): (Vec<_>, Vec<_>) = deployments.lines().partition(|line| line.ends_with(" 1"));
    assert_eq!(down, ["switchover 0"], "{deployments}");
    let [up] = up[..] else { panic!("{deployments}") };
    let next = format!("deployment/{}", up.trim_end_matches(" 1"));
    let path = "/var/lib/switchover/data/server.key";
    assert_eq!(installed.kubectl(&["exec", &next, "--", "sha256sum", path]), key, "the same data");
    assert!(installed.kubectl(&["exec", &next, "--", "env"]).contains("NEXT=1"));
    until("it answers", || super::rig::fresh(server, "/readyz").is_ok());
    one_that_does_not_start(outside, installed, server, &next);
}

/// Each Deployment with its wanted size.
fn deployments(installed: &Installed<'_>) -> String {
    let template = "go-template={{range .items}}{{.metadata.name}} {{.spec.replicas}}{{\"\\n\"}}{{end}}";
    installed.kubectl(&["get", "deployments", "-o", template])
}

/// Waits until the only deployment of a commit ends, which must be so.
fn ends(outside: &Outside, installed: &Installed<'_>, sha: &str, how: &str) {
    let said = || installed.kubectl(&["logs", "--tail=25", "-l", "app.kubernetes.io/name=switchover"]);
    outside.wait(&format!("the deployment of {}", &sha[..7]), said, |m| {
        let of = m.repo(OWNER, NAME)?.deployments.values().filter(|d| d.sha == sha);
        let states: Vec<_> = of.map(|d| d.state().to_owned()).collect();
        let over = states.iter().any(|s| matches!(s.as_str(), "success" | "failure" | "error"));
        over.then(|| assert_eq!(states, [how], "{}", said()))
    });
}

/// The next one can't start: a person starts the one before again, which calls the release failed and goes on serving.
fn one_that_does_not_start(outside: &Outside, installed: &Installed<'_>, server: SocketAddr, serves: &str) {
    let recipe = format!("FROM {}/switchover\nENV SWITCHOVER_EXECUTOR=nonsense\n", installed.0.registry());
    let broken = outside.push("ops", &[("Dockerfile", &recipe)], "a server that does not start");
    until("it hands over", || deployments(installed).lines().any(|d| d == serves.replace("deployment/", "") + " 0"));
    let its_pods = || installed.kubectl(&["get", "pods", "-o", "name"]);
    let before = serves.replace("deployment/", "pod/");
    until("its pod ends", || !its_pods().lines().any(|pod| pod.starts_with(&before)));
    installed.kubectl(&["scale", serves, "--replicas=1"]);
    ends(outside, installed, &broken, "failure");
    until("it answers", || super::rig::fresh(server, "/readyz").is_ok());
    let left = deployments(installed);
    let up: Vec<_> = left.lines().filter(|line| !line.ends_with(" 0")).collect();
    assert_eq!(up, [serves.replace("deployment/", "") + " 1"], "{left}");
    let words = outside.wait("why", String::new, |m| {
        let checks = m.repo(OWNER, NAME)?.latest_checks(&broken);
        let check = checks.into_iter().find(|c| c.name == "deploy (switchover)" && c.status == "completed")?;
        Some(format!("{:?}", check.output))
    });
    assert!(words.contains("was started again: the next one did not come up"), "{words}");
}

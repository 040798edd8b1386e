//! `deploy/kubernetes` and `deploy/Dockerfile`, as they are shipped: applied, and the server runs, and releases.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use switchover::cluster::rights::RELEASE;

use super::{
    inside::{self, Outside},
    rig::{Cluster, get, until},
};
use crate::github::support::left_out;

const NAMESPACES: [&str; 3] = ["switchover", "switchover-steps", "production"];

/// What an operator does by the words of deploy/README.md. Taken away again when it is dropped.
pub(super) struct Installed<'a>(pub(super) &'a Cluster);

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        let args = ["delete", "--wait=false", "--ignore-not-found", "--request-timeout=10s", "namespace"];
        let _ = self.0.try_kubectl(&[args.as_slice(), &NAMESPACES].concat());
    }
}

impl Installed<'_> {
    pub(super) fn kubectl(&self, args: &[&str]) -> String {
        self.0.kubectl(&[["-n", "switchover"].as_slice(), args].concat())
    }

    fn ready(&self) {
        let deployment = "deployment/switchover";
        let args = ["-n", "switchover", "rollout", "status", deployment, "--timeout=300s"];
        if let Err(e) = self.0.try_kubectl(&args) {
            panic!("{e}\n{}\n{}", self.kubectl(&["get", "events"]), self.kubectl(&["logs", "--tail=20", deployment]));
        }
    }

    /// Its pod goes without a word, and another one serves.
    pub(super) fn lose(&self, server: SocketAddr) {
        let ready = "go-template={{range .items}}{{$pod := .}}{{range .status.conditions}}{{if eq .type \"Ready\"}}{{$pod.metadata.uid}} {{.status}}{{\"\\n\"}}{{end}}{{end}}{{end}}";
        let pods = || self.kubectl(&["get", "pods", "-l", "app.kubernetes.io/name=switchover", "-o", ready]);
        let lost = pods();
        self.kubectl(&["delete", "pod", "-l", "app.kubernetes.io/name=switchover", "--force", "--grace-period=0"]);
        until("another pod is ready", || pods().lines().any(|pod| pod.ends_with(" True") && !lost.contains(pod)));
        until("the server answers again", || answers(server, "/readyz"));
    }

    /// What only this server's data folder holds.
    pub(super) fn key(&self) -> String {
        self.kubectl(&["exec", "deployment/switchover", "--", "sha256sum", "/var/lib/switchover/data/server.key"])
    }
}

fn answers(server: SocketAddr, path: &str) -> bool {
    get(TcpStream::connect_timeout(&server, Duration::from_secs(2)), path).is_ok()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// The image by its own Dockerfile, around the binary that is built already.
fn image(cluster: &Cluster, root: &Path, context: &Path) -> String {
    let (binary, deploy) = (context.join("target/release"), context.join("deploy"));
    fs::create_dir_all(&binary).unwrap();
    fs::create_dir_all(&deploy).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_switchover"), binary.join("switchover")).unwrap();
    for file in ["Dockerfile", "Dockerfile.dockerignore"] {
        fs::copy(root.join("deploy").join(file), deploy.join(file)).unwrap();
    }
    cluster.base_image("debian:bookworm-slim");
    let name = format!("{}/switchover", cluster.registry());
    let recipe = deploy.join("Dockerfile");
    let build = ["build", "-q", "--build-arg", "BINARY=prebuilt", "-t", &name, "-f", recipe.to_str().unwrap()];
    cluster.buildkit(&[build.as_slice(), &[context.to_str().unwrap()]].concat());
    cluster.buildkit(&["push", "-q", &name]);
    cluster.buildkit(&["rmi", "-f", &name]);
    name
}

#[test]
fn the_shipped_manifests_run_the_server_with_few_rights() {
    let test = "the_shipped_manifests_run_the_server_with_few_rights";
    let Some(cluster) = Cluster::shared(test) else { return };
    if cluster.dir().is_none() {
        // It may have a Switchover already.
        left_out("own-cluster", test, "SWITCHOVER_TEST_KUBECONFIG names one that is not this test's own");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let image = image(cluster, root, &at("context"));
    copy(&root.join("deploy/kubernetes"), &at("shipped"));
    let overlay = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [shipped]\n\
         images: [{{name: switchover, newName: \"{image}\"}}]\n\
         configMapGenerator:\n  - {{name: switchover-settings, namespace: switchover, behavior: replace, files: [switchover.toml]}}\n",
    );
    fs::write(at("kustomization.yaml"), overlay).unwrap();
    let shipped = fs::read_to_string(at("shipped/switchover.toml")).unwrap();
    let outside = Outside::start(cluster, dir.path());
    fs::write(at("switchover.toml"), outside.settings(&shipped, cluster.registry())).unwrap();
    fs::write(at("app.pem"), &outside.key).unwrap();
    fs::write(at("webhook-secret"), inside::SECRET).unwrap();
    fs::write(at("registry-password"), "pw").unwrap();
    cluster.volume("switchover", "switchover-data");

    let installed = Installed(cluster);
    let apply = ["apply", "-k", dir.path().to_str().unwrap()];
    cluster.kubectl(&apply);
    let files =
        ["app.pem", "webhook-secret", "registry-password"].map(|name| format!("--from-file={}", at(name).display()));
    installed.kubectl(&["create", "secret", "generic", "switchover", &files[0], &files[1], &files[2]]);
    installed.ready();
    let ip = installed.kubectl(&["get", "service", "switchover", "-o", "jsonpath={.spec.clusterIP}"]);
    let server = SocketAddr::new(ip.parse().unwrap(), 80);
    until("the server answers", || answers(server, "/readyz"));

    // Once more is no change: nothing starts anew.
    let again = cluster.kubectl(&apply);
    let changed: Vec<_> = again.lines().filter(|l| !l.ends_with("unchanged") && !l.contains("networkpolicy")).collect();
    assert!(changed.is_empty(), "{changed:?}");

    // Its account, where it has something to do and where it has not.
    let account = "--as=system:serviceaccount:switchover:switchover";
    let can = |verb: &str, what: &str, space: &str| {
        cluster.try_kubectl(&["auth", "can-i", verb, what, "-n", space, account]).is_ok_and(|said| said == "yes")
    };
    let rights = [
        ("create", "pods/exec", "production", false),
        ("create", "pods", "production", false),
        ("create", "serviceaccounts/token", "production", false),
        ("create", "rolebindings.rbac.authorization.k8s.io", "production", false),
        ("create", "jobs.batch", "switchover-steps", true),
        ("get", "secrets", "switchover", false),
        ("create", "jobs.batch", "switchover", false),
        ("get", "secrets", "default", false),
        ("get", "nodes", "default", false),
    ];
    // What releases need is asked for before each of them.
    for rule in &RELEASE {
        for (verb, resource) in rule.verbs.iter().flat_map(|v| rule.resources.iter().map(move |r| (v, r))) {
            let what =
                if rule.group.is_empty() { (*resource).to_owned() } else { format!("{resource}.{}", rule.group) };
            assert!(can(verb, &what, "production"), "{verb} {what}");
        }
    }
    for (verb, what, space, may) in rights {
        assert_eq!(can(verb, what, space), may, "{verb} {what} in {space}");
    }

    // Its pod is lost: another one goes on with the same data.
    let before = installed.key();
    installed.lose(server);
    assert_eq!(installed.key(), before);

    // Where it is itself it may release, too.
    let role = fs::read_to_string(at("shipped/role.yaml")).unwrap();
    let own: Vec<&str> = role.split("\n---\n").take(2).collect();
    fs::write(at("own.yaml"), own.join("\n---\n").replace("namespace: production", "namespace: switchover")).unwrap();
    cluster.kubectl(&["apply", "-f", at("own.yaml").to_str().unwrap()]);
    outside.install(server);
    inside::releases(&outside, &installed, server);
}

#[test]
fn the_ingress_is_taken_by_a_real_api_server() {
    let Some(cluster) = Cluster::shared("the_ingress_is_taken_by_a_real_api_server") else { return };
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/kubernetes/ingress.yaml");
    // Its namespace need not be there: another one takes its place.
    let text = fs::read_to_string(file).unwrap().replace("namespace: switchover", "namespace: default");
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("ingress.yaml");
    fs::write(&copy, text).unwrap();
    cluster.kubectl(&["apply", "--dry-run=server", "-f", copy.to_str().unwrap()]);
}

//! `switchover doctor` on a real cluster: what is well, and what is wrong with the mend.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use switchover::cluster::rights::{RELEASE, Rule, role};
use tokio::runtime::Runtime;

use super::rig::{Cluster, Namespace, until};
use crate::engine::rig::github;

const ROLE: &str = "switchover-target";

/// Whether all is well, and what it printed.
fn doctor(settings: &Path) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchover"));
    let out = command.arg("doctor").arg("--config").arg(settings).env_clear().output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    println!("{said}");
    let log = String::from_utf8_lossy(&out.stderr);
    assert!(matches!(out.status.code(), Some(0 | 1)) && log.is_empty(), "{said}{log}");
    (out.status.success(), said)
}

fn may_patch_services(ns: &Namespace<'_>) -> bool {
    let who = format!("--as=system:serviceaccount:{}:switchover", ns.name);
    ns.try_kubectl(&["auth", "can-i", "patch", "services", &who]).is_ok()
}

#[test]
fn the_doctor_finds_what_is_wrong_and_says_how_to_mend_it() {
    let Some(cluster) = Cluster::shared("the_doctor_finds_what_is_wrong_and_says_how_to_mend_it") else { return };
    let (ns, dir) = (cluster.namespace("doctor"), tempfile::tempdir().unwrap());
    let at = |name: &str| dir.path().join(name);
    let runtime = Runtime::new().unwrap();
    let secret = "0123456789abcdef0123456789abcdef";
    let (github, app, _) = runtime.block_on(github(dir.path(), ([127, 0, 0, 1], 0).into(), None, secret));

    // The Role without one right; a cluster that is not there; a registry that is none.
    let no_patch = |rule: &Rule| {
        let of_services = rule.group.is_empty() && rule.resources.contains(&"services");
        assert!(!of_services || rule.verbs.contains(&"patch"), "the test takes away what is not there");
        !of_services
    };
    let rest: Vec<Rule> = RELEASE.iter().filter(|r| no_patch(r)).copied().collect();
    ns.apply(&role(ROLE, None, &rest));
    let kubeconfig = ns.account(ROLE, dir.path());
    let mut away: serde_json::Value = serde_json::from_str(&fs::read_to_string(&kubeconfig).unwrap()).unwrap();
    away["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1".into();
    fs::write(at("away"), away.to_string()).unwrap();
    for (name, text) in [("app.pem", app.private_key_pem.as_str()), ("secret", secret), ("password", "pw")] {
        fs::write(at(name), text).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let target = |name: &str, file: &Path| {
        format!(
            "[targets.{name}]\nkind = \"kubernetes\"\nkubeconfig_file = \"{}\"\nnamespace = \"{}\"\nrepositories = [\"acme/*\"]\n",
            file.display(),
            ns.name
        )
    };
    let registry = |host: &str| {
        format!(
            "[registries.\"{host}\"]\nusername = \"a\"\npassword_file = \"{}\"\nplain_http = true\nrepositories = [\"acme/*\"]\n",
            at("password").display()
        )
    };
    let settings = |more: &[String]| {
        let text = format!(
            "public_url = \"https://switchover.example.com\"\ndata = \"{}\"\ngithub_url = \"{}\"\ngithub_web_url = \"{}\"\napp_id = {}\n\
             private_key_file = \"{}\"\nwebhook_secret_file = \"{}\"\ndocker_host = \"{}\"\n{}{}{}",
            at("data").display(),
            github.api_url(),
            github.web_url(),
            app.id,
            at("app.pem").display(),
            at("secret").display(),
            cluster.docker_host(),
            target("shop", &kubeconfig),
            registry(cluster.registry()),
            more.concat()
        );
        fs::write(at("switchover.toml"), text).unwrap();
    };
    settings(&[target("away", &at("away")), registry("127.0.0.1:1")]);
    until("the right is not there", || !may_patch_services(&ns));
    let (well, said) = doctor(&at("switchover.toml"));
    assert!(!well && said.ends_with("Mend what is wrong above.\n"), "{said}");
    let registry_line = format!("ok      registry {}", cluster.registry());
    let rights = format!("WRONG   target shop, rights: in namespace {} the account may not:", ns.name);
    for line in [
        "ok      GitHub at http://127.0.0.1:",
        "ok      Docker engine at unix://",
        "ok      target shop: Kubernetes 1.",
        &rights,
        "patch services",
        "; `switchover doctor --rbac` prints the Role to give it",
        "ok      target shop, DNS: ",
        "ok      target shop, metrics: ",
        "WRONG   target away: https://127.0.0.1:1",
        &registry_line,
        "WRONG   registry 127.0.0.1:1: it can't be reached",
    ] {
        assert!(said.contains(line), "{line} is not in\n{said}");
    }
    assert!(!said.contains("pw") && !said.contains(secret), "a secret is told");

    // By the words of its lines: mended.
    ns.apply(&role(ROLE, None, &RELEASE));
    settings(&[]);
    until("the right is there", || may_patch_services(&ns));
    let (well, said) = doctor(&at("switchover.toml"));
    assert!(well && said.ends_with("Everything that the settings name can be used.\n"), "{said}");
    runtime.block_on(github.stop());
}

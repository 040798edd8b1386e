//! The whole way in containers: push, steps, image, registry, release, rollback. A real engine and a real registry.

use std::collections::BTreeSet;

use super::rig::{NAME, OWNER, Rig, rollback};
use crate::docker::rig::{SMALL, engine};

/// One app with a Dockerfile; its page says its version.
fn files(registry: &str) -> Vec<(&'static str, Option<String>)> {
    let config = format!(
        "version: 1
apps:
  web:
    container: {SMALL}
    image: {registry}/acme/web-{id}
    port: 8080
    health: /version
    steps:
      test: {{run: \"test ! -e broken && id -u > /dev/null\"}}
      build: {{run: \"mkdir -p www && cp version www/version\"}}
environments:
  production:
    deploy: {{branch: main}}
    probe: {{path: /version, interval: 20ms}}
    min_ready: 100ms
    watch_for: 1s
    keep_previous: 10m
    drain_timeout: 5s
    smoke: {{run: \"wget -q -O - $URL/version | grep -q .\"}}
",
        id = uuid::Uuid::new_v4().simple()
    );
    let dockerfile = format!(
        "FROM {SMALL}\nCOPY www /www\nEXPOSE 8080\nCMD [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/www\"]\n"
    );
    vec![
        (".github/switchover.yml", Some(config)),
        ("Dockerfile", Some(dockerfile)),
        ("version", Some("one\n".to_owned())),
    ]
}

pub(super) fn settings(engine: &crate::docker::rig::Engine, folder: &std::path::Path) -> String {
    let password = folder.join("registry-password");
    std::fs::write(&password, "pw").expect("written");
    std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("set");
    format!(
        "executor = \"docker\"\ndocker_host = \"{}\"\n[targets.here]\nkind = \"docker\"\nrepositories = [\"acme/*\"]\n\
         [registries.\"{}\"]\nusername = \"acme\"\npassword_file = \"{}\"\nplain_http = true\nrepositories = [\"acme/*\"]\n",
        engine.host,
        engine.registry,
        password.display()
    )
}

async fn page(rig: &Rig) -> String {
    let answer =
        reqwest::get(format!("{}/version", rig.address().await.trim_end_matches('/'))).await.expect("answered");
    answer.text().await.expect("text").trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_push_to_containers_and_back() {
    let Some(engine) = engine("from_a_push_to_containers_and_back") else { return };
    let rig = Rig::start_with(&|folder| settings(engine, folder)).await;
    let files = files(&engine.registry);
    let files: Vec<(&str, Option<&str>)> = files.iter().map(|(p, t)| (*p, t.as_deref())).collect();
    let one = rig.push("main", &files, "one").await;
    assert_eq!(rig.conclusion(&one, "web / image (push)").await, "success");
    rig.deployed(&one, "success").await;
    assert_eq!(page(&rig).await, "one");
    let two = rig.push("main", &[("version", Some("two\n"))], "two").await;
    rig.deployed(&two, "success").await;
    assert_eq!(page(&rig).await, "two");
    rig.control.command(&rollback()).await.expect("rolled back");
    rig.wait("a new deployment of the old commit", |m| {
        let newest = m.repo(OWNER, NAME)?.deployments.values().next_back()?;
        (newest.sha == one && newest.state() == "success").then_some(())
    })
    .await;
    assert_eq!(page(&rig).await, "one");
    // What a Dockerfile does wrong is told with its line; what is live stays.
    let wrong = rig.push("main", &[("Dockerfile", Some(&format!("FROM {SMALL}\nCOPY nothing /www\n")))], "wrong").await;
    let check = rig.check(&wrong, "web / image (push)").await;
    assert_eq!(check.conclusion.as_deref(), Some("failure"));
    let said = format!("{:?} {:?}", check.output.title, check.output.summary);
    assert!(said.contains("Dockerfile line 2") && said.contains("nothing"), "{said}");
    assert_eq!(page(&rig).await, "one");
    // The commit is the tag, so that people find it; the digest is what runs.
    let docker = engine.docker().await;
    let containers = docker.api().list_containers(None).await.expect("listed");
    let images: BTreeSet<String> = containers
        .into_iter()
        .filter(|c| c.labels.as_ref().is_some_and(|l| l.contains_key(switchover::docker::OWNER)))
        .filter_map(|c| c.image)
        .filter(|i| i.contains("acme/web-"))
        .collect();
    assert!(!images.is_empty() && images.iter().all(|i| i.contains("@sha256:")), "{images:?}");
    rig.stop().await;
}

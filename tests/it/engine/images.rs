//! Images that are built anew, and images that another CI pushes: with a real engine and a real registry.

use std::{fs, path::Path, process::Command};

use switchover::engine::commands::{Command as Order, Verb};

use super::{
    containers::settings,
    rig::{NAME, OWNER, Rig, rollback},
};
use crate::docker::rig::{Engine, SMALL, engine};

/// The engine's own client, as another CI would use it.
fn docker(engine: &Engine, arguments: &[&str]) {
    let client = ["/usr/bin/docker", "docker"].into_iter().find(|c| Path::new(c).exists()).unwrap_or("docker");
    let out = Command::new(client)
        .env("DOCKER_HOST", &engine.host)
        .env("DOCKER_BUILDKIT", "0")
        .args(arguments)
        .output()
        .expect("the engine's client");
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Builds and pushes an image that serves one file.
fn push(engine: &Engine, name: &str, text: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("www")).expect("made");
    fs::write(folder.path().join("www/version"), text).expect("written");
    let file = format!(
        "FROM {SMALL}\nCOPY www /www\nEXPOSE 8080\nCMD [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/www\"]\n"
    );
    fs::write(folder.path().join("Dockerfile"), file).expect("written");
    docker(engine, &["build", "-q", "-t", name, folder.path().to_str().expect("text")]);
    docker(engine, &["push", "-q", name]);
    docker(engine, &["rmi", "-f", name]);
}

fn config(image: &str, steps: &str) -> String {
    format!(
        "version: 1
apps:
  web:
    container: {SMALL}
    image: {image}
    port: 8080
    health: /version
    steps: {steps}
environments:
  production:
    deploy: {{branch: main}}
    probe: {{path: /version, interval: 20ms}}
    min_ready: 100ms
    watch_for: 500ms
"
    )
}

async fn page(rig: &Rig, path: &str) -> String {
    let address = rig.address().await;
    let answer = reqwest::get(format!("{}/{path}", address.trim_end_matches('/'))).await.expect("answered");
    answer.text().await.expect("text").trim().to_owned()
}

/// Deployments that ended well so far.
async fn releases(rig: &Rig) -> usize {
    let released = |m: &switchover::demo::github::model::Model| {
        Some(
            m.repo(OWNER, NAME)?
                .deployments
                .values()
                .filter(|d| d.state() == "success" || d.state() == "inactive")
                .count(),
        )
    };
    rig.wait("the deployments", released).await
}

async fn one_more(rig: &Rig, than: usize) {
    rig.wait("one more release", |m| {
        let repo = m.repo(OWNER, NAME)?;
        let ended = repo.deployments.values().filter(|d| d.state() == "success" || d.state() == "inactive").count();
        (ended > than).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_another_ci_is_waited_for() {
    let Some(engine) = engine("an_image_of_another_ci_is_waited_for") else { return };
    let rig = Rig::start_with(&|folder| settings(engine, folder)).await;
    let image = format!("{}/acme/pushed-{}", engine.registry, uuid::Uuid::new_v4().simple());
    let config = config(&format!("{{name: {image}, from: ci, tag: \"ci-{{short}}\"}}"), "{test: {run: \"true\"}}");
    let sha = rig.push("main", &[(".github/switchover.yml", Some(&config))], "one").await;
    assert_eq!(rig.conclusion(&sha, "web / test (push)").await, "success");
    rig.wait("the step that waits", |m| {
        let checks = m.repo(OWNER, NAME)?.latest_checks(&sha);
        checks.iter().any(|c| c.name == "web / image (push)" && c.status == "in_progress").then_some(())
    })
    .await;
    push(engine, &format!("{image}:ci-{}", &sha[..7]), "pushed");
    assert_eq!(rig.conclusion(&sha, "web / image (push)").await, "success");
    rig.deployed(&sha, "success").await;
    assert_eq!(page(&rig, "version").await, "pushed");
    // The same files once more are another commit, whose image may be another: it is waited for too.
    let again = rig.push("main", &[("README", Some("words"))], "two").await;
    push(engine, &format!("{image}:ci-{}", &again[..7]), "again");
    rig.deployed(&again, "success").await;
    assert_eq!(page(&rig, "version").await, "again");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_live_is_built_anew_on_command_and_on_a_newer_base() {
    let Some(engine) = engine("what_is_live_is_built_anew_on_command_and_on_a_newer_base") else { return };
    let rig = Rig::start_with(&|folder| settings(engine, folder)).await;
    let id = uuid::Uuid::new_v4().simple().to_string();
    let (image, base) = (format!("{}/acme/web-{id}", engine.registry), format!("{}/acme/base-{id}:1", engine.registry));
    push(engine, &base, "old base");
    let config = config(&image, "{test: {run: \"true\"}, build: {run: \"true\"}}");
    let dockerfile = format!("FROM {base}\nRUN head -c 16 /dev/urandom | md5sum > /www/built\n");
    let files = [(".github/switchover.yml", Some(config.as_str())), ("Dockerfile", Some(dockerfile.as_str()))];
    let one = rig.push("main", &files, "one").await;
    rig.deployed(&one, "success").await;
    let first = page(&rig, "built").await;

    // The same tree on the same base is not built twice.
    let before = releases(&rig).await;
    rig.control.command(&Order { verb: Verb::Rebuild, ..rollback() }).await.expect("begun");
    one_more(&rig, before).await;
    let second = page(&rig, "built").await;
    assert_ne!(first, second, "nothing was built anew");
    // Its tests were proven and are not run again.
    let text = rig.check(&one, "web / test (push)").await;
    assert!(format!("{:?}", text.output).contains("unchanged since"), "{text:?}");

    let two = rig.push("main", &[("README.md", Some("words"))], "two").await;
    rig.deployed(&two, "success").await;
    assert_eq!(page(&rig, "built").await, second, "the same tree on the same base was built twice");

    push(engine, &base, "new base");
    let three = rig.push("main", &[("README.md", Some("more words"))], "three").await;
    rig.deployed(&three, "success").await;
    assert_ne!(page(&rig, "built").await, second, "the old base stands");
    assert_eq!(page(&rig, "version").await, "new base");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_nobody_wrote_down_starts_by_its_own_command() {
    let Some(engine) = engine("an_image_that_nobody_wrote_down_starts_by_its_own_command") else { return };
    let rig = Rig::start_with(&|folder| settings(engine, folder)).await;
    // As inferred for a release of files: what it names is not in the image.
    let config = config("x", "{build: {run: \"mkdir -p www && echo here > www/version\"}}");
    let config = config.replace("    image: x\n", "    start: java -jar target/shop.jar --server.port=$PORT\n");
    let dockerfile = format!(
        "FROM {SMALL}\nCOPY www /www\nEXPOSE 8080\nCMD [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/www\"]\n"
    );
    let files = [(".github/switchover.yml", Some(config.as_str())), ("Dockerfile", Some(dockerfile.as_str()))];
    let one = rig.push("main", &files, "one").await;
    rig.deployed(&one, "success").await;
    assert_eq!(page(&rig, "version").await, "here");
    rig.stop().await;
}

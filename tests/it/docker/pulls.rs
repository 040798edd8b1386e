//! Pulls, and what registries may answer.

use std::collections::BTreeMap;

use bollard::query_parameters::{PushImageOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder};
use futures_util::StreamExt;
use switchover::{
    docker::{
        Docker, Reference,
        pull::{Login, Logins, PullError},
    },
    domain::run::StepEnd,
    exec::docker::StepLimits,
    settings::Registry,
};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{header, method, path},
};

use super::rig::{self, Engine, SMALL, engine, log, run, step, whole_log};

#[test]
fn names_are_taken_apart_as_docker_does() {
    let shown = |text: &str| match Reference::parse(text) {
        Some(r) => format!("{} {} {:?} {:?} = {r}", r.host, r.repository, r.tag.as_deref(), r.digest.as_deref()),
        None => "refused".to_owned(),
    };
    let digest = format!("node@sha256:{}", "a".repeat(8));
    let names = [
        "node",
        "node:20",
        "docker.io/library/node:20",
        "index.docker.io/acme/shop",
        "acme/shop:1.2_3-x",
        "ghcr.io/acme/shop",
        "localhost/x",
        "localhost:5000/x:1",
        "127.0.0.1:5000/a/b/c:1",
        digest.as_str(),
        "node:20@sha256:abc",
        "",
        "Node:20",
        "node:",
        "a//b",
        "a b",
        "-x",
        "../etc",
        "node@md5:1",
        "node:20:1",
        "x\ny",
        "ghcr.io/",
    ];
    let all: Vec<String> = names.iter().map(|n| format!("{n:?}: {}", shown(n))).collect();
    insta::assert_snapshot!(all.join("\n"), @r#"
    "node": docker.io library/node Some("latest") None = node:latest
    "node:20": docker.io library/node Some("20") None = node:20
    "docker.io/library/node:20": docker.io library/node Some("20") None = node:20
    "index.docker.io/acme/shop": docker.io acme/shop Some("latest") None = acme/shop:latest
    "acme/shop:1.2_3-x": docker.io acme/shop Some("1.2_3-x") None = acme/shop:1.2_3-x
    "ghcr.io/acme/shop": ghcr.io acme/shop Some("latest") None = ghcr.io/acme/shop:latest
    "localhost/x": localhost x Some("latest") None = localhost/x:latest
    "localhost:5000/x:1": localhost:5000 x Some("1") None = localhost:5000/x:1
    "127.0.0.1:5000/a/b/c:1": 127.0.0.1:5000 a/b/c Some("1") None = 127.0.0.1:5000/a/b/c:1
    "node@sha256:aaaaaaaa": docker.io library/node None Some("sha256:aaaaaaaa") = node@sha256:aaaaaaaa
    "node:20@sha256:abc": docker.io library/node Some("20") Some("sha256:abc") = node:20@sha256:abc
    "": refused
    "Node:20": refused
    "node:": refused
    "a//b": refused
    "a b": refused
    "-x": refused
    "../etc": refused
    "node@md5:1": refused
    "node:20:1": refused
    "x\ny": refused
    "ghcr.io/": refused
    "#);
}

#[test]
fn refusals_are_told_apart_by_their_words() {
    let image = Reference::parse("ghcr.io/acme/shop:1").unwrap();
    let login = Login { username: "bot".into(), password: "p".to_owned().into() };
    let said = [
        "manifest for ghcr.io/acme/shop:1 not found: manifest unknown: manifest unknown",
        "pull access denied for acme/shop, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
        "unauthorized: authentication required",
        "Head \"https://ghcr.io/v2/acme/shop/manifests/1\": denied: denied",
        "error parsing HTTP 403 response body: unexpected end of JSON input: \"\" access forbidden",
        "toomanyrequests: You have reached your pull rate limit.",
        "received unexpected HTTP status: 503 Service Unavailable",
        "received unexpected HTTP status: 429 Too Many Requests",
        "no matching manifest for linux/amd64 in the manifest list entries",
        "Get \"https://ghcr.io/v2/\": dial tcp: lookup ghcr.io: no such host",
        "Get \"https://ghcr.io/v2/\": net/http: TLS handshake timeout",
    ];
    let kinds: Vec<String> = said
        .iter()
        .map(|said| format!("{}\n  {}", PullError::of(&image, None, said), PullError::of(&image, Some(&login), said)))
        .collect();
    insta::assert_snapshot!(kinds.join("\n"), @r#"
    the image ghcr.io/acme/shop:1 was not found: manifest for ghcr.io/acme/shop:1 not found: manifest unknown: manifest unknown
      the image ghcr.io/acme/shop:1 was not found: manifest for ghcr.io/acme/shop:1 not found: manifest unknown: manifest unknown
    the image ghcr.io/acme/shop:1 may not be pulled without a login (the operator grants one under [registries."ghcr.io"]): pull access denied for acme/shop, repository does not exist or may require 'docker login': denied: requested access to the resource is denied
      the image ghcr.io/acme/shop:1 may not be pulled by bot at ghcr.io: pull access denied for acme/shop, repository does not exist or may require 'docker login': denied: requested access to the resource is denied
    the image ghcr.io/acme/shop:1 may not be pulled without a login (the operator grants one under [registries."ghcr.io"]): unauthorized: authentication required
      the image ghcr.io/acme/shop:1 may not be pulled by bot at ghcr.io: unauthorized: authentication required
    the image ghcr.io/acme/shop:1 may not be pulled without a login (the operator grants one under [registries."ghcr.io"]): Head "https://ghcr.io/v2/acme/shop/manifests/1": denied: denied
      the image ghcr.io/acme/shop:1 may not be pulled by bot at ghcr.io: Head "https://ghcr.io/v2/acme/shop/manifests/1": denied: denied
    the image ghcr.io/acme/shop:1 may not be pulled without a login (the operator grants one under [registries."ghcr.io"]): error parsing HTTP 403 response body: unexpected end of JSON input: "" access forbidden
      the image ghcr.io/acme/shop:1 may not be pulled by bot at ghcr.io: error parsing HTTP 403 response body: unexpected end of JSON input: "" access forbidden
    ghcr.io allows no more pulls for now (image ghcr.io/acme/shop:1): toomanyrequests: You have reached your pull rate limit.
      ghcr.io allows no more pulls for now (image ghcr.io/acme/shop:1): toomanyrequests: You have reached your pull rate limit.
    the image ghcr.io/acme/shop:1 can't be pulled for now (try 1): received unexpected HTTP status: 503 Service Unavailable
      the image ghcr.io/acme/shop:1 can't be pulled for now (try 1): received unexpected HTTP status: 503 Service Unavailable
    ghcr.io allows no more pulls for now (image ghcr.io/acme/shop:1): received unexpected HTTP status: 429 Too Many Requests
      ghcr.io allows no more pulls for now (image ghcr.io/acme/shop:1): received unexpected HTTP status: 429 Too Many Requests
    the image ghcr.io/acme/shop:1 was not found: no matching manifest for linux/amd64 in the manifest list entries
      the image ghcr.io/acme/shop:1 was not found: no matching manifest for linux/amd64 in the manifest list entries
    the image ghcr.io/acme/shop:1 can't be pulled for now (try 1): Get "https://ghcr.io/v2/": dial tcp: lookup ghcr.io: no such host
      the image ghcr.io/acme/shop:1 can't be pulled for now (try 1): Get "https://ghcr.io/v2/": dial tcp: lookup ghcr.io: no such host
    the image ghcr.io/acme/shop:1 can't be pulled for now (try 1): Get "https://ghcr.io/v2/": net/http: TLS handshake timeout
      the image ghcr.io/acme/shop:1 can't be pulled for now (try 1): Get "https://ghcr.io/v2/": net/http: TLS handshake timeout
    "#);
}

/// Pushes the small image under a fresh name, and forgets it here.
async fn fresh(engine: &Engine, docker: &Docker) -> String {
    let repository = format!("{}/acme/{}", engine.registry, uuid::Uuid::new_v4().simple());
    let api = docker.api();
    let named = TagImageOptionsBuilder::default().repo(&repository).tag("1").build();
    api.tag_image(SMALL, Some(named)).await.unwrap();
    let push = PushImageOptionsBuilder::default().tag("1").build();
    let mut pushed = api.push_image(&repository, Some(push), None);
    while let Some(line) = pushed.next().await {
        line.unwrap();
    }
    let name = format!("{repository}:1");
    api.remove_image(&name, Some(RemoveImageOptionsBuilder::default().build()), None).await.unwrap();
    name
}

async fn small_is_there(executor: &switchover::exec::docker::DockerExecutor) {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run(executor, &step(&dir, SMALL, "true")).await.end, StepEnd::Exited(0));
}

/// Its own engine: nothing but these steps has the image's layers.
#[tokio::test(flavor = "multi_thread")]
async fn steps_that_wait_for_one_image_share_its_pull() {
    if engine("steps_that_wait_for_one_image_share_its_pull").is_none() {
        return;
    }
    let engine = Engine::start().unwrap();
    let executor = engine.executor(StepLimits::default()).await;
    let dirs: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let specs: Vec<_> = dirs.iter().map(|dir| step(dir, SMALL, "echo ran")).collect();
    let all = futures_util::future::join_all(specs.iter().map(|spec| run(&executor, spec))).await;
    assert!(all.iter().all(|r| r.end == StepEnd::Exited(0)));
    let logs: Vec<Vec<String>> = specs.iter().map(whole_log).collect();
    // One pull has one time, and all were told of it.
    assert!(logs[0].iter().any(|l| l.contains("pulled busybox:latest in ")), "{logs:?}");
    assert!(logs.iter().all(|l| *l == logs[0]), "{logs:?}");
    // It is there now, and asked for no more.
    let dir = tempfile::tempdir().unwrap();
    let spec = step(&dir, SMALL, "echo ran");
    run(&executor, &spec).await;
    assert_eq!(log(&spec), ["ran"]);

    // Ours, and the oldest goes first; what a container has or somebody else named stays.
    let docker = executor.docker().clone();
    let other = fresh(&engine, &docker).await;
    let dir = tempfile::tempdir().unwrap();
    run(&executor, &step(&dir, &other, "true")).await;
    let own = docker.own_images().await.unwrap();
    let mut names: Vec<String> = own.iter().flat_map(|i| i.names.clone()).collect();
    names.sort();
    let mut expected = vec![SMALL.to_owned(), other.clone()];
    expected.sort();
    assert_eq!(names, expected);
    let named = TagImageOptionsBuilder::default().repo("somebody/else").tag("1").build();
    docker.api().tag_image(SMALL, Some(named)).await.unwrap();
    assert!(docker.own_images().await.unwrap().is_empty(), "somebody else named it");
    docker
        .api()
        .remove_image("somebody/else:1", Some(RemoveImageOptionsBuilder::default().build()), None)
        .await
        .unwrap();
    let caches = switchover::exec::caches::Caches::new(dir.path().join("caches"));
    let freed = switchover::exec::budget::keep_within(&caches, Some(&docker), 0, &[], std::time::Duration::ZERO).await;
    assert!(freed.images >= 1 && freed.bytes > 0, "{freed:?}");
    assert!(docker.api().inspect_image(SMALL).await.is_err() && docker.own_images().await.unwrap().is_empty());
}

/// A registry whose answers we choose.
struct Registry2 {
    server: MockServer,
}

impl Registry2 {
    async fn start() -> Self {
        Self { server: MockServer::start().await }
    }

    fn image(&self, name: &str) -> String {
        format!("{}/acme/{name}:1", self.server.address())
    }

    async fn answers(&self, name: &str, status: u16, code: &str, times: u64) {
        let body = serde_json::json!({"errors": [{"code": code, "message": code.to_lowercase(), "detail": {}}]});
        for verb in ["GET", "HEAD"] {
            Mock::given(method(verb))
                .and(path(format!("/v2/acme/{name}/manifests/1")))
                .respond_with(ResponseTemplate::new(status).set_body_json(&body))
                .up_to_n_times(times)
                .mount(&self.server)
                .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registrys_refusals_reach_the_log_as_what_they_are() {
    let Some(engine) = engine("a_registrys_refusals_reach_the_log_as_what_they_are") else { return };
    let executor = engine.executor(StepLimits::default()).await;
    let registry = Registry2::start().await;
    Mock::given(path("/v2/")).respond_with(ResponseTemplate::new(200)).mount(&registry.server).await;
    registry.answers("gone", 404, "MANIFEST_UNKNOWN", 1000).await;
    registry.answers("private", 403, "DENIED", 1000).await;
    registry.answers("busy", 429, "TOOMANYREQUESTS", 1000).await;
    registry.answers("broken", 503, "UNAVAILABLE", 2).await;
    registry.answers("broken", 404, "MANIFEST_UNKNOWN", 1000).await;
    for (name, people, words) in [
        ("gone", true, "was not found"),
        ("private", true, "may not be pulled without a login"),
        ("busy", false, "allows no more pulls for now"),
        // Broken for a while, then it answers.
        ("broken", true, "was not found"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let spec = step(&dir, &registry.image(name), "true");
        let cancel = tokio_util::sync::CancellationToken::new();
        let ended = switchover::exec::local::Executor::run(&executor, &spec, cancel).await;
        let lines = log(&spec).join("\n");
        assert!(lines.contains(words), "{name}: {lines}");
        assert_eq!(ended.is_ok(), people, "{name}: {ended:?}");
        assert_eq!(lines.contains("again in 1 s"), name == "broken", "{name}: {lines}");
    }
    assert_eq!(rig::left(executor.docker()).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_serves_those_that_it_is_granted_to() {
    let Some(engine) = engine("a_login_serves_those_that_it_is_granted_to") else { return };
    let registry = Registry2::start().await;
    let host = registry.server.address().to_string();
    Mock::given(header("authorization", "Basic Ym90OnBhc3M="))
        .and(path("/v2/"))
        .respond_with(ResponseTemplate::new(200))
        .with_priority(1)
        .mount(&registry.server)
        .await;
    let refuse = ResponseTemplate::new(401)
        .insert_header("www-authenticate", "Basic realm=\"x\"")
        .set_body_json(serde_json::json!({"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}));
    Mock::given(header("authorization", "Basic Ym90OnBhc3M="))
        .respond_with(ResponseTemplate::new(404).set_body_json(
            serde_json::json!({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}),
        ))
        .with_priority(2)
        .mount(&registry.server)
        .await;
    Mock::given(wiremock::matchers::any()).respond_with(refuse).with_priority(9).mount(&registry.server).await;
    let logins = Logins::new(BTreeMap::from([(
        host.clone(),
        Registry {
            username: "bot".into(),
            password: "pass".to_owned().into(),
            repositories: vec!["acme/*".into()],
            plain_http: true,
        },
    )]));
    let docker = engine.docker().await;
    let image = registry.image("x");
    // Known to the engine, but not for everybody to use.
    let asked = |repository: &'static str| docker.image(&image, repository, &logins, |_: &str| {});
    let granted = asked("acme/shop").await.unwrap_err();
    let refused = asked("other/shop").await.unwrap_err();
    let named = |e: &PullError| e.to_string().replace(&host, "HOST");
    assert!(matches!(*granted, PullError::NotFound { .. }), "{}", named(&granted));
    assert!(matches!(*refused, PullError::NotAllowed { .. }), "{}", named(&refused));
    // What was pulled for one repository does not serve another.
    let reference = Reference::parse(&image).unwrap();
    let tagged = TagImageOptionsBuilder::default().repo(&reference.name()).tag("1").build();
    docker.image(SMALL, "acme/shop", &Logins::default(), |_: &str| {}).await.unwrap();
    docker.api().tag_image(SMALL, Some(tagged)).await.unwrap();
    let refused = asked("other/shop").await.unwrap_err();
    assert!(matches!(*refused, PullError::NotAllowed { .. }), "{}", named(&refused));
    docker.api().remove_image(&image, Some(RemoveImageOptionsBuilder::default().build()), None).await.unwrap();
    small_is_there(&engine.executor(StepLimits::default()).await).await;
}

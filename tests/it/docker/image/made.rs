//! Dockerfiles that were made up: they build, and what they make runs, as nobody in particular.

use std::time::Duration;

use bollard::{
    models::{ContainerCreateBody, HostConfig, PortBinding},
    query_parameters::{
        CreateContainerOptions, InspectContainerOptions, RemoveContainerOptionsBuilder, StartContainerOptions,
    },
};
use switchover::{
    domain::{config::App, ids::AppName},
    image,
};

use super::{
    Order, access,
    place::{self, Place},
    repository, workspace,
};

/// A running container; it must be removed.
struct Running<'p> {
    place: &'p Place,
    id: String,
    url: String,
}

impl Running<'_> {
    async fn start<'p>(place: &'p Place, image: &str, port: u16) -> Running<'p> {
        let bound = vec![PortBinding { host_ip: Some("127.0.0.1".into()), host_port: Some("0".into()) }];
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            host_config: Some(HostConfig {
                port_bindings: Some([(format!("{port}/tcp"), Some(bound))].into()),
                cap_drop: Some(vec!["ALL".into()]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let id = place.api().create_container(None::<CreateContainerOptions>, body).await.unwrap().id;
        place.api().start_container(&id, None::<StartContainerOptions>).await.unwrap();
        let seen = place.api().inspect_container(&id, None::<InspectContainerOptions>).await.unwrap();
        let ports = seen.network_settings.unwrap().ports.unwrap();
        let host_port = ports[&format!("{port}/tcp")].as_ref().unwrap()[0].host_port.clone().unwrap();
        Running { place, id, url: format!("http://127.0.0.1:{host_port}") }
    }

    /// Status, `Cache-Control` and body, once it answers.
    async fn get(&self, path: &str) -> (u16, String, String) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            match reqwest::get(format!("{}{path}", self.url)).await {
                Ok(answer) => {
                    let header = answer.headers().get("cache-control").map(|h| h.to_str().unwrap().to_owned());
                    let status = answer.status().as_u16();
                    return (status, header.unwrap_or_default(), answer.text().await.unwrap());
                }
                Err(e) => assert!(tokio::time::Instant::now() < deadline, "{e}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Who runs in it, and whether its health check was content.
    async fn user_and_health(&self) -> (String, String) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let seen = self.place.api().inspect_container(&self.id, None::<InspectContainerOptions>).await.unwrap();
            let health =
                seen.state.unwrap().health.and_then(|h| h.status).map_or_else(|| "none".into(), |s| s.to_string());
            if health != "starting" {
                return (seen.config.unwrap().user.unwrap_or_default(), health);
            }
            assert!(tokio::time::Instant::now() < deadline, "it is still starting");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn end(self) {
        let force = RemoveContainerOptionsBuilder::new().force(true).build();
        self.place.api().remove_container(&self.id, Some(force)).await.unwrap();
    }
}

/// Builds what is made up for these files.
async fn built(place: &Place, files: &[(&str, &str)], app: &App) -> (String, u16) {
    let folder = workspace(files);
    let mut order = Order::new(&repository(&place.registry));
    order.plan = image::plan(folder.path(), &AppName::new("web").unwrap(), app).unwrap();
    let images = place.images(vec![access(&place.registry, "", "")]);
    let (built, said) = order.run(&images, folder.path()).await;
    let built = built.unwrap_or_else(|e| panic!("{e}\n{said:#?}"));
    assert!(built.generated);
    (built.reference, order.plan.port.unwrap())
}

#[tokio::test]
async fn a_static_front_end_is_served() {
    let Some(place) = place::place("a_static_front_end_is_served").await else { return };
    place.engine.image("nginx:stable");
    let files = [
        ("web/package.json", r#"{"scripts": {"build": "vite build"}, "devDependencies": {"vite": "7"}}"#),
        ("web/dist/index.html", "the index"),
        ("web/dist/assets/index-BxY1Ab3d.js", "hashed"),
        ("web/dist/assets/main-environment.js", "not hashed"),
        ("web/dist/static/js/main.8f3e2a1b.chunk.js", "react"),
        ("web/dist/logo.svg", "<svg/>"),
        ("web/node_modules/x/y.js", "never"),
        ("web/src/secret.txt", "never"),
    ];
    let app = App { path: "web".into(), ..App::default() };
    let (reference, port) = built(&place, &files, &app).await;
    let running = Running::start(&place, &reference, port).await;
    let mut all = String::new();
    for path in [
        "/",
        "/orders/7",
        "/assets/index-BxY1Ab3d.js",
        "/assets/main-environment.js",
        "/static/js/main.8f3e2a1b.chunk.js",
        "/logo.svg",
        "/assets/index-Old1Old2.js",
        "/missing.js",
        "/src/secret.txt",
    ] {
        let (status, cache, body) = running.get(path).await;
        all.push_str(&format!("{path}: {status} {cache} {}\n", body.lines().next().unwrap_or_default()));
    }
    insta::assert_snapshot!(all, @r"
    /: 200 no-cache the index
    /orders/7: 200 no-cache the index
    /assets/index-BxY1Ab3d.js: 200 public, max-age=31536000, immutable hashed
    /assets/main-environment.js: 200 no-cache not hashed
    /static/js/main.8f3e2a1b.chunk.js: 200 public, max-age=31536000, immutable react
    /logo.svg: 200 no-cache <svg/>
    /assets/index-Old1Old2.js: 404  <html>
    /missing.js: 404  <html>
    /src/secret.txt: 200 no-cache the index
    ");
    assert_eq!(running.user_and_health().await, ("10001:10001".into(), "healthy".into()));
    running.end().await;
}

#[tokio::test]
async fn a_node_server_runs() {
    let Some(place) = place::place("a_node_server_runs").await else { return };
    place.engine.image("node:20-slim");
    let server =
        "require('http').createServer((q, r) => r.end(`uid ${process.getuid()}`)).listen(process.env.PORT || 3000)";
    let files = [
        ("package.json", r#"{"name": "api", "scripts": {"start": "node server.js"}, "engines": {"node": "20.x"}}"#),
        ("server.js", server),
        (".env", "SECRET=1"),
    ];
    let app = App { health: Some("/".into()), ..App::default() };
    let (reference, port) = built(&place, &files, &app).await;
    let running = Running::start(&place, &reference, port).await;
    let (status, _, body) = running.get("/").await;
    assert_eq!(status, 200);
    assert!(body.starts_with("uid ") && body != "uid 0", "{body}");
    assert_eq!(running.user_and_health().await, ("node".into(), "healthy".into()));
    running.end().await;
}

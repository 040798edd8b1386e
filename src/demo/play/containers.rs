//! What a play in containers needs besides the stage: a Docker engine, a registry, and nothing left of either's use.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::{Duration, Instant},
};

use bollard::{
    models::{ContainerCreateBody, HostConfig, PortBinding},
    query_parameters::{
        CreateContainerOptions, InspectContainerOptions, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
        ListNetworksOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder, StartContainerOptions,
    },
};
use secrecy::ExposeSecret as _;

use super::DemoError;
use crate::{
    docker::{self, Docker, pull::Logins},
    domain::ids::Digest,
    engine::sweeper::server_key,
    settings::DockerSettings,
};

/// The registry that is started where none is named. Docker's own.
const REGISTRY_IMAGE: &str = "registry:2";
/// The port that it listens on in its container.
const REGISTRY_PORT: &str = "5000/tcp";
/// Label of what the demo itself started: the demo's own name.
const DEMO: &str = "dev.switchover.demo";
/// A registry is up in a second; a busy machine may take longer.
const UP: Duration = Duration::from_secs(60);
/// How long an engine may take to say that it is there.
const ANSWER: Duration = Duration::from_secs(10);

/// An engine and a registry that this play has for itself, or a name of its own in.
pub struct Containers {
    settings: DockerSettings,
    docker: Docker,
    registry: String,
    /// What images are named below; also this demo's own name.
    space: String,
    /// The registry's container, if the demo started it.
    started: Option<String>,
    http: reqwest::Client,
}

fn settings(host: &str) -> DockerSettings {
    DockerSettings { host: host.to_owned(), certs: None }
}

fn failed(doing: &str) -> impl FnOnce(bollard::errors::Error) -> DemoError {
    move |e| DemoError::Other(format!("the Docker engine, {doing}: {e}"))
}

/// The engine at this address, if it answers.
async fn engine(host: &str, owner: &str) -> Result<Docker, DemoError> {
    let settings = settings(host);
    let unreachable = |why: String| {
        DemoError::Other(format!(
            "{why}\nThis play runs in containers. Name another engine with --docker-host or DOCKER_HOST (unix:///PATH or \
             tcp://HOST:PORT), or play the sample that needs none: switchover demo"
        ))
    };
    if !host.starts_with("unix:///") && !host.starts_with("tcp://") {
        return Err(unreachable(format!("{host:?} is no address of a Docker engine.")));
    }
    let docker = Docker::new(&settings, owner).map_err(|e| unreachable(e.to_string()))?;
    match tokio::time::timeout(ANSWER, docker.negotiated(&settings)).await {
        Ok(Ok(docker)) => Ok(docker),
        Ok(Err(e)) => Err(unreachable(e.to_string())),
        Err(_) => Err(unreachable(format!("the Docker engine at {host} said nothing within {} s.", ANSWER.as_secs()))),
    }
}

/// Whether an engine answers there.
pub async fn is_reachable(host: &str) -> bool {
    engine(host, "demo").await.is_ok()
}

impl Containers {
    /// Finds the engine, and starts a registry unless one is named.
    ///
    /// # Errors
    /// In words, with what to do: no engine, no registry.
    pub async fn prepare(host: &str, registry: Option<&str>, say: impl Fn(&str)) -> Result<Self, DemoError> {
        let space = format!("demo-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let docker = engine(host, &space).await?;
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build();
        let http = http.map_err(|e| DemoError::Other(e.to_string()))?;
        let mut this = Self { settings: settings(host), docker, registry: String::new(), space, started: None, http };
        let ready = match registry {
            Some(named) => {
                named.clone_into(&mut this.registry);
                this.registry_answers(ANSWER).await
            }
            None => this.start_registry(&say).await,
        };
        match ready {
            Ok(()) => Ok(this),
            Err(e) => {
                this.clean(None).await;
                Err(e)
            }
        }
    }

    async fn start_registry(&mut self, say: impl Fn(&str)) -> Result<(), DemoError> {
        say(&format!("starting a registry ({REGISTRY_IMAGE}); --registry HOST:PORT takes one that is there"));
        let image = self.docker.image(REGISTRY_IMAGE, "", &Logins::default(), &say).await;
        let image = image.map_err(|e| {
            DemoError::Other(format!("no registry could be started: {e}\nName one with --registry HOST:PORT"))
        })?;
        let port = PortBinding { host_ip: Some("127.0.0.1".into()), host_port: Some("0".into()) };
        let body = ContainerCreateBody {
            image: image.id,
            labels: Some(HashMap::from([(DEMO.to_owned(), self.space.clone())])),
            exposed_ports: Some(vec![REGISTRY_PORT.to_owned()]),
            host_config: Some(HostConfig {
                port_bindings: Some(HashMap::from([(REGISTRY_PORT.to_owned(), Some(vec![port]))])),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let api = self.docker.api();
        let made = api.create_container(None::<CreateContainerOptions>, body).await;
        let id = made.map_err(failed("making the registry's container"))?.id;
        self.started = Some(id.clone());
        let none = None::<StartContainerOptions>;
        api.start_container(&id, none).await.map_err(failed("starting the registry"))?;
        let found = api.inspect_container(&id, None::<InspectContainerOptions>).await;
        let ports = found.map_err(failed("looking at the registry"))?.network_settings.and_then(|n| n.ports);
        let bound = ports.unwrap_or_default().remove(REGISTRY_PORT).flatten().unwrap_or_default();
        let port = bound.into_iter().find_map(|b| b.host_port);
        let port = port.ok_or_else(|| DemoError::Other("the registry's container ended at once".into()))?;
        self.registry = format!("127.0.0.1:{port}");
        self.registry_answers(UP).await
    }

    /// Waits until the registry answers ("OCI Distribution Specification": `GET /v2/` is 200).
    async fn registry_answers(&self, limit: Duration) -> Result<(), DemoError> {
        let deadline = Instant::now() + limit;
        loop {
            let why = match self.http.get(format!("http://{}/v2/", self.registry)).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => format!("it answers {}", answer.status()),
                Err(e) => e.to_string(),
            };
            if Instant::now() > deadline {
                return Err(DemoError::Other(format!(
                    "the registry at {} can't be used: {why}. The demo speaks plain HTTP to it, without a login.",
                    self.registry
                )));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// `switchover.toml` for this play: everything in containers, images in the registry.
    #[must_use]
    pub fn settings_file(&self, repository: &str, password_file: &str, target: Option<String>) -> String {
        let Self { settings, registry, space, .. } = self;
        let target =
            target.unwrap_or_else(|| format!("[targets.here]\nkind = \"docker\"\nrepositories = [{repository:?}]\n"));
        format!(
            "executor = \"docker\"\ndocker_host = {:?}\n\n{target}\n\
             [registries.{registry:?}]\nusername = {space:?}\npassword_file = {password_file:?}\nrepositories = [{repository:?}]\n\
             plain_http = true\n",
            settings.host
        )
    }

    /// Where images are, for people.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}/{}", self.registry, self.space)
    }

    /// Whether the registry has this tag of the image that an app without `image:` gets.
    ///
    /// # Errors
    /// When the registry does not answer.
    pub async fn has_image(&self, repository: &str, app: &str, tag: &str) -> Result<bool, DemoError> {
        let name = format!("{}/{repository}-{app}", self.space).to_lowercase();
        let url = format!("http://{}/v2/{name}/manifests/{tag}", self.registry);
        let kinds = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                     application/vnd.docker.distribution.manifest.v2+json";
        let answer = self.http.head(url).header("accept", kinds).send().await;
        Ok(answer.map_err(|e| DemoError::Other(format!("the registry: {e}")))?.status().is_success())
    }

    /// Removes all that this play made in the engine and in the registry: the server's containers and networks (the
    /// server must be down), its images, the registry. Answers what could not be removed.
    pub async fn clean(&self, server_data: Option<&Path>) -> Vec<String> {
        let mut left = Vec::new();
        let mut owners = vec![self.space.clone()];
        if let Some(key) = server_data.and_then(|data| server_key(data).ok()) {
            let owner = Digest::of(key.expose_secret().as_bytes()).short().to_owned();
            self.remove_labelled(&format!("{}={owner}", docker::OWNER), &mut left).await;
            owners.push(owner);
        }
        // While the registry is still there.
        self.remove_images(&mut left).await;
        self.remove_labelled(&format!("{DEMO}={}", self.space), &mut left).await;
        // Base images stay, as after any build; only the marks on them go.
        for owner in owners {
            let forgotten = match engine(&self.settings.host, &owner).await {
                Ok(docker) => docker.forget_own_images().await.map_err(|e| e.to_string()),
                Err(e) => Err(e.to_string()),
            };
            left.extend(forgotten.err().map(|e| format!("marks on base images: {e}")));
        }
        left
    }

    async fn remove_labelled(&self, label: &str, left: &mut Vec<String>) {
        let api = self.docker.api();
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let containers = api.list_containers(Some(options)).await.unwrap_or_else(|e| {
            left.push(format!("containers: {e}"));
            Vec::new()
        });
        for id in containers.into_iter().filter_map(|c| c.id) {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            match api.remove_container(&id, Some(options)).await {
                Ok(()) => {}
                Err(e) if docker::status(&e) == Some(404) => {}
                Err(e) => left.push(format!("container {id}: {e}")),
            }
        }
        let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
        for network in api.list_networks(Some(options)).await.unwrap_or_default() {
            let Some(id) = network.id else { continue };
            if let Err(e) = api.remove_network(&id).await {
                left.push(format!("network {id}: {e}"));
            }
        }
    }

    /// Those below our name, in the engine and in a registry that others use too.
    async fn remove_images(&self, left: &mut Vec<String>) {
        let api = self.docker.api();
        let ours = format!("{}/", self.place());
        let listed = api.list_images(Some(ListImagesOptionsBuilder::default().build())).await.unwrap_or_else(|e| {
            left.push(format!("images: {e}"));
            Vec::new()
        });
        let mut digests: BTreeMap<String, String> = BTreeMap::new();
        for image in listed {
            let names: Vec<&String> =
                image.repo_tags.iter().chain(&image.repo_digests).filter(|n| n.starts_with(&ours)).collect();
            if names.is_empty() {
                continue;
            }
            for (name, digest) in names.iter().filter_map(|n| n.split_once('@')) {
                digests.insert(digest.to_owned(), name[self.registry.len() + 1..].to_owned());
            }
            let options = RemoveImageOptionsBuilder::default().force(true).build();
            if let Err(e) = api.remove_image(&image.id, Some(options), None).await {
                left.push(format!("image {}: {e}", image.id));
            }
        }
        if self.started.is_some() {
            return;
        }
        for (digest, name) in digests {
            let url = format!("http://{}/v2/{name}/manifests/{digest}", self.registry);
            // A registry may be set up to delete nothing.
            if !self.http.delete(url).send().await.is_ok_and(|a| a.status().is_success()) {
                left.push(format!("{}/{name}@{digest}, which the registry does not delete", self.registry));
            }
        }
    }
}

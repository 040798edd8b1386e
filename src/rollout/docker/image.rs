//! The image of a release: present by its digest, or pulled by it. Never by a tag.

use bollard::{
    auth::DockerCredentials,
    models::{ImageConfig, ImageInspect},
    query_parameters::CreateImageOptionsBuilder,
};
use futures_util::StreamExt as _;
use secrecy::ExposeSecret as _;
use tokio_util::sync::CancellationToken;

use super::{DockerTarget, engine::Fault};
use crate::{domain::rollout::DesiredApp, rollout::TargetError};

/// The registry of images that name none ("docker image pull").
const HUB: &str = "docker.io";

/// An image that is there.
#[derive(Debug, Clone)]
pub(super) struct Image {
    /// What a container is made of: it can't become something else.
    pub reference: String,
    config: ImageConfig,
}

fn failed(words: impl Into<String>) -> TargetError {
    TargetError::Failed(words.into())
}

/// The registry in an image's name: its first part, if that looks like a host ("docker image tag").
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => HUB,
    }
}

impl Image {
    /// The port in the container: the app's own, else the only one that the image exposes.
    pub(super) fn port(&self, app: &DesiredApp) -> Result<u16, TargetError> {
        if let Some(port) = app.spec.port {
            return Ok(port);
        }
        let exposed = self.config.exposed_ports.clone().unwrap_or_default();
        let ports: Vec<u16> = exposed.iter().filter_map(|p| p.strip_suffix("/tcp").unwrap_or(p).parse().ok()).collect();
        let name = &app.name;
        match ports[..] {
            [one] => Ok(one),
            [] => Err(failed(format!(
                "nobody says at which port {name} listens: its image exposes none; add `port:` to the app, or EXPOSE \
                 to its Dockerfile"
            ))),
            _ => {
                let mut ports = ports;
                ports.sort_unstable();
                Err(failed(format!("the image of {name} exposes the ports {ports:?}: add `port:` to the app")))
            }
        }
    }
}

impl DockerTarget {
    /// The image of an app, if the engine has it.
    pub(super) async fn present(&self, app: &DesiredApp) -> Result<Option<Image>, TargetError> {
        let Some(name) = app.spec.image.as_deref().filter(|i| !i.is_empty()) else {
            return Err(failed(format!("{} has no image: on this target an app is released as one", app.name)));
        };
        let digest = app.digest.as_str();
        let by_digest = format!("{name}@{digest}");
        // Pulled or pushed under its digest; or built here and known by its own id.
        for reference in [by_digest.as_str(), digest] {
            let found = match self.engine.api().inspect_image(reference).await.map_err(Fault::from) {
                Ok(found) => found,
                Err(Fault::Missing(_)) => continue,
                Err(other) => return Err(other.into()),
            };
            if !is_of(&found, digest) {
                return Err(differs(app, &found));
            }
            let config = found.config.unwrap_or_default();
            return Ok(Some(Image { reference: reference.to_owned(), config }));
        }
        Ok(None)
    }

    /// The image of an app, pulled if the engine lacks it.
    pub(super) async fn image(&self, app: &DesiredApp, stop: &CancellationToken) -> Result<Image, TargetError> {
        if let Some(image) = self.present(app).await? {
            return Ok(image);
        }
        let name = app.spec.image.as_deref().unwrap_or_default();
        let reference = format!("{name}@{}", app.digest);
        tracing::info!(image = reference, "pulling the image of a release");
        let pull = self.pull(name, &reference);
        tokio::select! {
            biased;
            pulled = pull => pulled?,
            () = stop.cancelled() => return Err(TargetError::Stopped),
        }
        let words = format!("{reference} was pulled, and the engine does not know it under that digest: refused");
        self.present(app).await?.ok_or_else(|| failed(words))
    }

    async fn pull(&self, name: &str, reference: &str) -> Result<(), TargetError> {
        let login = self.config.registries.get(registry(name)).map(|login| DockerCredentials {
            username: Some(login.username.clone()),
            password: Some(login.password.expose_secret().to_owned()),
            serveraddress: Some(registry(name).to_owned()),
            ..DockerCredentials::default()
        });
        let options = CreateImageOptionsBuilder::default().from_image(reference).build();
        let mut progress = std::pin::pin!(self.engine.api().create_image(Some(options), None, login));
        while let Some(step) = progress.next().await {
            match step.map_err(Fault::from) {
                Ok(_) => {}
                Err(away @ Fault::Away(_)) => return Err(away.into()),
                Err(why) => return Err(failed(explain(reference, self.mask(why.words()).as_str()))),
            }
        }
        Ok(())
    }
}

/// Whether an image is what the digest names: the manifest that it was pulled by, or its own id.
fn is_of(found: &ImageInspect, digest: &str) -> bool {
    let by = |known: &String| known.rsplit('@').next() == Some(digest);
    found.id.as_deref() == Some(digest) || found.repo_digests.as_ref().is_some_and(|all| all.iter().any(by))
}

fn differs(app: &DesiredApp, found: &ImageInspect) -> TargetError {
    let known = found.repo_digests.clone().unwrap_or_default().join(", ");
    failed(format!(
        "{}: the engine answers with another image than {}: {} ({known}); refused",
        app.name,
        app.digest,
        found.id.as_deref().unwrap_or("?"),
    ))
}

/// Why an image could not be pulled, with the mend.
fn explain(reference: &str, words: &str) -> String {
    let low = words.to_lowercase();
    let has = |all: &[&str]| all.iter().any(|w| low.contains(w));
    let why = if has(&["manifest verification failed", "unexpected digest", "digest mismatch", "does not match"]) {
        "the registry sent something else than the digest names; refused"
    } else if has(&["toomanyrequests", "rate limit", "429"]) {
        "the registry limits how often it is asked: log in there, or try later"
    } else if has(&["no space left"]) {
        "the engine's disk is full: make room (`docker system df`)"
    } else if has(&["unauthorized", "denied", "authentication required", "401", "403"]) {
        "the registry does not allow it: is there a login for it in the server's settings?"
    } else if has(&["manifest unknown", "not found", "404"]) {
        "the registry has no such image"
    } else if has(&["connection refused", "no such host", "timeout", "eof", "connection reset", "tls", "certificate"]) {
        "the registry could not be reached"
    } else {
        "the engine could not pull it"
    };
    format!("{reference}: {why} ({words})")
}

//! The image of a release: present by its digest, or pulled by it. Never by a tag.

use bollard::models::{ImageConfig, ImageInspect};
use tokio_util::sync::CancellationToken;

use super::{DockerTarget, engine::Fault};
use crate::{docker::pull::PullError, domain::rollout::DesiredApp, rollout::TargetError};

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
        let pull = self.pull(&reference);
        tokio::select! {
            biased;
            pulled = pull => pulled?,
            () = stop.cancelled() => return Err(TargetError::Stopped),
        }
        let words = format!("{reference} was pulled, and the engine does not know it under that digest: refused");
        self.present(app).await?.ok_or_else(|| failed(words))
    }

    async fn pull(&self, reference: &str) -> Result<(), TargetError> {
        let (repository, logins) = (&self.config.repository, &self.config.logins);
        let say = |line: &str| tracing::debug!(image = reference, line, "pulling");
        match self.engine.docker().image(reference, repository, logins, say).await {
            Ok(_) => Ok(()),
            Err(why) => Err(match &*why {
                PullError::Engine(e) => TargetError::Unreachable(format!("the Docker engine does not answer: {e}")),
                other => failed(explain(&self.mask(&other.to_string()))),
            }),
        }
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

/// Adds what only a release knows of a failed pull.
fn explain(words: &str) -> String {
    let low = words.to_lowercase();
    let has = |all: &[&str]| all.iter().any(|w| low.contains(w));
    if has(&["manifest verification failed", "unexpected digest", "digest mismatch", "does not match"]) {
        format!("the registry sent something else than the digest names; refused: {words}")
    } else if has(&["no space left"]) {
        format!("the engine's disk is full, make room (`docker system df`): {words}")
    } else {
        words.to_owned()
    }
}

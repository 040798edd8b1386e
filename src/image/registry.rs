//! Asking registries about images: which digest a tag has, whether a digest is still there.
//!
//! Source: "OCI Distribution Specification": HEAD and PUT of manifests.

use std::time::Duration;

use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol},
    errors::{OciDistributionError, OciErrorCode},
};
use tokio_util::sync::CancellationToken;

use super::{
    Images,
    error::{ImageError, ProblemKind, RegistryProblem, cut},
    name::ImageName,
};
use crate::domain::ids::Digest;

/// Between two bytes of a registry's answer.
const READ: Duration = Duration::from_secs(30);
/// Until a connection stands.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest pause between two tries of a registry that fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// All kinds of manifests that are copied as they are.
const MANIFESTS: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

impl Images {
    fn client(&self) -> Client {
        Client::new(ClientConfig {
            protocol: ClientProtocol::HttpsExcept(self.registries.plain()),
            read_timeout: Some(READ),
            connect_timeout: Some(CONNECT),
            ..ClientConfig::default()
        })
    }

    /// The digest that a tag has now, or None where the registry has no such tag (yet).
    ///
    /// # Errors
    /// [`ImageError::Registry`]; [`ImageError::Context`] for a name that is none.
    pub async fn find_by_tag(&self, repository: &str, tag: &str) -> Result<Option<Digest>, ImageError> {
        let name = ImageName::parse(repository).map_err(ImageError::Context)?.tagged(tag);
        self.manifest_digest(&name).await
    }

    /// Waits until the tag is there, and gives its digest: for images that the team's own CI pushes. A registry that
    /// fails for a passing reason is asked again.
    ///
    /// # Errors
    /// [`ImageError::TimedOut`] after `limit`, [`ImageError::Cancelled`], [`ImageError::Registry`] for what does not
    /// pass.
    pub async fn wait_for_tag(
        &self,
        repository: &str,
        tag: &str,
        every: Duration,
        limit: Duration,
        cancel: &CancellationToken,
    ) -> Result<Digest, ImageError> {
        let waiting = async {
            let mut pause = every;
            loop {
                match self.find_by_tag(repository, tag).await {
                    Ok(Some(digest)) => return Ok(digest),
                    Ok(None) => pause = every,
                    Err(ImageError::Registry { problem, .. }) if problem.passes() => {
                        pause = (pause * 2).min(LONGEST_PAUSE.max(every));
                    }
                    Err(e) => return Err(e),
                }
                tokio::time::sleep(pause).await;
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(ImageError::Cancelled),
            done = tokio::time::timeout(limit, waiting) => done.unwrap_or(Err(ImageError::TimedOut(limit))),
        }
    }

    /// Whether the registry still has this image. A release whose image was deleted has to be built again.
    ///
    /// # Errors
    /// [`ImageError::Registry`]; [`ImageError::Context`] for a name that is none.
    pub async fn exists(&self, repository: &str, digest: &Digest) -> Result<bool, ImageError> {
        let name = ImageName::parse(repository).map_err(ImageError::Context)?.at(digest);
        Ok(self.manifest_digest(&name).await?.is_some())
    }

    /// Gives an image that is in the registry another tag: a commit whose image is reused gets its own. Nothing but the
    /// manifest is sent.
    ///
    /// # Errors
    /// [`ImageError::Registry`]; [`ImageError::Context`] for a name that is none.
    pub async fn tag(&self, repository: &str, digest: &Digest, tag: &str) -> Result<(), ImageError> {
        let name = ImageName::parse(repository).map_err(ImageError::Context)?;
        let (from, to) = (name.at(digest), name.tagged(tag));
        let (client, auth) = (self.client(), self.registries.for_api(&name.host));
        let failed = |e: OciDistributionError| ImageError::Registry {
            doing: format!("tagging {from} as {tag}"),
            problem: understood(&name.host, &e),
        };
        client.store_auth_if_needed(reference(&name).resolve_registry(), &auth).await;
        let (body, _) = client.pull_manifest_raw(&reference(&from), &auth, &MANIFESTS).await.map_err(failed)?;
        let kind = serde_json::from_slice::<serde_json::Value>(&body)
            .ok()
            .and_then(|m| MANIFESTS.into_iter().find(|k| m.get("mediaType").and_then(|t| t.as_str()) == Some(k)))
            .unwrap_or(MANIFESTS[1]);
        let kind = http::HeaderValue::from_static(kind);
        client.push_manifest_raw(&reference(&to), body, kind).await.map(drop).map_err(failed)
    }

    async fn manifest_digest(&self, name: &ImageName) -> Result<Option<Digest>, ImageError> {
        let (client, auth) = (self.client(), self.registries.for_api(&name.host));
        let failed = |problem| ImageError::Registry { doing: format!("looking up {name}"), problem };
        let reference = reference(name);
        // The client forgets why it got no token, so that is asked first.
        if let Err(e) = client.auth(&reference, &auth, oci_client::RegistryOperation::Pull).await {
            return Err(failed(understood(&name.host, &e)));
        }
        match client.fetch_manifest_digest(&reference, &auth).await {
            Ok(digest) => Digest::new(digest).map(Some).map_err(|e| {
                failed(RegistryProblem { host: name.host.clone(), kind: ProblemKind::Refused, said: e.to_string() })
            }),
            Err(e) => match understood(&name.host, &e) {
                problem if problem.kind == ProblemKind::NotFound => Ok(None),
                problem => Err(failed(problem)),
            },
        }
    }
}

fn reference(name: &ImageName) -> Reference {
    let (host, path) = (name.host.clone(), name.path.clone());
    match (&name.digest, &name.tag) {
        (Some(digest), _) => Reference::with_digest(host, path, digest.to_string()),
        (None, tag) => Reference::with_tag(host, path, tag.clone().unwrap_or_else(|| "latest".to_owned())),
    }
}

/// The client's error as ours.
fn understood(host: &str, e: &OciDistributionError) -> RegistryProblem {
    let mut said = e.to_string();
    let mut cause = std::error::Error::source(e);
    while let Some(deeper) = cause {
        said = format!("{said}: {deeper}");
        cause = deeper.source();
    }
    let kind = match e {
        OciDistributionError::UnauthorizedError { .. } => Some(ProblemKind::Unauthorized),
        OciDistributionError::ServerError { code, .. } => by_status(*code),
        OciDistributionError::ImageManifestNotFoundError(_) => Some(ProblemKind::NotFound),
        OciDistributionError::RegistryError { envelope, .. } => envelope.errors.first().and_then(|e| match e.code {
            OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::NotFound => {
                Some(ProblemKind::NotFound)
            }
            OciErrorCode::Unauthorized => Some(ProblemKind::Unauthorized),
            OciErrorCode::Denied => Some(ProblemKind::Forbidden),
            OciErrorCode::Toomanyrequests => Some(ProblemKind::RateLimited),
            OciErrorCode::ManifestInvalid | OciErrorCode::NameInvalid | OciErrorCode::TagInvalid => {
                Some(ProblemKind::Refused)
            }
            _ => None,
        }),
        // The token server's answer to a wrong password.
        OciDistributionError::AuthenticationFailure(_) => Some(ProblemKind::Unauthorized),
        OciDistributionError::RequestError(e) if e.is_connect() || e.is_timeout() => {
            let text = said.to_lowercase();
            let certificate = text.contains("certificate") || text.contains("unknownissuer");
            let plain = text.contains("invalidcontenttype") || text.contains("corrupt message");
            Some(match (certificate, plain) {
                (true, _) => ProblemKind::Untrusted,
                (_, true) => ProblemKind::PlainHttp,
                _ => ProblemKind::Away,
            })
        }
        _ => None,
    };
    match kind {
        Some(kind) => RegistryProblem { host: host.to_owned(), kind, said: cut(&said) },
        None => RegistryProblem::understood(host, &said).unwrap_or_else(|| RegistryProblem::broken(host, &said)),
    }
}

fn by_status(code: u16) -> Option<ProblemKind> {
    Some(match code {
        401 => ProblemKind::Unauthorized,
        403 => ProblemKind::Forbidden,
        404 => ProblemKind::NotFound,
        413 => ProblemKind::TooLarge,
        429 => ProblemKind::RateLimited,
        507 => ProblemKind::Full,
        500..=599 => ProblemKind::Broken,
        400..=499 => ProblemKind::Refused,
        _ => return None,
    })
}

//! Images: built by the Docker engine from a workspace, pushed to a registry, known by digest.
//!
//! What is built from is decided by [`crate::infer::docker`], which is pure; [`plan`] asks it about a workspace. Then
//! [`Images::build_and_push`]: fetch the base images ([`Images::base_digests`]), send the context (`context`, with
//! [`ignore`]), follow the builder, push, take the registry's digest. [`Images::find_by_tag`] and its siblings ask
//! registries about images that somebody else pushed.
//!
//! Credentials go to the engine's own requests only: no build step and no context ever holds one.

mod access;
mod base;
mod build;
mod context;
pub mod error;
pub mod ignore;
pub mod name;
mod output;
mod push;
mod registry;
mod workspace;

use std::{collections::BTreeMap, path::Path, time::Duration};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    docker::Docker,
    domain::ids::{Digest, Sha},
    infer::docker::ImagePlan,
};

pub use access::RegistryAccess;
pub use error::{Blame, ImageError, ProblemKind, RegistryProblem};
pub use name::ImageName;
pub use workspace::plan;

/// The longest that the engine may be silent before the first byte of an answer. A build's first output comes after its
/// context was taken in.
const SILENCE: Duration = Duration::from_secs(600);

/// Builds and pushes images with one engine, on behalf of one repository.
#[derive(Debug, Clone)]
pub struct Images {
    api: bollard::Docker,
    registries: access::Registries,
}

/// What is to be built.
#[derive(Debug, Clone, Copy)]
pub struct ImageOrder<'a> {
    /// The folder that the repository was checked out to, and that its `build` step ran in.
    pub workspace: &'a Path,
    /// Dockerfile and context: from [`plan`].
    pub plan: &'a ImagePlan,
    /// Where it is pushed to, without a tag: `docker.io/acme/shop`.
    pub repository: &'a str,
    /// The commit; it becomes the tag.
    pub commit: &'a Sha,
    /// Address of the repository for people (label `org.opencontainers.image.source`).
    pub source: &'a str,
    /// When it was made (label `org.opencontainers.image.created`, and the time of all files in the context).
    pub created: Timestamp,
    /// Build arguments, none of them secret: they can be read from the image.
    pub build_args: &'a BTreeMap<String, String>,
    /// Whether nothing of earlier builds is used (`switchover rebuild`).
    pub fresh: bool,
    /// The longest that all of it may take.
    pub limit: Duration,
}

/// An image that is in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// Its digest, by the registry's answer.
    pub digest: Digest,
    /// `repository@digest`: what is released.
    pub reference: String,
    /// The Dockerfile from the workspace's root, or the name of the generated one.
    pub dockerfile: String,
    /// Whether the Dockerfile was generated.
    pub generated: bool,
    /// Size of the image in the engine, unpacked, in bytes.
    pub size: u64,
    /// Size of the context's files, in bytes.
    pub context: u64,
    /// The images that it was built on, by the names in the Dockerfile.
    pub bases: BTreeMap<String, Digest>,
    /// Layers that the registry lacked, and layers that it had.
    pub layers: (u32, u32),
    /// How long fetching base images, building and pushing took.
    pub took: Took,
}

/// How long each part took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Took {
    /// Fetching base images.
    pub bases: Duration,
    /// Building.
    pub build: Duration,
    /// Pushing.
    pub push: Duration,
}

impl Images {
    /// Prepares to build with this engine and to push to these registries; nothing is sent yet.
    #[must_use]
    pub fn new(docker: &Docker, registries: Vec<RegistryAccess>) -> Self {
        let api = access::url_safe(docker.api().clone()).with_timeout(SILENCE);
        Self { api, registries: access::Registries::new(registries) }
    }

    /// Builds the image and pushes it. What the builder and the registry say goes to `said`, line by line.
    ///
    /// # Errors
    /// [`ImageError`], which says whose fault it is ([`ImageError::blame`]). Nothing that is live depends on it.
    pub async fn build_and_push(
        &self,
        order: &ImageOrder<'_>,
        said: &(dyn Fn(&str) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<BuiltImage, ImageError> {
        tokio::select! {
            biased;
            // The engine stops what nobody listens to any more.
            () = cancel.cancelled() => Err(ImageError::Cancelled),
            done = tokio::time::timeout(order.limit, self.make(order, said)) => {
                done.unwrap_or(Err(ImageError::TimedOut(order.limit)))
            }
        }
    }

    async fn make(
        &self,
        order: &ImageOrder<'_>,
        said: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<BuiltImage, ImageError> {
        let repository = ImageName::parse(order.repository).map_err(ImageError::Context)?;
        let name = repository.tagged(order.commit.as_str());
        let built = self.build(order, &name, said).await?;
        let begun = clock::now();
        said(&format!("pushing {name}"));
        let pushed = self.push(&name, said).await?;
        let push = since(begun);
        let reference = repository.at(&pushed.digest).to_string();
        said(&format!(
            "pushed {reference}: {} layers sent, {} were there, {:.1} s",
            pushed.sent,
            pushed.there,
            push.as_secs_f64()
        ));
        Ok(BuiltImage {
            digest: pushed.digest,
            reference,
            dockerfile: built.dockerfile,
            generated: order.plan.generated.is_some(),
            size: built.size,
            bases: built.on,
            context: built.context,
            layers: (pushed.sent, pushed.there),
            took: Took { bases: built.bases, build: built.took, push },
        })
    }

    /// What an error of the client means: the engine is away, or it refused.
    #[expect(clippy::unused_self, reason = "the place where errors of this engine are understood")]
    fn engine_failed(&self, doing: &str, e: &bollard::errors::Error) -> ImageError {
        let mut why = e.to_string();
        let mut cause = std::error::Error::source(e);
        while let Some(deeper) = cause {
            let text = deeper.to_string();
            if !why.contains(&text) {
                why = format!("{why}: {text}");
            }
            cause = deeper.source();
        }
        if base::full(&why) {
            return ImageError::EngineFull(error::cut(&why));
        }
        ImageError::Engine { doing: doing.to_owned(), why: error::cut(&why) }
    }
}

/// The time since then.
fn since(begun: Timestamp) -> Duration {
    clock::now().duration_since(begun).unsigned_abs()
}

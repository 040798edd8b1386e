//! Which images of the engine are ours to remove, and when they were last used; and the builder's cache.
//!
//! An image that we built, or that we pulled and that was not there before, gets a second name,
//! `switchover.invalid/pulled-OWNER:HASH`, where `HASH` is that of the name it was built or pulled by. The engine notes when
//! an image was last named; so naming it again at each use is the stamp. Both survive restarts of the server and of the
//! engine, and images that somebody else pulled, built or named are never ours.

use std::collections::{HashMap, HashSet};

use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, PruneBuildOptionsBuilder, RemoveImageOptions,
    RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{Docker, DockerError, Reference};

/// An image that we alone use.
#[derive(Debug, Clone)]
pub struct OwnImage {
    /// Its id.
    pub id: String,
    /// How people call it.
    pub names: Vec<String>,
    /// As what registries know it: `REPOSITORY@sha256:…`.
    pub digests: Vec<String>,
    /// Its size without what it shares with others, in bytes.
    pub bytes: u64,
    /// When a step last used it.
    pub used: Timestamp,
}

fn short_hash(text: &str) -> String {
    hex::encode(&Sha256::digest(text.as_bytes())[..12])
}

impl Docker {
    fn mark_repository(&self) -> String {
        format!("switchover.invalid/pulled-{}", short_hash(&self.owner))
    }

    /// Notes that an image is ours. A failure costs nothing but that it is not pruned.
    pub(super) async fn mark(&self, image: &Reference) {
        let tag = short_hash(&image.to_string());
        let options = TagImageOptionsBuilder::default().repo(&self.mark_repository()).tag(&tag).build();
        if let Err(error) = self.api.tag_image(&image.to_string(), Some(options)).await {
            tracing::debug!(%image, %error, "an image can't be marked as ours");
        }
    }

    /// Notes that an image of ours is used now.
    pub(super) async fn stamp(&self, image: &Reference) {
        let mark = format!("{}:{}", self.mark_repository(), short_hash(&image.to_string()));
        if self.api.inspect_image(&mark).await.is_ok() {
            self.mark(image).await;
        }
    }

    /// Notes that an image was built by us under this name, `[HOST/]REPOSITORY:TAG`.
    pub async fn mark_built(&self, name: &str) {
        if let Some(image) = Reference::parse(name) {
            self.mark(&image).await;
        }
    }

    /// Shrinks the builder's cache to this size, the longest unused first, and answers the bytes that went. Engines before
    /// API 1.48 (Docker 28) would take the same request for "all of it": they are left to their own rules.
    ///
    /// # Errors
    /// [`DockerError`].
    pub async fn keep_build_cache(&self, budget: u64) -> Result<u64, DockerError> {
        let version = self.api.client_version();
        if (version.major_version, version.minor_version) < (1, 48) {
            return Ok(0);
        }
        // Zero would mean that there is no limit.
        let bytes = i64::try_from(budget).unwrap_or(i64::MAX).max(1);
        let options = PruneBuildOptionsBuilder::default().all(true).reserved_space(bytes).max_used_space(bytes).build();
        let done = self.api.prune_build(Some(options)).await;
        let done = done.map_err(DockerError::api("shrinking the builder's cache".to_owned()))?;
        Ok(done.space_reclaimed.and_then(|b| u64::try_from(b).ok()).unwrap_or(0))
    }

    /// The images that we built or pulled, that nobody else named since, and that no container needs.
    ///
    /// # Errors
    /// [`DockerError`].
    pub async fn own_images(&self) -> Result<Vec<OwnImage>, DockerError> {
        let failed = || DockerError::api("listing images".to_owned());
        let repository = self.mark_repository();
        let filters = HashMap::from([("reference", vec![repository.as_str()])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let marked = self.api.list_images(Some(options)).await.map_err(failed())?;
        let all = ListContainersOptionsBuilder::default().all(true).build();
        let containers = self.api.list_containers(Some(all)).await.map_err(failed())?;
        let needed: HashSet<String> = containers.into_iter().filter_map(|c| c.image_id).collect();
        let mut own = Vec::new();
        for image in marked.into_iter().filter(|i| !needed.contains(&i.id)) {
            let Ok(details) = self.api.inspect_image(&image.id).await else { continue };
            let tags = details.repo_tags.unwrap_or_default();
            let (marks, names): (Vec<String>, Vec<String>) =
                tags.into_iter().partition(|tag| tag.strip_prefix(&repository).is_some_and(|r| r.starts_with(':')));
            let ours = |name: &String| marks.contains(&format!("{repository}:{}", short_hash(name)));
            if !names.iter().all(ours) {
                continue;
            }
            let stamp = details.metadata.and_then(|m| m.last_tag_time);
            let used =
                stamp.and_then(|t| Timestamp::from_second(t.unix_timestamp()).ok()).unwrap_or(Timestamp::UNIX_EPOCH);
            let size = u64::try_from(image.size).unwrap_or(0);
            let shared = u64::try_from(image.shared_size).unwrap_or(0);
            let digests = details.repo_digests.unwrap_or_default();
            own.push(OwnImage { id: image.id, names, digests, bytes: size.saturating_sub(shared), used });
        }
        Ok(own)
    }

    /// Removes an image of ours with the layers that nothing else has. Answers whether it is gone; where somebody began to
    /// use it meanwhile, it stays.
    pub async fn remove_own_image(&self, image: &OwnImage) -> bool {
        // By force: it has several names. An image that a running container has is refused all the same.
        let options = RemoveImageOptionsBuilder::default().force(true).build();
        match self.api.remove_image(&image.id, Some(options), None).await {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(image = %image.id, %error, "an image stays");
                false
            }
        }
    }

    /// Takes our marks off all images: from now on none is ours. Images that somebody else named stay.
    ///
    /// # Errors
    /// [`DockerError`].
    pub async fn forget_own_images(&self) -> Result<(), DockerError> {
        let repository = self.mark_repository();
        let filters = HashMap::from([("reference", vec![repository.as_str()])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let marked = self.api.list_images(Some(options)).await;
        for image in marked.map_err(DockerError::api("listing images".to_owned()))? {
            let ours = |tag: &&String| tag.strip_prefix(&repository).is_some_and(|rest| rest.starts_with(':'));
            for mark in image.repo_tags.iter().filter(ours) {
                // By its name alone: what has another one stays.
                match self.api.remove_image(mark, None::<RemoveImageOptions>, None).await {
                    Ok(_) => {}
                    Err(e) if super::status(&e) == Some(404) => {}
                    Err(e) => return Err(DockerError::api(format!("removing the name {mark}"))(e)),
                }
            }
        }
        Ok(())
    }
}

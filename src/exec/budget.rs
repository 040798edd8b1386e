//! Keeping what is only there for speed within a budget: caches, and images of the engine that nobody else uses. The
//! oldest goes first, whichever it is.

use std::time::Duration;

use jiff::Timestamp;

use super::caches::{CacheFolder, Caches};
use crate::{
    clock,
    docker::{Docker, DockerError, images::OwnImage},
    domain::ids::Digest,
};

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freed {
    /// Caches.
    pub caches: usize,
    /// Images.
    pub images: usize,
    /// What they held, in bytes.
    pub bytes: u64,
}

enum Thing {
    Cache(CacheFolder),
    Image(OwnImage),
}

impl Thing {
    fn is_one_of(&self, digests: &[Digest]) -> bool {
        let Self::Image(image) = self else { return false };
        let mut known = image.digests.iter().filter_map(|d| d.rsplit('@').next()).chain([image.id.as_str()]);
        known.any(|known| digests.iter().any(|d| d.as_str() == known))
    }
}

/// Removes the longest unused caches and images of ours until the rest is not more than `budget` bytes. What is in use
/// stays, and so does what was used within the time `idle` and the images of `needed`. Without an engine, or where it does
/// not answer, caches alone are looked at.
pub async fn keep_within(
    caches: &Caches,
    docker: Option<&Docker>,
    budget: u64,
    needed: &[Digest],
    idle: Duration,
) -> Freed {
    let listed = {
        let caches = caches.clone();
        tokio::task::spawn_blocking(move || caches.folders()).await.unwrap_or_default()
    };
    let images = match docker {
        Some(docker) => docker.own_images().await.unwrap_or_else(|error: DockerError| {
            tracing::warn!(%error, "images are not pruned");
            Vec::new()
        }),
        None => Vec::new(),
    };
    let mut things: Vec<(Timestamp, u64, Thing)> = listed
        .into_iter()
        .map(|c| (c.used, c.bytes, Thing::Cache(c)))
        .chain(images.into_iter().map(|i| (i.used, i.bytes, Thing::Image(i))))
        .collect();
    things.sort_by_key(|(used, ..)| *used);
    let mut total: u64 = things.iter().map(|(_, bytes, _)| bytes).sum();
    let mut freed = Freed::default();
    let now = clock::now();
    let young = |used: Timestamp| Duration::try_from(now.duration_since(used)).is_ok_and(|unused| unused < idle);
    for (used, bytes, thing) in things {
        if total <= budget {
            break;
        }
        if young(used) || thing.is_one_of(needed) {
            continue;
        }
        let gone = match (&thing, docker) {
            (Thing::Cache(cache), _) => {
                let (caches, folder) = (caches.clone(), cache.clone());
                tokio::task::spawn_blocking(move || caches.forget(&folder)).await.unwrap_or(false)
            }
            (Thing::Image(image), Some(docker)) => docker.remove_own_image(image).await,
            (Thing::Image(_), None) => false,
        };
        if gone {
            total -= bytes;
            freed.bytes += bytes;
            match thing {
                Thing::Cache(_) => freed.caches += 1,
                Thing::Image(_) => freed.images += 1,
            }
        }
    }
    freed
}

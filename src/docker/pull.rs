//! Pulling images: shared between all who wait for the same one, retried where the registry is at fault, with the
//! reasons of a refusal told apart.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bollard::{
    auth::DockerCredentials,
    models::{CreateImageInfo, ImageInspect},
    query_parameters::CreateImageOptionsBuilder,
};
use futures_util::StreamExt;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;

use super::{Docker, DockerError, Reference, reference::HUB};
use crate::settings::{Registry, names_repository};

/// Who logs in at a registry, and with what.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user.
    pub username: String,
    /// The password or token.
    pub password: SecretString,
}

/// The operator's logins, by registry.
#[derive(Debug, Clone, Default)]
pub struct Logins(BTreeMap<String, Registry>);

impl Logins {
    /// Those of the settings.
    #[must_use]
    pub fn new(registries: BTreeMap<String, Registry>) -> Self {
        Self(registries)
    }

    /// The login that a repository (`owner/name`) may use at the registry of an image.
    #[must_use]
    pub fn of(&self, repository: &str, image: &Reference) -> Option<Login> {
        let registry = self.0.get(&image.host)?;
        names_repository(&registry.repositories, repository)
            .then(|| Login { username: registry.username.clone(), password: registry.password.clone() })
    }

    /// Whether the operator has a login at the registry, for whomever: what lies there may not be for everybody.
    #[must_use]
    pub fn guards(&self, image: &Reference) -> bool {
        self.0.contains_key(&image.host)
    }
}

/// Why there is no image. Shared by all who waited for it.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// It can't be a name of an image.
    #[error("{0:?} is no name of an image, such as node:20 or ghcr.io/acme/builder:1")]
    Name(String),
    /// The registry has no such image or tag, or none for this machine.
    #[error("the image {image} was not found: {said}")]
    NotFound {
        /// As people write it.
        image: String,
        /// What the engine or the registry said.
        said: String,
    },
    /// The registry wants a login, or refuses the one that it got.
    #[error("the image {image} may not be pulled {who}: {said}")]
    NotAllowed {
        /// As people write it.
        image: String,
        /// With which login.
        who: String,
        /// What the engine or the registry said.
        said: String,
    },
    /// The registry allows no more pulls for now.
    #[error("{host} allows no more pulls for now (image {image}): {said}")]
    RateLimited {
        /// As people write it.
        image: String,
        /// The registry.
        host: String,
        /// What the engine or the registry said.
        said: String,
    },
    /// The registry does not answer, or answers that it is broken.
    #[error("the image {image} can't be pulled for now (try {tries}): {said}")]
    Unavailable {
        /// As people write it.
        image: String,
        /// Which try it was.
        tries: usize,
        /// What the engine or the registry said.
        said: String,
    },
    /// The engine does not answer.
    #[error(transparent)]
    Engine(DockerError),
}

impl PullError {
    /// Whether another name or grant mends it, not time.
    #[must_use]
    pub fn is_for_people(&self) -> bool {
        matches!(self, Self::Name(_) | Self::NotFound { .. } | Self::NotAllowed { .. })
    }

    /// What the words of the engine mean. The engine hands on what the registry said, under changing status codes; the
    /// words are stable ("Errors" in the registry's API, `translatePullError` of the engine).
    #[must_use]
    pub fn of(image: &Reference, login: Option<&Login>, said: &str) -> Self {
        let low = said.to_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| low.contains(word));
        let (name, said) = (image.to_string(), said.trim().to_owned());
        if has(&["toomanyrequests", "too many requests", "rate limit", "status: 429"]) {
            Self::RateLimited { image: name, host: image.host.clone(), said }
        } else if has(&[
            "pull access denied",
            "unauthorized",
            "authentication required",
            "no basic auth credentials",
            "access forbidden",
            "denied:",
            "status: 401",
            "status: 403",
            "403 forbidden",
        ]) {
            let who = login.map_or_else(
                || format!("without a login (the operator grants one under [registries.\"{}\"])", image.host),
                |login| format!("by {} at {}", login.username, image.host),
            );
            Self::NotAllowed { image: name, who, said }
        } else if has(&[
            "manifest unknown",
            "name unknown",
            "not found",
            "no matching manifest",
            "does not exist",
            "invalid reference",
            "invalid repository name",
        ]) {
            Self::NotFound { image: name, said }
        } else {
            Self::Unavailable { image: name, tries: 1, said }
        }
    }
}

/// A pull that was seen to succeed is not asked for again within this time: tags move, but not by the minute.
const FRESH: Duration = Duration::from_secs(24 * 3600);
/// Waits between the tries when the registry is at fault.
const WAITS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(9)];
/// A pull without a sign of life for so long is lost.
const SILENCE: Duration = Duration::from_secs(300);
/// Between two lines of progress.
const LINES: Duration = Duration::from_secs(2);

/// The image and who asks: what one login may see, another may not.
type Key = (String, Option<String>);

#[derive(Debug, Clone, Default)]
struct Progress {
    lines: Vec<String>,
    end: Option<Result<(), Arc<PullError>>>,
}

/// What is being pulled and what was.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    running: Mutex<HashMap<Key, watch::Receiver<Progress>>>,
    done: Mutex<HashMap<Key, Instant>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Docker {
    /// Sees to it that an image is there, and current within a day. `say` gets lines about the progress. Where the
    /// registry does not answer and the image is there, that one serves, if it is for everybody.
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn image(
        &self,
        image: &str,
        repository: &str,
        logins: &Logins,
        mut say: impl FnMut(&str),
    ) -> Result<ImageInspect, Arc<PullError>> {
        let reference = Reference::parse(image).ok_or_else(|| Arc::new(PullError::Name(image.to_owned())))?;
        let login = logins.of(repository, &reference);
        let key = (reference.to_string(), login.as_ref().map(|l| l.username.clone()));
        let here = self.image_here(&reference).await.map_err(|e| Arc::new(PullError::Engine(e)))?;
        if let Some(found) = &here {
            let seen = locked(&self.pulls.done).get(&key).is_some_and(|at| at.elapsed() < FRESH);
            // What a digest names does not change; but whether it may be seen must have been asked.
            if seen || reference.digest.is_some() && !logins.guards(&reference) {
                self.stamp(&reference).await;
                return Ok(found.clone());
            }
        }
        let pulled = self.pull_shared(&reference, login, key.clone(), here.is_none(), &mut say).await;
        match (pulled, here) {
            (Ok(()), _) => {
                locked(&self.pulls.done).insert(key, Instant::now());
            }
            (Err(error), Some(found)) if !logins.guards(&reference) && !matches!(*error, PullError::Engine(_)) => {
                // Also for images that were made here and lie in no registry.
                if !error.is_for_people() {
                    say(&format!("{error}; the one that is here is used"));
                }
                return Ok(found);
            }
            (Err(error), _) => return Err(error),
        }
        let found = self.image_here(&reference).await.map_err(|e| Arc::new(PullError::Engine(e)))?;
        found.ok_or_else(|| {
            let said = "it was pulled and is gone again".to_owned();
            Arc::new(PullError::Unavailable { image: reference.to_string(), tries: 1, said })
        })
    }

    async fn image_here(&self, image: &Reference) -> Result<Option<ImageInspect>, DockerError> {
        match self.api.inspect_image(&image.to_string()).await {
            Ok(found) => Ok(Some(found)),
            Err(e) if super::status(&e) == Some(404) => Ok(None),
            Err(e) => Err(DockerError::api(format!("looking for the image {image}"))(e)),
        }
    }

    /// One pull for all who want the same at the same time.
    async fn pull_shared(
        &self,
        image: &Reference,
        login: Option<Login>,
        key: Key,
        ours: bool,
        say: &mut impl FnMut(&str),
    ) -> Result<(), Arc<PullError>> {
        let mut progress = {
            let mut running = locked(&self.pulls.running);
            match running.get(&key) {
                Some(progress) => progress.clone(),
                None => {
                    let (tell, progress) = watch::channel(Progress::default());
                    running.insert(key.clone(), progress.clone());
                    let (docker, image) = (self.clone(), image.clone());
                    // On its own: whoever asked first may be cancelled, and others wait.
                    tokio::spawn(async move {
                        let end = docker.pull(&image, login.as_ref(), &tell).await;
                        if end.is_ok() && ours {
                            docker.mark(&image).await;
                        }
                        locked(&docker.pulls.running).remove(&key);
                        tell.send_modify(|p| p.end = Some(end.map_err(Arc::new)));
                    });
                    progress
                }
            }
        };
        let mut told = 0;
        loop {
            let now = progress.borrow_and_update().clone();
            for line in &now.lines[told.min(now.lines.len())..] {
                say(line);
            }
            told = now.lines.len();
            if let Some(end) = now.end {
                return end;
            }
            if progress.changed().await.is_err() {
                let said = "the pull was ended".to_owned();
                return Err(Arc::new(PullError::Unavailable { image: image.to_string(), tries: 1, said }));
            }
        }
    }

    async fn pull(
        &self,
        image: &Reference,
        login: Option<&Login>,
        tell: &watch::Sender<Progress>,
    ) -> Result<(), PullError> {
        let mut waits = WAITS.iter();
        loop {
            let error = match self.pull_once(image, login, tell).await {
                Ok(()) => return Ok(()),
                Err(PullError::Unavailable { image, said, .. }) => {
                    let tries = WAITS.len() + 1 - waits.len();
                    PullError::Unavailable { image, tries, said }
                }
                Err(error) => return Err(error),
            };
            let Some(wait) = waits.next() else { return Err(error) };
            tell.send_modify(|p| p.lines.push(format!("{error}; again in {} s", wait.as_secs())));
            tokio::time::sleep(*wait).await;
        }
    }

    async fn pull_once(
        &self,
        image: &Reference,
        login: Option<&Login>,
        tell: &watch::Sender<Progress>,
    ) -> Result<(), PullError> {
        let begin = Instant::now();
        // A digest stands in the name; without a tag the engine would pull all of them.
        let (name, tag) = match &image.digest {
            Some(digest) => (format!("{}@{digest}", image.name()), ""),
            None => (image.name(), image.tag.as_deref().unwrap_or("latest")),
        };
        let options = CreateImageOptionsBuilder::default().from_image(&name).tag(tag).build();
        let credentials = login.map(|login| DockerCredentials {
            username: Some(login.username.clone()),
            password: Some(login.password.expose_secret().to_owned()),
            serveraddress: Some(server_address(&image.host)),
            ..DockerCredentials::default()
        });
        let mut stream = self.api.create_image(Some(options), None, credentials);
        let mut layers = Layers::default();
        let mut line = Instant::now();
        loop {
            let next = tokio::time::timeout(SILENCE, stream.next()).await;
            match next {
                Err(_) => {
                    return Err(PullError::of(image, login, &format!("no sign of it for {} s", SILENCE.as_secs())));
                }
                Ok(None) => break,
                Ok(Some(Ok(info))) => layers.hear(&info),
                Ok(Some(Err(e))) => {
                    return Err(match super::said(&e) {
                        Some(said) => PullError::of(image, login, &said),
                        None => PullError::Engine(DockerError::api(format!("pulling {image}"))(e)),
                    });
                }
            }
            if line.elapsed() >= LINES && layers.total() > 0 {
                line = Instant::now();
                tell.send_modify(|p| p.lines.push(format!("pulling {image}: {layers}")));
            }
        }
        if layers.fresh {
            let seconds = begin.elapsed().as_secs_f64();
            tell.send_modify(|p| p.lines.push(format!("pulled {image} in {seconds:.1} s: {layers}")));
        }
        Ok(())
    }
}

/// The registry's address in credentials; Docker Hub's is a historical one ("docker login" of the CLI's reference).
fn server_address(host: &str) -> String {
    if host == HUB { "https://index.docker.io/v1/".to_owned() } else { host.to_owned() }
}

#[derive(Default)]
struct Layers {
    seen: BTreeMap<String, Layer>,
    fresh: bool,
}

#[derive(Default)]
struct Layer {
    done: bool,
    have: u64,
    size: u64,
}

impl Layers {
    fn hear(&mut self, info: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&info.id, &info.status) else { return };
        let known = ["Pulling fs layer", "Waiting", "Downloading", "Download complete", "Extracting", "Pull complete"];
        if !known.contains(&status.as_str()) && status != "Already exists" && status != "Verifying Checksum" {
            return;
        }
        let layer = self.seen.entry(id.clone()).or_default();
        self.fresh |= status != "Already exists";
        match status.as_str() {
            "Downloading" => {
                let number = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
                let detail = info.progress_detail.as_ref();
                layer.have = number(detail.and_then(|d| d.current));
                layer.size = number(detail.and_then(|d| d.total)).max(layer.have);
            }
            "Download complete" => layer.have = layer.size,
            "Pull complete" | "Already exists" => {
                layer.have = layer.size;
                layer.done = true;
            }
            _ => {}
        }
    }

    fn total(&self) -> usize {
        self.seen.len()
    }
}

impl std::fmt::Display for Layers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let done = self.seen.values().filter(|l| l.done).count();
        write!(f, "{done} of {} layers", self.seen.len())?;
        let (have, size) = self.seen.values().fold((0, 0), |(h, s), l| (h + l.have, s + l.size));
        if size > 0 {
            write!(f, ", {} of {} MB", have / 1_000_000, size / 1_000_000)?;
        }
        Ok(())
    }
}

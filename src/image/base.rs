//! The images that a Dockerfile builds on: fetched beforehand, with the operator's credentials, and known by digest.

use std::collections::BTreeMap;

use bollard::{errors::Error, query_parameters::CreateImageOptionsBuilder};
use futures_util::{StreamExt as _, future::join_all};

use super::{
    Images,
    error::{ImageError, ProblemKind, RegistryProblem},
    name::ImageName,
};
use crate::{domain::ids::Digest, infer::dockerfile::Dockerfile};

/// How often a pull that failed for a passing reason is tried.
const PULLS: u32 = 3;

/// An image that a Dockerfile names.
pub(super) struct Base {
    pub line: usize,
    pub name: ImageName,
}

/// The images that a Dockerfile names, taken apart.
pub(super) fn bases(file: &str, dockerfile: &Dockerfile) -> Result<Vec<Base>, ImageError> {
    for stage in dockerfile.stages.iter().filter(|s| s.base.is_empty()) {
        let from = &dockerfile.instructions[stage.at];
        if !from.text.is_empty() {
            return Err(ImageError::Dockerfile {
                file: file.to_owned(),
                line: Some(from.line),
                text: format!("FROM {}", from.text),
                why: "its variable has no value: give the ARG before it a default".to_owned(),
            });
        }
    }
    let named = dockerfile.images().into_iter().map(|(line, name)| {
        ImageName::parse(&name).map(|name| Base { line, name }).map_err(|why| ImageError::Dockerfile {
            file: file.to_owned(),
            line: Some(line),
            text: format!("FROM {name}"),
            why,
        })
    });
    named.collect()
}

impl Images {
    /// The digests that the images named in a Dockerfile have now, by the names that stand there: a newer base image
    /// makes another build. What the registry can't tell at the moment is told by the engine's own copy.
    ///
    /// # Errors
    /// [`ImageError::Dockerfile`] for a name that is none, [`ImageError::Registry`] where neither registry nor engine
    /// know the image, [`ImageError::Engine`].
    pub async fn base_digests(
        &self,
        file: &str,
        text: &str,
        args: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, Digest>, ImageError> {
        let bases = bases(file, &Dockerfile::read(text, args))?;
        let found = join_all(bases.iter().map(|base| self.newest(file, base, &|_| ()))).await;
        bases.iter().zip(found).map(|(base, found)| Ok((base.name.to_string(), found?.0))).collect()
    }

    /// Fetches what the engine does not have in its newest form.
    pub(super) async fn fetch_bases(
        &self,
        file: &str,
        bases: &[Base],
        said: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<BTreeMap<String, Digest>, ImageError> {
        let found = join_all(bases.iter().map(|base| self.newest(file, base, said))).await;
        let mut digests = BTreeMap::new();
        for (base, found) in bases.iter().zip(found) {
            let (digest, here) = found?;
            digests.insert(base.name.to_string(), digest.clone());
            if here {
                said(&format!("base image {}: {digest}", base.name));
            } else {
                said(&format!("base image {}: pulling {digest}", base.name));
                self.pull(file, base, said).await?;
            }
        }
        Ok(digests)
    }

    /// Of the images that a build stood on, one that is another now. What can't be told at the moment is as it was.
    pub async fn newer_base(&self, bases: &BTreeMap<String, Digest>) -> Option<String> {
        let look = |name: &str| ImageName::parse(name).ok().filter(|n| n.digest.is_none());
        let named = bases.iter().filter_map(|(name, was)| Some((Base { line: 0, name: look(name)? }, was)));
        let named: Vec<_> = named.collect();
        let found = join_all(named.iter().map(|(base, _)| self.newest("", base, &|_| ()))).await;
        let newer =
            |found: &Result<(Digest, bool), ImageError>, was: &Digest| matches!(found, Ok((now, _)) if now != was);
        named.iter().zip(found).find(|((_, was), found)| newer(found, was)).map(|((base, _), _)| base.name.to_string())
    }

    /// The digest that a name means now, and whether the engine has it.
    async fn newest(
        &self,
        file: &str,
        base: &Base,
        said: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(Digest, bool), ImageError> {
        let name = &base.name;
        let local = match self.api.inspect_image(&name.to_string()).await {
            Ok(image) => image.repo_digests.unwrap_or_default(),
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => Vec::new(),
            Err(e) => return Err(self.engine_failed("looking for a base image", &e)),
        };
        let prefix = format!("{}@", name.repository());
        let local: Vec<Digest> =
            local.iter().filter_map(|d| Digest::new(d.strip_prefix(&prefix)?.to_owned()).ok()).collect();
        if let Some(digest) = &name.digest {
            return Ok((digest.clone(), local.contains(digest)));
        }
        let tagged = if name.tag.is_some() { name.clone() } else { name.tagged("latest") };
        let credentials = self.registries.for_engine(&name.host);
        match self.api.inspect_registry_image(&tagged.to_string(), Some(credentials.unwrap_or_default())).await {
            Ok(remote) => {
                let digest = remote.descriptor.digest.and_then(|d| Digest::new(d).ok());
                let digest = digest.ok_or_else(|| ImageError::Engine {
                    doing: format!("looking up {name}"),
                    why: "it told no digest".to_owned(),
                })?;
                let here = local.contains(&digest);
                Ok((digest, here))
            }
            Err(e) => {
                let problem = match &e {
                    Error::DockerResponseServerError { message, .. } => {
                        let known = RegistryProblem::understood(&name.host, message);
                        known.unwrap_or_else(|| RegistryProblem::broken(&name.host, message))
                    }
                    _ => return Err(self.engine_failed("looking up a base image", &e)),
                };
                // Not where the registry says no: the engine's copy may be another repository's.
                match local.first() {
                    Some(digest) if problem.passes() => {
                        said(&format!("base image {name}: {problem}. The copy that the engine has is used: {digest}"));
                        Ok((digest.clone(), true))
                    }
                    _ => Err(base_failed(file, base, problem)),
                }
            }
        }
    }

    async fn pull(&self, file: &str, base: &Base, said: &(dyn Fn(&str) + Send + Sync)) -> Result<(), ImageError> {
        let name = &base.name;
        let tag = name.digest.as_ref().map(ToString::to_string).or_else(|| name.tag.clone());
        let mut tried = 0;
        loop {
            tried += 1;
            let options = CreateImageOptionsBuilder::new()
                .from_image(&name.repository())
                .tag(tag.as_deref().unwrap_or("latest"))
                .build();
            let mut stream = self.api.create_image(Some(options), None, self.registries.for_engine(&name.host));
            let mut failed = None;
            let (mut layers, mut last) = (0, crate::clock::now());
            while let Some(message) = stream.next().await {
                let message = match message {
                    Ok(message) => message,
                    Err(Error::DockerStreamError { error }) => {
                        failed = Some(error);
                        continue;
                    }
                    Err(Error::DockerResponseServerError { message, .. }) => {
                        failed = Some(message);
                        continue;
                    }
                    Err(e) => return Err(self.engine_failed(&format!("pulling {name}"), &e)),
                };
                match message.status.as_deref() {
                    Some("Pull complete") => layers += 1,
                    Some(status) if status.starts_with("Retrying in") => said(&format!("{name}: {status}")),
                    _ => {}
                }
                let now = crate::clock::now();
                if now.duration_since(last).as_secs() >= 5 {
                    last = now;
                    said(&format!("base image {name}: {layers} layers are here"));
                }
            }
            let Some(error) = failed else { return Ok(()) };
            if full(&error) {
                return Err(ImageError::EngineFull(super::error::cut(&error)));
            }
            let problem = RegistryProblem::understood(&name.host, &error)
                .unwrap_or_else(|| RegistryProblem::broken(&name.host, &error));
            if !problem.passes() || tried >= PULLS {
                return Err(base_failed(file, base, problem));
            }
            said(&format!("{name}: {problem}. Trying again"));
            tokio::time::sleep(std::time::Duration::from_secs(u64::from(tried) * 2)).await;
        }
    }
}

/// Whether it is the engine's disk that is full: the engine says so while it unpacks.
pub(super) fn full(said: &str) -> bool {
    said.contains("no space left on device") && !said.contains("received unexpected")
}

fn base_failed(file: &str, base: &Base, problem: RegistryProblem) -> ImageError {
    // A name that nobody has is the author's, whoever asked.
    if problem.kind == ProblemKind::NotFound {
        return ImageError::Dockerfile {
            file: file.to_owned(),
            line: Some(base.line),
            text: String::new(),
            why: format!("the image {} is not there. {problem}", base.name),
        };
    }
    ImageError::Registry { doing: format!("base image {} ({file} line {})", base.name, base.line), problem }
}

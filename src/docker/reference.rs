//! Names of images, taken apart as Docker reads them.

use std::fmt;

/// Docker Hub, as it stands in names.
pub const HUB: &str = "docker.io";

/// The name of an image: `[HOST/]REPOSITORY[:TAG][@DIGEST]`.
///
/// Source: "Docker image name" of the CLI's reference, and `reference.ParseNormalizedNamed` of the distribution project:
/// the first part is a host when it has a dot or a colon in it, or is `localhost`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// The registry, [`HUB`] where none is written.
    pub host: String,
    /// Its name there; official images of Docker Hub lie below `library/`.
    pub repository: String,
    /// The tag that is written, or `latest` where neither tag nor digest is.
    pub tag: Option<String>,
    /// The digest that is written, `sha256:…`.
    pub digest: Option<String>,
}

impl Reference {
    /// Takes a name apart. None where it can't be an image's name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = |text: &str, more: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.as_bytes().contains(&b))
        };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.to_owned())),
            None => (text, None),
        };
        if digest.as_deref().is_some_and(|d| !d.starts_with("sha256:") || !fits(d, ":")) {
            return None;
        }
        let slash = name.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match name[slash..].split_once(':') {
            Some((last, tag)) => (&name[..slash + last.len()], Some(tag.to_owned())),
            None => (name, None),
        };
        let (host, repository) = match name.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest.to_owned()),
            Some(_) => (HUB, name.to_owned()),
            None => (HUB, format!("library/{name}")),
        };
        let host = if host == "index.docker.io" { HUB } else { host };
        let parts_are_right = repository.split('/').all(|part| {
            fits(part, "._-") && part.bytes().all(|b| !b.is_ascii_uppercase()) && !part.starts_with(['.', '-', '_'])
        });
        let tag_is_right = tag.as_deref().is_none_or(|tag| fits(tag, "._-") && tag.len() <= 128);
        let host_is_right = fits(host, ".:-") && host.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !host_is_right || !parts_are_right || !tag_is_right {
            return None;
        }
        let tag = if digest.is_none() { tag.or_else(|| Some("latest".to_owned())) } else { tag };
        Some(Self { host: host.to_owned(), repository, tag, digest })
    }

    /// Its name without tag and digest, as short as people write it.
    #[must_use]
    pub fn name(&self) -> String {
        match (self.host.as_str(), self.repository.strip_prefix("library/")) {
            (HUB, Some(short)) => short.to_owned(),
            (HUB, None) => self.repository.clone(),
            (host, _) => format!("{host}/{}", self.repository),
        }
    }
}

/// As short as people write it, with the tag, and with the digest where there is one.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

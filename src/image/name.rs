//! Names of images: which registry they are in, and what they are called there.
//!
//! Source: "docker image tag" and the reference grammar of the OCI distribution specification.

use std::fmt;

use crate::domain::ids::Digest;

/// Docker Hub's name for itself. It also answers to `index.docker.io` and `registry-1.docker.io`.
pub const HUB: &str = "docker.io";

/// An image's name, taken apart: `nginx:1.27` is `docker.io`, `library/nginx`, `1.27`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageName {
    /// Host and port of the registry; [`HUB`] for Docker Hub.
    pub host: String,
    /// Path in the registry.
    pub path: String,
    /// The tag, where one is written.
    pub tag: Option<String>,
    /// The digest, where one is written.
    pub digest: Option<Digest>,
}

impl ImageName {
    /// Takes a name apart.
    ///
    /// # Errors
    /// In words, when it is no name of an image.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            let shown: String = text.chars().take(120).collect();
            format!("{shown:?} is not an image's name: {why}")
        };
        if text.is_empty() || text.len() > 400 {
            return Err(wrong("it must have 1 to 400 characters, such as docker.io/acme/shop"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = Digest::new(digest).map_err(|_| wrong("after @ comes sha256: and 64 hex digits"))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (rest, tag) = match rest.rsplit_once(':') {
            Some((before, tag)) if !tag.contains('/') => (before, Some(tag)),
            _ => (rest, None),
        };
        let tag_ok = |t: &str| {
            t.len() <= 128
                && t.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && t.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        if tag.is_some_and(|t| !tag_ok(t)) {
            return Err(wrong("its tag has letters, digits, dots, dashes and underscores"));
        }
        let is_host = |h: &str| h.contains(['.', ':']) || h == "localhost";
        let (host, path) = match rest.split_once('/') {
            Some((host, path)) if is_host(host) => (normal_host(host), path.to_owned()),
            _ => (HUB.to_owned(), rest.to_owned()),
        };
        let host_ok = host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c));
        let part = |p: &str| {
            p.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && p.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))
        };
        if !host_ok || !path.split('/').all(part) {
            return Err(wrong("its path has small letters, digits, dots, dashes and underscores"));
        }
        let path = if host == HUB && !path.contains('/') { format!("library/{path}") } else { path };
        Ok(Self { host, path, tag: tag.map(str::to_owned), digest })
    }

    /// The name without tag and digest, as the engine wants it and people write it.
    #[must_use]
    pub fn repository(&self) -> String {
        if self.host == HUB {
            self.path.strip_prefix("library/").unwrap_or(&self.path).to_owned()
        } else {
            format!("{}/{}", self.host, self.path)
        }
    }

    /// The same name with a tag and nothing else.
    #[must_use]
    pub fn tagged(&self, tag: &str) -> Self {
        Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() }
    }

    /// The same name with a digest and nothing else.
    #[must_use]
    pub fn at(&self, digest: &Digest) -> Self {
        Self { tag: None, digest: Some(digest.clone()), ..self.clone() }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository())?;
        match (&self.digest, &self.tag) {
            (Some(digest), _) => write!(f, "@{digest}"),
            (None, Some(tag)) => write!(f, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

/// One name for each registry: Docker Hub has several, and people write hosts with a scheme.
#[must_use]
pub fn normal_host(host: &str) -> String {
    let host = host.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or(host).to_ascii_lowercase();
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" | "hub.docker.com" | "registry.hub.docker.com" => HUB.to_owned(),
        _ => host,
    }
}

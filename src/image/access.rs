//! Credentials by registry, and how the engine and the registries' API want them.

use std::collections::HashMap;

use bollard::auth::DockerCredentials;
use http::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};

use super::name::{HUB, ImageName, normal_host};

/// One registry that the operator gave.
#[derive(Debug, Clone)]
pub struct RegistryAccess {
    /// Host and port; every one of Docker Hub's names will do.
    pub host: String,
    /// Who logs in.
    pub username: String,
    /// With what.
    pub password: SecretString,
    /// Without TLS, because the operator says so.
    pub plain_http: bool,
}

/// Docker Hub's name in the engine's own store of credentials.
const HUB_ADDRESS: &str = "https://index.docker.io/v1/";

/// The registries that one repository may use.
#[derive(Debug, Clone, Default)]
pub(super) struct Registries(Vec<RegistryAccess>);

impl Registries {
    pub fn new(all: Vec<RegistryAccess>) -> Self {
        Self(all.into_iter().map(|r| RegistryAccess { host: normal_host(&r.host), ..r }).collect())
    }

    pub fn of(&self, host: &str) -> Option<&RegistryAccess> {
        self.0.iter().find(|r| r.host == host)
    }

    /// For the engine's own requests to that registry.
    pub fn for_engine(&self, host: &str) -> Option<DockerCredentials> {
        self.of(host).map(|r| DockerCredentials {
            username: Some(r.username.clone()),
            password: Some(r.password.expose_secret().to_owned()),
            serveraddress: Some(if host == HUB { HUB_ADDRESS.to_owned() } else { host.to_owned() }),
            ..DockerCredentials::default()
        })
    }

    /// For a build: of the registries that the Dockerfile's images are in, and of no other.
    pub fn for_build(&self, images: &[ImageName]) -> HashMap<String, DockerCredentials> {
        let mut all = HashMap::new();
        for image in images {
            if let Some(credentials) = self.for_engine(&image.host) {
                let key = if image.host == HUB { "registry-1.docker.io" } else { &image.host };
                all.insert(key.to_owned(), credentials);
            }
        }
        all
    }

    /// For the registry's API.
    pub fn for_api(&self, host: &str) -> oci_client::secrets::RegistryAuth {
        self.of(host).map_or(oci_client::secrets::RegistryAuth::Anonymous, |r| {
            oci_client::secrets::RegistryAuth::Basic(r.username.clone(), r.password.expose_secret().to_owned())
        })
    }

    /// The hosts without TLS.
    pub fn plain(&self) -> Vec<String> {
        self.0.iter().filter(|r| r.plain_http).map(|r| r.host.clone()).collect()
    }
}

/// The engine reads the header as URL-safe base64 ("Docker Engine API: Authentication"), and takes what it can't decode
/// for no credentials at all; the client writes the other alphabet. It matters for passwords with `?`, `>` or `~`.
pub(super) fn url_safe(api: bollard::Docker) -> bollard::Docker {
    const HEADERS: [HeaderName; 2] =
        [HeaderName::from_static("x-registry-auth"), HeaderName::from_static("x-registry-config")];
    api.with_request_modifier(|mut request| {
        for name in HEADERS {
            let safe = request.headers().get(&name).and_then(|value| value.to_str().ok()).map(|value| {
                value
                    .chars()
                    .map(|c| {
                        if c == '+' {
                            '-'
                        } else if c == '/' {
                            '_'
                        } else {
                            c
                        }
                    })
                    .collect::<String>()
            });
            if let Some(Ok(mut value)) = safe.map(HeaderValue::try_from) {
                value.set_sensitive(true);
                request.headers_mut().insert(name, value);
            }
        }
        request
    })
}

//! The engine and the registries that these tests use.

use std::{
    io::Write as _,
    process::{Child, Command, Stdio},
};

use switchover::{
    docker::Docker,
    image::{Images, RegistryAccess},
};

use crate::docker::rig::{self, Engine};

pub struct Place {
    docker: Docker,
    pub engine: &'static Engine,
    /// Host and port of an open registry.
    pub registry: String,
}

impl Place {
    pub fn images(&self, registries: Vec<RegistryAccess>) -> Images {
        Images::new(&self.docker, registries)
    }

    pub fn api(&self) -> &bollard::Docker {
        self.docker.api()
    }
}

/// The engine and registry that all tests share; None where there can't be one.
pub async fn place(test: &str) -> Option<Place> {
    let engine = rig::engine(test)?;
    Some(Place { docker: engine.docker().await, registry: engine.registry.clone(), engine })
}

/// A registry of one's own; it ends with its value.
pub struct OwnRegistry {
    pub host: String,
    process: Child,
    _folder: tempfile::TempDir,
}

impl Drop for OwnRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A registry that asks for a name and a password; `line` is its htpasswd file.
pub async fn registry_with_password(line: &str) -> OwnRegistry {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let host = format!("127.0.0.1:{free}");
    std::fs::write(folder.path().join("htpasswd"), format!("{line}\n")).unwrap();
    let mut config = std::fs::File::create(folder.path().join("config.yml")).unwrap();
    write!(
        config,
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {at}/data}}}}\n\
         http: {{addr: \"{host}\"}}\nauth: {{htpasswd: {{realm: tests, path: {at}/htpasswd}}}}\n"
    )
    .unwrap();
    let process = Command::new("docker-registry")
        .args(["serve", &format!("{at}/config.yml")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let own = OwnRegistry { host, process, _folder: folder };
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while tokio::net::TcpStream::connect(&own.host).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the registry did not start");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    own
}

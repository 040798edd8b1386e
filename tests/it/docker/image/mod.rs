//! Images: built by the real engine, pushed to real registries.

mod build;
mod faults;
mod faulty;
mod ignore;
mod made;
mod place;
mod registry;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, atomic::AtomicU32},
    time::Duration,
};

use secrecy::SecretString;
use switchover::{
    clock,
    domain::ids::Sha,
    image::{BuiltImage, ImageError, ImageOrder, Images, RegistryAccess},
    infer::docker::ImagePlan,
};
use tokio_util::sync::CancellationToken;

/// A login for a registry without TLS.
pub fn access(host: &str, username: &str, password: &str) -> RegistryAccess {
    RegistryAccess {
        host: host.to_owned(),
        username: username.to_owned(),
        password: SecretString::from(password.to_owned()),
        plain_http: true,
    }
}

/// A repository that no other test pushes to.
pub fn repository(registry: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("{registry}/acme/t{}-{n}", std::process::id())
}

/// A folder with these files; `-> target` makes a link.
pub fn workspace(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        match text.strip_prefix("-> ") {
            Some(target) => std::os::unix::fs::symlink(target, path).unwrap(),
            None => std::fs::write(path, text).unwrap(),
        }
    }
    dir
}

/// What to build, with what most tests want.
pub struct Order {
    pub plan: ImagePlan,
    pub repository: String,
    pub commit: Sha,
    pub args: BTreeMap<String, String>,
    pub fresh: bool,
    pub limit: Duration,
    pub cancel: CancellationToken,
}

impl Order {
    pub fn new(repository: &str) -> Self {
        Self {
            plan: ImagePlan { dockerfile: Some("Dockerfile".into()), ..ImagePlan::default() },
            repository: repository.to_owned(),
            commit: Sha::new("4f2a91c0".repeat(5)).unwrap(),
            args: BTreeMap::new(),
            fresh: false,
            limit: Duration::from_secs(240),
            cancel: CancellationToken::new(),
        }
    }

    /// Builds and pushes; the result, and what was said.
    pub async fn run(&self, images: &Images, workspace: &Path) -> (Result<BuiltImage, ImageError>, Vec<String>) {
        let lines = Mutex::new(Vec::new());
        let order = ImageOrder {
            workspace,
            plan: &self.plan,
            repository: &self.repository,
            commit: &self.commit,
            source: "https://github.example/acme/shop",
            created: clock::now(),
            build_args: &self.args,
            fresh: self.fresh,
            limit: self.limit,
        };
        let said = |line: &str| lines.lock().unwrap().push(line.to_owned());
        let done = images.build_and_push(&order, &said, &self.cancel).await;
        (done, lines.into_inner().unwrap())
    }
}

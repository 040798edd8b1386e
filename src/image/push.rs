//! Pushing: the engine sends what the registry lacks, and tells the digest that the registry took.

use std::time::Duration;

use bollard::{errors::Error, query_parameters::PushImageOptionsBuilder};
use futures_util::StreamExt as _;
use jiff::Timestamp;

use super::{
    Images,
    error::{ImageError, ProblemKind, RegistryProblem},
    name::ImageName,
};
use crate::{clock, domain::ids::Digest};

/// For how long a push that fails for a passing reason is begun again. The engine itself tries each layer five times,
/// which takes most of it; this is for what the engine does not try again, such as the manifest.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries, doubled each time.
const PAUSE: Duration = Duration::from_secs(1);

/// What a push did.
pub(super) struct Pushed {
    pub digest: Digest,
    pub sent: u32,
    pub there: u32,
}

impl Images {
    pub(super) async fn push(
        &self,
        name: &ImageName,
        said: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Pushed, ImageError> {
        self.no_plain_http_unsaid(name).await?;
        let (begun, mut pause) = (clock::now(), PAUSE);
        loop {
            match self.push_once(name, said).await {
                Err(ImageError::Registry { problem, .. }) if problem.passes() && before(begun, PATIENCE) => {
                    said(&format!("{problem}. Trying again in {} s", pause.as_secs()));
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                ended => return ended,
            }
        }
    }

    /// The engine goes over to plain HTTP by itself, for 127.0.0.0/8 and for what its own settings list.
    async fn no_plain_http_unsaid(&self, name: &ImageName) -> Result<(), ImageError> {
        if self.registries.of(&name.host).is_some_and(|r| r.plain_http) {
            return Ok(());
        }
        let info = self.api.info().await.map_err(|e| self.engine_failed("asking for its settings", &e))?;
        let config = info.registry_config.unwrap_or_default();
        let insecure =
            config.index_configs.unwrap_or_default().get(&name.host).is_some_and(|i| i.secure == Some(false));
        let bare = name.host.rsplit_once(':').map_or(name.host.as_str(), |(host, _)| host);
        if insecure || bare == "localhost" || bare.starts_with("127.") {
            let said = "the Docker engine would push there without TLS".to_owned();
            let problem = RegistryProblem { host: name.host.clone(), kind: ProblemKind::PlainHttp, said };
            return Err(ImageError::Registry { doing: format!("pushing {name}"), problem });
        }
        Ok(())
    }

    async fn push_once(&self, name: &ImageName, said: &(dyn Fn(&str) + Send + Sync)) -> Result<Pushed, ImageError> {
        let doing = || format!("pushing {name}");
        let tag = name.tag.as_deref().unwrap_or_default();
        let options = PushImageOptionsBuilder::new().tag(tag).build();
        let mut stream = self.api.push_image(&name.repository(), Some(options), self.registries.for_engine(&name.host));
        let (mut sent, mut there, mut digest) = (0, 0, None);
        let mut failed = None;
        while let Some(message) = stream.next().await {
            match message {
                Ok(message) => match message.status.as_deref() {
                    Some("Pushed") => sent += 1,
                    Some(s) if s == "Layer already exists" || s.starts_with("Mounted from") => there += 1,
                    // It counts the seconds down, one line each.
                    Some("Retrying in 5 seconds" | "Retrying in 10 seconds" | "Retrying in 15 seconds") => {
                        said(&format!(
                            "{name}: the registry failed in the middle of a layer, the engine tries it again"
                        ));
                    }
                    // "1.0: digest: sha256:… size: 528"
                    Some(s) => digest = digest_in(s).or(digest),
                    None => {}
                },
                Err(Error::DockerStreamError { error }) => failed = Some(error),
                Err(Error::DockerResponseServerError { message, .. }) => failed = Some(message),
                Err(e) => return Err(self.engine_failed(&doing(), &e)),
            }
        }
        if let Some(error) = failed {
            return Err(match RegistryProblem::understood(&name.host, &error) {
                Some(problem) => ImageError::Registry { doing: doing(), problem },
                None => ImageError::Engine { doing: doing(), why: super::error::cut(&error) },
            });
        }
        let why = "it ended without the registry's digest".to_owned();
        let digest = digest.ok_or_else(|| ImageError::Engine { doing: doing(), why })?;
        Ok(Pushed { digest, sent, there })
    }
}

fn digest_in(status: &str) -> Option<Digest> {
    let rest = status.split_once("digest: ")?.1;
    Digest::new(rest.split_whitespace().next()?).ok()
}

fn before(begun: Timestamp, limit: Duration) -> bool {
    clock::now().duration_since(begun).unsigned_abs() < limit
}

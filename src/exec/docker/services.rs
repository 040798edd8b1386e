//! Companions of a step: databases, queues. Each is known by its name on the step's network.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use bollard::{
    models::{HealthStatusEnum, ImageInspect},
    query_parameters::{InspectContainerOptions, LogsOptionsBuilder, StartContainerOptions},
};
use futures_util::{StreamExt, future::try_join_all};

use super::{
    Failed, Journal, body,
    follow::{exit_code, refused},
};
use crate::{
    docker::{Docker, DockerError, pull::Logins},
    domain::config::Service,
    exec::local::ContainerStep,
};

/// How long companions may take to become ready.
const READY: Duration = Duration::from_secs(120);
/// Between two looks at an image's own health check.
const LOOK: Duration = Duration::from_millis(250);
/// Lines of a companion's own that stand in the step's log when it failed.
const LINES: &str = "30";
/// The longest of these lines, in characters.
const LINE: usize = 1000;

/// A companion that was started.
pub(super) struct Running {
    name: String,
    image: String,
    container: String,
}

impl Running {
    /// The engine's name of its container.
    pub(super) fn container(&self) -> &str {
        &self.container
    }
}

/// The images of all companions, in their order.
pub(super) async fn images(
    docker: &Docker,
    step: &ContainerStep,
    logins: &Logins,
    journal: &Journal,
) -> Result<Vec<ImageInspect>, Failed> {
    let say = |text: &str| journal.note(text);
    let pulls = step.services.values().map(|s| docker.image(&s.image, &step.repository, logins, say));
    Ok(try_join_all(pulls).await?)
}

/// Makes and starts them.
pub(super) async fn start(
    docker: &Docker,
    step: &ContainerStep,
    images: &[ImageInspect],
    place: &body::Place<'_>,
) -> Result<Vec<Running>, Failed> {
    let all = step.services.iter().zip(images).map(|((name, service), image)| async move {
        let id = image.id.as_deref().unwrap_or(&service.image);
        let container =
            place.held.container(&format!("service-{name}"), body::service(name, service, id, place)).await?;
        match docker.api().start_container(&container, None::<StartContainerOptions>).await {
            Ok(()) => Ok(Running { name: name.clone(), image: service.image.clone(), container }),
            Err(e) => match refused(e) {
                Failed::People(why) => Err(Failed::People(format!("companion {name} ({}): {why}", service.image))),
                other => Err(other),
            },
        }
    });
    try_join_all(all).await
}

/// Waits until all of them are ready.
pub(super) async fn ready(
    docker: &Docker,
    step: &ContainerStep,
    step_image: &str,
    images: &[ImageInspect],
    running: &[Running],
    place: &body::Place<'_>,
    journal: &Journal,
) -> Result<(), Failed> {
    let all = running.iter().zip(step.services.values().zip(images)).map(|(running, (service, image))| async move {
        let begin = Instant::now();
        let Some(waiting) = Waiting::of(running, service, image)? else { return Ok(()) };
        let gone = exit_code(docker, &running.container);
        let limit = place.ready.unwrap_or(READY);
        let why = tokio::select! {
            ready = waiting.wait(docker, running, step_image, place) => match ready {
                Ok(()) => {
                    let seconds = begin.elapsed().as_secs_f64();
                    journal.note(&format!("companion {} ({}) is ready after {seconds:.1} s", running.name, running.image));
                    return Ok(());
                }
                Err(Failed::People(why)) => why,
                Err(other) => return Err(other),
            },
            code = gone => format!("it ended with exit code {} before it was ready", code?),
            () = tokio::time::sleep(limit) => format!("{} within {} s", waiting.not_yet(), limit.as_secs()),
        };
        last_lines(docker, running, journal).await;
        Err(Failed::People(format!("companion {} ({}): {why}", running.name, running.image)))
    });
    try_join_all(all).await.map(drop)
}

enum Waiting {
    Port(u16),
    Health,
}

impl Waiting {
    fn of(running: &Running, service: &Service, image: &ImageInspect) -> Result<Option<Self>, Failed> {
        let test = image.config.as_ref().and_then(|c| c.healthcheck.as_ref()).and_then(|h| h.test.as_ref());
        let has_check = test.is_some_and(|t| t.first().is_some_and(|first| first != "NONE"));
        let wrong = |why: &str| Failed::People(format!("companion {} ({}): {why}", running.name, running.image));
        match service.ready.as_deref() {
            Some("health") if !has_check => {
                Err(wrong("its image has no health check: write `ready: tcp:PORT` with the port that it listens on"))
            }
            Some("health") => Ok(Some(Self::Health)),
            None => Ok(has_check.then_some(Self::Health)),
            Some(port) => match port.strip_prefix("tcp:").and_then(|p| p.parse().ok()) {
                Some(port) => Ok(Some(Self::Port(port))),
                None => Err(wrong("`ready` is `tcp:PORT` or `health`")),
            },
        }
    }

    fn not_yet(&self) -> String {
        match self {
            Self::Port(port) => format!("nothing listens on its port {port}"),
            Self::Health => "its health check does not pass".to_owned(),
        }
    }

    async fn wait(
        &self,
        docker: &Docker,
        running: &Running,
        step_image: &str,
        place: &body::Place<'_>,
    ) -> Result<(), Failed> {
        match self {
            Self::Port(port) => {
                let body = body::probe(*port, &running.container, step_image, place);
                let doing = format!("looking for a port of the companion {}", running.name);
                let probe = place.held.container(&format!("probe-{}", running.name), body).await?;
                let started = docker.api().start_container(&probe, None::<StartContainerOptions>).await;
                if let Err(error) = started {
                    // It may have ended just now, and its network with it: whoever waits for its end says so.
                    let asked =
                        docker.api().inspect_container(&running.container, None::<InspectContainerOptions>).await;
                    if asked.is_ok_and(|found| found.state.is_some_and(|s| s.running == Some(false))) {
                        return std::future::pending().await;
                    }
                    return Err(DockerError::api(doing)(error).into());
                }
                match exit_code(docker, &probe).await? {
                    0 => Ok(()),
                    // With the companion its network goes; whoever waits for its end says so.
                    _ => std::future::pending().await,
                }
            }
            Self::Health => loop {
                let asked = docker.api().inspect_container(&running.container, None::<InspectContainerOptions>).await;
                let found = asked.map_err(DockerError::api(format!("asking for the health of {}", running.name)))?;
                match found.state.and_then(|s| s.health).and_then(|h| h.status) {
                    Some(HealthStatusEnum::HEALTHY) => return Ok(()),
                    Some(HealthStatusEnum::UNHEALTHY) => {
                        return Err(Failed::People("its health check failed again and again".into()));
                    }
                    _ => tokio::time::sleep(LOOK).await,
                }
            },
        }
    }
}

/// After a step that failed: which of its companions had ended, and their last words.
pub(super) async fn tell_of_the_dead(docker: &Docker, running: &[Running], journal: &Journal) {
    for running in running {
        let asked = docker.api().inspect_container(&running.container, None::<InspectContainerOptions>).await;
        let Some(state) = asked.ok().and_then(|found| found.state).filter(|s| s.running == Some(false)) else {
            continue;
        };
        let how = match (state.oom_killed, state.exit_code) {
            (Some(true), _) => "out of memory".to_owned(),
            (_, code) => format!("exit code {}", code.unwrap_or(-1)),
        };
        last_lines(docker, running, journal).await;
        journal.note(&format!("companion {} ({}) had ended: {how}", running.name, running.image));
    }
}

async fn last_lines(docker: &Docker, running: &Running, journal: &Journal) {
    let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail(LINES).build();
    let mut text = Vec::new();
    let mut parts = pin!(docker.api().logs(&running.container, Some(options)));
    while let Some(Ok(part)) = parts.next().await {
        text.extend_from_slice(part.as_ref());
    }
    for line in String::from_utf8_lossy(&text).lines().filter(|l| !l.trim().is_empty()) {
        let line: String = line.chars().take(LINE).collect();
        journal.note(&format!("{} | {line}", running.name));
    }
}

//! Executor `docker`: a fresh container for each step, with its companions on a network of their own.
//!
//! What a step is given, and nothing else: its workspace, its home and its caches, at the same paths as outside (links
//! lead from one to the other), the repository's mirror to read (git works there), a network with a way out and its
//! companions. No capabilities, no new privileges, no socket of the engine, limits on memory, cores, processes and disk.
//!
//! It never runs as root. It is the server's own user, so that what it writes is the server's; where that is root, a
//! fixed user without a name ([`owner::NOBODY`]) to whom workspace, home and caches are given first. In a rootless
//! engine "root" is the server's own user, and nothing else would be. The image's list of users gets one line more, with
//! the step's home: tools that ask there (Java, ssh) find the same as in `HOME`.
//!
//! * [`body`]: what the engine is asked for, in its words.
//! * [`follow`]: from start to end: output, limits, TERM and KILL.
//! * [`services`]: the companions.
//! * [`held`]: what runs now, and the way back from everything.
//! * [`owner`]: whose the files are.

mod body;
mod follow;
mod held;
mod owner;
mod services;

use std::sync::Arc;

use bollard::models::{ImageInspect, SystemInfo};
use bytes::Bytes;
use futures_util::{StreamExt, future::BoxFuture};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use self::{body::Person, follow::Reason, held::Held};
pub use super::limits::StepLimits;
use super::{
    contained::{Attempt, Ended, Failed, Live, locking, until_begin},
    journal::{Journal, human},
    limits::Limits,
    local::{ContainerStep, ExecError, Executor, StepSpec},
};
use crate::{
    clock,
    docker::{
        Docker, DockerError,
        pull::{Logins, PullError},
    },
    domain::run::{StepEnd, StepResult},
};

/// Runs each step in a container of its own. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DockerExecutor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    docker: Docker,
    limits: StepLimits,
    logins: Logins,
    live: Live,
    engine: OnceCell<Engine>,
}

/// What does not change while the engine runs.
#[derive(Debug, Clone, Copy)]
struct Engine {
    cores: f64,
    rootless: bool,
    remapped: bool,
}

impl DockerExecutor {
    /// Steps on this engine. `logins` are used to pull images for the repositories that they are granted to; no step sees
    /// them.
    #[must_use]
    pub fn new(docker: Docker, limits: StepLimits, logins: Logins) -> Self {
        Self(Arc::new(Inner { docker, limits, logins, live: Live::default(), engine: OnceCell::new() }))
    }

    /// Removes what steps left in the engine that no longer run here: containers with their volumes, networks. At the
    /// start of the server that is everything of its own; later, what an outage of the engine left. Answers how many.
    ///
    /// # Errors
    /// [`DockerError`].
    pub async fn sweep(&self) -> Result<usize, DockerError> {
        held::sweep(&self.0.docker, &self.0.live).await
    }

    /// The engine.
    #[must_use]
    pub fn docker(&self) -> &Docker {
        &self.0.docker
    }
}

impl From<DockerError> for Failed {
    fn from(error: DockerError) -> Self {
        Self::Machine(ExecError::Docker(error))
    }
}

impl From<Arc<PullError>> for Failed {
    fn from(error: Arc<PullError>) -> Self {
        if error.is_for_people() { Self::People(error.to_string()) } else { Self::Machine(ExecError::Image(error)) }
    }
}

impl Executor for DockerExecutor {
    fn run<'a>(
        &'a self,
        spec: &'a StepSpec,
        cancel: CancellationToken,
    ) -> BoxFuture<'a, Result<StepResult, ExecError>> {
        Box::pin(self.0.run(spec, cancel))
    }
}

impl Inner {
    async fn run(&self, spec: &StepSpec, cancel: CancellationToken) -> Result<StepResult, ExecError> {
        if cancel.is_cancelled() {
            return Ok(StepResult::cancelled(clock::now()));
        }
        let attempt = Attempt::begin(spec)?;
        let held = Held::new(&self.docker, &self.live, spec.hold.as_deref()).map_err(locking)?;
        let ended = self.to_its_end(spec, attempt.step, &held, &attempt.journal, &cancel).await;
        let clean = held.end().await;
        let job = &attempt.step.job;
        let result = attempt.close(ended)?;
        if let Err(error) = clean {
            tracing::warn!(job, %error, "what a step left in the engine is removed later");
        }
        Ok(result)
    }

    async fn to_its_end(
        &self,
        spec: &StepSpec,
        step: &ContainerStep,
        held: &Held,
        journal: &Journal,
        cancel: &CancellationToken,
    ) -> Result<Ended<Reason>, Failed> {
        let before = until_begin(spec);
        // Whatever was begun when it is dropped is removed by its label.
        let ready = tokio::select! {
            ready = self.prepare(spec, step, held, journal) => ready?,
            () = cancel.cancelled() => {
                journal.note("cancelled before it began");
                return Ok(Ended::new(StepEnd::Cancelled));
            }
            () = tokio::time::sleep(before) => {
                journal.note(&format!("the time limit of {} s is reached before it began", before.as_secs()));
                return Ok(Ended::new(StepEnd::TimedOut));
            }
        };
        let follow = follow::Follow {
            docker: &self.docker,
            container: &ready.container,
            journal,
            cancel,
            grace: spec.grace,
            timeout: spec.timeout,
            memory: ready.memory,
            disk: self.limits.disk,
            folders: [step.workspace.clone(), spec.home.clone()],
            caches: step.caches.clone(),
            companions: ready.services.iter().map(|s| s.container().to_owned()).collect(),
        };
        let ended = follow.to_its_end().await?;
        if ended.end != StepEnd::Exited(0) && ended.why != Some(Reason::Cancel) {
            services::tell_of_the_dead(&self.docker, &ready.services, journal).await;
        }
        Ok(ended)
    }

    /// Everything up to the start.
    async fn prepare(
        &self,
        spec: &StepSpec,
        step: &ContainerStep,
        held: &Held,
        journal: &Journal,
    ) -> Result<Ready, Failed> {
        let Some(name) = &step.image else {
            return Err(Failed::no_image());
        };
        let engine = self.engine().await?;
        let person = Person::of_server(engine.rootless);
        let limits = Limits::of(&self.limits, &step.resources, engine.cores, |text| journal.note(text));
        let say = |text: &str| journal.note(text);
        let image = async {
            let found = self.docker.image(name, &step.repository, &self.logins, say).await;
            found.map_err(Failed::from)
        };
        let companions = services::images(&self.docker, step, &self.logins, journal);
        let network = async { Ok(held.network(self.limits.internet).await?) };
        let own = async { self.give(spec, step, person).await.map_err(Failed::Machine) };
        let (image, companions, network, ()) = tokio::try_join!(image, companions, network, own)?;
        let place = body::Place {
            held,
            network: &network,
            limits: &limits,
            remapped: engine.remapped,
            ready: self.limits.ready,
        };
        let id = image.id.as_deref().unwrap_or(name);
        // Beside each other: a database takes its time.
        let services = services::start(&self.docker, step, &companions, &place);
        let container = self.create(spec, step, id, &image, person, &place);
        let (services, container) = tokio::try_join!(services, container)?;
        services::ready(&self.docker, step, id, &companions, &services, &place, journal).await?;
        Ok(Ready { container, services, memory: limits.memory })
    }

    async fn create(
        &self,
        spec: &StepSpec,
        step: &ContainerStep,
        id: &str,
        image: &ImageInspect,
        person: Person,
        place: &body::Place<'_>,
    ) -> Result<String, Failed> {
        let body = body::step(spec, step, id, image, person, place).map_err(Failed::Machine)?;
        let container = place.held.container("step", body).await?;
        if person.id != 0 {
            self.introduce(&container, person, spec).await?;
        }
        Ok(container)
    }

    /// Writes the step's user into the image's list, with the step's home. Programs that don't believe in `HOME` (Java,
    /// ssh) look there, and some refuse to be nobody.
    async fn introduce(&self, container: &str, person: Person, spec: &StepSpec) -> Result<(), Failed> {
        let options = body::download("/etc/passwd");
        let mut packed = Vec::new();
        let mut stream = self.docker.api().download_from_container(container, Some(options));
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) if packed.len() + chunk.len() <= 1 << 20 => packed.extend_from_slice(&chunk),
                // Too large to be one; or there is none, and it gets one.
                Ok(_) => return Ok(()),
                Err(e) if crate::docker::status(&e) == Some(404) => break,
                Err(e) => return Err(DockerError::api("reading the image's users".to_owned())(e).into()),
            }
        }
        let Some(list) = body::with_person(&packed, person, &spec.home) else { return Ok(()) };
        let tar = Bytes::from(list);
        let sent =
            self.docker.api().upload_to_container(container, Some(body::upload("/etc")), bollard::body_full(tar));
        match sent.await {
            Ok(()) => Ok(()),
            // An image without /etc does without users too.
            Err(e) if crate::docker::status(&e) == Some(404) => Ok(()),
            Err(e) => Err(DockerError::api("writing the step's user".to_owned())(e).into()),
        }
    }

    async fn engine(&self) -> Result<Engine, DockerError> {
        let ask = || async {
            let info: SystemInfo =
                self.docker.api().info().await.map_err(DockerError::api("asking who it is".into()))?;
            let options = info.security_options.unwrap_or_default();
            let has = |word: &str| options.iter().any(|o| o.split(',').any(|part| part == word));
            let cores = info.ncpu.map_or(f64::MAX, |n| n as f64);
            Ok(Engine { cores, rootless: has("name=rootless"), remapped: has("name=userns") })
        };
        self.engine.get_or_try_init(ask).await.copied()
    }

    /// Makes the step's folders the step's user's, where the server is root.
    async fn give(&self, spec: &StepSpec, step: &ContainerStep, person: Person) -> Result<(), ExecError> {
        let failed = |e: std::io::Error| ExecError::Spec(format!("preparing the step's folders: {e}"));
        let tmp = spec.home.join("tmp");
        std::fs::create_dir_all(&tmp).map_err(failed)?;
        if !person.is_given {
            return Ok(());
        }
        let (workspace, home, caches) = (step.workspace.clone(), spec.home.clone(), step.caches.clone());
        tokio::task::spawn_blocking(move || {
            // A fresh home is that of a job's first step: the workspace was just checked out, by us. What later steps
            // find there was written by earlier ones.
            if !owner::is_of(&home, person.id) {
                owner::give(&workspace, person.id)?;
            }
            let others = caches.iter().chain([&tmp, &home]);
            others.filter(|f| f.is_dir() && !owner::is_of(f, person.id)).try_for_each(|f| owner::give(f, person.id))
        })
        .await
        .map_err(|e| ExecError::Spec(e.to_string()))?
        .map_err(failed)
    }
}

/// What stands ready to be started.
struct Ready {
    container: String,
    services: Vec<services::Running>,
    memory: Option<u64>,
}

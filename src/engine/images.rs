//! The last step of a job whose release is an image: Dockerfile, build, push, digest. It has a log, a time and a check
//! like any other step.

use std::{
    collections::BTreeMap,
    fs::File,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{Engine, EngineError};
use crate::{
    clock,
    domain::{
        config::App,
        ids::{AppName, Digest, RepoRef},
        run::{ImageSpec, Outcome, StepEnd, StepResult},
    },
    exec::{
        local::OUTPUT_LIMIT,
        log::{LogReader, LogWriter},
    },
    image::{Blame, ImageError, ImageOrder, Images, RegistryAccess, plan},
    store::{Job, Step, StepDone, StoreError},
};

/// The longest that building and pushing may take.
const LIMIT: Duration = Duration::from_secs(3600);
/// Between two looks for an image that another CI pushes: soon after the commit, and later.
const PUSHED: Duration = Duration::from_secs(2);
const PUSHED_LATER: Duration = Duration::from_secs(15);
const SOON: Duration = Duration::from_secs(300);
/// Lines of the log that stand in the check of a build that failed.
const LAST_LINES: usize = 50;

/// How the step ended.
pub(super) enum Made {
    /// The image is in its registry.
    Image(Digest, BTreeMap<String, Digest>),
    /// It is not there yet; look again then.
    NotYet(Timestamp),
    /// It is not, and that is written.
    Not(Outcome),
}

/// Builds and pushes what the job's workspace holds. `unseen`: the step was shown as done before a crash.
///
/// # Errors
/// When the machine, the engine or the registry may do it another time.
pub(super) async fn image_step(
    engine: &Engine,
    job: &Job,
    step: &Step,
    spec: &ImageSpec,
    repo: &RepoRef,
    workspace: &Path,
    cancel: &CancellationToken,
) -> Result<Made, EngineError> {
    let Some(docker) = &engine.docker else {
        return Err(EngineError::Refused("this server has no Docker engine to build images with".into()));
    };
    let log = Path::new("logs").join(job.run.to_string()).join(format!("{}.log", step.id));
    let file = engine.settings.data.join(&log);
    let disk = |e: std::io::Error| EngineError::Store(StoreError::Disk(e.to_string()));
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir).map_err(disk)?;
    }
    let unseen = step.state == "done";
    if !unseen {
        engine.store.begin_step(job, step.id, &log.to_string_lossy(), clock::now()).await?;
    }
    engine.wake.report.notify_one();
    crate::failpoint::hit("runner.after_image_begun");
    let journal = Journal {
        log: Mutex::new(LogWriter::new(File::create(&file).map_err(disk)?, OUTPUT_LIMIT)),
        begin: Instant::now(),
    };
    let started_at = clock::now();
    let made = make(engine, docker, job, spec, repo, workspace, &journal, cancel).await;
    crate::failpoint::hit("runner.after_image_pushed");
    if let Err(e) = &made {
        journal.line(&e.to_string());
    }
    let (output_bytes, truncated) = journal.finish();
    let (end, outcome) = match &made {
        Ok(_) => (StepEnd::Exited(0), Outcome::Success),
        Err(ImageError::TimedOut(_)) => (StepEnd::TimedOut, Outcome::TimedOut),
        Err(e) => match e.blame() {
            Blame::Cancelled => return Ok(Made::Not(Outcome::Cancelled)),
            Blame::Infrastructure => return Err(EngineError::Machine(format!("the image of {}: {e}", job.app))),
            Blame::Author => (StepEnd::Exited(1), Outcome::Failure),
            Blame::Operator => (StepEnd::Exited(1), Outcome::Infrastructure),
        },
    };
    let result =
        StepResult { end, started_at, finished_at: clock::now(), cpu_ms: 0, peak_bytes: 0, output_bytes, truncated };
    let note = match &made {
        Ok(built) => Some(format!("{} ({} MB unpacked)", built.reference, built.size / 1_000_000)),
        Err(e) => Some(e.to_string()),
    };
    if !unseen {
        let last = tokio::task::spawn_blocking(move || {
            LogReader::open(&file).and_then(|mut l| l.tail(LAST_LINES)).unwrap_or_default()
        });
        let last_lines = last.await.map_err(|e| EngineError::Machine(e.to_string()))?;
        let done = StepDone {
            outcome,
            note,
            result: Some(result),
            report: None,
            last_lines: last_lines.into_iter().map(|l| l.text).collect(),
        };
        engine.store.end_step(job, step, &done, clock::now()).await?;
    }
    crate::failpoint::hit("runner.after_image_recorded");
    Ok(match made {
        Ok(built) => Made::Image(built.digest, built.bases),
        Err(_) => Made::Not(outcome),
    })
}

/// Looks for an image that somebody else's CI pushes. While it is not there the step goes on, and its job waits in the
/// queue: nobody holds a place for it.
///
/// # Errors
/// When the store can't be written.
pub(super) async fn pushed_step(
    engine: &Engine,
    job: &Job,
    step: &Step,
    spec: &ImageSpec,
    tag: &str,
    repo: &RepoRef,
) -> Result<Made, EngineError> {
    let Some(docker) = &engine.docker else {
        return Err(EngineError::Refused("this server has no Docker engine to look for images with".into()));
    };
    let name = format!("{}:{tag}", spec.repository);
    let log = Path::new("logs").join(job.run.to_string()).join(format!("{}.log", step.id));
    let file = engine.settings.data.join(&log);
    let disk = |e: std::io::Error| EngineError::Store(StoreError::Disk(e.to_string()));
    let note = |lines: &[&str]| {
        let mut log = LogWriter::new(File::create(&file)?, OUTPUT_LIMIT);
        lines.iter().try_for_each(|line| log.note(line, 0)).and_then(|()| log.finish(0))
    };
    let waits = format!("waiting for {name}, which another CI pushes");
    let now = clock::now();
    let began = match step.started_at {
        Some(began) => began,
        None => {
            if let Some(dir) = file.parent() {
                std::fs::create_dir_all(dir).map_err(disk)?;
            }
            note(&[&waits]).map_err(disk)?;
            engine.store.begin_step(job, step.id, &log.to_string_lossy(), now).await?;
            engine.wake.report.notify_one();
            now
        }
    };
    let waited = now.duration_since(began).unsigned_abs();
    let later = |pause: Duration| Ok(Made::NotYet(now + pause));
    let found = Images::new(docker, registries(engine, &repo.full_name())).find_by_tag(&spec.repository, tag).await;
    let (outcome, words) = match &found {
        Ok(Some(digest)) => (Outcome::Success, format!("{}@{digest}, pushed as {tag} by another CI", spec.repository)),
        Ok(None) if waited < LIMIT => return later(if waited < SOON { PUSHED } else { PUSHED_LATER }),
        Err(ImageError::Registry { problem, .. }) if problem.passes() && waited < LIMIT => return later(PUSHED_LATER),
        Ok(None) => {
            let minutes = LIMIT.as_secs() / 60;
            (
                Outcome::Failure,
                format!("nobody pushed {name} within {minutes} minutes: see `image:` and the CI's own run"),
            )
        }
        Err(e) if e.blame() == Blame::Author => (Outcome::Failure, e.to_string()),
        Err(e) => (Outcome::Infrastructure, e.to_string()),
    };
    note(&[&waits, &words]).map_err(disk)?;
    if step.state != "done" {
        let end = if outcome == Outcome::Success { StepEnd::Exited(0) } else { StepEnd::Exited(1) };
        let result = StepResult {
            end,
            started_at: began,
            finished_at: now,
            cpu_ms: 0,
            peak_bytes: 0,
            output_bytes: 0,
            truncated: false,
        };
        let done = StepDone {
            outcome,
            note: Some(words.clone()),
            result: Some(result),
            report: None,
            last_lines: vec![waits, words],
        };
        engine.store.end_step(job, step, &done, now).await?;
        engine.wake.report.notify_one();
    }
    Ok(match found {
        Ok(Some(digest)) => Made::Image(digest, BTreeMap::new()),
        _ => Made::Not(outcome),
    })
}

/// The logins of a repository.
pub(super) fn registries(engine: &Engine, full_name: &str) -> Vec<RegistryAccess> {
    let granted = engine.settings.registries_for(full_name).map(|(host, r)| RegistryAccess {
        host: host.to_owned(),
        username: r.username.clone(),
        password: r.password.clone(),
        plain_http: r.plain_http,
    });
    granted.collect()
}

#[expect(clippy::too_many_arguments, reason = "the parts of one build, used once")]
async fn make(
    engine: &Engine,
    docker: &crate::docker::Docker,
    job: &Job,
    spec: &ImageSpec,
    repo: &RepoRef,
    workspace: &Path,
    journal: &Journal,
    cancel: &CancellationToken,
) -> Result<crate::image::BuiltImage, ImageError> {
    let context = |e: String| ImageError::Context(e);
    let name = AppName::new(job.app.clone()).map_err(|e| context(e.to_string()))?;
    let app = App {
        path: job.spec.path.clone(),
        dockerfile: spec.dockerfile.clone(),
        port: spec.port,
        start: spec.start.clone(),
        health: spec.health.clone(),
        ..App::default()
    };
    let root = workspace.to_owned();
    let planned = tokio::task::spawn_blocking(move || plan(&root, &name, &app));
    let planned = planned.await.map_err(|e| context(e.to_string()))??;
    for (text, from) in &planned.notes {
        journal.line(&if from.is_empty() { text.clone() } else { format!("{text} ({from})") });
    }
    let full_name = repo.full_name();
    let created =
        engine.mirrors.commit(job.repo, &job.spec.commit).await.map_or_else(|_| clock::now(), |c| c.committed_at);
    let source = format!("{}{full_name}", engine.github.web_url());
    let order = ImageOrder {
        workspace,
        plan: &planned,
        repository: &spec.repository,
        commit: &job.spec.commit,
        source: &source,
        created,
        build_args: &BTreeMap::new(),
        fresh: spec.fresh,
        limit: LIMIT,
    };
    let images = Images::new(docker, registries(engine, &full_name));
    let built = images.build_and_push(&order, &|line| journal.feed(line), cancel).await;
    // Also what could not be pushed: nobody else removes it.
    docker.mark_built(&format!("{}:{}", spec.repository, job.spec.commit)).await;
    let built = built?;
    let seconds = |d: Duration| format!("{:.1} s", d.as_secs_f64());
    let (new, had) = built.layers;
    journal.line(&format!(
        "{}: base images {}, build {}, push {} ({new} layers pushed, {had} were there)",
        built.reference,
        seconds(built.took.bases),
        seconds(built.took.build),
        seconds(built.took.push)
    ));
    Ok(built)
}

/// The step's log, with its clock.
struct Journal {
    log: Mutex<LogWriter<File>>,
    begin: Instant,
}

impl Journal {
    fn with<T>(&self, act: impl FnOnce(&mut LogWriter<File>, u64) -> T) -> T {
        let ms = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        act(&mut self.log.lock().unwrap_or_else(PoisonError::into_inner), ms)
    }

    /// What builder and registry say. A full disk must not end the build.
    fn feed(&self, line: &str) {
        let _ = self.with(|log, ms| log.feed(line.as_bytes(), ms).and_then(|()| log.feed(b"\n", ms)));
    }

    /// A line of our own.
    fn line(&self, text: &str) {
        let _ = self.with(|log, ms| log.note(text, ms));
    }

    fn finish(&self) -> (u64, bool) {
        self.with(|log, ms| {
            let _ = log.finish(ms);
            (log.printed(), log.truncated())
        })
    }
}

//! Jobs become test results and releases. A job is one app's steps in one workspace; it is claimed with a lease and an
//! epoch, and every write of it is fenced.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    Engine, EngineError, LEASE, backoff,
    images::{Made, image_step, pushed_step},
    until,
};
use crate::{
    clock,
    domain::{
        ids::{AppName, RepoRef},
        run::{IMAGE_STEP, ImageSpec, Outcome, StepEnd, StepResult, StepSpec as PlannedStep, TestReport, Trigger},
    },
    exec::{
        caches::{CacheError, CacheJob, Caches, JobHome},
        local::{ContainerStep, OUTPUT_LIMIT, StepSpec},
        log::LogReader,
        reports,
    },
    report::{redact::Redactor, text::bytes},
    rollout::local::releases,
    store::{self, Job, JobNote, Step, StepDone, StoreError},
    telemetry::ResultLabel,
};

/// Running steps get this long at a shutdown before they are handed back.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// Between TERM and KILL of a step.
const STEP_GRACE: Duration = Duration::from_secs(10);
/// Tries of a job when the machine or GitHub is at fault.
const MOST_TRIES: i64 = 5;
/// Lines of a log that stand in the check when there is no report.
const LAST_LINES: usize = 50;

/// The loop.
pub async fn run(engine: Engine, shutdown: CancellationToken) {
    // Everything that another process held is free: this one has the data folder's lock.
    match engine.store.take_back_jobs(&engine.instance, clock::now()).await {
        Ok(0) => {}
        Ok(n) => tracing::info!(jobs = n, "taken up again after the restart"),
        Err(e) => tracing::error!(error = %e, "jobs of the former process can't be taken back"),
    }
    let places = engine.settings.limits.concurrent_steps.max(1);
    let ending = Arc::new(AtomicBool::new(false));
    let mut tasks: JoinSet<()> = JoinSet::new();
    loop {
        let free = places.saturating_sub(tasks.len());
        let due = if free == 0 {
            Vec::new()
        } else {
            let limit = i64::try_from(free).unwrap_or(i64::MAX);
            engine.store.due_jobs(clock::now(), limit).await.unwrap_or_else(|e| {
                tracing::error!(error = %e, "jobs can't be read");
                Vec::new()
            })
        };
        for id in due {
            let lease = clock::now() + LEASE;
            match engine.store.claim_job(id, &engine.instance, lease, clock::now()).await {
                Ok(Some(job)) => {
                    crate::failpoint::hit("runner.after_claim");
                    let (engine, ending) = (engine.clone(), ending.clone());
                    tasks.spawn(async move { work(&engine, job, &ending).await });
                }
                Ok(None) => {}
                Err(e) => tracing::error!(job = %id, error = %e, "a job can't be claimed"),
            }
        }
        let next = if tasks.len() < places { engine.store.next_job_at().await.ok().flatten() } else { None };
        // A job that is due but was not claimed just now comes again with the next bell, not in a busy loop.
        let next = next.map(|at| at.max(clock::now() + Duration::from_millis(200)));
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = engine.wake.jobs.notified() => {}
            () = until(next) => {}
            Some(_) = tasks.join_next() => {}
        }
    }
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_GRACE, all).await.is_ok() {
        return;
    }
    ending.store(true, Ordering::SeqCst);
    for token in engine.running.lock().unwrap_or_else(PoisonError::into_inner).values() {
        token.cancel();
    }
    while tasks.join_next().await.is_some() {}
}

async fn work(engine: &Engine, job: Job, ending: &AtomicBool) {
    let token = CancellationToken::new();
    engine.running.lock().unwrap_or_else(PoisonError::into_inner).insert(job.id, token.clone());
    let heartbeat = tokio::spawn(heartbeat(engine.clone(), job.clone(), token.clone()));
    let result = carry_out(engine, &job, &token).await;
    heartbeat.abort();
    engine.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&job.id);
    let now = clock::now();
    let written = match result {
        Ok(Ended::Over) => Ok(()),
        Ok(Ended::Stopped) if ending.load(Ordering::SeqCst) => engine.store.hand_back_job(&job, now, now).await,
        // Whoever stopped it has written the end of it.
        Ok(Ended::Stopped) => Ok(()),
        Ok(Ended::Waits(at)) => engine.store.put_off_job(&job, at).await,
        Err(EngineError::Store(StoreError::Fenced(_))) => Ok(()),
        Err(e) if job.attempts >= MOST_TRIES => {
            tracing::error!(job = %job.id, app = job.app, error = %e, "given up");
            engine.store.end_job(&job, Outcome::Infrastructure, None, now).await
        }
        Err(e) => {
            tracing::warn!(job = %job.id, app = job.app, attempts = job.attempts, error = %e, "put off");
            engine.store.hand_back_job(&job, now + backoff(job.attempts), now).await
        }
    };
    match written {
        Ok(()) | Err(StoreError::Fenced(_)) => {}
        Err(e) => tracing::error!(job = %job.id, error = %e, "the end of a job can't be written"),
    }
    engine.wake.jobs.notify_one();
    engine.wake.rollouts.notify_one();
    engine.wake.report.notify_one();
}

async fn heartbeat(engine: Engine, job: Job, token: CancellationToken) {
    loop {
        tokio::time::sleep(LEASE / 4).await;
        if let Err(StoreError::Fenced(_)) = engine.store.renew_job(&job, clock::now() + LEASE).await {
            token.cancel();
            return;
        }
    }
}

enum Ended {
    /// Its end is written.
    Over,
    /// It was stopped.
    Stopped,
    /// Somebody else has to do something first; to be looked at again then.
    Waits(Timestamp),
}

/// A job of which nothing is left but an image that another CI pushes: nothing is checked out for a look at it.
async fn look(engine: &Engine, job: &Job, repo: Option<&RepoRef>) -> Result<Option<Ended>, EngineError> {
    let image = job.spec.release.as_ref().and_then(|r| r.image.as_ref());
    let (Some(image), Some(repo)) = (image, repo) else { return Ok(None) };
    let (Some(tag), None) = (&image.pushed_as, &job.digest) else { return Ok(None) };
    let steps: Vec<Step> = engine.store.steps(job.run).await?.into_iter().filter(|s| s.job == job.id).collect();
    let left = steps.iter().any(|s| s.name != IMAGE_STEP && s.state != "done");
    let Some(step) = steps.iter().find(|s| s.name == IMAGE_STEP && !left) else { return Ok(None) };
    let made = pushed_step(engine, job, step, image, tag, repo).await?;
    close(engine, job, image, made).await.map(Some)
}

/// Writes what came of a job's last step, its image.
async fn close(engine: &Engine, job: &Job, image: &ImageSpec, made: Made) -> Result<Ended, EngineError> {
    match made {
        Made::Not(Outcome::Cancelled) => return Ok(Ended::Stopped),
        Made::NotYet(at) => return Ok(Ended::Waits(at)),
        Made::Not(outcome) => engine.store.end_job(job, outcome, None, clock::now()).await?,
        Made::Image(digest, bases) => {
            let build_key = job.spec.release.as_ref().map(|r| r.build_key.as_str()).unwrap_or_default();
            let made = store::Made { build_key, digest: &digest, path: &image.repository, bases: &bases };
            engine.store.end_job(job, Outcome::Success, Some(&made), clock::now()).await?;
        }
    }
    crate::failpoint::hit("runner.after_job");
    Ok(Ended::Over)
}

/// A run's branch, unless that is the default one.
async fn side_branch(engine: &Engine, job: &Job) -> Result<Option<String>, EngineError> {
    let branch = engine.store.run(job.run).await?.map(|run| run.detail.branch).filter(|b| !b.is_empty());
    let default = engine.store.repo(job.repo).await?.map(|repo| repo.info.default_branch);
    Ok(branch.filter(|b| default.as_ref().is_none_or(|d| d != b)))
}

async fn carry_out(engine: &Engine, job: &Job, token: &CancellationToken) -> Result<Ended, EngineError> {
    let repo = engine.store.repo(job.repo).await?.map(|r| r.info.repo);
    if let Some(ended) = look(engine, job, repo.as_ref()).await? {
        return Ok(ended);
    }
    // What a release reads is written by its own branch alone. All but the default branch's begin as a copy of that one's.
    let (trust, seed) = match job.spec.trigger {
        Trigger::Release => ("release", None),
        Trigger::Branch => ("branch", Some("release")),
        Trigger::OwnPull => ("own", Some("release")),
        Trigger::Stranger => ("stranger", Some("release")),
    };
    let pool_key = format!("{}-{trust}", job.app);
    let (trust, seed) = match (job.spec.trigger, side_branch(engine, job).await?) {
        (Trigger::Release | Trigger::Branch, None) => ("release".to_owned(), None),
        (Trigger::Release, Some(branch)) => (format!("release-{branch}"), Some("release")),
        _ => (trust.to_owned(), seed),
    };
    let workspace = engine.mirrors.checkout(job.repo, &job.spec.commit, &pool_key).await?;
    crate::failpoint::hit("runner.after_checkout");
    for note in workspace.notes() {
        engine.store.note_job(job, JobNote::Worth(note), clock::now()).await?;
    }
    let app_dir = workspace.path().join(&job.spec.path);
    if !app_dir.is_dir() {
        // The configuration names a folder that is not in this commit.
        let note = format!(
            "The folder `{}` of app {} is not in {}: mend `apps.{}.path` in {}.",
            job.spec.path,
            job.app,
            job.spec.commit.short(),
            job.app,
            super::facts::CONFIG_FILE
        );
        return author(engine, job, &note).await;
    }
    let homes = engine.settings.data.join(super::STEP_HOMES);
    let home = JobHome::create(&homes, job.id).map_err(|e| EngineError::Machine(e.to_string()))?;
    let caches = Caches::new(engine.settings.data.join("caches"));
    let app = AppName::new(job.app.clone()).map_err(|e| EngineError::Refused(e.to_string()))?;
    let (entries, id, place, dir) = (job.spec.cache.clone(), job.repo, home.path().to_owned(), app_dir.clone());
    let caches = tokio::task::spawn_blocking(move || {
        let job = CacheJob { repo: id, app: &app, trust: &trust, seed, home: &place, app_dir: &dir };
        caches.prepare(&job, &entries)
    });
    let caches = match caches.await.map_err(|e| EngineError::Machine(e.to_string()))? {
        Ok(held) => held,
        Err(e @ CacheError::Entry { .. }) => return author(engine, job, &e.to_string()).await,
        Err(e) => return Err(EngineError::Machine(e.to_string())),
    };
    let full_name = repo.as_ref().map(RepoRef::full_name).unwrap_or_default();
    let secrets = engine.settings.step_secrets(&full_name, job.spec.trigger, &job.spec.secrets);
    let redactor = Redactor::new(secrets.iter().map(|(_, v)| secrecy::ExposeSecret::expose_secret(v)));
    let steps: Vec<Step> = engine.store.steps(job.run).await?.into_iter().filter(|s| s.job == job.id).collect();
    // A step that ended before a crash stays ended. But what a release is made of lay in the workspace, and that is gone:
    // the step that makes it runs once more, unseen.
    let image = job.spec.release.as_ref().and_then(|r| r.image.as_ref());
    let unmade = job.spec.release.is_some() && job.digest.is_none();
    let has_build = steps.iter().any(|s| s.name == "build") || image.is_some_and(|i| i.pushed_as.is_some());
    let makes_release =
        |s: &Step| unmade && s.reused_run.is_none() && (s.name == "build" || s.name == IMAGE_STEP || !has_build);
    for step in steps.iter().filter(|s| s.state != "done" || makes_release(s)) {
        if let (IMAGE_STEP, Some(image), Some(repo)) = (step.name.as_str(), image, &repo) {
            if job.digest.is_some() {
                continue;
            }
            let made = match &image.pushed_as {
                Some(tag) => pushed_step(engine, job, step, image, tag, repo).await?,
                None => image_step(engine, job, step, image, repo, workspace.path(), token).await?,
            };
            // The last step of its job.
            return close(engine, job, image, made).await;
        }
        let Some(spec) = job.spec.steps.iter().find(|s| s.name == step.name) else { continue };
        let place = Place {
            app_dir: &app_dir,
            home: home.path(),
            workspace: workspace.path(),
            lock: workspace.steps_lock(),
            caches: caches.folders(),
            repository: &full_name,
        };
        let outcome = one_step(engine, job, step, spec, &place, &secrets, &redactor, token).await?;
        engine.metrics.steps.get_or_create(&ResultLabel::of(outcome.as_str())).inc();
        engine.wake.report.notify_one();
        match outcome {
            Outcome::Success => {}
            Outcome::Cancelled => return Ok(Ended::Stopped),
            other => {
                engine.store.end_job(job, other, None, clock::now()).await?;
                return Ok(Ended::Over);
            }
        }
    }
    let built = match &job.spec.release {
        Some(release) if job.digest.is_none() => {
            let (dir, root, files) = (app_dir.clone(), engine.releases_root(), release.files.clone());
            let caches = engine.settings.data.join("caches");
            let stored = tokio::task::spawn_blocking(move || {
                releases::store_through(&dir, files.as_deref(), &root, Some(&caches))
            })
            .await
            .map_err(|e| EngineError::Machine(e.to_string()))?;
            crate::failpoint::hit("runner.after_release_stored");
            match stored {
                Ok(stored) => Some((release.build_key.clone(), stored)),
                Err(e) => {
                    tracing::warn!(job = %job.id, app = job.app, "the release can't be stored: {e}");
                    return author(engine, job, &format!("The release of {} can't be stored: {e}", job.app)).await;
                }
            }
        }
        _ => None,
    };
    let none = BTreeMap::new();
    let built = built.as_ref().map(|(key, r)| (key.as_str(), &r.digest, r.path.to_string_lossy()));
    let built = built.as_ref().map(|(key, digest, path)| store::Made {
        build_key: key,
        digest,
        path: path.as_ref(),
        bases: &none,
    });
    engine.store.end_job(job, Outcome::Success, built.as_ref(), clock::now()).await?;
    crate::failpoint::hit("runner.after_job");
    Ok(Ended::Over)
}

/// Ends a job with something that its author can mend.
async fn author(engine: &Engine, job: &Job, note: &str) -> Result<Ended, EngineError> {
    engine.store.note_job(job, JobNote::Error(note), clock::now()).await?;
    engine.store.end_job(job, Outcome::Failure, None, clock::now()).await?;
    Ok(Ended::Over)
}

struct Place<'a> {
    app_dir: &'a Path,
    home: &'a Path,
    workspace: &'a Path,
    lock: &'a Path,
    caches: &'a [PathBuf],
    repository: &'a str,
}

#[expect(clippy::too_many_arguments, reason = "the parts of one step, used once")]
async fn one_step(
    engine: &Engine,
    job: &Job,
    step: &Step,
    spec: &PlannedStep,
    place: &Place<'_>,
    secrets: &[(String, secrecy::SecretString)],
    redactor: &Redactor,
    token: &CancellationToken,
) -> Result<Outcome, EngineError> {
    let log = Path::new("logs").join(job.run.to_string()).join(format!("{}.log", step.id));
    let file = engine.settings.data.join(&log);
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir).map_err(|e| io(&e))?;
    }
    let unseen = step.state == "done";
    if !unseen {
        let now = clock::now();
        if let Some(came) = engine.store.begin_step(job, step.id, &log.to_string_lossy(), now).await? {
            engine.metrics.first_step_seconds.observe(now.duration_since(came).as_secs_f64());
        }
    }
    engine.wake.report.notify_one();
    crate::failpoint::hit("runner.after_step_begun");
    let mut env: Vec<(String, String)> = spec.env.clone().into_iter().collect();
    env.extend(secrets.iter().map(|(n, v)| (n.clone(), secrecy::ExposeSecret::expose_secret(v).to_owned())));
    let order = StepSpec {
        command: spec.run.clone(),
        cwd: place.app_dir.to_owned(),
        env,
        home: place.home.to_owned(),
        timeout: Duration::from_millis(spec.timeout_ms),
        grace: STEP_GRACE,
        log: file.clone(),
        output_limit: OUTPUT_LIMIT,
        hold: Some(place.lock.to_owned()),
        container: Some(ContainerStep {
            image: job.spec.container.clone(),
            services: spec.services.clone(),
            resources: spec.resources.clone(),
            workspace: place.workspace.to_owned(),
            caches: place.caches.to_vec(),
            mirror: Some(engine.mirrors.dir(job.repo)),
            repository: place.repository.to_owned(),
            job: job.id.to_string(),
        }),
    };
    let result = match engine.executor.run(&order, token.clone()).await {
        Ok(result) => result,
        Err(e) => return Err(EngineError::Machine(format!("step {}: {e}", step.name))),
    };
    crate::failpoint::hit("runner.after_step_ran");
    if result.end == StepEnd::Cancelled {
        return Ok(Outcome::Cancelled);
    }
    if unseen {
        return Ok(judge(&result, None));
    }
    let (app_dir, workspace) = (place.app_dir.to_owned(), place.workspace.to_owned());
    let (patterns, path) = (spec.reports.clone(), job.spec.path.clone());
    let read = tokio::task::spawn_blocking(move || {
        let report = read_reports(&workspace, &app_dir, &path, &patterns, &file);
        let lines = LogReader::open(&file).and_then(|mut l| l.tail(LAST_LINES)).unwrap_or_default();
        (report, lines.into_iter().map(|l| l.text).collect::<Vec<String>>())
    });
    let (mut report, last_lines) = read.await.map_err(|e| EngineError::Machine(e.to_string()))?;
    if let Some(report) = &mut report {
        redactor.report(report);
    }
    let outcome = judge(&result, report.as_ref());
    let done = StepDone {
        outcome,
        note: note(&result, outcome),
        result: Some(result),
        report,
        last_lines: last_lines.iter().map(|l| redactor.text(l)).collect(),
    };
    engine.store.end_step(job, step, &done, clock::now()).await?;
    crate::failpoint::hit("runner.after_step_recorded");
    Ok(outcome)
}

fn judge(result: &StepResult, report: Option<&TestReport>) -> Outcome {
    match result.end {
        StepEnd::Exited(0) if report.is_some_and(|r| r.failed > 0) => Outcome::Failure,
        StepEnd::Exited(0) => Outcome::Success,
        StepEnd::TimedOut => Outcome::TimedOut,
        StepEnd::Cancelled => Outcome::Cancelled,
        StepEnd::Exited(_)
        | StepEnd::Signalled(_)
        | StepEnd::NotStarted(_)
        | StepEnd::OutOfMemory { .. }
        | StepEnd::OverDisk { .. }
        | StepEnd::Untaken(_) => Outcome::Failure,
    }
}

fn note(result: &StepResult, outcome: Outcome) -> Option<String> {
    match &result.end {
        StepEnd::Exited(0) if outcome == Outcome::Failure => {
            Some("The command ended with 0, but its reports tell of failed tests.".into())
        }
        StepEnd::Exited(127) => Some("Exit code 127: the shell did not find a command; its name is in the log.".into()),
        StepEnd::Signalled(9) => {
            Some("Killed by signal 9 from outside: the machine may have run out of memory.".into())
        }
        StepEnd::Signalled(n) => Some(format!("Ended by signal {n}.")),
        StepEnd::NotStarted(why) => Some(format!("Could not be started: {why}")),
        StepEnd::Untaken(why) => Some(format!("The command ended with 0, but {why}")),
        StepEnd::OutOfMemory { peak, limit: Some(limit) } => Some(format!(
            "Out of memory: it used {} of the {} that it may. Ask for more with `resources: {{memory: …}}`; the operator's \
             limit is `limits.step_memory`.",
            bytes(*peak),
            bytes(*limit)
        )),
        StepEnd::OutOfMemory { peak, limit: None } => {
            Some(format!("Out of memory: the machine had no more; it used {}.", bytes(*peak)))
        }
        StepEnd::OverDisk { used, limit } => Some(format!(
            "Ended: {} lay in its folders and containers, and {} may (`limits.step_disk` of the operator).",
            bytes(*used),
            bytes(*limit)
        )),
        _ => None,
    }
}

fn read_reports(
    workspace: &Path,
    app_dir: &Path,
    app_path: &str,
    patterns: &[String],
    log: &Path,
) -> Option<TestReport> {
    let exists = |p: &str| workspace.join(p).is_file();
    if !patterns.is_empty() {
        let found = reports::find_reports(app_dir, patterns);
        let mut report = reports::read_junit(&found.files, app_path, &exists);
        report.problems.extend(found.problems);
        return Some(report);
    }
    let mut lines = LogReader::open(log).ok()?;
    let mut text = Vec::new();
    lines.each(0, usize::MAX, |line| text.push(line.text)).ok()?;
    let report = reports::read_libtest(&text, app_path, &exists);
    (report != TestReport::default()).then_some(report)
}

fn io(e: &std::io::Error) -> EngineError {
    EngineError::Store(StoreError::Disk(e.to_string()))
}

/// Where a step's log lies.
#[must_use]
pub fn log_file(data: &Path, log: &str) -> Option<PathBuf> {
    let relative = Path::new(log);
    let plain = relative.components().all(|c| matches!(c, std::path::Component::Normal(_)));
    plain.then(|| data.join(relative))
}

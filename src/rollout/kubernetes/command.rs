//! Commands of a release: `pre_deploy` as a Job in the new image, once; the smoke test from the server's side, or as a Job.

use std::{fs, io::Write as _, time::Duration};

use futures_util::{AsyncBufReadExt as _, TryStreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    KubernetesTarget, failed,
    look::{door_of_preview, is_over, name, number, object_label, text},
    names, put,
    record::Record,
};
use crate::{
    clock,
    cluster::{Fault, KIND, Kind, Object},
    domain::{
        ids::{AppName, Epoch},
        rollout::{CommandReport, CommandSpec, Desired, DesiredApp, Effect},
    },
    failpoint,
    manifests::{self, SlotOrder, object_name},
    rollout::{
        TargetError,
        local::{CommandResult, LocalTarget},
        shared::{self, smoke_here},
    },
};

/// Lines of a command's output that stand in the check.
const TAIL: usize = 30;
/// Output that is kept, in bytes.
const OUTPUT_LIMIT: i64 = 50 * 1024 * 1024;
/// A Job's pod may take so long to be made and scheduled, beyond the command's own time limit.
const SLACK: Duration = Duration::from_secs(120);
/// A Job is looked at when a pod changes; and so often, because its own end comes after its pod's and no watch tells of it.
const LOOK: Duration = Duration::from_millis(100);
/// While its pod goes on, that often at the least.
const SELDOM: Duration = Duration::from_secs(5);

impl KubernetesTarget {
    /// Runs the app's `pre_deploy`. The Job's name follows from the rollout, so a later worker waits for it, or reads its
    /// end, and never runs it again.
    pub(super) async fn pre_deploy(
        &self,
        desired: &Desired,
        epoch: Epoch,
        app: &DesiredApp,
    ) -> Result<Effect, TargetError> {
        let Some(spec) = &app.spec.pre_deploy else { return Err(failed(format!("{} has no pre_deploy", app.name))) };
        let (order, rendered) = self.rendered(desired, epoch, app)?;
        let record = Record::of(app, &rendered.name, &order.image);
        self.put_needs(desired, app, &rendered, record.as_ref()).await?;
        let job = self.job(desired, app, &order, "pre", &spec.command)?;
        // Cutting a migration in half is worse than waiting for it: nothing but its time limit ends it.
        self.run_job(desired, &app.name, "pre_deploy", &job, spec.command.timeout, &CancellationToken::new()).await
    }

    fn job(
        &self,
        desired: &Desired,
        app: &DesiredApp,
        order: &SlotOrder,
        what: &str,
        command: &CommandSpec,
    ) -> Result<Value, TargetError> {
        let mut order = order.clone();
        order.labels.insert(KIND.to_owned(), names::COMMAND.to_owned());
        // Until the command has begun; then its own limit counts (`limit_from_begin`).
        let limit = command.timeout + SLACK;
        let mut job =
            manifests::pre_deploy_job(put::manifests_of(app)?, &order, &command.run, limit).map_err(failed)?;
        job["metadata"]["name"] = json!(object_name(&format!("{}-{what}-{}", app.name, desired.rollout), 57));
        // Its end is recorded within seconds; whoever wants to look at its pod has an hour.
        job["spec"]["ttlSecondsAfterFinished"] = json!(3600);
        Ok(job)
    }

    async fn run_job(
        &self,
        desired: &Desired,
        app: &AppName,
        what: &str,
        job: &Value,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Result<Effect, TargetError> {
        match self.cluster().create(job).await {
            Ok(_) | Err(Fault::Conflict(_)) => {}
            Err(Fault::Refused(why)) => {
                let now = clock::now();
                let words = format!("it could not be started: {why}");
                return Ok(Effect::Ran(self.report(&CommandResult { ok: false, words, tail: Vec::new() }, now, now)));
            }
            Err(other) => return Err(other.into()),
        }
        failpoint::hit("kubernetes.command.after_create");
        let deadline = tokio::time::Instant::now() + limit + SLACK + SLACK;
        let (mut trouble, mut limited) = (None, false);
        let mut changes = self.watched().changes();
        let found = loop {
            changes.mark_unchanged();
            let found = self.cluster().read("batch/v1", "Job", name(job)).await?;
            let found = found.ok_or_else(|| failed(format!("the Job {} is gone", name(job))))?;
            if ended(&found).is_some() {
                break found;
            }
            trouble = self.why_job(name(job)).or(trouble);
            if !limited {
                limited = self.limit_from_begin(&found, limit).await?;
            }
            tokio::select! {
                () = stop.cancelled() => {
                    self.cluster().delete("batch/v1", "Job", name(job), None).await?;
                    return Err(TargetError::Stopped);
                }
                () = tokio::time::sleep_until(deadline) => {
                    self.cluster().delete("batch/v1", "Job", name(job), None).await?;
                    let why = trouble.unwrap_or_else(|| "its pod did not come to an end".to_owned());
                    let now = clock::now();
                    let result = CommandResult { ok: false, words: format!("given up: {why}"), tail: Vec::new() };
                    return Ok(Effect::Ran(self.report(&result, now, now)));
                }
                _ = changes.changed() => {}
                () = tokio::time::sleep(if self.pod_of(name(job)).is_some_and(|p| is_over(&p)) { LOOK } else { SELDOM }) => {}
            }
        };
        let log = LocalTarget::command_log(&self.config.data, desired.rollout, app, what);
        let (code, tail) = self.output(name(job), &log).await;
        let ok = ended(&found) == Some(true);
        let late = conditions(&found).any(|c| text(c, "/reason") == "DeadlineExceeded");
        let words = match code {
            _ if late && (limited || trouble.is_none()) => {
                format!("killed at its time limit of {} s", limit.as_secs())
            }
            _ if late => format!("given up: {}", trouble.unwrap_or_default()),
            Some((137, "OOMKilled")) => "it ran out of memory".to_owned(),
            Some((code, _)) => format!("exit code {code}"),
            None if ok => "exit code 0".to_owned(),
            None => trouble.unwrap_or_else(|| "its pod was lost".to_owned()),
        };
        let time = |pointer: &str| text(&found, pointer).parse::<Timestamp>().ok();
        let started = time("/status/startTime").unwrap_or_else(clock::now);
        let end = time("/status/completionTime").unwrap_or_else(clock::now);
        Ok(Effect::Ran(self.report(&CommandResult { ok, words, tail }, started, end)))
    }

    /// Has the command's time limit count from when its container began: a Job's own counts from before there is a pod ("Jobs",
    /// "Job termination and cleanup"). Answers whether it does.
    async fn limit_from_begin(&self, job: &Value, limit: Duration) -> Result<bool, TargetError> {
        let pod = self.pod_of(name(job));
        let time = |of: &Value, pointer: &str| text(of, pointer).parse::<Timestamp>().ok();
        let state =
            |which: &str| time(pod.as_deref()?, &format!("/status/containerStatuses/0/state/{which}/startedAt"));
        let Some(begun) = state("running").or_else(|| state("terminated")) else { return Ok(false) };
        let before = begun.duration_since(time(job, "/status/startTime").unwrap_or(begun)).unsigned_abs();
        // Whole seconds are all that a Job knows of.
        let seconds = before.as_secs() + limit.as_secs().max(1);
        let fields = json!({"spec": {"activeDeadlineSeconds": seconds}});
        self.cluster().merge("batch/v1", "Job", name(job), &fields).await?;
        Ok(true)
    }

    /// A Job's pod: it makes one, and none after it.
    fn pod_of(&self, job: &str) -> Option<Object> {
        self.watched().all(Kind::Pod).into_iter().find(|p| object_label(p, "job-name") == Some(job))
    }

    /// Why a Job's pod does not start, as far as the pod itself tells.
    fn why_job(&self, job: &str) -> Option<String> {
        let pod = self.pod_of(job)?;
        manifests::why(&pod, &[], None).map(|w| self.mask(&w))
    }

    /// The output of a Job's pod into its log, `MS\tTEXT` a line; its exit code with the reason, and its last lines.
    async fn output(&self, job: &str, path: &std::path::Path) -> (Option<(u32, &'static str)>, Vec<String>) {
        // Read, not watched: the Job's end may be newer than what was heard of its pod.
        let params = kube::api::ListParams::default().labels(&format!("job-name={job}"));
        let found = self.cluster().list("v1", "Pod", &params).await.unwrap_or_default();
        let Some(pod) = found.into_iter().next() else { return (None, Vec::new()) };
        let terminated = pod.pointer("/status/containerStatuses/0/state/terminated");
        let code = terminated.and_then(|t| {
            let reason = if text(t, "/reason") == "OOMKilled" { "OOMKilled" } else { "" };
            Some((number(t, "/exitCode")?, reason))
        });
        let started =
            terminated.and_then(|t| text(t, "/startedAt").parse::<Timestamp>().ok()).unwrap_or_else(clock::now);
        let api: Api<Pod> = Api::namespaced(self.cluster().client(), self.cluster().namespace());
        let params = LogParams { timestamps: true, limit_bytes: Some(OUTPUT_LIMIT), ..LogParams::default() };
        let mut tail = std::collections::VecDeque::new();
        let kept = async {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut file = std::io::BufWriter::new(fs::File::create(path)?);
            let stream = api.log_stream(name(&pod), &params).await.map_err(std::io::Error::other)?;
            let mut lines = stream.lines();
            while let Some(line) = lines.try_next().await? {
                let (at, rest) = line.split_once(' ').unwrap_or(("", &line));
                let ms = at.parse::<Timestamp>().map_or(0, |at| at.as_millisecond() - started.as_millisecond()).max(0);
                let rest = self.mask(rest);
                writeln!(file, "{ms}\t{rest}")?;
                tail.push_back(rest.chars().take(500).collect::<String>());
                if tail.len() > TAIL {
                    tail.pop_front();
                }
            }
            file.flush()
        };
        if let Err(e) = kept.await {
            tracing::warn!(job, error = %e, "a command's output can't be kept whole");
        }
        (code, tail.into())
    }

    pub(super) async fn smoke(
        &self,
        desired: &Desired,
        epoch: Epoch,
        app: &DesiredApp,
        stop: &CancellationToken,
    ) -> Result<Effect, TargetError> {
        let Some(spec) = &app.spec.smoke else { return Err(failed(format!("{} has no smoke test", app.name))) };
        let service = Self::service_name(app).ok_or_else(|| failed(format!("{} has no Service", app.name)))?;
        let preview = names::preview(&service);
        let door = self.watched().get(Kind::Service, &preview);
        let address = door.as_ref().and_then(door_of_preview);
        let address = address.ok_or_else(|| failed(format!("{}: no copy to test", app.name)))?;
        let Some(runner) = &self.config.runner else {
            let mut order = self.order(desired, epoch, app, Some(1))?;
            order.env.insert("URL".to_owned(), format!("http://{preview}:{}", address.port()));
            order.env.insert("PORT".to_owned(), address.port().to_string());
            let job = self.job(desired, app, &order, "smoke", spec)?;
            // One that a worker before left behind tells of the slot as it was then.
            self.cluster().delete("batch/v1", "Job", name(&job), None).await?;
            let ran = self.run_job(desired, &app.name, "smoke", &job, spec.timeout, stop).await;
            self.cluster().delete("batch/v1", "Job", name(&job), None).await?;
            return ran;
        };
        let mut env = put::environment(desired, app);
        for secret in &app.spec.secrets {
            let value = self.config.secrets.get(secret).ok_or_else(|| self.not_granted(desired, secret))?;
            env.insert(secret.clone(), secrecy::ExposeSecret::expose_secret(value).to_owned());
        }
        env.insert("URL".to_owned(), format!("http://{address}"));
        env.insert("PORT".to_owned(), address.port().to_string());
        let data = &self.config.data;
        let (result, started) = smoke_here(runner.as_ref(), data, desired, &app.name, spec, env, stop).await?;
        Ok(Effect::Ran(self.report(&result, started, clock::now())))
    }

    fn report(&self, result: &CommandResult, started: Timestamp, ended: Timestamp) -> CommandReport {
        shared::report(&self.config.secrets, result, started, ended)
    }
}

fn conditions(job: &Value) -> impl Iterator<Item = &Value> {
    job.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten()
}

/// Whether a Job ended, and well.
fn ended(job: &Value) -> Option<bool> {
    let is = |kind: &str| conditions(job).any(|c| text(c, "/type") == kind && text(c, "/status") == "True");
    if is("Complete") {
        return Some(true);
    }
    is("Failed").then_some(false)
}

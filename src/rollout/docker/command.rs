//! Commands of a release: `pre_deploy` in the new image, once; the smoke test from the server's side.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use bollard::models::ContainerInspectResponse;
use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::{
    DockerTarget,
    container::{Wanted, explain},
    engine::{Fault, TAIL},
    names, observe,
};
use crate::{
    clock,
    domain::{
        ids::AppName,
        rollout::{CommandReport, CommandSpec, Desired, DesiredApp, Effect},
    },
    failpoint,
    rollout::{
        TargetError,
        local::{CommandResult, LocalTarget, service_id},
        shared::{self, AWAY, LEAST_GRACE, refused, smoke_here},
    },
};

/// Output of a `pre_deploy` that is kept, in bytes.
const OUTPUT_LIMIT: u64 = 50 * 1024 * 1024;

fn failed(words: impl Into<String>) -> TargetError {
    TargetError::Failed(words.into())
}

fn parse_time(text: Option<&str>) -> Option<Timestamp> {
    // The engine writes the year 1 for never.
    text?.parse().ok().filter(|at: &Timestamp| at.as_second() > 0)
}

impl DockerTarget {
    /// Runs the app's `pre_deploy` in its new image. Its container has a name that follows from the rollout and is
    /// kept until the slot is made, so that a later worker waits for it, or reads its end, and never runs it again.
    pub(super) async fn pre_deploy(
        &self,
        desired: &Desired,
        app: &DesiredApp,
        stop: &CancellationToken,
    ) -> Result<Effect, TargetError> {
        let Some(spec) = &app.spec.pre_deploy else { return Err(failed(format!("{} has no pre_deploy", app.name))) };
        let name = names::pre_deploy(self.engine.owner(), &desired.key, &app.name, desired.rollout);
        let env = self.environment(desired, app)?;
        self.in_image(desired, app, "pre_deploy", name, &spec.command, env, stop).await
    }

    /// Runs a command in the app's image, on the environment's network. Its container is found again by its name.
    #[expect(clippy::too_many_arguments, reason = "the parts of one command, used twice")]
    async fn in_image(
        &self,
        desired: &Desired,
        app: &DesiredApp,
        what: &str,
        name: String,
        command: &CommandSpec,
        env: BTreeMap<String, String>,
        stop: &CancellationToken,
    ) -> Result<Effect, TargetError> {
        let mut found = match self.engine.inspect(&name).await {
            Ok(found) => Some(found),
            Err(Fault::Missing(_)) => None,
            Err(other) => return Err(other.into()),
        };
        if found.is_none() {
            let image = self.image(app, stop).await?;
            let network = self.ensure_network(&desired.key).await?;
            let (environment, rollout) = (desired.key.to_string(), desired.rollout.to_string());
            let labels = [
                (names::ENVIRONMENT, environment.as_str()),
                (names::APP, app.name.as_str()),
                (names::SLOT_NAME, app.slot.as_str()),
                (names::ROLLOUT, rollout.as_str()),
            ];
            let wanted = Wanted {
                name: name.clone(),
                labels: self.engine.docker().labels(names::COMMAND, &labels),
                env,
                command: Some(["/bin/sh", "-e", "-c", &command.run].map(str::to_owned).to_vec()),
                address: None,
                restarted: false,
                grace: LEAST_GRACE,
            };
            self.create(desired, app, &image, &network, wanted).await?;
            failpoint::hit("docker.pre_deploy.after_create");
            found = Some(self.engine.inspect(&name).await?);
        }
        let found = found.unwrap_or_default();
        let id = found.id.clone().unwrap_or_else(|| name.clone());
        if !has_begun(&found) {
            match self.engine.start(&id).await {
                Ok(()) => {}
                Err(away @ Fault::Away(_)) => return Err(away.into()),
                Err(why) => {
                    let now = clock::now();
                    let words = format!("it could not be started: {}", explain(why.words()));
                    let result = CommandResult { ok: false, words, tail: Vec::new() };
                    return Ok(Effect::Ran(self.report(&result, now, now)));
                }
            }
        }
        failpoint::hit("docker.pre_deploy.after_start");
        let log = LocalTarget::command_log(&self.config.data, desired.rollout, &app.name, what);
        // Cutting a migration in half is worse than waiting for it: nothing but its time limit ends it.
        let (state, tail, late) = self.until_end(&id, command.timeout, &log).await?;
        let state = state.state.unwrap_or_default();
        let code = state.exit_code.unwrap_or(-1);
        let words = match code {
            _ if late => format!("killed at its time limit of {} s", command.timeout.as_secs()),
            _ if state.oom_killed == Some(true) => "it ran out of memory".to_owned(),
            0 => "exit code 0".to_owned(),
            code => ended_with(what, code),
        };
        let now = clock::now();
        let started = parse_time(state.started_at.as_deref()).unwrap_or(now);
        let ended = parse_time(state.finished_at.as_deref()).unwrap_or(now);
        let result = CommandResult { ok: code == 0 && !late, words, tail };
        Ok(Effect::Ran(self.report(&result, started, ended)))
    }

    /// Follows a command's output into its log until it ends, or ends it at its time limit; says whether that was
    /// so.
    async fn until_end(
        &self,
        id: &str,
        limit: Duration,
        path: &Path,
    ) -> Result<(ContainerInspectResponse, Vec<String>, bool), TargetError> {
        let found = self.engine.inspect(id).await?;
        let started = found.state.as_ref().and_then(|s| parse_time(s.started_at.as_deref())).unwrap_or_else(clock::now);
        let limit = SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX);
        let deadline = started.checked_add(limit).unwrap_or(Timestamp::MAX);
        let open = || Log::open(path, started).map_err(|e| failed(format!("{}: {e}", path.display())));
        // Docker up to 20.10 drops the last lines that are on their way when a container ends: only what is read after its
        // end is whole. And one that has ended is not late, however late we look.
        let mut whole = !is_running(&found);
        let (mut limited, mut late) = (!whole, false);
        let mut log = open()?;
        let mut output = self.engine.follow_log(id);
        loop {
            let left = Duration::try_from(deadline.duration_since(clock::now())).unwrap_or_default();
            tokio::select! {
                piece = output.next() => match piece {
                    Some(Ok(piece)) => log.write(piece.as_ref()),
                    // The end of the container, or of the engine.
                    Some(Err(_)) | None => {
                        let found = self.engine.inspect(id).await?;
                        let ended = !is_running(&found);
                        if ended && whole {
                            return Ok((found, log.close(), late));
                        }
                        if !ended {
                            tokio::time::sleep(AWAY).await;
                        }
                        (whole, limited) = (ended, limited && !ended);
                        log = open()?;
                        output = self.engine.follow_log(id);
                    }
                },
                () = tokio::time::sleep(left), if limited => {
                    limited = false;
                    if is_running(&self.engine.inspect(id).await?) {
                        late = true;
                        self.engine.stop(id).await?;
                    }
                }
            }
        }
    }

    /// Removes the commands of this app that ended: of this rollout they are recorded, of others they are history.
    pub(super) async fn sweep_commands(&self, desired: &Desired, app: &AppName) -> Result<(), TargetError> {
        for listed in self.engine.containers(names::COMMAND, &desired.key).await? {
            let labels = listed.labels.unwrap_or_default();
            let running = listed.state.is_some_and(|s| s == bollard::models::ContainerSummaryStateEnum::RUNNING);
            if labels.get(names::APP).map(String::as_str) == Some(app.as_str())
                && !running
                && let Some(id) = listed.id
            {
                self.engine.remove(&id).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn smoke(
        &self,
        desired: &Desired,
        app: &DesiredApp,
        stop: &CancellationToken,
    ) -> Result<Effect, TargetError> {
        let Some(spec) = &app.spec.smoke else { return Err(failed(format!("{} has no smoke test", app.name))) };
        let status = self.agent().status().await.map_err(refused)?;
        let service = status.services.get(&service_id(&desired.key, &app.name));
        let address = service
            .and_then(|s| observe::upstreams(s.slots.get(app.slot.as_str())?).first().copied())
            .ok_or_else(|| failed(format!("{}: no copy to test", app.name)))?;
        let mut env: BTreeMap<String, String> = self.environment(desired, app)?;
        env.insert("URL".to_owned(), format!("http://{address}"));
        env.insert("PORT".to_owned(), address.port().to_string());
        let Some(runner) = &self.config.runner else {
            let name = names::smoke(self.engine.owner(), &desired.key, &app.name, desired.rollout);
            // One that a worker before left behind tells of the slot as it was then.
            self.engine.remove(&name).await?;
            let ran = tokio::select! {
                ran = self.in_image(desired, app, "smoke", name.clone(), spec, env, stop) => ran,
                () = stop.cancelled() => Err(TargetError::Stopped),
            };
            self.engine.remove(&name).await?;
            return ran;
        };
        let data = &self.config.data;
        let (result, started) = smoke_here(runner.as_ref(), data, desired, &app.name, spec, env, stop).await?;
        Ok(Effect::Ran(self.report(&result, started, clock::now())))
    }

    fn report(&self, result: &CommandResult, started: Timestamp, ended: Timestamp) -> CommandReport {
        shared::report(&self.config.secrets, result, started, ended)
    }
}

/// How a command ended that was not ended by us. The engine kills what runs when it stops: that is not the command's own
/// failure, and what it did until then stays done.
#[must_use]
pub fn ended_with(what: &str, code: i64) -> String {
    let signal = match code {
        137 => "KILL",
        143 => "TERM",
        code => return format!("exit code {code}"),
    };
    let half = match what {
        "pre_deploy" => {
            ". What it did until then is not undone: the database may be half migrated, look before the next release"
        }
        _ => "",
    };
    format!(
        "exit code {code}: ended by {signal} from outside, as the Docker engine does when it stops or restarts, and the \
         machine when it is out of memory{half}"
    )
}

fn is_running(found: &ContainerInspectResponse) -> bool {
    found.state.as_ref().is_some_and(|s| s.running == Some(true))
}

/// It was started at least once.
fn has_begun(found: &ContainerInspectResponse) -> bool {
    found.state.as_ref().is_some_and(|s| parse_time(s.started_at.as_deref()).is_some())
}

/// A command's output on disk, one record a line: `MS\tTEXT`, the time since it began in milliseconds. The last lines
/// are kept at hand.
struct Log {
    file: io::BufWriter<fs::File>,
    started: Timestamp,
    left: u64,
    /// A line that has not ended yet, with its time.
    open: Option<(i64, Vec<u8>)>,
    tail: VecDeque<String>,
}

impl Log {
    fn open(path: &Path, started: Timestamp) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = io::BufWriter::new(fs::File::create(path)?);
        Ok(Self { file, started, left: OUTPUT_LIMIT, open: None, tail: VecDeque::new() })
    }

    /// One piece of the engine's: `2026-01-02T03:04:05.678901234Z TEXT`; long lines come in several.
    fn write(&mut self, piece: &[u8]) {
        let stamp = piece.iter().position(|b| *b == b' ');
        let at = stamp.and_then(|end| std::str::from_utf8(&piece[..end]).ok()?.parse::<Timestamp>().ok());
        let text = match (at, stamp) {
            (Some(_), Some(end)) => &piece[end + 1..],
            _ => piece,
        };
        let ms = at.map_or(0, |at| at.as_millisecond() - self.started.as_millisecond()).max(0);
        let (from, mut line) = self.open.take().unwrap_or((ms, Vec::new()));
        line.extend_from_slice(text);
        if line.last() == Some(&b'\n') {
            line.pop();
            self.line(from, &line);
        } else {
            self.open = Some((from, line));
        }
    }

    fn line(&mut self, ms: i64, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        self.tail.push_back(text.trim_end().chars().take(500).collect());
        if self.tail.len() > TAIL {
            self.tail.pop_front();
        }
        let size = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if size > self.left {
            return;
        }
        self.left -= size;
        let written =
            write!(self.file, "{ms}\t").and_then(|()| self.file.write_all(line)).and_then(|()| writeln!(self.file));
        if let Err(e) = written {
            tracing::warn!(error = %e, "a command's output can't be kept");
            self.left = 0;
        }
    }

    fn close(mut self) -> Vec<String> {
        if let Some((ms, line)) = self.open.take() {
            self.line(ms, &line);
        }
        if let Err(e) = self.file.flush() {
            tracing::warn!(error = %e, "a command's output can't be kept");
        }
        self.tail.into()
    }
}

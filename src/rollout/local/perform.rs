//! Acting on the live system, through the agent.

use std::{collections::BTreeMap, fs, path::Path};

use secrecy::ExposeSecret as _;
use tokio_util::sync::CancellationToken;

use super::{CommandResult, LocalTarget, ShellCommand, is_missing, observe, refused, releases, service_id};
use crate::{
    agent::protocol::{AgentStatus, ProcessSpec, SlotSource},
    clock,
    domain::{
        config::AppKind,
        ids::{AppName, Epoch, Slot},
        rollout::{Action, CommandReport, CommandSpec, Desired, DesiredApp, Effect, Kind},
    },
    rollout::{
        TargetError,
        shared::{self, LEAST_GRACE, Public, kilobytes},
    },
};

/// Runs the command in `$SWITCHOVER_COMMAND` and notes its end where a later server finds it.
const NOTED: &str = "code=0; sh -e -c \"$SWITCHOVER_COMMAND\" || code=$?; \
    printf '%s\\n' \"$code\" > \"$SWITCHOVER_RESULT.tmp\" && mv \"$SWITCHOVER_RESULT.tmp\" \"$SWITCHOVER_RESULT\"; \
    exit \"$code\"";

fn failed(words: impl Into<String>) -> TargetError {
    TargetError::Failed(words.into())
}

impl LocalTarget {
    pub(super) async fn carry_out(
        &self,
        desired: &Desired,
        epoch: Epoch,
        action: &Action,
        stop: &CancellationToken,
    ) -> Result<Effect, TargetError> {
        let find =
            |name: &AppName| desired.app(name).ok_or_else(|| failed(format!("app {name} is no part of this rollout")));
        match action {
            Action::Preflight => self.preflight(desired).await,
            Action::Claim => self.claim(desired, epoch).await,
            Action::PreDeploy { app } => self.pre_deploy(desired, find(app)?).await,
            Action::PutSlot { app } => {
                let app = find(app)?;
                self.put(desired, epoch, app).await.map(|()| Effect::Done)
            }
            Action::Smoke { app } => self.smoke(desired, find(app)?, stop).await,
            Action::Switch { app, from, to } => {
                let app = find(app)?;
                let service = service_id(&desired.key, &app.name);
                if app.kind == AppKind::Worker {
                    self.replace(desired, epoch, app, to).await?;
                }
                let from = from.as_ref().map(Slot::as_str);
                let switched = self.agent().switch(&service, epoch, from, to.as_str()).await.map_err(refused)?;
                Ok(Effect::Switched { at: switched.at })
            }
            // The agent chooses the slot for each request, and nothing is in place for a switch alone.
            Action::Recycle { .. } | Action::Grow { .. } | Action::Follow { .. } | Action::Finish { .. } => {
                Ok(Effect::Done)
            }
            Action::RemoveSlot { app, slot } => {
                self.forget_slot(&service_id(&desired.key, app), epoch, slot).await.map(|()| Effect::Done)
            }
        }
    }

    pub(super) async fn forget_slot(&self, service: &str, epoch: Epoch, slot: &Slot) -> Result<(), TargetError> {
        match self.agent().remove_slot(service, slot.as_str(), epoch).await {
            Ok(()) => {}
            Err(e) if is_missing(&e) => {}
            Err(e) => return Err(refused(e)),
        }
        self.forget_readiness(service, slot.as_str());
        Ok(())
    }

    async fn preflight(&self, desired: &Desired) -> Result<Effect, TargetError> {
        self.agent().hello().await.map_err(refused)?;
        let status = self.agent().status().await.map_err(refused)?;
        let warm = |app: &DesiredApp| {
            let service = status.services.get(&service_id(&desired.key, &app.name));
            service.is_some_and(|s| s.slots.contains_key(app.slot.as_str()))
        };
        let mut digests = Vec::new();
        for app in &desired.apps {
            let name = &app.name;
            if app.spec.start.as_deref().is_none_or(|s| s.trim().is_empty()) {
                return Err(failed(format!("app {name} has no start command: add `start:` to it")));
            }
            for secret in &app.spec.secrets {
                if !self.config.secrets.contains_key(secret) {
                    return Err(failed(format!(
                        "the secret {secret} is not granted to {}: the operator adds it with `switchover secret set` \
                         or in the server's settings",
                        desired.key.environment
                    )));
                }
            }
            // What runs already needs nothing from the disk: a way back is not held up by reading it.
            let skipped = desired.kind == Kind::Rollback && warm(app);
            if !skipped && !digests.contains(&app.digest) {
                digests.push(app.digest.clone());
            }
        }
        let root = self.config.releases.clone();
        let checked = tokio::task::spawn_blocking(move || {
            digests.iter().try_for_each(|digest| releases::verify(&root, digest).map(drop))
        });
        match checked.await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(failed(e.to_string())),
            Err(e) => return Err(failed(format!("the release could not be read: {e}"))),
        }
        if desired.kind == Kind::Release {
            room(desired, &status)?;
        }
        Ok(Effect::Done)
    }

    async fn claim(&self, desired: &Desired, epoch: Epoch) -> Result<Effect, TargetError> {
        for app in &desired.apps {
            let service = service_id(&desired.key, &app.name);
            let public = (app.kind == AppKind::Web)
                .then(|| self.config.listen.get(&app.name).cloned().unwrap_or_else(Public::somewhere));
            shared::open(self.agent(), &service, public.as_ref(), Vec::new()).await.map_err(|(why, _)| why)?;
            self.agent().claim(&service, epoch).await.map_err(refused)?;
        }
        let status = self.agent().status().await.map_err(refused)?;
        Ok(Effect::Claimed(observe::live(&status, &desired.key)))
    }

    /// The environment of everything that runs in a release.
    fn environment(&self, desired: &Desired, app: &DesiredApp) -> Result<BTreeMap<String, String>, TargetError> {
        let mut env = BTreeMap::from([
            ("PATH".to_owned(), self.config.path.clone()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("HOME".to_owned(), self.home(desired, app)?),
        ]);
        env.extend(app.spec.env.clone());
        for name in &app.spec.secrets {
            let Some(value) = self.config.secrets.get(name) else {
                return Err(failed(format!("the secret {name} is not granted to {}", desired.key.environment)));
            };
            env.insert(name.clone(), value.expose_secret().to_owned());
        }
        env.extend(shared::known(desired, app));
        Ok(env)
    }

    /// A home that outlives releases: what an app keeps there, its next version finds.
    fn home(&self, desired: &Desired, app: &DesiredApp) -> Result<String, TargetError> {
        let home = self.config.data.join("homes").join(service_id(&desired.key, &app.name).replace('/', "_"));
        fs::create_dir_all(&home).map_err(|e| failed(format!("{}: {e}", home.display())))?;
        let home = std::path::absolute(&home).map_err(|e| failed(format!("{}: {e}", home.display())))?;
        Ok(home.to_string_lossy().into_owned())
    }

    async fn put(&self, desired: &Desired, epoch: Epoch, app: &DesiredApp) -> Result<(), TargetError> {
        let service = service_id(&desired.key, &app.name);
        let mut env = self.environment(desired, app)?;
        if let Some(path) = &app.spec.health {
            env.insert(observe::HEALTH_VARIABLE.to_owned(), path.clone());
        }
        let start = app.spec.start.as_deref().unwrap_or_default();
        let absolute = |path: &Path| std::path::absolute(path).map_err(|e| failed(format!("{}: {e}", path.display())));
        let log_dir = absolute(&self.slot_logs(&service, &app.slot))?;
        fs::create_dir_all(&log_dir).map_err(|e| failed(format!("{}: {e}", log_dir.display())))?;
        let source = SlotSource::Process(ProcessSpec {
            argv: start_command(start),
            env,
            cwd: absolute(&releases::place(&self.config.releases, &app.digest))?,
            replicas: app.spec.replicas.max(1),
            log_dir,
            stop_grace_ms: u64::try_from(desired.drain_timeout.max(LEAST_GRACE).as_millis()).unwrap_or(u64::MAX),
        });
        let slot = self.agent().put_slot(&service, app.slot.as_str(), epoch, source).await.map_err(refused)?;
        if !slot.running {
            self.agent().set_running(&service, app.slot.as_str(), epoch, true).await.map_err(refused)?;
        }
        Ok(())
    }

    /// A worker is never doubled: the one stops to its end, then the other starts.
    async fn replace(&self, desired: &Desired, epoch: Epoch, app: &DesiredApp, to: &Slot) -> Result<(), TargetError> {
        let service = service_id(&desired.key, &app.name);
        let status = self.agent().status().await.map_err(refused)?;
        let found = status.services.get(&service).map(|s| &s.slots);
        // Not only the live one: whatever another hand may have left running.
        for (other, slot) in found.into_iter().flatten() {
            if other != to.as_str() && (slot.running || slot.instances.iter().any(|i| i.pid.is_some())) {
                match self.agent().set_running(&service, other, epoch, false).await {
                    Ok(_) => {}
                    Err(e) if is_missing(&e) => {}
                    Err(e) => return Err(refused(e)),
                }
            }
        }
        if to == &app.slot {
            return self.put(desired, epoch, app).await;
        }
        self.agent().set_running(&service, to.as_str(), epoch, true).await.map_err(refused)?;
        Ok(())
    }

    async fn pre_deploy(&self, desired: &Desired, app: &DesiredApp) -> Result<Effect, TargetError> {
        let Some(spec) = &app.spec.pre_deploy else { return Err(failed(format!("{} has no pre_deploy", app.name))) };
        let log = Self::command_log(&self.config.data, desired.rollout, &app.name, "pre_deploy");
        let result = log.with_extension("code");
        let started = clock::now();
        // It may have come to its end while nobody was there to write that down.
        if let Ok(code) = fs::read_to_string(&result) {
            let code = code.trim();
            let done = CommandResult {
                ok: code == "0",
                words: format!("exit code {code} (it ended while the server was away)"),
                tail: Vec::new(),
            };
            return Ok(Effect::Ran(self.report(&done, started)));
        }
        let mut env = self.environment(desired, app)?;
        env.insert("SWITCHOVER_COMMAND".to_owned(), spec.command.run.clone());
        let place = std::path::absolute(&result).map_err(|e| failed(format!("{}: {e}", result.display())))?;
        env.insert("SWITCHOVER_RESULT".to_owned(), place.to_string_lossy().into_owned());
        // Cutting a migration in half is worse than waiting for it: nothing but its time limit ends it.
        let never = CancellationToken::new();
        let command = CommandSpec { run: NOTED.to_owned(), timeout: spec.command.timeout };
        self.run(desired, app, &command, env, &log, &never).await
    }

    async fn smoke(
        &self,
        desired: &Desired,
        app: &DesiredApp,
        stop: &CancellationToken,
    ) -> Result<Effect, TargetError> {
        let Some(spec) = &app.spec.smoke else { return Err(failed(format!("{} has no smoke test", app.name))) };
        let service = service_id(&desired.key, &app.name);
        let status = self.agent().status().await.map_err(refused)?;
        let address = status
            .services
            .get(&service)
            .and_then(|s| s.slots.get(app.slot.as_str())?.instances.iter().find_map(|i| i.address))
            .ok_or_else(|| failed(format!("{}: no copy to test", app.name)))?;
        let mut env = self.environment(desired, app)?;
        env.insert("URL".to_owned(), format!("http://{address}"));
        env.insert("PORT".to_owned(), address.port().to_string());
        let log = Self::command_log(&self.config.data, desired.rollout, &app.name, "smoke");
        self.run(desired, app, spec, env, &log, stop).await
    }

    async fn run(
        &self,
        _desired: &Desired,
        app: &DesiredApp,
        spec: &CommandSpec,
        env: BTreeMap<String, String>,
        log: &Path,
        stop: &CancellationToken,
    ) -> Result<Effect, TargetError> {
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder).map_err(|e| failed(format!("{}: {e}", folder.display())))?;
        }
        let command = ShellCommand {
            run: spec.run.clone(),
            cwd: releases::place(&self.config.releases, &app.digest),
            env,
            timeout: spec.timeout,
            log: log.to_owned(),
        };
        let started = clock::now();
        let result = self.config.runner.run(command, stop).await;
        if stop.is_cancelled() && !result.ok {
            return Err(TargetError::Stopped);
        }
        Ok(Effect::Ran(self.report(&result, started)))
    }

    fn report(&self, result: &CommandResult, started: jiff::Timestamp) -> CommandReport {
        shared::report(&self.config.secrets, result, started, clock::now())
    }
}

/// The start command as the agent runs it. `exec` makes the app the process that gets the signals; a command line that
/// a shell must interpret (`a && b`, `A=1 b`) keeps its shell.
pub(in crate::rollout) fn start_command(start: &str) -> Vec<String> {
    let plain = !start.contains(['&', '|', ';', '<', '>', '(', '`', '\n', '{', '#'])
        && !start.split_whitespace().next().is_none_or(|word| word.contains('=') || BUILT_IN.contains(&word));
    let run = if plain { format!("exec {start}") } else { start.to_owned() };
    ["/bin/sh", "-c", &run].map(str::to_owned).to_vec()
}

/// What `exec` can't run, because it is the shell's own.
const BUILT_IN: [&str; 16] = [
    "exec", "cd", "export", "set", "if", "while", "for", "until", "case", ".", "source", "!", "trap", "eval", "unset",
    "ulimit",
];

/// Room for twice the size: while it is warmed, the new slot needs about what the live one uses.
fn room(desired: &Desired, status: &AgentStatus) -> Result<(), TargetError> {
    let mut used: u64 = 0;
    for app in desired.apps.iter().filter(|a| a.kind == AppKind::Web) {
        let Some(service) = status.services.get(&service_id(&desired.key, &app.name)) else { continue };
        let live = service.active.as_ref().and_then(|a| service.slots.get(a));
        for copy in live.into_iter().flat_map(|s| &s.instances) {
            used += copy.pid.and_then(|pid| kilobytes(&format!("/proc/{pid}/status"), "VmRSS:")).unwrap_or(0);
        }
    }
    match kilobytes("/proc/meminfo", "MemAvailable:") {
        Some(free) if free < used => Err(failed(format!(
            "not enough memory for two slots side by side: the live one uses {} MB, {} MB are free",
            used / 1024,
            free / 1024
        ))),
        _ => Ok(()),
    }
}

//! What the targets behind the agent share: readiness, its events, its errors, where the prober asks.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, stream::BoxStream};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;

use super::{
    ProbeTarget, TargetError,
    local::{CommandResult, CommandRunner, LocalTarget, ShellCommand, service_id},
};
use crate::{
    agent::{
        Client, ClientError,
        protocol::{Counters, Door, ErrorCode, Event, ServiceStatus, TlsFiles},
    },
    clock,
    domain::{
        config::AppKind,
        ids::{AppName, Slot},
        rollout::{CommandReport, CommandSpec, Desired, DesiredApp, Requests},
    },
};

/// At least so long a process may take to end itself.
pub(super) const LEAST_GRACE: Duration = Duration::from_secs(10);
/// Requests that are still under way on a slot that is retired get so long.
const RETIRE_GRACE: Duration = Duration::from_secs(60);
/// Between two tries to reach the agent or an engine.
pub(super) const AWAY: Duration = Duration::from_millis(100);

/// What an error of the agent means for a rollout.
pub(super) fn refused(error: ClientError) -> TargetError {
    match error {
        ClientError::Refused { code: ErrorCode::StaleEpoch, message } => TargetError::Stale(message),
        ClientError::Refused { message, .. } => TargetError::Failed(message),
        away @ (ClientError::Unavailable { .. } | ClientError::Protocol(_)) => {
            TargetError::Unreachable(away.to_string())
        }
    }
}

pub(super) fn is_missing(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { code: ErrorCode::NotFound, .. })
}

/// What every slot, and every command of a release, finds in its environment of the release itself.
pub(super) fn known(desired: &Desired, app: &DesiredApp) -> [(String, String); 3] {
    [
        ("SWITCHOVER_RELEASE", app.slot.to_string()),
        ("SWITCHOVER_ENVIRONMENT", desired.key.environment.to_string()),
        ("SWITCHOVER_COMMIT", app.commit.as_ref().unwrap_or(&desired.commit).to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
}

/// Takes secrets out of what people will read.
pub(super) fn mask(secrets: &BTreeMap<String, SecretString>, text: &str) -> String {
    let mut out = text.to_owned();
    for secret in secrets.values() {
        // A shorter one would blacken half of the text and protects nothing.
        for line in secret.expose_secret().lines().filter(|l| l.len() >= 4) {
            out = out.replace(line, "***");
        }
    }
    out
}

pub(super) fn requests(counters: Counters) -> Requests {
    Requests {
        total: counters.requests,
        server_errors: counters.server_errors,
        cut: counters.cut,
        in_flight: counters.in_flight,
    }
}

/// Waits for the last requests of a slot that is retired. False: the agent knows no such slot.
pub(super) async fn idle(agent: &Client, service: &str, slot: &Slot) -> Result<bool, TargetError> {
    match agent.wait_idle(service, slot.as_str(), RETIRE_GRACE).await {
        Ok(0) => Ok(true),
        Ok(left) => {
            tracing::info!(service, slot = %slot, left, "connections still open are ended with their slot");
            Ok(true)
        }
        Err(e) if is_missing(&e) => Ok(false),
        Err(e) => Err(refused(e)),
    }
}

/// Where users reach an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Public {
    /// Address and port; port 0: the agent chooses one and keeps it.
    pub address: SocketAddr,
    /// Host names of this app. Empty: all that no other app has there.
    pub hosts: Vec<String>,
    /// TLS with these files, which the agent must be able to read.
    pub tls: Option<TlsFiles>,
    /// A plain address at which every request is sent on to `address` by https.
    pub redirect: Option<SocketAddr>,
}

impl From<SocketAddr> for Public {
    fn from(address: SocketAddr) -> Self {
        Self { address, hosts: Vec::new(), tls: None, redirect: None }
    }
}

impl Public {
    /// For apps that the operator says nothing about: a port of 127.0.0.1 that the agent chooses and keeps.
    pub(super) fn somewhere() -> Self {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()
    }

    /// Whether requests come in at further doors, and the service's own listener is for the prober alone: it speaks
    /// neither TLS nor needs a name.
    pub(super) fn has_doors(&self) -> bool {
        self.tls.is_some() || !self.hosts.is_empty()
    }

    /// The service's own listener.
    pub(super) fn main(&self) -> SocketAddr {
        if self.has_doors() { SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) } else { self.address }
    }

    /// The further ones.
    pub(super) fn doors(&self) -> Vec<Door> {
        if !self.has_doors() {
            return Vec::new();
        }
        let (hosts, tls, port) = (self.hosts.clone(), self.tls.clone(), self.address.port());
        let mut doors = Vec::new();
        if let Some(plain) = self.redirect {
            doors.push(Door { listen: plain, hosts: hosts.clone(), tls: None, https: Some(port) });
        }
        doors.push(Door { listen: self.address, hosts, tls, https: None });
        doors
    }

    /// Of the doors, those that the agent can't have.
    pub(super) fn missing(&self, service: &ServiceStatus) -> Option<SocketAddr> {
        self.doors().into_iter().map(|d| d.listen).find(|l| service.missing.contains(l))
    }
}

/// Has the agent listen for a service: where users come in, and at `doors` for its neighbours. The error names the
/// address that it is about.
pub(super) async fn open(
    agent: &Client,
    service: &str,
    public: Option<&Public>,
    mut doors: Vec<Door>,
) -> Result<(), (TargetError, Option<SocketAddr>)> {
    doors.extend(public.map(Public::doors).unwrap_or_default());
    let listen = public.map(Public::main);
    let at = public.map(|p| p.address);
    let put = agent.put_service_with(service, listen, &[], doors, None).await.map_err(|e| (refused(e), at))?;
    match public.and_then(|p| p.missing(&put)) {
        None => Ok(()),
        Some(at) => {
            Err((TargetError::Failed(format!("can't listen at {at}: the address is in use, or not allowed")), Some(at)))
        }
    }
}

/// Where the prober asks: through the agent's listeners, as users do.
pub(super) async fn probes(agent: &Client, desired: &Desired, public: &BTreeMap<AppName, Public>) -> Vec<ProbeTarget> {
    let Ok(status) = agent.status().await else { return Vec::new() };
    desired
        .apps
        .iter()
        .filter(|app| app.kind == AppKind::Web)
        .filter_map(|app| {
            let listen = status.services.get(&service_id(&desired.key, &app.name))?.listen?;
            let ip = if listen.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { listen.ip() };
            let address = SocketAddr::new(ip, listen.port());
            let public = public.get(&app.name);
            let host = public.and_then(|p| p.hosts.first()).or(app.spec.hosts.first());
            Some(ProbeTarget {
                app: app.name.clone(),
                address,
                host: host.cloned().unwrap_or_else(|| address.to_string()),
                https: public.is_some_and(|p| p.tls.is_some()),
                path: app.spec.probe.path.clone()?,
                body: app.spec.probe.body.clone(),
                interval: app.spec.probe.interval,
            })
        })
        .collect()
}

/// The agent's events, subscribed to as long as somebody waits for them.
#[derive(Default)]
pub(super) struct AgentEvents(tokio::sync::Mutex<Option<BoxStream<'static, Event>>>);

impl AgentEvents {
    /// Resolves when a service whose name begins so may have changed. May resolve for nothing.
    pub(super) async fn next(&self, agent: &Client, prefix: &str) {
        let mut events = self.0.lock().await;
        if events.is_none() {
            match agent.subscribe().await {
                // What happened between the last look and now is seen by looking once more.
                Ok(stream) => *events = Some(stream),
                Err(_) => tokio::time::sleep(AWAY).await,
            }
            return;
        }
        let ours = |event: &Event| match event {
            Event::Changed { service, .. } | Event::Switched { service, .. } => service.starts_with(prefix),
        };
        let Some(stream) = events.as_mut() else { return };
        let mut last = loop {
            match stream.next().await {
                Some(event) if !ours(&event) => {}
                last => break last,
            }
        };
        // One look answers all that has come by now.
        while last.is_some() {
            match stream.next().now_or_never() {
                Some(event) => last = event,
                None => return,
            }
        }
        *events = None;
    }
}

/// A command's end for people, without secrets.
pub(super) fn report(
    secrets: &BTreeMap<String, SecretString>,
    result: &CommandResult,
    started: Timestamp,
    ended: Timestamp,
) -> CommandReport {
    CommandReport {
        ok: result.ok,
        words: mask(secrets, &result.words),
        tail: result.tail.iter().map(|l| mask(secrets, l)).collect(),
        // An engine may note the begin after the end of a command that took no time (moby issue 45445).
        started: started.min(ended),
        ended,
    }
}

/// Runs an app's smoke test on the server's own host, in a folder that is made for it; answers when it began too.
pub(super) async fn smoke_here(
    runner: &dyn CommandRunner,
    data: &Path,
    desired: &Desired,
    app: &AppName,
    spec: &CommandSpec,
    env: BTreeMap<String, String>,
    stop: &CancellationToken,
) -> Result<(CommandResult, Timestamp), TargetError> {
    let log = LocalTarget::command_log(data, desired.rollout, app, "smoke");
    let cwd = log.with_extension("d");
    fs::create_dir_all(&cwd).map_err(|e| TargetError::Failed(format!("{}: {e}", cwd.display())))?;
    let command = ShellCommand { run: spec.run.clone(), cwd: cwd.clone(), env, timeout: spec.timeout, log };
    let started = clock::now();
    let result = runner.run(command, stop).await;
    if let Err(e) = fs::remove_dir_all(&cwd) {
        tracing::warn!(folder = %cwd.display(), error = %e, "a smoke test's folder can't be removed");
    }
    if stop.is_cancelled() && !result.ok {
        return Err(TargetError::Stopped);
    }
    Ok((result, started))
}

/// Since when each copy is ready, and each slot is not. Kept between looks only: after a restart it is counted anew.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    /// By service, slot and number: which process it was, and since when it is ready.
    copies: HashMap<(String, String, usize), (String, Timestamp)>,
    unready: HashMap<(String, String), Timestamp>,
}

/// What [`Readiness`] says of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ready {
    pub count: u32,
    /// Since when all are.
    pub since: Option<Timestamp>,
    /// Since when not all are.
    pub unready_since: Option<Timestamp>,
}

impl Readiness {
    /// Takes one look: for each copy that is ready, which process it is. Another process under the same number is
    /// ready anew.
    pub(super) fn look(
        &mut self,
        service: &str,
        slot: &str,
        wanted: usize,
        copies: &[Option<String>],
        now: Timestamp,
    ) -> Ready {
        let mut since = Timestamp::MIN;
        let mut count = 0;
        for (i, copy) in copies.iter().enumerate() {
            let key = (service.to_owned(), slot.to_owned(), i);
            match copy {
                Some(process) => {
                    count += 1;
                    let known = self.copies.get(&key).filter(|(p, _)| p == process).map(|(_, at)| *at);
                    let at = known.unwrap_or(now);
                    since = since.max(at);
                    self.copies.insert(key, (process.clone(), at));
                }
                None => _ = self.copies.remove(&key),
            }
        }
        let all = wanted > 0 && count >= wanted;
        let key = (service.to_owned(), slot.to_owned());
        let unready_since = if all {
            self.unready.remove(&key);
            None
        } else {
            Some(*self.unready.entry(key).or_insert(now))
        };
        Ready { count: u32::try_from(count).unwrap_or(u32::MAX), since: all.then_some(since), unready_since }
    }

    /// Forgets a slot that is gone.
    pub(super) fn forget(&mut self, service: &str, slot: &str) {
        self.copies.retain(|(s, n, _), _| s != service || n != slot);
        self.unready.remove(&(service.to_owned(), slot.to_owned()));
    }
}

/// A value of a file of `proc(5)` in kB, if it is there.
pub(super) fn kilobytes(path: &str, field: &str) -> Option<u64> {
    let mut text = String::new();
    fs::File::open(path).ok()?.read_to_string(&mut text).ok()?;
    text.lines().find_map(|l| l.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
}

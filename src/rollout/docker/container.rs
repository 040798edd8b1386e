//! Making containers: what every one of ours gets, and a slot's copies.

use std::{
    collections::{BTreeMap, HashMap},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bollard::{
    models::{
        ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigLogConfig, NetworkingConfig,
        RestartPolicy, RestartPolicyNameEnum,
    },
    query_parameters::CreateContainerOptionsBuilder,
};
use secrecy::ExposeSecret as _;
use tokio_util::sync::CancellationToken;

use super::{
    DockerTarget,
    engine::{Fault, Found},
    image::Image,
    names,
    network::{Network, taken},
};
use crate::{
    domain::{
        config::AppKind,
        ids::Epoch,
        rollout::{Desired, DesiredApp},
    },
    failpoint,
    rollout::{
        TargetError,
        local::start_command,
        shared::{LEAST_GRACE, known},
    },
};

/// What an app keeps of root's powers, if it runs as root: enough for servers that begin as root and give it up. Less
/// than Docker's own list ("Linux kernel capabilities"): no raw sockets, no devices, no change of root.
const CAPABILITIES: [&str; 7] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"];
/// Processes and threads of one container: what nobody needs, and what a fork bomb must not pass.
const PIDS: i64 = 8_192;
/// Output of one container that the engine keeps.
const LOG: [(&str, &str); 2] = [("max-size", "10m"), ("max-file", "2")];
/// Other addresses that are tried when one turns out to be taken.
const ADDRESSES: usize = 5;

fn failed(words: impl Into<String>) -> TargetError {
    TargetError::Failed(words.into())
}

/// One container to be made.
pub(super) struct Wanted {
    pub name: String,
    pub labels: HashMap<String, String>,
    pub env: BTreeMap<String, String>,
    /// In place of what the image starts.
    pub command: Option<Vec<String>>,
    pub address: Option<Ipv4Addr>,
    pub restarted: bool,
    pub grace: Duration,
}

impl DockerTarget {
    /// The environment of everything that runs in a release.
    pub(super) fn environment(
        &self,
        desired: &Desired,
        app: &DesiredApp,
    ) -> Result<BTreeMap<String, String>, TargetError> {
        let mut env = app.spec.env.clone();
        for name in &app.spec.secrets {
            let Some(value) = self.config.secrets.get(name) else {
                return Err(failed(format!("the secret {name} is not granted to {}", desired.key.environment)));
            };
            env.insert(name.clone(), value.expose_secret().to_owned());
        }
        env.extend(known(desired, app));
        Ok(env)
    }

    /// Makes a container; one that has the name already is left as it is.
    pub(super) async fn create(
        &self,
        desired: &Desired,
        app: &DesiredApp,
        image: &Image,
        network: &Network,
        wanted: Wanted,
    ) -> Result<(), Fault> {
        let memory = app.spec.resources.memory.and_then(|m| i64::try_from(m).ok());
        #[expect(clippy::cast_possible_truncation, reason = "cores of a machine")]
        let cpus = app.spec.resources.cpu.map(|cpu| (cpu * 1e9) as i64);
        let policy = if wanted.restarted { RestartPolicyNameEnum::UNLESS_STOPPED } else { RestartPolicyNameEnum::NO };
        let neighbours = desired.apps.iter().filter(|a| a.kind == AppKind::Web);
        let endpoint = EndpointSettings {
            ipam_config: wanted
                .address
                .map(|ip| EndpointIpamConfig { ipv4_address: Some(ip.to_string()), ..EndpointIpamConfig::default() }),
            ..EndpointSettings::default()
        };
        let host = HostConfig {
            network_mode: Some(network.name.clone()),
            restart_policy: Some(RestartPolicy { name: Some(policy), maximum_retry_count: None }),
            memory,
            // The same again: no swap, or the limit would be none.
            memory_swap: memory,
            nano_cpus: cpus,
            pids_limit: Some(PIDS),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            extra_hosts: Some(neighbours.map(|a| format!("{}:{}", a.name, network.gateway)).collect()),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(LOG.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            }),
            ..HostConfig::default()
        };
        let (entrypoint, cmd) = match wanted.command {
            Some(command) => (Some(command), Some(Vec::new())),
            None => (None, None),
        };
        let body = ContainerCreateBody {
            image: Some(image.reference.clone()),
            env: Some(wanted.env.into_iter().map(|(k, v)| format!("{k}={v}")).collect()),
            entrypoint,
            cmd,
            labels: Some(wanted.labels),
            stop_timeout: Some(i64::try_from(wanted.grace.as_secs()).unwrap_or(i64::MAX)),
            host_config: Some(host),
            networking_config: Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(network.name.clone(), endpoint)])),
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(&wanted.name).build();
        match self.engine.api().create_container(Some(options), body).await.map_err(Fault::from) {
            Ok(made) => {
                for warning in made.warnings {
                    tracing::warn!(container = wanted.name, warning, "the engine warns");
                }
                Ok(())
            }
            // An earlier worker, or an answer that was lost.
            Err(Fault::Conflict(why)) if why.contains("already in use by container") => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// Makes and starts all copies of an app's slot, and finds those that are there; says where they answer.
    pub(super) async fn raise(
        &self,
        desired: &Desired,
        epoch: Epoch,
        app: &DesiredApp,
    ) -> Result<Vec<SocketAddr>, TargetError> {
        // Not stoppable: the pull was made by the preflight, and what is missing now is missing for a reason.
        let image = self.image(app, &CancellationToken::new()).await?;
        let port = if app.kind == AppKind::Web { Some(image.port(app)?) } else { None };
        let network = self.ensure_network(&desired.key).await?;
        let replicas = app.spec.replicas.max(1);
        let mut addresses = Vec::new();
        for number in 0..replicas {
            addresses.extend(self.raise_copy(desired, epoch, app, &image, &network, port, number).await?);
        }
        Ok(addresses)
    }

    #[expect(clippy::too_many_arguments, reason = "all of it is what one copy is")]
    async fn raise_copy(
        &self,
        desired: &Desired,
        epoch: Epoch,
        app: &DesiredApp,
        image: &Image,
        network: &Network,
        port: Option<u16>,
        number: u32,
    ) -> Result<Option<SocketAddr>, TargetError> {
        let mut used = std::collections::BTreeSet::new();
        let mut last = String::new();
        // Each turn makes the copy or starts it.
        for _ in 0..2 * ADDRESSES {
            let found = self.engine.slots(&desired.key).await?;
            let ours = |f: &&Found| f.app == app.name && f.slot == app.slot && f.number == number;
            if let Some(copy) = found.iter().find(ours) {
                if copy.digest != app.digest.as_str() {
                    let words = "a container of this slot has another image: remove it (`docker rm -f`)";
                    return Err(failed(format!("{}: {words}: {}", app.name, copy.id)));
                }
                match self.engine.start(&copy.id).await {
                    Ok(()) => {
                        failpoint::hit("docker.copy.after_start");
                        return Ok(copy.route());
                    }
                    // Somebody else got its address or its port meanwhile: it is made anew with another.
                    Err(fault) if is_taken(&fault) => {
                        last = fault.words().to_owned();
                        used.extend(copy.address.iter().filter_map(|a| match a.ip() {
                            std::net::IpAddr::V4(ip) => Some(ip),
                            std::net::IpAddr::V6(_) => None,
                        }));
                        self.engine.remove(&copy.id).await?;
                    }
                    Err(fault) => return Err(self.not_started(app, number, fault)),
                }
            } else {
                used.extend(taken(&found));
                let address = network.free(&used)?;
                let wanted = self.copy(desired, epoch, app, port, number, address)?;
                self.create(desired, app, image, network, wanted)
                    .await
                    .map_err(|fault| self.not_started(app, number, fault))?;
                failpoint::hit("docker.copy.after_create");
            }
        }
        Err(failed(format!("{}: copy {} can't be started: {last}", app.name, number + 1)))
    }

    fn not_started(&self, app: &DesiredApp, number: u32, fault: Fault) -> TargetError {
        match fault {
            away @ Fault::Away(_) => away.into(),
            other => {
                let words = self.mask(other.words());
                failed(format!("{}: copy {} does not start: {}", app.name, number + 1, explain(&words)))
            }
        }
    }

    /// A copy of a slot, as it is to be made.
    fn copy(
        &self,
        desired: &Desired,
        epoch: Epoch,
        app: &DesiredApp,
        port: Option<u16>,
        number: u32,
        address: Ipv4Addr,
    ) -> Result<Wanted, TargetError> {
        let mut env = self.environment(desired, app)?;
        let (environment, epoch) = (desired.key.to_string(), epoch.to_string());
        let (copy, replicas) = (number.to_string(), app.spec.replicas.max(1).to_string());
        // A worker answers nobody; its address is kept all the same, so that a start never waits for one.
        let answers = SocketAddr::from((address, port.unwrap_or(0))).to_string();
        if let Some(port) = port {
            env.insert("PORT".to_owned(), port.to_string());
        }
        let mut labels = vec![
            (names::ENVIRONMENT, environment.as_str()),
            (names::APP, app.name.as_str()),
            (names::SLOT_NAME, app.slot.as_str()),
            (names::COPY, &copy),
            (names::REPLICAS, &replicas),
            (names::EPOCH, &epoch),
            (names::DIGEST, app.digest.as_str()),
            (names::ADDRESS, &answers),
        ];
        labels.extend(app.spec.health.as_deref().map(|path| (names::HEALTH, path)));
        Ok(Wanted {
            name: names::copy(self.engine.owner(), &desired.key, &app.name, &app.slot, number),
            labels: self.engine.docker().labels(names::SLOT, &labels),
            env,
            command: app.spec.start.as_deref().filter(|s| !s.trim().is_empty()).map(start_command),
            address: Some(address),
            restarted: true,
            grace: desired.drain_timeout.max(LEAST_GRACE),
        })
    }
}

/// Whether a start failed because something that belongs to one container only is another's.
fn is_taken(fault: &Fault) -> bool {
    let words = fault.words().to_lowercase();
    words.contains("address already in use") || words.contains("already allocated")
}

/// Why a container does not start, with the mend where it is known.
pub(super) fn explain(words: &str) -> String {
    let low = words.to_lowercase();
    let shell = low.contains("/bin/sh") && low.contains("no such file");
    let why = if shell {
        "its image has no /bin/sh, which `start` and `pre_deploy` need"
    } else if low.contains("executable file not found") || low.contains("no such file or directory") {
        "what it is to start is not in the image"
    } else if low.contains("permission denied") {
        "what it is to start may not be executed"
    } else if low.contains("no space left") {
        "the engine's disk is full: make room (`docker system df`)"
    } else if low.contains("minimum memory limit") {
        "its memory limit is too small for any container"
    } else if low.contains("range of cpus") {
        "it asks for more CPUs than the host has"
    } else {
        return words.to_owned();
    };
    format!("{why} ({words})")
}

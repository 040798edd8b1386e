//! The network of an environment: one address per container for life, and names that lead to the live slots.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use bollard::{
    models::{Ipam, IpamConfig, Network as Listed, NetworkCreateRequest},
    query_parameters::ListNetworksOptionsBuilder,
};

use super::{
    DockerTarget,
    engine::{Fault, Found},
    names,
};
use crate::{
    agent::protocol::{AgentStatus, Door},
    docker::{KIND, OWNER},
    domain::{
        config::AppKind,
        ids::AppName,
        rollout::{Desired, EnvironmentKey},
    },
    rollout::{TargetError, local::service_id},
};

/// The network, as it is.
#[derive(Debug, Clone)]
pub(super) struct Network {
    pub name: String,
    base: u32,
    size: u32,
    /// This host's end of it: where the agent is reached from inside.
    pub gateway: Ipv4Addr,
}

fn failed(words: impl Into<String>) -> TargetError {
    TargetError::Failed(words.into())
}

/// `10.0.3.0/24` as its first address and how many there are.
fn subnet(text: &str) -> Option<(u32, u32)> {
    let (address, prefix) = text.split_once('/')?;
    let prefix: u32 = prefix.parse().ok().filter(|p| (8..=29).contains(p))?;
    let size = 1u32 << (32 - prefix);
    Some((u32::from(address.parse::<Ipv4Addr>().ok()?) & !(size - 1), size))
}

fn config_of(listed: &Listed) -> Option<&IpamConfig> {
    let all = listed.ipam.as_ref()?.config.as_ref()?;
    all.iter().find(|c| c.subnet.as_deref().is_some_and(|s| subnet(s).is_some()))
}

impl Network {
    fn read(listed: &Listed) -> Option<Self> {
        let config = config_of(listed)?;
        let (base, size) = subnet(config.subnet.as_deref()?)?;
        let gateway = match &config.gateway {
            Some(gateway) => gateway.parse().ok()?,
            None => Ipv4Addr::from(base + 1),
        };
        Some(Self { name: listed.name.clone()?, base, size, gateway })
    }

    /// The part that the engine gives out by itself: the last quarter.
    fn dynamic(&self) -> u32 {
        self.base + self.size - self.size / 4
    }

    /// An address that nobody has.
    pub(super) fn free(&self, used: &BTreeSet<Ipv4Addr>) -> Result<Ipv4Addr, TargetError> {
        let mut all = (self.base + 2..self.dynamic()).map(Ipv4Addr::from);
        all.find(|ip| *ip != self.gateway && !used.contains(ip)).ok_or_else(|| {
            failed(format!(
                "the network {} has no address left: retire old slots, or give the engine larger pools \
                 (`default-address-pools`)",
                self.name
            ))
        })
    }
}

/// Addresses that belong to a container for life, running or not.
pub(super) fn taken(found: &[Found]) -> BTreeSet<Ipv4Addr> {
    let ips = found.iter().flat_map(|f| [f.address.map(|a| a.ip()), f.now_at]).flatten();
    ips.filter_map(|ip| match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    })
    .collect()
}

impl DockerTarget {
    async fn find_network(&self, key: &EnvironmentKey) -> Result<Option<Listed>, TargetError> {
        let labels = [
            format!("{OWNER}={}", self.engine.owner()),
            format!("{KIND}={}", names::NETWORK),
            format!("{}={key}", names::ENVIRONMENT),
        ];
        let filters = HashMap::from([("label".to_owned(), labels.to_vec())]);
        let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
        let all = self.engine.api().list_networks(Some(options)).await.map_err(Fault::from)?;
        // Two workers at once may have made two: everybody takes the first one.
        Ok(all.into_iter().min_by_key(|n| (n.created, n.id.clone())))
    }

    /// The network of the environment, if it is there.
    pub(super) async fn network(&self, key: &EnvironmentKey) -> Result<Option<Network>, TargetError> {
        let found = self.find_network(key).await?;
        found.map(|n| Network::read(&n).ok_or_else(|| unreadable(&n))).transpose()
    }

    /// The network of the environment, made if it is missing.
    pub(super) async fn ensure_network(&self, key: &EnvironmentKey) -> Result<Network, TargetError> {
        if let Some(found) = self.network(key).await? {
            return Ok(found);
        }
        // Addresses can be asked for only where the subnet was named, and only the engine knows which are free: it
        // chooses one, and the same is made again by name.
        let name = names::network(self.engine.owner(), key);
        let chosen = self.create_network(&name, key, None).await?;
        let config = config_of(&chosen).cloned().ok_or_else(|| unreadable(&chosen))?;
        self.remove_network(&chosen).await?;
        let (base, size) = config.subnet.as_deref().and_then(subnet).ok_or_else(|| unreadable(&chosen))?;
        let dynamic = Ipv4Addr::from(base + size - size / 4);
        let named = IpamConfig {
            ip_range: Some(format!("{dynamic}/{}", 34 - size.ilog2())),
            gateway: Some(config.gateway.unwrap_or_else(|| Ipv4Addr::from(base + 1).to_string())),
            subnet: config.subnet,
            auxiliary_addresses: None,
        };
        let made = self.create_network(&name, key, Some(named)).await?;
        Network::read(&made).ok_or_else(|| unreadable(&made))
    }

    async fn create_network(
        &self,
        name: &str,
        key: &EnvironmentKey,
        config: Option<IpamConfig>,
    ) -> Result<Listed, TargetError> {
        let environment = key.to_string();
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            labels: Some(self.engine.docker().labels(names::NETWORK, &[(names::ENVIRONMENT, &environment)])),
            ipam: config.map(|c| Ipam { config: Some(vec![c]), ..Ipam::default() }),
            ..NetworkCreateRequest::default()
        };
        let made = self.engine.api().create_network(request).await.map_err(Fault::from);
        match made {
            // Another worker was faster.
            Ok(_) | Err(Fault::Conflict(_)) => {}
            Err(other) => return Err(other.into()),
        }
        self.find_network(key).await?.ok_or_else(|| failed(format!("the network {name} vanished while it was made")))
    }

    async fn remove_network(&self, listed: &Listed) -> Result<(), TargetError> {
        let id = listed.id.as_deref().or(listed.name.as_deref()).unwrap_or_default();
        match self.engine.api().remove_network(id).await.map_err(Fault::from) {
            Ok(()) | Err(Fault::Missing(_)) => Ok(()),
            Err(other) => Err(other.into()),
        }
    }

    /// The port of each app that is known without a pull, by app.
    pub(super) async fn ports(
        &self,
        desired: &Desired,
        found: &[Found],
    ) -> Result<BTreeMap<AppName, u16>, TargetError> {
        let mut ports = BTreeMap::new();
        for app in desired.apps.iter().filter(|a| a.kind == AppKind::Web) {
            let known = match app.spec.port {
                Some(port) => Some(port),
                None => match self.present(app).await? {
                    Some(image) => image.port(app).ok(),
                    None => found.iter().find(|f| f.app == app.name).and_then(|f| Some(f.address?.port())),
                },
            };
            ports.extend(known.map(|port| (app.name.clone(), port)));
        }
        Ok(ports)
    }
}

fn unreadable(listed: &Listed) -> TargetError {
    let name = listed.name.as_deref().unwrap_or("?");
    failed(format!("the network {name} has no IPv4 subnet that can be used: remove it (`docker network rm {name}`)"))
}

/// Where the neighbours of each app reach it: at its own port on this host's end of the network. Apps that share a
/// port are told apart by the name in the request.
pub(super) fn doors(
    status: &AgentStatus,
    key: &EnvironmentKey,
    gateway: Ipv4Addr,
    ports: &BTreeMap<AppName, u16>,
) -> BTreeMap<AppName, Vec<Door>> {
    let ours: Vec<String> = ports.keys().map(|app| service_id(key, app)).collect();
    let elsewhere = |at: SocketAddr| {
        status.services.iter().filter(|(id, _)| !ours.contains(id)).any(|(_, s)| s.doors.iter().any(|d| d.listen == at))
    };
    let public = |port: u16| {
        let at_all = |d: &Door| Some(d.listen).filter(|l| l.ip().is_unspecified());
        let mut all =
            status.services.values().flat_map(|s| s.listen.into_iter().chain(s.doors.iter().filter_map(at_all)));
        all.any(|l| l.port() == port && (l.ip().is_unspecified() || l.ip() == IpAddr::V4(gateway)))
    };
    let door = |(app, port): (&AppName, &u16)| {
        let listen = SocketAddr::from((gateway, *port));
        let alone = ports.values().filter(|p| *p == port).count() == 1 && !elsewhere(listen);
        let hosts = if alone { Vec::new() } else { vec![app.to_string()] };
        // A public listener at all addresses has that port already, this one included.
        let doors = (!public(*port)).then_some(Door { listen, hosts, tls: None, https: None });
        (app.clone(), doors.into_iter().collect())
    };
    ports.iter().map(door).collect()
}

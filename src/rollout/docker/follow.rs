//! Routes after somebody else's hand: a container that was attached to its network anew has another address.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::SocketAddr,
    time::Duration,
};

use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::{
    engine::{Engine, Fault, Found},
    observe::upstreams,
};
use crate::{
    agent::{Client, protocol::AgentStatus},
    docker::Docker,
    domain::{
        ids::{EnvironmentName, Epoch, RepoId},
        rollout::EnvironmentKey,
    },
    rollout::{TargetError, local::service_id, shared::refused},
};

/// Between two tries while the engine or the agent is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Keeps the agent's routes where the containers are, until `shutdown`: follows the engine's events of all of this
/// server's slots. Only addresses change here; which slot is live is never touched.
///
/// A restart of a container, of the engine or of the host changes no address, so nothing is lost while nobody follows.
pub async fn follow(agent: Client, docker: Docker, shutdown: CancellationToken) {
    let engine = Engine::new(docker);
    loop {
        let followed = tokio::select! {
            () = shutdown.cancelled() => return,
            followed = follow_once(&agent, &engine) => followed,
        };
        if let Err(why) = followed {
            tracing::debug!(%why, "routes can't be compared with containers; tried again");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Until the engine ends the stream of its events.
async fn follow_once(agent: &Client, engine: &Engine) -> Result<(), TargetError> {
    let mut events = engine.events(None);
    loop {
        // An event, or a moment in which none came: then the subscription stands, and what was before it is found by
        // the look. From then on nothing is looked at until something happens.
        let next = match tokio::time::timeout(PAUSE, events.next()).await {
            Ok(next) => next,
            Err(_) => {
                compare(agent, engine).await?;
                events.next().await
            }
        };
        match next {
            Some(Ok(_)) => compare(agent, engine).await?,
            Some(Err(e)) => return Err(Fault::from(e).into()),
            None => return Ok(()),
        }
    }
}

async fn compare(agent: &Client, engine: &Engine) -> Result<(), TargetError> {
    let status = agent.status().await.map_err(refused)?;
    let mut found: BTreeMap<EnvironmentKey, Vec<Found>> = BTreeMap::new();
    for (service, _) in status.services.iter().filter(|(_, s)| s.listen.is_some()) {
        if let Some(key) = environment(service)
            && let Entry::Vacant(entry) = found.entry(key.clone())
        {
            entry.insert(engine.slots(&key).await?);
        }
    }
    for (service, slot, epoch, addresses) in moved(&status, &found) {
        tracing::info!(service, slot, ?addresses, "containers have other addresses: the route follows");
        match agent.set_upstreams(&service, &slot, epoch, addresses).await.map_err(refused) {
            Ok(_) => {}
            // A rollout took it over just now, and looks itself.
            Err(TargetError::Stale(_) | TargetError::Failed(_)) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

/// `1/production/web` without its app.
fn environment(service: &str) -> Option<EnvironmentKey> {
    let mut parts = service.splitn(3, '/');
    let repo = RepoId(parts.next()?.parse().ok()?);
    let environment = EnvironmentName::new(parts.next()?).ok()?;
    Some(EnvironmentKey { repo, environment })
}

/// Slots of which every copy is there, somewhere else than the agent thinks.
fn moved(
    status: &AgentStatus,
    found: &BTreeMap<EnvironmentKey, Vec<Found>>,
) -> Vec<(String, String, Epoch, Vec<SocketAddr>)> {
    let mut all = Vec::new();
    for (key, containers) in found {
        for (service, state) in &status.services {
            for (name, slot) in &state.slots {
                let of = |f: &&Found| service_id(key, &f.app) == *service && f.slot.as_str() == name;
                let addresses: Vec<_> = containers.iter().filter(of).filter_map(Found::route).collect();
                let wanted = containers.iter().find(of).map_or(0, |f| f.replicas as usize);
                let known = upstreams(slot);
                if wanted > 0 && addresses.len() == wanted && !known.is_empty() && known != addresses {
                    all.push((service.clone(), name.clone(), state.epoch, addresses));
                }
            }
        }
    }
    all
}

//! Names and labels of what is ours in the engine.

use crate::domain::{
    ids::{AppName, Digest, RolloutId, Slot},
    rollout::EnvironmentKey,
};

/// Values of [`crate::docker::KIND`].
pub(super) const SLOT: &str = "slot";
pub(super) const COMMAND: &str = "command";
pub(super) const NETWORK: &str = "network";

/// Label: `REPOSITORY-NUMBER/ENVIRONMENT`.
pub(super) const ENVIRONMENT: &str = "dev.switchover.environment";
/// Label: the app's name.
pub(super) const APP: &str = "dev.switchover.app";
/// Label: the slot's name.
pub(super) const SLOT_NAME: &str = "dev.switchover.slot";
/// Label: the copy's number, from 0.
pub(super) const COPY: &str = "dev.switchover.copy";
/// Label: copies of the slot.
pub(super) const REPLICAS: &str = "dev.switchover.replicas";
/// Label: the epoch of the worker that made it.
pub(super) const EPOCH: &str = "dev.switchover.epoch";
/// Label: the digest of its image.
pub(super) const DIGEST: &str = "dev.switchover.digest";
/// Label: where it answers, for life.
pub(super) const ADDRESS: &str = "dev.switchover.address";
/// Label: the path that answers 2xx when it is ready.
pub(super) const HEALTH: &str = "dev.switchover.health";
/// Label: the rollout that a command belongs to.
pub(super) const ROLLOUT: &str = "dev.switchover.rollout";

/// Names may hold dashes, so a name alone could mean two things: what it stands for is hashed in.
fn named(words: &str, parts: &[&str]) -> String {
    let all = parts.iter().map(|p| format!("{}:{p}", p.len())).collect::<String>();
    format!("sw-{words}-{}", &Digest::of(all.as_bytes()).short()[..8])
}

/// A copy of a slot.
pub(super) fn copy(owner: &str, key: &EnvironmentKey, app: &AppName, slot: &Slot, number: u32) -> String {
    let (environment, n) = (key.to_string(), number.to_string());
    let words = format!("{}-{app}-{slot}-{n}", key.environment);
    named(&words, &["copy", owner, &environment, app.as_str(), slot.as_str(), &n])
}

/// The `pre_deploy` of a rollout.
pub(super) fn pre_deploy(owner: &str, key: &EnvironmentKey, app: &AppName, rollout: RolloutId) -> String {
    let (environment, rollout) = (key.to_string(), rollout.to_string());
    named(
        &format!("{}-{app}-pre-deploy", key.environment),
        &["pre_deploy", owner, &environment, app.as_str(), &rollout],
    )
}

/// The smoke test of a rollout.
pub(super) fn smoke(owner: &str, key: &EnvironmentKey, app: &AppName, rollout: RolloutId) -> String {
    let (environment, rollout) = (key.to_string(), rollout.to_string());
    named(&format!("{}-{app}-smoke", key.environment), &["smoke", owner, &environment, app.as_str(), &rollout])
}

/// The network of an environment.
pub(super) fn network(owner: &str, key: &EnvironmentKey) -> String {
    named(key.environment.as_str(), &["network", owner, &key.to_string()])
}

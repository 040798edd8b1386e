//! What shall be live: frozen when the rollout is made.

use std::{collections::BTreeMap, fmt, time::Duration};

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::manifests::AppManifests;
use crate::domain::{
    config::{AppKind, Resources},
    ids::{AppName, Digest, EnvironmentName, RepoId, RolloutId, Sha, Slot},
};

/// One environment of one repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EnvironmentKey {
    /// Whose.
    pub repo: RepoId,
    /// Which.
    pub environment: EnvironmentName,
}

impl fmt::Display for EnvironmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.repo, self.environment)
    }
}

/// Which way a rollout goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Something new.
    Release,
    /// Back to a release that was live before: a pointer flip where its slots still run, otherwise they are started
    /// again. No approval, no `pre_deploy`, no smoke test; ends with the environment held.
    Rollback,
}

/// What shall be live, frozen when the rollout is made. Windows, locks and gates were looked at before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    /// This attempt.
    pub rollout: RolloutId,
    /// Where.
    pub key: EnvironmentKey,
    /// The released commit.
    pub commit: Sha,
    /// Forward or back.
    pub kind: Kind,
    /// All apps of the environment, in the order in which they are switched (`switch_after` resolved). The way back,
    /// and a rollback, go in reverse, workers last.
    pub apps: Vec<DesiredApp>,
    /// Whether a person must say yes: before anything where a `pre_deploy` is among the apps, else before the switch.
    pub approval: bool,
    /// How long every copy must be ready before the slot counts as warm.
    pub min_ready: Duration,
    /// How long a slot may take until then.
    pub start_timeout: Duration,
    /// The longest request that must not be cut.
    pub drain_timeout: Duration,
    /// How long after the switch a bad release is taken back by itself.
    pub watch_for: Duration,
    /// How long the previous slots stay warm after that.
    pub keep_previous: Duration,
    /// Why it can't be released, where that was found when it was made (manifests that can't be read, or are not allowed):
    /// it ends at once, with these words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl Desired {
    /// The app of that name.
    #[must_use]
    pub fn app(&self, name: &AppName) -> Option<&DesiredApp> {
        self.apps.iter().find(|a| &a.name == name)
    }

    /// The apps in the order in which this rollout switches them.
    pub fn in_order(&self) -> std::vec::IntoIter<&DesiredApp> {
        match self.kind {
            Kind::Release => self.apps.iter().collect::<Vec<_>>().into_iter(),
            Kind::Rollback => self.backwards().into_iter(),
        }
    }

    /// The apps in the order of the way back: reverse, and workers last, because a worker's end may take its time and
    /// users wait for the others.
    #[must_use]
    pub fn backwards(&self) -> Vec<&DesiredApp> {
        let of = |kind| self.apps.iter().rev().filter(move |a| a.kind == kind);
        of(AppKind::Web).chain(of(AppKind::Worker)).collect()
    }

    /// Whether the approval comes before anything is touched.
    #[must_use]
    pub fn approve_first(&self) -> bool {
        self.kind == Kind::Release && self.approval && self.apps.iter().any(|a| a.spec.pre_deploy.is_some())
    }
}

/// One app of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DesiredApp {
    /// Which.
    pub name: AppName,
    /// Answers requests, or works behind the scenes.
    pub kind: AppKind,
    /// The name of its slot: see [`slot_name`].
    pub slot: Slot,
    /// What was built: an image, or a stored release.
    pub digest: Digest,
    /// How it runs.
    pub spec: AppSpec,
    /// The commit that its slot was made for, where that was another release's: the app is the same in both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Sha>,
}

/// How an app runs. Secret values are not in here: the target resolves the names when it starts a slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppSpec {
    /// Shell command that starts it; where there is an image, only if it shall not start by itself.
    pub start: Option<String>,
    /// Plain environment.
    pub env: BTreeMap<String, String>,
    /// Names of the secrets that the operator granted, which become environment too.
    pub secrets: Vec<String>,
    /// Port in the container (targets with images).
    pub port: Option<u16>,
    /// Path that answers 2xx when it is ready. None: it is ready when it accepts connections.
    pub health: Option<String>,
    /// Copies.
    pub replicas: u32,
    /// Runs once before the slot starts.
    pub pre_deploy: Option<PreDeploySpec>,
    /// Must succeed against the new slot; `URL` tells where it is.
    pub smoke: Option<CommandSpec>,
    /// How the switch is watched from outside.
    pub probe: ProbeSpec,
    /// The image without tag or digest (targets with images): with the app's digest it names what runs.
    #[serde(default)]
    pub image: Option<String>,
    /// CPU and memory that one copy may use (targets with images).
    #[serde(default)]
    pub resources: Resources,
    /// Host names, where several apps share a listener. Empty: all.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Its objects (target `kubernetes`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifests: Option<Box<AppManifests>>,
}

/// A shell command with its time limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandSpec {
    /// For `sh`.
    pub run: String,
    /// Killed after that.
    pub timeout: Duration,
}

/// What runs before the new slot starts, such as a migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreDeploySpec {
    /// What.
    #[serde(flatten)]
    pub command: CommandSpec,
    /// Whether the old release still works afterwards. If not, there is no automatic way back.
    pub reversible: bool,
}

/// The requests that prove a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeSpec {
    /// Path. None: no probes for this app.
    pub path: Option<String>,
    /// Between two requests of one prober.
    pub interval: Duration,
    /// Body to POST instead of a GET.
    pub body: Option<String>,
}

/// Names a slot: `SHORTSHA-FINGERPRINT`. The fingerprint covers what was built and all of the configuration that the
/// running app sees, secret values included, so a changed configuration is a release of its own, and the same again is
/// none (see [`fingerprint`]).
///
/// `key` is a secret of the server's own: the name is public, and without a key it would confirm guesses of a weak
/// secret.
#[must_use]
pub fn slot_name(
    commit: &Sha,
    kind: AppKind,
    digest: &Digest,
    spec: &AppSpec,
    secrets: &BTreeMap<String, String>,
    key: &[u8],
) -> Slot {
    let granted: BTreeMap<&str, Option<&str>> =
        spec.secrets.iter().map(|name| (name.as_str(), secrets.get(name).map(String::as_str))).collect();
    let mut seen_by_the_app =
        serde_json::json!([digest, kind, spec.start, spec.env, granted, spec.port, spec.health, spec.replicas]);
    if let (Some(parts), Some(manifests)) = (seen_by_the_app.as_array_mut(), &spec.manifests) {
        parts.push(serde_json::json!(manifests));
    }
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length (RFC 2104)")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(seen_by_the_app.to_string().as_bytes());
    let print = hex::encode(mac.finalize().into_bytes());
    #[expect(clippy::expect_used, reason = "hex digits and one dash always make a slot's name")]
    Slot::new(format!("{}-{}", commit.short(), &print[..8])).expect("well formed")
}

/// The part of a slot's name that tells what runs in it, whatever commit it came from. None for names that are not
/// ours (an adopted pair's colours).
#[must_use]
pub fn fingerprint(slot: &Slot) -> Option<&str> {
    let (commit, print) = slot.as_str().split_once('-')?;
    let hex = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_hexdigit());
    (hex(commit, 7) && hex(print, 8)).then_some(print)
}

/// Whether two slots run the same thing with the same configuration.
#[must_use]
pub fn same_content(a: &Slot, b: &Slot) -> bool {
    a == b || matches!((fingerprint(a), fingerprint(b)), (Some(x), Some(y)) if x == y)
}

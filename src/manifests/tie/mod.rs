//! Which objects belong to which app.
//!
//! By image first (tags ignored), then by what CI does with `sed`, `set image` and `apply`, then by name and folder.
//! Services by selector, pairs by their shape, autoscalers by target, budgets by selector, configuration by reference. What
//! stays open is told with the line that settles it; nothing is guessed in silence.

mod assign;
mod choose;
mod gather;
mod parts;
mod score;
mod scripts;
mod warn;

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    look::{self, text},
    object::Object,
    pair::{self, Pair},
};
use crate::domain::{
    config::{AppKind, mistake::shown},
    ids::AppName,
    rollout::AppManifests,
};

/// What is known of an app.
#[derive(Debug, Clone, PartialEq)]
pub struct AppFacts {
    /// Its name.
    pub name: AppName,
    /// Answers requests, or works behind the scenes.
    pub kind: AppKind,
    /// Its image, without tag; where it has several names, all of them.
    pub images: Vec<String>,
    /// Its folder from the repository's root; empty for the root.
    pub path: String,
    /// It runs the image of that app.
    pub image_of: Option<AppName>,
    /// The port that it listens on.
    pub port: Option<u16>,
    /// The path that answers when it is ready.
    pub health: Option<String>,
}

/// A file of CI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Script<'a> {
    /// Its path from the repository's root.
    pub path: &'a str,
    /// Its text.
    pub text: &'a str,
}

/// All that is known beside the objects.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The apps that are released, in the order written.
    pub apps: &'a [AppFacts],
    /// The environment's name: of copies for several environments, its own are taken.
    pub environment: &'a str,
    /// CI's files: Jenkinsfile, workflows, scripts.
    pub scripts: &'a [Script<'a>],
}

/// What belongs together.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tied {
    /// The objects of each app that has any.
    pub apps: BTreeMap<AppName, AppManifests>,
    /// What must be settled before anything is applied, each with the line to write.
    pub unclear: Vec<String>,
    /// What may cost requests or a release, each with the line to write.
    pub warnings: Vec<String>,
    /// What was understood and left out.
    pub notes: Vec<String>,
    /// Objects that belong to no app, because no app has any: to be applied as an app's `shared` ones are.
    pub beside: Vec<Value>,
}

/// What runs one app: a workload, or a pair of them.
#[derive(Debug, Clone)]
struct Unit<'o> {
    first: &'o Object,
    pair: Option<Pair<'o>>,
}

impl<'o> Unit<'o> {
    fn objects(&self) -> Vec<&'o Object> {
        match &self.pair {
            Some(pair) => vec![pair.first, pair.second],
            None => vec![self.first],
        }
    }

    /// Images of its containers, as written.
    fn images(&self) -> Vec<&'o str> {
        let Some(template) = look::template(&self.first.value) else { return Vec::new() };
        look::containers(template).filter(|(init, _)| !init).map(|(_, c)| text(c, "/image")).collect()
    }

    /// For messages: `Deployment shop (k8s/shop.yaml:1)`.
    fn words(&self) -> String {
        match &self.pair {
            None => format!("{} {} ({})", self.first.kind(), shown(self.first.name()), self.first.at()),
            Some(pair) => format!(
                "the Deployments {} and {} ({}, {})",
                shown(pair.first.name()),
                shown(pair.second.name()),
                pair.first.at(),
                pair.second.at()
            ),
        }
    }
}

/// Ties objects to apps.
#[must_use]
pub fn tie(facts: &Facts<'_>, objects: &[Object]) -> Tied {
    let mut tied = Tied::default();
    let hints = scripts::read(facts.scripts);
    let objects = choose::choose(objects, facts.environment, &hints, &mut tied);
    let services: Vec<&Object> = objects.iter().copied().filter(|o| o.is("Service", "")).collect();
    let units = units(&objects, &services, &mut tied);
    let assigned = assign::assign(facts, &units, &hints, &mut tied);
    gather::gather(facts, &units, &assigned, &objects, &mut tied);
    tied
}

/// Workloads that keep running, pairs as one.
fn units<'o>(objects: &[&'o Object], services: &[&Object], tied: &mut Tied) -> Vec<Unit<'o>> {
    let deployments: Vec<&'o Object> = objects.iter().copied().filter(|o| o.kind() == "Deployment").collect();
    let pairs = pair::pairs(&deployments, services);
    for pair in &pairs {
        if !pair.differences.is_empty() {
            let mut some = pair.differences.iter().take(5).map(|d| shown(d)).collect::<Vec<_>>().join(", ");
            if pair.differences.len() > 5 {
                some.push_str(", …");
            }
            tied.warnings.push(format!(
                "{} and {} are a pair, and differ beyond the label {}: in {some}. Each keeps what it has; if that is not \
                 meant, make them equal.",
                pair.first.at(),
                pair.second.at(),
                shown(&pair.label)
            ));
        }
    }
    let mut units: Vec<Unit<'o>> = Vec::new();
    for object in objects {
        if !matches!(
            object.kind(),
            "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Pod"
        ) {
            continue;
        }
        if pairs.iter().any(|p| std::ptr::eq(p.second, *object)) {
            continue;
        }
        let pair = pairs.iter().find(|p| std::ptr::eq(p.first, *object)).cloned();
        units.push(Unit { first: object, pair });
    }
    units
}

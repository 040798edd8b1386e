//! Kubernetes manifests: read, judged, tied to apps, made into slots, compared, explained. All of it pure.
//!
//! * [`source`]: which files of a folder are manifests, and which must be rendered by a tool first.
//! * [`read`]: YAML as Kubernetes reads it, each value with its line.
//! * [`policy`]: what the operator lets a repository apply; objects that somebody else manages.
//! * [`tie`]: which objects belong to which app; hand-written pairs by their shape.
//! * [`slot`], [`service`], [`command`]: what is applied for one slot; [`plain`]: for an app without manifests.
//! * [`diff`]: what an apply would change.
//! * [`nodes`]: Services that don't find every pod from everywhere.
//! * [`needs`]: whether the namespace's quotas have room.
//! * [`health`]: why a pod is not ready, in words.
//!
//! What is ours in an object: its name where slots are copies, the slot's label or a pair's colour in the Service's
//! selector, images, `replicas`, added environment, the names of copied configuration. All else is the author's.

pub mod command;
pub mod diff;
pub mod health;
mod look;
pub mod names;
pub mod needs;
pub mod nodes;
pub mod object;
mod pair;
pub mod plain;
pub mod policy;
pub mod read;
pub mod service;
pub mod slot;
pub mod source;
pub mod tie;
mod typed;

pub use command::pre_deploy_job;
pub use diff::{Line, difference, title};
pub use health::{why, why_no_pods};
pub use names::{label, object_name};
pub use needs::{Short, no_room};
pub use nodes::{keeps_to_nodes, leads_to, lists_pods, stay_near};
pub use object::{Object, Refusal};
pub use plain::{Plain, made_up};
pub use policy::{managed_by_other, refuse};
pub use read::{Read, Source, read, stripped};
pub use service::{
    Pointed, adopt, autoscaler, container_port, running_image, selector, service, shared, slot_of_selector,
};
pub use slot::{Rendered, SecretEnv, SlotOrder, config_names, render, secret_object, slot_deployment_name};
pub use source::{Sorted, sort};
pub use tie::{AppFacts, Facts, Script, Tied, tie};

/// Label (for pairs: annotation) of what belongs to a slot: the slot's name.
pub const SLOT: &str = "switchover.dev/slot";
/// Label: the app.
pub const APP: &str = "switchover.dev/app";
/// Label: the environment.
pub const ENVIRONMENT: &str = "switchover.dev/environment";
/// Annotation: the epoch that last wrote it.
pub const EPOCH: &str = "switchover.dev/epoch";
/// What all labels and annotations of ours begin with.
const OURS: &str = "switchover.dev/";

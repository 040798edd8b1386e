//! Tests of the room `rollout`.

mod anything;
mod docker;
mod figures;
mod killed;
mod kubernetes;
mod local;
mod machine;
mod model;
mod probing;
mod public;
mod releases;
pub mod stage;
mod words;

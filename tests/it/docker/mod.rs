//! Everything that needs a Docker engine and a registry: both are real and started once per run.

mod exec;
mod image;
mod limits;
mod pulls;
pub mod rig;

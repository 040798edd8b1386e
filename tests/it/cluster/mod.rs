//! A real Kubernetes cluster, started once per run, and whether it is one.

mod deploy;
mod doctor;
mod inside;
mod proof;
pub mod rig;
mod watching;

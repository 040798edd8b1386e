//! The whole product against the stand-in GitHub: a real server process, real git, real steps, a real agent.

mod back;
mod backup;
mod broken;
mod cluster;
mod containers;
mod fair;
mod held;
mod images;
mod killed;
mod late;
mod leftovers;
mod outage;
mod queue;
pub mod rig;
mod stories;
mod sweeps;

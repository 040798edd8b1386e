//! The whole product against the stand-in GitHub: a real server process, real git, real steps, a real agent.

mod backup;
mod broken;
mod cluster;
mod containers;
mod images;
mod killed;
mod leftovers;
mod outage;
mod queue;
pub mod rig;
mod stories;

//! Tests of the room `exec`: real git over HTTP, real processes.

mod caches;
pub mod git;
pub mod host;
mod local;
mod log;
mod reports;
mod worktrees;

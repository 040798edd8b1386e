//! Tests of the room `exec`: real git over HTTP, real processes.

mod caches;
mod git;
mod host;
mod local;
mod log;
mod reports;
mod worktrees;

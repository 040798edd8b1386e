//! Tests of the room `exec`: real git over HTTP, real processes.

mod git;
mod host;

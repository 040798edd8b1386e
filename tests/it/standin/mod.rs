//! Tests of the room `standin`: the stand-in GitHub itself, with a real git client and real HTTP.

mod apps;
mod checks;
mod client;
mod covered;
mod faults;
mod forms;
mod git;
mod hooks;
pub mod openapi;
mod pulls;
mod queue;
pub mod support;
mod work;

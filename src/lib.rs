//! Switchover: a GitHub App that tests every push and releases blue/green with no lost request.
//!
//! The modules in reading order; dependencies point down this list's reverse (see ARCHITECTURE.md).

pub mod agent;
pub mod clock;
pub mod control;
pub mod demo;
pub mod domain;
pub mod engine;
pub mod exec;
pub mod failpoint;
pub mod github;
pub mod infer;
pub mod plan;
pub mod report;
pub mod rollout;
pub mod settings;
pub mod slack;
pub mod store;
pub mod telemetry;
pub mod web;

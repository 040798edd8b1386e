//! The one integration binary. Each module tests one room against the real thing.
#![allow(missing_docs, reason = "tests document themselves by their names")]

mod agent;
mod cli;
mod cluster;
mod config;
mod demo;
mod deploy;
mod docker;
mod durable;
mod engine;
mod exec;
mod github;
mod infer;
mod kubernetes;
mod manifests;
mod pages;
mod plan;
mod report;
mod rollout;
mod settings;
mod standin;
mod tidy;
mod web;

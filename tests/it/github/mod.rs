//! Tests of the room `github`.

mod auth;
mod checks;
mod comments;
mod deployments;
mod faults;
mod faulty;
mod limits;
mod manifest;
mod openapi;
mod reads;
mod rig;
pub mod support;
mod text;
mod webhook;
mod webhook_examples;

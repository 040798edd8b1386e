//! Tests of the room `github`.

pub mod support;
mod webhook;
mod webhook_examples;

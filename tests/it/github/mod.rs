//! Tests of the room `github`.

mod support;
mod webhook;
mod webhook_examples;

//! Tests of the room `exec`.

//! Tests of the room `infer`.

//! Tests of the room `rollout`.

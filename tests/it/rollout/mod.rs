//! Tests of the room `rollout`.

mod figures;
mod machine;
mod model;
mod releases;
mod words;

//! Which target an environment runs on: the operator's word.

use super::{Engine, EngineError};
use crate::{domain::rollout::EnvironmentKey, rollout::Target};

/// The target of an environment.
///
/// # Errors
/// [`EngineError::Refused`] when the operator granted none.
pub async fn target(engine: &Engine, key: &EnvironmentKey, full_name: &str) -> Result<Box<dyn Target>, EngineError> {
    let _ = (engine, key, full_name);
    Err(EngineError::Refused("not yet".into()))
}

//! The image of an app: which Dockerfile, which build context, which port.

use crate::domain::{config::App, ids::AppName};

use super::Files;

/// A Dockerfile that was made up for an app that has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// Where `switchover check --write` puts it, from the repository's root.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Patterns of what stays out of the context, as in a `.dockerignore`.
    pub ignore: String,
}

/// What an image is built from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImagePlan {
    /// The Dockerfile, from the repository's root.
    pub dockerfile: Option<String>,
    /// The one that was made up, where there is none.
    pub generated: Option<Generated>,
    /// Why there is neither; empty otherwise.
    pub missing: String,
    /// The build context's folder, from the repository's root; empty for the root itself.
    pub context: String,
    /// The port that the app listens on in its container.
    pub port: Option<u16>,
    /// What was understood, and the file that says so.
    pub notes: Vec<(String, String)>,
}

/// Finds it.
#[must_use]
pub fn image_plan(files: &dyn Files, name: &AppName, app: &App) -> ImagePlan {
    let _ = (files, name);
    let path = if app.path.is_empty() { "Dockerfile".to_owned() } else { format!("{}/Dockerfile", app.path) };
    ImagePlan { dockerfile: Some(path), context: app.path.clone(), ..ImagePlan::default() }
}

//! What the counter page's buttons do.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{watch::short, world::Stage};
use crate::{
    demo::counter::{Actions, BUTTONS, Button},
    engine::commands::Verb,
};

/// The buttons over the stage.
pub struct Buttons(pub Arc<Stage>);

impl Actions for Buttons {
    fn act<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<String, String>> {
        Box::pin(async move {
            match name {
                "push-good" => self.push(true).await,
                "push-bad" => self.push(false).await,
                "kill-server" => {
                    self.0.kill_server().await;
                    self.0.start_server().await.map_err(|e| e.to_string())?;
                    Ok("The server was killed and is back.".to_owned())
                }
                "rollback" => self.0.command(Verb::Rollback).await.map_err(|e| e.to_string()),
                other => Err(format!("there is no button {other:?}")),
            }
        })
    }

    fn buttons(&self) -> Vec<Button> {
        // What the pushes change is the sample's.
        BUTTONS.into_iter().filter(|(name, ..)| !(self.0.own && name.starts_with("push-"))).collect()
    }

    fn tells_releases(&self) -> bool {
        !self.0.own
    }

    fn links(&self) -> Vec<(String, String)> {
        self.0.links()
    }
}

impl Buttons {
    async fn push(&self, good: bool) -> Result<String, String> {
        let stage = &self.0;
        // After a rollback the environment is held; whoever presses here wants to see a release.
        let held = stage.status().await.map_err(|e| e.to_string())?.iter().any(|s| s.held.is_some());
        if held {
            stage.command(Verb::Resume).await.map_err(|e| e.to_string())?;
        }
        let text = format!("Welcome, it is {}", crate::clock::now().strftime("%H:%M:%S"));
        let change = if good { stage.sample.greeting } else { stage.sample.unwell }(&text);
        let sha = stage.push("main", &change).await.map_err(|e| e.to_string())?;
        let resumed = if held { " (the hold was ended first)" } else { "" };
        Ok(format!("Pushed {}: {}{resumed}.", short(&sha), change.message))
    }
}

//! The only octocrab: verify, normalise, App authentication, API.
//!
//! * [`webhook`]: pure; from signed bytes to a [`crate::domain::event::Event`].

pub mod webhook;

//! The only octocrab: verify, normalise, App authentication, API.

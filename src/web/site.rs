//! The server's own pages: overview, runs with their logs, releases.

use actix_web::web;

/// Adds the pages.
pub fn configure(cfg: &mut web::ServiceConfig) {
    let _ = cfg;
}

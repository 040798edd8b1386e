//! The stand-in's web pages, on top of the model. They only read; what a person does goes to the forms in `web`.

use actix_web::web::ServiceConfig;

/// Adds the pages. Paths of the API, of git and of `/_web`, `/_standin` are taken already.
pub fn configure(cfg: &mut ServiceConfig) {
    let _ = cfg;
}

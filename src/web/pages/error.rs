//! What happened, why, and what to do next, in that order.

use std::fmt;

use actix_web::{HttpResponse, ResponseError, http::StatusCode, web};
use askama::Template;

use super::layout::{self, Head, Place};

/// A page that says why there is no page. Also the error of everything that makes pages.
#[derive(Debug, Clone)]
pub struct ErrorPage {
    /// Its HTTP status.
    pub status: StatusCode,
    /// What happened.
    pub what: String,
    /// Why.
    pub why: String,
    /// What to do next.
    pub next: String,
    /// Whose page it is.
    pub place: Place,
}

impl ErrorPage {
    /// Nothing has this address.
    #[must_use]
    pub fn not_found(what: impl fmt::Display) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            what: format!("There is no {what} here."),
            why: "It was never made, it was cleaned up after its time, or the address is cut short.".to_owned(),
            next: "Follow the link on the check or the deployment on GitHub again, or look for it on the overview."
                .to_owned(),
            place: Place::Switchover,
        }
    }

    /// Something of ours broke.
    #[must_use]
    pub fn broken(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            what: format!("{what} could not be shown."),
            why: why.to_string(),
            next: "Try again in a moment. If it stays so, the server's own log names the cause.".to_owned(),
            place: Place::Switchover,
        }
    }

    /// The sender's mistake.
    #[must_use]
    pub fn refused(
        status: StatusCode,
        what: impl Into<String>,
        why: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self { status, what: what.into(), why: why.into(), next: next.into(), place: Place::Switchover }
    }

    /// A form that another site made the browser send.
    #[must_use]
    pub fn from_another_site() -> Self {
        Self::refused(
            StatusCode::FORBIDDEN,
            "This was not done.",
            "Another site asked your browser to do it.",
            "Open this page yourself and press the button here.",
        )
    }

    /// On another place's pages.
    #[must_use]
    pub fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }
}

/// Pages where actix would answer with bare words and without security headers: for addresses that lead nowhere, and
/// for those that cannot be read.
pub fn configure(config: &mut web::ServiceConfig, place: Place) {
    let nowhere = move || ErrorPage::not_found("such page").at(place);
    config
        .app_data(web::PathConfig::default().error_handler(move |_, _| nowhere().into()))
        .default_service(web::to(move || async move { Err::<HttpResponse, _>(nowhere()) }));
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorTemplate<'a> {
    page: &'a ErrorPage,
}

impl fmt::Display for ErrorPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.why)
    }
}
impl std::error::Error for ErrorPage {}

impl ResponseError for ErrorPage {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let head = Head { title: &self.what, place: self.place, ..Head::default() };
        layout::respond(self.status, layout::render(&head, &ErrorTemplate { page: self }))
    }
}

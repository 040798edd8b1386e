//! What stands around every page, and the headers that go with it.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
};
use askama::Template;

use super::pieces::{self, Markup};
use crate::web::assets::{self, Asset};

/// Nothing inline, nothing from elsewhere, no frame around it.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
     connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// One step of the way to a page.
#[derive(Debug, Clone, Default)]
pub struct Crumb {
    /// Its name. From outside: shown as text.
    pub text: String,
    /// Where it leads; the last one leads nowhere.
    pub href: Option<String>,
}

impl Crumb {
    /// A step that leads somewhere.
    #[must_use]
    pub fn to(text: impl Into<String>, href: impl Into<String>) -> Self {
        Self { text: text.into(), href: Some(href.into()) }
    }

    /// The page itself.
    #[must_use]
    pub fn here(text: impl Into<String>) -> Self {
        Self { text: text.into(), href: None }
    }
}

/// Whose page it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Place {
    /// The product's own pages.
    #[default]
    Switchover,
    /// The stand-in GitHub.
    StandIn,
    /// The demo's counter page.
    Counter,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Switchover => "Switchover",
            Self::StandIn => "Stand-in GitHub",
            Self::Counter => "Switchover demo",
        }
    }

    fn foot(self) -> &'static str {
        match self {
            Self::Switchover => "Switchover tests every push and releases blue/green with no lost request.",
            Self::StandIn => {
                "This is no GitHub: a stand-in on this machine, for the demo and the tests. It ends with the demo."
            }
            Self::Counter => "Every number on this page is counted from requests that this machine really sends.",
        }
    }
}

/// What stands around a page.
#[derive(Debug, Default)]
pub struct Head<'a> {
    /// The browser's title.
    pub title: &'a str,
    /// Whose page it is.
    pub place: Place,
    /// The way to it.
    pub crumbs: Vec<Crumb>,
    /// Scripts beside the common one.
    pub scripts: Vec<&'a Asset>,
    /// Address of server-sent events; each `changed` makes the script fetch the page again and exchange the parts
    /// marked with `data-live`.
    pub live: Option<&'a str>,
    /// Slots are drawn here: their green and blue must not mean anything else on this page.
    pub slots: bool,
}

#[derive(Template)]
#[template(path = "layout.html")]
struct Layout<'a> {
    head: &'a Head<'a>,
    style: &'a str,
    script: &'a str,
    icon: &'a str,
    body: Markup,
}

/// The whole page around `body`.
#[must_use]
pub fn render(head: &Head<'_>, body: &impl Template) -> String {
    Layout {
        head,
        style: &assets::STYLE.href,
        script: &assets::SCRIPT.href,
        icon: &assets::ICON.href,
        body: Markup::of(body),
    }
    .to_string()
}

/// Answers with a page and the headers that all pages carry.
#[must_use]
pub fn respond(status: StatusCode, html: String) -> HttpResponse {
    let mut response = HttpResponse::build(status);
    secure(&mut response);
    response.content_type("text/html; charset=utf-8").body(html)
}

/// The security headers of everything that a browser may open: pages, downloads, redirects.
pub fn secure(response: &mut actix_web::HttpResponseBuilder) {
    response
        .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::X_FRAME_OPTIONS, "DENY"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header(("Cross-Origin-Opener-Policy", "same-origin"))
        .insert_header(("Cross-Origin-Resource-Policy", "same-origin"))
        .insert_header((header::CACHE_CONTROL, "private, no-cache"));
}

/// Lets the forms of one page lead elsewhere too: browsers hold redirects after a form against `form-action` as well.
/// `sources` as in the header, such as an origin.
pub fn let_forms_lead_to(response: &mut HttpResponse, sources: &str) {
    let wider = CONTENT_SECURITY_POLICY.replace("form-action 'self'", &format!("form-action 'self' {sources}"));
    if let Ok(value) = header::HeaderValue::from_str(&wider) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, value);
    }
}

/// Sends the browser on after a form (303: the next request is a GET).
#[must_use]
pub fn see_other(location: &str) -> HttpResponse {
    let mut response = HttpResponse::SeeOther();
    secure(&mut response);
    response.insert_header((header::LOCATION, location)).finish()
}

/// Whether a form or a script of another site sent this. Browsers set `Sec-Fetch-Site` themselves ("Fetch Metadata
/// Request Headers"); programs that are no browsers send none, and nobody can trick them into a request. `Origin`
/// would not do: with `Referrer-Policy: no-referrer` a form's is `null`.
#[must_use]
pub fn from_another_site(request: &HttpRequest) -> bool {
    request.headers().get("Sec-Fetch-Site").is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"))
}

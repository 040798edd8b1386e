//! The bottom of the client: one HTTP exchange, with its time limits, under octocrab.

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use octocrab::{AuthState, Octocrab, OctocrabBuilder};
use url::Url;

use super::{client::Timeouts, text::cut_chars};

/// The largest answer that is read: a delivery's payload can be 25 MB, and stands in JSON.
const LARGEST: usize = 64 << 20;

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    /// The request did not leave.
    #[error("{0}")]
    NotSent(String),
    /// It left, or may have.
    #[error("{0}")]
    Broken(String),
}

/// The bottom of octocrab's stack: one HTTP client with the system's trust store, which Enterprise Servers with a
/// certificate of their own need, and with neither redirects nor retries of its own.
#[derive(Clone)]
struct Transport(reqwest::Client);

impl tower_service::Service<Request<octocrab::OctoBody>> for Transport {
    type Response = Response<Full<Bytes>>;
    type Error = Lost;
    type Future = BoxFuture<'static, Result<Self::Response, Lost>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<octocrab::OctoBody>) -> Self::Future {
        let client = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(|e| Lost::NotSent(e.to_string()))?.to_bytes();
            let request = reqwest::Request::try_from(Request::from_parts(parts, body))
                .map_err(|e| Lost::NotSent(e.to_string()))?;
            let mut answer = client.execute(request).await.map_err(|e| {
                let why = causes(&e);
                if e.is_connect() || e.is_builder() { Lost::NotSent(why) } else { Lost::Broken(why) }
            })?;
            let mut body = BytesMut::new();
            while let Some(chunk) = answer.chunk().await.map_err(|e| Lost::Broken(causes(&e)))? {
                if body.len() + chunk.len() > LARGEST {
                    return Err(Lost::Broken(format!("the answer is larger than {LARGEST} bytes")));
                }
                body.extend_from_slice(&chunk);
            }
            let mut response = Response::new(Full::new(body.freeze()));
            *response.status_mut() = answer.status();
            *response.headers_mut() = std::mem::take(answer.headers_mut());
            Ok(response)
        })
    }
}

/// An error with what is below it: "error sending request" alone helps nobody.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    cut_chars(&text, 300)
}

fn loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Octocrab on top of this transport, for an API at this address.
pub(super) fn client(api_url: &Url, timeouts: Timeouts) -> Result<Octocrab, String> {
    let mut http = reqwest::Client::builder()
        .connect_timeout(timeouts.connect)
        .timeout(timeouts.request)
        .redirect(reqwest::redirect::Policy::none());
    if api_url.scheme() == "http" {
        // A machine that only talks to the stand-in needs no certificates.
        http = http.tls_certs_only(std::iter::empty());
    }
    if loopback(api_url) {
        http = http.no_proxy();
    }
    let http = http.build().map_err(|e| causes(&e))?;
    match OctocrabBuilder::new_empty().with_service(Transport(http)).with_auth(AuthState::None).build() {
        Ok(client) => Ok(client),
        Err(never) => match never {},
    }
}

//! The data plane: each request goes to the slot that is active when its head has arrived.
//!
//! A request is sent again only when nothing of it reached an app. Bodies stream both ways and are never held whole.

mod assets;
mod headers;
mod listen;
mod route;
mod tls;
mod upstream;

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, LOCATION, RETRY_AFTER, UPGRADE},
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;

use self::{
    assets::Asset,
    route::{Lease, Unrouted},
    upstream::{Conn, Passing, Sent},
};
pub(super) use self::{
    listen::{Limits, Listener, Listeners, Wanted},
    route::{Route, Slot},
    tls::load as load_certificate,
};

/// Connections that were found closed, or refused, before a request could be sent; then the app is taken for broken.
const ATTEMPTS: usize = 16;

/// A request with this header is one of the prober's own.
const PROBE: HeaderName = HeaderName::from_static("x-switchover-probe");
/// Only the prober is told which slot answered.
const RELEASE: HeaderName = HeaderName::from_static("x-switchover-release");

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// The app's.
    Passing(Passing),
    /// Our own words.
    Words(Full<Bytes>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Passing(body) => Pin::new(body).poll_frame(cx),
            Self::Words(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
        }
    }
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Passing(body) => body.is_end_stream(),
            Self::Words(body) => body.is_end_stream(),
        }
    }
    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Passing(body) => body.size_hint(),
            Self::Words(body) => body.size_hint(),
        }
    }
}

fn words(status: StatusCode, text: &'static str) -> Response<Answer> {
    let mut response = Response::new(Answer::Words(Full::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Answers one request.
async fn answer(
    table: Arc<listen::Table>,
    from: Arc<listen::Client>,
    mut request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    from.seen.store(true, Ordering::Relaxed);
    if request.method() == Method::CONNECT {
        return Ok(words(StatusCode::METHOD_NOT_ALLOWED, "this is not a forward proxy\n"));
    }
    let Some(listen::Found { route, https }) = table.find(headers::host_of(&request)) else {
        return Ok(words(StatusCode::NOT_FOUND, "no service for this host\n"));
    };
    if let Some(port) = https {
        return Ok(send_on(&request, *port));
    }
    let probe = request.headers_mut().remove(PROBE).is_some();
    let upgrade = headers::wanted_upgrade(&request);
    let ours = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    headers::forward(&mut request, from.peer.ip(), from.own, from.tls);
    let request = request.map(Sent::Client);
    if let (Some(protocol), Some(ours)) = (upgrade, ours) {
        return Ok(tunnel(route, request, protocol, ours, from).await);
    }
    let asset = Asset::of(&request);
    let answer = ask(route, Whom::Active, request, probe).await;
    if let Some(asset) = asset
        && Asset::is_missing(&answer)
        && route.has_previous()
    {
        let before = ask(route, Whom::Previous, asset.again(Sent::Nothing), probe).await;
        if !before.status().is_server_error() && !Asset::is_missing(&before) {
            return Ok(before);
        }
    }
    Ok(answer)
}

/// Which slot of a service is asked.
#[derive(Debug, Clone, Copy)]
enum Whom {
    Active,
    Previous,
}

/// Has one of a slot's copies answer. Sent again only when nothing of it reached an app.
async fn ask(route: &Route, whom: Whom, mut request: Request<Sent>, probe: bool) -> Response<Answer> {
    for _ in 0..ATTEMPTS {
        let leased = match whom {
            Whom::Active => route.lease().await,
            Whom::Previous => route.lease_previous(),
        };
        let lease = match leased {
            Ok(lease) => lease,
            Err(why) => return unrouted(why),
        };
        let (mut conn, fresh) = match lease.instance.reuse() {
            Some(conn) => (conn, false),
            None => match Conn::open(lease.instance.address).await {
                Ok(conn) => (conn, true),
                Err(_) => {
                    lease.slot.mark_down(lease.instance.address);
                    continue;
                }
            },
        };
        match conn.send(request).await {
            Ok(response) => {
                lease.count_forwarded();
                let slot = probe.then(|| lease.slot.name.clone());
                let mut answer = pass(response, Some(conn), lease);
                if let Some(slot) = slot {
                    answer.headers_mut().insert(RELEASE, slot);
                }
                return answer;
            }
            Err(mut failed) => match failed.take_message() {
                Some(unsent) => {
                    request = unsent;
                    if fresh {
                        lease.slot.mark_down(lease.instance.address);
                    }
                }
                None => return broken(&lease, failed.error()),
            },
        }
    }
    words(StatusCode::BAD_GATEWAY, "the app takes no request\n")
}

/// To the same place by TLS. 308 keeps the method (RFC 9110, section 15.4.9).
fn send_on<B>(request: &Request<B>, port: u16) -> Response<Answer> {
    let host = headers::host_of(request).unwrap_or_default();
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
    let place = if port == 443 { format!("https://{host}{path}") } else { format!("https://{host}:{port}{path}") };
    match HeaderValue::from_str(&place) {
        Ok(place) if !host.is_empty() => {
            let mut answer = words(StatusCode::PERMANENT_REDIRECT, "by https, please\n");
            answer.headers_mut().insert(LOCATION, place);
            answer
        }
        _ => words(StatusCode::BAD_REQUEST, "the request names no host\n"),
    }
}

fn unrouted(why: Unrouted) -> Response<Answer> {
    words(
        StatusCode::SERVICE_UNAVAILABLE,
        match why {
            Unrouted::NoSlot => "nothing is released here yet\n",
            Unrouted::Down => "no copy of the app is running\n",
            Unrouted::Full => "no copy of the app is running, and too many requests wait for one\n",
        },
    )
}

/// The request was sent, at least in part, and there is no answer.
fn broken(lease: &Lease, why: &hyper::Error) -> Response<Answer> {
    lease.count_forwarded();
    if why.is_user() {
        // The client's own body broke off.
        return words(StatusCode::BAD_REQUEST, "the request's body broke off\n");
    }
    lease.count_cut();
    words(StatusCode::BAD_GATEWAY, "the app broke off before it answered\n")
}

fn pass(response: Response<Incoming>, conn: Option<Conn>, lease: Lease) -> Response<Answer> {
    let (mut head, body) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        lease.count_cut();
        return words(StatusCode::BAD_GATEWAY, "the app changed the protocol unasked\n");
    }
    if head.status.is_server_error() {
        lease.count_server_error();
    }
    headers::strip_hop(&mut head.headers);
    head.version = http::Version::HTTP_11;
    Response::from_parts(head, Answer::Passing(Passing::new(body, conn, lease)))
}

/// A request that may become a tunnel (a websocket): counted in flight until both ends have closed it.
async fn tunnel(
    route: &Route,
    mut request: Request<Sent>,
    protocol: HeaderValue,
    ours: OnUpgrade,
    from: Arc<listen::Client>,
) -> Response<Answer> {
    let lease = match route.lease().await {
        Ok(lease) => lease,
        Err(why) => return unrouted(why),
    };
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    request.headers_mut().insert(UPGRADE, protocol);
    let mut response = match upstream::send_upgrade(lease.instance.address, request).await {
        Ok(Ok(response)) => response,
        Ok(Err(e)) => return broken(&lease, &e),
        Err(_) => {
            lease.slot.mark_down(lease.instance.address);
            return words(StatusCode::BAD_GATEWAY, "the app takes no connection\n");
        }
    };
    lease.count_forwarded();
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return pass(response, None, lease);
    }
    let app = hyper::upgrade::on(&mut response);
    let protocol = response.headers().get(UPGRADE).cloned();
    let tunnels = from.tunnels.clone();
    tunnels.spawn(async move {
        let (Ok(client), Ok(app)) = (ours.await, app.await) else { return };
        let mut client = TokioIo::new(client);
        let mut app = TokioIo::new(app);
        let _ = tokio::io::copy_bidirectional(&mut client, &mut app).await;
        drop((lease, from));
    });
    let (mut head, _) = response.into_parts();
    headers::strip_hop(&mut head.headers);
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        head.headers.insert(UPGRADE, protocol);
    }
    Response::from_parts(head, Answer::Words(Full::default()))
}

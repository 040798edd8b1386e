//! What a proxy changes in a message's head (RFC 9110, section 7.6; RFC 9112, section 3.2).

use std::net::{IpAddr, SocketAddr};

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
    uri::PathAndQuery,
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Headers of one hop only, and those that `Connection` names.
pub(super) fn strip_hop(headers: &mut HeaderMap) {
    if let Some(first) = headers.get(CONNECTION) {
        let plain = |v: &HeaderValue| {
            v.as_bytes().eq_ignore_ascii_case(b"keep-alive") || v.as_bytes().eq_ignore_ascii_case(b"close")
        };
        if !plain(first) || headers.get_all(CONNECTION).iter().nth(1).is_some() {
            let named: Vec<HeaderName> = headers
                .get_all(CONNECTION)
                .iter()
                .filter_map(|v| v.to_str().ok())
                .flat_map(|v| v.split(','))
                .filter_map(|name| name.trim().parse().ok())
                // Nobody may have the host or the length taken away.
                .filter(|name| name != HOST && name != CONTENT_LENGTH && name != COOKIE)
                .collect();
            for name in named {
                headers.remove(name);
            }
        }
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TE, TRAILER, UPGRADE] {
        headers.remove(name);
    }
    // Where both stand the length is a lie or an attack (RFC 9112, section 6.3).
    if headers.remove(TRANSFER_ENCODING).is_some() {
        headers.remove(CONTENT_LENGTH);
    }
}

/// The protocol that the client asks to change to.
pub(super) fn wanted_upgrade<B>(request: &Request<B>) -> Option<HeaderValue> {
    if request.version() != Version::HTTP_11 {
        return None;
    }
    let asked = request.headers().get_all(CONNECTION).iter().filter_map(|v| v.to_str().ok());
    asked.flat_map(|v| v.split(',')).any(|t| t.trim().eq_ignore_ascii_case("upgrade")).then_some(())?;
    request.headers().get(UPGRADE).cloned()
}

/// The host that the request is for, without its port.
pub(super) fn host_of<B>(request: &Request<B>) -> Option<&str> {
    let full = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => request.headers().get(HOST)?.to_str().ok()?,
    };
    let full = full.rsplit('@').next().unwrap_or(full);
    if full.starts_with('[') {
        return full.split_inclusive(']').next();
    }
    full.split(':').next()
}

/// Makes the request one for the app: origin form, HTTP/1.1, told about the client.
pub(super) fn forward<B>(request: &mut Request<B>, peer: IpAddr, listener: SocketAddr, tls: bool) {
    let uri = request.uri_mut();
    let authority = uri.authority().and_then(|a| HeaderValue::from_str(a.as_str().rsplit('@').next()?).ok());
    if uri.scheme().is_some() || uri.authority().is_some() {
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        *uri = Uri::from(path);
    }
    let two = request.version() == Version::HTTP_2;
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    strip_hop(headers);
    // The agent answers it itself when the app takes the body.
    headers.remove(EXPECT);
    if let Some(authority) = authority {
        headers.insert(HOST, authority);
    } else if !headers.contains_key(HOST)
        && let Ok(own) = HeaderValue::from_str(&listener.to_string())
    {
        headers.insert(HOST, own);
    }
    if two {
        join_cookies(headers);
    }
    append_client(headers, peer);
    // A proxy before us on the same machine or network knows better how the client came; anyone else may not say.
    let trusted = is_near(peer);
    if !trusted || !headers.contains_key(&FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(if tls { "https" } else { "http" }));
    }
    if (!trusted || !headers.contains_key(&FORWARDED_HOST))
        && let Some(host) = headers.get(HOST).cloned()
    {
        headers.insert(FORWARDED_HOST, host);
    }
}

fn append_client(headers: &mut HeaderMap, peer: IpAddr) {
    let mut value = String::new();
    for before in headers.get_all(FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok()) {
        value.push_str(before);
        value.push_str(", ");
    }
    value.push_str(&peer.to_string());
    if let Ok(value) = HeaderValue::from_str(&value) {
        headers.insert(FORWARDED_FOR, value);
    }
}

/// HTTP/2 may cut cookies into several fields; HTTP/1.1 knows one (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_some() {
        let parts: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&parts.join(&b"; "[..])) {
            headers.insert(COOKIE, joined);
        }
    }
}

fn is_near(peer: IpAddr) -> bool {
    match peer.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

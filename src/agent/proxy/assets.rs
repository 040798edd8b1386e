//! Old assets of a static front end: a page that was loaded before a switch asks for files that only the release before
//! it has. Their names hold a hash of what is in them, so there is no wrong version of them to answer with.

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header::CONTENT_TYPE};

/// Ends of names that bundlers give to what pages load.
const KINDS: [&str; 21] = [
    "js", "mjs", "css", "map", "wasm", "json", "svg", "png", "jpg", "jpeg", "gif", "webp", "avif", "ico", "woff",
    "woff2", "ttf", "otf", "mp4", "webm", "mp3",
];
/// Lengths of such hashes: Vite and Rollup 8, webpack 16 to 20, esbuild 8, Parcel 8, SHA-256 64.
const HASH: std::ops::RangeInclusive<usize> = 8..=64;

/// Whether a path names a file by its content: `/assets/index-DiwrgTda.js`, `/main.3f2a9c1b.chunk.css`.
pub(super) fn is_hashed(path: &str) -> bool {
    let Some((_, file)) = path.rsplit_once('/') else { return false };
    let Some((name, kind)) = file.rsplit_once('.') else { return false };
    if !KINDS.contains(&kind) {
        return false;
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let hash = |part: &str| {
        // A word that people write has no digit and no capital in the middle of it.
        HASH.contains(&part.len())
            && part.chars().all(plain)
            && part.chars().skip(1).any(|c| c.is_ascii_digit() || c.is_ascii_uppercase())
    };
    // After a dot, a dash, or all of the name; a hash may itself hold a dash.
    let starts = name.match_indices(['.', '-', '_']).map(|(at, _)| at + 1).chain([0]);
    starts.into_iter().any(|from| {
        let rest = &name[from..];
        hash(rest.split('.').next().unwrap_or(rest))
    })
}

/// A request for such a file, kept in case that the live slot lacks it.
#[derive(Debug)]
pub(super) struct Asset {
    method: Method,
    uri: Uri,
    headers: HeaderMap<HeaderValue>,
}

impl Asset {
    /// Of requests that ask for one.
    pub(super) fn of<B>(request: &Request<B>) -> Option<Self> {
        let (method, uri) = (request.method(), request.uri());
        let asks = (method == Method::GET || method == Method::HEAD) && is_hashed(uri.path());
        asks.then(|| Self { method: method.clone(), uri: uri.clone(), headers: request.headers().clone() })
    }

    /// Whether the answer says that there is no such file: plainly, or by the page that single-page apps send for
    /// whatever they don't know.
    pub(super) fn is_missing<B>(answer: &Response<B>) -> bool {
        let html = || {
            let kind = answer.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
            kind.get(..9).is_some_and(|k| k.eq_ignore_ascii_case(b"text/html"))
        };
        matches!(answer.status(), StatusCode::NOT_FOUND | StatusCode::GONE)
            || (answer.status() == StatusCode::OK && html())
    }

    /// The request once more.
    pub(super) fn again<B>(self, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}

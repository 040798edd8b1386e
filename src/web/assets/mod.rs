//! The look, made once: one stylesheet and small scripts, held in memory and served under names that carry the hash of
//! their content, so that browsers may keep them for ever.

use std::sync::LazyLock;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderValue},
    web,
};
use sha2::{Digest as _, Sha256};

use super::pages::layout;

/// One file of the look.
#[derive(Debug)]
pub struct Asset {
    /// `/assets/NAME-HASH.EXT`: where pages link to.
    pub href: String,
    name: &'static str,
    extension: &'static str,
    media_type: &'static str,
    etag: HeaderValue,
    body: &'static [u8],
}

impl Asset {
    fn new(name: &'static str, extension: &'static str, media_type: &'static str, body: &'static [u8]) -> Self {
        let hash = hex::encode(&Sha256::digest(body)[..8]);
        let etag = HeaderValue::from_str(&format!("\"{hash}\"")).unwrap_or(HeaderValue::from_static("\"\""));
        Self { href: format!("/assets/{name}-{hash}.{extension}"), name, extension, media_type, etag, body }
    }
}

/// The stylesheet of all pages.
pub static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("style", "css", "text/css; charset=utf-8", include_bytes!("style.css")));

/// The script of all pages: relative times, copying a sha, parts that follow what happens.
pub static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("script", "js", "text/javascript; charset=utf-8", include_bytes!("script.js")));

/// The script of pages with logs: only the visible lines are in the page; following; search.
pub static LOG_SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("log", "js", "text/javascript; charset=utf-8", include_bytes!("log.js")));

/// The script of the demo's counter page.
pub static COUNTER_SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("counter", "js", "text/javascript; charset=utf-8", include_bytes!("counter.js")));

/// The sign in the browser's tab.
pub static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_bytes!("icon.svg")));

fn all() -> [&'static Asset; 5] {
    [&*STYLE, &*SCRIPT, &*LOG_SCRIPT, &*COUNTER_SCRIPT, &*ICON]
}

/// Adds `GET /assets/{file}`.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(web::resource("/assets/{file}").route(web::get().to(serve)).route(web::head().to(serve)));
}

async fn serve(request: HttpRequest, file: web::Path<String>) -> HttpResponse {
    // A page that an older version of this program made asks for an older hash: it gets today's file, not kept.
    let found = all().into_iter().find_map(|asset| {
        let path = file.strip_prefix(asset.name)?.strip_prefix('-')?;
        let hash = path.strip_suffix(asset.extension)?.strip_suffix('.')?;
        let exact = asset.href.ends_with(file.as_str());
        (exact || hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit())).then_some((asset, exact))
    });
    let Some((asset, exact)) = found else {
        let mut response = HttpResponse::NotFound();
        layout::secure(&mut response);
        return response.content_type("text/plain; charset=utf-8").body("There is no such asset.\n");
    };
    let known = request
        .headers()
        .get_all(header::IF_NONE_MATCH)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|tag| tag.trim().trim_start_matches("W/").as_bytes() == asset.etag.as_bytes());
    let mut response = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header((header::ETAG, asset.etag.clone()))
        .insert_header((header::CACHE_CONTROL, if exact { "public, max-age=31536000, immutable" } else { "no-cache" }))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header(("Cross-Origin-Resource-Policy", "same-origin"));
    if known {
        return response.finish();
    }
    response.content_type(asset.media_type).body(asset.body)
}

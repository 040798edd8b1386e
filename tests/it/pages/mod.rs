//! The pages: what stands in them, what must never stand in them, and the parts that move.

mod counter;
mod hostile;
mod logs;
mod looks;
mod sample;
mod standin;

use std::sync::Arc;

use actix_web::{App, HttpServer, dev::ServerHandle};
use switchover::web::pages::{self, Source};

/// A real server on a free port; it ends with the test.
pub struct Served {
    pub url: String,
    handle: ServerHandle,
}

impl Served {
    pub fn start(configure: impl Fn(&mut actix_web::web::ServiceConfig) + Clone + Send + 'static) -> Self {
        let server = HttpServer::new(move || App::new().configure(configure.clone()))
            .workers(1)
            .disable_signals()
            .bind("127.0.0.1:0")
            .unwrap();
        let url = format!("http://{}", server.addrs()[0]);
        let server = server.run();
        let handle = server.handle();
        tokio::spawn(server);
        Self { url, handle }
    }

    pub fn of(source: Arc<sample::Pages>) -> Self {
        Self::start(move |config| {
            let source: Arc<dyn Source> = source.clone();
            pages::configure(config, source);
        })
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        client().get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    pub async fn text(&self, path: &str) -> String {
        let response = self.get(path).await;
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.text().await.unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
    }
}

pub fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

/// Nothing from outside became markup, and nothing is there that the content security policy would block.
pub fn assert_harmless(html: &str, what: &str) {
    let lower = html.to_lowercase();
    for bad in
        ["<script>", "<img", "<svg onload", "=\"javascript:", " style=", "<style", "<iframe", "<base", "</code><script"]
    {
        assert!(!lower.contains(bad), "{what}: {bad} in\n{html}");
    }
    // Handlers in attributes of our own tags; escaped text has no raw `<`.
    for tag in lower.split('<').skip(1).map(|t| t.split('>').next().unwrap_or(t)) {
        let outside_quotes: String = tag.split('"').step_by(2).collect();
        assert!(
            !outside_quotes.split_whitespace().any(|word| word.starts_with("on") && word.ends_with('=')),
            "{what}: <{tag}>"
        );
    }
}

/// The headers that every page carries.
pub fn assert_secure(response: &reqwest::Response, what: &str) {
    let header = |name: &str| response.headers().get(name).map_or("", |v| v.to_str().unwrap());
    let csp = header("content-security-policy");
    assert!(csp.contains("default-src 'none'") && csp.contains("frame-ancestors 'none'"), "{what}: {csp}");
    assert!(!csp.contains("unsafe"), "{what}: {csp}");
    assert_eq!(header("x-content-type-options"), "nosniff", "{what}");
    assert_eq!(header("referrer-policy"), "no-referrer", "{what}");
    assert_eq!(header("x-frame-options"), "DENY", "{what}");
}

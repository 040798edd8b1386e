//! The front end of the sample shop: its page.

mod http;
mod page;

use std::time::Duration;

use http::{Request, Response};

fn main() {
    http::serve(answer);
}

fn answer(request: &Request) -> Response {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/") => Response { status: 200, kind: "text/html; charset=utf-8", body: page::home().into_bytes() },
        ("GET", "/health") => Response::text(200, "well"),
        ("GET", "/slow") => {
            let ms = request.query.trim_start_matches("ms=").parse().unwrap_or(1000);
            std::thread::sleep(Duration::from_millis(ms));
            Response::text(200, "slow, but well")
        }
        ("POST", "/orders") => Response::text(200, format!("passed on, {} bytes", request.body.len())),
        _ => Response::text(404, "not here"),
    }
}

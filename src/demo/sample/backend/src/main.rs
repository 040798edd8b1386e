//! The back end of the sample shop: prices and orders.

mod http;
mod price;

use std::time::Duration;

use http::{Request, Response};

/// What this version of the shop says.
const GREETING: &str = "Welcome to the shop";

fn main() {
    health::begin();
    http::serve(answer);
}

fn answer(request: &Request) -> Response {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/") => Response::text(200, GREETING),
        ("GET", "/health") => health::answer(),
        ("GET", "/slow") => {
            let ms = request.query.trim_start_matches("ms=").parse().unwrap_or(1000);
            std::thread::sleep(Duration::from_millis(ms));
            Response::text(200, "slow, but well")
        }
        ("GET", "/price") => {
            let quantity = request.query.trim_start_matches("quantity=").parse().unwrap_or(1);
            Response::text(200, price::total(quantity).to_string())
        }
        ("POST", "/orders") => Response::text(200, format!("ordered, {} bytes", request.body.len())),
        _ => Response::text(404, "not here"),
    }
}

mod health {
    use super::Response;

    pub fn begin() {}

    pub fn answer() -> Response {
        Response::text(200, "well")
    }
}

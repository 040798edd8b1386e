//! The sample `shop`: two apps that need nothing but Rust, released as processes of this host.

use super::sample::{Change, Sample};
use crate::demo::load::Paths;

/// The sample.
pub const SAMPLE: Sample = Sample {
    name: "shop",
    holds: "two apps with their tests",
    files: first,
    images: &[],
    paths: |_| Paths::default(),
    rate: 120,
    wrong,
    place: "backend/src/price.rs:23",
    right,
    draft: Some(draft),
    greeting,
    unwell,
};

fn first() -> Vec<(&'static str, &'static str)> {
    vec![
        (".github/switchover.yml", include_str!("../sample/.github/switchover.yml")),
        (".gitignore", include_str!("../sample/gitignore")),
        ("README.md", include_str!("../sample/README.md")),
        ("backend/Cargo.toml", include_str!("../sample/backend/Cargo.toml")),
        ("backend/Cargo.lock", include_str!("../sample/backend/Cargo.lock")),
        (BACKEND_FILE, BACKEND),
        (PRICE_FILE, PRICE),
        ("backend/src/http.rs", include_str!("../sample/http.rs")),
        ("frontend/Cargo.toml", include_str!("../sample/frontend/Cargo.toml")),
        ("frontend/Cargo.lock", include_str!("../sample/frontend/Cargo.lock")),
        ("frontend/src/main.rs", include_str!("../sample/frontend/src/main.rs")),
        ("frontend/src/page.rs", PAGE),
        ("frontend/src/http.rs", include_str!("../sample/http.rs")),
    ]
}

const BACKEND: &str = include_str!("../sample/backend/src/main.rs");
const PRICE_FILE: &str = "backend/src/price.rs";
const PRICE: &str = include_str!("../sample/backend/src/price.rs");
const PAGE: &str = include_str!("../sample/frontend/src/page.rs");

/// A discount that is wrong: the tests notice.
fn wrong() -> Change {
    let text = PRICE.replace("quantity.min(9)", "quantity.min(10)");
    Change { files: vec![(PRICE_FILE, text)], message: "Round the discount" }
}

/// The discount written so that its meaning shows.
fn right() -> Change {
    let text = PRICE.replace(
        "full * PIECE + reduced * PIECE * 4 / 5",
        "let discount = PIECE / 5;\n    full * PIECE + reduced * (PIECE - discount)",
    );
    Change { files: vec![(PRICE_FILE, text)], message: "Name the discount" }
}

/// Another heading.
fn draft() -> Change {
    let text = PAGE
        .replace("\"The sample shop\";", "\"The sample shop, next season\";")
        .replace("contains(\"The sample shop\")", "contains(super::TITLE)");
    Change { files: vec![("frontend/src/page.rs", text)], message: "Draft the next season" }
}

const BACKEND_FILE: &str = "backend/src/main.rs";

fn greet(text: &str) -> String {
    BACKEND.replace("\"Welcome to the shop\"", &format!("{text:?}"))
}

fn greeting(text: &str) -> Change {
    Change { files: vec![(BACKEND_FILE, greet(text))], message: "Greet louder" }
}

/// Three seconds after its start a leak, a lost connection, a full disk.
fn unwell(text: &str) -> Change {
    let text = greet(text).replace(
        "    pub fn begin() {}\n\n    pub fn answer() -> Response {\n        Response::text(200, \"well\")\n    }",
        "    static BEGAN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();\n\n    pub fn begin() {\n        \
         BEGAN.get_or_init(std::time::Instant::now);\n    }\n\n    pub fn answer() -> Response {\n        \
         let since = BEGAN.get().map_or(0, |b| b.elapsed().as_millis());\n        if since > 3000 {\n            \
         return Response::text(503, \"the connections of the pool are used up\");\n        }\n        \
         Response::text(200, \"well\")\n    }",
    );
    Change { files: vec![(BACKEND_FILE, text)], message: "Keep more connections open" }
}

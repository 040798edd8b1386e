//! The sample repository: two apps that need nothing but Rust, and changes to them.

/// The files of the first commit.
pub fn first() -> Vec<(&'static str, &'static str)> {
    vec![
        (".github/switchover.yml", include_str!("../sample/.github/switchover.yml")),
        (".gitignore", include_str!("../sample/gitignore")),
        ("README.md", include_str!("../sample/README.md")),
        ("backend/Cargo.toml", include_str!("../sample/backend/Cargo.toml")),
        ("backend/Cargo.lock", include_str!("../sample/backend/Cargo.lock")),
        ("backend/src/main.rs", BACKEND),
        ("backend/src/price.rs", PRICE),
        ("backend/src/http.rs", include_str!("../sample/http.rs")),
        ("frontend/Cargo.toml", include_str!("../sample/frontend/Cargo.toml")),
        ("frontend/Cargo.lock", include_str!("../sample/frontend/Cargo.lock")),
        ("frontend/src/main.rs", include_str!("../sample/frontend/src/main.rs")),
        ("frontend/src/page.rs", PAGE),
        ("frontend/src/http.rs", include_str!("../sample/http.rs")),
    ]
}

const BACKEND: &str = include_str!("../sample/backend/src/main.rs");
const PRICE: &str = include_str!("../sample/backend/src/price.rs");
const PAGE: &str = include_str!("../sample/frontend/src/page.rs");

/// A discount that is wrong: the tests notice.
pub fn wrong_price() -> String {
    PRICE.replace("quantity.min(9)", "quantity.min(10)")
}

/// The discount written so that its meaning shows.
pub fn right_price() -> String {
    PRICE.replace(
        "full * PIECE + reduced * PIECE * 4 / 5",
        "let discount = PIECE / 5;\n    full * PIECE + reduced * (PIECE - discount)",
    )
}

/// Another heading.
pub fn page(title: &str) -> String {
    PAGE.replace("\"The sample shop\";", &format!("{title:?};"))
        .replace("contains(\"The sample shop\")", "contains(super::TITLE)")
}

/// Another greeting, which is well.
pub fn greeting(text: &str) -> String {
    BACKEND.replace("\"Welcome to the shop\"", &format!("{text:?}"))
}

/// A release that answers its users, but whose health turns bad three seconds after its start: a leak, a lost
/// connection, a full disk.
pub fn unwell(text: &str) -> String {
    greeting(text).replace(
        "    pub fn begin() {}\n\n    pub fn answer() -> Response {\n        Response::text(200, \"well\")\n    }",
        "    static BEGAN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();\n\n    pub fn begin() {\n        \
         BEGAN.get_or_init(std::time::Instant::now);\n    }\n\n    pub fn answer() -> Response {\n        \
         let since = BEGAN.get().map_or(0, |b| b.elapsed().as_millis());\n        if since > 3000 {\n            \
         return Response::text(503, \"the connections of the pool are used up\");\n        }\n        \
         Response::text(200, \"well\")\n    }",
    )
}

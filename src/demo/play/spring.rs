//! The sample `spring`: a Spring Boot back end and a Vite front end, tested, built and released in containers.

use super::sample::{Change, Sample};
use crate::demo::load::Paths;

/// The sample.
pub const SAMPLE: Sample = Sample {
    name: "spring",
    holds: "Spring Boot, Vite and a worker, with their tests",
    files: first,
    images: &["backend", "frontend"],
    paths,
    rate: 60,
    wrong,
    place: "backend/src/test/java/shop/PricesTest.java:16",
    right,
    draft: None,
    greeting,
    unwell,
};

/// A file of the sample: where it stands in the repository, and its text.
macro_rules! file {
    ($path:literal) => {
        ($path, include_str!(concat!("../sample/spring/", $path)))
    };
    ($path:literal, $stored:literal) => {
        ($path, include_str!(concat!("../sample/spring/", $stored)))
    };
}

fn first() -> Vec<(&'static str, &'static str)> {
    vec![
        file!(".github/switchover.yml"),
        file!(".gitignore", "gitignore"),
        file!("README.md"),
        file!("backend/.dockerignore", "backend/dockerignore"),
        file!("backend/Dockerfile"),
        file!("backend/pom.xml"),
        API,
        file!("backend/src/main/java/shop/Mailer.java"),
        PRICES,
        file!("backend/src/main/java/shop/Purchase.java"),
        file!("backend/src/main/java/shop/Purchases.java"),
        file!("backend/src/main/java/shop/Shop.java"),
        TILL,
        file!("backend/src/main/resources/application.properties"),
        file!("backend/src/main/resources/application-mailer.properties"),
        file!("backend/src/main/resources/db/migration/V1__purchases.sql"),
        file!("backend/src/test/java/shop/PricesTest.java"),
        file!("backend/src/test/java/shop/ShopTest.java"),
        file!("k8s/backend.yml"),
        file!("k8s/frontend.yml"),
        file!("k8s/mailer.yml"),
        file!("frontend/.dockerignore", "frontend/dockerignore"),
        file!("frontend/Dockerfile"),
        file!("frontend/index.html"),
        file!("frontend/nginx.conf"),
        file!("frontend/package.json"),
        file!("frontend/package-lock.json"),
        file!("frontend/src/main.js"),
        file!("frontend/src/money.js"),
        file!("frontend/test/money.test.js"),
        file!("frontend/vite.config.js"),
    ]
}

const API: (&str, &str) = file!("backend/src/main/java/shop/Api.java");
const PRICES: (&str, &str) = file!("backend/src/main/java/shop/Prices.java");
const TILL: (&str, &str) = file!("backend/src/main/java/shop/Till.java");

/// The front end answers its page itself and hands all else on.
fn paths(app: &str) -> Paths {
    let get = if app == "frontend" { "/" } else { "/api" };
    Paths { get, post: "/api/orders", slow: "/api/slow?ms=2000" }
}

/// A discount that is wrong: the tests notice.
fn wrong() -> Change {
    let text = PRICES.1.replace("Math.min(quantity, 9)", "Math.min(quantity, 10)");
    Change { files: vec![(PRICES.0, text)], message: "Round the discount" }
}

/// The discount written so that its meaning shows.
fn right() -> Change {
    let text = PRICES.1.replace(
        "return full * PIECE + reduced * PIECE * 4 / 5;",
        "long discount = PIECE / 5;\n        return full * PIECE + reduced * (PIECE - discount);",
    );
    Change { files: vec![(PRICES.0, text)], message: "Name the discount" }
}

fn greet(text: &str) -> (&'static str, String) {
    // A plain text is quoted alike in Rust and in Java.
    (API.0, API.1.replace("\"Welcome to the shop\"", &format!("{text:?}")))
}

/// With a till that is well, whatever became of it before.
fn greeting(text: &str) -> Change {
    Change { files: vec![greet(text), (TILL.0, TILL.1.to_owned())], message: "Greet louder" }
}

/// After forty orders the drawer is full: no request is lost by it, but its health is bad.
fn unwell(text: &str) -> Change {
    let till = TILL.1.replace(
        "        return Health.up()",
        "        if (sold.get() > 40) {\n            return Health.down().withDetail(\"drawer\", \"full\").build();\n        }\n        \
         return Health.up()",
    );
    Change { files: vec![greet(text), (TILL.0, till)], message: "Empty the drawer less often" }
}

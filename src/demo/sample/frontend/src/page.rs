//! The page that visitors see.

/// The heading of this version.
const TITLE: &str = "The sample shop";

/// The home page.
pub fn home() -> String {
    let release = std::env::var("SWITCHOVER_RELEASE").unwrap_or_else(|_| "none".into());
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>{TITLE}</title>\
         <body style=\"font-family:system-ui;max-width:40rem;margin:4rem auto;padding:0 1rem\">\
         <h1>{TITLE}</h1><p>Pens, paper and ink, blue and green.</p><p><small>release {release}</small></p></body></html>"
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_names_the_shop() {
        assert!(super::home().contains("The sample shop"));
    }
}

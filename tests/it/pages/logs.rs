//! Logs: colours, windows, search, following.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use proptest::prelude::*;
use serde_json::Value;
use switchover::web::pages::{
    ansi,
    log::{self, LogLine},
};

use super::{Served, assert_secure, client, sample};

proptest! {
    #[test]
    fn any_line_is_shown_without_controls(line in "(\u{1b}\\[[0-9;:]{0,12}[a-zA-Z]|\u{1b}.|[\u{0}-\u{1f}]|\\PC){0,60}") {
        for span in ansi::spans(&line) {
            prop_assert!(!span.0.chars().any(char::is_control), "{:?}", span);
            prop_assert!(span.1.chars().all(|c| c.is_ascii_alphanumeric() || c == ' '), "{:?}", span);
        }
        let html = log::lines_html("a", &[LogLine { n: 1, ms: 0, text: line.clone() }], Some((&log::needle("e"), "/x"))).to_string();
        prop_assert_eq!(html.matches("<div").count(), 1);
        prop_assert_eq!(html.matches("<script").count(), 0);
    }

    #[test]
    fn a_search_finds_on_character_boundaries(text in "\\PC{0,40}", needle in "\\PC{1,3}") {
        for (start, end) in log::find(&text, &log::needle(&needle)) {
            prop_assert!(text.is_char_boundary(start) && text.is_char_boundary(end));
        }
    }
}

#[tokio::test]
async fn windows_of_a_long_log() {
    let served = Served::of(Arc::new(sample::Pages::new(100_000, true)));
    let window =
        async |query: &str| -> Value { served.get(&format!("/logs/t1/lines{query}")).await.json().await.unwrap() };
    let middle = window("?from=50000&count=3").await;
    assert_eq!(middle["total"], 100_000);
    assert_eq!(middle["lines"][0]["n"], 50_000);
    assert_eq!(middle["lines"].as_array().unwrap().len(), 3);
    assert_eq!(window("?from=1&count=1000000").await["lines"].as_array().unwrap().len(), log::MAX_WINDOW);
    assert_eq!(window("?from=100001").await["lines"].as_array().unwrap().len(), 0);
    assert_eq!(window(&format!("?from={}&count=5", usize::MAX)).await["lines"].as_array().unwrap().len(), 0);
    assert_eq!(window("?from=0&count=1").await["lines"][0]["n"], 1);
    // The page itself stays small, however long the log is.
    let page = served.text("/runs/r1").await;
    assert!(page.len() < 200_000, "{}", page.len());
    let part = served.text("/logs/t1?from=2000").await;
    assert!(
        part.contains("2000 to 2999") && part.contains("?from=3000") && part.contains("?from=1000"),
        "{}",
        &part[..3000]
    );
}

#[tokio::test]
async fn a_search_tells_numbers_to_the_script_and_lines_to_people() {
    let pages = sample::Pages::new(5_000, true);
    pages.push("\u{1b}[31mNee\u{1b}[0mdle & <b>");
    let served = Served::of(Arc::new(pages));
    let ask = client().get(format!("{}/logs/t1/find?q=NEEDLE", served.url)).header("accept", "application/json");
    let told: Value = ask.send().await.unwrap().json().await.unwrap();
    assert_eq!(told, serde_json::json!({"matches": [5001], "more": false}));
    let page = served.text("/logs/t1/find?q=needle%20%26").await;
    assert!(page.contains("One line contains <bdi>needle &#38;</bdi>"), "{page}");
    assert!(page.contains("/logs/t1?from=4981#backend-test-L5001"), "{page}");
    let many = served.text("/logs/t1/find?q=running").await;
    assert!(many.contains("500 lines contain"));
    assert!(served.text("/logs/t1/find?q=nothing-like-it").await.contains("No line contains"));
    assert!(served.text("/logs/t1/find?q=").await.contains("No line contains"));
}

#[tokio::test]
async fn the_raw_log_is_a_download() {
    let served = Served::of(Arc::new(sample::Pages::new(3, true)));
    let response = served.get("/logs/t1/raw").await;
    assert_secure(&response, "raw");
    assert_eq!(response.headers()["content-disposition"], "attachment; filename=\"backend-test.log\"");
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(response.text().await.unwrap().lines().count(), 3);
}

/// Reads events until one of this name; gives its data.
async fn until(
    events: &mut (impl futures_util::Stream<Item = reqwest::Result<bytes::Bytes>> + Unpin),
    kept: &mut String,
    name: &str,
) -> String {
    let wait = async {
        loop {
            while let Some(end) = kept.find("\n\n") {
                let event: String = kept.drain(..end + 2).collect();
                if event.lines().any(|l| l == format!("event: {name}")) {
                    return event.lines().find_map(|l| l.strip_prefix("data: ")).unwrap().to_owned();
                }
            }
            kept.push_str(std::str::from_utf8(&events.next().await.expect("the stream goes on").unwrap()).unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("an event comes")
}

#[tokio::test]
async fn following_a_log_brings_its_lines_and_its_end() {
    let pages = Arc::new(sample::Pages::new(2, false));
    let served = Served::of(pages.clone());
    let response = served.get("/logs/t1/events?from=3").await;
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let (mut events, mut kept) = (response.bytes_stream(), String::new());
    pages.push("third");
    let lines: Value = serde_json::from_str(&until(&mut events, &mut kept, "lines").await).unwrap();
    assert_eq!((&lines["lines"][0]["n"], &lines["lines"][0]["s"][0][0]), (&3.into(), &"third".into()));
    pages.push("fourth");
    *pages.done.lock().unwrap() = true;
    let lines: Value = serde_json::from_str(&until(&mut events, &mut kept, "lines").await).unwrap();
    assert_eq!(lines["lines"][0]["n"], 4);
    assert_eq!(until(&mut events, &mut kept, "end").await, "4");
    assert!(events.next().await.is_none(), "the server ends it");
    // A browser that lost the connection goes on behind what it has.
    let again = client().get(format!("{}/logs/t1/events?from=1", served.url)).header("last-event-id", "3");
    let (mut events, mut kept) = (again.send().await.unwrap().bytes_stream(), String::new());
    let lines: Value = serde_json::from_str(&until(&mut events, &mut kept, "lines").await).unwrap();
    assert_eq!(lines["lines"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn pages_hear_of_changes() {
    let pages = Arc::new(sample::Pages::new(1, true));
    let served = Served::of(pages.clone());
    let (mut events, mut kept) = (served.get("/live").await.bytes_stream(), String::new());
    // The greeting shows that the server listens.
    kept.push_str(std::str::from_utf8(&events.next().await.unwrap().unwrap()).unwrap());
    pages.changed.send_modify(|n| *n += 1);
    assert_eq!(until(&mut events, &mut kept, "changed").await, "1");
}

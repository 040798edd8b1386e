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

#[test]
fn colours_become_classes_and_nothing_else_is_obeyed() {
    let shown = |line: &str| serde_json::to_string(&ansi::spans(line)).unwrap();
    let cases = [
        ("plain", r#"[["plain"]]"#),
        ("", "[]"),
        (
            "\u{1b}[31mred\u{1b}[0m and \u{1b}[1;92mbold\u{1b}[22m not",
            r#"[["red","f1"],[" and "],["bold","f10 bo"],[" not","f10"]]"#,
        ),
        ("\u{1b}[38;5;196mcube\u{1b}[48;5;232mgrey", r#"[["cube","f9"],["grey","f9 b0"]]"#),
        ("\u{1b}[38;2;10;120;250mtrue\u{1b}[39m", r#"[["true","f12"]]"#),
        ("\u{1b}[38:5:40mcolons", r#"[["colons","f10"]]"#),
        ("\u{1b}[mreset\u{1b}[;mtwice", r#"[["resettwice"]]"#),
        // `j` is a final byte (ECMA-48, 5.4): a terminal prints the rest, and no colour was set.
        ("\u{1b}[999;31;junkmx", r#"[["unkmx"]]"#),
        // Numbers that mean nothing, or that no number type holds, are left out; the others of the sequence count.
        ("\u{1b}[999;31mx", r#"[["x","f1"]]"#),
        ("\u{1b}[99999999999999999999;;31mx", r#"[["x","f1"]]"#),
        ("\u{1b}[38;5;999;31mx", r#"[["x","f1"]]"#),
        ("\u{1b}[38mx\u{1b}[48;2;1mx", r#"[["xx"]]"#),
        ("10%\r20%\rdone\r\n", r#"[["done"]]"#),
        ("\u{1b}[2K\u{1b}[1Gclean\u{1b}[?25l", r#"[["clean"]]"#),
        ("\u{1b}]0;title\u{7}a\u{1b}]8;;http://evil\u{1b}\\link\u{1b}]8;;\u{1b}\\", r#"[["alink"]]"#),
        ("\u{1b}Pdcs\u{1b}\\ok\u{1b}(Bx\u{8}\u{0}", r#"[["okx"]]"#),
        ("\u{1b}[31", "[]"),
        ("\u{1b}]never ends", "[]"),
        ("\u{1b}[31\nm", r#"[["m"]]"#),
        ("a\u{202e}b", "[[\"a\u{fffd}b\"]]"),
        ("tab\there", r#"[["tab    here"]]"#),
    ];
    for (line, expected) in cases {
        assert_eq!(shown(line), expected, "{line:?}");
    }
    let long = shown(&"x".repeat(10_000));
    assert!(long.len() < 4_200 && long.contains("6000 more characters in the raw log"), "{}", long.len());
}

#[test]
fn lines_have_numbers_that_are_links() {
    let line = LogLine { n: 120, ms: 61_000, text: "\u{1b}[32mok <b>\u{1b}[0m Fine".to_owned() };
    let plain = log::lines_html("backend-test", std::slice::from_ref(&line), None).to_string();
    insta::assert_snapshot!(plain, @r##"<div class="l" id="backend-test-L120"><a href="#backend-test-L120" title="after 1 m 1 s">120</a><code><span class="f2">ok &lt;b&gt;</span> Fine</code></div>"##);
    // Found lines lead to the log some lines before them, and say what was found.
    let found = [line, LogLine { n: 7, ms: 5, text: "fine, fine".to_owned() }];
    let found = log::lines_html("backend-test", &found, Some((&log::needle("FINE"), "/logs/t1"))).to_string();
    insta::assert_snapshot!(found, @r##"
    <div class="l" id="backend-test-L120"><a href="/logs/t1?from=100#backend-test-L120" title="after 1 m 1 s">120</a><code><span class="f2">ok &lt;b&gt;</span> <mark>Fine</mark></code></div>
    <div class="l" id="backend-test-L7"><a href="/logs/t1?from=1#backend-test-L7" title="after 5 ms">7</a><code><mark>fine</mark>, <mark>fine</mark></code></div>
    "##);
    let hostile = LogLine { n: 1, ms: 0, text: sample::HOSTILE.to_owned() };
    let html =
        log::lines_html("x\"><script>", &[hostile], Some((&log::needle("<script>"), "/\"onclick=x"))).to_string();
    super::assert_harmless(&html, "lines");
}

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

//! Pieces, pages, assets.

use std::sync::Arc;

use insta::assert_snapshot;
use switchover::{
    domain::show::{self, PhaseMark, PhaseState, ReleaseLine, SlotColour, SlotMark, release_line_text},
    web::{
        assets,
        pages::pieces::{self, State},
    },
};

use super::{Served, assert_harmless, assert_secure, client, sample};

#[test]
fn durations_are_rounded_to_what_matters() {
    let cases = [
        (0, "0 ms"),
        (999, "999 ms"),
        (1_000, "1 s"),
        (3_449, "3.4 s"),
        (9_949, "9.9 s"),
        (9_950, "10 s"),
        (34_400, "34 s"),
        (59_499, "59 s"),
        (59_500, "1 m"),
        (130_000, "2 m 10 s"),
        (3_600_000, "1 h"),
        (3_900_000, "1 h 5 m"),
        (86_400_000, "1 d"),
        (97_200_000, "1 d 3 h"),
    ];
    for (ms, expected) in cases {
        assert_eq!(show::duration(ms), expected, "{ms}");
    }
}

#[test]
fn a_release_is_one_line_of_text() {
    assert_snapshot!(release_line_text(&sample::line(7, PhaseState::Done)), @r"
                    Prepare  Warm     Verify    Switch   Converge  Watch      Done
                    ✓ 2.1 s  ✓ 1.3 s  ✓ 420 ms  ✓ 38 ms  ✓ 5 s     ✓ 1 m 1 s  ✓ 0 ms
    blue   8b1d0e7  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┓╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌
    green  3f2a9c1           ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌┗━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━
    ");
    assert_snapshot!(release_line_text(&sample::line(5, PhaseState::Running)), @r"
                    Prepare  Warm     Verify    Switch   Converge  Watch   Done
                    ✓ 2.1 s  ✓ 1.3 s  ✓ 420 ms  ✓ 38 ms  ✓ 5 s     ● 31 s  ○
    blue   8b1d0e7  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┓╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌
    green  3f2a9c1           ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌┗━━━━━━━━━━━━━━━━━━
    ");
    assert_snapshot!(release_line_text(&sample::line(2, PhaseState::Failed)), @r"
                    Prepare  Warm     Verify    Switch  Converge  Watch  Done
                    ✓ 2.1 s  ✓ 1.3 s  ✗ 210 ms  ○       ○         ○      ○
    blue   8b1d0e7  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━
    green  3f2a9c1           ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌
    ");
    assert_snapshot!(release_line_text(&sample::taken_back()), @r"
                    Prepare  Warm     Verify    Switch   Converge  Watch   Rolling back  Rolled back
                    ✓ 2.1 s  ✓ 1.3 s  ✓ 420 ms  ✓ 38 ms  ✓ 5 s     ✗ 31 s  ✓ 31 ms       ✓ 1.2 s
    blue   8b1d0e7  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┓╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌┏━━━━━━━━━━━━━━━━━━━
    green  3f2a9c1           ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌┗━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┛╌╌╌╌╌╌╌╌╌╌╌╌
    ");
}

#[test]
fn a_first_release_has_no_old_slot() {
    let names = ["Prepare", "Warm", "Verify", "Switch", "Converge"];
    let line = ReleaseLine {
        old: None,
        new: SlotMark { colour: SlotColour::Blue, label: "3f2a9c1".to_owned() },
        phases: names.iter().map(|n| PhaseMark::of(n, PhaseState::Done, Some(1_200), true)).collect(),
    };
    assert_snapshot!(release_line_text(&line), @r"
                    Prepare  Warm     Verify   Switch   Converge
                    ✓ 1.2 s  ✓ 1.2 s  ✓ 1.2 s  ✓ 1.2 s  ✓ 1.2 s
    blue   3f2a9c1           ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╺━━━━━━━━━━━━━━
    ");
    assert_eq!(line.stands_by(), None);
    let html = pieces::release_line(&line).to_string();
    assert!(html.contains("nothing was live before") && html.contains("answers"), "{html}");
}

#[test]
fn colour_never_stands_alone() {
    use switchover::domain::{check::Conclusion, run::Outcome};
    let states = [
        State::QUEUED,
        State::RUNNING,
        Conclusion::Success.into(),
        Conclusion::ActionRequired.into(),
        Conclusion::Cancelled.into(),
        Outcome::Superseded.into(),
        Outcome::Infrastructure.into(),
    ];
    let badges: Vec<String> = states.iter().map(|s: &State| s.badge().to_string()).collect();
    assert_snapshot!(badges.join("\n"), @r#"
    <span class="state waiting"><b aria-hidden="true">○</b> <span>queued</span></span>
    <span class="state running"><b aria-hidden="true">●</b> <span>running</span></span>
    <span class="state passed"><b aria-hidden="true">✓</b> <span>passed</span></span>
    <span class="state attention"><b aria-hidden="true">!</b> <span>waits for you</span></span>
    <span class="state cancelled"><b aria-hidden="true">⊘</b> <span>cancelled</span></span>
    <span class="state cancelled"><b aria-hidden="true">⊘</b> <span>superseded</span></span>
    <span class="state failed"><b aria-hidden="true">✗</b> <span>infrastructure error</span></span>
    "#);
}

#[test]
fn links_lead_to_the_web_or_to_this_site() {
    for (address, expected) in [
        ("https://example.com/a?b#c", "https://example.com/a?b#c"),
        ("HTTP://example.com", "HTTP://example.com"),
        ("/runs/1", "/runs/1"),
        ("#x", "#x"),
        ("javascript:alert(1)", "#"),
        (" javascript:alert(1)", "#"),
        ("java\nscript:alert(1)", "#"),
        ("data:text/html,x", "#"),
        ("//evil.example", "#"),
        ("/\\evil.example", "#"),
        ("", "#"),
    ] {
        assert_eq!(pieces::href(address), expected, "{address:?}");
    }
}

#[test]
fn a_sha_is_cut_on_a_character() {
    assert_eq!(pieces::short(sample::SHA), "3f2a9c1");
    assert_eq!(pieces::short("äöü"), "äöü");
    assert_eq!(pieces::short("äöüäöüäöü"), "äöüäöüä");
}

#[tokio::test]
async fn assets_are_kept_for_ever_under_their_hash() {
    let served = Served::of(Arc::new(sample::Pages::new(1, true)));
    for asset in [&*assets::STYLE, &*assets::SCRIPT, &*assets::LOG_SCRIPT, &*assets::COUNTER_SCRIPT, &*assets::ICON] {
        let first = served.get(&asset.href).await;
        assert_eq!(first.status(), 200, "{}", asset.href);
        assert_eq!(first.headers()["cache-control"], "public, max-age=31536000, immutable");
        let etag = first.headers()["etag"].to_str().unwrap().to_owned();
        assert!(etag.starts_with('"') && etag.ends_with('"'), "strong: {etag}");
        let kind = first.headers()["content-type"].to_str().unwrap().to_owned();
        assert!(kind.starts_with("text/") || kind == "image/svg+xml", "{kind}");
        let again = client().get(format!("{}{}", served.url, asset.href)).header("if-none-match", &etag);
        assert_eq!(again.send().await.unwrap().status(), 304);
    }
    // A page from before an upgrade asks for an older hash: today's file, not kept.
    let old = served.get("/assets/style-0123456789abcdef.css").await;
    assert_eq!((old.status().as_u16(), &old.headers()["cache-control"]), (200, &"no-cache".parse().unwrap()));
    for bad in [
        "/assets/style-short.css",
        "/assets/other-0123456789abcdef.css",
        "/assets/..%2f..%2fCargo.toml",
        "/assets/style.css",
    ] {
        assert_eq!(served.get(bad).await.status(), 404, "{bad}");
    }
}

#[tokio::test]
async fn every_page_is_secure_and_what_comes_from_outside_is_text() {
    let hostile = Arc::new(sample::Pages { hostile: true, ..sample::Pages::new(3, true) });
    hostile.push(&format!("\u{1b}[31m{}\u{1b}]8;;http://evil\u{7}link\u{202e}", sample::HOSTILE));
    let served = Served::of(hostile);
    for path in
        ["/", "/runs/r1", "/releases/d1", "/releases/d2", "/logs/t1", "/logs/t1?from=2", "/logs/t1/find?q=%3Cscript"]
    {
        let response = served.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_secure(&response, path);
        let html = response.text().await.unwrap();
        assert_harmless(&html, path);
        assert!(html.contains("&#60;script") || html.contains("&lt;script"), "{path} shows it:\n{html}");
    }
    // What no person opens is as careful: a browser may be led there.
    for path in ["/logs/t1/lines", "/logs/t1/raw", "/logs/t1/events", "/live"] {
        let response = served.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_secure(&response, path);
    }
}

#[tokio::test]
async fn addresses_that_lead_nowhere_are_pages_too() {
    let served = Served::of(Arc::new(sample::Pages::new(1, true)));
    for path in ["/nothing", "/runs", "/runs/r1/x", "/runs/%FF", "/logs/%00", "/%3Cscript%3E", "/webhooks/github"] {
        let response = served.get(path).await;
        assert_eq!(response.status(), 404, "{path}");
        assert_secure(&response, path);
        let html = response.text().await.unwrap();
        assert_harmless(&html, path);
        assert!(html.contains("What to do:"), "{path}:\n{html}");
    }
    assert_secure(&served.get("/assets/x").await, "no asset");
    for method in ["POST", "DELETE", "OPTIONS"] {
        let request = client().request(method.parse().unwrap(), format!("{}/runs/r1", served.url));
        assert_secure(&request.send().await.unwrap(), method);
    }
}

#[tokio::test]
async fn an_error_says_what_why_and_what_next() {
    let served = Served::of(Arc::new(sample::Pages::new(1, true)));
    for (path, status, words) in [
        ("/runs/none", 404, "There is no such run here."),
        ("/releases/none", 404, "There is no such release here."),
        ("/logs/none", 404, "There is no such log here."),
        ("/logs/none/lines", 404, "There is no such log here."),
        ("/logs/none/events", 404, "There is no such log here."),
        ("/logs/none/raw", 404, "There is no such log here."),
        ("/logs/t0/raw", 410, "The log is gone."),
        ("/logs/t1?from=minus", 400, "This address makes no sense."),
        ("/logs/t1/lines?count=-1", 400, "This address makes no sense."),
    ] {
        let response = served.get(path).await;
        assert_eq!(response.status(), status, "{path}");
        assert_secure(&response, path);
        let html = response.text().await.unwrap();
        assert!(html.contains(words) && html.contains("What to do:"), "{path}:\n{html}");
    }
}

#[tokio::test]
async fn empty_pages_say_what_will_appear_there() {
    let page = switchover::web::pages::OverviewPage::default().render();
    for words in ["Environments appear here", "Runs appear here", "Repositories appear here"] {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains("Needs somebody"));
}

#[test]
fn a_run_folds_all_steps_but_the_failed_one() {
    let html = sample::Pages::new(600, true).run_page().render();
    let step =
        |anchor: &str| html.split(&format!(r#"id="{anchor}" data-tone"#)).nth(1).unwrap().split('>').next().unwrap();
    assert!(step("backend-test").contains("open"));
    assert!(!step("backend-lint").contains("open"));
    assert!(!step("backend-build").contains("open"));
    assert!(html.contains("118 passed, 1 failed, 1 flaky, 3 skipped"));
    assert!(html.contains("100 earlier lines"));
    assert!(html.contains(r##"<a href="#backend-test-L600""##) && !html.contains(r#"id="backend-test-L100""#));
    assert!(html.contains("expected: &#60;12.50&#62; but was"), "{html}");
}

#[test]
fn a_release_page_words_its_figures_as_what_they_are() {
    let html = sample::Pages::new(0, true).release_page(true).render();
    for words in [
        "3 of 24,841 probes failed.",
        "38 ms from the flip to the last answer of the old version.",
        "rolled back",
        "switchover resume production",
        "2 commits by <bdi>Ada Lovelace, Grace Hopper</bdi>",
        "The watch took it back",
    ] {
        assert!(html.contains(words), "{words}:\n{html}");
    }
    let good = sample::Pages::new(0, true).release_page(false).render();
    for words in ["0 of 24,841 probes failed.", "switchover rollback production"] {
        assert!(good.contains(words), "{words}:\n{good}");
    }
    // A release that nobody probed claims nothing.
    let mut unknown = sample::Pages::new(0, true).release_page(false);
    (unknown.probes, unknown.switch_ms) = (Vec::new(), None);
    let html = unknown.render();
    assert!(!html.contains("probes failed") && !html.contains("ms from the flip"), "{html}");
}

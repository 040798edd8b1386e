//! Text cut to GitHub's limits.

use proptest::prelude::*;
use switchover::github::text::{cut_chars, fit_markdown, head, tail};

#[test]
fn characters_and_bytes() {
    assert_eq!(cut_chars("größe", 5), "größe");
    assert_eq!(cut_chars("größer", 5), "größ…");
    assert_eq!((head("aé", 2), head("aé", 3), head("é", 1)), ("a", "aé", ""));
    assert_eq!((tail("éa", 2), tail("éa", 3), tail("é", 1), tail("abc", 9)), ("a", "éa", "", "abc"));
}

#[test]
fn logs_are_cut_from_the_top() {
    let lines: String = (0..100).map(|n| format!("line {n:04}\n")).collect();
    let text = format!("before\n```text\n{lines}```\nafter\n");
    let cut = fit_markdown(&text, 300);
    insta::assert_snapshot!(cut, @r"
    before
    ```text
    [… 810 bytes above are left out; the whole log is behind the check's link]
    line 0081
    line 0082
    line 0083
    line 0084
    line 0085
    line 0086
    line 0087
    line 0088
    line 0089
    line 0090
    line 0091
    line 0092
    line 0093
    line 0094
    line 0095
    line 0096
    line 0097
    line 0098
    line 0099
    ```
    after
    ");
    assert!(cut.len() <= 300);
}

#[test]
fn prose_is_cut_at_the_end_and_fences_closed() {
    let prose = "A sentence of prose.\n".repeat(40);
    let cut = fit_markdown(&prose, 200);
    insta::assert_snapshot!(cut, @r"
    A sentence of prose.
    A sentence of prose.
    A sentence of prose.
    A sentence of prose.
    A sentence of prose.

    *The rest is left out: it is too long for GitHub.*
    ");
    // Many small blocks: none is worth cutting, so the end goes, and the block that is open there is closed.
    let blocks = "~~~~sh\necho 1\necho 2\necho 3\n~~~~\n".repeat(20);
    let cut = fit_markdown(&blocks, 300);
    assert!(cut.len() <= 300 && cut.matches("~~~~").count().is_multiple_of(2), "{cut}");
    // No line to cut at.
    let long = "é".repeat(1000);
    assert!(fit_markdown(&long, 301).len() <= 301);
}

fn open_fences(text: &str) -> bool {
    let mut open = false;
    for line in text.lines() {
        if line.starts_with("```") {
            open = !open;
        }
    }
    open
}

proptest! {
    #[test]
    fn never_too_long(text in "(?s).{0,2000}", limit in 0_usize..1200) {
        let cut = fit_markdown(&text, limit);
        prop_assert!(cut.len() <= limit, "{} > {limit}", cut.len());
        prop_assert!(text.len() > limit || cut == text, "what fits is left alone");
    }

    #[test]
    fn fences_stay_whole(
        parts in prop::collection::vec((any::<bool>(), prop::collection::vec("[a-zé ]{0,30}", 0..40)), 0..8),
        limit in 200_usize..1500,
    ) {
        let text: String = parts
            .iter()
            .map(|(fenced, lines)| {
                let body: String = lines.iter().map(|l| format!("{l}\n")).collect();
                if *fenced { format!("```\n{body}```\n") } else { body }
            })
            .collect();
        let cut = fit_markdown(&text, limit);
        prop_assert!(cut.len() <= limit);
        prop_assert!(!open_fences(&cut), "{}", cut);
    }
}

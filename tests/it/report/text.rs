use proptest::prelude::*;
use switchover::report::text::{
    bytes, clean, code, duration, fence, first_line, head, latency, link, middle, number, one_line, plain, slack,
    slack_link, tail,
};

#[test]
fn numbers_are_rounded_to_what_matters() {
    for (ms, want) in [
        (0, "0 ms"),
        (180, "180 ms"),
        (999, "999 ms"),
        (1_000, "1 s"),
        (1_449, "1.4 s"),
        (9_949, "9.9 s"),
        (9_950, "10 s"),
        (34_400, "34 s"),
        (59_499, "59 s"),
        (59_500, "1 m"),
        (130_000, "2 m 10 s"),
        (3_599_499, "59 m 59 s"),
        (3_599_500, "1 h"),
        (3_900_000, "1 h 5 m"),
        (183_600_000, "2 d 3 h"),
    ] {
        assert_eq!(duration(ms), want, "{ms}");
    }
    for (n, want) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_430, "12,430"), (1_234_567, "1,234,567")] {
        assert_eq!(number(n), want);
    }
    for (n, want) in [(12, "12 B"), (512 << 20, "512 MiB"), (1_288_490_189, "1.2 GiB"), (u64::MAX, "16383 PiB")] {
        assert_eq!(bytes(n), want);
    }
    for (us, want) in [(420, "0.4 ms"), (11_800, "12 ms"), (1_400_000, "1.4 s")] {
        assert_eq!(latency(us), want);
    }
}

#[test]
fn what_a_terminal_would_act_on_is_taken_out() {
    for (text, want) in [
        ("\u{1b}[31mred\u{1b}[0m", "red"),
        ("\u{9b}31mred", "red"),
        ("\u{1b}]0;title\u{7}text", "text"),
        ("\u{1b}]8;;http://x\u{1b}\\label\u{1b}]8;;\u{1b}\\", "label"),
        ("\u{1b}]never ended\nnext", "\nnext"),
        ("10 %\r50 %\r100 %\ndone\r\n", "100 %\ndone\n"),
        ("a\u{0}b\u{8}c\td", "abc\td"),
        ("\u{202e}txt.exe\u{2066}", "txt.exe"),
        ("\u{1b}(Bx\u{1b}cy", "xy"),
        ("end\u{1b}", "end"),
        ("end\u{1b}[12;", "end"),
    ] {
        assert_eq!(clean(text), want, "{text:?}");
    }
}

#[test]
fn outside_text_is_no_markup() {
    for (text, want) in [
        ("Thanks @alice for #12", "Thanks @&#8203;alice for #&#8203;12"),
        ("GH-12 and gh-3", "GH&#8203;-12 and gh&#8203;-3"),
        ("see http://x/y and www.x.y", "see http:&#8203;//x/y and www&#8203;.x.y"),
        ("a|b`c`<img>*_~[x](y)", "a&#124;b\\`c\\`&lt;img&gt;\\*\\_\\~\\[x\\](y)"),
        ("&#64;alice \\@bob", "&amp;#&#8203;64;alice &#92;@&#8203;bob"),
        ("- item\n# head", "\\- item #&#8203; head"),
        ("1. item", "1\\. item"),
    ] {
        assert_eq!(plain(text), want, "{text:?}");
    }
    for (text, want) in [
        ("a", "`a`"),
        ("a`b", "``a`b``"),
        ("``", "``` `` ```"),
        ("", "(empty)"),
        ("a\n\nb", "`a b`"),
        ("a|b", "a&#124;b"),
    ] {
        assert_eq!(code(text), want, "{text:?}");
    }
    for (url, want) in [("https://x/a b)c", "[l](https://x/a%20b%29c)"), ("javascript:alert(1)", "l"), ("", "l")] {
        assert_eq!(link("l", url), want);
    }
    assert_eq!(fence("a\n```\nb````", "text", 100), "`````text\na\n```\nb````\n`````");
    assert_eq!(slack("<!channel> & co", 100), "&lt;!channel&gt; &amp; co");
    assert_eq!(slack("&&&", 11), "&amp;&amp;…");
    assert_eq!(slack_link("a|b>", "https://x/?a=1&b=2|c"), "<https://x/?a=1&amp;b=2%7Cc|a|b&gt;>");
}

#[test]
fn the_tail_of_a_log_stays() {
    assert_eq!(tail("one\ntwo\nthree\nfour", 18), "one\ntwo\nthree\nfour");
    assert_eq!(tail("one one one\ntwo\nthree\nfour", 22), "… (cut)\nthree\nfour");
    assert_eq!(head("abcdef", 5), "ab…");
    assert_eq!(middle("aaaaaaaaaabbbbbbbbbb", 14), "aaaaaa\n…\nbbb");
    assert_eq!(first_line("\n\n  Add a cart\nmore", 5), "Add…");
    assert_eq!(one_line(" a  b\nc ", 10), "a b c");
}

fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("`"),
        Just("```"),
        Just("~~~"),
        Just("\n"),
        Just("é"),
        Just("😀"),
        Just("@a"),
        Just("#1"),
        Just("&"),
        Just("<"),
        Just(">"),
        Just("|"),
        Just("\u{1b}[1m"),
        Just("\r"),
        Just("word"),
        Just(" "),
        Just("\\"),
    ];
    prop_oneof![
        3 => prop::collection::vec(piece, 0..60).prop_map(|p| p.concat()),
        1 => any::<String>(),
    ]
}

proptest! {
    #[test]
    fn cuts_keep_their_limit_and_whole_characters(text in hostile(), max in 0usize..80) {
        for cut in [tail(&text, max), head(&text, max), middle(&text, max)] {
            prop_assert!(cut.len() <= max, "{cut:?}");
        }
        if text.len() > max && max >= 12 {
            let cut = tail(&text, max);
            let own = cut.strip_prefix("… (cut)\n").expect("says so");
            prop_assert!(text.ends_with(own));
        }
        prop_assert!(one_line(&text, max.max(1)).chars().count() <= max.max(1));
        prop_assert!(!one_line(&text, 50).contains('\n'));
    }

    #[test]
    fn nothing_inside_ends_a_fence(text in hostile(), max in 0usize..200) {
        let fenced = fence(&text, "text", max);
        let ticks: String = fenced.chars().take_while(|c| *c == '`').collect();
        let body = fenced.strip_prefix(&format!("{ticks}text\n")).and_then(|b| b.strip_suffix(&format!("\n{ticks}")));
        let body = body.expect("opened and closed");
        prop_assert!(!body.contains(&ticks));
        prop_assert!(body.len() <= max);
    }

    #[test]
    fn slack_text_is_escaped_and_cut_between_entities(text in hostile(), max in 0usize..60) {
        let out = slack(&text, max);
        prop_assert!(out.chars().count() <= max);
        prop_assert!(!out.contains(['<', '>']));
        for (at, _) in out.match_indices('&') {
            let rest = &out[at..];
            prop_assert!(["&amp;", "&lt;", "&gt;"].iter().any(|e| rest.starts_with(e)), "{out}");
        }
    }
}

//! Files that somebody wrote to do harm. Each must be answered at once, with a mistake that can be understood.

use proptest::prelude::*;
use switchover::domain::config::{self, tree::MAX_FILE};

fn first(text: &str) -> String {
    config::parse(text).expect_err("a mistake")[0].sentence()
}

#[test]
fn too_much_of_everything() {
    let bomb: String = (1..40)
        .map(|i| format!("l{i}: &l{i} [{}]\n", vec![format!("*l{}", i - 1); 9].join(",")))
        .fold("l0: &l0 [x]\n".to_owned(), |all, line| all + &line);
    let pairs = (0..20_000).map(|i| format!("k{i}: {i}\n")).collect::<String>();
    let apps = (0..5_000).map(|i| format!("  a{i}: {{path: p{i}}}\n")).collect::<String>();
    let items = vec!["a"; 60_000].join(",");
    let cases = [
        ("ten megabytes", "x".repeat(10 << 20)),
        ("an alias bomb", bomb),
        ("deep lists", "[".repeat(100_000)),
        ("deep mappings", "{a: ".repeat(50_000)),
        ("deep blocks", (0..400).map(|i| format!("{}a:\n", " ".repeat(i))).collect()),
        ("deep dashes", "- ".repeat(100_000)),
        ("many keys", pairs),
        ("many apps", format!("version: 1\napps:\n{apps}")),
        ("many items", format!("version: 1\non: {{push: [{items}]}}")),
        ("one long key", format!("{}: 1", "k".repeat(200_000))),
        ("one long value", format!("version: 1\napps: {{a: {{start: {}}}}}", "v".repeat(200_000))),
        ("a text of zeros", "\0".repeat(1000)),
        ("a hidden zero", "version: 1\napps: {a: {start: \"a\\0b\"}}".to_owned()),
        ("an escape", "version: 1\napps: {a: {start: \"a\u{1b}[2Jb\"}}".to_owned()),
        ("question marks", "? ".repeat(50_000)),
        ("anchors", (0..30_000).map(|i| format!("&a{i} ")).collect()),
        ("quotes", "\"".repeat(99_999)),
        ("directives", "%YAML 1.2\n".repeat(10_000)),
        ("tags", "!".repeat(100_000)),
    ];
    let told: String = cases.iter().map(|(name, text)| format!("{name}: {}\n", first(text))).collect();
    insta::assert_snapshot!(told, @r#"
    ten megabytes: the file has 10240 KiB: expected at most 256 KiB
    an alias bomb: the file expands to more than 50000 values: expected fewer values, or fewer uses of aliases
    deep lists: nested too deeply: expected at most 24 levels of nesting
    deep mappings: nested too deeply: expected at most 24 levels of nesting
    deep blocks: nested too deeply: expected at most 24 levels of nesting
    deep dashes: nested too deeply: expected at most 24 levels of nesting
    many keys: `k0` is not a key of the file: expected one of version, on, apps, environments, notify
    many apps: `apps` has 5000 keys: expected at most 100
    many items: the file expands to more than 50000 values: expected fewer values, or fewer uses of aliases
    one long key: this is not YAML: mapping values are not allowed in this context: expected quotes around a text that contains `: `, or less indentation
    one long value: `vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv…` has 200000 bytes, more than 65536: expected a shell command
    a text of zeros: the character U+0000 cannot be seen: expected text without control characters; inside double quotes they can be written as \x07
    a hidden zero: `a�b` contains the control character U+0000: expected a shell command
    an escape: the character U+001B cannot be seen: expected text without control characters; inside double quotes they can be written as \x07
    question marks: nested too deeply: expected at most 24 levels of nesting
    anchors: this is not YAML: did not find expected <document start>: expected well-formed YAML
    quotes: this is not YAML: invalid trailing content after double-quoted scalar: expected well-formed YAML
    directives: this is not YAML: duplicate version directive: expected well-formed YAML
    tags: this is not YAML: while parsing a tag, did not find expected tag URI: expected well-formed YAML
    "#);
}

#[test]
fn a_thousand_mistakes_are_cut_and_counted() {
    let keys: String = (0..1000).map(|i| format!("unknown{i}: 1\n")).collect();
    let mistakes = config::parse(&format!("version: 1\n{keys}")).expect_err("mistakes");
    assert_eq!(mistakes.len(), 51);
    assert_eq!(mistakes[50].message, "there are more mistakes than are shown");
}

#[test]
fn bytes_that_are_no_text() {
    let cases: [(&str, &[u8]); 5] = [
        ("latin-1", b"version: 1\n# gr\xFC\xDFe\n"),
        ("UTF-16", b"\xFF\xFEv\0e\0"),
        ("cut in the middle", b"version: 1\n# \xE2\x82"),
        ("zeros", b"\0\0\0\0"),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03"),
    ];
    let told: String = cases
        .iter()
        .map(|(name, bytes)| {
            let m = &config::parse_bytes(bytes).expect_err("a mistake")[0];
            format!("{name}: {}:{} {}\n", m.line, m.column, m.sentence())
        })
        .collect();
    insta::assert_snapshot!(told, @r#"
    latin-1: 2:5 the file is not UTF-8 from here on: expected a file saved as UTF-8
    UTF-16: 1:1 the file is UTF-16: expected a file saved as UTF-8
    cut in the middle: 2:3 the file is not UTF-8 from here on: expected a file saved as UTF-8
    zeros: 1:1 the character U+0000 cannot be seen: expected text without control characters; inside double quotes they can be written as \x07
    gzip: 1:2 the file is not UTF-8 from here on: expected a file saved as UTF-8
    "#);
    assert!(config::parse_bytes(&vec![0xFF; 10 << 20]).is_err());
    assert!(config::parse_bytes("version: 1".as_bytes()).is_ok());
    assert!(config::parse(&" ".repeat(MAX_FILE)).is_ok());
}

/// Fragments that the grammar knows, so that random files get past the first check.
fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec![
            "version",
            "1",
            "apps",
            "environments",
            "a",
            "b",
            "steps",
            "test",
            "run",
            "deploy",
            "branch",
            "promote_from",
            "switch_after",
            "image_of",
            "timeout",
            "20m",
            "on",
            "push",
            "env",
            "windows",
            "mon-fri 09:00-17:00 UTC",
            ": ",
            ":\n",
            "\n",
            "\n  ",
            "\n    ",
            "\n      ",
            "- ",
            "{",
            "}",
            "[",
            "]",
            ", ",
            "\"",
            "'",
            "|\n",
            ">\n",
            "&x ",
            "*x",
            "!!str ",
            "~",
            "# ",
            "\t",
            "\r\n",
            "---\n",
            "..",
            "/",
            "\\",
            "\u{FEFF}",
            "🦀",
            "<<",
            "? ",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,6}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_breaks_it(parts in proptest::collection::vec(fragment(), 0..60)) {
        let text = parts.concat();
        if let Err(mistakes) = config::parse(&text) {
            prop_assert!(!mistakes.is_empty());
            let lines = text.lines().count().max(1) as u32;
            for mistake in &mistakes {
                prop_assert!(mistake.line >= 1 && mistake.line <= lines + 1 && mistake.column >= 1, "{:?}", mistake);
                prop_assert!(!mistake.message.is_empty());
            }
            prop_assert!(config::render(&mistakes, &text, "f").contains("error: "));
        }
    }

    #[test]
    fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = config::parse_bytes(&bytes);
    }
}

//! `.dockerignore`, by Docker's own rules.

use proptest::prelude::*;
use switchover::image::ignore::Ignore;

/// Each case: patterns, paths that stay, paths that are left out.
#[test]
fn as_docker_does() {
    for (patterns, stays, out) in [
        ("", "a a/b .git/x", ""),
        ("# comment\n  \n\t\n", "a #␣comment", ""),
        ("a", "b b/a aa", "a a/b a/b/c"),
        ("/a/", "b/a", "a a/b"),
        ("./a/../b", "a", "b b/c"),
        ("../x", "y x", ""),
        ("../a2/secret", "a2/secret secret", ""),
        ("a/../../x", "x", ""),
        ("/../x", "y", "x"),
        ("*\n!../x", "", "x"),
        ("*", "", "a a/b .git/x"),
        ("*.md", "docs/README.md", "README.md x.md"),
        ("**/*.md", "a.mdx", "README.md docs/README.md a/b/c.md"),
        ("**/node_modules", "node_modules2/x", "node_modules/x a/node_modules/y a/b/node_modules"),
        ("a/**", "a b", "a/b a/b/c"),
        ("a/**/z", "z b/z", "a/z a/b/z a/b/c/z"),
        ("**", "", "a a/b"),
        ("a**", "b/a", "a ab a/b ab/c"),
        ("**a", "b xa b/xa", "a b/a"),
        ("a?c", "ac a/c abbc", "abc a.c"),
        ("a[b-d]e", "aae afe a/e", "abe ace ade"),
        ("a[^b-d]e", "abe", "aae afe"),
        (r"a\*b", "axb", "a*b"),
        (r"a[\]]b", "ab", "a]b"),
        ("a.b+(c)", "axb+(c) a.bb(c)", "a.b+(c)"),
        ("a{b,c}$|^", "ab", "a{b,c}$|^"),
        ("*\n!README.md", "README.md", "a docs/README.md"),
        ("*.md\n!README*.md\nREADME-secret.md", "README.md README-x.md", "a.md README-secret.md"),
        ("*.md\nREADME-secret.md\n!README*.md", "README.md README-secret.md", "a.md"),
        ("docs\n!docs/keep", "docs/keep docs/keep/x", "docs/a docs/b/keep"),
        ("docs\n!**/keep", "docs/keep docs/a/keep", "docs/a"),
        ("*\n!src\n!pom.xml\nsrc/test", "src src/main/A.java pom.xml", "target/x src/test src/test/A.java"),
        ("! a\nb", "a", "b"),
        ("ünï*", "uni", "ünïx ünï/x"),
        ("\u{FEFF}a\r\nb\r\n", "c", "a b"),
        (" a \n b", "", "a b"),
        ("a b", "a b/c", "a␣b a␣b/c"),
    ] {
        let ignore = Ignore::read(patterns).unwrap_or_else(|e| panic!("{patterns:?}: {e:?}"));
        for (paths, left_out) in [(stays, false), (out, true)] {
            for path in paths.split(' ').filter(|p| !p.is_empty()) {
                let path = path.replace('␣', " ");
                assert_eq!(ignore.leaves_out(&path), left_out, "{patterns:?} and {path:?}");
            }
        }
    }
}

#[test]
fn mistakes_have_a_line() {
    let mut all = String::new();
    for text in ["a\n[", "a[b", "a[]", "[z-a]", "!", "a\n! \n", "a\\", "[a-", &"x\n".repeat(6000)] {
        let (line, why) = Ignore::read(text).expect_err(text);
        all.push_str(&format!("{line}: {why}\n"));
    }
    insta::assert_snapshot!(all, @r"
    2: a `[` is not closed
    1: a `[` is not closed
    1: `[]` fits nothing
    1: a range in `[…]` goes from a lower to a higher character
    1: `!` needs a pattern behind it
    2: `!` needs a pattern behind it
    1: a `\` needs a character behind it
    1: a `[` is not closed
    5001: more than 5000 patterns
    ");
}

/// The rules once more, written as slowly as they read.
mod model {
    pub fn leaves_out(patterns: &[(bool, Vec<String>)], path: &[&str]) -> bool {
        let mut out = false;
        for (back, pattern) in patterns {
            if (1..=path.len()).any(|n| fits(pattern, &path[..n])) {
                out = !back;
            }
        }
        out
    }

    fn fits(pattern: &[String], path: &[&str]) -> bool {
        match (pattern.split_first(), path.split_first()) {
            (None, None) => true,
            // `**` at the end is anything, but below a folder there must be something.
            (Some((first, [])), _) if first == "**" => !path.is_empty(),
            (Some((first, rest)), _) if first == "**" => (0..=path.len()).any(|n| fits(rest, &path[n..])),
            (Some((first, rest)), Some((name, below))) => word(first.as_bytes(), name.as_bytes()) && fits(rest, below),
            _ => false,
        }
    }

    fn word(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => (0..=name.len()).any(|n| word(rest, &name[n..])),
            (Some((b'?', rest)), Some((_, below))) => word(rest, below),
            (Some((p, rest)), Some((c, below))) => p == c && word(rest, below),
            _ => false,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_model_agrees(
        patterns in proptest::collection::vec((any::<bool>(), proptest::collection::vec("\\*\\*|[ab]|\\*|a\\*|\\*b|\\?|a\\?", 1..4)), 0..5),
        path in proptest::collection::vec("[ab]{1,2}", 1..5),
    ) {
        let text: Vec<String> = patterns.iter().map(|(back, p)| format!("{}{}", if *back { "!" } else { "" }, p.join("/"))).collect();
        let ignore = Ignore::read(&text.join("\n")).unwrap();
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        prop_assert_eq!(ignore.leaves_out(&path.join("/")), model::leaves_out(&patterns, &parts), "{:?}", text);
    }

    #[test]
    fn nothing_breaks_it(text in "([!*?\\[\\]^ab/\\\\. \n#-]|\\PC){0,60}", path in "([ab/.]|\\PC){0,20}") {
        if let Ok(ignore) = Ignore::read(&text) {
            let _ = ignore.leaves_out(&path);
        }
    }
}

#[test]
fn no_pattern_takes_for_ever() {
    let ignore = Ignore::read(&format!("{}b", "**/a*/".repeat(200))).unwrap();
    assert!(!ignore.leaves_out(&"aaaa/".repeat(200)));
}

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use proptest::prelude::*;
use switchover::{
    domain::run::{Outcome, StepEnd},
    report::{and_check, redact::Redactor, step_check},
};

use super::{done, failing_tests, job, run};

const SECRET: &str = "hunter2&co/+ \"q\"_x";

#[test]
fn a_secret_is_found_in_every_form_that_tools_print() {
    let redactor = Redactor::new([SECRET]);
    let basic = |user: &str| STANDARD.encode(format!("{user}:{SECRET}@host"));
    for text in [
        SECRET.to_owned(),
        STANDARD.encode(SECRET),
        URL_SAFE_NO_PAD.encode(SECRET),
        "hunter2%26co%2F%2B%20%22q%22_x".to_owned(),
        "hunter2%26co%2f%2b%20%22q%22_x".to_owned(),
        "hunter2%26co%2F%2B+%22q%22_x".to_owned(),
        serde_json::to_string(SECRET).expect("a string"),
    ] {
        let out = redactor.text(&format!("before {text} after"));
        assert!(out.contains("***") && !out.contains("unter2") && !out.contains(&text), "{text}: {out}");
        assert!(out.starts_with("before ") && out.ends_with(" after"), "{out}");
    }
    for user in ["a", "ab", "abc"] {
        let encoded = basic(user);
        let out = redactor.text(&encoded);
        // What is left on both sides is the beginning and the end, which the secret alone does not decide.
        assert!(out.contains("***") && out.len() < encoded.len() / 2, "{encoded}: {out}");
    }
}

#[test]
fn each_line_of_a_long_secret_counts_and_short_ones_do_not() {
    let redactor = Redactor::new(["first line\nx\nsecond line\n", "abc", "  "]);
    assert_eq!(redactor.text("x: second line, first line, abc"), "x: ***, ***, abc");
    let joined = Redactor::new(["ab\ncd"]);
    assert_eq!(joined.text("ab\ncd"), "***");
    assert_eq!(joined.text("ab, cd"), "ab, cd");
}

#[test]
fn overlapping_secrets_leave_no_part() {
    assert_eq!(Redactor::new(["abcdef", "defghi"]).text("xabcdefghix"), "x***x");
    assert_eq!(Redactor::new(["aaaa"]).text("aaaaaaa"), "***");
    let stars = Redactor::new(["pass*word"]);
    assert_eq!(stars.text("a pass*word"), "a •••");
}

#[test]
fn tokens_are_known_by_their_shape() {
    let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiIxMjMifQ.c2lnbmF0dXJl";
    let long = "a1B2".repeat(9);
    for (text, want) in [
        (format!("token ghp_{long}!"), "token ***!".to_owned()),
        (format!("ghs_123456_{jwt}, x"), "***, x".to_owned()),
        (format!("github_pat_11AAAA_{long}"), "***".to_owned()),
        (format!("Authorization: Bearer {jwt}"), "Authorization: Bearer ***".to_owned()),
        ("id=AKIAIOSFODNN7EXAMPLE;".to_owned(), "id=***;".to_owned()),
        ("https://bob:s3cr:e@t@host/x".to_owned(), "https://bob:***@host/x".to_owned()),
        (format!("https://ghs_{long}:x@host"), "https://***:***@host".to_owned()),
        ("https://hooks.slack.com/services/T0/B0/abcdef".to_owned(), "https://hooks.slack.com/services/***".to_owned()),
        ("xoxb-12345678-abc".to_owned(), "***".to_owned()),
        // These only look a little like one.
        ("weighs_something_quite_long_indeed_here".to_owned(), "weighs_something_quite_long_indeed_here".to_owned()),
        (
            "git@github.com:acme/shop ssh://git@host/x".to_owned(),
            "git@github.com:acme/shop ssh://git@host/x".to_owned(),
        ),
        ("AKIAIOSFODNN7EXAMPLEx and eyJ.x.y".to_owned(), "AKIAIOSFODNN7EXAMPLEx and eyJ.x.y".to_owned()),
    ] {
        assert_eq!(Redactor::default().text(&text), want);
    }
    let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEAzzzz\nabcd==\n-----END RSA PRIVATE KEY-----";
    assert_eq!(Redactor::default().text(&format!("a\n{key}\nb")), "a\n***\nb");
    let open = "-----BEGIN PRIVATE KEY-----\nMIIEpAIBAAKCAQEAzzzzMIIEpAIBAAKCAQEA\nxyz=\nTests run: 3\n";
    assert_eq!(Redactor::default().text(open), "***\nTests run: 3\n");
    let public = "-----BEGIN CERTIFICATE-----\nMIIEpAIBAAKCAQEAzzzz\n-----END CERTIFICATE-----";
    assert_eq!(Redactor::default().text(public), public);
}

#[test]
fn a_stream_gives_whole_lines_at_once_and_holds_only_what_may_be_secret() {
    let redactor = Redactor::new(["topsecret", "line one\nline two"]);
    let mut stream = redactor.stream();
    assert_eq!(stream.push(b"hello\ntop"), "hello\n");
    assert_eq!(stream.push(b"secret and more"), "");
    assert_eq!(stream.push("\n\u{e9}".as_bytes()), "*** and more\n");
    assert_eq!(stream.push(&[0xff, 0xc3]), "");
    assert_eq!(stream.push(&[0xa9, b'\n']), "é\u{fffd}é\n");
    assert_eq!(stream.push(b"-----BEGIN PRIVATE KEY-----\nMIIE\n"), "");
    assert_eq!(stream.push(b"abcd\n-----END PRIVATE KEY-----\nok\n"), "***\nok\n");
    assert_eq!(stream.push(b"no newline topsecret"), "");
    assert_eq!(stream.finish(), "no newline ***");
}

#[test]
fn a_stream_stays_small_whatever_it_is_fed() {
    let redactor = Redactor::new(["topsecret"]);
    for piece in ["ghs_aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "aaaaaaaa", "-----BEGIN PRIVATE KEY-----\n", "://a:b"] {
        let mut stream = redactor.stream();
        let chunk = piece.repeat(8192 / piece.len());
        let (mut fed, mut given) = (0usize, 0usize);
        let mut masked = 0usize;
        for _ in 0..100 {
            fed += chunk.len();
            let out = stream.push(chunk.as_bytes());
            masked += out.matches("***").count();
            given += out.len();
        }
        // Masked text is shorter than what was fed: then at least something was given out.
        assert!(given + 400_000 > fed || masked > 0, "{piece}: {given} of {fed}");
    }
}

#[test]
fn views_and_checks_show_no_secret() {
    let redactor = Redactor::new(["s3cr_t*value"]);
    let mut step = failing_tests();
    step.note = Some("s3cr_t*value".into());
    for report in [&mut step.report, &mut step.base_report].into_iter().flatten() {
        report.problems = vec!["s3cr_t*value is no number".into()];
        report.cases[0].name = "s3cr_t*value".into();
        report.cases[0].message = Some("got s3cr_t*value".into());
        report.cases[0].trace = Some(format!("{}s3cr_t*value", "x\n".repeat(50)));
    }
    let mut broken = done(12, "build", Outcome::Failure, StepEnd::NotStarted("no s3cr_t*value".into()));
    broken.last_lines = vec!["export X=s3cr_t*value".into()];
    let mut view = run(vec![job("backend", vec![step, broken])]);
    view.message = "s3cr_t*value".into();
    view.branch = "s3cr_t*value".into();
    view.notes = vec!["s3cr_t*value".into()];
    let shown = |view: &switchover::report::view::RunView| {
        let job = &view.jobs[0];
        let checks = vec![
            step_check(view, job, &job.steps[0]),
            step_check(view, job, &job.steps[1]),
            and_check(&view.head_sha, std::slice::from_ref(view)),
        ];
        let messages = switchover::report::run_messages(view);
        (checks, messages)
    };
    let (mut checks, _) = shown(&view);
    let bare = |text: &str| text.contains("s3cr_t*value") || text.contains("s3cr\\_t\\*value");
    assert!(bare(&format!("{checks:?}").replace("\\\\", "\\")));
    for check in &mut checks {
        redactor.check(check);
    }
    assert!(!bare(&format!("{checks:?}").replace("\\\\", "\\")), "the last net");
    redactor.run(&mut view);
    let (checks, messages) = shown(&view);
    assert!(!bare(&format!("{checks:?}{messages:?}").replace("\\\\", "\\")), "the views");
    assert_eq!(format!("{redactor:?}"), "Redactor(…)");
}

proptest! {
    #[test]
    fn a_secret_never_survives(
        secrets in prop::collection::vec("[ab*é\n\"%]{1,9}", 1..4),
        pieces in prop::collection::vec((0usize..6, "[ab*é\n\"% ]{0,6}"), 0..12),
    ) {
        let mut text = String::new();
        for (pick, between) in &pieces {
            text.push_str(secrets.get(*pick).map_or("", String::as_str));
            text.push_str(between);
        }
        let redactor = Redactor::new(&secrets);
        let out = redactor.text(&text);
        for secret in &secrets {
            for part in std::iter::once(secret.trim()).chain(secret.lines().map(str::trim)) {
                prop_assert!(part.len() < 4 || !out.contains(part), "{part:?} in {out:?}");
            }
        }
        prop_assert_eq!(redactor.text(&out), out);
    }

    #[test]
    fn base64_around_a_secret_does_not_carry_it(before in "[a-z:]{0,7}", secret in "[a-zA-Z0-9]{8,40}", after in "[a-z]{0,7}") {
        let encoded = STANDARD.encode(format!("{before}{secret}{after}"));
        let out = Redactor::new([&secret]).text(&encoded);
        prop_assert!(out.contains("***"), "{encoded} {out}");
        let left = out.chars().filter(|c| *c != '*').count();
        let outside = before.len() + after.len();
        prop_assert!(left <= (outside * 4).div_ceil(3) + 8, "{encoded} {out}");
    }

    #[test]
    fn a_secret_never_survives_a_stream(
        secrets in prop::collection::vec("[abc\n]{4,9}", 1..4),
        pieces in prop::collection::vec((0usize..6, "[abcé\n ]{0,6}"), 0..12),
        cuts in prop::collection::vec(1usize..7, 1..20),
    ) {
        let mut text = String::new();
        for (pick, between) in &pieces {
            text.push_str(secrets.get(*pick).map_or("", String::as_str));
            text.push_str(between);
        }
        let redactor = Redactor::new(&secrets);
        let mut stream = redactor.stream();
        let mut out = String::new();
        let mut rest = text.as_bytes();
        let mut sizes = cuts.iter().cycle();
        while !rest.is_empty() {
            let size = (*sizes.next().expect("endless")).min(rest.len());
            out.push_str(&stream.push(&rest[..size]));
            rest = &rest[size..];
        }
        out.push_str(&stream.finish());
        // Marks may stand side by side where one would do; otherwise it is what the whole text gives.
        let mut one_mark = out;
        while one_mark.contains("******") {
            one_mark = one_mark.replace("******", "***");
        }
        prop_assert_eq!(one_mark, redactor.text(&text));
    }
}

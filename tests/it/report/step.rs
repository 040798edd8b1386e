use insta::assert_snapshot;
use switchover::{
    domain::{
        check::{CheckRun, CheckStatus, Conclusion},
        run::{Outcome, StepEnd, TestState},
    },
    report::{conclusion, follow, step_check, view::StepView},
};

use super::{at, case, done, ended, failed_case, failing_tests, job, passed, pointer, queued, report, run, running};

fn check(step: StepView) -> CheckRun {
    let outcome = step.outcome.unwrap_or(Outcome::Success);
    let view = ended(vec![job("backend", vec![step])], outcome);
    step_check(&view, &view.jobs[0], &view.jobs[0].steps[0])
}

#[test]
fn failed_tests_stand_in_title_summary_text_and_on_their_lines() {
    let check = check(failing_tests());
    assert_eq!(check.name, "backend / test (pull_request)");
    assert_eq!(check.conclusion, Some(Conclusion::Failure));
    assert_eq!((check.started_at, check.completed_at), (Some(at(2)), Some(at(36))));
    assert_snapshot!(check.title, @"118 passed, 2 failed, 1 flaky in 34 s");
    assert_snapshot!(check.summary, @r#"
    **118 passed, 2 failed, 1 flaky in 34 s**

    Commit [`0123456`](https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a) of `feature/cart`, merged into `main` ([`bbbbbbb`](https://github.example/acme/shop/commit/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb)) ([pull request 12](https://github.example/acme/shop/pull/12)).

    ### Newly failing: fail here, not on the base

    - `shop.CartTest › sums` at [`backend/src/CartTest.java:31`](https://github.example/acme/shop/blob/0123456789abcdef0123456789abcdef0123456a/backend/src/CartTest.java#L31): expected 3 but was 4

    ### Newly fixed: failed on the base

    - `shop.CartTest › was broken` at [`backend/src/CartTest.java:60`](https://github.example/acme/shop/blob/0123456789abcdef0123456789abcdef0123456a/backend/src/CartTest.java#L60): expected 3 but was 4

    ### Failed

    - `shop.CartTest › sums` at [`backend/src/CartTest.java:31`](https://github.example/acme/shop/blob/0123456789abcdef0123456789abcdef0123456a/backend/src/CartTest.java#L31): expected 3 but was 4
    - `shop.CartTest › rounds` at [`backend/src/CartTest.java:44`](https://github.example/acme/shop/blob/0123456789abcdef0123456789abcdef0123456a/backend/src/CartTest.java#L44): expected 3 but was 4

    ### Flaky: failed first, then held

    - `shop.MailTest › sends`

    ### Slowest

    - 12 s `shop.SlowTest › waits`
    - 1.3 s `shop.MailTest › sends`
    - 200 ms `shop.CartTest › rounds`
    - 200 ms `shop.CartTest › sums`

    CPU time 1 m 2 s, peak memory 512 MiB.

    [The whole log](https://ci.example/steps/11). To run it again, press **Re-run**.
    "#);
    assert_snapshot!(check.text.as_deref().unwrap_or_default(), @r#"
    **shop.CartTest › sums**

    ```text
    AssertionError: expected 3 but was 4
      at CartTest.sums(CartTest.java:31)
    ```

    **shop.CartTest › rounds**

    ```text
    AssertionError: expected 3 but was 4
      at CartTest.rounds(CartTest.java:44)
    ```
    "#);
    assert_snapshot!(serde_json::to_string_pretty(&check.annotations).expect("json"), @r#"
    [
      {
        "path": "backend/src/CartTest.java",
        "start_line": 31,
        "end_line": 31,
        "level": "failure",
        "message": "expected 3 but was 4",
        "title": "shop.CartTest › sums",
        "raw_details": "AssertionError: expected 3 but was 4\n  at CartTest.sums(CartTest.java:31)"
      },
      {
        "path": "backend/src/CartTest.java",
        "start_line": 44,
        "end_line": 44,
        "level": "failure",
        "message": "expected 3 but was 4",
        "title": "shop.CartTest › rounds",
        "raw_details": "AssertionError: expected 3 but was 4\n  at CartTest.rounds(CartTest.java:44)"
      }
    ]
    "#);
}

#[test]
fn a_log_without_a_report_shows_its_last_lines() {
    let mut step = done(3, "lint", Outcome::Failure, StepEnd::Exited(2));
    step.last_lines = vec!["\u{1b}[31merror\u{1b}[0m: no".into(), "```".into(), "@alice #1".into()];
    let shown = check(step);
    assert_snapshot!(shown.title, @"Exit code 2 after 34 s");
    assert_snapshot!(shown.summary, @r#"
    **Exit code 2 after 34 s**

    Commit [`0123456`](https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a) of `feature/cart`, merged into `main` ([`bbbbbbb`](https://github.example/acme/shop/commit/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb)) ([pull request 12](https://github.example/acme/shop/pull/12)).

    CPU time 1 m 2 s, peak memory 512 MiB.

    ### Last lines

    ````text
    error: no
    ```
    @alice #1
    ````

    [The whole log](https://ci.example/steps/3). To run it again, press **Re-run**.
    "#);
    assert_eq!(shown.text, None);
}

#[test]
fn titles_say_how_each_step_stands() {
    let with_tests = |mut step: StepView| {
        step.report = Some(report(vec![]));
        step
    };
    let steps = vec![
        queued(1, "a"),
        StepView { attempt: 2, ..running(2, "b") },
        passed(3, "c"),
        with_tests(passed(4, "d")),
        done(5, "e", Outcome::Failure, StepEnd::Exited(2)),
        with_tests(done(6, "f", Outcome::Failure, StepEnd::Exited(1))),
        done(7, "g", Outcome::Failure, StepEnd::Signalled(9)),
        done(8, "h", Outcome::Failure, StepEnd::NotStarted("sh: not found".into())),
        with_tests(done(9, "i", Outcome::TimedOut, StepEnd::TimedOut)),
        done(10, "j", Outcome::Cancelled, StepEnd::Cancelled),
        StepView { result: None, started: None, ..done(11, "k", Outcome::Skipped, StepEnd::Exited(0)) },
        done(12, "l", Outcome::Superseded, StepEnd::Cancelled),
        done(13, "m", Outcome::Infrastructure, StepEnd::Exited(0)),
        StepView { reused: Some(pointer('e')), ..with_tests(passed(14, "n")) },
        StepView { outcome: None, ..passed(15, "o") },
    ];
    let view = ended(vec![job("backend", steps)], Outcome::Failure);
    let lines: Vec<String> = view.jobs[0]
        .steps
        .iter()
        .map(|step| {
            let check = step_check(&view, &view.jobs[0], step);
            assert_eq!(check.status == CheckStatus::Completed, check.conclusion.is_some());
            assert_eq!(check.status == CheckStatus::Completed, check.completed_at.is_some());
            let word = check.conclusion.map_or("-", Conclusion::as_str);
            format!("{} | {word} | {}", check.name, check.title)
        })
        .collect();
    assert_snapshot!(lines.join("\n"), @r#"
    backend / a (pull_request) | - | Queued
    backend / b (pull_request) | - | Running, attempt 2
    backend / c (pull_request) | success | Passed in 34 s
    backend / d (pull_request) | success | 118 passed in 34 s
    backend / e (pull_request) | failure | Exit code 2 after 34 s
    backend / f (pull_request) | failure | 118 passed, but exit code 1 after 34 s
    backend / g (pull_request) | failure | Killed by signal 9 after 34 s
    backend / h (pull_request) | failure | Could not be started: sh: not found
    backend / i (pull_request) | timed_out | Timed out after 34 s; 118 passed until then
    backend / j (pull_request) | cancelled | Cancelled after 34 s
    backend / k (pull_request) | cancelled | Not run: e failed
    backend / l (pull_request) | cancelled | Superseded by a newer commit
    backend / m (pull_request) | cancelled | Not the commit's fault: could not be run to its end
    backend / n (pull_request) | success | 118 passed, unchanged since eeeeeee
    backend / o (pull_request) | - | Running
    "#);
    // Where no earlier step is to blame, its note is.
    let never = StepView { note: Some("no folder `x`".into()), started: None, ..view.jobs[0].steps[10].clone() };
    let alone = ended(vec![job("backend", vec![never])], Outcome::Failure);
    let check = step_check(&alone, &alone.jobs[0], &alone.jobs[0].steps[0]);
    assert_eq!(check.title, "Not run: no folder `x`");
    assert!(check.summary.ends_with("- no folder \\`x\\`\n\nTo run it again, press **Re-run**."), "{}", check.summary);
}

#[test]
fn what_did_not_run_is_explained_and_never_counts_as_passed() {
    let mut reused = failing_tests();
    reused.outcome = Some(Outcome::Success);
    reused.reused = Some(pointer('e'));
    let mut broken = done(13, "test", Outcome::Infrastructure, StepEnd::NotStarted("disk full".into()));
    broken.note = Some("the disk of the server is full".into());
    let lint = done(1, "lint", Outcome::Failure, StepEnd::Exited(2));
    let skipped = StepView { result: None, started: None, ..done(2, "build", Outcome::Skipped, StepEnd::Exited(0)) };
    let view = ended(vec![job("backend", vec![lint, skipped])], Outcome::Failure);
    let mut newer = ended(
        vec![job("backend", vec![done(4, "test", Outcome::Superseded, StepEnd::Cancelled)])],
        Outcome::Superseded,
    );
    newer.superseded_by = Some(pointer('f'));
    let text = [
        check(reused),
        check(broken),
        check(done(5, "test", Outcome::TimedOut, StepEnd::TimedOut)),
        step_check(&view, &view.jobs[0], &view.jobs[0].steps[1]),
        step_check(&newer, &newer.jobs[0], &newer.jobs[0].steps[0]),
    ]
    .map(|c| format!("{}: {}\n{}", c.conclusion.map_or("-", Conclusion::as_str), c.title, c.summary))
    .join("\n\n=====\n");
    assert_snapshot!(text, @r#"
    success: 118 passed, 2 failed, 1 flaky, unchanged since eeeeeee
    **118 passed, 2 failed, 1 flaky, unchanged since eeeeeee**

    Commit [`0123456`](https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a) of `feature/cart`, merged into `main` ([`bbbbbbb`](https://github.example/acme/shop/commit/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb)) ([pull request 12](https://github.example/acme/shop/pull/12)).

    Nothing that `backend` is made of changed since [`eeeeeee`](https://github.example/acme/shop/commit/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee) was tested (files, commands, toolchain), so it was not run again: this is the result of [that run](https://ci.example/runs/e).

    ### Slowest

    - 12 s `shop.SlowTest › waits`
    - 1.3 s `shop.MailTest › sends`
    - 200 ms `shop.CartTest › rounds`
    - 200 ms `shop.CartTest › sums`

    To run it again, press **Re-run**.

    =====
    cancelled: Not the commit's fault: could not be run to its end
    **Not the commit's fault: could not be run to its end**

    Commit [`0123456`](https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a) of `feature/cart`, merged into `main` ([`bbbbbbb`](https://github.example/acme/shop/commit/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb)) ([pull request 12](https://github.example/acme/shop/pull/12)).

    Something broke on the machine, also when it was tried again. The commit did not fail, but it was not tested either, so this check does not count as passed.

    - the disk of the server is full

    [The whole log](https://ci.example/steps/13). To run it again, press **Re-run**.

    =====
    timed_out: Timed out after 34 s
    **Timed out after 34 s**

    Commit [`0123456`](https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a) of `feature/cart`, merged into `main` ([`bbbbbbb`](https://github.example/acme/shop/commit/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb)) ([pull request 12](https://github.example/acme/shop/pull/12)).

    It was stopped (TERM, a grace time, then KILL of all its processes). If it needs longer, say so: `timeout:` of this step in `.github/switchover.yml`.

    CPU time 1 m 2 s, peak memory 512 MiB.

    [The whole log](https://ci.example/steps/5). To run it again, press **Re-run**.

    =====
    cancelled: Not run: lint failed
    **Not run: lint failed**

    Commit [`0123456`](https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a) of `feature/cart`, merged into `main` ([`bbbbbbb`](https://github.example/acme/shop/commit/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb)) ([pull request 12](https://github.example/acme/shop/pull/12)).

    Steps of an app run in order, and `lint` came before it: [Exit code 2 after 34 s](https://ci.example/steps/1).

    To run it again, press **Re-run**.

    =====
    cancelled: Superseded by fffffff
    **Superseded by fffffff**

    Commit [`0123456`](https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a) of `feature/cart`, merged into `main` ([`bbbbbbb`](https://github.example/acme/shop/commit/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb)) ([pull request 12](https://github.example/acme/shop/pull/12)).

    A newer commit took its place: [the run of `fffffff`](https://ci.example/runs/f).

    CPU time 1 m 2 s, peak memory 512 MiB.

    [The whole log](https://ci.example/steps/4).
    "#);
    for outcome in [
        Outcome::Failure,
        Outcome::TimedOut,
        Outcome::Cancelled,
        Outcome::Superseded,
        Outcome::Skipped,
        Outcome::Infrastructure,
        Outcome::ActionRequired,
    ] {
        let told = conclusion(outcome);
        // "About protected branches": these three let a merge through.
        assert!(!matches!(told, Conclusion::Success | Conclusion::Neutral | Conclusion::Skipped), "{outcome:?}");
    }
}

#[test]
fn nothing_is_said_about_the_base_that_cannot_be_told() {
    // The base has more failures than are kept.
    let mut many = failing_tests();
    many.base_report.as_mut().expect("set").failed = 900;
    let summary = check(many).summary;
    assert!(summary.contains("Too many tests failed") && !summary.contains("Newly"), "{summary}");
    // Killed in the middle: the missing tests are not fixed.
    let mut killed = failing_tests();
    killed.outcome = Some(Outcome::TimedOut);
    assert!(!check(killed).summary.contains("Newly"));
    let mut unread = failing_tests();
    unread.report.as_mut().expect("set").problems = vec!["TEST-x.xml: ends in the middle".into()];
    let summary = check(unread).summary;
    assert!(!summary.contains("Newly") && summary.contains("- TEST-x.xml: ends in the middle"), "{summary}");
}

#[test]
fn annotations_are_limited_and_new_failures_come_first() {
    let mut step = failing_tests();
    let mut cases: Vec<_> = (1..=80).map(|n| failed_case(&format!("t{n}"), n)).collect();
    cases.push(failed_case("fresh", 999));
    cases.push(failed_case("outside", 1));
    cases[81].location = Some(("../../etc/passwd".into(), 1));
    cases.push(case("s", "unplaced", TestState::Failed, 0.0));
    step.base_report = Some(report(cases[..80].to_vec()));
    step.report = Some(report(cases));
    let check = check(step);
    assert_eq!(check.annotations.len(), 50);
    assert_eq!(check.annotations[0].start_line, 999);
    assert_eq!(check.annotations[0].path, "backend/src/CartTest.java");
    assert!(check.annotations.iter().all(|a| !a.path.contains("..")));
    assert!(check.summary.contains("The first 50 of 83 tests stand on their lines."), "{}", check.summary);
}

#[test]
fn a_completed_check_is_never_opened_again_nor_annotated_twice() {
    let view = run(vec![job("backend", vec![running(11, "test")])]);
    let going = step_check(&view, &view.jobs[0], &view.jobs[0].steps[0]);
    let over = check(failing_tests());
    assert_eq!(going.external_id, over.external_id);
    assert!(going.annotations.is_empty(), "annotations come once, with the end");
    assert_eq!(follow(None, going.clone()).external_id, going.external_id);
    assert_eq!(follow(Some(&going), over.clone()).external_id, going.external_id);
    assert_eq!(follow(Some(&over), over.clone()).external_id, over.external_id);
    let again = follow(Some(&over), going.clone());
    assert_eq!(again.external_id, format!("{}#2", going.external_id));
    assert_eq!(follow(Some(&again), going.clone()).external_id, again.external_id);
    let over_again = follow(Some(&again), over.clone());
    assert_eq!(over_again.external_id, again.external_id);
    let mut other = over.clone();
    other.annotations.pop();
    assert_eq!(follow(Some(&over_again), other).external_id, format!("{}#3", going.external_id));
}

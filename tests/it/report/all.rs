use insta::assert_snapshot;
use switchover::{
    domain::{
        check::{CheckRun, CheckStatus, Conclusion},
        ids::RunId,
        run::{Context, Outcome, StepEnd, Trust},
    },
    report::{
        and_check, told,
        view::{MistakeView, Pointer, RunView, StepView},
    },
};
use uuid::Uuid;

use super::{at, done, ended, failing_tests, job, passed, pointer, queued, run, running};

fn of(runs: &[RunView]) -> CheckRun {
    let check = and_check(&runs[0].head_sha, runs);
    assert_eq!(check.name, "switchover");
    assert_eq!(check.status == CheckStatus::Completed, check.conclusion.is_some());
    assert_eq!(check.status == CheckStatus::Completed, check.completed_at.is_some());
    check
}

fn shown(check: &CheckRun) -> String {
    let word = check.conclusion.map_or("-", Conclusion::as_str);
    format!("{:?} {word}: {}\n\n{}", check.status, check.title, check.summary)
}

fn pushed(run: RunView) -> RunView {
    RunView { id: RunId(Uuid::from_u128(2)), context: Context::Push, pull: None, ..run }
}

fn green() -> RunView {
    ended(vec![job("backend", vec![passed(1, "test"), passed(2, "build")])], Outcome::Success)
}

#[test]
fn green_is_the_and_of_every_context() {
    let mut with_notes = green();
    with_notes.notes = vec!["The app backend was found by backend/Cargo.toml.".into()];
    assert_snapshot!(shown(&of(&[with_notes.clone(), pushed(with_notes)])), @r#"
    Completed success: 4 checks passed in 2 m 10 s

    **4 checks passed in 2 m 10 s**

    Commit [`0123456`](https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a) as pushed to `feature/cart`.

    Commit [`0123456`](https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a) of `feature/cart`, merged into `main` ([`bbbbbbb`](https://github.example/acme/shop/commit/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb)) ([pull request 12](https://github.example/acme/shop/pull/12)).

    | Check | State | Result |
    | --- | --- | --- |
    | [backend / test (push)](https://ci.example/steps/1) | ✓ passed | Passed in 34 s |
    | [backend / build (push)](https://ci.example/steps/2) | ✓ passed | Passed in 34 s |
    | [backend / test (pull\_request)](https://ci.example/steps/1) | ✓ passed | Passed in 34 s |
    | [backend / build (pull\_request)](https://ci.example/steps/2) | ✓ passed | Passed in 34 s |

    ### How it was understood

    - The app backend was found by backend/Cargo.toml.

    To run all of it again, press **Re-run**.
    "#);
}

#[test]
fn a_failure_in_any_context_fails_it() {
    let red = ended(vec![job("backend", vec![failing_tests()])], Outcome::Failure);
    assert_snapshot!(shown(&of(&[red, pushed(green())])), @r#"
    Completed failure: 1 of 3 failed: backend / test (pull_request)

    **1 of 3 failed: backend / test (pull\_request)**

    Commit [`0123456`](https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a) as pushed to `feature/cart`.

    Commit [`0123456`](https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a) of `feature/cart`, merged into `main` ([`bbbbbbb`](https://github.example/acme/shop/commit/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb)) ([pull request 12](https://github.example/acme/shop/pull/12)).

    | Check | State | Result |
    | --- | --- | --- |
    | [backend / test (push)](https://ci.example/steps/1) | ✓ passed | Passed in 34 s |
    | [backend / build (push)](https://ci.example/steps/2) | ✓ passed | Passed in 34 s |
    | [backend / test (pull\_request)](https://ci.example/steps/11) | ✗ failed | 118 passed, 2 failed, 1 flaky in 34 s |

    To run all of it again, press **Re-run**; for one app alone, on its own check.
    "#);
}

#[test]
fn what_is_not_done_is_never_green() {
    let going = run(vec![job("backend", vec![passed(1, "test"), running(2, "build")])]);
    let waiting = run(vec![job("backend", vec![queued(1, "test")])]);
    let failed_early = run(vec![
        job("backend", vec![done(1, "test", Outcome::Failure, StepEnd::Exited(1))]),
        job("web", vec![queued(3, "test")]),
    ]);
    let said_green = ended(vec![job("backend", vec![passed(1, "test"), queued(2, "build")])], Outcome::Success);
    let mut skipped = green();
    skipped.jobs[0].steps[1].outcome = Some(Outcome::Skipped);
    let unplanned = run(vec![]);
    let mut parked = run(vec![]);
    parked.trust = Trust::Parked;
    let infrastructure = ended(
        vec![job("backend", vec![done(1, "test", Outcome::Infrastructure, StepEnd::Exited(0))])],
        Outcome::Infrastructure,
    );
    let cases = [
        ("going", vec![going]),
        ("waiting", vec![waiting.clone()]),
        ("one context waits", vec![green(), pushed(waiting.clone())]),
        ("failed early", vec![failed_early]),
        ("said to be green", vec![said_green]),
        ("a step was skipped", vec![skipped]),
        ("unplanned", vec![unplanned]),
        ("parked beside a green push", vec![parked, pushed(green())]),
        ("infrastructure", vec![infrastructure]),
        ("cancelled while queued", vec![RunView { outcome: Some(Outcome::Cancelled), ..waiting }]),
    ];
    let lines: Vec<String> = cases
        .iter()
        .map(|(name, runs)| {
            let check = of(runs);
            assert!(!matches!(check.conclusion, Some(Conclusion::Success | Conclusion::Neutral | Conclusion::Skipped)));
            format!("{name}: {:?} {} | {}", check.status, check.conclusion.map_or("-", Conclusion::as_str), check.title)
        })
        .collect();
    assert_snapshot!(lines.join("\n"), @r#"
    going: InProgress - | 1 of 2 done
    waiting: Queued - | Queued
    one context waits: InProgress - | 2 of 3 done
    failed early: InProgress - | 1 of 2 done, 1 failed
    said to be green: InProgress - | 1 of 2 done
    a step was skipped: Completed cancelled | Cancelled before everything had run
    unplanned: Queued - | Queued
    parked beside a green push: Completed action_required | Waits until somebody approves this commit
    infrastructure: Completed cancelled | Not the commit's fault: could not be run to its end
    cancelled while queued: Completed cancelled | Cancelled before everything had run
    "#);
    let none = and_check(&green().head_sha, &[]);
    assert_eq!((none.status, none.conclusion), (CheckStatus::Queued, None));
}

#[test]
fn mistakes_in_the_configuration_fail_it_at_once_on_their_lines() {
    let mistake = MistakeView {
        file: ".github/switchover.yml".into(),
        line: 4,
        column: 5,
        length: 3,
        message: "unknown key `pth`".into(),
        expected: Some("one of path, steps, image".into()),
        hint: Some("did you mean `path`?".into()),
        source: Some("    pth: backend".into()),
    };
    let mut broken = run(vec![]);
    broken.config_mistakes = vec![mistake];
    let going = pushed(run(vec![job("backend", vec![running(1, "test")])]));
    let check = of(&[broken.clone(), going]);
    assert_snapshot!(shown(&check), @r#"
    Completed failure: 1 mistake in .github/switchover.yml

    **1 mistake in .github/switchover.yml**

    Commit [`0123456`](https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a) as pushed to `feature/cart`.

    Commit [`0123456`](https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a) of `feature/cart`, merged into `main` ([`bbbbbbb`](https://github.example/acme/shop/commit/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb)) ([pull request 12](https://github.example/acme/shop/pull/12)).

    Nothing runs before `.github/switchover.yml` is mended. `switchover check` shows the same for a local checkout.

    ```text
    .github/switchover.yml:4:5: unknown key `pth`
      |
    4 |     pth: backend
      |     ^^^
    expected: one of path, steps, image
    hint: did you mean `path`?
    ```

    | Check | State | Result |
    | --- | --- | --- |
    | [backend / test (push)](https://ci.example/steps/1) | ▸ running | Running |

    To see the same before you push:

    ```
    switchover check
    ```
    "#);
    assert_snapshot!(serde_json::to_string_pretty(&check.annotations).expect("json"), @r#"
    [
      {
        "path": ".github/switchover.yml",
        "start_line": 4,
        "end_line": 4,
        "level": "failure",
        "message": "unknown key `pth`\nExpected: one of path, steps, image\nHint: did you mean `path`?",
        "title": "unknown key `pth`",
        "raw_details": ".github/switchover.yml:4:5: unknown key `pth`\n  |\n4 |     pth: backend\n  |     ^^^\nexpected: one of path, steps, image\nhint: did you mean `path`?"
      }
    ]
    "#);
    // The same mistake seen from two contexts is one.
    assert_eq!(of(&[broken.clone(), pushed(broken)]).annotations.len(), 1);
}

#[test]
fn a_merge_conflict_says_what_to_do() {
    let mut conflict = run(vec![]);
    conflict.test_sha = None;
    conflict.outcome = Some(Outcome::Failure);
    conflict.conflicts = vec!["src/cart.rs".into(), "naïve|name`.md".into()];
    conflict.base_ref = Some("release/it's $(here)".into());
    assert_snapshot!(shown(&of(&[conflict])), @r#"
    Completed failure: Merge conflict in 2 files: nothing was tested

    **Merge conflict in 2 files: nothing was tested**

    Commit [`0123456`](https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a) of `feature/cart`, meant for `release/it's $(here)` ([`bbbbbbb`](https://github.example/acme/shop/commit/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb)) ([pull request 12](https://github.example/acme/shop/pull/12)).

    `feature/cart` and `release/it's $(here)` changed the same places, so there is no merge to test. Merge `release/it's $(here)` into your branch (or rebase), resolve the conflicts and push: the tests then start by themselves.

    ### In conflict

    - `src/cart.rs`
    - naïve&#124;name\`.md

    On your branch:

    ```
    git fetch origin 'release/it'\''s $(here)' && git merge FETCH_HEAD
    ```
    "#);
}

#[test]
fn a_fork_waits_for_a_person() {
    let mut fork = run(vec![]);
    fork.trust = Trust::Parked;
    fork.outcome = Some(Outcome::ActionRequired);
    fork.parked = Some("comes from the fork eve/shop".into());
    assert_snapshot!(shown(&of(&[fork.clone()])), @r#"
    Completed action_required: Waits until somebody approves this commit

    **Waits until somebody approves this commit**

    Commit [`0123456`](https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a) of `feature/cart`, merged into `main` ([`bbbbbbb`](https://github.example/acme/shop/commit/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb)) ([pull request 12](https://github.example/acme/shop/pull/12)). Not the repository's own code: nothing runs before somebody approves it.

    This comes from the fork eve/shop. Nothing of it runs before somebody who may write here, and did not open the pull request, has looked at the change and approves exactly this commit (`0123456789abcdef0123456789abcdef0123456a`). A later push waits again. It never gets a secret.

    To let exactly this commit run, press **Approve and run** on this check.
    "#);
    let buttons = of(&[fork.clone()]).actions;
    assert_eq!(buttons.iter().map(|a| a.identifier.as_str()).collect::<Vec<_>>(), ["ok-to-test"]);
    // "REST API endpoints for check runs": actions.
    assert!(buttons[0].label.len() <= 20 && buttons[0].description.len() <= 40);
    let mut approved = green();
    approved.trust = Trust::Approved(approved.head_sha.clone());
    assert!(of(&[approved]).summary.contains("it runs because `0123456` was approved"));
    fork.outcome = Some(Outcome::Superseded);
    fork.superseded_by = Some(pointer('f'));
    assert_eq!(of(&[fork.clone()]).conclusion, Some(Conclusion::Cancelled));
    assert!(of(&[fork]).actions.is_empty());
}

#[test]
fn what_waits_for_the_operator_has_no_button() {
    let mut own = run(vec![]);
    own.outcome = Some(Outcome::ActionRequired);
    own.parked = Some("Its operator must name the repository, then press Re-run.".into());
    let check = of(&[own]);
    assert_eq!(check.conclusion, Some(Conclusion::ActionRequired));
    assert_eq!(check.title, "Waits for the operator of this server");
    assert!(check.actions.is_empty());
    assert!(
        check.summary.ends_with("\n\nIts operator must name the repository, then press Re-run."),
        "{}",
        check.summary
    );
}

#[test]
fn a_stopped_run_with_a_failed_step_has_failed() {
    let failed = done(1, "test", Outcome::Failure, StepEnd::Exited(1));
    let stopped = StepView { started: None, result: None, ..done(2, "build", Outcome::Cancelled, StepEnd::Cancelled) };
    for outcome in [Outcome::Cancelled, Outcome::Superseded] {
        let run = ended(vec![job("backend", vec![failed.clone(), stopped.clone()])], outcome);
        assert_eq!(of(&[run]).conclusion, Some(Conclusion::Failure));
        assert_eq!(told(outcome, [Outcome::Failure, Outcome::Cancelled]), Outcome::Failure);
        assert_eq!(told(outcome, [Outcome::Success, Outcome::Cancelled]), outcome);
    }
}

#[test]
fn the_time_between_a_push_and_its_pull_request_is_nobodys() {
    let mut later = green();
    later.created_at = at(600);
    later.finished_at = Some(at(660));
    let check = of(&[later, pushed(green())]);
    assert_eq!(check.title, "4 checks passed in 2 m 10 s");
}

#[test]
fn nothing_to_run_is_green_and_says_what_would_change_that() {
    assert_snapshot!(shown(&of(&[ended(vec![], Outcome::Success)])), @r#"
    Completed success: Nothing to run

    **Nothing to run**

    Commit [`0123456`](https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a) of `feature/cart`, merged into `main` ([`bbbbbbb`](https://github.example/acme/shop/commit/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb)) ([pull request 12](https://github.example/acme/shop/pull/12)).

    No app was found that has something to run, so nothing stands against this commit. This check does something as soon as there is a `Cargo.toml`, `pom.xml`, `package.json` or another build file that it knows, or a `.github/switchover.yml` such as

    ```yaml
    version: 1
    apps:
      web:
        path: .
        steps:
          test: {run: make test}
    ```

    To see what would be found in a local checkout:

    ```
    switchover check
    ```
    "#);
}

#[test]
fn a_superseded_run_is_cancelled_unless_its_successor_stands_here_too() {
    let superseded = |by: Pointer| RunView {
        superseded_by: Some(by),
        ..ended(
            vec![job(
                "backend",
                vec![StepView {
                    started: None,
                    result: None,
                    ..done(9, "test", Outcome::Superseded, StepEnd::Cancelled)
                }],
            )],
            Outcome::Superseded,
        )
    };
    assert_snapshot!(shown(&of(&[superseded(pointer('f'))])), @r#"
    Completed cancelled: Superseded by fffffff

    **Superseded by fffffff**

    Commit [`0123456`](https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a) of `feature/cart`, merged into `main` ([`bbbbbbb`](https://github.example/acme/shop/commit/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb)) ([pull request 12](https://github.example/acme/shop/pull/12)).

    | Check | State | Result |
    | --- | --- | --- |
    | [backend / test (pull\_request)](https://ci.example/steps/9) | ⊘ not run | Superseded by fffffff |

    A newer commit took its place (pull_request): [the run of `fffffff`](https://ci.example/runs/f).
    "#);
    let next = RunView { id: RunId(Uuid::from_u128(3)), url: "https://ci.example/runs/3".into(), ..green() };
    let by = Pointer { sha: next.head_sha.clone(), url: next.url.clone() };
    assert_eq!(of(&[superseded(by), next]).conclusion, Some(Conclusion::Success));
}

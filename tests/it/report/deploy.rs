use insta::assert_snapshot;
use switchover::{
    domain::check::{CheckStatus, Conclusion},
    report::{
        deploy_check, deployment,
        view::{HoldView, ReleaseKind, RolloutState, RolloutView},
    },
};

use super::{at, live, phase, rollout};

#[test]
fn a_release_shows_its_line_its_figures_and_what_goes_live() {
    let check = deploy_check(&live());
    assert_eq!(check.name, "deploy (production)");
    assert_eq!(check.conclusion, Some(Conclusion::Success));
    assert_snapshot!(check.title, @"0123456 is live after 9 s, 0 of 12,430 probes failed");
    assert_snapshot!(check.summary, @r#"
    **0123456 is live after 9 s, 0 of 12,430 probes failed**

    Release of [`0123456`](https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a) (Add a cart (#&#8203;12), by Alice) to [`production`](https://shop.example), where [`ccccccc`](https://github.example/acme/shop/commit/cccccccccccccccccccccccccccccccccccccccc) served before. Begun by push to main by alice.

    ```text
    main-ccccccc  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┓ kept warm until 2026-07-01 11:02 UTC
    main-0123456  Prepare 4 s · Warm 3 s · Verify 1 s · Switch 1 s ┗━ Converge 30 s · Watch 2 m ━ live
    ```

    ### Requests

    - **0 of 12,430 probes failed**
    - p99 12 ms before the switch, 13 ms after it
    - 38 ms from the flip to the last answer of the old release
    - 48,211 real requests through the agent: 0 answered with 5xx, 0 cut

    | Phase | Began (UTC) | Took | |
    | --- | --- | --- | --- |
    | Prepare | 10:00:00 | 4 s |  |
    | Warm | 10:00:04 | 3 s |  |
    | Verify | 10:00:07 | 1 s |  |
    | Switch | 10:00:08 | 1 s |  |
    | Converge | 10:00:09 | 30 s |  |
    | Watch | 10:00:39 | 2 m |  |

    | App | Digest | |
    | --- | --- | --- |
    | backend | `sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881` |  |

    ### What goes live

    [2 commits](https://github.example/acme/shop/compare/c...a) by Alice, bob.

    - [pull request 12](https://github.example/acme/shop/pull/12) Cart (alice)

    - [`0123456`](https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a) Add a cart (#&#8203;12) (Alice)
    - [`ddddddd`](https://github.example/acme/shop/commit/dddddddddddddddddddddddddddddddddddddddd) Thank @&#8203;bob &#124; fix (bob)

    [The whole story](https://ci.example/rollouts/7). Press a button of this check, or say on the server:

    ```
    switchover rollback production
    ```
    "#);
}

#[test]
fn what_waits_for_a_yes_is_completed_and_has_buttons() {
    let waiting = RolloutView {
        phases: vec![
            phase("Prepare", 0, Some(4)),
            phase("Warm", 4, Some(7)),
            phase("Verify", 7, Some(8)),
            phase("Wait", 8, None),
        ],
        started_at: Some(at(0)),
        ..rollout(RolloutState::WaitingForApproval)
    };
    let check = deploy_check(&waiting);
    assert_eq!((check.status, check.conclusion), (CheckStatus::Completed, Some(Conclusion::ActionRequired)));
    assert_eq!(check.completed_at, Some(at(8)));
    assert_snapshot!(check.summary, @r#"
    **0123456 waits for somebody to promote it**

    Release of [`0123456`](https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a) (Add a cart (#&#8203;12), by Alice) to [`production`](https://shop.example), where [`ccccccc`](https://github.example/acme/shop/commit/cccccccccccccccccccccccccccccccccccccccc) served before. Begun by push to main by alice.

    The new slot runs, is warm and verified; no user reaches it. Promote it to switch, or cancel it.

    ```text
    main-ccccccc  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ live
    main-0123456  Prepare 4 s · Warm 3 s · Verify 1 s · Wait · waits for a yes
    ```

    | Phase | Began (UTC) | Took | |
    | --- | --- | --- | --- |
    | Prepare | 10:00:00 | 4 s |  |
    | Warm | 10:00:04 | 3 s |  |
    | Verify | 10:00:07 | 1 s |  |
    | Wait | 10:00:08 | … |  |

    | App | Digest | |
    | --- | --- | --- |
    | backend | `sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881` |  |

    [The whole story](https://ci.example/rollouts/7). Press a button of this check, or say on the server:

    ```
    switchover promote production
    switchover cancel production
    ```
    "#);
    // The wait for a person is no work of ours.
    let live = RolloutView {
        phases: vec![phase("Prepare", 0, Some(8)), phase("Wait", 8, Some(3608)), phase("Switch", 3608, Some(3609))],
        switched_at: Some(at(3609)),
        started_at: Some(at(0)),
        ..rollout(RolloutState::Live)
    };
    assert_eq!(deploy_check(&live).title, "0123456 is live after 9 s");
}

#[test]
fn a_release_that_was_taken_back_says_why_and_what_serves() {
    let back = RolloutView {
        phases: vec![
            phase("Prepare", 0, Some(4)),
            phase("Switch", 4, Some(5)),
            phase("Watch", 5, Some(9)),
            phase("RollingBack", 9, Some(10)),
        ],
        switched_at: Some(at(5)),
        started_at: Some(at(0)),
        finished_at: Some(at(10)),
        message: "7 of the last 10 probes failed".into(),
        hold: Some(HoldView { since: at(10), by: "the watch".into(), reason: "7 of the last 10 probes failed".into() }),
        last_lines: vec!["panicked at src/main.rs:3".into()],
        goes_live: None,
        ..live()
    };
    let back = RolloutView { state: RolloutState::RolledBack, ..back };
    let check = deploy_check(&back);
    assert_eq!(check.conclusion, Some(Conclusion::Failure));
    assert!(check.actions.is_empty());
    assert_snapshot!(check.summary, @r#"
    **Taken back: 7 of the last 10 probes failed**

    Release of [`0123456`](https://github.example/acme/shop/commit/0123456789abcdef0123456789abcdef0123456a) (Add a cart (#&#8203;12), by Alice) to [`production`](https://shop.example), where [`ccccccc`](https://github.example/acme/shop/commit/cccccccccccccccccccccccccccccccccccccccc) served before. Begun by push to main by alice.

    [`ccccccc`](https://github.example/acme/shop/commit/cccccccccccccccccccccccccccccccccccccccc) serves again. The environment takes no automatic release before it is resumed.

    ```text
    main-ccccccc  ━━━━━━━━━━━━━━━━━━━━━━━━━┓             ┏━ live
    main-0123456  Prepare 4 s · Switch 1 s ┗━ Watch 4 s ━┛ RollingBack 1 s
    ```

    ### Requests

    - **0 of 12,430 probes failed**
    - p99 12 ms before the switch, 13 ms after it
    - 38 ms from the flip to the last answer of the old release
    - 48,211 real requests through the agent: 0 answered with 5xx, 0 cut

    | Phase | Began (UTC) | Took | |
    | --- | --- | --- | --- |
    | Prepare | 10:00:00 | 4 s |  |
    | Switch | 10:00:04 | 1 s |  |
    | Watch | 10:00:05 | 4 s |  |
    | RollingBack | 10:00:09 | 1 s |  |

    | App | Digest | |
    | --- | --- | --- |
    | backend | `sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881` |  |

    Held since 2026-07-01 10:00 UTC by the watch: 7 of the last 10 probes failed. Automatic releases wait until it is resumed.

    ### Last lines

    ```text
    panicked at src/main.rs:3
    ```

    [The whole story](https://ci.example/rollouts/7). What can be done now on the server:

    ```
    switchover resume production
    ```
    "#);
    // The watch holds nothing: the next commit is most likely the mend.
    let check = deploy_check(&RolloutView { hold: None, ..back });
    assert!(check.summary.contains("serves again. The environment is not held: the next commit is released as usual."));
    assert!(!check.summary.contains("resume"), "{}", check.summary);
}

#[test]
fn each_state_has_its_words_buttons_and_deployment() {
    use RolloutState::{
        Cancelled, Failed, Infrastructure, Live, Queued, Replaced, RolledBack, RollingBack, Running, Stuck, Superseded,
        WaitingForApproval,
    };
    let mut lines = Vec::new();
    for state in [
        Queued,
        Running,
        WaitingForApproval,
        RollingBack,
        Live,
        Replaced,
        RolledBack,
        Failed,
        Cancelled,
        Superseded,
        Infrastructure,
        Stuck,
    ] {
        let view = RolloutView { message: "because".into(), phases: vec![phase("Prepare", 0, None)], ..rollout(state) };
        let check = deploy_check(&view);
        let (_, status) = deployment(&view);
        assert_eq!(check.status == CheckStatus::Completed, check.conclusion.is_some());
        assert!(check.actions.is_empty() || check.status == CheckStatus::Completed);
        for action in &check.actions {
            // "REST API endpoints for check runs": actions.
            assert!(action.label.len() <= 20 && action.identifier.len() <= 20 && action.description.len() <= 40);
        }
        let buttons: Vec<&str> = check.actions.iter().map(|a| a.identifier.as_str()).collect();
        let word = check.conclusion.map_or("-", Conclusion::as_str);
        let end = check.summary.rsplit("```").nth(1).unwrap_or_default().trim().replace('\n', " ; ");
        let end = if check.summary.ends_with("```") { end } else { String::new() };
        lines.push(format!(
            "{state:?} | {word} | {} | {} | {} | {end}",
            status.state.as_str(),
            check.title,
            buttons.join(",")
        ));
    }
    assert_snapshot!(lines.join("\n"), @r#"
    Queued | - | queued | Waits: because |  | switchover cancel production
    Running | - | in_progress | Prepare: because |  | switchover cancel production
    WaitingForApproval | action_required | pending | 0123456 waits for somebody to promote it | promote,cancel | switchover promote production ; switchover cancel production
    RollingBack | - | in_progress | On the way back: because |  | 
    Live | success | success | 0123456 is live | rollback | switchover rollback production
    Replaced | success | inactive | 0123456 was live and has been replaced |  | 
    RolledBack | failure | failure | Taken back: because |  | 
    Failed | failure | failure | Not released: because |  | 
    Cancelled | cancelled | inactive | Called off: because |  | 
    Superseded | cancelled | inactive | A newer release took its place: because |  | 
    Infrastructure | cancelled | error | Not the commit's fault: because |  | 
    Stuck | action_required | error | Stuck: because |  | switchover rollback production
    "#);
}

#[test]
fn a_deployment_names_its_commit_and_calls_nobody() {
    let mut view = live();
    view.commit_message =
        "Thank @bob for #12 and a very long story that goes on and on and on and on and on and on and on and on and on"
            .into();
    let (deployment, status) = deployment(&view);
    assert_snapshot!(deployment.description.replace('\u{200b}', "·"), @"Release of 0123456: Thank @·bob for #·12 and a very long story that goes on and on and on and on and on and on and on and…");
    assert!(deployment.description.chars().count() <= 140 && status.description.chars().count() <= 140);
    assert!(!deployment.description.contains("@b") && !deployment.description.contains("#1"));
    assert_eq!(deployment.key, "rollout/00000000-0000-0000-0000-000000000007");
    assert_eq!(status.environment_url.as_deref(), Some("https://shop.example"));
}

#[test]
fn a_rollback_and_a_first_release_are_worded_as_such() {
    let mut back = live();
    back.kind = ReleaseKind::Rollback;
    assert!(deploy_check(&back).title.contains("is back after 9 s, 0 of 12,430 probes failed"));
    assert!(deploy_check(&back).actions.is_empty(), "the way back from a rollback is a release");
    let mut first = live();
    first.previous = None;
    first.keep_previous_until = None;
    let check = deploy_check(&first);
    assert!(check.actions.is_empty(), "nothing to go back to");
    assert!(check.summary.contains("its first release"));
    let line = check.summary.lines().find(|l| l.starts_with("main-0123456")).unwrap_or_default();
    assert_snapshot!(line, @"main-0123456  Prepare 4 s · Warm 3 s · Verify 1 s · Switch 1 s ┗━ Converge 30 s · Watch 2 m ━ live");
}

#[test]
fn the_line_shows_a_release_before_its_switch() {
    let text = |state, phases| {
        let view = RolloutView { phases, ..rollout(state) };
        let summary = deploy_check(&view).summary;
        let from = summary.find("```text\n").map_or(0, |at| at + 8);
        let rest = &summary[from..];
        rest[..rest.find("\n```").unwrap_or(rest.len())].to_owned()
    };
    let all = [
        text(RolloutState::Queued, vec![]),
        text(RolloutState::Running, vec![phase("Prepare", 0, Some(4)), phase("Warm", 4, None)]),
        text(RolloutState::Failed, vec![phase("Prepare", 0, Some(4)), phase("Warm", 4, Some(120))]),
    ];
    assert_snapshot!(all.join("\n\n"), @r#"
    main-ccccccc  ━━━━━━━━━━ live
    main-0123456  waits

    main-ccccccc  ━━━━━━━━━━━━━━━━━━ live
    main-0123456  Prepare 4 s · Warm · …

    main-ccccccc  ━━━━━━━━━━━━━━━━━━━━━━━━━━━ live
    main-0123456  Prepare 4 s · Warm 1 m 56 s · ✗ never switched to
    "#);
}

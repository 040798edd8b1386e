//! Tests of the room `report`.

mod all;
mod deploy;
mod harmless;
mod redact;
mod slack;
mod step;
mod text;

use jiff::{SignedDuration, Timestamp};
use switchover::{
    domain::{
        ids::{Digest, RolloutId, RunId, Sha, StepId},
        run::{Context, Outcome, StepEnd, StepResult, TestCase, TestReport, TestState, Trust},
    },
    report::view::{
        AppDigest, CommitView, GoesLive, JobView, PhaseView, Pointer, PreviousView, ProbeView, PullView, ReleaseKind,
        RolloutState, RolloutView, RunView, StepState, StepView, TrafficView,
    },
};
use uuid::Uuid;

const WEB: &str = "https://github.example";
const CI: &str = "https://ci.example";

fn at(seconds: i64) -> Timestamp {
    let start: Timestamp = "2026-07-01T10:00:00Z".parse().expect("a time");
    start + SignedDuration::from_secs(seconds)
}

fn sha(digit: char) -> Sha {
    Sha::new(String::from_iter(["0123456789abcdef0123456789abcdef0123456", &digit.to_string()])).expect("a sha")
}

/// A sha whose first seven digits differ too.
fn other_sha(digit: char) -> Sha {
    Sha::new(digit.to_string().repeat(40)).expect("a sha")
}

fn pointer(digit: char) -> Pointer {
    Pointer { sha: other_sha(digit), url: format!("{CI}/runs/{digit}") }
}

fn run(jobs: Vec<JobView>) -> RunView {
    RunView {
        id: RunId(Uuid::from_u128(1)),
        repo: "acme/shop".into(),
        web_url: WEB.into(),
        url: format!("{CI}/runs/1"),
        context: Context::PullRequest,
        pull: Some(12),
        branch: "feature/cart".into(),
        base_ref: Some("main".into()),
        head_sha: sha('a'),
        test_sha: Some(other_sha('7')),
        base_sha: Some(other_sha('b')),
        message: "Add a cart\n\nLong story.".into(),
        author: "Alice".into(),
        trust: Trust::Own,
        attempt: 1,
        created_at: at(0),
        finished_at: None,
        outcome: None,
        superseded_by: None,
        jobs,
        config_mistakes: vec![],
        changes: vec![],
        notes: vec![],
        conflicts: vec![],
        parked: None,
    }
}

/// The same, ended with the worst of its steps.
fn ended(jobs: Vec<JobView>, outcome: Outcome) -> RunView {
    RunView { outcome: Some(outcome), finished_at: Some(at(130)), ..run(jobs) }
}

fn job(app: &str, steps: Vec<StepView>) -> JobView {
    JobView { app: app.into(), steps }
}

fn queued(id: u128, name: &str) -> StepView {
    StepView {
        id: StepId(Uuid::from_u128(id)),
        name: name.into(),
        state: StepState::Queued,
        outcome: None,
        started: None,
        finished: None,
        result: None,
        report: None,
        base_report: None,
        reused: None,
        last_lines: vec![],
        note: None,
        log_url: format!("{CI}/steps/{id}"),
        attempt: 1,
    }
}

fn running(id: u128, name: &str) -> StepView {
    StepView { state: StepState::Running, started: Some(at(2)), ..queued(id, name) }
}

fn done(id: u128, name: &str, outcome: Outcome, end: StepEnd) -> StepView {
    StepView {
        state: StepState::Done,
        outcome: Some(outcome),
        finished: Some(at(36)),
        result: Some(StepResult {
            end,
            started_at: at(2),
            finished_at: at(36),
            cpu_ms: 62_000,
            peak_bytes: 512 << 20,
            output_bytes: 9_000,
            truncated: false,
        }),
        ..running(id, name)
    }
}

fn passed(id: u128, name: &str) -> StepView {
    done(id, name, Outcome::Success, StepEnd::Exited(0))
}

fn case(suite: &str, name: &str, state: TestState, seconds: f64) -> TestCase {
    TestCase {
        suite: suite.into(),
        name: name.into(),
        seconds: Some(seconds),
        state,
        message: None,
        trace: None,
        location: None,
    }
}

fn failed_case(name: &str, line: u32) -> TestCase {
    TestCase {
        message: Some("expected 3 but was 4".into()),
        trace: Some(format!("AssertionError: expected 3 but was 4\n  at CartTest.{name}(CartTest.java:{line})")),
        location: Some(("./backend/src/CartTest.java".into(), line)),
        ..case("shop.CartTest", name, TestState::Failed, 0.2)
    }
}

fn report(cases: Vec<TestCase>) -> TestReport {
    let of = |state| u32::try_from(cases.iter().filter(|c| c.state == state).count()).expect("few");
    TestReport {
        passed: 118,
        failed: of(TestState::Failed),
        skipped: 0,
        flaky: of(TestState::Flaky),
        cases,
        problems: vec![],
    }
}

fn failing_tests() -> StepView {
    StepView {
        report: Some(report(vec![
            failed_case("sums", 31),
            failed_case("rounds", 44),
            case("shop.MailTest", "sends", TestState::Flaky, 1.25),
            case("shop.SlowTest", "waits", TestState::Passed, 12.0),
        ])),
        base_report: Some(report(vec![failed_case("rounds", 44), failed_case("was broken", 60)])),
        ..done(11, "test", Outcome::Failure, StepEnd::Exited(1))
    }
}

fn phase(name: &str, from: i64, to: Option<i64>) -> PhaseView {
    PhaseView { name: name.into(), started: at(from), finished: to.map(at), note: None }
}

fn rollout(state: RolloutState) -> RolloutView {
    RolloutView {
        id: RolloutId(Uuid::from_u128(7)),
        repo: "acme/shop".into(),
        web_url: WEB.into(),
        environment: "production".into(),
        production: true,
        environment_url: Some("https://shop.example".into()),
        log_url: format!("{CI}/rollouts/7"),
        kind: ReleaseKind::Release,
        sha: sha('a'),
        commit_message: "Add a cart (#12)".into(),
        author: "Alice".into(),
        started_by: "push to main by alice".into(),
        slot: "main-0123456".into(),
        previous: Some(PreviousView { slot: "main-ccccccc".into(), sha: other_sha('c') }),
        apps: vec![AppDigest { app: "backend".into(), digest: Some(Digest::of(b"x")), unchanged: false }],
        phases: vec![],
        state,
        message: String::new(),
        created_at: at(0),
        started_at: None,
        finished_at: None,
        switched_at: None,
        probe: None,
        traffic: None,
        goes_live: None,
        hold: None,
        keep_previous_until: None,
        last_lines: vec![],
        notes: vec![],
    }
}

fn live() -> RolloutView {
    RolloutView {
        phases: vec![
            phase("Prepare", 0, Some(4)),
            phase("Warm", 4, Some(7)),
            phase("Verify", 7, Some(8)),
            phase("Switch", 8, Some(9)),
            phase("Converge", 9, Some(39)),
            phase("Watch", 39, Some(159)),
        ],
        started_at: Some(at(0)),
        switched_at: Some(at(9)),
        finished_at: Some(at(159)),
        keep_previous_until: Some(at(3759)),
        probe: Some(ProbeView {
            sent: 12_430,
            failed: 0,
            p99_before_us: Some(11_800),
            p99_after_us: Some(12_600),
            last_old_ms: Some(38),
            failures: vec![],
        }),
        traffic: Some(TrafficView { requests: 48_211, server_errors: 0, cut: 0 }),
        goes_live: Some(GoesLive {
            commits: vec![
                CommitView { sha: sha('a'), message: "Add a cart (#12)".into(), author: "Alice".into() },
                CommitView { sha: other_sha('d'), message: "Thank @bob | fix".into(), author: "bob".into() },
            ],
            total: 2,
            pulls: vec![PullView { number: 12, title: "Cart".into(), author: "alice".into() }],
            compare_url: Some(format!("{WEB}/acme/shop/compare/c...a")),
        }),
        ..rollout(RolloutState::Live)
    }
}

//! Pages with realistic and with hostile content, behind the door that the store stands behind in the product.

use std::sync::Mutex;

use actix_web::http::StatusCode;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use jiff::Timestamp;
use switchover::{
    domain::{
        run::{TestCase, TestReport, TestState},
        show::{PhaseMark, PhaseState, ReleaseLine, SlotColour, SlotMark},
    },
    web::pages::{
        ErrorPage, LogLine, LogWindow, OverviewPage, ReleasePage, RunPage, Source,
        log::TAIL,
        overview::{DeliveryRow, EnvironmentRow, RepositoryRow, RunRow},
        pieces::State,
        release::{LiveCommit, Moment, ProbeFigures},
        routes::{Answer, RawLog, StepName},
        run::{Note, StepView},
    },
};
use tokio::sync::watch;

pub const SHA: &str = "3f2a9c1d5e6f7a8b9c0d1e2f3a4b5c6d7e8f9a0b";
pub const OTHER: &str = "8b1d0e7c6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b1c";
pub const HOSTILE: &str = "</code><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;";

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The line of a release that is in its watch.
pub fn line(done: usize, state: PhaseState) -> ReleaseLine {
    let names = ["Prepare", "Warm", "Verify", "Switch", "Converge", "Watch", "Done"];
    let times = [2_140, 1_310, 420, 38, 5_020, 61_000, 0];
    let phases = names.iter().zip(times).enumerate().map(|(i, (name, ms))| {
        let (state, ms) = match i {
            i if i < done => (PhaseState::Done, Some(ms)),
            i if i == done => (state, Some(ms / 2)),
            _ => (PhaseState::Waiting, None),
        };
        PhaseMark::of(name, state, ms, false)
    });
    let slot = |colour, label: &str| SlotMark { colour, label: label.to_owned() };
    ReleaseLine {
        old: Some(slot(SlotColour::Blue, "8b1d0e7")),
        new: slot(SlotColour::Green, "3f2a9c1"),
        phases: phases.collect(),
    }
}

/// The line of a release that the watch took back.
pub fn taken_back() -> ReleaseLine {
    let mut line = line(5, PhaseState::Failed);
    line.phases.truncate(6);
    line.phases.push(PhaseMark::of("Rolling back", PhaseState::Done, Some(31), false));
    line.phases.push(PhaseMark { spare: false, ..PhaseMark::of("Rolled back", PhaseState::Done, Some(1_200), false) });
    line
}

/// A log in memory that may grow.
pub struct Pages {
    pub logs: Mutex<Vec<LogLine>>,
    pub done: Mutex<bool>,
    pub changed: watch::Sender<u64>,
    pub hostile: bool,
}

impl Pages {
    pub fn new(lines: usize, done: bool) -> Self {
        let logs = (1..=lines).map(|n| LogLine { n, ms: n as u64 * 13, text: text(n) }).collect();
        Self { logs: Mutex::new(logs), done: Mutex::new(done), changed: watch::channel(0).0, hostile: false }
    }

    pub fn push(&self, text: &str) {
        let mut logs = self.logs.lock().unwrap();
        let n = logs.len() + 1;
        logs.push(LogLine { n, ms: n as u64 * 13, text: text.to_owned() });
    }

    fn window(&self, from: usize, count: usize) -> LogWindow {
        let logs = self.logs.lock().unwrap();
        LogWindow {
            total: logs.len(),
            lines: logs.iter().skip(from.saturating_sub(1)).take(count).cloned().collect(),
            done: *self.done.lock().unwrap(),
        }
    }

    fn tail(&self) -> LogWindow {
        let total = self.logs.lock().unwrap().len();
        self.window(total.saturating_sub(TAIL) + 1, TAIL)
    }

    fn outside(&self, text: &str) -> String {
        if self.hostile { format!("{HOSTILE}{text}") } else { text.to_owned() }
    }

    pub fn run_page(&self) -> RunPage {
        let done = *self.done.lock().unwrap();
        let step = |id: &str, app: &str, name: &str, command: &str, state: State| StepView {
            id: id.to_owned(),
            app: app.to_owned(),
            name: name.to_owned(),
            command: self.outside(command),
            state,
            started_at: (state != State::QUEUED && state.word != "skipped").then(|| at("2026-11-23T03:10:01Z")),
            finished_at: (!state.is_open()).then(|| at("2026-11-23T03:10:35Z")),
            facts: Vec::new(),
            report: None,
            log: None,
        };
        let case = |name: &str, state, seconds| TestCase {
            suite: "com.acme.shop.BasketTest".to_owned(),
            name: self.outside(name),
            seconds: Some(seconds),
            state,
            message: None,
            trace: None,
            location: None,
        };
        let failed = TestCase {
            message: Some(self.outside("expected: <12.50> but was: <12.49>")),
            trace: Some(self.outside("org.opentest4j.AssertionFailedError: expected: <12.50> but was: <12.49>\n\tat com.acme.shop.BasketTest.roundsHalfUp(BasketTest.java:41)")),
            location: Some((self.outside("backend/src/test/java/com/acme/shop/BasketTest.java"), 41)),
            ..case("roundsHalfUp", TestState::Failed, 0.212)
        };
        let report = TestReport {
            passed: 118,
            failed: 1,
            skipped: 3,
            flaky: 1,
            cases: vec![
                failed,
                TestCase {
                    message: Some("held on the second run".to_owned()),
                    ..case("waitsForPayment", TestState::Flaky, 3.4)
                },
                case("importsTheWholeCatalogue", TestState::Passed, 12.8),
                case("ordersAThousandPens", TestState::Passed, 4.1),
            ],
            problems: vec![],
        };
        let test = StepView {
            facts: ["exit code 1", "CPU 41 s", "peak 612 MB"].map(str::to_owned).to_vec(),
            report: Some(report),
            log: Some(self.tail()),
            ..step("t1", "backend", "test", "mvn -B -ntp verify", if done { State::FAILED } else { State::RUNNING })
        };
        let lint = StepView {
            facts: vec!["exit code 0".to_owned()],
            log: Some(LogWindow {
                total: 2,
                done: true,
                lines: ["\u{1b}[1m$ spotless\u{1b}[0m", "\u{1b}[32mnothing to change\u{1b}[0m"]
                    .iter()
                    .enumerate()
                    .map(|(i, t)| LogLine { n: i + 1, ms: 90, text: (*t).to_owned() })
                    .collect(),
            }),
            ..step("t0", "backend", "lint", "mvn -B -ntp spotless:check", State::PASSED)
        };
        let skipped = State { sign: "–", word: "skipped", tone: switchover::web::pages::pieces::Tone::Waiting };
        RunPage {
            id: "r1".to_owned(),
            repo: "acme/shop".to_owned(),
            repo_url: "http://127.0.0.1:9999/acme/shop".to_owned(),
            title: "pull request #12".to_owned(),
            sha: SHA.to_owned(),
            git_ref: self.outside("feature/basket-rounding"),
            author: self.outside("Ada Lovelace"),
            message: self.outside("Round prices half up\n\nThe till rounds half up, so the basket has to as well.\n"),
            state: if done { State::FAILED } else { State::RUNNING },
            created_at: at("2026-11-23T03:10:00Z"),
            started_at: Some(at("2026-11-23T03:10:01Z")),
            finished_at: done.then(|| at("2026-11-23T03:12:11Z")),
            notes: vec![Note {
                text: "frontend is untouched since the base: its run is reused.".to_owned(),
                link: Some(("run of 8b1d0e7".to_owned(), "/runs/r0".to_owned())),
            }],
            steps: vec![
                lint,
                test,
                step("t2", "backend", "build", "mvn -B -ntp package -DskipTests", skipped),
                step("t3", "frontend", "test", "npm test", State::QUEUED),
            ],
            now: at("2026-11-23T03:12:11Z"),
        }
    }

    pub fn release_page(&self, back: bool) -> ReleasePage {
        let lines = if back { taken_back() } else { line(5, PhaseState::Running) };
        let moment =
            |time: &str, text: &str| Moment { at: at(&format!("2026-11-23T03:{time}Z")), text: self.outside(text) };
        ReleasePage {
            id: "d1".to_owned(),
            repo: "acme/shop".to_owned(),
            repo_url: "http://127.0.0.1:9999/acme/shop".to_owned(),
            environment: "production".to_owned(),
            environment_url: Some("https://shop.example.com".to_owned()),
            sha: SHA.to_owned(),
            message: self.outside("Round prices half up"),
            cause: "push by ada".to_owned(),
            state: if back { State::ROLLED_BACK } else { State::RUNNING },
            created_at: at("2026-11-23T03:10:00Z"),
            finished_at: back.then(|| at("2026-11-23T03:11:12Z")),
            lines: vec![("backend".to_owned(), lines.clone()), ("frontend".to_owned(), lines)],
            switch_ms: Some(38),
            probes: vec![
                ProbeFigures {
                    what: "backend GET /health".to_owned(),
                    sent: 12_430,
                    failed: 0,
                    p99_before_ms: Some(4),
                    p99_after_ms: Some(5),
                },
                ProbeFigures {
                    what: "frontend GET /health".to_owned(),
                    sent: 12_411,
                    failed: if back { 3 } else { 0 },
                    p99_before_ms: Some(3),
                    p99_after_ms: Some(3),
                },
            ],
            notes: if back {
                vec![Note { text: "The watch took it back: 5 of the last 10 probes of backend failed (HTTP 500). The environment is held, so that the next push does not undo it.".to_owned(), link: None }]
            } else {
                Vec::new()
            },
            commands: if back {
                vec!["switchover resume production".to_owned()]
            } else {
                vec!["switchover rollback production".to_owned()]
            },
            digests: vec![
                ("backend".to_owned(), format!("sha256:{}", "4b".repeat(32))),
                ("frontend".to_owned(), format!("sha256:{}", "e1".repeat(32))),
            ],
            commits: vec![
                LiveCommit {
                    sha: SHA.to_owned(),
                    subject: self.outside("Round prices half up"),
                    author: "Ada Lovelace".to_owned(),
                    pull: Some((12, "http://127.0.0.1:9999/acme/shop/pull/12".to_owned())),
                },
                LiveCommit {
                    sha: OTHER.to_owned(),
                    subject: "Say in the basket what is missing for free delivery".to_owned(),
                    author: "Grace Hopper".to_owned(),
                    pull: None,
                },
            ],
            timeline: vec![
                moment("10:00.120", "claimed the environment, epoch 7"),
                moment("10:02.260", "backend and frontend prepared from their digests"),
                moment("10:03.570", "2 of 2 copies ready"),
                moment("10:03.990", "smoke test passed"),
                moment("10:04.028", "backend points at 3f2a9c1"),
                moment("10:04.041", "frontend points at 3f2a9c1"),
                moment("10:09.061", "nobody new was answered by 8b1d0e7 for 5 s"),
            ],
            now: at("2026-11-23T03:10:40Z"),
        }
    }
}

fn text(n: usize) -> String {
    match n % 17 {
        0 => format!("\u{1b}[1;31m[ERROR]\u{1b}[0m Tests run: {n}, Failures: \u{1b}[31m1\u{1b}[0m"),
        3 => format!("\u{1b}[33m[WARNING]\u{1b}[0m line {n} uses a deprecated call"),
        7 => format!(
            "\u{1b}[38;5;39mDownloading\u{1b}[0m from central: org/example/part-{n}.jar \u{1b}[2m(12 kB)\u{1b}[22m"
        ),
        11 => format!("\u{1b}[44;97m PASS \u{1b}[0m suite {n} \u{1b}[32m✓ 4 tests\u{1b}[0m"),
        13 => format!(
            "a long line {}",
            "with a good many words that does not fit into the window of most people ".repeat(4)
        ),
        _ => format!("\u{1b}[34mINFO\u{1b}[0m running com.acme.shop.Test{n}"),
    }
}

impl Source for Pages {
    fn overview(&self) -> Answer<'_, OverviewPage> {
        let run = |state, subject: &str, git_ref: &str, ms| RunRow {
            href: "/runs/r1".to_owned(),
            repo: "acme/shop".to_owned(),
            git_ref: self.outside(git_ref),
            sha: SHA.to_owned(),
            subject: self.outside(subject),
            state,
            created_at: at("2026-11-23T03:10:00Z"),
            millis: ms,
        };
        let page = OverviewPage {
            environments: vec![
                EnvironmentRow {
                    repo: "acme/shop".to_owned(),
                    environment: "staging".to_owned(),
                    state: State::RUNNING,
                    live: Some((OTHER.to_owned(), "/releases/d1".to_owned())),
                    subject: "Say in the basket what is missing".to_owned(),
                    since: Some(at("2026-11-22T11:00:00Z")),
                    held: None,
                },
                EnvironmentRow {
                    repo: "acme/shop".to_owned(),
                    environment: "production".to_owned(),
                    state: State::LIVE,
                    live: Some((SHA.to_owned(), "/releases/d1".to_owned())),
                    subject: self.outside("Round prices half up"),
                    since: Some(at("2026-11-23T03:10:00Z")),
                    held: Some("held since a rollback".to_owned()),
                },
            ],
            runs: vec![
                run(State::RUNNING, "Round prices half up", "#12 feature/basket-rounding", None),
                run(State::FAILED, "Round prices half down", "#12 feature/basket-rounding", Some(130_000)),
                run(
                    State::from(switchover::domain::run::Outcome::Superseded),
                    "Round prices",
                    "#12 feature/basket-rounding",
                    Some(4_000),
                ),
                run(State::PASSED, "Say in the basket what is missing for free delivery", "develop", Some(34_000)),
            ],
            repositories: vec![
                RepositoryRow {
                    repo: "acme/shop".to_owned(),
                    href: "https://github.example/acme/shop".to_owned(),
                    stopped: None,
                    unshown: Some(self.outside("2 things are not on GitHub yet: GitHub answered 503")),
                },
                RepositoryRow {
                    repo: "acme/old".to_owned(),
                    href: "javascript:alert(1)".to_owned(),
                    stopped: Some("archived".to_owned()),
                    unshown: None,
                },
            ],
            deliveries: vec![DeliveryRow {
                id: "d-1".to_owned(),
                event: self.outside("push"),
                received_at: at("2026-11-23T02:00:00Z"),
                why: self.outside("it is signed, but no JSON: expected value at line 1 column 1"),
                command: "switchover replay 72d3162e-cc78-11e3-81ab-4c9367dc0958".to_owned(),
            }],
        };
        async move { Ok(page) }.boxed()
    }

    fn run<'a>(&'a self, id: &'a str) -> Answer<'a, RunPage> {
        async move { if id == "r1" { Ok(self.run_page()) } else { Err(ErrorPage::not_found("such run")) } }.boxed()
    }

    fn release<'a>(&'a self, id: &'a str) -> Answer<'a, ReleasePage> {
        async move {
            match id {
                "d1" => Ok(self.release_page(false)),
                "d2" => Ok(self.release_page(true)),
                _ => Err(ErrorPage::not_found("such release")),
            }
        }
        .boxed()
    }

    fn step<'a>(&'a self, step: &'a str) -> Answer<'a, StepName> {
        async move {
            match step {
                "t1" => {
                    Ok(StepName { app: "backend".to_owned(), name: "test".to_owned(), run_href: "/runs/r1".to_owned() })
                }
                "t0" => {
                    Ok(StepName { app: "backend".to_owned(), name: "lint".to_owned(), run_href: "/runs/r1".to_owned() })
                }
                _ => Err(ErrorPage::not_found("such log")),
            }
        }
        .boxed()
    }

    fn lines<'a>(&'a self, step: &'a str, from: usize, count: usize) -> Answer<'a, LogWindow> {
        async move {
            match step {
                "t1" => Ok(self.window(from, count)),
                "t0" => Ok(self.run_page().steps[0].log.clone().unwrap()),
                _ => Err(ErrorPage::not_found("such log")),
            }
        }
        .boxed()
    }

    fn raw<'a>(&'a self, step: &'a str) -> Answer<'a, RawLog> {
        async move {
            if step != "t1" {
                return Err(ErrorPage::refused(
                    StatusCode::GONE,
                    "The log is gone.",
                    "Logs are kept for 30 days.",
                    "Run it again.",
                ));
            }
            let lines: Vec<_> = self.logs.lock().unwrap().iter().map(|l| Ok(format!("{}\n", l.text).into())).collect();
            Ok(stream::iter(lines).boxed() as RawLog)
        }
        .boxed()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

//! A run: one commit in one context, its steps, their reports and logs.

use askama::Template;
use jiff::Timestamp;

use super::{
    layout::{self, Crumb, Head},
    log::{self, LogWindow},
    pieces::{self, Markup, State, Tone},
};
use crate::{
    domain::{
        run::{TestCase, TestReport, TestState},
        show,
    },
    web::assets,
};

/// A run as its page shows it.
#[derive(Debug, Clone)]
pub struct RunPage {
    /// Its id, for the address.
    pub id: String,
    /// `owner/name`.
    pub repo: String,
    /// The repository on GitHub.
    pub repo_url: String,
    /// Heading, such as `push to main` or `pull request #12: Add a basket`.
    pub title: String,
    /// The tested commit (for pull requests the head that the result stands on).
    pub sha: String,
    /// Branch, tag or pull request, short.
    pub git_ref: String,
    /// Who made the commit.
    pub author: String,
    /// The commit's message, whole.
    pub message: String,
    /// How the run is.
    pub state: State,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When work began.
    pub started_at: Option<Timestamp>,
    /// When all of it had ended.
    pub finished_at: Option<Timestamp>,
    /// What else is to be said: superseded by what, which run is reused, why it waits.
    pub notes: Vec<Note>,
    /// Its steps in order.
    pub steps: Vec<StepView>,
    /// When the page was made.
    pub now: Timestamp,
}

/// A sentence, with a place to go on.
#[derive(Debug, Clone, Default)]
pub struct Note {
    /// The sentence.
    pub text: String,
    /// What the link is called, and where it leads.
    pub link: Option<(String, String)>,
}

/// One step.
#[derive(Debug, Clone)]
pub struct StepView {
    /// Its id: the address of its log.
    pub id: String,
    /// The app.
    pub app: String,
    /// The step's name.
    pub name: String,
    /// What is run.
    pub command: String,
    /// How it is.
    pub state: State,
    /// When its process began.
    pub started_at: Option<Timestamp>,
    /// When it was gone.
    pub finished_at: Option<Timestamp>,
    /// How it ended and what it cost, in words: `exit code 1`, `CPU 41 s`, `peak 612 MB`.
    pub facts: Vec<String>,
    /// What its reports say.
    pub report: Option<TestReport>,
    /// The last lines of its log; none while it has not begun or when it never ran.
    pub log: Option<LogWindow>,
}

impl StepView {
    /// Its name on the page: line 120 is `#NAME-L120`.
    #[must_use]
    pub fn anchor(&self) -> String {
        show::log_anchor(&self.app, &self.name)
    }

    fn is_open(&self) -> bool {
        matches!(self.state.tone, Tone::Failed | Tone::Running)
    }

    fn millis(&self, now: Timestamp) -> Option<u64> {
        self.started_at.map(|start| between(start, self.finished_at.unwrap_or(now)))
    }

    fn took(&self, now: &Timestamp) -> Markup {
        let since = if self.finished_at.is_none() { self.started_at } else { None };
        self.millis(*now).map(|ms| pieces::took(ms, since)).unwrap_or_default()
    }

    fn totals(&self) -> String {
        self.report.as_ref().map(totals).unwrap_or_default()
    }

    fn failures(&self) -> Vec<&TestCase> {
        self.cases(&[TestState::Failed, TestState::Flaky])
    }

    fn slowest(&self) -> Vec<&TestCase> {
        let mut cases = self.cases(&[TestState::Passed, TestState::Failed, TestState::Flaky]);
        cases.retain(|case| case.seconds.is_some_and(|s| s >= 0.1));
        cases.sort_by(|a, b| b.seconds.unwrap_or_default().total_cmp(&a.seconds.unwrap_or_default()));
        cases.truncate(5);
        cases
    }

    fn cases(&self, states: &[TestState]) -> Vec<&TestCase> {
        self.report.iter().flat_map(|r| &r.cases).filter(|case| states.contains(&case.state)).collect()
    }

    fn problems(&self) -> &[String] {
        self.report.as_ref().map_or(&[], |r| &r.problems)
    }
}

fn case_state(case: &TestCase) -> State {
    match case.state {
        TestState::Passed => State::PASSED,
        TestState::Failed => State::FAILED,
        TestState::Skipped => State { sign: "–", word: "skipped", tone: Tone::Waiting },
        TestState::Flaky => State { sign: "~", word: "flaky", tone: Tone::Attention },
    }
}

fn seconds(case: &TestCase) -> String {
    // A report may say anything; a saturating cast keeps it a number.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and negative ones become 0"
    )]
    case.seconds.map(|s| show::duration((s * 1000.0) as u64)).unwrap_or_default()
}

/// `118 passed, 2 failed, 1 flaky, 3 skipped`; what is zero is left out, except that nothing ran.
fn totals(report: &TestReport) -> String {
    let parts =
        [(report.passed, "passed"), (report.failed, "failed"), (report.flaky, "flaky"), (report.skipped, "skipped")];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    if parts.is_empty() { "no tests reported".to_owned() } else { parts.join(", ") }
}

/// Milliseconds from one moment to another, never negative.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_millisecond() - from.as_millisecond()).unwrap_or(0)
}

#[derive(Template)]
#[template(path = "run.html")]
struct RunTemplate<'a> {
    run: &'a RunPage,
    subject: &'a str,
    rest: &'a str,
}

impl RunPage {
    /// The page.
    #[must_use]
    pub fn render(&self) -> String {
        let (subject, rest) = self.message.split_once('\n').unwrap_or((&self.message, ""));
        let title = format!("{} {} {}", self.state.sign, self.title, pieces::short(&self.sha));
        let head = Head {
            title: &title,
            crumbs: vec![Crumb::to(&self.repo, &self.repo_url), Crumb::here(&self.title)],
            scripts: vec![&assets::LOG_SCRIPT],
            live: self.finished_at.is_none().then_some("/live"),
            ..Head::default()
        };
        layout::render(&head, &RunTemplate { run: self, subject: subject.trim_end(), rest: rest.trim() })
    }

    fn took(&self) -> Markup {
        let Some(start) = self.started_at else { return Markup::default() };
        let end = self.finished_at;
        pieces::took(between(start, end.unwrap_or(self.now)), if end.is_none() { Some(start) } else { None })
    }
}

fn tail(step: &StepView, log: &LogWindow) -> Markup {
    let skip = log.lines.len().saturating_sub(log::TAIL);
    log::lines_html(&step.anchor(), &log.lines[skip..], None)
}

fn first_shown(log: &LogWindow) -> usize {
    log.lines.get(log.lines.len().saturating_sub(log::TAIL)).map_or(1, |line| line.n)
}

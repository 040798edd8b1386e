//! Test reports: JUnit XML and libtest's text, read into one [`TestReport`], with failures tied to lines of the
//! repository where they can be.
//!
//! Everything here comes from steps, so from anybody: sizes, depths and counts are limited, and what can't be read is
//! a problem in words beside what could.

mod find;
mod junit;
mod libtest;
mod locate;

pub use find::{Found, find_reports};
pub use junit::read_junit;
pub use libtest::read_libtest;

use crate::domain::{
    check::{Annotation, AnnotationLevel},
    run::{TestCase, TestReport, TestState},
};

/// Failed and flaky cases that are kept with their details.
const KEPT: usize = 500;
/// Slowest cases that are kept.
const SLOWEST: usize = 10;
/// Problems that are told.
const PROBLEMS: usize = 20;
/// Bytes of a message, of a trace.
const MESSAGE: usize = 4 * 1024;
const TRACE: usize = 16 * 1024;

/// Adds cases up and keeps the ones worth keeping.
#[derive(Debug, Default)]
struct Tally {
    report: TestReport,
    failed: Vec<TestCase>,
    flaky: Vec<TestCase>,
    slow: Vec<TestCase>,
}

impl Tally {
    /// Whether details of one more such case are worth finding out.
    fn has_room(&self, state: TestState) -> bool {
        match state {
            TestState::Failed => self.failed.len() < KEPT,
            TestState::Flaky => self.flaky.len() < KEPT,
            TestState::Passed | TestState::Skipped => false,
        }
    }

    fn add(&mut self, case: TestCase) {
        let count = match case.state {
            TestState::Passed => &mut self.report.passed,
            TestState::Failed => &mut self.report.failed,
            TestState::Skipped => &mut self.report.skipped,
            TestState::Flaky => &mut self.report.flaky,
        };
        *count = count.saturating_add(1);
        self.keep(case);
    }

    fn keep(&mut self, case: TestCase) {
        match case.state {
            TestState::Failed if self.failed.len() < KEPT => self.failed.push(case),
            TestState::Flaky if self.flaky.len() < KEPT => self.flaky.push(case),
            TestState::Passed if case.seconds.is_some_and(|s| s > 0.0) => {
                let seconds = |c: &TestCase| c.seconds.unwrap_or(0.0);
                let at = self.slow.partition_point(|c| seconds(c) >= seconds(&case));
                if at < SLOWEST {
                    self.slow.insert(at, case);
                    self.slow.truncate(SLOWEST);
                }
            }
            _ => {}
        }
    }

    fn problem(&mut self, text: String) {
        if self.report.problems.len() < PROBLEMS && !self.report.problems.contains(&text) {
            self.report.problems.push(text);
        }
    }

    /// Failed cases first, then flaky ones, then those that are among the slowest of all.
    fn finish(self) -> TestReport {
        let mut report = self.report;
        report.cases = self.failed;
        report.cases.extend(self.flaky);
        report.cases.truncate(KEPT);
        let mut times: Vec<f64> = report.cases.iter().chain(&self.slow).filter_map(|c| c.seconds).collect();
        times.sort_by(|a, b| b.total_cmp(a));
        let least = times.get(SLOWEST - 1).copied().unwrap_or(0.0);
        report.cases.extend(self.slow.into_iter().filter(|c| c.seconds.is_some_and(|s| s >= least)));
        report
    }
}

/// What several reports say together.
#[must_use]
pub fn merge(reports: impl IntoIterator<Item = TestReport>) -> TestReport {
    let mut tally = Tally::default();
    for report in reports {
        let sum = &mut tally.report;
        sum.passed = sum.passed.saturating_add(report.passed);
        sum.failed = sum.failed.saturating_add(report.failed);
        sum.skipped = sum.skipped.saturating_add(report.skipped);
        sum.flaky = sum.flaky.saturating_add(report.flaky);
        report.cases.into_iter().for_each(|case| tally.keep(case));
        report.problems.into_iter().for_each(|problem| tally.problem(problem));
    }
    tally.finish()
}

/// Failed (and, as warnings, flaky) cases whose place is known, as annotations on their lines.
#[must_use]
pub fn annotations(report: &TestReport) -> Vec<Annotation> {
    let of = |case: &TestCase| {
        let level = match case.state {
            TestState::Failed => AnnotationLevel::Failure,
            TestState::Flaky => AnnotationLevel::Warning,
            TestState::Passed | TestState::Skipped => return None,
        };
        let (path, line) = case.location.clone()?;
        let name = if case.suite.is_empty() { case.name.clone() } else { format!("{}: {}", case.suite, case.name) };
        let title = if case.state == TestState::Flaky { format!("{name} (flaky)") } else { name };
        Some(Annotation {
            path,
            start_line: line,
            end_line: line,
            level,
            message: case.message.clone().filter(|m| !m.is_empty()).unwrap_or_else(|| "The test failed.".into()),
            title: Some(title.chars().take(255).collect()),
            raw_details: case.trace.clone(),
        })
    };
    report.cases.iter().filter_map(of).collect()
}

/// Text without ANSI sequences and control characters, at most `max` bytes.
fn plain(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            // A control sequence ends with a letter or one of @[\]^_`{|}~ (ECMA-48).
            '\x1b' if chars.peek() == Some(&'[') => {
                chars.next();
                while chars.next_if(|c| !('@'..='~').contains(c)).is_some() {}
                chars.next();
            }
            '\r' => {}
            c if c.is_control() && !matches!(c, '\n' | '\t') => {}
            c if out.len() + c.len_utf8() > max => {
                out.push_str("\n… (cut)");
                return out;
            }
            c => out.push(c),
        }
    }
    out
}

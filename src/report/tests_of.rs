//! What a step's test reports say: totals, annotations, what is new against the base.

use std::collections::HashSet;

use super::{
    text::{clean, code, count, duration, fence_trace, first_line, head, middle, number, one_line, plain},
    view::{RunView, StepView},
    words::file_line,
};
use crate::domain::{
    check::{Annotation, AnnotationLevel},
    run::{Outcome, TestCase, TestReport, TestState},
};

/// Annotations of one check run: as many as GitHub takes in one request ("REST API endpoints for check runs").
pub(super) const ANNOTATIONS_MAX: usize = 50;
/// Bytes of an annotation's message; GitHub takes 64 KB.
const MESSAGE_MAX: usize = 8_000;
/// Bytes of an annotation's details; GitHub takes 64 KB.
pub(super) const DETAILS_MAX: usize = 30_000;

/// `118 passed, 2 failed, 1 flaky`; none when no test is told of.
pub(super) fn totals(report: &TestReport) -> Option<String> {
    let parts =
        [(report.passed, "passed"), (report.failed, "failed"), (report.flaky, "flaky"), (report.skipped, "skipped")];
    let said: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{} {word}", number(u64::from(*n)))).collect();
    (!said.is_empty()).then(|| said.join(", "))
}

/// `suite › name`, in one line.
pub(super) fn name(case: &TestCase) -> String {
    let full = if case.suite.trim().is_empty() {
        one_line(&case.name, 200)
    } else {
        format!("{} › {}", one_line(&case.suite, 150), one_line(&case.name, 200))
    };
    if full.trim().is_empty() { "(a test without a name)".to_owned() } else { full }
}

fn key(case: &TestCase) -> (&str, &str) {
    (&case.suite, &case.name)
}

fn with_state(report: &TestReport, state: TestState) -> Vec<&TestCase> {
    report.cases.iter().filter(|case| case.state == state).collect()
}

/// The difference to the base.
pub(super) enum Compared<'a> {
    /// Nothing to compare with, or this step did not get far enough.
    Unknown,
    /// One side has more failures than are kept, so a difference can't be told.
    TooMany,
    /// Told.
    Known {
        /// Fail here and not on the base.
        failing: Vec<&'a TestCase>,
        /// Failed on the base and no longer.
        fixed: Vec<&'a TestCase>,
    },
}

/// Compares with the same step on the base.
pub(super) fn compare(step: &StepView) -> Compared<'_> {
    let (Some(here), Some(base)) = (&step.report, &step.base_report) else { return Compared::Unknown };
    // A step that was killed or whose reports can't be read says nothing about the tests that are missing.
    let to_its_end = matches!(step.outcome, Some(Outcome::Success | Outcome::Failure));
    if !to_its_end || !here.problems.is_empty() || totals(here).is_none() || totals(base).is_none() {
        return Compared::Unknown;
    }
    let (failed_here, failed_there) = (with_state(here, TestState::Failed), with_state(base, TestState::Failed));
    if failed_here.len() < here.failed as usize || failed_there.len() < base.failed as usize {
        return Compared::TooMany;
    }
    let keys_here: HashSet<_> = failed_here.iter().map(|c| key(c)).collect();
    let keys_there: HashSet<_> = failed_there.iter().map(|c| key(c)).collect();
    Compared::Known {
        failing: failed_here.into_iter().filter(|c| !keys_there.contains(&key(c))).collect(),
        fixed: failed_there.into_iter().filter(|c| !keys_here.contains(&key(c))).collect(),
    }
}

/// A test as a line of a list.
pub(super) fn line(run: &RunView, case: &TestCase) -> String {
    let mut out = format!("- {}", code(&name(case)));
    if let Some((path, at)) = &case.location {
        out.push_str(&format!(" at {}", file_line(run, &tidy_path(path), (*at).max(1))));
    }
    let message = case.message.as_deref().map(|m| first_line(m, 300)).unwrap_or_default();
    if !message.is_empty() {
        out.push_str(&format!(": {}", plain(&message)));
    }
    out
}

/// The slowest tests, slowest first.
pub(super) fn slowest(report: &TestReport) -> Vec<String> {
    let mut cases: Vec<(u64, &TestCase)> = report
        .cases
        .iter()
        .filter_map(|case| case.seconds.filter(|s| s.is_finite() && *s >= 0.1).map(|s| (millis(s), case)))
        .collect();
    cases.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| key(a.1).cmp(&key(b.1))));
    cases.iter().take(10).map(|(ms, case)| format!("- {} {}", duration(*ms), code(&name(case)))).collect()
}

fn millis(seconds: f64) -> u64 {
    // A week at most: reports come from outside.
    std::time::Duration::try_from_secs_f64(seconds.clamp(0.0, 604_800.0))
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Failed and flaky tests with their traces, a block each, the failed ones first.
pub(super) fn details(report: &TestReport) -> Vec<String> {
    let mut cases = with_state(report, TestState::Failed);
    cases.extend(with_state(report, TestState::Flaky));
    let block = |case: &TestCase| {
        let flaky = if case.state == TestState::Flaky { " (flaky: held when it was run again)" } else { "" };
        let message = case.message.as_deref().unwrap_or_default().trim();
        let trace = case.trace.as_deref().unwrap_or_default().trim();
        let body = match (message, trace) {
            ("", "") => return None,
            ("", trace) => trace.to_owned(),
            (message, "") => message.to_owned(),
            // Most dialects repeat the message at the head of the trace.
            (message, trace) if trace.contains(message) => trace.to_owned(),
            (message, trace) => format!("{message}\n\n{trace}"),
        };
        Some(format!("**{}**{flaky}\n\n{}", plain(&name(case)), fence_trace(&body, 6_000)))
    };
    cases.into_iter().filter_map(block).collect()
}

/// A path as GitHub wants it: from the root, with `/`, and with no `./` in front. Empty if it leaves the repository.
pub(super) fn tidy_path(path: &str) -> String {
    let path = one_line(&path.replace('\\', "/"), 1_000);
    let mut rest = path.as_str();
    while let Some(shorter) = rest.strip_prefix("./") {
        rest = shorter.trim_start_matches('/');
    }
    if rest.starts_with('/') || rest.split('/').any(|part| part == "..") {
        String::new()
    } else {
        one_line(rest, 1_000)
    }
}

/// One annotation for each failed (failure) or flaky (warning) test whose line is known; those that are new against
/// the base first, at most [`ANNOTATIONS_MAX`].
pub(super) fn annotations(step: &StepView) -> Vec<Annotation> {
    let Some(report) = &step.report else { return Vec::new() };
    let new: HashSet<_> = match compare(step) {
        Compared::Known { failing, .. } => failing.into_iter().map(key).collect(),
        Compared::Unknown | Compared::TooMany => HashSet::new(),
    };
    let mut cases: Vec<&TestCase> =
        report.cases.iter().filter(|c| matches!(c.state, TestState::Failed | TestState::Flaky)).collect();
    cases.sort_by_key(|case| match case.state {
        TestState::Failed if new.contains(&key(case)) => 0,
        TestState::Failed => 1,
        _ => 2,
    });
    cases.into_iter().filter_map(annotation).take(ANNOTATIONS_MAX).collect()
}

fn annotation(case: &TestCase) -> Option<Annotation> {
    let (path, line) = case.location.as_ref()?;
    let path = tidy_path(path);
    if path.is_empty() {
        return None;
    }
    let flaky = case.state == TestState::Flaky;
    let fallback = if flaky { "failed first, then held" } else { "failed, and said nothing" };
    let message =
        case.message.as_deref().map(|m| clean(&head(m, 8 * MESSAGE_MAX)).trim().to_owned()).filter(|m| !m.is_empty());
    let trace =
        case.trace.as_deref().map(|t| clean(&middle(t, 8 * DETAILS_MAX)).trim().to_owned()).filter(|t| !t.is_empty());
    let line = (*line).max(1);
    Some(Annotation {
        path,
        start_line: line,
        end_line: line,
        level: if flaky { AnnotationLevel::Warning } else { AnnotationLevel::Failure },
        message: head(message.as_deref().unwrap_or(fallback), MESSAGE_MAX).into_owned(),
        title: Some(one_line(&format!("{}{}", if flaky { "flaky: " } else { "" }, name(case)), 255)),
        raw_details: trace.map(|t| middle(&t, DETAILS_MAX).into_owned()),
    })
}

/// How many failed tests can't be shown on a line, in words; none when all are shown.
pub(super) fn not_annotated(step: &StepView, shown: usize) -> Option<String> {
    let report = step.report.as_ref()?;
    let all = report.failed as usize + report.flaky as usize;
    (shown == ANNOTATIONS_MAX && all > shown)
        .then(|| format!("The first {shown} of {} stand on their lines.", count(all as u64, "test", "tests")))
}

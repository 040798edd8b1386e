//! One check run per step.

use super::{
    doc::Doc,
    tests_of::{self, Compared},
    text::{self, between, bytes, code, duration, fence, link, plain},
    view::{JobView, RunView, StepState, StepView},
    words,
};
use crate::domain::{
    check::{CheckRun, CheckStatus, Conclusion},
    run::{Outcome, StepEnd},
};

/// What GitHub is told of an outcome.
///
/// `neutral` and `skipped` satisfy a required check on GitHub ("About protected branches": a required status check
/// must be `successful`, `skipped` or `neutral`), so none of our outcomes becomes one of them: whatever did not run
/// is missing. Superseded, not run because an earlier step failed, and broken on our side are not the author's
/// failure: they are `cancelled`, which blocks a merge without saying that the commit is bad.
#[must_use]
pub fn conclusion(outcome: Outcome) -> Conclusion {
    match outcome {
        Outcome::Success => Conclusion::Success,
        Outcome::Failure => Conclusion::Failure,
        Outcome::TimedOut => Conclusion::TimedOut,
        Outcome::ActionRequired => Conclusion::ActionRequired,
        Outcome::Cancelled | Outcome::Superseded | Outcome::Skipped | Outcome::Infrastructure => Conclusion::Cancelled,
    }
}

/// How a step stands: none while it is not done. A step that is said to be done without an outcome is not done.
pub(super) fn ended(step: &StepView) -> Option<Conclusion> {
    match step.state {
        StepState::Done => step.outcome.map(conclusion),
        StepState::Queued | StepState::Running => None,
    }
}

/// `backend / test (pull_request)`.
pub(super) fn name(run: &RunView, job: &JobView, step: &StepView) -> String {
    format!("{} / {} ({})", job.app, step.name, run.context.as_str())
}

/// How long it took, in milliseconds.
pub(super) fn took(step: &StepView) -> Option<u64> {
    match (&step.result, step.started, step.finished) {
        (Some(result), _, _) => Some(between(result.started_at, result.finished_at)),
        (None, Some(started), Some(finished)) => Some(between(started, finished)),
        _ => None,
    }
}

/// The one line beside the name, as plain text.
pub(super) fn title(run: &RunView, job: &JobView, step: &StepView) -> String {
    let attempt = if step.attempt > 1 { format!(", attempt {}", step.attempt) } else { String::new() };
    let Some(outcome) = step.outcome.filter(|_| step.state == StepState::Done) else {
        return match step.state {
            StepState::Queued => format!("Queued{attempt}"),
            StepState::Running | StepState::Done => format!("Running{attempt}"),
        };
    };
    let totals = step.report.as_ref().and_then(tests_of::totals);
    let time = |word: &str| took(step).map(|ms| format!(" {word} {}", duration(ms))).unwrap_or_default();
    if let Some(reused) = &step.reused {
        let said = totals.unwrap_or_else(|| words_for(outcome).to_owned());
        return format!("{said}, unchanged since {}", reused.sha.short());
    }
    match outcome {
        Outcome::Success => format!("{}{}", totals.as_deref().unwrap_or("Passed"), time("in")),
        Outcome::Failure => failure_title(step, totals, &time),
        Outcome::TimedOut => {
            let so_far = totals.map(|t| format!("; {t} until then")).unwrap_or_default();
            format!("Timed out{}{so_far}", time("after"))
        }
        Outcome::Cancelled => format!("Cancelled{}", time("after")),
        Outcome::Superseded => match &run.superseded_by {
            Some(newer) => format!("Superseded by {}", newer.sha.short()),
            None => "Superseded by a newer commit".to_owned(),
        },
        Outcome::Skipped => match stopped_by(job, step) {
            Some(earlier) => format!("Not run: {} {}", earlier.name, words_for(earlier.outcome.unwrap_or(outcome))),
            None => match &step.note {
                Some(why) => format!("Not run: {}", text::one_line(why, 150)),
                None => "Not run".to_owned(),
            },
        },
        Outcome::Infrastructure => "Not the commit's fault: could not be run to its end".to_owned(),
        Outcome::ActionRequired => "Waits for a person".to_owned(),
    }
}

fn failure_title(step: &StepView, totals: Option<String>, time: &dyn Fn(&str) -> String) -> String {
    let failed_tests = step.report.as_ref().is_some_and(|r| r.failed > 0);
    let before = totals.as_ref().map(|t| format!("{t}, but ")).unwrap_or_default();
    match (failed_tests, step.result.as_ref().map(|r| &r.end)) {
        (true, _) => format!("{}{}", totals.unwrap_or_default(), time("in")),
        (false, Some(StepEnd::Exited(code))) if *code != 0 => {
            let exit = if before.is_empty() { "Exit" } else { "exit" };
            format!("{before}{exit} code {code}{}", time("after"))
        }
        (false, Some(StepEnd::Signalled(signal))) => {
            let killed = if before.is_empty() { "Killed" } else { "killed" };
            format!("{before}{killed} by signal {signal}{}", time("after"))
        }
        (false, Some(StepEnd::NotStarted(why))) => format!("Could not be started: {}", text::one_line(why, 120)),
        (false, Some(StepEnd::OutOfMemory { peak, .. })) => {
            let out = if before.is_empty() { "Out" } else { "out" };
            format!("{before}{out} of memory at {}{}", bytes(*peak), time("after"))
        }
        (false, _) => format!("Failed{}", time("after")),
    }
}

fn words_for(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Success => "passed",
        Outcome::Failure => "failed",
        Outcome::TimedOut => "timed out",
        Outcome::Cancelled => "was cancelled",
        Outcome::Superseded => "was superseded",
        Outcome::Skipped => "was not run",
        Outcome::Infrastructure => "could not be run",
        Outcome::ActionRequired => "waits for a person",
    }
}

/// The earlier step because of which this one did not run.
fn stopped_by<'a>(job: &'a JobView, step: &StepView) -> Option<&'a StepView> {
    let bad = |s: &&StepView| !matches!(s.outcome, None | Some(Outcome::Success | Outcome::Skipped));
    job.steps.iter().take_while(|s| s.id != step.id).find(bad)
}

/// The check run of one step.
#[must_use]
pub fn step_check(run: &RunView, job: &JobView, step: &StepView) -> CheckRun {
    let conclusion = ended(step);
    let title = title(run, job, step);
    // Annotations are only ever appended to a check run: they come with its end, once.
    let annotations =
        if conclusion.is_some() && step.reused.is_none() { tests_of::annotations(step) } else { Vec::new() };
    let end = next(step, conclusion);
    let mut doc = Doc::new(end.len());
    doc.block(&format!("**{}**", plain(&title)));
    doc.block(&words::tested(run));
    explain(&mut doc, run, job, step);
    if let Some(report) = &step.report {
        tests(&mut doc, run, step);
        if let Some(note) = tests_of::not_annotated(step, annotations.len()) {
            doc.block(&note);
        }
        let problems: Vec<String> = words::notes(&report.problems);
        doc.list("### Reports that could not be read", &problems, 20);
    }
    if let Some(cost) = cost(step).filter(|_| step.reused.is_none()) {
        doc.block(&cost);
    }
    last_lines(&mut doc, step, conclusion);
    let details = step.report.as_ref().filter(|_| step.reused.is_none()).and_then(|report| {
        let blocks = tests_of::details(report);
        let mut doc = Doc::new(0);
        for block in &blocks {
            doc.block(block);
        }
        (!blocks.is_empty()).then(|| doc.finish(""))
    });
    let over = conclusion.is_some();
    CheckRun {
        name: name(run, job, step),
        head_sha: run.head_sha.clone(),
        external_id: format!("step/{}/{}", step.id, step.attempt),
        status: match (over, step.state) {
            (true, _) => CheckStatus::Completed,
            (false, StepState::Queued) => CheckStatus::Queued,
            (false, _) => CheckStatus::InProgress,
        },
        conclusion,
        started_at: step.started,
        completed_at: over.then(|| step.finished.or(run.finished_at).or(step.started).unwrap_or(run.created_at)),
        details_url: Some(step.log_url.clone()),
        title: text::one_line(&title, 250),
        summary: doc.finish(&end),
        text: details,
        annotations,
        actions: Vec::new(),
    }
}

/// Why it ended as it did, where the title alone leaves a question.
fn explain(doc: &mut Doc, run: &RunView, job: &JobView, step: &StepView) {
    if let Some(reused) = &step.reused {
        doc.block(&format!(
            "Nothing that {} is made of changed since {} was tested (files, commands, toolchain), so it was not run \
             again: this is the result of {}.",
            code(&job.app),
            words::commit(&run.web_url, &run.repo, &reused.sha),
            link("that run", &reused.url),
        ));
    }
    let sentence = match step.outcome.filter(|_| step.state == StepState::Done) {
        Some(Outcome::Superseded) => match &run.superseded_by {
            Some(newer) => Some(format!(
                "A newer commit took its place: {}.",
                link(&format!("the run of {}", code(newer.sha.short())), &newer.url)
            )),
            None => Some("A newer commit took its place.".to_owned()),
        },
        Some(Outcome::Infrastructure) => Some(
            "Something broke on the machine, also when it was tried again. The commit did not fail, but it was not \
             tested either, so this check does not count as passed."
                .to_owned(),
        ),
        Some(Outcome::TimedOut) => Some(
            "It was stopped (TERM, a grace time, then KILL of all its processes). If it needs longer, say so: \
             `timeout:` of this step in `.github/switchover.yml`."
                .to_owned(),
        ),
        Some(Outcome::Skipped) => stopped_by(job, step).map(|earlier| {
            format!(
                "Steps of an app run in order, and {} came before it: {}.",
                code(&earlier.name),
                link(&plain(&title(run, job, earlier)), &earlier.log_url)
            )
        }),
        Some(Outcome::Failure)
            if matches!(step.result.as_ref().map(|r| &r.end), Some(StepEnd::Exited(0)))
                && step.report.as_ref().is_some_and(|r| r.failed > 0) =>
        {
            Some("Its command ended with exit code 0 although tests failed: the reports count.".to_owned())
        }
        _ => None,
    };
    if let Some(sentence) = sentence {
        doc.block(&sentence);
    }
    if let Some(note) = &step.note {
        doc.list("", &words::notes(std::slice::from_ref(note)), 1);
    }
}

fn tests(doc: &mut Doc, run: &RunView, step: &StepView) {
    let Some(report) = &step.report else { return };
    let lines = |cases: &[&crate::domain::run::TestCase]| -> Vec<String> {
        cases.iter().map(|case| tests_of::line(run, case)).collect()
    };
    if step.reused.is_none() {
        match tests_of::compare(step) {
            Compared::Known { failing, fixed } => {
                doc.list("### Newly failing: fail here, not on the base", &lines(&failing), 50);
                doc.list("### Newly fixed: failed on the base", &lines(&fixed), 50);
            }
            Compared::TooMany => doc.block("Too many tests failed to tell which ones are new against the base."),
            Compared::Unknown => {}
        }
        let failed: Vec<_> = report.cases.iter().filter(|c| c.state == crate::domain::run::TestState::Failed).collect();
        doc.list("### Failed", &lines(&failed), 100);
        let flaky: Vec<_> = report.cases.iter().filter(|c| c.state == crate::domain::run::TestState::Flaky).collect();
        doc.list("### Flaky: failed first, then held", &lines(&flaky), 50);
    }
    doc.list("### Slowest", &tests_of::slowest(report), 10);
}

/// `CPU time 1 m 2 s, peak memory 512 MiB.`
fn cost(step: &StepView) -> Option<String> {
    let result = step.result.as_ref()?;
    if matches!(result.end, StepEnd::NotStarted(_)) {
        return None;
    }
    let mut out = format!("CPU time {}, peak memory {}", duration(result.cpu_ms), bytes(result.peak_bytes));
    if result.truncated {
        out.push_str(&format!("; printed {}, of which only what fits the limit was kept", bytes(result.output_bytes)));
    }
    out.push('.');
    Some(out)
}

/// The tail of the log, where no test report tells what went wrong.
fn last_lines(doc: &mut Doc, step: &StepView, conclusion: Option<Conclusion>) {
    let told = step.report.as_ref().is_some_and(|r| r.failed > 0);
    if conclusion.is_none() || step.last_lines.is_empty() || step.reused.is_some() {
        return;
    }
    let (lines, most) = match conclusion {
        Some(Conclusion::Success) if step.report.is_some() => return,
        Some(Conclusion::Success) => (10, 2_000),
        Some(Conclusion::Failure) if told => return,
        _ => (100, 16_000),
    };
    let from = step.last_lines.len().saturating_sub(lines);
    // Room for the heading, and for a fence that had to grow on both ends.
    let most = most.min(doc.room().saturating_sub(200) / 3);
    doc.block(&format!("### Last lines\n\n{}", fence(&step.last_lines[from..].join("\n"), "text", most)));
}

/// Where its log is, and what can be done.
fn next(step: &StepView, conclusion: Option<Conclusion>) -> String {
    // What never had a process has no log; that of a result that was taken over is the other run's.
    let has_log = step.started.is_some() && step.reused.is_none();
    let log = has_log.then(|| format!("{}.", link("The whole log", &step.log_url)));
    let say = match conclusion {
        None => None,
        Some(Conclusion::ActionRequired) => {
            Some(format!("It waits for a person: the check {} says what for.", code(super::AND_CHECK)))
        }
        // The newer commit has its own check.
        Some(_) if step.outcome == Some(Outcome::Superseded) => None,
        Some(_) => Some("To run it again, press **Re-run**.".to_owned()),
    };
    log.into_iter().chain(say).collect::<Vec<_>>().join(" ")
}

//! `switchover`: the AND of everything that had to run on a commit.

use jiff::Timestamp;

use super::{
    AND_CHECK,
    doc::Doc,
    step,
    tests_of::ANNOTATIONS_MAX,
    text::{self, between, code, count, duration, fence, link, one_line, plain},
    view::{MistakeView, RunView, StepState, StepView},
    words,
};
use crate::domain::{
    check::{Annotation, AnnotationLevel, CheckAction, CheckRun, CheckStatus, Conclusion},
    ids::Sha,
    run::{Outcome, Trust},
};

/// Where one run, or all of them, are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Queued,
    Running,
    Ended(Conclusion),
}

/// The one check to require: green only when everything that had to run on this commit, in every context, is.
///
/// `runs` are the newest attempts of all contexts of the commit. A run that was superseded by another one in the list
/// (the base of a pull request changed) does not count. The conclusion is never `neutral` or `skipped`, which GitHub
/// would take for passed: as long as anything is missing the check is queued or in progress, and a run that is said
/// to have succeeded while one of its steps has not is not believed.
///
/// * A mistake in the configuration fails it at once, whatever else still goes.
/// * A merge conflict is a `failure`: the author mends it by a push, as with a failed test.
/// * A fork or bot that waits is `action_required`: somebody must approve, no push helps.
/// * Nothing to run is a `success`, with a text that says what would make it do something.
/// * No run at all is `queued`: nothing was planned yet.
#[must_use]
pub fn and_check(head_sha: &Sha, runs: &[RunView]) -> CheckRun {
    let replaced = |run: &RunView| {
        run.outcome == Some(Outcome::Superseded)
            && run.superseded_by.as_ref().is_some_and(|by| {
                runs.iter().any(|other| other.id != run.id && other.head_sha == by.sha && other.url == by.url)
            })
    };
    let mut runs: Vec<&RunView> = runs.iter().filter(|run| !replaced(run)).collect();
    runs.sort_by_key(|run| (run.context, run.pull, run.created_at, run.id.0));
    let standing = standing(&runs);
    let title = title(&runs, standing);
    let annotations = annotations(&runs);
    let end = next(&runs, standing);

    let mut doc = Doc::new(end.len());
    doc.block(&format!("**{}**", plain(&title)));
    for run in &runs {
        doc.block(&words::tested(run));
    }
    mistakes(&mut doc, &runs);
    for run in runs.iter().filter(|run| !run.changes.is_empty()) {
        doc.list("### What this changes once merged", &words::notes(&run.changes), 50);
    }
    conflicts(&mut doc, &runs);
    parked(&mut doc, head_sha, &runs);
    table(&mut doc, &runs);
    if let Standing::Ended(Conclusion::Success) = standing
        && runs.iter().all(|run| run.jobs.is_empty())
    {
        doc.block(NOTHING);
    }
    superseded(&mut doc, &runs);
    let mut notes: Vec<&String> = Vec::new();
    for note in runs.iter().flat_map(|run| &run.notes) {
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    let notes: Vec<String> = notes.into_iter().cloned().collect();
    doc.list("### How it was understood", &words::notes(&notes), 100);

    let (status, conclusion) = match standing {
        Standing::Queued => (CheckStatus::Queued, None),
        Standing::Running => (CheckStatus::InProgress, None),
        Standing::Ended(conclusion) => (CheckStatus::Completed, Some(conclusion)),
    };
    CheckRun {
        name: AND_CHECK.to_owned(),
        head_sha: head_sha.clone(),
        external_id: format!("{AND_CHECK}/{head_sha}"),
        status,
        conclusion,
        started_at: match standing {
            Standing::Queued => None,
            Standing::Running | Standing::Ended(_) => runs.iter().map(|r| r.created_at).min(),
        },
        completed_at: conclusion.and_then(|_| runs.iter().map(|r| ended_at(r)).max()),
        details_url: runs.iter().max_by_key(|r| r.created_at).map(|r| r.url.clone()),
        title: one_line(&title, 250),
        summary: doc.finish(&end),
        text: None,
        annotations,
        actions: if runs.iter().any(|run| stranger_waits(run)) { vec![approve()] } else { Vec::new() },
    }
}

/// The button for somebody who looked at a stranger's commit. GitHub tells with a click which commit its check stands on.
fn approve() -> CheckAction {
    CheckAction {
        label: APPROVE.to_owned(),
        description: "You read this commit's change; run it".to_owned(),
        identifier: "ok-to-test".to_owned(),
    }
}

const APPROVE: &str = "Approve and run";

const NOTHING: &str = "No app was found that has something to run, so nothing stands against this commit. This check \
    does something as soon as there is a `Cargo.toml`, `pom.xml`, `package.json` or another build file that it knows, \
    or a `.github/switchover.yml` such as\n\n```yaml\nversion: 1\napps:\n  web:\n    path: .\n    steps:\n      test: \
    {run: make test}\n```";

fn all_steps(run: &RunView) -> impl Iterator<Item = &StepView> {
    run.jobs.iter().flat_map(|job| &job.steps)
}

fn ended_at(run: &RunView) -> Timestamp {
    let steps = all_steps(run).filter_map(|step| step.finished).max();
    run.finished_at.into_iter().chain(steps).max().unwrap_or(run.created_at)
}

/// The worse of two ends: a failure tells most, then what a person can do something about.
fn worse(a: Conclusion, b: Conclusion) -> Conclusion {
    let rank = |c: Conclusion| match c {
        Conclusion::Success => 0,
        Conclusion::Neutral | Conclusion::Skipped | Conclusion::Cancelled => 1,
        Conclusion::ActionRequired => 2,
        Conclusion::TimedOut => 3,
        Conclusion::Failure => 4,
    };
    if rank(b) > rank(a) { b } else { a }
}

/// Waits for a person, and nothing has happened to it since.
fn waits(run: &RunView) -> bool {
    (run.trust == Trust::Parked || run.parked.is_some()) && matches!(run.outcome, None | Some(Outcome::ActionRequired))
}

/// Waits for somebody who approves a stranger's commit; anything else that waits does so for the server's operator.
fn stranger_waits(run: &RunView) -> bool {
    run.trust == Trust::Parked && waits(run)
}

/// What a run that is over is told as: a run that was stopped after one of its steps failed has failed.
#[must_use]
pub fn told(outcome: Outcome, steps: impl IntoIterator<Item = Outcome>) -> Outcome {
    steps.into_iter().fold(outcome, |worst, step| {
        let (a, b) = (step::conclusion(worst), step::conclusion(step));
        if worse(a, b) == a { worst } else { step }
    })
}

fn standing_of(run: &RunView) -> Standing {
    if !run.config_mistakes.is_empty() || !run.conflicts.is_empty() {
        return Standing::Ended(Conclusion::Failure);
    }
    if waits(run) {
        return Standing::Ended(Conclusion::ActionRequired);
    }
    let Some(outcome) = run.outcome else {
        let begun = all_steps(run).any(|s| s.state != StepState::Queued);
        return if begun { Standing::Running } else { Standing::Queued };
    };
    // Said to be green while a step is not: not believed. Any other end is final, its steps are cut off.
    if outcome == Outcome::Success && all_steps(run).any(|one| step::ended(one).is_none()) {
        return Standing::Running;
    }
    let ends = all_steps(run).filter(|one| one.state == StepState::Done).filter_map(|one| one.outcome);
    Standing::Ended(step::conclusion(told(outcome, ends)))
}

fn standing(runs: &[&RunView]) -> Standing {
    if runs.iter().any(|run| !run.config_mistakes.is_empty()) {
        return Standing::Ended(Conclusion::Failure);
    }
    let all: Vec<Standing> = runs.iter().map(|run| standing_of(run)).collect();
    let mut worst = Conclusion::Success;
    let mut open = all.is_empty();
    for one in &all {
        match one {
            Standing::Ended(conclusion) => worst = worse(worst, *conclusion),
            Standing::Queued | Standing::Running => open = true,
        }
    }
    match (open, all.iter().all(|one| *one == Standing::Queued)) {
        (true, true) => Standing::Queued,
        (true, false) => Standing::Running,
        (false, _) => Standing::Ended(worst),
    }
}

fn title(runs: &[&RunView], standing: Standing) -> String {
    let mistakes: usize = runs.iter().map(|run| run.config_mistakes.len()).sum();
    if mistakes > 0 {
        return format!("{} in {}", count(mistakes as u64, "mistake", "mistakes"), files(&distinct(runs)).join(", "));
    }
    let mut steps = Vec::new();
    for run in runs {
        for job in &run.jobs {
            for one in &job.steps {
                steps.push((step::name(run, job, one), step::ended(one)));
            }
        }
    }
    let ended = steps.iter().filter(|(_, end)| end.is_some()).count();
    let bad: Vec<&(String, Option<Conclusion>)> =
        steps.iter().filter(|(_, end)| matches!(end, Some(Conclusion::Failure | Conclusion::TimedOut))).collect();
    let names = |list: &[&(String, Option<Conclusion>)]| {
        let shown: Vec<&str> = list.iter().take(3).map(|(name, _)| name.as_str()).collect();
        let more = if list.len() > shown.len() { ", …" } else { "" };
        format!("{}{more}", shown.join(", "))
    };
    match standing {
        Standing::Queued => "Queued".to_owned(),
        Standing::Running if steps.is_empty() => "Running".to_owned(),
        Standing::Running if bad.is_empty() => format!("{} done", words::of(ended, steps.len())),
        Standing::Running => format!("{} done, {} failed", words::of(ended, steps.len()), bad.len()),
        Standing::Ended(_) if runs.iter().any(|run| !run.conflicts.is_empty()) => {
            let files: usize = runs.iter().map(|run| run.conflicts.len()).sum();
            format!("Merge conflict in {}: nothing was tested", count(files as u64, "file", "files"))
        }
        Standing::Ended(Conclusion::Success) if steps.is_empty() => "Nothing to run".to_owned(),
        Standing::Ended(Conclusion::Success) => {
            // The longest run: between a push and the pull request that follows it, nothing was tested.
            let longest = runs.iter().map(|r| between(r.created_at, ended_at(r))).max();
            let time = longest.map(|ms| format!(" in {}", duration(ms))).unwrap_or_default();
            format!("{} passed{time}", count(steps.len() as u64, "check", "checks"))
        }
        Standing::Ended(Conclusion::Failure | Conclusion::TimedOut) if !bad.is_empty() => {
            format!("{} failed: {}", words::of(bad.len(), steps.len()), names(&bad))
        }
        Standing::Ended(Conclusion::Failure | Conclusion::TimedOut) => "Failed".to_owned(),
        Standing::Ended(Conclusion::ActionRequired) if runs.iter().any(|run| stranger_waits(run)) => {
            "Waits until somebody approves this commit".to_owned()
        }
        Standing::Ended(Conclusion::ActionRequired) => "Waits for the operator of this server".to_owned(),
        Standing::Ended(Conclusion::Cancelled | Conclusion::Neutral | Conclusion::Skipped) => {
            match runs.iter().find_map(|run| run.superseded_by.as_ref()) {
                Some(newer) => format!("Superseded by {}", newer.sha.short()),
                None if runs.iter().any(|r| infrastructure(r)) => {
                    "Not the commit's fault: could not be run to its end".to_owned()
                }
                None => "Cancelled before everything had run".to_owned(),
            }
        }
    }
}

fn infrastructure(run: &RunView) -> bool {
    run.outcome == Some(Outcome::Infrastructure) || all_steps(run).any(|s| s.outcome == Some(Outcome::Infrastructure))
}

/// The line, a caret below it, and what was expected.
fn caret(mistake: &MistakeView) -> String {
    let (file, message) = (one_line(&mistake.file, 300), one_line(&mistake.message, 500));
    let mut out = format!("{file}:{}:{}: {message}\n", mistake.line, mistake.column);
    if let Some(source) = &mistake.source {
        let number = mistake.line.to_string();
        let margin = " ".repeat(number.len());
        // Tabs would put the caret elsewhere.
        let source = text::clean(source).replace(['\t', '\n'], " ");
        let before = (mistake.column.max(1) as usize - 1).min(source.chars().count());
        // A window of a very long line.
        let skip = before.saturating_sub(100);
        let shown: String = source.chars().skip(skip).take(200).collect();
        let room = shown.chars().count().saturating_sub(before - skip).max(1);
        let marks = "^".repeat((mistake.length.max(1) as usize).min(room));
        out.push_str(&format!("{margin} |\n{number} | {shown}\n{margin} | {}{marks}\n", " ".repeat(before - skip)));
    }
    if let Some(expected) = &mistake.expected {
        out.push_str(&format!("expected: {}\n", one_line(expected, 500)));
    }
    if let Some(hint) = &mistake.hint {
        out.push_str(&format!("hint: {}\n", one_line(hint, 500)));
    }
    out.trim_end().to_owned()
}

/// The mistakes of all contexts; the same one in two of them once.
fn distinct<'a>(runs: &[&'a RunView]) -> Vec<&'a MistakeView> {
    let mut out: Vec<&MistakeView> = Vec::new();
    for mistake in runs.iter().flat_map(|run| &run.config_mistakes) {
        if !out.contains(&mistake) {
            out.push(mistake);
        }
    }
    out
}

/// The files that the mistakes are in, a few of them.
fn files(mistakes: &[&MistakeView]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for mistake in mistakes {
        if !out.contains(&mistake.file) {
            out.push(mistake.file.clone());
        }
    }
    if out.len() > 3 {
        out.truncate(3);
        out.push("…".to_owned());
    }
    out
}

fn annotations(runs: &[&RunView]) -> Vec<Annotation> {
    let annotation = |mistake: &MistakeView| {
        let mut message = one_line(&mistake.message, 1_000);
        if message.is_empty() {
            "This is not understood".clone_into(&mut message);
        }
        for (word, part) in [("Expected", &mistake.expected), ("Hint", &mistake.hint)] {
            if let Some(part) = part {
                message.push_str(&format!("\n{word}: {}", one_line(part, 1_000)));
            }
        }
        Annotation {
            path: mistake.file.clone(),
            start_line: mistake.line.max(1),
            end_line: mistake.line.max(1),
            level: AnnotationLevel::Failure,
            message,
            title: Some(one_line(&mistake.message, 255)).filter(|t| !t.is_empty()),
            raw_details: Some(caret(mistake)),
        }
    };
    distinct(runs).into_iter().map(annotation).take(ANNOTATIONS_MAX).collect()
}

fn mistakes(doc: &mut Doc, runs: &[&RunView]) {
    let found = distinct(runs);
    if found.is_empty() {
        return;
    }
    let files: Vec<String> = files(&found).iter().map(|file| code(&one_line(file, 300))).collect();
    let are = if files.len() > 1 { "are" } else { "is" };
    doc.block(&format!(
        "Nothing runs before {} {are} mended. `switchover check` shows the same for a local checkout.",
        files.join(", ")
    ));
    for mistake in found.iter().take(ANNOTATIONS_MAX) {
        doc.block(&fence(&caret(mistake), "text", 4_000));
    }
    if found.len() > ANNOTATIONS_MAX {
        doc.block(&format!("… and {} more.", found.len() - ANNOTATIONS_MAX));
    }
}

fn conflicts(doc: &mut Doc, runs: &[&RunView]) {
    for run in runs.iter().filter(|run| !run.conflicts.is_empty()) {
        let base = run.base_ref.as_deref().unwrap_or("its base");
        doc.block(&format!(
            "{} and {} changed the same places, so there is no merge to test. Merge {} into your branch (or rebase), \
             resolve the conflicts and push: the tests then start by themselves.",
            code(&run.branch),
            code(base),
            code(base),
        ));
        let files: Vec<String> = run.conflicts.iter().map(|f| format!("- {}", code(&one_line(f, 500)))).collect();
        doc.list("### In conflict", &files, 100);
    }
}

fn parked(doc: &mut Doc, head_sha: &Sha, runs: &[&RunView]) {
    for run in runs.iter().filter(|run| waits(run)) {
        let why = run.parked.as_deref().unwrap_or("does not come from the repository itself");
        let why = plain(&one_line(why, 500));
        if !stranger_waits(run) {
            doc.block(&why);
            continue;
        }
        doc.block(&format!(
            "This {}. Nothing of it runs before somebody who may write here, and did not open the pull request, has \
             looked at the change and approves exactly this commit ({}). A later push waits again. It never gets a secret.",
            why.trim_end_matches('.'),
            code(head_sha.as_str()),
        ));
    }
}

fn table(doc: &mut Doc, runs: &[&RunView]) {
    let mut rows = Vec::new();
    for run in runs {
        for job in &run.jobs {
            for one in &job.steps {
                rows.push(format!(
                    "| {} | {} | {} |",
                    link(&plain(&step::name(run, job, one)), &one.log_url),
                    words::state_word(one, step::ended(one)),
                    plain(&step::title(run, job, one)),
                ));
            }
        }
    }
    doc.rows("", "| Check | State | Result |\n| --- | --- | --- |", &rows, 500);
}

fn superseded(doc: &mut Doc, runs: &[&RunView]) {
    for run in runs {
        if let Some(newer) = run.superseded_by.as_ref().filter(|_| run.outcome == Some(Outcome::Superseded)) {
            let to = link(&format!("the run of {}", code(newer.sha.short())), &newer.url);
            doc.block(&format!("A newer commit took its place ({}): {to}.", run.context.as_str()));
        }
    }
}

fn next(runs: &[&RunView], standing: Standing) -> String {
    let (lead, lines) = match standing {
        Standing::Queued | Standing::Running => return String::new(),
        Standing::Ended(_) if runs.iter().any(|run| !run.config_mistakes.is_empty()) => {
            ("To see the same before you push:", vec!["switchover check".to_owned()])
        }
        Standing::Ended(_) if runs.iter().any(|run| !run.conflicts.is_empty()) => {
            let base = runs.iter().find(|r| !r.conflicts.is_empty()).and_then(|r| r.base_ref.clone());
            let base = base.unwrap_or_else(|| "HEAD".to_owned());
            ("On your branch:", vec![format!("git fetch origin {0} && git merge FETCH_HEAD", words::shell_word(&base))])
        }
        Standing::Ended(Conclusion::Success) if runs.iter().all(|run| run.jobs.is_empty()) => {
            ("To see what would be found in a local checkout:", vec!["switchover check".to_owned()])
        }
        Standing::Ended(Conclusion::Success) => return "To run all of it again, press **Re-run**.".to_owned(),
        Standing::Ended(Conclusion::ActionRequired) if runs.iter().any(|run| stranger_waits(run)) => {
            return format!("To let exactly this commit run, press **{APPROVE}** on this check.");
        }
        // What it waits for is said above.
        Standing::Ended(Conclusion::ActionRequired) => return String::new(),
        // The newer run has its own check.
        Standing::Ended(Conclusion::Cancelled) if runs.iter().any(|run| run.superseded_by.is_some()) => {
            return String::new();
        }
        Standing::Ended(_) => {
            return "To run all of it again, press **Re-run**; for one app alone, on its own check.".to_owned();
        }
    };
    words::commands(lead, &lines)
}

//! Sentences that several checks share.

use super::{
    text::{code, first_line, link, number, one_line, plain},
    view::{RunView, StepView},
};
use crate::domain::{
    check::Conclusion,
    ids::Sha,
    run::{Context, Trust},
};

/// A commit as a link, seven digits long.
pub(super) fn commit(web_url: &str, repo: &str, sha: &Sha) -> String {
    link(&code(sha.short()), &format!("{web_url}/{repo}/commit/{sha}"))
}

/// A line of a file as a link.
pub(super) fn file_line(run: &RunView, path: &str, line: u32) -> String {
    let mut encoded = String::with_capacity(path.len());
    for b in path.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~/".contains(&b) {
            encoded.push(char::from(b));
        } else {
            encoded.push_str(&format!("%{b:02X}"));
        }
    }
    let url = format!("{}/{}/blob/{}/{encoded}#L{line}", run.web_url, run.repo, run.head_sha);
    link(&code(&format!("{path}:{line}")), &url)
}

/// What is tested and against what: one sentence of markdown.
pub(super) fn tested(run: &RunView) -> String {
    let head = commit(&run.web_url, &run.repo, &run.head_sha);
    let base = || {
        let name = run.base_ref.as_deref().map(code);
        let sha = run.base_sha.as_ref().map(|sha| commit(&run.web_url, &run.repo, sha));
        match (name, sha) {
            (Some(name), Some(sha)) => format!("{name} ({sha})"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => "its base".to_owned(),
        }
    };
    let mut out = match run.context {
        Context::Push => format!("Commit {head} as pushed to {}.", code(&run.branch)),
        Context::PullRequest => {
            let pull = match run.pull {
                Some(n) => link(&format!("pull request {n}"), &format!("{}/{}/pull/{n}", run.web_url, run.repo)),
                None => "pull request".to_owned(),
            };
            let merged = if run.test_sha.is_some() { "merged into" } else { "meant for" };
            format!("Commit {head} of {}, {merged} {} ({pull}).", code(&run.branch), base())
        }
        Context::MergeGroup => format!("Commit {head} as the merge queue wants to put it on {}.", base()),
    };
    match &run.trust {
        Trust::Own => {}
        Trust::Approved(sha) => {
            out.push_str(&format!(
                " Not the repository's own code: it runs because {} was approved.",
                code(sha.short())
            ));
        }
        Trust::Parked => out.push_str(" Not the repository's own code: nothing runs before somebody approves it."),
    }
    if run.attempt > 1 {
        out.push_str(&format!(" Attempt {}.", run.attempt));
    }
    out
}

/// The last block of a summary: what can be said now, ready to be copied.
pub(super) fn commands(lead: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return lead.to_owned();
    }
    // Only commands, names that the configuration allows and commits stand here.
    format!("{lead}\n\n```\n{}\n```", lines.join("\n"))
}

/// Notes as a list; what says nothing is left out (an empty point below text would make that text a heading).
pub(super) fn notes(notes: &[String]) -> Vec<String> {
    let said = notes.iter().map(|note| plain(&one_line(note, 1_000))).filter(|note| !note.is_empty());
    said.map(|note| format!("- {note}")).collect()
}

/// A person as running text, without an `@`.
pub(super) fn person(name: &str) -> String {
    or(plain(&one_line(name, 100)), "nobody known")
}

/// A commit's or pull request's title as running text.
pub(super) fn subject(message: &str) -> String {
    or(plain(&first_line(message, 150)), "no message")
}

fn or(text: String, instead: &str) -> String {
    if text.is_empty() { instead.to_owned() } else { text }
}

/// A word for the shell; quoted where it has to be.
pub(super) fn shell_word(word: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "/_.-".contains(c);
    if !word.is_empty() && word.len() <= 255 && !word.starts_with('-') && word.chars().all(safe) {
        word.to_owned()
    } else {
        format!("'{}'", one_line(word, 300).replace('\'', "'\\''"))
    }
}

/// The sign and word of how a step stands.
pub(super) fn state_word(step: &StepView, conclusion: Option<Conclusion>) -> &'static str {
    use super::view::StepState;
    match (step.state, conclusion) {
        (StepState::Queued, _) => "· queued",
        (StepState::Running, _) | (StepState::Done, None) => "▸ running",
        (StepState::Done, Some(Conclusion::Success)) => "✓ passed",
        (StepState::Done, Some(Conclusion::Failure)) => "✗ failed",
        (StepState::Done, Some(Conclusion::TimedOut)) => "✗ timed out",
        (StepState::Done, Some(Conclusion::ActionRequired)) => "! waits",
        (StepState::Done, Some(Conclusion::Cancelled | Conclusion::Neutral | Conclusion::Skipped)) => "⊘ not run",
    }
}

/// `2 of 5 checks`.
pub(super) fn of(part: usize, whole: usize) -> String {
    format!("{} of {}", number(part as u64), number(whole as u64))
}

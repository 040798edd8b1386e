//! Reads what `cargo test` prints ("The rustc book", Tests: the pretty format).

use std::collections::{HashMap, HashSet};

use super::{MESSAGE, TRACE, Tally, locate::Locator, plain};
use crate::domain::run::{TestCase, TestReport, TestState};

/// Test programs of one log.
const PROGRAMS: usize = 10_000;
/// Cases of one program whose names are remembered.
const CASES: usize = 200_000;
/// Bytes of one failure's output that are looked at.
const SECTION: usize = 64 * 1024;

/// One test program's part of the log.
#[derive(Default)]
struct Program {
    suite: String,
    announced: u64,
    cases: Vec<(String, TestState, Option<f64>)>,
    /// A `test NAME ... ` whose verdict has not come yet: the test printed something in between.
    waiting: Option<String>,
    failed: HashSet<String>,
    sections: HashMap<String, String>,
    section: Option<String>,
    /// The list of names behind the sections has begun.
    listing: bool,
}

/// Reads a step's log. A log without libtest's words gives an empty report.
pub fn read_libtest<L: AsRef<str>>(
    lines: impl IntoIterator<Item = L>,
    app_path: &str,
    exists: &dyn Fn(&str) -> bool,
) -> TestReport {
    let mut tally = Tally::default();
    // Paths are printed relative to the workspace, which may lie above the app's folder.
    let locator = Locator::new(app_path, "x", exists);
    let mut next_suite = String::new();
    let mut program: Option<Program> = None;
    let mut programs = 0;
    for line in lines {
        let line = plain(line.as_ref(), 8 * 1024);
        if let Some(suite) = header(&line)
            && program.as_ref().is_none_or(|p| p.section.is_none())
        {
            lost(&mut tally, program.take());
            next_suite = suite;
            continue;
        }
        let begins = line.strip_prefix("running ").and_then(|rest| {
            let (count, word) = rest.split_once(' ')?;
            matches!(word, "test" | "tests").then(|| count.parse::<u64>().ok())?
        });
        match (&mut program, begins) {
            // A test may print the same words; only where no failure's output stands they are the program's.
            (current, Some(announced)) if current.as_ref().is_none_or(|p| p.section.is_none()) => {
                lost(&mut tally, current.take());
                programs += 1;
                if programs > PROGRAMS {
                    tally.problem(format!("more than {PROGRAMS} test programs; the rest is not read"));
                    break;
                }
                program = Some(Program { suite: next_suite.clone(), announced, ..Program::default() });
            }
            (Some(current), _) => {
                if current.take(&line) {
                    finish(&mut tally, &locator, program.take(), counts(&line));
                }
            }
            (None, _) => {}
        }
    }
    lost(&mut tally, program);
    tally.finish()
}

/// `     Running unittests src/lib.rs (target/debug/deps/shop-0123456789abcdef)`, `   Doc-tests shop`.
fn header(line: &str) -> Option<String> {
    // Cargo sets its words flush with the twelfth column.
    if let Some(name) = line.strip_prefix("   Doc-tests ") {
        return Some(format!("{} (doc)", plain(name, 100)));
    }
    let path = line.strip_prefix("     Running ")?.strip_suffix(')')?.rsplit_once('(')?.1;
    let stem = path.rsplit(['/', '\\']).next()?.trim_end_matches(".exe");
    let name = stem.rsplit_once('-').filter(|(_, hash)| hash.len() == 16).map_or(stem, |(name, _)| name);
    Some(plain(name, 100))
}

/// `ok`, `FAILED`, `ignored, why`, each perhaps with `<0.012s>`.
fn verdict(text: &str) -> Option<(TestState, Option<f64>)> {
    let text = text.trim();
    let (word, time) = match text.rsplit_once('<').filter(|(_, t)| t.ends_with("s>")) {
        Some((word, time)) => (word.trim(), time.trim_end_matches("s>").parse().ok().filter(|s: &f64| s.is_finite())),
        None => (text, None),
    };
    let state = match word {
        "ok" => TestState::Passed,
        "FAILED" | "FAILED (time limit exceeded)" => TestState::Failed,
        _ if word == "ignored" || word.starts_with("ignored, ") => TestState::Skipped,
        _ if word.starts_with("bench:") => TestState::Passed,
        _ => return None,
    };
    Some((state, time))
}

impl Program {
    /// Takes a line; answers whether it was the program's last one.
    fn take(&mut self, line: &str) -> bool {
        if let Some(name) = line.strip_prefix("---- ").and_then(|l| l.strip_suffix(" stdout ----")) {
            if self.failed.contains(name) {
                self.section = Some(name.to_owned());
                return false;
            }
        } else if line == "failures:" {
            // Once before the outputs, once before the list of names.
            self.listing = self.section.take().is_some();
            return false;
        }
        if let Some(name) = &self.section {
            let text = self.sections.entry(name.clone()).or_default();
            if text.len() + line.len() < SECTION {
                text.push_str(line);
                text.push('\n');
            }
            return false;
        }
        if line.starts_with("test result: ") {
            return true;
        }
        if self.listing {
            return false;
        }
        if let Some((name, rest)) = line.strip_prefix("test ").and_then(|l| l.split_once(" ... ")) {
            self.waiting = None;
            match verdict(rest) {
                Some((state, time)) => self.add(name, state, time),
                None => self.waiting = Some(name.to_owned()),
            }
        } else if let Some(name) = line.strip_prefix("test ").and_then(|l| l.strip_suffix(" ...")) {
            self.waiting = Some(name.to_owned());
        } else if let Some(name) = self.waiting.take() {
            match verdict(line) {
                Some((state, time)) => self.add(&name, state, time),
                None => self.waiting = Some(name),
            }
        }
        false
    }

    fn add(&mut self, name: &str, state: TestState, time: Option<f64>) {
        if self.cases.len() < CASES {
            // Where the outputs stand, names have no such endings.
            let endings = [" - should panic", " - compile fail", " - compile"];
            let name = endings.iter().find_map(|e| name.strip_suffix(e)).unwrap_or(name);
            if state == TestState::Failed {
                self.failed.insert(name.to_owned());
            }
            self.cases.push((name.to_owned(), state, time));
        }
    }
}

/// `test result: FAILED. 1 passed; 2 failed; 3 ignored; …`.
fn counts(line: &str) -> Option<[u32; 3]> {
    let mut parts = line.split_once(". ")?.1.split("; ");
    let mut next = |word: &str| parts.next()?.strip_suffix(word)?.trim().parse().ok();
    Some([next("passed")?, next("failed")?, next("ignored")?])
}

/// Counts the program's cases. What it says itself is right: names get lost when tests print among them.
fn finish(tally: &mut Tally, locator: &Locator<'_>, program: Option<Program>, said: Option<[u32; 3]>) {
    let Some(mut program) = program else { return };
    let before = [tally.report.passed, tally.report.failed, tally.report.skipped];
    for (name, state, seconds) in std::mem::take(&mut program.cases) {
        let output = program.sections.remove(&name).filter(|_| tally.has_room(state));
        let story = output.as_deref().map(|text| tell(text, locator));
        let (message, location) = story.unwrap_or((None, None));
        tally.add(TestCase {
            suite: program.suite.clone(),
            name: plain(&name, 300),
            seconds,
            state,
            message,
            trace: output.map(|text| plain(text.trim(), TRACE)).filter(|t| !t.is_empty()),
            location,
        });
    }
    if let Some(said) = said {
        let [passed, failed, skipped] = [0, 1, 2].map(|n: usize| before[n].saturating_add(said[n]));
        (tally.report.passed, tally.report.failed, tally.report.skipped) = (passed, failed, skipped);
    }
}

/// A program that never printed its result: it was killed, or broke as a whole.
fn lost(tally: &mut Tally, program: Option<Program>) {
    let Some(program) = program else { return };
    let (suite, announced, told) = (&program.suite, program.announced, program.cases.len());
    let during = program.waiting.as_ref().map(|name| format!(" during {}", plain(name, 200))).unwrap_or_default();
    tally.problem(format!(
        "{suite}: the test program ended{during} after {told} of {announced} tests, without a result"
    ));
    let nowhere = Locator::new("", "x", &|_| false);
    finish(tally, &nowhere, Some(program), None);
}

/// The message and place in what a failed test printed.
fn tell(text: &str, locator: &Locator<'_>) -> (Option<String>, Option<(String, u32)>) {
    let mut lines = text.lines();
    let mut message = None;
    while let Some(line) = lines.next() {
        let Some((_, rest)) = line.split_once(" panicked at ").filter(|_| line.trim_start().starts_with("thread '"))
        else {
            continue;
        };
        // Since Rust 1.73 the message stands on the lines below; before, in quotes on this one.
        message = match rest.strip_prefix('\'').and_then(|r| r.rsplit_once("', ")) {
            Some((quoted, _)) => Some(quoted.to_owned()),
            None => Some(
                lines
                    .by_ref()
                    .take_while(|l| !l.starts_with("note: ") && !l.starts_with("stack backtrace:") && !l.is_empty())
                    .take(50)
                    .collect::<Vec<_>>()
                    .join("\n"),
            ),
        };
        break;
    }
    let message = message
        .filter(|m| !m.trim().is_empty())
        .or_else(|| text.lines().map(str::trim).find(|l| !l.is_empty()).map(str::to_owned))
        .map(|m| plain(m.trim_end(), MESSAGE));
    let panicked = text.lines().find(|l| l.contains(" panicked at ") || l.contains("did not panic as expected at "));
    let location = panicked.and_then(|l| locator.mentioned(l)).or_else(|| locator.mentioned(text));
    (message, location)
}

//! A tolerant reader of JUnit XML. There is no standard; this follows Surefire's schema ("Maven Surefire Report", XSD)
//! and takes what others do differently: nested suites, no classes, `file` and `line`, other words for the same.

use quick_xml::{
    Reader,
    events::{BytesStart, Event},
};

use super::{MESSAGE, TRACE, Tally, locate::Locator, plain};
use crate::domain::run::{TestCase, TestReport, TestState};

/// Elements within elements.
const DEPTH: usize = 64;
/// Cases of one file.
const CASES: usize = 200_000;

/// Reads report files, given as path (from the app's folder) and content. `exists` tells whether the commit has a file
/// at a path from the repository's root.
#[must_use]
pub fn read_junit(files: &[(String, Vec<u8>)], app_path: &str, exists: &dyn Fn(&str) -> bool) -> TestReport {
    let mut tally = Tally::default();
    for (name, content) in files {
        let locator = Locator::new(app_path, name, exists);
        let text = String::from_utf8_lossy(content);
        let text = text.trim_start_matches('\u{FEFF}');
        let mut file =
            FileReader { tally: &mut tally, locator, open: Vec::new(), suites: Vec::new(), case: None, count: 0 };
        if let Err(problem) = file.read(text) {
            file.tally.problem(format!("{}: {problem}", plain(name, 200)));
        }
    }
    tally.finish()
}

/// What an open element is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Suite,
    Case,
    /// A failure; its text is a trace.
    Failure,
    /// A failure that a rerun made good, or one of several reruns.
    Rerun,
    /// Text here belongs to nobody.
    Other,
    /// Text here belongs to the element around it.
    Transparent,
}

/// A case that is being read.
#[derive(Debug, Default)]
struct Case {
    class: String,
    name: String,
    seconds: Option<f64>,
    file: Option<String>,
    line: Option<u32>,
    failed: bool,
    flaky: bool,
    skipped: bool,
    /// Those of the first failure.
    message: String,
    kind: String,
    trace: String,
    /// The first failure has been read to its end.
    told: bool,
}

struct FileReader<'a> {
    tally: &'a mut Tally,
    locator: Locator<'a>,
    open: Vec<Element>,
    suites: Vec<String>,
    case: Option<Case>,
    count: usize,
}

impl FileReader<'_> {
    fn read(&mut self, text: &str) -> Result<(), String> {
        if text.trim().is_empty() {
            return Err("is empty".into());
        }
        let mut reader = Reader::from_str(text);
        let config = reader.config_mut();
        config.check_end_names = false;
        config.allow_unmatched_ends = true;
        config.allow_dangling_amp = true;
        let mut known = false;
        loop {
            let at = reader.buffer_position();
            let line = || {
                1 + text.as_bytes()[..usize::try_from(at).unwrap_or(0).min(text.len())]
                    .iter()
                    .filter(|b| **b == b'\n')
                    .count()
            };
            let event = match reader.read_event() {
                Ok(event) => event,
                Err(e) => {
                    self.cut_off();
                    return Err(format!("is broken in line {}: {e}", line()));
                }
            };
            match event {
                Event::Start(start) => {
                    known |= self.start(&start).map_err(|e| format!("{e} in line {}", line()))?;
                }
                Event::Empty(start) => {
                    known |= self.start(&start).map_err(|e| format!("{e} in line {}", line()))?;
                    self.end();
                }
                Event::End(_) => self.end(),
                Event::Text(text) => self.text(&text),
                Event::CData(text) => self.text(&text),
                Event::GeneralRef(name) => self.text(&resolve(&name)),
                Event::DocType(doctype) if doctype.contains(['[', '<']) => {
                    return Err("has a document type with entities, which are not read".into());
                }
                Event::Eof if !known => return Err("is no JUnit XML: there is no <testsuite>".into()),
                Event::Eof if !self.open.is_empty() => {
                    self.cut_off();
                    return Err(format!("ends in the middle, in line {}", line()));
                }
                Event::Eof => return Ok(()),
                Event::DocType(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            }
        }
    }

    /// Whether a case stands right around the element that begins.
    fn in_case(&self) -> bool {
        self.open.iter().rev().find(|e| **e != Element::Transparent) == Some(&Element::Case)
    }

    fn start(&mut self, start: &BytesStart<'_>) -> Result<bool, String> {
        if self.open.len() >= DEPTH {
            return Err(format!("is nested deeper than {DEPTH}"));
        }
        let full = start.name();
        let name: &str = full.as_ref();
        let element = match name.rsplit(':').next().unwrap_or_default() {
            "testsuites" => Element::Transparent,
            "testsuite" => {
                self.suites.push(attribute(start, "name").unwrap_or_default());
                Element::Suite
            }
            "testcase" if self.case.is_none() => {
                self.begin(start)?;
                Element::Case
            }
            "failure" | "error" if self.in_case() => {
                self.failure(start);
                Element::Failure
            }
            // A suite that could not even begin.
            "failure" | "error" if self.case.is_none() && self.open.last() == Some(&Element::Suite) => {
                self.case = Some(Case { name: "(the suite itself)".into(), ..Case::default() });
                self.failure(start);
                Element::Failure
            }
            word @ ("flakyFailure" | "flakyError" | "rerunFailure" | "rerunError") if self.in_case() => {
                if let Some(case) = &mut self.case {
                    case.flaky |= word.starts_with("flaky");
                }
                self.failure_text(start);
                Element::Rerun
            }
            "skipped" | "ignored" | "disabled" if self.in_case() => {
                if let Some(case) = &mut self.case {
                    case.skipped = true;
                }
                Element::Other
            }
            "stackTrace" => Element::Transparent,
            _ => Element::Other,
        };
        self.open.push(element);
        Ok(matches!(element, Element::Suite | Element::Case) || name == "testsuites")
    }

    fn begin(&mut self, start: &BytesStart<'_>) -> Result<(), String> {
        self.count += 1;
        if self.count > CASES {
            return Err(format!("has more than {CASES} cases; the rest is not read"));
        }
        let mut case = Case::default();
        for (name, value) in attributes(start) {
            match name.as_str() {
                "classname" | "class" if case.class.is_empty() => case.class = value,
                "name" => case.name = value,
                "time" => case.seconds = seconds(&value),
                "file" => case.file = Some(value),
                "line" => case.line = value.parse().ok().filter(|n| *n > 0),
                "status" | "result" => {
                    case.skipped |= ["skipped", "notrun", "disabled", "ignored", "suppressed"]
                        .contains(&value.to_ascii_lowercase().as_str());
                }
                _ => {}
            }
        }
        self.case = Some(case);
        Ok(())
    }

    fn failure(&mut self, start: &BytesStart<'_>) {
        if let Some(case) = &mut self.case {
            // What follows is the failure that counts, also after reruns that were told first.
            if !case.failed {
                case.message.clear();
                case.trace.clear();
                case.told = false;
            }
            case.failed = true;
        }
        self.failure_text(start);
    }

    fn failure_text(&mut self, start: &BytesStart<'_>) {
        let Some(case) = self.case.as_mut().filter(|case| !case.told && case.message.is_empty()) else { return };
        case.message = attribute(start, "message").unwrap_or_default();
        case.kind = attribute(start, "type").unwrap_or_default();
    }

    fn text(&mut self, text: &str) {
        let Some(case) = &mut self.case else { return };
        let around = self.open.iter().rev().find(|e| **e != Element::Transparent);
        let indentation = case.trace.is_empty() && text.trim().is_empty();
        if matches!(around, Some(Element::Failure | Element::Rerun))
            && !case.told
            && !indentation
            && case.trace.len() < 2 * TRACE
        {
            case.trace.push_str(text);
        }
    }

    fn end(&mut self) {
        match self.open.pop() {
            Some(Element::Suite) => {
                self.suites.pop();
            }
            Some(Element::Failure | Element::Rerun) => {
                if let Some(case) = &mut self.case {
                    case.told = true;
                }
                if !self.open.contains(&Element::Case) {
                    self.finish_case();
                }
            }
            Some(Element::Case) => self.finish_case(),
            Some(Element::Other | Element::Transparent) | None => {}
        }
    }

    /// The file ends here: a failure that was begun is one.
    fn cut_off(&mut self) {
        if self.case.as_ref().is_some_and(|case| case.failed) {
            self.finish_case();
        }
        self.case = None;
    }

    fn finish_case(&mut self) {
        let Some(case) = self.case.take() else { return };
        let state = match &case {
            Case { failed: true, .. } => TestState::Failed,
            Case { flaky: true, .. } => TestState::Flaky,
            Case { skipped: true, .. } => TestState::Skipped,
            _ => TestState::Passed,
        };
        let suite = if case.class.is_empty() {
            self.suites.iter().rev().find(|s| !s.is_empty()).cloned().unwrap_or_default()
        } else {
            case.class.clone()
        };
        let detailed = self.tally.has_room(state);
        let location = if detailed { self.locate(&case, &suite) } else { None };
        let own_name = format!("{}::{}", case.class, case.name);
        let mut lines = case.trace.lines().map(str::trim).filter(|l| !l.is_empty() && *l != own_name);
        let said = Some(case.message.trim()).filter(|m| !m.is_empty());
        let message = said.or_else(|| lines.next()).unwrap_or(&case.kind).to_owned();
        let some = |text: String| (detailed && !text.is_empty()).then_some(text);
        self.tally.add(TestCase {
            suite: plain(&suite, 300),
            name: plain(if case.name.is_empty() { "(no name)" } else { &case.name }, 300),
            seconds: case.seconds,
            state,
            message: some(plain(&message, MESSAGE)),
            trace: some(plain(case.trace.trim_start_matches(['\n', '\r']).trim_end(), TRACE)),
            location,
        });
    }

    fn locate(&self, case: &Case, suite: &str) -> Option<(String, u32)> {
        let said = case.file.as_deref().and_then(|file| self.locator.file(file));
        if let (Some(file), Some(line)) = (&said, case.line) {
            // The report tells where the test begins; its text may tell where it failed.
            let failed = self.locator.mentioned(&case.trace).filter(|(f, _)| f == file);
            return failed.or_else(|| Some((file.clone(), line)));
        }
        self.locator
            .jvm(suite, &case.trace)
            .filter(|(_, line)| *line > 1)
            .or_else(|| self.locator.mentioned(&case.trace))
            .or_else(|| self.locator.mentioned(&case.message))
            .or_else(|| Some((said?, 1)))
            .or_else(|| self.locator.jvm(suite, ""))
    }
}

fn attributes(start: &BytesStart<'_>) -> Vec<(String, String)> {
    let mut all = start.attributes();
    all.with_checks(false)
        .flatten()
        .take(64)
        .map(|a| {
            let key: &str = a.key.as_ref();
            (key.to_owned(), unescape(&a.value))
        })
        .collect()
}

fn attribute(start: &BytesStart<'_>, name: &str) -> Option<String> {
    attributes(start).into_iter().find(|(n, _)| n == name).map(|(_, value)| value)
}

/// Only the five names that XML has of itself, and numbers; others stay as they are written.
fn resolve(name: &str) -> String {
    let number = name.strip_prefix('#').and_then(|n| match n.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => n.parse().ok(),
    });
    match name {
        "lt" => "<".into(),
        "gt" => ">".into(),
        "amp" => "&".into(),
        "quot" => "\"".into(),
        "apos" => "'".into(),
        _ => number.and_then(char::from_u32).map_or_else(|| format!("&{name};"), String::from),
    }
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        match after.split_once(';').filter(|(name, _)| !name.is_empty() && name.len() <= 10) {
            Some((name, more)) => {
                out.push_str(&resolve(name));
                rest = more;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// `0.123`, `1,234.5` (Surefire groups thousands), `0,5`.
fn seconds(text: &str) -> Option<f64> {
    let text = text.trim();
    let clean = if text.contains('.') { text.replace(',', "") } else { text.replace(',', ".") };
    clean.parse().ok().filter(|s: &f64| s.is_finite() && *s >= 0.0)
}

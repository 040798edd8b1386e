//! What a builder says, as lines for a log, and which of its steps failed.

use std::collections::HashMap;

use bollard::models::{BuildInfo, BuildInfoAux};

/// The longest line that is passed on, in bytes.
const MAX_LINE: usize = 64 * 1024;
/// The last lines of a failing step that its error repeats.
const TAIL: usize = 12;

/// Follows a build's output.
#[derive(Default)]
pub(super) struct Output {
    steps: Vec<Step>,
    by_digest: HashMap<String, usize>,
    /// The older builder's unfinished line, and its step.
    open: String,
    step: String,
    last: Vec<String>,
    /// The image that was made.
    pub image: Option<String>,
    /// What the builder said was wrong.
    pub error: Option<String>,
}

struct Step {
    name: String,
    shown: bool,
    ended: bool,
    failed: bool,
    open: Vec<u8>,
    tail: Vec<String>,
}

impl Output {
    /// Takes one message in; what it says goes to `said`.
    pub fn take(&mut self, info: BuildInfo, said: &dyn Fn(&str)) {
        if let Some(text) = &info.stream {
            self.stream(text, said);
        }
        match info.aux {
            Some(BuildInfoAux::Default(id)) => self.image = id.id.or(self.image.take()),
            Some(BuildInfoAux::BuildKit(status)) => {
                for vertex in status.vertexes {
                    let index = self.step_of(&vertex.digest, &vertex.name);
                    let step = &mut self.steps[index];
                    let (n, quiet) = (index + 1, step.name.starts_with("[internal]"));
                    if vertex.started.is_some() && !step.shown {
                        step.shown = true;
                        if !quiet {
                            said(&format!("#{n} {}", step.name));
                        }
                    }
                    if vertex.completed.is_none() || step.ended {
                        continue;
                    }
                    step.ended = true;
                    if !step.open.is_empty() {
                        let rest = std::mem::take(&mut step.open);
                        step.line(n, &rest, said);
                    }
                    if !vertex.error.is_empty() {
                        step.failed = !vertex.error.contains("context canceled");
                        said(&format!("#{n} ERROR: {}", vertex.error));
                    } else if vertex.cached {
                        said(&format!("#{n} CACHED"));
                    } else if let (Some(from), Some(to), false) = (&vertex.started, &vertex.completed, quiet) {
                        #[expect(clippy::cast_precision_loss, reason = "a step's time is shown with one decimal")]
                        let took = (to.seconds - from.seconds) as f64 + f64::from(to.nanos - from.nanos) / 1e9;
                        said(&format!("#{n} DONE {took:.1}s"));
                    }
                }
                for log in status.logs {
                    let index = self.step_of(&log.vertex, "");
                    self.steps[index].text(index + 1, &log.msg, said);
                }
                for warning in status.warnings {
                    said(&format!("WARNING: {}", String::from_utf8_lossy(&warning.short)));
                }
            }
            None => {}
        }
        if let Some(error) = info.error_detail.and_then(|e| e.message) {
            self.error = Some(error);
        }
    }

    fn step_of(&mut self, digest: &str, name: &str) -> usize {
        let next = self.steps.len();
        let index = *self.by_digest.entry(digest.to_owned()).or_insert(next);
        if index == next {
            self.steps.push(Step {
                name: String::new(),
                shown: false,
                ended: false,
                failed: false,
                open: Vec::new(),
                tail: Vec::new(),
            });
        }
        if !name.is_empty() {
            name.clone_into(&mut self.steps[index].name);
        }
        index
    }

    /// The older builder writes text, and not always whole lines.
    fn stream(&mut self, text: &str, said: &dyn Fn(&str)) {
        self.open.push_str(text);
        while let Some(end) = self.open.find('\n') {
            let line: String = self.open.drain(..=end).collect();
            let line = line.trim_end();
            if line.starts_with("Step ") && line.contains(" : ") {
                line.clone_into(&mut self.step);
                self.last.clear();
            } else if !line.trim().is_empty() && !line.starts_with(" ---> ") {
                keep(&mut self.last, line);
            }
            if !line.is_empty() {
                said(line);
            }
        }
        if self.open.len() > MAX_LINE {
            said(&std::mem::take(&mut self.open));
        }
    }

    /// The failing step's name as the builder gives it, and its last lines.
    pub fn failed(&self) -> Option<(&str, &[String])> {
        let by_vertex = self.steps.iter().find(|s| s.failed).map(|s| (s.name.as_str(), s.tail.as_slice()));
        by_vertex.or_else(|| (!self.step.is_empty()).then_some((self.step.as_str(), self.last.as_slice())))
    }

    /// What was said and has no line's end yet.
    pub fn rest(&mut self, said: &dyn Fn(&str)) {
        if !self.open.trim().is_empty() {
            said(self.open.trim_end());
        }
        self.open.clear();
        for (index, step) in self.steps.iter_mut().enumerate() {
            if !step.open.is_empty() {
                let rest = std::mem::take(&mut step.open);
                step.line(index + 1, &rest, said);
            }
        }
    }
}

impl Step {
    fn text(&mut self, n: usize, text: &[u8], said: &dyn Fn(&str)) {
        self.open.extend_from_slice(text);
        while let Some(end) = self.open.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.open.drain(..=end).collect();
            self.line(n, &line[..end], said);
        }
        if self.open.len() > MAX_LINE {
            let long = std::mem::take(&mut self.open);
            self.line(n, &long, said);
        }
    }

    fn line(&mut self, n: usize, line: &[u8], said: &dyn Fn(&str)) {
        let line = String::from_utf8_lossy(line);
        // Of what was overwritten on one line, the last remains, as on a terminal.
        let line = line.trim_end_matches(['\r', '\n']).rsplit('\r').next().unwrap_or_default();
        if !line.trim().is_empty() {
            keep(&mut self.tail, line);
        }
        said(&format!("#{n} {line}"));
    }
}

fn keep(tail: &mut Vec<String>, line: &str) {
    if tail.len() == TAIL {
        tail.remove(0);
    }
    tail.push(line.chars().take(400).collect());
}

//! The configuration as it is understood, in words for a terminal: `switchover check`.

use std::fmt::Write as _;

use super::{Files, Inferred, understand};
use crate::domain::config::{
    self, App, AppKind, Approval, DeployFrom, Environment, Mistake,
    mistake::{plain, render_as},
    parse_bytes,
    units::format_duration,
};

/// What `switchover check` prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// The text.
    pub text: String,
    /// False where the configuration has a mistake, or nothing can be run.
    pub ok: bool,
}

/// Checks a repository's configuration: what is written in `config_text` (None: what stands in the files), completed
/// by what can be inferred; every mistake with a caret.
#[must_use]
pub fn check_report(files: &dyn Files, config_text: Option<&str>, default_branch: &str) -> CheckReport {
    let stored = files.read(config::FILE_NAME).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let source = config_text.map(str::to_owned).or(stored).unwrap_or_default();
    let understood = match config_text {
        None => understand(files, default_branch),
        Some(text) => understand(&Instead { files, text }, default_branch),
    };
    let mut out = String::new();
    let warnings = |out: &mut String, found: &[Mistake]| {
        if !found.is_empty() {
            let _ = writeln!(out, "\n{}", render_as("warning", found, &source, config::FILE_NAME).trim_end());
        }
    };
    match understood.result {
        Err(mistakes) => {
            out.push_str(&config::render(&mistakes, &source, config::FILE_NAME));
            let count = mistakes.len();
            let _ = writeln!(out, "\n{}: {count} mistake{}", config::FILE_NAME, if count == 1 { "" } else { "s" });
            CheckReport { text: out, ok: false }
        }
        Ok(inferred) => {
            for broken in &inferred.unreadable {
                let text = broken.source.as_ref().and_then(|_| files.read(&broken.file)).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                let text = text.strip_prefix('\u{FEFF}').unwrap_or(&text);
                let _ = writeln!(out, "{}", config::render(std::slice::from_ref(&broken.mistake), text, &broken.file));
            }
            match inferred.unreadable.len() {
                0 => {}
                1 => out.push_str("1 mistake in a build file: nothing runs before it is mended.\n\n"),
                n => {
                    let _ = writeln!(out, "{n} mistakes in build files: nothing runs before they are mended.\n");
                }
            }
            let there = config_text.is_some() || files.read(config::FILE_NAME).is_some();
            let origin = match (understood.written, there) {
                (true, _) => format!("{} is right.", config::FILE_NAME),
                (false, true) if source.trim().is_empty() => {
                    format!("{} is empty: all of this is inferred.", config::FILE_NAME)
                }
                (false, true) => format!("{} holds only comments: all of this is inferred.", config::FILE_NAME),
                (false, false) => format!("There is no {}: all of this is inferred.", config::FILE_NAME),
            };
            let _ = writeln!(out, "{origin}");
            describe(&mut out, &inferred, default_branch);
            unstarted(&mut out, &inferred);
            warnings(&mut out, &understood.config_warnings);
            CheckReport { text: out, ok: !inferred.config.apps.is_empty() && inferred.unreadable.is_empty() }
        }
    }
}

/// The files with another text for the configuration.
struct Instead<'f> {
    files: &'f dyn Files,
    text: &'f str,
}

impl Files for Instead<'_> {
    fn list(&self) -> &[String] {
        self.files.list()
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        if path == config::FILE_NAME { Some(self.text.as_bytes().to_vec()) } else { self.files.read(path) }
    }

    fn is_link(&self, path: &str) -> bool {
        path != config::FILE_NAME && self.files.is_link(path)
    }

    fn is_too_large(&self, path: &str) -> bool {
        path != config::FILE_NAME && self.files.is_too_large(path)
    }
}

fn describe(out: &mut String, inferred: &Inferred, default_branch: &str) {
    let config = &inferred.config;
    let mut tested = Vec::new();
    match &config.on.push {
        Some(patterns) if patterns.is_empty() => {}
        Some(patterns) => tested.push(format!("pushes to {}", patterns.join(", "))),
        None => {
            let mut branches = vec![default_branch, "develop"];
            branches.extend(config.environments.values().filter_map(|e| match &e.deploy {
                DeployFrom::Branch(branch) => Some(branch.as_str()),
                _ => None,
            }));
            let mut seen = std::collections::HashSet::new();
            branches.retain(|b| seen.insert(*b));
            tested.push(format!("pushes to {}", branches.join(", ")));
        }
    }
    if config.on.pull_request {
        tested.push("pull requests".to_owned());
    }
    let tested = if tested.is_empty() { "nothing".to_owned() } else { tested.join(", and ") };
    let _ = writeln!(out, "\nTested: {tested}");
    for (name, app) in &config.apps {
        out.push('\n');
        show_app(out, name.as_str(), app);
        for note in inferred.notes.iter().filter(|n| n.app.as_ref() == Some(name)) {
            show_note(out, &note.text, &note.file, "    ");
        }
    }
    for (name, environment) in &config.environments {
        out.push('\n');
        show_environment(out, name.as_str(), environment);
    }
    if config.environments.is_empty() {
        out.push_str("\nNo environment is written: nothing is released.\n");
    }
    let mut whole = inferred.notes.iter().filter(|n| n.app.is_none() && !n.file.is_empty()).peekable();
    if whole.peek().is_some() {
        out.push('\n');
    }
    for note in whole {
        show_note(out, &note.text, &note.file, "");
    }
    if !inferred.warnings.is_empty() {
        out.push('\n');
    }
    for warning in &inferred.warnings {
        let _ = writeln!(out, "warning: {}", plain_long(warning));
    }
}

/// Environments that have nothing to release where the target runs no images. Which target it is only the server knows.
fn unstarted(out: &mut String, inferred: &Inferred) {
    let config = &inferred.config;
    let released = config.apps.values().any(App::is_released);
    if let (false, Some(name), false) = (config.apps.is_empty(), config.environments.keys().next(), released) {
        let _ = writeln!(
            out,
            "\nwarning: no app says how it starts, so there is nothing to release to {name}: add `start:` to an app, or \
             `image:` where the target runs containers"
        );
    }
}

fn plain_long(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

fn show_note(out: &mut String, text: &str, file: &str, indent: &str) {
    let from = if file.is_empty() { String::new() } else { format!("   ({})", plain(file)) };
    let _ = writeln!(out, "{indent}· {}{from}", plain_long(text));
}

fn row(out: &mut String, key: &str, value: &str) {
    let mut lines = value.lines();
    let _ = writeln!(out, "    {key:<12} {}", plain_long(lines.next().unwrap_or_default()));
    for line in lines {
        let _ = writeln!(out, "    {:<12} {}", "", plain_long(line));
    }
}

fn show_app(out: &mut String, name: &str, app: &App) {
    let kind = if app.kind == AppKind::Worker { "worker" } else { "app" };
    let place = if app.path.is_empty() { "the repository's root" } else { &app.path };
    let _ = writeln!(out, "{kind} {name}, in {}", plain(place));
    for (name, step) in &app.steps {
        row(out, name.as_str(), &step.run);
        if !step.reports.is_empty() {
            row(out, "", &format!("reports {}", step.reports.join(", ")));
        }
        for (name, service) in &step.services {
            row(out, "", &format!("beside {name}: {}", service.image));
        }
    }
    if app.steps.is_empty() && app.image_of.is_none() {
        row(out, "steps", "none");
    }
    let image_of = app.image_of.as_ref().map(|other| format!("that of {other}"));
    let pushed = app.image_tag.as_ref().map(|tag| format!("pushed by your own CI, tagged {tag}"));
    for (key, value) in [
        ("container", &app.container),
        ("image", &app.image),
        ("image", &image_of),
        ("", &pushed),
        ("dockerfile", &app.dockerfile),
        ("files", &app.files.as_ref().map(|f| f.join(", "))),
        ("start", &app.start),
        ("port", &app.port.map(|p| p.to_string())),
        ("health", &app.health),
        ("pre_deploy", &app.pre_deploy.as_ref().map(|p| p.run.clone())),
    ] {
        if let Some(value) = value {
            row(out, key, value);
        }
    }
    let env: Vec<String> = app.env.iter().map(|(name, value)| plain(&format!("{name}={value}"))).collect();
    for (key, values) in [("env", &env), ("cache", &app.cache), ("secrets", &app.secrets)] {
        if !values.is_empty() {
            row(out, key, &values.join(", "));
        }
    }
    if !app.switch_after.is_empty() {
        let names: Vec<&str> = app.switch_after.iter().map(|a| a.as_str()).collect();
        row(out, "switched", &format!("after {}", names.join(", ")));
    }
}

fn show_environment(out: &mut String, name: &str, environment: &Environment) {
    let from = match &environment.deploy {
        DeployFrom::Branch(branch) => format!("from pushes to {branch}"),
        DeployFrom::PromoteFrom(other) => format!("by promoting what is live in {other}"),
        DeployFrom::Command => "on command".to_owned(),
    };
    let _ = writeln!(out, "environment {name}, released {from}");
    row(out, "after", &environment.after.join(", "));
    if environment.approval == Approval::Required {
        row(out, "approval", "a person must say yes");
    }
    if let Some(allow) = &environment.allow {
        let who = [&allow.roles[..], &allow.teams[..], &allow.users[..]].concat();
        row(out, "allow", &who.join(", "));
    }
    for (key, value) in
        [("target", &environment.target), ("manifests", &environment.manifests), ("url", &environment.url)]
    {
        if let Some(value) = value {
            row(out, key, value);
        }
    }
    row(out, "replicas", &environment.replicas.to_string());
    row(
        out,
        "times",
        &format!(
            "watched {}, previous kept {}, drained within {}",
            format_duration(environment.watch_for),
            format_duration(environment.keep_previous),
            format_duration(environment.drain_timeout)
        ),
    );
    for (key, values) in [("secrets", &environment.secrets), ("windows", &environment.windows)] {
        if !values.is_empty() {
            row(out, key, &values.join(", "));
        }
    }
}

/// For `switchover check --write`: the file that says what is understood, with a comment where each thing comes from.
/// None where there are mistakes or nothing to write.
#[must_use]
pub fn written(files: &dyn Files, default_branch: &str) -> Option<String> {
    let inferred = understand(files, default_branch).result.ok().filter(|i| i.unreadable.is_empty())?;
    let comments = |path: &str| {
        let app = path.strip_prefix("apps.");
        let of_it = inferred.notes.iter().filter(|n| app.is_some() && n.app.as_ref().map(|a| a.as_str()) == app);
        of_it.map(|n| if n.file.is_empty() { n.text.clone() } else { format!("{} ({})", n.text, n.file) }).collect()
    };
    let text = inferred.config.to_yaml_with(&comments);
    // A file that its own reader refuses would be worse than none.
    parse_bytes(text.as_bytes()).is_ok().then_some(text)
}

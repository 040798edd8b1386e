//! [`RepoConfig`] as the file that somebody could have written: only what differs from the defaults.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use super::{
    App, AppKind, Approval, DeployFrom, Environment, RepoConfig, Resources, Service, Step,
    units::{format_duration, format_size},
};

impl RepoConfig {
    /// The file's text. [`super::parse`] reads the same configuration back.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        self.to_yaml_with(&|_| Vec::new())
    }

    /// The file's text, with comments over the apps, environments and sections that `comments` has some for. It is
    /// asked with dotted paths such as `apps.backend`.
    #[must_use]
    pub fn to_yaml_with(&self, comments: &dyn Fn(&str) -> Vec<String>) -> String {
        let mut out = Writer { text: String::from("version: 1\n"), indent: 0, comments };
        if self.on != Self::default().on {
            out.section("on");
            if let Some(push) = &self.on.push {
                out.list("push", push, true);
            }
            if !self.on.pull_request {
                out.plain("pull_request", "false");
            }
            out.end();
        }
        if !self.apps.is_empty() {
            out.section("apps");
            for (name, app) in &self.apps {
                out.app(name.as_str(), app);
            }
            out.end();
        }
        if !self.environments.is_empty() {
            out.section("environments");
            for (name, environment) in &self.environments {
                out.environment(name.as_str(), environment);
            }
            out.end();
        }
        if let Some(channel) = &self.notify.slack {
            out.section("notify");
            out.string("slack", Some(channel));
            out.end();
        }
        out.text
    }
}

struct Writer<'c> {
    text: String,
    indent: usize,
    comments: &'c dyn Fn(&str) -> Vec<String>,
}

impl Writer<'_> {
    fn key(&mut self, key: &str) {
        for _ in 0..self.indent {
            self.text.push_str("  ");
        }
        self.text.push_str(&scalar(key, false));
        self.text.push(':');
    }

    fn section(&mut self, name: &str) {
        if self.indent == 0 {
            self.text.push('\n');
        }
        self.comment(name);
        self.open(name);
    }

    fn comment(&mut self, path: &str) {
        for line in (self.comments)(path).iter().flat_map(|c| c.lines()) {
            for _ in 0..self.indent {
                self.text.push_str("  ");
            }
            // A comment is the one place where text from outside stands unquoted.
            let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let _ = writeln!(self.text, "# {line}");
        }
    }

    fn open(&mut self, key: &str) {
        self.key(key);
        self.text.push('\n');
        self.indent += 1;
    }

    fn end(&mut self) {
        self.indent -= 1;
    }

    fn plain(&mut self, key: &str, value: &str) {
        self.key(key);
        let _ = writeln!(self.text, " {value}");
    }

    fn string(&mut self, key: &str, value: Option<&String>) {
        let Some(value) = value else { return };
        self.key(key);
        match block(value) {
            Some(mark) => {
                let _ = writeln!(self.text, " {mark}");
                for line in value.lines() {
                    if !line.is_empty() {
                        for _ in 0..=self.indent {
                            self.text.push_str("  ");
                        }
                    }
                    let _ = writeln!(self.text, "{line}");
                }
            }
            None => {
                let _ = writeln!(self.text, " {}", scalar(value, false));
            }
        }
    }

    /// A list on one line; left out when it is empty, unless that says something.
    fn list(&mut self, key: &str, items: &[String], even_empty: bool) {
        if items.is_empty() && !even_empty {
            return;
        }
        let items: Vec<String> = items.iter().map(|i| scalar(i, true)).collect();
        self.plain(key, &format!("[{}]", items.join(", ")));
    }

    fn variables(&mut self, variables: &BTreeMap<String, String>) {
        if variables.is_empty() {
            return;
        }
        self.open("env");
        for (name, value) in variables {
            self.string(name, Some(value));
        }
        self.end();
    }

    fn duration(&mut self, key: &str, value: Duration, default: Duration) {
        if value != default {
            self.plain(key, &format_duration(value));
        }
    }

    fn app(&mut self, name: &str, app: &App) {
        self.comment(&format!("apps.{name}"));
        self.open(name);
        let default = App::default();
        if app.kind == AppKind::Worker {
            self.plain("kind", "worker");
        }
        // The path is always written, so that even an app of defaults has a key.
        self.string("path", Some(&if app.path.is_empty() { ".".to_owned() } else { app.path.clone() }));
        self.string("container", app.container.as_ref());
        self.list("cache", &app.cache, false);
        self.variables(&app.env);
        self.list("secrets", &app.secrets, false);
        if !app.steps.is_empty() {
            self.open("steps");
            for (name, step) in &app.steps {
                self.step(name.as_str(), step);
            }
            self.end();
        }
        match &app.image_tag {
            None => self.string("image", app.image.as_ref()),
            Some(tag) => {
                self.open("image");
                self.string("name", app.image.as_ref());
                self.plain("from", "ci");
                self.string("tag", Some(tag));
                self.end();
            }
        }
        self.string("image_of", app.image_of.as_ref().map(ToString::to_string).as_ref());
        self.string("dockerfile", app.dockerfile.as_ref());
        if app.files != default.files {
            self.list("files", app.files.as_deref().unwrap_or_default(), true);
        }
        self.string("start", app.start.as_ref());
        if let Some(port) = app.port {
            self.plain("port", &port.to_string());
        }
        self.resources(&app.resources);
        self.string("health", app.health.as_ref());
        if let Some(pre_deploy) = &app.pre_deploy {
            self.open("pre_deploy");
            self.string("run", Some(&pre_deploy.run));
            self.plain("reversible", if pre_deploy.reversible { "true" } else { "false" });
            self.plain("timeout", &format_duration(pre_deploy.timeout));
            self.end();
        }
        let names: Vec<String> = app.switch_after.iter().map(ToString::to_string).collect();
        self.list("switch_after", &names, false);
        self.end();
    }

    fn step(&mut self, name: &str, step: &Step) {
        self.open(name);
        self.string("run", Some(&step.run));
        self.list("reports", &step.reports, false);
        if !step.services.is_empty() {
            self.open("services");
            for (name, service) in &step.services {
                self.service(name, service);
            }
            self.end();
        }
        self.duration("timeout", step.timeout, Step::new("").timeout);
        self.variables(&step.env);
        self.resources(&step.resources);
        self.end();
    }

    fn resources(&mut self, resources: &Resources) {
        if *resources == Resources::default() {
            return;
        }
        self.open("resources");
        if let Some(cpu) = resources.cpu {
            self.plain("cpu", &cpu.to_string());
        }
        if let Some(memory) = resources.memory {
            self.plain("memory", &format_size(memory));
        }
        self.end();
    }

    fn service(&mut self, name: &str, service: &Service) {
        self.open(name);
        self.string("image", Some(&service.image));
        self.variables(&service.env);
        self.string("ready", service.ready.as_ref());
        self.end();
    }

    fn environment(&mut self, name: &str, environment: &Environment) {
        self.comment(&format!("environments.{name}"));
        self.open(name);
        let default = Environment::new(DeployFrom::Command);
        match &environment.deploy {
            DeployFrom::Branch(branch) => self.plain("deploy", &format!("{{branch: {}}}", scalar(branch, true))),
            DeployFrom::PromoteFrom(other) => {
                self.plain("deploy", &format!("{{promote_from: {}}}", scalar(other.as_str(), true)));
            }
            DeployFrom::Command => self.plain("deploy", "command"),
        }
        if environment.after != default.after {
            self.list("after", &environment.after, true);
        }
        if environment.approval == Approval::Required {
            self.plain("approval", "required");
        }
        if let Some(allow) = &environment.allow {
            self.open("allow");
            self.list("roles", &allow.roles, false);
            self.list("teams", &allow.teams, false);
            self.list("users", &allow.users, false);
            self.end();
        }
        self.string("target", environment.target.as_ref());
        let manifests = environment.manifests.as_ref().map(|m| if m.is_empty() { ".".to_owned() } else { m.clone() });
        self.string("manifests", manifests.as_ref());
        self.string("url", environment.url.as_ref());
        self.variables(&environment.env);
        self.list("secrets", &environment.secrets, false);
        if environment.replicas != default.replicas {
            self.plain("replicas", &environment.replicas.to_string());
        }
        if environment.probe != default.probe {
            self.open("probe");
            self.string("path", environment.probe.path.as_ref());
            self.duration("interval", environment.probe.interval, default.probe.interval);
            self.string("body", environment.probe.body.as_ref());
            self.end();
        }
        if let Some(smoke) = &environment.smoke {
            self.open("smoke");
            self.string("run", Some(&smoke.run));
            self.plain("timeout", &format_duration(smoke.timeout));
            self.end();
        }
        self.duration("min_ready", environment.min_ready, default.min_ready);
        self.duration("start_timeout", environment.start_timeout, default.start_timeout);
        self.duration("watch_for", environment.watch_for, default.watch_for);
        self.duration("keep_previous", environment.keep_previous, default.keep_previous);
        self.duration("drain_timeout", environment.drain_timeout, default.drain_timeout);
        self.list("windows", &environment.windows, false);
        self.end();
    }
}

/// The mark of a block scalar, if the text can stand in one as it is.
fn block(text: &str) -> Option<&'static str> {
    let readable = |c: char| c == '\n' || (!c.is_control() && c != '\u{FEFF}');
    if !text.trim_end_matches('\n').contains('\n') || !text.chars().all(readable) {
        return None;
    }
    // The first line sets the indentation, so it must not begin with a blank or be empty.
    if text.starts_with([' ', '\n']) || text.ends_with("\n\n") {
        return None;
    }
    Some(if text.ends_with('\n') { "|" } else { "|-" })
}

/// A text on one line, in quotes where YAML would read it as something else. `flow`: inside brackets.
fn scalar(text: &str, flow: bool) -> String {
    let first_ok = text.starts_with(|c: char| c.is_alphanumeric() || "._/~$(<=".contains(c));
    let all_ok = text.chars().all(|c| !c.is_control() && c != '\u{FEFF}' && !(flow && ",[]{}:".contains(c)));
    let is_text = !matches!(text.to_ascii_lowercase().as_str(), "~" | "null" | "true" | "false")
        && (text.parse::<f64>().is_err() && !text.starts_with("0x") && !text.starts_with("0o"));
    let clear = !text.contains(": ") && !text.contains(" #") && !text.ends_with(':') && text.trim() == text;
    if first_ok && all_ok && is_text && clear && !text.starts_with("...") && !text.is_empty() {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || matches!(c, '\u{FEFF}' | '\u{2028}' | '\u{2029}') => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

//! What a Spring Boot application's own settings say about its health ("Spring Boot: Production-ready Features").

use super::project::{Project, join};
use crate::domain::config::tree::{self, Node};

/// Where the actuator tells the health.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// At its usual path.
    Usual,
    /// At this path, as this file says.
    At(String, String),
    /// On a port of its own, as this file says.
    Elsewhere(String),
}

/// Files of settings that hold in every profile, the strongest first.
const SETTINGS: [&str; 6] = [
    "config/application.properties",
    "config/application.yml",
    "config/application.yaml",
    "application.properties",
    "application.yml",
    "application.yaml",
];

/// Reads the settings below a project's folder. What only holds in a profile is left out, as are values that stand for
/// others.
pub(super) fn health(project: &Project<'_>, folder: &str) -> Health {
    let mut settings = Vec::new();
    for name in SETTINGS {
        let path = join(folder, &format!("src/main/resources/{name}"));
        if let Some(path) = path.filter(|path| project.has(path))
            && let Some(text) = project.text(&path)
        {
            settings.push((path, text));
        }
    }
    let find = |key: &str| {
        settings.iter().find_map(|(path, text)| {
            let value = if path.ends_with(".properties") { property(text, key) } else { in_yaml(text, key) };
            Some((value.filter(|v| !v.is_empty() && !v.contains(['$', '@', '#']))?, path.clone()))
        })
    };
    let own = |port: &(String, String)| find("server.port").is_none_or(|(main, _)| main != port.0);
    if let Some((_, file)) = find("management.server.port").filter(own) {
        return Health::Elsewhere(file);
    }
    let base = find("management.endpoints.web.base-path");
    let context = find("server.servlet.context-path").or_else(|| find("spring.webflux.base-path"));
    let Some(file) = base.as_ref().or(context.as_ref()).map(|(_, file)| file.clone()) else { return Health::Usual };
    let part = |found: Option<(String, String)>, usual: &str| found.map_or(usual.to_owned(), |(value, _)| value);
    let parts = [part(context, ""), part(base, "actuator"), "health".to_owned()];
    let words: Vec<&str> = parts.iter().map(|p| p.trim_matches('/')).filter(|p| !p.is_empty()).collect();
    let path = format!("/{}", words.join("/"));
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-~".contains(c);
    if path.chars().all(plain) { Health::At(path, file) } else { Health::Usual }
}

/// `base-path` and `basePath` are the same key ("Relaxed Binding").
fn relaxed(key: &str) -> String {
    key.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase()).collect()
}

fn property(text: &str, key: &str) -> Option<String> {
    let lines = text.lines().map(str::trim_start).filter(|line| !line.starts_with(['#', '!']));
    let mut pairs = lines.filter_map(|line| line.split_once(['=', ':']));
    pairs.rfind(|(name, _)| relaxed(name.trim()) == relaxed(key)).map(|(_, value)| value.trim().to_owned())
}

/// The documents of a settings file in YAML.
pub(super) fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        if line.trim_end() == "---" {
            documents.push(String::new());
        } else if let Some(document) = documents.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    documents
}

fn in_yaml(text: &str, key: &str) -> Option<String> {
    let common = |root: &Node| {
        ["spring.config.activate", "spring.profiles"].iter().all(|key| {
            let found = look(root, &relaxed(key));
            found.is_none_or(|node| *key == "spring.profiles" && node.text().is_none())
        })
    };
    let roots = documents(text).into_iter().filter_map(|document| tree::read(&document).ok().flatten());
    let roots = roots.filter(|root| common(root));
    // A later document wins.
    roots.filter_map(|root| look(&root, &relaxed(key))?.text().map(str::to_owned)).next_back()
}

/// The value under a dotted key, however much of it stands in one word.
fn look<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    node.entries().iter().find_map(|entry| {
        let rest = key.strip_prefix(relaxed(&entry.key).as_str())?;
        if rest.is_empty() { Some(&*entry.value) } else { look(&entry.value, rest.strip_prefix('.')?) }
    })
}

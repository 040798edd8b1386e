//! What another file would change about releases: environments and who is told come from the default branch alone, so a
//! pull request that changes them shows it before it is merged.

use std::collections::BTreeMap;

use super::{
    RepoConfig,
    mistake::plain,
    parse_bytes,
    tree::{self, Node},
};

/// The most lines that are told.
const MOST: usize = 30;

/// What `new` says otherwise than `old` about releases, a line each; nothing where `new` has mistakes, which are told
/// by themselves.
#[must_use]
pub fn between(old: &[u8], new: &[u8]) -> Vec<String> {
    if old == new {
        return Vec::new();
    }
    let Ok(new) = parse_bytes(new) else { return Vec::new() };
    match parse_bytes(old) {
        Ok(old) => changes(&old.config, &new.config),
        Err(_) => {
            let mut lines =
                vec!["the file has mistakes now, so nothing is released by it; this one is right".to_owned()];
            lines.extend(changes(&RepoConfig::default(), &new.config));
            lines
        }
    }
}

/// The same for files that are understood.
#[must_use]
pub fn changes(old: &RepoConfig, new: &RepoConfig) -> Vec<String> {
    let (old, new) = (keys(old), keys(new));
    let mut lines = Vec::new();
    for (name, before) in &old {
        match new.get(name) {
            None => lines.push(match name.as_str() {
                NOTIFY => format!("{NOTIFY}: removed ({})", all(before)),
                name => format!("environment {name}: removed ({})", all_of_deploy(before)),
            }),
            Some(after) => {
                let written: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
                for key in written {
                    let (was, is) = (before.get(key), after.get(key));
                    if was != is {
                        let said = |value: Option<&String>| value.map_or("not written".to_owned(), |v| plain(v));
                        lines.push(format!("{name}: {} {} → {}", plain(key), said(was), said(is)));
                    }
                }
            }
        }
    }
    for (name, after) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        lines.push(match name.as_str() {
            NOTIFY => format!("{NOTIFY}: added ({})", all(after)),
            name => format!("environment {name}: added ({})", all(after)),
        });
    }
    if lines.len() > MOST {
        let more = lines.len() - MOST;
        lines.truncate(MOST);
        lines.push(format!("… and {more} more"));
    }
    lines
}

/// The section beside the environments. No environment can have its name: a space is in none.
const NOTIFY: &str = "messages to Slack";

fn all(keys: &BTreeMap<String, String>) -> String {
    let mut shown: Vec<String> = keys.iter().take(10).map(|(key, value)| plain(&format!("{key} {value}"))).collect();
    if keys.len() > shown.len() {
        shown.push("…".to_owned());
    }
    shown.join(", ")
}

fn all_of_deploy(keys: &BTreeMap<String, String>) -> String {
    let of = |(key, value): (&String, &String)| key.starts_with("deploy").then(|| plain(&format!("{key} {value}")));
    keys.iter().filter_map(of).collect::<Vec<_>>().join(", ")
}

/// What is written of each environment, by dotted keys, as the file would say it; what holds by default is left out.
fn keys(config: &RepoConfig) -> BTreeMap<String, BTreeMap<String, String>> {
    let RepoConfig { environments, notify, .. } = config.clone();
    let text = RepoConfig { environments, notify, ..RepoConfig::default() }.to_yaml();
    let mut out = BTreeMap::new();
    let Ok(Some(root)) = tree::read(&text) else { return out };
    for entry in root.get("environments").map_or(&[][..], Node::entries) {
        flatten("", &entry.value, out.entry(entry.key.clone()).or_default());
    }
    if let Some(notify) = root.get("notify") {
        flatten("", notify, out.entry(NOTIFY.to_owned()).or_default());
    }
    out
}

fn flatten(path: &str, node: &Node, out: &mut BTreeMap<String, String>) {
    if node.entries().is_empty() {
        let items: Vec<&str> = node.items().iter().filter_map(|item| item.text()).collect();
        let value = node.text().map_or_else(|| format!("[{}]", items.join(", ")), str::to_owned);
        out.insert(path.to_owned(), value);
    }
    for entry in node.entries() {
        let path = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
        flatten(&path, &entry.value, out);
    }
}

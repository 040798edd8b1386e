//! The App's manifest asks for what the client uses, and for no more than it says.

use std::collections::BTreeMap;

use switchover::github::auth::Purpose;

struct Manifest {
    default_permissions: BTreeMap<String, String>,
    default_events: Vec<String>,
}

/// The file is plain: two sections that matter, one entry on a line.
fn manifest() -> (String, Manifest) {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/app-manifest.yml")).unwrap();
    let mut manifest = Manifest { default_permissions: BTreeMap::new(), default_events: Vec::new() };
    let mut section = "";
    for line in text.lines().filter(|l| !l.trim_start().starts_with('#') && !l.trim().is_empty()) {
        match (line.strip_prefix("  "), section) {
            (None, _) => section = line.split(':').next().unwrap(),
            (Some(entry), "default_permissions") => {
                let (name, level) = entry.split_once(": ").unwrap();
                manifest.default_permissions.insert(name.to_owned(), level.to_owned());
            }
            (Some(entry), "default_events") => {
                manifest.default_events.push(entry.strip_prefix("- ").unwrap().to_owned())
            }
            _ => {}
        }
    }
    assert!(!manifest.default_permissions.is_empty() && !manifest.default_events.is_empty());
    (text, manifest)
}

#[test]
fn every_purpose_is_covered() {
    let (_, manifest) = manifest();
    for purpose in Purpose::ALL {
        for (name, level) in purpose.permissions() {
            let asked = manifest.default_permissions.get(*name).map(String::as_str);
            assert!(asked == Some(level) || asked == Some("write"), "{purpose:?} needs {name}: {level}, not {asked:?}");
        }
    }
}

#[test]
fn nothing_is_asked_for_in_vain() {
    let (_, manifest) = manifest();
    for (name, level) in &manifest.default_permissions {
        // Its webhook is taken; nothing is called.
        if name == "merge_queues" {
            continue;
        }
        let used = Purpose::ALL.iter().any(|p| p.permissions().contains(&(name.as_str(), level.as_str())));
        assert!(used, "{name}: {level} is asked for, and no call needs it");
    }
}

#[test]
fn events_are_those_that_may_stand_there() {
    let (_, manifest) = manifest();
    for event in &manifest.default_events {
        assert!(!event.starts_with("installation") && event != "ping", "{event} comes by itself, and is refused here");
    }
    for needed in ["push", "pull_request", "merge_group", "check_run", "check_suite", "repository", "status"] {
        assert!(manifest.default_events.iter().any(|e| e == needed), "{needed} is acted on");
    }
}

#[test]
fn everything_has_its_reason() {
    let (text, manifest) = manifest();
    let lines: Vec<&str> = text.lines().collect();
    let keys = manifest.default_permissions.keys().map(|k| format!("  {k}: "));
    let events = manifest.default_events.iter().map(|e| format!("  - {e}"));
    for wanted in keys.chain(events) {
        let at = lines.iter().position(|l| l.starts_with(&wanted)).unwrap();
        assert!(lines[at - 1].trim_start().starts_with('#'), "{wanted} has no reason above it");
    }
}

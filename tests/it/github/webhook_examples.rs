//! Every payload that GitHub publishes as an example is taken.

use std::collections::BTreeMap;

use serde_json::Value;
use switchover::{
    domain::event::Event,
    github::webhook::{normalise, peek},
};

use super::support::{left_out, npm_file};

const PACKAGE: &str = "@octokit/webhooks-examples";
const VERSION: &str = "7.6.1";

fn examples(folder: &str) -> Result<Vec<(String, Value)>, String> {
    let text = npm_file(PACKAGE, VERSION, &format!("{folder}/index.json"))?;
    let events: Vec<Value> = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    let mut all = Vec::new();
    for event in events {
        let name = event["name"].as_str().ok_or("an event has no name")?.to_owned();
        for example in event["examples"].as_array().ok_or("an event has no examples")? {
            all.push((name.clone(), example.clone()));
        }
    }
    Ok(all)
}

fn kind(event: &Event) -> String {
    let value = serde_json::to_value(event).unwrap();
    let detail = ["action", "change"].iter().find_map(|k| value[k].as_str());
    let gone = (value["after"].as_str().is_some_and(|s| s.starts_with("000000"))).then_some("deleted");
    [value["kind"].as_str(), detail, gone].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_published_example_is_taken() {
    let all = match examples("api.github.com") {
        Ok(all) => all,
        Err(why) => return left_out("npm", "every_published_example_is_taken", &why),
    };
    assert_eq!(all.len(), 329, "the package {PACKAGE} {VERSION} has 329 examples");
    let mut kinds = BTreeMap::<String, u32>::new();
    for (name, payload) in &all {
        let body = serde_json::to_vec(payload).unwrap();
        let event = normalise(name, &body).unwrap_or_else(|e| panic!("{name}: {e}\n{payload:#}"));
        if !matches!(event, Event::Ignored { .. }) {
            *kinds.entry(format!("{name}: {}", kind(&event))).or_default() += 1;
        }
        let peek = peek(&body);
        assert_eq!(peek.action.as_deref(), payload["action"].as_str(), "{name}");
        assert_eq!(peek.repo_id.map(|r| r.0), payload["repository"]["id"].as_i64(), "{name}");
        assert_eq!(peek.repo_full_name.as_deref(), payload["repository"]["full_name"].as_str(), "{name}");
        assert_eq!(peek.installation_id.map(|i| i.0), payload["installation"]["id"].as_i64(), "{name}");
        if let Event::Ignored { repo, .. } = event {
            assert_eq!(repo.map(|r| r.0), payload["repository"]["id"].as_i64(), "{name}");
        }
    }
    let seen: Vec<String> = kinds.iter().map(|(k, n)| format!("{n} {k}")).collect();
    insta::assert_snapshot!(seen.join("\n"), @r"
    3 check_run: check_completed
    2 check_run: rerun
    2 check_suite: rerun
    2 installation: installation created
    2 installation: installation deleted
    1 installation: installation permissions_accepted
    1 installation: installation suspended
    1 installation: installation unsuspended
    3 installation_repositories: installation_repositories
    2 merge_group: merge_group
    4 ping: ping
    2 pull_request: pull_request closed
    4 pull_request: pull_request opened
    3 pull_request: pull_request ready_for_review
    2 pull_request: pull_request reopened
    1 pull_request: pull_request synchronize
    3 push: push
    4 push: push deleted
    13 repository: repository refreshed
    4 status: check_completed
    ");
}

#[test]
fn examples_of_enterprise_servers_are_taken() {
    for folder in ["ghes-31", "ghes-32", "ghes-33", "ghes-34", "ghes-35"] {
        let all = match examples(folder) {
            Ok(all) => all,
            Err(why) => return left_out("npm", "examples_of_enterprise_servers_are_taken", &why),
        };
        assert!(!all.is_empty(), "{folder} is empty");
        for (name, payload) in all {
            let body = serde_json::to_vec(&payload).unwrap();
            normalise(&name, &body).unwrap_or_else(|e| panic!("{folder} {name}: {e}\n{payload:#}"));
        }
    }
}

//! Which operations of GitHub's API the product's client uses, read from its sources, and whether a log has them all.

use std::{collections::BTreeSet, fs, path::Path};

use switchover::demo::github::model::Exchange;

/// A method and a path; segments that are not fixed are `{}`.
type Operation = (String, String);

/// Functions of the client (four blanks deep) with their bodies.
fn functions(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in text.lines() {
        let begins = line.strip_prefix("    ").is_some_and(|l| {
            let words = l.trim_start_matches("pub(super) ").trim_start_matches("pub ").trim_start_matches("async ");
            !l.starts_with(' ') && words.starts_with("fn ")
        });
        if begins {
            found.push(String::new());
        }
        if let Some(body) = found.last_mut() {
            body.push_str(line.split("// ").next().unwrap_or_default());
            body.push('\n');
        }
    }
    found
}

/// The path of a list such as `["commits", sha.as_str(), "check-runs"]`.
fn template(list: &str) -> String {
    let parts = list.split(',').map(str::trim).filter(|p| !p.is_empty());
    let part = |p: &str| p.strip_prefix('"').and_then(|p| p.strip_suffix('"')).unwrap_or("{}").to_owned();
    parts.map(|p| format!("/{}", part(p))).collect()
}

/// What a function asks of GitHub. Every address is made by `url` or `repo_url` from a list of segments.
fn operations(name: &str, body: &str) -> BTreeSet<Operation> {
    let lists: Vec<&str> =
        body.split("&[").skip(1).map(|rest| rest.split(']').next().unwrap_or_default()).collect::<Vec<_>>();
    let (whole, of_repo) = (body.contains("self.url("), body.contains("self.repo_url("));
    if !whole && !of_repo {
        return BTreeSet::new();
    }
    assert!(whole != of_repo, "{name}: one kind of address in a function, so that this test can read it:\n{body}");
    let mut paths: BTreeSet<String> =
        lists.iter().filter(|l| l.trim_start().starts_with('"')).map(|l| template(l)).collect();
    if body.contains("self.repo_url(repo, &[],") {
        paths.insert(String::new());
    }
    assert!(!paths.is_empty(), "{name}: an address, but no list of segments:\n{body}");
    let mut methods = BTreeSet::new();
    if body.contains("Call::get(") || body.contains("self.pages(") {
        methods.insert("GET".to_owned());
    }
    for rest in body.split("Method::").skip(1) {
        methods.insert(rest.chars().take_while(char::is_ascii_uppercase).collect());
    }
    assert!(!methods.is_empty(), "{name}: an address, but no method:\n{body}");
    let prefix = if of_repo { "/repos/{}/{}" } else { "" };
    let all = |path: &String| methods.iter().map(|m| (m.clone(), format!("{prefix}{path}"))).collect::<Vec<_>>();
    paths.iter().flat_map(all).collect()
}

/// All that `src/github` asks.
fn used() -> BTreeSet<Operation> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/github"));
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let in_functions = functions(&text);
        let count = |text: &str| text.matches("self.url(").count() + text.matches("self.repo_url(").count();
        let seen: usize = in_functions.iter().map(|f| count(f)).sum();
        assert_eq!(seen, count(&text), "{}: an address outside of a function of the client", path.display());
        // `repo_url` itself is made of `url`.
        let asks = |f: &&String| !f.contains("fn repo_url(");
        found.extend(in_functions.iter().filter(asks).flat_map(|f| operations(&path.display().to_string(), f)));
    }
    found
}

fn fits(operation: &Operation, e: &Exchange) -> bool {
    let Some(template) = &e.template else { return false };
    let (wanted, seen): (Vec<&str>, Vec<&str>) = (operation.1.split('/').collect(), template.split('/').collect());
    let same = |(w, s): (&&str, &&str)| w == s || (*w == "{}" && s.starts_with('{'));
    operation.0 == e.method && wanted.len() == seen.len() && wanted.iter().zip(&seen).all(same)
}

/// Panics with the operations of the client that were not answered well in this log.
pub fn check(log: &[Exchange]) {
    let good: Vec<&Exchange> = log.iter().filter(|e| !e.fault && (200..300).contains(&e.status)).collect();
    let used = used();
    let missing: Vec<String> = used
        .iter()
        .filter(|o| !good.iter().any(|e| fits(o, e)))
        .map(|(method, path)| format!("{method} {path}"))
        .collect();
    assert!(missing.is_empty(), "the client uses these, and no test held them against GitHub:\n{}", missing.join("\n"));
}

#[test]
fn the_sources_tell_what_is_used() {
    let seen: Vec<String> = used().iter().map(|(method, path)| format!("{method} {path}")).collect();
    insta::assert_snapshot!(seen.join("\n"), @r"
    GET /app
    GET /app/hook/deliveries
    GET /app/hook/deliveries/{}
    GET /app/installations
    GET /installation/repositories
    GET /orgs/{}/teams/{}/memberships/{}
    GET /repos/{}/{}
    GET /repos/{}/{}/branches
    GET /repos/{}/{}/check-runs/{}
    GET /repos/{}/{}/collaborators/{}/permission
    GET /repos/{}/{}/commits/{}/check-runs
    GET /repos/{}/{}/commits/{}/status
    GET /repos/{}/{}/deployments
    GET /repos/{}/{}/deployments/{}/statuses
    GET /repos/{}/{}/issues/{}/comments
    GET /repos/{}/{}/pulls
    GET /repos/{}/{}/pulls/{}
    PATCH /repos/{}/{}/check-runs/{}
    PATCH /repos/{}/{}/issues/comments/{}
    POST /app/hook/deliveries/{}/attempts
    POST /app/installations/{}/access_tokens
    POST /repos/{}/{}/check-runs
    POST /repos/{}/{}/comments/{}/reactions
    POST /repos/{}/{}/deployments
    POST /repos/{}/{}/deployments/{}/statuses
    POST /repos/{}/{}/issues/comments/{}/reactions
    POST /repos/{}/{}/issues/{}/comments
    POST /repos/{}/{}/pulls/comments/{}/reactions
    ");
}

#[test]
fn what_was_not_asked_is_missed() {
    let ask = |method: &str, template: &str, status| Exchange {
        method: method.to_owned(),
        path: String::new(),
        template: Some(template.to_owned()),
        version: String::new(),
        status,
        fault: false,
        request: None,
        response: None,
    };
    let body = "    pub async fn of(&self) {\n self.repo_url(repo, &[\"a\", &b.to_string()], &[]); Call::get(url) }\n";
    let wanted: Vec<Operation> = operations("x", body).into_iter().collect();
    assert_eq!(wanted, [("GET".to_owned(), "/repos/{}/{}/a/{}".to_owned())]);
    let cases = [
        (ask("GET", "/repos/{owner}/{repo}/a/{id}", 200), true),
        (ask("POST", "/repos/{owner}/{repo}/a/{id}", 200), false),
        (ask("GET", "/repos/{owner}/{repo}/a/b", 200), false),
        (ask("GET", "/repos/{owner}/{repo}/a", 200), false),
        (ask("GET", "/repos/{owner}/{repo}/a/{id}/c", 200), false),
    ];
    for (exchange, expected) in cases {
        assert_eq!(fits(&wanted[0], &exchange), expected, "{exchange:?}");
    }
    assert!(std::panic::catch_unwind(|| check(&[ask("GET", "/app", 500)])).is_err(), "refusals count for nothing");
}

//! What must stay true of the sources themselves: who may do what, which way dependencies point, how large files are,
//! that nothing is left half done, and that the references in docs/ are current.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Text files below `dir` by their path from the project's root, with `/`.
fn files(dir: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![root().join(dir)];
    while let Some(at) = left.pop() {
        for entry in fs::read_dir(&at).unwrap_or_else(|e| panic!("{}: {e}", at.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
                found.insert(name, text);
            }
        }
    }
    found
}

fn rust(dir: &str) -> BTreeMap<String, String> {
    let mut found = files(dir);
    found.retain(|path, _| path.ends_with(".rs"));
    assert!(found.len() > 10, "the sources of {dir} were not found");
    found
}

/// The lines of `text` without their line comments (`://` begins none).
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(n, line)| {
        let end = line.match_indices("//").map(|(at, _)| at).find(|at| !line[..*at].ends_with(':'));
        (n + 1, &line[..end.unwrap_or(line.len())])
    })
}

fn none(problems: &[String], rule: &str) {
    assert!(problems.is_empty(), "{rule}:\n  {}", problems.join("\n  "));
}

/// What only its owners may do, each with the reason. A path that ends in `/` owns its folder.
const OWNERS: &[(&str, &[(&str, &str)])] = &[
    (
        "Command::new",
        &[
            ("src/exec/local.rs", "starts the supervisor of a step"),
            ("src/exec/shim.rs", "is that supervisor and starts the step"),
            ("src/exec/git/call.rs", "is the only caller of git"),
            ("src/agent/process.rs", "starts the copies of slots"),
            ("src/agent/start.rs", "starts the agent, detached"),
            ("src/demo/play/", "the play starts and kills a real server, and pushes with a real git"),
            ("src/demo/github/git.rs", "the stand-in GitHub keeps real git repositories"),
        ],
    ),
    (
        "env::var",
        &[
            ("src/cli/", "the composition root hands the settings their variables, and tells who asks"),
            ("src/main.rs", "arms the failpoints before anything else"),
            ("src/exec/host.rs", "chooses what children see of the server's environment"),
            ("src/demo/sample/", "the sample apps are programs of their own"),
        ],
    ),
    ("Timestamp::now", &[("src/clock.rs", "is the wall clock of everything else")]),
    ("SystemTime::now", &[]),
    ("Zoned::now", &[]),
    ("sqlx::", &[("src/store/", "is the only SQL")]),
    ("octocrab::", &[("src/github/", "is the only GitHub client")]),
    (
        "actix_web::",
        &[
            ("src/web/", "webhook, health, metrics, pages"),
            ("src/control.rs", "the operator's door"),
            ("src/demo/", "the stand-in GitHub and the counter"),
        ],
    ),
];

#[test]
fn what_touches_the_world_has_an_owner() {
    let sources = rust("src");
    let owns = |owner: &str, path: &str| if owner.ends_with('/') { path.starts_with(owner) } else { path == owner };
    let mut problems = Vec::new();
    for (what, owners) in OWNERS {
        let mut used = BTreeSet::new();
        for (path, text) in &sources {
            for (line, _) in code(text).filter(|(_, code)| code.contains(what)) {
                match owners.iter().find(|(owner, _)| owns(owner, path)) {
                    Some((owner, _)) => _ = used.insert(*owner),
                    None => problems.push(format!("{path}:{line} has {what}, which belongs to {owners:?}")),
                }
            }
        }
        for (owner, _) in owners.iter().filter(|(owner, _)| !used.contains(owner)) {
            problems.push(format!("{owner} does not use {what} any more: take it off the list"));
        }
    }
    none(&problems, "each of these has few owners, so that it can be reasoned about");
}

/// Lines of a file; a longer one is to be split.
const LIMIT: usize = 500;

#[test]
fn no_file_outgrows_its_reader() {
    let sources: Vec<_> = rust("src").into_iter().chain(rust("tests")).collect();
    let lines = |text: &str| text.lines().count();
    let long = sources.iter().filter(|(_, text)| lines(text) > LIMIT);
    let problems: Vec<_> = long.map(|(path, text)| format!("{path} has {} lines: split it", lines(text))).collect();
    none(&problems, "a file is read as a whole");
}

#[test]
fn nothing_is_left_half_done() {
    let words = ["todo", "unimplemented", "dbg"].map(|word| format!("{word}!"));
    let mut problems = Vec::new();
    for (path, text) in rust("src").into_iter().chain(rust("tests")) {
        for (line, code) in code(&text) {
            for word in words.iter().filter(|word| code.contains(word.as_str())) {
                problems.push(format!("{path}:{line} has {word}"));
            }
        }
    }
    none(&problems, "what is not there yet is left out, not stubbed");
}

/// The rooms and what each may use. What is not named here is used by nobody else: `main` and `cli` put all together.
const ROOMS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("clock", &[]),
    ("failpoint", &[]),
    ("telemetry", &[]),
    ("plan", &["domain"]),
    ("report", &["domain"]),
    ("infer", &["domain"]),
    ("settings", &["domain"]),
    ("manifests", &["domain"]),
    ("store", &["domain", "clock", "failpoint"]),
    ("github", &["domain", "clock", "failpoint"]),
    ("docker", &["settings"]),
    ("cluster", &["clock", "settings"]),
    ("exec", &["domain", "clock", "cluster", "docker", "failpoint"]),
    ("image", &["clock", "docker", "domain", "failpoint", "infer"]),
    ("agent", &["domain", "clock", "failpoint"]),
    // The target `local` is a client of the agent; it knows its protocol and nothing else of it.
    ("rollout", &["domain", "clock", "cluster", "docker", "failpoint", "agent", "manifests"]),
    ("slack", &["report"]),
    (
        "engine",
        &[
            "agent",
            "clock",
            "cluster",
            "docker",
            "domain",
            "exec",
            "failpoint",
            "github",
            "image",
            "infer",
            "manifests",
            "plan",
            "report",
            "rollout",
            "settings",
            "slack",
            "store",
            "telemetry",
        ],
    ),
    ("web", &["clock", "domain", "engine", "exec", "failpoint", "github", "report", "store", "telemetry"]),
    ("control", &["clock", "domain", "engine"]),
    // It plays with the real parts from outside: the binary, the operator's door, the look of the pages.
    ("demo", &["agent", "clock", "cluster", "control", "docker", "domain", "engine", "settings", "web"]),
];

/// The rooms that a source names, by `crate::ROOM` or in a `use crate::{…}` list.
fn named(text: &str) -> BTreeSet<String> {
    let plain: String = code(text).flat_map(|(_, line)| [line, "\n"]).collect();
    let mut rooms = BTreeSet::new();
    for (at, found) in plain.match_indices("crate::") {
        let before = plain[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &plain[at + found.len()..];
        let name = |text: &str| -> String {
            text.trim_start().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect()
        };
        let Some(list) = rest.strip_prefix('{') else {
            rooms.insert(name(rest));
            continue;
        };
        let (mut depth, mut fresh) = (0, true);
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => fresh = true,
                c if fresh && !c.is_whitespace() => {
                    rooms.insert(name(&list[i..]));
                    fresh = false;
                }
                _ => {}
            }
        }
    }
    rooms
}

#[test]
fn dependencies_point_down() {
    let mut problems = Vec::new();
    for (path, text) in rust("src") {
        let inside = path.trim_start_matches("src/");
        let room = inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs");
        if ["main", "lib", "cli"].contains(&room) || path.starts_with("src/demo/sample/") {
            continue;
        }
        let Some((_, may)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            problems.push(format!("{path}: the room {room} is not on the list"));
            continue;
        };
        for other in named(&text) {
            let known = ROOMS.iter().any(|(name, _)| *name == other);
            if known && other != room && !may.contains(&other.as_str()) {
                problems.push(format!("{path} uses {other}, and {room} may use {may:?} only"));
            }
        }
    }
    none(&problems, "dependencies point down, and adapters never import each other");
}

#[test]
fn the_reader_of_dependencies_reads() {
    let text = "use crate::{\n    a::{b, c},\n    d,\n};\nlet x = crate::e::f; // crate::g\nuse other_crate::h;";
    assert_eq!(named(text).into_iter().collect::<Vec<_>>(), ["a", "d", "e"]);
}

#[test]
fn no_path_of_somebodys_machine() {
    let folders = ["root", "work"].map(|name| format!("/{name}/"));
    let mut all = BTreeMap::new();
    for dir in ["src", "tests", "docs", "deploy", "templates", ".ci"] {
        all.extend(files(dir));
    }
    for file in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "Cargo.toml", "test", "deny.toml"] {
        all.insert(file.into(), fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}")));
    }
    let mut problems = Vec::new();
    for (path, text) in &all {
        // Reports of other machines are its subject.
        if path == "tests/it/exec/reports.rs" {
            continue;
        }
        for (n, line) in text.lines().enumerate() {
            let home = line.match_indices("/home/").any(|(at, found)| {
                let name = line[at + found.len()..].split('/').next().unwrap_or_default();
                let before =
                    line[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '.' && c != '}');
                before && name.starts_with(|c: char| c.is_ascii_lowercase())
            });
            if home || folders.iter().any(|folder| line.contains(folder.as_str())) {
                problems.push(format!("{path}:{}: {}", n + 1, line.trim()));
            }
        }
    }
    none(&problems, "these paths exist on one machine only");
}

#[test]
fn references_in_docs_are_current() {
    let of = [
        ("config", switchover::domain::config::reference_markdown()),
        ("settings", switchover::settings::reference_markdown()),
    ];
    let mut problems = Vec::new();
    for (name, text) in of {
        let path = format!("docs/reference-{name}.md");
        let stored = fs::read_to_string(root().join(&path)).unwrap_or_default();
        if stored.trim_end() != text.trim_end() {
            problems.push(format!("cargo run -- schema {name} --markdown > {path}"));
        }
    }
    let role = switchover::cluster::rights::manifest(&switchover::cluster::rights::Granted {
        account: ("switchover", "switchover"),
        releases: "production",
        steps: "switchover-steps",
    });
    if fs::read_to_string(root().join("deploy/kubernetes/role.yaml")).unwrap_or_default().trim_end() != role.trim_end()
    {
        problems.push("cargo run -- doctor --rbac > deploy/kubernetes/role.yaml".to_owned());
    }
    none(&problems, "the references are made from the code; make them anew with");
}

#[test]
fn links_in_docs_lead_somewhere() {
    let mut pages = files("docs");
    pages.extend(files("deploy"));
    for file in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        pages.insert(file.into(), fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}")));
    }
    let mut problems = Vec::new();
    for (path, text) in pages.iter().filter(|(path, _)| path.ends_with(".md")) {
        let folder = root().join(path).parent().unwrap_or(root()).to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            let outside = link.contains("://") || link.starts_with("mailto:");
            if !outside && !file.is_empty() && !folder.join(file).exists() {
                problems.push(format!("{path} links to {link}"));
            }
        }
    }
    none(&problems, "these links lead nowhere");
}

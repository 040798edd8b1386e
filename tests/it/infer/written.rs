//! A configuration that leaves something out.

use switchover::{
    domain::config,
    infer::{check_report, complete, infer, understand, written},
};

use super::{Repo, said};

const RUST: [(&str, &str); 3] = [
    ("Cargo.toml", "[package]\nname = 'hello'"),
    ("src/main.rs", ""),
    ("site/package.json", r#"{"scripts": {"build": "vite build"}}"#),
];

fn with(yaml: &'static str) -> Vec<(&'static str, &'static str)> {
    [&RUST[..], &[(config::FILE_NAME, yaml)]].concat()
}

macro_rules! said {
    ($files:expr, @$expected:literal) => {
        insta::assert_snapshot!(said(&$files), @$expected)
    };
}

#[test]
fn steps_are_completed() {
    said!(with("version: 1\napps:\n  web: {port: 80, start: ./run}\n  front: {path: site, image: acme/front}\n  other: {path: sites, kind: worker}\n  mailer: {image_of: web, kind: worker, start: x}\nenvironments:\n  p: {deploy: {branch: main}, approval: required, manifests: k8s, secrets: [A], windows: [daily 00:00-24:00 UTC]}\n"), @r"
    .github/switchover.yml is right.

    Tested: pushes to main, develop, and pull requests

    app web, in the repository's root
        test         cargo test
        build        cargo build --release
        container    rust:1
        start        ./run
        port         80
        cache        ~/.cargo/registry, target
        · the binary `hello` of the package `hello`   (Cargo.toml)
        · in a container, its steps run in rust:1

    app front, in site
        install      npm install
        build        npm run build
        container    node:22
        image        acme/front
        env          CI=true
        cache        ~/.npm
        · `npm install`   (site/package.json)
        · build: vite build   (site/package.json)
        · no start script: a static front end needs an image, or a `start` that serves what `build` makes   (site/package.json)
        · in a container, its steps run in node:22
        · there is no Dockerfile: one is made up for a static front end (Vite, dist/) behind nginx   (site/package.json)

    worker other, in sites
        steps        none

    worker mailer, in the repository's root
        image        that of web
        start        x

    environment p, released from pushes to main
        after        switchover
        approval     a person must say yes
        manifests    k8s
        replicas     1
        times        watched 1m, previous kept 1h, drained within 30s
        secrets      A
        windows      daily 00:00-24:00 UTC

    warning: apps.other.path: there is no folder `sites` here. Did you mean `site`?
    warning: environments.p.manifests: there is no folder `k8s` here.
    warning: other: no steps are written, and none could be inferred in `sites`.
    ");
}

#[test]
fn apps_are_completed() {
    said!(with("version: 1\non: {push: [], pull_request: false}\nenvironments: {p: {deploy: {branch: main}}}"), @r"
    .github/switchover.yml is right.

    Tested: nothing

    app hello, in the repository's root
        test         cargo test
        build        cargo build --release
        container    rust:1
        files        target/release/hello
        start        ./target/release/hello
        cache        ~/.cargo/registry, target
        · the binary `hello` of the package `hello`   (Cargo.toml)
        · in a container, its steps run in rust:1

    app site, in site
        install      npm install
        build        npm run build
        container    node:22
        env          CI=true
        cache        ~/.npm
        · `npm install`   (site/package.json)
        · build: vite build   (site/package.json)
        · no start script: a static front end needs an image, or a `start` that serves what `build` makes   (site/package.json)
        · in a container, its steps run in node:22

    environment p, released from pushes to main
        after        switchover
        replicas     1
        times        watched 1m, previous kept 1h, drained within 30s

    warning: pushes to `main` are not tested, so nothing is ever released
     --> .github/switchover.yml:3:37
      |
    3 | environments: {p: {deploy: {branch: main}}}
      |                                     ^^^^ expected `main` under `on.push`, or `after` without `switchover`
    ");
}

#[test]
fn what_is_written_stays() {
    let yaml = "version: 1\napps: {a: {container: 'debian:12', steps: {check: {run: make}}, start: x}}";
    let config = config::parse(yaml).expect("right").config;
    let done = complete(config.clone(), &Repo::new(RUST));
    assert_eq!((done.config, done.notes, done.warnings), (config, vec![], vec![]));
}

#[test]
fn a_member_without_steps_runs_at_the_workspace() {
    let files = [
        ("Cargo.toml", "[workspace]\nmembers = ['a', 'b']"),
        ("a/Cargo.toml", "[package]\nname = 'a'"),
        ("a/src/main.rs", ""),
        ("b/Cargo.toml", "[package]\nname = 'b'"),
        ("b/src/main.rs", ""),
        (config::FILE_NAME, "version: 1\napps: {mine: {path: b}}"),
    ];
    said!(files, @r"
    .github/switchover.yml is right.

    Tested: pushes to main, develop, and pull requests

    app mine, in the repository's root
        test         cargo test -p b
        build        cargo build --release -p b
        container    rust:1
        files        target/release/b
        start        ./target/release/b
        cache        ~/.cargo/registry, target
        · its steps run in the repository's root, because the workspace is there
        · a workspace of 2 packages: a, b   (Cargo.toml)
        · the binary `b` of the package `b`   (b/Cargo.toml)
        · in a container, its steps run in rust:1

    No environment is written: nothing is released.
    ");
}

#[test]
fn mistakes_are_shown_with_a_caret() {
    let repo = Repo::new(with("version: 1\napps: {a: {prot: 1}}"));
    let report = check_report(&repo, None, "main");
    assert!(!report.ok);
    insta::assert_snapshot!(report.text, @r#"
    error: `prot` is not a key of an app
     --> .github/switchover.yml:2:12
      |
    2 | apps: {a: {prot: 1}}
      |            ^^^^ expected one of kind, path, container, cache, env, secrets, steps, image, image_of, dockerfile, files, start, port, resources, health, pre_deploy, switch_after
      = did you mean `port`?

    .github/switchover.yml: 1 mistake
    "#);
    // Another text takes the stored one's place.
    assert!(check_report(&repo, Some("version: 1"), "main").ok);
    assert!(!check_report(&Repo::new([]), None, "main").ok);
}

#[test]
fn what_is_there_and_says_nothing_is_told_from_what_is_not_there() {
    let first = |yaml: &'static str| {
        let text = check_report(&Repo::new(with(yaml)), None, "main").text;
        text.lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(first(" \n"), ".github/switchover.yml is empty: all of this is inferred.");
    assert_eq!(first("# later\n"), ".github/switchover.yml holds only comments: all of this is inferred.");
    let library = ("Cargo.toml", "[package]\nname = 'library'");
    let yaml = "version: 1\nenvironments: {p: {deploy: {branch: main}}}";
    let text = check_report(&Repo::new([library, (config::FILE_NAME, yaml)]), None, "main").text;
    assert!(text.contains("warning: no app says how it starts, so there is nothing to release to p"), "{text}");
}

#[test]
fn what_is_inferred_can_be_written_down() {
    let repo = Repo::new(RUST);
    let yaml = written(&repo, "main").expect("a file");
    insta::assert_snapshot!(yaml, @r#"
    version: 1

    apps:
      # the binary `hello` of the package `hello` (Cargo.toml)
      # in a container, its steps run in rust:1
      hello:
        path: .
        container: rust:1
        cache: [~/.cargo/registry, target]
        steps:
          test:
            run: cargo test
          build:
            run: cargo build --release
        files: [target/release/hello]
        start: ./target/release/hello
      # `npm install` (site/package.json)
      # build: vite build (site/package.json)
      # no start script: a static front end needs an image, or a `start` that serves what `build` makes (site/package.json)
      # in a container, its steps run in node:22
      site:
        path: site
        container: node:22
        cache: [~/.npm]
        env:
          CI: "true"
        steps:
          install:
            run: npm install
          build:
            run: npm run build
    "#);
    assert_eq!(config::parse(&yaml).expect("right").config, infer(&repo, "main").config);
    assert_eq!(written(&Repo::new(with("version: 2")), "main"), None);
}

#[test]
fn empty_and_absent_say_the_same() {
    let absent = understand(&Repo::new(RUST), "main");
    let empty = understand(&Repo::new(with(" \n")), "main");
    let comments = understand(&Repo::new(with("# nothing yet\n")), "main");
    assert_eq!(absent, empty);
    assert_eq!(absent.result.expect("right").config, comments.result.expect("right").config);
}

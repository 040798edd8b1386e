//! Repositories that somebody made to do harm, or that are broken.

use proptest::prelude::*;
use switchover::{
    domain::config,
    infer::{infer, understand, written},
};

use super::{Repo, said};

#[test]
fn broken_manifests_are_told_and_do_not_hide_the_others() {
    let deep = "<a>".repeat(100_000);
    let lots = format!("{{\"name\": \"{}\"}}", "x".repeat(2 << 20));
    let nested = format!("{{\"a\": {}}}", "[".repeat(100_000));
    let bomb = "<!DOCTYPE p [<!ENTITY a 'x'><!ENTITY b '&a;&a;'>]><project><artifactId>&b;</artifactId></project>";
    insta::assert_snapshot!(said(&[
        ("a/Cargo.toml", "[package"),
        ("b/Cargo.toml", "[package]\nname = '$(reboot)'"),
        ("c/pom.xml", &deep),
        ("d/pom.xml", bomb),
        ("e/pom.xml", "<project><artifactId>x</artifactId>"),
        ("f/package.json", "{"),
        ("g/package.json", &lots),
        ("h/package.json", &nested),
        ("i/package.json", "[]"),
        ("j/package.json", r#"{"scripts": {"test": 1, "build": "tsc", "start": "x"}}"#),
        ("k/pom.xml", "<html/>"),
        ("l/pom.xml", ""),
        ("pnpm-workspace.yaml", "packages: [*x]"),
        ("package.json", "{}"),
    ]), @r"
    error: `a/Cargo.toml` cannot be read: unclosed table, expected `]`
     --> a/Cargo.toml:1:9
      |
    1 | [package
      |         ^ expected a file that Cargo can read; or each app with its steps under `apps` in .github/switchover.yml, so that none is inferred

    error: `b/Cargo.toml` has a package without a proper name
     --> b/Cargo.toml:2:9
      |
    2 | name = '$(reboot)'
      |         ^ expected a file that Cargo can read; or each app with its steps under `apps` in .github/switchover.yml, so that none is inferred

    error: `c/pom.xml` cannot be read: too much in it
     --> c/pom.xml:1:181
      |
    1 | …<a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a>…
      |                                                              ^ expected a file that Maven can read; or each app with its steps under `apps` in .github/switchover.yml, so that none is inferred

    error: `e/pom.xml` cannot be read: cut off
     --> e/pom.xml:1:36
      |
    1 | <project><artifactId>x</artifactId>
      |                                    ^ expected a file that Maven can read; or each app with its steps under `apps` in .github/switchover.yml, so that none is inferred

    error: `k/pom.xml` is no Maven project
     --> k/pom.xml:1:1
      |
    1 | <html/>
      | ^ expected a file that Maven can read; or each app with its steps under `apps` in .github/switchover.yml, so that none is inferred

    error: `l/pom.xml` cannot be read: empty
     --> l/pom.xml:1:1
      = expected a file that Maven can read; or each app with its steps under `apps` in .github/switchover.yml, so that none is inferred

    error: `f/package.json` cannot be read: EOF while parsing an object
     --> f/package.json:1:1
      |
    1 | {
      | ^ expected a file that npm can read; or each app with its steps under `apps` in .github/switchover.yml, so that none is inferred

    error: `g/package.json` is larger than 1 MiB and was not read
     --> g/package.json:1:1
      = expected a build file of at most 1 MiB

    error: `h/package.json` cannot be read: recursion limit exceeded
     --> h/package.json:1:133
      |
    1 | …[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[…
      |                                                              ^ expected a file that npm can read; or each app with its steps under `apps` in .github/switchover.yml, so that none is inferred

    error: `i/package.json` is no package
     --> i/package.json:1:1
      |
    1 | []
      | ^ expected a file that npm can read; or each app with its steps under `apps` in .github/switchover.yml, so that none is inferred

    error: `pnpm-workspace.yaml` cannot be read: this is not YAML: while parsing node, found unknown anchor
     --> pnpm-workspace.yaml:1:12
      |
    1 | packages: [*x]
      |            ^ expected a file that pnpm can read; or each app with its steps under `apps` in .github/switchover.yml, so that none is inferred

    11 mistakes in build files: nothing runs before they are mended.

    There is no .github/switchover.yml: all of this is inferred.

    Tested: pushes to main, develop, and pull requests

    app d, in d
        test         mvn -B -ntp test
                     reports target/surefire-reports/*.xml
        container    maven:3-eclipse-temurin-17
        cache        ~/.m2/repository
        · a library: tested, nothing to release   (d/pom.xml)
        · in a container, its steps run in maven:3-eclipse-temurin-17

    app j, in j
        install      npm install
        build        npm run build
        container    node:22
        start        npm start
        env          CI=true
        cache        ~/.npm
        · `npm install`   (j/package.json)
        · build: tsc   (j/package.json)
        · in a container, its steps run in node:22

    No environment is written: nothing is released.

    · has no test, build or start script: no app   (package.json)
    ");
}

#[test]
fn what_is_not_an_apps_own_may_be_broken() {
    let broken = [
        "node_modules/x/package.json",
        "web/vendor/x/Cargo.toml",
        "src/test/resources/pom.xml",
        "crates/x/tests/broken/Cargo.toml",
        "templates/service/package.json",
        "{{cookiecutter.name}}/package.json",
    ];
    let mut files = broken.map(|path| (path, "{")).to_vec();
    files.extend([
        ("Cargo.toml", "[package]\nname = 'hello'"),
        ("new/Cargo.toml", "[package]\nname = '{{ project-name }}'"),
        ("newer/package.json", "{\n  \"name\": {{ name }}\n}"),
    ]);
    let inferred = infer(&Repo::new(files), "main");
    assert_eq!((inferred.unreadable, inferred.config.apps.len()), (vec![], 1));
    insta::assert_snapshot!(inferred.warnings.join("\n"), @r"
    `crates/x/tests/broken/Cargo.toml` cannot be read: invalid key-value pair, expected key.
    `new/Cargo.toml` has a package without a proper name.
    `newer/package.json` cannot be read: key must be a string.
    `{{cookiecutter.name}}/package.json` cannot be read: EOF while parsing an object.
    `templates/service/package.json` cannot be read: EOF while parsing an object.
    ");
}

#[test]
fn what_nobody_reads_is_told() {
    let mut repo = Repo::new([("a/Cargo.toml", ""), ("b/package.json", ""), (config::FILE_NAME, "version: 1")]);
    (repo.large, repo.links) = (vec!["a/Cargo.toml"], vec!["b/package.json"]);
    insta::assert_snapshot!(switchover::infer::check_report(&repo, None, "main").text, @r"
    error: `a/Cargo.toml` is larger than 1 MiB and was not read
     --> a/Cargo.toml:1:1
      = expected a build file of at most 1 MiB

    1 mistake in a build file: nothing runs before it is mended.

    .github/switchover.yml is right.

    Tested: pushes to main, develop, and pull requests

    No environment is written: nothing is released.

    warning: `b/package.json` is a link, which is not followed, and was not read.
    warning: Nothing to run was found (looked for Cargo.toml, pom.xml, package.json). Say what to run under `apps`.
    ");
    repo.links = vec![config::FILE_NAME];
    insta::assert_snapshot!(switchover::infer::check_report(&repo, None, "main").text, @r"
    error: the file is a link, which is not followed
     --> .github/switchover.yml:1:1
      = expected the file's own text at this path

    .github/switchover.yml: 1 mistake
    ");
}

#[test]
fn only_what_the_written_apps_come_from_counts() {
    let broken = |yaml: &str| {
        let files = [("Cargo.toml", "["), ("a/Cargo.toml", "["), ("b/package.json", "{}"), ("c/pom.xml", "<")];
        let repo = Repo::new(files.into_iter().chain([(config::FILE_NAME, yaml)]));
        let inferred = understand(&repo, "main").result.expect("right");
        inferred.unreadable.into_iter().map(|u| u.file).collect::<Vec<_>>().join(" ")
    };
    let steps = "steps: {test: {run: make}}";
    assert_eq!(broken("version: 1"), "Cargo.toml a/Cargo.toml c/pom.xml");
    assert_eq!(broken(&format!("version: 1\napps: {{a: {{path: a, {steps}}}, c: {{path: c, {steps}}}}}")), "");
    assert_eq!(
        broken(&format!("version: 1\napps: {{a: {{path: a}}, c: {{path: c, {steps}}}}}")),
        "Cargo.toml a/Cargo.toml"
    );
    assert_eq!(broken("version: 1\napps: {c: {path: c}}"), "Cargo.toml c/pom.xml");
}

#[test]
fn circles_end() {
    let both = |other: &str| {
        format!(
            "<project><artifactId>x</artifactId><packaging>pom</packaging><modules><module>../{other}</module><module>.</module></modules></project>"
        )
    };
    let repo = Repo::new([("a/pom.xml", both("b").as_str()), ("b/pom.xml", both("a").as_str())]);
    assert!(infer(&repo, "main").config.apps.is_empty());
    let looped = "<project><artifactId>x</artifactId><version>${a}</version><properties><a>${b}</a><b>${a}</b></properties><build><plugins><plugin><artifactId>maven-shade-plugin</artifactId></plugin></plugins></build></project>";
    let apps = infer(&Repo::new([("pom.xml", looped)]), "main").config.apps;
    assert_eq!(apps[0].start.as_deref(), Some("java -jar target/*.jar"));
}

#[test]
fn odd_names_stay_one_word_of_the_shell() {
    let web = r#"{"name": "$(reboot)", "scripts": {"start": "x", "test": "y"}}"#;
    let repo =
        Repo::new([("package.json", r#"{"workspaces": ["*"]}"#), ("yarn.lock", ""), ("a b;c'd/package.json", web)]);
    let apps = infer(&repo, "main").config.apps;
    assert_eq!(apps[0].start.as_deref(), Some("yarn workspace '$(reboot)' run start"));
}

#[test]
fn a_huge_repository_is_cut() {
    let paths: Vec<String> = (0..3000).map(|i| format!("p{i}/Cargo.toml")).collect();
    let repo = Repo::new(paths.iter().map(|p| (p.as_str(), "[package]\nname = 'x'\n[lib]")));
    let inferred = infer(&repo, "main");
    assert_eq!(inferred.config.apps.len(), 300);
    assert!(inferred.warnings.contains(&"Only 300 of 3000 files named Cargo.toml were looked at.".to_owned()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_breaks_it(files in proptest::collection::btree_map(
        prop_oneof!["([ab]/){0,2}(Cargo.toml|pom.xml|package.json|server.js|src/main.rs|mvnw)", "\\PC{0,10}"],
        prop_oneof![
            "\\PC{0,40}",
            "\\[(package|workspace)\\]\n(name|members) = (\"[a-z$ ]{0,5}\"|\\[\"[ab*]\"\\])\n",
            "<project><artifactId>[a-z]{0,3}</artifactId>(<modules><module>[ab./]{0,4}</module></modules>)?</project>",
            "\\{\"name\": \"[a-z@/ ]{0,5}\", \"workspaces\": \\[\"[ab*!]{0,3}\"\\], \"scripts\": \\{\"(test|build|start)\": \"x\"\\}\\}",
        ], 0..10,
    )) {
        let repo = Repo::new(files.iter().map(|(p, t)| (p.as_str(), t.as_str())));
        let inferred = infer(&repo, "main");
        prop_assert!(inferred.config.apps.is_empty() || inferred.config.apps.values().all(|a| !a.steps.is_empty() || a.start.is_some()));
        if let Some(yaml) = written(&repo, "main") {
            prop_assert_eq!(config::parse(&yaml).map(|p| p.config), Ok(inferred.config));
        }
    }
}

//! Repositories that somebody made to do harm, or that are broken.

use proptest::prelude::*;
use switchover::{
    domain::config,
    infer::{infer, written},
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

    warning: `a/Cargo.toml` cannot be read: unclosed table, expected `]`.
    warning: `b/Cargo.toml` has a package without a proper name.
    warning: `c/pom.xml` cannot be read: too much in it.
    warning: `e/pom.xml` cannot be read: cut off.
    warning: `k/pom.xml` is no Maven project.
    warning: `l/pom.xml` cannot be read: empty.
    warning: `f/package.json` cannot be read: EOF while parsing an object at line 1 column 1.
    warning: `g/package.json` is larger than 1 MiB and was not read.
    warning: `h/package.json` cannot be read: recursion limit exceeded at line 1 column 133.
    warning: `i/package.json` is no package.
    warning: `pnpm-workspace.yaml` cannot be read: this is not YAML: while parsing node, found unknown anchor.
    ");
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

//! The images that steps run in, where nobody wrote one.

use super::{Repo, said};
use switchover::{domain::config, infer::understand};

/// The image of an app that runs `run`, over these files.
fn image(run: &str, files: &[(&str, &str)]) -> String {
    let yaml = format!("version: 1\napps: {{a: {{path: app, steps: {{test: {{run: '{run}'}}}}}}}}");
    let all = [&[(config::FILE_NAME, yaml.as_str()), ("app/x", "")], files].concat();
    let inferred = understand(&Repo::new(all), "main").result.unwrap();
    let note = inferred.notes.iter().find(|n| n.text.contains("container"));
    let from = note.map(|n| format!(" ({})", if n.file.is_empty() { &n.text } else { &n.file })).unwrap_or_default();
    format!("{}{from}", inferred.config.apps.values().next().unwrap().container.as_deref().unwrap_or("none"))
}

#[test]
fn versions_come_from_the_projects_own_files() {
    let pom = |inner: &str| format!("<project><artifactId>x</artifactId>{inner}</project>");
    let property = |name: &str, value: &str| pom(&format!("<properties><{name}>{value}</{name}></properties>"));
    let plugin =
        pom("<properties><j>21</j></properties><build><plugins><plugin><artifactId>maven-compiler-plugin</artifactId>\
         <configuration><release>${j}</release></configuration></plugin></plugins></build>");
    let cases: Vec<(&str, Vec<(&str, String)>)> = vec![
        ("mvn -B verify", vec![("app/pom.xml", property("java.version", "21"))]),
        ("sh ./mvnw verify", vec![("app/pom.xml", property("maven.compiler.release", "11"))]),
        ("mvn test", vec![("app/pom.xml", property("maven.compiler.source", "1.8"))]),
        ("mvn test", vec![("app/pom.xml", plugin)]),
        ("mvn test", vec![("app/pom.xml", pom("")), ("pom.xml", property("java.version", "14"))]),
        ("mvn test", vec![("app/pom.xml", pom(""))]),
        ("mvn test", vec![("app/pom.xml", "<<<".into()), (".sdkmanrc", "# x\njava=25.0.1-tem\n".into())]),
        ("mvn test", vec![(".tool-versions", "nodejs 20.1.0\njava temurin-21.0.2+13\n".into())]),
        (
            "./gradlew test",
            vec![("app/gradlew", String::new()), ("app/build.gradle", "sourceCompatibility = '17'".into())],
        ),
        (
            "gradle test",
            vec![("build.gradle.kts", "java { toolchain { languageVersion = JavaLanguageVersion.of(21) } }".into())],
        ),
        ("npm ci && npm test", vec![("app/package.json", r#"{"engines": {"node": ">=18"}}"#.into())]),
        ("npm test", vec![("app/package.json", r#"{"engines": {"node": "^18.12 || ^20.9"}}"#.into())]),
        ("npm test", vec![("app/package.json", r#"{"engines": {"node": "20.x"}}"#.into())]),
        ("npm test", vec![("package.json", r#"{"volta": {"node": "20.11.0"}}"#.into())]),
        (
            "npm test",
            vec![(".nvmrc", "lts/iron\n".into()), ("app/package.json", r#"{"engines": {"node": "18"}}"#.into())],
        ),
        ("npm test", vec![("app/.node-version", "v24.1.0".into()), (".nvmrc", "18".into())]),
        ("npm test", vec![(".nvmrc", "lts/*".into())]),
        ("npm test", vec![]),
        ("cargo test", vec![("rust-toolchain.toml", "[toolchain]\nchannel = '1.85.0'".into())]),
        ("cargo test", vec![("rust-toolchain", "nightly-2025-01-01\n".into())]),
        ("cargo test", vec![("app/rust-toolchain", "1.80\n".into())]),
        ("go test ./...", vec![("app/go.mod", "module x\n\ngo 1.22.3\n".into())]),
        ("go test ./...", vec![("go.mod", "module x\n\ngo 1.21\n\ntoolchain go1.24.1\n".into())]),
        ("pytest", vec![(".python-version", "3.11.9\n".into())]),
        ("pytest", vec![("app/pyproject.toml", "[project]\nrequires-python = '>=3.9'".into())]),
        ("pytest", vec![("app/pyproject.toml", "[tool.poetry.dependencies]\npython = '>=3.9,<3.11'".into())]),
        ("make", vec![("app/go.mod", "module x".into())]),
        ("make", vec![]),
        ("mvn test && npm test", vec![]),
        ("make", vec![("app/pom.xml", pom("")), ("app/package.json", "{}".into())]),
        // Nothing of it reaches an image's name.
        ("npm test", vec![(".nvmrc", "20@evil/x:latest".into())]),
        ("npm test", vec![(".nvmrc", "99999999999999999999".into())]),
        ("cargo test", vec![("rust-toolchain", "1.8;rm -rf /\n".into())]),
        ("mvn test", vec![("app/pom.xml", property("java.version", "${java.version}"))]),
    ];
    let all: Vec<String> = cases
        .iter()
        .map(|(run, files)| {
            let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
            let names: Vec<String> = files.iter().map(|(p, t)| format!("{p} {:.40}", t.replace('\n', "|"))).collect();
            format!("{run}; {} -> {}", names.join(", "), image(run, &files))
        })
        .collect();
    insta::assert_snapshot!(all.join("\n"), @r#"
    mvn -B verify; app/pom.xml <project><artifactId>x</artifactId><prop -> maven:3-eclipse-temurin-21 (app/pom.xml)
    sh ./mvnw verify; app/pom.xml <project><artifactId>x</artifactId><prop -> maven:3-eclipse-temurin-11 (app/pom.xml)
    mvn test; app/pom.xml <project><artifactId>x</artifactId><prop -> maven:3-eclipse-temurin-8 (app/pom.xml)
    mvn test; app/pom.xml <project><artifactId>x</artifactId><prop -> maven:3-eclipse-temurin-21 (app/pom.xml)
    mvn test; app/pom.xml <project><artifactId>x</artifactId></pro, pom.xml <project><artifactId>x</artifactId><prop -> maven:3-eclipse-temurin-17 (pom.xml)
    mvn test; app/pom.xml <project><artifactId>x</artifactId></pro -> maven:3-eclipse-temurin-17 (in a container, its steps run in maven:3-eclipse-temurin-17)
    mvn test; app/pom.xml <<<, .sdkmanrc # x|java=25.0.1-tem| -> maven:3-eclipse-temurin-25 (.sdkmanrc)
    mvn test; .tool-versions nodejs 20.1.0|java temurin-21.0.2+13| -> maven:3-eclipse-temurin-21 (.tool-versions)
    ./gradlew test; app/gradlew , app/build.gradle sourceCompatibility = '17' -> eclipse-temurin:17-jdk (app/build.gradle)
    gradle test; build.gradle.kts java { toolchain { languageVersion = Jav -> gradle:8-jdk21 (build.gradle.kts)
    npm ci && npm test; app/package.json {"engines": {"node": ">=18"}} -> node:22 (app/package.json)
    npm test; app/package.json {"engines": {"node": "^18.12 || ^20.9"}} -> node:20 (app/package.json)
    npm test; app/package.json {"engines": {"node": "20.x"}} -> node:20 (app/package.json)
    npm test; package.json {"volta": {"node": "20.11.0"}} -> node:20 (package.json)
    npm test; .nvmrc lts/iron|, app/package.json {"engines": {"node": "18"}} -> node:20 (.nvmrc)
    npm test; app/.node-version v24.1.0, .nvmrc 18 -> node:24 (app/.node-version)
    npm test; .nvmrc lts/* -> node:22 (.nvmrc)
    npm test;  -> node:22 (in a container, its steps run in node:22)
    cargo test; rust-toolchain.toml [toolchain]|channel = '1.85.0' -> rust:1.85.0 (rust-toolchain.toml)
    cargo test; rust-toolchain nightly-2025-01-01| -> rust:1 (rust-toolchain)
    cargo test; app/rust-toolchain 1.80| -> rust:1.80 (app/rust-toolchain)
    go test ./...; app/go.mod module x||go 1.22.3| -> golang:1.22 (app/go.mod)
    go test ./...; go.mod module x||go 1.21||toolchain go1.24.1| -> golang:1.24 (go.mod)
    pytest; .python-version 3.11.9| -> python:3.11 (.python-version)
    pytest; app/pyproject.toml [project]|requires-python = '>=3.9' -> python:3.12 (app/pyproject.toml)
    pytest; app/pyproject.toml [tool.poetry.dependencies]|python = '>=3 -> python:3.9 (app/pyproject.toml)
    make; app/go.mod module x -> golang:1 (in a container, its steps run in golang:1)
    make;  -> none
    mvn test && npm test;  -> none (it needs tools of several languages: to run its steps in containers, write a `container:` that has all of them)
    make; app/pom.xml <project><artifactId>x</artifactId></pro, app/package.json {} -> none (it needs tools of several languages: to run its steps in containers, write a `container:` that has all of them)
    npm test; .nvmrc 20@evil/x:latest -> node:20 (.nvmrc)
    npm test; .nvmrc 99999999999999999999 -> node:22 (in a container, its steps run in node:22)
    cargo test; rust-toolchain 1.8;rm -rf /| -> rust:1 (rust-toolchain)
    mvn test; app/pom.xml <project><artifactId>x</artifactId><prop -> maven:3-eclipse-temurin-17 (in a container, its steps run in maven:3-eclipse-temurin-17)
    "#);
}

#[test]
fn what_is_written_wins() {
    let yaml = "version: 1\napps: {a: {container: 'node:18', steps: {test: {run: npm test}}}}";
    let text = said(&[(config::FILE_NAME, yaml), (".nvmrc", "20")]);
    assert!(text.contains("node:18") && !text.contains("node:20"), "{text}");
}

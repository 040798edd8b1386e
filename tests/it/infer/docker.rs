//! Which Dockerfile, which build context, which port: repositories as they are found in the wild.

use std::{collections::BTreeMap, fmt::Write as _};

use proptest::prelude::*;
use switchover::infer::{
    docker::{ImagePlan, generated, image_plan},
    dockerfile::{Dockerfile, expand},
    understand,
};

use super::Repo;

const SPRING: &str = "<project><artifactId>NAME</artifactId><version>1.0</version><parent><artifactId>spring-boot-starter-parent</artifactId><version>3.5.0</version></parent><properties><java.version>21</java.version></properties><dependencies><dependency><artifactId>spring-boot-starter-web</artifactId></dependency><dependency><artifactId>spring-boot-starter-actuator</artifactId></dependency></dependencies><build><plugins><plugin><artifactId>spring-boot-maven-plugin</artifactId></plugin></plugins></build></project>";
const VITE: &str = r#"{"name": "web", "scripts": {"dev": "vite", "build": "vite build", "test": "vitest run"}, "devDependencies": {"vite": "7"}}"#;
const EXPRESS: &str = r#"{"name": "api", "scripts": {"start": "node server.js", "test": "jest"}, "dependencies": {"express": "5"}, "engines": {"node": ">=20"}}"#;
const JAR: &str = "FROM eclipse-temurin:21-jre\nCOPY target/*.jar app.jar\nEXPOSE 8080\nENTRYPOINT [\"java\", \"-jar\", \"app.jar\"]\n";
const NGINX: &str = "FROM nginx:alpine\nCOPY dist /usr/share/nginx/html\n";

fn told(name: &str, plan: &ImagePlan, out: &mut String) {
    let from = match (&plan.dockerfile, &plan.generated) {
        (Some(path), _) => path.clone(),
        (None, Some(made)) => format!("{} (made up)", made.name),
        (None, None) => format!("nothing: {}", plan.missing),
    };
    let context = if plan.context.is_empty() { "." } else { &plan.context };
    let port = plan.port.map_or_else(|| "no port".to_owned(), |p| format!("port {p}"));
    let _ = writeln!(out, "{name}: {from} in {context}, {port}");
    for (text, file) in &plan.notes {
        let _ = writeln!(out, "  · {text}   ({file})");
    }
}

/// What is understood of the images of these files.
fn images(files: &[(&str, &str)]) -> String {
    let repo = Repo::new(files.iter().copied());
    let understood = understand(&repo, "main").result.unwrap();
    let mut out = String::new();
    for (name, app) in &understood.config.apps {
        told(name.as_str(), &image_plan(&repo, name, app), &mut out);
    }
    out
}

macro_rules! images {
    ([$($file:expr),* $(,)?], @$snapshot:literal) => {
        insta::assert_snapshot!(images(&[$($file),*]), @$snapshot)
    };
}

#[test]
fn beside_the_app() {
    images!([("pom.xml", SPRING), ("Dockerfile", JAR)], @r"
    ");
    images!([
        ("backend/pom.xml", SPRING), ("backend/Dockerfile", JAR),
        ("frontend/package.json", VITE), ("frontend/Dockerfile", NGINX), ("frontend/Dockerfile.dev", "FROM node\nCOPY . .\nEXPOSE 5173\n"),
        ("Dockerfile", "FROM jenkins/jenkins:lts\nCOPY plugins.txt /\n"),
        ("database/Dockerfile", "FROM mysql:8\nCOPY init.sql /docker-entrypoint-initdb.d/\n"),
    ], @r"
    ");
    // Below the app's folder, with the app's folder as context.
    images!([("api/pom.xml", SPRING), ("api/src/main/docker/Dockerfile", JAR), ("web/package.json", VITE)], @r"
    ");
}

#[test]
fn elsewhere() {
    images!([
        ("services/orders/pom.xml", SPRING), ("services/users/package.json", EXPRESS), ("services/users/server.js", ""),
        ("docker/orders/Dockerfile", "FROM eclipse-temurin:21-jre\nCOPY services/orders/target/*.jar /app.jar\nEXPOSE 8081\n"),
        ("docker/Dockerfile.users", "FROM node:20\nCOPY services/users/package.json .\nCOPY services/users .\nEXPOSE 4000\n"),
    ], @r"
    ");
    images!([
        ("backend/pom.xml", SPRING), ("frontend/package.json", VITE),
        ("backend.Dockerfile", "FROM maven:3 AS build\nCOPY backend /src\nFROM eclipse-temurin:21-jre\nCOPY --from=build /src/target/x.jar /\n"),
        ("Dockerfile", "FROM node:20 AS build\nWORKDIR /src\nCOPY frontend/package.json ./\nCOPY frontend ./\nRUN npm run build\nFROM nginx\nCOPY --from=build /src/dist /usr/share/nginx/html\n"),
    ], @r"
    ");
}

#[test]
fn by_the_ci() {
    let apps = [("backend/pom.xml", SPRING), ("frontend/package.json", VITE)];
    let with = |more: &[(&'static str, &'static str)]| images(&[&apps[..], more].concat());
    insta::assert_snapshot!(with(&[
        ("build/java.df", "FROM eclipse-temurin:21-jre\nCOPY backend/target/app.jar /\nEXPOSE 8080\n"),
        ("build/web.df", "FROM nginx\nCOPY dist /usr/share/nginx/html\n"),
        ("Jenkinsfile", "pipeline {\n  environment {\n    REGISTRY = 'registry.example/acme'\n  }\n  stages {\n    stage('images') {\n      steps {\n        sh \"docker build -f build/java.df -t ${REGISTRY}/backend:${BUILD_NUMBER} .\"\n        dir('frontend') {\n          sh '''\n            docker build \\\n              -f ../build/web.df \\\n              -t $REGISTRY/frontend:latest \\\n              .\n          '''\n        }\n      }\n    }\n  }\n}\n"),
    ]), @r"
    ");
    insta::assert_snapshot!(with(&[
        ("docker/backend/Dockerfile", "FROM eclipse-temurin:21-jre\nCOPY backend/target/app.jar /\n"),
        ("docker/frontend/Dockerfile", "FROM nginx\nCOPY frontend/dist /usr/share/nginx/html\n"),
        (".github/workflows/build.yml", "on: push\njobs:\n  images:\n    strategy:\n      matrix:\n        include:\n          - {app: backend, port: 8080}\n          - {app: frontend, port: 80}\n    steps:\n      - uses: actions/checkout@v4\n      - uses: docker/build-push-action@v6\n        with:\n          context: .\n          file: docker/${{ matrix.app }}/Dockerfile\n          push: true\n          tags: ghcr.io/acme/${{ matrix.app }}:${{ github.sha }}\n"),
    ]), @r"
    ");
    insta::assert_snapshot!(with(&[
        ("backend/docker/prod", "FROM eclipse-temurin:21-jre\nCOPY target/app.jar /\n"),
        ("frontend/Dockerfile.test", "FROM nginx\nCOPY dist /x\n"),
        (".github/workflows/ci.yaml", "jobs:\n  b:\n    defaults: {run: {working-directory: backend}}\n    steps:\n      - run: |\n          mvn -B package\n          docker build --no-cache --pull -t acme/backend -f docker/prod . && docker push acme/backend\n      - run: cd ../frontend && docker buildx build --platform linux/amd64 --push -t acme/web:1 --file Dockerfile.test .\n        working-directory: backend\n"),
    ]), @r"
    ");
    insta::assert_snapshot!(with(&[
        ("ops/Dockerfile.jvm", "FROM eclipse-temurin:21-jre\nCOPY target/app.jar /\n"),
        ("cicd/kaniko.yaml", "spec:\n  containers:\n    - image: gcr.io/kaniko-project/executor\n      args:\n        - \"--dockerfile=ops/Dockerfile.jvm\"\n        - \"--context=dir:///workspace/backend\"\n        - \"--destination=registry.example/acme/backend:1\"\n"),
        (".gitlab-ci.yml", "web:\n  script:\n    - /kaniko/executor --context $CI_PROJECT_DIR/frontend --dockerfile $CI_PROJECT_DIR/frontend/Dockerfile --destination x/web\n"),
        ("frontend/Dockerfile", NGINX),
    ]), @r"
    ");
    insta::assert_snapshot!(with(&[
        ("docker-compose.yml", "services:\n  api:\n    build: {context: ./backend, dockerfile: Containerfile}\n    ports: ['18080:8090']\n  web:\n    build: frontend\n    ports: [{target: 8000, published: 80}]\n  db: {image: 'mysql:8'}\n"),
        ("backend/Containerfile", "FROM eclipse-temurin:21-jre\nCOPY target/app.jar /\n"),
        ("frontend/Dockerfile", "FROM acme/web-server\nCOPY dist /www\n"),
    ]), @r"
    ");
    // Groovy's own way, and a script.
    insta::assert_snapshot!(with(&[
        ("ci/Jenkinsfile", "node {\n  stage('b') {\n    def image = docker.build(\"acme/backend:${env.BUILD_ID}\", \"-f backend/Dockerfile.release backend\")\n  }\n}\n"),
        ("backend/Dockerfile.release", JAR),
        ("build.sh", "#!/bin/sh\nset -e\nTAG=1\ncd frontend\ndocker build -t web:$TAG -f Dockerfile.prod .\n"),
        ("frontend/Dockerfile.prod", NGINX),
    ]), @r"
    ");
}

#[test]
fn shared_by_several() {
    let parent = "<project><artifactId>all</artifactId><packaging>pom</packaging><modules><module>orders</module><module>users</module></modules></project>";
    let (orders, users) = (SPRING.replace("NAME", "orders"), SPRING.replace("NAME", "users"));
    let shared = "FROM eclipse-temurin:21-jre\nARG MODULE\nCOPY ${MODULE}/target/*.jar /app.jar\nARG PORT=8080\nEXPOSE ${PORT}\n";
    images!([("pom.xml", parent), ("orders/pom.xml", &orders), ("users/pom.xml", &users), ("Dockerfile", shared)], @r"
    ");
    images!([
        ("pom.xml", parent), ("orders/pom.xml", &orders), ("users/pom.xml", &users), ("docker/app.Dockerfile", shared),
        (".github/workflows/x.yml", "jobs:\n  x:\n    strategy: {matrix: {module: [orders, users]}}\n    steps:\n      - run: docker build -f docker/app.Dockerfile --build-arg MODULE=${{ matrix.module }} --build-arg PORT=8085 --build-arg SHA=${{ github.sha }} -t acme/${{ matrix.module }} .\n"),
    ], @r"
    ");
}

#[test]
fn as_it_is_written() {
    let file = "version: 1\napps:\n  shop:\n    path: backend\n    steps: {build: {run: mvn package}}\n    image: acme/shop\n    dockerfile: docker/Dockerfile.test\n    port: 9000\n  mailer:\n    kind: worker\n    path: backend\n    steps: {build: {run: mvn package}}\n    image: acme/mailer\n  lost:\n    path: docs\n    steps: {build: {run: make}}\n    image: acme/docs\n";
    images!([
        (".github/switchover.yml", file),
        ("backend/pom.xml", SPRING), ("backend/Dockerfile", JAR), ("docs/Makefile", ""),
        ("backend/docker/Dockerfile.test", "FROM eclipse-temurin:21-jre\nCOPY target/x.jar /\nEXPOSE 8080\n"),
    ], @r"
    ");
}

#[test]
fn ports_and_their_contradictions() {
    let expose = |text: &str| format!("FROM eclipse-temurin:21-jre\nCOPY target/*.jar app.jar\n{text}\n");
    let port = |dockerfile: &str, more: &[(&str, &str)]| {
        let text = expose(dockerfile);
        let files = [&[("pom.xml", SPRING), ("Dockerfile", text.as_str())], more].concat();
        images(&files).lines().filter(|l| l.contains("port")).collect::<Vec<_>>().join("\n")
    };
    let resources = "src/main/resources/application";
    let (yml, prod, properties) =
        (format!("{resources}.yml"), format!("{resources}-prod.yml"), format!("{resources}.properties"));
    let cases = [
        port("EXPOSE 8080", &[]),
        port("ARG PORT=9090\nEXPOSE $PORT/tcp", &[]),
        port("ENV P 7000\nEXPOSE ${P} 5353/udp 9001-9005", &[]),
        port("EXPOSE 8080 8443 9090", &[(&yml, "server:\n  port: 8443\n")]),
        port("EXPOSE 8080", &[(&yml, "server:\n  port: 9090\n")]),
        port("", &[(&yml, "server: {port: \"${PORT:8088}\"}\n")]),
        port("ENV PORT=7007", &[(&yml, "server: {port: \"${PORT:8088}\"}\n")]),
        port("ENV SPRING_PROFILES_ACTIVE=prod", &[(&yml, "server.port: 8080\n"), (&prod, "server: {port: 8081}\n")]),
        port(
            "ENTRYPOINT [\"java\", \"-Dspring.profiles.active=prod\", \"-jar\", \"app.jar\"]",
            &[(&yml, "server.port: 8080\n---\nspring.config.activate.on-profile: prod\nserver.port: 8082\n")],
        ),
        port("", &[(&yml, "spring: {profiles: {active: prod}}\nserver: {port: 8080}\n"), (&prod, "logging: {}\n")]),
        port("", &[(&properties, "# x\r\nserver.port = 8083\r\n")]),
        port("ENV SERVER_PORT=8084", &[(&properties, "server.port=8083")]),
        port("EXPOSE 99999 0 x", &[]),
        port("EXPOSE", &[(&yml, "server: [")]),
    ];
    insta::assert_snapshot!(cases.join("\n--\n"), @r"
    ");
    images!([("package.json", EXPRESS), ("server.js", "const port = process.env.PORT || 4000\n"), ("Dockerfile", "FROM node:20\nCOPY . .\n")], @r"
    ");
    images!([("package.json", VITE), ("nginx.conf", "server {\n  # listen 81;\n  listen [::]:8081 default_server;\n}\n"), ("Dockerfile", "FROM nginx\nCOPY dist /x\nCOPY nginx.conf /etc/nginx/conf.d/default.conf\nEXPOSE 80\n")], @r"
    ");
}

/// The text that is made up for the only app.
fn made(files: &[(&str, &str)]) -> String {
    let repo = Repo::new(files.iter().copied());
    let mut config = understand(&repo, "main").result.unwrap().config;
    for (name, app) in &mut config.apps {
        app.image = Some(format!("acme/{name}"));
    }
    let all = generated(&repo, &config.apps);
    all.iter()
        .map(|(app, made)| format!("=== {app}: {}\n{}--- leaves out\n{}", made.name, made.text, made.ignore))
        .collect()
}

#[test]
fn made_up_for_java() {
    insta::assert_snapshot!(made(&[("shop/pom.xml", &SPRING.replace("NAME", "shop")), ("shop/src/main/resources/application.yml", "server.port: 8081\n")]), @r"
    ");
    insta::assert_snapshot!(made(&[("pom.xml", &SPRING.replace("3.5.0", "2.7.18").replace(">21<", ">1.8<"))]), @r"
    ");
    insta::assert_snapshot!(made(&[("pom.xml", "<project><artifactId>tool</artifactId><version>2</version><build><finalName>tool</finalName><plugins><plugin><artifactId>maven-shade-plugin</artifactId></plugin></plugins></build></project>")]), @r"
    ");
    let file = "version: 1\napps: {api: {steps: {build: {run: ./gradlew build}}, image: acme/api}}\n";
    insta::assert_snapshot!(made(&[(".github/switchover.yml", file), ("build.gradle", "plugins {\n  id 'org.springframework.boot' version '3.2.1'\n}\njava { toolchain { languageVersion = JavaLanguageVersion.of(17) } }\n")]), @r"
    ");
}

#[test]
fn made_up_for_javascript() {
    insta::assert_snapshot!(made(&[("web/package.json", VITE), ("web/vite.config.ts", "export default { build: { outDir: './build/web' } }")]), @r"
    ");
    insta::assert_snapshot!(made(&[("package.json", EXPRESS), ("package-lock.json", "{}"), ("server.js", "app.listen(5000)")]), @r"
    ");
    let short = |files: &[(&str, &str)]| {
        let text = made(files);
        let line = |start: &str| text.lines().filter(|l| l.starts_with(start)).collect::<Vec<_>>().join("; ");
        format!("{} | {} | {} | {}", line("FROM"), line("COPY"), line("RUN c") + &line("RUN n"), line("CMD"))
    };
    let cases = [
        short(&[(
            "package.json",
            r#"{"scripts": {"start": "react-scripts start", "build": "react-scripts build"}, "dependencies": {"react-scripts": "5"}}"#,
        )]),
        short(&[
            (
                "package.json",
                r#"{"scripts": {"start": "ng serve", "build": "ng build"}, "dependencies": {"@angular/core": "20"}}"#,
            ),
            (
                "angular.json",
                r#"{"projects": {"shop": {"architect": {"build": {"builder": "@angular/build:application", "options": {}}}}}}"#,
            ),
        ]),
        short(&[
            (
                "package.json",
                r#"{"scripts": {"start": "ng serve", "build": "ng build"}, "dependencies": {"@angular/core": "15"}}"#,
            ),
            (
                "angular.json",
                r#"{"projects": {"shop": {"architect": {"build": {"builder": "@angular-devkit/build-angular:browser", "options": {"outputPath": "dist/x"}}}}}}"#,
            ),
        ]),
        short(&[(
            "package.json",
            r#"{"scripts": {"build": "vue-cli-service build"}, "devDependencies": {"@vue/cli-service": "5"}}"#,
        )]),
        short(&[
            (
                "package.json",
                r#"{"scripts": {"build": "next build", "start": "next start"}, "dependencies": {"next": "15"}}"#,
            ),
            ("pnpm-lock.yaml", ""),
            (".nvmrc", "v18.20\n"),
        ]),
        short(&[
            ("package.json", r#"{"scripts": {"start": "node dist/main.js --port $PORT", "build": "tsc"}}"#),
            ("yarn.lock", ""),
        ]),
        short(&[
            ("package.json", r#"{"workspaces": ["apps/*"]}"#),
            ("package-lock.json", ""),
            ("apps/api/package.json", EXPRESS),
            ("apps/api/server.js", ""),
        ]),
    ];
    insta::assert_snapshot!(cases.join("\n"), @r"
    ");
    images!([("package.json", r#"{"scripts": {"build": "tsc"}}"#), ("lib/Cargo.toml", "[package]\nname = 'x'\n[lib]")], @r"
    ");
}

#[test]
fn the_check_tells_it() {
    let file = "version: 1\napps:\n  shop: {path: backend, image: acme/shop}\n";
    insta::assert_snapshot!(super::said(&[(".github/switchover.yml", file), ("backend/pom.xml", SPRING), ("backend/Dockerfile", JAR)]), @r"
    ");
}

/// All that is read out of a Dockerfile.
fn read(text: &str) -> String {
    let dockerfile = Dockerfile::read(text, &BTreeMap::new());
    let list = |all: Vec<String>| all.join(", ");
    format!(
        "instructions {}; images {}; copies {}; ports {}; final {:?}",
        list(dockerfile.instructions.iter().map(|i| format!("{}@{}", i.keyword, i.line)).collect()),
        list(dockerfile.images().into_iter().map(|(line, name)| format!("{name}@{line}")).collect()),
        list(dockerfile.copied().into_iter().map(|c| format!("{}@{}", c.sources.join(" "), c.line)).collect()),
        list(dockerfile.ports().into_iter().map(|(line, port)| format!("{port}@{line}")).collect()),
        dockerfile.final_base().unwrap_or_default(),
    )
}

#[test]
fn dockerfiles_are_read_as_buildkit_reads_them() {
    let cases = [
        "FROM a\nCOPY x y /z\n",
        "\u{FEFF}# syntax=docker/dockerfile:1\n# escape=`\nFROM a\r\nRUN one `\r\n  two\r\nCOPY [\"a b\", \"c\", \"/d\"]\r\n",
        "# a comment\n# escape=`\nFROM a\nRUN x `\nCOPY y /\n",
        "from a as One\nrun x \\\n# comment\n\n   && y\nFROM one\nCOPY --chown=1:1 --from=one /x /y\nCOPY --from=0 /x /y\nCOPY --from=b:1 /x /y\nexpose 1\n",
        "FROM a\nRUN <<EOF\nFROM nothing\nEXPOSE 1\nEOF\nCOPY <<-'X' <<Y /z/\n\tEXPOSE 2\n\tX\nEXPOSE 3\nY\nEXPOSE 4\n",
        "FROM a\nRUN <<EOF\nnever closed\nEXPOSE 1\n",
        "ARG V=1\nARG R=${REG:-docker.io}/x\nFROM ${R}/y:${V}\nARG V\nEXPOSE 80${V}\n",
        "FROM --platform=$BUILDPLATFORM a AS x\nFROM b\nRUN --mount=type=bind,from=c,target=/c --mount=type=cache,target=/d true\n",
        "FROM a AS unused\nFROM scratch\nADD https://x.example/y git@host:z local.tar /\n",
        "ENV A=1\nFROM x$A$B\nENV A=\"two words\" B='q' C\\ D=e\nENV old style value\nEXPOSE $A\n",
        "",
        "FROM",
        "FROM a AS a\nFROM a\n",
        "FROM b\nFROM b AS c\nFROM 0\nCOPY --from=7 / /\n",
        "RUN \\",
        "FROM a\nCOPY\nADD x\nEXPOSE\nARG\nENV\nONBUILD COPY x y\nHEALTHCHECK NONE\n日本 x\n",
    ];
    let all: Vec<String> = cases.iter().map(|text| read(text)).collect();
    insta::assert_snapshot!(all.join("\n"), @r"
    ");
}

#[test]
fn variables_are_put_in() {
    let variables: BTreeMap<String, String> =
        [("A", "1"), ("EMPTY", ""), ("Ü", "x")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let cases = [
        "$A",
        "${A}b",
        "$Ab",
        "${B}",
        "${B:-d}",
        "${EMPTY:-d}",
        "${EMPTY-d}",
        "${B-d}",
        "${A:+y}",
        "${B:+y}",
        "\\$A",
        "${B:-${A}}",
        "${",
        "${A",
        "$",
        "$$",
        "\"$A\"",
        "${A%x}",
        "${Ü}",
        "a\\",
        "${B:-$A-$A}",
    ];
    let all: Vec<String> = cases.iter().map(|text| format!("{text} = {}", expand(text, &variables))).collect();
    insta::assert_snapshot!(all.join("\n"), @r"
    ");
}

#[test]
fn steps_lead_to_lines() {
    let text = "FROM busybox AS build\nWORKDIR /x\nENV A=1\nRUN make \\\n  all\nFROM build AS more\nRUN more\nFROM scratch\nCOPY --from=build /x /x\nRUN last\n";
    let dockerfile = Dockerfile::read(text, &BTreeMap::new());
    let line = |step: &str| dockerfile.step(step).map(|i| i.line);
    let cases = [
        ("[build 1/3] FROM docker.io/library/busybox", Some(1)),
        ("[build 2/3] WORKDIR /x", Some(2)),
        ("[build 3/3] RUN make   all", Some(4)),
        ("[more 1/1] RUN more", Some(7)),
        ("[stage-2 1/2] COPY --from=build /x /x", Some(9)),
        ("[stage-2 2/2] RUN last", Some(10)),
        ("[linux/amd64 build 3/3] RUN make   all", Some(4)),
        ("[nowhere 9/9] RUN last", Some(10)),
        ("Step 4/9 : RUN make   all", Some(4)),
        ("Step 0/9 : x", None),
        ("[internal] load build context", None),
        ("exporting to image", None),
        ("[", None),
        ("[]", None),
        ("", None),
    ];
    for (step, wanted) in cases {
        assert_eq!(line(step), wanted, "{step}");
    }
}

#[test]
fn hostile_dockerfiles_end() {
    let doubling: String = (0..60).map(|_| "ENV A=$A$A$A\n").collect();
    let nested = format!("FROM {}x{}\n", "${A:-".repeat(5000), "}".repeat(5000));
    let chain: String = (0..3000).map(|n| format!("FROM s{n} AS s{}\n", n + 1)).collect();
    let long = format!("FROM a\nRUN {}\n", "x".repeat(900_000));
    for text in [
        format!("FROM a\nENV A=xx\n{doubling}EXPOSE $A\n"),
        nested,
        chain,
        long,
        "\\\n".repeat(100_000),
        "FROM a\nRUN <<A <<B <<C\n".repeat(2000),
    ] {
        let dockerfile = Dockerfile::read(&text, &BTreeMap::new());
        let _ = (dockerfile.images(), dockerfile.ports(), dockerfile.copied(), dockerfile.environment("A"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_breaks_it(
        dockerfile in "((FROM|COPY|RUN|ARG|ENV|EXPOSE|ADD|from) (\\$\\{?[A-C]?(:-)?\\}?|[ab/.]{0,4}|--from=a|<<E|\"|'|=|\\\\|[0-9]{1,6}| ){0,5}\n|\\PC{0,10}\n){0,8}",
        ci in "((docker|kaniko/executor|cd|dir\\('a'\\) \\{|sh \"docker) ?(build|buildx build)? (-f|-t|--build-arg|\\$\\{\\{ x \\}\\}|\\$\\(pwd\\)|[ab./]{0,4}|\"|'|\\{|\\}| |=|\\\\){0,6}\n){0,5}",
        compose in "(services:\n  a:\n    build: ([ab./]{0,4}|\\{context: [a.]{0,3}\\})\n    ports: \\[[\"0-9: ]{0,8}\\]\n)?",
        settings in "(server[.:] ?(port)?[=:] ?(\\$\\{[A-Z]{0,2}:?[0-9]{0,5}\\}?|[0-9]{0,6})\n){0,3}",
        place in "([ab]/)?",
    ) {
        let workflow = format!("jobs:\n  a:\n    steps:\n      - run: |\n          {}\n", ci.replace('\n', "\n          "));
        let paths = [
            (format!("{place}Dockerfile"), dockerfile), ("Jenkinsfile".into(), ci), (".github/workflows/x.yml".into(), workflow),
            ("docker-compose.yml".into(), compose), ("a/pom.xml".into(), SPRING.into()), ("b/package.json".into(), EXPRESS.into()),
            ("a/src/main/resources/application.yml".into(), settings.clone()),
            ("a/src/main/resources/application.properties".into(), settings),
        ];
        let repo = Repo::new(paths.iter().map(|(p, t)| (p.as_str(), t.as_str())));
        let config = understand(&repo, "main").result.unwrap().config;
        for (name, app) in &config.apps {
            let plan = image_plan(&repo, name, app);
            // It is always one of the three, and never leads out.
            prop_assert!(plan.dockerfile.is_some() || plan.generated.is_some() || !plan.missing.is_empty());
            prop_assert!(!plan.context.split('/').any(|p| p == "..") && !plan.context.starts_with('/'));
        }
    }
}

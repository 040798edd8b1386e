//! Which Dockerfile, which build context, which port: repositories as they are found in the wild.

use std::fmt::Write as _;

use proptest::prelude::*;
use switchover::infer::{
    docker::{ImagePlan, image_plan},
    understand,
};

use super::Repo;

pub(super) const SPRING: &str = "<project><artifactId>NAME</artifactId><version>1.0</version><parent><artifactId>spring-boot-starter-parent</artifactId><version>3.5.0</version></parent><properties><java.version>21</java.version></properties><dependencies><dependency><artifactId>spring-boot-starter-web</artifactId></dependency><dependency><artifactId>spring-boot-starter-actuator</artifactId></dependency></dependencies><build><plugins><plugin><artifactId>spring-boot-maven-plugin</artifactId></plugin></plugins></build></project>";
pub(super) const VITE: &str = r#"{"name": "web", "scripts": {"dev": "vite", "build": "vite build", "test": "vitest run"}, "devDependencies": {"vite": "7"}}"#;
pub(super) const EXPRESS: &str = r#"{"name": "api", "scripts": {"start": "node server.js", "test": "jest"}, "dependencies": {"express": "5"}, "engines": {"node": ">=20"}}"#;
pub(super) const JAR: &str = "FROM eclipse-temurin:21-jre\nCOPY target/*.jar app.jar\nEXPOSE 8080\nENTRYPOINT [\"java\", \"-jar\", \"app.jar\"]\n";
pub(super) const NGINX: &str = "FROM nginx:alpine\nCOPY dist /usr/share/nginx/html\n";

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
pub(super) fn images(files: &[(&str, &str)]) -> String {
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
    NAME: Dockerfile in ., port 8080
      · built from `Dockerfile`: it lies in the app's folder   (Dockerfile)
      · port 8080: EXPOSE in line 3   (Dockerfile)
    ");
    images!([
        ("backend/pom.xml", SPRING), ("backend/Dockerfile", JAR),
        ("frontend/package.json", VITE), ("frontend/Dockerfile", NGINX), ("frontend/Dockerfile.dev", "FROM node\nCOPY . .\nEXPOSE 5173\n"),
        ("Dockerfile", "FROM jenkins/jenkins:lts\nCOPY plugins.txt /\n"),
        ("database/Dockerfile", "FROM mysql:8\nCOPY init.sql /docker-entrypoint-initdb.d/\n"),
    ], @r"
    backend: backend/Dockerfile in backend, port 8080
      · built from `backend/Dockerfile`: it lies in the app's folder   (backend/Dockerfile)
      · `Dockerfile` is left out: it is jenkins's   (Dockerfile)
      · `database/Dockerfile` is left out: it is mysql's   (database/Dockerfile)
      · port 8080: EXPOSE in line 3   (backend/Dockerfile)
    frontend: frontend/Dockerfile in frontend, port 80
      · built from `frontend/Dockerfile`: it lies in the app's folder   (frontend/Dockerfile)
      · `Dockerfile` is left out: it is jenkins's   (Dockerfile)
      · `database/Dockerfile` is left out: it is mysql's   (database/Dockerfile)
      · `frontend/Dockerfile.dev` is left out: by its name it is not for releases   (frontend/Dockerfile.dev)
      · port 80: the image nginx listens there   (frontend/Dockerfile)
    ");
    // Below the app's folder, with the app's folder as context.
    images!([("api/pom.xml", SPRING), ("api/src/main/docker/Dockerfile", JAR), ("web/package.json", VITE)], @r"
    api: api/src/main/docker/Dockerfile in api, port 8080
      · built from `api/src/main/docker/Dockerfile`: it lies below the app's folder   (api/src/main/docker/Dockerfile)
      · build context: `api`, because what is copied is found there   (api/src/main/docker/Dockerfile)
      · port 8080: EXPOSE in line 3   (api/src/main/docker/Dockerfile)
    web: web/Dockerfile (made up) in web, port 8080
      · there is no Dockerfile: one is made up for a static front end (Vite, dist/) behind nginx   (web/package.json)
    ");
}

#[test]
fn elsewhere() {
    images!([
        ("services/orders/pom.xml", SPRING), ("services/users/package.json", EXPRESS), ("services/users/server.js", ""),
        ("docker/orders/Dockerfile", "FROM eclipse-temurin:21-jre\nCOPY services/orders/target/*.jar /app.jar\nEXPOSE 8081\n"),
        ("docker/Dockerfile.users", "FROM node:20\nCOPY services/users/package.json .\nCOPY services/users .\nEXPOSE 4000\n"),
    ], @r"
    orders: docker/orders/Dockerfile in ., port 8081
      · built from `docker/orders/Dockerfile`: its folder has the app's name   (docker/orders/Dockerfile)
      · build context: the repository's root, because what is copied is found there   (docker/orders/Dockerfile)
      · port 8081: EXPOSE in line 3   (docker/orders/Dockerfile)
    users: docker/Dockerfile.users in ., port 4000
      · built from `docker/Dockerfile.users`: it has the app's name   (docker/Dockerfile.users)
      · build context: the repository's root, because what is copied is found there   (docker/Dockerfile.users)
      · port 4000: EXPOSE in line 4   (docker/Dockerfile.users)
    ");
    images!([
        ("backend/pom.xml", SPRING), ("frontend/package.json", VITE),
        ("backend.Dockerfile", "FROM maven:3 AS build\nCOPY backend /src\nFROM eclipse-temurin:21-jre\nCOPY --from=build /src/target/x.jar /\n"),
        ("Dockerfile", "FROM node:20 AS build\nWORKDIR /src\nCOPY frontend/package.json ./\nCOPY frontend ./\nRUN npm run build\nFROM nginx\nCOPY --from=build /src/dist /usr/share/nginx/html\n"),
    ], @r"
    backend: backend.Dockerfile in ., no port
      · built from `backend.Dockerfile`: it has the app's name   (backend.Dockerfile)
    frontend: Dockerfile in ., port 80
      · built from `Dockerfile`: it copies from the app's folder   (Dockerfile)
      · it builds the app itself, in line 5   (Dockerfile)
      · port 80: the image nginx listens there   (Dockerfile)
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
    backend: build/java.df in ., port 8080
      · built from `build/java.df`: CI builds an image of the app's name from it (Jenkinsfile line 8)   (build/java.df)
      · build context: the repository's root, as CI has it   (Jenkinsfile)
      · port 8080: EXPOSE in line 3   (build/java.df)
    frontend: build/web.df in frontend, port 80
      · built from `build/web.df`: CI builds an image of the app's name from it (Jenkinsfile line 11)   (build/web.df)
      · build context: `frontend`, as CI has it   (Jenkinsfile)
      · port 80: the image nginx listens there   (build/web.df)
    ");
    insta::assert_snapshot!(with(&[
        ("docker/backend/Dockerfile", "FROM eclipse-temurin:21-jre\nCOPY backend/target/app.jar /\n"),
        ("docker/frontend/Dockerfile", "FROM nginx\nCOPY frontend/dist /usr/share/nginx/html\n"),
        (".github/workflows/build.yml", "on: push\njobs:\n  images:\n    strategy:\n      matrix:\n        include:\n          - {app: backend, port: 8080}\n          - {app: frontend, port: 80}\n    steps:\n      - uses: actions/checkout@v4\n      - uses: docker/build-push-action@v6\n        with:\n          context: .\n          file: docker/${{ matrix.app }}/Dockerfile\n          push: true\n          tags: ghcr.io/acme/${{ matrix.app }}:${{ github.sha }}\n"),
    ]), @r"
    backend: docker/backend/Dockerfile in ., no port
      · built from `docker/backend/Dockerfile`: CI builds an image of the app's name from it (.github/workflows/build.yml line 11)   (docker/backend/Dockerfile)
      · build context: the repository's root, as CI has it   (.github/workflows/build.yml)
    frontend: docker/frontend/Dockerfile in ., port 80
      · built from `docker/frontend/Dockerfile`: CI builds an image of the app's name from it (.github/workflows/build.yml line 11)   (docker/frontend/Dockerfile)
      · build context: the repository's root, as CI has it   (.github/workflows/build.yml)
      · port 80: the image nginx listens there   (docker/frontend/Dockerfile)
    ");
    insta::assert_snapshot!(with(&[
        ("backend/docker/prod", "FROM eclipse-temurin:21-jre\nCOPY target/app.jar /\n"),
        ("frontend/Dockerfile.test", "FROM nginx\nCOPY dist /x\n"),
        (".github/workflows/ci.yaml", "jobs:\n  b:\n    defaults: {run: {working-directory: backend}}\n    steps:\n      - run: |\n          mvn -B package\n          docker build --no-cache --pull -t acme/backend -f docker/prod . && docker push acme/backend\n      - run: cd ../frontend && docker buildx build --platform linux/amd64 --push -t acme/web:1 --file Dockerfile.test .\n        working-directory: backend\n"),
    ]), @r"
    backend: backend/docker/prod in backend, no port
      · built from `backend/docker/prod`: CI builds an image of the app's name from it (.github/workflows/ci.yaml line 7)   (backend/docker/prod)
      · build context: `backend`, as CI has it   (.github/workflows/ci.yaml)
    frontend: frontend/Dockerfile.test in frontend, port 80
      · built from `frontend/Dockerfile.test`: CI builds it, and it lies in the app's folder (.github/workflows/ci.yaml line 8)   (frontend/Dockerfile.test)
      · build context: `frontend`, as CI has it   (.github/workflows/ci.yaml)
      · port 80: the image nginx listens there   (frontend/Dockerfile.test)
    ");
    insta::assert_snapshot!(with(&[
        ("ops/Dockerfile.jvm", "FROM eclipse-temurin:21-jre\nCOPY target/app.jar /\n"),
        ("cicd/kaniko.yaml", "spec:\n  containers:\n    - image: gcr.io/kaniko-project/executor\n      args:\n        - \"--dockerfile=ops/Dockerfile.jvm\"\n        - \"--context=dir:///workspace/backend\"\n        - \"--destination=registry.example/acme/backend:1\"\n"),
        (".gitlab-ci.yml", "web:\n  script:\n    - /kaniko/executor --context $CI_PROJECT_DIR/frontend --dockerfile $CI_PROJECT_DIR/frontend/Dockerfile --destination x/web\n"),
        ("frontend/Dockerfile", NGINX),
    ]), @r"
    backend: ops/Dockerfile.jvm in backend, no port
      · built from `ops/Dockerfile.jvm`: CI builds an image of the app's name from it (cicd/kaniko.yaml line 5)   (ops/Dockerfile.jvm)
      · build context: `backend`, as CI has it   (cicd/kaniko.yaml)
    frontend: frontend/Dockerfile in frontend, port 80
      · built from `frontend/Dockerfile`: CI builds it, and it lies in the app's folder (.gitlab-ci.yml line 3)   (frontend/Dockerfile)
      · build context: `frontend`, as CI has it   (.gitlab-ci.yml)
      · port 80: the image nginx listens there   (frontend/Dockerfile)
    ");
    insta::assert_snapshot!(with(&[
        ("docker-compose.yml", "services:\n  api:\n    build: {context: ./backend, dockerfile: Containerfile}\n    ports: ['18080:8090']\n  web:\n    build: frontend\n    ports: [{target: 8000, published: 80}]\n  db: {image: 'mysql:8'}\n"),
        ("backend/Containerfile", "FROM eclipse-temurin:21-jre\nCOPY target/app.jar /\n"),
        ("frontend/Dockerfile", "FROM acme/web-server\nCOPY dist /www\n"),
    ]), @r"
    backend: backend/Containerfile in backend, port 8090
      · built from `backend/Containerfile`: CI builds it, and it lies in the app's folder (docker-compose.yml line 3)   (backend/Containerfile)
      · build context: `backend`, as CI has it   (docker-compose.yml)
      · port 8090: the container's side of `ports`   (docker-compose.yml)
    frontend: frontend/Dockerfile in frontend, port 8000
      · built from `frontend/Dockerfile`: CI builds it, and it lies in the app's folder (docker-compose.yml line 6)   (frontend/Dockerfile)
      · build context: `frontend`, as CI has it   (docker-compose.yml)
      · port 8000: the container's side of `ports`   (docker-compose.yml)
    ");
    // Groovy's own way, and a script.
    insta::assert_snapshot!(with(&[
        ("ci/Jenkinsfile", "node {\n  stage('b') {\n    def image = docker.build(\"acme/backend:${env.BUILD_ID}\", \"-f backend/Dockerfile.release backend\")\n  }\n}\n"),
        ("backend/Dockerfile.release", JAR),
        ("build.sh", "#!/bin/sh\nset -e\nTAG=1\ncd frontend\ndocker build -t web:$TAG -f Dockerfile.prod .\n"),
        ("frontend/Dockerfile.prod", NGINX),
    ]), @r"
    backend: backend/Dockerfile.release in backend, port 8080
      · built from `backend/Dockerfile.release`: CI builds an image of the app's name from it (ci/Jenkinsfile line 3)   (backend/Dockerfile.release)
      · build context: `backend`, as CI has it   (ci/Jenkinsfile)
      · port 8080: EXPOSE in line 3   (backend/Dockerfile.release)
    frontend: frontend/Dockerfile.prod in frontend, port 80
      · built from `frontend/Dockerfile.prod`: CI builds it, and it lies in the app's folder (build.sh line 5)   (frontend/Dockerfile.prod)
      · build context: `frontend`, as CI has it   (build.sh)
      · port 80: the image nginx listens there   (frontend/Dockerfile.prod)
    ");
}

#[test]
fn shared_by_several() {
    let parent = "<project><artifactId>all</artifactId><packaging>pom</packaging><modules><module>orders</module><module>users</module></modules></project>";
    let (orders, users) = (SPRING.replace("NAME", "orders"), SPRING.replace("NAME", "users"));
    let shared = "FROM eclipse-temurin:21-jre\nARG MODULE\nCOPY ${MODULE}/target/*.jar /app.jar\nARG PORT=8080\nEXPOSE ${PORT}\n";
    images!([("pom.xml", parent), ("orders/pom.xml", &orders), ("users/pom.xml", &users), ("Dockerfile", shared)], @r"
    orders: Dockerfile in ., port 8080
      · built from `Dockerfile`: the workspace's apps share it   (Dockerfile)
      · build argument MODULE=orders: then its COPY finds what it takes   ()
      · port 8080: EXPOSE in line 5   (Dockerfile)
    users: Dockerfile in ., port 8080
      · built from `Dockerfile`: the workspace's apps share it   (Dockerfile)
      · build argument MODULE=users: then its COPY finds what it takes   ()
      · port 8080: EXPOSE in line 5   (Dockerfile)
    ");
    images!([
        ("pom.xml", parent), ("orders/pom.xml", &orders), ("users/pom.xml", &users), ("docker/app.Dockerfile", shared),
        (".github/workflows/x.yml", "jobs:\n  x:\n    strategy: {matrix: {module: [orders, users]}}\n    steps:\n      - run: docker build -f docker/app.Dockerfile --build-arg MODULE=${{ matrix.module }} --build-arg PORT=8085 --build-arg SHA=${{ github.sha }} -t acme/${{ matrix.module }} .\n"),
    ], @r"
    orders: docker/app.Dockerfile in ., port 8085
      · built from `docker/app.Dockerfile`: CI builds an image of the app's name from it (.github/workflows/x.yml line 5)   (docker/app.Dockerfile)
      · build arguments as CI gives them: MODULE=orders PORT=8085   (.github/workflows/x.yml)
      · build context: the repository's root, as CI has it   (.github/workflows/x.yml)
      · port 8085: EXPOSE in line 5   (docker/app.Dockerfile)
    users: docker/app.Dockerfile in ., port 8085
      · built from `docker/app.Dockerfile`: CI builds an image of the app's name from it (.github/workflows/x.yml line 5)   (docker/app.Dockerfile)
      · build arguments as CI gives them: MODULE=users PORT=8085   (.github/workflows/x.yml)
      · build context: the repository's root, as CI has it   (.github/workflows/x.yml)
      · port 8085: EXPOSE in line 5   (docker/app.Dockerfile)
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
    shop: backend/docker/Dockerfile.test in backend, port 9000
      · its Dockerfile is `backend/docker/Dockerfile.test`   (.github/switchover.yml)
      · build context: `backend`, because what is copied is found there   (backend/docker/Dockerfile.test)
      · port 8080 (EXPOSE in line 3) contradicts 9000, which won: it is written   (backend/docker/Dockerfile.test)
    mailer: backend/Dockerfile in backend, no port
      · built from `backend/Dockerfile`: it lies in the app's folder   (backend/Dockerfile)
    lost: nothing: There is no Dockerfile for this app, and none can be made up for what is in docs (it can for Spring Boot, plain jars, static front ends and Node servers). Write one, or name it under `dockerfile`. in ., no port
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
    NAME: Dockerfile in ., port 8080
      · port 8080: EXPOSE in line 3   (Dockerfile)
    --
    NAME: Dockerfile in ., port 9090
      · port 9090: EXPOSE in line 4   (Dockerfile)
    --
    NAME: Dockerfile in ., port 7000
      · port 7000: EXPOSE in line 4   (Dockerfile)
    --
    NAME: Dockerfile in ., port 8443
      · port 8443: EXPOSE in line 3   (Dockerfile)
    --
    NAME: Dockerfile in ., port 8080
      · port 8080: EXPOSE in line 3   (Dockerfile)
      · port 9090 (server.port) contradicts 8080, which won: EXPOSE in line 3   (src/main/resources/application.yml)
    --
    NAME: Dockerfile in ., port 8088
      · port 8088: server.port   (src/main/resources/application.yml)
    --
    NAME: Dockerfile in ., port 7007
      · port 7007: server.port   (src/main/resources/application.yml)
    --
    NAME: Dockerfile in ., port 8081
      · port 8081: server.port (profile prod)   (src/main/resources/application-prod.yml)
    --
    NAME: Dockerfile in ., port 8082
      · port 8082: server.port (profile prod)   (src/main/resources/application.yml)
    --
    NAME: Dockerfile in ., port 8080
      · port 8080: server.port   (src/main/resources/application.yml)
    --
    NAME: Dockerfile in ., port 8083
      · port 8083: server.port   (src/main/resources/application.properties)
    --
    NAME: Dockerfile in ., port 8084
      · port 8084: ENV SERVER_PORT   (Dockerfile)
    --
    NAME: Dockerfile in ., no port
    --
    NAME: Dockerfile in ., no port
    ");
    images!([("package.json", EXPRESS), ("server.js", "const port = process.env.PORT || 4000\n"), ("Dockerfile", "FROM node:20\nCOPY . .\n")], @r"
    api: Dockerfile in ., port 4000
      · built from `Dockerfile`: it lies in the app's folder   (Dockerfile)
      · port 4000: `env.PORT… 4000`   (server.js)
    ");
    images!([("package.json", VITE), ("nginx.conf", "server {\n  # listen 81;\n  listen [::]:8081 default_server;\n}\n"), ("Dockerfile", "FROM nginx\nCOPY dist /x\nCOPY nginx.conf /etc/nginx/conf.d/default.conf\nEXPOSE 80\n")], @r"
    web: Dockerfile in ., port 80
      · built from `Dockerfile`: it lies in the app's folder   (Dockerfile)
      · port 80: EXPOSE in line 4   (Dockerfile)
      · port 8081 (`listen [::]:8081 default_server`) contradicts 80, which won: EXPOSE in line 4   (nginx.conf)
    ");
}

#[test]
fn the_check_tells_it() {
    let file = "version: 1\napps:\n  shop: {path: backend, image: acme/shop}\n";
    insta::assert_snapshot!(super::said(&[(".github/switchover.yml", file), ("backend/pom.xml", SPRING), ("backend/Dockerfile", JAR)]), @r"
    .github/switchover.yml is right.

    Tested: pushes to main, develop, and pull requests

    app shop, in backend
        test         mvn -B -ntp test
                     reports target/surefire-reports/*.xml
        build        mvn -B -ntp package -DskipTests
        container    maven:3-eclipse-temurin-21
        image        acme/shop
        health       /actuator/health
        cache        ~/.m2/repository
        · a Spring Boot application   (backend/pom.xml)
        · health from the actuator   (backend/pom.xml)
        · in a container, its steps run in maven:3-eclipse-temurin-21   (backend/pom.xml)
        · built from `backend/Dockerfile`: it lies in the app's folder   (backend/Dockerfile)
        · port 8080: EXPOSE in line 3   (backend/Dockerfile)

    No environment is written: nothing is released.
    ");
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

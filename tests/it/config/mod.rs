//! `.github/switchover.yml`: what is read, what is refused and how, what is written.

mod changes;
mod hostile;
mod meaning;
mod mistakes;
mod round_trip;

use switchover::domain::config::{self, RepoConfig};

/// Each mistake in a line: place, key, sentence.
fn told(yaml: &str) -> String {
    match config::parse(yaml) {
        Ok(parsed) => {
            let lines =
                parsed.warnings.iter().map(|w| format!("warning {}:{} {} | {}", w.line, w.column, w.key, w.sentence()));
            lines.collect::<Vec<_>>().join("\n")
        }
        Err(mistakes) => {
            let lines = mistakes.iter().map(|m| format!("{}:{} {} | {}", m.line, m.column, m.key, m.sentence()));
            lines.collect::<Vec<_>>().join("\n")
        }
    }
}

fn right(yaml: &str) -> RepoConfig {
    match config::parse(yaml) {
        Ok(parsed) => parsed.config,
        Err(mistakes) => panic!("{}", config::render(&mistakes, yaml, "test.yml")),
    }
}

/// The example of the documentation, whole.
const EXAMPLE: &str = r##"
version: 1

on:
  push: [develop, main]          # default: the default branch, develop, and every environment's branch
  pull_request: true             # the merge of head into base is tested, shown on the head

apps:
  backend:
    path: backend                # untouched since the base: not run again, and the check says which run it reuses
    container: maven:3-eclipse-temurin-17      # what its steps run in (docker, kubernetes)
    cache: ["~/.m2/repository"]
    env: {MAVEN_OPTS: -Xmx1g}
    secrets: [NEXUS_TOKEN]       # granted by the operator
    steps:                       # any names, in order; `build` makes what goes into the image
      lint: {run: mvn -B -ntp spotless:check}
      test:
        run: mvn -B -ntp verify
        reports: ["target/surefire-reports/*.xml"]
        services: {db: {image: "mysql:8", env: {MYSQL_ROOT_PASSWORD: test}, ready: tcp:3306}}
        timeout: 20m
        resources: {cpu: 2, memory: 2Gi}
      build: {run: mvn -B -ntp package -DskipTests}
    image: docker.io/acme/backend              # tagged with the commit, deployed by digest
    dockerfile: Dockerfile
    start: java -jar target/app.jar            # only where there is no image (target local)
    port: 8080
    health: /actuator/health/readiness
    pre_deploy: {run: java -jar /app.jar --migrate, reversible: true}
  frontend: {path: frontend, switch_after: [backend]}
  mailer: {kind: worker, image_of: backend, start: java -jar /app.jar --worker}

environments:
  staging:
    deploy: {branch: develop}
  production:
    deploy: {branch: main}       # or {promote_from: staging}: only digests that are live there; never both
    after: [switchover, "ci / e2e"]            # checks that must be green on the commit, other people's too
    approval: required           # default none: switch as soon as green is verified
    allow: {roles: [maintain], teams: [acme/sre], users: []}
    target: prod                 # a name the operator granted; default: the only one
    manifests: k8s/
    url: https://shop.example.com
    env: {SPRING_PROFILES_ACTIVE: prod}
    secrets: [DB_URL, STRIPE_KEY]
    replicas: 2
    probe: {path: /health, interval: 20ms}     # GET only, unless `body:` says otherwise
    smoke: {run: "curl -fsS $URL/health"}
    watch_for: 2m
    keep_previous: 1h
    drain_timeout: 30s           # the longest request that must not be cut
    windows: ["mon-fri 09:00-17:00 Asia/Seoul"]

notify:
  slack: "#deploys"
"##;

use super::said;

macro_rules! said {
    ($files:expr, @$expected:literal) => {
        insta::assert_snapshot!(said(&$files), @$expected)
    };
}

#[test]
fn cargo_packages() {
    // a binary
    said!([("Cargo.toml", "[package]\nname = 'hello'"), ("src/main.rs", ""), ("Cargo.lock", "")], @r"
    There is no .github/switchover.yml: all of this is inferred.

    Tested: pushes to main, develop, and pull requests

    app hello, in the repository's root
        test         cargo test --locked
        build        cargo build --release --locked
        container    rust:1
        files        target/release/hello
        start        ./target/release/hello
        cache        ~/.cargo/registry, target
        · the binary `hello` of the package `hello`   (Cargo.toml)
        · in a container, its steps run in rust:1

    No environment is written: nothing is released.
    ");
    // a library in a folder, several binaries in another
    said!([
        ("lib/Cargo.toml", "[package]\nname = 'thing'"),
        ("lib/src/lib.rs", ""),
        ("tools/srv/Cargo.toml", "[package]\nname = 'many'\ndefault-run = 'b'\n[[bin]]\nname = 'x'\nrequired-features = ['f']"),
        ("tools/srv/src/bin/a.rs", ""),
        ("tools/srv/src/bin/b/main.rs", ""),
        ("tools/srv/src/bin/b/more.rs", ""),
    ], @r"
    There is no .github/switchover.yml: all of this is inferred.

    Tested: pushes to main, develop, and pull requests

    app lib, in lib
        test         cargo test
        container    rust:1
        cache        ~/.cargo/registry, target
        · a library: tested, nothing to release   (lib/Cargo.toml)
        · in a container, its steps run in rust:1

    app srv, in tools/srv
        test         cargo test
        build        cargo build --release
        container    rust:1
        files        target/release/b
        start        ./target/release/b
        cache        ~/.cargo/registry, target
        · the binary `b` of the package `many`   (tools/srv/Cargo.toml)
        · in a container, its steps run in rust:1

    No environment is written: nothing is released.

    warning: tools/srv/Cargo.toml: of the binaries a, b `b` is started. `start` says otherwise.
    ");
}

#[test]
fn cargo_workspaces() {
    // two binaries and a library, a developers' tool, one left out
    said!([
        ("Cargo.toml", "[workspace]\nmembers = ['crates/*', 'xtask']\nexclude = ['old']"),
        ("crates/api/Cargo.toml", "[package]\nname = 'api'"),
        ("crates/api/src/main.rs", ""),
        ("crates/mailer/Cargo.toml", "[package]\nname = 'mailer'"),
        ("crates/mailer/src/main.rs", ""),
        ("crates/core/Cargo.toml", "[package]\nname = 'core-lib'"),
        ("crates/core/src/lib.rs", ""),
        ("xtask/Cargo.toml", "[package]\nname = 'xtask'"),
        ("xtask/src/main.rs", ""),
        ("old/Cargo.toml", "[package]\nname = 'old'"),
        ("old/src/main.rs", ""),
        ("target/package/api/Cargo.toml", "[package]\nname = 'api'"),
        ("fuzz/Cargo.toml", "[package]\nname = 'api-fuzz'\n[workspace]"),
    ], @r"
    There is no .github/switchover.yml: all of this is inferred.

    Tested: pushes to main, develop, and pull requests

    app libraries, in the repository's root
        test         cargo test -p xtask -p core-lib
        container    rust:1
        cache        ~/.cargo/registry, target
        · a workspace of 4 packages: xtask, api, core-lib, mailer   (Cargo.toml)
        · libraries: tested, nothing to release   (Cargo.toml)
        · in a container, its steps run in rust:1

    app api, in the repository's root
        test         cargo test -p api
        build        cargo build --release -p api
        container    rust:1
        files        target/release/api
        start        ./target/release/api
        cache        ~/.cargo/registry, target
        · a workspace of 4 packages: xtask, api, core-lib, mailer   (Cargo.toml)
        · the binary `api` of the package `api`   (crates/api/Cargo.toml)
        · in a container, its steps run in rust:1

    app mailer, in the repository's root
        test         cargo test -p mailer
        build        cargo build --release -p mailer
        container    rust:1
        files        target/release/mailer
        start        ./target/release/mailer
        cache        ~/.cargo/registry, target
        · a workspace of 4 packages: xtask, api, core-lib, mailer   (Cargo.toml)
        · the binary `mailer` of the package `mailer`   (crates/mailer/Cargo.toml)
        · in a container, its steps run in rust:1

    app old, in old
        test         cargo test
        build        cargo build --release
        container    rust:1
        files        target/release/old
        start        ./target/release/old
        cache        ~/.cargo/registry, target
        · the binary `old` of the package `old`   (old/Cargo.toml)
        · in a container, its steps run in rust:1

    No environment is written: nothing is released.
    ");
    // libraries alone
    said!([
        ("Cargo.toml", "[workspace]\nmembers = ['a', 'b']"),
        ("a/Cargo.toml", "[package]\nname = 'a'"),
        ("a/src/lib.rs", ""),
        ("b/Cargo.toml", "[package]\nname = 'b'"),
        ("b/src/lib.rs", ""),
        (".cargo/config.toml", "[build]\ntarget = 'x86_64-unknown-linux-musl'"),
    ], @r"
    There is no .github/switchover.yml: all of this is inferred.

    Tested: pushes to main, develop, and pull requests

    app a, in the repository's root
        test         cargo test --workspace
        container    rust:1
        cache        ~/.cargo/registry, target
        · a workspace of 2 packages: a, b   (Cargo.toml)
        · libraries: tested, nothing to release   (Cargo.toml)
        · in a container, its steps run in rust:1

    No environment is written: nothing is released.
    ");
}

const BOOT: &str = "<project xmlns='http://maven.apache.org/POM/4.0.0'>
  <parent><groupId>org.springframework.boot</groupId><artifactId>spring-boot-starter-parent</artifactId><version>4.0.0</version></parent>
  <artifactId>demo</artifactId><version>1.2.3</version>
  <dependencies>
    <dependency><groupId>g</groupId><artifactId>spring-boot-starter-web</artifactId></dependency>
    <dependency><groupId>g</groupId><artifactId>spring-boot-starter-actuator</artifactId></dependency>
    <dependency><groupId>g</groupId><artifactId>mysql-connector-j</artifactId><scope>runtime</scope></dependency>
  </dependencies>
  <build><plugins><plugin><artifactId>spring-boot-maven-plugin</artifactId></plugin></plugins></build>
</project>";

#[test]
fn maven_projects() {
    // Spring Boot with a wrapper, beside a front end
    said!([
        ("backend/pom.xml", BOOT),
        ("backend/mvnw", ""),
        ("backend/src/test/resources/sample/pom.xml", BOOT),
        ("frontend/package.json", r#"{"name": "shop", "scripts": {"dev": "vite", "build": "vite build", "test": "vitest"}}"#),
        ("frontend/package-lock.json", "{}"),
    ], @r"
    There is no .github/switchover.yml: all of this is inferred.

    Tested: pushes to main, develop, and pull requests

    app backend, in backend
        test         sh ./mvnw -B -ntp test
                     reports target/surefire-reports/*.xml
        build        sh ./mvnw -B -ntp package -DskipTests
        container    maven:3-eclipse-temurin-17
        files        target/demo-1.2.3.jar
        start        java -jar target/demo-1.2.3.jar --server.port=$PORT
        health       /actuator/health
        cache        ~/.m2/repository
        · `sh ./mvnw`, because the wrapper is there   (backend/mvnw)
        · a Spring Boot application   (backend/pom.xml)
        · health from the actuator   (backend/pom.xml)
        · in a container, its steps run in maven:3-eclipse-temurin-17

    app frontend, in frontend
        install      npm ci
        test         npm test
        build        npm run build
        container    node:22
        env          CI=true
        cache        ~/.npm
        · `npm ci`   (frontend/package-lock.json)
        · test: vitest   (frontend/package.json)
        · build: vite build   (frontend/package.json)
        · no start script: a static front end needs an image, or a `start` that serves what `build` makes   (frontend/package.json)
        · in a container, its steps run in node:22

    No environment is written: nothing is released.

    warning: backend/pom.xml: its tests may need MySQL (dependency mysql-connector-j). Say so under `services` of the step.
    ");
    // a library with integration tests
    said!([("pom.xml", "<project><artifactId>lib</artifactId><version>1</version><build><plugins><plugin><artifactId>maven-failsafe-plugin</artifactId></plugin></plugins></build></project>")], @r"
    There is no .github/switchover.yml: all of this is inferred.

    Tested: pushes to main, develop, and pull requests

    app lib, in the repository's root
        test         mvn -B -ntp verify
                     reports target/surefire-reports/*.xml, target/failsafe-reports/*.xml
        container    maven:3-eclipse-temurin-17
        cache        ~/.m2/repository
        · a library: tested, nothing to release   (pom.xml)
        · in a container, its steps run in maven:3-eclipse-temurin-17

    No environment is written: nothing is released.
    ");
}

#[test]
fn maven_reactors() {
    let parent = "<project><artifactId>parent</artifactId><version>${revision}</version><packaging>pom</packaging>
      <properties><revision>2.0</revision></properties>
      <modules><module>core</module><module>api</module><module>../outside</module><module>jobs/pom.xml</module></modules></project>";
    let core = "<project><parent><artifactId>parent</artifactId><version>2.0</version></parent><artifactId>core</artifactId></project>";
    let app = |name: &str| {
        format!(
            "<project><parent><artifactId>parent</artifactId><version>2.0</version></parent><artifactId>{name}</artifactId>
             <dependencies><dependency><artifactId>core</artifactId></dependency></dependencies>
             <build><finalName>${{project.artifactId}}-app</finalName><plugins><plugin><artifactId>spring-boot-maven-plugin</artifactId></plugin></plugins></build></project>"
        )
    };
    said!([("pom.xml", parent), ("core/pom.xml", core), ("api/pom.xml", &app("api")), ("jobs/pom.xml", &app("jobs")), ("mvnw", "")], @r"
    There is no .github/switchover.yml: all of this is inferred.

    Tested: pushes to main, develop, and pull requests

    app api, in the repository's root
        test         sh ./mvnw -B -ntp -pl api -am test
                     reports **/target/surefire-reports/*.xml
        build        sh ./mvnw -B -ntp -pl api -am package -DskipTests
        container    maven:3-eclipse-temurin-17
        files        api/target/api-app.jar
        start        java -jar api/target/api-app.jar --server.port=$PORT
        cache        ~/.m2/repository
        · a Maven reactor of 3 modules: core, api, jobs   (pom.xml)
        · `sh ./mvnw`, because the wrapper is there   (mvnw)
        · a Spring Boot application   (api/pom.xml)
        · in a container, its steps run in maven:3-eclipse-temurin-17

    app jobs, in the repository's root
        test         sh ./mvnw -B -ntp -pl jobs -am test
                     reports **/target/surefire-reports/*.xml
        build        sh ./mvnw -B -ntp -pl jobs -am package -DskipTests
        container    maven:3-eclipse-temurin-17
        files        jobs/target/jobs-app.jar
        start        java -jar jobs/target/jobs-app.jar --server.port=$PORT
        cache        ~/.m2/repository
        · a Maven reactor of 3 modules: core, api, jobs   (pom.xml)
        · `sh ./mvnw`, because the wrapper is there   (mvnw)
        · a Spring Boot application   (jobs/pom.xml)
        · in a container, its steps run in maven:3-eclipse-temurin-17

    No environment is written: nothing is released.
    ");
    // one application: the whole reactor is tested
    said!([("srv/pom.xml", parent), ("srv/core/pom.xml", core), ("srv/api/pom.xml", &app("api"))], @r"
    There is no .github/switchover.yml: all of this is inferred.

    Tested: pushes to main, develop, and pull requests

    app api, in srv
        test         mvn -B -ntp test
                     reports **/target/surefire-reports/*.xml
        build        mvn -B -ntp package -DskipTests
        container    maven:3-eclipse-temurin-17
        files        api/target/api-app.jar
        start        java -jar api/target/api-app.jar --server.port=$PORT
        cache        ~/.m2/repository
        · a Maven reactor of 2 modules: core, api   (srv/pom.xml)
        · a Spring Boot application   (srv/api/pom.xml)
        · in a container, its steps run in maven:3-eclipse-temurin-17

    No environment is written: nothing is released.
    ");
    // parents alone
    said!([("pom.xml", parent)], @r#"
    There is no .github/switchover.yml: all of this is inferred.

    Tested: pushes to main, develop, and pull requests

    No environment is written: nothing is released.

    · a Maven project of parents alone: nothing to run   (pom.xml)

    warning: Nothing to run was found (looked for Cargo.toml, pom.xml, package.json). Say what to run under `apps` in .github/switchover.yml.
    "#);
}

#[test]
fn names_differ() {
    said!([
        ("a/api/Cargo.toml", "[package]\nname = 'x'"), ("a/api/src/main.rs", ""),
        ("b/api/Cargo.toml", "[package]\nname = 'x'"), ("b/api/src/main.rs", ""),
        ("b/api/package.json", r#"{"scripts": {"test": "jest"}}"#),
        ("größe/日本/package.json", r#"{"scripts": {"test": "jest"}}"#),
        ("日本/package.json", r#"{"scripts": {"test": "jest"}}"#),
    ], @r"
    There is no .github/switchover.yml: all of this is inferred.

    Tested: pushes to main, develop, and pull requests

    app a-api, in a/api
        test         cargo test
        build        cargo build --release
        container    rust:1
        files        target/release/x
        start        ./target/release/x
        cache        ~/.cargo/registry, target
        · the binary `x` of the package `x`   (a/api/Cargo.toml)
        · in a container, its steps run in rust:1

    app b-api, in b/api
        test         cargo test
        build        cargo build --release
        container    rust:1
        files        target/release/x
        start        ./target/release/x
        cache        ~/.cargo/registry, target
        · the binary `x` of the package `x`   (b/api/Cargo.toml)
        · in a container, its steps run in rust:1

    app b-api-npm, in b/api
        install      npm install
        test         npm test
        container    node:22
        env          CI=true
        cache        ~/.npm
        · `npm install`   (b/api/package.json)
        · test: jest   (b/api/package.json)
        · in a container, its steps run in node:22

    app gr--e, in größe/日本
        install      npm install
        test         npm test
        container    node:22
        env          CI=true
        cache        ~/.npm
        · `npm install`   (größe/日本/package.json)
        · test: jest   (größe/日本/package.json)
        · in a container, its steps run in node:22

    app npm, in 日本
        install      npm install
        test         npm test
        container    node:22
        env          CI=true
        cache        ~/.npm
        · `npm install`   (日本/package.json)
        · test: jest   (日本/package.json)
        · in a container, its steps run in node:22

    No environment is written: nothing is released.
    ");
}

#[test]
fn nothing_to_run() {
    said!([], @r#"
    There is no .github/switchover.yml: all of this is inferred.

    Tested: pushes to main, develop, and pull requests

    No environment is written: nothing is released.

    warning: Nothing to run was found (looked for Cargo.toml, pom.xml, package.json). Say what to run under `apps` in .github/switchover.yml.
    "#);
    said!([("README.md", ""), ("go.mod", "module x"), ("svc/build.gradle.kts", ""), ("switchover.yml", "version: 1")], @r#"
    There is no .github/switchover.yml: all of this is inferred.

    Tested: pushes to main, develop, and pull requests

    No environment is written: nothing is released.

    warning: svc/build.gradle.kts: Gradle projects are not inferred yet. Write their steps under `apps` in .github/switchover.yml.
    warning: go.mod: Go projects are not inferred yet. Write their steps under `apps` in .github/switchover.yml.
    warning: Nothing to run was found (looked for Cargo.toml, pom.xml, package.json). Say what to run under `apps` in .github/switchover.yml.
    warning: switchover.yml is not read: the configuration is .github/switchover.yml.
    "#);
}

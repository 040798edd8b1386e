//! Spring Boot applications as larger samples have them.

use switchover::infer::infer;

use super::{Repo, said};

/// A parent whose profile makes applications of the modules that have settings, as Spring's own samples do it.
#[test]
fn services_by_a_profile_of_their_parent() {
    let parent =
        "<project><groupId>g</groupId><artifactId>shop</artifactId><version>1</version><packaging>pom</packaging>
        <modules><module>carts</module><module>orders</module></modules>
        <profiles><profile><activation><file><exists>src/main/resources/application.yml</exists></file></activation>
        <build><plugins><plugin><artifactId>spring-boot-maven-plugin</artifactId></plugin></plugins></build>
        </profile></profiles></project>";
    let module = |name: &str| {
        format!(
            "<project><parent><artifactId>shop</artifactId><version>1</version></parent><artifactId>{name}</artifactId>
            <dependencies><dependency><artifactId>spring-boot-starter-web</artifactId></dependency>
            <dependency><artifactId>spring-boot-starter-actuator</artifactId></dependency></dependencies></project>"
        )
    };
    let (carts, orders) = (module("carts"), module("orders"));
    let files = [("pom.xml", parent), ("carts/pom.xml", &carts), ("orders/pom.xml", &orders)];
    insta::assert_snapshot!(said(&files), @r"
    There is no .github/switchover.yml: all of this is inferred.

    Tested: pushes to main, develop, and pull requests

    app carts, in the repository's root
        test         mvn -B -ntp -pl carts -am test
                     reports **/target/surefire-reports/*.xml
        build        mvn -B -ntp -pl carts -am package -DskipTests
        container    maven:3-eclipse-temurin-17
        files        carts/target/carts-1.jar
        start        java -jar carts/target/carts-1.jar --server.port=$PORT
        health       /actuator/health
        cache        ~/.m2/repository
        · a Maven reactor of 2 modules: carts, orders   (pom.xml)
        · a Spring Boot application   (carts/pom.xml)
        · health from the actuator   (carts/pom.xml)
        · in a container, its steps run in maven:3-eclipse-temurin-17

    app orders, in the repository's root
        test         mvn -B -ntp -pl orders -am test
                     reports **/target/surefire-reports/*.xml
        build        mvn -B -ntp -pl orders -am package -DskipTests
        container    maven:3-eclipse-temurin-17
        files        orders/target/orders-1.jar
        start        java -jar orders/target/orders-1.jar --server.port=$PORT
        health       /actuator/health
        cache        ~/.m2/repository
        · a Maven reactor of 2 modules: carts, orders   (pom.xml)
        · a Spring Boot application   (orders/pom.xml)
        · health from the actuator   (orders/pom.xml)
        · in a container, its steps run in maven:3-eclipse-temurin-17

    No environment is written: nothing is released.
    ");
}

#[test]
fn where_the_actuator_tells_the_health() {
    let pom = "<project><artifactId>shop</artifactId><version>1</version><build><plugins><plugin>
        <artifactId>spring-boot-maven-plugin</artifactId></plugin></plugins></build><dependencies><dependency>
        <artifactId>spring-boot-starter-actuator</artifactId></dependency></dependencies></project>";
    let yml = "src/main/resources/config/application.yml";
    let properties = "src/main/resources/application.properties";
    let own = "management:\n  endpoints:\n    web: {base-path: /management}\n";
    let mut out = Vec::new();
    for (file, text) in [
        (yml, "spring: {application: {name: shop}}\n".to_owned()),
        (yml, format!("# words\n---\nspring:\n  config: {{activate: {{on-profile: '!docs'}}}}\nx: 1\n---\n{own}")),
        (yml, format!("---\nspring: {{config: {{activate: {{on-profile: prod}}}}}}\n{own}")),
        (yml, "management.endpoints.web.base-path: /\n".to_owned()),
        (yml, "management: {server: {port: 8081}}\nserver: {port: 8080}\n".to_owned()),
        (yml, "management: {server: {port: 8080}}\nserver: {port: 8080}\n".to_owned()),
        (yml, "management: [\n".to_owned()),
        (properties, "# x\nmanagement.endpoints.web.basePath = /ops\nserver.servlet.context-path=/shop/\n".to_owned()),
        (properties, "management.endpoints.web.base-path=${OPS}\n".to_owned()),
    ] {
        let apps = infer(&Repo::new([("pom.xml", pom), (file, text.as_str())]), "main").config.apps;
        out.push(apps[0].health.clone().unwrap_or_else(|| "none".to_owned()));
    }
    insta::assert_snapshot!(out.join("\n"), @r"
    /actuator/health
    /management/health
    /actuator/health
    /health
    none
    /actuator/health
    /actuator/health
    /shop/ops/health
    /actuator/health
    ");
}

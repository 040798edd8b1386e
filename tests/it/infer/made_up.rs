//! Dockerfiles that are made up where a repository has none.

use switchover::infer::{docker::generated, understand};

use super::{
    Repo,
    docker::{EXPRESS, SPRING, VITE, images},
};

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
    insta::assert_snapshot!(made(&[("shop/pom.xml", &SPRING.replace("NAME", "shop")), ("shop/src/main/resources/application.yml", "server.port: 8081\n")]), @r#"
    === shop: shop/Dockerfile
    # Made up by Switchover, because there is no Dockerfile. `switchover check --write` keeps it as a file to edit.
    FROM eclipse-temurin:21-jre AS layers
    WORKDIR /build
    COPY target/shop-1.0.jar app.jar
    RUN java -Djarmode=tools -jar app.jar extract --layers --destination layers

    FROM eclipse-temurin:21-jre
    RUN groupadd --system --gid 10001 app && useradd --system --uid 10001 --gid app --no-create-home app
    WORKDIR /app
    COPY --from=layers /build/layers/dependencies/ ./
    COPY --from=layers /build/layers/spring-boot-loader/ ./
    COPY --from=layers /build/layers/snapshot-dependencies/ ./
    COPY --from=layers /build/layers/application/ ./
    USER 10001:10001
    ENV JAVA_TOOL_OPTIONS="-XX:MaxRAMPercentage=75 -XX:+ExitOnOutOfMemoryError"
    EXPOSE 8081
    HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
        CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8081 && printf 'GET /actuator/health HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200'"]
    ENTRYPOINT ["java", "-jar", "app.jar"]
    --- leaves out
    **
    !target/*.jar
    !target/*.war
    !build/libs/*.jar
    "#);
    insta::assert_snapshot!(made(&[("pom.xml", &SPRING.replace("3.5.0", "2.7.18").replace(">21<", ">1.8<"))]), @r#"
    === NAME: Dockerfile
    # Made up by Switchover, because there is no Dockerfile. `switchover check --write` keeps it as a file to edit.
    FROM eclipse-temurin:8-jre AS layers
    WORKDIR /build
    COPY target/NAME-1.0.jar app.jar
    RUN mkdir layers && cd layers && java -Djarmode=layertools -jar ../app.jar extract

    FROM eclipse-temurin:8-jre
    RUN groupadd --system --gid 10001 app && useradd --system --uid 10001 --gid app --no-create-home app
    WORKDIR /app
    COPY --from=layers /build/layers/dependencies/ ./
    COPY --from=layers /build/layers/spring-boot-loader/ ./
    COPY --from=layers /build/layers/snapshot-dependencies/ ./
    COPY --from=layers /build/layers/application/ ./
    USER 10001:10001
    ENV JAVA_TOOL_OPTIONS="-XX:MaxRAMPercentage=75 -XX:+ExitOnOutOfMemoryError"
    EXPOSE 8080
    HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
        CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /actuator/health HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200'"]
    ENTRYPOINT ["java", "org.springframework.boot.loader.JarLauncher"]
    --- leaves out
    **
    !target/*.jar
    !target/*.war
    !build/libs/*.jar
    "#);
    insta::assert_snapshot!(made(&[("pom.xml", "<project><artifactId>tool</artifactId><version>2</version><build><finalName>tool</finalName><plugins><plugin><artifactId>maven-shade-plugin</artifactId></plugin></plugins></build></project>")]), @r#"
    === tool: Dockerfile
    # Made up by Switchover, because there is no Dockerfile. `switchover check --write` keeps it as a file to edit.
    FROM eclipse-temurin:17-jre
    RUN groupadd --system --gid 10001 app && useradd --system --uid 10001 --gid app --no-create-home app
    WORKDIR /app
    COPY target/tool.jar app.jar
    USER 10001:10001
    ENV JAVA_TOOL_OPTIONS="-XX:MaxRAMPercentage=75 -XX:+ExitOnOutOfMemoryError"
    EXPOSE 8080
    ENTRYPOINT ["java", "-jar", "app.jar"]
    --- leaves out
    **
    !target/*.jar
    !target/*.war
    !build/libs/*.jar
    "#);
    let file = "version: 1\napps: {api: {steps: {build: {run: ./gradlew build}}, image: acme/api}}\n";
    insta::assert_snapshot!(made(&[(".github/switchover.yml", file), ("build.gradle", "plugins {\n  id 'org.springframework.boot' version '3.2.1'\n}\njava { toolchain { languageVersion = JavaLanguageVersion.of(17) } }\n")]), @r#"
    === api: Dockerfile
    # Made up by Switchover, because there is no Dockerfile. `switchover check --write` keeps it as a file to edit.
    FROM eclipse-temurin:17-jre AS layers
    WORKDIR /build
    COPY build/libs/*.jar libs/
    RUN rm -f libs/*-plain.jar && mv libs/*.jar app.jar
    RUN mkdir layers && cd layers && java -Djarmode=layertools -jar ../app.jar extract

    FROM eclipse-temurin:17-jre
    RUN groupadd --system --gid 10001 app && useradd --system --uid 10001 --gid app --no-create-home app
    WORKDIR /app
    COPY --from=layers /build/layers/dependencies/ ./
    COPY --from=layers /build/layers/spring-boot-loader/ ./
    COPY --from=layers /build/layers/snapshot-dependencies/ ./
    COPY --from=layers /build/layers/application/ ./
    USER 10001:10001
    ENV JAVA_TOOL_OPTIONS="-XX:MaxRAMPercentage=75 -XX:+ExitOnOutOfMemoryError"
    EXPOSE 8080
    ENTRYPOINT ["java", "org.springframework.boot.loader.launch.JarLauncher"]
    --- leaves out
    **
    !target/*.jar
    !target/*.war
    !build/libs/*.jar
    "#);
}

#[test]
fn made_up_for_javascript() {
    insta::assert_snapshot!(made(&[("web/package.json", VITE), ("web/vite.config.ts", "export default { build: { outDir: './build/web' } }")]), @r#"
    === web: web/Dockerfile
    # Made up by Switchover, because there is no Dockerfile. `switchover check --write` keeps it as a file to edit.
    FROM nginx:stable
    RUN printf '%s\n' \
        'worker_processes auto;' \
        'pid /tmp/nginx.pid;' \
        'error_log stderr;' \
        'events { worker_connections 1024; }' \
        'http {' \
        '  include /etc/nginx/mime.types;' \
        '  default_type application/octet-stream;' \
        '  access_log off;' \
        '  sendfile on;' \
        '  gzip on;' \
        '  gzip_types text/css application/javascript application/json image/svg+xml;' \
        '  client_body_temp_path /tmp/client;' \
        '  proxy_temp_path /tmp/proxy;' \
        '  fastcgi_temp_path /tmp/fastcgi;' \
        '  uwsgi_temp_path /tmp/uwsgi;' \
        '  scgi_temp_path /tmp/scgi;' \
        '  server {' \
        '    listen 8080;' \
        '    root /srv/www;' \
        '    location ~ "[.-](?:(?=[^./]*[0-9A-Z][^./]*[0-9A-Z])[0-9A-Za-z_-]{8}|[0-9a-f]{16,32})[.](?:[0-9a-z]+[.])?[0-9a-z]+$" {' \
        '      add_header Cache-Control "public, max-age=31536000, immutable";' \
        '      try_files $uri =404;' \
        '    }' \
        '    location ~ "[.](?:js|mjs|css|map|json|wasm|png|jpe?g|gif|svg|ico|webp|avif|woff2?|ttf)$" {' \
        '      add_header Cache-Control "no-cache";' \
        '      try_files $uri =404;' \
        '    }' \
        '    location / {' \
        '      add_header Cache-Control "no-cache";' \
        '      try_files $uri $uri/ /index.html;' \
        '    }' \
        '  }' \
        '}' \
        > /etc/nginx/nginx.conf
    COPY build/web/ /srv/www/
    USER 10001:10001
    EXPOSE 8080
    STOPSIGNAL SIGQUIT
    HEALTHCHECK --interval=10s --timeout=5s \
        CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080"]
    ENTRYPOINT ["nginx", "-g", "daemon off;"]
    --- leaves out
    **
    !build/web
    "#);
    insta::assert_snapshot!(made(&[("package.json", EXPRESS), ("package-lock.json", "{}"), ("server.js", "app.listen(5000)")]), @r#"
    === api: Dockerfile
    # Made up by Switchover, because there is no Dockerfile. `switchover check --write` keeps it as a file to edit.
    FROM node:20-slim
    ENV NODE_ENV=production PORT=5000
    WORKDIR /app
    COPY package.json package-lock.json ./
    RUN npm ci --omit=dev
    COPY . .
    USER node
    EXPOSE 5000
    CMD ["node", "server.js"]
    --- leaves out
    **/node_modules
    .git
    **/.env
    **/.env.*
    **/*.log
    **/coverage
    "#);
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
    insta::assert_snapshot!(cases.join("\n"), @r#"
    FROM nginx:stable | COPY build/ /srv/www/ |  | 
    FROM nginx:stable | COPY dist/shop/browser/ /srv/www/ |  | 
    FROM nginx:stable | COPY dist/x/ /srv/www/ |  | 
    FROM nginx:stable | COPY dist/ /srv/www/ |  | 
    FROM node:18-slim | COPY package.json pnpm-lock.yaml ./; COPY . . | RUN corepack enable && pnpm install --prod --frozen-lockfile | CMD ["npm", "start"]
    FROM node:22-slim | COPY package.json yarn.lock ./; COPY . . | RUN corepack enable && yarn install --production --frozen-lockfile | CMD ["npm", "start"]
    FROM node:20-slim | COPY . . | RUN npm ci --omit=dev | CMD ["node", "server.js"]
    "#);
    insta::assert_snapshot!(images(&[("package.json", r#"{"scripts": {"build": "tsc"}}"#), ("lib/Cargo.toml", "[package]\nname = 'x'\n[lib]")]), @r"
    app: nothing: There is no Dockerfile for this app, and package.json has no start script and no front end that is known. Write one, or name it under `dockerfile`. in ., no port
    lib: nothing: There is no Dockerfile for this app, and none can be made up for what is in lib (it can for Spring Boot, plain jars, static front ends and Node servers). Write one, or name it under `dockerfile`. in ., no port
    ");
}

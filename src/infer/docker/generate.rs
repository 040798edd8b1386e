//! Dockerfiles for apps that have none: Spring Boot, plain jars, static front ends, Node servers.
//!
//! All of them: what changes seldom in layers of its own, not root, a health check where something is known that tells
//! it. They build with the older builder too: no here-documents, no mounts.

use std::fmt::Write as _;

use serde_json::Value;

use super::{
    super::{
        Candidate,
        maven::{self, Facts},
        project::{Project, join, quoted, relative},
    },
    Generated,
};
use crate::domain::config::App;

/// What is made up.
pub(super) struct Made {
    pub generated: Generated,
    /// The build context.
    pub context: String,
    /// The port it listens on, unless something else says so.
    pub port: u16,
    /// What it is.
    pub what: String,
    /// The file that says so.
    pub file: String,
}

/// The release of Java where nothing says one: the oldest that is still kept up widely.
const JAVA: u32 = 17;
/// The release of Node.js where nothing says one.
const NODE: &str = "22";

/// Makes a Dockerfile up; where that can't be done, says why.
pub(super) fn generate(
    project: &Project<'_>,
    candidate: Option<&Candidate>,
    app: &App,
    port: Option<u16>,
) -> Result<Made, String> {
    let folder = candidate.map_or(app.path.as_str(), |c| c.folder.as_str());
    let has = |name: &str| join(folder, name).filter(|p| project.has(p));
    if let Some(pom) = has("pom.xml") {
        return maven_image(project, folder, &pom, candidate, app, port);
    }
    if let Some(gradle) = has("build.gradle").or_else(|| has("build.gradle.kts")) {
        return Ok(gradle_image(project, folder, &gradle, app, port));
    }
    if let Some(package) = has("package.json") {
        return node_image(project, folder, &package, app, port);
    }
    let place = if folder.is_empty() { "the repository's root" } else { folder };
    Err(format!(
        "There is no Dockerfile for this app, and none can be made up for what is in {place} (it can for Spring Boot, \
         plain jars, static front ends and Node servers). Write one, or name it under `dockerfile`."
    ))
}

fn file_name(folder: &str) -> String {
    if folder.is_empty() { "Dockerfile".to_owned() } else { format!("{folder}/Dockerfile") }
}

const HEAD: &str =
    "# Made up by Switchover, because there is no Dockerfile. `switchover check --write` keeps it as a file to edit.\n";

/// Java in a container: its memory is the container's, and it ends where it can't have more.
const JAVA_OPTIONS: &str = "ENV JAVA_TOOL_OPTIONS=\"-XX:MaxRAMPercentage=75 -XX:+ExitOnOutOfMemoryError\"\n";

/// A health check without any tool but bash, which the Java images have.
fn bash_health(port: u16, path: &str) -> String {
    format!(
        "HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \\\n    \
         CMD [\"bash\", \"-c\", \"exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET {path} HTTP/1.0\\\\r\\\\nHost: localhost\\\\r\\\\n\\\\r\\\\n' >&3 && head -n 1 <&3 | grep -q ' 200'\"]\n"
    )
}

/// The path of a health check, if it can stand in a command as it is.
fn health(app: &App, candidate: Option<&Candidate>) -> Option<String> {
    let path = app.health.clone().or_else(|| candidate?.app.health.clone())?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-?=&".contains(c);
    (path.starts_with('/') && path.chars().all(plain)).then_some(path)
}

fn maven_image(
    project: &Project<'_>,
    folder: &str,
    pom: &str,
    candidate: Option<&Candidate>,
    app: &App,
    port: Option<u16>,
) -> Result<Made, String> {
    let facts = maven::facts(project, folder);
    let files = candidate.and_then(|c| c.app.files.clone()).unwrap_or_default();
    let jar = files.iter().find(|f| f.ends_with(".jar") || f.ends_with(".war"));
    let path = candidate.map_or(folder, |c| c.app.path.as_str());
    let jar = match jar {
        Some(jar) => relative(relative(path, folder), jar).to_owned(),
        None if facts.spring => "target/*.jar".to_owned(),
        None => {
            return Err(format!(
                "There is no Dockerfile for this app, and {pom} makes nothing that can be started. Write one, or name it under `dockerfile`."
            ));
        }
    };
    Ok(java_image(folder, pom, &jar, "", &facts, health(app, candidate), port))
}

fn gradle_image(project: &Project<'_>, folder: &str, file: &str, app: &App, port: Option<u16>) -> Made {
    let text = project.text(file).unwrap_or_default();
    let spring = text.contains("org.springframework.boot");
    let after = |mark: &str| -> Option<String> {
        let rest = text.split_once(mark)?.1;
        Some(
            rest.trim_start_matches(|c: char| !c.is_ascii_digit())
                .chars()
                .take_while(|c| c.is_ascii_digit() || *c == '.')
                .collect(),
        )
    };
    let boot = [
        "org.springframework.boot' version",
        "org.springframework.boot\") version",
        "org.springframework.boot\" version",
    ];
    let boot = boot.iter().find_map(|m| after(m)).and_then(|v| {
        let mut parts = v.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    });
    let java = ["JavaLanguageVersion.of(", "JavaVersion.VERSION_", "sourceCompatibility ="];
    let java = java.iter().find_map(|m| after(m)).and_then(|v| v.trim_start_matches("1.").parse().ok());
    let facts =
        Facts { boot: boot.filter(|_| spring), spring, java, actuator: text.contains("spring-boot-starter-actuator") };
    let health = health(app, None).or_else(|| facts.actuator.then(|| "/actuator/health".to_owned()));
    // Beside the one that starts, Gradle makes a jar of the classes alone.
    java_image(
        folder,
        file,
        "build/libs/*.jar",
        "RUN rm -f libs/*-plain.jar && mv libs/*.jar app.jar\n",
        &facts,
        health,
        port,
    )
}

/// `tidy` is a command that leaves `app.jar` of what was copied to `libs/`; empty where one jar is copied by its name.
fn java_image(
    folder: &str,
    file: &str,
    jar: &str,
    tidy: &str,
    facts: &Facts,
    health: Option<String>,
    port: Option<u16>,
) -> Made {
    let java = facts.java.filter(|j| (8..100).contains(j)).unwrap_or(JAVA);
    let port = port.unwrap_or(8080);
    let mut text = HEAD.to_owned();
    // Layers came with 2.3, and are made by another command since 3.3 ("Spring Boot: Dockerfiles").
    let layers = facts.boot.filter(|v| facts.spring && *v >= (2, 3));
    let copied = |text: &mut String| {
        if tidy.is_empty() {
            let _ = writeln!(text, "COPY {} app.jar", json_word(jar));
        } else {
            let _ = write!(text, "COPY {} libs/\n{tidy}", json_word(jar));
        }
    };
    let user = "RUN groupadd --system --gid 10001 app && useradd --system --uid 10001 --gid app --no-create-home app\n";
    let start = match layers {
        Some(version) => {
            let _ = write!(text, "FROM eclipse-temurin:{java}-jre AS layers\nWORKDIR /build\n");
            copied(&mut text);
            let (extract, from, start) = if version >= (3, 3) {
                let extract = "java -Djarmode=tools -jar app.jar extract --layers --destination layers";
                (extract, "/build/layers", r#"["java", "-jar", "app.jar"]"#)
            } else {
                let launcher = if version >= (3, 2) {
                    r#"["java", "org.springframework.boot.loader.launch.JarLauncher"]"#
                } else {
                    r#"["java", "org.springframework.boot.loader.JarLauncher"]"#
                };
                (
                    "mkdir layers && cd layers && java -Djarmode=layertools -jar ../app.jar extract",
                    "/build/layers",
                    launcher,
                )
            };
            let _ = write!(text, "RUN {extract}\n\nFROM eclipse-temurin:{java}-jre\n{user}WORKDIR /app\n");
            for layer in ["dependencies", "spring-boot-loader", "snapshot-dependencies", "application"] {
                let _ = writeln!(text, "COPY --from=layers {from}/{layer}/ ./");
            }
            start
        }
        None if tidy.is_empty() => {
            let _ = write!(text, "FROM eclipse-temurin:{java}-jre\n{user}WORKDIR /app\n");
            copied(&mut text);
            r#"["java", "-jar", "app.jar"]"#
        }
        None => {
            let _ = write!(text, "FROM eclipse-temurin:{java}-jre AS jar\nWORKDIR /build\n");
            copied(&mut text);
            let _ = write!(
                text,
                "\nFROM eclipse-temurin:{java}-jre\n{user}WORKDIR /app\nCOPY --from=jar /build/app.jar app.jar\n"
            );
            r#"["java", "-jar", "app.jar"]"#
        }
    };
    let _ = write!(text, "USER 10001:10001\n{JAVA_OPTIONS}EXPOSE {port}\n");
    if let Some(path) = health {
        text.push_str(&bash_health(port, &path));
    }
    let _ = writeln!(text, "ENTRYPOINT {start}");
    let what = match (facts.spring, layers) {
        (true, Some((major, minor))) => {
            format!("Spring Boot {major}.{minor} on Java {java}, dependencies and code in layers of their own")
        }
        (true, None) => format!("Spring Boot on Java {java}"),
        (false, _) => format!("a jar on Java {java}"),
    };
    let ignore = "**\n!target/*.jar\n!target/*.war\n!build/libs/*.jar\n".to_owned();
    let generated = Generated { name: file_name(folder), text, ignore };
    Made { generated, context: folder.to_owned(), port, what, file: file.to_owned() }
}

/// A source of COPY: as a JSON array's part it may hold spaces; patterns work in both forms.
fn json_word(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/*+".contains(c);
    let safe: String = path.chars().map(|c| if plain(c) { c } else { '?' }).collect();
    safe
}

/// Whether a package depends on something.
fn depends(json: &Value, name: &str) -> bool {
    ["dependencies", "devDependencies"].iter().any(|k| json.get(k).is_some_and(|d| d.get(name).is_some()))
}

fn node_image(project: &Project<'_>, folder: &str, file: &str, app: &App, port: Option<u16>) -> Result<Made, String> {
    let text = project.text(file).unwrap_or_default();
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    let script = |name: &str| json.get("scripts").and_then(|s| s.get(name)).and_then(Value::as_str).unwrap_or_default();
    let builds = !script("build").is_empty();
    let start = script("start");
    // These serve for developers only; what they build is static.
    let for_developers =
        ["vite", "react-scripts", "ng serve", "ng s", "vue-cli-service", "parcel", "webpack", "astro dev"];
    let serves = !start.is_empty() && !for_developers.iter().any(|d| start.contains(d));
    let server = join(folder, "server.js").filter(|p| project.has(p));
    let needs_node =
        ["next", "nuxt", "express", "fastify", "koa", "@nestjs/core", "@hapi/hapi"].iter().any(|d| depends(&json, d));
    if builds
        && !(serves || server.is_some() && needs_node)
        && let Some((what, output)) = static_output(project, folder, &json)
    {
        return Ok(static_image(folder, file, &what, &output, port));
    }
    if serves || server.is_some() {
        return Ok(server_image(project, folder, file, &json, app, serves, port));
    }
    Err(format!(
        "There is no Dockerfile for this app, and {file} has no start script and no front end that is known. Write one, or name it under `dockerfile`."
    ))
}

/// The folder that a front end's build writes to, and what makes it.
fn static_output(project: &Project<'_>, folder: &str, json: &Value) -> Option<(String, String)> {
    let text = |name: &str| join(folder, name).and_then(|p| project.text(&p));
    let quoted_after = |text: &str, mark: &str| -> Option<String> {
        let rest = text.split_once(mark)?.1.trim_start_matches([':', ' ', '=']);
        let quote = rest.chars().next().filter(|c| "\"'`".contains(*c))?;
        let value = rest[1..].split(quote).next()?.trim_start_matches("./").trim_matches('/');
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        (!value.is_empty() && !value.contains("..") && value.chars().all(plain)).then(|| value.to_owned())
    };
    let script = json.get("scripts").and_then(|s| s.get("build")).and_then(Value::as_str).unwrap_or_default();
    if depends(json, "@angular/core") {
        let angular: Value = serde_json::from_str(&text("angular.json")?).ok()?;
        let (name, project) = angular.get("projects")?.as_object()?.iter().next()?;
        let build = project.get("architect").or_else(|| project.get("targets"))?.get("build")?;
        let output = build.get("options").and_then(|o| o.get("outputPath"));
        let base = output.and_then(|o| o.as_str().or_else(|| o.get("base")?.as_str()));
        let base = base.map_or_else(|| format!("dist/{name}"), |b| b.trim_end_matches('/').to_owned());
        // The builder that came with Angular 17 puts what browsers get into a folder of its own.
        let builder = build.get("builder").and_then(Value::as_str).unwrap_or_default();
        let browser = builder.ends_with(":application");
        return Some(("Angular".to_owned(), if browser { format!("{base}/browser") } else { base }));
    }
    if depends(json, "react-scripts") || script.contains("react-scripts build") {
        return Some(("Create React App".to_owned(), "build".to_owned()));
    }
    if depends(json, "@vue/cli-service") || script.contains("vue-cli-service build") {
        let output = text("vue.config.js").and_then(|t| quoted_after(&t, "outputDir"));
        return Some(("Vue CLI".to_owned(), output.unwrap_or_else(|| "dist".to_owned())));
    }
    if (depends(json, "vite") || script.contains("vite build")) && !depends(json, "@sveltejs/kit") {
        let config =
            ["vite.config.ts", "vite.config.js", "vite.config.mjs", "vite.config.mts"].iter().find_map(|n| text(n));
        let output = config.and_then(|t| quoted_after(&t, "outDir"));
        return Some(("Vite".to_owned(), output.unwrap_or_else(|| "dist".to_owned())));
    }
    if depends(json, "@sveltejs/adapter-static") {
        return Some(("SvelteKit".to_owned(), "build".to_owned()));
    }
    ["parcel", "astro", "webpack"].iter().find(|d| depends(json, d)).map(|d| ((*d).to_owned(), "dist".to_owned()))
}

/// nginx as nobody in particular: all that it writes is in /tmp. Files with a hash in their name are kept by browsers
/// for good: 8 characters with at least two digits or capitals (Vite, Angular, Create React App), or 16 to 32 hex
/// digits. A name in which no hash is seen for sure is only asked for again. A script that is missing is missing: the
/// index in its place would be taken for a script.
fn nginx_lines(port: u16) -> Vec<String> {
    let text = format!(
        "worker_processes auto;
pid /tmp/nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
  include /etc/nginx/mime.types;
  default_type application/octet-stream;
  access_log off;
  sendfile on;
  gzip on;
  gzip_types text/css application/javascript application/json image/svg+xml;
  client_body_temp_path /tmp/client;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  server {{
    listen {port};
    root /srv/www;
    location ~ \"[.-](?:(?=[^./]*[0-9A-Z][^./]*[0-9A-Z])[0-9A-Za-z_-]{{8}}|[0-9a-f]{{16,32}})[.](?:[0-9a-z]+[.])?[0-9a-z]+$\" {{
      add_header Cache-Control \"public, max-age=31536000, immutable\";
      try_files $uri =404;
    }}
    location ~ \"[.](?:js|mjs|css|map|json|wasm|png|jpe?g|gif|svg|ico|webp|avif|woff2?|ttf)$\" {{
      add_header Cache-Control \"no-cache\";
      try_files $uri =404;
    }}
    location / {{
      add_header Cache-Control \"no-cache\";
      try_files $uri $uri/ /index.html;
    }}
  }}
}}"
    );
    text.lines().map(str::to_owned).collect()
}

fn static_image(folder: &str, file: &str, what: &str, output: &str, port: Option<u16>) -> Made {
    // Ports below 1024 are not for everybody.
    let port = port.filter(|p| *p >= 1024).unwrap_or(8080);
    let mut text = HEAD.to_owned();
    text.push_str("FROM nginx:stable\nRUN printf '%s\\n' \\\n");
    for line in nginx_lines(port) {
        let _ = writeln!(text, "    '{line}' \\");
    }
    let _ = write!(
        text,
        "    > /etc/nginx/nginx.conf\nCOPY {}/ /srv/www/\nUSER 10001:10001\nEXPOSE {port}\nSTOPSIGNAL SIGQUIT\n\
         HEALTHCHECK --interval=10s --timeout=5s \\\n    \
         CMD [\"bash\", \"-c\", \"exec 3<>/dev/tcp/127.0.0.1/{port}\"]\n\
         ENTRYPOINT [\"nginx\", \"-g\", \"daemon off;\"]\n",
        json_word(output)
    );
    let ignore = format!("**\n!{output}\n");
    let generated = Generated { name: file_name(folder), text, ignore };
    let what = format!("a static front end ({what}, {output}/) behind nginx");
    Made { generated, context: folder.to_owned(), port, what, file: file.to_owned() }
}

fn server_image(
    project: &Project<'_>,
    folder: &str,
    file: &str,
    json: &Value,
    app: &App,
    script: bool,
    port: Option<u16>,
) -> Made {
    // A workspace is installed as a whole, at its root.
    let root = app.path.as_str();
    let below = relative(root, folder);
    let has = |name: &str| join(root, name).is_some_and(|p| project.has(&p));
    let release = node_release(project, root, json);
    let (lock, install) = if has("pnpm-lock.yaml") {
        ("pnpm-lock.yaml", "corepack enable && pnpm install --prod --frozen-lockfile")
    } else if has("yarn.lock") {
        ("yarn.lock", "corepack enable && yarn install --production --frozen-lockfile")
    } else if has("package-lock.json") {
        ("package-lock.json", "npm ci --omit=dev")
    } else {
        ("", "npm install --omit=dev")
    };
    let berry = lock == "yarn.lock" && has(".yarnrc.yml");
    let install = if berry { "corepack enable && yarn workspaces focus --all --production" } else { install };
    let port = port.unwrap_or(3000);
    let mut text = format!("{HEAD}FROM node:{release}-slim\nENV NODE_ENV=production PORT={port}\nWORKDIR /app\n");
    if below.is_empty() && !berry {
        let lock = if lock.is_empty() { String::new() } else { format!("{lock} ") };
        let _ = write!(text, "COPY package.json {lock}./\nRUN {install}\nCOPY . .\n");
    } else {
        let _ = write!(text, "COPY . .\nRUN {install}\n");
    }
    // npm hands on no signals; node itself gets them.
    let start = json.get("scripts").and_then(|s| s.get("start")).and_then(Value::as_str).unwrap_or("node server.js");
    let words: Vec<&str> = start.split_whitespace().collect();
    let plain = |w: &&str| w.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:=@".contains(c));
    let direct = !script || words.first() == Some(&"node") && words.iter().all(plain);
    let command = if direct {
        let words: Vec<String> = words.iter().map(|w| format!("\"{w}\"")).collect();
        format!("[{}]", words.join(", "))
    } else {
        "[\"npm\", \"start\"]".to_owned()
    };
    if !below.is_empty() {
        let _ = writeln!(text, "WORKDIR /app/{}", quoted(below).trim_matches('\''));
    }
    let _ = write!(text, "USER node\nEXPOSE {port}\n");
    if let Some(path) = health(app, None) {
        let _ = write!(
            text,
            "HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \\\n    \
             CMD [\"node\", \"-e\", \"fetch('http://127.0.0.1:{port}{path}').then(r => process.exit(r.ok ? 0 : 1), () => process.exit(1))\"]\n"
        );
    }
    let _ = writeln!(text, "CMD {command}");
    let ignore = "**/node_modules\n.git\n**/.env\n**/.env.*\n**/*.log\n**/coverage\n".to_owned();
    let generated = Generated { name: file_name(root), text, ignore };
    let what = format!("a server on Node.js {release}");
    Made { generated, context: root.to_owned(), port, what, file: file.to_owned() }
}

/// The release of Node.js that a project asks for: `.nvmrc`, `.node-version`, `engines`.
fn node_release(project: &Project<'_>, root: &str, json: &Value) -> String {
    let file = |name: &str| join(root, name).and_then(|p| project.text(&p));
    let engine = || Some(json.get("engines")?.get("node")?.as_str()?.to_owned());
    let said = file(".nvmrc").or_else(|| file(".node-version")).or_else(engine).unwrap_or_default();
    let digits: String =
        said.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).take(3).collect();
    if digits.is_empty() { NODE.to_owned() } else { digits }
}

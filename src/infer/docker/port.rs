//! The port that an app listens on in its container: who says so, and who wins.

use std::collections::BTreeMap;

use super::super::{
    dockerfile::{Dockerfile, expand},
    project::{Project, join},
    spring::documents,
};
use crate::domain::config::tree::{self, Node};

/// Somebody says which port it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub port: u16,
    /// In words: `EXPOSE in line 3`.
    pub what: String,
    pub file: String,
}

/// Images that listen on a port without anybody saying so.
const KNOWN: [(&str, u16); 7] = [
    ("nginx-unprivileged", 8080),
    ("nginx", 80),
    ("httpd", 80),
    ("caddy", 80),
    ("tomcat", 8080),
    ("jetty", 8080),
    ("wildfly", 8080),
];

/// All claims, the strongest first.
pub(super) fn claims(
    project: &Project<'_>,
    folder: &str,
    dockerfile: Option<(&str, &Dockerfile)>,
    compose: Option<(u16, String)>,
) -> Vec<Claim> {
    let mut all = Vec::new();
    let settings = settings(project, folder, dockerfile.map(|(_, d)| d));
    if let Some((file, dockerfile)) = dockerfile {
        let ports = dockerfile.ports();
        // Of several, the one that the app's own settings name; otherwise the first.
        let own = ports.iter().find(|(_, p)| settings.iter().any(|c| c.port == *p)).or(ports.first());
        if let Some((line, port)) = own {
            all.push(Claim { port: *port, what: format!("EXPOSE in line {line}"), file: file.to_owned() });
        }
    }
    all.extend(settings);
    if let Some((port, file)) = compose {
        all.push(Claim { port, what: "the container's side of `ports`".to_owned(), file });
    }
    all.extend(code(project, folder));
    if let Some((file, dockerfile)) = dockerfile
        && let Some(base) = dockerfile.final_base()
    {
        let name = base.split('@').next().unwrap_or(base).rsplit('/').next().unwrap_or(base);
        let name = name.split(':').next().unwrap_or(name);
        if let Some((_, port)) = KNOWN.iter().find(|(known, _)| *known == name) {
            all.push(Claim { port: *port, what: format!("the image {name} listens there"), file: file.to_owned() });
        }
    }
    all
}

/// `server.port` and its kind, under the profile that is active.
fn settings(project: &Project<'_>, folder: &str, dockerfile: Option<&Dockerfile>) -> Vec<Claim> {
    const KEYS: [&str; 3] = ["server.port", "quarkus.http.port", "micronaut.server.port"];
    let Some(folder) = join(folder, "src/main/resources") else { return Vec::new() };
    let environment = |name: &str| dockerfile.and_then(|d| d.environment(name));
    let mut variables = BTreeMap::new();
    for name in ["PORT", "SERVER_PORT", "APP_PORT", "HTTP_PORT"] {
        variables.extend(environment(name).map(|v| (name.to_owned(), v)));
    }
    if let Some(port) = variables.get("SERVER_PORT").and_then(|p| p.parse().ok()) {
        return vec![Claim { port, what: "ENV SERVER_PORT".to_owned(), file: "Dockerfile".to_owned() }];
    }
    let read = |suffix: &str| {
        ["properties", "yml", "yaml"].iter().find_map(|kind| {
            let path = join(&folder, &format!("application{suffix}.{kind}"))?;
            Some((properties(&project.text(&path)?, kind), path))
        })
    };
    let base = read("");
    let in_base = |key: &str| base.as_ref().and_then(|(p, _)| p.iter().find(|(k, _)| k == key)).map(|(_, v)| v.clone());
    let command = dockerfile.and_then(profile_of_command);
    let profile =
        command.or_else(|| environment("SPRING_PROFILES_ACTIVE")).or_else(|| in_base("spring.profiles.active"));
    let profile = profile.map(|p| expand_spring(&p, &variables)).unwrap_or_default();
    let mut files = Vec::new();
    // The last profile wins over those before it, and each over the plain file.
    for name in profile.split(',').map(str::trim).filter(|n| !n.is_empty()).rev().take(5) {
        if let Some((all, path)) = read(&format!("-{name}")) {
            files.push((all, path, format!(" (profile {name})")));
        }
        if let Some((all, path)) = &base {
            let own: Vec<(String, String)> = all
                .iter()
                .filter_map(|(k, v)| Some((k.strip_prefix(&format!("@{name}@"))?.to_owned(), v.clone())))
                .collect();
            files.push((own, path.clone(), format!(" (profile {name})")));
        }
    }
    files.extend(base.map(|(all, path)| (all, path, String::new())));
    for (all, path, of) in files {
        for key in KEYS {
            let value = all.iter().rev().find(|(k, _)| k == key).map(|(_, v)| expand_spring(v, &variables));
            if let Some(port @ 1..) = value.and_then(|v| v.trim().parse::<u16>().ok()) {
                return vec![Claim { port, what: format!("{key}{of}"), file: path }];
            }
        }
    }
    Vec::new()
}

/// `-Dspring.profiles.active=prod` or `--spring.profiles.active=prod` in the command.
fn profile_of_command(dockerfile: &Dockerfile) -> Option<String> {
    let commands = dockerfile.instructions.iter().filter(|i| matches!(i.keyword.as_str(), "ENTRYPOINT" | "CMD"));
    let found = commands.filter_map(|i| i.text.split_once("spring.profiles.active=")).next_back()?.1;
    let end = found.find(|c: char| !c.is_alphanumeric() && !"_-,".contains(c)).unwrap_or(found.len());
    Some(found[..end].to_owned()).filter(|p| !p.is_empty())
}

/// `${PORT:8080}` as Spring reads it: a default follows one colon.
fn expand_spring(text: &str, variables: &BTreeMap<String, String>) -> String {
    expand(&text.replace("${", "\u{1}").replace(':', ":-").replace('\u{1}', "${"), variables)
}

/// Keys and values of a settings file; those of a profile's own section begin with `@profile@`.
fn properties(text: &str, kind: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    if kind == "properties" {
        for line in text.lines().map(str::trim).filter(|l| !l.starts_with(['#', '!'])) {
            if let Some((key, value)) = line.split_once(['=', ':']) {
                all.push((key.trim().to_owned(), value.trim().to_owned()));
            }
        }
        return all;
    }
    for document in documents(text).iter().take(20) {
        let Ok(Some(root)) = tree::read(document) else { continue };
        let mut flat = Vec::new();
        flatten(&root, "", &mut flat, 0);
        let of = |k: &str| flat.iter().find(|(key, _)| key == k).map(|(_, v)| v.clone());
        let profile = of("spring.config.activate.on-profile").or_else(|| of("spring.profiles"));
        let prefix = profile.map(|p| format!("@{p}@")).unwrap_or_default();
        all.extend(flat.into_iter().map(|(k, v)| (format!("{prefix}{k}"), v)));
    }
    all
}

fn flatten(node: &Node, prefix: &str, into: &mut Vec<(String, String)>, depth: usize) {
    if into.len() > 5000 || depth > 20 {
        return;
    }
    for entry in node.entries() {
        let key = if prefix.is_empty() { entry.key.clone() } else { format!("{prefix}.{}", entry.key) };
        match entry.value.text() {
            Some(text) => into.push((key, text.to_owned())),
            None => flatten(&entry.value, &key, into, depth + 1),
        }
    }
}

/// What the code itself says.
fn code(project: &Project<'_>, folder: &str) -> Vec<Claim> {
    const FILES: [&str; 14] = [
        "nginx.conf",
        "default.conf",
        "nginx/nginx.conf",
        "nginx/default.conf",
        "server.js",
        "app.js",
        "index.js",
        "main.js",
        "src/server.js",
        "src/index.js",
        "src/app.js",
        "src/main.ts",
        "src/server.ts",
        "src/index.ts",
    ];
    for name in FILES {
        let Some(path) = join(folder, name) else { continue };
        let Some(text) = project.text(&path) else { continue };
        let port = if name.ends_with(".conf") { listens(&text) } else { javascript(&text) };
        if let Some((port, what)) = port {
            return vec![Claim { port, what, file: path }];
        }
    }
    Vec::new()
}

/// `listen 80;` of an nginx server ("Module ngx_http_core_module: listen").
fn listens(text: &str) -> Option<(u16, String)> {
    text.lines().map(|l| l.split('#').next().unwrap_or(l).trim()).find_map(|line| {
        let rest = line.strip_prefix("listen")?.trim().trim_end_matches(';');
        let first = rest.split_whitespace().next()?;
        let port = first.rsplit(':').next()?.parse().ok().filter(|p| *p > 0)?;
        Some((port, format!("`listen {rest}`")))
    })
}

/// `process.env.PORT || 3000`, `PORT = 3000`, `.listen(3000`.
fn javascript(text: &str) -> Option<(u16, String)> {
    for mark in ["env.PORT", ".listen(", "PORT =", "port =", "PORT=", "port:"] {
        for (at, _) in text.match_indices(mark) {
            let rest =
                text[at + mark.len()..].trim_start_matches([' ', '|', '?', '(', ')', '\'', '"', ',', '=', '+', ':']);
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            if let Ok(port @ 1..) = digits.parse::<u16>() {
                return Some((port, format!("`{}{digits}`", mark.trim_start_matches('.').to_owned() + "… ")));
            }
        }
    }
    None
}

//! What a repository's own CI builds: Jenkinsfiles, workflows, pipelines of other makers, scripts, Compose files.

use std::{collections::BTreeMap, rc::Rc};

use super::{
    super::project::{Project, join, split},
    shell::{Build, builds, kaniko, known, place, plain_image, variables, words},
};
use crate::domain::config::tree::{self, Node};

/// The most files that are looked at.
const MAX_FILES: usize = 80;

/// What a Compose service says.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub build: Build,
    /// The port inside of the container.
    pub port: Option<u16>,
    pub name: String,
}

/// All builds of the CI files, and the Compose services that are built here.
pub(super) fn find(project: &Project<'_>) -> (Vec<Build>, Vec<Service>) {
    let (mut found, mut services) = (Vec::new(), Vec::new());
    let mut looked = 0;
    for path in project.below("") {
        let Some(kind) = kind(path) else { continue };
        looked += 1;
        if looked > MAX_FILES {
            break;
        }
        let Some(text) = project.text(path) else { continue };
        match kind {
            Kind::Compose => services.extend(compose(path, &text)),
            Kind::Workflow => found.extend(workflow(path, &text)),
            Kind::Script => found.extend(script(path, &text)),
        }
    }
    (found, services)
}

enum Kind {
    Workflow,
    Compose,
    Script,
}

fn kind(path: &str) -> Option<Kind> {
    let (folder, name) = split(path);
    let lower = name.to_lowercase();
    let yaml = lower.ends_with(".yml") || lower.ends_with(".yaml");
    if folder.split('/').any(|f| matches!(f, "node_modules" | "vendor" | "target")) {
        return None;
    }
    if yaml && folder == ".github/workflows" {
        return Some(Kind::Workflow);
    }
    if yaml && (lower.starts_with("docker-compose") || lower.starts_with("compose")) {
        return Some(Kind::Compose);
    }
    let pipeline = yaml
        && (matches!(lower.as_str(), ".gitlab-ci.yml" | ".drone.yml" | ".travis.yml" | "bitbucket-pipelines.yml")
            || ["azure-pipelines", "cloudbuild", "buildspec"].iter().any(|p| lower.starts_with(p))
            || folder == ".circleci"
            || [".gitlab", ".tekton", "tekton", "ci", "cicd", ".ci"]
                .iter()
                .any(|f| folder.split('/').any(|p| p == *f)));
    let jenkins = lower.contains("jenkinsfile") || lower.ends_with(".groovy");
    let shell = lower == "makefile" || lower.ends_with(".sh") || lower == "justfile";
    (pipeline || jenkins || shell).then_some(Kind::Script)
}

fn script(path: &str, text: &str) -> Vec<Build> {
    let known = variables(text);
    let mut found = builds(text, "", 1, &known);
    // kaniko's arguments often stand on lines of their own, as in a pod.
    if found.is_empty() && text.contains("--dockerfile") {
        let flat = text.replace(['"', '\'', ',', '[', ']', '\\'], " ");
        let line = text.lines().position(|l| l.contains("--dockerfile")).map_or(0, |n| n + 1);
        found.extend(kaniko(&words(&flat), "", &known).map(|b| Build { line, ..b }));
    }
    found.into_iter().map(|b| Build { file: path.to_owned(), ..b }).collect()
}

fn workflow(path: &str, text: &str) -> Vec<Build> {
    let Ok(Some(root)) = tree::read(text) else { return script(path, text) };
    let mut found = Vec::new();
    let outer = environment(&root, &BTreeMap::new());
    let jobs = root.get("jobs").map_or(&[][..], Node::entries);
    for job in jobs {
        let job = &job.value;
        let env = environment(job, &outer);
        let cwd = |node: &Node| Some(node.get("defaults")?.get("run")?.get("working-directory")?.text()?.to_owned());
        let folder = cwd(job).or_else(|| cwd(&root)).unwrap_or_default();
        for matrix in matrix(job) {
            let mut known_here = env.clone();
            known_here.extend(matrix);
            for step in job.get("steps").map_or(&[][..], Node::items) {
                found.extend(step_builds(step, &folder, &known_here));
            }
        }
    }
    found.dedup();
    found.into_iter().map(|b| Build { file: path.to_owned(), ..b }).collect()
}

fn environment(node: &Node, outer: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = outer.clone();
    for entry in node.get("env").map_or(&[][..], Node::entries) {
        if let Some(text) = entry.value.text().filter(|t| !t.contains("${{")) {
            all.insert(entry.key.clone(), text.to_owned());
        }
    }
    all
}

/// The values that a job's matrix goes through, as `matrix.NAME`; one empty round where there is none.
fn matrix(job: &Node) -> Vec<BTreeMap<String, String>> {
    let Some(matrix) = job.get("strategy").and_then(|s| s.get("matrix")) else { return vec![BTreeMap::new()] };
    let fields = |prefix: &str, node: &Rc<Node>| -> Vec<(String, String)> {
        let own = node.text().map(|t| (prefix.to_owned(), t.to_owned()));
        let inner =
            node.entries().iter().filter_map(|e| Some((format!("{prefix}.{}", e.key), e.value.text()?.to_owned())));
        own.into_iter().chain(inner).collect()
    };
    let mut rounds = vec![BTreeMap::new()];
    for entry in matrix.entries().iter().filter(|e| e.key != "include" && e.key != "exclude") {
        let values = entry.value.items();
        if values.is_empty() || rounds.len() * values.len() > 100 {
            continue;
        }
        let name = format!("matrix.{}", entry.key);
        rounds = rounds
            .iter()
            .flat_map(|round| {
                values.iter().map(|value| {
                    let mut round: BTreeMap<String, String> = round.clone();
                    round.extend(fields(&name, value));
                    round
                })
            })
            .collect();
    }
    let included = matrix.get("include").map_or(&[][..], Node::items);
    let included: Vec<BTreeMap<String, String>> = included
        .iter()
        .take(100)
        .map(|i| i.entries().iter().flat_map(|e| fields(&format!("matrix.{}", e.key), &e.value)).collect())
        .collect();
    if rounds.len() == 1 && rounds[0].is_empty() && !included.is_empty() {
        included
    } else {
        [rounds, included].concat()
    }
}

fn step_builds(step: &Node, folder: &str, env: &BTreeMap<String, String>) -> Vec<Build> {
    let env = environment(step, env);
    let text = |key: &str| step.get(key).and_then(Node::text);
    let line = |node: &Node| usize::try_from(node.at.line).unwrap_or_default();
    if let Some(run) = step.get("run")
        && let Some(script) = run.text()
    {
        let folder = text("working-directory").unwrap_or(folder);
        let Some(folder) = place("", &known(folder, &env)) else { return Vec::new() };
        return builds(script, &folder, line(run), &env);
    }
    let with = |key: &str| step.get("with").and_then(|w| w.get(key)).and_then(Node::text);
    if !text("uses").is_some_and(|u| u.starts_with("docker/build-push-action")) {
        return Vec::new();
    }
    let context = known(with("context").unwrap_or("."), &env);
    let Some(context) = (!context.contains("://")).then(|| place("", &context)).flatten() else { return Vec::new() };
    let tags = with("tags").unwrap_or_default();
    let mut args = BTreeMap::new();
    for pair in with("build-args").unwrap_or_default().lines() {
        if let Some((name, value)) = pair.split_once('=') {
            let value = known(value.trim(), &env);
            if !value.contains('*') {
                args.insert(name.trim().to_owned(), value);
            }
        }
    }
    let dockerfile = with("file").and_then(|f| place("", &known(f, &env)));
    let image = tags.split([',', '\n']).find_map(|t| plain_image(&known(t.trim(), &env)));
    let line = step.get("uses").map_or(0, |uses| usize::try_from(uses.at.line).unwrap_or_default());
    vec![Build { dockerfile, context, image, args, line, ..Build::default() }]
}

fn compose(path: &str, text: &str) -> Vec<Service> {
    let Ok(Some(root)) = tree::read(text) else { return Vec::new() };
    let here = split(path).0;
    let mut found = Vec::new();
    for entry in root.get("services").map_or(&[][..], Node::entries) {
        let service = &entry.value;
        let Some(build) = service.get("build") else { continue };
        let field = |key: &str| build.get(key).and_then(Node::text);
        let context = known(build.text().or_else(|| field("context")).unwrap_or("."), &BTreeMap::new());
        let Some(context) = join(here, &context).filter(|_| !context.contains("://")) else { continue };
        let mut args = BTreeMap::new();
        let listed = build.get("args");
        for arg in listed.map_or(&[][..], Node::entries) {
            args.extend(arg.value.text().filter(|t| !t.contains('$')).map(|t| (arg.key.clone(), t.to_owned())));
        }
        for arg in listed.map_or(&[][..], Node::items) {
            let pair = arg.text().filter(|t| !t.contains('$')).and_then(|t| t.split_once('='));
            args.extend(pair.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        let ports = service.get("ports").map_or(&[][..], Node::items);
        let exposed = service.get("expose").map_or(&[][..], Node::items);
        let port = ports.iter().chain(exposed).find_map(|p| {
            let text = p.get("target").and_then(Node::text).or_else(|| p.text())?;
            let text = text.split('/').next().unwrap_or(text);
            text.rsplit(':').next()?.trim_end_matches('}').split('-').next()?.parse().ok()
        });
        found.push(Service {
            build: Build {
                dockerfile: field("dockerfile").and_then(|f| join(&context, f)),
                or: None,
                context,
                image: service.get("image").and_then(Node::text).and_then(plain_image),
                args,
                file: path.to_owned(),
                line: usize::try_from(entry.value.at.line).unwrap_or_default(),
            },
            port,
            name: entry.key.clone(),
        });
    }
    found
}

//! The Dockerfiles of a repository: which are there, which belong to tools, which is an app's.

use std::collections::BTreeMap;

use super::{
    super::{
        dockerfile::Dockerfile,
        project::{Project, join, last, relative, split},
    },
    shell::Build,
};

/// The most Dockerfiles that are read.
const MAX_FILES: usize = 100;

/// Ends of names that are for something else than releasing.
const NOT_FOR_RELEASE: [&str; 22] = [
    "dev",
    "develop",
    "development",
    "local",
    "test",
    "tests",
    "testing",
    "e2e",
    "ci",
    "debug",
    "lint",
    "docs",
    "base",
    "builder",
    "bak",
    "orig",
    "old",
    "sample",
    "example",
    "template",
    "tmpl",
    "j2",
];

/// Images that are tools or services by themselves, not what an app runs on.
const TOOLS: [&str; 29] = [
    "jenkins",
    "mysql",
    "mariadb",
    "postgres",
    "postgresql",
    "mongo",
    "redis",
    "rabbitmq",
    "kafka",
    "zookeeper",
    "elasticsearch",
    "logstash",
    "kibana",
    "grafana",
    "prometheus",
    "alertmanager",
    "sonarqube",
    "selenium",
    "k6",
    "locust",
    "jmeter",
    "cypress",
    "playwright",
    "docker",
    "kaniko",
    "keycloak",
    "vault",
    "gitlab-runner",
    "mailhog",
];

/// One Dockerfile of the repository.
pub(super) struct Found {
    pub path: String,
    pub text: String,
    /// What it is instead of an app's, if it is.
    pub tool: Option<String>,
    /// Named for development or the like: taken only where CI or people name it.
    pub variant: bool,
}

/// All Dockerfiles, nearest to the root first.
pub(super) fn find(project: &Project<'_>, named: &[&str]) -> Vec<Found> {
    let mut paths: Vec<&str> = project.below("").filter(|p| is_dockerfile(p) || named.contains(p)).collect();
    paths.sort_by_key(|p| (p.matches('/').count(), *p));
    let read = |path: &&str| {
        let text = project.text(path)?;
        let dockerfile = Dockerfile::read(&text, &BTreeMap::new());
        let tool = dockerfile.final_base().and_then(tool).filter(|_| !copies_an_app(&dockerfile));
        Some(Found { path: (*path).to_owned(), tool, variant: is_variant(path), text })
    };
    paths.iter().take(MAX_FILES).filter_map(read).collect()
}

fn is_dockerfile(path: &str) -> bool {
    let (folder, name) = split(path);
    let lower = name.to_lowercase();
    let named = lower == "dockerfile"
        || lower == "containerfile"
        || lower.starts_with("dockerfile.")
        || lower.starts_with("dockerfile-")
        || lower.ends_with(".dockerfile");
    let ours = folder.split('/').all(|part| {
        let hidden = part.starts_with('.') && !matches!(part, ".docker" | ".deploy" | ".build");
        !hidden && !matches!(part, "node_modules" | "vendor" | "target" | "testdata" | "fixtures" | "third_party")
    });
    named && ours && !lower.ends_with(".dockerignore")
}

fn is_variant(path: &str) -> bool {
    let name = last(path).to_lowercase();
    let parts = name.split(['.', '-', '_']);
    parts.into_iter().any(|part| NOT_FOR_RELEASE.contains(&part))
}

/// The tool that a base image is.
fn tool(base: &str) -> Option<String> {
    let name = base.split('@').next()?.split('/').next_back()?.split(':').next()?;
    let known = TOOLS.iter().find(|t| name == **t || name.strip_prefix(*t).is_some_and(|rest| rest.starts_with('-')));
    known.map(|t| (*t).to_owned())
}

/// Something built here goes into it: a database's own Dockerfile copies scripts and settings only.
fn copies_an_app(dockerfile: &Dockerfile) -> bool {
    let built =
        |s: &str| [".jar", ".war", "target/", "build/libs", "dist", "package.json"].iter().any(|b| s.contains(b));
    dockerfile.copied().iter().any(|c| c.sources.iter().any(|s| built(s)))
}

/// What an app is known by.
pub(super) struct Wanted<'a> {
    pub name: &'a str,
    /// Folder of its own manifest.
    pub folder: &'a str,
    /// Where its steps run: the workspace's root, or the same.
    pub path: &'a str,
    /// The last part of the image it is pushed to.
    pub image: Option<&'a str>,
    /// Whether nothing else in the repository is an app.
    pub alone: bool,
    /// The folders of the other apps.
    pub others: &'a [String],
}

/// A Dockerfile and what is known about building it.
pub(super) struct Choice<'f> {
    pub found: &'f Found,
    pub build: Option<&'f Build>,
    pub why: String,
}

/// The Dockerfile that fits an app best.
pub(super) fn choose<'f>(
    project: &Project<'_>,
    found: &'f [Found],
    builds: &'f [Build],
    wanted: &Wanted<'_>,
) -> Option<Choice<'f>> {
    let mut best: Option<(u32, Choice<'f>)> = None;
    for file in found {
        let mut consider = |score: u32, build: Option<&'f Build>, why: &str| {
            // Better ones come first where they are equal: nearer to the root.
            if score > 0 && best.as_ref().is_none_or(|(s, _)| *s < score) {
                best = Some((score, Choice { found: file, build, why: why.to_owned() }));
            }
        };
        for build in builds.iter().filter(|b| names(b, &file.path, found)) {
            let (score, why) = by_build(project, file, build, wanted);
            consider(score, Some(build), &why);
        }
        if file.variant || file.tool.is_some() {
            continue;
        }
        let (score, why) = by_place(project, file, wanted);
        consider(score, None, &why);
    }
    best.map(|(_, choice)| choice)
}

/// Whether a build means this Dockerfile. A `*` stands for a part that only the CI knows.
pub(super) fn names(build: &Build, path: &str, found: &[Found]) -> bool {
    let own = || join(&build.context, "Dockerfile");
    let mut meant = build.dockerfile.clone().or_else(own).into_iter().chain(build.or.clone());
    let there = |p: &str| found.iter().any(|f| f.path == p);
    // Of the two places of kaniko, the first that is there.
    let first = meant.clone().find(|p| there(p));
    match first {
        Some(first) => first == path,
        None => meant.any(|p| p.contains('*') && fits(&p, path)),
    }
}

/// A path with `*` for whole parts or pieces of them.
fn fits(pattern: &str, path: &str) -> bool {
    let glob = globset::GlobBuilder::new(pattern).literal_separator(true).build();
    glob.is_ok_and(|g| g.compile_matcher().is_match(path))
}

fn is_below(folder: &str, path: &str) -> bool {
    folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

fn by_build(project: &Project<'_>, file: &Found, build: &Build, wanted: &Wanted<'_>) -> (u32, String) {
    let said = |why: &str| {
        let line = if build.line > 0 { format!(" line {}", build.line) } else { String::new() };
        format!("{why} ({}{line})", build.file)
    };
    let folder = split(&file.path).0;
    if let Some(image) = &build.image {
        if wanted.image == Some(image.as_str()) {
            return (100, said("CI builds the app's image from it"));
        }
        if image == wanted.name || (!wanted.folder.is_empty() && image == last(wanted.folder)) {
            return (95, said("CI builds an image of the app's name from it"));
        }
    }
    if build.args.values().any(|v| v == wanted.folder && !v.is_empty() || v == wanted.name) {
        return (93, said("CI builds it with the app's name as an argument"));
    }
    if file.tool.is_some() {
        return (0, String::new());
    }
    if folder == wanted.folder && !wanted.folder.is_empty() {
        return (90, said("CI builds it, and it lies in the app's folder"));
    }
    if build.context == wanted.folder && !wanted.folder.is_empty() {
        return (85, said("CI builds it with the app's folder as context"));
    }
    if copies_from(project, file, build.context.trim_matches('*'), wanted) {
        return (80, said("CI builds it, and it copies from the app's folder"));
    }
    let (score, why) = by_place(project, file, wanted);
    if score == 0 { (0, why) } else { (score + 8, said(&format!("CI builds it, {why}"))) }
}

/// Whether a `COPY` of it takes from the app's folder, as seen from this context.
fn copies_from(project: &Project<'_>, file: &Found, context: &str, wanted: &Wanted<'_>) -> bool {
    if wanted.folder.is_empty() {
        return false;
    }
    let below = relative(context, wanted.folder);
    let dockerfile = Dockerfile::read(&file.text, &BTreeMap::new());
    let takes = |source: &String| source == below || source.starts_with(&format!("{below}/"));
    is_below(context, wanted.folder)
        && !below.is_empty()
        && dockerfile.copied().iter().any(|c| c.sources.iter().any(takes))
        && project.below(wanted.folder).next().is_some()
}

fn by_place(project: &Project<'_>, file: &Found, wanted: &Wanted<'_>) -> (u32, String) {
    let (folder, name) = split(&file.path);
    let lower = name.to_lowercase();
    let plain = u32::from(matches!(lower.as_str(), "dockerfile" | "containerfile"));
    let called = |text: &str| {
        let text = text.to_lowercase();
        text == wanted.name.to_lowercase() || (!wanted.folder.is_empty() && text == last(wanted.folder).to_lowercase())
    };
    let suffix = lower.strip_prefix("dockerfile").map(|s| s.trim_start_matches(['.', '-']));
    let stem = suffix.or_else(|| lower.strip_suffix(".dockerfile"));
    if folder == wanted.folder && (!folder.is_empty() || wanted.alone) {
        return (75 + plain, "it lies in the app's folder".to_owned());
    }
    if stem.is_some_and(called) {
        return (72, "it has the app's name".to_owned());
    }
    if plain == 1 && called(last(folder)) {
        return (70, "its folder has the app's name".to_owned());
    }
    if copies_from(project, file, "", wanted) || copies_from(project, file, folder, wanted) {
        return (65, "it copies from the app's folder".to_owned());
    }
    let anothers = wanted.others.iter().any(|o| !o.is_empty() && o != wanted.folder && is_below(o, &file.path));
    if !wanted.folder.is_empty() && is_below(wanted.folder, &file.path) && !anothers {
        return (50 + plain, "it lies below the app's folder".to_owned());
    }
    if wanted.alone && !anothers {
        return (20 + plain, "there is one app, and this Dockerfile".to_owned());
    }
    if folder == wanted.path && wanted.path != wanted.folder && shared(file) {
        return (15 + plain, "the workspace's apps share it".to_owned());
    }
    (0, String::new())
}

/// Whether a Dockerfile is told by an argument what it is for.
pub(super) fn shared(file: &Found) -> bool {
    let dockerfile = Dockerfile::read(&file.text, &BTreeMap::new());
    dockerfile.instructions.iter().any(|i| i.keyword == "ARG" && !i.text.contains('='))
}

/// Folders that builds write to; what is copied from there is not in git.
const OUTPUTS: [&str; 9] = ["target", "build", "dist", "out", "bin", ".next", ".output", "publish", "node_modules"];
/// Files that make a folder one that something is built in.
const MANIFESTS: [&str; 7] =
    ["pom.xml", "build.gradle", "build.gradle.kts", "package.json", "Cargo.toml", "go.mod", "pyproject.toml"];

/// How many sources of `COPY` are there, seen from a context, less those that are not.
pub(super) fn fitting(project: &Project<'_>, dockerfile: &Dockerfile, context: &str) -> i32 {
    let mut score = 0;
    for source in dockerfile.copied().iter().flat_map(|c| &c.sources) {
        let source = source.trim_end_matches('/');
        if source.is_empty() || source == "." {
            continue;
        }
        let Some(path) = join(context, source) else {
            score -= 1;
            continue;
        };
        let there = project.has(&path)
            || project.below(&path).next().is_some()
            || source.contains(['*', '?', '[']) && project.below(context).any(|p| fits(&path, p));
        score += if there || built_there(project, context, source) { 1 } else { -1 };
    }
    score
}

fn built_there(project: &Project<'_>, context: &str, source: &str) -> bool {
    let parts: Vec<&str> = source.split('/').collect();
    let Some(at) = parts.iter().position(|p| OUTPUTS.contains(p)) else { return false };
    let folder = join(context, &parts[..at].join("/"));
    folder.is_some_and(|f| MANIFESTS.iter().any(|m| join(&f, m).is_some_and(|m| project.has(&m))))
}

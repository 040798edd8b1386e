//! The image that an app's steps run in, where steps run in containers and nobody wrote one: from what the steps call, and
//! the version that the project's own files ask for.

use super::{
    Files, Inferred, Note, maven,
    project::{Project, join, split},
};
use crate::domain::config::App;

/// What steps call, and whose tool it is.
const TOOLS: [(&str, Ecosystem); 20] = [
    ("mvn", Ecosystem::Maven),
    ("mvnw", Ecosystem::Maven),
    ("gradle", Ecosystem::Gradle),
    ("gradlew", Ecosystem::Gradle),
    ("npm", Ecosystem::Node),
    ("npx", Ecosystem::Node),
    ("yarn", Ecosystem::Node),
    ("pnpm", Ecosystem::Node),
    ("node", Ecosystem::Node),
    ("corepack", Ecosystem::Node),
    ("cargo", Ecosystem::Rust),
    ("go", Ecosystem::Go),
    ("python", Ecosystem::Python),
    ("python3", Ecosystem::Python),
    ("pip", Ecosystem::Python),
    ("pip3", Ecosystem::Python),
    ("pytest", Ecosystem::Python),
    ("poetry", Ecosystem::Python),
    ("tox", Ecosystem::Python),
    ("uv", Ecosystem::Python),
];

/// Files that say what a folder is, where the steps don't.
const MANIFESTS: [(&str, Ecosystem); 8] = [
    ("pom.xml", Ecosystem::Maven),
    ("build.gradle", Ecosystem::Gradle),
    ("build.gradle.kts", Ecosystem::Gradle),
    ("package.json", Ecosystem::Node),
    ("Cargo.toml", Ecosystem::Rust),
    ("go.mod", Ecosystem::Go),
    ("pyproject.toml", Ecosystem::Python),
    ("requirements.txt", Ecosystem::Python),
];

/// Java's releases with long support, which images are made for ("Oracle Java SE Support Roadmap").
const JAVA: [u32; 5] = [8, 11, 17, 21, 25];
/// Where a project says nothing. Node's and Python's are in support well beyond this version's life.
const JAVA_DEFAULT: u32 = 17;
const NODE_DEFAULT: u32 = 22;
const PYTHON_DEFAULT: (u32, u32) = (3, 12);
/// Names of Node's releases with long support ("Node.js Releases").
const NODE_NAMES: [(&str, u32); 8] = [
    ("erbium", 12),
    ("fermium", 14),
    ("gallium", 16),
    ("hydrogen", 18),
    ("iron", 20),
    ("jod", 22),
    ("krypton", 24),
    ("lts", NODE_DEFAULT),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ecosystem {
    Maven,
    Gradle,
    Node,
    Rust,
    Go,
    Python,
}

/// An image, and the file that says which version.
struct Image {
    name: String,
    file: String,
}

/// Fills in the images of apps that name none.
pub(super) fn complete(done: &mut Inferred, files: &dyn Files) {
    if done.config.apps.values().all(|app| app.container.is_some() || app.steps.is_empty()) {
        return;
    }
    let project = Project::new(files);
    for (name, app) in done.config.apps.iter_mut().filter(|(_, a)| a.container.is_none() && !a.steps.is_empty()) {
        let text;
        let file;
        match ecosystems(&project, app).as_slice() {
            [] => continue,
            [one] => {
                let image = image(&project, &app.path, *one);
                text = format!("in a container, its steps run in {}", image.name);
                file = image.file;
                app.container = Some(image.name);
            }
            _ => {
                text = "it needs tools of several languages: to run its steps in containers, write a `container:` that has \
                        all of them"
                    .to_owned();
                file = String::new();
            }
        }
        done.notes.push(Note { app: Some(name.clone()), text, file });
    }
}

/// Whose tools the steps call; where they call none that is known, what lies in the folder.
fn ecosystems(project: &Project<'_>, app: &App) -> Vec<Ecosystem> {
    let mut found: Vec<Ecosystem> = Vec::new();
    for step in app.steps.values() {
        let words = step.run.split(|c: char| c.is_whitespace() || ";&|()`$\"'".contains(c));
        let tools = words.map(|word| word.rsplit('/').next().unwrap_or(word));
        found.extend(tools.filter_map(|tool| TOOLS.iter().find(|(name, _)| *name == tool)).map(|(_, e)| *e));
    }
    if found.is_empty() {
        let here = |file: &str| join(&app.path, file).is_some_and(|path| project.has(&path));
        found.extend(MANIFESTS.iter().filter(|(file, _)| here(file)).map(|(_, e)| *e));
    }
    let mut seen: Vec<Ecosystem> = Vec::new();
    found.retain(|e| {
        !seen.contains(e) && {
            seen.push(*e);
            true
        }
    });
    found
}

fn image(project: &Project<'_>, folder: &str, ecosystem: Ecosystem) -> Image {
    let (name, file) = match ecosystem {
        Ecosystem::Maven => {
            let (release, file) = java(project, folder);
            (format!("maven:3-eclipse-temurin-{release}"), file)
        }
        // Its wrapper brings the right Gradle; without one, the image does.
        Ecosystem::Gradle => {
            let (release, file) = java(project, folder);
            let wrapped = nearest(project, folder, "gradlew").is_some();
            (if wrapped { format!("eclipse-temurin:{release}-jdk") } else { format!("gradle:8-jdk{release}") }, file)
        }
        Ecosystem::Node => {
            let (major, file) = node(project, folder).unwrap_or((NODE_DEFAULT, String::new()));
            (format!("node:{major}"), file)
        }
        Ecosystem::Rust => {
            let (version, file) = rust(project, folder).unwrap_or(("1".to_owned(), String::new()));
            (format!("rust:{version}"), file)
        }
        Ecosystem::Go => {
            let (version, file) = go(project, folder).unwrap_or(("1".to_owned(), String::new()));
            (format!("golang:{version}"), file)
        }
        Ecosystem::Python => {
            let ((major, minor), file) = python(project, folder).unwrap_or((PYTHON_DEFAULT, String::new()));
            (format!("python:{major}.{minor}"), file)
        }
    };
    Image { name, file }
}

/// The folders from the app's up to the root.
fn upwards(folder: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(folder), |at| (!at.is_empty()).then(|| split(at).0))
}

/// The file of this name in the app's folder or the nearest above it.
fn nearest(project: &Project<'_>, folder: &str, name: &str) -> Option<String> {
    upwards(folder).filter_map(|at| join(at, name)).find(|path| project.has(path))
}

/// The file of this name, nearest, with its text.
fn read(project: &Project<'_>, folder: &str, name: &str) -> Option<(String, String)> {
    let path = nearest(project, folder, name)?;
    Some((project.text(&path)?, path))
}

/// The first line that says something.
fn first_line(text: &str) -> Option<&str> {
    text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).find(|line| !line.is_empty())
}

/// The version of a tool in `.tool-versions` of asdf and mise.
fn tool_version(project: &Project<'_>, folder: &str, names: &[&str]) -> Option<(String, String)> {
    let (text, path) = read(project, folder, ".tool-versions")?;
    let mut lines = text.lines().map(|line| line.split_whitespace());
    let version = lines.find_map(|mut words| names.contains(&words.next()?).then(|| words.next())?)?.to_owned();
    Some((version, path))
}

/// The numbers of a version, as far as they go: `v20.11.0` is 20 and 11. Nothing that would not fit a name of an image.
fn numbers(text: &str) -> Option<(u32, Option<u32>)> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let mut parts = text[start..].split('.');
    let number = |part: &str| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse::<u32>().ok().filter(|n| *n < 1000)
    };
    Some((number(parts.next()?)?, parts.next().and_then(number)))
}

fn java(project: &Project<'_>, folder: &str) -> (u32, String) {
    let release = |text: &str| match numbers(text)? {
        (1, Some(minor)) => Some(minor),
        (major, _) => Some(major),
    };
    let of_file = |name: &str, pick: fn(&str) -> Option<&str>| {
        let (text, path) = read(project, folder, name)?;
        Some((release(pick(&text)?)?, path))
    };
    let found = of_file(".java-version", first_line)
        .or_else(|| of_file(".sdkmanrc", |text| text.lines().find_map(|l| l.trim().strip_prefix("java="))))
        .or_else(|| tool_version(project, folder, &["java"]).and_then(|(v, path)| Some((release(&v)?, path))))
        .or_else(|| maven::java_release(project, folder).and_then(|(v, path)| Some((release(&v)?, path))))
        .or_else(|| gradle_release(project, folder));
    let (asked, file) = found.unwrap_or((JAVA_DEFAULT, String::new()));
    let image = JAVA.into_iter().find(|lts| *lts >= asked).unwrap_or(asked);
    (image, file)
}

/// `JavaLanguageVersion.of(21)`, `sourceCompatibility = '17'`, `JavaVersion.VERSION_17`, `jvmToolchain(21)`.
fn gradle_release(project: &Project<'_>, folder: &str) -> Option<(u32, String)> {
    for name in ["build.gradle.kts", "build.gradle"] {
        for at in upwards(folder) {
            let Some(path) = join(at, name).filter(|p| project.has(p)) else { continue };
            let Some(text) = project.text(&path) else { continue };
            let words = ["JavaLanguageVersion.of(", "jvmToolchain(", "JavaVersion.VERSION_1_", "JavaVersion.VERSION_"];
            let after = words.iter().find_map(|word| text.split_once(word).map(|(_, rest)| rest));
            let plain = || {
                let rest = text.split_once("sourceCompatibility")?.1;
                let value = rest.trim_start_matches([' ', '=', '\'', '"']);
                Some(value.strip_prefix("1.").unwrap_or(value))
            };
            let number = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
            if let Some(release) = after.or_else(plain).and_then(number).filter(|n| (1..1000).contains(n)) {
                return Some((release, path));
            }
        }
    }
    None
}

fn node(project: &Project<'_>, folder: &str) -> Option<(u32, String)> {
    let files = upwards(folder).flat_map(|at| [".nvmrc", ".node-version"].map(|name| join(at, name)));
    for path in files.flatten().filter(|path| project.has(path)) {
        if let Some(major) = project.text(&path).as_deref().and_then(first_line).and_then(node_word) {
            return Some((major, path));
        }
    }
    if let Some((version, path)) = tool_version(project, folder, &["nodejs", "node"])
        && let Some(major) = node_word(&version)
    {
        return Some((major, path));
    }
    for at in upwards(folder) {
        let Some(path) = join(at, "package.json").filter(|p| project.has(p)) else { continue };
        let json = project.text(&path).and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
        let text = |pointer| json.as_ref().and_then(|j| j.pointer(pointer)).and_then(serde_json::Value::as_str);
        let asked = text("/volta/node").and_then(node_word).or_else(|| text("/engines/node").and_then(range));
        if let Some(major) = asked {
            return Some((major, path));
        }
    }
    None
}

fn node_word(text: &str) -> Option<u32> {
    let low = text.trim().to_lowercase();
    let named = NODE_NAMES.iter().find(|(name, _)| low.contains(name)).map(|(_, major)| *major);
    match low.as_str() {
        "node" | "stable" | "latest" | "lts/*" => Some(NODE_DEFAULT),
        _ => named.or_else(|| numbers(&low).map(|(major, _)| major)),
    }
}

/// A range of npm: the default where it fits, or else the newest that is named.
fn range(text: &str) -> Option<u32> {
    let parts = text.split("||").filter_map(|part| {
        let (least, _) = numbers(part)?;
        let open = part.trim_start().starts_with('>') && !part.contains('<');
        Some(if open && least <= NODE_DEFAULT { NODE_DEFAULT } else { least })
    });
    parts.max()
}

fn rust(project: &Project<'_>, folder: &str) -> Option<(String, String)> {
    for name in ["rust-toolchain.toml", "rust-toolchain"] {
        let Some((text, path)) = read(project, folder, name) else { continue };
        let table = text.parse::<toml::Table>().ok();
        let channel = table.as_ref().and_then(|t| t.get("toolchain")?.get("channel")?.as_str());
        let channel = channel.or_else(|| first_line(&text).filter(|_| table.is_none()))?;
        // Others (`nightly`) are fetched by rustup, which the image has.
        let exact = channel.starts_with("1.") && channel.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        return Some((if exact { channel.to_owned() } else { "1".to_owned() }, path));
    }
    None
}

fn go(project: &Project<'_>, folder: &str) -> Option<(String, String)> {
    let (text, path) = read(project, folder, "go.mod")?;
    let said = |word: &str| text.lines().find_map(|line| line.trim().strip_prefix(word)?.strip_prefix(' '));
    let (major, minor) = said("toolchain").or_else(|| said("go")).and_then(numbers)?;
    Some((minor.map_or_else(|| major.to_string(), |minor| format!("{major}.{minor}")), path))
}

fn python(project: &Project<'_>, folder: &str) -> Option<((u32, u32), String)> {
    let exact = |text: &str| numbers(text).and_then(|(major, minor)| Some((major, minor?)));
    for name in [".python-version", "runtime.txt"] {
        if let Some((text, path)) = read(project, folder, name)
            && let Some(version) = first_line(&text).and_then(exact)
        {
            return Some((version, path));
        }
    }
    if let Some((version, path)) = tool_version(project, folder, &["python"])
        && let Some(version) = exact(&version)
    {
        return Some((version, path));
    }
    let (text, path) = read(project, folder, "pyproject.toml")?;
    let table = text.parse::<toml::Table>().ok()?;
    let of_project = table.get("project").and_then(|p| p.get("requires-python"));
    let of_poetry = || table.get("tool")?.get("poetry")?.get("dependencies")?.get("python");
    let asked = of_project.or_else(of_poetry)?.as_str()?;
    let least = exact(asked)?;
    // `>=3.9` and `^3.9` are met by newer ones too.
    let open = asked.trim_start().starts_with(['>', '^']) && !asked.contains('<');
    Some((if open { least.max(PYTHON_DEFAULT) } else { least }, path))
}

//! Maven projects ("POM Reference"): reactors, wrappers, Spring Boot and the like.

use std::collections::{BTreeMap, HashMap, HashSet};

use quick_xml::{Reader, events::Event};

use super::{
    Candidate, Found,
    cargo::add_step,
    project::{Project, at, join, name_for, quoted, relative, split},
    spring,
};
use crate::domain::config::{App, mistake::plain};

/// Plugins that make something that can be started ("Spring Boot Maven Plugin", "Quarkus and Maven", …).
const RUNNABLE: [&str; 6] = [
    "spring-boot-maven-plugin",
    "quarkus-maven-plugin",
    "micronaut-maven-plugin",
    "maven-shade-plugin",
    "maven-assembly-plugin",
    "jib-maven-plugin",
];

/// Databases that tests cannot reach by themselves, and those that run inside the tests.
const DATABASES: [(&str, &str); 7] = [
    ("mysql-connector-j", "MySQL"),
    ("mysql-connector-java", "MySQL"),
    ("mariadb-java-client", "MariaDB"),
    ("postgresql", "PostgreSQL"),
    ("ojdbc11", "Oracle"),
    ("mssql-jdbc", "SQL Server"),
    ("spring-boot-starter-data-mongodb", "MongoDB"),
];
const EMBEDDED: [&str; 5] = ["h2", "hsqldb", "derby", "sqlite-jdbc", "testcontainers"];

/// An element and what is in it. Enough of XML for a POM.
#[derive(Default)]
struct Element {
    name: String,
    text: String,
    children: Vec<Element>,
}

impl Element {
    fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|c| c.name == name)
    }

    fn at(&self, path: &[&str]) -> Option<&Element> {
        path.iter().try_fold(self, |element, name| element.child(name))
    }

    fn text_at(&self, path: &[&str]) -> Option<&str> {
        self.at(path).map(|e| e.text.trim()).filter(|t| !t.is_empty())
    }

    fn texts<'e>(&'e self, path: &[&str], leaf: &'e str) -> impl Iterator<Item = &'e str> {
        let parent = self.at(path);
        parent.into_iter().flat_map(|p| &p.children).filter_map(move |c| c.text_at(&[leaf]))
    }
}

/// Reads XML with bounds on depth and on the number of elements. Entities of a document type are never expanded.
/// An error comes with the byte where it was found.
fn read_xml(text: &str) -> Result<Element, (usize, String)> {
    const MAX_DEPTH: usize = 60;
    const MAX_ELEMENTS: usize = 50_000;
    let byte = |position: u64| usize::try_from(position).unwrap_or(usize::MAX);
    let mut reader = Reader::from_str(text);
    let mut stack = vec![Element::default()];
    let mut count = 0;
    loop {
        if stack.len() > MAX_DEPTH || count > MAX_ELEMENTS {
            return Err((byte(reader.buffer_position()), "too much in it".to_owned()));
        }
        let event = reader.read_event();
        match event.map_err(|error| (byte(reader.error_position()), error.to_string()))? {
            Event::Start(start) => {
                count += 1;
                stack.push(Element { name: start.local_name().as_ref().to_owned(), ..Element::default() });
            }
            Event::Empty(empty) => {
                count += 1;
                if let Some(parent) = stack.last_mut() {
                    let name = empty.local_name().as_ref().to_owned();
                    parent.children.push(Element { name, ..Element::default() });
                }
            }
            Event::End(_) => {
                if let Some(element) = stack.pop()
                    && let Some(parent) = stack.last_mut()
                {
                    parent.children.push(element);
                }
            }
            Event::Text(part) => {
                if let Some(element) = stack.last_mut() {
                    element.text.push_str(&part);
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    let mut whole = stack.swap_remove(0);
    if !stack.is_empty() {
        return Err((text.trim_end().len(), "cut off".to_owned()));
    }
    whole.children.pop().ok_or_else(|| (0, "empty".to_owned()))
}

struct Pom {
    folder: String,
    file: String,
    artifact: String,
    version: Option<String>,
    packaging: String,
    modules: Vec<String>,
    dependencies: Vec<String>,
    plugins: HashSet<String>,
    properties: BTreeMap<String, String>,
    final_name: Option<String>,
}

impl Pom {
    fn read(file: &str, xml: &Element) -> Self {
        let text = |path: &[&str]| xml.text_at(path).map(str::to_owned);
        let mut modules: Vec<String> = Vec::new();
        let profiles = xml.child("profiles").map_or(&[][..], |p| &p.children);
        for owner in std::iter::once(xml).chain(profiles) {
            let listed = owner.child("modules").map_or(&[][..], |m| &m.children);
            modules.extend(listed.iter().map(|m| m.text.trim().to_owned()));
        }
        let properties = xml.child("properties").map_or(&[][..], |p| &p.children);
        Self {
            folder: split(file).0.to_owned(),
            file: file.to_owned(),
            artifact: text(&["artifactId"]).unwrap_or_default(),
            version: text(&["version"]).or_else(|| text(&["parent", "version"])),
            packaging: text(&["packaging"]).unwrap_or_else(|| "jar".to_owned()),
            modules,
            dependencies: xml.texts(&["dependencies"], "artifactId").map(str::to_owned).collect(),
            plugins: std::iter::once(xml)
                .chain(profiles.iter().filter(|p| by_itself(p)))
                .flat_map(|owner| owner.texts(&["build", "plugins"], "artifactId"))
                .map(str::to_owned)
                .collect(),
            properties: properties.iter().map(|p| (p.name.clone(), p.text.trim().to_owned())).collect(),
            final_name: text(&["build", "finalName"]),
        }
    }

    fn has(&self, dependency: &str) -> bool {
        self.dependencies.iter().any(|d| d == dependency)
    }

    fn runnable(&self) -> bool {
        self.packaging == "war" || RUNNABLE.iter().any(|p| self.plugins.contains(*p))
    }

    /// Name of what `package` makes, with no extension. None where only Maven itself could tell.
    fn made(&self) -> Option<String> {
        let name = self.final_name.clone().unwrap_or_else(|| "${project.artifactId}-${project.version}".to_owned());
        let mut name = name;
        // Properties may stand for properties; two rounds are enough for `${revision}` in a version.
        for _ in 0..3 {
            let Some(start) = name.find("${") else { break };
            let end = start + name[start..].find('}')?;
            let value = match &name[start + 2..end] {
                "project.artifactId" | "artifactId" => self.artifact.clone(),
                "project.version" | "version" => self.version.clone()?,
                property => self.properties.get(property)?.clone(),
            };
            name.replace_range(start..=end, &value);
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
        (!name.is_empty() && name.len() <= 200 && name.chars().all(plain)).then_some(name)
    }
}

/// A profile that holds without anybody asking for it: by default, or where a file is there, as Spring's own samples
/// tell their applications from the rest ("Introduction to Build Profiles").
fn by_itself(profile: &Element) -> bool {
    profile.text_at(&["activation", "activeByDefault"]) == Some("true")
        || profile.at(&["activation", "file", "exists"]).is_some()
}

/// Finds every project that is the repository's own.
pub(super) fn find(project: &Project<'_>, found: &mut Found) {
    let mut poms: Vec<Pom> = Vec::new();
    for path in project.manifests("pom.xml") {
        let Some(text) = project.text(path) else { continue };
        match read_xml(&text) {
            Ok(xml) if xml.name == "project" => poms.push(Pom::read(path, &xml)),
            Ok(_) => project.unreadable(path, &text, at(&text, 0), "is no Maven project"),
            Err((byte, error)) => {
                project.unreadable(path, &text, at(&text, byte), &format!("cannot be read: {}", plain(&error)));
            }
        }
    }
    let by_folder: HashMap<&str, usize> = poms.iter().enumerate().map(|(i, p)| (p.folder.as_str(), i)).collect();
    let modules: Vec<Vec<usize>> = poms
        .iter()
        .map(|pom| {
            let folder = |m: &String| join(&pom.folder, m.strip_suffix("pom.xml").unwrap_or(m));
            pom.modules.iter().filter_map(|m| by_folder.get(folder(m)?.as_str()).copied()).collect()
        })
        .collect();
    let members: HashSet<usize> =
        modules.iter().enumerate().flat_map(|(i, m)| m.iter().copied().filter(move |n| *n != i)).collect();
    for root in (0..poms.len()).filter(|i| !members.contains(i)) {
        let mut reached = vec![root];
        let mut next = 0;
        while let Some(at) = reached.get(next).copied() {
            next += 1;
            for module in &modules[at] {
                if !reached.contains(module) {
                    reached.push(*module);
                }
            }
        }
        let all: Vec<&Pom> = reached.iter().map(|i| &poms[*i]).collect();
        reactor(project, &all, found);
    }
}

/// The apps of one reactor; its root comes first. All run at the root, where the wrapper and the parents are.
fn reactor(project: &Project<'_>, all: &[&Pom], found: &mut Found) {
    let root = all[0];
    let leaves: Vec<&Pom> = all.iter().copied().filter(|p| p.packaging != "pom").collect();
    if leaves.is_empty() {
        found.note("a Maven project of parents alone: nothing to run", root.file.clone());
        return;
    }
    let inherited = all.iter().any(|p| p.packaging == "pom" && p.runnable());
    let needed = |pom: &Pom| leaves.iter().any(|other| other.folder != pom.folder && other.has(&pom.artifact));
    let apps: Vec<&Pom> =
        leaves.iter().copied().filter(|p| p.runnable() || inherited && !needed(p) && p.packaging == "jar").collect();
    let wrapper = join(&root.folder, "mvnw").filter(|w| project.has(w));
    let maven = if wrapper.is_some() { "sh ./mvnw -B -ntp" } else { "mvn -B -ntp" };
    let mut notes = Vec::new();
    if all.len() > 1 {
        let names: Vec<&str> = leaves.iter().map(|p| p.artifact.as_str()).take(20).collect();
        notes.push((format!("a Maven reactor of {} modules: {}", leaves.len(), names.join(", ")), root.file.clone()));
    }
    if let Some(wrapper) = wrapper {
        notes.push(("`sh ./mvnw`, because the wrapper is there".to_owned(), wrapper));
    }
    let several = apps.len() > 1;
    if apps.is_empty() {
        let mut app = base(root, all, maven, "");
        app.path.clone_from(&root.folder);
        notes.push(("a library: tested, nothing to release".to_owned(), root.file.clone()));
        databases(&leaves, found);
        found.candidates.push(Candidate {
            name: name_for(&root.folder, &root.artifact),
            folder: root.folder.clone(),
            kind: "maven",
            app,
            notes,
        });
        return;
    }
    for pom in apps {
        let below = relative(&root.folder, &pom.folder);
        let scope = if several { format!(" -pl {} -am", quoted(below)) } else { String::new() };
        let mut app = base(root, all, maven, &scope);
        add_step(&mut app, "build", &format!("{maven}{scope} package -DskipTests"));
        let mut notes = notes.clone();
        started(project, pom, below, &mut app, &mut notes);
        databases(&[pom], found);
        found.candidates.push(Candidate {
            name: name_for(&pom.folder, &pom.artifact),
            folder: pom.folder.clone(),
            kind: "maven",
            app,
            notes,
        });
    }
}

/// What every app of a reactor has: its place, the local repository, the test and its reports.
fn base(root: &Pom, all: &[&Pom], maven: &str, scope: &str) -> App {
    let mut app = App { path: root.folder.clone(), cache: vec!["~/.m2/repository".to_owned()], ..App::default() };
    let failsafe = all.iter().any(|p| p.plugins.contains("maven-failsafe-plugin"));
    // Integration tests of Failsafe run in `verify`; without them `test` is enough.
    let goal = if failsafe { "verify" } else { "test" };
    add_step(&mut app, "test", &format!("{maven}{scope} {goal}"));
    let prefix = if all.len() > 1 { "**/" } else { "" };
    let mut reports = vec![format!("{prefix}target/surefire-reports/*.xml")];
    if failsafe {
        reports.push(format!("{prefix}target/failsafe-reports/*.xml"));
    }
    if let Some(step) = app.steps.get_mut("test") {
        step.reports = reports;
    }
    app
}

/// How it is started and which files that takes.
fn started(project: &Project<'_>, pom: &Pom, below: &str, app: &mut App, notes: &mut Vec<(String, String)>) {
    let target = if below.is_empty() { "target".to_owned() } else { format!("{below}/target") };
    let jar = pom.made().map_or_else(|| "*.jar".to_owned(), |name| format!("{name}.jar"));
    if pom.plugins.contains("quarkus-maven-plugin") {
        app.files = Some(vec![format!("{target}/quarkus-app/**")]);
        app.start =
            Some(format!("java -Dquarkus.http.port=$PORT -jar {}/quarkus-app/quarkus-run.jar", quoted(&target)));
        notes.push(("a Quarkus application".to_owned(), pom.file.clone()));
        return;
    }
    let spring = pom.dependencies.iter().any(|d| d.starts_with("spring-boot-starter"));
    if pom.packaging == "war" && !spring {
        notes.push(("a web archive: it needs an image or a `start` of its own".to_owned(), pom.file.clone()));
        return;
    }
    let jar = if pom.packaging == "war" { jar.replace(".jar", ".war") } else { jar };
    app.files = Some(vec![format!("{target}/{jar}")]);
    let jar = quoted(&format!("{target}/{jar}"));
    if spring || pom.plugins.contains("spring-boot-maven-plugin") {
        app.start = Some(format!("java -jar {jar} --server.port=$PORT"));
        notes.push(("a Spring Boot application".to_owned(), pom.file.clone()));
        if pom.has("spring-boot-starter-actuator") {
            match spring::health(project, &pom.folder) {
                spring::Health::Usual => {
                    app.health = Some("/actuator/health".to_owned());
                    notes.push(("health from the actuator".to_owned(), pom.file.clone()));
                }
                spring::Health::At(path, file) => {
                    app.health = Some(path);
                    notes.push(("health from the actuator, at the path that it is given here".to_owned(), file));
                }
                spring::Health::Elsewhere(file) => {
                    notes.push(("no health: the actuator has a port of its own".to_owned(), file));
                }
            }
        }
    } else {
        app.start = Some(format!("java -jar {jar}"));
        notes.push(("a jar that can be started; it must listen on PORT".to_owned(), pom.file.clone()));
    }
}

fn databases(poms: &[&Pom], found: &mut Found) {
    for pom in poms {
        let inside = EMBEDDED.iter().any(|e| pom.dependencies.iter().any(|d| d == e));
        let needs = DATABASES.iter().find(|(artifact, _)| pom.has(artifact));
        if let (Some((artifact, database)), false) = (needs, inside) {
            found.warnings.push(format!(
                "{}: its tests may need {database} (dependency {artifact}). Say so under `services` of the step.",
                pom.file
            ));
        }
    }
}

/// What an image of a Maven project has to know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Facts {
    /// Spring Boot's version, where the project or a parent in the repository names it.
    pub boot: Option<(u32, u32)>,
    /// Whether it is a Spring Boot application.
    pub spring: bool,
    /// Java's release.
    pub java: Option<u32>,
    /// Whether the actuator tells its health.
    pub actuator: bool,
}

/// Reads the project in a folder and those above it, which are its parents as a rule.
pub(super) fn facts(project: &Project<'_>, folder: &str) -> Facts {
    let java = java_release(project, folder);
    let java = java.and_then(|(release, _)| release.trim_start_matches("1.").parse().ok());
    let mut facts = Facts { java, ..Facts::default() };
    let mut at = Some(folder);
    while let Some(here) = at {
        let xml = join(here, "pom.xml").and_then(|p| project.text(&p)).and_then(|t| read_xml(&t).ok());
        if let Some(xml) = xml {
            let property = |name: &str| xml.text_at(&["properties", name]);
            let parent = xml.text_at(&["parent", "artifactId"]).filter(|a| a.starts_with("spring-boot"));
            let boot =
                parent.and_then(|_| xml.text_at(&["parent", "version"])).or_else(|| property("spring-boot.version"));
            facts.boot = facts.boot.or_else(|| {
                let mut parts = boot?.split('.');
                Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
            });
            if here == folder {
                let of = |start: &str| xml.texts(&["dependencies"], "artifactId").any(|a| a.starts_with(start));
                let plugin = xml.texts(&["build", "plugins"], "artifactId").any(|a| a == "spring-boot-maven-plugin");
                facts.spring = plugin || of("spring-boot-starter");
                facts.actuator = of("spring-boot-starter-actuator");
            }
        }
        at = (!here.is_empty()).then(|| split(here).0);
    }
    facts
}

/// The Java release that a POM in this folder, or above it, compiles for, and its file: by the compiler plugin's own
/// settings or by the properties that it and Spring Boot read ("Apache Maven Compiler Plugin").
pub(super) fn java_release(project: &Project<'_>, folder: &str) -> Option<(String, String)> {
    const PROPERTIES: [&str; 4] =
        ["maven.compiler.release", "java.version", "maven.compiler.target", "maven.compiler.source"];
    let mut at = folder;
    loop {
        if let Some(path) = join(at, "pom.xml").filter(|p| project.has(p))
            && let Some(xml) = project.text(&path).and_then(|text| read_xml(&text).ok())
        {
            let pom = Pom::read(&path, &xml);
            let plugins = xml.at(&["build", "plugins"]).map_or(&[][..], |p| &p.children);
            let compiler = plugins.iter().find(|p| p.text_at(&["artifactId"]) == Some("maven-compiler-plugin"));
            let set = ["release", "target", "source"].iter().find_map(|k| compiler?.text_at(&["configuration", k]));
            let of_properties = PROPERTIES.iter().find_map(|name| pom.properties.get(*name)).map(String::as_str);
            for value in [set, of_properties].into_iter().flatten() {
                // A property may stand for another.
                let named = value.strip_prefix("${").and_then(|v| v.strip_suffix('}'));
                let value = named.map_or(Some(value), |name| pom.properties.get(name).map(String::as_str));
                if let Some(value) = value.filter(|v| v.starts_with(|c: char| c.is_ascii_digit())) {
                    return Some((value.to_owned(), path));
                }
            }
        }
        if at.is_empty() {
            return None;
        }
        at = split(at).0;
    }
}

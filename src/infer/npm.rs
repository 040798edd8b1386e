//! Projects with a package.json, by npm, pnpm or yarn, and their workspaces.

use serde_json::Value;

use super::{
    Candidate, Found,
    cargo::add_step,
    project::{Project, any_glob, at, join, name_for, quoted, relative, split},
};
use crate::domain::config::{
    App,
    mistake::plain,
    tree::{self, At},
};

struct Package {
    folder: String,
    file: String,
    json: Value,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tool {
    Npm,
    Pnpm,
    Yarn,
    /// Yarn 2 and later.
    Berry,
}

impl Package {
    fn name(&self) -> &str {
        self.json.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    /// A script that does something. npm's own placeholder for tests does not ("npm init").
    fn script(&self, name: &str) -> Option<&str> {
        let script = self.json.get("scripts")?.get(name)?.as_str()?.trim();
        (!script.is_empty() && !script.contains("no test specified")).then_some(script)
    }

    fn depends_on(&self, name: &str) -> bool {
        ["dependencies", "devDependencies", "peerDependencies", "optionalDependencies"]
            .iter()
            .any(|key| self.json.get(key).is_some_and(|d| d.get(name).is_some()))
    }

    /// Started by its script, or by what npm runs without one ("npm start": `node server.js`).
    fn start(&self, project: &Project<'_>) -> Option<Start> {
        if self.script("start").is_some() {
            return Some(Start::Script);
        }
        join(&self.folder, "server.js").filter(|p| project.has(p)).map(|_| Start::Server)
    }
}

enum Start {
    Script,
    Server,
}

/// Finds every project that is the repository's own.
pub(super) fn find(project: &Project<'_>, found: &mut Found) {
    let mut packages = Vec::new();
    for path in project.manifests("package.json") {
        let Some(text) = project.text(path) else { continue };
        match serde_json::from_str::<Value>(&text) {
            Ok(json @ Value::Object(_)) => {
                packages.push(Package { folder: split(path).0.to_owned(), file: (*path).to_owned(), json });
            }
            Ok(_) => project.unreadable(path, &text, at(&text, 0), "is no package"),
            Err(error) => {
                let small = |n: usize| u32::try_from(n.max(1)).unwrap_or(u32::MAX);
                let place = At { line: small(error.line()), column: small(error.column()), length: 1 };
                let words = error.to_string();
                let words = words.rsplit_once(" at line ").map_or(words.as_str(), |(words, _)| words);
                project.unreadable(path, &text, place, &format!("cannot be read: {}", plain(words)));
            }
        }
    }
    // Nearest to the root first, so that a member is taken by the outermost workspace that names it.
    let mut member_of: Vec<Option<usize>> = vec![None; packages.len()];
    for root in 0..packages.len() {
        let patterns = workspaces(project, &packages[root]);
        if patterns.is_empty() || member_of[root].is_some() {
            continue;
        }
        for member in 0..packages.len() {
            let (outer, inner) = (&packages[root].folder, &packages[member].folder);
            let below = outer.is_empty() || inner.starts_with(&format!("{outer}/"));
            if member != root && member_of[member].is_none() && below && any_glob(&patterns, relative(outer, inner)) {
                member_of[member] = Some(root);
            }
        }
    }
    for root in (0..packages.len()).filter(|i| member_of[*i].is_none()) {
        let members: Vec<&Package> =
            packages.iter().zip(&member_of).filter(|(_, m)| **m == Some(root)).map(|(p, _)| p).collect();
        if members.is_empty() {
            alone(project, &packages[root], found);
        } else {
            workspace(project, &packages[root], &members, found);
        }
    }
}

/// The globs of a workspace's members (npm's and yarn's `workspaces`, pnpm's own file).
fn workspaces(project: &Project<'_>, package: &Package) -> Vec<String> {
    let listed = package.json.get("workspaces");
    let listed = listed.and_then(|w| w.as_array().or_else(|| w.get("packages")?.as_array()));
    let mut patterns: Vec<String> =
        listed.map_or(&[][..], Vec::as_slice).iter().filter_map(|v| Some(v.as_str()?.to_owned())).collect();
    if let Some(file) = join(&package.folder, "pnpm-workspace.yaml")
        && let Some(text) = project.text(&file)
    {
        match tree::read(&text) {
            Ok(Some(root)) => {
                let packages = root.get("packages").map_or(&[][..], tree::Node::items);
                patterns.extend(packages.iter().filter_map(|p| Some(p.text()?.to_owned())));
            }
            Ok(None) => {}
            Err(mistake) => {
                let place = At { line: mistake.line, column: mistake.column, length: mistake.length };
                project.unreadable(&file, &text, place, &format!("cannot be read: {}", plain(&mistake.message)));
            }
        }
    }
    patterns.truncate(100);
    patterns
}

/// Which tool installs, whether it has a lock file, and the file that says so.
fn tool(project: &Project<'_>, root: &Package) -> (Tool, Option<String>) {
    let lock = |name: &str| join(&root.folder, name).filter(|p| project.has(p));
    let said = root.json.get("packageManager").and_then(Value::as_str).unwrap_or_default();
    let berry = said.strip_prefix("yarn@").is_some_and(|v| !v.starts_with("1.")) || lock(".yarnrc.yml").is_some();
    let yarn = if berry { Tool::Berry } else { Tool::Yarn };
    if said.starts_with("pnpm@") {
        return (Tool::Pnpm, lock("pnpm-lock.yaml"));
    }
    if said.starts_with("yarn@") {
        return (yarn, lock("yarn.lock"));
    }
    if let Some(file) = lock("pnpm-lock.yaml") {
        return (Tool::Pnpm, Some(file));
    }
    if let Some(file) = lock("yarn.lock") {
        return (yarn, Some(file));
    }
    (Tool::Npm, lock("package-lock.json").or_else(|| lock("npm-shrinkwrap.json")))
}

fn install(tool: Tool, locked: bool) -> &'static str {
    match (tool, locked) {
        (Tool::Npm, true) => "npm ci",
        (Tool::Npm, false) => "npm install",
        (Tool::Pnpm, true) => "pnpm install --frozen-lockfile",
        (Tool::Pnpm, false) => "pnpm install",
        (Tool::Yarn, true) => "yarn install --frozen-lockfile",
        (Tool::Berry, true) => "yarn install --immutable",
        (Tool::Yarn | Tool::Berry, false) => "yarn install",
    }
}

fn cache(tool: Tool) -> &'static str {
    match tool {
        Tool::Npm => "~/.npm",
        Tool::Pnpm => "~/.local/share/pnpm/store",
        Tool::Yarn => "~/.cache/yarn",
        Tool::Berry => "~/.yarn/berry/cache",
    }
}

/// Runs a script, in a member of the workspace where one is given.
fn script(tool: Tool, name: &str, member: Option<(&str, &Package)>) -> String {
    let run = match (tool, name) {
        (Tool::Npm, "test" | "start") => format!("npm {name}"),
        (Tool::Npm, name) => format!("npm run {name}"),
        (Tool::Pnpm, name) => format!("run {name}"),
        (Tool::Yarn | Tool::Berry, name) => format!("run {name}"),
    };
    match (tool, member) {
        (Tool::Npm, None) => run,
        (Tool::Npm, Some((below, _))) => format!("{run} --workspace={}", quoted(below)),
        (Tool::Pnpm, None) => format!("pnpm {run}"),
        (Tool::Pnpm, Some((below, _))) => format!("pnpm --filter {} {run}", quoted(&format!("./{below}"))),
        (_, None) => format!("yarn {run}"),
        (_, Some((_, package))) => format!("yarn workspace {} {run}", quoted(package.name())),
    }
}

fn base(project: &Project<'_>, root: &Package, notes: &mut Vec<(String, String)>) -> (App, Tool) {
    let (tool, lock) = tool(project, root);
    let mut app = App { path: root.folder.clone(), cache: vec![cache(tool).to_owned()], ..App::default() };
    // Test runners that watch files by default stop doing so, as they do on GitHub's runners.
    app.env.insert("CI".to_owned(), "true".to_owned());
    add_step(&mut app, "install", install(tool, lock.is_some()));
    notes.push((format!("`{}`", install(tool, lock.is_some())), lock.unwrap_or_else(|| root.file.clone())));
    (app, tool)
}

/// Adds what a package can do, and says whether there was anything.
fn fill(
    project: &Project<'_>,
    app: &mut App,
    tool: Tool,
    package: &Package,
    below: Option<&str>,
    notes: &mut Vec<(String, String)>,
) -> bool {
    let member = below.map(|below| (below, package));
    let mut any = false;
    for name in ["test", "build"] {
        if let Some(does) = package.script(name) {
            add_step(app, name, &script(tool, name, member));
            notes.push((format!("{name}: {}", plain(does)), package.file.clone()));
            any = true;
        }
    }
    match package.start(project) {
        Some(Start::Script) => app.start = Some(script(tool, "start", member)),
        Some(Start::Server) => {
            let file = below.map_or_else(|| "server.js".to_owned(), |below| format!("{below}/server.js"));
            app.start = Some(format!("node {}", quoted(&file)));
            notes.push(("started by `node server.js`, as there is no start script".to_owned(), package.file.clone()));
        }
        None if package.script("build").is_some() => {
            notes.push((
                "no start script: a static front end needs an image, or a `start` that serves what `build` makes"
                    .to_owned(),
                package.file.clone(),
            ));
        }
        None => {}
    }
    any || app.start.is_some()
}

fn alone(project: &Project<'_>, package: &Package, found: &mut Found) {
    let mut notes = Vec::new();
    let (mut app, tool) = base(project, package, &mut notes);
    if !fill(project, &mut app, tool, package, None, &mut notes) {
        found.note("has no test, build or start script: no app", package.file.clone());
        return;
    }
    let said = package.name().rsplit('/').next().filter(|n| !n.is_empty()).unwrap_or("app");
    found.candidates.push(Candidate {
        name: name_for(&package.folder, said),
        folder: package.folder.clone(),
        kind: "npm",
        app,
        notes,
    });
}

/// Members that are started or built for themselves are apps; the others are libraries of theirs.
fn workspace(project: &Project<'_>, root: &Package, members: &[&Package], found: &mut Found) {
    let (tool, _) = tool(project, root);
    let yarn = matches!(tool, Tool::Yarn | Tool::Berry);
    let (mut apps, mut libraries) = (Vec::new(), Vec::new());
    for member in members.iter().copied().filter(|m| !yarn || !m.name().is_empty()) {
        let needed = members
            .iter()
            .any(|m| m.folder != member.folder && !member.name().is_empty() && m.depends_on(member.name()));
        let app = member.start(project).is_some() || (member.script("build").is_some() && !needed);
        if app { apps.push(member) } else { libraries.push(member) }
    }
    let names: Vec<&str> = members.iter().map(|m| relative(&root.folder, &m.folder)).take(20).collect();
    let about = (format!("a workspace of {} packages: {}", members.len(), names.join(", ")), root.file.clone());
    for member in &apps {
        let mut notes = vec![about.clone()];
        let (mut app, tool) = base(project, root, &mut notes);
        let below = relative(&root.folder, &member.folder);
        fill(project, &mut app, tool, member, Some(below), &mut notes);
        found.candidates.push(Candidate {
            name: name_for(&member.folder, member.name()),
            folder: member.folder.clone(),
            kind: "npm",
            app,
            notes,
        });
    }
    // What the root itself tests covers the libraries; otherwise each that can be tested is.
    let mut notes = vec![about];
    let (mut app, tool) = base(project, root, &mut notes);
    let whole = root.script("test").is_some()
        || apps.is_empty() && (root.script("build").is_some() || root.start(project).is_some());
    if whole {
        if apps.is_empty() {
            fill(project, &mut app, tool, root, None, &mut notes);
        } else {
            add_step(&mut app, "test", &script(tool, "test", None));
            notes.push(("test: the script of the workspace's root".to_owned(), root.file.clone()));
        }
    } else {
        let tests: Vec<String> = libraries
            .iter()
            .filter(|m| m.script("test").is_some())
            .map(|m| script(tool, "test", Some((relative(&root.folder, &m.folder), m))))
            .collect();
        if tests.is_empty() {
            if apps.is_empty() {
                found.note("a workspace without test, build or start scripts: no app", root.file.clone());
            }
            return;
        }
        add_step(&mut app, "test", &tests.join("\n"));
        notes.push(("libraries: tested, nothing to release".to_owned(), root.file.clone()));
    }
    let said = root.name().rsplit('/').next().filter(|n| !n.is_empty()).unwrap_or("workspace");
    let name = if whole { name_for(&root.folder, said) } else { "libraries".to_owned() };
    found.candidates.push(Candidate { name, folder: root.folder.clone(), kind: "npm", app, notes });
}

//! Cargo packages and workspaces ("The Manifest Format" and "Workspaces" in the Cargo book).

use toml::{Table, Value};

use super::{
    Candidate, Found,
    project::{Project, any_glob, at, join, name_for, quoted, relative, split},
};
use crate::domain::{
    config::{App, Step, mistake::plain},
    ids::StepName,
};

struct Package {
    folder: String,
    file: String,
    name: String,
    /// What `cargo run` would run, and all binaries.
    main: Option<String>,
    bins: Vec<String>,
    /// Helpers of the developers (`xtask`): tested, never released.
    tool: bool,
}

struct Manifest {
    folder: String,
    file: String,
    table: Table,
}

/// Finds every package that is the repository's own.
pub(super) fn find(project: &Project<'_>, found: &mut Found) {
    let mut manifests = Vec::new();
    for path in project.manifests("Cargo.toml") {
        let Some(text) = project.text(path) else { continue };
        match toml::from_str::<Table>(&text) {
            Ok(table) => manifests.push(Manifest { folder: split(path).0.to_owned(), file: (*path).to_owned(), table }),
            Err(error) => {
                let place = at(&text, error.span().map_or(0, |span| span.start));
                project.unreadable(path, &text, place, &format!("cannot be read: {}", plain(error.message())));
            }
        }
    }
    let owners: Vec<Option<&str>> =
        manifests.iter().map(|m| root_of(m, &manifests).map(|root| root.folder.as_str())).collect();
    for (root, owner) in manifests.iter().zip(&owners) {
        if owner.is_some() {
            continue;
        }
        let members: Vec<Package> = manifests
            .iter()
            .zip(&owners)
            .filter(|(m, owner)| m.folder == root.folder || **owner == Some(root.folder.as_str()))
            .filter_map(|(m, _)| package(project, m))
            .collect();
        if !members.is_empty() {
            workspace(project, root, members, found);
        }
    }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    items.iter().filter_map(|v| Some(v.as_str()?.to_owned())).collect()
}

/// The workspace that a package belongs to: the nearest one above that does not leave it out.
fn root_of<'m>(manifest: &Manifest, all: &'m [Manifest]) -> Option<&'m Manifest> {
    if manifest.table.contains_key("workspace") {
        return None;
    }
    let above = |m: &&Manifest| {
        m.folder != manifest.folder
            && m.table.contains_key("workspace")
            && (m.folder.is_empty() || manifest.folder.starts_with(&format!("{}/", m.folder)))
    };
    let root = all.iter().filter(above).max_by_key(|m| m.folder.len())?;
    let below = relative(&root.folder, &manifest.folder);
    let excluded = strings(root.table.get("workspace").and_then(|w| w.get("exclude")));
    let left_out =
        excluded.iter().any(|e| below == e || below.starts_with(&format!("{e}/"))) || any_glob(&excluded, below);
    // What is no member and not left out is one by a path dependency: Cargo refuses anything else.
    (!left_out).then_some(root)
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

fn package(project: &Project<'_>, manifest: &Manifest) -> Option<Package> {
    let table = manifest.table.get("package")?;
    let name = table.get("name").and_then(Value::as_str).filter(|n| is_name(n));
    let Some(name) = name else {
        let text = project.text(&manifest.file).unwrap_or_default();
        let name = table.get("name").and_then(Value::as_str).unwrap_or("[package]");
        let place = at(&text, text.find(name).unwrap_or(0));
        project.unreadable(&manifest.file, &text, place, "has a package without a proper name");
        return None;
    };
    let mut bins = Vec::new();
    let at = |path: &str| join(&manifest.folder, path).is_some_and(|p| project.has(&p));
    for bin in manifest.table.get("bin").and_then(Value::as_array).map_or(&[][..], Vec::as_slice) {
        let optional = bin.get("required-features").is_some();
        if let Some(bin) = bin.get("name").and_then(Value::as_str).filter(|n| is_name(n) && !optional) {
            bins.push(bin.to_owned());
        }
    }
    let declared_paths: Vec<&str> = manifest
        .table
        .get("bin")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .filter_map(|b| b.get("path")?.as_str())
        .collect();
    if table.get("autobins").and_then(Value::as_bool) != Some(false) {
        if at("src/main.rs") && !declared_paths.contains(&"src/main.rs") && !bins.iter().any(|b| b == name) {
            bins.push(name.to_owned());
        }
        let folder = join(&manifest.folder, "src/bin")?;
        let mut more: Vec<String> = project
            .below(&folder)
            .map(|path| relative(&folder, path))
            .filter_map(|path| match path.split_once('/') {
                None => path.strip_suffix(".rs"),
                Some((bin, "main.rs")) => Some(bin),
                Some(_) => None,
            })
            .filter(|bin| is_name(bin) && !bins.iter().any(|b| b == bin))
            .filter(|bin| !declared_paths.iter().any(|p| *p == format!("src/bin/{bin}.rs")))
            .map(str::to_owned)
            .collect();
        more.sort();
        bins.extend(more);
    }
    let default = table.get("default-run").and_then(Value::as_str).filter(|d| bins.iter().any(|b| b == d));
    let main = default.map(str::to_owned).or_else(|| bins.iter().find(|b| *b == name).or(bins.first()).cloned());
    Some(Package {
        folder: manifest.folder.clone(),
        file: manifest.file.clone(),
        name: name.to_owned(),
        main,
        bins,
        tool: name == "xtask" || split(&manifest.folder).1 == "xtask",
    })
}

/// The apps of one workspace or of one package alone. All run at the root: the lock file, `target` and the members
/// that they depend on are there.
fn workspace(project: &Project<'_>, root: &Manifest, members: Vec<Package>, found: &mut Found) {
    let single = members.len() == 1;
    let (apps, libraries): (Vec<&Package>, Vec<&Package>) = members.iter().partition(|p| p.main.is_some() && !p.tool);
    let mut notes = Vec::new();
    let lock = join(&root.folder, "Cargo.lock").filter(|l| project.has(l));
    // Without it Cargo would quietly take other versions than those that are written down.
    let locked = if lock.is_some() { " --locked" } else { "" };
    let moved = moved_target(project, root);
    if let (Some(file), false) = (&moved, apps.is_empty()) {
        found
            .warnings
            .push(format!("{file} moves the build's output: say under `files` and `start` where the binary is."));
    }
    if !single {
        let names: Vec<&str> = members.iter().map(|p| p.name.as_str()).take(20).collect();
        notes.push((format!("a workspace of {} packages: {}", members.len(), names.join(", ")), root.file.clone()));
    }
    if let [one] = apps.as_slice() {
        let scope = if single { "" } else { " --workspace" };
        let package = if single { locked.to_owned() } else { format!("{locked} -p {}", one.name) };
        let mut candidate = released(root, one, &format!("cargo test{locked}{scope}"), &package, &notes, found);
        candidate.name = name_for(&root.folder, one.main.as_deref().unwrap_or(&one.name));
        if moved.is_some() {
            (candidate.app.files, candidate.app.start) = (None, None);
        }
        found.candidates.push(candidate);
        return;
    }
    for package in &apps {
        let scope = format!("{locked} -p {}", package.name);
        let mut candidate = released(root, package, &format!("cargo test{scope}"), &scope, &notes, found);
        if moved.is_some() {
            (candidate.app.files, candidate.app.start) = (None, None);
        }
        found.candidates.push(candidate);
    }
    if libraries.is_empty() {
        return;
    }
    let (name, test) = if apps.is_empty() {
        let scope = if single { "" } else { " --workspace" };
        (name_for(&root.folder, &libraries[0].name), format!("cargo test{locked}{scope}"))
    } else {
        let scope: String = libraries.iter().map(|p| format!(" -p {}", p.name)).collect();
        ("libraries".to_owned(), format!("cargo test{locked}{scope}"))
    };
    let file = lock.unwrap_or_else(|| root.file.clone());
    let what = if single { "a library: tested, nothing to release" } else { "libraries: tested, nothing to release" };
    notes.push((what.to_owned(), if single { root.file.clone() } else { file }));
    found.candidates.push(Candidate {
        name,
        folder: root.folder.clone(),
        kind: "cargo",
        app: base(root, &test),
        notes,
    });
}

/// A Cargo configuration that puts binaries elsewhere ("Configuration": `build.target`, `build.target-dir`).
fn moved_target(project: &Project<'_>, root: &Manifest) -> Option<String> {
    [".cargo/config.toml", ".cargo/config"].iter().find_map(|name| {
        let path = join(&root.folder, name)?;
        let table: Table = toml::from_str(&project.text(&path)?).ok()?;
        let build = table.get("build")?;
        (build.get("target").is_some() || build.get("target-dir").is_some()).then_some(path)
    })
}

fn base(root: &Manifest, test: &str) -> App {
    let mut app = App {
        path: root.folder.clone(),
        cache: vec!["~/.cargo/registry".to_owned(), "target".to_owned()],
        ..App::default()
    };
    add_step(&mut app, "test", test);
    app
}

/// Adds a step to an app.
pub(super) fn add_step(app: &mut App, name: &str, run: &str) {
    if let Ok(name) = StepName::new(name) {
        app.steps.insert(name, Step::new(run));
    }
}

fn released(
    root: &Manifest,
    package: &Package,
    test: &str,
    scope: &str,
    notes: &[(String, String)],
    found: &mut Found,
) -> Candidate {
    let main = package.main.as_deref().unwrap_or(&package.name);
    let mut app = base(root, test);
    add_step(&mut app, "build", &format!("cargo build --release{scope}"));
    app.files = Some(vec![format!("target/release/{main}")]);
    app.start = Some(quoted(&format!("./target/release/{main}")));
    let mut notes = notes.to_vec();
    notes.push((format!("the binary `{main}` of the package `{}`", package.name), package.file.clone()));
    if package.bins.len() > 1 {
        found.warnings.push(format!(
            "{}: of the binaries {} `{main}` is started. `start` says otherwise.",
            package.file,
            package.bins.join(", ")
        ));
    }
    Candidate { name: package.name.clone(), folder: package.folder.clone(), kind: "cargo", app, notes }
}

//! Apps and steps inferred from the files that are there.
//!
//! One file per ecosystem ([`cargo`], [`maven`], [`npm`]); each finds its projects and says from which file it knows
//! what. `container` adds the images that steps run in, [`docker`] finds what images are built from. All of it is pure
//! over a listing of files: a git tree and a folder look the same.

mod cargo;
mod container;
pub mod docker;
pub mod dockerfile;
mod maven;
mod npm;
mod project;
mod show;
mod spring;

use std::collections::BTreeMap;

use crate::domain::{
    config::{self, App, Mistake, RepoConfig, mistake::nearest},
    ids::AppName,
};

pub use show::{CheckReport, check_report, written};

/// The files of a commit or of a folder.
pub trait Files {
    /// All paths from the root, with slashes. Folders are not listed.
    fn list(&self) -> &[String];
    /// A file's content, if there is such a file and it can be read.
    fn read(&self, path: &str) -> Option<Vec<u8>>;
    /// Whether a path is a symbolic link: those are not followed.
    fn is_link(&self, _path: &str) -> bool {
        false
    }
    /// Whether a file is too large to be read.
    fn is_too_large(&self, _path: &str) -> bool {
        false
    }
}

/// Something that was inferred, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The app that it is about; None for the repository as a whole.
    pub app: Option<AppName>,
    /// What was understood, in words.
    pub text: String,
    /// The file that says so; empty where none does.
    pub file: String,
}

/// A build file of the repository's own that can't be read, so that an app may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The file.
    pub file: String,
    /// Where in it, and what is wrong.
    pub mistake: Mistake,
    /// The line itself, if there is one.
    pub source: Option<String>,
}

/// What was inferred.
#[derive(Debug, Clone, PartialEq)]
pub struct Inferred {
    /// The configuration, complete.
    pub config: RepoConfig,
    /// Where each thing comes from.
    pub notes: Vec<Note>,
    /// What probably needs a line in the configuration.
    pub warnings: Vec<String>,
    /// Build files that can't be read: nothing may run as if their apps were not there.
    pub unreadable: Vec<Unreadable>,
}

/// A configuration as it is used: what is written, completed by what is inferred.
#[derive(Debug, Clone, PartialEq)]
pub struct Understood {
    /// Whether [`config::FILE_NAME`] is there and says something.
    pub written: bool,
    /// The configuration and what was inferred for it, or every mistake in the file.
    pub result: Result<Inferred, Vec<Mistake>>,
    /// What is right in the file but probably not meant.
    pub config_warnings: Vec<Mistake>,
}

/// An app that an ecosystem found.
struct Candidate {
    /// The name it would like to have.
    name: String,
    /// The folder of its manifest, which may lie below `app.path` (members of workspaces).
    folder: String,
    /// The ecosystem, to tell two apps of one folder apart.
    kind: &'static str,
    app: App,
    notes: Vec<(String, String)>,
}

#[derive(Default)]
struct Found {
    candidates: Vec<Candidate>,
    notes: Vec<Note>,
    warnings: Vec<String>,
}

impl Found {
    /// Something about the repository as a whole.
    fn note(&mut self, text: impl Into<String>, file: impl Into<String>) {
        self.notes.push(Note { app: None, text: text.into(), file: file.into() });
    }
}

/// Build files of ecosystems that are known but not inferred, and what they belong to.
const OTHERS: [(&str, &str); 4] =
    [("build.gradle", "Gradle"), ("build.gradle.kts", "Gradle"), ("go.mod", "Go"), ("pyproject.toml", "Python")];

/// The note of a commit that writes no environment. It is wrong where the default branch has one.
pub const NOTHING_RELEASED: &str = "nothing is released, as no environment is written";

/// Infers everything. Environments are never inferred: where something is released is for people to say.
#[must_use]
pub fn infer(files: &dyn Files, default_branch: &str) -> Inferred {
    let (apps, mut inferred) = all(files);
    inferred.config.apps = apps.into_iter().map(|(name, candidate)| (name, candidate.app)).collect();
    if inferred.config.apps.is_empty() {
        inferred.warnings.push(format!(
            "Nothing to run was found (looked for Cargo.toml, pom.xml, package.json). Say what to run under `apps` in {}.",
            config::FILE_NAME
        ));
    }
    let branches =
        if default_branch == "develop" { "develop".to_owned() } else { format!("{default_branch} and develop") };
    for text in [format!("pushes to {branches} and pull requests are tested"), NOTHING_RELEASED.to_owned()] {
        inferred.notes.push(Note { app: None, text, file: String::new() });
    }
    container::complete(&mut inferred, files);
    inferred
}

/// Fills what a written configuration leaves out: the apps as a whole, or the steps of an app, and with them what
/// belongs to them (start, files, cache, health). What is written is never changed, except that an app in a workspace
/// without steps runs at the workspace's root.
#[must_use]
pub fn complete(config: RepoConfig, files: &dyn Files) -> Inferred {
    let mut done = without_containers(config, files);
    container::complete(&mut done, files);
    done
}

fn without_containers(config: RepoConfig, files: &dyn Files) -> Inferred {
    let needs = config.apps.is_empty() || config.apps.values().any(|a| a.steps.is_empty() && a.image_of.is_none());
    let mut done = Inferred { config, notes: Vec::new(), warnings: Vec::new(), unreadable: Vec::new() };
    missing_folders(&mut done, files);
    if !needs {
        return done;
    }
    let (found, inferred) = all(files);
    if done.config.apps.is_empty() {
        done.config.apps = found.into_iter().map(|(name, candidate)| (name, candidate.app)).collect();
        done.notes = inferred.notes;
        done.warnings.extend(inferred.warnings);
        done.unreadable = inferred.unreadable;
        if done.config.apps.is_empty() {
            let text = "Nothing to run was found (looked for Cargo.toml, pom.xml, package.json). Say what to run under `apps`.";
            done.warnings.push(text.to_owned());
        }
        return done;
    }
    for (name, app) in &mut done.config.apps {
        if !app.steps.is_empty() || app.image_of.is_some() {
            continue;
        }
        let fits = |c: &&(AppName, Candidate)| c.1.folder == app.path || c.1.app.path == app.path;
        let here: Vec<_> = found.iter().filter(fits).collect();
        // Only what this app's steps could have come from: its folder, and workspaces around it.
        for unreadable in &inferred.unreadable {
            let (folder, file) = project::split(&unreadable.file);
            let around = folder.is_empty() || app.path.starts_with(&format!("{folder}/"));
            let other = here.iter().all(|(_, c)| !project::belongs(file, c.kind)) && !here.is_empty();
            if (folder == app.path || around && !other) && !done.unreadable.contains(unreadable) {
                done.unreadable.push(unreadable.clone());
            }
        }
        let exact = here.iter().find(|(found, _)| found == name);
        let Some((found_name, candidate)) =
            exact.or_else(|| here.iter().find(|(_, c)| c.folder == app.path)).or(here.first())
        else {
            let folder =
                if app.path.is_empty() { "the repository's root".to_owned() } else { format!("`{}`", app.path) };
            done.warnings.push(format!("{name}: no steps are written, and none could be inferred in {folder}."));
            continue;
        };
        let found = &candidate.app;
        app.steps.clone_from(&found.steps);
        if app.path != found.path {
            let root = if found.path.is_empty() { "the repository's root" } else { &found.path };
            done.notes.push(Note {
                app: Some(name.clone()),
                text: format!("its steps run in {root}, because the workspace is there"),
                file: String::new(),
            });
            app.path.clone_from(&found.path);
        }
        if app.cache.is_empty() {
            app.cache.clone_from(&found.cache);
        }
        for (key, value) in &found.env {
            app.env.entry(key.clone()).or_insert_with(|| value.clone());
        }
        if app.image.is_none() && app.image_tag.is_none() {
            // A start of one's own may need other files than the inferred one.
            if app.start.is_none() && app.files.is_none() {
                app.files.clone_from(&found.files);
            }
            app.start = app.start.take().or_else(|| found.start.clone());
        }
        if app.kind == config::AppKind::Web {
            app.health = app.health.take().or_else(|| found.health.clone());
        }
        let of_it = inferred.notes.iter().filter(|n| n.app.as_ref() == Some(found_name));
        done.notes.extend(of_it.map(|n| Note { app: Some(name.clone()), ..n.clone() }));
    }
    done
}

/// The repository's configuration as it is used: read, checked, completed.
#[must_use]
pub fn understand(files: &dyn Files, default_branch: &str) -> Understood {
    if files.is_link(config::FILE_NAME) {
        let start = config::tree::At { line: 1, column: 1, length: 1 };
        let mistake =
            Mistake::new(start, "", "the file is a link, which is not followed", "the file's own text at this path");
        return Understood { written: true, result: Err(vec![mistake]), config_warnings: Vec::new() };
    }
    let Some(text) = files.read(config::FILE_NAME).filter(|t| says_something(t)) else {
        let mut inferred = infer(files, default_branch);
        docker::tell(&mut inferred, files);
        misplaced(&mut inferred, files);
        return Understood { written: false, result: Ok(inferred), config_warnings: Vec::new() };
    };
    match config::parse_bytes(&text) {
        Ok(parsed) => {
            let mut inferred = complete(parsed.config, files);
            docker::tell(&mut inferred, files);
            Understood { written: true, result: Ok(inferred), config_warnings: parsed.warnings }
        }
        Err(mistakes) => Understood { written: true, result: Err(mistakes), config_warnings: Vec::new() },
    }
}

/// Whether there is anything but blanks and comments in a configuration.
fn says_something(text: &[u8]) -> bool {
    std::str::from_utf8(text).map_or(true, |text| !matches!(config::tree::read(text), Ok(None)))
}

/// A file that somebody probably took for ours.
fn misplaced(inferred: &mut Inferred, files: &dyn Files) {
    const PLACES: [&str; 5] =
        [".github/switchover.yaml", "switchover.yml", "switchover.yaml", ".switchover.yml", ".switchover.yaml"];
    if let Some(path) = files.list().iter().find(|p| PLACES.contains(&p.as_str())) {
        inferred.warnings.push(format!("{path} is not read: the configuration is {}.", config::FILE_NAME));
    }
}

/// Folders that the configuration names and the repository does not have.
fn missing_folders(done: &mut Inferred, files: &dyn Files) {
    let named: Vec<(String, String)> = done
        .config
        .apps
        .iter()
        .map(|(name, app)| (format!("apps.{name}.path"), app.path.clone()))
        .chain(done.config.environments.iter().filter_map(|(name, environment)| {
            Some((format!("environments.{name}.manifests"), environment.manifests.clone()?))
        }))
        .filter(|(_, folder)| !folder.is_empty())
        .collect();
    if named.is_empty() {
        return;
    }
    let folders: std::collections::BTreeSet<&str> =
        files.list().iter().flat_map(|path| path.match_indices('/').map(move |(at, _)| &path[..at])).collect();
    for (key, folder) in named {
        if !folders.contains(folder.as_str()) {
            let near = nearest(&folder, folders.iter().copied()).map(|n| format!(" Did you mean `{n}`?"));
            done.warnings.push(format!("{key}: there is no folder `{folder}` here.{}", near.unwrap_or_default()));
        }
    }
}

/// What all ecosystems found, each app with a name of its own, in the order of their folders.
fn all(files: &dyn Files) -> (Vec<(AppName, Candidate)>, Inferred) {
    let project = project::Project::new(files);
    let mut found = Found::default();
    cargo::find(&project, &mut found);
    maven::find(&project, &mut found);
    npm::find(&project, &mut found);
    for (file, ecosystem) in OTHERS {
        if let Some(path) = project.manifests(file).first() {
            found.warnings.push(format!(
                "{path}: {ecosystem} projects are not inferred yet. Write their steps under `apps` in {}.",
                config::FILE_NAME
            ));
        }
    }
    found.warnings.extend(project.problems());
    found.candidates.sort_by(|a, b| (&a.folder, a.kind, &a.name).cmp(&(&b.folder, b.kind, &b.name)));
    let apps = name_all(found.candidates);
    let mut notes: Vec<Note> = Vec::new();
    for (name, candidate) in &apps {
        notes.extend(candidate.notes.iter().map(|(text, file)| Note {
            app: Some(name.clone()),
            text: text.clone(),
            file: file.clone(),
        }));
    }
    notes.extend(found.notes);
    let unreadable = project.all_unreadable();
    (apps, Inferred { config: RepoConfig::default(), notes, warnings: found.warnings, unreadable })
}

/// Names from what they would like, made well formed and different from each other.
fn name_all(candidates: Vec<Candidate>) -> Vec<(AppName, Candidate)> {
    let mut wanted: BTreeMap<String, usize> = BTreeMap::new();
    for candidate in &candidates {
        *wanted.entry(candidate.name.to_lowercase()).or_default() += 1;
    }
    let mut taken: Vec<(AppName, Candidate)> = Vec::new();
    for candidate in candidates {
        let alone = wanted.get(&candidate.name.to_lowercase()) == Some(&1);
        let by_folder =
            if candidate.folder.is_empty() { candidate.name.clone() } else { candidate.folder.replace('/', "-") };
        let choices = [
            alone.then(|| candidate.name.clone()),
            Some(by_folder.clone()),
            Some(format!("{by_folder}-{}", candidate.kind)),
            Some(format!("{by_folder}-{}", candidate.name)),
        ];
        let numbered = (1..).map(|n| format!("app-{n}"));
        let free = choices.into_iter().flatten().chain(numbered).find_map(|text| {
            let name = app_name(&text)?;
            let clash = taken.iter().any(|(t, _)| t.as_str().eq_ignore_ascii_case(name.as_str()));
            (!clash).then_some(name)
        });
        if let Some(name) = free {
            taken.push((name, candidate));
        }
    }
    taken
}

/// The nearest well-formed name, if anything is left of it.
fn app_name(text: &str) -> Option<AppName> {
    let fits = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let text: String = text.chars().map(fits).collect();
    // Of a long one the end tells most: it comes from a path.
    let cut = &text[text.len().saturating_sub(63)..];
    let cut = cut.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).trim_end_matches(['-', '.']);
    AppName::new(cut).ok()
}

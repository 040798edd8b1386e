//! The image of an app: which Dockerfile, which build context, which port, and where each is known from.
//!
//! Pure over [`Files`]: a commit before it is planned, a workspace after its `build` step, and a folder of
//! `switchover check` look the same.

mod ci;
mod found;
mod generate;
mod port;
mod shell;

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::{
    Candidate, Files, Inferred, Note,
    dockerfile::Dockerfile,
    project::{Project, join, last, split},
};
use crate::domain::{
    config::{App, AppKind, mistake::shown},
    ids::AppName,
};

/// A Dockerfile that was made up for an app that has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// Where `switchover check --write` puts it, from the repository's root.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Patterns of what stays out of the context, as in a `.dockerignore`.
    pub ignore: String,
}

/// What an image is built from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImagePlan {
    /// The Dockerfile, from the repository's root.
    pub dockerfile: Option<String>,
    /// The one that was made up, where there is none.
    pub generated: Option<Generated>,
    /// Why there is neither; empty otherwise.
    pub missing: String,
    /// The build context's folder, from the repository's root; empty for the root itself.
    pub context: String,
    /// Build arguments that CI gives, or that tell a shared Dockerfile which app it is for.
    pub args: BTreeMap<String, String>,
    /// Whether the Dockerfile builds the app itself, so that no `build` step is needed before.
    pub builds_itself: bool,
    /// The port that the app listens on in its container; None for a worker, or where nothing says so.
    pub port: Option<u16>,
    /// What was understood, and the file that says so (empty where none does).
    pub notes: Vec<(String, String)>,
}

impl ImagePlan {
    fn note(&mut self, text: impl Into<String>, file: &str) {
        self.notes.push((text.into(), file.to_owned()));
    }
}

/// Finds out what the image of an app is built from. What its configuration says is taken as it is.
#[must_use]
pub fn image_plan(files: &dyn Files, name: &AppName, app: &App) -> ImagePlan {
    Repository::read(files).plan(name, app)
}

/// Tells, in notes, what the images of the apps are built from: of those that have an `image` or a Dockerfile.
pub(super) fn tell(inferred: &mut Inferred, files: &dyn Files) {
    let repository = Repository::read(files);
    let built = |app: &App| app.image_of.is_none() && app.image_tag.is_none();
    for (name, app) in inferred.config.apps.iter().filter(|(_, app)| built(app)) {
        let plan = repository.plan(name, app);
        if plan.dockerfile.is_none() && app.image.is_none() {
            continue;
        }
        if !plan.missing.is_empty() {
            inferred.warnings.push(format!("{name}: {}", plan.missing));
        }
        let notes = plan.notes.into_iter().map(|(text, file)| Note { app: Some(name.clone()), text, file });
        inferred.notes.extend(notes);
    }
}

/// The Dockerfiles that are made up for apps that have an `image` and no Dockerfile: for `switchover check`, which shows
/// them, and `--write`, which keeps them. Apps that share a place share the first one's.
#[must_use]
pub fn generated(files: &dyn Files, apps: &IndexMap<AppName, App>) -> Vec<(AppName, Generated)> {
    let repository = Repository::read(files);
    let mut all: Vec<(AppName, Generated)> = Vec::new();
    let built = |app: &App| app.image.is_some() && app.image_of.is_none() && app.image_tag.is_none();
    for (name, app) in apps.iter().filter(|(_, app)| built(app)) {
        if let Some(made) = repository.plan(name, app).generated
            && !all.iter().any(|(_, other)| other.name == made.name)
        {
            all.push((name.clone(), made));
        }
    }
    all
}

/// What is looked at once for all apps of a repository.
struct Repository<'f> {
    project: Project<'f>,
    apps: Vec<(AppName, Candidate)>,
    builds: Vec<shell::Build>,
    services: Vec<ci::Service>,
    found: Vec<found::Found>,
}

impl<'f> Repository<'f> {
    fn read(files: &'f dyn Files) -> Self {
        let project = Project::new(files);
        let (apps, _) = super::all(files);
        let (mut builds, services) = ci::find(&project);
        builds.extend(services.iter().map(|s| {
            // A service's name is as good as an image's.
            let image = s.build.image.clone().or_else(|| Some(s.name.clone()));
            shell::Build { image, ..s.build.clone() }
        }));
        let named: Vec<&str> =
            builds.iter().flat_map(|b| [b.dockerfile.as_deref(), b.or.as_deref()]).flatten().collect();
        let found = found::find(&project, &named);
        Self { project, apps, builds, services, found }
    }

    fn plan(&self, name: &AppName, app: &App) -> ImagePlan {
        let Self { project, apps, builds, services, found } = self;
        let exact = apps.iter().find(|(n, c)| n == name && (c.app.path == app.path || c.folder == app.path));
        let candidate = exact.or_else(|| apps.iter().find(|(_, c)| c.folder == app.path)).map(|(_, c)| c);
        let runs = |c: &&(AppName, Candidate)| c.1.app.start.is_some() || c.1.app.steps.contains_key("build");
        let others: Vec<String> = apps.iter().filter(runs).map(|(_, c)| c.folder.clone()).collect();
        let folder = candidate.map_or(app.path.as_str(), |c| c.folder.as_str());
        let image = app.image.as_deref().map(|i| last(i).split([':', '@']).next().unwrap_or(i));
        let wanted = found::Wanted {
            name: name.as_str(),
            folder,
            path: &app.path,
            image,
            alone: others.iter().all(|o| o == folder),
            others: &others,
        };

        let mut plan = ImagePlan::default();
        let written = app.dockerfile.as_ref().map(|d| join(&app.path, d).unwrap_or_else(|| d.clone()));
        let mut build = None;
        if let Some(path) = written {
            plan.note(format!("its Dockerfile is {}", shown(&path)), crate::domain::config::FILE_NAME);
            build = builds.iter().find(|b| found::names(b, &path, found));
            plan.dockerfile = Some(path);
        } else if let Some(choice) = found::choose(project, found, builds, &wanted) {
            plan.note(format!("built from {}: {}", shown(&choice.found.path), choice.why), &choice.found.path);
            plan.dockerfile = Some(choice.found.path.clone());
            build = choice.build;
        }
        let taken = plan.dockerfile.clone();
        for other in found.iter().filter(|f| taken.as_ref() != Some(&f.path)) {
            let here = split(&other.path).0 == folder;
            match &other.tool {
                Some(tool) => plan.note(format!("{} is left out: it is {tool}'s", shown(&other.path)), &other.path),
                None if other.variant && here => {
                    plan.note(
                        format!("{} is left out: by its name it is not for releases", shown(&other.path)),
                        &other.path,
                    );
                }
                None => {}
            }
        }

        let mut read = None;
        if let Some(path) = plan.dockerfile.clone() {
            let text = project.text(&path).unwrap_or_default();
            arguments(project, &mut plan, &text, build, &wanted);
            let dockerfile = Dockerfile::read(&text, &plan.args);
            if let Some(line) = builds_itself(&dockerfile) {
                plan.builds_itself = true;
                plan.note(format!("it builds the app itself, in line {line}"), &path);
            }
            context(project, &mut plan, &path, &dockerfile, build, &wanted);
            read = Some((path, dockerfile));
        }
        if app.kind == AppKind::Worker && read.is_some() {
            return plan;
        }
        let of_compose = services.iter().find(|s| {
            let same = plan.dockerfile.as_ref().is_some_and(|d| found::names(&s.build, d, found))
                && s.build.context == plan.context;
            s.name == name.as_str() || same
        });
        let of_compose = of_compose.and_then(|s| Some((s.port?, s.build.file.clone())));
        let claims = port::claims(project, folder, read.as_ref().map(|(p, d)| (p.as_str(), d)), of_compose);
        ports(&mut plan, app, &claims);
        if plan.dockerfile.is_none() {
            made_up(project, &mut plan, candidate, app);
        }
        plan
    }
}

/// The line in which a Dockerfile builds what it copies, if it does.
fn builds_itself(dockerfile: &Dockerfile) -> Option<usize> {
    const TOOLS: [&str; 14] = [
        "mvn ",
        "mvnw ",
        "gradle ",
        "gradlew ",
        "npm run build",
        "npm run-script build",
        "yarn build",
        "yarn run build",
        "pnpm build",
        "pnpm run build",
        "ng build",
        "vite build",
        "go build",
        "cargo build",
    ];
    let runs = dockerfile.instructions.iter().filter(|i| i.keyword == "RUN");
    runs.filter(|i| TOOLS.iter().any(|t| i.text.contains(t))).map(|i| i.line).next()
}

/// The build arguments: those of CI, and the one that a shared Dockerfile asks for.
fn arguments(
    project: &Project<'_>,
    plan: &mut ImagePlan,
    text: &str,
    build: Option<&shell::Build>,
    wanted: &found::Wanted<'_>,
) {
    if let Some(build) = build.filter(|b| !b.args.is_empty()) {
        plan.args.clone_from(&build.args);
        let list: Vec<String> = build.args.iter().map(|(k, v)| format!("{k}={v}")).collect();
        plan.note(format!("build arguments as CI gives them: {}", list.join(" ")), &build.file);
    }
    let plain = Dockerfile::read(text, &plan.args);
    let asked = plain.instructions.iter().filter(|i| i.keyword == "ARG" && !i.text.contains('='));
    let asked: Vec<&str> = asked.map(|i| i.text.trim()).filter(|n| !plan.args.contains_key(*n)).take(5).collect();
    let best =
        |d: &Dockerfile| ["", wanted.path].iter().map(|c| found::fitting(project, d, c)).max().unwrap_or_default();
    for name in asked {
        for value in [wanted.folder, last(wanted.folder), wanted.name] {
            let with = |value: &str| {
                let mut args = plan.args.clone();
                args.insert(name.to_owned(), value.to_owned());
                args
            };
            let args = with(value);
            // Compared with a value that means nothing: without one the path may happen to be another that is there.
            let better = |args| best(&Dockerfile::read(text, args)) > best(&Dockerfile::read(text, &with("\u{1}")));
            if !value.is_empty() && better(&args) {
                plan.note(format!("build argument {name}={value}: then its COPY finds what it takes"), "");
                plan.args = args;
                return;
            }
        }
    }
}

/// The context: CI's, or the one in which most of what is copied can be found.
fn context(
    project: &Project<'_>,
    plan: &mut ImagePlan,
    path: &str,
    dockerfile: &Dockerfile,
    build: Option<&shell::Build>,
    wanted: &found::Wanted<'_>,
) {
    if let Some(build) = build.filter(|b| !b.context.contains('*')) {
        plan.context.clone_from(&build.context);
        plan.note(format!("build context: {}, as CI has it", place(&build.context)), &build.file);
        return;
    }
    let own = split(path).0;
    // In this order where several fit as well: Docker's own habit first.
    let mut choices = vec![own, wanted.folder, wanted.path, ""];
    choices.dedup();
    let fits: Vec<i32> = choices.iter().map(|c| found::fitting(project, dockerfile, c)).collect();
    let best = fits.iter().copied().max().unwrap_or_default();
    let chosen = choices.iter().zip(&fits).find(|(_, f)| **f == best).map_or(own, |(c, _)| *c);
    if chosen != own {
        plan.note(format!("build context: {}, because what is copied is found there", place(chosen)), path);
    }
    chosen.clone_into(&mut plan.context);
}

fn place(folder: &str) -> String {
    if folder.is_empty() { "the repository's root".to_owned() } else { shown(folder).to_string() }
}

/// The port: what is written, or the strongest claim; and what contradicts it.
fn ports(plan: &mut ImagePlan, app: &App, claims: &[port::Claim]) {
    let (won, by) = match (app.port, claims.first()) {
        (Some(port), _) => (port, "it is written".to_owned()),
        (None, Some(claim)) => {
            plan.note(format!("port {}: {}", claim.port, claim.what), &claim.file);
            (claim.port, claim.what.clone())
        }
        (None, None) => return,
    };
    plan.port = Some(won);
    for other in claims.iter().filter(|c| c.port != won) {
        plan.note(format!("port {} ({}) contradicts {won}, which won: {by}", other.port, other.what), &other.file);
    }
}

fn made_up(project: &Project<'_>, plan: &mut ImagePlan, candidate: Option<&Candidate>, app: &App) {
    match generate::generate(project, candidate, app, plan.port) {
        Ok(made) => {
            plan.note(format!("there is no Dockerfile: one is made up for {}", made.what), &made.file);
            if app.kind == AppKind::Web {
                plan.port = Some(made.port);
            } else {
                plan.port = None;
            }
            plan.context = made.context;
            plan.generated = Some(made.generated);
        }
        Err(why) => plan.missing = why,
    }
}

//! A release's manifests: read from its commit, rendered where a tool must, judged by the operator's policy, tied to apps,
//! and frozen.

use std::{collections::BTreeMap, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Engine, EngineError, targets::run_quietly};
use crate::{
    domain::{
        config::{App, AppKind, Environment, RepoConfig},
        event::RepoInfo,
        ids::{AppName, EnvironmentName, Sha},
        rollout::AppManifests,
    },
    exec::git::{FileEntry, GitError},
    manifests::{self, AppFacts, Facts, Plain, Script, Source},
    settings::ClusterTarget,
};

/// Folders in which manifests lie where the configuration names none; the first that has any counts.
const FOLDERS: [&str; 8] = ["k8s", "kubernetes", "deploy", "cicd", "manifests", ".k8s", "kube", "deployment"];
/// Larger files are no manifests.
const LARGEST: u64 = 1024 * 1024;
/// A tool may make so much of a folder.
const LARGEST_RENDERED: u64 = 16 * 1024 * 1024;
/// Files that are read at most.
const MOST_FILES: usize = 500;
/// The mode of a symbolic link in a tree ("git-fast-import").
const LINK: u32 = 0o120_000;
/// A tool that renders may take so long.
const RENDER_LIMIT: Duration = Duration::from_secs(120);

/// The manifests of a release, and what is to be said of them.
#[derive(Debug, Clone, Default)]
pub struct Frozen {
    /// By app.
    pub apps: BTreeMap<AppName, AppManifests>,
    /// What may cost requests or a release, each with the line to write.
    pub warnings: Vec<String>,
    /// What was understood.
    pub notes: Vec<String>,
    /// Why the release can't be made, with the mend.
    pub refused: Option<String>,
}

/// What manifests are read for.
pub struct Freeze<'a> {
    /// The repository.
    pub repo: &'a RepoInfo,
    /// The released commit.
    pub commit: &'a Sha,
    /// Its files.
    pub files: &'a [FileEntry],
    /// Its configuration.
    pub config: &'a RepoConfig,
    /// Where it is released.
    pub name: &'a EnvironmentName,
    /// The same, with what the default branch says of it.
    pub environment: &'a Environment,
    /// The operator's target.
    pub target: &'a ClusterTarget,
    /// Images without a tag, by app.
    pub images: &'a BTreeMap<String, String>,
}

fn refused(words: impl Into<String>) -> EngineError {
    EngineError::Refused(words.into())
}

impl Engine {
    /// Reads, judges and ties the manifests of a commit.
    ///
    /// # Errors
    /// [`EngineError::Refused`]: what is wrong, with file and line and the mend.
    pub async fn freeze(&self, f: &Freeze<'_>) -> Result<Frozen, EngineError> {
        let paths: Vec<&str> = f.files.iter().map(|e| e.path.as_str()).collect();
        let folder = match &f.environment.manifests {
            Some(folder) => folder.trim_matches('/').trim_start_matches("./").to_owned(),
            None => FOLDERS.iter().find(|d| has_yaml(&paths, d)).map_or_else(String::new, |d| (*d).to_owned()),
        };
        if f.environment.manifests.is_some()
            && !paths.iter().any(|p| p.starts_with(&format!("{folder}/")) || *p == folder)
        {
            return Err(refused(format!("the folder {folder} of `manifests:` is not in {}", f.commit.short())));
        }
        let sorted = manifests::sort(&paths, &folder);
        if !sorted.unclear.is_empty() && f.environment.manifests.is_some() {
            return Err(refused(sorted.unclear.join("\n")));
        }
        let mut texts: Vec<(String, Vec<u8>)> = Vec::new();
        let named = f.environment.manifests.is_some();
        if let Some(folder) = &sorted.kustomize {
            texts.push((folder.clone(), self.rendered(f, folder, Tool::Kustomize).await?));
        }
        // A chart that nobody named may be of anything.
        for chart in sorted.charts.iter().filter(|_| named && sorted.kustomize.is_none()) {
            texts.push((chart.clone(), self.rendered(f, chart, Tool::Helm).await?));
        }
        if sorted.plain.len() > MOST_FILES {
            let all = sorted.plain.len();
            return Err(refused(format!(
                "{folder} holds {all} YAML files, and at most {MOST_FILES} are read: name a smaller folder"
            )));
        }
        for path in &sorted.plain {
            // What is left out would be taken for gone, and removed from the cluster.
            match self.mirrors.read_file(f.repo.repo.id, f.commit, path, LARGEST).await {
                Ok(Some(bytes)) => texts.push((path.clone(), bytes)),
                Ok(None) => return Err(refused(format!("{path} is a symbolic link: put the file itself there"))),
                Err(GitError::TooLarge { .. }) => {
                    return Err(refused(format!("{path} is larger than {} MiB: split it", LARGEST / 1024 / 1024)));
                }
                Err(other) => return Err(other.into()),
            }
        }
        // Many large files take the parser seconds.
        let read = tokio::task::spawn_blocking(move || {
            let sources: Vec<Source<'_>> = texts.iter().map(|(path, bytes)| Source { path, bytes }).collect();
            manifests::read(&sources)
        })
        .await
        .map_err(|e| EngineError::Machine(e.to_string()))?;
        let mut frozen = Frozen { notes: read.notes.clone(), ..Frozen::default() };
        if named && !read.refused.is_empty() {
            return Err(refused(lines(&read.refused)));
        }
        let facts = self.app_facts(f);
        let scripts = self.scripts(f).await?;
        let scripts: Vec<Script<'_>> = scripts.iter().map(|(path, text)| Script { path, text }).collect();
        let known = Facts { apps: &facts, environment: f.name.as_str(), scripts: &scripts };
        let mut tied = manifests::tie(&known, &read.objects);
        if !tied.unclear.is_empty() {
            return Err(refused(tied.unclear.join("\n")));
        }
        // What is left out would be taken for gone, and removed from the cluster.
        if !read.refused.is_empty() && !tied.apps.is_empty() {
            return Err(refused(lines(&read.refused)));
        }
        frozen.warnings.extend(read.refused.iter().map(ToString::to_string));
        let used = used_objects(&tied, &read.objects, named);
        let wrong = manifests::refuse(&used, &f.target.policy);
        if !wrong.is_empty() {
            return Err(refused(format!("the operator's policy does not allow these manifests:\n{}", lines(&wrong))));
        }
        frozen.warnings.append(&mut tied.warnings);
        frozen.notes.append(&mut tied.notes);
        let mut beside = if named { std::mem::take(&mut tied.beside) } else { Vec::new() };
        for (name, app) in f.config.apps.iter().filter(|(name, app)| runs(app, name, f.images)) {
            let mut own = match tied.apps.remove(name) {
                Some(own) => own,
                None if !sorted.unclear.is_empty() && !named => {
                    return Err(refused(format!("{name}: {}", sorted.unclear.join("\n"))));
                }
                None => {
                    let charts = sorted.charts.iter().filter(|_| !named && sorted.kustomize.is_none());
                    frozen.warnings.extend(charts.map(|chart| chart_unread(name, chart)));
                    frozen.notes.push(format!(
                        "{name}: no manifests name its image, so a Deployment{} is made up for it",
                        if app.kind == AppKind::Web { " and a Service" } else { "" }
                    ));
                    manifests::made_up(&Plain {
                        name: name.clone(),
                        kind: app.kind,
                        port: app.port,
                        health: app.health.clone(),
                        resources: app.resources.clone(),
                        drain: f.environment.drain_timeout,
                        native_sleep: true,
                    })
                }
            };
            own.shared.append(&mut beside);
            frozen.apps.insert(name.clone(), own);
        }
        Ok(frozen)
    }

    fn app_facts(&self, f: &Freeze<'_>) -> Vec<AppFacts> {
        let apps = f.config.apps.iter().filter(|(name, app)| runs(app, name, f.images));
        apps.map(|(name, app)| AppFacts {
            name: name.clone(),
            kind: app.kind,
            images: f.images.get(app.image_of.as_ref().unwrap_or(name).as_str()).cloned().into_iter().collect(),
            path: app.path.clone(),
            image_of: app.image_of.clone(),
            port: app.port,
            health: app.health.clone(),
        })
        .collect()
    }

    /// Files of CI: they tell which manifests are applied, and what is written into them.
    async fn scripts(&self, f: &Freeze<'_>) -> Result<Vec<(String, String)>, EngineError> {
        let is_script = |path: &str| {
            let name = path.rsplit('/').next().unwrap_or(path);
            name.starts_with("Jenkinsfile")
                || name == "Makefile"
                || name == ".gitlab-ci.yml"
                || (path.starts_with(".github/workflows/") && (path.ends_with(".yml") || path.ends_with(".yaml")))
                || (name.ends_with(".sh") && path.matches('/').count() <= 2)
        };
        let mut scripts = Vec::new();
        for entry in f.files.iter().filter(|e| is_script(&e.path)).take(50) {
            if let Ok(Some(bytes)) = self.mirrors.read_file(f.repo.repo.id, f.commit, &entry.path, LARGEST / 4).await {
                scripts.push((entry.path.clone(), String::from_utf8_lossy(&bytes).into_owned()));
            }
        }
        Ok(scripts)
    }

    /// What a tool of the operator's makes of a folder.
    async fn rendered(&self, f: &Freeze<'_>, folder: &str, tool: Tool) -> Result<Vec<u8>, EngineError> {
        let (program, key, what) = match tool {
            Tool::Kustomize => (&f.target.kubectl, "kubectl", "a kustomize folder"),
            Tool::Helm => (&f.target.helm, "helm", "a Helm chart"),
        };
        let shown = if folder.is_empty() { "the repository's root" } else { folder };
        let Some(program) = program else {
            return Err(refused(format!(
                "{shown} is {what}, and this server has no tool to render it: the operator names one with `{key} = \"/usr/local/bin/{key}\"` \
                 in [targets.…], or the manifests are written out as plain YAML"
            )));
        };
        let inside = |path: &str| folder.is_empty() || path.starts_with(&format!("{folder}/"));
        if let Some(link) = f.files.iter().find(|e| e.mode == LINK && inside(&e.path)) {
            // A tool that runs as the server would read through it whatever the server may.
            return Err(refused(format!(
                "{} is a symbolic link, and {what} may hold none: put the file itself there",
                link.path
            )));
        }
        let workspace = self.mirrors.checkout(f.repo.repo.id, f.commit, "manifests").await?;
        let place = workspace.path().join(folder);
        let machine = |e: std::io::Error| EngineError::Machine(e.to_string());
        let homes = self.settings.data.join(super::STEP_HOMES);
        std::fs::create_dir_all(&homes).map_err(machine)?;
        // To a file: a log cuts long lines.
        let made = tempfile::NamedTempFile::new_in(&homes).map_err(machine)?;
        let to = quoted(&made.path().display().to_string());
        let run = match tool {
            Tool::Kustomize => format!("{} kustomize . >{to}", quoted(&program.display().to_string())),
            Tool::Helm => format!(
                "{} template {} . --namespace {} --no-hooks --skip-tests >{to}",
                quoted(&program.display().to_string()),
                quoted(f.name.as_str()),
                quoted(&f.target.policy.namespace)
            ),
        };
        // In blocks of 512 or 1024 bytes: a folder that renders without end must not fill the disk.
        let run = format!("ulimit -f 65536 && {run}");
        let (ok, text) = run_quietly(self, &run, &place, RENDER_LIMIT, &CancellationToken::new()).await?;
        if ok {
            let size = made.as_file().metadata().map_err(machine)?.len();
            if size > LARGEST_RENDERED {
                return Err(refused(format!(
                    "{shown} renders to {size} bytes, and at most {} MiB are read: split it",
                    LARGEST_RENDERED / 1024 / 1024
                )));
            }
            return std::fs::read(made.path()).map_err(machine);
        }
        let tail: Vec<&str> = text.lines().rev().take(20).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        Err(refused(format!("{shown} can't be rendered:\n{}", tail.join("\n"))))
    }
}

#[derive(Clone, Copy)]
enum Tool {
    Kustomize,
    Helm,
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// An app that runs as an image.
fn runs(app: &App, name: &AppName, images: &BTreeMap<String, String>) -> bool {
    images.contains_key(app.image_of.as_ref().unwrap_or(name).as_str())
}

fn chart_unread(app: &AppName, chart: &str) -> String {
    let shown = if chart.is_empty() { "." } else { chart };
    format!(
        "{app}: the chart in {shown} is not used, because nobody named it: if it is the app's, write `manifests: {shown}`"
    )
}

fn has_yaml(paths: &[&str], folder: &str) -> bool {
    let inside = format!("{folder}/");
    paths.iter().any(|p| p.starts_with(&inside) && (p.ends_with(".yml") || p.ends_with(".yaml")))
}

fn lines(wrong: &[manifests::Refusal]) -> String {
    wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The objects that would be applied: where nobody named a folder, only those that an app took.
fn used_objects(tied: &manifests::Tied, all: &[manifests::Object], named: bool) -> Vec<manifests::Object> {
    let same = |a: &serde_json::Value, b: &serde_json::Value| {
        let id = |v: &serde_json::Value| {
            (v.get("kind").cloned(), v.get("apiVersion").cloned(), v.pointer("/metadata/name").cloned())
        };
        id(a) == id(b)
    };
    let taken: Vec<&serde_json::Value> = tied
        .apps
        .values()
        .flat_map(|m| {
            let own = m.workloads().chain(&m.service).chain(&m.configs).chain(&m.autoscaler);
            own.chain(&m.budgets).chain(&m.shared).collect::<Vec<_>>()
        })
        .chain(tied.beside.iter().filter(|_| named))
        .collect();
    all.iter().filter(|o| taken.iter().any(|t| same(t, &o.value))).cloned().collect()
}

//! What the planner must know about a commit, read from git and the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{Engine, EngineError};
use crate::{
    domain::{
        config::{self, RepoConfig},
        event::RepoInfo,
        ids::{Digest, RepoId, RepoRef, Sha},
        planned::Reused,
        run::{ConfigMistake, Context},
    },
    exec::git::{FileEntry, GitError, Mirrors},
    image::Images,
    infer,
    plan::{self, Earlier, Facts, Reuse, Subject},
    settings::ExecutorKind,
    store::Standing,
};

/// Where a repository says what to do.
pub const CONFIG_FILE: &str = config::FILE_NAME;
/// Larger files are a mistake, not a configuration.
const LARGEST_CONFIG: u64 = 256 * 1024;
/// Files of a commit that are looked at for inference.
const MOST_FILES: usize = 50_000;
/// Larger build files are not read.
const LARGEST_BUILD_FILE: u64 = 1024 * 1024;
/// So long a registry may take to tell whether a base image is another one; then it counts as the same.
const BASES: Duration = Duration::from_secs(5);

/// A commit's configuration, as far as it can be understood.
#[derive(Debug)]
pub struct Understood {
    /// The configuration, or its mistakes.
    pub config: Result<RepoConfig, Vec<ConfigMistake>>,
    /// What was inferred and from where; warnings.
    pub notes: Vec<String>,
    /// Build files that can't be read: nothing may run as if their apps were not there.
    pub unreadable: Vec<ConfigMistake>,
}

/// The files of a commit, as inference sees them. Contents are read from git when they are asked for, which blocks.
struct Tree {
    mirrors: Mirrors,
    repo: RepoId,
    sha: Sha,
    paths: Vec<String>,
    config: Option<Vec<u8>>,
    links: BTreeSet<String>,
    large: BTreeSet<String>,
    runtime: tokio::runtime::Handle,
    /// What kept a file from being read that is there: nothing must be concluded from its absence.
    trouble: Mutex<Option<GitError>>,
}

/// The mode of a symbolic link in git.
const LINK: u32 = 0o120_000;

impl infer::Files for Tree {
    fn list(&self) -> &[String] {
        &self.paths
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        if path == CONFIG_FILE {
            return self.config.clone();
        }
        let read = self.mirrors.read_file(self.repo, &self.sha, path, LARGEST_BUILD_FILE);
        match self.runtime.block_on(read) {
            Ok(text) => text,
            Err(GitError::TooLarge { .. }) => None,
            Err(e) => {
                self.trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
                None
            }
        }
    }

    fn is_link(&self, path: &str) -> bool {
        self.links.contains(path)
    }

    fn is_too_large(&self, path: &str) -> bool {
        self.large.contains(path)
    }
}

impl Engine {
    /// Reads and completes the configuration of a commit.
    ///
    /// # Errors
    /// When git can't be read.
    pub async fn understand(&self, repo: &RepoInfo, sha: &Sha, files: &[FileEntry]) -> Result<Understood, EngineError> {
        let id = repo.repo.id;
        let text = match self.mirrors.read_file(id, sha, CONFIG_FILE, LARGEST_CONFIG).await {
            Ok(text) => text,
            Err(GitError::TooLarge { .. }) => {
                return Ok(Understood {
                    config: Err(vec![mistake(
                        format!("the file is larger than {} KiB", LARGEST_CONFIG / 1024),
                        "a configuration of a few hundred lines".into(),
                    )]),
                    notes: Vec::new(),
                    unreadable: Vec::new(),
                });
            }
            Err(e) => return Err(e.into()),
        };
        let tree = Tree {
            mirrors: self.mirrors.clone(),
            repo: id,
            sha: sha.clone(),
            paths: files.iter().map(|f| f.path.clone()).collect(),
            config: text.clone(),
            links: files.iter().filter(|f| f.mode == LINK).map(|f| f.path.clone()).collect(),
            large: files.iter().filter(|f| f.size > LARGEST_BUILD_FILE).map(|f| f.path.clone()).collect(),
            runtime: tokio::runtime::Handle::current(),
            trouble: Mutex::default(),
        };
        let branch = repo.default_branch.clone();
        let (understood, tree) = tokio::task::spawn_blocking(move || (infer::understand(&tree, &branch), tree))
            .await
            .map_err(|e| EngineError::Machine(e.to_string()))?;
        if let Some(trouble) = tree.trouble.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(trouble.into());
        }
        let mut notes: Vec<String> =
            understood.config_warnings.iter().map(|w| format!("{CONFIG_FILE}:{}: {}", w.line, w.message)).collect();
        let mut unreadable = Vec::new();
        let config = match understood.result {
            Ok(inferred) => {
                unreadable.extend(inferred.unreadable.into_iter().map(|u| ConfigMistake {
                    source: u.source,
                    file: Some(u.file),
                    ..shown(&u.mistake, "")
                }));
                notes.extend(inferred.notes.iter().map(note));
                notes.extend(inferred.warnings);
                Ok(inferred.config)
            }
            Err(mistakes) => {
                let text = String::from_utf8_lossy(text.as_deref().unwrap_or_default());
                Err(mistakes.iter().map(|m| shown(m, &text)).collect())
            }
        };
        Ok(Understood { config, notes, unreadable })
    }

    /// The configuration of the default branch, if it can be understood.
    ///
    /// # Errors
    /// When git can't be read.
    pub async fn policy(&self, repo: &RepoInfo) -> Result<Option<RepoConfig>, EngineError> {
        let heads = self.mirrors.heads(repo.repo.id).await;
        let Some((_, sha)) = heads.into_iter().find(|(b, _)| *b == repo.default_branch) else { return Ok(None) };
        let files = self.mirrors.list_files(repo.repo.id, &sha, MOST_FILES).await?;
        Ok(self.understand(repo, &sha, &files).await?.config.ok())
    }

    /// Decides what to do about a subject whose commits are in the mirror.
    ///
    /// # Errors
    /// When git or the store can't be read.
    pub async fn decide(
        &self,
        repo: &RepoInfo,
        mut subject: Subject,
        conflicts: &[String],
        reuse: Reuse,
    ) -> Result<plan::Decision, EngineError> {
        let id = repo.repo.id;
        let commit = self.mirrors.commit(id, &subject.head).await?;
        subject.detail.author = commit.author_name;
        subject.detail.message = commit.message.chars().take(2000).collect();
        let files = self.mirrors.list_files(id, &subject.test, MOST_FILES).await?;
        let mut understood = self.understand(repo, &subject.test, &files).await?;
        subject.detail.notes.append(&mut understood.notes);
        if understood.config.is_ok() {
            subject.detail.changes = self.changes(repo, &subject).await?;
            if !understood.unreadable.is_empty() {
                understood.config = Err(understood.unreadable);
            }
        }
        let policy = self.policy(repo).await?;
        if policy.as_ref().is_some_and(|p| !p.environments.is_empty()) {
            subject.detail.notes.retain(|n| n != infer::NOTHING_RELEASED);
        }
        let (trees, root) = self.trees(id, &subject.test, &files, understood.config.as_ref().ok()).await?;
        let refused = self.refusal(&repo.repo.full_name());
        let earlier = self.earlier(repo, &subject).await?;
        let (proven, built) = (BTreeMap::new(), BTreeMap::new());
        let images = match &understood.config {
            Ok(config) => self.images(&repo.repo.full_name(), config, policy.as_ref(), &subject.branch),
            Err(_) => BTreeMap::new(),
        };
        let facts = Facts {
            repo,
            subject,
            config: understood.config.as_ref().map_err(Vec::as_slice),
            policy: policy.as_ref(),
            trees: &trees,
            root: &root,
            tools: &self.tools,
            conflicts,
            refused: refused.as_deref(),
            earlier: &earlier,
            proven: &proven,
            built: &built,
            images: &images,
            reuse,
        };
        let (steps, builds) = plan::keys(&facts);
        let proven = self.proven(id, &steps).await?;
        let built = self.built(&repo.repo, &builds).await?;
        let facts = Facts { proven: &proven, built: &built, ..facts };
        Ok(plan::plan(&facts, &mut uuid::Uuid::now_v7))
    }

    /// What a pull request's file would change about releases, which go by the default branch's until it is merged.
    async fn changes(&self, repo: &RepoInfo, subject: &Subject) -> Result<Vec<String>, EngineError> {
        let (Context::PullRequest, Some(base)) = (subject.context, &subject.base) else { return Ok(Vec::new()) };
        let mut texts = Vec::new();
        for sha in [base, &subject.test] {
            texts.push(match self.mirrors.read_file(repo.repo.id, sha, CONFIG_FILE, LARGEST_CONFIG).await {
                Ok(text) => text.unwrap_or_default(),
                // Told as a mistake already.
                Err(GitError::TooLarge { .. }) => return Ok(Vec::new()),
                Err(e) => return Err(e.into()),
            });
        }
        let mut changes = config::changes::between(&texts[0], &texts[1]);
        if !changes.is_empty() && subject.branch != repo.default_branch {
            let (base, default) = (&subject.branch, &repo.default_branch);
            changes
                .push(format!("all of it only once it stands on {default} too: {base} does not say what is released"));
        }
        Ok(changes)
    }

    /// Apps that are released as an image from this branch, and its name without a tag: where an environment's target runs
    /// containers. An app that names no image gets one in the only registry that the operator granted.
    #[must_use]
    pub fn images(
        &self,
        full_name: &str,
        config: &RepoConfig,
        policy: Option<&RepoConfig>,
        branch: &str,
    ) -> BTreeMap<String, String> {
        let containers = plan::releases(policy, branch).any(|name| {
            let environment = policy.and_then(|p| p.environments.get(name));
            let target = environment.map(|e| self.settings.target_for(full_name, e.target.as_deref()));
            matches!(target, Some(Ok((_, target))) if target.runs_images())
        });
        if containers { self.images_of(full_name, config) } else { BTreeMap::new() }
    }

    /// The images of a configuration's apps, without a tag.
    #[must_use]
    pub fn images_of(&self, full_name: &str, config: &RepoConfig) -> BTreeMap<String, String> {
        config
            .apps
            .iter()
            .filter(|(_, app)| app.image_of.is_none())
            .filter_map(|(name, app)| {
                let image = app.image.clone().or_else(|| self.settings.image_for(full_name, name.as_str()))?;
                Some((name.to_string(), image))
            })
            .collect()
    }

    /// Git's tree of each app's folder, and a fingerprint of the files at the root.
    async fn trees(
        &self,
        repo: RepoId,
        sha: &Sha,
        files: &[FileEntry],
        config: Option<&RepoConfig>,
    ) -> Result<(BTreeMap<String, String>, String), EngineError> {
        let at_root = |f: &&FileEntry| !f.path.contains('/');
        // A build file at the root may draw in any folder (workspaces, aggregates): then every app sees the whole tree.
        let workspace = files.iter().filter(at_root).any(|f| {
            matches!(
                f.path.as_str(),
                "Cargo.toml"
                    | "pom.xml"
                    | "package.json"
                    | "build.gradle"
                    | "build.gradle.kts"
                    | "go.work"
                    | "pyproject.toml"
            )
        });
        let prose = |f: &&FileEntry| !f.path.ends_with(".md") && !f.path.starts_with("LICENSE");
        let root: Vec<u8> = files
            .iter()
            .filter(at_root)
            .filter(prose)
            .flat_map(|f| format!("{} {} {}\0", f.mode, f.oid, f.path).into_bytes())
            .collect();
        let mut trees = BTreeMap::new();
        let paths: BTreeSet<&str> = config.iter().flat_map(|c| c.apps.values()).map(|a| a.path.as_str()).collect();
        for path in paths {
            let seen = if workspace { "" } else { path };
            if let Some(tree) = self.mirrors.tree_id(repo, sha, seen).await? {
                trees.insert(path.to_owned(), tree);
            }
        }
        Ok((trees, Digest::of(&root).to_string()))
    }

    async fn proven(&self, repo: RepoId, keys: &[String]) -> Result<BTreeMap<String, Reused>, EngineError> {
        let mut proven = BTreeMap::new();
        for key in keys {
            if let Some(found) = self.store.tested(repo, key).await? {
                proven.insert(key.clone(), found);
            }
        }
        Ok(proven)
    }

    /// The releases that stand, by build key. An image on a base that is another by now does not.
    async fn built(&self, repo: &RepoRef, keys: &[String]) -> Result<BTreeMap<String, Digest>, EngineError> {
        let mut built = BTreeMap::new();
        for key in keys {
            let Some(standing) = self.store.release(repo.id, key).await? else { continue };
            // An image lies in its registry; a release of files must still be there.
            if standing.path.starts_with('/') && !std::path::Path::new(&standing.path).is_dir() {
                // Somebody cleaned up by hand: it is built again.
                self.store.forget_release(repo.id, key).await?;
            } else if let Some(base) = self.newer_base(repo, &standing).await {
                tracing::info!(
                    repo = repo.full_name(),
                    image = standing.path,
                    base,
                    "is built anew: its base is newer"
                );
            } else {
                built.insert(key.clone(), standing.digest);
            }
        }
        Ok(built)
    }

    async fn newer_base(&self, repo: &RepoRef, standing: &Standing) -> Option<String> {
        let docker = self.docker.as_ref().filter(|_| !standing.bases.is_empty())?;
        let images = Images::new(docker, super::images::registries(self, &repo.full_name()));
        tokio::time::timeout(BASES, images.newer_base(&standing.bases)).await.ok().flatten()
    }

    /// Why this server may not run a repository's steps, if it may not.
    #[must_use]
    pub fn refusal(&self, full_name: &str) -> Option<String> {
        let local = self.settings.executor == ExecutorKind::Local;
        (local && !self.settings.trusted_local(full_name)).then(|| {
            format!(
                "This server runs steps on its own host, so its operator must name the repository: add \"{full_name}\" to \
                 `trusted_local` in switchover.toml and restart the server, then press Re-run."
            )
        })
    }

    async fn earlier(&self, repo: &RepoInfo, subject: &Subject) -> Result<Vec<Earlier>, EngineError> {
        let id = repo.repo.id;
        let mut earlier = Vec::new();
        for run in self.store.open_runs(id, Some(&subject.lane)).await? {
            if run.context != subject.context {
                continue;
            }
            let newer = run.head != subject.head
                && subject.context == Context::Push
                && self.mirrors.is_ancestor(id, &subject.head, &run.head).await.unwrap_or(false);
            earlier.push(Earlier { id: run.id, running: run.state == "running", newer });
        }
        // An event that comes late must not replace a commit that was handled and is over by now.
        if subject.context == Context::Push && earlier.iter().all(|e| !e.newer) {
            let heads = self.store.heads(id).await?;
            let acted = heads.into_iter().find(|(b, _)| *b == subject.branch).map(|(_, s)| s);
            if let Some(acted) = acted
                && acted != subject.head
                && self.mirrors.is_ancestor(id, &subject.head, &acted).await.unwrap_or(false)
                && let Some(run) = self.store.runs_on(id, &acted).await?.into_iter().rfind(|r| r.lane == subject.lane)
            {
                // Pushed back on purpose (the branch stands on it now) is not late.
                let stands =
                    self.mirrors.heads(id).await.iter().any(|(b, s)| *b == subject.branch && *s == subject.head);
                if !stands {
                    earlier.push(Earlier { id: run.id, running: false, newer: true });
                }
            }
        }
        Ok(earlier)
    }
}

fn mistake(message: String, expected: String) -> ConfigMistake {
    ConfigMistake { file: None, line: 1, column: 1, message, expected, hint: None, source: None }
}

fn shown(m: &config::Mistake, text: &str) -> ConfigMistake {
    ConfigMistake {
        file: None,
        line: m.line,
        column: m.column,
        message: m.message.clone(),
        expected: m.expected.clone(),
        hint: m.hint.clone(),
        source: text.lines().nth(m.line.saturating_sub(1) as usize).map(|l| l.chars().take(200).collect()),
    }
}

fn note(note: &infer::Note) -> String {
    let app = note.app.as_ref().map(|a| format!("{a}: ")).unwrap_or_default();
    let file = if note.file.is_empty() { String::new() } else { format!(" ({})", note.file) };
    format!("{app}{}{file}", note.text)
}

//! Which files of a folder are manifests, and what must be rendered by a tool before it can be read.

use std::collections::BTreeSet;

use crate::domain::config::mistake::shown;

/// The files of a folder, by how they are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sorted {
    /// Read as they are, in the order in which they are applied.
    pub plain: Vec<String>,
    /// The folder itself, where `kubectl kustomize` renders it. Then nothing is plain.
    pub kustomize: Option<String>,
    /// Folders of Helm charts, which `helm template` renders.
    pub charts: Vec<String>,
    /// What must be said in the configuration first.
    pub unclear: Vec<String>,
}

/// Files that make a folder one of kustomize's.
const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
/// Folders below the given one that hold what nobody applies.
const NOT_APPLIED: [&str; 11] = [
    "node_modules",
    "vendor",
    "third_party",
    "target",
    "testdata",
    "fixtures",
    "__tests__",
    "examples",
    "example",
    "samples",
    "archetype-resources",
];

/// Sorts the files below `folder` (empty: the whole repository), given all paths of the repository.
#[must_use]
pub fn sort(paths: &[&str], folder: &str) -> Sorted {
    let below: BTreeSet<&str> = paths.iter().copied().filter(|path| inside(path, folder)).collect();
    let folders_with = |names: &[&str]| -> Vec<&str> {
        let named = below.iter().filter(|path| names.contains(&split(path).1) && !left_out(path, folder));
        named.map(|path| split(path).0).collect::<BTreeSet<_>>().into_iter().collect()
    };
    let mut kustomize = folders_with(&KUSTOMIZATIONS);
    let charts: Vec<&str> = outermost(&folders_with(&["Chart.yaml", "Chart.yml"]));
    kustomize.retain(|k| !charts.iter().any(|chart| is_or_in(k, chart)));
    let mut sorted = Sorted { charts: charts.iter().map(|c| (*c).to_owned()).collect(), ..Sorted::default() };
    if kustomize.contains(&folder) {
        sorted.kustomize = Some(folder.to_owned());
        return sorted;
    }
    if !kustomize.is_empty() {
        // Of a base and its overlays, an overlay is what is applied.
        let overlay =
            kustomize.iter().find(|k| k.contains("overlay")).or(kustomize.last()).copied().unwrap_or_default();
        sorted.unclear.push(format!(
            "{} {} for kustomize: say which one is applied, in the environment: `manifests: {overlay}`",
            list(&kustomize),
            if kustomize.len() == 1 { "is a folder" } else { "are folders" },
        ));
    }
    let rendered = |path: &str| kustomize.iter().chain(&charts).any(|k| k.is_empty() || inside(path, k));
    let plain = below.iter().filter(|path| is_data(path) && !left_out(path, folder) && !rendered(path));
    sorted.plain = plain.map(|path| (*path).to_owned()).collect();
    sorted
}

fn list(folders: &[&str]) -> String {
    let mut some: Vec<String> = folders.iter().take(4).map(|f| shown(if f.is_empty() { "." } else { f })).collect();
    if folders.len() > some.len() {
        some.push(format!("{} more", folders.len() - some.len()));
    }
    match some.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => some.concat(),
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn inside(path: &str, folder: &str) -> bool {
    folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

fn is_or_in(path: &str, folder: &str) -> bool {
    path == folder || inside(path, folder)
}

/// Those that lie in no other of them.
fn outermost<'a>(folders: &[&'a str]) -> Vec<&'a str> {
    folders.iter().filter(|f| !folders.iter().any(|other| other != *f && inside(f, other))).copied().collect()
}

/// The endings that `kubectl apply -f FOLDER` reads.
fn is_data(path: &str) -> bool {
    let name = split(path).1.to_lowercase();
    let compose = name.starts_with("docker-compose") || name.starts_with("compose.");
    [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end)) && !compose
}

/// What lies in a folder of tools or examples, seen from the given folder.
fn left_out(path: &str, folder: &str) -> bool {
    let rest = path.get(folder.len()..).unwrap_or_default();
    split(rest).0.split('/').any(|part| part.starts_with('.') || NOT_APPLIED.contains(&part))
}

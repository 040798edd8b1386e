//! The git commands behind the stand-in: bare repositories, refs, merges, history.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
};

use jiff::Timestamp;
use tokio::{io::AsyncWriteExt, process::Command};

use super::StandInError;

/// The hash that stands for "no commit" in pushes.
pub(super) const ZERO: &str = "0000000000000000000000000000000000000000";

/// A git command with no configuration but what is given here: no hooks, no background jobs, nobody's home.
pub(super) fn command(dir: Option<&Path>) -> Command {
    let mut git = Command::new("git");
    let inherited = [
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_NAMESPACE",
        "GIT_CONFIG_PARAMETERS",
        "GIT_CONFIG_COUNT",
        "GIT_PREFIX",
    ];
    for name in inherited {
        git.env_remove(name);
    }
    git.env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C")
        .args(["-c", "core.hooksPath=/dev/null", "-c", "safe.directory=*", "-c", "gc.auto=0"])
        .args(["-c", "receive.autogc=false", "-c", "core.quotePath=false"])
        // A path from outside is a path: `:(glob)` and the like mean nothing.
        .arg("--literal-pathspecs")
        .kill_on_drop(true);
    if let Some(dir) = dir {
        git.arg("--git-dir").arg(dir);
    }
    git
}

/// Runs git in a bare repository; the answer is its output and whether it ended well.
async fn output(dir: Option<&Path>, args: &[&str], input: &str) -> Result<(bool, String, String), StandInError> {
    let mut git = command(dir);
    git.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = git.spawn().map_err(StandInError::io("cannot start git"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that reads nothing may be gone already; its exit code tells.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let out = child.wait_with_output().await.map_err(StandInError::io("cannot wait for git"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((out.status.success(), text(&out.stdout), text(&out.stderr)))
}

/// Runs git and takes a failure as an error.
pub(super) async fn run(dir: &Path, args: &[&str]) -> Result<String, StandInError> {
    let (ok, out, err) = output(Some(dir), args, "").await?;
    if ok { Ok(out) } else { Err(StandInError::Git { command: args.join(" "), stderr: err.trim().to_owned() }) }
}

/// Makes an empty bare repository, or a bare copy of another one. Background jobs stay off, pull request refs are
/// read-only ("Checking out pull requests locally": `refs/pull/` is read-only), any commit may be fetched by its hash.
pub(super) async fn create(dir: &Path, default_branch: &str, from: Option<&PathBuf>) -> Result<(), StandInError> {
    let path = dir.to_string_lossy().into_owned();
    let head = format!("--initial-branch={default_branch}");
    let (ok, _, err) = output(None, &["init", "--bare", "--quiet", "--template=", &head, "--", &path], "").await?;
    if !ok {
        return Err(StandInError::Git { command: "init".to_owned(), stderr: err });
    }
    for (key, value) in [
        ("http.receivepack", "true"),
        ("receive.hideRefs", "refs/pull"),
        ("receive.denyDeleteCurrent", "ignore"),
        ("uploadpack.allowAnySHA1InWant", "true"),
        ("uploadpack.allowFilter", "true"),
    ] {
        run(dir, &["config", key, value]).await?;
    }
    if let Some(from) = from {
        let from = from.to_string_lossy().into_owned();
        run(dir, &["fetch", "--quiet", "--", &from, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]).await?;
    }
    Ok(())
}

/// All refs and what they point at (tags of their own: the tag object).
pub(super) async fn refs(dir: &Path) -> Result<BTreeMap<String, String>, StandInError> {
    let out = run(dir, &["for-each-ref", "--format=%(objectname) %(refname)"]).await?;
    Ok(out.lines().filter_map(|l| l.split_once(' ')).map(|(sha, name)| (name.to_owned(), sha.to_owned())).collect())
}

/// The commit that a branch, tag, full ref or (part of a) hash stands for.
pub(super) async fn resolve(dir: &Path, rev: &str) -> Result<Option<String>, StandInError> {
    if rev.is_empty() || rev.starts_with('-') || rev.contains(['\0', '\n', ':', '^', '~', '@']) {
        return Ok(None);
    }
    let hash = rev.len() >= 4 && rev.chars().all(|c| c.is_ascii_hexdigit());
    let mut tries = vec![format!("refs/heads/{rev}"), format!("refs/tags/{rev}")];
    if rev.starts_with("refs/") || hash {
        tries.insert(0, rev.to_owned());
    } else if rev.starts_with("heads/") || rev.starts_with("tags/") {
        tries.insert(0, format!("refs/{rev}"));
    }
    for rev in tries {
        let commit = format!("{rev}^{{commit}}");
        let (ok, out, _) =
            output(Some(dir), &["rev-parse", "--verify", "--quiet", "--end-of-options", &commit], "").await?;
        if ok {
            return Ok(Some(out.trim().to_owned()));
        }
    }
    Ok(None)
}

/// Whether one commit is in another's history.
pub(super) async fn is_ancestor(dir: &Path, old: &str, new: &str) -> Result<bool, StandInError> {
    Ok(output(Some(dir), &["merge-base", "--is-ancestor", old, new], "").await?.0)
}

/// The best common ancestor.
pub(super) async fn merge_base(dir: &Path, one: &str, other: &str) -> Result<Option<String>, StandInError> {
    let (ok, out, _) = output(Some(dir), &["merge-base", one, other], "").await?;
    Ok(ok.then(|| out.trim().to_owned()))
}

/// Merges without a work tree: the tree's hash, or none when there are conflicts.
pub(super) async fn merge_tree(dir: &Path, base: &str, head: &str) -> Result<Option<String>, StandInError> {
    let (ok, out, _) = output(Some(dir), &["merge-tree", "--write-tree", "--no-messages", base, head], "").await?;
    Ok(ok.then(|| out.lines().next().unwrap_or_default().to_owned()))
}

/// Makes a commit.
pub(super) async fn commit_tree(
    dir: &Path,
    tree: &str,
    parents: &[&str],
    message: &str,
    author: &str,
) -> Result<String, StandInError> {
    let mut git = command(Some(dir));
    git.args(["commit-tree", tree, "-m", message]);
    for parent in parents {
        git.args(["-p", parent]);
    }
    let email = format!("{author}@users.noreply.github.com");
    for (who, mail) in [("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL"), ("GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")] {
        git.env(who, author).env(mail, &email);
    }
    let out = git.output().await.map_err(StandInError::io("cannot start git"))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned());
    }
    let stderr = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    Err(StandInError::Git { command: "commit-tree".to_owned(), stderr })
}

/// Moves a ref, only from where it is thought to be. An empty `new` deletes it.
pub(super) async fn move_ref(dir: &Path, name: &str, new: &str, old: &str) -> Result<(), StandInError> {
    let args: Vec<&str> = if new.is_empty() || new == ZERO {
        vec!["update-ref", "-d", name, old]
    } else {
        vec!["update-ref", name, new, old]
    };
    run(dir, &args).await.map(drop)
}

/// A commit as git tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// Its hash.
    pub sha: String,
    /// Its tree.
    pub tree: String,
    /// Its parents.
    pub parents: Vec<String>,
    /// Author's name, address and time.
    pub author: (String, String, Timestamp),
    /// Committer's name, address and time.
    pub committer: (String, String, Timestamp),
    /// The whole message.
    pub message: String,
}

/// Commits of a range (`a..b`, or one revision), newest first.
pub(super) async fn log(dir: &Path, range: &[&str], limit: usize) -> Result<Vec<CommitInfo>, StandInError> {
    let limit = format!("--max-count={limit}");
    let format = "--format=%H%x00%T%x00%P%x00%an%x00%ae%x00%at%x00%cn%x00%ce%x00%ct%x00%B%x00%x01";
    let mut args = vec!["log", "--topo-order", &limit, format];
    args.extend(range);
    args.push("--");
    let out = run(dir, &args).await?;
    Ok(out.split('\u{1}').filter_map(|entry| parse_commit(entry.trim_start_matches('\n'))).collect())
}

fn parse_commit(entry: &str) -> Option<CommitInfo> {
    let fields: Vec<&str> = entry.split('\0').collect();
    let [sha, tree, parents, an, ae, at, cn, ce, ct, message, ..] = fields.as_slice() else { return None };
    let time = |text: &str| text.parse().ok().and_then(|s| Timestamp::from_second(s).ok()).unwrap_or_default();
    Some(CommitInfo {
        sha: (*sha).to_owned(),
        tree: (*tree).to_owned(),
        parents: parents.split_whitespace().map(str::to_owned).collect(),
        author: ((*an).to_owned(), (*ae).to_owned(), time(at)),
        committer: ((*cn).to_owned(), (*ce).to_owned(), time(ct)),
        message: message.trim_end().to_owned(),
    })
}

/// One commit.
pub(super) async fn commit(dir: &Path, sha: &str) -> Result<CommitInfo, StandInError> {
    let found = log(dir, &[sha], 1).await?.into_iter().next();
    found.ok_or_else(|| StandInError::NotFound(format!("commit {sha}")))
}

/// A changed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// `A`, `M`, `D` or `T`.
    pub kind: char,
    /// Path.
    pub path: String,
    /// Hash of the new content; zeros when deleted.
    pub blob: String,
    /// Lines added.
    pub additions: i64,
    /// Lines removed.
    pub deletions: i64,
}

/// Files that differ between two commits; against nothing for a first commit. Renames are shown as both halves.
pub(super) async fn diff(dir: &Path, old: Option<&str>, new: &str) -> Result<Vec<FileChange>, StandInError> {
    const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
    let old = old.unwrap_or(EMPTY_TREE);
    let raw =
        run(dir, &["diff-tree", "-r", "-z", "--no-renames", "--no-abbrev", "--raw", "--numstat", old, new]).await?;
    let mut files: Vec<FileChange> = Vec::new();
    let mut parts = raw.split('\0');
    while let Some(part) = parts.next() {
        if let Some(meta) = part.strip_prefix(':') {
            let words: Vec<&str> = meta.split(' ').collect();
            let (Some(blob), Some(kind), Some(path)) = (words.get(3), words.get(4), parts.next()) else { break };
            let kind = kind.chars().next().unwrap_or('M');
            let blob = (*blob).to_owned();
            files.push(FileChange { kind, path: path.to_owned(), blob, additions: 0, deletions: 0 });
        } else if let [added, deleted, path] = part.splitn(3, '\t').collect::<Vec<_>>()[..]
            && let Some(file) = files.iter_mut().find(|f| f.path == path)
        {
            // Binary files have "-" for both.
            file.additions = added.parse().unwrap_or(0);
            file.deletions = deleted.parse().unwrap_or(0);
        }
    }
    Ok(files)
}

/// A file's or folder's entry in a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TreeEntry {
    pub kind: String,
    pub sha: String,
    pub size: i64,
    pub path: String,
}

/// Entries of a folder (empty path: the root), or the one file of that path; nothing for a path that no commit can hold.
pub(super) async fn entries(
    dir: &Path,
    commit: &str,
    path: &str,
    inside: bool,
) -> Result<Vec<TreeEntry>, StandInError> {
    // Git takes these for a mistake of the caller, and the system has no room for longer arguments; they come from
    // annotations and addresses.
    const MAX_PATH: usize = 4_096;
    let odd = path.contains('\0') || path.split('/').any(|part| matches!(part, "" | "." | ".."));
    if !path.is_empty() && (odd || path.len() > MAX_PATH) {
        return Ok(Vec::new());
    }
    let spec = if inside && !path.is_empty() { format!("{path}/") } else { path.to_owned() };
    let mut args = vec!["ls-tree", "-l", "-z", "--full-tree", commit, "--"];
    if !spec.is_empty() {
        args.push(&spec);
    }
    let out = run(dir, &args).await?;
    let entry = |line: &str| {
        let (meta, path) = line.split_once('\t')?;
        let words: Vec<&str> = meta.split_whitespace().collect();
        let [_, kind, sha, size] = words[..] else { return None };
        let (kind, sha, path) = (kind.to_owned(), sha.to_owned(), path.to_owned());
        Some(TreeEntry { kind, sha, size: size.parse().unwrap_or(0), path })
    };
    Ok(out.split('\0').filter_map(entry).collect())
}

/// The bytes of a blob.
pub(super) async fn blob(dir: &Path, sha: &str) -> Result<Vec<u8>, StandInError> {
    let out = command(Some(dir)).args(["cat-file", "blob", sha]).stdin(Stdio::null()).output().await;
    Ok(out.map_err(StandInError::io("cannot start git"))?.stdout)
}

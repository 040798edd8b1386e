//! Reading a mirror by object names, and merging.

use std::ffi::OsString;

use jiff::Timestamp;

use super::{GitError, Mirrors, call::Call};
use crate::domain::ids::{RepoId, Sha};

/// A commit's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// Its name.
    pub sha: Sha,
    /// Its parents, first one first.
    pub parents: Vec<Sha>,
    /// As the author wrote it; proves nothing.
    pub author_name: String,
    /// As the author wrote it; proves nothing.
    pub author_email: String,
    /// Subject and body.
    pub message: String,
    /// When it was committed, as its author's clock said.
    pub committed_at: Timestamp,
}

/// One file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// From the repository's root. Bytes that are no UTF-8 are replaced.
    pub path: String,
    /// `100644`, `100755`, `120000` (symbolic link) or `160000` (submodule).
    pub mode: u32,
    /// Name of its content.
    pub oid: String,
    /// Bytes; 0 for a submodule.
    pub size: u64,
}

/// What became of a merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergeOutcome {
    /// The merge commit: base first, head second. The same two give the same one for ever.
    Clean(Sha),
    /// These files conflict.
    Conflict {
        /// Paths from the root; empty when the two have no history in common.
        paths: Vec<String>,
    },
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn sha_of(line: &str) -> Result<Sha, GitError> {
    Sha::new(line).map_err(|e| GitError::Other(format!("git printed no object name: {e}")))
}

impl Mirrors {
    /// Whether the mirror has this commit with its tree.
    pub async fn has(&self, repo: RepoId, sha: &Sha) -> bool {
        let dir = self.dir(repo);
        if dir.join(super::DAMAGED).exists() {
            return false;
        }
        let call = Call::new(Some(&dir)).args(["cat-file", "-e"]).arg(format!("{sha}^{{tree}}"));
        self.ask(&dir, call).await.is_ok_and(|done| done.status.success())
    }

    /// Asks about commits; a failure is explained by the one that is missing.
    async fn about(&self, repo: RepoId, shas: &[&Sha], args: Vec<OsString>) -> Result<super::call::Done, GitError> {
        let dir = self.dir(repo);
        let call = Call::new(Some(&dir)).args(args).env("GIT_LITERAL_PATHSPECS", "1");
        let done = self.ask(&dir, call).await?;
        if done.status.success() || done.status.code() == Some(1) && done.stderr.is_empty() {
            return Ok(done);
        }
        for sha in shas {
            if !self.has(repo, sha).await {
                return Err(GitError::MissingCommit((*sha).clone()));
            }
        }
        Err(done.error())
    }

    /// The commit that a full ref of the mirror stands on, as of the last fetch.
    pub async fn resolve(&self, repo: RepoId, git_ref: &str) -> Option<Sha> {
        let dir = self.dir(repo);
        let name = format!("{git_ref}^{{commit}}");
        let call = Call::new(Some(&dir)).args(["rev-parse", "--verify", "--quiet", "--end-of-options"]).arg(name);
        let done = self.ask(&dir, call).await.ok().filter(|done| done.status.success())?;
        Sha::new(done.line()).ok()
    }

    /// The branches as of the last fetch.
    pub async fn heads(&self, repo: RepoId) -> Vec<(String, Sha)> {
        let dir = self.dir(repo);
        let call = Call::new(Some(&dir)).args(["for-each-ref", "--format=%(objectname) %(refname)", "refs/heads/"]);
        let Ok(done) = self.ask(&dir, call).await else { return Vec::new() };
        done.records(b'\n')
            .filter_map(|line| {
                let line = text(line);
                let (sha, name) = line.split_once(' ')?;
                Some((name.strip_prefix("refs/heads/")?.to_owned(), Sha::new(sha).ok()?))
            })
            .collect()
    }

    /// Lists what stands at one path of a commit: mode, kind, object name, size.
    async fn entry(&self, repo: RepoId, sha: &Sha, path: &str) -> Result<Option<(u32, String, FileEntry)>, GitError> {
        let Some(clean) = crate::exec::files::inside(path) else {
            return Err(GitError::BadArgument(format!("{path:?} is not a path inside the repository")));
        };
        let args = ["ls-tree", "-z", "-l", "--full-tree", sha.as_str(), "--"];
        let mut args: Vec<OsString> = args.iter().map(Into::into).collect();
        args.push(clean.clone().into_os_string());
        let done = self.about(repo, &[sha], args).await?;
        Ok(done.records(0).find_map(parse_entry).filter(|(_, _, e)| std::path::Path::new(&e.path) == clean))
    }

    /// A file's content; none when there is no such file (a folder, link or submodule is no file).
    ///
    /// # Errors
    /// [`GitError::TooLarge`] beyond `max` bytes, [`GitError::MissingCommit`].
    pub async fn read_file(&self, repo: RepoId, sha: &Sha, path: &str, max: u64) -> Result<Option<Vec<u8>>, GitError> {
        let Some((mode, _, entry)) = self.entry(repo, sha, path).await? else { return Ok(None) };
        if !matches!(mode, 0o100_644 | 0o100_755 | 0o100_664) {
            return Ok(None);
        }
        if entry.size > max {
            return Err(GitError::TooLarge { path: entry.path, size: entry.size, max });
        }
        let dir = self.dir(repo);
        let call = Call::new(Some(&dir))
            .args(["cat-file", "blob"])
            .arg(&entry.oid)
            .cut_at(usize::try_from(entry.size).unwrap_or(usize::MAX - 1));
        let done = self.ask(&dir, call).await?;
        if done.status.success() { Ok(Some(done.stdout)) } else { Err(done.error()) }
    }

    /// The object name of what stands at `path` (empty: the root): equal names, equal content.
    ///
    /// # Errors
    /// [`GitError::MissingCommit`].
    pub async fn tree_id(&self, repo: RepoId, sha: &Sha, path: &str) -> Result<Option<String>, GitError> {
        if crate::exec::files::inside(path).is_some_and(|p| p.as_os_str().is_empty()) {
            let done = self.about(repo, &[sha], vec!["rev-parse".into(), format!("{sha}^{{tree}}").into()]).await?;
            return Ok(Some(done.line()));
        }
        Ok(self.entry(repo, sha, path).await?.map(|(_, _, entry)| entry.oid))
    }

    /// The files of a commit in git's order, at most `limit` of them.
    ///
    /// # Errors
    /// [`GitError::MissingCommit`].
    pub async fn list_files(&self, repo: RepoId, sha: &Sha, limit: usize) -> Result<Vec<FileEntry>, GitError> {
        let dir = self.dir(repo);
        let call = Call::new(Some(&dir))
            .args(["ls-tree", "-r", "-z", "-l", "--full-tree", sha.as_str()])
            .cut_at(limit.saturating_mul(4096).min(256 * 1024 * 1024));
        let done = self.ask(&dir, call).await?;
        if !done.status.success() && !done.cut {
            return Err(if self.has(repo, sha).await { done.error() } else { GitError::MissingCommit(sha.clone()) });
        }
        // A record that was cut in its middle has no tab or a wrong name: the last one is dropped.
        let whole = done.stdout.iter().rposition(|b| *b == 0).map_or(&[][..], |end| &done.stdout[..end]);
        Ok(whole.split(|b| *b == 0).filter_map(parse_entry).map(|(_, _, e)| e).take(limit).collect())
    }

    /// Merges `head` into `base` in the mirror, with no worktree. Author and dates are fixed, so that the same two
    /// commits always give the same merge commit; a ref keeps it.
    ///
    /// # Errors
    /// [`GitError::MissingCommit`].
    pub async fn merge(&self, repo: RepoId, base: &Sha, head: &Sha) -> Result<MergeOutcome, GitError> {
        let held = self.hold(repo).await?;
        let args = ["merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", base.as_str(), head.as_str()];
        let dir = self.dir(repo);
        let done = self.ask(&dir, Call::new(Some(&dir)).args(args)).await?;
        let mut lines = done.records(0).map(text);
        let tree = match done.status.code() {
            Some(0) => lines.next().unwrap_or_default(),
            Some(1) if !done.stdout.is_empty() => {
                let mut paths: Vec<String> = lines.skip(1).collect();
                paths.dedup();
                return Ok(MergeOutcome::Conflict { paths });
            }
            _ if done.stderr.contains("unrelated histories") => {
                return Ok(MergeOutcome::Conflict { paths: Vec::new() });
            }
            _ => {
                for sha in [base, head] {
                    if !self.has(repo, sha).await {
                        return Err(GitError::MissingCommit(sha.clone()));
                    }
                }
                return Err(done.error());
            }
        };
        let (ours, theirs) = (self.commit(repo, base).await?, self.commit(repo, head).await?);
        let when = format!("{} +0000", ours.committed_at.max(theirs.committed_at).as_second());
        let mut call = Call::new(Some(&dir)).arg("commit-tree");
        for who in ["AUTHOR", "COMMITTER"] {
            call = call
                .env(&format!("GIT_{who}_NAME"), "Switchover")
                .env(&format!("GIT_{who}_EMAIL"), "switchover@localhost")
                .env(&format!("GIT_{who}_DATE"), when.clone());
        }
        let call = call
            .args(["-p", base.as_str(), "-p", head.as_str(), "-m"])
            .arg(format!("Merge {head} into {base}"))
            .arg(tree);
        let merged = sha_of(&call.ok(&self.0.root).await?.line())?;
        Call::new(Some(&dir))
            .args(["update-ref", "--no-deref"])
            .arg(format!("refs/switchover/merge/{merged}"))
            .arg(merged.as_str())
            .holding(held.share())
            .ok(&self.0.root)
            .await?;
        Ok(MergeOutcome::Clean(merged))
    }

    /// The nearest common ancestor, if there is one.
    ///
    /// # Errors
    /// [`GitError::MissingCommit`].
    pub async fn merge_base(&self, repo: RepoId, a: &Sha, b: &Sha) -> Result<Option<Sha>, GitError> {
        let args = vec!["merge-base".into(), a.as_str().into(), b.as_str().into()];
        let done = self.about(repo, &[a, b], args).await?;
        if done.status.success() { sha_of(&done.line()).map(Some) } else { Ok(None) }
    }

    /// Whether `ancestor` is `descendant` or one of its ancestors.
    ///
    /// # Errors
    /// [`GitError::MissingCommit`].
    pub async fn is_ancestor(&self, repo: RepoId, ancestor: &Sha, descendant: &Sha) -> Result<bool, GitError> {
        let args =
            vec!["merge-base".into(), "--is-ancestor".into(), ancestor.as_str().into(), descendant.as_str().into()];
        Ok(self.about(repo, &[ancestor, descendant], args).await?.status.success())
    }

    /// One commit.
    ///
    /// # Errors
    /// [`GitError::MissingCommit`].
    pub async fn commit(&self, repo: RepoId, sha: &Sha) -> Result<CommitInfo, GitError> {
        let commits = self.log_between(repo, None, sha, 1).await?;
        commits.into_iter().next().ok_or_else(|| GitError::MissingCommit(sha.clone()))
    }

    /// Commits that `to` has and `from` has not, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`GitError::MissingCommit`].
    pub async fn log_between(
        &self,
        repo: RepoId,
        from: Option<&Sha>,
        to: &Sha,
        limit: usize,
    ) -> Result<Vec<CommitInfo>, GitError> {
        // Every field ends in a NUL, which none of them can hold.
        let mut args: Vec<OsString> =
            ["log", "--no-show-signature", "--format=tformat:%H%x00%P%x00%ct%x00%an%x00%ae%x00%B%x00"]
                .iter()
                .map(Into::into)
                .collect();
        args.push(format!("--max-count={limit}").into());
        args.push(to.as_str().into());
        args.extend(from.map(|f| format!("^{f}").into()));
        args.push("--".into());
        let known: Vec<&Sha> = from.into_iter().chain([to]).collect();
        let done = self.about(repo, &known, args).await?;
        let fields: Vec<&[u8]> = done.stdout.split(|b| *b == 0).collect();
        fields.chunks_exact(6).map(parse_commit).collect()
    }

    /// Paths whose content or mode differs between two commits.
    ///
    /// # Errors
    /// [`GitError::MissingCommit`].
    pub async fn changed_paths(&self, repo: RepoId, a: &Sha, b: &Sha) -> Result<Vec<String>, GitError> {
        let args = ["diff-tree", "-r", "-z", "--name-only", "--no-renames", a.as_str(), b.as_str(), "--"];
        let done = self.about(repo, &[a, b], args.iter().map(Into::into).collect()).await?;
        Ok(done.records(0).map(text).collect())
    }
}

fn parse_commit(fields: &[&[u8]]) -> Result<CommitInfo, GitError> {
    let all: Vec<String> = fields.iter().map(|f| text(f)).collect();
    let [sha, parents, when, author_name, author_email, message] = all.as_slice() else {
        return Err(GitError::Other("git log printed something else than asked for".into()));
    };
    Ok(CommitInfo {
        // The line end of the record before stands in front.
        sha: sha_of(sha.trim())?,
        parents: parents.split_whitespace().map(sha_of).collect::<Result<_, _>>()?,
        author_name: author_name.clone(),
        author_email: author_email.clone(),
        message: message.trim_end().to_owned(),
        // A hostile date may lie outside of what a timestamp holds.
        committed_at: when.parse().ok().and_then(|s| Timestamp::from_second(s).ok()).unwrap_or(Timestamp::UNIX_EPOCH),
    })
}

/// `100644 blob OID    SIZE\tPATH`.
fn parse_entry(record: &[u8]) -> Option<(u32, String, FileEntry)> {
    let tab = record.iter().position(|b| *b == b'\t')?;
    let head = std::str::from_utf8(&record[..tab]).ok()?;
    let mut parts = head.split_whitespace();
    let mode = u32::from_str_radix(parts.next()?, 8).ok()?;
    let kind = parts.next()?.to_owned();
    let oid = parts.next()?.to_owned();
    let size = parts.next().and_then(|s| s.parse().ok()).unwrap_or(0);
    Some((mode, kind, FileEntry { path: text(&record[tab + 1..]), mode, oid, size }))
}

//! Repositories, branches, commits and files.

use actix_web::{HttpRequest, web};
use askama::Template;
use jiff::Timestamp;

use super::{Page, RepoHead, Rollup, Viewer, deployment_state, head_of, markdown, missing, show, show_page};
use crate::{
    demo::github::{
        StandIn, StandInError,
        git::{self, CommitInfo, FileChange},
        model::{Model, Repo},
    },
    web::pages::{
        layout::Crumb,
        pieces::{self, Markup, State},
    },
};

/// Commits on one page.
const COMMITS: usize = 60;
/// Lines of a diff that are shown.
const DIFF_LINES: usize = 3_000;
/// Files larger than this are not shown.
const SHOWN_FILE: usize = 512 * 1024;

/// A repository in a list.
struct RepoRow {
    name: String,
    owner: String,
    private: bool,
    archived: bool,
    pulls: usize,
    pushed_at: Option<Timestamp>,
}

impl RepoRow {
    fn of(repo: &Repo) -> Self {
        Self {
            name: repo.name.clone(),
            owner: repo.owner.clone(),
            private: repo.private,
            archived: repo.archived,
            pulls: repo.pulls.values().filter(|p| p.open).count(),
            pushed_at: repo.pushed_at,
        }
    }
}

#[derive(Template)]
#[template(path = "github/home.html")]
struct Home {
    account: Option<String>,
    repos: Vec<RepoRow>,
    apps: Vec<(String, String)>,
    viewer: Viewer,
}

fn home_of(m: &Model, account: Option<&str>, request: &HttpRequest) -> Home {
    let mine = |r: &&Repo| account.is_none_or(|a| r.owner.eq_ignore_ascii_case(a));
    Home {
        account: account.map(str::to_owned),
        repos: m.repos.values().filter(mine).map(RepoRow::of).collect(),
        apps: m.apps.values().map(|a| (a.slug.clone(), a.spec.name.clone())).collect(),
        viewer: Viewer::of(m, None, request),
    }
}

pub(super) async fn home(standin: web::Data<StandIn>, request: HttpRequest) -> Page {
    let page = standin.read(|m| home_of(m, None, &request));
    Ok(show_page("Repositories", Vec::new(), &page))
}

pub(super) async fn account(standin: web::Data<StandIn>, request: HttpRequest, owner: web::Path<String>) -> Page {
    let page = standin.read(|m| m.user(&owner).map(|u| home_of(m, Some(&u.login), &request)));
    let page = page.ok_or_else(|| missing(&format!("account {owner}")))?;
    let crumbs = vec![Crumb::here(owner.as_str())];
    Ok(show_page(&owner, crumbs, &page))
}

/// A commit in a list.
struct CommitRow {
    sha: String,
    subject: String,
    author: String,
    at: Timestamp,
    checks: Rollup,
}

fn rows(repo: &Repo, commits: &[CommitInfo]) -> Vec<CommitRow> {
    let row = |c: &CommitInfo| CommitRow {
        sha: c.sha.clone(),
        subject: c.message.lines().next().unwrap_or_default().to_owned(),
        author: c.author.0.clone(),
        at: c.committer.2,
        checks: Rollup::of(repo, &c.sha),
    };
    commits.iter().map(row).collect()
}

/// Commits as a list, for the pages that have one.
#[derive(Template)]
#[template(path = "github/commit_rows.html")]
struct CommitRows {
    base: String,
    rows: Vec<CommitRow>,
}

pub(super) fn commit_rows(head: &RepoHead, repo: &Repo, commits: &[CommitInfo]) -> Markup {
    Markup::of(&CommitRows { base: head.base(), rows: rows(repo, commits) })
}

/// An environment and what is live in it.
struct EnvironmentRow {
    name: String,
    state: State,
    sha: String,
    at: Timestamp,
    url: String,
}

/// Each environment with the deployment that is live, or the newest where none is.
fn environments(repo: &Repo) -> Vec<EnvironmentRow> {
    let mut found: Vec<EnvironmentRow> = Vec::new();
    for deployment in repo.deployments.values().rev() {
        let live = deployment.state() == "success";
        let known = found.iter().position(|e| e.name == deployment.environment);
        let url = deployment.statuses.iter().rev().map(|s| s.environment_url.clone()).find(|u| !u.is_empty());
        let row = EnvironmentRow {
            name: deployment.environment.clone(),
            state: deployment_state(deployment.state()),
            sha: deployment.sha.clone(),
            at: deployment.updated_at,
            url: url.unwrap_or_default(),
        };
        match known {
            None => found.push(row),
            // Only one is live: it wins over newer ones that failed or wait.
            Some(i) if live && found[i].state != State::LIVE && !found[i].state.is_open() => found[i] = row,
            Some(_) => {}
        }
    }
    found.reverse();
    found
}

#[derive(Template)]
#[template(path = "github/repo.html")]
struct RepoPage {
    head: RepoHead,
    branch: String,
    branches: Vec<(String, String, Rollup)>,
    commits: Markup,
    has_commits: bool,
    files: Vec<(bool, String)>,
    readme: Option<Markup>,
    environments: Vec<EnvironmentRow>,
    clone_url: String,
}

pub(super) async fn repository(
    standin: web::Data<StandIn>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
) -> Page {
    repo_page(&standin, &request, &path.0, &path.1, None).await
}

async fn repo_page(standin: &StandIn, request: &HttpRequest, owner: &str, name: &str, branch: Option<&str>) -> Page {
    let (head, ()) = head_of(standin, request, (owner, name), "code", |_, _| ())?;
    let dir = standin.git_dir(head.id);
    let branch = branch.unwrap_or(&head.default_branch).to_owned();
    let refs = git::refs(&dir).await?;
    let tip = git::resolve(&dir, &branch).await?;
    let (mut commits, mut files, mut readme) = (Vec::new(), Vec::new(), None);
    if let Some(tip) = &tip {
        commits = git::log(&dir, &[tip], 8).await?;
        let mut entries = git::entries(&dir, tip, "", true).await?;
        entries.sort_by_key(|e| (e.kind != "tree", e.path.clone()));
        if let Some(found) = entries.iter().find(|e| e.path.to_ascii_lowercase().starts_with("readme")) {
            let bytes = git::blob(&dir, &found.sha).await?;
            readme = Some(markdown::render(&String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_FILE)])));
        }
        files = entries.into_iter().map(|e| (e.kind == "tree", e.path)).collect();
    }
    let clone_url = standin.clone_url(&head.owner, &head.name).to_string();
    let page = head_of(standin, request, (owner, name), "code", |_, repo| {
        let branches = refs.iter().filter_map(|(name, sha)| {
            let branch = name.strip_prefix("refs/heads/")?;
            Some((branch.to_owned(), sha.clone(), Rollup::of(repo, sha)))
        });
        RepoPage {
            branches: branches.collect(),
            commits: commit_rows(&head, repo, &commits),
            has_commits: !commits.is_empty(),
            environments: environments(repo),
            head: head.clone(),
            branch,
            files,
            readme,
            clone_url,
        }
    })?;
    Ok(show(&head, "Code", None, &page.1))
}

/// `BRANCH[/PATH]`: branch names may have slashes, so the longest one that is a ref counts.
async fn split_ref(dir: &std::path::Path, tail: &str) -> Result<Option<(String, String, String)>, StandInError> {
    let mut cut = tail.len();
    loop {
        let (rev, path) = (&tail[..cut], tail[cut..].trim_matches('/'));
        if let Some(sha) = git::resolve(dir, rev).await? {
            return Ok(Some((rev.to_owned(), sha, path.to_owned())));
        }
        match tail[..cut].rfind('/') {
            Some(slash) => cut = slash,
            None => return Ok(None),
        }
    }
}

#[derive(Template)]
#[template(path = "github/file.html")]
struct FilePage {
    head: RepoHead,
    rev: String,
    path: String,
    folder: Option<Vec<(bool, String, String)>>,
    lines: Vec<String>,
    why_not: &'static str,
    size: usize,
}

pub(super) async fn tree(
    standin: web::Data<StandIn>,
    request: HttpRequest,
    path: web::Path<(String, String, String)>,
) -> Page {
    let (owner, name, tail) = path.into_inner();
    let (head, ()) = head_of(&standin, &request, (&owner, &name), "code", |_, _| ())?;
    let dir = standin.git_dir(head.id);
    let found = split_ref(&dir, &tail).await?;
    let (rev, sha, folder) = found.ok_or_else(|| missing(&format!("branch or folder {tail}")))?;
    if folder.is_empty() {
        return repo_page(&standin, &request, &owner, &name, Some(&rev)).await;
    }
    let mut entries = git::entries(&dir, &sha, &folder, true).await?;
    entries.sort_by_key(|e| (e.kind != "tree", e.path.clone()));
    if entries.is_empty() {
        return Err(missing(&format!("folder {folder} on {rev}")));
    }
    let short = |p: &str| p.rsplit('/').next().unwrap_or(p).to_owned();
    let list = entries.into_iter().map(|e| (e.kind == "tree", short(&e.path), e.path)).collect();
    let crumb = Crumb::here(format!("{folder} on {rev}"));
    let page =
        FilePage { head, rev, path: folder.clone(), folder: Some(list), lines: Vec::new(), why_not: "", size: 0 };
    Ok(show(&page.head, &folder, Some(crumb), &page))
}

pub(super) async fn blob(
    standin: web::Data<StandIn>,
    request: HttpRequest,
    path: web::Path<(String, String, String)>,
) -> Page {
    let (owner, name, tail) = path.into_inner();
    let (head, ()) = head_of(&standin, &request, (&owner, &name), "code", |_, _| ())?;
    let dir = standin.git_dir(head.id);
    let found = split_ref(&dir, &tail).await?;
    let (rev, sha, file) = found.ok_or_else(|| missing(&format!("file {tail}")))?;
    let entry = git::entries(&dir, &sha, &file, false).await?.into_iter().find(|e| e.kind == "blob");
    let entry = entry.ok_or_else(|| missing(&format!("file {file} on {rev}")))?;
    let bytes = git::blob(&dir, &entry.sha).await?;
    let (lines, why_not) = match String::from_utf8(bytes) {
        _ if entry.size > SHOWN_FILE as i64 => (Vec::new(), "It is too large to be shown here."),
        Ok(text) => (text.lines().map(str::to_owned).collect(), ""),
        Err(_) => (Vec::new(), "It is no text."),
    };
    let crumb = Crumb::here(format!("{file} on {rev}"));
    let size = usize::try_from(entry.size).unwrap_or(0);
    let page = FilePage { head, rev, path: file.clone(), folder: None, lines, why_not, size };
    Ok(show(&page.head, &file, Some(crumb), &page))
}

#[derive(Template)]
#[template(path = "github/commits.html")]
struct CommitsPage {
    head: RepoHead,
    heading: String,
    about: String,
    commits: Markup,
    files: Markup,
    empty: bool,
    older: Option<String>,
}

#[derive(serde::Deserialize)]
pub(super) struct After {
    #[serde(default)]
    after: String,
}

pub(super) async fn commits_of_default(
    standin: web::Data<StandIn>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    after: web::Query<After>,
) -> Page {
    let (owner, name) = path.into_inner();
    let (head, ()) = head_of(&standin, &request, (&owner, &name), "commits", |_, _| ())?;
    let branch = head.default_branch.clone();
    commits_page(&standin, &request, (&owner, &name), &branch, &after.after).await
}

pub(super) async fn commits(
    standin: web::Data<StandIn>,
    request: HttpRequest,
    path: web::Path<(String, String, String)>,
    after: web::Query<After>,
) -> Page {
    let (owner, name, branch) = path.into_inner();
    commits_page(&standin, &request, (&owner, &name), &branch, &after.after).await
}

async fn commits_page(
    standin: &StandIn,
    request: &HttpRequest,
    (owner, name): (&str, &str),
    branch: &str,
    after: &str,
) -> Page {
    let (head, ()) = head_of(standin, request, (owner, name), "commits", |_, _| ())?;
    let dir = standin.git_dir(head.id);
    let start = if after.is_empty() { branch } else { after };
    let mut list = match git::resolve(&dir, start).await? {
        Some(sha) => git::log(&dir, &[&sha], COMMITS + 1).await?,
        // An empty repository has a default branch without a commit.
        None if branch == head.default_branch && after.is_empty() => Vec::new(),
        None => return Err(missing(&format!("branch {branch}"))),
    };
    let older = (list.len() > COMMITS).then(|| list.swap_remove(COMMITS).sha);
    list.truncate(COMMITS);
    let (head, commits) =
        head_of(standin, request, (owner, name), "commits", |_, repo| commit_rows(&head, repo, &list))?;
    let page = CommitsPage {
        heading: format!("Commits on {branch}"),
        about: String::new(),
        commits,
        files: Markup::default(),
        empty: list.is_empty(),
        older: older.map(|sha| format!("{}/commits/{}?after={sha}", head.base(), path_encoded(branch))),
        head,
    };
    Ok(show(&page.head, &page.heading, Some(Crumb::here(format!("commits on {branch}"))), &page))
}

/// A branch or file name within an address.
pub(super) fn path_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Files that differ, with the lines that differ.
#[derive(Template)]
#[template(path = "github/files.html")]
struct Files {
    files: Vec<FileChange>,
    base: String,
    sha: String,
    lines: Vec<(char, String)>,
    cut: bool,
}

pub(super) async fn files_between(
    dir: &std::path::Path,
    base: &str,
    old: Option<&str>,
    new: &str,
) -> Result<Markup, StandInError> {
    const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
    let files = git::diff(dir, old, new).await?;
    let from = old.unwrap_or(EMPTY_TREE);
    let patch =
        git::run(dir, &["diff-tree", "-p", "-r", "--no-color", "--no-ext-diff", "--no-textconv", from, new]).await?;
    let all: Vec<(char, String)> = patch
        .lines()
        .filter(|l| !l.starts_with("index ") && !l.starts_with("--- ") && !l.starts_with("+++ "))
        .take(DIFF_LINES + 1)
        .map(|line| match line.strip_prefix("diff --git ") {
            Some(_) => ('f', line.rsplit_once(" b/").map_or(line, |(_, path)| path).to_owned()),
            None => match line.chars().next() {
                Some(sign @ ('+' | '-' | ' ' | '@')) => (sign, line.to_owned()),
                _ => ('i', line.to_owned()),
            },
        })
        .collect();
    let cut = all.len() > DIFF_LINES;
    let lines = all.into_iter().take(DIFF_LINES).collect();
    Ok(Markup::of(&Files { files, base: base.to_owned(), sha: new.to_owned(), lines, cut }))
}

#[derive(Template)]
#[template(path = "github/commit.html")]
struct CommitPage {
    head: RepoHead,
    commit: CommitInfo,
    subject: String,
    rest: String,
    checks: Markup,
    files: Markup,
}

pub(super) async fn commit(
    standin: web::Data<StandIn>,
    request: HttpRequest,
    path: web::Path<(String, String, String)>,
) -> Page {
    let (owner, name, sha) = path.into_inner();
    let (head, ()) = head_of(&standin, &request, (&owner, &name), "commits", |_, _| ())?;
    let dir = standin.git_dir(head.id);
    let sha = git::resolve(&dir, &sha).await?.ok_or_else(|| missing(&format!("commit {sha}")))?;
    let commit = git::commit(&dir, &sha).await?;
    let parent = commit.parents.first().map(String::as_str);
    let files = files_between(&dir, &head.base(), parent, &sha).await?;
    let (head, checks) = head_of(&standin, &request, (&owner, &name), "commits", |m, repo| {
        super::checks::list(m, repo, &head, &sha, &[])
    })?;
    let (subject, rest) = commit.message.split_once('\n').unwrap_or((&commit.message, ""));
    let (subject, rest) = (subject.to_owned(), rest.trim().to_owned());
    let page = CommitPage { head, subject, rest, checks, files, commit };
    let crumb = Crumb::here(format!("commit {}", pieces::short(&sha)));
    Ok(show(&page.head, &page.subject, Some(crumb), &page))
}

pub(super) async fn compare(
    standin: web::Data<StandIn>,
    request: HttpRequest,
    path: web::Path<(String, String, String)>,
) -> Page {
    let (owner, name, range) = path.into_inner();
    let (head, ()) = head_of(&standin, &request, (&owner, &name), "commits", |_, _| ())?;
    let dir = standin.git_dir(head.id);
    let (from, to) = range.split_once("...").ok_or_else(|| missing(&format!("comparison {range}")))?;
    let both = (git::resolve(&dir, from).await?, git::resolve(&dir, to).await?);
    let (Some(old), Some(new)) = both else { return Err(missing(&format!("commit in {range}"))) };
    let list = git::log(&dir, &[&format!("{old}..{new}")], COMMITS).await?;
    let base = git::merge_base(&dir, &old, &new).await?.unwrap_or(old);
    let files = files_between(&dir, &head.base(), Some(&base), &new).await?;
    let (head, commits) =
        head_of(&standin, &request, (&owner, &name), "commits", |_, repo| commit_rows(&head, repo, &list))?;
    let page = CommitsPage {
        heading: format!("{from} to {to}"),
        about: format!("{} commits", list.len()),
        commits,
        files,
        empty: list.is_empty(),
        older: None,
        head,
    };
    Ok(show(&page.head, &page.heading, Some(Crumb::here("comparison")), &page))
}

//! Operations about code: repositories, branches, refs, commits, comparisons, files.

use base64::Engine as _;
use serde_json::{Value, json};

use super::{Answer, ApiError, Call, Reply, list, ok};
use crate::demo::github::{
    StandInError,
    git::{self, CommitInfo, FileChange},
    model::Repo,
    shapes::{self, Links},
};

/// Looks at the call's repository.
pub(super) fn with_repo<T>(
    call: &Call,
    look: impl FnOnce(&Links, &crate::demo::github::model::Model, &Repo) -> T,
) -> Result<T, ApiError> {
    let l = call.standin.links();
    call.standin.read(|m| m.repos.get(&call.repo).map(|r| look(&l, m, r))).ok_or_else(ApiError::not_found)
}

/// The commit that a ref of the path stands for.
pub(super) async fn resolve(call: &Call, rev: &str) -> Result<String, ApiError> {
    let found = git::resolve(&call.standin.git_dir(call.repo), rev).await?;
    found.ok_or_else(|| ApiError::new(422, format!("No commit found for SHA: {rev}")))
}

pub(super) async fn repo(call: &Call) -> Answer {
    with_repo(call, shapes::full_repo).and_then(ok)
}

pub(super) async fn branches(call: &Call) -> Answer {
    let refs = git::refs(&call.standin.git_dir(call.repo)).await?;
    let items = with_repo(call, |l, _, r| {
        let api = l.repo_api(r);
        let heads = refs.iter().filter_map(|(name, sha)| Some((name.strip_prefix("refs/heads/")?, sha)));
        let shown = heads.map(|(name, sha)| {
            let protected = r.required_checks.contains_key(name);
            json!({"name": name, "commit": {"sha": sha, "url": format!("{api}/commits/{sha}")}, "protected": protected})
        });
        shown.collect()
    })?;
    list(call, items)
}

pub(super) async fn branch(call: &Call) -> Answer {
    let (dir, name) = (call.standin.git_dir(call.repo), call.var("branch"));
    let refs = git::refs(&dir).await?;
    let sha = refs.get(&format!("refs/heads/{name}")).ok_or_else(|| ApiError::new(404, "Branch not found"))?;
    let commit = git::commit(&dir, sha).await?;
    let body = with_repo(call, |l, m, r| {
        let (api, html, path) = (l.repo_api(r), l.repo_web(r), shapes::url_path(name));
        let required = r.required_checks.get(name);
        let empty = Vec::new();
        let contexts = required.unwrap_or(&empty);
        json!({
            "name": name,
            "commit": shapes::commit(l, m, r, &commit),
            "_links": {"self": format!("{api}/branches/{path}"), "html": format!("{html}/tree/{path}")},
            "protected": required.is_some(),
            "protection": {
                "enabled": required.is_some(),
                "required_status_checks": {
                    "enforcement_level": if required.is_some() { "everyone" } else { "off" },
                    "contexts": contexts,
                    "checks": contexts.iter().map(|c| json!({"context": c, "app_id": null})).collect::<Vec<_>>(),
                },
            },
            "protection_url": format!("{api}/branches/{path}/protection"),
        })
    })?;
    ok(body)
}

fn git_ref_json(l: &Links, r: &Repo, name: &str, sha: &str, kind: &str) -> Value {
    let api = l.repo_api(r);
    json!({
        "ref": name,
        "node_id": shapes::node("REF", r.id),
        "url": format!("{api}/git/{}", shapes::url_path(name)),
        "object": {"sha": sha, "type": kind, "url": format!("{api}/git/{kind}s/{sha}")},
    })
}

async fn kinds(call: &Call) -> Result<Vec<(String, String, String)>, ApiError> {
    let dir = call.standin.git_dir(call.repo);
    let out = git::run(&dir, &["for-each-ref", "--format=%(objectname) %(objecttype) %(refname)"]).await?;
    let line = |l: &str| {
        let mut words = l.splitn(3, ' ').map(str::to_owned);
        let (sha, kind, name) = (words.next()?, words.next()?, words.next()?);
        Some((name, sha, kind))
    };
    Ok(out.lines().filter_map(line).collect())
}

/// "List matching references": all that begin with the text, none is an empty list.
pub(super) async fn matching_refs(call: &Call) -> Answer {
    let prefix = format!("refs/{}", call.var("ref"));
    let refs = kinds(call).await?;
    let items = with_repo(call, |l, _, r| {
        let fitting = refs.iter().filter(|(name, ..)| name.starts_with(&prefix));
        fitting.map(|(name, sha, kind)| git_ref_json(l, r, name, sha, kind)).collect()
    })?;
    list(call, items)
}

pub(super) async fn git_ref(call: &Call) -> Answer {
    let name = format!("refs/{}", call.var("ref"));
    let refs = kinds(call).await?;
    let (name, sha, kind) = refs.into_iter().find(|(n, ..)| *n == name).ok_or_else(ApiError::not_found)?;
    with_repo(call, |l, _, r| git_ref_json(l, r, &name, &sha, &kind)).and_then(ok)
}

pub(super) fn commits_json(call: &Call, commits: &[CommitInfo]) -> Result<Vec<Value>, ApiError> {
    with_repo(call, |l, m, r| commits.iter().map(|c| shapes::commit(l, m, r, c)).collect())
}

pub(super) async fn commits(call: &Call) -> Answer {
    let default = with_repo(call, |_, _, r| r.default_branch.clone())?;
    let rev = call.query.get("sha").cloned().unwrap_or(default);
    let dir = call.standin.git_dir(call.repo);
    if git::refs(&dir).await?.is_empty() {
        return Err(ApiError::new(409, "Git Repository is empty."));
    }
    let sha = git::resolve(&dir, &rev).await?.ok_or_else(ApiError::not_found)?;
    let found = git::log(&dir, &[&sha], 1000).await?;
    list(call, commits_json(call, &found)?)
}

pub(super) fn files_json(l: &Links, r: &Repo, sha: &str, files: &[FileChange]) -> Vec<Value> {
    files.iter().take(300).map(|f| shapes::file(l, r, sha, f)).collect()
}

pub(super) async fn commit(call: &Call) -> Answer {
    let dir = call.standin.git_dir(call.repo);
    let sha = resolve(call, call.var("ref")).await?;
    let commit = git::commit(&dir, &sha).await?;
    let files = git::diff(&dir, commit.parents.first().map(String::as_str), &sha).await?;
    let body = with_repo(call, |l, m, r| {
        let mut value = shapes::commit(l, m, r, &commit);
        let (added, deleted) = files.iter().fold((0, 0), |s, f| (s.0 + f.additions, s.1 + f.deletions));
        value["stats"] = json!({"total": added + deleted, "additions": added, "deletions": deleted});
        value["files"] = json!(files_json(l, r, &sha, &files));
        value
    })?;
    ok(body)
}

/// "Compare two commits": commits oldest first, files against the common ancestor. Forks of the network are compared
/// as `OWNER:BRANCH` on GitHub; here both sides are of this repository.
pub(super) async fn compare(call: &Call) -> Answer {
    let dir = call.standin.git_dir(call.repo);
    let (base, head) = call.var("basehead").split_once("...").ok_or_else(ApiError::not_found)?;
    let (Some(base_sha), Some(head_sha)) = (git::resolve(&dir, base).await?, git::resolve(&dir, head).await?) else {
        return Err(ApiError::not_found());
    };
    let ancestor = git::merge_base(&dir, &base_sha, &head_sha).await?;
    let ancestor =
        ancestor.ok_or_else(|| ApiError::new(404, format!("No common ancestor between {base} and {head}.")))?;
    let mut ahead = git::log(&dir, &[&head_sha, &format!("^{base_sha}")], 10_000).await?;
    let behind = git::log(&dir, &[&base_sha, &format!("^{head_sha}")], 10_000).await?.len();
    ahead.reverse();
    let files = git::diff(&dir, Some(&ancestor), &head_sha).await?;
    let ends = [git::commit(&dir, &base_sha).await?, git::commit(&dir, &ancestor).await?];
    let status = match (ahead.len(), behind) {
        (0, 0) => "identical",
        (_, 0) => "ahead",
        (0, _) => "behind",
        _ => "diverged",
    };
    let total = ahead.len();
    let paged = call.query.contains_key("page") || call.query.contains_key("per_page");
    let (shown, link) = match (paged, ahead.len() > 250) {
        (true, _) => super::paged(call, ahead),
        // Without paging the newest 250.
        (false, true) => (ahead.split_off(total - 250), None),
        (false, false) => (ahead, None),
    };
    let commits = commits_json(call, &shown)?;
    let body = with_repo(call, |l, m, r| {
        let page = format!("{}/compare/{}...{}", l.repo_web(r), shapes::url_path(base), shapes::url_path(head));
        json!({
            "url": format!("{}/compare/{}...{}", l.repo_api(r), shapes::url_path(base), shapes::url_path(head)),
            "html_url": page,
            "permalink_url": page,
            "diff_url": format!("{page}.diff"),
            "patch_url": format!("{page}.patch"),
            "base_commit": shapes::commit(l, m, r, &ends[0]),
            "merge_base_commit": shapes::commit(l, m, r, &ends[1]),
            "status": status,
            "ahead_by": total,
            "behind_by": behind,
            "total_commits": total,
            "commits": commits,
            "files": files_json(l, r, &head_sha, &files),
        })
    })?;
    Ok(Reply { status: 200, body, link })
}

/// "Get repository content": a file with its content in base64 (none above 1 MB), or a folder's list.
pub(super) async fn contents(call: &Call) -> Answer {
    let dir = call.standin.git_dir(call.repo);
    let default = with_repo(call, |_, _, r| r.default_branch.clone())?;
    let rev = call.query.get("ref").cloned().unwrap_or(default);
    let sha = git::resolve(&dir, &rev).await?;
    let sha = sha.ok_or_else(|| ApiError::new(404, format!("No commit found for the ref {rev}")))?;
    let path = call.var("path").trim_matches('/');
    let entry = git::entries(&dir, &sha, path, false).await?.into_iter().find(|e| e.path == path);
    let entry = entry.ok_or_else(ApiError::not_found)?;
    if entry.kind == "tree" {
        let inside = git::entries(&dir, &sha, path, true).await?;
        let body = with_repo(call, |l, _, r| inside.iter().map(|e| content_json(l, r, &sha, e)).collect())?;
        return ok(Value::Array(body));
    }
    if entry.kind != "blob" {
        return Err(ApiError::not_found());
    }
    let bytes = if entry.size > 1024 * 1024 { Vec::new() } else { git::blob(&dir, &entry.sha).await? };
    let mut body = with_repo(call, |l, _, r| content_json(l, r, &sha, &entry))?;
    body["encoding"] = json!(if bytes.is_empty() && entry.size > 0 { "none" } else { "base64" });
    body["content"] = json!(wrapped(&base64::engine::general_purpose::STANDARD.encode(&bytes)));
    ok(body)
}

/// Base64 in lines of 60, as GitHub sends it.
fn wrapped(text: &str) -> String {
    (0..text.len()).step_by(60).map(|i| format!("{}\n", &text[i..text.len().min(i + 60)])).collect()
}

fn content_json(l: &Links, r: &Repo, sha: &str, e: &git::TreeEntry) -> Value {
    let (api, html, path) = (l.repo_api(r), l.repo_web(r), shapes::url_path(&e.path));
    let kind = match e.kind.as_str() {
        "tree" => "dir",
        _ => "file",
    };
    let url = format!("{api}/contents/{path}?ref={sha}");
    let page = format!("{html}/blob/{sha}/{path}");
    let object = format!("{api}/git/{}s/{}", e.kind, e.sha);
    json!({
        "type": kind,
        "size": e.size,
        "name": e.path.rsplit('/').next(),
        "path": e.path,
        "sha": e.sha,
        "url": url,
        "git_url": object,
        "html_url": page,
        "download_url": (kind == "file").then(|| format!("{html}/raw/{sha}/{path}")),
        "_links": {"self": url, "git": object, "html": page},
    })
}

/// "List repository activities": newest first, pages by cursor.
pub(super) async fn activity(call: &Call) -> Answer {
    let per_page = call.query.get("per_page").and_then(|v| v.parse::<usize>().ok()).unwrap_or(30).clamp(1, 100);
    let get = |name: &str| call.query.get(name).map(String::as_str);
    let wanted = get("ref").map(|r| if r.starts_with("refs/") { r.to_owned() } else { format!("refs/heads/{r}") });
    let after = match get("after") {
        None => None,
        Some(text) => Some(text.parse::<i64>().map_err(|_| ApiError::new(422, "Invalid cursor"))?),
    };
    let oldest_first = get("direction") == Some("asc");
    let now = crate::clock::now().as_second();
    let seconds = match get("time_period") {
        None => i64::MAX,
        Some("day") => 86_400,
        Some("week") => 7 * 86_400,
        Some("month") => 31 * 86_400,
        Some("quarter") => 92 * 86_400,
        Some("year") => 366 * 86_400,
        Some(_) => return Err(ApiError::new(422, "Invalid time_period")),
    };
    let (items, next) = with_repo(call, |l, m, r| {
        let fits = |a: &&crate::demo::github::model::Activity| {
            wanted.as_ref().is_none_or(|w| a.git_ref == *w)
                && get("actor").is_none_or(|who| a.actor.eq_ignore_ascii_case(who))
                && get("activity_type").is_none_or(|k| a.kind.as_str() == k)
                && now - a.at.as_second() <= seconds
                && after.is_none_or(|id| if oldest_first { a.id > id } else { a.id < id })
        };
        let mut all: Vec<_> = r.activity.iter().filter(fits).collect();
        if !oldest_first {
            all.reverse();
        }
        let next = (all.len() > per_page).then(|| all[per_page - 1].id);
        let shown = all.into_iter().take(per_page).map(|a| {
            json!({
                "id": a.id,
                "node_id": shapes::node("PSH", a.id),
                "before": a.before,
                "after": a.after,
                "ref": a.git_ref,
                "timestamp": a.at,
                "activity_type": a.kind.as_str(),
                "actor": shapes::login(l, m, &a.actor),
            })
        });
        (shown.collect::<Vec<_>>(), next)
    })?;
    let mut query: Vec<(&str, String)> =
        call.query.iter().filter(|(k, _)| *k != "after").map(|(k, v)| (k.as_str(), v.clone())).collect();
    query.sort();
    let link = next.map(|id| {
        query.push(("after", id.to_string()));
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        format!("<{}?{query}>; rel=\"next\"", call.url)
    });
    Ok(Reply { status: 200, body: Value::Array(items), link })
}

/// Whether there is such a commit.
pub(super) async fn exists(call: &Call, sha: &str) -> Result<bool, StandInError> {
    let full = sha.len() == 40 && sha.chars().all(|c| c.is_ascii_hexdigit());
    Ok(full && git::resolve(&call.standin.git_dir(call.repo), sha).await?.is_some())
}

//! The model as GitHub's JSON: pull requests, checks, statuses, deployments, comments.

use serde_json::{Value, json};

use super::{Links, author, login, node, repo, via_app};
use crate::demo::github::{
    git::CommitInfo,
    model::{
        Annotation, CheckRun, CheckSuite, Comment, CommentPlace, CommitStatus, Deployment, DeploymentStatus, Mergeable,
        Model, Pull, Reaction, Repo, Review, UserKind,
    },
};

/// How somebody is related to a repository. Never to be trusted for permissions: an outside collaborator with write
/// access and one with read access are both `COLLABORATOR`.
fn association(m: &Model, r: &Repo, login: &str) -> &'static str {
    if r.owner.eq_ignore_ascii_case(login) {
        return "OWNER";
    }
    let member =
        m.teams.values().any(|t| t.org.eq_ignore_ascii_case(&r.owner) && t.members.contains_key(&login.to_lowercase()));
    if member {
        "MEMBER"
    } else if r.grants.contains_key(&login.to_lowercase()) {
        "COLLABORATOR"
    } else {
        "NONE"
    }
}

/// A pull request. `full` adds what "Get a pull request" and webhooks have over "List pull requests".
pub(in crate::demo::github) fn pull(l: &Links, m: &Model, r: &Repo, p: &Pull, full: bool) -> Value {
    let (api, html) = (l.repo_api(r), l.repo_web(r));
    let url = format!("{api}/pulls/{}", p.number);
    let page = format!("{html}/pull/{}", p.number);
    let issue = format!("{api}/issues/{}", p.number);
    // The head's repository is null once the fork is deleted ("Webhook events and payloads", `pull_request`).
    let head_repo = p.head.repo.and_then(|id| m.repos.get(&id)).map_or(Value::Null, |r| repo(l, m, r));
    let merge_commit = match (&p.merged, &p.mergeable) {
        (Some((sha, ..)), _) | (None, Mergeable::Clean(sha)) => Some(sha.as_str()),
        _ => None,
    };
    let href = |path: String| json!({"href": path});
    let links = json!({
        "self": href(url.clone()),
        "html": href(page.clone()),
        "issue": href(issue.clone()),
        "comments": href(format!("{issue}/comments")),
        "review_comments": href(format!("{url}/comments")),
        "review_comment": href(format!("{api}/pulls/comments{{/number}}")),
        "commits": href(format!("{url}/commits")),
        "statuses": href(format!("{api}/statuses/{}", p.head.sha)),
    });
    let mut value = json!({
        "url": url,
        "id": p.id,
        "node_id": node("PR", p.id),
        "html_url": page,
        "diff_url": format!("{page}.diff"),
        "patch_url": format!("{page}.patch"),
        "issue_url": issue,
        "commits_url": format!("{url}/commits"),
        "review_comments_url": format!("{url}/comments"),
        "review_comment_url": format!("{api}/pulls/comments{{/number}}"),
        "comments_url": format!("{issue}/comments"),
        "statuses_url": format!("{api}/statuses/{}", p.head.sha),
        "number": p.number,
        "state": if p.open { "open" } else { "closed" },
        "locked": false,
        "title": p.title,
        "user": author(l, m, &p.author),
        "body": (!p.body.is_empty()).then_some(p.body.as_str()),
        "labels": [],
        "milestone": null,
        "created_at": p.created_at,
        "updated_at": p.updated_at,
        "closed_at": p.closed_at,
        "merged_at": p.merged.as_ref().map(|(_, _, at)| at),
        "merge_commit_sha": merge_commit,
        "assignee": null,
        "assignees": [],
        "requested_reviewers": [],
        "requested_teams": [],
        "draft": p.draft,
        "head": {
            "label": format!("{}:{}", p.head.owner, p.head.branch),
            "ref": p.head.branch,
            "sha": p.head.sha,
            "user": login(l, m, &p.head.owner),
            "repo": head_repo,
        },
        "base": {
            "label": format!("{}:{}", r.owner, p.base),
            "ref": p.base,
            "sha": p.base_sha,
            "user": login(l, m, &r.owner),
            "repo": repo(l, m, r),
        },
        "_links": links,
        "author_association": association(m, r, &p.author.login),
        "auto_merge": null,
        "active_lock_reason": null,
    });
    if full {
        // "Get a pull request": `mergeable` is null while a background job computes it.
        let (mergeable, state) = match (&p.mergeable, p.draft) {
            (Mergeable::Unknown, _) => (None, "unknown"),
            (Mergeable::Clean(_), true) => (Some(true), "draft"),
            (Mergeable::Clean(_), false) => (Some(true), "clean"),
            (Mergeable::Conflict, _) => (Some(false), "dirty"),
        };
        let comments = r.comments_of(p.number).filter(|c| matches!(c.place, CommentPlace::Issue(_))).count();
        let lines = r.comments_of(p.number).count() - comments;
        value["merged"] = json!(p.merged.is_some());
        value["mergeable"] = json!(mergeable);
        value["rebaseable"] = json!(mergeable);
        value["mergeable_state"] = json!(state);
        value["merged_by"] = p.merged.as_ref().map_or(Value::Null, |(_, who, _)| login(l, m, who));
        value["comments"] = json!(comments);
        value["review_comments"] = json!(lines);
        value["maintainer_can_modify"] = json!(false);
        value["commits"] = json!(p.commits.0);
        value["additions"] = json!(p.commits.1);
        value["deletions"] = json!(p.commits.2);
        value["changed_files"] = json!(p.commits.3);
    }
    value
}

/// A pull request as checks name it. Of pull requests from forks there is none.
fn pull_minimal(l: &Links, r: &Repo, p: &Pull) -> Value {
    let api = l.repo_api(r);
    let repo = json!({"id": r.id, "url": api, "name": r.name});
    json!({
        "id": p.id,
        "number": p.number,
        "url": format!("{api}/pulls/{}", p.number),
        "head": {"ref": p.head.branch, "sha": p.head.sha, "repo": repo},
        "base": {"ref": p.base, "sha": p.base_sha, "repo": repo},
    })
}

fn pulls(l: &Links, r: &Repo, sha: &str) -> Vec<Value> {
    Model::pulls_of_sha(r, sha).into_iter().map(|p| pull_minimal(l, r, p)).collect()
}

/// A check run.
pub(in crate::demo::github) fn check_run(l: &Links, m: &Model, r: &Repo, c: &CheckRun) -> Value {
    let url = format!("{}/check-runs/{}", l.repo_api(r), c.id);
    let page = format!("{}/runs/{}", l.repo_web(r), c.id);
    json!({
        "id": c.id,
        "name": c.name,
        "node_id": node("CR", c.id),
        "head_sha": c.head_sha,
        "external_id": c.external_id.as_deref().unwrap_or_default(),
        "url": url,
        "html_url": page,
        "details_url": c.details_url.clone().or_else(|| m.apps.get(&c.app).map(|a| a.spec.external_url.clone())),
        "status": c.status,
        "conclusion": c.conclusion,
        "started_at": c.started_at,
        "completed_at": c.completed_at,
        "output": {
            "title": c.output.title,
            "summary": c.output.summary,
            "text": c.output.text,
            "annotations_count": c.output.annotations.len(),
            "annotations_url": format!("{url}/annotations"),
        },
        "check_suite": {"id": c.suite},
        "app": via_app(l, m, Some(c.app)),
        "pull_requests": pulls(l, r, &c.head_sha),
    })
}

/// What a suite's checks come to: their worst, once all are done.
fn suite_result(r: &Repo, s: &CheckSuite) -> (&'static str, Option<String>, usize) {
    let runs: Vec<_> = r.latest_checks(&s.head_sha).into_iter().filter(|c| c.suite == s.id).collect();
    if s.reset || runs.is_empty() || runs.iter().all(|c| c.status == "queued") {
        return ("queued", None, runs.len());
    }
    if runs.iter().any(|c| c.status != "completed") {
        return ("in_progress", None, runs.len());
    }
    let order = ["failure", "timed_out", "cancelled", "action_required", "success", "neutral", "skipped"];
    let rank = |c: &&&CheckRun| order.iter().position(|o| c.conclusion.as_deref() == Some(*o)).unwrap_or(0);
    let worst = runs.iter().min_by_key(rank).and_then(|c| c.conclusion.clone());
    ("completed", worst, runs.len())
}

/// A check suite.
pub(in crate::demo::github) fn check_suite(l: &Links, m: &Model, r: &Repo, s: &CheckSuite, head: &CommitInfo) -> Value {
    let url = format!("{}/check-suites/{}", l.repo_api(r), s.id);
    let (status, conclusion, count) = suite_result(r, s);
    json!({
        "id": s.id,
        "node_id": node("CS", s.id),
        "head_branch": s.head_branch,
        "head_sha": s.head_sha,
        "status": status,
        "conclusion": conclusion,
        "url": url,
        "before": s.before,
        "after": s.head_sha,
        "pull_requests": pulls(l, r, &s.head_sha),
        "app": via_app(l, m, Some(s.app)),
        "repository": repo(l, m, r),
        "created_at": s.created_at,
        "updated_at": s.updated_at,
        "rerequestable": true,
        "runs_rerequestable": true,
        "latest_check_runs_count": count,
        "check_runs_url": format!("{url}/check-runs"),
        "head_commit": {
            "id": head.sha,
            "tree_id": head.tree,
            "message": head.message,
            "timestamp": head.committer.2,
            "author": {"name": head.author.0, "email": head.author.1},
            "committer": {"name": head.committer.0, "email": head.committer.1},
        },
    })
}

/// An annotation.
pub(in crate::demo::github) fn annotation(l: &Links, r: &Repo, c: &CheckRun, a: &Annotation) -> Value {
    json!({
        "path": a.path,
        "blob_href": format!("{}/blob/{}/{}", l.repo_web(r), c.head_sha, super::url_path(&a.path)),
        "start_line": a.start_line,
        "end_line": a.end_line,
        "start_column": a.start_column,
        "end_column": a.end_column,
        "annotation_level": a.annotation_level,
        "title": a.title,
        "message": a.message,
        "raw_details": a.raw_details,
    })
}

/// A commit status; `simple` as the combined status lists it, without its maker.
pub(in crate::demo::github) fn status(l: &Links, m: &Model, r: &Repo, s: &CommitStatus, simple: bool) -> Value {
    let mut value = json!({
        "url": format!("{}/statuses/{}", l.repo_api(r), s.sha),
        "avatar_url": format!("{}/avatars/{}", l.web, super::encode(&s.creator)),
        "id": s.id,
        "node_id": node("S", s.id),
        "state": s.state,
        "description": s.description,
        "target_url": s.target_url,
        "context": s.context,
        "created_at": s.created_at,
        "updated_at": s.created_at,
    });
    if !simple {
        value["creator"] = login(l, m, &s.creator);
    }
    value
}

/// A deployment.
pub(in crate::demo::github) fn deployment(l: &Links, m: &Model, r: &Repo, d: &Deployment) -> Value {
    let api = l.repo_api(r);
    let url = format!("{api}/deployments/{}", d.id);
    json!({
        "url": url,
        "id": d.id,
        "node_id": node("D", d.id),
        "sha": d.sha,
        "ref": d.git_ref,
        "task": d.task,
        "payload": d.payload,
        "original_environment": d.environment,
        "environment": d.environment,
        "description": d.description,
        "creator": login(l, m, &d.creator),
        "created_at": d.created_at,
        "updated_at": d.updated_at,
        "statuses_url": format!("{url}/statuses"),
        "repository_url": api,
        "transient_environment": d.transient,
        "production_environment": d.production,
        "performed_via_github_app": via_app(l, m, d.app),
    })
}

/// A deployment's status.
pub(in crate::demo::github) fn deployment_status(
    l: &Links,
    m: &Model,
    r: &Repo,
    d: &Deployment,
    s: &DeploymentStatus,
) -> Value {
    let api = l.repo_api(r);
    let url = format!("{api}/deployments/{}", d.id);
    json!({
        "url": format!("{url}/statuses/{}", s.id),
        "id": s.id,
        "node_id": node("DS", s.id),
        "state": s.state,
        "creator": login(l, m, &s.creator),
        "description": s.description,
        "environment": s.environment,
        "target_url": s.log_url,
        "log_url": s.log_url,
        "environment_url": s.environment_url,
        "created_at": s.created_at,
        "updated_at": s.created_at,
        "deployment_url": url,
        "repository_url": api,
        "performed_via_github_app": via_app(l, m, s.app),
    })
}

/// Counts of a comment's reactions.
fn reactions_summary(url: &str, list: &[Reaction]) -> Value {
    let mut value = json!({"url": format!("{url}/reactions"), "total_count": list.len()});
    for name in ["+1", "-1", "laugh", "hooray", "confused", "heart", "rocket", "eyes"] {
        value[name] = json!(list.iter().filter(|r| r.content == name).count());
    }
    value
}

/// A comment of a conversation.
pub(in crate::demo::github) fn comment(l: &Links, m: &Model, r: &Repo, c: &Comment) -> Value {
    let (api, html) = (l.repo_api(r), l.repo_web(r));
    let (url, number) = match &c.place {
        CommentPlace::Issue(number) => (format!("{api}/issues/comments/{}", c.id), number),
        CommentPlace::Line { number, .. } => (format!("{api}/pulls/comments/{}", c.id), number),
        CommentPlace::Commit(sha) => {
            let url = format!("{api}/comments/{}", c.id);
            return json!({
                "id": c.id,
                "node_id": node("CC", c.id),
                "url": url,
                "html_url": format!("{html}/commit/{sha}#commitcomment-{}", c.id),
                "commit_id": sha,
                "path": null,
                "position": null,
                "line": null,
                "body": c.body,
                "user": author(l, m, &c.author),
                "created_at": c.created_at,
                "updated_at": c.updated_at,
                "author_association": association(m, r, &c.author.login),
                "reactions": reactions_summary(&url, &c.reactions),
            });
        }
    };
    json!({
        "id": c.id,
        "node_id": node("IC", c.id),
        "url": url,
        "html_url": format!("{html}/pull/{number}#issuecomment-{}", c.id),
        "body": c.body,
        "user": author(l, m, &c.author),
        "created_at": c.created_at,
        "updated_at": c.updated_at,
        "issue_url": format!("{api}/issues/{number}"),
        "author_association": association(m, r, &c.author.login),
        "performed_via_github_app": via_app(l, m, c.author.app),
        "reactions": reactions_summary(&url, &c.reactions),
    })
}

/// A reaction.
pub(in crate::demo::github) fn reaction(l: &Links, m: &Model, x: &Reaction) -> Value {
    json!({
        "id": x.id,
        "node_id": node("RE", x.id),
        "user": author(l, m, &x.author),
        "content": x.content,
        "created_at": x.created_at,
    })
}

/// A review.
pub(in crate::demo::github) fn review(l: &Links, m: &Model, r: &Repo, p: &Pull, v: &Review) -> Value {
    let (page, url) = (
        format!("{}/pull/{}#pullrequestreview-{}", l.repo_web(r), p.number, v.id),
        format!("{}/pulls/{}", l.repo_api(r), p.number),
    );
    let bot = m.user(&v.author.login).is_some_and(|u| u.kind == UserKind::Bot);
    json!({
        "id": v.id,
        "node_id": node("PRR", v.id),
        "user": author(l, m, &v.author),
        "body": v.body,
        "state": v.state.as_str(),
        "html_url": page,
        "pull_request_url": url,
        "_links": {"html": {"href": page}, "pull_request": {"href": url}},
        "commit_id": v.commit_id,
        "author_association": if bot { "NONE" } else { association(m, r, &v.author.login) },
        "submitted_at": v.submitted_at,
    })
}

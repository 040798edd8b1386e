//! Operations about pull requests.

use serde_json::Value;

use super::{
    Answer, ApiError, Call,
    code::{commits_json, files_json, with_repo},
    list, ok,
};
use crate::demo::github::{
    git,
    model::{Mergeable, Pull},
    shapes,
};

fn pull(call: &Call) -> Result<Pull, ApiError> {
    Ok(call.standin.pull(call.repo, call.number("pull_number")?)?)
}

pub(super) async fn list_pulls(call: &Call) -> Answer {
    let get = |name: &str| call.query.get(name).map(String::as_str);
    let state = get("state").unwrap_or("open");
    if !["open", "closed", "all"].contains(&state) {
        return Err(ApiError::invalid("PullRequest", "state", "invalid", "state is not included in the list"));
    }
    let fits = |p: &&Pull| {
        // "List pull requests": `head` is `user:branch`; without a user it is ignored.
        let head = get("head").filter(|h| h.contains(':'));
        (state == "all" || p.open == (state == "open"))
            && get("base").is_none_or(|b| p.base == b)
            && head.is_none_or(|h| format!("{}:{}", p.head.owner, p.head.branch) == h)
    };
    let items = with_repo(call, |l, m, r| {
        let mut pulls: Vec<&Pull> = r.pulls.values().filter(fits).collect();
        if get("sort") == Some("updated") {
            pulls.sort_by_key(|p| p.updated_at);
        }
        // Newest first unless told.
        if get("direction").unwrap_or(if get("sort").is_none_or(|s| s == "created") { "desc" } else { "asc" }) == "desc"
        {
            pulls.reverse();
        }
        pulls.into_iter().map(|p| shapes::pull(l, m, r, p, false)).collect()
    })?;
    list(call, items)
}

/// "Get a pull request": `mergeable` is null until a background job, which this very request starts, has looked.
pub(super) async fn get(call: &Call) -> Answer {
    let pull = pull(call)?;
    let body = with_repo(call, |l, m, r| shapes::pull(l, m, r, &pull, true))?;
    if pull.open && pull.mergeable == Mergeable::Unknown {
        let (standin, repo, number) = (call.standin.clone(), call.repo, pull.number);
        call.standin.0.runtime.spawn(async move {
            if let Err(error) = standin.compute_mergeable(repo, number).await {
                tracing::error!(%error, number, "cannot tell whether a pull request merges");
            }
        });
    }
    ok(body)
}

pub(super) async fn commits(call: &Call) -> Answer {
    let pull = pull(call)?;
    let dir = call.standin.git_dir(call.repo);
    // "List commits on a pull request": at most 250, oldest first.
    let mut found = git::log(&dir, &[&pull.head.sha, &format!("^{}", pull.base_sha)], 250).await?;
    found.reverse();
    list(call, commits_json(call, &found)?)
}

pub(super) async fn files(call: &Call) -> Answer {
    let pull = pull(call)?;
    let dir = call.standin.git_dir(call.repo);
    let from = git::merge_base(&dir, &pull.base_sha, &pull.head.sha).await?;
    let changed = git::diff(&dir, from.as_deref(), &pull.head.sha).await?;
    let items = with_repo(call, |l, _, r| files_json(l, r, &pull.head.sha, &changed))?;
    list(call, items)
}

pub(super) async fn reviews(call: &Call) -> Answer {
    let pull = pull(call)?;
    let items: Vec<Value> =
        with_repo(call, |l, m, r| pull.reviews.iter().map(|v| shapes::review(l, m, r, &pull, v)).collect())?;
    list(call, items)
}

/// "List pull requests associated with a commit": open ones with this head, and the one that merged it.
pub(super) async fn of_commit(call: &Call) -> Answer {
    let sha = call.var("commit_sha");
    let items = with_repo(call, |l, m, r| {
        let merged = |p: &Pull| p.merged.as_ref().is_some_and(|(commit, ..)| commit == sha);
        let fits = r.pulls.values().filter(|p| p.head.sha == sha || merged(p));
        fits.map(|p| shapes::pull(l, m, r, p, false)).collect()
    })?;
    list(call, items)
}

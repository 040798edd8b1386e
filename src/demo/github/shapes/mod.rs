//! The model as GitHub's JSON: accounts, repositories, Apps, commits. Used by answers and webhooks alike.

mod items;

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::{
    git::{CommitInfo, FileChange},
    model::{App, Author, Installation, Model, Repo, User, permissions_json},
};

pub(super) use items::{
    annotation, check_run, check_suite, comment, deployment, deployment_status, pull, reaction, review, status,
};

/// Where links lead.
#[derive(Debug, Clone)]
pub(super) struct Links {
    /// `http://127.0.0.1:PORT`
    pub web: String,
    /// `http://127.0.0.1:PORT/api/v3`
    pub api: String,
}

impl Links {
    pub(super) fn repo_api(&self, repo: &Repo) -> String {
        format!("{}/repos/{}", self.api, repo.full_name())
    }

    pub(super) fn repo_web(&self, repo: &Repo) -> String {
        format!("{}/{}", self.web, repo.full_name())
    }
}

impl super::StandIn {
    pub(super) fn links(&self) -> Links {
        let web = self.0.web.as_str().trim_end_matches('/').to_owned();
        Links { api: format!("{web}/api/v3"), web }
    }
}

/// A GraphQL-like node id: opaque to everybody.
pub(super) fn node(kind: &str, id: i64) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("{kind}_{id}"))
}

/// An account.
pub(super) fn user(l: &Links, user: &User) -> Value {
    let url = format!("{}/users/{}", l.api, encode(&user.login));
    json!({
        "login": user.login,
        "id": user.id,
        "node_id": node("U", user.id),
        "avatar_url": format!("{}/avatars/{}", l.web, encode(&user.login)),
        "gravatar_id": "",
        "url": url,
        "html_url": format!("{}/{}", l.web, encode(&user.login)),
        "followers_url": format!("{url}/followers"),
        "following_url": format!("{url}/following{{/other_user}}"),
        "gists_url": format!("{url}/gists{{/gist_id}}"),
        "starred_url": format!("{url}/starred{{/owner}}{{/repo}}"),
        "subscriptions_url": format!("{url}/subscriptions"),
        "organizations_url": format!("{url}/orgs"),
        "repos_url": format!("{url}/repos"),
        "events_url": format!("{url}/events{{/privacy}}"),
        "received_events_url": format!("{url}/received_events"),
        "type": user.kind.as_str(),
        "site_admin": false,
    })
}

/// Brackets of `name[bot]` are escaped in addresses.
pub(super) fn encode(login: &str) -> String {
    login.replace('[', "%5B").replace(']', "%5D")
}

/// An account by its login; `null` for one that is gone ("ghost").
pub(super) fn login(l: &Links, m: &Model, name: &str) -> Value {
    m.user(name).map_or(Value::Null, |u| user(l, u))
}

/// Whoever wrote something.
pub(super) fn author(l: &Links, m: &Model, who: &Author) -> Value {
    login(l, m, &who.login)
}

/// The App that something was made through; `null` for people.
pub(super) fn via_app(l: &Links, m: &Model, app: Option<i64>) -> Value {
    app.and_then(|id| m.apps.get(&id)).map_or(Value::Null, |app| integration(l, m, app))
}

/// An App.
pub(super) fn integration(l: &Links, m: &Model, app: &App) -> Value {
    json!({
        "id": app.id,
        "slug": app.slug,
        "client_id": app.client_id,
        "node_id": node("A", app.id),
        "owner": login(l, m, &app.spec.owner),
        "name": app.spec.name,
        "description": null,
        "external_url": app.spec.external_url,
        "html_url": format!("{}/apps/{}", l.web, app.slug),
        "created_at": app.created_at,
        "updated_at": app.created_at,
        "permissions": permissions_json(&app.spec.permissions),
        "events": app.spec.events,
    })
}

/// An installation.
pub(super) fn installation(l: &Links, m: &Model, i: &Installation) -> Value {
    let app = m.apps.get(&i.app);
    let account = m.user(&i.account);
    json!({
        "id": i.id,
        "account": login(l, m, &i.account),
        "repository_selection": if i.repos.is_some() { "selected" } else { "all" },
        "access_tokens_url": format!("{}/app/installations/{}/access_tokens", l.api, i.id),
        "repositories_url": format!("{}/installation/repositories", l.api),
        "html_url": format!("{}/settings/installations/{}", l.web, i.id),
        "app_id": i.app,
        "app_slug": app.map(|a| a.slug.as_str()).unwrap_or_default(),
        "target_id": account.map(|u| u.id).unwrap_or_default(),
        "target_type": account.map(|u| u.kind.as_str()).unwrap_or("User"),
        "permissions": permissions_json(&i.permissions),
        "events": app.map(|a| json!(a.spec.events)).unwrap_or_else(|| json!([])),
        "created_at": i.created_at,
        "updated_at": i.suspended.as_ref().map_or(i.created_at, |(_, at)| *at),
        "single_file_name": null,
        "suspended_by": i.suspended.as_ref().map_or(Value::Null, |(who, _)| login(l, m, who)),
        "suspended_at": i.suspended.as_ref().map(|(_, at)| at),
    })
}

/// A repository as lists and payloads carry it.
pub(super) fn repo(l: &Links, m: &Model, r: &Repo) -> Value {
    let api = l.repo_api(r);
    let html = l.repo_web(r);
    let bare = html.split_once("//").map_or(html.as_str(), |(_, rest)| rest);
    let open = r.pulls.values().filter(|p| p.open).count();
    let forks = m.repos.values().filter(|f| f.fork_of == Some(r.id)).count();
    let value = json!({
        "id": r.id,
        "node_id": node("R", r.id),
        "name": r.name,
        "full_name": r.full_name(),
        "owner": login(l, m, &r.owner),
        "private": r.private,
        "html_url": html,
        "fork": r.fork_of.is_some(),
        "url": api,
        "git_url": format!("git://{bare}.git"),
        "ssh_url": format!("ssh://git@{bare}.git"),
        "clone_url": format!("{html}.git"),
        "svn_url": html,
        "forks_count": forks,
        "forks": forks,
        "default_branch": r.default_branch,
        "open_issues_count": open,
        "open_issues": open,
        "archived": r.archived,
        "visibility": if r.private { "private" } else { "public" },
        "pushed_at": r.pushed_at.unwrap_or(r.created_at),
        "created_at": r.created_at,
        "updated_at": r.pushed_at.unwrap_or(r.created_at),
    });
    let Value::Object(mut map) = value else { return value };
    if let Value::Object(same) = same_for_all() {
        map.extend(same);
    }
    add_repo_links(&mut map, &api);
    Value::Object(map)
}

/// What this stand-in's repositories have in common.
fn same_for_all() -> Value {
    json!({
        "description": null,
        "mirror_url": null,
        "homepage": null,
        "language": null,
        "license": null,
        "stargazers_count": 0,
        "watchers_count": 0,
        "watchers": 0,
        "size": 0,
        "topics": [],
        "has_issues": true,
        "has_projects": false,
        "has_wiki": false,
        "has_pages": false,
        "has_downloads": false,
        "has_discussions": false,
        "disabled": false,
        "allow_forking": true,
        "web_commit_signoff_required": false,
    })
}

fn add_repo_links(map: &mut Map<String, Value>, api: &str) {
    let links = [
        ("archive_url", "/{archive_format}{/ref}"),
        ("assignees_url", "/assignees{/user}"),
        ("blobs_url", "/git/blobs{/sha}"),
        ("branches_url", "/branches{/branch}"),
        ("collaborators_url", "/collaborators{/collaborator}"),
        ("comments_url", "/comments{/number}"),
        ("commits_url", "/commits{/sha}"),
        ("compare_url", "/compare/{base}...{head}"),
        ("contents_url", "/contents/{+path}"),
        ("contributors_url", "/contributors"),
        ("deployments_url", "/deployments"),
        ("downloads_url", "/downloads"),
        ("events_url", "/events"),
        ("forks_url", "/forks"),
        ("git_commits_url", "/git/commits{/sha}"),
        ("git_refs_url", "/git/refs{/sha}"),
        ("git_tags_url", "/git/tags{/sha}"),
        ("hooks_url", "/hooks"),
        ("issue_comment_url", "/issues/comments{/number}"),
        ("issue_events_url", "/issues/events{/number}"),
        ("issues_url", "/issues{/number}"),
        ("keys_url", "/keys{/key_id}"),
        ("labels_url", "/labels{/name}"),
        ("languages_url", "/languages"),
        ("merges_url", "/merges"),
        ("milestones_url", "/milestones{/number}"),
        ("notifications_url", "/notifications{?since,all,participating}"),
        ("pulls_url", "/pulls{/number}"),
        ("releases_url", "/releases{/id}"),
        ("stargazers_url", "/stargazers"),
        ("statuses_url", "/statuses/{sha}"),
        ("subscribers_url", "/subscribers"),
        ("subscription_url", "/subscription"),
        ("tags_url", "/tags"),
        ("teams_url", "/teams"),
        ("trees_url", "/git/trees{/sha}"),
    ];
    for (name, path) in links {
        map.insert(name.to_owned(), Value::from(format!("{api}{path}")));
    }
}

/// A repository as its own page in the API carries it.
pub(super) fn full_repo(l: &Links, m: &Model, r: &Repo) -> Value {
    let mut value = repo(l, m, r);
    value["subscribers_count"] = json!(0);
    value["network_count"] = value["forks_count"].clone();
    if let Some(parent) = r.fork_of.and_then(|id| m.repos.get(&id)) {
        value["parent"] = repo(l, m, parent);
        value["source"] = repo(l, m, parent);
    }
    value
}

/// A repository in a `push` payload: times are numbers there, and the owner has a name and an address
/// ("Webhook events and payloads", `push`).
pub(super) fn push_repo(l: &Links, m: &Model, r: &Repo) -> Value {
    let mut value = repo(l, m, r);
    value["created_at"] = json!(r.created_at.as_second());
    value["pushed_at"] = json!(r.pushed_at.unwrap_or(r.created_at).as_second());
    value["master_branch"] = json!(r.default_branch);
    value["stargazers"] = json!(0);
    value["owner"]["name"] = json!(r.owner);
    value["owner"]["email"] = json!(format!("{}@users.noreply.github.com", r.owner));
    value
}

fn person(m: &Model, who: &(String, String, jiff::Timestamp)) -> Option<String> {
    let login = who.1.strip_suffix("@users.noreply.github.com").unwrap_or(&who.0);
    m.user(login).map(|u| u.login.clone())
}

fn account(l: &Links, m: &Model, who: &(String, String, jiff::Timestamp)) -> Value {
    // A commit by somebody unknown to GitHub has no account ("Get a commit": author is null).
    person(m, who).map_or(Value::Null, |name| login(l, m, &name))
}

/// A commit as the API shows it, without files.
pub(super) fn commit(l: &Links, m: &Model, r: &Repo, c: &CommitInfo) -> Value {
    let api = l.repo_api(r);
    let html = l.repo_web(r);
    let url = format!("{api}/commits/{}", c.sha);
    let git = format!("{api}/git/commits/{}", c.sha);
    let parent = |sha: &String| json!({"sha": sha, "url": format!("{api}/commits/{sha}"), "html_url": format!("{html}/commit/{sha}")});
    json!({
        "url": url,
        "sha": c.sha,
        "node_id": node("C", r.id),
        "html_url": format!("{html}/commit/{}", c.sha),
        "comments_url": format!("{url}/comments"),
        "commit": {
            "url": git,
            "author": {"name": c.author.0, "email": c.author.1, "date": c.author.2},
            "committer": {"name": c.committer.0, "email": c.committer.1, "date": c.committer.2},
            "message": c.message,
            "tree": {"sha": c.tree, "url": format!("{api}/git/trees/{}", c.tree)},
            "comment_count": 0,
            "verification": {
                "verified": false, "reason": "unsigned", "signature": null, "payload": null, "verified_at": null,
            },
        },
        "author": account(l, m, &c.author),
        "committer": account(l, m, &c.committer),
        "parents": c.parents.iter().map(parent).collect::<Vec<_>>(),
    })
}

/// A changed file of a commit or a comparison.
pub(super) fn file(l: &Links, r: &Repo, sha: &str, f: &FileChange) -> Value {
    let status = match f.kind {
        'A' => "added",
        'D' => "removed",
        _ => "modified",
    };
    let (api, html, path) = (l.repo_api(r), l.repo_web(r), url_path(&f.path));
    json!({
        "sha": f.blob,
        "filename": f.path,
        "status": status,
        "additions": f.additions,
        "deletions": f.deletions,
        "changes": f.additions + f.deletions,
        "blob_url": format!("{html}/blob/{sha}/{path}"),
        "raw_url": format!("{html}/raw/{sha}/{path}"),
        "contents_url": format!("{api}/contents/{path}?ref={sha}"),
    })
}

/// A path inside an address.
pub(super) fn url_path(path: &str) -> String {
    let mut out = String::new();
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A commit as a `push` payload carries it.
pub(super) fn push_commit(l: &Links, m: &Model, r: &Repo, c: &CommitInfo, files: &[FileChange]) -> Value {
    let who = |p: &(String, String, jiff::Timestamp)| {
        let mut value = json!({"name": p.0, "email": p.1, "date": p.2});
        if let Some(login) = person(m, p) {
            value["username"] = json!(login);
        }
        value
    };
    let of = |kinds: &[char]| {
        let mine = files.iter().filter(|f| kinds.contains(&f.kind));
        mine.map(|f| f.path.as_str()).collect::<Vec<_>>()
    };
    json!({
        "id": c.sha,
        "tree_id": c.tree,
        "distinct": true,
        "message": c.message,
        "timestamp": c.committer.2,
        "url": format!("{}/commit/{}", l.repo_web(r), c.sha),
        "author": who(&c.author),
        "committer": who(&c.committer),
        "added": of(&['A']),
        "removed": of(&['D']),
        "modified": of(&['M', 'T']),
    })
}

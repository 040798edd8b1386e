//! What a push sets off: events by comparing refs before and after, pull requests that follow their branches.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{StandIn, StandInError, repo_mut, repo_of};
use crate::demo::github::{
    git::{self, ZERO},
    model::{Activity, ActivityKind, CheckSuite, Level, Mergeable, now},
    shapes,
};

/// "Webhook events and payloads", `push`: no events when more than three tags are pushed at once.
const MAX_TAGS: usize = 3;
/// "Webhook events and payloads", `push`: at most 2048 commits in the payload.
const MAX_COMMITS: usize = 2048;

/// One ref that moved.
struct Moved {
    name: String,
    before: String,
    after: String,
}

impl StandIn {
    /// Records a push and sends its events. `before` and `after` are all refs around it.
    pub(in crate::demo::github) async fn after_push(
        &self,
        repo: i64,
        login: &str,
        before: &BTreeMap<String, String>,
        after: &BTreeMap<String, String>,
    ) -> Result<(), StandInError> {
        let ours = |n: &&String| n.starts_with("refs/heads/") || n.starts_with("refs/tags/");
        let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).filter(ours).collect();
        let zero = ZERO.to_owned();
        let mut moved: Vec<Moved> = Vec::new();
        for name in names {
            let old = before.get(name).unwrap_or(&zero);
            let new = after.get(name).unwrap_or(&zero);
            if old != new {
                moved.push(Moved { name: name.clone(), before: old.clone(), after: new.clone() });
            }
        }
        let tags = moved.iter().filter(|m| m.name.starts_with("refs/tags/")).count();
        for one in &moved {
            let tag = one.name.starts_with("refs/tags/");
            self.push_event(repo, login, one, tag && tags > MAX_TAGS, None).await?;
        }
        Ok(())
    }

    /// One ref's push. `kind` says how it came about when it was no push.
    async fn push_event(
        &self,
        repo: i64,
        login: &str,
        moved: &Moved,
        silent: bool,
        kind: Option<ActivityKind>,
    ) -> Result<(), StandInError> {
        let dir = self.git_dir(repo);
        let (created, deleted) = (moved.before == ZERO, moved.after == ZERO);
        let forced = !created && !deleted && !git::is_ancestor(&dir, &moved.before, &moved.after).await?;
        self.write(|m| {
            let id = m.big_id();
            let repo = repo_mut(m, repo)?;
            repo.pushed_at = Some(now());
            let kind = kind.unwrap_or(match (created, deleted, forced) {
                (true, ..) => ActivityKind::Creation,
                (_, true, _) => ActivityKind::Deletion,
                (_, _, true) => ActivityKind::ForcePush,
                _ => ActivityKind::Push,
            });
            if moved.name.starts_with("refs/heads/") {
                repo.activity.push(Activity {
                    id,
                    before: moved.before.clone(),
                    after: moved.after.clone(),
                    git_ref: moved.name.clone(),
                    at: now(),
                    kind,
                    actor: login.to_owned(),
                });
            }
            Ok::<(), StandInError>(())
        })?;
        if !silent {
            let payload = self.push_payload(repo, login, moved, (created, deleted, forced)).await?;
            self.emit(repo, "push", &payload, None);
            self.created_or_deleted(repo, login, moved);
        }
        if let Some(branch) = moved.name.strip_prefix("refs/heads/") {
            if !deleted {
                self.request_suites(repo, branch, moved, login).await?;
            }
            self.follow_branch(repo, branch, moved, login).await?;
        }
        Ok(())
    }

    async fn push_payload(
        &self,
        repo: i64,
        login: &str,
        moved: &Moved,
        (created, deleted, forced): (bool, bool, bool),
    ) -> Result<Value, StandInError> {
        let dir = self.git_dir(repo);
        let not_before = format!("^{}", moved.before);
        let mut commits = match (created, deleted) {
            (_, true) => Vec::new(),
            (false, false) => git::log(&dir, &[&moved.after, &not_before], MAX_COMMITS).await?,
            // A new branch lists what no other branch has.
            (true, false) => {
                let others = git::refs(&dir).await?;
                let others = others.iter().filter(|(n, _)| n.starts_with("refs/heads/") && **n != moved.name);
                let others: Vec<String> = others.map(|(_, sha)| format!("^{sha}")).collect();
                let mut range = vec![moved.after.as_str()];
                range.extend(others.iter().map(String::as_str));
                git::log(&dir, &range, MAX_COMMITS).await?
            }
        };
        commits.reverse();
        let mut listed = Vec::new();
        for commit in &commits {
            // Files are told for the first commits only: nobody reads those of the 2000th.
            let files = if listed.len() < 20 {
                git::diff(&dir, commit.parents.first().map(String::as_str), &commit.sha).await?
            } else {
                Vec::new()
            };
            listed.push((commit, files));
        }
        let head = match (deleted, commits.last()) {
            (true, _) => None,
            (_, Some(last)) => Some((last.clone(), listed.last().map(|(_, f)| f.clone()).unwrap_or_default())),
            (false, None) => Some((git::commit(&dir, &moved.after).await?, Vec::new())),
        };
        self.read(|m| {
            let l = self.links();
            let r = repo_of(m, repo)?;
            let mut value = self.envelope(m, r, login);
            value["repository"] = shapes::push_repo(&l, m, r);
            value["ref"] = json!(moved.name);
            value["before"] = json!(moved.before);
            value["after"] = json!(moved.after);
            value["created"] = json!(created);
            value["deleted"] = json!(deleted);
            value["forced"] = json!(forced);
            value["base_ref"] = Value::Null;
            value["compare"] = json!(format!("{}/compare/{}...{}", l.repo_web(r), moved.before, moved.after));
            value["commits"] = listed.iter().map(|(c, f)| shapes::push_commit(&l, m, r, c, f)).collect();
            value["head_commit"] = head.as_ref().map_or(Value::Null, |(c, f)| shapes::push_commit(&l, m, r, c, f));
            value["pusher"] = json!({"name": login, "email": format!("{login}@users.noreply.github.com")});
            Ok(value)
        })
    }

    fn created_or_deleted(&self, repo: i64, login: &str, moved: &Moved) {
        let event = match (moved.before == ZERO, moved.after == ZERO) {
            (true, _) => "create",
            (_, true) => "delete",
            _ => return,
        };
        let (kind, name) = match moved.name.strip_prefix("refs/heads/") {
            Some(branch) => ("branch", branch),
            None => ("tag", moved.name.trim_start_matches("refs/tags/")),
        };
        let payload = self.read(|m| {
            let r = m.repos.get(&repo)?;
            let mut value = self.envelope(m, r, login);
            value["ref"] = json!(name);
            value["ref_type"] = json!(kind);
            value["pusher_type"] = json!("user");
            if event == "create" {
                value["master_branch"] = json!(r.default_branch);
                value["description"] = Value::Null;
            }
            Some(value)
        });
        if let Some(payload) = payload {
            self.emit(repo, event, &payload, None);
        }
    }

    /// GitHub makes a check suite per pushed commit and App with `checks: write` ("REST API endpoints for check
    /// suites": created automatically when code is pushed).
    async fn request_suites(&self, repo: i64, branch: &str, moved: &Moved, login: &str) -> Result<(), StandInError> {
        let head = git::commit(&self.git_dir(repo), &moved.after).await?;
        let apps: Vec<i64> = self.read(|m| {
            let Some(repo) = m.repos.get(&repo) else { return Vec::new() };
            let checks = |p: &BTreeMap<String, Level>| p.get("checks") == Some(&Level::Write);
            let of = m.installations.values().filter(|i| i.covers(repo) && checks(&i.permissions));
            of.map(|i| i.app).collect()
        });
        for app in apps {
            let (suite, new) = self.suite(repo, app, &moved.after, Some(branch), Some(&moved.before))?;
            if new {
                self.tell_suite(repo, suite, "requested", &head, login);
            }
        }
        Ok(())
    }

    /// The suite of an App on a commit, made if missing; `true` if it was.
    pub(in crate::demo::github) fn suite(
        &self,
        repo: i64,
        app: i64,
        sha: &str,
        branch: Option<&str>,
        before: Option<&str>,
    ) -> Result<(i64, bool), StandInError> {
        self.write(|m| {
            let id = m.big_id();
            let repo = repo_mut(m, repo)?;
            if let Some(suite) = repo.suites.values().find(|s| s.app == app && s.head_sha == sha) {
                return Ok((suite.id, false));
            }
            let suite = CheckSuite {
                id,
                app,
                head_branch: branch.map(str::to_owned),
                head_sha: sha.to_owned(),
                before: before.map(str::to_owned),
                reset: false,
                created_at: now(),
                updated_at: now(),
            };
            repo.suites.insert(id, suite);
            Ok((id, true))
        })
    }

    /// Pull requests from and into a branch that moved.
    async fn follow_branch(&self, repo: i64, branch: &str, moved: &Moved, login: &str) -> Result<(), StandInError> {
        let deleted = moved.after == ZERO;
        for (base_repo, number) in self.read(|m| m.pulls_of_branch(repo, branch)) {
            if deleted {
                // "Deleting and restoring branches in a pull request": its pull request is closed.
                self.close_pull(base_repo, number, login)?;
                continue;
            }
            self.fetch_pull_head(base_repo, number, &moved.after).await?;
            self.write(|m| {
                if let Some(pull) = m.repos.get_mut(&base_repo).and_then(|r| r.pulls.get_mut(&number)) {
                    pull.head.sha.clone_from(&moved.after);
                    pull.mergeable = Mergeable::Unknown;
                    pull.updated_at = now();
                }
            });
            self.measure_pull(base_repo, number).await?;
            let more = json!({"before": moved.before, "after": moved.after});
            self.tell_pull(base_repo, number, "synchronize", login, more);
        }
        let into: Vec<(i64, String)> = self.read(|m| {
            let Some(repo) = m.repos.get(&repo) else { return Vec::new() };
            let open = repo.pulls.values().filter(|p| p.open && p.base == branch);
            open.map(|p| (p.number, p.head.sha.clone())).collect()
        });
        for (number, head) in into {
            if deleted {
                self.close_pull(repo, number, login)?;
                continue;
            }
            // A push that brings the head along has merged it ("About pull request merges", indirect merges).
            let merged = git::is_ancestor(&self.git_dir(repo), &head, &moved.after).await?;
            self.write(|m| {
                if let Some(pull) = m.repos.get_mut(&repo).and_then(|r| r.pulls.get_mut(&number)) {
                    // No event: that the base moved is never told.
                    pull.base_sha.clone_from(&moved.after);
                    pull.mergeable = Mergeable::Unknown;
                }
            });
            if merged {
                self.mark_merged(repo, number, &moved.after, login)?;
            }
        }
        Ok(())
    }

    /// Moves a branch on GitHub's own account, such as a merge does, and tells it as a push.
    pub(in crate::demo::github) async fn advance(
        &self,
        repo: i64,
        name: &str,
        before: &str,
        after: &str,
        login: &str,
        kind: ActivityKind,
    ) -> Result<(), StandInError> {
        git::move_ref(&self.git_dir(repo), name, after, before).await?;
        let moved = Moved { name: name.to_owned(), before: before.to_owned(), after: after.to_owned() };
        self.push_event(repo, login, &moved, false, Some(kind)).await
    }
}

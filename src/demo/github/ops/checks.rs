//! Checks as people and webhooks see them: re-run, buttons, what is told when one is made or ends.

use serde_json::{Value, json};

use super::{StandIn, StandInError, repo_of};
use crate::demo::github::{
    git::{self, CommitInfo},
    model::{CheckRun, now},
    shapes,
};

impl StandIn {
    /// A copy of a check run.
    ///
    /// # Errors
    /// There is none of this number.
    pub fn check(&self, repo: i64, check: i64) -> Result<CheckRun, StandInError> {
        let found = self.read(|m| Ok::<_, StandInError>(repo_of(m, repo)?.checks.get(&check).cloned()))?;
        found.ok_or_else(|| StandInError::NotFound(format!("check run {check}")))
    }

    /// Somebody presses "Re-run" on a check: `check_run.rerequested` to its App. The suite is queued again, the run
    /// itself is left as it is ("Rerequest a check run").
    ///
    /// # Errors
    /// There is no such check, or it has not ended.
    pub fn rerequest_check(&self, repo: i64, check: i64, login: &str) -> Result<(), StandInError> {
        let run = self.check(repo, check)?;
        if run.status != "completed" {
            return Err(StandInError::Refused("This check run is not rerequestable".to_owned()));
        }
        self.reset_suite(repo, run.suite);
        self.tell_check(repo, check, "rerequested", login, json!({}));
        Ok(())
    }

    /// Somebody presses one of a check's own buttons: `check_run.requested_action` to its App.
    ///
    /// # Errors
    /// There is no such check or button, or it has not ended: buttons show on completed checks only
    /// ("Using the REST API to interact with checks", check runs and requested actions).
    pub fn press(&self, repo: i64, check: i64, identifier: &str, login: &str) -> Result<(), StandInError> {
        let run = self.check(repo, check)?;
        if run.status != "completed" || !run.actions.iter().any(|a| a.identifier == identifier) {
            return Err(StandInError::NotFound(format!("button {identifier:?} on check {:?}", run.name)));
        }
        let more = json!({"requested_action": {"identifier": identifier}});
        self.tell_check(repo, check, "requested_action", login, more);
        Ok(())
    }

    /// Somebody presses "Re-run all checks": `check_suite.rerequested` to its App.
    ///
    /// # Errors
    /// There is no such suite.
    pub async fn rerequest_suite(&self, repo: i64, suite: i64, login: &str) -> Result<(), StandInError> {
        let sha = self.read(|m| {
            let found = repo_of(m, repo)?.suites.get(&suite).map(|s| s.head_sha.clone());
            found.ok_or_else(|| StandInError::NotFound(format!("check suite {suite}")))
        })?;
        let head = git::commit(&self.git_dir(repo), &sha).await?;
        self.reset_suite(repo, suite);
        self.tell_suite(repo, suite, "rerequested", &head, login);
        Ok(())
    }

    /// "Rerequest a check suite": its status is reset to queued and its conclusion cleared.
    fn reset_suite(&self, repo: i64, suite: i64) {
        self.write(|m| {
            if let Some(suite) = m.repos.get_mut(&repo).and_then(|r| r.suites.get_mut(&suite)) {
                (suite.reset, suite.updated_at) = (true, now());
            }
        });
    }

    /// Sends a `check_run` event. Only the check's own App hears of clicks; every App that asked hears of the rest.
    pub(in crate::demo::github) fn tell_check(&self, repo: i64, check: i64, action: &str, login: &str, more: Value) {
        let payload = self.read(|m| {
            let r = m.repos.get(&repo)?;
            let c = r.checks.get(&check)?;
            let l = self.links();
            let mut value = self.envelope(m, r, login);
            value["action"] = json!(action);
            let mut run = shapes::check_run(&l, m, r, c);
            if let Some(suite) = r.suites.get(&c.suite) {
                run["check_suite"] = json!({
                    "id": suite.id,
                    "node_id": shapes::node("CS", suite.id),
                    "head_branch": suite.head_branch,
                    "head_sha": suite.head_sha,
                    "before": suite.before,
                    "after": suite.head_sha,
                    "url": format!("{}/check-suites/{}", l.repo_api(r), suite.id),
                    "app": run["app"],
                    "pull_requests": run["pull_requests"],
                    "created_at": suite.created_at,
                    "updated_at": suite.updated_at,
                });
            }
            value["check_run"] = run;
            if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
                value.extend(more);
            }
            Some((c.app, value))
        });
        if let Some((app, payload)) = payload {
            let clicked = matches!(action, "rerequested" | "requested_action");
            self.emit(repo, "check_run", &payload, clicked.then_some(app));
        }
    }

    /// Sends a `check_suite` event to the suite's App.
    pub(in crate::demo::github) fn tell_suite(
        &self,
        repo: i64,
        suite: i64,
        action: &str,
        head: &CommitInfo,
        login: &str,
    ) {
        let payload = self.read(|m| {
            let r = m.repos.get(&repo)?;
            let s = r.suites.get(&suite)?;
            let mut value = self.envelope(m, r, login);
            value["action"] = json!(action);
            let mut shown = shapes::check_suite(&self.links(), m, r, s, head);
            // The event has the repository beside it, not inside.
            if let Some(shown) = shown.as_object_mut() {
                shown.remove("repository");
            }
            value["check_suite"] = shown;
            Some((s.app, value))
        });
        if let Some((app, payload)) = payload {
            self.emit(repo, "check_suite", &payload, Some(app));
        }
    }
}

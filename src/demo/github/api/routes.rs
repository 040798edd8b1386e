//! The operations: method, path, who may, what answers.

use std::collections::HashMap;

use super::{Call, Handler, Need, apps, checks, code, deployments, people, pulls, talk};
use crate::demo::github::model::Level::{Read, Write};

/// One operation.
pub(super) struct Route {
    method: &'static str,
    /// Segments by `/`; `{name}` takes one, `{name+}` one or more.
    path: &'static str,
    pub(super) need: Need,
    pub(super) handler: Handler,
}

impl Route {
    /// The path as GitHub's description writes it.
    pub(super) fn template(&self) -> String {
        self.path.replace("+}", "}")
    }
}

macro_rules! routes {
    ($($method:ident $path:literal $need:expr => $handler:path;)*) => {
        &[$(Route { method: stringify!($method), path: $path, need: $need, handler: |c: &Call| Box::pin($handler(c)) }),*]
    };
}

const META: Need = Need::Repo(&["metadata"], Read);
const CODE: Need = Need::Repo(&["contents"], Read);
const PULLS: Need = Need::Repo(&["pull_requests"], Read);
const CHECKS: Need = Need::Repo(&["checks"], Read);
const CHECKS_WRITE: Need = Need::Repo(&["checks"], Write);
const STATUSES: Need = Need::Repo(&["statuses"], Read);
const DEPLOYMENTS: Need = Need::Repo(&["deployments"], Read);
const DEPLOYMENTS_WRITE: Need = Need::Repo(&["deployments"], Write);
/// Comments of pull requests take either ("Permissions required for GitHub Apps", issues and pull requests).
const TALK: Need = Need::Repo(&["issues", "pull_requests"], Read);
const TALK_WRITE: Need = Need::Repo(&["issues", "pull_requests"], Write);

const ROUTES: &[Route] = routes! {
    GET "/app" Need::Jwt => apps::app;
    GET "/app/installations" Need::Jwt => apps::installations;
    GET "/app/installations/{installation_id}" Need::Jwt => apps::installation;
    POST "/app/installations/{installation_id}/access_tokens" Need::Jwt => apps::access_token;
    GET "/app/hook/deliveries" Need::Jwt => apps::deliveries;
    GET "/app/hook/deliveries/{delivery_id}" Need::Jwt => apps::delivery;
    POST "/app/hook/deliveries/{delivery_id}/attempts" Need::Jwt => apps::redeliver;
    POST "/app-manifests/{code}/conversions" Need::Nothing => apps::convert;
    GET "/repos/{owner}/{repo}/installation" Need::Jwt => apps::repo_installation;
    GET "/installation/repositories" Need::Token => apps::repositories;
    DELETE "/installation/token" Need::Token => apps::revoke;
    GET "/rate_limit" Need::Nothing => people::rate_limit;
    GET "/users/{username}" Need::Nothing => people::user;
    GET "/orgs/{org}/teams/{team_slug}/memberships/{username}" Need::Org("members") => people::team_membership;
    GET "/repos/{owner}/{repo}/collaborators/{username}/permission" META => people::permission;
    GET "/repos/{owner}/{repo}" META => code::repo;
    GET "/repos/{owner}/{repo}/branches" CODE => code::branches;
    GET "/repos/{owner}/{repo}/branches/{branch+}" CODE => code::branch;
    GET "/repos/{owner}/{repo}/git/matching-refs/{ref+}" CODE => code::matching_refs;
    GET "/repos/{owner}/{repo}/git/ref/{ref+}" CODE => code::git_ref;
    GET "/repos/{owner}/{repo}/activity" CODE => code::activity;
    GET "/repos/{owner}/{repo}/compare/{basehead+}" CODE => code::compare;
    GET "/repos/{owner}/{repo}/contents/{path+}" CODE => code::contents;
    GET "/repos/{owner}/{repo}/commits" CODE => code::commits;
    GET "/repos/{owner}/{repo}/commits/{ref+}/check-runs" CHECKS => checks::of_commit;
    GET "/repos/{owner}/{repo}/commits/{ref+}/check-suites" CHECKS => checks::suites_of_commit;
    GET "/repos/{owner}/{repo}/commits/{ref+}/status" STATUSES => checks::combined_status;
    GET "/repos/{owner}/{repo}/commits/{ref+}/statuses" STATUSES => checks::statuses;
    GET "/repos/{owner}/{repo}/commits/{commit_sha}/pulls" PULLS => pulls::of_commit;
    GET "/repos/{owner}/{repo}/commits/{ref+}" CODE => code::commit;
    POST "/repos/{owner}/{repo}/statuses/{sha}" Need::Repo(&["statuses"], Write) => checks::create_status;
    GET "/repos/{owner}/{repo}/pulls" PULLS => pulls::list_pulls;
    GET "/repos/{owner}/{repo}/pulls/{pull_number}" PULLS => pulls::get;
    GET "/repos/{owner}/{repo}/pulls/{pull_number}/commits" PULLS => pulls::commits;
    GET "/repos/{owner}/{repo}/pulls/{pull_number}/files" PULLS => pulls::files;
    GET "/repos/{owner}/{repo}/pulls/{pull_number}/reviews" PULLS => pulls::reviews;
    GET "/repos/{owner}/{repo}/pulls/comments/{comment_id}/reactions" PULLS => talk::line_reactions;
    POST "/repos/{owner}/{repo}/pulls/comments/{comment_id}/reactions" Need::Repo(&["pull_requests"], Write) => talk::react_line;
    POST "/repos/{owner}/{repo}/check-runs" CHECKS_WRITE => checks::create;
    GET "/repos/{owner}/{repo}/check-runs/{check_run_id}" CHECKS => checks::get;
    PATCH "/repos/{owner}/{repo}/check-runs/{check_run_id}" CHECKS_WRITE => checks::update;
    GET "/repos/{owner}/{repo}/check-runs/{check_run_id}/annotations" CHECKS => checks::annotations;
    POST "/repos/{owner}/{repo}/check-runs/{check_run_id}/rerequest" CHECKS_WRITE => checks::rerequest;
    GET "/repos/{owner}/{repo}/check-suites/{check_suite_id}/check-runs" CHECKS => checks::of_suite;
    POST "/repos/{owner}/{repo}/check-suites/{check_suite_id}/rerequest" CHECKS_WRITE => checks::rerequest_suite;
    GET "/repos/{owner}/{repo}/deployments" DEPLOYMENTS => deployments::list_all;
    POST "/repos/{owner}/{repo}/deployments" DEPLOYMENTS_WRITE => deployments::create;
    GET "/repos/{owner}/{repo}/deployments/{deployment_id}" DEPLOYMENTS => deployments::get;
    GET "/repos/{owner}/{repo}/deployments/{deployment_id}/statuses" DEPLOYMENTS => deployments::statuses;
    POST "/repos/{owner}/{repo}/deployments/{deployment_id}/statuses" DEPLOYMENTS_WRITE => deployments::create_status;
    GET "/repos/{owner}/{repo}/issues/{issue_number}/comments" TALK => talk::comments;
    POST "/repos/{owner}/{repo}/issues/{issue_number}/comments" TALK_WRITE => talk::create;
    GET "/repos/{owner}/{repo}/issues/comments/{comment_id}" TALK => talk::get;
    PATCH "/repos/{owner}/{repo}/issues/comments/{comment_id}" TALK_WRITE => talk::update;
    GET "/repos/{owner}/{repo}/comments/{comment_id}/reactions" META => talk::commit_reactions;
    POST "/repos/{owner}/{repo}/comments/{comment_id}/reactions" TALK_WRITE => talk::react_commit;
    GET "/repos/{owner}/{repo}/issues/comments/{comment_id}/reactions" TALK => talk::reactions;
    POST "/repos/{owner}/{repo}/issues/comments/{comment_id}/reactions" TALK_WRITE => talk::react;
};

/// The operation of a request, with the variables of its path, percent-decoded.
pub(super) fn find(method: &str, path: &str) -> Option<(&'static Route, HashMap<&'static str, String>)> {
    let given: Vec<&str> = path.trim_matches('/').split('/').collect();
    ROUTES.iter().filter(|r| r.method == method).find_map(|route| Some((route, matches(route.path, &given)?)))
}

fn matches(template: &'static str, given: &[&str]) -> Option<HashMap<&'static str, String>> {
    let wanted: Vec<&'static str> = template.trim_matches('/').split('/').collect();
    let spread = wanted.iter().position(|s| s.ends_with("+}"));
    if given.len() < wanted.len() || (spread.is_none() && given.len() != wanted.len()) {
        return None;
    }
    let extra = given.len() - wanted.len();
    let mut vars = HashMap::new();
    let mut at = 0;
    for (i, segment) in wanted.iter().enumerate() {
        let take = if spread == Some(i) { extra + 1 } else { 1 };
        let text = given.get(at..at + take)?.join("/");
        at += take;
        match segment.strip_prefix('{') {
            Some(name) => {
                if text.is_empty() {
                    return None;
                }
                vars.insert(name.trim_end_matches(['+', '}']), decode(&text));
            }
            None if *segment == text => {}
            None => return None,
        }
    }
    Some(vars)
}

fn decode(text: &str) -> String {
    // `form_urlencoded` would read "+" as a blank, "&" as the next pair, which paths do not.
    let text = text.replace('+', "%2B").replace('&', "%26");
    let pairs = format!("x={text}");
    url::form_urlencoded::parse(pairs.as_bytes()).next().map(|(_, v)| v.into_owned()).unwrap_or_default()
}

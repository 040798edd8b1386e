//! Check runs and commit statuses.
//!
//! Sources: "REST API endpoints for check runs", "REST API endpoints for commit statuses".

use http::Method;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    auth::Purpose,
    call::{Call, Identity},
    client::GitHub,
    error::GitHubError,
    limits::Cost,
    text::{cut_chars, fit_markdown, head, tail},
};
use crate::domain::{
    check::{Annotation, AnnotationLevel, CheckAction, CheckRun, CheckStatus},
    ids::{RepoRef, Sha},
};

/// More annotations of one check than this are not sent: each 50 are a request, and nobody reads so many.
pub const MAX_ANNOTATIONS: usize = 500;

/// "a maximum of 50 per API request"
const BATCH: usize = 50;
/// GitHub says 65,535 characters; the rest is headroom, and bytes are counted to be on the safe side.
const LONGEST_MARKDOWN: usize = 65_000;
const LONGEST_TITLE: usize = 255;
/// GitHub says 64 KB.
const LONGEST_ANNOTATION: usize = 64_000;
const ACTIONS: usize = 3;

/// A check run on a commit, anybody's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "WireCheck")]
pub struct SeenCheck {
    /// GitHub's number.
    pub id: i64,
    /// Shown name.
    pub name: String,
    /// The App that wrote it, if it still exists.
    pub app_id: Option<i64>,
    /// The writer's own key.
    pub external_id: Option<String>,
    /// `queued`, `in_progress`, `completed`, and words that only GitHub Actions uses.
    pub status: String,
    /// `success`, `failure` and so on; none while it runs.
    pub conclusion: Option<String>,
    /// Where its details stand.
    pub details_url: Option<String>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// How many annotations it has.
    pub annotations: usize,
}

#[derive(Deserialize)]
struct WireCheck {
    id: i64,
    name: String,
    #[serde(default)]
    app: Option<WireApp>,
    #[serde(default)]
    external_id: Option<String>,
    status: String,
    #[serde(default)]
    conclusion: Option<String>,
    #[serde(default)]
    details_url: Option<String>,
    #[serde(default)]
    completed_at: Option<Timestamp>,
    #[serde(default)]
    output: Option<WireOutput>,
}

#[derive(Deserialize)]
struct WireApp {
    id: i64,
}

#[derive(Deserialize)]
struct WireOutput {
    #[serde(default)]
    annotations_count: Option<usize>,
}

impl From<WireCheck> for SeenCheck {
    fn from(wire: WireCheck) -> Self {
        Self {
            id: wire.id,
            name: wire.name,
            app_id: wire.app.map(|a| a.id),
            external_id: wire.external_id.filter(|e| !e.is_empty()),
            status: wire.status,
            conclusion: wire.conclusion,
            details_url: wire.details_url,
            completed_at: wire.completed_at,
            annotations: wire.output.and_then(|o| o.annotations_count).unwrap_or(0),
        }
    }
}

#[derive(Deserialize)]
struct CheckList {
    check_runs: Vec<SeenCheck>,
}

/// The newest status of one context on a commit: the older way of other people's CI.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CommitStatus {
    /// Its name.
    pub context: String,
    /// `success`, `pending`, `failure` or `error`.
    pub state: String,
    /// Where its details stand.
    #[serde(default)]
    pub target_url: Option<String>,
}

#[derive(Deserialize)]
struct CombinedStatus {
    statuses: Vec<CommitStatus>,
}

#[derive(Deserialize)]
struct Created {
    id: i64,
}

/// Body of "Create a check run" and "Update a check run".
#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    // A check run stays on its commit: only for creating.
    #[serde(skip_serializing_if = "Option::is_none")]
    head_sha: Option<&'a Sha>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<CheckStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conclusion: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<String>,
    output: Output<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actions: Option<Vec<CheckAction>>,
}

#[derive(Serialize, Clone)]
struct Output<'a> {
    title: &'a str,
    summary: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    annotations: &'a [WireAnnotation],
}

#[derive(Serialize)]
struct WireAnnotation {
    path: String,
    start_line: u32,
    end_line: u32,
    annotation_level: AnnotationLevel,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_details: Option<String>,
}

/// As GitHub takes it, or none where no path is left: one bad annotation would have the whole request refused.
fn annotation(a: &Annotation) -> Option<WireAnnotation> {
    let mut path = a.path.as_str();
    while let Some(rest) = path.strip_prefix("./").or_else(|| path.strip_prefix('/')) {
        path = rest;
    }
    if path.is_empty() || path == "." || path.split('/').any(|p| p == "..") || path.contains('\0') {
        return None;
    }
    let start_line = a.start_line.max(1);
    let message = if a.message.trim().is_empty() { "(no message)" } else { &a.message };
    Some(WireAnnotation {
        path: path.to_owned(),
        start_line,
        end_line: a.end_line.max(start_line),
        annotation_level: a.level,
        message: head(message, LONGEST_ANNOTATION).to_owned(),
        title: a.title.as_deref().filter(|t| !t.is_empty()).map(|t| cut_chars(t, LONGEST_TITLE)),
        // A stack trace; its end says most.
        raw_details: a.raw_details.as_deref().filter(|d| !d.is_empty()).map(|d| tail(d, LONGEST_ANNOTATION).to_owned()),
    })
}

/// "at most 3"; label 20, description 40, identifier 20 characters. An identifier cannot be cut: it comes back.
fn actions(check: &CheckRun) -> Vec<CheckAction> {
    if check.status != CheckStatus::Completed {
        return Vec::new();
    }
    let fits = |a: &&CheckAction| (1..=20).contains(&a.identifier.chars().count());
    let cut = |a: &CheckAction| CheckAction {
        label: cut_chars(&a.label, 20),
        description: cut_chars(&a.description, 40),
        identifier: a.identifier.clone(),
    };
    check.actions.iter().filter(fits).take(ACTIONS).map(cut).collect()
}

/// `YYYY-MM-DDTHH:MM:SSZ`, as the pages write it.
fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A check run cut to GitHub's limits.
struct Fitted<'a> {
    check: &'a CheckRun,
    title: String,
    summary: String,
    text: Option<String>,
    annotations: Vec<WireAnnotation>,
}

impl<'a> Fitted<'a> {
    fn new(check: &'a CheckRun) -> Result<Self, GitHubError> {
        let wrong = |what: &str| GitHubError::Invalid { message: format!("the check run {:?} {what}", check.name) };
        match (check.status, check.conclusion) {
            (CheckStatus::Completed, None) => return Err(wrong("is completed and has no conclusion")),
            (CheckStatus::Queued | CheckStatus::InProgress, Some(_)) => {
                return Err(wrong("has a conclusion and is not completed"));
            }
            _ => {}
        }
        let title = if check.title.trim().is_empty() { &check.name } else { &check.title };
        let title = cut_chars(title, LONGEST_TITLE);
        let summary = if check.summary.trim().is_empty() { &title } else { &check.summary };
        Ok(Self {
            summary: fit_markdown(summary, LONGEST_MARKDOWN),
            text: check.text.as_deref().filter(|t| !t.trim().is_empty()).map(|t| fit_markdown(t, LONGEST_MARKDOWN)),
            annotations: check.annotations.iter().filter_map(annotation).take(MAX_ANNOTATIONS).collect(),
            title,
            check,
        })
    }

    fn output(&self, batch: std::ops::Range<usize>) -> Output<'_> {
        Output {
            title: &self.title,
            summary: &self.summary,
            text: self.text.as_deref(),
            annotations: &self.annotations[batch],
        }
    }

    /// The whole check with one batch of annotations.
    fn whole(&self, create: bool, batch: std::ops::Range<usize>) -> Body<'_> {
        let check = self.check;
        let web = |url: &&str| url.starts_with("https://") || url.starts_with("http://");
        Body {
            name: Some(&check.name),
            head_sha: create.then_some(&check.head_sha),
            external_id: Some(&check.external_id),
            details_url: check.details_url.as_deref().filter(web),
            status: Some(check.status),
            conclusion: check.conclusion.map(|c| c.as_str()),
            started_at: check.started_at.map(time),
            completed_at: check.completed_at.filter(|_| check.conclusion.is_some()).map(time),
            output: self.output(batch),
            // None at all takes off those that were there: said aloud, because a field that is left out may stay as it was.
            actions: Some(actions(check))
                .filter(|a| !a.is_empty() || (!create && check.status == CheckStatus::Completed)),
        }
    }

    /// Only one more batch of annotations.
    fn more(&self, batch: std::ops::Range<usize>) -> Body<'_> {
        Body {
            name: None,
            head_sha: None,
            external_id: None,
            details_url: None,
            status: None,
            conclusion: None,
            started_at: None,
            completed_at: None,
            output: self.output(batch),
            // Left out, they would be taken off.
            actions: Some(actions(self.check)).filter(|a| !a.is_empty()),
        }
    }

    /// The batch that begins at `from`.
    fn batch(&self, from: usize) -> std::ops::Range<usize> {
        let from = from.min(self.annotations.len());
        from..(from + BATCH).min(self.annotations.len())
    }
}

impl GitHub {
    /// Makes GitHub show this check run, and returns its number there.
    ///
    /// `known` is the number from an earlier call. Without it a new check run is made, unless `ambiguous_before` says
    /// that an earlier try may have made it: then ours are listed and compared by `external_id` first (it cannot be
    /// searched for).
    ///
    /// GitHub appends annotations with every update and never takes one back. So before annotations are sent to a
    /// check run that exists, it is asked how many it has, and that many are skipped: the list may grow from one call
    /// to the next, and must not change its order.
    ///
    /// # Errors
    /// [`GitHubError`]; after [`GitHubError::Ambiguous`] pass `ambiguous_before`.
    pub async fn ensure_check(
        &self,
        repo: &RepoRef,
        check: &CheckRun,
        known: Option<i64>,
        ambiguous_before: bool,
    ) -> Result<i64, GitHubError> {
        let fitted = Fitted::new(check)?;
        let mut present = None;
        let mut known = known;
        if known.is_none() && ambiguous_before {
            let found = self.own_check(repo, check).await?;
            known = found.as_ref().map(|c| c.id);
            present = found.map(|c| c.annotations);
        }
        let Some(id) = known else {
            return self.create_check(repo, &fitted).await;
        };
        if present.is_none() && !fitted.annotations.is_empty() {
            present = Some(self.check(repo, id).await?.annotations);
        }
        let batch = fitted.batch(present.unwrap_or(0));
        let sent = batch.end;
        self.update_check(repo, id, &fitted.whole(false, batch)).await?;
        self.append(repo, id, &fitted, sent).await?;
        Ok(id)
    }

    async fn create_check(&self, repo: &RepoRef, fitted: &Fitted<'_>) -> Result<i64, GitHubError> {
        let url = self.repo_url(repo, &["check-runs"], &[])?;
        let identity = Identity::of(repo, Purpose::Checks);
        let batch = fitted.batch(0);
        let sent = batch.end;
        let call = Call::write(Method::POST, url, identity, Cost::Create, &fitted.whole(true, batch))?;
        let id = self.json::<Created>(call).await?.id;
        // The check exists now; a caller that only heard "limited" would make it a second time.
        self.append(repo, id, fitted, sent).await.map_err(|error| GitHubError::Ambiguous {
            until: match &error {
                GitHubError::Limited { until } => Some(*until),
                _ => None,
            },
            why: format!("check run {id} was made, but not all of its annotations: {error}"),
        })?;
        Ok(id)
    }

    async fn append(&self, repo: &RepoRef, id: i64, fitted: &Fitted<'_>, mut sent: usize) -> Result<(), GitHubError> {
        while sent < fitted.annotations.len() {
            let batch = fitted.batch(sent);
            sent = batch.end;
            self.update_check(repo, id, &fitted.more(batch)).await?;
        }
        Ok(())
    }

    async fn update_check(&self, repo: &RepoRef, id: i64, body: &Body<'_>) -> Result<(), GitHubError> {
        let url = self.repo_url(repo, &["check-runs", &id.to_string()], &[])?;
        let call = Call::write(Method::PATCH, url, Identity::of(repo, Purpose::Checks), Cost::Write, body)?;
        self.json::<Created>(call).await.map(|_| ())
    }

    async fn check(&self, repo: &RepoRef, id: i64) -> Result<SeenCheck, GitHubError> {
        let url = self.repo_url(repo, &["check-runs", &id.to_string()], &[])?;
        self.json(Call::get(url, Identity::of(repo, Purpose::Checks))).await
    }

    /// Our newest check run of this name on this commit with this key.
    async fn own_check(&self, repo: &RepoRef, check: &CheckRun) -> Result<Option<SeenCheck>, GitHubError> {
        let app_id = self.app_id().to_string();
        let query = [("check_name", check.name.as_str()), ("app_id", &app_id), ("filter", "all")];
        let all = self.list_checks(repo, &check.head_sha, &query).await?;
        Ok(all
            .into_iter()
            .filter(|c| c.external_id.as_deref() == Some(&check.external_id))
            // A server that does not know the query's app_id gives everybody's.
            .filter(|c| c.app_id.is_none_or(|id| id == self.app_id()))
            .max_by_key(|c| c.id))
    }

    async fn list_checks(
        &self,
        repo: &RepoRef,
        sha: &Sha,
        query: &[(&str, &str)],
    ) -> Result<Vec<SeenCheck>, GitHubError> {
        let url = self.repo_url(repo, &["commits", sha.as_str(), "check-runs"], query)?;
        self.pages(&url, Identity::of(repo, Purpose::Checks), |page: CheckList| page.check_runs).await
    }

    /// The newest check run of each name and App on a commit, anybody's.
    ///
    /// # Errors
    /// [`GitHubError`].
    pub async fn check_runs(&self, repo: &RepoRef, sha: &Sha) -> Result<Vec<SeenCheck>, GitHubError> {
        self.list_checks(repo, sha, &[("filter", "latest")]).await
    }

    /// The newest commit status of each context on a commit.
    ///
    /// # Errors
    /// [`GitHubError`].
    pub async fn commit_statuses(&self, repo: &RepoRef, sha: &Sha) -> Result<Vec<CommitStatus>, GitHubError> {
        let url = self.repo_url(repo, &["commits", sha.as_str(), "status"], &[])?;
        self.pages(&url, Identity::of(repo, Purpose::Statuses), |page: CombinedStatus| page.statuses).await
    }
}

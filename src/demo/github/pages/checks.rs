//! Check runs: lists of them, one of them with its buttons, annotations on lines of files.

use std::collections::HashMap;

use actix_web::{HttpRequest, web};
use askama::Template;

use super::{Page, RepoHead, check_state, head_of, markdown, missing, show};
use crate::{
    demo::github::{
        StandIn, StandInError, git,
        model::{Annotation, CheckRun, Model, Repo},
    },
    web::pages::{
        layout::Crumb,
        pieces::{self, Markup, State, Tone},
        run::between,
    },
};

/// Lines shown before and after an annotated one.
const AROUND: usize = 3;
/// Annotations shown with their lines.
const SHOWN: usize = 100;

/// A check in a list.
struct Row {
    id: i64,
    name: String,
    state: State,
    title: String,
    millis: Option<u64>,
    since: Option<jiff::Timestamp>,
    required: bool,
}

impl Row {
    fn took(&self, millis: &u64) -> Markup {
        pieces::took(*millis, self.since)
    }
}

/// The checks of one App on a commit.
struct Suite {
    id: i64,
    app: String,
    rows: Vec<Row>,
}

#[derive(Template)]
#[template(path = "github/check_rows.html")]
struct Rows<'a> {
    head: &'a RepoHead,
    suites: Vec<Suite>,
    /// Required ones that nobody has reported.
    absent: Vec<String>,
    statuses: Vec<(State, String, String)>,
}

fn times(check: &CheckRun) -> (Option<u64>, Option<jiff::Timestamp>) {
    match (check.started_at, check.completed_at) {
        (Some(start), Some(end)) => (Some(between(start, end)), None),
        (Some(start), None) if check.status == "in_progress" => {
            (Some(between(start, crate::clock::now())), Some(start))
        }
        _ => (None, None),
    }
}

/// The checks that count on a commit, App by App.
pub(super) fn list(m: &Model, repo: &Repo, head: &RepoHead, sha: &str, required: &[String]) -> Markup {
    let mut suites: Vec<Suite> = Vec::new();
    for check in repo.latest_checks(sha) {
        let (millis, since) = times(check);
        let row = Row {
            id: check.id,
            name: check.name.clone(),
            state: check_state(check),
            title: check.output.title.clone().unwrap_or_default(),
            millis,
            since,
            required: required.contains(&check.name),
        };
        match suites.iter_mut().find(|s| s.id == check.suite) {
            Some(suite) => suite.rows.push(row),
            None => {
                let app = m.apps.get(&check.app).map(|a| a.spec.name.clone()).unwrap_or_default();
                suites.push(Suite { id: check.suite, app, rows: vec![row] });
            }
        }
    }
    let seen: Vec<&String> = suites.iter().flat_map(|s| &s.rows).map(|r| &r.name).collect();
    let absent = required.iter().filter(|r| !seen.contains(r)).cloned().collect();
    let statuses = repo.statuses.iter().filter(|s| s.sha == sha).map(|s| {
        let state = match s.state.as_str() {
            "success" => State::PASSED,
            "pending" => State::RUNNING,
            _ => State::FAILED,
        };
        (state, s.context.clone(), s.description.clone().unwrap_or_default())
    });
    Markup::of(&Rows { head, absent, statuses: statuses.collect(), suites })
}

/// An annotation and the lines that it is about.
pub(super) struct Shown {
    annotation: Annotation,
    state: State,
    lines: Vec<(usize, String, bool)>,
    check: String,
}

impl Shown {
    fn title(&self) -> &str {
        self.annotation.title.as_deref().unwrap_or(match self.annotation.annotation_level.as_str() {
            "failure" => "Failure",
            "warning" => "Warning",
            _ => "Notice",
        })
    }
}

/// Finds the lines that annotations are about in their commit.
pub(super) async fn with_lines(dir: &std::path::Path, checks: &[CheckRun]) -> Result<Vec<Shown>, StandInError> {
    let mut texts: HashMap<(String, String), Vec<String>> = HashMap::new();
    let mut shown = Vec::new();
    for check in checks {
        for annotation in check.output.annotations.iter().take(SHOWN - shown.len().min(SHOWN)) {
            let key = (check.head_sha.clone(), annotation.path.clone());
            if !texts.contains_key(&key) {
                texts.insert(key.clone(), text_lines(dir, &check.head_sha, &annotation.path).await?);
            }
            let text = texts.get(&key).map_or(&[][..], Vec::as_slice);
            let line = |n: i64| usize::try_from(n).unwrap_or(1).max(1);
            let (first, last) =
                (line(annotation.start_line), line(annotation.end_line).max(line(annotation.start_line)));
            // A remark on a thousand lines shows its beginning.
            let end = last.min(first + 20).saturating_add(AROUND).min(text.len());
            let begin = first.saturating_sub(AROUND).max(1);
            let lines = (begin..=end).filter_map(|n| Some((n, text.get(n - 1)?.clone(), (first..=last).contains(&n))));
            let (sign, word, tone) = match annotation.annotation_level.as_str() {
                "failure" => ("✗", "failure", Tone::Failed),
                "warning" => ("!", "warning", Tone::Attention),
                _ => ("i", "notice", Tone::Waiting),
            };
            shown.push(Shown {
                state: State { sign, word, tone },
                lines: lines.collect(),
                check: check.name.clone(),
                annotation: annotation.clone(),
            });
        }
    }
    Ok(shown)
}

async fn text_lines(dir: &std::path::Path, sha: &str, path: &str) -> Result<Vec<String>, StandInError> {
    if path.is_empty() || path.starts_with('-') {
        return Ok(Vec::new());
    }
    let entries = match git::entries(dir, sha, path, false).await {
        Ok(entries) => entries,
        // The commit is gone: the remark is still worth reading.
        Err(StandInError::Git { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let entry = entries.into_iter().find(|e| e.kind == "blob" && e.size < 1 << 20);
    let Some(entry) = entry else { return Ok(Vec::new()) };
    let bytes = git::blob(dir, &entry.sha).await?;
    Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
}

#[derive(Template)]
#[template(path = "github/annotations.html")]
struct Annotations<'a> {
    base: String,
    sha: &'a str,
    shown: &'a [Shown],
    name_checks: bool,
}

pub(super) fn annotations(head: &RepoHead, sha: &str, shown: &[Shown], name_checks: bool) -> Markup {
    Markup::of(&Annotations { base: head.base(), sha, shown, name_checks })
}

#[derive(Template)]
#[template(path = "github/check.html")]
struct CheckPage {
    head: RepoHead,
    check: CheckRun,
    app: String,
    state: State,
    took: Option<Markup>,
    summary: Option<Markup>,
    text: Option<Markup>,
    annotations: Markup,
    annotated: usize,
    newer: Option<i64>,
}

pub(super) async fn run(
    standin: web::Data<StandIn>,
    request: HttpRequest,
    path: web::Path<(String, String, i64)>,
) -> Page {
    let (owner, name, id) = path.into_inner();
    let (head, found) = head_of(&standin, &request, (&owner, &name), "commits", |m, repo| {
        let check = repo.checks.get(&id)?.clone();
        let app = m.apps.get(&check.app).map(|a| a.spec.name.clone()).unwrap_or_default();
        let newest =
            repo.latest_checks(&check.head_sha).into_iter().find(|c| c.name == check.name && c.app == check.app);
        Some((newest.map(|c| c.id).filter(|newest| *newest != id), check, app))
    })?;
    let (newer, check, app) = found.ok_or_else(|| missing(&format!("check run {id}")))?;
    let shown = with_lines(&standin.git_dir(head.id), std::slice::from_ref(&check)).await?;
    let (millis, since) = times(&check);
    let md = |text: &Option<String>| text.as_deref().filter(|t| !t.is_empty()).map(markdown::render);
    let page = CheckPage {
        annotations: annotations(&head, &check.head_sha, &shown, false),
        annotated: check.output.annotations.len(),
        state: check_state(&check),
        took: millis.map(|ms| pieces::took(ms, since)),
        summary: md(&check.output.summary),
        text: md(&check.output.text),
        head,
        check,
        app,
        newer,
    };
    let crumb = Crumb::here(page.check.name.clone());
    Ok(show(&page.head, &format!("{} {}", page.state.sign, page.check.name), Some(crumb), &page))
}

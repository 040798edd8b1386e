//! Pull requests: the list, the conversation with its merge box, commits, checks, files.

use actix_web::{HttpRequest, web};
use askama::Template;
use jiff::Timestamp;

use super::{Page, RepoHead, Rollup, check_state, checks, code, head_of, initial, markdown, missing, show};
use crate::{
    demo::github::{
        StandIn, git,
        model::{Author, CheckRun, CommentPlace, Mergeable, Model, Pull, Repo, ReviewState},
    },
    web::pages::{
        layout::Crumb,
        pieces::{self, Markup, State, Tone},
    },
};

/// What a pull request is, in a word.
fn pull_state(pull: &Pull) -> State {
    match (&pull.merged, pull.open, pull.draft) {
        (Some(_), ..) => State { sign: "✓", word: "merged", tone: Tone::Waiting },
        (None, false, _) => State { sign: "⊘", word: "closed", tone: Tone::Cancelled },
        (None, true, true) => State { sign: "○", word: "draft", tone: Tone::Waiting },
        (None, true, false) => State { sign: "○", word: "open", tone: Tone::Waiting },
    }
}

struct Row {
    number: i64,
    title: String,
    author: String,
    state: State,
    checks: Rollup,
    created_at: Timestamp,
    comments: usize,
}

#[derive(Template)]
#[template(path = "github/pulls.html")]
struct PullsPage {
    head: RepoHead,
    open: Vec<Row>,
    closed: Vec<Row>,
    branches: Vec<String>,
}

pub(super) async fn list(standin: web::Data<StandIn>, request: HttpRequest, path: web::Path<(String, String)>) -> Page {
    let (owner, name) = path.into_inner();
    let (head, (open, closed)) = head_of(&standin, &request, (&owner, &name), "pulls", |_, repo| {
        let row = |p: &Pull| Row {
            number: p.number,
            title: p.title.clone(),
            author: p.author.login.clone(),
            state: pull_state(p),
            checks: Rollup::of(repo, &p.head.sha),
            created_at: p.created_at,
            comments: repo.comments_of(p.number).count(),
        };
        let (open, closed): (Vec<&Pull>, Vec<&Pull>) = repo.pulls.values().rev().partition(|p| p.open);
        (open.into_iter().map(row).collect(), closed.into_iter().map(row).collect())
    })?;
    let refs = git::refs(&standin.git_dir(head.id)).await?;
    let branches =
        refs.keys().filter_map(|r| r.strip_prefix("refs/heads/")).filter(|b| !b.starts_with("gh-readonly-queue/"));
    let branches = branches.map(str::to_owned).collect();
    let page = PullsPage { head, open, closed, branches };
    Ok(show(&page.head, "Pull requests", Some(Crumb::here("pull requests")), &page))
}

/// Something in the conversation, in order of time.
struct Turn {
    at: Timestamp,
    anchor: String,
    who: String,
    initial: String,
    bot: bool,
    what: &'static str,
    place: String,
    body: Markup,
    reactions: Vec<(&'static str, usize)>,
    comment: Option<i64>,
}

fn reaction(content: &str) -> &'static str {
    match content {
        "+1" => "👍",
        "-1" => "👎",
        "laugh" => "😄",
        "confused" => "😕",
        "heart" => "❤️",
        "hooray" => "🎉",
        "rocket" => "🚀",
        _ => "👀",
    }
}

fn conversation_of(repo: &Repo, number: i64) -> Vec<Turn> {
    let turn = |at, anchor: String, who: &Author, what, body: &str| Turn {
        at,
        anchor,
        who: who.login.clone(),
        initial: initial(&who.login),
        bot: who.app.is_some() || who.login.ends_with("[bot]"),
        what,
        place: String::new(),
        body: markdown::render(body),
        reactions: Vec::new(),
        comment: None,
    };
    let mut turns: Vec<Turn> = Vec::new();
    for comment in repo.comments_of(number) {
        let mut counts: Vec<(&'static str, usize)> = Vec::new();
        for r in &comment.reactions {
            let sign = reaction(&r.content);
            match counts.iter_mut().find(|(known, _)| *known == sign) {
                Some((_, count)) => *count += 1,
                None => counts.push((sign, 1)),
            }
        }
        let place = match &comment.place {
            CommentPlace::Issue(_) | CommentPlace::Commit(_) => String::new(),
            CommentPlace::Line { path, line, .. } => format!("{path}:{line}"),
        };
        let what = if comment.updated_at > comment.created_at { "commented (edited)" } else { "commented" };
        let anchor = format!("issuecomment-{}", comment.id);
        let said = turn(comment.created_at, anchor, &comment.author, what, &comment.body);
        turns.push(Turn { reactions: counts, place, comment: Some(comment.id), ..said });
    }
    if let Some(pull) = repo.pulls.get(&number) {
        for review in &pull.reviews {
            let what = match review.state {
                ReviewState::Approved => "approved",
                ReviewState::ChangesRequested => "asked for changes",
                ReviewState::Commented => "reviewed",
            };
            let anchor = format!("pullrequestreview-{}", review.id);
            turns.push(turn(review.submitted_at, anchor, &review.author, what, &review.body));
        }
        turns.push(turn(pull.created_at, "description".to_owned(), &pull.author, "opened this", &pull.body));
    }
    turns.sort_by_key(|t| t.at);
    // What opened it stands first, whatever the clock says.
    turns.sort_by_key(|t| t.anchor != "description");
    turns
}

/// What the merge box says.
struct MergeBox {
    /// Signs, and what each is about.
    lines: Vec<(State, String)>,
    can_merge: bool,
    required: Vec<String>,
}

fn merge_box(repo: &Repo, pull: &Pull, mergeable: &Mergeable) -> MergeBox {
    let required = repo.required_checks.get(&pull.base).cloned().unwrap_or_default();
    let latest = repo.latest_checks(&pull.head.sha);
    let mut lines = Vec::new();
    let mut blocked = false;
    for name in &required {
        let check = latest.iter().find(|c| &c.name == name);
        let (state, says, good) = match check {
            None => (State::QUEUED, "is expected: nobody has reported it yet".to_owned(), false),
            Some(c) if c.satisfies() => (check_state(c), format!("is required, and {}", check_state(c).word), true),
            Some(c) if c.status != "completed" => (check_state(c), "is required, and not over yet".to_owned(), false),
            Some(c) => {
                (check_state(c), format!("is required, and {}: it blocks the merge", check_state(c).word), false)
            }
        };
        blocked |= !good;
        lines.push((state, format!("{name} {says}")));
    }
    let others = latest.iter().filter(|c| !required.contains(&c.name));
    let failed: Vec<&str> =
        others.filter(|c| c.status == "completed" && !c.satisfies()).map(|c| c.name.as_str()).collect();
    if !failed.is_empty() {
        lines.push((State::FAILED, format!("{} did not pass; the merge does not need it", failed.join(", "))));
    }
    match mergeable {
        Mergeable::Clean(_) => {
            let text = format!("No conflicts with {}", pull.base);
            lines.push((State { sign: "✓", word: "mergeable", tone: Tone::Passed }, text));
        }
        Mergeable::Conflict => {
            blocked = true;
            let text = format!("Conflicts with {}: merge it into {} and push", pull.base, pull.head.branch);
            lines.push((State { sign: "✗", word: "conflicts", tone: Tone::Failed }, text));
        }
        Mergeable::Unknown => lines.push((State::RUNNING, "Looking whether it merges cleanly".to_owned())),
    }
    if let Some(queued) = &pull.queued {
        let text = match &queued.group {
            Some(group) => format!("In the merge queue: {} is tested", pieces::short(&group.sha)),
            None => "In the merge queue: others are ahead".to_owned(),
        };
        lines.push((State { sign: "●", word: "queued to merge", tone: Tone::Running }, text));
    }
    if pull.draft {
        blocked = true;
        lines.push((State { sign: "○", word: "draft", tone: Tone::Waiting }, "It is still a draft".to_owned()));
    }
    MergeBox { lines, can_merge: pull.open && !blocked, required }
}

/// What stands above each part of a pull request.
struct PullHead {
    pull: Pull,
    state: State,
    tab: &'static str,
    comments: usize,
    checks: Rollup,
}

#[derive(Template)]
#[template(path = "github/pull.html")]
struct PullPage {
    head: RepoHead,
    pull: PullHead,
    turns: Vec<Turn>,
    merge: Option<MergeBox>,
    own: bool,
    body: Markup,
    buttons: Vec<CheckRun>,
}

fn missing_pull(number: i64) -> crate::web::pages::ErrorPage {
    missing(&format!("pull request {number}"))
}

/// One part of a pull request: what stands above it, and what `look` adds.
fn part<T>(
    standin: &StandIn,
    request: &HttpRequest,
    path: &(String, String, i64),
    tab: &'static str,
    look: impl FnOnce(&Model, &Repo, &Pull) -> T,
) -> Result<(RepoHead, PullHead, T), crate::web::pages::ErrorPage> {
    let (owner, name, number) = path;
    let (head, found) = head_of(standin, request, (owner, name), "pulls", |m, repo| {
        let pull = repo.pulls.get(number)?;
        let above = PullHead {
            state: pull_state(pull),
            tab,
            comments: repo.comments_of(*number).count(),
            checks: Rollup::of(repo, &pull.head.sha),
            pull: pull.clone(),
        };
        Some((above, look(m, repo, pull)))
    })?;
    let (pull, more) = found.ok_or_else(|| missing_pull(*number))?;
    Ok((head, pull, more))
}

pub(super) async fn conversation(
    standin: web::Data<StandIn>,
    request: HttpRequest,
    path: web::Path<(String, String, i64)>,
) -> Page {
    let (owner, name, number) = path.clone();
    let issue = standin.read(|m| {
        let repo = m.repo(&owner, &name)?;
        let issue = repo.issues.get(&number)?;
        Some((issue.clone(), conversation_of(repo, number)))
    });
    if let Some((issue, turns)) = issue {
        return issue_page(&standin, &request, (&owner, &name), issue, turns);
    }
    let (head, _, ()) = part(&standin, &request, &path, "conversation", |_, _, _| ())?;
    // GitHub looks in the background once somebody asks; here the page waits for it.
    let mergeable = standin.compute_mergeable(head.id, number).await?;
    let (head, pull, (turns, merge, rows, buttons)) =
        part(&standin, &request, &path, "conversation", |m, repo, pull| {
            let merge = merge_box(repo, pull, &mergeable);
            let rows = checks::list(m, repo, &head, &pull.head.sha, &merge.required);
            let latest = repo.latest_checks(&pull.head.sha);
            let buttons = latest.into_iter().filter(|c| c.status == "completed" && !c.actions.is_empty()).cloned();
            (conversation_of(repo, number), merge, rows, buttons.collect::<Vec<_>>())
        })?;
    let own = pull.pull.author.login == head.viewer.login;
    let page = PullPage { own, turns, merge: Some(merge), body: rows, buttons, pull, head };
    Ok(show_part(page))
}

fn issue_page(
    standin: &StandIn,
    request: &HttpRequest,
    name: (&str, &str),
    issue: crate::demo::github::model::Issue,
    turns: Vec<Turn>,
) -> Page {
    let (head, ()) = head_of(standin, request, name, "pulls", |_, _| ())?;
    let page = IssuePage { head, title: issue.title, number: issue.number, author: issue.author.login, turns };
    let crumb = Crumb::here(format!("#{}", page.number));
    Ok(show(&page.head, &page.title, Some(crumb), &page))
}

#[derive(Template)]
#[template(path = "github/issue.html")]
struct IssuePage {
    head: RepoHead,
    title: String,
    number: i64,
    author: String,
    turns: Vec<Turn>,
}

fn show_part(page: PullPage) -> actix_web::HttpResponse {
    let title = format!("{} #{}", page.pull.pull.title, page.pull.pull.number);
    let crumb = Crumb::here(format!("#{}", page.pull.pull.number));
    show(&page.head, &title, Some(crumb), &page)
}

fn plain_part(head: RepoHead, pull: PullHead, body: Markup) -> PullPage {
    PullPage { head, pull, turns: Vec::new(), merge: None, own: false, body, buttons: Vec::new() }
}

pub(super) async fn commits(
    standin: web::Data<StandIn>,
    request: HttpRequest,
    path: web::Path<(String, String, i64)>,
) -> Page {
    let (head, pull, ()) = part(&standin, &request, &path, "commits", |_, _, _| ())?;
    let range = format!("{}..{}", pull.pull.base_sha, pull.pull.head.sha);
    let list = git::log(&standin.git_dir(head.id), &[&range], 250).await?;
    let (head, pull, body) =
        part(&standin, &request, &path, "commits", |_, repo, _| code::commit_rows(&head, repo, &list))?;
    Ok(show_part(plain_part(head, pull, body)))
}

pub(super) async fn files(
    standin: web::Data<StandIn>,
    request: HttpRequest,
    path: web::Path<(String, String, i64)>,
) -> Page {
    let (head, pull, ()) = part(&standin, &request, &path, "files", |_, _, _| ())?;
    let dir = standin.git_dir(head.id);
    let base = git::merge_base(&dir, &pull.pull.base_sha, &pull.pull.head.sha).await?;
    let base = base.unwrap_or_else(|| pull.pull.base_sha.clone());
    let body = code::files_between(&dir, &head.base(), Some(&base), &pull.pull.head.sha).await?;
    Ok(show_part(plain_part(head, pull, body)))
}

#[derive(Template)]
#[template(source = r#"<section id="pull-checks" data-live>{{ rows }}{{ annotations }}</section>"#, ext = "html")]
struct ChecksTab {
    rows: Markup,
    annotations: Markup,
}

pub(super) async fn checks(
    standin: web::Data<StandIn>,
    request: HttpRequest,
    path: web::Path<(String, String, i64)>,
) -> Page {
    let (head, pull, runs) = part(&standin, &request, &path, "checks", |_, repo, pull| {
        repo.latest_checks(&pull.head.sha).into_iter().cloned().collect::<Vec<_>>()
    })?;
    let shown = checks::with_lines(&standin.git_dir(head.id), &runs).await?;
    let annotations = checks::annotations(&head, &pull.pull.head.sha, &shown, true);
    let (head, pull, rows) = part(&standin, &request, &path, "checks", |m, repo, pull| {
        let required = repo.required_checks.get(&pull.base).cloned().unwrap_or_default();
        checks::list(m, repo, &head, &pull.head.sha, &required)
    })?;
    Ok(show_part(plain_part(head, pull, Markup::of(&ChecksTab { rows, annotations }))))
}

//! Operations about comments and reactions.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, ApiError, Call, Reply, code::with_repo, created, list, ok};
use crate::demo::github::{
    model::{Comment, CommentPlace},
    shapes,
};

#[derive(Deserialize)]
struct Text {
    body: String,
}

fn text(call: &Call) -> Result<String, ApiError> {
    serde_json::from_value::<Text>(call.body.clone()).map(|t| t.body).map_err(ApiError::shape)
}

/// The kinds of comments, which have addresses of their own.
#[derive(Clone, Copy, PartialEq)]
enum On {
    Issue,
    Line,
    Commit,
}

impl On {
    fn of(place: &CommentPlace) -> Self {
        match place {
            CommentPlace::Issue(_) => Self::Issue,
            CommentPlace::Line { .. } => Self::Line,
            CommentPlace::Commit(_) => Self::Commit,
        }
    }
}

/// The comment of the path.
fn comment(call: &Call, on: On) -> Result<Comment, ApiError> {
    let id = call.number("comment_id")?;
    let found = with_repo(call, |_, _, r| r.comments.get(&id).cloned())?;
    found.filter(|c| On::of(&c.place) == on).ok_or_else(ApiError::not_found)
}

fn show(call: &Call, id: i64) -> Result<Value, ApiError> {
    let shown = with_repo(call, |l, m, r| r.comments.get(&id).map(|c| shapes::comment(l, m, r, c)))?;
    shown.ok_or_else(ApiError::not_found)
}

pub(super) async fn comments(call: &Call) -> Answer {
    let number = call.number("issue_number")?;
    let items = with_repo(call, |l, m, r| {
        let known = r.pulls.contains_key(&number) || r.issues.contains_key(&number);
        let here = r.comments_of(number).filter(|c| matches!(c.place, CommentPlace::Issue(_)));
        known.then(|| here.map(|c| shapes::comment(l, m, r, c)).collect::<Vec<_>>())
    })?;
    list(call, items.ok_or_else(ApiError::not_found)?)
}

pub(super) async fn create(call: &Call) -> Answer {
    let place = CommentPlace::Issue(call.number("issue_number")?);
    let id = call.standin.comment_as(call.repo, place, call.author(), &text(call)?)?;
    created(show(call, id)?)
}

pub(super) async fn get(call: &Call) -> Answer {
    ok(show(call, comment(call, On::Issue)?.id)?)
}

pub(super) async fn update(call: &Call) -> Answer {
    let old = comment(call, On::Issue)?;
    let author = call.author();
    if old.author != author && call.who.app().is_none() {
        return Err(ApiError::new(403, "Must have admin rights to Repository."));
    }
    call.standin.edit_comment(call.repo, old.id, &author.login, &text(call)?)?;
    ok(show(call, old.id)?)
}

fn list_reactions(call: &Call, on: On) -> Answer {
    let comment = comment(call, on)?;
    let wanted = call.query.get("content");
    let items = with_repo(call, |l, m, _| {
        let fits = comment.reactions.iter().filter(|r| wanted.is_none_or(|w| r.content == *w));
        fits.map(|r| shapes::reaction(l, m, r)).collect()
    })?;
    list(call, items)
}

fn add_reaction(call: &Call, on: On) -> Answer {
    let comment = comment(call, on)?;
    let content = call.body["content"].as_str().ok_or_else(|| ApiError::shape("content: expected a string"))?;
    let (reaction, new) = call.standin.react(call.repo, comment.id, call.author(), content)?;
    let body = with_repo(call, |l, m, _| shapes::reaction(l, m, &reaction))?;
    Ok(Reply { status: if new { 201 } else { 200 }, body: json!(body), link: None })
}

pub(super) async fn reactions(call: &Call) -> Answer {
    list_reactions(call, On::Issue)
}

pub(super) async fn react(call: &Call) -> Answer {
    add_reaction(call, On::Issue)
}

pub(super) async fn line_reactions(call: &Call) -> Answer {
    list_reactions(call, On::Line)
}

pub(super) async fn react_line(call: &Call) -> Answer {
    add_reaction(call, On::Line)
}

pub(super) async fn commit_reactions(call: &Call) -> Answer {
    list_reactions(call, On::Commit)
}

pub(super) async fn react_commit(call: &Call) -> Answer {
    add_reaction(call, On::Commit)
}

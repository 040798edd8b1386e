//! What is said: comments, reviews, reactions; plain issues to comment on.

use serde_json::{Value, json};

use super::{StandIn, StandInError, ensure, person, repo_mut, repo_of};
use crate::demo::github::{
    git,
    model::{Author, Comment, CommentPlace, Issue, Model, Reaction, Repo, Review, ReviewState, UserKind, now},
    shapes,
};

/// "Create an issue comment": longer bodies are refused ("body is too long (maximum is 65536 characters)").
pub(in crate::demo::github) const MAX_BODY: usize = 65_536;

/// The eight reactions ("About reactions").
pub(in crate::demo::github) const REACTIONS: [&str; 8] =
    ["+1", "-1", "laugh", "confused", "heart", "hooray", "rocket", "eyes"];

impl StandIn {
    /// Opens a plain issue; answers its number.
    ///
    /// # Errors
    /// There is no such repository.
    pub fn open_issue(&self, repo: i64, login: &str, title: &str) -> Result<i64, StandInError> {
        self.write(|m| {
            ensure(m, login, UserKind::User)?;
            let id = m.big_id();
            let r = repo_mut(m, repo)?;
            r.last_number += 1;
            let number = r.last_number;
            let issue = Issue { id, number, title: title.to_owned(), author: person(login), created_at: now() };
            r.issues.insert(number, issue);
            Ok(number)
        })
    }

    /// Somebody comments on a pull request or issue; answers the comment's number.
    ///
    /// # Errors
    /// There is no such pull request or issue, or the text is empty or too long.
    pub fn comment(&self, repo: i64, number: i64, login: &str, body: &str) -> Result<i64, StandInError> {
        self.write(|m| ensure(m, login, UserKind::User))?;
        self.comment_as(repo, CommentPlace::Issue(number), person(login), body)
    }

    /// Somebody comments on a line of a pull request's diff. Its events are of another kind
    /// (`pull_request_review_comment`); reactions are possible.
    ///
    /// # Errors
    /// There is no such pull request, or the text is empty or too long.
    pub fn comment_line(
        &self,
        repo: i64,
        number: i64,
        login: &str,
        (path, line): (&str, i64),
        body: &str,
    ) -> Result<i64, StandInError> {
        self.write(|m| ensure(m, login, UserKind::User))?;
        let commit_id = self.pull(repo, number)?.head.sha;
        let place = CommentPlace::Line { number, commit_id, path: path.to_owned(), line };
        self.comment_as(repo, place, person(login), body)
    }

    /// Somebody comments on a commit (`commit_comment`); reactions are possible.
    ///
    /// # Errors
    /// There is no such commit, or the text is empty or too long.
    pub async fn comment_commit(&self, repo: i64, sha: &str, login: &str, body: &str) -> Result<i64, StandInError> {
        let sha = git::commit(&self.git_dir(repo), sha).await?.sha;
        self.write(|m| ensure(m, login, UserKind::User))?;
        self.comment_as(repo, CommentPlace::Commit(sha), person(login), body)
    }

    pub(in crate::demo::github) fn comment_as(
        &self,
        repo: i64,
        place: CommentPlace,
        author: Author,
        body: &str,
    ) -> Result<i64, StandInError> {
        check_body(body)?;
        let login = author.login.clone();
        let id = self.write(|m| {
            let id = m.big_id();
            let r = repo_mut(m, repo)?;
            if let Some(number) = place.number().filter(|n| !r.pulls.contains_key(n) && !r.issues.contains_key(n)) {
                return Err(StandInError::NotFound(format!("issue {number}")));
            }
            let comment = Comment {
                id,
                place,
                author,
                body: body.to_owned(),
                created_at: now(),
                updated_at: now(),
                reactions: Vec::new(),
            };
            r.comments.insert(id, comment);
            Ok(id)
        })?;
        self.tell_comment(repo, id, "created", &login, json!({}));
        Ok(id)
    }

    /// Changes a comment's text.
    ///
    /// # Errors
    /// There is no such comment, or the text is empty or too long.
    pub fn edit_comment(&self, repo: i64, comment: i64, login: &str, body: &str) -> Result<(), StandInError> {
        check_body(body)?;
        let old = self.write(|m| {
            let comment = repo_mut(m, repo)?.comments.get_mut(&comment);
            let comment = comment.ok_or_else(|| StandInError::NotFound("comment".to_owned()))?;
            comment.updated_at = now();
            Ok::<_, StandInError>(std::mem::replace(&mut comment.body, body.to_owned()))
        })?;
        self.tell_comment(repo, comment, "edited", login, json!({"changes": {"body": {"from": old}}}));
        Ok(())
    }

    /// Reacts to a comment; the same reaction by the same account is there once ("Create reaction for an issue
    /// comment": 200 when it was there already). `true` if it is new. No event: GitHub sends none.
    ///
    /// # Errors
    /// There is no such comment or reaction.
    pub fn react(
        &self,
        repo: i64,
        comment: i64,
        author: Author,
        content: &str,
    ) -> Result<(Reaction, bool), StandInError> {
        if !REACTIONS.contains(&content) {
            return Err(StandInError::Refused(format!("{content:?} is not a reaction")));
        }
        self.write(|m| {
            let id = m.big_id();
            let comment = repo_mut(m, repo)?.comments.get_mut(&comment);
            let comment = comment.ok_or_else(|| StandInError::NotFound("comment".to_owned()))?;
            if let Some(old) = comment.reactions.iter().find(|r| r.author == author && r.content == content) {
                return Ok((old.clone(), false));
            }
            let new = Reaction { id, author, content: content.to_owned(), created_at: now() };
            comment.reactions.push(new.clone());
            Ok((new, true))
        })
    }

    /// Somebody submits a review of the present head.
    ///
    /// # Errors
    /// There is no such pull request, or its author approves it themselves.
    pub fn review(
        &self,
        repo: i64,
        number: i64,
        login: &str,
        state: ReviewState,
        body: &str,
    ) -> Result<i64, StandInError> {
        let id = self.write(|m| {
            ensure(m, login, UserKind::User)?;
            let id = m.big_id();
            let pull = repo_mut(m, repo)?.pulls.get_mut(&number);
            let pull = pull.ok_or_else(|| StandInError::NotFound(format!("pull request {number}")))?;
            if state != ReviewState::Commented && pull.author.login.eq_ignore_ascii_case(login) {
                return Err(StandInError::Refused("Can not approve your own pull request".to_owned()));
            }
            let review = Review {
                id,
                author: person(login),
                state,
                body: body.to_owned(),
                commit_id: pull.head.sha.clone(),
                submitted_at: now(),
            };
            pull.reviews.push(review);
            Ok(id)
        })?;
        let payload = self.read(|m| {
            let l = self.links();
            let r = m.repos.get(&repo)?;
            let pull = r.pulls.get(&number)?;
            let mut value = self.envelope(m, r, login);
            value["action"] = json!("submitted");
            value["pull_request"] = shapes::pull(&l, m, r, pull, false);
            let mut review = shapes::review(&l, m, r, pull, pull.reviews.iter().find(|v| v.id == id)?);
            // "Webhook events and payloads", `pull_request_review`: the state is in lower case here.
            review["state"] = json!(state.as_str().to_lowercase());
            value["review"] = review;
            Some(value)
        });
        if let Some(payload) = payload {
            self.emit(repo, "pull_request_review", &payload, None);
        }
        Ok(id)
    }

    fn tell_comment(&self, repo: i64, comment: i64, action: &str, login: &str, more: Value) {
        let payload = self.read(|m| {
            let l = self.links();
            let r = repo_of(m, repo).ok()?;
            let c = r.comments.get(&comment)?;
            let mut value = self.envelope(m, r, login);
            value["action"] = json!(action);
            let mut shown = shapes::comment(&l, m, r, c);
            let event = match &c.place {
                CommentPlace::Issue(number) => {
                    value["issue"] = self.issue(m, r, *number)?;
                    "issue_comment"
                }
                CommentPlace::Line { number, commit_id, path, line } => {
                    shown["commit_id"] = json!(commit_id);
                    shown["path"] = json!(path);
                    shown["line"] = json!(line);
                    value["pull_request"] = shapes::pull(&l, m, r, r.pulls.get(number)?, false);
                    "pull_request_review_comment"
                }
                // "Webhook events and payloads", `commit_comment`: that one is made is told, nothing else.
                CommentPlace::Commit(_) if action == "created" => "commit_comment",
                CommentPlace::Commit(_) => return None,
            };
            value["comment"] = shown;
            if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
                value.extend(more);
            }
            Some((event, value))
        });
        if let Some((event, payload)) = payload {
            self.emit(repo, event, &payload, None);
        }
    }

    /// The issue of a comment's payload. For pull requests it has a `pull_request` object of links, and no head commit
    /// ("Webhook events and payloads", `issue_comment`).
    fn issue(&self, m: &Model, r: &Repo, number: i64) -> Option<Value> {
        let l = self.links();
        let (api, html) = (l.repo_api(r), l.repo_web(r));
        let pull = r.pulls.get(&number);
        let (id, title, author, open, created, body) = match (pull, r.issues.get(&number)) {
            (Some(p), _) => (p.id, &p.title, &p.author, p.open, p.created_at, p.body.as_str()),
            (None, Some(i)) => (i.id, &i.title, &i.author, true, i.created_at, ""),
            (None, None) => return None,
        };
        let url = format!("{api}/issues/{number}");
        let page = format!("{html}/{}/{number}", if pull.is_some() { "pull" } else { "issues" });
        let mut value = json!({
            "url": url,
            "repository_url": api,
            "labels_url": format!("{url}/labels{{/name}}"),
            "comments_url": format!("{url}/comments"),
            "events_url": format!("{url}/events"),
            "html_url": page,
            "id": id,
            "node_id": shapes::node("I", id),
            "number": number,
            "title": title,
            "user": shapes::author(&l, m, author),
            "labels": [],
            "state": if open { "open" } else { "closed" },
            "locked": false,
            "assignee": null,
            "assignees": [],
            "milestone": null,
            "comments": r.comments_of(number).count(),
            "created_at": created,
            "updated_at": created,
            "closed_at": null,
            "author_association": "NONE",
            "active_lock_reason": null,
            "body": body,
        });
        if let Some(pull) = pull {
            value["draft"] = json!(pull.draft);
            value["pull_request"] = json!({
                "url": format!("{api}/pulls/{number}"),
                "html_url": page,
                "diff_url": format!("{page}.diff"),
                "patch_url": format!("{page}.patch"),
                "merged_at": pull.merged.as_ref().map(|(_, _, at)| at),
            });
        }
        Some(value)
    }
}

fn check_body(body: &str) -> Result<(), StandInError> {
    if body.trim().is_empty() {
        return Err(StandInError::Refused("Body can't be blank".to_owned()));
    }
    if body.chars().count() > MAX_BODY {
        return Err(StandInError::Refused(format!("Body is too long (maximum is {MAX_BODY} characters)")));
    }
    Ok(())
}

//! The stand-in's web pages, on top of the model. They only read; what a person does goes to the forms in `web`.
//!
//! * `code`: repositories, branches, commits, files. `pulls`: pull requests. `checks`: check runs and their
//!   annotations. `deploys`: deployments, Apps and their deliveries.
//! * [`markdown`]: text from outside as GitHub shows it.

mod checks;
mod code;
mod deploys;
pub mod markdown;
mod pulls;

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    web::{self, ServiceConfig},
};
use askama::Template;

use super::{
    StandIn, StandInError,
    model::{CheckRun, Model, Repo, Role, UserKind},
    web as forms,
};
use crate::web::{
    assets,
    pages::{
        ErrorPage, error,
        layout::{self, Crumb, Head, Place},
        pieces::{State, Tone},
        routes,
    },
};

/// Adds the pages. Paths of the API, of git and of `/_web`, `/_standin` are taken already.
pub fn configure(cfg: &mut ServiceConfig) {
    cfg.configure(assets::configure)
        .configure(|cfg| error::configure(cfg, Place::StandIn))
        .app_data(web::QueryConfig::default().error_handler(|error, _| unreadable(&error).into()))
        .route("/_live", web::get().to(live))
        .route("/_web/redeliver", web::post().to(deploys::redeliver))
        .route("/", web::get().to(code::home))
        .route("/apps/{slug}", web::get().to(deploys::app))
        .route("/apps/{slug}/deliveries/{id}", web::get().to(deploys::delivery))
        .route("/{owner}", web::get().to(code::account))
        .route("/{owner}/{repo}", web::get().to(code::repository))
        .route("/{owner}/{repo}/tree/{tail:.*}", web::get().to(code::tree))
        .route("/{owner}/{repo}/blob/{tail:.*}", web::get().to(code::blob))
        .route("/{owner}/{repo}/commits", web::get().to(code::commits_of_default))
        .route("/{owner}/{repo}/commits/{branch:.*}", web::get().to(code::commits))
        .route("/{owner}/{repo}/commit/{sha}", web::get().to(code::commit))
        .route("/{owner}/{repo}/compare/{range:.*}", web::get().to(code::compare))
        .route("/{owner}/{repo}/pulls", web::get().to(pulls::list))
        .route("/{owner}/{repo}/pull/{number}", web::get().to(pulls::conversation))
        .route("/{owner}/{repo}/pull/{number}/commits", web::get().to(pulls::commits))
        .route("/{owner}/{repo}/pull/{number}/checks", web::get().to(pulls::checks))
        .route("/{owner}/{repo}/pull/{number}/files", web::get().to(pulls::files))
        .route("/{owner}/{repo}/issues/{number}", web::get().to(pulls::conversation))
        .route("/{owner}/{repo}/runs/{id}", web::get().to(checks::run))
        .route("/{owner}/{repo}/deployments", web::get().to(deploys::list));
}

#[derive(Template)]
#[template(path = "github/create_app.html")]
struct CreateApp<'a> {
    key: &'a str,
    name: &'a str,
}

/// Asks the owner whether an App shall be made from a manifest.
pub(super) fn create_app(key: &str, name: &str) -> HttpResponse {
    let mut page = show_page("Create GitHub App", vec![Crumb::here("new App")], &CreateApp { key, name });
    // The form's answer sends the browser back to whoever brought the manifest.
    layout::let_forms_lead_to(&mut page, "http: https:");
    page
}

/// Pages or what is wrong, in the look of this place.
type Page = Result<HttpResponse, ErrorPage>;

impl From<StandInError> for ErrorPage {
    fn from(error: StandInError) -> Self {
        Self::from(&error)
    }
}

impl From<&StandInError> for ErrorPage {
    fn from(error: &StandInError) -> Self {
        match error {
            StandInError::NotFound(what) => {
                let next = "Start from the list of repositories.".to_owned();
                Self { next, ..Self::not_found(what).at(Place::StandIn) }
            }
            StandInError::Refused(why) => Self::refused(
                StatusCode::UNPROCESSABLE_ENTITY,
                "This was not done.",
                format!("{why}."),
                "Go back, change what is named here and try again.",
            )
            .at(Place::StandIn),
            _ => {
                tracing::error!(%error, "a page of the stand-in could not be made");
                Self::broken("This page", error).at(Place::StandIn)
            }
        }
    }
}

/// For a query or a form that is none.
pub(super) fn unreadable(error: &impl std::fmt::Display) -> ErrorPage {
    ErrorPage::refused(
        StatusCode::BAD_REQUEST,
        "This was not understood.",
        format!("{error}."),
        "Go back and press the button again; a form made by hand is sent as application/x-www-form-urlencoded.",
    )
    .at(Place::StandIn)
}

fn missing(what: &str) -> ErrorPage {
    StandInError::NotFound(what.to_owned()).into()
}

async fn live(standin: web::Data<StandIn>) -> HttpResponse {
    routes::events(routes::changes(standin.changes()))
}

/// What stands above every page of a repository.
#[derive(Debug, Clone)]
struct RepoHead {
    id: i64,
    owner: String,
    name: String,
    private: bool,
    archived: bool,
    open_pulls: usize,
    default_branch: String,
    /// The marked tab.
    tab: &'static str,
    /// Who looks, and who else there is.
    viewer: Viewer,
}

impl RepoHead {
    /// `/owner/name`.
    fn base(&self) -> String {
        format!("/{}/{}", self.owner, self.name)
    }

    fn full_name(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The page of a commit.
    fn commit(&self, sha: &str) -> String {
        format!("{}/commit/{sha}", self.base())
    }
}

/// Who looks at the page: whom the cookie names, or somebody who may do most here.
#[derive(Debug, Clone, Default)]
struct Viewer {
    login: String,
    people: Vec<String>,
    may_write: bool,
    /// The page that forms come back to.
    back: String,
}

impl Viewer {
    fn of(m: &Model, repo: Option<&Repo>, request: &HttpRequest) -> Self {
        let people: Vec<String> =
            m.users.values().filter(|u| u.kind == UserKind::User).map(|u| u.login.clone()).collect();
        let role = |login: &str| repo.and_then(|r| m.grant(r, login)).map(|g| g.role);
        let chosen = forms::chosen(request).and_then(|c| people.iter().find(|p| p.eq_ignore_ascii_case(c)).cloned());
        // The first of those who may do most.
        let login = chosen.or_else(|| people.iter().rev().max_by_key(|p| role(p)).cloned()).unwrap_or_default();
        Self {
            may_write: role(&login) >= Some(Role::Write),
            login,
            people,
            back: request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned(),
        }
    }
}

/// Looks at a repository and what stands above its pages.
fn head_of<T>(
    standin: &StandIn,
    request: &HttpRequest,
    (owner, name): (&str, &str),
    tab: &'static str,
    look: impl FnOnce(&Model, &Repo) -> T,
) -> Result<(RepoHead, T), ErrorPage> {
    standin.read(|m| {
        let repo = m.find(owner, name).and_then(|(id, _)| m.repos.get(&id));
        let repo = repo.ok_or_else(|| missing(&format!("repository {owner}/{name}")))?;
        let head = RepoHead {
            id: repo.id,
            owner: repo.owner.clone(),
            name: repo.name.clone(),
            private: repo.private,
            archived: repo.archived,
            open_pulls: repo.pulls.values().filter(|p| p.open).count(),
            default_branch: repo.default_branch.clone(),
            tab,
            viewer: Viewer::of(m, Some(repo), request),
        };
        Ok((head, look(m, repo)))
    })
}

/// Answers with a page of a repository.
fn show(head: &RepoHead, title: &str, more: Option<Crumb>, body: &impl Template) -> HttpResponse {
    let title = format!("{title} · {}", head.full_name());
    let mut crumbs = vec![Crumb::to(&head.owner, format!("/{}", head.owner)), Crumb::to(&head.name, head.base())];
    crumbs.extend(more);
    show_page(&title, crumbs, body)
}

fn show_page(title: &str, crumbs: Vec<Crumb>, body: &impl Template) -> HttpResponse {
    let head = Head { title, place: Place::StandIn, crumbs, live: Some("/_live"), ..Head::default() };
    layout::respond(StatusCode::OK, layout::render(&head, body))
}

/// The state of a check as it is shown.
fn check_state(check: &CheckRun) -> State {
    use crate::domain::check::{CheckStatus, Conclusion};
    let conclusion = match check.conclusion.as_deref() {
        Some("success") => Some(Conclusion::Success),
        Some("failure") => Some(Conclusion::Failure),
        Some("neutral") => Some(Conclusion::Neutral),
        Some("cancelled") => Some(Conclusion::Cancelled),
        Some("skipped") => Some(Conclusion::Skipped),
        Some("timed_out") => Some(Conclusion::TimedOut),
        Some("action_required") => Some(Conclusion::ActionRequired),
        _ => None,
    };
    let status = match check.status.as_str() {
        "completed" => CheckStatus::Completed,
        "in_progress" => CheckStatus::InProgress,
        _ => CheckStatus::Queued,
    };
    (status, conclusion).into()
}

/// The state of a deployment as it is shown.
fn deployment_state(state: &str) -> State {
    use crate::domain::check::DeploymentState as D;
    let all = [D::Pending, D::Queued, D::InProgress, D::Success, D::Failure, D::Error, D::Inactive];
    all.into_iter().find(|d| d.as_str() == state).map_or(State::QUEUED, State::from)
}

/// All checks of a commit in one sign: failed before running before passed.
#[derive(Debug, Clone, Default)]
struct Rollup {
    state: Option<State>,
    passed: usize,
    total: usize,
}

impl Rollup {
    fn of(repo: &Repo, sha: &str) -> Self {
        let checks = repo.latest_checks(sha);
        let states: Vec<State> = checks.iter().map(|c| check_state(c)).collect();
        let has = |tone| states.iter().find(|s| s.tone == tone).copied();
        let open = states.iter().find(|s| s.is_open()).map(|_| State::RUNNING);
        Self {
            state: has(Tone::Failed)
                .map(|_| State::FAILED)
                .or(has(Tone::Attention))
                .or(open)
                .or_else(|| states.first().map(|_| State::PASSED)),
            passed: checks.iter().filter(|c| c.satisfies()).count(),
            total: checks.len(),
        }
    }
}

/// A person's name without GitHub's markup around it, for the first letter's picture.
fn initial(login: &str) -> String {
    login.chars().find(|c| c.is_alphanumeric()).map(|c| c.to_uppercase().to_string()).unwrap_or_default()
}

//! What people and Apps do: each changes the model (and git) and sends the webhooks that GitHub would send.

mod apps;
mod checks;
mod pulls;
mod push;
mod queue;
mod repos;
mod talk;

pub use apps::{Installed, Registered};
pub use pulls::NewPull;

use serde_json::{Value, json};

use super::{
    StandIn, StandInError,
    model::{Author, Grant, Model, Repo, Role, Team, User, UserKind},
    shapes,
};

/// A name as GitHub takes it for accounts and repositories.
pub(super) fn name_ok(name: &str) -> bool {
    let chars = |c: char| c.is_ascii_alphanumeric() || "-_.[]".contains(c);
    !name.is_empty()
        && name.len() <= 100
        && name.chars().all(chars)
        && !name.starts_with('.')
        && !name.ends_with(".git")
}

pub(super) fn repo_of(m: &Model, id: i64) -> Result<&Repo, StandInError> {
    m.repos.get(&id).ok_or_else(|| StandInError::NotFound(format!("repository {id}")))
}

pub(super) fn repo_mut(m: &mut Model, id: i64) -> Result<&mut Repo, StandInError> {
    m.repos.get_mut(&id).ok_or_else(|| StandInError::NotFound(format!("repository {id}")))
}

/// A person as an author.
pub(super) fn person(login: &str) -> Author {
    Author { login: login.to_owned(), app: None }
}

impl StandIn {
    /// Makes a person, or does nothing if there is one of this name. The answer is their token: the password for git
    /// and the bearer token for the API.
    ///
    /// # Errors
    /// The name is not one that GitHub takes.
    pub fn create_user(&self, login: &str) -> Result<String, StandInError> {
        self.write(|m| ensure(m, login, UserKind::User))
    }

    /// Makes an organisation, or does nothing if there is one of this name.
    ///
    /// # Errors
    /// The name is not one that GitHub takes.
    pub fn create_organization(&self, login: &str) -> Result<(), StandInError> {
        self.write(|m| ensure(m, login, UserKind::Organization)).map(drop)
    }

    /// Gives somebody a role in a repository; `role_name` is a custom role's own name. The account is made if missing.
    ///
    /// # Errors
    /// There is no such repository.
    pub fn permission(&self, repo: i64, login: &str, role: Role, role_name: Option<&str>) -> Result<(), StandInError> {
        self.write(|m| {
            ensure(m, login, UserKind::User)?;
            let grant = Grant { role, name: role_name.map(str::to_owned) };
            repo_mut(m, repo)?.grants.insert(login.to_lowercase(), grant);
            Ok(())
        })
    }

    /// Takes somebody's own role in a repository away.
    ///
    /// # Errors
    /// There is no such repository.
    pub fn revoke(&self, repo: i64, login: &str) -> Result<(), StandInError> {
        self.write(|m| repo_mut(m, repo).map(|r| drop(r.grants.remove(&login.to_lowercase()))))
    }

    /// Makes or extends a team: its members (made if missing) and its role in repositories.
    ///
    /// # Errors
    /// A name is not one that GitHub takes.
    pub fn team(&self, org: &str, slug: &str, members: &[&str], repos: &[(i64, Role)]) -> Result<(), StandInError> {
        self.write(|m| {
            ensure(m, org, UserKind::Organization)?;
            for login in members {
                ensure(m, login, UserKind::User)?;
            }
            let id = m.small_id();
            let fresh = Team {
                id,
                org: org.to_owned(),
                slug: slug.to_owned(),
                members: Default::default(),
                repos: Default::default(),
            };
            let team = m.teams.entry((org.to_lowercase(), slug.to_lowercase())).or_insert(fresh);
            team.members.extend(members.iter().map(|l| (l.to_lowercase(), false)));
            team.repos.extend(repos.iter().copied());
            Ok(())
        })
    }

    /// `repository`, `sender` and, in organisations, `organization`: what every repository event carries.
    pub(super) fn envelope(&self, m: &Model, repo: &Repo, sender: &str) -> Value {
        let l = self.links();
        let mut value = json!({"repository": shapes::repo(&l, m, repo), "sender": shapes::login(&l, m, sender)});
        if let Some(org) = m.user(&repo.owner).filter(|u| u.kind == UserKind::Organization) {
            value["organization"] = json!({
                "login": org.login,
                "id": org.id,
                "node_id": shapes::node("O", org.id),
                "url": format!("{}/orgs/{}", l.api, org.login),
                "avatar_url": format!("{}/avatars/{}", l.web, org.login),
                "description": null,
            });
        }
        value
    }
}

/// Makes an account unless there is one.
pub(super) fn ensure(m: &mut Model, login: &str, kind: UserKind) -> Result<String, StandInError> {
    if let Some(user) = m.user(login) {
        return Ok(user.token.clone());
    }
    if !name_ok(login) {
        return Err(StandInError::Refused(format!("{login:?} is not a name for an account")));
    }
    let token = match kind {
        UserKind::User => format!("ghp_{}", uuid::Uuid::new_v4().simple()),
        UserKind::Organization | UserKind::Bot => String::new(),
    };
    let id = m.small_id();
    m.users.insert(login.to_lowercase(), User { id, login: login.to_owned(), kind, token: token.clone() });
    Ok(token)
}

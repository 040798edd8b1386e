//! Who is asking: App JWTs are really verified, installation tokens really scoped.

use base64::Engine as _;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;

use super::{
    StandIn,
    model::{Level, Model, Repo, Role, Token, now},
};

/// The asker.
#[derive(Debug, Clone)]
pub(super) enum Who {
    /// Nobody in particular.
    Anonymous,
    /// A person, by token.
    User(String),
    /// An App, by JWT.
    App(i64),
    /// An installation of an App, by token.
    Installation { app: i64, token: Token },
}

impl Who {
    /// The login that things are done as.
    pub(super) fn login(&self, m: &Model) -> String {
        match self {
            Self::Anonymous => String::new(),
            Self::User(login) => login.clone(),
            Self::App(app) | Self::Installation { app, .. } => m.apps.get(app).map(|a| a.bot()).unwrap_or_default(),
        }
    }

    /// The App behind it.
    pub(super) fn app(&self) -> Option<i64> {
        match self {
            Self::App(app) | Self::Installation { app, .. } => Some(*app),
            Self::User(_) | Self::Anonymous => None,
        }
    }
}

/// Why somebody is turned away.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// 401 with this message.
    Unauthorized(String),
    /// 403 with this message.
    Forbidden(String),
    /// 404: it is not for their eyes.
    Hidden,
    /// 404: a JWT of an App that is not there.
    NoApp,
}

fn bad() -> Denied {
    Denied::Unauthorized("Bad credentials".to_owned())
}

impl StandIn {
    /// Reads an `Authorization` header: `Bearer`, `token`, or `Basic` with the token as the password, as git sends it.
    pub(super) fn who(&self, header: Option<&str>) -> Result<Who, Denied> {
        let Some(header) = header else { return Ok(Who::Anonymous) };
        let (scheme, rest) = header.split_once(' ').ok_or_else(bad)?;
        let rest = rest.trim();
        if !scheme.eq_ignore_ascii_case("basic") {
            return self.by_token(rest);
        }
        let text = base64::engine::general_purpose::STANDARD.decode(rest).map_err(|_| bad())?;
        let text = String::from_utf8(text).map_err(|_| bad())?;
        let (user, password) = text.split_once(':').ok_or_else(bad)?;
        // The token may stand in either place; an App's user name is "x-access-token" or anything else
        // ("Authenticating as a GitHub App installation", HTTP-based Git access).
        let token = if password.is_empty() || password == "x-oauth-basic" { user } else { password };
        match self.by_token(token)? {
            Who::User(login) if password == token && !login.eq_ignore_ascii_case(user) => Err(bad()),
            who => Ok(who),
        }
    }

    fn by_token(&self, token: &str) -> Result<Who, Denied> {
        if token.starts_with("ghs_") {
            return self.read(|m| {
                let found = m.tokens.get(token).filter(|t| t.expires_at > now()).ok_or_else(bad)?;
                let installation = m.installations.get(&found.installation).ok_or_else(bad)?;
                if installation.suspended.is_some() {
                    return Err(Denied::Forbidden("This installation has been suspended".to_owned()));
                }
                Ok(Who::Installation { app: installation.app, token: found.clone() })
            });
        }
        if token.split('.').count() == 3 {
            return self.by_jwt(token);
        }
        let mine = self.read(|m| m.users.values().find(|u| !u.token.is_empty() && u.token == token).cloned());
        mine.map(|u| Who::User(u.login)).ok_or_else(bad)
    }

    /// "Generating a JSON Web Token (JWT) for a GitHub App": RS256, `iss` the App's id or client id, `exp` no more than
    /// ten minutes ahead, `iat` not in the future.
    fn by_jwt(&self, token: &str) -> Result<Who, Denied> {
        let unreadable = || Denied::Unauthorized("A JSON web token could not be decoded".to_owned());
        let payload = token.split('.').nth(1).unwrap_or_default();
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).map_err(|_| unreadable())?;
        let claims: Value = serde_json::from_slice(&claims).map_err(|_| unreadable())?;
        let issuer = match &claims["iss"] {
            Value::Number(n) => n.to_string(),
            Value::String(s) => s.clone(),
            _ => return Err(Denied::Unauthorized("Missing 'issuer' claim ('iss') in assertion".to_owned())),
        };
        let found = self.read(|m| {
            let app = m.apps.values().find(|a| a.id.to_string() == issuer || a.client_id == issuer)?;
            Some((app.id, app.public_key.clone()))
        });
        let Some((app, key)) = found else {
            return Err(Denied::NoApp);
        };
        let mut validation = Validation::new(Algorithm::RS256);
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        jsonwebtoken::decode::<Value>(token, &DecodingKey::from_rsa_der(&key), &validation)
            .map_err(|_| unreadable())?;
        let now = crate::clock::now().as_second();
        // One message for "no number" and "over" (octokit/auth-app.js issue 146).
        let Some(exp) = claims["exp"].as_i64().filter(|exp| *exp > now) else {
            let what = "'Expiration time' claim ('exp') must be a numeric value representing the future time at which \
                        the assertion expires";
            return Err(Denied::Unauthorized(what.to_owned()));
        };
        if exp > now + 600 {
            return Err(Denied::Unauthorized("'Expiration time' claim ('exp') is too far in the future".to_owned()));
        }
        if claims["iat"].as_i64().is_none_or(|iat| iat > now) {
            return Err(Denied::Unauthorized(
                "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued"
                    .to_owned(),
            ));
        }
        Ok(Who::App(app))
    }
}

/// Whether somebody may do something in a repository. `permissions`: any one of them will do.
///
/// Stricter than GitHub on purpose: GitHub lets any token read a public repository; here an installation's token must
/// cover it and have the permission, so that a missing permission shows before somebody's private repository does it.
pub(super) fn allowed(m: &Model, who: &Who, repo: &Repo, permissions: &[&str], level: Level) -> Result<(), Denied> {
    let refused = || Denied::Forbidden("Resource not accessible by integration".to_owned());
    match who {
        Who::Installation { token, .. } => {
            let installation = m.installations.get(&token.installation);
            let covered = installation.is_some_and(|i| i.covers(repo))
                && token.repos.as_ref().is_none_or(|set| set.contains(&repo.id));
            if !covered {
                return Err(if repo.private { Denied::Hidden } else { refused() });
            }
            let has = |p: &&str| token.permissions.get(*p).is_some_and(|l| *l >= level);
            // Every App may read metadata ("Permissions required for GitHub Apps").
            let metadata = permissions.contains(&"metadata") && level == Level::Read;
            if !metadata && !permissions.iter().any(has) {
                return Err(refused());
            }
        }
        Who::User(login) => {
            let need = if level == Level::Write { Role::Write } else { Role::Read };
            // Anybody who can read can talk.
            let talk = permissions.contains(&"issues");
            match m.grant(repo, login) {
                None => return Err(Denied::Hidden),
                Some(grant) if grant.role < need && !talk => {
                    return Err(Denied::Forbidden("Must have push access to repository".to_owned()));
                }
                Some(_) => {}
            }
        }
        Who::Anonymous if repo.private => return Err(Denied::Hidden),
        Who::Anonymous if level == Level::Write => {
            return Err(Denied::Unauthorized("Requires authentication".to_owned()));
        }
        Who::Anonymous => {}
        Who::App(_) => {
            let what = "A JSON web token cannot be used here: an installation access token is needed";
            return Err(Denied::Forbidden(what.to_owned()));
        }
    }
    if repo.archived && level == Level::Write {
        return Err(Denied::Forbidden("Repository was archived so is read-only.".to_owned()));
    }
    Ok(())
}

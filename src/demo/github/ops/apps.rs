//! Apps: registered, installed, suspended, removed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{StandIn, StandInError, ensure};
use crate::demo::github::{
    AppKey,
    model::{App, AppSpec, Installation, Level, Model, Repo, UserKind, now},
    shapes,
};

/// What one gets for registering an App.
#[derive(Debug, Clone)]
pub struct Registered {
    /// Number: the JWT's issuer.
    pub id: i64,
    /// Name in addresses; its account is `slug[bot]`.
    pub slug: String,
    /// Private key, PEM.
    pub private_key_pem: String,
    /// What webhooks are signed with.
    pub webhook_secret: Option<String>,
}

/// What one gets for installing one.
pub type Installed = i64;

fn slug(name: &str) -> String {
    let dashed: String = name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let words: Vec<&str> = dashed.split('-').filter(|w| !w.is_empty()).collect();
    words.join("-")
}

impl StandIn {
    /// Registers an App with what Switchover asks for; see [`AppSpec::new`].
    ///
    /// # Errors
    /// The name is taken or not one, or no key could be made.
    pub fn register_app(
        &self,
        name: &str,
        webhook_url: Option<&str>,
        webhook_secret: Option<&str>,
    ) -> Result<Registered, StandInError> {
        let mut spec = AppSpec::new(name);
        spec.webhook_url = webhook_url.map(str::to_owned);
        spec.webhook_secret = webhook_secret.map(str::to_owned);
        self.register(spec)
    }

    /// Registers an App.
    ///
    /// # Errors
    /// The name is taken or not one, or no key could be made.
    pub fn register(&self, spec: AppSpec) -> Result<Registered, StandInError> {
        let slug = slug(&spec.name);
        if slug.is_empty() {
            return Err(StandInError::Refused(format!("{:?} is not a name for an App", spec.name)));
        }
        let key = AppKey::generate()?;
        let webhook_secret = spec.webhook_secret.clone();
        self.write(|m| {
            if m.apps.values().any(|a| a.slug == slug) {
                return Err(StandInError::Refused(format!("the name {slug} is taken")));
            }
            ensure(m, &spec.owner.clone(), UserKind::User)?;
            ensure(m, &format!("{slug}[bot]"), UserKind::Bot)?;
            let id = m.small_id();
            let app = App {
                id,
                hook_id: m.big_id(),
                slug: slug.clone(),
                spec,
                client_id: format!("Iv23li{}", &uuid::Uuid::new_v4().simple().to_string()[..14]),
                client_secret: uuid::Uuid::new_v4().simple().to_string(),
                private_key_pem: key.private_pem.clone(),
                public_key: key.public_der,
                created_at: now(),
            };
            m.apps.insert(id, app);
            Ok(Registered { id, slug, private_key_pem: key.private_pem, webhook_secret })
        })
    }

    /// Where an App's webhooks go from now on.
    ///
    /// # Errors
    /// There is no such App.
    pub fn set_webhook(&self, app: i64, url: Option<&str>, secret: Option<&str>) -> Result<(), StandInError> {
        self.write(|m| {
            let app = m.apps.get_mut(&app).ok_or_else(|| StandInError::NotFound(format!("App {app}")))?;
            app.spec.webhook_url = url.map(str::to_owned);
            app.spec.webhook_secret = secret.map(str::to_owned);
            Ok(())
        })
    }

    /// Installs an App on repositories of an account (none: on all, also later ones) and sends `installation.created`.
    ///
    /// # Errors
    /// There is no such App or account, or it is installed there already.
    pub fn install(&self, app: i64, account: &str, repos: Option<&[i64]>) -> Result<Installed, StandInError> {
        let id = self.write(|m| {
            let Some(spec) = m.apps.get(&app).map(|a| a.spec.clone()) else {
                return Err(StandInError::NotFound(format!("App {app}")));
            };
            if m.user(account).is_none() {
                return Err(StandInError::NotFound(format!("account {account}")));
            }
            if m.installations.values().any(|i| i.app == app && i.account.eq_ignore_ascii_case(account)) {
                return Err(StandInError::Refused(format!("the App is installed on {account} already")));
            }
            let id = m.small_id();
            let installation = Installation {
                id,
                app,
                account: account.to_owned(),
                repos: repos.map(|r| r.iter().copied().collect()),
                permissions: spec.permissions,
                suspended: None,
                created_at: now(),
            };
            m.installations.insert(id, installation);
            Ok(id)
        })?;
        self.tell_installation(id, "created", account);
        Ok(id)
    }

    /// Suspends an installation or takes that back; its tokens then answer 403.
    ///
    /// # Errors
    /// There is no such installation.
    pub fn suspend(&self, installation: i64, suspended: bool) -> Result<(), StandInError> {
        let account = self.change_installation(installation, |i| {
            i.suspended = suspended.then(|| (i.account.clone(), now()));
        })?;
        self.tell_installation(installation, if suspended { "suspend" } else { "unsuspend" }, &account);
        Ok(())
    }

    /// The account accepts permissions that the App wants now.
    ///
    /// # Errors
    /// There is no such installation.
    pub fn accept_permissions(
        &self,
        installation: i64,
        permissions: BTreeMap<String, Level>,
    ) -> Result<(), StandInError> {
        let account = self.change_installation(installation, |i| i.permissions = permissions)?;
        self.tell_installation(installation, "new_permissions_accepted", &account);
        Ok(())
    }

    /// Removes an installation: its tokens are void, and `installation.deleted` goes out.
    ///
    /// # Errors
    /// There is no such installation.
    pub fn uninstall(&self, installation: i64) -> Result<(), StandInError> {
        let account = self.change_installation(installation, |_| {})?;
        // The payload still describes it.
        self.tell_installation(installation, "deleted", &account);
        self.write(|m| {
            m.installations.remove(&installation);
            m.tokens.retain(|_, t| t.installation != installation);
        });
        Ok(())
    }

    /// Adds repositories to an installation and takes others out of it: `installation_repositories`.
    ///
    /// # Errors
    /// There is no such installation, or it stands for all repositories.
    pub fn change_repositories(&self, installation: i64, add: &[i64], remove: &[i64]) -> Result<(), StandInError> {
        let mut selected = true;
        let account = self.change_installation(installation, |i| match &mut i.repos {
            Some(set) => {
                set.extend(add.iter().copied());
                set.retain(|id| !remove.contains(id));
            }
            None => selected = false,
        })?;
        if !selected {
            return Err(StandInError::Refused("the installation stands for all repositories".to_owned()));
        }
        for (action, list) in [("added", add), ("removed", remove)] {
            if list.is_empty() {
                continue;
            }
            let payload = self.read(|m| {
                let mut value = self.installation_payload(m, installation, action, &account);
                let names: Vec<Value> = list.iter().filter_map(|id| m.repos.get(id)).map(short).collect();
                let empty = json!([]);
                let [added, removed] = if action == "added" { [json!(names), empty] } else { [empty, json!(names)] };
                value["repositories_added"] = added;
                value["repositories_removed"] = removed;
                value["repository_selection"] = json!("selected");
                value["requester"] = Value::Null;
                value
            });
            self.send_installation(installation, "installation_repositories", &payload);
        }
        Ok(())
    }

    fn change_installation(&self, id: i64, change: impl FnOnce(&mut Installation)) -> Result<String, StandInError> {
        self.write(|m| {
            let found = m.installations.get_mut(&id);
            let installation = found.ok_or_else(|| StandInError::NotFound(format!("installation {id}")))?;
            change(installation);
            Ok(installation.account.clone())
        })
    }

    fn tell_installation(&self, id: i64, action: &str, sender: &str) {
        let payload = self.read(|m| {
            let mut value = self.installation_payload(m, id, action, sender);
            let names: Vec<Value> = match m.installations.get(&id) {
                Some(i) => m.repos.values().filter(|r| i.covers(r)).map(short).collect(),
                None => Vec::new(),
            };
            value["repositories"] = json!(names);
            value["requester"] = Value::Null;
            value
        });
        self.send_installation(id, "installation", &payload);
    }

    fn installation_payload(&self, m: &Model, id: i64, action: &str, sender: &str) -> Value {
        let l = self.links();
        let installation = m.installations.get(&id).map_or(Value::Null, |i| shapes::installation(&l, m, i));
        json!({"action": action, "installation": installation, "sender": shapes::login(&l, m, sender)})
    }

    fn send_installation(&self, id: i64, event: &str, payload: &Value) {
        let app = self.read(|m| m.installations.get(&id).map(|i| i.app));
        if let Some(app) = app {
            self.send(app, Some(id), None, event, payload);
        }
    }

    /// Repositories that an installation covers, oldest first.
    #[must_use]
    pub fn installation_repositories(&self, id: i64) -> BTreeSet<i64> {
        self.read(|m| match m.installations.get(&id) {
            Some(i) => m.repos.values().filter(|r| i.covers(r)).map(|r| r.id).collect(),
            None => BTreeSet::new(),
        })
    }
}

/// A repository as installation events name it.
fn short(r: &Repo) -> Value {
    json!({
        "id": r.id,
        "node_id": shapes::node("R", r.id),
        "name": r.name,
        "full_name": r.full_name(),
        "private": r.private,
    })
}

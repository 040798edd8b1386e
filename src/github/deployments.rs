//! Deployments and their statuses.
//!
//! Sources: "REST API endpoints for deployments", "REST API endpoints for deployment statuses".

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    auth::Purpose,
    call::{Call, Identity},
    client::GitHub,
    error::GitHubError,
    limits::Cost,
    text::cut_chars,
};
use crate::domain::{
    check::{Deployment, DeploymentStatus},
    ids::RepoRef,
};

/// GitHub's longest description; the API's description leaves it out, the server does not.
const LONGEST_DESCRIPTION: usize = 140;
/// Where our key stands in a deployment's payload.
const KEY: &str = "switchover";
const TASK: &str = "deploy";

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "ref")]
    git_ref: &'a str,
    task: &'a str,
    // The default would merge the default branch into what is released.
    auto_merge: bool,
    // The default would refuse while any status is not green; our gates decide.
    required_contexts: [&'a str; 0],
    payload: Value,
    environment: &'a str,
    description: String,
    transient_environment: bool,
    production_environment: bool,
}

#[derive(Deserialize)]
struct Seen {
    id: i64,
    #[serde(default)]
    payload: Value,
}

impl Seen {
    /// GitHub gives a payload back as it was sent, and very old ones as a string of JSON.
    fn key(&self) -> Option<String> {
        let parsed;
        let payload = match &self.payload {
            Value::String(text) => {
                parsed = serde_json::from_str::<Value>(text).ok()?;
                &parsed
            }
            other => other,
        };
        payload.get(KEY)?.as_str().map(str::to_owned)
    }
}

#[derive(Serialize)]
struct StatusBody<'a> {
    state: &'a str,
    log_url: &'a str,
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment_url: Option<&'a str>,
    // Production ones are not touched by GitHub's automatism; so that all follow one rule, ours does it for all.
    auto_inactive: bool,
}

#[derive(Deserialize)]
struct SeenStatus {
    id: i64,
    state: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    log_url: Option<String>,
    #[serde(default)]
    environment_url: Option<String>,
}

impl GitHub {
    /// Makes sure that this deployment stands on GitHub, and returns its number there.
    ///
    /// A deployment never changes, so nothing is sent when its number is `known`. With `ambiguous_before` those of the
    /// commit and environment are listed first and compared by the key in the payload.
    ///
    /// # Errors
    /// [`GitHubError`]; after [`GitHubError::Ambiguous`] pass `ambiguous_before`.
    pub async fn ensure_deployment(
        &self,
        repo: &RepoRef,
        deployment: &Deployment,
        known: Option<i64>,
        ambiguous_before: bool,
    ) -> Result<i64, GitHubError> {
        if let Some(id) = known {
            return Ok(id);
        }
        let identity = Identity::of(repo, Purpose::Deployments);
        if ambiguous_before {
            let query = [("sha", deployment.sha.as_str()), ("environment", &deployment.environment), ("task", TASK)];
            let url = self.repo_url(repo, &["deployments"], &query)?;
            let all: Vec<Seen> = self.pages(&url, identity, |page: Vec<Seen>| page).await?;
            let found = all.into_iter().filter(|d| d.key().as_deref() == Some(&deployment.key)).map(|d| d.id).max();
            if let Some(id) = found {
                return Ok(id);
            }
        }
        let body = Body {
            git_ref: deployment.sha.as_str(),
            task: TASK,
            auto_merge: false,
            required_contexts: [],
            payload: json!({KEY: deployment.key}),
            environment: &deployment.environment,
            description: cut_chars(&deployment.description, LONGEST_DESCRIPTION),
            transient_environment: false,
            production_environment: deployment.production,
        };
        let url = self.repo_url(repo, &["deployments"], &[])?;
        let call = Call::write(Method::POST, url, identity, Cost::Create, &body)?;
        Ok(self.json::<Seen>(call).await?.id)
    }

    /// Makes this the newest status of a deployment.
    ///
    /// With `ambiguous_before` the newest one is read first, and nothing is sent if it says the same.
    ///
    /// # Errors
    /// [`GitHubError`]; after [`GitHubError::Ambiguous`] pass `ambiguous_before`.
    pub async fn ensure_deployment_status(
        &self,
        repo: &RepoRef,
        deployment_id: i64,
        status: &DeploymentStatus,
        ambiguous_before: bool,
    ) -> Result<(), GitHubError> {
        let identity = Identity::of(repo, Purpose::Deployments);
        let url = self.repo_url(repo, &["deployments", &deployment_id.to_string(), "statuses"], &[])?;
        let description = cut_chars(&status.description, LONGEST_DESCRIPTION);
        if ambiguous_before {
            let all: Vec<SeenStatus> = self.pages(&url, identity, |page: Vec<SeenStatus>| page).await?;
            let text = |t: &Option<String>| t.clone().unwrap_or_default();
            let same = all.iter().max_by_key(|s| s.id).is_some_and(|newest| {
                newest.state == status.state.as_str()
                    && text(&newest.description) == description
                    && text(&newest.log_url) == status.log_url
                    && text(&newest.environment_url) == text(&status.environment_url)
            });
            if same {
                return Ok(());
            }
        }
        let body = StatusBody {
            state: status.state.as_str(),
            log_url: &status.log_url,
            description,
            environment_url: status.environment_url.as_deref(),
            auto_inactive: false,
        };
        let call = Call::write(Method::POST, url, identity, Cost::Create, &body)?;
        self.json::<serde::de::IgnoredAny>(call).await.map(|_| ())
    }
}

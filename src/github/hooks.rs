//! The App's webhook deliveries: what was missed while we were down ("REST API endpoints for GitHub App webhooks").

use http::Method;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value, value::RawValue};
use url::Url;

use super::{
    call::{Call, Identity},
    client::GitHub,
    error::GitHubError,
    limits::Cost,
};
use crate::domain::ids::{DeliveryId, InstallationId, RepoId};

/// One attempt to deliver a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct HookDelivery {
    /// Number of this attempt.
    pub id: i64,
    /// The delivery's GUID: the same for all attempts.
    pub guid: DeliveryId,
    /// When it was tried.
    pub delivered_at: Timestamp,
    /// A second or later attempt.
    #[serde(default)]
    pub redelivery: bool,
    /// In words, such as `OK` or `timed out`.
    #[serde(default)]
    pub status: String,
    /// What the server answered; 0 if nothing.
    #[serde(default)]
    pub status_code: u16,
    /// `X-GitHub-Event`.
    pub event: String,
    /// The payload's action.
    #[serde(default)]
    pub action: Option<String>,
    /// The installation, if the event is one's.
    #[serde(default)]
    pub installation_id: Option<InstallationId>,
    /// The repository, if the event is one's.
    #[serde(default)]
    pub repository_id: Option<RepoId>,
}

impl HookDelivery {
    /// Whether this attempt was taken with a 2xx.
    #[must_use]
    pub fn taken(&self) -> bool {
        (200..300).contains(&self.status_code)
    }
}

/// A page of attempts, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryPage {
    /// At most 100.
    pub deliveries: Vec<HookDelivery>,
    /// Give this to get the page after (older ones); none on the last.
    pub next: Option<String>,
}

/// An attempt with what was sent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct HookDeliveryDetail {
    /// The attempt.
    #[serde(flatten)]
    pub delivery: HookDelivery,
    /// The payload as JSON. Not byte for byte what was signed: GitHub keeps it parsed. It came over the App's own
    /// connection, so nothing needs to be verified.
    #[serde(rename = "request", deserialize_with = "payload")]
    pub payload: Vec<u8>,
}

fn payload<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    #[derive(Deserialize)]
    struct Request {
        payload: Box<RawValue>,
    }
    // Behind `flatten` serde has parsed already, so the raw text must be written again.
    let value = Value::deserialize(deserializer)?;
    let request: Request = serde_json::from_str(&value.to_string()).map_err(D::Error::custom)?;
    // Some versions give the body as a string.
    match serde_json::from_str::<String>(request.payload.get()) {
        Ok(text) => Ok(text.into_bytes()),
        Err(_) => Ok(request.payload.get().as_bytes().to_vec()),
    }
}

/// The cursor of the next page. Only this is taken from the `Link` header, never its host ("Using pagination in the
/// REST API").
fn next_cursor(link: &str) -> Option<String> {
    let next = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    let address = next.split_once('<')?.1.split_once('>')?.0;
    // A relative address is joined to a host that is thrown away.
    let url = Url::parse("http://unused.invalid/").ok()?.join(address).ok()?;
    url.query_pairs().find(|(k, _)| k == "cursor").map(|(_, v)| v.into_owned()).filter(|c| !c.is_empty())
}

impl GitHub {
    /// One page of the App's deliveries, newest first; GitHub keeps them for three days.
    ///
    /// # Errors
    /// [`GitHubError`].
    pub async fn hook_deliveries(&self, cursor: Option<&str>) -> Result<DeliveryPage, GitHubError> {
        let mut query = vec![("per_page", "100")];
        query.extend(cursor.map(|c| ("cursor", c)));
        let url = self.url(&["app", "hook", "deliveries"], &query)?;
        self.run(Call::get(url, Identity::App), |reply| {
            Ok(DeliveryPage {
                deliveries: serde_json::from_slice(&reply.body)?,
                next: reply.headers.get("link").and_then(|l| l.to_str().ok()).and_then(next_cursor),
            })
        })
        .await
    }

    /// One attempt with its payload.
    ///
    /// # Errors
    /// [`GitHubError`].
    pub async fn hook_delivery(&self, id: i64) -> Result<HookDeliveryDetail, GitHubError> {
        let url = self.url(&["app", "hook", "deliveries", &id.to_string()], &[])?;
        self.json(Call::get(url, Identity::App)).await
    }

    /// Asks GitHub to deliver it again, with the same GUID. Taken twice it does no harm: deliveries are told apart.
    ///
    /// # Errors
    /// [`GitHubError`].
    pub async fn redeliver(&self, id: i64) -> Result<(), GitHubError> {
        let url = self.url(&["app", "hook", "deliveries", &id.to_string(), "attempts"], &[])?;
        let call = Call::write(Method::POST, url, Identity::App, Cost::Write, &serde_json::json!({}))?.repeatable();
        self.run(call, |_| Ok(())).await
    }
}

//! Webhooks: who gets which, how they are signed, sent, recorded, redelivered.
//!
//! As GitHub does it ("Handling webhook deliveries", "Redelivering webhooks", "Webhook events and payloads"): ten
//! seconds to answer, no automatic retry, no promise of order, a redelivery with the same `X-GitHub-Delivery`,
//! nothing above 25 MB.

use std::time::{Duration, Instant};

use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{
    StandIn, StandInError,
    faults::{HookEffect, Release},
    guard,
    model::{Delivery, Level, Model, now},
    shapes,
};

/// "Webhook events and payloads": payloads are capped at 25 MB; larger ones are not delivered.
const MAX_PAYLOAD: usize = 25 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Events that an App gets without asking ("Webhook events and payloads": `installation`,
/// `installation_repositories`), and those that `checks: write` brings along (`check_run`, `check_suite`).
fn wants(model: &Model, app: i64, installation_permissions: Option<Level>, event: &str, action: Option<&str>) -> bool {
    if matches!(event, "installation" | "installation_repositories" | "ping") {
        return true;
    }
    let subscribed = model.apps.get(&app).is_some_and(|a| a.spec.events.contains(event));
    let with_checks = matches!(
        (event, action),
        ("check_run", Some("rerequested" | "requested_action" | "created" | "completed"))
            | ("check_suite", Some("requested" | "rerequested" | "completed"))
    );
    subscribed || (with_checks && installation_permissions == Some(Level::Write))
}

impl StandIn {
    /// Sends an event of a repository to every App installed on it that wants it. `only` limits it to one App, as with
    /// buttons of that App's checks.
    pub(super) fn emit(&self, repo: i64, event: &str, payload: &Value, only: Option<i64>) {
        let action = payload.get("action").and_then(Value::as_str);
        let targets: Vec<(i64, i64)> = self.read(|m| {
            let Some(repo) = m.repos.get(&repo) else { return Vec::new() };
            let fits = |i: &&super::model::Installation| {
                i.covers(repo)
                    && i.suspended.is_none()
                    && only.is_none_or(|app| i.app == app)
                    && wants(m, i.app, i.permissions.get("checks").copied(), event, action)
            };
            m.installations.values().filter(fits).map(|i| (i.app, i.id)).collect()
        });
        for (app, installation) in targets {
            let mut payload = payload.clone();
            payload["installation"] = json!({"id": installation, "node_id": shapes::node("I", installation)});
            self.send(app, Some(installation), Some(repo), event, &payload);
        }
    }

    /// Sends an event to one App.
    pub(super) fn send(&self, app: i64, installation: Option<i64>, repo: Option<i64>, event: &str, payload: &Value) {
        let body = payload.to_string();
        if body.len() > MAX_PAYLOAD {
            tracing::warn!(event, bytes = body.len(), "webhook is larger than GitHub sends, not sent");
            return;
        }
        let guid = uuid::Uuid::new_v4().to_string();
        let action = payload.get("action").and_then(Value::as_str).map(str::to_owned);
        let effect = self.0.faults.judge_hook(event);
        let listed = effect != Some(HookEffect::Lose { listed: false });
        let id = self.write(|m| {
            let id = m.big_id();
            let delivery = Delivery {
                id,
                app,
                guid: guid.clone(),
                delivered_at: now(),
                redelivery: false,
                duration: 0.0,
                status: "Pending".to_owned(),
                status_code: 0,
                event: event.to_owned(),
                action,
                installation,
                repository: repo,
                request_headers: Vec::new(),
                payload: body,
                response_headers: Vec::new(),
                response_body: String::new(),
                done: false,
                listed,
            };
            m.deliveries.insert(id, delivery);
            id
        });
        match effect {
            Some(HookEffect::Lose { .. }) => self.finish(id, Duration::ZERO, 0, "failed to connect to host", None),
            Some(HookEffect::Hold) => guard(&self.0.held).push(id),
            Some(HookEffect::Duplicate) => {
                self.spawn_delivery(id);
                self.spawn_delivery(id);
            }
            None => self.spawn_delivery(id),
        }
    }

    /// Sends an earlier webhook again: the same key and body, its own entry in the list.
    ///
    /// # Errors
    /// There is no such delivery.
    pub fn redeliver(&self, delivery: i64) -> Result<i64, StandInError> {
        let id = self.write(|m| {
            let old = m.deliveries.get(&delivery).cloned()?;
            let id = m.big_id();
            let again = Delivery {
                id,
                delivered_at: now(),
                redelivery: true,
                status: "Pending".to_owned(),
                status_code: 0,
                duration: 0.0,
                response_headers: Vec::new(),
                response_body: String::new(),
                done: false,
                listed: true,
                ..old
            };
            m.deliveries.insert(id, again);
            Some(id)
        });
        let id = id.ok_or_else(|| StandInError::NotFound(format!("delivery {delivery}")))?;
        self.spawn_delivery(id);
        Ok(id)
    }

    /// Sends the webhooks that a fault held back.
    pub fn release_held(&self, order: Release) {
        let mut held = std::mem::take(&mut *guard(&self.0.held));
        if order == Release::Reversed {
            held.reverse();
        }
        let this = self.clone();
        // One after the other, or the order would be anybody's guess.
        self.0.runtime.spawn(async move {
            for id in held {
                this.deliver(id).await;
            }
        });
    }

    fn spawn_delivery(&self, id: i64) {
        let this = self.clone();
        self.0.runtime.spawn(async move {
            tokio::select! {
                () = this.deliver(id) => {}
                () = this.0.stop.cancelled() => {}
            }
        });
    }

    async fn deliver(&self, id: i64) {
        let found = self.read(|m| {
            let delivery = m.deliveries.get(&id)?;
            let app = m.apps.get(&delivery.app)?;
            Some((delivery.clone(), app.spec.webhook_url.clone(), app.spec.webhook_secret.clone(), app.hook_id))
        });
        let Some((delivery, url, secret, hook)) = found else { return };
        let Some(url) = url else {
            self.finish(id, Duration::ZERO, 0, "no webhook address", None);
            return;
        };
        let mut headers = vec![
            ("Accept".to_owned(), "*/*".to_owned()),
            ("Content-Type".to_owned(), "application/json".to_owned()),
            ("User-Agent".to_owned(), "GitHub-Hookshot/stand-in".to_owned()),
            ("X-GitHub-Delivery".to_owned(), delivery.guid.clone()),
            ("X-GitHub-Event".to_owned(), delivery.event.clone()),
            ("X-GitHub-Hook-ID".to_owned(), hook.to_string()),
            ("X-GitHub-Hook-Installation-Target-ID".to_owned(), delivery.app.to_string()),
            ("X-GitHub-Hook-Installation-Target-Type".to_owned(), "integration".to_owned()),
        ];
        if let Some(secret) = secret {
            headers.push(("X-Hub-Signature-256".to_owned(), sign(&secret, delivery.payload.as_bytes())));
        }
        self.write(|m| {
            if let Some(delivery) = m.deliveries.get_mut(&id) {
                delivery.request_headers.clone_from(&headers);
            }
        });
        let mut request = self.0.http.post(&url).timeout(TIMEOUT).body(delivery.payload);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let begin = Instant::now();
        match request.send().await {
            Ok(answer) => {
                let code = answer.status().as_u16();
                let text = |v: &reqwest::header::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
                let headers = answer.headers().iter().map(|(k, v)| (k.to_string(), text(v))).collect();
                let mut body = answer.text().await.unwrap_or_default();
                body.truncate(body.floor_char_boundary(64 * 1024));
                let status =
                    if (200..300).contains(&code) { "OK".to_owned() } else { format!("Invalid HTTP Response: {code}") };
                self.finish(id, begin.elapsed(), code, &status, Some((headers, body)));
            }
            Err(e) => {
                let status = if e.is_timeout() { "timed out" } else { "failed to connect to host" };
                self.finish(id, begin.elapsed(), 0, status, None);
            }
        }
    }

    fn finish(
        &self,
        id: i64,
        took: Duration,
        code: u16,
        status: &str,
        answer: Option<(Vec<(String, String)>, String)>,
    ) {
        self.write(|m| {
            let Some(delivery) = m.deliveries.get_mut(&id) else { return };
            delivery.duration = (took.as_secs_f64() * 100.0).round() / 100.0;
            delivery.status_code = code;
            delivery.status = status.to_owned();
            delivery.done = true;
            (delivery.response_headers, delivery.response_body) = answer.unwrap_or_default();
        });
    }
}

/// `X-Hub-Signature-256` ("Validating webhook deliveries"): HMAC-SHA256 over the raw body.
pub(super) fn sign(secret: &str, body: &[u8]) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

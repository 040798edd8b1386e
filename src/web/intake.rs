//! `POST /webhooks/github`: signature first over the raw bytes, then durable, then answered.
//!
//! What is answered 2xx is on disk (invariant 1). Memory is bounded by the [`Budget`].

use std::time::{Duration, Instant};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use futures_util::StreamExt as _;

pub use super::budget::{Budget, Busy};

use super::Web;
use crate::{
    clock,
    domain::ids::DeliveryId,
    github::webhook,
    store::{NewDelivery, Received},
    telemetry::ResultLabel,
};

/// GitHub sends no payload over 25 MB ("Webhook events and payloads").
pub const LARGEST: usize = 25 * 1024 * 1024;
/// A body has this long to arrive. GitHub ends the connection after 10 s without an answer ("Best practices for using
/// webhooks").
const BODY_TIME: Duration = Duration::from_secs(10);

struct Refusal {
    status: StatusCode,
    result: &'static str,
    message: String,
}

fn refuse(status: StatusCode, result: &'static str, message: impl Into<String>) -> Refusal {
    Refusal { status, result, message: message.into() }
}

/// The handler.
pub async fn webhook(request: HttpRequest, payload: web::Payload, web: web::Data<Web>) -> HttpResponse {
    let (status, result, message) = match take(&request, payload, &web).await {
        Ok(Received::New) => (StatusCode::ACCEPTED, "new", "stored".to_owned()),
        Ok(Received::Known) => (StatusCode::ACCEPTED, "known", "known already".to_owned()),
        Err(r) => (r.status, r.result, r.message),
    };
    web.metrics.deliveries.get_or_create(&ResultLabel::of(result)).inc();
    let mut response = HttpResponse::build(status);
    if !status.is_success() {
        tracing::warn!(
            status = status.as_u16(),
            result,
            delivery = header_text(&request, "x-github-delivery").unwrap_or("-"),
            "webhook refused: {message}"
        );
        // The rest of the body is not read: the connection can't be used again.
        response.insert_header((header::CONNECTION, "close"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.insert_header((header::RETRY_AFTER, "30"));
    }
    response.content_type("text/plain; charset=utf-8").body(message + "\n")
}

async fn take(request: &HttpRequest, mut payload: web::Payload, web: &Web) -> Result<Received, Refusal> {
    let too_large =
        || refuse(StatusCode::PAYLOAD_TOO_LARGE, "too_large", format!("a webhook of at most {LARGEST} bytes is taken"));
    let declared = match request.headers().get(header::CONTENT_LENGTH) {
        None => None,
        Some(v) => Some(
            v.to_str()
                .ok()
                .and_then(|v| v.parse::<usize>().ok())
                .ok_or_else(|| refuse(StatusCode::BAD_REQUEST, "invalid", "Content-Length is not a number"))?,
        ),
    };
    if declared.is_some_and(|n| n > LARGEST) {
        return Err(too_large());
    }
    // Without a signature there is nothing to read.
    let signature = header_text(request, "x-hub-signature-256").map(str::to_owned);
    if signature.is_none() {
        return Err(refuse(
            StatusCode::UNAUTHORIZED,
            "signature",
            "no X-Hub-Signature-256: set the webhook secret in the App's settings on GitHub",
        ));
    }
    let guid = header_text(request, "x-github-delivery").and_then(|v| DeliveryId::new(v).ok());
    let event = header_text(request, "x-github-event").map(str::to_owned);

    // A body of unknown length may become as large as the limit.
    let most = declared.unwrap_or(LARGEST);
    // Until it is stored.
    let mut held = web.budget.body(most);
    let mut body = Vec::new();
    let mut left = BODY_TIME;
    loop {
        let asked = Instant::now();
        let chunk = tokio::time::timeout(left, payload.next()).await.map_err(|_| {
            let message = format!("the body did not arrive within {} s", BODY_TIME.as_secs());
            refuse(StatusCode::REQUEST_TIMEOUT, "slow", message)
        })?;
        // The sender's time alone: not ours, in which room is waited for.
        left = left.saturating_sub(asked.elapsed());
        let Some(chunk) = chunk else { break };
        let chunk =
            chunk.map_err(|e| refuse(StatusCode::BAD_REQUEST, "invalid", format!("the body broke off: {e}")))?;
        let needed = body.len() + chunk.len();
        if needed > most {
            return Err(too_large());
        }
        let room = held.grow(needed).await.map_err(|Busy| {
            refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "other webhooks hold all the memory that webhooks may take: this one is not taken; GitHub keeps it, and \
                 it is fetched later",
            )
        })?;
        if room > body.capacity() {
            body.reserve_exact(room - body.len());
        }
        body.extend_from_slice(&chunk);
    }
    let arrived = Instant::now();
    if !webhook::verify(&web.webhook_secrets, signature.as_deref(), &body) {
        return Err(refuse(
            StatusCode::UNAUTHORIZED,
            "signature",
            "the signature does not fit: SWITCHOVER_WEBHOOK_SECRET and the App's webhook secret differ",
        ));
    }
    // Signed, so it is GitHub's. Ids come in headers that are not signed: a strange one is replaced, never refused,
    // and the digest of the body stands in for it, so that a redelivery still meets its first copy.
    let guid = guid.unwrap_or_else(|| {
        let name = crate::domain::ids::Digest::of(&body);
        DeliveryId::new(format!("body-{}", &name.as_str()[7..])).unwrap_or_else(|_| unreachable!("hex is an id"))
    });
    let peek = webhook::peek(&body);
    let delivery = NewDelivery {
        guid,
        event: event.unwrap_or_default().chars().take(100).collect(),
        action: peek.action,
        repo_id: peek.repo_id.map(|r| r.0),
        installation_id: peek.installation_id.map(|i| i.0),
        received_at: clock::now(),
        body,
    };
    let received = web.store.receive(delivery).await.map_err(|e| {
        refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "disk",
            format!("the webhook could not be stored, so it is not taken: {e}"),
        )
    })?;
    web.metrics.intake_seconds.observe(arrived.elapsed().as_secs_f64());
    web.wake.deliveries.notify_one();
    crate::failpoint::hit("intake.before_answer");
    Ok(received)
}

fn header_text<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    request.headers().get(name).and_then(|v| v.to_str().ok())
}

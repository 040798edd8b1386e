//! Reporting is reconciliation: what changed is rendered again from the store, compared with what GitHub was seen to
//! show, and the difference is written. After any crash or outage GitHub ends up showing what the store says, once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::{StreamExt as _, future::join_all, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{Engine, EngineError, backoff, until};
use crate::{
    clock,
    domain::{
        check::{CheckRun, Deployment, DeploymentStatus},
        ids::{RepoRef, RolloutId, Sha},
    },
    github::GitHubError,
    report,
    slack::Slack,
    store::{Dirty, Message, Rendered, RepoState, Shown, StoreError, json_of},
    telemetry::ResultLabel,
};

/// Things rendered, and written, in one go.
const BATCH: i64 = 50;
/// Writes under way at once.
const SIDE_BY_SIDE: usize = 8;
/// A message that could not be sent for so long is given up.
const MESSAGE_AGE: jiff::SignedDuration = jiff::SignedDuration::from_hours(6);

/// A deployment with its newest status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ShownDeployment {
    deployment: Deployment,
    status: DeploymentStatus,
}

/// The loop.
pub async fn run(engine: Engine, shutdown: CancellationToken) {
    loop {
        let next = match round(&engine).await {
            Ok(true) => continue,
            Ok(false) => engine.store.next_shown_at().await.ok().flatten(),
            Err(e) => {
                tracing::error!(error = %e, "reporting can't go on now");
                Some(clock::now() + Duration::from_secs(1))
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = engine.wake.report.notified() => {}
            () = until(next) => {}
        }
    }
    // One last round, so that what a stopping server did is seen.
    let _ = tokio::time::timeout(Duration::from_secs(3), round(&engine)).await;
}

/// Renders and writes what is due. True when there may be more.
async fn round(engine: &Engine) -> Result<bool, EngineError> {
    let dirty = engine.store.dirty(BATCH).await?;
    if !dirty.is_empty() {
        engine.wake.seen.send_modify(|n| *n += 1);
    }
    for of in &dirty {
        match render(engine, of).await {
            Ok(()) => {}
            Err(EngineError::Store(e)) => return Err(e.into()),
            Err(e) => {
                tracing::error!(kind = of.kind, subject = of.subject, error = %e, "can't be rendered");
                engine.store.forget_dirty(of).await?;
            }
        }
    }
    let due = engine.store.unshown(clock::now(), BATCH).await?;
    if due.is_empty() {
        return Ok(!dirty.is_empty());
    }
    // The newest state of one thing is written once: what was between is never sent.
    stream::iter(due).for_each_concurrent(SIDE_BY_SIDE, |shown| show(engine, shown)).await;
    Ok(true)
}

async fn render(engine: &Engine, of: &Dirty) -> Result<(), EngineError> {
    let mut items = Vec::new();
    match of.kind.as_str() {
        "commit" => {
            let sha = Sha::new(of.subject.clone()).map_err(|e| EngineError::Refused(e.to_string()))?;
            for run in engine.store.runs_on(of.repo, &sha).await? {
                let view = engine.run_view(&run).await?;
                for job in &view.jobs {
                    for step in &job.steps {
                        let check = report::step_check(&view, job, step);
                        items.push(check_item(engine, check, &format!("step:{}", step.id)).await?);
                    }
                }
                messages(engine, &run, &view).await?;
            }
            let views = engine.runs_view(of.repo, &sha).await?;
            if !views.is_empty() {
                let check = report::and_check(&sha, &views);
                items.push(check_item(engine, check, &format!("all:{}:{sha}", of.repo)).await?);
            }
        }
        _ => {
            let id: RolloutId =
                of.subject.parse().map_err(|e: crate::domain::ids::IdError| EngineError::Refused(e.to_string()))?;
            let Some(row) = engine.store.rollout(id).await? else {
                return Err(EngineError::Refused(format!("no rollout {id}")));
            };
            let view = engine.rollout_view(&row).await?;
            items.push(check_item(engine, report::deploy_check(&view), &format!("rollout:{id}")).await?);
            let (deployment, status) = report::deployment(&view);
            let key = format!("deployment:{id}");
            items.push(Rendered {
                base: key.clone(),
                key,
                kind: "deployment",
                sha: row.sha.clone(),
                json: json_of(&ShownDeployment { deployment, status })?,
            });
            let detail: super::releases::RolloutDetail = super::rollouts::parse(&row.detail)?;
            queue(engine, of.repo, detail.channel.as_deref(), report::rollout_messages(&view)).await?;
        }
    }
    engine.store.render(of, &items, clock::now()).await?;
    Ok(())
}

async fn check_item(engine: &Engine, mut check: CheckRun, base: &str) -> Result<Rendered, EngineError> {
    base.clone_into(&mut check.external_id);
    let shown = engine.store.latest_shown(base).await?;
    let before: Option<CheckRun> = match &shown {
        Some(s) => Some(super::rollouts::parse(&s.desired)?),
        None => None,
    };
    let check = report::follow(before.as_ref(), check);
    Ok(Rendered {
        key: check.external_id.clone(),
        base: base.to_owned(),
        kind: "check",
        sha: check.head_sha.clone(),
        json: json_of(&check)?,
    })
}

async fn messages(engine: &Engine, run: &crate::store::Run, view: &report::view::RunView) -> Result<(), EngineError> {
    let repo = engine.store.repo(run.repo).await?;
    let Some(repo) = repo else { return Ok(()) };
    if engine.settings.slack_url.is_none() && engine.settings.slack.is_empty() {
        return Ok(());
    }
    let policy = engine.policy(&repo.info).await?;
    let channel = policy.and_then(|p| p.notify.slack);
    queue(engine, run.repo, channel.as_deref(), report::run_messages(view)).await
}

async fn queue(
    engine: &Engine,
    repo: crate::domain::ids::RepoId,
    channel: Option<&str>,
    messages: Vec<report::SlackMessage>,
) -> Result<(), EngineError> {
    if engine.settings.slack_for(channel).is_none() {
        return Ok(());
    }
    for message in messages {
        let body = json_of(&message)?;
        if engine.store.queue_message(repo, &message.key, channel.unwrap_or(""), &body, clock::now()).await? {
            engine.wake.messages.notify_one();
        }
    }
    Ok(())
}

async fn show(engine: &Engine, shown: Shown) {
    let result = match engine.store.repo(shown.repo).await {
        Ok(Some(repo)) if repo.state == RepoState::Active => write(engine, &repo.info.repo, &shown).await,
        // Suspended or removed since it was read: it waits in the store.
        Ok(_) => return,
        Err(e) => Err(e.into()),
    };
    let written = match result {
        Ok(id) => {
            engine.metrics.github.get_or_create(&ResultLabel::of("written")).inc();
            engine.store.was_shown(&shown.key, &shown.desired_hash, id).await
        }
        Err(EngineError::GitHub(e)) => failed(engine, &shown, &e).await,
        Err(e) => {
            tracing::error!(key = shown.key, error = %e, "can't be shown");
            let at = clock::now() + backoff(shown.attempts);
            engine.store.not_shown(&shown.key, at, true, &e.to_string()).await
        }
    };
    if let Err(e) = written {
        tracing::error!(key = shown.key, error = %e, "what GitHub shows can't be noted");
    }
}

async fn failed(engine: &Engine, shown: &Shown, e: &GitHubError) -> Result<(), StoreError> {
    let now = clock::now();
    engine.metrics.github.get_or_create(&ResultLabel::of(if e.is_permanent() { "refused" } else { "retried" })).inc();
    // What GitHub understood and refused stays refused. Not found, forbidden, suspended: somebody may mend that any
    // day, and GitHub itself answers so for a while after its own faults.
    if matches!(e, GitHubError::Invalid { .. }) && shown.attempts >= 3 {
        tracing::error!(key = shown.key, error = %e, "GitHub will not take it");
        return engine.store.give_up_showing(&shown.key, &e.to_string()).await;
    }
    // Never before the time that GitHub named.
    let at = e.retry_at(now).unwrap_or(now).max(now + backoff(shown.attempts));
    tracing::warn!(key = shown.key, attempts = shown.attempts, error = %e, "not shown yet");
    engine.store.not_shown(&shown.key, at, shown.ambiguous || e.is_ambiguous(), &e.to_string()).await
}

/// Intent, effect, record: the mark "ambiguous" is on disk before the write, so that after a crash in between it is
/// looked for before it is written again.
async fn write(engine: &Engine, repo: &RepoRef, shown: &Shown) -> Result<i64, EngineError> {
    crate::failpoint::hit("reporter.before_intent");
    engine.store.about_to_show(&shown.key).await?;
    crate::failpoint::hit("reporter.after_intent");
    let id = if shown.kind == "check" {
        let check: CheckRun = super::rollouts::parse(&shown.desired)?;
        engine.github.ensure_check(repo, &check, shown.github_id, shown.ambiguous).await?
    } else {
        let wanted: ShownDeployment = super::rollouts::parse(&shown.desired)?;
        let id = engine.github.ensure_deployment(repo, &wanted.deployment, shown.github_id, shown.ambiguous).await?;
        engine.github.ensure_deployment_status(repo, id, &wanted.status, shown.ambiguous).await?;
        id
    };
    crate::failpoint::hit("reporter.after_effect");
    Ok(id)
}

/// The loop that sends messages. At least once; an outage of Slack delays nothing else.
pub async fn run_messages(engine: Engine, shutdown: CancellationToken) {
    let slack = match Slack::new() {
        Ok(slack) => slack,
        Err(e) => {
            tracing::error!(error = %e, "no messages are sent to Slack: no HTTP client can be made");
            return;
        }
    };
    let mut warned = BTreeSet::new();
    loop {
        let due = engine.store.due_messages(clock::now(), 20).await.unwrap_or_default();
        // In order within a channel; a channel that does not answer holds up no other.
        let mut channels: BTreeMap<&str, Vec<&Message>> = BTreeMap::new();
        for message in &due {
            channels.entry(&message.channel).or_default().push(message);
        }
        let all = join_all(channels.into_values().map(|messages| post(&slack, &engine, messages)));
        let errors = tokio::select! {
            // A message whose answer is not waited for is still in the store, and sent again after the next start.
            () = shutdown.cancelled() => return,
            errors = all => errors,
        };
        for error in errors.into_iter().filter_map(Result::err) {
            if warned.insert(error.to_string()) {
                tracing::error!(%error, "a message's outcome can't be written");
            }
        }
        let next = engine.store.next_message_at().await.ok().flatten();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = engine.wake.messages.notified() => {}
            () = until(next.map(|at| at.max(clock::now() + Duration::from_millis(200)))) => {}
        }
    }
}

/// Messages of one channel, one after the other. Once one has to wait, so do those behind it.
async fn post(slack: &Slack, engine: &Engine, messages: Vec<&Message>) -> Result<(), StoreError> {
    let mut waits: Option<(Timestamp, String)> = None;
    for message in messages {
        let channel = Some(message.channel.as_str()).filter(|c| !c.is_empty());
        match (engine.settings.slack_for(channel), &waits) {
            (Some(_), Some((at, why))) => engine.store.retry_message(&message.key, *at, why).await?,
            (Some(url), None) => waits = send(slack, engine, url, message).await?,
            (None, _) => {
                let why = "no Slack address for this channel";
                engine.store.message_sent(&message.key, Some(why), clock::now()).await?;
            }
        }
    }
    Ok(())
}

/// Until when it waits and why, where it could not be sent now.
async fn send(
    slack: &Slack,
    engine: &Engine,
    url: &secrecy::SecretString,
    message: &Message,
) -> Result<Option<(Timestamp, String)>, StoreError> {
    let now = clock::now();
    let parsed: report::SlackMessage = match serde_json::from_str(&message.body) {
        Ok(parsed) => parsed,
        Err(e) => {
            engine.store.message_sent(&message.key, Some(&e.to_string()), now).await?;
            return Ok(None);
        }
    };
    match slack.post(url, &parsed).await {
        Ok(()) => engine.store.message_sent(&message.key, None, clock::now()).await?,
        Err(e) if now.duration_since(message.created_at) > MESSAGE_AGE || e.is_permanent() => {
            tracing::error!(key = message.key, error = %e, "Slack did not take a message: given up");
            engine.store.message_sent(&message.key, Some(&e.to_string()), clock::now()).await?;
        }
        Err(e) => {
            let at = clock::now() + e.retry_after().unwrap_or_else(|| backoff(message.attempts));
            tracing::warn!(key = message.key, error = %e, "Slack did not take a message: tried again later");
            engine.store.retry_message(&message.key, at, &e.to_string()).await?;
            return Ok(Some((at, e.to_string())));
        }
    }
    Ok(None)
}

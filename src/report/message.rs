//! What Slack is told: the start, the end and the result of each step and release.
//!
//! The lists are all messages that should have been sent by now, in order. The queue keeps those whose `key` it does
//! not know yet; Slack itself has no such key, so a message whose answer got lost comes twice.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    deploy, step,
    text::{between, duration, first_line, number, one_line, slack, slack_link},
    view::{JobView, ReleaseKind, RolloutState, RolloutView, RunView, StepState, StepView},
};
use crate::domain::run::Outcome;

/// Characters of a section's text ("Block Kit: section block").
const SECTION_MAX: usize = 3_000;
/// Blocks of one message ("Reference: blocks").
const BLOCKS_MAX: usize = 50;

/// One message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlackMessage {
    /// Sent once for each key.
    pub key: String,
    /// For notifications and readers without blocks; escaped.
    pub text: String,
    /// The message as blocks.
    pub blocks: Value,
}

impl SlackMessage {
    /// Puts sections (mrkdwn, escaped) above one line of context.
    fn new(key: String, text: String, sections: &[String], context: &str) -> Self {
        let mrkdwn = |text: &str| json!({"type": "mrkdwn", "text": cut(text, SECTION_MAX), "verbatim": true});
        let mut blocks: Vec<Value> = sections
            .iter()
            .filter(|section| !section.is_empty())
            .take(BLOCKS_MAX - 1)
            .map(|section| json!({"type": "section", "text": mrkdwn(section)}))
            .collect();
        if !context.is_empty() {
            blocks.push(json!({"type": "context", "elements": [mrkdwn(context)]}));
        }
        Self { key, text: cut(&text, SECTION_MAX), blocks: Value::Array(blocks) }
    }
}

/// The last net: the parts are limited already, so that no link or entity is cut.
fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some(_) => {
            let end = text.char_indices().nth(max - 1).map_or(text.len(), |(at, _)| at);
            let mut cut = &text[..end];
            // Not inside `<…|…>` or `&…;`.
            if let Some(at) = cut.rfind('<').filter(|at| !cut[*at..].contains('>')) {
                cut = &cut[..at];
            }
            if let Some(at) = cut.rfind('&').filter(|at| !cut[*at..].contains(';')) {
                cut = &cut[..at];
            }
            format!("{cut}…")
        }
    }
}

fn commit_link(web_url: &str, repo: &str, sha: &crate::domain::ids::Sha) -> String {
    slack_link(sha.short(), &format!("{web_url}/{repo}/commit/{sha}"))
}

/// The messages of a run's steps.
#[must_use]
pub fn run_messages(run: &RunView) -> Vec<SlackMessage> {
    let mut out = Vec::new();
    for job in &run.jobs {
        for one in &job.steps {
            step_messages(&mut out, run, job, one);
        }
    }
    out
}

fn step_messages(out: &mut Vec<SlackMessage>, run: &RunView, job: &JobView, one: &StepView) {
    let name = slack(&step::name(run, job, one), 200);
    let key = format!("step/{}/{}", one.id, one.attempt);
    let place = slack(&run.repo, 200);
    let context = format!(
        "{} {} · {} · {}",
        commit_link(&run.web_url, &run.repo, &run.head_sha),
        slack(&first_line(&run.message, 120), 160),
        slack(&one_line(&run.author, 80), 100),
        slack(&one_line(&run.branch, 100), 120),
    );
    let linked = slack_link(&step::name(run, job, one), &one.log_url);
    // What never had a process has no start.
    let began = one.started.is_some() && one.reused.is_none() && one.outcome != Some(Outcome::Skipped);
    if one.state != StepState::Queued && began {
        let text = format!("{place}: {name} started");
        let section = format!("▸ *{linked}* started in {place}");
        out.push(SlackMessage::new(format!("{key}/start"), text, &[section], &context));
    }
    if let Some(conclusion) = step::ended(one) {
        let title = slack(&step::title(run, job, one), 300);
        let sign = conclusion.sign();
        let text = format!("{place}: {sign} {name}: {title}");
        let mut context = context;
        if let Some(ms) = step::took(one) {
            context.push_str(&format!(" · {}", duration(ms)));
        }
        let sections = [format!("{sign} *{linked}* in {place}\n{title}"), failed_tests(one)];
        out.push(SlackMessage::new(format!("{key}/end"), text, &sections, &context));
    }
}

/// The first failed tests, a line each.
fn failed_tests(one: &StepView) -> String {
    let Some(report) = one.report.as_ref().filter(|_| one.reused.is_none()) else { return String::new() };
    let failed: Vec<_> = report.cases.iter().filter(|c| c.state == crate::domain::run::TestState::Failed).collect();
    let mut lines: Vec<String> =
        failed.iter().take(5).map(|case| format!("• {}", slack(&super::tests_of::name(case), 300))).collect();
    let more = (report.failed as usize).saturating_sub(lines.len());
    if !lines.is_empty() && more > 0 {
        lines.push(format!("… and {} more", number(more as u64)));
    }
    lines.join("\n")
}

/// The messages of a release.
#[must_use]
pub fn rollout_messages(rollout: &RolloutView) -> Vec<SlackMessage> {
    let mut out = Vec::new();
    let key = format!("rollout/{}", rollout.id);
    let env = slack(&rollout.environment, 80);
    let place = slack(&rollout.repo, 200);
    let verb = if rollout.kind == ReleaseKind::Rollback { "Rollback" } else { "Release" };
    let linked = slack_link(&format!("{verb} to {}", rollout.environment), &rollout.log_url);
    let context = format!(
        "{} {} · {} · begun by {}",
        commit_link(&rollout.web_url, &rollout.repo, &rollout.sha),
        slack(&first_line(&rollout.commit_message, 120), 160),
        slack(&one_line(&rollout.author, 80), 100),
        slack(&one_line(&rollout.started_by, 120), 160),
    );
    if rollout.started_at.is_some() {
        let commits = match &rollout.goes_live {
            Some(goes) if goes.total > 0 => {
                let label = super::text::count(goes.total, "commit", "commits");
                format!("\n{} go live with it", slack_link(&label, goes.compare_url.as_deref().unwrap_or_default()))
            }
            _ => String::new(),
        };
        let text = format!("{place}: {verb} of {} to {env} started", rollout.sha.short());
        let section = format!("▸ *{linked}* started in {place}{commits}");
        out.push(SlackMessage::new(format!("{key}/start"), text, &[section], &context));
    }
    let title = slack(&deploy::title(rollout), 400);
    let (part, sign) = match rollout.state {
        RolloutState::Queued | RolloutState::Running => return out,
        RolloutState::WaitingForApproval => ("approval", "!"),
        RolloutState::RollingBack => ("back", "↶"),
        RolloutState::Live | RolloutState::Replaced => ("end", "✓"),
        RolloutState::RolledBack | RolloutState::Failed => ("end", "✗"),
        RolloutState::Cancelled | RolloutState::Superseded | RolloutState::Infrastructure => ("end", "⊘"),
        RolloutState::Stuck => ("stuck", "!"),
    };
    let mut context = context;
    if let (Some(from), Some(to)) = (rollout.started_at, rollout.finished_at) {
        context.push_str(&format!(" · {}", duration(between(from, to))));
    }
    let text = format!("{place}: {sign} {verb} to {env}: {title}");
    let section = format!("{sign} *{linked}* in {place}\n{title}");
    out.push(SlackMessage::new(format!("{key}/{part}"), text, &[section, traffic(rollout)], &context));
    out
}

fn traffic(rollout: &RolloutView) -> String {
    let Some(traffic) = rollout.traffic.filter(|t| t.requests > 0) else { return String::new() };
    format!(
        "{} real requests, {} answered with 5xx, {} cut",
        number(traffic.requests),
        number(traffic.server_errors),
        number(traffic.cut)
    )
}

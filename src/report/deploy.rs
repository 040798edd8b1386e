//! A release on GitHub: its check run, its deployment and the deployment's status.

use super::{
    doc::Doc,
    draw,
    text::{self, between, clock, code, count, duration, fence, first_line, latency, link, moment, number, plain},
    view::{GoesLive, ProbeView, ReleaseKind, RolloutState, RolloutView},
    words,
};
use crate::domain::check::{
    CheckAction, CheckRun, CheckStatus, Conclusion, Deployment, DeploymentState, DeploymentStatus,
};

/// What GitHub is told: superseded, called off and broken on our side are no failure, and none of it is green.
fn conclusion(state: RolloutState) -> Option<Conclusion> {
    match state {
        RolloutState::Queued | RolloutState::Running | RolloutState::RollingBack => None,
        RolloutState::WaitingForApproval | RolloutState::Stuck => Some(Conclusion::ActionRequired),
        RolloutState::Live | RolloutState::Replaced => Some(Conclusion::Success),
        RolloutState::RolledBack | RolloutState::Failed => Some(Conclusion::Failure),
        RolloutState::Cancelled | RolloutState::Superseded | RolloutState::Infrastructure => {
            Some(Conclusion::Cancelled)
        }
    }
}

/// The one line beside the name, as plain text.
pub(super) fn title(rollout: &RolloutView) -> String {
    let message = text::one_line(&rollout.message, 150);
    let with = |lead: &str| if message.is_empty() { lead.to_owned() } else { format!("{lead}: {message}") };
    let sha = rollout.sha.short();
    match rollout.state {
        RolloutState::Queued => with("Waits"),
        RolloutState::Running => {
            let phase = rollout.phases.last().map_or("Starting", |p| p.name.as_str());
            with(&text::one_line(phase, 30))
        }
        RolloutState::WaitingForApproval => format!("{sha} waits for somebody to promote it"),
        RolloutState::RollingBack => with("On the way back"),
        RolloutState::Live => {
            let probes = rollout.probe.as_ref().filter(|p| p.sent > 0);
            let lost = probes.map(|p| format!(", {}", probes_failed(p))).unwrap_or_default();
            let verb = if rollout.kind == ReleaseKind::Rollback { "is back" } else { "is live" };
            format!("{sha} {verb}{}{lost}", after(rollout))
        }
        RolloutState::Replaced => format!("{sha} was live and has been replaced"),
        RolloutState::RolledBack => with("Taken back"),
        RolloutState::Failed => with("Not released"),
        RolloutState::Cancelled => with("Called off"),
        RolloutState::Superseded => with("A newer release took its place"),
        RolloutState::Infrastructure => with("Not the commit's fault"),
        RolloutState::Stuck => with("Stuck"),
    }
}

/// How long the work took; while a person was waited for, there was none.
fn after(rollout: &RolloutView) -> String {
    let end = rollout.switched_at.or(rollout.finished_at);
    let (Some(start), Some(end)) = (rollout.started_at, end) else { return String::new() };
    let waited: u64 = rollout
        .phases
        .iter()
        .filter(|p| (p.name == "Approve" || p.name == "Wait") && p.started < end)
        .map(|p| between(p.started.max(start), p.finished.map_or(end, |f| f.min(end))))
        .sum();
    format!(" after {}", duration(between(start, end).saturating_sub(waited)))
}

fn probes_failed(probe: &ProbeView) -> String {
    format!("{} of {} failed", number(probe.failed), count(probe.sent, "probe", "probes"))
}

/// The check run of one release, named `deploy (production)`.
///
/// GitHub shows buttons on completed check runs only, so a release that waits for approval completes it with
/// `action_required`; what follows is a new check run of the same name (see [`super::follow`]).
/// The buttons' identifiers are `promote`, `cancel` and `rollback`; the check run's `external_id`
/// (`rollout/` and the rollout's id) says of what.
#[must_use]
pub fn deploy_check(rollout: &RolloutView) -> CheckRun {
    let conclusion = conclusion(rollout.state);
    let title = title(rollout);
    let end = next(rollout);
    let mut doc = Doc::new(end.len());
    doc.block(&format!("**{}**", plain(&title)));
    doc.block(&what(rollout));
    if let Some(advice) = advice(rollout) {
        doc.block(&advice);
    }
    doc.block(&fence(&draw::release(rollout), "text", 8_000));
    figures(&mut doc, rollout);
    phases(&mut doc, rollout);
    digests(&mut doc, rollout);
    if let Some(hold) = &rollout.hold {
        doc.block(&format!(
            "Held since {} by {}: {}. Automatic releases wait until it is resumed.",
            moment(hold.since),
            words::person(&hold.by),
            plain(&text::one_line(&hold.reason, 300)).trim_end_matches('.'),
        ));
    }
    if !rollout.last_lines.is_empty() {
        let most = 16_000.min(doc.room().saturating_sub(200) / 3);
        doc.block(&format!("### Last lines\n\n{}", fence(&rollout.last_lines.join("\n"), "text", most)));
    }
    if let Some(goes) = &rollout.goes_live {
        goes_live(&mut doc, rollout, goes);
    }
    doc.list("### Worth knowing", &words::notes(&rollout.notes), 50);
    let over = conclusion.is_some();
    CheckRun {
        name: format!("deploy ({})", rollout.environment),
        head_sha: rollout.sha.clone(),
        external_id: format!("rollout/{}", rollout.id),
        status: match (over, rollout.state) {
            (true, _) => CheckStatus::Completed,
            (false, RolloutState::Queued) => CheckStatus::Queued,
            (false, _) => CheckStatus::InProgress,
        },
        conclusion,
        started_at: rollout.started_at,
        completed_at: over.then(|| {
            // A release that waits has not ended: its last phase says since when.
            let last = rollout.phases.last().map(|p| p.finished.unwrap_or(p.started));
            rollout.finished_at.or(last).or(rollout.started_at).unwrap_or(rollout.created_at)
        }),
        details_url: Some(rollout.log_url.clone()),
        title: text::one_line(&title, 250),
        summary: doc.finish(&end),
        text: None,
        annotations: Vec::new(),
        actions: actions(rollout),
    }
}

fn action(label: &str, description: &str, identifier: &str) -> CheckAction {
    CheckAction { label: label.to_owned(), description: description.to_owned(), identifier: identifier.to_owned() }
}

fn actions(rollout: &RolloutView) -> Vec<CheckAction> {
    match rollout.state {
        RolloutState::WaitingForApproval => vec![
            action("Promote", "Go on with this release", "promote"),
            action("Cancel", "Call this release off", "cancel"),
        ],
        // After a rollback, what served before is what was taken back.
        RolloutState::Live if rollout.previous.is_some() && rollout.kind == ReleaseKind::Release => {
            vec![action("Roll back", "Serve the previous release again", "rollback")]
        }
        _ => Vec::new(),
    }
}

/// What is released, by whom, instead of what.
fn what(rollout: &RolloutView) -> String {
    let commit = |sha| words::commit(&rollout.web_url, &rollout.repo, sha);
    let verb = if rollout.kind == ReleaseKind::Rollback { "Back to" } else { "Release of" };
    let mut out = format!(
        "{verb} {} ({}, by {}) to {}",
        commit(&rollout.sha),
        words::subject(&rollout.commit_message),
        words::person(&rollout.author),
        link(&code(&rollout.environment), rollout.environment_url.as_deref().unwrap_or_default()),
    );
    match &rollout.previous {
        Some(previous) => out.push_str(&format!(", where {} served before.", commit(&previous.sha))),
        None => out.push_str(": its first release."),
    }
    out.push_str(&format!(" Begun by {}.", words::person(&rollout.started_by)));
    out
}

/// What happened and what it means, where the title leaves a question.
fn advice(rollout: &RolloutView) -> Option<String> {
    let untouched = match rollout.previous {
        Some(_) => "What was live still is, and was not touched.",
        None => "Nothing was live before, and nothing is now.",
    };
    Some(match rollout.state {
        RolloutState::WaitingForApproval if rollout.phases.iter().any(|p| p.name == "Verify") => {
            "The new slot runs, is warm and verified; no user reaches it. Promote it to switch, or cancel it."
                .to_owned()
        }
        RolloutState::WaitingForApproval => {
            "It may change a live database before anything of it starts, so it waits here. Promote it to go on, or \
             cancel it."
                .to_owned()
        }
        RolloutState::RolledBack => match &rollout.previous {
            Some(previous) => format!(
                "{} serves again. {}",
                words::commit(&rollout.web_url, &rollout.repo, &previous.sha),
                match rollout.hold {
                    Some(_) => "The environment takes no automatic release before it is resumed.",
                    None => "The environment is not held: the next commit is released as usual.",
                }
            ),
            None => "There was nothing to go back to.".to_owned(),
        },
        RolloutState::Failed | RolloutState::Cancelled | RolloutState::Superseded => untouched.to_owned(),
        RolloutState::Infrastructure => {
            format!("Something broke on our side or on the platform, not in the commit. {untouched}")
        }
        RolloutState::Stuck => {
            "The live system is not what was left there, so nothing more is done to it. Look at it, then either repair \
             it as said above, or roll back."
                .to_owned()
        }
        _ => return None,
    })
}

fn figures(doc: &mut Doc, rollout: &RolloutView) {
    let mut lines = Vec::new();
    if let Some(probe) = &rollout.probe {
        lines.push(format!("- **{}**", probes_failed(probe)));
        match (probe.p99_before_us, probe.p99_after_us) {
            (Some(before), Some(after)) => {
                lines.push(format!("- p99 {} before the switch, {} after it", latency(before), latency(after)));
            }
            (Some(before), None) => lines.push(format!("- p99 {} before the switch", latency(before))),
            (None, Some(after)) => lines.push(format!("- p99 {} after the switch", latency(after))),
            (None, None) => {}
        }
        if let Some(ms) = probe.last_old_ms {
            lines.push(format!("- {} from the flip to the last answer of the old release", duration(ms)));
        }
    }
    if let Some(traffic) = &rollout.traffic {
        lines.push(format!(
            "- {} through the agent: {} answered with 5xx, {} cut",
            count(traffic.requests, "real request", "real requests"),
            number(traffic.server_errors),
            number(traffic.cut)
        ));
    }
    if let Some(probe) = &rollout.probe {
        lines.extend(words::notes(&probe.failures).into_iter().take(5).map(|l| format!("  {l}")));
    }
    doc.list("### Requests", &lines, 50);
}

fn phases(doc: &mut Doc, rollout: &RolloutView) {
    let row = |phase: &super::view::PhaseView| {
        format!(
            "| {} | {} | {} | {} |",
            plain(&text::one_line(&phase.name, 60)),
            clock(phase.started),
            phase.finished.map_or_else(|| "…".to_owned(), |end| duration(between(phase.started, end))),
            plain(&text::one_line(phase.note.as_deref().unwrap_or_default(), 200)),
        )
    };
    let rows: Vec<String> = rollout.phases.iter().map(row).collect();
    doc.rows("", "| Phase | Began (UTC) | Took | |\n| --- | --- | --- | --- |", &rows, 60);
}

fn digests(doc: &mut Doc, rollout: &RolloutView) {
    let row = |app: &super::view::AppDigest| {
        let digest = app.digest.as_ref().map_or_else(|| "not built yet".to_owned(), |d| code(d.as_str()));
        let same = if app.unchanged { "unchanged" } else { "" };
        format!("| {} | {digest} | {same} |", plain(&app.app))
    };
    let rows: Vec<String> = rollout.apps.iter().map(row).collect();
    doc.rows("", "| App | Digest | |\n| --- | --- | --- |", &rows, 200);
}

/// Names stand without an `@` and numbers without a `#`: nobody is called by a release.
fn goes_live(doc: &mut Doc, rollout: &RolloutView, goes: &GoesLive) {
    let total = goes.total.max(goes.commits.len() as u64);
    if total == 0 {
        doc.block("No new commit goes live with it.");
        return;
    }
    let mut authors: Vec<String> = Vec::new();
    for name in goes.commits.iter().map(|c| &c.author).chain(goes.pulls.iter().map(|p| &p.author)) {
        let name = words::person(name);
        if !authors.iter().any(|known| known.to_lowercase() == name.to_lowercase()) {
            authors.push(name);
        }
    }
    let shown = authors.iter().take(20).cloned().collect::<Vec<_>>().join(", ");
    let more = if authors.len() > 20 { format!(" and {} more", authors.len() - 20) } else { String::new() };
    let by = if shown.is_empty() { String::new() } else { format!(" by {shown}{more}") };
    let commits = link(&count(total, "commit", "commits"), goes.compare_url.as_deref().unwrap_or_default());
    doc.block(&format!("### What goes live\n\n{commits}{by}."));
    let pulls: Vec<String> = goes
        .pulls
        .iter()
        .map(|pull| {
            let url = format!("{}/{}/pull/{}", rollout.web_url, rollout.repo, pull.number);
            let author = words::person(&pull.author);
            format!(
                "- {} {} ({author})",
                link(&format!("pull request {}", pull.number), &url),
                words::subject(&pull.title)
            )
        })
        .collect();
    doc.list("", &pulls, 50);
    let commits: Vec<String> = goes
        .commits
        .iter()
        .map(|one| {
            let sha = words::commit(&rollout.web_url, &rollout.repo, &one.sha);
            let author = words::person(&one.author);
            format!("- {sha} {} ({author})", words::subject(&one.message))
        })
        .collect();
    doc.list("", &commits, 50);
}

/// The commands that make sense now, on the server: they work with GitHub away too. The same as this check's buttons,
/// where there are some.
fn next(rollout: &RolloutView) -> String {
    let env = &rollout.environment;
    let verbs: &[&str] = match rollout.state {
        RolloutState::Queued | RolloutState::Running if rollout.switched_at.is_none() => &["cancel"],
        RolloutState::WaitingForApproval => &["promote", "cancel"],
        RolloutState::Running | RolloutState::Stuck => &["rollback"],
        RolloutState::Live if rollout.hold.is_some() => &["resume"],
        RolloutState::Live if rollout.previous.is_some() && rollout.kind == ReleaseKind::Release => &["rollback"],
        RolloutState::RolledBack if rollout.hold.is_some() => &["resume"],
        _ => &[],
    };
    let story = link("The whole story", &rollout.log_url);
    if verbs.is_empty() {
        return format!("{story}.");
    }
    let lines: Vec<String> = verbs.iter().map(|verb| format!("switchover {verb} {env}")).collect();
    let how = if actions(rollout).is_empty() { "What can be done now" } else { "Press a button of this check, or say" };
    words::commands(&format!("{story}. {how} on the server:"), &lines)
}

/// The deployment of a rollout and where it is.
#[must_use]
pub fn deployment(rollout: &RolloutView) -> (Deployment, DeploymentStatus) {
    let verb = if rollout.kind == ReleaseKind::Rollback { "Back to" } else { "Release of" };
    let subject = first_line(&rollout.commit_message, 100);
    let deployment = Deployment {
        sha: rollout.sha.clone(),
        environment: rollout.environment.clone(),
        key: format!("rollout/{}", rollout.id),
        description: text::one_line(&format!("{verb} {}: {}", rollout.sha.short(), unlinked(&subject)), 140),
        production: rollout.production,
    };
    let state = match rollout.state {
        RolloutState::Queued => DeploymentState::Queued,
        RolloutState::WaitingForApproval => DeploymentState::Pending,
        RolloutState::Running | RolloutState::RollingBack => DeploymentState::InProgress,
        RolloutState::Live => DeploymentState::Success,
        RolloutState::RolledBack | RolloutState::Failed => DeploymentState::Failure,
        RolloutState::Infrastructure | RolloutState::Stuck => DeploymentState::Error,
        // It never went live, and nobody failed.
        RolloutState::Replaced | RolloutState::Cancelled | RolloutState::Superseded => DeploymentState::Inactive,
    };
    let status = DeploymentStatus {
        state,
        description: text::one_line(&unlinked(&title(rollout)), 140),
        log_url: rollout.log_url.clone(),
        environment_url: rollout.environment_url.clone(),
    };
    (deployment, status)
}

/// A description is no markdown: an `@` or `#` is parted from its word by the zero-width space itself.
fn unlinked(text: &str) -> String {
    text.replace('@', "@\u{200b}").replace('#', "#\u{200b}")
}

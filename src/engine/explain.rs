//! `switchover explain`: why something did or did not run, in words.

use std::fmt::Write as _;

use super::{Engine, EngineError};
use crate::{
    domain::ids::{DeliveryId, Sha},
    report::text::count,
    store::{Delivery, RepoState},
};

fn tell(text: &mut String, d: &Delivery) {
    let action = d.action.as_deref().map(|a| format!(".{a}")).unwrap_or_default();
    let _ = writeln!(text, "delivery {}: {}{action}, received {}", d.guid, d.event, d.received_at);
    let tries = count(d.attempts.unsigned_abs(), "try", "tries");
    let _ = writeln!(text, "  state: {} after {tries}", d.state.as_str());
    if let Some(note) = &d.note {
        let _ = writeln!(text, "  {note}");
    }
}

impl Engine {
    /// What is known about a delivery or a commit (at least seven digits).
    ///
    /// # Errors
    /// [`EngineError::Refused`] when nothing is known.
    pub async fn explain(&self, subject: &str) -> Result<String, EngineError> {
        let mut text = String::new();
        if let Ok(guid) = DeliveryId::new(subject)
            && let Some(d) = self.store.delivery(&guid).await?
        {
            tell(&mut text, &d);
        }
        // What could not be processed yet has led to no decision that would name its commit.
        if subject.len() >= 7 && subject.bytes().all(|b| b.is_ascii_hexdigit()) {
            for d in self.store.unprocessed_about(subject).await? {
                tell(&mut text, &d);
            }
        }
        let mut commits: Vec<(Option<crate::domain::ids::RepoId>, Sha)> = Vec::new();
        for reason in self.store.reasons(subject).await? {
            let _ = writeln!(text, "{}  {}", reason.at, reason.text);
            if let Some(sha) = reason.sha.and_then(|s| Sha::new(s).ok()) {
                commits.push((None, sha));
            }
        }
        commits.sort();
        commits.dedup();
        for (_, sha) in commits {
            for repo in self.store.repos().await? {
                for run in self.store.runs_on(repo.info.repo.id, &sha).await? {
                    let how = run.outcome.map_or(run.state.as_str(), |o| o.as_str());
                    let _ = writeln!(
                        text,
                        "run {} on {} ({} {}, attempt {}): {how}",
                        run.id,
                        sha.short(),
                        run.context.as_str(),
                        run.lane,
                        run.attempt
                    );
                    for step in self.store.steps(run.id).await? {
                        let how = step.outcome.map_or(step.state.as_str(), |o| o.as_str());
                        let reused = step.reused_run.map(|r| format!(", proven by run {r}")).unwrap_or_default();
                        let _ = writeln!(text, "  {} / {}: {how}{reused}", step.app, step.name);
                    }
                }
                for row in self.store.rollouts_on(repo.info.repo.id, &sha).await? {
                    let how = row.outcome.as_deref().unwrap_or(&row.state);
                    let words = row.message.as_deref().unwrap_or("");
                    let _ = writeln!(text, "rollout {} to {}: {how}. {words}", row.id, row.environment);
                }
                for shown in self.store.shown_on(repo.info.repo.id, &sha).await? {
                    let waits = match repo.state {
                        RepoState::Active => "on its way",
                        RepoState::Suspended => "the installation is suspended: it waits until that ends",
                        RepoState::Removed => "the App has no access to the repository any more",
                    };
                    let error = shown.error.as_deref();
                    if !shown.up_to_date {
                        let why = error.filter(|_| repo.state == RepoState::Active).unwrap_or(waits);
                        let _ = writeln!(text, "not on GitHub yet: {} ({why})", shown.key);
                    } else if let Some(error) = error {
                        let _ = writeln!(text, "not on GitHub, which refuses it: {} ({error})", shown.key);
                    }
                }
            }
        }
        if text.is_empty() {
            return Err(EngineError::Refused(format!(
                "nothing is known about {subject:?}: give a delivery id (App settings, Advanced, Recent deliveries) or a commit \
                 of at least seven digits. If GitHub shows the delivery and we do not, its address or secret is wrong."
            )));
        }
        Ok(text)
    }
}

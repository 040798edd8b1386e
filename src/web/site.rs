//! The server's own pages: what the engine's store knows, as the pages want it.

use std::{io::Write as _, sync::Arc};

use actix_web::web;
use bytes::Bytes;
use futures_util::stream;
use secrecy::ExposeSecret;
use tokio::sync::watch;

use super::pages::{
    self, ErrorPage, LogLine, LogWindow, OverviewPage, ReleaseLine, ReleasePage, RunPage, Source,
    log::TAIL,
    overview::{DeliveryRow, EnvironmentRow, RepositoryRow, RunRow},
    pieces::{State, Tone},
    release::{LiveCommit, Moment, ProbeFigures},
    routes::{Answer, RawLog, StepName},
    run::{Note, StepView},
};
use crate::{
    clock,
    domain::{
        ids::{RolloutId, RunId, StepId},
        rollout::{Desired, DesiredApp, Progress},
        run::{Context, Outcome, StepEnd, Trust},
        show::{PhaseMark, PhaseState, SlotColour, SlotMark},
    },
    engine::{Engine, EngineError, releases::RolloutDetail, rollouts::parse, runner::log_file},
    exec::log::LogReader,
    report::{redact::Redactor, text::count, told, view::RolloutState},
    store::{DeliveryState, RepoState, Run, Step},
};

/// Adds the pages.
pub fn configure(cfg: &mut web::ServiceConfig, engine: &Engine) {
    let source: Arc<dyn Source> = Arc::new(Site { engine: engine.clone() });
    pages::configure(cfg, source);
}

struct Site {
    engine: Engine,
}

fn broken(what: &'static str) -> impl Fn(EngineError) -> ErrorPage {
    move |e| {
        tracing::error!(error = %e, "{what} can't be shown");
        ErrorPage::broken(what, "The store or the live system could not be read.")
    }
}

fn state_of(state: &str, outcome: Option<Outcome>) -> State {
    match state {
        "queued" => State::QUEUED,
        "running" => State::RUNNING,
        _ => outcome.map_or(State::FAILED, State::from),
    }
}

fn rollout_state(state: RolloutState) -> State {
    let plain = |sign, word, tone| State { sign, word, tone };
    match state {
        RolloutState::Queued => State::QUEUED,
        RolloutState::Running | RolloutState::RollingBack => State::RUNNING,
        RolloutState::WaitingForApproval => State::WAITS,
        RolloutState::Live => State::LIVE,
        RolloutState::Replaced => plain("✓", "replaced", Tone::Waiting),
        RolloutState::RolledBack => State::ROLLED_BACK,
        RolloutState::Failed | RolloutState::Infrastructure => State::FAILED,
        RolloutState::Cancelled => plain("⊘", "cancelled", Tone::Cancelled),
        RolloutState::Superseded => plain("⊘", "superseded", Tone::Cancelled),
        RolloutState::Stuck => State::STUCK,
    }
}

fn lane(run: &Run) -> String {
    match (run.context, run.pull) {
        (Context::PullRequest, Some(n)) => format!("#{n}"),
        _ => run.lane.clone(),
    }
}

impl Site {
    fn repo_url(&self, full_name: &str) -> String {
        format!("{}/{full_name}", self.engine.settings.github_web_url.as_str().trim_end_matches('/'))
    }

    async fn find_step(&self, id: &str) -> Result<Step, ErrorPage> {
        let missing = || ErrorPage::not_found("log");
        let id: StepId = id.parse().map_err(|_| missing())?;
        let step = self.engine.store.step(id).await.map_err(|e| broken("The log")(e.into()))?;
        step.ok_or_else(missing)
    }

    /// Blanks every secret of the repository, whatever the step was granted.
    async fn redactor(&self, step: &Step) -> Result<Redactor, ErrorPage> {
        let failed = broken("The log");
        let run = self.engine.store.run(step.run).await.map_err(|e| failed(e.into()))?;
        let full_name = match run {
            Some(run) => self.engine.full_name(run.repo).await.map_err(&failed)?,
            None => String::new(),
        };
        let secrets = self.engine.settings.all_secrets(&full_name);
        Ok(Redactor::new(secrets.iter().map(ExposeSecret::expose_secret)))
    }

    /// Part of a step's log; tail: the last lines instead. A log that is not there (yet) is empty.
    async fn window(&self, step: &Step, from: usize, count: usize, tail: bool) -> Result<LogWindow, ErrorPage> {
        let done = step.state == "done";
        let file = step.log.as_deref().and_then(|l| log_file(&self.engine.settings.data, l));
        let Some(file) = file else { return Ok(LogWindow { total: 0, lines: Vec::new(), done }) };
        let redactor = self.redactor(step).await?;
        let read = tokio::task::spawn_blocking(move || -> std::io::Result<LogWindow> {
            let mut log = LogReader::open(&file)?;
            let total = log.total();
            let lines = if tail { log.tail(count)? } else { log.lines(from.saturating_sub(1), count)? };
            let lines = lines.into_iter().map(|l| LogLine { n: l.n + 1, ms: l.ms, text: redactor.text(&l.text) });
            Ok(LogWindow { total, lines: lines.collect(), done })
        });
        match read.await {
            Ok(Ok(window)) => Ok(window),
            Ok(Err(e)) if e.kind() == std::io::ErrorKind::NotFound => {
                Ok(LogWindow { total: 0, lines: Vec::new(), done })
            }
            Ok(Err(e)) => Err(ErrorPage::broken("The log", e)),
            Err(e) => Err(ErrorPage::broken("The log", e)),
        }
    }

    async fn run_page(&self, id: &str) -> Result<RunPage, ErrorPage> {
        let missing = || ErrorPage::not_found("run");
        let id: RunId = id.parse().map_err(|_| missing())?;
        let failed = broken("The run");
        let store = &self.engine.store;
        let run = store.run(id).await.map_err(|e| failed(e.into()))?.ok_or_else(missing)?;
        let view = self.engine.run_view(&run).await.map_err(&failed)?;
        let jobs = store.jobs(id).await.map_err(|e| failed(e.into()))?;
        let ends: Vec<Outcome> = view.jobs.iter().flat_map(|j| &j.steps).filter_map(|s| s.outcome).collect();
        let mut steps = Vec::new();
        for step in store.steps(id).await.map_err(|e| failed(e.into()))? {
            let spec = jobs.iter().find(|j| j.id == step.job).map(|j| &j.spec);
            let command = spec.and_then(|s| s.steps.iter().find(|s| s.name == step.name)).map(|s| s.run.clone());
            let log = match &step.log {
                Some(_) => Some(self.window(&step, 1, TAIL, true).await?),
                None => None,
            };
            let mut facts = Vec::new();
            if let Some(result) = &step.result {
                facts.push(match &result.end {
                    StepEnd::Exited(code) => format!("exit code {code}"),
                    StepEnd::Signalled(n) => format!("signal {n}"),
                    StepEnd::TimedOut => "killed at its time limit".into(),
                    StepEnd::Cancelled => "stopped".into(),
                    StepEnd::NotStarted(why) => format!("not started: {why}"),
                    StepEnd::OutOfMemory { .. } => "out of memory".into(),
                    StepEnd::OverDisk { .. } => "killed for the disk that it used".into(),
                    StepEnd::Untaken(why) => why.clone(),
                });
                facts.push(format!("CPU {}", crate::report::text::duration(result.cpu_ms)));
                facts.push(format!("peak {}", crate::report::text::bytes(result.peak_bytes)));
            }
            if let Some(reused) = step.reused_run {
                facts.push(format!("proven by run {reused}, not run again"));
            }
            facts.extend(step.note.clone());
            steps.push(StepView {
                id: step.id.to_string(),
                app: step.app.clone(),
                name: step.name.clone(),
                command: command.unwrap_or_default(),
                state: state_of(&step.state, step.outcome),
                started_at: step.started_at,
                finished_at: step.finished_at,
                facts,
                report: step.report.clone(),
                log,
            });
        }
        let mut notes: Vec<Note> = view.notes.iter().map(|text| Note { text: text.clone(), link: None }).collect();
        if let Some(newer) = &view.superseded_by {
            let link = Some((newer.sha.short().to_owned(), newer.url.clone()));
            notes.push(Note { text: "A newer commit took its place:".into(), link });
        }
        for m in &view.config_mistakes {
            let hint = m.hint.as_ref().map(|h| format!(" Did you mean {h}?")).unwrap_or_default();
            let message = m.message.trim_end_matches('.');
            notes.push(Note { text: format!("{}:{}: {message}.{hint}", m.file, m.line), link: None });
        }
        let changes = view.changes.iter().map(|text| format!("This changes once merged: {text}."));
        notes.extend(changes.map(|text| Note { text, link: None }));
        if !view.conflicts.is_empty() {
            let text = format!("Conflicts with its base in {}.", view.conflicts.join(", "));
            notes.push(Note { text, link: None });
        }
        notes.extend(view.parked.iter().map(|why| {
            let text = match view.trust {
                Trust::Parked => format!(
                    "It {why}. Nothing of it runs before somebody who may write approves it: on GitHub, by the button \
                     of the check `{}`.",
                    crate::report::AND_CHECK
                ),
                Trust::Own | Trust::Approved(_) => why.clone(),
            };
            Note { text, link: None }
        }));
        let title = match (run.context, run.pull) {
            (Context::PullRequest, Some(n)) => format!("pull request #{n}"),
            (Context::MergeGroup, _) => format!("merge group {}", run.lane),
            _ => format!("push to {}", run.lane),
        };
        Ok(RunPage {
            id: id.to_string(),
            repo_url: self.repo_url(&view.repo),
            repo: view.repo,
            title,
            sha: run.head.to_string(),
            git_ref: lane(&run),
            author: run.detail.author.clone(),
            message: run.detail.message.clone(),
            state: state_of(&run.state, run.outcome.map(|outcome| told(outcome, ends))),
            created_at: run.created_at,
            started_at: run.started_at,
            finished_at: run.finished_at,
            notes,
            steps,
            now: clock::now(),
        })
    }

    async fn release_page(&self, id: &str) -> Result<ReleasePage, ErrorPage> {
        let missing = || ErrorPage::not_found("release");
        let id: RolloutId = id.parse().map_err(|_| missing())?;
        let failed = broken("The release");
        let row = self.engine.store.rollout(id).await.map_err(|e| failed(e.into()))?.ok_or_else(missing)?;
        let view = self.engine.rollout_view(&row).await.map_err(&failed)?;
        let desired: Desired = parse(&row.desired).map_err(&failed)?;
        let progress: Progress = parse(&row.progress).map_err(&failed)?;
        let detail: RolloutDetail = parse(&row.detail).map_err(&failed)?;
        let over = row.state == "done";
        let phases: Vec<PhaseMark> = view
            .phases
            .iter()
            .enumerate()
            .map(|(n, p)| {
                let last = n + 1 == view.phases.len();
                let state = match p.name.as_str() {
                    "Failed" | "Rolling back" | "Rolled back" | "Stuck" => PhaseState::Failed,
                    "Cancelled" => PhaseState::Skipped,
                    _ if last && !over => PhaseState::Running,
                    _ => PhaseState::Done,
                };
                let end = p.finished.unwrap_or_else(clock::now);
                PhaseMark::of(
                    &p.name,
                    state,
                    Some(crate::report::text::between(p.started, end)),
                    detail.previous.is_none(),
                )
            })
            .collect();
        // What was live as it is, was not switched: no line of its own.
        let unchanged = |app: &DesiredApp| progress.app(&app.name).base.filter(|b| b.unchanged);
        let lines = desired
            .apps
            .iter()
            .filter(|app| unchanged(app).is_none())
            .map(|app| {
                let old = progress.app(&app.name).base.and_then(|b| b.active);
                let line = ReleaseLine {
                    old: old.map(|slot| SlotMark { colour: SlotColour::Blue, label: slot.to_string() }),
                    new: SlotMark { colour: SlotColour::Green, label: app.slot.to_string() },
                    phases: phases.clone(),
                };
                (app.name.to_string(), line)
            })
            .collect();
        let ms = |us: Option<u64>| us.map(|us| us.div_ceil(1000));
        let mut notes: Vec<Note> = vec![Note { text: view.message.clone(), link: None }];
        notes.extend(view.hold.iter().map(|h| Note { text: format!("Held by {}: {}", h.by, h.reason), link: None }));
        notes.extend(desired.apps.iter().filter_map(|app| {
            let slot = unchanged(app)?.active?;
            Some(Note { text: format!("{} is unchanged: {slot} goes on serving.", app.name), link: None })
        }));
        notes.retain(|n| !n.text.is_empty());
        let begun = view.phases.iter().map(|p| Moment { at: p.started, text: p.name.clone() });
        let told = progress.messages.iter().map(|m| Moment { at: m.at, text: m.words.clone() });
        let mut timeline: Vec<Moment> = begun.chain(told).collect();
        timeline.sort_by_key(|m| m.at);
        let mut commands = Vec::new();
        match view.state {
            RolloutState::WaitingForApproval => commands.push(format!("switchover promote {}", view.environment)),
            RolloutState::Live => commands.push(format!("switchover rollback {}", view.environment)),
            _ => {}
        }
        if view.hold.is_some() {
            commands.push(format!("switchover resume {}", view.environment));
        }
        Ok(ReleasePage {
            id: id.to_string(),
            repo_url: self.repo_url(&view.repo),
            repo: view.repo,
            environment: view.environment,
            environment_url: view.environment_url,
            sha: view.sha.to_string(),
            message: view.commit_message,
            cause: format!("{} by {}", row.kind, view.started_by),
            state: rollout_state(view.state),
            created_at: view.created_at,
            finished_at: view.finished_at,
            lines,
            switch_ms: view.probe.as_ref().and_then(|p| p.last_old_ms),
            probes: view
                .probe
                .iter()
                .map(|p| ProbeFigures {
                    what: "through the public listeners".into(),
                    sent: p.sent,
                    failed: p.failed,
                    p99_before_ms: ms(p.p99_before_us),
                    p99_after_ms: ms(p.p99_after_us),
                })
                .collect(),
            notes,
            commands,
            digests: view.apps.iter().filter_map(|a| Some((a.app.clone(), a.digest.as_ref()?.to_string()))).collect(),
            commits: view
                .goes_live
                .iter()
                .flat_map(|g| &g.commits)
                .map(|c| LiveCommit {
                    sha: c.sha.to_string(),
                    subject: c.message.clone(),
                    author: c.author.clone(),
                    pull: None,
                })
                .collect(),
            timeline,
            now: clock::now(),
        })
    }

    async fn overview_page(&self) -> Result<OverviewPage, ErrorPage> {
        let failed = broken("The overview");
        let store = &self.engine.store;
        let mut page = OverviewPage::default();
        for environment in store.environments().await.map_err(|e| failed(e.into()))? {
            let rows = store.rollouts_of(environment.repo, &environment.name, 1).await.map_err(|e| failed(e.into()))?;
            let state = match rows.first() {
                Some(row) => rollout_state(self.engine.rollout_view(row).await.map_err(&failed)?.state),
                None => State::QUEUED,
            };
            let live = match environment.live_rollout {
                Some(id) => store.rollout(id).await.map_err(|e| failed(e.into()))?,
                None => None,
            };
            let detail: Option<RolloutDetail> = live.as_ref().and_then(|l| parse(&l.detail).ok());
            page.environments.push(EnvironmentRow {
                repo: self.engine.full_name(environment.repo).await.map_err(&failed)?,
                environment: environment.name,
                state,
                live: live.as_ref().map(|l| (l.sha.to_string(), format!("/releases/{}", l.id))),
                subject: detail.map(|d| d.message).unwrap_or_default(),
                since: live.and_then(|l| l.finished_at),
                held: environment.held.then(|| environment.hold_reason.unwrap_or_else(|| "held".into())),
            });
        }
        for run in store.recent_runs(50).await.map_err(|e| failed(e.into()))? {
            let outcome = match run.outcome {
                // Stopped, but perhaps after one of its steps failed.
                Some(outcome @ (Outcome::Cancelled | Outcome::Superseded)) => {
                    let steps = store.steps(run.id).await.map_err(|e| failed(e.into()))?;
                    Some(told(outcome, steps.into_iter().filter_map(|s| s.outcome)))
                }
                outcome => outcome,
            };
            page.runs.push(RunRow {
                href: format!("/runs/{}", run.id),
                repo: self.engine.full_name(run.repo).await.map_err(&failed)?,
                git_ref: lane(&run),
                sha: run.head.to_string(),
                subject: crate::engine::releases::first_line(&run.detail.message),
                state: state_of(&run.state, outcome),
                created_at: run.created_at,
                millis: run.finished_at.map(|end| crate::report::text::between(run.created_at, end)),
            });
        }
        let refused = store.refused_by_repo().await.map_err(|e| failed(e.into()))?;
        for repo in store.repos().await.map_err(|e| failed(e.into()))? {
            let unshown = refused.iter().find(|(id, _, _)| *id == repo.info.repo.id).map(|(_, n, why)| {
                let things = count(n.unsigned_abs(), "thing is", "things are");
                format!("{things} not on GitHub yet: {why}")
            });
            let full_name = repo.info.repo.full_name();
            page.repositories.push(RepositoryRow {
                href: self.repo_url(&full_name),
                repo: full_name,
                unshown,
                stopped: match repo.state {
                    RepoState::Active if repo.info.archived => Some("archived".into()),
                    RepoState::Active => None,
                    RepoState::Suspended => Some("the installation is suspended".into()),
                    RepoState::Removed => Some("the App has no access any more".into()),
                },
            });
        }
        for state in [DeliveryState::Quarantined, DeliveryState::Dead] {
            for d in store.deliveries(Some(state), 50).await.map_err(|e| failed(e.into()))? {
                page.deliveries.push(DeliveryRow {
                    command: format!("switchover replay {}", d.guid),
                    id: d.guid.to_string(),
                    event: d.event,
                    received_at: d.received_at,
                    why: d.note.unwrap_or_default(),
                });
            }
        }
        Ok(page)
    }
}

impl Source for Site {
    fn overview(&self) -> Answer<'_, OverviewPage> {
        Box::pin(self.overview_page())
    }

    fn run<'a>(&'a self, id: &'a str) -> Answer<'a, RunPage> {
        Box::pin(self.run_page(id))
    }

    fn release<'a>(&'a self, id: &'a str) -> Answer<'a, ReleasePage> {
        Box::pin(self.release_page(id))
    }

    fn step<'a>(&'a self, step: &'a str) -> Answer<'a, StepName> {
        Box::pin(async move {
            let step = self.find_step(step).await?;
            Ok(StepName { app: step.app, name: step.name, run_href: format!("/runs/{}", step.run) })
        })
    }

    fn lines<'a>(&'a self, step: &'a str, from: usize, count: usize) -> Answer<'a, LogWindow> {
        Box::pin(async move {
            let step = self.find_step(step).await?;
            self.window(&step, from, count, false).await
        })
    }

    fn raw<'a>(&'a self, step: &'a str) -> Answer<'a, RawLog> {
        Box::pin(async move {
            const PIECE: usize = 5_000;
            let step = self.find_step(step).await?;
            let data = self.engine.settings.data.clone();
            let Some(file) = step.log.as_deref().and_then(|l| log_file(&data, l)) else {
                return Err(ErrorPage::not_found("log"));
            };
            let log = LogReader::open(&file).map_err(|e| ErrorPage::broken("The log", e))?;
            let redactor = self.redactor(&step).await?;
            let pieces = stream::unfold((log, 0), move |(mut log, from)| {
                let redactor = redactor.clone();
                async move {
                    let read = tokio::task::spawn_blocking(move || {
                        let lines = log.lines(from, PIECE)?;
                        let mut text = Vec::new();
                        for line in &lines {
                            writeln!(text, "{}", redactor.text(&line.text))?;
                        }
                        Ok::<_, std::io::Error>((log, lines.len(), text))
                    });
                    match read.await {
                        Ok(Ok((_, 0, _))) | Err(_) => None,
                        Ok(Ok((log, n, text))) => Some((Ok(Bytes::from(text)), (log, from + n))),
                        // The reader is gone with its error: the stream ends short, which the browser notices.
                        Ok(Err(e)) => {
                            tracing::warn!(error = %e, "a log broke off while it was read");
                            None
                        }
                    }
                }
            });
            Ok(Box::pin(pieces) as RawLog)
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.engine.wake.seen.subscribe()
    }
}

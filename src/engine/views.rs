//! Stored rows as the plain views that the reporter and the pages are made from.

use std::collections::BTreeMap;

use super::{Engine, EngineError, facts::CONFIG_FILE, planner, releases::RolloutDetail, rollouts::parse};
use crate::{
    domain::{
        event::Pull,
        ids::{RepoId, RolloutId, RunId, Sha},
        rollout::{Desired, Ended, Kept, Phase, Progress},
        run::{Context, Trust},
        show,
    },
    report::view::{
        AppDigest, CommitView, GoesLive, HoldView, JobView, MistakeView, PhaseView, Pointer, PreviousView, ProbeView,
        ReleaseKind, RolloutState, RolloutView, RunView, StepState, StepView, TrafficView,
    },
    settings::ExecutorKind,
    store::{RolloutRow, Run},
};

/// What the inference says of an image for steps; steps that run on the host itself never see it.
const IN_A_CONTAINER: &str = ": in a container, its steps run in ";

impl Engine {
    /// Our page of a run.
    #[must_use]
    pub fn run_url(&self, id: RunId) -> String {
        self.page(&format!("runs/{id}"))
    }

    /// Our page of a rollout.
    #[must_use]
    pub fn rollout_url(&self, id: RolloutId) -> String {
        self.page(&format!("releases/{id}"))
    }

    fn page(&self, path: &str) -> String {
        format!("{}/{path}", self.settings.public_url.as_str().trim_end_matches('/'))
    }

    fn web_url(&self) -> String {
        self.settings.github_web_url.as_str().trim_end_matches('/').to_owned()
    }

    /// A run as it is shown.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn run_view(&self, run: &Run) -> Result<RunView, EngineError> {
        let repo = self.store.repo(run.repo).await?.map(|r| r.info);
        let full_name = repo.as_ref().map(|r| r.repo.full_name()).unwrap_or_default();
        let steps = self.store.steps(run.id).await?;
        let jobs = self.store.jobs(run.id).await?;
        let base = self.store.last_run_of(run.repo, &run.lane, run.id).await?;
        let mut base_reports = BTreeMap::new();
        if let Some(base) = &base {
            for step in self.store.steps(base.id).await? {
                base_reports.insert((step.app.clone(), step.name.clone()), step.report);
            }
        }
        let mut job_views = Vec::new();
        for job in &jobs {
            let mut views = Vec::new();
            for step in steps.iter().filter(|s| s.job == job.id) {
                let reused = match step.reused_run {
                    Some(id) => self.store.run(id).await?.map(|r| Pointer { sha: r.head, url: self.run_url(id) }),
                    None => None,
                };
                views.push(StepView {
                    id: step.id,
                    name: step.name.clone(),
                    state: match step.state.as_str() {
                        "queued" => StepState::Queued,
                        "running" => StepState::Running,
                        _ => StepState::Done,
                    },
                    outcome: step.outcome,
                    started: step.started_at,
                    finished: step.finished_at,
                    result: step.result.clone(),
                    report: step.report.clone(),
                    base_report: base_reports.get(&(step.app.clone(), step.name.clone())).cloned().flatten(),
                    reused,
                    last_lines: step.last_lines.clone(),
                    note: step.note.clone(),
                    log_url: format!("{}#{}", self.run_url(run.id), show::log_anchor(&step.app, &step.name)),
                    attempt: 1,
                });
            }
            job_views.push(JobView { app: job.app.clone(), steps: views });
        }
        let superseded_by = match run.superseded_by {
            Some(id) => self.store.run(id).await?.map(|r| Pointer { sha: r.head, url: self.run_url(id) }),
            None => None,
        };
        let pull = match run.pull {
            Some(number) => self.store.stored_pull(run.repo, number).await?,
            None => None,
        };
        let stranger =
            matches!((&repo, &pull), (Some(repo), Some(pull)) if planner::trust(repo, pull) == Trust::Parked);
        let refused = run.detail.parked.is_some() && run.detail.parked == self.refusal(&full_name);
        let never = pull.as_ref().filter(|_| stranger).and_then(|pull| self.never_runs(run.repo, pull));
        let trust = match &run.detail.parked {
            Some(_) if stranger && !refused && never.is_none() => Trust::Parked,
            // A stranger's code gets jobs only by somebody's word for this commit.
            _ if stranger && !job_views.is_empty() => Trust::Approved(run.head.clone()),
            _ => Trust::Own,
        };
        let parked = match &pull {
            Some(pull) if trust == Trust::Parked => Some(self.what_waits(run.repo, pull)),
            _ if run.detail.parked.is_some() && never.is_some() => never,
            _ => run.detail.parked.clone(),
        };
        let local = self.settings.executor == ExecutorKind::Local;
        let mut notes: Vec<String> =
            run.detail.notes.iter().filter(|note| !(local && note.contains(IN_A_CONTAINER))).cloned().collect();
        notes.extend(run.detail.error.clone());
        notes.extend(run.detail.nothing.clone());
        Ok(RunView {
            id: run.id,
            repo: full_name,
            web_url: self.web_url(),
            url: self.run_url(run.id),
            context: run.context,
            pull: run.pull,
            branch: run.detail.branch.clone(),
            base_ref: pull.as_ref().map(|p| p.base_ref.clone()),
            head_sha: run.head.clone(),
            test_sha: run.detail.conflicts.is_empty().then(|| run.test.clone()),
            base_sha: run.base.clone().filter(|b| !b.is_zero() && run.context != Context::Push),
            message: run.detail.message.clone(),
            author: run.detail.author.clone(),
            trust,
            attempt: u32::try_from(run.attempt).unwrap_or(1),
            created_at: run.created_at,
            finished_at: run.finished_at,
            outcome: run.outcome,
            superseded_by,
            jobs: job_views,
            config_mistakes: run
                .detail
                .mistakes
                .iter()
                .map(|m| MistakeView {
                    file: m.file.clone().unwrap_or_else(|| CONFIG_FILE.to_owned()),
                    line: m.line,
                    column: m.column,
                    length: 1,
                    message: m.message.clone(),
                    expected: Some(m.expected.clone()).filter(|e| !e.is_empty()),
                    hint: m.hint.clone(),
                    source: m.source.clone(),
                })
                .collect(),
            changes: run.detail.changes.clone(),
            notes,
            conflicts: run.detail.conflicts.clone(),
            parked,
        })
    }

    /// Why nobody can approve a pull request: what runs on this very host is never a fork's. None: somebody may.
    pub(super) fn never_runs(&self, repo: RepoId, pull: &Pull) -> Option<String> {
        let local = self.settings.executor == ExecutorKind::Local;
        (local && pull.head_repo != Some(repo)).then(|| {
            "It comes from a fork, and this server runs steps on its own host (`executor = \"local\"`), where nobody can let \
             a stranger's code run. The operator may set `executor = \"docker\"`; or somebody who may write here pushes the \
             commits to a branch of this repository."
                .to_owned()
        })
    }

    /// What a stranger's pull request is, as what follows "this".
    fn what_waits(&self, repo: RepoId, pull: &Pull) -> String {
        let author = &pull.author.login;
        let what = match pull.head_repo {
            Some(head) if head == repo => format!("was opened by the bot {author}"),
            Some(_) => format!("comes from a fork and was opened by {author}"),
            None => format!("comes from a fork that was deleted since, and was opened by {author}"),
        };
        let place = match self.settings.executor {
            ExecutorKind::Local => "; once approved it runs on the server's own host, without a sandbox",
            ExecutorKind::Docker | ExecutorKind::Kubernetes => "",
        };
        what + place
    }

    /// The newest run of each context on a commit, as shown.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn runs_view(&self, repo: RepoId, sha: &Sha) -> Result<Vec<RunView>, EngineError> {
        let mut newest: BTreeMap<(Context, String), Run> = BTreeMap::new();
        for run in self.store.runs_on(repo, sha).await? {
            newest.insert((run.context, run.lane.clone()), run);
        }
        let mut views = Vec::new();
        for run in newest.values() {
            views.push(self.run_view(run).await?);
        }
        Ok(views)
    }

    /// A rollout as it is shown.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn rollout_view(&self, row: &RolloutRow) -> Result<RolloutView, EngineError> {
        let desired: Desired = parse(&row.desired)?;
        let progress: Progress = parse(&row.progress)?;
        let detail: RolloutDetail = parse(&row.detail)?;
        let full_name = self.full_name(row.repo).await?;
        let environment = self.store.environment(row.repo, &row.environment).await?;
        let live_now = environment.as_ref().and_then(|e| e.live_rollout) == Some(row.id);
        let slot = desired.apps.first().map(|a| a.slot.to_string()).unwrap_or_default();
        let web_url = self.web_url();
        let previous_slot =
            desired.apps.iter().find_map(|a| progress.app(&a.name).base.and_then(|b| b.active)).map(|s| s.to_string());
        let compare = detail
            .previous
            .as_ref()
            .map(|p| format!("{web_url}/{full_name}/compare/{}...{}", p.short(), row.sha.short()));
        let traffic =
            desired.apps.iter().map(|a| progress.app(&a.name).traffic).fold(TrafficView::default(), |t, a| {
                TrafficView {
                    requests: t.requests + a.total,
                    server_errors: t.server_errors + a.server_errors,
                    cut: t.cut + a.cut,
                }
            });
        let micros = |d: Option<std::time::Duration>| d.and_then(|d| u64::try_from(d.as_micros()).ok());
        let keep: Vec<Kept> = match &environment {
            Some(e) => parse(&e.keep)?,
            None => Vec::new(),
        };
        let last_lines = desired
            .apps
            .iter()
            .filter_map(|a| {
                let p = progress.app(&a.name);
                p.smoke.filter(|c| !c.ok).or(p.pre_deploy.filter(|c| !c.ok))
            })
            .flat_map(|c| c.tail)
            .collect();
        let message = row
            .message
            .clone()
            .or_else(|| progress.reason.clone())
            .or_else(|| progress.messages.last().map(|m| m.words.clone()))
            .unwrap_or_default();
        Ok(RolloutView {
            id: row.id,
            repo: full_name,
            environment: row.environment.clone(),
            production: detail.production,
            environment_url: detail.url.clone(),
            log_url: self.rollout_url(row.id),
            kind: if row.kind == "rollback" { ReleaseKind::Rollback } else { ReleaseKind::Release },
            sha: row.sha.clone(),
            commit_message: detail.message.clone(),
            author: detail.author.clone(),
            started_by: row.actor.clone(),
            slot,
            previous: detail.previous.as_ref().map(|sha| PreviousView {
                slot: previous_slot.unwrap_or_else(|| sha.short().to_owned()),
                sha: sha.clone(),
            }),
            apps: desired
                .apps
                .iter()
                .map(|a| AppDigest {
                    app: a.name.to_string(),
                    digest: Some(a.digest.clone()),
                    unchanged: progress.app(&a.name).base.is_some_and(|b| b.unchanged),
                })
                .collect(),
            phases: progress
                .timeline
                .iter()
                .map(|p| PhaseView {
                    name: phase_word(p.phase).to_owned(),
                    started: p.started,
                    finished: p.ended.or(row.finished_at),
                    note: None,
                })
                .collect(),
            state: state(row, &progress, live_now),
            message,
            created_at: row.created_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            switched_at: progress.switched_at(),
            probe: (progress.prober.sent > 0).then(|| ProbeView {
                sent: progress.prober.sent,
                failed: progress.prober.failed,
                p99_before_us: micros(progress.prober.before.quantile(0.99)),
                p99_after_us: micros(progress.prober.after.quantile(0.99)),
                last_old_ms: progress.prober.last_old_ms,
                failures: progress.prober.failures.iter().map(|f| format!("{}: {}", f.app, f.words)).collect(),
            }),
            traffic: progress.switched_at().map(|_| traffic),
            goes_live: (!detail.commits.is_empty()).then(|| GoesLive {
                commits: detail
                    .commits
                    .iter()
                    .map(|c| CommitView { sha: c.sha.clone(), message: c.message.clone(), author: c.author.clone() })
                    .collect(),
                total: detail.commits.len() as u64,
                pulls: Vec::new(),
                compare_url: compare,
            }),
            hold: environment.as_ref().filter(|e| e.held).map(|e| HoldView {
                since: e.hold_at.unwrap_or(row.created_at),
                by: e.hold_by.clone().unwrap_or_default(),
                reason: e.hold_reason.clone().unwrap_or_default(),
            }),
            keep_previous_until: keep.iter().map(|k| k.until).max().filter(|_| live_now),
            last_lines,
            notes: progress.messages.iter().map(|m| m.words.clone()).chain(progress.alarm.clone()).collect(),
            web_url,
        })
    }
}

fn state(row: &RolloutRow, progress: &Progress, live_now: bool) -> RolloutState {
    match row.state.as_str() {
        "gated" | "queued" => return RolloutState::Queued,
        "active" => {
            return match progress.phase {
                Phase::Approve | Phase::Wait => RolloutState::WaitingForApproval,
                Phase::RollingBack => RolloutState::RollingBack,
                _ => RolloutState::Running,
            };
        }
        _ => {}
    }
    match row.outcome.as_deref().and_then(Ended::parse) {
        Some(Ended::Live | Ended::Unchanged | Ended::Unhealthy) if live_now => RolloutState::Live,
        Some(Ended::Live | Ended::Unchanged | Ended::Unhealthy) => RolloutState::Replaced,
        Some(Ended::RolledBack) => RolloutState::RolledBack,
        Some(Ended::Failed) => RolloutState::Failed,
        Some(Ended::Superseded) => RolloutState::Superseded,
        Some(Ended::Stuck) => RolloutState::Stuck,
        Some(Ended::Cancelled) | None => RolloutState::Cancelled,
    }
}

fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Approve => "Approve",
        Phase::Prepare => "Prepare",
        Phase::Warm => "Warm",
        Phase::Verify => "Verify",
        Phase::Wait => "Wait",
        Phase::Switch => "Switch",
        Phase::Converge => "Converge",
        Phase::Watch => "Watch",
        Phase::Done => "Done",
        Phase::RollingBack => "Rolling back",
        Phase::RolledBack => "Rolled back",
        Phase::Failed => "Failed",
        Phase::Cancelled => "Cancelled",
        Phase::Stuck => "Stuck",
    }
}

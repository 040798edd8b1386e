//! The demo's counter: every request of the load generator is counted here, and a page shows it as it happens.

mod page;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::show::{ReleaseLine, SlotColour};

pub use page::{Actions, BUTTONS, Button, configure};

/// Width of one column of the strip.
pub const COLUMN: Duration = Duration::from_millis(250);
/// Columns that the strip shows: a minute.
pub const COLUMNS: usize = 240;
/// Events that are kept.
const EVENTS: usize = 60;
/// Latest latencies that the percentiles are made from.
const LATENCIES: usize = 2_000;
/// An answer of the slot before, begun within so long after the first one of the new slot, is the tail of this switch
/// and no way back.
const OVERLAP: Duration = Duration::from_secs(1);

/// What kind of request it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// GET on a new connection.
    Fresh,
    /// GET on a kept-alive connection.
    Kept,
    /// POST on a kept-alive connection.
    Post,
    /// GET that takes two seconds.
    Slow,
}

/// How one request went.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Which app was asked.
    pub app: &'a str,
    /// What kind of request.
    pub kind: Kind,
    /// When it was sent, since the counter began ([`Counter::now`]).
    pub started: Duration,
    /// When it was answered, or was known to be lost.
    pub ended: Duration,
    /// The release that answered, where it says so; or why there was no good answer.
    pub result: Result<Option<&'a str>, &'a str>,
}

/// Counts. Shared between the load generator and the page.
#[derive(Debug)]
pub struct Counter {
    began: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    total: u64,
    failed: u64,
    kinds: BTreeMap<Kind, u64>,
    apps: BTreeMap<String, AppState>,
    strip: VecDeque<Column>,
    /// Number of the strip's last column since the beginning.
    column: u64,
    latencies: VecDeque<u32>,
    switches: VecDeque<Switched>,
    events: VecDeque<EventLine>,
    release: Vec<(String, ReleaseLine)>,
    release_version: u64,
}

/// Answers within one column of the strip.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Column {
    /// By a blue slot.
    pub blue: u32,
    /// By a green slot.
    pub green: u32,
    /// By somebody who does not say.
    pub unknown: u32,
    /// Lost.
    pub failed: u32,
}

#[derive(Debug)]
struct AppState {
    release: String,
    previous: Option<String>,
    colours: HashMap<String, SlotColour>,
    since: Duration,
    /// When the last request began that the current release answered.
    newest: Duration,
    /// When the last request began that the release before answered.
    last_old: Duration,
    answers: u64,
}

/// A switch as requests saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Switched {
    /// Which app.
    pub app: String,
    /// Who answers since.
    pub release: String,
    /// Its colour.
    pub colour: SlotColour,
    /// When the first request began that it answered, in milliseconds since the counter began.
    pub at_ms: u64,
    /// Between the last request that the old slot got and the first one that the new slot got, whichever came first.
    pub ms: u64,
}

/// Something worth telling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventLine {
    /// When it happened first.
    pub at: Timestamp,
    /// What.
    pub text: String,
    /// `info`, `switch` or `failure`.
    pub tone: &'static str,
    /// How often in a row.
    pub times: u64,
}

/// An app and who answers for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AppLine {
    /// Which app.
    pub app: String,
    /// The release that answers.
    pub release: String,
    /// Its colour.
    pub colour: SlotColour,
    /// Answers so far.
    pub answers: u64,
    /// For how long it has answered, in milliseconds.
    pub for_ms: u64,
}

/// Everything that the page shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CounterSnapshot {
    /// Milliseconds since the counter began.
    pub now_ms: u64,
    /// Requests that are over.
    pub total: u64,
    /// Those without a good answer.
    pub failed: u64,
    /// Answers in the last whole second.
    pub per_second: u32,
    /// By kind.
    pub kinds: BTreeMap<Kind, u64>,
    /// Half of the latest requests were faster, slow ones left out, in milliseconds.
    pub p50_ms: Option<u32>,
    /// 99 of a hundred were faster.
    pub p99_ms: Option<u32>,
    /// The last switch, by the slowest of the apps that switched together.
    pub switch_ms: Option<u64>,
    /// Who answers.
    pub apps: Vec<AppLine>,
    /// Width of a column, in milliseconds.
    pub column_ms: u64,
    /// Number of the last column since the beginning.
    pub column: u64,
    /// The last minute, oldest first; the last column is still growing.
    pub strip: Vec<Column>,
    /// Switches of the last minute.
    pub switches: Vec<Switched>,
    /// The latest events, newest first.
    pub events: Vec<EventLine>,
    /// Grows when the drawn release changes.
    pub release: u64,
}

impl Default for Counter {
    fn default() -> Self {
        Self::new()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Counter {
    /// Nothing counted yet; the strip begins now.
    #[must_use]
    pub fn new() -> Self {
        Self { began: Instant::now(), inner: Mutex::default() }
    }

    /// Time since the counter began.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while counting leaves at most one request uncounted.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one request that is over. `at` is the time for the list of events.
    pub fn record(&self, answer: &Answer<'_>, at: Timestamp) {
        self.lock().record(answer, at);
    }

    /// Tells something.
    pub fn event(&self, text: impl Into<String>) {
        self.lock().tell(text.into(), "info", crate::clock::now());
    }

    /// Shows a release as it is now: one line for each app. The page draws it when it differs from what it draws.
    pub fn release(&self, lines: Vec<(String, ReleaseLine)>) {
        let mut inner = self.lock();
        if inner.release != lines {
            inner.release = lines;
            inner.release_version += 1;
        }
    }

    fn release_lines(&self) -> Vec<(String, ReleaseLine)> {
        self.lock().release.clone()
    }

    /// Requests so far: all of them, and those without a good answer.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.total, inner.failed)
    }

    /// Everything as it is now.
    #[must_use]
    pub fn snapshot(&self) -> CounterSnapshot {
        self.snapshot_at(self.now())
    }

    /// Everything as it is at this time since the beginning.
    #[must_use]
    pub fn snapshot_at(&self, now: Duration) -> CounterSnapshot {
        let mut inner = self.lock();
        inner.roll(now);
        let mut latencies: Vec<u32> = inner.latencies.iter().copied().collect();
        latencies.sort_unstable();
        let quantile = |percent: usize| {
            latencies.get((latencies.len() * percent / 100).min(latencies.len().saturating_sub(1))).copied()
        };
        let window = millis(COLUMN) * COLUMNS as u64;
        let last = inner.switches.back().map(|s| s.at_ms);
        let together = |s: &&Switched| last.is_some_and(|last| last.abs_diff(s.at_ms) <= 2_000);
        CounterSnapshot {
            now_ms: millis(now),
            total: inner.total,
            failed: inner.failed,
            per_second: inner.strip.iter().rev().skip(1).take(4).map(|c| c.blue + c.green + c.unknown).sum(),
            kinds: inner.kinds.clone(),
            p50_ms: quantile(50),
            p99_ms: quantile(99),
            switch_ms: inner.switches.iter().rev().take_while(together).map(|s| s.ms).max(),
            apps: inner
                .apps
                .iter()
                .map(|(app, state)| AppLine {
                    app: app.clone(),
                    release: state.release.clone(),
                    colour: state.colour(),
                    answers: state.answers,
                    for_ms: millis(now.saturating_sub(state.since)),
                })
                .collect(),
            column_ms: millis(COLUMN),
            column: inner.column,
            strip: inner.strip.iter().copied().collect(),
            switches: inner.switches.iter().filter(|s| s.at_ms + window >= millis(now)).cloned().collect(),
            events: inner.events.iter().rev().cloned().collect(),
            release: inner.release_version,
        }
    }
}

impl AppState {
    fn colour(&self) -> SlotColour {
        self.colours.get(&self.release).copied().unwrap_or(SlotColour::Blue)
    }
}

impl Inner {
    /// Adds empty columns up to now.
    fn roll(&mut self, now: Duration) {
        let column = millis(now) / millis(COLUMN);
        if self.strip.is_empty() {
            self.strip.push_back(Column::default());
            self.column = column;
        }
        let missing = column.saturating_sub(self.column);
        for _ in 0..missing.min(COLUMNS as u64) {
            self.strip.push_back(Column::default());
        }
        self.column = self.column.max(column);
        while self.strip.len() > COLUMNS {
            self.strip.pop_front();
        }
    }

    fn column(&mut self, at: Duration) -> &mut Column {
        self.roll(at);
        let back = self.column.saturating_sub(millis(at) / millis(COLUMN));
        let last = self.strip.len() - 1;
        let index = last.saturating_sub(usize::try_from(back).unwrap_or(usize::MAX));
        &mut self.strip[index]
    }

    fn record(&mut self, answer: &Answer<'_>, at: Timestamp) {
        self.total += 1;
        *self.kinds.entry(answer.kind).or_default() += 1;
        let release = match answer.result {
            Ok(release) => release,
            Err(why) => {
                self.failed += 1;
                self.column(answer.ended).failed += 1;
                let kind = match answer.kind {
                    Kind::Fresh => "GET, new connection",
                    Kind::Kept => "GET, kept-alive",
                    Kind::Post => "POST",
                    Kind::Slow => "two-second GET",
                };
                self.tell(format!("{}: {why} ({kind})", answer.app), "failure", at);
                return;
            }
        };
        if answer.kind != Kind::Slow {
            let ms = u32::try_from(answer.ended.saturating_sub(answer.started).as_millis()).unwrap_or(u32::MAX);
            self.latencies.push_back(ms);
            if self.latencies.len() > LATENCIES {
                self.latencies.pop_front();
            }
        }
        let Some(release) = release else {
            self.column(answer.ended).unknown += 1;
            return;
        };
        let colour = self.answered(answer.app, release, answer.started, at);
        let column = self.column(answer.ended);
        match colour {
            SlotColour::Blue => column.blue += 1,
            SlotColour::Green => column.green += 1,
        }
    }

    /// Who answers for this app, and since when: told by when requests began, because a slow one that the old slot
    /// still answers after the switch says nothing about new ones.
    fn answered(&mut self, app: &str, release: &str, started: Duration, at: Timestamp) -> SlotColour {
        let Some(state) = self.apps.get_mut(app) else {
            let state = AppState {
                release: release.to_owned(),
                previous: None,
                colours: HashMap::from([(release.to_owned(), SlotColour::Blue)]),
                since: started,
                newest: started,
                last_old: Duration::ZERO,
                answers: 1,
            };
            self.apps.insert(app.to_owned(), state);
            self.tell(format!("{app}: {release} answers"), "info", at);
            return SlotColour::Blue;
        };
        state.answers += 1;
        let ours = state.release == release;
        let near = started + OVERLAP > state.since && started < state.since + OVERLAP;
        let tail = !ours && state.previous.as_deref() == Some(release) && started < state.since + OVERLAP;
        if ours || tail || started < state.since {
            let colour = state.colours.get(release).copied().unwrap_or_else(|| state.colour().other());
            if ours {
                state.newest = state.newest.max(started);
            }
            // Answers come in another order than their requests went: the figure narrows down to the two that count.
            if near && state.previous.is_some() {
                if ours && started < state.since {
                    state.since = started;
                } else if tail && started > state.last_old {
                    state.last_old = started;
                }
                let (since, ms) = (millis(state.since), millis(state.since.abs_diff(state.last_old)));
                if let Some(switch) = self.switches.iter_mut().rev().find(|s| s.app == app) {
                    (switch.at_ms, switch.ms) = (since, ms);
                }
            }
            return colour;
        }
        let colour = state.colour().other();
        state.colours.insert(release.to_owned(), colour);
        let ms = millis(started.abs_diff(state.newest));
        state.previous = Some(std::mem::replace(&mut state.release, release.to_owned()));
        (state.last_old, state.since, state.newest) = (state.newest, started, started);
        self.switches.push_back(Switched {
            app: app.to_owned(),
            release: release.to_owned(),
            colour,
            at_ms: millis(started),
            ms,
        });
        if self.switches.len() > 50 {
            self.switches.pop_front();
        }
        self.tell(format!("{app}: {release} answers now, {}", colour.as_str()), "switch", at);
        colour
    }

    fn tell(&mut self, text: String, tone: &'static str, at: Timestamp) {
        // Losses of several apps come mixed; anything else is told again when it happens again.
        let same = if tone == "failure" { 4 } else { 1 };
        if let Some(same) = self.events.iter_mut().rev().take(same).find(|e| e.text == text && e.tone == tone) {
            same.times += 1;
            return;
        }
        self.events.push_back(EventLine { at, text, tone, times: 1 });
        if self.events.len() > EVENTS {
            self.events.pop_front();
        }
    }
}

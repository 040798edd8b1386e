//! GitHub's limits ("Rate limits for the REST API", "Best practices for using the REST API").
//!
//! Two halves: what GitHub told us (`Retry-After`, `x-ratelimit-reset`, secondary limits), and windows of our own that
//! keep us below what it would enforce. Both are kept per installation, on the monotonic clock: a wall clock that jumps
//! must not hold work for a day.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::HeaderMap;
use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};

use crate::domain::ids::InstallationId;

/// At most so many calls at once; GitHub allows 100 over all clients of an App.
pub const CONCURRENT: usize = 20;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// A wait that GitHub asks for is believed up to this.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What a call costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// GET: one point.
    Read,
    /// A change of something that exists: five points.
    Write,
    /// Makes something that people get to see: five points, and counted against 80 a minute and 500 an hour.
    Create,
}

/// Amounts within a sliding time.
#[derive(Debug)]
struct Window {
    span: Duration,
    most: u32,
    used: u32,
    log: VecDeque<(Instant, u32)>,
}

impl Window {
    fn new(span: Duration, most: u32) -> Self {
        Self { span, most, used: 0, log: VecDeque::new() }
    }

    /// How long until `amount` fits.
    fn wait(&mut self, now: Instant, amount: u32) -> Option<Duration> {
        while self.log.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= self.span) {
            self.used -= self.log.pop_front().map_or(0, |(_, n)| n);
        }
        let mut over = (self.used + amount).saturating_sub(self.most);
        for (at, n) in &self.log {
            if over == 0 {
                return None;
            }
            over = over.saturating_sub(*n);
            if over == 0 {
                return Some(self.span.saturating_sub(now.saturating_duration_since(*at)));
            }
        }
        None
    }

    fn take(&mut self, now: Instant, amount: u32) {
        self.used += amount;
        self.log.push_back((now, amount));
    }
}

#[derive(Debug)]
struct Account {
    blocked: Option<Instant>,
    strikes: u32,
    points: Window,
    created_minute: Window,
    created_hour: Window,
}

impl Account {
    fn new() -> Self {
        Self {
            blocked: None,
            strikes: 0,
            points: Window::new(MINUTE, 900),
            created_minute: Window::new(MINUTE, 80),
            created_hour: Window::new(HOUR, 500),
        }
    }
}

/// The limits of all installations; none stands for calls of the App itself.
#[derive(Debug, Default)]
pub struct Limits {
    accounts: Mutex<HashMap<Option<InstallationId>, Account>>,
}

impl Limits {
    /// Counts a call that is about to be sent.
    ///
    /// # Errors
    /// How long to wait; nothing is counted then.
    pub fn admit(&self, who: Option<InstallationId>, cost: Cost, now: Instant) -> Result<(), Duration> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let account = accounts.entry(who).or_insert_with(Account::new);
        if let Some(until) = account.blocked {
            if until > now {
                return Err(until - now);
            }
            account.blocked = None;
        }
        let points = if cost == Cost::Read { 1 } else { 5 };
        let mut wait = account.points.wait(now, points);
        if cost == Cost::Create {
            wait = wait.max(account.created_minute.wait(now, 1)).max(account.created_hour.wait(now, 1));
        }
        if let Some(wait) = wait {
            return Err(wait);
        }
        account.points.take(now, points);
        if cost == Cost::Create {
            account.created_minute.take(now, 1);
            account.created_hour.take(now, 1);
        }
        Ok(())
    }

    /// Takes note of what an answer says. The result is how long nothing may be sent, if the call itself was refused
    /// for a limit.
    pub fn note(&self, who: Option<InstallationId>, told: Option<Told>, now: Instant) -> Option<Duration> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let account = accounts.entry(who).or_insert_with(Account::new);
        let (wait, refused) = match told {
            None => {
                account.strikes = 0;
                return None;
            }
            Some(Told::Exhausted(wait)) => (wait, false),
            Some(Told::Refused(wait)) => (wait, true),
            // "wait for at least one minute … then an exponentially increasing amount of time"
            Some(Told::Secondary) => (MINUTE * 2_u32.pow(account.strikes.min(4)), true),
        };
        if refused {
            account.strikes += 1;
        }
        let until = now + wait.min(LONGEST);
        account.blocked = Some(account.blocked.map_or(until, |b| b.max(until)));
        refused.then_some(wait.min(LONGEST))
    }

    /// Drops what is kept for an installation that is gone.
    pub fn forget(&self, installation: InstallationId) {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner).remove(&Some(installation));
    }
}

/// What an answer says about limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// This call was done, and was the last for so long.
    Exhausted(Duration),
    /// This call was refused; again after so long.
    Refused(Duration),
    /// This call was refused by a secondary limit that gives no time.
    Secondary,
}

/// Reads the limits out of an answer. `message` is that of an error's body; `now` is the time by GitHub's clock.
#[must_use]
pub fn told(status: u16, headers: &HeaderMap, message: &str, now: Timestamp) -> Option<Told> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    let until = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
    let reset = (text("x-ratelimit-remaining") == Some("0"))
        .then(|| text("x-ratelimit-reset")?.parse().ok().and_then(|s| Timestamp::from_second(s).ok()))
        .flatten()
        .map(until);
    let refused = matches!(status, 403 | 429);
    if !refused {
        return reset.filter(|wait| !wait.is_zero()).map(Told::Exhausted);
    }
    // Seconds at GitHub; a date by RFC 9110 where a proxy says it.
    let after = text("retry-after").and_then(|value| match value.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => DateTimeParser::new().parse_timestamp(value).ok().map(until),
    });
    if let Some(wait) = after.or(reset) {
        return Some(Told::Refused(wait.max(Duration::from_secs(1))));
    }
    let message = message.to_ascii_lowercase();
    let secondary = status == 429 || message.contains("secondary rate limit") || message.contains("abuse detection");
    secondary.then_some(Told::Secondary)
}

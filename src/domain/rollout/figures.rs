//! Latencies, probes and real requests: the proof on every deploy.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::observed::Requests;
use crate::domain::ids::AppName;

/// Latencies in buckets of about 9 % width: small to store, and two can be added.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Histogram {
    /// Bucket to count. See [`bucket`].
    buckets: BTreeMap<u16, u64>,
}

/// Eight buckets to each doubling of microseconds.
fn bucket(micros: u64) -> u16 {
    let micros = micros.max(1);
    let octave = micros.ilog2();
    // The three bits below the leading one.
    let part = if octave >= 3 { (micros >> (octave - 3)) & 7 } else { (micros << (3 - octave)) & 7 };
    u16::try_from(octave * 8 + u32::try_from(part).unwrap_or(7)).unwrap_or(u16::MAX)
}

/// The upper end of a bucket, in microseconds.
fn upper(bucket: u16) -> u64 {
    let (octave, part) = (u32::from(bucket / 8), u64::from(bucket % 8));
    let base = 1u64.checked_shl(octave).unwrap_or(u64::MAX);
    base.saturating_add((u128::from(base) * u128::from(part + 1) / 8).try_into().unwrap_or(u64::MAX))
}

impl Histogram {
    /// One more.
    pub fn add(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        *self.buckets.entry(bucket(micros)).or_default() += 1;
    }

    /// All of another one.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.buckets {
            *self.buckets.entry(*bucket).or_default() += count;
        }
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.values().sum()
    }

    /// The latency that this share (0 to 1) of them does not exceed, within the width of a bucket.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank"
        )]
        let rank = ((count as f64 * share.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        self.buckets.iter().find_map(|(bucket, n)| {
            seen += n;
            (seen >= rank).then(|| Duration::from_micros(upper(*bucket)))
        })
    }
}

/// One lost probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeFailure {
    /// Whose.
    pub app: AppName,
    /// When it was sent.
    pub at: Timestamp,
    /// `GET /health answered 503`, `connection refused`.
    pub words: String,
}

/// What the prober saw. A restart of the server goes on counting.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProbeFigures {
    /// Requests sent.
    pub sent: u64,
    /// Answered otherwise than 2xx, or not at all.
    pub failed: u64,
    /// Of `sent`: on a connection of its own.
    pub fresh: u64,
    /// The first few failures.
    pub failures: Vec<ProbeFailure>,
    /// Latencies before the first flip.
    pub before: Histogram,
    /// Latencies after it.
    pub after: Histogram,
    /// Last answer by a slot that was switched away from, in milliseconds after its flip. None: there was none, or the
    /// target can't tell who answered.
    pub last_old_ms: Option<u64>,
    /// The same for the way back: last answer by the bad slot, in milliseconds after the flip back.
    #[serde(default)]
    pub last_bad_ms: Option<u64>,
}

/// How many failures are kept in words.
pub const FAILURES_KEPT: usize = 5;

impl ProbeFigures {
    /// Adds what another prober saw after this one.
    pub fn merge(&mut self, later: &Self) {
        self.sent += later.sent;
        self.failed += later.failed;
        self.fresh += later.fresh;
        let room = FAILURES_KEPT.saturating_sub(self.failures.len());
        self.failures.extend(later.failures.iter().take(room).cloned());
        self.before.merge(&later.before);
        self.after.merge(&later.after);
        self.last_old_ms = self.last_old_ms.max(later.last_old_ms);
        self.last_bad_ms = self.last_bad_ms.max(later.last_bad_ms);
    }

    /// `0 of 12,430 probes failed`.
    #[must_use]
    pub fn words(&self) -> String {
        format!("{} of {} probes failed", thousands(self.failed), thousands(self.sent))
    }
}

/// `12,430`.
#[must_use]
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// The last probes of one app.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProbeWindow {
    /// How many are looked at, all sent after the app's flip.
    pub sent: u32,
    /// Of these, failed.
    pub failed: u32,
    /// How the last one failed.
    pub last: Option<String>,
    /// Most of the probes before the flip failed too: they prove nothing about the new slot.
    pub blind: bool,
}

/// Real requests since the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Forwarded.
    pub total: u64,
    /// Answered with 5xx.
    pub server_errors: u64,
    /// Not answered.
    pub cut: u64,
}

impl Traffic {
    /// What came after `base`. Counters that start again at zero count from there.
    #[must_use]
    pub fn since(now: Requests, base: Requests) -> Self {
        let base = if now.total < base.total { Requests::default() } else { base };
        Self {
            total: now.total.saturating_sub(base.total),
            server_errors: now.server_errors.saturating_sub(base.server_errors),
            cut: now.cut.saturating_sub(base.cut),
        }
    }

    /// Requests that went wrong.
    #[must_use]
    pub fn bad(self) -> u64 {
        self.server_errors + self.cut
    }

    /// Their share, 0 where there were none.
    #[must_use]
    pub fn bad_share(self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        if self.total == 0 { 0.0 } else { self.bad() as f64 / self.total as f64 }
    }
}

//! Faults on demand: what goes wrong with which request or webhook, how often, from when on.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::guard;

/// A rule for requests. Of all rules that match, delays add up and the first other effect counts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// HTTP method; any when left out.
    #[serde(default)]
    pub method: Option<String>,
    /// Part of path and query, without the prefix of the API; empty for all. Git's paths count too.
    #[serde(default)]
    pub path: String,
    /// The first matching request that it applies to, from 1.
    #[serde(default = "one")]
    pub from: u32,
    /// To how many it applies; for ever when left out.
    #[serde(default)]
    pub count: Option<u32>,
    /// What happens.
    pub effect: Effect,
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Effect {
    /// The answer is late.
    Delay {
        /// By how much, in milliseconds.
        ms: u64,
    },
    /// Nothing is done; this is the answer.
    Status {
        /// HTTP status.
        status: u16,
        /// `Retry-After` in seconds.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// Nothing is done; 403 with GitHub's message for the secondary limit
    /// ("Rate limits for the REST API", exceeding the rate limit).
    SecondaryLimit {
        /// `Retry-After` in seconds; left out as GitHub sometimes does.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// It is done, and the connection closes without an answer.
    LoseResponse,
    /// Nothing is done, and the connection closes without an answer.
    LoseRequest,
    /// It is done, and the answer breaks off in the middle.
    Truncate,
    /// It is not done and never answered.
    Hang,
}

/// A rule for webhooks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookFault {
    /// Event; empty for all.
    #[serde(default)]
    pub event: String,
    /// The first matching webhook that it applies to, from 1.
    #[serde(default = "one")]
    pub from: u32,
    /// To how many it applies; for ever when left out.
    #[serde(default)]
    pub count: Option<u32>,
    /// What happens.
    pub effect: HookEffect,
}

/// What happens to a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum HookEffect {
    /// It never arrives; the delivery list shows a failed delivery, or nothing at all.
    Lose {
        /// Shown as failed.
        listed: bool,
    },
    /// It is sent twice at once, with the same key.
    Duplicate,
    /// It waits until the held ones are released, in any order.
    Hold,
}

fn one() -> u32 {
    1
}

struct Counted<T> {
    rule: T,
    seen: u32,
}

impl<T> Counted<T> {
    /// Counts one more match and says whether the rule applies to it.
    fn hit(&mut self, from: u32, count: Option<u32>) -> bool {
        self.seen += 1;
        self.seen >= from && count.is_none_or(|n| self.seen - from < n)
    }
}

/// The faults in force.
#[derive(Default)]
pub struct Faults {
    rules: Mutex<Vec<Counted<Rule>>>,
    hooks: Mutex<Vec<Counted<HookFault>>>,
    down: AtomicBool,
    git_down: AtomicBool,
    rate_limit: AtomicU32,
}

/// What the rules say about one request.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub delay: Duration,
    pub effect: Option<Effect>,
}

impl Faults {
    /// Adds a rule for requests.
    pub fn add(&self, rule: Rule) {
        guard(&self.rules).push(Counted { rule, seen: 0 });
    }

    /// Shortcut for [`Faults::add`]: requests of this method (empty for any) and part of a path, the first `count`.
    pub fn on(&self, method: &str, path: &str, count: u32, effect: Effect) {
        let method = (!method.is_empty()).then(|| method.to_owned());
        self.add(Rule { method, path: path.to_owned(), from: 1, count: Some(count), effect });
    }

    /// Adds a rule for webhooks.
    pub fn add_hook(&self, rule: HookFault) {
        guard(&self.hooks).push(Counted { rule, seen: 0 });
    }

    /// Ends all rules and outages. Held webhooks stay held until released.
    pub fn clear(&self) {
        guard(&self.rules).clear();
        guard(&self.hooks).clear();
        self.down(false);
        self.git_down(false);
        self.rate_limit(0);
    }

    /// The API as a whole closes connections without an answer, or does again what it should.
    pub fn down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// The same for clone and push.
    pub fn git_down(&self, down: bool) {
        self.git_down.store(down, Ordering::SeqCst);
    }

    /// Requests per hour and token; 0 for GitHub's 5000 ("Rate limits for the REST API", primary rate limit for
    /// GitHub App installations).
    pub fn rate_limit(&self, limit: u32) {
        self.rate_limit.store(limit, Ordering::SeqCst);
    }

    pub(super) fn hourly(&self) -> u32 {
        match self.rate_limit.load(Ordering::SeqCst) {
            0 => 5000,
            n => n,
        }
    }

    pub(super) fn judge(&self, method: &str, path: &str, git: bool) -> Verdict {
        let down = if git { &self.git_down } else { &self.down };
        if down.load(Ordering::SeqCst) {
            return Verdict { effect: Some(Effect::LoseRequest), ..Verdict::default() };
        }
        let mut verdict = Verdict::default();
        for counted in guard(&self.rules).iter_mut() {
            let rule = &counted.rule;
            let fits = rule.method.as_ref().is_none_or(|m| m.eq_ignore_ascii_case(method)) && path.contains(&rule.path);
            let (from, count, effect) = (rule.from, rule.count, rule.effect.clone());
            if !fits || !counted.hit(from, count) {
                continue;
            }
            match effect {
                Effect::Delay { ms } => verdict.delay += Duration::from_millis(ms),
                effect if verdict.effect.is_none() => verdict.effect = Some(effect),
                _ => {}
            }
        }
        verdict
    }

    pub(super) fn judge_hook(&self, event: &str) -> Option<HookEffect> {
        let mut effect = None;
        for counted in guard(&self.hooks).iter_mut() {
            let rule = &counted.rule;
            let fits = rule.event.is_empty() || rule.event == event;
            let (from, count, this) = (rule.from, rule.count, rule.effect);
            if fits && counted.hit(from, count) {
                effect = effect.or(Some(this));
            }
        }
        effect
    }
}

/// What another process may post to `/_standin/faults`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Order {
    pub clear: bool,
    pub rules: Vec<Rule>,
    pub hooks: Vec<HookFault>,
    pub down: Option<bool>,
    pub git_down: Option<bool>,
    pub rate_limit: Option<u32>,
    /// Releases held webhooks: `forward` or `reversed`.
    pub release: Option<Release>,
}

/// In which order held webhooks go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// As they were made.
    Forward,
    /// The other way round.
    Reversed,
}

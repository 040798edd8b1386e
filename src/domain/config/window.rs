//! Windows in which automatic releases may begin, such as `mon-fri 09:00-17:00 Asia/Seoul`.

use jiff::{
    Timestamp, ToSpan as _,
    civil::{Date, Time, Weekday},
    tz::TimeZone,
};

use super::mistake::{nearest, shown};

/// Days, times and a zone. A window whose end is not after its start reaches into the next day.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Monday first.
    days: [bool; 7],
    /// Minutes from midnight.
    from: u16,
    /// Minutes from midnight, up to 1440.
    to: u16,
    zone: TimeZone,
}

/// Why a text is not a window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct WindowError {
    /// What is wrong, as the end of "`text` …".
    pub why: String,
    /// What may have been meant.
    pub hint: Option<String>,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

fn day(text: &str) -> Option<usize> {
    DAYS.iter().position(|d| *d == text)
}

fn days(text: &str) -> Result<[bool; 7], String> {
    let mut set = [false; 7];
    if text == "daily" {
        return Ok([true; 7]);
    }
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (day(first), day(last)) {
            (Some(first), Some(last)) => {
                let mut at = first;
                set[at] = true;
                while at != last {
                    at = (at + 1) % 7;
                    set[at] = true;
                }
            }
            (known, _) => {
                let bad = if known.is_none() { first } else { last };
                return Err(format!("has {} where a day stands (mon, tue, … or daily)", shown(bad)));
            }
        }
    }
    Ok(set)
}

fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 || !text.bytes().all(|b| b.is_ascii_digit() || b == b':') {
        return None;
    }
    let (hours, minutes) = (hours.parse::<u16>().ok()?, minutes.parse::<u16>().ok()?);
    (hours < 24 && minutes < 60 || (hours, minutes) == (24, 0)).then_some(hours * 60 + minutes)
}

fn zone(name: &str) -> Option<TimeZone> {
    let named = name.len() <= 64
        && !name.contains("..")
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_+-/".contains(c));
    if named { jiff::tz::db().get(name).ok() } else { None }
}

/// A text that is a window and looks like this one: days in other letters, hours without minutes, a city for a zone.
fn guess(text: &str) -> Option<String> {
    let lower = |part: &str| {
        let day = |d: &str| d.to_lowercase().chars().take(3).collect::<String>();
        let range = |r: &str| r.split('-').map(day).collect::<Vec<_>>().join("-");
        if part.eq_ignore_ascii_case("daily") {
            return "daily".to_owned();
        }
        part.split(',').map(range).collect::<Vec<_>>().join(",")
    };
    let time = |t: &str| {
        let (hours, minutes) = t.split_once(':').unwrap_or((t, "00"));
        format!("{hours:0>2}:{minutes:0>2}")
    };
    if text.len() > 80 {
        return None;
    }
    let parts: Vec<&str> = text.split_whitespace().collect();
    let (days, times, name) = match parts.as_slice() {
        [days, times, name] => (days, times, *name),
        [days, times] => (days, times, "UTC"),
        _ => return None,
    };
    let name = if zone(name).is_some() {
        name.to_owned()
    } else {
        let names: Vec<String> = jiff::tz::db().available().map(|n| n.as_str().to_owned()).collect();
        let city = names.iter().find(|n| n.rsplit('/').next().is_some_and(|c| c.eq_ignore_ascii_case(name)));
        city.cloned().or_else(|| nearest(name, names.iter().map(String::as_str)))?
    };
    let times = times.split('-').map(time).collect::<Vec<_>>().join("-");
    let better = format!("{} {times} {name}", lower(days));
    Window::read(&better).is_ok().then_some(better)
}

impl Window {
    /// Reads `DAYS HH:MM-HH:MM ZONE`; days are `mon`, `mon-fri`, `sat,sun` or `daily`, the zone is an IANA name.
    ///
    /// # Errors
    /// What is wrong, and what may have been meant.
    pub fn parse(text: &str) -> Result<Self, WindowError> {
        Self::read(text).map_err(|why| WindowError { why, hint: guess(text) })
    }

    fn read(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(' ').filter(|p| !p.is_empty()).collect();
        let [day_part, time_part, zone_part] = parts.as_slice() else {
            return Err(format!("has {} parts instead of three (days, times, zone)", parts.len()));
        };
        let days = days(day_part)?;
        let (from, to) = time_part.split_once('-').unwrap_or((time_part, ""));
        let (Some(from), Some(to)) = (minutes(from), minutes(to)) else {
            return Err(format!("has {} where times stand (09:00-17:00)", shown(time_part)));
        };
        if from == 1440 {
            return Err("begins at 24:00".to_owned());
        }
        if from == to {
            return Err("begins and ends at the same time".to_owned());
        }
        let Some(zone) = zone(zone_part) else {
            return Err(format!("has {} where a time zone stands (Asia/Seoul, UTC)", shown(zone_part)));
        };
        Ok(Self { days, from, to, zone })
    }

    /// Whether `now` lies within.
    #[must_use]
    pub fn contains(&self, now: Timestamp) -> bool {
        let local = now.to_zoned(self.zone.clone());
        let minute = u16::try_from(i32::from(local.hour()) * 60 + i32::from(local.minute())).unwrap_or(0);
        let on = |weekday: Weekday| self.days[usize::try_from(weekday.to_monday_zero_offset()).unwrap_or(0) % 7];
        let (today, yesterday) = (local.weekday(), local.weekday().previous());
        if self.from < self.to {
            on(today) && (self.from..self.to).contains(&minute)
        } else {
            on(today) && minute >= self.from || on(yesterday) && minute < self.to
        }
    }

    /// When it opens next: `now` if it is open, otherwise its next start. None only at the end of time.
    #[must_use]
    pub fn next_open(&self, now: Timestamp) -> Option<Timestamp> {
        if self.contains(now) {
            return Some(now);
        }
        let mut date: Date = now.to_zoned(self.zone.clone()).date();
        for _ in 0..9 {
            let weekday = usize::try_from(date.weekday().to_monday_zero_offset()).unwrap_or(0) % 7;
            if self.days[weekday] {
                let hour = i8::try_from(self.from / 60).ok()?;
                let minute = i8::try_from(self.from % 60).ok()?;
                let start = date.to_datetime(Time::new(hour, minute, 0, 0).ok()?);
                // A start that daylight saving skips is the moment after the gap.
                let start = start.to_zoned(self.zone.clone()).ok()?.timestamp();
                if start > now {
                    return Some(start);
                }
            }
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }
}

/// When the first of these windows opens: `now` if one is open or there is none. Windows that cannot be read are
/// closed (the check of the file has refused them).
#[must_use]
pub fn next_open(windows: &[String], now: Timestamp) -> Option<Timestamp> {
    if windows.is_empty() {
        return Some(now);
    }
    windows.iter().filter_map(|w| Window::parse(w).ok()?.next_open(now)).min()
}

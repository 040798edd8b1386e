//! Durations (`20m`, `1h30m`, `250ms`) and sizes (`2Gi`, `512M`) as people write them.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Largest suffix first. The words and their meaning are Kubernetes' ("Resource Management for Pods and Containers").
const SIZE_UNITS: [(&str, u64); 9] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("K", 1_000),
    ("k", 1_000),
];

/// Splits `10m` into `10` and `m`; what follows the letters is left over.
fn number_and_unit(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let unit = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit);
    Some((number.parse().ok()?, unit, rest))
}

/// Reads a duration. None: not one, or longer than can be counted.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut last_unit = u64::MAX;
    while !rest.is_empty() {
        let (number, unit, tail) = number_and_unit(rest)?;
        let (_, factor) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
        // Units fall, each once: `1h30m`, never `30m1h`.
        if *factor >= last_unit {
            return None;
        }
        last_unit = *factor;
        total = total.checked_add(number.checked_mul(*factor)?)?;
        rest = tail;
    }
    (!text.is_empty()).then(|| Duration::from_millis(total))
}

/// Writes a duration so that [`parse_duration`] reads it back. Less than a millisecond is dropped.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    // Days only where they are whole: `36h` reads better than `1d12h`.
    let units = if left.is_multiple_of(86_400_000) { &DURATION_UNITS[..] } else { &DURATION_UNITS[1..] };
    for (unit, factor) in units {
        if left >= *factor {
            text.push_str(&format!("{}{unit}", left / factor));
            left %= factor;
        }
    }
    text
}

/// What somebody may have meant by a text that is no duration.
#[must_use]
pub fn guess_duration(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase().replace(' ', "");
    let (number, unit, rest) = number_and_unit(&text)?;
    if !rest.is_empty() {
        return None;
    }
    let unit = match unit {
        "" | "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "m" | "min" | "mins" | "minute" | "minutes" => "m",
        "h" | "hr" | "hrs" | "hour" | "hours" => "h",
        "d" | "day" | "days" => "d",
        "ms" | "msec" | "millis" | "milliseconds" => "ms",
        _ => return None,
    };
    Some(format!("{number}{unit}"))
}

/// Reads a size in bytes. None: not one, or too large to be counted.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit, rest) = number_and_unit(text)?;
    if !rest.is_empty() {
        return None;
    }
    let factor = if unit.is_empty() { 1 } else { SIZE_UNITS.iter().find(|(name, _)| *name == unit)?.1 };
    number.checked_mul(factor)
}

/// Writes a size so that [`parse_size`] reads it back.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    match SIZE_UNITS.iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => bytes.to_string(),
    }
}

/// What somebody may have meant by a text that is no size.
#[must_use]
pub fn guess_size(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase().replace(' ', "");
    let (number, unit, rest) = number_and_unit(&text)?;
    let unit = match unit {
        "g" | "gb" | "gib" | "gi" => "Gi",
        "m" | "mb" | "mib" | "mi" => "Mi",
        "k" | "kb" | "kib" | "ki" => "Ki",
        "t" | "tb" | "tib" | "ti" => "Ti",
        _ => return None,
    };
    rest.is_empty().then(|| format!("{number}{unit}"))
}

/// Reads an amount of CPU: cores (`2`, `0.5`) or thousandths of one (`500m`), as Kubernetes does.
#[must_use]
pub fn parse_cpu(text: &str) -> Option<f64> {
    let well_formed = |t: &str| !t.is_empty() && t.len() <= 128 && t.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let cores: f64 = match text.strip_suffix('m') {
        Some(milli) if well_formed(milli) => milli.parse::<f64>().ok()? / 1000.0,
        None if well_formed(text) => text.parse().ok()?,
        _ => return None,
    };
    (cores > 0.0 && cores <= 1024.0).then_some(cores)
}

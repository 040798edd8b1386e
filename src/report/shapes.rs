//! What looks like a token, whoever it belongs to.

use std::ops::Range;

/// A private key is searched for its end this far, in bytes.
pub(super) const KEY_MAX: usize = 16 * 1024;

/// What [`find`] saw.
pub(super) struct Shapes {
    /// What must go; may overlap, not sorted.
    pub(super) ranges: Vec<Range<usize>>,
    /// Where a private key begins whose end was not seen.
    pub(super) open_key: Option<usize>,
}

struct Kind {
    prefix: &'static str,
    /// Characters behind the prefix, at least.
    least: usize,
    /// Other characters than letters and digits that it may have.
    extra: &'static str,
    /// The prefix is no secret and stays.
    keep_prefix: bool,
}

const fn kind(prefix: &'static str, least: usize, extra: &'static str) -> Kind {
    Kind { prefix, least, extra, keep_prefix: false }
}

/// GitHub's are in "About authentication to GitHub" (an installation token is `ghs_`, the App's id and a JWT with
/// dots); AWS's in "IAM identifiers"; Slack's in "Tokens".
const KINDS: &[Kind] = &[
    kind("ghs_", 20, "_-."),
    kind("ghp_", 20, "_"),
    kind("gho_", 20, "_"),
    kind("ghu_", 20, "_"),
    kind("ghr_", 20, "_"),
    kind("github_pat_", 20, "_"),
    kind("glpat-", 16, "_-"),
    kind("npm_", 30, ""),
    kind("xoxa-", 10, "-"),
    kind("xoxb-", 10, "-"),
    kind("xoxe-", 10, "-"),
    kind("xoxp-", 10, "-"),
    kind("xoxr-", 10, "-"),
    kind("xoxs-", 10, "-"),
    kind("xapp-", 10, "-"),
    kind("sk_live_", 16, ""),
    kind("rk_live_", 16, ""),
    Kind { prefix: "hooks.slack.com/services/", least: 10, extra: "/", keep_prefix: true },
];

/// Characters of which tokens are made: a text is not cut inside a run of them where that can be helped.
pub(super) fn in_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-.+/=:%~".contains(c)
}

/// Looks at the whole text.
pub(super) fn find(text: &str) -> Shapes {
    let bytes = text.as_bytes();
    let mut found = Shapes { ranges: Vec::new(), open_key: None };
    let last_end = text.rfind("-----END");
    let mut at = 0;
    while at < bytes.len() {
        let begins_word = at == 0 || !bytes[at - 1].is_ascii_alphanumeric();
        let range = match bytes[at] {
            b'e' => jwt(bytes, at),
            b':' => password(bytes, at),
            b'-' => match key(text, at, last_end) {
                Some((range, closed)) => {
                    if !closed && found.open_key.is_none() {
                        found.open_key = Some(at);
                    }
                    Some(range)
                }
                None => None,
            },
            b'A' if begins_word => aws(bytes, at),
            _ => None,
        };
        let range = range.or_else(|| if begins_word { prefixed(bytes, at) } else { None });
        match range {
            // What lies before the range (a user's name in an address) is still looked at.
            Some(range) => {
                at = if range.start > at { at + 1 } else { range.end.max(at + 1) };
                found.ranges.push(range);
            }
            None => at += 1,
        }
    }
    found
}

fn run(bytes: &[u8], from: usize, extra: &str) -> usize {
    let more = extra.as_bytes();
    bytes[from..].iter().take_while(|b| b.is_ascii_alphanumeric() || more.contains(b)).count()
}

fn prefixed(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    KINDS.iter().find_map(|kind| {
        if !bytes[at..].starts_with(kind.prefix.as_bytes()) {
            return None;
        }
        let body = at + kind.prefix.len();
        let length = run(bytes, body, kind.extra);
        (length >= kind.least).then(|| if kind.keep_prefix { body } else { at }..body + length)
    })
}

/// A long-term or temporary access key id.
fn aws(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    if !(bytes[at..].starts_with(b"AKIA") || bytes[at..].starts_with(b"ASIA")) {
        return None;
    }
    let length = run(bytes, at, "");
    let upper = bytes[at..at + length].iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    (length == 20 && upper).then(|| at..at + length)
}

/// Three parts of base64 with dots between, the first of which begins with `{"`.
fn jwt(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    if !bytes[at..].starts_with(b"eyJ") {
        return None;
    }
    let mut end = at;
    for part in 0..3 {
        if part > 0 {
            if bytes.get(end) != Some(&b'.') {
                return None;
            }
            end += 1;
        }
        let length = run(bytes, end, "_-");
        // The signature of an unsigned one is empty.
        if part < 2 && length < 8 {
            return None;
        }
        end += length;
    }
    Some(at..end)
}

/// `://user:password@` and `://token@`.
fn password(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    if !bytes[at..].starts_with(b"://") {
        return None;
    }
    let user = at + 3;
    let rest = &bytes[user..bytes.len().min(user + 2048)];
    let stop = rest.iter().position(|b| b"/?#\"'<>`\\".contains(b) || b.is_ascii_whitespace()).unwrap_or(rest.len());
    // The last @ of the authority: a password may hold one that was not encoded.
    let end = rest[..stop].iter().rposition(|b| *b == b'@')?;
    let secret = match rest[..end].iter().position(|b| *b == b':') {
        Some(colon) => colon + 1,
        None if end >= 20 => 0,
        None => return None,
    };
    (secret < end).then(|| user + secret..user + end)
}

/// From `-----BEGIN … PRIVATE KEY-----` to its end. Where the end is missing: the rest of the line and the lines
/// behind it that look like a key's.
fn key(text: &str, at: usize, last_end: Option<usize>) -> Option<(Range<usize>, bool)> {
    let rest = &text[at..];
    let label = rest.strip_prefix("-----BEGIN ")?;
    let close = label.bytes().take(64).position(|b| b == b'-')?;
    if !label[..close].ends_with("PRIVATE KEY") && !label[..close].ends_with("PRIVATE KEY BLOCK") {
        return None;
    }
    let window = &rest[..rest.floor_char_boundary(KEY_MAX)];
    if last_end.is_some_and(|end| end > at)
        && let Some(end) = window.find("-----END")
    {
        let tail = &rest[end + 8..];
        let dashes = tail.bytes().take(64).collect::<Vec<_>>();
        let stop = dashes.windows(5).position(|w| w == b"-----").map_or(0, |p| p + 5);
        return Some((at..at + end + 8 + stop, true));
    }
    let mut end = rest.find('\n').unwrap_or(rest.len());
    while end < rest.len() {
        let line_end = rest[end + 1..].find('\n').map_or(rest.len(), |p| end + 1 + p);
        let line = rest[end + 1..line_end].trim();
        let like_a_key = line.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
            || line.starts_with("Proc-Type:")
            || line.starts_with("DEK-Info:");
        // A word alone is no line of a key, but the last line of one may be short and ends in `=`.
        if !like_a_key || line_end - end > 200 || (line.len() < 16 && !line.is_empty() && !line.ends_with('=')) {
            break;
        }
        end = line_end;
    }
    Some((at..at + end, false))
}

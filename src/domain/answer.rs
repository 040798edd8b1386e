//! What others answer in words, read for its meaning.

/// Whether a text tells one of these status codes as a word of its own: digests, ports and sizes hold any digits.
#[must_use]
pub fn tells_code(text: &str, codes: &[&str]) -> bool {
    text.split_whitespace().any(|w| codes.contains(&w.trim_matches(|c: char| !c.is_ascii_alphanumeric())))
}

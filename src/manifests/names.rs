//! Names that Kubernetes takes: of objects and of labels' values.

use sha2::{Digest as _, Sha256};

/// The longest name of a Deployment whose pods' names are still whole: a pod is named after its ReplicaSet (a dash and
/// up to ten characters more) with a dash and five characters, and its host name has at most 63
/// ("Object Names and IDs"; `generateName` cuts what is longer, and the slot's end would be lost).
pub(super) const DEPLOYMENT: usize = 63 - 11 - 6;
/// The same for a Job, whose pods get a dash and five characters.
pub(super) const JOB: usize = 63 - 6;
/// The longest part of a name between dots, and the longest value of a label.
pub(super) const LABEL: usize = 63;

/// Eight hex digits of a text's hash.
pub(super) fn hash(text: &str) -> String {
    hex::encode(&Sha256::digest(text.as_bytes())[..4])
}

/// A text as an object's name of at most `most` characters: lower-case letters, digits and dashes. What had to be cut or
/// changed beyond its case is told apart by a hash.
#[must_use]
pub fn object_name(text: &str, most: usize) -> String {
    let most = most.max(12);
    let fits = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let plain: String = text.to_ascii_lowercase().chars().map(fits).collect();
    let trimmed = plain.trim_matches('-');
    if trimmed == text.to_ascii_lowercase() && trimmed.len() <= most && !trimmed.is_empty() {
        return trimmed.to_owned();
    }
    let hash = hash(text);
    let cut = trimmed[..trimmed.len().min(most - 9)].trim_end_matches('-');
    if cut.is_empty() { format!("x{hash}") } else { format!("{cut}-{hash}") }
}

/// An object's name with an ending that must stay whole, such as a slot's; the name in front is cut where there is not
/// enough room.
pub(super) fn with_ending(name: &str, ending: &str, most: usize) -> String {
    let ending = object_name(ending, most.saturating_sub(12).max(12));
    if name.len() + 1 + ending.len() <= most {
        return format!("{name}-{ending}");
    }
    let room = most.saturating_sub(ending.len() + 1).max(9);
    let hash = hash(name);
    let cut = name.get(..room.saturating_sub(9)).unwrap_or_default().trim_end_matches(['-', '.']);
    if cut.is_empty() { format!("x{hash}-{ending}") } else { format!("{cut}-{hash}-{ending}") }
}

/// A text as a label's value: at most 63 letters, digits, dashes, dots and underscores, beginning and ending with a
/// letter or digit ("Labels and Selectors"). What had to be changed is told apart by a hash.
#[must_use]
pub fn label(text: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '-' };
    let plain: String = text.chars().map(fits).collect();
    let trimmed = plain.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if trimmed == text && trimmed.len() <= LABEL && !trimmed.is_empty() {
        return trimmed.to_owned();
    }
    let cut = trimmed[..trimmed.len().min(LABEL - 9)].trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    if cut.is_empty() { format!("x{}", hash(text)) } else { format!("{cut}-{}", hash(text)) }
}

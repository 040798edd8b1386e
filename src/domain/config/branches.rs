//! Which branches a list of patterns means.

use globset::{Glob, GlobBuilder};

/// A pattern of branches: `*` stops at a slash, `**` does not ("Workflow syntax for GitHub Actions", filter patterns).
pub(super) fn glob(pattern: &str) -> Result<Glob, String> {
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map_err(|error| error.kind().to_string())
}

/// Whether the patterns, read in order, take this branch: the last one that matches decides, and a leading `!` takes
/// away. Patterns that cannot be read match nothing (the check of the file has refused them).
#[must_use]
pub fn matches(patterns: &[String], branch: &str) -> bool {
    let mut taken = false;
    for pattern in patterns {
        let (negative, pattern) = match pattern.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, pattern.as_str()),
        };
        // `**` alone is everything, and `feature/**` everything below: globset wants a whole part for it.
        let hit = pattern == "**" || glob(pattern).is_ok_and(|g| g.compile_matcher().is_match(branch));
        if hit {
            taken = !negative;
        }
    }
    taken
}

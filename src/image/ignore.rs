//! `.dockerignore`, by Docker's own rules.
//!
//! Source: "Build context: .dockerignore files", and the behaviour of the engine's pattern matcher: patterns are
//! anchored at the context's root, `**` spans folders, the last pattern that fits decides, and what fits a folder fits
//! all that is in it.

/// The largest `.dockerignore` that is read, in bytes.
pub const MAX_IGNORE: usize = 256 * 1024;
/// The most patterns.
const MAX_PATTERNS: usize = 5000;

/// The patterns of one file.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    /// With `!`: what fits is taken in again.
    back: bool,
    parts: Vec<Part>,
}

/// One part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Char(char),
    /// `?`: one character that is no slash.
    One,
    /// `*`: any number of characters that are no slash.
    Many,
    /// `**` at the end: anything.
    Rest,
    /// `**/`: any number of folders, or none: the next part is stepped over or not.
    Enter,
    /// Inside of those folders.
    Folders,
    /// `[a-z]`, `[^a]`.
    Class {
        not: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Ignore {
    /// Reads the file.
    ///
    /// # Errors
    /// The line (from 1) and what is wrong with it, in words.
    pub fn read(text: &str) -> Result<Self, (usize, String)> {
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
        let mut patterns = Vec::new();
        for (n, line) in text.lines().enumerate() {
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (back, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            if pattern.is_empty() {
                if back {
                    return Err((n + 1, "`!` needs a pattern behind it".to_owned()));
                }
                continue;
            }
            let clean = clean(pattern);
            let parts = parts(&clean).map_err(|why| (n + 1, why))?;
            if patterns.len() == MAX_PATTERNS {
                return Err((n + 1, format!("more than {MAX_PATTERNS} patterns")));
            }
            patterns.push(Pattern { back, parts });
        }
        Ok(Self { patterns })
    }

    /// Whether a path (from the context's root, with slashes) is left out.
    #[must_use]
    pub fn leaves_out(&self, path: &str) -> bool {
        let parents: Vec<&str> = path.match_indices('/').map(|(at, _)| &path[..at]).collect();
        let mut out = false;
        for pattern in &self.patterns {
            // What would not change anything is not looked at.
            if pattern.back == out && (pattern.fits(path) || parents.iter().any(|p| pattern.fits(p))) {
                out = !pattern.back;
            }
        }
        out
    }

    /// Whether something below a folder that is left out may be taken in again.
    #[must_use]
    pub fn takes_back(&self) -> bool {
        self.patterns.iter().any(|p| p.back)
    }
}

impl Pattern {
    /// All states at once, so that no pattern takes longer than its length times the path's.
    fn fits(&self, path: &str) -> bool {
        let mut now = vec![false; self.parts.len() + 1];
        now[0] = true;
        self.step_over(&mut now);
        for c in path.chars() {
            let mut next = vec![false; self.parts.len() + 1];
            for (at, part) in self.parts.iter().enumerate().filter(|(at, _)| now[*at]) {
                match part {
                    Part::Char(wanted) => next[at + 1] |= *wanted == c,
                    Part::One => next[at + 1] |= c != '/',
                    Part::Many => next[at] |= c != '/',
                    Part::Rest => next[at] = true,
                    Part::Enter => {}
                    Part::Folders => {
                        next[at] = true;
                        next[at + 1] |= c == '/';
                    }
                    Part::Class { not, ranges } => {
                        next[at + 1] |= ranges.iter().any(|(a, b)| (*a..=*b).contains(&c)) != *not;
                    }
                }
            }
            now = next;
            self.step_over(&mut now);
        }
        now[self.parts.len()]
    }

    /// What may fit nothing at all is stepped over.
    fn step_over(&self, states: &mut [bool]) {
        for (at, part) in self.parts.iter().enumerate() {
            match part {
                Part::Many | Part::Rest if states[at] => states[at + 1] = true,
                Part::Enter if states[at] => {
                    states[at + 1] = true;
                    states[at + 2] = true;
                }
                _ => {}
            }
        }
    }
}

/// A path without `.`, doubled and leading slashes, and without `..` behind a folder. As Go's `filepath.Clean` does, which
/// Docker uses: what leads above the context stays so, and fits nothing in it; from a leading slash nothing leads above.
fn clean(pattern: &str) -> String {
    let anchored = pattern.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => _ = parts.pop(),
            ".." if anchored => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn parts(pattern: &str) -> Result<Vec<Part>, String> {
    let mut found = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.peek() == Some(&'*') => {
                chars.next();
                match chars.peek() {
                    None => found.push(Part::Rest),
                    Some('/') => {
                        chars.next();
                        found.extend([Part::Enter, Part::Folders]);
                    }
                    // Docker reads `**x` as `**/x`.
                    Some(_) => found.extend([Part::Enter, Part::Folders]),
                }
            }
            '*' => found.push(Part::Many),
            '?' => found.push(Part::One),
            '\\' => found.push(Part::Char(chars.next().ok_or("a `\\` needs a character behind it")?)),
            '[' => found.push(class(&mut chars)?),
            c => found.push(Part::Char(c)),
        }
    }
    Ok(found)
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Part, String> {
    let open = || "a `[` is not closed".to_owned();
    let not = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let first = chars.next().ok_or_else(open)?;
        if first == ']' {
            break;
        }
        let low = if first == '\\' { chars.next().ok_or_else(open)? } else { first };
        let mut high = low;
        if chars.next_if_eq(&'-').is_some() {
            let c = chars.next().ok_or_else(open)?;
            high = if c == '\\' { chars.next().ok_or_else(open)? } else { c };
            if high == ']' || high < low {
                return Err("a range in `[…]` goes from a lower to a higher character".to_owned());
            }
        }
        ranges.push((low, high));
    }
    if ranges.is_empty() { Err("`[]` fits nothing".to_owned()) } else { Ok(Part::Class { not, ranges }) }
}

//! `.github/switchover.yml` to [`RepoConfig`]: read as a tree, checked against the table, then against itself.

use super::{
    RepoConfig, build,
    checker::Checker,
    grammar::Value,
    mistake::{Mistake, shown},
    rules, table,
    tree::{self, At, Node},
};

/// Where the file stands in a repository.
pub const FILE_NAME: &str = ".github/switchover.yml";

/// A configuration that was found right.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedConfig {
    /// What it says.
    pub config: RepoConfig,
    /// What is right but probably not meant.
    pub warnings: Vec<Mistake>,
}

/// Reads the file. A text that is empty or holds only comments says as much as no file at all.
///
/// # Errors
/// Every mistake that could be found, in the order of the file, never none.
pub fn parse(text: &str) -> Result<ParsedConfig, Vec<Mistake>> {
    let Some(root) = tree::read(text).map_err(|mistake| vec![mistake])? else {
        return Ok(ParsedConfig { config: RepoConfig::default(), warnings: Vec::new() });
    };
    if let Some(mistake) = other_version(&root) {
        return Err(vec![mistake]);
    }
    let mut checker = Checker::new(&table::FILE);
    let value = checker.check_root(&root);
    let warnings = rules::check(&value, &mut checker);
    let mistakes = checker.finish();
    if mistakes.is_empty() { Ok(ParsedConfig { config: build::config(&value), warnings }) } else { Err(mistakes) }
}

/// The same from raw bytes, as they come from a commit.
///
/// # Errors
/// As [`parse`]; also where the bytes are no UTF-8.
pub fn parse_bytes(bytes: &[u8]) -> Result<ParsedConfig, Vec<Mistake>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(text),
        Err(error) => {
            let good = String::from_utf8_lossy(&bytes[..error.valid_up_to().min(tree::MAX_FILE)]);
            let line = good.matches('\n').count() + 1;
            let column = good.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
            let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let at = At { line: small(line), column: small(column), length: 1 };
            let message = match bytes {
                [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => "the file is UTF-16",
                _ => "the file is not UTF-8 from here on",
            };
            Err(vec![Mistake::new(at, "", message, "a file saved as UTF-8")])
        }
    }
}

/// A file of another version would be full of mistakes that are none: only its version is told.
fn other_version(root: &Node) -> Option<Mistake> {
    let entry = root.entries().iter().find(|e| e.key == "version")?;
    let written = entry.value.text().filter(|text| *text != "1")?;
    let message = format!("{} is not a version that this build knows", shown(written));
    Some(Mistake::new(entry.value.at, "version", message, "1"))
}

/// What holds where nothing is written, for this object of the table.
pub(super) fn defaults(object: &'static super::grammar::Object) -> Value {
    // The missing keys that must be written are no mistake here.
    Checker::new(object).check_root(&Node::empty_map(At::default()))
}

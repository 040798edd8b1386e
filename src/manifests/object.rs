//! An object of a manifest, and the lines that its values stand in.

use std::fmt;

use serde_json::Value;

use super::look::text;

/// Something in a manifest that keeps it from being applied.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// The file, from the repository's root.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// What is wrong, and the mend.
    pub words: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.words)
    }
}

/// Where a value and those in it stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub line: u32,
    pub inner: Inner,
}

/// The places of what is inside of a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Inner {
    #[default]
    Nothing,
    List(Vec<Place>),
    Map(Vec<(String, Place)>),
}

impl Place {
    fn get(&self, step: &str) -> Option<&Self> {
        match &self.inner {
            Inner::Nothing => None,
            Inner::List(items) => items.get(step.parse::<usize>().ok()?),
            Inner::Map(entries) => entries.iter().find(|(key, _)| key == step).map(|(_, place)| place),
        }
    }
}

/// One object of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// The file that it stands in, from the repository's root.
    pub file: String,
    /// The object, without what only a live one has.
    pub value: Value,
    pub(super) place: Place,
}

impl Object {
    /// `kind`.
    #[must_use]
    pub fn kind(&self) -> &str {
        text(&self.value, "/kind")
    }

    /// The group of `apiVersion`; empty for the core.
    #[must_use]
    pub fn group(&self) -> &str {
        text(&self.value, "/apiVersion").rsplit_once('/').map_or("", |(group, _)| group)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        text(&self.value, "/metadata/name")
    }

    /// The line that it begins in.
    #[must_use]
    pub fn line(&self) -> u32 {
        self.place.line
    }

    /// The line of the value at a JSON pointer, or of the nearest that is there on the way to it.
    #[must_use]
    pub fn line_at(&self, pointer: &str) -> u32 {
        let mut place = &self.place;
        for step in pointer.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            let Some(inner) = place.get(&step) else { break };
            place = inner;
        }
        place.line
    }

    /// `FILE:LINE`, for messages.
    #[must_use]
    pub fn at(&self) -> String {
        format!("{}:{}", self.file, self.line())
    }

    /// `FILE:LINE` of the value at a JSON pointer.
    #[must_use]
    pub fn at_value(&self, pointer: &str) -> String {
        format!("{}:{}", self.file, self.line_at(pointer))
    }

    pub(super) fn refusal(&self, pointer: &str, words: impl Into<String>) -> Refusal {
        Refusal { file: self.file.clone(), line: self.line_at(pointer), words: words.into() }
    }

    pub(super) fn is(&self, kind: &str, group: &str) -> bool {
        self.kind() == kind && self.group() == group
    }
}

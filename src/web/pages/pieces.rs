//! The small parts that pages are made of: state, sha, time, duration, release line.

use std::fmt;

use askama::{Template, filters::HtmlSafe};
use jiff::{Timestamp, tz::TimeZone};

use crate::domain::{
    check::{CheckStatus, Conclusion, DeploymentState},
    run::Outcome,
    show::{self, PhaseMark, Rails, ReleaseLine, Side},
};

/// HTML that a template of ours made: it is not escaped again. Made from a [`Template`] only, so that text from
/// outside cannot become markup by mistake.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Markup(String);

impl Markup {
    /// Renders a template.
    #[must_use]
    pub fn of(template: &impl Template) -> Self {
        let mut html = String::with_capacity(256);
        // Writing to a String cannot fail, and no template here calls a filter that does.
        match template.render_into(&mut html) {
            Ok(()) => Self(html),
            Err(error) => {
                tracing::error!(%error, "a page could not be rendered");
                Self(String::new())
            }
        }
    }

    /// HTML that escaped everything from outside itself (the Markdown renderer of the stand-in, the log lines).
    pub(crate) fn trusted(html: String) -> Self {
        Self(html)
    }

    /// The HTML.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Markup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl HtmlSafe for Markup {}

/// What a state is shown as: colour carries it, always beside a sign and a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Green.
    Passed,
    /// Red.
    Failed,
    /// Amber.
    Running,
    /// Amber: a person must do something.
    Attention,
    /// Grey.
    Waiting,
    /// Grey, struck.
    Cancelled,
}

/// A state: sign, word, colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Before the word.
    pub sign: &'static str,
    /// What it is called.
    pub word: &'static str,
    /// Its colour.
    pub tone: Tone,
}

impl State {
    /// Known, not begun.
    pub const QUEUED: Self = Self { sign: "○", word: "queued", tone: Tone::Waiting };
    /// Going on.
    pub const RUNNING: Self = Self { sign: "●", word: "running", tone: Tone::Running };
    /// Ended well.
    pub const PASSED: Self = Self { sign: "✓", word: "passed", tone: Tone::Passed };
    /// Ended badly.
    pub const FAILED: Self = Self { sign: "✗", word: "failed", tone: Tone::Failed };
    /// Waits for a person.
    pub const WAITS: Self = Self { sign: "!", word: "waits for you", tone: Tone::Attention };
    /// Serves requests.
    pub const LIVE: Self = Self { sign: "✓", word: "live", tone: Tone::Passed };
    /// Taken back.
    pub const ROLLED_BACK: Self = Self { sign: "↩", word: "rolled back", tone: Tone::Failed };
    /// Something stands where it was not left; a person decides.
    pub const STUCK: Self = Self { sign: "✗", word: "stuck", tone: Tone::Failed };

    /// The class on pages.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self.tone {
            Tone::Passed => "passed",
            Tone::Failed => "failed",
            Tone::Running => "running",
            Tone::Attention => "attention",
            Tone::Waiting => "waiting",
            Tone::Cancelled => "cancelled",
        }
    }

    /// Not over yet.
    #[must_use]
    pub fn is_open(self) -> bool {
        self == Self::QUEUED || self == Self::RUNNING
    }

    /// Sign and word.
    #[must_use]
    pub fn badge(self) -> Markup {
        #[derive(Template)]
        #[template(
            source = r#"<span class="state {{ state.class() }}"><b aria-hidden="true">{{ state.sign }}</b> <span>{{ state.word }}</span></span>"#,
            ext = "html"
        )]
        struct Badge {
            state: State,
        }
        Markup::of(&Badge { state: self })
    }

    /// The sign alone, for dense lists; the word for screen readers and on hover.
    #[must_use]
    pub fn mark(self) -> Markup {
        #[derive(Template)]
        #[template(
            source = r#"<span class="state {{ state.class() }}" role="img" aria-label="{{ state.word }}" title="{{ state.word }}"><b aria-hidden="true">{{ state.sign }}</b></span>"#,
            ext = "html"
        )]
        struct Mark {
            state: State,
        }
        Markup::of(&Mark { state: self })
    }
}

impl From<Conclusion> for State {
    fn from(conclusion: Conclusion) -> Self {
        let (word, tone) = match conclusion {
            Conclusion::Success => return Self::PASSED,
            Conclusion::Failure => return Self::FAILED,
            Conclusion::ActionRequired => return Self::WAITS,
            Conclusion::TimedOut => ("timed out", Tone::Failed),
            Conclusion::Neutral => ("neutral", Tone::Waiting),
            Conclusion::Skipped => ("skipped", Tone::Waiting),
            Conclusion::Cancelled => ("cancelled", Tone::Cancelled),
        };
        Self { sign: conclusion.sign(), word, tone }
    }
}

impl From<(CheckStatus, Option<Conclusion>)> for State {
    fn from((status, conclusion): (CheckStatus, Option<Conclusion>)) -> Self {
        match (status, conclusion) {
            (CheckStatus::Queued, _) => Self::QUEUED,
            (CheckStatus::InProgress, _) => Self::RUNNING,
            (CheckStatus::Completed, Some(conclusion)) => conclusion.into(),
            (CheckStatus::Completed, None) => Self { sign: "–", word: "ended", tone: Tone::Waiting },
        }
    }
}

impl From<Outcome> for State {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success => Self::PASSED,
            Outcome::Failure => Self::FAILED,
            Outcome::TimedOut => Conclusion::TimedOut.into(),
            Outcome::Cancelled => Conclusion::Cancelled.into(),
            Outcome::Superseded => Self { sign: "⊘", word: "superseded", tone: Tone::Cancelled },
            Outcome::Skipped => Conclusion::Skipped.into(),
            Outcome::Infrastructure => Self::FAILED.renamed("infrastructure error"),
            Outcome::ActionRequired => Self::WAITS,
        }
    }
}

impl State {
    const fn renamed(self, word: &'static str) -> Self {
        Self { sign: self.sign, word, tone: self.tone }
    }
}

impl From<DeploymentState> for State {
    fn from(state: DeploymentState) -> Self {
        match state {
            DeploymentState::Pending => Self { sign: "○", word: "pending", tone: Tone::Waiting },
            DeploymentState::Queued => Self::QUEUED,
            DeploymentState::InProgress => Self::RUNNING.renamed("releasing"),
            DeploymentState::Success => Self::LIVE,
            DeploymentState::Failure => Self::FAILED,
            DeploymentState::Error => Self::FAILED.renamed("error"),
            DeploymentState::Inactive => Self { sign: "–", word: "inactive", tone: Tone::Waiting },
        }
    }
}

/// A commit: seven digits; a click copies all of them.
#[must_use]
pub fn sha(full: &str) -> Markup {
    #[derive(Template)]
    #[template(
        source = r#"<button type="button" class="sha" data-copy="{{ full }}" title="{{ full }} (click to copy)">{{ short }}</button>"#,
        ext = "html"
    )]
    struct ShaTag<'a> {
        full: &'a str,
        short: &'a str,
    }
    Markup::of(&ShaTag { full, short: short(full) })
}

/// A commit as a link: seven digits, all of them on hover.
#[must_use]
pub fn sha_link(full: &str, href: impl AsRef<str>) -> Markup {
    #[derive(Template)]
    #[template(source = r#"<a class="sha" href="{{ href }}" title="{{ full }}">{{ short }}</a>"#, ext = "html")]
    struct ShaLink<'a> {
        full: &'a str,
        short: &'a str,
        href: &'a str,
    }
    Markup::of(&ShaLink { full, short: short(full), href: href.as_ref() })
}

/// An address for a link: only the web and this site itself. Whatever else came from outside leads nowhere.
#[must_use]
pub fn href(address: &str) -> &str {
    let lower: String = address.chars().take(8).map(|c| c.to_ascii_lowercase()).collect();
    let own = address.starts_with('/') && !address.starts_with("//") && !address.starts_with("/\\");
    if own || address.starts_with('#') || lower.starts_with("http://") || lower.starts_with("https://") {
        address
    } else {
        "#"
    }
}

/// The first seven characters.
#[must_use]
pub fn short(sha: &str) -> &str {
    sha.char_indices().nth(7).map_or(sha, |(end, _)| &sha[..end])
}

/// A moment: absolute as the server writes it, relative once the script ran, absolute on hover.
#[must_use]
pub fn time(at: &Timestamp) -> Markup {
    #[derive(Template)]
    #[template(source = r#"<time datetime="{{ iso }}" title="{{ full }}">{{ shown }}</time>"#, ext = "html")]
    struct Time {
        iso: String,
        full: String,
        shown: String,
    }
    let utc = at.to_zoned(TimeZone::UTC);
    Markup::of(&Time {
        iso: utc.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        full: utc.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        shown: utc.strftime("%Y-%m-%d %H:%M UTC").to_string(),
    })
}

/// A moment within a story that all lies on one day: the time of day, the rest on hover.
#[must_use]
pub fn clock_time(at: &Timestamp) -> Markup {
    #[derive(Template)]
    #[template(
        source = r#"<time class="clock" datetime="{{ iso }}" title="{{ full }}">{{ shown }}</time>"#,
        ext = "html"
    )]
    struct Clock {
        iso: String,
        full: String,
        shown: String,
    }
    let utc = at.to_zoned(TimeZone::UTC);
    Markup::of(&Clock {
        iso: utc.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        full: utc.strftime("%Y-%m-%d %H:%M:%S%.3f UTC").to_string(),
        shown: utc.strftime("%H:%M:%S").to_string(),
    })
}

/// How long something took (or takes, while it runs: the script counts on from `since`).
#[must_use]
pub fn took(millis: u64, since: Option<Timestamp>) -> Markup {
    #[derive(Template)]
    #[template(
        source = r#"<span class="took"{% if let Some(since) = since %} data-since="{{ since }}"{% endif %}>{{ shown }}</span>"#,
        ext = "html"
    )]
    struct Took {
        since: Option<i64>,
        shown: String,
    }
    Markup::of(&Took { since: since.map(Timestamp::as_millisecond), shown: show::duration(millis) })
}

/// [`show::duration`] as templates call it: with a reference.
#[must_use]
pub fn duration(millis: &u64) -> String {
    show::duration(*millis)
}

/// The release line as HTML: a list of phases with both slots' rails; across on wide screens, downwards on narrow
/// ones.
#[must_use]
pub fn release_line(line: &ReleaseLine) -> Markup {
    #[derive(Template)]
    #[template(path = "release_line.html")]
    struct Line<'a> {
        line: &'a ReleaseLine,
        new_colour: &'static str,
        old_colour: &'static str,
        old_does: &'static str,
        new_does: &'static str,
        phases: Vec<(&'a PhaseMark, Rails, &'static str)>,
    }
    let does = |side: Side| match side {
        side if side == line.serves() => "answers",
        side if Some(side) == line.stands_by() => "stands by",
        _ => "",
    };
    let phases = line.phases.iter().zip(line.rails()).map(|(phase, rails)| {
        let turn = match rails.turn {
            Some(Side::New) => "to-new",
            Some(Side::Old) => "to-old",
            Some(Side::Nobody) | None => "",
        };
        (phase, rails, turn)
    });
    Markup::of(&Line {
        line,
        new_colour: line.new.colour.as_str(),
        old_colour: line.new.colour.other().as_str(),
        old_does: does(Side::Old),
        new_does: does(Side::New),
        phases: phases.collect(),
    })
}

//! How things are put for people, the same in checks, on pages and on the command line: durations, the release line,
//! the names of log lines.

use serde::{Deserialize, Serialize};

/// A duration rounded to what matters: `340 ms`, `3.4 s`, `34 s`, `2 m 10 s`, `1 h 5 m`, `2 d 3 h`.
#[must_use]
pub fn duration(millis: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    if millis < 1000 {
        return format!("{millis} ms");
    }
    if millis < 9_950 {
        let tenths = (millis + 50) / 100;
        return if tenths.is_multiple_of(10) {
            format!("{} s", tenths / 10)
        } else {
            format!("{}.{} s", tenths / 10, tenths % 10)
        };
    }
    let seconds = millis / 1000 + u64::from(millis % 1000 >= 500);
    let two = |big: u64, big_unit: &str, small: u64, small_unit: &str| {
        if small == 0 { format!("{big} {big_unit}") } else { format!("{big} {big_unit} {small} {small_unit}") }
    };
    match seconds {
        s if s < MINUTE => format!("{s} s"),
        s if s < HOUR => two(s / MINUTE, "m", s % MINUTE, "s"),
        s if s < DAY => two(s / HOUR, "h", s % HOUR / MINUTE, "m"),
        s => two(s / DAY, "d", s % DAY / HOUR, "h"),
    }
}

/// The name of a step on the log page. Line 120 of its log is `#NAME-L120` there, so a check can link to it.
#[must_use]
pub fn log_anchor(app: &str, step: &str) -> String {
    let slug = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect()
    };
    format!("{}-{}", slug(app), slug(step))
}

/// Which of the two colours a slot wears wherever it is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotColour {
    /// `#2563eb`
    Blue,
    /// `#16a34a`
    Green,
}

impl SlotColour {
    /// The word that stands beside the colour.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }
}

/// One of the two slots of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotMark {
    /// Its colour.
    pub colour: SlotColour,
    /// What runs in it, short: seven digits of a commit, or a release's name.
    pub label: String,
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Nobody yet: the first release.
    Nobody,
    /// The slot that was live before.
    Old,
    /// The slot of this release.
    New,
}

/// How far a phase is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseState {
    /// Not begun.
    Waiting,
    /// Going on.
    Running,
    /// Over, as it should.
    Done,
    /// Over, not as it should.
    Failed,
    /// Left out.
    Skipped,
}

impl PhaseState {
    /// The sign that stands before its time.
    #[must_use]
    pub fn sign(self) -> &'static str {
        match self {
            Self::Waiting => "○",
            Self::Running => "●",
            Self::Done => "✓",
            Self::Failed => "✗",
            Self::Skipped => "–",
        }
    }

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// One phase on the line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseMark {
    /// What it is called.
    pub name: String,
    /// How far it is.
    pub state: PhaseState,
    /// How long it took, or has taken so far, in milliseconds.
    pub millis: Option<u64>,
    /// Who answers when the phase is over.
    pub serves: Side,
    /// Whether the slot that does not answer stands too, ready to take over.
    pub spare: bool,
}

impl PhaseMark {
    /// A phase of `rollout.md` by its name: who serves and who stands by follow from it. `first` says that nothing
    /// was live before.
    #[must_use]
    pub fn of(name: &str, state: PhaseState, millis: Option<u64>, first: bool) -> Self {
        let lower = name.to_lowercase();
        let serves = match lower.as_str() {
            "switch" | "converge" | "watch" | "done" => Side::New,
            _ if first => Side::Nobody,
            _ => Side::Old,
        };
        let stands = !matches!(lower.as_str(), "approve" | "approve?" | "prepare");
        let spare = stands && !(first && serves == Side::New);
        Self { name: name.to_owned(), state, millis, serves, spare }
    }
}

/// A release drawn as one line: old slot, new slot, the switch between them, phases left to right with their times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseLine {
    /// What was live before; none for a first release.
    pub old: Option<SlotMark>,
    /// What this release brings.
    pub new: SlotMark,
    /// Its phases in order.
    pub phases: Vec<PhaseMark>,
}

/// What half a phase of a slot's rail looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rail {
    /// No slot there, or not so far yet.
    Blank,
    /// Stands and answers nothing.
    Spare,
    /// Answers.
    Serves,
}

impl Rail {
    /// Its class on pages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blank => "blank",
            Self::Spare => "spare",
            Self::Serves => "serves",
        }
    }
}

/// Both rails through one phase, each as its first and its second half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rails {
    /// The old slot's.
    pub old: (Rail, Rail),
    /// The new slot's.
    pub new: (Rail, Rail),
    /// Where the pointer moves in the middle of this phase, if it moves.
    pub turn: Option<Side>,
}

impl ReleaseLine {
    /// Who answers now: what the last phase that is over left behind.
    #[must_use]
    pub fn serves(&self) -> Side {
        let start = if self.old.is_some() { Side::Old } else { Side::Nobody };
        self.phases.iter().filter(|p| p.state == PhaseState::Done).map(|p| p.serves).next_back().unwrap_or(start)
    }

    /// The slot that stands and does not answer now, if there is one.
    #[must_use]
    pub fn stands_by(&self) -> Option<Side> {
        let reached =
            self.phases.iter().rev().find(|p| !matches!(p.state, PhaseState::Waiting | PhaseState::Skipped))?;
        match (reached.spare, self.serves()) {
            (false, _) => None,
            (true, Side::New) => self.old.as_ref().map(|_| Side::Old),
            (true, Side::Old | Side::Nobody) => Some(Side::New),
        }
    }

    /// The rails, phase by phase.
    #[must_use]
    pub fn rails(&self) -> Vec<Rails> {
        let mut now = if self.old.is_some() { Side::Old } else { Side::Nobody };
        let mut spare_now = false;
        let rail = |side: Side, serves: Side, spare: bool| match side {
            _ if side == serves => Rail::Serves,
            Side::Old if self.old.is_none() => Rail::Blank,
            _ if spare => Rail::Spare,
            _ => Rail::Blank,
        };
        let mut rails = Vec::with_capacity(self.phases.len());
        for phase in &self.phases {
            let half = |side, serves, spare| rail(side, serves, spare);
            match phase.state {
                PhaseState::Waiting => {
                    let blank = (Rail::Blank, Rail::Blank);
                    rails.push(Rails { old: blank, new: blank, turn: None });
                }
                PhaseState::Running => rails.push(Rails {
                    old: (half(Side::Old, now, spare_now || phase.spare), Rail::Blank),
                    new: (half(Side::New, now, spare_now || phase.spare), Rail::Blank),
                    turn: None,
                }),
                PhaseState::Failed | PhaseState::Skipped => {
                    let spare = if phase.state == PhaseState::Failed { phase.spare } else { spare_now };
                    let both = |side| (half(side, now, spare), half(side, now, spare));
                    rails.push(Rails { old: both(Side::Old), new: both(Side::New), turn: None });
                    spare_now = spare;
                }
                PhaseState::Done => {
                    let turns = now != phase.serves;
                    // A slot that takes over stood there before.
                    let first = spare_now || phase.spare || turns;
                    rails.push(Rails {
                        old: (half(Side::Old, now, first), half(Side::Old, phase.serves, phase.spare)),
                        new: (half(Side::New, now, first), half(Side::New, phase.serves, phase.spare)),
                        turn: turns.then_some(phase.serves),
                    });
                    (now, spare_now) = (phase.serves, phase.spare);
                }
            }
        }
        rails
    }
}

/// The release line in plain text, for check summaries (in a code block), terminals and messages. The thick rail is
/// the slot that answers.
#[must_use]
pub fn release_line_text(line: &ReleaseLine) -> String {
    let who = |slot: &SlotMark| format!("{:<5}  {}", slot.colour.as_str(), slot.label);
    let (old_who, new_who) = (line.old.as_ref().map_or_else(String::new, who), who(&line.new));
    let margin = old_who.chars().count().max(new_who.chars().count()) + 2;
    let mut rows = ["", "", &old_who, &new_who].map(|start| pad(start, margin));
    for (phase, rails) in line.phases.iter().zip(line.rails()) {
        let time = match phase.millis {
            Some(ms) => format!("{} {}", phase.state.sign(), duration(ms)),
            None => phase.state.sign().to_owned(),
        };
        let width = phase.name.chars().count().max(time.chars().count()) + 2;
        rows[0].push_str(&pad(&phase.name, width));
        rows[1].push_str(&pad(&time, width));
        let corner = |top: bool| match rails.turn {
            Some(Side::New) if line.old.is_none() => (!top).then_some('╺'),
            Some(Side::New) => Some(if top { '┓' } else { '┗' }),
            Some(Side::Old) => Some(if top { '┏' } else { '┛' }),
            Some(Side::Nobody) | None => None,
        };
        for (row, (left, right), corner) in [(2, rails.old, corner(true)), (3, rails.new, corner(false))] {
            let glyph = |rail| match rail {
                Rail::Blank => ' ',
                Rail::Spare => '╌',
                Rail::Serves => '━',
            };
            let middle = width / 2;
            rows[row].extend((0..width).map(|i| match i {
                i if i < middle => glyph(left),
                i if i == middle => corner.unwrap_or(glyph(right)),
                _ => glyph(right),
            }));
        }
    }
    let rows = if line.old.is_some() { &rows[..] } else { &[rows[0].clone(), rows[1].clone(), rows[3].clone()][..] };
    rows.iter().map(|row| row.trim_end()).collect::<Vec<_>>().join("\n")
}

fn pad(text: &str, width: usize) -> String {
    let mut padded = text.to_owned();
    padded.extend(std::iter::repeat_n(' ', width.saturating_sub(text.chars().count())));
    padded
}

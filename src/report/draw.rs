//! The release as one line, in text: old slot, new slot, the switch between them, phases with times.

use super::{
    text::{between, duration, moment, one_line},
    view::{PhaseView, RolloutState, RolloutView},
};

/// Draws it. Two rows where something served before, else one.
pub(super) fn release(rollout: &RolloutView) -> String {
    let switch = rollout.switched_at;
    let is_before = |phase: &&PhaseView| switch.is_none_or(|at| phase.started < at || phase.name == "Switch");
    // Ends are drawn by the state, not as a phase.
    let is_end =
        |phase: &&PhaseView| ["Done", "RolledBack", "Failed", "Cancelled", "Stuck"].contains(&phase.name.as_str());
    let is_back = |phase: &&PhaseView| phase.name == "RollingBack";
    let words = |phases: Vec<&PhaseView>| -> String { phases.into_iter().map(phase).collect::<Vec<_>>().join(" · ") };
    let before =
        words(rollout.phases.iter().filter(|p| !is_end(p)).filter(is_before).filter(|p| !is_back(p)).collect());
    let after =
        words(rollout.phases.iter().filter(|p| !is_end(p)).filter(|p| !is_before(p)).filter(|p| !is_back(p)).collect());
    let back = words(rollout.phases.iter().filter(|p| !is_end(p)).filter(is_back).collect());
    let new_name = one_line(&rollout.slot, 40);
    let old_name = rollout.previous.as_ref().map(|p| one_line(&p.slot, 40));
    let width =
        [Some(&new_name), old_name.as_ref()].into_iter().flatten().map(|n| n.chars().count()).max().unwrap_or(0);
    let label = |name: &str| format!("{name}{}", " ".repeat(width - name.chars().count()));

    let mut new_row = format!("{}  {before}", label(&new_name));
    let mut old_row = label(old_name.as_deref().unwrap_or_default());
    old_row.push_str("  ");
    let line = |row: &mut String, to: usize| {
        let length = row.chars().count();
        row.push_str(&"━".repeat(to.saturating_sub(length)));
    };
    let ends_back = matches!(rollout.state, RolloutState::RollingBack | RolloutState::RolledBack);
    if switch.is_some() {
        new_row.push(' ');
        let at = new_row.chars().count();
        new_row.push_str("┗━ ");
        line(&mut old_row, at);
        old_row.push('┓');
        new_row.push_str(&after);
        let mark = match rollout.state {
            RolloutState::Live => "live",
            RolloutState::Replaced => "replaced",
            RolloutState::Stuck => "stuck",
            _ => "",
        };
        if ends_back {
            new_row.push_str(if after.is_empty() { "━┛ " } else { " ━┛ " });
            let turn = new_row.chars().count() - 2;
            let gap = turn.saturating_sub(old_row.chars().count());
            old_row.push_str(&" ".repeat(gap));
            old_row.push_str("┏━ live");
            new_row.push_str(if back.is_empty() { "taken back" } else { &back });
        } else {
            if !mark.is_empty() {
                new_row.push_str(if after.is_empty() { "" } else { " ━ " });
                new_row.push_str(mark);
            }
            if let Some(until) = rollout.keep_previous_until.filter(|_| rollout.state == RolloutState::Live) {
                old_row.push_str(&format!(" kept warm until {}", moment(until)));
            }
        }
    } else {
        let to = new_row.chars().count();
        line(&mut old_row, to.max(width + 12));
        old_row.push_str(" live");
        let word = match rollout.state {
            RolloutState::Queued => "waits",
            RolloutState::WaitingForApproval => "waits for a yes",
            RolloutState::Failed | RolloutState::RolledBack => "✗ never switched to",
            RolloutState::Cancelled | RolloutState::Superseded => "⊘ called off",
            RolloutState::Infrastructure => "⊘ broken off",
            RolloutState::Stuck => "stuck",
            RolloutState::Live => "live",
            RolloutState::Replaced => "replaced",
            RolloutState::Running | RolloutState::RollingBack => "…",
        };
        new_row.push_str(&format!("{}{word}", if before.is_empty() { "" } else { " · " }));
    }
    match old_name {
        Some(_) => format!("{}\n{}", old_row.trim_end(), new_row.trim_end()),
        None => new_row.trim_end().to_owned(),
    }
}

fn phase(phase: &PhaseView) -> String {
    let name = one_line(&phase.name, 30);
    match phase.finished {
        Some(end) => format!("{name} {}", duration(between(phase.started, end))),
        None => name,
    }
}

//! Looking at processes through `/proc` (proc(5)).

use std::{collections::HashMap, fs, os::unix::ffi::OsStrExt, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getpgid},
};

fn all() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok())
}

/// The parent, from `/proc/PID/stat`: the second field after the name, which stands in brackets and may hold anything.
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after = &stat[stat.iter().rposition(|b| *b == b')')? + 1..];
    std::str::from_utf8(after).ok()?.split_whitespace().nth(1)?.parse().ok()
}

/// Everything that descends from `root`, without itself.
pub(crate) fn descendants(root: Pid) -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for pid in all() {
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut todo = vec![root.as_raw()];
    while let Some(pid) = todo.pop() {
        // Taken out, so that numbers which were given out anew meanwhile can't make a circle.
        let below = children.remove(&pid).unwrap_or_default();
        found.extend(below.iter().copied().map(Pid::from_raw));
        todo.extend(below);
    }
    found
}

/// Whether the process is in that group.
pub(crate) fn in_group(pid: Pid, group: Pid) -> bool {
    getpgid(Some(pid)) == Ok(group)
}

/// Kills processes whose `HOME` is `home` or below it: those of a step whose supervisor was killed. Answers how many.
pub(crate) fn kill_by_home(home: &Path) -> usize {
    let me = Pid::this().as_raw();
    let belongs = |pid: &i32| {
        let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return false };
        environment
            .split(|b| *b == 0)
            .find_map(|entry| entry.strip_prefix(b"HOME="))
            .is_some_and(|value| Path::new(std::ffi::OsStr::from_bytes(value)).starts_with(home))
    };
    let mut count = 0;
    // What forks while we look is seen in the next round.
    for _ in 0..100 {
        let found: Vec<i32> = all().filter(|pid| *pid != me).filter(belongs).collect();
        if found.is_empty() {
            break;
        }
        for pid in found {
            count += usize::from(kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok());
        }
    }
    count
}

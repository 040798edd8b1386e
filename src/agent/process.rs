//! Processes of the host: started in a group of their own, recognised again by a later agent, ended with their group.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::{fd::OwnedFd, unix::process::CommandExt as _, unix::process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use rustix::process::{Pid as RawPid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use tokio::io::{Interest, unix::AsyncFd};

use super::protocol::ProcessSpec;

/// Output of one copy before it is rotated, in bytes.
const LOG_LIMIT: u64 = 10 * 1024 * 1024;
/// The end of the output that is looked at for the last lines, in bytes.
const TAIL: u64 = 16 * 1024;
const TAIL_LINES: usize = 30;
const TAIL_LINE_CHARS: usize = 500;
/// How often a group without its leader is looked at; the kernel has no event for an empty group.
const GROUP_LOOK: Duration = Duration::from_millis(20);

/// A process for certain: its number may be given out again, but not with the same start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct ProcId {
    pub pid: u32,
    /// Clock ticks since boot, field 22 of `/proc/PID/stat` (proc(5)).
    pub start: u64,
}

/// What `/proc/PID/stat` says.
struct Stat {
    zombie: bool,
    group: u32,
    start: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name stands in brackets and may itself hold brackets and spaces.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    Some(Stat {
        zombie: matches!(*fields.first()?, "Z" | "X"),
        group: fields.get(2)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

impl ProcId {
    fn of(pid: u32) -> Option<Self> {
        stat(pid).map(|s| Self { pid, start: s.start })
    }

    fn lives(self) -> bool {
        stat(self.pid).is_some_and(|s| s.start == self.start && !s.zombie)
    }
}

/// The kernel's name for this boot.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Where a copy's output goes.
pub(super) fn log_path(spec: &ProcessSpec, index: usize) -> PathBuf {
    spec.log_dir.join(format!("{index}.log"))
}

/// A living process of ours, whether this agent started it or an earlier one.
#[derive(Debug)]
pub(super) struct Process {
    pub id: ProcId,
    pidfd: AsyncFd<OwnedFd>,
    /// Set when it is our child: only then its exit status is known and must be collected.
    child: Option<Child>,
    /// Length of the log when it began.
    log_start: u64,
}

#[expect(
    deprecated,
    reason = "its successor is unsafe, for types whose descriptor may change; an OwnedFd keeps its own until it is dropped"
)]
fn watch(pid: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let raw = i32::try_from(pid).ok().and_then(RawPid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    AsyncFd::with_interest(pidfd_open(raw, PidfdFlags::empty())?, Interest::READABLE)
}

fn group(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))
}

impl Process {
    /// Starts a copy. Its output goes straight to the file: a pipe would break when the agent dies.
    pub(super) fn spawn(spec: &ProcessSpec, index: usize, port: Option<u16>) -> io::Result<Self> {
        let (program, args) = spec.argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        fs::create_dir_all(&spec.log_dir)
            .map_err(|e| io::Error::new(e.kind(), format!("log folder {}: {e}", spec.log_dir.display())))?;
        let path = log_path(spec, index);
        // Nobody writes to it now, so nothing is lost by moving it.
        if fs::metadata(&path).is_ok_and(|m| m.len() > LOG_LIMIT) {
            fs::rename(&path, path.with_extension("log.1"))?;
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(&path)?;
        let log_start = log.metadata()?.len();
        if !spec.cwd.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no folder {}", spec.cwd.display())));
        }
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(&spec.env).current_dir(&spec.cwd).process_group(0);
        if let Some(port) = port {
            command.env("PORT", port.to_string());
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn().map_err(|e| io::Error::new(e.kind(), format!("{program}: {e}")))?;
        let pid = child.id();
        match (watch(pid), ProcId::of(pid)) {
            (Ok(pidfd), Some(id)) => Ok(Self { id, pidfd, child: Some(child), log_start }),
            (pidfd, _) => {
                let _ = killpg(group(pid), Signal::SIGKILL);
                let _ = child.wait();
                Err(pidfd.err().unwrap_or_else(|| io::Error::other("/proc does not show it")))
            }
        }
    }

    /// Takes over a process that an earlier agent started.
    pub(super) fn adopt(id: ProcId) -> Option<Self> {
        let pidfd = watch(id.pid).ok()?;
        // Looked at after the descriptor is open: from here on the number can't mean another one.
        id.lives().then_some(Self { id, pidfd, child: None, log_start: 0 })
    }

    /// Returns when the process has ended.
    pub(super) async fn ended(&self) {
        // An error would mean that the runtime is going down.
        let _ = self.pidfd.readable().await;
    }

    /// To be called after [`Process::ended`]: ends what is left of the group and says how the process ended.
    fn collect(&mut self) -> String {
        match &mut self.child {
            Some(child) => child.wait().map_or_else(|e| format!("unknown: {e}"), words),
            None => "ended; how is unknown, since an earlier agent had started it".to_owned(),
        }
    }

    /// After a crash: whatever it left behind in its group would hold its port.
    pub(super) fn clear_group(mut self) -> String {
        // While our child is not collected its number can't be given out again.
        let _ = killpg(group(self.id.pid), Signal::SIGKILL);
        self.collect()
    }

    /// TERM to the group, a time to end well, KILL to the group.
    pub(super) async fn stop(mut self, grace: Duration) -> String {
        let deadline = Instant::now() + grace;
        let whole = group(self.id.pid);
        let _ = killpg(whole, Signal::SIGTERM);
        if tokio::time::timeout(grace, self.ended()).await.is_err() {
            let _ = killpg(whole, Signal::SIGKILL);
            self.ended().await;
        }
        let how = self.collect();
        // Others of the group may still be answering their last request.
        while killpg(whole, None) != Err(Errno::ESRCH) {
            if Instant::now() >= deadline {
                let _ = killpg(whole, Signal::SIGKILL);
                break;
            }
            tokio::time::sleep(GROUP_LOOK).await;
        }
        how
    }

    /// The last lines it printed.
    pub(super) fn last_output(&self, log: &Path) -> Vec<String> {
        tail(log, self.log_start).unwrap_or_default()
    }
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn tail(log: &Path, from: u64) -> io::Result<Vec<String>> {
    let mut file = fs::File::open(log)?;
    let len = file.metadata()?.len();
    // A log shorter than at the start was rotated since.
    let from = if len < from { 0 } else { from };
    file.seek(SeekFrom::Start(from.max(len.saturating_sub(TAIL))))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<String> =
        text.lines().rev().take(TAIL_LINES).map(|l| l.chars().take(TAIL_LINE_CHARS).collect()).collect();
    lines.reverse();
    Ok(lines)
}

/// Keeps the log of a living copy below its limit. The writer keeps its descriptor, so the content is copied away
/// and the file cut; what is written between the two is lost.
pub(super) fn rotate(log: &Path) -> io::Result<()> {
    match fs::metadata(log) {
        Ok(m) if m.len() > LOG_LIMIT => {
            fs::copy(log, log.with_extension("log.1"))?;
            fs::OpenOptions::new().write(true).open(log)?.set_len(0)
        }
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Processes whose output goes to one of the logs, by log: what an agent started and was killed before it wrote down.
#[derive(Debug, Default)]
pub(super) struct Strays(HashMap<PathBuf, Vec<(u32, Option<ProcId>)>>);

impl Strays {
    /// Looks through `/proc` once.
    pub(super) fn find() -> Self {
        let mut found: HashMap<PathBuf, Vec<(u32, Option<ProcId>)>> = HashMap::new();
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in pids.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok()) {
            let Ok(out) = fs::read_link(format!("/proc/{pid}/fd/1")) else { continue };
            let Some(stat) =
                stat(pid).filter(|s| !s.zombie && out.extension().is_some_and(|x| x == "log") && s.group > 1)
            else {
                continue;
            };
            let leader = (stat.group == pid).then_some(ProcId { pid, start: stat.start });
            found.entry(out).or_default().push((stat.group, leader));
        }
        Self(found)
    }

    /// The leader of a group that writes to this log, to be adopted; groups beside it are ended.
    pub(super) fn take(&mut self, log: &Path) -> Option<ProcId> {
        let folder = fs::canonicalize(log.parent()?).ok()?;
        let groups = self.0.remove(&folder.join(log.file_name()?))?;
        let leader = groups.iter().find_map(|(_, leader)| *leader);
        for (pgid, _) in groups {
            if leader.is_none_or(|l| l.pid != pgid) {
                let _ = killpg(group(pgid), Signal::SIGKILL);
            }
        }
        leader
    }
}

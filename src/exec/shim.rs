//! The supervisor of one step: `switchover step-shim`, a small process between the server and the step.
//!
//! It reads one line of JSON ([`Order`]) on standard input, runs the step in a process group of its own, writes its
//! log, and prints one line of JSON ([`Said`]) when the step has begun and one when it has ended. It is the child
//! subreaper of everything that the step starts (prctl(2), `PR_SET_CHILD_SUBREAPER`), so nothing can leave it: at the
//! end it kills what is left, wherever it went. When standard input ends, which it does when the server dies, however
//! it dies, the step is ended as if it had been cancelled. `cancel` on a line of its own does that too.
//!
//! One thread, one `poll`: to be called before any other thread is started or file is opened.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::{fd::AsFd, unix::process::CommandExt},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        resource::{UsageWho, getrusage},
        signal::{SigSet, Signal, kill, killpg},
        signalfd::{SfdFlags, SignalFd},
        time::TimeValLike,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, setsid},
};
use serde::{Deserialize, Serialize};

use super::{files::Lock, log::LogWriter, processes};
use crate::domain::run::{StepEnd, StepResult};

/// What the server wants to have run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// For `sh -e -c`.
    pub command: String,
    /// Where.
    pub cwd: PathBuf,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Milliseconds until it is ended.
    pub timeout_ms: u64,
    /// Milliseconds between TERM and KILL.
    pub grace_ms: u64,
    /// Where its output goes.
    pub log: PathBuf,
    /// How many bytes of it are kept.
    pub output_limit: u64,
    /// A file that is locked (shared) as long as anything of the step lives.
    pub hold: Option<PathBuf>,
}

/// What the supervisor says, one JSON object a line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// The step has begun, in the process group of this number.
    Began(i32),
    /// The step has ended, and nothing of it lives.
    Ended(StepResult),
}

/// How long the last processes may take to vanish once they are killed. Longer only if the kernel holds them.
const VANISH: Duration = Duration::from_secs(30);

/// The program. Everything that goes wrong before the step begins is its result, not a crash.
#[must_use]
pub fn shim_main() -> ExitCode {
    close_inherited();
    let Some((line, early)) = first_line() else { return ExitCode::SUCCESS };
    let order: Order = match serde_json::from_slice(&line) {
        Ok(order) => order,
        Err(e) => {
            eprintln!("step-shim: this is run by the server, not by people: {e}");
            return ExitCode::from(2);
        }
    };
    match supervise(&order, early) {
        Ok(result) => say(&Said::Ended(result)),
        Err(e) => {
            let now = crate::clock::now();
            say(&Said::Ended(StepResult {
                end: StepEnd::NotStarted(e),
                started_at: now,
                finished_at: now,
                cpu_ms: 0,
                peak_bytes: 0,
                output_bytes: 0,
                truncated: false,
            }))
        }
    }
    ExitCode::SUCCESS
}

/// The order, and whether it was taken back in the same breath. None when the server died over it.
fn first_line() -> Option<(Vec<u8>, bool)> {
    let mut all = Vec::new();
    let mut buffer = [0_u8; 16 * 1024];
    loop {
        match nix::unistd::read(io::stdin(), &mut buffer) {
            Ok(0) => return None,
            Ok(n) => all.extend_from_slice(&buffer[..n]),
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
        if let Some(end) = all.iter().position(|b| *b == b'\n') {
            let rest = all.split_off(end);
            return Some((all, is_cancel(&rest)));
        }
    }
}

fn is_cancel(bytes: &[u8]) -> bool {
    bytes.windows(6).any(|w| w == b"cancel")
}

/// Files that whoever started us forgot to close. Ours are all opened later.
fn close_inherited() {
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")
        .map(|dir| dir.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect())
        .unwrap_or_default();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        let _ = nix::unistd::close(fd);
    }
}

fn say(said: &Said) {
    let mut out = io::stdout().lock();
    // Nobody listens when the server is dead.
    let _ = serde_json::to_writer(&mut out, said).map_err(io::Error::from).and_then(|()| out.write_all(b"\n"));
    let _ = out.flush();
}

/// Why the step is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Timeout,
    Cancel,
}

struct Step {
    leader: Pid,
    status: Option<WaitStatus>,
    ending: Option<(Reason, Instant)>,
    grace: Duration,
}

fn supervise(order: &Order, mut cancel: bool) -> Result<StepResult, String> {
    let place = |what: &str, e: &dyn std::fmt::Display| format!("{what}: {e}");
    // Already a leader: not so when the server started us in a group of our own.
    let _ = setsid();
    prctl::set_child_subreaper(true).map_err(|e| place("becoming the subreaper", &e))?;
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        mask.add(signal);
    }
    let _hold = order.hold.as_deref().map(Lock::shared).transpose().map_err(|e| place("locking the workspace", &e))?;
    if server_is_gone() {
        return Err("the server is gone".into());
    }
    if let Some(folder) = order.log.parent() {
        fs::create_dir_all(folder).map_err(|e| place(&format!("making {}", folder.display()), &e))?;
    }
    let file = File::create(&order.log).map_err(|e| place(&format!("writing {}", order.log.display()), &e))?;
    let mut log = LogWriter::new(file, order.output_limit);

    let (mut output, theirs) = io::pipe().map_err(|e| place("making a pipe", &e))?;
    let both = theirs.try_clone().map_err(|e| place("making a pipe", &e))?;
    let (started_at, start) = (crate::clock::now(), Instant::now());
    SigSet::empty().thread_set_mask().map_err(|e| place("signals", &e))?;
    // `process_group(0)`: a group of its own, so that one signal reaches the shell and its children.
    let spawned = Command::new("sh")
        .args(["-e", "-c", &order.command])
        .current_dir(&order.cwd)
        .env_clear()
        .envs(order.env.iter().map(|(n, v)| (n, v)))
        .stdin(Stdio::null())
        .stdout(theirs)
        .stderr(both)
        .process_group(0)
        .spawn();
    mask.thread_block().map_err(|e| place("signals", &e))?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(|e| place("signals", &e))?;
    let child = spawned.map_err(|e| format!("sh in {}: {e}", order.cwd.display()))?;
    let leader = Pid::from_raw(child.id().cast_signed());
    // When memory runs out, the step goes first and not the server.
    let _ = fs::write(format!("/proc/{leader}/oom_score_adj"), "500");
    say(&Said::Began(leader.as_raw()));
    unblock(&output).map_err(|e| place("pipe", &e))?;
    unblock(&io::stdin()).map_err(|e| place("standard input", &e))?;

    let deadline = start.checked_add(Duration::from_millis(order.timeout_ms));
    let mut step = Step { leader, status: None, ending: None, grace: Duration::from_millis(order.grace_ms) };
    let (mut listening, mut printing) = (true, true);
    let ms = || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    loop {
        let next = [step.ending.map(|(_, at)| at + step.grace), deadline.filter(|_| step.ending.is_none())];
        let wait = next.into_iter().flatten().min().map(|at| at.saturating_duration_since(Instant::now()));
        let (out, told) = wait_for(&signals, printing.then_some(&output), listening, wait);
        if out {
            printing = drain(&mut output, &mut log, ms());
        }
        if told {
            let (word, gone) = hear();
            listening = !gone;
            cancel |= word || gone;
        }
        if cancel && step.ending.is_none() {
            let _ = log.note(if listening { "cancelled; ending" } else { "the server is gone; ending" }, ms());
            step.end(Reason::Cancel);
        }
        while let Ok(Some(_)) = signals.read_signal() {}
        let none_left = step.reap();
        if step.status.is_some() && (step.ending.is_none() || none_left) {
            break;
        }
        if step.ending.is_none() && deadline.is_some_and(|d| Instant::now() >= d) {
            let _ = log.note(&format!("the time limit of {} s is reached; ending", order.timeout_ms / 1000), ms());
            step.end(Reason::Timeout);
        }
        if step.ending.is_some_and(|(_, at)| Instant::now() >= at + step.grace) {
            break;
        }
    }
    let gone = step.kill_all();
    drain(&mut output, &mut log, ms());
    if !gone {
        let _ = log.note("some processes of this step can't be killed", ms());
    }
    let _ = log.finish(ms());
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|e| place("reading usage", &e))?;
    let cpu = (usage.user_time() + usage.system_time()).num_milliseconds();
    Ok(StepResult {
        end: step.verdict(),
        started_at,
        finished_at: crate::clock::now(),
        cpu_ms: u64::try_from(cpu).unwrap_or(0),
        peak_bytes: u64::try_from(usage.max_rss()).unwrap_or(0).saturating_mul(1024),
        output_bytes: log.printed(),
        truncated: log.truncated(),
    })
}

impl Step {
    fn end(&mut self, why: Reason) {
        self.ending = Some((why, Instant::now()));
        let _ = killpg(self.leader, Signal::SIGTERM);
        for pid in processes::descendants(Pid::this()) {
            if !processes::in_group(pid, self.leader) {
                let _ = kill(pid, Signal::SIGTERM);
            }
        }
    }

    /// Buries the dead; answers whether no child is left.
    fn reap(&mut self) -> bool {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return false,
                Ok(status) if status.pid() == Some(self.leader) => self.status = Some(status),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return true,
            }
        }
    }

    /// Kills everything below us until nothing is there. What forks meanwhile is stopped first, so that it can't go on.
    fn kill_all(&mut self) -> bool {
        let begin = Instant::now();
        while !self.reap() {
            if begin.elapsed() > VANISH {
                return false;
            }
            let mut stopped = Vec::new();
            loop {
                let fresh: Vec<Pid> =
                    processes::descendants(Pid::this()).into_iter().filter(|p| !stopped.contains(p)).collect();
                if fresh.is_empty() || stopped.len() > 100_000 {
                    break;
                }
                for pid in fresh {
                    let _ = kill(pid, Signal::SIGSTOP);
                    stopped.push(pid);
                }
            }
            for pid in stopped {
                let _ = kill(pid, Signal::SIGKILL);
            }
            // Until the next one dies; SIGCHLD is blocked, so it stays pending if it came already.
            let _ = poll(&mut [], PollTimeout::from(2_u8));
        }
        true
    }

    fn verdict(&self) -> StepEnd {
        match (self.ending, self.status) {
            (Some((Reason::Timeout, _)), _) => StepEnd::TimedOut,
            (Some((Reason::Cancel, _)), _) => StepEnd::Cancelled,
            (None, Some(WaitStatus::Exited(_, code))) => StepEnd::Exited(code),
            (None, Some(WaitStatus::Signaled(_, signal, _))) => StepEnd::Signalled(signal as i32),
            (None, _) => StepEnd::NotStarted("its process was lost".into()),
        }
    }
}

fn server_is_gone() -> bool {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let _ = poll(&mut fds, PollTimeout::ZERO);
    fds[0].revents().is_some_and(|r| r.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL))
}

fn unblock(fd: &impl AsFd) -> nix::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

/// Waits for a dead child, output, a word from the server, or the time. Answers whether there is output or a word.
fn wait_for(
    signals: &SignalFd,
    output: Option<&io::PipeReader>,
    listening: bool,
    wait: Option<Duration>,
) -> (bool, bool) {
    let stdin = io::stdin();
    let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    fds.extend(output.map(|output| PollFd::new(output.as_fd(), PollFlags::POLLIN)));
    if listening {
        fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
    }
    // Rounded up, so that the time has come when it returns.
    let timeout = wait.map_or(PollTimeout::NONE, |w| {
        i32::try_from(w.as_millis() + 1).ok().and_then(|ms| PollTimeout::try_from(ms).ok()).unwrap_or(PollTimeout::MAX)
    });
    let _ = poll(&mut fds, timeout);
    let ready = |n: usize| fds.get(n).and_then(PollFd::revents).is_some_and(|r| !r.is_empty());
    let at = 1 + usize::from(output.is_some());
    (output.is_some() && ready(1), listening && ready(at))
}

/// Takes what is there now, a share at a time, so that a step that prints for ever does not keep us from the clock.
/// Answers whether there may be more.
fn drain(output: &mut io::PipeReader, log: &mut LogWriter<File>, ms: u64) -> bool {
    let mut buffer = [0_u8; 64 * 1024];
    for _ in 0..64 {
        match output.read(&mut buffer) {
            Ok(0) => return false,
            Ok(n) => {
                // A full disk must not end the step; the bytes are counted.
                let _ = log.feed(&buffer[..n], ms);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
        }
    }
    true
}

/// What the server says: to cancel, or nothing ever more.
fn hear() -> (bool, bool) {
    let mut buffer = [0_u8; 256];
    match nix::unistd::read(io::stdin(), &mut buffer) {
        Ok(0) => (false, true),
        Ok(n) => (is_cancel(&buffer[..n]), false),
        Err(Errno::EAGAIN | Errno::EINTR) => (false, false),
        Err(_) => (false, true),
    }
}

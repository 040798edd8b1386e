//! Executor `local`: steps as processes on the server's own host, each under its supervisor ([`super::shim`]).

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use indexmap::IndexMap;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    process::{ChildStdout, Command},
};
use tokio_util::sync::CancellationToken;

use super::{
    host::HostEnv,
    processes,
    shim::{Order, Said},
};
use crate::{
    cluster::Fault,
    docker::{DockerError, pull::PullError},
    domain::{
        config::{Resources, Service},
        run::StepResult,
    },
};

/// What an executor is asked to run.
#[derive(Debug, Clone)]
pub struct StepSpec {
    /// Shell command, run by `sh -e -c`.
    pub command: String,
    /// Folder that it runs in.
    pub cwd: PathBuf,
    /// Its environment, over that which every step has: `PATH`, `HOME`, `TMPDIR`, `LANG`, `USER`, `CI`.
    pub env: Vec<(String, String)>,
    /// Its own home folder, fresh for each job. Steps of different jobs never share one.
    pub home: PathBuf,
    /// How long it may take.
    pub timeout: Duration,
    /// How long it may take to end itself after TERM.
    pub grace: Duration,
    /// File that its output goes to, in the format of [`super::log`].
    pub log: PathBuf,
    /// How many bytes of output are kept.
    pub output_limit: u64,
    /// File that is locked as long as anything of it lives: [`super::git::Workspace::steps_lock`].
    pub hold: Option<PathBuf>,
    /// What it needs where it runs in a container; the executor of this host does not look at it.
    pub container: Option<ContainerStep>,
}

/// What a step needs where it runs in a container.
#[derive(Debug, Clone)]
pub struct ContainerStep {
    /// Its image, as people write it. None: the executor can't know one, and says so.
    pub image: Option<String>,
    /// Companions by host name.
    pub services: IndexMap<String, Service>,
    /// CPU and memory asked for.
    pub resources: Resources,
    /// The checked-out repository; [`StepSpec::cwd`] lies in it. Of the server's own files nothing else is to be seen but
    /// the home and the caches.
    pub workspace: PathBuf,
    /// Where links from the workspace and the home lead to (caches).
    pub caches: Vec<PathBuf>,
    /// The repository's mirror, which the workspace's `.git` leads to; it is seen, not written. None: git has nothing to
    /// work on.
    pub mirror: Option<PathBuf>,
    /// The repository, `owner/name`: which of the operator's logins may be used for its images.
    pub repository: String,
    /// Of one job: names what belongs together in labels.
    pub job: String,
}

/// Output that is kept of a step, if nobody says otherwise.
pub const OUTPUT_LIMIT: u64 = 50 * 1024 * 1024;

/// Why there is no result. None of it is the fault of the step's author.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// Our own binary could not be started.
    #[error("the supervisor {exe} could not be started: {source}")]
    Supervisor {
        /// Which.
        exe: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It ended without a word, killed from outside; what was left of the step was killed.
    #[error("the step's supervisor was lost ({0}); the step was ended")]
    Lost(String),
    /// The step can't be described to the supervisor.
    #[error("{0}")]
    Spec(String),
    /// The engine was lost, or refused what has nothing to do with the step.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// Its image can't be had for now.
    #[error("{0}")]
    Image(Arc<PullError>),
    /// The cluster refused, or does not answer.
    #[error("the cluster, {doing}: {}", fault.words())]
    Cluster {
        /// What was asked.
        doing: String,
        /// What it said, or what became of the connection.
        fault: Fault,
    },
    /// Its pod was taken away: eviction, preemption, the end of its node, somebody's hand.
    #[error("the step's pod was lost: {0}")]
    PodLost(String),
}

/// Runs steps.
pub trait Executor: Send + Sync {
    /// Runs one step to its end. Cancelled or dropped, the step is ended: TERM, its grace, KILL of all that it started.
    ///
    /// # Errors
    /// [`ExecError`]: ours or the machine's fault. A command that fails is a result.
    fn run<'a>(&'a self, spec: &'a StepSpec, cancel: CancellationToken)
    -> BoxFuture<'a, Result<StepResult, ExecError>>;
}

/// Runs steps on this host.
#[derive(Debug, Clone)]
pub struct LocalExecutor {
    exe: PathBuf,
    host: HostEnv,
}

impl LocalExecutor {
    /// `exe` is the `switchover` binary, which has the subcommand `step-shim`.
    #[must_use]
    pub fn new(exe: PathBuf) -> Self {
        Self::with_host(exe, HostEnv::of_process().clone())
    }

    /// The same with what steps see of the host chosen by the caller.
    #[must_use]
    pub fn with_host(exe: PathBuf, host: HostEnv) -> Self {
        Self { exe, host }
    }

    /// Ends what is left of steps whose homes lie below `homes`. For the start of the server, when no step of its own
    /// runs yet: after a crash in which the supervisors died too.
    pub async fn end_strays(&self, homes: &Path) -> usize {
        let homes = homes.to_owned();
        tokio::task::spawn_blocking(move || processes::kill_by_home(&homes)).await.unwrap_or(0)
    }

    fn environment(&self, spec: &StepSpec) -> Result<Vec<(String, String)>, ExecError> {
        let text = |what: &str, value: &std::ffi::OsStr| {
            value.to_str().map(str::to_owned).ok_or_else(|| ExecError::Spec(format!("{what} is no UTF-8: {value:?}")))
        };
        let home = text("the home folder", spec.home.as_os_str())?;
        let mut env = vec![
            ("PATH".to_owned(), text("PATH", &self.host.path)?),
            ("TMPDIR".to_owned(), format!("{home}/tmp")),
            ("HOME".to_owned(), home),
            ("USER".to_owned(), text("USER", &self.host.user)?),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("CI".to_owned(), "true".to_owned()),
        ];
        if let Some(rustup) = &self.host.rustup_home {
            env.push(("RUSTUP_HOME".to_owned(), text("RUSTUP_HOME", rustup.as_os_str())?));
        }
        for (name, value) in &spec.env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(ExecError::Spec(format!("{name:?} can't be in an environment: no '=' and no NUL there")));
            }
            env.retain(|(n, _)| n != name);
            env.push((name.clone(), value.clone()));
        }
        Ok(env)
    }

    async fn supervise(&self, spec: &StepSpec, cancel: CancellationToken) -> Result<StepResult, ExecError> {
        let env = self.environment(spec)?;
        let tmp = spec.home.join("tmp");
        tokio::fs::create_dir_all(&tmp).await.map_err(|e| ExecError::Spec(format!("making {}: {e}", tmp.display())))?;
        let order = Order {
            command: spec.command.clone(),
            cwd: spec.cwd.clone(),
            env,
            timeout_ms: millis(spec.timeout),
            grace_ms: millis(spec.grace),
            log: spec.log.clone(),
            output_limit: spec.output_limit,
            hold: spec.hold.clone(),
        };
        let mut line = serde_json::to_vec(&order).map_err(|e| ExecError::Spec(format!("a path is no UTF-8: {e}")))?;
        line.push(b'\n');
        // Not killed on drop: it ends the step when its standard input ends, and then itself.
        let mut child = Command::new(&self.exe)
            .arg("step-shim")
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| ExecError::Supervisor { exe: self.exe.clone(), source })?;
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(ExecError::Lost("no pipes".into()));
        };
        let talk = async {
            // Its death shows on the other pipe, with its reason.
            let _ = stdin.write_all(&line).await;
            let mut lines = BufReader::new(stdout).lines();
            let mut group = None;
            let mut result = tokio::select! {
                result = listen(&mut lines, &mut group) => result,
                () = cancel.cancelled() => {
                    let _ = stdin.write_all(b"cancel\n").await;
                    None
                }
            };
            if result.is_none() {
                result = listen(&mut lines, &mut group).await;
            }
            (result, group)
        };
        let mut complaint = String::new();
        let mut stderr = stderr.take(4096);
        let ((result, group), _) = tokio::join!(talk, stderr.read_to_string(&mut complaint));
        let status = child.wait().await;
        if let Some(result) = result {
            return Ok(result);
        }
        // The supervisor is dead and did not clean up. The home marks what it had started.
        if let Some(group) = group {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        self.end_strays(&spec.home).await;
        let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
        Err(ExecError::Lost(format!("{status} {}", complaint.trim()).trim().to_owned()))
    }
}

/// Reads until the result or the end.
async fn listen(lines: &mut Lines<BufReader<ChildStdout>>, group: &mut Option<i32>) -> Option<StepResult> {
    loop {
        // Dropped in the middle of a line, it loses nothing ("Lines::next_line" is cancel safe, `read_line` is not).
        match serde_json::from_str(&lines.next_line().await.ok()??).ok()? {
            Said::Began(pid) => *group = Some(pid),
            Said::Ended(result) => return Some(result),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Executor for LocalExecutor {
    fn run<'a>(
        &'a self,
        spec: &'a StepSpec,
        cancel: CancellationToken,
    ) -> BoxFuture<'a, Result<StepResult, ExecError>> {
        Box::pin(async move {
            if cancel.is_cancelled() {
                return Ok(StepResult::cancelled(crate::clock::now()));
            }
            self.supervise(spec, cancel).await
        })
    }
}

//! A step's container from start to end: output, limits, TERM and KILL.

use std::{
    collections::HashMap,
    future::pending,
    path::PathBuf,
    pin::pin,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bollard::{
    errors::Error as ApiError,
    models::{ContainerState, ContainerStatsResponse},
    query_parameters::{
        AttachContainerOptionsBuilder, EventsOptionsBuilder, InspectContainerOptions, InspectContainerOptionsBuilder,
        KillContainerOptionsBuilder, StartContainerOptions, StatsOptionsBuilder, WaitContainerOptionsBuilder,
    },
};
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{Ended, Failed, Journal, human};
use crate::{
    clock,
    docker::{Docker, DockerError, said},
    domain::run::StepEnd,
    exec::files::tree_size,
};

/// The exit code of what was killed by signal 9, as shells and engines tell it.
const KILLED: i32 = 137;
/// How long after the end of a container its engine may note that it ran out of memory.
const OOM_LATE: Duration = Duration::from_secs(2);

/// Between two looks at what a step uses, once it runs for a while; shorter at its begin.
const LOOK: Duration = Duration::from_secs(1);
/// What a container printed is there soon after its end.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// At least this long between two counts of what lies in a step's folders, and so many times what a count took.
const COUNT: Duration = Duration::from_secs(2);
const COUNT_SHARE: u32 = 50;

/// Why we ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Cancel,
    Timeout,
    /// It has written so many bytes.
    Disk(u64),
}

/// What is followed, and its limits.
pub(super) struct Follow<'a> {
    pub(super) docker: &'a Docker,
    pub(super) container: &'a str,
    pub(super) journal: &'a Journal,
    pub(super) cancel: &'a CancellationToken,
    pub(super) grace: Duration,
    pub(super) timeout: Duration,
    pub(super) memory: Option<u64>,
    pub(super) disk: Option<u64>,
    /// Workspace and home: all that lies there counts.
    pub(super) folders: [PathBuf; 2],
    /// Caches, which other steps filled: what this one adds counts.
    pub(super) caches: Vec<PathBuf>,
    /// The companions' containers.
    pub(super) companions: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    cpu_ns: u64,
    peak: u64,
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => pending().await,
    }
}

impl Follow<'_> {
    /// Starts it and stays with it until nothing of it runs.
    pub(super) async fn to_its_end(&self) -> Result<Ended<Reason>, Failed> {
        let api = self.docker.api();
        let options = AttachContainerOptionsBuilder::default().stream(true).stdout(true).stderr(true).build();
        let attached = api.attach_container(self.container, Some(options)).await;
        let mut output = attached.map_err(DockerError::api("listening to the step".into()))?.output;
        api.start_container(self.container, None::<StartContainerOptions>).await.map_err(refused)?;
        let deadline = Instant::now().checked_add(self.timeout);
        let mut over = pin!(exit_code(self.docker, self.container));
        let usage = Mutex::new(Usage::default());
        let mut watching = pin!(self.watch(&usage));
        let (mut code, mut printing, mut watched) = (None, true, true);
        let mut ending: Option<(Reason, Instant)> = None;
        let (mut killed, mut last_words) = (false, None);
        while code.is_none() || printing {
            if code.is_some() && last_words.is_none() {
                last_words = Instant::now().checked_add(LAST_WORDS);
            }
            let next = match ending {
                None => deadline,
                Some((_, since)) if !killed => since.checked_add(self.grace),
                Some(_) => None,
            };
            let why = tokio::select! {
                part = output.next(), if printing => {
                    match part {
                        Some(Ok(part)) => self.journal.feed(part.as_ref()),
                        // The connection is lost: waiting for its end will tell.
                        Some(Err(_)) | None => printing = false,
                    }
                    continue;
                }
                answer = &mut over, if code.is_none() => {
                    match answer {
                        Ok(answer) => code = Some(answer),
                        Err(_) if matches!(ending, Some((Reason::Cancel, _))) => {
                            return Ok(self.ended(StepEnd::Cancelled, Some(Reason::Cancel), &usage));
                        }
                        Err(error) => return Err(error.into()),
                    }
                    continue;
                }
                () = at(last_words), if last_words.is_some() => break,
                () = self.cancel.cancelled(), if ending.is_none() => Reason::Cancel,
                used = &mut watching, if watched && ending.is_none() => {
                    watched = false;
                    Reason::Disk(used)
                }
                () = at(next), if code.is_none() && next.is_some() => {
                    if ending.is_some() {
                        killed = true;
                        self.signal("SIGKILL").await;
                        continue;
                    }
                    Reason::Timeout
                }
            };
            self.journal.note(&match why {
                Reason::Cancel => "cancelled; ending".to_owned(),
                Reason::Timeout => format!("the time limit of {} s is reached; ending", self.timeout.as_secs()),
                Reason::Disk(used) => {
                    format!("{} lie in its workspace, home, caches and containers; ending", human(used))
                }
            });
            ending = Some((why, Instant::now()));
            // Its first process hands it to all the others.
            self.signal("SIGTERM").await;
        }
        let code = code.unwrap_or(-1);
        let why = ending.map(|(why, _)| why);
        let mut out_of_memory = self.state().await?.oom_killed == Some(true);
        if code != 0 && why.is_none() && self.memory.is_some() && !out_of_memory {
            out_of_memory = self.ran_out_of_memory(code).await;
        }
        let limit = self.memory.unwrap_or(0);
        let end = match (why, code) {
            (Some(Reason::Cancel), _) => StepEnd::Cancelled,
            (Some(Reason::Timeout), _) => StepEnd::TimedOut,
            (Some(Reason::Disk(used)), _) => StepEnd::OverDisk { used, limit: self.disk.unwrap_or(0) },
            (None, 0) => StepEnd::Exited(0),
            (None, _) if out_of_memory => {
                // Its last look may be a second old; at the end it had all that it may have.
                let peak = self.ended(StepEnd::Exited(0), None, &usage).peak_bytes.max(limit);
                StepEnd::OutOfMemory { peak, limit: self.memory }
            }
            // As shells tell of a signal; what the kernel said of the command itself is not to be seen from outside.
            (None, code @ 129..=192) => StepEnd::Signalled(code - 128),
            (None, code) => StepEnd::Exited(code),
        };
        if out_of_memory {
            let said = self.memory.map(|m| format!(" ({} allowed)", human(m))).unwrap_or_default();
            self.journal.note(&format!("a process of it was killed: out of memory{said}"));
        }
        let mut ended = self.ended(end, why, &usage);
        if let StepEnd::OutOfMemory { peak, .. } = ended.end {
            ended.peak_bytes = peak;
        }
        Ok(ended)
    }

    async fn signal(&self, signal: &str) {
        let options = KillContainerOptionsBuilder::default().signal(signal).build();
        if let Err(error) = self.docker.api().kill_container(self.container, Some(options)).await {
            // It has just ended, or the engine is away: waiting for its end will tell.
            tracing::debug!(container = self.container, signal, %error, "a signal did not arrive");
        }
    }

    /// Whether the engine was told that it ran out of memory. It hears of that on another way than of the end, and notes it
    /// in the container's state only when it comes first.
    async fn ran_out_of_memory(&self, code: i32) -> bool {
        let until = clock::now() + if code == KILLED { OOM_LATE } else { Duration::ZERO };
        let until = format!("{}.{:09}", until.as_second(), until.subsec_nanosecond());
        let filters =
            HashMap::from([("type", vec!["container"]), ("container", vec![self.container]), ("event", vec!["oom"])]);
        let options = EventsOptionsBuilder::default().since("0").until(&until).filters(&filters).build();
        let mut told = pin!(self.docker.api().events(Some(options)));
        matches!(told.next().await, Some(Ok(_)))
    }

    async fn state(&self) -> Result<ContainerState, DockerError> {
        let asked = self.docker.api().inspect_container(self.container, None::<InspectContainerOptions>).await;
        let found = asked.map_err(DockerError::api("asking how the step ended".into()))?;
        Ok(found.state.unwrap_or_default())
    }

    fn ended(&self, end: StepEnd, why: Option<Reason>, usage: &Mutex<Usage>) -> Ended<Reason> {
        let usage = *usage.lock().unwrap_or_else(PoisonError::into_inner);
        Ended { end, why, cpu_ms: usage.cpu_ns / 1_000_000, peak_bytes: usage.peak }
    }

    /// Looks at what it uses, for as long as it runs. Ends when that is more disk than it may use.
    async fn watch(&self, usage: &Mutex<Usage>) -> u64 {
        let mut count_at = Instant::now() + COUNT;
        // Beside the looks: a large cache takes its time.
        let mut counting = self.disk.map(|_| tokio::spawn(sizes(self.caches.clone())));
        let mut before = 0;
        let mut pause = Duration::from_millis(30);
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK);
            let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
            let mut stats = pin!(self.docker.api().stats(self.container, Some(options)));
            if let Some(Ok(stats)) = stats.next().await {
                usage.lock().unwrap_or_else(PoisonError::into_inner).take(&stats);
            }
            let Some(limit) = self.disk else { continue };
            if Instant::now() < count_at {
                continue;
            }
            let begin = Instant::now();
            if let Some(first) = counting.take() {
                before = first.await.unwrap_or(0);
            }
            let added = sizes(self.caches.clone()).await.saturating_sub(before);
            let used = sizes(self.folders.to_vec()).await + added + self.written().await;
            if used > limit {
                return used;
            }
            count_at = Instant::now() + COUNT.max(begin.elapsed() * COUNT_SHARE);
        }
    }

    /// What its container and its companions wrote beside all folders, `/tmp` for instance, in bytes.
    async fn written(&self) -> u64 {
        let options = InspectContainerOptionsBuilder::default().size(true).build();
        let mut containers: Vec<&str> = self.companions.iter().map(String::as_str).collect();
        containers.push(self.container);
        let mut bytes = 0_u64;
        for container in containers {
            let found = self.docker.api().inspect_container(container, Some(options.clone())).await;
            let size = found.ok().and_then(|c| u64::try_from(c.size_rw?).ok());
            bytes = bytes.saturating_add(size.unwrap_or(0));
        }
        bytes
    }
}

/// What lies in these folders, in bytes.
async fn sizes(folders: Vec<PathBuf>) -> u64 {
    let count = move || folders.iter().map(|f| tree_size(f)).sum::<u64>();
    tokio::task::spawn_blocking(count).await.unwrap_or(0)
}

impl Usage {
    /// Sources: "Get container stats" of the Docker Engine API; of the used memory, what the kernel may take back at any
    /// time is taken off, as `docker stats` does (`total_inactive_file` with cgroup v1, `inactive_file` with v2).
    fn take(&mut self, stats: &ContainerStatsResponse) {
        let cpu = stats.cpu_stats.as_ref().and_then(|c| c.cpu_usage.as_ref()).and_then(|u| u.total_usage);
        self.cpu_ns = self.cpu_ns.max(cpu.unwrap_or(0));
        let Some(memory) = &stats.memory_stats else { return };
        let of = |name: &str| memory.stats.as_ref().and_then(|s| s.get(name)).copied();
        let idle = of("total_inactive_file").or_else(|| of("inactive_file")).unwrap_or(0);
        self.peak = self.peak.max(memory.usage.unwrap_or(0).saturating_sub(idle));
    }
}

/// Waits until a container that was started has ended, and answers its exit code.
pub(super) async fn exit_code(docker: &Docker, container: &str) -> Result<i32, DockerError> {
    let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
    let mut answers = pin!(docker.api().wait_container(container, Some(options)));
    let code = match answers.next().await {
        Some(Ok(answer)) => answer.status_code,
        Some(Err(ApiError::DockerContainerWaitError { code, .. })) => code,
        Some(Err(e)) => return Err(DockerError::api("waiting for the step's end".into())(e)),
        None => {
            let source = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the engine ended the connection");
            return Err(DockerError::api("waiting for the step's end".into())(source.into()));
        }
    };
    Ok(i32::try_from(code).unwrap_or(i32::MAX))
}

/// Why a container was not started: an image without what is run in it is for people to mend.
pub(super) fn refused(error: ApiError) -> Failed {
    match said(&error) {
        Some(said) if said.contains("executable file not found") || said.contains("no such file or directory") => {
            Failed::People(format!("its image can't run it: {}", said.trim()))
        }
        _ => DockerError::api("starting a container".into())(error).into(),
    }
}

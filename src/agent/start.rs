//! How a server gets an agent, and keeps one where no service manager does.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{AgentError, Client, ClientError, socket_path};

/// An agent is up in some ten milliseconds; a busy machine may take longer.
const UP: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(5);
/// The agent's own output before it is moved aside, in bytes.
const LOG_LIMIT: u64 = 10 * 1024 * 1024;
/// Between two tries of the keeper, doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(5);

/// The agent of this folder; started as `exe agent --data DATA`, detached, if none answers.
///
/// # Errors
/// [`AgentError`]: it does not come up, or speaks another protocol.
pub async fn ensure_running(exe: &Path, data: &Path) -> Result<Client, AgentError> {
    let data = std::path::absolute(data).map_err(AgentError::io(format!("{}", data.display())))?;
    let client = Client::new(socket_path(&data));
    match client.hello().await {
        Ok(_) => return Ok(client),
        Err(ClientError::Unavailable { .. }) => {}
        Err(other) => return Err(other.into()),
    }
    let (mut child, log) = spawn(exe, &data)?;
    let pid = child.id();
    let deadline = Instant::now() + UP;
    loop {
        match client.hello().await {
            Ok(hello) => {
                if pid != Some(hello.pid) {
                    tracing::debug!(pid = hello.pid, "another agent was faster");
                }
                // Collected when it ends, so that no zombie stays while this process lives.
                tokio::spawn(async move { child.wait().await });
                return Ok(client);
            }
            Err(ClientError::Unavailable { .. }) => {}
            Err(other) => return Err(other.into()),
        }
        let ended = child.try_wait().map_err(AgentError::io("can't look at the agent"))?.is_some();
        if ended && client.hello().await.is_ok() {
            return Ok(client);
        }
        if ended || Instant::now() >= deadline {
            tokio::spawn(async move { child.wait().await });
            let last = last_line(&log);
            return Err(AgentError::NotUp { log, last });
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn spawn(exe: &Path, data: &Path) -> Result<(tokio::process::Child, PathBuf), AgentError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data)
        .map_err(AgentError::io(format!("can't make the folder {}", data.display())))?;
    let path = data.join("agent.log");
    let what = format!("can't write {}", path.display());
    if fs::metadata(&path).is_ok_and(|m| m.len() > LOG_LIMIT) {
        fs::rename(&path, path.with_extension("log.1")).map_err(AgentError::io(what.clone()))?;
    }
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(AgentError::io(what.clone()))?;
    let both = log.try_clone().map_err(AgentError::io(what))?;
    // The agent makes itself a session of its own: only a process that leads no group can.
    let child = tokio::process::Command::new(exe)
        .arg("agent")
        // Whoever starts one where none answers wants an agent, not the place of one that was faster.
        .arg("--only-free")
        .arg("--data")
        .arg(data)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(both)
        .spawn()
        .map_err(AgentError::io(format!("can't start {}", exe.display())))?;
    Ok((child, path))
}

/// Starts the next agent on behalf of the one that runs: in its place, with its output.
pub(super) fn spawn_heir(exe: &Path, data: &Path) -> std::io::Result<tokio::process::Child> {
    tokio::process::Command::new(exe).arg("agent").arg("--data").arg(data).stdin(Stdio::null()).spawn()
}

fn last_line(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4_096)..]).into_owned();
    text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or_default().trim().to_owned()
}

/// Sees to it that an agent runs, until `shutdown`; the agent itself goes on then. One that dies is started again at
/// once: the end of its socket tells.
pub async fn keep_running(exe: &Path, data: &Path, shutdown: CancellationToken) {
    let mut pause = RETRY_FIRST;
    loop {
        let kept = async {
            let client = ensure_running(exe, data).await?;
            client.gone().await.map_err(AgentError::from)
        };
        let kept = tokio::select! {
            () = shutdown.cancelled() => return,
            kept = kept => kept,
        };
        match kept {
            Ok(()) => {
                tracing::warn!(data = %data.display(), "the agent ended and is started again");
                pause = RETRY_FIRST;
                continue;
            }
            Err(e) => tracing::error!(error = %e, "no agent; tried again"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(RETRY_LAST);
    }
}

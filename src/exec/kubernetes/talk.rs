//! Commands in a pod's containers, with streams of files in and out ("pods/exec", over a websocket).
//!
//! The packing and unpacking is done by threads that block; a few chunks stand between them and the connection, so that
//! memory stays small whatever is sent.

use std::{
    io::{self, Read, Write},
    time::Duration,
};

use bytes::Bytes;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status};
use kube::{
    Api,
    api::{AttachParams, AttachedProcess},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};

use crate::cluster::Fault;

/// Bytes that travel together.
const CHUNK: usize = 64 * 1024;
/// Chunks under way.
const AHEAD: usize = 8;
/// What is kept of a command's complaints.
const COMPLAINT: u64 = 8 * 1024;
/// A connection that moves nothing for so long is lost.
const STILL: Duration = Duration::from_secs(120);

/// How a command ended.
#[derive(Debug)]
pub(super) enum Said {
    /// With this exit code, and this on standard error.
    Code(i32, String),
    /// The container did not run it: no such program, say.
    NotRun(String),
    /// The connection ended before its end was told.
    Unknown(String),
}

/// Where a command runs.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) pods: &'a Api<Pod>,
    pub(super) pod: &'a str,
    pub(super) container: &'a str,
}

impl Place<'_> {
    async fn begin(&self, command: &[&str], stdin: bool, stdout: bool) -> Result<AttachedProcess, Fault> {
        let params = AttachParams {
            container: Some(self.container.to_owned()),
            stdin,
            stdout,
            stderr: true,
            tty: false,
            max_stdin_buf_size: Some(CHUNK),
            max_stdout_buf_size: Some(CHUNK),
            max_stderr_buf_size: None,
        };
        self.pods.exec(self.pod, command.iter().copied(), &params).await.map_err(Fault::from)
    }

    /// Runs a command that says nothing but how it ended.
    pub(super) async fn run(&self, command: &[&str]) -> Result<Said, Fault> {
        let mut process = self.begin(command, false, false).await?;
        let complaint = process.stderr();
        Ok(end(&mut process, complaint).await)
    }

    /// Runs a command that reads `source`.
    pub(super) async fn send(&self, command: &[&str], mut source: mpsc::Receiver<Bytes>) -> Result<Said, Fault> {
        let mut process = self.begin(command, true, false).await?;
        let (Some(mut stdin), complaint) = (process.stdin(), process.stderr()) else {
            return Ok(Said::Unknown("no standard input".into()));
        };
        let sending = async move {
            while let Some(chunk) = source.recv().await {
                match tokio::time::timeout(STILL, stdin.write_all(&chunk)).await {
                    Ok(Ok(())) => {}
                    // It has ended: how shows on the other side.
                    Ok(Err(_)) => return,
                    Err(_) => break,
                }
            }
            let _ = stdin.shutdown().await;
        };
        let ending = end(&mut process, complaint);
        let ((), said) = tokio::join!(sending, ending);
        Ok(said)
    }

    /// Runs a command whose output goes to `sink`; a sink that is gone ends it.
    pub(super) async fn receive(&self, command: &[&str], sink: mpsc::Sender<Bytes>) -> Result<Said, Fault> {
        let mut process = self.begin(command, false, true).await?;
        let (Some(mut stdout), complaint) = (process.stdout(), process.stderr()) else {
            return Ok(Said::Unknown("no standard output".into()));
        };
        let receiving = async move {
            loop {
                let mut chunk = bytes::BytesMut::with_capacity(CHUNK);
                match tokio::time::timeout(STILL, stdout.read_buf(&mut chunk)).await {
                    Ok(Ok(n)) if n > 0 => {}
                    _ => return,
                }
                if sink.send(chunk.freeze()).await.is_err() {
                    return;
                }
            }
        };
        let ending = end(&mut process, complaint);
        let mut ending = std::pin::pin!(ending);
        let mut receiving = std::pin::pin!(receiving);
        tokio::select! {
            () = &mut receiving => Ok(tokio::time::timeout(STILL, ending).await
                .unwrap_or_else(|_| Said::Unknown("it did not say how it ended".into()))),
            said = &mut ending => {
                // What it printed before may still be on its way to the sink.
                receiving.await;
                Ok(said)
            }
        }
    }
}

async fn end(process: &mut AttachedProcess, complaint: Option<impl AsyncRead + Unpin>) -> Said {
    let status = process.take_status();
    let listen = async {
        let mut text = Vec::new();
        if let Some(mut complaint) = complaint {
            let _ = (&mut complaint).take(COMPLAINT).read_to_end(&mut text).await;
            // The connection stands still while nobody reads this.
            let _ = tokio::io::copy(&mut complaint, &mut tokio::io::sink()).await;
        }
        String::from_utf8_lossy(&text).trim().to_owned()
    };
    let status = async {
        match status {
            Some(status) => status.await,
            None => None,
        }
    };
    let (status, complaint) = tokio::join!(status, listen);
    match status {
        Some(status) => of_status(&status, complaint),
        None => Said::Unknown(if complaint.is_empty() { "the connection ended".into() } else { complaint }),
    }
}

/// The last word of the protocol is a Status (`v4.channel.k8s.io`): `NonZeroExitCode` with the code as a cause.
fn of_status(status: &Status, complaint: String) -> Said {
    if status.status.as_deref() == Some("Success") {
        return Said::Code(0, complaint);
    }
    let causes = status.details.as_ref().and_then(|d| d.causes.as_ref());
    let code = causes.into_iter().flatten().find(|c| c.reason.as_deref() == Some("ExitCode"));
    match code.and_then(|c| c.message.as_deref()?.parse().ok()) {
        Some(code) => Said::Code(code, complaint),
        None => Said::NotRun(status.message.clone().unwrap_or_default()),
    }
}

/// The end of a channel that a thread writes to.
pub(super) struct Outlet(mpsc::Sender<Bytes>);

/// The end of a channel that a thread reads from.
pub(super) struct Inlet(mpsc::Receiver<Bytes>, Bytes);

/// From a thread to a connection.
pub(super) fn outlet() -> (io::BufWriter<Outlet>, mpsc::Receiver<Bytes>) {
    let (send, receive) = mpsc::channel(AHEAD);
    (io::BufWriter::with_capacity(CHUNK, Outlet(send)), receive)
}

/// From a connection to a thread.
pub(super) fn inlet() -> (mpsc::Sender<Bytes>, Inlet) {
    let (send, receive) = mpsc::channel(AHEAD);
    (send, Inlet(receive, Bytes::new()))
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = &bytes[..bytes.len().min(CHUNK)];
        self.0.blocking_send(Bytes::copy_from_slice(part)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Inlet {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.1.is_empty() {
            match self.0.blocking_recv() {
                Some(chunk) => self.1 = chunk,
                None => return Ok(0),
            }
        }
        let n = into.len().min(self.1.len());
        into[..n].copy_from_slice(&self.1.split_to(n));
        Ok(n)
    }
}

//! Upgrade in mid-traffic: an agent hands its sockets to the next one, and answers what it has begun.
//!
//! The next agent (the heir) asks for them over the control socket of the one that runs (the elder). It gets the lock,
//! the control socket and all listeners (`SCM_RIGHTS`, unix(7)), reads the state and says so; only then the elder
//! accepts and supervises no more, and the heir begins. What waits in the kernel's queues meanwhile waits a moment
//! longer. The elder lives until its last connection ends: it follows each change of the state before the heir answers
//! the command that made it, and tells how many requests it still has under way on which slot.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::SocketAddr,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream as StdStream},
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use super::{
    AgentError,
    control::short_path,
    core::Agent,
    protocol::{PROTOCOL, Reply, Request},
    state::Saved,
};

/// Each side waits so long for the other's word.
const PATIENCE: Duration = Duration::from_secs(15);
/// An elder that follows no change within this is left behind.
const FOLLOW: Duration = Duration::from_secs(2);
/// Descriptors in one message; the kernel allows 253 (`SCM_MAX_FD`).
const BATCH: usize = 100;
/// Between two counts of what is under way.
const COUNT: Duration = Duration::from_millis(50);
/// An elder ends at the latest then, with whatever is still open.
pub(super) const LAST: Duration = Duration::from_secs(3600);
/// One line: the state of a host with many releases is large.
const MAX_HEAD: usize = 1024 * 1024;

/// Requests under way by service and slot.
pub(super) type Busy = BTreeMap<String, BTreeMap<String, u64>>;

/// What the two say, one object a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "said", rename_all = "snake_case")]
enum Word {
    /// Elder: the lock, the control socket and these listeners come along.
    Here { listeners: Vec<SocketAddr> },
    /// Heir: all is held, the state can be read.
    Ready,
    /// Elder: nothing is accepted, supervised or changed here any more.
    Go,
    /// Elder: what is under way here.
    Busy { slots: Busy },
    /// Heir: follow this.
    State { number: u64, saved: Box<Saved> },
    /// Elder: it is followed.
    Took { number: u64 },
}

fn line(word: &Word) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    Ok(line)
}

fn broken(what: &str) -> io::Error {
    io::Error::other(format!("the other agent said something else than {what}"))
}

/// The two halves of the connection, line by line.
#[derive(Debug)]
pub(super) struct Link {
    read: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
}

impl Link {
    fn new(stream: StdStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(stream)?.into_split();
        Ok(Self { read: BufReader::new(read).lines(), write })
    }

    async fn say(&mut self, word: &Word) -> io::Result<()> {
        tokio::time::timeout(PATIENCE, self.write.write_all(&line(word)?)).await?
    }

    async fn hear(&mut self) -> io::Result<Option<Word>> {
        match self.read.next_line().await? {
            Some(line) => Ok(Some(serde_json::from_str(&line)?)),
            None => Ok(None),
        }
    }

    async fn expect(&mut self) -> io::Result<Word> {
        let heard = tokio::time::timeout(PATIENCE, self.hear()).await??;
        heard.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

fn send(stream: &StdStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors in one message"));
    }
    let sent = sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    // The descriptors go with the first byte; the rest is plain.
    io::Write::write_all(&mut &*stream, &bytes[sent..])
}

fn receive(stream: &StdStream, into: &mut Vec<u8>, fds: &mut Vec<OwnedFd>) -> io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    into.extend_from_slice(&bytes[..got.bytes]);
    Ok(())
}

/// Sends the words and the descriptors, in as many messages as it takes.
fn give(stream: &StdStream, words: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut rest = words;
    for batch in fds.chunks(BATCH) {
        let borrowed: Vec<_> = batch.iter().map(|fd| fd.as_fd()).collect();
        send(stream, if rest.is_empty() { b"\n" } else { rest }, &borrowed)?;
        rest = &[];
    }
    Ok(())
}

/// What an heir gets.
#[derive(Debug)]
pub(super) struct Inheritance {
    pub lock: fs::File,
    pub control: UnixListener,
    pub listeners: HashMap<SocketAddr, std::net::TcpListener>,
    pub link: Link,
}

/// Asks the agent that runs to hand over. None: none answers.
///
/// # Errors
/// It answers, and does not hand over: of another version, or just handing over to somebody else.
pub(super) async fn ask(socket: &Path) -> Result<Option<Inheritance>, AgentError> {
    let socket = socket.to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        let (path, _folder) = short_path(&socket)?;
        match StdStream::connect(path) {
            Ok(stream) => take(stream).map(Some),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
            Err(e) => Err(e),
        }
    });
    let failed = AgentError::io("the agent that runs does not hand over");
    match asked.await {
        Ok(Ok(Some((lock, control, listeners, stream)))) => match Link::new(stream) {
            Ok(link) => Ok(Some(Inheritance { lock, control, listeners, link })),
            Err(e) => Err(failed(e)),
        },
        Ok(Ok(None)) => Ok(None),
        Ok(Err(e)) => Err(failed(e)),
        Err(e) => Err(failed(io::Error::other(e))),
    }
}

type Taken = (fs::File, UnixListener, HashMap<SocketAddr, std::net::TcpListener>, StdStream);

fn take(stream: StdStream) -> io::Result<Taken> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut asked = serde_json::to_vec(&Request::HandOver { protocol: PROTOCOL })?;
    asked.push(b'\n');
    io::Write::write_all(&mut &stream, &asked)?;
    let (mut bytes, mut fds) = (Vec::new(), Vec::new());
    let addresses = loop {
        receive(&stream, &mut bytes, &mut fds)?;
        let Some(end) = bytes.iter().position(|b| *b == b'\n') else {
            if bytes.len() > MAX_HEAD {
                return Err(broken("what it hands over"));
            }
            continue;
        };
        if let Ok(Reply::Error { message, .. }) = serde_json::from_slice(&bytes[..end]) {
            return Err(io::Error::other(message));
        }
        match serde_json::from_slice(&bytes[..end])? {
            Word::Here { listeners } => break listeners,
            _ => return Err(broken("what it hands over")),
        }
    };
    while fds.len() < addresses.len() + 2 {
        receive(&stream, &mut bytes, &mut fds)?;
    }
    let mut fds = fds.into_iter();
    let (Some(lock), Some(control)) = (fds.next(), fds.next()) else { return Err(broken("what it hands over")) };
    let listeners = addresses.into_iter().zip(fds.map(std::net::TcpListener::from)).collect();
    Ok((fs::File::from(lock), UnixListener::from(control), listeners, stream))
}

/// The heir's end of the connection to the elder.
#[derive(Debug)]
pub(super) struct Elder {
    states: mpsc::UnboundedSender<Word>,
    took: watch::Receiver<u64>,
    busy: watch::Receiver<Busy>,
    number: u64,
}

impl Inheritance {
    /// Says that all is held, and waits until the elder has let go.
    pub(super) async fn begin(&mut self) -> io::Result<()> {
        self.link.say(&Word::Ready).await?;
        match self.link.expect().await? {
            Word::Go => Ok(()),
            _ => Err(broken("that it let go")),
        }
    }
}

impl Elder {
    /// Listens to the elder from now on.
    pub(super) fn new(link: Link) -> Self {
        let (states, mut outgoing) = mpsc::unbounded_channel();
        let (took_is, took) = watch::channel(0);
        let (busy_is, busy) = watch::channel(Busy::new());
        tokio::spawn(async move {
            let Link { mut read, mut write } = link;
            loop {
                tokio::select! {
                    word = outgoing.recv() => {
                        let Some(word) = word else { break };
                        let sent = match line(&word) {
                            Ok(line) => write.write_all(&line).await,
                            Err(e) => Err(e),
                        };
                        if sent.is_err() {
                            break;
                        }
                    }
                    heard = read.next_line() => {
                        let Ok(Some(heard)) = heard else { break };
                        match serde_json::from_str(&heard) {
                            Ok(Word::Took { number }) => _ = took_is.send_replace(number),
                            Ok(Word::Busy { slots }) => _ = busy_is.send_replace(slots),
                            _ => {}
                        }
                    }
                }
            }
            tracing::info!("the agent before has ended");
            busy_is.send_replace(Busy::new());
        });
        Self { states, took, busy, number: 0 }
    }

    /// What the elder still has under way.
    pub(super) fn busy(&self) -> watch::Receiver<Busy> {
        self.busy.clone()
    }

    /// Sends the state; the returned future resolves when the elder follows it, or is gone.
    pub(super) fn follow(&mut self, saved: &Saved) -> impl Future<Output = ()> + Send + use<> {
        self.number += 1;
        let number = self.number;
        let sent = self.states.send(Word::State { number, saved: Box::new(saved.clone()) }).is_ok();
        let mut took = self.took.clone();
        async move {
            if sent && tokio::time::timeout(FOLLOW, took.wait_for(|n| *n >= number)).await.is_err() {
                tracing::warn!("the agent before does not follow a change");
            }
        }
    }
}

/// Hands over: called by the control connection that asked. Afterwards this agent only ends what it has begun, over the
/// link that [`serve_out`] is given.
///
/// # Errors
/// The other agent is gone or says something else: then nothing has changed here.
pub(super) async fn hand_over(agent: &Arc<Agent>, fixed: [OwnedFd; 2], stream: UnixStream) -> io::Result<Link> {
    let (listeners, sockets): (Vec<_>, Vec<_>) = agent.sockets()?.into_iter().unzip();
    let words = line(&Word::Here { listeners })?;
    let stream = stream.into_std()?;
    let given = tokio::task::spawn_blocking(move || {
        let all: Vec<OwnedFd> = fixed.into_iter().chain(sockets).collect();
        give(&stream, &words, &all).map(|()| stream)
    });
    let mut link = Link::new(given.await.map_err(io::Error::other)??)?;
    match link.expect().await? {
        Word::Ready => {}
        _ => return Err(broken("that it is ready")),
    }
    // No way back from here.
    agent.let_go().await;
    link.say(&Word::Go).await?;
    Ok(link)
}

/// The elder's last task: follows the heir's changes and tells what is under way, until nothing is. Says whether the heir
/// was still there.
pub(super) async fn serve_out(agent: &Arc<Agent>, mut link: Link, done: CancellationToken) -> bool {
    let mut told = Busy::new();
    let mut counts = tokio::time::interval(COUNT);
    let end = tokio::time::Instant::now() + LAST;
    loop {
        tokio::select! {
            () = done.cancelled() => return true,
            () = tokio::time::sleep_until(end) => return true,
            heard = link.hear() => match heard {
                Ok(Some(Word::State { number, saved })) => {
                    agent.follow(*saved).await;
                    if link.say(&Word::Took { number }).await.is_err() {
                        return false;
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return false,
            },
            _ = counts.tick() => {
                let now = agent.busy();
                if now != told {
                    told.clone_from(&now);
                    if link.say(&Word::Busy { slots: now }).await.is_err() {
                        return false;
                    }
                }
            }
        }
    }
}

//! Connections to an app's copies.
//!
//! A connection is driven by the very task that answers the request: no task of its own, no wake-ups between two
//! tasks for each message. While it lies unused nobody drives it, so it is looked at when it is taken again.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd as _, RawFd},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{Builder, Connection, SendRequest},
    },
};
use hyper_util::rt::TokioIo;
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use tokio::net::TcpStream;

use super::route::Lease;

/// A copy on this host or in a container of it either takes a connection at once or not at all.
pub(super) const CONNECT: Duration = Duration::from_secs(3);
/// Headers of an answer.
const MAX_HEAD: usize = 256 * 1024;

/// The body of a request on its way to an app.
#[derive(Debug)]
pub(super) enum Sent {
    /// The client's.
    Client(Incoming),
    /// None.
    Nothing,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Client(body) => Pin::new(body).poll_frame(cx),
            Self::Nothing => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Client(body) => body.is_end_stream(),
            Self::Nothing => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Client(body) => body.size_hint(),
            Self::Nothing => SizeHint::with_exact(0),
        }
    }
}

/// One connection, with no other request on it.
pub(super) struct Conn {
    send: SendRequest<Sent>,
    io: Pin<Box<Connection<TokioIo<TcpStream>, Sent>>>,
    closed: bool,
    /// Of the stream that `io` owns.
    fd: RawFd,
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("closed", &self.closed).finish_non_exhaustive()
    }
}

async fn connect(address: SocketAddr) -> io::Result<TokioIo<TcpStream>> {
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(stream))
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.max_buf_size(MAX_HEAD);
    builder
}

impl Conn {
    pub(super) async fn open(address: SocketAddr) -> io::Result<Self> {
        let io = connect(address).await?;
        let fd = io.inner().as_raw_fd();
        let (send, io) = builder().handshake(io).await.map_err(io::Error::other)?;
        Ok(Self { send, io: Box::pin(io), closed: false, fd })
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.closed && self.io.as_mut().poll(cx).is_ready() {
            self.closed = true;
        }
    }

    /// Whether the app still holds its end, asked of the kernel: what the runtime knows may be a moment old, and a
    /// request written to a closed connection is lost.
    pub(super) fn is_open(&self) -> bool {
        let silent = recv(self.fd, &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT);
        !self.closed && silent == Err(Errno::EAGAIN)
    }

    /// Whether it can take a request: it is open and the last exchange is over.
    pub(super) fn is_ready(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.closed && self.send.is_ready()
    }

    /// Sends a request and waits for the head of its answer. The error holds the request if nothing of it was sent.
    pub(super) async fn send(
        &mut self,
        request: Request<Sent>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Sent>>> {
        let mut answer = pin!(self.send.try_send_request(request));
        std::future::poll_fn(|cx| {
            if !self.closed && self.io.as_mut().poll(cx).is_ready() {
                self.closed = true;
            }
            answer.as_mut().poll(cx)
        })
        .await
    }
}

/// Sends a request that may turn the connection into a tunnel; such a one is driven by a task and never used again.
pub(super) async fn send_upgrade(
    address: SocketAddr,
    request: Request<Sent>,
) -> io::Result<Result<Response<Incoming>, hyper::Error>> {
    let io = connect(address).await?;
    let (mut send, io) = builder().handshake(io).await.map_err(io::Error::other)?;
    tokio::spawn(io.with_upgrades());
    Ok(send.send_request(request).await)
}

/// An answer's body on its way to the client. Holds the lease, so the request counts as in flight until its end.
#[derive(Debug)]
pub(in crate::agent) struct Passing {
    body: Incoming,
    /// None when something else drives the connection.
    conn: Option<Conn>,
    lease: Option<Lease>,
}

impl Passing {
    pub(super) fn new(body: Incoming, conn: Option<Conn>, lease: Lease) -> Self {
        let mut passing = Self { body, conn, lease: Some(lease) };
        if passing.body.is_end_stream() {
            passing.finish();
        }
        passing
    }

    /// The answer is complete: the connection can take the next request, the slot is rid of this one.
    fn finish(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        if let Some(mut conn) = self.conn.take()
            && conn.is_ready()
        {
            lease.instance.keep(conn);
        }
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let mut polled = Pin::new(&mut this.body).poll_frame(cx);
        if polled.is_pending()
            && let Some(conn) = &mut this.conn
        {
            conn.drive(cx);
            polled = Pin::new(&mut this.body).poll_frame(cx);
        }
        match &polled {
            Poll::Ready(Some(Ok(_))) if this.body.is_end_stream() => this.finish(),
            Poll::Ready(None) => this.finish(),
            Poll::Ready(Some(Err(_))) => {
                if let Some(lease) = this.lease.take() {
                    lease.count_cut();
                }
                this.conn = None;
            }
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        // The server drops a body of known length without asking for its end. Otherwise the client went away, and
        // closing the connection tells the app so.
        if self.body.is_end_stream() {
            self.finish();
        }
    }
}

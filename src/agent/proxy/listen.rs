//! Listening sockets, all held here: accepting, limits, closing well.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, StatusCode, Version, header::CONNECTION};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    Route,
    tls::{self, Certificates},
};
use crate::agent::protocol::TlsFiles;

/// A client may take so long for a request's head; also how long an unused connection is kept (nginx: 60 and 75 s).
const HEAD: Duration = Duration::from_secs(60);
/// A client may take so long to agree on TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// All headers of a request; more is answered 431.
const MAX_HEAD: usize = 64 * 1024;
/// Streams of one HTTP/2 connection.
const MAX_STREAMS: u32 = 250;
const BACKLOG: u32 = 4_096;
/// After the accept call failed (no descriptor left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all listeners share.
#[derive(Debug, Clone)]
pub(in crate::agent) struct Limits {
    /// Open connections of clients.
    pub connections: Arc<Semaphore>,
    /// Tasks of connections, to be waited for at the end.
    pub tasks: TaskTracker,
    /// What became of connections that changed their protocol (websockets).
    pub tunnels: TaskTracker,
}

/// Who answers.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub route: Arc<Route>,
    /// Sent on to `https://` at this port.
    pub https: Option<u16>,
}

/// Which service answers on this listener, by host.
#[derive(Debug, Default)]
pub(super) struct Table {
    by_host: HashMap<String, Found>,
    rest: Option<Found>,
}

impl Table {
    pub(super) fn find(&self, host: Option<&str>) -> Option<&Found> {
        if !self.by_host.is_empty()
            && let Some(host) = host
        {
            let found = match self.by_host.get(host) {
                None if host.bytes().any(|b| b.is_ascii_uppercase()) => self.by_host.get(&host.to_ascii_lowercase()),
                found => found,
            };
            if found.is_some() {
                return found;
            }
        }
        self.rest.as_ref()
    }
}

/// How a listener speaks TLS.
type Tls = (Arc<Certificates>, Arc<ServerConfig>);

/// What its connections know of a listener.
#[derive(Debug, Default)]
struct Face {
    table: RwLock<Arc<Table>>,
    tls: RwLock<Option<Tls>>,
    /// The next agent accepts: each connection ends with its next answer.
    leaving: AtomicBool,
    left: CancellationToken,
}

/// One listening socket; dropped, it accepts no more, and its connections end after their running requests.
#[derive(Debug)]
pub(in crate::agent) struct Listener {
    face: Arc<Face>,
    /// None: left to the next agent.
    socket: Option<Arc<TcpListener>>,
    /// Accepts once it is known who answers.
    serving: Option<Serving>,
    _stop: DropGuard,
}

/// Who shall answer on a listener.
#[derive(Debug)]
pub(in crate::agent) struct Wanted<'a> {
    /// Empty: all names that nobody else has.
    pub hosts: &'a [String],
    pub route: &'a Arc<Route>,
    pub https: Option<u16>,
    pub tls: Option<&'a TlsFiles>,
}

/// Listens at an address with a real port. `SO_REUSEADDR`: connections of a dead agent must not keep the port.
fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Listener {
    pub(in crate::agent) fn bind(address: SocketAddr, limits: &Limits) -> io::Result<Self> {
        Ok(Self::new(open(address)?, address, limits))
    }

    /// Goes on with the socket of the agent before.
    pub(in crate::agent) fn inherit(
        socket: std::net::TcpListener,
        address: SocketAddr,
        limits: &Limits,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self::new(TcpListener::from_std(socket)?, address, limits))
    }

    fn new(socket: TcpListener, address: SocketAddr, limits: &Limits) -> Self {
        let socket = Arc::new(socket);
        let face = Arc::<Face>::default();
        let stop = CancellationToken::new();
        let serving = Serving { own: address, face: Arc::clone(&face), stop: stop.clone(), limits: limits.clone() };
        Self { face, socket: Some(socket), serving: Some(serving), _stop: stop.drop_guard() }
    }

    /// Sets who answers, and begins to accept; an empty list of hosts means all that nobody else has.
    pub(in crate::agent) fn set_routes(&mut self, wanted: &[Wanted<'_>]) -> io::Result<()> {
        self.set_table(wanted);
        self.set_tls(wanted)?;
        if let (Some(serving), Some(socket)) = (self.serving.take(), &self.socket) {
            tokio::spawn(serving.accept(Arc::clone(socket)));
        }
        Ok(())
    }

    fn set_table(&self, wanted: &[Wanted<'_>]) {
        let mut table = Table::default();
        for Wanted { hosts, route, https, .. } in wanted {
            let found = Found { route: Arc::clone(route), https: *https };
            if hosts.is_empty() {
                table.rest = Some(found.clone());
            }
            table.by_host.extend(hosts.iter().map(|h| (h.clone(), found.clone())));
        }
        *self.face.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    fn set_tls(&self, wanted: &[Wanted<'_>]) -> io::Result<()> {
        let files: Vec<_> = wanted.iter().filter_map(|w| Some((w.hosts.to_vec(), w.tls?.clone()))).collect();
        let mut tls = self.face.tls.write().unwrap_or_else(PoisonError::into_inner);
        if files.is_empty() {
            *tls = None;
            return Ok(());
        }
        let (certificates, _) = match &mut *tls {
            Some(known) => known,
            none => {
                let certificates = Arc::<Certificates>::default();
                none.insert((Arc::clone(&certificates), tls::config(certificates)?))
            }
        };
        certificates.set(files);
        Ok(())
    }

    /// Reads certificates that changed on disk.
    pub(in crate::agent) fn refresh(&self) {
        let certificates =
            self.face.tls.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(c, _)| Arc::clone(c));
        if let Some(certificates) = certificates {
            certificates.refresh();
        }
    }

    /// For the next agent.
    pub(in crate::agent) fn share(&self) -> Option<io::Result<OwnedFd>> {
        self.socket.as_ref().map(|s| s.as_fd().try_clone_to_owned())
    }

    /// Accepts no more, because the next agent does. Connections end well: each with the answer to its next request,
    /// so that none meets a closed door.
    pub(in crate::agent) fn leave(&mut self) {
        self.socket = None;
        self.face.leaving.store(true, Ordering::SeqCst);
        self.face.left.cancel();
    }
}

/// All listeners by address.
pub(in crate::agent) type Listeners = BTreeMap<SocketAddr, Listener>;

/// One connection of a client.
#[derive(Debug)]
pub(super) struct Client {
    /// The listener's address.
    pub own: SocketAddr,
    pub peer: SocketAddr,
    /// It came by TLS.
    pub tls: bool,
    /// A request has come.
    pub seen: AtomicBool,
    /// It speaks HTTP/2.
    two: AtomicBool,
    /// It may end now.
    leave: Notify,
    /// [`Limits::tunnels`].
    pub tunnels: TaskTracker,
    /// Counts the connection; tunnels hold on to it.
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug, Clone)]
struct Serving {
    own: SocketAddr,
    face: Arc<Face>,
    stop: CancellationToken,
    limits: Limits,
}

type Http = auto::Builder<TokioExecutor>;

impl Serving {
    async fn accept(self, socket: Arc<TcpListener>) {
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_HEAD);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
            .keep_alive_interval(HEAD / 2)
            .keep_alive_timeout(HEAD / 2);
        let http = Arc::new(http);
        loop {
            // At the limit new clients wait in the kernel's queue.
            let permit = tokio::select! {
                () = self.ended() => return,
                permit = Arc::clone(&self.limits.connections).acquire_owned() => permit,
            };
            // Never closed.
            let Ok(permit) = permit else { return };
            let accepted = tokio::select! {
                () = self.ended() => return,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let tls = self.tls();
                    let client = Arc::new(Client {
                        own: self.own,
                        peer,
                        tls: tls.is_some(),
                        seen: AtomicBool::new(false),
                        two: AtomicBool::new(false),
                        leave: Notify::new(),
                        tunnels: self.limits.tunnels.clone(),
                        _permit: permit,
                    });
                    self.limits.tasks.spawn(self.clone().serve(Arc::clone(&http), stream, tls, client));
                }
                Err(e) => {
                    tracing::warn!(listener = %self.own, error = %e, "can't accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// No more is accepted here.
    async fn ended(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.face.left.cancelled() => {}
        }
    }

    fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.face.tls.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(_, config)| Arc::clone(config))
    }

    async fn serve(self, http: Arc<Http>, stream: TcpStream, tls: Option<Arc<ServerConfig>>, client: Arc<Client>) {
        let _ = stream.set_nodelay(true);
        let Some(config) = tls else { return self.converse(http, stream, client).await };
        // Whoever does not speak TLS, or trusts another certificate: nothing for us to tell anyone.
        if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await {
            self.converse(http, stream, client).await;
        }
    }

    async fn converse<S>(self, http: Arc<Http>, stream: S, client: Arc<Client>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (face, of_requests) = (Arc::clone(&self.face), Arc::clone(&client));
        let service = service_fn(move |request| {
            let table = Arc::clone(&face.table.read().unwrap_or_else(PoisonError::into_inner));
            let (face, client) = (Arc::clone(&face), Arc::clone(&of_requests));
            let two = request.version() == Version::HTTP_2;
            async move {
                let mut answer = super::answer(table, Arc::clone(&client), request).await?;
                if face.leaving.load(Ordering::Relaxed) {
                    client.two.store(two, Ordering::SeqCst);
                    if two {
                        client.leave.notify_one();
                    } else if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                } else if two {
                    client.two.store(true, Ordering::Relaxed);
                }
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        let connection = http.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        // Until it knows the protocol the server has no timeout of its own.
        let mut first = std::pin::pin!(tokio::time::sleep(HEAD));
        let (mut waiting, mut staying) = (true, true);
        // Errors are the client's going away or garbage: nothing for us to tell anyone.
        loop {
            tokio::select! {
                _ = connection.as_mut() => return,
                () = self.stop.cancelled() => break,
                () = self.face.left.cancelled(), if staying => {
                    staying = false;
                    // GOAWAY loses nothing. HTTP/1.1 has no such word: a request may be on its way just now, so it is
                    // waited for, and the answer says that it was the last one.
                    if client.two.load(Ordering::SeqCst) {
                        break;
                    }
                }
                () = client.leave.notified() => break,
                () = first.as_mut(), if waiting => {
                    if !client.seen.load(Ordering::Relaxed) {
                        return;
                    }
                    waiting = false;
                }
            }
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

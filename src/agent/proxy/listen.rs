//! Listening sockets, all held here: accepting, limits, closing well.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::Route;

/// A client may take so long for a request's head; also how long an unused connection is kept (nginx: 60 and 75 s).
const HEAD: Duration = Duration::from_secs(60);
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
}

/// Which service answers on this listener, by host.
#[derive(Debug, Default)]
pub(super) struct Table {
    by_host: HashMap<String, Arc<Route>>,
    rest: Option<Arc<Route>>,
}

impl Table {
    pub(super) fn find(&self, host: Option<&str>) -> Option<&Arc<Route>> {
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

/// One listening socket; dropped, it accepts no more, and its connections end after their running requests.
#[derive(Debug)]
pub(in crate::agent) struct Listener {
    table: Arc<RwLock<Arc<Table>>>,
    _stop: DropGuard,
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
        let socket = open(address)?;
        let table = Arc::<RwLock<Arc<Table>>>::default();
        let stop = CancellationToken::new();
        let serving = Serving { own: address, table: Arc::clone(&table), stop: stop.clone(), limits: limits.clone() };
        tokio::spawn(serving.accept(socket));
        Ok(Self { table, _stop: stop.drop_guard() })
    }

    /// Sets who answers; an empty list of hosts means all that nobody else has.
    pub(in crate::agent) fn set_routes<'a>(&self, routes: impl Iterator<Item = (&'a [String], &'a Arc<Route>)>) {
        let mut table = Table::default();
        for (hosts, route) in routes {
            if hosts.is_empty() {
                table.rest = Some(Arc::clone(route));
            }
            table.by_host.extend(hosts.iter().map(|h| (h.clone(), Arc::clone(route))));
        }
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
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
    /// A request has come.
    pub seen: AtomicBool,
    /// Counts the connection; tunnels hold on to it.
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug, Clone)]
struct Serving {
    own: SocketAddr,
    table: Arc<RwLock<Arc<Table>>>,
    stop: CancellationToken,
    limits: Limits,
}

impl Serving {
    async fn accept(self, socket: TcpListener) {
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
                () = self.stop.cancelled() => return,
                permit = Arc::clone(&self.limits.connections).acquire_owned() => permit,
            };
            // Never closed.
            let Ok(permit) = permit else { return };
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let client =
                        Arc::new(Client { own: self.own, peer, seen: AtomicBool::new(false), _permit: permit });
                    self.limits.tasks.spawn(self.clone().serve(Arc::clone(&http), stream, client));
                }
                Err(e) => {
                    tracing::warn!(listener = %self.own, error = %e, "can't accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve(self, http: Arc<auto::Builder<TokioExecutor>>, stream: TcpStream, client: Arc<Client>) {
        let _ = stream.set_nodelay(true);
        let (tables, of_requests) = (self.table, Arc::clone(&client));
        let service = service_fn(move |request| {
            let table = Arc::clone(&tables.read().unwrap_or_else(PoisonError::into_inner));
            super::answer(table, Arc::clone(&of_requests), request)
        });
        let connection = http.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        // Until it knows the protocol the server has no timeout of its own.
        let mut first = std::pin::pin!(tokio::time::sleep(HEAD));
        let mut waiting = true;
        // Errors are the client's going away or garbage: nothing for us to tell anyone.
        loop {
            tokio::select! {
                _ = connection.as_mut() => return,
                () = self.stop.cancelled() => break,
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

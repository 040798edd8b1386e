//! Ports for copies, and for listeners whose port the agent chooses.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
};

/// Where no kernel gives out ports by itself: the agent's own outgoing connections could otherwise sit on the port
/// of a copy that is just being started again. Below Kubernetes' node ports.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// A port on 127.0.0.1 that nobody uses.
pub(super) fn free_port(used: &[u16]) -> io::Result<u16> {
    free_port_at(Ipv4Addr::LOCALHOST.into(), used)
}

/// A port that nobody uses at this address.
pub(super) fn free_port_at(ip: IpAddr, used: &[u16]) -> io::Result<u16> {
    // Begins anywhere, so that two agents on one host seldom try the same.
    let count = PORTS.end - PORTS.start;
    let start = u16::try_from(uuid::Uuid::new_v4().as_u128() % u128::from(count)).unwrap_or(0);
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for i in 0..count {
        let port = PORTS.start + (start + i) % count;
        if used.contains(&port) {
            continue;
        }
        match std::net::TcpListener::bind((ip, port)) {
            Ok(_) => return Ok(port),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => last = e,
            Err(e) => return Err(e),
        }
    }
    Err(last)
}

/// Whether a copy could listen there now.
pub(super) fn port_is_free(port: u16) -> bool {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

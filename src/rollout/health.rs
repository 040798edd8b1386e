//! Whether a copy answers, asked directly and not through the public door.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, header::HOST};
use http_body_util::Full;
use tokio::{net::TcpStream, time::timeout};

use super::prober::{connect, words};

/// An answer after this counts as none: the default of Kubernetes' `timeoutSeconds` ("Configure Liveness, Readiness and
/// Startup Probes").
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks once. Without a path it is enough that connections are taken.
///
/// # Errors
/// What was wrong, in words.
pub(in crate::rollout) async fn check(address: SocketAddr, path: Option<&str>) -> Result<(), String> {
    let Some(path) = path else {
        return match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(format!("it does not listen on its PORT ({}): {e}", address.port())),
            Err(_) => Err(format!("it does not take connections on its PORT ({})", address.port())),
        };
    };
    timeout(PATIENCE, get(address, path))
        .await
        .unwrap_or_else(|_| Err(format!("GET {path} was not answered within {} s", PATIENCE.as_secs())))
}

async fn get(address: SocketAddr, path: &str) -> Result<(), String> {
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .header("user-agent", "switchover-health")
        .body(Full::new(Bytes::new()))
        .map_err(|e| format!("health {path:?} is no path: {e}"))?;
    let mut sender = connect(address).await.map_err(|e| format!("GET {path} on port {}: {e}", address.port()))?;
    let answer = sender.send_request(request).await.map_err(|e| format!("GET {path}: {}", words(&e)))?;
    if answer.status().is_success() { Ok(()) } else { Err(format!("GET {path} answered {}", answer.status().as_u16())) }
}

//! A listening socket and the connections that it accepted.
//!
//! Bounded in connections, in the size of headers, and in the time that a
//! client may take to send them. At shutdown no connection is accepted any more,
//! requests that run are answered, and what is left after the grace is dropped.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::address::Peer;

/// Connections at once; below the usual limit of open files, of which the
/// database and the node need some too.
const MAX_CONNECTIONS: usize = 4_096;
/// For a request's head, the wait for the next one on a kept connection
/// included.
const HEAD_TIME: Duration = Duration::from_secs(75);
/// Bytes of a request's head, and of what is read ahead of a body.
const MAX_HEAD: usize = 64 << 10;
/// After a failed accept (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that listens but does not accept yet.
pub(crate) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens; port 0 takes any free one.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// What was bound.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts and serves until it is cancelled, then waits for the requests
    /// that run, `grace` at most.
    pub(crate) async fn serve(self, router: Router, stopping: CancellationToken, grace: Duration) {
        let connections = TaskTracker::new();
        let dropped = CancellationToken::new();
        // Connections do not outlive this future, even when it is dropped.
        let _guard = dropped.clone().drop_guard();
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let accepting = async {
            loop {
                let (stream, peer, permit) = self.accept(&room).await;
                let connection = Connection { stream, peer, permit, stopping: stopping.clone() };
                let served = connection.serve(router.clone());
                connections.spawn(dropped.clone().run_until_cancelled_owned(served));
            }
        };
        tokio::select! {
            () = stopping.cancelled() => {}
            () = accepting => {}
        }
        drop(self.socket);
        connections.close();
        if tokio::time::timeout(grace, connections.wait()).await.is_err() {
            dropped.cancel();
            connections.wait().await;
        }
    }

    async fn accept(&self, room: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
        loop {
            let permit = room.clone().acquire_owned().await.expect("the semaphore is never closed");
            match self.socket.accept().await {
                Ok((stream, peer)) => return (stream, peer, permit),
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
    stopping: CancellationToken,
}

impl Connection {
    async fn serve(self, router: Router) {
        let Self { stream, peer, permit, stopping } = self;
        let _open = Open::new(permit);
        // Answers are small and complete: waiting for more only delays them.
        let _ = stream.set_nodelay(true);
        let service = router.map_request(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            request
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "a connection ended early");
        }
    }
}

/// Counts open connections, and frees their room, however they end.
struct Open {
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        metrics::gauge!("pinfold_http_connections").increment(1.0);
        Self { _permit: permit }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("pinfold_http_connections").decrement(1.0);
    }
}

//! The socket, and the connections that it accepted.
//!
//! Bounded in connections, in the size of a request's head, in the time that a
//! client may take to send it and to take the answer. At shutdown nothing is
//! accepted any more, answers that are being sent have a moment, and what is
//! left is dropped.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Shared, answer, stall::Watched};

/// Connections at once. The block store and the peers need open files too.
const MAX_CONNECTIONS: usize = 1_024;
/// For a request's head, the wait for the next one on a kept connection
/// included.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Bytes of a request's head, about: what came in one read is looked at. A
/// path of 128 names and a few cookies fit.
const MAX_HEAD: usize = 32 << 10;
/// Headers of a request.
const MAX_HEADERS: usize = 64;
/// After a failed accept (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// For answers that are being sent when it stops.
const GRACE: Duration = Duration::from_secs(3);

/// A socket that listens but does not accept yet.
pub(super) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens; port 0 takes any free one.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub(super) async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts and serves until it is stopped.
    pub(super) async fn serve(self, shared: Arc<Shared>, stopping: CancellationToken) {
        let connections = TaskTracker::new();
        let dropped = CancellationToken::new();
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let accepting = async {
            loop {
                let (socket, peer, permit) = self.accept(&room).await;
                let connection = Connection { socket, peer, _open: Open::new(permit) };
                let served = connection.serve(shared.clone(), stopping.clone());
                connections.spawn(dropped.clone().run_until_cancelled_owned(served));
            }
        };
        tokio::select! {
            () = stopping.cancelled() => {}
            () = accepting => {}
        }
        drop(self.socket);
        connections.close();
        if tokio::time::timeout(GRACE, connections.wait()).await.is_err() {
            dropped.cancel();
            connections.wait().await;
        }
    }

    async fn accept(&self, room: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
        loop {
            let permit = room.clone().acquire_owned().await.expect("the semaphore is never closed");
            match self.socket.accept().await {
                Ok((socket, peer)) => return (socket, peer, permit),
                Err(error) => {
                    tracing::warn!(%error, "the gateway did not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

struct Connection {
    socket: TcpStream,
    peer: SocketAddr,
    _open: Open,
}

impl Connection {
    async fn serve(self, shared: Arc<Shared>, stopping: CancellationToken) {
        // Answers come in large pieces: waiting for more only delays the last.
        let _ = self.socket.set_nodelay(true);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let shared = shared.clone();
            async move { Ok::<_, Infallible>(answer::answer(shared, request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(Watched::new(self.socket)), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %self.peer, %error, "a gateway's connection ended early");
        }
    }
}

/// Counts open connections, and frees their room, however they end.
struct Open {
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        metrics::gauge!("pinfold_gateway_connections").increment(1.0);
        Self { _permit: permit }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("pinfold_gateway_connections").decrement(1.0);
    }
}

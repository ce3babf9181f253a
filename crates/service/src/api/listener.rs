//! A listening socket and the connections that it accepted.
//!
//! Bounded in connections, in the size of headers, and in the time that a
//! client may take for a TLS handshake and to send them. At shutdown no
//! connection is accepted any more, requests that run are answered, and what is
//! left after the grace is dropped.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request};
use hyper::{
    body::Incoming,
    rt::{Read, Write},
    server::conn::http1,
};
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

use super::{
    address::Peer,
    tls::{self, Acceptor},
};

/// Connections at once; below the usual limit of open files, of which the
/// database and the node need some too.
const MAX_CONNECTIONS: usize = 4_096;
/// Bytes of a request's head, and of what is read ahead of a body.
const MAX_HEAD: usize = 64 << 10;
/// After a failed accept (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a client may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For a request's head, the wait for the next one on a kept connection
    /// included.
    pub head: Duration,
    /// For a request's body.
    pub body: Duration,
}

impl Default for Timeouts {
    /// Long enough for a bad mobile connection, and for clients that keep a
    /// connection for a minute between two requests.
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(75),
            body: Duration::from_secs(30),
        }
    }
}

/// How a listener treats its connections.
#[derive(Clone)]
pub(crate) struct Terms {
    pub(crate) timeouts: Timeouts,
    /// None: without TLS.
    pub(crate) tls: Option<Acceptor>,
    /// For the requests that run at shutdown.
    pub(crate) grace: Duration,
}

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
    /// that run, [`Terms::grace`] at most.
    pub(crate) async fn serve(self, router: Router, stopping: CancellationToken, terms: Terms) {
        let connections = TaskTracker::new();
        let dropped = CancellationToken::new();
        // Connections do not outlive this future, even when it is dropped.
        let _guard = dropped.clone().drop_guard();
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let accepting = async {
            loop {
                let (stream, peer, permit) = self.accept(&room).await;
                let connection = Connection { peer, stopping: stopping.clone(), terms: terms.clone() };
                let served = connection.serve(stream, permit, router.clone());
                connections.spawn(dropped.clone().run_until_cancelled_owned(served));
            }
        };
        tokio::select! {
            () = stopping.cancelled() => {}
            () = accepting => {}
        }
        drop(self.socket);
        connections.close();
        if tokio::time::timeout(terms.grace, connections.wait()).await.is_err() {
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
    peer: SocketAddr,
    stopping: CancellationToken,
    terms: Terms,
}

impl Connection {
    async fn serve(self, stream: TcpStream, permit: OwnedSemaphorePermit, router: Router) {
        let _open = Open::new(permit);
        // Answers are small and complete: waiting for more only delays them.
        let _ = stream.set_nodelay(true);
        let Some(acceptor) = &self.terms.tls else {
            return self.exchange(TokioIo::new(stream), router).await;
        };
        let handshake = tokio::time::timeout(self.terms.timeouts.handshake, acceptor.accept(stream));
        let accepted = tokio::select! {
            () = self.stopping.cancelled() => return,
            accepted = handshake => accepted.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())),
        };
        match accepted {
            Ok(stream) if tls::is_challenge(&stream) => {}
            Ok(stream) => self.exchange(TokioIo::new(stream), router).await,
            Err(error) => tracing::debug!(peer = %self.peer, %error, "a TLS handshake failed"),
        }
    }

    /// Answers the requests of a connection until it ends.
    async fn exchange(&self, stream: impl Read + Write + Unpin + Send, router: Router) {
        let peer = self.peer;
        let service = router.map_request(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            request
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.terms.timeouts.head)
            .max_buf_size(MAX_HEAD)
            .serve_connection(stream, TowerToHyperService::new(service));
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stopping.cancelled() => {
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

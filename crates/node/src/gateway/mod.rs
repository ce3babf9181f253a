//! The gateway: what is held here, over HTTP.
//!
//! `/ipfs/CID` and paths below it are served as blocks, as CARs (the
//! trustless gateway specification), or as the files and directories that
//! they are (the path gateway specification). Where a domain is given, what a
//! browser renders is moved to an origin of its own, `CID.ipfs.DOMAIN`;
//! elsewhere it is sandboxed, so that one DAG's scripts never reach another's
//! data. Nothing is ever fetched: what is not held is not found.
//!
//! A connection is a task; a request takes one of a bounded number of places
//! and keeps it until its answer is sent. Everything that reads a block or
//! decodes one happens on blocking threads, a few at once, in batches: one
//! is sent while the next is read. An answer that cannot be completed is
//! broken off, never ended as if it were whole.
//!
//! | module | does |
//! |---|---|
//! | `listener`, `stall` | connections, their number and their time |
//! | `request`, `path`, `format`, `range` | what is asked for |
//! | `resolve`, `ipld`, `below` | from a path to a block; what is denied below one |
//! | `answer`, `content`, `headers`, `media`, `directory` | status, headers, pages |
//! | `walk`, `car`, `seen`, `file` | the bytes of CARs and files |
//! | `body`, `pending`, `budget` | batches, and what they may take |

mod answer;
mod below;
mod body;
mod budget;
mod car;
mod content;
mod directory;
mod file;
mod format;
mod headers;
mod ipld;
mod listener;
mod media;
mod path;
mod pending;
mod range;
mod request;
mod resolve;
mod seen;
mod source;
mod stall;
mod walk;

#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::Semaphore;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::serve::Held;

/// Requests that are answered at once. Each may hold two batches of 1 MiB and
/// what its connection buffers.
const MAX_REQUESTS: usize = 128;

/// Settings of a [`Gateway`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens; port 0 takes any free one.
    pub address: SocketAddr,
    /// The domain below which each DAG has its own origin. Its name and those
    /// below `ipfs.` in it must lead here.
    pub domain: Option<String>,
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
#[error("the gateway cannot listen on {address}: {source}; choose another with --gateway")]
pub struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// A running gateway. It stops when it is shut down, or dropped.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    stopping: DropGuard,
    tasks: TaskTracker,
}

impl Gateway {
    /// Listens and begins to serve, on the current tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(settings: Settings, held: Held) -> Result<Self, BindError> {
        Self::with_places(settings, held, MAX_REQUESTS).await
    }

    async fn with_places(settings: Settings, held: Held, places: usize) -> Result<Self, BindError> {
        let Settings { address, domain } = settings;
        let bound = listener::Listener::bind(address).await;
        let listener = bound.map_err(|source| BindError { address, source })?;
        let address = listener.address();
        let stopping = CancellationToken::new();
        let tasks = TaskTracker::new();
        let shared = Shared {
            source: source::Source::new(held),
            domain: domain.map(|domain| domain.trim_matches('.').to_ascii_lowercase()),
            readers: body::Readers::default(),
            budget: budget::Budget::default(),
            places: Arc::new(Semaphore::new(places)),
        };
        tasks.spawn(listener.serve(Arc::new(shared), stopping.clone()));
        tasks.close();
        Ok(Self { address, stopping: stopping.drop_guard(), tasks })
    }

    /// What was bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nothing more, lets what is being answered finish within a few
    /// seconds, and waits. Can be called again.
    pub async fn shutdown(&self) {
        self.stopping.token().cancel();
        self.join().await;
    }

    /// Waits until it has been shut down.
    pub async fn join(&self) {
        self.tasks.wait().await;
    }
}

/// What every request needs.
struct Shared {
    source: source::Source,
    /// In lower case.
    domain: Option<String>,
    readers: body::Readers,
    budget: budget::Budget,
    places: Arc<Semaphore>,
}

//! What behaviour, handlers, handle and sessions share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures::task::AtomicWaker;
use parking_lot::Mutex;

use crate::client::Client;
use crate::metrics::Metrics;
use crate::server::Server;
use crate::{Blocks, Config, Stats};

/// The state of one behaviour. The two locks are never held together, and
/// neither while anything is waited for or read.
pub(crate) struct Shared {
    pub(crate) client: Mutex<Client>,
    pub(crate) server: Mutex<Server>,
    pub(crate) blocks: Arc<dyn Blocks>,
    pub(crate) metrics: Metrics,
    pub(crate) swarm: Arc<AtomicWaker>,
    /// Bytes of blocks that arrived in part, over all connections.
    pub(crate) partial: AtomicUsize,
    /// Open inbound streams.
    pub(crate) streams: AtomicUsize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    pub(crate) fn new(config: Config, blocks: Arc<dyn Blocks>) -> Self {
        let metrics = Metrics::new(&config.metrics_prefix);
        let swarm = Arc::new(AtomicWaker::new());
        Self {
            client: Mutex::new(Client::new(config, metrics.clone(), swarm.clone())),
            server: Mutex::new(Server::new(metrics.clone())),
            blocks,
            metrics,
            swarm,
            partial: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
        }
    }

    pub(crate) fn stats(&self, now: Instant) -> Stats {
        let mut stats = Stats {
            partial_bytes: self.partial.load(Ordering::Relaxed),
            inbound_streams: self.streams.load(Ordering::Relaxed),
            ..Stats::default()
        };
        self.client.lock().fill_stats(&mut stats, now);
        self.server.lock().fill_stats(&mut stats);
        stats
    }

    /// Sets the gauges.
    pub(crate) fn gauge(&self, now: Instant) {
        let stats = self.stats(now);
        self.metrics.inbound_streams.set(stats.inbound_streams as f64);
        self.metrics.partial_bytes.set(stats.partial_bytes as f64);
        self.metrics.served_wants.set(stats.served_wants as f64);
        self.metrics.serving_bytes.set(stats.serving_bytes as f64);
        self.metrics.wants.set(stats.wants as f64);
    }
}

//! How a fetch tells the service where it stands.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use pinfold_core::status::Reason;
use pinfold_node_api::{AllocationId, EventKind};

use crate::agent::Outbox;

/// What the service was last told of a content, from attempt to attempt: a
/// pause between two is no step back.
#[derive(Debug, Default)]
pub(crate) struct Told {
    blocks: AtomicU64,
    bytes: AtomicU64,
}

/// Reports for one content, under whichever generation it is allocated now.
#[derive(Clone)]
pub(crate) struct Reporter {
    outbox: Outbox,
    content: i64,
    generation: Arc<AtomicI64>,
    attempts: u32,
    told: Arc<Told>,
    last: Option<(u64, u64, Reason)>,
}

impl Reporter {
    pub(crate) fn new(
        outbox: Outbox,
        content: i64,
        generation: Arc<AtomicI64>,
        attempts: u32,
        told: Arc<Told>,
    ) -> Self {
        Self { outbox, content, generation, attempts, told, last: None }
    }

    fn allocation(&self) -> AllocationId {
        AllocationId { content: self.content, generation: self.generation.load(Ordering::Relaxed) }
    }

    /// Tells what is fetched so far. Cheap where nothing has changed.
    pub(crate) fn progress(&mut self, blocks: u64, bytes: u64, reason: Reason) {
        let now = (blocks, bytes, reason);
        if self.last != Some(now) {
            self.last = Some(now);
            self.told.blocks.store(blocks, Ordering::Relaxed);
            self.told.bytes.store(bytes, Ordering::Relaxed);
            self.tell(now, None);
        }
    }

    /// Tells when the next attempt begins, in milliseconds since 1970.
    pub(crate) fn waits(&self, reason: Reason, next_attempt_ms: i64) {
        let blocks = self.told.blocks.load(Ordering::Relaxed);
        let bytes = self.told.bytes.load(Ordering::Relaxed);
        self.tell((blocks, bytes, reason), Some(next_attempt_ms));
    }

    fn tell(&self, (blocks, bytes, reason): (u64, u64, Reason), next_attempt_ms: Option<i64>) {
        let attempts = self.attempts;
        let kind = EventKind::Progress { blocks, bytes, reason, attempts, next_attempt_ms };
        self.outbox.progress(self.allocation(), kind);
    }

    /// Asks that the fetch may hold `bytes` in all; it stands still below
    /// `least`.
    pub(crate) fn want_grant(&self, bytes: u64, least: u64) {
        self.outbox.want_grant(self.allocation(), bytes, least);
    }
}

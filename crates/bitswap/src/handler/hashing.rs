//! Hashes received blocks beside the task of their connection, which decrypts
//! and decodes the next ones meanwhile: with large blocks a sender would
//! otherwise wait for each hash.

use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::task::JoinHandle;

use crate::client::Arrivals;
use crate::wire::Prefix;

/// Bytes below which a thread of its own costs more than the hash.
const ASIDE: usize = 128 << 10;

/// Bytes of one connection that are hashed or wait for it; no more is read
/// then.
const MAX_BYTES: usize = 2 << 20;

/// Blocks that are hashed together.
#[derive(Default)]
pub(super) struct Batch {
    blocks: Vec<(Prefix, Bytes)>,
    bytes: usize,
}

impl Batch {
    pub(super) fn push(&mut self, prefix: Prefix, data: Bytes) {
        self.bytes += data.len();
        self.blocks.push((prefix, data));
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn hash_into(self, arrivals: &mut Arrivals) {
        for (prefix, data) in self.blocks {
            match prefix.multihash(&data) {
                Some(hash) => arrivals.blocks.push((hash, data)),
                None => super::count(&mut arrivals.unverifiable, data.len()),
            }
        }
    }
}

/// Batches of one connection that are being hashed.
#[derive(Default)]
pub(super) struct Hashing {
    jobs: FuturesUnordered<JoinHandle<(Arrivals, usize)>>,
    bytes: usize,
}

impl Hashing {
    /// Hashes a batch: a small one at once, a large one on another thread.
    pub(super) fn hash(&mut self, batch: Batch, arrivals: &mut Arrivals) {
        if batch.bytes < ASIDE {
            batch.hash_into(arrivals);
            return;
        }
        self.bytes += batch.bytes;
        self.jobs.push(tokio::task::spawn_blocking(move || {
            let (mut hashed, bytes) = (Arrivals::default(), batch.bytes);
            batch.hash_into(&mut hashed);
            (hashed, bytes)
        }));
    }

    /// Takes what has been hashed meanwhile, and has the task woken when there
    /// is more.
    pub(super) fn take_done(&mut self, cx: &mut Context<'_>, arrivals: &mut Arrivals) {
        while let Poll::Ready(Some(done)) = self.jobs.poll_next_unpin(cx) {
            // Without a result the runtime shuts down.
            let Ok((hashed, bytes)) = done else { continue };
            self.bytes -= bytes;
            arrivals.merge(hashed);
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= MAX_BYTES
    }
}

//! Brings one root's DAG into the store: the walk says what is next, the
//! exchange delivers it, blocking threads verify, derive and store.
//!
//! A link goes this way: looked ahead → probed in the store → held, or wanted
//! from the exchange → arrived → derived and put → found by the walk →
//! consumed in pre-order → referenced, and looked for once more. When all are,
//! the root is completed, and durable.
//!
//! One task owns a transfer. It awaits in one place ([`Transfer::run`]); what
//! comes of an event is applied without waiting.

mod drive;
mod events;
mod flow;
mod jobs;
mod pace;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use pinfold_blockstore::{self as blockstore, Multihash, Store};
use pinfold_core::content::{self, BlockCid, Cid};
use pinfold_core::manifest::Manifest;
use pinfold_core::status::Reason;
use pinfold_node_api::ManifestSummary;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::derive;
use super::exchange::Exchange;
use super::limits::Limits;
use super::report::Reporter;
use super::slots::{Slot, Slots};
use super::walk::{Totals, Walk, WalkError};
use super::workers::Workers;
use crate::denied::Denied;
use flow::Flow;
use jobs::{Arrival, Done, JobError};
use pace::Pace;

/// Arrived and not stored bytes, of all transfers together, at which no more
/// are taken from the exchange; it holds its peers back then.
const IN_MEMORY: u64 = 32 << 20;
/// The least of those that one transfer may have: two of the largest blocks.
const LEAST_IN_MEMORY: u64 = 4 << 20;

/// Supplies taken at a time, when many have arrived.
const SUPPLIES: usize = 64;

/// What a running transfer is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Input {
    /// Bytes of distinct blocks that may be held.
    pub(crate) granted: u64,
    /// Grows with each answer, whether it allowed more or not.
    pub(crate) answers: u64,
    /// No account has quota left.
    pub(crate) refused: Option<Reason>,
}

/// How a transfer ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Every block is held, durably.
    Stored(ManifestSummary),
    /// It can never succeed. Nothing is kept.
    Failed { reason: Reason, detail: String },
    /// No account has quota left. Nothing is kept.
    Refused,
    /// The store is full.
    NoCapacity,
    /// Not everything could be had. What was, is kept.
    Retry { reason: Reason, progressed: bool },
    /// It was told to stop. What was had is kept.
    Cancelled,
    /// The store failed; the sentence is for the log.
    Broken(String),
}

/// What a transfer works with.
pub(crate) struct Setup {
    pub(crate) root: Cid,
    pub(crate) limits: Limits,
    pub(crate) store: Store,
    pub(crate) workers: Workers,
    pub(crate) denied: Denied,
    pub(crate) input: watch::Receiver<Input>,
    pub(crate) report: Reporter,
    pub(crate) slots: Slots,
    pub(crate) fairness: i64,
    pub(crate) repair: bool,
    pub(crate) cancel: CancellationToken,
}

type Job = BoxFuture<'static, Result<Done, JobError>>;

/// Runs a transfer to its end.
pub(crate) async fn run<X: Exchange>(setup: Setup, exchange: &mut X) -> Outcome {
    let (store, key) = (setup.store.clone(), content::ContentKey::of(&setup.root));
    let begun = setup.workers.run(move || store.begin(key.as_bytes())).await;
    let held = match begun {
        Ok(held) => Arc::new(Mutex::new(held)),
        Err(error) => return of_store(&error),
    };
    let mut transfer = Transfer::new(setup, exchange, held);
    let outcome = transfer.run().await.unwrap_or_else(|ended| ended);
    transfer.close(outcome).await
}

impl Outcome {
    /// A word for metrics.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Stored(_) => "stored",
            Self::Failed { .. } => "failed",
            Self::Refused => "refused",
            Self::NoCapacity => "no_capacity",
            Self::Retry { .. } => "retry",
            Self::Cancelled => "cancelled",
            Self::Broken(_) => "broken",
        }
    }
}

struct Transfer<'a, X> {
    setup: Setup,
    exchange: &'a mut X,
    walk: Walk,
    manifest: Option<Manifest>,
    held: Arc<Mutex<blockstore::Walk>>,
    flow: Flow,
    jobs: FuturesUnordered<Job>,
    /// Links that are being probed.
    probing: usize,
    /// Wanted from the exchange: the CIDs that the walk waits for, none where
    /// the block only fills a gap in the store.
    wanted: HashMap<Multihash, Vec<BlockCid>>,
    /// Arrived, to be stored.
    arrivals: VecDeque<Arrival>,
    /// Bytes of `arrivals` and of those that are being stored.
    arriving_bytes: u64,
    storing: usize,
    /// Arrived beyond the grant.
    parked: VecDeque<Arrival>,
    parked_bytes: u64,
    /// Consumed, to be referenced in this order.
    unreferenced: Vec<Multihash>,
    referencing: bool,
    reloading: bool,
    slot: Option<Slot>,
    acquiring: Option<BoxFuture<'static, Slot>>,
    reason: Reason,
    progressed: bool,
    /// The exchange has nobody left to ask.
    exhausted: Option<Reason>,
    last_arrival: Instant,
    last_consumed: Instant,
    began: Instant,
    pace: Pace,
    /// When turns and times are looked at next, however much arrives before.
    look_at: Instant,
    ask_again: Option<Instant>,
    answers: u64,
}

impl<'a, X: Exchange> Transfer<'a, X> {
    fn new(setup: Setup, exchange: &'a mut X, held: Arc<Mutex<blockstore::Walk>>) -> Self {
        let input = *setup.input.borrow();
        Self {
            walk: Walk::new(&setup.root, setup.limits, derive::inline),
            manifest: None,
            held,
            flow: Flow::new(input.granted),
            jobs: FuturesUnordered::new(),
            probing: 0,
            wanted: HashMap::new(),
            arrivals: VecDeque::new(),
            arriving_bytes: 0,
            storing: 0,
            parked: VecDeque::new(),
            parked_bytes: 0,
            unreferenced: Vec::new(),
            referencing: false,
            reloading: false,
            slot: None,
            acquiring: None,
            reason: Reason::Searching,
            progressed: false,
            exhausted: None,
            last_arrival: Instant::now(),
            last_consumed: Instant::now(),
            began: Instant::now(),
            pace: Pace::new(Instant::now()),
            look_at: Instant::now(),
            ask_again: None,
            answers: input.answers,
            setup,
            exchange,
        }
    }

    /// Waits for the next event and applies it, until there is an outcome.
    async fn run(&mut self) -> Result<Outcome, Outcome> {
        let cancel = self.setup.cancel.clone();
        loop {
            let again = self.advance()?;
            let open = self.in_memory() < self.memory_limit();
            let deadline = self.deadline();
            tokio::select! {
                () = cancel.cancelled() => return Ok(Outcome::Cancelled),
                Some(done) = self.jobs.next() => {
                    if let Some(outcome) = self.on_done(done.map_err(of_job)?)? {
                        return Ok(outcome);
                    }
                }
                supply = self.exchange.next(), if open => {
                    self.on_supply(supply);
                    self.take_more();
                }
                changed = self.setup.input.changed() => {
                    changed.map_err(|_| Outcome::Cancelled)?;
                    self.on_input()?;
                }
                slot = acquired(&mut self.acquiring) => self.slot = Some(slot),
                () = tokio::task::yield_now(), if again => {}
                () = tokio::time::sleep_until(deadline) => self.on_time()?,
            }
        }
    }

    /// Takes what has arrived with the last supply, so that all of it is worked
    /// on together.
    fn take_more(&mut self) {
        for _ in 0..SUPPLIES {
            if self.in_memory() >= self.memory_limit() {
                break;
            }
            let Some(supply) = self.exchange.next().now_or_never() else { break };
            self.on_supply(supply);
        }
    }

    fn retry(&self, reason: Reason) -> Outcome {
        Outcome::Retry { reason, progressed: self.progressed }
    }

    fn in_memory(&self) -> u64 {
        self.arriving_bytes + self.parked_bytes
    }

    fn memory_limit(&self) -> u64 {
        (IN_MEMORY / self.setup.slots.moving() as u64).max(LEAST_IN_MEMORY)
    }

    fn walk_totals(&self) -> Totals {
        self.manifest
            .as_ref()
            .map_or_else(|| self.walk.totals(), |done| Totals { blocks: done.blocks, bytes: done.bytes })
    }

    /// Ends the store's walk as the outcome asks. The jobs that run are
    /// awaited first: they hold it too.
    async fn close(mut self, outcome: Outcome) -> Outcome {
        while self.jobs.next().await.is_some() {}
        let keep = !matches!(outcome, Outcome::Failed { .. } | Outcome::Refused);
        let mut waiting = std::mem::take(&mut self.unreferenced);
        waiting.extend(self.walk.waiting());
        let held = self.held.clone();
        drop(self.held);
        let ended = self.setup.workers.run(move || match (keep, Arc::try_unwrap(held)) {
            (true, Ok(_)) if waiting.is_empty() => Ok(()),
            (true, Ok(held)) => held.into_inner().reference(&waiting),
            (false, Ok(held)) => held.into_inner().abandon(),
            (_, Err(_)) => Ok(()),
        });
        match (ended.await, outcome) {
            (Err(error), Outcome::Failed { .. } | Outcome::Refused) => of_store(&error),
            (_, outcome) => outcome,
        }
    }
}

async fn acquired(acquiring: &mut Option<BoxFuture<'static, Slot>>) -> Slot {
    match acquiring {
        Some(slot) => {
            let slot = slot.await;
            *acquiring = None;
            slot
        }
        None => std::future::pending().await,
    }
}

/// A block by its multihash alone.
fn raw(multihash: Multihash) -> BlockCid {
    const RAW: u64 = 0x55;
    BlockCid::new_v1(RAW, multihash)
}

fn summary(manifest: &Manifest) -> ManifestSummary {
    ManifestSummary {
        version: manifest.version,
        root: manifest.root,
        bytes: manifest.bytes,
        blocks: manifest.blocks,
    }
}

fn of_walk(error: &WalkError) -> Outcome {
    let reason = match error {
        WalkError::OverLimit { .. } => Reason::OverLimit,
        WalkError::Denied(_) => Reason::Denied,
        WalkError::Digest(_) | WalkError::Inline(_) | WalkError::Manifest { .. } => Reason::InvalidBlock,
    };
    Outcome::Failed { reason, detail: error.to_string() }
}

fn of_job(error: JobError) -> Outcome {
    match error {
        JobError::Invalid { .. } => {
            Outcome::Failed { reason: Reason::InvalidBlock, detail: error.to_string() }
        }
        JobError::Store(error) => of_store(&error),
    }
}

fn of_store(error: &blockstore::Error) -> Outcome {
    match error {
        blockstore::Error::Full { .. } | blockstore::Error::DiskFull { .. } => Outcome::NoCapacity,
        blockstore::Error::Released => Outcome::Cancelled,
        _ => Outcome::Broken(error.to_string()),
    }
}
